/* Small crowds: one launch takes many steps and writes rows and its end straight to host memory, so that the host knows
 * a decision as soon as it has travelled there. */
#include "backend/cuda/cuda.h"

#include "base/timer.h"

#include <string.h>

enum { LOOKS_AT_A_TIME = 4096 };

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
        backend->part.mirrors = backend->n_within > 0 ? 1 : 0;
        backend->resident = true;
    }
    return status;
}

/* Until the launch says that it is through, or has failed. */
static qr_status wait_for_mail(qr_backend *backend)
{
    double since = qr_now_s();
    for (;;) {
        for (int look = 0; look < LOOKS_AT_A_TIME; look++) {
            if (__atomic_load_n(&backend->mail->number, __ATOMIC_ACQUIRE) == backend->launches) {
                return QR_OK;
            }
        }
        cudaError_t state = cudaStreamQuery(backend->stream);
        if (state != cudaErrorNotReady && state != cudaSuccess) {
            return qr_cuda_check(state, "taking steps");
        }
        bool arrived = __atomic_load_n(&backend->mail->number, __ATOMIC_ACQUIRE) == backend->launches;
        if (state == cudaSuccess && !arrived) {
            return qr_error(QR_DEVICE, "GPU %d (%s) ended a launch without a result", backend->device,
                            backend->device_name);
        }
        if (qr_now_s() - since > backend->timeout_s) {
            return qr_cuda_lose(backend);
        }
    }
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

qr_status qr_cuda_run_resident(qr_backend *backend, qr_steps *steps)
{
    qr_loop_task task = {.first = steps->first,
                         .count = steps->count,
                         .current = backend->current,
                         .stop_at_decision = steps->stop_at_decision ? 1 : 0,
                         .consensus = *steps->consensus,
                         .number = backend->launches + 1,
                         .state = backend->loop_state,
                         .mail = backend->mail,
                         .row_votes = backend->row_votes,
                         .row_leaders = backend->row_leaders};
    steps->done = 0;
    steps->row_votes = backend->row_votes;
    steps->row_leaders = backend->row_leaders;
    if (steps->count <= 0 || (steps->stop_at_decision && steps->consensus->decision.decided != 0)) {
        return QR_OK;
    }
    qr_status status = bring_up_to_date(backend, steps->votes);
    qr_cuda_pass_faults(backend);
    if (status == QR_OK) {
        status = qr_cuda_check(qr_launch_loop(&backend->part, &task, backend->stream), "starting steps");
    }
    if (status != QR_OK) {
        return status;
    }
    backend->launches++;
    double since = qr_now_s(); /* an event would add to what a decision takes to be seen; a launch is short */
    status = wait_for_mail(backend);
    if (status == QR_OK) {
        double took = qr_now_s() - since;
        backend->counters.kernel_s += took;
        backend->counters.update_s += took;
        backend->counters.moved_bytes += (double)backend->mail->done * backend->bytes_per_step;
        backend->current = backend->mail->current;
        backend->is_up_to_date = true;
        steps->done = backend->mail->done;
    }
    return status;
}
