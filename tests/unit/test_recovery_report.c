/* What `quorate info` tells of checkpoints, and what --repair makes of damaged ones. */
#include "test_generation_damage.h"

#include "io/recovery.h"

enum { TEXT_BYTES = 30000 };

/* Sizes and ratios depend on the compressors' versions, the folder on the moment. */
static void mask(const crowd *c, char *text)
{
    static char masked[TEXT_BYTES];
    size_t n = 0;
    size_t root = strlen(c->root);
    for (const char *at = text; *at != '\0' && n + 8 < sizeof masked;) {
        size_t digits = strspn(at, "0123456789.");
        const char *after = at + digits;
        bool size = digits > 0 && (strncmp(after, " B,", 3) == 0 || strncmp(after, " KiB", 4) == 0);
        bool ratio = digits > 0 && n >= 6 && memcmp(masked + n - 6, "ratio ", 6) == 0;
        if (strncmp(at, c->root, root) == 0) {
            n += (size_t)snprintf(masked + n, 8, "ROOT");
            at += root;
        } else if (size || ratio) {
            n += (size_t)snprintf(masked + n, 8, ratio ? "R" : "SIZE");
            at = ratio ? after : after + strcspn(after, "B") + 1;
        } else {
            size_t plain = digits > 0 ? digits : 1;
            memcpy(masked + n, at, plain);
            n += plain;
            at += plain;
        }
    }
    masked[n] = '\0';
    snprintf(text, TEXT_BYTES, "%s", masked);
}

/* The report on the first n_tiers tiers, masked. */
static qr_status report(const crowd *c, int n_tiers, bool repair, char said[TEXT_BYTES])
{
    const char *paths[CROWD_TIERS];
    caught k;
    for (int t = 0; t < n_tiers; t++) {
        paths[t] = c->directories[t];
    }
    catch (c, &k, STDOUT_FILENO);
    qr_status status = qr_info_places(paths, n_tiers, repair);
    release(&k, STDOUT_FILENO, said, TEXT_BYTES);
    mask(c, said);
    return status;
}

static void expect_text(const char *said, const char *wanted)
{
    if (strcmp(said, wanted) != 0) {
        fail_msg("said:\n%s\nwanted:\n%s", said, wanted);
    }
}

static void expect_message(const char *part)
{
    if (strstr(qr_error_message(), part) == NULL || strchr(qr_error_message(), '\n') != NULL) {
        fail_msg("message: %s", qr_error_message());
    }
}

/* Copies are whole, all data right, and nothing is there that was not to be. */
static void expect_whole(crowd *c, int n_tiers, int64_t generation)
{
    const char *directories[CROWD_TIERS];
    char said[TEXT_BYTES];
    qr_recovery *recovery = NULL;
    qr_page_scratch scratch = {0};
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    if (report(c, n_tiers, false, said) != QR_OK) {
        fail_msg("%s\n%s", qr_error_message(), said);
    }
    assert_null(strstr(said, "damaged"));
    for (int t = 0; t < n_tiers; t++) {
        directories[0] = c->directories[t];
        assert_int_equal(qr_recovery_scan(directories, 1, &recovery), QR_OK);
        for (int s = 0; s < CROWD_SERVERS; s++) {
            qr_share *share = NULL;
            size_t n = 0;
            assert_int_equal(qr_share_open(recovery, generation, s, &share), QR_OK);
            const qr_page_record *pages = qr_share_pages(share, &n);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(qr_share_read_page(share, i, &scratch, raw), QR_OK);
                assert_true(crowd_is(c, &pages[i], generation, raw));
            }
            qr_share_close(share);
        }
        qr_recovery_destroy(recovery);
    }
    free(scratch.bytes);
    free(raw);
}

