/* The I/O server's store of pages: what is put comes back as it was, from whichever tier. */
#include "test_page_store_fixture.h"

enum { KIB = 1024, PAGE = 64 * KIB };

static void test_put_and_get(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    for (int64_t page = 0; page < 6; page++) {
        int64_t bytes = page == 5 ? 1000 : PAGE;
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, bytes), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
        assert_int_equal(shelf_get(s, 0, page, QR_TIER_NVME, 1, bytes), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
    }
    for (int64_t page = 5; page >= 0; page--) {
        assert_int_equal(shelf_get(s, 0, page, QR_TIER_NVME, 1, page == 5 ? 1000 : PAGE), QR_OK);
    }
    qr_page_tier_totals totals = shelf_totals(s, QR_TIER_NVME);
    assert_int_equal(totals.pages, 6);
    assert_int_equal(totals.put, 6);
    assert_int_equal(totals.got, 12);
    assert_int_equal(totals.raw_in, 5 * PAGE + 1000);
    assert_int_equal(totals.raw_out, 2 * totals.raw_in);
    assert_int_equal(totals.stored_out, 2 * totals.stored_in);
    assert_true(totals.stored_in < totals.raw_in && totals.stored_in > PAGE);
    assert_true(totals.write_s > 0 && totals.read_s > 0 && totals.pack_s > 0 && totals.unpack_s > 0);
    assert_int_equal(totals.retries, 0);
    shelf_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
