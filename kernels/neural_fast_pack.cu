/* Weights in the order in which tensor cores take them (neural_fast.cuh): made on the host. */
#include "neural_fast.cuh"

#include <math.h>
#include <string.h>

enum { FEW_WARPS = 4 }; /* less than that waits for memory */

extern "C" int64_t qr_neural_fast_count(const qr_neural *net)
{
    if (net->n_options > OPTIONS || net->state_dim > MOST_STATE ||
        make_fast_plan(net, fast_shared_bytes()).warps < FEW_WARPS) {
        return 0;
    }
    return find_fast_layout(net).end;
}

/* A matrix whose rows and columns are scaled by powers of two; zero beyond its size. */
typedef struct scaled_matrix {
    const float *numbers;
    int32_t rows;
    int32_t columns;
    int32_t stride;
    const int *row_power;
    int column_power;
} scaled_matrix;

static float element(const scaled_matrix *matrix, int32_t row, int32_t column)
{
    if (row >= matrix->rows || column >= matrix->columns) {
        return 0.0f;
    }
    float number = matrix->numbers[(int64_t)row * matrix->stride + column];
    return (float)ldexp((double)number, matrix->row_power[row] + matrix->column_power);
}

/* Whether rows or columns of a fragment follow the numbering of states. */
enum { PLAIN = 0, STATE_ROWS = 1, STATE_COLUMNS = 2 };

/* B of 16 outputs (rows of the matrix) and 16 columns, as multiply_pair reads it. */
static void pack_fragment(const scaled_matrix *matrix, int32_t first_row, int32_t first_column, int order,
                          uint32_t *out)
{
    for (int32_t lane = 0; lane < WARP; lane++) {
        const int32_t g = lane / 4;
        const int32_t c = lane % 4;
        for (int32_t i = 0; i < 4; i++) {
            const int32_t n = i / 2; /* outputs 0 .. 7 or 8 .. 15 */
            const int32_t r = i % 2; /* columns 2c or 2c + 8 */
            const int32_t row = first_row + ((order & STATE_ROWS) != 0 ? g / 2 * 4 + 2 * n + g % 2 : 8 * n + g);
            const int32_t column = first_column + ((order & STATE_COLUMNS) != 0 ? 4 * c + 2 * r : 2 * c + 8 * r);
            __half2 both = __floats2half2_rn(element(matrix, row, column), element(matrix, row, column + 1));
            memcpy(&out[4 * lane + i], &both, sizeof both);
        }
    }
}

static bool all_finite(const float *numbers, int64_t count)
{
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        finite = finite && fabs((double)numbers[i]) <= 3.5e38;
    }
    return finite;
}

/* The power of two that brings a size to 2^13 .. 2^14. */
static int power_for(double size)
{
    int exponent = 0;
    (void)frexp(size, &exponent);
    int power = size > 0.0 ? 14 - exponent : 0;
    return power > 100 ? 100 : power;
}

/* What no state will ever exceed; 0 where there is no such bound. A hidden value is at most 1, so a state moves a share
 * dt of its way to somewhere within `reach`. */
static double bound_states(const qr_neural *net, float state_scale)
{
    double reach = 0.0;
    for (uint32_t d = 0; d < net->state_dim; d++) {
        double sum = fabs((double)net->b2[d]);
        for (uint32_t h = 0; h < net->hidden; h++) {
            sum += fabs((double)net->w2[(size_t)d * net->hidden + h]);
        }
        reach = fmax(reach, sum);
    }
    double dt = (double)net->dt;
    if (!(dt < 2.0)) {
        return 0.0;
    }
    reach = dt <= 1.0 ? reach : reach * dt / (2.0 - dt);
    return fmax(fmax(reach, (double)state_scale), 0x1p-60);
}

/* Powers of two for the rows of a matrix, of which some columns are scaled already. False when a row is beyond reach.
 */
static bool find_row_powers(const scaled_matrix *matrix, const scaled_matrix *beside, int *powers)
{
    bool within = true;
    for (int32_t r = 0; r < matrix->rows; r++) {
        double most = 0.0;
        for (int32_t c = 0; c < matrix->columns; c++) {
            most =
                fmax(most, ldexp(fabs((double)matrix->numbers[(int64_t)r * matrix->stride + c]), matrix->column_power));
        }
        for (int32_t c = 0; beside != NULL && c < beside->columns; c++) {
            most = fmax(most, fabs((double)beside->numbers[(int64_t)r * beside->stride + c]));
        }
        powers[r] = power_for(most);
        within = within && powers[r] >= -100;
    }
    return within;
}

