/* Random graphs and lists of edges: the same in any number of parts, symmetric, simple, with the degrees they promise.
 */
#include "network_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CASES = 1000, PAIRED_CASES = 12 };

/* Whole graph as global ids. */
typedef struct graph {
    int64_t n;
    int64_t *row;
    int64_t *to;
} graph;

static void graph_clear(graph *g)
{
    free(g->row);
    free(g->to);
}

static int64_t degree_of(const graph *g, int64_t agent)
{
    return g->row[agent + 1] - g->row[agent];
}

static bool has_arc(const graph *g, int64_t from, int64_t to)
{
    int64_t low = g->row[from];
    int64_t high = g->row[from + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (g->to[middle] < to) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < g->row[from + 1] && g->to[low] == to;
}

/* Builds in n_parts, checks views, halos and counts, and gathers the graph. */
static graph build_graph(const qr_network_spec *spec, int n_parts, const qr_edge *arcs, int64_t n_arcs)
{
    qr_network *networks[MAX_PARTS];
    int64_t *views[MAX_PARTS];
    assert_int_equal(parts_build(spec, n_parts, arcs, n_arcs, networks), 0);
    assert_int_equal(parts_exchange_ids(networks, n_parts, views), 0);
    int64_t total = 0;
    for (int p = 0; p < n_parts; p++) {
        total += networks[p]->own_edge_ends;
    }
    graph g = {.n = spec->n_agents,
               .row = calloc((size_t)spec->n_agents + 1, sizeof(int64_t)),
               .to = calloc((size_t)total + 1, sizeof(int64_t))};
    int64_t next = 0;
    for (int p = 0; p < n_parts; p++) {
        const qr_network *network = networks[p];
        int64_t most = 0;
        bool *seen = calloc((size_t)network->view + 1, sizeof(bool));
        assert_int_equal(network->before, 0);
        assert_int_equal(network->rows.row[network->own.count], network->own_edge_ends);
        for (int64_t i = 0; i < network->own.count; i++) {
            const int64_t degree = network->rows.row[i + 1] - network->rows.row[i];
            most = degree > most ? degree : most;
            for (int64_t j = network->rows.row[i]; j < network->rows.row[i + 1]; j++) {
                const int64_t position = network->rows.neighbour[j];
                assert_true(position < network->view);
                seen[position] = true;
                g.to[next++] = views[p][position];
                assert_in_range(g.to[next - 1], 0, spec->n_agents - 1);
                assert_true(j == network->rows.row[i] || g.to[next - 2] < g.to[next - 1]); /* ascending, once each */
                assert_int_not_equal(g.to[next - 1], network->own.first + i);              /* no self loop */
            }
            g.row[network->own.first + i + 1] = next;
        }
        assert_int_equal(network->max_degree, most);
        /* The halo is exactly what is needed: every position is somebody's neighbour, ids ascend, so each comes once.
         */
        for (int64_t v = network->own.count; v < network->view; v++) {
            assert_true(seen[v]);
            assert_true(v == network->own.count || views[p][v] > views[p][v - 1]);
        }
        free(seen);
        free(views[p]);
    }
    assert_int_equal(next, total);
    parts_destroy(networks, n_parts);
    return g;
}

static void assert_same_graph(const graph *a, const graph *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->row, b->row, (size_t)(a->n + 1) * sizeof(int64_t));
    if (a->row[a->n] > 0) {
        assert_memory_equal(a->to, b->to, (size_t)a->row[a->n] * sizeof(int64_t));
    }
}

static void assert_symmetric(const graph *g)
{
    for (int64_t i = 0; i < g->n; i++) {
        for (int64_t j = g->row[i]; j < g->row[i + 1]; j++) {
            assert_true(has_arc(g, g->to[j], i));
        }
    }
}

static void assert_regular(const graph *g, int64_t degree)
{
    for (int64_t i = 0; i < g->n; i++) {
        assert_int_equal(degree_of(g, i), degree);
    }
}

/* In one part and in several: equal. Gives the graph. */
static graph build_twice(const qr_network_spec *spec, uint64_t *random)
{
    graph one = build_graph(spec, 1, NULL, 0);
    graph many = build_graph(spec, (int)case_between(random, 2, 9), NULL, 0);
    assert_same_graph(&one, &many);
    assert_symmetric(&one);
    graph_clear(&many);
    return one;
}

static void test_regular(void **state)
{
    (void)state;
    uint64_t random = 21;
    for (int c = 0; c < CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_RANDOM_REGULAR, .seed = case_random(&random)};
        spec.n_agents = case_between(&random, 2, 130);
        const int64_t most = spec.n_agents - 1;
        spec.degree = case_between(&random, 1, case_between(&random, 0, 1) && most > 12 ? 12 : most);
        if (spec.degree % 2 != 0 && spec.n_agents % 2 != 0) {
            spec.n_agents++;
        }
        graph g = build_twice(&spec, &random);
        assert_regular(&g, spec.degree);
        graph_clear(&g);
    }
}

static void test_regular_from_pairs(void **state)
{
    (void)state;
    uint64_t random = 22;
    for (int c = 0; c < PAIRED_CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_RANDOM_REGULAR, .seed = case_random(&random)};
        if (c % 2 == 0) { /* many repeated edges */
            spec.degree = case_between(&random, 80, 128);
            spec.n_agents = 16 * spec.degree + 2 * case_between(&random, 0, 50);
        } else {
            spec.degree = case_between(&random, 3, 9);
            spec.n_agents = 2 * case_between(&random, 20000, 30000) - spec.degree % 2 * 2;
        }
        graph g = build_twice(&spec, &random);
        assert_regular(&g, spec.degree);
        graph_clear(&g);
    }
}

