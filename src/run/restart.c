/* Going on from a checkpoint: which one, and whether the deck is that run's. The agents themselves come in reload.c. */
#include "run/reload.h"
#include "run/simulation.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool serves(const qr_simulation *simulation)
{
    return simulation->comm->me.role == QR_ROLE_IO || qr_comm_serves_itself(simulation->comm);
}

/* A manifest that was named: its directory and its generation. False for a directory. */
static bool split_manifest_path(const char *path, char **directory, int64_t *generation)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    int server = 0;
    bool replica = false;
    qr_generation_file_kind kind = QR_FILE_DATA;
    if (!qr_generation_parse_name(name, generation, &server, &replica, &kind) || kind != QR_FILE_MANIFEST) {
        return false;
    }
    *directory = slash != NULL ? strndup(path, (size_t)(slash - path)) : strdup(".");
    return true;
}

/* Where this server looks: the deck's tiers, or what was named. *limit: generations above it do not count. */
static qr_status find_directories(const qr_simulation *simulation, const char *named, char *out[QR_N_TIERS], int *n,
                                  int64_t *limit)
{
    qr_status status = QR_OK;
    *n = 0;
    *limit = INT64_MAX;
    if (named == NULL || strcmp(named, "auto") == 0) {
        for (int t = 0; t < QR_N_TIERS && status == QR_OK; t++) {
            char *directory = NULL;
            status = qr_tier_directory(simulation->deck, t, simulation->comm->me.node, &directory);
            if (directory != NULL) {
                out[(*n)++] = directory;
            }
        }
        return status;
    }
    if (!split_manifest_path(named, &out[0], limit)) {
        out[0] = strdup(named);
    }
    *n = 1;
    return out[0] != NULL ? QR_OK : qr_error_memory(strlen(named), "a path");
}

static qr_status scan(const qr_simulation *simulation, const char *named, qr_recovery **out, int64_t *limit)
{
    char *directories[QR_N_TIERS] = {NULL};
    int n = 0;
    qr_status status = QR_OK;
    *limit = INT64_MAX;
    if (serves(simulation)) {
        status = find_directories(simulation, named, directories, &n, limit);
        if (status == QR_OK) {
            status = qr_recovery_scan((const char *const *)directories, n, out);
        }
    }
    for (int i = 0; i < QR_N_TIERS; i++) {
        free(directories[i]);
    }
    return qr_comm_agree(simulation->comm->world, status);
}

static const qr_manifest *newest_below(const qr_recovery *recovery, int64_t limit)
{
    for (size_t i = 0; recovery != NULL && i < recovery->n; i++) {
        if (recovery->found[i].manifest->generation <= limit) {
            return recovery->found[i].manifest;
        }
    }
    return NULL;
}

/* Everybody gets the manifest of the newest generation up to `limit` that any rank has seen; NULL when there is none.
 */
static qr_status share_manifest(const qr_simulation *simulation, const qr_recovery *recovery, int64_t limit,
                                qr_manifest **out)
{
    MPI_Comm world = simulation->comm->world;
    const qr_manifest *mine = newest_below(recovery, limit);
    struct {
        int64_t generation;
        int64_t rank;
    } best = {mine != NULL ? mine->generation : 0, -(int64_t)simulation->comm->rank};
    int64_t newest = best.generation;
    MPI_Allreduce(MPI_IN_PLACE, &newest, 1, MPI_INT64_T, MPI_MAX, world);
    *out = NULL;
    if (newest == 0) {
        return QR_OK;
    }
    int owner = best.generation == newest ? simulation->comm->rank : simulation->comm->size;
    MPI_Allreduce(MPI_IN_PLACE, &owner, 1, MPI_INT, MPI_MIN, world);
    char *text = NULL;
    qr_status status = QR_OK;
    if (owner == simulation->comm->rank) {
        status = qr_manifest_format(mine, &text);
    }
    status = qr_comm_agree(world, status);
    uint64_t bytes = text != NULL ? strlen(text) : 0;
    if (status == QR_OK) {
        MPI_Bcast(&bytes, 1, MPI_UINT64_T, owner, world);
        if (owner != simulation->comm->rank) {
            text = malloc((size_t)bytes + 1);
            status = text != NULL ? QR_OK : qr_error_memory((size_t)bytes, "a manifest");
        }
        status = qr_comm_agree(world, status);
    }
    if (status == QR_OK) {
        MPI_Bcast(text, (int)bytes, MPI_CHAR, owner, world);
        status = qr_comm_agree(world, qr_manifest_parse("the manifest", text, (size_t)bytes, out));
    }
    free(text);
    return status;
}

