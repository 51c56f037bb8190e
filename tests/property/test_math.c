/* What models rely on: draws are uniform and independent, probabilities are what they say, and the functions obey their
 * identities. Keys are fixed, so the bounds (6 standard errors a case, 4 over all cases) either hold or do not. */
#include "exact_math.h"
#include "philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CASES = 1000, SAMPLES = 4096, MAX_BINS = 64 };

/* A generator of test cases that owes nothing to Philox (splitmix64). */
static uint64_t case_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double case_uniform(uint64_t *state)
{
    return (double)(case_random(state) >> 11) * 0x1p-53;
}

static void check_z(const char *what, int number, double z, double bound)
{
    if (!(fabs(z) <= bound)) {
        fail_msg("%s, case %d: %.2f standard errors", what, number, z);
    }
}

/* Chi square of bounded draws of consecutive agents, over bins of random number. */
static void test_bounded_is_uniform(void **state)
{
    (void)state;
    uint64_t source = 1;
    double sum = 0.0;
    double freedom = 0.0;
    for (int number = 0; number < CASES; number++) {
        uint64_t bins = 2 + case_random(&source) % (MAX_BINS - 1);
        uint64_t key = case_random(&source);
        uint64_t first = case_random(&source);
        int64_t count[MAX_BINS] = {0};
        for (uint64_t i = 0; i < SAMPLES; i++) {
            qr_draws draws;
            qr_draws_begin(&draws, key, first + i / 8, (uint64_t)number, QR_STREAM_RULE);
            draws.next = (uint32_t)(i % 8) * 4; /* every block's first word */
            uint64_t value = qr_bounded64(qr_draws_next64(&draws), bins);
            assert_true(value < bins);
            count[value]++;
        }
        double expected = (double)SAMPLES / (double)bins;
        double chi_square = 0.0;
        for (uint64_t bin = 0; bin < bins; bin++) {
            chi_square += ((double)count[bin] - expected) * ((double)count[bin] - expected) / expected;
        }
        double degrees = (double)(bins - 1);
        /* Wilson and Hilferty: the cube root of chi square is nearly normal. */
        double z = (cbrt(chi_square / degrees) - 1.0 + 2.0 / (9.0 * degrees)) / sqrt(2.0 / (9.0 * degrees));
        check_z("chi square", number, z, 6.0);
        sum += chi_square;
        freedom += degrees;
    }
    check_z("chi square of all", CASES, (sum - freedom) / sqrt(2.0 * freedom), 4.0);
}

/* Below n, growing with the random number, and hitting both ends, for n of every size. */
static void test_bounded_is_bounded(void **state)
{
    (void)state;
    uint64_t source = 2;
    for (int number = 0; number < CASES; number++) {
        uint64_t n = (case_random(&source) >> case_random(&source) % 64) | 1u;
        uint64_t a = case_random(&source);
        uint64_t b = case_random(&source);
        assert_true(qr_bounded64(a < b ? a : b, n) <= qr_bounded64(a < b ? b : a, n));
        assert_true(qr_bounded64(0, n) == 0);
        assert_true(qr_bounded64(~(uint64_t)0, n) == n - 1);
    }
}

