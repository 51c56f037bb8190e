/* A copy's file that fails to close, as on a full network disk: its number is not closed again, for it may be another
 * file's by then. close() is this program's own here. */
#include "test_checkpoint_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool armed;
static int failed = -1;
static int again;

static bool is_copy(int file)
{
    char link[64];
    char path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return strstr(path, ".replica.h5") != NULL;
}

int close(int file)
{
    pthread_mutex_lock(&lock);
    int result = 0;
    int error = 0;
    if (armed && failed < 0 && is_copy(file)) {
        failed = file;
        int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
        error = dup3(other, file, O_CLOEXEC) == file ? EDQUOT : errno; /* the number is another file's at once */
        (void)syscall(SYS_close, other);
        result = -1;
    } else if (failed >= 0 && file == failed) {
        again++;
    } else {
        result = (int)syscall(SYS_close, file);
        error = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = result != 0 ? error : errno;
    return result;
}

static void test_a_failed_close_is_the_last(void **state)
{
    (void)state;
    site *s = site_create(2);
    for (int i = 0; i < 2; i++) {
        s->servers[i].config.replicas = 1;
        s->servers[i].config.consistency = QR_CONSISTENCY_ALL;
    }
    site_start(s);
    armed = true;
    site_begin(s, 1, QR_TIER_NVME);
    site_send_pages(s, 1, QR_TIER_NVME);
    int n_failed = 0;
    for (int i = 0; i < 2; i++) {
        n_failed += site_wait(s, i, QR_TIER_NVME, 1, QR_CUT_NONE) == QR_CUT_FAILED ? 1 : 0;
    }
    assert_true(n_failed >= 1);
    assert_true(failed >= 0);
    site_abandon(s, 1, QR_TIER_NVME);
    site_cut(s, 2, QR_TIER_NVME);
    site_stop(s, 0);
    site_stop(s, 1);
    assert_int_equal(again, 0);
    site_verify_tier(s, QR_TIER_NVME, 2);
    site_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_failed_close_is_the_last)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
