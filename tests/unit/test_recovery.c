/* What a restart finds on the disks: the newest whole copies, whatever became of the others. */
#include "test_generation_fixture.h"

#include "io/recovery.h"

#include <dirent.h>
#include <fcntl.h>

enum { CROWD_MOST_PAGES = 1000 };

static qr_recovery *scan(const crowd *c, int n_tiers)
{
    const char *directories[CROWD_TIERS];
    qr_recovery *recovery = NULL;
    for (int t = 0; t < n_tiers; t++) {
        directories[t] = c->directories[t];
    }
    assert_int_equal(qr_recovery_scan(directories, n_tiers, &recovery), QR_OK);
    return recovery;
}

/* Reads all of a generation, as a restart does. Wrong pages fail the test; QR_OK: every page is there. */
static qr_status read_all(const crowd *c, const qr_recovery *recovery, int64_t generation)
{
    qr_status status = QR_OK;
    qr_page_scratch scratch = {0};
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    for (int s = 0; s < CROWD_SERVERS && status == QR_OK; s++) {
        qr_share *share = NULL;
        size_t n = 0;
        status = qr_share_open(recovery, generation, s, &share);
        const qr_page_record *pages = status == QR_OK ? qr_share_pages(share, &n) : NULL;
        for (size_t i = 0; i < n && status == QR_OK; i++) {
            status = qr_share_read_page(share, i, &scratch, raw);
            assert_true(status != QR_OK || crowd_is(c, &pages[i], generation, raw));
        }
        qr_share_close(share);
    }
    free(scratch.bytes);
    free(raw);
    assert_true(status == QR_OK || status == QR_DATA);
    return status;
}

static void test_finds_generations(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    crowd_write(&c, 1, 1, false);
    crowd_write(&c, 0, 2, false);
    crowd_share(&c, 0, 3, 0, false); /* never committed */
    qr_recovery *recovery = scan(&c, 2);
    assert_int_equal(recovery->n, 3);
    assert_int_equal(recovery->found[0].manifest->generation, 2);
    assert_int_equal(recovery->found[0].directory, 0);
    assert_int_equal(recovery->found[1].directory, 0);
    assert_int_equal(recovery->found[2].directory, 1);
    assert_int_equal(recovery->highest, 3);
    assert_int_equal(read_all(&c, recovery, 2), QR_OK);
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    assert_int_equal(read_all(&c, recovery, 3), QR_DATA);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_generations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
