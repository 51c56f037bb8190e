/* Bit planes on a device: what the kernels of a word of agents share. Random planes, noise, tally and leaders of a
 * warp, and the update of a word wherever in a lattice it stands. */
#ifndef QR_PLANES_WORD_CUH
#define QR_PLANES_WORD_CUH

#include "rules/majority.h"
#include "rules/voter.h"
#include "tally.cuh"

/* How votes are read: through the cache for what never changes. Where votes do change while a kernel runs, another way
 * is set before this is included. */
#ifndef QR_READ_WORD
#define QR_READ_WORD(address) __ldg(address)
#endif

enum { QR_PLANES_THREADS = 256, QR_PLANES_MAX_OPTIONS = 1 << QR_DEVICE_MAX_PLANES };

/* Ten rounds' keys, the same in every call of a launch: read from the kernel's parameters they cost no instruction. */
typedef struct qr_plane_keys {
    uint32_t k0[10];
    uint32_t k1[10];
} qr_plane_keys;

QR_FN void qr_plane_keys_set(qr_plane_keys *keys, uint64_t seed)
{
    for (uint32_t round = 0; round < 10; round++) {
        keys->k0[round] = (uint32_t)seed + round * 0x9E3779B9u;
        keys->k1[round] = (uint32_t)(seed >> 32) + round * 0xBB67AE85u;
    }
}

/* qr_planes with given keys. */
static __device__ __forceinline__ void qr_keyed_planes(const qr_plane_keys *keys, uint64_t group, uint32_t step,
                                                       uint32_t stream, uint32_t pair, uint64_t *out)
{
    uint32_t c0 = (uint32_t)group;
    uint32_t c1 = (uint32_t)(group >> 32);
    uint32_t c2 = step;
    uint32_t c3 = stream << 16 | pair;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * c0;
        uint64_t product1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ keys->k0[round];
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ keys->k1[round];
        c3 = (uint32_t)product0;
    }
    out[0] = (uint64_t)c1 << 32 | c0;
    out[1] = (uint64_t)c3 << 32 | c2;
}

/* The planes that choose neighbours; n_choice at most 4. choice: room for an even number. */
static __device__ __forceinline__ void qr_draw_choice(const qr_plane_keys *keys, uint64_t group, int64_t step,
                                                      uint32_t n_choice, uint64_t *choice)
{
#pragma unroll
    for (uint32_t pair = 0; 2u * pair < n_choice; pair++) {
        qr_keyed_planes(keys, group, (uint32_t)step, QR_STREAM_PLANE_RULE, pair, choice + 2u * pair);
    }
}

/* Turns the rule's votes of 64 own agents from `index` on into their next votes: agents at rest and zealots keep their
 * own, noisy ones take a random option. */
template <int PLANES>
static __device__ __forceinline__ void qr_keep_and_disturb(const qr_part *part, int64_t index, uint64_t valid,
                                                           int64_t step, const uint64_t *own, uint64_t *votes)
{
    const qr_rule *rule = &part->rule;
    const int64_t agent = part->first + index;
    const uint64_t group = (uint64_t)agent / QR_DEVICE_GROUP;
    uint64_t changing = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    if (part->frozen != 0) {
        changing &= ~part->frozen[index / QR_DEVICE_GROUP];
    }
    uint64_t noisy = 0;
    if (rule->noise != 0) {
        noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
    }
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        votes[p] = own[p] ^ ((own[p] ^ votes[p]) & changing);
    }
    for (noisy &= changing & valid; noisy != 0; noisy &= noisy - 1) {
        uint32_t bit = qr_count_trailing_zeros64(noisy);
        uint64_t option = qr_noise_option(rule, agent + (int64_t)bit, step);
#pragma unroll
        for (int p = 0; p < PLANES; p++) {
            votes[p] = (votes[p] & ~((uint64_t)1 << bit)) | (option >> p & 1u) << bit;
        }
    }
}

