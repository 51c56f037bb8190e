/* Threads of io: a small pool that compresses, and waits whose bounds count awake time only.
 *
 * Threads of io take no signals; these are the main thread's. */
#ifndef QR_IO_POOL_H
#define QR_IO_POOL_H

#include "base/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Time that passed while this process was awake: a machine may be suspended for minutes, its clock going on. Zeroed
 * before use; at most a second counts between two calls. */
typedef struct qr_awake {
    double looked;
    double seconds;
} qr_awake;
double qr_awake_look(qr_awake *awake);

/* A thread with all signals blocked; an errno. */
int qr_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

/* Waits for a thread that sets *ended as its last act, then joins it; false when *left_s (awake seconds, used up over
 * several calls) is over before: it is left behind. */
bool qr_thread_join(pthread_t thread, const atomic_bool *ended, double *left_s);

/* Whether that ever happened. */
bool qr_threads_left_behind(void);

/* Embedded in what the task works on; the pool owns it from submit until run is called. worker: 0..threads - 1. */
typedef struct qr_pool_task {
    struct qr_pool_task *next;
    void (*run)(struct qr_pool_task *task, int worker);
} qr_pool_task;

typedef struct qr_pool qr_pool;

/* nice: added to the threads' niceness, so that 10 leaves processors to everything else. QR_RESOURCE when no thread can
 * be started; fewer than asked for will do. */
qr_status qr_pool_create(int threads, int nice, qr_pool **out);

/* Before it sleeps, one thread that has nothing to do looks for more for so long, giving way to others: whoever waits
 * for one task after another need not wait for it to wake up. */
void qr_pool_linger(qr_pool *pool, double seconds);

/* In order of submission; never waits. */
void qr_pool_submit(qr_pool *pool, qr_pool_task *task);

/* Ends the threads; tasks that have not begun still run. False when a thread did not end within *left_s: it and the
 * pool are left behind. NULL is allowed. */
bool qr_pool_destroy(qr_pool *pool, double *left_s);

#endif
