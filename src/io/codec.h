/* How pages are compressed. The bytes are those of HDF5's registered filters, so that other tools can read them:
 *
 *   LZ4, filter 32004    8 bytes big-endian raw size, 4 bytes big-endian block size, then for each block 4 bytes
 *                        big-endian stored size and an LZ4 block; a block that does not shrink is stored as it is
 *   Zstd, filter 32015   one frame with its content size
 *   Fletcher32, filter 3, last: 4 bytes little-endian over all before them, taken as big-endian 16-bit words
 *
 * (https://github.com/HDFGroup/hdf5_plugins, docs of LZ4 and ZSTD; HDF5's H5_checksum_fletcher32.) */
#ifndef QR_IO_CODEC_H
#define QR_IO_CODEC_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of an LZ4 block, and the filter's cd_values[0]. */
enum { QR_CODEC_LZ4_BLOCK_BYTES = 1 << 20, QR_CODEC_CHECKSUM_BYTES = 4, QR_CODEC_NAME_BYTES = 16 };

typedef enum qr_codec_kind { QR_CODEC_NONE, QR_CODEC_LZ4, QR_CODEC_ZSTD } qr_codec_kind;

typedef struct qr_codec {
    qr_codec_kind kind;
    int level; /* LZ4: 1 is its fast method, 2..12 its slow one (HC); Zstd: 1..22; none: 0 */
} qr_codec;

/* "none", "lz4-1", "zstd-9": QR_USAGE for anything else. */
qr_status qr_codec_parse(const char *text, qr_codec *out);

/* "lz4-1"; valid until the thread's next call. */
const char *qr_codec_name(qr_codec codec);

/* HDF5's Fletcher32, of which the four bytes above are made. */
uint32_t qr_codec_fletcher32(const void *data, size_t bytes);

/* Most bytes that raw_bytes may take when stored, the checksum included. */
size_t qr_codec_bound(qr_codec codec, size_t raw_bytes);

/* Compresses raw_bytes (1 or more) and appends the checksum; room is at least the bound. Threads may call this side by
 * side; each keeps its working memory until it ends. QR_RESOURCE for want of memory. */
qr_status qr_codec_pack(qr_codec codec, const void *raw, size_t raw_bytes, void *out, size_t room,
                        size_t *stored_bytes);

/* The inverse; stored bytes may hold anything. QR_DATA when the checksum or the form is wrong, or raw_bytes is not what
 * comes out. */
qr_status qr_codec_unpack(qr_codec_kind kind, const void *stored, size_t stored_bytes, void *raw, size_t raw_bytes);

/* The same without the checksum, where something faster covers the bytes; room is at least the bound all the same. */
qr_status qr_codec_pack_bare(qr_codec codec, const void *raw, size_t raw_bytes, void *out, size_t room,
                             size_t *stored_bytes);
qr_status qr_codec_unpack_bare(qr_codec_kind kind, const void *stored, size_t stored_bytes, void *raw,
                               size_t raw_bytes);

#endif
