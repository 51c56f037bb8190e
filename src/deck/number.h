/* Exact decimal numbers as people write them: 12, -3, 1_000_000, 2.5e3. */
#ifndef QR_DECK_NUMBER_H
#define QR_DECK_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longer ones are not taken for numbers. */
enum { QR_NUMBER_MAX_LENGTH = 300 };

/* value = (-1)^negative * digits * 10^exponent; digits has no trailing zeros. `cut` tells that more than 19 digits
 * stood there and the last ones are missing. */
typedef struct qr_decimal {
    bool negative;
    bool cut;
    uint64_t digits;
    int exponent;
} qr_decimal;

typedef enum qr_whole { QR_WHOLE, QR_WHOLE_FRACTIONAL, QR_WHOLE_TOO_LARGE } qr_whole;

/* Reads a number at the beginning of text: how many bytes it takes, 0 when there is none. Underscores may stand between
 * digits; a sign, a decimal point and an exponent may be there; hexadecimal, inf and nan are not numbers. */
size_t qr_decimal_scan(const char *text, size_t n, qr_decimal *out);

/* The number times unit (> 0), when that is a whole number within 64 bits. */
qr_whole qr_decimal_whole(const qr_decimal *number, int64_t unit, int64_t *out);

/* The double nearest to the number that text[0 .. n) holds, as accepted by qr_decimal_scan; false when it is too large
 * for a double. */
bool qr_decimal_real(const char *text, size_t n, double *out);

#endif
