/* Files that io reads: result files that are looked through, votes, weights, texts; sound, wrong and damaged ones. */
#include "test_io_fixture.h"

#include "io/source.h"

#include <errno.h>
#include <fcntl.h>

static const qr_queue_shape shape = {.n_slots = 3, .slot_bytes = 65536};

static char *path_in(const fixture *f, const char *name)
{
    static char path[4][160];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", f->directory, name);
    return path[turn];
}

static void assert_message(const char *first, const char *second)
{
    if (strstr(qr_error_message(), first) == NULL || strstr(qr_error_message(), second) == NULL) {
        fail_msg("message: %s", qr_error_message());
    }
    assert_null(strchr(qr_error_message(), '\n'));
}

/* qr_io_info with its output caught. */
static qr_status info(const fixture *f, const char *path, char *out, size_t bytes)
{
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    const char *caught = path_in(f, "caught");
    int file = open(caught, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(kept >= 0 && file >= 0);
    dup2(file, STDOUT_FILENO);
    qr_status status = qr_io_info(path);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    ssize_t n = pread(file, out, bytes - 1, 0);
    assert_true(n >= 0);
    out[n] = '\0';
    close(file);
    unlink(caught);
    return status;
}

/* 130 rows whose votes add up to 1000, decided from row 100 on, and 3 snapshots. */
static void make_results(fixture *f)
{
    fixture_directory(f);
    f->config.snapshots = true;
    fixture_start(f, 1, &shape);
    assert_int_equal(fixture_do(f, 0, QR_JOB_OPEN), QR_OK);
    size_t stride = (size_t)qr_series_row_bytes(3);
    unsigned char *rows = calloc(130, stride);
    for (int64_t i = 0; i < 130; i++) {
        qr_series_row row = {.step = 5 * i, .winner = 1, .leader = 7, .decided = i >= 100};
        uint64_t votes[3] = {90, (uint64_t)(500 + i), (uint64_t)(410 - i)};
        memcpy(rows + (size_t)i * stride, &row, sizeof row);
        memcpy(rows + (size_t)i * stride + sizeof row, votes, sizeof votes);
    }
    qr_job job = {.kind = QR_JOB_SERIES, .count = 130, .bytes = 130 * (int64_t)stride};
    assert_int_equal(fixture_send(f, 0, job, rows), QR_OK);
    free(rows);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(fixture_votes(f, 0, i, 0, 1000), QR_OK);
    }
    assert_int_equal(fixture_finish(f, NULL), QR_OK);
}

static void test_info_of_sound_results(void **state)
{
    (void)state;
    fixture f;
    char out[4096];
    char expected[2048];
    make_results(&f);
    assert_int_equal(info(&f, f.directory, out, sizeof out), QR_OK);
    snprintf(expected, sizeof expected,
             "%s/series.h5\n"
             "  title      A test\n  version    1.2.3\n  agents     1000\n  options    3\n"
             "  series     130 steps, 0 to 645\n"
             "  decision   option 1, 600 of 1000 agents (60.0 %%), step 500\n"
             "  state      all of it can be read\n"
             "%s/snapshots.h5\n"
             "  title      A test\n  version    1.2.3\n  agents     1000\n  options    3\n"
             "  snapshots  3 of 1000 agents, steps 0 to 200\n"
             "  state      all of it can be read\n",
             f.directory, f.directory);
    assert_string_equal(out, expected);
    assert_int_equal(info(&f, path_in(&f, "snapshots.h5"), out, sizeof out), QR_OK);
    assert_non_null(strstr(out, "3 of 1000 agents"));
    fixture_remove(&f);
}

static void test_info_of_no_results(void **state)
{
    (void)state;
    fixture f;
    char out[4096];
    fixture_directory(&f);
    assert_int_equal(info(&f, f.directory, out, sizeof out), QR_USAGE);
    assert_message(f.directory, "no results");
    assert_int_equal(info(&f, path_in(&f, "missing.h5"), out, sizeof out), QR_USAGE);
    assert_message("missing.h5", strerror(ENOENT));
    FILE *file = fopen(path_in(&f, "empty.h5"), "w");
    fclose(file);
    assert_int_equal(info(&f, path_in(&f, "empty.h5"), out, sizeof out), QR_DATA);
    assert_message("empty.h5", "empty");
    file = fopen(path_in(&f, "series.h5"), "w");
    for (int i = 0; i < 2000; i++) {
        fputs("this is text, ", file);
    }
    fclose(file);
    assert_int_equal(info(&f, f.directory, out, sizeof out), QR_DATA);
    assert_message("series.h5", "not an HDF5 file");
    assert_int_equal(info(&f, "/dev/null", out, sizeof out), QR_USAGE);
    assert_message("/dev/null", "regular file");
    assert_int_equal(fixture_python(&f, "h5py.File('other.h5', 'w')['x'] = [1, 2]\n"), 0);
    assert_int_equal(info(&f, path_in(&f, "other.h5"), out, sizeof out), QR_DATA);
    assert_message("other.h5", "neither");
    assert_string_equal(out, path_in(&f, "other.h5\n"));
    fixture_remove(&f);
}

