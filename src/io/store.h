/* A file that is readable at every moment, also when its writer is killed.
 *
 * HDF5 writes metadata whenever it likes and in any order, so a file whose writer is killed between two such writes may
 * not open. Here the library writes into a store instead. Data go to the file at once, as they are never referred to by
 * anything that stands in the file. Metadata are kept in memory until a commit, which writes them in an order in which
 * each single write leaves a file that opens:
 *
 *   1. blocks that are new since the last commit, to which nothing in the file points yet; then the device is waited
 * for
 *   2. the superblock, whose end of file now covers them
 *   3. nodes of chunk indexes, from the root downwards: a node that has yet to be replaced by its first half still
 * holds all its old entries, and an index may hold more chunks than the dataset's extent needs
 *   4. the remaining blocks, above all object headers, which hold the extents; one write for each page of 4096 bytes
 *
 * A block never crosses a page, so that the kernel copies it in one piece. Object headers lie together, so that the
 * datasets of a file grow in one write. This needs files in which no chunk is written twice with another size (then the
 * old one would be freed and its place used again) and none is written twice with other contents at an old place: the
 * server's files keep to it (a partly filled chunk is unfiltered and only gains rows).
 *
 * After a failed write a store drops what it is given and reports success, so that the library, which crashes in its
 * clean-up when a write fails, never learns of it. The file stays as it was committed last.
 *
 * The layout of superblock and nodes: HDF5 File Format Specification 3.0, II.A and III.A.1. */
#ifndef QR_IO_STORE_H
#define QR_IO_STORE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qr_store qr_store;

typedef enum qr_store_class { QR_STORE_SUPERBLOCK, QR_STORE_INDEX, QR_STORE_HEADER, QR_STORE_OTHER } qr_store_class;

/* A new file directory/name, under a temporary name up to the first commit, which replaces what bore the name before.
 */
qr_status qr_store_create(const char *directory, const char *name, qr_store **out);

/* An existing file, to read. QR_USAGE when it is missing, a directory, or not readable. */
qr_status qr_store_open(const char *path, qr_store **out);

/* Closes the file; what was not committed is lost, a file never committed is removed. NULL is allowed. */
void qr_store_close(qr_store *store);

/* Space for a block; metadata unless data. */
uint64_t qr_store_allocate(qr_store *store, bool data, qr_store_class kind, uint64_t bytes);

/* End of the space given out, in bytes from the start of the file. */
uint64_t qr_store_end(const qr_store *store);
void qr_store_set_end(qr_store *store, uint64_t end);

/* Bytes the file has on disk. */
uint64_t qr_store_size(const qr_store *store);

/* False: the file could not be read. Bytes past its end read as zeros. */
bool qr_store_read(qr_store *store, uint64_t address, size_t bytes, void *out);

/* Failures are kept for qr_store_check. */
void qr_store_write_data(qr_store *store, uint64_t address, size_t bytes, const void *data);
void qr_store_write_metadata(qr_store *store, qr_store_class kind, uint64_t address, size_t bytes, const void *data);

/* For large data that shall not be written while others wait for HDF5: the next write of exactly this memory as data is
 * only noted, and done by qr_store_write_expected, which gives its address. QR_INTERNAL when no such write came. */
void qr_store_expect(qr_store *store, const void *data, size_t bytes);
qr_status qr_store_write_expected(qr_store *store, uint64_t *address);

/* The first failure of a write, again on each call; QR_OK when there was none. */
qr_status qr_store_check(const qr_store *store);

/* Makes all that was written visible and durable. That a new file bears its name lasts from the next qr_directory_sync
 * on. */
qr_status qr_store_commit(qr_store *store);

/* Its two halves: makes all durable, under the temporary name if it still has that; gives it its name. */
qr_status qr_store_sync(qr_store *store);
qr_status qr_store_publish(qr_store *store);

/* Identity of the file on this machine. */
void qr_store_identity(const qr_store *store, uint64_t *device, uint64_t *inode);

#endif
