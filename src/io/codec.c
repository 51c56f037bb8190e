#include "io/codec.h"

#include <lz4.h>
#include <lz4hc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { LZ4_HEAD_BYTES = 12, LZ4_SIZE_BYTES = 4 };

/* --- names --- */

static const struct {
    const char *name;
    qr_codec_kind kind;
    int lowest, highest;
} kinds[] = {
    {"none", QR_CODEC_NONE, 0, 0},
    {"lz4", QR_CODEC_LZ4, 1, LZ4HC_CLEVEL_MAX},
    {"zstd", QR_CODEC_ZSTD, 1, 22},
};

qr_status qr_codec_parse(const char *text, qr_codec *out)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        for (int level = kinds[i].lowest; level <= kinds[i].highest; level++) {
            qr_codec codec = {.kind = kinds[i].kind, .level = level};
            if (strcmp(text, qr_codec_name(codec)) == 0) {
                *out = codec;
                return QR_OK;
            }
        }
    }
    return qr_error(QR_USAGE, "'%s' is no compression; there is none, lz4-1 to lz4-%d and zstd-1 to zstd-22", text,
                    LZ4HC_CLEVEL_MAX);
}

const char *qr_codec_name(qr_codec codec)
{
    static _Thread_local char name[QR_CODEC_NAME_BYTES];
    if (codec.kind == QR_CODEC_NONE) {
        return "none";
    }
    snprintf(name, sizeof name, "%s-%d", kinds[codec.kind].name, codec.level);
    return name;
}

/* --- working memory of a thread --- */

typedef struct workspace {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *decompress;
    void *lz4_fast, *lz4_slow;
} workspace;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

static void free_workspace(void *memory)
{
    workspace *w = memory;
    (void)ZSTD_freeCCtx(w->compress);
    (void)ZSTD_freeDCtx(w->decompress);
    free(w->lz4_fast);
    free(w->lz4_slow);
    free(w);
}

static void make_key(void)
{
    key_made = pthread_key_create(&key, free_workspace) == 0;
}

/* The calling thread's; NULL for want of memory. */
static workspace *get_workspace(void)
{
    if (pthread_once(&once, make_key) != 0 || !key_made) {
        return NULL;
    }
    workspace *w = pthread_getspecific(key);
    if (w == NULL) {
        w = calloc(1, sizeof *w);
        if (w != NULL && pthread_setspecific(key, w) != 0) {
            free(w);
            w = NULL;
        }
    }
    return w;
}

static void *get_buffer(void **buffer, int bytes)
{
    if (*buffer == NULL) {
        *buffer = malloc((size_t)bytes);
    }
    return *buffer;
}

static qr_status no_memory(size_t raw_bytes)
{
    return qr_error_memory(raw_bytes, "compressing pages");
}

/* --- Fletcher32 --- */

/* To 1..65535 if it was not 0: what repeated adding of the upper half to the lower one ends at. */
static uint32_t fold(uint64_t sum)
{
    return sum == 0 ? 0 : (uint32_t)((sum - 1) % 65535) + 1;
}

/* The sums are taken over words as the machine reads them, so that they vectorise. Swapping the bytes of every word
 * multiplies all sums by 256 modulo 65535, which is the same as swapping the bytes of the sums (RFC 1071, 2.B). */
uint32_t qr_codec_fletcher32(const void *data, size_t bytes)
{
    enum { WORDS = 256 }; /* a block's sums fit in 32 bits */
    const unsigned char *at = data;
    uint64_t low = 0;
    uint64_t high = 0;
    while (bytes > 0) {
        uint16_t words[WORDS] = {0};
        size_t take = bytes < sizeof words ? bytes : sizeof words;
        uint32_t n = (uint32_t)((take + 1) / 2);
        uint32_t sum = 0;
        uint32_t weighted = 0;
        memcpy(words, at, take); /* the word of a last odd byte ends with a zero */
        for (uint32_t i = 0; i < WORDS; i++) {
            sum += words[i];
            weighted += (WORDS - i) * words[i];
        }
        /* Weights of a shorter block are too large by what its missing words would have had. */
        high += n * low + weighted - (uint64_t)(WORDS - n) * sum;
        low += sum;
        high = (high & UINT32_MAX) + (high >> 32); /* 2^32 - 1 is a multiple of 65535 */
        low = (low & UINT32_MAX) + (low >> 32);
        at += take;
        bytes -= take;
    }
    uint32_t first = fold(low);
    uint32_t second = fold(high);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    first = (first >> 8 | first << 8) & 0xffff;
    second = (second >> 8 | second << 8) & 0xffff;
#endif
    return second << 16 | first;
}

