/* Bit planes, several machine words at a time. The rules are those of
 * kernels/rules/, applied to vectors of words. */
#include "backend/cpu/simd/vector.h"

#define QR_WORD               qr_vec
#define QR_WORD_ODD(a, b, c)  qr_vec_xor3(a, b, c)
#define QR_WORD_MOST(a, b, c) qr_vec_most(a, b, c)

#include "backend/cpu/simd/kernels.h"

#include "rules/majority.h"
#include "rules/voter.h"

/* Vectors advanced before their votes are counted: they are still in the
 * first-level cache, and byte counters hold this many additions of at most 8.
 */
enum { COUNT_AT_ONCE = 24 };

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

static void __attribute__((noinline)) search_borders(const qr_plane_task *task, place at, borders *out)
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

QR_INLINE void find_borders(const qr_plane_task *task, place at, borders *out)
{
    enum { BITS = 64 * QR_LANES };
    if (task->dims == 2 && task->size[0] % BITS == 0 && at.x % BITS == 0) { /* vectors end where rows do */
        out->x_first = at.x == 0 ? one_bit(0) : qr_vec_all(0);
        out->x_last = at.x + BITS == task->size[0] ? one_bit(BITS - 1) : qr_vec_all(0);
        return;
    }
    search_borders(task, at, out);
}

