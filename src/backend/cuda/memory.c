#include "backend/cuda/cuda.h"

#include "base/memory.h"
#include "base/timer.h"

#include <limits.h>
#include <time.h>

enum { LOOKS_AT_A_TIME = 64 };

qr_status qr_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return QR_OK;
    }
    qr_status status = error == cudaErrorMemoryAllocation ? QR_RESOURCE : QR_DEVICE;
    return qr_error(status, "CUDA: %s: %s", what, cudaGetErrorString(error));
}

/* What would make a part smaller, as far as this deck has it. */
static const char *smaller_by(const qr_backend *backend)
{
    if (backend->frames != NULL) {
        return "memory.tiers.gpu.capacity";
    }
    if (backend->model->state_dim > 0) {
        return "memory.tiers.gpu.capacity, model.state_dim, agents.count or network.size";
    }
    return backend->network->rows.row != NULL ? "agents.count or the network's degree" : "agents.count or network.size";
}

static qr_status is_full(const qr_backend *backend, size_t bytes, const char *what)
{
    size_t available = 0;
    size_t total = 0;
    int64_t planned = backend->planned_bytes;
    int64_t least = backend->allocated_bytes + (int64_t)bytes;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&available, &total);
    return qr_error(QR_RESOURCE,
                    "GPU %d (%s) is too small for %lld agents: %s need %zu bytes (%.2f GiB), %zu bytes (%.2f GiB) are "
                    "free; in all this rank needs at least %.2f GiB and has %.2f GiB so far, of %.2f GiB on the GPU. "
                    "Use more ranks with a GPU each, or a smaller %s",
                    backend->device, backend->device_name, (long long)backend->network->own.count, what, bytes,
                    (double)bytes * 0x1p-30, available, (double)available * 0x1p-30,
                    (double)(planned > least ? planned : least) * 0x1p-30, (double)backend->allocated_bytes * 0x1p-30,
                    (double)total * 0x1p-30, smaller_by(backend));
}

qr_status qr_cuda_allocate(qr_backend *backend, int64_t count, int64_t size, const char *what, void **out)
{
    if (count > INT64_MAX / size) {
        return qr_error_memory(SIZE_MAX, what);
    }
    size_t bytes = count * size > 0 ? (size_t)(count * size) : 1;
    void *memory = NULL;
    void *list = backend->allocations;
    qr_status status =
        qr_grow(&list, &backend->allocations_capacity, backend->n_allocations + 1, sizeof(void *), "allocations");
    if (status != QR_OK) {
        return status;
    }
    backend->allocations = list;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
        return is_full(backend, bytes, what);
    }
    backend->allocations[backend->n_allocations++] = memory;
    backend->allocated_bytes += (int64_t)bytes;
    status = qr_cuda_check(cudaMemsetAsync(memory, 0, bytes, backend->stream), what);
    if (status == QR_OK) {
        *out = memory;
    }
    return status;
}

qr_status qr_cuda_upload(qr_backend *backend, const void *from, int64_t count, int64_t size, const char *what,
                         void **out)
{
    void *memory = NULL;
    qr_status status = qr_cuda_allocate(backend, count, size, what, &memory);
    if (status == QR_OK && count > 0) {
        status = qr_cuda_check(
            cudaMemcpyAsync(memory, from, (size_t)(count * size), cudaMemcpyHostToDevice, backend->stream), what);
    }
    if (status == QR_OK) {
        status = qr_cuda_wait(backend);
    }
    if (status == QR_OK) {
        *out = memory;
    }
    return status;
}

qr_status qr_cuda_check_lost(const qr_backend *backend)
{
    return backend->is_lost
               ? qr_error(QR_DEVICE, "GPU %d (%s) has stopped answering", backend->device, backend->device_name)
               : QR_OK;
}

qr_status qr_cuda_lose(qr_backend *backend)
{
    backend->is_lost = true;
    return qr_error(QR_DEVICE, "GPU %d (%s) has not answered for %.3g s (compute.timeout)", backend->device,
                    backend->device_name, backend->timeout_s);
}

/* Whether something else than the device makes a wait vain. */
static qr_status look_around(qr_backend *backend)
{
    if (backend->nccl == NULL) {
        return QR_OK;
    }
    qr_status status = qr_nccl_check(backend);
    if (status == QR_OK && backend->must_give_up != NULL && backend->must_give_up(backend->context)) {
        status = qr_error(QR_TRANSIENT, "another compute rank failed");
    }
    return status;
}

qr_status qr_cuda_wait(qr_backend *backend)
{
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK) {
        status = qr_cuda_check(cudaGetLastError(), "launching kernels");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventRecord(backend->done, backend->stream), "recording an event");
    }
    return status == QR_OK ? qr_cuda_wait_event(backend, backend->done) : status;
}

qr_status qr_cuda_wait_event(qr_backend *backend, cudaEvent_t event)
{
    qr_status status = qr_cuda_check_lost(backend);
    double since = qr_now_s();
    for (int64_t looks = 0; status == QR_OK; looks++) {
        status = looks % LOOKS_AT_A_TIME == 0 ? look_around(backend) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        cudaError_t state = cudaEventQuery(event);
        if (state != cudaErrorNotReady) {
            return qr_cuda_check(state, "waiting for the device");
        }
        double waited = qr_now_s() - since;
        if (waited > backend->timeout_s) {
            return qr_cuda_lose(backend);
        }
        if (waited > 1e-3) { /* a long batch: leave the core to others */
            struct timespec pause = {.tv_nsec = 50000};
            (void)nanosleep(&pause, NULL);
        }
    }
    return status;
}
