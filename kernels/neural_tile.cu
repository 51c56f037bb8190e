/* Neural agents with 64 states and 64 hidden units, with the bits of neural.cu.
 *
 * A warp takes 32 agents at a time. Their states lie in shared memory, column by column; hidden values take their
 * place, and the states are read once more from device memory in the end. So 16 warps find room, four for each
 * scheduler, at 128 registers to a thread.
 *
 * What bounds the speed are reads of registers: in one cycle two, from different banks, which odd and even registers
 * are. So multiply-adds that follow each other share a weight, and a value and the sum that it goes to are in different
 * banks: vectors of four agents lie in registers in a row, and agents of a pair change places from a layer's values to
 * its sums. Next to that it is the instruction cache: one short loop serves both layers, and there is a kernel for each
 * kind of network. */
#include "neural_step.cuh"
#include "places.cuh"

enum {
    SIZE = 64,        /* states, hidden units */
    AGENTS = WARP,    /* of a tile */
    TILE_WARPS = 16,  /* of a block, at most */
    FEWEST_WARPS = 6, /* less than that waits for memory */
    PITCH = AGENTS + 4,
    TILE = (SIZE + 1) * PITCH, /* floats; reads ahead go one column beyond the last */
    FAR_AGENTS = AGENTS / 2,   /* from a thread's first four agents to its others */
    FAR_OUTPUTS = SIZE / 2,    /* from its first four outputs to its others */
    TILE_STATIC_BYTES = sizeof(qr_block_tally) + 256
};

/* Of a warp. */
typedef struct tile_memory {
    float *x;      /* [SIZE][PITCH] states or hidden values: a column, an agent */
    float *shares; /* [n_options][AGENTS], later scores [AGENTS][n_options | 1] */
} tile_memory;

/* The agents and outputs of a thread: 4 from the one named, and 4 more FAR_AGENTS or FAR_OUTPUTS behind. Neighbouring
 * lanes differ in agents, those two apart in outputs: so shared memory serves 16 lanes at once, and whole tiles without
 * conflicts. */
typedef struct tile_share {
    int32_t agent;
    int32_t out;
} tile_share;

static __device__ __forceinline__ tile_share share_of_lane(void)
{
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    tile_share mine;
    mine.agent = (lane % 2 + lane / 4 % 2 * 2) * 4;
    mine.out = (lane / 2 % 2 + lane / 8 * 2) * 4;
    return mine;
}

/* Agents of a tile that begins with own agent `first`. */
static __device__ __forceinline__ int32_t agents_from(const qr_part *part, int64_t first)
{
    const int64_t left = part->count - first;
    return left < 0 ? 0 : left < AGENTS ? (int32_t)left : (int32_t)AGENTS;
}

/* Asks for the states of a tile as far as the cache that all processors share. */
static __device__ __forceinline__ void prefetch_tile(const float *states, int32_t here)
{
    enum { LINE = 128 / sizeof(float) };
#pragma unroll
    for (int32_t i = 0; i < AGENTS * SIZE / LINE; i += WARP) {
        const int32_t line = i + (int32_t)threadIdx.x % WARP;
        if (line * LINE < here * SIZE) {
            asm volatile("prefetch.global.L2 [%0];" ::"l"(states + line * LINE));
        }
    }
}

/* States of a tile from device memory; agents beyond the part have zeros. */
static __device__ __forceinline__ void load_tile(const float *states, int32_t here, float *x)
{
    enum { ROWS = 8, COLUMNS = 16, AT_ONCE = 8 }; /* of what the lanes load together, and how often */
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int32_t agent = lane % ROWS;
    const int32_t column = lane / ROWS * 4;
    const float *from = states + agent * SIZE + column;
    float *to = x + column * PITCH + agent;
    const uint32_t exist = (here < AGENTS ? (1u << here) - 1u : ~0u) >> agent;
#pragma unroll
    for (int32_t begin = 0; begin < SIZE; begin += COLUMNS * AT_ONCE * ROWS / AGENTS) {
        float4 state[AT_ONCE];
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++) {
            const int32_t row = i * ROWS % AGENTS;
            state[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if ((exist >> row & 1u) != 0) {
                state[i] = __ldcg((const float4 *)(from + row * SIZE + begin + i * ROWS / AGENTS * COLUMNS));
            }
        }
#pragma unroll
        for (int32_t i = 0; i < AT_ONCE; i++) {
#pragma unroll
            for (int32_t q = 0; q < 4; q++) {
                to[(begin + i * ROWS / AGENTS * COLUMNS + q) * PITCH + i * ROWS % AGENTS] = number_of(state[i], q);
            }
        }
    }
}

