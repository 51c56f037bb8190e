/* What a person sees of a run: start, progress, the table at the end; and the same as JSON. */
#include "run/counters.h"
#include "run/report_checkpoints.h"
#include "run/report_paging.h"

#include "base/log.h"
#include "quorate_version.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BATCH_LOG_EVERY_S = 10 };

void qr_report_start(const qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    const qr_network_facts *facts = &simulation->facts;
    if (simulation->deck->run.title[0] != '\0') {
        qr_info("%s", simulation->deck->run.title);
    }
    qr_info("quorate %s: %d compute rank%s with %d thread%s each, %d I/O %s, %d node%s", QR_VERSION, comm->n_parts,
            comm->n_parts == 1 ? "" : "s", simulation->threads, simulation->threads == 1 ? "" : "s", comm->n_servers,
            qr_comm_serves_itself(comm) ? (comm->n_servers == 1 ? "thread" : "threads")
                                        : (comm->n_servers == 1 ? "rank" : "ranks"),
            comm->n_nodes, comm->n_nodes == 1 ? "" : "s");
    qr_info("model %s, %lld options; backend %s (%s), %s; exchange %s", qr_rule_info_of(simulation->model->kind)->name,
            (long long)simulation->deck->agents.options, simulation->ops->name, simulation->backend_reason,
            simulation->ops->describe(simulation->backend), simulation->exchange_name);
    if (simulation->cores_near_device > 0) {
        qr_info("compute rank 0 keeps to the %d cores nearest to its GPU", simulation->cores_near_device);
    }
    if (facts->edges < 0) {
        qr_info("network %s: %lld agents", qr_network_kind_name(simulation->spec.kind), (long long)facts->agents);
    } else if (facts->components < 0) {
        qr_info("network %s: %lld agents, %lld edges, degree sum %lld", qr_network_kind_name(simulation->spec.kind),
                (long long)facts->agents, (long long)facts->edges, (long long)facts->degree_sum);
    } else {
        qr_info("network %s: %lld agents, %lld edges, degree sum %lld, %lld component%s; dropped %lld self loops, "
                "%lld duplicates",
                qr_network_kind_name(simulation->spec.kind), (long long)facts->agents, (long long)facts->edges,
                (long long)facts->degree_sum, (long long)facts->components, facts->components == 1 ? "" : "s",
                (long long)facts->self_loops, (long long)facts->duplicates);
    }
    if (simulation->model->sweeps) {
        qr_info("a step is a sweep in %d turns, no neighbours in the same one",
                qr_network_colours(simulation->network));
    }
    if (simulation->paging.wanted) {
        qr_paging_print_plan(simulation, &simulation->paging);
    }
#ifndef NDEBUG
    qr_warning("this is a debug build: correct, but many times slower than a release build");
#endif
}

/* One line that is written over and over needs a terminal. Under mpirun a rank's standard output always looks like one,
 * so there the caller must say so: QUORATE_TERMINAL=1. */
static bool is_terminal(void)
{
    const char *told = getenv("QUORATE_TERMINAL");
    if (getenv("OMPI_COMM_WORLD_RANK") != NULL) {
        return told != NULL && strcmp(told, "1") == 0;
    }
    return isatty(STDOUT_FILENO) != 0;
}

void qr_progress_begin(qr_simulation *simulation)
{
    double now = qr_now_s();
    simulation->progress = (qr_progress){.every_s = simulation->deck->run.progress_every,
                                         .begun_s = now,
                                         .last_s = now,
                                         .last_step = simulation->step,
                                         .within = -1,
                                         .terminal = is_terminal(),
                                         .width = simulation->progress.width};
}

/* A batch log gets a line a second at first, then fewer, but one in BATCH_LOG_EVERY_S. */
static double least_between_lines(const qr_progress *progress, double now)
{
    double least = 0.1 * (now - progress->begun_s);
    least = least < 1.0 ? 1.0 : least > BATCH_LOG_EVERY_S ? BATCH_LOG_EVERY_S : least;
    return progress->terminal || progress->every_s > least ? progress->every_s : least;
}

