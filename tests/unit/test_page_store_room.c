/* Room in a store of pages that is as small as the plan allows: while a checkpoint keeps older versions, newer ones
 * wait for their places; and why there is none is said. */
#include "test_page_store_fixture.h"

enum { PAGE = 16 * 1024, PLACE = PAGE + 4096 };

/* One disk, for so many pages. */
static shelf *start_tight(int64_t pages, double timeout_s)
{
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].capacity = pages * PLACE;
    s->config.tiers[QR_TIER_SSD].directory = NULL;
    s->config.tiers[QR_TIER_HDD].directory = NULL;
    s->config.threads = 1;
    s->config.timeout_s = timeout_s;
    shelf_start(s);
    for (int64_t page = 0; page < pages; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
    }
    return s;
}

static void sleep_awake(double seconds)
{
    qr_awake slept = {0};
    while (qr_awake_look(&slept) < seconds) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

static bool is_answered(shelf *s, int32_t slot)
{
    qr_status status = QR_OK;
    int64_t value = 0;
    return qr_queue_answered(&s->ends[0], slot, &status, &value);
}

static void end_put(shelf *s, int32_t slot, qr_status expected)
{
    assert_int_equal(shelf_answer(s, 0, slot), expected);
    qr_queue_return_slot(&s->ends[0], slot);
}

/* No thread is kept by what waits, and what waits can be read. */
static void test_waits_for_a_checkpoint(void **state)
{
    (void)state;
    unsigned char *raw = malloc(PAGE);
    shelf *s = start_tight(3, 20);
    qr_page_store_hold(s->store, 0, 0, 1);
    qr_page_store_hold(s->store, 0, 1, 1);
    shelf_drop(s, 0, 0, 1);
    shelf_drop(s, 0, 1, 1);
    int32_t first = shelf_begin_put(s, 0, 5, QR_TIER_NVME, 1, PAGE);
    int32_t second = shelf_begin_put(s, 0, 6, QR_TIER_NVME, 1, PAGE);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_put(s, 0, 2, QR_TIER_NVME, 2, PAGE), QR_OK); /* in its own place */
    assert_int_equal(qr_page_store_read(s->store, 0, 0, QR_TIER_NVME, 1, raw, PAGE), QR_OK);
    assert_int_equal(shelf_differs(0, 0, 1, raw, PAGE), 0);
    /* A checkpoint that wants what waits for it does not wait in turn. */
    qr_page_store_hold(s->store, 0, 6, 1);
    assert_int_equal(qr_page_store_read(s->store, 0, 6, QR_TIER_NVME, 1, raw, PAGE), QR_OK);
    assert_int_equal(shelf_differs(0, 6, 1, raw, PAGE), 0);
    sleep_awake(0.2);
    assert_false(is_answered(s, first));
    assert_false(is_answered(s, second));
    qr_page_store_release(s->store, 0, 1, 1);
    end_put(s, first, QR_OK); /* in the order in which they came */
    assert_false(is_answered(s, second));
    qr_page_store_release(s->store, 0, 0, 1);
    end_put(s, second, QR_OK);
    qr_page_store_release(s->store, 0, 6, 1);
    assert_int_equal(shelf_get(s, 0, 2, QR_TIER_NVME, 2, PAGE), QR_OK);
    assert_int_equal(shelf_get(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_get(s, 0, 6, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_totals(s, QR_TIER_NVME).pages, 3);
    free(raw);
    shelf_remove(s);
}

/* As long as a checkpoint gets on, neither the store nor who asked gives up, whatever comes free first. */
static void test_a_slow_checkpoint(void **state)
{
    (void)state;
    shelf *s = start_tight(5, 2);
    qr_status status = QR_INTERNAL;
    int64_t value = -1;
    for (int64_t page = 0; page < 5; page++) {
        qr_page_store_hold(s->store, 0, page, 1);
    }
    shelf_drop(s, 0, 0, 1);
    int32_t slot = shelf_begin_put(s, 0, 5, QR_TIER_NVME, 1, PAGE);
    for (int64_t page = 4; page > 0; page--) { /* these are where they were */
        assert_int_equal(qr_queue_wait_answer(&s->ends[0], slot, 0.9, &status, &value), QR_ENVIRONMENT);
        qr_page_store_release(s->store, 0, page, 1);
    }
    assert_false(is_answered(s, slot));
    qr_page_store_release(s->store, 0, 0, 1);
    end_put(s, slot, QR_OK);
    shelf_remove(s);
}

typedef struct letting_go {
    shelf *s;
    int64_t pages;
} letting_go;

static void *let_go_slowly(void *argument)
{
    const letting_go *work = argument;
    for (int64_t page = work->pages - 1; page >= 0; page--) {
        sleep_awake(1.0);
        qr_page_store_release(work->s->store, 0, page, 1);
    }
    return NULL;
}

/* The same, seen by one who waits: for less than that takes altogether. */
static void test_who_waits_for_it(void **state)
{
    (void)state;
    shelf *s = start_tight(4, 2.5);
    letting_go work = {.s = s, .pages = 4};
    qr_status status = QR_INTERNAL;
    int64_t value = -1;
    pthread_t thread;
    for (int64_t page = 0; page < 4; page++) {
        qr_page_store_hold(s->store, 0, page, 1);
    }
    shelf_drop(s, 0, 0, 1);
    int32_t slot = shelf_begin_put(s, 0, 5, QR_TIER_NVME, 1, PAGE);
    assert_int_equal(pthread_create(&thread, NULL, let_go_slowly, &work), 0);
    assert_int_equal(qr_queue_wait_answer(&s->ends[0], slot, 3.0, &status, &value), QR_OK);
    assert_int_equal(status, QR_OK);
    assert_int_equal(value, QR_TIER_NVME);
    qr_queue_return_slot(&s->ends[0], slot);
    assert_int_equal(pthread_join(thread, NULL), 0);
    shelf_remove(s);
}

/* One that does not get on is not waited for for ever; nor is one that keeps nothing. */
static void test_a_checkpoint_that_hangs(void **state)
{
    (void)state;
    shelf *s = start_tight(2, 3);
    qr_page_store_hold(s->store, 0, 0, 1);
    shelf_drop(s, 0, 0, 1);
    qr_awake waited = {0};
    (void)qr_awake_look(&waited);
    int32_t slot = shelf_begin_put(s, 0, 5, QR_TIER_NVME, 1, PAGE);
    while (!is_answered(s, slot)) {
        assert_true(qr_awake_look(&waited) < SHELF_WAIT_S);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_true(qr_awake_look(&waited) >= 4.4);
    end_put(s, slot, QR_RESOURCE);
    assert_non_null(strstr(s->message, "no memory tier has room for page 5 of queue 0 (16384 bytes): nvme"));
    assert_non_null(strstr(s->message, "a checkpoint that does not get on"));
    assert_non_null(strstr(s->message, "memory.tiers.*.capacity"));
    qr_page_store_release(s->store, 0, 0, 1);
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 2, PAGE), QR_OK);
    waited = (qr_awake){0};
    (void)qr_awake_look(&waited);
    assert_int_equal(shelf_put(s, 0, 7, QR_TIER_NVME, 1, PAGE), QR_RESOURCE);
    assert_null(strstr(s->message, "checkpoint"));
    assert_true(qr_awake_look(&waited) < 4.0);
    shelf_remove(s);
}

/* What one producer's checkpoint keeps is not in the way of another one's pages. */
static void test_each_has_its_share(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->n_queues = 2;
    s->config.tiers[QR_TIER_NVME].capacity = 4 * PLACE;
    s->config.tiers[QR_TIER_SSD].directory = NULL;
    s->config.tiers[QR_TIER_HDD].directory = NULL;
    shelf_start(s);
    for (int64_t page = 0; page < 2; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_OK);
        qr_page_store_hold(s->store, 0, page, 1);
        shelf_drop(s, 0, page, 1);
    }
    int32_t slots[2] = {shelf_begin_put(s, 0, 5, QR_TIER_NVME, 1, PAGE),
                        shelf_begin_put(s, 0, 6, QR_TIER_NVME, 1, PAGE)};
    sleep_awake(0.2);
    for (int64_t page = 0; page < 2; page++) {
        assert_int_equal(shelf_put(s, 1, page, QR_TIER_NVME, 1, PAGE), QR_OK);
    }
    for (int64_t page = 0; page < 2; page++) {
        assert_false(is_answered(s, slots[page]));
        qr_page_store_release(s->store, 0, page, 1);
        end_put(s, slots[page], QR_OK);
    }
    shelf_remove(s);
}

