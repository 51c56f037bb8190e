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

enum { QR_MAJORITY_COUNT_BITS = 4, QR_MAJORITY_OPTIONS_DEGREE = 8 };

/* All ones where option k has a 0 in plane p. */
QR_FN uint64_t qr_majority_flip(uint32_t k, uint32_t p)
{
    return (uint64_t)(k >> p & 1u) - 1u;
}

/* The agents of a word who vote for option k. votes: planes `stride` apart. */
QR_FN QR_WORD qr_majority_voters(const QR_WORD *votes, uint32_t stride, uint32_t n_planes, uint32_t k)
{
    QR_WORD voters = votes[0] ^ qr_majority_flip(k, 0);
    QR_UNROLL
    for (uint32_t p = 1; p < n_planes; p++) {
        voters &= votes[p * stride] ^ qr_majority_flip(k, p);
    }
    return voters;
}

/* Those who do not vote alike in two sets of planes. */
QR_FN QR_WORD qr_majority_differ(const QR_WORD *a, uint32_t stride_a, const QR_WORD *b, uint32_t stride_b,
                                 uint32_t n_planes)
{
    QR_WORD differ = a[0] ^ b[0];
    QR_UNROLL
    for (uint32_t p = 1; p < n_planes; p++) {
        differ |= a[p * stride_a] ^ b[p * stride_b];
    }
    return differ;
}

/* The lower of two options each; out may be a or b where that one's planes are next to each other. */
QR_FN void qr_majority_lower(const QR_WORD *a, uint32_t stride_a, const QR_WORD *b, uint32_t stride_b,
                             uint32_t n_planes, QR_WORD *out)
{
    QR_WORD less = ~a[0] & b[0];
    QR_UNROLL
    for (uint32_t p = 1; p < n_planes; p++) {
        const QR_WORD left = a[p * stride_a];
        const QR_WORD right = b[p * stride_b];
        less = (~left & right) | (less & ~(left ^ right));
    }
    QR_UNROLL
    for (uint32_t p = 0; p < n_planes; p++) {
        const QR_WORD right = b[p * stride_b];
        out[p] = right ^ ((right ^ a[p * stride_a]) & less);
    }
}

/* Four neighbours in n_planes <= 4 planes, any number of options. Where two or three of them, and no other two, vote
 * alike, that option has most votes. Else all of their options are level: the own one if it is among them, or the
 * lowest. */
QR_FN void qr_majority_options_of_4(const QR_WORD *neighbour, const QR_WORD *own, uint32_t n_planes, QR_WORD *votes)
{
    const QR_WORD *a = neighbour;
    const QR_WORD *b = neighbour + 1;
    const QR_WORD *c = neighbour + 2;
    const QR_WORD *d = neighbour + 3;
    const QR_WORD ab = ~qr_majority_differ(a, 4u, b, 4u, n_planes);
    const QR_WORD ac = ~qr_majority_differ(a, 4u, c, 4u, n_planes);
    const QR_WORD ad = ~qr_majority_differ(a, 4u, d, 4u, n_planes);
    const QR_WORD bc = ~qr_majority_differ(b, 4u, c, 4u, n_planes);
    const QR_WORD bd = ~qr_majority_differ(b, 4u, d, 4u, n_planes);
    const QR_WORD cd = ~qr_majority_differ(c, 4u, d, 4u, n_planes);
    const QR_WORD like_a = ab | ac | ad;
    const QR_WORD like_b = bc | bd;
    const QR_WORD two_pairs = (ab & cd) | (ac & bd) | (ad & bc);
    const QR_WORD won = (like_a | like_b | cd) & ~two_pairs;
    const QR_WORD elsewhere =
        qr_majority_differ(a, 4u, own, 1u, n_planes) & qr_majority_differ(b, 4u, own, 1u, n_planes) &
        qr_majority_differ(c, 4u, own, 1u, n_planes) & qr_majority_differ(d, 4u, own, 1u, n_planes);
    const QR_WORD keeps = ~won & ~elsewhere;
    QR_WORD lower[4];
    QR_WORD other[4];
    qr_majority_lower(a, 4u, b, 4u, n_planes, lower);
    qr_majority_lower(c, 4u, d, 4u, n_planes, other);
    qr_majority_lower(other, 1u, lower, 1u, n_planes, lower);
    QR_UNROLL
    for (uint32_t p = 0; p < n_planes; p++) {
        const QR_WORD a_or_b = b[p * 4u] ^ ((a[p * 4u] ^ b[p * 4u]) & like_a);
        const QR_WORD pair = c[p * 4u] ^ ((c[p * 4u] ^ a_or_b) & (like_a | like_b));
        const QR_WORD vote = lower[p] ^ ((lower[p] ^ pair) & won);
        votes[p] = vote ^ ((vote ^ own[p]) & keeps);
    }
}

