/* A part in device memory: layout, buffers, network, weights, first votes and states. */
#include "backend/cuda/cuda.h"

#include "backend/layout.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { DRAWN_AT_ONCE = 1 << 16 };

int64_t qr_cuda_bytes_estimate(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view)
{
    qr_device_bytes bytes = qr_layout_device_bytes(model, spec, n_own, view);
    return bytes.votes + bytes.states + bytes.staging;
}

static qr_status allocate_votes(qr_backend *backend)
{
    qr_part *part = &backend->part;
    qr_status status = QR_OK;
    for (int buffer = 0; buffer < (part->sweeps ? 1 : 2) && status == QR_OK; buffer++) {
        if (part->form != QR_FORM_PLANES) {
            uint8_t *bytes = NULL;
            status = qr_cuda_allocate(backend, qr_layout_packed_bytes(part->view, part->packing), 1, "votes",
                                      (void **)&bytes);
            part->packed[buffer] = status == QR_OK ? bytes + QR_DEVICE_PADDING_BYTES : NULL;
        }
        for (int p = 0; part->form == QR_FORM_PLANES && p < part->n_planes && status == QR_OK; p++) {
            uint64_t *words = NULL;
            status = qr_cuda_allocate(backend, qr_layout_plane_words(part->view), 8, "votes", (void **)&words);
            part->plane[buffer][p] = status == QR_OK ? words + QR_DEVICE_PADDING_WORDS : NULL;
        }
    }
    if (part->sweeps) {
        part->packed[1] = part->packed[0];
        memcpy(part->plane[1], part->plane[0], sizeof part->plane[1]);
    }
    return status;
}

static qr_status upload_network(qr_backend *backend)
{
    const qr_network *network = backend->network;
    qr_part *part = &backend->part;
    qr_lattice_offset offsets[QR_LATTICE_MAX_OFFSETS];
    int64_t distances[QR_LATTICE_MAX_OFFSETS];
    part->n_offsets = qr_lattice_offsets(&network->spec, offsets);
    for (int j = 0; j < part->n_offsets; j++) {
        part->offset[j] = offsets[j];
        distances[j] = offsets[j].distance;
    }
    qr_status status = qr_cuda_upload(backend, distances, part->n_offsets, sizeof(int64_t), "neighbour distances",
                                      (void **)&part->distance);
    if (network->rows.row == NULL || status != QR_OK) {
        return status;
    }
    status = qr_cuda_upload(backend, network->rows.row, network->own.count + 1, sizeof(int64_t), "neighbour lists",
                            (void **)&part->row);
    if (status == QR_OK) {
        status = qr_cuda_upload(backend, network->rows.neighbour, network->rows.row[network->own.count],
                                sizeof(uint32_t), "neighbour lists", (void **)&part->neighbour);
    }
    if (status == QR_OK && part->sweeps) {
        status = qr_cuda_upload(backend, network->colour, network->own.count, sizeof(uint16_t), "colours",
                                (void **)&part->colour);
    }
    return status;
}

/* Weights for tensor cores. None, and so the exact kernel, where sizes or weights are not for those. */
static qr_status upload_fast_weights(qr_backend *backend)
{
    const qr_model *model = backend->model;
    qr_part *part = &backend->part;
    int64_t count = qr_neural_fast_count(&model->neural);
    uint32_t *packed = NULL;
    if (count == 0) {
        return QR_OK;
    }
    qr_status status = qr_allocate((size_t)count, sizeof *packed, "packed weights", (void **)&packed);
    if (status == QR_OK && qr_neural_fast_pack(&model->neural, model->state_scale, packed)) {
        status = qr_cuda_upload(backend, packed, count, sizeof *packed, "packed weights", (void **)&part->fast_weights);
    }
    free(packed);
    return status;
}

static qr_status upload_neural(qr_backend *backend)
{
    const qr_neural *net = &backend->model->neural;
    qr_part *part = &backend->part;
    int64_t d = net->state_dim;
    int64_t h = net->hidden;
    int64_t k = net->n_options;
    int64_t count = h * (2 * k + d) + h + d * h + d + k * d + k;
    float *weights = NULL;
    qr_status status =
        qr_cuda_upload(backend, backend->model->weights, count, sizeof(float), "weights", (void **)&weights);
    if (status != QR_OK) {
        return status;
    }
    part->neural = *net;
    part->neural.w1 = weights + (net->w1 - backend->model->weights);
    part->neural.b1 = weights + (net->b1 - backend->model->weights);
    part->neural.w2 = weights + (net->w2 - backend->model->weights);
    part->neural.b2 = weights + (net->b2 - backend->model->weights);
    part->neural.wv = weights + (net->wv - backend->model->weights);
    part->neural.bv = weights + (net->bv - backend->model->weights);

    float *packed = NULL;
    int64_t n_packed = qr_neural_packed_count(net);
    status = qr_allocate((size_t)n_packed, sizeof(float), "packed weights", (void **)&packed);
    if (status == QR_OK) {
        qr_neural_pack(net, packed);
        status =
            qr_cuda_upload(backend, packed, n_packed, sizeof(float), "packed weights", (void **)&part->packed_weights);
    }
    free(packed);
    if (status == QR_OK && backend->model->fast) {
        status = upload_fast_weights(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, h, sizeof(float), "neural layer", (void **)&part->base);
    }
    if (status == QR_OK && backend->frames == NULL) {
        status =
            qr_cuda_allocate(backend, part->count, d * (int64_t)sizeof(float), "agent states", (void **)&part->state);
    }
    if (status == QR_OK && backend->frames == NULL) {
        qr_launch_initial_state(part, backend->model->state_scale, backend->stream);
        status = qr_cuda_check(cudaGetLastError(), "making the first states");
    }
    return status;
}

