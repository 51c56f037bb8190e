/* The shape of a deck: what is refused before any key is looked at, and how anchors and merges come out. */
#include "deck/deck.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void refuse(const char *text, size_t n, const char *message)
{
    qr_deck *deck = NULL;
    assert_int_equal(qr_deck_parse("x.yml", text, n, NULL, 0, &deck), QR_USAGE);
    assert_null(deck);
    assert_string_equal(qr_error_message(), message);
}

static void refuse_text(const char *text, const char *message)
{
    refuse(text, strlen(text), message);
}

static void test_shape(void **state)
{
    (void)state;
    refuse_text("", "x.yml:1:1: the deck is empty");
    refuse_text("# nothing\n", "x.yml:1:1: the deck is empty");
    refuse_text("---\n...\n", "x.yml:1:1: the deck is empty");
    refuse_text("~", "x.yml:1:1: the deck is empty");
    refuse_text("- 1\n", "x.yml:1:1: a deck is made of sections such as agents: and network:, this is a list");
    refuse_text("hello", "x.yml:1:1: a deck is made of sections such as agents: and network:, this is a single value");
    refuse_text("run: {}\n---\nrun: {}\n", "x.yml:2:1: a second document begins here; a deck is a single one");
    refuse_text("run: [1]", "x.yml:1:6: run: a section holds keys, this is a list");
    refuse_text("run: 5", "x.yml:1:6: run: a section holds keys, this is a single value");
    refuse_text("[1, 2]: 3", "x.yml:1:1: a key must be a word, not a list or a section");
    refuse_text("run: {seed: !!int 5}", "x.yml:1:13: the tag tag:yaml.org,2002:int: decks have no tags, each key knows "
                                        "its type");
    refuse_text("run: {seed: }", "x.yml:1:13: run.seed: has no value; expected a whole number");
    refuse_text("run: {seed: 1", "x.yml:2:1: not YAML: while parsing a flow mapping did not find expected ',' or '}'");
    refuse_text("run:\n\tseed: 1\n", "x.yml:2:1: not YAML: while scanning for the next token found character that "
                                     "cannot start any token");
}

static void test_unknown(void **state)
{
    (void)state;
    refuse_text("agents:\n  optoins: 3\n", "x.yml:2:3: agents.optoins: unknown key; did you mean agents.options?");
    refuse_text("agnets: {}", "x.yml:1:1: agnets: unknown section; did you mean agents?");
    refuse_text("steps: 5", "x.yml:1:1: steps: unknown section; did you mean run.steps?");
    refuse_text("run: {quorum: 5}", "x.yml:1:7: run.quorum: unknown key; did you mean consensus.quorum?");
    refuse_text("run: {zzzzzzzz: 5}", "x.yml:1:7: run.zzzzzzzz: unknown key; `quorate keys` lists them");
    refuse_text("run.seed: 5", "x.yml:1:1: run.seed: in a deck this is `run: {seed: ...}`");
}

static void test_duplicates(void **state)
{
    (void)state;
    refuse_text("run:\n  seed: 1\n  seed: 2\n", "x.yml:3:3: seed: given twice (first in line 2)");
    refuse_text("run: {}\nagents: {}\nrun: {}\n", "x.yml:3:1: run: given twice (first in line 1)");
}

static void test_anchors(void **state)
{
    (void)state;
    static const char text[] = "model: &m {noise: &p 0.25, epsilon: *p}\n"
                               "run: &r {seed: 3, activation: 0.5}\n"
                               "agents: {options: 3}\n";
    qr_deck *deck = NULL;
    assert_int_equal(qr_deck_parse("x.yml", text, sizeof text - 1, NULL, 0, &deck), QR_OK);
    assert_true(deck->model.epsilon == 0.25);
    qr_deck_destroy(deck);
    refuse_text("run: &a [*a]", "x.yml:1:10: the alias *a stands inside what it names");
    refuse_text("run: &a {seed: *a}", "x.yml:1:16: the alias *a stands inside what it names");
    refuse_text("run: {seed: *b}", "x.yml:1:13: the alias *b has no anchor &b before it");
}

static void test_merges(void **state)
{
    (void)state;
    /* `count` is no key of run: it shows that a merged key is looked at, and where it comes from. */
    static const char good[] = "io: &io {ranks_per_node: 2}\n"
                               "comm:\n  ranks_per_node: 4\n  <<: *io\n";
    qr_deck *deck = NULL;
    assert_int_equal(qr_deck_parse("x.yml", good, sizeof good - 1, NULL, 0, &deck), QR_OK);
    assert_int_equal(deck->io.ranks_per_node, 2);
    assert_int_equal(deck->comm.ranks_per_node, 4); /* its own key wins, also over a merge that follows it */
    qr_deck_destroy(deck);
    static const char several[] = "io: &io {ranks_per_node: 2}\n"
                                  "comm: {<<: [{ranks_per_node: 7}, *io], exchange: auto}\n";
    assert_int_equal(qr_deck_parse("x.yml", several, sizeof several - 1, NULL, 0, &deck), QR_OK);
    assert_int_equal(deck->comm.ranks_per_node, 7); /* the first of several merged ones stands */
    qr_deck_destroy(deck);
    static const char nested[] = "comm: {<<: {<<: {ranks_per_node: 9}, exchange: auto}}\n";
    assert_int_equal(qr_deck_parse("x.yml", nested, sizeof nested - 1, NULL, 0, &deck), QR_OK);
    assert_int_equal(deck->comm.ranks_per_node, 9);
    qr_deck_destroy(deck);
    refuse_text("agents: &a {count: 5}\nrun: {<<: *a}\n",
                "x.yml:1:13: run.count: unknown key; did you mean agents.count?");
    refuse_text("run: {<<: 5}", "x.yml:1:11: << merges a section or a list of sections, this is neither");
    refuse_text("run: {<<: [[]]}", "x.yml:1:12: << merges a section or a list of sections, this is neither");
}

