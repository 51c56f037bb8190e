/* In place of libquorate_cuda.so, for test_devices_that_fail.py: the CPU backend in the clothes of one that joins parts
 * and takes many steps by itself, each with a device of its own. Its steps change nothing. Points of base/fault.h:
 *
 *     device.step     a batch fails
 *     device.remote   a batch fails because of another rank, it seems
 *     device.wait     a batch waits for another rank until it is told to give up
 *     device.deaf     a batch waits for another rank and is not told anything
 *     device.pack     votes cannot be made ready for another rank, and messages can no longer be touched
 *     device.join     joining fails
 *     device.joining  joining waits for ever */
#include "backend/module.h"
#include "base/fault.h"
#include "base/timer.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 1024, MOST_BUFFERS = 16, BUFFER_BYTES = 1 << 16 };

static const double for_ever_s = 300.0;
static qr_backend_ops ops;
static bool (*must_give_up)(void *context);
static void *context;
static bool joined;
static int64_t n_options;
static int64_t row_votes[ROWS][QR_MAX_OPTIONS];
static uint64_t row_leaders[ROWS];
static void *buffers[MOST_BUFFERS];
static int n_buffers;

static qr_status create(const qr_backend_setup *setup, qr_backend **out)
{
    must_give_up = setup->must_give_up;
    context = setup->context;
    n_options = setup->model->rule.n_options;
    return qr_backend_ops_cpu.create(setup, out);
}

static qr_status make_join_id(void *id)
{
    memset(id, 0, QR_JOIN_BYTES);
    return QR_OK;
}

static qr_status wait_long(bool hears)
{
    for (double since = qr_now_s(); qr_now_s() - since < for_ever_s;) {
        const struct timespec moment = {.tv_nsec = 1000000};
        (void)nanosleep(&moment, NULL);
        if (hears && must_give_up(context)) {
            return qr_error(QR_TRANSIENT, "gave up, another rank failed");
        }
    }
    return qr_error(QR_INTERNAL, "waited for ever");
}

static qr_status join(qr_backend *backend, int n_parts, int part, const void *id)
{
    (void)backend;
    (void)n_parts;
    (void)part;
    (void)id;
    joined = true;
    if (qr_fault("device.joining", NULL) != 0) {
        return wait_long(false);
    }
    return qr_fault("device.join", NULL) != 0 ? qr_error(QR_DEVICE, "this device joins nobody") : QR_OK;
}

static void device_id(const qr_backend *backend, void *out)
{
    (void)backend;
    int own = (int)getpid();
    memset(out, 0, QR_DEVICE_ID_BYTES);
    memcpy(out, &own, sizeof own);
}

/* Memory that nobody may touch once the device has failed. */
static void *make_buffer(int64_t bytes)
{
    if (n_buffers == MOST_BUFFERS || bytes > BUFFER_BYTES) {
        return NULL;
    }
    void *memory = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    buffers[n_buffers++] = memory;
    return memory != MAP_FAILED ? memory : NULL;
}

static qr_status halo_buffers(qr_backend *backend, const qr_halo_peer *peer, bool on_device, void **send,
                              void **receive)
{
    (void)on_device;
    *send = make_buffer(qr_backend_ops_cpu.halo_bytes(backend, peer->send_count) + 8);
    *receive = make_buffer(qr_backend_ops_cpu.halo_bytes(backend, peer->recv_count) + 8);
    return *send != NULL && *receive != NULL ? QR_OK : qr_error_memory(BUFFER_BYTES, "halo messages");
}

static qr_status halo_pack(qr_backend *backend, const qr_halo_peer *peer, void *message)
{
    if (qr_fault("device.pack", NULL) != 0) {
        for (int i = 0; i < n_buffers; i++) {
            (void)mprotect(buffers[i], BUFFER_BYTES, PROT_NONE);
        }
        return qr_error(QR_DEVICE, "this device packs nothing");
    }
    return qr_backend_ops_cpu.halo_pack(backend, peer, message);
}

static bool runs_alone(const qr_backend *backend)
{
    (void)backend;
    return joined;
}

static qr_status run(qr_backend *backend, qr_steps *steps)
{
    (void)backend;
    const struct timespec batch = {.tv_nsec = 20000000};
    (void)nanosleep(&batch, NULL);
    steps->done = 0;
    if (qr_fault("device.step", NULL) != 0) {
        return qr_error(QR_DEVICE, "this device has failed");
    }
    if (qr_fault("device.remote", NULL) != 0) {
        return qr_error(QR_TRANSIENT, "a remote device has failed");
    }
    if (qr_fault("device.wait", NULL) != 0) {
        return wait_long(true);
    }
    if (qr_fault("device.deaf", NULL) != 0) {
        return wait_long(false);
    }
    steps->done = steps->count < ROWS ? steps->count : ROWS;
    for (int64_t row = 0; row < steps->done; row++) {
        memcpy((int64_t *)row_votes + row * n_options, steps->votes, (size_t)n_options * sizeof(int64_t));
        row_leaders[row] = 1;
    }
    steps->row_votes = (int64_t *)row_votes;
    steps->row_leaders = row_leaders;
    return QR_OK;
}

static bool is_usable(const char **why)
{
    (void)why;
    return true;
}

const qr_module *qr_module_open(void);

const qr_module *qr_module_open(void)
{
    static const qr_module module = {
        .version = QR_MODULE_VERSION, .bytes = sizeof(qr_backend_ops), .ops = &ops, .is_usable = is_usable};
    ops = qr_backend_ops_cpu;
    ops.name = "cuda";
    ops.create = create;
    ops.make_join_id = make_join_id;
    ops.join = join;
    ops.device_id = device_id;
    ops.halo_buffers = halo_buffers;
    ops.halo_pack = halo_pack;
    ops.runs_alone = runs_alone;
    ops.run = run;
    return &module;
}
