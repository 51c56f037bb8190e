/* What crosses one direction of one link between two tiers, and how long single pages take. */
#ifndef QR_PAGE_LINKS_H
#define QR_PAGE_LINKS_H

#include <stdbool.h>
#include <stdint.h>

/* Of nanoseconds: QR_LINK_PARTS buckets of equal width from a power of two to the next, up to some hours. */
enum { QR_LINK_PARTS = 16, QR_LINK_BUCKETS = 40 * QR_LINK_PARTS };

typedef struct qr_link {
    int64_t pages, bytes;
    int64_t under_way;
    double since;     /* something is under way */
    double until;     /* when a page last arrived */
    bool has_arrived; /* some page did, since then */
    double busy_s;
    double max_us;
    int64_t histogram[QR_LINK_BUCKETS];
} qr_link;

/* What a link has done so far. */
typedef struct qr_link_counters {
    int64_t pages, bytes;
    double busy_s;                 /* time in which at least one page was under way */
    double p50_us, p99_us, max_us; /* of single pages, from being asked for to being there: the wait for pages before
                                      them is part of it. Quantiles are exact to 1 part in 2 QR_LINK_PARTS, max_us is */
} qr_link_counters;

void qr_link_start(qr_link *link, double now_s);

/* A page that set out at started_s is there. */
void qr_link_end(qr_link *link, double started_s, double now_s, int64_t bytes);

/* A page that set out has stayed where it was. */
void qr_link_cancel(qr_link *link, double now_s);

/* A page that set out on another link at started_s came this way. */
void qr_link_divert(qr_link *link, qr_link *meant, double started_s, double now_s, int64_t bytes);

/* Until now_s. */
qr_link_counters qr_link_read(const qr_link *link, double now_s);

#endif
