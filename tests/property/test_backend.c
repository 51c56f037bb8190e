/* The CPU backend on random models and networks: against a plain second implementation, in any number of parts, with
 * any number of threads. */
#include "cases.h"
#include "crowd.h"
#include "plain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1080, N_KINDS = QR_NETWORK_EDGE_LIST + 1, STEPS = 3 };

static void draw(int number, uint64_t *random, drawn_case *drawn)
{
    case_draw(random, (qr_rule_kind)(number % QR_N_RULES), (qr_network_kind)(number / QR_N_RULES % N_KINDS), drawn);
}

static crowd *open_case(const drawn_case *drawn, int parts, int threads)
{
    crowd_setup setup = {.deck_text = drawn->text,
                         .parts = parts,
                         .threads = threads,
                         .arcs = drawn->arcs,
                         .n_arcs = drawn->n_arcs,
                         .n_agents = drawn->n_agents};
    crowd *c = NULL;
    if (crowd_open(&setup, &c) != QR_OK) {
        fail_msg("%s%s", drawn->text, qr_error_message());
    }
    return c;
}

typedef struct picture {
    uint8_t *votes;
    float *state;
} picture;

static picture take_picture(const crowd *c)
{
    size_t n = (size_t)c->spec.n_agents;
    picture p = {malloc(n), malloc((n * (size_t)c->model->state_dim + 1) * sizeof(float))};
    assert_non_null(p.votes);
    assert_non_null(p.state);
    crowd_votes(c, p.votes);
    crowd_state(c, p.state);
    return p;
}

static void free_picture(picture *p)
{
    free(p->votes);
    free(p->state);
}

static size_t state_bytes(const crowd *c)
{
    return (size_t)c->spec.n_agents * (size_t)c->model->state_dim * sizeof(float);
}

static void check_equal(const drawn_case *drawn, const char *what, const crowd *c, const picture *expected,
                        const qr_tally *tally)
{
    picture got = take_picture(c);
    for (int64_t i = 0; i < c->spec.n_agents; i++) {
        if (got.votes[i] != expected->votes[i]) {
            fail_msg("%s%s: step %lld, agent %lld votes %d instead of %d", drawn->text, what, (long long)c->step,
                     (long long)i, got.votes[i], expected->votes[i]);
        }
    }
    if (memcmp(got.state, expected->state, state_bytes(c)) != 0) {
        fail_msg("%s%s: step %lld, another state", drawn->text, what, (long long)c->step);
    }
    if (memcmp(&c->tally, tally, sizeof *tally) != 0) {
        fail_msg("%s%s: step %lld, another tally or leader", drawn->text, what, (long long)c->step);
    }
    free_picture(&got);
}

static void equals_the_plain_step(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int number = 0; number < CASES; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *c = open_case(&drawn, 1, 1);
        plain_graph graph = plain_graph_of(c);
        uint64_t *frozen = calloc((size_t)c->spec.n_agents / 64 + 1, sizeof *frozen);
        assert_non_null(frozen);
        crowd_zealots(c, frozen);
        picture expected = take_picture(c);
        qr_tally tally = c->tally;
        for (int64_t step = 1; step <= STEPS; step++) {
            plain_step(c->model, &c->spec, &graph, frozen, step, expected.votes, expected.state, &tally);
            crowd_step(c, 1);
            check_equal(&drawn, "against the plain step", c, &expected, &tally);
        }
        free_picture(&expected);
        free(frozen);
        plain_graph_clear(&graph);
        crowd_free(c);
        case_clear(&drawn);
    }
}

static void any_number_of_parts_gives_the_same(void **state)
{
    (void)state;
    static const int parts[] = {2, 3, 5, 8};
    uint64_t random = 2;
    for (int number = 0; number < CASES; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *one = open_case(&drawn, 1, 1);
        crowd *many = open_case(&drawn, parts[number % 4], 1 + number % 2);
        char what[32];
        (void)snprintf(what, sizeof what, "in %d parts", parts[number % 4]);
        for (int64_t step = 0; step <= STEPS; step++) {
            picture expected = take_picture(one);
            check_equal(&drawn, what, many, &expected, &one->tally);
            assert_true(crowd_hash(one) == crowd_hash(many));
            free_picture(&expected);
            crowd_step(one, 1);
            crowd_step(many, 1);
        }
        crowd_free(one);
        crowd_free(many);
        case_clear(&drawn);
    }
}

