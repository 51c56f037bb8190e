/* States of single agents, wherever they lie: reads that move no page, and writes. */
#include "base/timer.h"
#include "page/parts.h"

#include <string.h>

/* Part of a page: agents first .. first + count - 1 of it. */
typedef struct span {
    int64_t page, first, count;
} span;

static span span_at(const qr_pager *pager, int64_t first, int64_t count)
{
    int64_t page = first / pager->config.page_agents;
    int64_t within = first % pager->config.page_agents;
    int64_t left = qr_pager_agents_of(pager, page) - within;
    return (span){page, within, count < left ? count : left};
}

static qr_status check_range(const qr_pager *pager, int64_t first, int64_t count)
{
    if (first < 0 || count < 0 || first > pager->config.n_agents - count) {
        return qr_error(QR_INTERNAL, "states of agents %lld to %lld of %lld", (long long)first,
                        (long long)(first + count - 1), (long long)pager->config.n_agents);
    }
    return QR_OK;
}

static bool is_whole(const qr_pager *pager, const span *part)
{
    return part->first == 0 && part->count == qr_pager_agents_of(pager, part->page);
}

/* Between a page's memory and a caller's. */
static void copy_part(const qr_pager *pager, const span *part, const void *page_memory, void *out)
{
    size_t each = (size_t)pager->config.agent_bytes;
    memcpy(out, (const unsigned char *)page_memory + (size_t)part->first * each, (size_t)part->count * each);
}

static void set_part(const qr_pager *pager, const span *part, void *page_memory, const void *in)
{
    size_t each = (size_t)pager->config.agent_bytes;
    memcpy((unsigned char *)page_memory + (size_t)part->first * each, in, (size_t)part->count * each);
}

/* A free berth, whatever has to leave for it. */
static qr_status must_have_berth(qr_pager *pager, int64_t *berth)
{
    qr_status status = qr_pager_take_berth(pager, true, berth);
    while (status == QR_OK && *berth < 0) {
        status = qr_pager_poll(pager);
        if (status == QR_OK) {
            status = qr_pager_take_berth(pager, true, berth);
        }
        if (status == QR_OK && *berth < 0) {
            status = qr_pager_wait(pager, -1);
        }
    }
    return status;
}

/* A copy of what is in a frame, into memory that is ready for it, by now. */
static qr_status copy_of_frame(qr_pager *pager, int64_t page, void *out)
{
    const qr_frame_copy copy = {
        .frame = pager->table.entries[page].place, .agents = qr_pager_agents_of(pager, page), .host = out};
    int64_t ticket = 0;
    qr_status status = qr_pager_flush(pager);
    if (status == QR_OK) {
        status = pager->frames->evict(pager->config.backend, &copy, 1, &ticket);
    }
    return status == QR_OK ? pager->frames->wait_evicted(pager->config.backend, ticket) : status;
}

/* --- reading --- */

/* Whether a page that is asked for now may stay in its slot when the read is over. */
static bool has_slot_to_keep(const qr_pager *pager)
{
    return pager->n_busy + pager->n_filling + (pager->keeps_slot ? 1 : 0) < pager->config.queue->n_slots / 2;
}

/* Asks for pages that will likely be read next. */
static qr_status read_ahead(qr_pager *pager, int64_t page)
{
    int direction = qr_prefetch_direction(&pager->reading);
    qr_status status = QR_OK;
    bool moved = true;
    for (int64_t i = 0; i < pager->config.ahead && status == QR_OK && moved && has_slot_to_keep(pager); i++) {
        page = direction != 0 ? page + direction : qr_prefetch_after(&pager->reading, page);
        if (page < 0 || page >= pager->table.n_pages) {
            break;
        }
        const qr_page_entry *entry = &pager->table.entries[page];
        if (entry->tier < QR_MEMORY_NVME || (entry->flags & (QR_PAGE_IN_FLIGHT | QR_PAGE_ARRIVED)) != 0) {
            continue;
        }
        moved = false;
        status = qr_pager_bring(pager, page, false, &moved);
        if (moved) {
            pager->table.entries[page].flags |= QR_PAGE_AHEAD;
        }
    }
    return status;
}

