/* The queues between compute ranks and I/O servers, and the servers themselves. */
#include "run/paging.h"
#include "run/replicas.h"
#include "run/simulation.h"

#include "base/memory.h"
#include "quorate_version.h"

#include <stdlib.h>
#include <string.h>

/* First agent of each server, then the number of agents. A server's agents are contiguous, because servers and parts
 * are numbered alike; starts: [n_servers + 1]. */
static void find_server_starts(const qr_simulation *simulation, int64_t *starts)
{
    const qr_comm *comm = simulation->comm;
    for (int server = 0; server <= comm->n_servers; server++) {
        starts[server] = -1;
    }
    starts[comm->n_servers] = simulation->spec.n_agents;
    for (int part = comm->n_parts - 1; part >= 0; part--) {
        int server = comm->all[comm->world_of_part[part]].server;
        starts[server] = qr_partition_range(simulation->spec.n_agents, comm->n_parts, part).first;
    }
    for (int server = comm->n_servers - 1; server >= 0; server--) { /* more servers than compute ranks: idle ones */
        starts[server] = starts[server] < 0 ? starts[server + 1] : starts[server];
    }
}

/* Of the results before a restart those up to this step stay. A run that is stopped also writes what it has at that
 * moment; where it goes on, only what is due is to stand there, as if it had never been stopped. */
static int64_t last_kept(const qr_simulation *simulation, qr_interval every)
{
    int64_t step = simulation->first_step;
    const qr_deck *deck = simulation->deck;
    bool goes_on =
        step < deck->run.steps && !(simulation->consensus.decision.decided && deck->run.stop == QR_STOP_CONSENSUS);
    bool due = every.steps == 0 || step % every.steps == 0;
    return goes_on && !due ? step - 1 : step;
}

static qr_status create_server(qr_simulation *simulation)
{
    int64_t *starts = NULL;
    qr_status status =
        qr_allocate((size_t)simulation->comm->n_servers + 1, sizeof *starts, "servers", (void **)&starts);
    if (status != QR_OK) {
        return status;
    }
    find_server_starts(simulation, starts);
    int server = simulation->comm->me.server;
    qr_checkpoint_config checkpoint;
    status = qr_tiers_configure(simulation, server, &checkpoint);
    checkpoint.pages = simulation->paging.store;
    checkpoint.version = QR_VERSION " (" QR_REVISION ")";
    const qr_deck *deck = simulation->deck;
    const qr_network_spec *spec = &simulation->spec;
    bool lattice = spec->kind == QR_NETWORK_LATTICE2D || spec->kind == QR_NETWORK_LATTICE3D;
    qr_io_config config = {.directory = deck->output.directory,
                           .deck_text = simulation->used_text,
                           .title = deck->run.title,
                           .version = QR_VERSION " (" QR_REVISION ")",
                           .n_agents = spec->n_agents,
                           .n_options = deck->agents.options,
                           .server = server,
                           .n_servers = simulation->comm->n_servers,
                           .server_first = starts[server],
                           .server_count = starts[server + 1] - starts[server],
                           .server_starts = starts,
                           .snapshots =
                               deck->output.snapshot_every.steps > 0 || deck->output.snapshot_every.seconds > 0.0,
                           .dims = lattice ? spec->dims : 0,
                           .size = {spec->size[0], spec->size[1], spec->size[2]},
                           .compression = deck->output.compression,
                           .flush_every_s = deck->output.flush_every,
                           .overwrite = simulation->replaces_results,
                           .run_id = simulation->checkpoints.run_id,
                           .attempt = simulation->attempt,
                           .resume_step = simulation->first_step,
                           .keep_rows_to = last_kept(simulation, deck->output.series_every),
                           .keep_snapshots_to = last_kept(simulation, deck->output.snapshot_every),
                           .resume_snapshots = simulation->results.snapshots,
                           .series_every = deck->output.series_every.steps,
                           .snapshot_every = deck->output.snapshot_every.steps,
                           .checkpoint = checkpoint.enabled ? &checkpoint : NULL,
                           .transport = checkpoint.replicas > 0 ? &simulation->transport : NULL,
                           .pages = simulation->paging.store};
    if (status == QR_OK) {
        status =
            qr_io_server_create(&config, simulation->server_queues, simulation->n_server_queues, &simulation->server);
    }
    qr_tiers_clear(&checkpoint);
    free(starts);
    return status;
}

