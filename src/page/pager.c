#include "page/pager.h"

#include "base/memory.h"
#include "base/timer.h"
#include "page/parts.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_SLOTS_TO_KEEP_ONE = 4 };

/* --- making --- */

int64_t qr_pager_spare_pages(const qr_pager_config *config)
{
    int64_t n_pages = (config->n_agents + config->page_agents - 1) / config->page_agents;
    int64_t spare = 2 * (config->ahead > 0 ? config->ahead : 0) + 2;
    return config->ops->frames->memory != NULL ? 0 : spare < n_pages + 2 ? spare : n_pages + 2;
}

static qr_status check_config(const qr_pager_config *config, int64_t n_pages)
{
    if (config->ops->frames == NULL || config->page_agents < 1 || config->agent_bytes < 1 || config->n_agents < 0) {
        return qr_error(QR_INTERNAL, "a pager needs a backend with frames, and agents with states");
    }
    bool on_device = config->ops->frames->memory == NULL;
    int top = on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    int64_t page_bytes = config->page_agents * config->agent_bytes;
    int64_t room = 0;
    bool disk = false;
    for (int tier = top; tier < QR_N_MEMORY_TIERS; tier++) {
        bool used = config->tiers[tier].used && config->tiers[tier].pages > 0;
        int64_t pages = used ? config->tiers[tier].pages : 0;
        room += pages < n_pages - room ? pages : n_pages - room;
        disk = disk || (used && tier >= QR_MEMORY_NVME);
    }
    if (!config->tiers[top].used || config->tiers[top].pages < 1) {
        return qr_error(QR_USAGE, "memory.tiers.%s has room for no page of %lld bytes",
                        qr_memory_tier_name((qr_memory_tier)top), (long long)page_bytes);
    }
    if (room < n_pages) {
        return qr_error(QR_USAGE, "the memory tiers together hold %lld pages of %lld bytes, and there are %lld",
                        (long long)room, (long long)page_bytes, (long long)n_pages);
    }
    if (disk && config->queue == NULL) {
        return qr_error(QR_INTERNAL, "pages on disk need a queue to the I/O server");
    }
    if (disk && config->queue->slot_bytes < page_bytes) {
        return qr_error(QR_INTERNAL, "slots of %lld bytes hold no page of %lld bytes",
                        (long long)config->queue->slot_bytes, (long long)page_bytes);
    }
    return QR_OK;
}

/* How many pages the backend is given at once: while some are updated, as many arrive and as many leave. */
static int64_t batch_of(const qr_pager *pager)
{
    int64_t frames = pager->config.tiers[pager->top].pages;
    int64_t batch = QR_PAGE_MOST_BATCH;
    if (frames < pager->table.n_pages) {
        int64_t ahead = pager->config.ahead > 1 ? pager->config.ahead / 2 : 1;
        int64_t third = frames > 3 ? frames / 3 : 1;
        batch = ahead < third ? ahead : third;
    }
    return batch < QR_PAGE_MOST_BATCH ? batch : QR_PAGE_MOST_BATCH;
}

static qr_status number_all(int64_t count, const char *what, int64_t **out)
{
    qr_status status = qr_allocate((size_t)count, sizeof **out, what, (void **)out);
    for (int64_t i = 0; status == QR_OK && i < count; i++) {
        (*out)[i] = count - 1 - i;
    }
    return status;
}

static qr_status create_copies(qr_pager *pager, qr_page_copies *copies)
{
    int32_t slots = pager->config.queue != NULL ? pager->config.queue->n_slots : 0;
    copies->capacity = pager->n_berths + slots + 1;
    return qr_allocate((size_t)copies->capacity, sizeof *copies->ring, "copies", (void **)&copies->ring);
}

