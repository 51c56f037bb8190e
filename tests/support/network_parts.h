/* All parts of a network in one process: one thread a part, edges exchanged through shared memory. */
#ifndef TEST_NETWORK_PARTS_H
#define TEST_NETWORK_PARTS_H

#include "base/permutation.h"
#include "base/status.h"
#include "network/internal.h"
#include "network/network.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 12 };

typedef struct parts_shared {
    int n_parts;
    pthread_barrier_t barrier;
    const qr_edge *send[MAX_PARTS];
    const int64_t *counts[MAX_PARTS];
} parts_shared;

typedef struct parts_member {
    parts_shared *shared;
    int part;
    const qr_network_spec *spec;
    qr_edge *edges; /* when given, the network is built from them */
    int64_t n_edges;
    int64_t most_colours; /* when not 0, the network is there already and gets its colours */
    qr_status status;
    qr_network *network;
    char message[512];
} parts_member;

static inline qr_status parts_exchange(void *context, const qr_edge *send, const int64_t *counts, qr_edge **recv,
                                       int64_t *n_recv)
{
    parts_member *member = context;
    parts_shared *shared = member->shared;
    shared->send[member->part] = send;
    shared->counts[member->part] = counts;
    pthread_barrier_wait(&shared->barrier);
    int64_t total = 0;
    for (int p = 0; p < shared->n_parts; p++) {
        total += shared->counts[p][member->part];
    }
    qr_edge *edges = malloc((size_t)(total + 1) * sizeof(qr_edge));
    int64_t at = 0;
    for (int p = 0; p < shared->n_parts; p++) {
        const qr_edge *from = shared->send[p];
        for (int q = 0; from != NULL && q < member->part; q++) {
            from += shared->counts[p][q];
        }
        const int64_t n = shared->counts[p][member->part];
        if (n > 0) {
            memcpy(edges + at, from, (size_t)n * sizeof(qr_edge));
        }
        at += n;
    }
    pthread_barrier_wait(&shared->barrier);
    *recv = edges;
    *n_recv = total;
    return QR_OK;
}

static inline void *parts_run(void *argument)
{
    parts_member *member = argument;
    const qr_edge_exchange exchange = {.context = member, .exchange = parts_exchange};
    const int n = member->shared->n_parts;
    if (member->most_colours == QR_MAX_COLOURS) {
        member->status = qr_network_set_colours(member->network, &exchange);
    } else if (member->most_colours > 0) {
        member->status = qr_colour_lists(member->network, &exchange, member->most_colours);
    } else if (member->edges != NULL) {
        member->status = qr_network_from_edges(member->spec, n, member->part, member->edges, member->n_edges, &exchange,
                                               &member->network);
    } else {
        member->status = qr_network_build(member->spec, n, member->part, &exchange, &member->network);
    }
    snprintf(member->message, sizeof member->message, "%s", qr_error_message());
    return NULL;
}

/* A thread for each member, all at once. Returns how many failed, and prints why. */
static inline int parts_work(parts_shared *shared, parts_member *members, int n_parts)
{
    pthread_t threads[MAX_PARTS];
    pthread_barrier_init(&shared->barrier, NULL, (unsigned)n_parts);
    if (n_parts == 1) {
        parts_run(&members[0]);
    } else {
        for (int p = 0; p < n_parts; p++) {
            pthread_create(&threads[p], NULL, parts_run, &members[p]);
        }
        for (int p = 0; p < n_parts; p++) {
            pthread_join(threads[p], NULL);
        }
    }
    pthread_barrier_destroy(&shared->barrier);
    int failures = 0;
    for (int p = 0; p < n_parts; p++) {
        if (members[p].status != QR_OK) {
            printf("part %d of %d: %s\n", p, n_parts, members[p].message);
            failures++;
        }
    }
    return failures;
}

/* Gives all parts their colours, at most so many. Returns 0, or prints why not. */
static inline int parts_colour(int n_parts, int64_t most, qr_network **networks)
{
    parts_shared shared = {.n_parts = n_parts};
    parts_member members[MAX_PARTS];
    for (int p = 0; p < n_parts; p++) {
        members[p] = (parts_member){.shared = &shared, .part = p, .network = networks[p], .most_colours = most};
    }
    return parts_work(&shared, members, n_parts);
}

