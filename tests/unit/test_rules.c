/* Each rule on cases small enough to work out by hand. */
#include "plain.h"

#include "rules/best_of_n.h"
#include "rules/majority.h"
#include "rules/neural.h"
#include "rules/potts.h"
#include "rules/q_voter.h"
#include "rules/voter.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static qr_draws draws_of(uint64_t agent)
{
    qr_draws draws;
    qr_draws_begin(&draws, 5, agent, 1, QR_STREAM_RULE);
    return draws;
}

typedef struct seen {
    uint8_t votes[8];
    int64_t degree;
} seen;

static qr_view view_of(const seen *s, uint32_t own)
{
    return (qr_view){.votes = s->votes, .degree = s->degree, .own = own};
}

typedef uint32_t (*vote_rule)(const qr_rule *rule, const qr_view *view, qr_draws *draws);

/* How often each of the options is chosen, over many agents. */
static void frequencies(vote_rule vote, const qr_rule *rule, const qr_view *view, int n, int64_t *counts)
{
    memset(counts, 0, rule->n_options * sizeof *counts);
    for (int i = 0; i < n; i++) {
        qr_draws draws = draws_of((uint64_t)i);
        counts[vote(rule, view, &draws)]++;
    }
}

static void voter_copies_each_neighbour_equally(void **state)
{
    (void)state;
    enum { N = 100000 };
    const qr_rule rule = {.n_options = 4};
    const seen s = {{1, 3, 3, 0, 3}, 5};
    const double expected[4] = {0.2, 0.2, 0.0, 0.6};
    int64_t counts[4];
    qr_view view = view_of(&s, 2);
    frequencies(qr_voter_vote, &rule, &view, N, counts);
    for (int k = 0; k < 4; k++) {
        check_within((double)counts[k] / N, expected[k], share_error(expected[k], N) + 1e-12, "voter: option %d", k);
    }
    /* On a complete network from the tally without oneself: 1, 2, 0, 7 others. */
    const int64_t tally[4] = {1, 2, 1, 7};
    const double others[4] = {0.1, 0.2, 0.0, 0.7};
    view = (qr_view){.tally = tally, .degree = 10, .own = 2};
    frequencies(qr_voter_vote, &rule, &view, N, counts);
    for (int k = 0; k < 4; k++) {
        check_within((double)counts[k] / N, others[k], share_error(others[k], N) + 1e-12, "complete: option %d", k);
    }
}

static void majority_keeps_its_own_on_a_tie_or_takes_the_lowest(void **state)
{
    (void)state;
    static const struct {
        seen s;
        uint32_t own;
        uint32_t vote;
    } cases[] = {{{{1, 1, 0}, 3}, 0, 1},
                 {{{1, 1, 0, 0}, 4}, 0, 0},
                 {{{1, 1, 0, 0}, 4}, 1, 1},
                 {{{1, 1, 0, 0}, 4}, 2, 0},
                 {{{3, 2, 1}, 3}, 0, 1},
                 {{{3, 2, 1}, 3}, 3, 3},
                 {{{0}, 1}, 3, 0},
                 {{{3, 3, 2, 2, 1}, 5}, 1, 2},
                 {{{3, 3, 2, 2, 1}, 5}, 3, 3},
                 {{{2, 2, 2, 0, 1}, 5}, 0, 2}};
    const qr_rule rule = {.n_options = 4};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qr_view view = view_of(&cases[i].s, cases[i].own);
        assert_int_equal(qr_majority_vote(&rule, &view, NULL), cases[i].vote);
    }
}

static void majority_of_a_sample_of_one_is_the_voter(void **state)
{
    (void)state;
    const qr_rule rule = {.n_options = 4, .samples = 1};
    const seen s = {{1, 3, 3, 0, 3}, 5};
    for (uint64_t agent = 0; agent < 1000; agent++) {
        qr_view view = view_of(&s, 2);
        qr_draws a = draws_of(agent);
        qr_draws b = draws_of(agent);
        assert_int_equal(qr_majority_vote(&rule, &view, &a), qr_voter_vote(&rule, &view, &b));
    }
}

