/* A store of pages holds as many as its capacities count, whatever they shrink to, and in whichever order they come and
 * go. */
#include "../unit/test_page_store_fixture.h"

enum { STORES = 25, CASES = 50, OPERATIONS = 20, MOST_PAGES = 12 };

typedef struct drawn {
    uint64_t random;
    int64_t bytes;               /* of a page */
    int64_t room;                /* pages that all tiers hold */
    int64_t version[MOST_PAGES]; /* 0: not there */
    uint64_t noise[MOST_PAGES];  /* of the page: bytes that do not shrink */
    int64_t held, next_version;
} drawn;

static uint64_t draw(drawn *d, uint64_t below)
{
    d->random = shelf_mix(d->random + 0x9e3779b97f4a7c15ULL);
    return d->random % below;
}

static void fill(drawn *d, int64_t page, unsigned char *out)
{
    d->noise[page] = draw(d, 4) == 0 ? (uint64_t)d->bytes : draw(d, (uint64_t)d->bytes + 1);
    for (int64_t i = 0; i < d->bytes; i++) {
        out[i] = i < (int64_t)d->noise[page] ? shelf_byte(0, 2, d->next_version, i) : 0;
    }
}

static qr_status put(shelf *s, drawn *d, int64_t page)
{
    int32_t slot = shelf_slot(s, 0);
    int64_t version = ++d->next_version;
    fill(d, page, qr_queue_slot(&s->ends[0], slot));
    shelf_ask(s, 0,
              (qr_job){.kind = QR_JOB_PAGE_PUT, .slot = slot, .bytes = d->bytes, .arguments = {page, 0, version}});
    qr_status status = shelf_answer(s, 0, slot);
    qr_queue_return_slot(&s->ends[0], slot);
    d->held += d->version[page] == 0 ? 1 : 0;
    d->version[page] = version;
    return status;
}

static void check(shelf *s, const drawn *d, int64_t page)
{
    int32_t slot = shelf_begin_get(s, 0, page, 0, d->version[page], d->bytes);
    assert_int_equal(shelf_answer(s, 0, slot), QR_OK);
    const unsigned char *raw = qr_queue_slot(&s->ends[0], slot);
    for (int64_t i = 0; i < d->bytes; i++) {
        unsigned char expected = i < (int64_t)d->noise[page] ? shelf_byte(0, 2, d->version[page], i) : 0;
        assert_int_equal(raw[i], expected);
    }
    qr_queue_return_slot(&s->ends[0], slot);
}

static void play(shelf *s, drawn *d)
{
    for (int i = 0; i < OPERATIONS; i++) {
        int64_t page = (int64_t)draw(d, MOST_PAGES);
        uint64_t what = draw(d, 10);
        if (what < 7 && (d->version[page] != 0 || d->held < d->room)) {
            qr_status status = put(s, d, page);
            if (status != QR_OK) {
                print_message("%d pages of %d bytes, room for %d: %s\n", (int)d->held, (int)d->bytes, (int)d->room,
                              s->message);
            }
            assert_int_equal(status, QR_OK);
        } else if (what < 9 && d->version[page] != 0) {
            shelf_drop(s, 0, page, d->version[page]);
            d->version[page] = 0;
            d->held--;
        } else if (d->version[page] != 0) {
            check(s, d, page);
        }
    }
    for (int64_t page = 0; page < MOST_PAGES; page++) {
        if (d->version[page] != 0) {
            check(s, d, page);
            shelf_drop(s, 0, page, d->version[page]);
        }
        d->version[page] = 0;
    }
    d->held = 0;
    shelf_settle(s);
}

static void test_pages_within_the_plan_have_room(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < STORES; i++) {
        drawn d = {.random = i * 977 + 5};
        d.bytes = draw(&d, 3) == 0 ? 1 + (int64_t)draw(&d, 40000) : 4096 * (1 + (int64_t)draw(&d, 12));
        shelf *s = shelf_create(d.bytes);
        s->n_slots = 1;
        s->config.threads = 1;
        int64_t place = qr_page_store_place_bytes(d.bytes);
        for (int t = 0; t < QR_N_TIERS; t++) {
            int64_t pages = (int64_t)draw(&d, 4);
            d.room += pages;
            s->config.tiers[t].capacity = pages * place + (int64_t)draw(&d, (uint64_t)place);
            s->config.tiers[t].codec = (qr_codec){QR_CODEC_LZ4, 1};
            if (pages == 0) {
                s->config.tiers[t].directory = NULL;
            }
        }
        shelf_start(s);
        for (int k = 0; k < CASES; k++) {
            play(s, &d);
        }
        shelf_remove(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pages_within_the_plan_have_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
