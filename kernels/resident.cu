/* Many steps in one launch, for crowds that fit on the device all at once. All blocks stay. After a step each block
 * publishes its count of each option in a word of its own that also carries the number of the step, and reads all
 * blocks' words until they are of this step: that is barrier and sum in one, without atomics. Every block then decides
 * for itself. A block comes to the next step but one only when all others have published the next, that is, have read
 * this one's words: two sets of words in turns are enough. */
#define QR_READ_WORD(address) __ldcg(address) /* votes change while the kernel runs */

#include "packed_step.cuh"
#include "planes_word.cuh"
#include "votes.cuh"

enum {
    THREADS = QR_PACKED_THREADS,
    TAG_SHIFT = 48,
    LOADS = 5, /* words a lane reads at once: up to 160 blocks */
    WORDS_PER_THREAD = 1,
    AGENTS_PER_THREAD = 4,
    MOST_LOOKS = 1 << 26 /* at words that never come: seconds */
};

/* What a block knows after a step. */
typedef struct step_result {
    int64_t votes[QR_DEVICE_OPTIONS]; /* of all agents */
    uint32_t first[QR_LOOP_OPTIONS];  /* lowest agent that votes for the option, ~0 for none; block 0 only */
} step_result;

/* A word that other blocks write to. */
static __device__ __forceinline__ unsigned long long look_at(const unsigned long long *word)
{
    unsigned long long value;
    asm volatile("ld.relaxed.gpu.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

/* Orders what a thread, and those it has met, read and wrote before it with what comes behind, for all blocks.
 * __threadfence is a sequentially consistent one, which costs much more. */
static __device__ __forceinline__ void order(void)
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* A word with a step's tag: its lower bits. */
static __device__ __forceinline__ unsigned long long tag_of(int64_t step)
{
    return (unsigned long long)(step % 65535 + 1) << TAG_SHIFT;
}

static __device__ __forceinline__ void publish_word(unsigned long long *word, unsigned long long value)
{
    asm volatile("st.relaxed.gpu.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

/* The votes and first voter of option threadIdx.x in this block, for all to read. Thread k < n_options brings them. */
static __device__ __forceinline__ void publish(qr_loop_state *loop, int64_t step, uint32_t votes, uint64_t leader)
{
    const uint32_t k = threadIdx.x;
    const unsigned long long tag = tag_of(step);
    uint64_t voter = leader != 0 ? (uint64_t)qr_leader_agent(leader) + 1 : 0;
    publish_word(&loop->first[step % 2][k][blockIdx.x], tag | voter);
    publish_word(&loop->votes[step % 2][k][blockIdx.x], tag | votes);
}

/* All blocks' words of one option, by one warp: the sum of their lower bits, or the least above 0 of them less 1. */
static __device__ __forceinline__ uint32_t read_words(const unsigned long long *words, int64_t step, bool least)
{
    const unsigned long long tag = tag_of(step) >> TAG_SHIFT;
    uint32_t result = least ? ~0u : 0u;
    bool ready = false;
    for (uint32_t looks = 0; !ready; looks++) {
        unsigned long long word[LOADS];
        if (looks == MOST_LOOKS) {
            __trap();
        }
        result = least ? ~0u : 0u;
        ready = true;
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++) {
            uint32_t block = threadIdx.x % 32u + 32u * i;
            word[i] = block < gridDim.x ? look_at(&words[block]) : tag << TAG_SHIFT;
        }
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++) {
            uint32_t low = (uint32_t)word[i];
            ready = ready && word[i] >> TAG_SHIFT == tag;
            result = !least ? result + low : low != 0 && low - 1u < result ? low - 1u : result;
        }
        ready = __all_sync(~0u, ready);
    }
    return least ? __reduce_min_sync(~0u, result) : __reduce_add_sync(~0u, result);
}

/* The sums over all blocks into `result`, and from there the decision; the same in every thread of every block. Returns
 * whether this was the last step. All threads. votes, leader: of this block, in thread k < n_options. */
static __device__ __forceinline__ bool conclude(const qr_part *part, const qr_loop_task *task, int64_t step,
                                                uint32_t votes, uint64_t leader, bool others_look, step_result *result,
                                                qr_consensus *consensus)
{
    const uint32_t n_options = part->rule.n_options;
    const uint32_t k = threadIdx.x;
    if (gridDim.x == 1) {
        if (k < n_options) {
            result->votes[k] = votes;
            result->first[k] = leader != 0 ? (uint32_t)qr_leader_agent(leader) : ~0u;
        }
    } else {
        if (k < n_options) {
            if (others_look) {
                order(); /* for the whole block: it has just met */
            }
            publish(task->state, step, votes, leader);
        }
        for (uint32_t option = k / 32u; option < n_options; option += THREADS / 32) {
            uint32_t sum = read_words(task->state->votes[step % 2][option], step, false);
            uint32_t first = blockIdx.x == 0 ? read_words(task->state->first[step % 2][option], step, true) : 0;
            result->votes[option] = sum;
            if (blockIdx.x == 0) {
                result->first[option] = first;
            }
        }
        if (others_look) {
            order();
        }
    }
    __syncthreads();
    int64_t most = -1;
    uint32_t best = 0;
    for (uint32_t option = 0; option < n_options; option++) {
        if (result->votes[option] > most) {
            most = result->votes[option];
            best = option;
        }
    }
    qr_consensus_take(consensus, step, best, most, 0);
    if (blockIdx.x == 0) {
        int64_t row = step - task->first;
        if (k < n_options) {
            part->row_votes[row * n_options + k] = result->votes[k];
        }
        if (k == 0) {
            part->row_leaders[row] = qr_leader_pack(0, result->first[best]);
        }
    }
    return (task->stop_at_decision != 0 && consensus->decision.decided != 0) || step + 1 == task->first + task->count;
}

/* All blocks, between the colours of a sweep. */
static __device__ void meet(qr_loop_state *loop)
{
    order();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1u) : 1u;
        uint32_t before = atomicAdd(&loop->arrived, mine);
        for (uint32_t looks = 0; ((before ^ *(volatile uint32_t *)&loop->arrived) & 0x80000000u) == 0; looks++) {
            if (looks == MOST_LOOKS) {
                __trap();
            }
        }
        order();
    }
    __syncthreads();
}

