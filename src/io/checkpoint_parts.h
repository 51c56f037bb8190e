/* What the files that carry out checkpoints share; io/checkpoint.h is what they are for.
 *
 * Threads: the server's own (takes jobs, acknowledges, posts, sends), one writer a tier (all that may wait for that
 * tier's disk), a pool that hashes and compresses pages of first-tier cuts, and a pool of low priority for each tier
 * that generations are drained to. One lock guards all that they share; nobody holds it while a disk, the compressor or
 * HDF5 is at work. Functions marked (lock) are called with it held. */
#ifndef QR_IO_CHECKPOINT_PARTS_H
#define QR_IO_CHECKPOINT_PARTS_H

#include "io/checkpoint.h"
#include "io/pool.h"

#include <sys/types.h>

/* Packed pages that wait for a tier's disk, at most; after that slots stay taken. Low priority of drains. */
enum { QR_MOST_PACKED = 64, QR_DRAIN_NICE = 10 };
#define QR_MOST_PACKED_BYTES ((size_t)256 << 20)

typedef struct qr_tier qr_tier;
typedef struct qr_cut qr_cut;

/* Room for one packed page. */
typedef struct qr_packed {
    struct qr_packed *next;
    unsigned char bytes[];
} qr_packed;

/* A page on its way from a slot, or from a faster tier, to the disk. */
typedef struct qr_page {
    qr_pool_task task; /* first, so that the pool's pointer is the page's */
    struct qr_page *next;
    qr_cut *cut;
    int producer;        /* whose slot it lies in; -1: no slot, or no more */
    qr_job job;          /* with the slot */
    const void *payload; /* in the slot */
    size_t source;       /* drained: index into the source's pages */
    qr_page_record record;
    qr_packed *packed; /* NULL: not packed yet, or taken over */
    bool taken_over;
    bool has_room; /* counts among the cut's rooms */
    int held_by;   /* producer whose page in the page store is kept for it; -1: none */
} qr_page;

typedef struct qr_page_list {
    qr_page *first, *last;
} qr_page_list;

/* The pages of the generation committed last on a tier, to compare new ones with. */
typedef struct qr_earlier {
    int uses;
    int64_t generation;
    size_t n;
    qr_page_record *records; /* ascending (part, kind, number) */
    size_t n_sources;
    int64_t *sources; /* generations whose files the records lie in */
    bool *spent;      /* [n_sources]: less than half of what that file was written with is still in use */
} qr_earlier;

/* A generation committed in this run. */
typedef struct qr_kept {
    struct qr_kept *next; /* newest first */
    int64_t generation, step;
    qr_generation_seal seal;
    qr_generation_part *parts;
    int n_parts;
    int readers;     /* drains that read it: not to be retired */
    bool everywhere; /* its files reached every replica */
} qr_kept;

/* A cut or a drain, or the removal of one. */
struct qr_cut {
    qr_cut *next;
    qr_tier *tier;
    int64_t generation, step;
    qr_generation_part *parts; /* of producer i, or as in the source */
    int n_parts;               /* 0: not all have begun */
    bool *begun;               /* [n_queues] */
    int n_begun;
    int64_t expected, arrived, done; /* pages; done: written or taken over */
    int64_t taken_over;
    double began;
    qr_earlier *earlier; /* NULL: everything is written */

    qr_tier *from; /* drains: the source, else NULL */
    qr_kept *source;
    qr_generation_reader *reader;
    const qr_page_record *source_pages;
    size_t fed;

    qr_page_list waiting; /* for room: those in slots, which their producer waits for, */
    qr_page_list stored;  /* and those in the page store */
    qr_page_list packed;  /* for the disk */
    int64_t rooms;        /* for packed pages, in use */
    int64_t in_pool;
    qr_packed *spare; /* rooms to use again */

    qr_generation_writer *writer;
    bool in_hand; /* the writer thread is at work on it */
    bool sealed, flushed, ready, given_up, removes, commit;
    qr_generation_seal seal;
    int copies;      /* own and replicas, once sealed */
    bool replicated; /* all replicas made or given up */
    char *manifest;
    size_t manifest_bytes, manifest_room;
    qr_awake still; /* since the last progress */
    int64_t progress, progress_seen;
};

