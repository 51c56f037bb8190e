/* How the blocks of a launch of many steps agree: after a step each block publishes, for each option, its votes and the
 * first who votes so in one word that also carries the step's tag, and reads all blocks' words until they are of this
 * step: that is barrier and sum in one, without atomics. Every block then decides for itself. A block comes to the next
 * step but one only when all others have published the next, that is, have read this one's words: two sets of words in
 * turns are enough.
 *
 * When a batch is done, the launch waits a little for the host to order another one: to be told costs the host less
 * than to launch. */
#ifndef QR_RESIDENT_CUH
#define QR_RESIDENT_CUH

#include "packed_step.cuh"

enum {
    THREADS = QR_PACKED_THREADS,
    WARPS = THREADS / 32,
    LOADS = 5,            /* words a lane reads at once: up to 160 blocks */
    MOST_LOOKS = 1 << 26, /* at words that never come: seconds */
    VOTES_BITS = 24,      /* of a word of qr_loop_state */
    NOBODY = (1 << 24) - 1
};

/* What a lane knows of the option of its own number: votes in its warp, and the lowest own agent that votes so. */
typedef struct warp_count {
    uint32_t votes;
    uint32_t first; /* or NOBODY */
} warp_count;

/* What the threads of a block share. */
typedef struct block_memory {
    warp_count warp[WARPS][QR_LOOP_OPTIONS];
    int64_t votes[QR_LOOP_OPTIONS];  /* of all agents after the last step */
    uint32_t first[QR_LOOP_OPTIONS]; /* lowest agent that votes for the option, NOBODY for none */
    uint64_t command;
} block_memory;

/* Where a launch stands: the same in every thread of every block. */
typedef struct progress {
    int64_t first; /* of the batch */
    int64_t last;
    int64_t step; /* the one in progress */
    int64_t held;
    int32_t candidate;
    uint32_t decided;
    uint32_t current;
    uint32_t stop_at_decision;
    uint32_t number; /* of the batch */
    uint32_t winner; /* of the last step */
} progress;

