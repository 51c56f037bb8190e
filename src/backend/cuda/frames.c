/* States in frames: updates, fills and evictions on a stream each. What is asked for one frame is done in the order in
 * which it was asked for, because each call waits, on the device, for the last calls of the other streams that had to
 * do with its frames. Nothing here waits on the host but what says so. */
#include "backend/cuda/frame_ops.h"

#include "base/fault.h"
#include "base/memory.h"
#include "frames.h"

#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT = 256 }; /* calls of a queue under way; one more waits for the first of them */

typedef enum queue_name { UPDATES, FILLS, EVICTIONS, N_QUEUES } queue_name;

/* Calls of one kind, numbered from 1, in order on one stream. */
typedef struct queue {
    cudaStream_t stream;
    cudaEvent_t begin[IN_FLIGHT]; /* updates only: for the time that kernels take */
    cudaEvent_t end[IN_FLIGHT];   /* of call n: n % IN_FLIGHT */
    int64_t issued;
    int64_t done;              /* as far as is known */
    int64_t follows[N_QUEUES]; /* calls of the other queues that whatever is issued next comes behind */
} queue;

typedef struct pinned_range {
    unsigned char *memory;
    size_t bytes;
} pinned_range;

struct qr_cuda_frames {
    int64_t page_agents;
    int64_t n_frames;
    int64_t n_pages;
    int64_t agent_bytes;
    float *memory;
    queue queues[N_QUEUES];
    int64_t (*last)[N_QUEUES]; /* [n_frames] last call of each queue that had to do with a frame */
    void *pinned;              /* [n_pinned] pinned_range */
    size_t n_pinned;
    size_t pinned_capacity;
};

static int64_t agents_of(const qr_backend *backend, int64_t page)
{
    const int64_t most = backend->frames->page_agents;
    const int64_t left = backend->part.count - page * most;
    return left < most ? left : most;
}

static qr_status check_frame(const qr_backend *backend, int64_t frame)
{
    return frame >= 0 && frame < backend->frames->n_frames
               ? QR_OK
               : qr_error(QR_INTERNAL, "frame %lld of %lld", (long long)frame, (long long)backend->frames->n_frames);
}

static qr_status check_page(const qr_backend *backend, int64_t page)
{
    return page >= 0 && page < backend->frames->n_pages
               ? QR_OK
               : qr_error(QR_INTERNAL, "page %lld of %lld", (long long)page, (long long)backend->frames->n_pages);
}

/* Brings `done` up to date, and adds up how long kernels took. Never waits. */
static qr_status look(qr_backend *backend, queue_name name)
{
    queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check_lost(backend);
    while (status == QR_OK && q->done < q->issued) {
        const int64_t slot = (q->done + 1) % IN_FLIGHT;
        const cudaError_t state = cudaEventQuery(q->end[slot]);
        if (state == cudaErrorNotReady) {
            break;
        }
        status = qr_cuda_check(state, "asking whether copies and updates are done");
        if (status == QR_OK && name == UPDATES) {
            float milliseconds = 0;
            status = qr_cuda_check(cudaEventElapsedTime(&milliseconds, q->begin[slot], q->end[slot]),
                                   "asking how long kernels took");
            backend->counters.kernel_s += 1e-3 * (double)milliseconds;
            backend->counters.update_s += 1e-3 * (double)milliseconds;
        }
        q->done += status == QR_OK ? 1 : 0;
    }
    return status;
}

static qr_status wait_for(qr_backend *backend, queue_name name, int64_t call)
{
    queue *q = &backend->frames->queues[name];
    if (call > q->issued) {
        return qr_error(QR_INTERNAL, "waiting for call %lld of %lld", (long long)call, (long long)q->issued);
    }
    qr_status status = look(backend, name);
    while (status == QR_OK && q->done < call) {
        status = qr_cuda_wait_event(backend, q->end[call % IN_FLIGHT]);
        if (status == QR_OK) {
            status = look(backend, name);
        }
    }
    return status;
}

