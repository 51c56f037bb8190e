/* Decks: defaults, notations of values, overrides, messages with their place. */
#include "deck/deck.h"
#include "deck/key_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static qr_deck *parse(const char *text, const char *override)
{
    qr_deck *deck = NULL;
    qr_status status = qr_deck_parse("d/x.yml", text, strlen(text), &override, override != NULL ? 1 : 0, &deck);
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    return deck;
}

/* The message for a deck or an override that must be refused. */
static const char *refusal(const char *text, const char *override)
{
    qr_deck *deck = NULL;
    qr_status status = qr_deck_parse("d/x.yml", text, strlen(text), &override, override != NULL ? 1 : 0, &deck);
    assert_int_equal(status, QR_USAGE);
    assert_null(deck);
    return qr_error_message();
}

static void test_defaults(void **state)
{
    (void)state;
    qr_deck *deck = parse("run: {}\n", NULL);
    assert_string_equal(deck->run.title, "");
    assert_int_equal(deck->run.seed, 1);
    assert_int_equal(deck->run.steps, 1000);
    assert_true(deck->run.activation == 1.0);
    assert_int_equal(deck->run.stop, QR_STOP_CONSENSUS);
    assert_int_equal(deck->agents.count, 0);
    assert_int_equal(deck->agents.options, 2);
    assert_int_equal(deck->agents.shares.n, 0);
    assert_string_equal(deck->model.rule, "voter");
    assert_int_equal(deck->network.kind, QR_NETWORK_COMPLETE);
    assert_true(deck->network.periodic);
    assert_int_equal(deck->network.seed, -1);
    assert_int_equal(deck->consensus.quorum.num, 1);
    assert_int_equal(deck->consensus.quorum.den, 1);
    assert_int_equal(deck->compute.threads, 0);
    assert_int_equal(deck->comm.ranks_per_node, 0);
    assert_int_equal(deck->io.slot_size, 1 << 20);
    assert_true(deck->io.timeout == 120.0);
    assert_string_equal(deck->output.directory, "results/x");
    assert_int_equal(deck->output.series_every.steps, 1);
    assert_int_equal(deck->output.snapshot_every.steps, 0);
    assert_true(deck->output.snapshot_every.seconds == 0.0);
    assert_false(qr_deck_was_set(deck, "run.seed"));
    qr_deck_destroy(deck);
}

static void test_results_directory(void **state)
{
    static const char *const names[][2] = {
        {"inputs/nest_site.yml", "results/nest_site"},
        {"a.b.yaml", "results/a.b"},
        {"x", "results/x"},
        {".yml", "results/run"},
        {"..", "results/run"},
        {"d/", "results/run"},
        {"a b\n\xC3.yml", "results/a_b__"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qr_deck *deck = NULL;
        assert_int_equal(qr_deck_parse(names[i][0], "run: {}", 7, NULL, 0, &deck), QR_OK);
        assert_string_equal(deck->output.directory, names[i][1]);
        qr_deck_destroy(deck);
    }
}

/* The table and the enumerations are kept in step by hand nowhere else: every choice has a name. */
static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < qr_n_keys; i++) {
        const qr_key *key = &qr_keys[i];
        assert_ptr_equal(qr_key_find(key->name), key);
        assert_true(strlen(key->name) < QR_KEY_NAME_BYTES);
        assert_true(strlen(key->doc) > 0);
        assert_int_equal(key->type == QR_KEY_CHOICE, key->n_choices > 0);
        for (int c = 0; c < key->n_choices; c++) {
            assert_non_null(key->choices[c]);
        }
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(key->name, qr_keys[j].name);
            assert_true(key->offset != qr_keys[j].offset);
        }
    }
    assert_int_equal(qr_key_find("run.stop")->n_choices, QR_STOP_STEPS + 1);
    assert_int_equal(qr_key_find("agents.initial")->n_choices, QR_INITIAL_FILE + 1);
    assert_int_equal(qr_key_find("model.dynamics")->n_choices, QR_DYNAMICS_METROPOLIS + 1);
    assert_int_equal(qr_key_find("network.kind")->n_choices, QR_NETWORK_EDGE_LIST + 1);
    assert_int_equal(qr_key_find("network.neighbours")->n_choices, QR_MOORE + 1);
    assert_int_equal(qr_key_find("compute.backend")->n_choices, QR_BACKEND_CUDA + 1);
    assert_int_equal(qr_key_find("compute.precision")->n_choices, QR_PRECISION_FAST + 1);
    assert_int_equal(qr_key_find("comm.exchange")->n_choices, QR_EXCHANGE_NCCL + 1);
}

