/* Which pages move, and how many: decisions from numbers alone. */
#ifndef QR_PAGE_POLICY_H
#define QR_PAGE_POLICY_H

#include "page/table.h"

/* In which direction sweeps go. */
typedef struct qr_sweep {
    bool up;      /* of the last one */
    bool begun;   /* there has been one */
    bool one_way; /* never turn */
} qr_sweep;

/* Turns the sweep; the first one begins at the end where more pages are in the first tier. */
void qr_sweep_turn(qr_sweep *sweep, const qr_page_table *table, int top);

/* How many pages should leave a tier: above `high` of its room, all above `low`. *sinking is kept between calls. */
int64_t qr_policy_surplus(int64_t count, int64_t room, double high, double low, bool *sinking);

/* A page of the tier that nobody has asked for in age_s, nor since `since_s`, where the tier is above its low
 * watermark; else -1. */
int64_t qr_policy_aged(const qr_page_table *table, int tier, const qr_memory_tier_config *config, double low,
                       double since_s, double now_s);

/* The fastest used tier from `first` down that has room for a page; -1: none. */
int qr_policy_room(const qr_page_table *table, const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], int first);

/* The next used tier below; -1: none. */
int qr_policy_below(const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], int tier);

#endif
