/* What a deck says of checkpoints: tiers, pages, the slots that pages wait in. */
#include "run/paging.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Of a machine's memory, at most this share holds pages on their way out. */
enum { MEMORY_SHARE = 4 };

static const qr_deck_tier *tier_of(const qr_deck *deck, int tier)
{
    switch (tier) {
    case QR_TIER_NVME: return &deck->checkpoint.tiers.nvme;
    case QR_TIER_SSD: return &deck->checkpoint.tiers.ssd;
    default: return &deck->checkpoint.tiers.hdd;
    }
}

static bool any_tier_named(const qr_deck *deck)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (tier_of(deck, t)->directory[0] != '\0') {
            return true;
        }
    }
    return false;
}

bool qr_checkpoints_wanted(const qr_deck *deck)
{
    return deck->checkpoint.every.steps > 0 || deck->checkpoint.every.seconds > 0.0 || any_tier_named(deck);
}

qr_status qr_tiers_check(const qr_deck *deck)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_codec codec;
        char key[64];
        if (qr_codec_parse(tier_of(deck, t)->compression, &codec) != QR_OK) {
            char message[QR_MESSAGE_BYTES];
            (void)snprintf(message, sizeof message, "%s", qr_error_message());
            (void)snprintf(key, sizeof key, "checkpoint.tiers.%s.compression", qr_tier_name(t));
            return qr_deck_complain(deck, key, "%s", message);
        }
        for (int other = 0; other < t; other++) {
            if (tier_of(deck, t)->directory[0] != '\0' &&
                strcmp(tier_of(deck, t)->directory, tier_of(deck, other)->directory) == 0) {
                (void)snprintf(key, sizeof key, "checkpoint.tiers.%s.directory", qr_tier_name(t));
                return qr_deck_complain(deck, key, "the same directory as tier %s; each tier needs its own",
                                        qr_tier_name(other));
            }
        }
    }
    if (deck->checkpoint.consistency != QR_CONSISTENT_ONE && deck->checkpoint.replicas == 0) {
        return qr_deck_complain(deck, "checkpoint.consistency", "without effect unless checkpoint.replicas is above 0");
    }
    return QR_OK;
}

/* No more than the largest part has, as pages are stored whole. */
int64_t qr_page_agents(const qr_simulation *simulation, int64_t bytes_an_agent)
{
    int64_t words = simulation->deck->memory.page / bytes_an_agent / QR_AGENTS_PER_WORD;
    int64_t n_words = (simulation->spec.n_agents + QR_AGENTS_PER_WORD - 1) / QR_AGENTS_PER_WORD;
    int64_t most = (n_words + simulation->comm->n_parts - 1) / simulation->comm->n_parts;
    words = words < most ? words : most;
    return (words > 0 ? words : 1) * QR_AGENTS_PER_WORD;
}

static int64_t state_bytes(const qr_deck *deck)
{
    return strcmp(deck->model.rule, "neural") == 0 ? deck->model.state_dim * (int64_t)sizeof(float) : 0;
}

static int64_t pages_of(int64_t agents, int64_t page_agents)
{
    return (agents + page_agents - 1) / page_agents;
}

int64_t qr_page_count(const qr_simulation *simulation, int part)
{
    const qr_deck *deck = simulation->deck;
    int64_t own = qr_partition_range(simulation->spec.n_agents, simulation->comm->n_parts, part).count;
    int64_t pages = pages_of(own, qr_page_agents(simulation, 1));
    return state_bytes(deck) > 0 ? pages + pages_of(own, qr_page_agents(simulation, state_bytes(deck))) : pages;
}

qr_queue_shape qr_shape_of_queue(const qr_simulation *simulation, int part)
{
    const qr_deck *deck = simulation->deck;
    int64_t paging = qr_paging_slots(simulation);
    qr_queue_shape shape = {.n_slots = (int32_t)(deck->io.slots + paging), .slot_bytes = deck->io.slot_size};
    if (!qr_checkpoints_wanted(deck) && paging == 0) {
        return shape;
    }
    int64_t page = qr_page_agents(simulation, 1);
    if (state_bytes(deck) > 0) {
        int64_t of_state = qr_page_agents(simulation, state_bytes(deck)) * state_bytes(deck);
        page = of_state > page ? of_state : page;
    }
    shape.slot_bytes = page > shape.slot_bytes ? page : shape.slot_bytes;
    if (!qr_checkpoints_wanted(deck)) {
        return shape;
    }
    int64_t wanted = qr_page_count(simulation, part);
    int64_t limit = deck->checkpoint.staging;
    if (limit == 0) {
        int64_t have = qr_machine_memory();
        limit = have > 0 ? have / MEMORY_SHARE / simulation->comm->n_parts : wanted * shape.slot_bytes;
    }
    int64_t room = limit / shape.slot_bytes;
    int64_t slots = shape.n_slots + (wanted < room ? wanted : room);
    shape.n_slots = (int32_t)(slots < QR_MOST_SLOTS ? slots : QR_MOST_SLOTS);
    return shape;
}

