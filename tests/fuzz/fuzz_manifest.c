/* Any bytes as a manifest, or as an index of pages when the first byte is odd: as they are, and with a right seal. What
 * is accepted must hold what its header promises and come out of writing it again. */
#include "io/generation_index.h"
#include "io/manifest.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth, const char *what)
{
    if (!truth) {
        (void)fprintf(stderr, "%s: %s\n", what, qr_error_message());
        abort();
    }
}

static void demand_refusal(qr_status status)
{
    demand(status == QR_DATA, "not the file's fault");
    demand(strncmp(qr_error_message(), "fuzz: ", 6) == 0, "no name");
    demand(strchr(qr_error_message(), '\n') == NULL, "more than one line");
}

static void try_manifest(const char *text, size_t n)
{
    qr_manifest *manifest = NULL;
    qr_manifest *again = NULL;
    char *written = NULL;
    const qr_status status = qr_manifest_parse("fuzz", text, n, &manifest);
    if (status != QR_OK) {
        demand_refusal(status);
        return;
    }
    int64_t next = 0;
    for (int i = 0; i < manifest->n_shares; i++) {
        demand(manifest->shares[i].first == next && manifest->shares[i].count >= 0, "shares");
        next += manifest->shares[i].count;
    }
    demand(next == manifest->n_agents && manifest->n_agents > 0, "agents");
    demand(qr_manifest_format(manifest, &written) == QR_OK, "writing");
    demand(qr_manifest_parse("fuzz", written, strlen(written), &again) == QR_OK, "reading again");
    demand(again->n_parts == manifest->n_parts && again->step == manifest->step, "parts");
    qr_manifest_destroy(again);
    qr_manifest_destroy(manifest);
    free(written);
}

static void try_index(const uint8_t *bytes, size_t n)
{
    qr_index index;
    uint8_t *written = NULL;
    size_t n_written = 0;
    qr_hash content;
    const qr_status status = qr_index_parse("fuzz", bytes, n, &index);
    if (status != QR_OK) {
        demand_refusal(status);
        return;
    }
    for (size_t i = 0; i < index.n; i++) {
        const qr_page_record *record = &index.records[i];
        const size_t page = qr_index_page_bytes(&index, record->kind);
        demand(record->raw_bytes > 0 && record->raw_bytes <= page, "raw bytes");
        demand(record->stored_bytes <= qr_codec_bound(index.codec, page), "stored bytes");
        demand(record->address + record->stored_bytes <= INT64_MAX, "address");
    }
    demand(qr_index_content_hash(&index, &content) == QR_OK, "hash");
    demand(qr_index_format(&index, &written, &n_written) == QR_OK, "writing");
    demand(n_written == n && memcmp(written, bytes, n) == 0, "another index came out");
    qr_index_clear(&index);
    free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    const size_t n = size - 1;
    const XXH128_hash_t hash = XXH3_128bits(data + 1, n);
    uint8_t *sealed = malloc(n + 64);
    demand(sealed != NULL, "memory");
    memcpy(sealed, data + 1, n);
    if (data[0] & 1) {
        try_index(data + 1, n);
        memcpy(sealed + n, &hash.low64, 8);
        memcpy(sealed + n + 8, &hash.high64, 8);
        try_index(sealed, n + 16);
    } else {
        try_manifest((const char *)data + 1, n);
        (void)snprintf((char *)sealed + n, 64, "seal: %016llx%016llx\n", (unsigned long long)hash.high64,
                       (unsigned long long)hash.low64);
        try_manifest((const char *)sealed, n + 39);
    }
    free(sealed);
    return 0;
}