/* Waits until a page that is with the server stands in a slot. */
static qr_status arrive(qr_pager *pager, int64_t page)
{
    qr_page_entry *entry = &pager->table.entries[page];
    const bool foreseen = (entry->flags & QR_PAGE_AHEAD) != 0;
    qr_status status = foreseen ? qr_pager_poll_jobs(pager) : QR_OK; /* it may have come meanwhile */
    pager->misses += (entry->flags & (QR_PAGE_AHEAD | QR_PAGE_PUTTING | QR_PAGE_ARRIVED)) == 0 ? 1 : 0;
    if (foreseen && (entry->flags & QR_PAGE_ARRIVED) == 0) {
        entry->flags |= QR_PAGE_TOO_LATE;
    }
    if (foreseen && status == QR_OK && (entry->flags & QR_PAGE_ARRIVED) != 0) {
        status = read_ahead(pager, page);
    }
    while (status == QR_OK && (entry->flags & (QR_PAGE_ARRIVED | QR_PAGE_PUTTING)) == 0) {
        bool moved = false;
        status = qr_pager_bring(pager, page, true, &moved);
        if (status == QR_OK && (!moved || (entry->flags & QR_PAGE_GETTING) != 0)) {
            status = read_ahead(pager, page);
        }
        if (status == QR_OK && !moved) {
            status = qr_pager_wait(pager, page);
        }
    }
    return status;
}

static qr_status read_from_server(qr_pager *pager, const span *part, void *out)
{
    qr_page_entry *entry = &pager->table.entries[part->page];
    qr_status status = arrive(pager, part->page);
    if (status != QR_OK) {
        return status;
    }
    copy_part(pager, part, qr_queue_slot(pager->config.queue, entry->slot), out);
    if (entry->flags & QR_PAGE_AHEAD) {
        pager->hits += entry->flags & QR_PAGE_TOO_LATE ? 0 : 1;
        pager->late += entry->flags & QR_PAGE_TOO_LATE ? 1 : 0;
        entry->flags = (uint16_t)(entry->flags & ~(unsigned)(QR_PAGE_AHEAD | QR_PAGE_TOO_LATE));
    }
    if ((entry->flags & QR_PAGE_ARRIVED) != 0 && part->first + part->count == qr_pager_agents_of(pager, part->page)) {
        qr_pager_let_go(pager, part->page);
    }
    return QR_OK;
}

static qr_status read_part(qr_pager *pager, const span *part, void *out)
{
    const qr_page_entry *entry = &pager->table.entries[part->page];
    if (entry->tier == QR_PAGE_NOWHERE) {
        return qr_error(QR_INTERNAL, "page %lld of the states was never given any", (long long)part->page);
    }
    if (entry->tier >= QR_MEMORY_NVME) {
        return read_from_server(pager, part, out);
    }
    if (!pager->on_device) {
        copy_part(pager, part, pager->frames->memory(pager->config.backend, entry->place), out);
        return QR_OK;
    }
    if (entry->tier == QR_MEMORY_CPU) {
        qr_status status = qr_pager_settle_berth(pager, entry->place);
        if (status == QR_OK) {
            copy_part(pager, part, qr_pager_berth(pager, entry->place), out);
        }
        return status;
    }
    int64_t berth = -1;
    qr_status status = must_have_berth(pager, &berth);
    if (status == QR_OK) {
        status = copy_of_frame(pager, part->page, qr_pager_berth(pager, berth));
        copy_part(pager, part, qr_pager_berth(pager, berth), out);
        pager->free_berths[pager->n_free_berths++] = berth;
    }
    return status;
}

