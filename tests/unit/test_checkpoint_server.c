/* Checkpoints on the I/O server: cuts, drains, what is kept, and what happens when disks fail. */
#include "test_checkpoint_fixture.h"

static void test_cut(void **state)
{
    (void)state;
    site s;
    site_create(&s, 1);
    site_start(&s);
    site_cut(&s, 1, QR_TIER_NVME);
    assert_int_equal(s.post.seal.pages, 40);
    assert_int_equal(s.post.seal.written_pages, 40);
    assert_int_equal(s.post.pages_left, 0);
    assert_int_equal(s.post.raw_bytes, 2 * SITE_AGENTS * (1 + SITE_DIM * 4));
    assert_int_equal(s.post.stored_bytes, s.post.seal.stored_bytes);
    assert_true(s.post.compress_s > 0 && s.post.write_s > 0 && s.post.wall_s > 0);
    site_verify_tier(&s, QR_TIER_NVME, 1);
    assert_int_equal(site_count(&s, 0, QR_TIER_NVME), 3);
    assert_int_equal(site_board(&s, 0).pages_in_flight, 0);
    site_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
