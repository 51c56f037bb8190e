/* Neural agents on tensor cores, for compute.precision: fast. Agrees with the exact kernel (neural.cu) statistically:
 * states are float32, products are FP16 numbers summed in float32, tanh and 2^x are the device's approximations.
 *
 * A warp takes 32 agents at a time, in two halves. While it works on a half, states of the next tile's are on their way
 * into the place that the half has left. States never go through shared memory on their way out. */
#include "neural_fast.cuh"
#include "neural_gather.cuh"
#include "neural_tally.cuh"
#include "places.cuh"
#include "view.cuh"

#include <cuda_pipeline_primitives.h>

/* Begins to copy the states of half a tile into shared memory. Rows of agents beyond the part keep what they had. */
template <int STATE>
static __device__ __forceinline__ void begin_load(const qr_part *part, float *x, int32_t row, const float *states,
                                                  int64_t first)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)part->neural.state_dim;
    const int64_t left = part->count - first;
    const int32_t here = left < 0 ? 0 : left < HALF ? (int32_t)left : HALF;
    const float *from = states + first * n_state;
    if (n_state % 4 == 0) {
        const int32_t vectors = n_state / 4;
#pragma unroll(STATE != 0 ? STATE / 8 : 1)
        for (int32_t i = lane; i < HALF * vectors; i += WARP) {
            if (i < here * vectors) {
                __pipeline_memcpy_async(x + i / vectors * row + i % vectors * 4, from + i * 4, sizeof(float4));
            }
        }
    } else {
        for (int32_t i = lane; i < here * n_state; i += WARP) {
            __pipeline_memcpy_async(x + i / n_state * row + i % n_state, from + i, sizeof(float));
        }
    }
    __pipeline_commit();
}

/* The same from counts in registers. False where those do not suffice. */
template <bool WIDE>
static __device__ __forceinline__ bool put_counted_shares(const qr_part *part, const uint8_t *votes, int64_t first,
                                                          uint4 *to)
{
    qr_counts near;
    uint32_t share[8];
    if (!qr_count_near<WIDE, QR_ANY_NETWORK>(part, votes, first, &near)) {
        return false;
    }
    const float each = near.degree > 0 ? __frcp_rn((float)near.degree) : 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        share[i] = !WIDE && i >= 4 ? 0
                                   : pack_halves((float)qr_count_of(&near, 2 * i) * each,
                                                 (float)qr_count_of(&near, 2 * i + 1) * each);
    }
    to[0] = make_uint4(share[0], share[1], share[2], share[3]);
    to[1] = make_uint4(share[4], share[5], share[6], share[7]);
    return true;
}

/* Shares of the options among the neighbours of the lane's agent, in FP16. Counts go through the lane's row of scores.
 */
static __device__ __forceinline__ void put_shares(const qr_part *part, const fast_block *block, const fast_warp *warp,
                                                  const uint8_t *votes, int64_t index, uint32_t own)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t n_options = (int32_t)part->rule.n_options;
    uint4 *to = (uint4 *)(warp->shares + lane * SHARE_ROW);
    if (part->complete) {
        const uint4 *from = (const uint4 *)(block->others + own * SHARE_ROW);
        to[0] = from[0];
        to[1] = from[1];
        return;
    }
    if (n_options <= 8 ? put_counted_shares<false>(part, votes, index - lane, to)
                       : put_counted_shares<true>(part, votes, index - lane, to)) {
        return;
    }
    uint8_t near[QR_LATTICE_MAX_NEIGHBOURS];
    qr_view view = {};
    float *count = warp->scores + lane * warp->score_row;
    uint32_t share[8];
    if (index < part->count) {
        qr_look(part, votes, index, near, &view);
    }
    for (int32_t k = 0; k < n_options; k++) {
        count[k] = 0.0f;
    }
    for (int64_t begin = 0; begin < view.degree; begin += 255) { /* a byte for each option */
        const int64_t end = begin + 255 < view.degree ? begin + 255 : view.degree;
        uint64_t low = 0;
        uint64_t high = 0;
        for (int64_t j = begin; j < end; j++) {
            uint32_t vote = qr_view_vote(&view, j);
            uint64_t one = (uint64_t)1 << (8u * (vote % 8u));
            low += vote < 8u ? one : 0;
            high += vote < 8u ? 0 : one;
        }
        for (int32_t k = 0; k < n_options; k++) {
            count[k] += (float)((k < 8 ? low : high) >> (8 * (k % 8)) & 0xffu);
        }
    }
    const float each = view.degree > 0 ? __frcp_rn((float)view.degree) : 0.0f;