/* Sound for the library, but not what a run leaves. */
static void test_info_of_altered_results(void **state)
{
    (void)state;
    static const char *const alterations[] = {
        "f['series/tally'][7, 1] += 1",
        "f['series/step'][8] = 0",
        "f['series/winner'][8] = 3",
        "f['series/leader'].resize((129,))",
        "f['series/tally'].resize((5000, 3))",
        "del f['series/decided']",
        "del f.attrs['n_agents']",
        "f.attrs['n_options'] = 10**9",
        "f.attrs['title'] = 7",
        "del f['series/step']; f['series/step'] = 3.0",
    };
    for (size_t i = 0; i < sizeof alterations / sizeof alterations[0]; i++) {
        fixture f;
        char out[4096];
        char program[256];
        make_results(&f);
        snprintf(program, sizeof program, "f = h5py.File('series.h5', 'r+')\n%s\n", alterations[i]);
        assert_int_equal(fixture_python(&f, program), 0);
        qr_status status = info(&f, f.directory, out, sizeof out);
        if (status != QR_DATA) {
            fail_msg("%s: status %d: %s", alterations[i], (int)status, out);
        }
        assert_message("series.h5", "");
        assert_non_null(strstr(out, "3 of 1000 agents")); /* the snapshots are sound */
        fixture_remove(&f);
    }
    fixture f;
    char out[4096];
    make_results(&f);
    assert_int_equal(fixture_python(&f, "h5py.File('snapshots.h5', 'r+')['votes'][1, 5] = 3\n"), 0);
    assert_int_equal(info(&f, f.directory, out, sizeof out), QR_DATA);
    assert_message("snapshots.h5", "snapshot 1 holds a vote for option 3");
    fixture_remove(&f);
}

/* Parts of a killed run differ; a part may be gone. */
static void test_info_of_parts(void **state)
{
    (void)state;
    static const int64_t starts[] = {0, 500, 1000};
    fixture servers[2];
    char out[4096];
    make_results(&servers[0]);
    unlink(path_in(&servers[0], "snapshots.h5"));
    fixture_stop(&servers[0]);
    servers[0].config.overwrite = true;
    servers[0].config.n_servers = 2;
    servers[0].config.server_starts = starts;
    servers[0].config.server_count = 500;
    servers[1] = servers[0];
    servers[1].config.server = 1;
    servers[1].config.server_first = 500;
    for (int s = 1; s >= 0; s--) {
        servers[s].config.directory = servers[0].directory;
        fixture_start(&servers[s], 1, &shape);
        assert_int_equal(fixture_do(&servers[s], 0, QR_JOB_OPEN), QR_OK);
        for (int64_t i = 0; i < 3 + s; i++) {
            assert_int_equal(fixture_votes(&servers[s], 0, i, 500 * s, 500), QR_OK);
        }
        assert_int_equal(fixture_finish(&servers[s], NULL), QR_OK);
    }
    assert_int_equal(info(&servers[0], path_in(&servers[0], "snapshots.h5"), out, sizeof out), QR_OK);
    assert_non_null(strstr(out, "  snapshots  3 of 1000 agents, steps 0 to 200\n"));
    assert_non_null(strstr(out, "  incomplete 1 last"));
    assert_int_equal(fixture_python(&servers[0], "v = h5py.File('snapshots.h5', 'r')['votes']\n"
                                                 "assert v.shape == (4, 1000) and (v[3, :500] == 255).all()\n"
                                                 "assert v[3, 500:].max() < 3 and v[:3].max() < 3\n"),
                     0);
    fixture_stop(&servers[1]);
    fixture_remove(&servers[0]);
}

/* --- damage --- */

static unsigned char *load(const char *path, size_t *bytes)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    *bytes = (size_t)info.st_size;
    unsigned char *data = malloc(*bytes);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    fclose(file);
    return data;
}

