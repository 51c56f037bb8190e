/* What becomes of the page store's jobs: put, get, sink, drop. */
#include "base/log.h"
#include "base/timer.h"
#include "io/page_store_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How often the server looks for what hangs. */
static const double look_every_s = 0.02;

static qr_store_job *job_of(qr_pool_task *task)
{
    return (qr_store_job *)(void *)task;
}

/* --- beginning and ending (lock) --- */

void qr_store_recycle(qr_store_job *job)
{
    qr_page_store *store = job->store;
    job->next_done = store->spare;
    store->spare = job;
}

void qr_store_finish(qr_store_job *job, qr_status status, int64_t value)
{
    qr_page_store *store = job->store;
    qr_page_entry *entry = qr_page_entry_find(store, job->producer, job->job.arguments[0]);
    job->status = status;
    job->value = value;
    job->done = true;
    if (status != QR_OK) {
        (void)snprintf(job->message, sizeof job->message, "%s", qr_error_message());
    }
    for (qr_store_job **at = entry == NULL ? NULL : &entry->first; at != NULL && *at != NULL; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            break;
        }
    }
    job->next_done = NULL;
    *store->last_done = job;
    store->last_done = &job->next_done;
    atomic_store(&store->any_done, true);
}

static void note_progress(qr_store_pool *pool)
{
    pool->progress++;
    pool->stuck = false;
}

void qr_store_leave_thread(qr_store_job *job)
{
    note_progress(job->pool);
    job->pool = NULL;
    job->in_hand = false;
}

void qr_store_leave_pool(qr_store_job *job, qr_status status, int64_t value)
{
    qr_page_store *store = job->store;
    qr_extent_release(store, job->source);
    qr_extent_release(store, job->place);
    job->source = NULL;
    job->place = NULL;
    qr_store_leave_thread(job);
    if (!job->done) {
        qr_store_finish(job, status, value);
        qr_store_begin(store, job->producer, job->job.arguments[0]);
    } else if (job->answered) {
        qr_store_recycle(job);
    }
    qr_store_serve_waiting(store);
}

void qr_store_enter_pool(qr_store_job *job, int tier, bool writes, void (*run)(qr_pool_task *, int))
{
    qr_store_tier *where = &job->store->tiers[tier];
    qr_store_pool *pool = writes ? &where->writers : &where->readers;
    job->waits_for = tier;
    job->act = 0;
    job->pool = pool;
    job->task.run = run;
    qr_pool_submit(pool->pool, &job->task);
}

static bool unwanted(const qr_store_job *job)
{
    return job->given_up || job->store->ending;
}

qr_status qr_store_stuck(const qr_page_file *file)
{
    return qr_error(QR_TRANSIENT, "%s: does not answer", file->path);
}

qr_status qr_store_ending(void)
{
    return qr_error(QR_TRANSIENT, "the page store is being closed");
}

/* --- at a disk --- */

/* (lock) Between these two the lock is not held, and the job may be given up. */
static void leave_for_disk(qr_store_job *job, int tier)
{
    job->waits_for = tier;
    job->act = ++job->pool->acts;
    job->in_hand = false;
    (void)pthread_mutex_unlock(&job->store->lock);
}

static void return_from_disk(qr_store_job *job)
{
    (void)pthread_mutex_lock(&job->store->lock);
    note_progress(job->pool);
    job->in_hand = !job->given_up;
}

static qr_status unreadable(const qr_page_file *file, const qr_extent *extent, int producer, int64_t page,
                            const char *why)
{
    return qr_error(QR_DATA, "%s: page %" PRId64 " of queue %d, version %" PRId64 ", cannot be read: %s", file->path,
                    page, producer, extent->version, why);
}

qr_status qr_store_read_extent(qr_page_store *store, const qr_extent *extent, int producer, int64_t page,
                               qr_page_bench *bench)
{
    enum { TRIES = 2 }; /* what a cable or a controller spoilt may come whole the next time */
    qr_store_tier *tier = &store->tiers[extent->tier];
    qr_status status = QR_OK;
    int64_t retries = 0;
    double start = qr_now_s();
    for (int i = 0; i < TRIES; i++) {
        bool short_read = false;
        int error = qr_page_file_read(&tier->file, bench->stored, qr_store_blocks((int64_t)extent->stored_bytes),
                                      extent->first, &short_read, &retries);
        const char *why = error == 0   ? qr_page_check(bench, &tier->file, extent, producer, page)
                          : short_read ? "the file is cut short"
                                       : strerror(error);
        status = why == NULL ? QR_OK : unreadable(&tier->file, extent, producer, page, why);
        if (why == NULL || error != 0) {
            break;
        }
        retries += i + 1 < TRIES ? 1 : 0;
    }
    (void)pthread_mutex_lock(&store->lock);
    tier->totals.read_s += qr_now_s() - start;
    tier->totals.retries += retries;
    if (status == QR_OK) {
        tier->totals.stored_out += (int64_t)extent->stored_bytes;
        tier->totals.raw_out += (int64_t)extent->raw_bytes;
    }
    (void)pthread_mutex_unlock(&store->lock);
    return status;
}