/* The last act of block 0: device and host know where the run stands. Rows go to the host only now, for a fence would
 * wait for each of them. */
static __device__ void finish(const qr_part *part, const qr_loop_task *task, int64_t step, uint32_t current)
{
    const int64_t n_options = part->rule.n_options;
    const int64_t done = step - task->first + 1;
    if (blockIdx.x != 0) {
        return;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < done * n_options; i += blockDim.x) {
        task->row_votes[i] = part->row_votes[i];
    }
    for (int64_t i = threadIdx.x; i < done; i += blockDim.x) {
        task->row_leaders[i] = part->row_leaders[i];
    }
    for (int64_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        task->state->now[k] = part->row_votes[(done - 1) * n_options + k];
    }
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x != 0) {
        return;
    }
    part->control->current = current;
    part->control->step = step;
    task->mail->done = done;
    task->mail->current = current;
    __threadfence_system();
    *(volatile uint64_t *)&task->mail->number = task->number;
}

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

/* One step, or one colour, of a worker's share of packed votes. kept: the vote of the thread's agent after the step
 * before, ~0 where that is not known. */
template <int KIND>
static __device__ __forceinline__ void step_packed(const qr_part *part, qr_packed_shared *shared, const int64_t *before,
                                                   int64_t step, int colour, int last_colour, uint32_t current,
                                                   uint32_t *kept)
{
    const uint32_t target = part->sweeps ? current : current ^ 1u;
    const uint8_t *votes = part->packed[current];
    const int64_t n_groups = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    const int64_t stride = (int64_t)gridDim.x * QR_PACKED_MIN_GROUPS;
    for (int64_t group = (int64_t)blockIdx.x * QR_PACKED_MIN_GROUPS; group < n_groups; group += stride) {
        int64_t here = n_groups - group < QR_PACKED_MIN_GROUPS ? n_groups - group : QR_PACKED_MIN_GROUPS;
        qr_draw_planes(part, group, here, step, &shared->planes);
        __syncthreads();
        int64_t i = threadIdx.x;
        if (i < here * QR_DEVICE_GROUP) {
            int64_t index = group * QR_DEVICE_GROUP + i;
            int64_t position = part->before + index;
            bool mine = index < part->count;
            uint32_t vote = *kept != ~0u ? *kept : mine ? qr_packed_vote(votes, part->packing, position) : 0;
            bool moves = mine && (shared->planes.active[i / QR_DEVICE_GROUP] >> (i % QR_DEVICE_GROUP) & 1u) != 0;
            if (moves &&
                (KIND != QR_KIND_POTTS || qr_has_turn(part, index, colour))) {
                vote = qr_next_vote<KIND>(part, shared, before, votes, index, vote, i / QR_DEVICE_GROUP,
                                          (uint32_t)(i % QR_DEVICE_GROUP), step);
            }
            if (__all_sync(~0u, mine)) {
                qr_store_votes(part->packed[target], part->packing, position - threadIdx.x % 32u, vote);
            } else if (mine) {
                qr_put_vote(part, target, position, vote);
            }
            if (mine && has_mirror(part, position)) {
                put_mirrors(part, target, position, vote);
            }
            *kept = n_groups <= stride ? vote : ~0u;
            if (last_colour) {
                qr_tally_warp(&shared->tally, part->rule.n_options, vote, __ballot_sync(~0u, mine),
                              part->first + index - threadIdx.x % 32u);
            }
        }
        __syncthreads();
    }
}

/* What the warps of a block have counted of option threadIdx.x, cleared for the next step. */
static __device__ __forceinline__ void take_tally(qr_block_tally *tally, uint32_t n_options, uint32_t *votes,
                                                  uint64_t *leader)
{
    *votes = 0;
    *leader = 0;
    for (uint32_t at = threadIdx.x; threadIdx.x < n_options && at < QR_DEVICE_OPTIONS; at += QR_TALLY_WARP_OPTIONS) {
        *votes += tally->votes[at];
        *leader = tally->leader[at] > *leader ? tally->leader[at] : *leader;
        tally->votes[at] = 0;
        tally->leader[at] = 0;
    }
}

