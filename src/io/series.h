/* series.h5: what was counted at each recorded step. */
#ifndef QR_IO_SERIES_H
#define QR_IO_SERIES_H

#include "io/io.h"

typedef struct qr_series qr_series;

/* Makes the file, visible at once, with the rows that stay of earlier attempts (config->attempt above 0), otherwise
 * without any. Until then an old file stays. The configuration is not kept. */
qr_status qr_series_create(const qr_io_config *config, qr_series **out);

/* Takes the rows of a QR_JOB_SERIES, behind the ones before. */
qr_status qr_series_append(qr_series *series, const qr_job *job, const void *payload);

/* Rows taken so far become visible and durable. */
qr_status qr_series_flush(qr_series *series);

/* Flushes, closes and frees. *bytes (may be NULL): size of the file. NULL is allowed. */
qr_status qr_series_close(qr_series *series, int64_t *bytes);

#endif
