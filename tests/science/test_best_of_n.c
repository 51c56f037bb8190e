/* Quality-weighted copying on a complete network: the replicator map, and who wins in a finite crowd. Kimura 1962. */
#include "chain.h"
#include "crowd.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { OPTIONS = 5 };

/* x_k' = q_k x_k / sum_j q_j x_j, step by step from the shares that the step before left. */
static void shares_follow_the_replicator_map(void **state)
{
    (void)state;
    static const double qualities[OPTIONS] = {1.0, 0.5, 1.3, 1.1, 0.9};
    crowd *c = crowd_make("run: {seed: 80}\noutput: {directory: none}\n"
                          "agents: {count: 1000000, options: 5, initial: shares, shares: [30, 40, 10, 15, 5]}\n"
                          "model: {rule: best_of_n, qualities: [1.0, 0.5, 1.3, 1.1, 0.9]}\n");
    for (int step = 0; step < 6; step++) {
        double expected[OPTIONS];
        double sum = 0.0;
        for (int k = 0; k < OPTIONS; k++) {
            expected[k] = qualities[k] * crowd_share(c, k);
            sum += expected[k];
        }
        crowd_step(c, 1);
        for (int k = 0; k < OPTIONS; k++) {
            double share = expected[k] / sum;
            check_within(crowd_share(c, k), share, share_error(share, c->spec.n_agents), "step %lld, option %d",
                         (long long)c->step, k);
        }
    }
    crowd_free(c);
}

static double kimura(double n, double s, double p)
{
    return (1.0 - exp(-2.0 * n * s * p)) / (1.0 - exp(-2.0 * n * s));
}

static void check_wins(int n, double s, int share, int replicas)
{
    static chain exact;
    int64_t wins = 0;
    for (int r = 0; r < replicas; r++) {
        crowd *c = crowd_make("run: {seed: %d}\noutput: {directory: none}\n"
                              "agents: {count: %d, initial: shares, shares: [%d, %d]}\n"
                              "model: {rule: best_of_n, qualities: [%.17g, 1]}\n",
                              3000000 + r, n, share, 100 - share, exp(s));
        assert_true(crowd_run(c, 1000000));
        wins += c->consensus.decision.option == 0 ? 1 : 0;
        crowd_free(c);
    }
    chain_copying(&exact, n, 1.0, exp(s), 1.0);
    chain_solve(&exact);
    double p = exact.win[n * share / 100];
    print_message("s = %g, p = %d %%: exact %.5f, Kimura %.5f\n", s, share, p, kimura(n, s, share / 100.0));
    check_within((double)wins / replicas, p, share_error(p, replicas), "the better option wins");
    assert_true(fabs(p - kimura(n, s, share / 100.0)) < 0.01);
}

static void better_option_wins_as_kimura_says(void **state)
{
    (void)state;
    check_wins(100, 0.01, 30, 3000);
    check_wins(100, 0.03, 10, 3000);
    check_wins(60, -0.02, 50, 3000);
}

/* The exact chain tends to the formula at fixed N s, with an error of order s. */
static void exact_chance_tends_to_the_formula(void **state)
{
    (void)state;
    static chain exact;
    double error[3];
    for (int k = 0; k < 3; k++) {
        int n = 50 << k;
        double s = 1.0 / n;
        chain_copying(&exact, n, 1.0, exp(s), 1.0);
        chain_solve(&exact);
        error[k] = exact.win[3 * n / 10] - kimura(n, s, 0.3);
        print_message("%d agents, N s = 1: formula off by %.5f\n", n, error[k]);
    }
    assert_true(fabs(error[2]) < 0.002);
    assert_true(fabs(error[1] / error[0]) < 0.6 && fabs(error[2] / error[1]) < 0.6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_follow_the_replicator_map),
                                       cmocka_unit_test(better_option_wins_as_kimura_says),
                                       cmocka_unit_test(exact_chance_tends_to_the_formula)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
