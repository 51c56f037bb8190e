#include "late_device.h"

#include "network_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef enum stream { COMPUTE, IN, OUT, N_STREAMS } stream;

/* One thing to do: a copy of a frame, or an update or the making of several. */
typedef struct task {
    stream on;
    bool makes;
    int64_t ticket;
    int64_t n;
    int64_t *pages, *frames; /* [n] */
    void *host;
    size_t bytes;
} task;

struct late_device {
    qr_backend *inner;
    const qr_frame_ops *ops;
    size_t agent_bytes, page_bytes;
    uint64_t random;
    task *tasks; /* in the order in which they came */
    size_t n_tasks, capacity;
    int64_t given[N_STREAMS], copies[N_STREAMS];
    int blocks;
    bool broken;
};

static late_device *device_of(const qr_backend *backend)
{
    return (late_device *)(uintptr_t)backend;
}

qr_backend *late_device_backend(late_device *device)
{
    return (qr_backend *)(void *)device;
}

late_device *late_device_create(qr_backend *inner, const qr_backend_setup *setup, uint64_t seed)
{
    late_device *device = calloc(1, sizeof *device);
    assert_non_null(device);
    device->inner = inner;
    device->ops = qr_backend_find("cpu")->frames;
    device->agent_bytes = (size_t)setup->model->state_dim * sizeof(float);
    device->page_bytes = (size_t)setup->page_agents * device->agent_bytes;
    device->random = seed;
    device->capacity = 65536;
    device->tasks = calloc(device->capacity, sizeof *device->tasks);
    assert_non_null(device->tasks);
    for (int64_t frame = 0; frame < setup->n_frames; frame++) {
        memset(device->ops->memory(inner, frame), 0xff, device->page_bytes);
    }
    return device;
}

static void remove_task(late_device *device, size_t i)
{
    free(device->tasks[i].pages);
    free(device->tasks[i].frames);
    device->n_tasks--;
    memmove(&device->tasks[i], &device->tasks[i + 1], (device->n_tasks - i) * sizeof *device->tasks);
}

void late_device_destroy(late_device *device)
{
    while (device->n_tasks > 0) {
        remove_task(device, 0);
    }
    free(device->tasks);
    free(device);
}

void late_device_break(late_device *device)
{
    device->broken = true;
}

int64_t late_device_copies(const late_device *device, bool in)
{
    return device->copies[in ? IN : OUT];
}

int late_device_blocks(const late_device *device)
{
    return device->blocks;
}

static bool share_a_frame(const task *a, const task *b)
{
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t j = 0; j < b->n; j++) {
            if (a->frames[i] == b->frames[j]) {
                return true;
            }
        }
    }
    return false;
}

/* First on its stream, and no earlier task has to do with its frames. */
static bool may_run(const late_device *device, size_t i)
{
    for (size_t before = 0; before < i; before++) {
        if (device->tasks[before].on == device->tasks[i].on ||
            share_a_frame(&device->tasks[before], &device->tasks[i])) {
            return false;
        }
    }
    return true;
}

static void run_task(late_device *device, size_t i)
{
    const task *t = &device->tasks[i];
    if (t->on == COMPUTE && t->makes) {
        (void)device->ops->make_first(device->inner, t->pages[0], t->frames[0]);
    } else if (t->on == COMPUTE) {
        (void)device->ops->update(device->inner, t->pages, t->frames, t->n);
    } else {
        float *frame = device->ops->memory(device->inner, t->frames[0]);
        device->copies[t->on]++;
        if (t->on == IN) {
            memset(frame, 0xff, device->page_bytes);
            memcpy(frame, t->host, t->bytes);
        } else {
            memcpy(t->host, frame, t->bytes);
        }
    }
    remove_task(device, i);
}

/* One of the tasks that may run now. */
static void run_any(late_device *device)
{
    size_t may[N_STREAMS];
    int n = 0;
    for (int on = 0; on < N_STREAMS; on++) {
        for (size_t i = 0; i < device->n_tasks; i++) {
            if (device->tasks[i].on == (stream)on) {
                if (may_run(device, i)) {
                    may[n++] = i;
                }
                break;
            }
        }
    }
    assert_true(n > 0);
    run_task(device, may[case_between(&device->random, 0, n - 1)]);
}

static void run_some(late_device *device)
{
    for (int64_t i = case_between(&device->random, 0, 3); i > 0 && device->n_tasks > 0; i--) {
        run_any(device);
    }
}

static void add_task(late_device *device, const task *from, const int64_t *pages, const int64_t *frames)
{
    assert_true(device->n_tasks < device->capacity);
    task t = *from;
    t.pages = calloc((size_t)t.n, sizeof *t.pages);
    t.frames = calloc((size_t)t.n, sizeof *t.frames);
    assert_non_null(t.pages);
    assert_non_null(t.frames);
    memcpy(t.pages, pages, (size_t)t.n * sizeof *pages);
    memcpy(t.frames, frames, (size_t)t.n * sizeof *frames);
    device->tasks[device->n_tasks++] = t;
}

