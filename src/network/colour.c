/* Colours of networks of lists: the parallel greedy colouring of Jones and Plassmann 1993. Everybody's key is a hash of
 * the network's seed and the agent; in the order of their keys, agents take the smallest colour that no neighbour with
 * a smaller key has. A part goes through its own agents in that order as far as it can without the colours of other
 * parts' agents, tells what it found, and goes on. Rounds are few, for a hash leaves no long chains between parts. */
#include "network/internal.h"

#include "base/memory.h"
#include "network/random.h"

#include <stdlib.h>
#include <string.h>

/* Marks of messages that are not about an agent. */
enum { MARK_LEFT = -1, MARK_NEEDED = -2, N_MARKS = 2 };

typedef struct painter {
    qr_network *network;
    const qr_edge_exchange *exchange;
    int64_t most;     /* colours there may be */
    uint16_t *colour; /* [view] colour + 1; 0: none yet */
    int64_t *remote;  /* [view - own.count] the halo's agents, ascending */
    uint32_t *order;  /* [n_left] own agents without a colour, ascending key */
    int64_t n_left;
    uint64_t *taken; /* [max_degree / 64 + 1] colours of an agent's neighbours, a bit each */
    uint64_t *fresh; /* a bit per own agent that got its colour in this round */
    int64_t needed;  /* colours */
    qr_edge *send;
    int64_t *counts; /* [n_parts] */
} painter;

static int64_t key_of(const painter *p, int64_t agent)
{
    return (int64_t)(qr_graph_draw(p->network->spec.seed, QR_STREAM_COLOUR, agent, 0) >> 1);
}

static int64_t agent_at(const painter *p, int64_t position)
{
    const qr_range own = p->network->own;
    return position < own.count ? own.first + position : p->remote[position - own.count];
}

static bool comes_first(const painter *p, int64_t a, int64_t b)
{
    const int64_t key_a = key_of(p, a);
    const int64_t key_b = key_of(p, b);
    return key_a < key_b || (key_a == key_b && a < b);
}

/* Own agents by ascending key. */
static qr_status make_order(painter *p)
{
    const qr_range own = p->network->own;
    qr_edge *keys = NULL;
    qr_status status = qr_allocate((size_t)own.count, sizeof *keys, "the order of colours", (void **)&keys);
    if (status == QR_OK) {
        status = qr_allocate((size_t)own.count, sizeof *p->order, "the order of colours", (void **)&p->order);
    }
    if (status == QR_OK) {
        for (int64_t i = 0; i < own.count; i++) {
            keys[i] = (qr_edge){.from = key_of(p, own.first + i), .to = i};
        }
        qr_edges_sort(keys, own.count);
        for (int64_t i = 0; i < own.count; i++) {
            p->order[i] = (uint32_t)keys[i].to;
        }
        p->n_left = own.count;
    }
    free(keys);
    return status;
}

/* Gives own agent `index` its colour, unless one of those before it has none yet. */
static bool paint(painter *p, int64_t index)
{
    const qr_rows *rows = &p->network->rows;
    const int64_t degree = rows->row[index + 1] - rows->row[index];
    memset(p->taken, 0, (size_t)(degree / 64 + 1) * sizeof *p->taken);
    for (int64_t j = rows->row[index]; j < rows->row[index + 1]; j++) {
        const int64_t position = rows->neighbour[j];
        const int64_t theirs = (int64_t)p->colour[position] - 1;
        if (theirs < 0 && comes_first(p, agent_at(p, position), p->network->own.first + index)) {
            return false;
        }
        if (theirs >= 0 && theirs <= degree) {
            p->taken[theirs / 64] |= (uint64_t)1 << (theirs % 64);
        }
    }
    int64_t word = 0;
    while (p->taken[word] == ~(uint64_t)0) { /* an agent's neighbours cannot take more colours than they are */
        word++;
    }
    const int64_t colour = 64 * word + __builtin_ctzll(~p->taken[word]);
    p->needed = colour + 1 > p->needed ? colour + 1 : p->needed;
    p->colour[index] = (uint16_t)(colour < p->most ? colour + 1 : p->most); /* beyond the limit: all parts fail */
    p->fresh[index / 64] |= (uint64_t)1 << (index % 64);
    return true;
}

static void paint_what_can_be(painter *p)
{
    int64_t left = 0;
    memset(p->fresh, 0, (size_t)(p->network->own.count / 64 + 1) * sizeof *p->fresh);
    for (int64_t i = 0; i < p->n_left; i++) {
        if (!paint(p, p->order[i])) {
            p->order[left++] = p->order[i];
        }
    }
    p->n_left = left;
}

/* Fills `send` and `counts` with the marks for every part, and for each peer with the agents it sees: all of them and
 * no colours (`only_fresh` false), or those painted in this round. */
static void fill_messages(painter *p, bool only_fresh)
{
    const qr_network *network = p->network;
    int64_t n = 0;
    int next = 0;
    for (int part = 0; part < network->n_parts; part++) {
        const int64_t start = n;
        p->send[n++] = (qr_edge){.from = MARK_LEFT, .to = p->n_left};
        p->send[n++] = (qr_edge){.from = MARK_NEEDED, .to = p->needed};
        const bool is_peer = next < network->halo.n_peers && network->halo.peers[next].peer == part;
        const qr_halo_peer *peer = is_peer ? &network->halo.peers[next++] : NULL;
        for (int64_t r = 0; peer != NULL && r < peer->n_send; r++) {
            const qr_run run = peer->send[r];
            for (int64_t i = run.start; i < run.start + run.count; i++) {
                if (!only_fresh || (p->fresh[i / 64] >> (i % 64) & 1u) != 0) {
                    p->send[n++] = (qr_edge){.from = network->own.first + i, .to = p->colour[i]};
                }
            }
        }
        p->counts[part] = n - start;
    }
}

