/* Random regular graphs.
 *
 * Large graphs are paired up (Bollobas 1980): every agent has `degree` stubs, and a random matching of all stubs makes
 * the edges. The matching is one keyed permutation, so each agent finds its neighbours without asking anybody. The few
 * self loops and repeated edges (about degree^2 / 4 in the whole graph) are told to every part, and every part mends
 * them by the same random switches; the result is simple and asymptotically uniform (McKay and Wormald 1990, "Uniform
 * generation of random regular graphs of moderate degree", J. Algorithms 11).
 *
 * Small or dense graphs are made whole on every part: a circulant graph, shuffled by 20 random switches an edge (the
 * Markov chain of Rao, Jana and Bandyopadhyay 1996), of which the complement is taken where that is sparser. */
#include "network/internal.h"
#include "network/random.h"

#include "base/memory.h"

#include <stdlib.h>

enum {
    SMALL_ENDS = 100000,    /* made whole below this many edge ends */
    LARGEST_ENDS = 4000000, /* or up to this many where the degree rules pairing out */
    MAX_PAIRED_DEGREE = 128,
    LARGEST_DENSE = 100000000, /* ends of a graph made as a complement */
    SPARSE = 16,               /* pairing needs at least this many agents per neighbour */
    SWITCHES_PER_EDGE = 20,
    MAX_ATTEMPTS = 100000
};

static bool takes_complement(int64_t n, int64_t degree)
{
    return degree > n - 1 - degree;
}

static int64_t sparser_degree(int64_t n, int64_t degree)
{
    return takes_complement(n, degree) ? n - 1 - degree : degree;
}

static bool is_paired(int64_t n, int64_t degree)
{
    return degree <= MAX_PAIRED_DEGREE && n / SPARSE >= degree && n > SMALL_ENDS / degree;
}

bool qr_regular_is_feasible(int64_t n_agents, int64_t degree)
{
    return is_paired(n_agents, degree) ||
           (n_agents <= LARGEST_ENDS / (sparser_degree(n_agents, degree) + 1) && n_agents <= LARGEST_DENSE / degree);
}

/* ---- Small graphs, whole on each part ---- */

/* A set of pairs (open addressing, linear probing, deletion by shifting back). */
typedef struct pair_set {
    uint64_t *slots; /* 0: empty */
    uint64_t mask;
} pair_set;

static uint64_t pair_key(int64_t a, int64_t b)
{
    const uint64_t low = (uint64_t)(a < b ? a : b);
    const uint64_t high = (uint64_t)(a < b ? b : a);
    return (low * ((uint64_t)1 << 32)) + high; /* a != b, so never 0 */
}

/* The slot of a key, or the empty one where it would go. */
static uint64_t pair_slot(const pair_set *set, uint64_t key)
{
    uint64_t slot = qr_mix64(key) & set->mask;
    while (set->slots[slot] != 0 && set->slots[slot] != key) {
        slot = (slot + 1) & set->mask;
    }
    return slot;
}

static bool pair_has(const pair_set *set, int64_t a, int64_t b)
{
    return set->slots[pair_slot(set, pair_key(a, b))] != 0;
}

static void pair_insert(pair_set *set, int64_t a, int64_t b)
{
    const uint64_t key = pair_key(a, b);
    set->slots[pair_slot(set, key)] = key;
}

static void pair_remove(pair_set *set, int64_t a, int64_t b)
{
    uint64_t hole = pair_slot(set, pair_key(a, b));
    for (uint64_t slot = (hole + 1) & set->mask; set->slots[slot] != 0; slot = (slot + 1) & set->mask) {
        const uint64_t home = qr_mix64(set->slots[slot]) & set->mask;
        if (((slot - home) & set->mask) >= ((slot - hole) & set->mask)) {
            set->slots[hole] = set->slots[slot];
            hole = slot;
        }
    }
    set->slots[hole] = 0;
}

static int64_t make_circulant(int64_t n, int64_t degree, qr_edge *edges, pair_set *set)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 1; d <= degree / 2; d++) {
            edges[count++] = (qr_edge){.from = i, .to = (i + d) % n};
        }
        if (degree % 2 != 0 && i < n / 2) {
            edges[count++] = (qr_edge){.from = i, .to = i + n / 2};
        }
    }
    for (int64_t e = 0; e < count; e++) {
        pair_insert(set, edges[e].from, edges[e].to);
    }
    return count;
}

