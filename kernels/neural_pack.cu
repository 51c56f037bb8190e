/* The order in which the exact neural kernels read weights. */
#include "neural_layers.cuh"

extern "C" int64_t qr_neural_packed_count(const qr_neural *net)
{
    return find_layout(net).end;
}

/* out[column][row] of a matrix whose lines are `stride` apart, padded. */
static void transpose(const float *matrix, int32_t rows, int32_t columns, int32_t stride, int32_t padded_rows,
                      int32_t padded_columns, float *out)
{
    for (int32_t c = 0; c < padded_columns; c++) {
        for (int32_t r = 0; r < padded_rows; r++) {
            float here = c < columns ? 0.0f : -0.0f;
            if (c < columns && r < rows) {
                here = matrix[(int64_t)r * stride + c];
            }
            out[(int64_t)c * padded_rows + r] = here;
        }
    }
}

extern "C" void qr_neural_pack(const qr_neural *net, float *packed)
{
    const weight_layout at = find_layout(net);
    const int32_t state = (int32_t)net->state_dim;
    const int32_t hidden = (int32_t)net->hidden;
    const int32_t n_options = (int32_t)net->n_options;
    const int32_t columns = 2 * n_options + state;
    memset(packed, 0, (size_t)at.end * sizeof(float));
    transpose(net->w1, hidden, n_options, columns, at.hidden, n_options, packed + at.global);
    memcpy(packed + at.b1, net->b1, (size_t)hidden * sizeof(float));
    transpose(net->w1 + n_options, hidden, state, columns, at.hidden, at.state, packed + at.w1);
    transpose(net->w1 + n_options + state, hidden, n_options, columns, at.hidden, n_options,
              packed + at.w1 + at.state * at.hidden);
    transpose(net->w2, state, hidden, hidden, at.state, at.hidden, packed + at.w2);
    for (int32_t k = 0; k < n_options; k++) {
        for (int32_t d = 0; d < at.state; d++) {
            packed[at.wv + k * at.state + d] = d < state ? net->wv[(int64_t)k * state + d] : -0.0f;
        }
    }
    memcpy(packed + at.b2, net->b2, (size_t)state * sizeof(float));
    memcpy(packed + at.bv, net->bv, (size_t)n_options * sizeof(float));
}
