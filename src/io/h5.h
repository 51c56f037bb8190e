/* What every HDF5 user in io shares: files that stay readable (io/store.h), attributes, quiet errors. One thread at a
 * time may be in here: where several could be, each takes the lock. */
#ifndef QR_IO_H5_H
#define QR_IO_H5_H

#include "base/status.h"
#include "io/store.h"

#include <hdf5.h>
#include <stdbool.h>

/* For all of HDF5 in this process. To be held around calls of the library and of this header, and what they leave
 * behind (qr_h5_cause), but not while a device is waited for. */
void qr_h5_lock(void);
void qr_h5_unlock(void);

/* A new file whose bytes go to the store; the store stays the caller's and outlives the file. */
qr_status qr_h5_create(qr_store *store, const char *path, hid_t *file);

/* An existing file, to read, without a lock. QR_USAGE when it cannot be opened as a file, QR_DATA when it is no HDF5
 * file or a damaged one. */
qr_status qr_h5_open(const char *path, hid_t *file);

/* Everything written so far becomes visible and durable. Takes the lock, and does not hold it while the device works.
 */
qr_status qr_h5_commit(hid_t file, qr_store *store, const char *path);

/* Attributes as UTF-8 strings and as int64. */
bool qr_h5_set_text(hid_t object, const char *name, const char *text);
bool qr_h5_set_int(hid_t object, const char *name, int64_t value);

/* False: absent, or of another type. The text is malloc'd. */
bool qr_h5_get_text(hid_t object, const char *name, char **text);
bool qr_h5_get_int(hid_t object, const char *name, int64_t *value);

/* An empty dataset that grows along its first dimension, with its attributes `unit` and `meaning`. columns 0: one
 * dimension. deflate 0: no filter. */
typedef struct qr_h5_column {
    const char *name, *unit, *meaning;
    hid_t stored_type;
    hsize_t columns;
    hsize_t chunk_rows, chunk_columns;
    unsigned deflate;
} qr_h5_column;
hid_t qr_h5_make_column(hid_t group, const qr_h5_column *column);
bool qr_h5_describe(hid_t dataset, const char *unit, const char *meaning);

/* Sets the number of rows of a dataset of one or two dimensions. */
bool qr_h5_set_rows(hid_t dataset, hsize_t columns, hsize_t rows);

/* Appends rows [first, first + rows) of the memory type. */
bool qr_h5_append(hid_t dataset, hid_t type, hsize_t columns, hsize_t first, hsize_t rows, const void *data);

/* The innermost cause of the last failed call; "" when there is none. Valid until the next call. */
const char *qr_h5_cause(void);

/* Error "path: cannot be written: cause" of a failed call that writes; see qr_io_must_exit_fast. */
qr_status qr_h5_write_error(const char *path);

/* Error "path: what: cause". */
qr_status qr_h5_error(qr_status status, const char *path, const char *what);

#endif
