/* Packed votes: every rule on every network, a thread an agent. A block takes chunks of groups of 64 agents: first the
 * bit planes of all its groups, then the agents. */
#include "rules/best_of_n.h"
#include "rules/majority.h"
#include "rules/potts.h"
#include "rules/q_voter.h"
#include "rules/voter.h"
#include "tally.cuh"
#include "view.cuh"

enum { THREADS = 256, MAX_GROUPS = 128, MIN_GROUPS = THREADS / QR_DEVICE_GROUP };

/* What the agents of a group share. */
typedef struct group_planes {
    uint64_t active[MAX_GROUPS]; /* and no zealot */
    uint64_t noisy[MAX_GROUPS];
    uint64_t choice[QR_RULE_MAX_CHOICE_PLANES][MAX_GROUPS];
} group_planes;

typedef struct shared_memory {
    qr_block_tally tally;
    group_planes planes;
    int64_t votes[QR_DEVICE_OPTIONS]; /* of all agents before the step; complete networks */
} shared_memory;

/* The kinds of rules as compile-time constants; qr_rule_kind is made of the same list. */
typedef enum rule_kind {
#define QR_RULE(identifier, name, parameters, summary, reference) RULE_##identifier,
#include "rules/rule_list.h"
#undef QR_RULE
    N_RULES
} rule_kind;

static __device__ void draw_planes(const qr_part *part, int64_t first_group, int64_t n_groups, int64_t step,
                                   group_planes *planes)
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
static __device__ __forceinline__ uint32_t apply_rule(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    switch (KIND) {
    case RULE_VOTER: return qr_voter_vote(rule, view, draws);
    case RULE_MAJORITY: return qr_majority_vote(rule, view, draws);
    case RULE_Q_VOTER: return qr_q_voter_vote(rule, view, draws);
    case RULE_POTTS: return qr_potts_vote(rule, view, draws);
    default: return qr_best_of_n_vote(rule, view, draws);
    }
}

/* The next vote of an active agent. */
template <int KIND>
static __device__ __forceinline__ uint32_t next_vote(const qr_part *part, const shared_memory *shared,
                                                     const uint8_t *votes, int64_t index, int64_t g, uint32_t bit,
                                                     int64_t step)
{
    const qr_rule *rule = &part->rule;
    int64_t agent = part->first + index;
    if (shared->planes.noisy[g] >> bit & 1u) {
        return qr_noise_option(rule, agent, step);
    }
    uint8_t near[QR_LATTICE_MAX_NEIGHBOURS];
    qr_view view = {};
    if (part->complete) {
        view.own = qr_packed_vote(votes, part->packing, part->before + index);
        view.tally = shared->votes;
        view.degree = rule->n_agents - 1;
    } else {
        qr_look(part, votes, index, near, &view);
    }
    if (view.degree <= 0) {
        return view.own;
    }
    if (KIND == RULE_VOTER && rule->choice_planes > 0) {
        uint32_t j = 0;
        for (uint32_t b = 0; b < rule->choice_planes; b++) {
            j |= (uint32_t)(shared->planes.choice[b][g] >> bit & 1u) << b;
        }
        return qr_view_vote(&view, j);
    }
    qr_draws draws;
    qr_draws_begin(&draws, rule->seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
    return apply_rule<KIND>(rule, &view, &draws);
}

/* A warp's votes to 32 positions in a row, the first a multiple of 32. */
static __device__ __forceinline__ void store_votes(uint8_t *next, uint32_t packing, int64_t position, uint32_t vote)
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

template <int KIND>
static __global__ void __launch_bounds__(THREADS)
    update_packed(const __grid_constant__ qr_part part, int colour, int last_colour, int64_t groups_at_once)
{
    __shared__ shared_memory shared;
    const qr_control *control = part.control;
    if (control->stopped) {
        return;
    }
    const qr_rule *rule = &part.rule;
    const int64_t step = control->step + 1;
    const uint8_t *votes = part.packed[control->current];
    uint8_t *next = part.packed[part.sweeps ? control->current : control->current ^ 1u];
    const int64_t n_groups = (part.count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    for (uint32_t k = threadIdx.x; part.complete && k < rule->n_options; k += blockDim.x) {
        shared.votes[k] = control->votes[k];
    }
    qr_tally_clear(&shared.tally, rule->n_options);
    for (int64_t group = blockIdx.x * groups_at_once; group < n_groups; group += gridDim.x * groups_at_once) {
        int64_t here = n_groups - group < groups_at_once ? n_groups - group : groups_at_once;
        draw_planes(&part, group, here, step, &shared.planes);
        __syncthreads();
        for (int64_t i = threadIdx.x; i < here * QR_DEVICE_GROUP; i += blockDim.x) {
            int64_t index = group * QR_DEVICE_GROUP + i;
            int64_t position = part.before + index;
            bool mine = index < part.count;
            uint32_t vote = position < part.view ? qr_packed_vote(votes, part.packing, position) : 0;
            bool moves = mine && (shared.planes.active[i / QR_DEVICE_GROUP] >> (i % QR_DEVICE_GROUP) & 1u) != 0;
            if (moves && (KIND != RULE_POTTS || qr_lattice_colour_of(&part.lattice, part.first + index) == colour)) {
                vote = next_vote<KIND>(&part, &shared, votes, index, i / QR_DEVICE_GROUP,
                                       (uint32_t)(i % QR_DEVICE_GROUP), step);
            }
            __syncwarp();
            store_votes(next, part.packing, position - threadIdx.x % 32u, vote);
            if (mine && last_colour) {
                qr_tally_vote(&shared.tally, vote, qr_leader_pack(0, part.first + index));
            }
        }
        __syncthreads();
    }
    if (last_colour) {
        qr_tally_finish(&part, &shared.tally);
    }
}

template <int KIND> static void launch(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    int per_processor = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, update_packed<KIND>, THREADS, 0);
    int64_t resident = (int64_t)processors * per_processor;
    int64_t n_groups = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    int64_t groups_at_once = n_groups / (4 * resident) / MIN_GROUPS * MIN_GROUPS;
    groups_at_once = groups_at_once < MIN_GROUPS ? MIN_GROUPS : groups_at_once;
    groups_at_once = groups_at_once > MAX_GROUPS ? MAX_GROUPS : groups_at_once;
    int64_t chunks = (n_groups + groups_at_once - 1) / groups_at_once;
    int64_t blocks = chunks < resident ? chunks : resident;
    update_packed<KIND>
        <<<(unsigned)(blocks > 0 ? blocks : 1), THREADS, 0, stream>>>(*part, colour, last_colour, groups_at_once);
}

extern "C" void qr_launch_packed(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    switch (part->kind) {
    case RULE_VOTER: launch<RULE_VOTER>(part, colour, last_colour, stream); break;
    case RULE_MAJORITY: launch<RULE_MAJORITY>(part, colour, last_colour, stream); break;
    case RULE_Q_VOTER: launch<RULE_Q_VOTER>(part, colour, last_colour, stream); break;
    case RULE_POTTS: launch<RULE_POTTS>(part, colour, last_colour, stream); break;
    default: launch<RULE_BEST_OF_N>(part, colour, last_colour, stream); break;
    }
}
