/* Voter model on a complete network: who wins, and when. Sood and Redner 2005; Kimura 1962. */
#include "chain.h"
#include "crowd.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { AGENTS = 100, REPLICAS = 4000 };

/* Runs to consensus; the winning option, and at which step. */
static int64_t consensus_of(int64_t seed, const char *shares, int options, double activation, int64_t *step)
{
    crowd *c = crowd_make("run: {seed: %lld, activation: %g}\noutput: {directory: none}\n"
                          "agents: {count: %d, options: %d, initial: shares, shares: %s}\n",
                          (long long)seed, activation, AGENTS, options, shares);
    assert_true(crowd_run(c, 1000000));
    *step = c->consensus.decision.step;
    int64_t winner = c->consensus.decision.option;
    assert_int_equal(c->tally.votes[winner], AGENTS);
    crowd_free(c);
    return winner;
}

static double two_option_time(double p, double n, double a)
{
    return -2.0 * n * (p * log(p) + (1.0 - p) * log(1.0 - p)) / (a * (2.0 - a));
}

static void check_two_options(double activation, int replicas)
{
    static chain exact;
    sample_mean wins = {0};
    sample_mean steps = {0};
    for (int r = 0; r < replicas; r++) {
        int64_t step = 0;
        int64_t winner = consensus_of(1000000 + r, "[3, 7]", 2, activation, &step);
        sample_add(&wins, winner == 0 ? 1.0 : 0.0);
        sample_add(&steps, (double)step);
    }
    chain_copying(&exact, AGENTS, activation, 1.0, 1.0);
    chain_solve(&exact);
    check_within(wins.mean, 0.3, share_error(0.3, replicas), "activation %g: option 0 wins", activation);
    check_within(steps.mean, exact.steps[3 * AGENTS / 10], sample_error(&steps), "activation %g: steps", activation);
}

static void share_is_chance_to_win_and_time_is_exact(void **state)
{
    (void)state;
    check_two_options(1.0, REPLICAS);
    check_two_options(0.5, REPLICAS);
    check_two_options(0.1, REPLICAS / 4);
}

/* What the simulation follows above tends to the formula as crowds grow: the error is of order 1 / N. */
static void exact_time_tends_to_the_formula(void **state)
{
    (void)state;
    static chain exact;
    static const double activations[] = {1.0, 0.5, 0.1};
    for (int i = 0; i < 3; i++) {
        double error[3];
        for (int k = 0; k < 3; k++) {
            int n = 50 << k;
            chain_copying(&exact, n, activations[i], 1.0, 1.0);
            chain_solve(&exact);
            assert_true(fabs(exact.win[3 * n / 10] - 0.3) < 1e-9);
            error[k] = exact.steps[3 * n / 10] / two_option_time(0.3, n, activations[i]) - 1.0;
            print_message("activation %g, %d agents: formula off by %.4f\n", activations[i], n, error[k]);
        }
        assert_true(fabs(error[2]) < 0.02);
        assert_true(fabs(error[1] / error[0]) < 0.65 && fabs(error[2] / error[1]) < 0.65);
    }
}

static void each_of_four_options_wins_by_its_share(void **state)
{
    (void)state;
    int64_t wins[4] = {0};
    for (int r = 0; r < REPLICAS; r++) {
        int64_t step = 0;
        wins[consensus_of(2000000 + r, "[10, 20, 30, 40]", 4, 1.0, &step)]++;
    }
    for (int k = 0; k < 4; k++) {
        double p = 0.1 * (k + 1);
        check_within((double)wins[k] / REPLICAS, p, share_error(p, REPLICAS), "option %d wins", k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(share_is_chance_to_win_and_time_is_exact),
                                       cmocka_unit_test(exact_time_tends_to_the_formula),
                                       cmocka_unit_test(each_of_four_options_wins_by_its_share)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