/* The deck may only say otherwise where, how fast and how long to run. */
static qr_status compare_decks(const qr_simulation *simulation, const qr_manifest *manifest)
{
    qr_deck *theirs = NULL;
    char *list = NULL;
    qr_status status = qr_deck_parse("the checkpoint's deck", manifest->deck, strlen(manifest->deck), NULL, 0, &theirs);
    if (status != QR_OK) {
        return qr_error_context(QR_DATA, "checkpoint %lld", (long long)manifest->generation);
    }
    int differ = qr_deck_compare(simulation->deck, theirs, &list);
    if (differ > 0 && list != NULL) {
        status = qr_error(QR_USAGE,
                          "the checkpoint at step %lld is of another deck; these keys had other values when it was "
                          "written, and a restart cannot change them:\n%s",
                          (long long)manifest->step, list);
    } else if (differ != 0) {
        status = qr_error_memory(0, "comparing decks");
    } else if (manifest->n_agents != simulation->spec.n_agents) {
        status =
            qr_error(QR_USAGE, "the checkpoint at step %lld is of %lld agents, the deck makes %lld",
                     (long long)manifest->step, (long long)manifest->n_agents, (long long)simulation->spec.n_agents);
    }
    free(list);
    qr_deck_destroy(theirs);
    return status;
}

static void take_over(qr_simulation *simulation, const qr_manifest *manifest)
{
    qr_checkpoints *c = &simulation->checkpoints;
    simulation->restarted = true;
    simulation->step = manifest->step;
    simulation->first_step = manifest->step;
    simulation->results.snapshots = manifest->snapshots;
    simulation->consensus.held = manifest->held;
    simulation->consensus.candidate = manifest->candidate;
    simulation->consensus.decision = (qr_decision){.decided = manifest->decided,
                                                   .step = manifest->decided_step,
                                                   .option = manifest->decided_option,
                                                   .votes = manifest->decided_votes,
                                                   .leader = manifest->decided_leader};
    memcpy(c->run_id, manifest->run_id, sizeof c->run_id);
    c->restarts = manifest->restarts + 1;
    c->elapsed_before_s = manifest->elapsed_s;
}

/* Numbers begin above all that was ever seen, so that nothing that was left half-done is taken for ours. */
static void set_next_generation(qr_simulation *simulation, const qr_recovery *recovery)
{
    int64_t highest = recovery != NULL ? recovery->highest : 0;
    MPI_Allreduce(MPI_IN_PLACE, &highest, 1, MPI_INT64_T, MPI_MAX, simulation->comm->world);
    if (highest >= simulation->checkpoints.next_generation) {
        simulation->checkpoints.next_generation = highest + 1;
    }
}

static void make_run_id(qr_simulation *simulation)
{
    struct timespec now;
    uint64_t words[2] = {0};
    if (simulation->comm->rank == 0) {
        (void)clock_gettime(CLOCK_REALTIME, &now);
        words[0] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        words[1] = (uint64_t)getpid() << 32 | (uint32_t)gethostid();
    }
    MPI_Bcast(words, 2, MPI_UINT64_T, 0, simulation->comm->world);
    (void)snprintf(simulation->checkpoints.run_id, sizeof simulation->checkpoints.run_id, "%016llx%016llx",
                   (unsigned long long)words[0], (unsigned long long)words[1]);
}

static bool root_speaks(const qr_simulation *simulation)
{
    return simulation->comm->me.part == 0;
}

/* The newest generation that can be read in full. Those that cannot are told of and passed over. */
static qr_status try_generations(qr_simulation *simulation, const qr_recovery *recovery, int64_t limit, bool named)
{
    for (;;) {
        qr_manifest *manifest = NULL;
        qr_status status = share_manifest(simulation, recovery, limit, &manifest);
        if (status != QR_OK || manifest == NULL) {
            return status;
        }
        status = qr_comm_agree(simulation->comm->world, compare_decks(simulation, manifest));
        if (status != QR_OK) {
            qr_manifest_destroy(manifest);
            return status;
        }
        bool reloaded = qr_ended_already(simulation, manifest);
        status = reloaded ? QR_OK : qr_reload(simulation, recovery, manifest, &reloaded);
        if (status == QR_OK && reloaded) {
            take_over(simulation, manifest);
            if (root_speaks(simulation)) {
                qr_info("restart: checkpoint %lld, step %lld, written by %d compute rank%s",
                        (long long)manifest->generation, (long long)manifest->step, manifest->n_parts,
                        manifest->n_parts == 1 ? "" : "s");
            }
        }
        int64_t tried = manifest->generation;
        qr_manifest_destroy(manifest);
        if (status != QR_OK || reloaded) {
            return status;
        }
        if (root_speaks(simulation)) {
            qr_warning("checkpoint %lld cannot be used: %s", (long long)tried, qr_error_message());
        }
        if (named && limit != INT64_MAX) {
            return qr_error(QR_DATA, "%s cannot be used", simulation->options->restart);
        }
        limit = tried - 1;
    }
}

