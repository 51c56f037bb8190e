/* One reduction a step: votes and notes are summed, leaders maximised, in one message with an operator of our own. */
#include "comm/comm.h"

#include <string.h>

enum { N_NOTES = sizeof(qr_notes) / sizeof(int64_t) };
_Static_assert(sizeof(qr_notes) % sizeof(int64_t) == 0, "notes are added up word by word");

/* In transit: [n_options] votes, [n_options] leaders, notes; the first word says how many options. */
typedef struct reduction {
    int64_t n_options;
    int64_t words[2 * QR_MAX_OPTIONS + N_NOTES];
} reduction;

/* The signature is MPI's. NOLINTNEXTLINE(readability-non-const-parameter) */
static void combine(void *in, void *inout, int *count, MPI_Datatype *type)
{
    int bytes = 0;
    MPI_Type_size(*type, &bytes);
    for (int item = 0; item < *count; item++) {
        const int64_t *from = (const int64_t *)in + (size_t)item * (size_t)bytes / sizeof(int64_t);
        int64_t *into = (int64_t *)inout + (size_t)item * (size_t)bytes / sizeof(int64_t);
        int64_t n = from[0];
        for (int64_t k = 1; k <= n; k++) {
            into[k] += from[k];
        }
        for (int64_t k = n + 1; k <= 2 * n; k++) { /* packed leaders, unsigned */
            into[k] = (uint64_t)from[k] > (uint64_t)into[k] ? from[k] : into[k];
        }
        for (int64_t k = 2 * n + 1; k <= 2 * n + N_NOTES; k++) {
            into[k] += from[k];
        }
    }
}

qr_status qr_comm_reduce(qr_comm *comm, int64_t n_options, qr_tally *tally, qr_notes *notes)
{
    if (comm->n_parts == 1) {
        return QR_OK;
    }
    if (comm->tally_op == MPI_OP_NULL || comm->tally_options != n_options) {
        if (comm->tally_op == MPI_OP_NULL) {
            MPI_Op_create(combine, 1, &comm->tally_op);
        } else {
            MPI_Type_free(&comm->tally_type);
        }
        MPI_Type_contiguous((int)(1 + 2 * n_options + N_NOTES), MPI_INT64_T, &comm->tally_type);
        MPI_Type_commit(&comm->tally_type);
        comm->tally_options = n_options;
    }
    reduction sum;
    size_t bytes = (size_t)n_options * sizeof(int64_t);
    sum.n_options = n_options;
    memcpy(sum.words, tally->votes, bytes);
    memcpy(sum.words + n_options, tally->leader, bytes);
    memcpy(sum.words + 2 * n_options, notes, sizeof *notes);
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, comm->tally_type, comm->tally_op, comm->compute);
    memcpy(tally->votes, sum.words, bytes);
    memcpy(tally->leader, sum.words + n_options, bytes);
    memcpy(notes, sum.words + 2 * n_options, sizeof *notes);
    return QR_OK;
}

void qr_comm_reduce_notes(qr_comm *comm, qr_notes *notes)
{
    if (comm->n_parts > 1) {
        MPI_Allreduce(MPI_IN_PLACE, notes, N_NOTES, MPI_INT64_T, MPI_SUM, comm->compute);
    }
}
