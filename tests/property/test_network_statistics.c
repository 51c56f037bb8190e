/* Generated graphs against what their models predict. Fixed seeds; bounds are multiples of the standard error. */
#include "network_parts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static qr_network *build(const qr_network_spec *spec)
{
    qr_network *network;
    if (qr_network_build(spec, 1, 0, NULL, &network) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    return network;
}

static int64_t degree_of(const qr_network *network, int64_t agent)
{
    return network->rows.row[agent + 1] - network->rows.row[agent];
}

static bool has_arc(const qr_network *network, int64_t from, int64_t to)
{
    for (int64_t j = network->rows.row[from]; j < network->rows.row[from + 1]; j++) {
        if (network->rows.neighbour[j] == (uint32_t)to) {
            return true;
        }
    }
    return false;
}

/* Triangles times six, and ordered pairs of neighbours of an agent. */
static void count_triangles(const qr_network *network, int64_t *closed, int64_t *pairs)
{
    *closed = 0;
    *pairs = 0;
    for (int64_t i = 0; i < network->own.count; i++) {
        const int64_t end = network->rows.row[i + 1];
        for (int64_t j = network->rows.row[i]; j < end; j++) {
            for (int64_t k = network->rows.row[i]; k < end; k++) {
                if (j != k) {
                    (*pairs)++;
                    *closed += has_arc(network, network->rows.neighbour[j], network->rows.neighbour[k]);
                }
            }
        }
    }
}

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%g is not within %g of %g", value, tolerance, expected);
    }
}

static void test_erdos_renyi_degrees_are_poisson(void **state)
{
    (void)state;
    enum { N = 40000, BINS = 16 };
    const double mean = 6.0;
    const qr_network_spec spec = {.kind = QR_NETWORK_ERDOS_RENYI, .n_agents = N, .mean_degree = mean, .seed = 41};
    qr_network *network = build(&spec);
    double counts[BINS] = {0};
    for (int64_t i = 0; i < N; i++) {
        const int64_t degree = degree_of(network, i);
        counts[degree < BINS - 1 ? degree : BINS - 1] += 1.0;
    }
    assert_near((double)network->own_edge_ends / 2.0, N * mean / 2.0, 4.0 * sqrt(N * mean / 2.0));
    double probability = exp(-mean);
    double rest = 1.0;
    double chi = 0.0;
    for (int k = 0; k < BINS; k++) {
        const double expected = N * (k == BINS - 1 ? rest : probability);
        chi += (counts[k] - expected) * (counts[k] - expected) / expected;
        rest -= probability;
        probability *= mean / (k + 1);
    }
    assert_true(chi < 45.0); /* 15 degrees of freedom: exceeded once in 10^4 */
    qr_network_destroy(network);
}

/* Rows of several chunks: the mean and the variance of a binomial, and every distance equally often. */
static void test_erdos_renyi_reaches_all_distances(void **state)
{
    (void)state;
    enum { N = 3000, BINS = 10 };
    const qr_network_spec spec = {.kind = QR_NETWORK_ERDOS_RENYI, .n_agents = N, .mean_degree = 300.0, .seed = 42};
    qr_network *network = build(&spec);
    const double p = 300.0 / (N - 1);
    double sum = 0.0;
    double squares = 0.0;
    double distances[BINS] = {0};
    for (int64_t i = 0; i < N; i++) {
        const double degree = (double)degree_of(network, i);
        sum += degree;
        squares += (degree - 300.0) * (degree - 300.0);
        for (int64_t j = network->rows.row[i]; j < network->rows.row[i + 1]; j++) {
            const int64_t ahead = (network->rows.neighbour[j] - i + N) % N; /* 1 .. N - 1 */
            distances[(ahead - 1) * BINS / (N - 1)] += 1.0;
        }
    }
    const double pairs = (double)N * (N - 1) / 2.0;
    assert_near(sum / 2.0, pairs * p, 4.0 * sqrt(pairs * p * (1.0 - p)));
    const double variance = (N - 1) * p * (1.0 - p);
    assert_near(squares / N, variance, 4.0 * variance * sqrt(2.0 / N));
    for (int b = 0; b < BINS; b++) {
        assert_near(distances[b], 300.0 * N / BINS, 5.0 * sqrt(2.0 * 300.0 * N / BINS));
    }
    qr_network_destroy(network);
}

