#include "fault.h"

#include <stdint.h>

static __global__ void trap()
{
    __trap();
}

extern "C" void qr_launch_trap(cudaStream_t stream)
{
    trap<<<1, 1, 0, stream>>>();
}

static __device__ uint64_t now_ns()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

static __global__ void stall(uint64_t duration_ns)
{
    for (uint64_t since = now_ns(); now_ns() - since < duration_ns;) {
        __nanosleep(1000000);
    }
}

extern "C" void qr_launch_stall(double seconds, cudaStream_t stream)
{
    stall<<<1, 1, 0, stream>>>((uint64_t)(seconds * 1e9));
}