/* Every pattern of up to ten neighbours and many of more, a bit of the word each. */
static void majority_by_words_counts_right(void **state)
{
    (void)state;
    for (uint32_t degree = 1; degree <= 26; degree++) {
        for (uint64_t round = 0; round < 64; round++) {
            uint64_t neighbour[26];
            uint64_t own = qr_mix64(round * 31 + degree);
            for (uint32_t j = 0; j < degree; j++) {
                uint64_t word = qr_mix64(1000 * round + j);
                /* Few, half or most of the bits, so that counts lie everywhere. */
                neighbour[j] = round % 3 == 0 ? word : round % 3 == 1 ? word & qr_mix64(word) : word | qr_mix64(word);
                for (uint32_t bit = 0; degree <= 10 && bit < 64; bit++) {
                    uint64_t pattern = (64 * round + bit) % (UINT64_C(1) << degree);
                    neighbour[j] &= ~(UINT64_C(1) << bit);
                    neighbour[j] |= (pattern >> j & 1u) << bit;
                }
            }
            uint64_t word = qr_majority_word(neighbour, degree, own);
            for (uint32_t bit = 0; bit < 64; bit++) {
                uint32_t ones = 0;
                for (uint32_t j = 0; j < degree; j++) {
                    ones += (uint32_t)(neighbour[j] >> bit & 1u);
                }
                uint32_t expected = 2 * ones > degree ? 1u : 2 * ones < degree ? 0u : (uint32_t)(own >> bit & 1u);
                assert_int_equal(word >> bit & 1u, expected);
            }
        }
    }
}

static void voter_by_words_picks_the_chosen_neighbour(void **state)
{
    (void)state;
    for (uint32_t planes = 1; planes <= 5; planes++) {
        for (uint64_t round = 0; round < 20; round++) {
            uint64_t neighbour[32];
            uint64_t used[32];
            uint64_t choice[5];
            for (uint64_t j = 0; j < 32; j++) {
                neighbour[j] = used[j] = qr_mix64(100 * round + j);
                choice[j % 5] = qr_mix64(7777 * round + j + planes);
            }
            uint64_t word = qr_voter_word(used, choice, planes);
            for (uint32_t bit = 0; bit < 64; bit++) {
                uint32_t j = 0;
                for (uint32_t b = 0; b < planes; b++) {
                    j |= (uint32_t)(choice[b] >> bit & 1u) << b;
                }
                assert_int_equal(word >> bit & 1u, neighbour[j] >> bit & 1u);
            }
        }
    }
}

static void q_voter_follows_a_panel_that_agrees(void **state)
{
    (void)state;
    enum { N = 60000 };
    int64_t counts[3];
    const seen all = {{2, 2, 2}, 3};
    const seen mixed = {{0, 1}, 2};
    qr_rule rule = {.n_options = 3, .q = 4};
    qr_view view = view_of(&all, 0);
    frequencies(qr_q_voter_vote, &rule, &view, 100, counts);
    assert_int_equal(counts[2], 100);
    /* Two neighbours that disagree, q = 2: 1/4 each option, else own vote; epsilon goes to the others equally. */
    rule.q = 2;
    view = view_of(&mixed, 2);
    frequencies(qr_q_voter_vote, &rule, &view, N, counts);
    check_within((double)counts[0] / N, 0.25, share_error(0.25, N), "agreed on 0");
    check_within((double)counts[1] / N, 0.25, share_error(0.25, N), "agreed on 1");
    check_within((double)counts[2] / N, 0.5, share_error(0.5, N), "stayed");
    rule.epsilon = UINT64_C(1) << 32;
    frequencies(qr_q_voter_vote, &rule, &view, N, counts);
    assert_int_equal(counts[2], 0);
    check_within((double)counts[0] / N, 0.5, share_error(0.5, N), "left for 0");
    rule.epsilon = UINT64_C(1) << 30; /* a quarter */
    view = view_of(&mixed, 0);
    frequencies(qr_q_voter_vote, &rule, &view, N, counts);
    check_within((double)counts[0] / N, 0.25 + 0.375, share_error(0.625, N), "agreed on 0, or stayed");
    check_within((double)counts[1] / N, 0.25 + 0.0625, share_error(0.3125, N), "agreed on 1, or left for it");
    check_within((double)counts[2] / N, 0.0625, share_error(0.0625, N), "left for 2");
}