/* The same for any number of options in n_planes planes, 1 <= degree <= QR_MAJORITY_OPTIONS_DEGREE. An option's votes
 * are counted bit by bit for all agents of the word side by side, and so compared with the most votes so far.
 * neighbour: [n_planes][degree]; own, votes: [n_planes], not the same. Bits that are no agents may be anything. */
QR_FN void qr_majority_options_word(const QR_WORD *neighbour, uint32_t degree, const QR_WORD *own, uint32_t n_planes,
                                    uint32_t n_options, QR_WORD *votes)
{
    const uint32_t n_bits = degree < 2u ? 1u : degree < 4u ? 2u : degree < 8u ? 3u : 4u;
    if (degree == 4u) {
        qr_majority_options_of_4(neighbour, own, n_planes, votes);
        return;
    }
    /* Zero, whatever a word is. NOLINTNEXTLINE(misc-redundant-expression) */
    const QR_WORD none = own[0] ^ own[0];
    QR_WORD most[QR_MAJORITY_COUNT_BITS]; /* votes for what is in `votes`, */
    QR_WORD kept[QR_MAJORITY_COUNT_BITS]; /* and for the agent's own option */
    QR_WORD more;
    QR_UNROLL
    for (uint32_t b = 0; b < n_bits; b++) {
        most[b] = none;
        kept[b] = none;
    }
    QR_UNROLL
    for (uint32_t p = 0; p < n_planes; p++) {
        votes[p] = none;
    }
    QR_UNROLL
    for (uint32_t k = 0; k < 1u << n_planes; k++) {
        QR_WORD count[QR_MAJORITY_COUNT_BITS];
        if (k >= n_options) {
            break;
        }
        QR_UNROLL
        for (uint32_t b = 0; b < n_bits; b++) {
            count[b] = none;
        }
        QR_UNROLL
        for (uint32_t j = 0; j < degree; j += 2u) {
            const QR_WORD left = qr_majority_voters(neighbour + j, degree, n_planes, k);
            const QR_WORD right = j + 1u < degree ? qr_majority_voters(neighbour + j + 1u, degree, n_planes, k) : none;
            QR_WORD carry = QR_WORD_MOST(left, right, count[0]);
            count[0] = QR_WORD_ODD(left, right, count[0]);
            QR_UNROLL
            for (uint32_t b = 1; b < n_bits; b++) {
                const QR_WORD both = count[b] & carry;
                count[b] ^= carry;
                carry = both;
            }
        }
        const QR_WORD mine = qr_majority_voters(own, 1u, n_planes, k);
        more = none;
        QR_UNROLL
        for (uint32_t b = 0; b < n_bits; b++) {
            more = (count[b] & ~most[b]) | (more & ~(count[b] ^ most[b]));
        }
        QR_UNROLL
        for (uint32_t b = 0; b < n_bits; b++) {
            most[b] ^= (most[b] ^ count[b]) & more;
            kept[b] |= count[b] & mine;
        }
        QR_UNROLL
        for (uint32_t p = 0; p < n_planes; p++) {
            votes[p] = (votes[p] & ~more) | (more & ~qr_majority_flip(k, p));
        }
    }
    more = none;
    QR_UNROLL
    for (uint32_t b = 0; b < n_bits; b++) {
        more |= most[b] ^ kept[b];
    }
    QR_UNROLL
    for (uint32_t p = 0; p < n_planes; p++) {
        votes[p] = own[p] ^ ((own[p] ^ votes[p]) & more);
    }
}

#endif
