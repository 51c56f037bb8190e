#include "io/generation_index.h"

#include "base/memory.h"
#include "io/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { MAGIC_BYTES = 8, HEAD_NUMBERS = 10, HASH_BYTES = 16, CONTENT_BYTES = 56, MOST_LEVEL = 22 };
enum { READ_BYTES = 1 << 16, HEAD_BYTES = MAGIC_BYTES + 8 * HEAD_NUMBERS, TAIL_BYTES = 2 * HASH_BYTES };

static const char magic[MAGIC_BYTES] = {'Q', 'R', 'I', 'N', 'D', 'E', 'X', '1'};

/* An HDF5 chunk has less than 4 GiB. */
static const int64_t most_page_bytes = INT64_C(1) << 31;

size_t qr_index_page_bytes(const qr_index *index, int32_t kind)
{
    int64_t agents = kind == QR_PAGE_VOTES ? index->page_agents_votes : index->page_agents_state;
    int64_t each = kind == QR_PAGE_VOTES ? 1 : index->state_dim;
    int64_t most = kind == QR_PAGE_VOTES ? most_page_bytes : most_page_bytes / (int64_t)sizeof(float);
    if (agents < 1 || each < 1 || agents > most / each) {
        return 0;
    }
    return (size_t)(agents * each) * (kind == QR_PAGE_VOTES ? 1 : sizeof(float));
}

static unsigned char *put(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (unsigned char)(value >> (8 * i));
    }
    return at + bytes;
}

static uint64_t get(const unsigned char **at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) {
        value = value << 8 | (*at)[i];
    }
    *at += bytes;
    return value;
}

static int64_t get_int(const unsigned char **at)
{
    return (int64_t)get(at, 8);
}

static unsigned char *put_hash(unsigned char *at, qr_hash hash)
{
    return put(put(at, hash.low, 8), hash.high, 8);
}

static qr_hash get_hash(const unsigned char **at)
{
    qr_hash hash = {.low = get(at, 8)};
    hash.high = get(at, 8);
    return hash;
}

static qr_hash hash_of(const void *bytes, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, n);
    return (qr_hash){.low = hash.low64, .high = hash.high64};
}

/* --- content --- */

/* What a record says of the page's content. */
static unsigned char *put_content(unsigned char *at, const qr_page_record *record)
{
    at = put(at, (uint32_t)record->part, 4);
    at = put(at, (uint32_t)record->kind, 4);
    at = put(at, (uint64_t)record->number, 8);
    at = put(at, (uint64_t)record->first, 8);
    at = put(at, (uint64_t)record->count, 8);
    at = put(at, record->raw_bytes, 8);
    return put_hash(at, record->raw_hash);
}

qr_status qr_index_content_hash(const qr_index *index, qr_hash *out)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
        (void)XXH3_freeState(state);
        return qr_error_memory(1, "a hash");
    }
    for (size_t i = 0; i < index->n; i++) {
        unsigned char content[CONTENT_BYTES];
        (void)put_content(content, &index->records[i]);
        (void)XXH3_128bits_update(state, content, sizeof content);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    (void)XXH3_freeState(state);
    *out = (qr_hash){.low = hash.low64, .high = hash.high64};
    return QR_OK;
}

/* --- writing --- */

static unsigned char *put_record(unsigned char *at, const qr_page_record *record)
{
    at = put(at, (uint32_t)record->part, 4);
    at = put(at, (uint32_t)record->kind, 4);
    at = put(at, (uint64_t)record->number, 8);
    at = put(at, (uint64_t)record->first, 8);
    at = put(at, (uint64_t)record->count, 8);
    at = put(at, (uint64_t)record->generation, 8);
    at = put(at, record->address, 8);
    at = put(at, record->stored_bytes, 8);
    at = put(at, record->raw_bytes, 8);
    at = put_hash(at, record->raw_hash);
    return put(at, record->stored_hash, 8);
}

