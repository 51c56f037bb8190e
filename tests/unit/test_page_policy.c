/* Decisions of the pager that need no pages: who leaves, how many, in which direction, what comes next, how long it
 * took. */
#include "page/links.h"
#include "page/policy.h"
#include "page/prefetch.h"

#include "base/permutation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static qr_page_table table_of(int64_t n_pages, int tier)
{
    qr_page_table table = {0};
    assert_int_equal(qr_page_table_create(n_pages, &table), QR_OK);
    for (int64_t page = 0; page < n_pages; page++) {
        qr_page_move(&table, page, tier);
    }
    return table;
}

static void the_oldest_leaves(void **state)
{
    (void)state;
    qr_page_table table = table_of(4, QR_MEMORY_CPU);
    assert_int_equal(qr_page_tier_count(&table, QR_MEMORY_CPU), 4);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_CPU, false), 0);
    qr_page_touch(&table, 0, 1.0);
    qr_page_touch(&table, 2, 2.0);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_CPU, false), 1);
    assert_int_equal(table.entries[2].accesses, 1);
    assert_true(table.entries[2].last_s == 2.0);
    qr_page_move(&table, 1, QR_MEMORY_NVME);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_CPU, false), 3);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_NVME, false), 1);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_HDD, true), -1);
    qr_page_move(&table, 3, QR_PAGE_NOWHERE);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_CPU, false), 0);
    assert_int_equal(qr_page_tier_count(&table, QR_MEMORY_CPU), 2);
    qr_page_table_clear(&table);
}

static void pages_that_are_held_stay(void **state)
{
    (void)state;
    static const uint16_t held[] = {QR_PAGE_PINNED, QR_PAGE_GETTING, QR_PAGE_ARRIVED, QR_PAGE_PUTTING, QR_PAGE_SINKING};
    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        qr_page_table table = table_of(3, QR_MEMORY_NVME);
        table.entries[0].flags = held[i];
        assert_int_equal(qr_page_victim(&table, QR_MEMORY_NVME, true), 1);
        table.entries[1].flags = table.entries[2].flags = held[i];
        assert_int_equal(qr_page_victim(&table, QR_MEMORY_NVME, true), -1);
        qr_page_table_clear(&table);
    }
}

static void pages_that_are_due_leave_last_the_last_first(void **state)
{
    (void)state;
    qr_page_table table = table_of(4, QR_MEMORY_GPU);
    for (int64_t page = 3; page >= 1; page--) { /* a sweep down will ask for 3, 2, 1 */
        qr_page_set_due(&table, page);
    }
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_GPU, true), 0);
    qr_page_move(&table, 0, QR_MEMORY_CPU);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_GPU, false), -1);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_GPU, true), 1);
    qr_page_move(&table, 1, QR_MEMORY_CPU); /* stays due */
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_GPU, true), 2);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_CPU, false), 0);
    qr_page_touch(&table, 3, 1.0);
    assert_int_equal(qr_page_victim(&table, QR_MEMORY_GPU, true), 3);
    assert_int_equal(qr_page_tier_count(&table, QR_MEMORY_GPU) + qr_page_tier_count(&table, QR_MEMORY_CPU), 4);
    qr_page_table_clear(&table);
}

