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

/* Bits set in n vectors, n below 64: bits are added up in columns first (Harley
 * and Seal), so that few are counted. */
static int64_t count_ones(const uint64_t *words, int64_t n_vectors)
{
    qr_vec ones = qr_vec_all(0);
    qr_vec twos = ones;
    qr_vec fours = ones;
    qr_vec eights = ones;
    qr_vec tail = ones;
    int64_t i = 0;
    for (; i + 8 <= n_vectors; i += 8) {
        const uint64_t *at = words + i * QR_LANES;
        qr_vec two0 = add_bits(&ones, qr_vec_load(at), qr_vec_load(at + QR_LANES));
        qr_vec two1 = add_bits(&ones, qr_vec_load(at + 2 * QR_LANES), qr_vec_load(at + 3 * QR_LANES));
        qr_vec four0 = add_bits(&twos, two0, two1);
        two0 = add_bits(&ones, qr_vec_load(at + 4 * QR_LANES), qr_vec_load(at + 5 * QR_LANES));
        two1 = add_bits(&ones, qr_vec_load(at + 6 * QR_LANES), qr_vec_load(at + 7 * QR_LANES));
        qr_vec four1 = add_bits(&twos, two0, two1);
        eights += qr_vec_popcount_bytes(add_bits(&fours, four0, four1));
    }
    for (; i < n_vectors; i++) {
        tail += qr_vec_popcount_bytes(qr_vec_load(words + i * QR_LANES));
    }
    tail += qr_vec_popcount_bytes(ones) + 2 * qr_vec_popcount_bytes(twos) + 4 * qr_vec_popcount_bytes(fours);
    return 8 * qr_vec_sum_bytes(eights) + qr_vec_sum_bytes(tail);
}

/* Adds the votes for all options but the last, whose votes are what is left. */
QR_INLINE void count_votes(uint64_t *const *planes, int n_planes, uint32_t n_options, int64_t n_vectors,
                           int64_t *counts)
{
    if (n_options == 2) {
        counts[0] += n_vectors * 64 * QR_LANES - count_ones(planes[0], n_vectors);
        return;
    }
    qr_vec bytes[QR_SIMD_MAX_OPTIONS];
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        bytes[k] = qr_vec_all(0);
    }
    for (int64_t i = 0; i < n_vectors * QR_LANES; i += QR_LANES) {
        for (uint32_t k = 0; k + 1 < n_options; k++) {
            qr_vec voters = ~qr_vec_all(0);
            for (int p = 0; p < n_planes; p++) {
                qr_vec votes = qr_vec_load(planes[p] + i);
                voters &= (k >> p & 1u) != 0 ? votes : ~votes;
            }
            bytes[k] += qr_vec_popcount_bytes(voters);
        }
    }
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        counts[k] += qr_vec_sum_bytes(bytes[k]);
    }
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

/* The new votes of the vector at word i of the task, from its choice planes. */
QR_INLINE void advance_vector(const plane_job *job, const variant kind, int64_t i, const qr_vec *choice,
                              const borders *edges)
{
    const qr_plane_task *task = job->task;
    const qr_rule *rule = task->rule;
    const uint64_t group = job->first_group + (uint64_t)i;
    qr_vec changing = ~qr_vec_all(0);
    if (!job->plain) {
        changing = coins(&job->keys, task->step, group, QR_STREAM_PLANE_ACTIVATION, rule->activation);
        changing = task->frozen != NULL ? changing & ~qr_vec_load(task->frozen + i) : changing;
    }
    qr_vec next[QR_SIMD_MAX_PLANES];
    for (int p = 0; p < kind.n_planes; p++) {
        qr_vec own = qr_vec_load(job->current[p] + i);
        qr_vec neighbour[QR_SIMD_MAX_DEGREE];
        see_neighbours(task, kind, job->current[p] + i, edges, neighbour);
        qr_vec vote = kind.voter ? qr_voter_word(neighbour, choice, kind.n_choice)
                                 : qr_majority_word(neighbour, (uint32_t)kind.n_offsets, own);
        next[p] = job->plain ? vote : own ^ ((own ^ vote) & changing);
    }
    if (!job->plain && rule->noise != 0) {
        qr_vec noisy = changing & coins(&job->keys, task->step, group, QR_STREAM_PLANE_NOISE, rule->noise);
        if (qr_vec_any(noisy)) {
            qr_vec copy[QR_SIMD_MAX_PLANES]; /* so that next itself can stay in
                                                registers */
            for (int p = 0; p < kind.n_planes; p++) {
                copy[p] = next[p];
            }
            apply_noise(task, noisy, task->first_agent + 64 * i, copy);
            for (int p = 0; p < kind.n_planes; p++) {
                next[p] = copy[p];
            }
        }
    }
    for (int p = 0; p < kind.n_planes; p++) {
        qr_vec_store(job->next[p] + i, next[p]);
    }
}

