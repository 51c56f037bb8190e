/* Neural agents: both layers, scores, sampling and tally in one pass over the states.
 *
 * Warps form teams; a team takes a tile of agents at a time, keeps their states and hidden values in shared memory, and
 * goes its own way: nothing but the few sums of a step waits for other teams. Each thread works on 8 agents x 8 outputs
 * in registers while the columns go by in ascending order, the order that rules/neural.h defines. Weights are in shared
 * memory where they fit, else they stream from the cache.
 *
 * Rows of weights and of states are padded to whole vectors of 4. A padded column has weight -0 and value +0, whose
 * product changes no sum, not even one of -0. */
#include "tally.cuh"
#include "view.cuh"

#include <cuda_pipeline_primitives.h>

enum {
    WARP = 32,
    MOST_WARPS = 12, /* of a block: 168 registers to a thread */
    FEW_WARPS = 6,   /* less than that waits for memory */
    EACH = 8,        /* agents and outputs of a thread */
    BATCH = 8,       /* scores worked out together */
    STATIC_BYTES = sizeof(qr_block_tally) + 256
};

/* Where things lie in the packed weights, in floats. Sizes rounded up to whole vectors. */
typedef struct weight_layout {
    int32_t hidden;
    int32_t state;
    int32_t global; /* [K][hidden]: layer 1, columns of global shares */
    int32_t b1;     /* [hidden] */
    int32_t w1;     /* [state + K][hidden]; from here on what a step reads again and again */
    int32_t w2;     /* [hidden][state] */
    int32_t wv;     /* [K][state] */
    int32_t b2;     /* [state] */
    int32_t bv;     /* [K] */
    int32_t end;
} weight_layout;

/* How a launch divides the work. */
typedef struct launch_plan {
    int32_t in_shared; /* the weights */
    int32_t agents;    /* of a tile: 8, 16 or 32 */
    int32_t team_warps;
    int32_t teams;
    int32_t team_floats;
    int32_t shares_at; /* in a team's memory: a place of their own, or that of the hidden values to come */
    int32_t bytes;
} launch_plan;

/* The place of a thread, and its team's memory. */
typedef struct team {
    int32_t thread; /* in the team */
    int32_t threads;
    int32_t barrier;
    float *x;      /* [agents][x_row] */
    float *hidden; /* [agents][hidden_row], later scores [agents][score_row] */
    float *shares; /* [agents][share_row] */
    int64_t *tile; /* the next one */
} team;

/* What all teams of a block share. */
typedef struct block_memory {
    const float *weights; /* from w1 on */
    const float *base;    /* [hidden] */
    const float *others;  /* [2][K] complete networks: shares among the others for who votes otherwise, and so */
} block_memory;

static __host__ __device__ __forceinline__ int32_t round_up(int32_t n)
{
    return (n + 3) / 4 * 4;
}

/* Vectors of neighbouring rows in different banks: an odd number of vectors to a row. */
static __host__ __device__ __forceinline__ int32_t row_of(int32_t n)
{
    return round_up(n) | 4;
}

static __host__ __device__ __forceinline__ weight_layout find_layout(const qr_neural *net, int32_t state,
                                                                     int32_t hidden)
{
    int32_t n_options = (int32_t)net->n_options;
    weight_layout at;
    at.state = round_up(state != 0 ? state : (int32_t)net->state_dim);
    at.hidden = round_up(hidden != 0 ? hidden : (int32_t)net->hidden);
    at.global = 0;
    at.b1 = at.global + n_options * at.hidden;
    at.w1 = at.b1 + at.hidden;
    at.w2 = at.w1 + (at.state + n_options) * at.hidden;
    at.wv = at.w2 + at.hidden * at.state;
    at.b2 = at.wv + n_options * at.state;
    at.bv = at.b2 + at.state;
    at.end = at.bv + round_up(n_options);
    return at;
}

extern "C" int64_t qr_neural_packed_count(const qr_neural *net)
{
    return find_layout(net, 0, 0).end;
}

