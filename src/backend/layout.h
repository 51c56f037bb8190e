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

/* --- on devices --- */

enum {
    QR_DEVICE_STAGING = 1 << 24,   /* bytes for votes on their way in and out */
    QR_DEVICE_PADDING_WORDS = 64,  /* readable before and behind a plane */
    QR_DEVICE_PADDING_BYTES = 4096 /* the same for packed votes */
};

/* log2 of how many votes fit a byte. */
uint32_t qr_layout_packing(uint32_t n_options);

/* Of one buffer: 64-bit words of a plane, bytes of packed votes. */
int64_t qr_layout_plane_words(int64_t view);
int64_t qr_layout_packed_bytes(int64_t view, uint32_t packing);

/* Bytes of device memory for a part of n_own agents with this view length, network and frames aside. */
typedef struct qr_device_bytes {
    int64_t votes;  /* both buffers, and who never changes */
    int64_t states; /* all of them */
    int64_t weights;
    int64_t staging;
} qr_device_bytes;
qr_device_bytes qr_layout_device_bytes(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view);

#endif
