/* Faults on request, and threads whose waits are bounded by awake time. */
#include "base/fault.h"
#include "base/timer.h"
#include "io/pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_counts(void **state)
{
    (void)state;
    assert_int_equal(qr_fault_set("a.b:ENOSPC@3,c:EIO@2+,d=/tmp/x:EROFS"), QR_OK);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(qr_fault("a.b", NULL), i == 3 ? ENOSPC : 0);
        assert_int_equal(qr_fault("c", "anything"), i >= 2 ? EIO : 0);
        assert_int_equal(qr_fault("a", NULL), 0);
        assert_int_equal(qr_fault("d", i == 3 ? "/tmp/x/y" : "/tmp/y"), i == 3 ? EROFS : 0);
        assert_int_equal(qr_fault("d", NULL), 0);
    }
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    assert_int_equal(qr_fault("c", NULL), 0);
}

static void test_bad_lists(void **state)
{
    (void)state;
    static const char *const bad[] = {"a",       "a:",       ":EIO",      "a:EWHAT", "a:EIO@",   "a:EIO@0",
                                      "a:EIO@x", "a:EIO@1-", "a:EIO@1+2", "a:EIO,,", "a:EIO@-3", "a:EIO,b:no"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qr_fault_set(bad[i]), QR_USAGE);
        assert_non_null(strstr(qr_error_message(), "QUORATE_FAULT: cannot make sense of '"));
        assert_int_equal(qr_fault("a", NULL), 0);
    }
    assert_int_equal(qr_fault_set(NULL), QR_OK);
}

/* In a process of its own: from the environment, and to its end. */
static void test_kill(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        atomic_store(&qr_fault_state, 0);
        setenv("QUORATE_FAULT", "here:kill@2", 1);
        (void)qr_fault("here", NULL);
        (void)qr_fault("there", NULL);
        if (getenv("QUORATE_FAULT") == NULL) {
            _exit(1);
        }
        (void)qr_fault("here", NULL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static atomic_int passed;

static void *pass(void *argument)
{
    (void)qr_fault("gate", NULL);
    atomic_fetch_add(&passed, 1);
    atomic_store((atomic_bool *)argument, true);
    return NULL;
}

/* A thread that hangs is waited for as long as was said, and no longer. */
static void test_patience(void **state)
{
    (void)state;
    static atomic_bool ended;
    pthread_t thread;
    double left_s = 0.2;
    atomic_store(&passed, 0);
    assert_int_equal(qr_fault_set("gate:hang"), QR_OK);
    assert_int_equal(qr_thread_start(&thread, pass, &ended), 0);
    double start = qr_now_s();
    assert_false(qr_threads_left_behind());
    assert_false(qr_thread_join(thread, &ended, &left_s));
    assert_true(qr_now_s() - start >= 0.2);
    assert_true(left_s <= 0.0);
    assert_true(qr_threads_left_behind());
    assert_int_equal(atomic_load(&passed), 0);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    while (!atomic_load(&ended)) {
    }
    assert_int_equal(atomic_load(&passed), 1);
}

/* --- the pool --- */

enum { TASKS = 500, THREADS = 3 };

typedef struct task {
    qr_pool_task task;
    int worker, nice;
} task;

static void run(qr_pool_task *t, int worker)
{
    task *mine = (task *)(void *)t;
    mine->worker = worker;
    mine->nice = getpriority(PRIO_PROCESS, 0);
    atomic_fetch_add(&passed, 1);
}

/* Every task runs once, also those that have not begun when the pool ends; on threads as nice as was asked for. */
static void test_pool(void **state)
{
    (void)state;
    for (int nice = 0; nice <= 10; nice += 10) {
        static task tasks[TASKS];
        qr_pool *pool = NULL;
        double left_s = 60;
        int usual = getpriority(PRIO_PROCESS, 0);
        atomic_store(&passed, 0);
        assert_int_equal(qr_pool_create(THREADS, nice, &pool), QR_OK);
        for (int i = 0; i < TASKS; i++) {
            tasks[i] = (task){.task.run = run, .worker = -1};
            qr_pool_submit(pool, &tasks[i].task);
        }
        assert_true(qr_pool_destroy(pool, &left_s));
        assert_int_equal(atomic_load(&passed), TASKS);
        int expected = usual + nice > 19 ? 19 : usual + nice;
        for (int i = 0; i < TASKS; i++) {
            assert_true(tasks[i].worker >= 0 && tasks[i].worker < THREADS);
            assert_int_equal(tasks[i].nice, expected);
        }
    }
    double none = 0;
    assert_true(qr_pool_destroy(NULL, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts), cmocka_unit_test(test_bad_lists), cmocka_unit_test(test_kill),
        cmocka_unit_test(test_pool),   cmocka_unit_test(test_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
