/* How long the device works, and how fast its memory is. */
#include "backend/cuda/cuda.h"

static const size_t copied_bytes = (size_t)1 << 28; /* several times the second-level cache */
enum { COPIES = 4 };

static qr_status make_span(qr_cuda_span *span)
{
    qr_status status = qr_cuda_check(cudaEventCreate(&span->begin), "making an event");
    return status == QR_OK ? qr_cuda_check(cudaEventCreate(&span->end), "making an event") : status;
}

static void destroy_span(qr_cuda_span *span)
{
    if (span->begin != NULL) {
        (void)cudaEventDestroy(span->begin);
    }
    if (span->end != NULL) {
        (void)cudaEventDestroy(span->end);
    }
}

qr_status qr_cuda_make_times(qr_backend *backend)
{
    qr_status status = make_span(&backend->batch);
    if (!backend->device_times || status != QR_OK) {
        return status;
    }
    for (int colour = 0; colour < QR_CUDA_TIMED_COLOURS && status == QR_OK; colour++) {
        status = make_span(&backend->halo_of[colour]);
        if (status == QR_OK) {
            status = make_span(&backend->update_of[colour]);
        }
    }
    backend->counters.has_phases = true;
    return status == QR_OK ? make_span(&backend->reduce) : status;
}

void qr_cuda_destroy_times(qr_backend *backend)
{
    destroy_span(&backend->batch);
    destroy_span(&backend->reduce);
    for (int colour = 0; colour < QR_CUDA_TIMED_COLOURS; colour++) {
        destroy_span(&backend->halo_of[colour]);
        destroy_span(&backend->update_of[colour]);
    }
}

static qr_status record(const qr_backend *backend, cudaEvent_t event)
{
    return qr_cuda_check(cudaEventRecord(event, backend->stream), "recording an event");
}

static qr_status seconds_of(const qr_cuda_span *span, double *seconds)
{
    float milliseconds = 0;
    qr_status status =
        qr_cuda_check(cudaEventElapsedTime(&milliseconds, span->begin, span->end), "asking how long kernels took");
    if (status == QR_OK) {
        *seconds = 1e-3 * (double)milliseconds;
    }
    return status;
}

qr_status qr_cuda_begin_work(qr_backend *backend)
{
    return record(backend, backend->batch.begin);
}

qr_status qr_cuda_end_work(qr_backend *backend)
{
    return record(backend, backend->batch.end);
}

qr_status qr_cuda_take_work(qr_backend *backend, double *phase)
{
    double seconds = 0;
    qr_status status = seconds_of(&backend->batch, &seconds);
    backend->counters.kernel_s += seconds;
    if (phase != NULL) {
        *phase += seconds;
    }
    return status;
}

qr_status qr_cuda_finish_work(qr_backend *backend, double *phase)
{
    qr_status status = qr_cuda_end_work(backend);
    if (status == QR_OK) {
        status = qr_cuda_wait(backend);
    }
    return status == QR_OK ? qr_cuda_take_work(backend, phase) : status;
}

qr_status qr_cuda_take_interior(qr_backend *backend)
{
    double seconds = 0;
    qr_status status = seconds_of(&backend->overlap.span, &seconds);
    backend->counters.kernel_s += seconds;
    backend->counters.update_s += seconds;
    return status;
}

qr_status qr_cuda_mark(qr_backend *backend, int64_t s, cudaEvent_t event, cudaStream_t stream)
{
    if (!backend->device_times || s != 0) {
        return QR_OK;
    }
    return qr_cuda_check(cudaEventRecordWithFlags(event, stream, cudaEventRecordExternal), "recording an event");
}

/* Where an interior is updated meanwhile, the halo takes what of it the interior does not hide, and the update all the
 * rest of the two. */
static qr_status split_phases(const qr_backend *backend, double *halo, double *update)
{
    const qr_cuda_overlap *overlap = &backend->overlap;
    const cudaEvent_t start = backend->halo_of[0].begin;
    const qr_cuda_span spans[] = {{start, backend->halo_of[0].end},
                                  {start, overlap->span.begin},
                                  {start, overlap->span.end},
                                  {start, backend->update_of[0].end}};
    double at[4] = {0};
    qr_status status = QR_OK;
    for (int i = 0; i < 4 && status == QR_OK; i++) {
        status = seconds_of(&spans[i], &at[i]);
    }
    double alone = at[1] < at[0] ? at[1] : at[0]; /* before the interior begins, */
    double after = at[0] > at[2] ? at[0] - at[2] : 0.0;
    *halo = alone + after;
    *update = at[3] - *halo;
    return status;
}

qr_status qr_cuda_take_phases(qr_backend *backend, int64_t taken)
{
    const qr_part *part = &backend->part;
    int n_colours = part->sweeps ? part->lattice.n_colours : 1;
    int timed = n_colours < QR_CUDA_TIMED_COLOURS ? n_colours : QR_CUDA_TIMED_COLOURS;
    double halo = 0;
    double update = 0;
    double reduce = 0;
    qr_status status = QR_OK;
    bool overlaps = qr_cuda_graph_overlaps(backend);
    if (overlaps) {
        status = split_phases(backend, &halo, &update);
    }
    for (int colour = 0; colour < timed && status == QR_OK && !overlaps; colour++) {
        double seconds = 0;
        status = seconds_of(&backend->halo_of[colour], &seconds);
        halo += seconds;
        if (status == QR_OK) {
            status = seconds_of(&backend->update_of[colour], &seconds);
            update += seconds;
        }
    }
    if (status == QR_OK && !part->decides) {
        status = seconds_of(&backend->reduce, &reduce);
    }
    if (status == QR_OK) {
        double colours = (double)taken * n_colours / timed;
        backend->counters.halo_s += halo * colours;
        backend->counters.update_s += update * colours;
        backend->counters.reduce_s += reduce * (double)taken;
    }
    return status;
}

qr_status qr_cuda_measure_copy(qr_backend *backend)
{
    void *from = NULL;
    void *to = NULL;
    size_t available = 0;
    size_t total = 0;
    double seconds = 0;
    qr_status status = qr_cuda_check(cudaMemGetInfo(&available, &total), "asking for free memory");
    if (status != QR_OK || available < 4 * copied_bytes) {
        return status;
    }
    /* Other ranks may share the device and take the memory meanwhile: then the bandwidth stays unknown. */
    if (cudaMalloc(&from, copied_bytes) != cudaSuccess || cudaMalloc(&to, copied_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        (void)cudaFree(from);
        return QR_OK;
    }
    for (int copy = 0; copy <= COPIES && status == QR_OK; copy++) {
        if (copy == 1) { /* the first one warms up */
            status = qr_cuda_begin_work(backend);
        }
        if (status == QR_OK) {
            status = qr_cuda_check(cudaMemcpyAsync(to, from, copied_bytes, cudaMemcpyDeviceToDevice, backend->stream),
                                   "copying");
        }
    }
    if (status == QR_OK) {
        status = qr_cuda_end_work(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_wait(backend);
    }
    if (status == QR_OK) {
        status = seconds_of(&backend->batch, &seconds);
    }
    if (status == QR_OK && seconds > 0.0) {
        backend->counters.copy_bytes_per_s = 2.0 * COPIES * (double)copied_bytes / seconds;
    }
    if (!backend->is_lost) { /* freeing waits for the device */
        (void)cudaFree(from);
        (void)cudaFree(to);
    }
    return status;
}
