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