static int64_t done_on(const late_device *device, stream on)
{
    for (size_t i = 0; i < device->n_tasks; i++) {
        if (device->tasks[i].on == on) {
            return device->tasks[i].ticket - 1;
        }
    }
    return device->given[on];
}

/* --- the calls --- */

static qr_status late_allocate(qr_backend *backend, size_t bytes, void **out)
{
    *out = malloc(bytes);
    assert_non_null(*out);
    memset(*out, 0xff, bytes);
    device_of(backend)->blocks++;
    return QR_OK;
}

static void late_free(qr_backend *backend, void *memory)
{
    device_of(backend)->blocks--;
    free(memory);
}

static qr_status late_make_first(qr_backend *backend, int64_t page, int64_t frame)
{
    late_device *device = device_of(backend);
    const task t = {.on = COMPUTE, .makes = true, .n = 1};
    add_task(device, &t, &page, &frame);
    run_some(device);
    return QR_OK;
}

static qr_status late_begin(qr_backend *backend, int64_t step, const qr_tally *before)
{
    late_device *device = device_of(backend);
    for (size_t i = 0; i < device->n_tasks; i++) { /* first states may still be made, nothing else computes */
        assert_true(device->tasks[i].on != COMPUTE || device->tasks[i].makes);
    }
    return device->ops->begin(device->inner, step, before);
}

static qr_status late_update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    late_device *device = device_of(backend);
    const task t = {.on = COMPUTE, .n = n};
    assert_true(n > 0);
    add_task(device, &t, pages, frames);
    run_some(device);
    return QR_OK;
}

static qr_status late_finish(qr_backend *backend, qr_tally *out)
{
    late_device *device = device_of(backend);
    for (bool computes = true; computes;) {
        computes = false;
        for (size_t i = 0; i < device->n_tasks; i++) {
            computes = computes || device->tasks[i].on == COMPUTE;
        }
        if (computes) {
            run_any(device);
        }
    }
    return device->ops->finish(device->inner, out);
}

static bool late_is_active(const qr_backend *backend, int64_t step, int64_t page)
{
    return device_of(backend)->ops->is_active(device_of(backend)->inner, step, page);
}

static qr_status late_pass(qr_backend *backend, const int64_t *pages, int64_t n)
{
    return device_of(backend)->ops->pass(device_of(backend)->inner, pages, n);
}

static qr_status copy(late_device *device, stream on, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    if (device->broken) {
        return qr_error(QR_DEVICE, "the device is lost");
    }
    assert_true(n > 0);
    *ticket = ++device->given[on];
    for (int64_t i = 0; i < n; i++) {
        const task t = {.on = on,
                        .ticket = *ticket,
                        .n = 1,
                        .host = copies[i].host,
                        .bytes = (size_t)copies[i].agents * device->agent_bytes};
        if (on == OUT) {
            memset(copies[i].host, 0xff, t.bytes);
        }
        const int64_t none = -1;
        add_task(device, &t, &none, &copies[i].frame);
    }
    run_some(device);
    return QR_OK;
}

static qr_status late_fill(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    return copy(device_of(backend), IN, copies, n, ticket);
}

static qr_status late_evict(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    return copy(device_of(backend), OUT, copies, n, ticket);
}

static int64_t late_filled(qr_backend *backend)
{
    run_some(device_of(backend));
    return done_on(device_of(backend), IN);
}

static int64_t late_evicted(qr_backend *backend)
{
    run_some(device_of(backend));
    return done_on(device_of(backend), OUT);
}

static qr_status wait_for(late_device *device, stream on, int64_t ticket)
{
    assert_true(ticket > 0 && ticket <= device->given[on]);
    while (done_on(device, on) < ticket) {
        if (device->broken) {
            return qr_error(QR_DEVICE, "the device is lost");
        }
        run_any(device);
    }
    return QR_OK;
}

static qr_status late_wait_filled(qr_backend *backend, int64_t ticket)
{
    return wait_for(device_of(backend), IN, ticket);
}

static qr_status late_wait_evicted(qr_backend *backend, int64_t ticket)
{
    return wait_for(device_of(backend), OUT, ticket);
}

static const qr_frame_ops late_frame_ops = {.allocate_host = late_allocate,
                                            .free_host = late_free,
                                            .make_first = late_make_first,
                                            .begin = late_begin,
                                            .update = late_update,
                                            .finish = late_finish,
                                            .is_active = late_is_active,
                                            .pass = late_pass,
                                            .fill = late_fill,
                                            .evict = late_evict,
                                            .filled = late_filled,
                                            .evicted = late_evicted,
                                            .wait_filled = late_wait_filled,
                                            .wait_evicted = late_wait_evicted};

const qr_backend_ops late_device_ops = {.name = "late", .frames = &late_frame_ops};
