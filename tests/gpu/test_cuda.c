/* The CUDA backend against the CPU's, bit for bit: random models on random networks, in one part and in several that
 * share the device, step by step and many steps at once. */
#include "cases.h"
#include "crowd.h"
#include "run/backends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_KINDS = QR_NETWORK_EDGE_LIST + 1, STEPS = 4, BATCH = 37, SKIPPED = 77 };

static const qr_backend_ops *cuda;
enum { ALL_CASES = 1080 };
static int cases = ALL_CASES; /* QUORATE_GPU_CASES: fewer, for slow tools that watch memory */

/* As many of the larger cases as of the drawn ones. */
static bool passed_over(int number)
{
    return (uint32_t)number * UINT32_C(2654435761) / (UINT32_MAX / ALL_CASES) >= (uint32_t)cases; /* evenly spread */
}

static crowd *open_case(const drawn_case *drawn, const qr_backend_ops *ops, int parts)
{
    crowd_setup setup = {.deck_text = drawn->text,
                         .parts = parts,
                         .ops = ops,
                         .overlap_agents = 1,
                         .arcs = drawn->arcs,
                         .n_arcs = drawn->n_arcs,
                         .n_agents = drawn->n_agents};
    crowd *c = NULL;
    if (crowd_open(&setup, &c) != QR_OK) {
        fail_msg("%s%s", drawn->text, qr_error_message());
    }
    return c;
}

static void draw(int number, uint64_t *random, drawn_case *drawn)
{
    case_draw(random, (qr_rule_kind)(number % QR_N_RULES), (qr_network_kind)(number / QR_N_RULES % N_KINDS), drawn);
}

/* Fails with the first agent that differs. */
static void check_votes(const char *text, const char *what, const crowd *expected, const crowd *got)
{
    size_t n = (size_t)expected->spec.n_agents;
    uint8_t *a = malloc(n);
    uint8_t *b = malloc(n);
    assert_non_null(a);
    assert_non_null(b);
    crowd_votes(expected, a);
    crowd_votes(got, b);
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            fail_msg("%s%s: step %lld, agent %zu votes %d instead of %d", text, what, (long long)got->step, i, b[i],
                     a[i]);
        }
    }
    free(a);
    free(b);
}

static void check_equal(const char *text, const char *what, const crowd *expected, const crowd *got)
{
    check_votes(text, what, expected, got);
    if (crowd_hash(expected) != crowd_hash(got)) {
        fail_msg("%s%s: step %lld, other states", text, what, (long long)got->step);
    }
    for (uint32_t k = 0; k < expected->model->rule.n_options; k++) {
        if (expected->tally.votes[k] != got->tally.votes[k] || expected->tally.leader[k] != got->tally.leader[k]) {
            fail_msg("%s%s: step %lld, option %u: %lld votes and leader %llx instead of %lld and %llx", text, what,
                     (long long)got->step, k, (long long)got->tally.votes[k], (unsigned long long)got->tally.leader[k],
                     (long long)expected->tally.votes[k], (unsigned long long)expected->tally.leader[k]);
        }
    }
}

static void every_step_equals_the_cpu(void **state)
{
    (void)state;
    uint64_t random = 11;
    for (int number = 0; number < cases; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        int parts = 1 + number % 3;
        char what[32];
        (void)snprintf(what, sizeof what, "in %d parts", parts);
        crowd *cpu = open_case(&drawn, NULL, 1);
        crowd *gpu = open_case(&drawn, cuda, parts);
        gpu->begins = number / (QR_N_RULES * N_KINDS) % 2 == 1;
        for (int step = 0; step <= STEPS; step++) {
            check_equal(drawn.text, what, cpu, gpu);
            crowd_step(cpu, 1);
            crowd_step(gpu, 1);
        }
        crowd_free(cpu);
        crowd_free(gpu);
        case_clear(&drawn);
    }
}

