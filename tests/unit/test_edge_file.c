/* Edge lists: what is read, what is refused and where, plain and gzip, from a source that delivers in odd portions. */
#include "base/memory.h"
#include "network/edge_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

typedef struct text_source {
    const char *data;
    size_t n;
    size_t at;
    size_t portion;
} text_source;

static qr_status read_text(void *context, void *buffer, size_t n, size_t *got)
{
    text_source *text = context;
    size_t take = text->n - text->at;
    take = take < n ? take : n;
    take = take < text->portion ? take : text->portion;
    memcpy(buffer, text->data + text->at, take);
    text->at += take;
    *got = take;
    return QR_OK;
}

static qr_status read_bytes(const char *data, size_t n, size_t portion, bool directed, qr_edge_table *out)
{
    text_source text = {.data = data, .n = n, .portion = portion};
    const qr_edge_source source = {.name = "net.txt", .context = &text, .read = read_text};
    return qr_edge_table_read(&source, directed, out);
}

static qr_edge_table must_read(const char *text, bool directed)
{
    qr_edge_table table;
    if (read_bytes(text, strlen(text), 3, directed, &table) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
    return table;
}

static void expect_refusal(const char *data, size_t n, qr_status expected, const char *message)
{
    const size_t portions[] = {1, 2, 7, 1000000};
    for (size_t i = 0; i < sizeof portions / sizeof portions[0]; i++) {
        qr_edge_table table;
        assert_int_equal(read_bytes(data, n, portions[i], false, &table), expected);
        assert_string_equal(qr_error_message(), message);
    }
}

static void refuse(const char *text, const char *message)
{
    expect_refusal(text, strlen(text), QR_USAGE, message);
}

/* A gzip member; *n gets its size. */
static char *pack(const char *text, size_t *n)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    const size_t length = strlen(text);
    const size_t bound = deflateBound(&stream, (uLong)length) + 64;
    char *packed = malloc(bound);
    char *copy = strdup(text);
    stream.next_in = (Bytef *)copy;
    stream.avail_in = (uInt)length;
    stream.next_out = (Bytef *)packed;
    stream.avail_out = (uInt)bound;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *n = bound - stream.avail_out;
    deflateEnd(&stream);
    free(copy);
    return packed;
}

static void test_reads_snap_form(void **state)
{
    (void)state;
    qr_edge_table table = must_read("# Nodes: 4\r\n% other comment\n\n  7\t100 0.5 extra # 1\r\n100 7\n"
                                    "   \t\n9223372036854775807 7\n100 7\n5 5\n0000007 00100",
                                    false);
    assert_int_equal(table.facts.agents, 4);
    assert_int_equal(table.ids[0], 5);
    assert_int_equal(table.ids[1], 7);
    assert_int_equal(table.ids[2], 100);
    assert_int_equal(table.ids[3], INT64_MAX);
    assert_int_equal(table.n_edges, 2);
    assert_int_equal(table.edges[0].from, 1);
    assert_int_equal(table.edges[0].to, 2);
    assert_int_equal(table.edges[1].from, 1);
    assert_int_equal(table.edges[1].to, 3);
    assert_int_equal(table.facts.edges, 2);
    assert_int_equal(table.facts.degree_sum, 4);
    assert_int_equal(table.facts.components, 2);
    assert_int_equal(table.facts.self_loops, 1);
    assert_int_equal(table.facts.duplicates, 2); /* "100 7" and "7 100" repeated; the two directions are one pair */
    qr_edge_table_clear(&table);
}

static void test_directed_keeps_both_ways(void **state)
{
    (void)state;
    qr_edge_table table = must_read("3 1\n1 3\n3 1\n8 9\n", true);
    assert_int_equal(table.n_edges, 3);
    assert_int_equal(table.edges[0].from, 0);
    assert_int_equal(table.edges[0].to, 1);
    assert_int_equal(table.edges[1].from, 1);
    assert_int_equal(table.edges[1].to, 0);
    assert_int_equal(table.facts.degree_sum, 3);
    assert_int_equal(table.facts.duplicates, 1);
    assert_int_equal(table.facts.components, 2);
    qr_edge_table_clear(&table);
}

