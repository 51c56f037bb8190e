/* States of own agents, wherever they lie: in the backend, or in a pager's tiers, of which the lower ones are files of
 * the I/O server. */
#include "run/paging.h"

#include "base/memory.h"
#include "io/page_service.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Awake seconds that a disk which does not answer may keep the end of a run waiting. */
static const double patience_s = 20.0;

static bool serves(const qr_simulation *simulation)
{
    return simulation->comm->me.role == QR_ROLE_IO || qr_comm_serves_itself(simulation->comm);
}

/* --- the page store of a rank that serves --- */

/* A store is of this very process and of no use to another. */
static void make_store_id(char out[33])
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(out, 33, "%016llx%08x%08x",
                   (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec, (unsigned)getpid(),
                   (unsigned)gethostid());
}

/* This server's share of what the node may take on a tier. */
static int64_t share_of_capacity(const qr_simulation *simulation, int64_t capacity)
{
    const qr_comm *comm = simulation->comm;
    int64_t here = 0;
    int64_t served = 0;
    for (int rank = 0; rank < comm->size; rank++) {
        const qr_place_in_job *place = &comm->all[rank];
        if (place->node == comm->me.node && place->role == QR_ROLE_COMPUTE) {
            here++;
            served += place->server == comm->me.server ? 1 : 0;
        }
    }
    return here > 0 ? capacity / here * served : capacity;
}

static qr_status create_store(qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    int64_t agent_bytes = deck->model.state_dim * (int64_t)sizeof(float);
    char *directories[QR_N_TIERS] = {NULL};
    char id[33];
    make_store_id(id);
    qr_page_store_config config = {.run_id = id,
                                   .server = simulation->comm->me.server,
                                   .threads = qr_threads_of_server(simulation),
                                   .most_raw = qr_page_agents(simulation, agent_bytes) * agent_bytes,
                                   .timeout_s = deck->io.timeout / 2};
    qr_status status = QR_OK;
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        const qr_deck_memory_tier *disk = qr_paging_disk(deck, t);
        if (disk->directory[0] == '\0') {
            continue;
        }
        status = qr_expand_node(disk->directory, simulation->comm->me.node, &directories[t]);
        status = status == QR_OK ? qr_codec_parse(disk->compression, &config.tiers[t].codec) : status;
        config.tiers[t].directory = directories[t];
        config.tiers[t].capacity = share_of_capacity(simulation, disk->capacity);
    }
    if (status == QR_OK) {
        status = qr_page_store_create(&config, simulation->server_queues, simulation->n_server_queues,
                                      &simulation->paging.store);
    }
    if (status == QR_OK) {
        status = qr_page_service_start(simulation->paging.store, simulation->server_queues, simulation->n_server_queues,
                                       &simulation->paging.service);
    }
    for (int t = 0; t < QR_N_TIERS; t++) {
        free(directories[t]);
    }
    return status;
}

/* --- the pager of a compute rank --- */

/* Slots are touched before anybody waits for them, and the backend told of them. */
void qr_slab_prepare(qr_simulation *simulation)
{
    const qr_queue *queue = &simulation->results.queue;
    size_t bytes = (size_t)queue->n_slots * (size_t)queue->slot_bytes;
    if (simulation->slab_is_ready) {
        return;
    }
    simulation->slab_is_ready = true;
    for (size_t at = 0; at < bytes; at += 4096) {
        ((volatile unsigned char *)queue->slots)[at] = 0;
    }
    if (simulation->ops->register_memory != NULL) {
        simulation->ops->register_memory(simulation->backend, queue->slots, bytes);
    }
}

static void tell(void *context, bool first, int64_t done, int64_t all)
{
    qr_progress_within(context, first ? QR_LONG_FIRST_STATES : QR_LONG_STEP, done, all);
}

