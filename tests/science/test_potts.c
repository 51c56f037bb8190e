/* Ising and Potts models on the square lattice: magnetisation and energy below the transition, order just below it,
 * disorder just above it. Onsager 1944; Yang 1952; Wu 1982. On a small network, all states one by one. Temperatures are
 * those of energy -sum delta(s_i, s_j): for K = 2 half of the +-1 convention's. */
#include "crowd.h"
#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static double critical_temperature(int options)
{
    return 1.0 / log(1.0 + sqrt((double)options));
}

/* Yang: (1 - sinh(2 / T)^-4)^(1/8) for spins +-1 at temperature T. */
static double ising_magnetisation(double potts_temperature)
{
    double t = 2.0 * potts_temperature;
    return pow(1.0 - pow(sinh(2.0 / t), -4.0), 0.125);
}

/* Complete elliptic integral of the first kind, by the arithmetic-geometric mean. */
static double elliptic(double modulus)
{
    double a = 1.0;
    double b = sqrt(1.0 - modulus * modulus);
    for (int i = 0; i < 40; i++) {
        double mean = (a + b) / 2.0;
        b = sqrt(a * b);
        a = mean;
    }
    return acos(-1.0) / (2.0 * a);
}

/* Onsager: share of neighbour pairs that agree, (1 + <s s'>) / 2 with two pairs an agent. */
static double ising_agreement(double potts_temperature)
{
    double coupling = 1.0 / (2.0 * potts_temperature);
    double th = tanh(2.0 * coupling);
    double modulus = 2.0 * sinh(2.0 * coupling) / pow(cosh(2.0 * coupling), 2.0);
    double energy = -(1.0 + 2.0 / acos(-1.0) * (2.0 * th * th - 1.0) * elliptic(modulus)) / th;
    return (1.0 - energy / 2.0) / 2.0;
}

/* 1 where all agents hold option 0, 0 where options are equally frequent. */
static double order(const crowd *c)
{
    double k = (double)c->deck->agents.options;
    return (k * crowd_share(c, 0) - 1.0) / (k - 1.0);
}

static double agreement(const crowd *c, uint8_t *votes)
{
    int64_t width = c->spec.size[0];
    int64_t height = c->spec.size[1];
    int64_t agree = 0;
    crowd_votes(c, votes);
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            uint8_t own = votes[y * width + x];
            agree += own == votes[y * width + (x + 1) % width] ? 1 : 0;
            agree += own == votes[(y + 1) % height * width + x] ? 1 : 0;
        }
    }
    return (double)agree / (double)(2 * c->spec.n_agents);
}

static crowd *ordered(int seed, int size, int options, double temperature, const char *dynamics)
{
    return crowd_make("run: {seed: %d}\noutput: {directory: none}\nnetwork: {kind: lattice2d, size: [%d, %d]}\n"
                      "agents: {options: %d, initial: shares, shares: [1%s]}\n"
                      "model: {rule: potts, temperature: %.17g, dynamics: %s}\n",
                      seed, size, size, options, options == 2 ? ", 0" : ", 0, 0", temperature, dynamics);
}

/* Settles, then measures `blocks` blocks of `length` sweeps. energy may be NULL. */
static block_mean measure(crowd *c, int settle, int length, int blocks, block_mean *energy)
{
    block_mean m = {.length = length};
    uint8_t *votes = malloc((size_t)c->spec.n_agents);
    assert_non_null(votes);
    crowd_step(c, settle);
    for (int sweep = 0; sweep < length * blocks; sweep++) {
        crowd_step(c, 1);
        block_add(&m, order(c));
        if (energy != NULL && sweep % 10 == 0) {
            block_add(energy, agreement(c, votes));
        }
    }
    free(votes);
    return m;
}

static void ising_has_onsagers_order_and_energy(void **state)
{
    (void)state;
    static const char *const dynamics[] = {"heat_bath", "metropolis"};
    static const double temperatures[] = {1.0, 0.75};
    assert_true(fabs(ising_magnetisation(1.0) - 0.911319) < 1e-6);
    assert_true(fabs(ising_magnetisation(0.75) - 0.986500) < 2e-6);
    for (int d = 0; d < 2; d++) {
        for (int i = 0; i < 2; i++) {
            double t = temperatures[i];
            crowd *c = ordered(90 + 2 * d + i, 128, 2, t, dynamics[d]);
            block_mean energy = {.length = 10};
            block_mean m = measure(c, 500, 100, 40, &energy);
            check_within(m.blocks.mean, ising_magnetisation(t), sample_error(&m.blocks), "%s, T = %g: magnetisation",
                         dynamics[d], t);
            check_within(energy.blocks.mean, ising_agreement(t), sample_error(&energy.blocks),
                         "%s, T = %g: agreeing pairs", dynamics[d], t);
            crowd_free(c);
        }
    }
}

/* 3 % below T_c order stays, and for K = 2 has Yang's value. */
static void order_stays_just_below_the_transition(void **state)
{
    (void)state;
    assert_true(fabs(critical_temperature(2) - 1.134593) < 1e-6 && fabs(critical_temperature(3) - 0.994973) < 1e-6);
    for (int options = 2; options <= 3; options++) {
        double t = 0.97 * critical_temperature(options);
        crowd *c = ordered(110 + options, 128, options, t, "heat_bath");
        block_mean m = measure(c, 600, 200, 10, NULL);
        print_message("K = %d, 3 %% below: order %.4f +- %.4f\n", options, m.blocks.mean, sample_error(&m.blocks));
        assert_true(m.blocks.mean > 0.6);
        if (options == 2) {
            check_within(m.blocks.mean, ising_magnetisation(t), sample_error(&m.blocks), "T = %.4f: magnetisation", t);
        }
        crowd_free(c);
    }
}

