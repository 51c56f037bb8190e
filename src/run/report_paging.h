/* What a person sees of states that are paged, and the same as JSON. */
#ifndef QR_RUN_REPORT_PAGING_H
#define QR_RUN_REPORT_PAGING_H

#include "run/paging.h"

#include <jansson.h>

/* What will lie where, a line each. */
void qr_paging_print_plan(const qr_simulation *simulation, const qr_paging *paging);

/* ", pages: gpu 12, cpu 30, nvme 4" of this rank; "" when states are not paged. */
void qr_paging_describe_now(const qr_simulation *simulation, char *out, size_t n);

/* Adds the object "paging". whole: of all compute ranks, as qr_paging_add_up found it; otherwise of this one. */
void qr_paging_to_json(const qr_simulation *simulation, bool whole, json_t *object);

/* Lines of the table at the end. Collective over the world, after qr_paging_add_up. */
void qr_paging_print(const qr_simulation *simulation);

#endif
