/* Sweeps of Potts with two options on bit planes, a colour at a time and in place: bits of agents in their turn are
 * written while others read the words they stand in, but nobody who moves looks at anybody else who does. */
#ifndef QR_PLANES_SWEEP_CUH
#define QR_PLANES_SWEEP_CUH

#include "rules/potts.h"

/* Votes change while the kernel runs. */
#define QR_READ_WORD(address) (*(address))

#include "planes_launch.cuh"

typedef struct qr_sweep_task {
    qr_rows_task rows;
    int64_t step_x; /* word by word: by how much a thread moves on: columns, */
    int64_t step_y; /* and rows within a layer */
    int32_t colour;
    int32_t last;    /* colour of the sweep */
    uint32_t parity; /* tiles: column modulo 2 of those who move in the first row */
    /* Tiles: bits of the thresholds by plane, 0 or ~0: of those whose neighbours all agree, and where the threshold of
     * those with one of another mind differs. */
    uint32_t agreed[QR_POTTS_PLANES];
    uint32_t differs[QR_POTTS_PLANES];
} qr_sweep_task;

/* The turn of the 64 agents from own agent `index` on, the first of which stands at (x, y). Returns their votes. */
template <int DEGREE>
static __device__ __forceinline__ uint64_t qr_sweep_word(const qr_part *part, const qr_sweep_task *task,
                                                         uint64_t *plane, int64_t step, int64_t index, uint64_t valid,
                                                         int64_t x, int64_t y)
{
    const int64_t position = part->before + index;
    const uint64_t word = (uint64_t)(part->first + index) / QR_DEVICE_GROUP;
    const int32_t n_colours = part->lattice.n_colours;
    const uint64_t own = plane[position / 64];
    const uint64_t moving = valid & qr_lattice_colour_word(&part->lattice, part->first + index, task->colour);
    if (moving == 0) {
        return own;
    }
    uint64_t neighbour[DEGREE];
    qr_word_borders borders;
    const bool at_border = qr_find_borders(&part->lattice, x, y, &borders);
    qr_see_neighbours<DEGREE>(part, plane, position, at_border, &borders, neighbour);
    qr_potts_turn turn;
    qr_potts_begin(part->rule.metropolis, neighbour, DEGREE, own, moving, &turn);
    for (uint32_t pair = 0; pair < QR_POTTS_TURN_PAIRS && turn.open != 0; pair++) {
        uint64_t planes[2];
        qr_keyed_planes(&task->rows.keys, qr_potts_group(n_colours, word), (uint32_t)step, QR_STREAM_PLANE_RULE,
                        (uint32_t)task->colour * QR_POTTS_TURN_PAIRS + pair, planes);
        qr_potts_compare(&part->rule, DEGREE, 2u * pair, qr_potts_bits(n_colours, word, planes[0]), &turn);
        qr_potts_compare(&part->rule, DEGREE, 2u * pair + 1u, qr_potts_bits(n_colours, word, planes[1]), &turn);
    }
    const uint64_t votes = qr_potts_end(&turn, own, moving);
    plane[position / 64] = votes;
    return votes;
}

/* On a chessboard a lane takes two words, 128 agents, of whom half move: as one word, agents 2 k and 2 k + 1 of the
 * first (who of them moves) at bit 2 k, of the second at bit 2 k + 1. So do their random bits lie. PARITY: column
 * modulo 2 of those taken. */
template <uint32_t PARITY> static __device__ __forceinline__ uint64_t qr_halve(const qr_row<2> *row)
{
    const uint32_t even = 0x55555555u;
    const uint32_t low = (uint32_t)row->word[0] >> PARITY & even;
    const uint32_t high = (uint32_t)(row->word[0] >> 32) >> PARITY & even;
    const uint32_t low1 = (uint32_t)row->word[1] << (1u - PARITY) & ~even;
    const uint32_t high1 = (uint32_t)(row->word[1] >> 32) << (1u - PARITY) & ~even;
    return (uint64_t)(high | high1) << 32 | (low | low1);
}

/* The other way round: puts the bits into the two words. */
template <uint32_t PARITY> static __device__ __forceinline__ void qr_unhalve(uint64_t votes, qr_row<2> *row)
{
    const uint32_t moving = PARITY != 0 ? 0xaaaaaaaau : 0x55555555u;
    const uint32_t low = (uint32_t)votes;
    const uint32_t high = (uint32_t)(votes >> 32);
    const uint32_t low0 = ((uint32_t)row->word[0] & ~moving) | (low << PARITY & moving);
    const uint32_t high0 = ((uint32_t)(row->word[0] >> 32) & ~moving) | (high << PARITY & moving);
    const uint32_t low1 = ((uint32_t)row->word[1] & ~moving) | (low >> (1u - PARITY) & moving);
    const uint32_t high1 = ((uint32_t)(row->word[1] >> 32) & ~moving) | (high >> (1u - PARITY) & moving);
    row->word[0] = (uint64_t)high0 << 32 | low0;
    row->word[1] = (uint64_t)high1 << 32 | low1;
}

/* Neighbours in the row of those who move: on one side they are at the same bit, on the other, here, a pair further.
 * `rest`: the others of the row, halved. */
template <uint32_t PARITY> static __device__ __forceinline__ uint64_t qr_beside(const qr_row<2> *row, uint64_t rest)
{
    const uint32_t lane = threadIdx.x % 32u;
    const uint32_t low = (uint32_t)rest;
    const uint32_t high = (uint32_t)(rest >> 32);
    if (PARITY == 0) { /* in the west */
        const uint32_t west = __shfl_up_sync(~0u, high, 1);
        const uint32_t before = lane == 0 ? row->west : west;
        return (uint64_t)__funnelshift_l(low, high, 2) << 32 | (low << 2 | (high >> 29 & 2u) | before >> 31);
    }
    const uint32_t east = __shfl_down_sync(~0u, low, 1);
    const uint32_t behind = lane == 31u ? row->east : east;
    return (uint64_t)(high >> 2 | (low & 2u) << 29 | behind << 31) << 32 | __funnelshift_r(low, high, 2);
}

