/* Beginning and end of the page store, and what the server's thread does for it. */
#include "io/page_store.h"

#include "base/memory.h"
#include "base/timer.h"
#include "io/page_store_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Awake seconds after which a disk is given up, when the configuration does not say. */
static const double usual_timeout_s = 60.0;

/* A reader that has read a page looks for the next one for so long. */
static const double linger_s = 100e-6;

/* --- beginning --- */

static qr_status start_pool(const qr_page_store_config *config, bool writes, int nice, qr_store_pool *pool)
{
    size_t n = (size_t)config->threads;
    qr_status status = qr_allocate(n, sizeof(qr_page_bench), "a page store", (void **)&pool->benches);
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        status = qr_page_bench_create(config, writes, &pool->benches[i]);
        pool->n_benches += status == QR_OK ? 1 : 0;
    }
    return status != QR_OK ? status : qr_pool_create(config->threads, nice, &pool->pool);
}

static qr_status start_tier(qr_page_store *store, const qr_page_store_config *config, int number)
{
    const qr_page_tier_config *wanted = &config->tiers[number];
    qr_store_tier *tier = &store->tiers[number];
    tier->file.descriptor = -1;
    if (wanted->directory == NULL || wanted->directory[0] == '\0') {
        return QR_OK;
    }
    tier->used = true;
    tier->codec = wanted->codec;
    /* The file's head comes on top of what was asked for. */
    int64_t limit = wanted->capacity > 0 ? wanted->capacity / QR_STORE_BLOCK + 1 : 0;
    tier->most_blocks = qr_store_blocks(config->most_raw);
    tier->same_places = limit > 0;
    tier->share = store->n_queues > 0 ? (limit - 1) / tier->most_blocks / store->n_queues : 0;
    qr_status status = qr_allocate((size_t)store->n_queues, sizeof(int64_t), "a page store", (void **)&tier->taken);
    status = status != QR_OK ? status : qr_page_file_create(config, number, &tier->file);
    if (status == QR_OK) {
        status = qr_extents_create(&tier->extents, 1, limit, tier->most_blocks);
    }
    status = status != QR_OK ? status : start_pool(&store->config, false, 0, &tier->readers);
    if (status == QR_OK) {
        qr_pool_linger(tier->readers.pool, linger_s);
    }
    int nice = number == QR_TIER_NVME ? 0 : QR_STORE_WRITERS_NICE;
    return status != QR_OK ? status : start_pool(&store->config, true, nice, &tier->writers);
}

/* As many as may be waiting in the queues, so that taking one never needs memory. */
static qr_status make_jobs(qr_page_store *store)
{
    for (int i = 0; i < store->n_queues; i++) {
        store->n_jobs += (size_t)qr_queue_capacity(&store->queues[i]);
    }
    qr_status status = qr_allocate(store->n_jobs, sizeof(qr_store_job), "a page store", (void **)&store->jobs);
    for (size_t i = 0; i < store->n_jobs && status == QR_OK; i++) {
        store->jobs[i].store = store;
        qr_store_recycle(&store->jobs[i]);
    }
    return status;
}

qr_status qr_page_store_create(const qr_page_store_config *config, qr_queue *queues, int n_queues, qr_page_store **out)
{
    qr_page_store *store = NULL;
    if (config->most_raw < 1 || n_queues < 0) {
        return qr_error(QR_INTERNAL, "the configuration of a page store is out of range");
    }
    qr_status status = qr_allocate(1, sizeof *store, "a page store", (void **)&store);
    if (status != QR_OK) {
        return status;
    }
    (void)pthread_mutex_init(&store->lock, NULL);
    store->config = *config;
    store->config.threads = config->threads < 1 ? 1 : config->threads;
    store->config.timeout_s = config->timeout_s > 0.0 ? config->timeout_s : usual_timeout_s;
    store->config.run_id = NULL; /* the caller's */
    store->queues = queues;
    store->n_queues = n_queues;
    store->last_done = &store->done;
    status = qr_allocate((size_t)n_queues, sizeof(qr_page_table), "a page store", (void **)&store->tables);
    status = status != QR_OK ? status : make_jobs(store);
    for (int t = 0; t < QR_N_TIERS; t++) {
        store->config.tiers[t].directory = NULL;
        store->tiers[t].file.descriptor = -1;
    }
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        status = start_tier(store, config, t);
    }
    if (status != QR_OK) {
        qr_page_store_destroy(store, usual_timeout_s);
        return status;
    }
    *out = store;
    return QR_OK;
}

