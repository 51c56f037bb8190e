/* A step: a sweep over the pages of which some agent moves. */
#include "base/timer.h"
#include "page/parts.h"

/* Of few active agents: random numbers are drawn for most of all, while nothing moves and nothing is computed. */
static void find_active(qr_pager *pager, int64_t step)
{
    const qr_backend *backend = pager->config.backend;
    int64_t n_pages = pager->table.n_pages;
#pragma omp parallel for schedule(static) num_threads(pager->config.threads > 0 ? pager->config.threads : 1)
    for (int64_t page = 0; page < n_pages; page++) {
        pager->active[page] = pager->frames->is_active(backend, step, page);
    }
}

/* Which pages the sweep will ask for, in which order; those at rest are passed at once. */
static qr_status plan_sweep(qr_pager *pager, int64_t step)
{
    int64_t n_pages = pager->table.n_pages, n_passed = 0;
    qr_backend *backend = pager->config.backend;
    qr_status status = QR_OK;
    qr_sweep_turn(&pager->sweep, &pager->table, pager->top);
    qr_prefetch_begin(&pager->prefetch, pager->sweep.up);
    pager->n_order = pager->cursor = pager->front = 0;
    find_active(pager, step);
    for (int64_t i = 0; i < n_pages && status == QR_OK; i++) {
        int64_t page = pager->sweep.up ? i : n_pages - 1 - i;
        if (pager->active[page]) {
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
    int below = qr_policy_below(tiers, pager->top);
    bool has_room = below >= 0 && qr_policy_room(&pager->table, tiers, pager->top + 1) == below;
    if (page < 0 || pager->n_free_frames > 0 || !has_room) {
        return QR_OK;
    }
    qr_status status =
        pager->on_device ? qr_pager_frame_device(pager, false, &frame) : qr_pager_frame_host(pager, false, &frame);
    if (status == QR_OK && frame >= 0) {
        pager->free_frames[pager->n_free_frames++] = frame;
    }
    return status;
}

/* Pages that are fetched before they are asked for, in the order in which they will be. Each that is given a frame
 * leaves one to all that will be asked for before it and are on their way: with few frames they would drive out each
 * other. */
typedef struct outlook {
    int64_t frames;  /* that could be had */
    int64_t missing; /* pages looked at that are in none */
    bool over;       /* nothing can be done for any more */
} outlook;

static int64_t frames_to_be_had(const qr_pager *pager)
{
    return pager->n_free_frames + pager->table.done[pager->top].count;
}

static bool is_with_server(const qr_page_entry *entry)
{
    return entry->tier >= QR_MEMORY_NVME && (entry->flags & QR_PAGE_ARRIVED) == 0;
}

/* Of plain LRU: how many pages may be kept for later. */
static int64_t most_kept(const qr_pager *pager)
{
    int64_t kept = pager->config.tiers[pager->top].pages - pager->batch;
    kept = pager->config.ahead < kept ? pager->config.ahead : kept;
    return kept > 0 ? kept : 0;
}

static qr_status fetch_ahead(qr_pager *pager, int64_t page, outlook *ahead)
{
    qr_page_entry *entry = &pager->table.entries[page];
    bool moved = false;
    qr_status status = QR_OK;
    if (entry->tier == pager->top) {
        return QR_OK;
    }
    if ((entry->flags & (QR_PAGE_PUTTING | QR_PAGE_SINKING)) != 0) { /* it will need a slot before others do */
        ahead->over = true;
        return QR_OK;
    }
    if (pager->config.plain_lru && pager->n_pinned >= most_kept(pager)) {
        ahead->over = true;
        return QR_OK;
    }
    if (is_with_server(entry) ? (entry->flags & QR_PAGE_IN_FLIGHT) == 0 : ahead->frames > ahead->missing) {
        status = qr_pager_bring(pager, page, false, &moved);
        ahead->over = !moved;
        if (moved && (entry->flags & QR_PAGE_MISSED) == 0) {
            entry->flags |= QR_PAGE_AHEAD;
        }
    }
    if (pager->config.plain_lru && entry->tier == pager->top) {
        entry->flags |= QR_PAGE_PINNED; /* or it may be the oldest before it is asked for */
        pager->n_pinned++;
    }
    ahead->frames -= entry->tier == pager->top ? 1 : 0;
    ahead->missing += entry->tier == pager->top ? 0 : 1;
    return status;
}

static void move_front(qr_pager *pager)
{
    pager->front = pager->front > pager->cursor ? pager->front : pager->cursor;
    while (pager->front < pager->n_order && pager->table.entries[pager->order[pager->front]].tier == pager->top) {
        pager->front++;
    }
}

/* On a device: pages that are in memory take the frames of those that are done, a whole batch at a time, as calls cost
 * more than small copies do. That begins with the sweep, whatever part of it is in frames yet: the link is busy while
 * pages are updated. `needed`: nothing else can be done. */
static qr_status fill_ahead(qr_pager *pager, bool needed)
{
    int64_t left = pager->n_order - pager->front;
    int64_t wanted = left < pager->batch ? left : pager->batch;
    outlook ahead = {.frames = frames_to_be_had(pager)};
    qr_status status = QR_OK;
    if (wanted == 0 || (!needed && (ahead.frames < wanted || pager->n_free_berths < wanted))) {
        return QR_OK;
    }
    for (bool any = true; any && pager->n_free_berths < wanted && status == QR_OK;) {
        any = pager->fills.count > 0;
        status = any ? qr_pager_wait_copy(pager, &any) : QR_OK;
    }
    while (status == QR_OK && !ahead.over && pager->front < pager->n_order && ahead.frames > 0) {
        int64_t page = pager->order[pager->front];
        if (is_with_server(&pager->table.entries[page])) {
            break;
        }
        status = fetch_ahead(pager, page, &ahead);
        move_front(pager);
    }
    return status;
}

/* Begins to fetch what the sweep will ask for. needed: the next page is not in a frame. */
static qr_status look_ahead(qr_pager *pager, bool needed)
{
    const qr_page_entry *entries = pager->table.entries;
    outlook ahead = {.frames = frames_to_be_had(pager)};
    qr_status status = QR_OK;
    if (pager->config.ahead <= 0) {
        return QR_OK;
    }
    if (pager->prefetch.sequential) {
        move_front(pager);
        if (pager->on_device) {
            status = fill_ahead(pager, needed);
            ahead.frames = 0;
        }
        int64_t end = pager->front + pager->config.ahead;
        end = end < pager->n_order ? end : pager->n_order;
        for (int64_t i = pager->front; i < end && status == QR_OK && !ahead.over; i++) {
            status = fetch_ahead(pager, pager->order[i], &ahead);
        }
        return status;
    }
    int64_t first = pager->order[pager->cursor];
    int64_t page = qr_prefetch_after(&pager->prefetch, pager->prefetch.last);
    ahead.missing = needed ? 1 : 0;
    ahead.over = (entries[first].flags & (QR_PAGE_PUTTING | QR_PAGE_SINKING)) != 0;
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
    pager->n_pinned -= entry->flags & QR_PAGE_PINNED ? 1 : 0;
    entry->flags =
        (uint16_t)((entry->flags & ~(unsigned)(QR_PAGE_AHEAD | QR_PAGE_TOO_LATE | QR_PAGE_MISSED | QR_PAGE_PINNED)) |
                   QR_PAGE_DIRTY);
    qr_page_touch(&pager->table, page, now_s);
    qr_prefetch_note(&pager->prefetch, page);
    pager->touched++;
}

/* On a device, and nothing is prefetched. */
static bool is_on_demand(const qr_pager *pager)
{
    return pager->on_device && (pager->config.ahead <= 0 || (!pager->config.sequential && !pager->config.correlated));
}

/* The next pages that can be updated: n of them, at least one. */
static qr_status next_pages(qr_pager *pager, int64_t *n)
{
    int64_t page = pager->order[pager->cursor];
    /* It is fetched while those before are updated. */
    bool foreseen = pager->on_device && pager->prefetch.sequential && pager->cursor > 0;
    qr_status status = qr_pager_poll(pager);
    *n = collect_ready(pager);
    if (status == QR_OK && foreseen) {
        status = look_ahead(pager, *n == 0);
    }
    if (status == QR_OK) {
        status = qr_pager_demand(pager, page); /* before others take slots and frames */
    }
    if (status == QR_OK && !foreseen) {
        status = look_ahead(pager, *n == 0);
    }
    if (status == QR_OK) {
        status = qr_pager_must_have(pager, page);
    }
    *n = collect_ready(pager);
    if (status == QR_OK) {
        status = qr_pager_flush(pager);
    }
    for (bool any = is_on_demand(pager); any && pager->fills.count > 0 && status == QR_OK;) {
        status = qr_pager_wait_copy(pager, &any);
    }
    return status;
}

/* Without prefetch, a page that is asked for shall at least find a frame: the oldest leaves as soon as it is done, when
 * pages are still to come. */
static qr_status make_way(qr_pager *pager)
{
    int64_t missing = 0;
    int64_t frame = -1;
    for (int tier = pager->top + 1; tier < QR_N_MEMORY_TIERS; tier++) {
        missing += pager->table.due[tier].count;
    }
    if (!is_on_demand(pager) || missing == 0 || pager->n_free_frames > 0) {
        return QR_OK;
    }
    qr_status status = qr_pager_frame_device(pager, false, &frame);
    if (status == QR_OK && frame >= 0) {
        pager->free_frames[pager->n_free_frames++] = frame;
        status = qr_pager_flush(pager);
    }
    return status;
}

static qr_status sweep(qr_pager *pager)
{
    while (pager->cursor < pager->n_order) {
        int64_t n = 0;
        qr_status status = next_pages(pager, &n);
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
        if (pager->config.tell != NULL) {
            pager->config.tell(pager->config.tell_context, false, pager->cursor, pager->n_order);
        }
        status = make_way(pager);
        if (status != QR_OK) {
            return status;
        }
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
            if (pager->config.tell != NULL) {
                pager->config.tell(pager->config.tell_context, true, pager->table.n_pages - page, pager->table.n_pages);
            }
        }
    }
    return status == QR_OK ? qr_pager_leave_slots(pager) : status;
}
