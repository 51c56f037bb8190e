/* What earlier attempts of this run left in the results directory, for an attempt that goes on from a checkpoint.
 *
 * Series and metrics are written anew, with what stays of the old ones in front, and replace them in one rename. The
 * votes of snapshots are not copied: the files of each attempt stay, and a new joining file shows them all. Until a
 * new file is durable under its name, the old one stays, so that a kill at any moment costs nothing and the next
 * attempt finds its way: all that it goes by stands in the files.
 *
 * Root attributes of series.h5 and of each file of snapshots: run_id (the same for all attempts), attempt,
 * begins_after: the step after which the attempt's rows begin (-1 for the first one), and every: the steps from one row
 * to the next (0: not known). The last row of an attempt may be one that is not due, as a run that ends or is stopped
 * shows what it came to; it does not stay where the run goes on. */
#ifndef QR_IO_ATTEMPTS_H
#define QR_IO_ATTEMPTS_H

#include "io/io.h"
#include "io/results.h"

/* Rows of earlier snapshots that come from one file. */
typedef struct qr_attempts_piece {
    char name[QR_PART_NAME_BYTES];
    int64_t first, count; /* agents */
    int64_t source_row, target_row, rows;
} qr_attempts_piece;

typedef struct qr_attempts {
    qr_attempts_piece *pieces;
    size_t n_pieces, pieces_capacity;
    int64_t *steps; /* of the rows that stay */
    size_t n_steps, steps_capacity;
    char (*stale)[QR_PART_NAME_BYTES]; /* files that nothing is taken from any more */
    size_t n_stale, stale_capacity;
    size_t n_lost;               /* attempts of which files are damaged or missing */
    char lost[QR_MESSAGE_BYTES]; /* why, for the first of them */
} qr_attempts;

/* Looks through the directory for snapshots that stay: those up to config->keep_snapshots_to. Damage is told of in
 * `lost`, not by the status. A snapshots.h5 that holds votes itself gets a part's name in addition. */
qr_status qr_attempts_find(const qr_io_config *config, qr_attempts *out);
void qr_attempts_clear(qr_attempts *earlier);

/* Once the new joining file is durable: removes the stale files. */
qr_status qr_attempts_remove_stale(const qr_io_config *config, const qr_attempts *earlier);

/* snapshots.h5 over parts: /votes and /step as virtual datasets, by relative names. First what stays of earlier
 * attempts (NULL: nothing), then the parts of this attempt, which may grow. */
qr_status qr_join_parts(const qr_io_config *config, const qr_attempts *earlier);

#endif
