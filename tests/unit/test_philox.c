/* kernels/philox.h: the generator's published answers, and the counter layout that results depend on. */
#include "philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void expect_block(qr_philox_block got, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    assert_int_equal(got.word[0], w0);
    assert_int_equal(got.word[1], w1);
    assert_int_equal(got.word[2], w2);
    assert_int_equal(got.word[3], w3);
}

/* The three philox4x32-10 lines of Random123's kat_vectors. */
static void test_known_answers(void **state)
{
    (void)state;
    expect_block(qr_philox(0, 0, 0, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u);
    expect_block(qr_philox(~(uint64_t)0, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu), 0x408f276du, 0x41c83b0eu,
                 0xa20bc7c6u, 0x6d5451fdu);
    expect_block(qr_philox(0x299f31d0a4093822u, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u), 0xd16cfe09u,
                 0x94fdccebu, 0x5001e420u, 0x24126ea1u);
}

static void test_draws_follow_the_counter(void **state)
{
    (void)state;
    const uint64_t key = 0x0123456789abcdefu;
    const uint64_t agent = 0x0000000a00000003u;
    const uint64_t step = 77;
    qr_draws draws;
    qr_draws_begin(&draws, key, agent, step, QR_STREAM_RULE);
    for (uint32_t draw = 0; draw < 100; draw++) {
        qr_philox_block block = qr_philox(key, 3, 10, 77, QR_STREAM_RULE << 16 | draw / 4);
        assert_int_equal(qr_draws_next32(&draws), block.word[draw % 4]);
    }
}

static void test_64_bit_draws_are_two_words(void **state)
{
    (void)state;
    qr_draws words;
    qr_draws longs;
    qr_draws_begin(&words, 5, 6, 7, QR_STREAM_CONTROL);
    qr_draws_begin(&longs, 5, 6, 7, QR_STREAM_CONTROL);
    /* An odd start makes a 64-bit draw span two blocks. */
    assert_int_equal(qr_draws_next32(&words), qr_draws_next32(&longs));
    for (int i = 0; i < 20; i++) {
        uint64_t low = qr_draws_next32(&words);
        uint64_t high = qr_draws_next32(&words);
        assert_true(qr_draws_next64(&longs) == (high << 32 | low));
    }
}

static void test_last_draw_stays_in_its_stream(void **state)
{
    (void)state;
    qr_draws draws;
    qr_draws_begin(&draws, 1, 2, 3, QR_STREAM_RULE);
    uint32_t last = 0;
    for (int32_t i = 0; i < QR_DRAWS_MAX; i++) {
        last = qr_draws_next32(&draws);
    }
    assert_int_equal(last, qr_philox(1, 2, 0, 3, QR_STREAM_RULE << 16 | 0xffffu).word[3]);
}

static void test_planes_are_halves_of_a_block(void **state)
{
    (void)state;
    uint64_t planes[2];
    qr_planes(9, 0x500000002u, 11, QR_STREAM_PLANE_RULE, 6, planes);
    qr_philox_block block = qr_philox(9, 2, 5, 11, QR_STREAM_PLANE_RULE << 16 | 6u);
    assert_true(planes[0] == ((uint64_t)block.word[1] << 32 | block.word[0]));
    assert_true(planes[1] == ((uint64_t)block.word[3] << 32 | block.word[2]));
}

/* The numbers are part of every result that was ever published: they must not change. */
static void test_stream_numbers(void **state)
{
    (void)state;
    assert_int_equal(QR_STREAM_INITIAL_VOTE, 0);
    assert_int_equal(QR_STREAM_INITIAL_STATE, 1);
    assert_int_equal(QR_STREAM_WEIGHTS, 2);
    assert_int_equal(QR_STREAM_CONTROL, 3);
    assert_int_equal(QR_STREAM_RULE, 4);
    assert_int_equal(QR_STREAM_PLANE_ACTIVATION, 5);
    assert_int_equal(QR_STREAM_PLANE_NOISE, 6);
    assert_int_equal(QR_STREAM_PLANE_RULE, 8);
}

static void test_bounded_ends(void **state)
{
    (void)state;
    const uint64_t all = ~(uint64_t)0;
    assert_true(qr_bounded64(all, 0) == 0);
    assert_true(qr_bounded64(all, 1) == 0);
    assert_true(qr_bounded64(0, all) == 0);
    assert_true(qr_bounded64(all, 7) == 6);
    assert_true(qr_bounded64((uint64_t)1 << 63, 7) == 3);
    assert_true(qr_bounded64(all, all) == all - 1);
}

static void test_threshold(void **state)
{
    (void)state;
    assert_true(qr_threshold32(0.0) == 0);
    assert_true(qr_threshold32(-1.0) == 0);
    assert_true(qr_threshold32((double)NAN) == 0);
    assert_true(qr_threshold32(1.0) == 0x100000000u);
    assert_true(qr_threshold32(2.0) == 0x100000000u);
    assert_true(qr_threshold32(0.5) == 0x80000000u);
    assert_true(qr_threshold32(0.1) == 429496730u);
    assert_true(qr_threshold32(0x1p-32) == 1);
    assert_true(qr_threshold32(0x1p-33) == 1);
    assert_true(qr_threshold32(0x1.fffffep-34) == 0);
    assert_true(qr_threshold32(1.0 - 0x1p-34) == 0x100000000u);
}

static void test_bit_operations(void **state)
{
    (void)state;
    assert_int_equal(qr_popcount64(0), 0);
    assert_int_equal(qr_popcount64(~(uint64_t)0), 64);
    assert_int_equal(qr_popcount64(0x8000000100000001u), 3);
    assert_int_equal(qr_count_trailing_zeros64(1), 0);
    assert_int_equal(qr_count_trailing_zeros64((uint64_t)1 << 63), 63);
    assert_int_equal(qr_count_trailing_zeros64(0x6000000000u), 37);
    assert_true(qr_mul_high64(0xfedcba9876543210u, 0x0123456789abcdefu) == 0x0121fa00ad77d742u);
    assert_int_equal(qr_float_bits(-1.5f), 0xbfc00000u);
    assert_true(qr_float_from_bits(0x40490fdbu) == 0x1.921fb6p+1f);
    /* Rounded once: the product alone would lose the last bit. */
    assert_true(qr_fmaf(0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f) == 0x1p-46f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_draws_follow_the_counter),
        cmocka_unit_test(test_64_bit_draws_are_two_words),
        cmocka_unit_test(test_last_draw_stays_in_its_stream),
        cmocka_unit_test(test_planes_are_halves_of_a_block),
        cmocka_unit_test(test_stream_numbers),
        cmocka_unit_test(test_bounded_ends),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_bit_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
