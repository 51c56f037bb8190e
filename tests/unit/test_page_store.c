/* The I/O server's store of pages: what is put comes back as it was, from whichever tier. */
#include "test_page_store_fixture.h"

enum { KIB = 1024, PAGE = 64 * KIB };

static void test_put_and_get(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    for (int64_t page = 0; page < 6; page++) {
        int64_t bytes = page == 5 ? 1000 : PAGE;
        assert_int_equal(shelf_put(s, 0, page, QR_TIER_NVME, 1, bytes), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
        assert_int_equal(shelf_get(s, 0, page, QR_TIER_NVME, 1, bytes), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
    }
    for (int64_t page = 5; page >= 0; page--) {
        assert_int_equal(shelf_get(s, 0, page, QR_TIER_NVME, 1, page == 5 ? 1000 : PAGE), QR_OK);
    }
    qr_page_tier_totals totals = shelf_totals(s, QR_TIER_NVME);
    assert_int_equal(totals.pages, 6);
    assert_int_equal(totals.put, 6);
    assert_int_equal(totals.got, 12);
    assert_int_equal(totals.raw_in, 5 * PAGE + 1000);
    assert_int_equal(totals.raw_out, 2 * totals.raw_in);
    assert_int_equal(totals.stored_out, 2 * totals.stored_in);
    assert_true(totals.stored_in < totals.raw_in && totals.stored_in > PAGE);
    assert_true(totals.write_s > 0 && totals.read_s > 0 && totals.pack_s > 0 && totals.unpack_s > 0);
    assert_int_equal(totals.retries, 0);
    shelf_remove(s);
}

/* Every codec, from the smallest page to the largest; the last one is not whole. */
static void test_codecs_and_sizes(void **state)
{
    (void)state;
    static const char *const codecs[] = {"none", "lz4-1", "lz4-9", "zstd-1", "zstd-3", "zstd-9"};
    static const int64_t sizes[] = {1, 4096 - 128, 4096 - 127, PAGE, 256 * KIB, 1024 * KIB, 16384 * KIB};
    for (size_t c = 0; c < sizeof codecs / sizeof codecs[0]; c++) {
        shelf *s = shelf_create(16384 * KIB);
        s->n_slots = 1;
        assert_int_equal(qr_codec_parse(codecs[c], &s->config.tiers[QR_TIER_SSD].codec), QR_OK);
        shelf_start(s);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            int64_t page = (int64_t)(i + c);
            assert_int_equal(shelf_put(s, 0, page, QR_TIER_SSD, 7, sizes[i]), QR_OK);
            assert_int_equal(shelf_get(s, 0, page, QR_TIER_SSD, 7, sizes[i]), QR_OK);
        }
        assert_int_equal(shelf_totals(s, QR_TIER_SSD).pages, sizeof sizes / sizeof sizes[0]);
        /* What does not shrink is stored as it is. */
        qr_page_tier_totals before = shelf_totals(s, QR_TIER_SSD);
        assert_int_equal(shelf_put(s, 0, 2, QR_TIER_SSD, 8, 100000), QR_OK);
        assert_int_equal(shelf_totals(s, QR_TIER_SSD).stored_in - before.stored_in, 100000);
        shelf_remove(s);
    }
}

static void test_versions(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, 1, PAGE), QR_DATA);
    assert_non_null(strstr(s->message, "page 3 of queue 0 is not in the page store"));
    for (int64_t version = 1; version <= 5; version++) {
        assert_int_equal(shelf_put(s, 0, 3, QR_TIER_NVME, version, PAGE), QR_OK);
        assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, version, PAGE), QR_OK);
        assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, version - 1, PAGE), QR_DATA);
        assert_non_null(strstr(s->message, "was asked for"));
        assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, version, PAGE - 1), QR_DATA);
        assert_int_equal(shelf_totals(s, QR_TIER_NVME).pages, 1);
    }
    shelf_drop(s, 0, 3, 4);
    assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, 5, PAGE), QR_OK);
    shelf_drop(s, 0, 3, 5);
    assert_int_equal(shelf_get(s, 0, 3, QR_TIER_NVME, 5, PAGE), QR_DATA);
    assert_int_equal(shelf_totals(s, QR_TIER_NVME).pages, 0);
    assert_int_equal(shelf_totals(s, QR_TIER_NVME).stored_bytes, 0);
    assert_int_equal(qr_queue_collect(&s->ends[0]), QR_OK);
    shelf_remove(s);
}

