/* Many steps in one launch, for crowds that fit on the device all at once. All blocks stay; resident.cuh says how they
 * agree after each step. While their words travel, threads draw the random numbers of the next step. */
#define QR_READ_WORD(address) (*(address)) /* votes change while the kernel runs */

#include "planes_word.cuh"
#include "resident.cuh"
#include "votes.cuh"

enum { WORDS_PER_THREAD = 1, AGENTS_PER_THREAD = 4 };

/* True for an agent that is seen elsewhere in the view, too. */
static __device__ __forceinline__ bool has_mirror(const qr_part *part, int64_t position)
{
    return part->mirrors != 0 && (position >= part->rule.n_agents || position + part->rule.n_agents < part->view);
}

static __device__ __forceinline__ void put_mirrors(const qr_part *part, uint32_t buffer, int64_t position,
                                                   uint32_t vote)
{
    for (int64_t at = position - part->rule.n_agents; at >= 0; at -= part->rule.n_agents) {
        qr_put_vote(part, buffer, at, vote);
    }
    for (int64_t at = position + part->rule.n_agents; at < part->view; at += part->rule.n_agents) {
        qr_put_vote(part, buffer, at, vote);
    }
}

/* What a thread keeps between steps of packed votes, where it has one agent alone. */
typedef struct packed_agent {
    uint32_t vote;   /* after the step before; ~0: not known */
    uint32_t random; /* voters in a complete network: which of the others to follow in the step to come */
} packed_agent;

/* Draws ahead what the rule asks for whatever the votes are. */
template <int KIND>
static __device__ __forceinline__ void draw_ahead(const qr_part *part, int64_t step, packed_agent *agent)
{
    if (KIND == QR_KIND_VOTER && part->complete) {
        const uint64_t self = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
        qr_draws draws;
        qr_draws_begin(&draws, part->rule.seed, self, (uint64_t)step, QR_STREAM_RULE);
        agent->random = (uint32_t)qr_bounded64(qr_draws_next64(&draws), (uint64_t)(part->rule.n_agents - 1));
        asm volatile("" : "+r"(agent->random)); /* now, not when it is needed */
    }
}

/* qr_view_sample by number among the others in a complete network. */
static __device__ __forceinline__ uint32_t follow(const int64_t *votes, uint32_t n_options, uint32_t own,
                                                  uint32_t number)
{
    uint32_t option = 0;
    uint32_t sum = 0;
#pragma unroll 4
    for (uint32_t k = 0; k + 1u < n_options; k++) {
        sum += (uint32_t)votes[k];
        option += number + (own <= k ? 1u : 0u) >= sum ? 1u : 0u;
    }
    return option;
}

/* One step, or one colour, of a block's share of packed votes. calm: no agent rests, is a zealot or makes mistakes, and
 * shared->planes say so. */
template <int KIND>
static __device__ __forceinline__ void step_packed(const qr_part *part, qr_packed_shared *shared, const int64_t *before,
                                                   const progress *at, int colour, bool last_colour, bool calm,
                                                   packed_agent *agent, warp_count *count)
{
    const uint32_t n_options = part->rule.n_options;
    const uint32_t target = part->sweeps ? at->current : at->current ^ 1u;
    const uint8_t *votes = part->packed[at->current];
    const int64_t n_groups = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    const int64_t stride = (int64_t)gridDim.x * QR_PACKED_MIN_GROUPS;
    const bool alone = n_groups <= stride; /* the thread's agent */
    for (int64_t group = (int64_t)blockIdx.x * QR_PACKED_MIN_GROUPS; group < n_groups; group += stride) {
        const int64_t here = n_groups - group < QR_PACKED_MIN_GROUPS ? n_groups - group : QR_PACKED_MIN_GROUPS;
        if (!calm) {
            qr_draw_planes(part, group, here, at->step, &shared->planes);
            __syncthreads();
        }
        const int64_t i = threadIdx.x;
        if (i < here * QR_DEVICE_GROUP) {
            const int64_t index = group * QR_DEVICE_GROUP + i;
            const int64_t position = part->before + index;
            const uint32_t bit = (uint32_t)(i % QR_DEVICE_GROUP);
            const bool mine = index < part->count;
            const bool moves = mine && (shared->planes.active[i / QR_DEVICE_GROUP] >> bit & 1u) != 0;
            uint32_t vote = alone && agent->vote != ~0u ? agent->vote
                            : mine                      ? qr_packed_vote(votes, part->packing, position)
                                                        : 0;
            if (KIND == QR_KIND_VOTER && part->complete && alone && part->rule.n_agents > 1 &&
                part->rule.choice_planes == 0) {
                const bool noisy = (shared->planes.noisy[i / QR_DEVICE_GROUP] >> bit & 1u) != 0;
                uint32_t other = follow(before, n_options, vote, agent->random);
                other = noisy && moves ? qr_noise_option(&part->rule, part->first + index, at->step) : other;
                vote = moves ? other : vote;
            } else if (moves && (KIND != QR_KIND_POTTS || qr_has_turn(part, index, colour))) {
                vote = qr_next_vote<KIND>(part, shared, before, votes, index, vote, i / QR_DEVICE_GROUP, bit, at->step);
            }
            agent->vote = vote;
            if (!alone || !part->complete) { /* who reads only the tally is told at the end */
                if (__all_sync(~0u, mine)) {
                    qr_store_votes(part->packed[target], part->packing, position - threadIdx.x % 32u, vote);
                } else if (mine) {
                    qr_put_vote(part, target, position, vote);
                }
                if (mine && has_mirror(part, position)) {
                    put_mirrors(part, target, position, vote);
                }
            }
            if (last_colour) {
                count_votes(count, n_options, vote, mine, index - threadIdx.x % 32u);
            }
        }
        if (!calm) {
            __syncthreads();
        }
    }
}