static void test_whole_numbers(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {{"1e8", 100000000},
                 {"100_000_000", 100000000},
                 {"1.5e3", 1500},
                 {"2500e-2", 25},
                 {"7.0", 7},
                 {"+12", 12},
                 {"0", 0},
                 {"9223372036854775807", INT64_MAX},
                 {"922337203685477580.7e1", INT64_MAX},
                 {"1_0e0_", -1},
                 {"0x10", -1},
                 {"1.5", -1},
                 {"9223372036854775808", -1},
                 {"1e19", -1},
                 {"1e999999999999", -1},
                 {"-1", -1},
                 {"1__0", -1},
                 {"_1", -1},
                 {"1 0", -1},
                 {"1e-1", -1},
                 {"nan", -1},
                 {"1.00000000000000000001", -1},
                 {"", -1},
                 {".", -1},
                 {"12345678901234567890123", -1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char override[64];
        (void)snprintf(override, sizeof override, "run.seed=%s", cases[i].text);
        if (cases[i].value < 0) {
            assert_non_null(strstr(refusal("run: {}", override), "--set run.seed="));
        } else {
            qr_deck *deck = parse("run: {}", override);
            assert_true(deck->run.seed == cases[i].value);
            qr_deck_destroy(deck);
        }
    }
}

static void test_whole_number_messages(void **state)
{
    (void)state;
    assert_string_equal(refusal("run: {seed: 1.00000000000000000001}", NULL),
                        "d/x.yml:1:13: run.seed: 1.00000000000000000001 is not a whole number");
    assert_string_equal(refusal("run: {seed: 12345678901234567890123}", NULL),
                        "d/x.yml:1:13: run.seed: 12345678901234567890123 is above the maximum 9223372036854775807");
    assert_string_equal(refusal("run: {seed: -1e30}", NULL), "d/x.yml:1:13: run.seed: -1e30 is below the minimum 0");
    assert_string_equal(refusal("agents: {count: auto1}", NULL),
                        "d/x.yml:1:17: agents.count: 'auto1' is not a whole number or auto");
}

static void test_units(void **state)
{
    (void)state;
    qr_deck *deck = parse("io: {slot_size: 1.5 MiB, timeout: 2 min}\n"
                          "output: {series_every: 10 min, snapshot_every: 1e3 steps, flush_every: 250ms}\n"
                          "run: {progress_every: 0.5 h}\n",
                          NULL);
    assert_int_equal(deck->io.slot_size, 1536 * 1024);
    assert_true(deck->io.timeout == 120.0);
    assert_int_equal(deck->output.series_every.steps, 0);
    assert_true(deck->output.series_every.seconds == 600.0);
    assert_int_equal(deck->output.snapshot_every.steps, 1000);
    assert_true(deck->output.flush_every == 0.25);
    assert_true(deck->run.progress_every == 1800.0);
    qr_deck_destroy(deck);
    assert_string_equal(
        refusal("io:\n  slot_size: 1 MB\n", NULL),
        "d/x.yml:2:14: io.slot_size: '1 MB' may be 1 MiB, or 1000000 B; write the one that is meant: sizes "
        "are in B, KiB, MiB, GiB or TiB");
    assert_string_equal(refusal("io: {slot_size: 4096.5 B}", NULL),
                        "d/x.yml:1:17: io.slot_size: 4096.5 B is not a whole number of bytes");
    assert_string_equal(refusal("io: {timeout: 5}", NULL),
                        "d/x.yml:1:15: io.timeout: '5' needs a unit: ms, s, min, h or d");
    assert_string_equal(refusal("io: {timeout: 10 ms}", NULL),
                        "d/x.yml:1:15: io.timeout: 10 ms is below the minimum 0.1 s");
    assert_string_equal(refusal("io: {slot_size: 2 GiB}", NULL),
                        "d/x.yml:1:17: io.slot_size: 2 GiB is above the maximum 1 GiB");
    assert_string_equal(refusal("output: {series_every: -5 steps}", NULL),
                        "d/x.yml:1:24: output.series_every: -5 steps is below the minimum 0 steps");
    assert_string_equal(refusal("run: {steps: 0}", NULL), "d/x.yml:1:14: run.steps: 0 is below the minimum 1 steps");
}

static void test_fractions(void **state)
{
    static const struct {
        const char *text;
        int64_t num;
        int64_t den;
    } cases[] = {{"9/10", 9, 10},
                 {"0.9", 9, 10},
                 {"1", 1, 1},
                 {"18 / 20", 9, 10},
                 {"0.0078125", 1, 128},
                 {"0.000001", 1, 1000000},
                 {"1e-3", 1, 1000},
                 {"1e2/2e2", 1, 2},
                 {"1/1000001", 0, 0},
                 {"0", 0, 0},
                 {"1.1", 0, 0},
                 {"-1/2", 0, 0},
                 {"1/0", 0, 0},
                 {"1/-2", 0, 0},
                 {"0.3333333", 0, 0},
                 {"1/3/4", 0, 0},
                 {"1/", 0, 0},
                 {"half", 0, 0},
                 {"0.1234567890123456789012", 0, 0},
                 {"1.5/2", 0, 0},
                 {"1e30", 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "consensus: {quorum: %s}", cases[i].text);
        if (cases[i].den == 0) {
            assert_non_null(strstr(refusal(text, NULL), "d/x.yml:1:21: consensus.quorum: "));
        } else {
            qr_deck *deck = parse(text, NULL);
            assert_int_equal(deck->consensus.quorum.num, cases[i].num);
            assert_int_equal(deck->consensus.quorum.den, cases[i].den);
            qr_deck_destroy(deck);
        }
    }
}

static void test_choices_and_bools(void **state)
{
    static const char *const yes[] = {"true", "yes", "on", "True", "YES"};
    static const char *const no[] = {"false", "no", "off", "False", "OFF"};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "network: {periodic: %s, directed: %s}", no[i], yes[i]);
        qr_deck *deck = parse(text, NULL);
        assert_false(deck->network.periodic);
        assert_true(deck->network.directed);
        qr_deck_destroy(deck);
    }
    assert_string_equal(refusal("network: {periodic: 1}", NULL),
                        "d/x.yml:1:21: network.periodic: '1' is neither true nor false");
    assert_string_equal(
        refusal("network: {neighbours: more}", NULL),
        "d/x.yml:1:23: network.neighbours: 'more' is not one of von_neumann, moore; did you mean moore?");
    qr_deck *deck = parse("network: {kind: edge_list}", NULL);
    assert_int_equal(deck->network.kind, QR_NETWORK_EDGE_LIST);
    qr_deck_destroy(deck);
}

