/* The pager by itself: what it refuses, what it moves, what it counts, and what becomes of failures. */
#include "paged.h"
#include "test_page_store_fixture.h"

static crowd *neural_crowd(int64_t n_agents, double activation)
{
    return crowd_make("run: {seed: 5, activation: %g}\noutput: {directory: none}\nagents: {count: %lld, options: 3}\n"
                      "network: {kind: ring, degree: 4}\nmodel: {rule: neural, state_dim: 4, hidden: 3}\n",
                      activation, (long long)n_agents);
}

static void must(qr_status status)
{
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

static void open_and_make(const crowd *c, const paged_setup *setup, paged *p)
{
    must(paged_open(c, setup, p));
    must(qr_pager_make_first(p->pager));
}

/* Steps of both; the same votes. */
static void step(crowd *c, paged *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        qr_tally before = c->tally, after;
        crowd_step(c, 1);
        must(paged_step(p, c->step, &before, &after));
        assert_memory_equal(&after, &c->tally, sizeof after);
    }
}

static qr_pager_counters counters_of(const paged *p)
{
    qr_pager_counters counters;
    qr_pager_counters_read(p->pager, &counters);
    return counters;
}

/* --- what it refuses --- */

static void refuses(const crowd *c, const paged_setup *setup, qr_status expected, const char *word)
{
    paged p;
    assert_int_equal(paged_open(c, setup, &p), expected);
    if (strstr(qr_error_message(), word) == NULL) {
        fail_msg("'%s' is not in: %s", word, qr_error_message());
    }
    assert_null(p.pager);
    paged_close(&p);
}

static void refuses_what_cannot_work(void **state)
{
    (void)state;
    crowd *c = neural_crowd(640, 1);
    paged_setup setup = {.page_agents = 64, .room = {[QR_MEMORY_CPU] = 3, [QR_MEMORY_SSD] = 6}};
    refuses(c, &setup, QR_USAGE, "together hold 9 pages of 1024 bytes, and there are 10");
    setup.room[QR_MEMORY_CPU] = 0;
    setup.room[QR_MEMORY_SSD] = 20;
    refuses(c, &setup, QR_USAGE, "memory.tiers.cpu has room for no page");
    setup.room[QR_MEMORY_CPU] = 4;
    setup.on_device = true;
    refuses(c, &setup, QR_USAGE, "memory.tiers.gpu has room for no page");
    paged p;
    setup.on_device = false;
    must(paged_open(c, &setup, &p));
    qr_pager *other = NULL;
    qr_pager_config config = p.config;
    config.queue = NULL;
    assert_int_equal(qr_pager_create(&config, &other), QR_INTERNAL);
    config = p.config;
    config.page_agents = 4 * 1024; /* more than a slot holds */
    config.n_agents = 10 * config.page_agents;
    assert_int_equal(qr_pager_create(&config, &other), QR_INTERNAL);
    assert_non_null(strstr(qr_error_message(), "hold no page"));
    qr_backend_ops bare = *p.config.ops;
    bare.frames = NULL;
    config = p.config;
    config.ops = &bare;
    assert_int_equal(qr_pager_create(&config, &other), QR_INTERNAL);
    float one[4];
    assert_int_equal(qr_pager_read(p.pager, 0, 1, one), QR_INTERNAL); /* holds nothing yet */
    must(qr_pager_make_first(p.pager));
    assert_int_equal(qr_pager_read(p.pager, 640, 1, one), QR_INTERNAL);
    assert_int_equal(qr_pager_make_first(p.pager), QR_INTERNAL);
    const qr_piece two_pages = {.first = 63, .count = 2, .out = one, .states = true};
    const qr_piece votes = {.first = 0, .count = 1, .out = one};
    assert_int_equal(qr_pager_copy_out(p.pager, &two_pages, 1), QR_INTERNAL);
    assert_int_equal(qr_pager_copy_out(p.pager, &votes, 1), QR_INTERNAL);
    paged_close(&p);
    crowd_free(c);
}

