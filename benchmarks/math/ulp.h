/* How far a float is from the exact result, and a checksum of floats. */
#ifndef QR_ULP_H
#define QR_ULP_H

#include "portable.h"

#include <math.h>

/* |got - exact| in units in the last place of exact as a float; infinity where only one of them is a NaN. */
static inline double qr_error_ulp(float got, double exact)
{
    float rounded = (float)exact;
    if (isnan(exact) || isnan(got)) {
        return isnan(exact) && isnan(got) ? 0.0 : INFINITY;
    }
    if (isinf(rounded) || isinf(got)) {
        /* Overflow may begin one unit early or late: count infinity as the number after the largest. */
        const double unit = 0x1p104;
        const double after_largest = 0x1p128;
        double a = isinf(got) ? copysign(after_largest, (double)got) : (double)got;
        double b = isinf(rounded) ? copysign(after_largest, (double)rounded) : exact;
        return fabs(a - b) / unit;
    }
    int exponent = exact == 0.0 ? -126 : ilogb(exact);
    return fabs((double)got - exact) / ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
}

/* Folds a result into a checksum; all NaNs count as one. */
static inline uint64_t qr_checksum(uint64_t checksum, float value)
{
    return checksum * 6364136223846793005u + (isnan(value) ? 0x7fc00000u : qr_float_bits(value));
}

#endif
