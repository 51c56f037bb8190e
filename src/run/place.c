/* What a compute rank shares with the others of its machine. */
#include "run/simulation.h"

int qr_ranks_of_machine(const qr_comm *comm, int *place)
{
    int ranks = 0;
    int before = 0;
    for (int part = 0; part < comm->n_parts; part++) {
        if (comm->all[comm->world_of_part[part]].machine == comm->me.machine) {
            ranks++;
            before += part < comm->me.part ? 1 : 0;
        }
    }
    if (place != NULL) {
        *place = before;
    }
    return ranks > 0 ? ranks : 1;
}

int qr_threads_of_rank(const qr_simulation *simulation)
{
    if (simulation->deck->compute.threads > 0) {
        return (int)simulation->deck->compute.threads;
    }
    /* A rank bound to some cores uses those; ranks that are bound to nothing share the machine's. */
    int share = qr_machine_cores() / qr_ranks_of_machine(simulation->comm, NULL);
    return share > 0 ? share : 1;
}
