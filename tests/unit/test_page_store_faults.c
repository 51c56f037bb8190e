/* The store of pages on disks that fail, lie, are full, hang, and beside what other runs left behind. */
#include "test_page_store_fixture.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <xxhash.h>

enum { PAGE = 16 * 1024, BLOCK = 4096 };

static shelf *start_one(void)
{
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    return s;
}

static void end(shelf *s)
{
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    shelf_remove(s);
}

/* --- errors of disks --- */

static void test_what_passes_is_tried_again(void **state)
{
    (void)state;
    static const char *const faults[] = {"pages.write=nvme:EIO", "pages.read=nvme:EIO", "pages.read=nvme:EIO@2",
                                         "pages.short=nvme:EIO"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        shelf *s = start_one();
        assert_int_equal(qr_fault_set(faults[i]), QR_OK);
        for (int64_t page = 0; page < 3; page++) {
            assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
            assert_int_equal(s->value, QR_TIER_NVME);
            assert_int_equal(shelf_get(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
        }
        assert_int_equal(shelf_totals(s, QR_TIER_NVME).retries, 1);
        end(s);
    }
}

static void test_failing_reads(void **state)
{
    (void)state;
    static const char *const faults[][2] = {{"pages.read=ssd:EIO@1+", "Input/output error"},
                                            {"pages.read=ssd:EACCES", "Permission denied"},
                                            {"pages.short=ssd:EIO@1+", "the file is cut short"}};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        shelf *s = start_one();
        assert_int_equal(shelf_put(s, 0, 7, QR_TIER_SSD, 3, PAGE), QR_OK);
        assert_int_equal(shelf_put(s, 0, 8, QR_TIER_NVME, 3, PAGE), QR_OK);
        assert_int_equal(qr_fault_set(faults[i][0]), QR_OK);
        assert_int_equal(shelf_get(s, 0, 7, QR_TIER_SSD, 3, PAGE), QR_DATA);
        assert_non_null(strstr(s->message, s->directories[QR_TIER_SSD]));
        assert_non_null(strstr(s->message, "page 7 of queue 0, version 3, cannot be read"));
        assert_non_null(strstr(s->message, faults[i][1]));
        assert_int_equal(qr_fault_set(faults[i][0]), QR_OK);
        assert_int_equal(shelf_sink(s, 0, 7, QR_TIER_SSD, QR_TIER_HDD, 3), QR_DATA);
        assert_int_equal(shelf_get(s, 0, 8, QR_TIER_NVME, 3, PAGE), QR_OK);
        assert_int_equal(qr_fault_set(NULL), QR_OK);
        assert_int_equal(shelf_get(s, 0, 7, QR_TIER_SSD, 3, PAGE), QR_OK);
        end(s);
    }
}

static void sleep_awake(double seconds)
{
    qr_awake slept = {0};
    while (qr_awake_look(&slept) < seconds) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

/* Pages go to the next tier; some seconds later the first one is used again. */
static void test_failing_writes(void **state)
{
    (void)state;
    static const char *const errors[] = {"ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS"};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char fault[64];
        shelf *s = start_one();
        snprintf(fault, sizeof fault, "pages.write=nvme:%s@1+", errors[i]);
        assert_int_equal(qr_fault_set(fault), QR_OK);
        for (int64_t page = 0; page < 3; page++) {
            assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
            assert_int_equal(s->value, QR_TIER_SSD);
            assert_int_equal(shelf_get(s, 0, page, QR_TIER_SSD, 1, PAGE), QR_OK);
        }
        assert_int_equal(shelf_totals(s, QR_TIER_NVME).spilt, 3);
        assert_int_equal(shelf_totals(s, QR_TIER_NVME).pages, 0);
        assert_int_equal(qr_fault_set(NULL), QR_OK);
        if (i == 0) {
            sleep_awake(2.1);
            assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 2, PAGE), QR_OK);
            assert_int_equal(s->value, QR_TIER_NVME);
            assert_int_equal(shelf_get(s, 0, 0, QR_TIER_NVME, 2, PAGE), QR_OK);
            assert_int_equal(shelf_totals(s, QR_TIER_SSD).pages, 2);
        }
        end(s);
    }
}

/* With no tier left the answer says why; what was there before is still there. */
static void test_no_tier_takes_it(void **state)
{
    (void)state;
    shelf *s = start_one();
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(qr_fault_set("pages.write:ENOSPC@1+"), QR_OK);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 2, PAGE), QR_RESOURCE);
    assert_non_null(strstr(s->message, "no memory tier has room for page 0 of queue 0: nvme"));
    assert_int_equal(shelf_sink(s, 0, 0, QR_TIER_NVME, QR_TIER_SSD, 1), QR_RESOURCE);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    end(s);
    s = start_one();
    assert_int_equal(qr_fault_set("pages.write:EIO@1+"), QR_OK);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 2, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, s->directories[QR_TIER_HDD]));
    assert_non_null(strstr(s->message, "cannot be written: Input/output error"));
    end(s);
}