/* What all parts said: they come in ascending order, and so do their agents. */
static qr_status take_messages(painter *p, const qr_edge *received, int64_t n, bool introduces, int64_t *left)
{
    const int64_t n_remote = p->network->view - p->network->own.count;
    int64_t at = 0;
    *left = 0;
    for (int64_t i = 0; i < n; i++) {
        const qr_edge said = received[i];
        if (said.from == MARK_LEFT) {
            *left += said.to;
        } else if (said.from == MARK_NEEDED) {
            p->needed = said.to > p->needed ? said.to : p->needed;
        } else if (introduces && at < n_remote) {
            p->remote[at++] = said.from;
        } else {
            while (at < n_remote && p->remote[at] < said.from) {
                at++;
            }
            if (introduces || at == n_remote || p->remote[at] != said.from) {
                return qr_error(QR_INTERNAL, "part %d was told of agent %lld, whom it does not see", p->network->part,
                                (long long)said.from);
            }
            p->colour[p->network->own.count + at] = (uint16_t)said.to;
        }
    }
    if (introduces && at != n_remote) {
        return qr_error(QR_INTERNAL, "part %d sees %lld agents of others, but was told of %lld", p->network->part,
                        (long long)n_remote, (long long)at);
    }
    return QR_OK;
}

/* One message to and from every part. *left: agents without a colour, in all parts. */
static qr_status talk(painter *p, bool introduces, int64_t *left)
{
    qr_edge *received = NULL;
    int64_t n_received = 0;
    if (p->network->n_parts == 1) {
        *left = p->n_left;
        return QR_OK;
    }
    fill_messages(p, !introduces);
    qr_status status = p->exchange->exchange(p->exchange->context, p->send, p->counts, &received, &n_received);
    if (status == QR_OK) {
        status = take_messages(p, received, n_received, introduces, left);
    }
    free(received);
    return status;
}

static qr_status make_room(painter *p)
{
    const qr_network *network = p->network;
    const size_t own = (size_t)network->own.count;
    int64_t n_send = (int64_t)N_MARKS * network->n_parts;
    for (int i = 0; i < network->halo.n_peers; i++) {
        n_send += network->halo.peers[i].send_count;
    }
    const struct {
        void *room;
        size_t count;
        size_t size;
    } wanted[] = {{&p->colour, (size_t)network->view, sizeof *p->colour},
                  {&p->remote, (size_t)network->view - own, sizeof *p->remote},
                  {&p->taken, (size_t)network->max_degree / 64 + 1, sizeof *p->taken},
                  {&p->fresh, own / 64 + 1, sizeof *p->fresh},
                  {&p->send, (size_t)n_send, sizeof *p->send},
                  {&p->counts, (size_t)network->n_parts, sizeof *p->counts}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        qr_status status = qr_allocate(wanted[i].count, wanted[i].size, "colours", wanted[i].room);
        if (status != QR_OK) {
            return status;
        }
    }
    return make_order(p);
}

static qr_status paint_all(painter *p)
{
    int64_t left = 0;
    qr_status status = talk(p, true, &left);
    while (status == QR_OK && left > 0) {
        const int64_t before = left;
        paint_what_can_be(p);
        status = talk(p, false, &left);
        /* The first agent of all that are left waits for nobody, where every neighbour is one in return. */
        if (status == QR_OK && left >= before) {
            status = qr_error(QR_INTERNAL, "colours for a network whose links are not symmetric");
        }
    }
    if (status == QR_OK && p->needed > p->most) {
        status = qr_error(QR_RESOURCE,
                          "this network is too dense for sweeps: it would take more than %lld turns a step for all "
                          "agents to move while none of their neighbours does",
                          (long long)p->most);
    }
    return status;
}

qr_status qr_colour_lists(qr_network *network, const qr_edge_exchange *exchange, int64_t most)
{
    painter p = {.network = network, .exchange = exchange, .most = most};
    qr_status status = make_room(&p);
    if (status == QR_OK) {
        status = paint_all(&p);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)network->own.count, sizeof(uint16_t), "colours", (void **)&network->colour);
    }
    if (status == QR_OK) {
        for (int64_t i = 0; i < network->own.count; i++) {
            network->colour[i] = (uint16_t)(p.colour[i] - 1);
        }
        network->n_colours = (int32_t)p.needed;
    }
    free(p.colour);
    free(p.remote);
    free(p.order);
    free(p.taken);
    free(p.fresh);
    free(p.send);
    free(p.counts);
    return status;
}

qr_status qr_network_set_colours(qr_network *network, const qr_edge_exchange *exchange)
{
    if (qr_network_is_lattice(network->spec.kind)) {
        return QR_OK;
    }
    if (network->rows.row == NULL || network->spec.directed || (network->n_parts > 1 && exchange == NULL)) {
        return qr_error(QR_INTERNAL, "no colours for a network of kind %s%s", qr_network_kind_name(network->spec.kind),
                        network->spec.directed ? ", directed" : "");
    }
    return qr_colour_lists(network, exchange, QR_MAX_COLOURS);
}

int qr_network_colours(const qr_network *network)
{
    return qr_network_is_lattice(network->spec.kind) ? qr_lattice_colours(&network->spec) : network->n_colours;
}

int64_t qr_network_colour_bytes(const qr_network_spec *spec, int64_t n_own)
{
    const bool listed = spec->kind != QR_NETWORK_COMPLETE && !qr_network_is_lattice(spec->kind);
    return listed ? n_own * (int64_t)sizeof(uint16_t) : 0;
}