template <int KIND>
static __global__ void __launch_bounds__(THREADS)
    loop_packed(const __grid_constant__ qr_part part, const __grid_constant__ qr_loop_task task)
{
    __shared__ qr_packed_shared shared;
    __shared__ block_memory memory;
    const uint32_t n_options = part.rule.n_options;
    const uint32_t lane = threadIdx.x % 32u;
    const int n_colours = KIND == QR_KIND_POTTS ? part.lattice.n_colours : 1;
    const bool calm =
        part.rule.activation >> 32 != 0 && part.rule.noise == 0 && part.frozen == 0 && part.rule.choice_planes == 0;
    const int64_t self = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    packed_agent agent = {~0u, 0};
    progress at = begin_progress(&task);
    if (threadIdx.x < n_options) {
        memory.votes[threadIdx.x] = task.state->now[threadIdx.x];
    }
    if (threadIdx.x < QR_PACKED_MIN_GROUPS) {
        shared.planes.active[threadIdx.x] = ~(uint64_t)0;
        shared.planes.noisy[threadIdx.x] = 0;
    }
    draw_ahead<KIND>(&part, at.step, &agent);
    __syncthreads();
    for (;; at.step++) {
        warp_count count = {0, NOBODY};
        for (int colour = 0; colour < n_colours; colour++) {
            step_packed<KIND>(&part, &shared, memory.votes, &at, colour, colour + 1 == n_colours, calm, &agent, &count);
            if (colour + 1 < n_colours) {
                meet(task.state);
            }
        }
        if (lane < n_options) {
            memory.warp[threadIdx.x / 32u][lane] = count;
        }
        __syncthreads();
        publish(&task, &memory, at.step, n_options, !part.complete);
        draw_ahead<KIND>(&part, at.step + 1, &agent);
        at.current ^= part.sweeps ? 0u : 1u;
        if (!conclude(&part, &task, &memory, !part.complete, &at)) {
            continue;
        }
        finish(&part, &task, &memory, &at);
        if (part.complete && part.count <= (int64_t)gridDim.x * THREADS) {
            const bool mine = self < part.count;
            if (__all_sync(~0u, mine)) {
                qr_store_votes(part.packed[at.current], part.packing, part.before + self - lane, agent.vote);
            } else if (mine) {
                qr_put_vote(&part, at.current, part.before + self, agent.vote);
            }
        }
        if (!wait_for_batch(&task, &memory, &at)) {
            break;
        }
    }
}

/* A word of own agents and its images. */
static __device__ __forceinline__ void put_word(uint64_t *plane, int64_t view, int64_t position, uint64_t valid,
                                                uint64_t votes)
{
    if (position + 64 <= 0 || position >= view) {
        return;
    }
    const uint32_t shift = (uint32_t)position & 63u;
    const int64_t word = position >> 6; /* rounds down, also below 0 */
    const uint64_t low_mask = valid << shift;
    const uint64_t high_mask = shift == 0 ? 0 : valid >> (64u - shift);
    if (word >= 0) {
        qr_put_bits(&plane[word], low_mask, votes << shift & low_mask);
    }
    if (high_mask != 0) {
        qr_put_bits(&plane[word + 1], high_mask, votes >> (64u - shift) & high_mask);
    }
}

