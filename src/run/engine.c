/* The step loop of the compute ranks. All of them go through the same steps: whatever one rank must tell the others (a
 * signal, a failure, that output is due) travels with the tally's reduction, so that all stop at the same step. */
#include "run/paging.h"

#include <string.h>

typedef struct loop {
    qr_simulation *simulation;
    qr_status failure; /* first failure on this rank; its message is kept below */
    char message[QR_MESSAGE_BYTES];
    double series_due_s; /* when the next row or snapshot is due, for intervals in seconds; part 0 */
    double snapshot_due_s;
    int64_t batch; /* steps that a backend which runs alone takes at once; the same on all ranks */
    qr_notes notes;
} loop;

/* A batch is made to take this long, so that progress, signals and intervals in seconds are seen to in time. */
static const double batch_s = 0.1;
enum { LARGEST_BATCH = 1024 };

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
        notes.progress_due = qr_progress_is_due(&simulation->progress) ? 1 : 0;
        notes.snapshot_due = deck->output.snapshot_every.seconds > 0.0 && now >= l->snapshot_due_s ? 1 : 0;
        if (notes.series_due != 0) {
            l->series_due_s = now + deck->output.series_every.seconds;
        }
        if (notes.snapshot_due != 0) {
            l->snapshot_due_s = now + deck->output.snapshot_every.seconds;
        }
    }
    qr_checkpoints_note(l->simulation, &notes);
    return notes;
}

/* Halo, update and reduction of one step. Failures are noted, never returned: the other ranks are waiting. */
static void advance(loop *l, int64_t step)
{
    qr_simulation *simulation = l->simulation;
    const qr_model *model = simulation->model;
    int n_colours = model->sweeps ? qr_network_colours(simulation->network) : 1;
    qr_tally before = simulation->tally;
    double at = qr_now_s();
    for (int colour = 0; colour < n_colours; colour++) {
        note_failure(l, qr_halo_exchange_start(simulation->exchange));
        if (!model->sweeps && simulation->paging.pager == NULL &&
            simulation->ops->begin_update != NULL) { /* while votes travel */
            note_failure(l, simulation->ops->begin_update(simulation->backend, step, &before));
        }
        note_failure(l, qr_halo_exchange_finish(simulation->exchange));
        at = qr_timer_lap(&simulation->timers, QR_PHASE_HALO, at);
        note_failure(l, qr_states_step(simulation, step, colour, &before));
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

static qr_status write_row(qr_simulation *simulation)
{
    return qr_results_series(simulation, qr_tally_winner(&simulation->tally, simulation->deck->agents.options));
}

/* Steps up to the next multiple of `every`, which is 0 for none, but no more than `most`. */
static int64_t steps_until(int64_t step, int64_t every, int64_t most)
{
    return every > 0 ? qr_min64(every - step % every, most) : most;
}

/* Steps to take before the host has to look: to the next snapshot, checkpoint or the end, and no more than a batch. */
static int64_t steps_until_look(const loop *l)
{
    const qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    int64_t steps = qr_min64(deck->run.steps - simulation->step, l->batch);
    steps = steps_until(simulation->step, deck->output.snapshot_every.steps, steps);
    return steps_until(simulation->step, deck->checkpoint.every.steps, steps);
}

/* The rows of a batch become tallies, decisions and lines of the series, as if each step had been looked at. The last
 * one is left to the loop. */
static void take_rows(loop *l, const qr_steps *steps)
{
    qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    size_t n_options = (size_t)deck->agents.options;
    bool wanted = simulation->comm->me.part == 0 && deck->output.series_every.steps > 0;
    for (int64_t r = 0; r < steps->done; r++) {
        const int64_t *votes = steps->row_votes + (size_t)r * n_options;
        memcpy(simulation->tally.votes, votes, n_options * sizeof *votes);
        memset(simulation->tally.leader, 0, n_options * sizeof simulation->tally.leader[0]);
        simulation->tally.leader[qr_tally_winner(&simulation->tally, deck->agents.options)] = steps->row_leaders[r];
        simulation->step = steps->first + r;
        if (r + 1 == steps->done) {
            break;
        }
        (void)qr_consensus_update(&simulation->consensus, simulation->step, &simulation->tally);
        if (wanted && l->failure == QR_OK && is_due(deck->output.series_every, simulation->step, false)) {
            note_failure(l, write_row(simulation));
        }
    }
}

/* Many steps in one go, where the backend can. False when the ranks cannot go on together. */
static bool advance_batch(loop *l)
{
    qr_simulation *simulation = l->simulation;
    double at = qr_now_s();
    qr_steps steps = {.first = simulation->step + 1,
                      .count = steps_until_look(l),
                      .stop_at_decision = simulation->deck->run.stop == QR_STOP_CONSENSUS,
                      .consensus = &simulation->consensus,
                      .votes = simulation->tally.votes};
    qr_status status = simulation->ops->run(simulation->backend, &steps);
    /* A rank that gave up because another one failed leaves it to that one to say why. */
    bool rings = status != QR_OK && !qr_comm_hears_alarm(simulation->comm);
    if (rings) { /* the others wait on their devices, and would never hear of it */
        note_failure(l, status);
        qr_comm_ring(simulation->comm);
    }
    double took = qr_now_s() - at;
    at = qr_timer_lap(&simulation->timers, QR_PHASE_UPDATE, at);
    take_rows(l, &steps);
    at = qr_timer_lap(&simulation->timers, QR_PHASE_OUTPUT, at);
    l->notes = local_notes(l);
    if (simulation->comm->me.part == 0 && steps.done > 0) {
        double fitting = batch_s / (took / (double)steps.done);
        double grown = fitting < 4.0 * (double)l->batch ? fitting : 4.0 * (double)l->batch;
        l->notes.batch = grown < 1.0 ? 1 : grown > LARGEST_BATCH ? LARGEST_BATCH : (int64_t)grown;
    }
    if (!qr_comm_share_notes(simulation->comm, &l->notes, rings ? QR_ABORT_AFTER_S : -1.0)) {
        simulation->must_abort = true;
        simulation->silent = qr_comm_take_alarms(simulation->comm) < simulation->comm->me.part;
        return false;
    }
    l->batch = l->notes.batch > 0 ? l->notes.batch : 1;
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_REDUCE, at);
    return true;
}

/* What is told of the run is told of all ranks. A failure of this rank alone does not keep it from what all do
 * together.
 */
static bool add_up(loop *l, bool last)
{
    qr_simulation *simulation = l->simulation;
    bool shows = l->notes.failed == 0 && (l->notes.progress_due != 0 || last);
    if (shows && simulation->paging.wanted) {
        qr_paging_add_up(simulation);
    }
    if (shows && simulation->checkpoints.enabled) {
        qr_checkpoints_add_up(simulation);
    }
    return shows;
}

/* Rows, snapshots and progress after a step; `last` when the run ends with it. */
static void hand_over(loop *l, bool last)
{
    qr_simulation *simulation = l->simulation;
    const qr_deck *deck = simulation->deck;
    double at = qr_now_s();
    bool shows = add_up(l, last);
    if (l->failure != QR_OK || l->notes.failed != 0) { /* on any rank: tally and votes are not what they seem */
        return;
    }
    bool root = simulation->comm->me.part == 0;
    int64_t step = simulation->step;
    bool rows_wanted = deck->output.series_every.steps > 0 || deck->output.series_every.seconds > 0.0;
    if (root && rows_wanted && (is_due(deck->output.series_every, step, l->notes.series_due != 0) || last)) {
        note_failure(l, write_row(simulation));
    }
    bool snapshots_wanted = deck->output.snapshot_every.steps > 0 || deck->output.snapshot_every.seconds > 0.0;
    if (snapshots_wanted && (is_due(deck->output.snapshot_every, step, l->notes.snapshot_due != 0) || last)) {
        note_failure(l, qr_results_snapshot(simulation));
    }
    if (root && shows) {
        note_failure(l, qr_progress_show(simulation, last));
    }
    note_failure(l, qr_results_poll(simulation));
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_OUTPUT, at);
}

