/* Each rule on random views against its plain second form: as a list, as gathered votes, as a tally. */
#include "cases.h"
#include "plain.h"

#include "rules/best_of_n.h"
#include "rules/majority.h"
#include "rules/potts.h"
#include "rules/q_voter.h"
#include "rules/voter.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 3000, MOST = 60 };

typedef uint32_t (*vote_rule)(const qr_rule *rule, const qr_view *view, qr_draws *draws);

static vote_rule function_of(qr_rule_kind kind)
{
    switch (kind) {
    case QR_RULE_MAJORITY: return qr_majority_vote;
    case QR_RULE_Q_VOTER: return qr_q_voter_vote;
    case QR_RULE_POTTS: return qr_potts_vote;
    case QR_RULE_BEST_OF_N: return qr_best_of_n_vote;
    case QR_RULE_VOTER:
    case QR_RULE_NEURAL:
    case QR_N_RULES: break;
    }
    return qr_voter_vote;
}

typedef struct rule_case {
    qr_model model;
    uint64_t boltzmann[MOST + 1];
    uint8_t seen[MOST];
    int64_t degree;
    uint32_t own;
    uint64_t agent;
    uint64_t step;
} rule_case;

static void draw_rule_case(uint64_t *random, int number, rule_case *c)
{
    memset(c, 0, sizeof *c);
    qr_rule *rule = &c->model.rule;
    c->model.kind = (qr_rule_kind)(number % QR_RULE_NEURAL);
    rule->n_options = (uint32_t)case_pick(random, 2, case_pick(random, 0, 4) == 0 ? 256 : 5);
    rule->seed = (uint64_t)case_pick(random, 0, INT64_MAX - 1);
    rule->samples = (uint32_t)(case_pick(random, 0, 1) * case_pick(random, 1, 12));
    rule->q = (uint32_t)case_pick(random, 1, 6);
    rule->epsilon = (uint64_t)case_pick(random, 0, INT64_C(1) << 32);
    rule->metropolis = (uint32_t)case_pick(random, 0, 1);
    for (uint32_t k = 0; k < rule->n_options; k++) {
        rule->quality[k] = (uint32_t)case_pick(random, 1, QR_QUALITY_ONE);
    }
    double beta = (double)case_pick(random, 0, 3000) / 1000.0;
    for (int j = 0; j <= MOST; j++) {
        c->boltzmann[j] = (uint64_t)(exp(-j * beta) * 0x1p40);
    }
    rule->boltzmann = c->boltzmann;
    rule->boltzmann_last = MOST;
    c->degree = case_pick(random, 1, case_pick(random, 0, 1) == 0 ? 8 : MOST);
    c->own = (uint32_t)case_pick(random, 0, rule->n_options - 1);
    c->agent = (uint64_t)case_pick(random, 0, INT64_MAX - 1);
    c->step = (uint64_t)case_pick(random, 0, UINT32_MAX);
    for (int64_t j = 0; j < c->degree; j++) {
        c->seen[j] = (uint8_t)case_pick(random, 0, rule->n_options - 1);
    }
}

static uint32_t vote_of(const rule_case *c, const qr_view *view)
{
    qr_draws draws;
    qr_draws_begin(&draws, c->model.rule.seed, c->agent, c->step, QR_STREAM_RULE);
    return function_of(c->model.kind)(&c->model.rule, view, &draws);
}

static uint32_t plain_vote_of(const rule_case *c)
{
    plain_draws draws = {
        .seed = c->model.rule.seed, .agent = (int64_t)c->agent, .step = (int64_t)c->step, .stream = QR_STREAM_RULE};
    return plain_vote(&c->model, c->seen, c->degree, c->own, &draws);
}

static void rules_equal_their_plain_form(void **state)
{
    (void)state;
    uint64_t random = 11;
    for (int number = 0; number < CASES; number++) {
        rule_case c;
        draw_rule_case(&random, number, &c);
        uint32_t expected = plain_vote_of(&c);
        assert_true(expected < c.model.rule.n_options);
        qr_view view = {.votes = c.seen, .degree = c.degree, .own = c.own};
        assert_int_equal(vote_of(&c, &view), expected);

        /* The same neighbours somewhere in a larger view, reached through a list. */
        uint8_t votes[4 * MOST];
        uint32_t list[MOST];
        memset(votes, 255, sizeof votes);
        for (int64_t j = 0; j < c.degree; j++) {
            list[j] = (uint32_t)(4 * (c.degree - 1 - j) + case_pick(&random, 0, 3));
            votes[list[j]] = c.seen[j];
        }
        view = (qr_view){.votes = votes, .list = list, .degree = c.degree, .own = c.own};
        assert_int_equal(vote_of(&c, &view), expected);
    }
}

/* Everybody else as neighbours, sorted by option, is what a tally with oneself in it stands for. */
static void tallies_stand_for_everybody_else(void **state)
{
    (void)state;
    uint64_t random = 12;
    for (int number = 0; number < CASES; number++) {
        rule_case c;
        draw_rule_case(&random, number, &c);
        int64_t tally[QR_MAX_OPTIONS] = {0};
        for (int64_t j = 0; j < c.degree; j++) {
            tally[c.seen[j]]++;
        }
        int64_t n = 0;
        for (uint32_t k = 0; k < c.model.rule.n_options; k++) {
            memset(c.seen + n, (int)k, (size_t)tally[k]);
            n += tally[k];
        }
        tally[c.own]++;
        qr_view view = {.tally = tally, .degree = c.degree, .own = c.own};
        assert_int_equal(vote_of(&c, &view), plain_vote_of(&c));
    }
}

static void coins_equal_their_plain_form(void **state)
{
    (void)state;
    uint64_t random = 13;
    for (int number = 0; number < CASES; number++) {
        uint64_t seed = (uint64_t)case_pick(&random, 0, INT64_MAX - 1);
        int64_t group = case_pick(&random, 0, INT64_C(1) << case_pick(&random, 1, 40));
        int64_t step = case_pick(&random, 0, UINT32_MAX);
        uint64_t threshold = (uint64_t)case_pick(&random, 0, INT64_C(1) << case_pick(&random, 0, 32));
        uint64_t word = qr_plane_coins(seed, (uint64_t)group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, threshold);
        for (int64_t bit = 0; bit < 64; bit++) {
            bool coin = plain_coin(seed, 64 * group + bit, step, QR_STREAM_PLANE_ACTIVATION, threshold);
            assert_int_equal(word >> bit & 1u, coin);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules_equal_their_plain_form),
                                       cmocka_unit_test(tallies_stand_for_everybody_else),
                                       cmocka_unit_test(coins_equal_their_plain_form)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
