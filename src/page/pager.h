/* More agents than the fastest memory holds: the states of a part lie in pages, and pages move over five tiers by
 * themselves while steps are taken.
 *
 * A page holds page_agents consecutive own agents (the last one fewer) and is in exactly one tier, or on its way
 * between two. The compute rank owns gpu and cpu: frames of the backend, and memory beside them. Below, nvme, ssd and
 * hdd are the I/O server's (io/page_store.h), reached by jobs through the slab. On the CPU backend the frames are the
 * tier cpu, and there is no gpu.
 *
 * Steps are full sweeps in alternating direction, so that what fits stays where it is: with room for c of n pages, n -
 * c pages go each way in a sweep. Nothing is allocated once the pager is made. Not thread-safe: one caller, the one
 * that drives backend and queue.
 *
 * Between two calls the pager keeps at most half of the queue's slots. */
#ifndef QR_PAGE_PAGER_H
#define QR_PAGE_PAGER_H

#include "backend/backend.h"
#include "page/links.h"
#include "queue/queue.h"

typedef enum qr_memory_tier {
    QR_MEMORY_GPU,
    QR_MEMORY_CPU,
    QR_MEMORY_NVME,
    QR_MEMORY_SSD,
    QR_MEMORY_HDD,
    QR_N_MEMORY_TIERS
} qr_memory_tier;

/* "gpu", "cpu", "nvme", "ssd", "hdd". */
const char *qr_memory_tier_name(qr_memory_tier tier);

typedef struct qr_memory_tier_config {
    bool used;
    int64_t pages; /* most that it may hold. Of the backend's first tier: its frames */
    double age_s;  /* a page that nobody asked for in so long, nor in the last two sweeps, may sink a tier when that is
                      above its low watermark, and tiers below are needed for all pages */
} qr_memory_tier_config;

typedef struct qr_pager_config {
    const qr_backend_ops *ops; /* with frames */
    qr_backend *backend;       /* made with page_agents and n_frames */
    qr_queue *queue;           /* to the I/O server; may be NULL when neither nvme, ssd nor hdd is used */
    double timeout_s;          /* longest wait for the server */
    int64_t n_agents;          /* own */
    int64_t page_agents;
    int64_t agent_bytes;
    qr_memory_tier_config tiers[QR_N_MEMORY_TIERS];
    double high, low; /* watermarks: shares of the pages of a tier. Above `high` pages sink until it is at `low`. Not of
                         the first tier, which is always full, and only where tiers below are needed for all pages */
    bool sequential;  /* prefetch of what follows in the sweep */
    bool correlated;  /* prefetch of what followed when a page was last asked for */
    int64_t ahead;    /* most pages that are under way at once before they are asked for; 0: none */
    int threads;      /* that copy host memory in copy_out, and ask which pages move; 0: one */
    bool plain_lru;   /* sweeps in one direction only, for comparison */
    /* Called now and then within a step, or while first states are made: so many pages of all are done. NULL: nobody.
     */
    void (*tell)(void *context, bool first, int64_t done, int64_t all);
    void *tell_context;
} qr_pager_config;

typedef struct qr_pager_counters {
    int64_t n_pages;
    int64_t pages_in[QR_N_MEMORY_TIERS]; /* now; without those that leave */
    int64_t leaving; /* on their way to the server, which may find another tier for them than meant */
    int64_t coming;  /* asked for; counted where they are until they are computed on */
    /* Since creation, from the first tier to the second, where pages truly went: down to any below, or up to where they
     * are computed. */
    qr_link_counters links[QR_N_MEMORY_TIERS][QR_N_MEMORY_TIERS];
    int64_t touched, passed;            /* pages that were updated; that no agent of moved */
    int64_t hits, misses, wasted, late; /* of prefetches: there in time; not asked for; never used; came too late */
    double waited_s;                    /* updates waited for pages */
} qr_pager_counters;

typedef struct qr_pager qr_pager;

/* Pages that are under way need memory too: on a device, so many pages beside those that the tier cpu may hold. */
int64_t qr_pager_spare_pages(const qr_pager_config *config);

/* Makes tables, lists and memory of the tier cpu below a gpu. No page holds anything yet: qr_pager_make_first, or
 * qr_pager_write of all agents, comes before the first step. QR_USAGE when all tiers together hold fewer pages than
 * there are; QR_RESOURCE names bytes. */
qr_status qr_pager_create(const qr_pager_config *config, qr_pager **out);
void qr_pager_destroy(qr_pager *pager); /* NULL is allowed; waits for copies under way */

/* First states of all agents. */
qr_status qr_pager_make_first(qr_pager *pager);

/* One step of all own agents; as qr_backend_ops.update. QR_DATA when a page cannot be read back: the message names page
 * and file. QR_RESOURCE when all tiers are full. */
qr_status qr_pager_step(qr_pager *pager, int64_t step, const qr_tally *before, qr_tally *out);

/* States of own agents first .. first + count - 1, from wherever they lie; no page moves because of it. */
qr_status qr_pager_read(qr_pager *pager, int64_t first, int64_t count, float *out);

/* Sets states, in pieces in any order; all of them before the first step. */
qr_status qr_pager_write(qr_pager *pager, int64_t first, int64_t count, const float *state);

/* Between two steps: brings one page to where it is computed, for which the one that nobody asked for longest leaves,
 * and waits until both are there. */
qr_status qr_pager_fetch(qr_pager *pager, int64_t page);

/* For a cut, between two steps: pieces of states as qr_backend_ops.copy_out, each within one page and that page not on
 * disk. */
qr_status qr_pager_copy_out(qr_pager *pager, const qr_piece *pieces, int64_t n);

/* Whether a page lies in the I/O server's store, on which tier (io/checkpoint.h numbers them), under which version: the
 * server can take it from there. */
bool qr_pager_on_disk(const qr_pager *pager, int64_t page, int *tier, int64_t *version);

/* Between two steps: waits until no page is on its way, and lets go of those fetched ahead. What cannot be moved fails
 * it as it would fail the next step. */
qr_status qr_pager_settle(qr_pager *pager);

/* Whether the next step begins with the first pages. */
bool qr_pager_next_is_up(const qr_pager *pager);

void qr_pager_counters_read(const qr_pager *pager, qr_pager_counters *out);

/* What counters.links[from][to] are read from, to be added up over ranks. */
const qr_link *qr_pager_link(const qr_pager *pager, int from, int to);

/* What will happen, worked out from the sizes alone (pure): how many pages stay in each tier, and how many cross each
 * link in one sweep, each way. */
typedef struct qr_page_plan {
    bool fits;
    int64_t n_pages;
    int64_t resident[QR_N_MEMORY_TIERS];
    int64_t crossing[QR_N_MEMORY_TIERS]; /* come up from this tier per sweep, and as many go down to stay in it */
} qr_page_plan;
qr_page_plan qr_page_plan_make(int64_t n_pages, const qr_memory_tier_config tiers[QR_N_MEMORY_TIERS], bool on_device);

#endif
