"""Derives the polynomial coefficients of kernels/exact_math.h and prints them as C constants.

Run with Debian's python3-mpmath:  python3 benchmarks/math/derive_coefficients.py

Each polynomial minimises the relative error of what it is used for. Coefficients are rounded to float32 one after the
other, lowest power first, and the rest are fitted again after each rounding.
"""

import struct

from mpmath import exp, expm1, log, log1p, mpf, sqrt

from remez import evaluate, minimax


def to_float32(value):
    return mpf(struct.unpack("f", struct.pack("f", float(value)))[0])


def fit(name, target, weight, low, high, degree):
    """Coefficients of a polynomial of this degree, each a float32."""
    fixed = {}
    for power in range(degree + 1):
        coefficients, best = minimax(target, weight, low, high, degree, fixed)
        if power == 0:
            unrounded = best
        fixed = fixed | {power: to_float32(coefficients[power])}
    points = [low + (high - low) * i / mpf(5000) for i in range(5001)]
    error = max(abs(weight(z) * (evaluate(fixed, z) - target(z))) for z in points)
    before, after = float(unrounded * 2**24), float(error * 2**24)
    print(f"/* {name}: relative error {before:.4f} * 2^-24, with float32 coefficients {after:.4f} */")
    for power, value in fixed.items():
        print(f"{to_c(value)}, /* {power} */")


def to_c(value):
    digits, exponent = float(value).hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}f"


def near_zero(function, limit):
    """The function, with its limit where cancellation would leave nothing."""
    return lambda z: mpf(limit) if abs(z) < mpf(10) ** -12 else function(z)


HALF_LN2 = log(2) / 2 * mpf("1.0005")

# exp(y) = 1 + y + y^2 q(y), |y| <= ln(2) / 2
fit(
    "exp",
    near_zero(lambda y: (expm1(y) - y) / y**2, 0.5),
    lambda y: y**2 / exp(y),
    -HALF_LN2,
    HALF_LN2 * mpf("1.0001"),
    4,
)

# (exp(2 r) - 1) / 2 = r + r^2 q(r), |r| <= ln(2) / 4
fit(
    "tanh",
    near_zero(lambda r: (expm1(2 * r) / 2 - r) / r**2, 1),
    near_zero(lambda r: abs(r**2 / (expm1(2 * r) / 2)), 0),
    -HALF_LN2 / 2,
    HALF_LN2 / 2 * mpf("1.0001"),
    4,
)

# log(1 + f) = f - f^2 / 2 + f^3 q(f), sqrt(1/2) <= 1 + f <= sqrt(2)
fit(
    "log",
    near_zero(lambda f: (log1p(f) - f + f**2 / 2) / f**3, mpf(1) / 3),
    near_zero(lambda f: abs(f**3 / log1p(f)), 0),
    sqrt(mpf("0.4999")) - 1,
    sqrt(mpf("2.0002")) - 1,
    7,
)
