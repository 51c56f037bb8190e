#include "network/network.h"

#include "network/internal.h"

#include <string.h>

static const int64_t MAX_AGENTS = 1000000000000; /* 10^12 */

static const char *const KIND_NAMES[] = {
    [QR_NETWORK_COMPLETE] = "complete",
    [QR_NETWORK_RING] = "ring",
    [QR_NETWORK_LATTICE2D] = "lattice2d",
    [QR_NETWORK_LATTICE3D] = "lattice3d",
    [QR_NETWORK_RANDOM_REGULAR] = "random_regular",
    [QR_NETWORK_ERDOS_RENYI] = "erdos_renyi",
    [QR_NETWORK_SMALL_WORLD] = "small_world",
    [QR_NETWORK_SCALE_FREE] = "scale_free",
    [QR_NETWORK_EDGE_LIST] = "edge_list",
};

const char *qr_network_kind_name(qr_network_kind kind)
{
    const size_t n = sizeof KIND_NAMES / sizeof KIND_NAMES[0];
    return (size_t)kind < n ? KIND_NAMES[kind] : "unknown";
}

static qr_status check_lattice(const qr_deck *deck, qr_network_spec *spec)
{
    const char *kind = qr_network_kind_name(spec->kind);
    spec->dims = spec->kind == QR_NETWORK_LATTICE3D ? 3 : 2;
    if (deck->network.size.n != spec->dims) {
        return qr_deck_complain(deck, "network.size", "%s needs %d sizes, %s; found %lld", kind, spec->dims,
                                spec->dims == 3 ? "[x, y, z]" : "[x, y]", (long long)deck->network.size.n);
    }
    const int64_t least = spec->periodic ? 2 : 1;
    int64_t product = 1;
    for (int axis = 0; axis < spec->dims; axis++) {
        const int64_t size = deck->network.size.values[axis];
        if (size < least) {
            return qr_deck_complain(deck, "network.size", "%c size is %lld; %s lattices need at least %lld",
                                    "xyz"[axis], (long long)size, spec -> periodic ? "periodic" : "open",
                                    (long long)least);
        }
        spec->size[axis] = size;
        if (size > MAX_AGENTS / product) {
            return qr_deck_complain(deck, "network.size", "the lattice has more than %lld agents",
                                    (long long)MAX_AGENTS);
        }
        product *= size;
    }
    if (deck->agents.count != 0 && deck->agents.count != product) {
        return qr_deck_complain(deck, "agents.count",
                                "%lld agents, but network.size makes %lld; leave agents.count out or make them agree",
                                (long long)deck->agents.count, (long long)product);
    }
    spec->n_agents = product;
    return QR_OK;
}

static qr_status check_count(const qr_deck *deck, qr_network_spec *spec)
{
    if (deck->agents.count < 1) {
        return qr_deck_complain(deck, "agents.count", "must be given for network.kind %s",
                                qr_network_kind_name(spec->kind));
    }
    if (deck->agents.count > MAX_AGENTS) {
        return qr_deck_complain(deck, "agents.count", "%lld agents are more than %lld", (long long)deck->agents.count,
                                (long long)MAX_AGENTS);
    }
    spec->n_agents = deck->agents.count;
    return QR_OK;
}

static qr_status check_degree(const qr_deck *deck, const qr_network_spec *spec)
{
    const char *kind = qr_network_kind_name(spec->kind);
    const long long n = (long long)spec->n_agents;
    const long long degree = (long long)spec->degree;
    if (degree < 1 || degree >= n) {
        return qr_deck_complain(deck, "network.degree", "is %lld; %lld agents can have from 1 to %lld neighbours each",
                                degree, n, n - 1);
    }
    if (degree > INT32_MAX) {
        return qr_deck_complain(deck, "network.degree", "is %lld; the most is %d", degree, INT32_MAX);
    }
    if (spec->kind == QR_NETWORK_RANDOM_REGULAR) {
        if (degree % 2 != 0 && n % 2 != 0) {
            return qr_deck_complain(deck, "network.degree",
                                    "is %lld, odd like the number of agents, %lld: no such graph exists", degree, n);
        }
        if (!qr_regular_is_feasible(spec->n_agents, spec->degree)) {
            return qr_deck_complain(deck, "network.degree",
                                    "is %lld; for %lld agents, random_regular is made only up to degree 128", degree,
                                    n);
        }
        return QR_OK;
    }
    if (degree % 2 != 0) {
        return qr_deck_complain(deck, "network.degree", "is %lld; a %s needs an even number, half to each side", degree,
                                kind);
    }
    if (spec->kind == QR_NETWORK_SMALL_WORLD && !(spec->rewire >= 0 && spec->rewire <= 1)) {
        return qr_deck_complain(deck, "network.rewire", "is %g; a probability lies between 0 and 1", spec->rewire);
    }
    return QR_OK;
}