/* out[column][row] of a matrix whose lines are `stride` apart, padded. */
static void transpose(const float *matrix, int32_t rows, int32_t columns, int32_t stride, int32_t padded_rows,
                      int32_t padded_columns, float *out)
{
    for (int32_t c = 0; c < padded_columns; c++) {
        for (int32_t r = 0; r < padded_rows; r++) {
            float here = c < columns ? 0.0f : -0.0f;
            if (c < columns && r < rows) {
                here = matrix[(int64_t)r * stride + c];
            }
            out[(int64_t)c * padded_rows + r] = here;
        }
    }
}

extern "C" void qr_neural_pack(const qr_neural *net, float *packed)
{
    const weight_layout at = find_layout(net, 0, 0);
    const int32_t state = (int32_t)net->state_dim;
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + state;
    memset(packed, 0, (size_t)at.end * sizeof(float));
    transpose(net->w1, hidden, n_options, columns, at.hidden, n_options, packed + at.global);
    memcpy(packed + at.b1, net->b1, (size_t)hidden * sizeof(float));
    transpose(net->w1 + n_options, hidden, state, columns, at.hidden, at.state, packed + at.w1);
    transpose(net->w1 + n_options + state, hidden, n_options, columns, at.hidden, n_options,
              packed + at.w1 + at.state * at.hidden);
    transpose(net->w2, state, hidden, hidden, at.state, at.hidden, packed + at.w2);
    for (int32_t k = 0; k < n_options; k++) {
        for (int32_t d = 0; d < at.state; d++) {
            packed[at.wv + k * at.state + d] = d < state ? net->wv[(int64_t)k * state + d] : -0.0f;
        }
    }
    memcpy(packed + at.b2, net->b2, (size_t)state * sizeof(float));
    memcpy(packed + at.bv, net->bv, (size_t)n_options * sizeof(float));
}

static __device__ __forceinline__ void team_sync(const team *team)
{
    if (team->threads == WARP) {
        __syncwarp();
    } else {
        asm volatile("bar.sync %0, %1;" ::"r"(team->barrier), "r"(team->threads) : "memory");
    }
}

/* Claims the team's next tile; all threads of the team. */
static __device__ __forceinline__ int64_t claim_tile(const team *team, uint32_t *claimed)
{
    if (team->thread == 0) {
        *team->tile = blockIdx.x + (int64_t)gridDim.x * atomicAdd(claimed, 1u);
    }
    team_sync(team);
    return *team->tile;
}

template <bool IN_SHARED> static __device__ __forceinline__ float4 load_weights(const float *at)
{
    return IN_SHARED ? *(const float4 *)at : __ldg((const float4 *)at);
}

/* One of a vector's numbers; `which` is known when compiled. */
static __device__ __forceinline__ float number_of(float4 v, int which)
{
    return which == 0 ? v.x : which == 1 ? v.y : which == 2 ? v.z : v.w;
}

static __device__ __forceinline__ float4 make_vector(const float *from)
{
    return make_float4(from[0], from[1], from[2], from[3]);
}

/* Which agents and outputs of a tile a thread works on: agents `agent` + AGENTS / 8 * i, outputs out[0 .. 1] + 0 .. 3.
 */
typedef struct thread_share {
    int32_t agent;
    int32_t out[2];
    bool has[2];
} thread_share;

template <int AGENTS>
static __device__ __forceinline__ thread_share share_of_thread(int32_t thread, int32_t first_out, int32_t n_outputs)
{
    const int32_t groups = AGENTS / EACH;
    const int32_t columns = WARP / groups;
    int32_t lane = thread % WARP;
    thread_share mine;
    mine.agent = lane / columns;
    for (int half = 0; half < 2; half++) {
        int32_t out = first_out + half * columns * 4 + lane % columns * 4;
        mine.has[half] = out < n_outputs;
        mine.out[half] = mine.has[half] ? out : n_outputs - 4; /* something to read */
    }
    return mine;
}