/* Seconds as 4 s, 3:05 or 2:07:00. */
static void format_duration(double seconds, char *out, size_t n)
{
    int64_t s = isfinite(seconds) && seconds < 1e15 ? (int64_t)(seconds + 0.5) : -1;
    if (s < 0) {
        (void)snprintf(out, n, "?");
    } else if (s < 60) {
        (void)snprintf(out, n, "%lld s", (long long)s);
    } else if (s < 3600) {
        (void)snprintf(out, n, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
    } else {
        (void)snprintf(out, n, "%lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60),
                       (long long)(s % 60));
    }
}

/* Of the terminal; where it does not say, more than any line has. */
static size_t columns(void)
{
    enum { LEAST = 20, MOST = 1024 };
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= LEAST;
    return known ? size.ws_col : MOST;
}

static void print_line(qr_progress *progress, const char *line)
{
    if (progress->terminal && qr_log_prints_info()) {
        size_t width = strlen(line); /* the next line covers all of this one */
        size_t most = columns() - 1; /* a line that goes on below cannot be written over */
        width = width < most ? width : most;
        (void)printf("\r%-*.*s", (int)progress->width, (int)width, line);
        (void)fflush(stdout);
        progress->width = width > progress->width ? width : progress->width;
    } else {
        qr_info("%s", line);
    }
}

/* What is under way, and where pages are. */
static void describe_now(const qr_simulation *simulation, char *line, size_t n)
{
    qr_checkpoints_describe(simulation, line, n);
    qr_paging_describe_now(simulation, false, line, n);
}

static void print_progress(qr_simulation *simulation, double rate)
{
    const qr_deck *deck = simulation->deck;
    int64_t winner = qr_tally_winner(&simulation->tally, deck->agents.options);
    double agents = (double)simulation->spec.n_agents;
    char left[32];
    format_duration((double)(deck->run.steps - simulation->step) / rate, left, sizeof left);
    long long step = (long long)simulation->step;
    long long steps = (long long)deck->run.steps;
    double share = 100.0 * (double)simulation->tally.votes[winner] / agents;
    char line[512] = "";
    qr_paging_append(line, sizeof line,
                     "step %lld of %lld, %.3g steps/s, %.3g agents/s, option %lld leads with %.1f %%, %s left", step,
                     steps, rate, rate * agents, (long long)winner, share, left);
    describe_now(simulation, line, sizeof line);
    if (simulation->progress.terminal && strlen(line) >= columns()) { /* rather short than cut off */
        line[0] = '\0';
        qr_paging_append(line, sizeof line, "%lld/%lld, %.3g/s, option %lld: %.1f %%, %s left", step, steps, rate,
                         (long long)winner, share, left);
        describe_now(simulation, line, sizeof line);
    }
    print_line(&simulation->progress, line);
    simulation->progress.logged_s = qr_now_s();
}

/* Work that is not long yet will soon be over. */
static bool is_long(qr_progress *progress, qr_long_work work, int64_t step, double now)
{
    if (progress->within != (int)work || progress->within_step != step) {
        progress->within = (int)work;
        progress->within_step = step;
        progress->within_s = now;
    }
    double last_s = progress->logged_s > progress->within_s ? progress->logged_s : progress->within_s;
    return progress->every_s > 0.0 && now - last_s >= least_between_lines(progress, now);
}

void qr_progress_within(qr_simulation *simulation, qr_long_work work, int64_t done, int64_t all)
{
    static const char *const names[] = {"step %lld of %lld", "first states", "reload checkpoint", "hash of the states"};
    double now = qr_now_s();
    char line[512] = "";
    qr_progress *progress = &simulation->progress;
    if (simulation->comm->me.part != 0 || !is_long(progress, work, simulation->step, now)) {
        return;
    }
    if (work == QR_LONG_STEP) {
        qr_paging_append(line, sizeof line, names[work], (long long)simulation->step + 1,
                         (long long)simulation->deck->run.steps);
    } else {
        qr_paging_append(line, sizeof line, "%s", names[work]);
    }
    qr_paging_append(line, sizeof line, ": %.1f %% done", all > 0 ? 100.0 * (double)done / (double)all : 100.0);
    qr_checkpoints_describe(simulation, line, sizeof line);
    qr_paging_describe_now(simulation, true, line, sizeof line);
    print_line(progress, line);
    progress->within_s = now;
}

void qr_progress_end(qr_simulation *simulation)
{
    qr_progress *progress = &simulation->progress;
    if (progress->terminal && progress->width > 0 && qr_log_prints_info()) {
        (void)printf("\r%-*s\r", (int)progress->width, "");
        (void)fflush(stdout);
    }
    progress->width = 0;
}

/* Of all attempts. */
static double elapsed_s(const qr_simulation *simulation, double now)
{
    return simulation->checkpoints.elapsed_before_s + now - simulation->started_s;
}

static qr_status write_metrics(qr_simulation *simulation, double now, double rate)
{
    int64_t winner = qr_tally_winner(&simulation->tally, simulation->deck->agents.options);
    json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:I, s:I}", "step", (json_int_t)simulation->step, "elapsed_s",
                             elapsed_s(simulation, now), "steps_per_s", rate, "agents_per_s",
                             rate * (double)simulation->spec.n_agents, "leading_option", (json_int_t)winner,
                             "leading_votes", (json_int_t)simulation->tally.votes[winner]);
    for (int p = QR_PHASE_HALO; line != NULL && p <= QR_PHASE_OUTPUT; p++) {
        static const char *const keys[QR_N_PHASES] = {[QR_PHASE_HALO] = "halo_s",
                                                      [QR_PHASE_UPDATE] = "update_s",
                                                      [QR_PHASE_REDUCE] = "reduce_s",
                                                      [QR_PHASE_OUTPUT] = "output_s"};
        (void)json_object_set_new(line, keys[p], json_real(simulation->timers.seconds[p]));
    }
    qr_counters_to_json(simulation, line);
    qr_checkpoints_to_json(simulation, line);
    qr_paging_to_json(simulation, line);
    char *text = line != NULL ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(line);
    if (text == NULL) {
        return qr_error_memory(0, "a line of metrics");
    }
    size_t n = strlen(text);
    char *with_newline = realloc(text, n + 2);
    if (with_newline == NULL) {
        free(text);
        return qr_error_memory(n + 2, "a line of metrics");
    }
    with_newline[n] = '\n';
    with_newline[n + 1] = '\0';
    qr_status status = qr_results_text(simulation, "metrics.jsonl", QR_TEXT_APPEND, with_newline);
    free(with_newline);
    return status;
}

