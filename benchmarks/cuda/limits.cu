#include "limits.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    THREADS = 256,
    REPEATS = 9,
    COPY_AT_ONCE = 4, /* 16-byte words of a thread under way together */
    CHAINS = 16,      /* independent multiply-adds of a thread */
    FMA_ROUNDS = 8192,
    TILES = 8, /* independent sums of a warp */
    TILE_ROUNDS = 4096,
    TILE_FMAS = 16 * 8 * 16,
    DEGREE = 8,
    LAUNCHES = 3000,
    NODES = 1000
};

static const size_t copy_bytes = (size_t)1 << 31;

/* What a launch works on. */
typedef struct job {
    cudaStream_t stream;
    void *from;
    void *to;
    const uint32_t *list;
    int64_t n;
    int packed;
    uint32_t step;
    unsigned blocks;
    cudaGraphExec_t graph;
} job;

static int failed(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "limits: %s: %s\n", what, cudaGetErrorString(error));
    }
    return error != cudaSuccess;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Median seconds of a launch, after one that does not count; below 0 on failure. */
static double time_launches(void (*launch)(job *), job *work)
{
    double seconds[REPEATS];
    cudaEvent_t begin = NULL;
    cudaEvent_t end = NULL;
    int wrong = failed(cudaEventCreate(&begin), "making an event") || failed(cudaEventCreate(&end), "making an event");
    for (int i = -1; i < REPEATS && !wrong; i++) {
        float ms = 0;
        wrong = failed(cudaEventRecord(begin, work->stream), "recording an event");
        launch(work);
        wrong = wrong || failed(cudaGetLastError(), "launching") ||
                failed(cudaEventRecord(end, work->stream), "recording an event") ||
                failed(cudaEventSynchronize(end), "waiting") ||
                failed(cudaEventElapsedTime(&ms, begin, end), "reading events");
        if (i >= 0) {
            seconds[i] = ms * 1e-3;
        }
    }
    (void)cudaEventDestroy(begin);
    (void)cudaEventDestroy(end);
    if (wrong) {
        return -1;
    }
    qsort(seconds, REPEATS, sizeof seconds[0], compare_doubles);
    return seconds[REPEATS / 2];
}

static int begin_job(job *work)
{
    return failed(cudaStreamCreateWithFlags(&work->stream, cudaStreamNonBlocking), "making a stream");
}

static void end_job(job *work)
{
    (void)cudaFree(work->from);
    (void)cudaFree(work->to);
    (void)cudaFree((void *)work->list);
    if (work->graph != NULL) {
        (void)cudaGraphExecDestroy(work->graph);
    }
    if (work->stream != NULL) {
        (void)cudaStreamDestroy(work->stream);
    }
}

static __global__ void copy_words(const uint4 *from, uint4 *to)
{
    int64_t at = (int64_t)blockIdx.x * THREADS * COPY_AT_ONCE + threadIdx.x;
    uint4 word[COPY_AT_ONCE];
#pragma unroll
    for (int i = 0; i < COPY_AT_ONCE; i++) {
        word[i] = from[at + i * THREADS];
    }
#pragma unroll
    for (int i = 0; i < COPY_AT_ONCE; i++) {
        to[at + i * THREADS] = word[i];
    }
}

static void launch_copy(job *work)
{
    unsigned blocks = (unsigned)(copy_bytes / (sizeof(uint4) * THREADS * COPY_AT_ONCE));
    copy_words<<<blocks, THREADS, 0, work->stream>>>((const uint4 *)work->from, (uint4 *)work->to);
}

static void launch_memcpy(job *work)
{
    (void)cudaMemcpyAsync(work->to, work->from, copy_bytes, cudaMemcpyDeviceToDevice, work->stream);
}

