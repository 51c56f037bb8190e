/* The store of pages on disks that fail, lie, are full, hang. */
#include "test_page_store_fixture.h"

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
                                         "pages.short=nvme:EIO", "pages.flip=nvme:EIO@2"};
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
                                            {"pages.short=ssd:EIO@1+", "the file is cut short"},
                                            {"pages.flip=ssd:EIO@1+", "its checksum is wrong"}};
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
    assert_non_null(strstr(s->message, "no memory tier has room for page 0 of queue 0 (16384 bytes): nvme"));
    assert_int_equal(shelf_sink(s, 0, 0, QR_TIER_NVME, QR_TIER_SSD, 1), QR_RESOURCE);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    end(s);
    s = start_one();
    assert_int_equal(qr_fault_set("pages.write:EIO@1+"), QR_OK);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 2, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, s->directories[QR_TIER_NVME])); /* the first cause */
    assert_non_null(strstr(s->message, "cannot be written: Input/output error"));
    /* Nor is it hidden while the disks are left alone. */
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_NVME, 2, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "cannot be written: Input/output error"));
    end(s);
}

/* --- bytes that are not what was written --- */

/* Every bit of the extent's head, and two bits of each thirteenth byte behind it, down to the last. */
static void test_bit_flips(void **state)
{
    (void)state;
    enum { HEAD = 128, STRIDE = 13 };
    for (int t = 0; t < QR_N_TIERS; t++) {
        char path[256];
        shelf *s = start_one();
        assert_int_equal(shelf_put(s, 0, t, t, 5, PAGE), QR_OK); /* shrinks well, little, not at all */
        int file = shelf_open(s, t, path);
        off_t last = lseek(file, 0, SEEK_END) - 1;
        int64_t flips = 0;
        for (off_t at = BLOCK; at <= last; at += at < BLOCK + HEAD || at == last ? 1 : STRIDE) {
            for (int bit = 0; bit < 8; bit += at < BLOCK + HEAD ? 1 : 5) {
                shelf_flip(file, at, bit);
                qr_status status = shelf_get(s, 0, t, t, 5, PAGE);
                if (status != QR_DATA || strstr(s->message, path) == NULL) {
                    print_message("byte %d, bit %d: %s\n", (int)at, bit, s->message);
                }
                assert_int_equal(status, QR_DATA);
                assert_non_null(strstr(s->message, path));
                assert_non_null(strstr(s->message, "of queue 0, version 5, cannot be read: "));
                shelf_flip(file, at, bit);
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
    int file = shelf_open(s, QR_TIER_NVME, path);
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
    int file = shelf_open(s, QR_TIER_NVME, path);
    ssize_t n = pread(file, bytes, sizeof bytes, 0);
    close(file);
    shelf_stop(s, SHELF_WAIT_S);
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    file = shelf_open(s, QR_TIER_NVME, path);
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

/* --- disks that do not answer --- */

typedef struct helper {
    atomic_bool holds, called;
    int64_t version; /* that it has of each page; 0: none */
} helper;

static bool help(void *context, int64_t page, const uint64_t hash[2], void *raw, int64_t bytes)
{
    helper *h = context;
    atomic_store(&h->called, true);
    while (atomic_load(&h->holds)) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    shelf_fill(0, page, h->version, raw, bytes);
    return h->version != 0 && (hash[0] | hash[1]) != 0;
}

/* What cannot be read is taken from where else it is; that is waited for no longer than for a disk, and what it brings
 * later goes nowhere. */
static void test_rescues(void **state)
{
    (void)state;
    helper h = {.version = 1};
    shelf *s = shelf_create(PAGE);
    s->config.timeout_s = 2;
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_true(qr_page_store_set_rescue(s->store, help, &h));
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_false(atomic_load(&h.called));
    assert_int_equal(qr_fault_set("pages.read=ssd:EACCES@1+"), QR_OK);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_true(atomic_load(&h.called));
    h.version = 0;
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "Permission denied"));
    h.version = 1;
    atomic_store(&h.holds, true);
    qr_awake waited = {0};
    (void)qr_awake_look(&waited);
    int32_t slot = shelf_begin_get(s, 0, 0, QR_TIER_SSD, 1, PAGE);
    assert_int_equal(shelf_answer(s, 0, slot), QR_TRANSIENT);
    assert_true(qr_awake_look(&waited) < 20);
    assert_non_null(strstr(s->message, "page 0 of queue 0 cannot be read, and the checkpoints' disks do not answer"));
    unsigned char *raw = qr_queue_slot(&s->ends[0], slot);
    memset(raw, 0x33, PAGE);
    assert_false(qr_page_store_set_rescue(s->store, NULL, NULL)); /* a thread is in it */
    atomic_store(&h.holds, false);
    for (waited = (qr_awake){0}; !qr_page_store_set_rescue(s->store, NULL, NULL);) {
        assert_true(qr_awake_look(&waited) < SHELF_WAIT_S);
    }
    sleep_awake(0.1);
    for (int i = 0; i < PAGE; i++) {
        assert_int_equal(raw[i], 0x33);
    }
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_DATA);
    end(s);
}

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

/* A tier that hangs and comes back; meanwhile what would be put there goes to the next one. */
static void test_hang_that_ends(void **state)
{
    (void)state;
    int32_t slots[4];
    shelf *s = shelf_create(PAGE);
    s->config.timeout_s = 3;
    shelf_start(s);
    assert_int_equal(qr_fault_set("pages.write=nvme:hang@1+"), QR_OK);
    for (int64_t page = 0; page < 4; page++) { /* two for its threads, two behind them */
        slots[page] = shelf_begin_put(s, 0, page, QR_TIER_NVME, 1, PAGE);
    }
    for (int64_t page = 0; page < 4; page++) {
        assert_int_equal(shelf_answer(s, 0, slots[page]), QR_TRANSIENT);
        qr_queue_return_slot(&s->ends[0], slots[page]);
    }
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_SSD);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    qr_awake waited = {0};
    for (int64_t version = 2; s->value != QR_TIER_NVME; version++) {
        assert_true(qr_awake_look(&waited) < SHELF_WAIT_S);
        assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, version, PAGE), QR_OK);
    }
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_int_equal(shelf_totals(s, QR_TIER_NVME).pages, 1);
    shelf_remove(s);
}

/* Whoever waits for longer than the limit behind others that are served does not hang. */
static void test_slow_is_not_hanging(void **state)
{
    (void)state;
    enum { GETS = 32 }; /* a tenth of a second each */
    int32_t slots[GETS];
    shelf *s = shelf_create(PAGE);
    s->n_slots = GETS;
    s->config.threads = 1;
    s->config.timeout_s = 2;
    shelf_start(s);
    for (int64_t page = 0; page < GETS; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
    }
    assert_int_equal(qr_fault_set("pages.read=nvme:slow@1+"), QR_OK);
    for (int64_t page = 0; page < GETS; page++) {
        slots[page] = shelf_begin_get(s, 0, page, QR_TIER_NVME, 1, PAGE);
    }
    for (int64_t page = 0; page < GETS; page++) {
        assert_int_equal(shelf_end_get(s, 0, slots[page], page, 1, PAGE), QR_OK);
    }
    end(s);
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
        cmocka_unit_test(test_rescues),
        cmocka_unit_test(test_hanging_read),
        cmocka_unit_test(test_hanging_write),
        cmocka_unit_test(test_hang_that_ends),
        cmocka_unit_test(test_slow_is_not_hanging),
        cmocka_unit_test(test_all_hang), /* last: its threads are left behind */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
