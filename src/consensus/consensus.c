#include "consensus/consensus.h"

qr_consensus qr_consensus_begin(int64_t n_agents, int64_t n_options, qr_fraction quorum, int64_t hold)
{
    return (qr_consensus){.n_agents = n_agents,
                          .n_options = n_options,
                          .quorum = quorum,
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
    __extension__ typedef __int128 wide;
    return (wide)votes * quorum.den >= (wide)agents * quorum.num;
}

int64_t qr_consensus_update(qr_consensus *consensus, int64_t step, const qr_tally *tally)
{
    int64_t winner = qr_tally_winner(tally, consensus->n_options);
    int64_t votes = tally->votes[winner];
    if (!qr_quorum_reached(votes, consensus->n_agents, consensus->quorum)) {
        consensus->held = 0;
        consensus->candidate = -1;
        return winner;
    }
    consensus->held = winner == consensus->candidate ? consensus->held + 1 : 1;
    consensus->candidate = winner;
    if (!consensus->decision.decided && consensus->held >= consensus->hold) {
        consensus->decision = (qr_decision){.decided = true,
                                            .step = step,
                                            .option = winner,
                                            .votes = votes,
                                            .leader = qr_leader_agent(tally->leader[winner])};
    }
    return winner;
}
