/* The CUDA backend's entry points. */
#include "backend/cuda/frame_ops.h"

#include "backend/layout.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_device(qr_backend *backend)
{
    for (size_t i = 0; i < backend->n_allocations; i++) {
        (void)cudaFree(backend->allocations[i]);
    }
    for (int i = 0; backend->peers != NULL && i < backend->network->halo.n_peers; i++) {
        (void)cudaFreeHost(backend->peers[i].host_send);
        (void)cudaFreeHost(backend->peers[i].host_receive);
    }
    if (backend->registered != NULL) {
        (void)cudaHostUnregister(backend->registered);
    }
    (void)cudaFreeHost(backend->control);
    (void)cudaFreeHost(backend->handed_out);
    (void)cudaFreeHost(backend->row_votes);
    (void)cudaFreeHost(backend->row_leaders);
    (void)cudaFreeHost(backend->mail);
    qr_cuda_destroy_times(backend);
    qr_cuda_destroy_overlap(backend);
    if (backend->done != NULL) {
        (void)cudaEventDestroy(backend->done);
    }
    if (backend->stream != NULL) {
        (void)cudaStreamDestroy(backend->stream);
    }
}

static void cuda_destroy(qr_backend *backend)
{
    if (backend == NULL) {
        return;
    }
    if (backend->graph != NULL && !backend->is_lost) {
        (void)cudaGraphExecDestroy(backend->graph);
    }
    backend->is_lost = !qr_nccl_destroy(backend->nccl) || backend->is_lost;
    if (!backend->is_lost) { /* giving memory back would wait for the device; the end of the process does it as well */
        free_device(backend);
    }
    qr_cuda_destroy_frames(backend);
    free(backend->allocations);
    free(backend->peers);
    free(backend);
}

static qr_status allocate_pinned(int64_t count, int64_t size, void **out)
{
    return qr_cuda_check(cudaHostAlloc(out, (size_t)(count * size), cudaHostAllocDefault), "pinned memory");
}

static qr_status cuda_device_address(int place, char *out, size_t n)
{
    int n_devices = 0;
    qr_status status = qr_cuda_check(cudaGetDeviceCount(&n_devices), "looking for devices");
    if (status == QR_OK && n_devices == 0) {
        status = qr_error(QR_ENVIRONMENT, "no CUDA device");
    }
    return status == QR_OK ? qr_cuda_check(cudaDeviceGetPCIBusId(out, (int)n, place % n_devices), "finding a device")
                           : status;
}

/* Ranks of a machine take its devices in turn. */
qr_status qr_cuda_use_device(int place, int *device, int *n_devices)
{
    int n = 0;
    qr_status status = qr_cuda_check(cudaGetDeviceCount(&n), "looking for devices");
    if (status == QR_OK && n == 0) {
        status = qr_error(QR_ENVIRONMENT, "no CUDA device");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaSetDevice(place % n), "choosing a device");
    }
    if (status == QR_OK) {
        *device = place % n;
    }
    if (status == QR_OK && n_devices != NULL) {
        *n_devices = n;
    }
    return status;
}

static qr_status choose_device(qr_backend *backend, int place)
{
    int highest = 0;
    struct cudaDeviceProp properties;
    qr_status status = qr_cuda_use_device(place, &backend->device, NULL);
    if (status == QR_OK) {
        status = qr_cuda_check(cudaGetDeviceProperties(&properties, backend->device), "asking for device properties");
    }
    if (status == QR_OK) {
        memcpy(backend->device_id, &properties.uuid, QR_DEVICE_ID_BYTES);
        (void)snprintf(backend->device_name, sizeof backend->device_name, "%.63s", properties.name);
        status = qr_cuda_check(cudaDeviceGetStreamPriorityRange(NULL, &highest), "asking for priorities of streams");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaStreamCreateWithPriority(&backend->stream, cudaStreamNonBlocking, highest),
                               "making a stream");
    }
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventCreateWithFlags(&backend->done, cudaEventDisableTiming), "making an event");
    }
    if (status == QR_OK) {
        status = qr_cuda_make_times(backend);
    }
    return status;
}

