/* The I/O server: what it writes is read back with stock h5py. */
#include "test_io_fixture.h"

static const qr_queue_shape shape = {.n_slots = 3, .slot_bytes = 8192};

static const char check_series[] = "f = h5py.File('series.h5', 'r')\n"
                                   "n = 2500\n"
                                   "s = f['series']\n"
                                   "assert sorted(s) == ['decided', 'leader', 'step', 'tally', 'winner']\n"
                                   "i = numpy.arange(n)\n"
                                   "assert s['step'].dtype == 'i8' and (s['step'][:] == 10 * i).all()\n"
                                   "assert s['leader'].dtype == 'i8' and (s['leader'][:] == i).all()\n"
                                   "assert s['winner'].dtype == 'i8' and (s['winner'][:] == i % 3).all()\n"
                                   "assert s['decided'].dtype == 'u1' and (s['decided'][:] == (i >= 100)).all()\n"
                                   "assert s['tally'].dtype == 'u8' and s['tally'].shape == (n, 3)\n"
                                   "assert (s['tally'][:] == i[:, None] * 1000 + numpy.arange(3)).all()\n"
                                   "assert all(s[k].attrs['unit'] and s[k].attrs['meaning'] for k in s)\n"
                                   "assert f.attrs['title'] == 'A test' and f.attrs['version'] == '1.2.3'\n"
                                   "assert f.attrs['deck'] == 'run: {seed: 7}\\n# caf\\u00e9\\n'\n"
                                   "assert f.attrs['n_agents'] == 1000 and f.attrs['n_options'] == 3\n"
                                   "pages = {h5py.h5o.get_info(s[k].id).addr // 4096 for k in s}\n"
                                   "assert len(pages) == 1, pages\n";

static void send_rows(fixture *f)
{
    int64_t sizes[] = {1, 99, 70, 130, 0};
    int64_t sent = 0;
    for (int i = 0; sent < 2500; i++) {
        int64_t n = sizes[i % 5] < 2500 - sent ? sizes[i % 5] : 2500 - sent;
        assert_int_equal(fixture_rows(f, sent, n), QR_OK);
        sent += n;
        if (i % 7 == 6) {
            assert_int_equal(fixture_do(f, 0, QR_JOB_FLUSH), QR_OK);
        }
    }
}

static void test_series_and_texts(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_true(fixture_has(&f, "series.h5"));
    assert_false(fixture_has(&f, "snapshots.h5"));
    assert_int_equal(fixture_text(&f, "used.yml", QR_TEXT_REPLACE, "first: 1\n"), QR_OK);
    assert_int_equal(fixture_text(&f, "used.yml", QR_TEXT_REPLACE, "second: 2\n"), QR_OK);
    assert_int_equal(fixture_text(&f, "used.yml", QR_TEXT_APPEND, "third: 3\n"), QR_OK);
    assert_int_equal(fixture_text(&f, "metrics.jsonl", QR_TEXT_APPEND, "{\"a\":1}\n"), QR_OK);
    send_rows(&f);
    assert_int_equal(fixture_text(&f, "metrics.jsonl", QR_TEXT_APPEND, "{\"a\":2}\n"), QR_OK);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_FLUSH), QR_OK);
    assert_int_equal(fixture_python(&f, check_series), 0); /* while the server has it open */
    qr_io_totals totals = {0};
    assert_int_equal(fixture_finish(&f, &totals), QR_OK);
    assert_true(totals.jobs > 20 && totals.bytes_in > 2500 * 56 && totals.bytes_written > 2500 * 49);
    assert_true(totals.busy_s > 0 && totals.flush_s > 0);
    assert_int_equal(fixture_python(&f, check_series), 0);
    assert_int_equal(fixture_python(&f, "assert open('used.yml').read() == 'second: 2\\nthird: 3\\n'\n"
                                        "assert open('metrics.jsonl').read() == '{\"a\":1}\\n{\"a\":2}\\n'\n"
                                        "import os\n"
                                        "assert not [n for n in os.listdir('.') if n.startswith('.')]\n"),
                     0);
    fixture_remove(&f);
}