/* Shares of the options among the neighbours of each agent of a tile. */
template <int NETWORK>
static __device__ __forceinline__ void gather_tile(const qr_part *part, const block_memory *block, const uint8_t *votes,
                                                   int64_t first, float *shares)
{
    const int32_t n_options = (int32_t)part->rule.n_options;
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    const int64_t index = first + lane;
    float *share = shares + lane;
    if (NETWORK == QR_COMPLETE_NETWORK) {
        int32_t own = index < part->count ? (int32_t)qr_packed_vote(votes, part->packing, part->before + index) : 0;
        for (int32_t k = 0; k < n_options; k++) {
            share[k * AGENTS] = block->others[k == own ? n_options + k : k];
        }
        return;
    }
    if (NETWORK == QR_GRID) {
        (void)put_counted_shares<false, QR_GRID>(part, votes, first, share, AGENTS);
        return;
    }
    const bool counted =
        n_options <= QR_COUNT_OPTIONS / 2 ? put_counted_shares<false, NETWORK>(part, votes, first, share, AGENTS)
        : n_options <= QR_COUNT_OPTIONS   ? put_counted_shares<true, NETWORK>(part, votes, first, share, AGENTS)
                                          : false;
    if (counted) {
        return;
    }
    uint8_t near[QR_LATTICE_MAX_NEIGHBOURS];
    qr_view view = {};
    if (index < part->count) {
        qr_look(part, votes, index, near, &view);
    }
    for (int32_t k = 0; k < n_options; k++) {
        share[k * AGENTS] = 0.0f;
    }
    uint32_t *count = (uint32_t *)share;
    for (int64_t j = 0; j < view.degree; j++) {
        count[qr_view_vote(&view, j) * AGENTS]++;
    }
    for (int32_t k = 0; k < n_options; k++) {
        share[k * AGENTS] = view.degree > 0 ? (float)count[k * AGENTS] / (float)view.degree : 0.0f;
    }
}

/* One column of values times its weights. Sum j of an output belongs to value j ^ 1. */
static __device__ __forceinline__ void add_column(const float4 weight[2], const float4 value[2], float sum[EACH][EACH])
{
#pragma unroll
    for (int o = 0; o < EACH; o++) {
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const int j = o % 2 == 0 ? n : EACH - 1 - n;
            sum[o][j] = __fmaf_rn(number_of(weight[o / 4], o % 4), number_of(value[j / 4], j % 4 ^ 1), sum[o][j]);
        }
    }
}

/* A thread's numbers of a column, from shared memory. */
static __device__ __forceinline__ void load_pair(const float *from, int32_t apart, float4 to[2])
{
    to[0] = *(const float4 *)from;
    to[1] = *(const float4 *)(from + apart);
}

static __device__ __forceinline__ void begin_tile(const float *bias, float sum[EACH][EACH])
{
    float4 here[2];
    load_pair(bias, FAR_OUTPUTS, here);
#pragma unroll
    for (int o = 0; o < EACH; o++) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            sum[o][j] = number_of(here[o / 4], o % 4);
        }
    }
}

/* All columns of a tile, of which the next is always on its way. */
static __device__ __forceinline__ void add_tile(const float *value_at, const float *weight_at, float sum[EACH][EACH])
{
    enum { COLUMNS = 2 }; /* worked on together: with more of them registers are allotted worse */
    float4 value[2];
    float4 weight[2];
    load_pair(value_at, FAR_AGENTS, value);
    load_pair(weight_at, FAR_OUTPUTS, weight);
#pragma unroll 1
    for (int32_t left = SIZE; left > 0; left -= COLUMNS) { /* counting up costs moves between registers */
        value_at += COLUMNS * PITCH;
        weight_at += COLUMNS * SIZE;
#pragma unroll
        for (int c = 1 - COLUMNS; c <= 0; c++) {
            float4 next_value[2];
            float4 next_weight[2];
            load_pair(value_at + c * PITCH, FAR_AGENTS, next_value);
            load_pair(weight_at + c * SIZE, FAR_OUTPUTS, next_weight);
            add_column(weight, value, sum);
            value[0] = next_value[0];
            value[1] = next_value[1];
            weight[0] = next_weight[0];
            weight[1] = next_weight[1];
        }
    }
}

