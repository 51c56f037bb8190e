/* What the files of the page store share; io/page_store.h is what they are for.
 *
 * Threads: the server's own (takes jobs, answers them), and for each tier a pool that reads and one that writes, so
 * that neither a slow tier nor a queue of writes stands before a page that is waited for. One lock guards all that they
 * share; nobody holds it while a disk or the compressor is at work. Functions marked (lock) are called with it held. */
#ifndef QR_IO_PAGE_STORE_PARTS_H
#define QR_IO_PAGE_STORE_PARTS_H

#include "io/page_store.h"
#include "io/pool.h"

enum {
    QR_STORE_BLOCK = 4096,
    QR_EXTENT_HEAD_BYTES = 128,
    QR_STORE_MESSAGE_BYTES = 512,
    QR_MOST_STORED_PAGES = 1 << 30,
    QR_STORE_WRITERS_NICE = 5 /* of the tiers below the first: nobody waits for these */
};

/* --- page_store_extents.c: which blocks of a file are in use --- */

/* A run of blocks: a page's, or free. */
typedef struct qr_extent {
    struct qr_extent *before, *after;  /* in the file */
    struct qr_extent *previous, *next; /* free: in its bin */
    int64_t first, blocks;
    int uses; /* 0: free */
    int tier, producer;
    /* What was put there; every read is compared with it. */
    int64_t version;
    uint64_t raw_bytes, stored_bytes, check;
    uint64_t raw_hash[2];
} qr_extent;

typedef struct qr_extents {
    int64_t start;      /* blocks before it are not for pages */
    int64_t end, limit; /* blocks: the file's; most, 0: no limit */
    int64_t used;       /* blocks of pages */
    qr_extent *last;    /* in the file */
    int64_t n_bins;     /* by blocks; the last one holds all that are longer */
    qr_extent **bins;
    uint64_t *filled; /* a bit for each bin */
    qr_extent *spare;
    struct qr_extent_chunk *chunks;
} qr_extents;

/* most_blocks: the longest extent that will be asked for. */
qr_status qr_extents_create(qr_extents *extents, int64_t start, int64_t limit, int64_t most_blocks);
void qr_extents_destroy(qr_extents *extents);

/* The shortest free run that will do, or the end of the file; uses is 1. NULL: full. grows: beyond the end, too. */
qr_extent *qr_extents_take(qr_extents *extents, int64_t blocks, bool grows);
void qr_extents_give(qr_extents *extents, qr_extent *run);

/* --- page_store_file.c: a tier's file --- */

/* What stands at the beginning of an extent, as it lies in memory: no other process reads it. */
typedef struct qr_extent_head {
    uint64_t magic;
    uint64_t identity[2]; /* of the store: XXH3-128 of the file's head */
    uint64_t check;       /* XXH3-64 of the whole extent, with zero in its place */
    int64_t page, version, agents;
    int64_t first_block;
    uint64_t raw_bytes, stored_bytes;
    uint64_t raw_hash[2]; /* XXH3-128 */
    int32_t producer;
    int32_t codec; /* qr_codec_kind, without its checksum; QR_CODEC_NONE: as it is */
} qr_extent_head;

typedef struct qr_page_file {
    char *path;
    int descriptor; /* -1: none */
    uint64_t identity[2];
} qr_page_file;

/* Makes the directory, removes abandoned stores from it, makes and locks the file. */
qr_status qr_page_file_create(const qr_page_store_config *config, int tier, qr_page_file *file);

/* Closes and removes it. */
void qr_page_file_destroy(qr_page_file *file);

/* All of it; an errno, after some retries of what may pass, which are added to *retries. A file that ends early is EIO
 * and *short_read. data: a multiple of blocks, aligned to them. */
int qr_page_file_write(const qr_page_file *file, const void *data, int64_t blocks, int64_t first_block,
                       int64_t *retries);
int qr_page_file_read(const qr_page_file *file, void *data, int64_t blocks, int64_t first_block, bool *short_read,
                      int64_t *retries);

/* --- page_store_pack.c: a page's bytes --- */

/* What a thread works with. */
typedef struct qr_page_bench {
    unsigned char *stored; /* an extent */
    unsigned char *raw;    /* NULL: none */
    size_t stored_room;
    struct qr_page_bench *next;
} qr_page_bench;

qr_status qr_page_bench_create(const qr_page_store_config *config, bool with_raw, qr_page_bench *bench);
void qr_page_bench_destroy(qr_page_bench *bench);

int64_t qr_store_blocks(int64_t bytes);