template <int KIND>
static __global__ void __launch_bounds__(THREADS)
    loop_packed(const __grid_constant__ qr_part part, const __grid_constant__ qr_loop_task task)
{
    __shared__ qr_packed_shared shared;
    __shared__ step_result result;
    const uint32_t n_options = part.rule.n_options;
    const int n_colours = KIND == QR_KIND_POTTS ? part.lattice.n_colours : 1;
    uint32_t kept = ~0u;
    uint32_t current = task.current;
    int64_t step = task.first;
    qr_consensus consensus = task.consensus;
    if (threadIdx.x < n_options) {
        result.votes[threadIdx.x] = task.state->now[threadIdx.x];
    }
    qr_tally_clear(&shared.tally, n_options);
    for (;; step++) {
        uint32_t votes;
        uint64_t leader;
        for (int colour = 0; colour < n_colours; colour++) {
            step_packed<KIND>(&part, &shared, result.votes, step, colour, colour + 1 == n_colours, current, &kept);
            if (colour + 1 < n_colours) {
                meet(task.state);
            }
        }
        __syncthreads();
        take_tally(&shared.tally, n_options, &votes, &leader);
        current ^= part.sweeps ? 0u : 1u;
        if (conclude(&part, &task, step, votes, leader, !part.complete, &result, &consensus)) {
            break;
        }
    }
    finish(&part, &task, step, current);
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

template <bool VOTER, int DEGREE, int PLANES>
static __device__ __forceinline__ void step_planes(const qr_part *part, const qr_plane_keys *keys,
                                                   const qr_plane_buffers *buffers, qr_block_tally *block)
{
    const uint32_t n_options = part->rule.n_options;
    const int64_t n_words = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    for (int64_t word = (int64_t)blockIdx.x * THREADS + threadIdx.x; word - threadIdx.x % 32u < n_words;
         word += stride) {
        const int64_t index = word * QR_DEVICE_GROUP;
        uint64_t votes[PLANES] = {};
        uint64_t valid = 0;
        if (word < n_words) {
            int64_t x = 0;
            int64_t y = 0;
            if (part->lattice.dims > 1) {
                (void)qr_divide(qr_divide(part->first + index, part->lattice.size[0], &x), part->lattice.size[1], &y);
            }
            valid = qr_bit_range(0, part->count - index);
            qr_next_word<VOTER, DEGREE, PLANES, false>(part, keys, buffers, index, valid, x, y, votes);
            store_words<PLANES>(part, buffers, index, valid, votes);
            qr_count_word<PLANES>(votes, valid, n_options, &tally);
        }
        __syncwarp();
        qr_note_leaders<PLANES, 1>(votes, &valid, part->first + index, n_options, &seen, block);
    }
    qr_add_up<PLANES>(&tally, n_options, block);
}

template <bool VOTER, int DEGREE, int PLANES>
static __global__ void __launch_bounds__(THREADS)
    loop_planes(const __grid_constant__ qr_part part, const __grid_constant__ qr_loop_task task,
                const __grid_constant__ qr_plane_keys keys)
{
    __shared__ qr_block_tally block;
    __shared__ step_result result;
    const uint32_t n_options = part.rule.n_options;
    uint32_t current = task.current;
    int64_t step = task.first;
    qr_consensus consensus = task.consensus;
    qr_tally_clear(&block, n_options);
    for (;; step++) {
        qr_plane_buffers buffers;
        uint32_t votes;
        uint64_t leader;
        qr_set_buffers(&part, current, step, &buffers);
        step_planes<VOTER, DEGREE, PLANES>(&part, &keys, &buffers, &block);
        __syncthreads();
        take_tally(&block, n_options, &votes, &leader);
        current ^= 1u;
        if (conclude(&part, &task, step, votes, leader, true, &result, &consensus)) {
            break;
        }
    }
    finish(&part, &task, step, current);
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
    bool one = part->n_planes == 1;
    switch (part->n_offsets) {
    case 2: return !voter ? loop_planes<false, 2, 1> : one ? loop_planes<true, 2, 1> : loop_planes<true, 2, 4>;
    case 4: return !voter ? loop_planes<false, 4, 1> : one ? loop_planes<true, 4, 1> : loop_planes<true, 4, 4>;
    case 8: return !voter ? loop_planes<false, 8, 1> : one ? loop_planes<true, 8, 1> : loop_planes<true, 8, 4>;
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

extern "C" cudaError_t qr_launch_loop(const qr_part *part, const qr_loop_task *task, cudaStream_t stream)
{
    qr_plane_keys keys;
    qr_plane_keys_set(&keys, part->rule.seed);
    void *arguments[] = {(void *)part, (void *)task, &keys};
    const void *kernel =
        part->form == QR_FORM_PLANES ? (const void *)find_planes(part) : (const void *)find_packed(part);
    return cudaLaunchCooperativeKernel(kernel, dim3((unsigned)workers(part)), dim3(THREADS), arguments, 0, stream);
}