#pragma unroll
    for (int32_t i = 0; i < 8; i++) {
        float first = 2 * i < n_options ? count[2 * i] * each : 0.0f;
        float second = 2 * i + 1 < n_options ? count[2 * i + 1] * each : 0.0f;
        share[i] = pack_halves(first, second);
    }
    to[0] = make_uint4(share[0], share[1], share[2], share[3]);
    to[1] = make_uint4(share[4], share[5], share[6], share[7]);
}

/* One half of a tile: new states to device memory, scores to shared memory; on the way the states of `next`, an agent,
 * begin to come. active: bits of the tile's agents. states, next_states: as qr_find_agent says. */
template <int TILES, int STATE, int HIDDEN>
static __device__ __forceinline__ void advance_half(const qr_part *part, const fast_layout *at, const fast_block *block,
                                                    const fast_warp *warp, float *states, int64_t first, int32_t half,
                                                    uint32_t active, const float *next_states, int64_t next)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t c = lane % 4;
    const int32_t row = fast_row(TILES);
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)part->neural.state_dim;
    const bool keep = TILES <= 4; /* the states in registers */
    const uint32_t *weights = block->weights - at->shared;
    const float scale = *(const float *)(weights + at->scale);
    float *x = warp->x + half * HALF * row;
    const float *mine = x + lane / 4 * row + 4 * c;
    const uint32_t *share = warp->shares + (half * HALF + lane / 4) * SHARE_ROW + c;
    const uint32_t shares[4] = {share[0], share[8 * SHARE_ROW], share[4], share[8 * SHARE_ROW + 4]};
    float4 old[keep ? TILES : 1][2];
    uint32_t state[TILES][4];
    float sums[TILES][2][4];
#pragma unroll
    for (int b = 0; b < TILES; b++) {
        float4 upper = *(const float4 *)(mine + 16 * b);
        float4 lower = *(const float4 *)(mine + 8 * row + 16 * b);
        pack_rows(upper, lower, scale, state[b]);
        if (keep) {
            old[b][0] = upper;
            old[b][1] = lower;
        }
    }
    if (keep) {
        __syncwarp();
        begin_load<STATE>(part, x, row, next_states, next);
    }
    sum_layers<TILES, HIDDEN>(at, block, state, shares, sums);
    const bool moves[2] = {(active >> (half * HALF + lane / 4) & 1u) != 0,
                           (active >> (half * HALF + lane / 4 + 8) & 1u) != 0};
    float *to = states + (first + half * HALF + lane / 4) * n_state + 4 * c;
