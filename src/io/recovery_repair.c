/* Making copies again.
 *
 * A copy that is made again holds all its pages itself, so it no longer depends on older files; but pages of newer
 * generations may lie in the file that it replaces. So those are made again as well, the newest first: at each moment
 * everything that could be read still can. */
#include "io/recovery_parts.h"

#include "base/memory.h"
#include "io/file.h"
#include "io/generation_index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static bool same_place(const qr_copy *a, const qr_copy *b)
{
    return a->found->directory == b->found->directory && a->share->server == b->share->server &&
           a->replica == b->replica;
}

/* --- which --- */

static bool lies_in(const qr_copy *copy, int64_t generation)
{
    for (size_t i = 0; i < copy->n_sources; i++) {
        if (copy->sources[i] == generation) {
            return true;
        }
    }
    return false;
}

/* Damaged ones, and then those that lean on a file that will be replaced, until there are no more. */
static void choose(const qr_copy *copies, size_t n, bool *chosen)
{
    bool more = true;
    for (size_t i = 0; i < n; i++) {
        chosen[i] = copies[i].state != QR_COPY_WHOLE;
    }
    while (more) {
        more = false;
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < n && !chosen[i]; k++) {
                if (chosen[k] && k != i && same_place(&copies[i], &copies[k]) &&
                    lies_in(&copies[i], copies[k].found->manifest->generation)) {
                    chosen[i] = more = true;
                }
            }
        }
    }
}

/* --- one copy --- */

typedef struct buffers {
    qr_page_scratch scratch;
    void *raw, *stored;
    size_t raw_bytes, stored_bytes;
} buffers;

static void free_buffers(buffers *b)
{
    free(b->scratch.bytes);
    free(b->raw);
    free(b->stored);
}

static qr_status copy_page(qr_share *share, size_t i, qr_codec codec, size_t page_bytes, qr_generation_writer *writer,
                           buffers *b)
{
    size_t n = 0;
    size_t packed = 0;
    qr_page_record record = qr_share_pages(share, &n)[i];
    memset(b->raw, 0, page_bytes);
    qr_status status = qr_share_read_page(share, i, &b->scratch, b->raw);
    status = status != QR_OK ? status : qr_codec_pack(codec, b->raw, page_bytes, b->stored, b->stored_bytes, &packed);
    if (status == QR_OK) {
        record.stored_bytes = packed;
        record.stored_hash = XXH3_64bits(b->stored, packed);
        status = qr_generation_write_page(writer, &record, b->stored);
    }
    return status;
}

static qr_status copy_pages(qr_share *share, const qr_manifest *manifest, qr_codec codec, qr_generation_writer *writer)
{
    const qr_index shape = {.state_dim = manifest->state_dim,
                            .page_agents_votes = manifest->page_agents_votes,
                            .page_agents_state = manifest->page_agents_state};
    size_t sizes[2] = {qr_index_page_bytes(&shape, QR_PAGE_VOTES), qr_index_page_bytes(&shape, QR_PAGE_STATE)};
    buffers b = {.raw_bytes = sizes[0] > sizes[1] ? sizes[0] : sizes[1]};
    size_t n = 0;
    const qr_page_record *pages = qr_share_pages(share, &n);
    b.stored_bytes = qr_codec_bound(codec, b.raw_bytes);
    qr_status status = qr_allocate(b.raw_bytes, 1, "a page", &b.raw);
    status = status != QR_OK ? status : qr_allocate(b.stored_bytes, 1, "a page", &b.stored);
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        status = copy_page(share, i, codec, sizes[pages[i].kind], writer, &b);
    }
    free_buffers(&b);
    return status;
}

static qr_status list_parts(const qr_manifest *manifest, int server, qr_generation_part **out, int *n)
{
    qr_status status = qr_allocate((size_t)manifest->n_parts, sizeof **out, "parts", (void **)out);
    *n = 0;
    for (int i = 0; i < manifest->n_parts && status == QR_OK; i++) {
        const qr_manifest_part *part = &manifest->parts[i];
        if (part->server == server) {
            (*out)[(*n)++] = (qr_generation_part){.part = part->part, .first = part->first, .count = part->count};
        }
    }
    return status;
}

