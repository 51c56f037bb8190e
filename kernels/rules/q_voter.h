/* q-voter: ask q neighbours, drawn with replacement; if all agree, adopt their option. Otherwise, with probability
 * epsilon, adopt a random option among the others (for two options: flip). (Castellano, Munoz and Pastor-Satorras
 * 2009.) */
#ifndef QR_RULES_Q_VOTER_H
#define QR_RULES_Q_VOTER_H

#include "rules/rule.h"

QR_FN uint32_t qr_q_voter_vote(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    uint32_t first = qr_view_sample(view, qr_draws_next64(draws));
    uint32_t agree = 1;
    for (uint32_t i = 1; i < rule->q; i++) {
        agree &= qr_view_sample(view, qr_draws_next64(draws)) == first ? 1u : 0u;
    }
    if (agree != 0u) {
        return first;
    }
    if ((uint64_t)qr_draws_next32(draws) < rule->epsilon) {
        uint32_t other = (uint32_t)qr_bounded64(qr_draws_next64(draws), rule->n_options - 1u);
        return other < view->own ? other : other + 1u;
    }
    return view->own;
}

#endif
