/* The index of a generation's share in memory, and its bytes (io/generation.h says what they are). */
#ifndef QR_IO_GENERATION_INDEX_H
#define QR_IO_GENERATION_INDEX_H

#include "io/generation.h"

typedef struct qr_index {
    int64_t generation, step, server;
    qr_codec codec;
    int64_t state_dim;
    int64_t page_agents_votes, page_agents_state;
    int64_t data_bytes; /* size of the data file */
    size_t n;
    qr_page_record *records; /* [n], owned */
    qr_hash metadata_hash;
} qr_index;

/* Raw bytes of a whole page of this kind; 0 when that is no sensible number. */
size_t qr_index_page_bytes(const qr_index *index, int32_t kind);

/* *bytes is malloc'd, [*n]. */
qr_status qr_index_format(const qr_index *index, unsigned char **bytes, size_t *n);

/* Any bytes. QR_DATA "name: ..." when they are damaged or do not make sense. */
qr_status qr_index_parse(const char *name, const void *bytes, size_t n, qr_index *out);

/* The same of a file; QR_DATA when it is missing, too. */
qr_status qr_index_load(const char *path, qr_index *out);
void qr_index_clear(qr_index *index);

/* XXH3-128 over part, kind, number, first, count, raw_bytes and raw_hash of all records. QR_RESOURCE for want of
 * memory.
 */
qr_status qr_index_content_hash(const qr_index *index, qr_hash *out);

/* XXH3-128 of all bytes of the data file but the stored pages of the index's own generation. QR_DATA "name: ..." when
 * the file cannot be read. */
qr_status qr_index_metadata_hash(const qr_index *index, const char *name, int file, int64_t bytes, qr_hash *out);

#endif
