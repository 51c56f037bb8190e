/* States in frames (backend/backend.h), for the rest of this folder. */
#ifndef QR_BACKEND_CUDA_FRAME_OPS_H
#define QR_BACKEND_CUDA_FRAME_OPS_H

#include "backend/cuda/cuda.h"

/* What setup->n_frames > 0 asks for; from here on backend->frames is set. The caller destroys it, whatever is returned
 * here or below. */
qr_status qr_cuda_plan_frames(qr_backend *backend, const qr_backend_setup *setup);

/* Their memory, streams and events; everything else of the part is there. */
qr_status qr_cuda_make_frames(qr_backend *backend);
void qr_cuda_destroy_frames(qr_backend *backend);

/* frame_room.c: qr_frame_ops.room and measure_links. */
qr_status qr_cuda_frame_room(const qr_backend_setup *setup, int64_t *n_frames, int64_t *bytes);
qr_status qr_cuda_measure_links(qr_backend *backend, double *in, double *out, double *both);

extern const qr_frame_ops qr_cuda_frame_ops;

#endif