/* Whoever opens the files knows what agents are computed with. */
static void test_precision(void **state)
{
    (void)state;
    for (int fast = 0; fast < 2; fast++) {
        fixture f;
        fixture_directory(&f);
        fixture_start(&f, 1, &shape);
        qr_job open = {.kind = QR_JOB_OPEN, .flags = fast};
        assert_int_equal(fixture_send(&f, 0, open, NULL), QR_OK);
        qr_io_totals totals = {0};
        assert_int_equal(fixture_finish(&f, &totals), QR_OK);
        assert_int_equal(fixture_python(&f, fast ? "assert h5py.File('series.h5').attrs['precision'] == 'fast'"
                                                 : "assert h5py.File('series.h5').attrs['precision'] == 'exact'"),
                         0);
        fixture_remove(&f);
    }
}

static void test_flush_by_time(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    f.config.flush_every_s = 0.05;
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_rows(&f, 0, 5), QR_OK);
    assert_int_equal(fixture_python(&f, "import time\n"
                                        "for i in range(200):\n"
                                        "    if len(h5py.File('series.h5', 'r')['series/step']) == 5: sys.exit(0)\n"
                                        "    time.sleep(0.05)\n"
                                        "sys.exit(1)\n"),
                     0);
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    fixture_remove(&f);
}

#define CHECK_VOTES                                                                                                    \
    "def votes(i, n):\n"                                                                                               \
    "    a = numpy.arange(n)\n"                                                                                        \
    "    return (a // 7 + a % 5 * i + i) % 3\n"

static const char check_snapshots[] =
    CHECK_VOTES "f = h5py.File('snapshots.h5', 'r')\n"
                "v = f['votes']\n"
                "assert v.shape == (6, 1000) and v.dtype == 'u1', v.shape\n"
                "assert (f['step'][:] == 100 * numpy.arange(6)).all() and f['step'].dtype == 'i8'\n"
                "assert all((v[i] == votes(i, 1000)).all() for i in range(6))\n"
                "assert all(f[k].attrs['unit'] and f[k].attrs['meaning'] for k in f)\n"
                "assert f.attrs['n_agents'] == 1000 and f.attrs['title'] == 'A test'\n";

/* Snapshots come in pieces, two of them mixed, and the last one stays incomplete. */
static void send_snapshots(fixture *f)
{
    for (int64_t i = 0; i < 4; i++) {
        assert_int_equal(fixture_votes(f, 0, i, 0, 600), QR_OK);
        assert_int_equal(fixture_votes(f, 0, i, 600, 400), QR_OK);
    }
    assert_int_equal(fixture_do(f, 0, QR_JOB_FLUSH), QR_OK);
    assert_int_equal(fixture_votes(f, 0, 5, 300, 700), QR_OK);
    assert_int_equal(fixture_votes(f, 0, 4, 0, 1), QR_OK);
    assert_int_equal(fixture_votes(f, 0, 5, 0, 300), QR_OK);
    assert_int_equal(fixture_do(f, 0, QR_JOB_FLUSH), QR_OK);
    assert_int_equal(fixture_python(f, "assert h5py.File('snapshots.h5', 'r')['votes'].shape == (4, 1000)\n"), 0);
    assert_int_equal(fixture_votes(f, 0, 4, 1, 999), QR_OK);
    assert_int_equal(fixture_votes(f, 0, 6, 0, 999), QR_OK);
    assert_int_equal(fixture_do(f, 0, QR_JOB_FLUSH), QR_OK);
    assert_int_equal(fixture_python(f, check_snapshots), 0);
}

static void test_snapshots(void **state)
{
    (void)state;
    for (int64_t level = 0; level <= 9; level += 3) {
        fixture f;
        fixture_directory(&f);
        f.config.snapshots = true;
        f.config.compression = level;
        fixture_start(&f, 1, &shape);
        assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
        send_snapshots(&f);
        qr_io_totals totals = {0};
        assert_int_equal(fixture_finish(&f, &totals), QR_OK);
        assert_int_equal(totals.snapshots, 6);
        assert_int_equal(fixture_python(&f, check_snapshots), 0);
        assert_false(fixture_has(&f, "snapshots.xdmf"));
        fixture_remove(&f);
    }
}

