/* What stands in a tier's directory, and which of it may go. Decided from the directory alone, so that what earlier
 * runs left is retired as well; servers that share a directory may do this at the same time. */
#include "io/checkpoint_parts.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    int64_t generation;
    int server; /* -1: manifest */
    bool replica;
    qr_generation_file_kind kind;
    int64_t bytes;
} entry;

typedef struct listing {
    entry *entries;
    size_t n, room;
} listing;

/* Data files that pages of kept generations lie in; generation -1: any, for it is not known which. */
typedef struct reference {
    int64_t generation;
    int server;
    bool replica;
} reference;

typedef struct references {
    reference *all;
    size_t n, room;
} references;

static qr_status list_files(const char *directory, listing *out)
{
    DIR *handle = opendir(directory);
    if (handle == NULL) {
        return qr_file_error(directory, "read", errno);
    }
    qr_status status = QR_OK;
    const struct dirent *found = NULL;
    while (status == QR_OK && (found = readdir(handle)) != NULL) {
        entry next = {0};
        struct stat info;
        if (!qr_generation_parse_name(found->d_name, &next.generation, &next.server, &next.replica, &next.kind) ||
            fstatat(dirfd(handle), found->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) {
            continue;
        }
        next.bytes = (int64_t)info.st_size;
        status = qr_grow((void **)&out->entries, &out->room, out->n + 1, sizeof next, "a list of files");
        if (status == QR_OK) {
            out->entries[out->n++] = next;
        }
    }
    closedir(handle);
    return status;
}

qr_status qr_tier_used(const char *directory, int64_t *bytes)
{
    listing files = {0};
    qr_status status = list_files(directory, &files);
    if (status == QR_OK) {
        *bytes = 0;
        for (size_t i = 0; i < files.n; i++) {
            *bytes += files.entries[i].bytes;
        }
    }
    free(files.entries);
    return status;
}

/* --- references --- */

static qr_status add_reference(references *list, int64_t generation, int server, bool replica)
{
    for (size_t i = 0; i < list->n; i++) {
        const reference *known = &list->all[i];
        if (known->generation == generation && known->server == server && known->replica == replica) {
            return QR_OK;
        }
    }
    qr_status status = qr_grow((void **)&list->all, &list->room, list->n + 1, sizeof *list->all, "a list of files");
    if (status == QR_OK) {
        list->all[list->n++] = (reference){.generation = generation, .server = server, .replica = replica};
    }
    return status;
}

static bool is_referenced(const references *list, const entry *file)
{
    for (size_t i = 0; i < list->n; i++) {
        const reference *known = &list->all[i];
        if (known->server == file->server && known->replica == file->replica &&
            (known->generation == -1 || known->generation == file->generation)) {
            return true;
        }
    }
    return false;
}

/* Whether an older data file of this server is here that could be referred to. */
static bool has_older(const listing *files, int64_t generation, int server, bool replica)
{
    for (size_t i = 0; i < files->n; i++) {
        const entry *file = &files->entries[i];
        if (file->kind == QR_FILE_DATA && file->server == server && file->replica == replica &&
            file->generation < generation) {
            return true;
        }
    }
    return false;
}

/* A copy of a kept share that is not here (a replica that is still on its way), or cannot be read, may refer to
 * anything. */
static qr_status add_share(const char *directory, const listing *files, int64_t generation,
                           const qr_manifest_share *share, bool replica, references *list)
{
    qr_generation_reader *reader = NULL;
    size_t n = 0;
    if (!has_older(files, generation, share->server, replica)) {
        return QR_OK;
    }
    if (qr_generation_open(directory, generation, share->server, replica, &share->seal, &reader) != QR_OK) {
        return add_reference(list, -1, share->server, replica);
    }
    qr_status status = QR_OK;
    const qr_page_record *pages = qr_generation_pages(reader, &n);
    int64_t last = generation;
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        if (pages[i].generation != last) {
            last = pages[i].generation;
            status = add_reference(list, last, share->server, replica);
        }
    }
    qr_generation_close(reader);
    return status;
}

static qr_status add_generation(const char *directory, const listing *files, int64_t generation,
                                const qr_manifest *manifest, references *list)
{
    qr_status status = QR_OK;
    for (int i = 0; i < manifest->n_shares && status == QR_OK; i++) {
        status = add_share(directory, files, generation, &manifest->shares[i], false, list);
        status = status != QR_OK ? status : add_share(directory, files, generation, &manifest->shares[i], true, list);
    }
    return status;
}

/* --- what is kept --- */

typedef struct kept_set {
    int64_t *generations; /* newest first, then the pinned ones */
    size_t n, room;
    int64_t newest, oldest;
} kept_set;

static int newest_first(const void *a, const void *b)
{
    const entry *left = a;
    const entry *right = b;
    return left->generation > right->generation ? -1 : left->generation < right->generation;
}

static bool is_kept(const kept_set *kept, int64_t generation)
{
    for (size_t i = 0; i < kept->n; i++) {
        if (kept->generations[i] == generation) {
            return true;
        }
    }
    return false;
}

static bool is_pinned(const int64_t *pinned, size_t n, int64_t generation)
{
    for (size_t i = 0; i < n; i++) {
        if (pinned[i] == generation) {
            return true;
        }
    }
    return false;
}

/* True when a recovery found a share of it damaged: it may be good for some pages, but not for one of the last. */
static bool is_marked(const listing *files, int64_t generation)
{
    for (size_t i = 0; i < files->n; i++) {
        if (files->entries[i].kind == QR_FILE_BAD_MARK && files->entries[i].generation == generation) {
            return true;
        }
    }
    return false;
}