/* a - b, c - d become a - c, b - d where that keeps the graph simple. */
static void shuffle(uint64_t seed, qr_edge *edges, int64_t count, pair_set *set)
{
    for (int64_t s = 0; s < SWITCHES_PER_EDGE * count; s++) {
        const uint64_t bits = qr_graph_draw(seed, QR_STREAM_SWITCH, s, 0);
        qr_edge *first = &edges[qr_graph_below(qr_graph_draw(seed, QR_STREAM_SWITCH, s, 1), count)];
        qr_edge *second = &edges[qr_graph_below(qr_graph_draw(seed, QR_STREAM_SWITCH, s, 2), count)];
        const int64_t a = first->from;
        const int64_t b = first->to;
        const int64_t c = bits & 1 ? second->from : second->to;
        const int64_t d = bits & 1 ? second->to : second->from;
        if (a == c || a == d || b == c || b == d || pair_has(set, a, c) || pair_has(set, b, d)) {
            continue;
        }
        pair_remove(set, a, b);
        pair_remove(set, c, d);
        pair_insert(set, a, c);
        pair_insert(set, b, d);
        *first = (qr_edge){.from = a, .to = c};
        *second = (qr_edge){.from = b, .to = d};
    }
}

static qr_status keep_own(const qr_network_spec *spec, qr_range own, const qr_edge *edges, int64_t count,
                          const pair_set *set, qr_arcs *arcs)
{
    qr_status status = QR_OK;
    const int64_t end = own.first + own.count;
    if (takes_complement(spec->n_agents, spec->degree)) {
        for (int64_t i = own.first; i < end; i++) {
            for (int64_t j = 0; j < spec->n_agents && status == QR_OK; j++) {
                if (j != i && !pair_has(set, i, j)) {
                    status = qr_arcs_add(arcs, i, j);
                }
            }
        }
        return status;
    }
    for (int64_t e = 0; e < count && status == QR_OK; e++) {
        if (edges[e].from >= own.first && edges[e].from < end) {
            status = qr_arcs_add(arcs, edges[e].from, edges[e].to);
        }
        if (status == QR_OK && edges[e].to >= own.first && edges[e].to < end) {
            status = qr_arcs_add(arcs, edges[e].to, edges[e].from);
        }
    }
    return status;
}

static qr_status make_whole(const qr_network_spec *spec, qr_range own, qr_arcs *arcs)
{
    const int64_t degree = sparser_degree(spec->n_agents, spec->degree);
    const int64_t ends = spec->n_agents * degree;
    pair_set set = {.mask = 15};
    while ((int64_t)set.mask < ends) { /* at most half full */
        set.mask = set.mask * 2 + 1;
    }
    void *edges = NULL;
    void *slots = NULL;
    qr_status status = qr_allocate((size_t)ends / 2, sizeof(qr_edge), "regular graph", &edges);
    if (status == QR_OK) {
        status = qr_allocate((size_t)set.mask + 1, sizeof(uint64_t), "regular graph", &slots);
    }
    if (status == QR_OK) {
        set.slots = slots;
        const int64_t count = make_circulant(spec->n_agents, degree, edges, &set);
        shuffle(spec->seed, edges, count, &set);
        status = keep_own(spec, own, edges, count, &set, arcs);
    }
    free(edges);
    free(slots);
    return status;
}

/* ---- Large graphs: stubs paired up ---- */

/* The graph before mending: neighbours of any agent, computed. */
typedef struct pairing {
    int64_t n;
    int64_t degree;
    uint64_t seed;
    qr_permutation stubs; /* the stub at each place; places 2 i and 2 i + 1 are tied; stub / degree is the agent */
} pairing;

static int64_t agent_at(const pairing *graph, int64_t place)
{
    return (int64_t)qr_permutation_apply(&graph->stubs, (uint64_t)place) / graph->degree;
}

static void neighbours_of(const pairing *graph, int64_t agent, int64_t *out)
{
    for (int64_t j = 0; j < graph->degree; j++) {
        const int64_t stub = agent * graph->degree + j;
        out[j] = agent_at(graph, (int64_t)qr_permutation_invert(&graph->stubs, (uint64_t)stub) ^ 1);
    }
}

static int times_in(const int64_t *values, int64_t n, int64_t value)
{
    int times = 0;
    for (int64_t i = 0; i < n; i++) {
        times += values[i] == value;
    }
    return times;
}