/* --- bytes that are not what was written --- */

static int open_file(const shelf *s, int tier, char path[256])
{
    assert_int_equal(shelf_files(s, tier, path), 1);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    return file;
}

static void flip(int file, off_t at, int bit)
{
    unsigned char byte = 0;
    assert_int_equal(pread(file, &byte, 1, at), 1);
    byte ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(file, &byte, 1, at), 1);
}

/* Every bit of the extent's head, and two bits of each thirteenth byte behind it, down to the last. */
static void test_bit_flips(void **state)
{
    (void)state;
    enum { HEAD = 128, STRIDE = 13 };
    for (int t = 0; t < QR_N_TIERS; t++) {
        char path[256];
        shelf *s = start_one();
        assert_int_equal(shelf_put(s, 0, t, t, 5, PAGE), QR_OK); /* shrinks well, little, not at all */
        int file = open_file(s, t, path);
        off_t last = lseek(file, 0, SEEK_END) - 1;
        int64_t flips = 0;
        for (off_t at = BLOCK; at <= last; at += at < BLOCK + HEAD || at == last ? 1 : STRIDE) {
            for (int bit = 0; bit < 8; bit += at < BLOCK + HEAD ? 1 : 5) {
                flip(file, at, bit);
                qr_status status = shelf_get(s, 0, t, t, 5, PAGE);
                if (status != QR_DATA || strstr(s->message, path) == NULL) {
                    print_message("byte %d, bit %d: %s\n", (int)at, bit, s->message);
                }
                assert_int_equal(status, QR_DATA);
                assert_non_null(strstr(s->message, path));
                assert_non_null(strstr(s->message, "of queue 0, version 5, cannot be read: "));
                flip(file, at, bit);
                flips++;
            }
            at = at < last && at + STRIDE > last && at >= BLOCK + HEAD ? last - 1 : at;
        }
        assert_true(flips > HEAD * 8 + 2 * (last - BLOCK - HEAD) / STRIDE);
        assert_int_equal(shelf_get(s, 0, t, t, 5, PAGE), QR_OK);
        close(file);
        end(s);
    }
}

/* A write that never reached the disk: the bytes that were there before are whole, and wrong. */
static void test_stale_versions(void **state)
{
    (void)state;
    unsigned char before[8 * BLOCK];
    char path[256];
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].capacity = 5 * BLOCK; /* one page that does not shrink */
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_OK);
    int file = open_file(s, QR_TIER_NVME, path);
    ssize_t bytes = pread(file, before, sizeof before, 0);
    assert_int_equal(bytes, 6 * BLOCK);
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 2, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(pwrite(file, before, (size_t)bytes, 0), bytes);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 2, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "an older version of it is in its place"));
    shelf_drop(s, 0, 2, 2);
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(pwrite(file, before, (size_t)bytes, 0), bytes);
    assert_int_equal(shelf_get(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "another page is in its place"));
    /* The same page and version, with other contents. */
    shelf_drop(s, 0, 5, 1);
    int32_t slot = shelf_slot(s, 0);
    shelf_fill(0, 5, 9, qr_queue_slot(&s->ends[0], slot), PAGE);
    shelf_ask(s, 0, (qr_job){.kind = QR_JOB_PAGE_PUT, .slot = slot, .bytes = PAGE, .arguments = {2, 0, 1, 10}});
    assert_int_equal(shelf_answer(s, 0, slot), QR_OK);
    qr_queue_return_slot(&s->ends[0], slot);
    assert_int_equal(pwrite(file, before, (size_t)bytes, 0), bytes);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "its checksum is wrong"));
    close(file);
    end(s);
}