/* A batch on the device, its rows checked one by one against CPU steps. */
static void check_batch(const char *text, crowd *cpu, crowd *gpu, int64_t count, bool stop)
{
    uint32_t n_options = cpu->model->rule.n_options;
    qr_steps steps = {.first = gpu->step + 1,
                      .count = count,
                      .stop_at_decision = stop,
                      .consensus = &gpu->consensus,
                      .votes = gpu->tally.votes};
    if (cuda->run(gpu->backend[0], &steps) != QR_OK) {
        fail_msg("%s%s", text, qr_error_message());
    }
    for (int64_t r = 0; r < steps.done; r++) {
        if (stop && cpu->consensus.decision.decided) {
            fail_msg("%s%lld steps were taken, but the decision was at %lld", text, (long long)steps.done,
                     (long long)cpu->consensus.decision.step);
        }
        crowd_step(cpu, 1);
        int64_t winner = qr_tally_winner(&cpu->tally, n_options);
        if (memcmp(steps.row_votes + r * n_options, cpu->tally.votes, n_options * sizeof(int64_t)) != 0 ||
            steps.row_leaders[r] != cpu->tally.leader[winner]) {
            fail_msg("%srow of step %lld differs (leader %llx, CPU %llx)", text, (long long)cpu->step,
                     (unsigned long long)steps.row_leaders[r], (unsigned long long)cpu->tally.leader[winner]);
        }
    }
    if (steps.done < count && !(stop && cpu->consensus.decision.decided)) {
        fail_msg("%sonly %lld of %lld steps were taken", text, (long long)steps.done, (long long)count);
    }
    gpu->step = cpu->step;
    gpu->tally = cpu->tally;
    gpu->consensus = cpu->consensus;
    check_votes(text, "after a batch", cpu, gpu);
    assert_true(crowd_hash(cpu) == crowd_hash(gpu));
}

static void batches_equal_the_cpu(void **state)
{
    (void)state;
    uint64_t random = 12;
    int decided = 0;
    for (int number = 0; number < cases / 2; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *cpu = open_case(&drawn, NULL, 1);
        crowd *gpu = open_case(&drawn, cuda, 1);
        bool stop = number % 2 == 0;
        check_batch(drawn.text, cpu, gpu, 1, stop);
        check_batch(drawn.text, cpu, gpu, BATCH, stop); /* none where the first batch ended with the decision */
        decided += cpu->consensus.decision.decided ? 1 : 0;
        crowd_free(cpu);
        crowd_free(gpu);
        case_clear(&drawn);
    }
    assert_true(decided > 0 || cases < ALL_CASES); /* some of these small crowds agree */
}

/* One batch after the other, as fast as a host can ask for them: small crowds take these within one launch. Their rows
 * are checked when all are there. */
static void quick_batches_equal_the_cpu(void **state)
{
    (void)state;
    enum { N_BATCHES = 24, MOST_STEPS = 3 * N_BATCHES };
    static int64_t votes[MOST_STEPS][QR_RULE_MAX_OPTIONS];
    static uint64_t leaders[MOST_STEPS];
    uint64_t random = 13;
    for (int number = 0; number < cases / 4; number++) {
        drawn_case drawn;
        draw(number, &random, &drawn);
        crowd *cpu = open_case(&drawn, NULL, 1);
        crowd *gpu = open_case(&drawn, cuda, 1);
        const uint32_t n_options = cpu->model->rule.n_options;
        int64_t taken = 0;
        for (int batch = 0; batch < N_BATCHES; batch++) {
            qr_steps steps = {.first = gpu->step + 1,
                              .count = 1 + batch % 3,
                              .stop_at_decision = batch % 2 == 0,
                              .consensus = &gpu->consensus,
                              .votes = gpu->tally.votes};
            if (cuda->run(gpu->backend[0], &steps) != QR_OK) {
                fail_msg("%s%s", drawn.text, qr_error_message());
            }
            for (int64_t r = 0; r < steps.done; r++, taken++) {
                memcpy(votes[taken], steps.row_votes + r * n_options, n_options * sizeof(int64_t));
                leaders[taken] = steps.row_leaders[r];
                memcpy(gpu->tally.votes, votes[taken], n_options * sizeof(int64_t));
                gpu->tally.leader[qr_tally_winner(&gpu->tally, n_options)] = leaders[taken];
                (void)qr_consensus_update(&gpu->consensus, ++gpu->step, &gpu->tally);
            }
        }
        for (int64_t r = 0; r < taken; r++) {
            crowd_step(cpu, 1);
            if (memcmp(votes[r], cpu->tally.votes, n_options * sizeof(int64_t)) != 0 ||
                leaders[r] != cpu->tally.leader[qr_tally_winner(&cpu->tally, n_options)]) {
                fail_msg("%srow of step %lld differs (leader %llx)", drawn.text, (long long)cpu->step,
                         (unsigned long long)leaders[r]);
            }
        }
        assert_true(memcmp(&cpu->consensus, &gpu->consensus, sizeof cpu->consensus) == 0);
        check_votes(drawn.text, "after quick batches", cpu, gpu);
        crowd_free(cpu);
        crowd_free(gpu);
        case_clear(&drawn);
    }
}

