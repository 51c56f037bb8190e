/* Whether states are paged, and what will lie where. */
#include "run/paging.h"

#include "io/page_store.h"
#include "io/room.h"

#include <stdlib.h>
#include <string.h>

/* `auto` leaves an eighth of what is free, and no less than this much of it where there is more. */
enum { AUTO_SHARE = 8 };
#define LEAST_ROOM (INT64_C(256) << 20)

/* Prefetch by itself; slots for pages that are asked for or leave at that moment. */
enum { AHEAD_BYTES = 64 << 20, LEAST_AHEAD = 2, MOST_AHEAD = 64, SPARE_SLOTS = 4 };

const qr_deck_memory_tier *qr_paging_disk(const qr_deck *deck, int tier)
{
    switch (tier) {
    case QR_TIER_NVME: return &deck->memory.tiers.nvme;
    case QR_TIER_SSD: return &deck->memory.tiers.ssd;
    default: return &deck->memory.tiers.hdd;
    }
}

/* Of a queue: pages that come, as many that leave, and some that are asked for at that moment. */
static int64_t slots_of_pages(int64_t ahead)
{
    return 2 * ahead + SPARE_SLOTS;
}

/* --- what the deck says --- */

/* The path without what has no effect in it: doubled slashes, and folders named ".". In place. */
static void simplify(char *path)
{
    size_t kept = path[0] == '/' ? 1 : 0;
    for (size_t at = kept; path[at] != '\0';) {
        size_t n = strcspn(path + at, "/");
        if (n > 0 && !(n == 1 && path[at] == '.')) {
            if (kept > 0 && path[kept - 1] != '/') {
                path[kept++] = '/';
            }
            memmove(path + kept, path + at, n);
            kept += n;
        }
        at += n;
        at += path[at] == '/' ? 1 : 0;
    }
    path[kept] = '\0';
}

static qr_status is_same_path(const char *a, const char *b, bool *same)
{
    char *first = strdup(a);
    char *second = strdup(b);
    qr_status status = QR_OK;
    *same = false;
    if (first != NULL && second != NULL) {
        simplify(first);
        simplify(second);
        *same = strcmp(first, second) == 0;
    } else {
        status = qr_error_memory(strlen(a) + strlen(b), "paths");
    }
    free(first);
    free(second);
    return status;
}

/* Of the directory of a tier of memory: not that of another one above it, nor of checkpoints. */
static qr_status check_directory(const qr_deck *deck, int t, const char *key)
{
    const char *directory = qr_paging_disk(deck, t)->directory;
    bool same = false;
    for (int other = 0; other < t; other++) {
        const char *taken = qr_paging_disk(deck, other)->directory;
        qr_status status = taken[0] != '\0' ? is_same_path(directory, taken, &same) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        if (same) {
            return qr_deck_complain(deck, key, "the same directory as memory.tiers.%s; each tier needs its own",
                                    qr_tier_name(other));
        }
    }
    for (int other = 0; other < QR_N_TIERS; other++) {
        char *taken = NULL;
        qr_status status = qr_tier_pattern(deck, other, &taken);
        if (status == QR_OK && taken != NULL) {
            status = is_same_path(directory, taken, &same);
        }
        free(taken);
        if (status != QR_OK) {
            return status;
        }
        if (same) {
            return qr_deck_complain(deck, key,
                                    "the directory of checkpoints (tier %s); states on their way need one of their own",
                                    qr_tier_name(other));
        }
    }
    return QR_OK;
}

