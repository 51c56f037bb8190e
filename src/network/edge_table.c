#include "network/edge_table.h"

#include "base/memory.h"
#include "base/permutation.h"
#include "network/internal.h"

#include <stdlib.h>

enum { FIRST_SLOTS = 1024 };

static size_t find_slot(const int64_t *slots, size_t n_slots, int64_t id)
{
    size_t slot = (size_t)qr_mix64((uint64_t)id) & (n_slots - 1);
    while (slots[slot] != -1 && slots[slot] != id) {
        slot = (slot + 1) & (n_slots - 1);
    }
    return slot;
}

static qr_status grow_slots(qr_edge_builder *builder)
{
    const size_t n_slots = builder->n_slots == 0 ? FIRST_SLOTS : 2 * builder->n_slots;
    void *memory;
    qr_status status = qr_allocate(n_slots, sizeof(int64_t), "ids of an edge list", &memory);
    if (status != QR_OK) {
        return status;
    }
    int64_t *slots = memory;
    for (size_t i = 0; i < n_slots; i++) {
        slots[i] = -1;
    }
    for (size_t i = 0; i < builder->n_slots; i++) {
        if (builder->slots[i] != -1) {
            slots[find_slot(slots, n_slots, builder->slots[i])] = builder->slots[i];
        }
    }
    free(builder->slots);
    builder->slots = slots;
    builder->n_slots = n_slots;
    return QR_OK;
}

static qr_status add_id(qr_edge_builder *builder, int64_t id)
{
    if (builder->n_ids >= builder->n_slots / 2) {
        qr_status status = grow_slots(builder);
        if (status != QR_OK) {
            return status;
        }
    }
    const size_t slot = find_slot(builder->slots, builder->n_slots, id);
    if (builder->slots[slot] == -1) {
        builder->slots[slot] = id;
        builder->n_ids++;
    }
    return QR_OK;
}

qr_status qr_edge_builder_add(qr_edge_builder *builder, int64_t from, int64_t to)
{
    qr_status status = QR_OK;
    if (builder->n_edges == builder->capacity) {
        void *grown = builder->edges;
        status = qr_grow(&grown, &builder->capacity, builder->n_edges + 1, sizeof(qr_edge), "edges");
        if (status != QR_OK) {
            return status;
        }
        builder->edges = grown;
    }
    builder->edges[builder->n_edges++] = (qr_edge){.from = from, .to = to};
    status = add_id(builder, from);
    return status == QR_OK ? add_id(builder, to) : status;
}

/* ids: ascending; ranks[slot]: the place of the slot's id among them. */
static qr_status rank_ids(const qr_edge_builder *builder, int64_t **ids, int64_t **ranks)
{
    void *pairs_memory = NULL;
    void *ids_memory = NULL;
    void *ranks_memory = NULL;
    qr_status status = qr_allocate(builder->n_ids, sizeof(qr_edge), "ids of an edge list", &pairs_memory);
    if (status == QR_OK) {
        status = qr_allocate(builder->n_ids, sizeof(int64_t), "ids of an edge list", &ids_memory);
    }
    if (status == QR_OK) {
        status = qr_allocate(builder->n_slots, sizeof(int64_t), "ids of an edge list", &ranks_memory);
    }
    if (status != QR_OK) {
        free(pairs_memory);
        free(ids_memory);
        free(ranks_memory);
        return status;
    }
    qr_edge *pairs = pairs_memory; /* id and slot */
    *ids = ids_memory;
    *ranks = ranks_memory;
    int64_t n = 0;
    for (size_t slot = 0; slot < builder->n_slots; slot++) {
        if (builder->slots[slot] != -1) {
            pairs[n++] = (qr_edge){.from = builder->slots[slot], .to = (int64_t)slot};
        }
    }
    qr_edges_sort(pairs, n);
    for (int64_t i = 0; i < n; i++) {
        (*ids)[i] = pairs[i].from;
        (*ranks)[pairs[i].to] = i;
    }
    free(pairs);
    return QR_OK;
}

/* Renumbers and drops self loops. Undirected pairs become (smaller, 2 * larger + written the other way round), so that
 * sorting brings both directions of a pair together and still tells them apart. Returns how many are left. */