/* Enough agents for many blocks, chunks and words. */
static void large_crowds_equal_the_cpu(void **state)
{
    (void)state;
    static const char *const models[] = {"rule: voter",
                                         "rule: voter, noise: 0.01",
                                         "rule: majority",
                                         "rule: majority, samples: 3",
                                         "rule: q_voter, q: 3, epsilon: 0.1",
                                         "rule: potts, temperature: 1.1",
                                         "rule: best_of_n, qualities: QUALITIES",
                                         "rule: neural, state_dim: 64, hidden: 64, temperature: 0.7",
                                         "rule: neural, state_dim: 10, hidden: 33, temperature: 0"};
    static const char *const kinds[] = {"lattice2d, size: [1024, 128]",
                                        "lattice2d, size: [501, 401]",
                                        "lattice2d, size: [512, 300], neighbours: moore",
                                        "lattice3d, size: [101, 51, 40], neighbours: moore",
                                        "lattice3d, size: [128, 30, 40]",
                                        "lattice2d, size: [300, 300], periodic: false",
                                        "ring, degree: 6",
                                        "ring, degree: 8",
                                        "complete",
                                        "random_regular, degree: 8",
                                        "scale_free, attach: 3"};
    static const struct {
        int n;
        const char *qualities;
    } options[] = {{2, "[1, 1.2]"}, {3, "[1, 1.1, 1.2]"}, {5, "[1, 1, 1, 1.1, 1.2]"}, {16, NULL}, {100, NULL}};
    int number = 0;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            for (size_t o = 0; o < sizeof options / sizeof options[0]; o++, number++) {
                bool listed = strstr(models[m], "QUALITIES") != NULL;
                bool potts = strstr(models[m], "potts") != NULL;
                if (passed_over(number) || (listed && options[o].qualities == NULL) ||
                    (potts && strcmp(kinds[k], "complete") == 0)) {
                    continue;
                }
                char text[1024];
                (void)snprintf(
                    text, sizeof text,
                    "output: {directory: none}\nagents: {options: %d%s}\nmodel: {%.*s%s}\nnetwork: {kind: %s}\n",
                    options[o].n, k >= 6 ? ", count: 150001" : "",
                    (int)(listed ? strstr(models[m], "QUALITIES") - models[m] : (long)strlen(models[m])), models[m],
                    listed ? options[o].qualities : "", kinds[k]);
                crowd_setup setup = {.deck_text = text, .threads = 4};
                crowd *cpu = NULL;
                crowd *gpu = NULL;
                if (crowd_open(&setup, &cpu) != QR_OK) {
                    fail_msg("%s%s", text, qr_error_message());
                }
                setup.ops = cuda;
                if (crowd_open(&setup, &gpu) != QR_OK) {
                    fail_msg("%s%s", text, qr_error_message());
                }
                check_batch(text, cpu, gpu, 2, false);
                crowd_free(cpu);
                crowd_free(gpu);
            }
        }
    }
}

