/* Erdos-Renyi, small-world and scale-free graphs. Each part makes the edges that its own agents start and sends the
 * other direction to its owner; what an agent draws depends on the seed and its id alone. */
#include "network/internal.h"
#include "network/random.h"

#include "base/memory.h"

#include <stdlib.h>

/* ---- Erdos-Renyi: G(n, p) of Gilbert 1959 with p = mean degree / (n - 1).
 *
 * Every pair belongs to one of its agents: agent i owns those with the (n - 1) / 2 agents that follow it on a circle
 * (and, for even n, half of the agents own the pair across). Candidates are taken in chunks with about 16 expected
 * edges; the number of edges in a chunk is binomial, drawn by inversion, and their places are a uniform subset (Floyd's
 * algorithm, Bentley and Floyd 1987). Only + - * / are used, so that all machines agree. */

enum { CHUNK_EDGES = 16, MAX_DRAWS = 200 };

/* Cumulative distribution of the number of edges among `size` candidates. */
typedef struct binomial {
    int64_t size;
    int last;
    double cumulative[MAX_DRAWS + 1];
} binomial;

static void binomial_make(binomial *table, int64_t size, double p)
{
    /* Relative weights from w(0) = 1, normalised by their sum, which is (1 - p)^-size, about exp(16). */
    const double odds = p / (1.0 - p);
    double weight = 1.0;
    double sum = 0.0;
    int last = 0;
    table->size = size;
    for (int k = 0; k <= MAX_DRAWS && k <= size; k++) {
        sum += weight;
        table->cumulative[k] = sum;
        last = k;
        weight *= (double)(size - k) / (double)(k + 1) * odds;
    }
    for (int k = 0; k < last; k++) {
        table->cumulative[k] /= sum;
    }
    table->cumulative[last] = 1.0;
    table->last = last;
}

static int binomial_draw(const binomial *table, double u)
{
    int k = 0;
    while (k < table->last && u >= table->cumulative[k]) {
        k++;
    }
    return k;
}

typedef struct erdos_renyi {
    const qr_network_spec *spec;
    double p;
    bool dense; /* look at every pair */
    int64_t chunk;
    binomial tables[3]; /* a whole chunk, and the rest of a row with and without the pair across */
} erdos_renyi;

static qr_status link_chunk(const erdos_renyi *maker, int64_t agent, int64_t first, const binomial *table,
                            qr_arcs *arcs)
{
    const qr_network_spec *spec = maker->spec;
    const int draws = binomial_draw(table, qr_graph_unit(qr_graph_draw(spec->seed, QR_STREAM_DEGREE, agent, first)));
    int64_t chosen[MAX_DRAWS];
    for (int k = 0; k < draws; k++) {
        const int64_t limit = table->size - draws + k; /* Floyd: 0 .. limit, or limit itself if that was drawn before */
        int64_t place = qr_graph_below(qr_graph_draw(spec->seed, QR_STREAM_TARGET, agent, first * 256 + k), limit + 1);
        for (int j = 0; j < k; j++) {
            if (chosen[j] == place) {
                place = limit;
                break;
            }
        }
        chosen[k] = place;
        qr_status status = qr_arcs_add_pair(arcs, agent, (agent + 1 + first * maker->chunk + place) % spec->n_agents);
        if (status != QR_OK) {
            return status;
        }
    }
    return QR_OK;
}

static qr_status link_row(const erdos_renyi *maker, int64_t agent, qr_arcs *arcs)
{
    const qr_network_spec *spec = maker->spec;
    const int64_t n = spec->n_agents;
    const int64_t candidates = (n - 1) / 2 + (n % 2 == 0 && agent < n / 2);
    qr_status status = QR_OK;
    if (maker->dense) {
        for (int64_t d = 0; d < candidates && status == QR_OK; d++) {
            if (qr_graph_unit(qr_graph_draw(spec->seed, QR_STREAM_COIN, agent, d)) < maker->p) {
                status = qr_arcs_add_pair(arcs, agent, (agent + 1 + d) % n);
            }
        }
        return status;
    }
    const int64_t whole = candidates / maker->chunk;
    for (int64_t c = 0; c < whole && status == QR_OK; c++) {
        status = link_chunk(maker, agent, c, &maker->tables[0], arcs);
    }
    const int64_t rest = candidates % maker->chunk;
    if (rest > 0 && status == QR_OK) {
        status = link_chunk(maker, agent, whole, &maker->tables[maker->tables[1].size == rest ? 1 : 2], arcs);
    }
    return status;
}

