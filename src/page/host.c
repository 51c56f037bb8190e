/* Frames in host memory: pages go between them and slots of the queue. */
#include "page/parts.h"

#include <string.h>

/* Through a buffer that stays in the processor's cache. */
static void swap(unsigned char *a, unsigned char *b, size_t n)
{
    unsigned char buffer[4096];
    for (size_t at = 0; at < n; at += sizeof buffer) {
        size_t part = n - at < sizeof buffer ? n - at : sizeof buffer;
        memcpy(buffer, a + at, part);
        memcpy(a + at, b + at, part);
        memcpy(b + at, buffer, part);
    }
}

/* A page in a slot, and the frame of another that has to leave: they change places, as there may be no other. */
static qr_status exchange(qr_pager *pager, int64_t page, int64_t leaving)
{
    qr_page_entry *entry = &pager->table.entries[page];
    int32_t slot = entry->slot;
    int64_t frame = pager->table.entries[leaving].place;
    int64_t in = qr_pager_bytes_of(pager, page), out = qr_pager_bytes_of(pager, leaving);
    swap(qr_queue_slot(pager->config.queue, slot), (void *)pager->frames->memory(pager->config.backend, frame),
         (size_t)(in > out ? in : out));
    qr_status status = qr_pager_take_over(pager, page);
    qr_page_move(&pager->table, page, pager->top);
    entry->place = frame;
    return status == QR_OK ? qr_pager_put(pager, leaving, slot) : status;
}

qr_status qr_pager_place_host(qr_pager *pager, int64_t page, bool demand, bool *moved)
{
    qr_page_entry *entry = &pager->table.entries[page];
    if (pager->n_free_frames == 0) {
        int64_t leaving = qr_page_victim(&pager->table, pager->top, demand);
        *moved = *moved || leaving >= 0;
        return leaving >= 0 ? exchange(pager, page, leaving) : QR_OK;
    }
    int32_t slot = entry->slot;
    int64_t frame = pager->free_frames[--pager->n_free_frames];
    memcpy(pager->frames->memory(pager->config.backend, frame), qr_queue_slot(pager->config.queue, slot),
           (size_t)qr_pager_bytes_of(pager, page));
    qr_status status = qr_pager_take_over(pager, page);
    qr_pager_give_slot(pager, slot);
    qr_page_move(&pager->table, page, pager->top);
    entry->place = frame;
    *moved = true;
    return status;
}

qr_status qr_pager_frame_host(qr_pager *pager, bool demand, int64_t *frame)
{
    *frame = -1;
    if (pager->n_free_frames == 0) {
        int64_t leaving = qr_page_victim(&pager->table, pager->top, demand);
        int32_t slot = QR_NO_SLOT;
        qr_status status =
            leaving >= 0 && pager->config.queue != NULL ? qr_pager_take_slot(pager, -1, demand, &slot) : QR_OK;
        if (status != QR_OK || slot == QR_NO_SLOT) {
            return status;
        }
        int64_t left = pager->table.entries[leaving].place;
        memcpy(qr_queue_slot(pager->config.queue, slot), pager->frames->memory(pager->config.backend, left),
               (size_t)qr_pager_bytes_of(pager, leaving));
        status = qr_pager_put(pager, leaving, slot);
        if (status != QR_OK) {
            return status;
        }
        pager->free_frames[pager->n_free_frames++] = left;
    }
    *frame = pager->free_frames[--pager->n_free_frames];
    return QR_OK;
}
