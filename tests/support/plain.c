#include "plain.h"

#include "network/random.h"

#include <stdlib.h>
#include <string.h>

uint32_t plain_draw32(plain_draws *draws)
{
    uint32_t number = draws->next++;
    qr_philox_block block = qr_philox(draws->seed, (uint32_t)draws->agent, (uint32_t)(draws->agent >> 32),
                                      (uint32_t)draws->step, draws->stream * 65536u + number / 4u);
    return block.word[number % 4u];
}

static uint64_t draw64(plain_draws *draws)
{
    uint64_t low = plain_draw32(draws);
    return low + ((uint64_t)plain_draw32(draws) << 32);
}

uint64_t plain_draw_below(plain_draws *draws, uint64_t n)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)draw64(draws) * n >> 64);
}

static uint32_t sample(const uint8_t *seen, int64_t degree, plain_draws *draws)
{
    return seen[plain_draw_below(draws, (uint64_t)degree)];
}

static int64_t count_of(const uint8_t *seen, int64_t degree, uint32_t option)
{
    int64_t count = 0;
    for (int64_t j = 0; j < degree; j++) {
        count += seen[j] == option ? 1 : 0;
    }
    return count;
}

/* Own vote if it is among the most frequent, else the lowest of them. */
static uint32_t most_frequent(const uint8_t *seen, int64_t degree, uint32_t n_options, uint32_t own)
{
    int64_t most = 0;
    for (uint32_t k = 0; k < n_options; k++) {
        int64_t count = count_of(seen, degree, k);
        most = count > most ? count : most;
    }
    if (count_of(seen, degree, own) == most) {
        return own;
    }
    uint32_t lowest = 0;
    while (count_of(seen, degree, lowest) < most) {
        lowest++;
    }
    return lowest;
}

static uint32_t weighted(const uint64_t *weights, uint32_t n_options, plain_draws *draws)
{
    uint64_t total = 0;
    for (uint32_t k = 0; k < n_options; k++) {
        total += weights[k];
    }
    uint64_t number = plain_draw_below(draws, total);
    uint64_t up_to = 0;
    for (uint32_t k = 0; k < n_options; k++) {
        up_to += weights[k];
        if (number < up_to) {
            return k;
        }
    }
    abort();
}

static uint32_t potts(const qr_rule *rule, const uint8_t *seen, int64_t degree, uint32_t own, plain_draws *draws)
{
    if (rule->metropolis != 0) {
        uint32_t proposed;
        /* The k-th of the other options, counted from 0 upwards without one's own. */
        uint64_t k = plain_draw_below(draws, rule->n_options - 1u);
        for (proposed = 0; proposed == own || k > 0; proposed++) {
            k -= proposed == own ? 0u : 1u;
        }
        int64_t loss = count_of(seen, degree, own) - count_of(seen, degree, proposed);
        if (loss <= 0) {
            return proposed;
        }
        return draw64(draws) / ((uint64_t)1 << 24) < rule->boltzmann[loss] ? proposed : own;
    }
    uint64_t weights[QR_MAX_OPTIONS];
    int64_t most = 0;
    for (uint32_t k = 0; k < rule->n_options; k++) {
        int64_t count = count_of(seen, degree, k);
        most = count > most ? count : most;
    }
    for (uint32_t k = 0; k < rule->n_options; k++) {
        weights[k] = rule->boltzmann[most - count_of(seen, degree, k)];
    }
    return weighted(weights, rule->n_options, draws);
}

static uint32_t q_voter(const qr_rule *rule, const uint8_t *seen, int64_t degree, uint32_t own, plain_draws *draws)
{
    uint32_t panel[1000];
    bool agreed = true;
    for (uint32_t i = 0; i < rule->q; i++) {
        panel[i] = sample(seen, degree, draws);
        agreed = agreed && panel[i] == panel[0];
    }
    if (agreed) {
        return panel[0];
    }
    if (plain_draw32(draws) >= rule->epsilon) {
        return own;
    }
    uint32_t others[QR_MAX_OPTIONS];
    uint32_t n = 0;
    for (uint32_t k = 0; k < rule->n_options; k++) {
        if (k != own) {
            others[n++] = k;
        }
    }
    return others[plain_draw_below(draws, n)];
}

