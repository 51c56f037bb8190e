/* Shares of generations: what is written is read again, by us and by stock h5py, also where pages are taken over. */
#include "test_generation_fixture.h"

#include "io/generation_index.h"

#include <dirent.h>

#define PLUGINS "/usr/lib/x86_64-linux-gnu/hdf5/serial/plugins"

/* Where the sources are. */
static const char *source_directory(void)
{
    static char path[300];
    const char *file = __FILE__;
    snprintf(path, sizeof path, "%.*s", (int)(strlen(file) - strlen("/tests/unit/test_generation.c")), file);
    return path;
}

/* All pages of a share are what they must be. */
static void check_share(const crowd *c, int tier, int64_t generation, int server, bool replica)
{
    qr_generation_reader *reader = NULL;
    qr_page_scratch scratch = {0};
    size_t n = 0;
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    const qr_generation_seal *seal = &c->seals[tier][generation][server][replica];
    assert_int_equal(qr_generation_open(c->directories[tier], generation, server, replica, seal, &reader), QR_OK);
    assert_int_equal(qr_generation_codec(reader), c->codecs[tier].kind);
    const qr_page_record *pages = qr_generation_pages(reader, &n);
    assert_int_equal(n, seal->pages);
    for (size_t i = 0; i < n; i++) {
        const void *stored = NULL;
        assert_int_equal(qr_generation_read_page(reader, i, &scratch, raw), QR_OK);
        assert_true(crowd_is(c, &pages[i], generation, raw));
        assert_int_equal(qr_generation_read_stored(reader, i, &scratch, &stored), QR_OK);
        assert_int_equal(XXH3_64bits(stored, pages[i].stored_bytes), pages[i].stored_hash);
    }
    assert_int_equal(qr_generation_check_metadata(reader), QR_OK);
    qr_generation_close(reader);
    free(scratch.bytes);
    free(raw);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const int64_t sizes[][4] = {
        {5003, 6, 512, 128}, {64, 1, 1, 1}, {4, 0, 100, 0}, {5000, 0, 1250, 0}, {7, 3, 4096, 4096}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        crowd c;
        crowd_start(&c);
        c.n_agents = sizes[i][0];
        c.state_dim = sizes[i][1];
        c.page_agents_votes = sizes[i][2];
        c.page_agents_state = sizes[i][3];
        for (int tier = 0; tier < CROWD_TIERS; tier++) {
            for (int64_t generation = 1; generation <= 4; generation++) {
                crowd_write(&c, tier, generation, tier == 1);
                check_share(&c, tier, generation, 0, false);
                check_share(&c, tier, generation, 1, tier == 1);
                const qr_generation_seal *seal = &c.seals[tier][generation][0][0];
                const qr_generation_seal *other = &c.seals[0][generation][0][0];
                assert_memory_equal(&seal->content_hash, &other->content_hash, sizeof seal->content_hash);
                assert_int_equal(seal->raw_bytes, other->raw_bytes);
            }
        }
        const qr_generation_seal *second = &c.seals[0][2][0][0];
        assert_int_equal(c.seals[0][1][0][0].written_pages, second->pages);
        assert_true(c.n_agents < 5000 || c.state_dim == 0 || second->written_pages < second->pages);
        crowd_remove(&c);
    }
}