static void test_lists(void **state)
{
    (void)state;
    qr_deck *deck =
        parse("model:\n  qualities:\n    - 1\n    - 2.5e0\nnetwork: {size: [3, 4]}\n", "network.size=[5, 6, 7]");
    assert_int_equal(deck->model.qualities.n, 2);
    assert_true(deck->model.qualities.values[1] == 2.5);
    assert_int_equal(deck->network.size.n, 3);
    assert_int_equal(deck->network.size.values[2], 7);
    qr_deck_destroy(deck);
    assert_string_equal(refusal("network: {size: [1, 2, 3, 4]}", NULL),
                        "d/x.yml:1:27: network.size: item 4: more than 3 items");
    assert_string_equal(refusal("network: {size: 10}", NULL),
                        "d/x.yml:1:17: network.size: expected a list of whole numbers, found a single value");
    assert_string_equal(refusal("run: {seed: [1]}", NULL),
                        "d/x.yml:1:13: run.seed: expected a whole number, found a list");
    assert_string_equal(refusal("run: {}", "network.size=[1, [2]]"),
                        "--set network.size=[1, [2]]: item 2: expected a single value, found a list or a section");
}

static void test_text(void **state)
{
    (void)state;
    qr_deck *deck = parse("run: {title: \"N\xC3\xBC\\\"\\\\ nest: # \"}", "output.directory= a b: [c");
    assert_string_equal(deck->run.title, "N\xC3\xBC\"\\ nest: # ");
    assert_string_equal(deck->output.directory, " a b: [c");
    qr_deck_destroy(deck);
    deck = parse("run: {title: x}", "run.title=");
    assert_string_equal(deck->run.title, "");
    qr_deck_destroy(deck);
    assert_string_equal(
        refusal("run: {title: \"a\\nb\\0c\"}", NULL),
        "d/x.yml:1:14: run.title: 'a\\x0Ab\\x00c' holds the byte 0x0A, a control character or not UTF-8");
    static const char *const escapes[] = {"\\x7F", "\\u0085", "\\u009B", "\\u2028", "\\u2029", "\\uFEFF", "\\uFFFE"};
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        char quoted[64];
        (void)snprintf(quoted, sizeof quoted, "run: {title: \"%s\"}", escapes[i]);
        assert_non_null(strstr(refusal(quoted, NULL), "a control character or not UTF-8"));
    }
    assert_string_equal(refusal("run: {}", "run.title=\xFF"),
                        "--set run.title=\\xFF: '\\xFF' holds the byte 0xFF, a control character or not UTF-8");
    assert_string_equal(refusal("output: {directory: ''}", NULL), "d/x.yml:1:21: output.directory: must not be empty");
}

