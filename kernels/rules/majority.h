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

enum { QR_MAJORITY_MAX_WORDS = 27 };

/* One step towards the bits set in most of n words, n odd: full adders leave one word of sums, worth 1, and (n - 1) / 2
 * of carries, worth 2. Let c carries be set. For n = 4 m + 1 most is 2 m + 1 <= 2 c + sum, that is m + 1 <= c + sum,
 * most of the carries and the sum; for n = 4 m + 3 it is 2 m + 2 <= 2 c + sum, that is m + 1 <= c, most of the carries.
 * Either way the same question of fewer words. Returns how many are left in `word`; one is the answer. */
QR_FN uint32_t qr_majority_halve(QR_WORD *word, uint32_t n)
{
    if (n == 1u) {
        return 1u;
    }
    QR_WORD sum = word[0];
    for (uint32_t j = 0; j < n / 2u; j++) {
        QR_WORD a = word[2u * j + 1u];
        QR_WORD b = word[2u * j + 2u];
        word[j] = QR_WORD_MOST(a, b, sum);
        sum = QR_WORD_ODD(a, b, sum);
    }
    if (n % 4u == 1u) {
        word[n / 2u] = sum;
        return n / 2u + 1u;
    }
    return n / 2u;
}

/* The same written out for five words and for nine, which compilers then keep in registers. */
QR_FN QR_WORD qr_majority_of_5(QR_WORD a, QR_WORD b, QR_WORD c, QR_WORD d, QR_WORD e)
{
    QR_WORD sum = QR_WORD_ODD(a, b, c);
    return QR_WORD_MOST(QR_WORD_MOST(a, b, c), QR_WORD_MOST(sum, d, e), QR_WORD_ODD(sum, d, e));
}

/* The majority in a square of three by three agents, from the sums and carries (QR_WORD_ODD, QR_WORD_MOST) of its three
 * columns, which neighbours in a row share. */
QR_FN QR_WORD qr_majority_of_columns(const QR_WORD sum[3], const QR_WORD carry[3])
{
    return qr_majority_of_5(carry[0], carry[1], carry[2], QR_WORD_MOST(sum[0], sum[1], sum[2]),
                            QR_WORD_ODD(sum[0], sum[1], sum[2]));
}

QR_FN QR_WORD qr_majority_of_9(const QR_WORD *word, QR_WORD last)
{
    QR_WORD sum0 = QR_WORD_ODD(word[0], word[1], word[2]);
    QR_WORD sum1 = QR_WORD_ODD(word[3], word[4], word[5]);
    QR_WORD sum2 = QR_WORD_ODD(word[6], word[7], last);
    return qr_majority_of_5(QR_WORD_MOST(word[0], word[1], word[2]), QR_WORD_MOST(word[3], word[4], word[5]),
                            QR_WORD_MOST(word[6], word[7], last), QR_WORD_MOST(sum0, sum1, sum2),
                            QR_WORD_ODD(sum0, sum1, sum2));
}

/* The same for two options and 64 agents a word, all neighbours, 1 <= degree <= 26. Where the degree is even, the own
 * vote, which decides ties, makes it odd. */
QR_FN QR_WORD qr_majority_word(const QR_WORD *neighbour, uint32_t degree, QR_WORD own)
{
    if (degree == 4u) {
        return qr_majority_of_5(neighbour[0], neighbour[1], neighbour[2], neighbour[3], own);
    }
    if (degree == 8u) {
        return qr_majority_of_9(neighbour, own);
    }
    QR_WORD word[QR_MAJORITY_MAX_WORDS];
    /* Nobody calls with more; some compilers warn unless they see it. */
    uint32_t n = degree < QR_MAJORITY_MAX_WORDS ? degree : QR_MAJORITY_MAX_WORDS - 1u;
    for (uint32_t j = 0; j < n; j++) {
        word[j] = neighbour[j];
    }
    if (n % 2u == 0u) {
        word[n++] = own;
    }
    n = qr_majority_halve(word, n); /* 27, 13, 7, 3, 1; written out, so that compilers know each n */
    n = qr_majority_halve(word, n);
    n = qr_majority_halve(word, n);
    n = qr_majority_halve(word, n);
    (void)n;
    return word[0];
}

#endif
