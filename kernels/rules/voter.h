/* Voter model: adopt the vote of a uniformly random neighbour (Clifford and Sudbury 1973; Holley and Liggett 1975).
 *
 * Where every agent has 2^b neighbours, 1 <= b <= 8, b bit planes choose the neighbour for 64 agents at once: neighbour
 * number = bits of planes 0 .. b-1, plane 0 least significant. Elsewhere the agent's own draws do. */
#ifndef QR_RULES_VOTER_H
#define QR_RULES_VOTER_H

#include "rules/rule.h"

QR_FN uint32_t qr_voter_vote(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    (void)rule;
    return qr_view_sample(view, qr_draws_next64(draws));
}

/* One machine word of agents, one bit plane of votes: bit i of the result is bit i of neighbour[number of agent i].
 * neighbour: [2^n_choice] words; choice: [n_choice] planes, n_choice >= 1. `neighbour` is used up. */
QR_FN QR_WORD qr_voter_word(QR_WORD *neighbour, const QR_WORD *choice, uint32_t n_choice)
{
    for (uint32_t b = 0; b < n_choice; b++) {
        uint32_t left = 1u << (n_choice - b - 1u);
        for (uint32_t j = 0; j < left; j++) {
            QR_WORD even = neighbour[2u * j];
            neighbour[j] = even ^ ((even ^ neighbour[2u * j + 1u]) & choice[b]);
        }
    }
    return neighbour[0];
}

#endif
