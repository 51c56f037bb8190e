/* Checkpoints on the I/O server: cuts, drains, what is kept, and when slots come back. */
#include "test_checkpoint_fixture.h"

#include <hdf5.h>

enum {
    VOTES_PAGES = (SITE_AGENTS + SITE_VOTES - 1) / SITE_VOTES,
    STATE_PAGES = (SITE_AGENTS + SITE_STATE - 1) / SITE_STATE
};
enum { ALL_PAGES = SITE_QUEUES * (VOTES_PAGES + STATE_PAGES) };

static void test_cut(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.incremental = false;
    site_start(s);
    for (int64_t generation = 1; generation <= 2; generation++) {
        site_cut(s, generation, QR_TIER_NVME);
        assert_int_equal(s->post.seal.pages, ALL_PAGES);
        assert_int_equal(s->post.seal.written_pages, ALL_PAGES);
        assert_int_equal(s->post.pages_left, 0);
        assert_int_equal(s->post.raw_bytes, generation * SITE_QUEUES * SITE_AGENTS * (1 + SITE_DIM * 4));
        assert_true(s->post.seal.stored_bytes > 0);
        assert_int_equal(s->post.stored_bytes, generation * s->post.seal.stored_bytes);
        assert_true(s->post.compress_s > 0 && s->post.write_s > 0 && s->post.wall_s > 0);
        site_verify_tier(s, QR_TIER_NVME, generation);
        assert_int_equal(site_count(s, 0, QR_TIER_NVME), 3 * (int)generation);
    }
    assert_int_equal(s->post.pages_taken_over, 0);
    assert_int_equal(site_board(s, 0).pages_in_flight, 0);
    site_remove(s);
}

static void test_two_slots_will_do(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->n_slots = 2;
    site_start(s);
    for (int64_t generation = 1; generation <= 3; generation++) {
        site_cut(s, generation, QR_TIER_SSD);
        s->version[0][1][QR_PAGE_STATE][5]++;
    }
    site_verify_tier(s, QR_TIER_SSD, 3);
    site_remove(s);
}

static bool first_file_gone(site *s)
{
    return !site_has(s, 0, QR_TIER_NVME, 1, ".s000.h5");
}

/* Only pages that changed are written; when less than half of a file is in use, its pages are written anew. */
static void test_incremental(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    s->version[0][0][QR_PAGE_VOTES][3]++;
    s->version[0][1][QR_PAGE_STATE][0]++;
    s->version[0][1][QR_PAGE_STATE][STATE_PAGES - 1]++;
    site_cut(s, 2, QR_TIER_NVME);
    assert_int_equal(s->post.seal.written_pages, 3);
    assert_int_equal(s->post.pages_taken_over, ALL_PAGES - 3);
    site_verify_tier(s, QR_TIER_NVME, 2);
    site_cut(s, 3, QR_TIER_NVME);
    assert_int_equal(s->post.seal.written_pages, 0);
    site_verify_tier(s, QR_TIER_NVME, 3);
    for (int p = 0; p < STATE_PAGES; p++) {
        s->version[0][0][QR_PAGE_STATE][p]++;
        s->version[0][1][QR_PAGE_STATE][p] += p % 4 == 0;
    }
    site_cut(s, 4, QR_TIER_NVME);
    assert_int_equal(s->post.seal.written_pages, STATE_PAGES + (STATE_PAGES + 3) / 4);
    /* Of the first generation's file less than half is in use: what is left there is written again, once. */
    site_cut(s, 5, QR_TIER_NVME);
    assert_true(s->post.seal.written_pages > STATE_PAGES / 2 && s->post.seal.written_pages < STATE_PAGES);
    site_cut(s, 6, QR_TIER_NVME);
    assert_int_equal(s->post.seal.written_pages, 0);
    site_verify_tier(s, QR_TIER_NVME, 6);
    site_until(s, first_file_gone);
    site_remove(s);
}

