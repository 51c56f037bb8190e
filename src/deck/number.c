#include "deck/number.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_DIGITS = 19, MAX_EXPONENT = 100000 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; returns the bytes taken. */
static size_t scan_digits(const char *text, size_t n, bool fraction, int *count, qr_decimal *out)
{
    size_t at = 0;
    while (at < n) {
        bool underscore = text[at] == '_' && at > 0 && is_digit(text[at - 1]) && at + 1 < n && is_digit(text[at + 1]);
        if (underscore) {
            at++;
            continue;
        }
        if (!is_digit(text[at])) {
            break;
        }
        unsigned digit = (unsigned)(text[at] - '0');
        if (*count == MAX_DIGITS) {
            out->cut = out->cut || digit != 0;
            out->exponent += fraction || out->exponent >= MAX_EXPONENT ? 0 : 1;
        } else {
            out->digits = out->digits * 10 + digit;
            *count += out->digits != 0 ? 1 : 0;
            out->exponent -= fraction && out->exponent > -MAX_EXPONENT ? 1 : 0;
        }
        at++;
    }
    return at;
}

/* "e+12" at the beginning of text, or 0 bytes. */
static size_t scan_exponent(const char *text, size_t n, int *out)
{
    size_t at = 0;
    if (n < 2 || (text[0] != 'e' && text[0] != 'E')) {
        return 0;
    }
    at++;
    bool negative = text[at] == '-';
    if (text[at] == '-' || text[at] == '+') {
        at++;
    }
    if (at >= n || !is_digit(text[at])) {
        return 0;
    }
    int exponent = 0;
    for (; at < n && is_digit(text[at]); at++) {
        exponent = exponent >= MAX_EXPONENT ? MAX_EXPONENT : exponent * 10 + (text[at] - '0');
    }
    *out = negative ? -exponent : exponent;
    return at;
}

size_t qr_decimal_scan(const char *text, size_t n, qr_decimal *out)
{
    qr_decimal number = {false, false, 0, 0};
    int count = 0;
    size_t at = 0;
    if (n > 0 && (text[0] == '-' || text[0] == '+')) {
        number.negative = text[0] == '-';
        at = 1;
    }
    size_t whole = scan_digits(text + at, n - at, false, &count, &number);
    at += whole;
    if (at < n && text[at] == '.') {
        size_t fraction = scan_digits(text + at + 1, n - at - 1, true, &count, &number);
        if (whole + fraction == 0) {
            return 0;
        }
        at += 1 + fraction;
    } else if (whole == 0) {
        return 0;
    }
    int exponent = 0;
    at += scan_exponent(text + at, n - at, &exponent);
    number.exponent += exponent;
    while (!number.cut && number.digits != 0 && number.digits % 10 == 0) {
        number.digits /= 10;
        number.exponent++;
    }
    *out = number;
    return at <= QR_NUMBER_MAX_LENGTH ? at : 0;
}

qr_whole qr_decimal_whole(const qr_decimal *number, int64_t unit, int64_t *out)
{
    if (number->digits == 0) {
        *out = 0;
        return QR_WHOLE;
    }
    uint64_t value = number->digits;
    int exponent = number->exponent;
    if (number->cut) {
        return exponent <= 0 ? QR_WHOLE_FRACTIONAL : QR_WHOLE_TOO_LARGE;
    }
    /* Tens are taken out of the unit and the digits first, so that 1.5 TiB does not overflow on the way. */
    uint64_t factor = (uint64_t)unit;
    while (exponent < 0) {
        if (value % 5 == 0 && factor % 2 == 0) {
            value /= 5;
            factor /= 2;
        } else if (value % 2 == 0 && factor % 5 == 0) {
            value /= 2;
            factor /= 5;
        } else if (factor % 10 == 0) {
            factor /= 10;
        } else {
            return QR_WHOLE_FRACTIONAL;
        }
        exponent++;
    }
    if (value > (uint64_t)INT64_MAX / factor) {
        return QR_WHOLE_TOO_LARGE;
    }
    value *= factor;
    for (; exponent > 0; exponent--) {
        if (value > (uint64_t)INT64_MAX / 10) {
            return QR_WHOLE_TOO_LARGE;
        }
        value *= 10;
    }
    *out = number->negative ? -(int64_t)value : (int64_t)value;
    return QR_WHOLE;
}

bool qr_decimal_real(const char *text, size_t n, double *out)
{
    char digits[QR_NUMBER_MAX_LENGTH + 1];
    size_t used = 0;
    for (size_t i = 0; i < n && used < QR_NUMBER_MAX_LENGTH; i++) {
        if (text[i] != '_') {
            digits[used++] = text[i];
        }
    }
    digits[used] = '\0';
    double value = strtod(digits, NULL);
    if (!isfinite(value)) {
        return false;
    }
    *out = value;
    return true;
}
