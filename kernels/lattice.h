/* Rings and lattices by arithmetic: where neighbours are in a view, and colours for sweeps in which no two neighbours
 * move at once. Agent id = x + size[0] * (y + size[1] * z). */
#ifndef QR_LATTICE_H
#define QR_LATTICE_H

#include "portable.h"

enum { QR_LATTICE_MAX_NEIGHBOURS = 26, QR_LATTICE_MAX_OFFSETS = 64 };

/* Where a neighbour is for agents away from borders. dx and dy: which border changes that (dy: three dimensions only).
 */
typedef struct qr_lattice_offset {
    int64_t distance;
    int32_t dx;
    int32_t dy;
} qr_lattice_offset;

typedef struct qr_lattice {
    int32_t dims; /* 1: a ring, 2 or 3: a lattice, 0: neither */
    int32_t moore;
    int32_t periodic;
    int32_t n_colours;
    int64_t size[3];
    int64_t n_agents;
    int64_t reach;           /* ring: neighbours to each side */
    int32_t axis_colours[3]; /* lattices */
    int64_t block;           /* ring: agents of a block, the colour being the place in it; */
    int64_t longer;          /* the first so many blocks have one more */
} qr_lattice;

/* a / b and the rest; half the work where both fit in 32 bits. */
QR_FN int64_t qr_divide(int64_t a, int64_t b, int64_t *rest)
{
    if (((uint64_t)a | (uint64_t)b) >> 32 == 0) {
        uint32_t quotient = (uint32_t)a / (uint32_t)b;
        *rest = (int64_t)((uint32_t)a - quotient * (uint32_t)b);
        return (int64_t)quotient;
    }
    int64_t quotient = a / b;
    *rest = a - quotient * b;
    return quotient;
}

/* Sets n_colours, axis_colours, block and longer from the other fields. */
QR_FN void qr_lattice_set_colours(qr_lattice *lattice)
{
    if (lattice->dims == 1) {
        int64_t n_blocks = lattice->n_agents / (lattice->reach + 1);
        lattice->block = lattice->n_agents / n_blocks;
        lattice->longer = lattice->n_agents % n_blocks;
        lattice->n_colours = (int32_t)(lattice->block + (lattice->longer != 0 ? 1 : 0));
        return;
    }
    int32_t product = 1;
    int32_t largest = 1;
    for (int32_t axis = 0; axis < lattice->dims; axis++) {
        int32_t odd = lattice->periodic && lattice->size[axis] % 2 == 1 ? 3 : 2;
        int32_t colours = lattice->size[axis] == 1 ? 1 : odd;
        lattice->axis_colours[axis] = colours;
        product *= colours;
        largest = colours > largest ? colours : largest;
    }
    lattice->n_colours = lattice->moore ? product : largest;
}

/* The colour of an agent. On a ring it is the place in the agent's block; each block is longer than an agent sees. Von
 * Neumann neighbours differ along one axis, so the sum of the axes' colours differs; Moore neighbours may differ along
 * several, so every combination is a colour of its own. */
QR_FN int32_t qr_lattice_colour_of(const qr_lattice *lattice, int64_t agent)
{
    int64_t rest;
    if (lattice->dims == 1) {
        int64_t in_longer = lattice->longer * (lattice->block + 1);
        if (agent < in_longer) {
            (void)qr_divide(agent, lattice->block + 1, &rest);
        } else {
            (void)qr_divide(agent - in_longer, lattice->block, &rest);
        }
        return (int32_t)rest;
    }
    int32_t sum = 0;
    int32_t mixed = 0;
    int32_t scale = 1;
    for (int32_t axis = 0; axis < lattice->dims; axis++) {
        int32_t colours = lattice->axis_colours[axis];
        agent = qr_divide(agent, lattice->size[axis], &rest);
        int32_t colour = colours == 3 && rest + 1 == lattice->size[axis] ? 2 : (int32_t)(rest % 2);
        sum += colour;
        mixed += scale * colour;
        scale *= colours;
    }
    return lattice->moore ? mixed : sum % lattice->n_colours;
}

/* Bits [from, to) of a word; those beyond its end are left out. */
QR_FN uint64_t qr_lattice_bits(int64_t from, int64_t to)
{
    uint64_t high = to >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1u;
    return high & ~(((uint64_t)1 << from) - 1u);
}