/* What the outside reader leaves is the crowd after this generation. */
static void check_outside(const crowd *c, const char *how, int tier, int64_t generation)
{
    static const char *const names[] = {"votes", "state"};
    char command[800];
    snprintf(command, sizeof command,
             "HDF5_PLUGIN_PATH=%s /usr/bin/python3 %s/tests/support/outside_reader.py %s %s %lld %s/out", PLUGINS,
             source_directory(), how, c->directories[tier], (long long)generation, c->root);
    assert_int_equal(system(command), 0);
    for (int kind = 0; kind < 2; kind++) {
        size_t each = kind == 0 ? 1 : (size_t)c->state_dim * sizeof(float);
        size_t bytes = (size_t)c->n_agents * each;
        char path[96];
        unsigned char *wanted = malloc(bytes);
        unsigned char *found = malloc(bytes + 1);
        snprintf(path, sizeof path, "%s/out.%s", c->root, names[kind]);
        FILE *file = fopen(path, "rb");
        assert_true(wanted != NULL && found != NULL && file != NULL);
        assert_int_equal(fread(found, 1, bytes + 1, file), bytes);
        fclose(file);
        crowd_fill(c, (qr_page_kind)kind, 0, c->n_agents, generation, wanted);
        assert_memory_equal(wanted, found, bytes);
        free(wanted);
        free(found);
        unlink(path);
    }
}

/* Every tier's files, with pages of older generations of which only the data files are left, moved elsewhere. */
static void test_read_from_outside(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    for (int tier = 0; tier < CROWD_TIERS; tier++) {
        for (int64_t generation = 1; generation <= 5; generation++) {
            crowd_write(&c, tier, generation, false);
        }
        for (int64_t generation = 1; generation <= 3; generation++) {
            char path[160];
            crowd_path(&c, tier, generation, 0, false, "index", path);
            assert_int_equal(unlink(path), 0);
            assert_int_equal(qr_manifest_remove(c.directories[tier], generation), 0);
        }
        char moved[sizeof c.directories[tier]];
        snprintf(moved, sizeof moved, "%s/moved%d", c.root, tier);
        assert_int_equal(rename(c.directories[tier], moved), 0);
        snprintf(c.directories[tier], sizeof c.directories[tier], "%s", moved);
        for (int64_t generation = 4; generation <= 5; generation++) {
            check_share(&c, tier, generation, 0, false);
            check_outside(&c, "chunks", tier, generation);
            if (c.codecs[tier].kind == QR_CODEC_NONE ||
                (c.codecs[tier].kind == QR_CODEC_LZ4 && access(PLUGINS "/libh5lz4.so", R_OK) == 0)) {
                check_outside(&c, "stock", tier, generation);
            }
        }
    }
    crowd_remove(&c);
}

/* Every second page changes: as many pieces as a virtual dataset can have. */
static void test_many_pieces(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    c.n_agents = 60000;
    c.state_dim = 1;
    c.page_agents_votes = CROWD_BLOCK;
    c.page_agents_state = CROWD_BLOCK;
    c.codecs[0] = (qr_codec){.kind = QR_CODEC_NONE};
    crowd_write(&c, 0, 1, false);
    crowd_write(&c, 0, 2, false);
    crowd_write(&c, 0, 3, false);
    check_share(&c, 0, 3, 1, false);
    check_outside(&c, "stock", 0, 3);
    crowd_remove(&c);
}

