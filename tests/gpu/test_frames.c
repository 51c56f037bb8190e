/* States in frames on the device: pages come and go in any order, in batches of any size, and the bits stay those of
 * the CPU backend, which holds all states at once; by tensor cores those of the same kernel on all states at once. */
#include "cases.h"
#include "crowd.h"
#include "run/backends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_KINDS = QR_NETWORK_EDGE_LIST + 1, STEPS = 4, SKIPPED = 77 };

static const qr_backend_ops *cuda;
static qr_backend_ops paged; /* the same, with a simple-minded pager inside */
static int cases = 240;      /* QUORATE_GPU_CASES: fewer, for slow tools that watch memory */

/* A part's pages: each in a frame or in memory beside, or in both. */
typedef struct paged_part {
    qr_backend *backend;
    int64_t count;
    int64_t dim;
    int64_t page_agents;
    int64_t n_pages;
    int64_t n_frames;
    bool pinned;
    float *memory;     /* [n_pages][page_agents][dim] */
    int64_t *page_in;  /* [n_frames] -1: none */
    int64_t *frame_of; /* [n_pages] -1: none */
    int64_t *ticket;   /* [n_pages] of the last eviction */
    int64_t *order;    /* [n_pages] */
} paged_part;

static paged_part parts[CROWD_MAX_PARTS];
static struct {
    int64_t page_agents;
    int64_t n_frames;
    uint64_t random;
    int64_t passed;
    int64_t moved;
} plan;

