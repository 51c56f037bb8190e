/* Pages on their way: hashed, compared with the generation before, compressed by threads of a pool. */
#include "io/checkpoint_parts.h"

#include "base/fault.h"
#include "base/memory.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/page_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* --- lists and rooms (lock) --- */

void qr_page_push(qr_page_list *list, qr_page *page)
{
    page->next = NULL;
    if (list->first == NULL) {
        list->first = page;
    } else {
        list->last->next = page;
    }
    list->last = page;
}

qr_page *qr_page_pop(qr_page_list *list)
{
    qr_page *page = list->first;
    if (page != NULL) {
        list->first = page->next;
    }
    return page;
}

static void give_back_room(qr_page *page)
{
    qr_cut *cut = page->cut;
    if (page->packed != NULL) {
        page->packed->next = cut->spare;
        cut->spare = page->packed;
        page->packed = NULL;
    }
    cut->rooms -= page->has_room ? 1 : 0;
}

/* What the page store kept for this page it need not keep any longer. */
static void let_go(qr_page *page)
{
    if (page->held_by >= 0) {
        qr_page_store_release(page->cut->tier->owner->config.pages, page->held_by, page->job.arguments[2],
                              page->job.arguments[3]);
        page->held_by = -1;
    }
}

void qr_page_release(qr_page *page)
{
    let_go(page);
    give_back_room(page);
    free(page);
}

int64_t qr_pages_of(const qr_checkpoint_config *config, int kind, int64_t count)
{
    int64_t agents = kind == QR_PAGE_VOTES ? config->page_agents_votes : config->page_agents_state;
    if (kind == QR_PAGE_STATE && config->state_dim == 0) {
        return 0;
    }
    return (count + agents - 1) / agents;
}

/* --- benches --- */

qr_status qr_benches_create(int n, size_t page_bytes, qr_bench **out)
{
    qr_bench *benches = NULL;
    qr_status status = qr_allocate((size_t)n, sizeof *benches, "compression", (void **)&benches);
    for (int i = 0; i < n && status == QR_OK; i++) {
        status = qr_allocate(page_bytes, 1, "compression", (void **)&benches[i].raw);
    }
    if (status != QR_OK) {
        qr_benches_destroy(benches, n);
        return status;
    }
    *out = benches;
    return QR_OK;
}

void qr_benches_destroy(qr_bench *benches, int n)
{
    for (int i = 0; i < n && benches != NULL; i++) {
        free(benches[i].raw);
        free(benches[i].scratch.bytes);
    }
    free(benches);
}

/* --- what a pool's thread does --- */

/* Chunks are whole pages: the last one of a part is filled up with zeros. */
static const void *whole_page(const qr_page *page, const void *raw, unsigned char *room)
{
    size_t bytes = page->cut->tier->page_bytes[page->record.kind];
    size_t used = (size_t)page->record.raw_bytes;
    if (used == bytes) {
        return raw;
    }
    if (raw != room) {
        memcpy(room, raw, used);
    }
    memset(room + used, 0, bytes - used);
    return room;
}

/* (lock) */
static qr_packed *find_room(qr_cut *cut)
{
    qr_packed *room = cut->spare;
    if (room != NULL) {
        cut->spare = room->next;
    }
    return room;
}

/* room: from the spare ones, or NULL. */
static qr_status pack(qr_page *page, qr_packed *room, const void *raw, unsigned char *bench)
{
    qr_tier *tier = page->cut->tier;
    size_t stored = 0;
    if (room == NULL) {
        room = malloc(sizeof *room + tier->room_bytes);
        if (room == NULL) {
            return qr_error_memory(tier->room_bytes, "compressed pages");
        }
    }
    page->packed = room;
    const void *whole = whole_page(page, raw, bench);
    qr_status status =
        qr_codec_pack(tier->codec, whole, tier->page_bytes[page->record.kind], room->bytes, tier->room_bytes, &stored);
    if (status == QR_OK) {
        page->record.stored_bytes = stored;
        page->record.stored_hash = XXH3_64bits(room->bytes, stored);
    }
    return status;
}

/* (lock) The page is packed, unchanged, of no use any more, or could not be packed. */
static void finish(qr_page *page, qr_status status, double seconds)
{
    qr_cut *cut = page->cut;
    qr_tier *tier = cut->tier;
    qr_slot_done(tier->owner, page->producer, &page->job);
    page->producer = -1;
    tier->post.compress_s += seconds;
    cut->in_pool--;
    cut->progress++;
    if (status != QR_OK) {
        if (cut->from != NULL && status == QR_DATA) {
            cut->from->post.damaged++;
        }
        qr_cut_fail(cut, status);
    }
    if (cut->given_up) {
        qr_page_release(page);
    } else {
        qr_page_push(&cut->packed, page);
    }
    pthread_cond_signal(&tier->work);
}

