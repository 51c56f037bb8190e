#include "run/report_checkpoints.h"

#include "run/paging.h"

#include "base/log.h"

#include <string.h>

/* Pages of a checkpoint that this rank's server stores. */
static int64_t pages_of_server(const qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    int64_t pages = 0;
    for (int part = 0; part < comm->n_parts; part++) {
        if (comm->all[comm->world_of_part[part]].server == comm->me.server) {
            pages += qr_page_count(simulation, part);
        }
    }
    return pages;
}

void qr_checkpoints_describe(const qr_simulation *simulation, char *out, size_t n)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    for (int t = 0; t < QR_N_TIERS && c->enabled; t++) {
        const qr_tier_state *tier = &c->tiers[t];
        if (tier->in_flight == 0) {
            continue;
        }
        bool known = tier->seen.generation == tier->in_flight;
        if (known && tier->seen.state == QR_CUT_WRITING && tier->seen.pages_left > 0) {
            int64_t all = pages_of_server(simulation);
            qr_paging_append(out, n, ", checkpoint %lld: %lld of %lld pages to %s", (long long)tier->in_flight,
                             (long long)(all - tier->seen.pages_left), (long long)all, qr_tier_name(t));
        } else {
            qr_paging_append(out, n, ", checkpoint %lld: %s %s", (long long)tier->in_flight,
                             known && tier->seen.state != QR_CUT_WRITING ? "committing on" : "to", qr_tier_name(t));
        }
    }
}

void qr_checkpoints_add_up(qr_simulation *simulation)
{
    enum { N_SUMS = 8, N_ALL = QR_N_TIERS * N_SUMS + 2 };
    qr_checkpoints *c = &simulation->checkpoints;
    double sums[N_ALL] = {0};
    double longest[2 * QR_N_TIERS + 1] = {0};
    for (int t = 0; t < QR_N_TIERS && c->leads; t++) {
        const qr_tier_post *seen = &c->tiers[t].seen;
        const double values[N_SUMS] = {(double)seen->raw_bytes,        (double)seen->stored_bytes,
                                       (double)seen->pages_taken_over, seen->compress_s,
                                       (double)seen->retired,          (double)seen->damaged};
        memcpy(sums + t * N_SUMS, values, sizeof values);
        longest[2 * t] = seen->write_s;
        longest[2 * t + 1] = seen->wall_s;
    }
    sums[N_ALL - 2] = (double)c->copied_bytes;
    sums[N_ALL - 1] = c->leads ? (double)c->replicas_missing : 0.0;
    longest[2 * QR_N_TIERS] = c->blocked_s;
    MPI_Allreduce(MPI_IN_PLACE, sums, N_ALL, MPI_DOUBLE, MPI_SUM, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, longest, 2 * QR_N_TIERS + 1, MPI_DOUBLE, MPI_MAX, simulation->comm->compute);
    for (int t = 0; t < QR_N_TIERS; t++) {
        const double *of = sums + t * N_SUMS;
        c->tiers[t].whole = (qr_tier_post){.raw_bytes = (int64_t)of[0],
                                           .stored_bytes = (int64_t)of[1],
                                           .pages_taken_over = (int64_t)of[2],
                                           .compress_s = of[3],
                                           .retired = (int64_t)of[4],
                                           .damaged = (int64_t)of[5],
                                           .write_s = longest[2 * t],
                                           .wall_s = longest[2 * t + 1]};
    }
    c->copied_bytes_whole = (int64_t)sums[N_ALL - 2];
    c->replicas_missing_whole = (int64_t)sums[N_ALL - 1];
    c->blocked_longest_s = longest[2 * QR_N_TIERS];
}

