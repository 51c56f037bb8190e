#include "network/internal.h"

#include "base/memory.h"

#include <stdlib.h>

/* Drops self loops and duplicates of sorted edges; returns how many are left. */
static int64_t compact(qr_edge *edges, int64_t n)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        const bool repeated = kept > 0 && edges[kept - 1].from == edges[i].from && edges[kept - 1].to == edges[i].to;
        if (edges[i].from != edges[i].to && !repeated) {
            edges[kept++] = edges[i];
        }
    }
    return kept;
}

static qr_status check_edges(const qr_network *network, const qr_edge *edges, int64_t n)
{
    const qr_range own = network->own;
    for (int64_t i = 0; i < n; i++) {
        if (edges[i].from < own.first || edges[i].from >= own.first + own.count || edges[i].to < 0 ||
            edges[i].to >= network->spec.n_agents) {
            return qr_error(QR_INTERNAL, "part %d was given the edge %lld -> %lld, which is not its own", network->part,
                            (long long)edges[i].from, (long long)edges[i].to);
        }
    }
    return QR_OK;
}

/* Fills rows from sorted edges. What is left in edges[0 .. return) is each remote agent once, ascending, in `to`. */
static qr_status fill_rows(qr_network *network, qr_edge *edges, int64_t n, int64_t *n_remote)
{
    const qr_range own = network->own;
    void *memory;
    qr_status status = qr_allocate((size_t)own.count + 1, sizeof(int64_t), "network rows", &memory);
    if (status != QR_OK) {
        return status;
    }
    network->rows.row = memory;
    status = qr_allocate((size_t)n, sizeof(uint32_t), "network neighbours", &memory);
    if (status != QR_OK) {
        return status;
    }
    network->rows.neighbour = memory;

    /* Own neighbours are known at once; of the others, {agent, arc} is kept and sorted by agent, which gives each agent
     * its place in the halo without a look-up table. */
    int64_t *row = network->rows.row;
    uint32_t *neighbour = network->rows.neighbour;
    int64_t remote = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t index = edges[i].from - own.first;
        const int64_t to = edges[i].to;
        row[index + 1]++;
        if (to >= own.first && to < own.first + own.count) {
            neighbour[i] = (uint32_t)(to - own.first);
        } else {
            edges[remote++] = (qr_edge){.from = to, .to = i};
        }
    }
    for (int64_t i = 0; i < own.count; i++) {
        network->max_degree = row[i + 1] > network->max_degree ? row[i + 1] : network->max_degree;
        row[i + 1] += row[i];
    }
    network->own_edge_ends = n;

    qr_edges_sort(edges, remote);
    int64_t distinct = 0;
    for (int64_t i = 0; i < remote; i++) {
        const qr_edge arc = edges[i];
        if (distinct == 0 || edges[distinct - 1].to != arc.from) {
            edges[distinct++] = (qr_edge){.from = network->part, .to = arc.from};
        }
        neighbour[arc.to] = (uint32_t)(own.count + distinct - 1);
    }
    *n_remote = distinct;
    network->before = 0;
    network->view = own.count + distinct;
    if (network->view > UINT32_MAX) {
        return qr_error(
            QR_RESOURCE,
            "part %d of the network sees %lld agents, more than the %lld that its lists can name: use more ranks",
            network->part, (long long)network->view, (long long)UINT32_MAX);
    }
    return QR_OK;
}

/* Runs of own indices from asked-for agents, ascending. */
static qr_status make_runs(const qr_edge *asked, int64_t n, int64_t first, qr_halo_peer *peer)
{
    int64_t n_runs = 0;
    for (int64_t i = 0; i < n; i++) {
        n_runs += i == 0 || asked[i].to != asked[i - 1].to + 1;
    }
    void *memory;
    qr_status status = qr_allocate((size_t)n_runs, sizeof(qr_run), "halo lists", &memory);
    if (status != QR_OK) {
        return status;
    }
    peer->send = memory;
    peer->n_send = n_runs;
    peer->send_count = n;
    int64_t run = -1;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || asked[i].to != asked[i - 1].to + 1) {
            peer->send[++run] = (qr_run){.start = asked[i].to - first, .count = 0};
        }
        peer->send[run].count++;
    }
    return QR_OK;
}

