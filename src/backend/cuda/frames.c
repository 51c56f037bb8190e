/* States in frames: where they lie, and the streams on which they are worked on. */
#include "backend/cuda/frame_parts.h"

#include "base/memory.h"

#include <stdlib.h>

/* Brings `done` up to date, and adds up how long kernels took. Never waits. */
qr_status qr_cuda_frames_look(qr_backend *backend, qr_cuda_queue_name name)
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check_lost(backend);
    while (status == QR_OK && q->done < q->issued) {
        const int64_t slot = (q->done + 1) % QR_CUDA_IN_FLIGHT;
        const cudaError_t state = cudaEventQuery(q->end[slot]);
        if (state == cudaErrorNotReady) {
            break;
        }
        status = qr_cuda_check(state, "asking whether copies and updates are done");
        if (status == QR_OK && name == QR_CUDA_UPDATES) {
            float milliseconds = 0;
            status = qr_cuda_check(cudaEventElapsedTime(&milliseconds, q->begin[slot], q->end[slot]),
                                   "asking how long kernels took");
            backend->counters.kernel_s += 1e-3 * (double)milliseconds;
            backend->counters.update_s += 1e-3 * (double)milliseconds;
        }
        q->done += status == QR_OK ? 1 : 0;
    }
    return status;
}

qr_status qr_cuda_frames_wait(qr_backend *backend, qr_cuda_queue_name name, int64_t call)
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    if (call > q->issued) {
        return qr_error(QR_INTERNAL, "waiting for call %lld of %lld", (long long)call, (long long)q->issued);
    }
    qr_status status = qr_cuda_frames_look(backend, name);
    while (status == QR_OK && q->done < call) {
        status = qr_cuda_wait_event(backend, q->end[call % QR_CUDA_IN_FLIGHT]);
        if (status == QR_OK) {
            status = qr_cuda_frames_look(backend, name);
        }
    }
    return status;
}

/* Whatever the queue is given next comes behind these calls of the others. */
static qr_status follow(qr_backend *backend, qr_cuda_queue_name name, const int64_t calls[QR_CUDA_QUEUES])
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    qr_status status = QR_OK;
    for (int other = 0; other < QR_CUDA_QUEUES && status == QR_OK; other++) {
        const qr_cuda_queue *before = &backend->frames->queues[other];
        if (other == (int)name || calls[other] <= q->follows[other]) {
            continue;
        }
        if (calls[other] > before->done) {
            status = qr_cuda_check(cudaStreamWaitEvent(q->stream, before->end[calls[other] % QR_CUDA_IN_FLIGHT], 0),
                                   "ordering copies and updates");
        }
        q->follows[other] = calls[other];
    }
    return status;
}

/* Around what is given to a stream as one call. */
qr_status qr_cuda_frames_begin_call(qr_backend *backend, qr_cuda_queue_name name, const int64_t follows[QR_CUDA_QUEUES])
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK && q->issued - q->done >= QR_CUDA_IN_FLIGHT) {
        status = qr_cuda_frames_wait(backend, name, q->issued + 1 - QR_CUDA_IN_FLIGHT);
    }
    if (status == QR_OK) {
        status = follow(backend, name, follows);
    }
    if (status == QR_OK && name == QR_CUDA_UPDATES) {
        status = qr_cuda_check(cudaEventRecord(q->begin[(q->issued + 1) % QR_CUDA_IN_FLIGHT], q->stream),
                               "recording an event");
    }
    return status;
}

qr_status qr_cuda_frames_end_call(qr_backend *backend, qr_cuda_queue_name name)
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check(cudaGetLastError(), "launching kernels");
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventRecord(q->end[(q->issued + 1) % QR_CUDA_IN_FLIGHT], q->stream),
                               "recording an event");
    }
    if (status == QR_OK) {
        q->issued++;
    }
    return status;
}

static bool is_within(const void *memory, size_t bytes, const void *range, size_t range_bytes)
{
    const unsigned char *from = memory;
    const unsigned char *begin = range;
    return range != NULL && from >= begin && from + bytes <= begin + range_bytes;
}

bool qr_cuda_frames_is_pinned(const qr_backend *backend, const void *memory, size_t bytes)
{
    const qr_cuda_pinned *ranges = backend->frames->pinned;
    bool pinned = is_within(memory, bytes, backend->registered, backend->registered_bytes);
    for (size_t i = 0; i < backend->frames->n_pinned && !pinned; i++) {
        pinned = is_within(memory, bytes, ranges[i].memory, ranges[i].bytes);
    }
    return pinned;
}

qr_status qr_cuda_frames_allocate_host(qr_backend *backend, size_t bytes, void **out)
{
    qr_cuda_frames *frames = backend->frames;
    void *memory = NULL;
    qr_status status = qr_grow(&frames->pinned, &frames->pinned_capacity, frames->n_pinned + 1, sizeof(qr_cuda_pinned),
                               "pinned memory");
    if (status != QR_OK) {
        return status;
    }
    const cudaError_t error = cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return qr_error(QR_RESOURCE,
                        "%zu bytes (%.2f GiB) of pinned host memory for pages cannot be had. Use a smaller "
                        "memory.tiers.cpu.capacity, or raise the machine's limit of locked memory",
                        bytes, (double)bytes * 0x1p-30);
    }
    status = qr_cuda_check(error, "pinned memory for pages");
    if (status == QR_OK) {
        ((qr_cuda_pinned *)frames->pinned)[frames->n_pinned++] = (qr_cuda_pinned){.memory = memory, .bytes = bytes};
        *out = memory;
    }
    return status;
}