static void pack_slot(qr_pool_task *task, int worker)
{
    qr_page *page = (qr_page *)(void *)task;
    qr_cut *cut = page->cut;
    qr_checkpoint *checkpoint = cut->tier->owner;
    double start = qr_now_s();
    qr_status status = QR_OK;
    pthread_mutex_lock(&checkpoint->lock);
    bool wanted = !cut->given_up;
    pthread_mutex_unlock(&checkpoint->lock);
    if (wanted) {
        XXH128_hash_t hash = XXH3_128bits(page->payload, (size_t)page->record.raw_bytes);
        page->record.raw_hash = (qr_hash){.low = hash.low64, .high = hash.high64};
        const qr_page_record *same = qr_earlier_find(cut->earlier, &page->record);
        if (same != NULL) {
            page->record = *same;
            page->taken_over = true;
        } else {
            pthread_mutex_lock(&checkpoint->lock);
            qr_packed *room = find_room(cut);
            pthread_mutex_unlock(&checkpoint->lock);
            status = pack(page, room, page->payload, checkpoint->benches[worker].raw);
        }
    }
    pthread_mutex_lock(&checkpoint->lock);
    finish(page, status, qr_now_s() - start);
    pthread_mutex_unlock(&checkpoint->lock);
}

/* The page as the page store holds it, or as an earlier checkpoint does, if that store cannot read it any more. */
static qr_status read_stored(const qr_page *page, void *raw, int64_t bytes)
{
    qr_checkpoint *checkpoint = page->cut->tier->owner;
    qr_page_store *store = checkpoint->config.pages;
    int64_t number = page->job.arguments[2];
    int64_t version = page->job.arguments[3];
    uint64_t hash[2];
    char message[QR_MESSAGE_BYTES];
    qr_status status = qr_page_store_read(store, page->held_by, number, (page->job.flags >> QR_CUT_STORED_SHIFT) - 1,
                                          version, raw, bytes);
    if (status == QR_DATA && qr_page_store_hash(store, page->held_by, number, version, hash)) {
        (void)snprintf(message, sizeof message, "%s", qr_error_message());
        status = qr_checkpoint_rescue(checkpoint, number, hash, raw, bytes) ? QR_OK : qr_error(QR_DATA, "%s", message);
    }
    return status;
}

/* What the generation before holds already, to be referred to; it need not be read. */
static bool is_in_earlier(qr_page *page)
{
    qr_page_record record = page->record;
    uint64_t hash[2];
    if (!qr_page_store_hash(page->cut->tier->owner->config.pages, page->held_by, page->job.arguments[2],
                            page->job.arguments[3], hash)) {
        return false;
    }
    record.raw_hash = (qr_hash){.low = hash[0], .high = hash[1]};
    const qr_page_record *same = qr_earlier_find(page->cut->earlier, &record);
    if (same != NULL) {
        page->record = *same;
        page->taken_over = true;
    }
    return same != NULL;
}

/* A page that lies in the page store. */
static void pack_stored(qr_pool_task *task, int worker)
{
    qr_page *page = (qr_page *)(void *)task;
    qr_cut *cut = page->cut;
    qr_checkpoint *checkpoint = cut->tier->owner;
    unsigned char *raw = checkpoint->benches[worker].raw;
    int64_t bytes = (int64_t)page->record.raw_bytes;
    qr_status status = QR_OK;
    pthread_mutex_lock(&checkpoint->lock);
    bool wanted = !cut->given_up;
    qr_packed *room = wanted ? find_room(cut) : NULL;
    pthread_mutex_unlock(&checkpoint->lock);
    page->packed = room;
    wanted = wanted && !is_in_earlier(page);
    if (wanted) {
        status = read_stored(page, raw, bytes);
    }
    let_go(page);
    double start = qr_now_s();
    if (wanted && status == QR_OK) {
        XXH128_hash_t hash = XXH3_128bits(raw, (size_t)bytes);
        page->record.raw_hash = (qr_hash){.low = hash.low64, .high = hash.high64};
        const qr_page_record *same = qr_earlier_find(cut->earlier, &page->record);
        if (same != NULL) {
            page->record = *same;
            page->taken_over = true;
        } else {
            status = pack(page, room, raw, raw);
        }
    }
    pthread_mutex_lock(&checkpoint->lock);
    finish(page, status, qr_now_s() - start);
    pthread_mutex_unlock(&checkpoint->lock);
}

static void pack_drained(qr_pool_task *task, int worker)
{
    qr_page *page = (qr_page *)(void *)task;
    qr_cut *cut = page->cut;
    qr_checkpoint *checkpoint = cut->tier->owner;
    qr_bench *bench = &cut->tier->benches[worker];
    qr_status status = QR_OK;
    pthread_mutex_lock(&checkpoint->lock);
    bool wanted = !cut->given_up;
    qr_packed *room = wanted ? find_room(cut) : NULL;
    pthread_mutex_unlock(&checkpoint->lock);
    double start = qr_now_s();
    if (wanted) {
        int fault = qr_fault("checkpoint.read", cut->from->directory);
        status = fault != 0 ? qr_file_error(cut->from->directory, "read", fault)
                            : qr_generation_read_page(cut->reader, page->source, &bench->scratch, bench->raw);
        start = status == QR_OK ? qr_now_s() : start;
        if (status == QR_OK) {
            status = pack(page, room, bench->raw, bench->raw);
        } else {
            page->packed = room;
        }
        if (status == QR_DATA) {
            (void)qr_generation_mark_bad(cut->from->directory, cut->generation, checkpoint->config.server, false,
                                         qr_error_message());
        }
    }
    pthread_mutex_lock(&checkpoint->lock);
    finish(page, status, qr_now_s() - start);
    pthread_mutex_unlock(&checkpoint->lock);
}