/* The agents of a word who vote for option k; bits that are no agents may be set. */
template <int PLANES> static __device__ __forceinline__ uint64_t qr_voters(const uint64_t *votes, uint32_t k)
{
    uint64_t voters = ~(uint64_t)0;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        voters &= (k >> p & 1u) != 0 ? votes[p] : ~votes[p];
    }
    return voters;
}

/* What a thread has counted. */
typedef struct qr_plane_tally {
    uint32_t votes[QR_PLANES_MAX_OPTIONS];
} qr_plane_tally;

template <int PLANES>
static __device__ __forceinline__ void qr_count_word(const uint64_t *votes, uint64_t valid, uint32_t n_options,
                                                     qr_plane_tally *tally)
{
#pragma unroll
    for (uint32_t k = 0; k < 1u << PLANES; k++) {
        if (PLANES == 1 || k < n_options) {
            tally->votes[k] += qr_popcount64(qr_voters<PLANES>(votes, k) & valid);
        }
    }
}

/* Notes the first voter of each option that the warp has not `seen`. All lanes call; each brings WORDS words of agents
 * that follow on those of the lane before, and a warp calls in ascending order of agents, so that nobody later can be
 * first. votes: [WORDS][PLANES]. */
template <int PLANES, int WORDS>
static __device__ __forceinline__ void qr_note_leaders(const uint64_t *votes, const uint64_t *valid, int64_t agent,
                                                       uint32_t n_options, uint32_t *seen, qr_block_tally *block)
{
    const uint32_t lane = threadIdx.x % 32u;
    for (uint32_t k = 0; k < n_options; k++) {
        if (*seen >> k & 1u) {
            continue;
        }
        uint64_t first = 0;
        int64_t at = agent;
#pragma unroll
        for (int w = 0; w < WORDS; w++) {
            uint64_t voters = qr_voters<PLANES>(votes + w * PLANES, k) & valid[w];
            at = first == 0 ? agent + w * QR_DEVICE_GROUP : at;
            first = first == 0 ? voters : first;
        }
        uint32_t lanes = __ballot_sync(~0u, first != 0);
        if (lanes == 0) {
            continue;
        }
        *seen |= 1u << k;
        if (lane == (uint32_t)__ffs((int)lanes) - 1u) {
            unsigned long long leader = qr_leader_pack(0, at + (int64_t)qr_count_trailing_zeros64(first));
            if (leader > *(volatile unsigned long long *)&block->leader[k]) {
                atomicMax(&block->leader[k], leader);
            }
        }
    }
}

/* The threads' votes into the block's; all threads call. */
template <int PLANES>
static __device__ __forceinline__ void qr_add_up(const qr_plane_tally *tally, uint32_t n_options, qr_block_tally *block)
{
#pragma unroll
    for (uint32_t k = 0; k < 1u << PLANES; k++) {
        if (k < n_options) {
            uint32_t votes = __reduce_add_sync(~0u, tally->votes[k]);
            if (threadIdx.x % 32u == 0 && votes != 0) {
                atomicAdd(&block->votes[k], votes);
            }
        }
    }
}

/* Which agents of a word stand at a border, where a neighbour's distance is another one. */
typedef struct qr_word_borders {
    uint64_t x_first;
    uint64_t x_last;
    uint64_t y_first; /* three dimensions only */
    uint64_t y_last;
} qr_word_borders;

/* Bits [from, to) of a word. */
static __device__ __forceinline__ uint64_t qr_bit_range(int64_t from, int64_t to)
{
    uint64_t high = to >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1;
    return high & ~(((uint64_t)1 << from) - 1);
}

