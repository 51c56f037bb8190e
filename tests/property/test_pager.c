/* Crowds in pages against the same crowds held whole: any sizes, tiers, prefetch and activation, on host memory and on
 * a device that takes its time. */
#include "network_parts.h"
#include "paged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1000, MOST_STEPS = 6 };

typedef struct drawn {
    crowd *c;
    paged_setup setup;
    int64_t steps;
    bool written; /* first states are written, not made */
    bool full;    /* every page is touched in every step */
} drawn;

static int64_t pick(uint64_t *random, int64_t low, int64_t high)
{
    return case_between(random, low, high);
}

static crowd *draw_crowd(uint64_t *random, bool *full)
{
    static const double activations[] = {1, 1, 0.5, 0.01, 0.002};
    char network[96];
    int64_t n = pick(random, 65, 2000), options = pick(random, 3, 5);
    double activation = activations[pick(random, 0, 4)];
    *full = activation == 1;
    switch (pick(random, 0, 2)) {
    case 0: (void)snprintf(network, sizeof network, "{kind: complete}"); break;
    case 1: (void)snprintf(network, sizeof network, "{kind: ring, degree: 4}"); break;
    default:
        (void)snprintf(network, sizeof network, "{kind: lattice2d, size: [%lld, %lld]}", (long long)(n = n / 40 + 3),
                       40LL);
        n *= 40;
        break;
    }
    return crowd_make("run: {seed: %lld, activation: %g}\noutput: {directory: none}\n"
                      "agents: {count: %lld, options: %lld}\nnetwork: %s\n"
                      "model: {rule: neural, state_dim: %lld, hidden: %lld, weight_scale: 2, noise: %g%s}\n",
                      (long long)pick(random, 0, 1000000), activation, (long long)n, (long long)options, network,
                      (long long)pick(random, 1, 5), (long long)pick(random, 1, 6), pick(random, 0, 1) == 0 ? 0.0 : 0.1,
                      options == 3 && pick(random, 0, 2) == 0 ? ", zealots: [3, 1, 2]" : "");
}

/* Room for all pages, often no more than just that. */
static void draw_room(uint64_t *random, int64_t n_pages, paged_setup *setup)
{
    int top = setup->on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    int64_t left = n_pages;
    for (int tier = top; tier < QR_N_MEMORY_TIERS; tier++) {
        int64_t room = pick(random, 0, 2) == 0 ? 1 : pick(random, 0, n_pages);
        setup->room[tier] = tier == top && room == 0 ? 1 : room;
        left -= setup->room[tier];
    }
    int last = pick(random, 0, 5) == 0 ? top : (int)pick(random, top, QR_MEMORY_HDD);
    setup->room[last] += left > 0 ? left : 0;
}

static void draw(uint64_t *random, bool on_device, drawn *out)
{
    *out = (drawn){0};
    out->c = draw_crowd(random, &out->full);
    paged_setup *s = &out->setup;
    *s = (paged_setup){.on_device = on_device,
                       .page_agents = 64 * pick(random, 1, 4),
                       .age_s = pick(random, 0, 3) == 0 ? 0 : 1e9,
                       .sequential = pick(random, 0, 3) != 0,
                       .correlated = pick(random, 0, 1) == 0,
                       .plain_lru = pick(random, 0, 7) == 0,
                       .ahead = pick(random, 0, 9),
                       .n_slots = (int32_t)pick(random, 1, 8),
                       .threads = 1,
                       .seed = case_random(random)};
    draw_room(random, (out->c->spec.n_agents + s->page_agents - 1) / s->page_agents, s);
    if (pick(random, 0, 2) == 0) {
        s->high = 0.25 * (double)pick(random, 1, 4);
        s->low = s->high * 0.5 * (double)pick(random, 0, 2);
    }
    out->steps = pick(random, 1, MOST_STEPS);
    out->written = pick(random, 0, 2) == 0;
}

static void must(const paged *p, qr_status status, const char *what)
{
    if (status != QR_OK) {
        fail_msg("%s: %s (%s)", what, qr_error_message(), paged_describe(p));
    }
}

