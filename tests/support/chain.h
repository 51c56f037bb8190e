/* Two options on a complete network as an exact Markov chain of the number of voters for option 0: what simulations of
 * finite crowds must give, where textbook formulas hold for large crowds only. */
#ifndef TEST_SUPPORT_CHAIN_H
#define TEST_SUPPORT_CHAIN_H

enum { CHAIN_MAX = 400 };

typedef struct chain {
    int n; /* agents, at most CHAIN_MAX */
    /* With i voters for option 0: chance that one of them leaves it in a step, that another agent joins them. */
    double leave[CHAIN_MAX + 1];
    double join[CHAIN_MAX + 1];
    /* chain_solve: chance that option 0 wins, mean steps to consensus, from i voters. */
    double win[CHAIN_MAX + 1];
    double steps[CHAIN_MAX + 1];
} chain;

/* Copying with probability proportional to quality times share among the others; equal qualities: the voter model. */
void chain_copying(chain *c, int n, double activation, double quality0, double quality1);

void chain_solve(chain *c);

#endif