/* Advances one vector, or two whose random numbers are drawn in step: one alone would wait for its multiplications. */
QR_INLINE void advance_vectors(const plane_job *job, const variant kind, int64_t i, const int together,
                               const borders *edges0, const borders *edges1)
{
    qr_vec choice[VECTORS_TOGETHER][4];
    for (uint32_t pair = 0; kind.voter && 2 * pair < kind.n_choice; pair++) {
        qr_vec drawn[VECTORS_TOGETHER][2];
        draw_planes(&job->keys, job->task->step, job->first_group + (uint64_t)i, QR_STREAM_PLANE_RULE, pair, together,
                    drawn);
        for (int v = 0; v < together; v++) {
            choice[v][2 * pair] = drawn[v][0];
            choice[v][2 * pair + 1] = drawn[v][1];
        }
    }
    advance_vector(job, kind, i, choice[0], edges0);
    if (together == 2) {
        advance_vector(job, kind, i + QR_LANES, choice[1], edges1);
    }
}

/* Words [i, end) of rows that are whole pairs of vectors long, as the words here are: borders are known before they are
 * met. */
QR_INLINE void advance_rows(const plane_job *job, const variant kind, int64_t i, int64_t end, int64_t x)
{
    enum { BITS = 64 * QR_LANES * VECTORS_TOGETHER };
    const qr_vec none = qr_vec_all(0);
    const borders first = {one_bit(0), none, none, none};
    const borders last = {none, one_bit(64 * QR_LANES - 1), none, none};
    for (; i < end; i += VECTORS_TOGETHER * QR_LANES) {
        bool at_last = x + BITS == kind.width;
        if (x == 0 && at_last) {
            advance_vectors(job, kind, i, 2, &first, &last);
        } else if (x == 0) {
            advance_vectors(job, kind, i, 2, &first, NULL);
        } else if (at_last) {
            advance_vectors(job, kind, i, 2, NULL, &last);
        } else {
            advance_vectors(job, kind, i, 2, NULL, NULL);
        }
        x = at_last ? 0 : x + BITS;
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
            advance_vectors(job, kind, i, 2, NULL, NULL);
            i += VECTORS_TOGETHER * QR_LANES;
        }
        for (; vectors > 0; vectors--) {
            advance_vectors(job, kind, i, 1, NULL, NULL);
            i += QR_LANES;
        }
        if (i < end) {
            borders edges;
            find_borders(task, at, &edges);
            advance_vectors(job, kind, i, 1, &edges, NULL);
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
    const int64_t group = 64 * QR_LANES * VECTORS_TOGETHER;
    const bool by_rows = kind.aligned && kind.shape == SHAPE_CROSS; /* the square would run out of registers */
    const bool in_rows = by_rows && kind.width % group == 0 && at.x % group == 0;
    for (int64_t i = 0; i < task->n_words;) {
        int64_t end = i + COUNT_AT_ONCE * QR_LANES < task->n_words ? i + COUNT_AT_ONCE * QR_LANES : task->n_words;
        int64_t whole = in_rows ? i + (end - i) / (group / 64) * (group / 64) : i;
        if (by_rows) {
            advance_rows(&job, kind, i, whole, at.x);
        }
        at = move_on(task, at, (whole - i) / QR_LANES);
        at = advance_anywhere(&job, kind, whole, end, at);
        uint64_t *done[QR_SIMD_MAX_PLANES];
        for (int p = 0; p < kind.n_planes; p++) {
            done[p] = job.next[p] + i;
        }
        count_votes(done, kind.n_planes, kind.n_options, (end - i) / QR_LANES, counts);
        i = end;
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
#if defined(QR_SIMD_FEW_VARIANTS) /* compilers take many minutes to instrument all of them */
    if (task->voter) {
        advance(task, (variant){true, n_choice, task->n_offsets, n_planes, n_options, SHAPE_ANY, false, width}, counts);
    } else if (cross && aligned) {
        advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, true, width}, counts);
    } else {
        advance(task, (variant){false, 0, task->n_offsets, 1, 2, SHAPE_ANY, false, width}, counts);
    }
    (void)square;
#else
    if (task->voter && n_options == 2 && cross && aligned) {
        advance(task, (variant){true, 2, 4, 1, 2, SHAPE_CROSS, true, width}, counts);
    } else if (task->voter && n_options == 2 && cross) {
        advance(task, (variant){true, 2, 4, 1, 2, SHAPE_CROSS, false, width}, counts);
    } else if (task->voter && n_options == 2 && square && aligned) {
        advance(task, (variant){true, 3, 8, 1, 2, SHAPE_SQUARE, true, width}, counts);
    } else if (task->voter && n_options == 2 && square) {
        advance(task, (variant){true, 3, 8, 1, 2, SHAPE_SQUARE, false, width}, counts);
    } else if (task->voter && cross) {
        advance(task, (variant){true, 2, 4, n_planes, n_options, SHAPE_CROSS, false, width}, counts);
    } else if (task->voter) {
        advance(task, (variant){true, n_choice, task->n_offsets, n_planes, n_options, SHAPE_ANY, false, width}, counts);
    } else if (cross && aligned) {
        advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, true, width}, counts);
    } else if (cross) {
        advance(task, (variant){false, 0, 4, 1, 2, SHAPE_CROSS, false, width}, counts);
    } else if (square && aligned) {
        advance(task, (variant){false, 0, 8, 1, 2, SHAPE_SQUARE, true, width}, counts);
    } else if (square) {
        advance(task, (variant){false, 0, 8, 1, 2, SHAPE_SQUARE, false, width}, counts);
    } else {
        advance(task, (variant){false, 0, task->n_offsets, 1, 2, SHAPE_ANY, false, width}, counts);
    }
#endif
    int64_t last = 64 * task->n_words;
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        last -= counts[k];
    }
    counts[n_options - 1] = last;
}
