#include "page_server.h"

#include "base/timer.h"
#include "network_parts.h"
#include "queue/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void forget(page_server *server, int64_t page)
{
    page_server_page *held = &server->pages[page];
    if (held->bytes != NULL) {
        server->held[held->tier]--;
        free(held->bytes);
        held->bytes = NULL;
    }
}

static int room_from(const page_server *server, int tier)
{
    while (tier < PAGE_SERVER_TIERS && server->held[tier] >= server->room[tier]) {
        tier++;
    }
    return tier < PAGE_SERVER_TIERS ? tier : -1;
}

static void put(page_server *server, const qr_job *job)
{
    int64_t page = job->arguments[0];
    page_server_page *held = &server->pages[page];
    forget(server, page);
    int tier = room_from(server, (int)job->arguments[1]);
    server->puts++;
    if (tier < 0) {
        qr_queue_answer(&server->consumer, job, QR_RESOURCE, 0, "all tiers are full");
        return;
    }
    server->confused += job->arguments[2] <= held->last_version ? 1 : 0;
    *held = (page_server_page){malloc((size_t)job->bytes), job->bytes, job->arguments[2], job->arguments[2], tier};
    memcpy(held->bytes, qr_queue_slot(&server->consumer, job->slot), (size_t)job->bytes);
    server->held[tier]++;
    qr_queue_answer(&server->consumer, job, QR_OK, tier, NULL);
}

static void get(page_server *server, const qr_job *job)
{
    const page_server_page *held = &server->pages[job->arguments[0]];
    server->gets++;
    if (held->bytes == NULL || held->version != job->arguments[2] || held->tier != job->arguments[1] ||
        held->n != job->bytes) {
        server->confused++;
        qr_queue_answer(&server->consumer, job, QR_DATA, 0, "not what was put");
    } else if (job->arguments[0] == server->bad_page) {
        memset(qr_queue_slot(&server->consumer, job->slot), 0xff, (size_t)job->bytes);
        qr_queue_answer(&server->consumer, job, QR_DATA, 0, "store.qps: bad checksum");
    } else {
        memcpy(qr_queue_slot(&server->consumer, job->slot), held->bytes, (size_t)job->bytes);
        qr_queue_answer(&server->consumer, job, QR_OK, 0, NULL);
    }
}

static void sink(page_server *server, const qr_job *job)
{
    page_server_page *held = &server->pages[job->arguments[0]];
    server->sinks++;
    if (held->bytes == NULL || held->version != job->arguments[2] || held->tier != job->arguments[1] ||
        job->arguments[3] <= job->arguments[1]) {
        server->confused++;
        qr_queue_answer(&server->consumer, job, QR_DATA, 0, "not what was put");
        return;
    }
    if (server->sinks_fail) {
        qr_queue_answer(&server->consumer, job, QR_DATA, held->tier, "the disk below takes nothing");
        return;
    }
    int tier = room_from(server, (int)job->arguments[3]);
    if (tier < 0) {
        qr_queue_answer(&server->consumer, job, QR_RESOURCE, held->tier, "all tiers below are full");
        return;
    }
    server->held[held->tier]--;
    server->held[tier]++;
    held->tier = tier;
    qr_queue_answer(&server->consumer, job, QR_OK, tier, NULL);
}

static void carry_out(page_server *server, const qr_job *job)
{
    if (job->arguments[0] < 0 || job->arguments[0] >= server->n_pages) {
        server->confused++;
        qr_queue_acknowledge(&server->consumer, job, QR_INTERNAL, "no such page");
        return;
    }
    switch (job->kind) {
    case QR_JOB_PAGE_PUT: put(server, job); break;
    case QR_JOB_PAGE_GET: get(server, job); break;
    case QR_JOB_PAGE_SINK: sink(server, job); break;
    default: qr_queue_acknowledge(&server->consumer, job, QR_INTERNAL, "no such job"); break;
    }
}

