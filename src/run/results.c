/* A compute rank's side of the results: rows, snapshots and texts become jobs for its I/O server. */
#include "run/simulation.h"

#include <string.h>

static int64_t rows_per_slot(const qr_results *results)
{
    return results->queue.slot_bytes / qr_series_row_bytes(results->n_options);
}

static qr_status submit(qr_results *results, qr_job *job)
{
    qr_status status = qr_queue_submit(&results->queue, job, results->timeout_s);
    if (status != QR_OK && job->slot != QR_NO_SLOT) {
        qr_queue_return_slot(&results->queue, job->slot);
    }
    return status;
}

static qr_status wait_slot(qr_results *results, int32_t *slot)
{
    return qr_queue_wait_slot(&results->queue, results->timeout_s, slot, &results->waited_s);
}

static bool is_fast(const qr_simulation *simulation)
{
    return simulation->ops->is_fast != NULL && simulation->ops->is_fast(simulation->backend);
}

const char *qr_results_precision(const qr_simulation *simulation)
{
    return is_fast(simulation) ? "fast" : "exact";
}

qr_status qr_results_open(qr_simulation *simulation)
{
    qr_results *results = &simulation->results;
    results->timeout_s = simulation->deck->io.timeout;
    results->n_options = simulation->deck->agents.options;
    results->series_slot = QR_NO_SLOT;
    results->attached = true;
    qr_job job = {.kind = QR_JOB_OPEN, .slot = QR_NO_SLOT, .flags = is_fast(simulation) ? 1 : 0};
    qr_status status = submit(results, &job);
    if (status == QR_OK) {
        status = qr_queue_drain(&results->queue, results->timeout_s);
    }
    return status;
}

static qr_status submit_series(qr_results *results)
{
    if (results->series_slot == QR_NO_SLOT) {
        return QR_OK;
    }
    qr_job job = {.kind = QR_JOB_SERIES,
                  .slot = results->series_slot,
                  .count = results->series_rows,
                  .bytes = results->series_rows * qr_series_row_bytes(results->n_options)};
    results->series_slot = QR_NO_SLOT;
    results->series_rows = 0;
    return submit(results, &job);
}

qr_status qr_results_submit_rows(qr_simulation *simulation)
{
    return submit_series(&simulation->results);
}

qr_status qr_results_series(qr_simulation *simulation, int64_t winner)
{
    qr_results *results = &simulation->results;
    if (results->series_slot == QR_NO_SLOT) {
        qr_status status = wait_slot(results, &results->series_slot);
        if (status != QR_OK) {
            return status;
        }
        results->series_since = qr_now_s();
    }
    int64_t stride = qr_series_row_bytes(results->n_options);
    unsigned char *at =
        (unsigned char *)qr_queue_slot(&results->queue, results->series_slot) + results->series_rows * stride;
    const qr_tally *tally = &simulation->tally;
    qr_series_row row = {.step = simulation->step,
                         .winner = winner,
                         .leader = qr_leader_agent(tally->leader[winner]),
                         .decided = simulation->consensus.decision.decided ? 1 : 0};
    memcpy(at, &row, sizeof row);
    for (int64_t k = 0; k < results->n_options; k++) {
        uint64_t votes = (uint64_t)tally->votes[k];
        memcpy(at + sizeof row + (size_t)k * sizeof votes, &votes, sizeof votes);
    }
    results->series_rows++;
    return results->series_rows == rows_per_slot(results) ? submit_series(results) : QR_OK;
}

qr_status qr_results_snapshot(qr_simulation *simulation)
{
    qr_results *results = &simulation->results;
    const qr_range own = simulation->network->own;
    int64_t piece = results->queue.slot_bytes / 64 * 64;
    qr_status status = QR_OK;
    for (int64_t at = 0; at < own.count && status == QR_OK; at += piece) {
        int64_t n = own.count - at < piece ? own.count - at : piece;
        int32_t slot = QR_NO_SLOT;
        status = wait_slot(results, &slot);
        if (status != QR_OK) {
            return status;
        }
        status = simulation->ops->read_votes(simulation->backend, at, n, qr_queue_slot(&results->queue, slot));
        qr_job job = {.kind = QR_JOB_SNAPSHOT,
                      .step = simulation->step,
                      .first = own.first + at,
                      .count = n,
                      .bytes = n,
                      .slot = slot,
                      .arguments = {results->snapshots}};
        qr_status submitted = submit(results, &job);
        status = status == QR_OK ? submitted : status;
    }
    results->snapshots++;
    return status;
}

qr_status qr_results_text(qr_simulation *simulation, const char *name, qr_text_mode mode, const char *text)
{
    qr_results *results = &simulation->results;
    size_t left = strlen(text);
    qr_status status = QR_OK;
    do {
        size_t n = left < (size_t)results->queue.slot_bytes ? left : (size_t)results->queue.slot_bytes;
        int32_t slot = QR_NO_SLOT;
        status = wait_slot(results, &slot);
        if (status != QR_OK) {
            return status;
        }
        memcpy(qr_queue_slot(&results->queue, slot), text, n);
        qr_job job = {
            .kind = QR_JOB_TEXT, .step = simulation->step, .bytes = (int64_t)n, .slot = slot, .flags = (int)mode};
        (void)snprintf(job.name, sizeof job.name, "%s", name);
        status = submit(results, &job);
        text += n;
        left -= n;
        mode = QR_TEXT_APPEND;
    } while (left > 0 && status == QR_OK);
    return status;
}

qr_status qr_results_poll(qr_simulation *simulation)
{
    qr_results *results = &simulation->results;
    qr_status status = qr_queue_collect(&results->queue);
    if (status == QR_OK && results->series_slot != QR_NO_SLOT &&
        qr_now_s() - results->series_since > simulation->deck->output.flush_every) {
        status = submit_series(results);
    }
    return status;
}

qr_status qr_results_finish(qr_simulation *simulation)
{
    qr_results *results = &simulation->results;
    if (!results->attached) {
        return QR_OK;
    }
    qr_status status = submit_series(results);
    qr_job jobs[] = {{.kind = QR_JOB_FLUSH, .slot = QR_NO_SLOT}, {.kind = QR_JOB_FINISH, .slot = QR_NO_SLOT}};
    /* After a failure too, for the server waits for the last job; but no second wait for one that does not answer. */
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0] && !results->queue.lost; i++) {
        qr_status next = submit(results, &jobs[i]);
        status = status == QR_OK ? next : status;
    }
    if (!results->queue.lost) {
        qr_status next = qr_queue_drain(&results->queue, results->timeout_s);
        status = status == QR_OK ? next : status;
    }
    return status;
}
