#include "backend/cuda/cuda.h"

#include "base/memory.h"
#include "base/timer.h"

#include <limits.h>
#include <time.h>

/* Longest wait for a device; a batch is made to take a small part of a second. */
static const double patience_s = 300.0;

qr_status qr_cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return QR_OK;
    }
    qr_status status = error == cudaErrorMemoryAllocation ? QR_RESOURCE : QR_DEVICE;
    return qr_error(status, "CUDA: %s: %s", what, cudaGetErrorString(error));
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
        size_t available = 0;
        size_t total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&available, &total);
        return qr_error(QR_RESOURCE,
                        "GPU %d (%s) has %.2f GiB free of %.2f GiB, and %s need %.2f GiB more after %.2f GiB; use more "
                        "ranks with a GPU each, fewer agents (agents.count, network.size) or a smaller model.state_dim",
                        backend->device, backend->device_name, (double)available * 0x1p-30, (double)total * 0x1p-30,
                        what, (double)bytes * 0x1p-30, (double)backend->allocated_bytes * 0x1p-30);
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
        status = qr_cuda_check(cudaStreamSynchronize(backend->stream), what);
    }
    if (status == QR_OK) {
        *out = memory;
    }
    return status;
}

qr_status qr_cuda_wait(qr_backend *backend)
{
    qr_status status = qr_cuda_check(cudaGetLastError(), "launching kernels");
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventRecord(backend->done, backend->stream), "recording an event");
    }
    double since = qr_now_s();
    for (int64_t looks = 0; status == QR_OK; looks++) {
        cudaError_t state = cudaEventQuery(backend->done);
        if (state != cudaErrorNotReady) {
            return qr_cuda_check(state, "waiting for the device");
        }
        double waited = qr_now_s() - since;
        if (looks % 64 == 63 && backend->nccl != NULL) {
            status = qr_nccl_check(backend);
        }
        if (waited > patience_s) {
            return qr_error(QR_DEVICE, "GPU %d (%s) has not answered for %.0f s", backend->device, backend->device_name,
                            waited);
        }
        if (waited > 1e-3) { /* a long batch: leave the core to others */
            struct timespec pause = {.tv_nsec = 50000};
            (void)nanosleep(&pause, NULL);
        }
    }
    return status;
}
