/* Which pages steps of few agents touch, and the figures of prefetch: a server that is quick, or slow with one page,
 * makes them exact. */
#include "base/timer.h"
#include "page/parts.h"
#include "paged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { PAGE = 64, PAGES = 30, ROOM = 6, AHEAD = 4, SLOTS = 16, BEYOND = PAGES - ROOM, DIM = 4 };

/* Between pager and backend: which pages are active, and a moment after each update in which the server answers. */
static struct {
    const qr_frame_ops *inner;
    paged *p;
    int64_t slow_after; /* the server takes its time from the update of this page on */
    bool chosen;        /* by `active`, not by the crowd's random numbers */
    bool active[PAGES];
} between;

static void must(qr_status status)
{
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

static bool is_active(const qr_backend *backend, int64_t step, int64_t page)
{
    return between.chosen ? between.active[page] : between.inner->is_active(backend, step, page);
}

/* All that was asked of the server is answered, but the page with which it is slow. */
static void let_server_answer(void)
{
    const qr_pager *pager = between.p->pager;
    const double end = qr_now_s() + 60;
    for (int32_t i = 0; i < pager->n_busy; i++) {
        const qr_page_job *job = &pager->jobs[pager->busy_slots[i]];
        qr_status status = QR_OK;
        int64_t value = 0;
        while (job->asked && job->page != between.p->server.slow_page &&
               !qr_queue_answered(pager->config.queue, pager->busy_slots[i], &status, &value)) {
            const struct timespec moment = {0, 100000};
            (void)nanosleep(&moment, NULL);
            assert_true(qr_now_s() < end);
        }
    }
}

static qr_status update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    qr_status status = between.inner->update(backend, pages, frames, n);
    let_server_answer();
    for (int64_t i = 0; i < n; i++) {
        if (pages[i] == between.slow_after) { /* which is asked for next, in microseconds */
            between.p->server.slow_until_us = (long long)(1e6 * (qr_now_s() + 0.3));
        }
    }
    return status;
}

static crowd *make_crowd(double activation)
{
    return crowd_make("run: {seed: 5, activation: %g}\noutput: {directory: none}\nagents: {count: %d, options: 3}\n"
                      "network: {kind: ring, degree: 4}\nmodel: {rule: neural, state_dim: %d, hidden: 3}\n",
                      activation, PAGES * PAGE, DIM);
}

