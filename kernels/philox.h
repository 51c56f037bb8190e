/* Random numbers: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011).
 *
 * Nothing is stored between steps: a number is a function of where it is used,
 *
 *   key     = run.seed
 *   counter = (agent low, agent high, step, stream << 16 | draw / 4), word draw % 4
 *
 * so that the same agent draws the same numbers on any rank, backend or restart. The step's word is its low 32 bits;
 * numbers would repeat after 2^32 steps, and run.steps is bounded below that. One agent has 2^18 draws per step and
 * stream. */
#ifndef QR_PHILOX_H
#define QR_PHILOX_H

#include "portable.h"

/* What a number is for. Streams of different use never share numbers. The values are part of the reproducibility
 * contract: changing one changes every result. */
enum qr_stream {
    QR_STREAM_INITIAL_VOTE = 0,
    QR_STREAM_INITIAL_STATE = 1,
    QR_STREAM_WEIGHTS = 2,
    QR_STREAM_CONTROL = 3, /* the option of a noisy agent */
    QR_STREAM_RULE = 4,    /* what the model's rule draws */
    QR_STREAM_PLANE_ACTIVATION = 5,
    QR_STREAM_PLANE_NOISE = 6,
    QR_STREAM_PLANE_RULE = 8
};

/* Draws that one (agent, step, stream) has before it would run into the next stream. */
enum { QR_DRAWS_MAX = 1 << 18 };

typedef struct qr_philox_block {
    uint32_t word[4];
} qr_philox_block;

/* Ten rounds of the bijection of four words that the key chooses. */
QR_FN qr_philox_block qr_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key;
    uint32_t k1 = (uint32_t)(key >> 32);
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC unroll 10 /* the other compilers do by themselves */
#endif
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * c0;
        uint64_t product1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    qr_philox_block block;
    block.word[0] = c0;
    block.word[1] = c1;
    block.word[2] = c2;
    block.word[3] = c3;
    return block;
}

/* Reads one agent's numbers of a step and stream in order; Philox runs once per four words. */
typedef struct qr_draws {
    uint64_t key;
    uint64_t agent;
    uint32_t step;
    uint32_t stream;
    uint32_t next; /* number of the next draw */
    qr_philox_block block;
} qr_draws;

QR_FN void qr_draws_begin(qr_draws *draws, uint64_t key, uint64_t agent, uint64_t step, uint32_t stream)
{
    draws->key = key;
    draws->agent = agent;
    draws->step = (uint32_t)step;
    draws->stream = stream;
    draws->next = 0;
}

/* The next 32 bits; at most QR_DRAWS_MAX times. */
QR_FN uint32_t qr_draws_next32(qr_draws *draws)
{
    uint32_t word = draws->next % 4u;
    if (word == 0) {
        draws->block = qr_philox(draws->key, (uint32_t)draws->agent, (uint32_t)(draws->agent >> 32), draws->step,
                                 draws->stream << 16 | draws->next / 4u);
    }
    draws->next++;
    return draws->block.word[word];
}

/* The next two words as 64 bits, low word first. */
QR_FN uint64_t qr_draws_next64(qr_draws *draws)
{
    uint64_t low = qr_draws_next32(draws);
    return (uint64_t)qr_draws_next32(draws) << 32 | low;
}

/* Two bit planes of a group of 64 agents: out[0] is plane 2 pair, out[1] plane 2 pair + 1; bit agent % 64 of each
 * belongs to agent 64 group + that bit. pair < 2^16. */
QR_FN void qr_planes(uint64_t key, uint64_t group, uint64_t step, uint32_t stream, uint32_t pair, uint64_t out[2])
{
    qr_philox_block block =
        qr_philox(key, (uint32_t)group, (uint32_t)(group >> 32), (uint32_t)step, stream << 16 | pair);
    out[0] = (uint64_t)block.word[1] << 32 | block.word[0];
    out[1] = (uint64_t)block.word[3] << 32 | block.word[2];
}

/* A number in 0 .. n - 1 from 64 random bits (0 for n = 0). Each comes with probability 1 / n to within 2^-64. */
QR_FN uint64_t qr_bounded64(uint64_t random, uint64_t n)
{
    return qr_mul_high64(random, n);
}

#ifndef __CUDACC_RTC__
/* Probability p as a threshold t in 0 .. 2^32: an event happens when (uint64_t)word < t for a random 32-bit word.
 * Rounded to the nearest of 2^32 + 1 values; p outside 0 .. 1 counts as the nearer end, NaN as 0. Host only. */
static inline uint64_t qr_threshold32(double p)
{
    if (!(p > 0.0)) {
        return 0;
    }
    if (p >= 1.0) {
        return (uint64_t)1 << 32;
    }
    double scaled = p * 4294967296.0;
    uint64_t below = (uint64_t)scaled;
    return below + (scaled - (double)below >= 0.5 ? 1u : 0u);
}
#endif

#endif