static qr_status check_asked(const qr_network *network, const qr_edge *asked, int64_t n)
{
    const qr_range own = network->own;
    for (int64_t i = 0; i < n; i++) {
        const bool ascending = i == 0 || asked[i].from > asked[i - 1].from ||
                               (asked[i].from == asked[i - 1].from && asked[i].to > asked[i - 1].to);
        if (!ascending || asked[i].from < 0 || asked[i].from >= network->n_parts || asked[i].to < own.first ||
            asked[i].to >= own.first + own.count) {
            return qr_error(QR_INTERNAL, "part %d was asked for agent %lld in a wrong way", network->part,
                            (long long)asked[i].to);
        }
    }
    return QR_OK;
}

/* recv_counts: votes wanted from each part; asked: what the other parts want, sorted by (part, agent). */
static qr_status fill_halo(qr_network *network, const int64_t *recv_counts, const qr_edge *asked, int64_t n_asked)
{
    int n_peers = 0;
    int64_t next = 0;
    for (int other = 0; other < network->n_parts; other++) {
        const int64_t start = next;
        while (next < n_asked && asked[next].from == other) {
            next++;
        }
        n_peers += next > start || recv_counts[other] > 0;
    }
    void *memory;
    qr_status status = qr_allocate((size_t)n_peers, sizeof(qr_halo_peer), "halo lists", &memory);
    if (status != QR_OK) {
        return status;
    }
    network->halo.peers = memory;

    int64_t position = network->own.count;
    next = 0;
    for (int other = 0; other < network->n_parts && status == QR_OK; other++) {
        const int64_t start = next;
        while (next < n_asked && asked[next].from == other) {
            next++;
        }
        if (next == start && recv_counts[other] == 0) {
            continue;
        }
        qr_halo_peer *peer = &network->halo.peers[network->halo.n_peers++];
        peer->peer = other;
        if (next > start) {
            status = make_runs(asked + start, next - start, network->own.first, peer);
        }
        if (status == QR_OK && recv_counts[other] > 0) {
            status = qr_allocate(1, sizeof(qr_place), "halo lists", &memory);
            if (status == QR_OK) {
                peer->place = memory;
                peer->place[0] = (qr_place){.from = 0, .to = position, .count = recv_counts[other]};
                peer->n_place = 1;
                peer->recv_count = recv_counts[other];
                position += recv_counts[other];
            }
        }
    }
    return status;
}

qr_status qr_network_from_edges(const qr_network_spec *spec, int n_parts, int part, qr_edge *edges, int64_t n_edges,
                                const qr_edge_exchange *exchange, qr_network **out)
{
    qr_network *network = NULL;
    void *counts = NULL;
    qr_edge *asked = NULL;
    int64_t n_asked = 0;
    int64_t n_remote = 0;

    qr_status status = qr_network_new(spec, n_parts, part, &network);
    if (status != QR_OK) {
        goto cleanup;
    }
    status = check_edges(network, edges, n_edges);
    if (status != QR_OK) {
        goto cleanup;
    }
    qr_edges_sort(edges, n_edges);
    status = fill_rows(network, edges, compact(edges, n_edges), &n_remote);
    if (status != QR_OK || n_parts == 1) {
        goto cleanup;
    }

    status = qr_allocate((size_t)n_parts, sizeof(int64_t), "halo lists", &counts);
    if (status != QR_OK) {
        goto cleanup;
    }
    int64_t *recv_counts = counts;
    for (int64_t i = 0; i < n_remote; i++) {
        recv_counts[qr_partition_owner(spec->n_agents, n_parts, edges[i].to)]++;
    }
    status = exchange->exchange(exchange->context, edges, recv_counts, &asked, &n_asked);
    if (status != QR_OK) {
        goto cleanup;
    }
    free(edges);
    edges = NULL;
    status = check_asked(network, asked, n_asked);
    if (status == QR_OK) {
        status = fill_halo(network, recv_counts, asked, n_asked);
    }

cleanup:
    free(edges);
    free(asked);
    free(counts);
    if (status == QR_OK) {
        *out = network;
    } else {
        qr_network_destroy(network);
    }
    return status;
}
