/* A step: a sweep over the pages of which some agent moves. */
#include "base/timer.h"
#include "page/parts.h"

/* Which pages the sweep will ask for, in which order; those at rest are passed at once. */
static qr_status plan_sweep(qr_pager *pager, int64_t step)
{
    int64_t n_pages = pager->table.n_pages, n_passed = 0;
    qr_backend *backend = pager->config.backend;
    qr_status status = QR_OK;
    qr_sweep_turn(&pager->sweep, &pager->table, pager->top);
    qr_prefetch_begin(&pager->prefetch, pager->sweep.up);
    pager->n_order = pager->cursor = 0;
    for (int64_t i = 0; i < n_pages && status == QR_OK; i++) {
        int64_t page = pager->sweep.up ? i : n_pages - 1 - i;
        if (pager->frames->is_active(backend, step, page)) {
            pager->order[pager->n_order++] = page;
            if (!pager->config.plain_lru) {
                qr_page_set_due(&pager->table, page);
            }
        } else {
            pager->batch_pages[n_passed++] = page;
            pager->passed++;
        }
        if (n_passed == QR_PAGE_MOST_BATCH) {
            status = pager->frames->pass(backend, pager->batch_pages, n_passed);
            n_passed = 0;
        }
    }
    return n_passed > 0 && status == QR_OK ? pager->frames->pass(backend, pager->batch_pages, n_passed) : status;
}

/* A page that nobody asked for in a long time leaves its frame. */
static qr_status age_frames(qr_pager *pager)
{
    const qr_memory_tier_config *tiers = pager->config.tiers;
    double now_s = qr_now_s();
    int64_t frame = -1;
    pager->swept_s[1] = pager->swept_s[0];
    pager->swept_s[0] = now_s;
    int64_t page =
        qr_policy_aged(&pager->table, pager->top, &tiers[pager->top], pager->config.low, pager->swept_s[1], now_s);
    if (page < 0 || pager->n_free_frames > 0 || qr_policy_room(&pager->table, tiers, pager->top + 1) < 0) {
        return QR_OK;
    }
    qr_status status =
        pager->on_device ? qr_pager_frame_device(pager, false, &frame) : qr_pager_frame_host(pager, false, &frame);
    if (status == QR_OK && frame >= 0) {
        pager->free_frames[pager->n_free_frames++] = frame;
    }
    return status;
}

/* Pages that are fetched before they are asked for, in the order in which they will be. Each that stands before a frame
 * leaves one to all that will be asked for before it, and are on their way: with few frames they would drive out each
 * other. */
typedef struct outlook {
    int64_t frames;  /* that could be had */
    int64_t missing; /* pages looked at that are in none */
    bool over;       /* nothing can be done for any more */
} outlook;

static qr_status fetch_ahead(qr_pager *pager, int64_t page, outlook *ahead)
{
    qr_page_entry *entry = &pager->table.entries[page];
    bool comes = entry->tier >= QR_MEMORY_NVME && (entry->flags & QR_PAGE_ARRIVED) == 0; /* from the server, first */
    bool moved = false;
    qr_status status = QR_OK;
    if (entry->tier == pager->top) {
        return QR_OK;
    }
    if (comes ? (entry->flags & QR_PAGE_IN_FLIGHT) == 0 : ahead->frames > ahead->missing) {
        status = qr_pager_bring(pager, page, false, &moved);
        ahead->over = !moved;
        entry->flags |= moved ? QR_PAGE_AHEAD : 0;
    }
    ahead->frames -= entry->tier == pager->top ? 1 : 0;
    ahead->missing += entry->tier == pager->top ? 0 : 1;
    return status;
}

/* Begins to fetch what the sweep will ask for. */
static qr_status look_ahead(qr_pager *pager)
{
    const qr_page_entry *entries = pager->table.entries;
    int64_t first = pager->order[pager->cursor];
    outlook ahead = {.frames = pager->n_free_frames + pager->table.done[pager->top].count,
                     .missing = entries[first].tier == pager->top ? 0 : 1};
    qr_status status = QR_OK;
    if (pager->prefetch.sequential) {
        int64_t end = pager->cursor + pager->config.ahead + 1;
        end = end < pager->n_order ? end : pager->n_order;
        for (int64_t i = pager->cursor + 1; i < end && status == QR_OK && !ahead.over; i++) {
            status = fetch_ahead(pager, pager->order[i], &ahead);
        }
        return status;
    }
    int64_t page = qr_prefetch_after(&pager->prefetch, pager->prefetch.last);
    for (int64_t i = 0; i < pager->config.ahead && page >= 0 && status == QR_OK && !ahead.over; i++) {
        bool wanted = pager->config.plain_lru || (entries[page].flags & QR_PAGE_DUE) != 0;
        if (wanted && page != first) {
            status = fetch_ahead(pager, page, &ahead);
        }
        page = qr_prefetch_after(&pager->prefetch, page);
    }
    return status;
}

