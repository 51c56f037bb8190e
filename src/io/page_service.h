/* Serves a page store by a thread of its own, while there is no I/O server yet: states are filled before results and
 * checkpoints have their files. */
#ifndef QR_IO_PAGE_SERVICE_H
#define QR_IO_PAGE_SERVICE_H

#include "io/page_store.h"

typedef struct qr_page_service qr_page_service;

/* queues: consumer ends, which nobody else serves until the stop. Jobs for others than the store are refused. */
qr_status qr_page_service_start(qr_page_store *store, qr_queue *queues, int n_queues, qr_page_service **out);

/* Waits for the thread. What the store has not answered yet is answered by whoever serves next. NULL is allowed. */
void qr_page_service_stop(qr_page_service *service);

#endif