/* A queue holds so many slots and no more: those for pages come on top of the others. */
static qr_status check_slots(const qr_deck *deck)
{
    int64_t ahead = deck->memory.prefetch.ahead > 0 ? deck->memory.prefetch.ahead : MOST_AHEAD;
    int64_t room = QR_MOST_SLOTS - slots_of_pages(ahead);
    bool on_disk = false;
    for (int t = 0; t < QR_N_TIERS; t++) {
        on_disk = on_disk || qr_paging_disk(deck, t)->directory[0] != '\0';
    }
    return !on_disk || deck->io.slots <= room
               ? QR_OK
               : qr_deck_complain(
                     deck, "io.slots",
                     "%lld slots, and %lld for pages on their way to and from disks (memory.prefetch.ahead), "
                     "are more than the %d that there may be; here io.slots may be %lld at most",
                     (long long)deck->io.slots, (long long)(QR_MOST_SLOTS - room), (int)QR_MOST_SLOTS, (long long)room);
}

qr_status qr_paging_check(const qr_deck *deck)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_codec codec;
        char key[64];
        if (qr_codec_parse(qr_paging_disk(deck, t)->compression, &codec) != QR_OK) {
            char message[QR_MESSAGE_BYTES];
            (void)snprintf(message, sizeof message, "%s", qr_error_message());
            (void)snprintf(key, sizeof key, "memory.tiers.%s.compression", qr_tier_name(t));
            return qr_deck_complain(deck, key, "%s", message);
        }
        (void)snprintf(key, sizeof key, "memory.tiers.%s.directory", qr_tier_name(t));
        qr_status status = qr_paging_disk(deck, t)->directory[0] != '\0' ? check_directory(deck, t, key) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        (void)snprintf(key, sizeof key, "memory.tiers.%s.capacity", qr_tier_name(t));
        if (qr_paging_disk(deck, t)->directory[0] == '\0' && qr_paging_disk(deck, t)->capacity > 0) {
            return qr_deck_complain(deck, key, "without effect unless memory.tiers.%s.directory is given",
                                    qr_tier_name(t));
        }
    }
    return check_slots(deck);
}

/* --- what will lie where --- */

int64_t qr_paging_auto_bytes(int64_t free_bytes)
{
    int64_t room = free_bytes / AUTO_SHARE > LEAST_ROOM ? free_bytes / AUTO_SHARE : LEAST_ROOM;
    return free_bytes - qr_min64(room, free_bytes / 2);
}

static int64_t page_bytes(const qr_paging *paging)
{
    return paging->page_agents * paging->agent_bytes;
}

static int64_t stored_bytes(const qr_paging *paging)
{
    return qr_page_store_place_bytes(page_bytes(paging));
}

static qr_status too_small(const qr_deck *deck, const qr_paging *paging, const qr_paging_place *place, const char *tier,
                           int64_t least)
{
    char key[64];
    (void)snprintf(key, sizeof key, "memory.tiers.%s.capacity", tier);
    return qr_deck_complain(deck, key,
                            "does not hold one page of %lld bytes for each of %d compute rank%s; it needs %lld B, or "
                            "memory.page a smaller size",
                            (long long)page_bytes(paging), place->ranks_here, place->ranks_here == 1 ? "" : "s",
                            (long long)least);
}

static qr_status plan_gpu(const qr_deck *deck, const qr_paging_place *place, qr_paging *paging)
{
    qr_memory_tier_config *tier = &paging->tiers[QR_MEMORY_GPU];
    int64_t capacity = deck->memory.tiers.gpu.capacity;
    if (!place->on_device) {
        return QR_OK;
    }
    tier->used = true;
    tier->age_s = deck->memory.tiers.gpu.age;
    tier->pages = capacity > 0 ? capacity / page_bytes(paging) : place->device_frames;
    if (capacity > 0 && tier->pages == 0) {
        return too_small(deck, paging, place, "gpu", page_bytes(paging));
    }
    if (capacity == 0) {
        paging->auto_free[QR_MEMORY_GPU] = place->device_free;
    }
    return QR_OK;
}