static qr_status create_berths(qr_pager *pager)
{
    const qr_memory_tier_config *cpu = &pager->config.tiers[QR_MEMORY_CPU];
    int64_t room = cpu->used ? cpu->pages : 0;
    int64_t needed = pager->table.n_pages;
    pager->n_berths = (room < needed ? room : needed) + qr_pager_spare_pages(&pager->config);
    if (pager->n_berths > INT64_MAX / pager->page_bytes) {
        return qr_error_memory(SIZE_MAX, "pages in memory");
    }
    size_t batch = (size_t)pager->batch;
    qr_status status = number_all(pager->n_berths, "berths", &pager->free_berths);
    pager->n_free_berths = pager->n_berths;
    if (status == QR_OK) {
        status = qr_allocate((size_t)pager->n_berths, sizeof(int64_t), "berths", (void **)&pager->berth_ticket);
    }
    if (status == QR_OK) {
        status = create_copies(pager, &pager->fills);
    }
    if (status == QR_OK) {
        status = create_copies(pager, &pager->evictions);
    }
    if (status == QR_OK) {
        status = qr_allocate(batch, sizeof *pager->to_fill, "copies", (void **)&pager->to_fill);
    }
    if (status == QR_OK) {
        status = qr_allocate(batch, sizeof *pager->to_evict, "copies", (void **)&pager->to_evict);
    }
    if (status == QR_OK) {
        status = qr_allocate(batch, sizeof *pager->to_fill_notes, "copies", (void **)&pager->to_fill_notes);
    }
    if (status == QR_OK) {
        status = qr_allocate(batch, sizeof *pager->to_evict_notes, "copies", (void **)&pager->to_evict_notes);
    }
    if (status == QR_OK) {
        status = pager->frames->allocate_host(pager->config.backend, (size_t)(pager->n_berths * pager->page_bytes),
                                              (void **)&pager->berths);
    }
    return status;
}

static qr_status create_parts(qr_pager *pager, int64_t n_pages)
{
    const qr_pager_config *config = &pager->config;
    int64_t n_frames = config->tiers[pager->top].pages < n_pages ? config->tiers[pager->top].pages : n_pages;
    qr_status status = qr_page_table_create(n_pages, &pager->table);
    if (status == QR_OK) {
        status = qr_prefetch_create(n_pages, config->sequential, config->correlated, &pager->prefetch);
    }
    if (status == QR_OK) {
        status = qr_prefetch_create(n_pages, config->sequential, config->correlated, &pager->reading);
    }
    if (status == QR_OK) {
        pager->batch = batch_of(pager);
        pager->n_free_frames = n_frames;
        status = number_all(n_frames, "frames", &pager->free_frames);
    }
    if (status == QR_OK) {
        status = number_all(n_pages, "the order of pages", &pager->order);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)n_pages, sizeof *pager->active, "the order of pages", (void **)&pager->active);
    }
    if (status == QR_OK) {
        status = number_all(QR_PAGE_MOST_BATCH, "batches of pages", &pager->batch_pages);
    }
    if (status == QR_OK) {
        status = number_all(QR_PAGE_MOST_BATCH, "batches of pages", &pager->batch_frames);
    }
    if (status == QR_OK && config->queue != NULL) {
        status = qr_allocate((size_t)config->queue->n_slots, sizeof *pager->jobs, "jobs", (void **)&pager->jobs);
    }
    if (status == QR_OK && config->queue != NULL) {
        status =
            qr_allocate((size_t)config->queue->n_slots, sizeof *pager->busy_slots, "jobs", (void **)&pager->busy_slots);
    }
    if (status == QR_OK && config->queue != NULL && config->queue->n_slots >= LEAST_SLOTS_TO_KEEP_ONE) {
        pager->own_slot = qr_queue_try_slot(config->queue);
        pager->keeps_slot = pager->own_slot != QR_NO_SLOT;
    }
    if (status == QR_OK && pager->on_device) {
        status = create_berths(pager);
    }
    return status;
}

qr_status qr_pager_create(const qr_pager_config *config, qr_pager **out)
{
    int64_t n_pages = config->page_agents > 0 ? (config->n_agents + config->page_agents - 1) / config->page_agents : 0;
    qr_status status = check_config(config, n_pages);
    qr_pager *pager = NULL;
    if (status == QR_OK) {
        status = qr_allocate(1, sizeof *pager, "the pager", (void **)&pager);
    }
    if (status != QR_OK) {
        return status;
    }
    pager->config = *config;
    pager->frames = config->ops->frames;
    pager->on_device = pager->frames->memory == NULL;
    pager->top = pager->on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    pager->page_bytes = config->page_agents * config->agent_bytes;
    pager->sweep.one_way = config->plain_lru;
    pager->own_slot = QR_NO_SLOT;
    for (int64_t tier = pager->top, left = n_pages; tier < QR_N_MEMORY_TIERS; tier++) {
        int64_t pages = config->tiers[tier].used ? config->tiers[tier].pages : 0;
        left -= pages < left ? pages : left;
        pager->pressed[tier] = left > 0;
    }
    status = create_parts(pager, n_pages);
    if (status != QR_OK) {
        qr_pager_destroy(pager);
        return status;
    }
    *out = pager;
    return QR_OK;
}

