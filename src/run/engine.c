/* The step loop of the compute ranks. All of them go through the same steps: whatever one rank must tell the others (a
 * signal, a failure, that output is due) travels with the tally's reduction, so that all stop at the same step. */
#include "run/simulation.h"

#include "base/log.h"

#include <string.h>

typedef struct loop {
    qr_simulation *simulation;
    qr_progress progress;
    qr_status failure; /* first failure on this rank; its message is kept below */
    char message[QR_MESSAGE_BYTES];
    double series_due_s; /* when the next row or snapshot is due, for intervals in seconds; part 0 */
    double snapshot_due_s;
    qr_notes notes;
} loop;

static void note_failure(loop *l, qr_status status)
{
    if (status != QR_OK && l->failure == QR_OK) {
        l->failure = status;
        (void)snprintf(l->message, sizeof l->message, "%s", qr_error_message());
    }
}

/* What this rank has to say with the next reduction. */
static qr_notes local_notes(loop *l)
{
    const qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    qr_notes notes = {.stop_signal = qr_signals_received() != 0 ? 1 : 0, .failed = l->failure != QR_OK ? 1 : 0};
    if (simulation->comm->me.part == 0) {
        double now = qr_now_s();
        notes.series_due = deck->output.series_every.seconds > 0.0 && now >= l->series_due_s ? 1 : 0;
        notes.snapshot_due = deck->output.snapshot_every.seconds > 0.0 && now >= l->snapshot_due_s ? 1 : 0;
        if (notes.series_due != 0) {
            l->series_due_s = now + deck->output.series_every.seconds;
        }
        if (notes.snapshot_due != 0) {
            l->snapshot_due_s = now + deck->output.snapshot_every.seconds;
        }
    }
    return notes;
}

/* Halo, update and reduction of one step. Failures are noted, never returned: the other ranks are waiting. */
static void advance(loop *l, int64_t step)
{
    qr_simulation *simulation = l->simulation;
    const qr_model *model = simulation->model;
    int n_colours = model->sweeps ? qr_lattice_colours(&simulation->spec) : 1;
    qr_tally before = simulation->tally;
    double at = qr_now_s();
    for (int colour = 0; colour < n_colours; colour++) {
        note_failure(l, qr_halo_exchange_run(simulation->exchange));
        at = qr_timer_lap(&simulation->timers, QR_PHASE_HALO, at);
        note_failure(l, simulation->ops->update(simulation->backend, step, colour, &before, &simulation->tally));
        at = qr_timer_lap(&simulation->timers, QR_PHASE_UPDATE, at);
    }
    l->notes = local_notes(l);
    note_failure(l, qr_comm_reduce(simulation->comm, simulation->deck->agents.options, &simulation->tally, &l->notes));
    simulation->step = step;
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_REDUCE, at);
}

static bool is_due(qr_interval every, int64_t step, bool clock_says)
{
    return (every.steps > 0 && step % every.steps == 0) || clock_says;
}

/* Rows, snapshots and progress after a step; `last` when the run ends with it. */
static void hand_over(loop *l, bool last)
{
    qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    double at = qr_now_s();
    if (l->failure != QR_OK) {
        return;
    }
    bool root = simulation->comm->me.part == 0;
    int64_t step = simulation->step;
    bool rows_wanted = deck->output.series_every.steps > 0 || deck->output.series_every.seconds > 0.0;
    if (root && rows_wanted && (is_due(deck->output.series_every, step, l->notes.series_due != 0) || last)) {
        note_failure(l, qr_results_series(simulation, qr_tally_winner(&simulation->tally, deck->agents.options)));
    }
    bool snapshots_wanted = deck->output.snapshot_every.steps > 0 || deck->output.snapshot_every.seconds > 0.0;
    if (snapshots_wanted && (is_due(deck->output.snapshot_every, step, l->notes.snapshot_due != 0) || last)) {
        note_failure(l, qr_results_snapshot(simulation));
    }
    if (root) {
        note_failure(l, qr_progress_show(&l->progress, simulation, last));
    }
    note_failure(l, qr_results_poll(simulation));
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_OUTPUT, at);
}

/* The state before the first step counts as step 0. */
static void count_start(loop *l)
{
    qr_simulation *simulation = l->simulation;
    note_failure(l, simulation->ops->count(simulation->backend, &simulation->tally));
    l->notes = local_notes(l);
    note_failure(l, qr_comm_reduce(simulation->comm, simulation->deck->agents.options, &simulation->tally, &l->notes));
}

static bool is_over(const loop *l)
{
    const qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    return simulation->step >= deck->run.steps || l->notes.failed != 0 || l->notes.stop_signal != 0 ||
           (simulation->consensus.decision.decided && deck->run.stop == QR_STOP_CONSENSUS);
}

qr_status qr_engine_run(qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    loop l;
    memset(&l, 0, sizeof l);
    l.simulation = simulation;
    l.progress = qr_progress_begin(simulation);
    simulation->consensus = qr_consensus_begin(simulation->spec.n_agents, deck->agents.options, deck->consensus.quorum,
                                               deck->consensus.hold);
    simulation->started_s = qr_now_s();
    count_start(&l);
    for (;;) {
        (void)qr_consensus_update(&simulation->consensus, simulation->step, &simulation->tally);
        bool over = is_over(&l);
        hand_over(&l, over);
        if (over) {
            break;
        }
        advance(&l, simulation->step + 1);
    }
    int stop = l.notes.stop_signal != 0 ? qr_signals_received() : 0;
    MPI_Allreduce(&stop, &simulation->stop_signal, 1, MPI_INT, MPI_MAX, simulation->comm->compute);
    if (l.failure != QR_OK) {
        (void)qr_error(l.failure, "%s", l.message);
    }
    return qr_comm_agree(simulation->comm->compute, l.failure);
}
