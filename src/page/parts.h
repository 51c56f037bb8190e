/* What one pager holds; private to src/page.
 *
 * Two shapes. On a device, pages are computed in frames of the tier gpu; the tier cpu is memory of the pager's own, cut
 * into berths, and some berths more than it may hold pages serve those under way. Copies of a frame are carried out in
 * the order in which they were asked for, so the host runs ahead; a berth that is read from is free again when the copy
 * is done, one that is written to may be read when that is. On host memory the frames are the tier cpu.
 *
 * From the server a page comes into a slot, and stays with the server until it is put into a frame; only then that
 * version is dropped. So whatever stands in a slot may be let go at any time, and the server needs no more room than
 * its pages do: what has to leave goes there after what came in its place has left. */
#ifndef QR_PAGE_PARTS_H
#define QR_PAGE_PARTS_H

#include "page/links.h"
#include "page/pager.h"
#include "page/policy.h"
#include "page/prefetch.h"
#include "page/table.h"

enum { QR_PAGE_MOST_BATCH = 256 };

/* A slot of the queue that the pager uses. */
typedef struct qr_page_job {
    int64_t page;
    double started;
    qr_job_kind kind;
    bool asked;       /* not answered yet; otherwise a page stands in the slot */
    uint8_t from, to; /* tiers, as was meant */
} qr_page_job;

/* A copy between a frame and host memory that is under way. */
typedef struct qr_page_copy {
    int64_t ticket;
    int64_t berth; /* that is read from; -1: none */
    int32_t slot;  /* the same; QR_NO_SLOT */
    uint8_t from;  /* tier */
    int64_t page;
    double started;
} qr_page_copy;

/* First in, first out, as tickets are. */
typedef struct qr_page_copies {
    qr_page_copy *ring;
    int64_t capacity, first, count;
} qr_page_copies;

struct qr_pager {
    qr_pager_config config;
    const qr_frame_ops *frames;
    bool on_device;
    int top; /* tier of the frames */
    int64_t page_bytes;
    qr_page_table table;
    qr_prefetch prefetch; /* of sweeps */
    qr_prefetch reading;  /* of reads */
    qr_sweep sweep;
    qr_link links[QR_N_MEMORY_TIERS][QR_N_MEMORY_TIERS]; /* from, to */
    int64_t touched, passed, hits, misses, wasted, late;
    double waited_s;
    bool pressed[QR_N_MEMORY_TIERS]; /* together with those above, it does not hold all pages */
    bool sinking[QR_N_MEMORY_TIERS]; /* above a watermark, until it is at the other */
    bool stuck[QR_N_MEMORY_TIERS];   /* the server found no room below it, in this step */

    int64_t *free_frames, n_free_frames;

    /* Device only. */
    unsigned char *berths;
    int64_t n_berths;
    int64_t *free_berths, n_free_berths;
    int64_t *berth_ticket;           /* of the eviction that writes to it */
    qr_page_copies fills, evictions; /* handed over */
    qr_frame_copy *to_fill, *to_evict;
    qr_page_copy *to_fill_notes, *to_evict_notes;
    int64_t n_to_fill, n_to_evict; /* not handed over yet */
    int32_t n_filling;             /* slots that fills read from */

    /* The server's. */
    qr_page_job *jobs;   /* [n_slots] */
    int32_t *busy_slots; /* of jobs, oldest first */
    int32_t n_busy, n_asked, n_sinks;
    int32_t own_slot; /* kept for when others hold all the rest; QR_NO_SLOT: in use, or there are too few */
    bool keeps_slot;

    /* The step under way. */
    double swept_s[2]; /* when this sweep began, and the one before */
    bool *active;      /* [n_pages] some agent of the page moves */
    int64_t *order;    /* pages that will be updated */
    int64_t n_order, cursor;
    int64_t front; /* all before it are in frames, as far as nothing drove them out */
    int64_t batch;
    int64_t n_pinned;
    int64_t *batch_pages, *batch_frames;
};

/* --- jobs.c: pages and the server --- */

int64_t qr_pager_agents_of(const qr_pager *pager, int64_t page);
int64_t qr_pager_bytes_of(const qr_pager *pager, int64_t page);

