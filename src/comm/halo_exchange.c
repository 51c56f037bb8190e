#include "comm/comm.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#if defined(OPEN_MPI)
#include <mpi-ext.h>
#endif

enum { TAG_HALO = 12, MAX_MESSAGE_BYTES = 1 << 30 };

struct qr_halo_exchange {
    qr_comm *comm;
    const qr_network *network;
    const qr_backend_ops *ops;
    qr_backend *backend;
    bool on_device;
    bool owned;           /* buffers */
    unsigned char **send; /* [n_peers] */
    unsigned char **recv; /* [n_peers] */
    unsigned char *spare; /* on_device: for messages that come after a failure; nobody reads them */
    int64_t *send_bytes;
    int64_t *recv_bytes;
    MPI_Request *requests;
    int n_requests;
    int max_requests;
    bool away; /* MPI keeps away from the device's memory */
    int64_t bytes_sent;
};

bool qr_comm_takes_device_memory(void)
{
#if defined(OMPI_HAVE_MPI_EXT_CUDA) && OMPI_HAVE_MPI_EXT_CUDA
    return MPIX_Query_cuda_support() == 1;
#else
    return false;
#endif
}

static int pieces_of(int64_t bytes)
{
    return (int)((bytes + MAX_MESSAGE_BYTES - 1) / MAX_MESSAGE_BYTES);
}

void qr_halo_exchange_destroy(qr_halo_exchange *exchange)
{
    if (exchange == NULL) {
        return;
    }
    for (int i = 0; i < exchange->network->halo.n_peers; i++) {
        if (exchange->owned && exchange->send != NULL) {
            free(exchange->send[i]);
        }
        if (exchange->owned && exchange->recv != NULL) {
            free(exchange->recv[i]);
        }
    }
    free(exchange->spare);
    free(exchange->send);
    free(exchange->recv);
    free(exchange->send_bytes);
    free(exchange->recv_bytes);
    free(exchange->requests);
    free(exchange);
}

/* The backend's buffers, or plain memory: a word more than the message, because bits are copied a word at a time. */
static qr_status make_pair(qr_halo_exchange *exchange, int i)
{
    const qr_halo_peer *peer = &exchange->network->halo.peers[i];
    void *send = NULL;
    void *recv = NULL;
    qr_status status = QR_OK;
    if (!exchange->owned) {
        status = exchange->ops->halo_buffers(exchange->backend, peer, exchange->on_device, &send, &recv);
    } else {
        status = qr_allocate((size_t)exchange->send_bytes[i] + 8, 1, "halo message", &send);
        if (status == QR_OK && peer->peer != exchange->comm->me.part) {
            status = qr_allocate((size_t)exchange->recv_bytes[i] + 8, 1, "halo message", &recv);
        }
    }
    exchange->send[i] = send;
    exchange->recv[i] = recv;
    return status;
}

static qr_status make_buffers(qr_halo_exchange *exchange)
{
    const qr_halo *halo = &exchange->network->halo;
    int64_t largest = 0;
    for (int i = 0; i < halo->n_peers; i++) {
        const qr_halo_peer *peer = &halo->peers[i];
        exchange->send_bytes[i] = exchange->ops->halo_bytes(exchange->backend, peer->send_count);
        exchange->recv_bytes[i] = exchange->ops->halo_bytes(exchange->backend, peer->recv_count);
        qr_status status = make_pair(exchange, i);
        if (status != QR_OK) {
            return status;
        }
        exchange->bytes_sent += peer->peer != exchange->comm->me.part ? exchange->send_bytes[i] : 0;
        exchange->max_requests += pieces_of(exchange->send_bytes[i]) + pieces_of(exchange->recv_bytes[i]);
        largest = exchange->recv_bytes[i] > largest ? exchange->recv_bytes[i] : largest;
    }
    if (exchange->on_device) {
        qr_status status = qr_allocate((size_t)largest, 1, "halo message", (void **)&exchange->spare);
        if (status != QR_OK) {
            return status;
        }
    }
    return qr_allocate((size_t)exchange->max_requests, sizeof(MPI_Request), "halo requests",
                       (void **)&exchange->requests);
}