/* A compute rank that serves itself: both ends in plain memory. */
static qr_status create_own(qr_simulation *simulation)
{
    qr_queue_shape shape = qr_shape_of_queue(simulation, simulation->comm->me.part);
    size_t bytes = qr_queue_bytes(&shape);
    qr_status status = qr_allocate(bytes, 1, "job slots", &simulation->queue_memory);
    if (status == QR_OK) {
        status = qr_allocate(1, sizeof(qr_queue), "queues", (void **)&simulation->server_queues);
    }
    if (status == QR_OK) {
        simulation->n_server_queues = 1;
        status = qr_queue_create(simulation->queue_memory, bytes, &shape, &simulation->server_queues[0]);
    }
    if (status == QR_OK) {
        status = qr_queue_attach(simulation->queue_memory, bytes, &simulation->results.queue);
    }
    return status;
}

/* An I/O rank sets up the queue of every compute rank it serves, inside that rank's share of the window. */
static qr_status create_served(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    qr_status status = qr_allocate((size_t)comm->size, sizeof(qr_queue), "queues", (void **)&simulation->server_queues);
    for (int rank = 0; rank < comm->size && status == QR_OK; rank++) {
        const qr_place_in_job *place = &comm->all[rank];
        if (place->role != QR_ROLE_COMPUTE || place->server != comm->me.server) {
            continue;
        }
        MPI_Aint size = 0;
        int unit = 0;
        void *memory = NULL;
        MPI_Win_shared_query(simulation->window, place->node_rank, &size, &unit, &memory);
        qr_queue_shape shape = qr_shape_of_queue(simulation, place->part);
        status = qr_queue_create(memory, (size_t)size, &shape, &simulation->server_queues[simulation->n_server_queues]);
        simulation->n_server_queues++;
    }
    return status;
}

/* Copies go to I/O ranks of other nodes, so there must be some. */
static qr_status create_mail(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    int64_t replicas = simulation->deck->checkpoint.replicas;
    int nodes_with_io = 0;
    for (int node = 0; node < comm->n_nodes; node++) {
        bool found = false;
        for (int rank = 0; rank < comm->size && !found; rank++) {
            found = comm->all[rank].node == node && comm->all[rank].role == QR_ROLE_IO;
        }
        nodes_with_io += found ? 1 : 0;
    }
    if (nodes_with_io < comm->n_nodes || replicas >= nodes_with_io) {
        return qr_error(QR_ENVIRONMENT,
                        "checkpoint.replicas: %lld copies need I/O ranks on %lld nodes, and %d of %d nodes have one; "
                        "start more nodes of at least two ranks, or ask for fewer copies",
                        (long long)replicas, (long long)replicas + 1, nodes_with_io, comm->n_nodes);
    }
    return qr_replica_mail_create(comm, &simulation->replica_mail, &simulation->transport);
}

qr_status qr_queues_create(qr_simulation *simulation)
{
    qr_comm *comm = simulation->comm;
    bool own = qr_comm_serves_itself(comm);
    bool computes = comm->me.role == QR_ROLE_COMPUTE;
    qr_queue_shape shape = qr_shape_of_queue(simulation, computes ? comm->me.part : 0);
    size_t bytes = qr_queue_bytes(&shape);
    qr_status status = QR_OK;
    void *mine = NULL;
    if (own) {
        status = create_own(simulation);
    } else {
        size_t share = computes ? bytes : 0;
        MPI_Win_allocate_shared((MPI_Aint)share, 1, MPI_INFO_NULL, comm->node, &mine, &simulation->window);
        if (comm->me.role == QR_ROLE_IO) {
            status = create_served(simulation);
        }
    }
    status = qr_comm_agree(comm->world, status); /* also: queues exist before producers attach */
    if (status == QR_OK && !own && computes) {
        status = qr_queue_attach(mine, bytes, &simulation->results.queue);
    }
    return qr_comm_agree(comm->world, status);
}

qr_status qr_servers_create(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    qr_status status = simulation->deck->checkpoint.replicas > 0 ? create_mail(simulation) : QR_OK;
    if (status == QR_OK) {
        status = qr_check_own_maps(simulation, "at the start");
    }
    if (status == QR_OK && (qr_comm_serves_itself(comm) || comm->me.role == QR_ROLE_IO)) {
        status = create_server(simulation);
    }
    return qr_comm_agree(comm->world, status);
}

qr_status qr_servers_start_thread(qr_simulation *simulation)
{
    if (!qr_comm_serves_itself(simulation->comm)) {
        return QR_OK;
    }
    return qr_io_thread_start(simulation->server, &simulation->server_thread);
}

void qr_servers_clear(qr_simulation *simulation)
{
    qr_io_server_destroy(simulation->server);
    qr_paging_clear_store(simulation);
    qr_replica_mail_destroy(simulation->replica_mail);
    if (simulation->window != MPI_WIN_NULL) {
        MPI_Win_free(&simulation->window);
    }
    free(simulation->server_queues);
    free(simulation->queue_memory);
}