/* What became of compute.precision: fast. */
static const char *describe_precision(const qr_backend *backend)
{
    const qr_part *part = &backend->part;
    if (!backend->model->fast) {
        return "";
    }
    if (part->form != QR_FORM_NEURAL) {
        return ", precision exact: only neural agents have a fast form";
    }
    return part->fast_weights != NULL ? ", precision fast: FP16 tensor cores"
                                      : ", precision exact: sizes or weights are not for tensor cores";
}

static void describe(qr_backend *backend)
{
    const qr_part *part = &backend->part;
    const char *precision = describe_precision(backend);
    static const char *const widths[] = {"8 bits", "4 bits", "2 bits", "1 bit"};
    if (part->form == QR_FORM_PLANES) {
        (void)snprintf(backend->description, sizeof backend->description, "%s, %d bit plane%s, 64 agents a word%s",
                       backend->device_name, part->n_planes, part->n_planes == 1 ? "" : "s", precision);
    } else {
        (void)snprintf(backend->description, sizeof backend->description, "%s, %s a vote%s%s", backend->device_name,
                       widths[part->packing], part->form == QR_FORM_NEURAL ? ", float32 states" : "", precision);
    }
}

static double cuda_bytes_per_step(const qr_backend *backend)
{
    const qr_part *part = &backend->part;
    double own = (double)part->count;
    double votes = part->form == QR_FORM_PLANES ? 2.0 * part->n_planes / 8.0 : 2.0 / (double)(1u << part->packing);
    double edges = part->row != NULL ? 5.0 * (double)backend->network->own_edge_ends : 0.0;
    return own * (votes + 8.0 * (double)backend->model->state_dim) + edges;
}

static int64_t state_bytes(const qr_backend_setup *setup)
{
    return setup->network->own.count * setup->model->state_dim * (int64_t)sizeof(float);
}

int64_t qr_cuda_planned_bytes(const qr_backend_setup *setup, int64_t bytes)
{
    const qr_network *network = setup->network;
    int64_t lists = 0;
    if (network->rows.row != NULL) {
        lists = (network->own.count + 1) * (int64_t)sizeof(int64_t) +
                network->rows.row[network->own.count] * (int64_t)sizeof(uint32_t);
    }
    for (int i = 0; i < network->halo.n_peers; i++) {
        const qr_halo_peer *peer = &network->halo.peers[i];
        lists += (peer->n_send + peer->n_place) * (int64_t)sizeof(qr_copy) + peer->send_count + peer->recv_count;
    }
    qr_device_bytes rest = qr_layout_device_bytes(setup->model, &network->spec, network->own.count, network->view);
    return lists + rest.votes + rest.weights + rest.staging + bytes;
}