template <int PLANES>
static __device__ __forceinline__ void store_words(const qr_part *part, const qr_plane_buffers *buffers, int64_t index,
                                                   uint64_t valid, const uint64_t *votes)
{
    const int64_t period = part->rule.n_agents;
    const int64_t position = part->before + index;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        if (PLANES == 1 || p < part->n_planes) {
            qr_put_bits(&buffers->next[p][position / 64], valid, votes[p] & valid);
        }
    }
    if (part->mirrors == 0 || (position + 63 < period && position + period >= part->view)) {
        return;
    }
    for (int p = 0; p < part->n_planes; p++) {
        for (int64_t at = position - period; at + 64 > 0; at -= period) {
            put_word(buffers->next[p], part->view, at, valid, votes[p]);
        }
        for (int64_t at = position + period; at < part->view; at += period) {
            put_word(buffers->next[p], part->view, at, valid, votes[p]);
        }
    }
}

/* What a thread of the kernel on planes knows of its word once and for all. */
typedef struct own_word {
    int64_t index;  /* of the first agent */
    uint64_t valid; /* bits of agents */
    qr_word_borders borders;
    bool at_border;
} own_word;

static __device__ __forceinline__ own_word find_word(const qr_part *part)
{
    own_word word;
    int64_t x = 0;
    int64_t y = 0;
    word.index = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * QR_DEVICE_GROUP;
    word.valid = word.index < part->count ? qr_bit_range(0, part->count - word.index) : 0;
    if (part->lattice.dims > 1) {
        (void)qr_divide(qr_divide(part->first + word.index, part->lattice.size[0], &x), part->lattice.size[1], &y);
    }
    word.borders.x_first = word.borders.x_last = word.borders.y_first = word.borders.y_last = 0;
    word.at_border = qr_find_borders(&part->lattice, x, y, &word.borders);
    return word;
}

/* The choice planes of a step to come. */
template <bool VOTER, int DEGREE>
static __device__ __forceinline__ void choose_ahead(const qr_part *part, const qr_plane_keys *keys,
                                                    const own_word *word, int64_t step, uint64_t *choice)
{
    if (VOTER) {
        qr_draw_choice(keys, (uint64_t)(part->first + word->index) / QR_DEVICE_GROUP, step, qr_choice_planes(DEGREE),
                       choice);
#pragma unroll
        for (uint32_t b = 0; b < qr_choice_planes(DEGREE); b++) {
            asm volatile("" : "+l"(choice[b])); /* now, not when they are needed */
        }
    }
}

/* A warp's words into its counts. */
template <int PLANES>
static __device__ __forceinline__ void count_planes(const uint64_t *votes, const own_word *word, uint32_t n_options,
                                                    warp_count *count)
{
    const uint32_t lane = threadIdx.x % 32u;
#pragma unroll
    for (uint32_t k = 0; k < 1u << PLANES; k++) {
        if (PLANES > 1 && k >= n_options) {
            break;
        }
        const uint64_t voters = qr_voters<PLANES>(votes, k) & word->valid;
        const uint32_t first = (uint32_t)word->index + qr_count_trailing_zeros64(voters);
        const uint32_t sum = __reduce_add_sync(~0u, qr_popcount64(voters));
        const uint32_t least = __reduce_min_sync(~0u, voters != 0 ? first : (uint32_t)NOBODY);
        count->votes = lane == k ? sum : count->votes;
        count->first = lane == k ? least : count->first;
    }
}

template <bool VOTER, int DEGREE, int PLANES>
static __global__ void __launch_bounds__(THREADS)
    loop_planes(const __grid_constant__ qr_part part, const __grid_constant__ qr_loop_task task,
                const __grid_constant__ qr_plane_keys keys)
{
    __shared__ block_memory memory;
    const uint32_t n_options = part.rule.n_options;
    const uint32_t lane = threadIdx.x % 32u;
    const own_word word = find_word(&part);
    uint64_t choice[4];
    progress at = begin_progress(&task);
    choose_ahead<VOTER, DEGREE>(&part, &keys, &word, at.step, choice);
    for (;; at.step++) {
        qr_plane_buffers buffers;
        uint64_t votes[PLANES] = {};
        warp_count count = {0, NOBODY};
        qr_set_buffers(&part, at.current, at.step, &buffers);
        if (word.valid != 0) {
            qr_next_word<VOTER, DEGREE, PLANES, false>(&part, &buffers, word.index, word.valid, word.at_border,
                                                       &word.borders, choice, votes);
            store_words<PLANES>(&part, &buffers, word.index, word.valid, votes);
        }
        __syncwarp();
        count_planes<PLANES>(votes, &word, n_options, &count);
        if (lane < n_options) {
            memory.warp[threadIdx.x / 32u][lane] = count;
        }
        __syncthreads();
        publish(&task, &memory, at.step, n_options, true);
        choose_ahead<VOTER, DEGREE>(&part, &keys, &word, at.step + 1, choice);
        at.current ^= 1u;
        if (!conclude(&part, &task, &memory, true, &at)) {
            continue;
        }
        finish(&part, &task, &memory, &at);
        if (!wait_for_batch(&task, &memory, &at)) {
            break;
        }
    }
}

