#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

qr_status qr_allocate(size_t count, size_t size, const char *what, void **out)
{
    if (size != 0 && count > (SIZE_MAX - ALIGNMENT) / size) {
        return qr_error(QR_RESOURCE, "out of memory: %zu x %zu bytes for %s is more than can be addressed", count, size,
                        what);
    }
    size_t bytes = count * size;
    size_t padded = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, padded);
    if (memory == NULL) {
        return qr_error_memory(bytes, what);
    }
    memset(memory, 0, padded);
    *out = memory;
    return QR_OK;
}

qr_status qr_grow(void **array, size_t *capacity, size_t needed, size_t size, const char *what)
{
    if (needed <= *capacity) {
        return QR_OK;
    }
    size_t target = *capacity < 16 ? 16 : *capacity;
    while (target < needed) {
        if (target > SIZE_MAX / 2) {
            return qr_error_memory(SIZE_MAX, what);
        }
        target *= 2;
    }
    if (size != 0 && target > SIZE_MAX / size) {
        return qr_error_memory(SIZE_MAX, what);
    }
    void *grown = realloc(*array, target * size);
    if (grown == NULL) {
        return qr_error_memory(target * size, what);
    }
    *array = grown;
    *capacity = target;
    return QR_OK;
}
