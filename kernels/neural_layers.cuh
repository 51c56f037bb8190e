/* The layers of a neural agent for a tile of agents, by a team of warps. Each thread works on 8 agents x 8 outputs in
 * registers while the columns go by in ascending order, the order that rules/neural.h defines.
 *
 * Rows of weights and of states are padded to whole vectors of 4. A padded column has weight -0 and value +0, whose
 * product changes no sum, not even one of -0. */
#ifndef QR_NEURAL_LAYERS_CUH
#define QR_NEURAL_LAYERS_CUH

#include "device.h"

enum {
    WARP = 32,
    MOST_WARPS = 12, /* of a block: that leaves 168 registers to a thread */
    EACH = 8,        /* agents and outputs of a thread */
    BATCH = 8,       /* scores worked out together */
    UNROLL = 1       /* vectors of columns worked on together */
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

static __host__ __device__ __forceinline__ weight_layout lay_out(int32_t state, int32_t hidden, int32_t n_options)
{
    weight_layout at;
    at.state = round_up(state);
    at.hidden = round_up(hidden);
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

static __host__ __device__ __forceinline__ weight_layout find_layout(const qr_neural *net)
{
    return lay_out((int32_t)net->state_dim, (int32_t)net->hidden, (int32_t)net->n_options);
}

static __device__ __forceinline__ void team_sync(const team *team)
{
    if (team->threads == WARP) {
        __syncwarp();
    } else {
        asm volatile("bar.sync %0, %1;" ::"r"(team->barrier), "r"(team->threads) : "memory");
    }
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
    /* Neighbouring lanes take different agents: so eight lanes in a row, served together, read few different vectors.
     */
    int32_t column = groups == 1 ? lane : lane / 2 % columns;
    mine.agent = groups == 1 ? 0 : lane % 2 + lane / 2 / columns * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int32_t out = first_out + half * columns * 4 + column * 4;
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
 * weights: [columns][width]. WHOLE: columns is a multiple of 4. */
template <int AGENTS, bool IN_SHARED, bool WHOLE>
static __device__ __forceinline__ void add_columns(const float *values, int32_t row, const float *weights,
                                                   int32_t width, int32_t columns, const thread_share *mine,
                                                   float sum[EACH][EACH])
{
    const float *value_at = values + mine->agent * row;
    const float *left_at = weights + mine->out[0];
    const float *right_at = weights + mine->out[1];
#pragma unroll UNROLL
    for (int32_t c = 0; c < columns; c += 4) {
        float4 value[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            value[i] = *(const float4 *)(value_at + i * (AGENTS / EACH) * row + c);
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
            if (WHOLE || c + q < columns) {
                float4 left = load_weights<IN_SHARED>(left_at + (c + q) * width);
                float4 right = load_weights<IN_SHARED>(right_at + (c + q) * width);
                /* Neighbours in this order share an operand, which saves reading registers. */
#pragma unroll
                for (int o = 0; o < EACH; o++) {
                    const float weight = o < 4 ? number_of(left, o) : number_of(right, o - 4);
#pragma unroll
                    for (int n = 0; n < EACH; n++) {
                        const int i = o % 2 == 0 ? n : EACH - 1 - n;
                        sum[i][o] = __fmaf_rn(weight, number_of(value[i], q), sum[i][o]);
                    }
                }
            }
        }
    }
}

/* tanh of a thread's sums to the tile's hidden values. In a loop through shared memory: unrolled in registers it is as
 * much code as the layers themselves, and the instruction cache then costs 7 %. */
template <int AGENTS>
static __device__ __forceinline__ void put_hidden(float *hidden, int32_t row, int32_t n_hidden,
                                                  const thread_share *mine, float sum[EACH][EACH])
{
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float *to = hidden + (mine->agent + i * (AGENTS / EACH)) * row;
        for (int half = 0; half < 2; half++) {
            if (mine->has[half]) {
                *(float4 *)(to + mine->out[half]) = make_vector(&sum[i][4 * half]);
            }
        }
    }
#pragma unroll 1
    for (int i = 0; i < EACH; i++) {
        float *to = hidden + (mine->agent + i * (AGENTS / EACH)) * row;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float4 *place = (float4 *)(to + mine->out[half]);
            if (mine->has[half]) {
                const float4 before = *place;
                float after[4];
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    bool real = mine->out[half] + q < n_hidden;
                    after[q] = real ? qr_tanhf(number_of(before, q)) : 0.0f;
                }
                *place = make_vector(after);
            }
        }
    }
}