qr_status qr_pager_read(qr_pager *pager, int64_t first, int64_t count, float *out)
{
    qr_status status = check_range(pager, first, count);
    unsigned char *at = (unsigned char *)out;
    while (status == QR_OK && count > 0) {
        span part = span_at(pager, first, count);
        qr_prefetch_note(&pager->reading, part.page);
        status = read_part(pager, &part, at);
        first += part.count;
        count -= part.count;
        at += part.count * pager->config.agent_bytes;
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}

/* Where in host memory a part of a page stands, if it does. */
static qr_status find_part(qr_pager *pager, const span *part, const unsigned char **at)
{
    const qr_page_entry *entry = &pager->table.entries[part->page];
    qr_status status = QR_OK;
    *at = NULL;
    if (!pager->on_device && entry->tier == QR_MEMORY_CPU) {
        *at = (const unsigned char *)pager->frames->memory(pager->config.backend, entry->place);
    } else if (pager->on_device && entry->tier == QR_MEMORY_CPU) {
        status = qr_pager_settle_berth(pager, entry->place);
        *at = qr_pager_berth(pager, entry->place);
    }
    if (*at != NULL) {
        *at += part->first * pager->config.agent_bytes;
    }
    return status;
}

static qr_status check_piece(const qr_pager *pager, const qr_piece *piece, span *part)
{
    qr_status status = piece->states ? check_range(pager, piece->first, piece->count)
                                     : qr_error(QR_INTERNAL, "a pager holds no votes");
    if (status == QR_OK && piece->count > 0) {
        *part = span_at(pager, piece->first, piece->count);
        if (part->count < piece->count) {
            status = qr_error(QR_INTERNAL, "a piece of states lies in more than one page");
        }
    }
    return status;
}

/* Up to QR_PAGE_MOST_BATCH pieces: whole pages of a device in one call, then what is in memory, all threads at once,
 * then what else there is. */
static qr_status copy_out_some(qr_pager *pager, const qr_piece *pieces, int64_t n)
{
    qr_frame_copy copies[QR_PAGE_MOST_BATCH];
    const unsigned char *from[QR_PAGE_MOST_BATCH];
    bool done[QR_PAGE_MOST_BATCH];
    span parts[QR_PAGE_MOST_BATCH];
    int64_t n_copies = 0, ticket = 0, bytes = pager->config.agent_bytes;
    qr_status status = qr_pager_flush(pager);
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        parts[i] = (span){0, 0, 0};
        from[i] = NULL;
        status = check_piece(pager, &pieces[i], &parts[i]);
        done[i] = pieces[i].count == 0;
        const qr_page_entry *entry = &pager->table.entries[parts[i].page];
        if (status != QR_OK || done[i]) {
            continue;
        }
        if (pager->on_device && entry->tier == QR_MEMORY_GPU && is_whole(pager, &parts[i])) {
            copies[n_copies++] =
                (qr_frame_copy){.frame = entry->place, .agents = parts[i].count, .host = pieces[i].out};
            done[i] = true;
        } else {
            status = find_part(pager, &parts[i], &from[i]);
            done[i] = from[i] != NULL;
        }
    }
    if (status == QR_OK && n_copies > 0) {
        status = pager->frames->evict(pager->config.backend, copies, n_copies, &ticket);
    }
    if (status == QR_OK) {
#pragma omp parallel for schedule(dynamic) num_threads(pager->config.threads > 0 ? pager->config.threads : 1)
        for (int64_t i = 0; i < n; i++) {
            if (from[i] != NULL) {
                memcpy(pieces[i].out, from[i], (size_t)(parts[i].count * bytes));
            }
        }
    }
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        qr_prefetch_note(&pager->reading, parts[i].page);
        status = done[i] ? QR_OK : read_part(pager, &parts[i], pieces[i].out);
    }
    if (ticket > 0) { /* whatever happened, what is being written to must not go away */
        qr_status copied = pager->frames->wait_evicted(pager->config.backend, ticket);
        status = status == QR_OK ? copied : status;
    }
    return status;
}