/* One tier after another, each with its own compression; what has not changed there is not written again. */
static void test_drain(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    for (int64_t generation = 1; generation <= 3; generation++) {
        site_cut(s, generation, QR_TIER_NVME);
        site_drain(s, generation, QR_TIER_NVME, QR_TIER_SSD);
        assert_int_equal(s->post.seal.written_pages, generation == 1 ? ALL_PAGES : 2);
        site_verify_tier(s, QR_TIER_SSD, generation);
        site_drain(s, generation, QR_TIER_SSD, QR_TIER_HDD);
        assert_int_equal(s->post.seal.written_pages, generation == 1 ? ALL_PAGES : 2);
        site_verify_tier(s, QR_TIER_HDD, generation);
        s->version[0][0][QR_PAGE_VOTES][1]++;
        s->version[0][1][QR_PAGE_STATE][7]++;
    }
    qr_checkpoint_post post = site_board(s, 0);
    for (int t = 1; t < QR_N_TIERS; t++) {
        assert_int_equal(post.tiers[t].seal.content_hash.low, post.tiers[0].seal.content_hash.low);
        assert_int_equal(post.tiers[t].raw_bytes, post.tiers[0].raw_bytes);
        assert_true(post.tiers[t].compress_s > 0);
    }
    site_remove(s);
}

static bool five_retired(site *s)
{
    return site_board(s, 0).tiers[QR_TIER_NVME].retired >= 4 && !site_has(s, 0, QR_TIER_NVME, 4, ".s000.index");
}

static bool six_retired(site *s)
{
    return site_board(s, 0).tiers[QR_TIER_NVME].retired == 6;
}

/* Old generations go, but for files that the newer ones' pages lie in. */
static void test_retire_keeps_what_is_referred_to(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    for (int64_t generation = 1; generation <= 6; generation++) {
        site_cut(s, generation, QR_TIER_NVME);
        s->version[0][0][QR_PAGE_VOTES][0]++;
    }
    site_until(s, five_retired);
    for (int64_t generation = 1; generation <= 6; generation++) {
        bool kept = generation > 4;
        assert_int_equal(site_has(s, 0, QR_TIER_NVME, generation, ".manifest"), kept);
        assert_int_equal(site_has(s, 0, QR_TIER_NVME, generation, ".s000.index"), kept);
        assert_int_equal(site_has(s, 0, QR_TIER_NVME, generation, ".s000.h5"), kept || generation == 1);
    }
    site_verify_tier(s, QR_TIER_NVME, 6);
    for (int64_t generation = 7; generation <= 8; generation++) {
        for (int q = 0; q < SITE_QUEUES; q++) {
            for (int p = 0; p < SITE_PAGES; p++) {
                s->version[0][q][QR_PAGE_VOTES][p]++;
                s->version[0][q][QR_PAGE_STATE][p]++;
            }
        }
        assert_true(site_has(s, 0, QR_TIER_NVME, 1, ".s000.h5"));
        site_cut(s, generation, QR_TIER_NVME);
        assert_int_equal(s->post.seal.written_pages, ALL_PAGES);
    }
    site_until(s, first_file_gone);
    site_until(s, six_retired);
    site_verify_tier(s, QR_TIER_NVME, 8);
    site_remove(s);
}

/* What an earlier run left, of other servers too, is retired with the rest. */
static void test_earlier_runs_are_retired(void **state)
{
    (void)state;
    site *s = site_create(2);
    for (int i = 0; i < 2; i++) {
        for (int t = 0; t < QR_N_TIERS; t++) {
            s->servers[i].config.tiers[t].directory = s->servers[0].directories[t]; /* one for both */
        }
    }
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    site_cut(s, 2, QR_TIER_NVME);
    site_verify_tier(s, QR_TIER_NVME, 2);
    site_stop(s, 0);
    site_stop(s, 1);
    s->n_servers = 1;
    s->servers[0].config.n_servers = s->servers[0].io.n_servers = 1;
    site_start(s);
    site_cut(s, 3, QR_TIER_NVME);
    site_cut(s, 4, QR_TIER_NVME);
    site_until(s, first_file_gone);
    site_stop(s, 0);
    assert_int_equal(site_count(s, 0, QR_TIER_NVME), 6);
    site_verify_tier(s, QR_TIER_NVME, 4);
    site_remove(s);
}

/* What is asked of a tier that is still busy with something older. */
static void test_newer_cut_takes_the_tier(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_begin(s, 1, QR_TIER_NVME);
    assert_true(site_page(s, 1, QR_TIER_NVME, 0, 0, QR_PAGE_STATE, 3, SITE_WAIT_S));
    site_begin(s, 2, QR_TIER_NVME);
    site_send_pages(s, 1, QR_TIER_NVME); /* stale: their slots come back */
    site_send_pages(s, 2, QR_TIER_NVME);
    site_begin(s, 1, QR_TIER_NVME); /* stale as well */
    site_expect(s, QR_TIER_NVME, 2, QR_CUT_NONE, QR_CUT_READY);
    site_commit(s, 2, QR_TIER_NVME);
    for (int q = 0; q < SITE_QUEUES; q++) {
        assert_int_equal(qr_queue_drain(&s->servers[0].ends[q], SITE_WAIT_S), QR_OK);
    }
    site_verify_tier(s, QR_TIER_NVME, 2);
    assert_false(site_has(s, 0, QR_TIER_NVME, 1, ".s000.h5"));
    site_remove(s);
}

