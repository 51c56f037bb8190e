/* Device code that finds out what one agent sees, for every kernel that steps agents one by one. */
#ifndef QR_VIEW_CUH
#define QR_VIEW_CUH

#include "device.h"

/* True where all neighbours are at the plain distances. */
static __device__ __forceinline__ bool qr_is_inside(const qr_lattice *lattice, int64_t agent)
{
    int64_t x;
    int64_t y;
    int64_t row = qr_divide(agent, lattice->size[0], &x);
    bool inside = x > 0 && x + 1 < lattice->size[0];
    if (lattice->dims == 2) {
        return inside && (lattice->periodic || (row > 0 && row + 1 < lattice->size[1]));
    }
    int64_t z = qr_divide(row, lattice->size[1], &y);
    inside = inside && y > 0 && y + 1 < lattice->size[1];
    return inside && (lattice->periodic || (z > 0 && z + 1 < lattice->size[2]));
}

/* True for an own agent whose turn it is in a sweep. */
static __device__ __forceinline__ bool qr_has_turn(const qr_part *part, int64_t index, int colour)
{
    if (part->colour != 0) {
        return part->colour[index] == colour;
    }
    return qr_lattice_colour_of(&part->lattice, part->first + index) == colour;
}

/* What an agent sees. near: room for the votes of an agent at a border. */
static __device__ __forceinline__ void qr_look(const qr_part *part, const uint8_t *votes, int64_t index, uint8_t *near,
                                               qr_view *view)
{
    int64_t self = part->before + index;
    view->votes = votes;
    view->packing = part->packing;
    view->self = self;
    view->own = qr_packed_vote(votes, part->packing, self);
    if (part->row != 0) {
        int64_t row = part->row[index];
        view->list = part->neighbour + row;
        view->degree = part->row[index + 1] - row;
        return;
    }
    if (part->lattice.dims == 1) {
        view->ring_half = part->lattice.reach;
        view->degree = 2 * part->lattice.reach;
        return;
    }
    int64_t agent = part->first + index;
    if (qr_is_inside(&part->lattice, agent)) {
        view->offsets = part->distance;
        view->degree = part->n_offsets;
        return;
    }
    int64_t positions[QR_LATTICE_MAX_NEIGHBOURS];
    int32_t degree = qr_lattice_positions(&part->lattice, agent, self, positions);
    for (int32_t j = 0; j < degree; j++) {
        near[j] = (uint8_t)qr_packed_vote(votes, part->packing, positions[j]);
    }
    view->votes = near;
    view->packing = 0;
    view->degree = degree;
}

/* Bits of the agents of a tile that move, and that ignore their network when they do. Lanes draw side by side. */
template <int AGENTS>
static __device__ __forceinline__ void qr_draw_masks(const qr_part *part, int64_t first, int64_t step, uint32_t *active,
                                                     uint32_t *noisy)
{
    const qr_rule *rule = &part->rule;
    const uint32_t odd = threadIdx.x % 2u;
    const int64_t here = part->count - first < AGENTS ? part->count - first : AGENTS;
    const uint32_t group_bit = (uint32_t)(first % QR_DEVICE_GROUP);
    uint64_t group = (uint64_t)(part->first + first) / QR_DEVICE_GROUP;
    uint64_t coins =
        qr_plane_coins(rule->seed, group, (uint64_t)step, odd != 0 ? QR_STREAM_PLANE_NOISE : QR_STREAM_PLANE_ACTIVATION,
                       odd != 0 ? rule->noise : rule->activation);
    coins = coins >> group_bit & (~(uint64_t)0 >> (64 - here));
    __syncwarp();
    *active = __shfl_sync(~0u, (uint32_t)coins, 0);
    *noisy = __shfl_sync(~0u, (uint32_t)coins, 1);
}

#endif