typedef void (*packed_kernel)(qr_part, qr_loop_task);
typedef void (*planes_kernel)(qr_part, qr_loop_task, qr_plane_keys);

static packed_kernel find_packed(const qr_part *part)
{
    switch (part->kind) {
    case QR_KIND_VOTER: return loop_packed<QR_KIND_VOTER>;
    case QR_KIND_MAJORITY: return loop_packed<QR_KIND_MAJORITY>;
    case QR_KIND_Q_VOTER: return loop_packed<QR_KIND_Q_VOTER>;
    case QR_KIND_POTTS: return loop_packed<QR_KIND_POTTS>;
    default: return loop_packed<QR_KIND_BEST_OF_N>;
    }
}

/* The commonest lattices; others take a launch a step. */
static planes_kernel find_planes(const qr_part *part)
{
    bool voter = part->kind == QR_KIND_VOTER;
    if (!voter && part->kind != QR_KIND_MAJORITY) {
        return NULL;
    }
    if (part->n_planes > 1) {
        switch (part->n_offsets) {
        case 2: return voter ? loop_planes<true, 2, 4> : loop_planes<false, 2, 4>;
        case 4: return voter ? loop_planes<true, 4, 4> : loop_planes<false, 4, 4>;
        case 8: return voter ? loop_planes<true, 8, 4> : loop_planes<false, 8, 4>;
        default: return NULL;
        }
    }
    switch (part->n_offsets) {
    case 2: return voter ? loop_planes<true, 2, 1> : loop_planes<false, 2, 1>;
    case 4: return voter ? loop_planes<true, 4, 1> : loop_planes<false, 4, 1>;
    case 8: return voter ? loop_planes<true, 8, 1> : loop_planes<false, 8, 1>;
    case 6: return voter ? NULL : loop_planes<false, 6, 1>;
    default: return NULL;
    }
}

static int64_t processors(void)
{
    int device = 0;
    int count = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

/* Blocks: all of them on the device at once. */
static int64_t workers(const qr_part *part)
{
    int64_t per_block = part->form == QR_FORM_PLANES ? (int64_t)THREADS * QR_DEVICE_GROUP : THREADS;
    int64_t blocks = (part->count + per_block - 1) / per_block;
    int64_t most = processors() < QR_LOOP_BLOCKS ? processors() : QR_LOOP_BLOCKS;
    return blocks < 1 ? 1 : blocks > most ? most : blocks;
}

extern "C" int qr_loop_fits(const qr_part *part)
{
    int64_t threads = (processors() < QR_LOOP_BLOCKS ? processors() : QR_LOOP_BLOCKS) * THREADS;
    if (part->rule.n_options > QR_LOOP_OPTIONS) {
        return 0;
    }
    if (part->form == QR_FORM_PACKED) {
        return part->count <= AGENTS_PER_THREAD * threads;
    }
    return part->form == QR_FORM_PLANES && part->count <= WORDS_PER_THREAD * QR_DEVICE_GROUP * threads &&
           find_planes(part) != NULL;
}

/* Not a cooperative launch, which takes longer: there are never more blocks than multiprocessors, so each has a place.
 */
extern "C" cudaError_t qr_launch_loop(const qr_part *part, const qr_loop_task *task, cudaStream_t stream)
{
    qr_plane_keys keys;
    qr_plane_keys_set(&keys, part->rule.seed);
    void *arguments[] = {(void *)part, (void *)task, &keys};
    const void *kernel =
        part->form == QR_FORM_PLANES ? (const void *)find_planes(part) : (const void *)find_packed(part);
    return cudaLaunchKernel(kernel, dim3((unsigned)workers(part)), dim3(THREADS), arguments, 0, stream);
}