static const char *const wide_models[] = {"rule: voter",
                                          "rule: voter, noise: 0.01}\nrun: {activation: 0.7",
                                          "rule: majority",
                                          "rule: q_voter, q: 3, epsilon: 0.1",
                                          "rule: majority, zealots: [40",
                                          "rule: neural, state_dim: 16, hidden: 16, temperature: 0.7"};
static const char *const wide_lattices[] = {"lattice2d, size: [8192, 20]",
                                            "lattice2d, size: [2176, 61], neighbours: moore",
                                            "lattice2d, size: [1088, 100]",
                                            "lattice2d, size: [501, 401], neighbours: moore",
                                            "lattice2d, size: [300, 300], periodic: false",
                                            "lattice3d, size: [101, 51, 40], neighbours: moore",
                                            "lattice3d, size: [128, 30, 40]",
                                            "ring, degree: 6",
                                            "ring, degree: 8"};
enum {
    N_WIDE_MODELS = sizeof wide_models / sizeof wide_models[0],
    N_WIDE_LATTICES = sizeof wide_lattices / sizeof wide_lattices[0]
};

/* A lattice and the CPU's crowd on it; *setup is for another one. */
static crowd *open_wide(int model, int lattice, int options, char text[1024], crowd_setup *setup)
{
    crowd *cpu = NULL;
    char zealots[256] = ""; /* of the options behind the first */
    for (int k = 1; k <= options && strstr(wide_models[model], "zealots") != NULL; k++) {
        size_t used = strlen(zealots);
        (void)snprintf(zealots + used, sizeof zealots - used, k < options ? ", 7" : "]");
    }
    (void)snprintf(text, 1024,
                   "output: {directory: none}\nagents: {options: %d%s}\nmodel: {%s%s}\nnetwork: {kind: %s}\n", options,
                   strncmp(wide_lattices[lattice], "ring", 4) == 0 ? ", count: 150001" : "", wide_models[model],
                   zealots, wide_lattices[lattice]);
    *setup = (crowd_setup){.deck_text = text, .threads = 4};
    if (crowd_open(setup, &cpu) != QR_OK) {
        fail_msg("%s%s", text, qr_error_message());
    }
    setup->ops = cuda;
    return cpu;
}

/* The interior is updated while the halo is wrong. */
static void updates_beside_the_halo_equal_the_cpu(void **state)
{
    (void)state;
    static const int options[] = {2, 5, 40};
    int number = 0;
    for (int model = 0; model < N_WIDE_MODELS; model++) {
        for (int lattice = 0; lattice < N_WIDE_LATTICES; lattice++) {
            for (int o = 0; o < 3; o++, number++) {
                if (passed_over(number)) {
                    continue;
                }
                char text[1024];
                crowd_setup setup;
                crowd *cpu = open_wide(model, lattice, options[o], text, &setup);
                crowd *gpu = NULL;
                setup.parts = 1 + number % 3;
                setup.overlap_agents = 20000;
                if (crowd_open(&setup, &gpu) != QR_OK) {
                    fail_msg("%s%s", text, qr_error_message());
                }
                gpu->begins = true;
                for (int p = 0; p < gpu->n_parts; p++) {
                    assert_true(qr_lattice_interior(gpu->network[p]).count >= setup.overlap_agents);
                }
                for (int step = 0; step < 3; step++) {
                    crowd_step(cpu, 1);
                    crowd_step(gpu, 1);
                    check_equal(text, "beside the halo", cpu, gpu);
                }
                crowd_free(cpu);
                crowd_free(gpu);
            }
        }
    }
}

