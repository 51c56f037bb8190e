/* The store of pages beside what other runs left behind, or hold. */
#include "test_page_store_fixture.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <xxhash.h>

enum { PAGE = 16 * 1024, BLOCK = 4096 };

/* A process with a store in the same directories: its id once the store stands. */
static pid_t start_child(const shelf *s, const char *run_id, int attempt)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        qr_page_store_config config = s->config;
        qr_page_store *store = NULL;
        config.run_id = run_id;
        config.attempt = attempt;
        byte = qr_page_store_create(&config, NULL, 0, &store) == QR_OK ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1) {
            pause();
        }
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    close(ready[0]);
    return child;
}

static void kill_child(pid_t child)
{
    int status = 0;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
}

static void test_abandoned_stores_are_removed(void **state)
{
    (void)state;
    char path[256];
    shelf *s = shelf_create(PAGE);
    pid_t other = start_child(s, "another", 0);
    pid_t earlier = start_child(s, shelf_run, 0);
    s->config.attempt = 1;
    shelf_start(s);
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 3); /* both live */
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    shelf_stop(s, SHELF_WAIT_S);
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 2);
    kill_child(earlier);
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 2);
    shelf_start(s);
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 2);
    kill_child(other);
    shelf_stop(s, SHELF_WAIT_S);
    shelf_start(s);
    for (int t = 0; t < QR_N_TIERS; t++) {
        assert_int_equal(shelf_files(s, t, path), 1);
        assert_non_null(strstr(path, shelf_run));
    }
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_DATA);
    shelf_remove(s);
}

/* Its very own name, in use or left behind. */
static void test_own_name(void **state)
{
    (void)state;
    char path[256];
    shelf *s = shelf_create(PAGE);
    qr_page_store *store = NULL;
    pid_t child = start_child(s, shelf_run, 0);
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_ENVIRONMENT);
    assert_non_null(strstr(qr_error_message(), "is in use by another process"));
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 1);
    kill_child(child);
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    shelf_remove(s);
}

static void write_file(const shelf *s, const char *name, const char *text, size_t bytes, int64_t age_s)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", s->directories[QR_TIER_NVME], name);
    int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, bytes), (ssize_t)bytes);
    struct timespec times[2] = {{.tv_sec = time(NULL) - age_s}, {.tv_sec = time(NULL) - age_s}};
    assert_int_equal(futimens(file, times), 0);
    close(file);
}

static bool has_file(const shelf *s, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", s->directories[QR_TIER_NVME], name);
    return access(path, F_OK) == 0;
}

/* What has the name and is no store, what is not whole, and what stands beside it. */
static void test_what_is_left_alone(void **state)
{
    (void)state;
    static char text[2 * BLOCK];
    char path[256];
    shelf *s = shelf_create(PAGE);
    pid_t child = start_child(s, "another", 0);
    int file = shelf_open(s, QR_TIER_NVME, path);
    assert_int_equal(pread(file, text, BLOCK, 0), BLOCK);
    shelf_flip(file, 40, 2);
    close(file);
    kill_child(child);
    write_file(s, "pages.young.qps", "", 0, 0);
    write_file(s, "pages.empty.qps", "", 0, 100);
    write_file(s, "pages.short.qps", text, 100, 100);
    write_file(s, "pages.dead.qps", text, BLOCK, 0);
    write_file(s, "pages.dead.txt", text, BLOCK, 0);
    memset(text + BLOCK, 'x', BLOCK);
    write_file(s, "pages.mine.qps", text + BLOCK, BLOCK, 100000);
    shelf_start(s);
    assert_true(has_file(s, "pages.young.qps"));
    assert_false(has_file(s, "pages.empty.qps"));
    assert_false(has_file(s, "pages.short.qps"));
    assert_false(has_file(s, "pages.dead.qps"));
    assert_true(has_file(s, "pages.dead.txt"));
    assert_true(has_file(s, "pages.mine.qps"));
    assert_int_equal(access(path, F_OK), 0); /* its head is damaged: whose it is cannot be told */
    shelf_remove(s);
}

static void write_head(const shelf *s, const char *name, const char *run_id, const char *host, int64_t age_s)
{
    static char head[BLOCK];
    memset(head, 0, sizeof head);
    int n = snprintf(head, sizeof head,
                     "quorate page store 1\nrun %s\nserver 0\nattempt 3\nhost %s\nboot 1-2-3\npid 1\nstarted 5\ntier "
                     "nvme\nnonce 0\n",
                     run_id, host);
    snprintf(head + n, sizeof head - (size_t)n, "check %016" PRIx64 "\n", (uint64_t)XXH3_64bits(head, (size_t)n));
    write_file(s, name, head, sizeof head, age_s);
}

/* Of another machine, whose locks may not be seen: left alone until nobody has written for a day, unless it is an
 * earlier attempt of this run. Of this machine, before it was started anew: gone. */
static void test_other_machines(void **state)
{
    (void)state;
    enum { DAY_S = 24 * 60 * 60 };
    char host[128] = "";
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    shelf_stop(s, SHELF_WAIT_S);
    assert_int_equal(gethostname(host, sizeof host), 0);
    write_head(s, "pages.young.qps", "another", "elsewhere", 100);
    write_head(s, "pages.old.qps", "another", "elsewhere", DAY_S + 10);
    write_head(s, "pages.same.qps", shelf_run, "elsewhere", 100);
    write_head(s, "pages.booted.qps", "another", host, 0);
    s->config.attempt = 3;
    shelf_start(s);
    assert_true(has_file(s, "pages.same.qps")); /* perhaps another server's of this very attempt */
    shelf_stop(s, SHELF_WAIT_S);
    s->config.attempt = 4;
    shelf_start(s);
    assert_true(has_file(s, "pages.young.qps"));
    assert_false(has_file(s, "pages.old.qps"));
    assert_false(has_file(s, "pages.same.qps"));
    assert_false(has_file(s, "pages.booted.qps"));
    shelf_remove(s);
}

static void test_stores_that_cannot_be_made(void **state)
{
    (void)state;
    char path[256];
    shelf *s = shelf_create(PAGE);
    qr_page_store *store = NULL;
    assert_int_equal(qr_fault_set("pages.create=ssd:ENOSPC,pages.create=hdd:EACCES@2"), QR_OK);
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_RESOURCE);
    assert_non_null(strstr(qr_error_message(), s->directories[QR_TIER_SSD]));
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 0);
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_OK);
    qr_page_store_destroy(store, SHELF_WAIT_S);
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_ENVIRONMENT);
    assert_non_null(strstr(qr_error_message(), "Permission denied"));
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    snprintf(path, sizeof path, "%s/file", s->root);
    close(open(path, O_CREAT | O_WRONLY, 0666));
    s->config.tiers[QR_TIER_SSD].directory = path;
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_ENVIRONMENT);
    assert_non_null(strstr(qr_error_message(), path));
    s->config.tiers[QR_TIER_SSD].directory = s->directories[QR_TIER_SSD];
    s->config.run_id = NULL;
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_INTERNAL);
    s->config.run_id = "../x";
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_INTERNAL);
    assert_int_equal(shelf_files(s, QR_TIER_NVME, path), 0);
    shelf_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_abandoned_stores_are_removed), cmocka_unit_test(test_own_name),
        cmocka_unit_test(test_what_is_left_alone),           cmocka_unit_test(test_other_machines),
        cmocka_unit_test(test_stores_that_cannot_be_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