/* Self loops of own agents, and pairs (agent, larger id) that occur more than once, once for each copy too many. */
static qr_status find_faults(const pairing *graph, qr_range own, const qr_arcs *arcs, qr_arcs *faults)
{
    int64_t seen[MAX_PAIRED_DEGREE];
    for (int64_t i = 0; i < own.count; i++) {
        const qr_edge *row = arcs->edges + i * graph->degree;
        for (int64_t j = 0; j < graph->degree; j++) {
            const int before = times_in(seen, j, row[j].to);
            const bool loop = row[j].to == row[j].from && before % 2 != 0; /* a loop takes two stubs */
            seen[j] = row[j].to;
            if (loop || (row[j].to > row[j].from && before > 0)) {
                qr_status status = qr_arcs_add(faults, row[j].from, row[j].to);
                if (status != QR_OK) {
                    return status;
                }
            }
        }
    }
    return QR_OK;
}

/* Every part gets every fault, sorted. */
static qr_status share_faults(qr_arcs *faults, int n_parts, const qr_edge_exchange *exchange)
{
    if (n_parts > 1) {
        void *counts = NULL;
        void *copies = NULL;
        qr_edge *received = NULL;
        int64_t n_received = 0;
        qr_status status = qr_allocate((size_t)n_parts, sizeof(int64_t), "edge counts", &counts);
        if (status == QR_OK) {
            status = qr_allocate((size_t)n_parts * faults->count, sizeof(qr_edge), "faulty edges", &copies);
        }
        if (status == QR_OK) {
            for (int p = 0; p < n_parts; p++) {
                ((int64_t *)counts)[p] = (int64_t)faults->count;
                for (size_t i = 0; i < faults->count; i++) {
                    ((qr_edge *)copies)[(size_t)p * faults->count + i] = faults->edges[i];
                }
            }
            status = exchange->exchange(exchange->context, copies, counts, &received, &n_received);
        }
        free(counts);
        free(copies);
        if (status != QR_OK) {
            return status;
        }
        free(faults->edges);
        *faults = (qr_arcs){.edges = received, .count = (size_t)n_received, .capacity = (size_t)n_received};
    }
    qr_edges_sort(faults->edges, (int64_t)faults->count);
    return QR_OK;
}

/* Neighbour lists of the agents that switches have touched, the same on every part. */
typedef struct touched {
    int64_t *agents;     /* [capacity], -1: empty */
    int64_t *neighbours; /* [capacity][degree] */
    int64_t capacity;    /* a power of two */
} touched;

static qr_status touched_make(touched *table, int64_t most, int64_t degree)
{
    table->capacity = 16;
    while (table->capacity < 2 * most) {
        table->capacity *= 2;
    }
    void *agents = NULL;
    void *neighbours = NULL;
    qr_status status = qr_allocate((size_t)table->capacity, sizeof(int64_t), "mended agents", &agents);
    if (status == QR_OK) {
        status = qr_allocate((size_t)table->capacity, (size_t)degree * sizeof(int64_t), "mended agents", &neighbours);
    }
    table->agents = agents;
    table->neighbours = neighbours;
    for (int64_t i = 0; status == QR_OK && i < table->capacity; i++) {
        table->agents[i] = -1;
    }
    return status;
}

/* Where the agent's current neighbours are kept, or the empty place where they would be. */
static int64_t touched_find(const touched *table, int64_t agent)
{
    int64_t slot = (int64_t)(qr_mix64((uint64_t)agent) & (uint64_t)(table->capacity - 1));
    while (table->agents[slot] >= 0 && table->agents[slot] != agent) {
        slot = (slot + 1) & (table->capacity - 1);
    }
    return slot;
}

static const int64_t *current_neighbours(const pairing *graph, const touched *table, int64_t agent, int64_t *buffer)
{
    const int64_t slot = touched_find(table, agent);
    if (table->agents[slot] == agent) {
        return table->neighbours + slot * graph->degree;
    }
    neighbours_of(graph, agent, buffer);
    return buffer;
}

static int current_times(const pairing *graph, const touched *table, int64_t a, int64_t b)
{
    int64_t buffer[MAX_PAIRED_DEGREE];
    return times_in(current_neighbours(graph, table, a, buffer), graph->degree, b);
}

