/* What frames are made of; private to frames.c and frame_calls.c. Updates, fills and evictions have a stream each. What
 * is asked for one frame is done in the order in which it was asked for, because each call waits, on the device, for
 * the last calls of the other streams that had to do with its frames. */
#ifndef QR_BACKEND_CUDA_FRAME_PARTS_H
#define QR_BACKEND_CUDA_FRAME_PARTS_H

#include "backend/cuda/frame_ops.h"

enum { QR_CUDA_IN_FLIGHT = 256 }; /* calls of a queue under way; one more waits for the first of them */

typedef enum qr_cuda_queue_name {
    QR_CUDA_UPDATES,
    QR_CUDA_FILLS,
    QR_CUDA_EVICTIONS,
    QR_CUDA_QUEUES
} qr_cuda_queue_name;

/* Calls of one kind, numbered from 1, in order on one stream. */
typedef struct qr_cuda_queue {
    cudaStream_t stream;
    cudaEvent_t begin[QR_CUDA_IN_FLIGHT]; /* updates only: for the time that kernels take */
    cudaEvent_t end[QR_CUDA_IN_FLIGHT];   /* of call n: n % QR_CUDA_IN_FLIGHT */
    int64_t issued;
    int64_t done;                    /* as far as is known */
    int64_t follows[QR_CUDA_QUEUES]; /* calls of the other queues that whatever is issued next comes behind */
} qr_cuda_queue;

typedef struct qr_cuda_pinned {
    unsigned char *memory;
    size_t bytes;
} qr_cuda_pinned;

struct qr_cuda_frames {
    int64_t page_agents;
    int64_t n_frames;
    int64_t n_pages;
    int64_t agent_bytes;
    float *memory;
    qr_cuda_queue queues[QR_CUDA_QUEUES];
    int64_t (*last)[QR_CUDA_QUEUES]; /* [n_frames] last call of each queue that had to do with a frame */
    void *pinned;                    /* [n_pinned] qr_cuda_pinned */
    size_t n_pinned;
    size_t pinned_capacity;
};

/* Brings `done` up to date, and adds up how long kernels took. Never waits. */
qr_status qr_cuda_frames_look(qr_backend *backend, qr_cuda_queue_name name);

/* Waits for a call, with the bounds of qr_cuda_wait. */
qr_status qr_cuda_frames_wait(qr_backend *backend, qr_cuda_queue_name name, int64_t call);

/* Around what is given to a stream as one call, which comes behind these calls of the others; it is counted by the
 * second alone. The first waits where too many are under way. */
qr_status qr_cuda_frames_begin_call(qr_backend *backend, qr_cuda_queue_name name,
                                    const int64_t follows[QR_CUDA_QUEUES]);
qr_status qr_cuda_frames_end_call(qr_backend *backend, qr_cuda_queue_name name);

/* Whether copies from and to that memory need no detour. */
bool qr_cuda_frames_is_pinned(const qr_backend *backend, const void *memory, size_t bytes);

/* qr_frame_ops. */
qr_status qr_cuda_frames_allocate_host(qr_backend *backend, size_t bytes, void **out);
void qr_cuda_frames_free_host(qr_backend *backend, void *memory);

#endif
