/* The plan of paging in words: what will lie where, what moves in a step, and what that costs. */
#include "run/paging.h"

#include <stdarg.h>
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

/* Seconds of a step: of its arithmetic, and of its slowest link. */
static void estimate(const qr_deck *deck, const qr_paging *paging, int threads, double *compute_s, double *links_s)
{
    double hidden = (double)deck->model.hidden;
    double dim = (double)deck->model.state_dim;
    double options = (double)deck->agents.options;
    double agents = (double)paging->needed_bytes / (double)paging->agent_bytes;
    double operations = agents * deck->run.activation * (hidden * (2.0 * dim + 2.0 * options) + options * dim);
    *compute_s = operations / (paging->on_device ? device_rate : thread_rate * threads);
    *links_s = 0.0;
    double page = (double)paging->page_agents * (double)paging->agent_bytes;
    double all = 0.0; /* bytes that come up to the first tier, from wherever */
    for (int m = 1; m < QR_N_MEMORY_TIERS; m++) {
        if (!paging->tiers[m].used || tier_above(paging, m) < 0) {
            continue;
        }
        double bytes = (double)paging->plan.crossing[m] * page;
        all += bytes;
        if (m >= QR_MEMORY_NVME) { /* a disk reads or writes */
            double seconds = 2.0 * bytes / link_rates[m - 1];
            *links_s = seconds > *links_s ? seconds : *links_s;
        }
    }
    if (paging->on_device) { /* the link to memory carries as much in the other direction meanwhile */
        double rate = paging->link_both > 0.0 ? paging->link_both / 2.0 : link_rates[QR_MEMORY_GPU];
        *links_s = all / rate > *links_s ? all / rate : *links_s;
    }
}

static void describe_tier(const qr_paging *paging, int m, char *out, size_t n)
{
    double page = (double)paging->page_agents * (double)paging->agent_bytes;
    int above = tier_above(paging, m);
    char stays[32];
    char moves[32];
    qr_paging_append(out, n, "  %-5s holds %lld pages, %s", qr_memory_tier_name((qr_memory_tier)m),
                     (long long)paging->plan.resident[m],
                     qr_bytes_text((double)paging->plan.resident[m] * page, stays));
    if (above >= 0 && paging->plan.crossing[m] > 0) {
        qr_paging_append(out, n, "; a step moves %lld pages, %s, up from it and as much down from %s",
                         (long long)paging->plan.crossing[m],
                         qr_bytes_text((double)paging->plan.crossing[m] * page, moves),
                         qr_memory_tier_name((qr_memory_tier)above));
    }
    if (paging->auto_free[m] > 0) {
        qr_paging_append(out, n, " (auto: %s are free, %s of it stay so)",
                         qr_bytes_text((double)paging->auto_free[m], stays),
                         qr_bytes_text((double)paging->auto_left[m], moves));
    }
    qr_paging_append(out, n, "\n");
}

void qr_paging_describe(const qr_deck *deck, const qr_paging *paging, int threads, char *out, size_t n)
{
    char states[32];
    char page[32];
    double compute_s = 0.0;
    double links_s = 0.0;
    out[0] = '\0';
    (void)qr_bytes_text((double)paging->needed_bytes, states);
    (void)qr_bytes_text((double)paging->page_agents * (double)paging->agent_bytes, page);
    if (!paging->wanted) {
        qr_paging_append(out, n, "memory: all states of a compute rank, %s, fit into tier %s; nothing is paged\n",
                         states, paging->on_device ? "gpu" : "cpu");
        return;
    }
    qr_paging_append(out, n, "memory: the states of a compute rank, %s, are paged: %lld pages of %s\n", states,
                     (long long)paging->n_pages, page);
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        if (paging->tiers[m].used) {
            describe_tier(paging, m, out, n);
        }
    }
    estimate(deck, paging, threads, &compute_s, &links_s);
    double times = compute_s > 0.0 && links_s > compute_s ? links_s / compute_s : 1.0;
    qr_paging_append(
        out, n,
        "  a step takes about %.3g times as long as with all states in the first tier; estimated from %.3g s of "
        "arithmetic and %.3g s on the slowest link, which go on side by side, at rates of ordinary machines (%s; "
        "%.3g multiply-adds a second)\n",
        times, compute_s, links_s,
        paging->link_both > 0.0 ? "the GPU's link as measured, nvme 2 GB/s, ssd 0.5, hdd 0.15"
                                : "gpu 25 GB/s, nvme 2, ssd 0.5, hdd 0.15",
        paging->on_device ? device_rate : thread_rate * threads);
}

bool qr_paging_is_told(const qr_deck *deck)
{
    return deck->memory.tiers.gpu.capacity > 0 || deck->memory.tiers.cpu.capacity > 0 ||
           deck->memory.tiers.nvme.directory[0] != '\0' || deck->memory.tiers.ssd.directory[0] != '\0' ||
           deck->memory.tiers.hdd.directory[0] != '\0';
}

/* Puts "# " before each line. */
static void comment(const char *text, char *out, size_t n)
{
    out[0] = '\0';
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, "\n");
        qr_paging_append(out, n, "# %.*s\n", (int)length, at);
        at += length + (at[length] == '\n' ? 1 : 0);
    }
}

void qr_paging_describe_deck(const qr_deck *deck, int64_t n_agents, char *out, size_t n)
{
    char text[3072];
    out[0] = '\0';
    if (!qr_paging_is_told(deck)) {
        return;
    }
    if (strcmp(deck->model.rule, "neural") != 0) {
        comment("memory: agents of this rule are their votes, which are never paged; memory.tiers has no effect\n", out,
                n);
        return;
    }
    if (n_agents == 0) {
        comment("memory: what will lie where depends on the network's file; `quorate run --dry-run` reads it\n", out,
                n);
        return;
    }
    qr_paging paging;
    qr_paging_place place = {.agent_bytes = deck->model.state_dim * (int64_t)sizeof(float),
                             .own = n_agents,
                             .ranks_here = 1,
                             .on_device = qr_paging_expects_device(deck),
                             .free_bytes = qr_machine_free_memory()};
    int64_t words = deck->memory.page / place.agent_bytes / QR_AGENTS_PER_WORD;
    place.page_agents = (words > 0 ? words : 1) * QR_AGENTS_PER_WORD;
    int64_t whole = (n_agents + QR_AGENTS_PER_WORD - 1) / QR_AGENTS_PER_WORD * QR_AGENTS_PER_WORD;
    place.page_agents = qr_min64(place.page_agents, whole);
    if (place.on_device && deck->memory.tiers.gpu.capacity == 0) {
        comment(
            "memory: memory.tiers.gpu.capacity is auto: what will lie where is seen when the GPU is, at the start\n",
            out, n);
        return;
    }
    qr_status status = qr_paging_plan(deck, &place, &paging);
    if (status == QR_OK) {
        qr_paging_describe(deck, &paging, qr_machine_cores(), text, sizeof text);
    } else {
        (void)snprintf(text, sizeof text, "memory: with one compute rank: %s\n", qr_error_message());
    }
    comment(text, out, n);
    qr_paging_append(out, n, "# (for one compute rank; mpirun -n N quorate run --dry-run plans for N ranks)\n");
}