static void any_number_of_threads_gives_the_same(void **state)
{
    (void)state;
    uint64_t random = 3;
    for (int number = 0; number < CASES; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *one = open_case(&drawn, 1, 1);
        crowd *two = open_case(&drawn, 1, 2 + number % 2);
        crowd_step(one, STEPS);
        crowd_step(two, STEPS);
        picture expected = take_picture(one);
        check_equal(&drawn, "with more threads", two, &expected, &one->tally);
        free_picture(&expected);
        crowd_free(one);
        crowd_free(two);
        case_clear(&drawn);
    }
}

static void check_tally(const crowd *c, const uint8_t *votes)
{
    int64_t sum = 0;
    int64_t most = 0;
    for (int k = 0; k < QR_MAX_OPTIONS; k++) {
        int64_t count = 0;
        int64_t lowest = -1;
        for (int64_t i = c->spec.n_agents - 1; i >= 0; i--) {
            count += votes[i] == k ? 1 : 0;
            lowest = votes[i] == k ? i : lowest;
        }
        assert_int_equal(c->tally.votes[k], count);
        int64_t leader = qr_leader_agent(c->tally.leader[k]);
        if (c->model->state_dim == 0 || count == 0 || c->step == 0) {
            assert_int_equal(leader, lowest);
        } else {
            assert_in_range(leader, lowest, c->spec.n_agents - 1);
            assert_int_equal(votes[leader], k);
        }
        sum += count;
        most = count > most ? count : most;
    }
    assert_int_equal(sum, c->spec.n_agents);
    assert_int_equal(c->tally.votes[qr_tally_winner(&c->tally, c->deck->agents.options)], most);
}

/* More agents than one thread's block, so that threads really share the work. */
static void threads_share_large_crowds(void **state)
{
    (void)state;
    static const char *const models[] = {"rule: voter", "rule: majority, samples: 3", "rule: potts, temperature: 1.1"};
    static const char *const kinds[] = {"lattice2d, size: [501, 401]",
                                        "lattice3d, size: [101, 51, 40], neighbours: moore", "ring, degree: 6"};
    for (int m = 0; m < 3; m++) {
        for (int k = 0; k < 3; k++) {
            char text[512];
            (void)snprintf(text, sizeof text,
                           "output: {directory: none}\nagents: {options: 3%s}\nmodel: {%s}\nnetwork: {kind: %s}\n",
                           k == 2 ? ", count: 200001" : "", models[m], kinds[k]);
            uint64_t expected = 0;
            for (int threads = 1; threads <= 3; threads++) {
                crowd_setup setup = {.deck_text = text, .parts = threads == 3 ? 2 : 1, .threads = threads};
                crowd *c = NULL;
                if (crowd_open(&setup, &c) != QR_OK) {
                    fail_msg("%s%s", text, qr_error_message());
                }
                crowd_step(c, 3);
                expected = threads == 1 ? crowd_hash(c) : expected;
                assert_true(crowd_hash(c) == expected);
                picture end = take_picture(c);
                check_tally(c, end.votes);
                free_picture(&end);
                crowd_free(c);
            }
        }
    }
}

static void tallies_leaders_zealots_and_sleepers_hold(void **state)
{
    (void)state;
    uint64_t random = 4;
    for (int number = 0; number < CASES; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *c = open_case(&drawn, 1 + number % 3, 1);
        uint64_t *frozen = calloc((size_t)c->spec.n_agents / 64 + 1, sizeof *frozen);
        assert_non_null(frozen);
        crowd_zealots(c, frozen);
        picture before = take_picture(c);
        check_tally(c, before.votes);
        for (int64_t step = 1; step <= STEPS; step++) {
            crowd_step(c, 1);
            picture after = take_picture(c);
            check_tally(c, after.votes);
            size_t dim = (size_t)c->model->state_dim;
            for (int64_t i = 0; i < c->spec.n_agents; i++) {
                bool asleep =
                    !plain_coin(c->model->rule.seed, i, step, QR_STREAM_PLANE_ACTIVATION, c->model->rule.activation);
                bool zealot = (frozen[i / 64] >> (i % 64) & 1u) != 0;
                if (asleep || zealot) {
                    assert_int_equal(after.votes[i], before.votes[i]);
                }
                if (asleep) {
                    size_t at = (size_t)i * dim;
                    assert_int_equal(memcmp(after.state + at, before.state + at, dim * sizeof(float)), 0);
                }
            }
            free_picture(&before);
            before = after;
        }
        free_picture(&before);
        free(frozen);
        crowd_free(c);
        case_clear(&drawn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_plain_step), cmocka_unit_test(any_number_of_parts_gives_the_same),
        cmocka_unit_test(any_number_of_threads_gives_the_same), cmocka_unit_test(threads_share_large_crowds),
        cmocka_unit_test(tallies_leaders_zealots_and_sleepers_hold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