/* Of one that was read and checked. */
static qr_status unpack(qr_page_store *store, const qr_extent *extent, int producer, int64_t page,
                        const qr_page_bench *bench, void *raw)
{
    qr_store_tier *tier = &store->tiers[extent->tier];
    qr_status status = QR_OK;
    double start = qr_now_s();
    const char *why = qr_page_unpack(bench, raw, &status);
    if (why != NULL) {
        qr_status kept = status;
        (void)unreadable(&tier->file, extent, producer, page, why);
        status = kept;
    }
    (void)pthread_mutex_lock(&store->lock);
    tier->totals.unpack_s += qr_now_s() - start;
    (void)pthread_mutex_unlock(&store->lock);
    return status;
}

qr_status qr_store_read_raw(qr_page_store *store, const qr_extent *extent, int producer, int64_t page,
                            qr_page_bench *bench, void *raw)
{
    qr_status status = qr_store_read_extent(store, extent, producer, page, bench);
    return status != QR_OK ? status : unpack(store, extent, producer, page, bench, raw);
}

/* --- get --- */

static void *slot_of(const qr_store_job *job)
{
    return qr_queue_slot(&job->store->queues[job->producer], job->job.slot);
}

/* (lock, given up in between) A page that cannot be read, which this thread's message says, from where else it may be
 * found. That may hang, too, so it does not go to the slot before it is there. */
static qr_status rescue_page(qr_store_job *job)
{
    qr_page_store *store = job->store;
    const qr_extent *extent = job->source;
    size_t bytes = (size_t)extent->raw_bytes;
    qr_page_rescue rescue = store->rescue;
    void *context = store->rescue_context;
    char message[QR_MESSAGE_BYTES];
    (void)snprintf(message, sizeof message, "%s", qr_error_message());
    store->rescuing++;
    job->rescues = true;
    leave_for_disk(job, extent->tier);
    void *copy = malloc(bytes);
    bool found =
        copy != NULL && rescue(context, job->job.arguments[0], extent->raw_hash, copy, (int64_t)extent->raw_bytes);
    return_from_disk(job);
    store->rescuing--;
    if (found && !job->given_up) {
        (void)pthread_mutex_unlock(&store->lock);
        memcpy(slot_of(job), copy, bytes);
        (void)pthread_mutex_lock(&store->lock);
    }
    free(copy);
    return found ? QR_OK : qr_error(QR_DATA, "%s", message);
}

static void run_get(qr_pool_task *task, int worker)
{
    qr_store_job *job = job_of(task);
    qr_page_store *store = job->store;
    qr_page_bench *bench = &job->pool->benches[worker];
    int64_t page = job->job.arguments[0];
    (void)pthread_mutex_lock(&store->lock);
    if (unwanted(job)) {
        qr_store_leave_pool(job, qr_store_ending(), 0);
        (void)pthread_mutex_unlock(&store->lock);
        return;
    }
    qr_extent *extent = job->source;
    leave_for_disk(job, extent->tier);
    qr_status status = qr_store_read_extent(store, extent, job->producer, page, bench);
    return_from_disk(job);
    if (!job->given_up && status == QR_OK) {
        (void)pthread_mutex_unlock(&store->lock);
        status = unpack(store, extent, job->producer, page, bench, slot_of(job));
        (void)pthread_mutex_lock(&store->lock);
    }
    if (!job->given_up && status == QR_DATA && store->rescue != NULL) {
        status = rescue_page(job);
    }
    store->tiers[extent->tier].totals.got += !job->given_up && status == QR_OK ? 1 : 0;
    qr_store_leave_pool(job, status, extent->tier);
    (void)pthread_mutex_unlock(&store->lock);
}

/* --- put and sink --- */

/* Packs the page, of a put from its slot, of a sink from where it is. The lock is held before and after, and given up
 * in between. */