/* On a device, pages under way need some memory of the host beside those that stay (qr_pager_spare_pages). */
static qr_status plan_cpu(const qr_deck *deck, const qr_paging_place *place, qr_paging *paging)
{
    qr_memory_tier_config *tier = &paging->tiers[QR_MEMORY_CPU];
    int64_t capacity = deck->memory.tiers.cpu.capacity;
    int64_t spare = place->on_device ? (2 * paging->ahead + 2) * page_bytes(paging) * place->ranks_on_machine : 0;
    int64_t free_bytes = place->free_bytes > spare ? place->free_bytes - spare : 0;
    tier->used = true;
    tier->age_s = deck->memory.tiers.cpu.age;
    tier->pages =
        (capacity > 0 ? capacity / place->ranks_here : qr_paging_auto_bytes(free_bytes) / place->ranks_on_machine) /
        page_bytes(paging);
    if (capacity > 0 && tier->pages == 0) {
        return too_small(deck, paging, place, "cpu", page_bytes(paging) * place->ranks_here);
    }
    if (capacity == 0) {
        paging->auto_free[QR_MEMORY_CPU] = place->free_bytes;
        tier->pages = tier->pages > 0 || place->on_device ? tier->pages : 1;
    }
    tier->used = tier->pages > 0;
    return QR_OK;
}

/* Bytes of a disk that this rank may have: its share of what is free, less what tiers above take of the same one. */
static int64_t free_share(const qr_deck *deck, int t, const qr_paging_place *place, const qr_paging *paging)
{
    const qr_paging_disk_room *room = &place->disks[t];
    bool is_auto = qr_paging_disk(deck, t)->capacity == 0;
    int64_t bytes = is_auto ? qr_paging_auto_bytes(room->free_bytes) : room->free_bytes;
    bytes /= room->sharers > 0 ? room->sharers : 1; /* 0: nothing is known of it, and nothing is there */
    for (int above = 0; above < t; above++) {
        if (paging->tiers[QR_MEMORY_NVME + above].used && place->disks[above].device == room->device) {
            bytes -= paging->tiers[QR_MEMORY_NVME + above].pages * stored_bytes(paging);
        }
    }
    return bytes > 0 ? bytes : 0;
}

/* A page that is asked for leaves its disk before another one takes its place; where checkpoints keep what was there,
 * the new one waits for them. So the room of the pages that stay is enough. */
static qr_status plan_disk(const qr_deck *deck, int t, const qr_paging_place *place, qr_paging *paging)
{
    const qr_deck_memory_tier *disk = qr_paging_disk(deck, t);
    qr_memory_tier_config *tier = &paging->tiers[QR_MEMORY_NVME + t];
    paging->room[t] = place->disks[t];
    if (disk->directory[0] == '\0') {
        return QR_OK;
    }
    tier->used = true;
    tier->age_s = t + 1 < QR_N_TIERS ? disk->age : 0.0;
    int64_t told = disk->capacity > 0 ? disk->capacity / place->ranks_here / stored_bytes(paging) : INT64_MAX;
    int64_t room = free_share(deck, t, place, paging) / stored_bytes(paging);
    paging->room[t].is_limit = room < told && room < paging->n_pages;
    tier->pages = qr_min64(qr_min64(told, room), paging->n_pages); /* none for a rank without agents */
    return told > 0 ? QR_OK : too_small(deck, paging, place, qr_tier_name(t), stored_bytes(paging) * place->ranks_here);
}

static int64_t choose_ahead(const qr_deck *deck, int64_t bytes)
{
    int64_t pages = AHEAD_BYTES / bytes;
    pages = pages < LEAST_AHEAD ? LEAST_AHEAD : pages > MOST_AHEAD ? MOST_AHEAD : pages;
    return deck->memory.prefetch.ahead > 0 ? deck->memory.prefetch.ahead : pages;
}