/* Returns whether anybody does. */
static __device__ __forceinline__ bool qr_find_borders(const qr_lattice *lattice, int64_t x, int64_t y,
                                                       qr_word_borders *at)
{
    const int64_t width = lattice->size[0];
    const int64_t height = lattice->size[1];
    const bool deep = lattice->dims == 3;
    if (lattice->dims == 1 || (x > 0 && x + 64 < width && !(deep && (y == 0 || y + 1 == height)))) {
        return false;
    }
    at->x_first = at->x_last = at->y_first = at->y_last = 0;
    for (int64_t bit = 0; bit < 64;) {
        int64_t row_end = bit + width - x; /* first bit of the next row */
        if (x == 0) {
            at->x_first |= (uint64_t)1 << bit;
        }
        if (row_end <= 64) {
            at->x_last |= (uint64_t)1 << (row_end - 1);
        }
        if (deep && y == 0) {
            at->y_first |= qr_bit_range(bit, row_end);
        }
        if (deep && y + 1 == height) {
            at->y_last |= qr_bit_range(bit, row_end);
        }
        bit = row_end;
        x = 0;
        y = y + 1 == height ? 0 : y + 1;
    }
    return true;
}

/* 64 votes from a position of the view on. Nobody needs what lies outside the view, which may not be there. No
 * branches: the loads of all neighbours are to be under way together. */
static __device__ __forceinline__ uint64_t qr_word_near(const uint64_t *plane, int64_t view, int64_t position)
{
    const uint64_t last = (uint64_t)(view >> 6);
    const int64_t word = position >> 6;
    const uint32_t shift = (uint32_t)position & 63u;
    const uint64_t low = (uint64_t)word <= last ? QR_READ_WORD(plane + word) : 0;
    const uint64_t high = (uint64_t)(word + 1) <= last ? QR_READ_WORD(plane + word + 1) : 0;
    return low >> shift | high << 1 << (63u - shift);
}

/* The votes of the neighbours of 64 agents. neighbour: [DEGREE]; at: of use only where somebody stands at a border. */
template <int DEGREE>
static __device__ __forceinline__ void qr_see_neighbours(const qr_part *part, const uint64_t *plane, int64_t position,
                                                         bool at_border, const qr_word_borders *at, uint64_t *neighbour)
{
    const int64_t width = part->lattice.size[0];
    const int64_t area = part->lattice.size[0] * part->lattice.size[1];
#pragma unroll
    for (int j = 0; j < DEGREE; j++) {
        neighbour[j] = qr_word_near(plane, part->view, position + part->offset[j].distance);
    }
    if (!at_border) {
        return;
    }
#pragma unroll
    for (int j = 0; j < DEGREE; j++) {
        const int32_t dx = part->offset[j].dx;
        if (dx != 0) {
            uint64_t other = qr_word_near(plane, part->view, position + part->offset[j].distance - dx * width);
            neighbour[j] ^= (neighbour[j] ^ other) & (dx < 0 ? at->x_first : at->x_last);
        }
    }
    if ((at->y_first | at->y_last) == 0) {
        return;
    }
#pragma unroll
    for (int j = 0; j < DEGREE; j++) {
        const int32_t dx = part->offset[j].dx;
        const int32_t dy = part->offset[j].dy;
        const int64_t there = position + part->offset[j].distance - dy * area;
        const uint64_t x_out = dx < 0 ? at->x_first : dx > 0 ? at->x_last : 0;
        const uint64_t y_out = dy < 0 ? at->y_first : at->y_last;
        if (dy != 0) {
            uint64_t other = qr_word_near(plane, part->view, there);
            neighbour[j] ^= (neighbour[j] ^ other) & y_out & ~x_out;
            other = qr_word_near(plane, part->view, there - dx * width);
            neighbour[j] ^= (neighbour[j] ^ other) & y_out & x_out;
        }
    }
}

/* What a step reads and writes. */
typedef struct qr_plane_buffers {
    const uint64_t *current[QR_DEVICE_MAX_PLANES]; /* the whole view */
    uint64_t *next[QR_DEVICE_MAX_PLANES];
    int64_t step;
} qr_plane_buffers;

