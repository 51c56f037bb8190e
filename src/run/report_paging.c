#include "run/report_paging.h"

#include "base/log.h"

#include <string.h>

void qr_paging_print_plan(const qr_simulation *simulation, const qr_paging *paging)
{
    char text[3072];
    qr_paging_describe(simulation->deck, paging, simulation->threads > 0 ? simulation->threads : qr_machine_cores(),
                       text, sizeof text);
    for (char *line = text; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        qr_info("%.*s", (int)n, line);
        line += n + (line[n] == '\n' ? 1 : 0);
    }
}

void qr_paging_describe_now(const qr_simulation *simulation, char *out, size_t n)
{
    const qr_paging *paging = &simulation->paging;
    qr_pager_counters now;
    size_t used = 0;
    out[0] = '\0';
    if (paging->pager == NULL) {
        return;
    }
    qr_pager_counters_read(paging->pager, &now);
    for (int m = 0; m < QR_N_MEMORY_TIERS && used < n; m++) {
        if (paging->tiers[m].used) {
            used += (size_t)snprintf(out + used, n - used, "%s %s %lld", used == 0 ? ", pages:" : ",",
                                     qr_memory_tier_name((qr_memory_tier)m), (long long)now.pages_in[m]);
        }
    }
}

/* --- over all compute ranks --- */

enum { LINK_SUMS = 2, LINK_MOST = 4, N_LINKS = 2 * QR_N_MEMORY_TIERS, N_COUNTS = QR_N_MEMORY_TIERS + 7 };

static qr_link_counters *link_of(qr_pager_counters *c, int i)
{
    return i < QR_N_MEMORY_TIERS ? &c->up[i] : &c->down[i - QR_N_MEMORY_TIERS];
}

void qr_paging_add_up(qr_simulation *simulation)
{
    qr_paging *paging = &simulation->paging;
    qr_pager_counters *whole = &paging->whole;
    int64_t sums[N_COUNTS + N_LINKS * LINK_SUMS];
    double most[1 + N_LINKS * LINK_MOST];
    if (paging->pager == NULL) {
        return;
    }
    qr_pager_counters_read(paging->pager, whole);
    int64_t *const counts[] = {&whole->n_pages, &whole->touched, &whole->passed, &whole->hits,
                               &whole->misses,  &whole->wasted,  &whole->late};
    int n = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        sums[n++] = *counts[i];
    }
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        sums[n++] = whole->pages_in[m];
    }
    most[0] = whole->waited_s;
    for (int i = 0; i < N_LINKS; i++) {
        const qr_link_counters *link = link_of(whole, i);
        sums[n++] = link->pages;
        sums[n++] = link->bytes;
        const double values[LINK_MOST] = {link->busy_s, link->p50_us, link->p99_us, link->max_us};
        memcpy(most + 1 + (ptrdiff_t)i * LINK_MOST, values, sizeof values);
    }
    MPI_Allreduce(MPI_IN_PLACE, sums, n, MPI_INT64_T, MPI_SUM, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, most, 1 + N_LINKS * LINK_MOST, MPI_DOUBLE, MPI_MAX, simulation->comm->compute);
    n = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        *counts[i] = sums[n++];
    }
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        whole->pages_in[m] = sums[n++];
    }
    whole->waited_s = most[0];
    for (int i = 0; i < N_LINKS; i++) {
        qr_link_counters *link = link_of(whole, i);
        const double *values = most + 1 + (ptrdiff_t)i * LINK_MOST;
        *link = (qr_link_counters){.pages = sums[n],
                                   .bytes = sums[n + 1],
                                   .busy_s = values[0],
                                   .p50_us = values[1],
                                   .p99_us = values[2],
                                   .max_us = values[3]};
        n += LINK_SUMS;
    }
}

/* --- links --- */

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

/* The tier that pages of this one go to (down), or that those that come up go to. */
static const char *other_end(const qr_paging *paging, int tier, bool up)
{
    int m = tier;
    if (up) {
        m = paging->on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    } else {
        for (m = tier + 1; m < QR_N_MEMORY_TIERS - 1 && !paging->tiers[m].used; m++) {
        }
    }
    return qr_memory_tier_name((qr_memory_tier)m);
}

/* Bytes a second that a copy over this link reached when it was measured; 0: it was not. */
static double measured(const qr_paging *paging, int tier, bool up)
{
    if (!paging->on_device || tier != (up ? QR_MEMORY_CPU : QR_MEMORY_GPU)) {
        return 0.0;
    }
    return up ? paging->link_in : paging->link_out;
}

static json_t *link_json(const qr_paging *paging, const qr_link_counters *link, int tier, bool up)
{
    double rate = ratio((double)link->bytes, link->busy_s);
    json_t *object = json_pack(
        "{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "from", qr_memory_tier_name((qr_memory_tier)tier), "to",
        other_end(paging, tier, up), "pages", (json_int_t)link->pages, "bytes", (json_int_t)link->bytes, "busy_s",
        link->busy_s, "bytes_per_s", rate, "p50_us", link->p50_us, "p99_us", link->p99_us, "max_us", link->max_us);
    double limit = measured(paging, tier, up);
    if (object != NULL && limit > 0.0) {
        (void)json_object_set_new(object, "measured_bytes_per_s", json_real(limit));
        (void)json_object_set_new(object, "share_of_measured", json_real(rate / limit));
    }
    return object;
}

