/* Plain files: the few calls that more than one part of io needs. Messages name the path and the system's cause. */
#ifndef QR_IO_FILE_H
#define QR_IO_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* directory/name; malloc'd. */
qr_status qr_path_join(const char *directory, const char *name, char **out);

/* Message and status of a failed call, from errno: no space or too large is QR_RESOURCE, a missing right or a missing
 * directory QR_ENVIRONMENT, all else QR_DATA. `action` is "written", "made", ... */
qr_status qr_file_error(const char *path, const char *action, int error);

/* All of it or an error; errno is set. */
bool qr_file_write(int file, const void *data, size_t bytes);
bool qr_file_write_at(int file, const void *data, size_t bytes, uint64_t offset);

/* QR_DATA "path: ..." when it cannot be read, or ends before. */
qr_status qr_file_read_at(int file, const char *path, void *out, size_t bytes, uint64_t offset);

/* Makes a directory and its parents; one that is there is no error. QR_ENVIRONMENT "path: the `what` directory cannot
 * be made: ...". */
qr_status qr_directories_make(const char *directory, const char *what);

/* fsync of a directory, so that renames in it last. Some file systems cannot; that is no error. */
qr_status qr_directory_sync(const char *directory);

/* Replaces directory/name by this text: temporary name, fsync if it shall be durable, rename. The rename itself lasts
 * from the next qr_directory_sync on. */
qr_status qr_file_replace(const char *directory, const char *name, const char *text, size_t bytes, bool durable);

/* Opens a regular file to read; QR_USAGE "path: cannot be read: ..." for anything else, QR_RESOURCE when too many files
 * are open. */
qr_status qr_file_open(const char *path, int *file, int64_t *bytes);

#endif
