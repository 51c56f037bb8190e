/* What the I/O server says and leaves when directories and disks do not do their part. */
#include "test_io_fixture.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static const qr_queue_shape shape = {.n_slots = 3, .slot_bytes = 65536};

/* A slow device; stands before the C library's function. */
static _Atomic int device_ms;
static _Atomic int device_waits;

int fdatasync(int file)
{
    struct timespec pause = {.tv_sec = device_ms / 1000, .tv_nsec = device_ms % 1000 * 1000000L};
    nanosleep(&pause, NULL);
    device_waits++;
    return (int)syscall(SYS_fdatasync, file);
}

static void touch(const fixture *f, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("old\n", file);
    fclose(file);
}

static void assert_message(const char *first, const char *second)
{
    if (strstr(qr_error_message(), first) == NULL || strstr(qr_error_message(), second) == NULL) {
        fail_msg("message: %s", qr_error_message());
    }
    assert_null(strchr(qr_error_message(), '\n'));
}

/* --- directories --- */

static void test_directory_is_made_with_its_parents(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    char path[160];
    snprintf(path, sizeof path, "%s/a//b/c/", f.directory);
    assert_int_equal(qr_io_check_directory(path, false), QR_OK);
    assert_true(fixture_has(&f, "a/b/c"));
    assert_int_equal(qr_io_check_directory(path, false), QR_OK);
    fixture_remove(&f);
}

static void test_unusable_directories(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    touch(&f, "file");
    char path[160];
    snprintf(path, sizeof path, "%s/file", f.directory);
    assert_int_equal(qr_io_check_directory(path, false), QR_ENVIRONMENT);
    assert_message(path, "not a directory");
    snprintf(path, sizeof path, "%s/file/below", f.directory);
    assert_int_equal(qr_io_check_directory(path, true), QR_ENVIRONMENT);
    assert_message(path, strerror(ENOTDIR));
    assert_int_equal(qr_io_check_directory("", true), QR_ENVIRONMENT);
    char longer[1024];
    snprintf(longer, sizeof longer, "%s/%0300d", f.directory, 0);
    assert_int_equal(qr_io_check_directory(longer, true), QR_ENVIRONMENT);
    assert_message("", strerror(ENAMETOOLONG));
    fixture_remove(&f);
}

