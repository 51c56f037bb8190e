/* The plan of paging in words: what will lie where, what moves in a step, and what that costs. */
#include "run/paging.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* What links between tiers carry each way, bytes a second, and multiply-adds of neural agents: ordinary machines of
 * 2024, of which the plan says that it took them. */
static const double link_rates[QR_N_MEMORY_TIERS] = {
    [QR_MEMORY_GPU] = 25e9, [QR_MEMORY_CPU] = 2e9, [QR_MEMORY_NVME] = 0.5e9, [QR_MEMORY_SSD] = 0.15e9};
static const double thread_rate = 30e9;
static const double device_rate = 12e12;

void qr_paging_append(char *text, size_t n, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, n - used, format, args);
    va_end(args);
}

const char *qr_bytes_text(double bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    for (; bytes >= 1024.0 && i + 1 < sizeof units / sizeof units[0]; i++) {
        bytes /= 1024.0;
    }
    (void)snprintf(out, 32, i == 0 ? "%.0f %s" : "%.4g %s", bytes, units[i]);
    return out;
}

static int tier_above(const qr_paging *paging, int tier)
{
    for (int m = tier - 1; m >= 0; m--) {
        if (paging->tiers[m].used) {
            return m;
        }
    }
    return -1;
}

/* Share of the pages of which some agent moves in a step, where each does so by itself. */
static double touched_share(const qr_deck *deck, const qr_paging *paging)
{
    return deck->run.activation < 1.0 ? -expm1((double)paging->page_agents * log1p(-deck->run.activation)) : 1.0;
}

/* "97614", "12", "4.5"; for numbers of pages and for times as long. */
static const char *number_text(double value, char out[32])
{
    bool whole = value == floor(value) || value >= 100.0;
    (void)snprintf(out, 32, whole ? "%.0f" : "%.3g", value);
    return out;
}

/* Pages that come up from a tier in a step, expected. */
static double crossing(const qr_deck *deck, const qr_paging *paging, int m)
{
    return (double)paging->plan.crossing[m] * touched_share(deck, paging);
}

typedef struct estimate {
    double compute_s, link_s; /* of a step: arithmetic, and the slowest link */
    int link;                 /* that one: the tier below it */
} estimate;

static estimate make_estimate(const qr_deck *deck, const qr_paging *paging, int threads)
{
    double hidden = (double)deck->model.hidden;
    double dim = (double)deck->model.state_dim;
    double options = (double)deck->agents.options;
    double agents = (double)paging->needed_bytes / (double)paging->agent_bytes;
    double operations = agents * deck->run.activation * (hidden * (2.0 * dim + 2.0 * options) + options * dim);
    estimate e = {.compute_s = operations / (paging->on_device ? device_rate : thread_rate * threads),
                  .link = QR_MEMORY_CPU};
    double page = (double)paging->page_agents * (double)paging->agent_bytes;
    double all = 0.0; /* bytes that come up to the first tier, from wherever */
    for (int m = 1; m < QR_N_MEMORY_TIERS; m++) {
        if (!paging->tiers[m].used || tier_above(paging, m) < 0) {
            continue;
        }
        double bytes = crossing(deck, paging, m) * page;
        all += bytes;
        if (m >= QR_MEMORY_NVME) { /* a disk reads or writes, for all ranks that share it */
            int sharers = paging->room[m - QR_MEMORY_NVME].sharers;
            double seconds = 2.0 * bytes * (sharers > 0 ? sharers : 1) / link_rates[m - 1];
            if (seconds > e.link_s) {
                e.link_s = seconds;
                e.link = m;
            }
        }
    }
    if (paging->on_device) { /* the link to memory carries as much in the other direction meanwhile */
        double rate = paging->link_both > 0.0 ? paging->link_both / 2.0 : link_rates[QR_MEMORY_GPU];
        if (all / rate > e.link_s) {
            e.link_s = all / rate;
            e.link = QR_MEMORY_CPU;
        }
    }
    return e;
}

/* Where a disk's pages lie, and what of it is free. */
static void describe_disk(const qr_deck *deck, const qr_paging *paging, int t, char *out, size_t n)
{
    const qr_deck_memory_tier *disk = qr_paging_disk(deck, t);
    const qr_paging_disk_room *room = &paging->room[t];
    char bytes[32];
    char other[32];
    char *directory = NULL;
    if (qr_expand_node(disk->directory, paging->node, &directory) != QR_OK) {
        return;
    }
    qr_paging_append(out, n, "        in %s", directory);
    free(directory);
    for (int above = 0; above < t; above++) {
        if (paging->tiers[QR_MEMORY_NVME + above].used && paging->room[above].device == room->device) {
            qr_paging_append(out, n, ", on the disk of %s", qr_tier_name(above));
            break;
        }
    }
    qr_paging_append(out, n, ": %s are free", qr_bytes_text((double)room->free_bytes, bytes));
    if (disk->capacity == 0) {
        qr_paging_append(out, n, ", %s of it are left alone (capacity: auto)",
                         qr_bytes_text((double)(room->free_bytes - qr_paging_auto_bytes(room->free_bytes)), other));
    } else {
        qr_paging_append(out, n, ", capacity %s%s", qr_bytes_text((double)disk->capacity, other),
                         room->is_limit ? ", which is more than there is" : "");
    }
    qr_paging_append(out, n, "%s\n", room->sharers > 1 ? "; compute ranks share them" : "");
}

