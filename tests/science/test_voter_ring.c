/* Voter model on a ring: the share of disagreeing neighbour pairs over time. Glauber 1963 at zero temperature. */
#include "crowd.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { AGENTS = 1 << 20, BLOCK = 1 << 10, REACH = 4000 };

/* Asynchronous limit, t = activation * steps: exp(-2t) [I0(2t) + I1(2t)] / 2, by the power series of I0 and I1. */
static double asynchronous(double t)
{
    double term = exp(-2.0 * t); /* t^k / k! of both series, times the factor in front */
    double sum = 0.0;
    double square = term;
    for (int k = 0; k < 200; k++) {
        sum += square * (1.0 + t / (k + 1.0));
        square *= t * t / ((k + 1.0) * (k + 1.0));
    }
    return sum / 2.0;
}

/* Exact pair correlations C_r (spins +-1) at any activation: with (1-a)^2 neither of a pair updates, with a (1-a) each
 * alone copies a neighbour, with a^2 both do. */
typedef struct correlations {
    double c[REACH + 3];
} correlations;

static void begin(correlations *pairs)
{
    memset(pairs, 0, sizeof *pairs);
    pairs->c[0] = 1.0;
}

static void advance(correlations *pairs, double a, int64_t steps)
{
    static double next[REACH + 3];
    double *c = pairs->c;
    for (int64_t s = 0; s < steps; s++) {
        next[0] = 1.0;
        for (int r = 1; r <= REACH; r++) {
            double both = c[abs(r - 2)] + 2.0 * c[r] + c[r + 2];
            next[r] = (1.0 - a) * (1.0 - a) * c[r] + a * (1.0 - a) * (c[r - 1] + c[r + 1]) + a * a * both / 4.0;
            if (next[r] < 1e-30) { /* the front: nothing beyond */
                memset(next + r, 0, (size_t)(REACH + 1 - r) * sizeof *next);
                break;
            }
        }
        memcpy(c, next, (REACH + 1) * sizeof *c);
    }
}

static double disagreeing(const correlations *pairs)
{
    return (1.0 - pairs->c[1]) / 2.0;
}

static crowd *ring(int64_t seed, double activation)
{
    return crowd_make("run: {seed: %lld, activation: %g}\noutput: {directory: none}\nagents: {count: %d}\n"
                      "network: {kind: ring, degree: 2}\n",
                      (long long)seed, activation, AGENTS);
}

/* Blocks are much longer than domains, so that their means are independent. */
static block_mean measure(const crowd *c)
{
    block_mean rho = {.length = BLOCK};
    uint8_t *votes = malloc(AGENTS);
    assert_non_null(votes);
    crowd_votes(c, votes);
    for (int i = 0; i < AGENTS; i++) {
        block_add(&rho, votes[i] != votes[(i + 1) % AGENTS] ? 1.0 : 0.0);
    }
    free(votes);
    return rho;
}

static void disagreement_follows_the_exact_recursion(void **state)
{
    (void)state;
    static const double activations[] = {0.01, 0.1, 0.25};
    static const double times[] = {0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0};
    static correlations pairs;
    for (int i = 0; i < 3; i++) {
        double a = activations[i];
        crowd *c = ring(40 + i, a);
        begin(&pairs);
        for (size_t k = 0; k < sizeof times / sizeof times[0]; k++) {
            int64_t steps = (int64_t)llround(times[k] / a);
            advance(&pairs, a, steps - c->step);
            crowd_step(c, steps - c->step);
            block_mean rho = measure(c);
            check_within(rho.blocks.mean, disagreeing(&pairs), sample_error(&rho.blocks),
                         "activation %g, t = %g: disagreeing pairs", a, times[k]);
        }
        crowd_free(c);
    }
}

/* The recursion that the simulation follows above tends to the asynchronous formula, with an error of order a. */
static void recursion_tends_to_the_asynchronous_formula(void **state)
{
    (void)state;
    static const double times[] = {0.5, 1.0, 2.0, 5.0, 10.0};
    static correlations pairs;
    for (size_t k = 0; k < sizeof times / sizeof times[0]; k++) {
        double error[3];
        for (int i = 0; i < 3; i++) {
            double a = 0.02 / (1 << i);
            begin(&pairs);
            advance(&pairs, a, (int64_t)llround(times[k] / a));
            error[i] = disagreeing(&pairs) - asynchronous(times[k]);
        }
        print_message("t = %g: formula %.6f, errors %.2g %.2g %.2g\n", times[k], asynchronous(times[k]), error[0],
                      error[1], error[2]);
        assert_true(fabs(error[0]) < 0.01);
        assert_true(fabs(error[1] / error[0] - 0.5) < 0.02 && fabs(error[2] / error[1] - 0.5) < 0.01);
    }
}

/* With activation 1 the two sublattices never mix. */
static void synchronous_updates_keep_one_half(void **state)
{
    (void)state;
    crowd *c = ring(50, 1.0);
    for (int k = 0; k < 4; k++) {
        block_mean rho = measure(c);
        check_within(rho.blocks.mean, 0.5, sample_error(&rho.blocks), "activation 1, step %lld: disagreeing pairs",
                     (long long)c->step);
        crowd_step(c, 33);
    }
    crowd_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(disagreement_follows_the_exact_recursion),
                                       cmocka_unit_test(recursion_tends_to_the_asynchronous_formula),
                                       cmocka_unit_test(synchronous_updates_keep_one_half)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
