/* A colour of a Potts sweep on a chessboard of bit planes, several machine words at a time. Half of a word's agents
 * move: two words are taken as one. */
#include "backend/cpu/simd/vector.h"

#define QR_WORD               qr_vec
#define QR_WORD_ODD(a, b, c)  qr_vec_xor3(a, b, c)
#define QR_WORD_MOST(a, b, c) qr_vec_most(a, b, c)

#include "backend/cpu/simd/kernels.h"
#include "backend/cpu/simd/ones.h"

#include "rules/potts.h"

/* PIECE: words taken together. Random numbers of two pairs of planes are drawn side by side: one alone would wait for
 * its multiplications. */
enum { PIECE = 2 * QR_LANES, PAIRS = 2, COUNT_AT_ONCE = 12 };

typedef struct sweep_job {
    const qr_sweep_task *task;
    qr_philox_keys keys;
    int64_t row; /* words */
} sweep_job;

/* Words 0, 2, 4, ... of a piece, and words 1, 3, 5, ... */
QR_INLINE void split(const uint64_t *at, qr_vec *even, qr_vec *odd)
{
    qr_vec low = qr_vec_load(at);
    qr_vec high = qr_vec_load(at + QR_LANES);
#if QR_SIMD_BYTES == 64
    *even = __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
    *odd = __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    *even = __builtin_shufflevector(low, high, 0, 2, 4, 6);
    *odd = __builtin_shufflevector(low, high, 1, 3, 5, 7);
#endif
}

QR_INLINE void join(uint64_t *at, qr_vec even, qr_vec odd)
{
#if QR_SIMD_BYTES == 64
    qr_vec_store(at, __builtin_shufflevector(even, odd, 0, 8, 1, 9, 2, 10, 3, 11));
    qr_vec_store(at + QR_LANES, __builtin_shufflevector(even, odd, 4, 12, 5, 13, 6, 14, 7, 15));
#else
    qr_vec_store(at, __builtin_shufflevector(even, odd, 0, 4, 1, 5));
    qr_vec_store(at + QR_LANES, __builtin_shufflevector(even, odd, 2, 6, 3, 7));
#endif
}

/* Agents in columns of this parity: those of words 0, 2, ... at even bits, of words 1, 3, ... at odd bits. */
QR_INLINE qr_vec halve(qr_vec even, qr_vec odd, const int parity)
{
    return qr_vec_select(odd << (1 - parity), even >> parity, qr_vec_all(0x5555555555555555u));
}

/* Neighbours in the row of those who move: on one side they are at the same bit, on the other, here, a pair further.
 * rest: the others of the row, halved; before, behind: the words beside the piece. */
QR_INLINE qr_vec beside(qr_vec rest, uint64_t before, uint64_t behind, const int parity)
{
    if (parity == 0) { /* in the west */
        qr_vec last = qr_vec_last_then(qr_vec_all(before), rest);
        return rest << 2 | (rest >> 61 & 2u) | last >> 63;
    }
    qr_vec next = qr_vec_rest_then(rest, qr_vec_all(behind));
    return rest >> 2 | (rest << 61 & (uint64_t)1 << 62) | next << 63;
}

QR_INLINE void decide(const sweep_job *job, uint64_t group, qr_potts_turn *turn)
{
    const qr_sweep_task *task = job->task;
    for (uint32_t pair = 0; pair < QR_POTTS_TURN_PAIRS && qr_vec_any(turn->open); pair += PAIRS) {
        qr_philox_vec block[PAIRS];
        for (uint32_t i = 0; i < PAIRS; i++) {
            uint32_t number =
                (uint32_t)QR_STREAM_PLANE_RULE << 16 | ((uint32_t)task->colour * QR_POTTS_TURN_PAIRS + pair + i);
            block[i] = (qr_philox_vec){{qr_vec_all(group) + qr_vec_lane_numbers(), qr_vec_all(group >> 32),
                                        qr_vec_all((uint32_t)task->step), qr_vec_all(number)}};
        }
        qr_philox_rounds(&job->keys, PAIRS, block);
        for (uint32_t i = 0; i < PAIRS; i++) {
            const uint32_t plane = 2 * (pair + i);
            qr_potts_compare(task->rule, 4, plane, qr_vec_join(block[i].word[0], block[i].word[1]), turn);
            qr_potts_compare(task->rule, 4, plane + 1, qr_vec_join(block[i].word[2], block[i].word[3]), turn);
        }
    }
}

