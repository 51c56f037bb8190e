/* A cut: every page of this rank goes into a slot of its own, and the rank goes on. Where slots are short, it waits for
 * the server to compress what it has. */
#include "run/paging.h"

#include "base/memory.h"

#include <stdlib.h>

/* Pages that are copied out together. */
enum { MOST_AT_ONCE = 4096 };

typedef struct batch {
    qr_piece pieces[MOST_AT_ONCE];
    qr_job jobs[MOST_AT_ONCE];
    int32_t slots[MOST_AT_ONCE];
    int64_t n;
} batch;

/* The job of one page; its slot comes later. */
static void add_page(const qr_simulation *simulation, int64_t generation, int tier, qr_page_kind kind, int64_t number,
                     int64_t at, int64_t count, batch *b)
{
    int64_t bytes = kind == QR_PAGE_VOTES ? count : count * simulation->model->state_dim * (int64_t)sizeof(float);
    b->pieces[b->n] = (qr_piece){.first = at, .count = count, .states = kind == QR_PAGE_STATE};
    b->jobs[b->n] = (qr_job){.kind = QR_JOB_CUT_PAGE,
                             .step = simulation->step,
                             .first = simulation->network->own.first + at,
                             .count = count,
                             .bytes = bytes,
                             .slot = QR_NO_SLOT,
                             .flags = (int32_t)kind,
                             .arguments = {generation, tier, number}};
    b->n++;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Slots for pages first .. of the batch, as many as are free, one at least; in ascending order, so that neighbouring
 * pages may be copied as one. */
static qr_status take_slots(qr_simulation *simulation, batch *b, int64_t first, int64_t *taken)
{
    qr_results *results = &simulation->results;
    int32_t slot = QR_NO_SLOT;
    qr_status status = qr_queue_wait_slot(&results->queue, results->timeout_s, &slot, &results->waited_s);
    *taken = 0;
    while (status == QR_OK && slot != QR_NO_SLOT) {
        b->slots[(*taken)++] = slot;
        slot = first + *taken < b->n ? qr_queue_try_slot(&results->queue) : QR_NO_SLOT;
    }
    qsort(b->slots, (size_t)*taken, sizeof b->slots[0], ascending);
    for (int64_t i = 0; i < *taken; i++) {
        b->jobs[first + i].slot = b->slots[i];
        b->pieces[first + i].out = qr_queue_slot(&results->queue, b->slots[i]);
    }
    return status;
}

/* Neighbours one after another: states may have been collected from the last page on. */
static void turn_round(batch *b)
{
    int64_t first = 0;
    int64_t last = b->n - 1;
    while (first <= last && !b->pieces[first].states) {
        first++;
    }
    if (first >= last || b->pieces[first].first < b->pieces[last].first) {
        return;
    }
    for (; first < last; first++, last--) {
        qr_piece piece = b->pieces[first];
        qr_job job = b->jobs[first];
        b->pieces[first] = b->pieces[last];
        b->jobs[first] = b->jobs[last];
        b->pieces[last] = piece;
        b->jobs[last] = job;
    }
}

/* All that fit into free slots are copied before the first is handed over, so that the server's threads do not take the
 * memory's bandwidth from the copy. */
static qr_status send_batch(qr_simulation *simulation, batch *b)
{
    qr_results *results = &simulation->results;
    qr_status status = QR_OK;
    turn_round(b);
    for (int64_t sent = 0; sent < b->n && status == QR_OK;) {
        int64_t taken = 0;
        status = take_slots(simulation, b, sent, &taken);
        if (status == QR_OK) {
            status = qr_states_copy_out(simulation, b->pieces + sent, taken);
        }
        for (int64_t i = sent; i < sent + taken; i++) {
            if (status == QR_OK) {
                status = qr_queue_submit(&results->queue, &b->jobs[i], results->timeout_s);
                simulation->checkpoints.copied_bytes += b->jobs[i].bytes;
            }
            if (status != QR_OK) {
                qr_queue_return_slot(&results->queue, b->jobs[i].slot);
            }
        }
        sent += taken;
    }
    b->n = 0;
    return status;
}

/* A page that lies with the server already: it takes it from there, as it is now, whatever becomes of it afterwards. */
static qr_status send_stored(qr_simulation *simulation, int64_t generation, int tier, int64_t number, int64_t at,
                             int64_t count, bool *sent)
{
    int stored_tier = 0;
    int64_t version = 0;
    qr_pager *pager = simulation->paging.pager;
    *sent = pager != NULL && qr_pager_on_disk(pager, number, &stored_tier, &version);
    if (!*sent) {
        return QR_OK;
    }
    qr_job job = {.kind = QR_JOB_CUT_PAGE,
                  .step = simulation->step,
                  .first = simulation->network->own.first + at,
                  .count = count,
                  .slot = QR_NO_SLOT,
                  .flags = (int32_t)QR_PAGE_STATE | (stored_tier + 1) << QR_CUT_STORED_SHIFT,
                  .arguments = {generation, tier, number, version}};
    return qr_queue_submit(&simulation->results.queue, &job, simulation->results.timeout_s);
}

/* In the order in which the next step will ask for them: while the server has yet to read a page where it lies, that
 * place is not to be had for another one. */
static qr_status send_pages(qr_simulation *simulation, int64_t generation, int tier, qr_page_kind kind,
                            int64_t page_agents, batch *b)
{
    const qr_pager *pager = simulation->paging.pager;
    int64_t own = simulation->network->own.count;
    int64_t n = (own + page_agents - 1) / page_agents;
    bool down = kind == QR_PAGE_STATE && pager != NULL && !qr_pager_next_is_up(pager);
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        int64_t number = down ? n - 1 - i : i;
        int64_t at = number * page_agents;
        int64_t count = qr_min64(page_agents, own - at);
        bool sent = false;
        status = kind == QR_PAGE_STATE ? send_stored(simulation, generation, tier, number, at, count, &sent) : QR_OK;
        if (status == QR_OK && !sent) {
            add_page(simulation, generation, tier, kind, number, at, count, b);
            status = b->n == MOST_AT_ONCE ? send_batch(simulation, b) : QR_OK;
        }
    }
    return status;
}

qr_status qr_cut(qr_simulation *simulation, int64_t generation, int tier)
{
    qr_results *results = &simulation->results;
    const qr_range own = simulation->network->own;
    qr_job begin = {.kind = QR_JOB_CUT_BEGIN,
                    .step = simulation->step,
                    .first = own.first,
                    .count = own.count,
                    .slot = QR_NO_SLOT,
                    .flags = simulation->comm->me.part,
                    .arguments = {generation, tier, qr_page_count(simulation, simulation->comm->me.part)}};
    batch *b = NULL;
    qr_status status = qr_allocate(1, sizeof *b, "a checkpoint", (void **)&b);
    if (status == QR_OK) {
        status = qr_queue_submit(&results->queue, &begin, results->timeout_s);
    }
    if (status == QR_OK) {
        status = send_pages(simulation, generation, tier, QR_PAGE_VOTES, qr_page_agents(simulation, 1), b);
    }
    int64_t dim = simulation->model->state_dim;
    if (status == QR_OK && dim > 0) {
        int64_t agents = qr_page_agents(simulation, dim * (int64_t)sizeof(float));
        status = send_pages(simulation, generation, tier, QR_PAGE_STATE, agents, b);
    }
    if (status == QR_OK) {
        status = send_batch(simulation, b);
    }
    free(b);
    return status;
}
