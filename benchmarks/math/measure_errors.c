/* Measures the largest error of kernels/exact_math.h over every float, and the time a value takes.
 *
 *   gcc -std=c11 -O3 -march=x86-64-v3 -ffp-contract=off -Ikernels -D_GNU_SOURCE benchmarks/math/measure_errors.c -o
 * /tmp/errors -lm /tmp/errors          all 2^32 arguments of each function against double (about three minutes)
 *   /tmp/errors 4099     every 4099th */
#include "exact_math.h"
#include "ulp.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LENGTH = 4096, REPEATS = 20000 };

static void exp_array(const float *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = qr_expf(in[i]);
    }
}

static void log_array(const float *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = qr_logf(in[i]);
    }
}

static void tanh_array(const float *restrict in, float *restrict out, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = qr_tanhf(in[i]);
    }
}

static void measure(const char *name, void (*array)(const float *, float *, int), double (*exact)(double),
                    uint32_t stride)
{
    static float in[LENGTH];
    static float out[LENGTH];
    double worst = 0.0;
    float worst_at = 0.0f;
    uint64_t hash = 0;
    uint64_t next = 0;
    while (next >> 32 == 0) {
        int n = 0;
        for (; n < LENGTH && next >> 32 == 0; n++, next += stride) {
            in[n] = qr_float_from_bits((uint32_t)next);
        }
        array(in, out, n);
        for (int i = 0; i < n; i++) {
            double error = qr_error_ulp(out[i], exact((double)in[i]));
            if (error > worst) {
                worst = error;
                worst_at = in[i];
            }
            hash = qr_checksum(hash, out[i]);
        }
    }
    for (int i = 0; i < LENGTH; i++) {
        in[i] = (float)i * (8.0f / LENGTH) + 0.001f;
    }
    struct timespec begin;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < REPEATS; i++) {
        array(in, out, LENGTH);
        in[i % LENGTH] = out[(i + 1) % LENGTH] < 0.0f ? 1.0f : in[i % LENGTH]; /* keeps the loop from being hoisted */
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
    printf("%s: largest error %.4f ulp at %a, checksum %016" PRIx64 ", %.3f ns a value\n", name, worst,
           (double)worst_at, hash, ns / ((double)REPEATS * LENGTH));
}

int main(int argc, char **argv)
{
    uint32_t stride = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1u;
    stride = stride == 0u ? 1u : stride;
    measure("exp", exp_array, exp, stride);
    measure("log", log_array, log, stride);
    measure("tanh", tanh_array, tanh, stride);
    return 0;
}
