/* Means with their standard errors, and the comparison that every scientific test makes: within four of them. */
#ifndef TEST_SUPPORT_STATISTICS_H
#define TEST_SUPPORT_STATISTICS_H

#include "base/status.h"

#include <stdint.h>

/* Welford's running mean and sum of squared deviations. */
typedef struct sample_mean {
    int64_t n;
    double mean;
    double squares;
} sample_mean;

void sample_add(sample_mean *sample, double value);

/* Standard error of the mean of independent values; n >= 2. */
double sample_error(const sample_mean *sample);

/* Collects a correlated series into means of blocks, which are independent when a block is much longer than the memory
 * of the series. */
typedef struct block_mean {
    int64_t length;
    sample_mean open;
    sample_mean blocks;
} block_mean;

void block_add(block_mean *block, double value);

/* Fails the test unless |measured - expected| <= 4 standard errors (and the error is a number). */
void check_within(double measured, double expected, double standard_error, const char *what, ...) QR_PRINTF(4, 5);

/* Standard error of a share that was found in n independent trials of probability p. */
double share_error(double p, int64_t n);

#endif