static void must(qr_status status)
{
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

static paged_part *part_of(const qr_backend *backend)
{
    for (int p = 0; p < CROWD_MAX_PARTS; p++) {
        if (parts[p].backend == backend) {
            return &parts[p];
        }
    }
    fail_msg("no such part");
    return NULL;
}

static float *memory_of(const paged_part *part, int64_t page)
{
    return part->memory + page * part->page_agents * part->dim;
}

static int64_t agents_of(const paged_part *part, int64_t page)
{
    int64_t left = part->count - page * part->page_agents;
    return left < part->page_agents ? left : part->page_agents;
}

static void *room(int64_t count, size_t size)
{
    void *memory = calloc((size_t)count + 1, size);
    assert_non_null(memory);
    return memory;
}

/* Frames for n pages, none of which has one; those of `kept` [n_kept] are left alone. */
static void choose_frames(const paged_part *part, const int64_t *kept, int64_t n_kept, int64_t n, int64_t *frames)
{
    bool *taken = room(part->n_frames, sizeof *taken);
    for (int64_t k = 0; k < n_kept; k++) {
        if (part->frame_of[kept[k]] >= 0) {
            taken[part->frame_of[kept[k]]] = true;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        frames[i] = case_pick(&plan.random, 0, part->n_frames - 1);
        while (taken[frames[i]]) {
            frames[i] = (frames[i] + 1) % part->n_frames;
        }
        taken[frames[i]] = true;
    }
    free(taken);
}

/* Pages out of these frames, where there are any, all in one call or each in its own. */
static void empty_frames(paged_part *part, const int64_t *frames, int64_t n)
{
    qr_frame_copy *copies = room(n, sizeof *copies);
    const bool at_once = case_pick(&plan.random, 0, 2) > 0;
    int64_t n_copies = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t page = part->page_in[frames[i]];
        if (page < 0) {
            continue;
        }
        copies[n_copies++] =
            (qr_frame_copy){.frame = frames[i], .agents = agents_of(part, page), .host = memory_of(part, page)};
        if (!at_once) {
            must(cuda->frames->evict(part->backend, &copies[n_copies - 1], 1, &part->ticket[page]));
        }
        part->frame_of[page] = -1;
    }
    if (at_once && n_copies > 0) {
        int64_t ticket = 0;
        must(cuda->frames->evict(part->backend, copies, n_copies, &ticket));
        for (int64_t i = 0; i < n; i++) {
            if (part->page_in[frames[i]] >= 0) {
                part->ticket[part->page_in[frames[i]]] = ticket;
            }
        }
    }
    for (int64_t i = 0; i < n; i++) {
        part->page_in[frames[i]] = -1;
    }
    plan.moved += n_copies;
    free(copies);
}

/* These pages into frames, without a wait for anything but a page's own way out. */
static void bring(paged_part *part, const int64_t *pages, int64_t n)
{
    int64_t *absent = room(n, sizeof *absent);
    int64_t *frames = room(n, sizeof *frames);
    qr_frame_copy *copies = room(n, sizeof *copies);
    int64_t n_absent = 0;
    int64_t ticket = 0;
    for (int64_t i = 0; i < n; i++) {
        if (part->frame_of[pages[i]] < 0) {
            absent[n_absent++] = pages[i];
        }
    }
    choose_frames(part, pages, n, n_absent, frames);
    empty_frames(part, frames, n_absent);
    for (int64_t i = 0; i < n_absent; i++) {
        const int64_t page = absent[i];
        must(cuda->frames->wait_evicted(part->backend, part->ticket[page]));
        copies[i] = (qr_frame_copy){.frame = frames[i], .agents = agents_of(part, page), .host = memory_of(part, page)};
        part->page_in[frames[i]] = page;
        part->frame_of[page] = frames[i];
        if (n_absent % 2 == 1) {
            must(cuda->frames->fill(part->backend, &copies[i], 1, &ticket));
        }
    }
    if (n_absent > 0 && n_absent % 2 == 0) {
        must(cuda->frames->fill(part->backend, copies, n_absent, &ticket));
    }
    free(absent);
    free(frames);
    free(copies);
}

static void shuffle(paged_part *part)
{
    for (int64_t i = 0; i < part->n_pages; i++) {
        int64_t other = case_pick(&plan.random, 0, i);
        part->order[i] = part->order[other];
        part->order[other] = i;
    }
}

static void free_part(paged_part *part)
{
    if (part->pinned) {
        cuda->frames->free_host(part->backend, part->memory);
    }
    cuda->destroy(part->backend); /* copies to memory that is not pinned may be under way */
    if (!part->pinned) {
        free(part->memory);
    }
    free(part->page_in);
    free(part->frame_of);
    free(part->ticket);
    free(part->order);
    memset(part, 0, sizeof *part);
}

static qr_status create_paged(const qr_backend_setup *setup, qr_backend **out)
{
    qr_backend_setup with = *setup;
    paged_part *part = part_of(NULL);
    with.page_agents = plan.page_agents;
    with.n_frames = plan.n_frames;
    qr_status status = cuda->create(&with, out);
    if (status != QR_OK) {
        return status;
    }
    part->backend = *out;
    part->count = setup->network->own.count;
    part->dim = setup->model->state_dim;
    part->page_agents = plan.page_agents;
    part->n_frames = plan.n_frames;
    part->n_pages = (part->count + part->page_agents - 1) / part->page_agents;
    part->page_in = room(part->n_frames, sizeof *part->page_in);
    part->frame_of = room(part->n_pages, sizeof *part->frame_of);
    part->ticket = room(part->n_pages, sizeof *part->ticket);
    part->order = room(part->n_pages, sizeof *part->order);
    part->pinned = case_pick(&plan.random, 0, 3) > 0;
    size_t bytes = (size_t)(part->n_pages * part->page_agents * part->dim) * sizeof(float);
    if (part->pinned) {
        void *memory = NULL;
        must(cuda->frames->allocate_host(*out, bytes, &memory));
        part->memory = memory;
    } else {
        part->memory = room((int64_t)bytes, 1);
    }
    for (int64_t f = 0; f < part->n_frames; f++) {
        part->page_in[f] = -1;
    }
    for (int64_t p = 0; p < part->n_pages; p++) {
        part->frame_of[p] = -1;
    }
    shuffle(part);
    for (int64_t i = 0; i < part->n_pages; i++) {
        int64_t frame = 0;
        choose_frames(part, part->order, 0, 1, &frame);
        empty_frames(part, &frame, 1);
        must(cuda->frames->make_first(*out, part->order[i], frame));
        part->page_in[frame] = part->order[i];
        part->frame_of[part->order[i]] = frame;
    }
    return QR_OK;
}

static void destroy_paged(qr_backend *backend)
{
    free_part(part_of(backend));
}

static qr_status update_paged(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out)
{
    paged_part *part = part_of(backend);
    int64_t *batch = room(part->n_frames, sizeof *batch);
    int64_t *frames = room(part->n_frames, sizeof *frames);
    assert_int_equal(colour, 0);
    shuffle(part);
    must(cuda->frames->begin(backend, step, before));
    for (int64_t at = 0; at < part->n_pages;) {
        const int64_t most = case_pick(&plan.random, 1, part->n_frames);
        int64_t n = 0;
        for (; at < part->n_pages && n < most; at++) {
            const int64_t page = part->order[at];
            if (!cuda->frames->is_active(backend, step, page) && case_pick(&plan.random, 0, 4) > 0) {
                must(cuda->frames->pass(backend, &page, 1));
                plan.passed++;
            } else {
                batch[n++] = page;
            }
        }
        bring(part, batch, n);
        for (int64_t i = 0; i < n; i++) {
            frames[i] = part->frame_of[batch[i]];
        }
        must(cuda->frames->update(backend, batch, frames, n));
    }
    free(batch);
    free(frames);
    return cuda->frames->finish(backend, out);
}

static qr_status read_paged(qr_backend *backend, int64_t first, int64_t count, float *out)
{
    paged_part *part = part_of(backend);
    for (int64_t frame = 0; frame < part->n_frames; frame++) {
        empty_frames(part, &frame, 1);
    }
    for (int64_t page = 0; page < part->n_pages; page++) {
        must(cuda->frames->wait_evicted(backend, part->ticket[page]));
    }
    memcpy(out, part->memory + first * part->dim, (size_t)(count * part->dim) * sizeof *out);
    return QR_OK;
}

/* Pages of so many agents, that many frames; 0: drawn. */
static crowd *open_paged(const crowd_setup *setup, int64_t page_agents, int64_t n_frames)
{
    crowd_setup with = *setup;
    crowd *c = NULL;
    plan.page_agents = page_agents != 0 ? page_agents : 64 * case_pick(&plan.random, 1, 4);
    plan.n_frames = n_frames != 0 ? n_frames : case_pick(&plan.random, 1, 6);
    with.ops = &paged;
    if (crowd_open(&with, &c) != QR_OK) {
        fail_msg("%s%s", setup->deck_text, qr_error_message());
    }
    return c;
}

static crowd *open_whole(const crowd_setup *setup)
{
    crowd *c = NULL;
    if (crowd_open(setup, &c) != QR_OK) {
        fail_msg("%s%s", setup->deck_text, qr_error_message());
    }
    return c;
}

static void check_equal(const char *text, const crowd *expected, const crowd *got)
{
    const int64_t n = expected->spec.n_agents;
    uint8_t *a = room(n, 1);
    uint8_t *b = room(n, 1);
    crowd_votes(expected, a);
    crowd_votes(got, b);
    for (int64_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            fail_msg("%spages of %lld, %lld frames, %d parts: step %lld, agent %lld votes %d instead of %d", text,
                     (long long)plan.page_agents, (long long)plan.n_frames, got->n_parts, (long long)got->step,
                     (long long)i, b[i], a[i]);
        }
    }
    free(a);
    free(b);
    if (memcmp(&expected->tally, &got->tally, sizeof got->tally) != 0) {
        fail_msg("%spages of %lld, %lld frames, %d parts: step %lld, another tally or leader", text,
                 (long long)plan.page_agents, (long long)plan.n_frames, got->n_parts, (long long)got->step);
    }
    if (crowd_hash(expected) != crowd_hash(got)) {
        fail_msg("%spages of %lld, %lld frames, %d parts: step %lld, other states", text, (long long)plan.page_agents,
                 (long long)plan.n_frames, got->n_parts, (long long)got->step);
    }
}

