/* compute.precision: fast against the exact CPU backend: one step within what rounding allows, agent by agent; many
 * steps as alike as two seeds are. */
#include "crowd.h"
#include "run/backends.h"
#include "statistics.h"

#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SKIPPED = 77, SEEDS = 8, RUN_STEPS = 50, RUN_AGENTS = 20000, RUN_OPTIONS = 5 };

/* Half a unit in the last place of numbers of 11 bits (FP16, normal), which is also the relative error that tanh.approx
 * is documented with; that of float32 sums, whose order and rounding the hardware chooses; and where FP16 ends,
 * relative to the largest number of a row or state, which is scaled to 2^13 or more. */
static const double half_unit = 0x1p-11;
static const double sum_unit = 0x1p-21;
static const double least = 0x1p-35;

static const qr_backend_ops *cuda;

static crowd *open_crowd(const char *text, const qr_backend_ops *ops, int parts)
{
    crowd_setup setup = {.deck_text = text, .ops = ops, .parts = parts, .threads = 2};
    crowd *c = NULL;
    if (crowd_open(&setup, &c) != QR_OK) {
        fail_msg("%s%s", text, qr_error_message());
    }
    return c;
}

static void *room(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    assert_non_null(memory);
    return memory;
}

/* How much further than its own error a vector's numbers, and those of the other factor, throw off a sum of products.
 */
static double product_error(double size, double most, double n)
{
    return size * (2.0 * half_unit + half_unit * half_unit + n * sum_unit) + n * most * least;
}

/* Largest errors of the first step, with states and shares as large as they may be.
 * hidden: [hidden] of h; state: [state_dim] of x'. */
static void bound_errors(const crowd *c, double *hidden, double *state)
{
    const qr_neural *net = &c->model->neural;
    const double n = (double)(net->state_dim + 2 * net->n_options + net->hidden);
    const double largest = (double)c->model->state_scale;
    const size_t columns = 2 * (size_t)net->n_options + net->state_dim;
    double reach = largest;
    for (uint32_t d = 0; d < net->state_dim; d++) {
        double size = fabs((double)net->b2[d]);
        for (uint32_t h = 0; h < net->hidden; h++) {
            size += fabs((double)net->w2[(size_t)d * net->hidden + h]);
        }
        reach = fmax(reach, size);
    }
    for (uint32_t h = 0; h < net->hidden; h++) {
        const float *row = net->w1 + h * columns;
        double size = fabs((double)net->b1[h]);
        double share = 0.0;
        double most = 0.0;
        for (uint32_t k = 0; k < net->n_options; k++) {
            size += fabs((double)row[k]);
            share = fmax(share, fabs((double)row[net->n_options + net->state_dim + k]));
        }
        for (uint32_t d = 0; d < net->state_dim; d++) {
            size += fabs((double)row[net->n_options + d]) * largest;
            most = fmax(most, fabs((double)row[net->n_options + d]) * reach);
        }
        /* tanh is nowhere steeper than 1, nor larger */
        hidden[h] = product_error(size + share, most + share, n) + 2.0 * half_unit;
    }
    for (uint32_t d = 0; d < net->state_dim; d++) {
        double size = fabs((double)net->b2[d]);
        double error = 0.0;
        for (uint32_t h = 0; h < net->hidden; h++) {
            double weight = fabs((double)net->w2[(size_t)d * net->hidden + h]);
            size += weight;
            error += weight * (hidden[h] + half_unit);
        }
        state[d] = (double)net->dt * (error + n * sum_unit * size) + sum_unit * (largest + size);
    }
}

/* Every state after one step; exact and fast must differ, but by no more than that. */
static void check_states(const char *text, const crowd *exact, const crowd *fast)
{
    const size_t dim = (size_t)exact->model->state_dim;
    const size_t n = (size_t)exact->spec.n_agents;
    float *a = room(n * dim, sizeof *a);
    float *b = room(n * dim, sizeof *b);
    double *hidden = room(exact->model->neural.hidden, sizeof *hidden);
    double *bound = room(dim, sizeof *bound);
    double squares = 0.0;
    double typical = 0.0;
    crowd_state(exact, a);
    crowd_state(fast, b);
    bound_errors(exact, hidden, bound);
    for (size_t i = 0; i < n * dim; i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        squares += error * error;
        if (!(error <= bound[i % dim])) {
            fail_msg("%sagent %zu, state %zu: %.9g instead of %.9g, more than %.3g apart", text, i / dim, i % dim,
                     (double)b[i], (double)a[i], bound[i % dim]);
        }
    }
    /* Rounding errors of many products add up as random numbers do, not as in the worst case. */
    for (size_t d = 0; d < dim; d++) {
        typical += 0.5 * bound[d] / sqrt((double)dim * exact->model->neural.hidden) / (double)dim;
    }
    squares = sqrt(squares / (double)(n * dim));
    if (!(squares > 0.0) || squares > typical) {
        fail_msg("%sstates are %.3g apart in the mean: 0 would not be the fast kernel, above %.3g too much", text,
                 squares, typical);
    }
    free(a);
    free(b);
    free(hidden);
    free(bound);
}

