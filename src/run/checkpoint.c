/* Checkpoints as the compute ranks decide on them. What a server has done stands on its board; the lowest compute rank
 * of each server reads it and says so with the next reduction. So all ranks see the same sums, and take the same
 * decisions at the same step without a message of their own. */
#include "run/simulation.h"

#include "base/log.h"
#include "io/manifest.h"
#include "quorate_version.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A tier that fails so often in a row is not tried again. */
enum { MOST_STRIKES = 2 };

/* Between two looks while nothing else is done. */
enum { PAUSE_US = 2000 };

static int first_tier(const qr_checkpoints *c)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (c->tiers[t].used && !c->tiers[t].given_up) {
            return t;
        }
    }
    return -1;
}

/* The tier before this one in use; -1 for the first. */
static int tier_before(const qr_checkpoints *c, int tier)
{
    for (int t = tier - 1; t >= 0; t--) {
        if (c->tiers[t].used && !c->tiers[t].given_up) {
            return t;
        }
    }
    return -1;
}

static void count_leads(qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    qr_checkpoints *c = &simulation->checkpoints;
    int last = -1;
    for (int part = 0; part < comm->n_parts; part++) { /* servers ascend with parts */
        int server = comm->all[comm->world_of_part[part]].server;
        if (server != last) {
            c->n_leads++;
            c->leads = c->leads || part == comm->me.part;
        }
        last = server;
    }
}

qr_status qr_checkpoints_begin(qr_simulation *simulation)
{
    qr_checkpoints *c = &simulation->checkpoints;
    const qr_deck *deck = simulation->deck;
    c->enabled = qr_checkpoints_wanted(deck);
    if (!c->enabled) {
        return QR_OK;
    }
    count_leads(simulation);
    c->restart_step = simulation->restarted ? simulation->step : -1;
    c->due_s = qr_now_s() + deck->checkpoint.every.seconds;
    c->looked_s = qr_now_s();
    c->next_generation = c->next_generation > 0 ? c->next_generation : 1;
    qr_status status = QR_OK;
    for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
        char *directory = NULL;
        status = qr_tier_directory(deck, t, simulation->comm->me.node, &directory);
        c->tiers[t].used = directory != NULL;
        free(directory);
    }
    qr_slab_prepare(simulation);
    return status;
}

static bool stands_still(const qr_tier_post *before, const qr_tier_post *now)
{
    return before->generation == now->generation && before->state == now->state &&
           before->pages_left == now->pages_left && before->raw_bytes == now->raw_bytes &&
           before->stored_bytes == now->stored_bytes && before->retired == now->retired &&
           before->copied_bytes == now->copied_bytes;
}

/* Reads the board; counts for how long a tier's line has stood still. As in the queue, only time in which this rank was
 * awake counts. */
static void look(qr_simulation *simulation)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_checkpoint_post post;
    double now = qr_now_s();
    double passed = now - c->looked_s < 1.0 ? now - c->looked_s : 1.0;
    c->looked_s = now;
    bool read = qr_queue_read_board(&simulation->results.queue, &post, sizeof post);
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_tier_state *tier = &c->tiers[t];
        bool same = !read || stands_still(&tier->seen, &post.tiers[t]);
        tier->awake_since = same ? tier->awake_since + passed : 0.0;
        if (read) {
            tier->seen = post.tiers[t];
        }
    }
    if (read) {
        c->clearing = post.replicas_in_flight + post.retirements;
        c->replicas_missing = post.replicas_missing;
    }
}

/* A server that is done waits for the others, for as long as they get ahead. */
static bool is_done(const qr_tier_state *tier)
{
    return tier->seen.generation == tier->in_flight &&
           tier->seen.state == (tier->committing ? QR_CUT_COMMITTED : QR_CUT_READY);
}

static bool hangs(const qr_simulation *simulation, const qr_tier_state *tier)
{
    return tier->in_flight != 0 && !is_done(tier) && tier->awake_since > simulation->deck->io.timeout;
}

static bool has_failed(const qr_simulation *simulation, const qr_tier_state *tier)
{
    return (tier->seen.generation == tier->in_flight && tier->seen.state == QR_CUT_FAILED) || hangs(simulation, tier);
}

