/* Neural agent: a small recurrent network with weights shared by all agents.
 *
 *   u  = [global shares (K); x (D); shares among neighbours (K)]
 *   h  = tanh(W1 u + b1)                 H values
 *   x' = x + dt (W2 h + b2 - x)          D values
 *   z  = Wv x' + bv                      K scores
 *   vote drawn from softmax(z / T), or argmax (lowest index) for T = 0
 *
 * Every sum is a chain of fused multiply-adds in ascending column order that starts from the bias: this order is the
 * definition, and a faster form must keep it to the last bit. Global shares come first so that their part, the same for
 * all agents, is computed once a step (qr_neural_global). Shares are float(count) / float(total). */
#ifndef QR_RULES_NEURAL_H
#define QR_RULES_NEURAL_H

#include "exact_math.h"
#include "rules/rule.h"

enum { QR_NEURAL_MAX_STATE = 1024, QR_NEURAL_MAX_HIDDEN = 4096 };

/* Shapes and weights; matrices are row-major and owned by whoever filled this. */
typedef struct qr_neural {
    uint32_t state_dim; /* D */
    uint32_t hidden;    /* H */
    uint32_t n_options; /* K */
    float dt;
    float inverse_temperature; /* 1 / T; 0 stands for T = 0 */
    const float *w1;           /* [H][K + D + K] */
    const float *b1;           /* [H] */
    const float *w2;           /* [D][H] */
    const float *b2;           /* [D] */
    const float *wv;           /* [K][D] */
    const float *bv;           /* [K] */
} qr_neural;

/* A float in [-1, 1) from 24 random bits. */
QR_FN float qr_signed_unit(uint32_t random)
{
    return (float)((int32_t)(random >> 8) - (1 << 23)) * 0x1p-23f;
}

/* An agent's first state, uniform in +-scale. x: [state_dim]. */
QR_FN void qr_neural_initial(uint64_t seed, float scale, uint32_t state_dim, uint64_t agent, float *x)
{
    qr_draws draws;
    qr_draws_begin(&draws, seed, agent, 0, QR_STREAM_INITIAL_STATE);
    for (uint32_t d = 0; d < state_dim; d++) {
        x[d] = scale * qr_signed_unit(qr_draws_next32(&draws));
    }
}

/* The share of the first layer that is the same for all agents: base[h] = b1[h] + sum_k W1[h][k] global[k]. */
QR_FN void qr_neural_global(const qr_neural *net, const float *global_shares, float *base)
{
    uint32_t columns = 2u * net->n_options + net->state_dim;
    for (uint32_t h = 0; h < net->hidden; h++) {
        float sum = net->b1[h];
        for (uint32_t k = 0; k < net->n_options; k++) {
            sum = qr_fmaf(net->w1[(size_t)h * columns + k], global_shares[k], sum);
        }
        base[h] = sum;
    }
}

/* Advances one agent's state x [D] and computes its scores z [K]. hidden: room for [H]. */
QR_FN void qr_neural_advance(const qr_neural *net, const float *base, const float *shares, float *x, float *hidden,
                             float *z)
{
    uint32_t n_options = net->n_options;
    uint32_t columns = 2u * n_options + net->state_dim;
    for (uint32_t h = 0; h < net->hidden; h++) {
        const float *row = net->w1 + (size_t)h * columns + n_options;
        float sum = base[h];
        for (uint32_t d = 0; d < net->state_dim; d++) {
            sum = qr_fmaf(row[d], x[d], sum);
        }
        for (uint32_t k = 0; k < n_options; k++) {
            sum = qr_fmaf(row[net->state_dim + k], shares[k], sum);
        }
        hidden[h] = qr_tanhf(sum);
    }
    for (uint32_t d = 0; d < net->state_dim; d++) {
        float sum = net->b2[d];
        for (uint32_t h = 0; h < net->hidden; h++) {
            sum = qr_fmaf(net->w2[(size_t)d * net->hidden + h], hidden[h], sum);
        }
        x[d] = qr_fmaf(net->dt, sum - x[d], x[d]);
    }
    for (uint32_t k = 0; k < n_options; k++) {
        float sum = net->bv[k];
        for (uint32_t d = 0; d < net->state_dim; d++) {
            sum = qr_fmaf(net->wv[(size_t)k * net->state_dim + d], x[d], sum);
        }
        z[k] = sum;
    }
}

/* What option k weighs against the best, in units of 2^-32. Cheaper to work out twice than to keep where registers are
 * all the memory that is near. */
QR_FN uint64_t qr_neural_weight(const qr_neural *net, const float *z, uint32_t best, uint32_t k)
{
    float weight = qr_expf((z[k] - z[best]) * net->inverse_temperature) * 4294967296.0f;
    return weight >= 0.0f ? (uint64_t)weight : 0; /* not a number counts as nothing */
}

/* The vote from scores z [K], and how sure the agent is of it, for the choice of a leader: for T > 0 the probability of
 * the vote taken, for T = 0 the margin over the second best; 24 bits, larger is surer. */
QR_FN uint32_t qr_neural_vote(const qr_neural *net, const float *z, qr_draws *draws, uint32_t *score)
{
    uint32_t best = 0;
    for (uint32_t k = 1; k < net->n_options; k++) {
        best = z[k] > z[best] ? k : best;
    }
    if (net->inverse_temperature == 0.0f) {
        float second = z[best == 0u ? 1u : 0u];
        for (uint32_t k = 0; k < net->n_options; k++) {
            second = k != best && z[k] > second ? z[k] : second;
        }
        *score = qr_float_bits(z[best] - second) >> 8 & 0x7fffffu;
        return best;
    }
    uint64_t total = 0;
    for (uint32_t k = 0; k < net->n_options; k++) {
        total += qr_neural_weight(net, z, best, k);
    }
    if (total == 0) {
        *score = 0;
        return best;
    }
    uint64_t number = qr_bounded64(qr_draws_next64(draws), total);
    uint32_t vote = 0;
    uint64_t weight = qr_neural_weight(net, z, best, 0);
    while (vote + 1u < net->n_options && number >= weight) {
        number -= weight;
        vote++;
        weight = qr_neural_weight(net, z, best, vote);
    }
    uint64_t share = (weight << 24) / total;
    *score = (uint32_t)(share > 0xffffffu ? 0xffffffu : share);
    return vote;
}

#endif
