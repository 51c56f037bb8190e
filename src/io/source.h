/* Files that are read as a stream of bytes: decks, edge lists. I/O alone opens files; parsers get a read function. */
#ifndef QR_IO_SOURCE_H
#define QR_IO_SOURCE_H

#include "base/status.h"

#include <stddef.h>

typedef struct qr_io_source qr_io_source;

/* QR_USAGE "path: cannot be read: ..." when it is missing, a directory or anything but a regular file. */
qr_status qr_io_source_open(const char *path, qr_io_source **out);

/* Up to n bytes into buffer, fewer only at the end; *got = 0 there. context is the source. QR_DATA when reading fails.
 */
qr_status qr_io_source_read(void *context, void *buffer, size_t n, size_t *got);

/* NULL is allowed. */
void qr_io_source_close(qr_io_source *source);

/* A whole file of any bytes, malloc'd, with a NUL behind them that *n does not count. QR_USAGE when it cannot be read
 * or has more than max_bytes. */
qr_status qr_io_read_text(const char *path, size_t max_bytes, char **text, size_t *n);

#endif