static qr_status pack_page(qr_store_job *job, qr_page_bench *bench, qr_extent_head *head, int64_t *blocks)
{
    qr_page_store *store = job->store;
    qr_store_tier *tier = &store->tiers[job->tier];
    const qr_job *asked = &job->job;
    const void *raw = bench->raw;
    int64_t bytes = asked->bytes;
    qr_status status = QR_OK;
    *head = (qr_extent_head){.page = asked->arguments[0],
                             .version = asked->arguments[2],
                             .agents = asked->arguments[3],
                             .producer = job->producer};
    if (asked->kind == QR_JOB_PAGE_PUT) {
        raw = qr_queue_slot(&store->queues[job->producer], asked->slot);
        job->in_hand = true;
        (void)pthread_mutex_unlock(&store->lock);
    } else {
        bytes = (int64_t)job->source->raw_bytes;
        leave_for_disk(job, job->source->tier);
        status = qr_store_read_raw(store, job->source, job->producer, asked->arguments[0], bench, bench->raw);
        memcpy(&head->agents, bench->stored + offsetof(qr_extent_head, agents), sizeof head->agents);
        return_from_disk(job);
        (void)pthread_mutex_unlock(&store->lock);
    }
    double start = qr_now_s();
    status = status != QR_OK ? status : qr_page_pack(tier->codec, raw, (size_t)bytes, bench, head, blocks);
    double end = qr_now_s();
    (void)pthread_mutex_lock(&store->lock);
    tier->totals.pack_s += end - start;
    return status;
}

/* (lock, given up in between) An errno. */
static int write_page(qr_store_job *job, qr_page_bench *bench, qr_extent_head *head)
{
    qr_store_tier *tier = &job->store->tiers[job->tier];
    int64_t retries = 0;
    double start = qr_now_s();
    leave_for_disk(job, job->tier);
    qr_page_seal(bench, head, &tier->file, job->place);
    int error = qr_page_file_write(&tier->file, bench->stored, qr_store_blocks((int64_t)head->stored_bytes),
                                   job->place->first, &retries);
    return_from_disk(job);
    tier->totals.write_s += qr_now_s() - start;
    tier->totals.retries += retries;
    return error;
}

/* (lock) It is written: that is the page from now on. */
static void settle(qr_store_job *job, const qr_extent_head *head)
{
    qr_page_store *store = job->store;
    qr_store_tier *tier = &store->tiers[job->tier];
    qr_page_entry *entry = qr_page_entry_find(store, job->producer, job->job.arguments[0]);
    qr_page_entry_set(store, entry, job->place);
    job->place = NULL;
    tier->error = 0;
    tier->totals.raw_in += (int64_t)head->raw_bytes;
    tier->totals.stored_in += (int64_t)head->stored_bytes;
    if (job->job.kind == QR_JOB_PAGE_PUT) {
        tier->totals.put++;
    } else {
        tier->totals.sunk++;
    }
    qr_store_leave_pool(job, QR_OK, job->tier);
}

static void put_or_sink(qr_store_job *job, qr_page_bench *bench)
{
    qr_extent_head head;
    int64_t blocks = 0;
    int64_t where = job->source != NULL ? job->source->tier : 0;
    if (unwanted(job)) {
        qr_store_leave_pool(job, qr_store_ending(), where);
        return;
    }
    qr_status status = pack_page(job, bench, &head, &blocks);
    if (status != QR_OK || job->given_up) {
        qr_store_leave_pool(job, status, where);
        return;
    }
    if (job->place == NULL && !qr_store_find_place(job, blocks)) {
        qr_store_spill(job);
        return;
    }
    int error = write_page(job, bench, &head);
    if (error == 0 && !job->given_up) {
        settle(job, &head);
        return;
    }
    qr_extent_release(job->store, job->place);
    job->place = NULL;
    if (error != 0) {
        qr_store_refuse(&job->store->tiers[job->tier], error);
    }
    qr_store_spill(job);
}

void qr_store_run_write(qr_pool_task *task, int worker)
{
    qr_store_job *job = job_of(task);
    qr_page_store *store = job->store;
    (void)pthread_mutex_lock(&store->lock);
    put_or_sink(job, &job->pool->benches[worker]);
    (void)pthread_mutex_unlock(&store->lock);
}

/* --- the first job of a page (lock) --- */

