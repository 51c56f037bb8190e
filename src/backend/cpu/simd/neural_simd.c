/* The neural step for up to 64 agents: three small matrix products with weights
 * packed in the order in which they are read, then votes with an agent to a
 * lane.
 *
 * A tile of a product is ROWS agents x VECTORS vectors of outputs. It stays in
 * registers while the columns go by in ascending order, one fused multiply-add
 * each: the order that kernels/rules/neural.h defines. */
#include "backend/cpu/simd/kernels.h"
#include "backend/cpu/simd/vector.h"

enum {
    FLOATS = QR_SIMD_BYTES / 4,                  /* to a vector */
    PANEL_VECTORS = QR_SIMD_BYTES == 64 ? 4 : 2, /* outputs that a tile has at most */
    PANEL = PANEL_VECTORS * FLOATS,
    COLUMNS_AT_ONCE = 512, /* so that a panel's weights stay in the second-level cache */
    BATCH = QR_NEURAL_BATCH
};

typedef float fvec __attribute__((vector_size(QR_SIMD_BYTES)));

QR_INLINE fvec fvec_load(const float *from)
{
    fvec v;
    memcpy(&v, from, sizeof v);
    return v;
}

QR_INLINE void fvec_store(float *to, fvec v)
{
    memcpy(to, &v, sizeof v);
}

QR_INLINE fvec fvec_all(float value)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (fvec)_mm512_set1_ps(value);
#elif QR_SIMD_BYTES == 32 && defined(__AVX2__)
    return (fvec)_mm256_set1_ps(value);
#else
    return value - (fvec){0};
#endif
}

QR_INLINE fvec fvec_fma(fvec a, fvec b, fvec c)
{
#if QR_SIMD_BYTES == 64 && defined(__AVX512F__)
    return (fvec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif QR_SIMD_BYTES == 32 && defined(__FMA__)
    return (fvec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < FLOATS; i++) {
        c[i] = qr_fmaf(a[i], b[i], c[i]);
    }
    return c;
#endif
}

QR_INLINE size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Values of some columns for consecutive agents: agent a, column c at from[a *
 * row + c * column]. */
typedef struct column_set {
    const float *from;
    size_t row;
    size_t column;
    size_t n;
} column_set;

/* One product: out[a][j] = init[j] + sum over columns of value[a][column] *
 * weight[column][j]. */
typedef struct weighted_sum {
    column_set part[2];   /* the first before the second; the second may be empty */
    const float *weights; /* panels one after another, each [column][outputs of
                             the panel] */
    const float *init;
    size_t n_outputs; /* padded */
    float *out;       /* [agent][n_outputs] */
    bool squash;      /* tanh of the result */
} weighted_sum;

/* Continues (or begins) a tile with the given columns. */
QR_INLINE void tile(const int rows, const int vectors, const column_set *part, const float *weights, const float *init,
                    size_t init_row, float *out, size_t out_row)
{
    fvec sum[16][PANEL_VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = fvec_load(init + (size_t)r * init_row + (size_t)v * FLOATS);
        }
    }
    for (int p = 0; p < 2; p++) {
        const float *value = part[p].from;
        const size_t row = part[p].row;
        for (size_t c = 0; c < part[p].n; c++) {
            fvec weight[PANEL_VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                weight[v] = fvec_load(weights + (size_t)v * FLOATS);
            }
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                fvec same = fvec_all(value[(size_t)r * row]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) {
                    sum[r][v] = fvec_fma(weight[v], same, sum[r][v]);
                }
            }
            weights += (size_t)vectors * FLOATS;
            value += part[p].column;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            fvec_store(out + (size_t)r * out_row + (size_t)v * FLOATS, sum[r][v]);
        }
    }
}

static void squash_rows(float *out, size_t out_row, int rows, size_t width)
{
    for (int r = 0; r < rows; r++) {
        float *at = out + (size_t)r * out_row;
        for (size_t j = 0; j < width; j += FLOATS) {
            for (size_t i = 0; i < FLOATS; i++) {
                at[j + i] = qr_tanhf(at[j + i]);
            }
        }
    }
}

/* All agents of the batch for one panel and some columns, `rows` agents to a
 * tile as long as they last. */