/* More than the server keeps in memory: 3 incompressible snapshots of 70 Mi agents in 4 MiB pieces. */
static void test_large_snapshots_go_to_the_file_early(void **state)
{
    (void)state;
    enum { AGENTS = 70 * 1024 * 1024 + 5, PIECE = 4 * 1024 * 1024 };
    static const qr_queue_shape large = {.n_slots = 2, .slot_bytes = PIECE};
    fixture f;
    fixture_directory(&f);
    f.config.snapshots = true;
    f.config.n_agents = f.config.server_count = AGENTS;
    f.config.n_options = 256;
    f.config.compression = 0;
    fixture_start(&f, 1, &large);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    for (int64_t i = 0; i < 2; i++) {
        /* The last agent is missing while a flush comes: nothing of this snapshot may show. */
        assert_int_equal(fixture_votes(&f, 0, i, 0, AGENTS - 1), QR_OK);
        assert_int_equal(fixture_do(&f, 0, QR_JOB_FLUSH), QR_OK);
        char check[128];
        snprintf(check, sizeof check, "assert len(h5py.File('snapshots.h5', 'r')['votes']) == %d\n", (int)i);
        assert_int_equal(fixture_python(&f, check), 0);
        if (i == 0) {
            assert_int_equal(fixture_votes(&f, 0, i, AGENTS - 1, 1), QR_OK);
        }
    }
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    assert_int_equal(fixture_python(&f, CHECK_VOTES "f = h5py.File('snapshots.h5', 'r')\n"
                                                    "assert f['votes'].shape == (1, 70 * 2**20 + 5)\n"
                                                    "assert f['step'].shape == (1,)\n"
                                                    "assert (f['votes'][0] == votes(0, 70 * 2**20 + 5)).all()\n"),
                     0);
    fixture_remove(&f);
}

