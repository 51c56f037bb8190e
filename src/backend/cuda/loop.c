/* Steps: one at a time where the caller exchanges votes and sums tallies, or many in one CUDA graph. */
#include "backend/cuda/cuda.h"

#include "base/fault.h"
#include "fault.h"

#include <string.h>

bool qr_cuda_pass_faults(qr_backend *backend)
{
    bool fails = false;
    if (qr_fault("cuda.kernel", NULL) != 0) {
        qr_launch_trap(backend->stream);
        fails = true;
    }
    backend->link_fails = qr_fault("nccl.link", NULL) != 0;
    if (qr_fault("cuda.stall", NULL) != 0) {
        qr_launch_stall(2.0 * backend->timeout_s + 5.0, backend->stream);
        fails = true;
    }
    return fails;
}

enum { GRAPH_NODES = 256, MOST_GRAPH_STEPS = 64 };

qr_status qr_cuda_send_control(qr_backend *backend)
{
    return qr_cuda_check(cudaMemcpyAsync(backend->part.control, backend->control, sizeof *backend->control,
                                         cudaMemcpyHostToDevice, backend->stream),
                         "writing the control block");
}

static qr_status receive_control(qr_backend *backend)
{
    return qr_cuda_check(cudaMemcpyAsync(backend->control, backend->part.control, sizeof *backend->control,
                                         cudaMemcpyDeviceToHost, backend->stream),
                         "reading the control block");
}

static void take_tally(const qr_backend *backend, qr_tally *out)
{
    size_t n_options = backend->part.rule.n_options;
    memset(out, 0, sizeof *out);
    memcpy(out->votes, backend->handed_out, 8 * n_options);
    memcpy(out->leader, backend->handed_out + n_options, 8 * n_options);
}

/* This part's tally, handed in by the kernels before. */
static qr_status receive_tally(qr_backend *backend, qr_tally *out)
{
    size_t n_options = backend->part.rule.n_options;
    qr_launch_hand_in(&backend->part, backend->handed_in, backend->stream);
    qr_status status = qr_cuda_check(cudaMemcpyAsync(backend->handed_out, backend->handed_in, 16 * n_options,
                                                     cudaMemcpyDeviceToHost, backend->stream),
                                     "reading the tally");
    if (status == QR_OK) {
        status = qr_cuda_finish_work(backend, &backend->counters.update_s);
    }
    if (status == QR_OK) {
        take_tally(backend, out);
    }
    return status;
}

static void clear_control(qr_backend *backend)
{
    memset(backend->control, 0, sizeof *backend->control);
    backend->control->current = backend->current;
}

qr_status qr_cuda_count(qr_backend *backend, qr_tally *out)
{
    qr_status status = qr_cuda_check_lost(backend);
    if (status != QR_OK) {
        return status;
    }
    qr_launch_count(&backend->part, backend->handed_out, backend->stream);
    status = qr_cuda_wait(backend);
    if (status == QR_OK) {
        take_tally(backend, out);
    }
    return status;
}

/* What kernels read of the step to come. */
static qr_status send_step(qr_backend *backend, int64_t step, const qr_tally *before)
{
    clear_control(backend);
    backend->control->step = step - 1;
    backend->control->limit = step;
    memcpy(backend->control->votes, before->votes, 8 * (size_t)backend->part.rule.n_options);
    return qr_cuda_send_control(backend);
}

