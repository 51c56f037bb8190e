/* Frames of the CUDA backend by themselves: how many there is room for, which pages are active, and what becomes of
 * calls when the device is full or stuck. */
#include "base/fault.h"
#include "base/timer.h"
#include "crowd.h"
#include "run/backends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SKIPPED = 77 };

static const qr_backend_ops *cuda;

static void must(qr_status status)
{
    if (status != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

static crowd *open_whole(const crowd_setup *setup)
{
    crowd *c = NULL;
    if (crowd_open(setup, &c) != QR_OK) {
        fail_msg("%s%s", setup->deck_text, qr_error_message());
    }
    return c;
}

static const char small_deck[] = "output: {directory: none}\nagents: {options: 5, count: 100000}\n"
                                 "network: {kind: complete}\nmodel: {rule: neural, state_dim: 64, hidden: 64}\n";

/* What fits is found before, taken then, and one more page than the device could ever hold is refused with figures. */
static void room_is_what_fits(void **state)
{
    (void)state;
    enum { PAGE = 4096 };
    const crowd_setup setup = {.deck_text = small_deck};
    crowd *c = open_whole(&setup);
    qr_backend_setup with = {.model = c->model, .network = c->network[0], .threads = 1, .page_agents = PAGE};
    qr_backend *backend = NULL;
    int64_t n_frames = 0;
    int64_t bytes = 0;
    must(cuda->frames->room(&with, &n_frames, &bytes));
    const int64_t frame_bytes = (int64_t)PAGE * 64 * (int64_t)sizeof(float);
    assert_in_range(n_frames * frame_bytes, bytes / 2, bytes - ((int64_t)500 << 20));
    with.n_frames = n_frames;
    must(cuda->create(&with, &backend));
    assert_false(cuda->runs_alone(backend));
    cuda->destroy(backend);
    with.n_frames = bytes / frame_bytes + 1;
    assert_int_equal(cuda->create(&with, &backend), QR_RESOURCE);
    assert_non_null(strstr(qr_error_message(), "memory.tiers.gpu.capacity"));
    assert_non_null(strstr(qr_error_message(), "bytes"));
    crowd_free(c);
}

/* Frames that leave a few MiB are no reason to fail. */
static void links_are_measured_where_frames_take_nearly_all(void **state)
{
    (void)state;
    enum { PAGE = 4096, LEFT = 24, TRIES = 200 }; /* pages of 1 MiB */
    const crowd_setup setup = {.deck_text = small_deck};
    crowd *c = open_whole(&setup);
    qr_backend_setup with = {.model = c->model, .network = c->network[0], .threads = 1, .page_agents = PAGE};
    qr_backend *backend = NULL;
    int64_t bytes = 0;
    double rates[3] = {0};
    must(cuda->frames->room(&with, &with.n_frames, &bytes));
    with.n_frames = bytes >> 20;
    qr_status status = QR_RESOURCE;
    for (int i = 0; i < TRIES && status == QR_RESOURCE; i++) {
        with.n_frames -= LEFT / 2;
        status = cuda->create(&with, &backend);
    }
    must(status);
    cuda->destroy(backend);
    with.n_frames -= LEFT;
    must(cuda->create(&with, &backend));
    must(cuda->frames->measure_links(backend, &rates[0], &rates[1], &rates[2]));
    assert_true(rates[0] > 1e9 && rates[1] > 1e9 && rates[2] > 1e9);
    must(cuda->frames->make_first(backend, 0, 0)); /* and nothing is left of the failures on the way */
    cuda->destroy(backend);
    crowd_free(c);
}

static void the_same_pages_are_active_as_on_the_cpu(void **state)
{
    (void)state;
    static const char *const activations[] = {"1", "0.3", "0.01", "0.0005"};
    const qr_backend_ops *cpu = qr_backend_find("cpu");
    int64_t active = 0;
    int64_t at_rest = 0;
    for (int number = 0; number < 4; number++) {
        char text[512];
        (void)snprintf(text, sizeof text,
                       "run: {seed: 9, activation: %s}\noutput: {directory: none}\nagents: {options: 3, count: 20011}\n"
                       "network: {kind: ring, degree: 4}\nmodel: {rule: neural, state_dim: 2, hidden: 2}\n",
                       activations[number]);
        const crowd_setup setup = {.deck_text = text, .parts = 3};
        crowd *c = open_whole(&setup);
        for (int p = 0; p < c->n_parts; p++) {
            const qr_backend_setup with = {
                .model = c->model, .network = c->network[p], .threads = 1, .page_agents = 64 * (1 + p), .n_frames = 1};
            const int64_t n_pages = (c->network[p]->own.count + with.page_agents - 1) / with.page_agents;
            qr_backend *on_cpu = NULL;
            qr_backend *on_gpu = NULL;
            must(cpu->create(&with, &on_cpu));
            must(cuda->create(&with, &on_gpu));
            for (int64_t i = 0; i < 10 * n_pages; i++) {
                const bool moves = cpu->frames->is_active(on_cpu, 1 + i / n_pages, i % n_pages);
                assert_int_equal(cuda->frames->is_active(on_gpu, 1 + i / n_pages, i % n_pages), moves);
                active += moves ? 1 : 0;
                at_rest += moves ? 0 : 1;
            }
            cpu->destroy(on_cpu);
            cuda->destroy(on_gpu);
        }
        crowd_free(c);
    }
    assert_true(active > 1000 && at_rest > 1000);
}

/* A copy to memory that is not pinned would wait for all that its stream was given before, for as long as it takes. */
static void a_stuck_device_is_not_waited_for(void **state)
{
    (void)state;
    enum { PAGE = 4096 };
    const crowd_setup setup = {.deck_text = small_deck};
    crowd *c = open_whole(&setup);
    const qr_backend_setup with = {
        .model = c->model, .network = c->network[0], .threads = 1, .page_agents = PAGE, .n_frames = 2, .timeout_s = 2};
    const size_t bytes = (size_t)PAGE * 64 * sizeof(float);
    const int64_t page = 0;
    const int64_t frame = 0;
    qr_backend *backend = NULL;
    void *pinned = NULL;
    void *plain = malloc(bytes);
    int64_t ticket = 0;
    assert_non_null(plain);
    must(cuda->create(&with, &backend));
    must(cuda->frames->allocate_host(backend, bytes, &pinned));
    must(cuda->frames->make_first(backend, 0, 0));
    must(cuda->frames->make_first(backend, 1, 1));
    const qr_frame_copy to_plain = {.frame = 1, .agents = PAGE, .host = plain};
    const qr_frame_copy to_pinned = {.frame = 0, .agents = PAGE, .host = pinned};
    must(cuda->frames->evict(backend, &to_plain, 1, &ticket));
    must(cuda->frames->begin(backend, 1, &c->tally)); /* CUDA loads kernels at their first launch, and waits for it */
    must(cuda->frames->update(backend, &page, &frame, 1));
    must(cuda->frames->evict(backend, &to_pinned, 1, &ticket));
    must(cuda->frames->wait_evicted(backend, ticket));
    must(qr_fault_set("cuda.stall:EIO")); /* for 9 s */
    must(cuda->frames->begin(backend, 1, &c->tally));
    must(qr_fault_set(NULL));
    must(cuda->frames->update(backend, &page, &frame, 1));
    must(cuda->frames->evict(backend, &to_pinned, 1, &ticket));
    const double since = qr_now_s();
    assert_int_equal(cuda->frames->evict(backend, &to_plain, 1, &ticket), QR_DEVICE);
    assert_non_null(strstr(qr_error_message(), "compute.timeout"));
    assert_int_equal(cuda->frames->wait_evicted(backend, ticket), QR_DEVICE);
    cuda->frames->free_host(backend, pinned);
    cuda->destroy(backend);
    assert_true(qr_now_s() - since < 6);
    free(plain);
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
    cmocka_set_test_filter(getenv("QUORATE_GPU_TESTS"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(room_is_what_fits),
                                       cmocka_unit_test(links_are_measured_where_frames_take_nearly_all),
                                       cmocka_unit_test(the_same_pages_are_active_as_on_the_cpu),
                                       cmocka_unit_test(a_stuck_device_is_not_waited_for)}; /* which is lost then */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