/* tanh of a thread's sums to where they belong in a tile. Through shared memory, so that it can be a loop. */
static __device__ __forceinline__ void put_tile(float *to, float sum[EACH][EACH])
{
#pragma unroll
    for (int o = 0; o < EACH; o++) {
        float *place = to + (o % 4 + o / 4 * FAR_OUTPUTS) * PITCH;
        *(float4 *)place = make_vector(&sum[o][0]);
        *(float4 *)(place + FAR_AGENTS) = make_vector(&sum[o][4]);
    }
#pragma unroll 1
    for (int o = 0; o < EACH; o++) {
        float *place = to + (o % 4 + o / 4 * FAR_OUTPUTS) * PITCH;
        float4 before[2];
        float after[EACH];
        load_pair(place, FAR_AGENTS, before);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            after[j] = qr_tanhf(number_of(before[j / 4], j % 4));
        }
        *(float4 *)place = make_vector(&after[0]);
        *(float4 *)(place + FAR_AGENTS) = make_vector(&after[4]);
    }
}

/* x + dt (sum - x) of a thread's agents and outputs to the tile at `to` and, for agents that move, to device memory.
 * moving: bits from the thread's first agent on. */
static __device__ __forceinline__ void move_tile(float dt, float sum[EACH][EACH], float *states, uint32_t moving,
                                                 float *to)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 before[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int agent = i % 4 + i / 4 * FAR_AGENTS;
            before[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if ((moving >> agent & 1u) != 0) {
                before[i] = __ldcg((const float4 *)(states + agent * SIZE + half * FAR_OUTPUTS));
            }
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int agent = i % 4 + i / 4 * FAR_AGENTS;
            float after[4];
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const float x = number_of(before[i], q);
                after[q] = __fmaf_rn(dt, sum[4 * half + q][i] - x, x);
                sum[4 * half + q][i] = after[q];
            }
            if ((moving >> agent & 1u) != 0) {
                *(float4 *)(states + agent * SIZE + half * FAR_OUTPUTS) = make_vector(after);
            }
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
            float *place = to + (half * FAR_OUTPUTS + q) * PITCH;
            *(float4 *)place = make_vector(&sum[4 * half + q][0]);
            *(float4 *)(place + FAR_AGENTS) = make_vector(&sum[4 * half + q][4]);
        }
    }
}

/* Both layers. states: of the tile in device memory; next_states: of the one to come, with next_here agents. */
static __device__ __forceinline__ void advance_tile(const qr_neural *net, const block_memory *block,
                                                    const tile_memory *memory, float *states, int32_t here,
                                                    uint32_t moving, const float *next_states, int32_t next_here)
{
    const int32_t n_options = (int32_t)net->n_options;
    const weight_layout at = lay_out(SIZE, SIZE, n_options);
    const tile_share mine = share_of_lane();
    const float *weights = block->weights + mine.out;
    const float *bias = block->base + mine.out;
    float *values = memory->x + mine.agent;
    float sum[EACH][EACH];
#pragma unroll 1
    for (int layer = 1; layer <= 2; layer++) {
        begin_tile(bias, sum);
        add_tile(values, weights, sum);
        __syncwarp();
        if (layer == 1) {
#pragma unroll 1
            for (int32_t k = 0; k < n_options; k++) {
                float4 share[2];
                float4 weight[2];
                load_pair(memory->shares + k * AGENTS + mine.agent, FAR_AGENTS, share);
                load_pair(weights + (SIZE + k) * SIZE, FAR_OUTPUTS, weight);
                add_column(weight, share, sum);
            }
            put_tile(values + mine.out * PITCH, sum);
            weights += at.w2 - at.w1;
            bias = block->weights + (at.b2 - at.w1) + mine.out;
            prefetch_tile(states, here);
            prefetch_tile(next_states, next_here);
            __syncwarp();
        }
    }
    move_tile(net->dt, sum, states + mine.agent * SIZE + mine.out, moving >> mine.agent, values + mine.out * PITCH);
}

/* The warp's next tile. */
static __device__ __forceinline__ int64_t claim_next(uint32_t *claimed)
{
    uint32_t number = 0;
    if (threadIdx.x % WARP == 0) {
        number = atomicAdd(claimed, 1u);
    }
    return blockIdx.x + (int64_t)gridDim.x * __shfl_sync(~0u, number, 0);
}

/* Floats of shared memory that a warp needs. */
static __host__ __device__ __forceinline__ int32_t tile_floats(int32_t n_options)
{
    return TILE + AGENTS * round_up(n_options | 1);
}

