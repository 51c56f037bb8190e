/* Neural agents: both layers, scores, sampling and tally in one pass over the states.
 *
 * Warps form teams; a team takes a tile of agents at a time, keeps their states and hidden values in shared memory, and
 * goes its own way: nothing but the few sums of a step waits for other teams. Weights are in shared memory where they
 * fit, else they stream from the cache. */
#include "neural_step.cuh"
#include "places.cuh"

#include <cuda_pipeline_primitives.h>

enum {
    FEW_WARPS = 6, /* less than that waits for memory */
    STATIC_BYTES = sizeof(qr_block_tally) + 256
};

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

/* Claims the team's next tile; all threads of the team. */
static __device__ __forceinline__ int64_t claim_tile(const team *team, uint32_t *claimed)
{
    uint32_t number = 0;
    if (team->thread == 0) {
        number = atomicAdd(claimed, 1u);
    }
    if (team->threads == WARP) {
        return blockIdx.x + (int64_t)gridDim.x * __shfl_sync(~0u, number, 0);
    }
    if (team->thread == 0) {
        *team->tile = blockIdx.x + (int64_t)gridDim.x * number;
    }
    team_sync(team);
    int64_t tile = *team->tile;
    team_sync(team); /* before the next claim */
    return tile;
}

/* Asks for the states of a tile to come, if there is one, as far as the cache that all processors share. */
template <int AGENTS>
static __device__ __forceinline__ void prefetch_states(const qr_part *part, const team *team, const float *states,
                                                       int64_t first)
{
    enum { LINE = 128 };
    const int32_t row_bytes = ((int32_t)part->neural.state_dim) * (int32_t)sizeof(float);
    const char *from = (const char *)states + first * row_bytes;
    if (first + AGENTS > part->count) {
        return; /* nor for the last one, which may be short */
    }
    for (int32_t at = team->thread * LINE; at < AGENTS * row_bytes; at += team->threads * LINE) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
    }
}

