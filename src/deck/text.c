#include "deck/text.h"

#include <stdio.h>
#include <string.h>

enum { SHOWN_LENGTH = 60 };

size_t qr_text_decode(const char *s, size_t n, uint32_t *character)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t length = u[0] < 0x80 ? 1 : u[0] < 0xC2 ? 0 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : u[0] < 0xF5 ? 4 : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    uint32_t c = length == 1 ? u[0] : (uint32_t)(u[0] & (0xFF >> (length + 1)));
    for (size_t i = 1; i < length; i++) {
        if ((u[i] & 0xC0) != 0x80) {
            return 0;
        }
        c = c << 6 | (u[i] & 0x3F);
    }
    bool overlong = (length == 3 && c < 0x800) || (length == 4 && c < 0x10000);
    bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    if (overlong || surrogate || c > 0x10FFFF) {
        return 0;
    }
    *character = c;
    return length;
}

bool qr_text_printable(uint32_t c)
{
    bool control = c < 0x20 || (c >= 0x7F && c <= 0x9F);
    bool separator = c == 0x2028 || c == 0x2029;
    bool non_character = c == 0xFEFF || c == 0xFFFE || c == 0xFFFF;
    return !control && !separator && !non_character;
}

size_t qr_text_check(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        uint32_t c = 0;
        size_t length = qr_text_decode(s + at, n - at, &c);
        if (length == 0 || !qr_text_printable(c)) {
            return at;
        }
        at += length;
    }
    return n;
}

static const char *escape(const char *s, size_t n, size_t limit, char *out, size_t size)
{
    size_t used = 0;
    size_t at = 0;
    while (at < n) {
        uint32_t c = 0;
        size_t length = qr_text_decode(s + at, n - at, &c);
        bool plain = length != 0 && qr_text_printable(c);
        size_t needed = plain ? length : 4;
        if (used + needed > limit || used + needed + sizeof "..." > size) {
            memcpy(out + used, "...", sizeof "...");
            return out;
        }
        if (plain) {
            memcpy(out + used, s + at, length);
            at += length;
        } else {
            (void)snprintf(out + used, size - used, "\\x%02X", (unsigned char)s[at]);
            at += 1;
        }
        used += needed;
    }
    out[used] = '\0';
    return out;
}

const char *qr_text_show(const char *s, size_t n, char out[QR_SHOWN_BYTES])
{
    return escape(s, n, SHOWN_LENGTH, out, QR_SHOWN_BYTES);
}

const char *qr_text_escape(const char *s, size_t n, char *out, size_t size)
{
    return escape(s, n, size, out, size);
}
