/* Colours for sweeps over networks of lists: no two neighbours share one, each agent has the smallest that those before
 * it left, and the number of parts changes nothing. */
#include "network/random.h"
#include "network_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1000, MOST_PARTS = 8 };

/* A whole network: one part, and the colour of each agent. */
typedef struct painting {
    qr_network *network;
    int n_colours;
    int *colour; /* [n_agents] */
} painting;

/* Colours in n_parts parts; keeps the network when there is one. */
static painting paint(const qr_network_spec *spec, int n_parts, const qr_edge *arcs, int64_t n_arcs)
{
    qr_network *networks[MAX_PARTS];
    painting made = {.colour = malloc((size_t)spec->n_agents * sizeof *made.colour)};
    assert_non_null(made.colour);
    assert_int_equal(parts_build(spec, n_parts, arcs, n_arcs, networks), 0);
    assert_int_equal(qr_network_colours(networks[0]), 0);
    assert_int_equal(parts_colour(n_parts, QR_MAX_COLOURS, networks), 0);
    made.n_colours = qr_network_colours(networks[0]);
    for (int p = 0; p < n_parts; p++) {
        assert_int_equal(qr_network_colours(networks[p]), made.n_colours);
        for (int64_t i = 0; i < networks[p]->own.count; i++) {
            made.colour[networks[p]->own.first + i] = networks[p]->colour[i];
        }
    }
    if (n_parts == 1) {
        made.network = networks[0];
    } else {
        parts_destroy(networks, n_parts);
    }
    return made;
}

static void clear(painting *made)
{
    qr_network_destroy(made->network);
    free(made->colour);
}

static bool is_before(const qr_network_spec *spec, int64_t a, int64_t b)
{
    const uint64_t hash_a = qr_graph_draw(spec->seed, QR_STREAM_COLOUR, a, 0) / 2;
    const uint64_t hash_b = qr_graph_draw(spec->seed, QR_STREAM_COLOUR, b, 0) / 2;
    return hash_a != hash_b ? hash_a < hash_b : a < b;
}

/* Proper, and the smallest that agents before it have left; colours 0 .. n_colours - 1 all occur. */
static void check_painting(const painting *made)
{
    const qr_network *network = made->network;
    const int64_t n = network->spec.n_agents;
    bool *left = malloc(((size_t)n + 1) * sizeof *left);
    assert_non_null(left);
    int most = -1;
    for (int64_t agent = 0; agent < n; agent++) {
        memset(left, 1, ((size_t)n + 1) * sizeof *left);
        for (int64_t j = network->rows.row[agent]; j < network->rows.row[agent + 1]; j++) {
            const int64_t other = network->rows.neighbour[j];
            assert_int_not_equal(made->colour[agent], made->colour[other]);
            if (is_before(&network->spec, other, agent)) {
                left[made->colour[other]] = false;
            }
        }
        int smallest = 0;
        while (!left[smallest]) {
            smallest++;
        }
        assert_int_equal(made->colour[agent], smallest);
        most = smallest > most ? smallest : most;
    }
    assert_int_equal(made->n_colours, most + 1);
    assert_true(made->n_colours <= network->max_degree + 1);
    free(left);
}

/* Random pairs: few or many, anywhere or all at a few hubs. */
static int64_t draw_pairs(uint64_t *random, int64_t n, qr_edge **arcs)
{
    const int64_t pairs = case_between(random, 0, 6 * n);
    const int64_t hubs = case_between(random, 0, 1) == 0 ? n : case_between(random, 1, n);
    qr_edge *drawn = malloc((size_t)(2 * pairs + 1) * sizeof *drawn);
    assert_non_null(drawn);
    for (int64_t i = 0; i < pairs; i++) {
        const qr_edge pair = {case_between(random, 0, hubs - 1), case_between(random, 0, n - 1)};
        drawn[2 * i] = pair;
        drawn[2 * i + 1] = (qr_edge){pair.to, pair.from};
    }
    *arcs = drawn;
    return 2 * pairs;
}

static qr_network_spec draw_spec(uint64_t *random)
{
    static const qr_network_kind kinds[] = {QR_NETWORK_EDGE_LIST,   QR_NETWORK_EDGE_LIST,   QR_NETWORK_RANDOM_REGULAR,
                                            QR_NETWORK_ERDOS_RENYI, QR_NETWORK_SMALL_WORLD, QR_NETWORK_SCALE_FREE};
    const int64_t n = 2 * case_between(random, 10, case_between(random, 0, 4) == 0 ? 800 : 100);
    return (qr_network_spec){.kind = kinds[case_between(random, 0, 5)],
                             .n_agents = n,
                             .degree = 2 * case_between(random, 1, 4),
                             .mean_degree = (double)case_between(random, 0, 9),
                             .rewire = (double)case_between(random, 0, 10) / 10.0,
                             .attach = case_between(random, 1, 6),
                             .seed = case_random(random)};
}

static void colours_are_proper_greedy_and_the_same_in_any_number_of_parts(void **state)
{
    (void)state;
    uint64_t random = 21;
    for (int number = 0; number < CASES; number++) {
        const qr_network_spec spec = draw_spec(&random);
        qr_edge *arcs = NULL;
        int64_t n_arcs = 0;
        if (spec.kind == QR_NETWORK_EDGE_LIST) {
            n_arcs = draw_pairs(&random, spec.n_agents, &arcs);
        }
        painting one = paint(&spec, 1, arcs, n_arcs);
        check_painting(&one);
        const int n_parts = 2 + number % (MOST_PARTS - 1);
        painting many = paint(&spec, n_parts, arcs, n_arcs);
        assert_int_equal(many.n_colours, one.n_colours);
        assert_memory_equal(many.colour, one.colour, (size_t)spec.n_agents * sizeof *one.colour);
        clear(&one);
        clear(&many);
        free(arcs);
    }
}