qr_status qr_halo_exchange_create(qr_comm *comm, const qr_network *network, const qr_backend_ops *ops,
                                  qr_backend *backend, bool device_messages, qr_halo_exchange **out)
{
    qr_halo_exchange *exchange = NULL;
    size_t n = (size_t)network->halo.n_peers;
    qr_status status = qr_allocate(1, sizeof *exchange, "halo exchange", (void **)&exchange);
    if (status != QR_OK) {
        return status;
    }
    exchange->comm = comm;
    exchange->network = network;
    exchange->ops = ops;
    exchange->backend = backend;
    exchange->on_device = device_messages;
    exchange->owned = ops->halo_buffers == NULL;
    status = qr_allocate(n, sizeof(void *), "halo exchange", (void **)&exchange->send);
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(void *), "halo exchange", (void **)&exchange->recv);
    }
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(int64_t), "halo exchange", (void **)&exchange->send_bytes);
    }
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(int64_t), "halo exchange", (void **)&exchange->recv_bytes);
    }
    if (status == QR_OK) {
        status = make_buffers(exchange);
    }
    if (status != QR_OK) {
        qr_halo_exchange_destroy(exchange);
        return status;
    }
    *out = exchange;
    return QR_OK;
}

static void start(qr_halo_exchange *exchange, bool send, unsigned char *buffer, int64_t bytes, bool empty, int peer)
{
    for (int64_t done = 0; done < bytes; done += MAX_MESSAGE_BYTES) {
        int now = (int)(bytes - done < MAX_MESSAGE_BYTES ? bytes - done : MAX_MESSAGE_BYTES);
        MPI_Request *request = &exchange->requests[exchange->n_requests++];
        if (send) {
            MPI_Isend(empty ? NULL : buffer + done, empty ? 0 : now, MPI_BYTE, peer, TAG_HALO, exchange->comm->compute,
                      request);
        } else {
            MPI_Irecv(buffer + done, now, MPI_BYTE, peer, TAG_HALO, exchange->comm->compute, request);
        }
    }
}

static qr_status pack_all(qr_halo_exchange *exchange)
{
    const qr_halo *halo = &exchange->network->halo;
    qr_status status = QR_OK;
    for (int i = 0; i < halo->n_peers && status == QR_OK; i++) {
        status = exchange->ops->halo_pack(exchange->backend, &halo->peers[i], exchange->send[i]);
    }
    return status;
}

/* Every message that the others wait for is sent, also after a failure: an empty one where MPI must keep away from a
 * device that failed, while theirs go to plain memory. */
qr_status qr_halo_exchange_start(qr_halo_exchange *exchange)
{
    const qr_halo *halo = &exchange->network->halo;
    int self = exchange->comm->me.part;
    qr_status status = QR_OK;
    exchange->n_requests = 0;
    if (exchange->on_device) {
        status = pack_all(exchange);
    }
    bool away = exchange->on_device && status != QR_OK;
    exchange->away = away;
    for (int i = 0; i < halo->n_peers; i++) {
        if (halo->peers[i].peer != self) {
            start(exchange, false, away ? exchange->spare : exchange->recv[i], exchange->recv_bytes[i], false,
                  halo->peers[i].peer);
        }
    }
    for (int i = 0; i < halo->n_peers; i++) {
        if (!exchange->on_device) { /* one after the other: the first is under way while the next is packed */
            qr_status packed = exchange->ops->halo_pack(exchange->backend, &halo->peers[i], exchange->send[i]);
            status = status == QR_OK ? packed : status;
        }
        if (halo->peers[i].peer != self) {
            start(exchange, true, exchange->send[i], exchange->send_bytes[i], away, halo->peers[i].peer);
        }
    }
    return status;
}

qr_status qr_halo_exchange_finish(qr_halo_exchange *exchange)
{
    const qr_halo *halo = &exchange->network->halo;
    int self = exchange->comm->me.part;
    qr_status status = QR_OK;
    MPI_Waitall(exchange->n_requests, exchange->requests, MPI_STATUSES_IGNORE);
    for (int i = 0; i < halo->n_peers && !exchange->away; i++) {
        const unsigned char *message = halo->peers[i].peer == self ? exchange->send[i] : exchange->recv[i];
        qr_status placed = exchange->ops->halo_place(exchange->backend, &halo->peers[i], message);
        status = status == QR_OK ? placed : status;
    }
    return status;
}

int64_t qr_halo_exchange_bytes(const qr_halo_exchange *exchange)
{
    return exchange->bytes_sent;
}
