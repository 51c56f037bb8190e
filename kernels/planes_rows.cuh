/* Bit planes of two-dimensional lattices whose rows are whole words. A warp takes a tile: WORDS words a lane side by
 * side, and row by row downwards, so that each row is read once and is north, middle and south in turn. Bits come from
 * neighbouring lanes, for the outer lanes from memory. */
#ifndef QR_PLANES_ROWS_CUH
#define QR_PLANES_ROWS_CUH

#include "planes_word.cuh"

typedef struct qr_rows_task {
    qr_plane_keys keys;
    int64_t n_words; /* own words: */
    int64_t head;    /* so many before the first whole row, */
    int64_t n_rows;  /* whole rows, and the rest */
    int64_t row_words;
    uint32_t rows_at_once; /* of a tile */
    uint32_t tiles_across;
    uint32_t n_tiles;
} qr_rows_task;

/* Rows that a warp loads before it computes, and blocks that a multiprocessor is to hold: together they keep enough
 * loads in flight to cover the memory's latency, within the registers there are. */
static constexpr __host__ __device__ int qr_rows_in_flight(bool voter, bool square, int planes, bool plain)
{
    return !plain || planes > 2 || (planes == 2 && square) ? 1 : planes == 2 || (voter && square) ? 2 : 4;
}

static constexpr __host__ __device__ int qr_blocks_wanted(bool voter, bool square, int planes)
{
    return square && planes > (voter ? 3 : 1) ? 1 : voter || square || planes > 1 ? 2 : 3;
}

/* What a lane holds of a row. */
template <int WORDS> struct qr_row {
    uint64_t word[WORDS];
    uint32_t west; /* the 32 agents before them, in the outer lanes only until qr_meet has been called; */
    uint32_t east; /* and behind them */
};

/* Where a lane's words are, in words from the start of the own agents. */
typedef struct qr_tile {
    int64_t first; /* words of the topmost row; its first agents are the tile's first in lane 0 */
    int64_t outer; /* what an outer lane sees beyond the tile, in half words from `first` */
    uint32_t n_rows;
    bool inside; /* the lane has words to update; others only bring what is east of the last of these */
} qr_tile;

template <int WORDS> static __device__ __forceinline__ qr_row<WORDS> qr_load_row(const uint64_t *at, int64_t outer)
{
    const uint32_t lane = threadIdx.x % 32u;
    qr_row<WORDS> row;
    if (WORDS == 2) {
        ulonglong2 both = QR_READ_WORD((const ulonglong2 *)at);
        row.word[0] = both.x;
        row.word[WORDS - 1] = both.y;
    } else {
        row.word[0] = QR_READ_WORD(at);
    }
    row.west = 0;
    if (lane == 0 || lane == 31u) {
        row.west = QR_READ_WORD((const uint32_t *)at + outer);
    }
    row.east = row.west;
    return row;
}

/* Each lane learns what its neighbours have. */
template <int WORDS> static __device__ __forceinline__ void qr_meet(qr_row<WORDS> *row)
{
    const uint32_t lane = threadIdx.x % 32u;
    uint32_t west = __shfl_up_sync(~0u, (uint32_t)(row->word[WORDS - 1] >> 32), 1);
    uint32_t east = __shfl_down_sync(~0u, (uint32_t)row->word[0], 1);
    row->west = lane == 0 ? row->west : west;
    row->east = lane == 31u ? row->east : east;
}

/* The agents west, and east, of those of word w. */
template <int WORDS> static __device__ __forceinline__ uint64_t qr_west_of(const qr_row<WORDS> *row, int w)
{
    uint32_t low = (uint32_t)row->word[w];
    uint32_t high = (uint32_t)(row->word[w] >> 32);
    uint32_t before = w == 0 ? row->west : (uint32_t)(row->word[w > 0 ? w - 1 : 0] >> 32);
    return (uint64_t)__funnelshift_l(low, high, 1) << 32 | __funnelshift_l(before, low, 1);
}

template <int WORDS> static __device__ __forceinline__ uint64_t qr_east_of(const qr_row<WORDS> *row, int w)
{
    uint32_t low = (uint32_t)row->word[w];
    uint32_t high = (uint32_t)(row->word[w] >> 32);
    uint32_t behind = w == WORDS - 1 ? row->east : (uint32_t)row->word[w + 1 < WORDS ? w + 1 : w];
    return (uint64_t)__funnelshift_r(high, behind, 1) << 32 | __funnelshift_r(low, high, 1);
}

