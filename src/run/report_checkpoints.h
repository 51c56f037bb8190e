/* What a person sees of checkpoints, and the same as JSON. */
#ifndef QR_RUN_REPORT_CHECKPOINTS_H
#define QR_RUN_REPORT_CHECKPOINTS_H

#include "run/simulation.h"

#include <jansson.h>

/* Appends ", checkpoint 12: 45 of 130 pages to nvme" for each one in flight, of this rank's server. */
void qr_checkpoints_describe(const qr_simulation *simulation, char *out, size_t n);

/* Adds the object "checkpoints": over all servers, as qr_checkpoints_add_up found it. */
void qr_checkpoints_to_json(const qr_simulation *simulation, json_t *object);

/* Lines of the table at the end. */
void qr_checkpoints_print(const qr_simulation *simulation);

/* The newest checkpoint of the step that the run ended with; 0 when there is none. */
int64_t qr_checkpoints_last(const qr_simulation *simulation);

#endif
