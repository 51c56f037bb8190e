/* Every rule and a whole step written a second time, as plainly as possible: one agent after the other, neighbours as a
 * list of agents, random numbers from single Philox calls, sums in loops. What the backends are compared with. */
#ifndef TEST_SUPPORT_PLAIN_H
#define TEST_SUPPORT_PLAIN_H

#include "crowd.h"

/* Numbers of one (agent, step, stream), by number instead of in order. */
typedef struct plain_draws {
    uint64_t seed;
    int64_t agent;
    int64_t step;
    uint32_t stream;
    uint32_t next;
} plain_draws;

uint32_t plain_draw32(plain_draws *draws);

/* The next number in 0 .. n - 1, from 64 bits. */
uint64_t plain_draw_below(plain_draws *draws, uint64_t n);

/* The vote of an agent that sees these votes (in the network's order; on a complete network sorted by option), by the
 * rule alone: no activation, noise, zealots, choice by planes; not for neural models. */
uint32_t plain_vote(const qr_model *model, const uint8_t *seen, int64_t degree, uint32_t own, plain_draws *draws);

/* Neighbours of every agent, from coordinates for lattices and rings, from the one-part network's rows for lists. */
typedef struct plain_graph {
    int64_t n_agents;
    bool complete;
    int64_t *row;       /* [n_agents + 1] */
    int64_t *neighbour; /* [row[n_agents]] agents, in the network's order */
    int n_colours;      /* networks of lists: turns of a sweep, ... */
    int *colour;        /* [n_agents] ... and who moves in which */
} plain_graph;

/* c has one part. Colours: agents in the order of their hashes, each taking the smallest that is free. */
plain_graph plain_graph_of(const crowd *c);
void plain_graph_clear(plain_graph *graph);

/* True when agents update and take noise in a step: each compares its own 32 bits with the threshold. */
bool plain_coin(uint64_t seed, int64_t agent, int64_t step, uint32_t stream, uint64_t threshold);

/* One step of all agents. votes: [n_agents], state: [n_agents][state_dim], both updated; frozen: a bit per zealot.
 * tally: of the votes before; replaced. */
void plain_step(const qr_model *model, const qr_network_spec *spec, const plain_graph *graph, const uint64_t *frozen,
                int64_t step, uint8_t *votes, float *state, qr_tally *tally);

#endif
