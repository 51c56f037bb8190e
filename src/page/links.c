#include "page/links.h"

#include <math.h>

void qr_link_start(qr_link *link, double now_s)
{
    if (link->under_way++ == 0) {
        link->since = now_s;
    }
}

static int bucket_of(double us)
{
    double bucket = us <= 1.0 ? 0.0 : floor(log2(us) * QR_LINK_PER_OCTAVE);
    return bucket < QR_LINK_BUCKETS - 1 ? (int)bucket : QR_LINK_BUCKETS - 1;
}

void qr_link_end(qr_link *link, double started_s, double now_s, int64_t bytes)
{
    double us = (now_s - started_s) * 1e6;
    link->pages++;
    link->bytes += bytes;
    link->histogram[bucket_of(us)]++;
    link->max_us = us > link->max_us ? us : link->max_us;
    if (--link->under_way == 0) {
        link->busy_s += now_s - link->since;
    }
}

/* The upper end of the bucket in which that share of all pages is reached. */
static double quantile(const qr_link *link, double share)
{
    int64_t wanted = (int64_t)ceil(share * (double)link->pages);
    int64_t seen = 0;
    for (int bucket = 0; bucket < QR_LINK_BUCKETS && wanted > 0; bucket++) {
        seen += link->histogram[bucket];
        if (seen >= wanted) {
            double us = exp2((bucket + 1) / (double)QR_LINK_PER_OCTAVE);
            return us < link->max_us ? us : link->max_us;
        }
    }
    return link->max_us;
}

qr_link_counters qr_link_read(const qr_link *link, double now_s)
{
    return (qr_link_counters){.pages = link->pages,
                              .bytes = link->bytes,
                              .busy_s = link->busy_s + (link->under_way > 0 ? now_s - link->since : 0.0),
                              .p50_us = quantile(link, 0.5),
                              .p99_us = quantile(link, 0.99),
                              .max_us = link->max_us};
}
