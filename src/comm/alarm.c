/* Bad news between compute ranks that wait for their devices, not for MPI. */
#include "comm/comm.h"

#include "base/timer.h"

#include <string.h>
#include <time.h>

enum { TAG_ALARM = 14 };

void qr_comm_ring(qr_comm *comm)
{
    for (int part = 0; part < comm->n_parts; part++) {
        if (part != comm->me.part) {
            MPI_Request request = MPI_REQUEST_NULL;
            MPI_Isend(NULL, 0, MPI_BYTE, part, TAG_ALARM, comm->compute, &request);
            MPI_Request_free(&request); /* nothing to keep: the message is empty */
        }
    }
}

bool qr_comm_hears_alarm(void *context)
{
    qr_comm *comm = context;
    int there = 0;
    if (!comm->alarmed && comm->n_parts > 1) {
        MPI_Iprobe(MPI_ANY_SOURCE, TAG_ALARM, comm->compute, &there, MPI_STATUS_IGNORE);
        comm->alarmed = there != 0;
    }
    return comm->alarmed;
}

int qr_comm_take_alarms(qr_comm *comm)
{
    int lowest = comm->n_parts;
    int there = 1;
    while (there != 0) {
        MPI_Status from;
        MPI_Iprobe(MPI_ANY_SOURCE, TAG_ALARM, comm->compute, &there, &from);
        if (there != 0) {
            lowest = from.MPI_SOURCE < lowest ? from.MPI_SOURCE : lowest;
            MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, TAG_ALARM, comm->compute, MPI_STATUS_IGNORE);
        }
    }
    return lowest;
}

bool qr_comm_share_notes(qr_comm *comm, qr_notes *notes, double patience_s)
{
    if (comm->n_parts == 1) {
        return true;
    }
    MPI_Request request = MPI_REQUEST_NULL;
    int met = 0;
    static qr_notes on_their_way; /* static: MPI keeps at it after a return without the others */
    _Static_assert(sizeof on_their_way % sizeof(int64_t) == 0, "notes travel as numbers");
    on_their_way = *notes;
    MPI_Iallreduce(MPI_IN_PLACE, &on_their_way, (int)(sizeof on_their_way / sizeof(int64_t)), MPI_INT64_T, MPI_SUM,
                   comm->compute, &request);
    if (patience_s < 0.0) {
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        met = 1;
    }
    for (double since = qr_now_s(); met == 0 && qr_now_s() - since < patience_s;) {
        const struct timespec moment = {.tv_nsec = 1000000};
        MPI_Test(&request, &met, MPI_STATUS_IGNORE);
        (void)nanosleep(&moment, NULL);
    }
    if (met == 0) {
        return false;
    }
    *notes = on_their_way;
    if (notes->failed != 0) {
        (void)qr_comm_take_alarms(comm);
    }
    return true;
}