qr_status qr_index_format(const qr_index *index, unsigned char **bytes, size_t *n)
{
    unsigned char *made = NULL;
    size_t most = (SIZE_MAX - HEAD_BYTES - TAIL_BYTES) / QR_PAGE_RECORD_BYTES;
    size_t size = index->n > most ? SIZE_MAX : HEAD_BYTES + index->n * QR_PAGE_RECORD_BYTES + TAIL_BYTES;
    qr_status status = qr_allocate(size, 1, "an index of pages", (void **)&made);
    if (status != QR_OK) {
        return status;
    }
    const int64_t head[HEAD_NUMBERS] = {(int64_t)index->n, index->generation,        index->step,
                                        index->server,     index->codec.kind,        index->codec.level,
                                        index->state_dim,  index->page_agents_votes, index->page_agents_state,
                                        index->data_bytes};
    memcpy(made, magic, MAGIC_BYTES);
    unsigned char *at = made + MAGIC_BYTES;
    for (int i = 0; i < HEAD_NUMBERS; i++) {
        at = put(at, (uint64_t)head[i], 8);
    }
    for (size_t i = 0; i < index->n; i++) {
        at = put_record(at, &index->records[i]);
    }
    at = put_hash(at, index->metadata_hash);
    (void)put_hash(at, hash_of(made, (size_t)(at - made)));
    *bytes = made;
    *n = size;
    return QR_OK;
}

/* --- reading --- */

static qr_page_record get_record(const unsigned char **at)
{
    qr_page_record record = {.part = (int32_t)get(at, 4)};
    record.kind = (int32_t)get(at, 4);
    record.number = get_int(at);
    record.first = get_int(at);
    record.count = get_int(at);
    record.generation = get_int(at);
    record.address = get(at, 8);
    record.stored_bytes = get(at, 8);
    record.raw_bytes = get(at, 8);
    record.raw_hash = get_hash(at);
    record.stored_hash = get(at, 8);
    return record;
}

static bool head_is_sound(const qr_index *index)
{
    int level = index->codec.level;
    return index->generation >= 1 && index->server >= 0 && index->server <= INT32_MAX && index->state_dim >= 0 &&
           index->data_bytes >= 0 && index->codec.kind <= QR_CODEC_ZSTD && level >= 0 && level <= MOST_LEVEL &&
           qr_index_page_bytes(index, QR_PAGE_VOTES) > 0 &&
           (index->state_dim == 0 || qr_index_page_bytes(index, QR_PAGE_STATE) > 0);
}

static bool follows(const qr_page_record *before, const qr_page_record *record)
{
    if (before->part != record->part) {
        return before->part < record->part;
    }
    return before->kind != record->kind ? before->kind < record->kind : before->number < record->number;
}

static bool record_is_sound(const qr_index *index, const qr_page_record *record)
{
    if (record->part < 0 || record->kind < QR_PAGE_VOTES || record->kind > QR_PAGE_STATE || record->number < 0 ||
        record->first < 0 || record->count < 1 || (record->kind == QR_PAGE_STATE && index->state_dim == 0)) {
        return false;
    }
    size_t page = qr_index_page_bytes(index, record->kind);
    int64_t agents = record->kind == QR_PAGE_VOTES ? index->page_agents_votes : index->page_agents_state;
    return record->count <= agents && record->first <= INT64_MAX - record->count &&
           record->raw_bytes == (uint64_t)record->count * (page / (uint64_t)agents) && record->stored_bytes > 0 &&
           record->stored_bytes <= qr_codec_bound(index->codec, page) && record->generation >= 1 &&
           record->generation <= index->generation && record->address <= INT64_MAX - record->stored_bytes;
}

/* Head and records, after the hash was found right. */
static bool parse_sealed(const unsigned char *at, qr_index *index)
{
    index->generation = get_int(&at);
    index->step = get_int(&at);
    index->server = get_int(&at);
    int64_t kind = get_int(&at);
    int64_t level = get_int(&at);
    index->state_dim = get_int(&at);
    index->page_agents_votes = get_int(&at);
    index->page_agents_state = get_int(&at);
    index->data_bytes = get_int(&at);
    if (kind < 0 || kind > QR_CODEC_ZSTD || level < 0 || level > MOST_LEVEL) {
        return false;
    }
    index->codec = (qr_codec){.kind = (qr_codec_kind)kind, .level = (int)level};
    if (!head_is_sound(index)) {
        return false;
    }
    for (size_t i = 0; i < index->n; i++) {
        index->records[i] = get_record(&at);
        if (!record_is_sound(index, &index->records[i]) ||
            (i > 0 && !follows(&index->records[i - 1], &index->records[i]))) {
            return false;
        }
    }
    index->metadata_hash = get_hash(&at);
    return true;
}