/* At least so many agents vote alike; the shares are as alike as those of two samples. */
static void check_votes(const char *text, const crowd *exact, const crowd *fast)
{
    const size_t n = (size_t)exact->spec.n_agents;
    uint8_t *a = room(n, 1);
    uint8_t *b = room(n, 1);
    size_t same = 0;
    int64_t counted[QR_MAX_OPTIONS] = {0};
    crowd_votes(exact, a);
    crowd_votes(fast, b);
    for (size_t i = 0; i < n; i++) {
        same += a[i] == b[i] ? 1 : 0;
        counted[b[i]]++;
    }
    free(a);
    free(b);
    if (same < n - n / 100) {
        fail_msg("%sonly %zu of %zu agents vote alike", text, same, n);
    }
    for (uint32_t k = 0; k < exact->model->rule.n_options; k++) {
        double p = crowd_share(exact, k);
        assert_int_equal(counted[k], fast->tally.votes[k]);
        check_within(crowd_share(fast, k), p, share_error(p, (int64_t)n) + 1.0 / (double)n, "%soption %u", text, k);
    }
}

static void one_step_is_within_rounding(void **state)
{
    (void)state;
    static const struct {
        int d;
        int h;
        int options;
    } sizes[] = {{64, 64, 5},  {64, 64, 16}, {64, 64, 2}, {1, 1, 2},     {16, 16, 8},  {20, 37, 3},
                 {33, 200, 9}, {50, 10, 4},  {64, 80, 6}, {128, 128, 5}, {100, 65, 11}};
    static const char *const networks[] = {"complete", "lattice2d, size: [223, 91]", "random_regular, degree: 8",
                                           "ring, degree: 600", "scale_free, attach: 3"};
    static const char *const variants[] = {
        "temperature: 0", "temperature: 0.5", "temperature: 1, noise: 0.1, zealots: [100, 70",
        "temperature: 0.5, state_scale: 100, weight_scale: 3", "temperature: 0, state_scale: 1e-6, dt: 1.5"};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
            char text[1024];
            char zeros[128] = ""; /* ends the list of zealots, where the variant begins one */
            for (int k = 2; k < sizes[s].options && v == 2; k++) {
                (void)snprintf(zeros + strlen(zeros), sizeof zeros - strlen(zeros), ", 0");
            }
            const char *network = networks[(s + v) % (sizeof networks / sizeof networks[0])];
            (void)snprintf(text, sizeof text,
                           "run: {seed: %zu, activation: %s}\noutput: {directory: none}\ncompute: {precision: fast}\n"
                           "agents: {options: %d%s}\nnetwork: {kind: %s}\n"
                           "model: {rule: neural, state_dim: %d, hidden: %d, %s%s%s}\n",
                           s + 1, v == 2 ? "0.7" : "1", sizes[s].options,
                           strstr(network, "size") != NULL ? "" : ", count: 20293", network, sizes[s].d, sizes[s].h,
                           variants[v], zeros, v == 2 ? "]" : "");
            crowd *exact = open_crowd(text, NULL, 1);
            crowd *fast = open_crowd(text, cuda, 1 + (int)(v % 2));
            assert_false(exact->ops->is_fast != NULL && exact->ops->is_fast(exact->backend[0]));
            assert_true(cuda->is_fast(fast->backend[0]));
            assert_non_null(strstr(cuda->describe(fast->backend[0]), "precision fast"));
            crowd_step(exact, 1);
            crowd_step(fast, 1);
            check_states(text, exact, fast);
            check_votes(text, exact, fast);
            crowd_free(exact);
            crowd_free(fast);
        }
    }
}

/* A matrix or vector of seeded numbers, uniform in +-width, as the decks' weight files have them. */
static void put_weights(hid_t file, const char *name, hsize_t rows, hsize_t columns, float width)
{
    const hsize_t size[2] = {rows, columns};
    static uint64_t stream = 77;
    float *numbers = room((size_t)(rows * columns), sizeof *numbers);
    qr_neural_initial(5, width, (uint32_t)(rows * columns), stream++, numbers);
    hid_t space = H5Screate_simple(columns > 1 ? 2 : 1, size, NULL);
    hid_t set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    assert_true(H5Dclose(set) >= 0 && H5Sclose(space) >= 0);
    free(numbers);
}

