/* Shared by the files of this folder only. */
#ifndef QR_NETWORK_INTERNAL_H
#define QR_NETWORK_INTERNAL_H

#include "network/network.h"

/* Sorts by (from, to), both not negative, without further memory (an in-place most-significant-digit radix sort;
 * McIlroy, Bostic & McIlroy 1993, "Engineering radix sort"). */
void qr_edges_sort(qr_edge *edges, int64_t n);

/* A zeroed network with own range, spec and part filled in. */
qr_status qr_network_new(const qr_network_spec *spec, int n_parts, int part, qr_network **out);

/* Sets before, view and halo of a ring or lattice. */
qr_status qr_lattice_build(qr_network *network);

/* Arcs that a part makes; `edges` is malloc'd. */
typedef struct qr_arcs {
    qr_edge *edges;
    size_t count;
    size_t capacity;
} qr_arcs;

qr_status qr_arcs_add(qr_arcs *arcs, int64_t from, int64_t to);

/* Both directions of a pair. */
qr_status qr_arcs_add_pair(qr_arcs *arcs, int64_t a, int64_t b);

/* Gives every arc to the owner of its `from` and leaves in `arcs` those of own agents. Collective. */
qr_status qr_arcs_deliver(qr_arcs *arcs, const qr_network_spec *spec, int n_parts, const qr_edge_exchange *exchange);

void qr_arcs_clear(qr_arcs *arcs);

/* Generators: arcs from own agents, complete in both directions. Collective; the graph depends on spec alone. */
qr_status qr_generate_regular(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                              qr_arcs *arcs);
qr_status qr_generate_erdos_renyi(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                  qr_arcs *arcs);
qr_status qr_generate_small_world(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                  qr_arcs *arcs);
qr_status qr_generate_scale_free(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                 qr_arcs *arcs);

/* qr_network_set_colours of a network of lists, with at most `most` colours, 1 .. QR_MAX_COLOURS. Collective. */
qr_status qr_colour_lists(qr_network *network, const qr_edge_exchange *exchange, int64_t most);

/* False when no method here makes a random regular graph of this size in sensible time. */
bool qr_regular_is_feasible(int64_t n_agents, int64_t degree);

#endif
