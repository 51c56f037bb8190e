/* Edges between arbitrary ids, gathered one by one and then renumbered. */
#ifndef QR_NETWORK_EDGE_TABLE_H
#define QR_NETWORK_EDGE_TABLE_H

#include "network/edge_file.h"

/* Zeroed at the start. */
typedef struct qr_edge_builder {
    qr_edge *edges;
    size_t n_edges;
    size_t capacity;
    int64_t *slots; /* hash set of the ids met: open addressing, -1 = empty */
    size_t n_slots; /* 0 or a power of two */
    size_t n_ids;
} qr_edge_builder;

/* Ids must not be negative. */
qr_status qr_edge_builder_add(qr_edge_builder *builder, int64_t from, int64_t to);

/* Renumbers, drops self loops and duplicates, sorts and counts. Takes the builder's edges; the builder is still to be
 * cleared. */
qr_status qr_edge_builder_finish(qr_edge_builder *builder, bool directed, qr_edge_table *out);

void qr_edge_builder_clear(qr_edge_builder *builder);

#endif
