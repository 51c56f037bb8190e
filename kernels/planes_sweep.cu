/* Sweeps on bit planes (planes_sweep.cuh). Chessboards whose rows are whole pairs of words go by tiles, all other
 * lattices and rings word by word. */
#include "planes_sweep.cuh"

/* A thread a word. */
template <int DEGREE>
static __global__ void __launch_bounds__(QR_PLANES_THREADS)
    sweep_words(const __grid_constant__ qr_part part, const __grid_constant__ qr_sweep_task task)
{
    __shared__ qr_block_tally block;
    const uint32_t n_options = part.rule.n_options;
    const int64_t width = part.lattice.size[0];
    const int64_t height = part.lattice.size[1];
    const int64_t step = part.control->step + 1;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    int64_t x = 0;
    int64_t y = 0;
    int64_t word = (int64_t)blockIdx.x * QR_PLANES_THREADS + threadIdx.x;
    if (part.control->stopped) {
        return;
    }
    qr_tally_clear(&block, n_options);
    if (part.lattice.dims > 1) {
        (void)qr_divide(qr_divide(part.first + word * QR_DEVICE_GROUP, width, &x), height, &y);
    }
    for (; word - threadIdx.x % 32u < task.rows.n_words; word += (int64_t)gridDim.x * QR_PLANES_THREADS) {
        const int64_t index = word * QR_DEVICE_GROUP;
        uint64_t votes = 0;
        uint64_t valid = 0;
        if (word < task.rows.n_words) {
            valid = qr_bit_range(0, part.count - index);
            votes = qr_sweep_word<DEGREE>(&part, &task, part.plane[0][0], step, index, valid, x, y);
        }
        __syncwarp();
        if (task.last) {
            qr_count_word<1>(&votes, valid, n_options, &tally);
            qr_note_leaders<1, 1>(&votes, &valid, part.first + index, n_options, &seen, &block);
        }
        x += task.step_x;
        y += task.step_y;
        if (x >= width) {
            x -= width;
            y++;
        }
        y -= y >= height ? height : 0;
    }
    if (task.last) {
        qr_add_up<1>(&tally, n_options, &block);
        qr_tally_finish(&part, &block);
    }
}

/* Own words of rows that are not whole. */
static __device__ __noinline__ void sweep_rests(const qr_part *part, const qr_sweep_task *task, int64_t step,
                                                qr_block_tally *block)
{
    const int64_t whole = task->rows.n_rows * task->rows.row_words;
    const int64_t n_rests = task->rows.n_words - whole;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    int64_t i = (int64_t)blockIdx.x * QR_PLANES_THREADS + threadIdx.x;
    for (; i - threadIdx.x % 32u < n_rests; i += (int64_t)gridDim.x * QR_PLANES_THREADS) {
        const int64_t index = (i < task->rows.head ? i : i + whole) * QR_DEVICE_GROUP;
        const uint64_t valid = i < n_rests ? ~(uint64_t)0 : 0;
        uint64_t votes = 0;
        if (i < n_rests) {
            int64_t x;
            (void)qr_divide(part->first + index, part->lattice.size[0], &x);
            votes = qr_sweep_word<4>(part, task, part->plane[0][0], step, index, valid, x, 0);
        }
        __syncwarp();
        if (task->last) {
            qr_count_word<1>(&votes, valid, part->rule.n_options, &tally);
            qr_note_leaders<1, 1>(&votes, &valid, part->first + index, part->rule.n_options, &seen, block);
        }
    }
    qr_add_up<1>(&tally, part->rule.n_options, block);
}

template <bool METROPOLIS>
static __global__ void __launch_bounds__(QR_PLANES_THREADS, 3)
    sweep_rows(const __grid_constant__ qr_part part, const __grid_constant__ qr_sweep_task task)
{
    __shared__ qr_block_tally block;
    const uint32_t n_options = part.rule.n_options;
    const uint32_t warps = QR_PLANES_THREADS / 32u;
    qr_plane_buffers buffers;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    buffers.step = part.control->step + 1;
    buffers.current[0] = part.plane[0][0] + part.before / QR_DEVICE_GROUP;
    buffers.next[0] = part.plane[0][0] + part.before / QR_DEVICE_GROUP;
    if (part.control->stopped) {
        return;
    }
    qr_tally_clear(&block, n_options);
    if (task.rows.n_words > task.rows.n_rows * task.rows.row_words) {
        sweep_rests(&part, &task, buffers.step, &block);
    }
    for (uint32_t t = blockIdx.x * warps + threadIdx.x / 32u; t < task.rows.n_tiles; t += gridDim.x * warps) {
        const qr_tile tile = qr_find_tile<2>(&task.rows, t);
        const uint32_t before = tally.votes[1];
        const uint32_t row = t / task.rows.tiles_across * task.rows.rows_at_once;
        qr_sweep_tile<METROPOLIS>(&part, &task, &buffers, &tile, (task.parity + row) & 1u, &tally);
        if (!task.last) {
            continue;
        }
        if (tile.inside) {
            tally.votes[0] += tile.n_rows * (2 * QR_DEVICE_GROUP) - (tally.votes[1] - before);
        }
        if (seen != (1u << n_options) - 1u) {
            qr_look_again<1, 2>(&part, &task.rows, &buffers, &tile, &tally, &seen, &block);
        }
    }
    if (task.last) {
        qr_add_up<1>(&tally, n_options, &block);
        qr_tally_finish(&part, &block);
    }
}

