/* Bit planes, several machine words at a time. The rules are those of kernels/rules/, applied to vectors of words. */
#include "backend/cpu/simd/vector.h"

#define QR_WORD qr_vec

#include "backend/cpu/simd/kernels.h"

#include "rules/majority.h"
#include "rules/voter.h"

/* Byte counters hold this many additions of at most 8. */
enum { COUNTS_BEFORE_FLUSH = 31 };

/* Where in the lattice the first agent of the vector at hand stands. */
typedef struct place {
    int64_t x;
    int64_t y;
} place;

/* Bits of agents at a border, whose neighbour's distance is another one. */
typedef struct borders {
    bool any;
    qr_vec x_first;
    qr_vec x_last;
    qr_vec y_first; /* three dimensions only */
    qr_vec y_last;
} borders;

/* One bit of a vector. */
QR_INLINE qr_vec one_bit(int64_t bit)
{
    qr_vec here = (qr_vec)(qr_vec_lane_numbers() == qr_vec_all((uint64_t)bit >> 6));
    return here & qr_vec_all((uint64_t)1 << (bit & 63));
}

/* Bits [from, to). */
static qr_vec bit_range(int64_t from, int64_t to)
{
    uint64_t word[QR_LANES];
    for (int64_t i = 0; i < QR_LANES; i++) {
        int64_t low = from - 64 * i;
        int64_t high = to - 64 * i;
        uint64_t below_high = high >= 64 ? ~(uint64_t)0 : high <= 0 ? 0 : ((uint64_t)1 << high) - 1;
        uint64_t below_low = low >= 64 ? ~(uint64_t)0 : low <= 0 ? 0 : ((uint64_t)1 << low) - 1;
        word[i] = below_high & ~below_low;
    }
    return qr_vec_load(word);
}

static void find_borders(const qr_plane_task *task, place at, borders *out)
{
    enum { BITS = 64 * QR_LANES };
    int64_t width = task->size[0];
    int64_t x = at.x;
    int64_t y = at.y;
    out->x_first = out->x_last = out->y_first = out->y_last = qr_vec_all(0);
    for (int64_t bit = 0; bit < BITS;) {
        int64_t row_end = bit + width - x; /* first bit of the next row */
        if (x == 0) {
            out->x_first |= one_bit(bit);
        }
        if (row_end <= BITS) {
            out->x_last |= one_bit(row_end - 1);
        }
        if (task->dims == 3 && y == 0) {
            out->y_first |= bit_range(bit, row_end);
        }
        if (task->dims == 3 && y == task->size[1] - 1) {
            out->y_last |= bit_range(bit, row_end);
        }
        bit = row_end;
        x = 0;
        y = y + 1 == task->size[1] ? 0 : y + 1;
    }
}

/* True when some agent of the vector stands at a border. */
QR_INLINE bool touches_border(const qr_plane_task *task, place at)
{
    int64_t last = at.x + 64 * QR_LANES - 1;
    return task->dims > 1 &&
           (at.x == 0 || last >= task->size[0] - 1 || (task->dims == 3 && (at.y == 0 || at.y == task->size[1] - 1)));
}

QR_INLINE place move_on(const qr_plane_task *task, place at)
{
    at.x += 64 * QR_LANES;
    if (at.x >= task->size[0]) {
        int64_t rows = at.x / task->size[0];
        at.x -= rows * task->size[0];
        at.y = task->dims == 3 ? (at.y + rows) % task->size[1] : 0;
    }
    return at;
}

/* The words that begin `bits` bits behind the first of word `word`. */
QR_INLINE qr_vec words_at(const uint64_t *plane, int64_t word, int64_t bits)
{
    const uint64_t *from = plane + word + (bits >> 6);
    uint64_t shift = (uint64_t)bits & 63;
    qr_vec low = qr_vec_load(from);
    return shift == 0 ? low : low >> shift | qr_vec_load(from + 1) << (64 - shift);
}

