/* The I/O server's store of state pages: what the tiers nvme, ssd and hdd of page/pager.h hold. Not a checkpoint: a
 * store is of use to the very process that filled it, and to nobody else. Its files begin with what it is, whose it is
 * and when; what an earlier run or attempt left behind is recognised and removed.
 *
 * Files: DIRECTORY/pages.<run id>.s<server>.a<attempt>.<tier>.qps, one per tier and server, locked (flock) while its
 * process lives. After the head, which is text, extents of whole 4 KiB blocks, each with a head of its own (magic,
 * store, page, version, sizes, codec, XXH3-64 of the whole extent, XXH3-128 of the raw page) and a page compressed by
 * io/codec.h. Every read checks all of it: QR_DATA names file and page. A page that does not shrink is stored as it is.
 *
 * Jobs; the producer keeps the slot, and learns what became of each job by qr_queue_answered (queue/queue.h):
 *
 *   QR_JOB_PAGE_PUT: slot with a page; bytes; arguments: page number within the part, tier, version, agents. Compressed
 *   and written by the server's threads. Where the tier is full (its capacity, or ENOSPC) or cannot be written, it goes
 *   to the next one below; the answer's value is the tier that took it. While all are full and a checkpoint keeps
 *   versions (below), it waits for their places as long as these get fewer; then QR_RESOURCE, or QR_DATA when one of
 *   them cannot be written. The page's older version is dropped, when the new one is written, or before where there is
 *   no room for both.
 *
 *   QR_JOB_PAGE_GET: slot to be filled; bytes: what is expected; arguments: page, tier, version. QR_DATA when it is not
 *   what was put. A transient EIO or a short read is tried again. The page stays in the store until it is dropped or
 * put again; it is read from where it is, whatever tier the job says. The answer's value is that tier.
 *
 *   QR_JOB_PAGE_SINK: no slot needed, but one is given for the answer: moves a page from tier arguments[1] to
 *   arguments[3], which must be below; arguments[2]: version. The answer's value is the tier where it is, also when no
 *   lower one had room (QR_RESOURCE). bytes is 0.
 *
 *   QR_JOB_PAGE_DROP: no slot, no answer: forgets page arguments[0] with its version arguments[2].
 *
 *   QR_JOB_PAGE_TOTALS: slot to be filled with qr_page_tier_totals [QR_N_TIERS], as far as the store is by now.
 *
 * Jobs of one page are carried out in the order in which they came. What hangs is answered with QR_TRANSIENT after
 * timeout_s, and its slot not touched any more. */
#ifndef QR_IO_PAGE_STORE_H
#define QR_IO_PAGE_STORE_H

#include "io/checkpoint.h"
#include "queue/queue.h"

typedef struct qr_page_tier_config {
    const char *directory; /* NULL or "": not used */
    int64_t capacity;      /* bytes in which pages may lie, qr_page_store_place_bytes each; 0: all there is */
    qr_codec codec;
} qr_page_tier_config;

/* Strings are copied. */
typedef struct qr_page_store_config {
    qr_page_tier_config tiers[QR_N_TIERS];
    const char *run_id;
    int server, attempt;
    int threads;      /* for each tier: that decompress and read, and as many that compress and write */
    int64_t most_raw; /* bytes of the largest page */
    double timeout_s; /* awake seconds after which an operation that hangs is given up */
} qr_page_store_config;

/* One tier, since creation. */
typedef struct qr_page_tier_totals {
    int64_t pages, stored_bytes;                    /* now */
    int64_t put, got, sunk;                         /* pages */
    int64_t raw_in, stored_in, raw_out, stored_out; /* bytes written, read */
    double write_s, read_s, pack_s, unpack_s;       /* thread seconds */
    int64_t retries, spilt;                         /* operations tried again; pages that went a tier further down */
} qr_page_tier_totals;

typedef struct qr_page_store qr_page_store;

/* What a page of up to raw_bytes takes of a tier's capacity, whatever it shrinks to: a capacity of so many bytes for
 * each always has room for all. */
int64_t qr_page_store_place_bytes(int64_t raw_bytes);

/* Makes the directories, removes stores of earlier runs that are nobody's any longer (their process is gone), makes the
 * files; they are unlinked at the end, and by whoever finds them after a kill. QR_ENVIRONMENT with the directory.
 *
 * It is made before the I/O server, as a restart fills pages while no server runs yet, and handed to it
 * (qr_io_config.pages, a qr_page_store *; NULL: none): the server serves it, and neither makes nor destroys it. */
qr_status qr_page_store_create(const qr_page_store_config *config, qr_queue *queues, int n_queues, qr_page_store **out);

/* Bytes in a directory that stores take which are nobody's any longer: making one there gives them back. */
int64_t qr_page_store_abandoned_bytes(const char *directory);

/* Removes these; how many bytes. */
int64_t qr_page_store_clean(const char *directory);

/* `quorate info`: prints what is known of a page file, and whether a run still uses it; of all in a directory. False
 * when there is none. */
bool qr_page_store_report(const char *path);
bool qr_page_stores_report(const char *directory);

bool qr_page_store_takes(const qr_job *job);

/* Whether a job has been taken and not answered: the server had better look again soon. Server's thread only. */
bool qr_page_store_busy(const qr_page_store *store);

/* Takes a job; all are answered later, by qr_page_store_turn. */
void qr_page_store_take(qr_page_store *store, int producer, const qr_job *job);

/* Answers jobs that are done. True when there was something to do. Server's thread only. */
bool qr_page_store_turn(qr_page_store *store);

/* For checkpoints, which read pages where they lie (QR_JOB_CUT_PAGE without a slot): from here on this version is kept,
 * whatever is put in its place, dropped or sunk, until as many qr_page_store_release of it. Called by the server's
 * thread when it takes the job, and jobs of one page come in order: what was put before is held, be it written yet or
 * not. Nothing when there is no such version: the read will say so. What is held is to be let go of without anything
 * that producers are yet to do: they may be waiting for it. */
void qr_page_store_hold(qr_page_store *store, int producer, int64_t page, int64_t version);
/* The checkpoint gets on, if not with these: whoever waits for their places goes on waiting. By any thread. */
void qr_page_store_gets_on(qr_page_store *store);
void qr_page_store_release(qr_page_store *store, int producer, int64_t page, int64_t version); /* by any thread */

/* Where a page may be found that cannot be read any more: raw [bytes] is set to what has this XXH3-128 (low, high), or
 * false is returned. Called by threads of the store, without a lock; what hangs there is given up like a read. NULL:
 * nowhere. False while a thread is in the one before: its context must stay. */
typedef bool (*qr_page_rescue)(void *context, int64_t page, const uint64_t hash[2], void *raw, int64_t bytes);
bool qr_page_store_set_rescue(qr_page_store *store, qr_page_rescue rescue, void *context);

/* For a checkpoint that wants a page as it is now: unpacked and checked, into raw [bytes]. By any thread of the server.
 */
qr_status qr_page_store_read(qr_page_store *store, int producer, int64_t page, int tier, int64_t version, void *raw,
                             int64_t bytes);

/* The XXH3-128 (low, high) of a version, as it was put; false when it is not known: not there, or not written yet. By
 * any thread of the server. */
bool qr_page_store_hash(qr_page_store *store, int producer, int64_t page, int64_t version, uint64_t hash[2]);

void qr_page_store_totals(qr_page_store *store, qr_page_tier_totals totals[QR_N_TIERS]);

/* Ends all threads and removes the files; waits at most patience_s, as qr_checkpoint_destroy does. NULL is allowed. */
void qr_page_store_destroy(qr_page_store *store, double patience_s);

#endif
