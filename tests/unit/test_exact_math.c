/* kernels/exact_math.h: edges, error bounds, and the same bits from scalar and vector code and from every compiler.
 * QUORATE_EXHAUSTIVE=1 in the environment tries all 2^32 arguments (minutes). */
#include "../../benchmarks/math/ulp.h"
#include "exact_math.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LENGTH = 4096 };

#define APART __attribute__((noinline, noclone))
#ifdef __clang__
#undef APART
#define APART __attribute__((noinline))
#endif

/* Loops that the compiler turns into vector code, and single calls that it cannot. */
#define DEFINE(name)                                                                                                   \
    static APART void name##_array(const float *restrict in, float *restrict out, int n)                               \
    {                                                                                                                  \
        for (int i = 0; i < n; i++) {                                                                                  \
            out[i] = qr_##name##f(in[i]);                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static APART float name##_single(float x)                                                                          \
    {                                                                                                                  \
        return qr_##name##f(x);                                                                                        \
    }

DEFINE(exp)
DEFINE(log)
DEFINE(tanh)

typedef struct function_case {
    const char *name;
    void (*array)(const float *restrict, float *restrict, int);
    float (*single)(float);
    double (*exact)(double);
    double bound_ulp;
    uint64_t checksum; /* of the results for every 4099th argument: a regression guard over compilers and versions */
} function_case;

static const function_case CASES[] = {
    {"exp", exp_array, exp_single, exp, 1.02, 0xbd2ba3fd9f6b902e},
    {"log", log_array, log_single, log, 0.93, 0x30415845a275e0b6},
    {"tanh", tanh_array, tanh_single, tanh, 2.57, 0x2e051d843082f4a4},
};

static int same_bits(float a, float b)
{
    return qr_float_bits(a) == qr_float_bits(b) || (isnan(a) && isnan(b));
}

static void sweep(const function_case *function, uint32_t stride, uint64_t *checksum, double *worst)
{
    static float in[LENGTH];
    static float out[LENGTH];
    *checksum = 0;
    *worst = 0.0;
    uint64_t next = 0;
    while (next >> 32 == 0) {
        int n = 0;
        for (; n < LENGTH && next >> 32 == 0; n++, next += stride) {
            in[n] = qr_float_from_bits((uint32_t)next);
        }
        function->array(in, out, n);
        for (int i = 0; i < n; i++) {
            *checksum = qr_checksum(*checksum, out[i]);
            double error = qr_error_ulp(out[i], function->exact((double)in[i]));
            *worst = error > *worst ? error : *worst;
            if (!same_bits(out[i], function->single(in[i]))) {
                fail_msg("%s(%a): %a in a loop, %a alone", function->name, (double)in[i], (double)out[i],
                         (double)function->single(in[i]));
            }
        }
    }
}

static void test_errors_and_bits(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof(CASES) / sizeof(CASES[0]); f++) {
        uint64_t checksum;
        double worst;
        sweep(&CASES[f], 4099, &checksum, &worst);
        print_message("%s: largest error %.4f ulp, checksum 0x%016llx\n", CASES[f].name, worst,
                      (unsigned long long)checksum);
        assert_true(worst <= CASES[f].bound_ulp);
        assert_int_equal(checksum, CASES[f].checksum);
        if (getenv("QUORATE_EXHAUSTIVE") != NULL) {
            sweep(&CASES[f], 1, &checksum, &worst);
            print_message("%s: largest error of all %.4f ulp\n", CASES[f].name, worst);
            assert_true(worst <= CASES[f].bound_ulp);
        }
    }
}

static void expect(const char *what, float got, float wanted)
{
    if (!same_bits(got, wanted)) {
        fail_msg("%s: %a instead of %a", what, (double)got, (double)wanted);
    }
}

static void test_exp_edges(void **state)
{
    (void)state;
    expect("exp(0)", exp_single(0.0f), 1.0f);
    expect("exp(-0)", exp_single(-0.0f), 1.0f);
    expect("exp(smallest)", exp_single(0x1p-149f), 1.0f);
    expect("exp(1)", exp_single(1.0f), 0x1.5bf0a8p+1f);
    expect("exp(inf)", exp_single(INFINITY), INFINITY);
    expect("exp(-inf)", exp_single(-INFINITY), 0.0f);
    expect("exp(NaN)", exp_single(NAN), NAN);
    expect("exp(-NaN)", exp_single(-NAN), NAN);
    expect("exp(largest)", exp_single(0x1.fffffep127f), INFINITY);
    expect("exp(-largest)", exp_single(-0x1.fffffep127f), 0.0f);
    expect("first overflow", exp_single(0x1.62e43p+6f), INFINITY);
    assert_true(isfinite(exp_single(0x1.62e42ep+6f)));
    expect("smallest result", exp_single(-103.5f), 0x1p-149f);
    expect("subnormal result", exp_single(-100.0f), 0x1.bp-145f);
    expect("underflow to 0", exp_single(-104.0f), 0.0f);
}

static void test_log_edges(void **state)
{
    (void)state;
    expect("log(1)", log_single(1.0f), 0.0f);
    expect("log(0)", log_single(0.0f), -INFINITY);
    expect("log(-0)", log_single(-0.0f), -INFINITY);
    expect("log(inf)", log_single(INFINITY), INFINITY);
    expect("log(-inf)", log_single(-INFINITY), NAN);
    expect("log(-1)", log_single(-1.0f), NAN);
    expect("log(-smallest)", log_single(-0x1p-149f), NAN);
    expect("log(NaN)", log_single(NAN), NAN);
    expect("log(-NaN)", log_single(-NAN), NAN);
    expect("log(2)", log_single(2.0f), 0x1.62e43p-1f);
    expect("log(smallest)", log_single(0x1p-149f), -0x1.9d1dap+6f);
    expect("log(smallest normal)", log_single(0x1p-126f), -0x1.5d58ap+6f);
    expect("log(largest)", log_single(0x1.fffffep127f), 0x1.62e43p+6f);
}

static void test_tanh_edges(void **state)
{
    (void)state;
    expect("tanh(0)", tanh_single(0.0f), 0.0f);
    expect("tanh(-0)", tanh_single(-0.0f), -0.0f);
    expect("tanh(smallest)", tanh_single(0x1p-149f), 0x1p-149f);
    expect("tanh(-smallest normal)", tanh_single(-0x1p-126f), -0x1p-126f);
    expect("tanh(small)", tanh_single(0x1.8p-20f), 0x1.8p-20f);
    expect("tanh(inf)", tanh_single(INFINITY), 1.0f);
    expect("tanh(-inf)", tanh_single(-INFINITY), -1.0f);
    expect("tanh(NaN)", tanh_single(NAN), NAN);
    expect("tanh(-NaN)", tanh_single(-NAN), NAN);
    expect("tanh(9.125)", tanh_single(9.125f), 1.0f);
    expect("tanh(largest)", tanh_single(0x1.fffffep127f), 1.0f);
}

/* Odd, and never beyond 1: a state that is fed back must not grow by rounding. */
static void test_tanh_odd_and_bounded(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= 0x7f800000u; bits += 4093) {
        float x = qr_float_from_bits((uint32_t)bits);
        float y = tanh_single(x);
        expect("tanh(-x) = -tanh(x)", tanh_single(-x), -y);
        if (!(y >= 0.0f && y <= 1.0f)) {
            fail_msg("tanh(%a) = %a", (double)x, (double)y);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_and_bits),
        cmocka_unit_test(test_exp_edges),
        cmocka_unit_test(test_log_edges),
        cmocka_unit_test(test_tanh_edges),
        cmocka_unit_test(test_tanh_odd_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