#pragma unroll
    for (int b = 0; b < TILES; b++) {
        const float4 inverse = *(const float4 *)(weights + at->inverse2 + 16 * b + 4 * c);
        const float4 bias = *(const float4 *)(weights + at->b2 + 16 * b + 4 * c);
        float4 upper = keep ? old[b][0] : *(const float4 *)(mine + 16 * b);
        float4 lower = keep ? old[b][1] : *(const float4 *)(mine + 8 * row + 16 * b);
        upper = move_state(upper, part->neural.dt, sums[b][0][0], sums[b][0][1], sums[b][1][0], sums[b][1][1], inverse,
                           bias);
        lower = move_state(lower, part->neural.dt, sums[b][0][2], sums[b][0][3], sums[b][1][2], sums[b][1][3], inverse,
                           bias);
        if (moves[0]) {
            store_vector(to + 16 * b, upper, n_state - 16 * b - 4 * c, n_state % 4 == 0);
        }
        if (moves[1]) {
            store_vector(to + 8 * n_state + 16 * b, lower, n_state - 16 * b - 4 * c, n_state % 4 == 0);
        }
        pack_rows(upper, lower, scale, state[b]);
    }
    if (!keep) {
        __syncwarp();
        begin_load<STATE>(part, x, row, next_states, next);
    }
    put_scores<TILES>(at, block, warp, half, state);
}

/* qr_neural_vote with the device's 2^x and float shares, from the same draw. z: a row of shared memory, WIDTH floats.
 */
template <int WIDTH>
static __device__ __forceinline__ uint32_t vote_fast(const qr_neural *net, const float *z, qr_draws *draws,
                                                     uint32_t *score)
{
    const int n_options = (int)net->n_options;
    const float nothing = qr_float_from_bits(0xff800000u);
    float weight[WIDTH];
    float best = z[0];
    float second = nothing;
    uint32_t vote = 0;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
        weight[k] = k < n_options ? z[k] : nothing;
        if (k > 0 && weight[k] > best) {
            second = best;
            best = weight[k];
            vote = (uint32_t)k;
        } else if (k > 0 && weight[k] > second) {
            second = weight[k];
        }
    }
    if (net->inverse_temperature == 0.0f) {
        *score = qr_float_bits(best - second) >> 8 & 0x7fffffu;
        return vote;
    }
    const float steepness = net->inverse_temperature * 1.44269504f;
    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < WIDTH; k++) {
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight[k]) : "f"((weight[k] - best) * steepness));
        weight[k] = fmaxf(weight[k], 0.0f); /* not a number counts as nothing */
        total += weight[k];
    }
    *score = 0;
    if (!(total > 0.0f)) {
        return vote;
    }
    float number = (float)(uint32_t)(qr_draws_next64(draws) >> 40) * 0x1p-24f * total;
    float here = weight[0];
    bool beyond = true;
    vote = 0;
#pragma unroll
    for (int k = 0; k + 1 < WIDTH; k++) {
        beyond = beyond && k + 1 < n_options && number >= here;
        number = beyond ? number - here : number;
        here = beyond ? weight[k + 1] : here;
        vote += beyond ? 1u : 0u;
    }
    const uint32_t share = (uint32_t)(__fdividef(here, total) * 16777216.0f);
    *score = share > 0xffffffu ? 0xffffffu : share;
    return vote;
}

/* A tile's votes, a lane an agent, as whole words. mine: the lane has an agent; those that have are the first. */
static __device__ __forceinline__ void store_words(uint8_t *next, uint32_t packing, int64_t position, uint32_t vote,
                                                   bool mine)
{
    const uint32_t per_word = 4u << packing;
    const uint32_t lane = threadIdx.x % WARP;
    uint32_t word = vote << (lane % per_word * (8u >> packing));
    for (uint32_t distance = 1; distance < per_word; distance *= 2) {
        word |= __shfl_xor_sync(~0u, word, distance);
    }
    if (mine && lane % per_word == 0) {
        *(uint32_t *)(next + (position >> packing)) = word;
    }
}

