/* Parts joined by NCCL: halo votes and tallies travel between devices without the host. */
#include "backend/cuda/cuda.h"

#include "base/memory.h"
#include "base/timer.h"

#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct qr_nccl {
    ncclComm_t comm;
    int device;
};

/* Connecting many ranks takes seconds, whatever the patience with a device that computes. */
static const double least_connect_patience_s = 60.0;
static const double abort_patience_s = 3.0;

_Static_assert(sizeof(ncclUniqueId) <= QR_JOIN_BYTES, "QR_JOIN_BYTES is too small for NCCL's id");

static qr_status check(ncclResult_t result, const char *what)
{
    if (result == ncclSuccess) {
        return QR_OK;
    }
    const char *detail = ncclGetLastError(NULL);
    /* The rank on which it happened knows more: that one's message is the job's. */
    return qr_error(result == ncclRemoteError ? QR_TRANSIENT : QR_DEVICE, "NCCL: %s: %s%s%s", what,
                    ncclGetErrorString(result), detail != NULL && detail[0] != '\0' ? ": " : "",
                    detail != NULL ? detail : "");
}

/* Unless the user says otherwise: multicast between GPUs must not be touched on hosts that others share, and windows
 * bring kernels that may race with the one before them on sm_90 (2.28.3 to 2.30.4). Tallies are too small to gain from
 * either. */
static void set_defaults(void)
{
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    (void)setenv("NCCL_WIN_ENABLE", "0", 0);
}

qr_status qr_nccl_make_id(void *id)
{
    ncclUniqueId unique;
    set_defaults();
    qr_status status = check(ncclGetUniqueId(&unique), "making an id");
    if (status == QR_OK) {
        memcpy(id, &unique, sizeof unique);
    }
    return status;
}

/* One exchange of everything that steps exchange, outside any graph: the first of its kind sets up connections. */
static qr_status warm_up(qr_backend *backend)
{
    qr_nccl_pack(backend);
    qr_status status = qr_nccl_halo(backend);
    if (status == QR_OK) {
        status = qr_nccl_gather(backend);
    }
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

/* A call of NCCL that may wait for other ranks without a bound, in a thread of its own: nobody waits longer for it than
 * they want to. Freed by whoever is the second to be done with it. */
typedef struct nccl_call {
    ncclComm_t comm;
    bool joins; /* or else aborts */
    int device;
    int n_parts;
    int part;
    ncclUniqueId id;
    ncclResult_t result;
    atomic_int done; /* parties: the thread, the one who waits */
} nccl_call;

static void leave(nccl_call *call)
{
    if (atomic_fetch_add(&call->done, 1) == 1) {
        free(call);
    }
}

static void *carry_out(void *context)
{
    nccl_call *call = context;
    (void)cudaSetDevice(call->device);
    call->result =
        call->joins ? ncclCommInitRank(&call->comm, call->n_parts, call->id, call->part) : ncclCommAbort(call->comm);
    leave(call);
    return NULL;
}

/* False when the call is not back after patience_s; it is on its own then. Otherwise *call is the caller's to leave().
 */
static bool is_back(nccl_call *call, double patience_s)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, carry_out, call) != 0) {
        call->result = ncclSystemError;
        (void)atomic_fetch_add(&call->done, 1);
        return true;
    }
    (void)pthread_detach(thread);
    for (double since = qr_now_s(); atomic_load(&call->done) == 0;) {
        const struct timespec moment = {.tv_nsec = 200000};
        (void)nanosleep(&moment, NULL);
        if (qr_now_s() - since > patience_s) {
            leave(call);
            return false;
        }
    }
    return true;
}

static qr_status connect(qr_backend *backend, int n_parts, int part, const void *id, ncclComm_t *comm)
{
    nccl_call *call = NULL;
    qr_status status = qr_allocate(1, sizeof *call, "NCCL", (void **)&call);
    if (status != QR_OK) {
        return status;
    }
    call->joins = true;
    call->device = backend->device;
    call->n_parts = n_parts;
    call->part = part;
    memcpy(&call->id, id, sizeof call->id);
    set_defaults();
    double patience_s = backend->timeout_s > least_connect_patience_s ? backend->timeout_s : least_connect_patience_s;
    if (!is_back(call, patience_s)) {
        backend->is_lost = true;
        return qr_error(QR_DEVICE,
                        "NCCL has not connected the ranks within %.3g s; NCCL_DEBUG=INFO tells what "
                        "it waits for, and comm.exchange: mpi-host does without it",
                        patience_s);
    }
    status = check(call->result, "joining the ranks");
    *comm = call->comm;
    leave(call);
    return status;
}

