/* Parts joined by NCCL: halo votes and tallies travel between devices without the host. */
#include "backend/cuda/cuda.h"

#include "base/memory.h"

#include <nccl.h>
#include <stdlib.h>
#include <string.h>

struct qr_nccl {
    ncclComm_t comm;
};

_Static_assert(sizeof(ncclUniqueId) <= QR_JOIN_BYTES, "QR_JOIN_BYTES is too small for NCCL's id");

static qr_status check(ncclResult_t result, const char *what)
{
    if (result == ncclSuccess) {
        return QR_OK;
    }
    const char *detail = ncclGetLastError(NULL);
    return qr_error(QR_DEVICE, "NCCL: %s: %s%s%s", what, ncclGetErrorString(result),
                    detail != NULL && detail[0] != '\0' ? ": " : "", detail != NULL ? detail : "");
}

qr_status qr_nccl_make_id(void *id)
{
    ncclUniqueId unique;
    qr_status status = check(ncclGetUniqueId(&unique), "making an id");
    if (status == QR_OK) {
        memcpy(id, &unique, sizeof unique);
    }
    return status;
}

/* One exchange of everything that steps exchange, outside any graph: the first of its kind sets up connections. */
static qr_status warm_up(qr_backend *backend)
{
    qr_status status = qr_nccl_halo(backend);
    if (status == QR_OK) {
        status = qr_nccl_gather(backend);
    }
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

qr_status qr_cuda_join(qr_backend *backend, int n_parts, int part, const void *id)
{
    qr_nccl *nccl = NULL;
    ncclUniqueId unique;
    memcpy(&unique, id, sizeof unique);
    qr_status status = qr_allocate(1, sizeof *nccl, "NCCL", (void **)&nccl);
    if (status != QR_OK) {
        return status;
    }
    status = check(ncclCommInitRank(&nccl->comm, n_parts, unique, part), "joining the ranks");
    void *gathered = NULL;
    if (status == QR_OK) {
        status =
            qr_cuda_allocate(backend, 2 * (int64_t)n_parts * backend->part.rule.n_options, 8, "tallies", &gathered);
    }
    if (status != QR_OK) {
        qr_nccl_destroy(nccl);
        return status;
    }
    backend->nccl = nccl;
    backend->part.gathered = gathered;
    backend->part.n_parts = n_parts;
    backend->part.decides = 0;
    return warm_up(backend);
}

void qr_nccl_destroy(qr_nccl *nccl)
{
    if (nccl != NULL) {
        if (nccl->comm != NULL) {
            (void)ncclCommAbort(nccl->comm); /* at the end nothing is in flight, and this waits for nobody */
        }
        free(nccl);
    }
}

qr_status qr_nccl_check(qr_backend *backend)
{
    ncclResult_t state = ncclSuccess;
    qr_status status = check(ncclCommGetAsyncError(backend->nccl->comm, &state), "watching the ranks");
    status = status == QR_OK ? check(state, "another rank or the link to it failed") : status;
    if (status != QR_OK) {
        (void)ncclCommAbort(backend->nccl->comm);
        backend->nccl->comm = NULL;
    }
    return status;
}

qr_status qr_nccl_halo(qr_backend *backend)
{
    const qr_part *part = &backend->part;
    int n_peers = backend->network->halo.n_peers;
    int own = backend->network->part;
    qr_status status = QR_OK;
    for (int i = 0; i < n_peers; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        if (peer->peer != own) {
            qr_launch_copy(part, QR_COPY_OUT, peer->out, peer->n_out, peer->out_votes, peer->send, backend->stream);
        }
    }
    status = check(ncclGroupStart(), "halo exchange");
    for (int i = 0; i < n_peers && status == QR_OK; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        int64_t received = backend->network->halo.peers[i].recv_count;
        if (peer->peer != own && peer->out_votes > 0) {
            status = check(ncclSend(peer->send, (size_t)peer->out_votes, ncclUint8, peer->peer, backend->nccl->comm,
                                    backend->stream),
                           "halo exchange");
        }
        if (status == QR_OK && peer->peer != own && received > 0) {
            status = check(
                ncclRecv(peer->receive, (size_t)received, ncclUint8, peer->peer, backend->nccl->comm, backend->stream),
                "halo exchange");
        }
    }
    qr_status ended = check(ncclGroupEnd(), "halo exchange");
    status = status == QR_OK ? ended : status;
    for (int i = 0; i < n_peers; i++) {
        const qr_cuda_peer *peer = &backend->peers[i];
        if (peer->peer != own) {
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
