/* Values of deck keys: from text to the field's type and back. Everything is exact: 1e8 is a whole number, 1.5 is not,
 * 0.9 is the fraction 9/10, 1.5 KiB is 1536 bytes. */
#ifndef QR_DECK_VALUE_H
#define QR_DECK_VALUE_H

#include "deck/key_table.h"

#include <stdbool.h>

/* Enough for every formatted value: 256 numbers, or a text of which each byte is escaped. */
enum { QR_VALUE_BYTES = 16384 };

/* Parses text (n bytes, any bytes) for `key` and stores it in deck; for lists, appends one item. Errors: QR_USAGE with
 * what is wrong, without the key's name or place. The field is unchanged on error. */
qr_status qr_value_parse(const qr_key *key, const char *text, size_t n, qr_deck *deck);

bool qr_key_is_list(const qr_key *key);

/* Empties a list before its items are parsed. */
void qr_value_clear_list(const qr_key *key, qr_deck *deck);

/* Writes the field of `key` as it would stand in a deck; returns its length without the terminator, as snprintf does.
 * The same text, parsed again, gives the same value. */
size_t qr_value_format(const qr_key *key, const qr_deck *deck, char *out, size_t size);

/* The bounds in words: "1 .. 1000 steps", "above 0, at most 1", "consensus | steps", or "". */
void qr_value_describe_bounds(const qr_key *key, char *out, size_t size);

#endif
