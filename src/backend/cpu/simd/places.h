/* Where the agents of a vector stand in a lattice, where their neighbours' votes lie in a plane, and what is different
 * at borders. Included only by the file that is compiled once per vector width. */
#ifndef QR_BACKEND_CPU_SIMD_PLACES_H
#define QR_BACKEND_CPU_SIMD_PLACES_H

#include "backend/cpu/simd/simd.h"
#include "backend/cpu/simd/vector.h"

/* Where in the lattice the first agent of the vector at hand stands. */
typedef struct place {
    int64_t x;
    int64_t y;
} place;

/* Bits of agents at a border, whose neighbour's distance is another one. */
typedef struct borders {
    qr_vec x_first;
    qr_vec x_last;
    qr_vec y_first; /* three dimensions only */
    qr_vec y_last;
} borders;

/* One bit of a vector. */
QR_INLINE qr_vec one_bit(int64_t bit)
{
    qr_vec here = (qr_vec)(qr_vec_lane_numbers() == qr_vec_all((uint64_t)bit >> 6));
    return here & qr_vec_all((uint64_t)1 << (bit & 63));
}

/* Bits [from, to). */
static qr_vec bit_range(int64_t from, int64_t to)
{
    uint64_t word[QR_LANES];
    for (int64_t i = 0; i < QR_LANES; i++) {
        int64_t low = from - 64 * i;
        int64_t high = to - 64 * i;
        uint64_t below_high = high >= 64 ? ~(uint64_t)0 : high <= 0 ? 0 : ((uint64_t)1 << high) - 1;
        uint64_t below_low = low >= 64 ? ~(uint64_t)0 : low <= 0 ? 0 : ((uint64_t)1 << low) - 1;
        word[i] = below_high & ~below_low;
    }
    return qr_vec_load(word);
}

static void __attribute__((noinline)) search_borders(const qr_plane_task *task, place at, borders *out)
{
    enum { BITS = 64 * QR_LANES };
    int64_t width = task->size[0];
    int64_t x = at.x;
    int64_t y = at.y;
    out->x_first = out->x_last = out->y_first = out->y_last = qr_vec_all(0);
    for (int64_t bit = 0; bit < BITS;) {
        int64_t row_end = bit + width - x; /* first bit of the next row */
        if (x == 0) {
            out->x_first |= one_bit(bit);
        }
        if (row_end <= BITS) {
            out->x_last |= one_bit(row_end - 1);
        }
        if (task->dims == 3 && y == 0) {
            out->y_first |= bit_range(bit, row_end);
        }
        if (task->dims == 3 && y == task->size[1] - 1) {
            out->y_last |= bit_range(bit, row_end);
        }
        bit = row_end;
        x = 0;
        y = y + 1 == task->size[1] ? 0 : y + 1;
    }
}

QR_INLINE void find_borders(const qr_plane_task *task, place at, borders *out)
{
    enum { BITS = 64 * QR_LANES };
    if (task->dims == 2 && task->size[0] % BITS == 0 && at.x % BITS == 0) { /* vectors end where rows do */
        out->x_first = at.x == 0 ? one_bit(0) : qr_vec_all(0);
        out->x_last = at.x + BITS == task->size[0] ? one_bit(BITS - 1) : qr_vec_all(0);
        return;
    }
    search_borders(task, at, out);
}

/* How many whole vectors from `at` on, at most `most`, hold no agent at a
 * border. */
QR_INLINE int64_t vectors_inside(const qr_plane_task *task, place at, int64_t most)
{
    if (task->dims == 1) {
        return most;
    }
    if (at.x == 0 || (task->dims == 3 && (at.y == 0 || at.y == task->size[1] - 1))) {
        return 0;
    }
    int64_t inside = (task->size[0] - 1 - at.x) / (64 * QR_LANES);
    return inside < most ? inside : most;
}

QR_INLINE place move_on(const qr_plane_task *task, place at, int64_t vectors)
{
    at.x += 64 * QR_LANES * vectors;
    if (task->dims == 1 || at.x < task->size[0]) {
        return at;
    }
    if (at.x < 2 * task->size[0]) { /* spares wide lattices the division */
        at.x -= task->size[0];
        at.y++;
    } else {
        at.y += at.x / task->size[0];
        at.x %= task->size[0];
    }
    if (task->dims == 3 && at.y >= task->size[1]) {
        at.y %= task->size[1];
    }
    return at;
}

/* The words that begin `bits` bits behind `from`. */
QR_INLINE qr_vec words_at(const uint64_t *from, int64_t bits)
{
    uint64_t shift = (uint64_t)bits & 63;
    from += bits >> 6;
    qr_vec low = qr_vec_load(from);
    return shift == 0 ? low : low >> shift | qr_vec_load(from + 1) << (64 - shift);
}

/* The same without a branch, for shifts that are known at run time only. */
QR_INLINE qr_vec words_shifted(const uint64_t *from, int64_t bits, bool never_zero)
{
    uint64_t shift = (uint64_t)bits & 63;
    from += bits >> 6;
    qr_vec high = qr_vec_load(from + 1);
    high = never_zero ? high << (64 - shift) : high << 1 << (63 - shift);
    return qr_vec_load(from) >> shift | high;
}

/* Neighbourhoods of two dimensions whose offsets the compiler may know. */
enum shape { SHAPE_ANY, SHAPE_CROSS, SHAPE_SQUARE };

/* Offset number j of a shape. */
QR_INLINE int shape_dx(enum shape shape, int j)
{
    static const int8_t cross[4] = {0, -1, 1, 0};
    static const int8_t square[8] = {-1, 0, 1, -1, 1, -1, 0, 1};
    return shape == SHAPE_CROSS ? cross[j] : square[j];
}

QR_INLINE int shape_dy(enum shape shape, int j)
{
    static const int8_t cross[4] = {-1, 0, 0, 1};
    static const int8_t square[8] = {-1, -1, -1, 0, 0, 1, 1, 1};
    return shape == SHAPE_CROSS ? cross[j] : square[j];
}

/* The same for an offset of a shape, `rows` whole rows further. */
QR_INLINE qr_vec shape_words(enum shape shape, int64_t width, const uint64_t *from, int j, int rows)
{
    int dx = shape_dx(shape, j);
    int dy = shape_dy(shape, j) + rows;
    if (dy == 0) {
        return words_at(from + dy * (width >> 6), dx);
    }
    return words_shifted(from, dx + dy * width, dx == 0);
}

/* Puts right the neighbours of agents at a border. */
static qr_vec __attribute__((noinline))
wrap(const qr_plane_task *task, const uint64_t *own, const qr_lattice_offset *offset, const borders *at, qr_vec inside)
{
    int64_t width = task->size[0];
    int64_t area = task->size[0] * task->size[1];
    qr_vec none = qr_vec_all(0);
    qr_vec x_out = offset->dx < 0 ? at->x_first : offset->dx > 0 ? at->x_last : none;
    qr_vec y_out = offset->dy < 0 ? at->y_first : offset->dy > 0 ? at->y_last : none;
    if (offset->dx != 0) {
        qr_vec other = words_at(own, offset->distance - offset->dx * width);
        inside ^= (inside ^ other) & x_out;
    }
    if (offset->dy != 0) {
        qr_vec other = words_at(own, offset->distance - offset->dy * area);
        inside ^= (inside ^ other) & y_out & ~x_out;
        if (offset->dx != 0) {
            other = words_at(own, offset->distance - offset->dx * width - offset->dy * area);
            inside ^= (inside ^ other) & y_out & x_out;
        }
    }
    return inside;
}

#endif