static void test_sink(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    assert_int_equal(shelf_sink(s, 0, 1, QR_TIER_NVME, QR_TIER_SSD, 1), QR_DATA);
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(shelf_sink(s, 0, 1, QR_TIER_NVME, QR_TIER_SSD, 2), QR_DATA);
    for (int t = QR_TIER_SSD; t <= QR_TIER_HDD; t++) {
        assert_int_equal(shelf_sink(s, 0, 1, t - 1, t, 1), QR_OK);
        assert_int_equal(s->value, t);
        assert_int_equal(shelf_get(s, 0, 1, t, 1, PAGE), QR_OK);
        assert_int_equal(s->value, t);
        assert_int_equal(shelf_totals(s, t - 1).pages, 0);
        assert_int_equal(shelf_totals(s, t).pages, 1);
        assert_int_equal(shelf_totals(s, t).sunk, 1);
    }
    /* It is further down than asked for. */
    assert_int_equal(shelf_sink(s, 0, 1, QR_TIER_NVME, QR_TIER_SSD, 1), QR_OK);
    assert_int_equal(s->value, QR_TIER_HDD);
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_SSD, 2, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_SSD);
    assert_int_equal(shelf_totals(s, QR_TIER_HDD).pages, 0);
    assert_int_equal(shelf_get(s, 0, 1, QR_TIER_SSD, 2, PAGE), QR_OK);
    shelf_remove(s);
}

/* Handed over at once; each one sees what came before it. */
static void test_jobs_of_a_page_keep_their_order(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    for (int64_t round = 0; round < 20; round++) {
        int64_t version = 2 * round + 1;
        int32_t slots[6];
        slots[0] = shelf_begin_put(s, 0, 2, QR_TIER_NVME, version, PAGE);
        slots[1] = shelf_begin_get(s, 0, 2, QR_TIER_NVME, version, PAGE);
        slots[2] = shelf_begin_put(s, 0, 2, QR_TIER_SSD, version + 1, PAGE);
        slots[3] = shelf_begin_get(s, 0, 2, QR_TIER_NVME, version, PAGE);
        slots[4] = shelf_begin_get(s, 0, 2, QR_TIER_SSD, version + 1, PAGE);
        shelf_drop(s, 0, 2, version + 1);
        slots[5] = shelf_begin_get(s, 0, 2, QR_TIER_SSD, version + 1, PAGE);
        assert_int_equal(shelf_end_get(s, 0, slots[5], 2, version + 1, PAGE), QR_DATA);
        assert_int_equal(shelf_end_get(s, 0, slots[4], 2, version + 1, PAGE), QR_OK);
        assert_int_equal(shelf_end_get(s, 0, slots[3], 2, version, PAGE), QR_DATA);
        assert_int_equal(shelf_end_get(s, 0, slots[1], 2, version, PAGE), QR_OK);
        assert_int_equal(shelf_answer(s, 0, slots[0]), QR_OK);
        assert_int_equal(shelf_answer(s, 0, slots[2]), QR_OK);
        qr_queue_return_slot(&s->ends[0], slots[0]);
        qr_queue_return_slot(&s->ends[0], slots[2]);
    }
    shelf_remove(s);
}

/* Pages that do not shrink: one takes 17 blocks of 4 KiB. */
enum { SOLID = 2, SOLID_BLOCKS = 17 };

static int64_t solid(int64_t i)
{
    return 3 * i + SOLID;
}