static void test_overrides(void **state)
{
    (void)state;
    const char *const both[] = {"run.seed=8", "run.seed=9"};
    qr_deck *deck = NULL;
    assert_int_equal(qr_deck_parse("x.yml", "run: {seed: 7}", 14, both, 2, &deck), QR_OK);
    assert_int_equal(deck->run.seed, 9);
    assert_true(qr_deck_was_set(deck, "run.seed"));
    assert_int_equal(qr_deck_complain(deck, "run.seed", "is %d", 9), QR_USAGE);
    assert_string_equal(qr_error_message(), "--set run.seed=9: is 9");
    qr_deck_destroy(deck);
    assert_string_equal(refusal("run: {}", "agents.options=300"),
                        "--set agents.options=300: 300 is above the maximum 256");
    assert_string_equal(refusal("run: {}", "agents.optoins=3"),
                        "--set agents.optoins=3: unknown key; did you mean agents.options?");
    assert_string_equal(refusal("run: {}", "run.seed"), "--set run.seed: expected key=value, such as run.seed=7");
    assert_string_equal(refusal("run: {}", "run=1"), "--set run=1: run is a section; set one of its keys");
    assert_string_equal(refusal("run: {seed: x}", "run.seed=1"), "d/x.yml:1:13: run.seed: 'x' is not a whole number");
}

static void test_origins(void **state)
{
    (void)state;
    qr_deck *deck = parse("run:\n  seed: 5\n", "agents.count=10");
    assert_true(qr_deck_was_set(deck, "run.seed"));
    assert_true(qr_deck_was_set(deck, "agents.count"));
    assert_false(qr_deck_was_set(deck, "run.steps"));
    assert_true(qr_deck_is_default(deck, "run.steps"));
    assert_false(qr_deck_is_default(deck, "run.seed"));
    assert_int_equal(qr_deck_complain(deck, "run.seed", "no %s", "luck"), QR_USAGE);
    assert_string_equal(qr_error_message(), "d/x.yml:2:9: run.seed: no luck");
    (void)qr_deck_complain(deck, "run.steps", "too few");
    assert_string_equal(qr_error_message(), "d/x.yml: run.steps (default): too few");
    qr_deck_mark_derived(deck, "agents.options");
    (void)qr_deck_complain(deck, "agents.options", "odd");
    assert_string_equal(qr_error_message(), "d/x.yml: agents.options (derived): odd");
    char *text = NULL;
    assert_int_equal(qr_deck_dump(deck, &text), QR_OK);
    assert_non_null(strstr(text, "  seed: 5                                 # d/x.yml:2\n"));
    assert_non_null(strstr(text, "  count: 10                               # agents; --set\n"));
    assert_non_null(strstr(text, "  options: 2                              # derived\n"));
    assert_non_null(strstr(text, "  steps: 1000                             # steps; default\n"));
    assert_non_null(strstr(text, "  threads: auto                           # threads; default\n"));
    free(text);
    qr_deck_destroy(deck);
}

/* A key that is set to its default was set, and has no other effect than being absent. */
static void test_set_to_default(void **state)
{
    (void)state;
    qr_deck *deck =
        parse("model: {q: 4.0, zealots: [], noise: 0.5}\nconsensus: {quorum: 2/2}\n", "output.directory=results/x");
    assert_true(qr_deck_was_set(deck, "model.q"));
    assert_true(qr_deck_is_default(deck, "model.q"));
    assert_true(qr_deck_is_default(deck, "model.zealots"));
    assert_false(qr_deck_is_default(deck, "model.noise"));
    assert_true(qr_deck_is_default(deck, "consensus.quorum"));
    assert_true(qr_deck_is_default(deck, "output.directory"));
    assert_false(qr_deck_is_default(deck, "no.key"));
    qr_deck_destroy(deck);
}

