/* The CUDA backend's own state and the pieces it is made of; private to this folder. Everything here runs on one
 * device, on one stream, but for what is updated while a halo travels; kernels/device.h says how a part lies there. */
#ifndef QR_BACKEND_CUDA_CUDA_H
#define QR_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "device.h"

#include <stdbool.h>

typedef struct qr_nccl qr_nccl;
typedef struct qr_cuda_frames qr_cuda_frames;

enum { QR_CUDA_TIMED_COLOURS = 16 };

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
    void *host_send; /* pinned; made when asked for */
    void *host_receive;
} qr_cuda_peer;

/* Events around work whose time on the device is wanted. */
typedef struct qr_cuda_span {
    cudaEvent_t begin;
    cudaEvent_t end;
} qr_cuda_span;

/* What is updated beside the exchange of a halo. */
typedef struct qr_cuda_overlap {
    bool enabled;
    bool in_graphs;      /* too: worth while there */
    bool begun;          /* begin_update has been called for the step to come */
    qr_part interior;    /* agents that see no halo vote; */
    qr_part border[2];   /* those before and behind them */
    cudaStream_t stream; /* of the interior; halo and border are in front of it where both want the device */
    cudaEvent_t forked;
    cudaEvent_t done;
    qr_cuda_span span; /* of the interior */
} qr_cuda_overlap;

struct qr_backend {
    const qr_model *model;
    const qr_network *network;
    int threads; /* of this rank, for work at the start */
    double timeout_s;
    bool (*must_give_up)(void *context);
    void *context;
    bool device_times;
    bool link_fails; /* on demand */
    bool is_lost;    /* the device does not answer: whatever waits for it would wait for ever */
    int device;
    char device_name[64];
    unsigned char device_id[QR_DEVICE_ID_BYTES];
    cudaStream_t stream;
    cudaEvent_t done;
    qr_cuda_span batch; /* the batch or call in progress */
    /* Where device_times: the first step of every graph, and of a sweep its first colours. */
    qr_cuda_span halo_of[QR_CUDA_TIMED_COLOURS];
    qr_cuda_span update_of[QR_CUDA_TIMED_COLOURS];
    qr_cuda_span reduce;
    qr_cuda_overlap overlap;
    qr_counters counters;
    double bytes_per_step;
    int64_t planned_bytes; /* of device memory, in all, as far as known before any is taken */
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

    void *registered; /* the caller's memory; NULL: none */
    size_t registered_bytes;
    uint8_t *staging;    /* device, QR_DEVICE_STAGING bytes: votes on their way in and out */
    int64_t *handed_in;  /* device: [2][n_options] */
    int64_t *handed_out; /* pinned: the same, or a row */

    bool resident;             /* many steps in one launch instead of a graph */
    bool is_up_to_date;        /* halo and tally on the device; steps in one launch keep them so */
    qr_loop_state *loop_state; /* device */
    qr_mail *mail;             /* pinned */
    uint32_t batches;          /* of many steps in a launch, numbered from 1 */
    qr_consensus reported;     /* where the device said that the last of them ended; */
    int64_t reported_step;     /* -1: the launch takes no other batch */
    cudaGraphExec_t graph;     /* graph_steps steps */
    int64_t graph_steps;
    int64_t *row_votes; /* pinned: [QR_DEVICE_ROWS][n_options] */
    uint64_t *row_leaders;
    qr_nccl *nccl; /* parts that were joined; NULL otherwise */
    int n_parts;
    qr_cuda_frames *frames; /* states in frames; NULL: all in part.state */
    char description[192];
};

/* QR_DEVICE "CUDA: <what>: <reason>", or QR_RESOURCE where memory is short; QR_OK for cudaSuccess. */
qr_status qr_cuda_check(cudaError_t error, const char *what);

/* Zeroed device memory that lives as long as the backend. At least one byte. */
qr_status qr_cuda_allocate(qr_backend *backend, int64_t count, int64_t size, const char *what, void **out);

/* The same filled from the host. */
qr_status qr_cuda_upload(qr_backend *backend, const void *from, int64_t count, int64_t size, const char *what,
                         void **out);

/* Waits for everything on the stream. QR_DEVICE when the device does not answer within the backend's timeout_s: it is
 * lost from then on, and nothing waits for it again. QR_TRANSIENT when another part failed and this wait would be in
 * vain. */
qr_status qr_cuda_wait(qr_backend *backend);

/* The same for whatever was enqueued before an event was recorded. */
qr_status qr_cuda_wait_event(qr_backend *backend, cudaEvent_t event);

/* QR_DEVICE once the device is lost: before work that a stuck stream would block. */
qr_status qr_cuda_check_lost(const qr_backend *backend);

/* As qr_error for a wait that took too long; the device counts as lost. */
qr_status qr_cuda_lose(qr_backend *backend);

