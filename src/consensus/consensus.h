/* Winner, quorum, hold and leader: what a tally means. Pure arithmetic on exact integers; every rank comes to the same.
 * The rule itself is kernels/consensus.h, shared with devices. */
#ifndef QR_CONSENSUS_CONSENSUS_H
#define QR_CONSENSUS_CONSENSUS_H

#include "backend/backend.h"

#include <stdbool.h>

qr_consensus qr_consensus_begin(int64_t n_agents, int64_t n_options, qr_fraction quorum, int64_t hold);

/* The option with most votes; the lowest on a tie. */
int64_t qr_tally_winner(const qr_tally *tally, int64_t n_options);

/* votes / agents >= num / den, exactly. */
bool qr_quorum_reached(int64_t votes, int64_t agents, qr_fraction quorum);

/* Takes in the tally of all agents after `step` (0 = the start). Once decided, the decision stays. Returns the winner.
 */
int64_t qr_consensus_update(qr_consensus *consensus, int64_t step, const qr_tally *tally);

#endif