static void best_of_n_weighs_shares_with_quality(void **state)
{
    (void)state;
    enum { N = 100000 };
    const qr_rule rule = {.n_options = 4, .quality = {QR_QUALITY_ONE, QR_QUALITY_ONE / 2, QR_QUALITY_ONE, 1}};
    const seen s = {{0, 1, 1, 1, 1}, 5}; /* weights 1, 2, 0, 0 */
    qr_view view = view_of(&s, 2);
    int64_t counts[4];
    frequencies(qr_best_of_n_vote, &rule, &view, N, counts);
    check_within((double)counts[0] / N, 1.0 / 3, share_error(1.0 / 3, N), "option 0");
    check_within((double)counts[1] / N, 2.0 / 3, share_error(2.0 / 3, N), "option 1");
    assert_int_equal(counts[2] + counts[3], 0);
    /* As many votes as there can be do not overflow. */
    const int64_t tally[4] = {INT64_C(500000000000), INT64_C(500000000000) - 1, 1, 0};
    view = (qr_view){.tally = tally, .degree = INT64_C(999999999999), .own = 2};
    frequencies(qr_best_of_n_vote, &rule, &view, N, counts);
    check_within((double)counts[0] / N, 2.0 / 3, share_error(2.0 / 3, N), "option 0 of 10^12 agents");
}

static void potts_meets_its_conditional_distribution(void **state)
{
    (void)state;
    enum { N = 100000 };
    const double t = 0.8;
    uint64_t boltzmann[9];
    for (int j = 0; j <= 8; j++) {
        boltzmann[j] = (uint64_t)llround(exp(-j / t) * 0x1p40);
    }
    qr_rule rule = {.n_options = 3, .boltzmann = boltzmann, .boltzmann_last = 8};
    const seen s = {{0, 1, 1, 1, 0, 1}, 6}; /* 2, 4, 0 */
    double weight[3] = {exp(2 / t), exp(4 / t), 1.0};
    double sum = weight[0] + weight[1] + weight[2];
    int64_t counts[3];
    qr_view view = view_of(&s, 2);
    frequencies(qr_potts_vote, &rule, &view, N, counts);
    for (int k = 0; k < 3; k++) {
        double p = weight[k] / sum;
        check_within((double)counts[k] / N, p, share_error(p, N), "heat bath: option %d", k);
    }
    /* Metropolis: half of the proposals go to each other option, and losses are accepted by their weight. */
    rule.metropolis = 1;
    view = view_of(&s, 1);
    frequencies(qr_potts_vote, &rule, &view, N, counts);
    check_within((double)counts[0] / N, exp(-2 / t) / 2, share_error(exp(-2 / t) / 2, N), "Metropolis: loses 2");
    check_within((double)counts[2] / N, exp(-4 / t) / 2, share_error(exp(-4 / t) / 2, N), "Metropolis: loses 4");
    view = view_of(&s, 2);
    frequencies(qr_potts_vote, &rule, &view, N, counts);
    assert_int_equal(counts[2], 0); /* both others gain, so both proposals are accepted */
    check_within((double)counts[0] / N, 0.5, share_error(0.5, N), "Metropolis: gains");
}