/* A pager of PAGES pages, ROOM of which lie in frames and the others with the server. */
static void open_between(const crowd *c, const paged_setup *wanted, paged *p)
{
    static qr_backend_ops ops;
    static qr_frame_ops frames;
    paged_setup setup = *wanted;
    setup.page_agents = PAGE;
    setup.n_slots = setup.n_slots > 0 ? setup.n_slots : SLOTS;
    setup.room[setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = ROOM;
    setup.room[QR_MEMORY_NVME] = PAGES;
    must(paged_open(c, &setup, p));
    qr_pager_destroy(p->pager);
    ops = *p->config.ops;
    frames = *ops.frames;
    between.inner = p->config.ops->frames;
    between.p = p;
    between.chosen = false;
    between.slow_after = -1;
    frames.is_active = is_active;
    frames.update = update;
    ops.frames = &frames;
    p->config.ops = &ops;
    must(qr_pager_create(&p->config, &p->pager));
    must(qr_pager_make_first(p->pager));
}

static qr_pager_counters counters_of(const paged *p)
{
    qr_pager_counters counters;
    qr_pager_counters_read(p->pager, &counters);
    return counters;
}

/* Pages of nobody but these move in the step. */
static void step_of(const crowd *c, paged *p, int64_t step, const int *pages, int n)
{
    qr_tally after;
    between.chosen = true;
    memset(between.active, 0, sizeof between.active);
    for (int i = 0; i < n; i++) {
        between.active[pages[i]] = true;
    }
    let_server_answer(); /* what left in the last step */
    must(paged_step(p, step, &c->tally, &after));
}

static void step_of_all(const crowd *c, paged *p, int64_t step)
{
    int all[PAGES];
    for (int page = 0; page < PAGES; page++) {
        all[page] = page;
    }
    step_of(c, p, step, all, PAGES);
}

typedef struct figures {
    int64_t hits, late, misses, wasted;
} figures;

static void expect(const paged *p, const qr_pager_counters *before, figures expected, const char *when)
{
    const qr_pager_counters now = counters_of(p);
    const figures got = {now.hits - before->hits, now.late - before->late, now.misses - before->misses,
                         now.wasted - before->wasted};
    if (memcmp(&got, &expected, sizeof got) != 0) {
        fail_msg("%s: %lld hits, %lld late, %lld misses, %lld wasted instead of %lld, %lld, %lld, %lld (%s)", when,
                 (long long)got.hits, (long long)got.late, (long long)got.misses, (long long)got.wasted,
                 (long long)expected.hits, (long long)expected.late, (long long)expected.misses,
                 (long long)expected.wasted, paged_describe(p));
    }
}

/* --- pages at rest --- */

static bool differ(const float *before, const float *after, int page)
{
    for (int i = page * PAGE * DIM; i < (page + 1) * PAGE * DIM; i++) {
        if (before[i] != after[i]) {
            return true;
        }
    }
    return false;
}

/* A page is touched, and brought, in those steps alone in which the state of one of its agents changes. */
static void only_pages_with_active_agents_are_touched(void **state)
{
    (void)state;
    static float before[PAGES * PAGE * DIM], after[PAGES * PAGE * DIM];
    for (int number = 0; number < 6; number++) {
        static const double activations[] = {0.05, 0.005, 0.0005};
        crowd *c = make_crowd(activations[number / 2]);
        const paged_setup setup = {
            .on_device = number % 2 != 0, .sequential = true, .correlated = true, .ahead = AHEAD, .threads = 3};
        const int top = setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
        int64_t rested = 0, moved = 0;
        paged p;
        open_between(c, &setup, &p);
        for (int64_t step = 1; step <= 20; step++) {
            qr_tally tally = c->tally, out;
            const qr_pager_counters then = counters_of(&p);
            int64_t active = 0, on_disk = 0, came = 0;
            crowd_state(c, before);
            crowd_step(c, 1);
            crowd_state(c, after);
            for (int page = 0; page < PAGES; page++) {
                if (differ(before, after, page)) {
                    int tier = 0;
                    int64_t version = 0;
                    active++;
                    on_disk += qr_pager_on_disk(p.pager, page, &tier, &version) ? 1 : 0;
                }
            }
            must(paged_step(&p, step, &tally, &out));
            assert_memory_equal(&out, &c->tally, sizeof out);
            const qr_pager_counters now = counters_of(&p);
            for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
                came += now.links[tier][top].pages - then.links[tier][top].pages;
            }
            assert_int_equal(now.touched - then.touched, active);
            assert_int_equal(now.passed - then.passed, PAGES - active);
            assert_in_range(came, on_disk, active);
            rested += PAGES - active;
            moved += active;
        }
        assert_true(rested > 0 && moved > 0);
        paged_equals(&p, "a few agents at a time");
        paged_close(&p);
        crowd_free(c);
    }
}

/* --- prefetch --- */

static void run_on_both(void (*test)(crowd *c, bool on_device))
{
    for (int on_device = 0; on_device < 2; on_device++) {
        crowd *c = make_crowd(1);
        test(c, on_device != 0);
        crowd_free(c);
    }
}

static void sweep_in_sequence(crowd *c, bool on_device)
{
    paged p;
    open_between(c, &(paged_setup){.on_device = on_device, .sequential = true, .ahead = AHEAD}, &p);
    for (int64_t step = 1; step <= 6; step++) {
        const qr_pager_counters before = counters_of(&p);
        step_of_all(c, &p, step);
        expect(&p, &before, (figures){BEYOND, 0, 0, 0}, "in sequence");
    }
    paged_close(&p);
}

static void sequences_are_foreseen(void **state)
{
    (void)state;
    run_on_both(sweep_in_sequence);
}

static const int some[] = {1, 2, 5, 6, 9, 14, 15, 20, 26, 29}, others[] = {1, 4, 7, 10, 13, 18, 22, 23, 27, 28};
enum { SOME = 10 };

/* Of a row of pages that repeats, the second round is foreseen, either way; another row is not. */
static void sweep_irregularly(crowd *c, bool on_device)
{
    paged p;
    open_between(c, &(paged_setup){.on_device = on_device, .correlated = true, .ahead = AHEAD}, &p);
    for (int64_t step = 1; step <= 9; step++) {
        const qr_pager_counters before = counters_of(&p);
        const bool first = step == 1, other = step == 7; /* 3 of the first, 1 of the other row is in frames */
        step_of(c, &p, step, step < 7 ? some : others, SOME);
        expect(&p, &before, (figures){first || other ? 0 : SOME - ROOM, 0, first ? 7 : other ? 9 : 0, 0}, "a row");
    }
    paged_close(&p);
}

static void what_followed_once_is_foreseen(void **state)
{
    (void)state;
    run_on_both(sweep_irregularly);
}

static void sweep_without(crowd *c, bool on_device)
{
    paged p;
    open_between(c, &(paged_setup){.on_device = on_device, .ahead = AHEAD}, &p);
    for (int64_t step = 1; step <= 3; step++) {
        const qr_pager_counters before = counters_of(&p);
        step_of_all(c, &p, step);
        expect(&p, &before, (figures){0, 0, BEYOND, 0}, "without prefetch");
    }
    paged_close(&p);
}