static bool second_gone(site *s)
{
    return !site_has(s, 0, QR_TIER_NVME, 2, ".s000.h5") && !site_has(s, 0, QR_TIER_NVME, 2, ".manifest");
}

/* Before it is committed, and after (another server may have failed). */
static void test_abandon(void **state)
{
    (void)state;
    for (int committed = 0; committed < 2; committed++) {
        site *s = site_create(1);
        site_start(s);
        site_cut(s, 1, QR_TIER_NVME);
        s->version[0][0][QR_PAGE_STATE][0]++;
        site_begin(s, 2, QR_TIER_NVME);
        site_send_pages(s, 2, QR_TIER_NVME);
        site_expect(s, QR_TIER_NVME, 2, QR_CUT_NONE, QR_CUT_READY);
        if (committed) {
            site_commit(s, 2, QR_TIER_NVME);
        }
        site_abandon(s, 2, QR_TIER_NVME);
        site_expect(s, QR_TIER_NVME, 2, committed ? QR_CUT_COMMITTED : QR_CUT_READY, QR_CUT_NONE);
        site_until(s, second_gone);
        site_verify_tier(s, QR_TIER_NVME, 1);
        s->version[0][0][QR_PAGE_STATE][1]++;
        site_cut(s, 3, QR_TIER_NVME);
        assert_int_equal(s->post.seal.written_pages, 2); /* compared with the first */
        site_verify_tier(s, QR_TIER_NVME, 3);
        site_remove(s);
    }
}

static void test_jobs_that_do_not_fit(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_begin(s, 1, QR_TIER_NVME);
    qr_job page = {.kind = QR_JOB_CUT_PAGE, .first = 5, .count = 3, .bytes = 3, .arguments = {1, QR_TIER_NVME, 0}};
    assert_int_equal(qr_queue_wait_slot(&s->servers[0].ends[0], SITE_WAIT_S, &page.slot, NULL), QR_OK);
    assert_int_equal(qr_queue_submit(&s->servers[0].ends[0], &page, SITE_WAIT_S), QR_OK);
    site_expect(s, QR_TIER_NVME, 1, QR_CUT_NONE, QR_CUT_FAILED);
    assert_int_equal(s->post.status, QR_INTERNAL);
    site_begin(s, 2, QR_TIER_NVME);
    site_job(s, 0, 0, (qr_job){.kind = QR_JOB_CUT_COMMIT, .flags = 1, .arguments = {2, QR_TIER_NVME}});
    site_expect(s, QR_TIER_NVME, 2, QR_CUT_NONE, QR_CUT_FAILED);
    assert_non_null(strstr(s->post.message, "before it is ready"));
    site_start_drain(s, 3, QR_TIER_NVME, QR_TIER_SSD);
    site_expect(s, QR_TIER_SSD, 3, QR_CUT_NONE, QR_CUT_FAILED);
    assert_non_null(strstr(s->post.message, "it is not on nvme"));
    site_start_drain(s, 4, 77, QR_TIER_SSD);
    site_expect(s, QR_TIER_SSD, 4, QR_CUT_NONE, QR_CUT_FAILED);
    site_job(s, 0, 0, (qr_job){.kind = QR_JOB_CUT_ABANDON, .arguments = {5, 99}});
    site_job(s, 0, 0, (qr_job){.kind = QR_JOB_CUT_PAGE, .arguments = {5, -1}});
    site_cut(s, 6, QR_TIER_NVME);
    site_verify_tier(s, QR_TIER_NVME, 6);
    site_remove(s);
}

static void test_tier_without_directory(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.tiers[QR_TIER_SSD].directory = "";
    site_start(s);
    site_begin(s, 1, QR_TIER_SSD);
    site_send_pages(s, 1, QR_TIER_SSD);
    site_expect(s, QR_TIER_SSD, 1, QR_CUT_NONE, QR_CUT_FAILED);
    assert_string_equal(s->post.message, "tier ssd has no directory");
    site_remove(s);
}

