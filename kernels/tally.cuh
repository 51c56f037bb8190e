/* Device code that every update kernel ends with: a block's votes and leaders into the part's, and the decision by the
 * last block. */
#ifndef QR_TALLY_CUH
#define QR_TALLY_CUH

#include "device.h"

/* A block's counts in shared memory. 32 bits hold what one block can count in one step: a part has below 2^32 agents
 * per block (parts are bounded by device memory). */
typedef struct qr_block_tally {
    uint32_t votes[QR_DEVICE_OPTIONS];
    unsigned long long leader[QR_DEVICE_OPTIONS];
} qr_block_tally;

static __device__ __forceinline__ void qr_tally_clear(qr_block_tally *tally, uint32_t n_options)
{
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        tally->votes[k] = 0;
        tally->leader[k] = 0;
    }
    __syncthreads();
}

/* One agent's vote. Reads before the atomic maximum: after the first few agents of a block it hardly ever happens. */
static __device__ __forceinline__ void qr_tally_vote(qr_block_tally *tally, uint32_t vote, uint64_t leader)
{
    atomicAdd(&tally->votes[vote], 1u);
    if (leader > *(volatile unsigned long long *)&tally->leader[vote]) {
        atomicMax(&tally->leader[vote], (unsigned long long)leader);
    }
}

/* Winner, quorum, row, next step: by one warp, from votes and leaders of all agents in device memory. */
static __device__ __forceinline__ void qr_decide(const qr_part *part, const unsigned long long *votes,
                                                 const unsigned long long *leaders)
{
    qr_control *control = part->control;
    uint32_t n_options = part->rule.n_options;
    uint32_t lane = threadIdx.x % 32u;
    int64_t step = control->step + 1;
    int64_t at = step - control->rows_from - 1;
    int64_t best_votes = -1;
    uint32_t best = 0;
    for (uint32_t k = lane; k < n_options; k += 32u) {
        int64_t here = (int64_t)__ldcg(&votes[k]);
        control->votes[k] = here;
        if (at < QR_DEVICE_ROWS) {
            part->row_votes[at * n_options + k] = here;
        }
        if (here > best_votes) {
            best_votes = here;
            best = k;
        }
    }
    for (uint32_t distance = 16; distance > 0; distance /= 2) {
        int64_t other_votes = __shfl_xor_sync(~0u, best_votes, distance);
        uint32_t other = __shfl_xor_sync(~0u, best, distance);
        if (other_votes > best_votes || (other_votes == best_votes && other < best)) {
            best_votes = other_votes;
            best = other;
        }
    }
    if (lane == 0) {
        uint64_t leader = __ldcg(&leaders[best]);
        if (at < QR_DEVICE_ROWS) {
            part->row_leaders[at] = leader;
        }
        qr_consensus_take(&control->consensus, step, best, best_votes, leader);
        control->step = step;
        if (!part->sweeps) {
            control->current ^= 1u;
        }
        if (step >= control->limit || (control->stop_at_decision && control->consensus.decision.decided)) {
            control->stopped = 1;
        }
    }
}

/* Ends an update: all threads of the block. The last block of the grid decides, where no other part has a say. */
static __device__ __forceinline__ void qr_tally_finish(const qr_part *part, qr_block_tally *tally)
{
    __shared__ uint32_t is_last;
    qr_control *control = part->control;
    uint32_t n_options = part->rule.n_options;
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        if (tally->votes[k] != 0) {
            atomicAdd(&control->part_votes[k], (unsigned long long)tally->votes[k]);
            atomicMax(&control->part_leader[k], tally->leader[k]);
        }
    }
    if (!part->decides) {
        return;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(&control->ticket, 1u) + 1u == gridDim.x;
    }
    __syncthreads();
    if (!is_last) {
        return;
    }
    __threadfence();
    if (threadIdx.x < 32) {
        qr_decide(part, control->part_votes, control->part_leader);
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
    if (threadIdx.x == 0) {
        control->ticket = 0;
    }
}

#endif