/* How many whole vectors from `at` on, at most `most`, hold no agent at a
 * border. */
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
    if (task->dims == 1 || at.x < task->size[0]) {
        return at;
    }
    if (at.x < 2 * task->size[0]) { /* spares wide lattices the division */
        at.x -= task->size[0];
        at.y++;
    } else {
        at.y += at.x / task->size[0];
        at.x %= task->size[0];
    }
    if (task->dims == 3 && at.y >= task->size[1]) {
        at.y %= task->size[1];
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

/* The same without a branch, for shifts that are known at run time only. */
QR_INLINE qr_vec words_shifted(const uint64_t *from, int64_t bits, bool never_zero)
{
    uint64_t shift = (uint64_t)bits & 63;
    from += bits >> 6;
    qr_vec high = qr_vec_load(from + 1);
    high = never_zero ? high << (64 - shift) : high << 1 << (63 - shift);
    return qr_vec_load(from) >> shift | high;
}

/* Neighbourhoods of two dimensions whose offsets the compiler may know. */
enum shape { SHAPE_ANY, SHAPE_CROSS, SHAPE_SQUARE };

/* Offset number j of a shape. */
QR_INLINE int shape_dx(enum shape shape, int j)
{
    static const int8_t cross[4] = {0, -1, 1, 0};
    static const int8_t square[8] = {-1, 0, 1, -1, 1, -1, 0, 1};
    return shape == SHAPE_CROSS ? cross[j] : square[j];
}

QR_INLINE int shape_dy(enum shape shape, int j)
{
    static const int8_t cross[4] = {-1, 0, 0, 1};
    static const int8_t square[8] = {-1, -1, -1, 0, 0, 1, 1, 1};
    return shape == SHAPE_CROSS ? cross[j] : square[j];
}

/* The same for an offset of a shape, `rows` whole rows further. Where rows are
 * whole words long (aligned), the shift is a constant. */
QR_INLINE qr_vec shape_words(enum shape shape, bool aligned, int64_t width, const uint64_t *from, int j, int rows)
{
    int dx = shape_dx(shape, j);
    int dy = shape_dy(shape, j) + rows;
    if (dy == 0 || aligned) {
        return words_at(from + dy * (width >> 6), dx);
    }
    return words_shifted(from, dx + dy * width, dx == 0);
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

/* How many vectors draw their random numbers side by side; more would not fit
 * the registers. */
enum { VECTORS_TOGETHER = 2 };

/* qr_planes for `together` times QR_LANES groups from `group` on, none of which
 * differs from it in the upper 32 bits. */
QR_INLINE void draw_planes(const qr_philox_keys *keys, int64_t step, uint64_t group, uint32_t stream, uint32_t pair,
                           const int together, qr_vec out[][2])
{
    qr_philox_vec block[VECTORS_TOGETHER];
    for (int v = 0; v < together; v++) {
        block[v] =
            (qr_philox_vec){{qr_vec_all(group + (uint64_t)v * QR_LANES) + qr_vec_lane_numbers(),
                             qr_vec_all(group >> 32), qr_vec_all((uint32_t)step), qr_vec_all(stream << 16 | pair)}};
    }
    qr_philox_rounds(keys, together, block);
    for (int v = 0; v < together; v++) {
        out[v][0] = qr_vec_join(block[v].word[0], block[v].word[1]);
        out[v][1] = qr_vec_join(block[v].word[2], block[v].word[3]);
    }
}

/* qr_plane_coins for QR_LANES groups. */
static qr_vec __attribute__((noinline))
draw_coins(const qr_philox_keys *keys, int64_t step, uint64_t group, uint32_t stream, uint64_t threshold)
{
    qr_vec below = qr_vec_all(0);
    qr_vec equal = ~below;
    qr_vec planes[1][2] = {{below, below}};
    uint32_t rest = (uint32_t)threshold;
    for (uint32_t plane = 0; rest != 0 && qr_vec_any(equal); plane++) {
        if (plane % 2 == 0) {
            draw_planes(keys, step, group, stream, plane / 2, 1, planes);
        }
        qr_vec bits = planes[0][plane % 2];
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

/* Full adder: *sum += a + b bit by bit; returns the carries. */
QR_INLINE qr_vec add_bits(qr_vec *sum, qr_vec a, qr_vec b)
{
    qr_vec carry = qr_vec_most(a, b, *sum);
    *sum = qr_vec_xor3(*sum, a, b);
    return carry;
}

/* Bits set in a row of vectors: bits are added up in columns first (Harley and Seal), so that few are counted. */
typedef struct ones_counter {
    qr_vec ones;
    qr_vec twos;
    qr_vec fours;
    qr_vec eights; /* how many in each lane */
    qr_vec rest;   /* the same of bits counted one by one */
} ones_counter;

QR_INLINE qr_vec ones_in_lanes(qr_vec v)
{
    return qr_vec_sum_bytes(qr_vec_popcount_bytes(v));
}

QR_INLINE void count_ones(const uint64_t *words, int64_t n_vectors, ones_counter *counter)
{
    ones_counter c = *counter;
    int64_t i = 0;
    for (; i + 8 <= n_vectors; i += 8) {
        const uint64_t *at = words + i * QR_LANES;
        qr_vec two0 = add_bits(&c.ones, qr_vec_load(at), qr_vec_load(at + QR_LANES));
        qr_vec two1 = add_bits(&c.ones, qr_vec_load(at + 2 * QR_LANES), qr_vec_load(at + 3 * QR_LANES));
        qr_vec four0 = add_bits(&c.twos, two0, two1);
        two0 = add_bits(&c.ones, qr_vec_load(at + 4 * QR_LANES), qr_vec_load(at + 5 * QR_LANES));
        two1 = add_bits(&c.ones, qr_vec_load(at + 6 * QR_LANES), qr_vec_load(at + 7 * QR_LANES));
        qr_vec four1 = add_bits(&c.twos, two0, two1);
        c.eights += ones_in_lanes(add_bits(&c.fours, four0, four1));
    }
    for (; i < n_vectors; i++) {
        c.rest += ones_in_lanes(qr_vec_load(words + i * QR_LANES));
    }
    *counter = c;
}

static int64_t counted_ones(const ones_counter *c)
{
    return 8 * qr_vec_sum(c->eights) + 4 * qr_vec_sum(ones_in_lanes(c->fours)) +
           2 * qr_vec_sum(ones_in_lanes(c->twos)) + qr_vec_sum(ones_in_lanes(c->ones)) + qr_vec_sum(c->rest);
}

/* What is the same for all words of a task. Constants in the common cases, so
 * that these get loops of their own. */
typedef struct variant {
    bool voter;
    uint32_t n_choice;
    int n_offsets;
    int n_planes;
    uint32_t n_options;
    enum shape shape;
    bool aligned;  /* rows are whole words */
    int64_t width; /* of a row, in agents */
    bool by_rows;  /* rows are whole vectors; qr_plane_task.rows */
} variant;

/* A task with what its inner loop needs at hand. */
typedef struct plane_job {
    const qr_plane_task *task;
    qr_philox_keys keys;
    bool plain;                                  /* everybody follows the rule */
    const uint64_t *current[QR_SIMD_MAX_PLANES]; /* the first word's place */
    uint64_t *next[QR_SIMD_MAX_PLANES];
    uint64_t first_group;
} plane_job;

/* Adds the votes for all options but the last, whose votes are what is left. At most COUNT_AT_ONCE vectors. */
QR_INLINE void count_votes(const plane_job *job, const variant kind, int64_t from, int64_t n_vectors, int64_t *counts)
{
    const uint32_t n_options = kind.n_options;
    qr_vec bytes[QR_SIMD_MAX_OPTIONS];
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        bytes[k] = qr_vec_all(0);
    }
    for (int64_t i = from; i < from + n_vectors * QR_LANES; i += QR_LANES) {
        for (uint32_t k = 0; k + 1 < n_options; k++) {
            qr_vec voters = ~qr_vec_all(0);
            for (int p = 0; p < kind.n_planes; p++) {
                qr_vec votes = qr_vec_load(job->next[p] + i);
                voters &= (k >> p & 1u) != 0 ? votes : ~votes;
            }
            bytes[k] += qr_vec_popcount_bytes(voters);
        }
    }
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        counts[k] += qr_vec_sum(qr_vec_sum_bytes(bytes[k]));
    }
}

/* The votes of the neighbours of a vector's agents; `own` is its place in the
 * plane. */
QR_INLINE void see_neighbours(const qr_plane_task *task, const variant kind, const uint64_t *own, const borders *edges,
                              qr_vec *neighbour)
{
    for (int j = 0; j < kind.n_offsets; j++) {
        if (kind.shape == SHAPE_ANY) {
            const qr_cpu_offset *offset = &task->offsets[j];
            neighbour[j] = words_at(own, offset->distance);
            if (edges != NULL && (offset->dx != 0 || offset->dy != 0)) {
                neighbour[j] = wrap(task, own, offset, edges, neighbour[j]);
            }
            continue;
        }
        neighbour[j] = shape_words(kind.shape, kind.aligned, kind.width, own, j, 0);
        int dx = shape_dx(kind.shape, j);
        if (edges != NULL && dx != 0) {
            qr_vec other = shape_words(kind.shape, kind.aligned, kind.width, own, j, -dx);
            neighbour[j] ^= (neighbour[j] ^ other) & (dx < 0 ? edges->x_first : edges->x_last);
        }
    }
}

/* The votes that the rule gives a vector of agents, one plane. */
QR_INLINE qr_vec rule_votes(const variant kind, qr_vec *neighbour, const qr_vec *choice, qr_vec own)
{
    return kind.voter ? qr_voter_word(neighbour, choice, kind.n_choice)
                      : qr_majority_word(neighbour, (uint32_t)kind.n_offsets, own);
}

/* Stores the new votes of the vector at word i of the task: the rule's, but for agents at rest, zealots and noise. */
QR_INLINE void store_votes(const plane_job *job, const variant kind, int64_t i, const qr_vec *own, const qr_vec *votes)
{
    const qr_plane_task *task = job->task;
    const qr_rule *rule = task->rule;
    if (job->plain) {
        for (int p = 0; p < kind.n_planes; p++) {
            qr_vec_store(job->next[p] + i, votes[p]);
        }
        return;
    }
    const uint64_t group = job->first_group + (uint64_t)i;
    qr_vec changing = coins(&job->keys, task->step, group, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    changing = task->frozen != NULL ? changing & ~qr_vec_load(task->frozen + i) : changing;
    qr_vec next[QR_SIMD_MAX_PLANES];
    for (int p = 0; p < kind.n_planes; p++) {
        next[p] = qr_vec_select(own[p], votes[p], changing);
    }
    if (rule->noise != 0) {
        qr_vec noisy = changing & coins(&job->keys, task->step, group, QR_STREAM_PLANE_NOISE, rule->noise);
        if (qr_vec_any(noisy)) {
            apply_noise(task, noisy, task->first_agent + 64 * i, next);
        }
    }
    for (int p = 0; p < kind.n_planes; p++) {
        qr_vec_store(job->next[p] + i, next[p]);
    }
}

/* Advances the vector at word i of the task, given its choice planes. */
QR_INLINE void advance_vector(const plane_job *job, const variant kind, int64_t i, const qr_vec *choice,
                              const borders *edges)
{
    qr_vec own[QR_SIMD_MAX_PLANES];
    qr_vec votes[QR_SIMD_MAX_PLANES];
    for (int p = 0; p < kind.n_planes; p++) {
        qr_vec neighbour[QR_SIMD_MAX_DEGREE];
        own[p] = qr_vec_load(job->current[p] + i);
        see_neighbours(job->task, kind, job->current[p] + i, edges, neighbour);
        votes[p] = rule_votes(kind, neighbour, choice, own[p]);
    }
    store_votes(job, kind, i, own, votes);
}

/* The planes that choose the neighbours of one vector, or of two whose random numbers are drawn in step: one alone
 * would wait for its multiplications. */
QR_INLINE void draw_choices(const plane_job *job, const variant kind, int64_t i, const int together, qr_vec choice[][4])
{
    for (uint32_t pair = 0; kind.voter && 2 * pair < kind.n_choice; pair++) {
        qr_vec drawn[VECTORS_TOGETHER][2];
        draw_planes(&job->keys, job->task->step, job->first_group + (uint64_t)i, QR_STREAM_PLANE_RULE, pair, together,
                    drawn);
        for (int v = 0; v < together; v++) {
            choice[v][2 * pair] = drawn[v][0];
            choice[v][2 * pair + 1] = drawn[v][1];
        }
    }
}

/* A row of a lattice seen vector by vector from west to east. Bits move to the next lane as a whole: a word turned by
 * one bit has every bit in place but one, which stands in the same place of the word beside it. */
typedef struct row_window {
    qr_vec own;
    qr_vec up; /* own, each lane turned by one bit */
    qr_vec up_before;
    qr_vec down;
} row_window;

/* `before` and `at` are the places of two vectors, of which the second is looked at first. */
QR_INLINE void open_window(row_window *window, const uint64_t *before, const uint64_t *at)
{
    window->up_before = qr_vec_turn_up(qr_vec_load(before));
    window->own = qr_vec_load(at);
    window->up = qr_vec_turn_up(window->own);
    window->down = qr_vec_turn_down(window->own);
}

/* The votes of the agents and of those beside them, then on to the vector at `next`. */
QR_INLINE void move_window(row_window *window, const uint64_t *next, qr_vec *west, qr_vec *own, qr_vec *east)
{
    const qr_vec lowest = qr_vec_all(1);
    qr_vec following = qr_vec_load(next);
    qr_vec down = qr_vec_turn_down(following);
    *west = qr_vec_select(window->up, qr_vec_last_then(window->up_before, window->up), lowest);
    *east = qr_vec_select(qr_vec_rest_then(window->down, down), window->down, ~qr_vec_all((uint64_t)1 << 63));
    *own = window->own;
    window->up_before = window->up;
    window->up = qr_vec_turn_up(following);
    window->own = following;
    window->down = down;
}

/* The neighbourhood of a vector at `at`; the next one of its row is at `next`. */
QR_INLINE void see_row(const variant kind, row_window *windows, const uint64_t *at, const uint64_t *next,
                       qr_vec *neighbour, qr_vec *own)
{
    const int64_t row = kind.width / 64;
    qr_vec *n = neighbour;
    if (kind.shape == SHAPE_CROSS) {
        n[0] = qr_vec_load(at - row);
        move_window(&windows[1], next, &n[1], own, &n[2]);
        n[3] = qr_vec_load(at + row);
    } else {
        move_window(&windows[0], next - row, &n[0], &n[1], &n[2]);
        move_window(&windows[1], next, &n[3], own, &n[4]);
        move_window(&windows[2], next + row, &n[5], &n[6], &n[7]);
    }
}

/* Advances `together` vectors of a row from word i on; what follows the last of them is at `behind`. */
QR_INLINE void advance_in_row(const plane_job *job, const variant kind, row_window *windows, int64_t i,
                              const int together, const uint64_t *behind)
{
    qr_vec choice[VECTORS_TOGETHER][4];
    draw_choices(job, kind, i, together, choice);
    for (int v = 0; v < together; v++) {
        const uint64_t *at = job->current[0] + i + v * QR_LANES;
        qr_vec neighbour[8];
        qr_vec own;
        see_row(kind, windows, at, v + 1 < together ? at + QR_LANES : behind, neighbour, &own);
        qr_vec votes = rule_votes(kind, neighbour, choice[v], own);
        store_votes(job, kind, i + v * QR_LANES, &own, &votes);
    }
}

/* Words [i, end) of a lattice whose rows are whole vectors, as the words here are; the first agent's column is x.
 * Returns the column behind them. */
QR_INLINE int64_t advance_rows(const plane_job *job, const variant kind, int64_t i, int64_t end, int64_t x)
{
    const int64_t row = kind.width / 64;
    while (i < end) {
        const uint64_t *west = job->current[0] + i - x / 64;
        int64_t here = row - x / 64 < end - i ? row - x / 64 : end - i;
        int64_t stop = i + here;
        x += 64 * here;
        const uint64_t *at = job->current[0] + i;
        const uint64_t *before = at == west ? west + row - QR_LANES : at - QR_LANES;
        const uint64_t *behind = x == kind.width ? west : job->current[0] + stop;
        row_window windows[3];
        open_window(&windows[1], before, at);
        if (kind.shape == SHAPE_SQUARE) {
            open_window(&windows[0], before - row, at - row);
            open_window(&windows[2], before + row, at + row);
        }
        for (; i + VECTORS_TOGETHER * QR_LANES <= stop; i += VECTORS_TOGETHER * QR_LANES) {
            const uint64_t *next = job->current[0] + i + VECTORS_TOGETHER * QR_LANES;
            advance_in_row(job, kind, windows, i, VECTORS_TOGETHER,
                           i + VECTORS_TOGETHER * QR_LANES == stop ? behind : next);
        }
        if (i < stop) {
            advance_in_row(job, kind, windows, i, 1, behind);
            i = stop;
        }
        x = x == kind.width ? 0 : x;
    }
    return x;
}

/* Advances one vector or two, wherever they are. */
QR_INLINE void advance_vectors(const plane_job *job, const variant kind, int64_t i, const int together,
                               const borders *edges)
{
    qr_vec choice[VECTORS_TOGETHER][4];
    draw_choices(job, kind, i, together, choice);
    for (int v = 0; v < together; v++) {
        advance_vector(job, kind, i + v * QR_LANES, choice[v], edges);
    }
}

/* Words [i, end), wherever rows begin. Returns the place behind them. */
QR_INLINE place advance_anywhere(const plane_job *job, const variant kind, int64_t i, int64_t end, place at)
{
    const qr_plane_task *task = job->task;
    while (i < end) {
        int64_t vectors = vectors_inside(task, at, (end - i) / QR_LANES);
        at = move_on(task, at, vectors);
        for (; vectors >= VECTORS_TOGETHER; vectors -= VECTORS_TOGETHER) {
            advance_vectors(job, kind, i, VECTORS_TOGETHER, NULL);
            i += VECTORS_TOGETHER * QR_LANES;
        }
        for (; vectors > 0; vectors--) {
            advance_vectors(job, kind, i, 1, NULL);
            i += QR_LANES;
        }
        if (i < end) {
            borders edges;
            find_borders(task, at, &edges);
            advance_vectors(job, kind, i, 1, &edges);
            at = move_on(task, at, 1);
            i += QR_LANES;
        }
    }
    return at;
}

QR_INLINE void advance(const qr_plane_task *task, const variant kind, int64_t *counts)
{
    plane_job job;
    job.task = task;
    job.first_group = (uint64_t)task->first_agent / 64;
    qr_philox_expand(task->rule->seed, &job.keys);
    job.plain = task->rule->activation >> 32 != 0 && task->rule->noise == 0 && task->frozen == NULL;
    for (int p = 0; p < kind.n_planes; p++) {
        job.current[p] = task->current[p] + task->first_word;
        job.next[p] = task->next[p] + task->first_word;
    }
    place at = {0, 0};
    if (task->dims > 1) {
        at.x = task->first_agent % task->size[0];
        at.y = task->first_agent / task->size[0] % task->size[1];
    }
    ones_counter ones;
    memset(&ones, 0, sizeof ones);
    for (int64_t i = 0; i < task->n_words;) {
        int64_t end = i + COUNT_AT_ONCE * QR_LANES < task->n_words ? i + COUNT_AT_ONCE * QR_LANES : task->n_words;
        if (kind.by_rows) {
            at.x = advance_rows(&job, kind, i, end, at.x);
        } else {
            at = advance_anywhere(&job, kind, i, end, at);
        }
        if (kind.n_options == 2) {
            count_ones(job.next[0] + i, (end - i) / QR_LANES, &ones);
        } else {
            count_votes(&job, kind, i, (end - i) / QR_LANES, counts);
        }
        i = end;
    }
    if (kind.n_options == 2) {
        counts[0] = 64 * task->n_words - counted_ones(&ones);
    }
}

void QR_SIMD_NAME(qr_simd_planes)(const qr_plane_task *task, int64_t *counts)
{
    const uint32_t n_options = task->rule->n_options;
    const uint32_t n_choice = task->rule->choice_planes;
    const int n_planes = task->n_planes;
    const int64_t width = task->size[0];
    const bool aligned = width % 64 == 0;
    const bool cross = task->dims == 2 && task->n_offsets == 4;
    const bool square = task->dims == 2 && task->n_offsets == 8;
    for (uint32_t k = 0; k < n_options; k++) {
        counts[k] = 0;
    }
    if (task->rows && task->voter) {
        if (cross) {
            advance(task, (variant){true, 2, 4, 1, 2, SHAPE_CROSS, true, width, true}, counts);
        } else {
            advance(task, (variant){true, 3, 8, 1, 2, SHAPE_SQUARE, true, width, true}, counts);
        }
    } else if (task->rows) {
        if (cross) {
            advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, true, width, true}, counts);
        } else {
            advance(task, (variant){false, 0, 8, 1, 2, SHAPE_SQUARE, true, width, true}, counts);
        }
    } else if (task->voter) {
#if !defined(QR_SIMD_FEW_VARIANTS) /* compilers take many minutes to instrument all of them */
        if (cross && n_options == 2) {
            advance(task, (variant){true, 2, 4, 1, 2, SHAPE_CROSS, false, width, false}, counts);
        } else if (square && n_options == 2) {
            advance(task, (variant){true, 3, 8, 1, 2, SHAPE_SQUARE, false, width, false}, counts);
        } else if (cross) {
            advance(task, (variant){true, 2, 4, n_planes, n_options, SHAPE_CROSS, false, width, false}, counts);
        } else
#endif
        {
            advance(task,
                    (variant){true, n_choice, task->n_offsets, n_planes, n_options, SHAPE_ANY, false, width, false},
                    counts);
        }
    } else if (cross && aligned) {
        advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, true, width, false}, counts);
#if !defined(QR_SIMD_FEW_VARIANTS)
    } else if (cross) {
        advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, false, width, false}, counts);
    } else if (square) {
        advance(task, (variant){false, 0, 8, 1, 2, SHAPE_SQUARE, false, width, false}, counts);
#endif
    } else {
        advance(task, (variant){false, 0, task->n_offsets, 1, 2, SHAPE_ANY, false, width, false}, counts);
    }
    (void)square;
    int64_t last = 64 * task->n_words;
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        last -= counts[k];
    }
    counts[n_options - 1] = last;
}
