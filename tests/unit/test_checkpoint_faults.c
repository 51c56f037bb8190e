/* Disks that are full, read-only, gone, failing, hanging: the tier says so and the run goes on, on the next tier. */
#include "test_checkpoint_fixture.h"

#include <fcntl.h>

static bool only_first(site *s)
{
    return site_count(s, 0, QR_TIER_NVME) == 3 && site_has(s, 0, QR_TIER_NVME, 1, ".manifest");
}

/* Each step of a generation fails once, for each cause: said with path and cause, nothing is left over, the next tier
 * takes the generation, and this one the next. */
static void test_every_step_fails(void **state)
{
    (void)state;
    static const char *const steps[] = {"begin", "write@1",   "write@30", "fsync",   "rename",
                                        "index", "directory", "sealed",   "manifest"};
    static const char *const causes[][2] = {{"ENOSPC", "No space left on device"},
                                            {"EIO", "Input/output error"},
                                            {"EFBIG", "File too large"},
                                            {"EROFS", "Read-only file system"},
                                            {"EACCES", "Permission denied"}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] * 5; i++) {
        char fault[128];
        const char *step = steps[i / 5];
        const char *at = strchr(step, '@');
        snprintf(fault, sizeof fault, "checkpoint.%.*s=nvme:%s%s", at != NULL ? (int)(at - step) : (int)strlen(step),
                 step, causes[i % 5][0], at != NULL ? at : "");
        site *s = site_create(1);
        s->servers[0].config.incremental = false;
        site_start(s);
        site_cut(s, 1, QR_TIER_NVME);
        assert_int_equal(qr_fault_set(fault), QR_OK);
        site_begin(s, 2, QR_TIER_NVME);
        site_send_pages(s, 2, QR_TIER_NVME);
        qr_cut_state reached = site_wait(s, 0, QR_TIER_NVME, 2, QR_CUT_NONE);
        if (strcmp(step, "manifest") == 0) {
            assert_int_equal(reached, QR_CUT_READY);
            site_send_manifest(s, 2, QR_TIER_NVME);
            reached = site_wait(s, 0, QR_TIER_NVME, 2, QR_CUT_READY);
        }
        assert_int_equal(reached, QR_CUT_FAILED);
        assert_non_null(strstr(s->post.message, s->root));
        assert_non_null(strstr(s->post.message, causes[i % 5][1]));
        site_abandon(s, 2, QR_TIER_NVME);
        site_until(s, only_first);
        site_verify_tier(s, QR_TIER_NVME, 1);
        site_cut(s, 3, QR_TIER_SSD);
        site_verify_tier(s, QR_TIER_SSD, 3);
        site_cut(s, 4, QR_TIER_NVME);
        site_verify_tier(s, QR_TIER_NVME, 4);
        assert_int_equal(qr_fault_set(NULL), QR_OK);
        site_remove(s);
    }
}

static void expect_failure(site *s, int64_t generation, int tier, const char *cause)
{
    site_begin(s, generation, tier);
    site_send_pages(s, generation, tier);
    site_expect(s, tier, generation, QR_CUT_NONE, QR_CUT_FAILED);
    if (strstr(s->post.message, cause) == NULL) {
        print_message("%s\n", s->post.message);
    }
    assert_non_null(strstr(s->post.message, cause));
    assert_non_null(strstr(s->post.message, s->servers[0].directories[tier]));
}

static void test_full_by_capacity(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.incremental = false;
    s->servers[0].config.tiers[QR_TIER_NVME].capacity = 1100 << 10;
    s->servers[0].config.tiers[QR_TIER_SSD].capacity = 1000;
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    for (int64_t generation = 2; generation < 20; generation++) {
        site_cut(s, generation, QR_TIER_NVME); /* old ones make room */
    }
    expect_failure(s, 21, QR_TIER_SSD, "full: 0.0 MiB are used and a generation may take 0.");
    assert_non_null(strstr(s->post.message, "capacity is 0.0 MiB"));
    assert_int_equal(s->post.status, QR_RESOURCE);
    site_cut(s, 22, QR_TIER_HDD);
    site_verify_tier(s, QR_TIER_HDD, 22);
    site_remove(s);
}

