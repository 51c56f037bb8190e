#include "run/paging.h"
#include "run/simulation.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static void print_decision(const qr_simulation *simulation)
{
    const qr_decision *decision = &simulation->consensus.decision;
    int64_t agents = simulation->spec.n_agents;
    if (decision->decided) {
        qr_result("decision: option %lld, %lld of %lld agents (%.1f %%), step %lld", (long long)decision->option,
                  (long long)decision->votes, (long long)agents, 100.0 * (double)decision->votes / (double)agents,
                  (long long)decision->step);
    } else {
        int64_t winner = qr_tally_winner(&simulation->tally, simulation->deck->agents.options);
        int64_t votes = simulation->tally.votes[winner];
        qr_result("decision: none; option %lld leads with %lld of %lld agents (%.1f %%) after step %lld",
                  (long long)winner, (long long)votes, (long long)agents, 100.0 * (double)votes / (double)agents,
                  (long long)simulation->step);
    }
    qr_result("state hash: %s", simulation->state_hash);
}

/* Whether any compute rank's I/O server no longer answers. Collective over compute. */
static bool server_is_lost(const qr_simulation *simulation)
{
    int lost = simulation->results.queue.lost ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &lost, 1, MPI_INT, MPI_MAX, simulation->comm->compute);
    return lost != 0;
}

/* A compute rank from the first file to the last. Failures are agreed on among the compute ranks at every stage. */
static qr_status compute(qr_simulation *simulation)
{
    MPI_Comm group = simulation->comm->compute;
    bool root = simulation->comm->me.part == 0;
    qr_status status = qr_servers_start_thread(simulation);
    if (status == QR_OK) {
        status = qr_results_open(simulation);
    }
    if (status == QR_OK && root) {
        status = qr_results_text(simulation, "used.yml", QR_TEXT_REPLACE, simulation->used_text);
    }
    if (status == QR_OK) {
        status = qr_queue_drain(&simulation->results.queue, simulation->results.timeout_s);
    }
    if (status == QR_OK) {
        status = qr_checkpoints_begin(simulation);
    }
    status = qr_comm_agree(group, status);
    if (status == QR_OK) {
        if (root) {
            qr_report_start(simulation);
        }
        status = qr_engine_run(simulation);
        if (simulation->must_abort) {
            return status;
        }
    }
    double at = qr_now_s();
    if (status == QR_OK) {
        status = qr_state_hash(simulation, simulation->state_hash);
        at = qr_timer_lap(&simulation->timers, QR_PHASE_HASH, at);
    }
    if (status == QR_OK && simulation->paging.pager != NULL) {
        status = qr_pager_settle(simulation->paging.pager);
    }
    status = qr_comm_agree(group, status);
    if (status == QR_OK) {
        qr_paging_add_up(simulation);
    }
    if (status == QR_OK && root) {
        status = qr_report_summary(simulation);
    }
    char message[QR_MESSAGE_BYTES];
    (void)snprintf(message, sizeof message, "%s", qr_error_message());
    qr_status finished = QR_OK;
    simulation->must_abort = server_is_lost(simulation);
    if (!simulation->must_abort) { /* no second wait for who did not answer the first */
        finished = qr_results_finish(simulation);
        simulation->must_abort = server_is_lost(simulation);
    }
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_FINISH, at);
    simulation->silent = simulation->must_abort && !root;
    if (status == QR_OK) {
        status = finished;
    } else {
        (void)qr_error(status, "%s", message);
    }
    return qr_comm_agree(group, status);
}

static qr_status serve_and_step(qr_simulation *simulation)
{
    qr_status status = QR_OK;
    if (simulation->comm->me.role == QR_ROLE_IO) {
        status = qr_io_server_run(simulation->server, NULL, &simulation->io_totals);
        qr_status clean = qr_check_own_maps(simulation, "at the end");
        status = status == QR_OK ? clean : status;
    } else {
        status = compute(simulation);
        if (simulation->must_abort) {
            return status;
        }
        if (simulation->server_thread != NULL) {
            qr_status joined = qr_io_thread_join(simulation->server_thread, &simulation->io_totals);
            status = status == QR_OK ? joined : status;
        }
    }
    return qr_comm_agree(simulation->comm->world, status);
}

