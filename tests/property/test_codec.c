/* How pages are compressed: what goes in comes out, in the registered filters' layout; whatever else comes in is
 * refused.
 */
#include "io/codec.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include <cmocka.h>

enum { MOST = 16 << 20, ROUNDS = 1000, FLIPS = 4000 };

static const qr_codec codecs[] = {{QR_CODEC_NONE, 0}, {QR_CODEC_LZ4, 1},  {QR_CODEC_LZ4, 4},
                                  {QR_CODEC_ZSTD, 1}, {QR_CODEC_ZSTD, 3}, {QR_CODEC_ZSTD, 9}};
enum { N_CODECS = sizeof codecs / sizeof codecs[0] };

static uint64_t seed = 88172645463325252U;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Zeros, noise, votes, smooth floats, or noise after votes. */
static void fill(unsigned char *data, size_t n, int kind)
{
    for (size_t i = 0; i < n; i++) {
        switch (kind) {
        case 0: data[i] = 0; break;
        case 1: data[i] = (unsigned char)(draw() >> 56); break;
        case 2: data[i] = (unsigned char)(draw() % 3); break;
        case 3: data[i] = (unsigned char)(i % 4 == 3 ? 63 : i / 4 >> (8 * (i % 4))); break;
        default: data[i] = (unsigned char)(i > n / 2 ? draw() >> 56 : draw() % 2); break;
        }
    }
}

/* --- written from the specifications alone --- */

static uint32_t plain_fletcher(const unsigned char *data, size_t n)
{
    uint64_t first = 0;
    uint64_t second = 0;
    for (size_t i = 0; i < n; i += 2) {
        first += (uint64_t)data[i] << 8 | (i + 1 < n ? data[i + 1] : 0);
        first = first > 65535 ? first - 65535 : first;
        second += first;
        second = second > 65535 ? second - 65535 : second;
    }
    return (uint32_t)(second << 16 | first);
}

static size_t big(const unsigned char *at, int bytes)
{
    size_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value = value * 256 + at[i];
    }
    return value;
}

/* An LZ4 block (lz4_Block_format.md). */
static size_t plain_block(const unsigned char *in, size_t n, unsigned char *out)
{
    const unsigned char *end = in + n;
    unsigned char *at = out;
    while (in < end) {
        unsigned token = *in++;
        size_t literals = token >> 4;
        for (unsigned more = 255; literals >= 15 && more == 255; literals += more) {
            more = *in++;
        }
        memcpy(at, in, literals);
        at += literals;
        in += literals;
        if (in >= end) {
            break;
        }
        size_t offset = in[0] + (size_t)in[1] * 256;
        in += 2;
        size_t length = token & 15;
        for (unsigned more = 255; length >= 15 && more == 255; length += more) {
            more = *in++;
        }
        for (length += 4; length > 0; length--, at++) {
            *at = *(at - offset);
        }
    }
    return (size_t)(at - out);
}

static size_t plain_lz4(const unsigned char *in, size_t n, unsigned char *out)
{
    size_t total = big(in, 8);
    size_t block = big(in + 8, 4);
    size_t done = 0;
    size_t at = 12;
    while (done < total) {
        size_t wanted = total - done < block ? total - done : block;
        size_t stored = big(in + at, 4);
        at += 4;
        if (stored == wanted) {
            memcpy(out + done, in + at, wanted);
        } else {
            assert_int_equal(plain_block(in + at, stored, out + done), wanted);
        }
        at += stored;
        done += wanted;
    }
    assert_int_equal(at, n);
    return done;
}

/* --- tests --- */