/* A word that other blocks write to. */
static __device__ __forceinline__ unsigned long long look_at(const unsigned long long *word)
{
    unsigned long long value;
    asm volatile("ld.relaxed.gpu.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

static __device__ __forceinline__ void publish_word(unsigned long long *word, unsigned long long value)
{
    asm volatile("st.relaxed.gpu.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

/* The same with the host. */
static __device__ __forceinline__ uint64_t look_at_host(const uint64_t *word)
{
    uint64_t value;
    asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}

static __device__ __forceinline__ void tell_host(uint64_t *word, uint64_t value)
{
    asm volatile("st.relaxed.sys.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

static __device__ __forceinline__ uint64_t now_ns(void)
{
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

/* Orders what a thread, and those it has met, read and wrote before it with what comes behind, for all blocks.
 * __threadfence is a sequentially consistent one, which costs much more. */
static __device__ __forceinline__ void order(void)
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* Bits of a lane's option among the lanes that say which one they vote for. `index`: own agent of lane 0; a warp comes
 * by its agents in ascending order. All lanes. */
static __device__ __forceinline__ void count_votes(warp_count *count, uint32_t n_options, uint32_t vote, bool mine,
                                                   int64_t index)
{
    const uint32_t lane = threadIdx.x % 32u;
    uint32_t same = 0;
    for (uint32_t k = 0; k < n_options; k++) {
        uint32_t voters = __ballot_sync(~0u, mine && vote == k);
        same = lane == k ? voters : same;
    }
    count->votes += (uint32_t)__popc(same);
    if (same != 0 && count->first == NOBODY) {
        count->first = (uint32_t)index + (uint32_t)__ffs((int)same) - 1u;
    }
}

/* The counts of the block's warps added up, thread k < n_options for option k: for all blocks to read or, where there
 * is but one, as the result. All warps have put their counts. */
static __device__ __forceinline__ void publish(const qr_loop_task *task, block_memory *memory, int64_t step,
                                               uint32_t n_options, bool others_look)
{
    const uint32_t k = threadIdx.x;
    if (k >= n_options) {
        return;
    }
    uint32_t votes = 0;
    uint32_t first = NOBODY;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        warp_count count = memory->warp[w][k];
        votes += count.votes;
        first = count.first < first ? count.first : first;
    }
    if (gridDim.x == 1) {
        memory->votes[k] = votes;
        memory->first[k] = first;
        return;
    }
    if (others_look) {
        order(); /* for the whole block: it has just met */
    }
    publish_word(&task->state->words[step % 2][k][blockIdx.x],
                 qr_loop_tag((uint64_t)step) | (uint64_t)first << VOTES_BITS | votes);
}

/* All blocks' words of one option, by one warp: their votes and the lowest agent. */
static __device__ __forceinline__ warp_count read_words(const unsigned long long *words, int64_t step)
{
    const uint32_t tag = (uint32_t)(qr_loop_tag((uint64_t)step) >> QR_LOOP_TAG_SHIFT);
    warp_count sum;
    bool ready = false;
    for (uint32_t looks = 0; !ready; looks++) {
        unsigned long long word[LOADS];
        if (looks == MOST_LOOKS) {
            __trap();
        }
        sum.votes = 0;
        sum.first = NOBODY;
        ready = true;
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++) {
            const uint32_t block = threadIdx.x % 32u + 32u * i;
            word[i] = (uint64_t)tag << QR_LOOP_TAG_SHIFT | (uint64_t)NOBODY << VOTES_BITS;
            if (block < gridDim.x) {
                word[i] = look_at(&words[block]);
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < LOADS; i++) {
            const uint32_t first = (uint32_t)(word[i] >> VOTES_BITS) & NOBODY;
            ready = ready && (uint32_t)(word[i] >> QR_LOOP_TAG_SHIFT) == tag;
            sum.votes += (uint32_t)word[i] & NOBODY;
            sum.first = first < sum.first ? first : sum.first;
        }
        ready = __all_sync(~0u, ready);
    }
    sum.votes = __reduce_add_sync(~0u, sum.votes);
    sum.first = __reduce_min_sync(~0u, sum.first);
    return sum;
}

/* The sums over all blocks, and from there the decision; the same in every thread of every block. Returns whether this
 * was the batch's last step. All threads, after publish(). */
static __device__ __forceinline__ bool conclude(const qr_part *part, const qr_loop_task *task, block_memory *memory,
                                                bool others_look, progress *at)
{
    const uint32_t n_options = part->rule.n_options;
    const uint32_t k = threadIdx.x;
    const int64_t step = at->step;
    if (gridDim.x > 1) {
        for (uint32_t option = k / 32u; option < n_options; option += WARPS) {
            const warp_count sum = read_words(task->state->words[step % 2][option], step);
            memory->votes[option] = sum.votes;
            memory->first[option] = sum.first;
        }
        if (others_look) {
            order();
        }
    }
    __syncthreads();
    uint32_t most = (uint32_t)memory->votes[0];
    uint32_t best = 0;
    for (uint32_t option = 1; option < n_options; option++) {
        const uint32_t votes = (uint32_t)memory->votes[option];
        best = votes > most ? option : best;
        most = votes > most ? votes : most;
    }
    /* qr_consensus_take in short: the quorum as a number of votes. */
    const bool reached = (int64_t)most >= task->quorum;
    at->held = !reached ? 0 : (int32_t)best == at->candidate ? at->held + 1 : 1;
    at->candidate = reached ? (int32_t)best : -1;
    at->decided |= reached && at->held >= task->hold ? 1u : 0u;
    at->winner = best;
    const bool last = step == at->last || (at->stop_at_decision != 0 && at->decided != 0);
    if (blockIdx.x == 0 && !last) { /* the last row goes to the host straight away */
        const int64_t row = step - at->first;
        if (k < n_options) {
            part->row_votes[row * n_options + k] = memory->votes[k];
        }
        if (k == 0) {
            part->row_leaders[row] = qr_leader_pack(0, part->first + memory->first[best]);
        }
    }
    return last;
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

/* Block 0 hands in a batch: what the host waits for first. */
static __device__ void finish(const qr_part *part, const qr_loop_task *task, const block_memory *memory,
                              const progress *at)
{
    const int64_t n_options = part->rule.n_options;
    const int64_t before = at->step - at->first; /* rows before the last one */
    const uint64_t tag = qr_loop_tag(at->number);
    const uint32_t k = threadIdx.x;
    if (blockIdx.x != 0) {
        return;
    }
    if (k < n_options) {
        tell_host(&task->row_votes[before * n_options + k], tag | (uint64_t)memory->votes[k]);
    }
    if (k == 0) {
        tell_host(&task->row_leaders[before], tag | qr_leader_pack(0, part->first + memory->first[at->winner]));
        tell_host(&task->mail->consensus,
                  tag | (uint64_t)at->decided << 47 | (uint64_t)(at->candidate + 1) << 40 | (uint64_t)at->held);
        tell_host(&task->mail->result,
                  (uint64_t)at->number << 32 | (uint64_t)at->current << 16 | (uint64_t)(before + 1));
        part->control->current = at->current;
        part->control->step = at->step;
    }
    if (k < n_options) {
        task->state->now[k] = memory->votes[k];
    }
    __syncthreads(); /* for the rows that others have written */
    for (int64_t i = k; i < before * n_options; i += blockDim.x) {
        tell_host(&task->row_votes[i], tag | (uint64_t)__ldcg(&part->row_votes[i]));
    }
    for (int64_t i = k; i < before; i += blockDim.x) {
        tell_host(&task->row_leaders[i], tag | __ldcg(&part->row_leaders[i]));
    }
}

/* Waits for another batch. Block 0 looks at the host's word, the others at what block 0 makes of it. False: none has
 * come, and none will be taken. All threads. */
static __device__ bool wait_for_batch(const qr_loop_task *task, block_memory *memory, progress *at)
{
    const uint32_t number = at->number + 1u;
    if (task->wait_ns == 0 || (at->stop_at_decision != 0 && at->decided != 0)) {
        if (threadIdx.x == 0 && blockIdx.x == 0) {
            tell_host(&task->mail->left, at->number);
        }
        return false;
    }
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        const uint64_t begin = now_ns();
        uint64_t command = look_at_host(&task->mail->command);
        while (command >> 32 != number && now_ns() - begin < task->wait_ns) {
            command = look_at_host(&task->mail->command);
        }
        command = command >> 32 == number ? command : (uint64_t)number << 32; /* no steps: the end */
        publish_word((unsigned long long *)&task->state->command, command);
        if ((command & 0xffffu) == 0) {
            tell_host(&task->mail->left, at->number);
        }
        memory->command = command;
    } else if (threadIdx.x == 0) {
        uint64_t command = 0;
        for (uint32_t looks = 0; command >> 32 != number; looks++) {
            command = look_at((const unsigned long long *)&task->state->command);
            if (looks == MOST_LOOKS) {
                __trap();
            }
        }
        memory->command = command;
    }
    __syncthreads();
    const uint64_t command = memory->command;
    at->number = number;
    at->first = at->step + 1;
    at->last = at->step + (int64_t)(command & 0xffffu);
    at->stop_at_decision = (uint32_t)(command >> 16 & 1u);
    return (command & 0xffffu) != 0;
}

static __device__ __forceinline__ progress begin_progress(const qr_loop_task *task)
{
    progress at;
    at.first = task->first;
    at.last = task->first + task->count - 1;
    at.step = task->first;
    at.held = task->held;
    at.candidate = task->candidate;
    at.decided = task->decided;
    at.current = task->current;
    at.stop_at_decision = task->stop_at_decision;
    at.number = task->number;
    at.winner = 0;
    return at;
}

#endif
