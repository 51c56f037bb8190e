/* Which pages will be asked for next, from those that were. Pure.
 *
 * Sequential: when several pages in a row were asked for in ascending or descending order, the next one in that
 * direction. Correlated: what followed a page when it was last asked for, for access that is irregular but repeats. */
#ifndef QR_PAGE_PREFETCH_H
#define QR_PAGE_PREFETCH_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { QR_PREFETCH_STREAK = 2 }; /* accesses one way that make a sequence */

typedef struct qr_prefetch {
    bool sequential, correlated;
    int64_t n_pages;
    int64_t *follower[2]; /* [n_pages] of a page in sweeps down and up; -1: not known */
    int64_t last;         /* page asked for; -1: none */
    int up;               /* direction of the sweep, 0 or 1 */
    int streak;           /* > 0: that many accesses in a row ascended, < 0: descended */
} qr_prefetch;

qr_status qr_prefetch_create(int64_t n_pages, bool sequential, bool correlated, qr_prefetch *out);
void qr_prefetch_clear(qr_prefetch *prefetch);

/* A sweep, or another row of accesses, begins. */
void qr_prefetch_begin(qr_prefetch *prefetch, bool up);

/* A page was asked for. */
void qr_prefetch_note(qr_prefetch *prefetch, int64_t page);

/* +1 or -1: the last accesses went that way; 0: neither, or that is switched off. */
int qr_prefetch_direction(const qr_prefetch *prefetch);

/* What is likely asked for after `page`; -1: not known. */
int64_t qr_prefetch_after(const qr_prefetch *prefetch, int64_t page);

#endif
