/* exp, log and tanh of all 2^32 floats: the device's bits are the host's. One NaN is as good as another. */
#include "exact_math.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

enum { SKIPPED = 77, THREADS = 256, AT_ONCE = 1 << 26, SHOWN = 3 };

typedef enum function { EXP, LOG, TANH, N_FUNCTIONS } function;

static const char *const names[N_FUNCTIONS] = {"exp", "log", "tanh"};

template <int F> static __host__ __device__ float value_of(float x)
{
    return F == EXP ? qr_expf(x) : F == LOG ? qr_logf(x) : qr_tanhf(x);
}

template <int F> static __global__ void evaluate(uint32_t first, float *out)
{
    uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    out[i] = value_of<F>(qr_float_from_bits(first + i));
}

static bool is_nan(uint32_t bits)
{
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

/* How many of the floats with the bits first, first + 1, ... differ; the first few are shown. */
template <int F> static int64_t compare(uint32_t first, const float *device)
{
    int64_t wrong = 0;
#pragma omp parallel for schedule(static) reduction(+ : wrong)
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        uint32_t here = qr_float_bits(value_of<F>(qr_float_from_bits(first + i)));
        uint32_t there = qr_float_bits(device[i]);
        wrong += here != there && !(is_nan(here) && is_nan(there)) ? 1 : 0;
    }
    for (uint32_t i = 0, shown = 0; wrong > 0 && i < AT_ONCE && shown < SHOWN; i++) {
        uint32_t here = qr_float_bits(value_of<F>(qr_float_from_bits(first + i)));
        uint32_t there = qr_float_bits(device[i]);
        if (here != there && !(is_nan(here) && is_nan(there))) {
            printf("%s of %08x: %08x on the host, %08x on the device\n", names[F], first + i, here, there);
            shown++;
        }
    }
    return wrong;
}

/* -1 where the device fails. */
template <int F> static int64_t check(float *device, float *host)
{
    int64_t wrong = 0;
    int64_t numbers = 0;
    for (int64_t first = 0; first < INT64_C(1) << 32; first += AT_ONCE) {
        evaluate<F><<<AT_ONCE / THREADS, THREADS>>>((uint32_t)first, device);
        if (cudaMemcpy(host, device, AT_ONCE * sizeof(float), cudaMemcpyDeviceToHost) != cudaSuccess) {
            return -1;
        }
        wrong += compare<F>((uint32_t)first, host);
        numbers += AT_ONCE;
    }
    printf("%s: %lld of %lld floats differ\n", names[F], (long long)wrong, (long long)numbers);
    (void)fflush(stdout);
    return wrong;
}

int main(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        printf("skipped, there is no CUDA device to test\n");
        return SKIPPED;
    }
    float *device = NULL;
    float *host = (float *)malloc(AT_ONCE * sizeof(float));
    if (host == NULL || cudaMalloc((void **)&device, AT_ONCE * sizeof(float)) != cudaSuccess) {
        printf("no memory\n");
        return 1;
    }
    bool failed = check<EXP>(device, host) != 0;
    failed = check<LOG>(device, host) != 0 || failed;
    failed = check<TANH>(device, host) != 0 || failed;
    if (failed) {
        printf("%s\n", cudaGetErrorString(cudaGetLastError()));
    }
    (void)cudaFree(device);
    free(host);
    return failed ? 1 : 0;
}
