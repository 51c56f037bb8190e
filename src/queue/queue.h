/* Jobs between a compute rank and its I/O server: fixed-size descriptors in lock-free single-producer single-consumer
 * rings, beside a slab of payload slots. Everything lies in memory that the caller provides (an MPI shared-memory
 * window, or plain memory when the server is a thread of the same process), holds no pointers, and is position
 * independent.
 *
 * Slots are the credits: a producer without a free slot waits, which is the back-pressure. Every job is acknowledged
 * once with a status; a job with a known id that comes again is acknowledged and not carried out twice. */
#ifndef QR_QUEUE_QUEUE_H
#define QR_QUEUE_QUEUE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QR_JOB_VERSION = 1, QR_JOB_BYTES = 128, QR_NO_SLOT = -1, QR_MOST_SLOTS = 65536, QR_BOARD_BYTES = 4096 };

/* What a job asks for; the payload's layout stands beside each kind in io/io.h. */
typedef enum qr_job_kind {
    QR_JOB_NONE = 0,
    QR_JOB_OPEN,      /* make the results directory and its files; flags 1: precision is fast */
    QR_JOB_SERIES,    /* rows for series.h5 */
    QR_JOB_SNAPSHOT,  /* one block of votes of one snapshot */
    QR_JOB_TEXT,      /* text to append to, or to replace, a file of the results directory */
    QR_JOB_FLUSH,     /* make everything before it durable and readable */
    QR_JOB_FINISH,    /* nothing more will come from this producer */
    QR_JOB_CUT_BEGIN, /* checkpoints: io/checkpoint.h */
    QR_JOB_CUT_PAGE,
    QR_JOB_CUT_COMMIT,
    QR_JOB_CUT_ABANDON,
    QR_JOB_CUT_DRAIN,
    QR_JOB_PAGE_PUT, /* states on disk: io/page_store.h */
    QR_JOB_PAGE_GET,
    QR_JOB_PAGE_SINK,
    QR_JOB_PAGE_DROP,
    QR_JOB_PAGE_TOTALS
} qr_job_kind;

typedef struct qr_job_id {
    uint64_t high; /* producer (compute index) and run */
    uint64_t low;  /* sequence number, ascending per producer */
} qr_job_id;

/* One descriptor; exactly QR_JOB_BYTES. */
typedef struct qr_job {
    uint32_t version;
    uint32_t kind; /* qr_job_kind */
    qr_job_id id;
    int64_t step;
    int64_t first; /* first agent, or first row */
    int64_t count; /* agents, or rows */
    int64_t bytes; /* payload bytes in the slot */
    int32_t slot;  /* QR_NO_SLOT: no payload */
    int32_t flags; /* meaning depends on the kind */
    int64_t arguments[4];
    char name[32]; /* file name for QR_JOB_TEXT, NUL-terminated */
} qr_job;

typedef struct qr_queue_shape {
    int32_t n_slots;
    int64_t slot_bytes; /* rounded up to 4096 */
    uint64_t producer;  /* the high half of its jobs' ids: the compute rank's index */
} qr_queue_shape;

/* One end's handle on a queue. Filled by create/attach; holds pointers into the caller's memory, owns nothing. */
typedef struct qr_queue {
    struct qr_queue_memory *memory;
    unsigned char *slots;
    int64_t slot_bytes;
    int32_t n_slots;
    bool lost; /* producer's end: a wait gave up because the consumer did not answer */
} qr_queue;

/* Bytes of memory a queue of this shape needs, including alignment inside a block that may start anywhere. */
size_t qr_queue_bytes(const qr_queue_shape *shape);

/* The consumer or the producer (one of them, before the other attaches) sets a queue up in `memory`; the other one
 * attaches after a barrier of the caller's choice. Both mappings of the memory must agree modulo 64 bytes. QR_USAGE for
 * a shape out of range, QR_INTERNAL when `bytes` is too small or the memory holds no queue. */
qr_status qr_queue_create(void *memory, size_t bytes, const qr_queue_shape *shape, qr_queue *out);
qr_status qr_queue_attach(void *memory, size_t bytes, qr_queue *out);

/* Most jobs that may be handed over and not acknowledged at one time. */
int32_t qr_queue_capacity(const qr_queue *queue);

/* --- producer's side (one thread) --- */

