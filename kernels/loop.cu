/* What frames the updates of a step: counting, the sum over parts, the decision, and votes in and out. */
#include "tally.cuh"
#include "votes.cuh"

enum { THREADS = 256, MOST_BLOCKS = 4096, MOST_COUNT_BLOCKS = 528 };

static unsigned blocks_for(int64_t items)
{
    int64_t blocks = (items + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks);
}

/* A block's tally into the part's; the last block hands the part's out and clears it for what comes next. */
static __device__ void hand_out(const qr_part *part, qr_block_tally *tally, int64_t *out)
{
    __shared__ uint32_t is_last;
    qr_control *control = part->control;
    uint32_t n_options = part->rule.n_options;
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        if (tally->votes[k] != 0) {
            atomicAdd(&control->part_votes[k], (unsigned long long)tally->votes[k]);
            atomicMax(&control->part_leader[k], tally->leader[k]);
        }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(&control->ticket, 1u) + 1u == gridDim.x;
    }
    __syncthreads();
    if (!is_last) {
        return;
    }
    __threadfence();
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        out[k] = (int64_t)__ldcg(&control->part_votes[k]);
        out[n_options + k] = (int64_t)__ldcg(&control->part_leader[k]);
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
    if (threadIdx.x == 0) {
        control->ticket = 0;
    }
}

/* Votes one by one: more options than fit half a byte. */
static __global__ void count_bytes(const __grid_constant__ qr_part part, int64_t *out)
{
    __shared__ qr_block_tally tally;
    uint32_t current = part.control->current;
    int64_t end = (part.count + 31) / 32 * 32;
    qr_tally_clear(&tally, part.rule.n_options);
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < end; i += (int64_t)gridDim.x * THREADS) {
        bool mine = i < part.count;
        uint32_t vote = mine ? qr_vote_at(&part, current, part.before + i) : 0;
        qr_tally_warp(&tally, part.rule.n_options, vote, __ballot_sync(~0u, mine), part.first + i - threadIdx.x % 32u);
    }
    qr_tally_gather(&tally, part.rule.n_options);
    hand_out(&part, &tally, out);
}

/* A bit, the lowest of its field, for each vote for option k among the packed votes of a word. */
static __device__ __forceinline__ uint64_t voters_in_word(uint64_t word, uint32_t width, uint32_t k)
{
    const uint64_t lowest = width == 1 ? ~0ull : width == 2 ? 0x5555555555555555ull : 0x1111111111111111ull;
    uint64_t other = word ^ lowest * k;
    other |= width > 1 ? other >> 1 : 0;
    other |= width > 2 ? other >> 2 : 0;
    return ~other & lowest;
}

/* What own word `w` of 64 bits says: planes, or packed votes. */
typedef struct vote_words {
    uint64_t plane[QR_DEVICE_MAX_PLANES];
} vote_words;

static __device__ __forceinline__ vote_words read_words(const qr_part *part, uint32_t current, uint32_t apart,
                                                        int64_t w)
{
    vote_words words = {};
    if (part->form != QR_FORM_PLANES) {
        words.plane[0] = ((const uint64_t *)part->packed[current])[part->before / (64 / apart) + w];
        return words;
    }
#pragma unroll
    for (int32_t p = 0; p < QR_DEVICE_MAX_PLANES; p++) {
        words.plane[p] = p < part->n_planes ? part->plane[current][p][part->before / 64 + w] : 0;
    }
    return words;
}

/* Those of the word's agents who vote for option k, the lowest bit of each one's field. */
static __device__ __forceinline__ uint64_t voters_of(const qr_part *part, const vote_words *words, uint32_t apart,
                                                     uint32_t k)
{
    if (part->form != QR_FORM_PLANES) {
        return voters_in_word(words->plane[0], apart, k);
    }
    uint64_t voters = ~0ull;
#pragma unroll
    for (int32_t p = 0; p < QR_DEVICE_MAX_PLANES; p++) {
        voters &= (k >> p & 1u) != 0 ? words->plane[p] : ~words->plane[p];
    }
    return voters;
}

