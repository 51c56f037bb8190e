/* What all compute ranks' pagers, and all servers' page files, have done so far. */
#include "run/paging.h"

#include <string.h>

enum { N_COUNTS = QR_N_MEMORY_TIERS + 9, DISK_SUMS = 13 };

/* Those that are added up. */
static void list_counts(qr_pager_counters *c, int64_t *list[N_COUNTS])
{
    int64_t *const single[] = {&c->n_pages, &c->touched, &c->passed, &c->hits,   &c->misses,
                               &c->wasted,  &c->late,    &c->coming, &c->leaving};
    memcpy(list, single, sizeof single);
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        list[N_COUNTS - QR_N_MEMORY_TIERS + m] = &c->pages_in[m];
    }
}

/* The quantiles of all ranks' pages together, where any rank has moved some; of times the longest. */
static void add_up_link(const qr_simulation *simulation, int from, int to, qr_link_counters *whole)
{
    enum { LONGEST = 2 };
    MPI_Comm compute = simulation->comm->compute;
    qr_link sum = *qr_pager_link(simulation->paging.pager, from, to);
    qr_link_counters own = qr_link_read(&sum, qr_now_s());
    int64_t totals[2] = {sum.pages, sum.bytes};
    double longest[LONGEST] = {own.busy_s, own.max_us};
    MPI_Allreduce(MPI_IN_PLACE, totals, 2, MPI_INT64_T, MPI_SUM, compute);
    MPI_Allreduce(MPI_IN_PLACE, sum.histogram, QR_LINK_BUCKETS, MPI_INT64_T, MPI_SUM, compute);
    MPI_Allreduce(MPI_IN_PLACE, longest, LONGEST, MPI_DOUBLE, MPI_MAX, compute);
    sum.pages = totals[0];
    sum.bytes = totals[1];
    sum.max_us = longest[1];
    *whole = qr_link_read(&sum, 0.0);
    whole->busy_s = longest[0];
}

static void add_up_links(qr_simulation *simulation)
{
    qr_pager_counters *whole = &simulation->paging.whole;
    int64_t any[QR_N_MEMORY_TIERS][QR_N_MEMORY_TIERS];
    for (int from = 0; from < QR_N_MEMORY_TIERS; from++) {
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            any[from][to] = whole->links[from][to].pages;
        }
    }
    MPI_Allreduce(MPI_IN_PLACE, any, QR_N_MEMORY_TIERS * QR_N_MEMORY_TIERS, MPI_INT64_T, MPI_SUM,
                  simulation->comm->compute);
    for (int from = 0; from < QR_N_MEMORY_TIERS; from++) {
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            whole->links[from][to] = (qr_link_counters){0};
            if (any[from][to] > 0) {
                add_up_link(simulation, from, to, &whole->links[from][to]);
            }
        }
    }
}

/* One compute rank asks for all that its server serves. */
static bool speaks_for_server(const qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    for (int part = 0; part < comm->me.part; part++) {
        if (comm->all[comm->world_of_part[part]].server == comm->me.server) {
            return false;
        }
    }
    return true;
}

/* Of the own server; what was known before stays where it has no time for an answer. */
static void ask_disks(qr_simulation *simulation)
{
    qr_queue *queue = &simulation->results.queue;
    qr_page_tier_totals *own = simulation->paging.own_disks;
    if (simulation->paging.store != NULL) {
        qr_page_store_totals(simulation->paging.store, own);
        return;
    }
    int32_t slot = queue->lost ? QR_NO_SLOT : qr_queue_try_slot(queue);
    qr_job job = {.kind = QR_JOB_PAGE_TOTALS, .slot = slot};
    double timeout_s = simulation->results.timeout_s;
    qr_status said = QR_INTERNAL;
    int64_t value = 0;
    if (slot == QR_NO_SLOT || qr_queue_ask(queue, &job, timeout_s) != QR_OK ||
        qr_queue_wait_answer(queue, slot, timeout_s, &said, &value) != QR_OK) {
        return; /* a server that is lost is found to be so by whoever needs more of it */
    }
    if (said == QR_OK) {
        memcpy(own, qr_queue_slot(queue, slot), QR_N_TIERS * sizeof *own);
    }
    qr_queue_return_slot(queue, slot);
}

static void add_up_disks(qr_simulation *simulation)
{
    qr_paging *paging = &simulation->paging;
    double sums[QR_N_TIERS][DISK_SUMS] = {{0}};
    if (speaks_for_server(simulation)) {
        ask_disks(simulation);
    }
    for (int t = 0; t < QR_N_TIERS; t++) {
        const qr_page_tier_totals *of = &paging->own_disks[t];
        const double values[DISK_SUMS] = {
            (double)of->put,     (double)of->got,        (double)of->sunk, (double)of->raw_in, (double)of->stored_in,
            (double)of->raw_out, (double)of->stored_out, of->write_s,      of->read_s,         of->pack_s,
            of->unpack_s,        (double)of->retries,    (double)of->spilt};
        memcpy(sums[t], values, sizeof values);
    }
    MPI_Allreduce(MPI_IN_PLACE, sums, QR_N_TIERS * DISK_SUMS, MPI_DOUBLE, MPI_SUM, simulation->comm->compute);
    for (int t = 0; t < QR_N_TIERS; t++) {
        const double *of = sums[t];
        paging->disks[t] = (qr_page_tier_totals){.put = (int64_t)of[0],
                                                 .got = (int64_t)of[1],
                                                 .sunk = (int64_t)of[2],
                                                 .raw_in = (int64_t)of[3],
                                                 .stored_in = (int64_t)of[4],
                                                 .raw_out = (int64_t)of[5],
                                                 .stored_out = (int64_t)of[6],
                                                 .write_s = of[7],
                                                 .read_s = of[8],
                                                 .pack_s = of[9],
                                                 .unpack_s = of[10],
                                                 .retries = (int64_t)of[11],
                                                 .spilt = (int64_t)of[12]};
    }
}

void qr_paging_add_up(qr_simulation *simulation)
{
    qr_paging *paging = &simulation->paging;
    qr_pager_counters *whole = &paging->whole;
    int64_t *counts[N_COUNTS];
    int64_t sums[N_COUNTS];
    double links[2] = {paging->link_in, paging->link_out};
    if (paging->pager == NULL) {
        return;
    }
    qr_pager_counters_read(paging->pager, whole);
    list_counts(whole, counts);
    for (int i = 0; i < N_COUNTS; i++) {
        sums[i] = *counts[i];
    }
    MPI_Allreduce(MPI_IN_PLACE, sums, N_COUNTS, MPI_INT64_T, MPI_SUM, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, &whole->waited_s, 1, MPI_DOUBLE, MPI_MAX, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, links, 2, MPI_DOUBLE, MPI_SUM, simulation->comm->compute);
    for (int i = 0; i < N_COUNTS; i++) {
        *counts[i] = sums[i];
    }
    paging->whole_in = links[0];
    paging->whole_out = links[1];
    add_up_links(simulation);
    if (paging->on_disk) {
        add_up_disks(simulation);
    }
}
