/* A dry run: everything that a run would read is read, what it would write is looked at, and memory is estimated. */
#include "base/log.h"
#include "run/describe.h"
#include "run/report_paging.h"
#include "run/simulation.h"

#include <stdlib.h>

static qr_status look_at_edges(qr_simulation *simulation)
{
    qr_edge *edges = NULL;
    int64_t n_edges = 0;
    qr_status status = qr_simulation_read_edges(simulation, &edges, &n_edges);
    free(edges);
    if (status == QR_OK) {
        simulation->spec.mean_degree = (double)simulation->facts.degree_sum / (double)simulation->spec.n_agents;
    }
    return status;
}

/* Rank 0 looks, as it does in a run; votes are checked one by one, but not kept. */
static qr_status look_at_files(qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    qr_status status = QR_OK;
    if (qr_model_weight_count(deck) > 0 && deck->model.weights[0] != '\0') {
        float *weights = NULL;
        status = qr_simulation_read_weights(simulation, &weights);
        free(weights);
    }
    if (status == QR_OK && simulation->comm->rank == 0) {
        if (deck->agents.initial == QR_INITIAL_FILE) {
            status = qr_io_read_votes(deck->agents.file, simulation->spec.n_agents, deck->agents.options, NULL);
        }
        if (status == QR_OK) {
            status = qr_io_probe_directory(deck->output.directory, deck->output.overwrite);
        }
    }
    return qr_comm_agree(simulation->comm->world, status);
}

qr_status qr_simulation_plan(qr_simulation *simulation)
{
    qr_comm *comm = simulation->comm;
    qr_model *model = NULL;
    qr_status status = QR_OK;
    if (simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
        status = look_at_edges(simulation);
    }
    if (status == QR_OK) {
        /* No rule of a network of lists needs its largest degree to say how much memory it takes. */
        qr_model_network described = qr_describe_network(&simulation->spec, 0);
        status = qr_comm_agree(comm->world, qr_model_create(simulation->deck, &described, NULL, &model));
    }
    if (status == QR_OK) {
        status = look_at_files(simulation);
    }
    if (status == QR_OK) {
        if (comm->me.role == QR_ROLE_COMPUTE) {
            qr_foresee_backend(simulation);
            status = qr_paging_foresee(simulation, model);
        }
        status = qr_comm_agree(comm->world, status);
    }
    if (status == QR_OK && comm->me.role == QR_ROLE_COMPUTE && comm->me.part == 0) {
        qr_warn_of_gpu_tier(simulation);
        qr_warn_of_memory(simulation, model);
        qr_print_plan(simulation, model);
        if (model->state_dim > 0 && simulation->paging.n_pages > 0 && qr_paging_is_told(simulation->deck)) {
            qr_paging_print_plan(simulation, &simulation->paging);
        }
        qr_info("dry run: the deck and the files it names are valid, and results can go to %s; nothing was written",
                simulation->deck->output.directory);
    }
    qr_model_destroy(model);
    return status;
}