/* Two servers in one directory: parts, and one file that joins them, from any working directory. */
static void test_parts_are_joined(void **state)
{
    (void)state;
    static const int64_t starts[] = {0, 400, 1000};
    fixture zero;
    fixture one;
    fixture_directory(&zero);
    zero.config.snapshots = true;
    zero.config.n_servers = 2;
    zero.config.server_starts = starts;
    zero.config.dims = 2;
    zero.config.size[0] = 50;
    zero.config.size[1] = 20;
    one = zero;
    one.config.directory = zero.directory;
    zero.config.directory = zero.directory;
    zero.config.server_count = 400;
    one.config.server = 1;
    one.config.server_first = 400;
    one.config.server_count = 600;
    fixture_start(&zero, 1, &shape);
    fixture_start(&one, 2, &shape);
    assert_int_equal(fixture_do(&one, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_do(&one, 1, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_do(&zero, 0, QR_JOB_OPEN), QR_OK);
    for (int64_t i = 0; i < 6; i++) {
        assert_int_equal(fixture_votes(&one, (int)(i % 2), i, 400, 100), QR_OK);
        assert_int_equal(fixture_votes(&one, 1, i, 500, 500), QR_OK);
        assert_int_equal(fixture_votes(&zero, 0, i, 0, 400), QR_OK);
    }
    assert_int_equal(fixture_finish(&one, NULL), QR_OK);
    assert_int_equal(fixture_finish(&zero, NULL), QR_OK);
    assert_int_equal(fixture_python(&zero, check_snapshots), 0);
    assert_int_equal(fixture_python(&zero, CHECK_VOTES "import os\n"
                                                       "here = os.getcwd()\n"
                                                       "os.chdir('/')\n"
                                                       "v = h5py.File(here + '/snapshots.h5', 'r')['votes']\n"
                                                       "assert (v[5] == votes(5, 1000)).all()\n"),
                     0);
    assert_int_equal(qr_io_info(zero.directory), QR_OK);
    fixture_stop(&one);
    fixture_remove(&zero);
}

static const char check_xdmf[] =
    "import xml.etree.ElementTree as E\n"
    "grids = E.parse('snapshots.xdmf').getroot().findall('./Domain/Grid/Grid')\n"
    "f = h5py.File('snapshots.h5', 'r')\n"
    "assert len(grids) == len(f['votes']) == 4\n"
    "for row, g in enumerate(grids):\n"
    "    assert float(g.find('Time').attrib['Value']) == f['step'][row]\n"
    "    dims = [int(x) for x in g.find('Topology').attrib['Dimensions'].split()]\n"
    "    assert g.find('Topology').attrib['TopologyType'] == '%dDCoRectMesh' % len(dims)\n"
    "    slab, = g.findall('./Attribute/DataItem')\n"
    "    select, source = slab.findall('DataItem')\n"
    "    start, column, stride, one, count, width = [int(x) for x in select.text.split()]\n"
    "    name, path = source.text.split(':')\n"
    "    v = h5py.File(name, 'r')[path]\n"
    "    assert [int(x) for x in source.attrib['Dimensions'].split()] == list(v.shape)\n"
    "    a = v[start:start + count, column:column + width].reshape(dims)\n"
    "    assert dims == [int(x) for x in slab.attrib['Dimensions'].split()] == DIMS\n"
    "    p = numpy.array(dims) - 1\n"
    "    assert a[tuple(p)] == v[row, 999] and a.flat[50] == v[row, 50]\n";

static void test_xdmf_of_lattices(void **state)
{
    (void)state;
    for (int dims = 2; dims <= 3; dims++) {
        fixture f;
        fixture_directory(&f);
        f.config.snapshots = true;
        f.config.dims = dims;
        f.config.size[0] = 5;
        f.config.size[1] = dims == 2 ? 200 : 10;
        f.config.size[2] = 20;
        fixture_start(&f, 1, &shape);
        assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
        for (int64_t i = 0; i < 4; i++) {
            assert_int_equal(fixture_votes(&f, 0, i, 0, 1000), QR_OK);
        }
        assert_int_equal(fixture_do(&f, 0, QR_JOB_FLUSH), QR_OK);
        char program[sizeof check_xdmf + 64];
        snprintf(program, sizeof program, "DIMS = %s\n%s", dims == 2 ? "[200, 5]" : "[20, 10, 5]", check_xdmf);
        assert_int_equal(fixture_python(&f, program), 0);
        assert_int_equal(fixture_finish(&f, NULL), QR_OK);
        fixture_remove(&f);
    }
}

static void test_many_rows_and_snapshots_split_the_index(void **state)
{
    (void)state;
    enum { SNAPSHOTS = 5000 };
    fixture f;
    fixture_directory(&f);
    f.config.snapshots = true;
    f.config.n_agents = f.config.server_count = 10;
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    for (int64_t i = 0; i < SNAPSHOTS; i++) {
        assert_int_equal(fixture_votes(&f, 0, i, 0, 10), QR_OK);
        if (i % 100 == 0) {
            assert_int_equal(fixture_rows(&f, i, 100), QR_OK);
            assert_int_equal(fixture_do(&f, 0, QR_JOB_FLUSH), QR_OK);
        }
    }
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    assert_int_equal(fixture_python(&f,
                                    CHECK_VOTES "f = h5py.File('snapshots.h5', 'r')\n"
                                                "v = f['votes'][:]\n"
                                                "assert v.shape == (5000, 10)\n"
                                                "assert (v == numpy.array([votes(i, 10) for i in range(5000)])).all()\n"
                                                "assert (f['step'][:] == 100 * numpy.arange(5000)).all()\n"),
                     0);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_and_texts),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_flush_by_time),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_large_snapshots_go_to_the_file_early),
        cmocka_unit_test(test_parts_are_joined),
        cmocka_unit_test(test_xdmf_of_lattices),
        cmocka_unit_test(test_many_rows_and_snapshots_split_the_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