/* I/O ranks hear of it from the compute ranks. Collective over the world. */
static bool is_resumable(const qr_simulation *simulation)
{
    int resumable = simulation->resumable ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &resumable, 1, MPI_INT, MPI_MAX, simulation->comm->world);
    return resumable != 0;
}

/* From agents as they begin, or as a checkpoint has them, to servers that wait for the first step. Until results have
 * been looked at nothing is written; but a restart puts states where they do not fit into memory. */
static qr_status prepare(qr_simulation *simulation)
{
    bool restarts = simulation->options->restart != NULL;
    qr_progress_begin(simulation);
    qr_paging_share(simulation);
    qr_status status = qr_queues_create(simulation);
    if (status == QR_OK && restarts) {
        status = qr_paging_begin(simulation);
    }
    if (status == QR_OK) {
        double at = qr_now_s();
        status = restarts ? qr_simulation_restart(simulation) : qr_simulation_check_tiers(simulation);
        (void)qr_timer_lap(&simulation->timers, QR_PHASE_RELOAD, at);
    }
    if (status == QR_OK && simulation->ended_already) {
        qr_paging_settle(simulation);
        return QR_OK;
    }
    if (status == QR_OK) {
        status = qr_simulation_check_directory(simulation);
    }
    if (status == QR_OK) {
        status = qr_simulation_clean_tiers(simulation);
    }
    if (status == QR_OK) {
        status = qr_paging_clear_leftovers(simulation);
    }
    if (status == QR_OK && !restarts) {
        status = qr_paging_begin(simulation);
    }
    if (status == QR_OK) {
        status = qr_states_make_first(simulation);
    }
    qr_paging_settle(simulation);
    return status == QR_OK ? qr_servers_create(simulation) : status;
}

qr_status qr_run_deck(const qr_run_options *options, qr_run_outcome *outcome)
{
    qr_simulation simulation;
    memset(&simulation, 0, sizeof simulation);
    simulation.options = options;
    simulation.window = MPI_WIN_NULL;
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    *outcome = (qr_run_outcome){.speaks = rank == 0};
    qr_status status = qr_simulation_read_deck(&simulation);
    if (status == QR_OK) {
        status = qr_simulation_check(&simulation);
    }
    if (status == QR_OK) {
        status =
            qr_comm_create(simulation.deck->comm.ranks_per_node, simulation.deck->io.ranks_per_node, &simulation.comm);
    }
    if (status == QR_OK) {
        qr_log_configure(simulation.comm->me.part == 0, options->quiet);
    }
    if (status == QR_OK && options->dry_run) {
        status = qr_simulation_plan(&simulation);
        qr_simulation_clear(&simulation);
        return status;
    }
    if (status == QR_OK) {
        status = qr_simulation_build(&simulation);
        qr_signals_install(); /* until here a signal just ends the process: nothing is lost */
    }
    if (status == QR_OK) {
        status = prepare(&simulation);
    }
    if (status == QR_OK && simulation.ended_already) {
        qr_ended_report(&simulation);
        print_decision(&simulation);
    } else if (status == QR_OK) {
        status = serve_and_step(&simulation);
        if (status == QR_OK) {
            qr_report_end(&simulation);
            print_decision(&simulation);
        }
    }
    if (simulation.must_abort) {
        outcome->speaks = !simulation.silent;
        outcome->must_abort = true;
        return status;
    }
    outcome->exit_fast = qr_io_must_exit_fast();
    outcome->resumable = status == QR_OK && is_resumable(&simulation);
    qr_simulation_clear(&simulation);
    if (status == QR_DEVICE || status == QR_TRANSIENT) { /* its libraries may not be ready for an orderly end */
        outcome->exit_fast = true;
    }
    return status;
}