static void test_erdos_renyi(void **state)
{
    (void)state;
    uint64_t random = 23;
    double expected = 0.0;
    double variance = 0.0;
    double edges = 0.0;
    for (int c = 0; c < CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_ERDOS_RENYI, .seed = case_random(&random)};
        spec.n_agents = case_between(&random, 1, 250);
        const double most = (double)(spec.n_agents - 1);
        const double wanted = (double)case_between(&random, 0, 1000) / 1000.0;
        spec.mean_degree = case_between(&random, 0, 1) ? wanted * most : (wanted * 12 < most ? wanted * 12 : most);
        graph g = build_twice(&spec, &random);
        const double p = spec.n_agents > 1 ? spec.mean_degree / most : 0.0;
        const double pairs = (double)spec.n_agents * most / 2.0;
        expected += pairs * p;
        variance += pairs * p * (1.0 - p);
        edges += (double)g.row[g.n] / 2.0;
        graph_clear(&g);
    }
    assert_true((edges - expected) * (edges - expected) < 16.0 * variance);
}

static void test_small_world(void **state)
{
    (void)state;
    uint64_t random = 24;
    for (int c = 0; c < CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_SMALL_WORLD, .seed = case_random(&random)};
        spec.n_agents = case_between(&random, 3, 250);
        const int64_t most = (spec.n_agents - 1) / 2;
        spec.degree = 2 * case_between(&random, 1, case_between(&random, 0, 1) && most > 6 ? 6 : most);
        const int64_t kind = case_between(&random, 0, 3);
        spec.rewire = kind == 0 ? 0.0 : kind == 1 ? 1.0 : (double)case_between(&random, 0, 1000) / 1000.0;
        graph g = build_twice(&spec, &random);
        /* An agent keeps the edges it starts; only edges started from both sides coincide. */
        const int64_t ends = g.row[g.n];
        assert_true(ends <= spec.n_agents * spec.degree && 2 * ends >= spec.n_agents * spec.degree);
        for (int64_t i = 0; i < g.n; i++) {
            assert_true(degree_of(&g, i) >= spec.degree / 2);
        }
        if (spec.rewire <= 0.0) {
            assert_regular(&g, spec.degree);
            for (int64_t i = 0; i < g.n; i++) {
                assert_true(has_arc(&g, i, (i + 1) % g.n) && has_arc(&g, i, (i + spec.degree / 2) % g.n));
            }
        }
        graph_clear(&g);
    }
}

static void test_scale_free(void **state)
{
    (void)state;
    uint64_t random = 25;
    for (int c = 0; c < CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_SCALE_FREE, .seed = case_random(&random)};
        spec.n_agents = case_between(&random, 2, 250);
        spec.attach =
            case_between(&random, 1, case_between(&random, 0, 1) && spec.n_agents > 8 ? 8 : spec.n_agents - 1);
        graph g = build_twice(&spec, &random);
        const int64_t m = spec.attach;
        assert_true(g.row[g.n] <= 2 * (m * (m + 1) / 2 + (spec.n_agents - m - 1) * m));
        for (int64_t i = 1; i < g.n;
             i++) { /* everybody comes with an edge to somebody older, so the graph is connected */
            assert_true(degree_of(&g, i) >= 1 && g.to[g.row[i]] < i);
        }
        for (int64_t i = 0; i <= m; i++) {
            for (int64_t j = 0; j < i; j++) {
                assert_true(has_arc(&g, i, j));
            }
        }
        if (m == 1) {
            assert_int_equal(g.row[g.n], 2 * (g.n - 1)); /* a tree */
        }
        graph_clear(&g);
    }
}

/* Directed lists with repeats and self loops, against a matrix. */
static void test_lists(void **state)
{
    (void)state;
    uint64_t random = 26;
    for (int c = 0; c < CASES; c++) {
        qr_network_spec spec = {.kind = QR_NETWORK_EDGE_LIST, .n_agents = case_between(&random, 1, 300)};
        const int64_t n = spec.n_agents;
        const int64_t n_arcs = case_between(&random, 0, 900);
        qr_edge *arcs = calloc((size_t)n_arcs + 1, sizeof(qr_edge));
        bool *matrix = calloc((size_t)(n * n), sizeof(bool));
        int64_t distinct = 0;
        for (int64_t i = 0; i < n_arcs; i++) {
            arcs[i] = (qr_edge){.from = case_between(&random, 0, n - 1), .to = case_between(&random, 0, n - 1)};
            bool *cell = &matrix[arcs[i].from * n + arcs[i].to];
            distinct += !*cell && arcs[i].from != arcs[i].to;
            *cell = true;
        }
        graph g = build_graph(&spec, (int)case_between(&random, 1, 9), arcs, n_arcs);
        assert_int_equal(g.row[n], distinct);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = g.row[i]; j < g.row[i + 1]; j++) {
                assert_true(matrix[i * n + g.to[j]]);
            }
        }
        graph_clear(&g);
        free(matrix);
        free(arcs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_regular),
        cmocka_unit_test(test_regular_from_pairs),
        cmocka_unit_test(test_erdos_renyi),
        cmocka_unit_test(test_small_world),
        cmocka_unit_test(test_scale_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