/* One copy of `old` among the neighbours of `agent` becomes `new_one`. */
static void replace(const pairing *graph, touched *table, int64_t agent, int64_t old, int64_t new_one)
{
    const int64_t slot = touched_find(table, agent);
    int64_t *list = table->neighbours + slot * graph->degree;
    if (table->agents[slot] != agent) {
        table->agents[slot] = agent;
        neighbours_of(graph, agent, list);
    }
    for (int64_t i = 0; i < graph->degree; i++) {
        if (list[i] == old) {
            list[i] = new_one;
            return;
        }
    }
}

/* u - v (a loop, or one copy of a repeated edge) and x - y (an ordinary edge drawn at random) become u - x and v - y.
 */
static qr_status mend(const pairing *graph, touched *table, int64_t which, int64_t u, int64_t v)
{
    for (int64_t attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const int64_t place =
            qr_graph_below(qr_graph_draw(graph->seed, QR_STREAM_REPAIR, which, attempt), graph->n * graph->degree);
        const int64_t x = agent_at(graph, place);
        const int64_t y = agent_at(graph, place ^ 1);
        if (x == u || x == v || y == u || y == v || current_times(graph, table, x, y) != 1 ||
            current_times(graph, table, u, x) != 0 || current_times(graph, table, v, y) != 0) {
            continue;
        }
        replace(graph, table, u, v, x);
        replace(graph, table, v, u, y);
        replace(graph, table, x, y, u);
        replace(graph, table, y, x, v);
        return QR_OK;
    }
    return qr_error(QR_INTERNAL, "a random regular graph of %lld agents with degree %lld could not be completed",
                    (long long)graph->n, (long long)graph->degree);
}

static qr_status make_paired(const qr_network_spec *spec, qr_range own, int n_parts, const qr_edge_exchange *exchange,
                             qr_arcs *arcs)
{
    const int64_t n_stubs = spec->n_agents * spec->degree;
    const pairing graph = {
        .n = spec->n_agents,
        .degree = spec->degree,
        .seed = spec->seed,
        .stubs = qr_permutation_make((uint64_t)n_stubs, qr_graph_draw(spec->seed, QR_STREAM_PERMUTATION, n_stubs, 0))};
    qr_arcs faults = {0};
    touched table = {0};
    void *memory;
    qr_status status = qr_allocate((size_t)own.count, (size_t)spec->degree * sizeof(qr_edge), "edges", &memory);
    if (status != QR_OK) {
        return status;
    }
    arcs->edges = memory;
    arcs->count = arcs->capacity = (size_t)(own.count * spec->degree);
    int64_t list[MAX_PAIRED_DEGREE];
    for (int64_t i = 0; i < own.count; i++) {
        neighbours_of(&graph, own.first + i, list);
        for (int64_t j = 0; j < spec->degree; j++) {
            arcs->edges[i * spec->degree + j] = (qr_edge){.from = own.first + i, .to = list[j]};
        }
    }

    status = find_faults(&graph, own, arcs, &faults);
    if (status == QR_OK) {
        status = share_faults(&faults, n_parts, exchange);
    }
    if (status == QR_OK) {
        status = touched_make(&table, 4 * (int64_t)faults.count, spec->degree);
    }
    for (size_t i = 0; i < faults.count && status == QR_OK; i++) {
        status = mend(&graph, &table, (int64_t)i, faults.edges[i].from, faults.edges[i].to);
    }
    for (int64_t slot = 0; slot < table.capacity && status == QR_OK; slot++) {
        const int64_t index = table.agents[slot] - own.first;
        if (table.agents[slot] >= 0 && index >= 0 && index < own.count) {
            for (int64_t j = 0; j < spec->degree; j++) {
                arcs->edges[index * spec->degree + j].to = table.neighbours[slot * spec->degree + j];
            }
        }
    }
    free(table.agents);
    free(table.neighbours);
    qr_arcs_clear(&faults);
    return status;
}

qr_status qr_generate_regular(const qr_network_spec *spec, int n_parts, int part, const qr_edge_exchange *exchange,
                              qr_arcs *arcs)
{
    const qr_range own = qr_partition_range(spec->n_agents, n_parts, part);
    if (is_paired(spec->n_agents, spec->degree)) {
        return make_paired(spec, own, n_parts, exchange, arcs);
    }
    return make_whole(spec, own, arcs);
}