void qr_paging_to_json(const qr_simulation *simulation, bool whole, json_t *object)
{
    const qr_paging *paging = &simulation->paging;
    qr_pager_counters c = paging->whole;
    if (paging->pager == NULL || object == NULL) {
        return;
    }
    if (!whole) {
        qr_pager_counters_read(paging->pager, &c);
    }
    json_t *tiers = json_object();
    json_t *links = json_array();
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        if (!paging->tiers[m].used) {
            continue;
        }
        (void)json_object_set_new(tiers, qr_memory_tier_name((qr_memory_tier)m), json_integer(c.pages_in[m]));
        if (c.down[m].pages > 0) {
            (void)json_array_append_new(links, link_json(paging, &c.down[m], m, false));
        }
        if (c.up[m].pages > 0) {
            (void)json_array_append_new(links, link_json(paging, &c.up[m], m, true));
        }
    }
    int64_t page_bytes = paging->page_agents * paging->agent_bytes;
    json_t *all = json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "pages", (json_int_t)c.n_pages,
                            "page_bytes", (json_int_t)page_bytes, "pages_in", tiers, "links", links, "updated",
                            (json_int_t)c.touched, "passed", (json_int_t)c.passed, "prefetch_hits", (json_int_t)c.hits,
                            "prefetch_misses", (json_int_t)c.misses, "prefetch_wasted", (json_int_t)c.wasted,
                            "prefetch_late", (json_int_t)c.late, "waited_s", c.waited_s);
    (void)json_object_set_new(object, "paging", all);
}

static void print_link(const qr_paging *paging, const qr_link_counters *link, int tier, bool up)
{
    char name[32];
    char share[24] = "-";
    double rate = ratio((double)link->bytes, link->busy_s);
    double limit = measured(paging, tier, up);
    if (link->pages == 0) {
        return;
    }
    (void)snprintf(name, sizeof name, "%s to %s", qr_memory_tier_name((qr_memory_tier)tier),
                   other_end(paging, tier, up));
    if (limit > 0.0) {
        (void)snprintf(share, sizeof share, "%.1f %%", 100.0 * rate / limit);
    }
    qr_info("  %-14s %10lld %12.3f %10.4g %9s %9.4g %9.4g %9.4g", name, (long long)link->pages,
            (double)link->bytes * 1e-6, rate * 1e-6, share, link->p50_us, link->p99_us, link->max_us);
}

/* What the servers' disks did, summed over servers, on compute rank 0. */
static void print_disks(const qr_simulation *simulation)
{
    enum { N = 8 };
    const qr_comm *comm = simulation->comm;
    double sums[QR_N_TIERS * N] = {0};
    double whole[QR_N_TIERS * N] = {0};
    if (simulation->paging.store != NULL) {
        qr_page_tier_totals totals[QR_N_TIERS];
        qr_page_store_totals(simulation->paging.store, totals);
        for (int t = 0; t < QR_N_TIERS; t++) {
            const qr_page_tier_totals *of = &totals[t];
            const double values[N] = {(double)of->raw_in,     (double)of->stored_in, (double)of->raw_out,
                                      (double)of->stored_out, of->write_s,           of->read_s,
                                      (double)of->retries,    (double)of->spilt};
            memcpy(sums + (ptrdiff_t)t * N, values, sizeof values);
        }
    }
    MPI_Reduce(sums, whole, QR_N_TIERS * N, MPI_DOUBLE, MPI_SUM, comm->world_of_part[0], comm->world);
    if (comm->me.role != QR_ROLE_COMPUTE || comm->me.part != 0) {
        return;
    }
    for (int t = 0; t < QR_N_TIERS; t++) {
        const double *of = whole + (ptrdiff_t)t * N;
        if (!simulation->paging.tiers[QR_MEMORY_NVME + t].used) {
            continue;
        }
        qr_info("  %s: %.3f MB of pages written as %.3f MB at %.4g MB/s a thread, %.3f MB read as %.3f MB at %.4g MB/s "
                "a thread; %.0f operations tried again, %.0f pages went a tier further down",
                qr_tier_name(t), of[0] * 1e-6, of[1] * 1e-6, ratio(of[1], of[4]) * 1e-6, of[2] * 1e-6, of[3] * 1e-6,
                ratio(of[3], of[5]) * 1e-6, of[6], of[7]);
    }
}

void qr_paging_print(const qr_simulation *simulation)
{
    const qr_paging *paging = &simulation->paging;
    if (!paging->wanted) {
        return;
    }
    if (simulation->comm->me.role == QR_ROLE_COMPUTE && simulation->comm->me.part == 0) {
        const qr_pager_counters *c = &paging->whole;
        qr_info("%-16s %10s %12s %10s %9s %9s %9s %9s", "pages moved", "pages", "MB", "MB/s", "of link", "p50 us",
                "p99 us", "max us");
        for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
            print_link(paging, &c->down[m], m, false);
            print_link(paging, &c->up[m], m, true);
        }
        qr_info("  %lld pages updated, %lld passed over; prefetch: %lld in time, %lld late, %lld for nothing, %lld not "
                "foreseen; updates waited %.3f s for pages",
                (long long)c->touched, (long long)c->passed, (long long)c->hits, (long long)c->late,
                (long long)c->wasted, (long long)c->misses, c->waited_s);
    }
    if (paging->on_disk) {
        print_disks(simulation);
    }
}