/* Cuts, commits and drains; all ranks take part, also one on which something has just failed, unless all know it. */
static void protect(loop *l)
{
    qr_simulation *simulation = l->simulation;
    if (l->notes.failed != 0 || !simulation->checkpoints.enabled) {
        return;
    }
    bool due = is_due(simulation->deck->checkpoint.every, simulation->step, l->notes.checkpoint_due != 0);
    note_failure(l, qr_checkpoints_turn(simulation, &l->notes, due && simulation->step > 0));
    simulation->timers.seconds[QR_PHASE_CHECKPOINT] = simulation->checkpoints.blocked_s;
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
    qr_progress_begin(simulation);
    qr_consensus so_far = simulation->consensus;
    simulation->consensus = qr_consensus_begin(simulation->spec.n_agents, deck->agents.options, deck->consensus.quorum,
                                               deck->consensus.hold);
    bool alone = !simulation->paging.wanted && simulation->ops->run != NULL &&
                 simulation->ops->runs_alone(simulation->backend) && deck->comm.exchange != QR_EXCHANGE_MPI_HOST &&
                 deck->comm.exchange != QR_EXCHANGE_MPI_CUDA;
    l.batch = 1;
    simulation->started_s = qr_now_s();
    count_start(&l);
    if (simulation->restarted) { /* what the step before the checkpoint came to is known, and written */
        simulation->consensus.held = so_far.held;
        simulation->consensus.candidate = so_far.candidate;
        simulation->consensus.decision = so_far.decision;
    } else {
        (void)qr_consensus_update(&simulation->consensus, simulation->step, &simulation->tally);
        hand_over(&l, is_over(&l));
    }
    while (!is_over(&l)) {
        if (!alone) {
            advance(&l, simulation->step + 1);
        } else if (!advance_batch(&l)) {
            return qr_error(l.failure, "%s", l.message);
        }
        (void)qr_consensus_update(&simulation->consensus, simulation->step, &simulation->tally);
        bool over = is_over(&l);
        hand_over(&l, over);
        if (!over) {
            protect(&l);
        }
    }
    int stop = l.notes.stop_signal != 0 ? qr_signals_received() : 0;
    MPI_Allreduce(&stop, &simulation->stop_signal, 1, MPI_INT, MPI_MAX, simulation->comm->compute);
    if (l.failure != QR_OK) {
        (void)qr_error(l.failure, "%s", l.message);
    }
    qr_status status = qr_comm_agree(simulation->comm->compute, l.failure);
    if (status == QR_OK) {
        double at = qr_now_s();
        status = qr_checkpoints_finish(simulation);
        (void)qr_timer_lap(&simulation->timers, QR_PHASE_SETTLE, at);
        double cuts_s = simulation->checkpoints.blocked_s - simulation->timers.seconds[QR_PHASE_CHECKPOINT];
        simulation->timers.seconds[QR_PHASE_CHECKPOINT] += cuts_s;
        simulation->timers.seconds[QR_PHASE_SETTLE] -= cuts_s;
    }
    return status;
}
