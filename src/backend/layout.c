#include "backend/layout.h"

bool qr_layout_has_planes(const qr_model *model, const qr_network_spec *spec, int *n_planes)
{
    if (!qr_network_is_lattice(spec->kind) || !spec->periodic) {
        return false;
    }
    int64_t degree = qr_lattice_degree(spec);
    for (int d = 0; d < spec->dims; d++) {
        if (spec->size[d] < 3) {
            return false;
        }
    }
    if (degree > QR_LAYOUT_MAX_WORD_DEGREE || (spec->dims == 1 && spec->n_agents <= degree)) {
        return false;
    }
    int planes = 1;
    while (1u << planes < model->rule.n_options) {
        planes++;
    }
    *n_planes = planes;
    if (model->kind == QR_RULE_VOTER) {
        return model->rule.choice_planes > 0 && planes <= QR_LAYOUT_MAX_PLANES;
    }
    if (model->kind == QR_RULE_MAJORITY && model->rule.samples == 0) {
        return planes == 1 || (planes <= QR_LAYOUT_MAX_PLANES && degree <= QR_LAYOUT_MAX_OPTIONS_DEGREE);
    }
    return model->kind == QR_RULE_POTTS && model->rule.n_options == 2;
}

uint32_t qr_layout_packing(uint32_t n_options)
{
    return n_options <= 2 ? 3 : n_options <= 4 ? 2 : n_options <= 16 ? 1 : 0;
}

int64_t qr_layout_plane_words(int64_t view)
{
    return view / 64 + 2 + 2 * QR_DEVICE_PADDING_WORDS;
}

int64_t qr_layout_packed_bytes(int64_t view, uint32_t packing)
{
    return (view >> packing) + 2 * QR_DEVICE_PADDING_BYTES;
}

qr_device_bytes qr_layout_device_bytes(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view)
{
    const qr_neural *net = &model->neural;
    int n_planes = 0;
    int64_t buffers = model->sweeps ? 1 : 2;
    int64_t votes = qr_layout_has_planes(model, spec, &n_planes)
                        ? n_planes * qr_layout_plane_words(view) * 8
                        : qr_layout_packed_bytes(view, qr_layout_packing(model->rule.n_options));
    qr_device_bytes bytes = {.votes = buffers * votes + (model->zealots > 0 ? n_own / 8 : 0),
                             .states = n_own * model->state_dim * (int64_t)sizeof(float),
                             .staging = QR_DEVICE_STAGING};
    if (model->state_dim > 0) { /* plain and packed twice */
        bytes.weights = 3 * (int64_t)sizeof(float) * (net->hidden + (int64_t)net->n_options) *
                        (2 * (int64_t)net->n_options + 2 * (int64_t)net->state_dim);
    }
    return bytes;
}