/* Whatever the queue is given next comes behind these calls of the others. */
static qr_status follow(qr_backend *backend, queue_name name, const int64_t calls[N_QUEUES])
{
    queue *q = &backend->frames->queues[name];
    qr_status status = QR_OK;
    for (int other = 0; other < N_QUEUES && status == QR_OK; other++) {
        const queue *before = &backend->frames->queues[other];
        if (other == (int)name || calls[other] <= q->follows[other]) {
            continue;
        }
        if (calls[other] > before->done) {
            status = qr_cuda_check(cudaStreamWaitEvent(q->stream, before->end[calls[other] % IN_FLIGHT], 0),
                                   "ordering copies and updates");
        }
        q->follows[other] = calls[other];
    }
    return status;
}

/* Latest calls that had to do with a frame, over several frames. */
static void add_frame(const qr_backend *backend, int64_t frame, int64_t calls[N_QUEUES])
{
    const int64_t *last = backend->frames->last[frame];
    for (int q = 0; q < N_QUEUES; q++) {
        calls[q] = last[q] > calls[q] ? last[q] : calls[q];
    }
}

/* Around what is given to a stream as one call. */
static qr_status begin_call(qr_backend *backend, queue_name name, const int64_t follows[N_QUEUES])
{
    queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check_lost(backend);
    if (status == QR_OK && q->issued - q->done >= IN_FLIGHT) {
        status = wait_for(backend, name, q->issued + 1 - IN_FLIGHT);
    }
    if (status == QR_OK) {
        status = follow(backend, name, follows);
    }
    if (status == QR_OK && name == UPDATES) {
        status = qr_cuda_check(cudaEventRecord(q->begin[(q->issued + 1) % IN_FLIGHT], q->stream), "recording an event");
    }
    return status;
}

static qr_status end_call(qr_backend *backend, queue_name name)
{
    queue *q = &backend->frames->queues[name];
    qr_status status = qr_cuda_check(cudaGetLastError(), "launching kernels");
    if (status == QR_OK) {
        status = qr_cuda_check(cudaEventRecord(q->end[(q->issued + 1) % IN_FLIGHT], q->stream), "recording an event");
    }
    if (status == QR_OK) {
        q->issued++;
    }
    return status;
}

static const int64_t nothing_before[N_QUEUES];

/* Pages of one launch; frames NULL: none are needed. */
static void make_batch(const qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n,
                       qr_frame_batch *batch)
{
    batch->frames = backend->frames->memory;
    batch->page_agents = backend->frames->page_agents;
    batch->n = (int32_t)n;
    batch->count = 0;
    for (int64_t i = 0; i < n; i++) {
        batch->at[i].page = (uint32_t)pages[i];
        batch->at[i].frame = frames != NULL ? (uint32_t)frames[i] : 0;
        batch->count += agents_of(backend, pages[i]);
    }
    for (int64_t i = 0; i + 1 < n; i++) { /* the part's last page goes to the end */
        if (pages[i] + 1 == backend->frames->n_pages) {
            const qr_frame_page last = batch->at[i];
            batch->at[i] = batch->at[n - 1];
            batch->at[n - 1] = last;
        }
    }
}

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static qr_status check_pages(const qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        status = check_page(backend, pages[i]);
        if (status == QR_OK && frames != NULL) {
            status = check_frame(backend, frames[i]);
        }
    }
    return status;
}

/* Bytes of n agents that a step moves, at the least. */
static double votes_bytes(const qr_backend *backend, int64_t n)
{
    return 2.0 * (double)n / (double)(1u << backend->part.packing);
}

static qr_status frames_begin(qr_backend *backend, int64_t step, const qr_tally *before)
{
    qr_status status = begin_call(backend, UPDATES, nothing_before);
    if (status != QR_OK) {
        return status;
    }
    qr_control *control = backend->control;
    memset(control, 0, sizeof *control);
    control->current = backend->current;
    control->step = step - 1;
    control->limit = step;
    memcpy(control->votes, before->votes, 8 * (size_t)backend->part.rule.n_options);
    qr_launch_begin_step(&backend->part, control, backend->stream);
    (void)qr_cuda_pass_faults(backend);
    return end_call(backend, UPDATES);
}

