/* Result files open in stock h5py, with all that was flushed, whenever the writer is killed: at random moments, and at
 * each single write that it makes, also when that write stops at a page's end. */
#include "test_io_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { PAGE = 4096, RANDOM_KILLS = 100, DEEP_KILLS = 24, MOST_DIRECTORIES = 4000 };

/* The child is to die at its die_at-th write, or write of a node of a chunk index; torn: after the bytes up to the next
 * page's end. */
static _Atomic long die_at;
static _Atomic long writes_done;
static bool torn;
static bool nodes_only;

static bool counts(const void *data, size_t bytes)
{
    return !nodes_only || (bytes > 8 && memcmp(data, "TREE\1", 5) == 0);
}

/* Stands before the C library's, for everything linked into this program. */
ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset)
{
    if (die_at > 0 && counts(data, bytes) && ++writes_done == die_at) {
        size_t part = PAGE - (size_t)(offset % PAGE);
        if (torn && part < bytes) {
            (void)!syscall(SYS_pwrite64, file, data, part, offset);
        }
        raise(SIGKILL);
    }
    return syscall(SYS_pwrite64, file, data, bytes, offset);
}

/* What the child knows to be durable; shared with the parent. */
typedef struct promise {
    _Atomic int64_t rows, snapshots;
} promise;

static promise *promised;

/* Rows and snapshots for ever or up to n_snapshots, with a flush every now and then. */
static void write_results(fixture *f, int64_t n_snapshots, int64_t rows_each, int64_t flush_every)
{
    static const qr_queue_shape shape = {.n_slots = 3, .slot_bytes = 8192};
    fixture_start(f, 1, &shape);
    bool done = fixture_do(f, 0, QR_JOB_OPEN) == QR_OK;
    for (int64_t i = 0; done && i < n_snapshots; i++) {
        done = fixture_rows(f, i * rows_each, rows_each) == QR_OK &&
               fixture_votes(f, 0, i, 0, f->config.n_agents) == QR_OK;
        if (done && i % flush_every == 0) {
            done = fixture_do(f, 0, QR_JOB_FLUSH) == QR_OK;
            promised->rows = (i + 1) * rows_each;
            promised->snapshots = i + 1;
        }
    }
    done = fixture_finish(f, NULL) == QR_OK && done;
    fixture_stop(f);
    _exit(done ? 0 : 1);
}

static const char checker[] = "import os\n"
                              "def votes(i, n):\n"
                              "    a = numpy.arange(n)\n"
                              "    return (a // 7 + a % 5 * i + i) % 3\n"
                              "bad = partly = 0\n"
                              "names = sorted(os.listdir('.'))\n"
                              "for d in names:\n"
                              "    if not os.path.isdir(d): continue\n"
                              "    rows, snapshots, agents = [int(x) for x in open(d + '/promise').read().split()]\n"
                              "    try:\n"
                              "        if rows == 0 and not os.path.exists(d + '/series.h5'): continue\n"
                              "        s = h5py.File(d + '/series.h5', 'r')['series']\n"
                              "        n = len(s['step'])\n"
                              "        i = numpy.arange(n)\n"
                              "        assert n >= rows, (n, rows)\n"
                              "        assert {len(s[k]) for k in s} == {n}, {k: len(s[k]) for k in s}\n"
                              "        assert (s['step'][:] == 10 * i).all() and (s['leader'][:] == i).all()\n"
                              "        assert (s['tally'][:] == i[:, None] * 1000 + numpy.arange(3)).all()\n"
                              "        if snapshots == 0 and not os.path.exists(d + '/snapshots.h5'): continue\n"
                              "        f = h5py.File(d + '/snapshots.h5', 'r')\n"
                              "        m = len(f['step'])\n"
                              "        assert m >= snapshots, (m, snapshots)\n"
                              "        assert f['votes'].shape == (m, agents), (m, f['votes'].shape)\n"
                              "        assert (f['step'][:] == 100 * numpy.arange(m)).all()\n"
                              "        v = f['votes'][:]\n"
                              "        assert all((v[k] == votes(k, agents)).all() for k in range(m))\n"
                              "        partly += 0 < m\n"
                              "    except Exception as e:\n"
                              "        bad += 1\n"
                              "        print(d, repr(e))\n"
                              "print(len(names) - 1, 'killed writers,', partly, 'with snapshots,', bad, 'damaged')\n"
                              "sys.exit(1 if bad or partly < len(names) // 4 else 0)\n";

