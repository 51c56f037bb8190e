/* Any bytes as an edge list, delivered in portions that the first byte sets: what is accepted must be a proper table.
 */
#include "network/edge_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct byte_source {
    const uint8_t *data;
    size_t n;
    size_t portion;
} byte_source;

static qr_status read_bytes(void *context, void *buffer, size_t n, size_t *got)
{
    byte_source *source = context;
    size_t take = source->n < n ? source->n : n;
    take = take < source->portion ? take : source->portion;
    if (take > 0) {
        memcpy(buffer, source->data, take);
    }
    source->data += take;
    source->n -= take;
    *got = take;
    return QR_OK;
}

static void demand(int truth, const char *what)
{
    if (!truth) {
        (void)fprintf(stderr, "%s: %s\n", what, qr_error_message());
        abort();
    }
}

static void check_table(const qr_edge_table *table, bool directed)
{
    const qr_network_facts *facts = &table->facts;
    demand(facts->agents >= 1 && facts->edges == table->n_edges, "counts");
    demand(facts->degree_sum == (directed ? 1 : 2) * facts->edges, "degree sum");
    demand(facts->components >= 1 && facts->components <= facts->agents, "components");
    demand(facts->components >= facts->agents - facts->edges, "components and edges");
    demand(facts->self_loops >= 0 && facts->duplicates >= 0, "dropped");
    for (int64_t i = 0; i < facts->agents; i++) {
        demand(table->ids[i] >= 0 && (i == 0 || table->ids[i] > table->ids[i - 1]), "ids ascend");
    }
    for (int64_t i = 0; i < table->n_edges; i++) {
        const qr_edge edge = table->edges[i];
        demand(edge.from >= 0 && edge.from < facts->agents && edge.to >= 0 && edge.to < facts->agents, "ends");
        demand(directed ? edge.from != edge.to : edge.from < edge.to, "no self loop, smaller first");
        demand(i == 0 || edge.from > table->edges[i - 1].from ||
                   (edge.from == table->edges[i - 1].from && edge.to > table->edges[i - 1].to),
               "edges ascend");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    const bool directed = data[0] & 1;
    byte_source bytes = {.data = data + 1, .n = size - 1, .portion = (size_t)(data[0] >> 1) + 1};
    const qr_edge_source source = {.name = "fuzz.txt", .context = &bytes, .read = read_bytes};
    qr_edge_table table;
    const qr_status status = qr_edge_table_read(&source, directed, &table);
    if (status == QR_OK) {
        check_table(&table, directed);
        qr_edge_table_clear(&table);
    } else {
        demand(status == QR_USAGE || status == QR_DATA, "not the file's fault");
        demand(strncmp(qr_error_message(), "fuzz.txt:", 9) == 0, "no place");
        demand(strchr(qr_error_message(), '\n') == NULL, "more than one line");
    }
    return 0;
}
