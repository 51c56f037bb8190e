#include "io/io.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/page_store.h"
#include "io/pool.h"
#include "io/results.h"
#include "io/series.h"
#include "io/snapshots.h"
#include "queue/wait.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Longest sleep of an idle server; jobs taken from one producer before the next one has its turn. */
enum { IDLE_US = 500, JOBS_A_TURN = 8, BEAT_MS = 25 };

/* The same of a server that holds pages: computing waits for these. While some are asked for, and at other times. How
 * much longer than asked for the system may let it sleep. */
enum { BUSY_US = 20, PAGES_US = 100, SLACK_NS = 2000 };

/* Seconds after the last page in which the next one is looked for as often. */
static const double busy_s = 0.02;

/* Awake seconds that a disk which does not answer may keep the end of a run waiting. */
enum { PATIENCE_S = 20 };

/* Of a slow device's time, at most this share goes into flushes that no job asked for. */
static const double flush_share = 0.1;

struct qr_io_server {
    qr_io_config config; /* points to the copies below */
    char *texts_of_config[5];
    int64_t *server_starts;
    qr_queue *queues;
    bool *finished;
    int n_queues, n_finished;
    bool opened;
    qr_series *series;
    qr_snapshots *snapshots;
    qr_texts *texts;
    qr_checkpoint *checkpoint; /* NULL: none */
    qr_page_store *pages;      /* the caller's; NULL: none */
    double last_page;          /* clock when a page was asked for or answered */
    double patience_s;         /* at its end */
    int64_t drawn_snapshots;   /* in the XDMF file */
    double last_flush, flush_took_s;
    bool dirty;
    bool renamed; /* files got their names since the directory was last written */
    atomic_bool beating;
    pthread_t heart;
    qr_status failure; /* the first; all later jobs are refused with it */
    char message[QR_MESSAGE_BYTES];
    qr_io_totals totals;
};

static qr_status copy_config(const qr_io_config *from, qr_io_server *server)
{
    const char *const texts[5] = {from->directory, from->deck_text, from->title, from->version, from->run_id};
    qr_io_config *to = &server->config;
    for (int i = 0; i < 5; i++) {
        const char *text = texts[i] != NULL ? texts[i] : "";
        server->texts_of_config[i] = strdup(text);
        if (server->texts_of_config[i] == NULL) {
            return qr_error_memory(strlen(text), "the I/O server");
        }
    }
    if (from->server_starts != NULL) {
        size_t n = (size_t)from->n_servers + 1;
        qr_status status = qr_allocate(n, sizeof(int64_t), "the I/O server", (void **)&server->server_starts);
        if (status != QR_OK) {
            return status;
        }
        memcpy(server->server_starts, from->server_starts, n * sizeof(int64_t));
    }
    *to = *from;
    to->directory = server->texts_of_config[0];
    to->deck_text = server->texts_of_config[1];
    to->title = server->texts_of_config[2];
    to->version = server->texts_of_config[3];
    to->run_id = server->texts_of_config[4];
    to->server_starts = server->server_starts;
    return QR_OK;
}

qr_status qr_io_server_create(const qr_io_config *config, qr_queue *queues, int n_queues, qr_io_server **out)
{
    qr_io_server *server = NULL;
    if (config->directory == NULL || n_queues < 0 || config->n_options < 1 || config->n_agents < 1 ||
        config->compression < 0 || config->compression > 9 || config->server < 0 ||
        config->server >= config->n_servers) {
        return qr_error(QR_INTERNAL, "the I/O server's configuration is out of range");
    }
    qr_status status = qr_allocate(1, sizeof *server, "the I/O server", (void **)&server);
    if (status != QR_OK) {
        return status;
    }
    status = copy_config(config, server);
    if (status == QR_OK) {
        status = qr_allocate((size_t)n_queues, sizeof(bool), "the I/O server", (void **)&server->finished);
    }
    if (status != QR_OK) {
        qr_io_server_destroy(server);
        return status;
    }
    server->queues = queues;
    server->n_queues = n_queues;
    server->pages = config->pages;
    double timeout_s = config->checkpoint != NULL ? config->checkpoint->timeout_s : 0.0;
    server->patience_s = timeout_s > 0.0 && timeout_s < PATIENCE_S ? timeout_s : PATIENCE_S;
    server->config.checkpoint = NULL; /* the caller's; all that is needed of it is copied */
    if (config->checkpoint != NULL && config->checkpoint->enabled) {
        status = qr_checkpoint_create(config->checkpoint, queues, n_queues, config->transport, &server->checkpoint);
    }
    if (status != QR_OK) {
        qr_io_server_destroy(server);
        return status;
    }
    if (server->pages != NULL && server->checkpoint != NULL) {
        (void)qr_page_store_set_rescue(server->pages, qr_checkpoint_rescue, server->checkpoint);
    }
    *out = server;
    return QR_OK;
}