bool qr_progress_is_due(const qr_progress *progress)
{
    return progress->every_s > 0.0 && qr_now_s() - progress->last_s >= progress->every_s;
}

qr_status qr_progress_show(qr_simulation *simulation, bool last)
{
    qr_progress *progress = &simulation->progress;
    double now = qr_now_s();
    double since = now - progress->last_s;
    double rate = since > 0.0 ? (double)(simulation->step - progress->last_step) / since : 0.0;
    if (last) {
        qr_progress_end(simulation);
    } else if (now - progress->logged_s >= least_between_lines(progress, now)) {
        print_progress(simulation, rate);
    }
    progress->last_s = now;
    progress->last_step = simulation->step;
    return write_metrics(simulation, now, rate);
}

static const char *stop_name(const qr_simulation *simulation)
{
    switch (simulation->stop_signal) {
    case SIGUSR1: return "SIGUSR1";
    case SIGTERM: return "SIGTERM";
    case SIGINT: return "SIGINT";
    default: break;
    }
    bool decided = simulation->consensus.decision.decided;
    return decided && simulation->deck->run.stop == QR_STOP_CONSENSUS ? "consensus" : "steps";
}

static json_t *decision_json(const qr_simulation *simulation)
{
    const qr_decision *decision = &simulation->consensus.decision;
    if (!decision->decided) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I, s:I}", "option", (json_int_t)decision->option, "votes",
                     (json_int_t)decision->votes, "step", (json_int_t)decision->step, "leader",
                     (json_int_t)decision->leader);
}