/* Compares with a pair of planes; first: that of plane 0. */
static __device__ __forceinline__ void qr_settle_pair(const qr_sweep_task *task, uint64_t group, uint32_t step,
                                                      uint32_t pair, bool first, qr_potts_turn *turn)
{
    uint64_t planes[2];
    qr_keyed_planes(&task->rows.keys, group, step, QR_STREAM_PLANE_RULE,
                    (uint32_t)task->colour * QR_POTTS_TURN_PAIRS + pair, planes);
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t agreed = task->agreed[2u * pair + i];
        const uint32_t differs = task->differs[2u * pair + i];
        const uint32_t low = agreed ^ ((uint32_t)turn->minority[1] & differs);
        const uint32_t high = agreed ^ ((uint32_t)(turn->minority[1] >> 32) & differs);
        qr_potts_settle(turn, first && i == 0 ? 1u : 0u, (uint64_t)high << 32 | low, planes[i]);
    }
}

/* Votes after their turn of those who move in a row, halved. neighbour: in the north, the row itself and the south. */
static __device__ __forceinline__ uint64_t qr_take_turn(const qr_sweep_task *task, uint32_t metropolis, bool inside,
                                                        const uint64_t *neighbour, uint64_t own, uint64_t group,
                                                        uint32_t step)
{
    enum { SURE = 4 }; /* pairs that some agent of a warp will need anyway */
    qr_potts_turn turn;
    qr_potts_begin(metropolis, neighbour, 4, own, inside ? ~(uint64_t)0 : 0, &turn);
#pragma unroll
    for (uint32_t pair = 0; pair < SURE; pair++) {
        qr_settle_pair(task, group, step, pair, pair == 0, &turn);
    }
#pragma unroll 1
    for (uint32_t pair = SURE; pair < QR_POTTS_TURN_PAIRS; pair++) {
        if (!__any_sync(~0u, turn.open != 0)) {
            break;
        }
        qr_settle_pair(task, group, step, pair, false, &turn);
    }
    return turn.vote ^ turn.against;
}

/* What a warp knows of the rows around the one whose turn it is. */
typedef struct qr_sweep_rows {
    uint64_t north;   /* halved: those in the columns of who moves in the middle */
    uint64_t rest;    /* halved: those of the middle who do not move */
    qr_row<2> middle; /* becomes what it is after the turn */
    qr_row<2> south;
} qr_sweep_rows;

/* The turn of the middle row, at own word `at`. Returns those of the south who are in the same columns, halved. */
template <uint32_t PARITY, bool METROPOLIS>
static __device__ __forceinline__ uint64_t qr_sweep_row(const qr_part *part, const qr_sweep_task *task, bool inside,
                                                        int64_t at, uint32_t step, qr_sweep_rows *rows)
{
    const uint64_t south = qr_halve<PARITY>(&rows->south);
    const uint64_t neighbour[4] = {rows->north, rows->rest, qr_beside<PARITY>(&rows->middle, rows->rest), south};
    const uint64_t own = METROPOLIS ? qr_halve<PARITY>(&rows->middle) : 0;
    const uint64_t group = (uint64_t)(part->first / QR_DEVICE_GROUP + at) / 2u;
    qr_unhalve<PARITY>(qr_take_turn(task, METROPOLIS ? 1u : 0u, inside, neighbour, own, group, step), &rows->middle);
    return south;
}

template <bool METROPOLIS>
static __device__ __forceinline__ void qr_sweep_tile(const qr_part *part, const qr_sweep_task *task,
                                                     const qr_plane_buffers *buffers, const qr_tile *tile,
                                                     uint32_t parity, qr_plane_tally *tally)
{
    const int64_t row_words = task->rows.row_words;
    const uint64_t *plane = buffers->current[0];
    int64_t at = tile->first;
    qr_sweep_rows rows;
    rows.south = qr_load_row<2>(plane + at - row_words, tile->outer);
    rows.middle = qr_load_row<2>(plane + at, tile->outer);
    rows.north = parity != 0 ? qr_halve<1>(&rows.south) : qr_halve<0>(&rows.south);
    rows.rest = parity != 0 ? qr_halve<0>(&rows.middle) : qr_halve<1>(&rows.middle);
    rows.south = qr_load_row<2>(plane + at + row_words, tile->outer);
    for (uint32_t left = tile->n_rows; left > 0; left--) {
        qr_row<2> next = rows.south;
        if (left > 1) { /* under way while this row is computed */
            next = qr_load_row<2>(plane + at + 2 * row_words, tile->outer);
        }
        uint64_t below;
        if (parity != 0) {
            below = qr_sweep_row<1, METROPOLIS>(part, task, tile->inside, at, (uint32_t)buffers->step, &rows);
        } else {
            below = qr_sweep_row<0, METROPOLIS>(part, task, tile->inside, at, (uint32_t)buffers->step, &rows);
        }
        if (tile->inside) {
            qr_store_row<1, 2>(buffers, at, rows.middle.word);
            if (task->last) {
                tally->votes[1] += qr_popcount64(rows.middle.word[0]) + qr_popcount64(rows.middle.word[1]);
            }
        }
        rows.north = rows.rest;
        rows.rest = below;
        rows.middle = rows.south;
        rows.south = next;
        parity ^= 1u;
        at += row_words;
    }
}

#endif
