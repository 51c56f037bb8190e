/* The neural step for a batch of agents: the same bits as kernels/rules/neural.h, many agents at a time.
 *
 * Compiled once per vector width (simd/neural_simd.c); the widest that the processor has is picked at run time. */
#ifndef QR_BACKEND_CPU_NEURAL_KERNEL_H
#define QR_BACKEND_CPU_NEURAL_KERNEL_H

#include "base/status.h"
#include "rules/neural.h"

enum {
    QR_NEURAL_BATCH = 64,
    QR_NEURAL_PAD = 16 /* floats; `base` below is read up to a multiple of this */
};

struct qr_simd;

/* One thread's working memory. Inputs: x, shares, agents; outputs: x advanced in place, votes, scores. */
typedef struct qr_neural_batch {
    float *x;                        /* [n][state_dim], borrowed: the agents' states, or `gathered` */
    float *gathered;                 /* [QR_NEURAL_BATCH][state_dim], owned */
    float *shares;                   /* [n_options][QR_NEURAL_BATCH], option by option, owned */
    void *work;                      /* kernel's own, owned */
    int64_t agents[QR_NEURAL_BATCH]; /* global ids, for the draws */
    uint8_t votes[QR_NEURAL_BATCH];
    uint32_t scores[QR_NEURAL_BATCH];
} qr_neural_batch;

/* Everywhere here, simd NULL means the plain form; one value must be used throughout. */
qr_status qr_neural_batch_init(const qr_neural *net, const struct qr_simd *simd, qr_neural_batch *batch);
void qr_neural_batch_clear(qr_neural_batch *batch);

/* Weights in the order in which the kernel reads them; freed with free(). */
qr_status qr_neural_kernel_pack(const qr_neural *net, const struct qr_simd *simd, void **packed);

/* Advances n <= QR_NEURAL_BATCH agents. base: [hidden, rounded up to QR_NEURAL_PAD], from qr_neural_global. */
void qr_neural_kernel_run(const qr_neural *net, const struct qr_simd *simd, const void *packed, const float *base,
                          uint64_t seed, int64_t step, int n, qr_neural_batch *batch);

#endif