/* Lists against a plain account of who is where, and since when. */
static void lists_keep_to_a_plain_account(void **state)
{
    (void)state;
    enum { PAGES = 17, TURNS = 20000 };
    int64_t order[PAGES], clock = 0;
    int tier[PAGES];
    bool due[PAGES] = {false};
    qr_page_table table = table_of(PAGES, QR_MEMORY_SSD);
    for (int page = 0; page < PAGES; page++) {
        order[page] = clock++;
        tier[page] = QR_MEMORY_SSD;
    }
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        uint64_t drawn = qr_mix64(turn);
        int page = (int)(drawn % PAGES);
        switch (drawn >> 32 & 3u) {
        case 0:
            qr_page_touch(&table, page, 0.0);
            due[page] = false;
            break;
        case 1:
            qr_page_set_due(&table, page);
            due[page] = true;
            break;
        default:
            tier[page] = (int)(drawn >> 40 & 3u);
            qr_page_move(&table, page, tier[page]);
            break;
        }
        order[page] = clock++;
        for (int t = 0; t < 4; t++) {
            int oldest = -1, last_due = -1, count = 0;
            for (int p = 0; p < PAGES; p++) {
                count += tier[p] == t;
                if (tier[p] == t && !due[p] && (oldest < 0 || order[p] < order[oldest])) {
                    oldest = p;
                }
                if (tier[p] == t && due[p] && (last_due < 0 || order[p] > order[last_due])) {
                    last_due = p;
                }
            }
            assert_int_equal(qr_page_tier_count(&table, t), count);
            assert_int_equal(qr_page_victim(&table, t, false), oldest);
            assert_int_equal(qr_page_victim(&table, t, true), oldest >= 0 ? oldest : last_due);
        }
    }
    qr_page_table_clear(&table);
}

static void watermarks_have_a_memory(void **state)
{
    (void)state;
    bool sinking = false;
    assert_int_equal(qr_policy_surplus(90, 100, 0.9, 0.6, &sinking), 0);
    assert_int_equal(qr_policy_surplus(91, 100, 0.9, 0.6, &sinking), 31);
    assert_int_equal(qr_policy_surplus(80, 100, 0.9, 0.6, &sinking), 20);
    assert_int_equal(qr_policy_surplus(60, 100, 0.9, 0.6, &sinking), 0);
    assert_int_equal(qr_policy_surplus(80, 100, 0.9, 0.6, &sinking), 0);
    /* As much as there is room for, and no more; a single page is not less than a share of one. */
    assert_int_equal(qr_policy_surplus(100, 100, 1, 1, &sinking), 0);
    assert_int_equal(qr_policy_surplus(103, 100, 1, 1, &sinking), 3);
    assert_int_equal(qr_policy_surplus(1, 1, 0.9, 0.6, &sinking), 0);
    assert_int_equal(qr_policy_surplus(2, 0, 0.9, 0.6, &sinking), 2);
    sinking = false;
    assert_int_equal(qr_policy_surplus(51, 100, 0.5, 0.8, &sinking), 1); /* low above high is high */
}

static void old_pages_sink_from_tiers_that_are_full_enough(void **state)
{
    (void)state;
    qr_page_table table = table_of(4, QR_MEMORY_SSD);
    const qr_memory_tier_config ssd = {.used = true, .pages = 8, .age_s = 10};
    for (int64_t page = 0; page < 4; page++) {
        qr_page_touch(&table, page, 100.0 + (double)page);
    }
    assert_int_equal(qr_policy_aged(&table, QR_MEMORY_SSD, &ssd, 0.25, 1000, 110.5), 0);
    assert_int_equal(qr_policy_aged(&table, QR_MEMORY_SSD, &ssd, 0.25, 1000, 109.5), -1);
    assert_int_equal(qr_policy_aged(&table, QR_MEMORY_SSD, &ssd, 0.25, 100, 110.5), -1); /* in one of the last sweeps */
    assert_int_equal(qr_policy_aged(&table, QR_MEMORY_SSD, &ssd, 0.5, 1000, 110.5), -1);
    qr_page_set_due(&table, 0);
    assert_int_equal(qr_policy_aged(&table, QR_MEMORY_SSD, &ssd, 0.25, 1000, 110.5), -1); /* 1 is not that old */
    qr_page_table_clear(&table);
}

