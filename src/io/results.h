/* What the files of a results directory have in common: names, root attributes, the joining file, the XDMF file. */
#ifndef QR_IO_RESULTS_H
#define QR_IO_RESULTS_H

#include "io/h5.h"
#include "io/io.h"

#define QR_SERIES_FILE    "series.h5"
#define QR_SNAPSHOTS_FILE "snapshots.h5"
#define QR_XDMF_FILE      "snapshots.xdmf"

enum { QR_PART_NAME_BYTES = 32 };

/* snapshots.part<NNN>.h5 */
void qr_part_name(int server, char out[QR_PART_NAME_BYTES]);

/* title, deck, version, n_agents, n_options. */
bool qr_describe_run(hid_t file, const qr_io_config *config);

/* snapshots.h5 of several servers: /votes and /step as virtual datasets over the parts, by relative names. */
qr_status qr_join_parts(const qr_io_config *config);

/* snapshots.xdmf for the first n snapshots (XDMF 3: temporal collection of co-rectilinear meshes). */
qr_status qr_write_xdmf(const qr_io_config *config, const int64_t *steps, int64_t n, bool durable);

/* Removes what an earlier run left under the names that this one uses; parts only from index n_servers on, as the other
 * servers replace theirs themselves. */
qr_status qr_clear_results(const char *directory, int n_servers);

/* Text files of the results directory. */
typedef struct qr_texts qr_texts;
qr_status qr_texts_create(const char *directory, qr_texts **out);
qr_status qr_texts_write(qr_texts *texts, const qr_job *job, const void *payload);
qr_status qr_texts_flush(qr_texts *texts);
int64_t qr_texts_bytes(const qr_texts *texts);
void qr_texts_destroy(qr_texts *texts);

#endif
