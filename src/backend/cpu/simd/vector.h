/* Vectors of 64-bit words, QR_SIMD_BYTES wide, and Philox on them. Included
 * only by the files that are compiled once per vector width; the compiler's
 * vector extensions do what they can, intrinsics the rest.
 *
 * A number below 2^32 may carry anything in the upper half of its lane: the
 * multiplication ignores it. */
#ifndef QR_BACKEND_CPU_SIMD_VECTOR_H
#define QR_BACKEND_CPU_SIMD_VECTOR_H

#include "philox.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define QR_SIMD_JOIN_(name, suffix) name##suffix
#define QR_SIMD_JOIN(name, suffix)  QR_SIMD_JOIN_(name, suffix)
#define QR_SIMD_NAME(name)          QR_SIMD_JOIN(name, QR_SIMD_SUFFIX)

#define QR_INLINE static inline __attribute__((always_inline))

enum { QR_LANES = QR_SIMD_BYTES / 8 };

typedef uint64_t qr_vec __attribute__((vector_size(QR_SIMD_BYTES)));

QR_INLINE qr_vec qr_vec_load(const uint64_t *from)
{
    qr_vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

QR_INLINE void qr_vec_store(uint64_t *to, qr_vec v)
{
    memcpy(to, &v, sizeof v);
}

QR_INLINE qr_vec qr_vec_all(uint64_t value)
{
    return value - (qr_vec){0};
}

/* 0, 1, 2, ... */
QR_INLINE qr_vec qr_vec_lane_numbers(void)
{
#if QR_SIMD_BYTES == 64
    return (qr_vec){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (qr_vec){0, 1, 2, 3};
#endif
}

QR_INLINE bool qr_vec_any(qr_vec v)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)v, (__m512i)v) != 0;
#elif QR_SIMD_BYTES == 32 && defined(__AVX2__)
    return _mm256_testz_si256((__m256i)v, (__m256i)v) == 0;
#else
    uint64_t any = 0;
    for (int i = 0; i < QR_LANES; i++) {
        any |= v[i];
    }
    return any != 0;
#endif
}

/* Lower half times lower half of each lane. */
QR_INLINE qr_vec qr_vec_mul32(qr_vec a, qr_vec b)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif QR_SIMD_BYTES == 32 && defined(__AVX2__)
    return (qr_vec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

QR_INLINE qr_vec qr_vec_xor3(qr_vec a, qr_vec b, qr_vec c)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
    return a ^ b ^ c;
#endif
}

/* Bits set in at least two of three. */
QR_INLINE qr_vec qr_vec_most(qr_vec a, qr_vec b, qr_vec c)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0xe8);
#else
    return (a & b) | ((a ^ b) & c);
#endif
}

/* Bits of b where mask is set, else of a. */
QR_INLINE qr_vec qr_vec_select(qr_vec a, qr_vec b, qr_vec mask)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_ternarylogic_epi64((__m512i)mask, (__m512i)b, (__m512i)a, 0xca);
#else
    return a ^ ((a ^ b) & mask);
#endif
}

/* Each lane turned by one bit, towards the highest or the lowest. */
QR_INLINE qr_vec qr_vec_turn_up(qr_vec v)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_rol_epi64((__m512i)v, 1);
#else
    return v << 1 | v >> 63;
#endif
}

QR_INLINE qr_vec qr_vec_turn_down(qr_vec v)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_ror_epi64((__m512i)v, 1);
#else
    return v >> 1 | v << 63;
#endif
}

/* The last lane of a, then all of b but its last. */
QR_INLINE qr_vec qr_vec_last_then(qr_vec a, qr_vec b)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__) /* compilers would load a table of places */
    return (qr_vec)_mm512_alignr_epi64((__m512i)b, (__m512i)a, 7);
#elif QR_SIMD_BYTES == 64
    return __builtin_shufflevector(a, b, 7, 8, 9, 10, 11, 12, 13, 14);
#else
    return __builtin_shufflevector(a, b, 3, 4, 5, 6);
#endif
}