/* The votes of the neighbours of word w, in the network's order. */
template <bool SQUARE, int WORDS>
static __device__ __forceinline__ void qr_see_row(const qr_row<WORDS> *north, const qr_row<WORDS> *middle,
                                                  const qr_row<WORDS> *south, int w, uint64_t *neighbour)
{
    if (SQUARE) {
        neighbour[0] = qr_west_of(north, w);
        neighbour[1] = north->word[w];
        neighbour[2] = qr_east_of(north, w);
        neighbour[3] = qr_west_of(middle, w);
        neighbour[4] = qr_east_of(middle, w);
        neighbour[5] = qr_west_of(south, w);
        neighbour[6] = south->word[w];
        neighbour[7] = qr_east_of(south, w);
    } else {
        neighbour[0] = north->word[w];
        neighbour[1] = qr_west_of(middle, w);
        neighbour[2] = qr_east_of(middle, w);
        neighbour[3] = south->word[w];
    }
}

template <int PLANES, int WORDS>
static __device__ __forceinline__ void qr_store_row(const qr_plane_buffers *buffers, int64_t at, const uint64_t *votes)
{
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        if (WORDS == 2) {
            *(ulonglong2 *)(buffers->next[p] + at) = make_ulonglong2(votes[p], votes[(WORDS - 1) * PLANES + p]);
        } else {
            buffers->next[p][at] = votes[p];
        }
    }
}

/* Updates the lane's words of the row in the middle, at own word `at`. */
template <bool VOTER, bool SQUARE, int PLANES, int WORDS, bool PLAIN>
static __device__ __forceinline__ void qr_advance_row(const qr_part *part, const qr_plane_keys *keys,
                                                      const qr_plane_buffers *buffers, int64_t at, bool inside,
                                                      const qr_row<WORDS> *north, const qr_row<WORDS> *middle,
                                                      const qr_row<WORDS> *south, qr_plane_tally *tally)
{
    constexpr int DEGREE = SQUARE ? 8 : 4;
    constexpr uint32_t N_CHOICE = SQUARE ? 3 : 2;
    uint64_t votes[WORDS * PLANES];
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
        uint64_t choice[4];
        uint64_t own[PLANES];
        if (VOTER) {
            qr_draw_choice(keys, (uint64_t)(part->first / QR_DEVICE_GROUP + at + w), buffers->step, N_CHOICE, choice);
        }
        uint64_t neighbour[PLANES * DEGREE];
#pragma unroll
        for (int p = 0; p < PLANES; p++) {
            uint64_t *near = neighbour + p * DEGREE;
            qr_see_row<SQUARE, WORDS>(&north[p], &middle[p], &south[p], w, near);
            own[p] = middle[p].word[w];
            if (VOTER) {
                votes[w * PLANES + p] = qr_voter_word(near, choice, N_CHOICE);
            } else if (PLANES == 1) {
                votes[w * PLANES + p] = qr_majority_word(near, DEGREE, own[p]);
            }
        }
        if (!VOTER && PLANES > 1) {
            qr_majority_options_word(neighbour, DEGREE, own, PLANES, part->rule.n_options, votes + w * PLANES);
        }
        if (!PLAIN) {
            qr_keep_and_disturb<PLANES>(part, (at + w) * QR_DEVICE_GROUP, inside ? ~(uint64_t)0 : 0, buffers->step, own,
                                        votes + w * PLANES);
        }
    }
    if (inside) {
        qr_store_row<PLANES, WORDS>(buffers, at, votes);
#pragma unroll
        for (int w = 0; w < WORDS; w++) {
            if (PLANES == 1) { /* who votes for 0 is what is left */
                tally->votes[1] += qr_popcount64(votes[w]);
            } else {
                qr_count_word<PLANES>(votes + w * PLANES, ~(uint64_t)0, part->rule.n_options, tally);
            }
        }
    }
}

