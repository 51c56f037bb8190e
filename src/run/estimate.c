/* About how much memory a run needs, before it takes any: small buffers are left out. */
#include "run/paging.h"

#include "backend/layout.h"
#include "base/log.h"

#include <string.h>

/* Length of a part's view: own agents and the halo, at most as long as the network can make it. */
int64_t qr_estimate_view(const qr_network_spec *spec, int64_t n_own)
{
    int64_t rest = spec->n_agents - n_own;
    switch (spec->kind) {
    case QR_NETWORK_COMPLETE: return n_own;
    case QR_NETWORK_RING: return n_own + qr_min64(spec->degree + 64, rest + spec->degree + 64);
    case QR_NETWORK_LATTICE2D: return n_own + 4 * spec->size[0] + 64; /* Moore corners wrap inside rows */
    case QR_NETWORK_LATTICE3D: return n_own + 4 * spec->size[0] * spec->size[1] + 64;
    case QR_NETWORK_RANDOM_REGULAR:
    case QR_NETWORK_ERDOS_RENYI:
    case QR_NETWORK_SMALL_WORLD:
    case QR_NETWORK_SCALE_FREE:
    case QR_NETWORK_EDGE_LIST: return spec->n_agents;
    }
    return spec->n_agents;
}

qr_memory_need qr_estimate_part(const qr_simulation *simulation, const qr_model *model, int part)
{
    const qr_network_spec *spec = &simulation->spec;
    int64_t n_own = qr_partition_range(spec->n_agents, simulation->comm->n_parts, part).count;
    const qr_backend_ops *ops = qr_backend_find("cpu");
    qr_queue_shape shape = qr_shape_of_queue(simulation, part);
    const qr_paging *paging = &simulation->paging; /* that of this rank is much as everybody's */
    int64_t states = n_own * model->state_dim * (int64_t)sizeof(float);
    int64_t elsewhere = paging->wanted ? paging->needed_bytes - qr_paging_resident_bytes(paging) : 0;
    qr_memory_need need = {.states = states > elsewhere ? states - elsewhere : 0,
                           .network = (model->sweeps ? qr_network_colour_bytes(spec, n_own) : 0) +
                                      qr_network_bytes_estimate(spec, simulation->comm->n_parts),
                           .buffers = (int64_t)qr_queue_bytes(&shape)};
    if (simulation->on_device) {
        need.states = paging->wanted ? qr_paging_resident_bytes(paging) : 0;
    } else {
        need.votes = ops->bytes_estimate(model, spec, n_own, qr_estimate_view(spec, n_own)) - states;
    }
    return need;
}

qr_memory_need qr_estimate_device(const qr_simulation *simulation, const qr_model *model, int part)
{
    const qr_network_spec *spec = &simulation->spec;
    const qr_paging *paging = &simulation->paging;
    int64_t n_own = qr_partition_range(spec->n_agents, simulation->comm->n_parts, part).count;
    qr_device_bytes bytes = qr_layout_device_bytes(model, spec, n_own, qr_estimate_view(spec, n_own));
    int64_t pages = paging->tiers[QR_MEMORY_GPU].pages * paging->page_agents * paging->agent_bytes;
    return (qr_memory_need){.votes = bytes.votes,
                            .states = paging->wanted ? qr_min64(pages, bytes.states) : bytes.states,
                            .network = (model->sweeps ? qr_network_colour_bytes(spec, n_own) : 0) +
                                       qr_network_list_bytes(spec, n_own),
                            .buffers = bytes.staging + bytes.weights};
}

int64_t qr_memory_need_bytes(const qr_memory_need *need)
{
    return need->votes + need->states + need->network + need->buffers;
}

void qr_describe_need(const qr_memory_need *need, char *out, size_t n)
{
    char votes[32];
    char states[32];
    char network[32];
    char buffers[32];
    (void)snprintf(out, n, "votes %s, states %s, network %s, buffers %s", qr_bytes_text((double)need->votes, votes),
                   qr_bytes_text((double)need->states, states), qr_bytes_text((double)need->network, network),
                   qr_bytes_text((double)need->buffers, buffers));
}