/* Whoever waits for copies or for the server gives up at the first failure: it has been told of already. */
static void let_all_end(qr_pager *pager)
{
    bool any = pager->on_device;
    while (any && qr_pager_wait_copy(pager, &any) == QR_OK) {
    }
    while (pager->n_busy > 0) {
        int32_t slot = pager->busy_slots[0];
        if (!pager->jobs[slot].asked) {
            qr_pager_let_go(pager, pager->jobs[slot].page);
        } else if (pager->config.queue->lost || (qr_pager_wait_job(pager, slot) != QR_OK && pager->jobs[slot].asked)) {
            return;
        }
    }
}

void qr_pager_destroy(qr_pager *pager)
{
    if (pager == NULL) {
        return;
    }
    let_all_end(pager);
    if (pager->own_slot != QR_NO_SLOT) {
        qr_queue_return_slot(pager->config.queue, pager->own_slot);
    }
    if (pager->berths != NULL) {
        pager->frames->free_host(pager->config.backend, pager->berths);
    }
    qr_page_table_clear(&pager->table);
    qr_prefetch_clear(&pager->prefetch);
    qr_prefetch_clear(&pager->reading);
    free(pager->free_frames);
    free(pager->free_berths);
    free(pager->berth_ticket);
    free(pager->fills.ring);
    free(pager->evictions.ring);
    free(pager->to_fill);
    free(pager->to_evict);
    free(pager->to_fill_notes);
    free(pager->to_evict_notes);
    free(pager->jobs);
    free(pager->busy_slots);
    free(pager->order);
    free(pager->active);
    free(pager->batch_pages);
    free(pager->batch_frames);
    free(pager);
}

/* --- what it tells --- */

bool qr_pager_next_is_up(const qr_pager *pager)
{
    qr_sweep next = pager->sweep;
    qr_sweep_turn(&next, &pager->table, pager->top);
    return next.up;
}

bool qr_pager_on_disk(const qr_pager *pager, int64_t page, int *tier, int64_t *version)
{
    const qr_page_entry *entry = &pager->table.entries[page];
    if (entry->tier < QR_MEMORY_NVME || entry->tier >= QR_N_MEMORY_TIERS ||
        (entry->flags & (QR_PAGE_PUTTING | QR_PAGE_SINKING)) != 0) {
        return false;
    }
    *tier = entry->tier - QR_MEMORY_NVME;
    *version = entry->version;
    return true;
}

void qr_pager_counters_read(const qr_pager *pager, qr_pager_counters *out)
{
    *out = (qr_pager_counters){.n_pages = pager->table.n_pages,
                               .touched = pager->touched,
                               .passed = pager->passed,
                               .hits = pager->hits,
                               .misses = pager->misses,
                               .wasted = pager->wasted,
                               .late = pager->late,
                               .waited_s = pager->waited_s};
    double now_s = qr_now_s();
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        out->pages_in[tier] = qr_page_tier_count(&pager->table, tier);
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            out->links[tier][to] = qr_link_read(&pager->links[tier][to], now_s);
        }
    }
    for (int32_t i = 0; i < pager->n_busy; i++) {
        const qr_page_job *job = &pager->jobs[pager->busy_slots[i]];
        bool leaves = job->asked && job->kind == QR_JOB_PAGE_PUT;
        out->pages_in[job->to] -= leaves ? 1 : 0;
        out->leaving += leaves ? 1 : 0;
        out->coming += job->asked && job->kind == QR_JOB_PAGE_GET ? 1 : 0;
    }
}

const qr_link *qr_pager_link(const qr_pager *pager, int from, int to)
{
    return &pager->links[from][to];
}
