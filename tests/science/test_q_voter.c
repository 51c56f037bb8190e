/* q-voter model on a complete network. Castellano, Munoz and Pastor-Satorras 2009. */
#include "statistics.h"
#include "well_mixed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* All q agree against it: it flips; they disagree among themselves: it flips with probability epsilon. */
static well_mixed map(double p, int q, double epsilon)
{
    double all1 = pow(p, q);
    double all0 = pow(1.0 - p, q);
    double divided = 1.0 - all0 - all1;
    return (well_mixed){1.0 - all0 - epsilon * divided, all1 + epsilon * divided};
}

static void shares_follow_the_map(void **state)
{
    (void)state;
    static const double starts[] = {0.1, 0.35, 0.5, 0.75};
    static const double epsilons[] = {0.0, 0.02, 0.5, 1.0};
    for (int q = 2; q <= 4; q++) {
        for (int i = 0; i < 4; i++) {
            for (int e = 0; e < 4; e++) {
                crowd *c = crowd_make("run: {seed: %d}\noutput: {directory: none}\n"
                                      "agents: {count: 100000, initial: shares, shares: [%g, %g]}\n"
                                      "model: {rule: q_voter, q: %d, epsilon: %g}\n",
                                      700 + 100 * q + 10 * i + e, 1.0 - starts[i], starts[i], q, epsilons[e]);
                well_mixed_check(c, 3, map, q, epsilons[e], "q-voter");
                crowd_free(c);
            }
        }
    }
}

/* With epsilon = 0 the map is p + (1-p) p^q - p (1-p)^q, as published. */
static void map_is_the_published_one(void **state)
{
    (void)state;
    for (int q = 2; q <= 4; q++) {
        for (int eighths = 0; eighths <= 8; eighths++) {
            double p = eighths / 8.0;
            well_mixed chance = map(p, q, 0.0);
            double next = p * chance.keep + (1.0 - p) * chance.join;
            assert_true(fabs(next - (p + (1.0 - p) * pow(p, q) - p * pow(1.0 - p, q))) < 1e-14);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_follow_the_map),
                                       cmocka_unit_test(map_is_the_published_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
