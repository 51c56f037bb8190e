#include "queue/queue.h"

#include "queue/wait.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(qr_job) == QR_JOB_BYTES, "a job descriptor has a fixed size");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics between processes must be lock-free");

enum { PAGE = 4096, LINE = 64, MOST_SLOTS = QR_MOST_SLOTS, LONGEST_SLEEP_US = 200, SPARE_JOBS = 32 };

/* A consumer whose heartbeat stands still that long is taken for dead. Much longer than a slow fsync takes. */
static const double silence_s = 60;
static const uint64_t magic = 0x31657565755172ULL;

/* One acknowledgement. */
typedef struct ack {
    uint64_t low;
    int32_t slot;
    uint32_t status;
} ack;

/* Who is behind: counters only ever grow, a ring's cell is counter % capacity. Each cache line has a single writer,
 * hence the padding. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct qr_queue_memory {
    uint64_t magic;
    int64_t slot_bytes;
    int32_t n_slots;
    int32_t capacity; /* jobs in each ring; a power of two */
    uint64_t producer;
    uint64_t jobs_at, acks_at, uses_at, free_at, slots_at, total; /* bytes from this struct */

    /* Written by the producer. */
    _Alignas(LINE) _Atomic uint64_t submitted;
    uint64_t sequence;  /* id of the last job */
    uint64_t collected; /* acknowledgements taken in */
    uint64_t n_free;
    uint32_t failure; /* status of the first failed job; reported once */
    uint32_t reported;

    /* Written by the consumer. */
    _Alignas(LINE) _Atomic uint64_t acknowledged;
    _Atomic uint64_t beats;
    uint64_t taken;
    uint64_t executed;           /* highest id carried out, whatever came of it */
    uint64_t first_failed;       /* id; 0: none */
    uint32_t failed_status;      /* of first_failed */
    _Atomic uint64_t board_turn; /* odd while the board is being written; 0: nothing posted yet */
    _Atomic uint64_t board[QR_BOARD_BYTES / sizeof(uint64_t)];
    char message[QR_MESSAGE_BYTES]; /* of first_failed; stands before its acknowledgement does, never changes after */
};

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
    plan->slots_at = round_up(plan->free_at + n_slots * sizeof(int32_t), PAGE);
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

static unsigned char *at(const qr_queue *queue, uint64_t offset)
{
    return (unsigned char *)queue->memory + offset;
}

static qr_job *job_cell(const qr_queue *queue, uint64_t counter)
{
    uint64_t cell = counter % (uint64_t)queue->memory->capacity;
    return (qr_job *)(void *)at(queue, queue->memory->jobs_at) + cell;
}

static ack *ack_cell(const qr_queue *queue, uint64_t counter)
{
    uint64_t cell = counter % (uint64_t)queue->memory->capacity;
    return (ack *)(void *)at(queue, queue->memory->acks_at) + cell;
}

/* Per slot: how many jobs not yet acknowledged hold it. Producer's own. */
static int32_t *slot_uses(const qr_queue *queue)
{
    return (int32_t *)(void *)at(queue, queue->memory->uses_at);
}

/* Stack of free slots. Producer's own. */
static int32_t *free_slots(const qr_queue *queue)
{
    return (int32_t *)(void *)at(queue, queue->memory->free_at);
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

void *qr_queue_slot(const qr_queue *queue, int32_t slot)
{
    return queue->slots + (int64_t)slot * queue->slot_bytes;
}

/* --- producer --- */

static void release_slot(qr_queue *queue, int32_t slot)
{
    free_slots(queue)[queue->memory->n_free++] = slot;
}

/* Takes in what the consumer has acknowledged; remembers the first failure. */
static void take_acks(qr_queue *queue)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t ready = atomic_load_explicit(&memory->acknowledged, memory_order_acquire);
    for (; memory->collected < ready; memory->collected++) {
        const ack *cell = ack_cell(queue, memory->collected);
        if (cell->slot >= 0 && cell->slot < queue->n_slots && --slot_uses(queue)[cell->slot] == 0) {
            release_slot(queue, cell->slot);
        }
        if (cell->status != QR_OK && memory->failure == QR_OK) {
            memory->failure = cell->status;
        }
    }
}

/* The first failure, the first time only. */
static qr_status report(qr_queue *queue)
{
    struct qr_queue_memory *memory = queue->memory;
    if (memory->failure == QR_OK || memory->reported) {
        return QR_OK;
    }
    memory->reported = 1;
    return qr_error((qr_status)memory->failure, "%s", memory->message);
}

qr_status qr_queue_collect(qr_queue *queue)
{
    take_acks(queue);
    return report(queue);
}

/* One wait on the consumer: gives up when time is over or the heartbeat stands still. A machine may be suspended for
 * minutes, its clock going on: only time in which this side was awake counts, a second at most between two looks. */
