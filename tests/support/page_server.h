/* A server of pages that keeps them in memory, in a thread of its own: what the pager's jobs ask for, with tiers that
 * fill up, answers that come late and in any order, and pages that cannot be read. */
#ifndef TEST_SUPPORT_PAGE_SERVER_H
#define TEST_SUPPORT_PAGE_SERVER_H

#include "queue/queue.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PAGE_SERVER_TIERS = 3, PAGE_SERVER_WAITING = 64 };

typedef struct page_server_page {
    void *bytes; /* NULL: not here */
    int64_t n, version, last_version;
    int tier;
} page_server_page;

typedef struct page_server {
    qr_queue producer; /* the pager's end */
    qr_queue consumer;
    void *memory;
    int64_t n_pages;
    int64_t room[PAGE_SERVER_TIERS]; /* pages that fit */
    int64_t held[PAGE_SERVER_TIERS];
    page_server_page *pages;
    uint64_t random;
    bool late; /* answers wait, and change places */
    qr_job waiting[PAGE_SERVER_WAITING];
    int n_waiting;
    atomic_llong bad_page;      /* that cannot be read; -1: none */
    atomic_llong slow_page;     /* that is not read before a time; -1: none */
    atomic_llong slow_until_us; /* by qr_now_s */
    qr_job slow_job;
    bool has_slow_job;
    atomic_bool silent; /* answers nothing */
    atomic_bool sinks_fail;
    atomic_llong puts, gets, sinks, drops, confused;
    atomic_bool stop;
    pthread_t thread;
} page_server;

void page_server_start(page_server *server, int32_t n_slots, int64_t slot_bytes, int64_t n_pages,
                       const int64_t room[PAGE_SERVER_TIERS], uint64_t seed);
void page_server_stop(page_server *server);

#endif