/* Bits of planes: each lane half ones, and no agreement beyond chance between what must be independent. */
static void test_planes_are_fair_and_independent(void **state)
{
    (void)state;
    enum { GROUPS = 64, KINDS = 6 };
    static const char *const KIND[KINDS] = {"ones",  "planes of a pair", "neighbouring groups",
                                            "steps", "streams",          "neighbouring lanes"};
    uint64_t source = 3;
    double total[KINDS] = {0.0};
    int64_t lane_ones[64] = {0};
    for (int number = 0; number < CASES; number++) {
        uint64_t key = case_random(&source);
        uint64_t first = case_random(&source);
        uint64_t step = case_random(&source) >> 32;
        uint32_t pair = (uint32_t)(case_random(&source) % 16);
        int64_t ones[KINDS] = {0};
        for (uint64_t i = 0; i < GROUPS; i++) {
            uint64_t here[2];
            uint64_t other[3][2];
            qr_planes(key, first + i, step, QR_STREAM_PLANE_RULE, pair, here);
            qr_planes(key, first + i + 1, step, QR_STREAM_PLANE_RULE, pair, other[0]);
            qr_planes(key, first + i, step + 1, QR_STREAM_PLANE_RULE, pair, other[1]);
            qr_planes(key, first + i, step, QR_STREAM_PLANE_NOISE, pair, other[2]);
            ones[0] += qr_popcount64(here[0]);
            ones[1] += qr_popcount64(here[0] ^ here[1]);
            for (int kind = 0; kind < 3; kind++) {
                ones[2 + kind] += qr_popcount64(here[0] ^ other[kind][0]);
            }
            ones[5] += qr_popcount64(here[0] ^ (here[0] << 1 | here[0] >> 63));
            for (int lane = 0; lane < 64; lane++) {
                lane_ones[lane] += (int64_t)(here[1] >> lane & 1u);
            }
        }
        for (int kind = 0; kind < KINDS; kind++) {
            double excess = (double)ones[kind] - GROUPS * 32.0;
            check_z(KIND[kind], number, excess / (0.5 * sqrt(GROUPS * 64.0)), 6.0);
            total[kind] += excess;
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        check_z(KIND[kind], CASES, total[kind] / (0.5 * sqrt((double)CASES * GROUPS * 64.0)), 4.0);
    }
    for (int lane = 0; lane < 64; lane++) {
        double bits = (double)CASES * GROUPS;
        check_z("lane", lane, ((double)lane_ones[lane] - bits / 2.0) / (0.5 * sqrt(bits)), 5.0);
    }
}

/* A word falls below the threshold of p with probability p. */
static void test_threshold_has_its_probability(void **state)
{
    (void)state;
    uint64_t source = 4;
    double total = 0.0;
    double variance = 0.0;
    for (int number = 0; number < CASES; number++) {
        double p = 0.02 + 0.96 * case_uniform(&source);
        uint64_t threshold = qr_threshold32(p);
        assert_true(fabs((double)threshold * 0x1p-32 - p) <= 0x1p-33);
        uint64_t key = case_random(&source);
        qr_draws draws;
        qr_draws_begin(&draws, key, (uint64_t)number, 0, QR_STREAM_CONTROL);
        int64_t hits = 0;
        for (int i = 0; i < SAMPLES; i++) {
            hits += qr_draws_next32(&draws) < threshold ? 1 : 0;
        }
        double excess = (double)hits - SAMPLES * p;
        check_z("hits", number, excess / sqrt(SAMPLES * p * (1.0 - p)), 6.0);
        total += excess;
        variance += SAMPLES * p * (1.0 - p);
    }
    check_z("hits of all", CASES, total / sqrt(variance), 4.0);
}

static void check_near(const char *what, double x, double got, double wanted, double tolerance)
{
    if (!(fabs(got - wanted) <= tolerance)) {
        fail_msg("%s at %a: %.9g instead of %.9g", what, x, got, wanted);
    }
}

/* Identities that hold whatever the polynomials are; epsilon = 2^-23 is one unit in the last place near 1. */
static void test_functions_obey_identities(void **state)
{
    (void)state;
    const double epsilon = 0x1p-23;
    uint64_t source = 5;
    for (int number = 0; number < 100 * CASES; number++) {
        float x = (float)(160.0 * case_uniform(&source) - 80.0);
        double power = (double)qr_expf(x);
        check_near("exp(x) exp(-x) = 1", (double)x, power * (double)qr_expf(-x), 1.0, 3.0 * epsilon);
        check_near("log(exp(x)) = x", (double)x, (double)qr_logf((float)power), (double)x,
                   epsilon * (2.0 + fabs((double)x)));
        float y = (float)(20.0 * case_uniform(&source) - 10.0);
        double square = (double)qr_expf(y) * (double)qr_expf(y);
        check_near("tanh(y) = (e^2y - 1) / (e^2y + 1)", (double)y, (double)qr_tanhf(y), (square - 1.0) / (square + 1.0),
                   4.0 * epsilon);
        float a = (float)(1e-3 + 1e3 * case_uniform(&source));
        check_near("log(4 a) = log(a) + 2 log(2)", (double)a, (double)qr_logf(4.0f * a),
                   (double)qr_logf(a) + 1.3862943611198906, 12.0 * epsilon);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounded_is_uniform),
        cmocka_unit_test(test_bounded_is_bounded),
        cmocka_unit_test(test_planes_are_fair_and_independent),
        cmocka_unit_test(test_threshold_has_its_probability),
        cmocka_unit_test(test_functions_obey_identities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