qr_status qr_expand_node(const char *pattern, int node, char **out)
{
    static const char mark[] = "{node}";
    char number[16];
    (void)snprintf(number, sizeof number, "%d", node);
    size_t bytes = 1;
    for (const char *at = pattern; *at != '\0';) {
        bool marked = strncmp(at, mark, sizeof mark - 1) == 0;
        bytes += marked ? strlen(number) : 1;
        at += marked ? sizeof mark - 1 : 1;
    }
    char *text = NULL;
    qr_status status = qr_allocate(bytes, 1, "a path", (void **)&text);
    if (status != QR_OK) {
        return status;
    }
    size_t used = 0;
    for (const char *at = pattern; *at != '\0';) {
        bool marked = strncmp(at, mark, sizeof mark - 1) == 0;
        if (marked) {
            used += (size_t)snprintf(text + used, bytes - used, "%s", number);
            at += sizeof mark - 1;
        } else {
            text[used++] = *at++;
        }
    }
    *out = text;
    return QR_OK;
}

qr_status qr_tier_pattern(const qr_deck *deck, int tier, char **out)
{
    static const char folder[] = "/checkpoints";
    const char *named = tier_of(deck, tier)->directory;
    bool standard = named[0] == '\0';
    *out = NULL;
    if (standard && (tier != QR_TIER_NVME || any_tier_named(deck) || !qr_checkpoints_wanted(deck))) {
        return QR_OK;
    }
    const char *base = standard ? deck->output.directory : named;
    size_t bytes = strlen(base) + sizeof folder;
    qr_status status = qr_allocate(bytes, 1, "a path", (void **)out);
    if (status == QR_OK) {
        (void)snprintf(*out, bytes, "%s%s", base, standard ? folder : "");
    }
    return status;
}

qr_status qr_tier_directory(const qr_deck *deck, int tier, int node, char **out)
{
    const char *named = tier_of(deck, tier)->directory;
    return named[0] != '\0' ? qr_expand_node(named, node, out) : qr_tier_pattern(deck, tier, out);
}

/* A server without compute ranks ends as soon as it has begun. */
static bool serves_anybody(const qr_comm *comm, int server)
{
    for (int part = 0; part < comm->n_parts; part++) {
        if (comm->all[comm->world_of_part[part]].server == server) {
            return true;
        }
    }
    return false;
}

/* Servers of the nodes that follow, one a node: [*n] numbers, malloc'd. */
static qr_status choose_replica_servers(const qr_simulation *simulation, int server, int **out, int *n)
{
    const qr_comm *comm = simulation->comm;
    int wanted = (int)simulation->deck->checkpoint.replicas;
    int *chosen = NULL;
    qr_status status = qr_allocate((size_t)wanted + 1, sizeof *chosen, "replicas", (void **)&chosen);
    if (status != QR_OK) {
        return status;
    }
    *n = 0;
    for (int ahead = 1; ahead < comm->n_nodes && *n < wanted; ahead++) {
        int node = (comm->me.node + ahead) % comm->n_nodes;
        int first = -1;
        int count = 0;
        for (int rank = 0; rank < comm->size; rank++) {
            if (comm->all[rank].node == node && comm->all[rank].role == QR_ROLE_IO &&
                serves_anybody(comm, comm->all[rank].server)) {
                first = first < 0 || comm->all[rank].server < first ? comm->all[rank].server : first;
                count++;
            }
        }
        if (count > 0) {
            chosen[(*n)++] = first + server % count;
        }
    }
    *out = chosen;
    return QR_OK;
}

int qr_threads_of_server(const qr_simulation *simulation)
{
    if (simulation->deck->io.threads > 0) {
        return (int)simulation->deck->io.threads;
    }
    int ranks_here = 0;
    MPI_Comm_size(simulation->comm->node, &ranks_here);
    int share = qr_machine_cores() / (ranks_here > 0 ? ranks_here : 1);
    return share > 0 ? share : 1;
}

qr_status qr_tiers_configure(const qr_simulation *simulation, int server, qr_checkpoint_config *out)
{
    const qr_deck *deck = simulation->deck;
    const qr_comm *comm = simulation->comm;
    qr_status status = QR_OK;
    *out = (qr_checkpoint_config){.enabled = qr_checkpoints_wanted(deck),
                                  .server = server,
                                  .n_servers = comm->n_servers,
                                  .state_dim = state_bytes(deck) / (int64_t)sizeof(float),
                                  .n_options = deck->agents.options,
                                  .page_agents_votes = qr_page_agents(simulation, 1),
                                  .page_agents_state =
                                      state_bytes(deck) > 0 ? qr_page_agents(simulation, state_bytes(deck)) : 0,
                                  .incremental = deck->checkpoint.incremental,
                                  .threads = qr_threads_of_server(simulation),
                                  .deck_text = simulation->used_text,
                                  .timeout_s = deck->io.timeout / 2, /* before anybody gives up waiting for a slot */
                                  .consistency = (qr_consistency)deck->checkpoint.consistency};
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        const qr_deck_tier *tier = tier_of(deck, t);
        char *directory = NULL;
        status = qr_tier_directory(deck, t, comm->me.node, &directory);
        out->tiers[t].directory = directory;
        out->tiers[t].capacity = tier->capacity;
        out->tiers[t].keep = tier->keep > 0 ? tier->keep : deck->checkpoint.keep;
        status = status == QR_OK ? qr_codec_parse(tier->compression, &out->tiers[t].codec) : status;
    }
    if (status == QR_OK && out->enabled && deck->checkpoint.replicas > 0) {
        int *servers = NULL;
        status = choose_replica_servers(simulation, server, &servers, &out->replicas);
        out->replica_servers = servers;
    }
    return status;
}

void qr_tiers_clear(qr_checkpoint_config *config)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        free((char *)(uintptr_t)config->tiers[t].directory);
        config->tiers[t].directory = NULL;
    }
    free((int *)(uintptr_t)config->replica_servers);
    config->replica_servers = NULL;
}