qr_status qr_cuda_join(qr_backend *backend, int n_parts, int part, const void *id)
{
    qr_nccl *nccl = NULL;
    void *gathered = NULL;
    qr_status status =
        qr_cuda_allocate(backend, 2 * (int64_t)n_parts * backend->part.rule.n_options, 8, "tallies", &gathered);
    if (status == QR_OK) {
        status = qr_allocate(1, sizeof *nccl, "NCCL", (void **)&nccl);
    }
    if (status == QR_OK) {
        nccl->device = backend->device;
        status = connect(backend, n_parts, part, id, &nccl->comm);
    }
    if (status != QR_OK) {
        free(nccl);
        return status;
    }
    backend->nccl = nccl;
    backend->part.gathered = gathered;
    backend->part.n_parts = n_parts;
    backend->part.decides = 0;
    backend->resident = false; /* of a single part: what it would send itself travels as between several */
    return warm_up(backend);
}

bool qr_nccl_destroy(qr_nccl *nccl)
{
    nccl_call *call = NULL;
    bool back = true;
    if (nccl == NULL) {
        return true;
    }
    /* At the end nothing is in flight, and an abort, unlike an orderly end, waits for nobody. */
    if (qr_allocate(1, sizeof *call, "NCCL", (void **)&call) == QR_OK) {
        call->comm = nccl->comm;
        call->device = nccl->device;
        back = is_back(call, abort_patience_s);
        if (back) {
            leave(call);
        }
    }
    free(nccl);
    return back;
}

qr_status qr_nccl_check(qr_backend *backend)
{
    ncclResult_t state = ncclSuccess;
    qr_status status = check(ncclCommGetAsyncError(backend->nccl->comm, &state), "watching the ranks");
    if (status == QR_OK && backend->link_fails) {
        state = ncclSystemError;
    }
    return status == QR_OK ? check(state, "a link between ranks failed") : status;
}

/* Votes of several parts travel; those of a single one would not have to, but may. */
static bool travels(const qr_backend *backend, const qr_cuda_peer *peer)
{
    return peer->peer != backend->network->part || backend->n_parts == 1;
}

void qr_nccl_pack(qr_backend *backend)
{
    for (int i = 0; i < backend->network->halo.n_peers; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        if (travels(backend, peer)) {
            qr_launch_copy(&backend->part, QR_COPY_OUT, peer->out, peer->n_out, peer->out_votes, peer->send,
                           backend->stream);
        }
    }
}

qr_status qr_nccl_halo(qr_backend *backend)
{
    const qr_part *part = &backend->part;
    int n_peers = backend->network->halo.n_peers;
    qr_status status = check(ncclGroupStart(), "halo exchange");
    for (int i = 0; i < n_peers && status == QR_OK; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        int64_t received = backend->network->halo.peers[i].recv_count;
        if (travels(backend, peer) && peer->out_votes > 0) {
            status = check(ncclSend(peer->send, (size_t)peer->out_votes, ncclUint8, peer->peer, backend->nccl->comm,
                                    backend->stream),
                           "halo exchange");
        }
        if (status == QR_OK && travels(backend, peer) && received > 0) {
            status = check(
                ncclRecv(peer->receive, (size_t)received, ncclUint8, peer->peer, backend->nccl->comm, backend->stream),
                "halo exchange");
        }
    }
    qr_status ended = check(ncclGroupEnd(), "halo exchange");
    status = status == QR_OK ? ended : status;
    for (int i = 0; i < n_peers; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        if (travels(backend, peer)) {
            qr_launch_copy(part, QR_COPY_IN, peer->in, peer->n_in, peer->in_votes, peer->receive, backend->stream);
        }
    }
    return status;
}

qr_status qr_nccl_gather(qr_backend *backend)
{
    size_t count = 2 * (size_t)backend->part.rule.n_options;
    return check(ncclAllGather(backend->handed_in, (void *)(uintptr_t)backend->part.gathered, count, ncclInt64,
                               backend->nccl->comm, backend->stream),
                 "gathering tallies");
}
