/* Packed votes: every rule on every network, a thread an agent. A block takes chunks of groups of 64 agents: first the
 * bit planes of all its groups, then the agents. */
#include "packed_step.cuh"

template <int KIND>
static __global__ void __launch_bounds__(QR_PACKED_THREADS)
    update_packed(const __grid_constant__ qr_part part, int colour, int last_colour, int64_t groups_at_once)
{
    __shared__ qr_packed_shared shared;
    __shared__ int64_t before[QR_DEVICE_OPTIONS]; /* votes of all agents; complete networks */
    const qr_control *control = part.control;
    if (control->stopped) {
        return;
    }
    const qr_rule *rule = &part.rule;
    const int64_t step = control->step + 1;
    const uint8_t *votes = part.packed[control->current];
    uint8_t *next = part.packed[part.sweeps ? control->current : control->current ^ 1u];
    const int64_t n_groups = (part.count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    for (uint32_t k = threadIdx.x; part.complete && k < rule->n_options; k += blockDim.x) {
        before[k] = control->votes[k];
    }
    qr_tally_clear(&shared.tally, rule->n_options);
    for (int64_t group = blockIdx.x * groups_at_once; group < n_groups; group += gridDim.x * groups_at_once) {
        int64_t here = n_groups - group < groups_at_once ? n_groups - group : groups_at_once;
        qr_draw_planes(&part, group, here, step, &shared.planes);
        __syncthreads();
        for (int64_t i = threadIdx.x; i < here * QR_DEVICE_GROUP; i += blockDim.x) {
            int64_t index = group * QR_DEVICE_GROUP + i;
            int64_t position = part.before + index;
            bool mine = index < part.count;
            uint32_t vote = position < part.view ? qr_packed_vote(votes, part.packing, position) : 0;
            bool moves = mine && (shared.planes.active[i / QR_DEVICE_GROUP] >> (i % QR_DEVICE_GROUP) & 1u) != 0;
            if (moves && (KIND != QR_KIND_POTTS || qr_has_turn(&part, index, colour))) {
                vote = qr_next_vote<KIND>(&part, &shared, before, votes, index, vote, i / QR_DEVICE_GROUP,
                                          (uint32_t)(i % QR_DEVICE_GROUP), step);
            }
            __syncwarp();
            qr_store_votes(next, part.packing, position - threadIdx.x % 32u, vote);
            if (last_colour) {
                qr_tally_warp(&shared.tally, rule->n_options, vote, __ballot_sync(~0u, mine),
                              part.first + index - threadIdx.x % 32u);
            }
        }
        __syncthreads();
    }
    if (last_colour) {
        qr_tally_gather(&shared.tally, rule->n_options);
        qr_tally_finish(&part, &shared.tally);
    }
}

template <int KIND> static void launch(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    int device = 0;
    int processors = 1;
    int per_processor = 1;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, update_packed<KIND>, QR_PACKED_THREADS, 0);
    processors = processors > part->spare ? processors - part->spare : 1;
    int64_t resident = (int64_t)processors * per_processor;
    int64_t n_groups = (part->count + QR_DEVICE_GROUP - 1) / QR_DEVICE_GROUP;
    int64_t groups_at_once = n_groups / (4 * resident) / QR_PACKED_MIN_GROUPS * QR_PACKED_MIN_GROUPS;
    groups_at_once = groups_at_once < QR_PACKED_MIN_GROUPS ? QR_PACKED_MIN_GROUPS : groups_at_once;
    groups_at_once = groups_at_once > QR_PACKED_MAX_GROUPS ? QR_PACKED_MAX_GROUPS : groups_at_once;
    int64_t chunks = (n_groups + groups_at_once - 1) / groups_at_once;
    int64_t blocks = chunks < resident ? chunks : resident;
    update_packed<KIND><<<(unsigned)(blocks > 0 ? blocks : 1), QR_PACKED_THREADS, 0, stream>>>(
        *part, colour, last_colour, groups_at_once);
}

extern "C" void qr_launch_packed(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    switch (part->kind) {
    case QR_KIND_VOTER: launch<QR_KIND_VOTER>(part, colour, last_colour, stream); break;
    case QR_KIND_MAJORITY: launch<QR_KIND_MAJORITY>(part, colour, last_colour, stream); break;
    case QR_KIND_Q_VOTER: launch<QR_KIND_Q_VOTER>(part, colour, last_colour, stream); break;
    case QR_KIND_POTTS: launch<QR_KIND_POTTS>(part, colour, last_colour, stream); break;
    default: launch<QR_KIND_BEST_OF_N>(part, colour, last_colour, stream); break;
    }
}