/* --- jobs --- */

bool qr_page_store_takes(const qr_job *job)
{
    return job->kind >= QR_JOB_PAGE_PUT && job->kind <= QR_JOB_PAGE_TOTALS;
}

bool qr_page_store_busy(const qr_page_store *store)
{
    return store->open > 0;
}

static bool is_tier(int64_t tier)
{
    return tier >= 0 && tier < QR_N_TIERS;
}

static qr_status check_job(qr_page_store *store, int producer, const qr_job *job)
{
    bool drop = job->kind == QR_JOB_PAGE_DROP;
    bool sink = job->kind == QR_JOB_PAGE_SINK;
    bool fits = (drop || job->slot != QR_NO_SLOT) && (drop || is_tier(job->arguments[1])) &&
                (!sink || (is_tier(job->arguments[3]) && job->arguments[3] > job->arguments[1])) &&
                (drop || sink || (job->bytes > 0 && job->bytes <= store->config.most_raw));
    if (!fits) {
        return qr_error(QR_INTERNAL, "a job for page %" PRId64 " of queue %d does not fit the page store",
                        job->arguments[0], producer);
    }
    return qr_page_entry_make(store, producer, job->arguments[0]);
}

/* Without a slot there is nobody to answer to. */
static void answer(qr_queue *queue, const qr_job *job, qr_status status, int64_t value, const char *message)
{
    if (job->slot == QR_NO_SLOT) {
        qr_queue_acknowledge(queue, job, status, message);
    } else {
        qr_queue_answer(queue, job, status, value, message);
    }
}

/* At once: it waits for no disk. */
static void tell_totals(qr_page_store *store, int producer, const qr_job *job)
{
    qr_page_tier_totals totals[QR_N_TIERS];
    qr_queue *queue = &store->queues[producer];
    if (job->slot == QR_NO_SLOT || queue->slot_bytes < (int64_t)sizeof totals) {
        answer(queue, job, qr_error(QR_INTERNAL, "totals of a page store need a slot"), 0, qr_error_message());
        return;
    }
    qr_page_store_totals(store, totals);
    memcpy(qr_queue_slot(queue, job->slot), totals, sizeof totals);
    answer(queue, job, QR_OK, 0, NULL);
}

void qr_page_store_take(qr_page_store *store, int producer, const qr_job *job)
{
    if (job->kind == QR_JOB_PAGE_TOTALS) {
        tell_totals(store, producer, job);
        return;
    }
    (void)pthread_mutex_lock(&store->lock);
    qr_store_job *taken = store->spare;
    if (taken == NULL) { /* all are with threads that hang */
        (void)pthread_mutex_unlock(&store->lock);
        answer(&store->queues[producer], job, job->kind == QR_JOB_PAGE_DROP ? QR_OK : QR_TRANSIENT, 0,
               "the disks of the memory tiers do not answer");
        return;
    }
    store->spare = taken->next_done;
    *taken = (qr_store_job){.store = store, .producer = producer, .job = *job};
    store->open++;
    qr_status status = check_job(store, producer, job);
    if (status != QR_OK) {
        qr_store_finish(taken, status, 0);
    } else {
        qr_store_job **end = &qr_page_entry_find(store, producer, job->arguments[0])->first;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = taken;
        qr_store_begin(store, producer, job->arguments[0]);
        qr_store_serve_waiting(store);
    }
    (void)pthread_mutex_unlock(&store->lock);
}