/* All of a but its first lane, then the first of b. */
QR_INLINE qr_vec qr_vec_rest_then(qr_vec a, qr_vec b)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (qr_vec)_mm512_alignr_epi64((__m512i)b, (__m512i)a, 1);
#elif QR_SIMD_BYTES == 64
    return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8);
#else
    return __builtin_shufflevector(a, b, 1, 2, 3, 4);
#endif
}

/* Bits set, as eight counts a lane. */
QR_INLINE qr_vec qr_vec_popcount_bytes(qr_vec v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    return (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
}

/* Sum of the bytes of each lane, which must stay below 256. */
QR_INLINE qr_vec qr_vec_sum_bytes(qr_vec v)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512BW__)
    return (qr_vec)_mm512_sad_epu8((__m512i)v, _mm512_setzero_si512());
#elif QR_SIMD_BYTES == 32 && defined(__AVX2__)
    return (qr_vec)_mm256_sad_epu8((__m256i)v, _mm256_setzero_si256());
#else
    return v * 0x0101010101010101u >> 56;
#endif
}

/* Sum of all lanes. */
QR_INLINE int64_t qr_vec_sum(qr_vec v)
{
    uint64_t sum = 0;
    for (int i = 0; i < QR_LANES; i++) {
        sum += v[i];
    }
    return (int64_t)sum;
}

/* The ten pairs of round keys, each in all lanes: worked out once, then read
 * from memory beside the arithmetic. */
typedef struct qr_philox_keys {
    qr_vec k0[10];
    qr_vec k1[10];
} qr_philox_keys;

QR_INLINE void qr_philox_expand(uint64_t key, qr_philox_keys *out)
{
    uint32_t k0 = (uint32_t)key;
    uint32_t k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        out->k0[round] = qr_vec_all(k0);
        out->k1[round] = qr_vec_all(k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* qr_philox in every lane; the key is the same in all of them. word[i] holds
 * word i in the lower half of each lane. */
typedef struct qr_philox_vec {
    qr_vec word[4];
} qr_philox_vec;

/* n independent blocks side by side; the counters go in and the random words
 * come out. */
QR_INLINE void qr_philox_rounds(const qr_philox_keys *keys, const int n, qr_philox_vec *blocks)
{
    const qr_vec m0 = qr_vec_all(0xD2511F53u);
    const qr_vec m1 = qr_vec_all(0xCD9E8D57u);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 10
#endif
    for (int round = 0; round < 10; round++) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
        for (int i = 0; i < n; i++) {
            qr_vec *c = blocks[i].word;
            qr_vec product0 = qr_vec_mul32(m0, c[0]);
            qr_vec product1 = qr_vec_mul32(m1, c[2]);
            c[0] = qr_vec_xor3(product1 >> 32, c[1], keys->k0[round]);
            c[1] = product1;
            c[2] = qr_vec_xor3(product0 >> 32, c[3], keys->k1[round]);
            c[3] = product0;
        }
    }
}

QR_INLINE qr_philox_vec qr_philox_lanes(const qr_philox_keys *keys, qr_vec c0, qr_vec c1, qr_vec c2, qr_vec c3)
{
    qr_philox_vec block = {{c0, c1, c2, c3}};
    qr_philox_rounds(keys, 1, &block);
    return block;
}

/* Two 32-bit words as one of 64 bits, low first. */
QR_INLINE qr_vec qr_vec_join(qr_vec low, qr_vec high)
{
    return high << 32 | (low & 0xffffffffu);
}

/* qr_bounded64(random, n): the upper half of their product. */
QR_INLINE qr_vec qr_vec_bounded(qr_vec random, qr_vec n)
{
    qr_vec low = qr_vec_mul32(random, n) >> 32;
    qr_vec middle0 = qr_vec_mul32(random >> 32, n);
    qr_vec middle1 = qr_vec_mul32(random, n >> 32);
    qr_vec middle = (low + (middle0 & 0xffffffffu) + (middle1 & 0xffffffffu)) >> 32;
    return qr_vec_mul32(random >> 32, n >> 32) + (middle0 >> 32) + (middle1 >> 32) + middle;
}

#endif