/* The crowd's states in pieces, in a drawn order, of drawn lengths. */
static void write_all(uint64_t *random, paged *p)
{
    int64_t n = p->c->spec.n_agents, dim = p->c->model->state_dim;
    float *states = malloc((size_t)n * (size_t)p->agent_bytes);
    assert_non_null(states);
    crowd_state(p->c, states);
    int64_t length = pick(random, 1, n), pieces = (n + length - 1) / length;
    qr_permutation order = qr_permutation_make((uint64_t)pieces, case_random(random));
    bool ascending = pick(random, 0, 1) == 0;
    for (int64_t i = 0; i < pieces; i++) {
        int64_t first = (ascending ? i : (int64_t)qr_permutation_apply(&order, (uint64_t)i)) * length;
        int64_t count = first + length < n ? length : n - first;
        must(p, qr_pager_write(p->pager, first, count, states + first * dim), "writing");
    }
    free(states);
}

/* Reads and copies of some agents move no page. */
static void look_at_some(uint64_t *random, paged *p)
{
    int64_t n = p->c->spec.n_agents, dim = p->c->model->state_dim;
    int64_t first = pick(random, 0, n - 1), count = pick(random, 1, n - first);
    int64_t page = first / p->setup.page_agents, end = (page + 1) * p->setup.page_agents;
    float *states = malloc(2 * (size_t)n * (size_t)p->agent_bytes);
    assert_non_null(states);
    float *expected = states + n * dim;
    qr_pager_counters before, after;
    crowd_state(p->c, expected);
    must(p, qr_pager_read(p->pager, first, count, states), "reading");
    assert_memory_equal(states, expected + first * dim, (size_t)(count * p->agent_bytes));
    end = end < n ? end : n;
    first = pick(random, 0, 1) == 0 ? page * p->setup.page_agents : first;
    const qr_piece piece = {.first = first, .count = end - first, .out = states, .states = true};
    qr_pager_counters_read(p->pager, &before);
    must(p, qr_pager_copy_out(p->pager, &piece, 1), "copying out");
    assert_memory_equal(states, expected + first * dim, (size_t)(piece.count * p->agent_bytes));
    qr_pager_counters_read(p->pager, &after);
    assert_int_equal(after.pages_in[0], before.pages_in[0]);
    int tier = -1;
    int64_t version = -1;
    if (p->served && qr_pager_on_disk(p->pager, page, &tier, &version)) {
        assert_int_equal(p->server.pages[page].tier, tier);
        assert_int_equal(p->server.pages[page].version, version);
    }
    free(states);
}

static int64_t came_up(const qr_pager_counters *counters)
{
    int64_t pages = 0;
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        pages += counters->links[tier][QR_MEMORY_GPU].pages;
        pages += tier > QR_MEMORY_CPU ? counters->links[tier][QR_MEMORY_CPU].pages : 0;
    }
    return pages;
}

static int64_t went_down(const qr_pager_counters *counters, int top)
{
    int64_t pages = 0;
    for (int tier = top + 1; tier < QR_N_MEMORY_TIERS; tier++) {
        pages += counters->links[top][tier].pages;
    }
    return pages;
}

static void check_counters(const drawn *d, const paged *p, int64_t steps)
{
    qr_pager_counters counters;
    qr_pager_counters_read(p->pager, &counters);
    int64_t pages = 0;
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        pages += counters.pages_in[tier];
        for (int to = 0; to < QR_N_MEMORY_TIERS; to++) {
            const qr_link_counters *link = &counters.links[tier][to];
            assert_true(link->bytes <= link->pages * p->setup.page_agents * p->agent_bytes);
            assert_true(link->p50_us <= link->p99_us && link->p99_us <= link->max_us);
            assert_true(link->pages == 0 || link->busy_s > 0);
        }
    }
    pages += counters.leaving;
    assert_int_equal(pages, p->n_pages);
    assert_int_equal(counters.n_pages, p->n_pages);
    assert_int_equal(counters.touched + counters.passed, steps * p->n_pages);
    if (d->full) {
        assert_int_equal(counters.passed, 0);
    }
    int top = p->setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    assert_true(counters.pages_in[top] <= p->setup.room[top]);
}

