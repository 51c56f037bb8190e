/* Bulk moves at set-up time: edges between parts, shares of a file from rank 0 to everybody. */
#include "comm/comm.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { MESSAGE_ITEMS = 1 << 24, TAG_ITEMS = 11 };

/* Requests in flight. Room for all of them is made before the ranks agree to begin: from there on nothing may fail, for
 * the other ranks wait for every message. */
typedef struct request_list {
    MPI_Request *items;
    int64_t n;
} request_list;

static int64_t messages_of(int64_t n_items)
{
    return (n_items + MESSAGE_ITEMS - 1) / MESSAGE_ITEMS;
}

static qr_status make_room(request_list *list, int64_t n_messages)
{
    return qr_allocate((size_t)n_messages, sizeof(MPI_Request), "requests", (void **)&list->items);
}

/* Starts sending (or receiving) count items in messages of bounded size. */
static void start_items(request_list *list, bool send, void *items, int64_t count, size_t item_bytes, MPI_Datatype type,
                        int peer, MPI_Comm group)
{
    for (int64_t done = 0; done < count; done += MESSAGE_ITEMS) {
        int now = (int)(count - done < MESSAGE_ITEMS ? count - done : MESSAGE_ITEMS);
        unsigned char *at = (unsigned char *)items + (size_t)done * item_bytes;
        MPI_Request *request = &list->items[list->n++];
        if (send) {
            MPI_Isend(at, now, type, peer, TAG_ITEMS, group, request);
        } else {
            MPI_Irecv(at, now, type, peer, TAG_ITEMS, group, request);
        }
    }
}

static void wait_all(request_list *list)
{
    for (int64_t i = 0; i < list->n; i++) {
        MPI_Wait(&list->items[i], MPI_STATUS_IGNORE);
    }
}

static qr_status exchange_edges(void *context, const qr_edge *send, const int64_t *counts, qr_edge **recv,
                                int64_t *n_recv)
{
    qr_comm *comm = context;
    int n_parts = comm->n_parts;
    int64_t *incoming = NULL;
    qr_edge *edges = NULL;
    request_list list = {NULL, 0};
    qr_status status = qr_allocate((size_t)n_parts, sizeof(int64_t), "edge counts", (void **)&incoming);
    status = qr_comm_agree(comm->compute, status);
    if (status != QR_OK) {
        goto cleanup;
    }
    MPI_Alltoall(counts, 1, MPI_INT64_T, incoming, 1, MPI_INT64_T, comm->compute);
    int64_t total = 0;
    int64_t n_messages = 0;
    for (int p = 0; p < n_parts; p++) {
        total += incoming[p];
        n_messages += messages_of(incoming[p]) + messages_of(counts[p]);
    }
    status = qr_allocate((size_t)total, sizeof(qr_edge), "edges", (void **)&edges);
    if (status == QR_OK) {
        status = make_room(&list, n_messages);
    }
    status = qr_comm_agree(comm->compute, status);
    if (status != QR_OK) {
        goto cleanup;
    }
    MPI_Datatype type = MPI_DATATYPE_NULL;
    MPI_Type_contiguous(2, MPI_INT64_T, &type);
    MPI_Type_commit(&type);
    int64_t from = 0;
    for (int p = 0; p < n_parts; p++) {
        start_items(&list, false, edges + from, incoming[p], sizeof(qr_edge), type, p, comm->compute);
        from += incoming[p];
    }
    int64_t to = 0;
    for (int p = 0; p < n_parts; p++) {
        start_items(&list, true, (qr_edge *)(uintptr_t)(send + to), counts[p], sizeof(qr_edge), type, p, comm->compute);
        to += counts[p];
    }
    wait_all(&list);
    MPI_Type_free(&type);
    *recv = edges;
    *n_recv = total;
    edges = NULL;
cleanup:
    free(list.items);
    free(incoming);
    free(edges);
    return status;
}

qr_edge_exchange qr_comm_edge_exchange(qr_comm *comm)
{
    return (qr_edge_exchange){.context = comm, .exchange = exchange_edges};
}

qr_status qr_comm_scatter(qr_comm *comm, const void *items, const int64_t *counts, size_t item_bytes, void **mine,
                          int64_t *n_mine)
{
    MPI_Datatype type = MPI_DATATYPE_NULL;
    MPI_Type_contiguous((int)item_bytes, MPI_BYTE, &type);
    MPI_Type_commit(&type);
    int64_t *all_counts = NULL;
    void *received = NULL;
    int64_t count = 0;
    request_list list = {NULL, 0};
    qr_status status = qr_allocate((size_t)comm->n_parts, sizeof(int64_t), "counts", (void **)&all_counts);
    status = qr_comm_agree(comm->world, status);
    if (status != QR_OK) {
        goto cleanup;
    }
    if (comm->rank == 0) {
        memcpy(all_counts, counts, (size_t)comm->n_parts * sizeof(int64_t));
    }
    MPI_Bcast(all_counts, comm->n_parts, MPI_INT64_T, 0, comm->world);
    int64_t n_messages = 0;
    if (comm->me.role == QR_ROLE_COMPUTE) {
        count = all_counts[comm->me.part];
        n_messages += messages_of(count);
        status = qr_allocate((size_t)count, item_bytes, "this rank's share", &received);
    }
    for (int p = 0; comm->rank == 0 && p < comm->n_parts; p++) {
        n_messages += messages_of(counts[p]);
    }
    if (status == QR_OK) {
        status = make_room(&list, n_messages);
    }
    status = qr_comm_agree(comm->world, status);
    if (status != QR_OK) {
        goto cleanup;
    }
    if (comm->me.role == QR_ROLE_COMPUTE) {
        start_items(&list, false, received, count, item_bytes, type, 0, comm->world);
    }
    const unsigned char *at = items;
    for (int p = 0; comm->rank == 0 && p < comm->n_parts; p++) {
        start_items(&list, true, (void *)(uintptr_t)at, counts[p], item_bytes, type, comm->world_of_part[p],
                    comm->world);
        at += (size_t)counts[p] * item_bytes;
    }
    wait_all(&list);
    if (comm->me.role == QR_ROLE_COMPUTE) {
        *mine = received;
        *n_mine = count;
        received = NULL;
    }
cleanup:
    free(list.items);
    free(all_counts);
    free(received);
    MPI_Type_free(&type);
    return status;
}