/* --- what moves --- */

/* What goes to the server in the background gets there. */
static void settle(paged *p)
{
    float one[4];
    double end = qr_now_s() + 20;
    while (counters_of(p).pages_in[QR_MEMORY_CPU] > p->setup.room[QR_MEMORY_CPU]) {
        const struct timespec moment = {0, 1000000};
        must(qr_pager_read(p->pager, 0, 1, one));
        (void)nanosleep(&moment, NULL);
        assert_true(qr_now_s() < end);
    }
    must(qr_pager_settle(p->pager));
    assert_int_equal(counters_of(p).leaving + counters_of(p).coming, 0);
}

/* What the next step asks for first is where it is computed. */
static void tells_where_a_step_begins(void **state)
{
    (void)state;
    enum { PAGES = 10 };
    crowd *c = neural_crowd(64 * PAGES, 1);
    const paged_setup setup = {.page_agents = 64, .room = {[QR_MEMORY_CPU] = 3, [QR_MEMORY_SSD] = PAGES - 3}};
    paged p;
    open_and_make(c, &setup, &p);
    for (int i = 0; i < 4; i++) {
        int tier = 0;
        int64_t version = 0;
        bool up = qr_pager_next_is_up(p.pager);
        settle(&p);
        assert_int_equal(qr_pager_on_disk(p.pager, 0, &tier, &version), !up);
        assert_int_equal(qr_pager_on_disk(p.pager, PAGES - 1, &tier, &version), up);
        step(c, &p, 1);
        assert_int_equal(qr_pager_next_is_up(p.pager), !up);
    }
    paged_close(&p);
    crowd_free(c);
}

static void plans_come_true(void **state)
{
    (void)state;
    static const paged_setup setups[] = {
        {.room = {[QR_MEMORY_CPU] = 20}},
        {.room = {[QR_MEMORY_CPU] = 19, [QR_MEMORY_HDD] = 1}},
        {.room = {[QR_MEMORY_CPU] = 4, [QR_MEMORY_NVME] = 7, [QR_MEMORY_SSD] = 3, [QR_MEMORY_HDD] = 30}},
        {.room = {[QR_MEMORY_CPU] = 1, [QR_MEMORY_NVME] = 1, [QR_MEMORY_SSD] = 1, [QR_MEMORY_HDD] = 17}},
        {.on_device = true, .room = {[QR_MEMORY_GPU] = 30}},
        {.on_device = true, .room = {[QR_MEMORY_GPU] = 6, [QR_MEMORY_CPU] = 14}},
        {.on_device = true, .room = {[QR_MEMORY_GPU] = 7, [QR_MEMORY_CPU] = 40}},
        {.on_device = true, .room = {[QR_MEMORY_GPU] = 6, [QR_MEMORY_CPU] = 5, [QR_MEMORY_NVME] = 40}},
        {.on_device = true, .room = {[QR_MEMORY_GPU] = 6, [QR_MEMORY_SSD] = 14}}};
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        crowd *c = neural_crowd(20 * 64 - 10, 1);
        paged_setup setup = setups[i];
        paged p;
        const int top = setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
        setup.page_agents = 64;
        setup.sequential = true;
        setup.ahead = 4;
        open_and_make(c, &setup, &p);
        qr_page_plan plan = qr_page_plan_make(20, p.config.tiers, setup.on_device);
        assert_true(plan.fits);
        step(c, &p, 2);
        settle(&p);
        qr_pager_counters before = counters_of(&p);
        step(c, &p, 4);
        settle(&p);
        qr_pager_counters after = counters_of(&p);
        for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
            int64_t up = after.links[tier][top].pages - before.links[tier][top].pages;
            if (after.pages_in[tier] != plan.resident[tier] || up != 4 * plan.crossing[tier]) {
                fail_msg("%s: %lld pages in it instead of %lld, %lld came up in 4 sweeps instead of %lld (%s)",
                         qr_memory_tier_name((qr_memory_tier)tier), (long long)after.pages_in[tier],
                         (long long)plan.resident[tier], (long long)up, (long long)(4 * plan.crossing[tier]),
                         paged_describe(&p));
            }
        }
        paged_equals(&p, "after sweeps");
        paged_close(&p);
        crowd_free(c);
    }
}

