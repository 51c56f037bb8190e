/* What the disks hold: the generations that a restart may take, read from the directories alone. */
#ifndef QR_IO_RECOVERY_H
#define QR_IO_RECOVERY_H

#include "io/manifest.h"

/* One generation with a valid manifest, in one directory. */
typedef struct qr_found {
    int directory; /* index into the directories looked through: the faster tier has the lower one */
    qr_manifest *manifest;
} qr_found;

typedef struct qr_recovery {
    int n_directories;
    char **directories;
    size_t n;
    qr_found *found;       /* newest generation first, then faster tiers first */
    int64_t highest;       /* generation number in any name, valid or not; 0: none */
    size_t n_damaged;      /* manifests that cannot be trusted */
    char *damaged_message; /* why the first of them cannot; NULL: none */
    bool quiet;            /* may be set: shares only pass over damage, and neither mark it nor warn of it */
} qr_recovery;

/* Looks through the directories; a missing one holds nothing. Damaged manifests are counted and left out. QR_RESOURCE
 * when memory, or open files, are not enough to look. */
qr_status qr_recovery_scan(const char *const *directories, int n_directories, qr_recovery **out);
void qr_recovery_destroy(qr_recovery *recovery);

/* The copies of one server's share of one generation that are here: own and replica, of each directory, those marked
 * bad last. Opened when first needed. */
typedef struct qr_share qr_share;

/* QR_DATA when no copy can be opened, QR_RESOURCE when that is not the copies' fault. The recovery outlives the share.
 * Of directories that hold this generation of another run, the fastest tier's run is meant. */
qr_status qr_share_open(const qr_recovery *recovery, int64_t generation, int server, qr_share **out);

/* The same as a manifest has it that all ranks agreed on: what another one says of the generation here does not count.
 */
qr_status qr_share_open_as(const qr_recovery *recovery, const qr_manifest *manifest, int server, qr_share **out);
void qr_share_close(qr_share *share);
const qr_page_record *qr_share_pages(const qr_share *share, size_t *n);

/* Pages [first, first + n) will be read soon. Not beside reads. */
void qr_share_expect(const qr_share *share, size_t first, size_t n);

/* Page i from the first copy that has it whole. Copies found damaged are marked on disk and warned of once each;
 * QR_DATA when no copy is left. Threads may call this side by side. */
qr_status qr_share_read_page(qr_share *share, size_t i, qr_page_scratch *scratch, void *raw);

/* Whether a directory holds anything that looks like a generation. */
bool qr_recovery_looks_like(const char *directory);

/* Prints every generation: step, size, ratio, tiers, replicas, and whether each verifies, page by page; with repair,
 * damaged or missing copies are made again from good ones. QR_USAGE when there is none, QR_DATA when a generation is
 * beyond use or, without repair, a copy is damaged. */
qr_status qr_recovery_report(const char *const *directories, int n_directories, bool repair);

/* `quorate info`: tells of a result file, of page files, of a directory with results, with checkpoints or both (also in
 * its folder `checkpoints`), or, with n > 1, of the checkpoints that several directories hold together. QR_USAGE when
 * there is nothing of that kind; otherwise as qr_io_info and qr_recovery_report. */
qr_status qr_info_places(const char *const *paths, int n, bool repair);

/* Removes what killed writers left: temporary files, and shares of generations without a manifest that no manifest's
 * pages lie in. For a run that restarts, or begins, before its first cut; by one server a directory. */
qr_status qr_recovery_clean(const char *directory);

#endif