static void round_trip(qr_codec codec, const unsigned char *raw, size_t n, unsigned char *stored, unsigned char *back)
{
    size_t room = qr_codec_bound(codec, n);
    size_t bytes = 0;
    assert_int_equal(qr_codec_pack(codec, raw, n, stored, room, &bytes), QR_OK);
    assert_true(bytes <= room && bytes > 4);
    memset(back, 0xA5, n);
    assert_int_equal(qr_codec_unpack(codec.kind, stored, bytes, back, n), QR_OK);
    assert_memory_equal(raw, back, n);
    size_t body = bytes - 4;
    uint32_t kept = (uint32_t)stored[body] | (uint32_t)stored[body + 1] << 8 | (uint32_t)stored[body + 2] << 16 |
                    (uint32_t)stored[body + 3] << 24;
    assert_int_equal(kept, plain_fletcher(stored, body));
    memset(back, 0xA5, n);
    if (codec.kind == QR_CODEC_LZ4) {
        assert_int_equal(plain_lz4(stored, body, back), n);
        assert_memory_equal(raw, back, n);
    } else if (codec.kind == QR_CODEC_ZSTD) {
        assert_int_equal(ZSTD_findFrameCompressedSize(stored, body), body);
        assert_int_equal(ZSTD_getFrameContentSize(stored, body), n);
    }
}

static void test_round_trips(void **state)
{
    (void)state;
    static const size_t fixed[] = {
        1,       2,   3, 4, 5, 7, 8, 15, 16, 255, 256, 511, 512, 513, 4095, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1,
        3 << 20, MOST};
    unsigned char *raw = malloc(MOST);
    unsigned char *back = malloc(MOST);
    unsigned char *stored = malloc(2 * (size_t)MOST);
    assert_true(raw != NULL && back != NULL && stored != NULL);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        for (int kind = 0; kind < 5; kind++) {
            fill(raw, fixed[i], kind);
            for (int c = 0; c < N_CODECS; c++) {
                if (fixed[i] <= (1 << 20) + 1 || c % 2 == kind % 2) {
                    round_trip(codecs[c], raw, fixed[i], stored, back);
                }
            }
        }
    }
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = 1 + draw() % (draw() % 8 == 0 ? 300000 : 3000);
        fill(raw, n, (int)(draw() % 5));
        round_trip(codecs[draw() % N_CODECS], raw, n, stored, back);
    }
    free(raw);
    free(back);
    free(stored);
}

static void test_checksum(void **state)
{
    (void)state;
    unsigned char data[5000];
    for (int i = 0; i < 3 * ROUNDS; i++) {
        size_t n = draw() % sizeof data;
        int kind = (int)(draw() % 4);
        for (size_t k = 0; k < n; k++) {
            data[k] = (unsigned char)(kind == 0 ? 0 : kind == 1 ? 255 : kind == 2 ? draw() : draw() % 2 * 255);
        }
        assert_int_equal(qr_codec_fletcher32(data, n), plain_fletcher(data, n));
    }
}

/* Every flipped bit, every lost or added byte is seen; nothing is written beyond the page. */
static void test_damage_is_seen(void **state)
{
    (void)state;
    enum { N = 5000, GUARD = 64 };
    unsigned char raw[N];
    unsigned char back[N + GUARD];
    unsigned char stored[2 * N];
    for (int c = 0; c < N_CODECS; c++) {
        for (int kind = 0; kind < 5; kind++) {
            size_t bytes = 0;
            fill(raw, N, kind);
            assert_int_equal(qr_codec_pack(codecs[c], raw, N, stored, sizeof stored, &bytes), QR_OK);
            for (int i = 0; i < FLIPS / N_CODECS; i++) {
                size_t bit = draw() % (8 * bytes);
                stored[bit / 8] ^= (unsigned char)(1U << bit % 8);
                assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, bytes, back, N), QR_DATA);
                stored[bit / 8] ^= (unsigned char)(1U << bit % 8);
            }
            for (size_t cut = 0; cut < bytes; cut += 1 + bytes / 50) {
                assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, cut, back, N), QR_DATA);
            }
            assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, bytes, back, N - 1), QR_DATA);
            assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, bytes, back, N + 1), QR_DATA);
            assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, bytes, back, 0), QR_DATA);
            assert_int_equal(qr_codec_unpack(codecs[c].kind, stored, bytes, back, N), QR_OK);
        }
    }
}

static size_t seal(unsigned char *data, size_t n)
{
    uint32_t sum = plain_fletcher(data, n);
    for (int i = 0; i < 4; i++) {
        data[n + (size_t)i] = (unsigned char)(sum >> (8 * i));
    }
    return n + 4;
}