/* Forks a writer into directory top/<n>; kills it after kill_after_us unless that is 0. True when it ended by itself.
 */
static bool run_writer(const fixture *top, int n, int64_t n_agents, int64_t n_snapshots, int64_t rows_each,
                       int64_t flush_every, long kill_after_us)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%05d", top->directory, n);
    assert_int_equal(mkdir(path, 0777), 0);
    promised->rows = promised->snapshots = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fixture f = *top;
        f.config.directory = path;
        f.config.snapshots = true;
        f.config.dims = 0;
        f.config.n_agents = f.config.server_count = n_agents;
        write_results(&f, n_snapshots, rows_each, flush_every);
    }
    if (kill_after_us > 0) {
        struct timespec pause = {.tv_nsec = kill_after_us * 1000};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    char file[160];
    snprintf(file, sizeof file, "%s/promise", path);
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    fprintf(out, "%lld %lld %lld\n", (long long)promised->rows, (long long)promised->snapshots, (long long)n_agents);
    fclose(out);
    return WIFEXITED(status);
}

static void start(fixture *top)
{
    fixture_directory(top);
    promised = mmap(NULL, sizeof *promised, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(promised != MAP_FAILED);
}

static void finish(fixture *top)
{
    assert_int_equal(fixture_python(top, checker), 0);
    munmap(promised, sizeof *promised);
    fixture_remove(top);
}

static void test_killed_at_random_moments(void **state)
{
    (void)state;
    fixture top;
    start(&top);
    srand(20);
    for (int n = 0; n < RANDOM_KILLS; n++) {
        long us = 5000 + rand() % 60000;
        run_writer(&top, n, n % 2 == 0 ? 10 : 100000, INT64_C(1) << 40, 1 + n % 50, 1 + n % 7, us);
    }
    finish(&top);
}

static void die_at_each_write(bool tear, int stride)
{
    fixture top;
    start(&top);
    torn = tear;
    bool ended = false;
    int n = 1;
    for (; !ended && n < MOST_DIRECTORIES; n += stride) {
        die_at = n;
        /* 85 snapshots: more than a node of the index holds. */
        ended = run_writer(&top, n, 5000, 85, 30, 17, 0);
    }
    assert_true(ended && n > 100);
    die_at = 0;
    finish(&top);
}

static void test_killed_at_each_write(void **state)
{
    (void)state;
    die_at_each_write(false, 1);
}

static void test_killed_within_each_write(void **state)
{
    (void)state;
    die_at_each_write(true, 2);
}

/* Nodes split and split again: killed at each write of a node. */
static void test_killed_while_the_index_grows(void **state)
{
    (void)state;
    fixture top;
    start(&top);
    torn = false;
    nodes_only = true;
    bool ended = false;
    int n = 1;
    for (; !ended && n < MOST_DIRECTORIES; n++) {
        die_at = n;
        ended = run_writer(&top, n, 10, 700, 1, 9, 0);
    }
    assert_true(ended && n > 100);
    nodes_only = false;
    die_at = 0;
    finish(&top);
}

/* Thousands of chunks: an index of three levels. */
static void test_killed_with_a_deep_index(void **state)
{
    (void)state;
    fixture top;
    start(&top);
    srand(21);
    torn = nodes_only = true;
    for (int n = 0; n < DEEP_KILLS; n++) {
        die_at = 1 + rand() % 150;
        run_writer(&top, n, 10, 4500, 1, 70 + n, 0);
    }
    torn = nodes_only = false;
    die_at = 0;
    finish(&top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_random_moments), cmocka_unit_test(test_killed_at_each_write),
        cmocka_unit_test(test_killed_within_each_write), cmocka_unit_test(test_killed_while_the_index_grows),
        cmocka_unit_test(test_killed_with_a_deep_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
