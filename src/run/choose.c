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
        simulation->on_device = true;
    }
    if (choice == QR_BACKEND_AUTO) {
        (void)snprintf(simulation->backend_reason, sizeof simulation->backend_reason, "auto: %.150s",
                       cuda != NULL ? "every compute rank has a GPU" : qr_error_message());
    }
    return QR_OK;
}

void qr_foresee_backend(qr_simulation *simulation)
{
    char why[QR_MESSAGE_BYTES / 2] = "";
    int choice = simulation->deck->compute.backend;
    const qr_backend_ops *cuda = choice == QR_BACKEND_CPU ? NULL : qr_backend_load_cuda(why, sizeof why);
    int here = cuda != NULL ? 1 : 0;
    if (simulation->comm->compute != MPI_COMM_NULL) {
        MPI_Allreduce(MPI_IN_PLACE, &here, 1, MPI_INT, MPI_MIN, simulation->comm->compute);
    }
    simulation->ops = here != 0 ? cuda : qr_backend_find("cpu");
    simulation->on_device = choice == QR_BACKEND_CUDA || here != 0;
    (void)snprintf(simulation->backend_reason, sizeof simulation->backend_reason, "%.150s",
                   choice == QR_BACKEND_CPU ? "compute.backend: cpu" : why);
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
    status = simulation->ops->join(simulation->backend, comm->n_parts, comm->me.part, id);
    if (status != QR_OK) {
        qr_comm_ring(simulation->comm);
    }
    /* The others may wait for this rank inside the library that joins them. */
    if (!qr_comm_meet(comm->compute, status == QR_OK ? -1.0 : QR_ABORT_AFTER_S)) {
        simulation->must_abort = true;
        simulation->silent = qr_comm_take_alarms(simulation->comm) < comm->me.part;
        return status;
    }
    return qr_comm_agree(comm->compute, status);
}

static qr_status check_exchange(const qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    if (deck->comm.exchange == QR_EXCHANGE_NCCL && simulation->ops->join == NULL) {
        return qr_deck_complain(deck, "comm.exchange", "nccl needs compute.backend: cuda, in a build with NCCL");
    }
    if (deck->comm.exchange == QR_EXCHANGE_MPI_CUDA && simulation->ops->halo_buffers == NULL) {
        return qr_deck_complain(deck, "comm.exchange", "mpi-cuda needs compute.backend: cuda");
    }
    return QR_OK;
}

/* Whether MPI takes device memory on every compute rank. */
static qr_status choose_mpi(qr_simulation *simulation)
{
    int takes = qr_comm_takes_device_memory() && simulation->ops->halo_buffers != NULL ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &takes, 1, MPI_INT, MPI_MIN, simulation->comm->compute);
    if (takes == 0 && simulation->deck->comm.exchange == QR_EXCHANGE_MPI_CUDA) {
        return qr_error(QR_ENVIRONMENT,
                        "comm.exchange: mpi-cuda needs an MPI library with CUDA support, which this one says it has "
                        "not; load another one (jobscripts/openmpi_cuda.sh builds one), or use mpi-host or auto");
    }
    if (takes != 0) {
        simulation->device_messages = true;
        simulation->exchange_name = simulation->comm->n_parts == 1 ? simulation->exchange_name : "mpi-cuda";
    }
    return QR_OK;
}

qr_status qr_choose_exchange(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    int choice = simulation->deck->comm.exchange;
    bool distinct = false;
    simulation->exchange_name = comm->n_parts == 1 ? "none, for one compute rank" : "mpi-host";
    qr_status status = check_exchange(simulation);
    if (status != QR_OK || choice == QR_EXCHANGE_MPI_HOST || (choice == QR_EXCHANGE_AUTO && comm->n_parts == 1)) {
        return status;
    }
    if (simulation->paging.wanted && choice == QR_EXCHANGE_NCCL) {
        return qr_deck_complain(simulation->deck, "comm.exchange",
                                "nccl is for steps that the GPUs take by themselves, and with states in pages the host "
                                "takes part in each; use mpi-host, mpi-cuda or auto");
    }
    if (simulation->ops->join != NULL && choice != QR_EXCHANGE_MPI_CUDA && !simulation->paging.wanted) {
        status = have_own_devices(simulation, &distinct);
        if (status != QR_OK) {
            return status;
        }
        if (distinct) {
            simulation->exchange_name = "nccl";
            return join(simulation);
        }
        if (choice == QR_EXCHANGE_NCCL) {
            return qr_deck_complain(simulation->deck, "comm.exchange",
                                    "nccl needs a GPU for each compute rank, and some share one; use mpi-host or auto");
        }
        if (comm->me.part == 0) {
            qr_warning(
                "several compute ranks share a GPU, which NCCL does not serve: their votes go through MPI, which "
                "is slow");
        }
    }
    return choose_mpi(simulation);
}
