/* What the machine can do at most: the limits beside which figures are set. Compiled once per vector width. */
#ifndef QR_BENCHMARKS_LIMITS_H
#define QR_BENCHMARKS_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Fused multiply-adds (each 2 operations) on registers alone: does `rounds` times some, returns how many. */
int64_t limit_fma_v3(int64_t rounds, float *sink);
int64_t limit_fma_v4(int64_t rounds, float *sink);

/* Bit planes drawn by Philox and thrown away: returns for how many agents `calls` times two planes were drawn. */
int64_t limit_philox_v3(uint64_t key, int64_t calls, uint64_t *sink);
int64_t limit_philox_v4(uint64_t key, int64_t calls, uint64_t *sink);

#endif