static qr_status check_random(const qr_deck *deck, const qr_network_spec *spec)
{
    if (spec->kind == QR_NETWORK_ERDOS_RENYI) {
        if (!(spec->mean_degree >= 0 && spec->mean_degree <= (double)(spec->n_agents - 1))) {
            return qr_deck_complain(deck, "network.mean_degree", "is %g; %lld agents allow 0 to %lld",
                                    spec->mean_degree, (long long)spec->n_agents, (long long)spec->n_agents - 1);
        }
        return QR_OK;
    }
    if (spec->attach < 1 || spec->attach >= spec->n_agents) {
        return qr_deck_complain(deck, "network.attach", "is %lld; %lld agents allow 1 to %lld", (long long)spec->attach,
                                (long long)spec->n_agents, (long long)spec->n_agents - 1);
    }
    if (spec->attach > INT64_MAX / 4 / spec->n_agents) {
        return qr_deck_complain(deck, "network.attach",
                                "is %lld; %lld agents would have more edges than can be counted",
                                (long long)spec->attach, (long long)spec->n_agents);
    }
    return QR_OK;
}

qr_status qr_network_spec_from_deck(const qr_deck *deck, qr_network_spec *out)
{
    qr_network_spec spec = {
        .kind = (qr_network_kind)deck->network.kind,
        .neighbours = (qr_neighbourhood)deck->network.neighbours,
        .periodic = deck->network.periodic,
        .degree = deck->network.degree,
        .mean_degree = deck->network.mean_degree,
        .rewire = deck->network.rewire,
        .attach = deck->network.attach,
        .directed = deck->network.directed,
        .seed = (uint64_t)(deck->network.seed < 0 ? deck->run.seed : deck->network.seed),
    };
    qr_status status = QR_OK;
    switch (spec.kind) {
    case QR_NETWORK_LATTICE2D:
    case QR_NETWORK_LATTICE3D: status = check_lattice(deck, &spec); break;
    case QR_NETWORK_EDGE_LIST:
        if (deck->network.file[0] == '\0') {
            status = qr_deck_complain(deck, "network.file", "must name a file for network.kind edge_list");
        }
        break;
    default: status = check_count(deck, &spec); break;
    }
    if (status != QR_OK) {
        return status;
    }

    switch (spec.kind) {
    case QR_NETWORK_RING:
        spec.dims = 1;
        spec.size[0] = spec.n_agents;
        status = spec.periodic ? check_degree(deck, &spec)
                               : qr_deck_complain(deck, "network.periodic", "is false, but a ring is always closed");
        break;
    case QR_NETWORK_RANDOM_REGULAR:
    case QR_NETWORK_SMALL_WORLD: status = check_degree(deck, &spec); break;
    case QR_NETWORK_ERDOS_RENYI:
    case QR_NETWORK_SCALE_FREE: status = check_random(deck, &spec); break;
    default: break;
    }
    if (status == QR_OK) {
        *out = spec;
    }
    return status;
}

/* Neighbours of an agent on average, about; 0 where there are no lists of them. */
static double listed_degree(const qr_network_spec *spec)
{
    switch (spec->kind) {
    case QR_NETWORK_RANDOM_REGULAR:
    case QR_NETWORK_SMALL_WORLD: return (double)spec->degree;
    case QR_NETWORK_ERDOS_RENYI: return spec->mean_degree;
    case QR_NETWORK_SCALE_FREE: return 2.0 * (double)spec->attach;
    case QR_NETWORK_EDGE_LIST: return spec->mean_degree; /* once the file has been read */
    default: return 0.0;
    }
}

static bool has_lists(const qr_network_spec *spec)
{
    return spec->kind != QR_NETWORK_COMPLETE && !qr_network_is_lattice(spec->kind);
}

static double list_bytes(const qr_network_spec *spec, double agents)
{
    return (agents + 1) * (double)sizeof(int64_t) + agents * listed_degree(spec) * (double)sizeof(uint32_t);
}

int64_t qr_network_list_bytes(const qr_network_spec *spec, int64_t n_own)
{
    const double bytes = has_lists(spec) ? list_bytes(spec, (double)n_own) : 0.0;
    return bytes < 9e18 ? (int64_t)bytes : INT64_MAX;
}

int64_t qr_network_bytes_estimate(const qr_network_spec *spec, int n_parts)
{
    const double agents = (double)spec->n_agents / n_parts;
    if (!has_lists(spec)) {
        const double peer_bytes = sizeof(qr_halo_peer) + 2 * (sizeof(qr_run) + sizeof(qr_place));
        return (int64_t)(sizeof(qr_network) + (qr_network_is_lattice(spec->kind) ? 4 * peer_bytes : 0));
    }
    const double ends = agents * listed_degree(spec);
    const double others = (double)spec->n_agents - agents;
    const double remote = ends < others ? ends : others;
    const double rows = list_bytes(spec, agents);
    const double halo = remote * (double)(sizeof(qr_run) + sizeof(qr_edge));
    /* While it is built, a part also holds its arcs, and with several parts a received copy of most of them. */
    const double building = ends * (double)sizeof(qr_edge) * (n_parts > 1 ? 2 : 1);
    const double bytes = (double)sizeof(qr_network) + rows + (halo > building ? halo : building);
    return bytes < 9e18 ? (int64_t)bytes : INT64_MAX;
}