/* The first voters of options that the warp has met for the first time, by looking again at what it has written. */
template <int PLANES, int WORDS>
static __device__ __forceinline__ void qr_look_again(const qr_part *part, const qr_rows_task *task,
                                                     const qr_plane_buffers *buffers, const qr_tile *tile,
                                                     const qr_plane_tally *tally, uint32_t *seen, qr_block_tally *block)
{
    const uint32_t n_options = part->rule.n_options;
    uint32_t found = 0;
#pragma unroll
    for (uint32_t k = 0; k < 1u << PLANES; k++) {
        found |= (tally->votes[k] != 0 ? 1u : 0u) << k;
    }
    found = __reduce_or_sync(~0u, found) & ~*seen;
    const int64_t corner = __shfl_sync(~0u, tile->first, 0);
    const uint64_t best = qr_leader_pack(0, part->first + corner * QR_DEVICE_GROUP); /* that the tile may have */
    for (uint32_t k = 0; k < n_options; k++) {
        bool late = *(volatile unsigned long long *)&block->leader[k] > best;
        if (__ballot_sync(~0u, late) != 0 && (found >> k & 1u) != 0) {
            *seen |= 1u << k;
        }
    }
    const uint64_t valid[2] = {tile->inside ? ~(uint64_t)0 : 0, tile->inside ? ~(uint64_t)0 : 0};
    for (uint32_t r = 0; r < tile->n_rows && (found & ~*seen) != 0; r++) {
        const int64_t at = tile->first + (int64_t)r * task->row_words;
        uint64_t votes[WORDS * PLANES];
#pragma unroll
        for (int i = 0; i < WORDS * PLANES; i++) {
            votes[i] = tile->inside ? buffers->next[i % PLANES][at + i / PLANES] : 0;
        }
        qr_note_leaders<PLANES, WORDS>(votes, valid, part->first + at * QR_DEVICE_GROUP, n_options, seen, block);
    }
}

/* Own words of rows that are not whole: agents of other parts stand in the same rows. */
template <bool VOTER, int DEGREE, int PLANES, bool PLAIN>
static __device__ __noinline__ void qr_update_rests(const qr_part *part, const qr_rows_task *task,
                                                    qr_block_tally *block)
{
    const int64_t whole = task->n_rows * task->row_words;
    const int64_t n_rests = task->n_words - whole;
    qr_plane_buffers buffers;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    qr_open_buffers(part, &buffers);
    int64_t i = (int64_t)blockIdx.x * QR_PLANES_THREADS + threadIdx.x;
    for (; i - threadIdx.x % 32u < n_rests; i += (int64_t)gridDim.x * QR_PLANES_THREADS) {
        const int64_t index = (i < task->head ? i : i + whole) * QR_DEVICE_GROUP;
        const uint64_t valid = i < n_rests ? ~(uint64_t)0 : 0;
        uint64_t votes[PLANES] = {};
        if (i < n_rests) {
            int64_t x;
            (void)qr_divide(part->first + index, part->lattice.size[0], &x);
            qr_update_word<VOTER, DEGREE, PLANES, PLAIN>(part, &task->keys, &buffers, index, valid, x, 0, votes);
            qr_count_word<PLANES>(votes, valid, part->rule.n_options, &tally);
        }
        __syncwarp();
        qr_note_leaders<PLANES, 1>(votes, &valid, part->first + index, part->rule.n_options, &seen, block);
    }
    qr_add_up<PLANES>(&tally, part->rule.n_options, block);
}

/* Tile number `number`. */
template <int WORDS> static __device__ __forceinline__ qr_tile qr_find_tile(const qr_rows_task *task, uint32_t number)
{
    const uint32_t lane = threadIdx.x % 32u;
    const uint32_t band = number / task->tiles_across;
    const int64_t row = (int64_t)band * task->rows_at_once;
    const int64_t left = task->n_rows - row;
    int64_t column = ((int64_t)(number - band * task->tiles_across) * 32 + lane) * WORDS;
    qr_tile tile;
    tile.inside = column < task->row_words;
    column = tile.inside ? column : 0; /* what is east of the last one */
    tile.first = task->head + row * task->row_words + column;
    tile.n_rows = left < task->rows_at_once ? (uint32_t)left : task->rows_at_once;
    if (lane == 0) {
        tile.outer = 2 * (column == 0 ? task->row_words - 1 : -1) + 1;
    } else {
        tile.outer = 2 * (column + WORDS >= task->row_words ? -column : WORDS);
    }
    return tile;
}