/* A part that is joined to itself: its halo travels by NCCL, in the graph, and the interior is updated meanwhile. */
static void graphs_beside_the_halo_equal_the_cpu(void **state)
{
    (void)state;
    static const int options[] = {2, 5, 40};
    if (cuda->make_join_id == NULL) {
        skip();
    }
    for (int number = 0; number < N_WIDE_MODELS * N_WIDE_LATTICES; number += 2) {
        if (passed_over(number / 2)) {
            continue;
        }
        char text[1024];
        unsigned char id[QR_JOIN_BYTES];
        crowd_setup setup;
        crowd *cpu = open_wide(number % N_WIDE_MODELS, number / N_WIDE_MODELS, options[number % 3], text, &setup);
        crowd *gpu = NULL;
        setup.overlap_agents = number % 4 == 0 ? 1 : 20000;
        setup.device_times = true;
        if (crowd_open(&setup, &gpu) != QR_OK || cuda->make_join_id(id) != QR_OK ||
            cuda->join(gpu->backend[0], 1, 0, id) != QR_OK) {
            fail_msg("%s%s", text, qr_error_message());
        }
        assert_true(qr_lattice_interior(gpu->network[0]).count >= setup.overlap_agents);
        check_batch(text, cpu, gpu, 3, false);
        check_batch(text, cpu, gpu, BATCH, false);
        qr_counters took = {0};
        cuda->counters(gpu->backend[0], &took);
        assert_true(took.halo_s >= 0.0 && took.update_s > 0.0 && took.reduce_s > 0.0);
        assert_true(took.halo_s + took.update_s + took.reduce_s < 3.0 * took.kernel_s);
        crowd_free(cpu);
        crowd_free(gpu);
    }
}

/* A crowd where everybody of a large circle sees everybody else, and others see one of them: hundreds of colours, many
 * of a single agent. Options: a launch for many steps, and a graph of launches. */
static void many_colours_equal_the_cpu(void **state)
{
    (void)state;
    enum { CIRCLE = 300, AGENTS = 5000 };
    static const char *const dynamics[] = {"heat_bath", "metropolis"};
    int64_t n_arcs = 0;
    qr_edge *arcs = malloc(((size_t)CIRCLE * CIRCLE + 2 * (size_t)AGENTS) * sizeof *arcs);
    assert_non_null(arcs);
    for (int64_t a = 0; a < CIRCLE; a++) {
        for (int64_t b = 0; b < CIRCLE; b++) {
            if (a != b) {
                arcs[n_arcs++] = (qr_edge){16 * a, 16 * b};
            }
        }
    }
    for (int64_t a = 0; a < AGENTS; a++) {
        int64_t hub = a * 7919 % CIRCLE * 16;
        if (a != hub && a % 5 != 0) {
            arcs[n_arcs++] = (qr_edge){a, hub};
            arcs[n_arcs++] = (qr_edge){hub, a};
        }
    }
    for (int number = 0; number < 8; number++) {
        char text[512];
        (void)snprintf(text, sizeof text,
                       "output: {directory: none}\nagents: {options: %d}\nnetwork: {kind: edge_list, file: none.txt}\n"
                       "model: {rule: potts, temperature: 3, dynamics: %s}\n",
                       number % 4 < 2 ? 3 : 40, dynamics[number % 2]);
        crowd_setup setup = {.deck_text = text, .arcs = arcs, .n_arcs = n_arcs, .n_agents = AGENTS};
        crowd *cpu = NULL;
        crowd *gpu = NULL;
        assert_int_equal(crowd_open(&setup, &cpu), QR_OK);
        assert_true(qr_network_colours(cpu->network[0]) >= CIRCLE);
        setup.ops = cuda;
        setup.parts = number < 4 ? 1 : 3;
        if (crowd_open(&setup, &gpu) != QR_OK) {
            fail_msg("%s%s", text, qr_error_message());
        }
        if (setup.parts == 1) {
            check_batch(text, cpu, gpu, BATCH, false);
        } else {
            crowd_step(cpu, STEPS);
            crowd_step(gpu, STEPS);
            check_equal(text, "in 3 parts", cpu, gpu);
        }
        crowd_free(cpu);
        crowd_free(gpu);
    }
    free(arcs);
}

