/* Neural agents on tensor cores, for compute.precision: fast. Agrees with the exact kernel (neural.cu) statistically:
 * states are float32, products are FP16 numbers summed in float32, tanh and 2^x are the device's approximations.
 *
 * A warp takes 32 agents at a time, in two halves. While it works on a half, states of the next tile's are on their way
 * into the place that the half has left. States never go through shared memory on their way out. */
#include "neural_fast.cuh"
#include "neural_gather.cuh"
#include "neural_tally.cuh"
#include "view.cuh"

#include <cuda_pipeline_primitives.h>
#include <math.h>

enum { FEW_WARPS = 4, STATIC_BYTES = sizeof(qr_block_tally) + 256 };

/* How a launch divides shared memory. */
typedef struct fast_plan {
    int32_t warps;
    int32_t score_row;
    int32_t warp_words;
    int32_t bytes;
} fast_plan;

static fast_plan make_plan(const qr_neural *net, int64_t most_bytes)
{
    const fast_layout at = find_fast_layout(net);
    fast_plan plan;
    plan.score_row = net->n_options > 8 ? 16 + 4 : 8 + 4; /* odd numbers of vectors, for the banks */
    plan.warp_words = TILE * (fast_row(at.state_tiles) + SHARE_ROW + plan.score_row);
    int64_t common = at.end - at.shared + at.hidden_tiles * 16 + OPTIONS * SHARE_ROW;
    int64_t left = most_bytes / 4 - common;
    int64_t warps = left > 0 ? left / plan.warp_words : 0;
    plan.warps = (int32_t)(warps < most_warps(at.state_tiles) ? warps : most_warps(at.state_tiles));
    plan.bytes = (int32_t)((common + plan.warps * plan.warp_words) * 4);
    return plan;
}

static int64_t shared_bytes_of_device(void)
{
    int device = 0;
    int bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return bytes - STATIC_BYTES;
}

extern "C" int64_t qr_neural_fast_count(const qr_neural *net)
{
    if (net->n_options > OPTIONS || net->state_dim > MOST_STATE ||
        make_plan(net, shared_bytes_of_device()).warps < FEW_WARPS) {
        return 0;
    }
    return find_fast_layout(net).end;
}

/* A matrix whose rows and columns are scaled by powers of two; zero beyond its size. */
typedef struct scaled_matrix {
    const float *numbers;
    int32_t rows;
    int32_t columns;
    int32_t stride;
    const int *row_power;
    int column_power;
} scaled_matrix;

static float element(const scaled_matrix *matrix, int32_t row, int32_t column)
{
    if (row >= matrix->rows || column >= matrix->columns) {
        return 0.0f;
    }
    float number = matrix->numbers[(int64_t)row * matrix->stride + column];
    return (float)ldexp((double)number, matrix->row_power[row] + matrix->column_power);
}

/* Whether rows or columns of a fragment follow the numbering of states. */
enum { PLAIN = 0, STATE_ROWS = 1, STATE_COLUMNS = 2 };

/* B of 16 outputs (rows of the matrix) and 16 columns, as multiply_pair reads it. */
static void pack_fragment(const scaled_matrix *matrix, int32_t first_row, int32_t first_column, int order,
                          uint32_t *out)
{
    for (int32_t lane = 0; lane < WARP; lane++) {
        const int32_t g = lane / 4;
        const int32_t c = lane % 4;
        for (int32_t i = 0; i < 4; i++) {
            const int32_t n = i / 2; /* outputs 0 .. 7 or 8 .. 15 */
            const int32_t r = i % 2; /* columns 2c or 2c + 8 */
            const int32_t row = first_row + ((order & STATE_ROWS) != 0 ? g / 2 * 4 + 2 * n + g % 2 : 8 * n + g);
            const int32_t column = first_column + ((order & STATE_COLUMNS) != 0 ? 4 * c + 2 * r : 2 * c + 8 * r);
            __half2 both = __floats2half2_rn(element(matrix, row, column), element(matrix, row, column + 1));
            memcpy(&out[4 * lane + i], &both, sizeof both);
        }
    }
}

static bool all_finite(const float *numbers, int64_t count)
{
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        finite = finite && fabs((double)numbers[i]) <= 3.5e38;
    }
    return finite;
}

/* The power of two that brings a size to 2^13 .. 2^14. */
static int power_for(double size)
{
    int exponent = 0;
    (void)frexp(size, &exponent);
    int power = size > 0.0 ? 14 - exponent : 0;
    return power > 100 ? 100 : power;
}

/* What no state will ever exceed; 0 where there is no such bound. A hidden value is at most 1, so a state moves a share
 * dt of its way to somewhere within `reach`. */
