/* Random edge lists, written in random ways, against sets and matrices. */
#include "network/edge_file.h"
#include "network_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <zlib.h>

#include <cmocka.h>

enum { CASES = 2000, MOST_IDS = 40, MOST_LINES = 200, TEXT_BYTES = 1 << 16 };

typedef struct case_file {
    int64_t n_lines;
    qr_edge lines[MOST_LINES]; /* original ids */
    char text[TEXT_BYTES];
    size_t length;
    char packed[2 * TEXT_BYTES];
    size_t n_packed;
} case_file;

typedef struct byte_source {
    const char *data;
    size_t n;
    size_t portion;
} byte_source;

static qr_status read_bytes(void *context, void *buffer, size_t n, size_t *got)
{
    byte_source *source = context;
    size_t take = source->n < n ? source->n : n;
    take = take < source->portion ? take : source->portion;
    memcpy(buffer, source->data, take);
    source->data += take;
    source->n -= take;
    *got = take;
    return QR_OK;
}

static void append(case_file *file, const char *text)
{
    const size_t n = strlen(text);
    assert_true(file->length + n < TEXT_BYTES);
    memcpy(file->text + file->length, text, n + 1);
    file->length += n;
}

static void append_blanks(case_file *file, uint64_t *random, int64_t least)
{
    static const char *const blanks[] = {" ", "\t", "  ", " \t "};
    const int64_t n = least + (case_between(random, 0, 9) == 0);
    for (int64_t i = 0; i < n; i++) {
        append(file, blanks[case_between(random, 0, 3)]);
    }
}

static void draw_file(case_file *file, uint64_t *random)
{
    static const char *const noise[] = {"# comment 1 2\n", "\n", "%% 3 4 -5\r\n", "  \t\n", "\r\n", "   # indented\n"};
    static const char *const tails[] = {"\n", "\r\n", " \n", "\t0.25\n", " 7 words -1 # x\r\n"};
    int64_t ids[MOST_IDS];
    const int64_t n_ids = case_between(random, 1, MOST_IDS);
    const int64_t scale = case_between(random, 0, 2);
    for (int64_t i = 0; i < n_ids; i++) {
        ids[i] = scale == 0 ? i : case_between(random, 0, scale == 1 ? 100 : INT64_MAX - 1);
    }
    file->n_lines = case_between(random, 1, MOST_LINES);
    file->length = 0;
    for (int64_t i = 0; i < file->n_lines; i++) {
        char line[64];
        const qr_edge edge = {ids[case_between(random, 0, n_ids - 1)], ids[case_between(random, 0, n_ids - 1)]};
        file->lines[i] = edge;
        if (case_between(random, 0, 7) == 0) {
            append(file, noise[case_between(random, 0, 5)]);
        }
        append_blanks(file, random, 0);
        snprintf(line, sizeof line, "%lld", (long long)edge.from);
        append(file, line);
        append_blanks(file, random, 1);
        snprintf(line, sizeof line, "%s%lld", case_between(random, 0, 20) == 0 ? "000" : "", (long long)edge.to);
        append(file, line);
        if (i + 1 < file->n_lines || case_between(random, 0, 1) == 0) {
            append(file, tails[case_between(random, 0, 4)]);
        }
    }
}

