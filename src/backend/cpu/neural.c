/* Neural agents: shares of the neighbours gathered per agent, then blocks of agents through the network. */
#include "backend/cpu/cpu.h"

#include "backend/cpu/neural_kernel.h"
#include "base/memory.h"

#include <string.h>

qr_status qr_cpu_neural_prepare(qr_backend *backend)
{
    const qr_neural *net = &backend->model->neural;
    qr_status status = qr_allocate(net->hidden, sizeof(float), "neural layer", (void **)&backend->base);
    if (status == QR_OK) {
        status = qr_neural_kernel_pack(net, &backend->packed_weights);
    }
    return status;
}

void qr_cpu_neural_before_step(qr_backend *backend, const qr_tally *before)
{
    const qr_neural *net = &backend->model->neural;
    float shares[QR_MAX_OPTIONS];
    for (uint32_t k = 0; k < net->n_options; k++) {
        shares[k] = (float)before->votes[k] / (float)backend->network->spec.n_agents;
    }
    qr_neural_global(net, shares, backend->base);
}

/* Shares of the options among the neighbours of own agent `index`; zeros for an agent without any. */
static void gather_shares(const qr_backend *backend, int64_t index, const qr_tally *before, qr_cpu_scratch *scratch,
                          float *shares)
{
    int64_t counts[QR_MAX_OPTIONS];
    uint32_t n_options = backend->model->rule.n_options;
    qr_view view;
    qr_cpu_view(backend, backend->bytes[backend->current], index, before->votes, scratch, &view);
    qr_view_counts(&view, n_options, counts);
    for (uint32_t k = 0; k < n_options; k++) {
        shares[k] = view.degree > 0 ? (float)counts[k] / (float)view.degree : 0.0f;
    }
}

/* Up to 64 agents from own index `begin`. */
static void update_group(qr_backend *backend, int64_t begin, int64_t end, int64_t step, const qr_tally *before,
                         qr_cpu_scratch *scratch, qr_tally *tally)
{
    qr_neural_batch *batch = &scratch->batch;
    const qr_model *model = backend->model;
    const qr_rule *rule = &model->rule;
    const qr_network *network = backend->network;
    size_t dim = (size_t)model->state_dim;
    const uint8_t *own = backend->bytes[backend->current] + network->before;
    uint8_t *next = backend->bytes[1 - backend->current] + network->before;
    uint64_t group = (uint64_t)(network->own.first + begin) / 64;
    uint64_t active = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    uint64_t noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
    uint64_t frozen = backend->frozen != NULL ? backend->frozen[begin / 64] : 0;
    int n = 0;
    int64_t agents[QR_NEURAL_BATCH];
    for (int64_t i = begin; i < end; i++) {
        if (active >> (i - begin) & 1u) {
            gather_shares(backend, i, before, scratch, batch->shares + (size_t)n * rule->n_options);
            agents[n++] = i;
        }
    }
    bool whole = n == end - begin;
    for (int a = 0; a < n; a++) {
        batch->agents[a] = network->own.first + agents[a];
        if (!whole) {
            memcpy(batch->gathered + (size_t)a * dim, backend->state + (size_t)agents[a] * dim, dim * sizeof(float));
        }
    }
    batch->x = whole ? backend->state + (size_t)begin * dim : batch->gathered;
    qr_neural_kernel_run(&model->neural, backend->packed_weights, backend->base, rule->seed, step, n, batch);
    memcpy(next + begin, own + begin, (size_t)(end - begin));
    uint32_t scores[QR_NEURAL_BATCH] = {0};
    for (int a = 0; a < n; a++) {
        int64_t i = agents[a];
        unsigned bit = (unsigned)(i - begin);
        if (!whole) {
            memcpy(backend->state + (size_t)i * dim, batch->gathered + (size_t)a * dim, dim * sizeof(float));
        }
        if (frozen >> bit & 1u) {
            continue;
        }
        bool random = (noisy >> bit & 1u) != 0;
        next[i] = random ? (uint8_t)qr_noise_option(rule, network->own.first + i, step) : batch->votes[a];
        scores[bit] = random ? 0 : batch->scores[a];
    }
    for (int64_t i = begin; i < end; i++) {
        uint64_t packed = qr_leader_pack(scores[i - begin], network->own.first + i);
        uint8_t k = next[i];
        tally->votes[k]++;
        tally->leader[k] = packed > tally->leader[k] ? packed : tally->leader[k];
    }
}

void qr_cpu_neural_block(qr_backend *backend, qr_cpu_range block, int64_t step, const qr_tally *before,
                         qr_cpu_scratch *scratch, qr_tally *tally)
{
    for (int64_t begin = block.begin; begin < block.end; begin += 64) {
        int64_t end = begin + 64 < block.end ? begin + 64 : block.end;
        update_group(backend, begin, end, step, before, scratch, tally);
    }
}
