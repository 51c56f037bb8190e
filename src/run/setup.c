/* From a deck to a backend that is ready to step. */
#include "run/describe.h"
#include "run/paging.h"
#include "run/simulation.h"

#include "base/log.h"
#include "base/memory.h"
#include "io/source.h"
#include "quorate_version.h"

#include <stdlib.h>
#include <string.h>

/* Rank 0 reads the text; everybody parses it, and comes to the same outcome. */
qr_status qr_simulation_read_deck(qr_simulation *simulation)
{
    const qr_run_options *options = simulation->options;
    char *text = NULL;
    size_t n = 0;
    int rank = 0;
    qr_status status = QR_OK;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        status = qr_io_read_text(options->deck_path, QR_DECK_READ_BYTES, &text, &n);
    }
    status = qr_comm_agree(MPI_COMM_WORLD, status);
    if (status != QR_OK) {
        free(text);
        return status;
    }
    uint64_t bytes = n;
    MPI_Bcast(&bytes, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    if (rank != 0) {
        status = qr_allocate((size_t)bytes + 1, 1, "the deck", (void **)&text);
    }
    status = qr_comm_agree(MPI_COMM_WORLD, status);
    if (status == QR_OK) {
        MPI_Bcast(text, (int)bytes, MPI_CHAR, 0, MPI_COMM_WORLD);
        status = qr_deck_parse(options->deck_path, text, (size_t)bytes, options->overrides, options->n_overrides,
                               &simulation->deck);
        status = qr_comm_agree(MPI_COMM_WORLD, status);
    }
    free(text);
    return status;
}

/* The resolved deck with a head that says what wrote it. */
qr_status qr_simulation_make_used_text(qr_simulation *simulation)
{
    char *dump = NULL;
    qr_status status = qr_deck_dump(simulation->deck, &dump);
    if (status != QR_OK) {
        return status;
    }
    size_t bytes = strlen(dump) + 256;
    status = qr_allocate(bytes, 1, "the resolved deck", (void **)&simulation->used_text);
    if (status == QR_OK) {
        (void)snprintf(simulation->used_text, bytes,
                       "# Every value of the run, and who set it. This is a deck: quorate run runs it again.\n"
                       "# quorate %s, revision %s\n%s",
                       QR_VERSION, QR_REVISION, dump);
    }
    free(dump);
    return status;
}

/* Checks that need neither the size of the network nor any file. */
qr_status qr_simulation_check_values(qr_simulation *simulation)
{
    qr_deck *deck = simulation->deck;
    qr_network_spec *spec = &simulation->spec;
    qr_rule_kind rule = QR_RULE_VOTER;
    qr_status status = qr_network_spec_from_deck(deck, spec);
    if (status == QR_OK && spec->n_agents > 0 && deck->agents.count == 0) {
        deck->agents.count = spec->n_agents;
        qr_deck_mark_derived(deck, "agents.count");
    }
    status = status == QR_OK ? qr_model_check(deck, &rule) : status;
    status = status == QR_OK ? qr_tiers_check(deck) : status;
    return status == QR_OK ? qr_paging_check(deck) : status;
}

qr_status qr_simulation_check(qr_simulation *simulation)
{
    qr_status status = qr_simulation_check_values(simulation);
    simulation->facts = (qr_network_facts){simulation->spec.n_agents, -1, -1, -1, -1, -1};
    return qr_comm_agree(MPI_COMM_WORLD, status);
}

static qr_status build_network(qr_simulation *simulation)
{
    qr_comm *comm = simulation->comm;
    qr_edge *edges = NULL;
    int64_t n_edges = 0;
    qr_status status = QR_OK;
    if (simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
        status = qr_simulation_read_edges(simulation, &edges, &n_edges);
        if (status != QR_OK) {
            free(edges);
            return status;
        }
    }
    if (comm->me.role == QR_ROLE_COMPUTE) {
        qr_edge_exchange exchange = qr_comm_edge_exchange(comm);
        if (simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
            status = qr_network_from_edges(&simulation->spec, comm->n_parts, comm->me.part, edges, n_edges, &exchange,
                                           &simulation->network);
        } else {
            status = qr_network_build(&simulation->spec, comm->n_parts, comm->me.part, &exchange, &simulation->network);
        }
        if (status == QR_OK && qr_model_sweeps(simulation->deck)) {
            status = qr_network_set_colours(simulation->network, &exchange);
        }
        /* A part that failed half-way leaves the others waiting for its edges: they would never hear of it. */
        if (!qr_comm_meet(comm->compute, status == QR_OK ? -1.0 : QR_ABORT_AFTER_S)) {
            simulation->must_abort = true;
            return status;
        }
    }
    return qr_comm_agree(comm->world, status);
}