static void any_order_equals_the_cpu(void **state)
{
    (void)state;
    static const char *const activations[] = {"run.activation=1", "run.activation=0.5", "run.activation=0.003"};
    uint64_t random = 21;
    plan.passed = 0;
    plan.moved = 0;
    for (int number = 0; number < cases; number++) {
        drawn_case drawn;
        case_draw(&random, QR_RULE_NEURAL, (qr_network_kind)(number % N_KINDS), &drawn);
        crowd_setup setup = {.deck_text = drawn.text,
                             .overrides = &activations[number / N_KINDS % 4 % 3],
                             .n_overrides = number / N_KINDS % 4 < 3 ? 1 : 0, /* else as drawn */
                             .parts = 1 + number / 2 % 3,
                             .arcs = drawn.arcs,
                             .n_arcs = drawn.n_arcs,
                             .n_agents = drawn.n_agents};
        crowd_setup alone = setup;
        alone.parts = 1;
        crowd *cpu = open_whole(&alone);
        crowd *gpu = open_paged(&setup, 0, 0);
        for (int step = 0; step <= STEPS; step++) {
            check_equal(drawn.text, cpu, gpu);
            crowd_step(cpu, 1);
            crowd_step(gpu, 1);
        }
        crowd_step(cpu, STEPS); /* pages stay where they are between these */
        crowd_step(gpu, STEPS);
        check_equal(drawn.text, cpu, gpu);
        crowd_free(cpu);
        crowd_free(gpu);
        case_clear(&drawn);
    }
    assert_in_range(plan.passed, cases / 8, INT32_MAX);
    assert_in_range(plan.moved, cases, INT32_MAX);
}

