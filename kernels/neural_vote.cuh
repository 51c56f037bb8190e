/* The vote of a neural agent of few options by one thread: what qr_neural_vote gives, with the weights of all options
 * in registers and without a division of 64 bits. */
#ifndef QR_NEURAL_VOTE_CUH
#define QR_NEURAL_VOTE_CUH

#include "device.h"

enum { QR_VOTE_OPTIONS = 8 }; /* at most */

/* 2^24 part / whole, rounded down, for part <= whole, 0 < whole <= 2^36. */
static __device__ __forceinline__ uint32_t qr_share_of_whole(uint64_t part, uint64_t whole)
{
    const float inverse = __frcp_rn((float)whole);
    uint32_t share = (uint32_t)((float)part * inverse * 0x1p24f); /* right to within 4 */
    int64_t rest = (int64_t)((part << 24) - share * whole);
    const int32_t more = (int32_t)floorf((float)rest * inverse); /* right to within 1 */
    share += (uint32_t)more;
    rest -= more * (int64_t)whole;
    share -= rest < 0 ? 1u : 0u;
    share += rest >= (int64_t)whole ? 1u : 0u;
    return share;
}

static __device__ __forceinline__ uint32_t qr_vote_of_few(const qr_neural *net, const float *z, qr_draws *draws,
                                                          uint32_t *score)
{
    const uint32_t n_options = net->n_options;
    float at[QR_VOTE_OPTIONS];
    uint64_t weight[QR_VOTE_OPTIONS];
    at[0] = z[0];
    float best = at[0];
    uint32_t vote = 0;
#pragma unroll
    for (uint32_t k = 1; k < QR_VOTE_OPTIONS; k++) {
        at[k] = 0.0f;
        if (k < n_options) {
            at[k] = z[k];
            vote = at[k] > best ? k : vote;
            best = at[k] > best ? at[k] : best;
        }
    }
    uint64_t total = 0;
#pragma unroll
    for (uint32_t k = 0; k < QR_VOTE_OPTIONS; k++) {
        weight[k] = 0;
        if (k < n_options) {
            const float here = qr_expf((at[k] - best) * net->inverse_temperature) * 4294967296.0f;
            weight[k] = here >= 0.0f ? (uint64_t)here : 0; /* not a number counts as nothing */
            total += weight[k];
        }
    }
    *score = 0;
    if (total == 0) {
        return vote;
    }
    uint64_t number = qr_bounded64(qr_draws_next64(draws), total);
    uint64_t taken = weight[0];
    bool beyond = true;
    vote = 0;
#pragma unroll
    for (uint32_t k = 1; k < QR_VOTE_OPTIONS; k++) {
        beyond = beyond && k < n_options && number >= taken;
        number -= beyond ? taken : 0;
        taken = beyond ? weight[k] : taken;
        vote += beyond ? 1u : 0u;
    }
    const uint32_t share = qr_share_of_whole(taken, total);
    *score = share > 0xffffffu ? 0xffffffu : share;
    return vote;
}

#endif