static qr_sweep_task make_task(const qr_part *part, int colour, int last_colour)
{
    qr_sweep_task task = {};
    qr_plane_keys_set(&task.rows.keys, part->rule.seed);
    task.rows.n_words = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    task.colour = colour;
    task.last = last_colour;
    return task;
}

template <int DEGREE> static void launch_words(const qr_part *part, qr_sweep_task task, cudaStream_t stream)
{
    int64_t resident = qr_resident_blocks(part, (const void *)sweep_words<DEGREE>);
    int64_t blocks = (task.rows.n_words + QR_PLANES_THREADS - 1) / QR_PLANES_THREADS;
    blocks = blocks < 1 ? 1 : blocks > resident ? resident : blocks;
    if (part->lattice.dims > 1) {
        int64_t rows = qr_divide(blocks * QR_PLANES_THREADS * QR_DEVICE_GROUP, part->lattice.size[0], &task.step_x);
        (void)qr_divide(rows, part->lattice.size[1], &task.step_y);
    }
    sweep_words<DEGREE><<<(unsigned)blocks, QR_PLANES_THREADS, 0, stream>>>(*part, task);
}

static void launch_any(const qr_part *part, const qr_sweep_task *task, cudaStream_t stream)
{
    switch (part->n_offsets) {
    case 2: launch_words<2>(part, *task, stream); break;
    case 4: launch_words<4>(part, *task, stream); break;
    case 6: launch_words<6>(part, *task, stream); break;
    case 8: launch_words<8>(part, *task, stream); break;
    case 10: launch_words<10>(part, *task, stream); break;
    case 12: launch_words<12>(part, *task, stream); break;
    case 14: launch_words<14>(part, *task, stream); break;
    case 16: launch_words<16>(part, *task, stream); break;
    case 18: launch_words<18>(part, *task, stream); break;
    case 20: launch_words<20>(part, *task, stream); break;
    case 22: launch_words<22>(part, *task, stream); break;
    case 24: launch_words<24>(part, *task, stream); break;
    default: launch_words<26>(part, *task, stream); break;
    }
}

/* Two colours, rows of whole pairs of words, and more than half of a warp's lanes with something to do. */
static bool goes_by_tiles(const qr_part *part)
{
    const int64_t row_words = part->lattice.size[0] / QR_DEVICE_GROUP;
    if (part->lattice.dims != 2 || part->lattice.moore || part->lattice.n_colours != 2 ||
        part->lattice.size[0] % (2 * QR_DEVICE_GROUP) != 0 || row_words <= 32) {
        return false;
    }
    const int64_t first = part->before / QR_DEVICE_GROUP + qr_words_before_rows(part);
    return (uintptr_t)(part->plane[0][0] + first) % 16 == 0;
}

template <bool METROPOLIS> static void launch_tiles(const qr_part *part, qr_sweep_task task, cudaStream_t stream)
{
    const int64_t warps = QR_PLANES_THREADS / 32;
    task.rows.row_words = part->lattice.size[0] / QR_DEVICE_GROUP;
    task.rows.head = qr_words_before_rows(part);
    task.rows.n_rows = (task.rows.n_words - task.rows.head) / task.rows.row_words;
    int64_t first_row = (part->first / QR_DEVICE_GROUP + task.rows.head) / task.rows.row_words;
    task.parity = (uint32_t)(first_row + task.colour) & 1u;
    for (uint32_t p = 0; p < QR_POTTS_PLANES; p++) {
        const uint32_t shift = QR_POTTS_PLANES - 1u - p;
        task.agreed[p] = 0u - (part->rule.against[0] >> shift & 1u);
        task.differs[p] = task.agreed[p] ^ (0u - (part->rule.against[1] >> shift & 1u));
    }
    int64_t resident = qr_resident_blocks(part, (const void *)sweep_rows<METROPOLIS>);
    qr_set_tiles(&task.rows, 2, resident * warps);
    int64_t blocks = (task.rows.n_tiles + warps - 1) / warps;
    blocks = blocks < 1 ? 1 : blocks > resident ? resident : blocks;
    sweep_rows<METROPOLIS><<<(unsigned)blocks, QR_PLANES_THREADS, 0, stream>>>(*part, task);
}

extern "C" void qr_launch_planes_sweep(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    const qr_sweep_task task = make_task(part, colour, last_colour);
    if (!goes_by_tiles(part)) {
        launch_any(part, &task, stream);
    } else if (part->rule.metropolis != 0u) {
        launch_tiles<true>(part, task, stream);
    } else {
        launch_tiles<false>(part, task, stream);
    }
}