/* Everybody sees everybody. */
static qr_edge *clique(int64_t n, int64_t *n_arcs)
{
    qr_edge *arcs = malloc((size_t)(n * n) * sizeof *arcs);
    assert_non_null(arcs);
    *n_arcs = 0;
    for (int64_t a = 0; a < n; a++) {
        for (int64_t b = 0; b < n; b++) {
            if (a != b) {
                arcs[(*n_arcs)++] = (qr_edge){a, b};
            }
        }
    }
    return arcs;
}

static void stars_need_two_and_cliques_all(void **state)
{
    (void)state;
    enum { LEAVES = 5000, CLIQUE = 300 };
    qr_edge *star = malloc(2 * (size_t)LEAVES * sizeof *star);
    assert_non_null(star);
    for (int64_t i = 0; i < LEAVES; i++) {
        star[2 * i] = (qr_edge){77, i < 77 ? i : i + 1};
        star[2 * i + 1] = (qr_edge){star[2 * i].to, 77};
    }
    int64_t n_arcs = 0;
    qr_edge *all = clique(CLIQUE, &n_arcs);
    for (int n_parts = 1; n_parts <= MOST_PARTS; n_parts++) {
        qr_network_spec spec = {.kind = QR_NETWORK_EDGE_LIST, .n_agents = LEAVES + 1, .seed = 5};
        painting made = paint(&spec, n_parts, star, 2 * (int64_t)LEAVES);
        assert_int_equal(made.n_colours, 2);
        clear(&made);
        spec.n_agents = CLIQUE; /* more colours than a byte holds */
        made = paint(&spec, n_parts, all, n_arcs);
        assert_int_equal(made.n_colours, CLIQUE);
        clear(&made);
    }
    free(star);
    free(all);
}

static void too_many_colours_are_refused_by_all_parts(void **state)
{
    (void)state;
    enum { AGENTS = 200 };
    int64_t n_arcs = 0;
    qr_edge *arcs = clique(AGENTS, &n_arcs);
    const qr_network_spec spec = {.kind = QR_NETWORK_EDGE_LIST, .n_agents = AGENTS, .seed = 6};
    for (int n_parts = 1; n_parts <= 4; n_parts++) {
        qr_network *networks[MAX_PARTS];
        assert_int_equal(parts_build(&spec, n_parts, arcs, n_arcs, networks), 0);
        assert_int_equal(parts_colour(n_parts, AGENTS - 1, networks), n_parts);
        for (int p = 0; p < n_parts; p++) {
            assert_null(networks[p]->colour);
            assert_int_equal(qr_network_colours(networks[p]), 0);
        }
        assert_int_equal(parts_colour(n_parts, AGENTS, networks), 0);
        assert_int_equal(qr_network_colours(networks[0]), AGENTS);
        parts_destroy(networks, n_parts);
    }
    qr_network *network = NULL;
    assert_int_equal(parts_build(&spec, 1, arcs, n_arcs, &network), 0);
    assert_int_equal(qr_colour_lists(network, NULL, AGENTS - 1), QR_RESOURCE);
    assert_non_null(strstr(qr_error_message(), "more than 199 turns"));
    qr_network_destroy(network);
    free(arcs);
}

static void the_seed_makes_other_colours(void **state)
{
    (void)state;
    qr_network_spec spec = {.kind = QR_NETWORK_SMALL_WORLD, .n_agents = 500, .degree = 6, .rewire = 0.0, .seed = 1};
    painting one = paint(&spec, 1, NULL, 0);
    spec.seed = 2; /* without rewiring the same network */
    painting other = paint(&spec, 1, NULL, 0);
    assert_memory_not_equal(one.colour, other.colour, (size_t)spec.n_agents * sizeof *one.colour);
    clear(&one);
    clear(&other);
}

static void networks_without_colours_are_refused(void **state)
{
    (void)state;
    const qr_network_spec complete = {.kind = QR_NETWORK_COMPLETE, .n_agents = 100};
    qr_network *network = NULL;
    assert_int_equal(parts_build(&complete, 1, NULL, 0, &network), 0);
    assert_int_not_equal(qr_network_set_colours(network, NULL), QR_OK);
    qr_network_destroy(network);

    const qr_network_spec directed = {.kind = QR_NETWORK_EDGE_LIST, .n_agents = 3, .directed = true};
    const qr_edge arc = {0, 1};
    assert_int_equal(parts_build(&directed, 1, &arc, 1, &network), 0);
    assert_int_not_equal(qr_network_set_colours(network, NULL), QR_OK);
    assert_null(network->colour);
    qr_network_destroy(network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(colours_are_proper_greedy_and_the_same_in_any_number_of_parts),
        cmocka_unit_test(stars_need_two_and_cliques_all), cmocka_unit_test(too_many_colours_are_refused_by_all_parts),
        cmocka_unit_test(the_seed_makes_other_colours), cmocka_unit_test(networks_without_colours_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
