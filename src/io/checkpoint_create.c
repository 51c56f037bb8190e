/* Beginning and end of the server's side of checkpoints. */
#include "io/checkpoint_parts.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { END_TURN_US = 500 };

/* Awake seconds without an answer after which a disk or a server is given up, when the configuration does not say. */
static const double usual_timeout_s = 60.0;

static qr_status copy_text(const char *text, char **out)
{
    *out = strdup(text != NULL ? text : "");
    return *out != NULL ? QR_OK : qr_error_memory(text != NULL ? strlen(text) : 0, "checkpoints");
}

static qr_status copy_config(const qr_checkpoint_config *from, qr_checkpoint *checkpoint)
{
    qr_checkpoint_config *to = &checkpoint->config;
    *to = *from;
    to->replica_servers = NULL;
    to->threads = to->threads < 1 ? 1 : to->threads;
    to->timeout_s = to->timeout_s > 0.0 ? to->timeout_s : usual_timeout_s;
    to->replicas = checkpoint->has_transport && from->replica_servers != NULL && to->replicas > 0 ? to->replicas : 0;
    qr_status status = copy_text(from->deck_text, &checkpoint->deck_text);
    status = status != QR_OK ? status : copy_text(from->version, &checkpoint->version);
    to->deck_text = checkpoint->deck_text;
    to->version = checkpoint->version;
    size_t n = (size_t)to->replicas;
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(int), "checkpoints", (void **)&checkpoint->replica_servers);
    }
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(bool), "checkpoints", (void **)&checkpoint->silent);
    }
    if (status == QR_OK) {
        status = qr_allocate(n, sizeof(int), "checkpoints", (void **)&checkpoint->targets);
    }
    if (status == QR_OK && n > 0) {
        memcpy(checkpoint->replica_servers, from->replica_servers, n * sizeof(int));
    }
    to->replica_servers = checkpoint->replica_servers;
    return status;
}

static bool in_range(const qr_checkpoint_config *config)
{
    return config->server >= 0 && config->server < config->n_servers && config->state_dim >= 0 &&
           config->page_agents_votes > 0 && (config->state_dim == 0 || config->page_agents_state > 0) &&
           (config->state_dim == 0 ||
            config->page_agents_state <= INT64_MAX / (int64_t)sizeof(float) / config->state_dim);
}

static qr_status set_up_tier(qr_checkpoint *checkpoint, int number)
{
    const qr_checkpoint_config *config = &checkpoint->config;
    const qr_tier_config *wanted = &config->tiers[number];
    qr_tier *tier = &checkpoint->tiers[number];
    tier->owner = checkpoint;
    tier->number = number;
    pthread_cond_init(&tier->work, NULL);
    if (wanted->directory == NULL || wanted->directory[0] == '\0') {
        return QR_OK;
    }
    tier->capacity = wanted->capacity;
    tier->keep = wanted->keep < 1 ? 1 : wanted->keep;
    tier->codec = wanted->codec;
    tier->page_bytes[QR_PAGE_VOTES] = (size_t)config->page_agents_votes;
    tier->page_bytes[QR_PAGE_STATE] = (size_t)(config->page_agents_state * config->state_dim) * sizeof(float);
    for (int kind = QR_PAGE_VOTES; kind <= QR_PAGE_STATE; kind++) {
        size_t bound = tier->page_bytes[kind] > 0 ? qr_codec_bound(tier->codec, tier->page_bytes[kind]) : 0;
        tier->room_bytes = bound > tier->room_bytes ? bound : tier->room_bytes;
    }
    size_t rooms = QR_MOST_PACKED_BYTES / tier->room_bytes;
    tier->most_rooms = rooms > QR_MOST_PACKED ? QR_MOST_PACKED : rooms < 2 ? 2 : (int64_t)rooms;
    tier->busy = true; /* making the directory */
    tier->acts = 1;
    return copy_text(wanted->directory, &tier->directory);
}

static size_t largest_page(const qr_checkpoint_config *config)
{
    size_t votes = (size_t)config->page_agents_votes;
    size_t state = (size_t)(config->page_agents_state * config->state_dim) * sizeof(float);
    return votes > state ? votes : state;
}

static qr_status start_threads(qr_checkpoint *checkpoint)
{
    int threads = checkpoint->config.threads;
    qr_status status = qr_benches_create(threads, largest_page(&checkpoint->config), &checkpoint->benches);
    status = status != QR_OK ? status : qr_pool_create(threads, 0, &checkpoint->pool);
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        if (tier->directory == NULL) {
            continue;
        }
        int error = qr_thread_start(&tier->thread, qr_tier_write, tier);
        tier->started = error == 0;
        if (error != 0) {
            status = qr_error(QR_RESOURCE, "a thread that writes checkpoints cannot be started: %s", strerror(error));
        }
    }
    return status;
}