/* In sweeps over all pages those that do not fit go each way, and no others. Those on their way down when a step ends
 * are counted when they are there. */
static void check_traffic(const drawn *d, const paged *p, int64_t step, const qr_pager_counters *before,
                          const qr_pager_counters *after)
{
    int top = p->setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    int64_t beyond = p->n_pages - p->setup.room[top];
    int64_t up = came_up(after) - came_up(before), down = went_down(after, top);
    beyond = beyond > 0 ? beyond : 0;
    if (!d->full) {
        return;
    }
    if (p->setup.plain_lru) { /* each page has left when the next sweep asks for it */
        if (step > 1 && up != (beyond > 0 ? p->n_pages : 0)) {
            fail_msg("plain LRU, step %lld: %lld pages came (%s)", (long long)step, (long long)up, paged_describe(p));
        }
        return;
    }
    int64_t most = (step + 1) * beyond;
    if (d->written) { /* pages written in pieces may have come and gone several times */
        most = down;
    }
    if (up != beyond || down > most || (!p->setup.on_device && down < most - p->setup.n_slots)) {
        fail_msg("step %lld: %lld pages came and %lld left so far, %lld are beyond capacity (%s)", (long long)step,
                 (long long)up, (long long)down, (long long)beyond, paged_describe(p));
    }
    int64_t used = after->hits + after->late + after->misses - before->hits - before->late - before->misses;
    if (used != beyond || after->wasted != before->wasted) {
        fail_msg("%lld hits, %lld late, %lld misses, %lld wasted; %lld are beyond capacity (%s)",
                 (long long)(after->hits - before->hits), (long long)(after->late - before->late),
                 (long long)(after->misses - before->misses), (long long)(after->wasted - before->wasted),
                 (long long)beyond, paged_describe(p));
    }
}

static void run_case(uint64_t *random, drawn *d)
{
    paged p;
    if (paged_open(d->c, &d->setup, &p) != QR_OK) {
        fail_msg("%s (%s)", qr_error_message(), paged_describe(&p));
    }
    if (d->written) {
        write_all(random, &p);
    } else {
        must(&p, qr_pager_make_first(p.pager), "making");
    }
    bool looked = pick(random, 0, 1) == 0;
    if (looked) {
        paged_equals(&p, "at first");
    }
    for (int64_t step = 1; step <= d->steps; step++) {
        qr_tally before = d->c->tally, after;
        qr_pager_counters then, now;
        crowd_step(d->c, 1);
        qr_pager_counters_read(p.pager, &then);
        must(&p, paged_step(&p, step, &before, &after), "a step");
        qr_pager_counters_read(p.pager, &now);
        if (memcmp(&after, &d->c->tally, sizeof after) != 0) {
            fail_msg("step %lld: another tally (%s)", (long long)step, paged_describe(&p));
        }
        if (!looked && (step > 1 || !d->written)) {
            check_traffic(d, &p, step, &then, &now);
        }
        looked = pick(random, 0, 2) == 0; /* leaves pages in slots, which the next step takes from there */
        if (looked) {
            look_at_some(random, &p);
        }
    }
    check_counters(d, &p, d->steps);
    paged_equals(&p, "at the end");
    check_counters(d, &p, d->steps);
    assert_int_equal(p.server.confused, 0);
    paged_close(&p);
}

static void run_all(uint64_t random, bool on_device)
{
    for (int number = 0; number < CASES; number++) {
        drawn d;
        draw(&random, on_device, &d);
        run_case(&random, &d);
        crowd_free(d.c);
    }
}

static void frames_in_host_memory_give_the_same(void **state)
{
    (void)state;
    run_all(11, false);
}

static void frames_on_a_device_give_the_same(void **state)
{
    (void)state;
    run_all(12, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frames_in_host_memory_give_the_same),
                                       cmocka_unit_test(frames_on_a_device_give_the_same)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
