#include "well_mixed.h"

#include "statistics.h"

#include <math.h>

void well_mixed_check(crowd *c, int steps, well_mixed (*map)(double p, int parameter, double epsilon), int parameter,
                      double epsilon, const char *what)
{
    double n = (double)c->spec.n_agents;
    for (int step = 0; step < steps; step++) {
        double p = crowd_share(c, 1);
        well_mixed chance = map(p, parameter, epsilon);
        double expected = p * chance.keep + (1.0 - p) * chance.join;
        double variance = p * chance.keep * (1.0 - chance.keep) + (1.0 - p) * chance.join * (1.0 - chance.join);
        crowd_step(c, 1);
        /* An agent does not see itself, which moves a share by order 1 / N; so does a rounding of the variance. */
        check_within(crowd_share(c, 1), expected, sqrt(variance / n) + 1.0 / n, "%s %d from %.4f", what, parameter, p);
    }
}
