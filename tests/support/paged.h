/* The agents of a crowd a second time, in pages: a CPU backend with frames (or a device that plays one), a pager and a
 * server of pages. Steps keep to the crowd's, and the results are compared. */
#ifndef TEST_SUPPORT_PAGED_H
#define TEST_SUPPORT_PAGED_H

#include "crowd.h"
#include "late_device.h"
#include "page/pager.h"
#include "page_server.h"

typedef struct paged_setup {
    bool on_device;
    int64_t page_agents;
    int64_t room[QR_N_MEMORY_TIERS];        /* pages; 0: tier not used */
    int64_t server_room[PAGE_SERVER_TIERS]; /* 0: as above */
    double age_s, high, low;                /* high 0: 1 and 1 */
    bool sequential, correlated, plain_lru;
    int64_t ahead;
    int32_t n_slots; /* 0: 4 */
    int threads; /* of backend and pager; 0: one */
    double timeout_s; /* 0: 60 */
    uint64_t seed;
    qr_queue *queue; /* to another server; NULL: one that keeps pages in memory */
} paged_setup;

typedef struct paged {
    const crowd *c; /* borrowed; one part */
    paged_setup setup;
    qr_backend_setup with;
    qr_backend *backend;
    late_device *device;
    page_server server;
    bool served;
    qr_pager_config config;
    qr_pager *pager;
    int64_t n_pages, agent_bytes;
} paged;

/* To the pager, which holds nothing yet. */
qr_status paged_open(const crowd *c, const paged_setup *setup, paged *out);
void paged_close(paged *p);

/* A step from `before`, the tally of the crowd. */
qr_status paged_step(paged *p, int64_t step, const qr_tally *before, qr_tally *out);

/* Votes and states are those of the crowd; fails the test with `what`. */
void paged_equals(paged *p, const char *what);

/* n pages with so many in each tier, for messages. */
const char *paged_describe(const paged *p);

#endif
