/* An I/O server with a page store, in a thread, and a test that plays its compute ranks. */
#ifndef TEST_PAGE_STORE_FIXTURE_H
#define TEST_PAGE_STORE_FIXTURE_H

#include "base/fault.h"
#include "base/timer.h"
#include "io/io.h"
#include "io/page_store.h"
#include "io/pool.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHELF_MOST_QUEUES = 2, SHELF_WAIT_S = 60 };

static const char shelf_run[] = "0123456789abcdef0123456789abcdef";

typedef struct shelf {
    char root[64];
    char directories[QR_N_TIERS][96];
    char results[96];
    qr_page_store_config config;
    int n_queues, n_slots;
    void *memory[SHELF_MOST_QUEUES];
    qr_queue server_ends[SHELF_MOST_QUEUES];
    qr_queue ends[SHELF_MOST_QUEUES];
    qr_page_store *store;
    qr_io_server *server;
    qr_io_thread *thread;
    /* Of the last answer to queue 0: */
    int64_t value;
    char message[512];
} shelf;

/* On the heap: a server that a failed test leaves behind does not write over another test's. */
static inline shelf *shelf_create(int64_t page_bytes)
{
    static const qr_codec codecs[QR_N_TIERS] = {{QR_CODEC_LZ4, 1}, {QR_CODEC_ZSTD, 3}, {QR_CODEC_ZSTD, 9}};
    shelf *s = calloc(1, sizeof *s);
    assert_non_null(s);
    const char *place = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(s->root, sizeof s->root, "%s/quorate_pages_XXXXXX", place);
    assert_non_null(mkdtemp(s->root));
    snprintf(s->results, sizeof s->results, "%s/results", s->root);
    assert_int_equal(mkdir(s->results, 0777), 0);
    s->n_queues = 1;
    s->n_slots = 8;
    s->config =
        (qr_page_store_config){.run_id = shelf_run, .server = 0, .threads = 2, .most_raw = page_bytes, .timeout_s = 20};
    for (int t = 0; t < QR_N_TIERS; t++) {
        snprintf(s->directories[t], sizeof s->directories[t], "%s/tier/%s", s->root, qr_tier_name(t));
        s->config.tiers[t] = (qr_page_tier_config){.directory = s->directories[t], .codec = codecs[t]};
    }
    return s;
}

static inline void shelf_start(shelf *s)
{
    qr_queue_shape shape = {.n_slots = s->n_slots, .slot_bytes = s->config.most_raw};
    for (int q = 0; q < s->n_queues; q++) {
        size_t bytes = qr_queue_bytes(&shape);
        shape.producer = (uint64_t)q;
        s->memory[q] = malloc(bytes);
        assert_non_null(s->memory[q]);
        assert_int_equal(qr_queue_create(s->memory[q], bytes, &shape, &s->server_ends[q]), QR_OK);
        assert_int_equal(qr_queue_attach(s->memory[q], bytes, &s->ends[q]), QR_OK);
    }
    assert_int_equal(qr_page_store_create(&s->config, s->server_ends, s->n_queues, &s->store), QR_OK);
    qr_io_config io = {.directory = s->results,
                       .n_agents = 1000,
                       .n_options = 3,
                       .n_servers = 1,
                       .flush_every_s = 1000,
                       .pages = s->store};
    assert_int_equal(qr_io_server_create(&io, s->server_ends, s->n_queues, &s->server), QR_OK);
    assert_int_equal(qr_io_thread_start(s->server, &s->thread), QR_OK);
}

static inline void shelf_stop(shelf *s, double patience_s)
{
    for (int q = 0; q < s->n_queues; q++) {
        qr_job job = {.kind = QR_JOB_FINISH, .slot = QR_NO_SLOT};
        assert_int_equal(qr_queue_submit(&s->ends[q], &job, SHELF_WAIT_S), QR_OK);
    }
    assert_int_equal(qr_io_thread_join(s->thread, NULL), QR_OK);
    qr_io_server_destroy(s->server);
    qr_page_store_destroy(s->store, patience_s);
    for (int q = 0; q < s->n_queues; q++) {
        free(s->memory[q]);
    }
    s->server = NULL;
}

static inline void shelf_remove(shelf *s)
{
    char command[256];
    if (s->server != NULL) {
        shelf_stop(s, SHELF_WAIT_S);
    }
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", s->root, s->root);
    assert_int_equal(system(command), 0);
    free(s);
}

/* --- content: some pages shrink well, some little, some not at all --- */

static inline uint64_t shelf_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static inline unsigned char shelf_byte(int queue, int64_t page, int64_t version, int64_t i)
{
    uint64_t seed = shelf_mix((uint64_t)page * 131 + (uint64_t)version * 7919 + (uint64_t)queue);
    uint64_t word = shelf_mix(seed + (uint64_t)i / 8) >> (8 * (i % 8));
    static const uint64_t kinds[] = {3, 63, 255};
    return (unsigned char)(word & kinds[(uint64_t)page % 3]);
}

static inline void shelf_fill(int queue, int64_t page, int64_t version, unsigned char *out, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        out[i] = shelf_byte(queue, page, version, i);
    }
}

static inline int64_t shelf_differs(int queue, int64_t page, int64_t version, const unsigned char *raw, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        if (raw[i] != shelf_byte(queue, page, version, i)) {
            return i + 1;
        }
    }
    return 0;
}

/* --- jobs --- */

