/* A generation: the state of all agents after one step, on one tier.
 *
 * Files in a tier's directory, S being the server that wrote its share (agents of the compute ranks it served):
 *
 *   generation-00000012.s003.h5       pages, as HDF5 chunks: groups /part00005 (compute rank) with the attributes
 *                                     first_agent and count, and in each the datasets
 *                                       votes (count) uint8           chunks of page_agents_votes agents
 *                                       state (count, state_dim) f32  chunks of page_agents_state agents
 *                                     Where pages are taken over from an older generation, the chunks stand in
 *                                     votes_written / state_written, and votes / state are virtual datasets over them
 *                                     and over the older files.
 *   generation-00000012.s003.index    where every page lies, and its checksums (layout below)
 *   generation-00000012.manifest      io/manifest.h; written last: a generation without one does not count
 *   ....s003.replica.h5, .index       the same, kept for a server of another node
 *   ....h5.bad                        left by a recovery that found the file damaged: why, in a line of text
 *
 * All integers in the index are little-endian, hashes two of 8 bytes, low first: 8 bytes magic "QRINDEX1", the head (8
 * bytes each: number of records, generation, step, server, kind and level of the codec, state_dim, page_agents_votes,
 * page_agents_state, bytes of the data file), then the records in ascending (part, kind, number), QR_PAGE_RECORD_BYTES
 * each, in the order of the fields of qr_page_record, then metadata_hash (XXH3-128 of all bytes of the data file that
 * are not stored pages), then the XXH3-128 of all before it, and nothing more. A page never changes once its generation
 * is sealed.
 *
 * Readers need no HDF5: they read pages by address. The same pages of the same generation have the same raw_hash on
 * each tier and replica, and stand in the same order, so that one copy can stand in for another page by page. */
#ifndef QR_IO_GENERATION_H
#define QR_IO_GENERATION_H

#include "io/codec.h"

#include <stdbool.h>
#include <stdint.h>

enum { QR_PAGE_RECORD_BYTES = 88, QR_GENERATION_NAME_BYTES = 64 };

typedef enum qr_page_kind { QR_PAGE_VOTES, QR_PAGE_STATE } qr_page_kind;

typedef struct qr_hash {
    uint64_t low, high;
} qr_hash;

typedef struct qr_page_record {
    int32_t part; /* compute rank that sent it */
    int32_t kind; /* qr_page_kind */
    int64_t number;
    int64_t first;      /* first agent, of all agents */
    int64_t count;      /* agents */
    int64_t generation; /* whose file holds the bytes: this one, or an older one of the same server, tier and copy */
    uint64_t address;   /* in that file */
    uint64_t stored_bytes;
    uint64_t raw_bytes;   /* count x 1, or count x state_dim x 4; chunks are padded with zeros to the whole page */
    qr_hash raw_hash;     /* XXH3-128 of the raw_bytes */
    uint64_t stored_hash; /* XXH3-64 of the stored bytes */
} qr_page_record;

/* What a manifest keeps of a share. */
typedef struct qr_generation_seal {
    int64_t data_bytes; /* size of the .h5 file */
    int64_t index_bytes;
    qr_hash content_hash; /* of what the pages hold, wherever they lie: the same for each tier and replica */
    int64_t pages;
    int64_t written_pages; /* those that are not taken over */
    int64_t stored_bytes;  /* of the written pages */
    int64_t raw_bytes;     /* of all pages */
} qr_generation_seal;

/* One part's pages. */
typedef struct qr_generation_part {
    int32_t part;
    int64_t first, count; /* agents */
} qr_generation_part;

/* A share to be written; borrowed for the call that takes it. */
typedef struct qr_generation_plan {
    const char *directory;
    int64_t generation, step;
    int server;
    bool replica;
    qr_codec codec;
    int64_t state_dim;         /* 0: votes only */
    int64_t page_agents_votes; /* agents of a page of votes */
    int64_t page_agents_state;
    const qr_generation_part *parts;
    int n_parts;
    const char *deck, *version; /* attributes of the file */
} qr_generation_plan;

/* Names, without directory. suffix: "h5", "index", "h5.bad". */
void qr_generation_file_name(int64_t generation, int server, bool replica, const char *suffix,
                             char out[QR_GENERATION_NAME_BYTES]);