/* As one to three gzip members, cut anywhere. */
static void pack_file(case_file *file, uint64_t *random)
{
    const int64_t members = case_between(random, 1, 3);
    size_t start = 0;
    file->n_packed = 0;
    for (int64_t m = 0; m < members; m++) {
        const size_t end =
            m + 1 == members ? file->length : (size_t)case_between(random, (int64_t)start, (int64_t)file->length);
        z_stream stream = {0};
        assert_int_equal(deflateInit2(&stream, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        stream.next_in = (Bytef *)(file->text + start);
        stream.avail_in = (uInt)(end - start);
        stream.next_out = (Bytef *)(file->packed + file->n_packed);
        stream.avail_out = (uInt)(sizeof file->packed - file->n_packed);
        assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
        file->n_packed = sizeof file->packed - stream.avail_out;
        deflateEnd(&stream);
        start = end;
    }
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t place_of(const int64_t *ids, int64_t n, int64_t id)
{
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return i;
        }
    }
    return -1;
}

/* Counts by looking at every pair. */
static void check_table(const case_file *file, const qr_edge_table *table, bool directed)
{
    int64_t ids[2 * MOST_LINES];
    int64_t n = 0;
    for (int64_t i = 0; i < file->n_lines; i++) {
        ids[n++] = file->lines[i].from;
        ids[n++] = file->lines[i].to;
    }
    qsort(ids, (size_t)n, sizeof ids[0], by_value);
    int64_t distinct = 0;
    for (int64_t i = 0; i < n; i++) {
        if (distinct == 0 || ids[distinct - 1] != ids[i]) {
            ids[distinct++] = ids[i];
        }
    }
    assert_int_equal(table->facts.agents, distinct);
    assert_memory_equal(table->ids, ids, (size_t)distinct * sizeof ids[0]);

    static int64_t written[MOST_IDS][MOST_IDS];
    memset(written, 0, sizeof written);
    int64_t self_loops = 0;
    int64_t repeats = 0;
    int64_t label[MOST_IDS];
    for (int64_t i = 0; i < distinct; i++) {
        label[i] = i;
    }
    for (int64_t i = 0; i < file->n_lines; i++) {
        const int64_t from = place_of(ids, distinct, file->lines[i].from);
        const int64_t to = place_of(ids, distinct, file->lines[i].to);
        if (from == to) {
            self_loops++;
        } else {
            repeats += written[from][to]++ > 0;
            const int64_t old = label[from];
            for (int64_t j = 0; j < distinct; j++) {
                label[j] = label[j] == old ? label[to] : label[j];
            }
        }
    }
    int64_t edge = 0;
    int64_t components = 0;
    for (int64_t from = 0; from < distinct; from++) {
        components += label[from] == from;
        for (int64_t to = directed ? 0 : from + 1; to < distinct; to++) {
            if (written[from][to] > 0 || (!directed && written[to][from] > 0)) {
                assert_true(edge < table->n_edges);
                assert_int_equal(table->edges[edge].from, from);
                assert_int_equal(table->edges[edge].to, to);
                edge++;
            }
        }
    }
    assert_int_equal(table->n_edges, edge);
    assert_int_equal(table->facts.edges, edge);
    assert_int_equal(table->facts.degree_sum, directed ? edge : 2 * edge);
    assert_int_equal(table->facts.components, components);
    assert_int_equal(table->facts.self_loops, self_loops);
    assert_int_equal(table->facts.duplicates, repeats);
}

static void test_random_files(void **state)
{
    (void)state;
    uint64_t random = 51;
    case_file *file = calloc(1, sizeof *file);
    for (int c = 0; c < CASES; c++) {
        draw_file(file, &random);
        pack_file(file, &random);
        const bool directed = case_between(&random, 0, 1) == 1;
        for (int packed = 0; packed < 2; packed++) {
            byte_source bytes = {.data = packed ? file->packed : file->text,
                                 .n = packed ? file->n_packed : file->length,
                                 .portion = (size_t)case_between(&random, 1, 500)};
            const qr_edge_source source = {.name = "case.txt", .context = &bytes, .read = read_bytes};
            qr_edge_table table;
            if (qr_edge_table_read(&source, directed, &table) != QR_OK) {
                fail_msg("%s\n%s", qr_error_message(), file->text);
            }
            check_table(file, &table, directed);
            qr_edge_table_clear(&table);
        }
    }
    free(file);
}

/* A damaged gzip either says so or, where only its header's idle bits changed, reads as before. */
static void test_damage_is_seen(void **state)
{
    (void)state;
    uint64_t random = 52;
    case_file *file = calloc(1, sizeof *file);
    int refused = 0;
    for (int c = 0; c < CASES; c++) {
        draw_file(file, &random);
        pack_file(file, &random);
        const size_t at = (size_t)case_between(&random, 10, (int64_t)file->n_packed - 1);
        file->packed[at] = (char)(file->packed[at] ^ (1 << case_between(&random, 0, 7)));
        byte_source bytes = {.data = file->packed, .n = file->n_packed, .portion = 100000};
        const qr_edge_source source = {.name = "case.txt", .context = &bytes, .read = read_bytes};
        qr_edge_table table;
        const qr_status status = qr_edge_table_read(&source, true, &table);
        if (status == QR_OK) {
            check_table(file, &table, true);
            qr_edge_table_clear(&table);
        } else {
            assert_true(status == QR_DATA || status == QR_USAGE);
            refused++;
        }
    }
    assert_true(refused > CASES * 9 / 10);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_files),
        cmocka_unit_test(test_damage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
