/* What is asked for frames: updates, fills and evictions. Nothing here waits on the host but what says so. */
#include "backend/cuda/frame_parts.h"

#include "frames.h"

#include <string.h>

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

/* Latest calls that had to do with a frame, over several frames. */
static void add_frame(const qr_backend *backend, int64_t frame, int64_t calls[QR_CUDA_QUEUES])
{
    const int64_t *last = backend->frames->last[frame];
    for (int q = 0; q < QR_CUDA_QUEUES; q++) {
        calls[q] = last[q] > calls[q] ? last[q] : calls[q];
    }
}

static const int64_t nothing_before[QR_CUDA_QUEUES];

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
    qr_status status = qr_cuda_frames_begin_call(backend, QR_CUDA_UPDATES, nothing_before);
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
    return qr_cuda_frames_end_call(backend, QR_CUDA_UPDATES);
}

static qr_status frames_update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    int64_t follows[QR_CUDA_QUEUES] = {0};
    qr_frame_batch batch;
    qr_status status = check_pages(backend, pages, frames, n);
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        add_frame(backend, frames[i], follows);
    }
    if (status == QR_OK && n > 0) {
        status = qr_cuda_frames_begin_call(backend, QR_CUDA_UPDATES, follows);
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
    status = qr_cuda_frames_end_call(backend, QR_CUDA_UPDATES);
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        backend->frames->last[frames[i]][QR_CUDA_UPDATES] = backend->frames->queues[QR_CUDA_UPDATES].issued;
    }
    return status;
}

static qr_status frames_pass(qr_backend *backend, const int64_t *pages, int64_t n)
{
    qr_frame_batch batch;
    qr_status status = check_pages(backend, pages, NULL, n);
    if (status == QR_OK && n > 0) {
        status = qr_cuda_frames_begin_call(backend, QR_CUDA_UPDATES, nothing_before);
    }
    if (status != QR_OK || n == 0) {
        return status;
    }
    for (int64_t at = 0; at < n; at += QR_FRAME_BATCH) {
        make_batch(backend, pages + at, NULL, at_most(n - at, QR_FRAME_BATCH), &batch);
        qr_launch_pass(&backend->part, &batch, backend->stream);
        backend->counters.moved_bytes += votes_bytes(backend, batch.count);
    }
    return qr_cuda_frames_end_call(backend, QR_CUDA_UPDATES);
}

/* The tally goes straight to host memory: a copy would wait for evictions on the same link. */
static qr_status frames_finish(qr_backend *backend, qr_tally *out)
{
    const size_t n_options = backend->part.rule.n_options;
    qr_status status = qr_cuda_frames_begin_call(backend, QR_CUDA_UPDATES, nothing_before);
    if (status == QR_OK) {
        qr_launch_end_step(&backend->part, backend->handed_out, backend->stream);
        status = qr_cuda_frames_end_call(backend, QR_CUDA_UPDATES);
    }
    if (status == QR_OK) {
        status = qr_cuda_frames_wait(backend, QR_CUDA_UPDATES, backend->frames->queues[QR_CUDA_UPDATES].issued);
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
    int64_t follows[QR_CUDA_QUEUES] = {0};
    qr_frame_batch batch;
    qr_status status = check_pages(backend, &page, &frame, 1);
    if (status == QR_OK) {
        add_frame(backend, frame, follows);
        status = qr_cuda_frames_begin_call(backend, QR_CUDA_UPDATES, follows);
    }
    if (status == QR_OK) {
        make_batch(backend, &page, &frame, 1, &batch);
        qr_launch_first_states(&backend->part, &batch, backend->model->state_scale, backend->stream);
        status = qr_cuda_frames_end_call(backend, QR_CUDA_UPDATES);
    }
    if (status == QR_OK) {
        backend->frames->last[frame][QR_CUDA_UPDATES] = backend->frames->queues[QR_CUDA_UPDATES].issued;
    }
    return status;
}

static bool is_pinned(const qr_backend *backend, const qr_frame_copy *copy, int64_t agents)
{
    return qr_cuda_frames_is_pinned(backend, copy->host, (size_t)(agents * backend->frames->agent_bytes));
}

/* How many copies from the first on are one: neighbouring frames, neighbouring memory, all of one kind. */
static int64_t join_copies(const qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *agents)
{
    const qr_cuda_frames *frames = backend->frames;
    const bool pinned = is_pinned(backend, copies, copies[0].agents);
    int64_t joined = 1;
    *agents = copies[0].agents;
    while (joined < n && *agents == joined * frames->page_agents && copies[joined].frame == copies[0].frame + joined &&
           (unsigned char *)copies[joined].host == (unsigned char *)copies[0].host + *agents * frames->agent_bytes &&
           is_pinned(backend, copies, *agents + copies[joined].agents) == pinned) {
        *agents += copies[joined++].agents;
    }
    return joined;
}

static qr_status copy_one(qr_backend *backend, qr_cuda_queue_name name, const qr_frame_copy *copy, int64_t agents,
                          const int64_t follows[QR_CUDA_QUEUES])
{
    qr_cuda_frames *frames = backend->frames;
    const size_t bytes = (size_t)(agents * frames->agent_bytes);
    float *frame = frames->memory + copy->frame * frames->page_agents * backend->model->state_dim;
    const bool in = name == QR_CUDA_FILLS;
    /* A copy from or to memory that is not pinned waits for what stands before it, and without a bound. */
    const bool waits = !is_pinned(backend, copy, agents);
    qr_status status = QR_OK;
    for (int q = 0; waits && q < QR_CUDA_QUEUES && status == QR_OK; q++) {
        status = qr_cuda_frames_wait(backend, (qr_cuda_queue_name)q,
                                     q == (int)name ? frames->queues[name].issued : follows[q]);
    }
    return status == QR_OK
               ? qr_cuda_check(cudaMemcpyAsync(in ? (void *)frame : copy->host, in ? copy->host : (void *)frame, bytes,
                                               in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                               frames->queues[name].stream),
                               in ? "filling frames" : "evicting frames")
               : status;
}

static qr_status copy_in_turn(qr_backend *backend, qr_cuda_queue_name name, const qr_frame_copy *copies, int64_t n,
                              const int64_t follows[QR_CUDA_QUEUES])
{
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK;) {
        int64_t agents = 0;
        const int64_t joined = join_copies(backend, copies + i, n - i, &agents);
        status = copy_one(backend, name, &copies[i], agents, follows);
        i += joined;
    }
    return status;
}

