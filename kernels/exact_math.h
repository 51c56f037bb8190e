/* exp, log and tanh in float32: the same bits from every compiler and on every device.
 *
 * Only + - * /, fused multiply-add and integer operations on the bits of a float are used, each rounded as IEEE 754
 * says, so the result does not depend on a mathematical library. There are no branches and no table look-ups: a loop
 * over one of these functions becomes vector instructions, with the same bits in every lane as from a scalar call.
 *
 * Largest errors over all 2^32 arguments, in units in the last place of the exact result: qr_expf 1.02, qr_logf 0.93,
 * qr_tanhf 2.57 (benchmarks/math/ measures them and derives the coefficients). Infinities, zeros of either sign,
 * subnormal numbers and overflow give what C's functions give; a NaN gives a NaN, whose sign and payload may differ
 * between devices. */
#ifndef QR_EXACT_MATH_H
#define QR_EXACT_MATH_H

#include "portable.h"

/* a where mask is all ones, b where it is 0. Integers, because compilers may turn a choice between floats into a
 * branch. */
QR_FN float qr_select(uint32_t mask, float a, float b)
{
    return qr_float_from_bits((qr_float_bits(a) & mask) | (qr_float_bits(b) & ~mask));
}

/* e^x. */
QR_FN float qr_expf(float x)
{
    /* Beyond these ends the result is infinity or 0 all the same; a NaN passes through. */
    x = 89.0f < x ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;

    /* x = n ln(2) + y. Adding 1.5 * 2^23 leaves the integer n in the low bits. ln(2) is split so that n * high is
     * exact. */
    const float round = 12582912.0f;
    float shifted = qr_fmaf(x, 0x1.715476p+0f, round);
    float n = shifted - round;
    float y = qr_fmaf(n, -0x1.62e4p-1f, x);
    y = qr_fmaf(n, -0x1.7f7d1cp-20f, y);

    float q = 0x1.6ac862p-10f;
    q = qr_fmaf(q, y, 0x1.123df2p-7f);
    q = qr_fmaf(q, y, 0x1.555858p-5f);
    q = qr_fmaf(q, y, 0x1.55548cp-3f);
    q = qr_fmaf(q, y, 0x1.fffffcp-2f);
    float power = qr_fmaf(y * y, q, y) + 1.0f;

    /* Times 2^n in two factors, each a normal number even where the product is subnormal or infinite. */
    uint32_t biased = qr_float_bits(shifted) - qr_float_bits(round) + 2u * 127u;
    uint32_t half = biased >> 1;
    return power * qr_float_from_bits(half << 23) * qr_float_from_bits((biased - half) << 23);
}

/* The natural logarithm of x: -infinity for either zero, NaN below. */
QR_FN float qr_logf(float x)
{
    const uint32_t infinity = 0x7f800000u;
    const uint32_t root_half = 0x3f3504f3u;
    uint32_t bits = qr_float_bits(x);
    uint32_t subnormal = 0u - (uint32_t)(bits < 0x00800000u);
    uint32_t normal_bits = qr_float_bits(qr_select(subnormal, x * 8388608.0f, x));

    /* x = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); the exponent is kept 128 too large to stay positive. */
    uint32_t scaled = normal_bits - root_half + (128u << 23);
    float e = (float)(int32_t)(scaled >> 23) - qr_select(subnormal, 128.0f + 23.0f, 128.0f);
    float f = qr_float_from_bits((scaled & 0x007fffffu) + root_half) - 1.0f;

    float q = -0x1.3921fap-4f;
    q = qr_fmaf(q, f, 0x1.0586ap-3f);
    q = qr_fmaf(q, f, -0x1.0d865cp-3f);
    q = qr_fmaf(q, f, 0x1.22d48ep-3f);
    q = qr_fmaf(q, f, -0x1.547192p-3f);
    q = qr_fmaf(q, f, 0x1.99a03cp-3f);
    q = qr_fmaf(q, f, -0x1.00022ap-2f);
    q = qr_fmaf(q, f, 0x1.555554p-2f);
    float tail = f * f * qr_fmaf(f, q, -0.5f);
    float result = qr_fmaf(e, 0x1.62e4p-1f, qr_fmaf(e, 0x1.7f7d1cp-20f, tail) + f);

    uint32_t zero = 0u - (uint32_t)(bits << 1 == 0u);
    uint32_t infinite = 0u - (uint32_t)(bits == infinity);
    uint32_t special = 0u - (uint32_t)(bits >= infinity);
    float edge = qr_select(infinite, x, qr_float_from_bits(0x7fc00000u));
    return qr_select(zero, qr_float_from_bits(0xff800000u), qr_select(special, edge, result));
}

/* s / (s + 1) for s in 0 .. 2^26, or NaN: what division gives. On devices by its steps without the cases that such
 * arguments never are, and without the branch to them; right for every s that qr_tanhf has, also if the reciprocal were
 * off by 2 units in the last place (benchmarks/math/check_quotient.c). */
QR_FN float qr_over_one_more(float s)
{
    float divisor = s + 1.0f;
#ifdef __CUDA_ARCH__
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(divisor));
    inverse = qr_fmaf(inverse, qr_fmaf(-divisor, inverse, 1.0f), inverse);
    float quotient = s * inverse;
    return qr_fmaf(inverse, qr_fmaf(-divisor, quotient, s), quotient);
#else
    return s / divisor;
#endif
}

/* The hyperbolic tangent of x, never beyond -1 .. 1; odd to the last bit. */
QR_FN float qr_tanhf(float x)
{
    uint32_t sign = qr_float_bits(x) & 0x80000000u;
    float a = qr_float_from_bits(qr_float_bits(x) ^ sign);
    a = 9.125f < a ? 9.125f : a; /* tanh rounds to 1 from 9.02 on */

    /* a = n ln(2) / 2 + r. The integer n + 127 is left in the low bits: shifted up it is the exponent of 2^n. */
    const float round = 12582912.0f + 127.0f;
    float shifted = qr_fmaf(a, 0x1.715476p+1f, round);
    float power = qr_float_from_bits(qr_float_bits(shifted) << 23);
    float r = qr_fmaf(shifted - round, -0x1.62e43p-2f, a);

    float q = 0x1.6ab6e2p-5f;
    q = qr_fmaf(q, r, 0x1.122c9ap-3f);
    q = qr_fmaf(q, r, 0x1.55579ap-2f);
    q = qr_fmaf(q, r, 0x1.5554aap-1f);
    q = qr_fmaf(q, r, 0x1.fffffep-1f);

    /* With s = (e^(2a) - 1) / 2, tanh(a) = s / (s + 1): no cancellation near 0. */
    float s = qr_fmaf(qr_fmaf(r * r, q, r), power, qr_fmaf(power, 0.5f, -0.5f));
    return qr_float_from_bits(qr_float_bits(qr_over_one_more(s)) | sign);
}

#endif