static void room_is_looked_for_from_the_fastest_down(void **state)
{
    (void)state;
    qr_page_table table = table_of(3, QR_MEMORY_NVME);
    qr_memory_tier_config tiers[QR_N_MEMORY_TIERS] = {
        [QR_MEMORY_NVME] = {.used = true, .pages = 4}, [QR_MEMORY_HDD] = {.used = true, .pages = 2}};
    assert_int_equal(qr_policy_room(&table, tiers, QR_MEMORY_NVME), QR_MEMORY_NVME);
    assert_int_equal(qr_policy_room(&table, tiers, QR_MEMORY_SSD), QR_MEMORY_HDD);
    table.promised[QR_MEMORY_NVME] = 1;
    assert_int_equal(qr_policy_room(&table, tiers, QR_MEMORY_NVME), QR_MEMORY_HDD);
    qr_page_move(&table, 0, QR_MEMORY_HDD);
    qr_page_move(&table, 1, QR_MEMORY_HDD);
    assert_int_equal(qr_policy_room(&table, tiers, QR_MEMORY_SSD), -1);
    assert_int_equal(qr_policy_below(tiers, QR_MEMORY_GPU), QR_MEMORY_NVME);
    assert_int_equal(qr_policy_below(tiers, QR_MEMORY_NVME), QR_MEMORY_HDD);
    assert_int_equal(qr_policy_below(tiers, QR_MEMORY_HDD), -1);
    qr_page_table_clear(&table);
}

static void sweeps_turn(void **state)
{
    (void)state;
    qr_page_table table = table_of(4, QR_MEMORY_HDD);
    qr_sweep sweep = {0};
    qr_page_move(&table, 3, QR_MEMORY_CPU); /* begins where the first page is */
    qr_sweep_turn(&sweep, &table, QR_MEMORY_CPU);
    assert_false(sweep.up);
    qr_sweep_turn(&sweep, &table, QR_MEMORY_CPU);
    assert_true(sweep.up);
    qr_sweep_turn(&sweep, &table, QR_MEMORY_CPU);
    assert_false(sweep.up);
    sweep = (qr_sweep){.one_way = true};
    for (int i = 0; i < 3; i++) {
        qr_sweep_turn(&sweep, &table, QR_MEMORY_CPU);
        assert_true(sweep.up);
    }
    qr_page_table_clear(&table);
}

static void plans_fill_from_the_top(void **state)
{
    (void)state;
    qr_memory_tier_config tiers[QR_N_MEMORY_TIERS] = {[QR_MEMORY_GPU] = {.used = true, .pages = 10},
                                                      [QR_MEMORY_CPU] = {.used = true, .pages = 20},
                                                      [QR_MEMORY_SSD] = {.used = true, .pages = 50}};
    qr_page_plan plan = qr_page_plan_make(40, tiers, true);
    assert_true(plan.fits);
    assert_int_equal(plan.resident[QR_MEMORY_GPU], 10);
    assert_int_equal(plan.resident[QR_MEMORY_CPU], 20);
    assert_int_equal(plan.resident[QR_MEMORY_SSD], 10);
    assert_int_equal(plan.crossing[QR_MEMORY_GPU], 0);
    assert_int_equal(plan.crossing[QR_MEMORY_CPU], 20);
    assert_int_equal(plan.crossing[QR_MEMORY_NVME], 0);
    assert_int_equal(plan.crossing[QR_MEMORY_SSD], 10);
    plan = qr_page_plan_make(40, tiers, false);
    assert_int_equal(plan.resident[QR_MEMORY_GPU], 0);
    assert_int_equal(plan.resident[QR_MEMORY_CPU], 20);
    assert_int_equal(plan.crossing[QR_MEMORY_CPU], 0);
    assert_int_equal(plan.crossing[QR_MEMORY_SSD], 20);
    assert_false(qr_page_plan_make(81, tiers, true).fits);
    assert_false(qr_page_plan_make(71, tiers, false).fits);
    tiers[QR_MEMORY_SSD].used = false;
    assert_false(qr_page_plan_make(31, tiers, true).fits);
    assert_true(qr_page_plan_make(0, tiers, true).fits);
}