static qr_status frames_update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    int64_t follows[N_QUEUES] = {0};
    qr_frame_batch batch;
    qr_status status = check_pages(backend, pages, frames, n);
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        add_frame(backend, frames[i], follows);
    }
    if (status == QR_OK && n > 0) {
        status = begin_call(backend, UPDATES, follows);
    }
    if (status != QR_OK || n == 0) {
        return status;
    }
    for (int64_t at = 0; at < n; at += QR_FRAME_BATCH) {
        make_batch(backend, pages + at, frames + at, at_most(n - at, QR_FRAME_BATCH), &batch);
        qr_launch_frames(&backend->part, &batch, backend->stream);
        backend->counters.moved_bytes +=
            votes_bytes(backend, batch.count) + 2.0 * (double)(batch.count * backend->frames->agent_bytes);
    }
    status = end_call(backend, UPDATES);
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        backend->frames->last[frames[i]][UPDATES] = backend->frames->queues[UPDATES].issued;
    }
    return status;
}

static qr_status frames_pass(qr_backend *backend, const int64_t *pages, int64_t n)
{
    qr_frame_batch batch;
    qr_status status = check_pages(backend, pages, NULL, n);
    if (status == QR_OK && n > 0) {
        status = begin_call(backend, UPDATES, nothing_before);
    }
    if (status != QR_OK || n == 0) {
        return status;
    }
    for (int64_t at = 0; at < n; at += QR_FRAME_BATCH) {
        make_batch(backend, pages + at, NULL, at_most(n - at, QR_FRAME_BATCH), &batch);
        qr_launch_pass(&backend->part, &batch, backend->stream);
        backend->counters.moved_bytes += votes_bytes(backend, batch.count);
    }
    return end_call(backend, UPDATES);
}

/* The tally goes straight to host memory: a copy would wait for evictions on the same link. */
static qr_status frames_finish(qr_backend *backend, qr_tally *out)
{
    const size_t n_options = backend->part.rule.n_options;
    qr_status status = begin_call(backend, UPDATES, nothing_before);
    if (status == QR_OK) {
        qr_launch_end_step(&backend->part, backend->handed_out, backend->stream);
        status = end_call(backend, UPDATES);
    }
    if (status == QR_OK) {
        status = wait_for(backend, UPDATES, backend->frames->queues[UPDATES].issued);
    }
    if (status == QR_OK) {
        memset(out, 0, sizeof *out);
        memcpy(out->votes, backend->handed_out, 8 * n_options);
        memcpy(out->leader, backend->handed_out + n_options, 8 * n_options);
        backend->current ^= 1u;
        backend->control->current = backend->current;
        backend->is_up_to_date = false;
    }
    return status;
}

static bool frames_is_active(const qr_backend *backend, int64_t step, int64_t page)
{
    const qr_rule *rule = &backend->part.rule;
    const int64_t first = page * backend->frames->page_agents;
    const int64_t end = first + agents_of(backend, page);
    for (int64_t i = first; i < end; i += QR_DEVICE_GROUP) {
        const uint64_t group = (uint64_t)(backend->part.first + i) / QR_DEVICE_GROUP;
        const uint64_t valid = end - i >= QR_DEVICE_GROUP ? ~(uint64_t)0 : ((uint64_t)1 << (end - i)) - 1;
        if ((qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation) & valid) !=
            0) {
            return true;
        }
    }
    return false;
}

static qr_status frames_make_first(qr_backend *backend, int64_t page, int64_t frame)
{
    int64_t follows[N_QUEUES] = {0};
    qr_frame_batch batch;
    qr_status status = check_pages(backend, &page, &frame, 1);
    if (status == QR_OK) {
        add_frame(backend, frame, follows);
        status = begin_call(backend, UPDATES, follows);
    }
    if (status == QR_OK) {
        make_batch(backend, &page, &frame, 1, &batch);
        qr_launch_first_states(&backend->part, &batch, backend->model->state_scale, backend->stream);
        status = end_call(backend, UPDATES);
    }
    if (status == QR_OK) {
        backend->frames->last[frame][UPDATES] = backend->frames->queues[UPDATES].issued;
    }
    return status;
}

static bool is_within(const void *memory, size_t bytes, const void *range, size_t range_bytes)
{
    const unsigned char *from = memory;
    const unsigned char *begin = range;
    return range != NULL && from >= begin && from + bytes <= begin + range_bytes;
}