/* Pieces of votes and states to where a caller wants them: one behind the other, apart, and votes between states. */
static void pieces_are_copied_out(void **state)
{
    (void)state;
    enum { AGENTS = 30001, PIECE = 1024, MOST = 2 * (AGENTS / PIECE + 1), APART = 3 };
    crowd_setup setup = {.deck_text = "output: {directory: none}\nagents: {options: 5, count: 30001}\n"
                                      "network: {kind: complete}\nmodel: {rule: neural, state_dim: 6, hidden: 9}\n",
                         .ops = cuda};
    crowd *c = NULL;
    assert_int_equal(crowd_open(&setup, &c), QR_OK);
    const size_t dim = (size_t)c->model->state_dim;
    uint8_t *votes = malloc(AGENTS);
    float *states = malloc(AGENTS * dim * sizeof *states);
    unsigned char *got = malloc(2 * (AGENTS * dim * sizeof *states + AGENTS) + MOST * APART);
    assert_true(votes != NULL && states != NULL && got != NULL);
    crowd_step(c, 2);
    crowd_votes(c, votes);
    crowd_state(c, states);
    for (int way = 0; way < 4; way++) {
        qr_piece pieces[MOST];
        int64_t n = 0;
        unsigned char *at = got;
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t first = 0; first < AGENTS; first += PIECE) {
                const int64_t count = AGENTS - first < PIECE ? AGENTS - first : PIECE;
                const bool is_state = (way == 3 ? first / PIECE + pass : pass) % 2 == 1;
                at += is_state ? (size_t)(-(intptr_t)at & 3) : 0;
                pieces[n++] = (qr_piece){.first = first, .count = count, .out = at, .states = is_state};
                at += (size_t)count * (is_state ? dim * sizeof *states : 1) + (way == 1 && first % 3 == 0 ? APART : 0);
            }
        }
        for (int64_t i = 0; way == 2 && i + 1 < n; i += 2) { /* not in ascending order */
            const qr_piece other = pieces[i];
            pieces[i] = pieces[i + 1];
            pieces[i + 1] = other;
        }
        memset(got, 0xaa, (size_t)(at - got));
        assert_int_equal(cuda->copy_out(c->backend[0], pieces, n), QR_OK);
        for (int64_t i = 0; i < n; i++) {
            const size_t first = (size_t)pieces[i].first;
            const size_t count = (size_t)pieces[i].count;
            if (pieces[i].states) {
                assert_memory_equal(pieces[i].out, states + first * dim, count * dim * sizeof *states);
            } else {
                assert_memory_equal(pieces[i].out, votes + first, count);
            }
        }
    }
    free(votes);
    free(states);
    free(got);
    crowd_free(c);
}

int main(void)
{
    char why[512] = "";
    cuda = qr_backend_load_cuda(why, sizeof why);
    if (cuda == NULL) {
        (void)printf("skipped, there is no CUDA device to test: %s\n", why);
        return SKIPPED;
    }
    const char *wanted = getenv("QUORATE_GPU_CASES");
    cases = wanted != NULL ? (int)strtol(wanted, NULL, 10) : cases;
    cmocka_set_test_filter(getenv("QUORATE_GPU_TESTS"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_step_equals_the_cpu),
                                       cmocka_unit_test(batches_equal_the_cpu),
                                       cmocka_unit_test(quick_batches_equal_the_cpu),
                                       cmocka_unit_test(large_crowds_equal_the_cpu),
                                       cmocka_unit_test(updates_beside_the_halo_equal_the_cpu),
                                       cmocka_unit_test(graphs_beside_the_halo_equal_the_cpu),
                                       cmocka_unit_test(many_colours_equal_the_cpu),
                                       cmocka_unit_test(pieces_are_copied_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