qr_status qr_pager_copy_out(qr_pager *pager, const qr_piece *pieces, int64_t n)
{
    qr_status status = QR_OK;
    for (int64_t at = 0; at < n && status == QR_OK; at += QR_PAGE_MOST_BATCH) {
        int64_t left = n - at;
        status = copy_out_some(pager, pieces + at, left < QR_PAGE_MOST_BATCH ? left : QR_PAGE_MOST_BATCH);
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}

/* --- writing --- */

/* Memory of the tier cpu that is over its room goes to frames, then to the server. */
static qr_status shift_berths(qr_pager *pager)
{
    const qr_memory_tier_config *cpu = &pager->config.tiers[QR_MEMORY_CPU];
    int64_t room = cpu->used ? cpu->pages : 0;
    qr_status status = QR_OK;
    while (status == QR_OK && qr_page_tier_count(&pager->table, QR_MEMORY_CPU) > room && pager->n_free_frames > 0) {
        int64_t page = qr_page_victim(&pager->table, QR_MEMORY_CPU, true);
        int64_t berth = pager->table.entries[page].place;
        status = qr_pager_settle_berth(pager, berth);
        if (status == QR_OK) {
            status = qr_pager_fill_from_berth(pager, page, berth, pager->free_frames[--pager->n_free_frames]);
        }
    }
    return status == QR_OK ? qr_pager_poll(pager) : status;
}

static qr_status write_on_device(qr_pager *pager, const span *part, const void *in)
{
    qr_page_entry *entry = &pager->table.entries[part->page];
    qr_status status = QR_OK;
    int64_t berth = -1;
    if (entry->tier != QR_PAGE_NOWHERE && entry->tier != QR_MEMORY_CPU) {
        status = qr_pager_must_have(pager, part->page);
    }
    if (status == QR_OK && entry->tier == QR_MEMORY_CPU) {
        status = qr_pager_settle_berth(pager, entry->place);
        if (status == QR_OK) {
            set_part(pager, part, qr_pager_berth(pager, entry->place), in);
        }
        return status;
    }
    if (status == QR_OK) {
        status = must_have_berth(pager, &berth);
    }
    if (status != QR_OK) {
        return status;
    }
    if (entry->tier == QR_PAGE_NOWHERE) {
        memset(qr_pager_berth(pager, berth), 0, (size_t)pager->page_bytes);
        set_part(pager, part, qr_pager_berth(pager, berth), in);
        entry->place = berth;
        qr_page_move(&pager->table, part->page, QR_MEMORY_CPU);
        return shift_berths(pager);
    }
    if (!is_whole(pager, part)) {
        status = copy_of_frame(pager, part->page, qr_pager_berth(pager, berth));
    }
    set_part(pager, part, qr_pager_berth(pager, berth), in);
    return status == QR_OK ? qr_pager_fill_from_berth(pager, part->page, berth, entry->place) : status;
}

static qr_status write_on_host(qr_pager *pager, const span *part, const void *in)
{
    qr_page_entry *entry = &pager->table.entries[part->page];
    qr_status status = QR_OK;
    if (entry->tier == QR_PAGE_NOWHERE) {
        int64_t frame = -1;
        status = qr_pager_new_frame(pager, &frame);
        if (status == QR_OK) {
            memset(pager->frames->memory(pager->config.backend, frame), 0, (size_t)pager->page_bytes);
            entry->place = frame;
            qr_page_move(&pager->table, part->page, pager->top);
        }
    } else {
        status = qr_pager_must_have(pager, part->page);
    }
    if (status == QR_OK) {
        set_part(pager, part, pager->frames->memory(pager->config.backend, entry->place), in);
    }
    return status;
}

qr_status qr_pager_write(qr_pager *pager, int64_t first, int64_t count, const float *state)
{
    qr_status status = check_range(pager, first, count);
    const unsigned char *at = (const unsigned char *)state;
    while (status == QR_OK && count > 0) {
        span part = span_at(pager, first, count);
        qr_page_entry *entry = &pager->table.entries[part.page];
        status = pager->on_device ? write_on_device(pager, &part, at) : write_on_host(pager, &part, at);
        entry->flags = (uint16_t)((entry->flags & ~(unsigned)QR_PAGE_MISSED) | QR_PAGE_DIRTY);
        entry->last_s = qr_now_s();
        first += part.count;
        count -= part.count;
        at += part.count * pager->config.agent_bytes;
    }
    if (status == QR_OK) {
        status = qr_pager_flush(pager);
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}
