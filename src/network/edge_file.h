/* Edge lists in SNAP form: two integer ids a line, separated by blanks or tabs; '#' or '%' begin a comment line;
 * further columns are ignored; plain or gzip. Ids are arbitrary non-negative 63-bit integers and are renumbered 0..n-1
 * in ascending order. Opens no file itself: it reads through a callback, so that I/O ranks alone touch files. */
#ifndef QR_NETWORK_EDGE_FILE_H
#define QR_NETWORK_EDGE_FILE_H

#include "network/network.h"

typedef struct qr_edge_source {
    const char *name; /* for messages: "name:line:column: ..." */
    void *context;
    /* Up to n bytes into buffer; *got = 0 at the end. */
    qr_status (*read)(void *context, void *buffer, size_t n, size_t *got);
} qr_edge_source;

typedef struct qr_edge_table {
    qr_network_facts facts;
    int64_t n_edges;
    qr_edge *edges; /* renumbered; undirected: from < to, each pair once; directed: each arc once; sorted */
    int64_t *ids;   /* [facts.agents] original id of each agent, ascending */
} qr_edge_table;

/* Parses a whole source (gzip is recognised by its first bytes). An undirected file may list a pair in one or both
 * directions; facts.duplicates counts lines that repeat an earlier one in the same direction. Errors are QR_USAGE with
 * the place for content that is not an edge list, QR_DATA for a broken gzip. */
qr_status qr_edge_table_read(const qr_edge_source *source, bool directed, qr_edge_table *out);

void qr_edge_table_clear(qr_edge_table *table);

#endif