static int64_t node_need(const qr_simulation *simulation, const qr_model *model)
{
    const qr_comm *comm = simulation->comm;
    int64_t need = 0;
    for (int rank = 0; rank < comm->size; rank++) {
        if (comm->all[rank].node == comm->me.node && comm->all[rank].role == QR_ROLE_COMPUTE) {
            qr_memory_need part = qr_estimate_part(simulation, model, comm->all[rank].part);
            need += qr_memory_need_bytes(&part);
        }
    }
    return need;
}

static double gib(int64_t bytes)
{
    return (double)bytes / 1073741824.0;
}

static bool is_first_on_node(const qr_comm *comm)
{
    for (int rank = 0; rank < comm->size; rank++) {
        const qr_place_in_job *place = &comm->all[rank];
        if (place->role == QR_ROLE_COMPUTE && place->node == comm->me.node && place->part < comm->me.part) {
            return false;
        }
    }
    return true;
}

/* A warning and no more: some systems say that they have little memory and give more when it is asked for, others
 * promise what they do not have and kill who believes it. */
void qr_warn_of_memory(const qr_simulation *simulation, const qr_model *model)
{
    int64_t have = qr_machine_memory();
    int64_t need = node_need(simulation, model);
    if (have > 0 && need > have && is_first_on_node(simulation->comm)) {
        const char *keys = model->state_dim == 0       ? ""
                           : simulation->paging.wanted ? "a smaller memory.tiers.cpu.capacity, "
                                                       : "memory.tiers with a directory for states that do not fit, ";
        qr_warning("the agents of node %d need about %.1f GiB, its memory is %.1f GiB; use more nodes, %sor a smaller "
                   "agents.count, model.state_dim or network degree",
                   simulation->comm->me.node, gib(need), gib(have), keys);
    }
}

void qr_warn_of_gpu_tier(const qr_simulation *simulation)
{
    if (!simulation->on_device && simulation->deck->memory.tiers.gpu.capacity > 0 && simulation->comm->me.part == 0) {
        qr_warning("memory.tiers.gpu.capacity is without effect: agents are not computed on a GPU (%s)",
                   simulation->backend_reason);
    }
}

static void print_device(const qr_simulation *simulation, const qr_model *model, int part)
{
    qr_memory_need need = qr_estimate_device(simulation, model, part);
    char whole[32];
    char parts[160];
    qr_describe_need(&need, parts, sizeof parts);
    qr_info("    of its GPU about %s (%s)%s", qr_bytes_text((double)qr_memory_need_bytes(&need), whole), parts,
            simulation->ops->frames->memory == NULL ? "" : "; an estimate, as no GPU is here");
}

void qr_print_plan(const qr_simulation *simulation, const qr_model *model)
{
    const qr_comm *comm = simulation->comm;
    int64_t total = 0;
    qr_info("plan: %lld agents, %d compute rank%s, %d I/O server%s, %d node%s", (long long)simulation->spec.n_agents,
            comm->n_parts, comm->n_parts == 1 ? "" : "s", comm->n_servers, comm->n_servers == 1 ? "" : "s",
            comm->n_nodes, comm->n_nodes == 1 ? "" : "s");
    for (int part = 0; part < comm->n_parts; part++) {
        qr_range range = qr_partition_range(simulation->spec.n_agents, comm->n_parts, part);
        qr_memory_need need = qr_estimate_part(simulation, model, part);
        int64_t bytes = qr_memory_need_bytes(&need);
        char parts[160];
        qr_describe_need(&need, parts, sizeof parts);
        total += bytes;
        qr_info("  compute rank %d on node %d: agents %lld to %lld, about %.3f GiB (%s)", part,
                comm->all[comm->world_of_part[part]].node, (long long)range.first,
                (long long)(range.first + range.count - 1), gib(bytes), parts);
        if (simulation->on_device) {
            print_device(simulation, model, part);
        }
    }
    qr_info("  all compute ranks: about %.3f GiB, %.2f bytes an agent; this machine has %.1f GiB", gib(total),
            (double)total / (double)simulation->spec.n_agents, gib(qr_machine_memory()));
}
