/* Random decks for property tests: any rule on any network, small, with every parameter drawn. */
#ifndef TEST_SUPPORT_CASES_H
#define TEST_SUPPORT_CASES_H

#include "model/model.h"
#include "network/network.h"

typedef struct drawn_case {
    char text[8192];
    qr_edge *arcs; /* owned; edge lists only */
    int64_t n_arcs;
    int64_t n_agents;
} drawn_case;

/* A number in low .. high. */
int64_t case_pick(uint64_t *state, int64_t low, int64_t high);

/* Draws a deck of that rule on that kind of network (potts: on a lattice or ring instead of a complete
 * one). */
void case_draw(uint64_t *state, qr_rule_kind rule, qr_network_kind kind, drawn_case *out);

void case_clear(drawn_case *drawn);

#endif