/* With the checksum made to fit, so that the decompressors themselves are met: the page's hash finds what they let
 * through, here they must only stay in their bounds. */
static void test_hostile_bytes(void **state)
{
    (void)state;
    enum { N = 3000 };
    unsigned char raw[N];
    unsigned char *back = malloc(N);
    for (int i = 0; i < FLIPS; i++) {
        qr_codec codec = codecs[draw() % N_CODECS];
        unsigned char *stored = malloc(2 * N);
        size_t bytes = 0;
        assert_true(back != NULL && stored != NULL);
        fill(raw, N, (int)(draw() % 5));
        assert_int_equal(qr_codec_pack(codec, raw, N, stored, 2 * N, &bytes), QR_OK);
        bytes -= 4;
        for (uint64_t k = draw() % 8; k > 0; k--) {
            stored[draw() % (draw() % 2 == 0 ? 20 : bytes)] = (unsigned char)draw();
        }
        bytes = draw() % 4 == 0 ? draw() % bytes : bytes;
        unsigned char *exact = malloc(bytes + 4);
        assert_non_null(exact);
        memcpy(exact, stored, bytes);
        qr_status status = qr_codec_unpack(codec.kind, exact, seal(exact, bytes), back, N);
        assert_true(status == QR_OK || status == QR_DATA);
        free(exact);
        free(stored);
    }
    free(back);
}

/* Two frames read as one, and a frame without its content size, are not ours. */
static void test_foreign_zstd(void **state)
{
    (void)state;
    unsigned char raw[2000];
    unsigned char stored[8000];
    unsigned char back[2000];
    fill(raw, sizeof raw, 2);
    size_t one = ZSTD_compress(stored, sizeof stored, raw, 1000, 3);
    size_t two = one + ZSTD_compress(stored + one, sizeof stored - one, raw + 1000, 1000, 3);
    assert_int_equal(qr_codec_unpack(QR_CODEC_ZSTD, stored, seal(stored, two), back, 2000), QR_DATA);
    assert_int_equal(qr_codec_unpack(QR_CODEC_ZSTD, stored, seal(stored, two), back, 1000), QR_DATA);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    assert_non_null(context);
    assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0)));
    size_t n = ZSTD_compress2(context, stored, sizeof stored, raw, 2000);
    ZSTD_freeCCtx(context);
    assert_int_equal(qr_codec_unpack(QR_CODEC_ZSTD, stored, seal(stored, n), back, 2000), QR_DATA);
}

static void *pack_many(void *context)
{
    unsigned char *raw = malloc(20000);
    unsigned char *back = malloc(20000);
    unsigned char *stored = malloc(40000);
    bool *done = context;
    *done = raw != NULL && back != NULL && stored != NULL;
    for (unsigned i = 0; i < 300 && *done; i++) {
        qr_codec codec = codecs[i % N_CODECS];
        size_t n = 1 + i * 61;
        size_t bytes = 0;
        for (size_t k = 0; k < n; k++) {
            raw[k] = (unsigned char)(k * i % 7);
        }
        *done = qr_codec_pack(codec, raw, n, stored, 40000, &bytes) == QR_OK &&
                qr_codec_unpack(codec.kind, stored, bytes, back, n) == QR_OK && memcmp(raw, back, n) == 0;
    }
    free(raw);
    free(back);
    free(stored);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[8];
    bool done[8];
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pack_many, &done[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_true(done[i]);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"none", "lz4-1", "lz4-12", "zstd-1", "zstd-9", "zstd-22"};
    static const char *const bad[] = {"",       "lz4",    "lz4-",    "lz4-0",  "lz4-13", "lz4-01",  "zstd-23",
                                      "zstd-0", "none-0", "zstd-1 ", " lz4-1", "LZ4-1",  "zstd--1", "gzip-3"};
    qr_codec codec;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(qr_codec_parse(good[i], &codec), QR_OK);
        assert_string_equal(qr_codec_name(codec), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qr_codec_parse(bad[i], &codec), QR_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),    cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_damage_is_seen), cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_foreign_zstd),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