static qr_status cuda_create(const qr_backend_setup *setup, qr_backend **out)
{
    qr_backend *backend = NULL;
    qr_status status = qr_allocate(1, sizeof *backend, "the backend", (void **)&backend);
    if (status != QR_OK) {
        return status;
    }
    backend->model = setup->model;
    backend->network = setup->network;
    backend->n_parts = setup->network->n_parts;
    backend->threads = setup->threads > 0 ? setup->threads : 1;
    backend->timeout_s = setup->timeout_s > 0.0 ? setup->timeout_s : QR_TIMEOUT_S;
    backend->must_give_up = setup->must_give_up;
    backend->context = setup->context;
    backend->device_times = setup->device_times;
    backend->planned_bytes =
        qr_cuda_planned_bytes(setup, setup->n_frames > 0 ? setup->n_frames * setup->page_agents *
                                                               setup->model->state_dim * (int64_t)sizeof(float)
                                                         : state_bytes(setup));
    int64_t n_options = setup->model->rule.n_options;
    status = choose_device(backend, setup->place);
    if (status == QR_OK && setup->n_frames > 0) {
        status = qr_cuda_plan_frames(backend, setup);
    }
    if (status == QR_OK) {
        status = allocate_pinned(1, sizeof *backend->control, (void **)&backend->control);
    }
    if (status == QR_OK) {
        status = allocate_pinned(2 * n_options, 8, (void **)&backend->handed_out);
    }
    if (status == QR_OK) {
        status = allocate_pinned(QR_DEVICE_ROWS * n_options, 8, (void **)&backend->row_votes);
    }
    if (status == QR_OK) {
        status = allocate_pinned(QR_DEVICE_ROWS, 8, (void **)&backend->row_leaders);
    }
    if (status == QR_OK) {
        status = qr_cuda_make_part(backend, setup->file_votes);
    }
    if (status == QR_OK) {
        status = qr_cuda_make_halo(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_make_overlap(backend, setup->overlap_agents);
    }
    if (status == QR_OK) {
        status = qr_cuda_prepare_resident(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_wait(backend);
    }
    if (status == QR_OK) {
        status = qr_cuda_measure_copy(backend);
    }
    if (status == QR_OK && backend->frames != NULL) {
        status = qr_cuda_make_frames(backend); /* after all else: they take most of the memory */
    }
    if (status != QR_OK) {
        cuda_destroy(backend);
        return status;
    }
    describe(backend);
    backend->bytes_per_step = cuda_bytes_per_step(backend);
    *out = backend;
    return QR_OK;
}

/* A byte a vote in messages. */
static int64_t cuda_halo_bytes(const qr_backend *backend, int64_t n_votes)
{
    (void)backend;
    return n_votes;
}

static qr_status fetch(qr_backend *backend, void *out, const void *from, size_t bytes, const char *what)
{
    const unsigned char *registered = backend->registered;
    bool pinned = registered != NULL && (unsigned char *)out >= registered &&
                  (unsigned char *)out + bytes <= registered + backend->registered_bytes;
    /* A copy to pageable memory waits for what stands before it, too, but for ever. */
    qr_status status = pinned ? QR_OK : qr_cuda_wait(backend);
    return status == QR_OK
               ? qr_cuda_check(cudaMemcpyAsync(out, from, bytes, cudaMemcpyDeviceToHost, backend->stream), what)
               : status;
}

/* Enqueues; the staging buffer is taken again as soon as the stream has emptied it. */
static qr_status fetch_votes(qr_backend *backend, int64_t first, int64_t count, uint8_t *out)
{
    qr_status status = qr_cuda_check_lost(backend);
    for (int64_t at = 0; at < count && status == QR_OK; at += QR_DEVICE_STAGING) {
        int64_t n = count - at < QR_DEVICE_STAGING ? count - at : QR_DEVICE_STAGING;
        qr_launch_load(&backend->part, first + at, n, backend->staging, backend->stream);
        status = fetch(backend, out + at, backend->staging, (size_t)n, "reading votes");
    }
    return status;
}

static qr_status fetch_state(qr_backend *backend, int64_t first, int64_t count, float *out)
{
    size_t dim = (size_t)backend->model->state_dim;
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK && backend->frames != NULL) {
        status = qr_error(QR_INTERNAL, "states in frames were asked for as a whole");
    }
    if (status != QR_OK || dim == 0 || count == 0) {
        return status;
    }
    return fetch(backend, out, backend->part.state + (size_t)first * dim, (size_t)count * dim * sizeof(float),
                 "reading states");
}

static qr_status cuda_read_votes(qr_backend *backend, int64_t first, int64_t count, uint8_t *out)
{
    qr_status status = fetch_votes(backend, first, count, out);
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

static qr_status cuda_read_state(qr_backend *backend, int64_t first, int64_t count, float *out)
{
    qr_status status = fetch_state(backend, first, count, out);
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

/* How many pieces from the first on lie one behind the other, in the part as in the caller's memory; *whole: all of
 * them as one. */
static int64_t join_pieces(const qr_backend *backend, const qr_piece *pieces, int64_t n, qr_piece *whole)
{
    const int64_t agent_bytes = pieces[0].states ? backend->model->state_dim * (int64_t)sizeof(float) : 1;
    int64_t joined = 1;
    *whole = pieces[0];
    while (joined < n && pieces[joined].states == whole->states &&
           pieces[joined].first == whole->first + whole->count &&
           (uint8_t *)pieces[joined].out == (uint8_t *)whole->out + whole->count * agent_bytes) {
        whole->count += pieces[joined++].count;
    }
    return joined;
}

/* One wait for all of it, and one copy for all that can go together. */
static qr_status cuda_copy_out(qr_backend *backend, const qr_piece *pieces, int64_t n)
{
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK;) {
        qr_piece piece;
        i += join_pieces(backend, pieces + i, n - i, &piece);
        status = piece.states ? fetch_state(backend, piece.first, piece.count, piece.out)
                              : fetch_votes(backend, piece.first, piece.count, piece.out);
    }
    qr_status waited = qr_cuda_wait(backend);
    return status == QR_OK ? waited : status;
}

static qr_status cuda_write_votes(qr_backend *backend, int64_t first, int64_t count, const uint8_t *votes)
{
    qr_status status = qr_cuda_wait(backend);
    backend->is_up_to_date = false;
    for (int64_t at = 0; at < count && status == QR_OK; at += QR_DEVICE_STAGING) {
        int64_t n = count - at < QR_DEVICE_STAGING ? count - at : QR_DEVICE_STAGING;
        status = qr_cuda_check(
            cudaMemcpyAsync(backend->staging, votes + at, (size_t)n, cudaMemcpyHostToDevice, backend->stream),
            "writing votes");
        if (status == QR_OK) {
            qr_launch_store(&backend->part, first + at, n, backend->staging, backend->stream);
            status = qr_cuda_wait(backend);
        }
    }
    return status;
}

static qr_status cuda_write_state(qr_backend *backend, int64_t first, int64_t count, const float *state)
{
    size_t dim = (size_t)backend->model->state_dim;
    backend->is_up_to_date = false;
    if (backend->frames != NULL) {
        return qr_error(QR_INTERNAL, "states in frames were written as a whole");
    }
    if (dim == 0 || count == 0) {
        return QR_OK;
    }
    qr_status status = qr_cuda_wait(backend);
    if (status == QR_OK) {
        status =
            qr_cuda_check(cudaMemcpyAsync(backend->part.state + (size_t)first * dim, state,
                                          (size_t)count * dim * sizeof(float), cudaMemcpyHostToDevice, backend->stream),
                          "writing states");
    }
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

static void cuda_register_memory(qr_backend *backend, void *memory, size_t bytes)
{
    if (backend->registered == NULL && cudaHostRegister(memory, bytes, cudaHostRegisterDefault) == cudaSuccess) {
        backend->registered = memory;
        backend->registered_bytes = bytes;
    }
    (void)cudaGetLastError(); /* not to be taken for the next call's */
}

static void cuda_device_id(const qr_backend *backend, void *out)
{
    memcpy(out, backend->device_id, QR_DEVICE_ID_BYTES);
}

static const char *cuda_describe(const qr_backend *backend)
{
    return backend->description;
}

static bool cuda_is_fast(const qr_backend *backend)
{
    return backend->part.fast_weights != NULL;
}

static void cuda_counters(const qr_backend *backend, qr_counters *out)
{
    *out = backend->counters;
}

static bool cuda_runs_alone(const qr_backend *backend)
{
    return backend->frames == NULL && (backend->n_parts == 1 || backend->nccl != NULL);
}

#if defined(QUORATE_NCCL)
#define QR_CUDA_MAKE_ID qr_nccl_make_id
#define QR_CUDA_JOIN    qr_cuda_join
#else /* built without NCCL: parts talk through the host */
#define QR_CUDA_MAKE_ID NULL
#define QR_CUDA_JOIN    NULL
#endif

const qr_backend_ops qr_backend_ops_cuda = {.name = "cuda",
                                            .create = cuda_create,
                                            .destroy = cuda_destroy,
                                            .bytes_estimate = qr_cuda_bytes_estimate,
                                            .halo_bytes = cuda_halo_bytes,
                                            .halo_pack = qr_cuda_halo_pack,
                                            .halo_place = qr_cuda_halo_place,
                                            .halo_buffers = qr_cuda_halo_buffers,
                                            .count = qr_cuda_count,
                                            .begin_update = qr_cuda_begin_update,
                                            .update = qr_cuda_update,
                                            .make_join_id = QR_CUDA_MAKE_ID,
                                            .join = QR_CUDA_JOIN,
                                            .device_id = cuda_device_id,
                                            .device_address = cuda_device_address,
                                            .runs_alone = cuda_runs_alone,
                                            .run = qr_cuda_run,
                                            .read_votes = cuda_read_votes,
                                            .read_state = cuda_read_state,
                                            .copy_out = cuda_copy_out,
                                            .write_votes = cuda_write_votes,
                                            .write_state = cuda_write_state,
                                            .register_memory = cuda_register_memory,
                                            .bytes_per_step = cuda_bytes_per_step,
                                            .is_fast = cuda_is_fast,
                                            .counters = cuda_counters,
                                            .describe = cuda_describe,
                                            .frames = &qr_cuda_frame_ops};