/* Votes of a tile from its scores, and their tally. own: current votes. */
static __device__ __forceinline__ void take_votes(const qr_part *part, const fast_warp *warp, int64_t first,
                                                  int64_t step, uint32_t active, uint32_t noisy, uint32_t own,
                                                  uint8_t *next, qr_block_tally *tally)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int64_t index = first + lane;
    const int64_t agent = part->first + index;
    const bool mine = index < part->count;
    uint32_t vote = own;
    uint32_t score = 0;
    bool moves = (active >> lane & 1u) != 0;
    if (part->frozen != 0 && moves) {
        moves = (part->frozen[index / QR_DEVICE_GROUP] >> (index % QR_DEVICE_GROUP) & 1u) == 0;
    }
    if (moves && (noisy >> lane & 1u) != 0) {
        vote = qr_noise_option(&part->rule, agent, step);
    } else if (moves) {
        const float *z = warp->scores + lane * warp->score_row;
        qr_draws draws;
        qr_draws_begin(&draws, part->rule.seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
        vote = part->rule.n_options <= 8u ? vote_fast<8>(&part->neural, z, &draws, &score)
                                          : vote_fast<OPTIONS>(&part->neural, z, &draws, &score);
    }
    __syncwarp();
    store_words(next, part->packing, part->before + index, vote, mine);
    qr_tally_scores(tally, vote, score, part->first + first, mine);
}

/* Weights, and what is the same for all agents of the step. Returns what follows in shared memory. */
static __device__ __forceinline__ uint32_t *prepare_block(const qr_part *part, const fast_layout *at, uint32_t *memory,
                                                          fast_block *block)
{
    const int32_t thread = (int32_t)threadIdx.x;
    const int32_t threads = (int32_t)blockDim.x;
    const int32_t n_options = (int32_t)part->rule.n_options;
    const int32_t hidden = at->hidden_tiles * 16;
    const float *packed = (const float *)part->fast_weights;
    const int64_t *votes = part->control->votes;
    const float all = __frcp_rn((float)part->rule.n_agents);
    const float others = part->rule.n_agents > 1 ? __frcp_rn((float)(part->rule.n_agents - 1)) : 0.0f;
    block->weights = memory;
    for (int32_t i = thread; i < (at->end - at->shared) / 4; i += threads) {
        ((uint4 *)memory)[i] = __ldg((const uint4 *)(part->fast_weights + at->shared) + i);
    }
    memory += at->end - at->shared;
    block->base = (const float *)memory;
    for (int32_t h = thread; h < hidden; h += threads) {
        float sum = packed[at->b1 + h];
        for (int32_t k = 0; k < n_options; k++) {
            sum = __fmaf_rn(packed[at->global + k * hidden + h], (float)votes[k] * all, sum);
        }
        ((float *)memory)[h] = sum;
    }
    memory += hidden;
    block->others = memory;
    for (int32_t i = thread; i < OPTIONS * SHARE_ROW; i += threads) {
        const int32_t own = i / SHARE_ROW;
        const int32_t k = i % SHARE_ROW * 2;
        float first = k < n_options ? (float)(votes[k] - (k == own ? 1 : 0)) * others : 0.0f;
        float second = k + 1 < n_options ? (float)(votes[k + 1] - (k + 1 == own ? 1 : 0)) * others : 0.0f;
        memory[i] = pack_halves(first, second);
    }
    return memory + OPTIONS * SHARE_ROW;
}

