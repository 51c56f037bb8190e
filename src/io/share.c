/* The copies of one server's share of one generation. */
#include "io/recovery.h"

#include "base/log.h"
#include "base/memory.h"
#include "io/file.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct copy {
    const char *directory;
    bool replica;
    const qr_generation_seal *seal;
    bool tried;  /* to open it; under the lock */
    bool warned; /* under the lock */
    _Atomic(qr_generation_reader *) reader;
    atomic_bool doubtful; /* marked, or found damaged: asked last */
} copy;

struct qr_share {
    int64_t generation;
    int server;
    bool quiet;
    size_t n;
    copy *copies;
    qr_generation_reader *first; /* opened; says what pages there are */
    pthread_mutex_t lock;        /* for opening and blaming */
};

/* --- which copies there are --- */

static const qr_manifest *find_manifest(const qr_recovery *recovery, int64_t generation, int directory)
{
    for (size_t i = 0; i < recovery->n; i++) {
        const qr_found *found = &recovery->found[i];
        if (found->manifest->generation == generation && (directory < 0 || found->directory == directory)) {
            return found->manifest;
        }
    }
    return NULL;
}

static const qr_generation_seal *find_seal(const qr_manifest *manifest, int server)
{
    for (int i = 0; i < manifest->n_shares; i++) {
        if (manifest->shares[i].server == server) {
            return &manifest->shares[i].seal;
        }
    }
    return NULL;
}

static bool has_index(const char *directory, int64_t generation, int server, bool replica)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_file_name(generation, server, replica, "index", name);
    bool there = qr_path_join(directory, name, &path) == QR_OK && access(path, F_OK) == 0;
    free(path);
    return there;
}

/* Own copies, then replicas, of each directory that does not belong to another run. Copies in a directory without a
 * manifest count, too, as their contents tell whether they are the right ones. */
static void list_copies(qr_share *share, const qr_recovery *recovery, const qr_manifest *reference,
                        const qr_generation_seal *seal)
{
    for (int d = 0; d < recovery->n_directories; d++) {
        const qr_manifest *manifest = find_manifest(recovery, share->generation, d);
        if (manifest != NULL && strcmp(manifest->run_id, reference->run_id) != 0) {
            continue;
        }
        for (int replica = 0; replica < 2; replica++) {
            if (has_index(recovery->directories[d], share->generation, share->server, replica)) {
                copy *c = &share->copies[share->n++];
                c->directory = recovery->directories[d];
                c->replica = replica;
                c->seal = seal;
                atomic_init(&c->reader, NULL);
                atomic_init(&c->doubtful,
                            qr_generation_is_marked(c->directory, share->generation, share->server, replica));
            }
        }
    }
}

/* --- opening and blaming --- */

/* With the lock held. `generation` of the file to blame. */
static void blame(qr_share *share, copy *c, int64_t generation)
{
    atomic_store(&c->doubtful, true);
    if (c->warned || share->quiet) {
        return;
    }
    c->warned = true;
    char why[QR_MESSAGE_BYTES];
    snprintf(why, sizeof why, "%s", qr_error_message());
    qr_warning("a damaged copy of a checkpoint: %s", why);
    /* Without the mark, the next one finds out by itself. */
    (void)qr_generation_mark_bad(c->directory, generation, share->server, c->replica, why);
    (void)qr_error(QR_DATA, "%s", why);
}

/* QR_DATA, with or without a message, when the copy is of no use. */
static qr_status open_copy(qr_share *share, copy *c, qr_generation_reader **out)
{
    qr_status status = QR_OK;
    qr_generation_reader *reader = atomic_load(&c->reader);
    if (reader == NULL) {
        (void)pthread_mutex_lock(&share->lock);
        reader = atomic_load(&c->reader);
        if (reader == NULL && c->tried) {
            status = QR_DATA;
        } else if (reader == NULL) {
            status = qr_generation_open(c->directory, share->generation, share->server, c->replica, c->seal, &reader);
            c->tried = status == QR_OK || status == QR_DATA;
            if (status == QR_DATA) {
                blame(share, c, share->generation);
            }
            atomic_store(&c->reader, status == QR_OK ? reader : NULL);
        }
        (void)pthread_mutex_unlock(&share->lock);
    }
    if (status == QR_OK) {
        *out = reader;
    }
    return status;
}

