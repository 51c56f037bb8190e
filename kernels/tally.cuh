/* Device code that every update kernel ends with: votes of a warp into its block's, a block's into the part's, and the
 * decision by the last block. */
#ifndef QR_TALLY_CUH
#define QR_TALLY_CUH

#include "device.h"

/* Options up to which each warp of a block of 256 threads counts by itself, without atomics. */
enum { QR_TALLY_WARP_OPTIONS = 32 };

/* A block's counts in shared memory. 32 bits hold what one block can count in one step: a part has below 2^32 agents
 * per block (parts are bounded by device memory). While agents are counted one by one and options are few, warp w has
 * entries 32 w .. 32 w + 31; qr_tally_gather adds them up. */
typedef struct qr_block_tally {
    uint32_t votes[QR_DEVICE_OPTIONS];
    unsigned long long leader[QR_DEVICE_OPTIONS];
} qr_block_tally;

static __device__ __forceinline__ void qr_tally_clear(qr_block_tally *tally, uint32_t n_options)
{
    uint32_t n = n_options <= QR_TALLY_WARP_OPTIONS ? QR_DEVICE_OPTIONS : n_options;
    for (uint32_t k = threadIdx.x; k < n; k += blockDim.x) {
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

/* The votes of a warp's agents, which stand in a row: `first` is the agent of lane 0, `valid` lanes have one. A warp
 * comes by its agents in ascending order, so the first voter it meets is its leader. All lanes; blocks of 256 threads,
 * with qr_tally_gather after the last call. */
static __device__ __forceinline__ void qr_tally_warp(qr_block_tally *tally, uint32_t n_options, uint32_t vote,
                                                     uint32_t valid, int64_t first)
{
    uint32_t lane = threadIdx.x % 32u;
    uint32_t same;
    if (n_options == 2) {
        uint32_t ones = __ballot_sync(~0u, vote != 0);
        same = (vote != 0 ? ones : ~ones) & valid;
    } else {
        same = __match_any_sync(~0u, vote) & valid;
    }
    if ((valid >> lane & 1u) == 0 || lane != (uint32_t)__ffs((int)same) - 1u) {
        return;
    }
    unsigned long long leader = qr_leader_pack(0, first + lane);
    uint32_t count = (uint32_t)__popc(same);
    if (n_options <= QR_TALLY_WARP_OPTIONS) {
        uint32_t mine = threadIdx.x / 32u * QR_TALLY_WARP_OPTIONS + vote;
        tally->votes[mine] += count;
        tally->leader[mine] = tally->leader[mine] != 0 ? tally->leader[mine] : leader;
    } else {
        atomicAdd(&tally->votes[vote], count);
        if (leader > *(volatile unsigned long long *)&tally->leader[vote]) {
            atomicMax(&tally->leader[vote], leader);
        }
    }
}

/* Adds up what the warps of a block have counted. All threads; the result may be read by the thread of the same number
 * as the option, or after a barrier. */
static __device__ __forceinline__ void qr_tally_gather(qr_block_tally *tally, uint32_t n_options)
{
    __syncthreads();
    uint32_t k = threadIdx.x;
    if (n_options > QR_TALLY_WARP_OPTIONS || k >= n_options) {
        return;
    }
    uint32_t votes = 0;
    unsigned long long leader = 0;
    for (uint32_t warp = 0; warp < QR_DEVICE_OPTIONS / QR_TALLY_WARP_OPTIONS; warp++) {
        unsigned long long theirs = tally->leader[warp * QR_TALLY_WARP_OPTIONS + k];
        votes += tally->votes[warp * QR_TALLY_WARP_OPTIONS + k];
        leader = theirs > leader ? theirs : leader;
    }
    tally->votes[k] = votes;
    tally->leader[k] = leader;
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
