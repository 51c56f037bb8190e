/* What a person sees of states that are paged, and the same as JSON. */
#ifndef QR_RUN_REPORT_PAGING_H
#define QR_RUN_REPORT_PAGING_H

#include "run/paging.h"

#include <jansson.h>

/* What will lie where, a line each. */
void qr_paging_print_plan(const qr_simulation *simulation, const qr_paging *paging);

/* Appends ", pages: gpu 12, cpu 30, nvme 4, 2 coming, 3 leaving"; nothing when states are not paged. own: of this rank
 * alone. Otherwise, as all that follows, of all compute ranks, as qr_paging_add_up found them. */
void qr_paging_describe_now(const qr_simulation *simulation, bool own, char *out, size_t n);

/* Adds the object "paging". */
void qr_paging_to_json(const qr_simulation *simulation, json_t *object);

/* Lines of the table at the end. Part 0. */
void qr_paging_print(const qr_simulation *simulation);

#endif