/* hidden = tanh(base + W1 (x, shares)). */
template <int AGENTS, bool IN_SHARED>
static __device__ __forceinline__ void apply_first_layer(const qr_neural *net, const team *team,
                                                         const block_memory *block)
{
    const weight_layout at = find_layout(net);
    const int32_t pass = WARP * EACH * EACH / AGENTS; /* outputs of a warp */
    const int32_t n_hidden = (int32_t)net->hidden;
    const int32_t hidden_row = row_of(n_hidden);
    for (int32_t first = team->thread / WARP * pass; first < at.hidden; first += team->threads / WARP * pass) {
        float sum[EACH][EACH];
        const thread_share mine = share_of_thread<AGENTS>(team->thread, first, at.hidden);
        begin_sums<true>(block->base, &mine, sum);
        add_columns<AGENTS, IN_SHARED, true>(team->x, row_of(at.state), block->weights, at.hidden, at.state, &mine,
                                             sum);
        add_columns<AGENTS, IN_SHARED, false>(team->shares, row_of((int32_t)net->n_options),
                                              block->weights + at.state * at.hidden, at.hidden, (int32_t)net->n_options,
                                              &mine, sum);
        if (team->shares == team->hidden) {
            __syncwarp(); /* all have read the shares where hidden values go now: a team of one warp */
        }
        put_hidden<AGENTS>(team->hidden, hidden_row, n_hidden, &mine, sum);
    }
}

/* x += dt (b2 + W2 hidden - x). */
template <int AGENTS, bool IN_SHARED>
static __device__ __forceinline__ void apply_second_layer(const qr_neural *net, const team *team,
                                                          const block_memory *block)
{
    const weight_layout at = find_layout(net);
    const int32_t pass = WARP * EACH * EACH / AGENTS;
    const int32_t n_state = (int32_t)net->state_dim;
    const int32_t x_row = row_of(n_state);
    for (int32_t first = team->thread / WARP * pass; first < at.state; first += team->threads / WARP * pass) {
        float sum[EACH][EACH];
        const thread_share mine = share_of_thread<AGENTS>(team->thread, first, at.state);
        begin_sums<IN_SHARED>(block->weights + (at.b2 - at.w1), &mine, sum);
        add_columns<AGENTS, IN_SHARED, true>(team->hidden, row_of(at.hidden), block->weights + (at.w2 - at.w1),
                                             at.state, at.hidden, &mine, sum);
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
                    bool real = mine.out[half] + q < n_state;
                    after[q] = real ? __fmaf_rn(net->dt, sum[i][4 * half + q] - x, x) : 0.0f;
                }
                *place = make_vector(after);
            }
        }
    }
}

/* N scores of one agent, whose states are APART floats from each other. weights: [N][state]. Neighbouring products
 * share a state, which saves reading registers. */
template <int N, bool IN_SHARED, int APART>
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
        const float *at = x + d * APART;
        const float4 here =
            APART == 1 ? *(const float4 *)at : make_float4(at[0], at[APART], at[2 * APART], at[3 * APART]);
        float4 weight[N];
#pragma unroll
        for (int n = 0; n < N; n++) {
            weight[n] = load_weights<IN_SHARED>(weights + n * state + d);
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                sum[n] = __fmaf_rn(number_of(weight[n], q), number_of(here, q), sum[n]);
            }
        }
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
        scores[n] = sum[n];
    }
}

/* Scores of options begin .. begin + 7, begin + step .. and so on of one agent. at: sizes, `state` among them perhaps
 * known when compiled. */
template <bool IN_SHARED, int APART>
static __device__ __forceinline__ void find_scores(const weight_layout *at, int32_t n_options, int32_t begin,
                                                   int32_t step, const block_memory *block, const float *x, float *to)
{
    for (int32_t k = begin; k < n_options; k += step) {
        const float *weights = block->weights + (at->wv - at->w1) + k * at->state;
        const float *bias = block->weights + (at->bv - at->w1) + k;
        float *scores = to + k;
        switch (n_options - k) {
        case 1: score_some<1, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 2: score_some<2, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 3: score_some<3, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 4: score_some<4, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 5: score_some<5, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 6: score_some<6, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        case 7: score_some<7, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        default: score_some<8, IN_SHARED, APART>(x, at->state, weights, bias, scores); break;
        }
    }
}

#endif
