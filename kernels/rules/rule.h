/* What every rule reads: its parameters, and what one agent sees.
 *
 * A rule is a pure function of its arguments. It knows no ranks, threads, files or devices, so that the same text
 * serves every backend. Votes are option numbers 0 .. n_options - 1. */
#ifndef QR_RULES_RULE_H
#define QR_RULES_RULE_H

#include "philox.h"
#include "portable.h"

enum {
    QR_RULE_MAX_OPTIONS = 256,
    QR_QUALITY_ONE = 1 << 20,
    QR_RULE_MAX_CHOICE_PLANES = 8,
    QR_RULE_MAX_MINORITIES = 13
};

/* What rules in word form compute on: 64 agents. A file that wants several words at a time defines this as a vector of
 * uint64_t before it includes rules; only & | ^ ~ are applied to it. Such a file may also define the two functions
 * below by instructions that its compiler does not find. */
#ifndef QR_WORD
#define QR_WORD uint64_t
#endif

/* Bits set in an odd number of three words, and in at least two of them: sum and carry of a full adder. */
#ifndef QR_WORD_ODD
#define QR_WORD_ODD(a, b, c)  ((a) ^ (b) ^ (c))
#define QR_WORD_MOST(a, b, c) (((a) & (b)) | (((a) ^ (b)) & (c)))
#endif

/* Parameters of all rules, filled once per run. Probabilities are 32-bit thresholds (2^32 = always). */
typedef struct qr_rule {
    uint64_t seed;
    int64_t n_agents;
    uint32_t n_options;
    uint64_t activation;    /* an agent updates in a step with this probability */
    uint64_t noise;         /* an updating agent adopts a random option instead of following the rule */
    uint32_t samples;       /* majority: neighbours sampled, 0 = all */
    uint32_t q;             /* q-voter: neighbours sampled */
    uint64_t epsilon;       /* q-voter: flips against a divided panel */
    uint32_t metropolis;    /* Potts: 0 heat bath, 1 Metropolis */
    uint32_t choice_planes; /* voter: > 0 when the neighbour is chosen by this many bit planes (degree = 2^planes) */
    uint32_t quality[QR_RULE_MAX_OPTIONS]; /* best of n: fixed point, best = QR_QUALITY_ONE */
    const uint64_t *boltzmann;             /* Potts: exp(-j / T) in units of 2^-40 for j = 0 .. boltzmann_last */
    int64_t boltzmann_last;
    /* Potts of two options in word form: probability of the other vote than most neighbours', by how many of them have
     * it; 2^32 - 1 at the most. */
    uint32_t against[QR_RULE_MAX_MINORITIES];
} qr_rule;

/* What one agent sees: neighbours by a list, by distances, as a ring, or one after another; or (tally set) everybody
 * but itself. */
typedef struct qr_view {
    const uint8_t *votes;   /* votes by view position, 2^packing to a byte, lowest bits first; where nothing below says
                               where   neighbours are, their votes themselves [degree] */
    uint32_t packing;       /* 0 .. 3: 8, 4, 2 or 1 bits a vote */
    const uint32_t *list;   /* [degree] view positions, or NULL */
    const int64_t *offsets; /* [degree] distances from `self`, or NULL */
    int64_t ring_half;      /* > 0: the ring_half positions before `self` and as many behind it */
    int64_t self;           /* own view position; read with offsets and ring_half */
    const int64_t *tally;   /* [n_options] votes of all agents, or NULL */
    int64_t degree;         /* how many neighbours; n_agents - 1 with tally */
    uint32_t own;           /* own vote */
} qr_view;

/* One of the votes that lie 2^packing to a byte. */
QR_FN uint32_t qr_packed_vote(const uint8_t *votes, uint32_t packing, int64_t position)
{
    if (packing == 0u) {
        return votes[position];
    }
    uint32_t width = 8u >> packing;
    uint32_t shift = ((uint32_t)position & ((1u << packing) - 1u)) * width;
    return ((uint32_t)votes[position >> packing] >> shift) & ((1u << width) - 1u);
}

