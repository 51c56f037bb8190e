/* Where everything lies in a queue's memory. For queue/ alone. */
#ifndef QR_QUEUE_LAYOUT_H
#define QR_QUEUE_LAYOUT_H

#include "queue/queue.h"

#include <stdatomic.h>

enum { QR_CACHE_LINE = 64, QR_ANSWER_BYTES = 512 /* room for the message of an answer, by slot */ };

/* One acknowledgement. */
typedef struct ack {
    uint64_t low;
    int64_t value; /* of an answer */
    int32_t slot;
    uint32_t status;
} ack;

/* What a slot was asked with; producer's own. */
typedef struct question {
    uint64_t low; /* id of the job; 0: none */
    int64_t value;
    uint32_t status;
    uint32_t answered;
} question;

/* Who is behind: counters only ever grow, a ring's cell is counter % capacity. Each cache line has a single writer,
 * hence the padding. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct qr_queue_memory {
    uint64_t magic;
    int64_t slot_bytes;
    int32_t n_slots;
    int32_t capacity; /* jobs in each ring; a power of two */
    uint64_t producer;
    /* Bytes from this struct: */
    uint64_t jobs_at, acks_at, uses_at, free_at, questions_at, messages_at, slots_at, total;

    /* Written by the producer. */
    _Alignas(QR_CACHE_LINE) _Atomic uint64_t submitted;
    uint64_t sequence;  /* id of the last job */
    uint64_t collected; /* acknowledgements taken in */
    uint64_t n_free;
    uint32_t failure; /* status of the first failed job; reported once */
    uint32_t reported;

    /* Written by the consumer. */
    _Alignas(QR_CACHE_LINE) _Atomic uint64_t acknowledged;
    _Atomic uint64_t beats;
    _Atomic uint64_t extensions; /* of waits */
    uint64_t taken;
    uint64_t executed;           /* highest id carried out, whatever came of it */
    uint64_t first_failed;       /* id; 0: none */
    uint32_t failed_status;      /* of first_failed */
    _Atomic uint64_t board_turn; /* odd while the board is being written; 0: nothing posted yet */
    _Atomic uint64_t board[QR_BOARD_BYTES / sizeof(uint64_t)];
    char message[QR_MESSAGE_BYTES]; /* of first_failed; stands before its acknowledgement does, never changes after */
};

static inline unsigned char *at(const qr_queue *queue, uint64_t offset)
{
    return (unsigned char *)queue->memory + offset;
}

static inline qr_job *job_cell(const qr_queue *queue, uint64_t counter)
{
    uint64_t cell = counter % (uint64_t)queue->memory->capacity;
    return (qr_job *)(void *)at(queue, queue->memory->jobs_at) + cell;
}

static inline ack *ack_cell(const qr_queue *queue, uint64_t counter)
{
    uint64_t cell = counter % (uint64_t)queue->memory->capacity;
    return (ack *)(void *)at(queue, queue->memory->acks_at) + cell;
}

/* Per slot: how many jobs not yet acknowledged hold it. Producer's own. */
static inline int32_t *slot_uses(const qr_queue *queue)
{
    return (int32_t *)(void *)at(queue, queue->memory->uses_at);
}

/* Stack of free slots. Producer's own. */
static inline int32_t *free_slots(const qr_queue *queue)
{
    return (int32_t *)(void *)at(queue, queue->memory->free_at);
}

static inline question *questions(const qr_queue *queue)
{
    return (question *)(void *)at(queue, queue->memory->questions_at);
}

/* By slot: stands before the answer does. Consumer's own until then. */
static inline char *answer_message(const qr_queue *queue, int32_t slot)
{
    return (char *)at(queue, queue->memory->messages_at) + (size_t)slot * QR_ANSWER_BYTES;
}

static inline bool has_slot(const qr_queue *queue, int32_t slot)
{
    return slot >= 0 && slot < queue->n_slots;
}

#endif
