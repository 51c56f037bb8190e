/* From a deck to a network: what agrees, what does not, and which key is blamed. */
#include "network/network.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static qr_status spec_of(const char *text, qr_network_spec *spec)
{
    qr_deck *deck;
    if (qr_deck_parse("deck.yml", text, strlen(text), NULL, 0, &deck) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    qr_status status = qr_network_spec_from_deck(deck, spec);
    qr_deck_destroy(deck);
    return status;
}

static qr_network_spec accept(const char *text)
{
    qr_network_spec spec;
    if (spec_of(text, &spec) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    return spec;
}

static void refuse(const char *text, const char *message)
{
    qr_network_spec spec;
    assert_int_equal(spec_of(text, &spec), QR_USAGE);
    assert_string_equal(qr_error_message(), message);
}

static void test_lattices_count_their_agents(void **state)
{
    (void)state;
    qr_network_spec spec = accept("network: {kind: lattice2d, size: [1000, 200], neighbours: moore, periodic: false}");
    assert_int_equal(spec.n_agents, 200000);
    assert_int_equal(spec.dims, 2);
    assert_int_equal(spec.size[0], 1000);
    assert_int_equal(spec.size[1], 200);
    assert_false(spec.periodic);
    assert_int_equal(qr_lattice_degree(&spec), 8);
    spec = accept("network: {kind: lattice3d, size: [10000, 10000, 10000]}\nagents: {count: 1e12}");
    assert_int_equal(spec.n_agents, INT64_C(1000000000000));
    assert_int_equal(qr_lattice_degree(&spec), 6);
    refuse("network: {kind: lattice2d, size: [10]}",
           "deck.yml:1:34: network.size: lattice2d needs 2 sizes, [x, y]; found 1");
    refuse("network: {kind: lattice3d, size: [10, 10]}",
           "deck.yml:1:34: network.size: lattice3d needs 3 sizes, [x, y, z]; found 2");
    refuse("network: {kind: lattice2d}", "deck.yml: network.size (default): lattice2d needs 2 sizes, [x, y]; found 0");
    refuse("network: {kind: lattice2d, size: [10, 1]}",
           "deck.yml:1:34: network.size: y size is 1; periodic lattices need at least 2");
    refuse("network: {kind: lattice2d, size: [1000000000, 1000000000]}",
           "deck.yml:1:34: network.size: the lattice has more than 1000000000000 agents");
    refuse("agents: {count: 99}\nnetwork: {kind: lattice2d, size: [10, 10]}",
           "deck.yml:1:17: agents.count: 99 agents, but network.size makes 100; leave agents.count out or make them "
           "agree");
    assert_int_equal(accept("network: {kind: lattice2d, size: [1, 7], periodic: false}").n_agents, 7);
}

static void test_other_kinds_need_a_count(void **state)
{
    (void)state;
    refuse("network: {kind: complete}", "deck.yml: agents.count (default): must be given for network.kind complete");
    refuse("network: {kind: ring}", "deck.yml: agents.count (default): must be given for network.kind ring");
    assert_int_equal(accept("agents: {count: 7}").kind, QR_NETWORK_COMPLETE);
    refuse("network: {kind: edge_list}",
           "deck.yml: network.file (default): must name a file for network.kind edge_list");
    assert_int_equal(accept("network: {kind: edge_list, file: a.txt, directed: true}").n_agents, 0);
}

static void test_degrees_must_fit(void **state)
{
    (void)state;
    refuse("agents: {count: 10}\nnetwork: {kind: ring, degree: 3}",
           "deck.yml:2:31: network.degree: is 3; a ring needs an even number, half to each side");
    refuse("agents: {count: 10}\nnetwork: {kind: small_world, degree: 10}",
           "deck.yml:2:38: network.degree: is 10; 10 agents can have from 1 to 9 neighbours each");
    refuse("agents: {count: 10}\nnetwork: {kind: ring, degree: 4, periodic: false}",
           "deck.yml:2:44: network.periodic: is false, but a ring is always closed");
    refuse("agents: {count: 11}\nnetwork: {kind: random_regular, degree: 3}",
           "deck.yml:2:41: network.degree: is 3, odd like the number of agents, 11: no such graph exists");
    refuse(
        "agents: {count: 1e8}\nnetwork: {kind: random_regular, degree: 1000}",
        "deck.yml:2:41: network.degree: is 1000; for 100000000 agents, random_regular is made only up to degree 128");
    assert_int_equal(accept("agents: {count: 1e8}\nnetwork: {kind: random_regular, degree: 128}").degree, 128);
    refuse("agents: {count: 5}\nnetwork: {kind: erdos_renyi, mean_degree: 4.5}",
           "deck.yml:2:43: network.mean_degree: is 4.5; 5 agents allow 0 to 4");
    refuse("agents: {count: 5}\nnetwork: {kind: scale_free, attach: 5}",
           "deck.yml:2:37: network.attach: is 5; 5 agents allow 1 to 4");
}

static void test_seed_comes_from_the_run(void **state)
{
    (void)state;
    assert_int_equal(accept("run: {seed: 5}\nagents: {count: 9}").seed, 5);
    assert_int_equal(accept("run: {seed: 5}\nagents: {count: 9}\nnetwork: {seed: 0}").seed, 0);
}

static void test_estimate_grows_with_edges(void **state)
{
    (void)state;
    const qr_network_spec lattice = accept("network: {kind: lattice2d, size: [100000, 100000]}");
    assert_true(qr_network_bytes_estimate(&lattice, 8) < 10000);
    const qr_network_spec regular = accept("agents: {count: 1e9}\nnetwork: {kind: random_regular, degree: 8}");
    const int64_t one = qr_network_bytes_estimate(&regular, 1);
    assert_true(one > INT64_C(8000000000) * 20); /* arcs of 16 bytes and neighbours of 4 */
    assert_int_equal(qr_network_list_bytes(&lattice, 1000), 0);
    assert_int_equal(qr_network_list_bytes(&regular, 1000), 1001 * 8 + 1000 * regular.degree * 4);
    assert_true(qr_network_bytes_estimate(&regular, 10) < one / 4);
}

static void test_colours_of_lists_take_memory(void **state)
{
    (void)state;
    const qr_network_spec lattice = accept("network: {kind: lattice2d, size: [100000, 100000]}");
    assert_int_equal(qr_network_colour_bytes(&lattice, 1000), 0);
    const qr_network_spec regular = accept("agents: {count: 1e9}\nnetwork: {kind: random_regular, degree: 8}");
    assert_int_equal(qr_network_colour_bytes(&regular, 1000), 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lattices_count_their_agents),
        cmocka_unit_test(test_other_kinds_need_a_count),
        cmocka_unit_test(test_degrees_must_fit),
        cmocka_unit_test(test_seed_comes_from_the_run),
        cmocka_unit_test(test_estimate_grows_with_edges),
        cmocka_unit_test(test_colours_of_lists_take_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