/* Manifests that cannot be trusted, over all servers; the first one's cause is the message on all ranks. */
static int64_t count_damaged(const qr_simulation *simulation, const qr_recovery *recovery)
{
    int64_t n = recovery != NULL ? (int64_t)recovery->n_damaged : 0;
    qr_status mine = n > 0 ? qr_error(QR_DATA, "%s", recovery->damaged_message) : QR_OK;
    (void)qr_comm_agree(simulation->comm->world, mine);
    MPI_Allreduce(MPI_IN_PLACE, &n, 1, MPI_INT64_T, MPI_SUM, simulation->comm->world);
    return n;
}

/* A run that goes on from a named place writes to the deck's tiers all the same: its numbers begin above what is there,
 * and what is there must not be another run's. Collective over the world. */
static qr_status look_at_tiers(qr_simulation *simulation)
{
    qr_recovery *tiers = NULL;
    int64_t limit = 0;
    qr_status status = scan(simulation, NULL, &tiers, &limit);
    if (status != QR_OK) {
        return status;
    }
    set_next_generation(simulation, tiers);
    for (size_t i = 0; tiers != NULL && i < tiers->n && status == QR_OK && !simulation->deck->output.overwrite; i++) {
        const qr_found *found = &tiers->found[i];
        if (strcmp(found->manifest->run_id, simulation->checkpoints.run_id) != 0) {
            status =
                qr_error(QR_ENVIRONMENT,
                         "%s: holds checkpoints of another run, up to step %lld; choose another directory for this "
                         "one, or replace them with output.overwrite: true",
                         tiers->directories[found->directory], (long long)found->manifest->step);
        }
    }
    qr_recovery_destroy(tiers);
    return qr_comm_agree(simulation->comm->world, status);
}

qr_status qr_simulation_restart(qr_simulation *simulation)
{
    const char *asked = simulation->options->restart;
    qr_recovery *recovery = NULL;
    int64_t limit = 0;
    bool named = strcmp(asked, "auto") != 0;
    if (!named && !qr_checkpoints_wanted(simulation->deck)) {
        return qr_error(QR_USAGE,
                        "--restart auto needs checkpoints in the deck: checkpoint.every or a tier's directory");
    }
    qr_status status = scan(simulation, asked, &recovery, &limit);
    if (status != QR_OK) {
        goto cleanup;
    }
    MPI_Allreduce(MPI_IN_PLACE, &limit, 1, MPI_INT64_T, MPI_MIN, simulation->comm->world);
    set_next_generation(simulation, recovery);
    int64_t n_damaged = count_damaged(simulation, recovery);
    if (n_damaged > 0 && root_speaks(simulation)) {
        qr_warning("%lld manifest%s cannot be trusted: %s", (long long)n_damaged, n_damaged == 1 ? "" : "s",
                   qr_error_message());
    }
    int64_t any = recovery != NULL ? (int64_t)recovery->n : 0;
    MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT64_T, MPI_MAX, simulation->comm->world);
    status = try_generations(simulation, recovery, limit, named);
    if (status == QR_OK && !simulation->restarted) {
        if (named) {
            status = qr_error(any > 0 ? QR_DATA : QR_USAGE, "%s: holds no checkpoint%s", asked,
                              any > 0 ? " that can be used" : "");
        } else if (any > 0 || n_damaged > 0) {
            status = qr_error(QR_DATA, "no checkpoint can be used, though there are some; look at them with `quorate "
                                       "info`. To begin afresh, leave --restart out and set output.overwrite: true");
        } else if (root_speaks(simulation)) {
            qr_info("restart: no checkpoint yet, beginning afresh");
        }
    }
    if (status == QR_OK && !simulation->restarted) {
        make_run_id(simulation);
    } else if (status == QR_OK && named) {
        status = look_at_tiers(simulation);
    }
cleanup:
    qr_recovery_destroy(recovery);
    return status;
}

/* The one server of a node that looks after the node's directories. Where nodes share a directory several do, which
 * does no harm: all of them only remove the same files. */
