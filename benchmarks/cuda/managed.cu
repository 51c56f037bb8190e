/* What the driver's own paging does with the same traffic: managed memory, of which a part is sent to the host and
 * brought back by the kernel that needs it. Never more than the device has free: beyond that some devices hang. */
#include "links.h"

#include <cuda_runtime_api.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 256, SWEEPS = 5 };

static bool works(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "managed: %s: %s\n", what, cudaGetErrorString(error));
    }
    return error == cudaSuccess;
}

static __global__ void touch(float4 *states, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
        float4 x = states[i];
        x.x += 1.0f;
        x.y += 1.0f;
        x.z += 1.0f;
        x.w += 1.0f;
        states[i] = x;
    }
}

static cudaError_t send_to_host(void *memory, size_t bytes, cudaStream_t stream)
{
#if CUDART_VERSION >= 13000
    const cudaMemLocation host = {cudaMemLocationTypeHost, 0};
    return cudaMemPrefetchAsync(memory, bytes, host, 0, stream);
#else
    return cudaMemPrefetchAsync(memory, bytes, cudaCpuDeviceId, stream);
#endif
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* One sweep: `away` bytes leave, then a kernel reads and writes all of it. Milliseconds; below 0 on failure. */
static float time_sweep(char *memory, size_t bytes, size_t away, const cudaEvent_t *events)
{
    float ms = -1;
    bool fine = works(cudaEventRecord(events[0], 0), "recording an event") &&
                works(send_to_host(memory, away, 0), "sending to the host");
    touch<<<4096, THREADS>>>((float4 *)memory, (int64_t)(bytes / sizeof(float4)));
    fine = fine && works(cudaGetLastError(), "launching") &&
           works(cudaEventRecord(events[1], 0), "recording an event") &&
           works(cudaEventSynchronize(events[1]), "waiting") &&
           works(cudaEventElapsedTime(&ms, events[0], events[1]), "reading events");
    return fine ? ms : -1;
}

extern "C" double limit_link_managed(size_t bytes, size_t away)
{
    size_t available = 0;
    size_t total = 0;
    char *memory = NULL;
    cudaEvent_t events[2] = {};
    float ms[SWEEPS] = {};
    bool fine = works(cudaMemGetInfo(&available, &total), "asking for free memory");
    if (fine && bytes > available / 10 * 6) {
        fprintf(stderr, "managed: %zu bytes are not safe with %zu free\n", bytes, available);
        fine = false;
    }
    fine = fine && works(cudaEventCreate(&events[0]), "an event") && works(cudaEventCreate(&events[1]), "an event") &&
           works(cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal), "managed memory") &&
           works(cudaMemset(memory, 0, bytes), "filling memory");
    for (int sweep = -1; sweep < SWEEPS && fine; sweep++) {
        const float took = time_sweep(memory, bytes, away, events);
        fine = took > 0;
        ms[sweep < 0 ? 0 : sweep] = took;
    }
    (void)cudaFree(memory);
    (void)cudaEventDestroy(events[0]);
    (void)cudaEventDestroy(events[1]);
    qsort(ms, SWEEPS, sizeof ms[0], compare_floats);
    return fine ? 1e-3 * (double)ms[SWEEPS / 2] : -1;
}