/* The same of a disk that fills up by itself, and is tried again now and then. */
static void test_a_disk_that_is_full(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_SSD].directory = NULL;
    s->config.tiers[QR_TIER_HDD].directory = NULL;
    s->config.timeout_s = 3;
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_NVME, 1, PAGE), QR_OK);
    qr_page_store_hold(s->store, 0, 0, 1);
    shelf_drop(s, 0, 0, 1);
    shelf_settle(s);
    assert_int_equal(qr_fault_set("pages.write:ENOSPC@1+"), QR_OK);
    assert_int_equal(shelf_put(s, 0, 5, QR_TIER_NVME, 1, PAGE), QR_RESOURCE);
    assert_non_null(strstr(s->message, "No space left on device"));
    assert_non_null(strstr(s->message, "a checkpoint that does not get on"));
    int32_t slot = shelf_begin_put(s, 0, 6, QR_TIER_NVME, 1, PAGE);
    sleep_awake(0.5);
    assert_false(is_answered(s, slot));
    assert_int_equal(qr_fault_set(NULL), QR_OK); /* the place that is let go of can be written */
    qr_page_store_release(s->store, 0, 0, 1);
    end_put(s, slot, QR_OK);
    assert_int_equal(shelf_get(s, 0, 6, QR_TIER_NVME, 1, PAGE), QR_OK);
    shelf_remove(s);
}

/* A disk that fails below one that is full is the cause, also while it is left alone. */
static void test_an_error_below(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].capacity = PLACE;
    s->config.tiers[QR_TIER_HDD].directory = NULL;
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(qr_fault_set("pages.write=ssd:EROFS@1+"), QR_OK);
    for (int64_t page = 1; page < 4; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_DATA);
        assert_non_null(strstr(s->message, s->directories[QR_TIER_SSD]));
        assert_non_null(strstr(s->message, "Read-only file system"));
    }
    assert_int_equal(qr_fault_set("pages.write=ssd:ENOSPC@1+"), QR_OK);
    sleep_awake(2.1);
    for (int64_t page = 1; page < 4; page++) {
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, PAGE), QR_RESOURCE);
        assert_non_null(strstr(s->message, "nvme (0.0 MiB), ssd ("));
        assert_non_null(strstr(s->message, s->directories[QR_TIER_SSD]));
        assert_non_null(strstr(s->message, "No space left on device"));
    }
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    sleep_awake(2.1);
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_NVME, 1, PAGE), QR_OK);
    shelf_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_for_a_checkpoint), cmocka_unit_test(test_a_slow_checkpoint),
        cmocka_unit_test(test_who_waits_for_it),       cmocka_unit_test(test_a_checkpoint_that_hangs),
        cmocka_unit_test(test_each_has_its_share),     cmocka_unit_test(test_a_disk_that_is_full),
        cmocka_unit_test(test_an_error_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