/* Rows sent before the cut are on disk when it is ready. */
static void test_results_first(void **state)
{
    (void)state;
    char path[160];
    site *s = site_create(1);
    site_start(s);
    qr_queue *end = &s->servers[0].ends[0];
    site_job(s, 0, 0, (qr_job){.kind = QR_JOB_OPEN});
    for (int64_t generation = 1; generation <= 2; generation++) {
        qr_job rows = {.kind = QR_JOB_SERIES, .count = 3, .bytes = 3 * qr_series_row_bytes(3)};
        assert_int_equal(qr_queue_wait_slot(end, SITE_WAIT_S, &rows.slot, NULL), QR_OK);
        memset(qr_queue_slot(end, rows.slot), 0, (size_t)rows.bytes);
        assert_int_equal(qr_queue_submit(end, &rows, SITE_WAIT_S), QR_OK);
        site_begin(s, generation, QR_TIER_NVME);
        site_send_pages(s, generation, QR_TIER_NVME);
        site_expect(s, QR_TIER_NVME, generation, QR_CUT_NONE, QR_CUT_READY);
        snprintf(path, sizeof path, "%s/series.h5", s->servers[0].results);
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t dataset = H5Dopen2(file, "/series/step", H5P_DEFAULT);
        hid_t space = H5Dget_space(dataset);
        assert_int_equal(H5Sget_simple_extent_npoints(space), 3 * generation);
        H5Sclose(space);
        H5Dclose(dataset);
        H5Fclose(file);
    }
    site_remove(s);
}

/* The disk stands still: 64 packed pages are kept in memory, after that slots stay taken; then all goes on. */
static void test_back_pressure(void **state)
{
    (void)state;
    enum { ROOMS = 64, SLOTS = 2 };
    site *s = site_create(1);
    s->n_slots = SLOTS;
    assert_int_equal(qr_fault_set("checkpoint.begin:hang"), QR_OK);
    site_start(s);
    site_begin(s, 1, QR_TIER_NVME);
    int sent = 0;
    while (site_page(s, 1, QR_TIER_NVME, 0, sent % 2, QR_PAGE_STATE, sent / 2, 0.5)) {
        sent++;
        assert_true(sent <= ROOMS + SITE_QUEUES * SLOTS);
    }
    assert_true(sent >= ROOMS + SLOTS);
    qr_checkpoint_post post = site_board(s, 0);
    assert_int_equal(post.pages_in_flight, sent - ROOMS);
    assert_int_equal(post.tiers[QR_TIER_NVME].pages_left, ALL_PAGES);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    for (int p = sent; p < 2 * STATE_PAGES; p++) {
        assert_true(site_page(s, 1, QR_TIER_NVME, 0, p % 2, QR_PAGE_STATE, p / 2, SITE_WAIT_S));
    }
    for (int p = 0; p < 2 * VOTES_PAGES; p++) {
        assert_true(site_page(s, 1, QR_TIER_NVME, 0, p % 2, QR_PAGE_VOTES, p / 2, SITE_WAIT_S));
    }
    site_expect(s, QR_TIER_NVME, 1, QR_CUT_NONE, QR_CUT_READY);
    site_commit(s, 1, QR_TIER_NVME);
    site_verify_tier(s, QR_TIER_NVME, 1);
    site_remove(s);
}

/* The end of a run comes in the middle of a cut. */
static void test_end_in_mid_cut(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    site_start_drain(s, 1, QR_TIER_NVME, QR_TIER_HDD);
    site_begin(s, 2, QR_TIER_NVME);
    for (int p = 0; p < 5; p++) {
        assert_true(site_page(s, 2, QR_TIER_NVME, 0, 0, QR_PAGE_STATE, p, SITE_WAIT_S));
    }
    site_stop(s, 0);
    site_verify_tier(s, QR_TIER_NVME, 1);
    assert_int_equal(site_count(s, 0, QR_TIER_NVME), 3);
    assert_false(site_has(s, 0, QR_TIER_HDD, 1, ".manifest"));
    assert_false(qr_io_must_exit_fast());
    site_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_two_slots_will_do),
        cmocka_unit_test(test_incremental),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_retire_keeps_what_is_referred_to),
        cmocka_unit_test(test_earlier_runs_are_retired),
        cmocka_unit_test(test_newer_cut_takes_the_tier),
        cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_jobs_that_do_not_fit),
        cmocka_unit_test(test_tier_without_directory),
        cmocka_unit_test(test_results_first),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_end_in_mid_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