static void test_directory_without_the_right_to_write(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    assert_int_equal(chmod(f.directory, 0555), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0) {
            _exit(77);
        }
        bool right = qr_io_check_directory(f.directory, true) == QR_ENVIRONMENT &&
                     strstr(qr_error_message(), strerror(EACCES)) != NULL;
        char path[160];
        snprintf(path, sizeof path, "%s/new", f.directory);
        right =
            right && qr_io_check_directory(path, true) == QR_ENVIRONMENT && strstr(qr_error_message(), path) != NULL;
        /* Found out only when the files are made. */
        fixture_start(&f, 1, &shape);
        right = right && fixture_do(&f, 0, QR_JOB_OPEN) == QR_ENVIRONMENT &&
                strstr(qr_error_message(), "series.h5: cannot be made") != NULL;
        right = fixture_finish(&f, NULL) == QR_ENVIRONMENT && right;
        fixture_stop(&f);
        _exit(right ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
    assert_int_equal(chmod(f.directory, 0755), 0);
    fixture_remove(&f);
}

static void test_earlier_results(void **state)
{
    (void)state;
    static const char *const names[] = {"series.h5",      "snapshots.h5",  "snapshots.part002.h5",
                                        "snapshots.xdmf", "metrics.jsonl", "summary.json",
                                        "used.yml"};
    fixture f;
    fixture_directory(&f);
    touch(&f, "notes.txt");
    touch(&f, "snapshots.part2.h5");
    assert_int_equal(qr_io_check_directory(f.directory, false), QR_OK);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[160];
        touch(&f, names[i]);
        assert_int_equal(qr_io_check_directory(f.directory, false), QR_ENVIRONMENT);
        assert_message(f.directory, names[i]);
        snprintf(path, sizeof path, "%s/%s", f.directory, names[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        touch(&f, names[i]);
    }
    assert_int_equal(qr_io_check_directory(f.directory, true), QR_OK);
    f.config.overwrite = true;
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    assert_true(fixture_has(&f, "series.h5"));
    for (size_t i = 1; i < sizeof names / sizeof names[0]; i++) {
        assert_false(fixture_has(&f, names[i]));
    }
    assert_true(fixture_has(&f, "notes.txt") && fixture_has(&f, "snapshots.part2.h5"));
    fixture_remove(&f);
}

/* --- full disks --- */

/* Writes until something fails, then tells what every later call says. Leaves through exit, with HDF5's clean-up. */
static void write_until_full(fixture *f, qr_status expected, int cause)
{
    f->config.snapshots = true;
    f->config.compression = 0;
    f->config.n_agents = f->config.server_count = 20000;
    fixture_start(f, 1, &shape);
    qr_status status = fixture_do(f, 0, QR_JOB_OPEN);
    bool opened = status == QR_OK;
    for (int64_t i = 0; i < 2000 && status == QR_OK; i++) {
        status = fixture_rows(f, i * 10, 10);
        status = status != QR_OK ? status : fixture_votes(f, 0, i, 0, 20000);
        status = status != QR_OK ? status : fixture_do(f, 0, QR_JOB_FLUSH);
    }
    bool right = status == expected && strstr(qr_error_message(), strerror(cause)) != NULL &&
                 strstr(qr_error_message(), f->directory) != NULL && strchr(qr_error_message(), '\n') == NULL;
    if (!right) {
        fprintf(stderr, "status %d: %s\n", (int)status, qr_error_message());
    }
    /* Reported once; the server goes on answering. */
    right = right && fixture_do(f, 0, QR_JOB_FLUSH) == QR_OK && fixture_rows(f, 0, 1) == QR_OK;
    right = fixture_finish(f, NULL) == expected && right && strstr(qr_error_message(), strerror(cause)) != NULL;
    fixture_stop(f);
    right = right && !qr_io_must_exit_fast();
    exit(right ? (opened ? 0 : 10) : 1);
}

static const char check_what_is_left[] =
    "s = h5py.File('series.h5', 'r')['series']\n"
    "n = len(s['step'])\n"
    "i = numpy.arange(n)\n"
    "assert n > 0 and {len(s[k]) for k in s} == {n}\n"
    "assert (s['step'][:] == 10 * i).all() and (s['tally'][:] == i[:, None] * 1000 + numpy.arange(3)).all()\n"
    "f = h5py.File('snapshots.h5', 'r')\n"
    "m = len(f['step'])\n"
    "a = numpy.arange(20000)\n"
    "assert f['votes'].shape == (m, 20000) and abs(m - n // 10) <= 1\n"
    "assert all((f['votes'][k] == (a // 7 + a % 5 * k + k) % 3).all() for k in range(m))\n";

static int exit_code_of(pid_t child)
{
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_file_size_limit(void **state)
{
    (void)state;
    /* Bytes at which it ends: in the creation of a file, in data, in a commit. */
    static const rlim_t limits[] = {0, 100, 5000, 9000, 50000, 140000, 140001, 250000, 333333};
    int went_on = 0;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        fixture f;
        fixture_directory(&f);
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit = {limits[i], limits[i]};
            setrlimit(RLIMIT_FSIZE, &limit);
            write_until_full(&f, QR_RESOURCE, EFBIG);
        }
        int code = exit_code_of(child);
        if (code == 10) {
            assert_false(fixture_has(&f, ".series.h5.tmp"));
            assert_false(fixture_has(&f, ".snapshots.h5.tmp"));
        } else {
            assert_int_equal(code, 0);
            if (limits[i] >= 200000) {
                assert_int_equal(fixture_python(&f, check_what_is_left), 0);
            }
            went_on++;
        }
        fixture_remove(&f);
    }
    assert_true(went_on >= 3);
}

static void test_full_file_system(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    if (mount("tmpfs", f.directory, "tmpfs", 0, "size=3m") != 0) {
        fixture_remove(&f);
        print_message("no right to mount a small file system\n");
        skip();
    }
    pid_t child = fork();
    if (child == 0) {
        write_until_full(&f, QR_RESOURCE, ENOSPC);
    }
    int code = exit_code_of(child);
    fixture copy = f;
    fixture_directory(&copy);
    char command[200];
    snprintf(command, sizeof command, "cp %s/*.h5 %s", f.directory, copy.directory);
    int copied = system(command);
    assert_int_equal(umount(f.directory), 0);
    assert_int_equal(code, 0);
    assert_int_equal(copied, 0);
    assert_int_equal(fixture_python(&copy, check_what_is_left), 0);
    fixture_remove(&copy);
    fixture_remove(&f);
}

static void test_texts_that_cannot_be_written(void **state)
{
    (void)state;
    for (int mode = QR_TEXT_APPEND; mode <= QR_TEXT_REPLACE; mode++) {
        fixture f;
        fixture_directory(&f);
        fixture_start(&f, 1, &shape);
        assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
        char path[160];
        snprintf(path, sizeof path, "%s/used.yml", f.directory);
        assert_int_equal(mkdir(path, 0777), 0);
        assert_int_equal(fixture_text(&f, "used.yml", (qr_text_mode)mode, "text\n"), QR_OK);
        assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_ENVIRONMENT);
        assert_message(path, strerror(EISDIR));
        assert_false(fixture_has(&f, ".used.yml.tmp"));
        assert_int_equal(fixture_finish(&f, NULL), QR_ENVIRONMENT);
        fixture_remove(&f);
    }
}

