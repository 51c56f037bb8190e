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

void qr_paging_describe_now(const qr_simulation *simulation, bool own, char *out, size_t n)
{
    const qr_paging *paging = &simulation->paging;
    qr_pager_counters own_counters;
    const qr_pager_counters *c = &paging->whole;
    if (paging->pager == NULL) {
        return;
    }
    if (own) {
        qr_pager_counters_read(paging->pager, &own_counters);
        c = &own_counters;
    }
    const char *before = own && simulation->comm->n_parts > 1 ? ", pages of compute rank 0:" : ", pages:";
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        if (paging->tiers[m].used || c->pages_in[m] > 0) {
            qr_paging_append(out, n, "%s %s %lld", before, qr_memory_tier_name((qr_memory_tier)m),
                             (long long)c->pages_in[m]);
            before = ",";
        }
    }
    if (c->coming > 0) {
        qr_paging_append(out, n, ", %lld coming", (long long)c->coming);
    }
    if (c->leaving > 0) {
        qr_paging_append(out, n, ", %lld leaving", (long long)c->leaving);
    }
}

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

/* --- links --- */

/* Bytes a second that copies over this link reached when they were measured, on all ranks together; 0: they were not.
 */
static double measured(const qr_paging *paging, int from, int to)
{
    if (from == QR_MEMORY_CPU && to == QR_MEMORY_GPU) {
        return paging->whole_in;
    }
    return from == QR_MEMORY_GPU && to == QR_MEMORY_CPU ? paging->whole_out : 0.0;
}

static json_t *link_json(const qr_paging *paging, int from, int to)
{
    const qr_link_counters *link = &paging->whole.links[from][to];
    double rate = ratio((double)link->bytes, link->busy_s);
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "from", qr_memory_tier_name((qr_memory_tier)from),
                  "to", qr_memory_tier_name((qr_memory_tier)to), "pages", (json_int_t)link->pages, "bytes",
                  (json_int_t)link->bytes, "busy_s", link->busy_s, "bytes_per_s", rate, "p50_us", link->p50_us,
                  "p99_us", link->p99_us, "max_us", link->max_us);
    double limit = measured(paging, from, to);
    if (object != NULL && limit > 0.0) {
        (void)json_object_set_new(object, "measured_bytes_per_s", json_real(limit));
        (void)json_object_set_new(object, "share_of_measured", json_real(rate / limit));
    }
    return object;
}

static void print_link(const qr_paging *paging, int from, int to)
{
    const qr_link_counters *link = &paging->whole.links[from][to];
    char name[32];
    char share[24] = "-";
    double rate = ratio((double)link->bytes, link->busy_s);
    double limit = measured(paging, from, to);
    if (link->pages == 0) {
        return;
    }
    (void)snprintf(name, sizeof name, "%s to %s", qr_memory_tier_name((qr_memory_tier)from),
                   qr_memory_tier_name((qr_memory_tier)to));
    if (limit > 0.0) {
        (void)snprintf(share, sizeof share, "%.1f %%", 100.0 * rate / limit);
    }
    qr_info("  %-14s %10lld %12.3f %10.4g %9s %9.0f %9.0f %9.0f", name, (long long)link->pages,
            (double)link->bytes * 1e-6, rate * 1e-6, share, link->p50_us, link->p99_us, link->max_us);
}

/* --- page files --- */

static json_t *disk_json(const qr_page_tier_totals *disk)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I}", "pages_written",
                     (json_int_t)disk->put, "pages_read", (json_int_t)disk->got, "pages_sunk_into_it",
                     (json_int_t)disk->sunk, "written_raw_bytes", (json_int_t)disk->raw_in, "written_stored_bytes",
                     (json_int_t)disk->stored_in, "read_raw_bytes", (json_int_t)disk->raw_out, "read_stored_bytes",
                     (json_int_t)disk->stored_out, "write_thread_s", disk->write_s, "read_thread_s", disk->read_s,
                     "compress_thread_s", disk->pack_s, "decompress_thread_s", disk->unpack_s, "retries",
                     (json_int_t)disk->retries, "pages_sent_further_down", (json_int_t)disk->spilt);
}