qr_status qr_checkpoint_create(const qr_checkpoint_config *config, qr_queue *queues, int n_queues,
                               const qr_replica_transport *transport, qr_checkpoint **out)
{
    qr_checkpoint *checkpoint = NULL;
    if (!in_range(config) || n_queues < 0) {
        return qr_error(QR_INTERNAL, "the configuration of checkpoints is out of range");
    }
    qr_status status = qr_allocate(1, sizeof *checkpoint, "checkpoints", (void **)&checkpoint);
    if (status != QR_OK) {
        return status;
    }
    pthread_mutex_init(&checkpoint->lock, NULL);
    checkpoint->queues = queues;
    checkpoint->n_queues = n_queues;
    checkpoint->has_transport = transport != NULL;
    checkpoint->transport = transport != NULL ? *transport : (qr_replica_transport){0};
    status = copy_config(config, checkpoint);
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_status next = set_up_tier(checkpoint, t);
        status = status != QR_OK ? status : next;
    }
    status = status != QR_OK ? status : start_threads(checkpoint);
    if (status != QR_OK) {
        qr_checkpoint_destroy(checkpoint, usual_timeout_s);
        return status;
    }
    *out = checkpoint;
    return QR_OK;
}

/* --- the end --- */

/* Commits under way are brought to their end; all else is given up. */
static void give_up(qr_checkpoint *checkpoint, bool ending)
{
    pthread_mutex_lock(&checkpoint->lock);
    checkpoint->ending = ending;
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        if (tier->cut != NULL && !tier->cut->commit) {
            qr_cut_give_up(tier->cut);
        }
        pthread_cond_signal(&tier->work);
    }
    pthread_mutex_unlock(&checkpoint->lock);
}

bool qr_checkpoint_clear_slots(qr_checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    bool any = checkpoint->slots_held > 0;
    pthread_mutex_unlock(&checkpoint->lock);
    if (any) {
        give_up(checkpoint, false);
    }
    return any;
}

/* Other servers' copies, and own ones, that are under way may still arrive. */
static void finish_replicas(qr_checkpoint *checkpoint, double *left_s)
{
    const struct timespec pause = {.tv_nsec = END_TURN_US * 1000L};
    qr_awake waited = {0};
    bool busy = checkpoint->has_transport;
    while (busy && qr_awake_look(&waited) < *left_s) {
        (void)qr_replicas_turn(checkpoint);
        pthread_mutex_lock(&checkpoint->lock);
        busy = qr_replicas_in_flight(checkpoint) > 0;
        pthread_mutex_unlock(&checkpoint->lock);
        nanosleep(&pause, NULL);
    }
    *left_s -= waited.seconds;
}

static void free_all(qr_checkpoint *checkpoint)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        qr_benches_destroy(tier->benches, checkpoint->config.threads);
        qr_earlier_release(tier->earlier);
        qr_kept_clear(tier);
        free(tier->written);
        free(tier->directory);
        pthread_cond_destroy(&tier->work);
    }
    qr_benches_destroy(checkpoint->benches, checkpoint->config.threads);
    pthread_mutex_destroy(&checkpoint->lock);
    free(checkpoint->completed);
    free(checkpoint->acknowledging);
    free(checkpoint->replica_servers);
    free(checkpoint->silent);
    free(checkpoint->targets);
    free(checkpoint->deck_text);
    free(checkpoint->version);
    free(checkpoint);
}

void qr_checkpoint_destroy(qr_checkpoint *checkpoint, double patience_s)
{
    if (checkpoint == NULL) {
        return;
    }
    double left_s = patience_s;
    give_up(checkpoint, false);
    finish_replicas(checkpoint, &left_s);
    give_up(checkpoint, true);
    bool all = true;
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        all = (!tier->started || qr_thread_join(tier->thread, &tier->ended, &left_s)) && all;
    }
    for (int t = 0; t < QR_N_TIERS; t++) {
        all = qr_pool_destroy(checkpoint->tiers[t].pool, &left_s) && all;
    }
    all = qr_pool_destroy(checkpoint->pool, &left_s) && all;
    if (all && qr_replicas_end(checkpoint, &left_s) && !checkpoint->kept_by_rescue) {
        free_all(checkpoint);
    }
}
