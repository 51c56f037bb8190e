/* Bit planes: voter (degree a power of two) and majority (all neighbours) on periodic lattices and rings,
 * 64 agents a word. Lattices of two dimensions whose rows are whole words go by tiles (planes_rows.cuh), all others
 * word by word. Sweeps are in planes_sweep.cu. */
#include "planes_launch.cuh"

/* A thread a word, threads stride upwards. */
typedef struct words_task {
    qr_plane_keys keys;
    int64_t n_words;
    int64_t step_x; /* by how much a thread moves on: columns, */
    int64_t step_y; /* and rows within a layer */
} words_task;

template <bool VOTER, int DEGREE, int PLANES>
static __global__ void __launch_bounds__(QR_PLANES_THREADS)
    update_words(const __grid_constant__ qr_part part, const __grid_constant__ words_task task)
{
    __shared__ qr_block_tally block;
    const uint32_t stopped = part.control->stopped;
    const uint32_t n_options = part.rule.n_options;
    const int64_t width = part.lattice.size[0];
    const int64_t height = part.lattice.size[1];
    qr_plane_buffers buffers;
    qr_plane_tally tally = {};
    uint32_t seen = 0;
    int64_t x = 0;
    int64_t y = 0;
    int64_t word = (int64_t)blockIdx.x * QR_PLANES_THREADS + threadIdx.x;
    qr_open_buffers(&part, &buffers); /* read in one go with what says whether to go on */
    if (stopped) {
        return;
    }
    qr_tally_clear(&block, n_options);
    if (part.lattice.dims > 1) {
        (void)qr_divide(qr_divide(part.first + word * QR_DEVICE_GROUP, width, &x), height, &y);
    }
    for (; word - threadIdx.x % 32u < task.n_words; word += (int64_t)gridDim.x * QR_PLANES_THREADS) {
        const int64_t index = word * QR_DEVICE_GROUP;
        uint64_t votes[PLANES] = {};
        uint64_t valid = 0;
        if (word < task.n_words) {
            valid = qr_bit_range(0, part.count - index);
            qr_update_word<VOTER, DEGREE, PLANES, false>(&part, &task.keys, &buffers, index, valid, x, y, votes);
            qr_count_word<PLANES>(votes, valid, n_options, &tally);
        }
        __syncwarp();
        qr_note_leaders<PLANES, 1>(votes, &valid, part.first + index, n_options, &seen, &block);
        x += task.step_x;
        y += task.step_y;
        if (x >= width) {
            x -= width;
            y++;
        }
        y -= y >= height ? height : 0;
    }
    qr_add_up<PLANES>(&tally, n_options, &block);
    qr_tally_finish(&part, &block);
}

template <bool VOTER, int DEGREE, int PLANES> static void launch_words(const qr_part *part, cudaStream_t stream)
{
    words_task task;
    qr_plane_keys_set(&task.keys, part->rule.seed);
    task.n_words = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    int64_t resident = qr_resident_blocks(part, (const void *)update_words<VOTER, DEGREE, PLANES>);
    int64_t blocks = (task.n_words + QR_PLANES_THREADS - 1) / QR_PLANES_THREADS;
    blocks = blocks < 1 ? 1 : blocks > resident ? resident : blocks;
    int64_t rows = 0;
    task.step_x = 0;
    task.step_y = 0;
    if (part->lattice.dims > 1) {
        rows = qr_divide(blocks * QR_PLANES_THREADS * QR_DEVICE_GROUP, part->lattice.size[0], &task.step_x);
        (void)qr_divide(rows, part->lattice.size[1], &task.step_y);
    }
    update_words<VOTER, DEGREE, PLANES><<<(unsigned)blocks, QR_PLANES_THREADS, 0, stream>>>(*part, task);
}

template <int DEGREE> static void launch_voter_words(const qr_part *part, cudaStream_t stream)
{
    if (part->n_planes == 1) {
        launch_words<true, DEGREE, 1>(part, stream);
    } else {
        launch_words<true, DEGREE, QR_DEVICE_MAX_PLANES>(part, stream);
    }
}

static void launch_any(const qr_part *part, cudaStream_t stream)
{
    if (part->rule.choice_planes > 0) {
        switch (part->n_offsets) {
        case 2: launch_voter_words<2>(part, stream); break;
        case 4: launch_voter_words<4>(part, stream); break;
        case 8: launch_voter_words<8>(part, stream); break;
        default: launch_voter_words<16>(part, stream); break;
        }
        return;
    }
    if (part->n_planes > 1) {
        switch (part->n_offsets) {
        case 2: launch_words<false, 2, QR_DEVICE_MAX_PLANES>(part, stream); break;
        case 4: launch_words<false, 4, QR_DEVICE_MAX_PLANES>(part, stream); break;
        case 6: launch_words<false, 6, QR_DEVICE_MAX_PLANES>(part, stream); break;
        default: launch_words<false, 8, QR_DEVICE_MAX_PLANES>(part, stream); break;
        }
        return;
    }
    switch (part->n_offsets) {
    case 2: launch_words<false, 2, 1>(part, stream); break;
    case 4: launch_words<false, 4, 1>(part, stream); break;
    case 6: launch_words<false, 6, 1>(part, stream); break;
    case 8: launch_words<false, 8, 1>(part, stream); break;
    case 10: launch_words<false, 10, 1>(part, stream); break;
    case 12: launch_words<false, 12, 1>(part, stream); break;
    case 14: launch_words<false, 14, 1>(part, stream); break;
    case 16: launch_words<false, 16, 1>(part, stream); break;
    case 18: launch_words<false, 18, 1>(part, stream); break;
    case 20: launch_words<false, 20, 1>(part, stream); break;
    case 22: launch_words<false, 22, 1>(part, stream); break;
    case 24: launch_words<false, 24, 1>(part, stream); break;
    default: launch_words<false, 26, 1>(part, stream); break;
    }
}