/* Seconds of threads by the pages they worked on: what a single page takes, without the wait for others. */
static void print_disk(int tier, const qr_page_tier_totals *disk, double page_bytes)
{
    double write_s = disk->pack_s + disk->write_s;
    double read_s = disk->unpack_s + disk->read_s;
    qr_info("  %-6s %11.3f %11.3f %9.0f %11.3f %11.3f %9.0f %8lld %9lld", qr_tier_name(tier),
            (double)disk->raw_in * 1e-6, (double)disk->stored_in * 1e-6,
            ratio(write_s, (double)disk->raw_in / page_bytes) * 1e6, (double)disk->raw_out * 1e-6,
            (double)disk->stored_out * 1e-6, ratio(read_s, (double)disk->raw_out / page_bytes) * 1e6,
            (long long)disk->retries, (long long)disk->spilt);
}

/* --- all of it --- */

void qr_paging_to_json(const qr_simulation *simulation, json_t *object)
{
    const qr_paging *paging = &simulation->paging;
    const qr_pager_counters *c = &paging->whole;
    if (paging->pager == NULL || object == NULL) {
        return;
    }
    json_t *tiers = json_object();
    json_t *links = json_array();
    json_t *disks = json_object();
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        const char *name = qr_memory_tier_name((qr_memory_tier)m);
        if (paging->tiers[m].used || c->pages_in[m] > 0) {
            (void)json_object_set_new(tiers, name, json_integer(c->pages_in[m]));
        }
        if (m >= QR_MEMORY_NVME && paging->tiers[m].used) {
            (void)json_object_set_new(disks, name, disk_json(&paging->disks[m - QR_MEMORY_NVME]));
        }
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            if (c->links[m][to].pages > 0) {
                (void)json_array_append_new(links, link_json(paging, m, to));
            }
        }
    }
    int64_t page_bytes = paging->page_agents * paging->agent_bytes;
    json_t *all = json_pack(
        "{s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "pages", (json_int_t)c->n_pages,
        "page_bytes", (json_int_t)page_bytes, "pages_in", tiers, "pages_coming", (json_int_t)c->coming, "pages_leaving",
        (json_int_t)c->leaving, "links", links, "disks", disks, "updated", (json_int_t)c->touched, "passed",
        (json_int_t)c->passed, "prefetch_hits", (json_int_t)c->hits, "prefetch_misses", (json_int_t)c->misses,
        "prefetch_wasted", (json_int_t)c->wasted, "prefetch_late", (json_int_t)c->late, "waited_s", c->waited_s);
    (void)json_object_set_new(object, "paging", all);
}

void qr_paging_print(const qr_simulation *simulation)
{
    const qr_paging *paging = &simulation->paging;
    const qr_pager_counters *c = &paging->whole;
    if (!paging->wanted) {
        return;
    }
    qr_info("%-16s %10s %12s %10s %9s %9s %9s %9s", "pages moved", "pages", "MB", "MB/s", "of link", "p50 us", "p99 us",
            "max us");
    for (int from = 0; from < QR_N_MEMORY_TIERS; from++) {
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            print_link(paging, from, to);
        }
    }
    qr_info("  %lld pages updated, %lld passed over; prefetch: %lld in time, %lld late, %lld for nothing, %lld not "
            "foreseen; updates waited %.3f s for pages",
            (long long)c->touched, (long long)c->passed, (long long)c->hits, (long long)c->late, (long long)c->wasted,
            (long long)c->misses, c->waited_s);
    if (!paging->on_disk) {
        return;
    }
    qr_info("%-8s %11s %11s %9s %11s %11s %9s %8s %9s", "on disk", "written MB", "stored MB", "us a page", "read MB",
            "stored MB", "us a page", "retries", "sent down");
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (paging->tiers[QR_MEMORY_NVME + t].used) {
            print_disk(t, &paging->disks[t], (double)(paging->page_agents * paging->agent_bytes));
        }
    }
}
