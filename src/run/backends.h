/* Finding backends; private to src/run. */
#ifndef QR_RUN_BACKENDS_H
#define QR_RUN_BACKENDS_H

#include "backend/backend.h"

/* The CUDA backend, from its shared library; NULL with the reason in `why` [n] where there is no library, no driver or
 * no device. Compute ranks only. */
const qr_backend_ops *qr_backend_load_cuda(char *why, size_t n);

#endif
