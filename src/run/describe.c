#include "run/describe.h"

qr_model_network qr_describe_network(const qr_network_spec *spec, int64_t max_degree)
{
    bool lattice = qr_network_is_lattice(spec->kind);
    int64_t degree = qr_lattice_degree(spec);
    return (qr_model_network){.n_agents = spec->n_agents,
                              .max_degree = lattice ? degree : max_degree,
                              .uniform_degree = lattice && spec->periodic ? degree : 0};
}
