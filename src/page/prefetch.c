#include "page/prefetch.h"

#include "base/memory.h"

#include <stdlib.h>

qr_status qr_prefetch_create(int64_t n_pages, bool sequential, bool correlated, qr_prefetch *out)
{
    *out = (qr_prefetch){.sequential = sequential, .correlated = correlated, .n_pages = n_pages, .last = -1};
    for (int up = 0; correlated && up < 2; up++) {
        qr_status status =
            qr_allocate((size_t)n_pages, sizeof(int64_t), "the table of prefetches", (void **)&out->follower[up]);
        if (status != QR_OK) {
            qr_prefetch_clear(out);
            return status;
        }
        for (int64_t page = 0; page < n_pages; page++) {
            out->follower[up][page] = -1;
        }
    }
    return QR_OK;
}

void qr_prefetch_clear(qr_prefetch *prefetch)
{
    for (int up = 0; up < 2; up++) {
        free(prefetch->follower[up]);
        prefetch->follower[up] = NULL;
    }
}

void qr_prefetch_begin(qr_prefetch *prefetch, bool up)
{
    prefetch->up = up ? 1 : 0;
    prefetch->last = -1;
    prefetch->streak = 0;
}

void qr_prefetch_note(qr_prefetch *prefetch, int64_t page)
{
    int64_t last = prefetch->last;
    if (page == last) {
        return;
    }
    if (last >= 0) {
        int step = page > last ? 1 : -1;
        prefetch->streak = prefetch->streak * step > 0 ? prefetch->streak + step : step;
        if (prefetch->streak > QR_PREFETCH_STREAK || prefetch->streak < -QR_PREFETCH_STREAK) {
            prefetch->streak = step * QR_PREFETCH_STREAK;
        }
        if (prefetch->correlated) { /* a sweep back asks for the same pages the other way round */
            prefetch->follower[prefetch->up][last] = page;
            prefetch->follower[1 - prefetch->up][page] = last;
        }
    }
    prefetch->last = page;
}

int qr_prefetch_direction(const qr_prefetch *prefetch)
{
    if (!prefetch->sequential) {
        return 0;
    }
    return prefetch->streak >= QR_PREFETCH_STREAK ? 1 : prefetch->streak <= -QR_PREFETCH_STREAK ? -1 : 0;
}

int64_t qr_prefetch_after(const qr_prefetch *prefetch, int64_t page)
{
    return prefetch->correlated && page >= 0 ? prefetch->follower[prefetch->up][page] : -1;
}
