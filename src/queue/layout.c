#include "queue/layout.h"

#include <string.h>

_Static_assert(sizeof(qr_job) == QR_JOB_BYTES, "a job descriptor has a fixed size");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics between processes must be lock-free");

enum { PAGE = 4096, LINE = QR_CACHE_LINE, MOST_SLOTS = QR_MOST_SLOTS, SPARE_JOBS = 32 };

static const uint64_t magic = 0x31657565755172ULL;

/* The block may start anywhere, and another process may see it elsewhere: its first bytes say where the queue begins.
 */
typedef struct prologue {
    uint64_t magic;
    uint64_t offset;
} prologue;

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static bool shape_fits(const qr_queue_shape *shape)
{
    return shape->n_slots >= 1 && shape->n_slots <= MOST_SLOTS && shape->slot_bytes >= 1 &&
           shape->slot_bytes <= (INT64_C(1) << 40);
}

static int32_t ring_capacity(int32_t n_slots)
{
    int32_t capacity = SPARE_JOBS;
    while (capacity < n_slots + SPARE_JOBS) {
        capacity *= 2;
    }
    return capacity;
}

/* Places of everything, from the shape; no memory is touched. */
static void lay_out(const qr_queue_shape *shape, struct qr_queue_memory *plan)
{
    plan->n_slots = shape->n_slots;
    plan->slot_bytes = (int64_t)round_up((uint64_t)shape->slot_bytes, PAGE);
    plan->capacity = ring_capacity(shape->n_slots);
    uint64_t capacity = (uint64_t)plan->capacity;
    uint64_t n_slots = (uint64_t)plan->n_slots;
    plan->jobs_at = round_up(sizeof *plan, LINE);
    plan->acks_at = round_up(plan->jobs_at + capacity * sizeof(qr_job), LINE);
    plan->uses_at = round_up(plan->acks_at + capacity * sizeof(ack), LINE);
    plan->free_at = round_up(plan->uses_at + n_slots * sizeof(int32_t), LINE);
    plan->questions_at = round_up(plan->free_at + n_slots * sizeof(int32_t), LINE);
    plan->messages_at = round_up(plan->questions_at + n_slots * sizeof(question), LINE);
    plan->slots_at = round_up(plan->messages_at + n_slots * QR_ANSWER_BYTES, PAGE);
    plan->total = plan->slots_at + n_slots * (uint64_t)plan->slot_bytes;
}

size_t qr_queue_bytes(const qr_queue_shape *shape)
{
    if (!shape_fits(shape)) {
        return 0;
    }
    struct qr_queue_memory plan = {0};
    lay_out(shape, &plan);
    return sizeof(prologue) + PAGE + (size_t)plan.total;
}

int32_t qr_queue_capacity(const qr_queue *queue)
{
    return queue->memory->capacity;
}

static void set_handle(qr_queue *out, struct qr_queue_memory *memory)
{
    out->memory = memory;
    out->slots = (unsigned char *)memory + memory->slots_at;
    out->slot_bytes = memory->slot_bytes;
    out->n_slots = memory->n_slots;
}

qr_status qr_queue_create(void *memory, size_t bytes, const qr_queue_shape *shape, qr_queue *out)
{
    if (!shape_fits(shape)) {
        return qr_error(QR_USAGE, "a job queue of %d slots of %lld bytes is out of range", shape->n_slots,
                        (long long)shape->slot_bytes);
    }
    if (memory == NULL || bytes < qr_queue_bytes(shape)) {
        return qr_error(QR_INTERNAL, "job queue: %zu bytes given, %zu needed", bytes, qr_queue_bytes(shape));
    }
    unsigned char *start = memory;
    uint64_t gap = (PAGE - ((uintptr_t)start + sizeof(prologue)) % PAGE) % PAGE;
    prologue first = {.magic = magic, .offset = sizeof(prologue) + gap};
    struct qr_queue_memory *block = (struct qr_queue_memory *)(void *)(start + first.offset);
    memset(block, 0, sizeof *block);
    lay_out(shape, block);
    block->magic = magic;
    block->producer = shape->producer;
    set_handle(out, block);
    memset(at(out, block->jobs_at), 0, (size_t)(block->slots_at - block->jobs_at));
    block->n_free = (uint64_t)block->n_slots;
    for (int32_t i = 0; i < block->n_slots; i++) {
        free_slots(out)[i] = block->n_slots - 1 - i;
    }
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(start, &first, sizeof first);
    return QR_OK;
}

qr_status qr_queue_attach(void *memory, size_t bytes, qr_queue *out)
{
    prologue first;
    if (memory == NULL || bytes < sizeof first + sizeof(struct qr_queue_memory)) {
        return qr_error(QR_INTERNAL, "job queue: %zu bytes hold no queue", bytes);
    }
    memcpy(&first, memory, sizeof first);
    if (first.magic != magic || first.offset > sizeof first + PAGE) {
        return qr_error(QR_INTERNAL, "job queue: the memory holds no queue");
    }
    unsigned char *block_start = (unsigned char *)memory + first.offset;
    if ((uintptr_t)block_start % LINE != 0) {
        return qr_error(QR_INTERNAL, "job queue: the two mappings of its memory differ in alignment");
    }
    struct qr_queue_memory *block = (struct qr_queue_memory *)(void *)block_start;
    if (block->magic != magic || block->total > bytes - first.offset) {
        return qr_error(QR_INTERNAL, "job queue: %zu bytes hold no whole queue", bytes);
    }
    set_handle(out, block);
    return QR_OK;
}