static double share(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

static json_t *tier_json(const qr_tier_state *tier)
{
    const qr_tier_post *post = &tier->whole;
    json_t *object =
        json_pack("{s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:f, s:I, s:f, s:f, s:f, s:f}", "newest",
                  (json_int_t)tier->committed, "committed", (json_int_t)tier->n_committed, "failed",
                  (json_int_t)tier->n_failed, "retired", (json_int_t)post->retired, "given_up", tier->given_up ? 1 : 0,
                  "raw_bytes", (json_int_t)post->raw_bytes, "stored_bytes", (json_int_t)post->stored_bytes, "ratio",
                  share((double)post->raw_bytes, (double)post->stored_bytes), "pages_taken_over",
                  (json_int_t)post->pages_taken_over, "compress_s", post->compress_s, "write_s", post->write_s,
                  "wall_s", post->wall_s, "write_bytes_per_s", share((double)post->stored_bytes, post->write_s));
    if (object != NULL && post->damaged > 0) {
        (void)json_object_set_new(object, "damaged", json_integer(post->damaged));
    }
    return object;
}

void qr_checkpoints_to_json(const qr_simulation *simulation, json_t *object)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    if (!c->enabled || object == NULL) {
        return;
    }
    json_t *tiers = json_object();
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (c->tiers[t].used) {
            (void)json_object_set_new(tiers, qr_tier_name(t), tier_json(&c->tiers[t]));
        }
    }
    json_t *all = json_pack("{s:I, s:I, s:I, s:f, s:I, s:b, s:I, s:o}", "restarts", (json_int_t)c->restarts, "cuts",
                            (json_int_t)c->cuts, "late", (json_int_t)c->late, "blocked_s", c->blocked_longest_s,
                            "copied_bytes", (json_int_t)c->copied_bytes_whole, "unprotected", c->unprotected ? 1 : 0,
                            "replicas_missing", (json_int_t)c->replicas_missing_whole, "tiers", tiers);
    (void)json_object_set_new(object, "checkpoints", all);
}

static void print_tier(const qr_tier_state *tier, int number)
{
    const qr_tier_post *post = &tier->whole;
    char ratio[24] = "-";
    char rate[24] = "-";
    if (post->stored_bytes > 0) {
        (void)snprintf(ratio, sizeof ratio, "%.2f", (double)post->raw_bytes / (double)post->stored_bytes);
    }
    if (post->write_s > 0.0) {
        (void)snprintf(rate, sizeof rate, "%.4g", (double)post->stored_bytes / post->write_s * 1e-6);
    }
    qr_info("  %-5s %9lld %8lld %8lld %12.3f %12.3f %7s %9s%s", qr_tier_name(number), (long long)tier->n_committed,
            (long long)tier->n_failed, (long long)post->retired, (double)post->raw_bytes * 1e-6,
            (double)post->stored_bytes * 1e-6, ratio, rate, tier->given_up ? "  given up" : "");
}

void qr_checkpoints_print(const qr_simulation *simulation)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    if (!c->enabled) {
        return;
    }
    qr_info("%-7s %9s %8s %8s %12s %12s %7s %9s", "tier", "committed", "failed", "retired", "raw MB", "stored MB",
            "ratio", "MB/s");
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (c->tiers[t].used) {
            print_tier(&c->tiers[t], t);
        }
    }
    qr_info("  checkpoints kept the step loop for %.3f s, to copy %.3f MB in %lld cut%s%s", c->blocked_longest_s,
            (double)c->copied_bytes_whole * 1e-6, (long long)c->cuts, c->cuts == 1 ? "" : "s",
            c->late > 0 ? "; some had to wait for the one before" : "");
    if (c->replicas_missing_whole > 0) {
        qr_info("  %lld copies on other nodes could not be made", (long long)c->replicas_missing_whole);
    }
    if (c->unprotected) {
        qr_info("  the run ended unprotected: no tier was left");
    }
    if (c->restarts > 0) {
        qr_info("  restarted %lld time%s; this attempt began at step %lld", (long long)c->restarts,
                c->restarts == 1 ? "" : "s", (long long)simulation->first_step);
    }
}

int64_t qr_checkpoints_last(const qr_simulation *simulation)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    int64_t last = 0;
    for (int t = 0; t < QR_N_TIERS; t++) {
        const qr_tier_state *tier = &c->tiers[t];
        if (tier->committed > last && tier->committed_facts.step == simulation->step) {
            last = tier->committed;
        }
    }
    return last;
}
