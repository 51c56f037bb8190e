/* Threads that look for more work before they sleep: every task is carried out, by as many threads as it takes. */
#include "base/timer.h"
#include "io/pool.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { THREADS = 3, ROUNDS = 1000, WAIT_S = 60 };

typedef struct task {
    qr_pool_task task; /* first */
    atomic_int *arrived;
    int wanted; /* it ends when so many are there at once */
    atomic_bool done;
} task;

static void meet(qr_pool_task *given, int worker)
{
    task *t = (task *)(void *)given;
    qr_awake waited = {0};
    assert_in_range(worker, 0, THREADS - 1);
    atomic_fetch_add(t->arrived, 1);
    while (atomic_load(t->arrived) < t->wanted && qr_awake_look(&waited) < WAIT_S) {
        nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
    }
    atomic_store(&t->done, true);
}

static void wait_for(const task *t)
{
    qr_awake waited = {0};
    while (!atomic_load(&t->done)) {
        if (qr_awake_look(&waited) >= WAIT_S) {
            fail_msg("a task was forgotten");
        }
        (void)sched_yield();
    }
}

/* As many tasks at once as there are threads, or fewer, handed over while threads work, look and sleep. */
static void play(double linger_s)
{
    qr_pool *pool = NULL;
    double left_s = WAIT_S;
    unsigned random = 7;
    assert_int_equal(qr_pool_create(THREADS, 0, &pool), QR_OK);
    qr_pool_linger(pool, linger_s);
    for (int round = 0; round < ROUNDS; round++) {
        task tasks[THREADS];
        atomic_int arrived = 0;
        random = random * 1103515245u + 12345u;
        int n = 1 + (int)(random >> 16) % THREADS;
        for (int i = 0; i < n; i++) {
            tasks[i] = (task){.task.run = meet, .arrived = &arrived, .wanted = n};
            qr_pool_submit(pool, &tasks[i].task);
        }
        for (int i = 0; i < n; i++) {
            wait_for(&tasks[i]);
        }
        if (round % 64 == 0) { /* they fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    assert_true(qr_pool_destroy(pool, &left_s));
}

static void test_sleeping_at_once(void **state)
{
    (void)state;
    play(0.0);
}

static void test_lingering(void **state)
{
    (void)state;
    play(100e-6);
}

/* The end does not wait for a thread that looks for more. */
static void test_the_end(void **state)
{
    (void)state;
    qr_pool *pool = NULL;
    atomic_int arrived = 0;
    task t = {.task.run = meet, .arrived = &arrived};
    double left_s = 10;
    assert_int_equal(qr_pool_create(THREADS, 0, &pool), QR_OK);
    qr_pool_linger(pool, 1e6);
    qr_pool_submit(pool, &t.task);
    wait_for(&t);
    assert_true(qr_pool_destroy(pool, &left_s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleeping_at_once),
        cmocka_unit_test(test_lingering),
        cmocka_unit_test(test_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