void qr_checkpoints_note(qr_simulation *simulation, qr_notes *notes)
{
    qr_checkpoints *c = &simulation->checkpoints;
    const qr_deck *deck = simulation->deck;
    if (!c->enabled) {
        return;
    }
    if (simulation->comm->me.part == 0 && deck->checkpoint.every.seconds > 0.0 && qr_now_s() >= c->due_s) {
        notes->checkpoint_due = 1;
        c->due_s = qr_now_s() + deck->checkpoint.every.seconds;
    }
    if (!c->leads) {
        return;
    }
    look(simulation);
    notes->clearing = c->clearing;
    for (int t = 0; t < QR_N_TIERS; t++) {
        const qr_tier_state *tier = &c->tiers[t];
        if (tier->in_flight == 0) {
            continue;
        }
        bool speaks = tier->seen.generation == tier->in_flight;
        notes->tier_failed[t] = has_failed(simulation, tier) ? 1 : 0;
        notes->tier_ready[t] = speaks && !tier->committing && tier->seen.state == QR_CUT_READY ? 1 : 0;
        notes->tier_committed[t] = speaks && tier->committing && tier->seen.state == QR_CUT_COMMITTED ? 1 : 0;
    }
}

static qr_status submit(qr_simulation *simulation, qr_job *job)
{
    return qr_queue_submit(&simulation->results.queue, job, simulation->results.timeout_s);
}

/* --- a failed tier --- */

static qr_status say_hanging(const qr_simulation *simulation, int t)
{
    const qr_place_in_job *me = &simulation->comm->me;
    char *directory = NULL;
    qr_status status = qr_tier_directory(simulation->deck, t, me->node, &directory);
    if (status == QR_OK) {
        status = qr_error(QR_TRANSIENT, "%s: I/O server %d on node %d has not got ahead for %.3g s",
                          directory != NULL ? directory : "", me->server, me->node, simulation->deck->io.timeout);
    }
    free(directory);
    return status;
}

/* The gravest cause on all ranks becomes the message. */
static qr_status find_cause(qr_simulation *simulation, int t)
{
    const qr_tier_state *tier = &simulation->checkpoints.tiers[t];
    qr_status mine = QR_OK;
    if (simulation->checkpoints.leads && hangs(simulation, tier)) {
        mine = say_hanging(simulation, t);
    } else if (simulation->checkpoints.leads && has_failed(simulation, tier)) {
        mine = qr_error(tier->seen.status != QR_OK ? (qr_status)tier->seen.status : QR_DATA, "%s", tier->seen.message);
    }
    return qr_comm_agree(simulation->comm->compute, mine);
}

static void say_unprotected(qr_simulation *simulation)
{
    qr_checkpoints *c = &simulation->checkpoints;
    c->unprotected = true;
    if (simulation->comm->me.part == 0 && !simulation->deck->checkpoint.required) {
        qr_warning("no tier is left for checkpoints: from step %lld on the run is unprotected",
                   (long long)simulation->step);
    }
}

static qr_status give_up_cut(qr_simulation *simulation, int t)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_tier_state *tier = &c->tiers[t];
    qr_status cause = find_cause(simulation, t);
    char message[QR_MESSAGE_BYTES];
    (void)snprintf(message, sizeof message, "%s", qr_error_message());
    qr_status status = QR_OK;
    if (c->leads) {
        qr_job job = {.kind = QR_JOB_CUT_ABANDON,
                      .step = simulation->step,
                      .slot = QR_NO_SLOT,
                      .arguments = {tier->in_flight, t}};
        status = submit(simulation, &job);
    }
    bool first = t == first_tier(c);
    tier->n_failed++;
    tier->strikes++;
    /* What may work when tried again is tried again, once. */
    tier->given_up = tier->strikes >= MOST_STRIKES || (cause != QR_TRANSIENT && cause != QR_DATA);
    if (simulation->comm->me.part == 0) {
        qr_warning("checkpoint %lld on tier %s failed: %s; %s", (long long)tier->in_flight, qr_tier_name(t), message,
                   tier->given_up ? "the tier is not used any more" : "it is tried again");
    }
    tier->in_flight = 0;
    tier->committing = false;
    c->wanted = c->wanted || first; /* at once, on this tier or the next */
    if (first_tier(c) < 0 && !c->unprotected) {
        say_unprotected(simulation);
        if (simulation->deck->checkpoint.required && status == QR_OK) {
            status = qr_error(QR_DATA,
                              "checkpoints cannot be written anywhere (tier %s: %s), and checkpoint.required is "
                              "true",
                              qr_tier_name(t), message);
        }
    }
    return status;
}

/* --- commit --- */

/* A server's share, as its lead tells the others. */
typedef struct share_message {
    int64_t valid;
    qr_manifest_share share;
} share_message;