static void put_float(uint32_t *to, double number)
{
    float rounded = (float)number;
    memcpy(to, &rounded, sizeof rounded);
}

/* Fills in what is packed by rows of hidden units, of states and of options. */
static void pack_arrays(const qr_neural *net, const int *hidden_power, const int *state_power, const int *option_power,
                        uint32_t *out)
{
    const fast_layout at = find_fast_layout(net);
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + (int32_t)net->state_dim;
    for (int32_t place = 0; place < at.hidden_tiles * 16; place++) {
        const int32_t h = hidden_at(place);
        for (int32_t k = 0; k < n_options && h < hidden; k++) {
            put_float(&out[at.global + k * at.hidden_tiles * 16 + place], (double)net->w1[(int64_t)h * columns + k]);
        }
        if (h < hidden) {
            put_float(&out[at.b1 + place], (double)net->b1[h]);
            put_float(&out[at.inverse1 + place], ldexp(1.0, -hidden_power[h]));
        }
    }
    for (int32_t d = 0; d < (int32_t)net->state_dim; d++) {
        put_float(&out[at.inverse2 + d], ldexp(1.0, -state_power[d]));
        put_float(&out[at.b2 + d], (double)net->b2[d]);
    }
    for (int32_t k = 0; k < n_options; k++) {
        put_float(&out[at.inversev + k], ldexp(1.0, -option_power[k]));
        put_float(&out[at.bv + k], (double)net->bv[k]);
    }
}

extern "C" int qr_neural_fast_pack(const qr_neural *net, float state_scale, uint32_t *out)
{
    int hidden_power[QR_NEURAL_MAX_HIDDEN];
    int state_power[MOST_STATE];
    int option_power[OPTIONS];
    const fast_layout at = find_fast_layout(net);
    const int32_t state = (int32_t)net->state_dim;
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + state;
    const double bound = bound_states(net, state_scale);
    const int power = power_for(bound);
    scaled_matrix w1 = {net->w1 + n_options, hidden, state, columns, hidden_power, -power};
    scaled_matrix shares = {net->w1 + n_options + state, hidden, n_options, columns, hidden_power, 0};
    scaled_matrix w2 = {net->w2, state, hidden, hidden, state_power, 0};
    scaled_matrix wv = {net->wv, n_options, state, state, option_power, -power};
    bool fits = bound > 0.0 && power >= -100 && all_finite(net->w1, (int64_t)hidden * columns) &&
                all_finite(net->b1, hidden) && all_finite(net->w2, (int64_t)state * hidden) &&
                all_finite(net->b2, state) && all_finite(net->wv, (int64_t)n_options * state) &&
                all_finite(net->bv, n_options);
    fits = fits && find_row_powers(&w1, &shares, hidden_power) && find_row_powers(&w2, NULL, state_power) &&
           find_row_powers(&wv, NULL, option_power);
    if (!fits) {
        return 0;
    }
    memset(out, 0, (size_t)at.end * sizeof *out);
    for (int32_t j = 0; j < at.hidden_tiles; j++) {
        uint32_t *layer1 = out + at.w1 + j * (at.state_tiles + 1) * FRAGMENT;
        uint32_t *layer2 = out + at.w2 + j * at.state_tiles * FRAGMENT;
        for (int32_t b = 0; b < at.state_tiles; b++) {
            pack_fragment(&w1, 16 * j, 16 * b, STATE_COLUMNS, layer1 + b * FRAGMENT);
            pack_fragment(&w2, 16 * b, 16 * j, STATE_ROWS, layer2 + b * FRAGMENT);
        }
        pack_fragment(&shares, 16 * j, 0, PLAIN, layer1 + at.state_tiles * FRAGMENT);
    }
    for (int32_t b = 0; b < at.state_tiles; b++) {
        pack_fragment(&wv, 0, 16 * b, STATE_COLUMNS, out + at.wv + b * FRAGMENT);
    }
    pack_arrays(net, hidden_power, state_power, option_power, out);
    put_float(&out[at.scale], ldexp(1.0, power));
    return 1;
}
