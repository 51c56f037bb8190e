/* A keyed pseudo-random permutation of 0 .. n-1 without a table: a six-round Feistel network over the next even
 * power of two, walked until it falls below n (Black and Rogaway 2002). The same on every machine. */
#ifndef QR_BASE_PERMUTATION_H
#define QR_BASE_PERMUTATION_H

#include <stdint.h>

typedef struct qr_permutation {
    uint64_t n;
    uint64_t key;
    unsigned half_bits;
} qr_permutation;

/* n up to 2^62. */
qr_permutation qr_permutation_make(uint64_t n, uint64_t key);

/* The image of i < n, and the place i came from. */
uint64_t qr_permutation_apply(const qr_permutation *permutation, uint64_t i);
uint64_t qr_permutation_invert(const qr_permutation *permutation, uint64_t i);

/* The images of first .. first + count - 1, as above; several walks at a time, of which one alone would wait for its
 * multiplications. */
void qr_permutation_apply_row(const qr_permutation *permutation, uint64_t first, int64_t count, uint64_t *images);

/* A well-mixed 64-bit function of x (the finaliser of splitmix64, Steele, Lea and Flood 2014). */
uint64_t qr_mix64(uint64_t x);

#endif