uint32_t plain_vote(const qr_model *model, const uint8_t *seen, int64_t degree, uint32_t own, plain_draws *draws)
{
    const qr_rule *rule = &model->rule;
    uint8_t panel[1000];
    uint64_t weights[QR_MAX_OPTIONS];
    switch (model->kind) {
    case QR_RULE_VOTER: return sample(seen, degree, draws);
    case QR_RULE_MAJORITY:
        if (rule->samples == 0) {
            return most_frequent(seen, degree, rule->n_options, own);
        }
        for (uint32_t i = 0; i < rule->samples; i++) {
            panel[i] = (uint8_t)sample(seen, degree, draws);
        }
        return most_frequent(panel, rule->samples, rule->n_options, own);
    case QR_RULE_Q_VOTER: return q_voter(rule, seen, degree, own, draws);
    case QR_RULE_POTTS: return potts(rule, seen, degree, own, draws);
    case QR_RULE_BEST_OF_N:
        for (uint32_t k = 0; k < rule->n_options; k++) {
            weights[k] = (uint64_t)count_of(seen, degree, k) * rule->quality[k];
        }
        return weighted(weights, rule->n_options, draws);
    case QR_RULE_NEURAL:
    case QR_N_RULES: break;
    }
    abort();
}

/* The agent at an offset from `agent`; -1 beyond an open border. */
static int64_t lattice_agent(const qr_network_spec *spec, int64_t agent, const int64_t *offset)
{
    int64_t result = 0;
    int64_t scale = 1;
    for (int axis = 0; axis < spec->dims; axis++) {
        int64_t size = spec->size[axis];
        int64_t at = agent / scale % size + offset[axis];
        if (at < 0 || at >= size) {
            if (!spec->periodic) {
                return -1;
            }
            at = ((at % size) + size) % size;
        }
        result += at * scale;
        scale *= size;
    }
    return result;
}

static int64_t lattice_neighbours(const qr_network_spec *spec, int64_t agent, int64_t *out)
{
    int64_t n = 0;
    if (spec->dims == 1) {
        for (int64_t j = -spec->degree / 2; j <= spec->degree / 2; j++) {
            if (j != 0) {
                out[n++] = lattice_agent(spec, agent, &j);
            }
        }
        return n;
    }
    for (int code = 0; code < 27; code++) {
        const int64_t offset[3] = {code % 3 - 1, code / 3 % 3 - 1, code / 9 - 1};
        int64_t away = llabs(offset[0]) + llabs(offset[1]) + llabs(offset[2]);
        if (away == 0 || (spec->dims == 2 && offset[2] != 0) || (spec->neighbours == QR_VON_NEUMANN && away > 1)) {
            continue;
        }
        out[n] = lattice_agent(spec, agent, offset);
        n += out[n] >= 0 ? 1 : 0;
    }
    return n;
}

typedef struct plain_priority {
    uint64_t hash;
    int64_t agent;
} plain_priority;

static int by_priority(const void *a, const void *b)
{
    const plain_priority *left = a;
    const plain_priority *right = b;
    if (left->hash != right->hash) {
        return left->hash < right->hash ? -1 : 1;
    }
    return left->agent < right->agent ? -1 : 1;
}