/* Writes the copy, or, with `other`, a second one beside it: as replica instead of own, or the other way round. */
static qr_status write_copy(const qr_recovery *recovery, const qr_copy *copy, bool other)
{
    const qr_manifest *manifest = copy->found->manifest;
    qr_generation_writer *writer = NULL;
    qr_generation_part *parts = NULL;
    qr_share *share = NULL;
    qr_generation_seal seal;
    qr_generation_plan plan = {.directory = copy->directory,
                               .generation = manifest->generation,
                               .step = manifest->step,
                               .server = copy->share->server,
                               .replica = copy->replica != other,
                               .state_dim = manifest->state_dim,
                               .page_agents_votes = manifest->page_agents_votes,
                               .page_agents_state = manifest->page_agents_state,
                               .deck = manifest->deck,
                               .version = manifest->version};
    qr_status status = qr_codec_parse(manifest->codec, &plan.codec);
    status = status != QR_OK ? status : qr_share_open(recovery, plan.generation, plan.server, &share);
    status = status != QR_OK ? status : list_parts(manifest, plan.server, &parts, &plan.n_parts);
    plan.parts = parts;
    status = status != QR_OK ? status : qr_generation_writer_create(&plan, &writer);
    status = status != QR_OK ? status : copy_pages(share, manifest, plan.codec, writer);
    status = status != QR_OK ? status : qr_generation_seal_files(writer, &seal);
    qr_generation_writer_destroy(writer);
    qr_share_close(share);
    free(parts);
    return status;
}

/* Whether another whole copy of the same share will outlive a crash between the renames of data and index. */
static bool has_other(const qr_copy *copies, size_t n, size_t which)
{
    const qr_copy *copy = &copies[which];
    for (size_t i = 0; i < n; i++) {
        if (i != which && copies[i].share->server == copy->share->server && copies[i].state == QR_COPY_WHOLE &&
            copies[i].found->manifest->generation == copy->found->manifest->generation) {
            return true;
        }
    }
    return false;
}

static bool is_vacant(const qr_copy *copies, size_t n, size_t which)
{
    const qr_copy *copy = &copies[which];
    for (size_t i = 0; i < n; i++) {
        if (i != which && copies[i].found == copy->found && copies[i].share == copy->share) {
            return false;
        }
    }
    return true;
}

/* Only data without a source are no failure. */
static qr_status remake(const qr_recovery *recovery, const qr_copy *copies, size_t n, size_t which, size_t *made)
{
    const qr_copy *copy = &copies[which];
    int64_t generation = copy->found->manifest->generation;
    int server = copy->share->server;
    bool second = !has_other(copies, n, which) && is_vacant(copies, n, which);
    qr_status status = second ? write_copy(recovery, copy, true) : QR_OK;
    status = status != QR_OK ? status : write_copy(recovery, copy, false);
    if (status == QR_DATA) {
        return QR_OK; /* the report says why */
    }
    if (status == QR_OK && second) {
        status = qr_generation_remove(copy->directory, generation, server, !copy->replica);
    }
    status = status != QR_OK ? status : qr_generation_unmark(copy->directory, generation, server, copy->replica);
    if (status == QR_OK) {
        char name[QR_GENERATION_NAME_BYTES];
        qr_generation_file_name(generation, server, copy->replica, "h5", name);
        printf("made again: %s/%s\n", copy->directory, name);
        (*made)++;
    }
    return status;
}

/* Of a directory with another run's generation, the copies have no source here. */
static bool is_of_this_run(const qr_recovery *recovery, const qr_copy *copy)
{
    for (size_t i = 0; i < recovery->n; i++) {
        const qr_manifest *manifest = recovery->found[i].manifest;
        if (manifest->generation == copy->found->manifest->generation) {
            return strcmp(manifest->run_id, copy->found->manifest->run_id) == 0;
        }
    }
    return false;
}

