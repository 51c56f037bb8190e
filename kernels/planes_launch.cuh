/* Bit planes: how many blocks and what tiles a kernel is launched with. Host code. */
#ifndef QR_PLANES_LAUNCH_CUH
#define QR_PLANES_LAUNCH_CUH

#include "planes_rows.cuh"

enum { QR_PLANES_MOST_ROWS = 64 };

/* Blocks that fit on the device at once, beside what the part spares. */
static inline int64_t qr_resident_blocks(const qr_part *part, const void *kernel)
{
    int device = 0;
    int processors = 1;
    int per_processor = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, QR_PLANES_THREADS, 0);
    processors = processors > part->spare ? processors - part->spare : 1;
    return (int64_t)processors * (per_processor > 0 ? per_processor : 1);
}

/* Rows of a tile such that the busiest warp has least to read; each tile reads two rows more than it updates. A warp
 * that has several tiles of the same rows would not come by agents in ascending order, unless they are one row. */
static inline void qr_set_tiles(qr_rows_task *task, int words, int64_t n_warps)
{
    int64_t across = (task->row_words + 32 * words - 1) / (32 * words);
    int64_t least = INT64_MAX;
    for (int64_t rows = 1; rows <= QR_PLANES_MOST_ROWS && (rows == 1 || across <= n_warps); rows++) {
        int64_t tiles = (task->n_rows + rows - 1) / rows * across;
        int64_t cost = (tiles + n_warps - 1) / n_warps * (rows + 2);
        if (cost < least) {
            least = cost;
            task->rows_at_once = (uint32_t)rows;
            task->n_tiles = (uint32_t)tiles;
        }
    }
    task->tiles_across = (uint32_t)across;
}

/* Own words before the first whole row. */
static inline int64_t qr_words_before_rows(const qr_part *part)
{
    const int64_t row_words = part->lattice.size[0] / QR_DEVICE_GROUP;
    const int64_t head = (row_words - part->first / QR_DEVICE_GROUP % row_words) % row_words;
    return head < part->count / QR_DEVICE_GROUP ? head : part->count / QR_DEVICE_GROUP;
}

#endif