static void links_know_their_quantiles(void **state)
{
    (void)state;
    static qr_link link;
    memset(&link, 0, sizeof link);
    qr_link_counters counters = qr_link_read(&link, 5000);
    assert_true(counters.p50_us == 0 && counters.p99_us == 0 && counters.max_us == 0);
    for (int i = 1; i <= 1000; i++) {
        qr_link_start(&link, i);
        qr_link_end(&link, i, i + i * 1e-5, 100);
    }
    counters = qr_link_read(&link, 5000);
    assert_int_equal(counters.pages, 1000);
    assert_int_equal(counters.bytes, 100000);
    assert_true(counters.p50_us >= 5000 * 0.97 && counters.p50_us <= 5000 * 1.03);
    assert_true(counters.p99_us >= 9900 * 0.97 && counters.p99_us <= 10000.1);
    assert_true(counters.max_us > 9999 && counters.max_us < 10001);
    assert_true(counters.busy_s > 5.0 && counters.busy_s < 5.01); /* 10 us + 20 us + ... */
    /* Two at once count once. */
    double before = counters.busy_s;
    qr_link_start(&link, 2000);
    qr_link_start(&link, 2001);
    qr_link_end(&link, 2000, 2003, 1);
    qr_link_end(&link, 2001, 2004, 1);
    assert_true(qr_link_read(&link, 5000).busy_s - before > 3.999 && qr_link_read(&link, 5000).busy_s - before < 4.001);
    qr_link_start(&link, 3000);
    assert_true(qr_link_read(&link, 3010).busy_s - before > 13.999);
    qr_link_end(&link, 3000, 3010, 1);
    /* Less than a microsecond, and more than an hour. */
    qr_link_start(&link, 0);
    qr_link_end(&link, 0, 1e-9, 1);
    qr_link_start(&link, 0);
    qr_link_end(&link, 0, 1e5, 1);
    assert_true(qr_link_read(&link, 5000).max_us == 1e11);
}

/* Of latencies of any size the middle of the bucket is reported. */
static void quantiles_are_exact_to_a_part(void **state)
{
    (void)state;
    static qr_link link;
    for (double us = 0.02; us < 1e9; us *= 1.037) {
        memset(&link, 0, sizeof link);
        qr_link_start(&link, 0);
        qr_link_end(&link, 0, us * 1e-6, 1);
        qr_link_start(&link, 0);
        qr_link_end(&link, 0, us * 2e-6, 1);
        const qr_link_counters counters = qr_link_read(&link, 5000);
        if (fabs(counters.p50_us - us) > us / (2 * QR_LINK_PARTS) * 1.001) {
            fail_msg("p50 is %g us instead of %g us", counters.p50_us, us);
        }
        assert_true(counters.p99_us <= counters.max_us && fabs(counters.max_us - 2 * us) < 1e-9 * us);
    }
}

/* A page that is taken elsewhere, or stays, is not counted where it was meant to go. */
static void pages_count_where_they_went(void **state)
{
    (void)state;
    static qr_link meant, taken;
    memset(&meant, 0, sizeof meant);
    memset(&taken, 0, sizeof taken);
    qr_link_start(&meant, 1);
    qr_link_divert(&taken, &meant, 1, 3, 100);
    qr_link_start(&meant, 4);
    qr_link_cancel(&meant, 5);
    assert_true(qr_link_read(&meant, 9).pages == 0 && qr_link_read(&meant, 9).busy_s == 0);
    assert_true(qr_link_read(&taken, 9).pages == 1 && qr_link_read(&taken, 9).bytes == 100);
    assert_true(fabs(qr_link_read(&taken, 9).busy_s - 2) < 1e-9 && qr_link_read(&taken, 9).max_us == 2e6);
    /* Two at once count once, here too. */
    qr_link_start(&meant, 10);
    qr_link_start(&meant, 10);
    qr_link_divert(&taken, &meant, 10, 11, 100);
    qr_link_end(&meant, 10, 12, 100);
    qr_link_start(&meant, 10);
    qr_link_divert(&taken, &meant, 10, 13, 100);
    assert_true(fabs(qr_link_read(&taken, 19).busy_s - 5) < 1e-9);
    assert_true(qr_link_read(&meant, 19).pages == 1 && fabs(qr_link_read(&meant, 19).busy_s - 2) < 1e-9);
}