static bool all_are_pinned(const qr_backend *backend, const qr_frame_copy *copies, int64_t n)
{
    bool pinned = true;
    for (int64_t i = 0; i < n && pinned; i++) {
        pinned = is_pinned(backend, &copies[i], copies[i].agents);
    }
    return pinned;
}

/* Copies of a batch in one call: each by itself takes some microseconds of its link, in which half a page could move.
 * All memory is pinned. */
#if CUDART_VERSION >= 13000
enum { COPIES_AT_ONCE = 64 };

static qr_status copy_all(qr_backend *backend, qr_cuda_queue_name name, const qr_frame_copy *copies, int64_t n)
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
            to[count] = name == QR_CUDA_FILLS ? (void *)frame : copies[i].host;
            from[count] = name == QR_CUDA_FILLS ? copies[i].host : (void *)frame;
            i += join_copies(backend, copies + i, n - i, &agents);
            bytes[count] = (size_t)(agents * frames->agent_bytes);
        }
        status = qr_cuda_check(
            cudaMemcpyBatchAsync(to, from, bytes, count, &ordered, &first, 1, frames->queues[name].stream),
            name == QR_CUDA_FILLS ? "filling frames" : "evicting frames");
    }
    return status;
}
#else
static qr_status copy_all(qr_backend *backend, qr_cuda_queue_name name, const qr_frame_copy *copies, int64_t n)
{
    return copy_in_turn(backend, name, copies, n, nothing_before);
}
#endif

static qr_status copy_frames(qr_backend *backend, qr_cuda_queue_name name, const qr_frame_copy *copies, int64_t n,
                             int64_t *ticket)
{
    qr_cuda_frames *frames = backend->frames;
    int64_t follows[QR_CUDA_QUEUES] = {0};
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
        status = qr_cuda_frames_begin_call(backend, name, follows);
    }
    if (status == QR_OK) {
        status = n > 1 && all_are_pinned(backend, copies, n) ? copy_all(backend, name, copies, n)
                                                             : copy_in_turn(backend, name, copies, n, follows);
    }
    if (status == QR_OK) {
        status = qr_cuda_frames_end_call(backend, name);
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
    return copy_frames(backend, QR_CUDA_FILLS, copies, n, ticket);
}

static qr_status frames_evict(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket)
{
    return copy_frames(backend, QR_CUDA_EVICTIONS, copies, n, ticket);
}

/* A failure shows in the next call that returns a status. */
static int64_t frames_filled(qr_backend *backend)
{
    (void)qr_cuda_frames_look(backend, QR_CUDA_FILLS);
    return backend->frames->queues[QR_CUDA_FILLS].done;
}

static int64_t frames_evicted(qr_backend *backend)
{
    (void)qr_cuda_frames_look(backend, QR_CUDA_EVICTIONS);
    return backend->frames->queues[QR_CUDA_EVICTIONS].done;
}

static qr_status frames_wait_filled(qr_backend *backend, int64_t ticket)
{
    return qr_cuda_frames_wait(backend, QR_CUDA_FILLS, ticket);
}

static qr_status frames_wait_evicted(qr_backend *backend, int64_t ticket)
{
    return qr_cuda_frames_wait(backend, QR_CUDA_EVICTIONS, ticket);
}

const qr_frame_ops qr_cuda_frame_ops = {.room = qr_cuda_frame_room,
                                        .allocate_host = qr_cuda_frames_allocate_host,
                                        .free_host = qr_cuda_frames_free_host,
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
