/* `quorate check`: a deck's values, and the memory that a job of given size would need. */
#include "run/describe.h"
#include "run/paging.h"

#include "io/source.h"

#include <stdlib.h>
#include <string.h>

enum { PLAN_BYTES = 6144 };

/* Puts "# " before each line. */
static void comment(const char *text, char *out, size_t n)
{
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, "\n");
        qr_paging_append(out, n, "# %.*s\n", (int)length, at);
        at += length + (at[length] == '\n' ? 1 : 0);
    }
}

/* What a rank needs, and where states will lie. */
static void describe(const qr_simulation *simulation, const qr_model *model, char *out, size_t n)
{
    const qr_comm *comm = simulation->comm;
    const qr_deck *deck = simulation->deck;
    qr_memory_need need = qr_estimate_part(simulation, model, 0);
    char parts[160];
    char whole[32];
    char have[32];
    char left[32];
    qr_describe_need(&need, parts, sizeof parts);
    qr_paging_append(out, n, "memory: a compute rank needs about %s of its node's: %s\n",
                     qr_bytes_text((double)qr_memory_need_bytes(&need), whole), parts);
    if (simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
        qr_paging_append(out, n, "  and what the network's file holds, which `quorate run --dry-run` reads\n");
    }
    if (simulation->on_device) {
        need = qr_estimate_device(simulation, model, 0);
        qr_describe_need(&need, parts, sizeof parts);
        qr_paging_append(out, n, "  and about %s of its GPU's: %s%s\n",
                         qr_bytes_text((double)qr_memory_need_bytes(&need), whole), parts,
                         simulation->ops->frames->memory == NULL ? "" : " (an estimate: no GPU is here)");
    }
    qr_paging_append(out, n, "  this machine has %s, of which %s are free; planned for %d compute rank%s on %d node%s",
                     qr_bytes_text((double)qr_machine_memory(), have),
                     qr_bytes_text((double)qr_machine_free_memory(), left), comm->n_parts,
                     comm->n_parts == 1 ? "" : "s", comm->n_nodes, comm->n_nodes == 1 ? "" : "s");
    qr_paging_append(out, n, "%s\n", comm->size == 1 ? " (--ranks, --nodes)" : "");
    if (!qr_paging_is_told(deck)) {
        return;
    }
    if (model->state_dim == 0) {
        qr_paging_append(out, n,
                         "memory: agents of this rule are their votes, which are never paged; memory.tiers has no "
                         "effect\n");
    } else if (simulation->paging.n_pages == 0) {
        qr_paging_append(out, n,
                         "memory: memory.tiers.gpu.capacity is auto: what will lie where is seen when the GPU is, at "
                         "the start\n");
    } else {
        size_t used = strlen(out);
        qr_paging_describe(deck, &simulation->paging, simulation->threads, out + used, n - used);
    }
}

static qr_status make_plan(qr_simulation *simulation, const qr_run_options *options, char *out, size_t n)
{
    const qr_deck *deck = simulation->deck;
    qr_model *model = NULL;
    if (simulation->spec.n_agents == 0) {
        qr_paging_append(out, n,
                         "memory: what is needed depends on the network's file; `quorate run --dry-run` reads it\n");
        return QR_OK;
    }
    if (simulation->spec.kind == QR_NETWORK_EDGE_LIST) {
        simulation->spec.mean_degree = 0.0; /* not known before its file is read */
    }
    qr_model_network described = qr_describe_network(&simulation->spec, 0);
    qr_status status = qr_model_create(deck, &described, NULL, &model);
    if (status == QR_OK) {
        status = qr_comm_foresee(options->n_ranks, options->n_nodes, deck->comm.ranks_per_node, deck->io.ranks_per_node,
                                 &simulation->comm);
    }
    if (status == QR_OK) {
        qr_foresee_backend(simulation);
        status = qr_paging_foresee(simulation, model);
    }
    if (status == QR_OK) {
        describe(simulation, model, out, n);
        qr_warn_of_gpu_tier(simulation);
        qr_warn_of_memory(simulation, model);
    } else if (options->n_ranks == 1) {
        status = qr_error_context(status, "in a job of one rank (check --ranks N --nodes N plans for others)");
    }
    qr_model_destroy(model);
    return status;
}

/* Behind the resolved deck, as comments. */
static qr_status add_plan(qr_simulation *simulation, const qr_run_options *options)
{
    char plan[PLAN_BYTES] = "";
    char text[PLAN_BYTES / 2] = "";
    qr_status status = make_plan(simulation, options, text, sizeof text);
    if (status != QR_OK) {
        return status;
    }
    comment(text, plan, sizeof plan);
    size_t n = strlen(simulation->used_text);
    char *longer = realloc(simulation->used_text, n + strlen(plan) + 2);
    if (longer == NULL) {
        return qr_error_memory(n + sizeof plan, "the resolved deck");
    }
    simulation->used_text = longer;
    (void)snprintf(longer + n, strlen(plan) + 2, "\n%s", plan);
    return QR_OK;
}

qr_status qr_check_deck(const qr_run_options *options, char **text)
{
    char *deck_text = NULL;
    size_t n = 0;
    qr_simulation simulation;
    memset(&simulation, 0, sizeof simulation);
    qr_status status = qr_io_read_text(options->deck_path, QR_DECK_READ_BYTES, &deck_text, &n);
    if (status == QR_OK) {
        status =
            qr_deck_parse(options->deck_path, deck_text, n, options->overrides, options->n_overrides, &simulation.deck);
    }
    status = status == QR_OK ? qr_simulation_check_values(&simulation) : status;
    status = status == QR_OK ? qr_simulation_make_used_text(&simulation) : status;
    status = status == QR_OK && !options->values_only ? add_plan(&simulation, options) : status;
    if (status == QR_OK) {
        *text = simulation.used_text;
    } else {
        free(simulation.used_text);
    }
    qr_comm_destroy(simulation.comm);
    qr_deck_destroy(simulation.deck);
    free(deck_text);
    return status;
}
