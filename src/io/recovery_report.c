/* `quorate info` of directories with checkpoints. */
#include "io/recovery_parts.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE_BYTES = 32 };

/* "1.5 MiB" */
static void print_size(double bytes, char out[SIZE_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, SIZE_BYTES, "%.*f %s", unit == 0 ? 0 : 1, bytes, units[unit]);
}

/* --- whether a generation can be read --- */

static qr_status read_share(const qr_recovery *recovery, int64_t generation, int server)
{
    qr_share *share = NULL;
    qr_page_scratch scratch = {0};
    size_t n = 0;
    qr_status status = qr_share_open(recovery, generation, server, &share);
    const qr_page_record *pages = status == QR_OK ? qr_share_pages(share, &n) : NULL;
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        void *raw = NULL;
        status = qr_allocate((size_t)pages[i].raw_bytes, 1, "a page", &raw);
        status = status != QR_OK ? status : qr_share_read_page(share, i, &scratch, raw);
        free(raw);
    }
    free(scratch.bytes);
    qr_share_close(share);
    return status;
}

/* Copies of one generation: [first, last) of all. */
typedef struct stretch {
    const qr_copy *copies;
    size_t n;
} stretch;

static bool has_whole(stretch all, int server)
{
    for (size_t i = 0; i < all.n; i++) {
        if (all.copies[i].share->server == server && all.copies[i].state == QR_COPY_WHOLE) {
            return true;
        }
    }
    return false;
}

/* Shares of which no copy is whole may still be whole together. *mended: there are such. */
static qr_status judge(const qr_recovery *recovery, const qr_manifest *manifest, stretch all, bool *mended)
{
    qr_status status = QR_OK;
    for (int i = 0; i < manifest->n_shares && status == QR_OK; i++) {
        int server = manifest->shares[i].server;
        if (!has_whole(all, server)) {
            *mended = true;
            status = read_share(recovery, manifest->generation, server);
        }
    }
    return status;
}

/* --- printing --- */

static void print_copy(const qr_copy *copy)
{
    const char *replica = copy->replica ? ", replica" : "";
    if (copy->state == QR_COPY_MISSING) {
        printf("    server %d%s: missing\n", copy->share->server, replica);
    } else if (copy->state == QR_COPY_DAMAGED && copy->damaged_pages > 0) {
        printf("    server %d%s: damaged, %zu of %" PRId64 " pages: %s\n", copy->share->server, replica,
               copy->damaged_pages, copy->share->seal.pages, copy->why == NULL ? "" : copy->why);
    } else if (copy->state == QR_COPY_DAMAGED) {
        printf("    server %d%s: damaged: %s\n", copy->share->server, replica, copy->why == NULL ? "" : copy->why);
    } else if (copy->marked) {
        printf("    server %d%s: whole, though a run found it damaged\n", copy->share->server, replica);
    }
}

static void print_directory(const qr_found *found, const char *directory, stretch copies)
{
    const qr_manifest *manifest = found->manifest;
    char stored[SIZE_BYTES];
    qr_generation_seal sum = {.pages = 0};
    int there[2] = {0, 0};
    int whole[2] = {0, 0};
    for (int i = 0; i < manifest->n_shares; i++) {
        sum.pages += manifest->shares[i].seal.pages;
        sum.written_pages += manifest->shares[i].seal.written_pages;
        sum.stored_bytes += manifest->shares[i].seal.stored_bytes;
        sum.raw_bytes += manifest->shares[i].seal.raw_bytes;
    }
    for (size_t i = 0; i < copies.n; i++) {
        there[copies.copies[i].replica]++;
        whole[copies.copies[i].replica] += copies.copies[i].state == QR_COPY_WHOLE;
    }
    print_size((double)sum.stored_bytes, stored);
    printf("  %s  %s\n    %s, %s", manifest->tier, directory, manifest->codec, stored);
    if (sum.stored_bytes > 0) {
        printf(", ratio %.2f", (double)sum.raw_bytes / (double)sum.stored_bytes);
    }
    printf(", %" PRId64 " of %" PRId64 " pages taken over\n", sum.pages - sum.written_pages, sum.pages);
    printf("    %d of %d shares here, %d whole", there[0], manifest->n_shares, whole[0]);
    if (there[1] > 0) {
        printf("; %d replicas, %d whole", there[1], whole[1]);
    }
    printf("\n");
    for (size_t i = 0; i < copies.n; i++) {
        print_copy(&copies.copies[i]);
    }
}

