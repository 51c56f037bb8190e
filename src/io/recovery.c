#include "io/recovery.h"

#include "base/log.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/generation_index.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is done with each file of ours in a directory. */
typedef struct file_name {
    const char *name;
    int64_t generation;
    int server;
    bool replica;
    qr_generation_file_kind kind;
} file_name;
typedef qr_status file_visitor(void *context, const char *directory, const file_name *file);

/* A directory that is missing, or cannot be read, holds nothing. */
static qr_status visit(const char *directory, file_visitor *visitor, void *context)
{
    DIR *opened = opendir(directory);
    qr_status status = QR_OK;
    if (opened == NULL) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) { /* it may hold anything */
            return qr_error(QR_RESOURCE, "%s: cannot be searched for checkpoints: %s", directory, strerror(errno));
        }
        if (errno != ENOENT && errno != ENOTDIR) {
            qr_warning("%s: cannot be searched for checkpoints: %s", directory, strerror(errno));
        }
        return QR_OK;
    }
    while (status == QR_OK) {
        errno = 0;
        const struct dirent *entry = readdir(opened);
        if (entry == NULL) {
            if (errno != 0) {
                qr_warning("%s: cannot be searched for checkpoints: %s", directory, strerror(errno));
            }
            break;
        }
        file_name file = {.name = entry->d_name};
        if (qr_generation_parse_name(file.name, &file.generation, &file.server, &file.replica, &file.kind)) {
            status = visitor(context, directory, &file);
        }
    }
    closedir(opened);
    return status;
}

/* --- scan --- */

typedef struct scan {
    qr_recovery *recovery;
    int directory;
    size_t capacity;
} scan;

static qr_status note_manifest(scan *s, const char *directory, const file_name *file)
{
    qr_recovery *recovery = s->recovery;
    qr_manifest *manifest = NULL;
    char *path = NULL;
    qr_status status = qr_path_join(directory, file->name, &path);
    status = status != QR_OK ? status : qr_manifest_load(path, &manifest);
    free(path);
    if (status == QR_DATA || status == QR_USAGE) {
        if (recovery->n_damaged++ == 0) {
            recovery->damaged_message = strdup(qr_error_message());
        }
        return QR_OK;
    }
    if (status != QR_OK) {
        return status;
    }
    status = qr_grow((void **)&recovery->found, &s->capacity, recovery->n + 1, sizeof(qr_found), "checkpoints");
    if (status != QR_OK) {
        qr_manifest_destroy(manifest);
        return status;
    }
    recovery->found[recovery->n++] = (qr_found){.directory = s->directory, .manifest = manifest};
    return QR_OK;
}

static qr_status scan_file(void *context, const char *directory, const file_name *file)
{
    scan *s = context;
    if (file->generation > s->recovery->highest) {
        s->recovery->highest = file->generation;
    }
    return file->kind == QR_FILE_MANIFEST ? note_manifest(s, directory, file) : QR_OK;
}

static int compare_found(const void *a, const void *b)
{
    const qr_found *left = a;
    const qr_found *right = b;
    if (left->manifest->generation != right->manifest->generation) {
        return left->manifest->generation > right->manifest->generation ? -1 : 1;
    }
    return left->directory - right->directory;
}

qr_status qr_recovery_scan(const char *const *directories, int n_directories, qr_recovery **out)
{
    qr_recovery *recovery = NULL;
    qr_status status = qr_allocate(1, sizeof *recovery, "checkpoints", (void **)&recovery);
    if (status != QR_OK) {
        return status;
    }
    status = qr_allocate((size_t)n_directories, sizeof(char *), "paths", (void **)&recovery->directories);
    scan s = {.recovery = recovery};
    for (int i = 0; i < n_directories && status == QR_OK; i++) {
        recovery->directories[i] = strdup(directories[i]);
        status = recovery->directories[i] == NULL ? qr_error_memory(strlen(directories[i]), "a path") : QR_OK;
        recovery->n_directories++;
        s.directory = i;
        status = status != QR_OK ? status : visit(directories[i], scan_file, &s);
    }
    if (status != QR_OK) {
        qr_recovery_destroy(recovery);
        return status;
    }
    if (recovery->n > 0) {
        qsort(recovery->found, recovery->n, sizeof(qr_found), compare_found);
    }
    *out = recovery;
    return QR_OK;
}

void qr_recovery_destroy(qr_recovery *recovery)
{
    if (recovery == NULL) {
        return;
    }
    for (size_t i = 0; i < recovery->n; i++) {
        qr_manifest_destroy(recovery->found[i].manifest);
    }
    for (int i = 0; i < recovery->n_directories; i++) {
        free(recovery->directories[i]);
    }
    free(recovery->found);
    free(recovery->directories);
    free(recovery->damaged_message);
    free(recovery);
}

static qr_status note_any(void *context, const char *directory, const file_name *file)
{
    (void)directory;
    bool *any = context;
    *any = *any || file->kind != QR_FILE_TEMPORARY;
    return QR_OK;
}