static void nothing_is_foreseen_where_that_is_off(void **state)
{
    (void)state;
    run_on_both(sweep_without);
}

/* Asked for ahead, but not there in time. */
static void wait_for_one(crowd *c, bool on_device)
{
    for (int correlated = 0; correlated < 2; correlated++) {
        const paged_setup setup = {
            .on_device = on_device, .sequential = !correlated, .correlated = correlated != 0, .ahead = AHEAD};
        paged p;
        open_between(c, &setup, &p);
        step_of_all(c, &p, 1);
        step_of_all(c, &p, 2);
        const qr_pager_counters before = counters_of(&p);
        p.server.slow_until_us = INT64_MAX;
        p.server.slow_page = 17;
        between.slow_after = 16;
        step_of_all(c, &p, 3);
        expect(&p, &before, (figures){BEYOND - 1, 1, 0, 0}, "one is late");
        assert_true(counters_of(&p).waited_s - before.waited_s > 0.1);
        paged_close(&p);
    }
}

static void pages_that_come_late_are_counted(void **state)
{
    (void)state;
    run_on_both(wait_for_one);
}

/* All pages that are in no frame are on disk, and the server has nothing to do. */
static void settle(paged *p)
{
    do {
        let_server_answer();
        must(qr_pager_poll(p->pager));
    } while (p->pager->n_asked > 0 || counters_of(p).pages_in[QR_MEMORY_NVME] < BEYOND);
}

/* Each in two halves. */
static void read_pages(paged *p, int64_t first, int64_t end)
{
    float states[PAGE / 2 * DIM];
    for (int64_t page = first; page < end; page++) {
        let_server_answer();
        must(qr_pager_read(p->pager, page * PAGE, PAGE / 2, states));
        must(qr_pager_read(p->pager, page * PAGE + PAGE / 2, PAGE / 2, states));
    }
}

/* Pages read in ascending order are fetched ahead from the third on, no more of them than slots can be kept. */
static void read_in_sequence(crowd *c, bool on_device)
{
    for (int32_t n_slots = 4; n_slots <= SLOTS; n_slots += 4) {
        const bool ahead = n_slots > 4;
        qr_pager_counters before;
        paged p;
        open_between(c, &(paged_setup){.on_device = on_device, .sequential = true, .ahead = AHEAD, .n_slots = n_slots},
                     &p);
        settle(&p);
        before = counters_of(&p);
        read_pages(&p, 10, 13);
        expect(&p, &before, (figures){0, 0, 3, 0}, "reading the first");
        before = counters_of(&p);
        read_pages(&p, 13, 21);
        expect(&p, &before, (figures){ahead ? 8 : 0, 0, ahead ? 0 : 8, 0}, "reading on");
        paged_equals(&p, "read");
        paged_close(&p);
    }
}

static void reads_are_foreseen(void **state)
{
    (void)state;
    run_on_both(read_in_sequence);
}

/* Others take all slots: of two pages that were fetched ahead one is let go for another. */
static void read_elsewhere(crowd *c, bool on_device)
{
    enum { FEW = 8 };
    int32_t slots[FEW];
    int32_t n = 0;
    paged p;
    open_between(c, &(paged_setup){.on_device = on_device, .sequential = true, .ahead = AHEAD, .n_slots = FEW}, &p);
    settle(&p);
    read_pages(&p, 10, 13); /* and asks for 13 and 14 */
    qr_pager_counters before = counters_of(&p);
    while (n < FEW && (slots[n] = qr_queue_try_slot(p.config.queue)) != QR_NO_SLOT) {
        n++;
    }
    assert_int_equal(n, FEW - 3);
    read_pages(&p, 25, 26);
    expect(&p, &before, (figures){0, 0, 1, 1}, "reading elsewhere");
    while (n > 0) {
        qr_queue_return_slot(p.config.queue, slots[--n]);
    }
    before = counters_of(&p);
    read_pages(&p, 13, 15);
    expect(&p, &before, (figures){1, 0, 1, 0}, "reading on");
    paged_close(&p);
}

static void pages_that_are_fetched_in_vain_are_counted(void **state)
{
    (void)state;
    run_on_both(read_elsewhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_pages_with_active_agents_are_touched),
                                       cmocka_unit_test(sequences_are_foreseen),
                                       cmocka_unit_test(what_followed_once_is_foreseen),
                                       cmocka_unit_test(nothing_is_foreseen_where_that_is_off),
                                       cmocka_unit_test(pages_that_come_late_are_counted),
                                       cmocka_unit_test(reads_are_foreseen),
                                       cmocka_unit_test(pages_that_are_fetched_in_vain_are_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