/* What a tier has, and the key that would give it more. Returns whether it is the machine that sets its limit. */
static bool name_limit(const qr_paging *paging, int m, char *tiers, size_t n_tiers, char *keys, size_t n_keys)
{
    const qr_memory_tier_config *tier = &paging->tiers[m];
    const char *name = qr_memory_tier_name((qr_memory_tier)m);
    const char *comma = keys[0] != '\0' ? ", " : "";
    bool disk = m >= QR_MEMORY_NVME;
    bool limit = tier->used && (disk ? paging->room[m - QR_MEMORY_NVME].is_limit : paging->auto_free[m] > 0);
    char bytes[32];
    if (tier->used) {
        qr_paging_append(tiers, n_tiers, "%s%s %s", tiers[0] != '\0' ? ", " : "", name,
                         qr_bytes_text((double)(tier->pages * page_bytes(paging)), bytes));
    }
    if (limit && disk) {
        qr_paging_append(keys, n_keys, "%sroom on the disk of memory.tiers.%s.directory (%s free)", comma, name,
                         qr_bytes_text((double)paging->room[m - QR_MEMORY_NVME].free_bytes, bytes));
    } else if (disk && !tier->used) {
        qr_paging_append(keys, n_keys, "%smemory.tiers.%s.directory", comma, name);
    } else if (tier->used && !limit) {
        qr_paging_append(keys, n_keys, "%smemory.tiers.%s.capacity", comma, name);
    }
    return limit;
}

/* Bytes needed, bytes there, and what would help. */
static qr_status does_not_fit(const qr_paging *paging)
{
    char tiers[256] = "";
    char keys[512] = "";
    char needed[32];
    char there[32];
    char missing[32];
    bool limited = false;
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        limited = name_limit(paging, m, tiers, sizeof tiers, keys, sizeof keys) || limited;
    }
    int64_t lack = paging->n_pages * page_bytes(paging) - paging->there_bytes;
    return qr_error(
        limited ? QR_RESOURCE : QR_USAGE,
        "the states of a compute rank take %s (%lld bytes, %lld pages), and memory.tiers hold %s (%lld "
        "bytes) of each rank's: %s; %s (%lld bytes) are missing. What helps: %s, more nodes, or fewer agents or a "
        "smaller model.state_dim",
        qr_bytes_text((double)paging->needed_bytes, needed), (long long)paging->needed_bytes,
        (long long)paging->n_pages, qr_bytes_text((double)paging->there_bytes, there), (long long)paging->there_bytes,
        tiers, qr_bytes_text((double)lack, missing), (long long)lack, keys);
}

qr_status qr_paging_plan(const qr_deck *deck, const qr_paging_place *place, qr_paging *paging)
{
    qr_memory_tier first = place->on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    *paging = (qr_paging){.on_device = place->on_device,
                          .page_agents = place->page_agents,
                          .agent_bytes = place->agent_bytes,
                          .n_pages = (place->own + place->page_agents - 1) / place->page_agents,
                          .node = place->node,
                          .needed_bytes = place->own * place->agent_bytes};
    paging->ahead = choose_ahead(deck, page_bytes(paging));
    qr_status status = plan_gpu(deck, place, paging);
    status = status == QR_OK ? plan_cpu(deck, place, paging) : status;
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        status = plan_disk(deck, t, place, paging);
        paging->on_disk = paging->on_disk || paging->tiers[QR_MEMORY_NVME + t].used;
    }
    if (status != QR_OK) {
        return status;
    }
    for (int m = 0; m < QR_N_MEMORY_TIERS; m++) {
        qr_memory_tier_config *tier = &paging->tiers[m];
        tier->pages = tier->used ? qr_min64(tier->pages, paging->n_pages) : 0;
        paging->there_bytes += tier->pages * page_bytes(paging);
        int64_t taken = tier->pages * page_bytes(paging) * (m == QR_MEMORY_CPU ? place->ranks_on_machine : 1);
        paging->auto_left[m] = paging->auto_free[m] > taken ? paging->auto_free[m] - taken : 0;
    }
    bool limited = first == QR_MEMORY_GPU || deck->memory.tiers.cpu.capacity > 0 || paging->on_disk;
    paging->wanted = paging->tiers[first].pages < paging->n_pages && limited;
    paging->plan = qr_page_plan_make(paging->n_pages, paging->tiers, place->on_device);
    return !paging->wanted || paging->plan.fits ? QR_OK : does_not_fit(paging);
}

