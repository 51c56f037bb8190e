#include "comm/comm.h"

#include "base/memory.h"
#include "base/timer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void split_nodes(qr_comm *comm, int64_t ranks_per_node)
{
    MPI_Comm machine = MPI_COMM_NULL;
    MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &machine);
    int rank_on_machine = 0;
    MPI_Comm_rank(machine, &rank_on_machine);
    int colour = ranks_per_node > 0 ? (int)(rank_on_machine / ranks_per_node) : 0;
    MPI_Comm_split(machine, colour, rank_on_machine, &comm->node);
    MPI_Comm_free(&machine);
}

/* What one rank knows of itself before places are worked out. */
typedef struct node_facts {
    int leader; /* lowest world rank of the node */
    int node_rank;
    int node_size;
} node_facts;

/* Numbers nodes by their lowest world rank, then parts and servers node by node. facts: [size]. */
static void number_places(qr_comm *comm, const node_facts *facts, int64_t io_ranks_per_node)
{
    for (int leader = 0; leader < comm->size; leader++) {
        if (facts[leader].leader != leader) {
            continue;
        }
        int node_size = facts[leader].node_size;
        int n_io = node_size > 1 ? (int)(io_ranks_per_node < node_size - 1 ? io_ranks_per_node : node_size - 1) : 0;
        int n_compute = node_size - n_io;
        for (int rank = 0; rank < comm->size; rank++) {
            if (facts[rank].leader != leader) {
                continue;
            }
            int node_rank = facts[rank].node_rank;
            qr_place_in_job *place = &comm->all[rank];
            place->node = comm->n_nodes;
            place->node_rank = node_rank;
            if (node_rank < n_io) {
                place->role = QR_ROLE_IO;
                place->part = -1;
                place->server = comm->n_servers + node_rank;
            } else {
                int among = node_rank - n_io;
                place->role = QR_ROLE_COMPUTE;
                place->part = comm->n_parts + among;
                place->server = comm->n_servers + (n_io > 0 ? (int)((int64_t)among * n_io / n_compute) : among);
                comm->world_of_part[place->part] = rank;
            }
        }
        comm->n_nodes++;
        comm->n_parts += n_compute;
        comm->n_servers += n_io > 0 ? n_io : n_compute;
    }
}

qr_status qr_comm_create(int64_t ranks_per_node, int64_t io_ranks_per_node, qr_comm **out)
{
    qr_comm *comm = NULL;
    node_facts *facts = NULL;
    qr_status status = qr_allocate(1, sizeof *comm, "communication", (void **)&comm);
    if (status != QR_OK) {
        return status;
    }
    comm->node = MPI_COMM_NULL;
    comm->compute = MPI_COMM_NULL;
    comm->tally_op = MPI_OP_NULL;
    comm->tally_type = MPI_DATATYPE_NULL;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->world);
    MPI_Comm_rank(comm->world, &comm->rank);
    MPI_Comm_size(comm->world, &comm->size);
    status = qr_allocate((size_t)comm->size, sizeof *comm->all, "places of ranks", (void **)&comm->all);
    if (status == QR_OK) {
        status = qr_allocate((size_t)comm->size, sizeof(int), "ranks of parts", (void **)&comm->world_of_part);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)comm->size, sizeof *facts, "places of ranks", (void **)&facts);
    }
    status = qr_comm_agree(comm->world, status);
    if (status != QR_OK) {
        goto fail;
    }
    split_nodes(comm, ranks_per_node);
    node_facts mine = {.leader = comm->rank};
    MPI_Bcast(&mine.leader, 1, MPI_INT, 0, comm->node);
    MPI_Comm_rank(comm->node, &mine.node_rank);
    MPI_Comm_size(comm->node, &mine.node_size);
    MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, facts, (int)sizeof mine, MPI_BYTE, comm->world);
    number_places(comm, facts, io_ranks_per_node);
    comm->me = comm->all[comm->rank];
    MPI_Comm_split(comm->world, comm->me.role == QR_ROLE_COMPUTE ? 0 : MPI_UNDEFINED, comm->me.part, &comm->compute);
    free(facts);
    *out = comm;
    return QR_OK;
fail:
    free(facts);
    qr_comm_destroy(comm);
    return status;
}

void qr_comm_destroy(qr_comm *comm)
{
    if (comm == NULL) {
        return;
    }
    if (comm->tally_op != MPI_OP_NULL) {
        MPI_Op_free(&comm->tally_op);
    }
    if (comm->tally_type != MPI_DATATYPE_NULL) {
        MPI_Type_free(&comm->tally_type);
    }
    if (comm->compute != MPI_COMM_NULL) {
        MPI_Comm_free(&comm->compute);
    }
    if (comm->node != MPI_COMM_NULL) {
        MPI_Comm_free(&comm->node);
    }
    MPI_Comm_free(&comm->world);
    free(comm->all);
    free(comm->world_of_part);
    free(comm);
}

bool qr_comm_serves_itself(const qr_comm *comm)
{
    for (int rank = 0; rank < comm->size; rank++) {
        if (comm->all[rank].role == QR_ROLE_IO && comm->all[rank].node == comm->me.node) {
            return false;
        }
    }
    return comm->me.role == QR_ROLE_COMPUTE;
}

qr_status qr_comm_agree(MPI_Comm group, qr_status mine)
{
    struct {
        int status;
        int rank;
    } local = {(int)mine, 0}, worst = {0, 0};
    MPI_Comm_rank(group, &local.rank);
    MPI_Allreduce(&local, &worst, 1, MPI_2INT, MPI_MAXLOC, group);
    if (worst.status == (int)QR_OK) {
        return QR_OK;
    }
    char message[QR_MESSAGE_BYTES] = "";
    if (local.rank == worst.rank) {
        (void)snprintf(message, sizeof message, "%s", qr_error_message());
    }
    MPI_Bcast(message, QR_MESSAGE_BYTES, MPI_CHAR, worst.rank, group);
    return qr_error((qr_status)worst.status, "%s", message);
}

bool qr_comm_meet(MPI_Comm group, double patience_s)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int met = 0;
    double end = qr_now_s() + patience_s;
    MPI_Ibarrier(group, &request);
    if (patience_s < 0.0) {
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        return true;
    }
    MPI_Test(&request, &met, MPI_STATUS_IGNORE);
    while (met == 0 && qr_now_s() < end) {
        const struct timespec moment = {.tv_nsec = 1000000};
        (void)nanosleep(&moment, NULL);
        MPI_Test(&request, &met, MPI_STATUS_IGNORE);
    }
    return met != 0;
}
