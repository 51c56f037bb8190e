#include "backend/cpu/neural_kernel.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

qr_status qr_neural_batch_init(const qr_neural *net, qr_neural_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    size_t work = (size_t)net->hidden + net->n_options;
    qr_status status =
        qr_allocate((size_t)QR_NEURAL_BATCH * net->state_dim, sizeof(float), "neural batch", (void **)&batch->gathered);
    if (status == QR_OK) {
        status = qr_allocate((size_t)QR_NEURAL_BATCH * net->n_options, sizeof(float), "neural batch",
                             (void **)&batch->shares);
    }
    if (status == QR_OK) {
        status = qr_allocate(work, sizeof(float), "neural batch", (void **)&batch->work);
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

qr_status qr_neural_kernel_pack(const qr_neural *net, void **packed)
{
    (void)net;
    return qr_allocate(1, 1, "packed weights", packed);
}

void qr_neural_kernel_run(const qr_neural *net, const void *packed, const float *base, uint64_t seed, int64_t step,
                          int n, qr_neural_batch *batch)
{
    (void)packed;
    float *z = batch->work + net->hidden;
    for (int a = 0; a < n; a++) {
        qr_neural_advance(net, base, batch->shares + (size_t)a * net->n_options, batch->x + (size_t)a * net->state_dim,
                          batch->work, z);
        qr_draws draws;
        qr_draws_begin(&draws, seed, (uint64_t)batch->agents[a], (uint64_t)step, QR_STREAM_RULE);
        batch->votes[a] = (uint8_t)qr_neural_vote(net, z, &draws, &batch->scores[a]);
    }
}