static void test_directory_in_the_way(void **state)
{
    (void)state;
    site *s = site_create(1);
    char path[256];
    snprintf(path, sizeof path, "%s/node0", s->root);
    assert_int_equal(mkdir(path, 0777), 0);
    close(open(s->servers[0].directories[QR_TIER_NVME], O_CREAT | O_WRONLY, 0666));
    site_start(s);
    expect_failure(s, 1, QR_TIER_NVME, "the checkpoint directory cannot be made");
    site_cut(s, 2, QR_TIER_SSD);
    assert_int_equal(unlink(s->servers[0].directories[QR_TIER_NVME]), 0);
    site_cut(s, 3, QR_TIER_NVME); /* tried again */
    site_verify_tier(s, QR_TIER_NVME, 3);
    site_remove(s);
}

/* A directory that was there and is gone is a disk that is gone: it is not made again on what lies below. */
static void test_directory_vanishes(void **state)
{
    (void)state;
    site *s = site_create(1);
    char command[256];
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    site_cut(s, 1, QR_TIER_SSD);
    snprintf(command, sizeof command, "rm -rf %s", s->servers[0].directories[QR_TIER_NVME]);
    assert_int_equal(system(command), 0);
    expect_failure(s, 2, QR_TIER_NVME, "No such file or directory");
    assert_int_not_equal(access(s->servers[0].directories[QR_TIER_NVME], F_OK), 0);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_HDD);
    site_expect(s, QR_TIER_HDD, 1, QR_CUT_NONE, QR_CUT_FAILED);
    site_cut(s, 3, QR_TIER_SSD);
    site_verify_tier(s, QR_TIER_SSD, 3);
    site_remove(s);
}

/* Older files that new pages would refer to are gone: that fails once, then all is written again. */
static void test_older_files_vanish(void **state)
{
    (void)state;
    site *s = site_create(1);
    char command[256];
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    snprintf(command, sizeof command, "rm %s/*.h5", s->servers[0].directories[QR_TIER_NVME]);
    assert_int_equal(system(command), 0);
    expect_failure(s, 2, QR_TIER_NVME, "No such file or directory");
    site_cut(s, 3, QR_TIER_NVME);
    assert_int_equal(s->post.seal.written_pages, s->post.seal.pages);
    site_verify_tier(s, QR_TIER_NVME, 3);
    site_remove(s);
}

/* A drain checks what it reads. */
static void test_damaged_source(void **state)
{
    (void)state;
    site *s = site_create(1);
    char path[256];
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    snprintf(path, sizeof path, "%s/generation-00000001.s000.h5", s->servers[0].directories[QR_TIER_NVME]);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    unsigned char bytes[4096];
    off_t middle = lseek(file, 0, SEEK_END) / 2;
    assert_int_equal(pread(file, bytes, sizeof bytes, middle), sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 1;
    }
    assert_int_equal(pwrite(file, bytes, sizeof bytes, middle), sizeof bytes);
    close(file);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_SSD);
    site_expect(s, QR_TIER_SSD, 1, QR_CUT_NONE, QR_CUT_FAILED);
    assert_int_equal(s->post.status, QR_DATA);
    assert_non_null(strstr(s->post.message, "generation-00000001.s000.h5"));
    assert_true(site_board(s, 0).tiers[QR_TIER_NVME].damaged > 0);
    assert_true(site_has(s, 0, QR_TIER_NVME, 1, ".s000.h5.bad"));
    site_cut(s, 2, QR_TIER_SSD);
    site_verify_tier(s, QR_TIER_SSD, 2);
    site_remove(s);
}

static bool nothing_on_ssd(site *s)
{
    return site_count(s, 0, QR_TIER_SSD) == 0;
}

static void test_failing_read(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    assert_int_equal(qr_fault_set("checkpoint.read=nvme:EIO@40"), QR_OK);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_SSD);
    site_expect(s, QR_TIER_SSD, 1, QR_CUT_NONE, QR_CUT_FAILED);
    assert_non_null(strstr(s->post.message, "nvme: cannot be read: Input/output error"));
    site_until(s, nothing_on_ssd);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_HDD);
    site_expect(s, QR_TIER_HDD, 1, QR_CUT_NONE, QR_CUT_READY);
    site_remove(s);
}

