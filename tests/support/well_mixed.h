/* Two options on a large complete network: one step from a given share against the exact map of that share. */
#ifndef TEST_SUPPORT_WELL_MIXED_H
#define TEST_SUPPORT_WELL_MIXED_H

#include "crowd.h"

/* Chances to vote for option 1 after a step: of an agent that votes for it now, of one that votes for option 0. */
typedef struct well_mixed {
    double keep;
    double join;
} well_mixed;

/* Steps c `steps` times; each time the new share of option 1 must be p keep + (1 - p) join, p the share before, within
 * four standard errors of a sum of independent agents. map: of p and a parameter. */
void well_mixed_check(crowd *c, int steps, well_mixed (*map)(double p, int parameter, double epsilon), int parameter,
                      double epsilon, const char *what);

#endif
