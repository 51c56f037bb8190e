#include "consensus/consensus.h"

qr_consensus qr_consensus_begin(int64_t n_agents, int64_t n_options, qr_fraction quorum, int64_t hold)
{
    return (qr_consensus){.n_agents = n_agents,
                          .n_options = n_options,
                          .quorum_num = quorum.num,
                          .quorum_den = quorum.den,
                          .hold = hold,
                          .candidate = -1,
                          .decision = {.option = -1, .leader = -1, .step = -1}};
}

int64_t qr_tally_winner(const qr_tally *tally, int64_t n_options)
{
    int64_t winner = 0;
    for (int64_t k = 1; k < n_options; k++) {
        if (tally->votes[k] > tally->votes[winner]) {
            winner = k;
        }
    }
    return winner;
}

bool qr_quorum_reached(int64_t votes, int64_t agents, qr_fraction quorum)
{
    return qr_share_reached(votes, agents, quorum.num, quorum.den) != 0;
}

int64_t qr_consensus_update(qr_consensus *consensus, int64_t step, const qr_tally *tally)
{
    int64_t winner = qr_tally_winner(tally, consensus->n_options);
    qr_consensus_take(consensus, step, winner, tally->votes[winner], tally->leader[winner]);
    return winner;
}
