/* Neural agents: shares of the neighbours gathered per agent, then blocks of agents through the network. */
#include "backend/cpu/cpu.h"

#include "backend/cpu/neural_kernel.h"
#include "base/memory.h"

#include <string.h>

qr_status qr_cpu_neural_prepare(qr_backend *backend)
{
    const qr_neural *net = &backend->model->neural;
    qr_status status =
        qr_allocate((size_t)net->hidden + QR_NEURAL_PAD, sizeof(float), "neural layer", (void **)&backend->base);
    if (status == QR_OK) {
        status = qr_neural_kernel_pack(net, backend->simd, &backend->packed_weights);
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

/* The share of one option among the neighbours of agents that stand in a row away from borders. Always works out a
 * whole batch, of which the caller takes what it needs: a loop of fixed length has no rest. Votes are readable that
 * far. */
static void share_in_row(const qr_backend *backend, const uint8_t *votes, uint8_t option, float *share)
{
    uint8_t count[QR_NEURAL_BATCH] = {0};
    for (int j = 0; j < backend->n_offsets; j++) {
        const uint8_t *neighbour = votes + backend->offsets[j].distance;
        for (int a = 0; a < QR_NEURAL_BATCH; a++) {
            count[a] = (uint8_t)(count[a] + (neighbour[a] == option ? 1 : 0));
        }
    }
    float degree = (float)backend->n_offsets;
    for (int a = 0; a < QR_NEURAL_BATCH; a++) {
        share[a] = (float)count[a] / degree;
    }
}

/* Shares of the options among the neighbours, shares[k][agent]; zeros for an agent without any. */
static void gather_one(const qr_backend *backend, int64_t index, const qr_tally *before, qr_cpu_scratch *scratch,
                       float *shares)
{
    int64_t counts[QR_MAX_OPTIONS];
    uint32_t n_options = backend->model->rule.n_options;
    qr_view view;
    qr_cpu_view(backend, backend->bytes[backend->current], index, before->votes, false, scratch, &view);
    qr_view_counts(&view, n_options, counts);
    for (uint32_t k = 0; k < n_options; k++) {
        shares[(size_t)k * QR_NEURAL_BATCH] = view.degree > 0 ? (float)counts[k] / (float)view.degree : 0.0f;
    }
}

/* Everybody but oneself. */
static void gather_complete(const qr_backend *backend, const uint8_t *own, int n, const qr_tally *before, float *shares)
{
    float others = (float)(backend->network->spec.n_agents - 1);
    for (uint32_t k = 0; k < backend->model->rule.n_options; k++) {
        float *row = shares + (size_t)k * QR_NEURAL_BATCH;
        float all = others > 0.0f ? (float)before->votes[k] / others : 0.0f;
        float less = others > 0.0f ? (float)(before->votes[k] - 1) / others : 0.0f;
        for (int a = 0; a < n; a++) {
            row[a] = own[a] == k ? less : all;
        }
    }
}

/* The same for up to 64 agents from own index `begin`. */
static void gather_shares(const qr_backend *backend, int64_t begin, int n, const qr_tally *before,
                          qr_cpu_scratch *scratch, float *shares)
{
    const qr_network *network = backend->network;
    const uint8_t *own = backend->bytes[backend->current] + network->before + begin;
    if (network->spec.kind == QR_NETWORK_COMPLETE) {
        gather_complete(backend, own, n, before, shares);
        return;
    }
    for (int a = 0; a < n;) {
        int64_t run = qr_cpu_interior_run(backend, begin + a, n - a);
        if (run == 0) {
            gather_one(backend, begin + a, before, scratch, shares + a);
            a++;
            continue;
        }
        for (uint32_t k = 0; k < backend->model->rule.n_options; k++) {
            float share[QR_NEURAL_BATCH];
            share_in_row(backend, own + a, (uint8_t)k, share);
            memcpy(shares + (size_t)k * QR_NEURAL_BATCH + a, share, (size_t)run * sizeof share[0]);
        }
        a += (int)run;
    }
}

/* Leaves only the columns of the agents that update. */
static void keep_active(const int *kept, int n, uint32_t n_options, float *shares)
{
    for (uint32_t k = 0; k < n_options; k++) {
        float *row = shares + (size_t)k * QR_NEURAL_BATCH;
        for (int a = 0; a < n; a++) {
            row[a] = row[kept[a]];
        }
    }
}

/* Up to 64 agents from own index `begin`, whose states stand in `states`. */
static void update_group(qr_backend *backend, int64_t begin, int64_t end, float *states, int64_t step,
                         const qr_tally *before, qr_cpu_scratch *scratch, qr_tally *tally)
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
    int kept[QR_NEURAL_BATCH];
    gather_shares(backend, begin, (int)(end - begin), before, scratch, batch->shares);
    for (int i = 0; i < end - begin; i++) {
        if (active >> i & 1u) {
            kept[n++] = i;
        }
    }
    bool whole = n == end - begin;
    if (!whole) {
        keep_active(kept, n, rule->n_options, batch->shares);
    }
    for (int a = 0; a < n; a++) {
        batch->agents[a] = network->own.first + begin + kept[a];
        if (!whole) {
            memcpy(batch->gathered + (size_t)a * dim, states + (size_t)kept[a] * dim, dim * sizeof(float));
        }
    }
    batch->x = whole ? states : batch->gathered;
    qr_neural_kernel_run(&model->neural, backend->simd, backend->packed_weights, backend->base, rule->seed, step, n,
                         batch);
    memcpy(next + begin, own + begin, (size_t)(end - begin));
    uint32_t scores[QR_NEURAL_BATCH] = {0};
    for (int a = 0; a < n; a++) {
        unsigned bit = (unsigned)kept[a];
        int64_t i = begin + kept[a];
        if (!whole) {
            memcpy(states + (size_t)bit * dim, batch->gathered + (size_t)a * dim, dim * sizeof(float));
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

void qr_cpu_neural_block(qr_backend *backend, qr_cpu_range block, float *states, int64_t step, const qr_tally *before,
                         qr_cpu_scratch *scratch, qr_tally *tally)
{
    int64_t dim = backend->model->state_dim;
    for (int64_t begin = block.begin; begin < block.end; begin += 64) {
        int64_t end = begin + 64 < block.end ? begin + 64 : block.end;
        update_group(backend, begin, end, states + (begin - block.begin) * dim, step, before, scratch, tally);
    }
}
