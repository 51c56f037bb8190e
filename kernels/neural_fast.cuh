/* The layers of a neural agent on tensor cores, for half a tile of agents by one warp.
 *
 * Agents are rows of 16 x 8 x 16 products of FP16 numbers summed in float32 (mma.sync). FP16 has the ten bits of TF32
 * and twice its rate; what it lacks is range, and that is known beforehand: hidden values are below 1, states have a
 * bound while dt < 2, and weights and states are scaled by powers of two, weights row by row, so that the largest come
 * near 2^14.
 *
 * In the hardware's layout, lane 4 g + c holds rows g and g + 8 of everything. Of 16 columns of A it holds 2c, 2c + 1,
 * 2c + 8 and 2c + 9; of 8 columns of a sum 2c and 2c + 1. Columns of the states are numbered so that those of A, and
 * those of two neighbouring sums, are 4c .. 4c + 3 of the state: a lane reads whole vectors, finds its sums where its
 * states are, and sums of the first layer become A of the second without leaving the lane. */
#ifndef QR_NEURAL_FAST_CUH
#define QR_NEURAL_FAST_CUH

#include "tally.cuh"

#include <cuda_fp16.h>

enum {
    WARP = 32,
    TILE = 32,    /* agents of a warp at a time */
    HALF = 16,    /* those that one product takes */
    OPTIONS = 16, /* at most */
    MOST_STATE = 128,
    FRAGMENT = 4 * WARP, /* words: what a warp needs of 16 columns and 16 outputs */
    SHARE_ROW = 12,      /* words of an agent: 8, and 4 that put rows into different banks */
    FAST_STATIC_BYTES = sizeof(qr_block_tally) + 256
};

/* Where things lie in the packed weights, in words of 4 bytes. Hidden units of float arrays are in the order of
 * hidden_at. */
typedef struct fast_layout {
    int32_t state_tiles; /* of 16: 1, 2, 4 or 8 */
    int32_t hidden_tiles;
    int32_t global;   /* [K][hidden] float: layer 1, columns of global shares */
    int32_t b1;       /* [hidden] float */
    int32_t shared;   /* from here on what a block keeps in shared memory */
    int32_t w1;       /* [hidden tile][state tile, then shares] fragments */
    int32_t w2;       /* [hidden tile][state tile] fragments */
    int32_t wv;       /* [state tile] fragments */
    int32_t inverse1; /* [hidden] float: what a sum is multiplied by to undo scales */
    int32_t inverse2; /* [state] */
    int32_t b2;       /* [state] */
    int32_t inversev; /* [OPTIONS] */
    int32_t bv;       /* [OPTIONS] */
    int32_t scale;    /* [4]: what states are multiplied by */
    int32_t end;
} fast_layout;

static __host__ __device__ __forceinline__ fast_layout find_fast_layout(const qr_neural *net)
{
    fast_layout at;
    at.state_tiles = net->state_dim <= 16 ? 1 : net->state_dim <= 32 ? 2 : net->state_dim <= 64 ? 4 : 8;
    at.hidden_tiles = (int32_t)(net->hidden + 15u) / 16;
    at.global = 0;
    at.b1 = at.global + (int32_t)net->n_options * at.hidden_tiles * 16;
    at.shared = at.b1 + at.hidden_tiles * 16;
    at.w1 = at.shared;
    at.w2 = at.w1 + at.hidden_tiles * (at.state_tiles + 1) * FRAGMENT;
    at.wv = at.w2 + at.hidden_tiles * at.state_tiles * FRAGMENT;
    at.inverse1 = at.wv + at.state_tiles * FRAGMENT;
    at.inverse2 = at.inverse1 + at.hidden_tiles * 16;
    at.b2 = at.inverse2 + at.state_tiles * 16;
    at.inversev = at.b2 + at.state_tiles * 16;
    at.bv = at.inversev + OPTIONS;
    at.scale = at.bv + OPTIONS;
    at.end = at.scale + 4;
    return at;
}

/* Warps of a block: 168 registers to a thread, or 255 for the longest states. */
static constexpr int32_t most_warps(int32_t state_tiles)
{
    return state_tiles <= 4 ? 12 : 8;
}

