/* From deck to model: thresholds, first votes, zealots, weights, and what is refused. */
#include "model/model.h"

#include "crowd.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void probabilities_become_nearest_thresholds(void **state)
{
    (void)state;
    static const struct {
        const char *probability;
        uint64_t threshold;
    } cases[] = {{"1", UINT64_C(1) << 32},    {"0.5", UINT64_C(1) << 31},    {"0.1", 429496730},           {"1e-9", 4},
                 {"0.999999999", 4294967292}, {"2.3283064365386963e-10", 1}, {"1.1641532182693482e-10", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *p = cases[i].probability;
        crowd *c = crowd_make("run: {activation: %s}\noutput: {directory: none}\nagents: {count: 10}\n"
                              "model: {rule: q_voter, noise: %s, epsilon: %s, q: 7}\n",
                              p, p, p);
        assert_true(c->model->rule.activation == cases[i].threshold);
        assert_true(c->model->rule.noise == cases[i].threshold);
        assert_true(c->model->rule.epsilon == cases[i].threshold);
        assert_int_equal(c->model->rule.q, 7);
        crowd_free(c);
    }
    crowd *c = crowd_make("output: {directory: none}\nagents: {count: 10}\n");
    assert_true(c->model->rule.noise == 0 && c->model->rule.epsilon == 0);
    crowd_free(c);
}

static void check_counts(const char *agents, const char *model, int options, const int64_t *expected)
{
    crowd *c =
        crowd_make("output: {directory: none}\nagents: {options: %d, %s}\nmodel: {%s}\n", options, agents, model);
    for (int k = 0; k < options; k++) {
        if (c->tally.votes[k] != expected[k]) {
            fail_msg("%s: option %d has %lld votes instead of %lld", agents, k, (long long)c->tally.votes[k],
                     (long long)expected[k]);
        }
    }
    crowd_free(c);
}

static void shares_are_exact_by_largest_remainder(void **state)
{
    (void)state;
    check_counts("count: 10, initial: shares, shares: [1, 1, 1]", "rule: voter", 3, (int64_t[]){4, 3, 3});
    check_counts("count: 3, initial: shares, shares: [0.5, 0.25, 0.25]", "rule: voter", 3, (int64_t[]){1, 1, 1});
    check_counts("count: 7, initial: shares, shares: [2, 1]", "rule: voter", 2, (int64_t[]){5, 2});
    check_counts("count: 1, initial: shares, shares: [1, 3]", "rule: voter", 2, (int64_t[]){0, 1});
    check_counts("count: 1000, initial: shares, shares: [0, 5, 0]", "rule: voter", 3, (int64_t[]){0, 1000, 0});
    check_counts("count: 99991, initial: shares, shares: [0.3, 0.3, 0.4]", "rule: voter", 3,
                 (int64_t[]){29997, 29997, 39997}); /* 29997.3, 29997.3, 39996.4 */
    /* Zealots come on top: the shares are those of the others. */
    check_counts("count: 110, initial: shares, shares: [1, 1]", "rule: voter, zealots: [10, 0]", 2,
                 (int64_t[]){60, 50});
}

static void zealots_are_exact_and_frozen(void **state)
{
    (void)state;
    static const char *const initials[] = {"", ", initial: shares, shares: [1, 0, 0]"};
    for (int i = 0; i < 2; i++) {
        crowd *c = crowd_make("output: {directory: none}\nagents: {options: 3, count: 1000%s}\n"
                              "model: {rule: voter, zealots: [5, 0, 70]}\n",
                              initials[i]);
        uint8_t votes[1000];
        uint64_t frozen[16];
        int64_t zealots[3] = {0};
        int64_t low = 0;
        qr_model_initial_votes(c->model, 0, 1000, NULL, votes, frozen);
        for (int a = 0; a < 1000; a++) {
            if ((frozen[a / 64] >> (a % 64) & 1u) != 0) {
                zealots[votes[a]]++;
                low += a < 500 ? 1 : 0;
            } else {
                assert_true(i == 0 || votes[a] == 0);
            }
        }
        assert_int_equal(zealots[0], 5);
        assert_int_equal(zealots[1], 0);
        assert_int_equal(zealots[2], 70);
        assert_in_range(low, 20, 55); /* spread over the agents */
        crowd_free(c);
    }
    check_counts("count: 12", "rule: voter, zealots: [5, 7]", 2, (int64_t[]){5, 7});
}

static void first_votes_do_not_depend_on_where_a_part_begins(void **state)
{
    (void)state;
    enum { N = 5000, MORE = 70 };
    static const char *const initials[] = {"", ", initial: shares, shares: [1, 2, 3]"};
    for (int i = 0; i < 2; i++) {
        crowd *c = crowd_make("output: {directory: none}\nagents: {options: 3, count: %d%s}\n"
                              "model: {rule: voter, zealots: [50, 60, 70]}\n",
                              N, initials[i]);
        static uint8_t whole[N];
        static uint64_t whole_frozen[N / 64 + 1];
        qr_model_initial_votes(c->model, 0, N, NULL, whole, whole_frozen);
        for (int64_t first = 0; first < N; first += 64) {
            uint8_t piece[MORE];
            uint64_t frozen[2];
            int64_t count = N - first < MORE ? N - first : MORE;
            qr_model_initial_votes(c->model, first, count, NULL, piece, frozen);
            assert_memory_equal(piece, whole + first, (size_t)count);
            uint64_t mask = count < 64 ? (UINT64_C(1) << count) - 1 : ~UINT64_C(0);
            assert_true((frozen[0] & mask) == (whole_frozen[first / 64] & mask));
            qr_model_initial_votes(c->model, first, count, NULL, piece, NULL);
            assert_memory_equal(piece, whole + first, (size_t)count);
        }
        crowd_free(c);
    }
}

static void uniform_votes_are_uniform(void **state)
{
    (void)state;
    crowd *c = crowd_make("output: {directory: none}\nagents: {options: 7, count: 700000}\n");
    for (int k = 0; k < 7; k++) {
        check_within(crowd_share(c, k), 1.0 / 7, share_error(1.0 / 7, c->spec.n_agents), "option %d", k);
    }
    crowd_free(c);
}

static void votes_of_a_file_yield_to_zealots_only(void **state)
{
    (void)state;
    crowd *c = crowd_make("output: {directory: none}\nagents: {options: 3, count: 200, initial: file, file: x.h5}\n"
                          "model: {rule: voter, zealots: [9, 0, 0]}\n");
    uint8_t file[200];
    uint8_t votes[200];
    uint64_t frozen[4];
    int zealots = 0;
    for (int a = 0; a < 200; a++) {
        file[a] = (uint8_t)(1 + a % 2);
    }
    qr_model_initial_votes(c->model, 0, 200, file, votes, frozen);
    for (int a = 0; a < 200; a++) {
        bool zealot = (frozen[a / 64] >> (a % 64) & 1u) != 0;
        zealots += zealot ? 1 : 0;
        assert_int_equal(votes[a], zealot ? 0 : file[a]);
    }
    assert_int_equal(zealots, 9);
    crowd_free(c);
}

static void boltzmann_weights_are_exponentials(void **state)
{
    (void)state;
    static const double temperatures[] = {1e-45, 0.01, 0.5, 1.134593, 20.0, 1e9};
    for (int i = 0; i < 6; i++) {
        crowd *c = crowd_make("output: {directory: none}\nmodel: {rule: potts, temperature: %.17g}\n"
                              "network: {kind: lattice2d, size: [8, 8], neighbours: moore}\n",
                              temperatures[i]);
        assert_int_equal(c->model->rule.boltzmann_last, 8);
        for (int j = 0; j <= 8; j++) {
            double exact = exp(-j / temperatures[i]);
            assert_true(fabs((double)c->model->rule.boltzmann[j] * 0x1p-40 - exact) <= 3e-6 * exact + 0x1p-40);
        }
        assert_true(c->model->rule.boltzmann[0] == UINT64_C(1) << 40);
        crowd_free(c);
    }
}

static void qualities_are_scaled_to_the_best(void **state)
{
    (void)state;
    crowd *c = crowd_make("output: {directory: none}\nagents: {options: 4, count: 10}\n"
                          "model: {rule: best_of_n, qualities: [2, 8, 1e-12, 6]}\n");
    const uint32_t *quality = c->model->rule.quality;
    assert_int_equal(quality[0], QR_QUALITY_ONE / 4);
    assert_int_equal(quality[1], QR_QUALITY_ONE);
    assert_int_equal(quality[2], 1); /* never impossible to copy */
    assert_int_equal(quality[3], QR_QUALITY_ONE / 4 * 3);
    crowd_free(c);
}

static void voters_choose_by_planes_where_degrees_are_powers_of_two(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        uint32_t planes;
    } cases[] = {{"kind: lattice2d, size: [9, 9]", 2},
                 {"kind: lattice2d, size: [9, 9], neighbours: moore", 3},
                 {"kind: lattice2d, size: [9, 9], periodic: false", 0},
                 {"kind: lattice3d, size: [4, 4, 4]", 0},
                 {"kind: ring, degree: 2", 1},
                 {"kind: ring, degree: 6", 0},
                 {"kind: ring, degree: 16", 4},
                 {"kind: random_regular, degree: 4", 0},
                 {"kind: complete", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool lattice = strstr(cases[i].network, "lattice") != NULL;
        crowd *c = crowd_make("output: {directory: none}\nnetwork: {%s}\n%s", cases[i].network,
                              lattice ? "" : "agents: {count: 100}\n");
        assert_int_equal(c->model->rule.choice_planes, cases[i].planes);
        crowd_free(c);
    }
}

static crowd *neural_crowd(int dim, int hidden, double weight_scale)
{
    return crowd_make("output: {directory: none}\nagents: {count: 64, options: 3}\n"
                      "model: {rule: neural, state_dim: %d, hidden: %d, weight_scale: %g, state_scale: 0.5}\n",
                      dim, hidden, weight_scale);
}

static void check_matrix(const float *w, int64_t n, int64_t columns, double scale, const char *name)
{
    sample_mean mean = {0};
    sample_mean square = {0};
    for (int64_t i = 0; i < n; i++) {
        sample_add(&mean, w[i]);
        sample_add(&square, (double)w[i] * w[i]);
    }
    check_within(mean.mean, 0.0, sample_error(&mean), "%s: mean", name);
    check_within(square.mean, scale * scale / (double)columns, sample_error(&square), "%s: variance", name);
}

static void seeded_weights_have_the_width_of_their_fan_in(void **state)
{
    (void)state;
    crowd *c = neural_crowd(40, 60, 2.0);
    const qr_neural *net = &c->model->neural;
    assert_int_equal(qr_model_weight_count(c->deck), 60 * 46 + 60 + 40 * 60 + 40 + 3 * 40 + 3);
    check_matrix(net->w1, 60 * 46, 46, 2.0, "W1");
    check_matrix(net->w2, 40 * 60, 60, 2.0, "W2");
    check_matrix(net->wv, 3 * 40, 40, 2.0, "Wv");
    for (int i = 0; i < 60; i++) {
        assert_true(net->b1[i] == 0.0f && (i >= 40 || net->b2[i] == 0.0f) && (i >= 3 || net->bv[i] == 0.0f));
    }
    assert_ptr_equal(net->bv + 3, c->model->weights + qr_model_weight_count(c->deck));
    crowd_free(c);
}

/* More weights than one stream has numbers: none may come again. */
static void large_networks_do_not_repeat_their_weights(void **state)
{
    (void)state;
    crowd *c = neural_crowd(1024, 1030, 1.0);
    const float *w1 = c->model->neural.w1;
    int64_t n = 1030 * (1024 + 6);
    check_matrix(w1, n, 1030, 1.0, "W1");
    for (int64_t lag = 4; lag < n - 64; lag += 4) {
        int same = 0;
        while (same < 8 && w1[same] == w1[lag + same]) {
            same++;
        }
        if (same == 8) {
            fail_msg("the first weights come again %lld later", (long long)lag);
        }
    }
    crowd_free(c);
}

static void given_weights_are_taken_as_they_are(void **state)
{
    (void)state;
    crowd *c = neural_crowd(5, 7, 1.0);
    int64_t n = qr_model_weight_count(c->deck);
    float *weights = malloc((size_t)n * sizeof *weights);
    assert_non_null(weights);
    for (int64_t i = 0; i < n; i++) {
        weights[i] = (float)i;
    }
    qr_model_network seen = {.n_agents = 64};
    qr_model *model = NULL;
    assert_int_equal(qr_model_create(c->deck, &seen, weights, &model), QR_OK);
    assert_memory_equal(model->weights, weights, (size_t)n * sizeof *weights);
    assert_true(model->neural.b1[0] == 7.0f * 11 && model->neural.bv[2] == (float)(n - 1));
    qr_model_destroy(model);
    free(weights);
    crowd_free(c);
}

static void first_states_are_uniform(void **state)
{
    (void)state;
    crowd *c = neural_crowd(1000, 4, 1.0);
    static float x[64 * 1000];
    sample_mean mean = {0};
    sample_mean square = {0};
    crowd_state(c, x);
    for (int i = 0; i < 64 * 1000; i++) {
        assert_true(fabsf(x[i]) <= 0.5f);
        sample_add(&mean, x[i]);
        sample_add(&square, (double)x[i] * x[i]);
    }
    check_within(mean.mean, 0.0, sample_error(&mean), "mean");
    check_within(square.mean, 0.25 / 3.0, sample_error(&square), "mean square");
    crowd_free(c);
}

static void wrong_models_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *deck;
        const char *message;
    } cases[] = {
        {"model: {rule: vooter}", "did you mean voter?"},
        {"model: {rule: xyzzyxyzzy}", "`quorate models` lists them"},
        {"model: {rule: voter, samples: 3}", "the rule voter has no such parameter"},
        {"model: {rule: majority, q: 3}", "(it has: samples)"},
        {"model: {rule: q_voter, qualities: [1, 2]}", "test:2:"},
        {"model: {rule: potts, state_dim: 3}", "has no such parameter"},
        {"model: {rule: voter, temperature: 2}", "has no such parameter"},
        {"model: {rule: best_of_n}", "needs a quality for each of the 2 options"},
        {"model: {rule: potts, temperature: 0}", "temperature above 0"},
        {"run: {activation: 0.5}\nmodel: {rule: potts}", "activation must be 1"},
        {"model: {rule: potts, noise: 0.1}", "noise must be 0"},
        {"model: {rule: potts, zealots: [0, 1]}", "no zealots"},
        {"model: {rule: potts}", "on a complete network they would move one by one"},
        {"model: {rule: potts}\nnetwork: {kind: edge_list, file: a, directed: true}", "both must see each other"},
        {"model: {rule: voter, zealots: [60, 41]}", "101 zealots in all, but there are only 100 agents"},
        {"run: {activation: 1.1641532182693480e-10}", "run.activation: 1.16415e-10 would count as 0"},
        {"model: {noise: 1.1641532182693480e-10}", "model.noise: 1.16415e-10 would count as 0"},
        {"model: {rule: q_voter, epsilon: 1.1641532182693480e-10}", "model.epsilon: 1.16415e-10 would count as 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, "output: {directory: none}\n%s\nagents: {count: 100}\n", cases[i].deck);
        crowd_setup setup = {.deck_text = text};
        crowd *c = NULL;
        assert_int_equal(crowd_open(&setup, &c), QR_USAGE);
        assert_null(c);
        if (strstr(qr_error_message(), cases[i].message) == NULL) {
            fail_msg("%s: '%s' should say '%s'", cases[i].deck, qr_error_message(), cases[i].message);
        }
    }
}

