/* While halo votes travel, the agents that see none of them are updated on a stream of their own. Both ways of taking
 * steps, one at a time and in graphs, fork and join here. */
#include "backend/cuda/cuda.h"

/* A message of some hundred kilobytes is sent and received by a block or two that want a multiprocessor each. */
enum { SPARE_MULTIPROCESSORS = 2 };

/* Below so many agents, which a device updates in some 10 us, the launches cost more than a halo by way of the host
 * takes. */
static int64_t least_agents(const qr_part *part)
{
    switch ((qr_device_form)part->form) {
    case QR_FORM_PLANES: return ((int64_t)1 << 26) / part->n_planes;
    case QR_FORM_NEURAL: return (int64_t)1 << 16;
    case QR_FORM_PACKED: break;
    }
    return (int64_t)1 << 22;
}

/* In graphs votes go from device to device in some 10 us, and what they save has to make up for a longer graph and for
 * the multiprocessors that are left to them: measured on an H200 (benchmarks/bench_cuda.c, halo-*). Updates of neural
 * agents take so long that sparing any would cost more than all of the halo. */
static int64_t least_agents_in_graphs(const qr_part *part)
{
    switch ((qr_device_form)part->form) {
    case QR_FORM_PLANES: return ((int64_t)3 << 28) / part->n_planes;
    case QR_FORM_NEURAL: return INT64_MAX;
    case QR_FORM_PACKED: break;
    }
    return (int64_t)1 << 26;
}

/* Some own agents as a part of their own, in the same memory; for updates alone, and somebody sums over parts. first: a
 * multiple of QR_DEVICE_GROUP. */
static qr_part cut(const qr_part *part, int64_t first, int64_t count)
{
    qr_part piece = *part;
    piece.first += first;
    piece.before += first;
    piece.count = count;
    piece.frozen = part->frozen != NULL ? part->frozen + first / QR_DEVICE_GROUP : NULL;
    piece.state = part->state != NULL ? part->state + first * part->neural.state_dim : NULL;
    piece.decides = 0;
    return piece;
}

qr_status qr_cuda_make_overlap(qr_backend *backend, int64_t wanted)
{
    const qr_part *part = &backend->part;
    qr_cuda_overlap *overlap = &backend->overlap;
    const qr_range interior = qr_lattice_interior(backend->network);
    const int64_t end = interior.first + interior.count;
    const int64_t least = wanted > 0 ? wanted : least_agents(part);
    int lowest = 0;
    if (part->sweeps || backend->frames != NULL || interior.count < least || backend->network->halo.n_peers == 0) {
        return QR_OK;
    }
    overlap->interior = cut(part, interior.first, interior.count);
    overlap->border[0] = cut(part, 0, interior.first);
    overlap->border[1] = cut(part, end, part->count - end);
    overlap->in_graphs = wanted > 0 || interior.count >= least_agents_in_graphs(part);
    qr_status status =
        qr_cuda_check(cudaDeviceGetStreamPriorityRange(&lowest, NULL), "asking for priorities of streams");
    if (status == QR_OK) {
        status = qr_cuda_check(cudaStreamCreateWithPriority(&overlap->stream, cudaStreamNonBlocking, lowest),
                               "making a stream");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventCreateWithFlags(&overlap->forked, cudaEventDisableTiming), "making an event");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventCreateWithFlags(&overlap->done, cudaEventDisableTiming), "making an event");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventCreate(&overlap->span.begin), "making an event");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventCreate(&overlap->span.end), "making an event");
    }
    overlap->enabled = status == QR_OK;
    return status;
}

void qr_cuda_destroy_overlap(qr_backend *backend)
{
    qr_cuda_overlap *overlap = &backend->overlap;
    cudaEvent_t events[] = {overlap->forked, overlap->done, overlap->span.begin, overlap->span.end};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        if (events[i] != NULL) {
            (void)cudaEventDestroy(events[i]);
        }
    }
    if (overlap->stream != NULL) {
        (void)cudaStreamDestroy(overlap->stream);
    }
}

/* recorded: into a graph, as step s of it; otherwise every span is timed. */
static qr_status mark(qr_backend *backend, bool recorded, int64_t s, cudaEvent_t event)
{
    cudaStream_t stream = backend->overlap.stream;
    return recorded ? qr_cuda_mark(backend, s, event, stream)
                    : qr_cuda_check(cudaEventRecord(event, stream), "recording an event");
}

qr_status qr_cuda_fork(qr_backend *backend)
{
    return qr_cuda_check(cudaEventRecord(backend->overlap.forked, backend->stream), "recording an event");
}

qr_status qr_cuda_launch_interior(qr_backend *backend, bool recorded, int64_t s)
{
    qr_cuda_overlap *overlap = &backend->overlap;
    qr_status status = qr_cuda_check(cudaStreamWaitEvent(overlap->stream, overlap->forked, 0), "ordering streams");
    if (status == QR_OK) {
        status = mark(backend, recorded, s, overlap->span.begin);
    }
    if (status == QR_OK) {
        qr_part part = overlap->interior;
        part.spare = recorded ? SPARE_MULTIPROCESSORS : 0;
        qr_launch_update(&part, 0, 1, overlap->stream);
    }
    return status == QR_OK ? mark(backend, recorded, s, overlap->span.end) : status;
}

qr_status qr_cuda_join_interior(qr_backend *backend)
{
    qr_cuda_overlap *overlap = &backend->overlap;
    qr_status status = qr_cuda_check(cudaEventRecord(overlap->done, overlap->stream), "recording an event");
    return status == QR_OK ? qr_cuda_check(cudaStreamWaitEvent(backend->stream, overlap->done, 0), "ordering streams")
                           : status;
}

void qr_cuda_launch_border(qr_backend *backend)
{
    for (int side = 0; side < 2; side++) {
        if (backend->overlap.border[side].count > 0) {
            qr_launch_update(&backend->overlap.border[side], 0, 1, backend->stream);
        }
    }
}

bool qr_cuda_works_inside(const qr_backend *backend)
{
    return backend->overlap.begun && cudaEventQuery(backend->overlap.span.end) == cudaErrorNotReady;
}

bool qr_cuda_graph_overlaps(const qr_backend *backend)
{
    return backend->overlap.enabled && backend->overlap.in_graphs && backend->nccl != NULL;
}