/* The hidden unit at a place of a float array: four in a row are what one lane has of a tile. */
static __host__ __device__ __forceinline__ int32_t hidden_at(int32_t place)
{
    return place / 16 * 16 + place % 16 / 4 * 2 + place % 2 + place % 4 / 2 * 8;
}

/* Floats of an agent's row in shared memory: an odd number of tiles, so that neighbouring rows are in different banks.
 */
static __host__ __device__ __forceinline__ int32_t fast_row(int32_t state_tiles)
{
    return 16 * (state_tiles | 1);
}

/* How a launch divides shared memory. */
typedef struct fast_plan {
    int32_t warps;
    int32_t score_row;
    int32_t warp_words;
    int32_t bytes;
} fast_plan;

static inline fast_plan make_fast_plan(const qr_neural *net, int64_t most_bytes)
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

/* What a block of the current device may have of it. */
static inline int64_t fast_shared_bytes(void)
{
    int device = 0;
    int bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return bytes - FAST_STATIC_BYTES;
}

/* What all warps of a block share. */
typedef struct fast_block {
    const uint32_t *weights; /* from `shared` on */
    const float *base;       /* [hidden]: b1 and what is the same for all agents of the step */
    const uint32_t *others;  /* [OPTIONS][SHARE_ROW] complete networks: shares that a voter of each option sees */
} fast_block;

/* A warp's own memory. */
typedef struct fast_warp {
    float *x;         /* [TILE][fast_row] */
    uint32_t *shares; /* [TILE][SHARE_ROW], two FP16 to a word */
    float *scores;    /* [TILE][score_row] */
    int32_t score_row;
} fast_warp;

static __device__ __forceinline__ uint32_t pack_halves(float low, float high)
{
    __half2 both = __floats2half2_rn(low, high);
    return *(const uint32_t *)&both;
}