static void test_checks(void **state)
{
    (void)state;
    assert_string_equal(refusal("agents: {initial: shares}", NULL),
                        "d/x.yml:1:19: agents.initial: shares need agents.shares, one for each option");
    assert_string_equal(refusal("agents: {initial: shares, options: 3, shares: [1, 2]}", NULL),
                        "d/x.yml:1:47: agents.shares: 2 values for 3 options (agents.options); one for each is needed");
    assert_string_equal(refusal("agents: {initial: shares, shares: [0, 0]}", NULL),
                        "d/x.yml:1:35: agents.shares: the shares sum to 0");
    assert_string_equal(refusal("agents: {shares: [1, 2]}", NULL),
                        "d/x.yml:1:18: agents.shares: without effect unless agents.initial is shares");
    assert_string_equal(refusal("agents: {initial: file}", NULL),
                        "d/x.yml:1:19: agents.initial: a file needs agents.file, its name");
    assert_string_equal(refusal("agents: {file: a.h5}", NULL),
                        "d/x.yml:1:16: agents.file: without effect unless agents.initial is file");
    assert_string_equal(
        refusal("model: {qualities: [1, 2, 3]}", NULL),
        "d/x.yml:1:20: model.qualities: 3 values for 2 options (agents.options); one for each is needed");
    assert_string_equal(refusal("model: {qualities: [1, 0]}", NULL),
                        "d/x.yml:1:24: model.qualities: item 2: 0 must be above 0");
    assert_string_equal(refusal("run: {}", "model.zealots=[1]"),
                        "--set model.zealots=[1]: 1 values for 2 options (agents.options); one for each is needed");
}

static void test_nearest_name(void **state)
{
    static const char *const names[] = {"lattice2d", "ring", "complete", "q"};
    (void)state;
    assert_string_equal(qr_nearest_name("latice2d", names, 4), "lattice2d");
    assert_string_equal(qr_nearest_name("rign", names, 4), "ring");
    assert_string_equal(qr_nearest_name("COMPLETE", names, 4), "complete");
    assert_string_equal(qr_nearest_name("latice", names, 4), "lattice2d");
    assert_null(qr_nearest_name("torus", names, 4));
    assert_null(qr_nearest_name("z", names, 4));
    assert_null(qr_nearest_name("", names, 4));
    char word[4096];
    memset(word, 'r', sizeof word);
    word[sizeof word - 1] = '\0';
    assert_null(qr_nearest_name(word, names, 4));
}

static void test_print_keys(void **state)
{
    (void)state;
    FILE *out = tmpfile();
    assert_non_null(out);
    assert_int_equal(qr_deck_print_keys(out, "consensus."), 2);
    assert_int_equal(qr_deck_print_keys(out, "nothing"), 0);
    rewind(out);
    char line[256];
    assert_non_null(fgets(line, sizeof line, out));
    assert_string_equal(
        line, "consensus.quorum                   fraction               default 1               above 0, at most 1\n");
    (void)fclose(out);
    out = tmpfile();
    assert_int_equal(qr_deck_print_keys(out, ""), qr_n_keys);
    (void)fclose(out);
}

/* What a restart may change and what not. */
static void test_compare(void **state)
{
    (void)state;
    qr_deck *ours = parse("run: {seed: 1, steps: 10}\nagents: {count: 10}\noutput: {directory: a}\n", NULL);
    qr_deck *theirs = parse("run: {seed: 1, steps: 99}\nagents: {count: 10}\noutput: {directory: b}\n"
                            "checkpoint: {every: 5 steps, tiers: {ssd: {directory: x, capacity: auto}}}\n",
                            NULL);
    char *list = NULL;
    assert_int_equal(qr_deck_compare(ours, theirs, &list), 0);
    assert_null(list);
    qr_deck_destroy(theirs);
    theirs = parse("run: {seed: 2, steps: 10}\nagents: {count: 10}\nmodel: {rule: majority}\n", NULL);
    assert_int_equal(qr_deck_compare(ours, theirs, &list), 2);
    assert_string_equal(list, "  run.seed: 2, not 1\n  model.rule: \"majority\", not \"voter\"");
    free(list);
    qr_deck_destroy(theirs);
    qr_deck_destroy(ours);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_results_directory),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_whole_number_messages),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_fractions),
        cmocka_unit_test(test_choices_and_bools),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_set_to_default),
        cmocka_unit_test(test_nearest_name),
        cmocka_unit_test(test_print_keys),
        cmocka_unit_test(test_compare),
    };
    return cmocka_run_group_tests_name("deck", tests, NULL, NULL);
}
