/* Jobs of several producers that overtake each other, and jobs that come while the tier is still busy with something
 * else: what was abandoned is not built upon, and the board speaks of the newest. */
#include "test_checkpoint_fixture.h"

enum {
    VOTES_PAGES = (SITE_AGENTS + SITE_VOTES - 1) / SITE_VOTES,
    STATE_PAGES = (SITE_AGENTS + SITE_STATE - 1) / SITE_STATE
};
enum { ALL_PAGES = SITE_QUEUES * (VOTES_PAGES + STATE_PAGES), EARLY_PAGES = 3 };

static void begin_one(site *s, int queue, int64_t generation, int tier)
{
    site_job(s, 0, queue,
             (qr_job){.kind = QR_JOB_CUT_BEGIN,
                      .step = 100 * generation,
                      .first = (int64_t)queue * SITE_AGENTS,
                      .count = SITE_AGENTS,
                      .flags = queue,
                      .arguments = {generation, tier, VOTES_PAGES + STATE_PAGES}});
}

/* Until the server has taken what was sent to it. */
static void wait_for(site *s, int tier, int64_t generation, qr_cut_state wanted)
{
    qr_awake waited = {0};
    for (;;) {
        qr_tier_post post = site_board(s, 0).tiers[tier];
        if (post.generation == generation && post.state == (int32_t)wanted) {
            return;
        }
        assert_true(qr_awake_look(&waited) < SITE_WAIT_S);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

/* Three generations, of which the first is being removed, for as long as the fault lasts. */
static site *site_that_retires(void)
{
    site *s = site_create(1);
    assert_int_equal(qr_fault_set("checkpoint.retire=nvme:hang"), QR_OK);
    site_start(s);
    for (int64_t generation = 1; generation <= 3; generation++) {
        site_cut(s, generation, QR_TIER_NVME);
        s->version[0][0][QR_PAGE_STATE][generation]++;
        s->version[0][1][QR_PAGE_STATE][generation]++;
    }
    return s;
}

static void sleep_awake(double seconds)
{
    qr_awake waited = {0};
    while (qr_awake_look(&waited) < seconds) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

/* The disk has not yet got to removing what was abandoned when the next cut begins. */
static void test_what_is_abandoned_is_not_built_upon(void **state)
{
    (void)state;
    site *s = site_that_retires();
    sleep_awake(0.1);
    site_abandon(s, 3, QR_TIER_NVME);
    site_begin(s, 4, QR_TIER_NVME);
    wait_for(s, QR_TIER_NVME, 4, QR_CUT_WRITING);
    assert_true(site_has(s, 0, QR_TIER_NVME, 3, ".manifest"));
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_send_pages(s, 4, QR_TIER_NVME);
    site_expect(s, QR_TIER_NVME, 4, QR_CUT_NONE, QR_CUT_READY);
    assert_int_equal(s->post.seal.written_pages, ALL_PAGES);
    site_commit(s, 4, QR_TIER_NVME);
    assert_false(site_has(s, 0, QR_TIER_NVME, 3, ".s000.h5"));
    site_verify_tier(s, QR_TIER_NVME, 4);
    site_remove(s);
}

/* Removing many files may take a while, in which nothing comes back: the disk does not hang for that. */
static void test_long_removals_do_not_fail_the_tier(void **state)
{
    (void)state;
    site *s = site_that_retires();
    sleep_awake(5.5);
    site_begin(s, 4, QR_TIER_NVME);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_send_pages(s, 4, QR_TIER_NVME);
    site_expect(s, QR_TIER_NVME, 4, QR_CUT_NONE, QR_CUT_READY);
    site_remove(s);
}

/* One producer's begin comes before another one's abandonment of the generation before, which this server had
 * committed: that is not built upon, and the new one is whole. */
static void test_a_begin_overtakes_an_abandonment(void **state)
{
    (void)state;
    site *s = site_create(1);
    site_start(s);
    site_cut(s, 1, QR_TIER_NVME);
    for (int p = 0; p < EARLY_PAGES; p++) {
        s->version[0][1][QR_PAGE_STATE][p]++;
    }
    site_cut(s, 2, QR_TIER_NVME);
    memcpy(s->versions[3], s->version, sizeof s->version);
    begin_one(s, 1, 3, QR_TIER_NVME);
    for (int p = 0; p < EARLY_PAGES; p++) {
        assert_true(site_page(s, 3, QR_TIER_NVME, 0, 1, QR_PAGE_STATE, p, SITE_WAIT_S));
    }
    wait_for(s, QR_TIER_NVME, 3, QR_CUT_WRITING);
    sleep_awake(0.1); /* for the pages */
    site_abandon(s, 2, QR_TIER_NVME);
    begin_one(s, 0, 3, QR_TIER_NVME);
    for (int kind = 0; kind < SITE_KINDS; kind++) {
        for (int64_t p = 0; p < site_pages(kind); p++) {
            assert_true(site_page(s, 3, QR_TIER_NVME, 0, 0, kind, p, SITE_WAIT_S));
            assert_true((kind == QR_PAGE_STATE && p < EARLY_PAGES) ||
                        site_page(s, 3, QR_TIER_NVME, 0, 1, kind, p, SITE_WAIT_S));
        }
    }
    site_expect(s, QR_TIER_NVME, 3, QR_CUT_NONE, QR_CUT_READY);
    site_commit(s, 3, QR_TIER_NVME);
    assert_false(site_has(s, 0, QR_TIER_NVME, 2, ".manifest"));
    assert_false(site_has(s, 0, QR_TIER_NVME, 2, ".s000.h5"));
    site_verify_tier(s, QR_TIER_NVME, 3);
    site_remove(s);
}

/* The same on a tier that hangs: what the board says of the newer generation stays. */
static void test_the_board_speaks_of_the_newest(void **state)
{
    (void)state;
    site *s = site_create(1);
    s->servers[0].config.timeout_s = 0.3;
    assert_int_equal(qr_fault_set("checkpoint.begin=nvme:hang"), QR_OK);
    site_start(s);
    site_begin(s, 1, QR_TIER_NVME);
    site_expect(s, QR_TIER_NVME, 1, QR_CUT_NONE, QR_CUT_FAILED);
    begin_one(s, 1, 2, QR_TIER_NVME);
    wait_for(s, QR_TIER_NVME, 2, QR_CUT_FAILED);
    site_abandon(s, 1, QR_TIER_NVME);
    begin_one(s, 0, 2, QR_TIER_NVME);
    begin_one(s, 0, 3, QR_TIER_SSD);
    wait_for(s, QR_TIER_SSD, 3, QR_CUT_WRITING);
    qr_tier_post post = site_board(s, 0).tiers[QR_TIER_NVME];
    assert_int_equal(post.generation, 2);
    assert_int_equal(post.state, QR_CUT_FAILED);
    assert_non_null(strstr(post.message, "does not answer"));
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    site_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_abandoned_is_not_built_upon),
        cmocka_unit_test(test_long_removals_do_not_fail_the_tier),
        cmocka_unit_test(test_a_begin_overtakes_an_abandonment),
        cmocka_unit_test(test_the_board_speaks_of_the_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