qr_status qr_cuda_begin_update(qr_backend *backend, int64_t step, const qr_tally *before)
{
    qr_status status = qr_cuda_check_lost(backend);
    if (status != QR_OK || !backend->overlap.enabled) {
        return status;
    }
    status = send_step(backend, step, before);
    if (status == QR_OK) {
        status = qr_cuda_fork(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_launch_interior(backend, false, 0);
    }
    backend->overlap.begun = status == QR_OK;
    return status;
}

qr_status qr_cuda_update(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out)
{
    qr_part part = backend->part;
    const bool begun = backend->overlap.begun;
    bool last = !part.sweeps || colour + 1 == part.lattice.n_colours;
    qr_status status = qr_cuda_check_lost(backend);
    if (status != QR_OK) {
        return status;
    }
    part.decides = 0;
    backend->overlap.begun = false;
    status = begun ? qr_cuda_join_interior(backend) : send_step(backend, step, before);
    if (status == QR_OK) {
        status = qr_cuda_begin_work(backend);
    }
    if (status != QR_OK) {
        return status;
    }
    (void)qr_cuda_pass_faults(backend);
    if (begun) {
        qr_cuda_launch_border(backend);
    } else {
        qr_launch_update(&part, colour, last ? 1 : 0, backend->stream);
    }
    if (!last) {
        return qr_cuda_finish_work(backend, &backend->counters.update_s);
    }
    status = receive_tally(backend, out);
    if (status == QR_OK && begun) {
        status = qr_cuda_take_interior(backend);
    }
    backend->counters.moved_bytes += status == QR_OK ? backend->bytes_per_step : 0.0;
    backend->is_up_to_date = false;
    if (status == QR_OK && !part.sweeps) {
        backend->current ^= 1u;
        backend->control->current = backend->current;
        status = qr_cuda_send_control(backend); /* halo votes go to the buffer that is current now */
        if (status == QR_OK) {
            status = qr_cuda_wait(backend);
        }
    }
    return status;
}

/* The parts' tallies become one, and that a decision. */
static qr_status enqueue_decision(qr_backend *backend, int64_t s)
{
    qr_status status = qr_cuda_mark(backend, s, backend->reduce.begin, backend->stream);
    qr_launch_hand_in(&backend->part, backend->handed_in, backend->stream);
    if (status == QR_OK) {
        status = qr_nccl_gather(backend);
    }
    qr_launch_decide(&backend->part, backend->stream);
    return status == QR_OK ? qr_cuda_mark(backend, s, backend->reduce.end, backend->stream) : status;
}

/* Copies within the part, and messages on their way to others. */
static void enqueue_messages(qr_backend *backend)
{
    if (backend->nccl == NULL || backend->n_parts > 1) {
        qr_launch_copy(&backend->part, QR_COPY_WITHIN, backend->within, backend->n_within, backend->within_votes, NULL,
                       backend->stream);
    }
    if (backend->nccl != NULL) {
        qr_nccl_pack(backend);
    }
}

/* Halo and update; of the agents that see no halo, while it travels, on a stream that joins the other again. It leaves
 * when messages are ready, behind what carries them, which is to be the first to find room on the device. */
static qr_status enqueue_colour(qr_backend *backend, int64_t s, int colour, bool last)
{
    const bool timed = colour < QR_CUDA_TIMED_COLOURS;
    const bool overlaps = qr_cuda_graph_overlaps(backend);
    const int64_t marked = timed ? s : -1;
    const int of = timed ? colour : 0;
    qr_status status = qr_cuda_mark(backend, marked, backend->halo_of[of].begin, backend->stream);
    enqueue_messages(backend);
    if (status == QR_OK && overlaps) {
        status = qr_cuda_fork(backend);
    }
    if (status == QR_OK && backend->nccl != NULL) {
        status = qr_nccl_halo(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_mark(backend, marked, backend->halo_of[of].end, backend->stream);
    }
    if (status == QR_OK && overlaps) {
        status = qr_cuda_launch_interior(backend, true, s);
    }
    if (overlaps) { /* also after a failure: a recording ends on one stream */
        qr_status joined = qr_cuda_join_interior(backend);
        status = status == QR_OK ? joined : status;
    }
    if (status == QR_OK) {
        status = qr_cuda_mark(backend, marked, backend->update_of[of].begin, backend->stream);
    }
    if (overlaps) {
        qr_cuda_launch_border(backend);
    } else {
        qr_launch_update(&backend->part, colour, last ? 1 : 0, backend->stream);
    }
    return status == QR_OK ? qr_cuda_mark(backend, marked, backend->update_of[of].end, backend->stream) : status;
}

/* Everything of step s of a graph, onto the stream. */
static qr_status enqueue_step(qr_backend *backend, int64_t s)
{
    const qr_part *part = &backend->part;
    int n_colours = part->sweeps ? part->lattice.n_colours : 1;
    qr_status status = QR_OK;
    for (int colour = 0; colour < n_colours && status == QR_OK; colour++) {
        status = enqueue_colour(backend, s, colour, colour + 1 == n_colours);
    }
    if (status == QR_OK && !part->decides) {
        status = enqueue_decision(backend, s);
    }
    return status;
}

/* A graph of several steps. Steps beyond the limit in the control block do nothing. */
static qr_status make_graph(qr_backend *backend)
{
    const qr_part *part = &backend->part;
    cudaGraph_t graph = NULL;
    int64_t nodes = part->sweeps ? 2 * (int64_t)part->lattice.n_colours : 2;
    backend->graph_steps = GRAPH_NODES / nodes;
    backend->graph_steps = backend->graph_steps > MOST_GRAPH_STEPS ? MOST_GRAPH_STEPS : backend->graph_steps;
    backend->graph_steps = backend->graph_steps < 1 ? 1 : backend->graph_steps;
    qr_status status = qr_cuda_check(cudaStreamBeginCapture(backend->stream, cudaStreamCaptureModeThreadLocal),
                                     "recording a graph of steps");
    if (status != QR_OK) {
        return status;
    }
    for (int64_t s = 0; s < backend->graph_steps && status == QR_OK; s++) {
        status = enqueue_step(backend, s);
    }
    cudaError_t ended = cudaStreamEndCapture(backend->stream, &graph);
    if (status == QR_OK) {
        status = qr_cuda_check(ended, "recording a graph of steps");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaGraphInstantiate(&backend->graph, graph, 0), "making a graph of steps");
    }
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    return status;
}

static void set_control(qr_backend *backend, const qr_steps *steps)
{
    qr_control *control = backend->control;
    clear_control(backend);
    control->step = steps->first - 1;
    control->limit = steps->first - 1 + steps->count;
    control->rows_from = steps->first - 1;
    control->stop_at_decision = steps->stop_at_decision ? 1 : 0;
    control->consensus = *steps->consensus;
    control->stopped =
        steps->count <= 0 || (steps->stop_at_decision && steps->consensus->decision.decided != 0) ? 1 : 0;
    memcpy(control->votes, steps->votes, sizeof(int64_t) * backend->part.rule.n_options);
}

/* Rows, control block: what the host wants to know after a batch. */
static qr_status receive_rows(qr_backend *backend, int64_t count)
{
    size_t n_options = backend->part.rule.n_options;
    qr_status status =
        qr_cuda_check(cudaMemcpyAsync(backend->row_votes, backend->part.row_votes, (size_t)count * n_options * 8,
                                      cudaMemcpyDeviceToHost, backend->stream),
                      "reading rows");
    if (status == QR_OK) {
        status = qr_cuda_check(cudaMemcpyAsync(backend->row_leaders, backend->part.row_leaders, (size_t)count * 8,
                                               cudaMemcpyDeviceToHost, backend->stream),
                               "reading rows");
    }
    return status == QR_OK ? receive_control(backend) : status;
}

qr_status qr_cuda_run(qr_backend *backend, qr_steps *steps)
{
    steps->done = 0;
    steps->count = steps->count < QR_DEVICE_ROWS ? steps->count : QR_DEVICE_ROWS;
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK && backend->resident) {
        return qr_cuda_run_resident(backend, steps);
    }
    if (status == QR_OK && backend->graph == NULL) {
        status = make_graph(backend);
    }
    if (status != QR_OK) {
        return status;
    }
    (void)qr_cuda_pass_faults(backend);
    set_control(backend, steps);
    status = qr_cuda_send_control(backend);
    int64_t last_graph = 0; /* steps before it */
    if (status == QR_OK) {
        status = qr_cuda_begin_work(backend);
    }
    for (int64_t taken = 0; taken < steps->count && status == QR_OK; taken += backend->graph_steps) {
        last_graph = taken;
        status = qr_cuda_check(cudaGraphLaunch(backend->graph, backend->stream), "starting a graph of steps");
    }
    if (status == QR_OK) {
        status = qr_cuda_end_work(backend);
    }
    if (status == QR_OK) {
        status = receive_rows(backend, steps->count);
    }
    if (status == QR_OK) {
        status = qr_cuda_wait(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_take_work(backend, NULL);
    }
    if (status == QR_OK) {
        backend->current = backend->control->current;
        steps->done = backend->control->step - (steps->first - 1);
        steps->row_votes = backend->row_votes;
        steps->row_leaders = backend->row_leaders;
        backend->counters.moved_bytes += (double)steps->done * backend->bytes_per_step;
    }
    if (status == QR_OK && backend->device_times && steps->done > last_graph) {
        status = qr_cuda_take_phases(backend, steps->done);
    }
    return status;
}