static void neural_vote_is_argmax_or_softmax(void **state)
{
    (void)state;
    enum { N = 100000 };
    qr_neural net = {.n_options = 3, .inverse_temperature = 0.0f};
    const float z[3] = {1.0f, 2.5f, 2.5f};
    uint32_t score = 1;
    qr_draws draws = draws_of(0);
    assert_int_equal(qr_neural_vote(&net, z, &draws, &score), 1); /* lowest of the largest */
    assert_int_equal(score, 0);                                   /* and not at all sure of it */
    uint32_t sure = 0;
    uint32_t surer = 0;
    assert_int_equal(qr_neural_vote(&net, (float[]){0.0f, 1.0f, -3.0f}, &draws, &sure), 1);
    assert_int_equal(qr_neural_vote(&net, (float[]){4.0f, 1.0f, -3.0f}, &draws, &surer), 0);
    assert_true(score < sure && sure < surer && surer < 1u << 24);
    net.inverse_temperature = 2.0f;
    int64_t counts[3] = {0};
    double sum = 0.0;
    for (int k = 0; k < 3; k++) {
        sum += exp(2.0 * (double)z[k]);
    }
    for (int i = 0; i < N; i++) {
        draws = draws_of((uint64_t)i);
        uint32_t vote = qr_neural_vote(&net, z, &draws, &score);
        assert_true(fabs(score * 0x1p-24 - exp(2.0 * (double)z[vote]) / sum) < 1e-5);
        counts[vote]++;
    }
    for (int k = 0; k < 3; k++) {
        double p = exp(2.0 * (double)z[k]) / sum;
        check_within((double)counts[k] / N, p, share_error(p, N), "softmax: option %d", k);
    }
    /* Scores that are no numbers give some vote, not a crash. */
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    assert_true(qr_neural_vote(&net, bad, &draws, &score) < 3);
}

static void coins_fall_by_their_probability(void **state)
{
    (void)state;
    static const double probabilities[] = {0.5, 0.1, 0.001, 0.999, 0.123456789};
    for (int i = 0; i < 5; i++) {
        uint64_t threshold = qr_threshold32(probabilities[i]);
        int64_t heads = 0;
        const int64_t groups = 20000;
        for (int64_t g = 0; g < groups; g++) {
            heads += qr_popcount64(qr_plane_coins(3, (uint64_t)g, 7, QR_STREAM_PLANE_NOISE, threshold));
        }
        check_within((double)heads / (64.0 * (double)groups), probabilities[i],
                     share_error(probabilities[i], 64 * groups), "coins");
    }
    for (int64_t agent = 0; agent < 640; agent++) {
        uint64_t word = qr_plane_coins(3, (uint64_t)agent / 64, 7, QR_STREAM_PLANE_NOISE, 123456789);
        assert_int_equal(word >> (agent % 64) & 1u, plain_coin(3, agent, 7, QR_STREAM_PLANE_NOISE, 123456789));
    }
    assert_true(qr_plane_coins(3, 1, 7, QR_STREAM_PLANE_NOISE, 0) == 0);
    assert_true(qr_plane_coins(3, 1, 7, QR_STREAM_PLANE_NOISE, UINT64_C(1) << 32) == ~UINT64_C(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(voter_copies_each_neighbour_equally),
                                       cmocka_unit_test(majority_keeps_its_own_on_a_tie_or_takes_the_lowest),
                                       cmocka_unit_test(majority_of_a_sample_of_one_is_the_voter),
                                       cmocka_unit_test(majority_by_words_counts_right),
                                       cmocka_unit_test(voter_by_words_picks_the_chosen_neighbour),
                                       cmocka_unit_test(q_voter_follows_a_panel_that_agrees),
                                       cmocka_unit_test(best_of_n_weighs_shares_with_quality),
                                       cmocka_unit_test(potts_meets_its_conditional_distribution),
                                       cmocka_unit_test(neural_vote_is_argmax_or_softmax),
                                       cmocka_unit_test(coins_fall_by_their_probability)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
