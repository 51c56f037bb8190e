#include "io/page_service.h"

#include "base/memory.h"
#include "io/pool.h"
#include "queue/wait.h"

#include <stdlib.h>
#include <string.h>

/* Longest sleep when nothing is asked, and while something is at work; jobs taken from one producer before the next one
 * has its turn. */
enum { IDLE_US = 500, BUSY_US = 20, JOBS_A_TURN = 8 };

struct qr_page_service {
    qr_page_store *store;
    qr_queue *queues;
    int n_queues;
    pthread_t thread;
    atomic_bool going;
};

static bool serve_queue(qr_page_service *service, int producer)
{
    qr_queue *queue = &service->queues[producer];
    qr_job job;
    int n = 0;
    for (; n < JOBS_A_TURN && qr_queue_next(queue, &job); n++) {
        if (qr_page_store_takes(&job)) {
            qr_page_store_take(service->store, producer, &job);
        } else {
            qr_status status = qr_error(QR_INTERNAL, "a job of kind %u came before the I/O server", job.kind);
            qr_queue_acknowledge(queue, &job, status, qr_error_message());
        }
    }
    return n > 0;
}

static void *serve(void *argument)
{
    qr_page_service *service = argument;
    qr_wait wait = {0};
    bool busy = true;
    /* What has been asked is answered before the end: nobody else would. The store bounds how long that takes. */
    while (atomic_load(&service->going) || busy || qr_page_store_busy(service->store)) {
        busy = false;
        for (int i = 0; i < service->n_queues; i++) {
            qr_queue_beat(&service->queues[i]);
            busy = serve_queue(service, i) || busy;
        }
        if (qr_page_store_turn(service->store) || busy) {
            wait.turns = 0;
        } else {
            qr_wait_turn(&wait, qr_page_store_busy(service->store) ? BUSY_US : IDLE_US);
        }
    }
    return NULL;
}

qr_status qr_page_service_start(qr_page_store *store, qr_queue *queues, int n_queues, qr_page_service **out)
{
    qr_page_service *service = NULL;
    qr_status status = qr_allocate(1, sizeof *service, "the page store", (void **)&service);
    if (status != QR_OK) {
        return status;
    }
    *service = (qr_page_service){.store = store, .queues = queues, .n_queues = n_queues};
    atomic_store(&service->going, true);
    int error = qr_thread_start(&service->thread, serve, service);
    if (error != 0) {
        free(service);
        return qr_error(QR_RESOURCE, "a thread for the page store cannot be started: %s", strerror(error));
    }
    *out = service;
    return QR_OK;
}

void qr_page_service_stop(qr_page_service *service)
{
    if (service == NULL) {
        return;
    }
    atomic_store(&service->going, false);
    (void)pthread_join(service->thread, NULL);
    free(service);
}