static void rows_of_pages_are_noticed(void **state)
{
    (void)state;
    qr_prefetch prefetch;
    assert_int_equal(qr_prefetch_create(100, true, false, &prefetch), QR_OK);
    qr_prefetch_begin(&prefetch, true);
    static const int64_t asked[] = {5, 6, 6, 7, 9, 8, 7, 6, 50};
    static const int expected[] = {0, 0, 0, 1, 1, 0, -1, -1, 0};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        qr_prefetch_note(&prefetch, asked[i]);
        assert_int_equal(qr_prefetch_direction(&prefetch), expected[i]);
    }
    assert_int_equal(qr_prefetch_after(&prefetch, 5), -1);
    qr_prefetch_begin(&prefetch, true);
    assert_int_equal(qr_prefetch_direction(&prefetch), 0);
    qr_prefetch_clear(&prefetch);
}

static void what_followed_is_remembered_both_ways(void **state)
{
    (void)state;
    static const int64_t asked[] = {3, 90, 14, 60};
    qr_prefetch prefetch;
    assert_int_equal(qr_prefetch_create(100, false, true, &prefetch), QR_OK);
    qr_prefetch_begin(&prefetch, true);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(qr_prefetch_after(&prefetch, asked[i]), -1);
        qr_prefetch_note(&prefetch, asked[i]);
        assert_int_equal(qr_prefetch_direction(&prefetch), 0);
    }
    for (size_t i = 0; i + 1 < 4; i++) {
        assert_int_equal(qr_prefetch_after(&prefetch, asked[i]), asked[i + 1]);
    }
    qr_prefetch_begin(&prefetch, false);
    for (size_t i = 3; i > 0; i--) {
        assert_int_equal(qr_prefetch_after(&prefetch, asked[i]), asked[i - 1]);
    }
    assert_int_equal(qr_prefetch_after(&prefetch, 3), -1);
    qr_prefetch_note(&prefetch, 60);
    qr_prefetch_note(&prefetch, 77); /* another one now */
    assert_int_equal(qr_prefetch_after(&prefetch, 60), 77);
    qr_prefetch_begin(&prefetch, true);
    assert_int_equal(qr_prefetch_after(&prefetch, 77), 60);
    qr_prefetch_clear(&prefetch);
}

static void tiers_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"gpu", "cpu", "nvme", "ssd", "hdd"};
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        assert_string_equal(qr_memory_tier_name((qr_memory_tier)tier), names[tier]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_oldest_leaves),
                                       cmocka_unit_test(pages_that_are_held_stay),
                                       cmocka_unit_test(pages_that_are_due_leave_last_the_last_first),
                                       cmocka_unit_test(lists_keep_to_a_plain_account),
                                       cmocka_unit_test(watermarks_have_a_memory),
                                       cmocka_unit_test(old_pages_sink_from_tiers_that_are_full_enough),
                                       cmocka_unit_test(room_is_looked_for_from_the_fastest_down),
                                       cmocka_unit_test(sweeps_turn),
                                       cmocka_unit_test(plans_fill_from_the_top),
                                       cmocka_unit_test(links_know_their_quantiles),
                                       cmocka_unit_test(quantiles_are_exact_to_a_part),
                                       cmocka_unit_test(pages_count_where_they_went),
                                       cmocka_unit_test(rows_of_pages_are_noticed),
                                       cmocka_unit_test(what_followed_is_remembered_both_ways),
                                       cmocka_unit_test(tiers_have_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
