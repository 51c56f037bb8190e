#include "page/policy.h"

#include <math.h>

void qr_sweep_turn(qr_sweep *sweep, const qr_page_table *table, int top)
{
    if (sweep->one_way) {
        sweep->up = true;
    } else if (sweep->begun) {
        sweep->up = !sweep->up;
    } else {
        int64_t near = 0, far = 0; /* pages of the first tier in either half */
        for (int64_t page = 0; page < table->n_pages; page++) {
            if (table->entries[page].tier == top) {
                near += 2 * page < table->n_pages - 1 ? 1 : 0;
                far += 2 * page > table->n_pages - 1 ? 1 : 0;
            }
        }
        sweep->up = near >= far;
    }
    sweep->begun = true;
}

int64_t qr_policy_surplus(int64_t count, int64_t room, double high, double low, bool *sinking)
{
    int64_t most = (int64_t)ceil(high * (double)room);
    int64_t least = (int64_t)ceil(low * (double)room);
    least = least < most ? least : most;
    if (count > most) {
        *sinking = true;
    } else if (count <= least) {
        *sinking = false;
    }
    return *sinking ? count - least : 0;
}

int64_t qr_policy_aged(const qr_page_table *table, int tier, const qr_memory_tier_config *config, double low,
                       double since_s, double now_s)
{
    if (qr_page_tier_count(table, tier) <= (int64_t)ceil(low * (double)config->pages)) {
        return -1;
    }
    int64_t page = qr_page_victim(table, tier, false);
    if (page < 0) {
        return -1;
    }
    double last_s = table->entries[page].last_s;
    return last_s < since_s && now_s - last_s > config->age_s ? page : -1;
}

int qr_policy_room(const qr_page_table *table, const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], int first)
{
    for (int tier = first; tier < QR_N_MEMORY_TIERS; tier++) {
        if (tiers[tier].used && qr_page_tier_count(table, tier) + table->promised[tier] < tiers[tier].pages) {
            return tier;
        }
    }
    return -1;
}

int qr_policy_below(const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], int tier)
{
    for (int below = tier + 1; below < QR_N_MEMORY_TIERS; below++) {
        if (tiers[below].used && tiers[below].pages > 0) {
            return below;
        }
    }
    return -1;
}

qr_page_plan qr_page_plan_make(int64_t n_pages, const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], bool on_device)
{
    qr_page_plan plan = {.n_pages = n_pages};
    int top = on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    int64_t left = n_pages;
    for (int tier = top; tier < QR_N_MEMORY_TIERS; tier++) {
        int64_t room = tiers[tier].used ? tiers[tier].pages : 0;
        plan.resident[tier] = left < room ? left : room;
        plan.crossing[tier] = tier > top ? plan.resident[tier] : 0;
        left -= plan.resident[tier];
    }
    plan.fits = left == 0;
    return plan;
}