void qr_generation_manifest_name(int64_t generation, char out[QR_GENERATION_NAME_BYTES]);

/* What a name in a tier's directory stands for. False for files that are not ours. Temporary files (of a writer that
 * was killed) are recognised too. *server is -1 for a manifest and its temporary files. */
typedef enum qr_generation_file_kind {
    QR_FILE_DATA,
    QR_FILE_INDEX,
    QR_FILE_MANIFEST,
    QR_FILE_BAD_MARK,
    QR_FILE_TEMPORARY
} qr_generation_file_kind;
bool qr_generation_parse_name(const char *name, int64_t *generation, int *server, bool *replica,
                              qr_generation_file_kind *kind);

/* --- writing: one thread at a time --- */

typedef struct qr_generation_writer qr_generation_writer;

/* Takes HDF5's lock (io/h5.h) where it needs it, so other threads may use HDF5 for other files meanwhile. */
qr_status qr_generation_writer_create(const qr_generation_plan *plan, qr_generation_writer **out);

/* Stores a page. record: all but generation, address set by the caller; the page is a whole chunk (padded). Pages come
 * in any order. After a failure only destroy. */
qr_status qr_generation_write_page(qr_generation_writer *writer, const qr_page_record *record, const void *stored);

/* Takes a page over from an older generation of the same server, tier and copy: record is that generation's. */
qr_status qr_generation_take_over(qr_generation_writer *writer, const qr_page_record *record);

/* Once every page of the plan is there: closes, makes durable and gives names to data and index (in this order, then
 * the directory). Afterwards only destroy. QR_INTERNAL when pages are missing. */
qr_status qr_generation_seal_files(qr_generation_writer *writer, qr_generation_seal *out);

/* What is not sealed is removed. NULL is allowed. */
void qr_generation_writer_destroy(qr_generation_writer *writer);

/* --- reading --- */

typedef struct qr_generation_reader qr_generation_reader;

/* Opens a share: index and data, of which the index is checked and compared with the seal's content. QR_DATA when it
 * does not fit, or a file that pages lie in is missing. Seals of other tiers and of the replica fit too. */
qr_status qr_generation_open(const char *directory, int64_t generation, int server, bool replica,
                             const qr_generation_seal *seal, qr_generation_reader **out);
void qr_generation_close(qr_generation_reader *reader);

/* [*n] records, owned by the reader. */
const qr_page_record *qr_generation_pages(const qr_generation_reader *reader, size_t *n);

/* Reads page i and checks both of its hashes: QR_DATA naming file and page when one is wrong. raw: record->raw_bytes.
 * Threads may call this side by side; scratch is a buffer of the thread, grown as needed, freed with free(). */
typedef struct qr_page_scratch {
    void *bytes;
    size_t capacity;
} qr_page_scratch;
qr_status qr_generation_read_page(const qr_generation_reader *reader, size_t i, qr_page_scratch *scratch, void *raw);

/* The stored bytes of page i, their hash checked; *stored points into scratch. The codec is qr_generation_codec's. */
qr_status qr_generation_read_stored(const qr_generation_reader *reader, size_t i, qr_page_scratch *scratch,
                                    const void **stored);
qr_codec_kind qr_generation_codec(const qr_generation_reader *reader);

/* Compares all that is not a page (HDF5's own structures in the data file), and the file's size, with the index; only
 * other tools need those. */
qr_status qr_generation_check_metadata(const qr_generation_reader *reader);

/* Pages [first, first + n) will be read soon: the system may begin to fetch them. */
void qr_generation_expect(const qr_generation_reader *reader, size_t first, size_t n);

/* Removes the files of a share, and its bad mark; missing ones are no error. */
qr_status qr_generation_remove(const char *directory, int64_t generation, int server, bool replica);

/* Leaves, removes and looks for the mark of a damaged data file. */
qr_status qr_generation_mark_bad(const char *directory, int64_t generation, int server, bool replica, const char *why);
qr_status qr_generation_unmark(const char *directory, int64_t generation, int server, bool replica);
bool qr_generation_is_marked(const char *directory, int64_t generation, int server, bool replica);

#endif
