#include "queue/layout.h"
#include "queue/wait.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

/* Longest sleep of a producer that waits; for an answer, on which computing waits, a short one. */
enum { LONGEST_SLEEP_US = 200, ANSWER_SLEEP_US = 50 };

/* A consumer whose heartbeat stands still that long is taken for dead. Much longer than a slow fsync takes. */
static const double silence_s = 60;

/* An answer mostly comes within this time: until then whoever waits only lends its processor to others, as sleeping
 * takes longer than was asked for. */
static const double lend_s = 0.0005;

void *qr_queue_slot(const qr_queue *queue, int32_t slot)
{
    return queue->slots + (int64_t)slot * queue->slot_bytes;
}

/* --- producer --- */

static void release_slot(qr_queue *queue, int32_t slot)
{
    free_slots(queue)[queue->memory->n_free++] = slot;
}

/* Of a job that was asked: its slot stays the producer's, its failure is nobody else's. */
static bool take_answer(question *asked, const ack *cell)
{
    if (asked->low == 0 || asked->low != cell->low) {
        return false;
    }
    asked->value = cell->value;
    asked->status = cell->status;
    asked->answered = 1;
    return true;
}

/* Takes in what the consumer has acknowledged; remembers the first failure. */
static void take_acks(qr_queue *queue)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t ready = atomic_load_explicit(&memory->acknowledged, memory_order_acquire);
    for (; memory->collected < ready; memory->collected++) {
        const ack *cell = ack_cell(queue, memory->collected);
        if (has_slot(queue, cell->slot)) {
            question *asked = &questions(queue)[cell->slot];
            int32_t uses = --slot_uses(queue)[cell->slot];
            if (take_answer(asked, cell)) {
                continue;
            }
            if (uses == 0 && asked->low == 0) {
                release_slot(queue, cell->slot);
            }
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
    int32_t longest_us; /* sleep */
    double looked;      /* clock at the last look */
    double awake_s;     /* since the start */
    double silent_s;    /* since the heartbeat last moved */
    uint64_t beats, beats_at_start, extensions;
    qr_wait wait;
} vigil;

static vigil vigil_begin(const qr_queue *queue, double timeout_s)
{
    vigil v = {.start = qr_now_s(), .limit_s = timeout_s, .longest_us = LONGEST_SLEEP_US};
    v.looked = v.start;
    v.beats = v.beats_at_start = atomic_load_explicit(&queue->memory->beats, memory_order_relaxed);
    v.extensions = atomic_load_explicit(&queue->memory->extensions, memory_order_relaxed);
    return v;
}

static qr_status vigil_turn(vigil *v, qr_queue *queue, const char *what)
{
    qr_wait_turn(&v->wait, v->longest_us);
    double now = qr_now_s();
    double passed = now - v->looked < 1.0 ? now - v->looked : 1.0;
    uint64_t beats = atomic_load_explicit(&queue->memory->beats, memory_order_relaxed);
    uint64_t extensions = atomic_load_explicit(&queue->memory->extensions, memory_order_relaxed);
    v->looked = now;
    v->awake_s = extensions != v->extensions ? 0.0 : v->awake_s + passed;
    v->extensions = extensions;
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
    if (has_slot(queue, slot) && slot_uses(queue)[slot] == 0) {
        questions(queue)[slot].low = 0;
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

/* asked: an answer is waited for; else the slot is given away. */
static void hand_over(qr_queue *queue, const qr_job *job, bool asked)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_relaxed);
    *job_cell(queue, submitted) = *job;
    if (has_slot(queue, job->slot)) {
        slot_uses(queue)[job->slot]++;
        questions(queue)[job->slot] = (question){.low = asked ? job->id.low : 0};
    }
    atomic_store_explicit(&memory->submitted, submitted + 1, memory_order_release);
}

static void number(qr_queue *queue, qr_job *job)
{
    job->version = QR_JOB_VERSION;
    job->id.high = queue->memory->producer;
    job->id.low = ++queue->memory->sequence;
}

qr_status qr_queue_submit(qr_queue *queue, qr_job *job, double timeout_s)
{
    qr_status status = wait_room(queue, timeout_s);
    if (status != QR_OK) {
        return status;
    }
    number(queue, job);
    hand_over(queue, job, false);
    return QR_OK;
}

qr_status qr_queue_resubmit(qr_queue *queue, const qr_job *job, double timeout_s)
{
    qr_status status = wait_room(queue, timeout_s);
    if (status == QR_OK) {
        hand_over(queue, job, false);
    }
    return status;
}

/* --- jobs that are asked --- */

static bool well_formed(const qr_queue *queue, const qr_job *job)
{
    bool slot_fits = job->slot == QR_NO_SLOT ? job->bytes == 0 : has_slot(queue, job->slot);
    return job->version == QR_JOB_VERSION && job->id.high == queue->memory->producer && job->id.low != 0 && slot_fits &&
           job->bytes >= 0 && job->bytes <= queue->slot_bytes && memchr(job->name, '\0', sizeof job->name) != NULL;
}

qr_status qr_queue_ask(qr_queue *queue, qr_job *job, double timeout_s)
{
    qr_status status = wait_room(queue, timeout_s);
    if (status != QR_OK) {
        return status;
    }
    number(queue, job);
    if (!has_slot(queue, job->slot) || slot_uses(queue)[job->slot] != 0 || !well_formed(queue, job)) {
        return qr_error(QR_INTERNAL, "a malformed job was to be asked, or its slot is in use");
    }
    hand_over(queue, job, true);
    return QR_OK;
}

bool qr_queue_answered(qr_queue *queue, int32_t slot, qr_status *status, int64_t *value)
{
    if (!has_slot(queue, slot)) {
        return false;
    }
    const question *asked = &questions(queue)[slot];
    if (asked->low != 0 && !asked->answered) {
        take_acks(queue);
    }
    if (asked->low == 0 || !asked->answered) {
        return false;
    }
    *status = (qr_status)asked->status;
    *value = asked->value;
    return true;
}

qr_status qr_queue_wait_answer(qr_queue *queue, int32_t slot, double timeout_s, qr_status *status, int64_t *value)
{
    if (!has_slot(queue, slot) || questions(queue)[slot].low == 0) {
        return qr_error(QR_INTERNAL, "nothing was asked with slot %d", slot);
    }
    double until = qr_now_s() + lend_s;
    do {
        if (qr_queue_answered(queue, slot, status, value)) {
            return QR_OK;
        }
        (void)sched_yield();
    } while (qr_now_s() < until);
    vigil v = vigil_begin(queue, timeout_s);
    v.longest_us = ANSWER_SLEEP_US;
    qr_status waited = QR_OK;
    while (waited == QR_OK) {
        waited = vigil_turn(&v, queue, "answer");
        if (qr_queue_answered(queue, slot, status, value)) {
            return QR_OK;
        }
    }
    return waited;
}

const char *qr_queue_answer_message(const qr_queue *queue, int32_t slot)
{
    if (!has_slot(queue, slot)) {
        return "";
    }
    const question *asked = &questions(queue)[slot];
    return asked->low != 0 && asked->answered && asked->status != QR_OK ? answer_message(queue, slot) : "";
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

static void put_ack(qr_queue *queue, const qr_job *job, qr_status status, int64_t value)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t acknowledged = atomic_load_explicit(&memory->acknowledged, memory_order_relaxed);
    *ack_cell(queue, acknowledged) =
        (ack){.low = job->id.low, .value = value, .slot = job->slot, .status = (uint32_t)status};
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

bool qr_queue_next(qr_queue *queue, qr_job *job)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t submitted = atomic_load_explicit(&memory->submitted, memory_order_acquire);
    while (memory->taken < submitted) {
        *job = *job_cell(queue, memory->taken++);
        if (!well_formed(queue, job)) {
            keep_failure(memory, job->id.low, QR_INTERNAL, "a malformed job reached the I/O server");
            put_ack(queue, job, QR_INTERNAL, 0);
        } else if (job->id.low <= memory->executed) {
            bool spoilt = memory->first_failed != 0 && job->id.low >= memory->first_failed;
            put_ack(queue, job, spoilt ? (qr_status)memory->failed_status : QR_OK, 0);
        } else {
            return true;
        }
    }
    return false;
}

static void note_executed(struct qr_queue_memory *memory, const qr_job *job)
{
    if (job->id.low > memory->executed) {
        memory->executed = job->id.low;
    }
}

void qr_queue_acknowledge(qr_queue *queue, const qr_job *job, qr_status status, const char *message)
{
    note_executed(queue->memory, job);
    if (status != QR_OK) {
        keep_failure(queue->memory, job->id.low, status, message);
    }
    put_ack(queue, job, status, 0);
}

void qr_queue_answer(qr_queue *queue, const qr_job *job, qr_status status, int64_t value, const char *message)
{
    note_executed(queue->memory, job);
    if (status != QR_OK && has_slot(queue, job->slot)) {
        snprintf(answer_message(queue, job->slot), QR_ANSWER_BYTES, "%s", message != NULL ? message : "a job failed");
    }
    put_ack(queue, job, status, value);
}

void qr_queue_beat(qr_queue *queue)
{
    atomic_fetch_add_explicit(&queue->memory->beats, 1, memory_order_relaxed);
}

void qr_queue_extend(qr_queue *queue)
{
    atomic_fetch_add_explicit(&queue->memory->extensions, 1, memory_order_relaxed);
}