static void test_full_tiers(void **state)
{
    (void)state;
    static const int fits[QR_N_TIERS] = {4, 3, 2};
    shelf *s = shelf_create(PAGE);
    for (int t = 0; t < QR_N_TIERS; t++) {
        s->config.tiers[t].capacity = fits[t] * SOLID_BLOCKS * 4096 + 4095;
    }
    shelf_start(s);
    for (int64_t i = 0; i < 9; i++) {
        assert_int_equal(shelf_put(s, 0, solid(i), QR_TIER_NVME, 1, PAGE), QR_OK);
        assert_int_equal(s->value, i < 4 ? QR_TIER_NVME : i < 7 ? QR_TIER_SSD : QR_TIER_HDD);
    }
    assert_int_equal(shelf_put(s, 0, solid(9), QR_TIER_NVME, 1, PAGE), QR_RESOURCE);
    assert_non_null(strstr(s->message, "no memory tier has room for page 29 of queue 0 (65536 bytes): "));
    assert_non_null(strstr(s->message, "nvme (0.3 MiB), ssd (0.2 MiB), hdd (0.1 MiB)"));
    assert_int_equal(shelf_sink(s, 0, solid(0), QR_TIER_NVME, QR_TIER_SSD, 1), QR_RESOURCE);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(shelf_totals(s, QR_TIER_NVME).spilt, 5);
    for (int64_t i = 0; i < 9; i++) {
        assert_int_equal(shelf_get(s, 0, solid(i), QR_TIER_NVME, 1, PAGE), QR_OK);
    }
    /* A newer version takes the place of the older one. */
    assert_int_equal(shelf_put(s, 0, solid(0), QR_TIER_NVME, 2, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(shelf_get(s, 0, solid(0), QR_TIER_NVME, 2, PAGE), QR_OK);
    /* So does another page when one goes. */
    shelf_drop(s, 0, solid(5), 1);
    shelf_settle(s);
    assert_int_equal(shelf_sink(s, 0, solid(0), QR_TIER_NVME, QR_TIER_SSD, 2), QR_OK);
    assert_int_equal(s->value, QR_TIER_SSD);
    assert_int_equal(shelf_put(s, 0, solid(9), QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_NVME);
    shelf_remove(s);
}

static void test_tiers_that_are_not_used(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].directory = NULL;
    s->config.tiers[QR_TIER_HDD].directory = "";
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_SSD);
    assert_int_equal(shelf_get(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    assert_int_equal(shelf_sink(s, 0, 0, QR_TIER_SSD, QR_TIER_HDD, 1), QR_RESOURCE);
    assert_int_equal(shelf_put(s, 0, 1, QR_TIER_HDD, 1, PAGE), QR_RESOURCE);
    shelf_remove(s);
}

static void test_jobs_that_do_not_fit(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    const qr_job bad[] = {{.kind = QR_JOB_PAGE_PUT, .bytes = 0, .arguments = {0, 0, 1}},
                          {.kind = QR_JOB_PAGE_PUT, .bytes = 10, .arguments = {-1, 0, 1}},
                          {.kind = QR_JOB_PAGE_PUT, .bytes = 10, .arguments = {INT64_MAX, 0, 1}},
                          {.kind = QR_JOB_PAGE_PUT, .bytes = 10, .arguments = {0, 3, 1}},
                          {.kind = QR_JOB_PAGE_GET, .bytes = 10, .arguments = {0, -1, 1}},
                          {.kind = QR_JOB_PAGE_SINK, .arguments = {0, 1, 1, 1}},
                          {.kind = QR_JOB_PAGE_SINK, .arguments = {0, 1, 1, 3}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        qr_job job = bad[i];
        job.slot = shelf_slot(s, 0);
        shelf_ask(s, 0, job);
        assert_int_equal(shelf_answer(s, 0, job.slot), QR_INTERNAL);
        qr_queue_return_slot(&s->ends[0], job.slot);
    }
    assert_int_equal(shelf_put(s, 0, 0, 0, 1, PAGE), QR_OK);
    shelf_remove(s);
}

static void test_server_without_pages(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    qr_page_store *store = NULL;
    shelf_start(s);
    shelf_stop(s, SHELF_WAIT_S);
    assert_int_equal(qr_page_store_create(&s->config, NULL, 0, &store), QR_OK);
    qr_page_store_destroy(store, SHELF_WAIT_S);
    qr_page_store_destroy(NULL, 0);
    qr_queue_shape shape = {.n_slots = 2, .slot_bytes = PAGE};
    void *memory = malloc(qr_queue_bytes(&shape));
    assert_int_equal(qr_queue_create(memory, qr_queue_bytes(&shape), &shape, &s->server_ends[0]), QR_OK);
    assert_int_equal(qr_queue_attach(memory, qr_queue_bytes(&shape), &s->ends[0]), QR_OK);
    qr_io_config io = {.directory = s->results, .n_agents = 10, .n_options = 2, .n_servers = 1, .flush_every_s = 9};
    assert_int_equal(qr_io_server_create(&io, s->server_ends, 1, &s->server), QR_OK);
    assert_int_equal(qr_io_thread_start(s->server, &s->thread), QR_OK);
    assert_int_equal(shelf_get(s, 0, 0, 0, 1, PAGE), QR_INTERNAL);
    assert_non_null(strstr(s->message, "a page of states"));
    qr_job job = {.kind = QR_JOB_FINISH, .slot = QR_NO_SLOT};
    assert_int_equal(qr_queue_submit(&s->ends[0], &job, SHELF_WAIT_S), QR_OK);
    assert_int_equal(qr_io_thread_join(s->thread, NULL), QR_OK);
    qr_io_server_destroy(s->server);
    s->server = NULL;
    free(memory);
    shelf_remove(s);
}

/* What a checkpoint holds stays as it was, be it written yet or not, whatever comes after. */
static void test_holds(void **state)
{
    (void)state;
    unsigned char *raw = malloc(PAGE);
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].capacity = 3 * SOLID_BLOCKS * 4096;
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, solid(0), QR_TIER_NVME, 1, PAGE), QR_OK);
    qr_page_store_hold(s->store, 0, solid(0), 1);
    qr_page_store_hold(s->store, 0, solid(0), 1);
    for (int64_t version = 2; version <= 6; version++) {
        assert_int_equal(shelf_put(s, 0, solid(0), QR_TIER_NVME, version, PAGE), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
        assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 1, raw, PAGE), QR_OK);
        assert_int_equal(shelf_differs(0, solid(0), 1, raw, PAGE), 0);
    }
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 5, raw, PAGE), QR_DATA);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 1, raw, PAGE - 1), QR_DATA);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 6, raw, PAGE), QR_OK);
    assert_int_equal(shelf_differs(0, solid(0), 6, raw, PAGE), 0);
    qr_page_store_hold(s->store, 0, solid(0), 6);
    assert_int_equal(shelf_sink(s, 0, solid(0), QR_TIER_NVME, QR_TIER_HDD, 6), QR_OK);
    shelf_drop(s, 0, solid(0), 6);
    shelf_settle(s);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 6, raw, PAGE), QR_OK);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 1, raw, PAGE), QR_OK);
    qr_page_store_release(s->store, 0, solid(0), 1);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 1, raw, PAGE), QR_OK);
    /* Two versions are held: there is room for one more page until they are let go. */
    assert_int_equal(shelf_put(s, 0, solid(1), QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_NVME);
    assert_int_equal(shelf_put(s, 0, solid(2), QR_TIER_NVME, 1, PAGE), QR_OK);
    assert_int_equal(s->value, QR_TIER_SSD);
    qr_page_store_release(s->store, 0, solid(0), 1);
    qr_page_store_release(s->store, 0, solid(0), 6);
    assert_int_equal(qr_page_store_read(s->store, 0, solid(0), QR_TIER_NVME, 1, raw, PAGE), QR_DATA);
    for (int64_t i = 3; i < 5; i++) {
        assert_int_equal(shelf_put(s, 0, solid(i), QR_TIER_NVME, 1, PAGE), QR_OK);
        assert_int_equal(s->value, QR_TIER_NVME);
    }
    qr_page_store_release(s->store, 0, solid(0), 6); /* once too often, and of none */
    qr_page_store_release(s->store, 0, 999, 6);
    free(raw);
    shelf_remove(s);
}

