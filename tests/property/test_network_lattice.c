/* Lattices and rings in any number of parts: neighbours against plain coordinates, halos, colours, partition. */
#include "network_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CASES = 1500 };

static qr_network_spec draw_spec(uint64_t *state)
{
    qr_network_spec spec = {.seed = 1};
    const int64_t which = case_between(state, 0, 2);
    spec.periodic = case_between(state, 0, 1) == 1;
    spec.neighbours = case_between(state, 0, 1) == 1 ? QR_MOORE : QR_VON_NEUMANN;
    if (which == 0) {
        spec.kind = QR_NETWORK_RING;
        spec.dims = 1;
        spec.periodic = true;
        spec.n_agents = case_between(state, 3, case_between(state, 0, 3) == 0 ? 12 : 900);
        const int64_t most = (spec.n_agents - 1) / 2;
        spec.degree = 2 * case_between(state, 1, most < 100 ? most : 100);
        spec.size[0] = spec.n_agents;
        return spec;
    }
    spec.kind = which == 1 ? QR_NETWORK_LATTICE2D : QR_NETWORK_LATTICE3D;
    spec.dims = which == 1 ? 2 : 3;
    const int64_t most = case_between(state, 0, 2) == 0 ? 3 : (which == 1 ? 70 : 14);
    spec.n_agents = 1;
    for (int axis = 0; axis < spec.dims; axis++) {
        spec.size[axis] = case_between(state, spec.periodic ? 2 : 1, most);
        spec.n_agents *= spec.size[axis];
    }
    return spec;
}

/* Global ids of an agent's neighbours, from coordinates, in the documented order. */
static int64_t naive_neighbours(const qr_network_spec *spec, int64_t agent, int64_t *out)
{
    int64_t n = 0;
    if (spec->kind == QR_NETWORK_RING) {
        for (int64_t d = -spec->degree / 2; d <= spec->degree / 2; d++) {
            if (d != 0) {
                out[n++] = ((agent + d) % spec->n_agents + spec->n_agents) % spec->n_agents;
            }
        }
        return n;
    }
    const int64_t w = spec->size[0];
    const int64_t h = spec->size[1];
    const int64_t depth = spec->dims == 3 ? spec->size[2] : 1;
    for (int64_t dz = spec->dims == 3 ? -1 : 0; dz <= (spec->dims == 3 ? 1 : 0); dz++) {
        for (int64_t dy = -1; dy <= 1; dy++) {
            for (int64_t dx = -1; dx <= 1; dx++) {
                const int64_t distance = llabs(dx) + llabs(dy) + llabs(dz);
                if (distance == 0 || (spec->neighbours == QR_VON_NEUMANN && distance > 1)) {
                    continue;
                }
                int64_t x = agent % w + dx;
                int64_t y = agent / w % h + dy;
                int64_t z = agent / w / h + dz;
                if (spec->periodic) {
                    x = (x + w) % w;
                    y = (y + h) % h;
                    z = (z + depth) % depth;
                } else if (x < 0 || x >= w || y < 0 || y >= h || z < 0 || z >= depth) {
                    continue;
                }
                out[n++] = x + w * (y + h * z);
            }
        }
    }
    return n;
}

static void check_part(const qr_network *network, const int64_t *view)
{
    const qr_network_spec *spec = &network->spec;
    int64_t positions[256];
    int64_t naive[256];
    int64_t ends = 0;
    int64_t most = 0;
    assert_int_equal(network->before % QR_AGENTS_PER_WORD, 0);
    for (int64_t v = 0; v < network->view; v++) {
        const int64_t id = network->own.first - network->before + v;
        assert_int_equal(view[v], (id % spec->n_agents + spec->n_agents) % spec->n_agents);
    }
    for (int64_t i = 0; i < network->own.count; i++) {
        const int64_t n = qr_lattice_neighbours(network, i, positions);
        assert_int_equal(n, naive_neighbours(spec, network->own.first + i, naive));
        assert_true(n <= qr_lattice_degree(spec));
        for (int64_t j = 0; j < n; j++) {
            assert_in_range(positions[j], 0, network->view - 1);
            assert_int_equal(view[positions[j]], naive[j]);
        }
        ends += n;
        most = n > most ? n : most;
    }
    assert_int_equal(network->own_edge_ends, ends);
    assert_int_equal(network->max_degree, most);
}

