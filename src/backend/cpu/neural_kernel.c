#include "backend/cpu/neural_kernel.h"

#include "backend/cpu/simd/simd.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

qr_status qr_neural_batch_init(const qr_neural *net, const qr_simd *simd, qr_neural_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    size_t plain = ((size_t)net->hidden + 2 * (size_t)net->n_options) * sizeof(float);
    size_t work = simd != NULL ? simd->neural_work_bytes(net) : plain;
    qr_status status =
        qr_allocate((size_t)QR_NEURAL_BATCH * net->state_dim, sizeof(float), "neural batch", (void **)&batch->gathered);
    if (status == QR_OK) {
        status = qr_allocate((size_t)QR_NEURAL_BATCH * net->n_options, sizeof(float), "neural batch",
                             (void **)&batch->shares);
    }
    if (status == QR_OK) {
        status = qr_allocate(work, 1, "neural batch", &batch->work);
    }
    if (status != QR_OK) {
        qr_neural_batch_clear(batch);
    }
    return status;
}

void qr_neural_batch_clear(qr_neural_batch *batch)
{
    free(batch->gathered);
    free(batch->shares);
    free(batch->work);
    memset(batch, 0, sizeof *batch);
}

qr_status qr_neural_kernel_pack(const qr_neural *net, const qr_simd *simd, void **packed)
{
    size_t bytes = simd != NULL ? simd->neural_packed_bytes(net) : 0;
    qr_status status = qr_allocate(bytes, 1, "packed weights", packed);
    if (status == QR_OK && simd != NULL) {
        simd->neural_pack(net, *packed);
    }
    return status;
}

static void run_plainly(const qr_neural *net, const float *base, uint64_t seed, int64_t step, int n,
                        qr_neural_batch *batch)
{
    float *hidden = batch->work;
    float *z = hidden + net->hidden;
    float *shares = z + net->n_options;
    for (int a = 0; a < n; a++) {
        for (uint32_t k = 0; k < net->n_options; k++) {
            shares[k] = batch->shares[(size_t)k * QR_NEURAL_BATCH + (size_t)a];
        }
        qr_neural_advance(net, base, shares, batch->x + (size_t)a * net->state_dim, hidden, z);
        qr_draws draws;
        qr_draws_begin(&draws, seed, (uint64_t)batch->agents[a], (uint64_t)step, QR_STREAM_RULE);
        batch->votes[a] = (uint8_t)qr_neural_vote(net, z, &draws, &batch->scores[a]);
    }
}

void qr_neural_kernel_run(const qr_neural *net, const qr_simd *simd, const void *packed, const float *base,
                          uint64_t seed, int64_t step, int n, qr_neural_batch *batch)
{
    if (simd == NULL) {
        run_plainly(net, base, seed, step, n, batch);
    } else if (n > 0) {
        simd->neural(net, packed, base, seed, step, n, batch);
    }
}
