/* How votes of a model on a network may be stored; the same choice for every backend. */
#ifndef QR_BACKEND_LAYOUT_H
#define QR_BACKEND_LAYOUT_H

#include "model/model.h"
#include "network/network.h"
#include "rules/majority.h"

enum {
    QR_LAYOUT_MAX_PLANES = 4,
    QR_LAYOUT_MAX_WORD_DEGREE = QR_MAX_LATTICE_DEGREE,
    QR_LAYOUT_MAX_OPTIONS_DEGREE = QR_MAJORITY_OPTIONS_DEGREE
};

/* True when the model has a word form for this network, so that votes may lie as bit planes (64 agents to a machine
 * word, a plane for each bit of the option number): voter with a degree that is a power of two, majority of all
 * neighbours (of at most QR_LAYOUT_MAX_OPTIONS_DEGREE where there are more than two options) and Potts among two
 * options, on periodic lattices and rings. Potts draws other numbers there than elsewhere (rules/potts.h). *n_planes:
 * how many planes the options need. */
bool qr_layout_has_planes(const qr_model *model, const qr_network_spec *spec, int *n_planes);

#endif