/* --- slow disks --- */

static void test_server_shows_life_while_a_device_is_slow(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_rows(&f, 0, 1), QR_OK);
    device_ms = 1500;
    assert_int_equal(fixture_send(&f, 0, (qr_job){.kind = QR_JOB_FLUSH}, NULL), QR_OK);
    assert_int_equal(qr_queue_drain(&f.ends[0], 0.5), QR_ENVIRONMENT);
    assert_message("within 0.5 s", "it is alive, but too slow");
    assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_OK);
    device_ms = 0;
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    fixture_remove(&f);
}

static void test_slow_device_is_waited_for_less_often(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    f.config.flush_every_s = 0;
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    device_ms = 50;
    device_waits = 0;
    for (int64_t i = 0; i < 100; i++) {
        struct timespec pause = {.tv_nsec = 10000000L};
        nanosleep(&pause, NULL);
        assert_int_equal(fixture_rows(&f, i, 1), QR_OK);
    }
    assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_OK);
    assert_true(device_waits >= 2 && device_waits <= 8);
    device_ms = 0;
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    fixture_remove(&f);
}

/* --- jobs that make no sense --- */

static void refused(bool open, qr_job job)
{
    static unsigned char payload[4096];
    fixture f;
    fixture_directory(&f);
    f.config.snapshots = true;
    fixture_start(&f, 1, &shape);
    assert_int_equal(open ? fixture_do(&f, 0, QR_JOB_OPEN) : QR_OK, QR_OK);
    assert_int_equal(fixture_send(&f, 0, job, payload), QR_OK);
    assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_INTERNAL);
    assert_int_equal(fixture_finish(&f, NULL), QR_INTERNAL);
    fixture_remove(&f);
}