/* Versions are dropped when the word comes: there is room from then on. */
static void drop(page_server *server, const qr_job *job)
{
    page_server_page *held = &server->pages[job->arguments[0]];
    server->drops++;
    if (held->bytes == NULL || held->version != job->arguments[2]) {
        server->confused++;
    }
    forget(server, job->arguments[0]);
    qr_queue_acknowledge(&server->consumer, job, QR_OK, NULL);
}

/* What is asked for stands in line, but the page that takes its time beside it. */
static void take_in(page_server *server, const qr_job *job)
{
    if (job->kind == QR_JOB_PAGE_GET && job->arguments[0] == server->slow_page) {
        server->slow_job = *job;
        server->has_slow_job = true;
    } else {
        server->waiting[server->n_waiting++] = *job;
    }
}

static void take_in_slow(page_server *server)
{
    if (server->has_slow_job && qr_now_s() * 1e6 >= (double)server->slow_until_us) {
        server->slow_page = -1;
        server->has_slow_job = false;
        server->waiting[server->n_waiting++] = server->slow_job;
    }
}

/* One that waits, but none that came after another of the same page. */
static void carry_out_any(page_server *server)
{
    int chosen = server->late ? (int)case_between(&server->random, 0, server->n_waiting - 1) : 0;
    for (int i = 0; i < chosen; i++) {
        if (server->waiting[i].arguments[0] == server->waiting[chosen].arguments[0]) {
            chosen = i;
        }
    }
    const qr_job job = server->waiting[chosen];
    server->n_waiting--;
    memmove(&server->waiting[chosen], &server->waiting[chosen + 1],
            (size_t)(server->n_waiting - chosen) * sizeof(qr_job));
    carry_out(server, &job);
}

static void *serve(void *argument)
{
    page_server *server = argument;
    qr_wait wait = {0};
    while (!server->stop) {
        qr_job job;
        bool busy = false;
        qr_queue_beat(&server->consumer);
        while (!server->silent && server->n_waiting + 1 < PAGE_SERVER_WAITING &&
               qr_queue_next(&server->consumer, &job)) {
            busy = true;
            if (job.kind == QR_JOB_PAGE_DROP) {
                drop(server, &job);
            } else {
                take_in(server, &job);
            }
        }
        take_in_slow(server);
        if (server->n_waiting > 0 && (!server->late || busy || case_between(&server->random, 0, 2) == 0)) {
            carry_out_any(server);
            busy = true;
        }
        if (busy) {
            wait.turns = 0;
        } else {
            qr_wait_turn(&wait, 50);
        }
    }
    return NULL;
}

void page_server_start(page_server *server, int32_t n_slots, int64_t slot_bytes, int64_t n_pages,
                       const int64_t room[PAGE_SERVER_TIERS], uint64_t seed)
{
    *server = (page_server){.n_pages = n_pages, .random = seed, .late = seed % 2 != 0, .bad_page = -1, .slow_page = -1};
    const qr_queue_shape shape = {.n_slots = n_slots, .slot_bytes = slot_bytes, .producer = 7};
    size_t bytes = qr_queue_bytes(&shape);
    memcpy(server->room, room, sizeof server->room);
    server->memory = malloc(bytes);
    server->pages = calloc((size_t)n_pages + 1, sizeof *server->pages);
    assert_non_null(server->memory);
    assert_non_null(server->pages);
    assert_int_equal(qr_queue_create(server->memory, bytes, &shape, &server->consumer), QR_OK);
    assert_int_equal(qr_queue_attach(server->memory, bytes, &server->producer), QR_OK);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

void page_server_stop(page_server *server)
{
    server->stop = true;
    (void)pthread_join(server->thread, NULL);
    for (int64_t page = 0; page < server->n_pages; page++) {
        free(server->pages[page].bytes);
    }
    free(server->pages);
    free(server->memory);
}