bool qr_page_store_turn(qr_page_store *store)
{
    if (store->open > 0 && qr_store_look_is_due(store)) {
        (void)pthread_mutex_lock(&store->lock);
        qr_store_give_up_hanging(store);
        (void)pthread_mutex_unlock(&store->lock);
    }
    if (!atomic_load(&store->any_done)) {
        return false;
    }
    (void)pthread_mutex_lock(&store->lock);
    qr_store_job *first = store->done;
    store->done = NULL;
    store->last_done = &store->done;
    atomic_store(&store->any_done, false);
    (void)pthread_mutex_unlock(&store->lock);
    for (const qr_store_job *job = first; job != NULL; job = job->next_done) {
        answer(&store->queues[job->producer], &job->job, job->status, job->value, job->message);
        store->open--;
    }
    (void)pthread_mutex_lock(&store->lock);
    while (first != NULL) {
        qr_store_job *next = first->next_done;
        first->answered = true;
        if (first->pool == NULL) {
            qr_store_recycle(first);
        }
        first = next;
    }
    (void)pthread_mutex_unlock(&store->lock);
    return true;
}

/* --- reads of checkpoints --- */

void qr_page_store_hold(qr_page_store *store, int producer, int64_t page, int64_t version)
{
    (void)pthread_mutex_lock(&store->lock);
    qr_page_entry *entry = qr_page_entry_find(store, producer, page);
    if (entry != NULL) {
        qr_page_entry_hold(store, entry, version);
    }
    (void)pthread_mutex_unlock(&store->lock);
}

void qr_page_store_gets_on(qr_page_store *store)
{
    (void)pthread_mutex_lock(&store->lock);
    store->let_go++;
    (void)pthread_mutex_unlock(&store->lock);
}

void qr_page_store_release(qr_page_store *store, int producer, int64_t page, int64_t version)
{
    (void)pthread_mutex_lock(&store->lock);
    qr_page_entry *entry = qr_page_entry_find(store, producer, page);
    if (entry != NULL) {
        qr_page_entry_let_go(store, entry, version);
        qr_store_serve_waiting(store);
    }
    (void)pthread_mutex_unlock(&store->lock);
}

/* (lock) The put that brings this version, and has not written it yet; NULL: there is none. */
static const qr_store_job *find_coming(const qr_page_entry *entry, int64_t version)
{
    const qr_store_job *job = entry->first;
    while (job != NULL && !(job->job.kind == QR_JOB_PAGE_PUT && job->job.arguments[2] == version)) {
        job = job->next;
    }
    return job;
}

/* (lock, given up in between) NULL, with a message: no memory. */
static qr_page_bench *borrow_bench(qr_page_store *store)
{
    qr_page_bench *bench = store->spare_benches;
    if (bench != NULL) {
        store->spare_benches = bench->next;
        return bench;
    }
    (void)pthread_mutex_unlock(&store->lock);
    qr_status status = qr_allocate(1, sizeof *bench, "a page store", (void **)&bench);
    if (status == QR_OK && qr_page_bench_create(&store->config, false, bench) != QR_OK) {
        qr_page_bench_destroy(bench);
        free(bench);
        bench = NULL;
    }
    (void)pthread_mutex_lock(&store->lock);
    return bench;
}

