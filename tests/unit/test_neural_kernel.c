/* The neural kernel of every vector width against kernels/rules/neural.h, bit for bit; and the shares that the backend
 * gathers against a plain count. */
#include "backend/cpu/cpu.h"
#include "base/memory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1000, NETWORK_CASES = 300 };

static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t pick(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}

static float unit(void)
{
    return (float)((int32_t)(random_bits() >> 40) - (1 << 23)) * 0x1p-23f;
}

static float *random_floats(size_t n, float scale)
{
    float *values = malloc((n + QR_NEURAL_PAD) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n + QR_NEURAL_PAD; i++) {
        values[i] = scale * unit();
    }
    return values;
}

typedef struct shape {
    uint32_t state_dim;
    uint32_t hidden;
    uint32_t n_options;
    int n;
} shape;

/* Mostly small, so that every remainder comes up; now and then past what is done at once. */
static shape random_shape(int number)
{
    shape s = {(uint32_t)pick(1, 40), (uint32_t)pick(1, 150), (uint32_t)pick(2, 12), (int)pick(1, QR_NEURAL_BATCH)};
    if (number % 50 == 0) {
        s.state_dim = (uint32_t)pick(500, 1024);
    }
    if (number % 50 == 1) {
        s.hidden = (uint32_t)pick(500, 1100);
    }
    if (number % 20 == 2) {
        s.n_options = (uint32_t)pick(2, QR_MAX_OPTIONS);
    }
    if (number == 3) {
        s = (shape){1024, 4096, 3, 7};
    }
    return s;
}

static void compare(const char *form, const shape *s, int number, const char *what, const void *got,
                    const void *expected, size_t bytes)
{
    if (memcmp(got, expected, bytes) != 0) {
        fail_msg("%s, case %d (D %u, H %u, K %u, n %d): other %s", form, number, s->state_dim, s->hidden, s->n_options,
                 s->n, what);
    }
}

/* weird: scores may overflow or be no number at all. */
static void kernel_case(int number, const qr_simd *simd)
{
    const shape s = random_shape(number);
    const size_t d = s.state_dim;
    const size_t h = s.hidden;
    const size_t k = s.n_options;
    static const float temperatures[] = {0.0f, 1.0f, 1.0f, 0.05f, 20.0f};
    const float temperature = temperatures[pick(0, 4)];
    const bool weird = number % 10 == 9;
    qr_neural net = {.state_dim = s.state_dim,
                     .hidden = s.hidden,
                     .n_options = s.n_options,
                     .dt = 0.3f,
                     .inverse_temperature = temperature > 0.0f ? 1.0f / temperature : 0.0f};
    float *w1 = random_floats(h * (2 * k + d), 0.5f);
    float *b1 = random_floats(h, 0.5f);
    float *w2 = random_floats(d * h, 0.5f);
    float *b2 = random_floats(d, 0.5f);
    float *wv = random_floats(k * d, weird ? 3e38f : 0.7f);
    float *bv = random_floats(k, 0.5f);
    float *base = random_floats(h, 1.0f);
    float *x = random_floats((size_t)s.n * d, weird ? 5.0f : 1.0f);
    net.w1 = w1;
    net.b1 = b1;
    net.w2 = w2;
    net.b2 = b2;
    net.wv = wv;
    net.bv = bv;
    qr_neural_batch plain;
    qr_neural_batch wide;
    void *packed[2];
    assert_int_equal(qr_neural_batch_init(&net, NULL, &plain), QR_OK);
    assert_int_equal(qr_neural_batch_init(&net, simd, &wide), QR_OK);
    assert_int_equal(qr_neural_kernel_pack(&net, NULL, &packed[0]), QR_OK);
    assert_int_equal(qr_neural_kernel_pack(&net, simd, &packed[1]), QR_OK);
    for (int a = 0; a < s.n; a++) {
        plain.agents[a] = wide.agents[a] = (int64_t)(random_bits() >> (pick(0, 1) == 0 ? 24 : 50));
    }
    for (size_t i = 0; i < k * QR_NEURAL_BATCH; i++) {
        plain.shares[i] = wide.shares[i] = (float)pick(0, 8) / 8.0f;
    }
    memcpy(plain.gathered, x, (size_t)s.n * d * sizeof(float));
    plain.x = plain.gathered;
    wide.x = x; /* exactly as long as it must be */
    uint64_t seed = random_bits();
    int64_t step = pick(0, INT64_C(1) << 33);
    qr_neural_kernel_run(&net, NULL, packed[0], base, seed, step, s.n, &plain);
    qr_neural_kernel_run(&net, simd, packed[1], base, seed, step, s.n, &wide);
    compare(simd->name, &s, number, "state", wide.x, plain.x, (size_t)s.n * d * sizeof(float));
    compare(simd->name, &s, number, "votes", wide.votes, plain.votes, (size_t)s.n);
    compare(simd->name, &s, number, "scores", wide.scores, plain.scores, (size_t)s.n * sizeof(uint32_t));
    qr_neural_batch_clear(&plain);
    qr_neural_batch_clear(&wide);
    free(packed[0]);
    free(packed[1]);
    free(w1);
    free(b1);
    free(w2);
    free(b2);
    free(wv);
    free(bv);
    free(base);
    free(x);
}