/* A slow disk only takes its time. */
static void test_slow_disk(void **state)
{
    (void)state;
    site *s = site_create(1);
    assert_int_equal(qr_fault_set("checkpoint.write:slow@5,checkpoint.fsync:slow,checkpoint.manifest:slow"), QR_OK);
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    assert_true(s->post.write_s > 0.2);
    site_verify_tier(s, QR_TIER_NVME, 1);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_remove(s);
}

/* A disk that hangs for a while: its tier fails, slots come back, the other tiers work; then it works again. */
static void test_hang_that_ends(void **state)
{
    (void)state;
    static const char *const faults[] = {"checkpoint.fsync=nvme:hang", "checkpoint.write=nvme:hang@3",
                                         "checkpoint.begin=nvme:hang"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        site *s = site_create(1);
        s->servers[0].config.timeout_s = 0.5;
        assert_int_equal(qr_fault_set(faults[i]), QR_OK);
        site_start(s);
        qr_awake taken = {0};
        (void)qr_awake_look(&taken);
        expect_failure(s, 1, QR_TIER_NVME, "does not answer");
        assert_int_equal(s->post.status, QR_TRANSIENT);
        expect_failure(s, 2, QR_TIER_NVME, "does not answer"); /* at once */
        site_abandon(s, 2, QR_TIER_NVME);
        site_cut(s, 3, QR_TIER_SSD);
        site_drain(s, 3, QR_TIER_SSD, QR_TIER_HDD);
        site_verify_tier(s, QR_TIER_HDD, 3);
        for (int q = 0; q < SITE_QUEUES; q++) {
            assert_int_equal(qr_queue_drain(&s->servers[0].ends[q], SITE_WAIT_S), QR_OK);
        }
        assert_true(qr_awake_look(&taken) < 10);
        assert_int_equal(qr_fault_set(NULL), QR_OK);
        qr_cut_state state_reached = QR_CUT_FAILED;
        for (int64_t generation = 4; generation < SITE_GENERATIONS && state_reached == QR_CUT_FAILED; generation++) {
            nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
            site_begin(s, generation, QR_TIER_NVME);
            site_send_pages(s, generation, QR_TIER_NVME);
            state_reached = site_wait(s, 0, QR_TIER_NVME, generation, QR_CUT_NONE);
        }
        assert_int_equal(state_reached, QR_CUT_READY);
        assert_false(site_has(s, 0, QR_TIER_NVME, 1, ".s000.h5"));
        assert_false(qr_io_must_exit_fast());
        site_remove(s);
    }
}

/* A source that hangs stops the drain from it and nothing else. */
static void test_hanging_source(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.timeout_s = 0.5;
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    assert_int_equal(qr_fault_set("checkpoint.read=nvme:hang@20+"), QR_OK);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_HDD);
    site_expect(s, QR_TIER_HDD, 1, QR_CUT_NONE, QR_CUT_FAILED);
    assert_non_null(strstr(s->post.message, "nvme: does not answer"));
    site_cut(s, 2, QR_TIER_HDD);
    site_cut(s, 3, QR_TIER_SSD);
    site_verify_tier(s, QR_TIER_HDD, 2);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_remove(s);
}

/* It never ends: the server leaves the thread behind, and says that the process must leave fast. The last test, for the
 * thread stays. */
static void test_hang_for_ever(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.timeout_s = 0.5;
    assert_int_equal(qr_fault_set("checkpoint.fsync=nvme:hang"), QR_OK);
    site_start(s);
    expect_failure(s, 1, QR_TIER_NVME, "does not answer");
    assert_false(qr_io_must_exit_fast());
    qr_awake taken = {0};
    (void)qr_awake_look(&taken);
    site_stop(s, 0);
    assert_true(qr_awake_look(&taken) < 10);
    assert_true(qr_io_must_exit_fast());
    site_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_step_fails),     cmocka_unit_test(test_full_by_capacity),
        cmocka_unit_test(test_directory_in_the_way), cmocka_unit_test(test_directory_vanishes),
        cmocka_unit_test(test_older_files_vanish),   cmocka_unit_test(test_damaged_source),
        cmocka_unit_test(test_failing_read),         cmocka_unit_test(test_slow_disk),
        cmocka_unit_test(test_hang_that_ends),       cmocka_unit_test(test_hanging_source),
        cmocka_unit_test(test_hang_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