static void fill_manifest(const qr_simulation *simulation, int t, const qr_checkpoint_config *config,
                          qr_manifest *manifest)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    const qr_tier_state *tier = &c->tiers[t];
    const qr_consensus *consensus = &tier->in_flight_facts.consensus;
    const qr_comm *comm = simulation->comm;
    manifest->generation = tier->in_flight;
    manifest->step = tier->in_flight_facts.step;
    memcpy(manifest->run_id, c->run_id, sizeof manifest->run_id);
    manifest->n_agents = simulation->spec.n_agents;
    manifest->n_options = simulation->deck->agents.options;
    manifest->state_dim = simulation->model->state_dim;
    manifest->page_agents_votes = config->page_agents_votes;
    manifest->page_agents_state = config->page_agents_state;
    manifest->held = consensus->held;
    manifest->candidate = consensus->candidate;
    manifest->decided = consensus->decision.decided;
    manifest->decided_step = consensus->decision.step;
    manifest->decided_option = consensus->decision.option;
    manifest->decided_votes = consensus->decision.votes;
    manifest->decided_leader = consensus->decision.leader;
    manifest->snapshots = tier->in_flight_facts.snapshots;
    manifest->elapsed_s = tier->in_flight_facts.elapsed_s;
    manifest->restarts = c->restarts;
    for (int part = 0; part < comm->n_parts; part++) {
        qr_range range = qr_partition_range(simulation->spec.n_agents, comm->n_parts, part);
        manifest->parts[part] = (qr_manifest_part){.part = part,
                                                   .server = comm->all[comm->world_of_part[part]].server,
                                                   .first = range.first,
                                                   .count = range.count};
    }
}

/* The manifest's text on part 0. messages: [n_parts]. */
static qr_status format_manifest(const qr_simulation *simulation, int t, const share_message *messages, char **text)
{
    const qr_comm *comm = simulation->comm;
    qr_manifest manifest = {.n_parts = comm->n_parts,
                            .version = QR_VERSION " (" QR_REVISION ")",
                            .deck = simulation->used_text,
                            .precision = (char *)(uintptr_t)qr_results_precision(simulation),
                            .tier = (char *)(uintptr_t)qr_tier_name(t)};
    qr_checkpoint_config config;
    void *memory = NULL;
    qr_status status = qr_tiers_configure(simulation, 0, &config);
    size_t bytes = (size_t)comm->n_parts * (sizeof(qr_manifest_share) + sizeof(qr_manifest_part));
    if (status == QR_OK) {
        memory = calloc(1, bytes);
        status = memory != NULL ? QR_OK : qr_error_memory(bytes, "a manifest");
    }
    if (status == QR_OK) {
        manifest.shares = memory;
        manifest.parts = (qr_manifest_part *)(void *)(manifest.shares + comm->n_parts);
        manifest.codec = (char *)(uintptr_t)qr_codec_name(config.tiers[t].codec);
        fill_manifest(simulation, t, &config, &manifest);
        for (int part = 0; part < comm->n_parts; part++) {
            if (messages[part].valid != 0) {
                manifest.shares[manifest.n_shares++] = messages[part].share;
            }
        }
        status = qr_manifest_format(&manifest, text);
    }
    qr_tiers_clear(&config);
    free(memory);
    return status;
}

/* The agents of all parts that this rank's server serves. */
static void find_share(const qr_simulation *simulation, qr_manifest_share *share)
{
    const qr_comm *comm = simulation->comm;
    share->server = comm->me.server;
    share->first = simulation->network->own.first;
    for (int part = comm->me.part; part < comm->n_parts; part++) {
        if (comm->all[comm->world_of_part[part]].server == comm->me.server) {
            share->count += qr_partition_range(simulation->spec.n_agents, comm->n_parts, part).count;
        }
    }
}

/* Every rank has the text afterwards. */
static qr_status agree_on_manifest(qr_simulation *simulation, int t, char **text)
{
    const qr_comm *comm = simulation->comm;
    const qr_checkpoints *c = &simulation->checkpoints;
    share_message mine;
    memset(&mine, 0, sizeof mine);
    if (c->leads) {
        mine.valid = 1;
        find_share(simulation, &mine.share);
        mine.share.seal = c->tiers[t].seen.seal;
    }
    share_message *all = calloc((size_t)comm->n_parts, sizeof *all);
    qr_status status = all != NULL ? QR_OK : qr_error_memory((size_t)comm->n_parts * sizeof *all, "a manifest");
    status = qr_comm_agree(comm->compute, status);
    if (status == QR_OK) {
        MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, comm->compute);
        if (comm->me.part == 0) {
            status = format_manifest(simulation, t, all, text);
        }
        status = qr_comm_agree(comm->compute, status);
    }
    uint64_t bytes = *text != NULL ? strlen(*text) + 1 : 0;
    if (status == QR_OK) {
        MPI_Bcast(&bytes, 1, MPI_UINT64_T, 0, comm->compute);
        if (comm->me.part != 0) {
            *text = malloc((size_t)bytes);
            status = *text != NULL ? QR_OK : qr_error_memory((size_t)bytes, "a manifest");
        }
        status = qr_comm_agree(comm->compute, status);
    }
    if (status == QR_OK) {
        MPI_Bcast(*text, (int)bytes, MPI_CHAR, 0, comm->compute);
    }
    free(all);
    return status;
}