/* The vote of neighbour j. */
QR_FN uint32_t qr_view_vote(const qr_view *view, int64_t j)
{
    int64_t position = j;
    if (view->list != 0) {
        position = (int64_t)view->list[j];
    } else if (view->offsets != 0) {
        position = view->self + view->offsets[j];
    } else if (view->ring_half > 0) {
        position = view->self + j - view->ring_half + (j >= view->ring_half ? 1 : 0);
    }
    return qr_packed_vote(view->votes, view->packing, position);
}

/* The vote of a uniformly random neighbour; degree must be > 0. On a complete network drawing from the tally without
 * oneself is the same as drawing an agent. */
QR_FN uint32_t qr_view_sample(const qr_view *view, uint64_t random)
{
    int64_t j = (int64_t)qr_bounded64(random, (uint64_t)view->degree);
    if (view->tally != 0) {
        uint32_t option = 0;
        int64_t count = view->tally[0] - (view->own == 0u ? 1 : 0);
        while (j >= count) {
            j -= count;
            option++;
            count = view->tally[option] - (view->own == option ? 1 : 0);
        }
        return option;
    }
    return qr_view_vote(view, j);
}

/* How many neighbours vote for each option. counts: [n_options]. */
QR_FN void qr_view_counts(const qr_view *view, uint32_t n_options, int64_t *counts)
{
    if (view->tally != 0) {
        for (uint32_t k = 0; k < n_options; k++) {
            counts[k] = view->tally[k] - (view->own == k ? 1 : 0);
        }
        return;
    }
    for (uint32_t k = 0; k < n_options; k++) {
        counts[k] = 0;
    }
    for (int64_t j = 0; j < view->degree; j++) {
        counts[qr_view_vote(view, j)]++;
    }
}

/* 64 agents' coin flips with probability threshold / 2^32, from bit planes of `stream`: each agent compares its own 32
 * random bits with the threshold, most significant plane first, and planes are drawn only while some agent is
 * undecided. */
QR_FN uint64_t qr_plane_coins(uint64_t seed, uint64_t group, uint64_t step, uint32_t stream, uint64_t threshold)
{
    if (threshold >> 32 != 0) {
        return ~(uint64_t)0;
    }
    uint64_t below = 0;
    uint64_t equal = ~(uint64_t)0;
    uint64_t planes[2] = {0, 0};
    uint32_t rest = (uint32_t)threshold;
    for (uint32_t plane = 0; rest != 0 && equal != 0; plane++) {
        if (plane % 2 == 0) {
            qr_planes(seed, group, step, stream, plane / 2, planes);
        }
        uint64_t bits = planes[plane % 2];
        if (rest >> 31 != 0) {
            below |= equal & ~bits;
            equal &= bits;
        } else {
            equal &= ~bits;
        }
        rest <<= 1;
    }
    return below;
}

/* An agent's first vote where all options are as likely. */
QR_FN uint32_t qr_initial_option(const qr_rule *rule, uint64_t agent)
{
    qr_draws draws;
    qr_draws_begin(&draws, rule->seed, agent, 0, QR_STREAM_INITIAL_VOTE);
    return (uint32_t)qr_bounded64(qr_draws_next64(&draws), rule->n_options);
}

/* The random option of a noisy agent. */
QR_FN uint32_t qr_noise_option(const qr_rule *rule, int64_t agent, int64_t step)
{
    qr_draws draws;
    qr_draws_begin(&draws, rule->seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_CONTROL);
    return (uint32_t)qr_bounded64(qr_draws_next64(&draws), rule->n_options);
}

/* The option that a number below sum(weights) falls on. */
QR_FN uint32_t qr_pick_weighted(const uint64_t *weights, uint32_t n_options, uint64_t number)
{
    uint32_t option = 0;
    while (option + 1 < n_options && number >= weights[option]) {
        number -= weights[option];
        option++;
    }
    return option;
}

#endif
