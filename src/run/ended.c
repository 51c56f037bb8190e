/* A run that has come to its end already: what it came to stands in its results, and need not be worked out again. */
#include "run/simulation.h"

#include "base/log.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct ending {
    int64_t found;
    int64_t votes[QR_MAX_OPTIONS];
    char state_hash[33];
} ending;

/* Whether a summary is of this run at this step, and what it says. */
static void read_summary(const qr_simulation *simulation, const qr_manifest *manifest, const char *text, ending *out)
{
    json_t *summary = json_loads(text, 0, NULL);
    const json_t *tally = json_object_get(summary, "tally");
    const char *run_id = json_string_value(json_object_get(summary, "run_id"));
    const char *hash = json_string_value(json_object_get(summary, "state_hash"));
    int64_t options = simulation->deck->agents.options;
    int64_t sum = 0;
    bool is_it = run_id != NULL && strcmp(run_id, manifest->run_id) == 0 && hash != NULL && strlen(hash) == 32 &&
                 json_integer_value(json_object_get(summary, "steps")) == manifest->step &&
                 json_array_size(tally) == (size_t)options;
    for (int64_t k = 0; is_it && k < options; k++) {
        out->votes[k] = json_integer_value(json_array_get(tally, (size_t)k));
        sum += out->votes[k];
    }
    if (is_it && sum == manifest->n_agents) {
        out->found = 1;
        (void)snprintf(out->state_hash, sizeof out->state_hash, "%s", hash);
    }
    json_decref(summary);
}

bool qr_ended_already(qr_simulation *simulation, const qr_manifest *manifest)
{
    const qr_deck *deck = simulation->deck;
    bool decided = manifest->decided && deck->run.stop == QR_STOP_CONSENSUS;
    ending known;
    memset(&known, 0, sizeof known);
    if (!simulation->paging.wanted || (manifest->step < deck->run.steps && !decided)) {
        return false;
    }
    if (simulation->comm->rank == 0) {
        char *text = qr_io_summary_of_results(deck->output.directory);
        if (text != NULL) {
            read_summary(simulation, manifest, text, &known);
        }
        free(text);
    }
    MPI_Bcast(&known, (int)sizeof known, MPI_BYTE, 0, simulation->comm->world);
    if (known.found != 0) {
        memcpy(simulation->tally.votes, known.votes, sizeof known.votes);
        memcpy(simulation->state_hash, known.state_hash, sizeof known.state_hash);
        simulation->ended_already = true;
    }
    return known.found != 0;
}

void qr_ended_report(const qr_simulation *simulation)
{
    qr_info("the run had ended with step %lld: nothing was left to do, and %s is as it was",
            (long long)simulation->step, simulation->deck->output.directory);
}