static qr_status send_manifest(qr_simulation *simulation, int t, const char *text)
{
    qr_results *results = &simulation->results;
    size_t left = strlen(text);
    qr_status status = QR_OK;
    while (left > 0 && status == QR_OK) {
        size_t n = left < (size_t)results->queue.slot_bytes ? left : (size_t)results->queue.slot_bytes;
        int32_t slot = QR_NO_SLOT;
        status = qr_queue_wait_slot(&results->queue, results->timeout_s, &slot, &results->waited_s);
        if (status != QR_OK) {
            break;
        }
        memcpy(qr_queue_slot(&results->queue, slot), text, n);
        text += n;
        left -= n;
        qr_job job = {.kind = QR_JOB_CUT_COMMIT,
                      .step = simulation->step,
                      .bytes = (int64_t)n,
                      .slot = slot,
                      .flags = left == 0 ? 1 : 0,
                      .arguments = {simulation->checkpoints.tiers[t].in_flight, t}};
        status = submit(simulation, &job);
    }
    return status;
}

static qr_status commit(qr_simulation *simulation, int t)
{
    qr_checkpoints *c = &simulation->checkpoints;
    char *text = NULL;
    qr_status status = agree_on_manifest(simulation, t, &text);
    if (status == QR_OK && c->leads) {
        status = send_manifest(simulation, t, text);
    }
    c->tiers[t].committing = true;
    c->tiers[t].awake_since = 0.0;
    free(text);
    return status;
}

/* --- cuts and drains --- */

static qr_cut_facts facts_now(const qr_simulation *simulation)
{
    return (qr_cut_facts){.step = simulation->step,
                          .snapshots = simulation->results.snapshots,
                          .elapsed_s = simulation->checkpoints.elapsed_before_s + qr_now_s() - simulation->started_s,
                          .consensus = simulation->consensus};
}

static qr_status begin_cut(qr_simulation *simulation, int t)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_tier_state *tier = &c->tiers[t];
    /* The rows that lead up to this step go first, so that the commit finds them in their file. */
    qr_status status = qr_results_submit_rows(simulation);
    tier->in_flight = c->next_generation++;
    tier->tried = tier->in_flight;
    tier->committing = false;
    tier->awake_since = 0.0;
    tier->in_flight_facts = facts_now(simulation);
    if (status == QR_OK) {
        status = qr_cut(simulation, tier->in_flight, t);
    }
    c->wanted = false;
    c->cuts++;
    return status;
}

static qr_status begin_drain(qr_simulation *simulation, int from, int to)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_tier_state *tier = &c->tiers[to];
    tier->in_flight = c->tiers[from].committed;
    tier->tried = tier->in_flight;
    tier->in_flight_facts = c->tiers[from].committed_facts;
    tier->committing = false;
    tier->awake_since = 0.0;
    if (!c->leads) {
        return QR_OK;
    }
    qr_job job = {.kind = QR_JOB_CUT_DRAIN,
                  .step = tier->in_flight_facts.step,
                  .slot = QR_NO_SLOT,
                  .arguments = {tier->in_flight, to, from}};
    return submit(simulation, &job);
}

static qr_status turn_tier(qr_simulation *simulation, const qr_notes *notes, int t)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_tier_state *tier = &c->tiers[t];
    if (tier->in_flight != 0 && notes->tier_failed[t] > 0) {
        return give_up_cut(simulation, t);
    }
    if (tier->in_flight != 0 && tier->committing && notes->tier_committed[t] == c->n_leads) {
        tier->committed = tier->in_flight;
        tier->committed_facts = tier->in_flight_facts;
        tier->in_flight = 0;
        tier->committing = false;
        tier->strikes = 0;
        tier->n_committed++;
    } else if (tier->in_flight != 0 && !tier->committing && notes->tier_ready[t] == c->n_leads) {
        return commit(simulation, t);
    }
    int before = tier_before(c, t);
    if (tier->used && !tier->given_up && tier->in_flight == 0 && before >= 0 &&
        c->tiers[before].committed > tier->tried) {
        return begin_drain(simulation, before, t);
    }
    return QR_OK;
}