/* Words of votes, up to 16 options; each thread has several loads under way. */
static __global__ void __launch_bounds__(THREADS)
    count_words(const __grid_constant__ qr_part part, int64_t n_words, int64_t *out)
{
    enum { MOST = 16, AT_ONCE = 4 };
    __shared__ qr_block_tally tally;
    const uint32_t n_options = part.rule.n_options;
    const uint32_t current = part.control->current;
    const uint32_t apart = part.form == QR_FORM_PLANES ? 1 : 8u >> part.packing;
    const uint32_t lane = threadIdx.x % 32u;
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    uint32_t counts[MOST] = {};
    uint32_t seen = 0; /* options of which the warp has met a voter */
    qr_tally_clear(&tally, n_options);
    for (int64_t first = (int64_t)blockIdx.x * THREADS + threadIdx.x; first - lane < n_words;
         first += AT_ONCE * stride) {
        vote_words words[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int64_t w = first + i * stride;
            words[i] = read_words(&part, current, apart, w < n_words ? w : n_words - 1);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int64_t agent = (first + i * stride) * (64 / apart);
            int64_t left = (part.count - agent) * apart; /* bits of agents */
            uint64_t valid = left >= 64 ? ~0ull : left <= 0 ? 0 : (1ull << left) - 1;
#pragma unroll
            for (uint32_t k = 0; k < MOST; k++) {
                if (k >= n_options) {
                    break;
                }
                uint64_t voters = voters_of(&part, &words[i], apart, k) & valid;
                counts[k] += (uint32_t)__popcll(voters);
                if ((seen >> k & 1u) != 0) {
                    continue;
                }
                uint32_t lanes = __ballot_sync(~0u, voters != 0);
                seen |= lanes != 0 ? 1u << k : 0;
                if (lanes != 0 && lane == (uint32_t)__ffs((int)lanes) - 1u) {
                    int64_t voter = agent + (int64_t)(qr_count_trailing_zeros64(voters) / apart);
                    atomicMax(&tally.leader[k], (unsigned long long)qr_leader_pack(0, part.first + voter));
                }
            }
        }
    }
#pragma unroll
    for (uint32_t k = 0; k < MOST; k++) {
        uint32_t votes = k < n_options ? __reduce_add_sync(~0u, counts[k]) : 0;
        if (lane == 0 && votes != 0) {
            atomicAdd(&tally.votes[k], votes);
        }
    }
    hand_out(&part, &tally, out);
}

/* Bits i of the fields of WIDTH bits of WIDTH words become word i. */
template <int WIDTH> static __device__ __forceinline__ void transpose_fields(uint32_t *word)
{
    if (WIDTH == 4) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t other = (word[i] >> 2 ^ word[i + 2]) & 0x33333333u;
            word[i] ^= other << 2;
            word[i + 2] ^= other;
        }
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i += 2) {
        uint32_t other = (word[i] >> 1 ^ word[i + 1]) & 0x55555555u;
        word[i] ^= other << 1;
        word[i + 1] ^= other;
    }
}

/* Those who vote for option k, a bit each: of the votes whose bits i are in plane[i]. */
template <int PLANES> static __device__ __forceinline__ uint32_t voters_in(const uint32_t *plane, uint32_t k)
{
    uint32_t voters = ~0u;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        voters &= (k >> p & 1u) != 0 ? plane[p] : ~plane[p];
    }
    return voters;
}

/* Packed votes of WIDTH bits, 2 or 4, for up to 2^PLANES options: 16 bytes at a time, turned into planes of 32 votes.
 * Vote number i of word j of WIDTH words that go together is bit i * WIDTH + j of their planes. */
