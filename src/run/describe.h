/* What a model is told about the network it runs on. */
#ifndef QR_RUN_DESCRIBE_H
#define QR_RUN_DESCRIBE_H

#include "model/model.h"
#include "network/network.h"

/* max_degree: the largest degree of any agent of the job, for networks other than rings and lattices, which know
 * theirs. */
qr_model_network qr_describe_network(const qr_network_spec *spec, int64_t max_degree);

#endif