/* Held before its put is carried out: the disk is slow. */
static void test_hold_of_what_is_coming(void **state)
{
    (void)state;
    unsigned char *raw = malloc(PAGE);
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    assert_int_equal(qr_fault_set("pages.write:slow@1+"), QR_OK);
    int32_t first = shelf_begin_put(s, 0, 1, QR_TIER_NVME, 1, PAGE);
    int32_t second = shelf_begin_put(s, 0, 1, QR_TIER_NVME, 2, PAGE);
    qr_awake waited = {0};
    while (qr_page_store_read(s->store, 0, 1, QR_TIER_NVME, 2, raw, PAGE) != QR_OK) {
        /* The server has yet to take the jobs. */
        assert_true(qr_awake_look(&waited) < SHELF_WAIT_S);
    }
    qr_page_store_hold(s->store, 0, 1, 2);
    assert_int_equal(qr_page_store_read(s->store, 0, 1, QR_TIER_NVME, 2, raw, PAGE), QR_OK);
    assert_int_equal(shelf_differs(0, 1, 2, raw, PAGE), 0);
    shelf_drop(s, 0, 1, 2);
    shelf_settle(s);
    assert_int_equal(qr_page_store_read(s->store, 0, 1, QR_TIER_NVME, 2, raw, PAGE), QR_OK);
    qr_page_store_release(s->store, 0, 1, 2);
    assert_int_equal(qr_page_store_read(s->store, 0, 1, QR_TIER_NVME, 2, raw, PAGE), QR_DATA);
    assert_int_equal(shelf_answer(s, 0, first), QR_OK);
    assert_int_equal(shelf_answer(s, 0, second), QR_OK);
    assert_int_equal(qr_fault_set(NULL), QR_OK);
    free(raw);
    shelf_remove(s);
}