static json_t *network_json(const qr_simulation *simulation)
{
    const qr_network_facts *facts = &simulation->facts;
    json_t *network = json_pack("{s:s}", "kind", qr_network_kind_name(simulation->spec.kind));
    const struct {
        const char *name;
        int64_t value;
    } counted[] = {{"edges", facts->edges},
                   {"degree_sum", facts->degree_sum},
                   {"components", facts->components},
                   {"self_loops_dropped", facts->self_loops},
                   {"duplicates_dropped", facts->duplicates}};
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
        if (counted[i].value >= 0) {
            (void)json_object_set_new(network, counted[i].name, json_integer(counted[i].value));
        }
    }
    if (simulation->model->sweeps) {
        (void)json_object_set_new(network, "colours", json_integer(qr_network_colours(simulation->network)));
    }
    return network;
}

qr_status qr_report_summary(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    double now = qr_now_s();
    double this_attempt_s = now - simulation->started_s;
    int64_t steps_done = simulation->step - simulation->first_step;
    json_t *tally = json_array();
    for (int64_t k = 0; k < simulation->deck->agents.options; k++) {
        (void)json_array_append_new(tally, json_integer(simulation->tally.votes[k]));
    }
    json_t *phases = json_object();
    for (int p = 0; p < QR_N_PHASES; p++) {
        if (p != QR_PHASE_FINISH) {
            (void)json_object_set_new(phases, qr_phase_name((qr_phase)p), json_real(simulation->timers.seconds[p]));
        }
    }
    json_t *summary = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:o, s:i, s:i, s:i, s:i, s:s, s:s, s:f, s:f, "
        "s:f, s:o}",
        "program", "quorate", "version", QR_VERSION, "revision", QR_REVISION, "title", simulation->deck->run.title,
        "model", qr_rule_info_of(simulation->model->kind)->name, "agents", (json_int_t)simulation->spec.n_agents,
        "options", (json_int_t)simulation->deck->agents.options, "steps", (json_int_t)simulation->step, "decision",
        decision_json(simulation), "tally", tally, "stopped_by", stop_name(simulation), "state_hash",
        simulation->state_hash, "network", network_json(simulation), "compute_ranks", comm->n_parts, "io_servers",
        comm->n_servers, "nodes", comm->n_nodes, "threads_per_rank", simulation->threads, "backend",
        simulation->ops->name, "precision", qr_results_precision(simulation), "elapsed_s", elapsed_s(simulation, now),
        "agent_updates_per_s",
        this_attempt_s > 0.0 ? (double)steps_done * (double)simulation->spec.n_agents / this_attempt_s : 0.0,
        "waited_for_output_s", simulation->results.waited_s, "phases_of_compute_rank_0_s", phases);
    if (summary != NULL && simulation->ops->counters != NULL) {
        json_t *gpu = json_object();
        qr_counters_to_json(simulation, gpu);
        (void)json_object_set_new(summary, "gpu_of_compute_rank_0", gpu);
    }
    if (summary != NULL) {
        (void)json_object_set_new(summary, "began_at_step", json_integer(simulation->first_step));
        (void)json_object_set_new(summary, "restarts", json_integer(simulation->checkpoints.restarts));
        (void)json_object_set_new(summary, "resumable", json_boolean(simulation->resumable));
    }
    if (summary != NULL && simulation->checkpoints.enabled) { /* to be known again by */
        (void)json_object_set_new(summary, "run_id", json_string(simulation->checkpoints.run_id));
    }
    qr_checkpoints_to_json(simulation, summary);
    qr_paging_to_json(simulation, summary);
    char *text = summary != NULL ? json_dumps(summary, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(summary);
    if (text == NULL) {
        return qr_error_memory(0, "the summary");
    }
    qr_status status = qr_results_text(simulation, "summary.json", QR_TEXT_REPLACE, text);
    free(text);
    return status;
}