static __device__ __forceinline__ float fast_tanh(float x)
{
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* sum += a b: 16 agents, 16 columns, 8 outputs. */
static __device__ __forceinline__ void multiply(float sum[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 columns and 16 outputs: sums of the first 8 and of the last. */
static __device__ __forceinline__ void multiply_pair(float sum[2][4], const uint32_t a[4], const uint32_t *fragment)
{
    uint4 b = *(const uint4 *)fragment;
    multiply(sum[0], a, b.x, b.y);
    multiply(sum[1], a, b.z, b.w);
}

/* 16 columns of A from the vectors that a lane has of two rows. */
static __device__ __forceinline__ void pack_rows(float4 upper, float4 lower, float scale, uint32_t a[4])
{
    a[0] = pack_halves(upper.x * scale, upper.y * scale);
    a[1] = pack_halves(lower.x * scale, lower.y * scale);
    a[2] = pack_halves(upper.z * scale, upper.w * scale);
    a[3] = pack_halves(lower.z * scale, lower.w * scale);
}

/* Sums of 16 hidden units to 16 columns of A for the second layer. */
static __device__ __forceinline__ void activate(const float sum[2][4], float4 inverse, float4 base, uint32_t a[4])
{
    float h[2][4];
#pragma unroll
    for (int row = 0; row < 2; row++) {
        h[0][2 * row] = fast_tanh(__fmaf_rn(sum[0][2 * row], inverse.x, base.x));
        h[0][2 * row + 1] = fast_tanh(__fmaf_rn(sum[0][2 * row + 1], inverse.y, base.y));
        h[1][2 * row] = fast_tanh(__fmaf_rn(sum[1][2 * row], inverse.z, base.z));
        h[1][2 * row + 1] = fast_tanh(__fmaf_rn(sum[1][2 * row + 1], inverse.w, base.w));
    }
    a[0] = pack_halves(h[0][0], h[0][1]);
    a[1] = pack_halves(h[0][2], h[0][3]);
    a[2] = pack_halves(h[1][0], h[1][1]);
    a[3] = pack_halves(h[1][2], h[1][3]);
}

/* x + dt (b2 + W2 h - x) for the vector of one row; sums of outputs 4c, 4c + 1 and 4c + 2, 4c + 3. */
static __device__ __forceinline__ float4 move_state(float4 x, float dt, float s0, float s1, float s2, float s3,
                                                    float4 inverse, float4 bias)
{
    x.x = __fmaf_rn(dt, __fmaf_rn(s0, inverse.x, bias.x) - x.x, x.x);
    x.y = __fmaf_rn(dt, __fmaf_rn(s1, inverse.y, bias.y) - x.y, x.y);
    x.z = __fmaf_rn(dt, __fmaf_rn(s2, inverse.z, bias.z) - x.z, x.z);
    x.w = __fmaf_rn(dt, __fmaf_rn(s3, inverse.w, bias.w) - x.w, x.w);
    return x;
}

/* A vector of an agent's state, of which the first n numbers are real, to device memory. The whole one by a store that
 * compilers cannot take apart into four, and that makes room in caches for what is read. */
static __device__ __forceinline__ void store_vector(float *to, float4 x, int32_t n, bool whole)
{
    if (whole) {
        if (n >= 4) {
            __stcs((float4 *)to, x);
        }
        return;
    }
    if (n > 0) {
        to[0] = x.x;
    }
    if (n > 1) {
        to[1] = x.y;
    }
    if (n > 2) {
        to[2] = x.z;
    }
    if (n > 3) {
        to[3] = x.w;
    }
}

/* Hidden layer and what it adds to the states: sums[state tile][half of 16]. HIDDEN: tiles, 0 where not known when
 * compiled. */
template <int TILES, int HIDDEN>
static __device__ __forceinline__ void sum_layers(const fast_layout *at, const fast_block *block,
                                                  const uint32_t state[TILES][4], const uint32_t shares[4],
                                                  float sums[TILES][2][4])
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t hidden_tiles = HIDDEN != 0 ? HIDDEN : at->hidden_tiles;
    const uint32_t *w1 = block->weights + (at->w1 - at->shared) + 4 * lane;
    const uint32_t *w2 = block->weights + (at->w2 - at->shared) + 4 * lane;
    const float4 *inverse = (const float4 *)(block->weights + (at->inverse1 - at->shared)) + lane % 4;
    const float4 *base = (const float4 *)block->base + lane % 4;
#pragma unroll
    for (int b = 0; b < TILES; b++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sums[b][i / 4][i % 4] = 0.0f;
        }
    }
#pragma unroll(HIDDEN != 0 ? HIDDEN : 1)
    for (int32_t j = 0; j < hidden_tiles; j++) {
        float sum[2][4] = {};
        uint32_t h[4];
#pragma unroll
        for (int b = 0; b < TILES; b++) {
            multiply_pair(sum, state[b], w1 + (j * (TILES + 1) + b) * FRAGMENT);
        }
        multiply_pair(sum, shares, w1 + (j * (TILES + 1) + TILES) * FRAGMENT);
        activate(sum, inverse[4 * j], base[4 * j], h);
#pragma unroll
        for (int b = 0; b < TILES; b++) {
            multiply_pair(sums[b], h, w2 + (j * TILES + b) * FRAGMENT);
        }
    }
}

/* Scores of half a tile to shared memory. */
template <int TILES>
static __device__ __forceinline__ void put_scores(const fast_layout *at, const fast_block *block, const fast_warp *warp,
                                                  int32_t half, const uint32_t state[TILES][4])
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const uint32_t *weights = block->weights - at->shared;
    const bool many = warp->score_row > 8 + 4;
    float sum[2][4] = {};
#pragma unroll
    for (int b = 0; b < TILES; b++) {
        uint4 weight = *(const uint4 *)(weights + at->wv + b * FRAGMENT + 4 * lane);
        multiply(sum[0], state[b], weight.x, weight.y);
        if (many) {
            multiply(sum[1], state[b], weight.z, weight.w);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t k = 8 * i + lane % 4 * 2;
        const float *inverse = (const float *)(weights + at->inversev) + k;
        const float *bias = (const float *)(weights + at->bv) + k;
#pragma unroll
        for (int row = 0; row < 2 && (i == 0 || many); row++) {
            float2 z = make_float2(__fmaf_rn(sum[i][2 * row], inverse[0], bias[0]),
                                   __fmaf_rn(sum[i][2 * row + 1], inverse[1], bias[1]));
            *(float2 *)(warp->scores + (half * HALF + row * 8 + lane / 4) * warp->score_row + k) = z;
        }
    }
}

#endif