/* The next pages of the sweep that are in frames. */
static int64_t collect_ready(qr_pager *pager)
{
    int64_t n = 0;
    while (n < pager->batch && pager->cursor + n < pager->n_order) {
        int64_t page = pager->order[pager->cursor + n];
        if (pager->table.entries[page].tier != pager->top) {
            break;
        }
        pager->batch_pages[n] = page;
        pager->batch_frames[n++] = pager->table.entries[page].place;
    }
    return n;
}

static void asked_for(qr_pager *pager, int64_t page, double now_s)
{
    qr_page_entry *entry = &pager->table.entries[page];
    if (entry->flags & QR_PAGE_AHEAD) {
        pager->hits += entry->flags & QR_PAGE_TOO_LATE ? 0 : 1;
        pager->late += entry->flags & QR_PAGE_TOO_LATE ? 1 : 0;
    }
    entry->flags =
        (uint16_t)((entry->flags & ~(unsigned)(QR_PAGE_AHEAD | QR_PAGE_TOO_LATE | QR_PAGE_MISSED)) | QR_PAGE_DIRTY);
    qr_page_touch(&pager->table, page, now_s);
    qr_prefetch_note(&pager->prefetch, page);
    pager->touched++;
}

static qr_status sweep(qr_pager *pager)
{
    while (pager->cursor < pager->n_order) {
        qr_status status = qr_pager_poll(pager);
        if (status == QR_OK) {
            status = qr_pager_demand(pager, pager->order[pager->cursor]); /* before others take slots and frames */
        }
        if (status == QR_OK) {
            status = look_ahead(pager);
        }
        int64_t n = status == QR_OK ? collect_ready(pager) : 0;
        if (status == QR_OK && n == 0) {
            status = qr_pager_must_have(pager, pager->order[pager->cursor]);
            n = status == QR_OK ? collect_ready(pager) : 0;
        }
        if (status == QR_OK) {
            status = qr_pager_flush(pager);
        }
        if (status == QR_OK) {
            status = pager->frames->update(pager->config.backend, pager->batch_pages, pager->batch_frames, n);
        }
        if (status != QR_OK) {
            return status;
        }
        double now_s = qr_now_s();
        for (int64_t i = 0; i < n; i++) {
            asked_for(pager, pager->batch_pages[i], now_s);
        }
        pager->cursor += n;
    }
    return QR_OK;
}

qr_status qr_pager_step(qr_pager *pager, int64_t step, const qr_tally *before, qr_tally *out)
{
    qr_status status = pager->frames->begin(pager->config.backend, step, before);
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        pager->stuck[tier] = false;
    }
    if (status == QR_OK) {
        status = plan_sweep(pager, step);
    }
    if (status == QR_OK) {
        status = age_frames(pager);
    }
    if (status == QR_OK) {
        status = sweep(pager);
    }
    if (status == QR_OK) {
        status = pager->frames->finish(pager->config.backend, out);
    }
    if (status == QR_OK) {
        status = qr_pager_poll(pager);
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}

qr_status qr_pager_make_first(qr_pager *pager)
{
    /* The last pages first, as in a sweep down: the next one goes up. */
    qr_status status = QR_OK;
    for (int64_t page = pager->table.n_pages - 1; page >= 0 && status == QR_OK; page--) {
        qr_page_entry *entry = &pager->table.entries[page];
        int64_t frame = entry->place;
        if (entry->tier != pager->top) {
            if (entry->tier != QR_PAGE_NOWHERE) {
                return qr_error(QR_INTERNAL, "page %lld of the states holds some already", (long long)page);
            }
            status = qr_pager_new_frame(pager, &frame);
        }
        if (status == QR_OK) {
            status = qr_pager_flush(pager); /* what was in it leaves first */
        }
        if (status == QR_OK) {
            status = pager->frames->make_first(pager->config.backend, page, frame);
        }
        if (status == QR_OK) {
            entry->place = frame;
            entry->flags |= QR_PAGE_DIRTY;
            qr_page_move(&pager->table, page, pager->top);
            entry->last_s = qr_now_s();
            status = qr_pager_poll(pager);
        }
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}
