/* The I/O server's side of checkpoints. Compute ranks decide together; a server carries out (jobs), and posts how far
 * it is on the board of each of its queues (qr_queue_post). Nothing here fails a job: a tier that cannot be written is
 * FAILED on the board, and the run goes on.
 *
 * Jobs, in the order of a cut; generation and tier stand in arguments[0] and [1] of each:
 *
 *   QR_JOB_CUT_BEGIN: from each producer; step; first, count: its agents; arguments[2]: its pages; flags: its part. A
 *   tier that is still at work on an older cut gives that up. Pages wait until all producers have begun.
 *
 *   QR_JOB_CUT_PAGE: slot with one page; first, count, bytes; arguments[2]: page number within the part; flags:
 *   qr_page_kind. The slot is acknowledged as soon as its bytes are compressed or found unchanged. Without a slot the
 *   page lies in the server's page store (io/page_store.h): flags: qr_page_kind | tier + 1 << QR_CUT_STORED_SHIFT;
 *   arguments[3]: its version, which is kept until it has been read.
 *
 *   QR_JOB_CUT_COMMIT: payload: the manifest's text (in pieces: flags 0 more to come, 1 the last). Makes results
 * durable first (flush), then stores the manifest, then retires old generations. From one producer, and only once
 * READY.
 *
 *   QR_JOB_CUT_ABANDON: removes what there is of the generation on the tier. From one producer, before it begins a
 * newer one; the others may have begun that already.
 *
 *   QR_JOB_CUT_DRAIN: copies the generation, committed on tier arguments[2], to tier arguments[1]. From one producer.
 *
 * A cut or drain ends as READY (sealed, replicated as the consistency asks, all results up to it durable) or FAILED, a
 * commit as COMMITTED or FAILED, an abandoned generation as NONE. A tier is asked for ascending generations: jobs of
 * one that is not above the last are stale, and do nothing (their slots are acknowledged). A generation that failed is
 * not begun again under its number. */
#ifndef QR_IO_CHECKPOINT_H
#define QR_IO_CHECKPOINT_H

#include "io/generation.h"
#include "queue/queue.h"

enum { QR_CUT_STORED_SHIFT = 8 };
enum { QR_TIER_NVME, QR_TIER_SSD, QR_TIER_HDD, QR_N_TIERS };

/* "nvme", "ssd", "hdd". */
const char *qr_tier_name(int tier);

typedef enum qr_cut_state { QR_CUT_NONE, QR_CUT_WRITING, QR_CUT_READY, QR_CUT_COMMITTED, QR_CUT_FAILED } qr_cut_state;

/* One tier's line on the board. */
typedef struct qr_tier_post {
    int64_t generation; /* that state speaks of */
    int32_t state;      /* qr_cut_state */
    int32_t status;     /* qr_status of FAILED */
    qr_generation_seal seal;
    int64_t pages_left; /* of a generation being written */
    /* Since the start of the run: */
    int64_t raw_bytes, stored_bytes, pages_taken_over;
    double compress_s;    /* thread seconds */
    double write_s;       /* in writes, syncs and renames */
    double wall_s;        /* first page to seal */
    int64_t copied_bytes; /* of replicas: pieces that others have written, and that were written for others */
    int64_t retired, damaged;
    char message[256]; /* cause of FAILED */
} qr_tier_post;

typedef struct qr_checkpoint_post {
    qr_tier_post tiers[QR_N_TIERS];
    int64_t pages_in_flight;
    int64_t replicas_missing;   /* copies that could not be made */
    int64_t replicas_in_flight; /* generations whose copies are being made, also after their commit */
    int64_t retirements;        /* tiers on which old generations are being removed, or about to be */
} qr_checkpoint_post;

typedef enum qr_consistency { QR_CONSISTENCY_ONE, QR_CONSISTENCY_QUORUM, QR_CONSISTENCY_ALL } qr_consistency;

typedef struct qr_tier_config {
    const char *directory; /* NULL or "": the tier is not used */
    int64_t capacity;      /* bytes; 0: all there is */
    int64_t keep;          /* generations, 2 or more */
    qr_codec codec;
} qr_tier_config;

/* Plain values, as in qr_io_config; strings are copied. */
typedef struct qr_checkpoint_config {
    bool enabled;
    qr_tier_config tiers[QR_N_TIERS];
    int server, n_servers;
    int64_t state_dim, n_options;
    int64_t page_agents_votes, page_agents_state;
    bool incremental;
    int threads; /* that compress */
    const char *deck_text, *version;
    struct qr_page_store *pages; /* the same server's; stays the caller's. NULL: no page is anywhere but in slots */
    /* Replicas: on how many other servers, which (server numbers, [replicas]), and what counts as done. */
    int replicas;
    const int *replica_servers;
    qr_consistency consistency;
    /* Awake seconds after which a write, a sync or a replica server that does not answer is given up. Less than
     * producers wait for a slot, as slots may stay taken until then. */
    double timeout_s;
} qr_checkpoint_config;

/* How shares travel to other servers: MPI where the server is a rank's main loop, NULL elsewhere. send and poll never
 * block; called by the server's own thread only. io includes no MPI: run provides this. */
typedef struct qr_replica_transport {
    void *context;
    /* Hands over a message of `bytes` for `server`; the memory stays the caller's until *done is set. */
    qr_status (*send)(void *context, int server, const void *data, int64_t bytes, bool *done);
    /* A message that has come: *bytes 0 when there is none; *data is malloc'd, the callee's to free. */
    qr_status (*poll)(void *context, int *server, void **data, int64_t *bytes);
} qr_replica_transport;

typedef struct qr_checkpoint qr_checkpoint;

qr_status qr_checkpoint_create(const qr_checkpoint_config *config, qr_queue *queues, int n_queues,
                               const qr_replica_transport *transport, qr_checkpoint **out);

/* Takes a job; those with a slot are acknowledged later, by qr_checkpoint_turn, the others by the caller. */
void qr_checkpoint_take(qr_checkpoint *checkpoint, int producer, const qr_job *job);

/* True for the kinds above. */
bool qr_checkpoint_takes(const qr_job *job);

/* Acknowledges slots, posts the board, moves replicas. True when there was something to do. Server's thread only. */
bool qr_checkpoint_turn(qr_checkpoint *checkpoint);

/* Whether a cut waits for the results up to its step to be durable, without which it does not become READY; and that
 * they are. */
bool qr_checkpoint_wants_flush(qr_checkpoint *checkpoint);
void qr_checkpoint_flushed(qr_checkpoint *checkpoint);

/* checkpoint_rescue.c: reads a page of states from the newest checkpoint of this attempt on any tier, if that holds the
 * page with this number and this XXH3-128 (low, high) of its bytes. context: the qr_checkpoint. By any thread of the
 * server. */
bool qr_checkpoint_rescue(void *context, int64_t page, const uint64_t hash[2], void *raw, int64_t bytes);

/* A thread hangs in a rescue: the end leaves all that it may use. */
void qr_checkpoint_keep(qr_checkpoint *checkpoint);

/* For the end, when no producer has anything more to say: what is not committed is given up. True while slots are still
 * to be acknowledged, by qr_checkpoint_turn. */
bool qr_checkpoint_clear_slots(qr_checkpoint *checkpoint);

/* Ends all threads; what is not committed is given up. Waits at most patience_s for a thread that hangs in a system
 * call, then leaves it behind and makes qr_io_must_exit_fast true. NULL is allowed. */
void qr_checkpoint_destroy(qr_checkpoint *checkpoint, double patience_s);

#endif
