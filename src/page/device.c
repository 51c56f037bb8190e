/* Frames on a device: pages go between them and berths, and come from slots of the queue. */
#include "base/timer.h"
#include "page/parts.h"

#include <string.h>

/* The eviction that writes to a berth is yet to be handed over. */
static const int64_t not_handed_over = INT64_MAX;

void *qr_pager_berth(const qr_pager *pager, int64_t berth)
{
    return pager->berths + berth * pager->page_bytes;
}

/* --- copies --- */

static void push(qr_page_copies *copies, const qr_page_copy *copy)
{
    copies->ring[(copies->first + copies->count++) % copies->capacity] = *copy;
}

static qr_page_copy *oldest(qr_page_copies *copies)
{
    return copies->count > 0 ? &copies->ring[copies->first] : NULL;
}

static void pop(qr_page_copies *copies)
{
    copies->first = (copies->first + 1) % copies->capacity;
    copies->count--;
}

qr_status qr_pager_flush(qr_pager *pager)
{
    qr_backend *backend = pager->config.backend;
    int64_t ticket = 0;
    if (pager->n_to_evict > 0) {
        qr_status status = pager->frames->evict(backend, pager->to_evict, pager->n_to_evict, &ticket);
        if (status != QR_OK) {
            return status;
        }
        for (int64_t i = 0; i < pager->n_to_evict; i++) {
            qr_page_copy *note = &pager->to_evict_notes[i];
            note->ticket = ticket;
            pager->berth_ticket[note->berth] = ticket;
            push(&pager->evictions, note);
        }
        pager->n_to_evict = 0;
    }
    if (pager->n_to_fill > 0) {
        qr_status status = pager->frames->fill(backend, pager->to_fill, pager->n_to_fill, &ticket);
        if (status != QR_OK) {
            return status;
        }
        for (int64_t i = 0; i < pager->n_to_fill; i++) {
            pager->to_fill_notes[i].ticket = ticket;
            push(&pager->fills, &pager->to_fill_notes[i]);
        }
        pager->n_to_fill = 0;
    }
    return QR_OK;
}

void qr_pager_poll_copies(qr_pager *pager)
{
    qr_backend *backend = pager->config.backend;
    if (pager->fills.count > 0) {
        int64_t done = pager->frames->filled(backend);
        double now_s = qr_now_s();
        for (qr_page_copy *copy; (copy = oldest(&pager->fills)) != NULL && copy->ticket <= done; pop(&pager->fills)) {
            if (copy->berth >= 0) {
                pager->free_berths[pager->n_free_berths++] = copy->berth;
                qr_link_end(&pager->links[copy->from][pager->top], copy->started, now_s,
                            qr_pager_bytes_of(pager, copy->page));
            } else {
                qr_pager_give_slot(pager, copy->slot);
                pager->n_filling--;
            }
        }
    }
    if (pager->evictions.count > 0) {
        int64_t done = pager->frames->evicted(backend);
        double now_s = qr_now_s();
        for (qr_page_copy *copy; (copy = oldest(&pager->evictions)) != NULL && copy->ticket <= done;
             pop(&pager->evictions)) {
            qr_link_end(&pager->links[copy->from][QR_MEMORY_CPU], copy->started, now_s,
                        qr_pager_bytes_of(pager, copy->page));
        }
    }
}

qr_status qr_pager_wait_copy(qr_pager *pager, bool *any)
{
    qr_backend *backend = pager->config.backend;
    qr_status status = qr_pager_flush(pager);
    const qr_page_copy *fill = oldest(&pager->fills), *eviction = oldest(&pager->evictions);
    *any = fill != NULL || eviction != NULL;
    if (status == QR_OK && fill != NULL) {
        status = pager->frames->wait_filled(backend, fill->ticket);
    } else if (status == QR_OK && eviction != NULL) {
        status = pager->frames->wait_evicted(backend, eviction->ticket);
    }
    if (status == QR_OK) {
        qr_pager_poll_copies(pager);
    }
    return status;
}

