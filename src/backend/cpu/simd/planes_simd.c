/* Bit planes, several machine words at a time. The rules are those of
 * kernels/rules/, applied to vectors of words. */
#include "backend/cpu/simd/vector.h"

#define QR_WORD               qr_vec
#define QR_WORD_ODD(a, b, c)  qr_vec_xor3(a, b, c)
#define QR_WORD_MOST(a, b, c) qr_vec_most(a, b, c)

#include "backend/cpu/simd/kernels.h"
#include "backend/cpu/simd/ones.h"
#include "backend/cpu/simd/places.h"

#include "rules/majority.h"
#include "rules/voter.h"

/* Vectors advanced before their votes are counted: they are still in the
 * first-level cache, and byte counters hold this many additions of at most 8.
 */
enum { COUNT_AT_ONCE = 24 };

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

/* What is the same for all words of a task. Constants in the common cases, so
 * that these get loops of their own. */
typedef struct variant {
    bool voter;
    uint32_t n_choice;
    int n_offsets;
    int n_planes;
    uint32_t n_options;
    enum shape shape;
    int64_t width; /* of a row, in agents */
    bool by_rows;  /* rows are whole vectors; qr_plane_task.rows */
    bool plain;    /* everybody follows the rule; false where that is not known */
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
            const qr_lattice_offset *offset = &task->offsets[j];
            neighbour[j] = words_at(own, offset->distance);
            if (edges != NULL && (offset->dx != 0 || offset->dy != 0)) {
                neighbour[j] = wrap(task, own, offset, edges, neighbour[j]);
            }
            continue;
        }
        neighbour[j] = shape_words(kind.shape, kind.width, own, j, 0);
        int dx = shape_dx(kind.shape, j);
        if (edges != NULL && dx != 0) {
            qr_vec other = shape_words(kind.shape, kind.width, own, j, -dx);
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
    if (!kind.voter && kind.n_options > 2) {
        qr_vec neighbour[QR_SIMD_MAX_PLANES * QR_MAJORITY_OPTIONS_DEGREE];
        for (int p = 0; p < kind.n_planes; p++) {
            own[p] = qr_vec_load(job->current[p] + i);
            see_neighbours(job->task, kind, job->current[p] + i, edges, neighbour + p * kind.n_offsets);
        }
        qr_majority_options_word(neighbour, (uint32_t)kind.n_offsets, own, (uint32_t)kind.n_planes, kind.n_options,
                                 votes);
        store_votes(job, kind, i, own, votes);
        return;
    }
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

/* What is to the west and the east of `together` vectors of a row, between the vectors `before` and `behind`. Bits move
 * to the next lane as a whole: a word turned by one bit has every bit in place but one, which stands in the same place
 * of the word beside it. */
QR_INLINE void see_beside(qr_vec before, const qr_vec *own, qr_vec behind, const int together, qr_vec *west,
                          qr_vec *east)
{
    const qr_vec lowest = qr_vec_all(1);
    const qr_vec highest = qr_vec_all((uint64_t)1 << 63);
    qr_vec up[VECTORS_TOGETHER + 1];
    qr_vec down[VECTORS_TOGETHER + 1];
    up[0] = qr_vec_turn_up(before);
    for (int v = 0; v < together; v++) {
        up[v + 1] = qr_vec_turn_up(own[v]);
        down[v] = qr_vec_turn_down(own[v]);
    }
    down[together] = qr_vec_turn_down(behind);
    for (int v = 0; v < together; v++) {
        west[v] = qr_vec_select(up[v + 1], qr_vec_last_then(up[v], up[v + 1]), lowest);
        east[v] = qr_vec_select(down[v], qr_vec_rest_then(down[v], down[v + 1]), highest);
    }
}

/* The same for vectors in memory: votes in the west, here and in the east. */
QR_INLINE void see_row(const uint64_t *before, const uint64_t *at, const uint64_t *behind, const int together,
                       qr_vec (*votes)[VECTORS_TOGETHER])
{
    for (int v = 0; v < together; v++) {
        votes[1][v] = qr_vec_load(at + v * QR_LANES);
    }
    see_beside(qr_vec_load(before), votes[1], qr_vec_load(behind), together, votes[0], votes[2]);
}

/* How many of the votes above, at and below a place are set: 2 carry + sum. */
QR_INLINE void add_column(const uint64_t *at, int64_t row, qr_vec *own, qr_vec *sum, qr_vec *carry)
{
    qr_vec above = qr_vec_load(at - row);
    qr_vec below = qr_vec_load(at + row);
    *own = qr_vec_load(at);
    *sum = qr_vec_xor3(above, *own, below);
    *carry = qr_vec_most(above, *own, below);
}

/* The majority on a square, for vectors of a row as in see_row. */
QR_INLINE void square_majority(const uint64_t *before, const uint64_t *at, const uint64_t *behind, int64_t row,
                               const int together, qr_vec *own, qr_vec *votes)
{
    qr_vec unused;
    qr_vec beside[2][2]; /* before and behind: sum, carry */
    qr_vec sum[3][VECTORS_TOGETHER];
    qr_vec carry[3][VECTORS_TOGETHER];
    add_column(before, row, &unused, &beside[0][0], &beside[0][1]);
    add_column(behind, row, &unused, &beside[1][0], &beside[1][1]);
    for (int v = 0; v < together; v++) {
        add_column(at + v * QR_LANES, row, &own[v], &sum[1][v], &carry[1][v]);
    }
    see_beside(beside[0][0], sum[1], beside[1][0], together, sum[0], sum[2]);
    see_beside(beside[0][1], carry[1], beside[1][1], together, carry[0], carry[2]);
    for (int v = 0; v < together; v++) {
        const qr_vec sums[3] = {sum[0][v], sum[1][v], sum[2][v]};
        const qr_vec carries[3] = {carry[0][v], carry[1][v], carry[2][v]};
        votes[v] = qr_majority_of_columns(sums, carries);
    }
}

/* Advances `together` vectors of a row of whole vectors, from `at` to `next`; the first is at word i of the task and in
 * column x. */
QR_INLINE void advance_in_row(const plane_job *job, const variant kind, const uint64_t *at, uint64_t *next, int64_t i,
                              int64_t x, const int together)
{
    const int64_t row = kind.width / 64;
    const uint64_t *before = x == 0 ? at + row - QR_LANES : at - QR_LANES;
    const uint64_t *behind = at + together * QR_LANES;
    behind -= x + 64 * QR_LANES * together == kind.width ? row : 0;
    qr_vec choice[VECTORS_TOGETHER][4];
    draw_choices(job, kind, i, together, choice);
    qr_vec north[3][VECTORS_TOGETHER];
    qr_vec here[3][VECTORS_TOGETHER];
    qr_vec south[3][VECTORS_TOGETHER];
    qr_vec votes[VECTORS_TOGETHER];
    if (kind.shape == SHAPE_SQUARE && !kind.voter) {
        square_majority(before, at, behind, row, together, here[1], votes);
    } else if (kind.shape == SHAPE_SQUARE) {
        see_row(before, at, behind, together, here);
        see_row(before - row, at - row, behind - row, together, north);
        see_row(before + row, at + row, behind + row, together, south);
    } else {
        see_row(before, at, behind, together, here);
    }
    for (int v = 0; v < together; v++) {
        if (kind.shape == SHAPE_CROSS) {
            qr_vec neighbour[4] = {qr_vec_load(at + v * QR_LANES - row), here[0][v], here[2][v],
                                   qr_vec_load(at + v * QR_LANES + row)};
            votes[v] = rule_votes(kind, neighbour, choice[v], here[1][v]);
        } else if (kind.voter) {
            qr_vec neighbour[8] = {north[0][v], north[1][v], north[2][v], here[0][v],
                                   here[2][v],  south[0][v], south[1][v], south[2][v]};
            votes[v] = rule_votes(kind, neighbour, choice[v], here[1][v]);
        }
    }
    for (int v = 0; v < together; v++) {
        if (kind.plain) {
            qr_vec_store(next + v * QR_LANES, votes[v]);
        } else {
            store_votes(job, kind, i + v * QR_LANES, &here[1][v], &votes[v]);
        }
    }
}

/* Words [i, end) of a lattice whose rows are whole vectors, as the words here are; the first agent's column is x.
 * Returns the column behind them. */
QR_INLINE int64_t advance_rows(const plane_job *job, const variant kind, int64_t i, int64_t end, int64_t x)
{
    enum { WORDS = QR_LANES * VECTORS_TOGETHER, BITS = 64 * WORDS };
    const uint64_t *const current = job->current[0]; /* in registers, whatever is stored */
    uint64_t *const next = job->next[0];
    while (i < end) {
        if (i + WORDS <= end && x + BITS <= kind.width) {
            advance_in_row(job, kind, current + i, next + i, i, x, VECTORS_TOGETHER);
            i += WORDS;
            x += BITS;
        } else {
            advance_in_row(job, kind, current + i, next + i, i, x, 1);
            i += QR_LANES;
            x += 64 * QR_LANES;
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

/* Nobody rests, is a zealot or makes mistakes. */
static bool follows_rule(const qr_plane_task *task)
{
    return task->rule->activation >> 32 != 0 && task->rule->noise == 0 && task->frozen == NULL;
}

QR_INLINE void advance(const qr_plane_task *task, const variant kind, int64_t *counts)
{
    plane_job job;
    job.task = task;
    job.first_group = (uint64_t)task->first_agent / 64;
    job.plain = kind.plain || follows_rule(task);
    if (kind.voter || !job.plain) {
        qr_philox_expand(task->rule->seed, &job.keys);
    }
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

/* A loop of its own for what is common. Functions of their own, too, as registers are allotted by function. */
#define ADVANCE(name, ...)                                                                                             \
    static void __attribute__((noinline)) advance_##name(const qr_plane_task *task, int64_t *counts)                   \
    {                                                                                                                  \
        advance(task, (variant){__VA_ARGS__}, counts);                                                                 \
    }
#define CROSS  .n_offsets = 4, .shape = SHAPE_CROSS, .width = task->size[0]
#define SQUARE .n_offsets = 8, .shape = SHAPE_SQUARE, .width = task->size[0]
#define TWO    .n_planes = 1, .n_options = 2
#define ROWS   .by_rows = true

ADVANCE(voter_any, .voter = true, .n_choice = task->rule->choice_planes, .n_offsets = task->n_offsets,
        .n_planes = task->n_planes, .n_options = task->rule->n_options, .width = task->size[0])
ADVANCE(majority_any, .n_offsets = task->n_offsets, TWO, .width = task->size[0])
ADVANCE(majority_options, .n_offsets = task->n_offsets, .n_planes = task->n_planes, .n_options = task->rule->n_options,
        .width = task->size[0])
ADVANCE(voter_cross_rows, .voter = true, .n_choice = 2, CROSS, TWO, ROWS)
ADVANCE(voter_square_rows, .voter = true, .n_choice = 3, SQUARE, TWO, ROWS)
ADVANCE(majority_cross_rows, CROSS, TWO, ROWS)
ADVANCE(majority_square_rows, SQUARE, TWO, ROWS)
#if !defined(QR_SIMD_FEW_VARIANTS) /* compilers take many minutes to instrument all of them */
ADVANCE(voter_cross_rows_plain, .voter = true, .n_choice = 2, CROSS, TWO, ROWS, .plain = true)
ADVANCE(voter_square_rows_plain, .voter = true, .n_choice = 3, SQUARE, TWO, ROWS, .plain = true)
ADVANCE(majority_cross_rows_plain, CROSS, TWO, ROWS, .plain = true)
ADVANCE(majority_square_rows_plain, SQUARE, TWO, ROWS, .plain = true)
ADVANCE(voter_cross, .voter = true, .n_choice = 2, CROSS, TWO)
ADVANCE(voter_square, .voter = true, .n_choice = 3, SQUARE, TWO)
ADVANCE(voter_cross_options, .voter = true, .n_choice = 2, CROSS, .n_planes = task->n_planes,
        .n_options = task->rule->n_options)
ADVANCE(majority_cross, CROSS, TWO)
ADVANCE(majority_cross_options, CROSS, .n_planes = task->n_planes, .n_options = task->rule->n_options)
ADVANCE(majority_square, SQUARE, TWO)
#endif

typedef void (*advance_function)(const qr_plane_task *task, int64_t *counts);

static advance_function pick_rows(const qr_plane_task *task)
{
    const bool cross = task->n_offsets == 4;
#if !defined(QR_SIMD_FEW_VARIANTS)
    if (follows_rule(task)) {
        return task->voter ? (cross ? advance_voter_cross_rows_plain : advance_voter_square_rows_plain)
                           : (cross ? advance_majority_cross_rows_plain : advance_majority_square_rows_plain);
    }
#endif
    return task->voter ? (cross ? advance_voter_cross_rows : advance_voter_square_rows)
                       : (cross ? advance_majority_cross_rows : advance_majority_square_rows);
}

static advance_function pick(const qr_plane_task *task)
{
    if (task->rows) {
        return pick_rows(task);
    }
    const bool two = task->rule->n_options == 2;
#if !defined(QR_SIMD_FEW_VARIANTS)
    if (task->dims == 2 && task->n_offsets == 4) {
        return task->voter ? (two ? advance_voter_cross : advance_voter_cross_options)
                           : (two ? advance_majority_cross : advance_majority_cross_options);
    }
    if (task->dims == 2 && task->n_offsets == 8 && two) {
        return task->voter ? advance_voter_square : advance_majority_square;
    }
#endif
    return task->voter ? advance_voter_any : two ? advance_majority_any : advance_majority_options;
}

void QR_SIMD_NAME(qr_simd_planes)(const qr_plane_task *task, int64_t *counts)
{
    const uint32_t n_options = task->rule->n_options;
    for (uint32_t k = 0; k < n_options; k++) {
        counts[k] = 0;
    }
    pick(task)(task, counts);
    int64_t last = 64 * task->n_words;
    for (uint32_t k = 0; k + 1 < n_options; k++) {
        last -= counts[k];
    }
    counts[n_options - 1] = last;
}