QR_INLINE void panel(const int rows, const int vectors, const weighted_sum *product, const column_set *part,
                     const float *weights, const float *init, size_t init_row, float *out, int n, bool last)
{
    column_set here[2] = {part[0], part[1]};
    int a = 0;
    while (a < n) {
        for (int p = 0; p < 2; p++) {
            if (part[p].from != NULL) { /* the second set may be empty */
                here[p].from = part[p].from + (size_t)a * part[p].row;
            }
        }
        const float *begin = init + (size_t)a * init_row;
        float *end = out + (size_t)a * product->n_outputs;
        int done = 1;
        if (n - a >= rows) {
            done = rows;
            tile(rows, vectors, here, weights, begin, init_row, end, product->n_outputs);
        } else if (n - a >= 4) {
            done = 4;
            tile(4, vectors, here, weights, begin, init_row, end, product->n_outputs);
        } else {
            tile(1, vectors, here, weights, begin, init_row, end, product->n_outputs);
        }
        if (product->squash && last) {
            squash_rows(end, product->n_outputs, done, (size_t)vectors * FLOATS);
        }
        a += done;
    }
}

typedef void panel_function(const weighted_sum *product, const column_set *part, const float *weights,
                            const float *init, size_t init_row, float *out, int n, bool last);

/* Tiles as large as the registers allow: sums, one vector of weights each, and
 * the value that all lanes share. */
#define PANEL_OF(rows, vectors)                                                                                        \
    static void panel_##vectors(const weighted_sum *product, const column_set *part, const float *weights,             \
                                const float *init, size_t init_row, float *out, int n, bool last)                      \
    {                                                                                                                  \
        panel(rows, vectors, product, part, weights, init, init_row, out, n, last);                                    \
    }

#if QR_SIMD_BYTES == 64
PANEL_OF(16, 1)
PANEL_OF(12, 2)
PANEL_OF(8, 3)
PANEL_OF(6, 4)
static panel_function *const panel_functions[PANEL_VECTORS] = {panel_1, panel_2, panel_3, panel_4};
#else
PANEL_OF(8, 1)
PANEL_OF(6, 2)
static panel_function *const panel_functions[PANEL_VECTORS] = {panel_1, panel_2};
#endif

#if QR_SIMD_BYTES == 64
enum { FEW = 8 }; /* outputs at most for which half a vector does */

typedef float half_vec __attribute__((vector_size(FEW * sizeof(float))));

QR_INLINE void tile_of_few(const int rows, const column_set *part, size_t first, const float *weights,
                           const float *init, float *out)
{
    half_vec sum[12];
    const float *value = part->from + first * part->row;
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        memcpy(&sum[r], init, sizeof sum[r]);
    }
    for (size_t c = 0; c < part->n; c++) {
        half_vec weight;
        memcpy(&weight, weights + c * FEW, sizeof weight);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m256 same = _mm256_set1_ps(value[(size_t)r * part->row]);
            sum[r] = (half_vec)_mm256_fmadd_ps((__m256)weight, same, (__m256)sum[r]);
        }
        value += part->column;
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        memcpy(out + ((size_t)first + (size_t)r) * FEW, &sum[r], sizeof sum[r]);
    }
}

/* A product with at most FEW outputs and columns in one part. */
static void multiply_few(const weighted_sum *product, int n)
{
    size_t end = (size_t)n;
    size_t a = 0;
    for (; a + 12 <= end; a += 12) {
        tile_of_few(12, &product->part[0], a, product->weights, product->init, product->out);
    }
    for (; a + 4 <= end; a += 4) {
        tile_of_few(4, &product->part[0], a, product->weights, product->init, product->out);
    }
    for (; a < end; a++) {
        tile_of_few(1, &product->part[0], a, product->weights, product->init, product->out);
    }
}
#endif

static void multiply(const weighted_sum *product, int n)
{
#if QR_SIMD_BYTES == 64
    if (product->n_outputs == FEW) {
        multiply_few(product, n);
        return;
    }
#endif
    const size_t n_columns = product->part[0].n + product->part[1].n;
    for (size_t j = 0; j < product->n_outputs; j += PANEL) {
        size_t width = product->n_outputs - j < PANEL ? product->n_outputs - j : PANEL;
        const float *weights = product->weights + j * n_columns;
        float *out = product->out + j;
        const float *init = product->init + j;
        size_t init_row = 0;
        column_set part[2] = {product->part[0], {.from = product->part[1].from}};
        bool last = false;
        while (!last) {
            size_t rest = product->part[0].n - (size_t)(part[0].from - product->part[0].from) / product->part[0].column;
            last = rest <= COLUMNS_AT_ONCE;
            part[0].n = last ? rest : COLUMNS_AT_ONCE;
            if (last) {
                part[1] = product->part[1];
            }
            panel_functions[width / FLOATS - 1](product, part, weights, init, init_row, out, n, last);
            weights += part[0].n * width;
            part[0].from += part[0].n * part[0].column;
            init = out;
            init_row = product->n_outputs;
        }
    }
}

/* Where things lie in the packed weights and in the working memory, in floats.
 */