/* Many pages to a launch and several launches to a call; sizes that other kernels are made for. */
static void large_crowds_equal_the_cpu(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        const char *crowd;
        int64_t page_agents;
        int64_t n_frames;
    } decks[] = {
        {"state_dim: 64, hidden: 64, temperature: 0.7", "network: {kind: lattice2d, size: [501, 401]}", 64, 700},
        {"state_dim: 64, hidden: 64, temperature: 0", "network: {kind: complete}", 4096, 5},
        {"state_dim: 10, hidden: 33", "network: {kind: ring, degree: 6}", 192, 300},
        {"state_dim: 13, hidden: 7, zealots: [900, 0, 3]", "network: {kind: random_regular, degree: 8}", 128, 1500},
        {"state_dim: 200, hidden: 300", "network: {kind: lattice2d, size: [90, 71]}", 64, 40},
        {"state_dim: 700, hidden: 900", "network: {kind: complete}", 64, 3},
        {"state_dim: 1000, hidden: 4000", "network: {kind: ring, degree: 2}", 64, 2}};
    for (size_t d = 0; d < sizeof decks / sizeof decks[0]; d++) {
        char text[1024];
        const bool small = d > 4;
        (void)snprintf(text, sizeof text,
                       "run: {seed: %zu, activation: %s}\noutput: {directory: none}\nagents: {options: 3%s}\n%s\n"
                       "model: {rule: neural, %s}\n",
                       d + 1, d % 3 == 1 ? "0.01" : "1",
                       strstr(decks[d].crowd, "size") != NULL ? ""
                       : small                                ? ", count: 1301"
                                                              : ", count: 150001",
                       decks[d].crowd, decks[d].model);
        crowd_setup setup = {.deck_text = text, .threads = 4};
        crowd *cpu = open_whole(&setup);
        setup.parts = 1 + (int)d % 2;
        crowd *gpu = open_paged(&setup, decks[d].page_agents, decks[d].n_frames);
        crowd_step(cpu, 3);
        crowd_step(gpu, 3);
        check_equal(text, cpu, gpu);
        crowd_free(cpu);
        crowd_free(gpu);
    }
}

/* Copies that take longer than what goes on beside them: whatever is not kept in order shows. */
static void large_pages_stay_in_order(void **state)
{
    (void)state;
    static const char text[] = "run: {seed: 3}\noutput: {directory: none}\nagents: {options: 5}\n"
                               "network: {kind: lattice2d, size: [1000, 700]}\n"
                               "model: {rule: neural, state_dim: 64, hidden: 64, temperature: 0.5}\n";
    const crowd_setup setup = {.deck_text = text, .ops = cuda};
    crowd *whole = open_whole(&setup);
    crowd *pages = open_paged(&setup, 65536, 3);
    crowd_step(whole, 6);
    crowd_step(pages, 6);
    check_equal(text, whole, pages);
    crowd_free(whole);
    crowd_free(pages);
}