template <class PLACES, int NETWORK>
static __global__ void __launch_bounds__(TILE_WARPS *WARP, 1)
    update_tiles(const __grid_constant__ qr_part part, const __grid_constant__ PLACES places)
{
    extern __shared__ float4 dynamic[];
    __shared__ qr_block_tally tally;
    __shared__ uint32_t claimed;
    if (part.control->stopped) {
        return;
    }
    const int64_t step = part.control->step + 1;
    const uint8_t *votes = part.packed[part.control->current];
    const int64_t n_tiles = (qr_count_agents(&part, &places) + AGENTS - 1) / AGENTS;
    const int32_t n_options = (int32_t)part.rule.n_options;
    const int32_t lane = (int32_t)threadIdx.x % WARP;
    block_memory block;
    tile_memory memory;
    memory.x = prepare_block<true>(&part, (float *)dynamic, &block);
    memory.x += (int32_t)threadIdx.x / WARP * tile_floats(n_options);
    memory.shares = memory.x + TILE;
    if (threadIdx.x == 0) {
        claimed = 0;
    }
    qr_tally_clear(&tally, part.rule.n_options);
    int64_t tile = claim_next(&claimed);
    float *next_states = NULL;
    int64_t next = qr_find_agent(&part, &places, tile * AGENTS, &next_states);
    while (tile < n_tiles) {
        const int64_t first = next;
        float *states = next_states + first * SIZE;
        const int32_t here = agents_from(&part, first);
        uint32_t active;
        uint32_t noisy;
        tile = claim_next(&claimed);
        next = qr_find_agent(&part, &places, tile * AGENTS, &next_states);
        qr_draw_masks<AGENTS>(&part, first, step, &active, &noisy);
        if (active != 0) {
            load_tile(states, here, memory.x);
            gather_tile<NETWORK>(&part, &block, votes, first, memory.shares);
            __syncwarp();
            advance_tile(&part.neural, &block, &memory, states, here, active, next_states + next * SIZE,
                         agents_from(&part, next));
            __syncwarp();
            const weight_layout at = lay_out(SIZE, SIZE, n_options);
            find_scores<true, PITCH>(&at, n_options, 0, BATCH, &block, memory.x + lane,
                                     memory.shares + lane * (n_options | 1));
            __syncwarp();
        }
        take_votes<AGENTS>(&part, memory.shares, first, active, noisy, &tally);
    }
    qr_tally_finish(&part, &tally);
}

template <class PLACES, int NETWORK>
static void launch(const qr_part *part, const PLACES *places, int32_t warps, int32_t bytes, int32_t processors,
                   cudaStream_t stream)
{
    const int64_t tiles = (qr_count_agents(part, places) + AGENTS - 1) / AGENTS;
    const int64_t blocks = tiles < processors ? tiles : processors;
    (void)cudaFuncSetAttribute(update_tiles<PLACES, NETWORK>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    update_tiles<PLACES, NETWORK>
        <<<(unsigned)(blocks > 0 ? blocks : 1), (unsigned)(warps * WARP), (size_t)bytes, stream>>>(*part, *places);
}

template <class PLACES> static int launch_best(const qr_part *part, const PLACES *places, cudaStream_t stream)
{
    const qr_neural *net = &part->neural;
    const weight_layout at = find_layout(net);
    const int32_t n_options = (int32_t)net->n_options;
    const int64_t common = at.hidden + 2 * round_up(n_options) + at.end - at.w1;
    const int64_t each = tile_floats(n_options);
    int device = 0;
    int processors = 1;
    int most_bytes = 0;
    if (net->state_dim != SIZE || net->hidden != SIZE) {
        return 0;
    }
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const int64_t left = (most_bytes - TILE_STATIC_BYTES) / (int64_t)sizeof(float) - common;
    const int64_t fit = left > 0 ? left / each : 0;
    const int32_t warps = (int32_t)(fit < TILE_WARPS ? fit : (int64_t)TILE_WARPS);
    const int32_t bytes = (int32_t)((common + warps * each) * (int64_t)sizeof(float));
    if (warps < FEWEST_WARPS) {
        return 0;
    }
    if (part->complete) {
        launch<PLACES, QR_COMPLETE_NETWORK>(part, places, warps, bytes, processors, stream);
    } else if (part->row == 0 && part->lattice.dims > 1 && n_options <= QR_COUNT_OPTIONS / 2) {
        launch<PLACES, QR_GRID>(part, places, warps, bytes, processors, stream);
    } else {
        launch<PLACES, QR_ANY_NETWORK>(part, places, warps, bytes, processors, stream);
    }
    return 1;
}

extern "C" int qr_launch_neural_tile(const qr_part *part, cudaStream_t stream)
{
    const qr_whole_part places = {};
    return launch_best(part, &places, stream);
}

extern "C" int qr_launch_frames_tile(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream)
{
    static_assert(sizeof(qr_part) + sizeof(qr_frame_batch) <= 4000, "all devices take so much");
    return launch_best(part, batch, stream);
}
