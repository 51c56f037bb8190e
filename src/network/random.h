/* Random numbers for generating graphs: a value depends on (seed, stream, two counters) alone, so that any part can
 * work out any agent's draws. */
#ifndef QR_NETWORK_RANDOM_H
#define QR_NETWORK_RANDOM_H

#include "base/permutation.h"

#include <stdint.h>

typedef enum qr_graph_stream {
    QR_STREAM_PERMUTATION,
    QR_STREAM_REPAIR,
    QR_STREAM_SWITCH,
    QR_STREAM_DEGREE,
    QR_STREAM_TARGET,
    QR_STREAM_COIN,
    QR_STREAM_ATTACH,
    QR_STREAM_COLOUR
} qr_graph_stream;

/* 64 random bits. */
static inline uint64_t qr_graph_draw(uint64_t seed, qr_graph_stream stream, int64_t a, int64_t b)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = qr_mix64(seed + golden * ((uint64_t)stream + 1));
    h = qr_mix64(h + golden * ((uint64_t)a + 1));
    return qr_mix64(h + golden * ((uint64_t)b + 1));
}

/* Uniform in [0, n) from 64 random bits; the bias is below n / 2^64. */
static inline int64_t qr_graph_below(uint64_t bits, int64_t n)
{
    __extension__ typedef unsigned __int128 wide;
    return (int64_t)(((wide)bits * (uint64_t)n) >> 64);
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static inline double qr_graph_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

#endif