static void test_refuses_what_does_not_fit(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    qr_generation_part parts[CROWD_PARTS / CROWD_SERVERS];
    qr_generation_plan plan = crowd_plan(&c, 0, 1, 0, false, parts);
    qr_generation_seal seal;
    qr_generation_writer *writer = NULL;
    unsigned char stored[64] = {1};
    qr_page_record good = {.part = 0, .kind = QR_PAGE_VOTES, .count = 512, .raw_bytes = 512, .stored_bytes = 64};
    for (int i = 0; i < 8; i++) {
        qr_page_record record = good;
        record.part += i == 0 ? 2 : 0;
        record.number += i == 1 ? 3 : 0;
        record.first += i == 2 ? 512 : 0;
        record.count -= i == 3;
        record.raw_bytes -= i == 4;
        record.stored_bytes = i == 5 ? 0 : i == 6 ? 100000 : record.stored_bytes;
        record.kind += i == 7 ? 2 : 0;
        assert_int_equal(qr_generation_writer_create(&plan, &writer), QR_OK);
        assert_int_equal(qr_generation_write_page(writer, &record, stored), QR_INTERNAL);
        assert_int_equal(qr_generation_seal_files(writer, &seal), QR_INTERNAL);
        qr_generation_writer_destroy(writer);
    }
    /* Twice, and a share with a hole. */
    assert_int_equal(qr_generation_writer_create(&plan, &writer), QR_OK);
    assert_int_equal(qr_generation_write_page(writer, &good, stored), QR_OK);
    assert_int_equal(qr_generation_seal_files(writer, &seal), QR_INTERNAL);
    assert_int_equal(qr_generation_write_page(writer, &good, stored), QR_INTERNAL);
    qr_generation_writer_destroy(writer);
    DIR *left = opendir(c.directories[0]);
    for (const struct dirent *entry = readdir(left); entry != NULL; entry = readdir(left)) {
        assert_int_equal(entry->d_name[0], '.');
        assert_true(strlen(entry->d_name) <= 2);
    }
    closedir(left);
    crowd_remove(&c);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t generation;
        int server;
        bool replica;
        int kind;
    } ours[] = {
        {"generation-00000012.s003.h5", 12, 3, false, QR_FILE_DATA},
        {"generation-00000012.s003.replica.h5", 12, 3, true, QR_FILE_DATA},
        {"generation-00000012.s1003.index", 12, 1003, false, QR_FILE_INDEX},
        {"generation-9223372036854775807.s000.replica.index", INT64_MAX, 0, true, QR_FILE_INDEX},
        {"generation-00000001.s003.h5.bad", 1, 3, false, QR_FILE_BAD_MARK},
        {"generation-00000001.manifest", 1, -1, false, QR_FILE_MANIFEST},
        {".generation-00000001.s003.h5.tmp", 1, 3, false, QR_FILE_TEMPORARY},
        {".generation-00000001.s003.replica.index.tmp", 1, 3, true, QR_FILE_TEMPORARY},
        {".generation-00000001.manifest.s002.tmp", 1, -1, false, QR_FILE_TEMPORARY},
    };
    static const char *const foreign[] = {"",
                                          ".",
                                          "..",
                                          ".tmp",
                                          "x",
                                          "generation-",
                                          "generation-12.s003.h5",
                                          "generation-000000012.s003.h5",
                                          "generation-00000012.s3.h5",
                                          "generation-00000012.s0003.h5",
                                          "generation-00000012.s003.h5x",
                                          "generation-00000012.s003.h5 ",
                                          "generation-00000012.s003",
                                          "generation-00000012.s003.replica",
                                          "generation-00000012.s003.replica.replica.h5",
                                          "generation-99999999999999999999.s003.h5",
                                          "generation-00000012.s99999999999.h5",
                                          "generation--0000012.s003.h5",
                                          "generation-00000012.manifestx",
                                          "generation-00000012.manifest.s002.tmp",
                                          ".generation-00000012.s003.h5",
                                          "generation-00000012.s003.h5.tmp",
                                          "series.h5",
                                          ".series.h5.tmp"};
    int64_t generation = 0;
    int server = 0;
    bool replica = false;
    qr_generation_file_kind kind = QR_FILE_DATA;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        assert_true(qr_generation_parse_name(ours[i].name, &generation, &server, &replica, &kind));
        assert_true(generation == ours[i].generation && server == ours[i].server && replica == ours[i].replica);
        assert_int_equal(kind, ours[i].kind);
    }
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (qr_generation_parse_name(foreign[i], &generation, &server, &replica, &kind)) {
            fail_msg("'%s' was taken for one of ours", foreign[i]);
        }
    }
    char long_name[300] = ".generation-00000012.manifest.";
    memset(long_name + strlen(long_name), 'x', 260);
    memcpy(long_name + 290, ".tmp", 5);
    assert_false(qr_generation_parse_name(long_name, &generation, &server, &replica, &kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_read_from_outside),
        cmocka_unit_test(test_many_pieces), cmocka_unit_test(test_refuses_what_does_not_fit),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