/* Phases over ranks: the longest, longest over shortest, share of the whole. */
static void print_table(const double *longest, const double *shortest)
{
    double whole = 0.0;
    for (int p = 0; p < QR_N_PHASES; p++) {
        whole += longest[p];
    }
    qr_info("%-26s %10s %9s %8s", "where the time went", "max s", "max/min", "share");
    for (int p = 0; p < QR_N_PHASES; p++) {
        char ratio[24] = "-";
        if (shortest[p] > 1e-6) {
            (void)snprintf(ratio, sizeof ratio, "%.2f", longest[p] / shortest[p]);
        }
        qr_info("  %-24s %10.3f %9s %6.1f %%", qr_phase_name((qr_phase)p), longest[p], ratio,
                whole > 0.0 ? 100.0 * longest[p] / whole : 0.0);
    }
}

static void print_stop(const qr_simulation *simulation)
{
    if (simulation->stop_signal == 0) {
        return;
    }
    const char *name = stop_name(simulation);
    long long step = (long long)simulation->step;
    long long generation = (long long)qr_checkpoints_last(simulation);
    if (simulation->resumable && generation > 0) {
        qr_info("stopped by %s at step %lld with checkpoint %lld; go on with --restart auto", name, step, generation);
    } else if (simulation->resumable) {
        qr_info("stopped by %s at step %lld, with which this attempt began; go on with --restart auto", name, step);
    } else {
        qr_info("stopped by %s at step %lld%s, results are complete up to there", name, step,
                simulation->checkpoints.enabled ? " without a checkpoint of it" : "");
    }
}

void qr_report_end(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    double longest[QR_N_PHASES];
    double shortest[QR_N_PHASES];
    qr_progress_end(simulation);
    double io[4] = {simulation->io_totals.busy_s, simulation->io_totals.flush_s,
                    (double)simulation->io_totals.bytes_written, (double)simulation->io_totals.bytes_in};
    double io_sum[4] = {0};
    MPI_Reduce(io, io_sum, 4, MPI_DOUBLE, MPI_SUM, comm->world_of_part[0], comm->world);
    if (comm->me.role != QR_ROLE_COMPUTE) {
        return;
    }
    MPI_Reduce(simulation->timers.seconds, longest, QR_N_PHASES, MPI_DOUBLE, MPI_MAX, 0, comm->compute);
    MPI_Reduce(simulation->timers.seconds, shortest, QR_N_PHASES, MPI_DOUBLE, MPI_MIN, 0, comm->compute);
    int64_t halo_bytes = qr_halo_exchange_bytes(simulation->exchange);
    MPI_Allreduce(MPI_IN_PLACE, &halo_bytes, 1, MPI_INT64_T, MPI_SUM, comm->compute);
    if (comm->me.part == 0) {
        print_table(longest, shortest);
    }
    qr_counters_print(simulation);
    if (comm->me.part != 0) {
        return;
    }
    double update = longest[QR_PHASE_UPDATE];
    int64_t steps_done = simulation->step - simulation->first_step;
    if (update > 0.0) {
        qr_info("  update: %.4g agents/s in all; at least %.2f GB/s of memory on compute rank 0; halo %lld bytes an "
                "exchange",
                (double)steps_done * (double)simulation->spec.n_agents / update,
                simulation->ops->bytes_per_step(simulation->backend) * (double)steps_done / update * 1e-9,
                (long long)halo_bytes);
    }
    qr_info("  I/O servers: %.3f s busy, %.3f s of it flushing; %.3f MB taken in, %.3f MB of files", io_sum[0],
            io_sum[1], io_sum[3] * 1e-6, io_sum[2] * 1e-6);
    qr_paging_print(simulation);
    qr_checkpoints_print(simulation);
    print_stop(simulation);
    qr_info("results: %s", simulation->deck->output.directory);
}
