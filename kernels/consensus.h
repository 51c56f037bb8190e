/* What a tally means: winner, quorum, hold and leader. Exact integers, so that host and device come to the same. */
#ifndef QR_CONSENSUS_RULE_H
#define QR_CONSENSUS_RULE_H

#include "portable.h"

enum { QR_LEADER_AGENT_BITS = 40 };

typedef struct qr_decision {
    int64_t decided; /* 0 or 1 */
    int64_t step;    /* first step at which the quorum had held for `hold` steps */
    int64_t option;
    int64_t votes;  /* for the option at that step */
    int64_t leader; /* agent */
} qr_decision;

typedef struct qr_consensus {
    int64_t n_agents;
    int64_t n_options;
    int64_t quorum_num; /* share of the agents that an option needs, as a fraction */
    int64_t quorum_den;
    int64_t hold;
    int64_t held; /* steps in a row at which `candidate` had the quorum, up to now */
    int64_t candidate;
    qr_decision decision;
} qr_consensus;

/* (24-bit score, then lowest agent id) as one number to take the maximum of. Never 0. */
QR_FN uint64_t qr_leader_pack(uint32_t score, int64_t agent)
{
    uint64_t low = ((uint64_t)1 << QR_LEADER_AGENT_BITS) - 1 - (uint64_t)agent;
    return (uint64_t)score << QR_LEADER_AGENT_BITS | low;
}

/* The agent of a packed leader; -1 for 0. */
QR_FN int64_t qr_leader_agent(uint64_t packed)
{
    uint64_t mask = ((uint64_t)1 << QR_LEADER_AGENT_BITS) - 1;
    return packed == 0 ? -1 : (int64_t)(mask - (packed & mask));
}

/* votes / agents >= num / den in 128-bit products; no argument is negative. */
QR_FN int qr_share_reached(int64_t votes, int64_t agents, int64_t num, int64_t den)
{
    uint64_t left_high = qr_mul_high64((uint64_t)votes, (uint64_t)den);
    uint64_t right_high = qr_mul_high64((uint64_t)agents, (uint64_t)num);
    if (left_high != right_high) {
        return left_high > right_high;
    }
    return (uint64_t)votes * (uint64_t)den >= (uint64_t)agents * (uint64_t)num;
}

/* Takes in what the option with most votes (the lowest on a tie) has after `step`. Once decided, the decision stays. */
QR_FN void qr_consensus_take(qr_consensus *consensus, int64_t step, int64_t winner, int64_t votes, uint64_t leader)
{
    if (!qr_share_reached(votes, consensus->n_agents, consensus->quorum_num, consensus->quorum_den)) {
        consensus->held = 0;
        consensus->candidate = -1;
        return;
    }
    consensus->held = winner == consensus->candidate ? consensus->held + 1 : 1;
    consensus->candidate = winner;
    if (consensus->decision.decided == 0 && consensus->held >= consensus->hold) {
        consensus->decision.decided = 1;
        consensus->decision.step = step;
        consensus->decision.option = winner;
        consensus->decision.votes = votes;
        consensus->decision.leader = qr_leader_agent(leader);
    }
}

#endif
