/* The permutation without a table: every image once, and back. */
#include "base/permutation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void every_small_size_is_a_bijection(void **state)
{
    (void)state;
    enum { MOST = 300 };
    for (uint64_t n = 1; n <= MOST; n++) {
        for (uint64_t key = 0; key < 3; key++) {
            qr_permutation p = qr_permutation_make(n, key);
            int hits[MOST] = {0};
            for (uint64_t i = 0; i < n; i++) {
                uint64_t image = qr_permutation_apply(&p, i);
                assert_true(image < n);
                hits[image]++;
                assert_true(qr_permutation_invert(&p, image) == i);
            }
            for (uint64_t i = 0; i < n; i++) {
                assert_int_equal(hits[i], 1);
            }
        }
    }
}

enum { LARGE = 1000003 };

static void a_large_size_is_a_bijection(void **state)
{
    (void)state;
    const uint64_t n = LARGE;
    qr_permutation p = qr_permutation_make(n, 77);
    static uint8_t hit[LARGE];
    for (uint64_t i = 0; i < n; i++) {
        uint64_t image = qr_permutation_apply(&p, i);
        assert_true(image < n);
        assert_int_equal(hit[image % LARGE]++, 0);
    }
}

static void inverse_holds_up_to_the_largest_sizes(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1, UINT64_C(1000000000000),
                                     (UINT64_C(1) << 62) - 1, UINT64_C(1) << 62};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        qr_permutation p = qr_permutation_make(sizes[s], s);
        for (uint64_t k = 0; k < 2000; k++) {
            uint64_t i = k < 4 ? sizes[s] - 1 - k : qr_mix64(k) % sizes[s];
            uint64_t image = qr_permutation_apply(&p, i);
            assert_true(image < sizes[s]);
            assert_true(qr_permutation_invert(&p, image) == i);
        }
    }
}

static void rows_equal_single_images(void **state)
{
    (void)state;
    enum { MOST = 200 };
    uint64_t images[MOST];
    for (uint64_t k = 0; k < 2000; k++) {
        uint64_t n = 1 + qr_mix64(k) % (k % 2 == 0 ? 1000 : UINT64_C(1) << 40);
        uint64_t first = qr_mix64(k + 5000) % n;
        int64_t count = (int64_t)(n - first < MOST ? n - first : MOST) - (int64_t)(k % 3 == 0 && n - first > 1);
        qr_permutation p = qr_permutation_make(n, k);
        qr_permutation_apply_row(&p, first, count, images);
        for (int64_t i = 0; i < count; i++) {
            assert_true(images[i] == qr_permutation_apply(&p, first + (uint64_t)i));
        }
    }
}

/* Half of the places from the first half: 4 standard errors of a hypergeometric count. Another key, another order. */
static void order_is_scattered_and_keyed(void **state)
{
    (void)state;
    const uint64_t n = 100000;
    int64_t same = 0;
    for (uint64_t key = 1; key <= 20; key++) {
        qr_permutation p = qr_permutation_make(n, key);
        qr_permutation q = qr_permutation_make(n, key + 1000);
        int64_t low = 0;
        int64_t even = 0;
        for (uint64_t i = 0; i < n / 2; i++) {
            uint64_t image = qr_permutation_apply(&p, i);
            low += image < n / 2 ? 1 : 0;
            even += image % 2 == 0 ? 1 : 0;
            same += image == qr_permutation_apply(&q, i) ? 1 : 0;
        }
        /* variance n/2 * 1/2 * 1/2 * (n/2) / (n - 1) = about n / 16 */
        assert_in_range(low, 25000 - 4 * 79, 25000 + 4 * 79);
        assert_in_range(even, 25000 - 4 * 79, 25000 + 4 * 79);
    }
    assert_in_range(same, 0, 10 + 4 * 3); /* half a coincidence for each of 20 pairs */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_size_is_a_bijection), cmocka_unit_test(a_large_size_is_a_bijection),
        cmocka_unit_test(inverse_holds_up_to_the_largest_sizes), cmocka_unit_test(rows_equal_single_images),
        cmocka_unit_test(order_is_scattered_and_keyed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
