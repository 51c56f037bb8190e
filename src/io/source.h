/* Input files: opened and read by I/O ranks alone. */
#ifndef QR_IO_SOURCE_H
#define QR_IO_SOURCE_H

#include "base/status.h"

#include <stddef.h>

typedef struct qr_io_source qr_io_source;

/* Opens a regular file; QR_USAGE "path: cannot be read: ..." for a missing one, a directory, or no right to read it. */
qr_status qr_io_source_open(const char *path, qr_io_source **out);

/* Up to n bytes; *got = 0 at the end. `source` is a qr_io_source, untyped so that readers can take it as a callback. */
qr_status qr_io_source_read(void *source, void *buffer, size_t n, size_t *got);

void qr_io_source_close(qr_io_source *source);

/* A whole file of at most max_bytes, with a terminating 0 that is not counted; it may hold any bytes. malloc'd. */
qr_status qr_io_read_text(const char *path, size_t max_bytes, char **text, size_t *n);

#endif