/* 3 % above T_c order is lost: nothing is left of it but noise around 0. */
static void order_decays_just_above_the_transition(void **state)
{
    (void)state;
    for (int options = 2; options <= 3; options++) {
        crowd *c = ordered(120 + options, 96, options, 1.03 * critical_temperature(options), "heat_bath");
        assert_true(order(c) == 1.0);
        block_mean m = measure(c, 1500, 500, 12, NULL);
        check_within(m.blocks.mean, 0.0, sample_error(&m.blocks), "K = %d, 3 %% above: order", options);
        assert_true(fabs(m.blocks.mean) < 0.2);
        crowd_free(c);
    }
}

/* A small network without any order: two triangles, a hub, a tail, and agent 9 on its own. */
enum { SPINS = 10, PAIRS = 13, SEEN = 3 };

static const int pairs[PAIRS][2] = {{0, 1}, {1, 2}, {2, 0}, {3, 4}, {4, 5}, {5, 3}, {6, 0},
                                    {6, 1}, {6, 3}, {6, 4}, {6, 7}, {7, 8}, {2, 5}};

/* What is measured: agreeing pairs, their square, whether the tail's end votes like agent 2. */
static void observe(const uint8_t *votes, double *seen)
{
    double agree = 0.0;
    for (int i = 0; i < PAIRS; i++) {
        agree += votes[pairs[i][0]] == votes[pairs[i][1]] ? 1.0 : 0.0;
    }
    seen[0] = agree;
    seen[1] = agree * agree;
    seen[2] = votes[8] == votes[2] ? 1.0 : 0.0;
}

/* Boltzmann's distribution, state by state. */
static void enumerate(int options, double temperature, double *expected)
{
    int64_t states = 1;
    double sum = 0.0;
    for (int i = 0; i < SPINS; i++) {
        states *= options;
    }
    for (int s = 0; s < SEEN; s++) {
        expected[s] = 0.0;
    }
    for (int64_t state = 0; state < states; state++) {
        uint8_t votes[SPINS];
        int64_t rest = state;
        for (int i = 0; i < SPINS; i++) {
            votes[i] = (uint8_t)(rest % options);
            rest /= options;
        }
        double seen[SEEN];
        observe(votes, seen);
        double weight = exp(seen[0] / temperature);
        sum += weight;
        for (int s = 0; s < SEEN; s++) {
            expected[s] += weight * seen[s];
        }
    }
    for (int s = 0; s < SEEN; s++) {
        expected[s] /= sum;
    }
}

static crowd *open_small(int seed, int options, double temperature, const char *dynamics)
{
    qr_edge arcs[2 * PAIRS];
    char text[512];
    for (int i = 0; i < PAIRS; i++) {
        arcs[2 * i] = (qr_edge){pairs[i][0], pairs[i][1]};
        arcs[2 * i + 1] = (qr_edge){pairs[i][1], pairs[i][0]};
    }
    (void)snprintf(text, sizeof text,
                   "run: {seed: %d}\noutput: {directory: none}\nnetwork: {kind: edge_list, file: none.txt}\n"
                   "agents: {options: %d}\nmodel: {rule: potts, temperature: %.17g, dynamics: %s}\n",
                   seed, options, temperature, dynamics);
    crowd_setup setup = {.deck_text = text, .arcs = arcs, .n_arcs = 2 * (int64_t)PAIRS, .n_agents = SPINS};
    crowd *c = NULL;
    if (crowd_open(&setup, &c) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    return c;
}

static void small_networks_have_boltzmanns_distribution(void **state)
{
    (void)state;
    static const char *const dynamics[] = {"heat_bath", "metropolis"};
    static const char *const what[SEEN] = {"agreeing pairs", "their square", "far agents that agree"};
    for (int options = 2; options <= 3; options++) {
        for (int d = 0; d < 2; d++) {
            double t = options == 2 ? 1.3 : 0.9;
            double expected[SEEN];
            enumerate(options, t, expected);
            crowd *c = open_small(130 + 2 * options + d, options, t, dynamics[d]);
            block_mean measured[SEEN];
            sample_mean alone = {0};
            for (int s = 0; s < SEEN; s++) {
                measured[s] = (block_mean){.length = 500};
            }
            crowd_step(c, 100);
            for (int sweep = 0; sweep < 500 * 400; sweep++) {
                uint8_t votes[SPINS];
                double seen[SEEN];
                crowd_step(c, 1);
                crowd_votes(c, votes);
                observe(votes, seen);
                for (int s = 0; s < SEEN; s++) {
                    block_add(&measured[s], seen[s]);
                }
                sample_add(&alone, votes[9] == 0 ? 1.0 : 0.0);
            }
            for (int s = 0; s < SEEN; s++) {
                check_within(measured[s].blocks.mean, expected[s], sample_error(&measured[s].blocks), "K = %d, %s: %s",
                             options, dynamics[d], what[s]);
            }
            check_within(alone.mean, 1.0 / options, sample_error(&alone), "K = %d, %s: an agent without neighbours",
                         options, dynamics[d]);
            crowd_free(c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ising_has_onsagers_order_and_energy),
                                       cmocka_unit_test(order_stays_just_below_the_transition),
                                       cmocka_unit_test(order_decays_just_above_the_transition),
                                       cmocka_unit_test(small_networks_have_boltzmanns_distribution)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