static int64_t renumber(const qr_edge_builder *builder, const int64_t *ranks, bool directed)
{
    int64_t kept = 0;
    for (size_t i = 0; i < builder->n_edges; i++) {
        const qr_edge edge = builder->edges[i];
        if (edge.from == edge.to) {
            continue;
        }
        const int64_t from = ranks[find_slot(builder->slots, builder->n_slots, edge.from)];
        const int64_t to = ranks[find_slot(builder->slots, builder->n_slots, edge.to)];
        if (directed) {
            builder->edges[kept++] = (qr_edge){.from = from, .to = to};
        } else if (from < to) {
            builder->edges[kept++] = (qr_edge){.from = from, .to = 2 * to};
        } else {
            builder->edges[kept++] = (qr_edge){.from = to, .to = 2 * from + 1};
        }
    }
    return kept;
}

/* Drops lines that repeat an earlier one, and counts them; joins the two directions of an undirected pair. */
static int64_t drop_repeats(qr_edge *edges, int64_t n, bool directed, int64_t *repeats)
{
    int64_t kept = 0;
    qr_edge previous = {-1, -1};
    for (int64_t i = 0; i < n; i++) {
        const qr_edge edge = edges[i];
        const int64_t to = directed ? edge.to : edge.to / 2;
        if (edge.from == previous.from && edge.to == previous.to) {
            (*repeats)++;
        } else if (kept == 0 || edges[kept - 1].from != edge.from || edges[kept - 1].to != to) {
            edges[kept++] = (qr_edge){.from = edge.from, .to = to};
        }
        previous = edge;
    }
    return kept;
}

static int64_t root_of(int64_t *parent, int64_t agent)
{
    while (parent[agent] != agent) {
        parent[agent] = parent[parent[agent]];
        agent = parent[agent];
    }
    return agent;
}

/* Union-find with path halving; the smaller root stays, so that the forest is the same for any order of edges. */
static qr_status count_components(const qr_edge_table *table, int64_t *components)
{
    void *memory;
    qr_status status = qr_allocate((size_t)table->facts.agents, sizeof(int64_t), "components", &memory);
    if (status != QR_OK) {
        return status;
    }
    int64_t *parent = memory;
    int64_t n = table->facts.agents;
    for (int64_t i = 0; i < n; i++) {
        parent[i] = i;
    }
    for (int64_t i = 0; i < table->n_edges; i++) {
        const int64_t a = root_of(parent, table->edges[i].from);
        const int64_t b = root_of(parent, table->edges[i].to);
        if (a != b) {
            parent[a > b ? a : b] = a > b ? b : a;
            n--;
        }
    }
    free(parent);
    *components = n;
    return QR_OK;
}

qr_status qr_edge_builder_finish(qr_edge_builder *builder, bool directed, qr_edge_table *out)
{
    qr_edge_table table = {.facts = {.agents = (int64_t)builder->n_ids}};
    int64_t *ranks = NULL;
    qr_status status = rank_ids(builder, &table.ids, &ranks);
    if (status != QR_OK) {
        return status;
    }
    const int64_t proper = renumber(builder, ranks, directed);
    table.facts.self_loops = (int64_t)builder->n_edges - proper;
    free(ranks);
    free(builder->slots); /* not needed any more: make room */
    builder->slots = NULL;
    builder->n_slots = 0;

    qr_edges_sort(builder->edges, proper);
    table.n_edges = drop_repeats(builder->edges, proper, directed, &table.facts.duplicates);
    table.edges = builder->edges;
    builder->edges = NULL;
    builder->n_edges = builder->capacity = 0;
    if (table.n_edges > 0) {
        void *fitted = realloc(table.edges, (size_t)table.n_edges * sizeof(qr_edge));
        table.edges = fitted != NULL ? fitted : table.edges;
    }
    table.facts.edges = table.n_edges;
    table.facts.degree_sum = directed ? table.n_edges : 2 * table.n_edges;
    status = count_components(&table, &table.facts.components);
    if (status != QR_OK) {
        qr_edge_table_clear(&table);
        return status;
    }
    *out = table;
    return QR_OK;
}

void qr_edge_builder_clear(qr_edge_builder *builder)
{
    free(builder->edges);
    free(builder->slots);
    *builder = (qr_edge_builder){0};
}

void qr_edge_table_clear(qr_edge_table *table)
{
    free(table->edges);
    free(table->ids);
    *table = (qr_edge_table){0};
}
