/* Kernels that fail on purpose, for tests of what follows (base/fault.h). */
#ifndef QR_KERNELS_FAULT_H
#define QR_KERNELS_FAULT_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Ends with an illegal instruction: everything on this device context fails from then on. */
void qr_launch_trap(cudaStream_t stream);

/* Does not end for so many seconds. */
void qr_launch_stall(double seconds, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
