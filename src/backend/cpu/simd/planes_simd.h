/* Kernel on bit planes, once per vector width. */
#ifndef QR_BACKEND_CPU_SIMD_PLANES_SIMD_H
#define QR_BACKEND_CPU_SIMD_PLANES_SIMD_H

#include "backend/cpu/simd/simd.h"

void qr_simd_planes_v3(const qr_plane_task *task, int64_t *counts);
void qr_simd_planes_v4(const qr_plane_task *task, int64_t *counts);

#endif