/* Puts right the neighbours of agents at a border. */
static qr_vec __attribute__((noinline)) wrap(const qr_plane_task *task, const uint64_t *plane, int64_t word,
                                             const qr_cpu_offset *offset, const borders *at, qr_vec inside)
{
    int64_t width = task->size[0];
    int64_t area = task->size[0] * task->size[1];
    qr_vec none = qr_vec_all(0);
    qr_vec x_out = offset->dx < 0 ? at->x_first : offset->dx > 0 ? at->x_last : none;
    qr_vec y_out = offset->dy < 0 ? at->y_first : offset->dy > 0 ? at->y_last : none;
    if (offset->dx != 0) {
        qr_vec other = words_at(plane, word, offset->distance - offset->dx * width);
        inside ^= (inside ^ other) & x_out;
    }
    if (offset->dy != 0) {
        qr_vec other = words_at(plane, word, offset->distance - offset->dy * area);
        inside ^= (inside ^ other) & y_out & ~x_out;
        if (offset->dx != 0) {
            other = words_at(plane, word, offset->distance - offset->dx * width - offset->dy * area);
            inside ^= (inside ^ other) & y_out & x_out;
        }
    }
    return inside;
}

/* qr_planes for QR_LANES groups from `group` on, none of which differs from it in the upper 32 bits. */
QR_INLINE void draw_planes(const qr_plane_task *task, uint64_t group, uint32_t stream, uint32_t pair, qr_vec out[2])
{
    qr_philox_vec block =
        qr_philox_lanes(task->rule->seed, qr_vec_all(group) + qr_vec_lane_numbers(), qr_vec_all(group >> 32),
                        qr_vec_all((uint32_t)task->step), qr_vec_all(stream << 16 | pair));
    out[0] = qr_vec_join(block.word[0], block.word[1]);
    out[1] = qr_vec_join(block.word[2], block.word[3]);
}

/* qr_plane_coins for QR_LANES groups. */
static qr_vec __attribute__((noinline))
draw_coins(const qr_plane_task *task, uint64_t group, uint32_t stream, uint64_t threshold)
{
    qr_vec below = qr_vec_all(0);
    qr_vec equal = ~below;
    qr_vec planes[2] = {below, below};
    uint32_t rest = (uint32_t)threshold;
    for (uint32_t plane = 0; rest != 0 && qr_vec_any(equal); plane++) {
        if (plane % 2 == 0) {
            draw_planes(task, group, stream, plane / 2, planes);
        }
        qr_vec bits = planes[plane % 2];
        if (rest >> 31 != 0) {
            below |= equal & ~bits;
            equal &= bits;
        } else {
            equal &= ~bits;
        }
        rest <<= 1;
    }
    return below;
}

QR_INLINE qr_vec coins(const qr_plane_task *task, uint64_t group, uint32_t stream, uint64_t threshold)
{
    if (threshold >> 32 != 0) {
        return ~qr_vec_all(0);
    }
    return threshold == 0 ? qr_vec_all(0) : draw_coins(task, group, stream, threshold);
}

/* Noisy agents, one by one: their random option comes from their own draws. */
static void __attribute__((noinline)) apply_noise(const qr_plane_task *task, qr_vec noisy, int64_t agent, qr_vec *next)
{
    for (int i = 0; i < QR_LANES; i++) {
        for (uint64_t rest = noisy[i]; rest != 0; rest &= rest - 1) {
            uint32_t bit = qr_count_trailing_zeros64(rest);
            uint64_t option = qr_noise_option(task->rule, agent + 64 * i + (int64_t)bit, task->step);
            for (int p = 0; p < task->n_planes; p++) {
                next[p][i] = (next[p][i] & ~((uint64_t)1 << bit)) | (option >> p & 1u) << bit;
            }
        }
    }
}

/* Counters of all options but the last, whose votes are what is left. */
typedef struct vote_counts {
    qr_vec bytes[QR_SIMD_MAX_OPTIONS];
    int pending;
} vote_counts;

static void __attribute__((noinline)) flush_counters(vote_counts *counters, uint32_t n_options, int64_t *counts)
{
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        counts[k] += qr_vec_sum_bytes(counters->bytes[k]);
        counters->bytes[k] = qr_vec_all(0);
    }
    counters->pending = 0;
}

QR_INLINE void count_votes(vote_counts *counters, const qr_vec *votes, int n_planes, uint32_t n_options)
{
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        qr_vec voters = (k & 1u) != 0 ? votes[0] : ~votes[0];
        for (int p = 1; p < n_planes; p++) {
            voters &= (k >> p & 1u) != 0 ? votes[p] : ~votes[p];
        }
        counters->bytes[k] += qr_vec_popcount_bytes(voters);
    }
}