qr_status qr_index_parse(const char *name, const void *bytes, size_t n, qr_index *out)
{
    qr_index index = {.n = 0};
    const unsigned char *start = bytes;
    if (n < HEAD_BYTES + TAIL_BYTES || memcmp(start, magic, MAGIC_BYTES) != 0) {
        return qr_error(QR_DATA, "%s: not an index of pages, or one of another version", name);
    }
    const unsigned char *at = start + n - HASH_BYTES;
    qr_hash kept = get_hash(&at);
    qr_hash found = hash_of(start, n - HASH_BYTES);
    at = start + MAGIC_BYTES;
    uint64_t records = get(&at, 8);
    size_t room = n - HEAD_BYTES - TAIL_BYTES;
    if (kept.low != found.low || kept.high != found.high || room % QR_PAGE_RECORD_BYTES != 0 ||
        records != room / QR_PAGE_RECORD_BYTES) {
        return qr_error(QR_DATA, "%s: damaged: its checksum is wrong", name);
    }
    index.n = (size_t)records;
    qr_status status = qr_allocate(index.n, sizeof *index.records, "an index of pages", (void **)&index.records);
    if (status != QR_OK) {
        return status;
    }
    if (!parse_sealed(at, &index)) {
        qr_index_clear(&index);
        return qr_error(QR_DATA, "%s: its numbers do not make sense", name);
    }
    *out = index;
    return QR_OK;
}

void qr_index_clear(qr_index *index)
{
    free(index->records);
    *index = (qr_index){.n = 0};
}

qr_status qr_index_load(const char *path, qr_index *out)
{
    int file = -1;
    int64_t bytes = 0;
    unsigned char *text = NULL;
    qr_status status = qr_file_open(path, &file, &bytes);
    if (status != QR_OK) {
        return status == QR_USAGE ? QR_DATA : status; /* a missing copy is not the user's fault */
    }
    status = qr_allocate((size_t)bytes, 1, "an index of pages", (void **)&text);
    status = status != QR_OK ? status : qr_file_read_at(file, path, text, (size_t)bytes, 0);
    status = status != QR_OK ? status : qr_index_parse(path, text, (size_t)bytes, out);
    free(text);
    close(file);
    return status;
}

/* --- what is not a page --- */

typedef struct stretch {
    uint64_t start, end;
} stretch;

static int compare_stretches(const void *a, const void *b)
{
    uint64_t left = ((const stretch *)a)->start;
    uint64_t right = ((const stretch *)b)->start;
    return left < right ? -1 : left > right;
}

static qr_status hash_stretch(XXH3_state_t *state, const char *name, int file, uint64_t start, uint64_t end,
                              unsigned char *buffer)
{
    while (start < end) {
        size_t n = end - start < READ_BYTES ? (size_t)(end - start) : READ_BYTES;
        qr_status status = qr_file_read_at(file, name, buffer, n, start);
        if (status != QR_OK) {
            return status;
        }
        (void)XXH3_128bits_update(state, buffer, n);
        start += n;
    }
    return QR_OK;
}

qr_status qr_index_metadata_hash(const qr_index *index, const char *name, int file, int64_t bytes, qr_hash *out)
{
    stretch *pages = NULL;
    unsigned char *buffer = NULL;
    size_t n = 0;
    uint64_t at = 0;
    XXH3_state_t *state = XXH3_createState();
    qr_status status = qr_allocate(index->n, sizeof *pages, "an index of pages", (void **)&pages);
    status = status != QR_OK ? status : qr_allocate(READ_BYTES, 1, "a hash", (void **)&buffer);
    if (status == QR_OK && (state == NULL || XXH3_128bits_reset(state) != XXH_OK)) {
        status = qr_error_memory(1, "a hash");
    }
    if (status != QR_OK) {
        goto cleanup;
    }
    for (size_t i = 0; i < index->n; i++) {
        const qr_page_record *record = &index->records[i];
        if (record->generation == index->generation) {
            pages[n++] = (stretch){.start = record->address, .end = record->address + record->stored_bytes};
        }
    }
    qsort(pages, n, sizeof *pages, compare_stretches);
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        status = hash_stretch(state, name, file, at, pages[i].start, buffer);
        at = pages[i].end > at ? pages[i].end : at;
    }
    status = status != QR_OK ? status : hash_stretch(state, name, file, at, (uint64_t)bytes, buffer);
    if (status == QR_OK) {
        XXH128_hash_t hash = XXH3_128bits_digest(state);
        *out = (qr_hash){.low = hash.low64, .high = hash.high64};
    }
cleanup:
    (void)XXH3_freeState(state);
    free(buffer);
    free(pages);
    return status;
}
