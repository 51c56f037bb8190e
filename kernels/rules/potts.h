/* Potts model, energy = - sum over neighbour pairs of delta(s_i, s_j), k_B = 1 (Wu 1982). With K = 2 this is the Ising
 * model at twice the temperature of the +-1 convention. Heat bath draws the vote from its conditional distribution;
 * Metropolis proposes another option and accepts with min(1, exp(-dE / T)). Sweeps go through independent colours.
 *
 * Two options where votes lie as bit planes have numbers of their own, from planes too: in its colour's turn an agent
 * has 32 random bits, plane 0 the most significant, and compares them with a threshold that depends on how many of its
 * neighbours (an even number) are in the minority among them. Plane p of a turn is plane p of QR_STREAM_PLANE_RULE from
 * QR_POTTS_TURN_PAIRS pairs a colour on. With two colours one agent of 2 k and 2 k + 1 moves in a turn; so that no bits
 * are drawn for those at rest, 128 agents then share a group's planes: agent a has bit 2 (a / 2 mod 32) + a / 64 mod 2
 * of group a / 128. With more colours it has bit a mod 64 of group a / 64. */
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

enum { QR_POTTS_PLANES = 32, QR_POTTS_TURN_PAIRS = QR_POTTS_PLANES / 2, QR_POTTS_DIGITS = 5 };

/* The group whose planes the agents of a word have, and the word of random bits that is theirs. word: agent / 64. */
QR_FN uint64_t qr_potts_group(int32_t n_colours, uint64_t word)
{
    return n_colours == 2 ? word / 2u : word;
}

QR_FN uint64_t qr_potts_bits(int32_t n_colours, uint64_t word, uint64_t plane)
{
    if (n_colours != 2) {
        return plane;
    }
    uint64_t mine = (word % 2u == 0u ? plane : plane >> 1) & 0x5555555555555555u;
    return mine | mine << 1;
}

/* Agents in their colour's turn, while planes are compared. */
typedef struct qr_potts_turn {
    QR_WORD vote;                             /* what most neighbours vote, ... */
    QR_WORD against;                          /* turned round for these */
    QR_WORD open;                             /* whose bits so far equal the threshold's */
    QR_WORD tie;                              /* neighbours are divided */
    QR_WORD minority[QR_RULE_MAX_MINORITIES]; /* [m], m > 0: m neighbours are in the minority */
} qr_potts_turn;

/* A word without a bit, for words of any type. */
#define QR_POTTS_NONE(word) ((word) ^ (word))

/* How many neighbours vote 1, as binary digits. degree: even. */
QR_FN void qr_potts_count(const QR_WORD *neighbour, uint32_t degree, QR_WORD *digit)
{
    for (uint32_t b = 0; b < QR_POTTS_DIGITS; b++) {
        digit[b] = QR_POTTS_NONE(neighbour[0]);
    }
    for (uint32_t j = 0; j < degree; j += 2u) {
        QR_WORD carry = QR_WORD_MOST(neighbour[j], neighbour[j + 1u], digit[0]);
        digit[0] = QR_WORD_ODD(neighbour[j], neighbour[j + 1u], digit[0]);
        for (uint32_t b = 1; b < QR_POTTS_DIGITS && degree >> b != 0u; b++) {
            QR_WORD sum = digit[b] ^ carry;
            carry = digit[b] & carry;
            digit[b] = sum;
        }
    }
}

QR_FN QR_WORD qr_potts_equals(const QR_WORD *digit, uint32_t degree, uint32_t n)
{
    QR_WORD equal = (n & 1u) != 0u ? digit[0] : ~digit[0];
    for (uint32_t b = 1; b < QR_POTTS_DIGITS && degree >> b != 0u; b++) {
        equal = equal & ((n >> b & 1u) != 0u ? digit[b] : ~digit[b]);
    }
    return equal;
}

/* Begins the turn of the agents `moving`. degree: even, 2 .. 26. */
QR_FN void qr_potts_begin(uint32_t metropolis, const QR_WORD *neighbour, uint32_t degree, QR_WORD own, QR_WORD moving,
                          qr_potts_turn *turn)
{
    QR_WORD digit[QR_POTTS_DIGITS];
    qr_potts_count(neighbour, degree, digit);
    QR_WORD more = QR_POTTS_NONE(own);
    QR_WORD equal = ~more;
    for (uint32_t b = QR_POTTS_DIGITS; b-- > 0u;) {
        if (((degree / 2u) >> b & 1u) != 0u) {
            equal = equal & digit[b];
        } else {
            more = more | (equal & digit[b]);
            equal = equal & ~digit[b];
        }
    }
    turn->vote = more;
    turn->tie = equal;
    turn->open = moving;
    turn->against = QR_POTTS_NONE(own);
    for (uint32_t m = 1; m < degree / 2u; m++) {
        turn->minority[m] = qr_potts_equals(digit, degree, m) | qr_potts_equals(digit, degree, degree - m);
    }
    if (metropolis != 0u) { /* no loss: flips; only those who are with most may hesitate */
        turn->vote = more | (equal & ~own);
        turn->open = moving & ~equal & ~(more ^ own);
    }
}

/* Compares one more plane of random bits with one of thresholds; first: it is plane 0. */
QR_FN void qr_potts_settle(qr_potts_turn *turn, uint32_t first, QR_WORD threshold, QR_WORD random)
{
    if (first != 0u) { /* the divided: one half, which plane 0 decides */
        threshold = threshold | turn->tie;
    }
    QR_WORD decided = turn->open & (random ^ threshold);
    turn->against = turn->against | (decided & threshold);
    turn->open = turn->open & ~decided;
    if (first != 0u) {
        turn->open = turn->open & ~turn->tie;
    }
}

/* The same with the rule's thresholds. */
QR_FN void qr_potts_compare(const qr_rule *rule, uint32_t degree, uint32_t plane, QR_WORD random, qr_potts_turn *turn)
{
    const uint32_t shift = QR_POTTS_PLANES - 1u - plane;
    const uint32_t others = rule->against[0] >> shift & 1u;
    QR_WORD threshold = QR_POTTS_NONE(turn->tie);
    threshold = others != 0u ? ~threshold : threshold;
    for (uint32_t m = 1; m < degree / 2u; m++) {
        if ((rule->against[m] >> shift & 1u) != others) {
            threshold = threshold ^ turn->minority[m];
        }
    }
    qr_potts_settle(turn, plane == 0u ? 1u : 0u, threshold, random);
}

/* The votes of all agents of the word after the turn. */
QR_FN QR_WORD qr_potts_end(const qr_potts_turn *turn, QR_WORD own, QR_WORD moving)
{
    return own ^ ((own ^ turn->vote ^ turn->against) & moving);
}

#endif
