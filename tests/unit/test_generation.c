/* Shares of generations: what is written is read again, by us and by stock h5py, also where pages are taken over. */
#include "test_generation_fixture.h"

#include "io/generation_index.h"

#include <dirent.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