static void test_report(void **state)
{
    (void)state;
    crowd c;
    char said[TEXT_BYTES];
    crowd_start(&c);
    crowd_write(&c, 0, 1, true);
    crowd_write(&c, 0, 2, true);
    crowd_write(&c, 1, 1, false);
    assert_int_equal(report(&c, 2, false, said), QR_OK);
    expect_text(said, "generation 2: step 100, 5003 agents, SIZE, run 0123456789abcdef0123456789abcdef\n"
                      "  nvme  ROOT/t0\n"
                      "    lz4-1, SIZE, ratio R, 3 of 52 pages taken over\n"
                      "    2 of 2 shares here, 2 whole; 2 replicas, 2 whole\n"
                      "  all of it can be read\n"
                      "generation 1: step 50, 5003 agents, SIZE, run 0123456789abcdef0123456789abcdef\n"
                      "  nvme  ROOT/t0\n"
                      "    lz4-1, SIZE, ratio R, 0 of 52 pages taken over\n"
                      "    2 of 2 shares here, 2 whole; 2 replicas, 2 whole\n"
                      "  ssd  ROOT/t1\n"
                      "    zstd-3, SIZE, ratio R, 0 of 52 pages taken over\n"
                      "    2 of 2 shares here, 2 whole\n"
                      "  all of it can be read\n");
    damage_page(&c, 0, 2, 0, false, 3);
    remove_file(&c, 0, 2, 1, true, "index");
    assert_int_equal(report(&c, 1, false, said), QR_DATA);
    expect_message("2 copies or manifests are damaged or missing, the first: generation 2, share of server 0: ");
    expect_message("/t0/generation-00000002.s000.h5: page 0 of part 0's state");
    expect_message("quorate info DIR... --repair makes it again where a good one is in the directories named; a restart "
                   "goes on from generation 2, step ");
    assert_non_null(strstr(said, "    2 of 2 shares here, 1 whole; 2 replicas, 1 whole\n"
                                 "    server 0: damaged, 1 of 26 pages: ROOT/t0/generation-00000002.s000.h5: page 0 of "
                                 "part 0's state (agents 0 to 127): "));
    assert_non_null(strstr(said, "    server 1, replica: damaged: ROOT/t0/generation-00000002.s001.replica.index: "
                                 "cannot be read: No such file or directory\n"
                                 "  all of it can be read\n"));
    /* Looking changes nothing. */
    assert_false(qr_generation_is_marked(c.directories[0], 2, 0, false));
    damage_page(&c, 0, 2, 0, true, 3);
    assert_int_equal(report(&c, 1, false, said), QR_DATA);
    expect_message("generation 2 is beyond use");
    expect_message("If another tier or node has one, name its directory too");
    expect_message("Otherwise a restart goes on from generation 1, step ");
    assert_non_null(strstr(said, "  beyond use: generation 2, share of server 0: no copy of a page is whole: "));
    damage_page(&c, 0, 2, 0, true, 3);
    damage_page(&c, 0, 2, 0, true, 4);
    assert_int_equal(report(&c, 1, false, said), QR_DATA);
    assert_non_null(strstr(said, "  all of it can be read, each page from one of its copies\n"));
    crowd_remove(&c);
}

/* Each kind of damage, repaired from a replica, from another tier, or from the copy itself. */
static void test_repair(void **state)
{
    (void)state;
    for (int damage = 0; damage < 10; damage++) {
        crowd c;
        char said[TEXT_BYTES];
        struct stat info;
        char path[160];
        bool replicas = damage % 2 == 0;
        crowd_start(&c);
        c.n_agents = 5120; /* pages of whole blocks, most of which are taken over */
        c.page_agents_state = CROWD_BLOCK;
        for (int64_t generation = 1; generation <= 3; generation++) {
            crowd_write(&c, 0, generation, replicas);
            crowd_write(&c, 1, generation, false);
        }
        crowd_path(&c, 0, 2, 0, false, "h5", path);
        assert_int_equal(stat(path, &info), 0);
        switch (damage) {
        case 0:
        case 1: damage_page(&c, 0, 2, 0, false, 3); break;
        case 2:
        case 3: flip(&c, 0, 2, 0, false, "index", 300); break;
        case 4: remove_file(&c, 0, 2, 0, false, "h5"); break;
        case 5:
            remove_file(&c, 0, 2, 0, false, "h5");
            remove_file(&c, 0, 2, 0, false, "index");
            break;
        case 6: flip(&c, 0, 2, 0, false, "h5", 16); break; /* HDF5's superblock */
        case 7: assert_int_equal(truncate(path, info.st_size / 2), 0); break;
        case 8: flip(&c, 0, 2, -1, false, "", 100); break;
        default: assert_int_equal(truncate(path, 0), 0); break;
        }
        assert_int_equal(report(&c, 2, false, said), QR_DATA);
        if (damage < 8) {
            assert_int_equal(qr_generation_mark_bad(c.directories[0], 2, 0, false, "a test"), QR_OK);
        }
        if (report(&c, 2, true, said) != QR_OK) {
            fail_msg("damage %d: %s\n%s", damage, qr_error_message(), said);
        }
        assert_non_null(strstr(said, "made again: ROOT/t0/generation-00000002."));
        assert_false(qr_generation_is_marked(c.directories[0], 2, 0, false));
        for (int64_t generation = 1; generation <= 3; generation++) {
            expect_whole(&c, 2, generation);
        }
        crowd_remove(&c);
    }
}

