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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_and_texts),
        cmocka_unit_test(test_flush_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
