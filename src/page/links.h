/* What crosses one direction of one link between two tiers, and how long single pages take. */
#ifndef QR_PAGE_LINKS_H
#define QR_PAGE_LINKS_H

#include "page/pager.h"

enum { QR_LINK_PER_OCTAVE = 8, QR_LINK_BUCKETS = 32 * QR_LINK_PER_OCTAVE };

typedef struct qr_link {
    int64_t pages, bytes;
    int64_t under_way;
    double since; /* something is under way */
    double busy_s;
    double max_us;
    int64_t
        histogram[QR_LINK_BUCKETS]; /* of microseconds, QR_LINK_PER_OCTAVE buckets from a power of two to the next */
} qr_link;

void qr_link_start(qr_link *link, double now_s);

/* A page that set out at started_s is there. */
void qr_link_end(qr_link *link, double started_s, double now_s, int64_t bytes);

/* Until now_s. Quantiles are exact to a tenth. */
qr_link_counters qr_link_read(const qr_link *link, double now_s);

#endif