static qr_status create_pager(qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    qr_paging *paging = &simulation->paging;
    const qr_frame_ops *frames = simulation->ops->frames;
    qr_pager_config config = {.ops = simulation->ops,
                              .backend = simulation->backend,
                              .queue = paging->on_disk ? &simulation->results.queue : NULL,
                              .timeout_s = deck->io.timeout,
                              .n_agents = simulation->network->own.count,
                              .page_agents = paging->page_agents,
                              .agent_bytes = paging->agent_bytes,
                              .high = deck->memory.high,
                              .low = deck->memory.low,
                              .sequential = deck->memory.prefetch.sequential,
                              .correlated = deck->memory.prefetch.correlation,
                              .ahead = paging->ahead,
                              .threads = simulation->threads,
                              .tell = tell,
                              .tell_context = simulation};
    memcpy(config.tiers, paging->tiers, sizeof config.tiers);
    qr_status status = QR_OK;
    if (paging->on_disk) {
        qr_slab_prepare(simulation);
    }
    if (paging->on_device && frames->measure_links != NULL) {
        status = frames->measure_links(simulation->backend, &paging->link_in, &paging->link_out, &paging->link_both);
    }
    status = status == QR_OK ? qr_pager_create(&config, &paging->pager) : status;
    return status == QR_OK ? QR_OK : qr_error_context(status, "compute rank %d", simulation->comm->me.part);
}

qr_status qr_paging_begin(qr_simulation *simulation)
{
    qr_status status = QR_OK;
    if (!simulation->paging.wanted) {
        return QR_OK;
    }
    simulation->results.timeout_s = simulation->deck->io.timeout;
    if (simulation->paging.on_disk && serves(simulation)) {
        status = create_store(simulation);
    }
    status = qr_comm_agree(simulation->comm->world, status);
    if (status == QR_OK && simulation->comm->me.role == QR_ROLE_COMPUTE) {
        status = create_pager(simulation);
    }
    return qr_comm_agree(simulation->comm->world, status);
}

qr_status qr_states_make_first(qr_simulation *simulation)
{
    qr_status status = QR_OK;
    if (simulation->paging.wanted && !simulation->restarted) {
        double at = qr_now_s();
        status = simulation->paging.pager != NULL ? qr_pager_make_first(simulation->paging.pager) : QR_OK;
        status = qr_comm_agree(simulation->comm->world, status);
        (void)qr_timer_lap(&simulation->timers, QR_PHASE_START, at);
    }
    return status;
}

void qr_paging_settle(qr_simulation *simulation)
{
    qr_page_service_stop(simulation->paging.service);
    simulation->paging.service = NULL;
}

void qr_paging_clear_pager(qr_simulation *simulation)
{
    qr_pager_destroy(simulation->paging.pager);
    simulation->paging.pager = NULL;
    qr_paging_settle(simulation);
}

void qr_paging_clear_store(qr_simulation *simulation)
{
    qr_page_store_destroy(simulation->paging.store, patience_s);
    simulation->paging.store = NULL;
}

/* --- states --- */

qr_status qr_states_step(qr_simulation *simulation, int64_t step, int colour, const qr_tally *before)
{
    qr_pager *pager = simulation->paging.pager;
    return pager != NULL ? qr_pager_step(pager, step, before, &simulation->tally)
                         : simulation->ops->update(simulation->backend, step, colour, before, &simulation->tally);
}

qr_status qr_states_read(const qr_simulation *simulation, int64_t first, int64_t count, float *out)
{
    qr_pager *pager = simulation->paging.pager;
    return pager != NULL ? qr_pager_read(pager, first, count, out)
                         : simulation->ops->read_state(simulation->backend, first, count, out);
}

qr_status qr_states_write(const qr_simulation *simulation, int64_t first, int64_t count, const float *state)
{
    qr_pager *pager = simulation->paging.pager;
    return pager != NULL ? qr_pager_write(pager, first, count, state)
                         : simulation->ops->write_state(simulation->backend, first, count, state);
}

qr_status qr_states_copy_out(qr_simulation *simulation, const qr_piece *pieces, int64_t n)
{
    qr_pager *pager = simulation->paging.pager;
    qr_status status = QR_OK;
    for (int64_t at = 0; at < n && status == QR_OK;) { /* votes lie in the backend, whoever has the states */
        int64_t end = at + 1;
        while (end < n && (pager == NULL || pieces[end].states == pieces[at].states)) {
            end++;
        }
        status = pager != NULL && pieces[at].states
                     ? qr_pager_copy_out(pager, pieces + at, end - at)
                     : simulation->ops->copy_out(simulation->backend, pieces + at, end - at);
        at = end;
    }
    return status;
}