/* The newest `keep` with a manifest that holds, and the pinned ones, with the files that their pages lie in. */
static qr_status choose(const char *directory, const listing *files, int64_t keep, const int64_t *pinned,
                        size_t n_pinned, kept_set *kept, references *list)
{
    qr_status status = QR_OK;
    int64_t left = keep;
    for (size_t i = 0; i < files->n && status == QR_OK; i++) {
        const entry *file = &files->entries[i];
        char name[QR_GENERATION_NAME_BYTES];
        char *path = NULL;
        qr_manifest *manifest = NULL;
        if (file->kind != QR_FILE_MANIFEST || (left == 0 && !is_pinned(pinned, n_pinned, file->generation))) {
            continue;
        }
        qr_generation_manifest_name(file->generation, name);
        status = qr_path_join(directory, name, &path);
        if (status == QR_OK) {
            status = qr_manifest_load(path, &manifest);
            if (status != QR_OK && (status == QR_DATA || access(path, F_OK) != 0)) {
                status = QR_OK; /* damaged, or retired by another server just now */
            }
        }
        if (manifest != NULL) {
            left -= left > 0 && !is_marked(files, file->generation) ? 1 : 0;
            status = qr_grow((void **)&kept->generations, &kept->room, kept->n + 1, sizeof(int64_t), "generations");
            if (status == QR_OK) {
                kept->newest = kept->n == 0 ? file->generation : kept->newest;
                kept->oldest = file->generation;
                kept->generations[kept->n++] = file->generation;
                status = add_generation(directory, files, file->generation, manifest, list);
            }
            qr_manifest_destroy(manifest);
        }
        free(path);
    }
    return status;
}

/* --- removal --- */

static bool has_manifest(const listing *files, int64_t generation)
{
    for (size_t i = 0; i < files->n; i++) {
        if (files->entries[i].kind == QR_FILE_MANIFEST && files->entries[i].generation == generation) {
            return true;
        }
    }
    return false;
}

static qr_status fault_at(const char *point, const char *directory)
{
    int error = qr_fault(point, directory);
    return error == 0 ? QR_OK : qr_file_error(directory, "written", error);
}

/* Manifests first: a generation without one does not count, so that nobody misses its files. */
static qr_status remove_manifests(const char *directory, const listing *files, const kept_set *kept, int64_t *retired)
{
    qr_status status = QR_OK;
    bool any = false;
    for (size_t i = 0; i < files->n && status == QR_OK; i++) {
        const entry *file = &files->entries[i];
        if (file->kind == QR_FILE_MANIFEST && file->generation < kept->newest && !is_kept(kept, file->generation)) {
            status = fault_at("checkpoint.retire", directory);
            status = status != QR_OK ? status : qr_manifest_remove(directory, file->generation);
            *retired += status == QR_OK ? 1 : 0;
            any = true;
        }
    }
    return status == QR_OK && any ? qr_directory_sync(directory) : status;
}

static qr_status remove_index(const char *directory, const entry *file)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_file_name(file->generation, file->server, file->replica, "index", name);
    qr_status status = qr_path_join(directory, name, &path);
    if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
        status = qr_file_error(path, "removed", errno);
    }
    free(path);
    return status;
}

static qr_status remove_files(const char *directory, const listing *files, const kept_set *kept, const references *list)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < files->n && status == QR_OK; i++) {
        const entry *file = &files->entries[i];
        if (file->kind == QR_FILE_MANIFEST || file->kind == QR_FILE_TEMPORARY || file->generation >= kept->newest ||
            is_kept(kept, file->generation)) {
            continue;
        }
        status = fault_at("checkpoint.retire_data", directory);
        if (status == QR_OK && !is_referenced(list, file)) {
            status = qr_generation_remove(directory, file->generation, file->server, file->replica);
        } else if (status == QR_OK && file->kind == QR_FILE_INDEX) {
            status = remove_index(directory, file);
        }
    }
    return status;
}

qr_status qr_tier_retire(const char *directory, int64_t keep, const int64_t *pinned, size_t n_pinned, int64_t *retired,
                         int64_t *below)
{
    listing files = {0};
    kept_set kept = {0};
    references list = {0};
    *retired = 0;
    qr_status status = list_files(directory, &files);
    if (status == QR_OK && files.n > 0) {
        qsort(files.entries, files.n, sizeof *files.entries, newest_first);
        status = choose(directory, &files, keep, pinned, n_pinned, &kept, &list);
    }
    if (status == QR_OK && kept.n > 0) {
        status = remove_manifests(directory, &files, &kept, retired);
        status = status != QR_OK ? status : remove_files(directory, &files, &kept, &list);
        if (below != NULL) {
            *below = kept.oldest;
        }
    }
    free(files.entries);
    free(kept.generations);
    free(list.all);
    return status;
}

qr_status qr_tier_remove(const char *directory, int64_t generation, int server)
{
    listing files = {0};
    qr_status status = list_files(directory, &files);
    if (status == QR_OK && has_manifest(&files, generation)) {
        status = qr_manifest_remove(directory, generation);
        status = status != QR_OK ? status : qr_directory_sync(directory);
    }
    for (size_t i = 0; i < files.n && status == QR_OK; i++) {
        const entry *file = &files.entries[i];
        if (file->generation == generation && file->kind != QR_FILE_MANIFEST && file->kind != QR_FILE_TEMPORARY &&
            (file->server == server || file->replica)) {
            status = qr_generation_remove(directory, generation, file->server, file->replica);
        }
    }
    free(files.entries);
    return status;
}