/* A slot, if one can be had without waiting: *slot, or QR_NO_SLOT. demand: pages that stand in slots and are not `page`
 * are let go for it; and if none of the slots is the pager's, it waits for others'. */
qr_status qr_pager_take_slot(qr_pager *pager, int64_t page, bool demand, int32_t *slot);
void qr_pager_give_slot(qr_pager *pager, int32_t slot);

/* Asks for a page into a slot; hands over the page in a slot, for the fastest tier that has room; both keep the slot
 * until they are done. */
qr_status qr_pager_get(qr_pager *pager, int64_t page, int32_t slot);
qr_status qr_pager_put(qr_pager *pager, int64_t page, int32_t slot);
qr_status qr_pager_sink(qr_pager *pager, int64_t page, int below, int32_t slot);

/* The page has left the slot for a frame: the server forgets it. The slot stays the caller's. */
qr_status qr_pager_take_over(qr_pager *pager, int64_t page);

/* Lets a page go that stands in a slot. */
void qr_pager_let_go(qr_pager *pager, int64_t page);

/* Takes in what the server answered; waits for one answer. */
qr_status qr_pager_poll_jobs(qr_pager *pager);
qr_status qr_pager_wait_job(qr_pager *pager, int32_t slot);

/* Pages of disk tiers that are above a watermark or aged begin to sink, as far as slots are free. */
qr_status qr_pager_sink_some(qr_pager *pager, double now_s);

/* --- frames in host memory: host.c --- */

/* Brings a page that arrived into a frame. *moved stays as it is where there is none for it. */
qr_status qr_pager_place_host(qr_pager *pager, int64_t page, bool demand, bool *moved);

/* A free frame for a page that comes from nowhere, or -1; what was in it goes to the server. */
qr_status qr_pager_frame_host(qr_pager *pager, bool demand, int64_t *frame);

/* --- frames on a device: device.c --- */

qr_status qr_pager_place_device(qr_pager *pager, int64_t page, bool demand, bool *moved);
qr_status qr_pager_frame_device(qr_pager *pager, bool demand, int64_t *frame);

/* Hands over the copies collected so far. */
qr_status qr_pager_flush(qr_pager *pager);

/* Takes in copies that are done. */
void qr_pager_poll_copies(qr_pager *pager);

/* Waits for the oldest copy under way; *any: there was one. */
qr_status qr_pager_wait_copy(qr_pager *pager, bool *any);

void *qr_pager_berth(const qr_pager *pager, int64_t berth);

/* A berth, waiting where demanded; -1. */
qr_status qr_pager_take_berth(qr_pager *pager, bool demand, int64_t *berth);

/* Waits until the page in a berth may be read. */
qr_status qr_pager_settle_berth(qr_pager *pager, int64_t berth);

/* Collects a copy from a berth into a frame; the berth is free when it is done. */
qr_status qr_pager_fill_from_berth(qr_pager *pager, int64_t page, int64_t berth, int64_t frame);

/* Pages in berths that are more than the tier may hold, or aged, go to the server, as far as slots are free. */
qr_status qr_pager_relieve_berths(qr_pager *pager, double now_s);

/* --- move.c --- */

/* Takes in all that is done, and gives the server what has to leave. */
qr_status qr_pager_poll(qr_pager *pager);

/* Does the next thing that brings a page to a frame, without waiting; *moved: there was something to do. demand: other
 * pages that are yet to be asked for may have to leave. */
qr_status qr_pager_bring(qr_pager *pager, int64_t page, bool demand, bool *moved);

/* Waits for something to happen, rather to this page; then polls. */
qr_status qr_pager_wait(qr_pager *pager, int64_t page);

/* Leaves at least half of the slots to others. */
qr_status qr_pager_leave_slots(qr_pager *pager);

/* A page is asked for: whatever can be done for it at once is done. */
qr_status qr_pager_demand(qr_pager *pager, int64_t page);

/* The same, until it is in a frame. */
qr_status qr_pager_must_have(qr_pager *pager, int64_t page);

/* A free frame for a page that holds nothing yet. */
qr_status qr_pager_new_frame(qr_pager *pager, int64_t *frame);

#endif