template <int WIDTH, int PLANES>
static __global__ void __launch_bounds__(THREADS)
    count_packed(const __grid_constant__ qr_part part, int64_t n_vectors, int64_t *out)
{
    enum { AT_ONCE = 4, TOGETHER = 4 / WIDTH, VOTES = 128 / WIDTH, MOST = 1 << PLANES };
    __shared__ qr_block_tally tally;
    const uint32_t n_options = part.rule.n_options;
    const uint4 *votes = (const uint4 *)part.packed[part.control->current] + part.before / VOTES;
    const uint32_t lane = threadIdx.x % 32u;
    const int64_t stride = (int64_t)gridDim.x * THREADS;
    uint32_t counts[MOST] = {};
    uint32_t seen = 0; /* options of which the warp has met a voter */
    qr_tally_clear(&tally, n_options);
    for (int64_t first = (int64_t)blockIdx.x * THREADS + threadIdx.x; first - lane < n_vectors;
         first += AT_ONCE * stride) {
        uint4 vector[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int64_t at = first + i * stride;
            vector[i] = votes[at < n_vectors ? at : n_vectors - 1];
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int64_t at = first + i * stride;
            uint32_t word[4] = {vector[i].x, vector[i].y, vector[i].z, vector[i].w};
            uint32_t valid[TOGETHER];
            if (at - lane >= n_vectors) {
                break;
            }
#pragma unroll
            for (int g = 0; g < TOGETHER; g++) {
                transpose_fields<WIDTH>(word + g * WIDTH);
                valid[g] = ~0u;
            }
            if ((at + 1) * VOTES > part.count) { /* the last one, or none */
                for (int g = 0; g < TOGETHER; g++) {
                    valid[g] = 0;
                    for (int bit = 0; bit < 32; bit++) {
                        int64_t vote = at * VOTES + (g * WIDTH + bit % WIDTH) * (32 / WIDTH) + bit / WIDTH;
                        valid[g] |= vote < part.count ? 1u << bit : 0;
                    }
                }
            }
#pragma unroll
            for (uint32_t k = 0; k < MOST; k++) {
                if (k >= n_options) {
                    break;
                }
                uint32_t voters[TOGETHER];
                uint32_t any = 0;
#pragma unroll
                for (int g = 0; g < TOGETHER; g++) {
                    voters[g] = voters_in<PLANES>(word + g * WIDTH, k) & valid[g];
                    counts[k] += (uint32_t)__popc(voters[g]);
                    any |= voters[g];
                }
                if ((seen >> k & 1u) != 0) {
                    continue;
                }
                uint32_t lanes = __ballot_sync(~0u, any != 0);
                seen |= lanes != 0 ? 1u << k : 0;
                if (lanes == 0 || lane != (uint32_t)__ffs((int)lanes) - 1u) {
                    continue;
                }
                uint32_t least = VOTES;
                for (int j = 3; j >= 0; j--) {
                    uint32_t here = voters[j / WIDTH] >> j % WIDTH & (WIDTH == 4 ? 0x11111111u : 0x55555555u);
                    least = here != 0 ? j * (32 / WIDTH) + ((uint32_t)__ffs((int)here) - 1u) / WIDTH : least;
                }
                atomicMax(&tally.leader[k], (unsigned long long)qr_leader_pack(0, part.first + at * VOTES + least));
            }
        }
    }
#pragma unroll
    for (uint32_t k = 0; k < MOST; k++) {
        uint32_t sum = k < n_options ? __reduce_add_sync(~0u, counts[k]) : 0;
        if (lane == 0 && sum != 0) {
            atomicAdd(&tally.votes[k], sum);
        }
    }
    hand_out(&part, &tally, out);
}

