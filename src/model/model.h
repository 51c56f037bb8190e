/* Models: which rule runs, with which parameters and weights, and how agents begin.
 *
 * A model is the same on every rank. It holds no agents; initial votes and states are pure functions of (seed, agent).
 */
#ifndef QR_MODEL_MODEL_H
#define QR_MODEL_MODEL_H

#include "base/permutation.h"
#include "deck/deck.h"
#include "rules/neural.h"
#include "rules/rule.h"

#include <stdbool.h>
#include <stdio.h>

typedef enum qr_rule_kind {
#define QR_RULE(identifier, name, parameters, summary, reference) QR_RULE_##identifier,
#include "rules/rule_list.h"
#undef QR_RULE
    QR_N_RULES
} qr_rule_kind;

typedef struct qr_rule_info {
    const char *name;
    const char *parameters; /* deck keys under model., separated by blanks */
    const char *summary;
    const char *reference;
} qr_rule_info;

/* What a model needs to know of the network. */
typedef struct qr_model_network {
    int64_t n_agents;
    int64_t max_degree;     /* over all agents of the job; 0 for complete networks */
    int64_t uniform_degree; /* every agent has this many neighbours by lattice offsets; 0 otherwise */
} qr_model_network;

typedef struct qr_model {
    qr_rule_kind kind;
    qr_rule rule;
    qr_neural neural;    /* QR_RULE_NEURAL only; points into `weights` */
    float *weights;      /* owned */
    uint64_t *boltzmann; /* owned; QR_RULE_POTTS only */
    int64_t state_dim;   /* float32 per agent; 0 when agents are their vote */
    bool sweeps;         /* updates in place, colour by colour */
    bool fast;           /* backends may round otherwise than the rule says where that is faster */
    qr_initial initial;
    int64_t zealots;                    /* agents that never change, in all */
    int64_t zealot_end[QR_MAX_OPTIONS]; /* cumulative, by option */
    int64_t share_end[QR_MAX_OPTIONS];  /* cumulative counts of the other agents, initial: shares */
    qr_permutation places;              /* spreads zealots and shares over the agents */
    float state_scale;
} qr_model;

/* Name, parameters, summary and reference of a rule. */
const qr_rule_info *qr_rule_info_of(qr_rule_kind kind);

/* The rule that the deck names; QR_USAGE with the nearest name otherwise, or when keys of other rules are set, or when
 * the keys of this rule contradict each other, or when a probability is so small that it would count as 0. Everything
 * that can be checked without the network is checked here; the number of agents too, where agents.count is known. */
qr_status qr_model_check(const qr_deck *deck, qr_rule_kind *out);

/* True when agents move colour by colour: the network must have colours before there is a backend. */
bool qr_model_sweeps(const qr_deck *deck);

/* Number of float32 in a neural model's weights: W1, b1, W2, b2, Wv, bv one after another. 0 for other rules. */
int64_t qr_model_weight_count(const qr_deck *deck);

/* weights: [qr_model_weight_count] read from a file, copied; NULL: seeded (neural), or none needed. */
qr_status qr_model_create(const qr_deck *deck, const qr_model_network *network, const float *weights, qr_model **out);

void qr_model_destroy(qr_model *model);

/* First vote of agents first .. first + count - 1, and a bit per agent (little-endian in 64-bit words; first is a
 * multiple of 64) that is set for zealots. `file_votes` [count] replaces the drawn votes where initial is a file
 * (zealots still count). frozen may be NULL. */
void qr_model_initial_votes(const qr_model *model, int64_t first, int64_t count, const uint8_t *file_votes,
                            uint8_t *votes, uint64_t *frozen);

/* First state of one agent, uniform in +-state_scale. x: [state_dim]. */
void qr_model_initial_state(const qr_model *model, int64_t agent, float *x);

/* Prints every rule with its parameters and reference. */
void qr_model_print_all(FILE *out);

#endif