static void prefetch_can_be_switched(void **state)
{
    (void)state;
    enum { PAGES = 30, ROOM = 9, STEPS = 6, BEYOND = PAGES - ROOM };
    for (int number = 0; number < 8; number++) {
        crowd *c = neural_crowd(PAGES * 64, 1);
        paged_setup setup = {.on_device = number >= 4,
                             .page_agents = 64,
                             .sequential = number % 4 == 1 || number % 4 == 3,
                             .correlated = number % 4 >= 2,
                             .ahead = 4,
                             .n_slots = 8};
        setup.room[setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = ROOM;
        setup.room[setup.on_device ? QR_MEMORY_CPU : QR_MEMORY_NVME] = PAGES;
        paged p;
        open_and_make(c, &setup, &p);
        step(c, &p, STEPS);
        qr_pager_counters counters = counters_of(&p);
        assert_int_equal(counters.touched, STEPS * PAGES);
        assert_int_equal(counters.wasted, 0);
        assert_int_equal(counters.hits + counters.late + counters.misses, STEPS * BEYOND);
        if (!setup.sequential && !setup.correlated) {
            assert_int_equal(counters.misses, STEPS * BEYOND);
        } else if (setup.sequential) { /* pages just leaving when the sweep turns cannot be fetched yet */
            assert_in_range(counters.misses, 0, BEYOND);
        } else { /* what is not known in the first sweep is from then on */
            assert_in_range(counters.misses, BEYOND, 2 * BEYOND);
        }
        paged_close(&p);
        crowd_free(c);
    }
}

/* Few agents move: only their pages do. */
static void pages_at_rest_stay_where_they_are(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        crowd *c = neural_crowd(64 * 64, 0.003);
        paged_setup setup = {
            .on_device = on_device != 0, .page_agents = 64, .sequential = true, .ahead = 3, .threads = 3};
        setup.room[on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 8;
        setup.room[QR_MEMORY_NVME] = 64;
        paged p;
        open_and_make(c, &setup, &p);
        step(c, &p, 20);
        qr_pager_counters counters = counters_of(&p);
        assert_int_equal(counters.touched + counters.passed, 20 * 64);
        assert_true(counters.passed > 20 * 64 * 7 / 10 && counters.touched > 100);
        assert_true(counters.links[QR_MEMORY_NVME][QR_MEMORY_CPU].pages <= counters.touched);
        paged_equals(&p, "a few agents at a time");
        paged_close(&p);
        crowd_free(c);
    }
}

static void full_and_old_pages_sink(void **state)
{
    (void)state;
    for (int ages = 0; ages < 2; ages++) {
        crowd *c = neural_crowd(40 * 64, 0.002);
        paged_setup setup = {.page_agents = 64,
                             .room = {[QR_MEMORY_CPU] = 4, [QR_MEMORY_NVME] = 35, [QR_MEMORY_HDD] = 40},
                             .age_s = ages ? 0 : 1e9,
                             .high = ages ? 1 : 0.5,
                             .low = 0.25};
        paged p;
        open_and_make(c, &setup, &p);
        settle(&p);
        for (int i = 0; i < 200 && counters_of(&p).pages_in[QR_MEMORY_NVME] > 9; i++) {
            const struct timespec moment = {0, 1000000};
            step(c, &p, 1);
            (void)nanosleep(&moment, NULL);
            settle(&p);
        }
        qr_pager_counters counters = counters_of(&p);
        assert_int_equal(counters.pages_in[QR_MEMORY_NVME], 9); /* the low watermark, and no less */
        assert_true(counters.pages_in[QR_MEMORY_HDD] >= 26 && p.server.sinks >= 26);
        assert_int_equal(counters.links[QR_MEMORY_NVME][QR_MEMORY_HDD].pages, p.server.sinks);
        paged_equals(&p, "after pages sank");
        paged_close(&p);
        crowd_free(c);
    }
}

/* A disk that takes nothing: what was to sink stays where it was, and the steps go on. */
static void a_sink_that_fails_is_no_loss(void **state)
{
    (void)state;
    crowd *c = neural_crowd(40 * 64, 0.002);
    paged_setup setup = {.page_agents = 64,
                         .room = {[QR_MEMORY_CPU] = 4, [QR_MEMORY_NVME] = 35, [QR_MEMORY_HDD] = 40},
                         .age_s = 1e9,
                         .high = 0.5,
                         .low = 0.25};
    paged p;
    must(paged_open(c, &setup, &p));
    p.server.sinks_fail = true;
    must(qr_pager_make_first(p.pager));
    step(c, &p, 20);
    settle(&p);
    assert_true(p.server.sinks > 0);
    assert_int_equal(counters_of(&p).links[QR_MEMORY_NVME][QR_MEMORY_HDD].pages, 0);
    const int64_t spilt = counters_of(&p).pages_in[QR_MEMORY_HDD]; /* when they were put */
    assert_true(spilt < 10);
    paged_equals(&p, "after sinks failed");
    p.server.sinks_fail = false;
    for (int i = 0; i < 200 && counters_of(&p).pages_in[QR_MEMORY_HDD] < 20; i++) {
        const struct timespec moment = {0, 1000000};
        step(c, &p, 1);
        (void)nanosleep(&moment, NULL);
    }
    assert_true(counters_of(&p).pages_in[QR_MEMORY_HDD] >= 20);
    paged_close(&p);
    crowd_free(c);
}

/* Watermarks and ages are no reason to drive out what fits. */
static void nothing_sinks_where_all_fits(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        crowd *c = neural_crowd(30 * 64, 0.002);
        paged_setup setup = {.on_device = on_device != 0, .page_agents = 64, .age_s = 0, .high = 0.5, .low = 0.1};
        setup.room[on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 4;
        setup.room[on_device ? QR_MEMORY_CPU : QR_MEMORY_NVME] = 26;
        setup.room[QR_MEMORY_HDD] = 30;
        paged p;
        open_and_make(c, &setup, &p);
        step(c, &p, 20);
        settle(&p);
        assert_int_equal(p.server.sinks, 0);
        assert_int_equal(counters_of(&p).pages_in[QR_MEMORY_HDD], 0);
        paged_close(&p);
        crowd_free(c);
    }
}

/* Others, who share the queue, find slots whatever the pager did last. */
static void leaves_half_of_the_slots(const paged_setup *setup, double activation)
{
    crowd *c = neural_crowd(30 * 64, activation);
    paged p;
    float states[100 * 4];
    open_and_make(c, setup, &p);
    for (int turn = 0; turn < 20; turn++) {
        int32_t slots[8];
        int32_t n = 0;
        if (turn % 2 == 0) {
            step(c, &p, 1);
        } else {
            must(qr_pager_read(p.pager, turn * 90, 100, states));
        }
        if (turn % 5 == 4) { /* parts of pages that are on disk */
            must(qr_pager_read(p.pager, turn * 90, 100, states));
            must(qr_pager_write(p.pager, turn * 90, 100, states));
        } else if (turn % 5 == 3) {
            for (int64_t page = 0; page < 30; page += 4) {
                must(qr_pager_fetch(p.pager, page));
            }
        }
        while (n < 8 && (slots[n] = qr_queue_try_slot(&p.server.producer)) != QR_NO_SLOT) {
            n++;
        }
        if (2 * n < setup->n_slots) {
            fail_msg("%d of %d slots are free after turn %d (%s)", n, setup->n_slots, turn, paged_describe(&p));
        }
        while (n > 0) {
            qr_queue_return_slot(&p.server.producer, slots[--n]);
        }
    }
    paged_close(&p);
    crowd_free(c);
}

static void half_of_the_slots_are_left_to_others(void **state)
{
    (void)state;
    for (int number = 0; number < 4 * 8; number++) {
        const bool on_device = number / 8 % 2 != 0, irregular = number / 16 != 0;
        paged_setup setup = {.on_device = on_device,
                             .page_agents = 64,
                             .sequential = !irregular,
                             .correlated = irregular,
                             .plain_lru = irregular,
                             .ahead = 10,
                             .n_slots = number % 8 + 1,
                             .seed = 1};
        setup.room[on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = on_device ? 12 : 3;
        setup.room[QR_MEMORY_NVME] = 30;
        leaves_half_of_the_slots(&setup, irregular ? 0.01 : 1);
    }
}

/* Who shares the queue may hold every slot that is free, and still get the states of a page on disk. */
static void pages_on_disk_are_read_while_others_hold_all_slots(void **state)
{
    (void)state;
    crowd *c = neural_crowd(10 * 64, 1);
    const paged_setup setup = {.page_agents = 64, .room = {[QR_MEMORY_CPU] = 2, [QR_MEMORY_NVME] = 10}, .timeout_s = 5};
    paged p;
    float states[10 * 64 * 4], expected[10 * 64 * 4];
    open_and_make(c, &setup, &p);
    step(c, &p, 1);
    crowd_state(c, expected);
    int32_t slots[4];
    int32_t n = 0;
    must(qr_pager_read(p.pager, 0, 64, states));
    for (double end = qr_now_s() + 20; n < 3 && qr_now_s() < end;) {
        slots[n] = qr_queue_try_slot(&p.server.producer);
        n += slots[n] != QR_NO_SLOT ? 1 : 0;
        must(qr_pager_read(p.pager, 0, 64, states));
    }
    assert_int_equal(n, 3);
    qr_piece pieces[10];
    for (int page = 0; page < 10; page++) {
        pieces[page] =
            (qr_piece){.first = page * 64, .count = 64, .out = states + (size_t)page * 64 * 4, .states = true};
    }
    must(qr_pager_copy_out(p.pager, pieces, 10));
    assert_memory_equal(states, expected, sizeof states);
    while (n > 0) {
        qr_queue_return_slot(&p.server.producer, slots[--n]);
    }
    paged_close(&p);
    crowd_free(c);
}

/* On a device and on none, from memory and from disk: what is fetched is there, and what was there longest is not. */
static void single_pages_can_be_fetched(void **state)
{
    (void)state;
    enum { FRAMES = 4, PAGES = 10 };
    for (int way = 0; way < 3; way++) {
        crowd *c = neural_crowd(64 * PAGES, 1);
        paged p;
        paged_setup setup = {.on_device = way > 0, .page_agents = 64, .ahead = 2, .sequential = true};
        setup.room[way > 0 ? QR_MEMORY_GPU : QR_MEMORY_CPU] = FRAMES;
        if (way == 1) {
            setup.room[QR_MEMORY_CPU] = PAGES;
        } else {
            setup.room[QR_MEMORY_SSD] = PAGES;
        }
        open_and_make(c, &setup, &p);
        step(c, &p, 1);
        const int from = way == 1 ? QR_MEMORY_CPU : QR_MEMORY_SSD;
        const int to = way > 0 ? QR_MEMORY_GPU : QR_MEMORY_CPU;
        const int64_t before = counters_of(&p).links[from][to].pages;
        for (int64_t i = 0; i < 3 * PAGES; i++) {
            must(qr_pager_fetch(p.pager, i % PAGES));
            must(qr_pager_fetch(p.pager, i % PAGES)); /* is there already */
        }
        assert_int_equal(counters_of(&p).links[from][to].pages - before, 3 * PAGES);
        assert_int_equal(counters_of(&p).pages_in[to], FRAMES);
        paged_equals(&p, "fetched");
        step(c, &p, 2);
        paged_equals(&p, "stepped after fetching");
        paged_close(&p);
        crowd_free(c);
    }
}

/* Part of a page in a frame, then part of one that stands in a slot. */
static void writes_go_across_pages(void **state)
{
    (void)state;
    crowd *c = neural_crowd(4 * 64, 1);
    for (int on_device = 0; on_device < 2; on_device++) {
        paged_setup setup = {.on_device = on_device != 0, .page_agents = 64, .room = {[QR_MEMORY_NVME] = 4}};
        setup.room[on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 1;
        paged p;
        float states[4 * 64 * 4], expected[4 * 64 * 4];
        open_and_make(c, &setup, &p);
        crowd_state(c, expected);
        for (int first = 32; first + 100 < 4 * 64; first += 10) {
            for (int i = first * 4; i < (first + 100) * 4; i++) {
                expected[i] = (float)(i + first);
            }
            must(qr_pager_read(p.pager, (first / 64 + 1) * 64, 1, states)); /* the next page stands in a slot */
            must(qr_pager_write(p.pager, first, 100, expected + (size_t)first * 4));
            must(qr_pager_read(p.pager, 0, 4 * 64, states));
            assert_memory_equal(states, expected, sizeof states);
        }
        paged_close(&p);
    }
    crowd_free(c);
}

/* --- failures --- */

static void a_page_that_cannot_be_read_ends_the_step(void **state)
{
    (void)state;
    for (int number = 0; number < 4; number++) {
        crowd *c = neural_crowd(20 * 64, 1);
        paged_setup setup = {.on_device = number % 2 != 0, .page_agents = 64, .sequential = number >= 2, .ahead = 3};
        setup.room[setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 4;
        setup.room[QR_MEMORY_NVME] = 20;
        paged p;
        open_and_make(c, &setup, &p);
        step(c, &p, 2);
        p.server.bad_page = 11;
        qr_tally before = c->tally, after;
        assert_int_equal(paged_step(&p, 3, &before, &after), QR_DATA);
        assert_non_null(strstr(qr_error_message(), "page 11 of the states"));
        assert_non_null(strstr(qr_error_message(), "store.qps: bad checksum"));
        paged_close(&p);
        crowd_free(c);
    }
}

static void a_server_that_is_silent_is_not_waited_for(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        crowd *c = neural_crowd(20 * 64, 1);
        paged_setup setup = {.on_device = on_device != 0, .page_agents = 64, .ahead = 3, .timeout_s = 0.3};
        setup.room[setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 4;
        setup.room[QR_MEMORY_NVME] = 20;
        paged p;
        open_and_make(c, &setup, &p);
        step(c, &p, 1);
        p.server.silent = true;
        qr_tally before = c->tally, after;
        assert_int_equal(paged_step(&p, 2, &before, &after), QR_ENVIRONMENT);
        assert_non_null(strstr(qr_error_message(), "of the states"));
        paged_close(&p);
        crowd_free(c);
    }
}

static void full_tiers_spill_and_then_end_the_run(void **state)
{
    (void)state;
    crowd *c = neural_crowd(20 * 64, 1);
    paged_setup setup = {.page_agents = 64,
                         .room = {[QR_MEMORY_CPU] = 2, [QR_MEMORY_NVME] = 18, [QR_MEMORY_HDD] = 18},
                         .server_room = {5, 1, 18},
                         .sequential = true,
                         .ahead = 2};
    paged p;
    open_and_make(c, &setup, &p);
    step(c, &p, 3);
    qr_pager_counters counters = counters_of(&p);
    assert_true(counters.pages_in[QR_MEMORY_NVME] <= 5); /* whatever was meant for it */
    settle(&p);
    counters = counters_of(&p);
    const qr_link_counters *went = counters.links[QR_MEMORY_CPU];
    assert_int_equal(went[QR_MEMORY_NVME].pages + went[QR_MEMORY_SSD].pages + went[QR_MEMORY_HDD].pages, p.server.puts);
    assert_true(went[QR_MEMORY_HDD].pages >= 12 && went[QR_MEMORY_HDD].busy_s > 0 && went[QR_MEMORY_HDD].p50_us > 0);
    assert_true(went[QR_MEMORY_NVME].pages >= 5);
    for (int tier = QR_MEMORY_NVME; tier <= QR_MEMORY_HDD; tier++) {
        assert_int_equal(counters.pages_in[tier], p.server.held[tier - QR_MEMORY_NVME]);
    }
    paged_equals(&p, "after pages were spilt");
    paged_close(&p);
    setup.server_room[2] = 6;
    must(paged_open(c, &setup, &p));
    assert_int_equal(qr_pager_make_first(p.pager), QR_RESOURCE);
    assert_non_null(strstr(qr_error_message(), "all tiers are full"));
    paged_close(&p);
    crowd_free(c);
}

static void a_device_that_fails_is_told_of(void **state)
{
    (void)state;
    crowd *c = neural_crowd(20 * 64, 1);
    paged_setup setup = {.on_device = true,
                         .page_agents = 64,
                         .room = {[QR_MEMORY_GPU] = 5, [QR_MEMORY_CPU] = 20},
                         .sequential = true,
                         .ahead = 4};
    paged p;
    open_and_make(c, &setup, &p);
    step(c, &p, 2);
    late_device_break(p.device);
    qr_tally before = c->tally, after;
    assert_int_equal(paged_step(&p, 3, &before, &after), QR_DEVICE);
    assert_string_equal(qr_error_message(), "the device is lost");
    paged_close(&p);
    crowd_free(c);
}

/* --- with the server's own store --- */

static void pages_go_through_the_store(void **state)
{
    (void)state;
    for (int number = 0; number < 4; number++) {
        crowd *c = neural_crowd(24 * 128 - 50, number % 2 == 0 ? 1 : 0.01);
        shelf *s = shelf_create(128 * 16);
        paged_setup setup = {
            .on_device = number >= 2,
            .page_agents = 128,
            .room = {[QR_MEMORY_CPU] = 1, [QR_MEMORY_NVME] = 8, [QR_MEMORY_SSD] = 7, [QR_MEMORY_HDD] = 24},
            .age_s = 0,
            .high = 1,
            .low = 0.5,
            .sequential = true,
            .correlated = true,
            .ahead = 3};
        setup.room[QR_MEMORY_GPU] = setup.on_device ? 3 : 0;
        shelf_start(s);
        setup.queue = &s->ends[0];
        paged p;
        open_and_make(c, &setup, &p);
        paged_equals(&p, "at first");
        for (int i = 0; i < 6; i++) {
            step(c, &p, 1);
            paged_equals(&p, "in the store");
        }
        qr_pager_counters counters = counters_of(&p);
        assert_true(counters.links[QR_MEMORY_NVME][setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU].pages > 0);
        paged_close(&p);
        shelf_remove(s);
        crowd_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refuses_what_cannot_work),
                                       cmocka_unit_test(tells_where_a_step_begins),
                                       cmocka_unit_test(plans_come_true),
                                       cmocka_unit_test(prefetch_can_be_switched),
                                       cmocka_unit_test(pages_at_rest_stay_where_they_are),
                                       cmocka_unit_test(full_and_old_pages_sink),
                                       cmocka_unit_test(a_sink_that_fails_is_no_loss),
                                       cmocka_unit_test(nothing_sinks_where_all_fits),
                                       cmocka_unit_test(half_of_the_slots_are_left_to_others),
                                       cmocka_unit_test(pages_on_disk_are_read_while_others_hold_all_slots),
                                       cmocka_unit_test(single_pages_can_be_fetched),
                                       cmocka_unit_test(writes_go_across_pages),
                                       cmocka_unit_test(a_page_that_cannot_be_read_ends_the_step),
                                       cmocka_unit_test(a_server_that_is_silent_is_not_waited_for),
                                       cmocka_unit_test(full_tiers_spill_and_then_end_the_run),
                                       cmocka_unit_test(a_device_that_fails_is_told_of),
                                       cmocka_unit_test(pages_go_through_the_store)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