qr_status qr_page_store_read(qr_page_store *store, int producer, int64_t page, int tier, int64_t version, void *raw,
                             int64_t bytes)
{
    (void)tier; /* it may have sunk since */
    (void)pthread_mutex_lock(&store->lock);
    qr_page_entry *entry = qr_page_entry_find(store, producer, page);
    qr_extent *extent = entry == NULL ? NULL : qr_page_entry_version(entry, version);
    const qr_store_job *coming = entry == NULL || extent != NULL ? NULL : find_coming(entry, version);
    int64_t there = extent != NULL ? (int64_t)extent->raw_bytes : coming != NULL ? coming->job.bytes : 0;
    qr_status status = QR_RESOURCE;
    qr_page_bench *bench = NULL;
    if (there != bytes) {
        status = qr_error(QR_DATA,
                          "page %" PRId64 " of queue %d is not in the page store in version %" PRId64 " with %" PRId64
                          " bytes",
                          page, producer, version, bytes);
        extent = NULL;
    } else if (coming != NULL) {
        /* From its slot, which is its producer's again when the job is answered: not while the lock is held. Its write
         * may be waiting for this very thread to let go of other pages. */
        memcpy(raw, qr_queue_slot(&store->queues[producer], coming->job.slot), (size_t)bytes);
        status = QR_OK;
    } else {
        extent->uses++;
        bench = borrow_bench(store);
    }
    if (bench != NULL) {
        (void)pthread_mutex_unlock(&store->lock);
        status = qr_store_read_raw(store, extent, producer, page, bench, raw);
        (void)pthread_mutex_lock(&store->lock);
        bench->next = store->spare_benches;
        store->spare_benches = bench;
    }
    qr_extent_release(store, extent);
    qr_store_serve_waiting(store);
    (void)pthread_mutex_unlock(&store->lock);
    return status;
}

bool qr_page_store_hash(qr_page_store *store, int producer, int64_t page, int64_t version, uint64_t hash[2])
{
    (void)pthread_mutex_lock(&store->lock);
    qr_page_entry *entry = qr_page_entry_find(store, producer, page);
    const qr_extent *extent = entry == NULL ? NULL : qr_page_entry_version(entry, version);
    if (extent != NULL) {
        memcpy(hash, extent->raw_hash, sizeof extent->raw_hash);
    }
    (void)pthread_mutex_unlock(&store->lock);
    return extent != NULL;
}

bool qr_page_store_set_rescue(qr_page_store *store, qr_page_rescue rescue, void *context)
{
    (void)pthread_mutex_lock(&store->lock);
    bool idle = store->rescuing == 0;
    store->rescue = rescue;
    store->rescue_context = context;
    (void)pthread_mutex_unlock(&store->lock);
    return idle;
}

void qr_page_store_totals(qr_page_store *store, qr_page_tier_totals totals[QR_N_TIERS])
{
    (void)pthread_mutex_lock(&store->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        totals[t] = store->tiers[t].totals;
    }
    (void)pthread_mutex_unlock(&store->lock);
}

/* --- the end --- */

static void free_pool(qr_store_pool *pool)
{
    for (int i = 0; i < pool->n_benches; i++) {
        qr_page_bench_destroy(&pool->benches[i]);
    }
    free(pool->benches);
}

static void free_all(qr_page_store *store)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        free_pool(&store->tiers[t].readers);
        free_pool(&store->tiers[t].writers);
        qr_extents_destroy(&store->tiers[t].extents);
        free(store->tiers[t].taken);
        qr_page_file_destroy(&store->tiers[t].file);
    }
    while (store->spare_benches != NULL) {
        qr_page_bench *next = store->spare_benches->next;
        qr_page_bench_destroy(store->spare_benches);
        free(store->spare_benches);
        store->spare_benches = next;
    }
    qr_page_tables_destroy(store);
    (void)pthread_mutex_destroy(&store->lock);
    free(store->jobs);
    free(store);
}

void qr_page_store_destroy(qr_page_store *store, double patience_s)
{
    if (store == NULL) {
        return;
    }
    double left_s = patience_s;
    bool all = true;
    (void)pthread_mutex_lock(&store->lock);
    store->ending = true;
    (void)pthread_mutex_unlock(&store->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        all = qr_pool_destroy(store->tiers[t].readers.pool, &left_s) && all;
        all = qr_pool_destroy(store->tiers[t].writers.pool, &left_s) && all;
    }
    if (all && !qr_threads_left_behind()) { /* a checkpoint's thread may be reading from it */
        free_all(store);
        return;
    }
    /* A thread that was left behind may use all of it yet, but for the names. */
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (store->tiers[t].file.path != NULL) {
            (void)unlink(store->tiers[t].file.path);
        }
    }
}
