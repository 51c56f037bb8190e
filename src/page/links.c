#include "page/links.h"

#include <math.h>

void qr_link_start(qr_link *link, double now_s)
{
    if (link->under_way++ == 0) {
        link->since = now_s;
        link->has_arrived = false;
    }
}

/* Below a row of QR_LINK_PARTS the buckets are a nanosecond wide. */
static int bucket_of(double ns)
{
    int exponent = 0;
    if (ns < QR_LINK_PARTS) {
        return ns > 0.0 ? (int)ns : 0;
    }
    double part = (2.0 * frexp(ns, &exponent) - 1.0) * QR_LINK_PARTS; /* of the octave from 2^(exponent - 1) */
    double bucket = (exponent - 1 - 3) * (double)QR_LINK_PARTS + floor(part);
    return bucket < QR_LINK_BUCKETS - 1 ? (int)bucket : QR_LINK_BUCKETS - 1;
}

/* The middle of a bucket. */
static double ns_of(int bucket)
{
    if (bucket < QR_LINK_PARTS) {
        return bucket + 0.5;
    }
    double part = (double)(bucket % QR_LINK_PARTS) + 0.5;
    return ldexp(1.0 + part / QR_LINK_PARTS, bucket / QR_LINK_PARTS + 3);
}

static void no_longer(qr_link *link, double now_s)
{
    if (--link->under_way == 0 && link->has_arrived) {
        link->busy_s += now_s - link->since;
    }
}

void qr_link_end(qr_link *link, double started_s, double now_s, int64_t bytes)
{
    double us = (now_s - started_s) * 1e6;
    link->pages++;
    link->bytes += bytes;
    link->histogram[bucket_of(us * 1e3)]++;
    link->max_us = us > link->max_us ? us : link->max_us;
    link->until = now_s;
    link->has_arrived = true;
    no_longer(link, now_s);
}

void qr_link_cancel(qr_link *link, double now_s)
{
    no_longer(link, now_s);
}

void qr_link_divert(qr_link *link, qr_link *meant, double started_s, double now_s, int64_t bytes)
{
    qr_link_cancel(meant, now_s);
    qr_link_start(link, started_s > link->until ? started_s : link->until);
    qr_link_end(link, started_s, now_s, bytes);
}

static double quantile(const qr_link *link, double share)
{
    int64_t wanted = (int64_t)ceil(share * (double)link->pages);
    int64_t seen = 0;
    for (int bucket = 0; bucket < QR_LINK_BUCKETS && wanted > 0; bucket++) {
        seen += link->histogram[bucket];
        if (seen >= wanted) {
            double us = ns_of(bucket) * 1e-3;
            return us < link->max_us ? us : link->max_us;
        }
    }
    return link->max_us;
}

qr_link_counters qr_link_read(const qr_link *link, double now_s)
{
    bool busy = link->under_way > 0;
    return (qr_link_counters){.pages = link->pages,
                              .bytes = link->bytes,
                              .busy_s = link->busy_s + (busy ? now_s - link->since : 0.0),
                              .p50_us = quantile(link, 0.5),
                              .p99_us = quantile(link, 0.99),
                              .max_us = link->max_us};
}
