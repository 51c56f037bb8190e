/* What the files of a results directory have in common: names, root attributes, the XDMF file. */
#ifndef QR_IO_RESULTS_H
#define QR_IO_RESULTS_H

#include "io/h5.h"
#include "io/io.h"

#define QR_SERIES_FILE    "series.h5"
#define QR_SNAPSHOTS_FILE "snapshots.h5"
#define QR_XDMF_FILE      "snapshots.xdmf"
#define QR_SUMMARY_FILE   "summary.json"
#define QR_METRICS_FILE   "metrics.jsonl"

enum { QR_PART_NAME_BYTES = 48 };

/* snapshots.part<NNN>.h5; for attempts from 1 on snapshots.a<A>.part<NNN>.h5. */
void qr_part_name(int attempt, int server, char out[QR_PART_NAME_BYTES]);

/* False for any other name. */
bool qr_part_parse(const char *name, int *attempt, int *server);

/* title, deck, version, n_agents, n_options, and what io/attempts.h names. begins_after: for attempts from 1 on. */
bool qr_describe_run(hid_t file, const qr_io_config *config, int64_t begins_after, int64_t every);

/* snapshots.xdmf for the first n snapshots (XDMF 3: temporal collection of co-rectilinear meshes). */
qr_status qr_write_xdmf(const qr_io_config *config, const int64_t *steps, int64_t n, bool durable);

/* Removes what an earlier run left under the names that this one uses, but for the parts that other servers of this one
 * replace themselves, perhaps before this. */
qr_status qr_clear_results(const qr_io_config *config);

/* Renames a damaged file to <name>.damaged: somebody may want to rescue what is in it. */
qr_status qr_set_aside(const char *directory, const char *name);

/* Text files of the results directory. */
typedef struct qr_texts qr_texts;
qr_status qr_texts_create(const char *directory, qr_texts **out);
/* Before anything is appended to a file of JSON lines: keeps the lines whose "step" is at most this, and drops what
 * comes after. A missing file is no error. */
qr_status qr_texts_keep(qr_texts *texts, const char *name, int64_t step);
qr_status qr_texts_write(qr_texts *texts, const qr_job *job, const void *payload);
qr_status qr_texts_flush(qr_texts *texts);
int64_t qr_texts_bytes(const qr_texts *texts);
void qr_texts_destroy(qr_texts *texts);

#endif