static void colour_graph(uint64_t seed, plain_graph *graph)
{
    size_t n = (size_t)graph->n_agents;
    plain_priority *order = malloc(n * sizeof *order);
    bool *used = malloc((n + 1) * sizeof *used);
    graph->colour = malloc(n * sizeof *graph->colour);
    if (order == NULL || used == NULL || graph->colour == NULL) {
        abort();
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = (plain_priority){qr_graph_draw(seed, QR_STREAM_COLOUR, (int64_t)i, 0) / 2, (int64_t)i};
        graph->colour[i] = -1;
    }
    qsort(order, n, sizeof *order, by_priority);
    for (size_t i = 0; i < n; i++) {
        int64_t agent = order[i].agent;
        memset(used, 0, (n + 1) * sizeof *used);
        for (int64_t j = graph->row[agent]; j < graph->row[agent + 1]; j++) {
            int theirs = graph->colour[graph->neighbour[j]];
            used[theirs < 0 ? (int64_t)n : theirs] = true;
        }
        int colour = 0;
        while (used[colour]) {
            colour++;
        }
        graph->colour[agent] = colour;
        graph->n_colours = colour + 1 > graph->n_colours ? colour + 1 : graph->n_colours;
    }
    free(order);
    free(used);
}

plain_graph plain_graph_of(const crowd *c)
{
    const qr_network *network = c->network[0];
    int64_t n = c->spec.n_agents;
    plain_graph graph = {.n_agents = n, .complete = c->spec.kind == QR_NETWORK_COMPLETE};
    bool lattice = qr_network_is_lattice(c->spec.kind);
    if (graph.complete) {
        return graph;
    }
    int64_t most = c->spec.kind == QR_NETWORK_RING ? c->spec.degree : 26;
    size_t ends = lattice ? (size_t)(n * most) : (size_t)network->rows.row[n];
    graph.row = calloc((size_t)n + 1, sizeof *graph.row);
    graph.neighbour = calloc(ends + 1, sizeof *graph.neighbour);
    if (graph.row == NULL || graph.neighbour == NULL) {
        abort();
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t *out = graph.neighbour + graph.row[i];
        int64_t degree = 0;
        if (lattice) {
            degree = lattice_neighbours(&c->spec, i, out);
        } else {
            for (int64_t j = network->rows.row[i]; j < network->rows.row[i + 1]; j++) {
                out[degree++] = (int64_t)network->rows.neighbour[j];
            }
        }
        graph.row[i + 1] = graph.row[i] + degree;
    }
    if (!lattice && c->model->sweeps) {
        colour_graph(c->spec.seed, &graph);
    }
    return graph;
}

void plain_graph_clear(plain_graph *graph)
{
    free(graph->row);
    free(graph->neighbour);
    free(graph->colour);
    *graph = (plain_graph){0};
}

/* Bit of plane `plane` that belongs to the agent. */
static uint32_t plane_bit(uint64_t seed, int64_t agent, int64_t step, uint32_t stream, uint32_t plane)
{
    uint64_t group = (uint64_t)agent / 64;
    qr_philox_block block =
        qr_philox(seed, (uint32_t)group, (uint32_t)(group >> 32), (uint32_t)step, stream * 65536u + plane / 2u);
    uint32_t bit = plane % 2u * 64u + (uint32_t)(agent % 64);
    return block.word[bit / 32u] >> bit % 32u & 1u;
}

bool plain_coin(uint64_t seed, int64_t agent, int64_t step, uint32_t stream, uint64_t threshold)
{
    uint64_t bits = 0;
    for (uint32_t plane = 0; plane < 32; plane++) {
        bits = 2 * bits + plane_bit(seed, agent, step, stream, plane);
    }
    return bits < threshold;
}

/* Where votes of two options may lie as bit planes, and Potts draws its numbers from planes. */
static bool is_plane_potts(const qr_model *model, const qr_network_spec *spec)
{
    if (model->kind != QR_RULE_POTTS || model->rule.n_options != 2 || !spec->periodic) {
        return false;
    }
    if (spec->kind == QR_NETWORK_RING) {
        return spec->degree <= 26 && spec->degree < spec->n_agents && spec->n_agents > 2;
    }
    return spec->size[0] > 2 && spec->size[1] > 2 && (spec->dims < 3 || spec->size[2] > 2);
}

