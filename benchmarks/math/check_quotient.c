/* Checks the division that kernels/exact_math.h does by hand on devices: s / (s + 1) for every float s in 0 .. 2^26,
 * from a reciprocal that is off by -2 .. 2 units in the last place, must be what division gives.
 *
 *   gcc -std=c11 -O3 -march=native -ffp-contract=off -Ikernels -D_GNU_SOURCE benchmarks/math/check_quotient.c -o
 * /tmp/quotient
 *   /tmp/quotient        half a minute */
#include "portable.h"

#include <inttypes.h>
#include <stdio.h>

enum { LENGTH = 4096, MOST_OFF = 2 };

/* How many of LENGTH floats from `first` on come out wrong. */
static uint32_t count_wrong(uint32_t first, int off)
{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < LENGTH; i++) {
        float s = qr_float_from_bits(first + i);
        float divisor = s + 1.0f;
        float inverse = qr_float_from_bits(qr_float_bits(1.0f / divisor) + (uint32_t)off);
        inverse = qr_fmaf(inverse, qr_fmaf(-divisor, inverse, 1.0f), inverse);
        float quotient = s * inverse;
        float result = qr_fmaf(inverse, qr_fmaf(-divisor, quotient, s), quotient);
        wrong += qr_float_bits(result) != qr_float_bits(s / divisor);
    }
    return wrong;
}

int main(void)
{
    const uint32_t last = 0x4c800000u; /* 2^26 */
    uint64_t wrong = 0;
    for (uint32_t first = 0; first <= last; first += LENGTH) {
        for (int off = -MOST_OFF; off <= MOST_OFF; off++) {
            wrong += count_wrong(first, off);
        }
    }
    printf("%" PRIu64 " of %" PRIu64 " quotients wrong\n", wrong, (uint64_t)(last + LENGTH) * (2 * MOST_OFF + 1));
    return wrong != 0;
}
