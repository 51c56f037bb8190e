/* Single bits flipped anywhere in the files of a generation, one at a time: what a restart reads is right or refused,
 * never wrong, and whoever verifies the generation sees every one. */
#include "../unit/test_generation_fixture.h"

#include "io/recovery.h"

#include <fcntl.h>

enum { FLIPS = 2000, TRUNCATIONS = 200, MOST_FILES = 16 };

static uint64_t seed = 88172645463325252U;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

typedef struct target {
    char path[160];
    int64_t bytes;
} target;

/* How a flip showed. */
typedef struct counts {
    int manifest, index, page, metadata, harmless;
} counts;

/* What reading and verifying a share came to. */
typedef struct outcome {
    bool opens, pages, metadata;
} outcome;

static void examine_share(const crowd *c, const qr_recovery *recovery, int64_t generation, int server, outcome *all)
{
    qr_share *share = NULL;
    qr_generation_reader *reader = NULL;
    qr_page_scratch scratch = {0};
    size_t n = 0;
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    const qr_generation_seal *seal = &c->seals[0][generation][server][0];
    qr_status status = qr_share_open(recovery, generation, server, &share);
    assert_true(status == QR_OK || status == QR_DATA);
    all->opens = all->opens && status == QR_OK;
    const qr_page_record *pages = status == QR_OK ? qr_share_pages(share, &n) : NULL;
    for (size_t i = 0; i < n; i++) {
        status = qr_share_read_page(share, i, &scratch, raw);
        assert_true(status == QR_OK || status == QR_DATA);
        assert_true(status != QR_OK || crowd_is(c, &pages[i], generation, raw)); /* never a wrong page */
        all->pages = all->pages && status == QR_OK;
    }
    qr_share_close(share);
    if (qr_generation_open(c->directories[0], generation, server, false, seal, &reader) == QR_OK) {
        all->metadata = qr_generation_check_metadata(reader) == QR_OK && all->metadata;
        qr_generation_close(reader);
    }
    free(scratch.bytes);
    free(raw);
}

/* Reads both generations of tier 0 as a restart would and as a verification does. */
static void examine(const crowd *c, counts *found)
{
    const char *directories[] = {c->directories[0]};
    qr_recovery *recovery = NULL;
    outcome all = {true, true, true};
    assert_int_equal(qr_recovery_scan(directories, 1, &recovery), QR_OK);
    recovery->quiet = true;
    bool manifest_whole = recovery->n == 2;
    for (int k = 0; k < 2 * CROWD_SERVERS && manifest_whole; k++) {
        examine_share(c, recovery, 1 + k % 2, k / 2, &all);
    }
    if (!manifest_whole) {
        found->manifest++;
    } else if (!all.opens) {
        found->index++;
    } else if (!all.pages) {
        found->page++;
    } else if (!all.metadata) {
        found->metadata++;
    } else {
        found->harmless++;
    }
    qr_recovery_destroy(recovery);
}

static void flip(const target *t, int64_t bit)
{
    unsigned char byte = 0;
    int file = open(t->path, O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pread(file, &byte, 1, bit / 8), 1);
    byte ^= (unsigned char)(1U << bit % 8);
    assert_int_equal(pwrite(file, &byte, 1, bit / 8), 1);
    close(file);
}

static int list_targets(const crowd *c, target targets[MOST_FILES])
{
    static const char *const suffixes[] = {"h5", "index"};
    int n = 0;
    for (int64_t generation = 1; generation <= 2; generation++) {
        for (int s = 0; s < CROWD_SERVERS; s++) {
            for (int k = 0; k < 2; k++) {
                crowd_path(c, 0, generation, s, false, suffixes[k], targets[n++].path);
            }
        }
        crowd_path(c, 0, generation, -1, false, "", targets[n++].path);
    }
    for (int i = 0; i < n; i++) {
        struct stat info;
        assert_int_equal(stat(targets[i].path, &info), 0);
        targets[i].bytes = info.st_size;
    }
    return n;
}

static void start(crowd *c, int codec)
{
    crowd_start(c);
    c->codecs[0] = c->codecs[codec];
    c->n_agents = 1500;
    c->page_agents_votes = 256;
    c->page_agents_state = 64;
    crowd_write(c, 0, 1, false);
    crowd_write(c, 0, 2, false);
}

/* A third of the flips anywhere, the others with each file as likely as any. */
static void test_flips(void **state)
{
    (void)state;
    for (int codec = 0; codec < CROWD_TIERS; codec++) {
        crowd c;
        target targets[MOST_FILES];
        counts found = {0};
        start(&c, codec);
        int n = list_targets(&c, targets);
        int64_t all = 0;
        for (int i = 0; i < n; i++) {
            all += targets[i].bytes;
        }
        examine(&c, &found);
        assert_int_equal(found.harmless, 1); /* undamaged */
        found = (counts){0};
        for (int i = 0; i < FLIPS; i++) {
            int which = (int)(draw() % (uint64_t)n);
            if (i % 3 == 0) {
                int64_t at = (int64_t)(draw() % (uint64_t)all);
                for (which = 0; at >= targets[which].bytes; which++) {
                    at -= targets[which].bytes;
                }
            }
            int64_t bit = (int64_t)(draw() % (uint64_t)(8 * targets[which].bytes));
            flip(&targets[which], bit);
            int harmless = found.harmless;
            examine(&c, &found);
            if (found.harmless != harmless) {
                fail_msg("bit %lld of %s was not seen", (long long)bit, targets[which].path);
            }
            flip(&targets[which], bit);
        }
        printf("%s: %d flips: %d seen in manifests, %d in indexes, %d in pages, %d in HDF5's metadata, %d not seen; 0 "
               "wrong pages\n",
               qr_codec_name(c.codecs[0]), FLIPS, found.manifest, found.index, found.page, found.metadata,
               found.harmless);
        assert_true(found.manifest > 0 && found.index > 0 && found.page > 0 && found.metadata > 0);
        crowd_remove(&c);
    }
}

/* Cut short at the start, anywhere, and by the last byte. */
static void test_truncation(void **state)
{
    (void)state;
    crowd c;
    target targets[MOST_FILES];
    counts found = {0};
    start(&c, 0);
    int n = list_targets(&c, targets);
    for (int i = 0; i < TRUNCATIONS; i++) {
        const target *t = &targets[i % n];
        int64_t left = i < n ? 0 : i < 2 * n ? t->bytes - 1 : (int64_t)(draw() % (uint64_t)t->bytes);
        char copy[sizeof t->path + 8];
        char command[2 * sizeof copy + 16];
        snprintf(copy, sizeof copy, "%s.kept", t->path);
        snprintf(command, sizeof command, "cp %s %s", t->path, copy);
        assert_int_equal(system(command), 0);
        assert_int_equal(truncate(t->path, left), 0);
        int harmless = found.harmless;
        examine(&c, &found);
        assert_int_equal(found.harmless, harmless);
        assert_int_equal(rename(copy, t->path), 0);
    }
    examine(&c, &found);
    assert_int_equal(found.harmless, 1);
    crowd_remove(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
