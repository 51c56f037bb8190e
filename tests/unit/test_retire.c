/* Which generations of a tier go, and which stay. */
#include "test_generation_damage.h"

#include "io/checkpoint_parts.h"

#include <sys/prctl.h>

static bool has_manifest(const crowd *c, int64_t generation)
{
    return exists(c, 0, generation, -1, false, "");
}

/* Generations [1, n], each whole in itself. */
static void write_all(crowd *c, int64_t n)
{
    crowd_start(c);
    c->incremental = false;
    for (int64_t generation = 1; generation <= n; generation++) {
        crowd_write(c, 0, generation, false);
    }
}

/* One that was found damaged stays, for what is whole of it, but does not count among those that are kept. */
static void test_marked_generations_do_not_count(void **state)
{
    (void)state;
    crowd c;
    int64_t retired = 0;
    int64_t below = 0;
    write_all(&c, 5);
    assert_int_equal(qr_generation_mark_bad(c.directories[0], 5, 1, false, "a test"), QR_OK);
    assert_int_equal(qr_generation_mark_bad(c.directories[0], 3, 0, false, "a test"), QR_OK);
    assert_int_equal(qr_tier_retire(c.directories[0], 2, NULL, 0, &retired, &below), QR_OK);
    assert_int_equal(retired, 1);
    assert_int_equal(below, 2);
    for (int64_t generation = 1; generation <= 5; generation++) {
        assert_int_equal(has_manifest(&c, generation), generation > 1);
        assert_int_equal(exists(&c, 0, generation, 1, false, "h5"), generation > 1);
    }
    crowd_remove(&c);
}

/* All are marked: the newest of them are no worse than the others, and none goes. */
static void test_nothing_goes_when_all_are_marked(void **state)
{
    (void)state;
    crowd c;
    int64_t retired = 0;
    write_all(&c, 4);
    for (int64_t generation = 1; generation <= 4; generation++) {
        assert_int_equal(qr_generation_mark_bad(c.directories[0], generation, 0, false, "a test"), QR_OK);
    }
    assert_int_equal(qr_tier_retire(c.directories[0], 2, NULL, 0, &retired, NULL), QR_OK);
    assert_int_equal(retired, 0);
    assert_true(has_manifest(&c, 1));
    crowd_remove(&c);
}

/* A manifest that is there but cannot be read just now: nobody knows what may go, so nothing does. A damaged one goes.
 */
static void test_manifests_that_cannot_be_read_stay(void **state)
{
    (void)state;
    crowd c;
    char path[160];
    int64_t retired = 0;
    uid_t me = geteuid();
    write_all(&c, 5);
    crowd_path(&c, 0, 4, -1, false, "", path);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(chmod(c.root, 0777) + chmod(c.directories[0], 0777), 0);
    assert_true(me != 0 || seteuid(65534) == 0); /* nothing is unreadable to root */
    qr_status status = qr_tier_retire(c.directories[0], 2, NULL, 0, &retired, NULL);
    assert_true(me != 0 || seteuid(0) == 0);
    (void)prctl(PR_SET_DUMPABLE, 1); /* for the leak checker, as before */
    assert_int_not_equal(status, QR_OK);
    assert_non_null(strstr(qr_error_message(), "generation-00000004.manifest: cannot be read"));
    assert_int_equal(retired, 0);
    for (int64_t generation = 1; generation <= 5; generation++) {
        assert_true(has_manifest(&c, generation));
        assert_true(exists(&c, 0, generation, 0, false, "h5"));
    }
    assert_int_equal(chmod(path, 0600), 0);
    flip(&c, 0, 4, -1, false, "", 30);
    assert_int_equal(qr_tier_retire(c.directories[0], 2, NULL, 0, &retired, NULL), QR_OK);
    assert_int_equal(retired, 3);
    for (int64_t generation = 1; generation <= 5; generation++) {
        assert_int_equal(has_manifest(&c, generation), generation == 5 || generation == 3);
    }
    crowd_remove(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marked_generations_do_not_count),
        cmocka_unit_test(test_nothing_goes_when_all_are_marked),
        cmocka_unit_test(test_manifests_that_cannot_be_read_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