/* The piece at `at`, in place; parity: column modulo 2 of those who move. */
QR_INLINE void sweep_piece(const sweep_job *job, uint64_t *at, uint64_t before, uint64_t behind, uint64_t group,
                           const int parity)
{
    const qr_vec moving = qr_vec_all(parity != 0 ? 0xaaaaaaaaaaaaaaaau : 0x5555555555555555u);
    qr_vec even;
    qr_vec odd;
    split(at - job->row, &even, &odd);
    qr_vec north = halve(even, odd, parity);
    split(at + job->row, &even, &odd);
    qr_vec south = halve(even, odd, parity);
    split(at, &even, &odd);
    qr_vec rest = halve(even, odd, 1 - parity);
    qr_vec neighbour[4] = {north, rest, beside(rest, before, behind, parity), south};
    qr_vec all = ~qr_vec_all(0);
    qr_vec own = halve(even, odd, parity);
    qr_potts_turn turn;
    qr_potts_begin(job->task->rule->metropolis, neighbour, 4, own, all, &turn);
    decide(job, group, &turn);
    qr_vec votes = qr_potts_end(&turn, own, all);
    join(at, qr_vec_select(even, votes << parity, moving), qr_vec_select(odd, votes >> (1 - parity), moving));
}

/* Pieces [i, end) of the task, all of one row, the first in column x / 64. */
QR_INLINE void sweep_row(const sweep_job *job, int64_t i, int64_t end, int64_t x, const int parity)
{
    const qr_sweep_task *task = job->task;
    for (; i < end; i += PIECE, x += PIECE) {
        uint64_t *at = task->plane + task->first_word + i;
        uint64_t before = x == 0 ? at[job->row - 1] : at[-1];
        uint64_t behind = x + PIECE == job->row ? at[PIECE - job->row] : at[PIECE];
        sweep_piece(job, at, before, behind, (uint64_t)(task->first_agent / 64 + i) / 2, parity);
    }
}

static void __attribute__((noinline)) sweep_even(const sweep_job *job, int64_t i, int64_t end, int64_t x)
{
    sweep_row(job, i, end, x, 0);
}

static void __attribute__((noinline)) sweep_odd(const sweep_job *job, int64_t i, int64_t end, int64_t x)
{
    sweep_row(job, i, end, x, 1);
}

int64_t QR_SIMD_NAME(qr_simd_sweep)(const qr_sweep_task *task)
{
    sweep_job job = {.task = task, .row = task->width / 64};
    ones_counter ones;
    memset(&ones, 0, sizeof ones);
    qr_philox_expand(task->rule->seed, &job.keys);
    int64_t x = task->first_agent / 64 % job.row;
    int64_t y = task->first_agent / 64 / job.row;
    for (int64_t i = 0; i < task->n_words;) {
        int64_t left = task->n_words - i < job.row - x ? task->n_words - i : job.row - x;
        int64_t n = left < COUNT_AT_ONCE * PIECE ? left : COUNT_AT_ONCE * PIECE;
        if ((y + task->colour) % 2 == 0) {
            sweep_even(&job, i, i + n, x);
        } else {
            sweep_odd(&job, i, i + n, x);
        }
        if (task->counts) {
            count_ones(task->plane + task->first_word + i, n / QR_LANES, &ones);
        }
        i += n;
        x += n;
        y += x == job.row ? 1 : 0;
        x = x == job.row ? 0 : x;
    }
    return counted_ones(&ones);
}
