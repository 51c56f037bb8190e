/* Job queues: one thread, two threads, two processes. The programs are short enough for ThreadSanitizer. */
#include "queue/queue.h"
#include "queue/wait.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { STRESS_JOBS = 20000, STRESS_SLOTS = 3, STRESS_BYTES = 256 };

static const qr_queue_shape small_shape = {.n_slots = 2, .slot_bytes = 100, .producer = 7};

static void *make_queue(const qr_queue_shape *shape, size_t shift, qr_queue *queue)
{
    size_t bytes = qr_queue_bytes(shape);
    unsigned char *memory = malloc(bytes + shift);
    assert_non_null(memory);
    assert_int_equal(qr_queue_create(memory + shift, bytes, shape, queue), QR_OK);
    return memory;
}

static qr_job job_of(int32_t slot, int64_t bytes)
{
    return (qr_job){.kind = QR_JOB_TEXT, .slot = slot, .bytes = bytes};
}

static void test_descriptor_is_128_bytes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(qr_job), QR_JOB_BYTES);
}

static void test_block_may_start_anywhere(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4096; shift += 41) {
        qr_queue producer;
        qr_queue consumer;
        unsigned char *memory = make_queue(&small_shape, shift, &producer);
        size_t bytes = qr_queue_bytes(&small_shape);
        assert_int_equal(qr_queue_attach(memory + shift, bytes, &consumer), QR_OK);
        assert_int_equal(consumer.slot_bytes, 4096);
        unsigned char *first = qr_queue_slot(&producer, 0);
        unsigned char *last = qr_queue_slot(&producer, 1);
        assert_int_equal((uintptr_t)first % 4096, 0);
        assert_true(last + 4096 <= memory + shift + bytes);
        free(memory);
    }
}

static void test_bad_memory_is_refused(void **state)
{
    (void)state;
    qr_queue queue;
    size_t bytes = qr_queue_bytes(&small_shape);
    unsigned char *memory = calloc(1, bytes);
    assert_int_equal(qr_queue_create(memory, bytes - 1, &small_shape, &queue), QR_INTERNAL);
    assert_int_equal(qr_queue_attach(memory, bytes, &queue), QR_INTERNAL);
    qr_queue_shape wrong = {.n_slots = 0, .slot_bytes = 1};
    assert_int_equal(qr_queue_create(memory, bytes, &wrong, &queue), QR_USAGE);
    assert_int_equal(qr_queue_bytes(&wrong), 0);
    assert_int_equal(qr_queue_create(memory, bytes, &small_shape, &queue), QR_OK);
    assert_int_equal(qr_queue_attach(memory, 4096, &queue), QR_INTERNAL);
    free(memory);
}

static void test_slots_are_credits(void **state)
{
    (void)state;
    qr_queue queue;
    void *memory = make_queue(&small_shape, 0, &queue);
    int32_t a = qr_queue_try_slot(&queue);
    int32_t b = qr_queue_try_slot(&queue);
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    double waited_s = 0;
    int32_t c = QR_NO_SLOT;
    assert_int_equal(qr_queue_wait_slot(&queue, 0.05, &c, &waited_s), QR_ENVIRONMENT);
    assert_non_null(strstr(qr_error_message(), "no sign of life"));
    assert_true(waited_s >= 0.05 && waited_s < 5);
    qr_queue_return_slot(&queue, b);
    assert_int_equal(qr_queue_try_slot(&queue), b);

    qr_job job = job_of(a, 5);
    assert_int_equal(qr_queue_submit(&queue, &job, 1), QR_OK);
    assert_int_equal(job.id.high, 7);
    assert_int_equal(job.id.low, 1);
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    qr_job taken;
    assert_true(qr_queue_next(&queue, &taken));
    assert_int_equal(taken.slot, a);
    assert_false(qr_queue_next(&queue, &taken));
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    qr_queue_acknowledge(&queue, &taken, QR_OK, NULL);
    assert_int_equal(qr_queue_try_slot(&queue), a);
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    free(memory);
}

