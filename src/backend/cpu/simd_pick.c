#include "backend/cpu/simd/kernels.h"

#include <string.h>

const qr_simd qr_simd_v3 = {.name = "v3",
                            .words = 4,
                            .planes = qr_simd_planes_v3,
                            .sweep = qr_simd_sweep_v3,
                            .draw_votes = qr_simd_draw_votes_v3,
                            .neural_work_bytes = qr_simd_neural_work_bytes_v3,
                            .neural_packed_bytes = qr_simd_neural_packed_bytes_v3,
                            .neural_pack = qr_simd_neural_pack_v3,
                            .neural = qr_simd_neural_v3};

#if defined(__x86_64__)
const qr_simd qr_simd_v4 = {.name = "v4",
                            .words = 8,
                            .planes = qr_simd_planes_v4,
                            .sweep = qr_simd_sweep_v4,
                            .draw_votes = qr_simd_draw_votes_v4,
                            .neural_work_bytes = qr_simd_neural_work_bytes_v4,
                            .neural_packed_bytes = qr_simd_neural_packed_bytes_v4,
                            .neural_pack = qr_simd_neural_pack_v4,
                            .neural = qr_simd_neural_v4};

static bool runs_v4(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const qr_simd *qr_simd_best(void)
{
#if defined(__x86_64__)
    if (runs_v4()) {
        return &qr_simd_v4;
    }
#endif
    return &qr_simd_v3;
}

const qr_simd *qr_simd_find(const char *name)
{
#if defined(__x86_64__)
    if (strcmp(name, qr_simd_v4.name) == 0) {
        return runs_v4() ? &qr_simd_v4 : NULL;
    }
#endif
    return strcmp(name, qr_simd_v3.name) == 0 ? &qr_simd_v3 : NULL;
}
