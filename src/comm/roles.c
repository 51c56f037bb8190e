#include "comm/comm.h"

#include "base/memory.h"
#include "base/timer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Returns the lowest world rank of the machine. */
static int split_nodes(qr_comm *comm, int64_t ranks_per_node)
{
    MPI_Comm machine = MPI_COMM_NULL;
    MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &machine);
    int rank_on_machine = 0;
    int first = comm->rank;
    MPI_Comm_rank(machine, &rank_on_machine);
    MPI_Bcast(&first, 1, MPI_INT, 0, machine);
    int colour = ranks_per_node > 0 ? (int)(rank_on_machine / ranks_per_node) : 0;
    MPI_Comm_split(machine, colour, rank_on_machine, &comm->node);
    MPI_Comm_free(&machine);
    return first;
}

/* What one rank knows of itself before places are worked out. */
typedef struct node_facts {
    int machine; /* its lowest world rank */
    int leader;  /* lowest world rank of the node */
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
            place->machine = facts[rank].machine;
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

static qr_status allocate_places(qr_comm *comm, node_facts **facts)
{
    qr_status status = qr_allocate((size_t)comm->size, sizeof *comm->all, "places of ranks", (void **)&comm->all);
    if (status == QR_OK) {
        status = qr_allocate((size_t)comm->size, sizeof(int), "ranks of parts", (void **)&comm->world_of_part);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)comm->size, sizeof **facts, "places of ranks", (void **)facts);
    }
    return status;
}

static qr_status allocate_comm(qr_comm **out)
{
    qr_status status = qr_allocate(1, sizeof **out, "communication", (void **)out);
    if (status == QR_OK) {
        (*out)->world = MPI_COMM_NULL;
        (*out)->node = MPI_COMM_NULL;
        (*out)->compute = MPI_COMM_NULL;
        (*out)->tally_op = MPI_OP_NULL;
        (*out)->tally_type = MPI_DATATYPE_NULL;
    }
    return status;
}

qr_status qr_comm_create(int64_t ranks_per_node, int64_t io_ranks_per_node, qr_comm **out)
{
    qr_comm *comm = NULL;
    node_facts *facts = NULL;
    qr_status status = allocate_comm(&comm);
    if (status != QR_OK) {
        return status;
    }
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->world);
    MPI_Comm_rank(comm->world, &comm->rank);
    MPI_Comm_size(comm->world, &comm->size);
    status = allocate_places(comm, &facts);
    status = qr_comm_agree(comm->world, status);
    if (status != QR_OK) {
        goto fail;
    }
    node_facts mine = {.machine = split_nodes(comm, ranks_per_node), .leader = comm->rank};
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

qr_status qr_comm_foresee(int n_ranks, int n_machines, int64_t ranks_per_node, int64_t io_ranks_per_node, qr_comm **out)
{
    qr_comm *comm = NULL;
    node_facts *facts = NULL;
    qr_status status = allocate_comm(&comm);
    if (status != QR_OK) {
        return status;
    }
    comm->size = n_ranks;
    status = allocate_places(comm, &facts);
    if (status != QR_OK) {
        free(facts);
        qr_comm_destroy(comm);
        return status;
    }
    for (int machine = 0, first = 0; machine < n_machines; machine++) {
        int here = n_ranks / n_machines + (machine < n_ranks % n_machines ? 1 : 0);
        int most = ranks_per_node > 0 && ranks_per_node < here ? (int)ranks_per_node : here;
        for (int i = 0; i < here; i++) {
            int of_node = i / most * most;
            facts[first + i] = (node_facts){.machine = first,
                                            .leader = first + of_node,
                                            .node_rank = i - of_node,
                                            .node_size = here - of_node < most ? here - of_node : most};
        }
        first += here;
    }
    number_places(comm, facts, io_ranks_per_node);
    comm->rank = comm->world_of_part[0];
    comm->me = comm->all[comm->rank];
    free(facts);
    *out = comm;
    return QR_OK;
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
    if (comm->world != MPI_COMM_NULL) {
        MPI_Comm_free(&comm->world);
    }
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