/* STATE: size of a state, HIDDEN: tiles of hidden units; 0 where not known when compiled. */
template <class PLACES, int TILES, int STATE, int HIDDEN>
static __global__ void __launch_bounds__(most_warps(TILES) * WARP, 1)
    update_fast(const __grid_constant__ qr_part part, const fast_plan plan, const __grid_constant__ PLACES places)
{
    extern __shared__ uint4 dynamic[];
    __shared__ qr_block_tally tally;
    if (part.control->stopped) {
        return;
    }
    const fast_layout at = find_fast_layout(&part.neural);
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t number = (int32_t)threadIdx.x / WARP;
    const int64_t step = part.control->step + 1;
    const uint8_t *votes = part.packed[part.control->current];
    uint8_t *next_votes = part.packed[part.control->current ^ 1u];
    const int64_t stride = (int64_t)gridDim.x * plan.warps * TILE;
    int64_t agent = ((int64_t)number * gridDim.x + blockIdx.x) * TILE; /* of the launch */
    float *next_states = NULL;
    int64_t next = qr_find_agent(&part, &places, agent, &next_states);
    fast_block block;
    uint32_t *memory = prepare_block(&part, &at, (uint32_t *)dynamic, &block) + number * plan.warp_words;
    fast_warp warp;
    warp.x = (float *)memory;
    warp.shares = memory + TILE * fast_row(TILES);
    warp.scores = (float *)(warp.shares + TILE * SHARE_ROW);
    warp.score_row = plan.score_row;
    for (int32_t i = lane; i < TILE * fast_row(TILES); i += WARP) {
        warp.x[i] = 0.0f; /* columns beyond the state must be numbers */
    }
    __syncwarp();
    begin_load<STATE>(&part, warp.x, fast_row(TILES), next_states, next);
    begin_load<STATE>(&part, warp.x + HALF * fast_row(TILES), fast_row(TILES), next_states, next + HALF);
    qr_tally_clear(&tally, part.rule.n_options);
    for (; agent < qr_count_agents(&part, &places); agent += stride) {
        const int64_t first = next;
        float *states = next_states;
        next = qr_find_agent(&part, &places, agent + stride, &next_states);
        const int64_t position = part.before + first + lane;
        const uint32_t own = position < part.view ? qr_packed_vote(votes, part.packing, position) : 0;
        uint32_t active;
        uint32_t noisy;
        qr_draw_masks<TILE>(&part, first, step, &active, &noisy);
        put_shares(&part, &block, &warp, votes, first + lane, own);
#pragma unroll 1
        for (int32_t half = 0; half < TILE / HALF; half++) {
            __pipeline_wait_prior(1);
            __syncwarp();
            advance_half<TILES, STATE, HIDDEN>(&part, &at, &block, &warp, states, first, half, active, next_states,
                                               next + half * HALF);
        }
        __syncwarp();
        take_votes(&part, &warp, first, step, active, noisy, own, next_votes, &tally);
        __syncwarp();
    }
    __pipeline_wait_prior(0);
    qr_tally_finish(&part, &tally);
}

template <class PLACES, int TILES, int STATE, int HIDDEN>
static void launch(const qr_part *part, const PLACES *places, const fast_plan *plan, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    int64_t tiles = (qr_count_agents(part, places) + TILE - 1) / TILE;
    int64_t blocks = tiles < processors ? tiles : processors;
    (void)cudaFuncSetAttribute(update_fast<PLACES, TILES, STATE, HIDDEN>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               plan->bytes);
    update_fast<PLACES, TILES, STATE, HIDDEN>
        <<<(unsigned)(blocks > 0 ? blocks : 1), (unsigned)(plan->warps * WARP), (size_t)plan->bytes, stream>>>(
            *part, *plan, *places);
}

template <class PLACES> static void launch_best(const qr_part *part, const PLACES *places, cudaStream_t stream)
{
    const fast_plan plan = make_fast_plan(&part->neural, fast_shared_bytes());
    const uint32_t state = part->neural.state_dim;
    if (state == 64 && part->neural.hidden == 64) {
        launch<PLACES, 4, 64, 4>(part, places, &plan, stream);
    } else if (state <= 16) {
        launch<PLACES, 1, 0, 0>(part, places, &plan, stream);
    } else if (state <= 32) {
        launch<PLACES, 2, 0, 0>(part, places, &plan, stream);
    } else if (state <= 64) {
        launch<PLACES, 4, 0, 0>(part, places, &plan, stream);
    } else {
        launch<PLACES, 8, 0, 0>(part, places, &plan, stream);
    }
}

extern "C" void qr_launch_neural_fast(const qr_part *part, cudaStream_t stream)
{
    const qr_whole_part places = {};
    launch_best(part, &places, stream);
}

extern "C" void qr_launch_frames_fast(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream)
{
    launch_best(part, batch, stream);
}
