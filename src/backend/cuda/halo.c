/* Halo votes as lists of copies. Within the own part they go straight from one place of the view to another. */
#include "backend/cuda/cuda.h"

#include "base/memory.h"

#include <stdlib.h>

/* Copies from the view to a message, in the order in which votes are sent. */
static qr_status make_out(qr_backend *backend, const qr_halo_peer *peer, qr_cuda_peer *out)
{
    qr_copy *copies = NULL;
    qr_status status = qr_allocate((size_t)peer->n_send, sizeof *copies, "halo lists", (void **)&copies);
    int64_t sent = 0;
    for (int64_t r = 0; status == QR_OK && r < peer->n_send; r++) {
        copies[r] = (qr_copy){.from = backend->network->before + peer->send[r].start,
                              .to = sent,
                              .count = peer->send[r].count,
                              .first = sent};
        sent += peer->send[r].count;
    }
    if (status == QR_OK) {
        status = qr_cuda_upload(backend, copies, peer->n_send, sizeof *copies, "halo lists", (void **)&out->out);
    }
    free(copies);
    out->n_out = peer->n_send;
    out->out_votes = sent;
    return status;
}

/* Copies from a message to the view. */
static qr_status make_in(qr_backend *backend, const qr_halo_peer *peer, qr_cuda_peer *out)
{
    qr_copy *copies = NULL;
    qr_status status = qr_allocate((size_t)peer->n_place, sizeof *copies, "halo lists", (void **)&copies);
    int64_t placed = 0;
    for (int64_t p = 0; status == QR_OK && p < peer->n_place; p++) {
        const qr_place *place = &peer->place[p];
        copies[p] = (qr_copy){.from = place->from, .to = place->to, .count = place->count, .first = placed};
        placed += place->count;
    }
    if (status == QR_OK) {
        status = qr_cuda_upload(backend, copies, peer->n_place, sizeof *copies, "halo lists", (void **)&out->in);
    }
    free(copies);
    out->n_in = peer->n_place;
    out->in_votes = placed;
    return status;
}

/* A message to oneself without the message: every piece of a place that comes from one run. */
static qr_status make_within(qr_backend *backend, const qr_halo_peer *peer)
{
    void *list = NULL;
    size_t capacity = 0;
    int64_t n = 0;
    int64_t votes = 0;
    for (int64_t p = 0; p < peer->n_place; p++) {
        const qr_place *place = &peer->place[p];
        int64_t run_first = 0; /* in the message */
        for (int64_t r = 0; r < peer->n_send; r++) {
            const qr_run *run = &peer->send[r];
            int64_t begin = place->from > run_first ? place->from : run_first;
            int64_t place_end = place->from + place->count;
            int64_t end = place_end < run_first + run->count ? place_end : run_first + run->count;
            if (begin < end) {
                qr_status status = qr_grow(&list, &capacity, (size_t)n + 1, sizeof(qr_copy), "halo lists");
                if (status != QR_OK) {
                    free(list);
                    return status;
                }
                ((qr_copy *)list)[n++] = (qr_copy){.from = backend->network->before + run->start + begin - run_first,
                                                   .to = place->to + begin - place->from,
                                                   .count = end - begin,
                                                   .first = votes};
                votes += end - begin;
            }
            run_first += run->count;
        }
    }
    qr_status status = qr_cuda_upload(backend, list, n, sizeof(qr_copy), "halo lists", (void **)&backend->within);
    free(list);
    backend->n_within = n;
    backend->within_votes = votes;
    return status;
}