extern "C" void qr_launch_count(const qr_part *part, int64_t *out, cudaStream_t stream)
{
    if (part->form != QR_FORM_PLANES && part->packing == 0) {
        count_bytes<<<blocks_for(part->count), THREADS, 0, stream>>>(*part, out);
        return;
    }
    if (part->form != QR_FORM_PLANES && part->packing != 3) {
        int64_t n_vectors = (part->count + (16 << part->packing) - 1) / (16 << part->packing);
        int64_t blocks = blocks_for(n_vectors);
        unsigned at_most = (unsigned)(blocks > MOST_COUNT_BLOCKS ? MOST_COUNT_BLOCKS : blocks);
        if (part->packing == 2) {
            count_packed<2, 2><<<at_most, THREADS, 0, stream>>>(*part, n_vectors, out);
        } else if (part->rule.n_options <= 8) {
            count_packed<4, 3><<<at_most, THREADS, 0, stream>>>(*part, n_vectors, out);
        } else {
            count_packed<4, 4><<<at_most, THREADS, 0, stream>>>(*part, n_vectors, out);
        }
        return;
    }
    int64_t per_word = part->form == QR_FORM_PLANES ? 64 : (int64_t)8 << part->packing;
    int64_t n_words = (part->count + per_word - 1) / per_word;
    int64_t blocks = blocks_for(n_words);
    blocks = blocks > MOST_COUNT_BLOCKS ? MOST_COUNT_BLOCKS : blocks;
    count_words<<<(unsigned)blocks, THREADS, 0, stream>>>(*part, n_words, out);
}

static __global__ void hand_in(const __grid_constant__ qr_part part, int64_t *out)
{
    qr_control *control = part.control;
    if (control->stopped) {
        return;
    }
    uint32_t n_options = part.rule.n_options;
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        out[k] = (int64_t)control->part_votes[k];
        out[n_options + k] = (int64_t)control->part_leader[k];
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
}

extern "C" void qr_launch_hand_in(const qr_part *part, int64_t *out, cudaStream_t stream)
{
    hand_in<<<1, THREADS, 0, stream>>>(*part, out);
}

/* Sums stand where the last block of an update leaves them, for the decision reads device memory. */
static __global__ void decide(const __grid_constant__ qr_part part)
{
    qr_control *control = part.control;
    if (control->stopped) {
        return;
    }
    uint32_t n_options = part.rule.n_options;
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        unsigned long long sum = 0;
        unsigned long long most = 0;
        for (int32_t p = 0; p < part.n_parts; p++) {
            const int64_t *theirs = part.gathered + (int64_t)p * 2 * n_options;
            unsigned long long leader = (unsigned long long)theirs[n_options + k];
            sum += (unsigned long long)theirs[k];
            most = leader > most ? leader : most;
        }
        control->part_votes[k] = sum;
        control->part_leader[k] = most;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x < 32) {
        qr_decide(&part, control->part_votes, control->part_leader);
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
}

extern "C" void qr_launch_decide(const qr_part *part, cudaStream_t stream)
{
    decide<<<1, THREADS, 0, stream>>>(*part);
}

/* The copy that vote number v of all belongs to. */
static __device__ __forceinline__ const qr_copy *find_copy(const qr_copy *copies, int64_t n_copies, int64_t v)
{
    int64_t low = 0;
    int64_t high = n_copies - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (copies[middle].first <= v) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return &copies[low];
}

static __global__ void copy_votes(const __grid_constant__ qr_part part, int kind, const qr_copy *copies,
                                  int64_t n_copies, int64_t n_votes, uint8_t *message)
{
    if (part.control->stopped) {
        return;
    }
    uint32_t current = part.control->current;
    for (int64_t v = (int64_t)blockIdx.x * THREADS + threadIdx.x; v < n_votes; v += (int64_t)gridDim.x * THREADS) {
        const qr_copy *copy = find_copy(copies, n_copies, v);
        int64_t at = v - copy->first;
        uint32_t vote = kind == QR_COPY_IN ? message[copy->from + at] : qr_vote_at(&part, current, copy->from + at);
        if (kind == QR_COPY_OUT) {
            message[copy->to + at] = (uint8_t)vote;
        } else {
            qr_put_vote(&part, current, copy->to + at, vote);
        }
    }
}

extern "C" void qr_launch_copy(const qr_part *part, qr_copy_kind kind, const qr_copy *copies, int64_t n_copies,
                               int64_t n_votes, uint8_t *message, cudaStream_t stream)
{
    if (n_votes > 0) {
        copy_votes<<<blocks_for(n_votes), THREADS, 0, stream>>>(*part, kind, copies, n_copies, n_votes, message);
    }
}