/* Begins to copy the states of a tile into shared memory; agents beyond the part have zeros. */
template <int AGENTS>
static __device__ __forceinline__ void begin_load(const qr_part *part, const team *team, const float *states,
                                                  int64_t first)
{
    const int32_t n_state = (int32_t)part->neural.state_dim;
    const int32_t row = row_of(n_state);
    const float *from = states + first * n_state;
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
template <int AGENTS>
static __device__ __forceinline__ void store_states(const qr_part *part, const team *team, float *states, int64_t first,
                                                    uint32_t moving)
{
    const int32_t n_state = (int32_t)part->neural.state_dim;
    const int32_t row = row_of(n_state);
    float *to = states + first * n_state;
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
    if (AGENTS == WARP && team->threads == WARP && n_options <= QR_COUNT_OPTIONS) {
        bool counted = n_options <= QR_COUNT_OPTIONS / 2
                           ? put_counted_shares<false, QR_ANY_NETWORK>(part, votes, first, share, 1)
                           : put_counted_shares<true, QR_ANY_NETWORK>(part, votes, first, share, 1);
        if (counted) {
            return;
        }
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

/* Scores of a tile, to where the hidden values were. A thread an agent, or a thread a batch of its options. */
template <int AGENTS, bool IN_SHARED>
static __device__ __forceinline__ void find_tile_scores(const qr_neural *net, const team *team,
                                                        const block_memory *block)
{
    const weight_layout at = find_layout(net);
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t agent = team->thread % AGENTS;
    find_scores<IN_SHARED, 1>(&at, n_options, team->thread / AGENTS * BATCH, team->threads / AGENTS * BATCH, block,
                              team->x + agent * row_of(at.state), team->hidden + agent * (n_options | 1));
}

template <class PLACES, int AGENTS, bool IN_SHARED>
static __global__ void __launch_bounds__(MOST_WARPS *WARP, 1)
    update_neural(const __grid_constant__ qr_part part, const launch_plan plan, const __grid_constant__ PLACES places)
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
    const int64_t n_tiles = (qr_count_agents(&part, &places) + AGENTS - 1) / AGENTS;
    block_memory block;
    float *memory = prepare_block<IN_SHARED>(&part, (float *)dynamic, &block);
    team team;
    team.threads = plan.team_warps * WARP;
    team.thread = (int32_t)threadIdx.x % team.threads;
    const int32_t number = (int32_t)threadIdx.x / team.threads;
    team.barrier = number + 1;
    team.x = memory + number * plan.team_floats;
    team.hidden = team.x + AGENTS * row_of((int32_t)part.neural.state_dim);
    team.shares = team.x + plan.shares_at;
    team.tile = &next_tile[number];
    if (threadIdx.x == 0) {
        claimed = 0;
    }
    qr_tally_clear(&tally, part.rule.n_options);
    int64_t tile = claim_tile(&team, &claimed);
    float *next_states = NULL;
    int64_t next = qr_find_agent(&part, &places, tile * AGENTS, &next_states);
    while (tile < n_tiles) {
        const int64_t first = next;
        float *states = next_states;
        uint32_t active;
        uint32_t noisy;
        tile = claim_tile(&team, &claimed);
        next = qr_find_agent(&part, &places, tile * AGENTS, &next_states);
        prefetch_states<AGENTS>(&part, &team, next_states, next);
        qr_draw_masks<AGENTS>(&part, first, step, &active, &noisy);
        if (active != 0) {
            begin_load<AGENTS>(&part, &team, states, first);
            gather_shares<AGENTS>(&part, &team, &block, votes, first);
            __pipeline_wait_prior(0);
            team_sync(&team);
            apply_first_layer<AGENTS, IN_SHARED>(&part.neural, &team, &block);
            team_sync(&team);
            apply_second_layer<AGENTS, IN_SHARED>(&part.neural, &team, &block);
            team_sync(&team);
            find_tile_scores<AGENTS, IN_SHARED>(&part.neural, &team, &block);
            store_states<AGENTS>(&part, &team, states, first, active);
            team_sync(&team);
        }
        if (team.thread < WARP) {
            take_votes<AGENTS>(&part, team.hidden, first, active, noisy, &tally);
        }
    }
    qr_tally_finish(&part, &tally);
}

/* Fills in a plan whose first three fields are set; teams = 0 when not even one fits. */
static void finish_plan(const qr_neural *net, int64_t most_bytes, launch_plan *plan)
{
    const weight_layout at = find_layout(net);
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

template <class PLACES, int AGENTS, bool IN_SHARED>
static void launch(const qr_part *part, const PLACES *places, const launch_plan *plan, int32_t processors,
                   cudaStream_t stream)
{
    int64_t tiles = (qr_count_agents(part, places) + AGENTS - 1) / AGENTS;
    int64_t blocks = tiles < processors ? tiles : processors;
    (void)cudaFuncSetAttribute(update_neural<PLACES, AGENTS, IN_SHARED>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               plan->bytes);
    update_neural<PLACES, AGENTS, IN_SHARED>
        <<<(unsigned)(blocks > 0 ? blocks : 1), (unsigned)(plan->teams * plan->team_warps * WARP), (size_t)plan->bytes,
           stream>>>(*part, *plan, *places);
}

template <class PLACES> static void launch_best(const qr_part *part, const PLACES *places, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    int most_bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const launch_plan plan = make_plan(&part->neural, most_bytes - STATIC_BYTES);
    if (plan.agents == 8) {
        launch<PLACES, 8, false>(part, places, &plan, processors, stream);
    } else if (plan.agents == 16) {
        launch<PLACES, 16, false>(part, places, &plan, processors, stream);
    } else if (!plan.in_shared) {
        launch<PLACES, 32, false>(part, places, &plan, processors, stream);
    } else {
        launch<PLACES, 32, true>(part, places, &plan, processors, stream);
    }
}

extern "C" void qr_launch_neural(const qr_part *part, cudaStream_t stream)
{
    if (part->fast_weights != 0) {
        qr_launch_neural_fast(part, stream);
        return;
    }
    if (qr_launch_neural_tile(part, stream)) {
        return;
    }
    const qr_whole_part places = {};
    launch_best(part, &places, stream);
}

extern "C" void qr_launch_frames(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream)
{
    if (part->fast_weights != 0) {
        qr_launch_frames_fast(part, batch, stream);
        return;
    }
    if (qr_launch_frames_tile(part, batch, stream)) {
        return;
    }
    static_assert(sizeof(qr_part) + sizeof(launch_plan) + sizeof(qr_frame_batch) <= 4000, "all devices take so much");
    launch_best(part, batch, stream);
}
