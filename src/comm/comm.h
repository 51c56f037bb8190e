/* Roles of the ranks of a job, and every MPI call that more than one part needs.
 *
 * Ranks of a node: the first io.ranks_per_node are I/O ranks (none when the node has a single rank), the others
 * compute. So world rank 0 is an I/O rank wherever there is one, and it is the only rank that reads decks. Compute
 * ranks are numbered node by node; their number is the part of the agents they own. An I/O server is an I/O rank or, on
 * a node without one, a thread of each compute rank; servers are numbered node by node as well. Only a rank's main
 * thread calls this. */
#ifndef QR_COMM_COMM_H
#define QR_COMM_COMM_H

#include "backend/backend.h"
#include "base/status.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum qr_role { QR_ROLE_COMPUTE, QR_ROLE_IO } qr_role;

/* One rank's place, known to all. */
typedef struct qr_place_in_job {
    int machine; /* lowest world rank of the machine, which emulated nodes share */
    int node;
    int node_rank;
    qr_role role;
    int part;   /* compute ranks: which part of the agents; -1 otherwise */
    int server; /* I/O ranks: their own number; compute ranks: the server that serves them */
} qr_place_in_job;

typedef struct qr_comm {
    MPI_Comm world;
    MPI_Comm node;    /* the ranks of this node, or of this emulated node */
    MPI_Comm compute; /* MPI_COMM_NULL on I/O ranks; rank there = part */
    int rank;
    int size;
    int n_nodes;
    int n_parts;
    int n_servers;
    qr_place_in_job me;
    qr_place_in_job *all; /* [size] by world rank */
    int *world_of_part;   /* [n_parts] */
    MPI_Op tally_op;
    MPI_Datatype tally_type;
    int64_t tally_options;
    bool alarmed; /* see qr_comm_hears_alarm */
} qr_comm;

/* Collective over MPI_COMM_WORLD. ranks_per_node > 0 treats that many consecutive ranks of a machine as a node of their
 * own. At least one rank of a node computes, however many io_ranks_per_node says. */
qr_status qr_comm_create(int64_t ranks_per_node, int64_t io_ranks_per_node, qr_comm **out);
void qr_comm_destroy(qr_comm *comm);

/* Who would be what in a job of so many ranks, evenly on so many machines (no more than ranks): without MPI, as seen by
 * compute rank 0. Of the rest of this header only qr_comm_serves_itself takes it. */
qr_status qr_comm_foresee(int n_ranks, int n_machines, int64_t ranks_per_node, int64_t io_ranks_per_node,
                          qr_comm **out);

/* True when this compute rank runs its I/O server as a thread. */
bool qr_comm_serves_itself(const qr_comm *comm);

/* Collective over `group`: the gravest outcome of all ranks becomes everybody's, with the message of the lowest rank
 * that had it. The message is set on every rank. */
qr_status qr_comm_agree(MPI_Comm group, qr_status mine);

/* Waits for all ranks of `group`, collective. patience_s < 0 waits for ever. False when time is over: the others are
 * somewhere else and will not come, and only an abort ends the job. */
bool qr_comm_meet(MPI_Comm group, double patience_s);

/* A qr_edge_exchange over the compute ranks; comm is borrowed. */
qr_edge_exchange qr_comm_edge_exchange(qr_comm *comm);

/* From world rank 0 to every compute rank: its share of `items` (elements of item_bytes, grouped by part,
 * counts[n_parts]). Collective over the world; items and counts are read on rank 0 only. On compute ranks *mine is
 * malloc'd, once all ranks have the memory they need; on others it stays as it was. */
qr_status qr_comm_scatter(qr_comm *comm, const void *items, const int64_t *counts, size_t item_bytes, void **mine,
                          int64_t *n_mine);

enum { QR_NOTES_TIERS = 3 };

/* What ranks tell each other with every reduction, summed over the compute ranks. */
typedef struct qr_notes {
    int64_t stop_signal;  /* ranks that were asked to stop */
    int64_t failed;       /* ranks on which something failed */
    int64_t snapshot_due; /* set by part 0 when its clock says so */
    int64_t series_due;
    int64_t progress_due;
    int64_t batch; /* steps to take next, set by part 0; for backends that take many */
    int64_t checkpoint_due;
    int64_t clearing; /* I/O servers: generations whose copies are being made, tiers whose old ones are being removed */
    int64_t tier_ready[QR_NOTES_TIERS];     /* checkpoints: I/O servers whose share of what is under way is durable, */
    int64_t tier_committed[QR_NOTES_TIERS]; /* whose manifest is, */
    int64_t tier_failed[QR_NOTES_TIERS];    /* and who could not */
} qr_notes;

/* Sums the notes alone. Collective over compute. */
void qr_comm_reduce_notes(qr_comm *comm, qr_notes *notes);

/* Sums votes and notes, takes the maximum of leaders, over all compute ranks, in one message. Collective over compute.
 */
qr_status qr_comm_reduce(qr_comm *comm, int64_t n_options, qr_tally *tally, qr_notes *notes);

/* Sums the notes alone over all compute ranks. Collective over compute. patience_s < 0 waits for ever; false when time
 * is over: the others are somewhere else and will not come, and only an abort ends the job. */
bool qr_comm_share_notes(qr_comm *comm, qr_notes *notes, double patience_s);

/* For ranks that wait for each other's devices and not for MPI: one that fails rings, and the others hear it if they
 * ask now and then (context: the qr_comm). Both return at once. The next notes that say that somebody failed end the
 * alarm; taking the alarms does so as well, and returns the lowest part that rang, n_parts when none of the others did.
 */
void qr_comm_ring(qr_comm *comm);
bool qr_comm_hears_alarm(void *context);
int qr_comm_take_alarms(qr_comm *comm);

/* Whether MPI says that it sends from and receives into the memory of CUDA devices; asked of the library that runs, not
 * of the one that was compiled against. */
bool qr_comm_takes_device_memory(void);

/* Exchanges halo votes with every peer part through MPI. Buffers are made once: the backend's where it has some
 * (halo_buffers), on its device where device_messages, which MPI must be able to take. */
typedef struct qr_halo_exchange qr_halo_exchange;
qr_status qr_halo_exchange_create(qr_comm *comm, const qr_network *network, const qr_backend_ops *ops,
                                  qr_backend *backend, bool device_messages, qr_halo_exchange **out);
void qr_halo_exchange_destroy(qr_halo_exchange *exchange);
/* Sends own votes. The others' are there, and placed, when qr_halo_exchange_finish returns; both are called, also after
 * a failure, by all ranks. */
qr_status qr_halo_exchange_start(qr_halo_exchange *exchange);
qr_status qr_halo_exchange_finish(qr_halo_exchange *exchange);
/* Bytes sent by this rank in one exchange. */
int64_t qr_halo_exchange_bytes(const qr_halo_exchange *exchange);

#endif
