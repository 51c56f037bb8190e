#include "io/pool.h"

#include "base/memory.h"
#include "base/timer.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { JOIN_TURN_US = 500 };

typedef struct worker {
    qr_pool *pool;
    pthread_t thread;
    atomic_bool ended;
    int number;
} worker;

struct qr_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    qr_pool_task *first, **last;
    bool ending;
    double linger_s; /* 0: threads sleep at once */
    bool lingers;    /* one does */
    atomic_bool any; /* there is a task, or the end */
    int nice;
    int n_workers;
    worker workers[];
};

double qr_awake_look(qr_awake *awake)
{
    double now = qr_now_s();
    if (awake->looked != 0.0) {
        awake->seconds += now - awake->looked < 1.0 ? now - awake->looked : 1.0;
    }
    awake->looked = now;
    return awake->seconds;
}

int qr_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static atomic_bool left_behind;

bool qr_threads_left_behind(void)
{
    return atomic_load(&left_behind);
}

bool qr_thread_join(pthread_t thread, const atomic_bool *ended, double *left_s)
{
    const struct timespec pause = {.tv_nsec = JOIN_TURN_US * 1000L};
    qr_awake waited = {0};
    while (!atomic_load(ended)) {
        if (qr_awake_look(&waited) >= *left_s) {
            *left_s = 0.0;
            atomic_store(&left_behind, true);
            pthread_detach(thread);
            return false;
        }
        nanosleep(&pause, NULL);
    }
    *left_s -= waited.seconds;
    pthread_join(thread, NULL);
    return true;
}

/* (lock, given up in between) */
static void linger(qr_pool *pool)
{
    pool->lingers = true;
    atomic_store(&pool->any, false);
    pthread_mutex_unlock(&pool->lock);
    double until = qr_now_s() + pool->linger_s;
    while (!atomic_load(&pool->any) && qr_now_s() < until) {
        (void)sched_yield();
    }
    pthread_mutex_lock(&pool->lock);
    pool->lingers = false;
}

static void *work(void *argument)
{
    worker *me = argument;
    qr_pool *pool = me->pool;
    if (pool->nice != 0) {
        /* On Linux niceness is a thread's own. */
        id_t id = (id_t)syscall(SYS_gettid);
        (void)setpriority(PRIO_PROCESS, id, getpriority(PRIO_PROCESS, id) + pool->nice);
    }
    bool fresh = false; /* it has just been at work */
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        if (pool->first == NULL && !pool->ending && fresh && pool->linger_s > 0.0 && !pool->lingers) {
            linger(pool);
        }
        while (pool->first == NULL && !pool->ending) {
            pthread_cond_wait(&pool->work, &pool->lock);
        }
        fresh = true;
        qr_pool_task *task = pool->first;
        if (task == NULL) {
            break;
        }
        pool->first = task->next;
        if (pool->first == NULL) {
            pool->last = &pool->first;
        }
        pthread_mutex_unlock(&pool->lock);
        task->run(task, me->number);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    atomic_store(&me->ended, true);
    return NULL;
}

qr_status qr_pool_create(int threads, int nice, qr_pool **out)
{
    qr_pool *pool = NULL;
    size_t n = threads < 1 ? 1 : (size_t)threads;
    qr_status status = qr_allocate(1, sizeof *pool + n * sizeof(worker), "a pool of threads", (void **)&pool);
    if (status != QR_OK) {
        return status;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->last = &pool->first;
    pool->nice = nice;
    int error = 0;
    while (pool->n_workers < (int)n && error == 0) {
        worker *next = &pool->workers[pool->n_workers];
        next->pool = pool;
        next->number = pool->n_workers;
        error = qr_thread_start(&next->thread, work, next);
        pool->n_workers += error == 0 ? 1 : 0;
    }
    if (pool->n_workers == 0) {
        double no_time = 0.0;
        (void)qr_pool_destroy(pool, &no_time);
        return qr_error(QR_RESOURCE, "threads that compress cannot be started: %s", strerror(error));
    }
    *out = pool;
    return QR_OK;
}

void qr_pool_submit(qr_pool *pool, qr_pool_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->last = task;
    pool->last = &task->next;
    bool is_taken = pool->lingers && pool->first == task; /* by the one that lingers: others may sleep on */
    atomic_store(&pool->any, true);
    if (!is_taken) {
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
}

void qr_pool_linger(qr_pool *pool, double seconds)
{
    pthread_mutex_lock(&pool->lock);
    pool->linger_s = seconds;
    pthread_mutex_unlock(&pool->lock);
}

bool qr_pool_destroy(qr_pool *pool, double *left_s)
{
    if (pool == NULL) {
        return true;
    }
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    atomic_store(&pool->any, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    bool all = true;
    for (int i = 0; i < pool->n_workers; i++) {
        all = qr_thread_join(pool->workers[i].thread, &pool->workers[i].ended, left_s) && all;
    }
    if (all) {
        pthread_cond_destroy(&pool->work);
        pthread_mutex_destroy(&pool->lock);
        free(pool);
    }
    return all;
}
