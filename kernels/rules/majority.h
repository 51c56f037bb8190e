/* Majority: adopt the most frequent option among all neighbours, or among r sampled with replacement (Galam 2002;
 * Krapivsky and Redner 2003). On a tie for the top the agent keeps its own vote if that is among the top, else takes
 * the lowest. */
#ifndef QR_RULES_MAJORITY_H
#define QR_RULES_MAJORITY_H

#include "rules/rule.h"

QR_FN uint32_t qr_majority_vote(const qr_rule *rule, const qr_view *view, qr_draws *draws)
{
    int64_t counts[QR_RULE_MAX_OPTIONS];
    if (rule->samples == 0) {
        qr_view_counts(view, rule->n_options, counts);
    } else {
        for (uint32_t k = 0; k < rule->n_options; k++) {
            counts[k] = 0;
        }
        for (uint32_t i = 0; i < rule->samples; i++) {
            counts[qr_view_sample(view, qr_draws_next64(draws))]++;
        }
    }
    uint32_t best = view->own;
    for (uint32_t k = 0; k < rule->n_options; k++) {
        if (counts[k] > counts[best]) {
            best = k;
        }
    }
    if (counts[best] > counts[view->own]) {
        best = 0;
        for (uint32_t k = 1; k < rule->n_options; k++) {
            if (counts[k] > counts[best]) {
                best = k;
            }
        }
    }
    return best;
}

/* The same for two options and 64 agents a word, all neighbours: a carry-save counter of `degree` words (1 <= degree <=
 * 26), then a comparison with half the degree. Digits that cannot be set yet are left out. */
QR_FN QR_WORD qr_majority_word(const QR_WORD *neighbour, uint32_t degree, QR_WORD own)
{
    QR_WORD none = own ^ own; /* 0 in any word type; NOLINT(misc-redundant-expression) */
    QR_WORD digit[5] = {none, none, none, none, none};
    for (uint32_t j = 0; j < degree; j++) {
        QR_WORD carry = neighbour[j];
        for (uint32_t d = 0; d < 5 && j + 1u >= 1u << d; d++) {
            QR_WORD sum = digit[d] ^ carry;
            carry &= digit[d];
            digit[d] = sum;
        }
    }
    uint32_t half = degree / 2u;
    QR_WORD above = none;
    QR_WORD equal = ~none;
    for (uint32_t d = 5; d-- > 0;) {
        if (degree < 1u << d) {
            continue;
        }
        if ((half >> d & 1u) != 0u) {
            equal &= digit[d];
        } else {
            above |= equal & digit[d];
            equal &= ~digit[d];
        }
    }
    return degree % 2u == 0u ? above | (equal & own) : above;
}

#endif
