/* Once a pager is made, steps, reads and fetches take no memory: neither for its tables nor for pages under way. */
#include "base/memory.h"
#include "paged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGES = 30, PAGE = 64, DIM = 4 };

/* Of this thread, while `counting`. */
static _Thread_local bool counting;
static _Thread_local int64_t allocations;

/* Sanitizers count by themselves. */
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_COUNT 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CAN_COUNT 0
#endif
#endif
#ifndef CAN_COUNT
#define CAN_COUNT 1
#endif

#if CAN_COUNT
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*,readability-*):
 * the C library's own, which those of the program take the place of */

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
    allocations += counting ? 1 : 0;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t size)
{
    allocations += counting ? 1 : 0;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t bytes)
{
    allocations += counting ? 1 : 0;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    allocations += counting ? 1 : 0;
    return __libc_memalign(alignment, bytes);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*,readability-*)
 */
#endif

static void must(qr_status status)
{
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

/* The device that plays one keeps lists of its own. */
static const qr_frame_ops *inner;

static qr_status update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    const bool before = counting;
    counting = false;
    qr_status status = inner->update(backend, pages, frames, n);
    counting = before;
    return status;
}

static qr_status fill(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    const bool before = counting;
    counting = false;
    qr_status status = inner->fill(backend, copies, n, ticket);
    counting = before;
    return status;
}

static qr_status evict(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    const bool before = counting;
    counting = false;
    qr_status status = inner->evict(backend, copies, n, ticket);
    counting = before;
    return status;
}

static void open_counted(const crowd *c, bool on_device, paged *p)
{
    static qr_backend_ops ops;
    static qr_frame_ops frames;
    paged_setup setup = {
        .on_device = on_device, .page_agents = PAGE, .sequential = true, .correlated = true, .ahead = 4, .n_slots = 6};
    setup.room[on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU] = 7;
    setup.room[on_device ? QR_MEMORY_CPU : QR_MEMORY_NVME] = 9;
    setup.room[QR_MEMORY_SSD] = PAGES;
    must(paged_open(c, &setup, p));
    qr_pager_destroy(p->pager);
    ops = *p->config.ops;
    inner = ops.frames;
    frames = *inner;
    frames.update = update;
    if (on_device) {
        frames.fill = fill;
        frames.evict = evict;
    }
    ops.frames = &frames;
    p->config.ops = &ops;
    must(qr_pager_create(&p->config, &p->pager));
    must(qr_pager_make_first(p->pager));
}

static void steps_take_no_memory(void **state)
{
    (void)state;
    if (!CAN_COUNT) {
        skip();
    }
    for (int number = 0; number < 4; number++) {
        static float states[PAGES * PAGE * DIM];
        crowd *c = crowd_make("run: {seed: 5, activation: %g}\noutput: {directory: none}\n"
                              "agents: {count: %d, options: 3}\nnetwork: {kind: complete}\n"
                              "model: {rule: neural, state_dim: %d, hidden: 3}\n",
                              number < 2 ? 1.0 : 0.02, PAGES * PAGE, DIM);
        paged p;
        open_counted(c, number % 2 != 0, &p);
        for (int64_t step = 1; step <= 10; step++) {
            qr_tally before = c->tally, after;
            crowd_step(c, 1);
            allocations = 0;
            counting = true;
            qr_status stepped = qr_pager_step(p.pager, step, &before, &after);
            qr_status read = qr_pager_read(p.pager, 0, PAGES * PAGE, states);
            qr_status fetched = qr_pager_fetch(p.pager, 3 * step % PAGES);
            counting = false;
            must(stepped);
            must(read);
            must(fetched);
            assert_memory_equal(&after, &c->tally, sizeof after);
            if (allocations > 0) {
                fail_msg("%lld allocations in step %lld (%s)", (long long)allocations, (long long)step,
                         paged_describe(&p));
            }
        }
        paged_equals(&p, "after steps");
        paged_close(&p);
        crowd_free(c);
    }
}

/* Or nothing above would show. */
static void allocations_are_seen(void **state)
{
    (void)state;
    void *memory = NULL;
    if (!CAN_COUNT) {
        skip();
    }
    allocations = 0;
    counting = true;
    qr_status status = qr_allocate(1, 100, "a test", &memory);
    counting = false;
    must(status);
    free(memory);
    assert_int_equal(allocations, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(allocations_are_seen), cmocka_unit_test(steps_take_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
