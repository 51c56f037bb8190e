/* A cut: every page of this rank goes into a slot of its own, and the rank goes on. Where slots are short, it waits for
 * the server to compress what it has. */
#include "run/simulation.h"

static qr_status send_page(qr_simulation *simulation, int64_t generation, int tier, qr_page_kind kind, int64_t number,
                           int64_t at, int64_t count)
{
    qr_results *results = &simulation->results;
    int32_t slot = QR_NO_SLOT;
    qr_status status = qr_queue_wait_slot(&results->queue, results->timeout_s, &slot, &results->waited_s);
    if (status != QR_OK) {
        return status;
    }
    void *page = qr_queue_slot(&results->queue, slot);
    int64_t bytes = kind == QR_PAGE_VOTES ? count : count * simulation->model->state_dim * (int64_t)sizeof(float);
    status = kind == QR_PAGE_VOTES ? simulation->ops->read_votes(simulation->backend, at, count, page)
                                   : simulation->ops->read_state(simulation->backend, at, count, page);
    qr_job job = {.kind = QR_JOB_CUT_PAGE,
                  .step = simulation->step,
                  .first = simulation->network->own.first + at,
                  .count = count,
                  .bytes = bytes,
                  .slot = slot,
                  .flags = (int32_t)kind,
                  .arguments = {generation, tier, number}};
    if (status == QR_OK) {
        status = qr_queue_submit(&results->queue, &job, results->timeout_s);
    }
    if (status != QR_OK) {
        qr_queue_return_slot(&results->queue, slot);
        return status;
    }
    simulation->checkpoints.copied_bytes += bytes;
    return QR_OK;
}

static qr_status send_pages(qr_simulation *simulation, int64_t generation, int tier, qr_page_kind kind,
                            int64_t page_agents)
{
    int64_t own = simulation->network->own.count;
    qr_status status = QR_OK;
    for (int64_t at = 0, number = 0; at < own && status == QR_OK; at += page_agents, number++) {
        status = send_page(simulation, generation, tier, kind, number, at, qr_min64(page_agents, own - at));
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
    qr_status status = qr_queue_submit(&results->queue, &begin, results->timeout_s);
    if (status == QR_OK) {
        status = send_pages(simulation, generation, tier, QR_PAGE_VOTES, qr_page_agents(simulation, 1));
    }
    int64_t dim = simulation->model->state_dim;
    if (status == QR_OK && dim > 0) {
        status = send_pages(simulation, generation, tier, QR_PAGE_STATE,
                            qr_page_agents(simulation, dim * (int64_t)sizeof(float)));
    }
    return status;
}