/* times.c */
qr_status qr_cuda_make_times(qr_backend *backend);
void qr_cuda_destroy_times(qr_backend *backend);
/* Kernels between these two count as kernel time. The second waits, and adds their time to *phase as well. */
qr_status qr_cuda_begin_work(qr_backend *backend);
qr_status qr_cuda_finish_work(qr_backend *backend, double *phase);
/* The same without a wait, for work that is waited for elsewhere. */
qr_status qr_cuda_end_work(qr_backend *backend);
qr_status qr_cuda_take_work(qr_backend *backend, double *phase);
/* What an interior took counts as kernel time and as part of the update, once both are over. */
qr_status qr_cuda_take_interior(qr_backend *backend);
/* Around a phase of step s of a graph that is being recorded; nothing where device_times is off or s is not timed. */
qr_status qr_cuda_mark(qr_backend *backend, int64_t s, cudaEvent_t event, cudaStream_t stream);
/* After a batch of so many steps: what its last graph's first step took, if it was taken, stands for them all. */
qr_status qr_cuda_take_phases(qr_backend *backend, int64_t taken);
/* Measures the copy bandwidth, in a few milliseconds, where memory for it is free. */
qr_status qr_cuda_measure_copy(qr_backend *backend);

/* Makes the device that ranks of this place drive the current one. QR_ENVIRONMENT where there is none. n_devices: of
 * the machine; may be NULL. */
qr_status qr_cuda_use_device(int place, int *device, int *n_devices);

/* Device memory that votes, network, weights and so many bytes of states will take; the rest is small. */
int64_t qr_cuda_planned_bytes(const qr_backend_setup *setup, int64_t state_bytes);

/* part.c: fills backend->part; allocates votes, states (unless they are in frames), lists and weights; first votes and
 * states. */
qr_status qr_cuda_make_part(qr_backend *backend, const uint8_t *file_votes);
int64_t qr_cuda_bytes_estimate(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view);

/* halo.c */
qr_status qr_cuda_make_halo(qr_backend *backend);
qr_status qr_cuda_halo_pack(qr_backend *backend, const qr_halo_peer *peer, void *message);
qr_status qr_cuda_halo_place(qr_backend *backend, const qr_halo_peer *peer, const void *message);
qr_status qr_cuda_halo_buffers(qr_backend *backend, const qr_halo_peer *peer, bool on_device, void **send,
                               void **receive);

/* overlap.c: where the part is large enough (wanted, unless that is 0: agents of an interior from which on it is), it
 * is enabled. An interior is forked from the backend's stream, launched beside what follows there, and joined again.
 * `recorded`: as step s of a graph. */
qr_status qr_cuda_make_overlap(qr_backend *backend, int64_t wanted);
void qr_cuda_destroy_overlap(qr_backend *backend);
qr_status qr_cuda_fork(qr_backend *backend);
qr_status qr_cuda_launch_interior(qr_backend *backend, bool recorded, int64_t s);
qr_status qr_cuda_join_interior(qr_backend *backend);
void qr_cuda_launch_border(qr_backend *backend);
/* Whether graphs overlap: votes of a single part need not travel. */
bool qr_cuda_graph_overlaps(const qr_backend *backend);
/* Whether an interior that was begun is not yet through. */
bool qr_cuda_works_inside(const qr_backend *backend);

/* resident.c: qr_cuda_run for crowds that stay on the device as a whole. */
qr_status qr_cuda_prepare_resident(qr_backend *backend);
qr_status qr_cuda_run_resident(qr_backend *backend, qr_steps *steps);

/* loop.c */
qr_status qr_cuda_count(qr_backend *backend, qr_tally *out);
qr_status qr_cuda_update(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out);
qr_status qr_cuda_begin_update(qr_backend *backend, int64_t step, const qr_tally *before);
qr_status qr_cuda_run(qr_backend *backend, qr_steps *steps);
qr_status qr_cuda_send_control(qr_backend *backend);
/* Before steps are taken: the points of base/fault.h. True when the stream now holds something that fails. */
bool qr_cuda_pass_faults(qr_backend *backend);

/* nccl.c */
qr_status qr_nccl_make_id(void *id);
qr_status qr_cuda_join(qr_backend *backend, int n_parts, int part, const void *id);
/* Aborts what is in flight. No graph that holds its operations may exist any longer: NCCL waits for those. False when
 * NCCL does not come back from it within seconds; the device counts as lost then. */
bool qr_nccl_destroy(qr_nccl *nccl);
/* Enqueued, so that they can be captured: messages to every other part, a single part's to itself; the halo by these;
 * handed-in tallies of all parts. */
void qr_nccl_pack(qr_backend *backend);
qr_status qr_nccl_halo(qr_backend *backend);
qr_status qr_nccl_gather(qr_backend *backend);
/* Whether the communicator has failed: QR_DEVICE here, QR_TRANSIENT on another rank, which knows more. */
qr_status qr_nccl_check(qr_backend *backend);

#endif