static void describe_tier(const qr_deck *deck, const qr_paging *paging, int m, char *out, size_t n)
{
    double page = (double)paging->page_agents * (double)paging->agent_bytes;
    double moved = crossing(deck, paging, m);
    int above = tier_above(paging, m);
    char stays[32];
    char moves[32];
    char count[32];
    qr_paging_append(out, n, "  %-5s holds %lld pages, %s", qr_memory_tier_name((qr_memory_tier)m),
                     (long long)paging->plan.resident[m],
                     qr_bytes_text((double)paging->plan.resident[m] * page, stays));
    if (above >= 0 && moved > 0.0) {
        qr_paging_append(out, n, "; a step moves %s%s pages, %s, up from it and as much down from %s",
                         moved == floor(moved) ? "" : "about ", number_text(moved, count),
                         qr_bytes_text(moved * page, moves), qr_memory_tier_name((qr_memory_tier)above));
    }
    if (paging->auto_free[m] > 0) {
        qr_paging_append(out, n, " (auto: %s are free, %s of it stay so)",
                         qr_bytes_text((double)paging->auto_free[m], stays),
                         qr_bytes_text((double)paging->auto_left[m], moves));
    }
    qr_paging_append(out, n, "\n");
    if (m >= QR_MEMORY_NVME) {
        describe_disk(deck, paging, m - QR_MEMORY_NVME, out, n);
    }
}

static void describe_estimate(const qr_deck *deck, const qr_paging *paging, int threads, char *out, size_t n)
{
    estimate e = make_estimate(deck, paging, threads);
    double share = touched_share(deck, paging);
    char count[32];
    double times = e.compute_s > 0.0 && e.link_s > e.compute_s ? e.link_s / e.compute_s : 1.0;
    if (share < 0.9995) {
        qr_paging_append(out, n, "  run.activation %g: agents of %.3g %% of the pages move in a step\n",
                         deck->run.activation, 100.0 * share);
    }
    qr_paging_append(out, n, "  a step takes about %s times as long as with all states in the first tier\n",
                     number_text(times, count));
    qr_paging_append(out, n, "    estimated: %.3g s of arithmetic beside %.3g s on the slowest link, from %s\n",
                     e.compute_s, e.link_s, qr_memory_tier_name((qr_memory_tier)e.link));
    qr_paging_append(out, n, "    at rates of ordinary machines: %s; %.3g multiply-adds a second\n",
                     paging->link_both > 0.0 ? "the GPU's link as measured, nvme 2 GB/s, ssd 0.5, hdd 0.15"
                                             : "gpu 25 GB/s, nvme 2, ssd 0.5, hdd 0.15",
                     paging->on_device ? device_rate : thread_rate * threads);
}

void qr_paging_describe(const qr_deck *deck, const qr_paging *paging, int threads, char *out, size_t n)
{
    char states[32];
    char page[32];
    int64_t page_bytes = paging->page_agents * paging->agent_bytes;
    out[0] = '\0';
    (void)qr_bytes_text((double)paging->needed_bytes, states);
    (void)qr_bytes_text((double)page_bytes, page);
    if (!paging->wanted) {
        qr_paging_append(out, n, "memory: all states of a compute rank, %s, fit into tier %s; nothing is paged\n",
                         states, paging->on_device ? "gpu" : "cpu");
        return;
    }
    qr_paging_append(out, n, "memory: the states of a compute rank, %s, are paged: %lld pages of %s\n", states,
                     (long long)paging->n_pages, page);
    if (page_bytes > deck->memory.page) {
        char told[32];
        qr_paging_append(out, n, "  a page holds 64 agents at the least, which takes more than memory.page, %s\n",
                         qr_bytes_text((double)deck->memory.page, told));
    }
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        if (paging->tiers[m].used) {
            describe_tier(deck, paging, m, out, n);
        }
    }
    describe_estimate(deck, paging, threads, out, n);
}

bool qr_paging_is_told(const qr_deck *deck)
{
    return deck->memory.tiers.gpu.capacity > 0 || deck->memory.tiers.cpu.capacity > 0 ||
           deck->memory.tiers.nvme.directory[0] != '\0' || deck->memory.tiers.ssd.directory[0] != '\0' ||
           deck->memory.tiers.hdd.directory[0] != '\0';
}
