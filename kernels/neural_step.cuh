/* What the exact kernels of neural agents share around the layers: weights and what is the same for all agents, shares,
 * votes and their tally. */
#ifndef QR_NEURAL_STEP_CUH
#define QR_NEURAL_STEP_CUH

#include "neural_gather.cuh"
#include "neural_layers.cuh"
#include "neural_tally.cuh"
#include "neural_vote.cuh"
#include "view.cuh"

/* Weights where they fit, and what is the same for all agents of the step. Returns what follows in shared memory. */
template <bool IN_SHARED>
static __device__ __forceinline__ float *prepare_block(const qr_part *part, float *memory, block_memory *block)
{
    const qr_neural *net = &part->neural;
    const weight_layout at = find_layout(net);
    const int32_t n_options = (int32_t)net->n_options;
    const int64_t *votes = part->control->votes;
    block->weights = part->packed_weights + at.w1;
    if (IN_SHARED) {
        for (int32_t i = (int32_t)threadIdx.x; i < (at.end - at.w1) / 4; i += (int32_t)blockDim.x) {
            ((float4 *)memory)[i] = __ldg((const float4 *)(part->packed_weights + at.w1) + i);
        }
        block->weights = memory;
        memory += at.end - at.w1;
    }
    for (int32_t h = (int32_t)threadIdx.x; h < at.hidden; h += (int32_t)blockDim.x) {
        float sum = part->packed_weights[at.b1 + h];
        for (int32_t k = 0; k < n_options; k++) {
            float share = (float)votes[k] / (float)part->rule.n_agents;
            sum = __fmaf_rn(part->packed_weights[at.global + k * at.hidden + h], share, sum);
        }
        memory[h] = sum;
    }
    block->base = memory;
    memory += at.hidden;
    float others = (float)(part->rule.n_agents - 1);
    for (int32_t k = (int32_t)threadIdx.x; k < n_options; k += (int32_t)blockDim.x) {
        memory[k] = others > 0.0f ? (float)votes[k] / others : 0.0f;
        memory[n_options + k] = others > 0.0f ? (float)(votes[k] - 1) / others : 0.0f;
    }
    block->others = memory;
    return memory + 2 * round_up(n_options);
}

/* Shares of the options among the neighbours of agent first + lane, from counts in registers, `apart` floats from each
 * other. False, for all lanes alike, where those do not suffice. */
template <bool WIDE, int NETWORK>
static __device__ __forceinline__ bool put_counted_shares(const qr_part *part, const uint8_t *votes, int64_t first,
                                                          float *share, int32_t apart)
{
    const uint32_t n_options = part->rule.n_options;
    qr_counts near;
    if (!qr_count_near<WIDE, NETWORK>(part, votes, first, &near)) {
        return false;
    }
    const float degree = (float)near.degree;
    const float reciprocal = near.degree > 0 ? __frcp_rn(degree) : 0.0f;
    for (uint32_t k = 0; k < n_options; k++) {
        share[k * apart] = qr_share_of(qr_count_of(&near, k), degree, reciprocal);
    }
    return true;
}

/* A warp's votes to positions in a row, the first at the start of a byte. mine: lanes that have an agent, the first
 * ones. */
static __device__ __forceinline__ void store_votes(uint8_t *next, uint32_t packing, int64_t position, uint32_t vote,
                                                   bool mine)
{
    uint32_t per_byte = 1u << packing;
    uint32_t lane = threadIdx.x % WARP;
    uint32_t byte = vote << (lane % per_byte * (8u >> packing));
    for (uint32_t distance = 1; distance < per_byte; distance *= 2) {
        byte |= __shfl_xor_sync(~0u, byte, distance);
    }
    if (mine && lane % per_byte == 0) {
        next[position >> packing] = (uint8_t)byte;
    }
}

/* By itself, so that it does not stand in the way of what is run more often. */
static __device__ __noinline__ uint32_t vote_of_many(const qr_neural *net, const float *z, qr_draws *draws,
                                                     uint32_t *score)
{
    return qr_neural_vote(net, z, draws, score);
}

/* Votes of a tile from its scores, and their tally: one warp, a lane an agent. scores: [AGENTS][n_options | 1]. */
template <int AGENTS>
static __device__ __forceinline__ void take_votes(const qr_part *part, const float *scores, int64_t first,
                                                  uint32_t active, uint32_t noisy, qr_block_tally *tally)
{
    const qr_control *control = part->control;
    const int64_t step = control->step + 1;
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int64_t index = first + lane;
    const int64_t agent = part->first + index;
    const int64_t position = part->before + index;
    const uint8_t *votes = part->packed[control->current];
    const bool mine = lane < AGENTS && index < part->count;
    uint32_t vote = lane < AGENTS && position < part->view ? qr_packed_vote(votes, part->packing, position) : 0;
    uint32_t score = 0;
    bool moves = mine && (active >> lane & 1u) != 0;
    if (part->frozen != 0 && moves) {
        moves = (part->frozen[index / QR_DEVICE_GROUP] >> (index % QR_DEVICE_GROUP) & 1u) == 0;
    }
    if (moves && (noisy >> lane & 1u) != 0) {
        vote = qr_noise_option(&part->rule, agent, step);
    } else if (moves) {
        qr_draws draws;
        qr_draws_begin(&draws, part->rule.seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
        const float *z = scores + lane * (int32_t)(part->rule.n_options | 1u);
        vote = part->rule.n_options <= QR_VOTE_OPTIONS && part->neural.inverse_temperature != 0.0f
                   ? qr_vote_of_few(&part->neural, z, &draws, &score)
                   : vote_of_many(&part->neural, z, &draws, &score);
    }
    __syncwarp();
    store_votes(part->packed[control->current ^ 1u], part->packing, position, vote, mine);
    qr_tally_scores(tally, vote, score, part->first + first, mine);
}

#endif