static __global__ void store_own(const __grid_constant__ qr_part part, int64_t first, int64_t count,
                                 const uint8_t *votes)
{
    uint32_t current = part.control->current;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        qr_put_vote(&part, current, part.before + first + i, votes[i]);
    }
}

extern "C" void qr_launch_store(const qr_part *part, int64_t first, int64_t count, const uint8_t *votes,
                                cudaStream_t stream)
{
    store_own<<<blocks_for(count), THREADS, 0, stream>>>(*part, first, count, votes);
}

static __global__ void load_own(const __grid_constant__ qr_part part, int64_t first, int64_t count, uint8_t *votes)
{
    uint32_t current = part.control->current;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        votes[i] = (uint8_t)qr_vote_at(&part, current, part.before + first + i);
    }
}

extern "C" void qr_launch_load(const qr_part *part, int64_t first, int64_t count, uint8_t *votes, cudaStream_t stream)
{
    load_own<<<blocks_for(count), THREADS, 0, stream>>>(*part, first, count, votes);
}

/* A thread a group: it alone writes the group's words. */
static __global__ void initial_votes(const __grid_constant__ qr_part part)
{
    const int64_t n_groups = (part.count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    for (int64_t g = (int64_t)blockIdx.x * THREADS + threadIdx.x; g < n_groups; g += (int64_t)gridDim.x * THREADS) {
        int64_t end = (g + 1) * QR_DEVICE_GROUP < part.count ? (g + 1) * QR_DEVICE_GROUP : part.count;
        uint64_t words[8] = {}; /* planes, or packed votes in a row */
        uint32_t width = part.form == QR_FORM_PLANES ? 1 : 8u >> part.packing;
        for (int64_t i = g * QR_DEVICE_GROUP; i < end; i++) {
            uint64_t vote = qr_initial_option(&part.rule, (uint64_t)(part.first + i));
            uint32_t bit = (uint32_t)(i % QR_DEVICE_GROUP);
            if (part.form == QR_FORM_PLANES) {
#pragma unroll
                for (int p = 0; p < QR_DEVICE_MAX_PLANES; p++) {
                    words[p] |= (vote >> p & 1u) << bit;
                }
            } else {
                uint32_t at = bit * width;
#pragma unroll
                for (uint32_t w = 0; w < 8; w++) {
                    words[w] |= at / 64 == w ? vote << at % 64 : 0;
                }
            }
        }
        int64_t word = part.before / QR_DEVICE_GROUP + g;
        if (part.form == QR_FORM_PLANES) {
            for (int p = 0; p < part.n_planes; p++) {
                part.plane[0][p][word] = words[p];
            }
        } else {
            uint64_t *packed = (uint64_t *)part.packed[0];
#pragma unroll
            for (uint32_t w = 0; w < 8; w++) {
                if (w < width) {
                    packed[word * width + w] = words[w];
                }
            }
        }
    }
}

extern "C" void qr_launch_initial_votes(const qr_part *part, cudaStream_t stream)
{
    initial_votes<<<blocks_for((part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP), THREADS, 0, stream>>>(*part);
}

static __global__ void initial_state(const __grid_constant__ qr_part part, float scale)
{
    int64_t dim = part.neural.state_dim;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < part.count; i += (int64_t)gridDim.x * THREADS) {
        qr_neural_initial(part.rule.seed, scale, (uint32_t)dim, (uint64_t)(part.first + i), part.state + i * dim);
    }
}

extern "C" void qr_launch_initial_state(const qr_part *part, float scale, cudaStream_t stream)
{
    initial_state<<<blocks_for(part->count), THREADS, 0, stream>>>(*part, scale);
}

extern "C" void qr_launch_update(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    switch ((qr_device_form)part->form) {
    case QR_FORM_PLANES:
        if (part->sweeps) {
            qr_launch_planes_sweep(part, colour, last_colour, stream);
        } else {
            qr_launch_planes(part, stream);
        }
        break;
    case QR_FORM_NEURAL: qr_launch_neural(part, stream); break;
    case QR_FORM_PACKED: qr_launch_packed(part, colour, last_colour, stream); break;
    }
}