typedef struct qr_outgoing qr_outgoing;
typedef struct qr_incoming qr_incoming;
typedef struct qr_message qr_message;

struct qr_tier {
    qr_checkpoint *owner;
    int number;
    char *directory; /* NULL: not used */
    int64_t capacity, keep;
    qr_codec codec;
    size_t page_bytes[2]; /* of a whole page, by kind */
    size_t room_bytes;
    int64_t most_rooms;

    pthread_t thread;
    bool started;
    atomic_bool ended;
    pthread_cond_t work;
    bool made;       /* the directory */
    bool busy;       /* in a system call, perhaps */
    uint64_t acts;   /* counts what the writer began */
    uint64_t looked; /* acts when the server looked last */
    qr_awake act;    /* time the act has taken */

    qr_cut *cut;    /* what the board speaks of; NULL: nothing at work */
    qr_cut *cuts;   /* all, oldest first; those given up go when the writer gets to them */
    int64_t newest; /* highest generation asked for */
    int64_t retired_below;
    bool retiring; /* files of old generations are being removed */
    bool retire_due;
    qr_kept *kept;
    qr_earlier *earlier;
    int64_t (*written)[2]; /* generation, bytes stored when it was written; those that pages may lie in */
    size_t n_written, written_room;
    qr_pool *pool; /* of drains to this tier; NULL: none yet */
    struct qr_bench *benches;
    qr_tier_post post;

    qr_outgoing *outgoing; /* oldest first; only the first one moves */
    qr_message *arrivals;  /* pieces of replicas to be written, oldest first */
    int n_arrivals;
    int64_t removed;       /* generation abandoned last: nothing of it is wanted */
    qr_incoming *incoming; /* writer's thread only */
};

/* What a pool's thread works with. */
typedef struct qr_bench {
    unsigned char *raw;
    qr_page_scratch scratch;
} qr_bench;

typedef struct qr_done_job {
    int producer;
    qr_job job;
} qr_done_job;

struct qr_checkpoint {
    qr_checkpoint_config config; /* points to the copies below */
    char *deck_text, *version;
    int *replica_servers;
    bool *silent; /* [replicas]: has failed before */
    qr_replica_transport transport;
    bool has_transport;
    qr_queue *queues;
    int n_queues;
    pthread_mutex_t lock;
    bool ending;
    bool kept_by_rescue; /* not to be freed */
    qr_pool *pool;
    qr_bench *benches;
    qr_tier tiers[QR_N_TIERS];
    /* Jobs whose slot is the producer's again; room for all that hold one. */
    qr_done_job *completed, *acknowledging;
    size_t n_completed, completed_room, acknowledging_room;
    int64_t slots_held;
    int64_t replicas_missing;
    int *targets;       /* [replicas] scratch of the server's thread */
    qr_message *outbox; /* answers, oldest first */
    qr_message *limbo;  /* handed to the transport and not needed any more, but not done */
    qr_checkpoint_post posted;
    double posted_at;
    bool changed;
};

/* --- checkpoint.c --- */

/* (lock) The cut on the tier that works on this generation and is not given up; NULL: none. */
qr_cut *qr_cut_find(const qr_tier *tier, int64_t generation);

/* (lock) The tier's line says so, with this thread's message when FAILED. */
void qr_tier_say(qr_tier *tier, int64_t generation, qr_cut_state state, qr_status status);

/* (lock) Takes nothing more; slots become free; the writer clears up. */
void qr_cut_give_up(qr_cut *cut);

/* (lock) The same, and FAILED with this thread's message; nothing when it was given up before. */
void qr_cut_fail(qr_cut *cut, qr_status status);

/* (lock) */
void qr_cut_forget(qr_cut *cut);
qr_cut *qr_cut_new(qr_tier *tier, int64_t generation);
void qr_slot_done(qr_checkpoint *checkpoint, int producer, const qr_job *job);

/* --- checkpoint_pages.c --- */

/* (lock) Takes the job; its slot is acknowledged later in any case. */
void qr_page_take(qr_checkpoint *checkpoint, int producer, const qr_job *job);

