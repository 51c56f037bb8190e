/* Small crowds: one launch takes many steps and writes rows and its end straight to host memory, so that the host knows
 * a decision as soon as it has travelled there. The launch then waits a little for another batch, which the host orders
 * by a word in its own memory. */
#include "backend/cuda/cuda.h"

#include "base/timer.h"

#include <string.h>

enum { LOOKS_AT_A_TIME = 4096 };

/* How long a launch waits for another batch. Whatever else the host wants from the device comes that much later. */
enum { WAIT_NS = 50000 };

qr_status qr_cuda_prepare_resident(qr_backend *backend)
{
    if (backend->n_parts != 1 || !qr_loop_fits(&backend->part)) {
        return QR_OK;
    }
    qr_status status =
        qr_cuda_allocate(backend, 1, sizeof *backend->loop_state, "the loop's state", (void **)&backend->loop_state);
    if (status == QR_OK) {
        status = qr_cuda_check(cudaHostAlloc((void **)&backend->mail, sizeof *backend->mail, cudaHostAllocDefault),
                               "pinned memory");
    }
    if (status == QR_OK) {
        memset(backend->mail, 0, sizeof *backend->mail);
        backend->reported_step = -1;
        backend->part.mirrors = backend->n_within > 0 ? 1 : 0;
        backend->resident = true;
    }
    return status;
}

