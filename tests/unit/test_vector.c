/* Arithmetic on vectors of words against the same on single words. An error in the last bit of a drawn number would
 * hardly ever change a vote, so it has to be looked for here. */
#define QR_SIMD_BYTES  32
#define QR_SIMD_SUFFIX _test
#include "backend/cpu/simd/vector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CASES = 100000 };

static uint64_t random_state;

/* Random words, with a liking for many zeros or ones in a row, where carries go wrong. */
static uint64_t random_word(void)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    uint64_t bits = z * 0xd1342543de82ef95u;
    switch (z % 5) {
    case 0: return bits >> (z >> 32) % 64;
    case 1: return ~(bits >> (z >> 32) % 64);
    case 2: return bits << (z >> 32) % 64;
    case 3: return ~(uint64_t)0 << (z >> 32) % 64;
    default: return bits;
    }
}

static qr_vec random_vector(void)
{
    uint64_t words[QR_LANES];
    for (int i = 0; i < QR_LANES; i++) {
        words[i] = random_word();
    }
    return qr_vec_load(words);
}

static void philox_equals_scalar(void **state)
{
    (void)state;
    for (int n = 0; n < CASES; n++) {
        uint64_t key = random_word();
        qr_vec c[4] = {random_vector(), random_vector(), random_vector(), random_vector()};
        qr_philox_keys keys;
        qr_philox_expand(key, &keys);
        qr_philox_vec got = qr_philox_lanes(&keys, c[0], c[1], c[2], c[3]);
        for (int i = 0; i < QR_LANES; i++) {
            qr_philox_block expected =
                qr_philox(key, (uint32_t)c[0][i], (uint32_t)c[1][i], (uint32_t)c[2][i], (uint32_t)c[3][i]);
            for (int w = 0; w < 4; w++) {
                assert_int_equal((uint32_t)got.word[w][i], expected.word[w]);
            }
        }
    }
}

static void bounded_equals_scalar(void **state)
{
    (void)state;
    for (int n = 0; n < CASES; n++) {
        qr_vec random = random_vector();
        qr_vec limit = random_vector();
        qr_vec got = qr_vec_bounded(random, limit);
        for (int i = 0; i < QR_LANES; i++) {
            assert_true(got[i] == qr_bounded64(random[i], limit[i]));
        }
    }
}

static void counts_equal_scalar(void **state)
{
    (void)state;
    for (int n = 0; n < CASES; n++) {
        qr_vec v = random_vector();
        int64_t expected = 0;
        bool any = false;
        for (int i = 0; i < QR_LANES; i++) {
            expected += (int64_t)qr_popcount64(v[i]);
            any = any || v[i] != 0;
        }
        assert_int_equal(qr_vec_sum(qr_vec_sum_bytes(qr_vec_popcount_bytes(v))), expected);
        assert_int_equal(qr_vec_any(v), any);
    }
    assert_false(qr_vec_any(qr_vec_all(0)));
    qr_vec most = qr_vec_all(0x1f1f1f1f1f1f1fu << 8 | 0x26); /* sums to 255 */
    assert_int_equal(qr_vec_sum(qr_vec_sum_bytes(most)), 255 * QR_LANES);
}

static void joins_halves(void **state)
{
    (void)state;
    for (int n = 0; n < CASES; n++) {
        qr_vec low = random_vector();
        qr_vec high = random_vector();
        qr_vec got = qr_vec_join(low, high);
        for (int i = 0; i < QR_LANES; i++) {
            assert_true(got[i] == ((uint64_t)(uint32_t)high[i] << 32 | (uint32_t)low[i]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(philox_equals_scalar), cmocka_unit_test(bounded_equals_scalar),
                                       cmocka_unit_test(counts_equal_scalar), cmocka_unit_test(joins_halves)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
