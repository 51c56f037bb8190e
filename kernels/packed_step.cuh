/* Device code of a step on packed votes, for the kernels that take one step and those that take many: the bit planes of
 * groups of 64 agents, the next vote of an agent, and storing a warp's votes. */
#ifndef QR_PACKED_STEP_CUH
#define QR_PACKED_STEP_CUH

#include "rules/best_of_n.h"
#include "rules/majority.h"
#include "rules/potts.h"
#include "rules/q_voter.h"
#include "rules/voter.h"
#include "tally.cuh"
#include "view.cuh"

enum {
    QR_PACKED_THREADS = 256,
    QR_PACKED_MAX_GROUPS = 128,
    QR_PACKED_MIN_GROUPS = QR_PACKED_THREADS / QR_DEVICE_GROUP
};

/* What the agents of a group share. */
typedef struct qr_group_planes {
    uint64_t active[QR_PACKED_MAX_GROUPS]; /* and no zealot */
    uint64_t noisy[QR_PACKED_MAX_GROUPS];
    uint64_t choice[QR_RULE_MAX_CHOICE_PLANES][QR_PACKED_MAX_GROUPS];
} qr_group_planes;

typedef struct qr_packed_shared {
    qr_block_tally tally;
    qr_group_planes planes;
} qr_packed_shared;

/* The kinds of rules as compile-time constants; qr_rule_kind is made of the same list. */
typedef enum qr_device_kind {
#define QR_RULE(identifier, name, parameters, summary, reference) QR_KIND_##identifier,
#include "rules/rule_list.h"
#undef QR_RULE
    QR_N_KINDS
} qr_device_kind;

static __device__ void qr_draw_planes(const qr_part *part, int64_t first_group, int64_t n_groups, int64_t step,
                                      qr_group_planes *planes)
{
    const qr_rule *rule = &part->rule;
    for (int64_t g = threadIdx.x; g < n_groups; g += blockDim.x) {
        uint64_t group = (uint64_t)part->first / QR_DEVICE_GROUP + (uint64_t)(first_group + g);
        uint64_t frozen = part->frozen != 0 ? part->frozen[first_group + g] : 0;
        planes->active[g] =
            qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation) & ~frozen;
        planes->noisy[g] = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
        for (uint32_t pair = 0; 2u * pair < rule->choice_planes; pair++) {
            uint64_t choice[2];
            qr_planes(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_RULE, pair, choice);
            planes->choice[2u * pair][g] = choice[0];
            planes->choice[2u * pair + 1u][g] = choice[1];
        }
    }
}

template <int KIND>
static __device__ __forceinline__ uint32_t qr_apply_rule(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    switch (KIND) {
    case QR_KIND_VOTER: return qr_voter_vote(rule, view, draws);
    case QR_KIND_MAJORITY: return qr_majority_vote(rule, view, draws);
    case QR_KIND_Q_VOTER: return qr_q_voter_vote(rule, view, draws);
    case QR_KIND_POTTS: return qr_potts_vote(rule, view, draws);
    default: return qr_best_of_n_vote(rule, view, draws);
    }
}

/* The next vote of an active agent. */
template <int KIND>
static __device__ __forceinline__ uint32_t qr_next_vote(const qr_part *part, const qr_packed_shared *shared,
                                                        const int64_t *before, const uint8_t *votes, int64_t index,
                                                        uint32_t own, int64_t g, uint32_t bit, int64_t step)
{
    const qr_rule *rule = &part->rule;
    int64_t agent = part->first + index;
    if (shared->planes.noisy[g] >> bit & 1u) {
        return qr_noise_option(rule, agent, step);
    }
    uint8_t near[QR_LATTICE_MAX_NEIGHBOURS];
    qr_view view = {};
    if (part->complete) {
        view.own = own;
        view.tally = before;
        view.degree = rule->n_agents - 1;
    } else {
        qr_look(part, votes, index, near, &view);
    }
    if (KIND != QR_KIND_POTTS && view.degree <= 0) { /* a lone spin is as warm as the others */
        return view.own;
    }
    if (KIND == QR_KIND_VOTER && rule->choice_planes > 0) {
        uint32_t j = 0;
        for (uint32_t b = 0; b < rule->choice_planes; b++) {
            j |= (uint32_t)(shared->planes.choice[b][g] >> bit & 1u) << b;
        }
        return qr_view_vote(&view, j);
    }
    qr_draws draws;
    qr_draws_begin(&draws, rule->seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
    return qr_apply_rule<KIND>(rule, &view, &draws);
}

/* A warp's votes to 32 positions in a row, the first a multiple of 32. */
static __device__ __forceinline__ void qr_store_votes(uint8_t *next, uint32_t packing, int64_t position, uint32_t vote)
{
    uint32_t width = 8u >> packing;
    uint32_t per_word = 32u / width;
    uint32_t lane = threadIdx.x % 32u;
    uint32_t word = vote << (lane % per_word * width);
    for (uint32_t distance = 1; distance < per_word; distance *= 2) {
        word |= __shfl_xor_sync(~0u, word, distance);
    }
    if (lane % per_word == 0) {
        ((uint32_t *)next)[position / per_word + lane / per_word] = word;
    }
}

#endif