/* --- of a run --- */

/* What the rest of a rank will take of the node's memory, about: votes, network, slots. */
static int64_t rest_bytes(const qr_simulation *simulation, const qr_model *model, int part)
{
    qr_memory_need need = qr_estimate_part(simulation, model, part);
    return qr_memory_need_bytes(&need) - need.states;
}

/* Free bytes of the disks that the deck names; nothing is made there. */
static qr_status look_at_disks(const qr_simulation *simulation, qr_paging_place *place)
{
    qr_status status = QR_OK;
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        const char *named = qr_paging_disk(simulation->deck, t)->directory;
        char *directory = NULL;
        qr_io_room room = {0};
        if (named[0] == '\0') {
            continue;
        }
        status = qr_expand_node(named, place->node, &directory);
        status = status == QR_OK ? qr_io_probe_room(directory, "memory tier's", &room) : status;
        if (status == QR_OK) {
            place->disks[t] =
                (qr_paging_disk_room){.free_bytes = room.free_bytes + qr_page_store_abandoned_bytes(directory),
                                      .device = room.device,
                                      .sharers = room.is_shared ? simulation->comm->n_parts : place->ranks_on_machine};
        }
        free(directory);
    }
    return status;
}

/* A directory that cannot be had is no harm where all states fit above. */
static qr_status plan_here(qr_simulation *simulation, qr_paging_place *place)
{
    qr_paging *paging = &simulation->paging;
    bool there = look_at_disks(simulation, place) == QR_OK;
    qr_status status = qr_paging_plan(simulation->deck, place, paging);
    bool needs_disks = status != QR_OK || paging->wanted;
    status = there || !needs_disks ? status : look_at_disks(simulation, place);
    return status == QR_OK ? QR_OK : qr_error_context(status, "compute rank %d", simulation->comm->me.part);
}

static qr_paging_place find_place(const qr_simulation *simulation, const qr_model *model)
{
    const qr_comm *comm = simulation->comm;
    qr_paging_place place = {.agent_bytes = model->state_dim * (int64_t)sizeof(float),
                             .own = qr_partition_range(simulation->spec.n_agents, comm->n_parts, comm->me.part).count,
                             .node = comm->me.node,
                             .ranks_on_machine = qr_ranks_of_machine(comm, NULL),
                             .free_bytes = qr_machine_free_memory()};
    place.page_agents = qr_page_agents(simulation, place.agent_bytes);
    for (int part = 0; part < comm->n_parts; part++) {
        const qr_place_in_job *other = &comm->all[comm->world_of_part[part]];
        place.ranks_here += other->node == comm->me.node ? 1 : 0;
        place.free_bytes -= other->machine == comm->me.machine ? rest_bytes(simulation, model, part) : 0;
    }
    place.free_bytes = place.free_bytes > 0 ? place.free_bytes : 0;
    return place;
}

/* Pages come and go by the server's threads, which threads that wait for their next step would keep from working. */
static int spare_a_thread(const qr_simulation *simulation, int threads)
{
    const qr_paging *paging = &simulation->paging;
    bool spare = paging->wanted && paging->on_disk && simulation->deck->compute.threads == 0 && threads > 1;
    return spare ? threads - 1 : threads;
}

