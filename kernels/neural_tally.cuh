/* Votes of a warp's neural agents into their block's tally: one atomic for each option that the warp votes for, not for
 * each agent. */
#ifndef QR_NEURAL_TALLY_CUH
#define QR_NEURAL_TALLY_CUH

#include "tally.cuh"

/* Lane l has agent first + l where `mine`. score: 24 bits. All lanes of the warp. */
static __device__ __forceinline__ void qr_tally_scores(qr_block_tally *tally, uint32_t vote, uint32_t score,
                                                       int64_t first, bool mine)
{
    const uint32_t lane = threadIdx.x % 32u;
    const uint32_t same = __match_any_sync(~0u, mine ? vote : ~0u);
    const uint32_t most = __reduce_max_sync(same, score);
    const uint32_t leaders = __ballot_sync(~0u, score == most) & same;
    if (!mine || lane != (uint32_t)__ffs((int)leaders) - 1u) {
        return;
    }
    const unsigned long long leader = qr_leader_pack(score, first + lane); /* of equals the first */
    atomicAdd(&tally->votes[vote], (uint32_t)__popc(same));
    if (leader > *(volatile unsigned long long *)&tally->leader[vote]) {
        atomicMax(&tally->leader[vote], leader);
    }
}

#endif
