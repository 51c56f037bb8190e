/* Counts the bits set in a row of vectors. Included only by the file that is compiled once per vector width. */
#ifndef QR_BACKEND_CPU_SIMD_ONES_H
#define QR_BACKEND_CPU_SIMD_ONES_H

#include "backend/cpu/simd/vector.h"

/* Full adder: *sum += a + b bit by bit; returns the carries. */
QR_INLINE qr_vec add_bits(qr_vec *sum, qr_vec a, qr_vec b)
{
    qr_vec carry = qr_vec_most(a, b, *sum);
    *sum = qr_vec_xor3(*sum, a, b);
    return carry;
}

/* Bits set in a row of vectors: bits are added up in columns first (Harley and Seal), so that few are counted. */
typedef struct ones_counter {
    qr_vec ones;
    qr_vec twos;
    qr_vec fours;
    qr_vec eights; /* how many in each lane */
    qr_vec rest;   /* the same of bits counted one by one */
} ones_counter;

QR_INLINE qr_vec ones_in_lanes(qr_vec v)
{
    return qr_vec_sum_bytes(qr_vec_popcount_bytes(v));
}

QR_INLINE void count_ones(const uint64_t *words, int64_t n_vectors, ones_counter *counter)
{
    ones_counter c = *counter;
    int64_t i = 0;
    for (; i + 8 <= n_vectors; i += 8) {
        const uint64_t *at = words + i * QR_LANES;
        qr_vec two0 = add_bits(&c.ones, qr_vec_load(at), qr_vec_load(at + QR_LANES));
        qr_vec two1 = add_bits(&c.ones, qr_vec_load(at + 2 * QR_LANES), qr_vec_load(at + 3 * QR_LANES));
        qr_vec four0 = add_bits(&c.twos, two0, two1);
        two0 = add_bits(&c.ones, qr_vec_load(at + 4 * QR_LANES), qr_vec_load(at + 5 * QR_LANES));
        two1 = add_bits(&c.ones, qr_vec_load(at + 6 * QR_LANES), qr_vec_load(at + 7 * QR_LANES));
        qr_vec four1 = add_bits(&c.twos, two0, two1);
        c.eights += ones_in_lanes(add_bits(&c.fours, four0, four1));
    }
    for (; i < n_vectors; i++) {
        c.rest += ones_in_lanes(qr_vec_load(words + i * QR_LANES));
    }
    *counter = c;
}

static int64_t counted_ones(const ones_counter *c)
{
    return 8 * qr_vec_sum(c->eights) + 4 * qr_vec_sum(ones_in_lanes(c->fours)) +
           2 * qr_vec_sum(ones_in_lanes(c->twos)) + qr_vec_sum(ones_in_lanes(c->ones)) + qr_vec_sum(c->rest);
}

#endif