static bool is_pinned(const qr_backend *backend, const void *memory, size_t bytes)
{
    const pinned_range *ranges = backend->frames->pinned;
    bool pinned = is_within(memory, bytes, backend->registered, backend->registered_bytes);
    for (size_t i = 0; i < backend->frames->n_pinned && !pinned; i++) {
        pinned = is_within(memory, bytes, ranges[i].memory, ranges[i].bytes);
    }
    return pinned;
}

/* How many copies from the first on are one: neighbouring frames, neighbouring memory. */
static int64_t join_copies(const qr_cuda_frames *frames, const qr_frame_copy *copies, int64_t n, int64_t *agents)
{
    int64_t joined = 1;
    *agents = copies[0].agents;
    while (joined < n && *agents == joined * frames->page_agents && copies[joined].frame == copies[0].frame + joined &&
           (unsigned char *)copies[joined].host == (unsigned char *)copies[0].host + *agents * frames->agent_bytes) {
        *agents += copies[joined++].agents;
    }
    return joined;
}

static qr_status copy_one(qr_backend *backend, queue_name name, const qr_frame_copy *copy, int64_t agents,
                          const int64_t follows[N_QUEUES])
{
    qr_cuda_frames *frames = backend->frames;
    const size_t bytes = (size_t)(agents * frames->agent_bytes);
    float *frame = frames->memory + copy->frame * frames->page_agents * backend->model->state_dim;
    const bool in = name == FILLS;
    /* A copy from or to memory that is not pinned waits for what stands before it, and without a bound. */
    const bool waits = !is_pinned(backend, copy->host, bytes);
    qr_status status = QR_OK;
    for (int q = 0; waits && q < N_QUEUES && status == QR_OK; q++) {
        status = wait_for(backend, (queue_name)q, follows[q]);
    }
    return status == QR_OK
               ? qr_cuda_check(cudaMemcpyAsync(in ? (void *)frame : copy->host, in ? copy->host : (void *)frame, bytes,
                                               in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                               frames->queues[name].stream),
                               in ? "filling frames" : "evicting frames")
               : status;
}

static qr_status copy_in_turn(qr_backend *backend, queue_name name, const qr_frame_copy *copies, int64_t n,
                              const int64_t follows[N_QUEUES])
{
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK;) {
        int64_t agents = 0;
        const int64_t joined = join_copies(backend->frames, copies + i, n - i, &agents);
        status = copy_one(backend, name, &copies[i], agents, follows);
        i += joined;
    }
    return status;
}

static bool all_are_pinned(const qr_backend *backend, const qr_frame_copy *copies, int64_t n)
{
    bool pinned = true;
    for (int64_t i = 0; i < n && pinned; i++) {
        pinned = is_pinned(backend, copies[i].host, (size_t)(copies[i].agents * backend->frames->agent_bytes));
    }
    return pinned;
}

/* Copies of a batch in one call: each by itself takes some microseconds of its link, in which half a page could move.
 * All memory is pinned. */
#if CUDART_VERSION >= 13000
enum { COPIES_AT_ONCE = 64 };

static qr_status copy_all(qr_backend *backend, queue_name name, const qr_frame_copy *copies, int64_t n)
{
    qr_cuda_frames *frames = backend->frames;
    struct cudaMemcpyAttributes ordered = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
    size_t first = 0;
    void *to[COPIES_AT_ONCE];
    const void *from[COPIES_AT_ONCE];
    size_t bytes[COPIES_AT_ONCE];
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK;) {
        size_t count = 0;
        for (; i < n && count < COPIES_AT_ONCE; count++) {
            int64_t agents = 0;
            float *frame = frames->memory + copies[i].frame * frames->page_agents * backend->model->state_dim;
            to[count] = name == FILLS ? (void *)frame : copies[i].host;
            from[count] = name == FILLS ? copies[i].host : (void *)frame;
            i += join_copies(frames, copies + i, n - i, &agents);
            bytes[count] = (size_t)(agents * frames->agent_bytes);
        }
        status = qr_cuda_check(
            cudaMemcpyBatchAsync(to, from, bytes, count, &ordered, &first, 1, frames->queues[name].stream),
            name == FILLS ? "filling frames" : "evicting frames");
    }
    return status;
}
#else
static qr_status copy_all(qr_backend *backend, queue_name name, const qr_frame_copy *copies, int64_t n)
{
    return copy_in_turn(backend, name, copies, n, nothing_before);
}
#endif

