/* What the neighbours of a tile of agents vote for, a lane an agent: counts of options in bytes of one or two
 * registers, and positions by addition wherever a tile's neighbours are at plain distances. */
#ifndef QR_NEURAL_GATHER_CUH
#define QR_NEURAL_GATHER_CUH

#include "device.h"

/* What a kernel is compiled for: any network, complete ones, or lattices of two and three dimensions. Less code in
 * between leaves more of what is run in the instruction cache: 6 %. */
enum { QR_ANY_NETWORK, QR_COMPLETE_NETWORK, QR_GRID };

enum {
    QR_COUNT_OPTIONS = 16, /* at most */
    QR_COUNT_DEGREE = 255
};

/* counts[k / 8]: how many neighbours vote for k, in byte k % 8. WIDE: there are more than 8 options. */
typedef struct qr_counts {
    uint64_t counts[2];
    uint32_t degree;
} qr_counts;

template <bool WIDE>
static __device__ __forceinline__ void qr_count_one(const uint8_t *votes, uint32_t packing, int64_t position,
                                                    uint64_t counts[2])
{
    const uint32_t vote = qr_packed_vote(votes, packing, position);
    const uint64_t one = (uint64_t)1 << (8u * (vote % 8u));
    counts[0] += !WIDE || vote < 8u ? one : 0;
    if (WIDE) {
        counts[1] += vote < 8u ? 0 : one;
    }
}

/* Whether the neighbours of agent tile + lane are at the plain distances. Divides for the tile alone where a tile
 * spans two rows at most. */
static __device__ __forceinline__ bool qr_lane_inside(const qr_lattice *lattice, int64_t tile, uint32_t lane)
{
    const int64_t width = lattice->size[0];
    const int64_t height = lattice->size[1];
    int64_t x;
    int64_t row;
    int64_t y;
    if (width >= 32) {
        row = qr_divide(tile, width, &x);
        x += lane;
        row += x >= width ? 1 : 0;
        x -= x >= width ? width : 0;
    } else {
        row = qr_divide(tile + lane, width, &x);
    }
    const bool inside = x > 0 && x + 1 < width;
    if (lattice->dims == 2) {
        return inside && (lattice->periodic || (row > 0 && row + 1 < height));
    }
    const int64_t z = qr_divide(row, height, &y);
    return inside && y > 0 && y + 1 < height && (lattice->periodic || (z > 0 && z + 1 < lattice->size[2]));
}

/* Neighbours of an agent of a list. False for more of them than a byte counts. */
template <bool WIDE>
static __device__ __forceinline__ bool qr_count_list(const qr_part *part, const uint8_t *votes, int64_t index,
                                                     qr_counts *near)
{
    enum { AT_ONCE = 8 };
    const int64_t begin = part->row[index];
    const int64_t degree = part->row[index + 1] - begin;
    const uint32_t *list = part->neighbour + begin;
    const uint32_t packing = part->packing;
    if (degree > QR_COUNT_DEGREE) {
        return false;
    }
    near->degree = (uint32_t)degree;
    for (uint32_t j = 0; j < near->degree; j += AT_ONCE) {
        uint32_t position[AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            position[i] = j + i < near->degree ? list[j + i] : 0;
        }
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            if (j + i < near->degree) {
                qr_count_one<WIDE>(votes, packing, position[i], near->counts);
            }
        }
    }
    return true;
}

/* Neighbours of own agent first + lane, in whatever network but a complete one. False, for all lanes alike, where some
 * agent has more of them than a byte counts. All lanes; those without an agent count nothing. */
/* The same for an agent whose neighbours are not all at the plain distances. */
template <bool WIDE>
static __device__ __noinline__ void qr_count_border(const qr_part *part, const uint8_t *votes, int64_t index,
                                                    qr_counts *near)
{
    int64_t positions[QR_LATTICE_MAX_NEIGHBOURS];
    near->degree = (uint32_t)qr_lattice_positions(&part->lattice, part->first + index, part->before + index, positions);
    for (uint32_t j = 0; j < near->degree; j++) {
        qr_count_one<WIDE>(votes, part->packing, positions[j], near->counts);
    }
}

template <bool WIDE, int NETWORK>
static __device__ __forceinline__ bool qr_count_near(const qr_part *part, const uint8_t *votes, int64_t first,
                                                     qr_counts *near)
{
    const uint32_t lane = threadIdx.x % 32u;
    const int64_t index = first + lane;
    const bool mine = index < part->count;
    const int64_t self = part->before + index;
    const uint32_t packing = part->packing;
    near->counts[0] = 0;
    near->counts[1] = 0;
    near->degree = 0;
    if (NETWORK != QR_GRID && part->row != 0) {
        bool fits = !mine || qr_count_list<WIDE>(part, votes, index, near);
        return __all_sync(~0u, fits) != 0;
    }
    if (NETWORK != QR_GRID && part->lattice.dims == 1) {
        const int32_t reach = (int32_t)part->lattice.reach;
        if (part->lattice.reach > QR_COUNT_DEGREE / 2) {
            return false;
        }
        near->degree = mine ? 2u * (uint32_t)reach : 0u;
        for (int32_t j = 1; mine && j <= reach; j++) {
            qr_count_one<WIDE>(votes, packing, self - j, near->counts);
            qr_count_one<WIDE>(votes, packing, self + j, near->counts);
        }
        return true;
    }
    const bool inside = qr_lane_inside(&part->lattice, part->first + first, lane);
    if (mine && inside) {
        near->degree = (uint32_t)part->n_offsets;
#pragma unroll 4
        for (int32_t j = 0; j < part->n_offsets; j++) {
            qr_count_one<WIDE>(votes, packing, self + part->offset[j].distance, near->counts);
        }
    } else if (mine) {
        qr_counts border = *near; /* so that `near` stays in registers */
        qr_count_border<WIDE>(part, votes, index, &border);
        *near = border;
    }
    __syncwarp();
    return true;
}

/* How many vote for option k; a number known when compiled makes it a byte's extraction. */
static __device__ __forceinline__ uint32_t qr_count_of(const qr_counts *near, uint32_t k)
{
    return (uint32_t)(near->counts[k / 8u] >> (8u * (k % 8u))) & 0xffu;
}

/* count / degree, rounded as a division is, from the degree's rounded reciprocal. Right for every count <= degree <=
 * 255 (a few thousand cases, all of them tried); 0 for degree 0. */
static __device__ __forceinline__ float qr_share_of(uint32_t count, float degree, float reciprocal)
{
    const float quotient = (float)count * reciprocal;
    return __fmaf_rn(__fmaf_rn(-degree, quotient, (float)count), reciprocal, quotient);
}

#endif
