/* Writers of checkpoints that are killed: at each single step that reaches the disk, also half-way through a write, and
 * at random moments. What was committed is found and whole, nothing else is, and cleaning up takes nothing that is
 * needed. */
#include "test_generation_fixture.h"

#include "io/recovery.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { GENERATIONS = 3, RANDOM_KILLS = 60, MOST_STEPS = 5000 };

/* The child is to die at this step; torn: after half of the write. */
static long die_at;
static long steps;
static bool torn;

static bool dies(void)
{
    return die_at > 0 && ++steps == die_at;
}

/* These stand before the C library's, for everything linked into this program. */
ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset)
{
    if (dies()) {
        if (torn) {
            (void)!syscall(SYS_pwrite64, file, data, bytes / 2, offset);
        }
        raise(SIGKILL);
    }
    return syscall(SYS_pwrite64, file, data, bytes, offset);
}

ssize_t write(int file, const void *data, size_t bytes)
{
    if (dies()) {
        if (torn) {
            (void)!syscall(SYS_write, file, data, bytes / 2);
        }
        raise(SIGKILL);
    }
    return syscall(SYS_write, file, data, bytes);
}

int fsync(int file)
{
    if (dies()) {
        raise(SIGKILL);
    }
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file)
{
    if (dies()) {
        raise(SIGKILL);
    }
    return (int)syscall(SYS_fdatasync, file);
}

int rename(const char *from, const char *to)
{
    if (dies()) {
        raise(SIGKILL);
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
    if (dies()) {
        raise(SIGKILL);
    }
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* Shared with the child. */
typedef struct promise {
    _Atomic int64_t committed, retired;
} promise;

static promise *promised;

/* In the child: no failure may lead back into the parent's tests. */
static void commit(const crowd *c, int64_t generation)
{
    qr_manifest_share shares[CROWD_SERVERS];
    qr_manifest_part parts[CROWD_PARTS];
    qr_manifest manifest = crowd_manifest(c, 0, generation, shares, parts);
    char *text = NULL;
    if (qr_manifest_format(&manifest, &text) != QR_OK ||
        qr_manifest_store(c->directories[0], generation, 0, text, strlen(text)) != QR_OK) {
        _exit(1);
    }
    free(text);
}

static void write_generations(crowd *c)
{
    for (int64_t generation = 1; generation <= GENERATIONS; generation++) {
        for (int k = 0; k < 2 * CROWD_SERVERS; k++) {
            if (crowd_try_share(c, 0, generation, k / 2, k % 2 == 1) != QR_OK) {
                _exit(1);
            }
        }
        commit(c, generation);
        promised->committed = generation;
        if (generation > 2) {
            promised->retired = generation - 2;
            if (qr_manifest_remove(c->directories[0], generation - 2) != QR_OK) {
                _exit(1);
            }
        }
    }
    _exit(0);
}

/* Every generation that is found is whole; the newest that was committed is among them. */
static void check(const crowd *c, bool cleaned)
{
    const char *directories[] = {c->directories[0]};
    qr_recovery *recovery = NULL;
    qr_page_scratch scratch = {0};
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    assert_int_equal(qr_recovery_scan(directories, 1, &recovery), QR_OK);
    assert_int_equal(recovery->n_damaged, 0);
    int64_t newest = recovery->n == 0 ? 0 : recovery->found[0].manifest->generation;
    int64_t oldest = recovery->n == 0 ? 0 : recovery->found[recovery->n - 1].manifest->generation;
    assert_true(newest == promised->committed || newest == promised->committed + 1);
    assert_true(promised->committed == 0 || oldest == promised->retired || oldest == promised->retired + 1);
    assert_int_equal(recovery->n, newest == 0 ? 0 : newest - oldest + 1);
    for (size_t f = 0; f < recovery->n; f++) {
        for (int s = 0; s < CROWD_SERVERS; s++) {
            qr_share *share = NULL;
            size_t n = 0;
            int64_t generation = recovery->found[f].manifest->generation;
            assert_int_equal(qr_share_open(recovery, generation, s, &share), QR_OK);
            const qr_page_record *pages = qr_share_pages(share, &n);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(qr_share_read_page(share, i, &scratch, raw), QR_OK);
                assert_true(crowd_is(c, &pages[i], generation, raw));
            }
            qr_share_close(share);
        }
    }
    assert_true(!cleaned || recovery->highest == newest || recovery->n == 0);
    qr_recovery_destroy(recovery);
    free(scratch.bytes);
    free(raw);
}

static int count_hidden(const crowd *c)
{
    DIR *directory = opendir(c->directories[0]);
    int n = 0;
    assert_non_null(directory);
    for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        n += entry->d_name[0] == '.' && strncmp(entry->d_name, "..", 3) != 0 && entry->d_name[1] != '\0';
    }
    closedir(directory);
    return n;
}

/* True when the child ended by itself. */
static bool run_writer(long step, long kill_after_us)
{
    crowd c;
    int status = 0;
    crowd_start(&c);
    c.n_agents = 400;
    c.page_agents_votes = 128;
    c.page_agents_state = CROWD_BLOCK;
    promised->committed = promised->retired = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        die_at = step;
        steps = 0;
        write_generations(&c);
    }
    if (kill_after_us > 0) {
        struct timespec pause = {.tv_nsec = kill_after_us * 1000};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    check(&c, false);
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    check(&c, true);
    assert_int_equal(count_hidden(&c), 0);
    crowd_remove(&c);
    return WIFEXITED(status);
}

static void start(void)
{
    promised = mmap(NULL, sizeof *promised, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(promised != MAP_FAILED);
}

static void die_at_each_step(bool tear, long stride)
{
    bool ended = false;
    long step = 1;
    start();
    torn = tear;
    for (; !ended && step < MOST_STEPS; step += stride) {
        ended = run_writer(step, 0);
    }
    printf("%ld writers killed\n", step / stride);
    assert_true(ended && step > 200);
    munmap(promised, sizeof *promised);
}

static void test_killed_at_each_step(void **state)
{
    (void)state;
    die_at_each_step(false, 1);
}

static void test_killed_within_each_write(void **state)
{
    (void)state;
    die_at_each_step(true, 3);
}

static void test_killed_at_random_moments(void **state)
{
    (void)state;
    start();
    srand(23);
    int killed = 0;
    for (int i = 0; i < RANDOM_KILLS; i++) {
        killed += !run_writer(0, 100 + rand() % 12000);
    }
    printf("%d of %d writers killed before their end\n", killed, RANDOM_KILLS);
    assert_true(killed > RANDOM_KILLS / 10);
    munmap(promised, sizeof *promised);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_each_step),
        cmocka_unit_test(test_killed_within_each_write),
        cmocka_unit_test(test_killed_at_random_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