/* Edges and degrees of the whole graph, where parts have counted them. Collective over the compute ranks. */
static int64_t gather_facts(qr_simulation *simulation)
{
    int64_t max_degree = simulation->network->max_degree;
    int64_t ends = simulation->network->own_edge_ends;
    MPI_Allreduce(MPI_IN_PLACE, &max_degree, 1, MPI_INT64_T, MPI_MAX, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, &ends, 1, MPI_INT64_T, MPI_SUM, simulation->comm->compute);
    if (simulation->facts.edges < 0 && simulation->spec.kind != QR_NETWORK_COMPLETE) {
        simulation->facts.degree_sum = ends;
        simulation->facts.edges = ends / 2;
    }
    return max_degree;
}

/* Before memory is taken, so that it is taken near the device, too. Where it cannot be done it is merely slower. */
static void bind_near_device(qr_simulation *simulation, int place)
{
    char address[32] = "";
    if (simulation->ops->device_address == NULL ||
        simulation->ops->device_address(place, address, sizeof address) != QR_OK) {
        return;
    }
    simulation->cores_near_device = qr_machine_bind_near(address);
    if (simulation->deck->compute.threads == 0 && simulation->cores_near_device > 0 &&
        simulation->threads > simulation->cores_near_device) {
        simulation->threads = simulation->cores_near_device;
    }
}

static qr_status build_backend(qr_simulation *simulation, const float *weights, const uint8_t *file_votes)
{
    double at = qr_now_s();
    int64_t max_degree = gather_facts(simulation);
    qr_model_network described = qr_describe_network(&simulation->spec, max_degree);
    qr_status status = qr_model_create(simulation->deck, &described, weights, &simulation->model);
    status = qr_comm_agree(simulation->comm->compute, status);
    if (status != QR_OK) {
        return status;
    }
    int place = 0;
    int places = qr_ranks_of_machine(simulation->comm, &place);
    simulation->threads = qr_threads_of_rank(simulation);
    status = qr_choose_backend(simulation);
    if (status != QR_OK) {
        return status;
    }
    bind_near_device(simulation, place);
    qr_warn_of_gpu_tier(simulation);
    qr_backend_setup setup = {.model = simulation->model,
                              .network = simulation->network,
                              .file_votes = file_votes,
                              .threads = simulation->threads,
                              .place = place,
                              .places = places,
                              .timeout_s = simulation->deck->compute.timeout,
                              .device_times = simulation->deck->compute.device_times,
                              .must_give_up = qr_comm_hears_alarm,
                              .context = simulation->comm};
    status = qr_paging_decide(simulation, &setup);
    if (status != QR_OK) {
        return status;
    }
    qr_warn_of_memory(simulation, simulation->model);
    status = simulation->ops->create(&setup, &simulation->backend);
    if (status != QR_OK) {
        status = qr_error_context(status, "compute rank %d", simulation->comm->me.part);
    }
    status = qr_comm_agree(simulation->comm->compute, status);
    if (status == QR_OK) {
        status = qr_choose_exchange(simulation);
    }
    if (status == QR_OK) {
        status = qr_halo_exchange_create(simulation->comm, simulation->network, simulation->ops, simulation->backend,
                                         simulation->device_messages, &simulation->exchange);
        status = qr_comm_agree(simulation->comm->compute, status);
    }
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_START, at);
    return status;
}

qr_status qr_simulation_build(qr_simulation *simulation)
{
    qr_deck *deck = simulation->deck;
    float *weights = NULL;
    uint8_t *file_votes = NULL;
    double at = qr_now_s();
    qr_status status = build_network(simulation);
    if (simulation->must_abort) {
        return status;
    }
    (void)qr_timer_lap(&simulation->timers, QR_PHASE_NETWORK, at);
    if (status == QR_OK && simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
        simulation->spec.mean_degree = (double)simulation->facts.degree_sum / (double)simulation->spec.n_agents;
    }
    if (status == QR_OK && deck->agents.count == 0) {
        deck->agents.count = simulation->spec.n_agents;
        qr_deck_mark_derived(deck, "agents.count");
    }
    if (status == QR_OK) {
        status = qr_comm_agree(simulation->comm->world, qr_simulation_make_used_text(simulation));
    }
    if (status == QR_OK && qr_model_weight_count(deck) > 0 && deck->model.weights[0] != '\0') {
        status = qr_simulation_read_weights(simulation, &weights);
    }
    if (status == QR_OK && deck->agents.initial == QR_INITIAL_FILE) {
        status = qr_simulation_read_initial(simulation, &file_votes);
    }
    if (status == QR_OK) {
        if (simulation->comm->me.role == QR_ROLE_COMPUTE) {
            status = build_backend(simulation, weights, file_votes);
        }
        if (!simulation->must_abort) {
            status = qr_comm_agree(simulation->comm->world, status);
        }
    }
    free(weights);
    free(file_votes);
    return status;
}

void qr_simulation_clear(qr_simulation *simulation)
{
    qr_paging_clear_pager(simulation);
    qr_servers_clear(simulation);
    qr_halo_exchange_destroy(simulation->exchange);
    if (simulation->backend != NULL) {
        simulation->ops->destroy(simulation->backend);
    }
    qr_network_destroy(simulation->network);
    qr_model_destroy(simulation->model);
    qr_comm_destroy(simulation->comm);
    free(simulation->used_text);
    qr_deck_destroy(simulation->deck);
}
