/* One byte a vote: every rule on every network, an agent at a time. */
#include "backend/cpu/cpu.h"

#include "rules/best_of_n.h"
#include "rules/majority.h"
#include "rules/potts.h"
#include "rules/q_voter.h"
#include "rules/voter.h"

#include <string.h>

typedef uint32_t (*vote_rule)(const qr_rule *rule, const qr_view *view, qr_draws *draws);

/* True for agents all of whose neighbours are at the plain distances. */
static bool is_interior(const qr_network_spec *spec, int64_t agent)
{
    if (spec->dims == 1) {
        return spec->periodic;
    }
    int64_t x = agent % spec->size[0];
    int64_t y = agent / spec->size[0] % spec->size[1];
    bool inside = x > 0 && x < spec->size[0] - 1;
    if (spec->dims == 3 || !spec->periodic) {
        inside = inside && y > 0 && y < spec->size[1] - 1;
    }
    if (spec->dims == 3 && !spec->periodic) {
        int64_t z = agent / (spec->size[0] * spec->size[1]);
        inside = inside && z > 0 && z < spec->size[2] - 1;
    }
    return inside;
}

int64_t qr_cpu_interior_run(const qr_backend *backend, int64_t index, int64_t most)
{
    const qr_network_spec *spec = &backend->network->spec;
    int64_t agent = backend->network->own.first + index;
    if (backend->n_offsets == 0) {
        return 0;
    }
    if (spec->dims == 1) {
        return spec->periodic ? most : 0;
    }
    if (!is_interior(spec, agent)) {
        return 0;
    }
    int64_t row = spec->size[0] - 1 - agent % spec->size[0];
    return row < most ? row : most;
}

void qr_cpu_view(const qr_backend *backend, const uint8_t *votes, int64_t index, const int64_t *tally, bool interior,
                 qr_cpu_scratch *scratch, qr_view *out)
{
    const qr_network *network = backend->network;
    int64_t self = network->before + index;
    *out = (qr_view){.own = votes[self]};
    if (network->spec.kind == QR_NETWORK_COMPLETE) {
        out->tally = tally;
        out->degree = network->spec.n_agents - 1;
        return;
    }
    if (network->rows.row != NULL) {
        out->votes = votes;
        out->list = network->rows.neighbour + network->rows.row[index];
        out->degree = network->rows.row[index + 1] - network->rows.row[index];
        return;
    }
    uint8_t *gathered = scratch->gathered;
    out->votes = gathered;
    if (interior) {
        for (int j = 0; j < backend->n_offsets; j++) {
            gathered[j] = votes[self + backend->offsets[j].distance];
        }
        out->degree = backend->n_offsets;
        return;
    }
    out->degree = qr_lattice_neighbours(network, index, scratch->positions);
    for (int64_t j = 0; j < out->degree; j++) {
        gathered[j] = votes[scratch->positions[j]];
    }
}

/* The neighbour chosen by bit planes: bit `bit` of each choice plane. */
static uint32_t chosen_vote(const qr_view *view, const uint64_t *choice, uint32_t n_choice, unsigned bit)
{
    uint32_t j = 0;
    for (uint32_t b = 0; b < n_choice; b++) {
        j |= (uint32_t)(choice[b] >> bit & 1u) << b;
    }
    return view->votes[view->list != NULL ? (int64_t)view->list[j] : (int64_t)j];
}

/* A bit for each of up to 64 agents from own index `begin` on: those who have all neighbours at the plain offsets, and
 * those whose turn it is. By stretches of a row, as working out where a single agent stands takes divisions; there,
 * colours alternate. */
typedef struct survey {
    uint64_t interior;
    uint64_t turn;
} survey;

