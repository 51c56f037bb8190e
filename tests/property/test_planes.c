/* Bit planes against the rules applied to one agent at a time: any width, any number of parts, every vector width. */
#include "backend/cpu/cpu.h"

#include "crowd.h"
#include "plain.h"

#include "rules/majority.h"
#include "rules/voter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1000, SWEEP_CASES = 150, COLOUR_CASES = 2000, MAX_TEST_PARTS = 3, STEPS = 2, FORMS = 3 };

static uint64_t random_state;

static int64_t pick(int64_t low, int64_t high)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return low + (int64_t)(z % (uint64_t)(high - low + 1));
}

static qr_deck *random_deck(char *text, size_t bytes)
{
    bool voter = pick(0, 1) == 0;
    int64_t options = voter || pick(0, 1) == 0 ? pick(2, pick(0, 3) == 0 ? 16 : 5) : 2;
    int64_t shape = pick(0, 9);
    char network[128];
    if (shape < 2) {
        int64_t degree = voter ? (int64_t)1 << pick(1, 3) : 2 * pick(1, 13);
        (void)snprintf(network, sizeof network, "{kind: ring, degree: %lld}", (long long)degree);
    } else if (shape < 4 && !voter) {
        (void)snprintf(network, sizeof network, "{kind: lattice3d, size: [%lld, %lld, %lld], neighbours: %s}",
                       (long long)pick(3, 90), (long long)pick(3, 9), (long long)pick(3, 9),
                       pick(0, 1) == 0 ? "moore" : "von_neumann");
    } else {
        int64_t width = pick(0, 2) == 0 ? 64 * pick(1, 12) : pick(3, 700);
        (void)snprintf(network, sizeof network, "{kind: lattice2d, size: [%lld, %lld], neighbours: %s}",
                       (long long)width, (long long)pick(3, 20), pick(0, 1) == 0 ? "moore" : "von_neumann");
    }
    char agents[64] = "";
    if (shape < 2) {
        (void)snprintf(agents, sizeof agents, "count: %lld, ", (long long)pick(40, 6000));
    }
    static const char *const noises[] = {"0", "0", "0", "0.001", "0.3"};
    static const char *const activations[] = {"1", "1", "0.5", "0.123456789"};
    char zealots[128] = "";
    if (pick(0, 3) == 0) {
        (void)snprintf(zealots, sizeof zealots, ", zealots: [%lld, %lld%s]", (long long)pick(0, 5),
                       (long long)pick(0, 4), "");
        for (int64_t k = 2; k < options; k++) {
            zealots[strlen(zealots) - 1] = '\0';
            (void)strncat(zealots, ", 0]", sizeof zealots - strlen(zealots) - 1);
        }
    }
    (void)snprintf(text, bytes,
                   "run: {seed: %lld, activation: %s}\nagents: {%soptions: %lld}\nmodel: {rule: %s, noise: %s%s}\n"
                   "network: %s\n",
                   (long long)pick(0, INT64_MAX / 2), activations[pick(0, 3)], agents, (long long)options,
                   voter ? "voter" : "majority", noises[pick(0, 4)], zealots, network);
    qr_deck *deck = NULL;
    if (qr_deck_parse("test", text, strlen(text), NULL, 0, &deck) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    return deck;
}

/* One step of everybody, an agent at a time; the whole network is one part. */
static void step_plainly(const qr_model *model, const qr_network *network, const uint64_t *frozen, int64_t step,
                         const uint8_t *votes, uint8_t *next)
{
    const qr_rule *rule = &model->rule;
    int64_t n = network->spec.n_agents;
    for (int64_t i = 0; i < n; i++) {
        uint64_t group = (uint64_t)i / 64;
        unsigned bit = (unsigned)(i % 64);
        next[i] = votes[i];
        uint64_t active =
            qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
        if ((active >> bit & 1u) == 0 || (frozen[i / 64] >> bit & 1u) != 0) {
            continue;
        }
        uint64_t noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
        if ((noisy >> bit & 1u) != 0) {
            next[i] = (uint8_t)qr_noise_option(rule, i, step);
            continue;
        }
        int64_t positions[64];
        uint8_t seen[64];
        int64_t degree = qr_lattice_neighbours(network, i, positions);
        for (int64_t j = 0; j < degree; j++) {
            int64_t agent = (positions[j] - network->before) % n;
            seen[j] = votes[agent < 0 ? agent + n : agent];
        }
        qr_view view = {.votes = seen, .degree = degree, .own = votes[i]};
        if (model->kind == QR_RULE_MAJORITY) {
            next[i] = (uint8_t)qr_majority_vote(rule, &view, NULL);
            continue;
        }
        uint64_t chosen = 0;
        for (uint32_t b = 0; b < rule->choice_planes; b++) {
            uint64_t planes[2];
            qr_planes(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_RULE, b / 2, planes);
            chosen |= (planes[b % 2] >> bit & 1u) << b;
        }
        next[i] = seen[chosen];
    }
}

static void exchange_halos(qr_backend *const *backend, qr_network *const *network, int n_parts)
{
    const qr_backend_ops *ops = &qr_backend_ops_cpu;
    for (int part = 0; part < n_parts; part++) {
        for (int i = 0; i < network[part]->halo.n_peers; i++) {
            const qr_halo_peer *from = &network[part]->halo.peers[i];
            if (from->send_count == 0) {
                continue;
            }
            uint64_t *message = calloc(1, (size_t)ops->halo_bytes(backend[part], from->send_count) + 16);
            assert_non_null(message);
            assert_int_equal(ops->halo_pack(backend[part], from, message), QR_OK);
            for (int j = 0; j < network[from->peer]->halo.n_peers; j++) {
                const qr_halo_peer *to = &network[from->peer]->halo.peers[j];
                if (to->peer == part) {
                    assert_int_equal(to->recv_count, from->send_count);
                    assert_int_equal(ops->halo_place(backend[from->peer], to, message), QR_OK);
                }
            }
            free(message);
        }
    }
}

static void check_tally(const qr_tally *tally, const uint8_t *votes, int64_t n, uint32_t n_options)
{
    for (uint32_t k = 0; k < n_options; k++) {
        int64_t count = 0;
        int64_t first = -1;
        for (int64_t i = n - 1; i >= 0; i--) {
            count += votes[i] == k ? 1 : 0;
            first = votes[i] == k ? i : first;
        }
        assert_int_equal(tally->votes[k], count);
        assert_int_equal(qr_leader_agent(tally->leader[k]), first);
    }
}

/* Steps n_parts backends and compares votes and tally with the plain ones. */
static void run_parts(const qr_model *model, const qr_network_spec *spec, int n_parts, const qr_simd *simd, int threads,
                      uint8_t *const *expected, const char *text)
{
    const qr_backend_ops *ops = &qr_backend_ops_cpu;
    qr_network *network[MAX_TEST_PARTS];
    qr_backend *backend[MAX_TEST_PARTS];
    uint8_t *got = malloc((size_t)spec->n_agents);
    qr_tally before;
    memset(&before, 0, sizeof before);
    for (int part = 0; part < n_parts; part++) {
        assert_int_equal(qr_network_build(spec, n_parts, part, NULL, &network[part]), QR_OK);
        qr_backend_setup setup = {.model = model, .network = network[part], .threads = threads};
        assert_int_equal(ops->create(&setup, &backend[part]), QR_OK);
        assert_true(backend[part]->n_planes > 0);
        backend[part]->simd = simd;
    }
    for (int64_t step = 0; step < STEPS; step++) {
        qr_tally all;
        memset(&all, 0, sizeof all);
        exchange_halos(backend, network, n_parts);
        for (int part = 0; part < n_parts; part++) {
            qr_tally one;
            assert_int_equal(ops->update(backend[part], step, 0, &before, &one), QR_OK);
            assert_int_equal(
                ops->read_votes(backend[part], 0, network[part]->own.count, got + network[part]->own.first), QR_OK);
            for (uint32_t k = 0; k < model->rule.n_options; k++) {
                all.votes[k] += one.votes[k];
                all.leader[k] = one.leader[k] > all.leader[k] ? one.leader[k] : all.leader[k];
            }
        }
        for (int64_t i = 0; i < spec->n_agents; i++) {
            if (got[i] != expected[step + 1][i]) {
                fail_msg("%s\n%s, %d parts: step %lld, agent %lld votes %d instead of %d", text,
                         simd != NULL ? simd->name : "plain", n_parts, (long long)step, (long long)i, got[i],
                         expected[step + 1][i]);
            }
        }
        check_tally(&all, got, spec->n_agents, model->rule.n_options);
    }
    for (int part = 0; part < n_parts; part++) {
        ops->destroy(backend[part]);
        qr_network_destroy(network[part]);
    }
    free(got);
}

/* True when the drawn case is one that bit planes serve. */
static bool one_case(void)
{
    char text[1024];
    qr_deck *deck = random_deck(text, sizeof text);
    qr_network_spec spec;
    if (qr_network_spec_from_deck(deck, &spec) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    qr_model_network seen = {.n_agents = spec.n_agents,
                             .max_degree = spec.dims == 1 ? spec.degree : qr_lattice_degree(&spec)};
    seen.uniform_degree = seen.max_degree;
    qr_model *model = NULL;
    if (qr_model_create(deck, &seen, NULL, &model) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    int n_planes = 0;
    bool planes = qr_cpu_uses_planes(model, &spec, &n_planes);
    if (planes) {
        qr_network *whole = NULL;
        assert_int_equal(qr_network_build(&spec, 1, 0, NULL, &whole), QR_OK);
        uint8_t *expected[STEPS + 1];
        uint64_t *frozen = calloc((size_t)spec.n_agents / 64 + 1, sizeof *frozen);
        for (int s = 0; s <= STEPS; s++) {
            expected[s] = malloc((size_t)spec.n_agents);
        }
        qr_model_initial_votes(model, 0, spec.n_agents, NULL, expected[0], frozen);
        for (int s = 0; s < STEPS; s++) {
            step_plainly(model, whole, frozen, s, expected[s], expected[s + 1]);
        }
        const qr_simd *forms[FORMS] = {NULL, qr_simd_find("v3"), qr_simd_find("v4")};
        int n_parts = (int)pick(1, MAX_TEST_PARTS);
        for (int form = 0; form < FORMS; form++) {
            if (form == 0 || forms[form] != NULL) {
                run_parts(model, &spec, n_parts, forms[form], form == 1 ? 2 : 1, expected, text);
            }
        }
        for (int s = 0; s <= STEPS; s++) {
            free(expected[s]);
        }
        free(frozen);
        qr_network_destroy(whole);
    }
    qr_model_destroy(model);
    qr_deck_destroy(deck);
    return planes;
}

static void planes_equal_single_agents(void **state)
{
    (void)state;
    random_state = 20261123;
    for (int done = 0; done < CASES;) {
        done += one_case() ? 1 : 0;
    }
}

/* Potts with two options, on lattices of all widths and colourings that bit planes serve. */
static void sweep_deck(char *text, size_t bytes)
{
    char network[128];
    long long n = 0;
    switch (pick(0, 4)) {
    case 0:
        n = pick(27, 3000);
        (void)snprintf(network, sizeof network, "{kind: ring, degree: %lld}", 2 * (long long)pick(1, 13));
        break;
    case 1: {
        long long size[3] = {pick(3, 90), pick(3, 7), pick(3, 7)};
        n = size[0] * size[1] * size[2];
        (void)snprintf(network, sizeof network, "{kind: lattice3d, size: [%lld, %lld, %lld], neighbours: %s}", size[0],
                       size[1], size[2], pick(0, 1) == 0 ? "moore" : "von_neumann");
        break;
    }
    default: {
        long long width = pick(0, 1) == 0 ? pick(3, 400) : 128 * pick(1, 18);
        long long height = pick(0, 1) == 0 ? pick(3, 9) : 2 * pick(2, 5);
        n = width * height;
        (void)snprintf(network, sizeof network, "{kind: lattice2d, size: [%lld, %lld], neighbours: %s}", width, height,
                       pick(0, 3) == 0 ? "moore" : "von_neumann");
    }
    }
    static const char *const starts[] = {"uniform", "shares, shares: [0, 1]", "shares, shares: [99, 1]"};
    static const char *const temperatures[] = {"0.03", "0.4", "1", "1.13", "4", "1e9"};
    (void)snprintf(text, bytes,
                   "run: {seed: %lld}\noutput: {directory: none}\nagents: {count: %lld, options: 2, initial: %s}\n"
                   "model: {rule: potts, temperature: %s, dynamics: %s}\nnetwork: %s\n",
                   (long long)pick(0, INT64_MAX / 2), n, starts[pick(0, 2)], temperatures[pick(0, 5)],
                   pick(0, 1) == 0 ? "heat_bath" : "metropolis", network);
}

/* The votes and tallies of each form against the plain ones, step by step. */
static void sweep_case(int n_forms, const qr_simd *const *forms)
{
    char text[1024];
    crowd *c[FORMS];
    sweep_deck(text, sizeof text);
    for (int form = 0; form < n_forms; form++) {
        crowd_setup setup = {
            .deck_text = text, .parts = (int)pick(1, MAX_TEST_PARTS), .threads = (int)pick(1, MAX_TEST_PARTS)};
        if (crowd_open(&setup, &c[form]) != QR_OK) {
            fail_msg("%s\n%s", text, qr_error_message());
        }
        for (int part = 0; part < c[form]->n_parts; part++) {
            assert_int_equal(c[form]->backend[part]->n_planes, 1);
            c[form]->backend[part]->simd = forms[form];
        }
    }
    size_t n = (size_t)c[0]->spec.n_agents;
    uint8_t *votes = malloc(n);
    uint8_t *got = malloc(n);
    uint64_t *frozen = calloc(n / 64 + 1, sizeof *frozen);
    plain_graph graph = plain_graph_of(c[0]);
    qr_tally tally = c[0]->tally;
    crowd_votes(c[0], votes);
    for (int step = 1; step <= STEPS; step++) {
        plain_step(c[0]->model, &c[0]->spec, &graph, frozen, step, votes, NULL, &tally);
        for (int form = 0; form < n_forms; form++) {
            crowd_step(c[form], 1);
            crowd_votes(c[form], got);
            for (size_t i = 0; i < n; i++) {
                if (got[i] != votes[i]) {
                    fail_msg("%s\n%s, %d parts: step %d, agent %zu votes %d instead of %d", text,
                             forms[form] != NULL ? forms[form]->name : "plain", c[form]->n_parts, step, i, got[i],
                             votes[i]);
                }
            }
            assert_memory_equal(&c[form]->tally, &tally, sizeof tally);
        }
    }
    plain_graph_clear(&graph);
    free(frozen);
    free(got);
    free(votes);
    for (int form = 0; form < n_forms; form++) {
        crowd_free(c[form]);
    }
}

static void sweeps_equal_single_agents(void **state)
{
    (void)state;
    random_state = 20261124;
    const qr_simd *forms[FORMS] = {NULL, qr_simd_find("v3"), qr_simd_find("v4")};
    for (int number = 0; number < SWEEP_CASES; number++) {
        sweep_case(forms[2] != NULL ? FORMS : FORMS - 1, forms);
    }
}

static void colours_of_words_equal_those_of_agents(void **state)
{
    (void)state;
    random_state = 20261125;
    for (int number = 0; number < COLOUR_CASES; number++) {
        qr_lattice lattice = {.dims = (int32_t)pick(1, 3), .moore = (int32_t)pick(0, 1)};
        lattice.periodic = lattice.dims == 1 || pick(0, 2) > 0;
        for (int axis = 0; axis < 3; axis++) {
            lattice.size[axis] = axis >= lattice.dims ? 1 : pick(0, 3) == 0 ? pick(100, 300) : pick(1, 9);
        }
        lattice.reach = pick(1, 20);
        lattice.size[0] += lattice.dims == 1 ? 2 * lattice.reach : 0;
        lattice.n_agents = lattice.size[0] * lattice.size[1] * lattice.size[2];
        qr_lattice_set_colours(&lattice);
        int64_t first = 64 * pick(0, (lattice.n_agents - 1) / 64);
        for (int32_t colour = 0; colour < lattice.n_colours; colour++) {
            uint64_t word = qr_lattice_colour_word(&lattice, first, colour);
            for (int64_t bit = 0; bit < 64 && first + bit < lattice.n_agents; bit++) {
                assert_int_equal(word >> bit & 1u, qr_lattice_colour_of(&lattice, first + bit) == colour);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(planes_equal_single_agents),
                                       cmocka_unit_test(sweeps_equal_single_agents),
                                       cmocka_unit_test(colours_of_words_equal_those_of_agents)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