static uint64_t read_word(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static bool has_result(const qr_backend *backend)
{
    return read_word(&backend->mail->result) >> 32 == backend->batches;
}

/* Until the launch says that it is through with the batch, or has failed. ordered: the batch was ordered from a launch
 * that may have been about to end; *gone says that it did, without it. */
static qr_status wait_for_result(qr_backend *backend, bool ordered, bool *gone)
{
    const double since = qr_now_s();
    *gone = false;
    for (;;) {
        for (int look = 0; look < LOOKS_AT_A_TIME; look++) {
            if (has_result(backend)) {
                return QR_OK;
            }
            if (ordered && (uint32_t)read_word(&backend->mail->left) == backend->batches - 1) {
                *gone = true;
                return QR_OK;
            }
        }
        cudaError_t state = cudaStreamQuery(backend->stream);
        if (state != cudaErrorNotReady && state != cudaSuccess) {
            return qr_cuda_check(state, "taking steps");
        }
        if (state == cudaSuccess && !has_result(backend)) {
            if (ordered) {
                *gone = true;
                return QR_OK;
            }
            return qr_error(QR_DEVICE, "GPU %d (%s) ended a launch without a result", backend->device,
                            backend->device_name);
        }
        if (qr_now_s() - since > backend->timeout_s) {
            return qr_cuda_lose(backend);
        }
    }
}

/* Takes the batch's tag off a word once it is there; it is on its way. */
static bool take_word(uint64_t *word, uint64_t tag, double timeout_s)
{
    const uint64_t mask = ((uint64_t)1 << QR_LOOP_TAG_SHIFT) - 1;
    uint64_t value = read_word(word);
    double since = 0;
    while ((value & ~mask) != tag) {
        if (since == 0) {
            since = qr_now_s();
        } else if (qr_now_s() - since > timeout_s) {
            return false;
        }
        value = read_word(word);
    }
    *word = value & mask;
    return true;
}

/* Rows and the end of a batch whose result is there. */
static qr_status take_result(qr_backend *backend, qr_steps *steps)
{
    const uint64_t result = read_word(&backend->mail->result);
    const uint64_t tag = qr_loop_tag(backend->batches);
    const int64_t done = (int64_t)(result & 0xffffu);
    const double timeout_s = backend->timeout_s;
    bool complete = take_word(&backend->mail->consensus, tag, timeout_s);
    for (int64_t i = 0; i < done * backend->part.rule.n_options && complete; i++) {
        complete = take_word((uint64_t *)backend->row_votes + i, tag, timeout_s);
    }
    for (int64_t i = 0; i < done && complete; i++) {
        complete = take_word(&backend->row_leaders[i], tag, timeout_s);
    }
    if (!complete) {
        return qr_cuda_lose(backend);
    }
    const uint64_t consensus = backend->mail->consensus;
    backend->current = (uint32_t)(result >> 16 & 1u);
    backend->is_up_to_date = true;
    backend->reported = *steps->consensus;
    backend->reported.decision.decided = (int64_t)(consensus >> 47);
    backend->reported.candidate = (int64_t)(consensus >> 40 & 0x7fu) - 1;
    backend->reported.held = (int64_t)(consensus & (((uint64_t)1 << 40) - 1));
    backend->reported_step = steps->first - 1 + done;
    steps->done = done;
    return QR_OK;
}

/* What a launch finds on the device, unless the launch before it left it there. */
static qr_status bring_up_to_date(qr_backend *backend, const int64_t *votes)
{
    if (backend->is_up_to_date) {
        return QR_OK;
    }
    memset(backend->control, 0, sizeof *backend->control);
    backend->control->current = backend->current;
    memcpy(backend->handed_out, votes, sizeof(int64_t) * backend->part.rule.n_options);
    qr_status status = qr_cuda_send_control(backend);
    if (status == QR_OK) {
        status = qr_cuda_check(cudaMemcpyAsync(backend->loop_state->now, backend->handed_out,
                                               sizeof(int64_t) * backend->part.rule.n_options, cudaMemcpyHostToDevice,
                                               backend->stream),
                               "writing the tally");
    }
    if (status == QR_OK) {
        qr_launch_copy(&backend->part, QR_COPY_WITHIN, backend->within, backend->n_within, backend->within_votes, NULL,
                       backend->stream);
        status = qr_cuda_wait(backend);
    }
    return status;
}

/* Whether the launch that took the batch before can go on: it knows all that the caller says. */
static bool can_order(const qr_backend *backend, const qr_steps *steps)
{
    const qr_consensus *known = &backend->reported;
    const qr_consensus *now = steps->consensus;
    return backend->is_up_to_date && backend->reported_step == steps->first - 1 && known->n_agents == now->n_agents &&
           known->quorum_num == now->quorum_num && known->quorum_den == now->quorum_den && known->hold == now->hold &&
           known->held == now->held && known->candidate == now->candidate &&
           known->decision.decided == now->decision.decided &&
           (uint32_t)read_word(&backend->mail->left) != backend->batches;
}

/* The fewest votes that reach the quorum; more than there are agents where none do. */
static int64_t votes_for_quorum(const qr_consensus *consensus)
{
    int64_t low = 0;
    int64_t high = consensus->n_agents + 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (qr_share_reached(middle, consensus->n_agents, consensus->quorum_num, consensus->quorum_den)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static qr_status launch(qr_backend *backend, const qr_steps *steps)
{
    const qr_consensus *consensus = steps->consensus;
    qr_status status = bring_up_to_date(backend, steps->votes);
    if (status != QR_OK) {
        return status;
    }
    const qr_loop_task task = {.first = steps->first,
                               .count = steps->count,
                               .current = backend->current,
                               .stop_at_decision = steps->stop_at_decision ? 1 : 0,
                               .quorum = votes_for_quorum(consensus),
                               .hold = consensus->hold,
                               .held = consensus->held,
                               .candidate = (int32_t)consensus->candidate,
                               .decided = consensus->decision.decided != 0 ? 1 : 0,
                               .number = backend->batches,
                               .wait_ns = WAIT_NS,
                               .state = backend->loop_state,
                               .mail = backend->mail,
                               .row_votes = (uint64_t *)backend->row_votes,
                               .row_leaders = backend->row_leaders};
    return qr_cuda_check(qr_launch_loop(&backend->part, &task, backend->stream), "starting steps");
}

qr_status qr_cuda_run_resident(qr_backend *backend, qr_steps *steps)
{
    steps->done = 0;
    steps->row_votes = backend->row_votes;
    steps->row_leaders = backend->row_leaders;
    if (steps->count <= 0 || (steps->stop_at_decision && steps->consensus->decision.decided != 0)) {
        return QR_OK;
    }
    const bool ordered = !qr_cuda_pass_faults(backend) && can_order(backend, steps);
    bool gone = !ordered;
    qr_status status = QR_OK;
    backend->batches++;
    backend->reported_step = -1;
    double since = qr_now_s(); /* an event would add to what a decision takes to be seen; a launch is short */
    if (ordered) {
        const uint64_t stop = steps->stop_at_decision ? 1u : 0u;
        __atomic_store_n(&backend->mail->command,
                         (uint64_t)backend->batches << 32 | stop << 16 | (uint64_t)steps->count, __ATOMIC_RELEASE);
        status = wait_for_result(backend, true, &gone);
    }
    if (status == QR_OK && gone) {
        status = launch(backend, steps);
        since = qr_now_s();
        if (status == QR_OK) {
            status = wait_for_result(backend, false, &gone);
        }
    }
    if (status == QR_OK) {
        status = take_result(backend, steps);
    }
    if (status == QR_OK) {
        const double took = qr_now_s() - since;
        backend->counters.kernel_s += took;
        backend->counters.update_s += took;
        backend->counters.moved_bytes += (double)steps->done * backend->bytes_per_step;
    }
    return status;
}