/* Everything that is the same for all words is an argument, so that the common cases get a loop of their own. */
QR_INLINE void advance(const qr_plane_task *task, bool voter, uint32_t n_choice, int n_offsets, int n_planes,
                       uint32_t n_options, int64_t *counts)
{
    const qr_rule *rule = task->rule;
    place at = {0, 0};
    if (task->dims > 1) {
        at.x = task->first_agent % task->size[0];
        at.y = task->first_agent / task->size[0] % task->size[1];
    }
    bool plain = rule->activation >> 32 != 0 && rule->noise == 0 && task->frozen == NULL;
    vote_counts counters = {.pending = 0};
    borders edges = {.any = false};
    for (int64_t i = 0; i < task->n_words; i += QR_LANES) {
        int64_t word = task->first_word + i;
        uint64_t group = (uint64_t)task->first_agent / 64 + (uint64_t)i;
        qr_vec choice[6];
        for (uint32_t pair = 0; voter && 2 * pair < n_choice; pair++) {
            draw_planes(task, group, QR_STREAM_PLANE_RULE, pair, choice + 2 * (size_t)pair);
        }
        edges.any = touches_border(task, at);
        if (edges.any) {
            find_borders(task, at, &edges);
        }
        qr_vec next[QR_SIMD_MAX_PLANES];
        qr_vec changing = ~qr_vec_all(0);
        if (!plain) {
            changing = coins(task, group, QR_STREAM_PLANE_ACTIVATION, rule->activation);
            changing = task->frozen != NULL ? changing & ~qr_vec_load(task->frozen + i) : changing;
        }
        for (int p = 0; p < n_planes; p++) {
            const uint64_t *plane = task->current[p];
            qr_vec own = qr_vec_load(plane + word);
            qr_vec neighbour[QR_SIMD_MAX_DEGREE];
            for (int j = 0; j < n_offsets; j++) {
                const qr_cpu_offset *offset = &task->offsets[j];
                neighbour[j] = words_at(plane, word, offset->distance);
                if (edges.any && (offset->dx != 0 || offset->dy != 0)) {
                    neighbour[j] = wrap(task, plane, word, offset, &edges, neighbour[j]);
                }
            }
            qr_vec vote = voter ? qr_voter_word(neighbour, choice, n_choice)
                                : qr_majority_word(neighbour, (uint32_t)n_offsets, own);
            next[p] = plain ? vote : own ^ ((own ^ vote) & changing);
        }
        if (rule->noise != 0) {
            qr_vec noisy = changing & coins(task, group, QR_STREAM_PLANE_NOISE, rule->noise);
            if (qr_vec_any(noisy)) {
                apply_noise(task, noisy, task->first_agent + 64 * i, next);
            }
        }
        for (int p = 0; p < n_planes; p++) {
            qr_vec_store(task->next[p] + word, next[p]);
        }
        count_votes(&counters, next, n_planes, n_options);
        if (++counters.pending == COUNTS_BEFORE_FLUSH) {
            flush_counters(&counters, n_options, counts);
        }
        at = move_on(task, at);
    }
    flush_counters(&counters, n_options, counts);
}

void QR_SIMD_NAME(qr_simd_planes)(const qr_plane_task *task, int64_t *counts)
{
    const uint32_t n_options = task->rule->n_options;
    const uint32_t n_choice = task->rule->choice_planes;
    for (uint32_t k = 0; k < n_options; k++) {
        counts[k] = 0;
    }
    if (task->voter && n_options == 2 && n_choice == 1) {
        advance(task, true, 1, 2, 1, 2, counts);
    } else if (task->voter && n_options == 2 && n_choice == 2) {
        advance(task, true, 2, 4, 1, 2, counts);
    } else if (task->voter && n_options == 2 && n_choice == 3) {
        advance(task, true, 3, 8, 1, 2, counts);
    } else if (task->voter && n_choice == 2) {
        advance(task, true, 2, 4, task->n_planes, n_options, counts);
    } else if (task->voter && n_choice == 3) {
        advance(task, true, 3, 8, task->n_planes, n_options, counts);
    } else if (task->voter) {
        advance(task, true, n_choice, task->n_offsets, task->n_planes, n_options, counts);
    } else if (task->n_offsets == 4) {
        advance(task, false, 0, 4, 1, 2, counts);
    } else if (task->n_offsets == 8) {
        advance(task, false, 0, 8, 1, 2, counts);
    } else {
        advance(task, false, 0, task->n_offsets, 1, 2, counts);
    }
    int64_t last = 64 * task->n_words;
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        last -= counts[k];
    }
    counts[n_options - 1] = last;
}