static void print_generation(const qr_manifest *manifest)
{
    char raw[SIZE_BYTES];
    double bytes = 0;
    for (int i = 0; i < manifest->n_shares; i++) {
        bytes += (double)manifest->shares[i].seal.raw_bytes;
    }
    print_size(bytes, raw);
    printf("generation %" PRId64 ": step %" PRId64 ", %" PRId64 " agents, %s, run %s\n", manifest->generation,
           manifest->step, manifest->n_agents, raw, manifest->run_id);
}

/* What the report comes to. */
typedef struct verdict {
    size_t copies_damaged;
    char damage[QR_MESSAGE_BYTES]; /* of the first one: file and what is wrong with it */
    int64_t lost;                  /* newest generation beyond use; 0: none */
    char why[QR_MESSAGE_BYTES];
    int64_t good, good_step; /* newest generation that can be read; 0: none */
} verdict;

/* Why a generation is beyond use, with a file in it. */
static void note_loss(verdict *v, int64_t generation, stretch all)
{
    const char *why = qr_error_message();
    for (size_t i = 0; i < all.n && strchr(why, '/') == NULL; i++) {
        why = all.copies[i].state == QR_COPY_DAMAGED && all.copies[i].why != NULL ? all.copies[i].why : why;
    }
    v->lost = generation;
    (void)snprintf(v->why, sizeof v->why, "%s", why);
}

/* One generation, which founds [first, last) hold. */
static qr_status report_generation(const qr_recovery *recovery, size_t first, size_t last, stretch all, verdict *v)
{
    const qr_manifest *manifest = recovery->found[first].manifest;
    bool mended = false;
    print_generation(manifest);
    size_t at = 0;
    for (size_t i = first; i < last; i++) {
        stretch here = {.copies = all.copies + at};
        while (at < all.n && all.copies[at].found == &recovery->found[i]) {
            const qr_copy *copy = &all.copies[at++];
            v->copies_damaged += copy->state != QR_COPY_WHOLE;
            if (copy->state != QR_COPY_WHOLE && v->damage[0] == '\0') {
                (void)snprintf(v->damage, sizeof v->damage, "generation %" PRId64 ", share of server %d: %s",
                               manifest->generation, copy->share->server,
                               copy->state == QR_COPY_MISSING ? "missing"
                               : copy->why != NULL            ? copy->why
                                                              : "damaged");
            }
            here.n++;
        }
        print_directory(&recovery->found[i], recovery->directories[recovery->found[i].directory], here);
    }
    qr_status status = judge(recovery, manifest, all, &mended);
    if (status == QR_OK) {
        printf("  %s\n", mended ? "all of it can be read, each page from one of its copies" : "all of it can be read");
        if (v->good == 0) {
            v->good = manifest->generation;
            v->good_step = manifest->step;
        }
    } else if (status == QR_DATA) {
        printf("  beyond use: %s\n", qr_error_message());
        if (v->lost == 0) {
            note_loss(v, manifest->generation, all);
        }
        status = QR_OK;
    }
    return status;
}

static qr_status report(const qr_recovery *recovery, const qr_copy *copies, size_t n, verdict *v)
{
    size_t at = 0;
    qr_status status = QR_OK;
    for (size_t first = 0; first < recovery->n && status == QR_OK;) {
        size_t last = first;
        int64_t generation = recovery->found[first].manifest->generation;
        stretch all = {.copies = copies + at};
        while (last < recovery->n && recovery->found[last].manifest->generation == generation) {
            last++;
        }
        while (at < n && copies[at].found->manifest->generation == generation) {
            at++;
            all.n++;
        }
        status = report_generation(recovery, first, last, all, v);
        first = last;
    }
    if (recovery->n_damaged > 0) {
        printf("damaged manifests: %zu: %s\n", recovery->n_damaged,
               recovery->damaged_message == NULL ? "" : recovery->damaged_message);
    }
    return status;
}

/* What a restart would take. */
static void say_what_is_left(const verdict *v, char out[QR_MESSAGE_BYTES])
{
    if (v->good > 0) {
        (void)snprintf(out, QR_MESSAGE_BYTES, "a restart goes on from generation %" PRId64 ", step %" PRId64, v->good,
                       v->good_step);
    } else {
        (void)snprintf(out, QR_MESSAGE_BYTES, "no generation is left here that a restart could take");
    }
}