/* The same as qr_lattice_colour_of for 64 agents from `agent` on: a bit for each that has the colour. Bits beyond the
 * last agent say nothing. */
QR_FN uint64_t qr_lattice_colour_word(const qr_lattice *lattice, int64_t agent, int32_t colour)
{
    uint64_t word = 0;
    int64_t place;
    if (lattice->dims == 1) {
        int64_t in_longer = lattice->longer * (lattice->block + 1);
        (void)(agent < in_longer ? qr_divide(agent, lattice->block + 1, &place)
                                 : qr_divide(agent - in_longer, lattice->block, &place));
        for (int64_t bit = colour - place; bit < 64;) { /* the agent of that place in each block, if there is one */
            int64_t length = lattice->block + (agent + bit - colour < in_longer ? 1 : 0);
            if (bit >= 0 && colour < length) {
                word |= (uint64_t)1 << bit;
            }
            bit += length;
        }
        return word;
    }
    int64_t at[3] = {0, 0, 0};
    for (int32_t axis = 0; axis < lattice->dims; axis++) {
        agent = qr_divide(agent, lattice->size[axis], &at[axis]);
    }
    const int64_t width = lattice->size[0];
    for (int64_t bit = 0; bit < 64;) { /* a row, or what is left of it */
        int32_t wanted = colour;       /* of the axis x alone */
        int32_t scale = lattice->axis_colours[0];
        for (int32_t axis = 1; axis < lattice->dims; axis++) {
            int32_t colours = lattice->axis_colours[axis];
            int32_t here = colours == 3 && at[axis] + 1 == lattice->size[axis] ? 2 : (int32_t)(at[axis] % 2);
            wanted -= lattice->moore ? scale * here : here;
            scale *= colours;
        }
        if (!lattice->moore) { /* -4 .. 2 */
            wanted = (wanted + 2 * lattice->n_colours) % lattice->n_colours;
        }
        const int64_t end = bit + width - at[0];
        const uint64_t last = end <= 64 && lattice->axis_colours[0] == 3 ? (uint64_t)1 << (end - 1) : 0;
        if (wanted == 2) {
            word |= last;
        } else if (wanted >= 0 && wanted < 2) {
            uint64_t every = (uint64_t)0x5555555555555555u << ((bit + at[0] + wanted) % 2);
            word |= qr_lattice_bits(bit, end) & every & ~last;
        }
        bit = end;
        at[0] = 0;
        at[1]++;
        if (at[1] == lattice->size[1]) {
            at[1] = 0;
            at[2]++;
        }
    }
    return word;
}

/* View positions of the neighbours of an agent of a lattice (not a ring) at view position `self`: ascending (dz, dy,
 * dx). Inner axes wrap inside their layer, the last one through the view; open borders leave out what is missing. out:
 * [QR_LATTICE_MAX_NEIGHBOURS]. Returns how many there are. */
QR_FN int32_t qr_lattice_positions(const qr_lattice *lattice, int64_t agent, int64_t self, int64_t *out)
{
    /* For each axis and each of -1, 0, +1: how far the position moves, and whether there is somebody. */
    int64_t move[3][3] = {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}};
    int32_t exists[3][3] = {{0, 1, 0}, {0, 1, 0}, {0, 1, 0}};
    int64_t stride = 1;
    for (int32_t axis = 0; axis < lattice->dims; axis++) {
        int64_t size = lattice->size[axis];
        int64_t at;
        int32_t inner = axis + 1 < lattice->dims;
        agent = qr_divide(agent, size, &at);
        exists[axis][0] = lattice->periodic || at > 0;
        exists[axis][2] = lattice->periodic || at + 1 < size;
        move[axis][0] = inner && at == 0 ? (size - 1) * stride : -stride;
        move[axis][2] = inner && at + 1 == size ? -(size - 1) * stride : stride;
        stride *= size;
    }
    int32_t n = 0;
    for (int32_t dz = 0; dz < 3; dz++) {
        for (int32_t dy = 0; dy < 3; dy++) {
            for (int32_t dx = 0; dx < 3; dx++) {
                int32_t moved = (dz != 1) + (dy != 1) + (dx != 1);
                if (moved == 0 || (moved > 1 && !lattice->moore)) {
                    continue;
                }
                if (exists[2][dz] && exists[1][dy] && exists[0][dx]) {
                    out[n++] = self + move[2][dz] + move[1][dy] + move[0][dx];
                }
            }
        }
    }
    return n;
}

#endif