qr_status qr_generate_erdos_renyi(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                  qr_arcs *arcs)
{
    const qr_range own = qr_partition_range(spec->n_agents, n_parts, part);
    qr_status status = QR_OK;
    if (spec->n_agents > 1 && spec->mean_degree > 0) {
        erdos_renyi maker = {.spec = spec, .p = spec->mean_degree / (double)(spec->n_agents - 1)};
        maker.dense = maker.p > 0.25;
        if (!maker.dense) {
            const int64_t most = (spec->n_agents - 1) / 2 + 1;
            const double chunk = CHUNK_EDGES / maker.p;
            maker.chunk = chunk < (double)most ? (int64_t)chunk : most;
            if (maker.chunk < 1) {
                return qr_error(QR_INTERNAL, "edges with probability %g cannot be drawn", maker.p);
            }
            binomial_make(&maker.tables[0], maker.chunk, maker.p);
            binomial_make(&maker.tables[1], (most - 1) % maker.chunk, maker.p);
            binomial_make(&maker.tables[2], most % maker.chunk, maker.p);
        }
        for (int64_t i = own.first; i < own.first + own.count && status == QR_OK; i++) {
            status = link_row(&maker, i, arcs);
        }
    }
    return status == QR_OK ? qr_arcs_deliver(arcs, spec, n_parts, exchange) : status;
}

/* ---- Small world: the ring of Watts and Strogatz 1998, all edges rewired at once.
 *
 * Agent i starts edges to i + 1 .. i + k / 2; each is moved, with probability `rewire`, to a uniform agent that is
 * neither i nor one of those k / 2, nor chosen by another edge of i. */

enum { REDRAWS = 32 };

static bool is_among(const int64_t *values, int64_t n, int64_t value)
{
    for (int64_t i = 0; i < n; i++) {
        if (values[i] == value) {
            return true;
        }
    }
    return false;
}

static qr_status rewire_agent(const qr_network_spec *spec, int64_t agent, int64_t *moved, qr_arcs *arcs)
{
    const int64_t n = spec->n_agents;
    const int64_t half = spec->degree / 2;
    const int64_t alternatives =
        n - 1 - half; /* at distances half + 1 .. n - 1; at least `half` of them, as degree < n */
    int64_t n_moved = 0;
    qr_status status = QR_OK;
    for (int64_t j = 1; j <= half && status == QR_OK; j++) {
        int64_t distance = j;
        if (qr_graph_unit(qr_graph_draw(spec->seed, QR_STREAM_COIN, agent, j)) < spec->rewire) {
            int64_t choice = 0;
            for (int64_t attempt = 0; attempt < REDRAWS; attempt++) {
                choice = qr_graph_below(qr_graph_draw(spec->seed, QR_STREAM_TARGET, agent, j * REDRAWS + attempt),
                                        alternatives);
                if (!is_among(moved, n_moved, choice)) {
                    break;
                }
            }
            while (is_among(moved, n_moved, choice)) {
                choice = (choice + 1) % alternatives;
            }
            moved[n_moved++] = choice;
            distance = half + 1 + choice;
        }
        status = qr_arcs_add_pair(arcs, agent, (agent + distance) % n);
    }
    return status;
}

qr_status qr_generate_small_world(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                  qr_arcs *arcs)
{
    const qr_range own = qr_partition_range(spec->n_agents, n_parts, part);
    void *moved;
    qr_status status = qr_allocate((size_t)(spec->degree / 2), sizeof(int64_t), "rewired edges", &moved);
    if (status != QR_OK) {
        return status;
    }
    for (int64_t i = own.first; i < own.first + own.count && status == QR_OK; i++) {
        status = rewire_agent(spec, i, moved, arcs);
    }
    free(moved);
    return status == QR_OK ? qr_arcs_deliver(arcs, spec, n_parts, exchange) : status;
}

/* ---- Scale free: Barabasi and Albert 1999, from a complete graph of m + 1 agents, m = attach.
 *
 * Batagelj and Brandes 2005 keep a list of all edge ends and attach to a uniform entry of it. Sanders and Schulz 2016
 * store nothing: an entry that was itself drawn is found by repeating its draw. Slots: m (m + 1) ends of the first
 * graph, m for each of its agents; then for each further edge the new agent (even) and its target (odd). A new agent
 * draws among the slots before its own, so it never finds itself. */
static int64_t slot_agent(const qr_network_spec *spec, int64_t slot)
{
    const int64_t m = spec->attach;
    const int64_t start = m * (m + 1);
    while (slot >= start) {
        const int64_t edge = (slot - start) / 2;
        if ((slot - start) % 2 == 0) {
            return m + 1 + edge / m;
        }
        slot = qr_graph_below(qr_graph_draw(spec->seed, QR_STREAM_ATTACH, slot, 0), start + 2 * m * (edge / m));
    }
    return slot / m;
}

qr_status qr_generate_scale_free(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                                 qr_arcs *arcs)
{
    const qr_range own = qr_partition_range(spec->n_agents, n_parts, part);
    const int64_t m = spec->attach;
    qr_status status = QR_OK;
    for (int64_t i = own.first; i < own.first + own.count && status == QR_OK; i++) {
        const int64_t edges = i <= m ? i : m;
        for (int64_t j = 0; j < edges && status == QR_OK; j++) {
            const int64_t target = i <= m ? j : slot_agent(spec, m * (m + 1) + 2 * ((i - m - 1) * m + j) + 1);
            status = qr_arcs_add_pair(arcs, i, target);
        }
    }
    return status == QR_OK ? qr_arcs_deliver(arcs, spec, n_parts, exchange) : status;
}