typedef struct layout {
    size_t hidden; /* padded sizes */
    size_t state;
    size_t options;
    size_t w1, w2, wv, b2, bv, packed_end;
    size_t h, x, z, weight, z_by_option, work_end;
} layout;

static layout find_layout(const qr_neural *net)
{
    layout at;
    at.hidden = round_up(net->hidden, FLOATS);
    at.state = round_up(net->state_dim, FLOATS);
    at.options = round_up(net->n_options, net->n_options <= 8 ? 8 : FLOATS);
    at.w1 = 0;
    at.w2 = at.w1 + at.hidden * ((size_t)net->state_dim + net->n_options);
    at.wv = at.w2 + at.state * net->hidden;
    at.b2 = at.wv + at.options * net->state_dim;
    at.bv = at.b2 + at.state;
    at.packed_end = at.bv + at.options;
    at.h = 0;
    at.x = at.h + BATCH * at.hidden;
    at.z = at.x + BATCH * at.state;
    at.weight = at.z + BATCH * at.options;
    at.z_by_option = at.weight + 2 * (size_t)BATCH * net->n_options;
    at.work_end = at.z_by_option + (size_t)BATCH * net->n_options;
    return at;
}

size_t QR_SIMD_NAME(qr_simd_neural_work_bytes)(const qr_neural *net)
{
    return find_layout(net).work_end * sizeof(float);
}

size_t QR_SIMD_NAME(qr_simd_neural_packed_bytes)(const qr_neural *net)
{
    return find_layout(net).packed_end * sizeof(float);
}

/* Panels of a matrix [rows][columns] whose lines are `stride` apart; padding is
 * 0. */
static void pack_matrix(const float *matrix, size_t rows, size_t columns, size_t stride, size_t padded, float *to)
{
    for (size_t j = 0; j < padded; j += PANEL) {
        size_t width = padded - j < PANEL ? padded - j : PANEL;
        for (size_t c = 0; c < columns; c++) {
            for (size_t i = 0; i < width; i++) {
                *to++ = j + i < rows ? matrix[(j + i) * stride + c] : 0.0f;
            }
        }
    }
}

void QR_SIMD_NAME(qr_simd_neural_pack)(const qr_neural *net, void *packed)
{
    const layout at = find_layout(net);
    float *to = packed;
    size_t seen = (size_t)net->state_dim + net->n_options;
    pack_matrix(net->w1 + net->n_options, net->hidden, seen, seen + net->n_options, at.hidden, to + at.w1);
    pack_matrix(net->w2, net->state_dim, net->hidden, net->hidden, at.state, to + at.w2);
    pack_matrix(net->wv, net->n_options, net->state_dim, net->state_dim, at.options, to + at.wv);
    memset(to + at.b2, 0, (at.packed_end - at.b2) * sizeof(float));
    memcpy(to + at.b2, net->b2, net->state_dim * sizeof(float));
    memcpy(to + at.bv, net->bv, net->n_options * sizeof(float));
}

/* qr_draws_next64 of all agents' first draw. */
static void draw(uint64_t seed, int64_t step, const int64_t *agents, uint64_t *random)
{
    qr_philox_keys keys;
    qr_philox_expand(seed, &keys);
    for (int a = 0; a < BATCH; a += QR_LANES) {
        qr_vec agent = qr_vec_load((const uint64_t *)agents + a);
        qr_philox_vec block = qr_philox_lanes(&keys, agent, agent >> 32, qr_vec_all((uint32_t)step),
                                              qr_vec_all((uint32_t)QR_STREAM_RULE << 16));
        qr_vec_store(random + a, qr_vec_join(block.word[0], block.word[1]));
    }
}

/* The weights of qr_neural_vote, weight[k][a]; best[a] the option with the
 * highest score. */
static void find_weights(const qr_neural *net, const float *z, uint32_t *best, uint64_t *weight)
{
    float top[BATCH];
    for (int a = 0; a < BATCH; a++) {
        best[a] = 0;
        top[a] = z[a];
    }
    for (uint32_t k = 1; k < net->n_options; k++) {
        const float *row = z + (size_t)k * BATCH;
        for (int a = 0; a < BATCH; a++) {
            uint32_t higher = 0u - (uint32_t)(row[a] > top[a]);
            best[a] = (k & higher) | (best[a] & ~higher);
            top[a] = qr_select(higher, row[a], top[a]);
        }
    }
    const float inverse_temperature = net->inverse_temperature;
    for (uint32_t k = 0; k < net->n_options; k++) {
        const float *row = z + (size_t)k * BATCH;
        uint32_t high[BATCH];
        uint32_t low[BATCH];
        /* A weight of at most 2^32 becomes an integer in two halves: narrower
         * processors convert to 32 bits only. */
        for (int a = 0; a < BATCH; a++) {
            float w = qr_expf((row[a] - top[a]) * inverse_temperature) * 4294967296.0f;
            w = qr_select(0u - (uint32_t)(w >= 0.0f), w, 0.0f);
            int32_t upper = (int32_t)(w * 0x1p-16f);
            high[a] = (uint32_t)upper;
            low[a] = (uint32_t)(int32_t)(w - (float)upper * 65536.0f);
        }
        for (int a = 0; a < BATCH; a++) {
            weight[(size_t)k * BATCH + (size_t)a] = ((uint64_t)high[a] << 16) + low[a];
        }
    }
}

