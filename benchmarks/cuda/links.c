#include "links.h"

#include "base/timer.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>

enum { SERIES = 9, COPIES = 8, PAGES = 2000, WARM_UP = 20 };

static const size_t copied_bytes = (size_t)64 << 20;

/* Memory on both sides: 0 on its way in, 1 out. */
typedef struct sides {
    cudaStream_t stream[2];
    void *host[2];
    void *device[2];
} sides;

static bool works(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        (void)fprintf(stderr, "links: %s: %s\n", what, cudaGetErrorString(error));
    }
    return error == cudaSuccess;
}

static bool begin(sides *s)
{
    bool fine = true;
    for (int way = 0; way < 2 && fine; way++) {
        fine = works(cudaStreamCreateWithFlags(&s->stream[way], cudaStreamNonBlocking), "making a stream") &&
               works(cudaHostAlloc(&s->host[way], copied_bytes, cudaHostAllocDefault), "pinned memory") &&
               works(cudaMalloc(&s->device[way], copied_bytes), "device memory");
    }
    return fine;
}

static void end(sides *s)
{
    for (int way = 0; way < 2; way++) {
        (void)cudaFree(s->device[way]);
        (void)cudaFreeHost(s->host[way]);
        if (s->stream[way] != NULL) {
            (void)cudaStreamDestroy(s->stream[way]);
        }
    }
}

static bool copy(const sides *s, int way, size_t bytes)
{
    return way == 0
               ? works(cudaMemcpyAsync(s->device[0], s->host[0], bytes, cudaMemcpyHostToDevice, s->stream[0]), "in")
               : works(cudaMemcpyAsync(s->host[1], s->device[1], bytes, cudaMemcpyDeviceToHost, s->stream[1]), "out");
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

double limit_link(bool in, bool out)
{
    const bool wanted[2] = {in, out};
    double seconds[SERIES] = {0};
    sides s = {0};
    bool fine = begin(&s);
    for (int series = -1; series < SERIES && fine; series++) {
        const double since = qr_now_s();
        for (int c = 0; c < COPIES && fine; c++) {
            for (int way = 0; way < 2 && fine; way++) {
                fine = !wanted[way] || copy(&s, way, copied_bytes);
            }
        }
        for (int way = 0; way < 2 && fine; way++) {
            fine = works(cudaStreamSynchronize(s.stream[way]), "waiting");
        }
        if (series >= 0) {
            seconds[series] = qr_now_s() - since;
        }
    }
    end(&s);
    if (!fine) {
        return -1;
    }
    qsort(seconds, SERIES, sizeof seconds[0], compare_doubles);
    return ((in ? 1.0 : 0.0) + (out ? 1.0 : 0.0)) * COPIES * (double)copied_bytes / seconds[SERIES / 2];
}

double limit_link_page(size_t bytes, bool in, double *p99)
{
    static double seconds[PAGES];
    const int way = in ? 0 : 1;
    sides s = {0};
    bool fine = bytes <= copied_bytes && begin(&s);
    for (int page = -WARM_UP; page < PAGES && fine; page++) {
        const double since = qr_now_s();
        fine = copy(&s, way, bytes) && works(cudaStreamSynchronize(s.stream[way]), "waiting");
        if (page >= 0) {
            seconds[page] = qr_now_s() - since;
        }
    }
    end(&s);
    if (!fine) {
        return -1;
    }
    qsort(seconds, PAGES, sizeof seconds[0], compare_doubles);
    *p99 = seconds[PAGES * 99 / 100];
    return seconds[PAGES / 2];
}