static qr_status missing(const qr_store_job *job, const qr_page_entry *entry)
{
    const qr_job *asked = &job->job;
    if (entry->now == NULL) {
        return qr_error(QR_DATA, "page %" PRId64 " of queue %d is not in the page store", asked->arguments[0],
                        job->producer);
    }
    return qr_error(QR_DATA,
                    "page %" PRId64 " of queue %d is in the page store as version %" PRId64 " with %" PRIu64
                    " bytes; version %" PRId64 " with %" PRId64 " was asked for",
                    asked->arguments[0], job->producer, entry->now->version, entry->now->raw_bytes, asked->arguments[2],
                    asked->bytes);
}

static void begin_get(qr_store_job *job, const qr_page_entry *entry)
{
    qr_extent *now = entry->now;
    if (now == NULL || now->version != job->job.arguments[2] || (int64_t)now->raw_bytes != job->job.bytes) {
        qr_store_finish(job, missing(job, entry), 0);
        return;
    }
    if (job->store->tiers[now->tier].readers.stuck) {
        qr_store_finish(job, qr_store_stuck(&job->store->tiers[now->tier].file), now->tier);
        return;
    }
    job->source = now;
    now->uses++;
    qr_store_enter_pool(job, now->tier, false, run_get);
}

static void begin_sink(qr_store_job *job, const qr_page_entry *entry)
{
    qr_page_store *store = job->store;
    qr_extent *now = entry->now;
    if (now == NULL || now->version != job->job.arguments[2]) {
        qr_store_finish(job, missing(job, entry), 0);
        return;
    }
    job->tier = qr_store_usable_tier(store, job->job.arguments[3]);
    if (now->tier >= job->tier) {
        qr_store_finish(job, QR_OK, now->tier); /* it is as far down already */
        return;
    }
    job->source = now;
    now->uses++;
    qr_store_send(job);
}

static void do_drop(qr_store_job *job, qr_page_entry *entry)
{
    if (entry->now != NULL && entry->now->version == job->job.arguments[2]) {
        qr_page_entry_set(job->store, entry, NULL);
    }
    qr_store_finish(job, QR_OK, 0);
}

void qr_store_begin(qr_page_store *store, int producer, int64_t page)
{
    qr_page_entry *entry = qr_page_entry_find(store, producer, page);
    while (entry != NULL && entry->first != NULL && entry->first->pool == NULL && !entry->first->waits) {
        qr_store_job *job = entry->first;
        if (store->ending) {
            qr_store_finish(job, qr_store_ending(), 0);
            continue;
        }
        switch (job->job.kind) {
        case QR_JOB_PAGE_PUT:
            job->tier = qr_store_usable_tier(store, job->job.arguments[1]);
            qr_store_send(job);
            break;
        case QR_JOB_PAGE_GET: begin_get(job, entry); break;
        case QR_JOB_PAGE_SINK: begin_sink(job, entry); break;
        default: do_drop(job, entry); break;
        }
    }
}

/* --- what hangs (lock) --- */

static void give_up(qr_store_job *job, double seconds)
{
    qr_page_store *store = job->store;
    qr_status status =
        qr_error(QR_TRANSIENT,
                 job->rescues ? "%s: page %" PRId64
                                " of queue %d cannot be read, and the checkpoints' disks do not answer: they "
                                "were waited for for %.3g s"
                              : "%s: does not answer: page %" PRId64 " of queue %d has waited for %.3g s",
                 store->tiers[job->waits_for].file.path, job->job.arguments[0], job->producer, seconds);
    job->given_up = true;
    qr_store_finish(job, status, 0);
    qr_store_begin(store, job->producer, job->job.arguments[0]);
}

/* Whether it has been at a disk, or waited for a thread of a pool in which nothing moved, for too long. */
static bool hangs(qr_store_job *job, double timeout_s)
{
    enum { AT_DISK = 1 };
    if (job->pool == NULL || job->done || job->in_hand) {
        return false;
    }
    uint64_t mark = job->act != 0 ? job->act << 1 | AT_DISK : job->pool->progress << 1;
    if (mark != job->mark) {
        job->mark = mark;
        job->still = (qr_awake){0};
    }
    return qr_awake_look(&job->still) >= timeout_s;
}

bool qr_store_look_is_due(const qr_page_store *store)
{
    return qr_now_s() - store->looked >= look_every_s;
}

void qr_store_give_up_hanging(qr_page_store *store)
{
    store->looked = qr_now_s();
    for (size_t i = 0; i < store->n_jobs; i++) {
        qr_store_job *job = &store->jobs[i];
        if (hangs(job, store->config.timeout_s)) {
            job->pool->stuck = job->pool->stuck || job->act == 0;
            give_up(job, job->still.seconds);
        }
    }
    qr_store_watch_waiting(store);
}