/* qr_neural_vote for T > 0. */
static void vote_softly(const qr_neural *net, const float *z, uint64_t seed, int64_t step, int n, uint64_t *weight,
                        qr_neural_batch *batch)
{
    uint32_t best[BATCH];
    uint64_t random[BATCH];
    uint64_t total[BATCH];
    uint64_t vote[BATCH];
    uint64_t taken[BATCH];
    find_weights(net, z, best, weight);
    draw(seed, step, batch->agents, random);
    for (int a = 0; a < BATCH; a += QR_LANES) {
        qr_vec sum = qr_vec_all(0);
        for (uint32_t k = 0; k < net->n_options; k++) {
            sum += qr_vec_load(weight + (size_t)k * BATCH + a);
        }
        /* The option is the number of cumulative weights that the drawn number
         * reaches. */
        qr_vec number = qr_vec_bounded(qr_vec_load(random + a), sum);
        qr_vec here = qr_vec_load(weight + a);
        qr_vec reached = here;
        qr_vec option = qr_vec_all(0);
        for (uint32_t k = 1; k < net->n_options; k++) {
            qr_vec next = qr_vec_load(weight + (size_t)k * BATCH + a);
            qr_vec further = (qr_vec)(number >= reached);
            option -= further;
            here ^= (here ^ next) & further;
            reached += next;
        }
        qr_vec_store(total + a, sum);
        qr_vec_store(vote + a, option);
        qr_vec_store(taken + a, here);
    }
    for (int a = 0; a < n; a++) {
        uint64_t share = total[a] == 0 ? 0 : (taken[a] << 24) / total[a];
        batch->votes[a] = (uint8_t)(total[a] == 0 ? best[a] : vote[a]);
        batch->scores[a] = (uint32_t)(share > 0xffffffu ? 0xffffffu : share);
    }
}

void QR_SIMD_NAME(qr_simd_neural)(const qr_neural *net, const void *packed, const float *base, uint64_t seed,
                                  int64_t step, int n, qr_neural_batch *batch)
{
    const layout at = find_layout(net);
    const float *weights = packed;
    float *work = batch->work;
    const size_t dim = net->state_dim;
    const column_set x = {.from = batch->x, .row = dim, .column = 1, .n = dim};
    const column_set shares = {.from = batch->shares, .row = 1, .column = BATCH, .n = net->n_options};
    const column_set hidden = {.from = work + at.h, .row = at.hidden, .column = 1, .n = net->hidden};
    multiply(&(weighted_sum){.part = {x, shares},
                             .weights = weights + at.w1,
                             .init = base,
                             .n_outputs = at.hidden,
                             .out = work + at.h,
                             .squash = true},
             n);
    multiply(&(weighted_sum){.part = {hidden},
                             .weights = weights + at.w2,
                             .init = weights + at.b2,
                             .n_outputs = at.state,
                             .out = work + at.x},
             n);
    const float dt = net->dt;
    for (int a = 0; a < n; a++) {
        float *state = batch->x + (size_t)a * dim;
        const float *sum = work + at.x + (size_t)a * at.state;
        for (size_t d = 0; d < dim; d++) {
            state[d] = qr_fmaf(dt, sum[d] - state[d], state[d]);
        }
    }
    float *z = work + at.z;
    multiply(
        &(weighted_sum){
            .part = {x}, .weights = weights + at.wv, .init = weights + at.bv, .n_outputs = at.options, .out = z},
        n);
    if (net->inverse_temperature == 0.0f) {
        for (int a = 0; a < n; a++) {
            batch->votes[a] = (uint8_t)qr_neural_vote(net, z + (size_t)a * at.options, NULL, &batch->scores[a]);
        }
        return;
    }
    float *z_by_option = work + at.z_by_option;
    for (uint32_t k = 0; k < net->n_options; k++) {
        for (int a = 0; a < n; a++) {
            z_by_option[(size_t)k * BATCH + (size_t)a] = z[(size_t)a * at.options + k];
        }
    }
    vote_softly(net, z_by_option, seed, step, n, (uint64_t *)(void *)(work + at.weight), batch);
}
