#include "network/internal.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* A view wraps around a tiny lattice at most this often on each side: halos are at most N + 63 long and N is at
 * least 3. */
enum { MAX_CHUNKS = 64 };

/* Consecutive agents of one owner that stand in one stretch of a view. */
typedef struct chunk {
    int64_t view;
    int64_t agent;
    int64_t count;
} chunk;

/* Agents that share the last coordinate. */
static int64_t layer_of(const qr_network_spec *spec)
{
    return spec->dims == 3 ? spec->size[0] * spec->size[1] : spec->size[0];
}

/* Positions in front of and behind the own agents. In front they are rounded up to whole words, so that own agents
 * start at a word; the extra positions hold votes like the others. */
static void view_margins(const qr_network_spec *spec, qr_range own, int64_t *before, int64_t *after)
{
    *before = 0;
    *after = 0;
    if (own.count == 0) {
        return;
    }
    const int64_t last = own.first + own.count - 1;
    int64_t back;
    int64_t forth;
    if (spec->kind == QR_NETWORK_RING) {
        back = forth = spec->degree / 2;
    } else if (spec->neighbours == QR_VON_NEUMANN) {
        back = forth = layer_of(spec);
    } else if (spec->periodic) {
        /* A corner neighbour wraps inside its layer, so that the whole layers before and after may be needed. */
        const int64_t layer = layer_of(spec);
        back = layer + own.first % layer;
        forth = layer + (layer - 1 - last % layer);
    } else {
        back = forth = layer_of(spec) + (spec->dims == 3 ? spec->size[0] : 0) + 1;
    }
    if (spec->kind != QR_NETWORK_RING && !spec->periodic) {
        back = back < own.first ? back : own.first; /* a multiple of 64, so that rounding up stays inside */
        forth = forth < spec->n_agents - 1 - last ? forth : spec->n_agents - 1 - last;
    }
    *before = (back + QR_AGENTS_PER_WORD - 1) / QR_AGENTS_PER_WORD * QR_AGENTS_PER_WORD;
    *after = forth;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* The stretches of one part's halo that `owner` holds, in view order. Both sides of an exchange call this and so agree.
 */
static int find_chunks(const qr_network_spec *spec, qr_range part, qr_range owner, chunk out[MAX_CHUNKS])
{
    int64_t before;
    int64_t after;
    view_margins(spec, part, &before, &after);
    const int64_t n = spec->n_agents;
    const int64_t start = part.first - before;
    const int64_t stretch[2][2] = {{start, part.first}, {part.first + part.count, part.first + part.count + after}};
    int found = 0;
    if (owner.count == 0) {
        return 0;
    }
    for (int side = 0; side < 2; side++) {
        if (stretch[side][0] == stretch[side][1]) {
            continue;
        }
        const int64_t last_turn = floor_div(stretch[side][1] - 1, n);
        for (int64_t turn = floor_div(stretch[side][0], n); turn <= last_turn && found < MAX_CHUNKS; turn++) {
            const int64_t from = turn * n + owner.first;
            const int64_t low = from > stretch[side][0] ? from : stretch[side][0];
            const int64_t high = from + owner.count < stretch[side][1] ? from + owner.count : stretch[side][1];
            if (low < high) {
                out[found++] = (chunk){.view = low - start, .agent = low - turn * n, .count = high - low};
            }
        }
    }
    return found;
}

/* Union of the chunks' agents as ascending runs of agent ids. */
static int unite(const chunk *chunks, int n, qr_run runs[MAX_CHUNKS])
{
    int n_runs = 0;
    for (int i = 0; i < n; i++) {
        int j = n_runs++;
        for (; j > 0 && runs[j - 1].start > chunks[i].agent; j--) {
            runs[j] = runs[j - 1];
        }
        runs[j] = (qr_run){.start = chunks[i].agent, .count = chunks[i].count};
    }
    int kept = 0;
    for (int i = 0; i < n_runs; i++) {
        if (kept > 0 && runs[i].start <= runs[kept - 1].start + runs[kept - 1].count) {
            qr_run *previous = &runs[kept - 1];
            const int64_t end = runs[i].start + runs[i].count;
            if (end > previous->start + previous->count) {
                previous->count = end - previous->start;
            }
        } else {
            runs[kept++] = runs[i];
        }
    }
    return kept;
}

/* Where in a message that lists `runs` the agent stands. */
static int64_t message_position(const qr_run *runs, int n_runs, int64_t agent)
{
    int64_t position = 0;
    for (int i = 0; i < n_runs; i++) {
        if (agent < runs[i].start + runs[i].count) {
            return position + agent - runs[i].start;
        }
        position += runs[i].count;
    }
    return position;
}

static qr_status fill_peer(const qr_network *network, int other, qr_halo_peer *peer)
{
    const qr_network_spec *spec = &network->spec;
    const qr_range theirs = qr_partition_range(spec->n_agents, network->n_parts, other);
    chunk chunks[MAX_CHUNKS];
    qr_run runs[MAX_CHUNKS];
    *peer = (qr_halo_peer){.peer = other};

    int n = find_chunks(spec, theirs, network->own, chunks);
    int n_runs = unite(chunks, n, runs);
    if (n_runs > 0) {
        void *memory;
        qr_status status = qr_allocate((size_t)n_runs, sizeof(qr_run), "halo lists", &memory);
        if (status != QR_OK) {
            return status;
        }
        peer->send = memory;
        peer->n_send = n_runs;
        for (int i = 0; i < n_runs; i++) {
            peer->send[i] = (qr_run){.start = runs[i].start - network->own.first, .count = runs[i].count};
            peer->send_count += runs[i].count;
        }
    }

    n = find_chunks(spec, network->own, theirs, chunks);
    n_runs = unite(chunks, n, runs);
    if (n > 0) {
        void *memory;
        qr_status status = qr_allocate((size_t)n, sizeof(qr_place), "halo lists", &memory);
        if (status != QR_OK) {
            return status;
        }
        peer->place = memory;
        peer->n_place = n;
        for (int i = 0; i < n; i++) {
            peer->place[i] = (qr_place){.from = message_position(runs, n_runs, chunks[i].agent),
                                        .to = chunks[i].view,
                                        .count = chunks[i].count};
        }
        for (int i = 0; i < n_runs; i++) {
            peer->recv_count += runs[i].count;
        }
    }
    return QR_OK;
}

/* Positions among -1, 0, +1 along an axis that lie inside an open lattice. */
static int64_t choices(const qr_network_spec *spec, int axis, int64_t at)
{
    return 1 + (at > 0) + (at + 1 < spec->size[axis]);
}

/* Degrees at open borders, a row at a time. */
static void count_open_ends(qr_network *network)
{
    const qr_network_spec *spec = &network->spec;
    const int64_t width = spec->size[0];
    const int64_t end = network->own.first + network->own.count;
    for (int64_t id = network->own.first; id < end;) {
        const int64_t x0 = id % width;
        const int64_t row = id / width;
        const int64_t length = width - x0 < end - id ? width - x0 : end - id;
        const int64_t x1 = x0 + length - 1;
        const int64_t cy = choices(spec, 1, row % spec->size[1]);
        const int64_t cz = spec->dims == 3 ? choices(spec, 2, row / spec->size[1]) : 1;
        const int64_t sum = 3 * length - (x0 == 0) - (x1 + 1 == width);
        int64_t widest = choices(spec, 0, x0);
        if (length > 1) {
            const int64_t inner = x0 > 0 ? x0 : x0 + 1;
            widest = choices(spec, 0, inner) > widest ? choices(spec, 0, inner) : widest;
        }
        int64_t most;
        if (spec->neighbours == QR_MOORE) {
            network->own_edge_ends += sum * cy * cz - length;
            most = widest * cy * cz - 1;
        } else {
            network->own_edge_ends += sum + length * (cy + cz - 3);
            most = widest + cy + cz - 3;
        }
        network->max_degree = most > network->max_degree ? most : network->max_degree;
        id += length;
    }
}

qr_status qr_lattice_build(qr_network *network)
{
    const qr_network_spec *spec = &network->spec;
    int64_t after;
    view_margins(spec, network->own, &network->before, &after);
    network->view = network->before + network->own.count + after;

    size_t capacity = 0;
    void *grown = NULL;
    for (int other = 0; other < network->n_parts; other++) {
        qr_halo_peer peer;
        qr_status status = fill_peer(network, other, &peer);
        if (status == QR_OK && peer.n_send == 0 && peer.n_place == 0) {
            continue;
        }
        if (status == QR_OK) {
            grown = network->halo.peers;
            status = qr_grow(&grown, &capacity, (size_t)network->halo.n_peers + 1, sizeof(qr_halo_peer), "halo lists");
        }
        if (status != QR_OK) {
            free(peer.send);
            free(peer.place);
            return status;
        }
        network->halo.peers = grown;
        network->halo.peers[network->halo.n_peers++] = peer;
    }

    if (spec->kind == QR_NETWORK_RING || spec->periodic) {
        network->max_degree = network->own.count > 0 ? qr_lattice_degree(spec) : 0;
        network->own_edge_ends = network->own.count * network->max_degree;
        return QR_OK;
    }
    count_open_ends(network);
    return QR_OK;
}

bool qr_network_is_lattice(qr_network_kind kind)
{
    return kind == QR_NETWORK_RING || kind == QR_NETWORK_LATTICE2D || kind == QR_NETWORK_LATTICE3D;
}

int qr_lattice_degree(const qr_network_spec *spec)
{
    switch (spec->kind) {
    case QR_NETWORK_RING: return (int)spec->degree;
    case QR_NETWORK_LATTICE2D: return spec->neighbours == QR_MOORE ? 8 : 4;
    case QR_NETWORK_LATTICE3D: return spec->neighbours == QR_MOORE ? 26 : 6;
    default: return 0;
    }
}

qr_lattice qr_lattice_of(const qr_network_spec *spec)
{
    qr_lattice lattice = {.dims = qr_network_is_lattice(spec->kind) ? spec->dims : 0,
                          .moore = spec->neighbours == QR_MOORE ? 1 : 0,
                          .periodic = spec->periodic ? 1 : 0,
                          .size = {spec->size[0], spec->size[1], spec->size[2]},
                          .n_agents = spec->n_agents,
                          .reach = spec->kind == QR_NETWORK_RING ? spec->degree / 2 : 0};
    if (lattice.dims > 0) {
        qr_lattice_set_colours(&lattice);
    }
    return lattice;
}

int qr_lattice_offsets(const qr_network_spec *spec, qr_lattice_offset *out)
{
    int n = 0;
    if (!qr_network_is_lattice(spec->kind)) {
        return 0;
    }
    if (spec->dims == 1) {
        for (int64_t d = -spec->degree / 2; spec->degree <= QR_LATTICE_MAX_OFFSETS && d <= spec->degree / 2; d++) {
            if (d != 0) {
                out[n++] = (qr_lattice_offset){.distance = d};
            }
        }
        return n;
    }
    const int deep = spec->dims == 3 ? 1 : 0;
    for (int dz = -deep; dz <= deep; dz++) {
        for (int dy = -1; dy <= 1; dy++) {
            for (int dx = -1; dx <= 1; dx++) {
                const int moved = (dx != 0) + (dy != 0) + (dz != 0);
                if (moved == 0 || (spec->neighbours == QR_VON_NEUMANN && moved > 1)) {
                    continue;
                }
                out[n++] = (qr_lattice_offset){.distance = dx + spec->size[0] * (dy + spec->size[1] * dz),
                                               .dx = dx,
                                               .dy = spec->dims == 3 ? dy : 0};
            }
        }
    }
    return n;
}

int64_t qr_lattice_neighbours(const qr_network *network, int64_t index, int64_t *out)
{
    const qr_network_spec *spec = &network->spec;
    const int64_t here = network->before + index;
    if (spec->kind == QR_NETWORK_RING) {
        const int64_t reach = spec->degree / 2;
        int64_t n = 0;
        for (int64_t d = -reach; d <= reach; d++) {
            if (d != 0) {
                out[n++] = here + d;
            }
        }
        return n;
    }
    const qr_lattice lattice = qr_lattice_of(spec);
    return qr_lattice_positions(&lattice, network->own.first + index, here, out);
}

int qr_lattice_colours(const qr_network_spec *spec)
{
    return (int)qr_lattice_of(spec).n_colours;
}

int qr_lattice_colour(const qr_network_spec *spec, int64_t agent)
{
    const qr_lattice lattice = qr_lattice_of(spec);
    return (int)qr_lattice_colour_of(&lattice, agent);
}

qr_range qr_lattice_interior(const qr_network *network)
{
    const qr_network_spec *spec = &network->spec;
    const qr_range own = network->own;
    int64_t first;
    int64_t end;
    if (!qr_network_is_lattice(spec->kind) || own.count == 0) {
        return (qr_range){0, 0};
    }
    if (spec->kind == QR_NETWORK_RING) {
        first = spec->degree / 2;
        end = own.count - spec->degree / 2;
    } else { /* whoever has whole own layers on both sides: all neighbours are there, also those that wrap in a layer */
        const int64_t layer = layer_of(spec);
        first = ((own.first + layer - 1) / layer + 1) * layer - own.first;
        end = ((own.first + own.count) / layer - 1) * layer - own.first;
    }
    first = (first + QR_AGENTS_PER_WORD - 1) / QR_AGENTS_PER_WORD * QR_AGENTS_PER_WORD;
    end = end > 0 ? end / QR_AGENTS_PER_WORD * QR_AGENTS_PER_WORD : 0;
    return end > first ? (qr_range){first, end - first} : (qr_range){0, 0};
}