static void test_full_ring_waits_for_a_bounded_time(void **state)
{
    (void)state;
    qr_queue queue;
    void *memory = make_queue(&small_shape, 0, &queue);
    qr_status status = QR_OK;
    int n = 0;
    qr_queue_beat(&queue);
    for (; n < 10000 && status == QR_OK; n++) {
        qr_job job = job_of(QR_NO_SLOT, 0);
        status = qr_queue_submit(&queue, &job, 0.02);
    }
    assert_int_equal(status, QR_ENVIRONMENT);
    assert_true(n > 2 && n < 10000);
    assert_int_equal(qr_queue_drain(&queue, 0.02), QR_ENVIRONMENT);
    free(memory);
}

static void test_first_failure_is_reported_once(void **state)
{
    (void)state;
    qr_queue queue;
    void *memory = make_queue(&small_shape, 0, &queue);
    qr_job taken;
    for (int i = 0; i < 3; i++) {
        qr_job job = job_of(QR_NO_SLOT, 0);
        assert_int_equal(qr_queue_submit(&queue, &job, 1), QR_OK);
        assert_true(qr_queue_next(&queue, &taken));
        qr_queue_acknowledge(&queue, &taken, i == 0 ? QR_OK : QR_DATA, i == 1 ? "the disk is wet" : "later trouble");
    }
    assert_int_equal(qr_queue_collect(&queue), QR_DATA);
    assert_string_equal(qr_error_message(), "the disk is wet");
    assert_int_equal(qr_queue_collect(&queue), QR_OK);
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    free(memory);
}

static void test_known_job_is_not_carried_out_twice(void **state)
{
    (void)state;
    qr_queue queue;
    void *memory = make_queue(&small_shape, 0, &queue);
    qr_job taken;
    qr_job first = job_of(qr_queue_try_slot(&queue), 9);
    assert_int_equal(qr_queue_submit(&queue, &first, 1), QR_OK);
    assert_int_equal(qr_queue_resubmit(&queue, &first, 1), QR_OK);
    assert_true(qr_queue_next(&queue, &taken));
    qr_queue_acknowledge(&queue, &taken, QR_OK, NULL);
    assert_int_equal(qr_queue_collect(&queue), QR_OK);
    assert_true(qr_queue_try_slot(&queue) != first.slot); /* the second hand-over still holds it */
    assert_false(qr_queue_next(&queue, &taken));
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    assert_int_equal(qr_queue_try_slot(&queue), first.slot);
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);

    qr_job second = job_of(QR_NO_SLOT, 0);
    assert_int_equal(qr_queue_submit(&queue, &second, 1), QR_OK);
    assert_true(qr_queue_next(&queue, &taken));
    qr_queue_acknowledge(&queue, &taken, QR_DATA, "no");
    assert_int_equal(qr_queue_collect(&queue), QR_DATA);
    assert_int_equal(qr_queue_resubmit(&queue, &second, 1), QR_OK);
    assert_false(qr_queue_next(&queue, &taken));
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    free(memory);
}

static void test_malformed_jobs_do_not_reach_the_consumer(void **state)
{
    (void)state;
    qr_job bad[] = {job_of(2, 1),          job_of(-2, 0),         job_of(0, 4097),      job_of(0, -1),
                    job_of(QR_NO_SLOT, 1), job_of(QR_NO_SLOT, 0), job_of(QR_NO_SLOT, 0)};
    memset(bad[5].name, 'x', sizeof bad[5].name);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qr_queue queue;
        void *memory = make_queue(&small_shape, 0, &queue);
        qr_job taken;
        qr_job job = bad[i];
        if (i == 6) { /* another version */
            job.version = QR_JOB_VERSION + 1;
            job.id = (qr_job_id){.high = 7, .low = 1};
            assert_int_equal(qr_queue_resubmit(&queue, &job, 1), QR_OK);
        } else {
            assert_int_equal(qr_queue_submit(&queue, &job, 1), QR_OK);
        }
        assert_false(qr_queue_next(&queue, &taken));
        assert_int_equal(qr_queue_drain(&queue, 1), QR_INTERNAL);
        free(memory);
    }
}