typedef struct vigil {
    double start, limit_s;
    double looked;   /* clock at the last look */
    double awake_s;  /* since the start */
    double silent_s; /* since the heartbeat last moved */
    uint64_t beats, beats_at_start;
    qr_wait wait;
} vigil;

static vigil vigil_begin(const qr_queue *queue, double timeout_s)
{
    vigil v = {.start = qr_now_s(), .limit_s = timeout_s};
    v.looked = v.start;
    v.beats = v.beats_at_start = atomic_load_explicit(&queue->memory->beats, memory_order_relaxed);
    return v;
}

static qr_status vigil_turn(vigil *v, qr_queue *queue, const char *what)
{
    qr_wait_turn(&v->wait, LONGEST_SLEEP_US);
    double now = qr_now_s();
    double passed = now - v->looked < 1.0 ? now - v->looked : 1.0;
    uint64_t beats = atomic_load_explicit(&queue->memory->beats, memory_order_relaxed);
    v->looked = now;
    v->awake_s += passed;
    v->silent_s = beats != v->beats ? 0.0 : v->silent_s + passed;
    v->beats = beats;
    if (v->awake_s >= v->limit_s) {
        queue->lost = true;
        return qr_error(QR_ENVIRONMENT, "the I/O server gave no %s within %.3g s (%s)", what, v->limit_s,
                        v->beats != v->beats_at_start ? "it is alive, but too slow" : "it shows no sign of life");
    }
    if (v->silent_s >= silence_s) {
        queue->lost = true;
        return qr_error(QR_ENVIRONMENT, "the I/O server shows no sign of life for %.3g s", silence_s);
    }
    return QR_OK;
}

static void add_wait(const vigil *v, double *waited_s)
{
    if (waited_s != NULL) {
        *waited_s += qr_now_s() - v->start;
    }
}

int32_t qr_queue_try_slot(qr_queue *queue)
{
    struct qr_queue_memory *memory = queue->memory;
    if (memory->n_free == 0) {
        take_acks(queue);
    }
    return memory->n_free == 0 ? QR_NO_SLOT : free_slots(queue)[--memory->n_free];
}

qr_status qr_queue_wait_slot(qr_queue *queue, double timeout_s, int32_t *slot, double *waited_s)
{
    qr_status status = qr_queue_collect(queue);
    if (status != QR_OK) {
        return status;
    }
    int32_t found = qr_queue_try_slot(queue);
    if (found == QR_NO_SLOT) {
        vigil v = vigil_begin(queue, timeout_s);
        while (status == QR_OK && found == QR_NO_SLOT) {
            status = vigil_turn(&v, queue, "free slot");
            found = qr_queue_try_slot(queue);
            if (found != QR_NO_SLOT) {
                status = QR_OK;
            }
            qr_status failure = report(queue);
            status = failure != QR_OK ? failure : status;
        }
        add_wait(&v, waited_s);
        if (status != QR_OK) {
            if (found != QR_NO_SLOT) {
                qr_queue_return_slot(queue, found);
            }
            return status;
        }
    }
    *slot = found;
    return QR_OK;
}

void qr_queue_return_slot(qr_queue *queue, int32_t slot)
{
    if (slot >= 0 && slot < queue->n_slots && slot_uses(queue)[slot] == 0) {
        release_slot(queue, slot);
    }
}

/* The consumer never waits for room to acknowledge in: a job is only handed over when both rings have room for it. */
static bool has_room(const qr_queue *queue)
{
    const struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_relaxed);
    return submitted - memory->collected < (uint64_t)memory->capacity;
}

static qr_status wait_room(qr_queue *queue, double timeout_s)
{
    if (has_room(queue)) {
        return QR_OK;
    }
    vigil v = vigil_begin(queue, timeout_s);
    qr_status status = qr_queue_collect(queue);
    while (status == QR_OK && !has_room(queue)) {
        status = vigil_turn(&v, queue, "room for a job");
        qr_status failure = qr_queue_collect(queue);
        if (failure != QR_OK || has_room(queue)) {
            status = failure;
        }
    }
    return status;
}

static void hand_over(qr_queue *queue, const qr_job *job)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_relaxed);
    *job_cell(queue, submitted) = *job;
    if (job->slot >= 0 && job->slot < queue->n_slots) {
        slot_uses(queue)[job->slot]++;
    }
    atomic_store_explicit(&memory->submitted, submitted + 1, memory_order_release);
}

qr_status qr_queue_submit(qr_queue *queue, qr_job *job, double timeout_s)
{
    qr_status status = wait_room(queue, timeout_s);
    if (status != QR_OK) {
        return status;
    }
    job->version = QR_JOB_VERSION;
    job->id.high = queue->memory->producer;
    job->id.low = ++queue->memory->sequence;
    hand_over(queue, job);
    return QR_OK;
}