static qr_status open_share(const qr_recovery *recovery, const qr_manifest *reference, int64_t generation, int server,
                            qr_share **out)
{
    qr_share *share = NULL;
    const qr_generation_seal *seal = reference == NULL ? NULL : find_seal(reference, server);
    if (seal == NULL) {
        return qr_error(QR_DATA, "generation %" PRId64 " has no share of server %d", generation, server);
    }
    qr_status status = qr_allocate(1, sizeof *share, "a checkpoint", (void **)&share);
    if (status != QR_OK) {
        return status;
    }
    (void)pthread_mutex_init(&share->lock, NULL);
    share->generation = generation;
    share->server = server;
    share->quiet = recovery->quiet;
    status = qr_allocate((size_t)recovery->n_directories * 2, sizeof(copy), "a checkpoint", (void **)&share->copies);
    if (status == QR_OK) {
        list_copies(share, recovery, reference, seal);
        (void)qr_error(QR_DATA, "no file of it is here");
    }
    for (int doubtful = 0; doubtful < 2; doubtful++) {
        for (size_t i = 0; i < share->n && share->first == NULL && (status == QR_OK || status == QR_DATA); i++) {
            if (atomic_load(&share->copies[i].doubtful) == (doubtful == 1)) {
                status = open_copy(share, &share->copies[i], &share->first);
            }
        }
    }
    if (share->first == NULL) {
        status = status == QR_OK ? QR_DATA : status;
        status =
            qr_error_context(status, "generation %" PRId64 ", share of server %d cannot be read", generation, server);
        qr_share_close(share);
        return status;
    }
    *out = share;
    return QR_OK;
}

qr_status qr_share_open(const qr_recovery *recovery, int64_t generation, int server, qr_share **out)
{
    return open_share(recovery, find_manifest(recovery, generation, -1), generation, server, out);
}

qr_status qr_share_open_as(const qr_recovery *recovery, const qr_manifest *manifest, int server, qr_share **out)
{
    return open_share(recovery, manifest, manifest->generation, server, out);
}

void qr_share_close(qr_share *share)
{
    if (share == NULL) {
        return;
    }
    for (size_t i = 0; i < share->n; i++) {
        qr_generation_close(atomic_load(&share->copies[i].reader));
    }
    (void)pthread_mutex_destroy(&share->lock);
    free(share->copies);
    free(share);
}

const qr_page_record *qr_share_pages(const qr_share *share, size_t *n)
{
    return qr_generation_pages(share->first, n);
}

/* --- pages --- */

static qr_status read_from(qr_share *share, copy *c, size_t i, qr_page_scratch *scratch, void *raw)
{
    size_t n = 0;
    qr_generation_reader *reader = NULL;
    qr_status status = open_copy(share, c, &reader);
    if (status != QR_OK) {
        return status;
    }
    status = qr_generation_read_page(reader, i, scratch, raw);
    if (status == QR_DATA) {
        (void)pthread_mutex_lock(&share->lock);
        blame(share, c, qr_generation_pages(reader, &n)[i].generation);
        (void)pthread_mutex_unlock(&share->lock);
    }
    return status;
}

void qr_share_expect(const qr_share *share, size_t first, size_t n)
{
    qr_generation_expect(share->first, first, n);
}

qr_status qr_share_read_page(qr_share *share, size_t i, qr_page_scratch *scratch, void *raw)
{
    enum { MOST_NOTED = 64 };
    uint64_t asked = 0; /* in the first round */
    qr_status status = QR_DATA;
    for (int round = 0; round < 2; round++) {
        for (size_t k = 0; k < share->n; k++) {
            copy *c = &share->copies[k];
            uint64_t bit = k < MOST_NOTED ? UINT64_C(1) << k : 0;
            if ((asked & bit) != 0 || (round == 0 && atomic_load(&c->doubtful))) {
                continue;
            }
            asked |= bit;
            status = read_from(share, c, i, scratch, raw);
            if (status != QR_DATA) {
                return status;
            }
        }
    }
    return qr_error_context(status, "generation %" PRId64 ", share of server %d: no copy of a page is whole",
                            share->generation, share->server);
}