/* Packs raw behind where the head will be. *head is filled but for what depends on the place; *blocks: its length. */
qr_status qr_page_pack(qr_codec codec, const void *raw, size_t bytes, qr_page_bench *bench, qr_extent_head *head,
                       int64_t *blocks);

/* Puts the head before what is packed; of the extent: what reads are compared with. */
void qr_page_seal(qr_page_bench *bench, qr_extent_head *head, const qr_page_file *file, qr_extent *extent);

/* Whether what was read is what was put; NULL, or what is wrong. */
const char *qr_page_check(qr_page_bench *bench, const qr_page_file *file, const qr_extent *extent, int producer,
                          int64_t page);

/* Of a checked one. NULL, or what is wrong; *status: QR_DATA, or QR_RESOURCE for want of memory. */
const char *qr_page_unpack(const qr_page_bench *bench, void *raw, qr_status *status);

/* --- page_store_table.c: what is known of each page (lock) --- */

typedef struct qr_store_job qr_store_job;

/* A version that stays readable. */
typedef struct qr_page_hold {
    struct qr_page_hold *next;
    int64_t version;
    int count;
    qr_extent *extent; /* NULL: not written yet, or never */
} qr_page_hold;

typedef struct qr_page_entry {
    qr_extent *now;             /* NULL: none */
    qr_store_job *first, *last; /* jobs in order; the first one is at work */
    qr_page_hold *holds;
} qr_page_entry;

typedef struct qr_page_table {
    qr_page_entry *entries;
    size_t n, room;
} qr_page_table;

/* NULL: never heard of. Valid until the table grows. */
qr_page_entry *qr_page_entry_find(qr_page_store *store, int producer, int64_t page);
qr_status qr_page_entry_make(qr_page_store *store, int producer, int64_t page);

void qr_extent_release(qr_page_store *store, qr_extent *extent); /* NULL is allowed */

/* The page is there from now on; the extent's use is the entry's. */
void qr_page_entry_set(qr_page_store *store, qr_page_entry *entry, qr_extent *extent);

/* The extent of a version, now or held; NULL: none. */
qr_extent *qr_page_entry_version(qr_page_entry *entry, int64_t version);

void qr_page_entry_hold(qr_page_store *store, qr_page_entry *entry, int64_t version);
void qr_page_entry_let_go(qr_page_store *store, qr_page_entry *entry, int64_t version);
void qr_page_tables_destroy(qr_page_store *store);

/* --- page_store_work.c: jobs at work --- */

typedef struct qr_store_pool {
    qr_pool *pool;
    int n_benches;
    qr_page_bench *benches;
    uint64_t progress; /* counts steps of its jobs */
    uint64_t acts;     /* numbers what they do at the disk */
    bool stuck;        /* jobs waited for its threads for too long, and there was no progress since */
} qr_store_pool;

struct qr_store_job {
    qr_pool_task task; /* first, so that the pool's pointer is the job's */
    qr_page_store *store;
    qr_store_job *next;      /* of the page */
    qr_store_job *next_done; /* or spare */
    int producer;
    qr_job job;
    int tier;          /* where a put or a sink is tried */
    int waits_for;     /* tier */
    uint64_t act;      /* numbers what it does at a disk; 0: it waits for a thread */
    uint64_t mark;     /* act, or the pool's progress, when the server looked last */
    qr_awake still;    /* server's thread: since that changed */
    qr_extent *source; /* of gets and sinks, with a use */
    qr_extent *place;  /* where a put or a sink will be written, with a use; NULL: not known yet */
    qr_awake waited;   /* server's thread: for places, since anything was let go of; */
    uint64_t let_go;   /* the store's count then, and 1: 0: it has not waited */
    uint64_t frees;    /* the same of places given up, when it was last packed to see how much it needs */
    bool waits;        /* for a place that a checkpoint lets go of */
    qr_store_job *next_waiting;
    qr_store_pool *pool; /* whose thread has it, or will; NULL: none */
    bool in_hand;        /* a thread works with its slot: not to be given up now */
    bool rescues;        /* it cannot be read, and a checkpoint is looked at */
    bool given_up;       /* answered before its thread was done with it */
    bool done;           /* to be answered, or answered */
    bool answered;
    qr_status status;
    int64_t value;
    char message[QR_STORE_MESSAGE_BYTES];
};