/* The same page, version and place of another store, at another one's, and cut off. */
static void test_other_stores_bytes(void **state)
{
    (void)state;
    unsigned char bytes[8 * BLOCK];
    char path[256];
    shelf *s = start_one();
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_OK);
    int file = open_file(s, QR_TIER_NVME, path);
    ssize_t n = pread(file, bytes, sizeof bytes, 0);
    close(file);
    shelf_stop(s, SHELF_WAIT_S);
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    file = open_file(s, QR_TIER_NVME, path);
    assert_int_equal(pwrite(file, bytes, (size_t)n, 0), n);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "a page of another store is in its place"));
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(pwrite(file, bytes, (size_t)n, 0), n);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "no page begins there"));
    assert_int_equal(shelf_get(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(ftruncate(file, lseek(file, 0, SEEK_END) - BLOCK), 0);
    assert_int_equal(shelf_get(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "the file is cut short"));
    close(file);
    end(s);
}

/* --- other runs --- */

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
    int file = open_file(s, QR_TIER_NVME, path);
    assert_int_equal(pread(file, text, BLOCK, 0), BLOCK);
    flip(file, 40, 2);
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

/* --- disks that do not answer --- */

/* One read hangs: it is given up in time, all others go on, and the slot is not touched when it returns. */
static void test_hanging_read(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.timeout_s = 3;
    shelf_start(s);
    for (int64_t page = 0; page < 4; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_SSD, 1, PAGE), QR_OK);
    }
    assert_int_equal(qr_fault_set("pages.read=ssd:hang"), QR_OK);
    qr_status status = QR_OK;
    int64_t value = 0;
    int32_t hangs = shelf_begin_get(s, 0, 0, QR_TIER_SSD, 1, PAGE);
    int32_t behind = shelf_begin_get(s, 0, 0, QR_TIER_SSD, 1, PAGE); /* of the same page: waits for the first one */
    assert_int_equal(shelf_get(s, 0, 1, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_false(qr_queue_answered(&s->ends[0], hangs, &status, &value));
    assert_int_equal(shelf_answer(s, 0, hangs), QR_TRANSIENT);
    assert_non_null(strstr(s->message, s->directories[QR_TIER_SSD]));
    assert_non_null(strstr(s->message, "does not answer: page 0 of queue 0"));
    assert_int_equal(shelf_end_get(s, 0, behind, 0, 1, PAGE), QR_OK);
    unsigned char *slot = qr_queue_slot(&s->ends[0], hangs);
    memset(slot, 0x33, PAGE);
    assert_int_equal(qr_fault_set(NULL), QR_OK); /* it returns */
    sleep_awake(0.1);
    for (int i = 0; i < PAGE; i++) {
        assert_int_equal(slot[i], 0x33);
    }
    for (int64_t page = 0; page < 4; page++) {
        assert_int_equal(shelf_get(s, 0, page, QR_TIER_SSD, 1, PAGE), QR_OK);
    }
    shelf_remove(s);
}

/* A write hangs: the older version stays, the next one goes elsewhere, and nothing comes of the first one later. */
static void test_hanging_write(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.timeout_s = 3;
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_int_equal(qr_fault_set("pages.write=ssd:hang"), QR_OK);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_SSD, 2, PAGE), QR_TRANSIENT);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_SSD, 3, PAGE), QR_OK);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    sleep_awake(0.1);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 3, PAGE), QR_OK);
    assert_int_equal(shelf_totals(s, QR_TIER_SSD).pages, 1);
    assert_int_equal(shelf_totals(s, QR_TIER_SSD).put, 2);
    shelf_remove(s);
}

/* All threads of a tier hang, jobs wait for them: all are answered in time, the other tiers serve on, and the end does
 * not wait for ever. */
static void test_all_hang(void **state)
{
    (void)state;
    char path[256];
    int32_t slots[6];
    shelf *s = shelf_create(PAGE);
    s->config.timeout_s = 3;
    shelf_start(s);
    for (int64_t page = 0; page < 6; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_HDD, 1, PAGE), QR_OK);
    }
    assert_int_equal(qr_fault_set("pages.read=hdd:hang@1+"), QR_OK);
    for (int64_t page = 0; page < 6; page++) {
        slots[page] = shelf_begin_get(s, 0, page, QR_TIER_HDD, 1, PAGE);
    }
    assert_int_equal(shelf_put(s, 0, 7, QR_TIER_NVME, 1, PAGE), QR_OK);
    for (int64_t page = 0; page < 6; page++) {
        assert_int_equal(shelf_end_get(s, 0, slots[page], page, 1, PAGE), QR_TRANSIENT);
    }
    for (int i = 0; i < 200; i++) { /* more than there are jobs for */
        int32_t slot = shelf_begin_get(s, 0, i % 6, QR_TIER_HDD, 1, PAGE);
        assert_int_equal(shelf_end_get(s, 0, slot, i % 6, 1, PAGE), QR_TRANSIENT);
    }
    assert_int_equal(shelf_get(s, 0, 7, QR_TIER_NVME, 1, PAGE), QR_OK);
    qr_awake taken = {0};
    (void)qr_awake_look(&taken);
    shelf_stop(s, 0.5);
    assert_true(qr_awake_look(&taken) < 10);
    assert_true(qr_io_must_exit_fast());
    for (int t = 0; t < QR_N_TIERS; t++) {
        assert_int_equal(shelf_files(s, t, path), 0);
    }
    shelf_remove(s); /* the threads stay as they are */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_passes_is_tried_again),
        cmocka_unit_test(test_failing_reads),
        cmocka_unit_test(test_failing_writes),
        cmocka_unit_test(test_no_tier_takes_it),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_stale_versions),
        cmocka_unit_test(test_other_stores_bytes),
        cmocka_unit_test(test_abandoned_stores_are_removed),
        cmocka_unit_test(test_own_name),
        cmocka_unit_test(test_what_is_left_alone),
        cmocka_unit_test(test_other_machines),
        cmocka_unit_test(test_stores_that_cannot_be_made),
        cmocka_unit_test(test_hanging_read),
        cmocka_unit_test(test_hanging_write),
        cmocka_unit_test(test_all_hang), /* last: its threads are left behind */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
