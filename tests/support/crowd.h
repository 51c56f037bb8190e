/* A whole run in one process, without MPI and without files but model.weights: deck, network, model and CPU backends,
 * stepped in the order of src/run/engine.c. Several parts exchange their halos in memory. */
#ifndef TEST_SUPPORT_CROWD_H
#define TEST_SUPPORT_CROWD_H

#include "backend/backend.h"
#include "consensus/consensus.h"
#include "deck/deck.h"

enum { CROWD_MAX_PARTS = 12 };

typedef struct crowd_setup {
    const char *deck_text;
    const char *const *overrides; /* [n_overrides] "key=value" */
    int n_overrides;
    int parts;                 /* 0 counts as 1 */
    int threads;               /* per part; 0 counts as 1 */
    const qr_backend_ops *ops; /* NULL: the CPU backend */
    bool device_times;         /* as qr_backend_setup has them */
    int64_t overlap_agents;
    /* network.kind edge_list only: every arc of the graph in any order, both directions where undirected. */
    const qr_edge *arcs; /* [n_arcs] */
    int64_t n_arcs;
    int64_t n_agents;
} crowd_setup;

typedef struct crowd_message {
    void *bytes; /* owned */
    int from;    /* part */
    const qr_halo_peer *sender;
    int to; /* part */
    const qr_halo_peer *receiver;
} crowd_message;

/* Read it freely; the fields are what a run's ranks hold together. */
typedef struct crowd {
    qr_deck *deck;
    qr_network_spec spec;
    qr_model *model;
    const qr_backend_ops *ops;
    int n_parts;
    qr_network *network[CROWD_MAX_PARTS];
    qr_backend *backend[CROWD_MAX_PARTS];
    crowd_message *messages; /* [n_messages] */
    int n_messages;
    qr_tally tally; /* of all agents, after `step` */
    qr_consensus consensus;
    int64_t step;
    /* Updates begin before halo votes are placed, where the backend can. Until then wrong ones stand in their places:
     * for backends whose messages hold a vote a byte. */
    bool begins;
} crowd;

/* Deck to backends, counted (step 0). The status and message of whatever refuses. */
qr_status crowd_open(const crowd_setup *setup, crowd **out);

/* The same from a deck in printf form, one part and one thread; fails the test where the deck is refused. */
crowd *crowd_make(const char *format, ...) QR_PRINTF(1, 2);

void crowd_free(crowd *c);

/* n steps. */
void crowd_step(crowd *c, int64_t n);

/* Up to max_steps steps, until the deck's quorum has held: true, with c->consensus.decision set; else false. */
bool crowd_run(crowd *c, int64_t max_steps);

/* Votes and states of all agents in global order.
 * votes: [n_agents]; state: [n_agents][state_dim]. */
void crowd_votes(const crowd *c, uint8_t *votes);
void crowd_state(const crowd *c, float *state);

/* XXH3 over all states, then all votes. */
uint64_t crowd_hash(const crowd *c);

/* A bit for each agent that is a zealot (little-endian in words). frozen: [n_agents / 64 + 1]. */
void crowd_zealots(const crowd *c, uint64_t *frozen);

/* Share of the agents that vote for an option. */
double crowd_share(const crowd *c, int64_t option);

#endif
