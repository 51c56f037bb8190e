/* Potts model, energy = - sum over neighbour pairs of delta(s_i, s_j), k_B = 1 (Wu 1982). With K = 2 this is the Ising
 * model at twice the temperature of the +-1 convention. Heat bath draws the vote from its conditional distribution;
 * Metropolis proposes another option and accepts with min(1, exp(-dE / T)). Sweeps go through independent colours. */
#ifndef QR_RULES_POTTS_H
#define QR_RULES_POTTS_H

#include "rules/rule.h"

/* exp(-j / T) in units of 2^-40; beyond the table's end the last entry. */
QR_FN uint64_t qr_potts_weight(const qr_rule *rule, int64_t j)
{
    return rule->boltzmann[j < rule->boltzmann_last ? j : rule->boltzmann_last];
}

QR_FN uint32_t qr_potts_vote(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    int64_t counts[QR_RULE_MAX_OPTIONS];
    qr_view_counts(view, rule->n_options, counts);
    uint64_t random = qr_draws_next64(draws);
    if (rule->metropolis != 0u) {
        uint32_t other = (uint32_t)qr_bounded64(random, rule->n_options - 1u);
        other += other >= view->own ? 1u : 0u;
        int64_t loss = counts[view->own] - counts[other];
        if (loss <= 0) {
            return other;
        }
        return qr_draws_next64(draws) >> 24 < qr_potts_weight(rule, loss) ? other : view->own;
    }
    uint64_t weights[QR_RULE_MAX_OPTIONS];
    int64_t most = 0;
    for (uint32_t k = 0; k < rule->n_options; k++) {
        most = counts[k] > most ? counts[k] : most;
    }
    uint64_t total = 0;
    for (uint32_t k = 0; k < rule->n_options; k++) {
        weights[k] = qr_potts_weight(rule, most - counts[k]);
        total += weights[k];
    }
    return qr_pick_weighted(weights, rule->n_options, qr_bounded64(random, total));
}

#endif