static void fast_equals_fast(void **state)
{
    (void)state;
    static const int sizes[][3] = {{64, 64, 5}, {64, 64, 16}, {1, 1, 2},    {16, 16, 8},
                                   {20, 37, 3}, {33, 200, 9}, {128, 128, 5}};
    static const char *const networks[] = {"complete", "lattice2d, size: [223, 91]", "random_regular, degree: 8"};
    static const char *const activations[] = {"1", "0.4", "0.0005"};
    for (size_t s = 0; s < 3 * sizeof sizes / sizeof sizes[0]; s++) {
        const int *size = sizes[s / 3];
        const char *network = networks[s % 3];
        char text[1024];
        (void)snprintf(text, sizeof text,
                       "run: {seed: %zu, activation: %s}\noutput: {directory: none}\ncompute: {precision: fast}\n"
                       "agents: {options: %d%s}\nnetwork: {kind: %s}\n"
                       "model: {rule: neural, state_dim: %d, hidden: %d, temperature: 0.5, noise: 0.05}\n",
                       s + 1, activations[(s + s / 3) % 3], size[2],
                       strstr(network, "size") != NULL ? "" : ", count: 20293", network, size[0], size[1]);
        crowd_setup setup = {.deck_text = text, .ops = cuda, .parts = 1 + (int)s % 2};
        crowd *whole = open_whole(&setup);
        crowd *pages = open_paged(&setup, s % 2 == 0 ? 64 : 1024, s % 2 == 0 ? 170 : 4);
        assert_true(cuda->is_fast(whole->backend[0]) && cuda->is_fast(pages->backend[0]));
        crowd_step(whole, 5);
        crowd_step(pages, 5);
        check_equal(text, whole, pages);
        crowd_free(whole);
        crowd_free(pages);
    }
}

static const char small_deck[] = "output: {directory: none}\nagents: {options: 5, count: 100000}\n"
                                 "network: {kind: complete}\nmodel: {rule: neural, state_dim: 64, hidden: 64}\n";

static void links_are_measured(void **state)
{
    (void)state;
    const crowd_setup setup = {.deck_text = small_deck};
    crowd *c = open_paged(&setup, 4096, 4);
    double in = 0;
    double out = 0;
    double both = 0;
    const uint64_t before = crowd_hash(c);
    must(cuda->frames->measure_links(c->backend[0], &in, &out, &both));
    (void)printf("pinned copies: in %.1f GB/s, out %.1f GB/s, both at once %.1f GB/s\n", in * 1e-9, out * 1e-9,
                 both * 1e-9);
    assert_true(in > 1e9 && out > 1e9 && both > 0.8 * in && both > 0.8 * out);
    assert_true(crowd_hash(c) == before);
    crowd_free(c);
}

/* Tickets ascend, and are done at the latest when they have been waited for. Time of kernels is counted. */
static void tickets_and_times_add_up(void **state)
{
    (void)state;
    enum { CALLS = 700 }; /* more than are ever under way */
    const crowd_setup setup = {.deck_text = small_deck};
    crowd *c = open_paged(&setup, 4096, 4);
    qr_backend *backend = c->backend[0];
    qr_counters before;
    qr_counters after;
    int64_t ticket = 0;
    int64_t last = 0;
    cuda->counters(backend, &before);
    crowd_step(c, 3);
    cuda->counters(backend, &after);
    assert_true(after.kernel_s > before.kernel_s && after.kernel_s < before.kernel_s + 3.0);
    assert_true(after.moved_bytes - before.moved_bytes >= 3.0 * 100000 * 64 * 8);
    paged_part *part = part_of(backend);
    for (int call = 0; call < CALLS; call++) {
        qr_frame_copy copy = {.frame = 1, .agents = 64, .host = part->memory};
        must(cuda->frames->evict(backend, &copy, 1, &ticket));
        assert_true(ticket > last && cuda->frames->evicted(backend) <= ticket);
        last = ticket;
    }
    must(cuda->frames->wait_evicted(backend, ticket));
    assert_int_equal(cuda->frames->evicted(backend), ticket);
    assert_int_equal(cuda->frames->wait_evicted(backend, ticket + 1), QR_INTERNAL);
    crowd_free(c);
}

int main(void)
{
    char why[512] = "";
    cuda = qr_backend_load_cuda(why, sizeof why);
    if (cuda == NULL) {
        (void)printf("skipped, there is no CUDA device to test: %s\n", why);
        return SKIPPED;
    }
    const char *wanted = getenv("QUORATE_GPU_CASES");
    cases = wanted != NULL ? (int)strtol(wanted, NULL, 10) : cases;
    cmocka_set_test_filter(getenv("QUORATE_GPU_TESTS"));
    paged = *cuda;
    paged.create = create_paged;
    paged.destroy = destroy_paged;
    paged.update = update_paged;
    paged.read_state = read_paged;
    paged.run = NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_equals_the_cpu),  cmocka_unit_test(large_crowds_equal_the_cpu),
        cmocka_unit_test(large_pages_stay_in_order), cmocka_unit_test(fast_equals_fast),
        cmocka_unit_test(links_are_measured),        cmocka_unit_test(tickets_and_times_add_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
