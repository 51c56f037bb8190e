/* Who sees whom.
 *
 * A network is known to each compute rank only where its own agents are concerned. Votes of other ranks' agents that
 * own agents see are the halo. A rank's votes lie in one view: [halo before | own agents | halo after]; neighbour lists
 * and lattice offsets count in view positions. Complete networks have no halo: agents there see the global tally.
 *
 * - Lattices and rings store no edges. Their halo is the ids just before and just after the own block, wrapping around:
 *   view position v holds agent (own.first - before + v) mod N. `before` is a multiple of 64, so that own agents
 *   start at a word of a bit-packed view. Halos of a tiny lattice may wrap onto the own block, or around the lattice
 *   several times; then several view positions hold the same agent.
 * - Lists are compressed rows of view positions. Their halo is the remote neighbours in ascending id, behind the own
 *   agents; `before` is 0.
 *
 * Neighbours of an agent are always visited in a fixed order (lattice: ascending (dz, dy, dx) of the neighbourhood,
 * open borders leave out what is missing; ring: -k/2..-1, +1..+k/2; lists: ascending id), whatever the number of ranks.
 * A periodic axis of size 2 has the same agent on both sides; it is visited, and counts, twice.
 *
 * Random graphs are made from network.seed alone, each part making the edges of its own agents:
 *
 * - random_regular: stubs paired up at random, self loops and repeated edges mended by random switches: simple, exactly
 *   regular, asymptotically uniform (Bollobas 1980, McKay and Wormald 1990). Small and dense graphs: a circulant graph
 *   shuffled by random switches.
 * - erdos_renyi: every pair with probability mean_degree / (n - 1), independently (Gilbert 1959).
 * - small_world: Watts and Strogatz 1998, all edges rewired at once: each of the k/2 edges that an agent starts on the
 *   ring moves, with probability `rewire`, to a uniform agent other than itself, those k/2 and its other moved edges.
 *   Edges that coincide are kept once: about k^2/8 edges fewer in the whole graph.
 * - scale_free: Barabasi and Albert 1999 from a complete graph of attach + 1 agents, communication-free after Sanders
 *   and Schulz 2016. Targets that an agent draws twice are kept once: a few edges fewer near the oldest agents. */
#ifndef QR_NETWORK_NETWORK_H
#define QR_NETWORK_NETWORK_H

#include "base/status.h"
#include "deck/deck.h"
#include "lattice.h"
#include "network/partition.h"

#include <stdbool.h>
#include <stdint.h>

enum { QR_MAX_LATTICE_DEGREE = 26, QR_MAX_COLOURS = UINT16_MAX };

typedef struct qr_edge {
    int64_t from;
    int64_t to;
} qr_edge;

/* What a reader or a generator found out about the whole graph; -1 where nobody counted. */
typedef struct qr_network_facts {
    int64_t agents;
    int64_t edges;      /* undirected: pairs; directed: arcs; after self loops and duplicates are dropped */
    int64_t degree_sum; /* undirected: 2 x edges; directed: arcs */
    int64_t components; /* weakly connected; edge lists only */
    int64_t self_loops; /* dropped */
    int64_t duplicates; /* dropped */
} qr_network_facts;

/* The global description, the same on every rank. Made from a deck by qr_network_spec_from_deck. */
typedef struct qr_network_spec {
    qr_network_kind kind;
    int64_t n_agents;
    int dims;        /* lattices: 2 or 3; ring: 1 */
    int64_t size[3]; /* x, y, z; agent id = x + size[0] * (y + size[1] * z) */
    qr_neighbourhood neighbours;
    bool periodic;
    int64_t degree;
    double mean_degree;
    double rewire;
    int64_t attach;
    bool directed;
    uint64_t seed;
} qr_network_spec;

/* Sparse rows: the neighbours of own agent i are neighbour[row[i] .. row[i + 1]). */
typedef struct qr_rows {
    int64_t *row;        /* [n_own + 1] */
    uint32_t *neighbour; /* [row[n_own]] view positions */
} qr_rows;

/* A run of consecutive positions. */
typedef struct qr_run {
    int64_t start;
    int64_t count;
} qr_run;

/* `count` votes from position `from` of a received message to view position `to`. */
typedef struct qr_place {
    int64_t from;
    int64_t to;
    int64_t count;
} qr_place;

/* What is exchanged with one part: each vote once. peer may be the own part (a lattice that wraps onto itself). */
typedef struct qr_halo_peer {
    int peer;
    int64_t send_count; /* votes */
    int64_t n_send;
    qr_run *send; /* runs in own-agent index space, in the order in which they are sent (ascending) */
    int64_t recv_count;
    int64_t n_place;
    qr_place *place;
} qr_halo_peer;

typedef struct qr_halo {
    int n_peers;
    qr_halo_peer *peers; /* ascending peer */
} qr_halo;

