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

/* How many whole vectors from `at` on, at most `most`, hold no agent at a border. */
QR_INLINE int64_t vectors_inside(const qr_plane_task *task, place at, int64_t most)
{
    if (task->dims == 1) {
        return most;
    }
    if (at.x == 0 || (task->dims == 3 && (at.y == 0 || at.y == task->size[1] - 1))) {
        return 0;
    }
    int64_t inside = (task->size[0] - 1 - at.x) / (64 * QR_LANES);
    return inside < most ? inside : most;
}

QR_INLINE place move_on(const qr_plane_task *task, place at, int64_t vectors)
{
    at.x += 64 * QR_LANES * vectors;
    if (task->dims > 1 && at.x >= task->size[0]) {
        int64_t rows = at.x / task->size[0];
        at.x -= rows * task->size[0];
        at.y = task->dims == 3 ? (at.y + rows) % task->size[1] : 0;
    }
    return at;
}

/* The words that begin `bits` bits behind `from`. */
QR_INLINE qr_vec words_at(const uint64_t *from, int64_t bits)
{
    uint64_t shift = (uint64_t)bits & 63;
    from += bits >> 6;
    qr_vec low = qr_vec_load(from);
    return shift == 0 ? low : low >> shift | qr_vec_load(from + 1) << (64 - shift);
}

/* Puts right the neighbours of agents at a border. */
static qr_vec __attribute__((noinline))
wrap(const qr_plane_task *task, const uint64_t *own, const qr_cpu_offset *offset, const borders *at, qr_vec inside)
{
    int64_t width = task->size[0];
    int64_t area = task->size[0] * task->size[1];
    qr_vec none = qr_vec_all(0);
    qr_vec x_out = offset->dx < 0 ? at->x_first : offset->dx > 0 ? at->x_last : none;
    qr_vec y_out = offset->dy < 0 ? at->y_first : offset->dy > 0 ? at->y_last : none;
    if (offset->dx != 0) {
        qr_vec other = words_at(own, offset->distance - offset->dx * width);
        inside ^= (inside ^ other) & x_out;
    }
    if (offset->dy != 0) {
        qr_vec other = words_at(own, offset->distance - offset->dy * area);
        inside ^= (inside ^ other) & y_out & ~x_out;
        if (offset->dx != 0) {
            other = words_at(own, offset->distance - offset->dx * width - offset->dy * area);
            inside ^= (inside ^ other) & y_out & x_out;
        }
    }
    return inside;
}

/* qr_planes for QR_LANES groups from `group` on, none of which differs from it in the upper 32 bits. */
QR_INLINE void draw_planes(const qr_philox_keys *keys, int64_t step, uint64_t group, uint32_t stream, uint32_t pair,
                           qr_vec out[2])
{
    qr_philox_vec block = qr_philox_lanes(keys, qr_vec_all(group) + qr_vec_lane_numbers(), qr_vec_all(group >> 32),
                                          qr_vec_all((uint32_t)step), qr_vec_all(stream << 16 | pair));
    out[0] = qr_vec_join(block.word[0], block.word[1]);
    out[1] = qr_vec_join(block.word[2], block.word[3]);
}

