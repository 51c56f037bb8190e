/* Reading a generation's share by address, without HDF5. */
#include "io/generation.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/generation_index.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* A file that pages lie in. */
typedef struct data_file {
    int64_t generation;
    int64_t bytes;
    char *path;
    int file;
} data_file;

struct qr_generation_reader {
    qr_index index;
    data_file *files; /* ascending generations */
    size_t n_files, capacity;
};

static qr_status check_index(const qr_index *index, const char *path, int64_t generation, int server,
                             const qr_generation_seal *seal)
{
    qr_hash content;
    qr_status status = qr_index_content_hash(index, &content);
    if (status == QR_OK && (index->generation != generation || index->server != server)) {
        status = qr_error(QR_DATA, "%s: belongs to generation %" PRId64 " of server %" PRId64, path, index->generation,
                          index->server);
    }
    if (status == QR_OK && (content.low != seal->content_hash.low || content.high != seal->content_hash.high ||
                            (int64_t)index->n != seal->pages)) {
        status = qr_error(QR_DATA, "%s: its pages are not those that the manifest speaks of", path);
    }
    return status;
}

/* --- files --- */

/* The first file of this generation or a later one. */
static size_t find_file(const qr_generation_reader *reader, int64_t generation)
{
    size_t low = 0;
    size_t high = reader->n_files;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (reader->files[middle].generation < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static qr_status open_file(qr_generation_reader *reader, const char *directory, bool replica, int64_t generation)
{
    char name[QR_GENERATION_NAME_BYTES];
    size_t at = find_file(reader, generation);
    if (at < reader->n_files && reader->files[at].generation == generation) {
        return QR_OK;
    }
    qr_status status =
        qr_grow((void **)&reader->files, &reader->capacity, reader->n_files + 1, sizeof(data_file), "files");
    if (status != QR_OK) {
        return status;
    }
    data_file opened = {.generation = generation, .file = -1};
    qr_generation_file_name(generation, (int)reader->index.server, replica, "h5", name);
    status = qr_path_join(directory, name, &opened.path);
    if (status == QR_OK) {
        status = qr_file_open(opened.path, &opened.file, &opened.bytes);
        status = status == QR_USAGE ? QR_DATA : status;
    }
    if (status != QR_OK) {
        free(opened.path);
        return status;
    }
    memmove(reader->files + at + 1, reader->files + at, (reader->n_files - at) * sizeof(data_file));
    reader->files[at] = opened;
    reader->n_files++;
    return QR_OK;
}

static const data_file *file_of(const qr_generation_reader *reader, int64_t generation)
{
    return &reader->files[find_file(reader, generation)];
}

qr_status qr_generation_open(const char *directory, int64_t generation, int server, bool replica,
                             const qr_generation_seal *seal, qr_generation_reader **out)
{
    qr_generation_reader *reader = NULL;
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_status status = qr_allocate(1, sizeof *reader, "a checkpoint", (void **)&reader);
    if (status != QR_OK) {
        return status;
    }
    qr_generation_file_name(generation, server, replica, "index", name);
    status = qr_path_join(directory, name, &path);
    int error = status == QR_OK ? qr_fault("checkpoint.open", path) : 0;
    status = error != 0 ? qr_file_error(path, "read", error) : status;
    status = status != QR_OK ? status : qr_index_load(path, &reader->index);
    status = status != QR_OK ? status : check_index(&reader->index, path, generation, server, seal);
    /* Its own file is there even if all pages are taken over. */
    status = status != QR_OK ? status : open_file(reader, directory, replica, generation);
    for (size_t i = 0; i < reader->index.n && status == QR_OK; i++) {
        status = open_file(reader, directory, replica, reader->index.records[i].generation);
    }
    free(path);
    if (status != QR_OK) {
        qr_generation_close(reader);
        return status;
    }
    *out = reader;
    return QR_OK;
}

void qr_generation_close(qr_generation_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    for (size_t i = 0; i < reader->n_files; i++) {
        close(reader->files[i].file);
        free(reader->files[i].path);
    }
    free(reader->files);
    qr_index_clear(&reader->index);
    free(reader);
}

const qr_page_record *qr_generation_pages(const qr_generation_reader *reader, size_t *n)
{
    *n = reader->index.n;
    return reader->index.records;
}

qr_codec_kind qr_generation_codec(const qr_generation_reader *reader)
{
    return reader->index.codec.kind;
}

/* --- pages --- */

static qr_status grow_scratch(qr_page_scratch *scratch, size_t bytes)
{
    if (bytes <= scratch->capacity) {
        return QR_OK;
    }
    free(scratch->bytes);
    scratch->capacity = 0;
    qr_status status = qr_allocate(bytes, 1, "a page", &scratch->bytes);
    scratch->capacity = status == QR_OK ? bytes : 0;
    scratch->bytes = status == QR_OK ? scratch->bytes : NULL;
    return status;
}

static qr_status blame(const data_file *from, const qr_page_record *record, qr_status status)
{
    if (status != QR_DATA) {
        return status;
    }
    return qr_error_context(status, "%s: page %" PRId64 " of part %d's %s (agents %" PRId64 " to %" PRId64 ")",
                            from->path, record->number, (int)record->part,
                            record->kind == QR_PAGE_VOTES ? "votes" : "state", record->first,
                            record->first + record->count - 1);
}

/* The stored bytes at the start of scratch, which has room for `more` behind them, 64-byte aligned. */
static qr_status read_stored(const qr_generation_reader *reader, size_t i, qr_page_scratch *scratch, size_t more)
{
    const qr_page_record *record = &reader->index.records[i];
    const data_file *from = file_of(reader, record->generation);
    size_t bytes = (size_t)record->stored_bytes;
    qr_status status = grow_scratch(scratch, (bytes + 63) / 64 * 64 + more);
    if (status == QR_OK && (int64_t)(record->address + bytes) > from->bytes) {
        return blame(from, record, qr_error(QR_DATA, "the file is cut short"));
    }
    if (status == QR_OK) {
        status = qr_file_read_at(from->file, from->path, scratch->bytes, bytes, record->address);
    }
    if (status == QR_OK && XXH3_64bits(scratch->bytes, bytes) != record->stored_hash) {
        status = blame(from, record, qr_error(QR_DATA, "its stored bytes are damaged"));
    }
    return status;
}

qr_status qr_generation_read_stored(const qr_generation_reader *reader, size_t i, qr_page_scratch *scratch,
                                    const void **stored)
{
    qr_status status = read_stored(reader, i, scratch, 0);
    if (status == QR_OK) {
        *stored = scratch->bytes;
    }
    return status;
}

void qr_generation_expect(const qr_generation_reader *reader, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++) {
        const qr_page_record *record = &reader->index.records[i];
        const data_file *from = file_of(reader, record->generation);
        if (from != NULL) { /* a hint: what becomes of it is of no account */
            (void)posix_fadvise(from->file, (off_t)record->address, (off_t)record->stored_bytes, POSIX_FADV_WILLNEED);
        }
    }
}

qr_status qr_generation_read_page(const qr_generation_reader *reader, size_t i, qr_page_scratch *scratch, void *raw)
{
    const qr_page_record *record = &reader->index.records[i];
    size_t bytes = (size_t)record->stored_bytes;
    size_t page_bytes = qr_index_page_bytes(&reader->index, record->kind);
    bool whole = page_bytes == record->raw_bytes;
    qr_status status = read_stored(reader, i, scratch, whole ? 0 : page_bytes);
    if (status != QR_OK) {
        return status;
    }
    /* A last page is padded: it has more bytes than the caller gave room for. */
    void *page = whole ? raw : (unsigned char *)scratch->bytes + (bytes + 63) / 64 * 64;
    const data_file *from = file_of(reader, record->generation);
    status = qr_codec_unpack(reader->index.codec.kind, scratch->bytes, bytes, page, page_bytes);
    if (status != QR_OK) {
        return blame(from, record, status);
    }
    XXH128_hash_t hash = XXH3_128bits(page, (size_t)record->raw_bytes);
    if (hash.low64 != record->raw_hash.low || hash.high64 != record->raw_hash.high) {
        return blame(from, record, qr_error(QR_DATA, "its contents are damaged"));
    }
    if (!whole) {
        memcpy(raw, page, (size_t)record->raw_bytes);
    }
    return QR_OK;
}

qr_status qr_generation_check_metadata(const qr_generation_reader *reader)
{
    const data_file *own = file_of(reader, reader->index.generation);
    qr_hash hash;
    if (own->bytes != reader->index.data_bytes) {
        return qr_error(QR_DATA, "%s: has %" PRId64 " bytes instead of %" PRId64, own->path, own->bytes,
                        reader->index.data_bytes);
    }
    qr_status status = qr_index_metadata_hash(&reader->index, own->path, own->file, own->bytes, &hash);
    if (status == QR_OK &&
        (hash.low != reader->index.metadata_hash.low || hash.high != reader->index.metadata_hash.high)) {
        status = qr_error(QR_DATA, "%s: HDF5's own structures in it are damaged", own->path);
    }
    return status;
}