qr_status qr_queue_resubmit(qr_queue *queue, const qr_job *job, double timeout_s)
{
    qr_status status = wait_room(queue, timeout_s);
    if (status == QR_OK) {
        hand_over(queue, job);
    }
    return status;
}

qr_status qr_queue_drain(qr_queue *queue, double timeout_s)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_relaxed);
    qr_status status = qr_queue_collect(queue);
    vigil v = vigil_begin(queue, timeout_s);
    while (status == QR_OK && memory->collected < submitted) {
        status = vigil_turn(&v, queue, "answer");
        qr_status failure = qr_queue_collect(queue);
        if (failure != QR_OK || memory->collected >= submitted) {
            status = failure;
        }
    }
    return status;
}

/* --- consumer --- */

static void answer(qr_queue *queue, const qr_job *job, qr_status status)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t acknowledged = atomic_load_explicit(&memory->acknowledged, memory_order_relaxed);
    *ack_cell(queue, acknowledged) = (ack){.low = job->id.low, .slot = job->slot, .status = (uint32_t)status};
    atomic_store_explicit(&memory->acknowledged, acknowledged + 1, memory_order_release);
}

static void keep_failure(struct qr_queue_memory *memory, uint64_t id, qr_status status, const char *message)
{
    if (memory->first_failed == 0) {
        memory->first_failed = id != 0 ? id : 1;
        memory->failed_status = (uint32_t)status;
        snprintf(memory->message, sizeof memory->message, "%s", message != NULL ? message : "a job failed");
    }
}

static bool well_formed(const qr_queue *queue, const qr_job *job)
{
    bool slot_fits = job->slot == QR_NO_SLOT ? job->bytes == 0 : job->slot >= 0 && job->slot < queue->n_slots;
    return job->version == QR_JOB_VERSION && job->id.high == queue->memory->producer && job->id.low != 0 && slot_fits &&
           job->bytes >= 0 && job->bytes <= queue->slot_bytes && memchr(job->name, '\0', sizeof job->name) != NULL;
}

bool qr_queue_next(qr_queue *queue, qr_job *job)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_acquire);
    while (memory->taken < submitted) {
        *job = *job_cell(queue, memory->taken++);
        if (!well_formed(queue, job)) {
            keep_failure(memory, job->id.low, QR_INTERNAL, "a malformed job reached the I/O server");
            answer(queue, job, QR_INTERNAL);
        } else if (job->id.low <= memory->executed) {
            bool spoilt = memory->first_failed != 0 && job->id.low >= memory->first_failed;
            answer(queue, job, spoilt ? (qr_status)memory->failed_status : QR_OK);
        } else {
            return true;
        }
    }
    return false;
}

void qr_queue_acknowledge(qr_queue *queue, const qr_job *job, qr_status status, const char *message)
{
    struct qr_queue_memory *memory = queue->memory;
    if (job->id.low > memory->executed) {
        memory->executed = job->id.low;
    }
    if (status != QR_OK) {
        keep_failure(memory, job->id.low, status, message);
    }
    answer(queue, job, status);
}

void qr_queue_beat(qr_queue *queue)
{
    atomic_fetch_add_explicit(&queue->memory->beats, 1, memory_order_relaxed);
}

/* --- board: a sequence lock, whose readers give up rather than wait --- */

enum { BOARD_WORDS = QR_BOARD_BYTES / sizeof(uint64_t) };

void qr_queue_post(qr_queue *queue, const void *data, size_t bytes)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t words[BOARD_WORDS] = {0};
    memcpy(words, data, bytes < QR_BOARD_BYTES ? bytes : QR_BOARD_BYTES);
    uint64_t turn = atomic_load_explicit(&memory->board_turn, memory_order_relaxed);
    atomic_store_explicit(&memory->board_turn, turn + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < BOARD_WORDS; i++) {
        atomic_store_explicit(&memory->board[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&memory->board_turn, turn + 2, memory_order_release);
}

bool qr_queue_read_board(const qr_queue *queue, void *out, size_t bytes)
{
    const struct qr_queue_memory *memory = queue->memory;
    uint64_t words[BOARD_WORDS];
    uint64_t before = atomic_load_explicit(&memory->board_turn, memory_order_acquire);
    if (before == 0 || before % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < BOARD_WORDS; i++) {
        words[i] = atomic_load_explicit(&memory->board[i], memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&memory->board_turn, memory_order_relaxed) != before) {
        return false;
    }
    memset(out, 0, bytes);
    memcpy(out, words, bytes < QR_BOARD_BYTES ? bytes : QR_BOARD_BYTES);
    return true;
}