/* Shares of the options at the end of a run. */
static void run_shares(const char *weights, int seed, const char *precision, double shares[RUN_OPTIONS])
{
    char text[1024];
    (void)snprintf(text, sizeof text,
                   "run: {seed: %d}\noutput: {directory: none}\ncompute: {precision: %s}\n"
                   "agents: {options: %d, count: %d}\nnetwork: {kind: random_regular, degree: 8}\n"
                   "model: {rule: neural, temperature: 0.5, weights: %s, dt: 0.2}\n",
                   seed, precision, RUN_OPTIONS, RUN_AGENTS, weights);
    crowd *c = open_crowd(text, cuda, 1); /* exact equals the CPU, as other tests show */
    assert_true(cuda->is_fast(c->backend[0]) == (strcmp(precision, "fast") == 0));
    crowd_step(c, RUN_STEPS);
    for (int k = 0; k < RUN_OPTIONS; k++) {
        shares[k] = crowd_share(c, k);
    }
    crowd_free(c);
}

/* Standard deviation of one value, not of the mean. */
static double spread_of(const sample_mean *sample)
{
    return sample_error(sample) * sqrt((double)sample->n);
}

/* The same weights, many seeds: after 50 steps fast and exact are no further apart than the seeds are. */
static void long_runs_agree(void **state)
{
    (void)state;
    char weights[] = "/tmp/quorate_fast_XXXXXX";
    sample_mean exact[RUN_OPTIONS] = {0};
    sample_mean fast[RUN_OPTIONS] = {0};
    double least_share = 1.0;
    int descriptor = mkstemp(weights);
    assert_true(descriptor >= 0 && close(descriptor) == 0);
    hid_t file = H5Fcreate(weights, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    put_weights(file, "W1", 64, 2 * RUN_OPTIONS + 64, 0.2f);
    put_weights(file, "b1", 64, 1, 0.1f);
    put_weights(file, "W2", 64, 64, 0.2f);
    put_weights(file, "b2", 64, 1, 0.1f);
    put_weights(file, "Wv", RUN_OPTIONS, 64, 0.2f);
    put_weights(file, "bv", RUN_OPTIONS, 1, 0.1f);
    assert_true(H5Fclose(file) >= 0);
    for (int seed = 1; seed <= SEEDS; seed++) {
        double shares[RUN_OPTIONS];
        run_shares(weights, seed, "exact", shares);
        for (int k = 0; k < RUN_OPTIONS; k++) {
            sample_add(&exact[k], shares[k]);
            least_share = fmin(least_share, shares[k]);
        }
        run_shares(weights, seed, "fast", shares);
        for (int k = 0; k < RUN_OPTIONS; k++) {
            sample_add(&fast[k], shares[k]);
        }
    }
    (void)unlink(weights);
    assert_true(least_share > 0.01); /* a crowd that has agreed would show nothing */
    for (int k = 0; k < RUN_OPTIONS; k++) {
        double spread = fmax(spread_of(&exact[k]), share_error(exact[k].mean, RUN_AGENTS));
        double apart = fabs(fast[k].mean - exact[k].mean);
        if (!(apart <= 5.0 * spread * sqrt(2.0 / SEEDS)) || !(spread_of(&fast[k]) <= 3.0 * spread)) {
            fail_msg("option %d: shares of %.5f +- %.5f, exact %.5f +- %.5f", k, fast[k].mean, spread_of(&fast[k]),
                     exact[k].mean, spread);
        }
    }
}

/* What the fast kernel does not cover is exact to the last bit, and says so. */
static void other_sizes_are_exact(void **state)
{
    (void)state;
    static const char *const models[] = {
        "agents: {count: 3000, options: 17}\nmodel: {rule: neural}\n",
        "agents: {count: 3000, options: 5}\nmodel: {rule: neural, state_dim: 129}\n",
        "agents: {count: 3000, options: 5}\nmodel: {rule: neural, hidden: 4096, state_dim: 8}\n",
        "agents: {count: 3000, options: 5}\nmodel: {rule: neural, dt: 2}\n",
        "agents: {count: 3000, options: 2}\nmodel: {rule: voter}\n"};
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        char text[512];
        (void)snprintf(text, sizeof text, "output: {directory: none}\ncompute: {precision: fast}\n%s", models[m]);
        crowd *cpu = open_crowd(text, NULL, 1);
        crowd *gpu = open_crowd(text, cuda, 1);
        assert_false(cuda->is_fast(gpu->backend[0]));
        assert_non_null(strstr(cuda->describe(gpu->backend[0]), "precision exact"));
        assert_non_null(strstr(cpu->ops->describe(cpu->backend[0]), "precision exact"));
        crowd_step(cpu, 3);
        crowd_step(gpu, 3);
        assert_true(crowd_hash(cpu) == crowd_hash(gpu));
        crowd_free(cpu);
        crowd_free(gpu);
    }
}

int main(void)
{
    char why[512] = "";
    cuda = qr_backend_load_cuda(why, sizeof why);
    if (cuda == NULL) {
        (void)printf("skipped, there is no CUDA device to test: %s\n", why);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_step_is_within_rounding), cmocka_unit_test(long_runs_agree),
                                       cmocka_unit_test(other_sizes_are_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