/* What is wrong, in which file, and what can be done. repaired: that has been tried. */
static qr_status conclude(const qr_recovery *recovery, const verdict *v, bool repaired)
{
    char left[QR_MESSAGE_BYTES];
    size_t n = v->copies_damaged + recovery->n_damaged;
    say_what_is_left(v, left);
    if (v->lost > 0) {
        return qr_error(QR_DATA,
                        "generation %" PRId64 " is beyond use: %s; no good copy of that is here. If another tier or "
                        "node has one, name its directory too: quorate info DIR DIR... --repair. Otherwise %s",
                        v->lost, v->why, left);
    }
    if (n > 0) {
        const char *first = v->damage[0] != '\0'                ? v->damage
                            : recovery->damaged_message != NULL ? recovery->damaged_message
                                                                : "a manifest is damaged";
        return qr_error(QR_DATA, "%zu cop%s or manifest%s damaged or missing, the first: %s; %s; %s", n,
                        n == 1 ? "y" : "ies", n == 1 ? " is" : "s are", first,
                        repaired ? "no good one is here to make it from: if another tier or node has one, name its "
                                   "directory too"
                                 : "quorate info DIR... --repair makes it again where a good one is in the directories "
                                   "named",
                        left);
    }
    return QR_OK;
}

/* Scans and verifies; all outputs are to be freed also after a failure. */
static qr_status look(const char *const *directories, int n_directories, qr_recovery **recovery, qr_copy **copies,
                      size_t *n)
{
    qr_status status = qr_recovery_scan(directories, n_directories, recovery);
    if (status != QR_OK) {
        return status;
    }
    (*recovery)->quiet = true;
    status = qr_copies_list(*recovery, copies, n);
    for (size_t i = 0; i < *n && status == QR_OK; i++) {
        status = qr_copy_verify(&(*copies)[i]);
    }
    return status;
}

static void forget(qr_recovery **recovery, qr_copy **copies, size_t *n)
{
    qr_copies_free(*copies, *n);
    qr_recovery_destroy(*recovery);
    *recovery = NULL;
    *copies = NULL;
    *n = 0;
}

static qr_status repair_all(const char *const *directories, int n_directories)
{
    qr_recovery *recovery = NULL;
    qr_copy *copies = NULL;
    size_t n = 0;
    size_t made = 0;
    qr_status status = qr_recovery_scan(directories, n_directories, &recovery);
    status = status != QR_OK ? status : qr_manifests_repair(recovery, &made);
    forget(&recovery, &copies, &n);
    status = status != QR_OK ? status : look(directories, n_directories, &recovery, &copies, &n);
    status = status != QR_OK ? status : qr_copies_repair(recovery, copies, n, &made);
    if (status == QR_OK && made == 0) {
        bool damaged = recovery->n_damaged > 0;
        for (size_t i = 0; i < n; i++) {
            damaged = damaged || copies[i].state != QR_COPY_WHOLE;
        }
        printf("%s\n", damaged ? "nothing that could be made again" : "nothing to repair");
    }
    forget(&recovery, &copies, &n);
    return status;
}

qr_status qr_recovery_report(const char *const *directories, int n_directories, bool repair)
{
    qr_recovery *recovery = NULL;
    qr_copy *copies = NULL;
    size_t n = 0;
    verdict v = {.lost = 0};
    qr_status status = repair ? repair_all(directories, n_directories) : QR_OK;
    status = status != QR_OK ? status : look(directories, n_directories, &recovery, &copies, &n);
    if (status == QR_OK && recovery->n == 0) {
        status = recovery->n_damaged > 0
                     ? qr_error(QR_DATA, "%s",
                                recovery->damaged_message == NULL ? "a manifest is damaged" : recovery->damaged_message)
                     : qr_error(QR_USAGE, "%s%s: no generation was committed there", directories[0],
                                n_directories > 1 ? ", ..." : "");
    }
    status = status != QR_OK ? status : report(recovery, copies, n, &v);
    status = status != QR_OK ? status : conclude(recovery, &v, repair);
    char message[QR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", qr_error_message());
    forget(&recovery, &copies, &n);
    return status == QR_OK ? QR_OK : qr_error(status, "%s", message);
}
