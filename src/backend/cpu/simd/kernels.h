/* The kernels by name, one set per vector width. */
#ifndef QR_BACKEND_CPU_SIMD_KERNELS_H
#define QR_BACKEND_CPU_SIMD_KERNELS_H

#include "backend/cpu/simd/simd.h"

#define QR_SIMD_KERNELS(suffix)                                                                                        \
    void qr_simd_planes##suffix(const qr_plane_task *task, int64_t *counts);                                           \
    int64_t qr_simd_sweep##suffix(const qr_sweep_task *task);                                                          \
    void qr_simd_draw_votes##suffix(uint64_t seed, uint64_t first_agent, int64_t n, uint32_t n_options,                \
                                    uint8_t *votes);                                                                   \
    size_t qr_simd_neural_work_bytes##suffix(const qr_neural *net);                                                    \
    size_t qr_simd_neural_packed_bytes##suffix(const qr_neural *net);                                                  \
    void qr_simd_neural_pack##suffix(const qr_neural *net, void *packed);                                              \
    void qr_simd_neural##suffix(const qr_neural *net, const void *packed, const float *base, uint64_t seed,            \
                                int64_t step, int n, qr_neural_batch *batch);

QR_SIMD_KERNELS(_v3)
QR_SIMD_KERNELS(_v4)

#undef QR_SIMD_KERNELS

#endif
