/* Random histories of a job queue against a simple model: slots are never in two hands, jobs arrive once and in order,
 * nothing is lost. */
#include "queue/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 2000, MOST_SLOTS = 9, STEPS = 300, MOST_JOBS = STEPS + 1 };

typedef struct model {
    int32_t held[MOST_SLOTS]; /* taken by the producer, not yet submitted */
    int n_held;
    int uses[MOST_SLOTS];   /* by the producer or by jobs not yet collected */
    qr_job jobs[MOST_JOBS]; /* handed over, in order; again: handed over before */
    bool again[MOST_JOBS];
    int n_jobs, n_acknowledged, n_carried_out;
    qr_job taken; /* by the consumer, waiting for its acknowledgement */
    int taken_at; /* -1: none */
    uint64_t executed;
    bool failed;   /* a job failed */
    bool reported; /* and the producer was told */
} model;

static uint64_t state_of_random;

static uint32_t draw(uint32_t n)
{
    state_of_random = state_of_random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state_of_random >> 33) % n;
}

/* The producer has seen everything: slots of acknowledged jobs are free again. */
static void see_acknowledgements(model *m, int *seen)
{
    for (; *seen < m->n_acknowledged; (*seen)++) {
        int32_t slot = m->jobs[*seen].slot;
        if (slot != QR_NO_SLOT) {
            m->uses[slot]--;
        }
    }
}

static void expect_status(model *m, qr_status status)
{
    if (m->failed && !m->reported) {
        assert_int_equal(status, QR_DATA);
        assert_string_equal(qr_error_message(), "first");
        m->reported = true;
    } else {
        assert_int_equal(status, QR_OK);
    }
}

static void take_slot(qr_queue *queue, model *m, int *seen)
{
    int32_t slot = qr_queue_try_slot(queue);
    if (slot == QR_NO_SLOT) {
        see_acknowledgements(m, seen);
        for (int i = 0; i < queue->n_slots; i++) {
            assert_true(m->uses[i] > 0);
        }
        return;
    }
    assert_true(slot >= 0 && slot < queue->n_slots);
    if (m->uses[slot] > 0) {
        see_acknowledgements(m, seen);
    }
    assert_int_equal(m->uses[slot], 0);
    m->uses[slot] = 1;
    m->held[m->n_held++] = slot;
}

static void hand_over(qr_queue *queue, model *m, bool again)
{
    qr_job job = {.kind = QR_JOB_TEXT, .slot = QR_NO_SLOT, .first = m->n_jobs};
    if (again) {
        if (m->n_jobs == 0) {
            return;
        }
        job = m->jobs[draw((uint32_t)m->n_jobs)];
        /* Only while its slot is still the job's own. */
        if (job.slot != QR_NO_SLOT) {
            return;
        }
        assert_int_equal(qr_queue_resubmit(queue, &job, 0), QR_OK);
    } else {
        if (m->n_held > 0 && draw(4) > 0) {
            job.slot = m->held[--m->n_held];
            job.bytes = 8;
            memcpy(qr_queue_slot(queue, job.slot), &job.first, 8);
        }
        assert_int_equal(qr_queue_submit(queue, &job, 0), QR_OK);
    }
    m->again[m->n_jobs] = again;
    m->jobs[m->n_jobs++] = job;
}

static void take_job(qr_queue *queue, model *m)
{
    if (m->taken_at >= 0) {
        return;
    }
    int next = m->n_acknowledged;
    while (next < m->n_jobs && m->jobs[next].id.low <= m->executed) {
        next++;
    }
    bool any = qr_queue_next(queue, &m->taken);
    m->n_acknowledged = next; /* known jobs were acknowledged on the way */
    assert_int_equal(any, next < m->n_jobs);
    if (!any) {
        return;
    }
    assert_false(m->again[next]);
    assert_memory_equal(&m->taken, &m->jobs[next], sizeof m->taken);
    if (m->taken.slot != QR_NO_SLOT) {
        assert_memory_equal(qr_queue_slot(queue, m->taken.slot), &m->taken.first, 8);
    }
    m->taken_at = next;
}

static void acknowledge(qr_queue *queue, model *m)
{
    if (m->taken_at < 0) {
        return;
    }
    bool fails = draw(40) == 0;
    qr_queue_acknowledge(queue, &m->taken, fails ? QR_DATA : QR_OK, m->failed ? "later" : "first");
    m->failed = m->failed || fails;
    m->executed = m->taken.id.low;
    m->n_acknowledged = m->taken_at + 1;
    m->n_carried_out++;
    m->taken_at = -1;
}

static void run_case(uint64_t seed)
{
    state_of_random = seed * 0x9e3779b97f4a7c15ULL + 1;
    qr_queue_shape shape = {
        .n_slots = 1 + (int32_t)draw(MOST_SLOTS), .slot_bytes = 8 + draw(5000), .producer = draw(5)};
    size_t bytes = qr_queue_bytes(&shape);
    size_t shift = draw(5000);
    unsigned char *memory = malloc(bytes + shift);
    qr_queue ends[2];
    model m = {.taken_at = -1};
    int seen = 0;
    assert_int_equal(qr_queue_create(memory + shift, bytes, &shape, &ends[0]), QR_OK);
    assert_int_equal(qr_queue_attach(memory + shift, bytes, &ends[1]), QR_OK);
    for (int step = 0; step < STEPS; step++) {
        switch (draw(8)) {
        case 0:
        case 1: take_slot(&ends[0], &m, &seen); break;
        case 2: hand_over(&ends[0], &m, draw(3) == 0); break;
        case 3:
        case 4: take_job(&ends[1], &m); break;
        case 5:
        case 6: acknowledge(&ends[1], &m); break;
        default:
            expect_status(&m, qr_queue_collect(&ends[0]));
            see_acknowledgements(&m, &seen);
            break;
        }
        if (m.n_jobs - m.n_acknowledged > 20) { /* never more than a ring holds */
            take_job(&ends[1], &m);
            acknowledge(&ends[1], &m);
            expect_status(&m, qr_queue_collect(&ends[0]));
            see_acknowledgements(&m, &seen);
        }
    }
    while (m.n_acknowledged < m.n_jobs) {
        take_job(&ends[1], &m);
        acknowledge(&ends[1], &m);
    }
    expect_status(&m, qr_queue_drain(&ends[0], 0));
    assert_int_equal(qr_queue_drain(&ends[0], 0), QR_OK);
    int fresh = 0;
    for (int i = 0; i < m.n_jobs; i++) {
        fresh += !m.again[i];
    }
    assert_int_equal(m.n_carried_out, fresh);
    for (int i = 0; i < m.n_held; i++) {
        qr_queue_return_slot(&ends[0], m.held[i]);
    }
    for (int i = 0; i < shape.n_slots; i++) {
        assert_true(qr_queue_try_slot(&ends[0]) != QR_NO_SLOT);
    }
    assert_int_equal(qr_queue_try_slot(&ends[0]), QR_NO_SLOT);
    free(memory);
}

static void test_random_histories(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CASES; seed++) {
        run_case(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