template <bool IN_SHARED>
static __device__ __forceinline__ void begin_sums(const float *bias, const thread_share *mine, float sum[EACH][EACH])
{
    float4 left = load_weights<IN_SHARED>(bias + mine->out[0]);
    float4 right = load_weights<IN_SHARED>(bias + mine->out[1]);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            sum[i][q] = number_of(left, q);
            sum[i][4 + q] = number_of(right, q);
        }
    }
}

/* sum[agent][output] += value[agent][column] * weight[column][output], columns ascending. values: [AGENTS][row];
 * weights: [columns][width]. */
template <int AGENTS, bool IN_SHARED>
static __device__ __forceinline__ void add_columns(const float *values, int32_t row, const float *weights,
                                                   int32_t width, int32_t columns, const thread_share *mine,
                                                   float sum[EACH][EACH])
{
    const float *value_at = values + mine->agent * row;
    const float *left_at = weights + mine->out[0];
    const float *right_at = weights + mine->out[1];
#pragma unroll 1
    for (int32_t c = 0; c < columns; c += 4) {
        float4 value[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            value[i] = *(const float4 *)(value_at + i * (AGENTS / EACH) * row + c);
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
            if (c + q < columns) {
                float4 left = load_weights<IN_SHARED>(left_at + (c + q) * width);
                float4 right = load_weights<IN_SHARED>(right_at + (c + q) * width);
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    float here = number_of(value[i], q);
#pragma unroll
                    for (int o = 0; o < 4; o++) {
                        sum[i][o] = __fmaf_rn(number_of(left, o), here, sum[i][o]);
                        sum[i][4 + o] = __fmaf_rn(number_of(right, o), here, sum[i][4 + o]);
                    }
                }
            }
        }
    }
}

/* hidden = tanh(base + W1 (x, shares)). */
template <int AGENTS, bool IN_SHARED, int STATE, int HIDDEN>
static __device__ __forceinline__ void apply_first_layer(const qr_neural *net, const team *team,
                                                         const block_memory *block)
{
    const weight_layout at = find_layout(net, STATE, HIDDEN);
    const int32_t pass = WARP * EACH * EACH / AGENTS; /* outputs of a warp */
    const int32_t n_hidden = HIDDEN != 0 ? HIDDEN : (int32_t)net->hidden;
    const int32_t hidden_row = row_of(n_hidden);
    for (int32_t first = team->thread / WARP * pass; first < at.hidden; first += team->threads / WARP * pass) {
        float sum[EACH][EACH];
        const thread_share mine = share_of_thread<AGENTS>(team->thread, first, at.hidden);
        begin_sums<true>(block->base, &mine, sum);
        add_columns<AGENTS, IN_SHARED>(team->x, row_of(at.state), block->weights, at.hidden, at.state, &mine, sum);
        add_columns<AGENTS, IN_SHARED>(team->shares, row_of((int32_t)net->n_options),
                                       block->weights + at.state * at.hidden, at.hidden, (int32_t)net->n_options, &mine,
                                       sum);
        if (team->shares == team->hidden) {
            __syncwarp(); /* all have read the shares where hidden values go now: a team of one warp */
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            float *to = team->hidden + (mine.agent + i * (AGENTS / EACH)) * hidden_row;
#pragma unroll
            for (int o = 0; o < EACH; o++) {
                bool real = HIDDEN != 0 || mine.out[o / 4] + o % 4 < n_hidden;
                sum[i][o] = real ? qr_tanhf(sum[i][o]) : 0.0f;
            }
            for (int half = 0; half < 2; half++) {
                if (mine.has[half]) {
                    *(float4 *)(to + mine.out[half]) = make_vector(&sum[i][4 * half]);
                }
            }
        }
    }
}