qr_status qr_copies_repair(const qr_recovery *recovery, const qr_copy *copies, size_t n, size_t *made)
{
    bool *chosen = NULL;
    qr_status status = qr_allocate(n, sizeof *chosen, "copies", (void **)&chosen);
    if (status != QR_OK) {
        return status;
    }
    choose(copies, n, chosen);
    /* In the order of the list: newest generations first. */
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        const qr_copy *copy = &copies[i];
        if (chosen[i] && is_of_this_run(recovery, copy)) {
            status = remake(recovery, copies, n, i, made);
        } else if (!chosen[i] && copy->marked) {
            status = qr_generation_unmark(copy->directory, copy->found->manifest->generation, copy->share->server,
                                          copy->replica);
            *made += status == QR_OK;
        }
    }
    free(chosen);
    return status;
}

/* --- manifests --- */

static bool has_manifest(const qr_recovery *recovery, int directory, int64_t generation)
{
    for (size_t i = 0; i < recovery->n; i++) {
        if (recovery->found[i].directory == directory && recovery->found[i].manifest->generation == generation) {
            return true;
        }
    }
    return false;
}

/* The tier's name, from another generation there. */
static char *tier_of(const qr_recovery *recovery, int directory, char *otherwise)
{
    for (size_t i = 0; i < recovery->n; i++) {
        if (recovery->found[i].directory == directory) {
            return recovery->found[i].manifest->tier;
        }
    }
    return otherwise;
}

/* How the pages there are compressed, from any share's index; false: there is none. */
static bool codec_of(const qr_manifest *manifest, const char *directory, qr_codec *codec)
{
    for (int k = 0; k < 2 * manifest->n_shares; k++) {
        char name[QR_GENERATION_NAME_BYTES];
        char *path = NULL;
        qr_index index = {.n = 0};
        qr_generation_file_name(manifest->generation, manifest->shares[k / 2].server, k % 2 == 1, "index", name);
        bool read = qr_path_join(directory, name, &path) == QR_OK && qr_index_load(path, &index) == QR_OK;
        *codec = index.codec;
        qr_index_clear(&index);
        free(path);
        if (read) {
            return true;
        }
    }
    return false;
}

/* Sizes in it are those of the other tier: they are only told to people. */
static qr_status restore_manifest(const qr_recovery *recovery, int directory, const qr_manifest *from, size_t *n)
{
    const char *where = recovery->directories[directory];
    qr_codec codec;
    char codec_name[QR_CODEC_NAME_BYTES];
    char *text = NULL;
    qr_manifest manifest = *from;
    if (!codec_of(from, where, &codec)) {
        return QR_OK;
    }
    snprintf(codec_name, sizeof codec_name, "%s", qr_codec_name(codec));
    manifest.codec = codec_name;
    manifest.tier = tier_of(recovery, directory, from->tier);
    qr_status status = qr_manifest_format(&manifest, &text);
    status = status != QR_OK ? status : qr_manifest_store(where, manifest.generation, 0, text, strlen(text));
    if (status == QR_OK) {
        char name[QR_GENERATION_NAME_BYTES];
        qr_generation_manifest_name(manifest.generation, name);
        printf("made again: %s/%s\n", where, name);
        (*n)++;
    }
    free(text);
    return status;
}

qr_status qr_manifests_repair(const qr_recovery *recovery, size_t *n)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < recovery->n && status == QR_OK; i++) {
        const qr_manifest *manifest = recovery->found[i].manifest;
        for (int d = 0; d < recovery->n_directories && status == QR_OK; d++) {
            char name[QR_GENERATION_NAME_BYTES];
            char *path = NULL;
            qr_generation_manifest_name(manifest->generation, name);
            status = qr_path_join(recovery->directories[d], name, &path);
            /* There, but not found: damaged. Only from the fastest tier that has it. */
            bool first = i == 0 || recovery->found[i - 1].manifest->generation != manifest->generation;
            if (status == QR_OK && first && !has_manifest(recovery, d, manifest->generation) &&
                access(path, F_OK) == 0) {
                status = restore_manifest(recovery, d, manifest, n);
            }
            free(path);
        }
    }
    return status;
}