extern "C" double limit_device_copy(void)
{
    job work = {};
    double own = -1;
    double theirs = -1;
    if (!begin_job(&work) && !failed(cudaMalloc(&work.from, copy_bytes), "memory") &&
        !failed(cudaMalloc(&work.to, copy_bytes), "memory") &&
        !failed(cudaMemsetAsync(work.from, 1, copy_bytes, work.stream), "filling memory")) {
        own = time_launches(launch_copy, &work);
        theirs = time_launches(launch_memcpy, &work);
    }
    end_job(&work);
    if (own <= 0 || theirs <= 0) {
        return -1;
    }
    return 2.0 * (double)copy_bytes / (own < theirs ? own : theirs);
}

static __global__ void multiply_add(float factor, float *sink)
{
    float chain[CHAINS];
#pragma unroll
    for (int c = 0; c < CHAINS; c++) {
        chain[c] = (float)(threadIdx.x + c);
    }
#pragma unroll 8
    for (int round = 0; round < FMA_ROUNDS; round++) {
#pragma unroll
        for (int c = 0; c < CHAINS; c++) {
            chain[c] = __fmaf_rn(chain[c], factor, factor);
        }
    }
    float sum = 0;
#pragma unroll
    for (int c = 0; c < CHAINS; c++) {
        sum += chain[c];
    }
    if (sum == -1.0f) { /* never, but the compiler cannot know */
        *sink = sum;
    }
}

/* Each warp adds to tiles of 16 x 8 sums, products of 16 x 16 and 16 x 8 numbers at a time. */
static __global__ void multiply_tiles(uint32_t factor, float *sink)
{
    float sum[TILES][4] = {};
#pragma unroll 4
    for (int round = 0; round < TILE_ROUNDS; round++) {
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                         "{%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(sum[t][0]), "+f"(sum[t][1]), "+f"(sum[t][2]), "+f"(sum[t][3])
                         : "r"(factor), "r"(factor), "r"(factor), "r"(factor), "r"(factor), "r"(factor));
        }
    }
    float all = 0;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        all += sum[t][0] + sum[t][1] + sum[t][2] + sum[t][3];
    }
    if (all == -1.0f) { /* never, but the compiler cannot know */
        *sink = all;
    }
}

static void launch_fma(job *work)
{
    multiply_add<<<work->blocks, THREADS, 0, work->stream>>>(0.5f, (float *)work->to);
}

static void launch_tiles(job *work)
{
    multiply_tiles<<<work->blocks, THREADS, 0, work->stream>>>(0x10001000u, (float *)work->to); /* small: 2^-11 */
}

/* Seconds of a launch that fills the device with blocks of that kernel; *blocks: how many. Below 0 on failure. */
static double time_full(void (*launch)(job *), const void *kernel, double *blocks)
{
    job work = {};
    int device = 0;
    int processors = 0;
    int resident = 0;
    double seconds = -1;
    if (!begin_job(&work) && !failed(cudaMalloc(&work.to, sizeof(float)), "memory") &&
        !failed(cudaGetDevice(&device), "asking for the device") &&
        !failed(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "counting processors") &&
        !failed(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, THREADS, 0),
                "asking for the occupancy")) {
        work.blocks = (unsigned)(processors * resident);
        seconds = time_launches(launch, &work);
    }
    *blocks = (double)work.blocks;
    end_job(&work);
    return seconds;
}

extern "C" double limit_device_fma(void)
{
    double blocks = 0;
    const double seconds = time_full(launch_fma, (const void *)multiply_add, &blocks);
    return seconds > 0 ? blocks * THREADS * CHAINS * FMA_ROUNDS / seconds : -1;
}

extern "C" double limit_device_tensor(void)
{
    double blocks = 0;
    const double seconds = time_full(launch_tiles, (const void *)multiply_tiles, &blocks);
    return seconds > 0 ? blocks * (THREADS / 32) * TILES * TILE_FMAS * TILE_ROUNDS / seconds : -1;
}