/* A free slot, or QR_NO_SLOT when all are in use. */
int32_t qr_queue_try_slot(qr_queue *queue);

/* The same, waiting at most timeout_s while the consumer is alive (its heartbeat moves); QR_ENVIRONMENT with a cause
 * when it is not or the time is over, or the status a failed job reported. *waited_s (may be NULL) += time spent. */
qr_status qr_queue_wait_slot(qr_queue *queue, double timeout_s, int32_t *slot, double *waited_s);

/* The payload memory of a slot: slot_bytes bytes, aligned to 4096 in the queue's own mapping. */
void *qr_queue_slot(const qr_queue *queue, int32_t slot);

/* Gives back a slot that was taken and not submitted. */
void qr_queue_return_slot(qr_queue *queue, int32_t slot);

/* Hands a job over; fills version and id. The slot belongs to the consumer until the job is acknowledged. Waits like
 * qr_queue_wait_slot when the ring is full. */
qr_status qr_queue_submit(qr_queue *queue, qr_job *job, double timeout_s);

/* Hands a job over again under the id it has; for a producer that does not know what became of it. */
qr_status qr_queue_resubmit(qr_queue *queue, const qr_job *job, double timeout_s);

/* Hands over a job whose slot stays the producer's: after the answer its payload may be read, then it is given back
 * with qr_queue_return_slot, or asked or submitted with again. What becomes of such a job is told by its answer alone,
 * and is no failure of the queue. Jobs without a slot cannot be asked: QR_INTERNAL for one, or for a malformed job. */
qr_status qr_queue_ask(qr_queue *queue, qr_job *job, double timeout_s);

/* Whether the job asked with this slot has been answered, and how: *status, and *value as the consumer gave it. Never
 * waits. */
bool qr_queue_answered(qr_queue *queue, int32_t slot, qr_status *status, int64_t *value);

/* Waits for that, with the bounds of qr_queue_wait_slot. Returns QR_OK when there is an answer, whatever it says;
 * failures of other jobs are left to qr_queue_collect. */
qr_status qr_queue_wait_answer(qr_queue *queue, int32_t slot, double timeout_s, qr_status *status, int64_t *value);

/* Why the job of this slot failed; valid until the slot is used again. "" when it did not. */
const char *qr_queue_answer_message(const qr_queue *queue, int32_t slot);

/* Takes in acknowledgements and frees their slots, never waits. Returns the first failure reported by the consumer,
 * with its message, once; QR_OK otherwise. */
qr_status qr_queue_collect(qr_queue *queue);

/* Waits until every submitted job has been acknowledged. */
qr_status qr_queue_drain(qr_queue *queue, double timeout_s);

/* What the consumer posted last: a copy that is whole, of the bytes given then; the rest of [bytes] is zeros. Never
 * waits for the consumer; false when nothing has been posted yet, or it is just being replaced (look again later). */
bool qr_queue_read_board(const qr_queue *queue, void *out, size_t bytes);

/* --- consumer's side (one thread) --- */

/* Replaces what stands on the board, at most QR_BOARD_BYTES: how far the consumer is with work that outlives the jobs
 * that asked for it. */
void qr_queue_post(qr_queue *queue, const void *data, size_t bytes);

/* Copies the oldest waiting job that has yet to be carried out; false when there is none. The payload may be read until
 * it is acknowledged. Jobs that were carried out before are acknowledged with QR_OK (from the first failed one on, with
 * that failure), malformed ones with QR_INTERNAL; neither is seen by the caller. */
bool qr_queue_next(qr_queue *queue, qr_job *job);

/* Acknowledges a job that was taken, with its outcome; jobs may be acknowledged in any order; message is used when
 * status is not QR_OK, and is kept for the first failure only. */
void qr_queue_acknowledge(qr_queue *queue, const qr_job *job, qr_status status, const char *message);

/* The same for a job that was asked: its outcome goes to who asked and nowhere else. */
void qr_queue_answer(qr_queue *queue, const qr_job *job, qr_status status, int64_t value, const char *message);

/* To be called at least once a second while alive; the other side watches it move. */
void qr_queue_beat(qr_queue *queue);

/* What is waited for takes long for a reason, and gets on: the bounds of the producer's waits begin anew. */
void qr_queue_extend(qr_queue *queue);

#endif