static bool cleans(const qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    for (int rank = 0; rank < comm->size; rank++) {
        const qr_place_in_job *place = &comm->all[rank];
        bool before = place->node == comm->me.node && place->server < comm->me.server;
        if (before && (place->role == QR_ROLE_IO || qr_comm_serves_itself(comm))) {
            return false;
        }
    }
    return serves(simulation);
}

qr_status qr_simulation_clean_tiers(qr_simulation *simulation)
{
    qr_status status = QR_OK;
    if (!qr_checkpoints_wanted(simulation->deck)) {
        return QR_OK;
    }
    for (int t = 0; t < QR_N_TIERS && status == QR_OK && cleans(simulation); t++) {
        char *directory = NULL;
        status = qr_tier_directory(simulation->deck, t, simulation->comm->me.node, &directory);
        /* A directory that cannot be cleaned is told of when it cannot be written either. */
        if (directory != NULL && qr_recovery_clean(directory) != QR_OK) {
            qr_warning("what a killed run left cannot be removed: %s", qr_error_message());
        }
        free(directory);
    }
    return qr_comm_agree(simulation->comm->world, status); /* also: no cut begins before all are done */
}

/* Whether results that are there were written by an earlier attempt of this deck, which left no checkpoint. */
static bool results_are_ours(const qr_simulation *simulation)
{
    const char *directory = simulation->deck->output.directory;
    char *text = NULL;
    char *list = NULL;
    qr_deck *theirs = NULL;
    if (!qr_io_deck_of_results(directory, &text)) { /* it did not even get as far as the series */
        return true;
    }
    bool ours = text != NULL && qr_deck_parse(directory, text, strlen(text), NULL, 0, &theirs) == QR_OK &&
                qr_deck_compare(simulation->deck, theirs, &list) == 0;
    free(list);
    qr_deck_destroy(theirs);
    free(text);
    return ours;
}

qr_status qr_simulation_check_directory(qr_simulation *simulation)
{
    const qr_deck *deck = simulation->deck;
    bool overwrite = deck->output.overwrite;
    int attempt = 0;
    qr_status status = QR_OK;
    if (simulation->comm->rank == 0 && simulation->restarted) {
        status = qr_io_check_resume(deck->output.directory, simulation->checkpoints.run_id, overwrite, &attempt);
    } else if (simulation->comm->rank == 0) {
        overwrite = overwrite || (simulation->options->restart != NULL && results_are_ours(simulation));
        status = qr_io_check_directory(deck->output.directory, overwrite);
    }
    int answers[2] = {attempt, overwrite ? 1 : 0};
    status = qr_comm_agree(simulation->comm->world, status);
    if (status == QR_OK) {
        MPI_Bcast(answers, 2, MPI_INT, 0, simulation->comm->world);
        simulation->attempt = answers[0];
        simulation->replaces_results = answers[1] != 0;
    }
    return status;
}

/* Removes every generation in the directories, manifests first. */
static qr_status remove_all(const qr_recovery *recovery)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < recovery->n && status == QR_OK; i++) {
        const qr_found *found = &recovery->found[i];
        const char *directory = recovery->directories[found->directory];
        status = qr_manifest_remove(directory, found->manifest->generation);
    }
    for (int d = 0; d < recovery->n_directories && status == QR_OK; d++) {
        status = qr_recovery_clean(recovery->directories[d]);
    }
    return status;
}

qr_status qr_simulation_check_tiers(qr_simulation *simulation)
{
    qr_recovery *recovery = NULL;
    int64_t limit = 0;
    if (!qr_checkpoints_wanted(simulation->deck)) {
        return QR_OK;
    }
    make_run_id(simulation);
    qr_status status = scan(simulation, NULL, &recovery, &limit);
    if (status == QR_OK) {
        set_next_generation(simulation, recovery);
        bool remove = simulation->deck->output.overwrite;
        if (recovery != NULL && recovery->n > 0 && !remove) {
            const qr_found *newest = &recovery->found[0];
            status =
                qr_error(QR_ENVIRONMENT,
                         "%s: holds checkpoints of an earlier run, up to step %lld; go on from there with --restart "
                         "auto, choose another directory, or replace them with output.overwrite: true",
                         recovery->directories[newest->directory], (long long)newest->manifest->step);
        }
        status = qr_comm_agree(simulation->comm->world, status);
        if (status == QR_OK && remove && recovery != NULL) {
            status = remove_all(recovery);
        }
        status = qr_comm_agree(simulation->comm->world, status);
    }
    qr_recovery_destroy(recovery);
    return status;
}
