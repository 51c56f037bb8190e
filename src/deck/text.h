/* Text that came from a user: is it valid UTF-8, can it be shown, how is it shown in a message. */
#ifndef QR_DECK_TEXT_H
#define QR_DECK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QR_SHOWN_BYTES = 96 };

/* Decodes one UTF-8 character of s (n bytes, n > 0): its length in bytes, or 0 when it is not valid (RFC 3629: no
 * surrogates, no overlong forms, at most U+10FFFF). */
size_t qr_text_decode(const char *s, size_t n, uint32_t *character);

/* True for characters that a one-line text may hold: no controls (C0, DEL, C1), line separators, byte order marks or
 * non-characters that YAML refuses. */
bool qr_text_printable(uint32_t character);

/* Offset of the first byte of s that is invalid or not printable; n when all is well. */
size_t qr_text_check(const char *s, size_t n);

/* s as it can stand in a message: what is not printable as \xNN, cut with "..." after about 60 bytes. Returns out. */
const char *qr_text_show(const char *s, size_t n, char out[QR_SHOWN_BYTES]);

/* The same without the cut, for file names; out takes `size` bytes and is always terminated. */
const char *qr_text_escape(const char *s, size_t n, char *out, size_t size);

#endif