template <bool VOTER, bool SQUARE, int PLANES, int WORDS, bool PLAIN>
static void launch_rows(const qr_part *part, cudaStream_t stream)
{
    const int64_t warps = QR_PLANES_THREADS / 32;
    qr_rows_task task = {};
    qr_plane_keys_set(&task.keys, part->rule.seed);
    task.row_words = part->lattice.size[0] / QR_DEVICE_GROUP;
    task.n_words = part->count / QR_DEVICE_GROUP;
    task.head = qr_words_before_rows(part);
    task.n_rows = (task.n_words - task.head) / task.row_words;
    int64_t resident = qr_resident_blocks(part, (const void *)update_rows<VOTER, SQUARE, PLANES, WORDS, PLAIN>);
    qr_set_tiles(&task, WORDS, resident * warps);
    const int64_t n_rests = task.n_words - task.n_rows * task.row_words;
    int64_t blocks = (task.n_tiles + warps - 1) / warps;
    blocks = blocks * QR_PLANES_THREADS < n_rests ? (n_rests + QR_PLANES_THREADS - 1) / QR_PLANES_THREADS : blocks;
    blocks = blocks < 1 ? 1 : blocks > resident ? resident : blocks;
    update_rows<VOTER, SQUARE, PLANES, WORDS, PLAIN><<<(unsigned)blocks, QR_PLANES_THREADS, 0, stream>>>(*part, task);
}

template <bool VOTER, bool SQUARE, int PLANES, int WORDS>
static void launch_rows_as_disturbed(const qr_part *part, cudaStream_t stream)
{
    if (part->rule.activation >> 32 != 0 && part->rule.noise == 0 && part->frozen == 0) {
        launch_rows<VOTER, SQUARE, PLANES, WORDS, true>(part, stream);
    } else {
        launch_rows<VOTER, SQUARE, PLANES, WORDS, false>(part, stream);
    }
}

template <bool VOTER, int PLANES, int WORDS> static void launch_rows_by_shape(const qr_part *part, cudaStream_t stream)
{
    if (part->lattice.moore) {
        launch_rows_as_disturbed<VOTER, true, PLANES, WORDS>(part, stream);
    } else {
        launch_rows_as_disturbed<VOTER, false, PLANES, WORDS>(part, stream);
    }
}

/* Any number of planes, two words a lane. */
template <bool VOTER> static void launch_rows_of_planes(const qr_part *part, cudaStream_t stream)
{
    switch (part->n_planes) {
    case 1: launch_rows_by_shape<VOTER, 1, 2>(part, stream); break;
    case 2: launch_rows_by_shape<VOTER, 2, 2>(part, stream); break;
    case 3: launch_rows_by_shape<VOTER, 3, 2>(part, stream); break;
    default: launch_rows_by_shape<VOTER, 4, 2>(part, stream); break;
    }
}

/* How many words of a row a lane takes: two where these can be loaded at once; 0 where rows do not suit, or most lanes
 * would have nothing to do. */
static int words_of_a_lane(const qr_part *part)
{
    const int64_t row_words = part->lattice.size[0] / QR_DEVICE_GROUP;
    if (part->lattice.dims != 2 || part->lattice.size[0] % QR_DEVICE_GROUP != 0 || row_words < 17) {
        return 0;
    }
    const int64_t head = qr_words_before_rows(part);
    bool in_pairs = row_words % 2 == 0 && row_words > 32;
    for (int p = 0; p < part->n_planes; p++) {
        for (int buffer = 0; buffer < 2; buffer++) {
            in_pairs =
                in_pairs && (uintptr_t)(part->plane[buffer][p] + part->before / QR_DEVICE_GROUP + head) % 16 == 0;
        }
    }
    return in_pairs ? 2 : part->n_planes == 1 ? 1 : 0;
}

extern "C" void qr_launch_planes(const qr_part *part, cudaStream_t stream)
{
    const bool voter = part->rule.choice_planes > 0;
    switch (words_of_a_lane(part)) {
    case 2:
        if (voter) {
            launch_rows_of_planes<true>(part, stream);
        } else {
            launch_rows_of_planes<false>(part, stream);
        }
        break;
    case 1:
        if (voter) {
            launch_rows_by_shape<true, 1, 1>(part, stream);
        } else {
            launch_rows_by_shape<false, 1, 1>(part, stream);
        }
        break;
    default: launch_any(part, stream); break;
    }
}
