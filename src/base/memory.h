/* Checked allocation: a product of sizes that overflows is an error, not a small buffer. */
#ifndef QR_BASE_MEMORY_H
#define QR_BASE_MEMORY_H

#include "base/status.h"

#include <stddef.h>

/* Zeroed memory for count elements of `size` bytes, 64-byte aligned; freed with free(). `what` names it in the error.
 * A count of 0 gives a valid pointer. */
qr_status qr_allocate(size_t count, size_t size, const char *what, void **out);

/* Grows *array to at least `needed` elements (amortised doubling); *capacity is in elements. Old contents are kept. */
qr_status qr_grow(void **array, size_t *capacity, size_t needed, size_t size, const char *what);

#endif