/* --- berths --- */

qr_status qr_pager_take_berth(qr_pager *pager, bool demand, int64_t *berth)
{
    *berth = -1;
    if (pager->n_free_berths == 0) {
        qr_pager_poll_copies(pager);
    }
    while (pager->n_free_berths == 0 && demand) {
        if (pager->n_to_fill + pager->fills.count > 0) {
            qr_status status = qr_pager_flush(pager);
            if (status == QR_OK) {
                status = pager->frames->wait_filled(pager->config.backend, oldest(&pager->fills)->ticket);
            }
            if (status != QR_OK) {
                return status;
            }
            qr_pager_poll_copies(pager);
        } else {
            return QR_OK; /* pages must leave first */
        }
    }
    if (pager->n_free_berths > 0) {
        *berth = pager->free_berths[--pager->n_free_berths];
        pager->berth_ticket[*berth] = 0;
    }
    return QR_OK;
}

static bool is_settled(const qr_pager *pager, int64_t berth)
{
    int64_t ticket = pager->berth_ticket[berth];
    return ticket == 0 || (ticket != not_handed_over && ticket <= pager->frames->evicted(pager->config.backend));
}

qr_status qr_pager_settle_berth(qr_pager *pager, int64_t berth)
{
    if (is_settled(pager, berth)) {
        return QR_OK;
    }
    qr_status status = qr_pager_flush(pager);
    return status == QR_OK ? pager->frames->wait_evicted(pager->config.backend, pager->berth_ticket[berth]) : status;
}

qr_status qr_pager_relieve_berths(qr_pager *pager, double now_s)
{
    const qr_memory_tier_config *cpu = &pager->config.tiers[QR_MEMORY_CPU];
    int64_t room = cpu->used ? cpu->pages : 0;
    if (!pager->pressed[QR_MEMORY_CPU]) { /* more than its room are there only while frames are free for them */
        return QR_OK;
    }
    for (;;) {
        int64_t surplus = qr_policy_surplus(qr_page_tier_count(&pager->table, QR_MEMORY_CPU), room, pager->config.high,
                                            pager->config.low, &pager->sinking[QR_MEMORY_CPU]);
        int64_t page = surplus > 0 ? qr_page_victim(&pager->table, QR_MEMORY_CPU, false)
                                   : qr_policy_aged(&pager->table, QR_MEMORY_CPU, cpu, pager->config.low,
                                                    pager->swept_s[1], now_s);
        int32_t slot = QR_NO_SLOT;
        if (page < 0 && surplus > 0 && pager->n_free_berths == 0) {
            page = qr_page_victim(&pager->table, QR_MEMORY_CPU, true);
        }
        if (page < 0 || !is_settled(pager, pager->table.entries[page].place) ||
            qr_policy_room(&pager->table, pager->config.tiers, QR_MEMORY_NVME) < 0) {
            return QR_OK;
        }
        qr_status status = qr_pager_take_slot(pager, page, pager->n_free_berths == 0, &slot);
        if (status != QR_OK || slot == QR_NO_SLOT) {
            return status;
        }
        int64_t berth = pager->table.entries[page].place;
        memcpy(qr_queue_slot(pager->config.queue, slot), qr_pager_berth(pager, berth),
               (size_t)qr_pager_bytes_of(pager, page));
        status = qr_pager_put(pager, page, slot);
        if (status != QR_OK) {
            return status;
        }
        pager->free_berths[pager->n_free_berths++] = berth;
    }
}

/* --- frames --- */

static bool fill_is_collected(const qr_pager *pager, int64_t frame)
{
    for (int64_t i = 0; i < pager->n_to_fill; i++) {
        if (pager->to_fill[i].frame == frame) {
            return true;
        }
    }
    return false;
}