/* x += dt (b2 + W2 hidden - x). */
template <int AGENTS, bool IN_SHARED, int STATE, int HIDDEN>
static __device__ __forceinline__ void apply_second_layer(const qr_neural *net, const team *team,
                                                          const block_memory *block)
{
    const weight_layout at = find_layout(net, STATE, HIDDEN);
    const int32_t pass = WARP * EACH * EACH / AGENTS;
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)net->state_dim;
    const int32_t x_row = row_of(n_state);
    for (int32_t first = team->thread / WARP * pass; first < at.state; first += team->threads / WARP * pass) {
        float sum[EACH][EACH];
        const thread_share mine = share_of_thread<AGENTS>(team->thread, first, at.state);
        begin_sums<IN_SHARED>(block->weights + (at.b2 - at.w1), &mine, sum);
        add_columns<AGENTS, IN_SHARED>(team->hidden, row_of(at.hidden), block->weights + (at.w2 - at.w1), at.state,
                                       at.hidden, &mine, sum);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            float *row = team->x + (mine.agent + i * (AGENTS / EACH)) * x_row;
            for (int half = 0; half < 2; half++) {
                if (!mine.has[half]) {
                    continue;
                }
                float4 *place = (float4 *)(row + mine.out[half]);
                float4 before = *place;
                float after[4];
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    float x = number_of(before, q);
                    bool real = STATE != 0 || mine.out[half] + q < n_state;
                    after[q] = real ? __fmaf_rn(net->dt, sum[i][4 * half + q] - x, x) : 0.0f;
                }
                *place = make_vector(after);
            }
        }
    }
}

/* N scores of one agent. weights: [N][state]. */
template <int N, bool IN_SHARED>
static __device__ __forceinline__ void score_some(const float *x, int32_t state, const float *weights,
                                                  const float *bias, float *scores)
{
    float sum[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
        sum[n] = bias[n];
    }
#pragma unroll 2
    for (int32_t d = 0; d < state; d += 4) {
        float4 here = *(const float4 *)(x + d);
#pragma unroll
        for (int n = 0; n < N; n++) {
            float4 weight = load_weights<IN_SHARED>(weights + n * state + d);
#pragma unroll
            for (int q = 0; q < 4; q++) {
                sum[n] = __fmaf_rn(number_of(weight, q), number_of(here, q), sum[n]);
            }
        }
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
        scores[n] = sum[n];
    }
}

/* Scores of a tile, to where the hidden values were. A thread an agent, or a thread a batch of its options. */
template <int AGENTS, bool IN_SHARED, int STATE, int HIDDEN>
static __device__ __forceinline__ void find_scores(const qr_neural *net, const team *team, const block_memory *block)
{
    const weight_layout at = find_layout(net, STATE, HIDDEN);
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t agent = team->thread % AGENTS;
    const float *x = team->x + agent * row_of(at.state);
    for (int32_t k = team->thread / AGENTS * BATCH; k < n_options; k += team->threads / AGENTS * BATCH) {
        const float *weights = block->weights + (at.wv - at.w1) + k * at.state;
        const float *bias = block->weights + (at.bv - at.w1) + k;
        float *scores = team->hidden + agent * (n_options | 1) + k;
        switch (n_options - k) {
        case 1: score_some<1, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 2: score_some<2, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 3: score_some<3, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 4: score_some<4, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 5: score_some<5, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 6: score_some<6, IN_SHARED>(x, at.state, weights, bias, scores); break;
        case 7: score_some<7, IN_SHARED>(x, at.state, weights, bias, scores); break;
        default: score_some<8, IN_SHARED>(x, at.state, weights, bias, scores); break;
        }
    }
}

/* Begins to copy the states of a tile into shared memory; agents beyond the part have zeros. */
template <int AGENTS, int STATE>
static __device__ __forceinline__ void begin_load(const qr_part *part, const team *team, int64_t first)
{
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)part->neural.state_dim;
    const int32_t row = row_of(n_state);
    const float *from = part->state + first * n_state;
    const int64_t here = part->count - first;
    if (n_state % 4 == 0) {
        const int32_t vectors = n_state / 4;
        for (int32_t i = team->thread; i < AGENTS * vectors; i += team->threads) {
            int32_t agent = i / vectors;
            float *to = team->x + agent * row + i % vectors * 4;
            if (agent < here) {
                __pipeline_memcpy_async(to, from + (int64_t)i * 4, sizeof(float4));
            } else {
                *(float4 *)to = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            }
        }
        __pipeline_commit();
        return;
    }
    const int32_t padded = round_up(n_state);
    for (int32_t i = team->thread; i < AGENTS * padded; i += team->threads) {
        int32_t agent = i / padded;
        int32_t d = i % padded;
        team->x[agent * row + d] = agent < here && d < n_state ? from[(int64_t)agent * n_state + d] : 0.0f;
    }
}