static qr_status upload_rule(qr_backend *backend)
{
    qr_rule *rule = &backend->part.rule;
    *rule = backend->model->rule;
    if (rule->boltzmann == NULL) {
        return QR_OK;
    }
    void *table = NULL;
    qr_status status = qr_cuda_upload(backend, rule->boltzmann, rule->boltzmann_last + 1, sizeof(uint64_t),
                                      "Boltzmann weights", &table);
    rule->boltzmann = table;
    return status;
}

/* Agents [at, at + n), spread over the threads. */
static void draw_votes(const qr_backend *backend, int64_t at, int64_t n, const uint8_t *file_votes, uint8_t *votes,
                       uint64_t *frozen)
{
    int64_t first = backend->part.first + at;
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t i = 0; i < n; i += DRAWN_AT_ONCE) {
        int64_t here = n - i < DRAWN_AT_ONCE ? n - i : DRAWN_AT_ONCE;
        qr_model_initial_votes(backend->model, first + i, here, file_votes != NULL ? file_votes + at + i : NULL,
                               votes + i, frozen != NULL ? frozen + i / 64 : NULL);
    }
}

/* First votes: drawn on the device where that is all there is to it, else worked out on the host a piece at a time,
 * with bits of zealots beside them. */
static qr_status set_votes(qr_backend *backend, const uint8_t *file_votes)
{
    qr_part *part = &backend->part;
    if (backend->model->initial == QR_INITIAL_UNIFORM && backend->model->zealots == 0) {
        qr_launch_initial_votes(part, backend->stream);
        return qr_cuda_wait(backend);
    }
    uint8_t *votes = NULL;
    uint64_t *frozen = NULL;
    uint64_t *device_frozen = NULL;
    int64_t piece = QR_DEVICE_STAGING;
    qr_status status = qr_allocate((size_t)piece, 1, "first votes", (void **)&votes);
    if (status == QR_OK && backend->model->zealots > 0) {
        status = qr_allocate((size_t)piece / 64, sizeof *frozen, "zealots", (void **)&frozen);
        if (status == QR_OK) {
            status = qr_cuda_allocate(backend, (part->count + 63) / 64, 8, "zealots", (void **)&device_frozen);
            part->frozen = device_frozen;
        }
    }
    for (int64_t at = 0; status == QR_OK && at < part->count; at += piece) {
        int64_t n = part->count - at < piece ? part->count - at : piece;
        draw_votes(backend, at, n, file_votes, votes, frozen);
        status =
            qr_cuda_check(cudaMemcpyAsync(backend->staging, votes, (size_t)n, cudaMemcpyHostToDevice, backend->stream),
                          "writing first votes");
        qr_launch_store(part, at, n, backend->staging, backend->stream);
        if (status == QR_OK && frozen != NULL) {
            status = qr_cuda_check(cudaMemcpyAsync(device_frozen + at / 64, frozen, (size_t)((n + 63) / 64 * 8),
                                                   cudaMemcpyHostToDevice, backend->stream),
                                   "writing zealots");
        }
        if (status == QR_OK) {
            status = qr_cuda_wait(backend);
        }
    }
    free(frozen);
    free(votes);
    return status;
}

static qr_status allocate_control(qr_backend *backend)
{
    qr_part *part = &backend->part;
    int64_t n_options = part->rule.n_options;
    qr_status status = qr_cuda_allocate(backend, 1, sizeof(qr_control), "the control block", (void **)&part->control);
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, QR_DEVICE_ROWS * n_options, 8, "rows", (void **)&part->row_votes);
    }
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, QR_DEVICE_ROWS, 8, "rows", (void **)&part->row_leaders);
    }
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, 2 * n_options, 8, "tallies", (void **)&backend->handed_in);
    }
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, QR_DEVICE_STAGING, 1, "staging", (void **)&backend->staging);
    }
    return status;
}

qr_status qr_cuda_make_part(qr_backend *backend, const uint8_t *file_votes)
{
    const qr_model *model = backend->model;
    const qr_network *network = backend->network;
    qr_part *part = &backend->part;
    int n_planes = 0;
    bool planes = qr_layout_has_planes(model, &network->spec, &n_planes);
    part->kind = (int32_t)model->kind;
    part->form = model->state_dim > 0 ? QR_FORM_NEURAL : planes ? QR_FORM_PLANES : QR_FORM_PACKED;
    part->sweeps = model->sweeps ? 1 : 0;
    part->complete = network->spec.kind == QR_NETWORK_COMPLETE ? 1 : 0;
    part->packing = qr_layout_packing(model->rule.n_options);
    part->n_planes = planes ? n_planes : 0;
    part->lattice = qr_lattice_of(&network->spec);
    part->lattice.n_colours = qr_network_colours(network); /* of lists, too, whose colours lie in part->colour */
    if (model->sweeps && part->lattice.n_colours == 0) {
        return qr_error(QR_INTERNAL, "a sweep over a network without colours");
    }
    part->first = network->own.first;
    part->count = network->own.count;
    part->before = network->before;
    part->view = network->view;
    part->n_parts = 1;
    part->decides = 1;
    qr_status status = upload_rule(backend);
    if (status == QR_OK) {
        status = allocate_control(backend);
    }
    if (status == QR_OK) {
        status = allocate_votes(backend);
    }
    if (status == QR_OK) {
        status = upload_network(backend);
    }
    if (status == QR_OK) {
        status = set_votes(backend, file_votes);
    }
    if (status == QR_OK && part->form == QR_FORM_NEURAL) {
        status = upload_neural(backend);
    }
    return status;
}