static double bound_states(const qr_neural *net, float state_scale)
{
    double reach = 0.0;
    for (uint32_t d = 0; d < net->state_dim; d++) {
        double sum = fabs((double)net->b2[d]);
        for (uint32_t h = 0; h < net->hidden; h++) {
            sum += fabs((double)net->w2[(size_t)d * net->hidden + h]);
        }
        reach = fmax(reach, sum);
    }
    double dt = (double)net->dt;
    if (!(dt < 2.0)) {
        return 0.0;
    }
    reach = dt <= 1.0 ? reach : reach * dt / (2.0 - dt);
    return fmax(fmax(reach, (double)state_scale), 0x1p-60);
}

/* Powers of two for the rows of a matrix, of which some columns are scaled already. False when a row is beyond reach.
 */
static bool find_row_powers(const scaled_matrix *matrix, const scaled_matrix *beside, int *powers)
{
    bool within = true;
    for (int32_t r = 0; r < matrix->rows; r++) {
        double most = 0.0;
        for (int32_t c = 0; c < matrix->columns; c++) {
            most =
                fmax(most, ldexp(fabs((double)matrix->numbers[(int64_t)r * matrix->stride + c]), matrix->column_power));
        }
        for (int32_t c = 0; beside != NULL && c < beside->columns; c++) {
            most = fmax(most, fabs((double)beside->numbers[(int64_t)r * beside->stride + c]));
        }
        powers[r] = power_for(most);
        within = within && powers[r] >= -100;
    }
    return within;
}

static void put_float(uint32_t *to, double number)
{
    float rounded = (float)number;
    memcpy(to, &rounded, sizeof rounded);
}

/* Fills in what is packed by rows of hidden units, of states and of options. */
static void pack_arrays(const qr_neural *net, const int *hidden_power, const int *state_power, const int *option_power,
                        uint32_t *out)
{
    const fast_layout at = find_fast_layout(net);
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + (int32_t)net->state_dim;
    for (int32_t place = 0; place < at.hidden_tiles * 16; place++) {
        const int32_t h = hidden_at(place);
        for (int32_t k = 0; k < n_options && h < hidden; k++) {
            put_float(&out[at.global + k * at.hidden_tiles * 16 + place], (double)net->w1[(int64_t)h * columns + k]);
        }
        if (h < hidden) {
            put_float(&out[at.b1 + place], (double)net->b1[h]);
            put_float(&out[at.inverse1 + place], ldexp(1.0, -hidden_power[h]));
        }
    }
    for (int32_t d = 0; d < (int32_t)net->state_dim; d++) {
        put_float(&out[at.inverse2 + d], ldexp(1.0, -state_power[d]));
        put_float(&out[at.b2 + d], (double)net->b2[d]);
    }
    for (int32_t k = 0; k < n_options; k++) {
        put_float(&out[at.inversev + k], ldexp(1.0, -option_power[k]));
        put_float(&out[at.bv + k], (double)net->bv[k]);
    }
}

extern "C" int qr_neural_fast_pack(const qr_neural *net, float state_scale, uint32_t *out)
{
    int hidden_power[QR_NEURAL_MAX_HIDDEN];
    int state_power[MOST_STATE];
    int option_power[OPTIONS];
    const fast_layout at = find_fast_layout(net);
    const int32_t state = (int32_t)net->state_dim;
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + state;
    const double bound = bound_states(net, state_scale);
    const int power = power_for(bound);
    scaled_matrix w1 = {net->w1 + n_options, hidden, state, columns, hidden_power, -power};
    scaled_matrix shares = {net->w1 + n_options + state, hidden, n_options, columns, hidden_power, 0};
    scaled_matrix w2 = {net->w2, state, hidden, hidden, state_power, 0};
    scaled_matrix wv = {net->wv, n_options, state, state, option_power, -power};
    bool fits = bound > 0.0 && power >= -100 && all_finite(net->w1, (int64_t)hidden * columns) &&
                all_finite(net->b1, hidden) && all_finite(net->w2, (int64_t)state * hidden) &&
                all_finite(net->b2, state) && all_finite(net->wv, (int64_t)n_options * state) &&
                all_finite(net->bv, n_options);
    fits = fits && find_row_powers(&w1, &shares, hidden_power) && find_row_powers(&w2, NULL, state_power) &&
           find_row_powers(&wv, NULL, option_power);
    if (!fits) {
        return 0;
    }
    memset(out, 0, (size_t)at.end * sizeof *out);
    for (int32_t j = 0; j < at.hidden_tiles; j++) {
        uint32_t *layer1 = out + at.w1 + j * (at.state_tiles + 1) * FRAGMENT;
        uint32_t *layer2 = out + at.w2 + j * at.state_tiles * FRAGMENT;
        for (int32_t b = 0; b < at.state_tiles; b++) {
            pack_fragment(&w1, 16 * j, 16 * b, STATE_COLUMNS, layer1 + b * FRAGMENT);
            pack_fragment(&w2, 16 * b, 16 * j, STATE_ROWS, layer2 + b * FRAGMENT);
        }
        pack_fragment(&shares, 16 * j, 0, PLAIN, layer1 + at.state_tiles * FRAGMENT);
    }
    for (int32_t b = 0; b < at.state_tiles; b++) {
        pack_fragment(&wv, 0, 16 * b, STATE_COLUMNS, out + at.wv + b * FRAGMENT);
    }
    pack_arrays(net, hidden_power, state_power, option_power, out);
    put_float(&out[at.scale], ldexp(1.0, power));
    return 1;
}