static void test_parts_see_their_neighbours(void **state)
{
    (void)state;
    uint64_t random = 11;
    for (int c = 0; c < CASES; c++) {
        const qr_network_spec spec = draw_spec(&random);
        const int n_parts = (int)case_between(&random, 1, 9);
        qr_network *networks[MAX_PARTS];
        int64_t *views[MAX_PARTS];
        for (int p = 0; p < n_parts; p++) {
            assert_int_equal(qr_network_build(&spec, n_parts, p, NULL, &networks[p]), QR_OK);
        }
        assert_int_equal(parts_exchange_ids(networks, n_parts, views), 0);
        for (int p = 0; p < n_parts; p++) {
            check_part(networks[p], views[p]);
            free(views[p]);
        }
        parts_destroy(networks, n_parts);
    }
}

/* How many of the part's agents may be looked at one after the other without meeting the halo, at the most. */
static int64_t longest_inside(const qr_network *network)
{
    int64_t positions[256];
    int64_t longest = 0;
    int64_t length = 0;
    for (int64_t i = 0; i < network->own.count; i++) {
        const int64_t n = qr_lattice_neighbours(network, i, positions);
        length++;
        for (int64_t j = 0; j < n; j++) {
            const int64_t seen = positions[j] - network->before;
            length = seen >= 0 && seen < network->own.count ? length : 0;
        }
        longest = length > longest ? length : longest;
    }
    return longest;
}

static void test_interior_sees_own_agents_alone(void **state)
{
    (void)state;
    uint64_t random = 12;
    int found = 0;
    for (int c = 0; c < CASES; c++) {
        const qr_network_spec spec = draw_spec(&random);
        const int n_parts = (int)case_between(&random, 1, 4);
        const int64_t layer =
            spec.kind == QR_NETWORK_RING ? spec.degree / 2 : spec.size[0] * (spec.dims == 3 ? spec.size[1] : 1);
        for (int p = 0; p < n_parts; p++) {
            qr_network *network;
            assert_int_equal(qr_network_build(&spec, n_parts, p, NULL, &network), QR_OK);
            const qr_range interior = qr_lattice_interior(network);
            int64_t positions[256];
            assert_int_equal(interior.first % QR_AGENTS_PER_WORD, 0);
            assert_int_equal(interior.count % QR_AGENTS_PER_WORD, 0);
            assert_true(interior.first >= 0 && interior.first + interior.count <= network->own.count);
            for (int64_t i = interior.first; i < interior.first + interior.count; i++) {
                const int64_t n = qr_lattice_neighbours(network, i, positions);
                for (int64_t j = 0; j < n; j++) {
                    assert_in_range(positions[j], network->before, network->before + network->own.count - 1);
                }
            }
            /* A layer that is not whole and one beyond it may be left out on each side, and part of a word. */
            assert_true(interior.count >= longest_inside(network) - 4 * layer - 2 * QR_AGENTS_PER_WORD);
            found += interior.count > 0 ? 1 : 0;
            qr_network_destroy(network);
        }
    }
    assert_in_range(found, CASES / 4, 4 * CASES);
    qr_network_spec complete = {.kind = QR_NETWORK_COMPLETE, .n_agents = 1000};
    qr_network *network;
    assert_int_equal(qr_network_build(&complete, 1, 0, NULL, &network), QR_OK);
    assert_int_equal(qr_lattice_interior(network).count, 0);
    qr_network_destroy(network);
}