static void test_bytes(void **state)
{
    (void)state;
    refuse("run: {}\n\0", 9, "x.yml:2:1: a NUL byte; a deck is text");
    refuse_text("run: {title: \xC3\xBC\xFF}", "x.yml:1:15: the byte 0xFF is not UTF-8 text");
    refuse_text("run: {title: \xC0\x80}", "x.yml:1:14: the byte 0xC0 is not UTF-8 text");
    refuse_text("run: {title: \xED\xA0\x80}", "x.yml:1:14: the byte 0xED is not UTF-8 text");
    refuse_text("run: {title: \x1B[2J}", "x.yml:1:14: the control character U+001B; a deck is printable text");
    qr_deck *deck = NULL;
    static const char marked[] = "\xEF\xBB\xBFrun: {seed: 6}\r\n";
    assert_int_equal(qr_deck_parse("x.yml", marked, sizeof marked - 1, NULL, 0, &deck), QR_OK);
    assert_int_equal(deck->run.seed, 6);
    qr_deck_destroy(deck);
    char name[] = "a\x1B[31m\n.yml";
    assert_int_equal(qr_deck_parse(name, "", 0, NULL, 0, &deck), QR_USAGE);
    assert_string_equal(qr_error_message(), "a\\x1B[31m\\x0A.yml:1:1: the deck is empty");
}

/* Fills a deck of n bytes with a piece repeated, refuses it, and does so within two seconds. */
static void refuse_repeated(const char *head, const char *piece, size_t n, const char *message)
{
    char *text = malloc(n + 1);
    assert_non_null(text);
    size_t at = strlen(head);
    memcpy(text, head, at + 1);
    for (size_t length = strlen(piece); at + length <= n; at += length) {
        memcpy(text + at, piece, length);
    }
    clock_t begin = clock();
    refuse(text, at, message);
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 2.0);
    free(text);
}

static void test_bombs(void **state)
{
    (void)state;
    const size_t most = QR_DECK_MAX_BYTES;
    refuse_repeated("", "[", most, "x.yml:1:33: nested more than 32 deep");
    refuse_repeated("run: ", "{a: ", most, "x.yml:1:130: nested more than 32 deep");
    refuse_repeated("", "- ", most, "x.yml:1:65: nested more than 32 deep");
    refuse_repeated("", "x", most,
                    "x.yml:1:1: a deck is made of sections such as agents: and network:, this is a "
                    "single value");
    refuse_repeated("", "%TAG !a! b\n", most, "x.yml:9:1: more than 8 % directives");
    refuse_repeated("", "&a ", most, "x.yml:1:4: not YAML: did not find expected <document start>");
    refuse_repeated("", "x", most + 1, "x.yml:1:1: 1048577 bytes; a deck has at most 1048576");
    refuse_repeated("run: [", "1,", most, "x.yml:1:2055: more than 1024 entries in one list");
    char row[256] = "- [1";
    for (size_t at = 4; at < 202; at += 2) {
        memcpy(row + at, ",1]\n", 5);
    }
    refuse_repeated("run:\n", row, most, "x.yml:650:172: more than 65536 values; this is no deck");
}

/* Each alias doubles what the one before stands for: 2^30 values if anybody copied them. */
static void test_alias_bomb(void **state)
{
    (void)state;
    char text[4096] = "run: [&a0 [1, 1]";
    size_t used = strlen(text);
    for (int i = 1; i < 30; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, ", &a%d [*a%d, *a%d]", i, i - 1, i - 1);
    }
    (void)snprintf(text + used, sizeof text - used, "]");
    refuse_text(text, "x.yml:1:6: run: a section holds keys, this is a list");
    /* The same with merges, which do copy: the count of values stops them. */
    used = (size_t)snprintf(text, sizeof text, "x: [&m0 {a: 1, b: 1, c: 1}");
    for (int i = 1; i < 30; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, ", &m%d {<<: [*m%d, *m%d, *m%d, *m%d]}", i, i - 1,
                                 i - 1, i - 1, i - 1);
    }
    (void)snprintf(text + used, sizeof text - used, "]");
    refuse_text(text, "x.yml:1:1: x: unknown section; `quorate keys` lists them");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),   cmocka_unit_test(test_unknown),    cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_anchors), cmocka_unit_test(test_merges),     cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bombs),   cmocka_unit_test(test_alias_bomb),
    };
    return cmocka_run_group_tests_name("deck_yaml", tests, NULL, NULL);
}
