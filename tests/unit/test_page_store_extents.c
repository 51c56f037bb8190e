/* Places in a page store's file, against a map of its blocks. */
#include "io/page_store_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { START = 1, LONGEST = 65, ROOM = 5000, MOST = 400, OPERATIONS = 20000 };

typedef struct map {
    qr_extents extents;
    unsigned char taken[ROOM];
    qr_extent *live[MOST];
    int n;
    int64_t used;
    uint64_t random;
} map;

static uint64_t draw(map *m, uint64_t below)
{
    m->random = m->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (m->random >> 33) % below;
}

/* Longest run of blocks up to `end` that nobody has. */
static int64_t longest_gap(const map *m, int64_t end)
{
    int64_t longest = 0;
    int64_t run = 0;
    for (int64_t i = START; i < end; i++) {
        run = m->taken[i] ? 0 : run + 1;
        longest = run > longest ? run : longest;
    }
    return longest;
}

static void take(map *m, int64_t blocks, bool grows)
{
    int64_t end = m->extents.end;
    qr_extent *extent = qr_extents_take(&m->extents, blocks, grows);
    if (extent == NULL) {
        /* Nowhere is there room, or only behind the end. */
        assert_true(longest_gap(m, end) < blocks);
        assert_true(!grows || (m->extents.limit > 0 && end + blocks > m->extents.limit));
        return;
    }
    assert_int_equal(extent->blocks, blocks);
    assert_int_equal(extent->uses, 1);
    assert_true(extent->first >= START && extent->first + blocks <= ROOM);
    assert_true(extent->first + blocks <= m->extents.end);
    assert_true(m->extents.limit == 0 || m->extents.end <= m->extents.limit);
    /* The file grows only when there is no gap. */
    assert_true(m->extents.end == end || longest_gap(m, end) < blocks);
    assert_true(m->extents.end == end || grows);
    for (int64_t i = extent->first; i < extent->first + blocks; i++) {
        assert_int_equal(m->taken[i], 0);
        m->taken[i] = 1;
    }
    m->live[m->n++] = extent;
    m->used += blocks;
}

static void give(map *m, int which)
{
    qr_extent *extent = m->live[which];
    memset(m->taken + extent->first, 0, (size_t)extent->blocks);
    m->used -= extent->blocks;
    m->live[which] = m->live[--m->n];
    qr_extents_give(&m->extents, extent);
}

static void check(const map *m)
{
    int64_t end = ROOM;
    while (end > START && !m->taken[end - 1]) {
        end--;
    }
    assert_int_equal(m->extents.end, end);
    assert_int_equal(m->extents.used, m->used);
}

static void test_against_a_map(void **state)
{
    (void)state;
    static const int64_t limits[] = {0, 500, 64};
    for (int k = 0; k < 3; k++) {
        map *m = calloc(1, sizeof *m);
        assert_non_null(m);
        m->random = (uint64_t)k;
        assert_int_equal(qr_extents_create(&m->extents, START, limits[k], LONGEST), QR_OK);
        for (int i = 0; i < OPERATIONS; i++) {
            uint64_t fullness = 20 + 60 * ((uint64_t)i / 2000 % 2); /* fills up, runs empty, and again */
            if (m->n < 60 && draw(m, 100) < fullness) {
                int64_t blocks = draw(m, 4) == 0 ? LONGEST : 1 + (int64_t)draw(m, LONGEST);
                take(m, blocks, draw(m, 10) > 0);
            } else if (m->n > 0) {
                give(m, (int)draw(m, (uint64_t)m->n));
            }
            check(m);
        }
        while (m->n > 0) {
            give(m, (int)draw(m, (uint64_t)m->n));
            check(m);
        }
        assert_int_equal(m->extents.end, START);
        qr_extents_destroy(&m->extents);
        free(m);
    }
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    qr_extents extents;
    assert_int_equal(qr_extents_create(&extents, START, 0, 8), QR_OK);
    assert_null(qr_extents_take(&extents, 0, true));
    assert_null(qr_extents_take(&extents, -1, true));
    assert_null(qr_extents_take(&extents, 9, true));
    assert_null(qr_extents_take(&extents, 8, false));
    assert_non_null(qr_extents_take(&extents, 8, true));
    qr_extents_destroy(&extents);
}

/* The shortest gap that will do. */
static void test_best_fit(void **state)
{
    (void)state;
    qr_extents extents;
    qr_extent *all[7];
    static const int64_t sizes[7] = {6, 1, 3, 1, 4, 1, 2};
    assert_int_equal(qr_extents_create(&extents, START, 0, 8), QR_OK);
    for (int i = 0; i < 7; i++) {
        all[i] = qr_extents_take(&extents, sizes[i], true);
        assert_non_null(all[i]);
    }
    int64_t three = all[2]->first;
    int64_t four = all[4]->first;
    int64_t six = all[0]->first;
    for (int i = 0; i < 6; i += 2) {
        qr_extents_give(&extents, all[i]);
    }
    assert_int_equal(qr_extents_take(&extents, 4, true)->first, four);
    assert_int_equal(qr_extents_take(&extents, 2, true)->first, three);
    assert_int_equal(qr_extents_take(&extents, 1, true)->first, three + 2);
    assert_int_equal(qr_extents_take(&extents, 4, true)->first, six);
    assert_int_equal(extents.end, START + 18);
    qr_extents_destroy(&extents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_map),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_best_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
