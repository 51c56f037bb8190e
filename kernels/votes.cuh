/* Single votes in a part's buffers, in either layout. */
#ifndef QR_VOTES_CUH
#define QR_VOTES_CUH

#include "device.h"

static __device__ __forceinline__ uint32_t qr_vote_at(const qr_part *part, uint32_t buffer, int64_t position)
{
    if (part->form != QR_FORM_PLANES) {
        return qr_packed_vote(part->packed[buffer], part->packing, position);
    }
    uint32_t vote = 0;
    for (int32_t p = 0; p < part->n_planes; p++) {
        vote |= (uint32_t)(part->plane[buffer][p][position / 64] >> (position % 64) & 1u) << p;
    }
    return vote;
}

/* Sets bits of a word, those of `mask`, among others that other threads may be setting. */
static __device__ __forceinline__ void qr_put_bits(uint64_t *word, uint64_t mask, uint64_t bits)
{
    if (mask == ~(uint64_t)0) {
        *word = bits;
    } else if (mask != 0) {
        atomicAnd((unsigned long long *)word, ~mask | bits);
        atomicOr((unsigned long long *)word, bits & mask);
    }
}

/* Sets one vote; bits of others are left alone. */
static __device__ __forceinline__ void qr_put_vote(const qr_part *part, uint32_t buffer, int64_t position,
                                                   uint32_t vote)
{
    if (part->form == QR_FORM_PLANES) {
        for (int32_t p = 0; p < part->n_planes; p++) {
            uint64_t bit = (uint64_t)1 << (position % 64);
            qr_put_bits(&part->plane[buffer][p][position / 64], bit, (vote >> p & 1u) != 0 ? bit : 0);
        }
        return;
    }
    if (part->packing == 0) {
        part->packed[buffer][position] = (uint8_t)vote;
        return;
    }
    uint32_t width = 8u >> part->packing;
    uint32_t per_word = 32u / width;
    uint32_t shift = (uint32_t)(position % per_word) * width;
    uint32_t mask = ((1u << width) - 1u) << shift;
    uint32_t *word = (uint32_t *)part->packed[buffer] + position / per_word;
    atomicAnd(word, ~mask | vote << shift);
    atomicOr(word, vote << shift);
}

#endif