static void test_only_self_loops_leave_lonely_agents(void **state)
{
    (void)state;
    qr_edge_table table = must_read("3 3\n4 4\n", false);
    assert_int_equal(table.facts.agents, 2);
    assert_int_equal(table.n_edges, 0);
    assert_int_equal(table.facts.components, 2);
    qr_edge_table_clear(&table);
}

static void test_refuses_with_place(void **state)
{
    (void)state;
    refuse("", "net.txt: no edges: the file is empty");
    refuse("# nothing\n\n", "net.txt: no edges: the file holds only comments and blank lines");
    refuse("1 2\n3\n", "net.txt:2:2: expected two ids on a line, found one");
    refuse("1 2\n3", "net.txt:2:2: expected two ids on a line, found one");
    refuse("1 2\n  3  \r\n", "net.txt:2:6: expected two ids on a line, found one");
    refuse("1 -2\n", "net.txt:1:3: an id must not be negative, found '-2'");
    refuse("1 two\n", "net.txt:1:3: expected an id (a whole number), found 'two'");
    refuse("1 2x\n", "net.txt:1:3: expected an id (a whole number), found '2x'");
    refuse("1.5 2\n", "net.txt:1:1: expected an id (a whole number), found '1.5'");
    refuse("1,2\n", "net.txt:1:1: expected an id (a whole number), found '1,2'");
    refuse("+1 2\n", "net.txt:1:1: expected an id (a whole number), found '+1'");
    refuse("1 #2\n", "net.txt:1:3: expected an id (a whole number), found '#2'");
    refuse("1 -\n", "net.txt:1:3: expected an id (a whole number), found '-'");
    refuse("1 \x01\xff\n", "net.txt:1:3: expected an id (a whole number), found '\\x01\\xff'");
    refuse("# c\n\n1 9223372036854775808\n", "net.txt:3:3: id 9223372036854775808 is larger than 9223372036854775807");
    refuse("1 99999999999999999999999999999999999\n",
           "net.txt:1:3: id 999999999999999999999999... is larger than 9223372036854775807");
    refuse("1 abcdefghijklmnopqrstuvwxyzabcdefghijklmnop\n",
           "net.txt:1:3: expected an id (a whole number), found 'abcdefghijklmnopqrstuvwx...'");
    refuse("1 2\r3 4\r", "net.txt:1:4: a carriage return inside a line");
    expect_refusal("1 2\n3 \0 4\n", 10, QR_USAGE, "net.txt:2:3: a NUL byte: this is not a text file");
    expect_refusal("# \0\n", 4, QR_USAGE, "net.txt:1:3: a NUL byte: this is not a text file");
    expect_refusal("\x1f", 1, QR_USAGE, "net.txt:1:1: expected an id (a whole number), found '\\x1f'");
}

static void test_reads_gzip(void **state)
{
    (void)state;
    size_t n_first;
    size_t n_second;
    char *first = pack("1 2\n2 ", &n_first);
    char *second = pack("3\n4 5\n", &n_second);
    char *both = calloc(1, n_first + n_second + 8); /* two members, cut inside a line, and zero padding */
    memcpy(both, first, n_first);
    memcpy(both + n_first, second, n_second);
    for (size_t portion = 1; portion < 50; portion += 3) {
        qr_edge_table table;
        assert_int_equal(read_bytes(both, n_first + n_second + 8, portion, false, &table), QR_OK);
        assert_int_equal(table.n_edges, 3);
        assert_int_equal(table.facts.agents, 5);
        assert_int_equal(table.facts.components, 2);
        qr_edge_table_clear(&table);
    }
    free(first);
    free(second);
    free(both);
}

