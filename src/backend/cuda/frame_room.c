/* How many frames a device has room for, and how fast pages get there and back. */
#include "backend/cuda/frame_ops.h"

#include "base/timer.h"

/* Left alone: what the driver takes for kernels and their stacks, and for copies of this and that. */
static const int64_t least_spare_bytes = (int64_t)512 << 20;
enum { SPARE_SHARE = 33 }; /* or 1 / 33 of the device, if that is more */

enum { REPEATS = 3, N_RATES = 3 };
static const size_t copied_bytes = (size_t)384 << 20; /* each time and way, in copies of */
static const size_t most_at_once = (size_t)64 << 20;
static const size_t least_at_once = (size_t)1 << 20; /* where frames leave little memory */

qr_status qr_cuda_frame_room(const qr_backend_setup *setup, int64_t *n_frames, int64_t *bytes)
{
    const int64_t frame_bytes = setup->page_agents * setup->model->state_dim * (int64_t)sizeof(float);
    size_t available = 0;
    size_t total = 0;
    int device = 0;
    int n_devices = 1;
    if (frame_bytes <= 0) {
        return qr_error(QR_INTERNAL, "frames of %lld bytes", (long long)frame_bytes);
    }
    qr_status status = qr_cuda_use_device(setup->place, &device, &n_devices);
    if (status == QR_OK) {
        status = qr_cuda_check(cudaMemGetInfo(&available, &total), "asking for free memory");
    }
    if (status != QR_OK) {
        return status;
    }
    const int sharers = setup->places > device ? (setup->places - 1 - device) / n_devices + 1 : 1;
    available /= (size_t)sharers;
    int64_t spare = (int64_t)(total / SPARE_SHARE);
    spare = spare > least_spare_bytes ? spare : least_spare_bytes;
    const int64_t planned = qr_cuda_planned_bytes(setup, 0);
    const int64_t left = (int64_t)available - spare - planned;
    if (left < frame_bytes) {
        return qr_error(
            QR_RESOURCE,
            "GPU %d has no room for pages of agent states: %.2f GiB are free for this rank, of which %.2f GiB are "
            "needed for votes, network and weights and %.2f GiB are left alone; a page takes %.2f GiB. Use "
            "more ranks with a GPU each, a smaller memory.page, or a memory.tiers.gpu.capacity, which is "
            "tried as it is",
            device, (double)available * 0x1p-30, (double)planned * 0x1p-30, (double)spare * 0x1p-30,
            (double)frame_bytes * 0x1p-30);
    }
    *n_frames = left / frame_bytes;
    *bytes = (int64_t)available;
    return QR_OK;
}

/* Memory on both sides for copies in both directions. */
typedef struct link_buffers {
    size_t bytes; /* of each */
    cudaStream_t stream[2];
    void *host[2];
    void *device[2];
} link_buffers;

/* Seconds of copied_bytes in each wanted direction: 0 in, 1 out. */
static qr_status time_copies(qr_backend *backend, const link_buffers *buffers, const bool wanted[2], double *seconds)
{
    qr_status status = QR_OK;
    const double since = qr_now_s();
    for (size_t copied = 0; copied < copied_bytes && status == QR_OK; copied += buffers->bytes) {
        if (wanted[0]) {
            status = qr_cuda_check(cudaMemcpyAsync(buffers->device[0], buffers->host[0], buffers->bytes,
                                                   cudaMemcpyHostToDevice, buffers->stream[0]),
                                   "copying in");
        }
        if (wanted[1] && status == QR_OK) {
            status = qr_cuda_check(cudaMemcpyAsync(buffers->host[1], buffers->device[1], buffers->bytes,
                                                   cudaMemcpyDeviceToHost, buffers->stream[1]),
                                   "copying out");
        }
    }
    for (int way = 0; way < 2 && status == QR_OK; way++) {
        status = qr_cuda_check(cudaEventRecord(backend->done, buffers->stream[way]), "recording an event");
        if (status == QR_OK) {
            status = qr_cuda_wait_event(backend, backend->done);
        }
    }
    *seconds = qr_now_s() - since;
    return status;
}

static qr_status make_buffers(link_buffers *buffers)
{
    qr_status status = QR_OK;
    for (int way = 0; way < 2 && status == QR_OK; way++) {
        status =
            qr_cuda_check(cudaStreamCreateWithFlags(&buffers->stream[way], cudaStreamNonBlocking), "making a stream");
        if (status == QR_OK) {
            status = qr_cuda_check(cudaHostAlloc(&buffers->host[way], buffers->bytes, cudaHostAllocDefault),
                                   "pinned memory to measure copies with");
        }
        if (status == QR_OK) {
            status = qr_cuda_check(cudaMalloc(&buffers->device[way], buffers->bytes), "memory to measure copies with");
        }
    }
    return status;
}

static void free_buffers(link_buffers *buffers)
{
    for (int way = 0; way < 2; way++) {
        (void)cudaFree(buffers->device[way]);
        (void)cudaFreeHost(buffers->host[way]);
        if (buffers->stream[way] != NULL) {
            (void)cudaStreamDestroy(buffers->stream[way]);
        }
    }
}

/* As large as they can be had; bytes 0: not at all, and nothing is left behind. */
static qr_status make_largest(link_buffers *buffers)
{
    qr_status status = QR_RESOURCE;
    for (size_t bytes = most_at_once; bytes >= least_at_once && status == QR_RESOURCE; bytes /= 2) {
        *buffers = (link_buffers){.bytes = bytes};
        status = make_buffers(buffers);
        if (status == QR_RESOURCE) {
            free_buffers(buffers);
            (void)cudaGetLastError(); /* not to be taken for the next call's */
            *buffers = (link_buffers){0};
        }
    }
    return status == QR_RESOURCE ? QR_OK : status;
}

qr_status qr_cuda_measure_links(qr_backend *backend, double *in, double *out, double *both)
{
    static const bool wanted[N_RATES][2] = {{true, false}, {false, true}, {true, true}};
    double best[N_RATES] = {0};
    link_buffers buffers = {0};
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK) {
        status = make_largest(&buffers);
    }
    for (int repeat = 0; repeat <= REPEATS && buffers.bytes > 0 && status == QR_OK; repeat++) { /* first: warms up */
        for (int rate = 0; rate < N_RATES && status == QR_OK; rate++) {
            double seconds = 0;
            status = time_copies(backend, &buffers, wanted[rate], &seconds);
            const double bytes = (rate == 2 ? 2.0 : 1.0) * (double)copied_bytes;
            if (repeat > 0 && seconds > 0.0 && bytes / seconds > best[rate]) {
                best[rate] = bytes / seconds;
            }
        }
    }
    if (!backend->is_lost) { /* freeing waits for the device */
        free_buffers(&buffers);
    }
    if (status == QR_OK) {
        *in = best[0];
        *out = best[1];
        *both = best[2];
    }
    return status;
}
