/* A page's way to where it is computed, from wherever it is. */
#include "base/timer.h"
#include "page/parts.h"

qr_status qr_pager_poll(qr_pager *pager)
{
    qr_status status = QR_OK;
    if (pager->on_device) {
        qr_pager_poll_copies(pager);
    }
    if (pager->config.queue != NULL) {
        double now_s = qr_now_s();
        status = qr_pager_poll_jobs(pager);
        if (status == QR_OK && pager->on_device) {
            status = qr_pager_relieve_berths(pager, now_s);
        }
        if (status == QR_OK) {
            status = qr_pager_sink_some(pager, now_s);
        }
    }
    return status;
}

qr_status qr_pager_bring(qr_pager *pager, int64_t page, bool demand, bool *moved)
{
    const qr_page_entry *entry = &pager->table.entries[page];
    if (entry->tier == pager->top || (entry->flags & QR_PAGE_IN_FLIGHT) != 0) {
        return QR_OK;
    }
    if (entry->tier == QR_PAGE_NOWHERE) {
        return qr_error(QR_INTERNAL, "page %lld of the states was never given any", (long long)page);
    }
    if ((pager->on_device && entry->tier == QR_MEMORY_CPU) || (entry->flags & QR_PAGE_ARRIVED) != 0) {
        return pager->on_device ? qr_pager_place_device(pager, page, demand, moved)
                                : qr_pager_place_host(pager, page, demand, moved);
    }
    int32_t slot = QR_NO_SLOT;
    qr_status status = qr_pager_take_slot(pager, page, demand, &slot);
    if (status == QR_OK && slot != QR_NO_SLOT) {
        *moved = true;
        status = qr_pager_get(pager, page, slot);
    }
    return status;
}

qr_status qr_pager_wait(qr_pager *pager, int64_t page)
{
    int32_t slot = QR_NO_SLOT;
    qr_status status = QR_OK;
    bool any = false;
    if (page >= 0 && (pager->table.entries[page].flags & QR_PAGE_IN_FLIGHT) != 0) {
        slot = pager->table.entries[page].slot;
    } else if (pager->on_device) {
        status = qr_pager_wait_copy(pager, &any); /* the shorter wait */
    }
    for (int32_t i = 0; i < pager->n_busy && !any && slot == QR_NO_SLOT; i++) {
        slot = pager->jobs[pager->busy_slots[i]].asked ? pager->busy_slots[i] : QR_NO_SLOT;
    }
    bool idle = slot == QR_NO_SLOT && !any;
    if (status == QR_OK && slot != QR_NO_SLOT) {
        status = qr_pager_wait_job(pager, slot);
    }
    int64_t berths = pager->n_free_berths;
    if (status == QR_OK) {
        status = qr_pager_poll(pager);
    }
    if (status == QR_OK && idle && pager->n_asked == 0 && pager->n_free_berths == berths) {
        return page < 0 ? qr_error(QR_INTERNAL, "no page of the states can leave, and nothing is under way")
                        : qr_error(QR_INTERNAL, "page %lld of the states has nowhere to go, and nothing is under way",
                                   (long long)page);
    }
    return status;
}

qr_status qr_pager_leave_slots(qr_pager *pager)
{
    qr_status status = QR_OK;
    int32_t own = pager->keeps_slot ? 1 : 0;
    bool any = true;
    while (status == QR_OK && any && pager->n_filling > 0 &&
           pager->n_filling + pager->n_busy + own > pager->config.queue->n_slots / 2) {
        status = qr_pager_wait_copy(pager, &any);
    }
    while (status == QR_OK && pager->n_busy > 0 && pager->n_busy + own > pager->config.queue->n_slots / 2) {
        int32_t slot = pager->busy_slots[pager->n_busy - 1];
        if (!pager->jobs[slot].asked) {
            qr_pager_let_go(pager, pager->jobs[slot].page);
        } else {
            status = qr_pager_wait_job(pager, slot);
        }
    }
    return status;
}

qr_status qr_pager_demand(qr_pager *pager, int64_t page)
{
    qr_page_entry *entry = &pager->table.entries[page];
    bool moved = false;
    if (entry->tier == pager->top) {
        return QR_OK;
    }
    if ((entry->flags & (QR_PAGE_AHEAD | QR_PAGE_MISSED)) == 0) {
        entry->flags |= QR_PAGE_MISSED;
        pager->misses++;
    } else if ((entry->flags & (QR_PAGE_AHEAD | QR_PAGE_ARRIVED)) == QR_PAGE_AHEAD) {
        entry->flags |= QR_PAGE_TOO_LATE;
    }
    return qr_pager_bring(pager, page, true, &moved);
}

qr_status qr_pager_must_have(qr_pager *pager, int64_t page)
{
    const qr_page_entry *entry = &pager->table.entries[page];
    double since_s = qr_now_s();
    qr_status status = qr_pager_demand(pager, page);
    if (entry->tier == pager->top) {
        return status;
    }
    while (status == QR_OK && entry->tier != pager->top) {
        bool moved = false;
        status = qr_pager_bring(pager, page, true, &moved);
        if (status == QR_OK && entry->tier != pager->top) {
            status = moved ? qr_pager_poll(pager) : qr_pager_wait(pager, page);
        }
    }
    pager->waited_s += qr_now_s() - since_s;
    return status;
}

qr_status qr_pager_fetch(qr_pager *pager, int64_t page)
{
    qr_status status = qr_pager_must_have(pager, page);
    bool any = pager->on_device;
    while (status == QR_OK && any) {
        status = qr_pager_wait_copy(pager, &any);
    }
    if (status == QR_OK) {
        qr_page_touch(&pager->table, page, qr_now_s());
        status = qr_pager_leave_slots(pager);
    }
    return status;
}

qr_status qr_pager_settle(qr_pager *pager)
{
    qr_status status = QR_OK;
    bool any = pager->on_device;
    while (status == QR_OK && any) {
        status = qr_pager_wait_copy(pager, &any);
    }
    while (status == QR_OK && pager->n_busy > 0) {
        int32_t slot = pager->busy_slots[0];
        if (pager->jobs[slot].asked) {
            status = qr_pager_wait_job(pager, slot);
        } else {
            qr_pager_let_go(pager, pager->jobs[slot].page);
        }
    }
    return status;
}

qr_status qr_pager_new_frame(qr_pager *pager, int64_t *frame)
{
    qr_status status = QR_OK;
    *frame = -1;
    while (status == QR_OK && *frame < 0) {
        status = pager->on_device ? qr_pager_frame_device(pager, true, frame) : qr_pager_frame_host(pager, true, frame);
        if (status == QR_OK && *frame < 0) {
            status = qr_pager_wait(pager, -1);
        }
    }
    return status;
}