/* Begins a cut that is due, or was and could not be begun. */
static qr_status turn_cuts(qr_simulation *simulation, bool cut_is_due)
{
    qr_checkpoints *c = &simulation->checkpoints;
    int first = first_tier(c);
    c->wanted = c->wanted || cut_is_due;
    if (!c->wanted || first < 0) {
        return QR_OK;
    }
    if (c->tiers[first].in_flight != 0) { /* the one before is not yet done: as soon as it is */
        c->late += cut_is_due ? 1 : 0;
        return QR_OK;
    }
    return begin_cut(simulation, first);
}

/* A failure of this rank alone does not keep it from what all ranks do together here. */
qr_status qr_checkpoints_turn(qr_simulation *simulation, const qr_notes *notes, bool cut_is_due)
{
    qr_checkpoints *c = &simulation->checkpoints;
    qr_status first_failure = QR_OK;
    char message[QR_MESSAGE_BYTES] = "";
    double at = qr_now_s();
    if (!c->enabled) {
        return QR_OK;
    }
    for (int t = 0; t <= QR_N_TIERS; t++) {
        qr_status status = t < QR_N_TIERS ? turn_tier(simulation, notes, t) : turn_cuts(simulation, cut_is_due);
        if (status != QR_OK && first_failure == QR_OK) {
            first_failure = status;
            (void)snprintf(message, sizeof message, "%s", qr_error_message());
        }
    }
    c->blocked_s += qr_now_s() - at;
    return first_failure == QR_OK ? QR_OK : qr_error(first_failure, "%s", message);
}

static bool is_busy(const qr_checkpoints *c)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        if (c->tiers[t].in_flight != 0) {
            return true;
        }
    }
    return false;
}

/* Whether the step the run ends with is on no tier yet, nor on its way to one. */
static bool needs_cut(const qr_simulation *simulation)
{
    const qr_checkpoints *c = &simulation->checkpoints;
    if (first_tier(c) < 0 || c->restart_step == simulation->step) {
        return false;
    }
    for (int t = 0; t < QR_N_TIERS; t++) {
        bool usable = c->tiers[t].used && !c->tiers[t].given_up;
        bool holds = c->tiers[t].committed != 0 && c->tiers[t].committed_facts.step == simulation->step;
        bool will = c->tiers[t].in_flight != 0 && c->tiers[t].in_flight_facts.step == simulation->step;
        if (usable && (holds || will)) {
            return false;
        }
    }
    return true;
}

qr_status qr_checkpoints_finish(qr_simulation *simulation)
{
    qr_checkpoints *c = &simulation->checkpoints;
    const struct timespec pause = {.tv_nsec = PAUSE_US * 1000L};
    if (!c->enabled) {
        return QR_OK;
    }
    qr_status status = QR_OK;
    double idle_s = 0.0; /* with nothing left but copies on their way to other nodes, and old ones to be removed */
    for (bool first_turn = true; status == QR_OK; first_turn = false) {
        double since = c->looked_s;
        qr_notes notes = {0};
        qr_checkpoints_note(simulation, &notes);
        bool hangs_on = idle_s > simulation->deck->io.timeout;
        notes.batch = simulation->comm->me.part == 0 && hangs_on ? 1 : 0; /* part 0's clock is everybody's */
        qr_status mine = qr_results_poll(simulation);
        notes.failed = mine != QR_OK ? 1 : 0;
        qr_comm_reduce_notes(simulation->comm, &notes);
        if (notes.failed != 0) {
            return qr_comm_agree(simulation->comm->compute, mine);
        }
        simulation->checkpoints.wanted = needs_cut(simulation);
        status = qr_checkpoints_turn(simulation, &notes, false);
        status = qr_comm_agree(simulation->comm->compute, status);
        if (!is_busy(c) && !needs_cut(simulation)) {
            if (notes.clearing == 0 || notes.batch != 0) {
                break;
            }
            double passed = c->looked_s - since;
            idle_s += passed < 1.0 ? passed : 1.0;
        }
        if (!first_turn) {
            (void)nanosleep(&pause, NULL);
        }
    }
    qr_checkpoints_add_up(simulation);
    bool held = c->restart_step == simulation->step;
    for (int t = 0; t < QR_N_TIERS; t++) {
        held = held || (c->tiers[t].committed != 0 && c->tiers[t].committed_facts.step == simulation->step);
    }
    simulation->resumable = status == QR_OK && held && simulation->stop_signal != 0;
    return status;
}