/* qr_plane_coins for QR_LANES groups. */
static qr_vec __attribute__((noinline))
draw_coins(const qr_philox_keys *keys, int64_t step, uint64_t group, uint32_t stream, uint64_t threshold)
{
    qr_vec below = qr_vec_all(0);
    qr_vec equal = ~below;
    qr_vec planes[2] = {below, below};
    uint32_t rest = (uint32_t)threshold;
    for (uint32_t plane = 0; rest != 0 && qr_vec_any(equal); plane++) {
        if (plane % 2 == 0) {
            draw_planes(keys, step, group, stream, plane / 2, planes);
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

QR_INLINE qr_vec coins(const qr_philox_keys *keys, int64_t step, uint64_t group, uint32_t stream, uint64_t threshold)
{
    if (threshold >> 32 != 0) {
        return ~qr_vec_all(0);
    }
    return threshold == 0 ? qr_vec_all(0) : draw_coins(keys, step, group, stream, threshold);
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

/* Adds the votes for all options but the last, whose votes are what is left. */
QR_INLINE void count_votes(const qr_vec *votes, int n_planes, uint32_t n_options, qr_vec *bytes)
{
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        qr_vec voters = (k & 1u) != 0 ? votes[0] : ~votes[0];
        for (int p = 1; p < n_planes; p++) {
            voters &= (k >> p & 1u) != 0 ? votes[p] : ~votes[p];
        }
        bytes[k] += qr_vec_popcount_bytes(voters);
    }
}

/* What is the same for all words of a task. The members up to n_options are constants in the common cases, so that
 * these get loops of their own. */
typedef struct variant {
    bool voter;
    uint32_t n_choice;
    int n_offsets;
    int n_planes;
    uint32_t n_options;
} variant;

/* Advances at most COUNTS_BEFORE_FLUSH vectors from word `first` of the task on; edges NULL: none of their agents
 * stands at a border. */
QR_INLINE void advance_stretch(const qr_plane_task *task, const variant kind, const qr_philox_keys *keys, int64_t first,
                               int64_t n_vectors, const borders *edges, int64_t *counts)
{
    const uint64_t activation = task->rule->activation;
    const uint64_t noise = task->rule->noise;
    const uint64_t *frozen = task->frozen;
    const int64_t step = task->step;
    const bool plain = activation >> 32 != 0 && noise == 0 && frozen == NULL;
    int64_t distance[QR_SIMD_MAX_DEGREE];
    const uint64_t *current[QR_SIMD_MAX_PLANES];
    uint64_t *to[QR_SIMD_MAX_PLANES];
    qr_vec bytes[QR_SIMD_MAX_OPTIONS];
    for (int j = 0; j < kind.n_offsets; j++) {
        distance[j] = task->offsets[j].distance;
    }
    for (int p = 0; p < kind.n_planes; p++) {
        current[p] = task->current[p] + task->first_word + first;
        to[p] = task->next[p] + task->first_word + first;
    }
    for (uint32_t k = 0; k + 1 < kind.n_options; k++) {
        bytes[k] = qr_vec_all(0);
    }
    uint64_t group = (uint64_t)task->first_agent / 64 + (uint64_t)first;
    for (int64_t i = 0; i < n_vectors * QR_LANES; i += QR_LANES) {
        qr_vec choice[4];
        for (uint32_t pair = 0; kind.voter && 2 * pair < kind.n_choice; pair++) {
            draw_planes(keys, step, group + (uint64_t)i, QR_STREAM_PLANE_RULE, pair, choice + 2 * (size_t)pair);
        }
        qr_vec changing = ~qr_vec_all(0);
        if (!plain) {
            changing = coins(keys, step, group + (uint64_t)i, QR_STREAM_PLANE_ACTIVATION, activation);
            changing = frozen != NULL ? changing & ~qr_vec_load(frozen + first + i) : changing;
        }
        qr_vec next[QR_SIMD_MAX_PLANES];
        for (int p = 0; p < kind.n_planes; p++) {
            qr_vec own = qr_vec_load(current[p] + i);
            qr_vec neighbour[QR_SIMD_MAX_DEGREE];
            for (int j = 0; j < kind.n_offsets; j++) {
                neighbour[j] = words_at(current[p] + i, distance[j]);
                if (edges != NULL && (task->offsets[j].dx != 0 || task->offsets[j].dy != 0)) {
                    neighbour[j] = wrap(task, current[p] + i, &task->offsets[j], edges, neighbour[j]);
                }
            }
            qr_vec vote = kind.voter ? qr_voter_word(neighbour, choice, kind.n_choice)
                                     : qr_majority_word(neighbour, (uint32_t)kind.n_offsets, own);
            next[p] = plain ? vote : own ^ ((own ^ vote) & changing);
        }
        if (noise != 0) {
            qr_vec noisy = changing & coins(keys, step, group + (uint64_t)i, QR_STREAM_PLANE_NOISE, noise);
            if (qr_vec_any(noisy)) {
                qr_vec copy[QR_SIMD_MAX_PLANES]; /* so that next itself can stay in registers */
                for (int p = 0; p < kind.n_planes; p++) {
                    copy[p] = next[p];
                }
                apply_noise(task, noisy, task->first_agent + 64 * (first + i), copy);
                for (int p = 0; p < kind.n_planes; p++) {
                    next[p] = copy[p];
                }
            }
        }
        for (int p = 0; p < kind.n_planes; p++) {
            qr_vec_store(to[p] + i, next[p]);
        }
        count_votes(next, kind.n_planes, kind.n_options, bytes);
    }
    for (uint32_t k = 0; k + 1 < kind.n_options; k++) {
        counts[k] += qr_vec_sum_bytes(bytes[k]);
    }
}

QR_INLINE void advance(const qr_plane_task *task, const variant kind, int64_t *counts)
{
    place at = {0, 0};
    qr_philox_keys keys;
    qr_philox_expand(task->rule->seed, &keys);
    if (task->dims > 1) {
        at.x = task->first_agent % task->size[0];
        at.y = task->first_agent / task->size[0] % task->size[1];
    }
    for (int64_t i = 0; i < task->n_words;) {
        int64_t left = (task->n_words - i) / QR_LANES;
        int64_t vectors = vectors_inside(task, at, left < COUNTS_BEFORE_FLUSH ? left : COUNTS_BEFORE_FLUSH);
        if (vectors > 0) {
            advance_stretch(task, kind, &keys, i, vectors, NULL, counts);
        } else {
            borders edges;
            find_borders(task, at, &edges);
            vectors = 1;
            advance_stretch(task, kind, &keys, i, 1, &edges, counts);
        }
        i += vectors * QR_LANES;
        at = move_on(task, at, vectors);
    }
}

void QR_SIMD_NAME(qr_simd_planes)(const qr_plane_task *task, int64_t *counts)
{
    const uint32_t n_options = task->rule->n_options;
    const uint32_t n_choice = task->rule->choice_planes;
    const int n_planes = task->n_planes;
    for (uint32_t k = 0; k < n_options; k++) {
        counts[k] = 0;
    }
    if (task->voter && n_options == 2 && n_choice == 2) {
        advance(task, (variant){true, 2, 4, 1, 2}, counts);
    } else if (task->voter && n_options == 2 && n_choice == 3) {
        advance(task, (variant){true, 3, 8, 1, 2}, counts);
    } else if (task->voter && n_choice == 2) {
        advance(task, (variant){true, 2, 4, n_planes, n_options}, counts);
    } else if (task->voter) {
        advance(task, (variant){true, n_choice, task->n_offsets, n_planes, n_options}, counts);
    } else if (task->n_offsets == 4) {
        advance(task, (variant){false, 0, 4, 1, 2}, counts);
    } else if (task->n_offsets == 8) {
        advance(task, (variant){false, 0, 8, 1, 2}, counts);
    } else {
        advance(task, (variant){false, 0, task->n_offsets, 1, 2}, counts);
    }
    int64_t last = 64 * task->n_words;
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        last -= counts[k];
    }
    counts[n_options - 1] = last;
}
