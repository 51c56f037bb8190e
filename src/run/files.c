/* What a run reads from files besides the deck. World rank 0 reads; parts get their share by message. */
#include "run/simulation.h"

#include "base/log.h"
#include "base/memory.h"
#include "io/source.h"
#include "network/edge_file.h"

#include <stdlib.h>
#include <string.h>

static qr_status read_table(const qr_simulation *simulation, qr_edge_table *table)
{
    const qr_deck *deck = simulation->deck;
    qr_io_source *opened = NULL;
    qr_status status = qr_io_source_open(deck->network.file, &opened);
    if (status != QR_OK) {
        return status;
    }
    qr_edge_source source = {.name = deck->network.file, .context = opened, .read = qr_io_source_read};
    status = qr_edge_table_read(&source, deck->network.directed, table);
    qr_io_source_close(opened);
    if (status == QR_OK && deck->agents.count > 0 && deck->agents.count != table->facts.agents) {
        status = qr_deck_complain(deck, "agents.count", "the edge list %s has %lld agents, not %lld",
                                  deck->network.file, (long long)table->facts.agents, (long long)deck->agents.count);
        qr_edge_table_clear(table);
    }
    return status;
}

/* Every arc by the part that owns its seeing end: counts[n_parts] and the arcs grouped by part. */
static qr_status group_arcs(const qr_edge_table *table, bool directed, int64_t n_agents, int n_parts, int64_t *counts,
                            qr_edge **out)
{
    int64_t n_arcs = directed ? table->n_edges : 2 * table->n_edges;
    qr_edge *arcs = NULL;
    int64_t *next = NULL;
    qr_status status = qr_allocate((size_t)n_arcs, sizeof *arcs, "edges by part", (void **)&arcs);
    if (status == QR_OK) {
        status = qr_allocate((size_t)n_parts, sizeof *next, "edges by part", (void **)&next);
    }
    if (status != QR_OK) {
        free(arcs);
        return status;
    }
    for (int64_t i = 0; i < table->n_edges; i++) {
        counts[qr_partition_owner(n_agents, n_parts, table->edges[i].from)]++;
        if (!directed) {
            counts[qr_partition_owner(n_agents, n_parts, table->edges[i].to)]++;
        }
    }
    for (int p = 1; p < n_parts; p++) {
        next[p] = next[p - 1] + counts[p - 1];
    }
    for (int64_t i = 0; i < table->n_edges; i++) {
        qr_edge arc = table->edges[i];
        arcs[next[qr_partition_owner(n_agents, n_parts, arc.from)]++] = arc;
        if (!directed) {
            arcs[next[qr_partition_owner(n_agents, n_parts, arc.to)]++] = (qr_edge){arc.to, arc.from};
        }
    }
    free(next);
    *out = arcs;
    return QR_OK;
}

qr_status qr_simulation_read_edges(qr_simulation *simulation, qr_edge **mine, int64_t *n_mine)
{
    qr_comm *comm = simulation->comm;
    qr_edge_table table;
    memset(&table, 0, sizeof table);
    qr_edge *arcs = NULL;
    int64_t *counts = NULL;
    qr_status status = QR_OK;
    if (comm->rank == 0) {
        status = qr_allocate((size_t)comm->n_parts, sizeof(int64_t), "edges by part", (void **)&counts);
        if (status == QR_OK) {
            status = read_table(simulation, &table);
        }
        if (status == QR_OK) {
            status = group_arcs(&table, simulation->deck->network.directed, table.facts.agents, comm->n_parts, counts,
                                &arcs);
        }
        simulation->facts = table.facts;
    }
    status = qr_comm_agree(comm->world, status);
    if (status == QR_OK) {
        MPI_Bcast(&simulation->facts, (int)sizeof simulation->facts, MPI_BYTE, 0, comm->world);
        simulation->spec.n_agents = simulation->facts.agents;
        void *share = NULL;
        status = qr_comm_scatter(comm, arcs, counts, sizeof(qr_edge), &share, n_mine);
        if (status == QR_OK) {
            *mine = share;
        }
    }
    qr_edge_table_clear(&table);
    free(arcs);
    free(counts);
    return status;
}

qr_status qr_simulation_read_initial(qr_simulation *simulation, uint8_t **mine)
{
    qr_comm *comm = simulation->comm;
    const qr_deck *deck = simulation->deck;
    uint8_t *votes = NULL;
    int64_t *counts = NULL;
    qr_status status = QR_OK;
    if (comm->rank == 0) {
        status = qr_io_read_votes(deck->agents.file, simulation->spec.n_agents, deck->agents.options, &votes);
        if (status == QR_OK) {
            status = qr_allocate((size_t)comm->n_parts, sizeof(int64_t), "votes by part", (void **)&counts);
        }
        for (int p = 0; status == QR_OK && p < comm->n_parts; p++) {
            counts[p] = qr_partition_range(simulation->spec.n_agents, comm->n_parts, p).count;
        }
    }
    status = qr_comm_agree(comm->world, status);
    if (status == QR_OK) {
        void *share = NULL;
        int64_t n = 0;
        status = qr_comm_scatter(comm, votes, counts, 1, &share, &n);
        if (status == QR_OK) {
            *mine = share;
        }
    }
    free(votes);
    free(counts);
    return status;
}

qr_status qr_simulation_read_weights(qr_simulation *simulation, float **weights)
{
    const qr_deck *deck = simulation->deck;
    int64_t count = qr_model_weight_count(deck);
    float *values = NULL;
    qr_status status = qr_allocate((size_t)count, sizeof(float), "neural weights", (void **)&values);
    if (status == QR_OK && simulation->comm->rank == 0) {
        status = qr_io_read_weights(deck->model.weights, deck->agents.options, deck->model.state_dim,
                                    deck->model.hidden, values);
    }
    status = qr_comm_agree(simulation->comm->world, status);
    if (status != QR_OK) {
        free(values);
        return status;
    }
    MPI_Bcast(values, (int)count, MPI_FLOAT, 0, simulation->comm->world);
    *weights = values;
    return QR_OK;
}