/* The next ROWS rows of a tile; north and middle move on with them. */
template <bool VOTER, bool SQUARE, int PLANES, int WORDS, bool PLAIN, int ROWS>
static __device__ __forceinline__ void
qr_advance_rows(const qr_part *part, const qr_rows_task *task, const qr_plane_buffers *buffers, const qr_tile *tile,
                int64_t at, qr_row<WORDS> *north, qr_row<WORDS> *middle, qr_plane_tally *tally)
{
    qr_row<WORDS> south[ROWS][PLANES];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int p = 0; p < PLANES; p++) {
            south[r][p] = qr_load_row<WORDS>(buffers->current[p] + at + (r + 1) * task->row_words, tile->outer);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int p = 0; p < PLANES; p++) {
            qr_meet(SQUARE ? &south[r][p] : &middle[p]);
        }
        qr_advance_row<VOTER, SQUARE, PLANES, WORDS, PLAIN>(part, &task->keys, buffers, at + r * task->row_words,
                                                            tile->inside, north, middle, south[r], tally);
#pragma unroll
        for (int p = 0; p < PLANES; p++) {
            north[p] = middle[p];
            middle[p] = south[r][p];
        }
    }
}

template <bool VOTER, bool SQUARE, int PLANES, int WORDS, bool PLAIN>
static __device__ __forceinline__ void qr_update_tile(const qr_part *part, const qr_rows_task *task,
                                                      const qr_plane_buffers *buffers, const qr_tile *tile,
                                                      qr_plane_tally *tally)
{
    constexpr int ROWS = qr_rows_in_flight(VOTER, SQUARE, PLANES, PLAIN);
    qr_row<WORDS> north[PLANES];
    qr_row<WORDS> middle[PLANES];
    int64_t at = tile->first;
    uint32_t left = tile->n_rows;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        north[p] = qr_load_row<WORDS>(buffers->current[p] + at - task->row_words, tile->outer);
        middle[p] = qr_load_row<WORDS>(buffers->current[p] + at, tile->outer);
        if (SQUARE) {
            qr_meet(&north[p]);
            qr_meet(&middle[p]);
        }
    }
    for (; left >= ROWS; left -= ROWS) {
        qr_advance_rows<VOTER, SQUARE, PLANES, WORDS, PLAIN, ROWS>(part, task, buffers, tile, at, north, middle, tally);
        at += ROWS * task->row_words;
    }
    for (; ROWS > 1 && left > 0; left--) {
        qr_advance_rows<VOTER, SQUARE, PLANES, WORDS, PLAIN, 1>(part, task, buffers, tile, at, north, middle, tally);
        at += task->row_words;
    }
}

template <bool VOTER, bool SQUARE, int PLANES, int WORDS, bool PLAIN>
static __global__ void __launch_bounds__(QR_PLANES_THREADS, qr_blocks_wanted(VOTER, SQUARE, PLANES))
    update_rows(const __grid_constant__ qr_part part, const __grid_constant__ qr_rows_task task)
{
    __shared__ qr_block_tally block;
    const uint32_t stopped = part.control->stopped;
    const uint32_t n_options = part.rule.n_options;
    const uint32_t warps = QR_PLANES_THREADS / 32u;
    qr_plane_buffers buffers;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    qr_open_buffers(&part, &buffers); /* read in one go with what says whether to go on */
    if (stopped) {
        return;
    }
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        buffers.current[p] += part.before / QR_DEVICE_GROUP;
        buffers.next[p] += part.before / QR_DEVICE_GROUP;
    }
    qr_tally_clear(&block, n_options);
    if (task.n_words > task.n_rows * task.row_words) {
        qr_update_rests<VOTER, SQUARE ? 8 : 4, PLANES, PLAIN>(&part, &task, &block);
    }
    for (uint32_t t = blockIdx.x * warps + threadIdx.x / 32u; t < task.n_tiles; t += gridDim.x * warps) {
        const qr_tile tile = qr_find_tile<WORDS>(&task, t);
        const uint32_t before = tally.votes[1];
        qr_update_tile<VOTER, SQUARE, PLANES, WORDS, PLAIN>(&part, &task, &buffers, &tile, &tally);
        if (PLANES == 1 && tile.inside) {
            tally.votes[0] += tile.n_rows * (WORDS * QR_DEVICE_GROUP) - (tally.votes[1] - before);
        }
        if (seen != (1u << n_options) - 1u) {
            qr_look_again<PLANES, WORDS>(&part, &task, &buffers, &tile, &tally, &seen, &block);
        }
    }
    qr_add_up<PLANES>(&tally, n_options, &block);
    qr_tally_finish(&part, &block);
}

#endif