static void test_refuses_broken_gzip(void **state)
{
    (void)state;
    size_t n;
    char *packed = pack("1 2\n2 3\n", &n);
    for (size_t kept = 2; kept < n; kept++) {
        expect_refusal(packed, kept, QR_DATA, "net.txt: the gzip data end too early: the file is cut off");
    }
    packed[n - 5] ^= 1; /* the checksum */
    expect_refusal(packed, n, QR_DATA, "net.txt: broken gzip data: incorrect data check");
    packed[n - 5] ^= 1;
    packed[n - 1] ^= 1; /* the length */
    expect_refusal(packed, n, QR_DATA, "net.txt: broken gzip data: incorrect length check");
    packed[2] = 9;
    expect_refusal(packed, n, QR_DATA, "net.txt: broken gzip data: unknown compression method");
    free(packed);
    packed = pack("1 2\nx\n", &n);
    expect_refusal(packed, n, QR_USAGE, "net.txt:2:1: expected an id (a whole number), found 'x'");
    char *tail = calloc(1, n + 4);
    free(packed);
    packed = pack("1 2\n", &n);
    memcpy(tail, packed, n);
    memcpy(tail + n, "junk", 4);
    expect_refusal(tail, n + 4, QR_DATA, "net.txt: broken gzip data: incorrect header check");
    free(tail);
    free(packed);
}

/* Delivers a few bytes as often as the context says, then fails. */
static qr_status fail_read(void *context, void *buffer, size_t n, size_t *got)
{
    int *calls = context;
    assert_true(n >= 4);
    if (--*calls < 0) {
        return qr_error(QR_DATA, "disk on fire");
    }
    memset(buffer, '1', 4);
    *got = 4;
    return QR_OK;
}

static void test_passes_a_reader_error_on(void **state)
{
    (void)state;
    for (int good = 0; good < 3; good++) {
        int calls = good;
        qr_edge_table table;
        const qr_edge_source source = {.name = "net.txt", .context = &calls, .read = fail_read};
        assert_int_equal(qr_edge_table_read(&source, false, &table), QR_DATA);
        assert_string_equal(qr_error_message(), "disk on fire");
    }
}

/* Real networks, where they are at hand. */
typedef struct file_facts {
    const char *name;
    qr_network_facts facts;
} file_facts;

static qr_status read_file(void *context, void *buffer, size_t n, size_t *got)
{
    *got = fread(buffer, 1, n, context);
    return QR_OK;
}

static void test_real_networks(void **state)
{
    (void)state;
    static const file_facts expected[] = {
        {"ego-facebook.txt", {4039, 88234, 2 * 88234, 1, 0, 0}},
        {"email-Enron.txt.gz", {36691, 183830, 2 * 183830, 1065, 0, 0}},
    };
    /* QUORATE_DATA, or shared/data beside the source tree. */
    char beside[4096];
    snprintf(beside, sizeof beside, "%s", __FILE__);
    char *slash = strrchr(beside, '/');
    const size_t length = slash != NULL ? (size_t)(slash - beside) : 0;
    snprintf(beside + length, sizeof beside - length, "%s../../../shared/data", slash != NULL ? "/" : "");
    const char *directory = getenv("QUORATE_DATA") != NULL ? getenv("QUORATE_DATA") : beside;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char path[8192];
        snprintf(path, sizeof path, "%s/%s", directory, expected[i].name);
        FILE *file = fopen(path, "rb");
        if (file == NULL) {
            print_message("skipped: %s is not here (set QUORATE_DATA)\n", path);
            skip();
        }
        qr_edge_table table;
        const qr_edge_source source = {.name = path, .context = file, .read = read_file};
        assert_int_equal(qr_edge_table_read(&source, false, &table), QR_OK);
        fclose(file);
        print_message(
            "%s: %lld agents, %lld edges, degree sum %lld, %lld components, %lld self loops, %lld duplicates\n",
            expected[i].name, (long long)table.facts.agents, (long long)table.facts.edges,
            (long long)table.facts.degree_sum, (long long)table.facts.components, (long long)table.facts.self_loops,
            (long long)table.facts.duplicates);
        assert_memory_equal(&table.facts, &expected[i].facts, sizeof table.facts);
        qr_edge_table_clear(&table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_snap_form),
        cmocka_unit_test(test_directed_keeps_both_ways),
        cmocka_unit_test(test_only_self_loops_leave_lonely_agents),
        cmocka_unit_test(test_refuses_with_place),
        cmocka_unit_test(test_reads_gzip),
        cmocka_unit_test(test_refuses_broken_gzip),
        cmocka_unit_test(test_passes_a_reader_error_on),
        cmocka_unit_test(test_real_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
