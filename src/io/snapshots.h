/* snapshots.h5, or this server's part of it: all votes at some steps, a row each. */
#ifndef QR_IO_SNAPSHOTS_H
#define QR_IO_SNAPSHOTS_H

#include "io/io.h"

typedef struct qr_snapshots qr_snapshots;

/* Makes the file, without rows, visible at once. Server 0 makes the joining file too, where there are several servers
 * or earlier attempts, whose snapshots come first. */
qr_status qr_snapshots_create(const qr_io_config *config, qr_snapshots **out);

/* Takes the votes of a QR_JOB_SNAPSHOT. A snapshot becomes a row when all of its votes and all earlier ones are there.
 */
qr_status qr_snapshots_add(qr_snapshots *snapshots, const qr_job *job, const void *payload);

/* Complete snapshots become visible and durable. */
qr_status qr_snapshots_flush(qr_snapshots *snapshots);

/* How many are complete, those of earlier attempts among them on server 0, and their steps; the array is the
 * snapshots'. */
int64_t qr_snapshots_steps(const qr_snapshots *snapshots, const int64_t **steps);

/* Drops an incomplete last snapshot, flushes, closes and frees. *bytes (may be NULL): size of the file. NULL is
 * allowed. */
qr_status qr_snapshots_close(qr_snapshots *snapshots, int64_t *bytes);

#endif