qr_status qr_cuda_make_halo(qr_backend *backend)
{
    const qr_halo *halo = &backend->network->halo;
    qr_status status =
        qr_allocate((size_t)halo->n_peers, sizeof *backend->peers, "halo lists", (void **)&backend->peers);
    for (int i = 0; i < halo->n_peers && status == QR_OK; i++) {
        const qr_halo_peer *peer = &halo->peers[i];
        qr_cuda_peer *mine = &backend->peers[i];
        mine->peer = peer->peer;
        status = make_out(backend, peer, mine);
        if (status == QR_OK) {
            status = make_in(backend, peer, mine);
        }
        if (status == QR_OK && peer->peer == backend->network->part) {
            status = make_within(backend, peer);
        }
        if (status == QR_OK) {
            status = qr_cuda_allocate(backend, peer->send_count, 1, "halo messages", (void **)&mine->send);
        }
        if (status == QR_OK) {
            status = qr_cuda_allocate(backend, peer->recv_count, 1, "halo messages", (void **)&mine->receive);
        }
    }
    return status;
}

static qr_cuda_peer *find_peer(qr_backend *backend, const qr_halo_peer *peer)
{
    return &backend->peers[peer - backend->network->halo.peers];
}

static qr_status make_pinned(int64_t bytes, void **out)
{
    if (*out != NULL || bytes == 0) {
        return QR_OK;
    }
    return qr_cuda_check(cudaHostAlloc(out, (size_t)bytes, cudaHostAllocDefault), "pinned memory for halo messages");
}

qr_status qr_cuda_halo_buffers(qr_backend *backend, const qr_halo_peer *peer, bool on_device, void **send,
                               void **receive)
{
    qr_cuda_peer *mine = find_peer(backend, peer);
    qr_status status = QR_OK;
    if (!on_device) {
        status = make_pinned(peer->send_count, &mine->host_send);
        if (status == QR_OK) {
            status = make_pinned(peer->recv_count, &mine->host_receive);
        }
    }
    if (status == QR_OK) {
        *send = on_device ? mine->send : mine->host_send;
        *receive = on_device ? mine->receive : mine->host_receive;
    }
    return status;
}

/* A message in memory that is not pinned is copied once the device is through, for such a copy waits without a bound.
 */
static bool is_own(const qr_cuda_peer *mine, const void *message)
{
    return message == mine->send || message == mine->receive || message == mine->host_send ||
           message == mine->host_receive;
}

qr_status qr_cuda_halo_pack(qr_backend *backend, const qr_halo_peer *peer, void *message)
{
    qr_cuda_peer *mine = find_peer(backend, peer);
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK) {
        status = qr_cuda_begin_work(backend);
    }
    if (status != QR_OK) {
        return status;
    }
    qr_launch_copy(&backend->part, QR_COPY_OUT, mine->out, mine->n_out, mine->out_votes, mine->send, backend->stream);
    if (!is_own(mine, message)) {
        status = qr_cuda_wait(backend);
    }
    if (status == QR_OK && message != mine->send && mine->out_votes > 0) {
        status = qr_cuda_check(
            cudaMemcpyAsync(message, mine->send, (size_t)mine->out_votes, cudaMemcpyDefault, backend->stream),
            "reading halo votes");
    }
    return status == QR_OK ? qr_cuda_finish_work(backend, &backend->counters.halo_s) : status;
}

qr_status qr_cuda_halo_place(qr_backend *backend, const qr_halo_peer *peer, const void *message)
{
    qr_cuda_peer *mine = find_peer(backend, peer);
    qr_status status = qr_cuda_check_lost(backend);
    bool hidden = qr_cuda_works_inside(backend);
    if (status == QR_OK) {
        status = qr_cuda_begin_work(backend);
    }
    if (status == QR_OK && message != mine->receive && peer->recv_count > 0) {
        status = qr_cuda_check(
            cudaMemcpyAsync(mine->receive, message, (size_t)peer->recv_count, cudaMemcpyDefault, backend->stream),
            "writing halo votes");
    }
    if (status != QR_OK) {
        return status;
    }
    qr_launch_copy(&backend->part, QR_COPY_IN, mine->in, mine->n_in, mine->in_votes, mine->receive, backend->stream);
    /* Beside an update it costs nothing, and its time is part of that. */
    return hidden ? qr_cuda_wait(backend) : qr_cuda_finish_work(backend, &backend->counters.halo_s);
}