/* One part's share of the network. Owns rows, halo and colours. */
typedef struct qr_network {
    qr_network_spec spec;
    int n_parts;
    int part;
    qr_range own;
    int64_t before; /* view positions in front of the own agents: own agent i is at view position before + i */
    int64_t view;   /* length of the view: before + own.count + after */
    qr_rows rows;   /* NULL pointers for complete networks, rings and lattices */
    qr_halo halo;
    int32_t n_colours;     /* lists: colours of the whole network; 0 until qr_network_set_colours */
    uint16_t *colour;      /* [own.count] likewise, else NULL */
    int64_t max_degree;    /* over own agents */
    int64_t own_edge_ends; /* sum of own agents' degrees */
} qr_network;

/* Moves edges to the parts that asked for them; supplied by whoever can talk to other parts. Collective over parts.
 * send: edges grouped by target part (the own one too), counts[n_parts]. *recv is malloc'd, edges in ascending source
 * part. A part that fails between two exchanges does not enter the next one: its caller must end the others. */
typedef struct qr_edge_exchange {
    void *context;
    qr_status (*exchange)(void *context, const qr_edge *send, const int64_t *counts, qr_edge **recv, int64_t *n_recv);
} qr_edge_exchange;

/* Checks every network key against the others and agents.count; complains with the key's place. For edge lists
 * n_agents stays 0 until the file has been read; its reader then compares agents.count, where it is set. */
qr_status qr_network_spec_from_deck(const qr_deck *deck, qr_network_spec *out);

/* Builds part `part` of `n_parts` of a network that needs no file. Collective over parts when `exchange` is used
 * (random graphs); exchange may be NULL when n_parts is 1. The result depends on spec alone, not on n_parts. */
qr_status qr_network_build(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                           qr_network **out);

/* The same from this part's edges: every arc (from = own agent, to = any agent it sees), both directions already
 * present for undirected graphs; sorted here, duplicates and self loops dropped. `edges` is taken over and freed. */
qr_status qr_network_from_edges(const qr_network_spec *spec, int n_parts, int part, qr_edge *edges, int64_t n_edges,
                                const qr_edge_exchange *exchange, qr_network **out);

/* Independent colours for sequential sweeps: no two neighbours share one, so that the agents of a colour can move at
 * once as if they moved one after the other. Sets n_colours and colour of networks of lists; rings and lattices have
 * theirs by arithmetic (qr_lattice_colour), whether this was called or not. On lists, agents in the order of a hash of
 * (network.seed, agent) take the smallest colour that no neighbour before them has: the same for any number of parts,
 * and never more colours than the largest degree plus one. Collective over parts for lists; exchange may be NULL when
 * n_parts is 1. QR_RESOURCE beyond QR_MAX_COLOURS. Complete and directed networks have no colours. */
qr_status qr_network_set_colours(qr_network *network, const qr_edge_exchange *exchange);

/* Turns of a sweep over this network, by arithmetic or as they were set; 0: it has no colours. */
int qr_network_colours(const qr_network *network);

/* Bytes that the colours of n_own agents take. */
int64_t qr_network_colour_bytes(const qr_network_spec *spec, int64_t n_own);

void qr_network_destroy(qr_network *network);

/* "complete", "ring", ... as in decks. */
const char *qr_network_kind_name(qr_network_kind kind);

/* True for ring, lattice2d and lattice3d. */
bool qr_network_is_lattice(qr_network_kind kind);

/* Number of neighbours of an agent away from borders: ring degree, 4/8, 6/26; 0 for other kinds. */
int qr_lattice_degree(const qr_network_spec *spec);

/* The same as kernels/lattice.h has it, colours set; dims 0 for other kinds. */
qr_lattice qr_lattice_of(const qr_network_spec *spec);

/* Distances in the view of the neighbours of an agent away from borders, in the fixed order. Returns how many; 0 for
 * other kinds and for rings of a larger degree than QR_LATTICE_MAX_OFFSETS. out: [QR_LATTICE_MAX_OFFSETS]. */
int qr_lattice_offsets(const qr_network_spec *spec, qr_lattice_offset *out);

/* View positions of the neighbours of own agent `index` (0-based in the block) of a ring or lattice, in the fixed
 * order. out: [qr_lattice_degree] int64_t, or [degree] for a ring. Returns how many there are. */
int64_t qr_lattice_neighbours(const qr_network *network, int64_t index, int64_t *out);

/* Own agents (0-based in the block) of a ring or lattice all of whose neighbours stand among the own positions of the
 * view, none in the halo: as many as there are in a row from one multiple of QR_AGENTS_PER_WORD to another, whole
 * layers (2-D: rows) apart from that. count 0: none, or another kind of network. */
qr_range qr_lattice_interior(const qr_network *network);

/* Independent colours for sequential sweeps of a ring or lattice: no two neighbours share one. Number of colours, and
 * the colour of an agent (global id). */
int qr_lattice_colours(const qr_network_spec *spec);
int qr_lattice_colour(const qr_network_spec *spec, int64_t agent);

/* Bytes a part of the network will need for edges and halo lists while it is built, as an estimate for --dry-run. An
 * edge list whose file has not been read counts nothing. */
int64_t qr_network_bytes_estimate(const qr_network_spec *spec, int n_parts);

/* Of it, the neighbour lists of n_own agents, about: what a device holds as well. 0 where there are none. */
int64_t qr_network_list_bytes(const qr_network_spec *spec, int64_t n_own);

#endif
