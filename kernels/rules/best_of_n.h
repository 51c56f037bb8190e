/* Best of n: copy option k with probability proportional to quality q_k times its share among the neighbours
 * (Valentini, Ferrante and Dorigo 2017; on a complete network the replicator map). Qualities are fixed point, so
 * weights are exact. */
#ifndef QR_RULES_BEST_OF_N_H
#define QR_RULES_BEST_OF_N_H

#include "rules/rule.h"

QR_FN uint32_t qr_best_of_n_vote(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    int64_t counts[QR_RULE_MAX_OPTIONS];
    uint64_t weights[QR_RULE_MAX_OPTIONS];
    uint64_t total = 0;
    qr_view_counts(view, rule->n_options, counts);
    for (uint32_t k = 0; k < rule->n_options; k++) {
        weights[k] = (uint64_t)counts[k] * rule->quality[k];
        total += weights[k];
    }
    return qr_pick_weighted(weights, rule->n_options, qr_bounded64(qr_draws_next64(draws), total));
}

#endif