static __device__ __forceinline__ uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static __global__ void fill_lists(uint32_t *list, uint8_t *votes, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    votes[i] = (uint8_t)mix((uint32_t)i + 1u);
    for (int j = 0; j < DEGREE; j++) {
        uint32_t random = mix(mix((uint32_t)i) + (uint32_t)j);
        list[i * DEGREE + j] = (uint32_t)(((uint64_t)random * (uint64_t)n) >> 32);
    }
}

static __global__ void gather_votes(const uint32_t *list, const uint8_t *votes, uint8_t *next, int64_t n, int packed,
                                    uint32_t step)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) { /* whole warps: n is a multiple of 32 */
        return;
    }
    uint32_t whom = list[i * DEGREE + (mix((uint32_t)i ^ step) & (DEGREE - 1))];
    if (!packed) {
        next[i] = votes[whom];
        return;
    }
    uint32_t word = __ballot_sync(0xffffffffu, votes[whom >> 3] >> (whom & 7u) & 1u);
    if (threadIdx.x % 32 == 0) {
        ((uint32_t *)next)[i / 32] = word;
    }
}

static void launch_gather(job *work)
{
    work->step += 0x9e3779b9u;
    gather_votes<<<work->blocks, THREADS, 0, work->stream>>>(work->list, (const uint8_t *)work->from,
                                                             (uint8_t *)work->to, work->n, work->packed, work->step);
}

extern "C" double limit_device_gather(int64_t n_agents, int packed)
{
    job work = {};
    double seconds = -1;
    void *list = NULL;
    work.n = n_agents / 32 * 32;
    work.packed = packed;
    work.blocks = (unsigned)((work.n + THREADS - 1) / THREADS);
    if (!begin_job(&work) && !failed(cudaMalloc(&list, (size_t)work.n * DEGREE * sizeof(uint32_t)), "memory") &&
        !failed(cudaMalloc(&work.from, (size_t)work.n), "memory") &&
        !failed(cudaMalloc(&work.to, (size_t)work.n), "memory")) {
        work.list = (const uint32_t *)list;
        fill_lists<<<work.blocks, THREADS, 0, work.stream>>>((uint32_t *)list, (uint8_t *)work.from, work.n);
        seconds = failed(cudaGetLastError(), "filling lists") ? -1 : time_launches(launch_gather, &work);
    } else {
        (void)cudaFree(list);
    }
    end_job(&work);
    return seconds > 0 ? (double)work.n / seconds : -1;
}

static __global__ void nothing(void)
{
}

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

extern "C" double limit_device_launch(double *p99)
{
    static double seconds[LAUNCHES];
    job work = {};
    int wrong = begin_job(&work);
    for (int i = -100; i < LAUNCHES && !wrong; i++) {
        double begin = now_s();
        nothing<<<1, 32, 0, work.stream>>>();
        wrong = failed(cudaStreamSynchronize(work.stream), "an empty kernel");
        if (i >= 0) {
            seconds[i] = now_s() - begin;
        }
    }
    end_job(&work);
    if (wrong) {
        return -1;
    }
    qsort(seconds, LAUNCHES, sizeof seconds[0], compare_doubles);
    *p99 = seconds[LAUNCHES * 99 / 100];
    return seconds[LAUNCHES / 2];
}

static void launch_graph(job *work)
{
    (void)cudaGraphLaunch(work->graph, work->stream);
}

extern "C" double limit_device_node(void)
{
    job work = {};
    cudaGraph_t graph = NULL;
    double seconds = -1;
    int wrong = begin_job(&work) ||
                failed(cudaStreamBeginCapture(work.stream, cudaStreamCaptureModeThreadLocal), "recording a graph");
    for (int i = 0; i < NODES && !wrong; i++) {
        nothing<<<1, 32, 0, work.stream>>>();
    }
    wrong = wrong || failed(cudaStreamEndCapture(work.stream, &graph), "recording a graph") ||
            failed(cudaGraphInstantiate(&work.graph, graph, 0), "making a graph");
    if (!wrong) {
        seconds = time_launches(launch_graph, &work);
    }
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    end_job(&work);
    return seconds > 0 ? seconds / NODES : -1;
}