/* Potts of two options: the agent's number in its colour's turn, and the energy that either vote costs. */
static uint8_t plane_potts(const qr_model *model, const uint8_t *seen, int64_t degree, uint8_t own, int64_t agent,
                           int64_t step, int colour, int n_colours)
{
    const qr_rule *rule = &model->rule;
    const int64_t for_one = count_of(seen, degree, 1);
    const int64_t fewer = 2 * for_one < degree ? for_one : degree - for_one;
    int64_t whose = agent;
    if (n_colours == 2) { /* 128 agents to a plane of 64 bits */
        whose = agent / 128 * 64 + agent % 64 / 2 * 2 + agent / 64 % 2;
    }
    uint64_t number = 0;
    for (uint32_t plane = 0; plane < 32; plane++) {
        number = 2 * number + plane_bit(rule->seed, whose, step, QR_STREAM_PLANE_RULE, 32u * (uint32_t)colour + plane);
    }
    if (2 * for_one == degree) {
        return rule->metropolis != 0 ? !own : number < UINT64_C(1) << 31;
    }
    const uint8_t most = 2 * for_one > degree;
    if (rule->metropolis != 0 && own != most) {
        return most;
    }
    return number < rule->against[fewer] ? !most : most;
}

/* What an agent sees, in order; on a complete network everybody else, sorted by option. */
static int64_t look(const plain_graph *graph, const uint8_t *votes, int64_t agent, uint32_t n_options, uint8_t *seen)
{
    int64_t n = 0;
    if (!graph->complete) {
        for (int64_t j = graph->row[agent]; j < graph->row[agent + 1]; j++) {
            seen[n++] = votes[graph->neighbour[j]];
        }
        return n;
    }
    int64_t counts[QR_MAX_OPTIONS] = {0};
    for (int64_t i = 0; i < graph->n_agents; i++) {
        counts[votes[i]] += i != agent ? 1 : 0;
    }
    for (uint32_t k = 0; k < n_options; k++) {
        memset(seen + n, (int)k, (size_t)counts[k]);
        n += counts[k];
    }
    return n;
}

/* x is advanced; returns the vote. */
static uint32_t neural(const qr_model *model, const float *global, const uint8_t *seen, int64_t degree, float *x,
                       plain_draws *draws, uint32_t *score)
{
    const qr_neural *net = &model->neural;
    uint32_t d = net->state_dim;
    uint32_t k = net->n_options;
    float input[2 * QR_MAX_OPTIONS + QR_NEURAL_MAX_STATE];
    float hidden[QR_NEURAL_MAX_HIDDEN];
    float z[QR_MAX_OPTIONS] = {0};
    for (uint32_t i = 0; i < k; i++) {
        input[i] = global[i];
        input[k + d + i] = degree > 0 ? (float)count_of(seen, degree, i) / (float)degree : 0.0f;
    }
    memcpy(input + k, x, d * sizeof(float));
    for (uint32_t h = 0; h < net->hidden; h++) {
        float sum = net->b1[h];
        for (uint32_t i = 0; i < 2 * k + d; i++) {
            sum = qr_fmaf(net->w1[h * (2 * k + d) + i], input[i], sum);
        }
        hidden[h] = qr_tanhf(sum);
    }
    for (uint32_t i = 0; i < d; i++) {
        float sum = net->b2[i];
        for (uint32_t h = 0; h < net->hidden; h++) {
            sum = qr_fmaf(net->w2[i * net->hidden + h], hidden[h], sum);
        }
        x[i] = qr_fmaf(net->dt, sum - x[i], x[i]);
    }
    for (uint32_t i = 0; i < k; i++) {
        z[i] = net->bv[i];
        for (uint32_t j = 0; j < d; j++) {
            z[i] = qr_fmaf(net->wv[i * d + j], x[j], z[i]);
        }
    }
    return qr_neural_vote(net, z,
                          &(qr_draws){.key = draws->seed,
                                      .agent = (uint64_t)draws->agent,
                                      .step = (uint32_t)draws->step,
                                      .stream = draws->stream},
                          score);
}

static void count(const uint8_t *votes, const uint32_t *scores, int64_t n, qr_tally *tally)
{
    memset(tally, 0, sizeof *tally);
    int64_t leader[QR_MAX_OPTIONS];
    for (int64_t i = 0; i < n; i++) {
        uint8_t k = votes[i];
        if (tally->votes[k]++ == 0 || scores[i] > scores[leader[k]]) {
            leader[k] = i;
            tally->leader[k] = qr_leader_pack(scores[i], i);
        }
    }
}