qr_status qr_paging_decide(qr_simulation *simulation, qr_backend_setup *setup)
{
    const qr_deck *deck = simulation->deck;
    const qr_frame_ops *frames = simulation->ops->frames;
    qr_paging *paging = &simulation->paging;
    if (simulation->model->state_dim == 0 || frames == NULL) {
        return QR_OK;
    }
    /* All look before anybody takes memory. */
    qr_paging_place place = find_place(simulation, simulation->model);
    MPI_Barrier(simulation->comm->compute);
    qr_status status = QR_OK;
    setup->page_agents = place.page_agents;
    place.on_device = frames->memory == NULL;
    if (place.on_device && deck->memory.tiers.gpu.capacity == 0) {
        status = frames->room(setup, &place.device_frames, &place.device_free);
    }
    status = status == QR_OK ? plan_here(simulation, &place)
                             : qr_error_context(status, "compute rank %d", simulation->comm->me.part);
    status = qr_comm_agree(simulation->comm->compute, status);
    int wanted = paging->wanted ? 1 : 0;
    MPI_Allreduce(MPI_IN_PLACE, &wanted, 1, MPI_INT, MPI_MAX, simulation->comm->compute);
    paging->wanted = wanted != 0;
    setup->page_agents = paging->wanted ? place.page_agents : 0;
    int64_t n_frames = paging->tiers[place.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU].pages;
    simulation->threads = spare_a_thread(simulation, simulation->threads);
    setup->threads = simulation->threads;
    setup->n_frames = !paging->wanted ? 0 : n_frames > 0 ? n_frames : 1;
    return status;
}

/* Room on a GPU before there is a network: its lists are taken off by what they are expected to be. */
static qr_status look_at_device(const qr_simulation *simulation, const qr_model *model, qr_paging_place *place)
{
    const qr_comm *comm = simulation->comm;
    const qr_network_spec *spec = &simulation->spec;
    qr_range own = qr_partition_range(spec->n_agents, comm->n_parts, comm->me.part);
    qr_network network = {.spec = *spec,
                          .n_parts = comm->n_parts,
                          .part = comm->me.part,
                          .own = own,
                          .view = qr_estimate_view(spec, own.count)};
    qr_backend_setup setup = {.model = model, .network = &network, .page_agents = place->page_agents};
    setup.places = qr_ranks_of_machine(comm, &setup.place);
    qr_status status = simulation->ops->frames->room(&setup, &place->device_frames, &place->device_free);
    int64_t frame = place->page_agents * place->agent_bytes;
    int64_t lists = (qr_network_list_bytes(spec, own.count) + frame - 1) / frame;
    place->device_frames -= qr_min64(lists, place->device_frames);
    return status;
}

qr_status qr_paging_foresee(qr_simulation *simulation, const qr_model *model)
{
    const qr_frame_ops *frames = simulation->ops->frames;
    bool is_auto = simulation->deck->memory.tiers.gpu.capacity == 0;
    bool is_here = frames != NULL && frames->memory == NULL;
    simulation->threads = qr_threads_of_rank(simulation);
    if (model->state_dim == 0 || (simulation->on_device && is_auto && !is_here)) {
        return QR_OK;
    }
    qr_paging_place place = find_place(simulation, model);
    place.on_device = simulation->on_device;
    qr_status status = QR_OK;
    if (is_here && is_auto) {
        status = look_at_device(simulation, model, &place);
    }
    status = status == QR_OK ? plan_here(simulation, &place)
                             : qr_error_context(status, "compute rank %d", simulation->comm->me.part);
    simulation->threads = spare_a_thread(simulation, simulation->threads);
    return status;
}

void qr_paging_share(qr_simulation *simulation)
{
    qr_paging *paging = &simulation->paging;
    int answers[2] = {paging->wanted ? 1 : 0, paging->wanted && paging->on_disk ? 1 : 0};
    MPI_Allreduce(MPI_IN_PLACE, answers, 2, MPI_INT, MPI_MAX, simulation->comm->world);
    paging->wanted = answers[0] != 0;
    paging->on_disk = answers[1] != 0;
}

int64_t qr_paging_slots(const qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    int64_t agent = deck->model.state_dim * (int64_t)sizeof(float);
    if (!simulation->paging.wanted || !simulation->paging.on_disk) {
        return 0;
    }
    return slots_of_pages(choose_ahead(deck, qr_page_agents(simulation, agent) * agent));
}

int64_t qr_paging_resident_bytes(const qr_paging *paging)
{
    int64_t pages = paging->tiers[QR_MEMORY_CPU].pages;
    return paging->wanted ? pages * page_bytes(paging) : paging->needed_bytes;
}
