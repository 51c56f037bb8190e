/* What computes, and how votes travel between ranks: the deck's choice, or the best that all compute ranks have. */
#include "run/backends.h"
#include "run/simulation.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Every compute rank has to have it, or none uses it: the ranks' answers differ in speed by a factor of hundreds. */
static qr_status load_cuda(qr_simulation *simulation, const qr_backend_ops **out)
{
    char why[QR_MESSAGE_BYTES / 2] = "";
    *out = qr_backend_load_cuda(why, sizeof why);
    qr_status status = *out != NULL ? QR_OK : qr_error(QR_ENVIRONMENT, "%s", why);
    status = qr_comm_agree(simulation->comm->compute, status);
    if (status != QR_OK) {
        *out = NULL;
    }
    return status;
}

qr_status qr_choose_backend(qr_simulation *simulation)
{
    int choice = simulation->deck->compute.backend;
    const qr_backend_ops *cuda = NULL;
    simulation->ops = qr_backend_find("cpu");
    (void)snprintf(simulation->backend_reason, sizeof simulation->backend_reason, "as the deck says");
    if (choice == QR_BACKEND_CPU) {
        return QR_OK;
    }
    qr_status status = load_cuda(simulation, &cuda);
    if (choice == QR_BACKEND_CUDA && status != QR_OK) {
        return qr_error_context(status, "compute.backend: cuda");
    }
    if (cuda != NULL) {
        simulation->ops = cuda;
    }
    if (choice == QR_BACKEND_AUTO) {
        (void)snprintf(simulation->backend_reason, sizeof simulation->backend_reason, "auto: %.150s",
                       cuda != NULL ? "every compute rank has a GPU" : qr_error_message());
    }
    return QR_OK;
}

/* True when no two compute ranks drive the same device. */
static qr_status have_own_devices(const qr_simulation *simulation, bool *out)
{
    const qr_comm *comm = simulation->comm;
    unsigned char mine[QR_DEVICE_ID_BYTES] = {0};
    unsigned char *all = NULL;
    qr_status status = qr_allocate((size_t)comm->n_parts, sizeof mine, "device ids", (void **)&all);
    status = qr_comm_agree(comm->compute, status);
    if (status != QR_OK) {
        free(all);
        return status;
    }
    simulation->ops->device_id(simulation->backend, mine);
    MPI_Allgather(mine, QR_DEVICE_ID_BYTES, MPI_BYTE, all, QR_DEVICE_ID_BYTES, MPI_BYTE, comm->compute);
    bool distinct = true;
    for (int a = 0; a < comm->n_parts; a++) {
        for (int b = a + 1; b < comm->n_parts && distinct; b++) {
            distinct = memcmp(all + (size_t)a * sizeof mine, all + (size_t)b * sizeof mine, sizeof mine) != 0;
        }
    }
    free(all);
    *out = distinct;
    return QR_OK;
}

static qr_status join(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    unsigned char id[QR_JOIN_BYTES] = {0};
    qr_status status = comm->me.part == 0 ? simulation->ops->make_join_id(id) : QR_OK;
    status = qr_comm_agree(comm->compute, status);
    if (status != QR_OK) {
        return status;
    }
    MPI_Bcast(id, QR_JOIN_BYTES, MPI_BYTE, 0, comm->compute);
    return qr_comm_agree(comm->compute, simulation->ops->join(simulation->backend, comm->n_parts, comm->me.part, id));
}

qr_status qr_choose_exchange(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    int choice = simulation->deck->comm.exchange;
    bool distinct = false;
    bool can_join = simulation->ops->join != NULL;
    qr_status status = QR_OK;
    simulation->exchange_name = comm->n_parts == 1 ? "none, for one compute rank" : "mpi-host";
    if (choice == QR_EXCHANGE_NCCL && !can_join) {
        return qr_deck_complain(simulation->deck, "comm.exchange",
                                "nccl needs compute.backend: cuda, in a build with NCCL");
    }
    if (choice == QR_EXCHANGE_MPI_HOST || !can_join) {
        return QR_OK;
    }
    if (comm->n_parts == 1 && choice == QR_EXCHANGE_AUTO) {
        return QR_OK;
    }
    status = have_own_devices(simulation, &distinct);
    if (status != QR_OK) {
        return status;
    }
    if (!distinct && choice == QR_EXCHANGE_NCCL) {
        return qr_deck_complain(simulation->deck, "comm.exchange",
                                "nccl needs a GPU for each compute rank, and some share one; use mpi-host or auto");
    }
    if (!distinct) {
        if (comm->me.part == 0) {
            qr_warning("several compute ranks share a GPU: their votes go through the host, which is slow");
        }
        return QR_OK;
    }
    simulation->exchange_name = "nccl";
    return join(simulation);
}
