/* A page's bytes in the store: packed, sealed, checked. */
#include "base/memory.h"
#include "io/page_store_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(sizeof(qr_extent_head) <= QR_EXTENT_HEAD_BYTES, "an extent's head has room");

static const uint64_t magic = 0x3165676170727571ULL;

int64_t qr_store_blocks(int64_t bytes)
{
    return (QR_EXTENT_HEAD_BYTES + bytes + QR_STORE_BLOCK - 1) / QR_STORE_BLOCK;
}

int64_t qr_page_store_place_bytes(int64_t raw_bytes)
{
    return qr_store_blocks(raw_bytes) * QR_STORE_BLOCK;
}

/* Pages of memory that nobody has touched yet cost nothing. */
static qr_status allocate_blocks(size_t bytes, unsigned char **out)
{
    size_t rounded = (bytes + QR_STORE_BLOCK - 1) / QR_STORE_BLOCK * QR_STORE_BLOCK;
    *out = aligned_alloc(QR_STORE_BLOCK, rounded);
    return *out != NULL ? QR_OK : qr_error_memory(rounded, "pages on their way to a disk");
}

qr_status qr_page_bench_create(const qr_page_store_config *config, bool with_raw, qr_page_bench *bench)
{
    size_t room = (size_t)config->most_raw;
    for (int t = 0; t < QR_N_TIERS; t++) {
        size_t bound = qr_codec_bound(config->tiers[t].codec, (size_t)config->most_raw);
        room = bound > room ? bound : room;
    }
    bench->stored_room = room;
    qr_status status = allocate_blocks(QR_EXTENT_HEAD_BYTES + room + QR_STORE_BLOCK, &bench->stored);
    return status != QR_OK || !with_raw ? status : allocate_blocks((size_t)config->most_raw, &bench->raw);
}

void qr_page_bench_destroy(qr_page_bench *bench)
{
    free(bench->stored);
    free(bench->raw);
    *bench = (qr_page_bench){0};
}

qr_status qr_page_pack(qr_codec codec, const void *raw, size_t bytes, qr_page_bench *bench, qr_extent_head *head,
                       int64_t *blocks)
{
    unsigned char *out = bench->stored + QR_EXTENT_HEAD_BYTES;
    size_t stored = bytes;
    qr_status status = QR_OK;
    if (codec.kind != QR_CODEC_NONE) {
        status = qr_codec_pack_bare(codec, raw, bytes, out, bench->stored_room, &stored);
    }
    if (codec.kind == QR_CODEC_NONE || stored >= bytes) {
        memcpy(out, raw, bytes);
        stored = bytes;
        codec.kind = QR_CODEC_NONE;
    }
    if (status != QR_OK) {
        return status;
    }
    XXH128_hash_t hash = XXH3_128bits(raw, bytes);
    head->raw_bytes = bytes;
    head->stored_bytes = stored;
    head->raw_hash[0] = hash.low64;
    head->raw_hash[1] = hash.high64;
    head->codec = (int32_t)codec.kind;
    *blocks = qr_store_blocks((int64_t)stored);
    memset(out + stored, 0, (size_t)(*blocks * QR_STORE_BLOCK) - QR_EXTENT_HEAD_BYTES - stored);
    return QR_OK;
}

/* Over all blocks that are written, the zeros at their end included. */
static uint64_t checksum(const qr_page_bench *bench, const qr_extent_head *head)
{
    return XXH3_64bits(bench->stored, (size_t)qr_store_blocks((int64_t)head->stored_bytes) * QR_STORE_BLOCK);
}

void qr_page_seal(qr_page_bench *bench, qr_extent_head *head, const qr_page_file *file, qr_extent *extent)
{
    head->magic = magic;
    head->identity[0] = file->identity[0];
    head->identity[1] = file->identity[1];
    head->first_block = extent->first;
    head->check = 0;
    memset(bench->stored, 0, QR_EXTENT_HEAD_BYTES);
    memcpy(bench->stored, head, sizeof *head);
    head->check = checksum(bench, head);
    memcpy(bench->stored, head, sizeof *head);
    extent->version = head->version;
    extent->raw_bytes = head->raw_bytes;
    extent->stored_bytes = head->stored_bytes;
    extent->check = head->check;
    memcpy(extent->raw_hash, head->raw_hash, sizeof extent->raw_hash);
}

const char *qr_page_check(qr_page_bench *bench, const qr_page_file *file, const qr_extent *extent, int producer,
                          int64_t page)
{
    qr_extent_head head;
    memcpy(&head, bench->stored, sizeof head);
    if (head.magic != magic) {
        return "no page begins there";
    }
    if (head.identity[0] != file->identity[0] || head.identity[1] != file->identity[1]) {
        return "a page of another store is in its place";
    }
    if (head.page != page || head.producer != producer || head.first_block != extent->first) {
        return "another page is in its place";
    }
    if (head.version != extent->version) {
        return "an older version of it is in its place";
    }
    if (head.raw_bytes != extent->raw_bytes || head.stored_bytes != extent->stored_bytes) {
        return "its sizes are not those that were written";
    }
    uint64_t said = head.check;
    head.check = 0;
    memcpy(bench->stored, &head, sizeof head);
    uint64_t is = checksum(bench, &head);
    head.check = said;
    memcpy(bench->stored, &head, sizeof head);
    return is == said && is == extent->check ? NULL : "its checksum is wrong";
}

const char *qr_page_unpack(const qr_page_bench *bench, void *raw, qr_status *status)
{
    qr_extent_head head;
    memcpy(&head, bench->stored, sizeof head);
    const unsigned char *stored = bench->stored + QR_EXTENT_HEAD_BYTES;
    *status = QR_OK;
    if (head.codec == QR_CODEC_NONE) {
        memcpy(raw, stored, (size_t)head.raw_bytes); /* the extent's checksum covers them */
        return NULL;
    }
    *status =
        qr_codec_unpack_bare((qr_codec_kind)head.codec, stored, (size_t)head.stored_bytes, raw, (size_t)head.raw_bytes);
    if (*status != QR_OK) {
        return *status == QR_RESOURCE ? "there is no memory to decompress it" : "it cannot be decompressed";
    }
    XXH128_hash_t hash = XXH3_128bits(raw, (size_t)head.raw_bytes);
    if (hash.low64 != head.raw_hash[0] || hash.high64 != head.raw_hash[1]) {
        *status = QR_DATA;
        return "its contents are not what was written";
    }
    return NULL;
}