/* (lock) Hands waiting pages to the pool while there is room; none before all producers have begun. */
void qr_pages_dispatch(qr_cut *cut);

/* (lock) Frees the page, gives its room back. */
void qr_page_release(qr_page *page);

/* (lock) Drains: makes tasks of source pages while there is room; true when it did any. */
bool qr_pages_feed(qr_cut *cut);

qr_status qr_benches_create(int n, size_t page_bytes, qr_bench **out);
void qr_benches_destroy(qr_bench *benches, int n);

void qr_page_push(qr_page_list *list, qr_page *page);
qr_page *qr_page_pop(qr_page_list *list);

/* Pages that a part of count agents has, of one kind. */
int64_t qr_pages_of(const qr_checkpoint_config *config, int kind, int64_t count);

/* --- checkpoint_writer.c --- */

/* The writer's thread; argument: the tier. */
void *qr_tier_write(void *argument);

/* (lock) Between these the lock is not held, and the tier may be at a disk. */
void qr_tier_leave(qr_tier *tier);
void qr_tier_return(qr_tier *tier);

/* --- checkpoint_earlier.c --- */

/* (lock) Reads the pages of the newest kept generation, or of none, into tier->earlier. */
void qr_earlier_load(qr_tier *tier);
void qr_earlier_release(qr_earlier *earlier);

/* The record of the same page with the same contents, when it may be taken over; NULL: none. */
const qr_page_record *qr_earlier_find(const qr_earlier *earlier, const qr_page_record *record);

/* QR_DATA when a file that pages may be taken over from is gone. */
qr_status qr_earlier_check(const qr_earlier *earlier, const char *directory, int server);

/* (lock) */
qr_kept *qr_kept_find(const qr_tier *tier, int64_t generation);
qr_status qr_kept_add(qr_tier *tier, const qr_cut *cut);
void qr_kept_drop(qr_tier *tier, int64_t generation);
void qr_kept_drop_below(qr_tier *tier, int64_t generation);
void qr_kept_clear(qr_tier *tier);

/* (lock) Generations that drains read; how many of [room]. */
size_t qr_kept_pinned(const qr_tier *tier, int64_t *out, size_t room);

/* A copy in ascending agents, without parts that have none; malloc'd. */
qr_status qr_parts_sort(const qr_generation_part *parts, int n, qr_generation_part **out, int *n_out);

/* --- retire.c: what stands in a tier's directory, whoever wrote it --- */

/* Bytes of all files of ours. */
qr_status qr_tier_used(const char *directory, int64_t *bytes);

/* Removes generations older than the newest `keep` that have a manifest, but for those in pinned, and files that pages
 * of the others do not lie in. *retired: how many manifests went; *below: no older generation is kept. */
qr_status qr_tier_retire(const char *directory, int64_t keep, const int64_t *pinned, size_t n_pinned, int64_t *retired,
                         int64_t *below);

/* Removes all of one generation that this server has in the directory, the manifest first: its share, and replicas of
 * others' shares. */
qr_status qr_tier_remove(const char *directory, int64_t generation, int server);

/* --- replicas.c --- */

/* (lock) Sends the sealed generation to the replica servers, or notes that nothing is to be sent. */
void qr_replicas_begin(qr_cut *cut);

/* Server's thread: sends, receives, gives up on those that do not answer. True when something moved. */
bool qr_replicas_turn(qr_checkpoint *checkpoint);

/* (lock) Writer's thread: one piece read or written; false when there is nothing to do. */
bool qr_replicas_read(qr_tier *tier);
bool qr_replicas_write(qr_tier *tier);

/* (lock) Drops what is under way for a generation to others, and refuses what comes of it. */
void qr_replicas_drop(qr_tier *tier, int64_t generation);

/* Writer's thread: removes what has come of a generation (0: of any) and is not whole. */
void qr_replicas_forget(qr_tier *tier, int64_t generation);

/* Server's thread, with all others ended or left behind. False when the transport still holds messages. */
bool qr_replicas_end(qr_checkpoint *checkpoint, double *left_s);

/* (lock) Generations whose copies are being made. */
int64_t qr_replicas_in_flight(const qr_checkpoint *checkpoint);

#endif