/* Begins to copy the states of half a tile into shared memory. Rows of agents beyond the part keep what they had. */
template <int STATE>
static __device__ __forceinline__ void begin_load(const qr_part *part, float *x, int32_t row, int64_t first)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)part->neural.state_dim;
    const int64_t left = part->count - first;
    const int32_t here = left < 0 ? 0 : left < HALF ? (int32_t)left : HALF;
    const float *from = part->state + first * n_state;
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
    if (!qr_count_near<WIDE>(part, votes, first, &near)) {
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
 * begin to come. active: bits of the tile's agents. */
template <int TILES, int STATE, int HIDDEN>
static __device__ __forceinline__ void advance_half(const qr_part *part, const fast_layout *at, const fast_block *block,
                                                    const fast_warp *warp, int64_t first, int32_t half, uint32_t active,
                                                    int64_t next)
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
        begin_load<STATE>(part, x, row, next);
    }
    sum_layers<TILES, HIDDEN>(at, block, state, shares, sums);
    const bool moves[2] = {(active >> (half * HALF + lane / 4) & 1u) != 0,
                           (active >> (half * HALF + lane / 4 + 8) & 1u) != 0};
    float *to = part->state + (first + half * HALF + lane / 4) * n_state + 4 * c;
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
        begin_load<STATE>(part, x, row, next);
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
template <int TILES, int STATE, int HIDDEN>
static __global__ void __launch_bounds__(most_warps(TILES) * WARP, 1)
    update_fast(const __grid_constant__ qr_part part, const fast_plan plan)
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
    int64_t first = ((int64_t)number * gridDim.x + blockIdx.x) * TILE;
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
    begin_load<STATE>(&part, warp.x, fast_row(TILES), first);
    begin_load<STATE>(&part, warp.x + HALF * fast_row(TILES), fast_row(TILES), first + HALF);
    qr_tally_clear(&tally, part.rule.n_options);
    for (; first < part.count; first += stride) {
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
            advance_half<TILES, STATE, HIDDEN>(&part, &at, &block, &warp, first, half, active,
                                               first + stride + half * HALF);
        }
        __syncwarp();
        take_votes(&part, &warp, first, step, active, noisy, own, next_votes, &tally);
        __syncwarp();
    }
    __pipeline_wait_prior(0);
    qr_tally_finish(&part, &tally);
}

template <int TILES, int STATE, int HIDDEN>
static void launch(const qr_part *part, const fast_plan *plan, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    int64_t tiles = (part->count + TILE - 1) / TILE;
    int64_t blocks = tiles < processors ? tiles : processors;
    (void)cudaFuncSetAttribute(update_fast<TILES, STATE, HIDDEN>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               plan->bytes);
    update_fast<TILES, STATE, HIDDEN>
        <<<(unsigned)(blocks > 0 ? blocks : 1), (unsigned)(plan->warps * WARP), (size_t)plan->bytes, stream>>>(*part,
                                                                                                               *plan);
}

extern "C" void qr_launch_neural_fast(const qr_part *part, cudaStream_t stream)
{
    const fast_plan plan = make_plan(&part->neural, shared_bytes_of_device());
    const uint32_t state = part->neural.state_dim;
    if (state == 64 && part->neural.hidden == 64) {
        launch<4, 64, 4>(part, &plan, stream);
    } else if (state <= 16) {
        launch<1, 0, 0>(part, &plan, stream);
    } else if (state <= 32) {
        launch<2, 0, 0>(part, &plan, stream);
    } else if (state <= 64) {
        launch<4, 0, 0>(part, &plan, stream);
    } else {
        launch<8, 0, 0>(part, &plan, stream);
    }
}
