/* The CUDA backend's own state and the pieces it is made of; private to this folder. Everything here runs on one
 * device, on one stream; kernels/device.h says how a part lies there. */
#ifndef QR_BACKEND_CUDA_CUDA_H
#define QR_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "device.h"

#include <stdbool.h>

typedef struct qr_nccl qr_nccl;

/* What is exchanged with one part, as lists of copies in device memory. */
typedef struct qr_cuda_peer {
    int peer;
    int64_t n_out; /* copies */
    int64_t n_in;
    int64_t out_votes;
    int64_t in_votes;
    qr_copy *out; /* view to message */
    qr_copy *in;  /* message to view */
    uint8_t *send;
    uint8_t *receive;
} qr_cuda_peer;

struct qr_backend {
    const qr_model *model;
    const qr_network *network;
    int threads; /* of this rank, for work at the start */
    int device;
    char device_name[64];
    unsigned char device_id[QR_DEVICE_ID_BYTES];
    cudaStream_t stream;
    cudaEvent_t done;
    qr_part part;
    qr_control *control; /* pinned copy of the control block */
    void **allocations;  /* device memory, freed together */
    size_t n_allocations;
    size_t allocations_capacity;
    int64_t allocated_bytes;
    uint32_t current; /* buffer that holds the votes */

    qr_cuda_peer *peers; /* [network->halo.n_peers] */
    qr_copy *within;     /* halo votes that come from the own part */
    int64_t n_within;
    int64_t within_votes;

    void *registered;    /* the caller's memory; NULL: none */
    uint8_t *staging;    /* device, QR_CUDA_STAGING bytes: votes on their way in and out */
    int64_t *handed_in;  /* device: [2][n_options] */
    int64_t *handed_out; /* pinned: the same, or a row */

    bool resident;             /* many steps in one launch instead of a graph */
    bool is_up_to_date;        /* halo and tally on the device; steps in one launch keep them so */
    qr_loop_state *loop_state; /* device */
    qr_mail *mail;             /* pinned */
    uint64_t launches;         /* of many steps; numbers them */
    cudaGraphExec_t graph;     /* graph_steps steps */
    int64_t graph_steps;
    int64_t *row_votes; /* pinned: [QR_DEVICE_ROWS][n_options] */
    uint64_t *row_leaders;
    qr_nccl *nccl; /* parts that were joined; NULL otherwise */
    int n_parts;
    char description[192];
};

enum { QR_CUDA_STAGING = 1 << 24 };

/* QR_DEVICE "CUDA: <what>: <reason>", or QR_RESOURCE where memory is short; QR_OK for cudaSuccess. */
qr_status qr_cuda_check(cudaError_t error, const char *what);

/* Zeroed device memory that lives as long as the backend. At least one byte. */
qr_status qr_cuda_allocate(qr_backend *backend, int64_t count, int64_t size, const char *what, void **out);

/* The same filled from the host. */
qr_status qr_cuda_upload(qr_backend *backend, const void *from, int64_t count, int64_t size, const char *what,
                         void **out);

/* Waits for everything on the stream. Bounded: a device that does not answer for long is an error. */
qr_status qr_cuda_wait(qr_backend *backend);

/* part.c: fills backend->part; allocates votes, states, lists and weights; first votes and states. */
qr_status qr_cuda_make_part(qr_backend *backend, const uint8_t *file_votes);
int64_t qr_cuda_bytes_estimate(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view);

/* halo.c */
qr_status qr_cuda_make_halo(qr_backend *backend);
qr_status qr_cuda_halo_pack(qr_backend *backend, const qr_halo_peer *peer, void *message);
qr_status qr_cuda_halo_place(qr_backend *backend, const qr_halo_peer *peer, const void *message);

/* resident.c: qr_cuda_run for crowds that stay on the device as a whole. */
qr_status qr_cuda_prepare_resident(qr_backend *backend);
qr_status qr_cuda_run_resident(qr_backend *backend, qr_steps *steps);

/* loop.c */
qr_status qr_cuda_count(qr_backend *backend, qr_tally *out);
qr_status qr_cuda_update(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out);
qr_status qr_cuda_run(qr_backend *backend, qr_steps *steps);
qr_status qr_cuda_send_control(qr_backend *backend);

/* nccl.c */
qr_status qr_nccl_make_id(void *id);
qr_status qr_cuda_join(qr_backend *backend, int n_parts, int part, const void *id);
void qr_nccl_destroy(qr_nccl *nccl);
/* Enqueued, so that they can be captured: the halo with every other part; handed-in tallies of all parts. */
qr_status qr_nccl_halo(qr_backend *backend);
qr_status qr_nccl_gather(qr_backend *backend);
/* Whether the communicator has failed on this or another rank; tears it down if so. */
qr_status qr_nccl_check(qr_backend *backend);

#endif