/* --- many operations, against what should be --- */

enum { MODEL_PAGES = 40, MODEL_OPERATIONS = 3000, MODEL_WINDOW = 6 };

typedef struct model {
    int64_t version[MODEL_PAGES]; /* 0: none */
    int64_t next_version;
    uint64_t random;
} model;

typedef struct flight {
    qr_job_kind kind;
    int32_t slot;
    int64_t page, version, bytes;
    qr_status expected;
} flight;

static uint64_t draw(model *m, uint64_t below)
{
    m->random = shelf_mix(m->random + 0x9e3779b97f4a7c15ULL);
    return m->random % below;
}

/* A page has one size, its last one a smaller. */
static int64_t model_bytes(int64_t page)
{
    return page == MODEL_PAGES - 1 ? 777 : PAGE;
}

static void land(shelf *s, int queue, const flight *f)
{
    qr_status status = f->kind == QR_JOB_PAGE_GET ? shelf_end_get(s, queue, f->slot, f->page, f->version, f->bytes)
                                                  : shelf_answer(s, queue, f->slot);
    if (status != f->expected) {
        print_message("kind %d, page %d, version %d: %d instead of %d: %s\n", (int)f->kind, (int)f->page,
                      (int)f->version, (int)status, (int)f->expected, s->message);
    }
    assert_int_equal(status, f->expected);
    if (f->kind != QR_JOB_PAGE_GET) {
        qr_queue_return_slot(&s->ends[queue], f->slot);
    }
}

static flight take_off(shelf *s, int queue, model *m)
{
    int64_t page = (int64_t)draw(m, MODEL_PAGES);
    flight f = {.page = page, .bytes = model_bytes(page), .version = m->version[page]};
    int tier = (int)draw(m, QR_N_TIERS);
    uint64_t what = draw(m, 100);
    if (what < 35) {
        f.kind = QR_JOB_PAGE_PUT;
        f.version = m->version[page] = ++m->next_version;
        f.slot = shelf_begin_put(s, queue, page, tier, f.version, f.bytes);
    } else if (what < 75) {
        f.kind = QR_JOB_PAGE_GET;
        f.version = what < 70 || f.version == 0 ? f.version : f.version - 1;
        f.expected = f.version != 0 && f.version == m->version[page] ? QR_OK : QR_DATA;
        f.slot = shelf_begin_get(s, queue, page, tier, f.version, f.bytes);
    } else if (what < 90) {
        tier = tier == QR_TIER_HDD ? QR_TIER_SSD : tier;
        f.kind = QR_JOB_PAGE_SINK;
        f.expected = f.version != 0 ? QR_OK : QR_DATA;
        f.slot = shelf_slot(s, queue);
        shelf_ask(s, queue,
                  (qr_job){.kind = QR_JOB_PAGE_SINK, .slot = f.slot, .arguments = {page, tier, f.version, tier + 1}});
    } else {
        f.kind = QR_JOB_NONE;
        shelf_drop(s, queue, page, f.version);
        m->version[page] = 0;
    }
    return f;
}

static int64_t play(shelf *s, int queue, int operations)
{
    model m = {.random = (uint64_t)queue + 11};
    flight flights[MODEL_WINDOW] = {{.kind = QR_JOB_NONE}};
    for (int i = 0; i < operations; i++) {
        flight *f = &flights[i % MODEL_WINDOW];
        if (f->kind != QR_JOB_NONE) {
            land(s, queue, f);
        }
        *f = take_off(s, queue, &m);
    }
    for (int i = 0; i < MODEL_WINDOW; i++) {
        if (flights[(operations + i) % MODEL_WINDOW].kind != QR_JOB_NONE) {
            land(s, queue, &flights[(operations + i) % MODEL_WINDOW]);
        }
    }
    int64_t pages = 0;
    for (int64_t page = 0; page < MODEL_PAGES; page++) {
        if (m.version[page] != 0) {
            pages++;
            assert_int_equal(shelf_get(s, queue, page, 0, m.version[page], model_bytes(page)), QR_OK);
        }
    }
    return pages;
}