/* States of the agents that moved back to where they belong. */
template <int AGENTS, int STATE>
static __device__ __forceinline__ void store_states(const qr_part *part, const team *team, int64_t first,
                                                    uint32_t moving)
{
    const int32_t n_state = STATE != 0 ? STATE : (int32_t)part->neural.state_dim;
    const int32_t row = row_of(n_state);
    float *to = part->state + first * n_state;
    const int32_t step = n_state % 4 == 0 ? 4 : 1;
    const int32_t pieces = n_state / step;
    for (int32_t i = team->thread; i < AGENTS * pieces; i += team->threads) {
        int32_t agent = i / pieces;
        const float *from = team->x + agent * row + i % pieces * step;
        if ((moving >> agent & 1u) == 0) {
            continue;
        }
        if (n_state % 4 == 0) {
            ((float4 *)to)[i] = *(const float4 *)from;
        } else {
            to[i] = *from;
        }
    }
}

/* Bits of the agents of a tile that move, and that ignore their network when they do. Lanes draw side by side. */
template <int AGENTS>
static __device__ __forceinline__ void draw_masks(const qr_part *part, int64_t first, int64_t step, uint32_t *active,
                                                  uint32_t *noisy)
{
    const qr_rule *rule = &part->rule;
    const uint32_t odd = threadIdx.x % 2u;
    const int64_t here = part->count - first < AGENTS ? part->count - first : AGENTS;
    const uint32_t group_bit = (uint32_t)(first % QR_DEVICE_GROUP);
    uint64_t group = (uint64_t)(part->first + first) / QR_DEVICE_GROUP;
    uint64_t coins =
        qr_plane_coins(rule->seed, group, (uint64_t)step, odd != 0 ? QR_STREAM_PLANE_NOISE : QR_STREAM_PLANE_ACTIVATION,
                       odd != 0 ? rule->noise : rule->activation);
    coins = coins >> group_bit & (~(uint64_t)0 >> (64 - here));
    __syncwarp();
    *active = __shfl_sync(~0u, (uint32_t)coins, 0);
    *noisy = __shfl_sync(~0u, (uint32_t)coins, 1);
}

/* Shares of the options among each agent's neighbours. */
template <int AGENTS>
static __device__ __forceinline__ void gather_shares(const qr_part *part, const team *team, const block_memory *block,
                                                     const uint8_t *votes, int64_t first)
{
    const int32_t n_options = (int32_t)part->rule.n_options;
    const int32_t agent = team->thread % AGENTS;
    const int32_t begin = team->thread / AGENTS;
    const int32_t stride = team->threads / AGENTS;
    const int64_t index = first + agent;
    float *share = team->shares + agent * row_of(n_options);
    uint32_t *count = (uint32_t *)share;
    if (part->complete) {
        int32_t own = index < part->count ? (int32_t)qr_packed_vote(votes, part->packing, part->before + index) : 0;
        for (int32_t k = begin; k < n_options; k += stride) {
            share[k] = block->others[k == own ? n_options + k : k];
        }
        return;
    }
    uint8_t near[QR_LATTICE_MAX_NEIGHBOURS];
    qr_view view = {};
    for (int32_t k = begin; k < n_options; k += stride) {
        count[k] = 0;
    }
    team_sync(team);
    if (index < part->count) {
        qr_look(part, votes, index, near, &view);
    }
    for (int64_t j = begin; j < view.degree; j += stride) {
        atomicAdd(&count[qr_view_vote(&view, j)], 1u);
    }
    team_sync(team);
    for (int32_t k = begin; k < n_options; k += stride) {
        share[k] = view.degree > 0 ? (float)count[k] / (float)view.degree : 0.0f;
    }
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

/* Votes of a tile from its scores, and their tally: one warp, a lane an agent. */
template <int AGENTS>
static __device__ __forceinline__ void take_votes(const qr_part *part, const team *team, int64_t first, uint32_t active,
                                                  uint32_t noisy, qr_block_tally *tally)
{
    const qr_control *control = part->control;
    const int64_t step = control->step + 1;
    const int32_t lane = team->thread;
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
        vote =
            qr_neural_vote(&part->neural, team->hidden + lane * (int32_t)(part->rule.n_options | 1u), &draws, &score);
    }
    __syncwarp();
    store_votes(part->packed[control->current ^ 1u], part->packing, position, vote, mine);
    if (mine) {
        qr_tally_vote(tally, vote, qr_leader_pack(score, agent));
    }
}

