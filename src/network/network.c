#include "network/network.h"

#include "base/memory.h"
#include "network/internal.h"

#include <stdlib.h>

qr_status qr_network_new(const qr_network_spec *spec, int n_parts, int part, qr_network **out)
{
    if (n_parts < 1 || part < 0 || part >= n_parts || spec->n_agents < 1) {
        return qr_error(QR_INTERNAL, "a network of %lld agents has no part %d of %d", (long long)spec->n_agents, part,
                        n_parts);
    }
    void *memory;
    qr_status status = qr_allocate(1, sizeof(qr_network), "network", &memory);
    if (status != QR_OK) {
        return status;
    }
    qr_network *network = memory;
    network->spec = *spec;
    network->n_parts = n_parts;
    network->part = part;
    network->own = qr_partition_range(spec->n_agents, n_parts, part);
    *out = network;
    return QR_OK;
}

static qr_status generate(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                          qr_arcs *arcs)
{
    switch (spec->kind) {
    case QR_NETWORK_RANDOM_REGULAR: return qr_generate_regular(spec, n_parts, part, exchange, arcs);
    case QR_NETWORK_ERDOS_RENYI: return qr_generate_erdos_renyi(spec, n_parts, part, exchange, arcs);
    case QR_NETWORK_SMALL_WORLD: return qr_generate_small_world(spec, n_parts, part, exchange, arcs);
    case QR_NETWORK_SCALE_FREE: return qr_generate_scale_free(spec, n_parts, part, exchange, arcs);
    default:
        return qr_error(QR_INTERNAL, "a network of kind %s is not made by a generator",
                        qr_network_kind_name(spec->kind));
    }
}

qr_status qr_network_build(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                           qr_network **out)
{
    if (spec->kind != QR_NETWORK_COMPLETE && !qr_network_is_lattice(spec->kind)) {
        if (n_parts > 1 && exchange == NULL) {
            return qr_error(QR_INTERNAL, "a network of kind %s in %d parts needs an exchange",
                            qr_network_kind_name(spec->kind), n_parts);
        }
        qr_arcs arcs = {0};
        qr_status status = generate(spec, n_parts, part, exchange, &arcs);
        if (status != QR_OK) {
            qr_arcs_clear(&arcs);
            return status;
        }
        return qr_network_from_edges(spec, n_parts, part, arcs.edges, (int64_t)arcs.count, exchange, out);
    }

    qr_network *network = NULL;
    qr_status status = qr_network_new(spec, n_parts, part, &network);
    if (status != QR_OK || network == NULL) {
        return status;
    }
    if (spec->kind == QR_NETWORK_COMPLETE) {
        network->view = network->own.count;
        network->max_degree = network->own.count > 0 ? spec->n_agents - 1 : 0;
        /* Nobody walks these edges, so a sum beyond 64 bits is only cut. */
        if (__builtin_mul_overflow(network->own.count, spec->n_agents - 1, &network->own_edge_ends)) {
            network->own_edge_ends = INT64_MAX;
        }
    } else {
        status = qr_lattice_build(network);
    }
    if (status != QR_OK) {
        qr_network_destroy(network);
        return status;
    }
    *out = network;
    return QR_OK;
}

void qr_network_destroy(qr_network *network)
{
    if (network == NULL) {
        return;
    }
    for (int i = 0; i < network->halo.n_peers; i++) {
        free(network->halo.peers[i].send);
        free(network->halo.peers[i].place);
    }
    free(network->halo.peers);
    free(network->rows.row);
    free(network->rows.neighbour);
    free(network->colour);
    free(network);
}

qr_status qr_arcs_add(qr_arcs *arcs, int64_t from, int64_t to)
{
    if (arcs->count == arcs->capacity) {
        void *grown = arcs->edges;
        qr_status status = qr_grow(&grown, &arcs->capacity, arcs->count + 1, sizeof(qr_edge), "edges");
        if (status != QR_OK) {
            return status;
        }
        arcs->edges = grown;
    }
    arcs->edges[arcs->count++] = (qr_edge){.from = from, .to = to};
    return QR_OK;
}

qr_status qr_arcs_add_pair(qr_arcs *arcs, int64_t a, int64_t b)
{
    qr_status status = qr_arcs_add(arcs, a, b);
    return status == QR_OK ? qr_arcs_add(arcs, b, a) : status;
}

qr_status qr_arcs_deliver(qr_arcs *arcs, const qr_network_spec *spec, int n_parts, const qr_edge_exchange *exchange)
{
    if (n_parts == 1) {
        return QR_OK;
    }
    void *memory;
    qr_status status = qr_allocate((size_t)n_parts, sizeof(int64_t), "edge counts", &memory);
    if (status != QR_OK) {
        return status;
    }
    /* Parts own ascending blocks, so sorting by agent groups by part. */
    int64_t *counts = memory;
    qr_edges_sort(arcs->edges, (int64_t)arcs->count);
    for (size_t i = 0; i < arcs->count; i++) {
        counts[qr_partition_owner(spec->n_agents, n_parts, arcs->edges[i].from)]++;
    }
    qr_edge *received = NULL;
    int64_t n_received = 0;
    status = exchange->exchange(exchange->context, arcs->edges, counts, &received, &n_received);
    free(counts);
    if (status != QR_OK) {
        return status;
    }
    free(arcs->edges);
    *arcs = (qr_arcs){.edges = received, .count = (size_t)n_received, .capacity = (size_t)n_received};
    return QR_OK;
}

void qr_arcs_clear(qr_arcs *arcs)
{
    free(arcs->edges);
    *arcs = (qr_arcs){0};
}
