/* What GPUs did, for reports; private to src/run. Nothing where there are no GPUs. */
#ifndef QR_RUN_COUNTERS_H
#define QR_RUN_COUNTERS_H

#include "run/simulation.h"

#include <jansson.h>

/* Of this rank, into an object; NULL is allowed. */
void qr_counters_to_json(const qr_simulation *simulation, json_t *object);

/* Lines of the table at the end. Collective over compute. */
void qr_counters_print(const qr_simulation *simulation);

#endif
