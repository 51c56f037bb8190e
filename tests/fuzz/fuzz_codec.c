/* Any bytes as a stored page: the first says how, the next two how long the page is. With a right checksum, so that the
 * decompressors are met; what comes out must come from packing it again, too. */
#include "io/codec.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth, const char *what)
{
    if (!truth) {
        (void)fprintf(stderr, "%s: %s\n", what, qr_error_message());
        abort();
    }
}

static void check_round_trip(const uint8_t *raw, size_t n)
{
    static const qr_codec codecs[] = {{QR_CODEC_NONE, 0}, {QR_CODEC_LZ4, 1}, {QR_CODEC_LZ4, 3}, {QR_CODEC_ZSTD, 3}};
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
        size_t room = qr_codec_bound(codecs[i], n);
        size_t bytes = 0;
        uint8_t *stored = malloc(room);
        uint8_t *back = malloc(n);
        demand(stored != NULL && back != NULL, "memory");
        demand(qr_codec_pack(codecs[i], raw, n, stored, room, &bytes) == QR_OK, "packing");
        demand(qr_codec_unpack(codecs[i].kind, stored, bytes, back, n) == QR_OK, "unpacking");
        demand(memcmp(raw, back, n) == 0, "another page came out");
        free(stored);
        free(back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) {
        return 0;
    }
    const qr_codec_kind kind = (qr_codec_kind)(data[0] % 3);
    const size_t n = (size_t)data[1] << 8 | data[2];
    const size_t bytes = size - 3;
    uint8_t *stored = malloc(bytes + 4);
    uint8_t *raw = malloc(n + 1);
    demand(stored != NULL && raw != NULL, "memory");
    memcpy(stored, data + 3, bytes);
    const uint32_t sum = qr_codec_fletcher32(stored, bytes);
    for (int i = 0; i < 4; i++) {
        stored[bytes + (size_t)i] = (uint8_t)(sum >> (8 * i));
    }
    raw[n] = 0x5A;
    const qr_status status = qr_codec_unpack(kind, stored, bytes + 4, raw, n);
    demand(status == QR_OK || status == QR_DATA, "not the page's fault");
    demand(raw[n] == 0x5A, "written beyond the page");
    if (status == QR_OK) {
        check_round_trip(raw, n);
    }
    /* The checksum, as it came. */
    const qr_status plain = qr_codec_unpack(kind, data + 3, bytes, raw, n);
    demand(plain == QR_OK || plain == QR_DATA, "not the page's fault");
    free(stored);
    free(raw);
    return 0;
}