bool qr_recovery_looks_like(const char *directory)
{
    bool any = false;
    return visit(directory, note_any, &any) == QR_OK && any;
}

/* --- clean --- */

/* A data file, as (generation, server, replica); generation 0: all of that server's. */
typedef struct share_key {
    int64_t generation;
    int server;
    bool replica;
} share_key;

typedef struct key_list {
    share_key *keys;
    size_t n, capacity;
} key_list;

typedef struct inventory {
    key_list manifests; /* server 0 */
    key_list shares;
    key_list needed;
} inventory;

static int compare_keys(const void *a, const void *b)
{
    const share_key *left = a;
    const share_key *right = b;
    if (left->generation != right->generation) {
        return left->generation < right->generation ? -1 : 1;
    }
    if (left->server != right->server) {
        return left->server < right->server ? -1 : 1;
    }
    return (int)left->replica - (int)right->replica;
}

static qr_status add_key(key_list *list, share_key key)
{
    if (list->n > 0 && compare_keys(&list->keys[list->n - 1], &key) == 0) {
        return QR_OK;
    }
    qr_status status = qr_grow((void **)&list->keys, &list->capacity, list->n + 1, sizeof key, "checkpoints");
    if (status == QR_OK) {
        list->keys[list->n++] = key;
    }
    return status;
}

/* Ascending, each once. */
static void sort_keys(key_list *list)
{
    size_t kept = 0;
    if (list->n > 0) {
        qsort(list->keys, list->n, sizeof(share_key), compare_keys);
    }
    for (size_t i = 0; i < list->n; i++) {
        if (kept == 0 || compare_keys(&list->keys[kept - 1], &list->keys[i]) != 0) {
            list->keys[kept++] = list->keys[i];
        }
    }
    list->n = kept;
}

static bool has_key(const key_list *list, share_key key)
{
    return list->n > 0 && bsearch(&key, list->keys, list->n, sizeof key, compare_keys) != NULL;
}

static qr_status take_inventory(void *context, const char *directory, const file_name *file)
{
    inventory *all = context;
    share_key key = {.generation = file->generation, .server = file->server, .replica = file->replica};
    if (file->kind == QR_FILE_MANIFEST) {
        key.server = 0;
        return add_key(&all->manifests, key);
    }
    if (file->kind != QR_FILE_TEMPORARY) {
        return add_key(&all->shares, key);
    }
    char *path = NULL;
    qr_status status = qr_path_join(directory, file->name, &path);
    if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
        status = qr_file_error(path, "removed", errno);
    }
    free(path);
    return status;
}

static qr_status index_path(const char *directory, share_key key, char **path)
{
    char name[QR_GENERATION_NAME_BYTES];
    qr_generation_file_name(key.generation, key.server, key.replica, "index", name);
    return qr_path_join(directory, name, path);
}

/* The files that a share's pages lie in; of an index that cannot be read, nobody knows: all. */
static qr_status add_needed(inventory *all, const char *directory, share_key key)
{
    char *path = NULL;
    qr_index index = {.n = 0};
    qr_status status = index_path(directory, key, &path);
    status = status != QR_OK ? status : qr_index_load(path, &index);
    if (status == QR_DATA) {
        status = add_key(&all->needed, (share_key){.server = key.server, .replica = key.replica});
    }
    for (size_t i = 0; i < index.n && status == QR_OK; i++) {
        status = add_key(
            &all->needed,
            (share_key){.generation = index.records[i].generation, .server = key.server, .replica = key.replica});
    }
    qr_index_clear(&index);
    free(path);
    return status;
}

/* Of a share without a manifest, the data stay while other generations' pages lie in them. */
static qr_status clean_share(const inventory *all, const char *directory, share_key key)
{
    share_key any = {.server = key.server, .replica = key.replica};
    char *path = NULL;
    if (!has_key(&all->needed, key) && !has_key(&all->needed, any)) {
        return qr_generation_remove(directory, key.generation, key.server, key.replica);
    }
    qr_status status = index_path(directory, key, &path);
    if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
        status = qr_file_error(path, "removed", errno);
    }
    free(path);
    return status;
}

qr_status qr_recovery_clean(const char *directory)
{
    inventory all = {.manifests = {.n = 0}};
    qr_status status = visit(directory, take_inventory, &all);
    sort_keys(&all.manifests);
    sort_keys(&all.shares);
    for (size_t i = 0; i < all.shares.n && status == QR_OK; i++) {
        if (has_key(&all.manifests, (share_key){.generation = all.shares.keys[i].generation})) {
            status = add_needed(&all, directory, all.shares.keys[i]);
        }
    }
    sort_keys(&all.needed);
    for (size_t i = 0; i < all.shares.n && status == QR_OK; i++) {
        if (!has_key(&all.manifests, (share_key){.generation = all.shares.keys[i].generation})) {
            status = clean_share(&all, directory, all.shares.keys[i]);
        }
    }
    free(all.manifests.keys);
    free(all.shares.keys);
    free(all.needed.keys);
    return status;
}