/* The store outlives the checkpoints, unless one of its threads hangs in one of them. */
static void end_rescues(qr_io_server *server)
{
    if (server->pages != NULL && !qr_page_store_set_rescue(server->pages, NULL, NULL) && server->checkpoint != NULL) {
        qr_checkpoint_keep(server->checkpoint);
    }
}

void qr_io_server_destroy(qr_io_server *server)
{
    if (server == NULL) {
        return;
    }
    end_rescues(server);
    qr_checkpoint_destroy(server->checkpoint, server->patience_s);
    (void)qr_series_close(server->series, NULL);
    (void)qr_snapshots_close(server->snapshots, NULL);
    qr_texts_destroy(server->texts);
    for (int i = 0; i < 5; i++) {
        free(server->texts_of_config[i]);
    }
    free(server->server_starts);
    free(server->finished);
    free(server);
}

/* A device may keep a write waiting for longer than a producer would wait for a sign of life, so that these come from a
 * thread of their own. */
static void *beat(void *argument)
{
    qr_io_server *server = argument;
    const struct timespec pause = {.tv_nsec = BEAT_MS * 1000000L};
    while (atomic_load(&server->beating)) {
        for (int i = 0; i < server->n_queues; i++) {
            qr_queue_beat(&server->queues[i]);
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* --- jobs --- */

/* Rewritten as a whole, so only when there is a twentieth more to show, or at the end. */
static qr_status draw_snapshots(qr_io_server *server, bool last)
{
    if (server->config.server != 0 || server->config.dims < 2 || server->snapshots == NULL) {
        return QR_OK;
    }
    const int64_t *steps = NULL;
    int64_t n = qr_snapshots_steps(server->snapshots, &steps);
    int64_t drawn = server->drawn_snapshots;
    if (n == drawn || (!last && n < drawn + drawn / 20)) {
        return QR_OK;
    }
    qr_status status = qr_write_xdmf(&server->config, steps, n, last);
    server->renamed = true;
    server->drawn_snapshots = status == QR_OK ? n : drawn;
    return status;
}

/* It told how an earlier attempt ended; this one has yet to end. */
static qr_status remove_summary(const char *directory)
{
    char *path = NULL;
    qr_status status = qr_path_join(directory, QR_SUMMARY_FILE, &path);
    if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
        status = qr_file_error(path, "removed", errno);
    }
    free(path);
    return status;
}

/* Earlier attempts: series and metrics keep what was written up to the checkpoint; io/attempts.h. */
static qr_status open_common_files(qr_io_server *server)
{
    const qr_io_config *config = &server->config;
    bool resumes = config->attempt > 0;
    qr_status status = config->overwrite && !resumes ? qr_clear_results(config) : QR_OK;
    status = status != QR_OK ? status : qr_series_create(config, &server->series);
    if (status == QR_OK && resumes) {
        (void)qr_fault("results.metrics", config->directory);
        status = qr_texts_keep(server->texts, QR_METRICS_FILE, config->resume_step);
        status = status != QR_OK ? status : remove_summary(config->directory);
    }
    return status;
}

static qr_status open_files(qr_io_server *server, bool fast)
{
    const qr_io_config *config = &server->config;
    if (server->opened) {
        return QR_OK;
    }
    server->opened = true;
    server->config.fast = fast;
    server->last_flush = qr_now_s();
    qr_status status = qr_texts_create(config->directory, &server->texts);
    if (status == QR_OK && config->server == 0) {
        status = open_common_files(server);
    }
    if (status == QR_OK && config->snapshots && config->server_count > 0) {
        status = qr_snapshots_create(config, &server->snapshots);
    }
    if (status == QR_OK && config->attempt > 0) { /* the old one tells of snapshots that are there no more */
        status = draw_snapshots(server, true);
    }
    return status != QR_OK ? status : qr_directory_sync(config->directory);
}

/* Makes the names of new files last. */
static qr_status sync_names(qr_io_server *server)
{
    qr_status status = server->renamed ? qr_directory_sync(server->config.directory) : QR_OK;
    server->renamed = server->renamed && status != QR_OK;
    return status;
}

static qr_status flush(qr_io_server *server)
{
    double start = qr_now_s();
    qr_status status = QR_OK;
    if (server->dirty && server->series != NULL) {
        status = qr_series_flush(server->series);
    }
    if (status == QR_OK && server->dirty && server->snapshots != NULL) {
        status = qr_snapshots_flush(server->snapshots);
        status = status != QR_OK ? status : draw_snapshots(server, false);
    }
    if (status == QR_OK && server->texts != NULL) {
        status = qr_texts_flush(server->texts);
    }
    status = status != QR_OK ? status : sync_names(server);
    server->dirty = false;
    server->last_flush = qr_now_s();
    server->flush_took_s = server->last_flush - start;
    server->totals.flush_s += server->flush_took_s;
    return status;
}

static void keep_first(qr_status *first, qr_status status, char *message)
{
    if (status != QR_OK && *first == QR_OK) {
        *first = status;
        snprintf(message, QR_MESSAGE_BYTES, "%s", qr_error_message());
    }
}

/* Everything is flushed and closed, also after a failure; each file on its own. */
static qr_status close_files(qr_io_server *server)
{
    double start = qr_now_s();
    qr_status first = QR_OK;
    char message[QR_MESSAGE_BYTES] = "";
    int64_t bytes = 0;
    bool healthy = server->failure == QR_OK;
    keep_first(&first, qr_series_close(server->series, &bytes), message);
    server->series = NULL;
    server->totals.bytes_written += bytes;
    if (server->snapshots != NULL) {
        const int64_t *steps = NULL;
        server->totals.snapshots = qr_snapshots_steps(server->snapshots, &steps);
        if (healthy && first == QR_OK) {
            keep_first(&first, qr_snapshots_flush(server->snapshots), message);
            keep_first(&first, draw_snapshots(server, true), message);
        }
        bytes = 0;
        keep_first(&first, qr_snapshots_close(server->snapshots, &bytes), message);
        server->snapshots = NULL;
        server->totals.bytes_written += bytes;
    }
    if (server->texts != NULL) {
        keep_first(&first, qr_texts_flush(server->texts), message);
        server->totals.bytes_written += qr_texts_bytes(server->texts);
        qr_texts_destroy(server->texts);
        server->texts = NULL;
    }
    keep_first(&first, sync_names(server), message);
    server->totals.flush_s += qr_now_s() - start;
    return first == QR_OK ? QR_OK : qr_error(first, "%s", message);
}

static qr_status out_of_place(const qr_io_server *server, const char *what)
{
    return qr_error(QR_INTERNAL, "%s: I/O server %d got %s that it does not store", server->config.directory,
                    server->config.server, what);
}

static qr_status carry_out(qr_io_server *server, const qr_job *job, const void *payload)
{
    if (server->failure != QR_OK) {
        return qr_error(server->failure, "%s", server->message);
    }
    if (!server->opened && job->kind != QR_JOB_OPEN && job->kind != QR_JOB_FINISH && job->kind != QR_JOB_FLUSH) {
        return out_of_place(server, "a job before its files are open");
    }
    switch (job->kind) {
    case QR_JOB_OPEN: return open_files(server, job->flags != 0);
    case QR_JOB_SERIES:
        server->dirty = true;
        return server->series == NULL ? out_of_place(server, "a series")
                                      : qr_series_append(server->series, job, payload);
    case QR_JOB_SNAPSHOT:
        server->dirty = true;
        return server->snapshots == NULL ? out_of_place(server, "a snapshot")
                                         : qr_snapshots_add(server->snapshots, job, payload);
    case QR_JOB_TEXT:
        server->dirty = true;
        server->renamed = true;
        return qr_texts_write(server->texts, job, payload);
    case QR_JOB_FLUSH: return flush(server);
    case QR_JOB_FINISH: return QR_OK;
    default: return out_of_place(server, "a job of an unknown kind");
    }
}

static void note_failure(qr_io_server *server, qr_status status)
{
    keep_first(&server->failure, status, server->message);
}

/* A job of a checkpoint: what comes of it is told on the board. Before a manifest says so, results are durable. */
static void serve_checkpoint(qr_io_server *server, int producer, const qr_job *job)
{
    double start = qr_now_s();
    qr_status status = server->failure;
    if (status != QR_OK) {
        qr_error(status, "%s", server->message);
    } else if (server->checkpoint == NULL) {
        status = out_of_place(server, "a checkpoint");
    } else if (job->kind == QR_JOB_CUT_COMMIT && job->flags == 1) {
        status = flush(server);
    }
    note_failure(server, status);
    server->totals.jobs++;
    server->totals.bytes_in += job->bytes;
    if (status == QR_OK) {
        qr_checkpoint_take(server->checkpoint, producer, job);
    }
    if (status != QR_OK || job->slot == QR_NO_SLOT) {
        qr_queue_acknowledge(&server->queues[producer], job, status, qr_error_message());
    }
    server->totals.busy_s += qr_now_s() - start;
}

/* Acknowledges and posts what has come of checkpoints. True when there was something to do. */
static bool turn_checkpoint(qr_io_server *server)
{
    if (server->checkpoint == NULL) {
        return false;
    }
    if (server->failure == QR_OK && qr_checkpoint_wants_flush(server->checkpoint)) {
        double start = qr_now_s();
        qr_status status = flush(server);
        note_failure(server, status);
        server->totals.busy_s += qr_now_s() - start;
        if (status == QR_OK) {
            qr_checkpoint_flushed(server->checkpoint);
        }
    }
    return qr_checkpoint_turn(server->checkpoint);
}

/* Pages are not results: they are served even when those can no longer be written. */
static void serve_page(qr_io_server *server, int producer, const qr_job *job)
{
    server->totals.jobs++;
    server->totals.bytes_in += job->kind == QR_JOB_PAGE_PUT ? job->bytes : 0;
    if (server->pages != NULL) {
        server->last_page = qr_now_s();
        qr_page_store_take(server->pages, producer, job);
    } else {
        qr_status status = out_of_place(server, "a page of states");
        qr_queue_answer(&server->queues[producer], job, status, 0, qr_error_message());
    }
}

static bool turn_pages(qr_io_server *server)
{
    bool any = server->pages != NULL && qr_page_store_turn(server->pages);
    if (any) {
        server->last_page = qr_now_s();
    }
    return any;
}

static void serve(qr_io_server *server, int producer, const qr_job *job)
{
    if (qr_page_store_takes(job)) {
        serve_page(server, producer, job);
        return;
    }
    if (qr_checkpoint_takes(job)) {
        serve_checkpoint(server, producer, job);
        return;
    }
    qr_queue *queue = &server->queues[producer];
    double start = qr_now_s();
    const void *payload = job->slot == QR_NO_SLOT ? "" : qr_queue_slot(queue, job->slot);
    qr_status status = carry_out(server, job, payload);
    note_failure(server, status);
    if (job->kind == QR_JOB_FINISH && !server->finished[producer]) {
        server->finished[producer] = true;
        server->n_finished++;
        /* The last one to finish learns how closing went. */
        if (server->n_finished == server->n_queues) {
            qr_status closed = close_files(server);
            note_failure(server, closed);
            status = status == QR_OK ? closed : status;
        }
    }
    server->totals.jobs++;
    server->totals.bytes_in += job->bytes;
    qr_queue_acknowledge(queue, job, status, qr_error_message());
    server->totals.busy_s += qr_now_s() - start;
}

static bool serve_all(qr_io_server *server)
{
    bool any = false;
    for (int i = 0; i < server->n_queues; i++) {
        qr_job job;
        for (int n = 0; n < JOBS_A_TURN && qr_queue_next(&server->queues[i], &job); n++) {
            serve(server, i, &job);
            any = true;
        }
        any = turn_pages(server) || any;
    }
    return any;
}

static bool flush_is_due(const qr_io_server *server)
{
    double least_s = server->flush_took_s / flush_share;
    double wanted_s = server->config.flush_every_s;
    return server->dirty && server->failure == QR_OK &&
           qr_now_s() - server->last_flush >= (wanted_s > least_s ? wanted_s : least_s);
}

static int32_t longest_sleep_us(const qr_io_server *server)
{
    if (server->pages == NULL) {
        return IDLE_US;
    }
    bool busy = qr_page_store_busy(server->pages) || qr_now_s() - server->last_page < busy_s;
    return busy ? BUSY_US : PAGES_US;
}

/* Producers wait for answers and slots even when they have nothing more to say. */
static bool has_work(const qr_io_server *server)
{
    return server->n_finished < server->n_queues || (server->pages != NULL && qr_page_store_busy(server->pages)) ||
           (server->checkpoint != NULL && qr_checkpoint_clear_slots(server->checkpoint));
}

static void serve_until_finished(qr_io_server *server, const volatile bool *keep_going)
{
    qr_wait wait = {0};
    if (server->pages != NULL) {
        (void)prctl(PR_SET_TIMERSLACK, (unsigned long)SLACK_NS, 0UL, 0UL, 0UL); /* of this thread */
    }
    while (has_work(server) && (keep_going == NULL || *keep_going)) {
        bool served = serve_all(server);
        if (turn_checkpoint(server) || served) {
            wait.turns = 0;
        } else {
            qr_wait_turn(&wait, longest_sleep_us(server));
        }
        if (flush_is_due(server)) {
            double start = qr_now_s();
            note_failure(server, flush(server));
            server->totals.busy_s += qr_now_s() - start;
        }
    }
    if (server->n_finished < server->n_queues) {
        note_failure(server, close_files(server));
    }
}

qr_status qr_io_server_run(qr_io_server *server, const volatile bool *keep_going, qr_io_totals *totals)
{
    /* A file-size limit shall be an error of the write, not the end of the process. */
    signal(SIGXFSZ, SIG_IGN);
    atomic_store(&server->beating, true);
    int error = qr_thread_start(&server->heart, beat, server);
    if (error != 0) {
        note_failure(server, qr_error(QR_RESOURCE, "the I/O server cannot start a thread: %s", strerror(error)));
    }
    serve_until_finished(server, keep_going);
    end_rescues(server);
    qr_checkpoint_destroy(server->checkpoint, server->patience_s);
    server->checkpoint = NULL;
    atomic_store(&server->beating, false);
    if (error == 0) {
        pthread_join(server->heart, NULL);
    }
    if (totals != NULL) {
        *totals = server->totals;
    }
    return server->failure == QR_OK ? QR_OK : qr_error(server->failure, "%s", server->message);
}

/* --- as a thread --- */

struct qr_io_thread {
    qr_io_server *server;
    pthread_t thread;
    qr_io_totals totals;
    qr_status status;
    char message[QR_MESSAGE_BYTES];
};

static void *thread_main(void *argument)
{
    qr_io_thread *thread = argument;
    thread->status = qr_io_server_run(thread->server, NULL, &thread->totals);
    snprintf(thread->message, sizeof thread->message, "%s", qr_error_message());
    return NULL;
}

qr_status qr_io_thread_start(qr_io_server *server, qr_io_thread **out)
{
    qr_io_thread *thread = NULL;
    qr_status status = qr_allocate(1, sizeof *thread, "the I/O thread", (void **)&thread);
    if (status != QR_OK) {
        return status;
    }
    thread->server = server;
    int error = qr_thread_start(&thread->thread, thread_main, thread);
    if (error != 0) {
        free(thread);
        return qr_error(QR_RESOURCE, "the I/O thread cannot be started: %s", strerror(error));
    }
    *out = thread;
    return QR_OK;
}

qr_status qr_io_thread_join(qr_io_thread *thread, qr_io_totals *totals)
{
    int error = pthread_join(thread->thread, NULL);
    qr_status status = thread->status;
    if (error != 0) {
        status = qr_error(QR_INTERNAL, "the I/O thread cannot be joined: %s", strerror(error));
    } else if (status != QR_OK) {
        qr_error(status, "%s", thread->message);
    }
    if (totals != NULL) {
        *totals = thread->totals;
    }
    free(thread);
    return status;
}