static void kernels_equal_the_rule(void **state)
{
    (void)state;
    static const char *const names[] = {"v3", "v4"};
    for (int f = 0; f < 2; f++) {
        const qr_simd *simd = qr_simd_find(names[f]);
        random_state = 20261123;
        for (int i = 0; simd != NULL && i < CASES; i++) {
            kernel_case(i, simd);
        }
    }
}

static qr_deck *random_deck(char *text, size_t bytes)
{
    static const char *const activations[] = {"1", "1", "0.4"};
    static const char *const noises[] = {"0", "0", "0.1"};
    static const char *const neighbourhoods[] = {"moore", "von_neumann"};
    char network[160];
    char agents[64] = "";
    const char *periodic = pick(0, 2) == 0 ? "false" : "true";
    long long size[3] = {pick(3, 90), pick(3, 12), pick(3, 6)};
    switch (pick(0, 3)) {
    case 0: (void)snprintf(network, sizeof network, "{kind: complete}"); break;
    case 1: (void)snprintf(network, sizeof network, "{kind: ring, degree: %lld}", 2 * (long long)pick(1, 4)); break;
    case 2:
        (void)snprintf(network, sizeof network, "{kind: lattice2d, size: [%lld, %lld], neighbours: %s, periodic: %s}",
                       size[0], size[1], neighbourhoods[pick(0, 1)], periodic);
        break;
    default:
        (void)snprintf(network, sizeof network,
                       "{kind: lattice3d, size: [%lld, %lld, %lld], neighbours: %s, periodic: %s}", size[0], size[1],
                       size[2], neighbourhoods[pick(0, 1)], periodic);
        break;
    }
    if (strstr(network, "size") == NULL) {
        (void)snprintf(agents, sizeof agents, "count: %lld, ", (long long)pick(30, 400));
    }
    (void)snprintf(text, bytes,
                   "run: {seed: %lld, activation: %s}\nagents: {%soptions: %lld}\n"
                   "model: {rule: neural, noise: %s, state_dim: %lld, hidden: %lld, temperature: %s}\nnetwork: %s\n",
                   (long long)pick(0, 1000000), activations[pick(0, 2)], agents, (long long)pick(2, 6),
                   noises[pick(0, 2)], (long long)pick(1, 9), (long long)pick(1, 20), pick(0, 2) == 0 ? "0" : "0.7",
                   network);
    qr_deck *deck = NULL;
    if (qr_deck_parse("test", text, strlen(text), NULL, 0, &deck) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    return deck;
}

/* One agent's step by the rule alone. */
static void step_plainly(const qr_model *model, const qr_network *network, const float *base, int64_t step,
                         const qr_tally *before, const uint8_t *votes, int64_t agent, float *x, uint8_t *next,
                         uint32_t *score)
{
    const qr_rule *rule = &model->rule;
    uint64_t group = (uint64_t)agent / 64;
    unsigned bit = (unsigned)(agent % 64);
    *next = votes[agent];
    *score = 0;
    uint64_t active = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    uint64_t noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
    if ((active >> bit & 1u) == 0) {
        return;
    }
    int64_t n = network->spec.n_agents;
    float counts[QR_MAX_OPTIONS] = {0.0f};
    float shares[QR_MAX_OPTIONS];
    int64_t degree = n - 1;
    if (network->spec.kind == QR_NETWORK_COMPLETE) {
        for (uint32_t k = 0; k < rule->n_options; k++) {
            counts[k] = (float)(before->votes[k] - (votes[agent] == k ? 1 : 0));
        }
    } else {
        int64_t positions[64];
        degree = qr_lattice_neighbours(network, agent, positions);
        for (int64_t j = 0; j < degree; j++) {
            counts[votes[((positions[j] - network->before) % n + n) % n]] += 1.0f;
        }
    }
    for (uint32_t k = 0; k < rule->n_options; k++) {
        shares[k] = counts[k] / (float)degree;
    }
    float hidden[64];
    float z[QR_MAX_OPTIONS];
    qr_neural_advance(&model->neural, base, shares, x, hidden, z);
    qr_draws draws;
    qr_draws_begin(&draws, rule->seed, (uint64_t)agent, (uint64_t)step, QR_STREAM_RULE);
    uint32_t sure = 0;
    uint32_t vote = qr_neural_vote(&model->neural, z, &draws, &sure);
    bool random = (noisy >> bit & 1u) != 0;
    *next = (uint8_t)(random ? qr_noise_option(rule, agent, step) : vote);
    *score = random ? 0 : sure;
}

static void halo_to_oneself(qr_backend *backend, const qr_network *network)
{
    for (int i = 0; i < network->halo.n_peers; i++) {
        const qr_halo_peer *peer = &network->halo.peers[i];
        uint64_t *message = calloc(1, (size_t)qr_backend_ops_cpu.halo_bytes(backend, peer->send_count) + 16);
        assert_int_equal(qr_backend_ops_cpu.halo_pack(backend, peer, message), QR_OK);
        assert_int_equal(qr_backend_ops_cpu.halo_place(backend, peer, message), QR_OK);
        free(message);
    }
}

static void network_case(void)
{
    char text[1024];
    qr_deck *deck = random_deck(text, sizeof text);
    qr_network_spec spec;
    if (qr_network_spec_from_deck(deck, &spec) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    qr_network *network = NULL;
    qr_model *model = NULL;
    qr_backend *backend = NULL;
    qr_model_network seen = {.n_agents = spec.n_agents};
    assert_int_equal(qr_network_build(&spec, 1, 0, NULL, &network), QR_OK);
    if (qr_model_create(deck, &seen, NULL, &model) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    qr_backend_setup setup = {.model = model, .network = network, .threads = 1};
    assert_int_equal(qr_backend_ops_cpu.create(&setup, &backend), QR_OK);
    size_t n = (size_t)spec.n_agents;
    size_t dim = (size_t)model->state_dim;
    uint8_t *votes = malloc(n);
    uint8_t *next = malloc(n);
    uint8_t *got = malloc(n);
    float *x = malloc(n * dim * sizeof *x);
    float *got_x = malloc(n * dim * sizeof *x);
    qr_tally before;
    qr_tally after;
    assert_int_equal(qr_backend_ops_cpu.count(backend, &before), QR_OK);
    assert_int_equal(qr_backend_ops_cpu.read_votes(backend, 0, spec.n_agents, votes), QR_OK);
    assert_int_equal(qr_backend_ops_cpu.read_state(backend, 0, spec.n_agents, x), QR_OK);
    for (int64_t step = 0; step < 2; step++) {
        float base[64];
        float shares[QR_MAX_OPTIONS];
        for (uint32_t k = 0; k < model->rule.n_options; k++) {
            shares[k] = (float)before.votes[k] / (float)spec.n_agents;
        }
        qr_neural_global(&model->neural, shares, base);
        uint64_t leader[QR_MAX_OPTIONS] = {0};
        for (int64_t i = 0; i < spec.n_agents; i++) {
            uint32_t score = 0;
            step_plainly(model, network, base, step, &before, votes, i, x + (size_t)i * dim, &next[i], &score);
            uint64_t packed = qr_leader_pack(score, i);
            leader[next[i]] = packed > leader[next[i]] ? packed : leader[next[i]];
        }
        memcpy(votes, next, n);
        halo_to_oneself(backend, network);
        assert_int_equal(qr_backend_ops_cpu.update(backend, step, 0, &before, &after), QR_OK);
        assert_int_equal(qr_backend_ops_cpu.read_votes(backend, 0, spec.n_agents, got), QR_OK);
        assert_int_equal(qr_backend_ops_cpu.read_state(backend, 0, spec.n_agents, got_x), QR_OK);
        if (memcmp(got, votes, n) != 0 || memcmp(got_x, x, n * dim * sizeof *x) != 0 ||
            memcmp(after.leader, leader, model->rule.n_options * sizeof leader[0]) != 0) {
            fail_msg("%s\nstep %lld differs", text, (long long)step);
        }
        before = after;
    }
    free(votes);
    free(next);
    free(got);
    free(x);
    free(got_x);
    qr_backend_ops_cpu.destroy(backend);
    qr_network_destroy(network);
    qr_model_destroy(model);
    qr_deck_destroy(deck);
}

static void backend_steps_by_the_rule(void **state)
{
    (void)state;
    random_state = 7;
    for (int i = 0; i < NETWORK_CASES; i++) {
        network_case();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernels_equal_the_rule),
                                       cmocka_unit_test(backend_steps_by_the_rule)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