qr_status qr_pager_frame_device(qr_pager *pager, bool demand, int64_t *frame)
{
    *frame = -1;
    if (pager->n_free_frames > 0) {
        *frame = pager->free_frames[--pager->n_free_frames];
        return QR_OK;
    }
    int64_t leaving = qr_page_victim(&pager->table, pager->top, demand);
    int64_t berth = -1;
    if (leaving < 0) {
        return QR_OK;
    }
    qr_page_entry *entry = &pager->table.entries[leaving];
    qr_status status = QR_OK;
    if (pager->n_to_evict == pager->batch || fill_is_collected(pager, entry->place)) {
        status = qr_pager_flush(pager);
    }
    if (status == QR_OK) {
        status = qr_pager_take_berth(pager, demand, &berth);
    }
    if (status != QR_OK || berth < 0) {
        return status;
    }
    double now_s = qr_now_s();
    pager->to_evict[pager->n_to_evict] = (qr_frame_copy){
        .frame = entry->place, .agents = qr_pager_agents_of(pager, leaving), .host = qr_pager_berth(pager, berth)};
    pager->to_evict_notes[pager->n_to_evict++] = (qr_page_copy){
        .berth = berth, .slot = QR_NO_SLOT, .from = (uint8_t)pager->top, .page = leaving, .started = now_s};
    pager->berth_ticket[berth] = not_handed_over;
    qr_link_start(&pager->links[pager->top][QR_MEMORY_CPU], now_s);
    if (entry->flags & QR_PAGE_AHEAD) {
        pager->wasted++;
        entry->flags = (uint16_t)(entry->flags & ~(unsigned)(QR_PAGE_AHEAD | QR_PAGE_TOO_LATE));
    }
    *frame = entry->place;
    qr_page_move(&pager->table, leaving, QR_MEMORY_CPU);
    entry->place = berth;
    return QR_OK;
}

static qr_status collect_fill(qr_pager *pager, int64_t page, int64_t frame, void *host, const qr_page_copy *note)
{
    pager->to_fill[pager->n_to_fill] =
        (qr_frame_copy){.frame = frame, .agents = qr_pager_agents_of(pager, page), .host = host};
    pager->to_fill_notes[pager->n_to_fill++] = *note;
    qr_page_move(&pager->table, page, pager->top);
    pager->table.entries[page].place = frame;
    return pager->n_to_fill == pager->batch ? qr_pager_flush(pager) : QR_OK;
}

qr_status qr_pager_fill_from_berth(qr_pager *pager, int64_t page, int64_t berth, int64_t frame)
{
    double now_s = qr_now_s();
    const qr_page_copy note = {
        .berth = berth, .slot = QR_NO_SLOT, .from = QR_MEMORY_CPU, .page = page, .started = now_s};
    qr_link_start(&pager->links[QR_MEMORY_CPU][pager->top], now_s);
    return collect_fill(pager, page, frame, qr_pager_berth(pager, berth), &note);
}

qr_status qr_pager_place_device(qr_pager *pager, int64_t page, bool demand, bool *moved)
{
    qr_page_entry *entry = &pager->table.entries[page];
    bool in_berth = entry->tier == QR_MEMORY_CPU;
    int64_t frame = -1;
    if (in_berth && !is_settled(pager, entry->place)) {
        if (!demand) {
            return QR_OK;
        }
        qr_status settled = qr_pager_settle_berth(pager, entry->place);
        if (settled != QR_OK) {
            return settled;
        }
    }
    qr_status status = qr_pager_frame_device(pager, demand, &frame);
    if (status != QR_OK || frame < 0) {
        return status;
    }
    *moved = true;
    if (in_berth) {
        return qr_pager_fill_from_berth(pager, page, entry->place, frame);
    }
    const qr_page_copy note = {.berth = -1, .slot = entry->slot, .from = entry->tier, .page = page};
    status = qr_pager_take_over(pager, page);
    if (status == QR_OK) {
        pager->n_filling++;
        status = collect_fill(pager, page, frame, qr_queue_slot(pager->config.queue, note.slot), &note);
    }
    return status;
}