static survey survey_group(const qr_backend *backend, int64_t begin, int64_t end, int colour)
{
    const qr_network *network = backend->network;
    const qr_network_spec *spec = &network->spec;
    survey found = {.interior = 0, .turn = backend->model->sweeps ? 0 : ~(uint64_t)0};
    if (backend->n_offsets == 0 && !backend->model->sweeps) {
        return found;
    }
    if (backend->model->sweeps && network->colour != NULL) {
        for (int64_t i = begin; i < end; i++) {
            found.turn |= (uint64_t)(network->colour[i] == colour) << (i - begin);
        }
        return found;
    }
    for (int64_t i = begin; i < end;) {
        int64_t run = qr_cpu_interior_run(backend, i, end - i);
        int64_t n = run > 0 ? run : 1;
        uint64_t here = (n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << (i - begin);
        found.interior |= run > 0 ? here : 0;
        int64_t period = spec->dims == 1 ? n : 2;
        for (int64_t j = 0; backend->model->sweeps && j < n && j < period; j++) {
            if (qr_lattice_colour(spec, network->own.first + i + j) == colour) {
                uint64_t every = spec->dims == 1 ? 1 : 0x5555555555555555u;
                found.turn |= here & every << (i + j - begin);
            }
        }
        i += n;
    }
    return found;
}

/* Up to 64 agents that share their bit planes. Inlined once per rule, so that the rule is inlined too. */
static inline __attribute__((always_inline)) void update_group(qr_backend *backend, int64_t begin, int64_t end,
                                                               int64_t step, int colour, const qr_tally *before,
                                                               qr_cpu_scratch *scratch, vote_rule vote)
{
    const qr_model *model = backend->model;
    const qr_rule *rule = &model->rule;
    const qr_network *network = backend->network;
    const survey found = survey_group(backend, begin, end, colour);
    if (found.turn == 0) {
        return;
    }
    const uint8_t *votes = backend->bytes[backend->current];
    uint8_t *next = backend->bytes[model->sweeps ? backend->current : 1 - backend->current] + network->before;
    uint64_t group = (uint64_t)(network->own.first + begin) / 64;
    uint64_t active = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    uint64_t noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
    uint64_t frozen = backend->frozen != NULL ? backend->frozen[begin / 64] : 0;
    uint64_t choice[QR_RULE_MAX_CHOICE_PLANES];
    qr_cpu_draw_choice_planes(rule, group, step, choice);
    for (int64_t i = begin; i < end; i++) {
        unsigned bit = (unsigned)(i - begin);
        int64_t agent = network->own.first + i;
        if ((found.turn >> bit & 1u) == 0) {
            continue;
        }
        uint8_t own = votes[network->before + i];
        if ((active & ~frozen) >> bit & 1u) {
            qr_view view;
            qr_cpu_view(backend, votes, i, before->votes, (found.interior >> bit & 1u) != 0, scratch, &view);
            if (noisy >> bit & 1u) {
                own = (uint8_t)qr_noise_option(rule, agent, step);
            } else if (view.degree > 0 || model->kind == QR_RULE_POTTS) { /* a lone spin is as warm as the others */
                if (rule->choice_planes > 0) {
                    own = (uint8_t)chosen_vote(&view, choice, rule->choice_planes, bit);
                } else {
                    qr_draws draws;
                    qr_draws_begin(&draws, rule->seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
                    own = (uint8_t)vote(rule, &view, &draws);
                }
            }
        }
        next[i] = own;
    }
}

#define BLOCK_OF(name)                                                                                                 \
    static void name##_block(qr_backend *backend, qr_cpu_range block, int64_t step, int colour,                        \
                             const qr_tally *before, qr_cpu_scratch *scratch)                                          \
    {                                                                                                                  \
        for (int64_t begin = block.begin; begin < block.end; begin += 64) {                                            \
            int64_t end = begin + 64 < block.end ? begin + 64 : block.end;                                             \
            update_group(backend, begin, end, step, colour, before, scratch, qr_##name##_vote);                        \
        }                                                                                                              \
    }

BLOCK_OF(voter)
BLOCK_OF(majority)
BLOCK_OF(q_voter)
BLOCK_OF(potts)
BLOCK_OF(best_of_n)

void qr_cpu_tally_bytes(const uint8_t *votes, qr_cpu_range block, int64_t first_agent, uint32_t n_options,
                        qr_tally *tally)
{
    int64_t n = block.end - block.begin;
    int64_t counts[2][QR_MAX_OPTIONS]; /* two, so that equal votes in a row do not wait for each other */
    memset(counts, 0, sizeof counts);
    for (int64_t i = 0; i < n; i++) {
        counts[i % 2][votes[i]]++;
    }
    for (uint32_t k = 0; k < n_options; k++) {
        int64_t count = counts[0][k] + counts[1][k];
        if (count > 0 && tally->leader[k] == 0) {
            const uint8_t *at = memchr(votes, (int)k, (size_t)n);
            tally->leader[k] = qr_leader_pack(0, first_agent + block.begin + (at - votes));
        }
        tally->votes[k] += count;
    }
}

void qr_cpu_bytes_count(const qr_backend *backend, qr_cpu_range block, qr_tally *tally)
{
    const uint8_t *own = backend->bytes[backend->current] + backend->network->before;
    qr_cpu_tally_bytes(own + block.begin, block, backend->network->own.first, backend->model->rule.n_options, tally);
}

void qr_cpu_bytes_block(qr_backend *backend, qr_cpu_range block, int64_t step, int colour, const qr_tally *before,
                        qr_cpu_scratch *scratch, qr_tally *tally)
{
    switch (backend->model->kind) {
    case QR_RULE_VOTER: voter_block(backend, block, step, colour, before, scratch); break;
    case QR_RULE_MAJORITY: majority_block(backend, block, step, colour, before, scratch); break;
    case QR_RULE_Q_VOTER: q_voter_block(backend, block, step, colour, before, scratch); break;
    case QR_RULE_POTTS: potts_block(backend, block, step, colour, before, scratch); break;
    case QR_RULE_BEST_OF_N: best_of_n_block(backend, block, step, colour, before, scratch); break;
    case QR_RULE_NEURAL:
    case QR_N_RULES: break;
    }
    if (backend->model->sweeps && colour + 1 < backend->n_colours) {
        return;
    }
    const qr_network *network = backend->network;
    int buffer = backend->model->sweeps ? backend->current : 1 - backend->current;
    qr_cpu_tally_bytes(backend->bytes[buffer] + network->before + block.begin, block, network->own.first,
                       backend->model->rule.n_options, tally);
}