static void put_checksum(unsigned char *at, uint32_t checksum)
{
    for (int i = 0; i < QR_CODEC_CHECKSUM_BYTES; i++) {
        at[i] = (unsigned char)(checksum >> (8 * i));
    }
}

static uint32_t get_checksum(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* --- LZ4 --- */

static void put_big(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
    }
}

static uint64_t get_big(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

static size_t lz4_block(size_t raw_bytes)
{
    return raw_bytes < QR_CODEC_LZ4_BLOCK_BYTES ? raw_bytes : QR_CODEC_LZ4_BLOCK_BYTES;
}

/* Compressed size; 0 when the block does not shrink. */
static int pack_block(workspace *w, int level, const unsigned char *raw, int bytes, unsigned char *out)
{
    if (level == 1) {
        return LZ4_compress_fast_extState(w->lz4_fast, (const char *)raw, (char *)out, bytes, bytes - 1, 1);
    }
    return LZ4_compress_HC_extStateHC(w->lz4_slow, (const char *)raw, (char *)out, bytes, bytes - 1, level);
}

static qr_status pack_lz4(int level, const unsigned char *raw, size_t raw_bytes, unsigned char *out, size_t *bytes)
{
    workspace *w = get_workspace();
    if (w == NULL || (level == 1 ? get_buffer(&w->lz4_fast, LZ4_sizeofState())
                                 : get_buffer(&w->lz4_slow, LZ4_sizeofStateHC())) == NULL) {
        return no_memory(raw_bytes);
    }
    size_t block = lz4_block(raw_bytes);
    unsigned char *at = out + LZ4_HEAD_BYTES;
    put_big(out, raw_bytes, 8);
    put_big(out + 8, block, 4);
    for (size_t done = 0; done < raw_bytes; done += block) {
        size_t n = raw_bytes - done < block ? raw_bytes - done : block;
        size_t stored = (size_t)pack_block(w, level, raw + done, (int)n, at + LZ4_SIZE_BYTES);
        if (stored == 0) {
            memcpy(at + LZ4_SIZE_BYTES, raw + done, n);
            stored = n;
        }
        put_big(at, stored, LZ4_SIZE_BYTES);
        at += LZ4_SIZE_BYTES + stored;
    }
    *bytes = (size_t)(at - out);
    return QR_OK;
}

static bool unpack_lz4(const unsigned char *stored, size_t bytes, unsigned char *raw, size_t raw_bytes)
{
    if (bytes < LZ4_HEAD_BYTES || get_big(stored, 8) != raw_bytes) {
        return false;
    }
    size_t block = (size_t)get_big(stored + 8, 4);
    const unsigned char *at = stored + LZ4_HEAD_BYTES;
    const unsigned char *end = stored + bytes;
    if (block == 0 || block > LZ4_MAX_INPUT_SIZE) {
        return false;
    }
    for (size_t done = 0; done < raw_bytes; done += block) {
        size_t n = raw_bytes - done < block ? raw_bytes - done : block;
        if (end - at < LZ4_SIZE_BYTES) {
            return false;
        }
        size_t size = (size_t)get_big(at, LZ4_SIZE_BYTES);
        at += LZ4_SIZE_BYTES;
        if (size > n || size > (size_t)(end - at)) {
            return false;
        }
        if (size == n) {
            memcpy(raw + done, at, n);
        } else if (LZ4_decompress_safe((const char *)at, (char *)raw + done, (int)size, (int)n) != (int)n) {
            return false;
        }
        at += size;
    }
    return at == end;
}

/* --- Zstd --- */

static qr_status pack_zstd(int level, const void *raw, size_t raw_bytes, void *out, size_t room, size_t *bytes)
{
    workspace *w = get_workspace();
    if (w != NULL && w->compress == NULL) {
        w->compress = ZSTD_createCCtx();
    }
    if (w == NULL || w->compress == NULL) {
        return no_memory(raw_bytes);
    }
    size_t n = ZSTD_compressCCtx(w->compress, out, room, raw, raw_bytes, level);
    if (ZSTD_isError(n)) {
        return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation
                   ? no_memory(raw_bytes)
                   : qr_error(QR_INTERNAL, "a page could not be compressed: %s", ZSTD_getErrorName(n));
    }
    *bytes = n;
    return QR_OK;
}

/* Exactly one frame, which says how much it holds. *lacks_memory: there was no trying. */
static bool unpack_zstd(const void *stored, size_t bytes, void *raw, size_t raw_bytes, bool *lacks_memory)
{
    if (ZSTD_getFrameContentSize(stored, bytes) != raw_bytes || ZSTD_findFrameCompressedSize(stored, bytes) != bytes) {
        return false;
    }
    workspace *w = get_workspace();
    if (w != NULL && w->decompress == NULL) {
        w->decompress = ZSTD_createDCtx();
    }
    *lacks_memory = w == NULL || w->decompress == NULL;
    return !*lacks_memory && ZSTD_decompressDCtx(w->decompress, raw, raw_bytes, stored, bytes) == raw_bytes;
}

/* --- all --- */

size_t qr_codec_bound(qr_codec codec, size_t raw_bytes)
{
    size_t bytes = raw_bytes;
    if (codec.kind == QR_CODEC_LZ4) {
        bytes += LZ4_HEAD_BYTES + LZ4_SIZE_BYTES * (raw_bytes / QR_CODEC_LZ4_BLOCK_BYTES + 1);
    } else if (codec.kind == QR_CODEC_ZSTD) {
        bytes = ZSTD_compressBound(raw_bytes);
    }
    return bytes + QR_CODEC_CHECKSUM_BYTES;
}

qr_status qr_codec_pack_bare(qr_codec codec, const void *raw, size_t raw_bytes, void *out, size_t room,
                             size_t *stored_bytes)
{
    if (raw_bytes == 0 || room < qr_codec_bound(codec, raw_bytes)) {
        return qr_error(QR_INTERNAL, "a page of %zu bytes cannot be compressed into %zu", raw_bytes, room);
    }
    switch (codec.kind) {
    case QR_CODEC_LZ4: return pack_lz4(codec.level, raw, raw_bytes, out, stored_bytes);
    case QR_CODEC_ZSTD: return pack_zstd(codec.level, raw, raw_bytes, out, room, stored_bytes);
    default: break;
    }
    memcpy(out, raw, raw_bytes);
    *stored_bytes = raw_bytes;
    return QR_OK;
}

qr_status qr_codec_pack(qr_codec codec, const void *raw, size_t raw_bytes, void *out, size_t room, size_t *stored_bytes)
{
    size_t bytes = 0;
    qr_status status = qr_codec_pack_bare(codec, raw, raw_bytes, out, room, &bytes);
    if (status == QR_OK) {
        put_checksum((unsigned char *)out + bytes, qr_codec_fletcher32(out, bytes));
        *stored_bytes = bytes + QR_CODEC_CHECKSUM_BYTES;
    }
    return status;
}

qr_status qr_codec_unpack_bare(qr_codec_kind kind, const void *stored, size_t stored_bytes, void *raw, size_t raw_bytes)
{
    bool lacks_memory = false;
    bool done = false;
    if (raw_bytes == 0 || stored_bytes == 0) {
        return qr_error(QR_DATA, "the page is cut short");
    }
    switch (kind) {
    case QR_CODEC_NONE:
        done = stored_bytes == raw_bytes;
        if (done) {
            memcpy(raw, stored, stored_bytes);
        }
        break;
    case QR_CODEC_LZ4: done = unpack_lz4(stored, stored_bytes, raw, raw_bytes); break;
    case QR_CODEC_ZSTD: done = unpack_zstd(stored, stored_bytes, raw, raw_bytes, &lacks_memory); break;
    }
    if (lacks_memory) {
        return no_memory(raw_bytes);
    }
    return done ? QR_OK : qr_error(QR_DATA, "the page cannot be decompressed");
}

qr_status qr_codec_unpack(qr_codec_kind kind, const void *stored, size_t stored_bytes, void *raw, size_t raw_bytes)
{
    if (raw_bytes == 0 || stored_bytes <= QR_CODEC_CHECKSUM_BYTES) {
        return qr_error(QR_DATA, "the page is cut short");
    }
    size_t bytes = stored_bytes - QR_CODEC_CHECKSUM_BYTES;
    if (qr_codec_fletcher32(stored, bytes) != get_checksum((const unsigned char *)stored + bytes)) {
        return qr_error(QR_DATA, "the page's checksum is wrong");
    }
    return qr_codec_unpack_bare(kind, stored, bytes, raw, raw_bytes);
}
