/* Majority of r sampled agents on a complete network. Galam 2002; Krapivsky and Redner 2003. */
#include "statistics.h"
#include "well_mixed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* sum over j > r/2 of C(r,j) p^j (1-p)^(r-j) */
static double majority_of(double p, int r)
{
    double sum = 0.0;
    double choose = 1.0;
    for (int j = 0; j <= r; j++) {
        if (2 * j > r) {
            sum += choose * pow(p, j) * pow(1.0 - p, r - j);
        }
        choose = choose * (r - j) / (j + 1);
    }
    return sum;
}

static well_mixed map(double p, int r, double epsilon)
{
    (void)epsilon;
    double next = majority_of(p, r);
    return (well_mixed){next, next};
}

static void shares_follow_the_map(void **state)
{
    (void)state;
    assert_true(fabs(majority_of(0.3, 3) - (3 * 0.09 - 2 * 0.027)) < 1e-12);
    static const double starts[] = {0.1, 0.3, 0.45, 0.5, 0.8};
    for (int r = 3; r <= 7; r += 2) {
        for (int i = 0; i < 5; i++) {
            crowd *c = crowd_make("run: {seed: %d}\noutput: {directory: none}\n"
                                  "agents: {count: 300000, initial: shares, shares: [%g, %g]}\n"
                                  "model: {rule: majority, samples: %d}\n",
                                  60 + 10 * r + i, 1.0 - starts[i], starts[i], r);
            well_mixed_check(c, 3, map, r, 0.0, "majority of");
            crowd_free(c);
        }
    }
}

/* Steps until everybody agrees with the initial majority, which leads by ten standard deviations of a fair vote. */
static double steps_to_consensus(int agents, int replicas, double *standard_error)
{
    sample_mean steps = {0};
    for (int r = 0; r < replicas; r++) {
        int lead = (int)(5.0 * sqrt((double)agents));
        crowd *c = crowd_make("run: {seed: %d}\noutput: {directory: none}\n"
                              "agents: {count: %d, initial: shares, shares: [%d, %d]}\n"
                              "model: {rule: majority, samples: 3}\n",
                              r, agents, agents / 2 - lead, agents - agents / 2 + lead);
        assert_true(crowd_run(c, 1000));
        assert_int_equal(c->consensus.decision.option, 1);
        sample_add(&steps, (double)c->consensus.decision.step);
        crowd_free(c);
    }
    *standard_error = sample_error(&steps);
    return steps.mean;
}

/* What the map itself needs from there until less than one agent is left of the minority. */
static double steps_of_map(int agents)
{
    double p = 0.5 + 5.0 / sqrt((double)agents);
    int steps = 0;
    for (; (1.0 - p) * agents >= 1.0; steps++) {
        p = majority_of(p, 3);
    }
    return steps;
}

/* A lead of order 1 / sqrt(N) grows by 3/2 a step: ln(sqrt N) / ln(3/2) steps, then a few (log log N). */
static void consensus_takes_logarithmic_time(void **state)
{
    (void)state;
    static const int agents[] = {400, 4000, 40000, 400000};
    static const int replicas[] = {40, 30, 20, 4};
    double per_decade = log(10.0) / 2.0 / log(1.5);
    double before = 0.0;
    for (int i = 0; i < 4; i++) {
        double standard_error = 0.0;
        double steps = steps_to_consensus(agents[i], replicas[i], &standard_error);
        print_message("%d agents: %.2f steps to consensus (+- %.2f), by the map %.0f\n", agents[i], steps,
                      standard_error, steps_of_map(agents[i]));
        assert_true(fabs(steps - steps_of_map(agents[i])) < 1.0 + 4.0 * standard_error);
        if (i > 0) {
            assert_true(steps - before > 1.0 && steps - before < per_decade + 2.0);
        }
        before = steps;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_follow_the_map),
                                       cmocka_unit_test(consensus_takes_logarithmic_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