/* --- stress --- */

/* Takes jobs until one of kind FINISH; every payload must be what the descriptor says. Returns the number of faults. */
static int64_t consume(qr_queue *queue)
{
    int64_t faults = 0;
    int64_t expected = 0;
    qr_wait wait = {0};
    double start = qr_now_s();
    for (;;) {
        qr_job job;
        qr_queue_beat(queue);
        if (!qr_queue_next(queue, &job)) {
            if (qr_now_s() - start > 120) {
                return faults + 1000000;
            }
            qr_wait_turn(&wait, 200);
            continue;
        }
        wait.turns = 0;
        faults += job.first != expected++;
        if (job.slot != QR_NO_SLOT) {
            const unsigned char *payload = qr_queue_slot(queue, job.slot);
            for (int64_t i = 0; i < job.bytes; i++) {
                faults += payload[i] != (unsigned char)(job.first * 31 + i);
            }
        }
        qr_queue_acknowledge(queue, &job, QR_OK, NULL);
        if (job.kind == QR_JOB_FINISH) {
            return faults;
        }
    }
}

static int64_t produce(qr_queue *queue)
{
    int64_t faults = 0;
    for (int64_t n = 0; n < STRESS_JOBS; n++) {
        qr_job job = job_of(QR_NO_SLOT, 0);
        job.first = n;
        job.kind = n == STRESS_JOBS - 1 ? QR_JOB_FINISH : QR_JOB_TEXT;
        if (n % 5 != 0) {
            double waited_s = 0;
            if (qr_queue_wait_slot(queue, 100, &job.slot, &waited_s) != QR_OK) {
                return faults + 1;
            }
            job.bytes = 1 + n % STRESS_BYTES;
            unsigned char *payload = qr_queue_slot(queue, job.slot);
            for (int64_t i = 0; i < job.bytes; i++) {
                payload[i] = (unsigned char)(n * 31 + i);
            }
        }
        faults += qr_queue_submit(queue, &job, 100) != QR_OK;
    }
    return faults + (qr_queue_drain(queue, 100) != QR_OK);
}

static void *consumer_thread(void *argument)
{
    int64_t *result = malloc(sizeof *result);
    *result = consume(argument);
    return result;
}

static const qr_queue_shape stress_shape = {.n_slots = STRESS_SLOTS, .slot_bytes = STRESS_BYTES, .producer = 1};

static void test_two_threads(void **state)
{
    (void)state;
    qr_queue producer;
    qr_queue consumer;
    unsigned char *memory = make_queue(&stress_shape, 3, &producer);
    assert_int_equal(qr_queue_attach(memory + 3, qr_queue_bytes(&stress_shape), &consumer), QR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, consumer_thread, &consumer), 0);
    assert_int_equal(produce(&producer), 0);
    void *result = NULL;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal(*(int64_t *)result, 0);
    free(result);
    free(memory);
}

static void test_two_processes(void **state)
{
    (void)state;
    size_t bytes = qr_queue_bytes(&stress_shape);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    qr_queue producer;
    assert_int_equal(qr_queue_create(memory, bytes, &stress_shape, &producer), QR_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        qr_queue consumer;
        _exit(qr_queue_attach(memory, bytes, &consumer) == QR_OK && consume(&consumer) == 0 ? 0 : 1);
    }
    assert_int_equal(produce(&producer), 0);
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    munmap(memory, bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor_is_128_bytes),
        cmocka_unit_test(test_block_may_start_anywhere),
        cmocka_unit_test(test_bad_memory_is_refused),
        cmocka_unit_test(test_slots_are_credits),
        cmocka_unit_test(test_full_ring_waits_for_a_bounded_time),
        cmocka_unit_test(test_first_failure_is_reported_once),
        cmocka_unit_test(test_known_job_is_not_carried_out_twice),
        cmocka_unit_test(test_malformed_jobs_do_not_reach_the_consumer),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_two_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