/* Tiers so small that pages spill and places are used again and again; the last one holds the rest. */
static void test_random_operations(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->config.tiers[QR_TIER_NVME].capacity = 100 * 4096;
    s->config.tiers[QR_TIER_SSD].capacity = 150 * 4096;
    shelf_start(s);
    int64_t pages = play(s, 0, MODEL_OPERATIONS);
    int64_t stored = 0;
    int64_t blocks = 0;
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_page_tier_totals totals = shelf_totals(s, t);
        struct stat info;
        char path[256];
        stored += totals.pages;
        blocks += totals.stored_bytes / 4096;
        assert_true(totals.put > 0 && totals.got > 0);
        assert_int_equal(shelf_files(s, t, path), 1);
        assert_int_equal(stat(path, &info), 0);
        int64_t capacity = s->config.tiers[t].capacity;
        assert_true(capacity == 0 || info.st_size <= capacity + 4096);
        assert_true(info.st_size < (MODEL_PAGES + MODEL_WINDOW) * SOLID_BLOCKS * 4096 * 2);
    }
    assert_int_equal(stored, pages);
    assert_true(blocks > pages && blocks <= pages * SOLID_BLOCKS);
    assert_true(shelf_totals(s, QR_TIER_NVME).spilt > 0);
    assert_true(shelf_totals(s, QR_TIER_SSD).sunk + shelf_totals(s, QR_TIER_HDD).sunk > 0);
    shelf_remove(s);
}

typedef struct player {
    shelf *s;
    int queue;
    int64_t pages;
} player;

static void *play_alone(void *argument)
{
    player *p = argument;
    p->pages = play(p->s, p->queue, MODEL_OPERATIONS / 3);
    return NULL;
}

/* Two producers, the same page numbers, contents of their own. */
static void test_two_producers(void **state)
{
    (void)state;
    shelf *s = shelf_create(PAGE);
    s->n_queues = 2;
    s->config.threads = 3;
    s->config.tiers[QR_TIER_NVME].capacity = 200 * 4096;
    shelf_start(s);
    player other = {.s = s, .queue = 1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, play_alone, &other), 0);
    int64_t pages = play(s, 0, MODEL_OPERATIONS / 3);
    assert_int_equal(pthread_join(thread, NULL), 0);
    int64_t stored = 0;
    for (int t = 0; t < QR_N_TIERS; t++) {
        stored += shelf_totals(s, t).pages;
    }
    assert_int_equal(stored, pages + other.pages);
    shelf_remove(s);
}

static void test_nothing_is_left(void **state)
{
    (void)state;
    char path[256];
    shelf *s = shelf_create(PAGE);
    shelf_start(s);
    assert_int_equal(shelf_put(s, 0, 0, QR_TIER_SSD, 1, PAGE), QR_OK);
    (void)shelf_begin_put(s, 0, 1, QR_TIER_SSD, 1, PAGE);
    for (int t = 0; t < QR_N_TIERS; t++) {
        assert_int_equal(shelf_files(s, t, path), 1);
    }
    shelf_stop(s, SHELF_WAIT_S);
    for (int t = 0; t < QR_N_TIERS; t++) {
        assert_int_equal(shelf_files(s, t, path), 0);
    }
    assert_false(qr_io_must_exit_fast());
    shelf_remove(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get),
        cmocka_unit_test(test_codecs_and_sizes),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_sink),
        cmocka_unit_test(test_jobs_of_a_page_keep_their_order),
        cmocka_unit_test(test_full_tiers),
        cmocka_unit_test(test_tiers_that_are_not_used),
        cmocka_unit_test(test_jobs_that_do_not_fit),
        cmocka_unit_test(test_server_without_pages),
        cmocka_unit_test(test_holds),
        cmocka_unit_test(test_hold_of_what_is_coming),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_two_producers),
        cmocka_unit_test(test_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
