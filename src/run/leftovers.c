/* Page files that an earlier attempt left in directories which the deck no longer names. Those in directories that it
 * does name go when the page store is made. */
#include "run/paging.h"

#include "base/log.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/page_store.h"
#include "io/source.h"

#include <stdlib.h>
#include <string.h>

/* The deck that the results say they were last written with; NULL when there is none. Collective over the world: rank 0
 * reads, as it does the deck. */
static qr_status read_former(const qr_simulation *simulation, qr_deck **former)
{
    char *path = NULL;
    char *text = NULL;
    size_t n = 0;
    *former = NULL;
    if (simulation->comm->rank == 0 && qr_path_join(simulation->deck->output.directory, "used.yml", &path) == QR_OK) {
        (void)qr_io_read_text(path, QR_DECK_READ_BYTES, &text, &n); /* or this is the first attempt */
    }
    free(path);
    uint64_t bytes = text != NULL ? n : 0;
    MPI_Bcast(&bytes, 1, MPI_UINT64_T, 0, simulation->comm->world);
    qr_status status = QR_OK;
    if (simulation->comm->rank != 0) {
        status = qr_allocate((size_t)bytes + 1, 1, "the deck", (void **)&text);
    }
    status = qr_comm_agree(simulation->comm->world, status);
    if (status == QR_OK && bytes > 0) {
        MPI_Bcast(text, (int)bytes, MPI_CHAR, 0, simulation->comm->world);
        (void)qr_deck_parse("used.yml", text, (size_t)bytes, NULL, 0, former); /* it may be damaged */
    }
    free(text);
    return status;
}

static bool is_ours(const qr_deck *deck, const char *directory)
{
    bool ours = false;
    for (int t = 0; t < QR_N_TIERS; t++) {
        ours = ours || strcmp(qr_paging_disk(deck, t)->directory, directory) == 0;
    }
    return ours;
}

qr_status qr_paging_clear_leftovers(const qr_simulation *simulation)
{
    const qr_comm *comm = simulation->comm;
    qr_deck *former = NULL;
    qr_status status = read_former(simulation, &former);
    bool serves = comm->me.role == QR_ROLE_IO || qr_comm_serves_itself(comm);
    for (int t = 0; t < QR_N_TIERS && serves && former != NULL; t++) {
        const char *pattern = qr_paging_disk(former, t)->directory;
        char *directory = NULL;
        if (pattern[0] == '\0' || is_ours(simulation->deck, pattern) ||
            qr_expand_node(pattern, comm->me.node, &directory) != QR_OK) {
            continue;
        }
        int64_t bytes = qr_page_store_clean(directory);
        if (bytes > 0) {
            qr_info("%s: removed %.1f MiB of pages of an earlier attempt; its memory.tiers.%s is elsewhere now",
                    directory, (double)bytes / (1 << 20), qr_tier_name(t));
        }
        free(directory);
    }
    qr_deck_destroy(former);
    return status;
}