static void test_small_world_loses_clustering_as_predicted(void **state)
{
    (void)state;
    enum { N = 30000, K = 6 };
    for (int step = 0; step <= 4; step++) {
        const double beta = 0.25 * step;
        const qr_network_spec spec = {
            .kind = QR_NETWORK_SMALL_WORLD, .n_agents = N, .degree = K, .rewire = beta, .seed = 43};
        qr_network *network = build(&spec);
        assert_near((double)network->own_edge_ends, (double)N * K, 2.0 * (K * K / 8.0 + 4.0 * sqrt(K * K / 8.0)));
        int64_t on_ring = 0;
        for (int64_t i = 0; i < N; i++) {
            for (int64_t d = 1; d <= K / 2; d++) {
                on_ring += has_arc(network, i, (i + d) % N);
            }
        }
        const double edges = N * K / 2.0;
        assert_near((double)on_ring, edges * (1.0 - beta), 4.0 * sqrt(edges * beta * (1.0 - beta)) + 20.0);
        /* Barrat and Weigt 2000: C(beta) = C(0) (1 - beta)^3 + O(1/N), C(0) = 3 (k - 2) / (4 (k - 1)). */
        int64_t closed;
        int64_t pairs;
        count_triangles(network, &closed, &pairs);
        const double expected = 3.0 * (K - 2) / (4.0 * (K - 1)) * pow(1.0 - beta, 3.0);
        assert_near((double)closed / (double)(N * K * (K - 1)), expected, 0.01);
        qr_network_destroy(network);
    }
}

static void test_scale_free_tail(void **state)
{
    (void)state;
    enum { N = 200000, M = 4 };
    const qr_network_spec spec = {.kind = QR_NETWORK_SCALE_FREE, .n_agents = N, .attach = M, .seed = 44};
    qr_network *network = build(&spec);
    const double promised = 2.0 * (M * (M + 1) / 2 + (double)(N - M - 1) * M);
    assert_true((double)network->own_edge_ends <= promised);
    assert_true((double)network->own_edge_ends >= promised * 0.9995);
    /* Dorogovtsev, Mendes and Samukhin 2000: P(degree >= k) = m (m + 1) / (k (k + 1)). */
    for (int64_t k = M + 1; k <= 128; k *= 2) {
        double above = 0.0;
        for (int64_t i = 0; i < N; i++) {
            above += degree_of(network, i) >= k;
        }
        const double expected = N * (double)(M * (M + 1)) / (double)(k * (k + 1));
        assert_near(above, expected, 4.0 * sqrt(expected) + 0.01 * expected);
    }
    /* The oldest grow as the square root of the size. */
    assert_true(network->max_degree > 2 * (int64_t)sqrt((double)N) / 2);
    assert_true(network->max_degree < 20 * M * (int64_t)sqrt((double)N));
    qr_network_destroy(network);
}

/* Triangles of a random d-regular graph are Poisson with mean (d - 1)^3 / 6 (Bollobas 1980). */
static void check_triangles(int64_t n, int64_t degree, int graphs)
{
    int64_t triangles = 0;
    for (int g = 0; g < graphs; g++) {
        const qr_network_spec spec = {
            .kind = QR_NETWORK_RANDOM_REGULAR, .n_agents = n, .degree = degree, .seed = (uint64_t)(4500 + g)};
        qr_network *network = build(&spec);
        int64_t closed;
        int64_t pairs;
        count_triangles(network, &closed, &pairs);
        triangles += closed / 6;
        qr_network_destroy(network);
    }
    const double expected = graphs * pow((double)(degree - 1), 3.0) / 6.0;
    assert_near((double)triangles, expected, 4.0 * sqrt(expected));
}

static void test_regular_triangles(void **state)
{
    (void)state;
    check_triangles(1000, 4, 200);
    check_triangles(1000, 3, 200);
    check_triangles(26000, 4, 100); /* paired up */
    check_triangles(2000, 60, 2);
}

static void test_another_seed_is_another_graph(void **state)
{
    (void)state;
    const qr_network_kind kinds[] = {QR_NETWORK_RANDOM_REGULAR, QR_NETWORK_ERDOS_RENYI, QR_NETWORK_SMALL_WORLD,
                                     QR_NETWORK_SCALE_FREE};
    for (int k = 0; k < 4; k++) {
        qr_network_spec spec = {
            .kind = kinds[k], .n_agents = 1000, .degree = 6, .mean_degree = 6, .rewire = 0.5, .attach = 3, .seed = 1};
        qr_network *first = build(&spec);
        spec.seed = 2;
        qr_network *second = build(&spec);
        int64_t shared = 0;
        for (int64_t i = 0; i < spec.n_agents; i++) {
            for (int64_t j = first->rows.row[i]; j < first->rows.row[i + 1]; j++) {
                shared += has_arc(second, i, first->rows.neighbour[j]);
            }
        }
        assert_true(shared < first->own_edge_ends / 2);
        qr_network_destroy(first);
        qr_network_destroy(second);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_erdos_renyi_degrees_are_poisson),
        cmocka_unit_test(test_erdos_renyi_reaches_all_distances),
        cmocka_unit_test(test_small_world_loses_clustering_as_predicted),
        cmocka_unit_test(test_scale_free_tail),
        cmocka_unit_test(test_regular_triangles),
        cmocka_unit_test(test_another_seed_is_another_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
