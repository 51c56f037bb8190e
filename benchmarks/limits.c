#include "limits.h"

#include "backend/cpu/simd/vector.h"

typedef float fvec __attribute__((vector_size(QR_SIMD_BYTES)));

enum {
    TOGETHER = QR_SIMD_BYTES == 64 ? 4 : 2,
    CHAINS = 12,
    FLOATS = QR_SIMD_BYTES / 4
}; /* more chains than latency times throughput; likewise for Philox */

int64_t QR_SIMD_NAME(limit_fma)(int64_t rounds, float *sink)
{
    fvec sum[CHAINS];
    const fvec a = 0.999f - (fvec){0};
    const fvec b = 0.001f - (fvec){0};
    for (int i = 0; i < CHAINS; i++) {
        sum[i] = (float)i - (fvec){0};
    }
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
            sum[i] = (fvec)_mm512_fmadd_ps((__m512)sum[i], (__m512)a, (__m512)b);
#elif QR_SIMD_BYTES == 32 && defined(__FMA__)
            sum[i] = (fvec)_mm256_fmadd_ps((__m256)sum[i], (__m256)a, (__m256)b);
#else
            for (int j = 0; j < FLOATS; j++) {
                sum[i][j] = qr_fmaf(sum[i][j], a[j], b[j]);
            }
#endif
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        *sink += sum[i][0];
    }
    return rounds * CHAINS * FLOATS;
}

int64_t QR_SIMD_NAME(limit_philox)(uint64_t key, int64_t calls, uint64_t *sink)
{
    qr_vec all = qr_vec_all(0);
    qr_philox_keys keys;
    qr_philox_expand(key, &keys);
    for (int64_t i = 0; i < calls; i += TOGETHER) {
        qr_philox_vec block[TOGETHER];
        for (int v = 0; v < TOGETHER; v++) {
            qr_vec group = qr_vec_all((uint64_t)((i + v) * QR_LANES)) + qr_vec_lane_numbers();
            block[v] = (qr_philox_vec){{group, qr_vec_all(0), qr_vec_all(3), qr_vec_all(8u << 16)}};
        }
        qr_philox_rounds(&keys, TOGETHER, block);
        for (int v = 0; v < TOGETHER; v++) {
            all ^= qr_vec_join(block[v].word[0], block[v].word[1]) ^ qr_vec_join(block[v].word[2], block[v].word[3]);
        }
    }
    *sink ^= all[0];
    return calls * QR_LANES * 64;
}