static void test_halo_is_no_larger_than_its_reach(void **state)
{
    (void)state;
    /* Rows that parts do not cut: a von Neumann halo is one row to each side, and so is Moore's. */
    for (int moore = 0; moore < 2; moore++) {
        const qr_network_spec spec = {.kind = QR_NETWORK_LATTICE2D,
                                      .n_agents = 128 * 8,
                                      .dims = 2,
                                      .size = {128, 8},
                                      .neighbours = moore ? QR_MOORE : QR_VON_NEUMANN,
                                      .periodic = true};
        qr_network *network;
        assert_int_equal(qr_network_build(&spec, 4, 1, NULL, &network), QR_OK);
        assert_int_equal(network->before, 128);
        assert_int_equal(network->view, 128 + 256 + 128);
        assert_int_equal(network->halo.n_peers, 2);
        assert_int_equal(network->halo.peers[0].peer, 0);
        assert_int_equal(network->halo.peers[0].recv_count, 128);
        assert_int_equal(network->halo.peers[0].send_count, 128);
        qr_network_destroy(network);
    }
}

static void test_colours_are_proper(void **state)
{
    (void)state;
    uint64_t random = 12;
    int64_t naive[256];
    for (int c = 0; c < CASES; c++) {
        const qr_network_spec spec = draw_spec(&random);
        const int colours = qr_lattice_colours(&spec);
        assert_in_range(colours, 1, 256);
        bool even = spec.kind != QR_NETWORK_RING;
        for (int axis = 0; axis < spec.dims; axis++) {
            even = even && (!spec.periodic || spec.size[axis] % 2 == 0);
        }
        if (even) {
            assert_true(colours <= (spec.neighbours == QR_MOORE ? 1 << spec.dims : 2));
        }
        for (int64_t agent = 0; agent < spec.n_agents; agent++) {
            const int colour = qr_lattice_colour(&spec, agent);
            assert_in_range(colour, 0, colours - 1);
            const int64_t n = naive_neighbours(&spec, agent, naive);
            for (int64_t j = 0; j < n; j++) {
                assert_int_not_equal(colour, qr_lattice_colour(&spec, naive[j]));
            }
        }
    }
}

static void test_partition_covers_all_agents(void **state)
{
    (void)state;
    uint64_t random = 13;
    for (int c = 0; c < CASES; c++) {
        const int64_t scale = case_between(&random, 0, 2);
        const int64_t n = case_between(&random, 1, scale == 0 ? 200 : scale == 1 ? 100000 : INT64_C(1000000000000));
        const int n_parts = (int)case_between(&random, 1, scale == 2 ? 5000 : 40);
        int64_t next = 0;
        int64_t least_words = INT64_MAX;
        int64_t most_words = 0;
        for (int p = 0; p < n_parts; p++) {
            const qr_range range = qr_partition_range(n, n_parts, p);
            assert_int_equal(range.first, next);
            assert_true(range.first % QR_AGENTS_PER_WORD == 0 || range.first == n);
            assert_true(range.count >= 0);
            next += range.count;
            const int64_t words = (range.count + 63) / 64;
            least_words = words < least_words ? words : least_words;
            most_words = words > most_words ? words : most_words;
            if (range.count > 0) {
                assert_int_equal(qr_partition_owner(n, n_parts, range.first), p);
                assert_int_equal(qr_partition_owner(n, n_parts, next - 1), p);
                const int64_t inside = range.first + case_between(&random, 0, range.count - 1);
                assert_int_equal(qr_partition_owner(n, n_parts, inside), p);
            }
        }
        assert_int_equal(next, n);
        assert_true(most_words - least_words <= 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_covers_all_agents),
        cmocka_unit_test(test_parts_see_their_neighbours),
        cmocka_unit_test(test_interior_sees_own_agents_alone),
        cmocka_unit_test(test_halo_is_no_larger_than_its_reach),
        cmocka_unit_test(test_colours_are_proper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
