/* The kernels that are compiled once per vector width: v3 (AVX2, 32 bytes) and
 * v4 (AVX-512, 64 bytes). Both give the same bits as the plain forms; which one
 * runs is a matter of speed alone. */
#ifndef QR_BACKEND_CPU_SIMD_SIMD_H
#define QR_BACKEND_CPU_SIMD_SIMD_H

#include "backend/cpu/neural_kernel.h"
#include "lattice.h"

#include <stdbool.h>
#include <stdint.h>

enum { QR_SIMD_MAX_PLANES = 4, QR_SIMD_MAX_OPTIONS = 1 << QR_SIMD_MAX_PLANES, QR_SIMD_MAX_DEGREE = 26 };

/* Consecutive words of a periodic lattice or ring to be advanced by one step,
 * all of their agents existing. */
typedef struct qr_plane_task {
    const qr_rule *rule;
    bool voter; /* else majority */
    int dims;
    int64_t size[2]; /* x and y */
    bool rows; /* two dimensions, two options, and rows are whole vectors, as the words of the task are: then only the
                  rows of these agents and those beside them are read, and one vector on either side in the same row */
    int n_planes;
    int n_offsets;
    const qr_lattice_offset *offsets;
    const uint64_t *current[QR_SIMD_MAX_PLANES];
    uint64_t *next[QR_SIMD_MAX_PLANES];
    const uint64_t *frozen; /* of the first word on; NULL: no zealots */
    int64_t first_word;     /* place of the first word in the planes */
    int64_t first_agent;    /* its first agent, a multiple of 64 */
    int64_t n_words;        /* a multiple of qr_simd.words */
    int64_t step;
} qr_plane_task;

/* Consecutive words of a chessboard, a lattice of two dimensions and two colours, in which one colour is to have its
 * turn in place: Potts with two options. Rows are whole pairs of vectors, as the words of the task are; the rows of
 * these agents and those beside them are read, and one word on either side in the same row. */
typedef struct qr_sweep_task {
    const qr_rule *rule;
    int64_t width;
    uint64_t *plane;
    int64_t first_word;  /* place of the first word in the plane */
    int64_t first_agent; /* its first agent */
    int64_t n_words;
    int64_t step;
    int colour;
    bool counts;
} qr_sweep_task;

typedef struct qr_simd {
    const char *name;
    int words; /* 64-bit words to a vector */

    /* Writes task->next and sets counts[k], k < n_options, to the votes in it. */
    void (*planes)(const qr_plane_task *task, int64_t *counts);

    /* Returns how many vote 1 afterwards, where the task says to count. */
    int64_t (*sweep)(const qr_sweep_task *task);

    /* First votes of agents that draw theirs, as qr_model_initial_votes: [n]. */
    void (*draw_votes)(uint64_t seed, uint64_t first_agent, int64_t n, uint32_t n_options, uint8_t *votes);

    /* What qr_neural_batch_init, qr_neural_kernel_pack and qr_neural_kernel_run
     * stand on; 0 < n <= QR_NEURAL_BATCH. */
    size_t (*neural_work_bytes)(const qr_neural *net);
    size_t (*neural_packed_bytes)(const qr_neural *net);
    void (*neural_pack)(const qr_neural *net, void *packed);
    void (*neural)(const qr_neural *net, const void *packed, const float *base, uint64_t seed, int64_t step, int n,
                   qr_neural_batch *batch);
} qr_simd;

extern const qr_simd qr_simd_v3;
#if defined(__x86_64__)
extern const qr_simd qr_simd_v4;
#endif

/* The widest that this processor runs. */
const qr_simd *qr_simd_best(void);

/* "v3" or "v4"; NULL when this processor does not run it. */
const qr_simd *qr_simd_find(const char *name);

#endif