static void save(const char *path, const unsigned char *data, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

/* Whatever is done to a file, info ends with a status and, when that is not QR_OK, with one line. */
static void test_info_survives_damage(void **state)
{
    (void)state;
    static const char *const names[] = {"series.h5", "snapshots.h5"};
    fixture f;
    char out[4096];
    make_results(&f);
    srand(22);
    for (int which = 0; which < 2; which++) {
        size_t bytes = 0;
        char path[160];
        snprintf(path, sizeof path, "%s", path_in(&f, names[which]));
        unsigned char *data = load(path, &bytes);
        int found = 0;
        for (int n = 0; n < 150; n++) {
            size_t kept = (size_t)rand() % bytes;
            save(path, data, kept);
            assert_int_equal(info(&f, path, out, sizeof out), QR_DATA);
            assert_message(path, "");
        }
        for (int n = 0; n < 300; n++) {
            /* Where something stands. */
            size_t at = (size_t)rand() % bytes;
            while (data[at] == 0) {
                at = (at + 1) % bytes;
            }
            unsigned char old = data[at];
            data[at] ^= (unsigned char)(n % 2 == 0 ? 1 << rand() % 8 : 0xff);
            save(path, data, bytes);
            data[at] = old;
            qr_status status = info(&f, path, out, sizeof out);
            assert_true(status == QR_OK || status == QR_DATA);
            found += status == QR_DATA;
        }
        print_message("%s: %d of 300 flipped bytes found\n", names[which], found);
        assert_true(found > 20);
        save(path, data, bytes);
        assert_int_equal(info(&f, path, out, sizeof out), QR_OK);
        free(data);
    }
    fixture_remove(&f);
}

/* --- votes and weights --- */

static const char make_votes[] = "with h5py.File('v.h5', 'w') as f: f['votes'] = %s\n";

static qr_status read_votes(fixture *f, const char *value, uint8_t **votes)
{
    char program[256];
    snprintf(program, sizeof program, make_votes, value);
    assert_int_equal(fixture_python(f, program), 0);
    return qr_io_read_votes(path_in(f, "v.h5"), 6, 4, votes);
}

static void test_votes(void **state)
{
    (void)state;
    static const uint8_t wanted[] = {0, 3, 1, 2, 0, 3};
    static const char *const good[] = {
        "numpy.array([0, 3, 1, 2, 0, 3], 'u1')",
        "numpy.array([0, 3, 1, 2, 0, 3], '>i8')",
        "numpy.array([[9, 9, 9, 9, 9, 9], [0, 3, 1, 2, 0, 3]], 'i2')",
    };
    static const struct {
        const char *value, *message;
    } bad[] = {
        {"numpy.array([0, 3, 1, 2, 0, 4], 'u1')", "agent 5 votes 4, but options are 0 to 3"},
        {"numpy.array([0, 3, -1, 2, 0, 3], 'i1')", "agent 2 votes -1"},
        {"numpy.array([256, 0, 0, 0, 0, 3], 'i4')", "agent 0 votes 256"},
        {"numpy.array([2**64 - 1, 0, 0, 0, 0, 3], 'u8')", "agent 0 votes"},
        {"numpy.zeros(7, 'u1')", "/votes has shape (7)"},
        {"numpy.zeros((2, 5), 'u1')", "/votes has shape (2, 5)"},
        {"numpy.zeros((6, 1, 6), 'u1')", "/votes has shape (6, 1, 6)"},
        {"numpy.zeros((0, 6), 'u1')", "holds no snapshot"},
        {"numpy.uint8(3)", "/votes has shape ()"},
        {"numpy.zeros(6)", "does not hold integers"},
        {"b'text'", "does not hold integers"},
    };
    fixture f;
    fixture_directory(&f);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint8_t *votes = NULL;
        assert_int_equal(read_votes(&f, good[i], &votes), QR_OK);
        assert_memory_equal(votes, wanted, 6);
        free(votes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t *votes = NULL;
        assert_int_equal(read_votes(&f, bad[i].value, &votes), QR_USAGE);
        assert_message("v.h5: ", bad[i].message);
        assert_null(votes);
    }
    uint8_t *votes = NULL;
    assert_int_equal(qr_io_read_votes(path_in(&f, "none.h5"), 6, 4, &votes), QR_USAGE);
    assert_int_equal(qr_io_read_votes(f.directory, 6, 4, &votes), QR_USAGE);
    assert_message(f.directory, "directory");
    assert_int_equal(fixture_python(&f, "h5py.File('v.h5', 'w')['vote'] = [0]\n"), 0);
    assert_int_equal(qr_io_read_votes(path_in(&f, "v.h5"), 6, 4, &votes), QR_USAGE);
    assert_message("v.h5", "no dataset /votes");
    assert_int_equal(fixture_python(&f, "h5py.File('v.h5', 'w').create_group('votes')\n"), 0);
    assert_int_equal(qr_io_read_votes(path_in(&f, "v.h5"), 6, 4, &votes), QR_DATA);
    fixture_remove(&f);
}

/* K = 2, D = 3, H = 4; every number tells where it belongs. */
static const char make_weights[] =
    "shapes = dict(W1=(4, 7), b1=(4,), W2=(3, 4), b2=(3,), Wv=(2, 3), bv=(2,))\n"
    "start = 0\n"
    "f = h5py.File('w.h5', 'w')\n"
    "for k, s in shapes.items():\n"
    "    n = int(numpy.prod(s))\n"
    "    f[k] = (numpy.arange(n) + start).reshape(s).astype('f8' if k == 'W2' else 'f4')\n"
    "    start += n\n"
    "assert start == 55\n";

static qr_status read_weights(fixture *f, const char *change, float *out)
{
    char program[1024];
    snprintf(program, sizeof program, "%s%s\n", make_weights, change);
    assert_int_equal(fixture_python(f, program), 0);
    return qr_io_read_weights(path_in(f, "w.h5"), 2, 3, 4, out);
}

static void test_weights(void **state)
{
    (void)state;
    static const struct {
        const char *change, *message;
    } bad[] = {
        {"del f['W2']", "has no dataset /W2"},
        {"del f['W1']; f['W1'] = numpy.zeros((7, 4), 'f4')", "/W1 has shape (7, 4); the deck needs (4, 7)"},
        {"del f['b1']; f['b1'] = numpy.zeros((4, 1), 'f4')", "/b1 has shape (4, 1); the deck needs (4)"},
        {"del f['bv']; f['bv'] = numpy.zeros((3,), 'f4')", "/bv has shape (3); the deck needs (2)"},
        {"f['Wv'][1, 2] = numpy.nan", "/Wv holds a NaN at position 5"},
        {"f['b2'][0] = -numpy.inf", "/b2 holds an infinity at position 0"},
        {"f['W2'][0, 0] = 1e300", "/W2 holds an infinity at position 0"},
        {"del f['b2']; f['b2'] = [1, 2, 3]", "/b2 does not hold floating-point numbers"},
    };
    fixture f;
    fixture_directory(&f);
    float weights[55];
    assert_int_equal(read_weights(&f, "", weights), QR_OK);
    for (int i = 0; i < 55; i++) {
        assert_true(weights[i] == (float)i);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(read_weights(&f, bad[i].change, weights), QR_USAGE);
        assert_message("w.h5: ", bad[i].message);
    }
    fixture_remove(&f);
}

/* --- texts --- */

static void test_texts(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    for (size_t bytes = 0; bytes <= 300000; bytes = bytes * 3 + 4095) {
        unsigned char *data = malloc(bytes + 1);
        for (size_t i = 0; i < bytes; i++) {
            data[i] = (unsigned char)(i * 7 % 256);
        }
        save(path_in(&f, "t"), data, bytes);
        char *text = NULL;
        size_t n = 0;
        assert_int_equal(qr_io_read_text(path_in(&f, "t"), bytes, &text, &n), QR_OK);
        assert_int_equal(n, bytes);
        assert_memory_equal(text, data, bytes);
        assert_int_equal(text[bytes], 0);
        free(text);
        if (bytes > 0) {
            assert_int_equal(qr_io_read_text(path_in(&f, "t"), bytes - 1, &text, &n), QR_USAGE);
            assert_message("/t: ", "limit");
        }
        qr_io_source *source = NULL;
        assert_int_equal(qr_io_source_open(path_in(&f, "t"), &source), QR_OK);
        unsigned char buffer[1000];
        size_t got = 1;
        size_t all = 0;
        while (got > 0) {
            assert_int_equal(qr_io_source_read(source, buffer, sizeof buffer, &got), QR_OK);
            assert_memory_equal(buffer, data + all, got);
            all += got;
        }
        assert_int_equal(all, bytes);
        qr_io_source_close(source);
        free(data);
    }
    char *text = NULL;
    size_t n = 0;
    qr_io_source *source = NULL;
    assert_int_equal(qr_io_read_text(f.directory, 10, &text, &n), QR_USAGE);
    assert_message(f.directory, "cannot be read: it is a directory");
    assert_int_equal(qr_io_source_open(path_in(&f, "none"), &source), QR_USAGE);
    assert_message("/none: cannot be read: ", strerror(ENOENT));
    assert_int_equal(mkfifo(path_in(&f, "pipe"), 0600), 0);
    assert_int_equal(qr_io_source_open(path_in(&f, "pipe"), &source), QR_USAGE);
    assert_message("/pipe: cannot be read: ", "regular file");
    assert_null(source);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info_of_sound_results),
        cmocka_unit_test(test_info_of_no_results),
        cmocka_unit_test(test_info_of_altered_results),
        cmocka_unit_test(test_info_of_parts),
        cmocka_unit_test(test_info_survives_damage),
        cmocka_unit_test(test_votes),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
