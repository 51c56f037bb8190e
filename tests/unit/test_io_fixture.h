/* A results directory, a server in a thread and a producer, for tests of io. */
#ifndef TEST_IO_FIXTURE_H
#define TEST_IO_FIXTURE_H

#include "io/io.h"
#include "queue/queue.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { FIXTURE_WAIT_S = 100, FIXTURE_MOST_QUEUES = 4 };

typedef struct fixture {
    char directory[64];
    qr_io_config config;
    void *memory[FIXTURE_MOST_QUEUES];
    qr_queue server_ends[FIXTURE_MOST_QUEUES];
    qr_queue ends[FIXTURE_MOST_QUEUES];
    int n_queues;
    qr_io_server *server;
    qr_io_thread *thread;
} fixture;

static inline void fixture_directory(fixture *f)
{
    memset(f, 0, sizeof *f);
    /* In memory where there is such a place: the tests wait for the device very often. */
    const char *place = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(f->directory, sizeof f->directory, "%s/quorate_io_XXXXXX", place);
    assert_non_null(mkdtemp(f->directory));
    f->config = (qr_io_config){.directory = f->directory,
                               .deck_text = "run: {seed: 7}\n# caf\xc3\xa9\n",
                               .title = "A test",
                               .version = "1.2.3",
                               .n_agents = 1000,
                               .n_options = 3,
                               .n_servers = 1,
                               .server_count = 1000,
                               .compression = 1,
                               .flush_every_s = 1000};
}

static inline void fixture_start(fixture *f, int n_queues, const qr_queue_shape *shape)
{
    f->n_queues = n_queues;
    for (int i = 0; i < n_queues; i++) {
        f->memory[i] = malloc(qr_queue_bytes(shape));
        assert_int_equal(qr_queue_create(f->memory[i], qr_queue_bytes(shape), shape, &f->server_ends[i]), QR_OK);
        assert_int_equal(qr_queue_attach(f->memory[i], qr_queue_bytes(shape), &f->ends[i]), QR_OK);
    }
    assert_int_equal(qr_io_server_create(&f->config, f->server_ends, n_queues, &f->server), QR_OK);
    assert_int_equal(qr_io_thread_start(f->server, &f->thread), QR_OK);
}

static inline qr_status fixture_send(fixture *f, int queue, qr_job job, const void *payload)
{
    qr_queue *end = &f->ends[queue];
    job.slot = QR_NO_SLOT;
    if (job.bytes > 0 && payload != NULL) {
        double waited_s = 0;
        qr_status status = qr_queue_wait_slot(end, FIXTURE_WAIT_S, &job.slot, &waited_s);
        if (status != QR_OK) {
            return status;
        }
        memcpy(qr_queue_slot(end, job.slot), payload, (size_t)job.bytes);
    }
    return qr_queue_submit(end, &job, FIXTURE_WAIT_S);
}

static inline qr_status fixture_do(fixture *f, int queue, qr_job_kind kind)
{
    qr_status status = fixture_send(f, queue, (qr_job){.kind = kind}, NULL);
    return status != QR_OK ? status : qr_queue_drain(&f->ends[queue], FIXTURE_WAIT_S);
}

/* Rows first..first+count: step 10 n, tallies that tell row and option, winner n % 3, leader n, decided from row 100.
 */
static inline qr_status fixture_rows(fixture *f, int64_t first, int64_t count)
{
    int64_t k = f->config.n_options;
    size_t stride = (size_t)qr_series_row_bytes(k);
    unsigned char *rows = calloc((size_t)count, stride);
    for (int64_t i = 0; i < count; i++) {
        int64_t n = first + i;
        qr_series_row row = {.step = 10 * n, .winner = n % 3, .leader = n, .decided = n >= 100};
        memcpy(rows + (size_t)i * stride, &row, sizeof row);
        for (int64_t option = 0; option < k; option++) {
            uint64_t votes = (uint64_t)(n * 1000 + option);
            memcpy(rows + (size_t)i * stride + sizeof row + (size_t)option * 8, &votes, 8);
        }
    }
    qr_job job = {.kind = QR_JOB_SERIES, .first = first, .count = count, .bytes = count * (int64_t)stride};
    qr_status status = fixture_send(f, 0, job, rows);
    free(rows);
    return status;
}

static inline uint8_t fixture_vote(int64_t agent, int64_t index)
{
    return (uint8_t)((agent / 7 + agent % 5 * index + index) % 3);
}

/* Votes of agents [first, first + count) of a snapshot, in jobs of at most a slot. */
static inline qr_status fixture_votes(fixture *f, int queue, int64_t index, int64_t first, int64_t count)
{
    qr_status status = QR_OK;
    int64_t most = f->ends[queue].slot_bytes;
    unsigned char *votes = malloc((size_t)most);
    while (count > 0 && status == QR_OK) {
        int64_t n = count < most ? count : most;
        for (int64_t i = 0; i < n; i++) {
            votes[i] = fixture_vote(first + i, index);
        }
        qr_job job = {
            .kind = QR_JOB_SNAPSHOT, .step = 100 * index, .first = first, .count = n, .bytes = n, .arguments = {index}};
        status = fixture_send(f, queue, job, votes);
        first += n;
        count -= n;
    }
    free(votes);
    return status;
}

static inline qr_status fixture_text(fixture *f, const char *name, qr_text_mode mode, const char *text)
{
    qr_job job = {.kind = QR_JOB_TEXT, .bytes = (int64_t)strlen(text), .flags = (int32_t)mode};
    snprintf(job.name, sizeof job.name, "%s", name);
    return fixture_send(f, 0, job, text);
}

static inline qr_status fixture_finish(fixture *f, qr_io_totals *totals)
{
    for (int i = 0; i < f->n_queues; i++) {
        qr_job job = {.kind = QR_JOB_FINISH, .slot = QR_NO_SLOT};
        (void)qr_queue_submit(&f->ends[i], &job, FIXTURE_WAIT_S);
    }
    qr_status status = qr_io_thread_join(f->thread, totals);
    f->thread = NULL;
    return status;
}

static inline void fixture_stop(fixture *f)
{
    qr_io_server_destroy(f->server);
    for (int i = 0; i < f->n_queues; i++) {
        free(f->memory[i]);
    }
    f->server = NULL;
    f->n_queues = 0;
}

static inline void fixture_remove(fixture *f)
{
    char command[128];
    fixture_stop(f);
    snprintf(command, sizeof command, "rm -rf %s", f->directory);
    assert_int_equal(system(command), 0);
}

/* Runs a Python program with stock h5py in the results directory; its exit status. */
static inline int fixture_python(const fixture *f, const char *program)
{
    char path[128];
    char command[256];
    snprintf(path, sizeof path, "%s/check.py", f->directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("import h5py, numpy, sys\n", file);
    fputs(program, file);
    fclose(file);
    snprintf(command, sizeof command, "cd %s && /usr/bin/python3 check.py", f->directory);
    int status = system(command);
    unlink(path);
    return status;
}

static inline bool fixture_has(const fixture *f, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->directory, name);
    return access(path, F_OK) == 0;
}

#endif