static void test_jobs_out_of_place(void **state)
{
    (void)state;
    refused(false, (qr_job){.kind = QR_JOB_SERIES});
    refused(false, (qr_job){.kind = QR_JOB_TEXT, .name = "a", .bytes = 1});
    refused(true, (qr_job){.kind = 99});
    refused(true, (qr_job){.kind = QR_JOB_SERIES, .count = 2, .bytes = 56});
    refused(true, (qr_job){.kind = QR_JOB_SERIES, .count = -1, .bytes = 56});
    refused(true, (qr_job){.kind = QR_JOB_SNAPSHOT, .first = 999, .count = 2, .bytes = 2});
    refused(true, (qr_job){.kind = QR_JOB_SNAPSHOT, .first = -1, .count = 2, .bytes = 2});
    refused(true, (qr_job){.kind = QR_JOB_SNAPSHOT, .first = 0, .count = 3, .bytes = 2});
    refused(true, (qr_job){.kind = QR_JOB_SNAPSHOT, .first = 0, .count = 1, .bytes = 1, .arguments = {-1}});
    refused(true, (qr_job){.kind = QR_JOB_SNAPSHOT, .first = INT64_MAX, .count = INT64_MAX, .bytes = 1});
    refused(true, (qr_job){.kind = QR_JOB_TEXT, .name = "../a", .bytes = 1});
    refused(true, (qr_job){.kind = QR_JOB_TEXT, .name = ".a", .bytes = 1});
    refused(true, (qr_job){.kind = QR_JOB_TEXT, .name = "", .bytes = 1});
    refused(true, (qr_job){.kind = QR_JOB_TEXT, .name = "a", .bytes = 1, .flags = 2});
}

static void test_votes_that_come_twice(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    f.config.snapshots = true;
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_votes(&f, 0, 0, 0, 600), QR_OK);
    assert_int_equal(fixture_votes(&f, 0, 0, 300, 700), QR_OK);
    assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_INTERNAL);
    assert_message("snapshots.h5", "twice");
    assert_int_equal(fixture_finish(&f, NULL), QR_INTERNAL);
    assert_int_equal(fixture_python(&f, "assert h5py.File('snapshots.h5', 'r')['votes'].shape == (0, 1000)\n"), 0);
    fixture_remove(&f);
}

static void test_stopped_from_outside(void **state)
{
    (void)state;
    fixture f;
    fixture_directory(&f);
    fixture_start(&f, 1, &shape);
    assert_int_equal(fixture_do(&f, 0, QR_JOB_OPEN), QR_OK);
    assert_int_equal(fixture_rows(&f, 0, 5), QR_OK);
    assert_int_equal(qr_queue_drain(&f.ends[0], FIXTURE_WAIT_S), QR_OK);
    assert_int_equal(fixture_finish(&f, NULL), QR_OK);
    fixture_stop(&f);
    /* The same loop in this thread: it closes its files though no producer finishes. */
    f.config.overwrite = true;
    f.memory[0] = malloc(qr_queue_bytes(&shape));
    f.n_queues = 1;
    assert_int_equal(qr_queue_create(f.memory[0], qr_queue_bytes(&shape), &shape, &f.server_ends[0]), QR_OK);
    assert_int_equal(qr_queue_attach(f.memory[0], qr_queue_bytes(&shape), &f.ends[0]), QR_OK);
    assert_int_equal(qr_io_server_create(&f.config, f.server_ends, 1, &f.server), QR_OK);
    volatile bool keep_going = false;
    assert_int_equal(qr_io_server_run(f.server, &keep_going, NULL), QR_OK);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory_is_made_with_its_parents),
        cmocka_unit_test(test_unusable_directories),
        cmocka_unit_test(test_directory_without_the_right_to_write),
        cmocka_unit_test(test_earlier_results),
        cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_full_file_system),
        cmocka_unit_test(test_texts_that_cannot_be_written),
        cmocka_unit_test(test_server_shows_life_while_a_device_is_slow),
        cmocka_unit_test(test_slow_device_is_waited_for_less_often),
        cmocka_unit_test(test_jobs_out_of_place),
        cmocka_unit_test(test_votes_that_come_twice),
        cmocka_unit_test(test_stopped_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