typedef struct qr_store_tier {
    bool used;
    qr_codec codec;
    qr_page_file file;
    qr_extents extents;
    int64_t most_blocks; /* of a page */
    bool same_places;    /* every place is so long, as the tier's capacity counts pages: none is lost between others */
    int64_t
        share; /* then: places of each producer. What one keeps for a checkpoint is not in the way of another, whose */
    int64_t *taken; /* pages have to move before that can begin. [n_queues] in use */
    qr_store_pool readers, writers;
    double refuses_until; /* it was full, or could not be written: its file does not grow until then */
    int error;            /* errno of the last write; 0: it went well */
    bool warned;
    qr_page_tier_totals totals;
} qr_store_tier;

struct qr_page_store {
    qr_page_store_config config; /* no strings */
    qr_queue *queues;
    int n_queues;
    pthread_mutex_t lock;
    bool ending;
    qr_page_rescue rescue; /* NULL: none */
    void *rescue_context;
    int rescuing; /* threads that are in it */
    qr_store_tier tiers[QR_N_TIERS];
    qr_page_table *tables; /* by producer */
    qr_page_hold *spare_holds;
    int64_t held;          /* versions that are kept for somebody */
    uint64_t let_go;       /* counts those that are not any more, and whatever else checkpoints get done */
    qr_store_job *waiting; /* for places, oldest first */
    uint64_t frees;        /* counts places that were given up */
    bool freed;            /* a place was given up since they were looked at */
    qr_store_job *jobs;    /* as many as the queues may hold */
    size_t n_jobs;
    qr_store_job *spare;
    qr_store_job *done, **last_done;
    atomic_bool any_done;
    int64_t open;                 /* jobs taken and not answered */
    qr_page_bench *spare_benches; /* of threads that read for themselves */
    double looked;                /* for what hangs; server's thread */
};

/* (lock) A pool's thread is done with it; it may have been answered in between. Places it holds are given up. */
void qr_store_leave_pool(qr_store_job *job, qr_status status, int64_t value);

/* (lock) The same, but the job goes on: with another pool, or waiting. */
void qr_store_leave_thread(qr_store_job *job);

/* (lock) To a thread of a tier; and what it will run for puts and sinks. */
void qr_store_enter_pool(qr_store_job *job, int tier, bool writes, void (*run)(qr_pool_task *, int));
void qr_store_run_write(qr_pool_task *task, int worker);

/* (lock) Begins with the first jobs of the page, as far as these need no disk. */
void qr_store_begin(qr_page_store *store, int producer, int64_t page);

/* (lock) It is over, with this thread's message unless QR_OK: it will be answered, and leaves its page. */
void qr_store_finish(qr_store_job *job, qr_status status, int64_t value);

qr_status qr_store_stuck(const qr_page_file *file);
qr_status qr_store_ending(void);

/* (lock) Answered, and no thread has it. */
void qr_store_recycle(qr_store_job *job);

/* Whether some time has passed since the last one. Server's thread. */
bool qr_store_look_is_due(const qr_page_store *store);

/* (lock) Answers what hangs. */
void qr_store_give_up_hanging(qr_page_store *store);

/* --- page_store_room.c: where a page goes (lock) --- */

/* This tier or the next one below that is used and not stuck; QR_N_TIERS: none. */
int qr_store_usable_tier(const qr_page_store *store, int64_t tier);

/* Hands a put or a sink to the writers of job->tier, or of the first one below that has room. Otherwise it waits, or is
 * over. No thread has it. */
void qr_store_send(qr_store_job *job);

/* A place for it on its tier; false: there is none. */
bool qr_store_find_place(qr_store_job *job, int64_t blocks);

/* Its tier has not taken it; a thread of that tier has it. */
void qr_store_spill(qr_store_job *job);

/* The tier cannot be written: it is left alone for a while, and that is said once. What has room again later is used
 * again. */
void qr_store_refuse(qr_store_tier *tier, int error);

/* Jobs that wait for places get those that were given up; called with the lock whenever that may be. */
void qr_store_serve_waiting(qr_page_store *store);

/* Ends waits that nothing was let go of for too long. Server's thread. */
void qr_store_watch_waiting(qr_page_store *store);

/* --- page_store_work.c --- */

/* Reads an extent that somebody holds, and checks it; tries twice. Without the lock. */
qr_status qr_store_read_extent(qr_page_store *store, const qr_extent *extent, int producer, int64_t page,
                               qr_page_bench *bench);

/* The same, and unpacks it. */
qr_status qr_store_read_raw(qr_page_store *store, const qr_extent *extent, int producer, int64_t page,
                            qr_page_bench *bench, void *raw);

#endif