/* Weights where they fit, and what is the same for all agents of the step. Returns what follows in shared memory. */
template <bool IN_SHARED, int STATE, int HIDDEN>
static __device__ __forceinline__ float *prepare_block(const qr_part *part, float *memory, block_memory *block)
{
    const qr_neural *net = &part->neural;
    const weight_layout at = find_layout(net, STATE, HIDDEN);
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

template <int AGENTS, bool IN_SHARED, int STATE, int HIDDEN>
static __global__ void __launch_bounds__(MOST_WARPS *WARP, 1)
    update_neural(const __grid_constant__ qr_part part, const launch_plan plan)
{
    extern __shared__ float4 dynamic[];
    __shared__ qr_block_tally tally;
    __shared__ int64_t next_tile[MOST_WARPS];
    __shared__ uint32_t claimed;
    if (part.control->stopped) {
        return;
    }
    const int64_t step = part.control->step + 1;
    const uint8_t *votes = part.packed[part.control->current];
    const int64_t n_tiles = (part.count + AGENTS - 1) / AGENTS;
    block_memory block;
    float *memory = prepare_block<IN_SHARED, STATE, HIDDEN>(&part, (float *)dynamic, &block);
    team team;
    team.threads = plan.team_warps * WARP;
    team.thread = (int32_t)threadIdx.x % team.threads;
    const int32_t number = (int32_t)threadIdx.x / team.threads;
    team.barrier = number + 1;
    team.x = memory + number * plan.team_floats;
    team.hidden = team.x + AGENTS * row_of(STATE != 0 ? STATE : (int32_t)part.neural.state_dim);
    team.shares = team.x + plan.shares_at;
    team.tile = &next_tile[number];
    if (threadIdx.x == 0) {
        claimed = 0;
    }
    qr_tally_clear(&tally, part.rule.n_options);
    for (;;) {
        const int64_t first = claim_tile(&team, &claimed) * AGENTS;
        uint32_t active;
        uint32_t noisy;
        if (first >= n_tiles * AGENTS) {
            break;
        }
        draw_masks<AGENTS>(&part, first, step, &active, &noisy);
        if (active != 0) {
            begin_load<AGENTS, STATE>(&part, &team, first);
            gather_shares<AGENTS>(&part, &team, &block, votes, first);
            __pipeline_wait_prior(0);
            team_sync(&team);
            apply_first_layer<AGENTS, IN_SHARED, STATE, HIDDEN>(&part.neural, &team, &block);
            team_sync(&team);
            apply_second_layer<AGENTS, IN_SHARED, STATE, HIDDEN>(&part.neural, &team, &block);
            team_sync(&team);
            find_scores<AGENTS, IN_SHARED, STATE, HIDDEN>(&part.neural, &team, &block);
            store_states<AGENTS, STATE>(&part, &team, first, active);
            team_sync(&team);
        }
        if (team.thread < WARP) {
            take_votes<AGENTS>(&part, &team, first, active, noisy, &tally);
        }
    }
    qr_tally_finish(&part, &tally);
}

/* Fills in a plan whose first three fields are set; teams = 0 when not even one fits. */
static void finish_plan(const qr_neural *net, int64_t most_bytes, launch_plan *plan)
{
    const weight_layout at = find_layout(net, 0, 0);
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t pass = WARP * EACH * EACH / plan->agents;
    const int32_t share_row = row_of(n_options);
    const int32_t hidden_row = row_of(at.hidden);
    const int32_t x_floats = plan->agents * row_of(at.state);
    const int32_t score_row = n_options | 1;
    const int32_t other_row = share_row > score_row ? share_row : score_row;
    const int32_t hidden_floats = plan->agents * (hidden_row > other_row ? hidden_row : round_up(other_row));
    const bool own_place = plan->team_warps > 1 || at.hidden > pass;
    plan->shares_at = own_place ? x_floats + hidden_floats : x_floats;
    plan->team_floats = x_floats + hidden_floats + (own_place ? plan->agents * share_row : 0);
    int64_t common = at.hidden + 2 * round_up(n_options) + (plan->in_shared ? at.end - at.w1 : 0);
    int64_t left = most_bytes / (int64_t)sizeof(float) - common;
    int64_t teams = left > 0 ? left / plan->team_floats : 0;
    plan->teams = (int32_t)(teams < MOST_WARPS / plan->team_warps ? teams : MOST_WARPS / plan->team_warps);
    plan->bytes = (int32_t)((common + (int64_t)plan->teams * plan->team_floats) * (int64_t)sizeof(float));
}

/* Weights in shared memory where that leaves room for enough warps; else the largest tiles that keep enough warps busy,
 * each tile shared by as many warps as it takes. */
static launch_plan make_plan(const qr_neural *net, int64_t most_bytes)
{
    launch_plan best = {1, 32, 1, 0, 0, 0, 0};
    finish_plan(net, most_bytes, &best);
    if (best.teams >= FEW_WARPS) {
        return best;
    }
    best.teams = 0;
    const int32_t widest = (int32_t)(net->hidden > net->state_dim ? net->hidden : net->state_dim);
    for (int32_t agents = 32; agents >= EACH && best.teams * best.team_warps < FEW_WARPS; agents /= 2) {
        const int32_t pass = WARP * EACH * EACH / agents;
        const int32_t passes = (widest + pass - 1) / pass;
        for (int32_t warps = 1; warps <= MOST_WARPS && warps <= passes; warps++) {
            launch_plan plan = {0, agents, warps, 0, 0, 0, 0};
            finish_plan(net, most_bytes, &plan);
            if (plan.teams * plan.team_warps > best.teams * best.team_warps) {
                best = plan;
            }
        }
    }
    return best;
}

template <int AGENTS, bool IN_SHARED, int STATE, int HIDDEN>
static void launch(const qr_part *part, const launch_plan *plan, int32_t processors, cudaStream_t stream)
{
    int64_t tiles = (part->count + AGENTS - 1) / AGENTS;
    int64_t blocks = tiles < processors ? tiles : processors;
    (void)cudaFuncSetAttribute(update_neural<AGENTS, IN_SHARED, STATE, HIDDEN>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, plan->bytes);
    update_neural<AGENTS, IN_SHARED, STATE, HIDDEN>
        <<<(unsigned)(blocks > 0 ? blocks : 1), (unsigned)(plan->teams * plan->team_warps * WARP), (size_t)plan->bytes,
           stream>>>(*part, *plan);
}

extern "C" void qr_launch_neural(const qr_part *part, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    int most_bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const launch_plan plan = make_plan(&part->neural, most_bytes - STATIC_BYTES);
    if (plan.agents == 8) {
        launch<8, false, 0, 0>(part, &plan, processors, stream);
    } else if (plan.agents == 16) {
        launch<16, false, 0, 0>(part, &plan, processors, stream);
    } else if (!plan.in_shared) {
        launch<32, false, 0, 0>(part, &plan, processors, stream);
    } else if (part->neural.state_dim == 64 && part->neural.hidden == 64) {
        launch<32, true, 64, 64>(part, &plan, processors, stream);
    } else {
        launch<32, true, 0, 0>(part, &plan, processors, stream);
    }
}