void qr_cuda_frames_free_host(qr_backend *backend, void *memory)
{
    qr_cuda_frames *frames = backend->frames;
    qr_cuda_pinned *ranges = frames->pinned;
    for (size_t i = 0; i < frames->n_pinned; i++) {
        if (ranges[i].memory == memory) {
            ranges[i] = ranges[--frames->n_pinned];
            for (int name = 0; name < QR_CUDA_QUEUES; name++) { /* as giving back does, but that has no bound */
                (void)qr_cuda_frames_wait(backend, (qr_cuda_queue_name)name, frames->queues[name].issued);
            }
            if (!backend->is_lost) {
                (void)cudaFreeHost(memory);
            }
            return;
        }
    }
}

static qr_status make_queue(qr_backend *backend, qr_cuda_queue_name name)
{
    qr_cuda_queue *q = &backend->frames->queues[name];
    const unsigned flags = name == QR_CUDA_UPDATES ? cudaEventDefault : cudaEventDisableTiming;
    qr_status status = QR_OK;
    if (name == QR_CUDA_UPDATES) {
        q->stream = backend->stream;
    } else {
        status = qr_cuda_check(cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking), "making a stream");
    }
    for (int i = 0; i < QR_CUDA_IN_FLIGHT && status == QR_OK; i++) {
        status = qr_cuda_check(cudaEventCreateWithFlags(&q->end[i], flags), "making an event");
        if (status == QR_OK && name == QR_CUDA_UPDATES) {
            status = qr_cuda_check(cudaEventCreateWithFlags(&q->begin[i], flags), "making an event");
        }
    }
    return status;
}

qr_status qr_cuda_plan_frames(qr_backend *backend, const qr_backend_setup *setup)
{
    const int64_t count = backend->network->own.count;
    qr_cuda_frames *frames = NULL;
    if (backend->model->state_dim <= 0 || setup->page_agents <= 0 || setup->page_agents % QR_DEVICE_GROUP != 0) {
        return qr_error(QR_INTERNAL, "frames of %lld agents with states of %lld numbers", (long long)setup->page_agents,
                        (long long)backend->model->state_dim);
    }
    qr_status status = qr_allocate(1, sizeof *frames, "frames", (void **)&frames);
    if (status != QR_OK) {
        return status;
    }
    backend->frames = frames;
    frames->page_agents = setup->page_agents;
    frames->n_frames = setup->n_frames;
    frames->n_pages = (count + setup->page_agents - 1) / setup->page_agents;
    frames->agent_bytes = backend->model->state_dim * (int64_t)sizeof(float);
    if (frames->n_pages > UINT32_MAX || frames->n_frames > UINT32_MAX) {
        return qr_error(QR_USAGE, "memory.page: pages of %lld agents are too small for %lld agents",
                        (long long)setup->page_agents, (long long)count);
    }
    return QR_OK;
}

qr_status qr_cuda_make_frames(qr_backend *backend)
{
    qr_cuda_frames *frames = backend->frames;
    backend->part.decides = 0;
    qr_status status =
        qr_allocate((size_t)frames->n_frames, sizeof *frames->last, "the table of frames", (void **)&frames->last);
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, frames->n_frames, frames->page_agents * frames->agent_bytes,
                                  "frames for agent states", (void **)&frames->memory);
    }
    for (int name = 0; name < QR_CUDA_QUEUES && status == QR_OK; name++) {
        status = make_queue(backend, (qr_cuda_queue_name)name);
    }
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

/* The caller has freed device memory, which waits for all copies. */
void qr_cuda_destroy_frames(qr_backend *backend)
{
    qr_cuda_frames *frames = backend->frames;
    if (frames == NULL) {
        return;
    }
    qr_cuda_pinned *ranges = frames->pinned;
    for (size_t i = 0; i < frames->n_pinned && !backend->is_lost; i++) {
        (void)cudaFreeHost(ranges[i].memory);
    }
    for (int name = 0; name < QR_CUDA_QUEUES && !backend->is_lost; name++) {
        qr_cuda_queue *q = &frames->queues[name];
        for (int i = 0; i < QR_CUDA_IN_FLIGHT; i++) {
            if (q->begin[i] != NULL) {
                (void)cudaEventDestroy(q->begin[i]);
            }
            if (q->end[i] != NULL) {
                (void)cudaEventDestroy(q->end[i]);
            }
        }
        if (name != QR_CUDA_UPDATES && q->stream != NULL) {
            (void)cudaStreamDestroy(q->stream);
        }
    }
    free(frames->pinned);
    free(frames->last);
    free(frames);
    backend->frames = NULL;
}