/* Builds all parts; arcs may be NULL, or hold every arc of the graph in any order. Returns 0, or prints why not. */
static inline int parts_build(const qr_network_spec *spec, int n_parts, const qr_edge *arcs, int64_t n_arcs,
                              qr_network **out)
{
    parts_shared shared = {.n_parts = n_parts};
    parts_member members[MAX_PARTS];
    for (int p = 0; p < n_parts; p++) {
        members[p] = (parts_member){.shared = &shared, .part = p, .spec = spec};
        if (arcs != NULL) {
            members[p].edges = malloc((size_t)(n_arcs + 1) * sizeof(qr_edge));
            for (int64_t i = 0; i < n_arcs; i++) {
                if (qr_partition_owner(spec->n_agents, n_parts, arcs[i].from) == p) {
                    members[p].edges[members[p].n_edges++] = arcs[i];
                }
            }
        }
    }
    const int failures = parts_work(&shared, members, n_parts);
    for (int p = 0; p < n_parts; p++) {
        out[p] = members[p].network;
    }
    return failures;
}

static inline void parts_destroy(qr_network **networks, int n_parts)
{
    for (int p = 0; p < n_parts; p++) {
        qr_network_destroy(networks[p]);
        networks[p] = NULL;
    }
}

static inline const qr_halo_peer *parts_peer(const qr_network *network, int peer)
{
    for (int i = 0; i < network->halo.n_peers; i++) {
        if (network->halo.peers[i].peer == peer) {
            return &network->halo.peers[i];
        }
    }
    return NULL;
}

/* Exchanges halos where each agent's vote is its own id. views[p]: [view] ids, -1 where nothing arrived; freed by the
 * caller. Returns the number of broken promises (printed). */
static inline int parts_exchange_ids(qr_network *const *networks, int n_parts, int64_t **views)
{
    int broken = 0;
    for (int p = 0; p < n_parts; p++) {
        const qr_network *network = networks[p];
        views[p] = malloc((size_t)(network->view + 1) * sizeof(int64_t));
        for (int64_t v = 0; v < network->view; v++) {
            views[p][v] = -1;
        }
        for (int64_t i = 0; i < network->own.count; i++) {
            views[p][network->before + i] = network->own.first + i;
        }
    }
    for (int p = 0; p < n_parts; p++) {
        const qr_network *receiver = networks[p];
        int previous = -1;
        for (int i = 0; i < receiver->halo.n_peers; i++) {
            const qr_halo_peer *in = &receiver->halo.peers[i];
            broken += in->peer <= previous || in->peer >= n_parts;
            previous = in->peer;
            const qr_halo_peer *from = parts_peer(networks[in->peer], p);
            const int64_t sent = from == NULL ? 0 : from->send_count;
            if (sent != in->recv_count) {
                printf("part %d expects %lld votes from %d, which sends %lld\n", p, (long long)in->recv_count, in->peer,
                       (long long)sent);
                broken++;
                continue;
            }
            int64_t *message = malloc((size_t)(sent + 1) * sizeof(int64_t));
            int64_t n = 0;
            int64_t last = -1;
            for (int64_t r = 0; from != NULL && r < from->n_send; r++) {
                broken += from->send[r].start <= last || from->send[r].count < 1; /* ascending, so each vote once */
                for (int64_t j = 0; j < from->send[r].count && n < sent; j++) {
                    last = from->send[r].start + j;
                    broken += last >= networks[in->peer]->own.count;
                    message[n++] = networks[in->peer]->own.first + last;
                }
            }
            broken += n != sent;
            for (int64_t r = 0; r < in->n_place; r++) {
                for (int64_t j = 0; j < in->place[r].count; j++) {
                    const int64_t at = in->place[r].from + j;
                    const int64_t to = in->place[r].to + j;
                    if (at < 0 || at >= sent || to < 0 || to >= receiver->view || views[p][to] != -1) {
                        broken++;
                    } else {
                        views[p][to] = message[at];
                    }
                }
            }
            free(message);
        }
        for (int q = 0; q < n_parts; q++) { /* nobody sends to a part that does not expect it */
            const qr_halo_peer *out = parts_peer(networks[q], p);
            broken += out != NULL && out->send_count > 0 && parts_peer(receiver, q) == NULL;
        }
    }
    return broken;
}

/* Random numbers for choosing cases. */
static inline uint64_t case_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return qr_mix64(*state);
}

static inline int64_t case_between(uint64_t *state, int64_t low, int64_t high)
{
    return low + (int64_t)(case_random(state) % (uint64_t)(high - low + 1));
}

#endif