static inline int32_t shelf_slot(shelf *s, int queue)
{
    int32_t slot = QR_NO_SLOT;
    assert_int_equal(qr_queue_wait_slot(&s->ends[queue], SHELF_WAIT_S, &slot, NULL), QR_OK);
    return slot;
}

static inline void shelf_ask(shelf *s, int queue, qr_job job)
{
    assert_int_equal(qr_queue_ask(&s->ends[queue], &job, SHELF_WAIT_S), QR_OK);
}

/* The status of the answer; the slot stays taken. */
static inline qr_status shelf_answer(shelf *s, int queue, int32_t slot)
{
    qr_status status = QR_INTERNAL;
    int64_t value = 0;
    assert_int_equal(qr_queue_wait_answer(&s->ends[queue], slot, SHELF_WAIT_S, &status, &value), QR_OK);
    if (queue == 0) {
        s->value = value;
        snprintf(s->message, sizeof s->message, "%s", qr_queue_answer_message(&s->ends[queue], slot));
    }
    return status;
}

static inline int32_t shelf_begin_put(shelf *s, int queue, int64_t page, int tier, int64_t version, int64_t bytes)
{
    int32_t slot = shelf_slot(s, queue);
    shelf_fill(queue, page, version, qr_queue_slot(&s->ends[queue], slot), bytes);
    shelf_ask(s, queue,
              (qr_job){.kind = QR_JOB_PAGE_PUT, .slot = slot, .bytes = bytes, .arguments = {page, tier, version, 10}});
    return slot;
}

static inline qr_status shelf_put(shelf *s, int queue, int64_t page, int tier, int64_t version, int64_t bytes)
{
    int32_t slot = shelf_begin_put(s, queue, page, tier, version, bytes);
    qr_status status = shelf_answer(s, queue, slot);
    qr_queue_return_slot(&s->ends[queue], slot);
    return status;
}

static inline int32_t shelf_begin_get(shelf *s, int queue, int64_t page, int tier, int64_t version, int64_t bytes)
{
    int32_t slot = shelf_slot(s, queue);
    memset(qr_queue_slot(&s->ends[queue], slot), 0x5a, (size_t)bytes);
    shelf_ask(s, queue,
              (qr_job){.kind = QR_JOB_PAGE_GET, .slot = slot, .bytes = bytes, .arguments = {page, tier, version}});
    return slot;
}

/* QR_OK only when the contents are right. */
static inline qr_status shelf_end_get(shelf *s, int queue, int32_t slot, int64_t page, int64_t version, int64_t bytes)
{
    qr_status status = shelf_answer(s, queue, slot);
    if (status == QR_OK) {
        int64_t at = shelf_differs(queue, page, version, qr_queue_slot(&s->ends[queue], slot), bytes);
        if (at != 0) {
            print_message("page %d of queue %d, version %d: byte %d is wrong\n", (int)page, queue, (int)version,
                          (int)at - 1);
            status = QR_INTERNAL;
        }
    }
    qr_queue_return_slot(&s->ends[queue], slot);
    return status;
}

static inline qr_status shelf_get(shelf *s, int queue, int64_t page, int tier, int64_t version, int64_t bytes)
{
    return shelf_end_get(s, queue, shelf_begin_get(s, queue, page, tier, version, bytes), page, version, bytes);
}

static inline qr_status shelf_sink(shelf *s, int queue, int64_t page, int from, int to, int64_t version)
{
    int32_t slot = shelf_slot(s, queue);
    shelf_ask(s, queue, (qr_job){.kind = QR_JOB_PAGE_SINK, .slot = slot, .arguments = {page, from, version, to}});
    qr_status status = shelf_answer(s, queue, slot);
    qr_queue_return_slot(&s->ends[queue], slot);
    return status;
}

static inline void shelf_drop(shelf *s, int queue, int64_t page, int64_t version)
{
    qr_job job = {.kind = QR_JOB_PAGE_DROP, .slot = QR_NO_SLOT, .arguments = {page, 0, version}};
    assert_int_equal(qr_queue_submit(&s->ends[queue], &job, SHELF_WAIT_S), QR_OK);
}

static inline void shelf_settle(shelf *s)
{
    for (int q = 0; q < s->n_queues; q++) {
        assert_int_equal(qr_queue_drain(&s->ends[q], SHELF_WAIT_S), QR_OK);
    }
}

static inline qr_page_tier_totals shelf_totals(shelf *s, int tier)
{
    qr_page_tier_totals totals[QR_N_TIERS];
    qr_page_store_totals(s->store, totals);
    return totals[tier];
}

/* --- files --- */

/* Files in a tier's directory; *path: the last one. */
static inline int shelf_files(const shelf *s, int tier, char path[256])
{
    int n = 0;
    DIR *handle = opendir(s->directories[tier]);
    const struct dirent *found = NULL;
    while (handle != NULL && (found = readdir(handle)) != NULL) {
        if (found->d_name[0] != '.') {
            n++;
            snprintf(path, 256, "%s/%.150s", s->directories[tier], found->d_name);
        }
    }
    if (handle != NULL) {
        closedir(handle);
    }
    return n;
}

static inline int shelf_open(const shelf *s, int tier, char path[256])
{
    assert_int_equal(shelf_files(s, tier, path), 1);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    return file;
}

static inline void shelf_flip(int file, off_t at, int bit)
{
    unsigned char byte = 0;
    assert_int_equal(pread(file, &byte, 1, at), 1);
    byte ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(file, &byte, 1, at), 1);
}

#endif