/* A deck with an edge list does not say how many agents there are. */
static void zealots_are_held_against_the_network(void **state)
{
    (void)state;
    static const char text[] = "model: {zealots: [4, 3]}\nnetwork: {kind: edge_list, file: x.txt}\n";
    qr_deck *deck = NULL;
    qr_model *model = NULL;
    qr_rule_kind rule = QR_RULE_POTTS;
    assert_int_equal(qr_deck_parse("test", text, strlen(text), NULL, 0, &deck), QR_OK);
    assert_int_equal(qr_model_check(deck, &rule), QR_OK);
    qr_model_network seen = {.n_agents = 6};
    assert_int_equal(qr_model_create(deck, &seen, NULL, &model), QR_USAGE);
    assert_null(model);
    assert_string_equal(qr_error_message(), "test:1:18: model.zealots: 7 zealots in all, but there are only 6 agents");
    seen.n_agents = 7;
    assert_int_equal(qr_model_create(deck, &seen, NULL, &model), QR_OK);
    qr_model_destroy(model);
    qr_deck_destroy(deck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(probabilities_become_nearest_thresholds),
                                       cmocka_unit_test(shares_are_exact_by_largest_remainder),
                                       cmocka_unit_test(zealots_are_exact_and_frozen),
                                       cmocka_unit_test(first_votes_do_not_depend_on_where_a_part_begins),
                                       cmocka_unit_test(uniform_votes_are_uniform),
                                       cmocka_unit_test(votes_of_a_file_yield_to_zealots_only),
                                       cmocka_unit_test(boltzmann_weights_are_exponentials),
                                       cmocka_unit_test(qualities_are_scaled_to_the_best),
                                       cmocka_unit_test(voters_choose_by_planes_where_degrees_are_powers_of_two),
                                       cmocka_unit_test(seeded_weights_have_the_width_of_their_fan_in),
                                       cmocka_unit_test(large_networks_do_not_repeat_their_weights),
                                       cmocka_unit_test(given_weights_are_taken_as_they_are),
                                       cmocka_unit_test(first_states_are_uniform),
                                       cmocka_unit_test(wrong_models_are_refused),
                                       cmocka_unit_test(zealots_are_held_against_the_network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