/* HDF5's own structures damaged in the only copy: its pages are the source. No second copy is left behind. */
static void test_repair_from_itself(void **state)
{
    (void)state;
    crowd c;
    char said[TEXT_BYTES];
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    flip(&c, 0, 1, 0, false, "h5", 20);
    assert_int_equal(report(&c, 1, false, said), QR_DATA);
    assert_int_equal(report(&c, 1, true, said), QR_OK);
    expect_whole(&c, 1, 1);
    assert_int_equal(report(&c, 1, true, said), QR_OK);
    assert_memory_equal(said, "nothing to repair\n", 18);
    assert_false(exists(&c, 0, 1, 0, true, "h5") || exists(&c, 0, 1, 0, true, "index"));
    crowd_remove(&c);
}

/* What has no source stays as it is, and the rest is repaired. */
static void test_beyond_repair(void **state)
{
    (void)state;
    crowd c;
    char said[TEXT_BYTES];
    crowd_start(&c);
    c.incremental = false;
    crowd_write(&c, 0, 1, true);
    crowd_write(&c, 0, 2, false);
    damage_page(&c, 0, 2, 0, false, 3);
    damage_page(&c, 0, 1, 1, true, 3);
    assert_int_equal(report(&c, 1, true, said), QR_DATA);
    expect_message("generation 2 is beyond use");
    expect_message("Otherwise a restart goes on from generation 1, step ");
    assert_non_null(strstr(said, "made again: ROOT/t0/generation-00000001.s001.replica.h5\n"));
    assert_true(exists(&c, 0, 2, 0, false, "h5") && exists(&c, 0, 2, 0, false, "index"));
    assert_int_equal(report(&c, 1, true, said), QR_DATA);
    assert_non_null(strstr(said, "nothing that could be made again\n"));
    crowd_remove(&c);
}

static void test_places(void **state)
{
    (void)state;
    crowd c;
    char said[TEXT_BYTES];
    char inner[200];
    caught k;
    crowd_start(&c);
    assert_int_equal(report(&c, 2, false, said), QR_USAGE);
    expect_message("no generation was committed there");
    assert_int_equal(report(&c, 1, false, said), QR_USAGE);
    expect_message("holds no results");
    assert_int_equal(report(&c, 1, true, said), QR_USAGE);
    expect_message("holds no checkpoints to repair");
    /* In a folder of a results directory. */
    snprintf(inner, sizeof inner, "%s/checkpoints", c.directories[0]);
    assert_int_equal(mkdir(inner, 0777), 0);
    crowd within = c;
    snprintf(within.directories[0], sizeof within.directories[0], "%s/t0/checkpoints", c.root);
    crowd_write(&within, 0, 1, false);
    assert_int_equal(report(&c, 1, false, said), QR_OK);
    assert_non_null(strstr(said, "  nvme  ROOT/t0/checkpoints\n"));
    assert_int_equal(report(&c, 2, false, said), QR_OK);
    /* Files and directories that are not there. */
    const char *paths[] = {c.directories[0], "/nowhere/at/all"};
    assert_int_equal(qr_info_places(paths, 2, false), QR_USAGE);
    expect_message("/nowhere/at/all: cannot be read");
    char file[200];
    crowd_path(&within, 0, 1, 0, false, "index", file);
    paths[1] = file;
    assert_int_equal(qr_info_places(paths, 2, false), QR_USAGE);
    assert_int_equal(qr_info_places(paths + 1, 1, true), QR_USAGE);
    expect_message("not a directory");
    /* Only a damaged manifest. */
    flip(&within, 0, 1, -1, false, "", 50);
    catch (&c, &k, STDOUT_FILENO);
    qr_status status = qr_info_places(paths, 1, false);
    release(&k, STDOUT_FILENO, said, sizeof said);
    assert_int_equal(status, QR_DATA);
    expect_message("its seal is wrong");
    crowd_remove(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),        cmocka_unit_test(test_repair), cmocka_unit_test(test_repair_from_itself),
        cmocka_unit_test(test_beyond_repair), cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