static __device__ __forceinline__ void qr_set_buffers(const qr_part *part, uint32_t current, int64_t step,
                                                      qr_plane_buffers *buffers)
{
    buffers->step = step;
#pragma unroll
    for (int p = 0; p < QR_DEVICE_MAX_PLANES; p++) {
        buffers->current[p] = current != 0 ? part->plane[1][p] : part->plane[0][p];
        buffers->next[p] = current != 0 ? part->plane[0][p] : part->plane[1][p];
    }
}

/* The same as the control block says. */
static __device__ __forceinline__ void qr_open_buffers(const qr_part *part, qr_plane_buffers *buffers)
{
    qr_set_buffers(part, part->control->current, part->control->step + 1, buffers);
}

/* How many planes choose among DEGREE neighbours. */
static constexpr __host__ __device__ uint32_t qr_choice_planes(int degree)
{
    return degree >= 16 ? 4 : degree >= 8 ? 3 : degree >= 4 ? 2 : 1;
}

/* The votes after the step of the 64 agents from own agent `index` on. borders: read where somebody is at_border;
 * choice: voters only; votes: [PLANES]. Of PLANES planes, part->n_planes are there. PLAIN: everybody follows the rule
 * in every step. */
template <bool VOTER, int DEGREE, int PLANES, bool PLAIN>
static __device__ __forceinline__ void qr_next_word(const qr_part *part, const qr_plane_buffers *buffers, int64_t index,
                                                    uint64_t valid, bool at_border, const qr_word_borders *borders,
                                                    const uint64_t *choice, uint64_t *votes)
{
    const qr_rule *rule = &part->rule;
    const int64_t position = part->before + index;
    uint64_t own[PLANES];
    uint64_t neighbour[PLANES * DEGREE] = {};
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        own[p] = 0;
        votes[p] = 0;
        if (PLANES == 1 || p < part->n_planes) {
            uint64_t *near = neighbour + p * DEGREE;
            own[p] = QR_READ_WORD(buffers->current[p] + position / 64);
            qr_see_neighbours<DEGREE>(part, buffers->current[p], position, at_border, borders, near);
            if (VOTER) {
                votes[p] = qr_voter_word(near, choice, qr_choice_planes(DEGREE));
            } else if (PLANES == 1) {
                votes[p] = qr_majority_word(near, DEGREE, own[p]);
            }
        }
    }
    if (!VOTER && PLANES > 1) {
        qr_majority_options_word(neighbour, DEGREE, own, PLANES, rule->n_options, votes);
    }
    if (!PLAIN && (rule->activation >> 32 == 0 || rule->noise != 0 || part->frozen != 0)) {
        qr_keep_and_disturb<PLANES>(part, index, valid, buffers->step, own, votes);
    }
}

/* The same, stored. The first agent stands at (x, y). */
template <bool VOTER, int DEGREE, int PLANES, bool PLAIN>
static __device__ __forceinline__ void qr_update_word(const qr_part *part, const qr_plane_keys *keys,
                                                      const qr_plane_buffers *buffers, int64_t index, uint64_t valid,
                                                      int64_t x, int64_t y, uint64_t *votes)
{
    const int64_t position = part->before + index;
    uint64_t choice[4];
    qr_word_borders borders;
    const bool at_border = qr_find_borders(&part->lattice, x, y, &borders);
    if (VOTER) {
        qr_draw_choice(keys, (uint64_t)(part->first + index) / QR_DEVICE_GROUP, buffers->step, qr_choice_planes(DEGREE),
                       choice);
    }
    qr_next_word<VOTER, DEGREE, PLANES, PLAIN>(part, buffers, index, valid, at_border, &borders, choice, votes);
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        if (PLANES == 1 || p < part->n_planes) {
            buffers->next[p][position / 64] = votes[p];
        }
    }
}

#endif