static qr_status copy_frames(qr_backend *backend, queue_name name, const qr_frame_copy *copies, int64_t n,
                             int64_t *ticket)
{
    qr_cuda_frames *frames = backend->frames;
    int64_t follows[N_QUEUES] = {0};
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        status = check_frame(backend, copies[i].frame);
        if (status == QR_OK && (copies[i].agents < 0 || copies[i].agents > frames->page_agents)) {
            status = qr_error(QR_INTERNAL, "%lld agents in a frame of %lld", (long long)copies[i].agents,
                              (long long)frames->page_agents);
        }
        if (status == QR_OK) {
            add_frame(backend, copies[i].frame, follows);
        }
    }
    if (status == QR_OK) {
        status = begin_call(backend, name, follows);
    }
    if (status == QR_OK) {
        status = n > 1 && all_are_pinned(backend, copies, n) ? copy_all(backend, name, copies, n)
                                                             : copy_in_turn(backend, name, copies, n, follows);
    }
    if (status == QR_OK) {
        status = end_call(backend, name);
    }
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        frames->last[copies[i].frame][name] = frames->queues[name].issued;
    }
    if (status == QR_OK) {
        *ticket = frames->queues[name].issued;
    }
    return status;
}

static qr_status frames_fill(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    return copy_frames(backend, FILLS, copies, n, ticket);
}

static qr_status frames_evict(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    return copy_frames(backend, EVICTIONS, copies, n, ticket);
}

/* A failure shows in the next call that returns a status. */
static int64_t frames_filled(qr_backend *backend)
{
    (void)look(backend, FILLS);
    return backend->frames->queues[FILLS].done;
}

static int64_t frames_evicted(qr_backend *backend)
{
    (void)look(backend, EVICTIONS);
    return backend->frames->queues[EVICTIONS].done;
}

static qr_status frames_wait_filled(qr_backend *backend, int64_t ticket)
{
    return wait_for(backend, FILLS, ticket);
}

static qr_status frames_wait_evicted(qr_backend *backend, int64_t ticket)
{
    return wait_for(backend, EVICTIONS, ticket);
}

static qr_status frames_allocate_host(qr_backend *backend, size_t bytes, void **out)
{
    qr_cuda_frames *frames = backend->frames;
    void *memory = NULL;
    qr_status status =
        qr_grow(&frames->pinned, &frames->pinned_capacity, frames->n_pinned + 1, sizeof(pinned_range), "pinned memory");
    if (status != QR_OK) {
        return status;
    }
    const cudaError_t error = cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return qr_error(QR_RESOURCE,
                        "%zu bytes (%.2f GiB) of pinned host memory for pages cannot be had. Use a smaller "
                        "memory.tiers.cpu.capacity, or raise the machine's limit of locked memory",
                        bytes, (double)bytes * 0x1p-30);
    }
    status = qr_cuda_check(error, "pinned memory for pages");
    if (status == QR_OK) {
        ((pinned_range *)frames->pinned)[frames->n_pinned++] = (pinned_range){.memory = memory, .bytes = bytes};
        *out = memory;
    }
    return status;
}

static void frames_free_host(qr_backend *backend, void *memory)
{
    qr_cuda_frames *frames = backend->frames;
    pinned_range *ranges = frames->pinned;
    for (size_t i = 0; i < frames->n_pinned; i++) {
        if (ranges[i].memory == memory) {
            ranges[i] = ranges[--frames->n_pinned];
            (void)wait_for(backend, FILLS, frames->queues[FILLS].issued);
            (void)wait_for(backend, EVICTIONS, frames->queues[EVICTIONS].issued);
            if (!backend->is_lost) { /* else this would wait for ever */
                (void)cudaFreeHost(memory);
            }
            return;
        }
    }
}