typedef struct plain_room {
    uint8_t *next;
    uint8_t *seen;
    uint32_t *scores;
} plain_room;

/* Agent i's vote after the step. */
static uint8_t step_agent(const qr_model *model, const plain_graph *graph, const float *global, int64_t step, int64_t i,
                          bool zealot, const uint8_t *votes, float *state, plain_room *room)
{
    const qr_rule *rule = &model->rule;
    bool is_neural = model->kind == QR_RULE_NEURAL;
    if (!plain_coin(rule->seed, i, step, QR_STREAM_PLANE_ACTIVATION, rule->activation) || (zealot && !is_neural)) {
        return votes[i];
    }
    int64_t degree = look(graph, votes, i, rule->n_options, room->seen);
    plain_draws draws = {.seed = rule->seed, .agent = i, .step = step, .stream = QR_STREAM_RULE};
    plain_draws noise = {.seed = rule->seed, .agent = i, .step = step, .stream = QR_STREAM_CONTROL};
    uint32_t vote = votes[i];
    if (is_neural) {
        vote = neural(model, global, room->seen, degree, state + i * model->state_dim, &draws, &room->scores[i]);
    }
    if (zealot) {
        room->scores[i] = 0;
        return votes[i];
    }
    if (plain_coin(rule->seed, i, step, QR_STREAM_PLANE_NOISE, rule->noise)) {
        room->scores[i] = 0;
        return (uint8_t)plain_draw_below(&noise, rule->n_options);
    }
    if (is_neural || (degree == 0 && model->kind != QR_RULE_POTTS)) {
        return (uint8_t)vote;
    }
    if (rule->choice_planes > 0) {
        uint32_t chosen = 0;
        for (uint32_t b = 0; b < rule->choice_planes; b++) {
            chosen += plane_bit(rule->seed, i, step, QR_STREAM_PLANE_RULE, b) << b;
        }
        return room->seen[chosen];
    }
    return (uint8_t)plain_vote(model, room->seen, degree, vote, &draws);
}

void plain_step(const qr_model *model, const qr_network_spec *spec, const plain_graph *graph, const uint64_t *frozen,
                int64_t step, uint8_t *votes, float *state, qr_tally *tally)
{
    size_t n = (size_t)graph->n_agents;
    plain_room room = {calloc(n, 1), calloc(n * 27, 1), calloc(n, sizeof(uint32_t))};
    float global[QR_MAX_OPTIONS] = {0};
    if (room.next == NULL || room.seen == NULL || room.scores == NULL) {
        abort();
    }
    for (uint32_t k = 0; k < model->rule.n_options; k++) {
        global[k] = (float)tally->votes[k] / (float)graph->n_agents;
    }
    int n_colours = !model->sweeps ? 1 : graph->colour != NULL ? graph->n_colours : qr_lattice_colours(spec);
    bool from_planes = is_plane_potts(model, spec);
    for (int colour = 0; colour < n_colours; colour++) {
        for (int64_t i = 0; i < graph->n_agents; i++) {
            int turn = !model->sweeps ? 0 : graph->colour != NULL ? graph->colour[i] : qr_lattice_colour(spec, i);
            bool mine = turn == colour;
            bool zealot = (frozen[i / 64] >> (i % 64) & 1u) != 0;
            room.next[i] = votes[i];
            if (mine && from_planes) {
                int64_t degree = look(graph, votes, i, 2, room.seen);
                room.next[i] = plane_potts(model, room.seen, degree, votes[i], i, step, colour, n_colours);
            } else if (mine) {
                room.next[i] = step_agent(model, graph, global, step, i, zealot, votes, state, &room);
            }
        }
        memcpy(votes, room.next, n);
    }
    count(votes, room.scores, graph->n_agents, tally);
    free(room.next);
    free(room.seen);
    free(room.scores);
}