void qr_pages_dispatch(qr_cut *cut)
{
    while (!cut->given_up && cut->n_parts > 0 && cut->rooms < cut->tier->most_rooms) {
        qr_page *page = qr_page_pop(cut->waiting.first != NULL ? &cut->waiting : &cut->stored);
        if (page == NULL) {
            break;
        }
        page->has_room = true;
        cut->rooms++;
        cut->in_pool++;
        qr_pool_submit(cut->tier->owner->pool, &page->task);
    }
}

bool qr_pages_feed(qr_cut *cut)
{
    bool any = false;
    while (!cut->given_up && cut->fed < (size_t)cut->expected && cut->rooms < cut->tier->most_rooms) {
        qr_page *page = calloc(1, sizeof *page);
        if (page == NULL) {
            qr_cut_fail(cut, qr_error_memory(sizeof *page, "a checkpoint"));
            return true;
        }
        page->cut = cut;
        page->producer = -1;
        page->held_by = -1;
        page->source = cut->fed++;
        page->record = cut->source_pages[page->source];
        page->has_room = true;
        cut->rooms++;
        any = true;
        const qr_page_record *same = qr_earlier_find(cut->earlier, &page->record);
        if (same != NULL) {
            page->record = *same;
            page->taken_over = true;
            qr_page_push(&cut->packed, page);
            continue;
        }
        cut->in_pool++;
        page->task.run = pack_drained;
        qr_pool_submit(cut->tier->pool, &page->task);
    }
    return any;
}

/* --- from the slot --- */

static bool make_record(const qr_checkpoint_config *config, const qr_generation_part *part, const qr_job *job,
                        qr_page_record *record)
{
    int kind = job->flags & ((1 << QR_CUT_STORED_SHIFT) - 1);
    bool votes = kind == QR_PAGE_VOTES;
    int64_t number = job->arguments[2];
    int64_t agents = votes ? config->page_agents_votes : config->page_agents_state;
    int64_t unit = votes ? 1 : config->state_dim * (int64_t)sizeof(float);
    if ((!votes && kind != QR_PAGE_STATE) || number < 0 || number >= qr_pages_of(config, kind, part->count)) {
        return false;
    }
    int64_t left = part->count - number * agents;
    *record = (qr_page_record){.part = part->part,
                               .kind = kind,
                               .number = number,
                               .first = part->first + number * agents,
                               .count = left < agents ? left : agents};
    record->raw_bytes = (uint64_t)(record->count * unit);
    return job->first == record->first && job->count == record->count &&
           job->bytes == (job->slot != QR_NO_SLOT ? (int64_t)record->raw_bytes : 0);
}

void qr_page_take(qr_checkpoint *checkpoint, int producer, const qr_job *job)
{
    int64_t t = job->arguments[1];
    qr_cut *cut = t >= 0 && t < QR_N_TIERS ? qr_cut_find(&checkpoint->tiers[t], job->arguments[0]) : NULL;
    bool stored = job->flags >> QR_CUT_STORED_SHIFT != 0;
    qr_page *page = NULL;
    qr_status status = QR_OK;
    if (cut == NULL) {
        qr_slot_done(checkpoint, producer, job); /* stale */
        return;
    }
    page = calloc(1, sizeof *page);
    if (page == NULL) {
        status = qr_error_memory(sizeof *page, "a checkpoint");
    } else if (stored == (job->slot != QR_NO_SLOT) || (stored && checkpoint->config.pages == NULL) ||
               cut->from != NULL || !cut->begun[producer] ||
               !make_record(&checkpoint->config, &cut->parts[producer], job, &page->record)) {
        status = qr_error(QR_INTERNAL, "generation %lld: page %lld of %lld agents from %lld on does not fit",
                          (long long)cut->generation, (long long)job->arguments[2], (long long)job->count,
                          (long long)job->first);
    }
    if (status != QR_OK) {
        free(page);
        qr_cut_fail(cut, status);
        qr_slot_done(checkpoint, producer, job);
        return;
    }
    if (cut->arrived == 0) {
        cut->began = qr_now_s();
    }
    page->cut = cut;
    page->producer = producer;
    page->job = *job;
    page->held_by = -1;
    page->task.run = stored ? pack_stored : pack_slot;
    if (stored) {
        page->held_by = producer;
        qr_page_store_hold(checkpoint->config.pages, producer, job->arguments[2], job->arguments[3]);
    } else {
        page->payload = qr_queue_slot(&checkpoint->queues[producer], job->slot);
    }
    cut->arrived++;
    cut->progress++;
    qr_page_push(stored ? &cut->stored : &cut->waiting, page);
    qr_pages_dispatch(cut);
}