static qr_status make_queue(qr_backend *backend, queue_name name)
{
    queue *q = &backend->frames->queues[name];
    const unsigned flags = name == UPDATES ? cudaEventDefault : cudaEventDisableTiming;
    qr_status status = QR_OK;
    q->stream = backend->stream;
    if (name != UPDATES) {
        status = qr_cuda_check(cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking), "making a stream");
    }
    for (int i = 0; i < IN_FLIGHT && status == QR_OK; i++) {
        status = qr_cuda_check(cudaEventCreateWithFlags(&q->end[i], flags), "making an event");
        if (status == QR_OK && name == UPDATES) {
            status = qr_cuda_check(cudaEventCreateWithFlags(&q->begin[i], flags), "making an event");
        }
    }
    return status;
}

qr_status qr_cuda_plan_frames(qr_backend *backend, const qr_backend_setup *setup)
{
    const int64_t count = backend->network->own.count;
    qr_cuda_frames *frames = NULL;
    if (backend->model->state_dim <= 0 || setup->page_agents <= 0 || setup->page_agents % QR_DEVICE_GROUP != 0) {
        return qr_error(QR_INTERNAL, "frames of %lld agents with states of %lld numbers", (long long)setup->page_agents,
                        (long long)backend->model->state_dim);
    }
    qr_status status = qr_allocate(1, sizeof *frames, "frames", (void **)&frames);
    if (status != QR_OK) {
        return status;
    }
    backend->frames = frames;
    frames->page_agents = setup->page_agents;
    frames->n_frames = setup->n_frames;
    frames->n_pages = (count + setup->page_agents - 1) / setup->page_agents;
    frames->agent_bytes = backend->model->state_dim * (int64_t)sizeof(float);
    if (frames->n_pages > UINT32_MAX || frames->n_frames > UINT32_MAX) {
        return qr_error(QR_USAGE, "memory.page: pages of %lld agents are too small for %lld agents",
                        (long long)setup->page_agents, (long long)count);
    }
    return QR_OK;
}

qr_status qr_cuda_make_frames(qr_backend *backend)
{
    qr_cuda_frames *frames = backend->frames;
    backend->part.decides = 0;
    qr_status status =
        qr_allocate((size_t)frames->n_frames, sizeof *frames->last, "the table of frames", (void **)&frames->last);
    if (status == QR_OK) {
        status = qr_cuda_allocate(backend, frames->n_frames, frames->page_agents * frames->agent_bytes,
                                  "frames for agent states", (void **)&frames->memory);
    }
    for (int name = 0; name < N_QUEUES && status == QR_OK; name++) {
        status = make_queue(backend, (queue_name)name);
    }
    return status == QR_OK ? qr_cuda_wait(backend) : status;
}

/* The caller has freed device memory, which waits for all copies. */
void qr_cuda_destroy_frames(qr_backend *backend)
{
    qr_cuda_frames *frames = backend->frames;
    if (frames == NULL) {
        return;
    }
    pinned_range *ranges = frames->pinned;
    for (size_t i = 0; i < frames->n_pinned && !backend->is_lost; i++) {
        (void)cudaFreeHost(ranges[i].memory);
    }
    for (int name = 0; name < N_QUEUES && !backend->is_lost; name++) {
        queue *q = &frames->queues[name];
        for (int i = 0; i < IN_FLIGHT; i++) {
            if (q->begin[i] != NULL) {
                (void)cudaEventDestroy(q->begin[i]);
            }
            if (q->end[i] != NULL) {
                (void)cudaEventDestroy(q->end[i]);
            }
        }
        if (name != UPDATES && q->stream != NULL) {
            (void)cudaStreamDestroy(q->stream);
        }
    }
    free(frames->pinned);
    free(frames->last);
    free(frames);
    backend->frames = NULL;
}

const qr_frame_ops qr_cuda_frame_ops = {.room = qr_cuda_frame_room,
                                        .allocate_host = frames_allocate_host,
                                        .free_host = frames_free_host,
                                        .make_first = frames_make_first,
                                        .begin = frames_begin,
                                        .update = frames_update,
                                        .finish = frames_finish,
                                        .is_active = frames_is_active,
                                        .pass = frames_pass,
                                        .fill = frames_fill,
                                        .evict = frames_evict,
                                        .filled = frames_filled,
                                        .evicted = frames_evicted,
                                        .wait_filled = frames_wait_filled,
                                        .wait_evicted = frames_wait_evicted,
                                        .measure_links = qr_cuda_measure_links};
