/* States in frames: page by page instead of all at once, the same bits in any order of pages. */
#include "backend/cpu/cpu.h"

#include "base/memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { UNIT = 512 }; /* agents a thread handles at a time: a page may be all there is to share */

qr_status qr_cpu_frames_create(const qr_backend_setup *setup, qr_backend *backend)
{
    if (setup->page_agents <= 0 || setup->page_agents % QR_AGENTS_PER_WORD != 0) {
        return qr_error(QR_INTERNAL, "pages of %lld agents", (long long)setup->page_agents);
    }
    size_t agent_bytes = (size_t)setup->model->state_dim * sizeof(float);
    if ((size_t)setup->page_agents > SIZE_MAX / agent_bytes) {
        return qr_error_memory(SIZE_MAX, "frames of agent states");
    }
    backend->frames.count = setup->n_frames;
    backend->frames.page_agents = setup->page_agents;
    return qr_allocate((size_t)setup->n_frames, (size_t)setup->page_agents * agent_bytes, "frames of agent states",
                       (void **)&backend->frames.memory);
}

static float *frame_memory(qr_backend *backend, int64_t frame)
{
    return backend->frames.memory + frame * backend->frames.page_agents * backend->model->state_dim;
}

static qr_status frame_allocate_host(qr_backend *backend, size_t bytes, void **out)
{
    (void)backend;
    return qr_allocate(bytes, 1, "pages of agent states", out);
}

static void frame_free_host(qr_backend *backend, void *memory)
{
    (void)backend;
    free(memory);
}

/* Own agents of a page. */
static qr_cpu_range range_of(const qr_backend *backend, int64_t page)
{
    int64_t begin = page * backend->frames.page_agents;
    int64_t end = begin + backend->frames.page_agents;
    int64_t count = backend->network->own.count;
    return (qr_cpu_range){begin, end < count ? end : count};
}

static qr_status frame_make_first(qr_backend *backend, int64_t page, int64_t frame)
{
    qr_cpu_range range = range_of(backend, page);
    int64_t dim = backend->model->state_dim;
    float *states = frame_memory(backend, frame);
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t i = range.begin; i < range.end; i++) {
        qr_model_initial_state(backend->model, backend->network->own.first + i, states + (i - range.begin) * dim);
    }
    return QR_OK;
}

static qr_status frame_begin(qr_backend *backend, int64_t step, const qr_tally *before)
{
    backend->frames.step = step;
    backend->frames.before = *before;
    memset(&backend->frames.sum, 0, sizeof backend->frames.sum);
    qr_cpu_neural_before_step(backend, before);
    return QR_OK;
}

static qr_status frame_update(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n)
{
    const qr_cpu_frames *step = &backend->frames;
    int64_t dim = backend->model->state_dim;
    int64_t units = (step->page_agents + UNIT - 1) / UNIT; /* of a page */
#pragma omp parallel num_threads(backend->threads)
    {
        qr_tally mine;
        memset(&mine, 0, sizeof mine);
        qr_cpu_scratch *scratch = &backend->scratch[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < n * units; unit++) {
            qr_cpu_range page = range_of(backend, pages[unit / units]);
            int64_t offset = unit % units * UNIT;
            int64_t most = step->page_agents - offset < UNIT ? step->page_agents - offset : UNIT;
            qr_cpu_range block = {page.begin + offset, page.begin + offset + most};
            block.end = block.end < page.end ? block.end : page.end;
            if (block.begin < block.end) {
                float *states = frame_memory(backend, frames[unit / units]) + offset * dim;
                qr_cpu_neural_block(backend, block, states, step->step, &step->before, scratch, &mine);
            }
        }
#pragma omp critical
        qr_cpu_tally_merge(&backend->frames.sum, &mine, backend->model->rule.n_options);
    }
    return QR_OK;
}

static qr_status frame_finish(qr_backend *backend, qr_tally *out)
{
    backend->current = 1 - backend->current;
    *out = backend->frames.sum;
    return QR_OK;
}

static bool frame_is_active(const qr_backend *backend, int64_t step, int64_t page)
{
    const qr_rule *rule = &backend->model->rule;
    qr_cpu_range range = range_of(backend, page);
    uint64_t group = (uint64_t)(backend->network->own.first + range.begin) / 64;
    for (int64_t begin = range.begin; begin < range.end; begin += 64, group++) {
        uint64_t coins =
            qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
        int64_t n = range.end - begin;
        if ((n < 64 ? coins & (((uint64_t)1 << n) - 1) : coins) != 0) {
            return true;
        }
    }
    return false;
}

static qr_status frame_pass(qr_backend *backend, const int64_t *pages, int64_t n)
{
    const qr_network *network = backend->network;
    const uint8_t *own = backend->bytes[backend->current] + network->before;
    uint8_t *next = backend->bytes[1 - backend->current] + network->before;
    uint32_t n_options = backend->model->rule.n_options;
    for (int64_t i = 0; i < n; i++) {
        qr_cpu_range range = range_of(backend, pages[i]);
        qr_tally tally;
        memset(&tally, 0, sizeof tally);
        memcpy(next + range.begin, own + range.begin, (size_t)(range.end - range.begin));
        qr_cpu_tally_bytes(own + range.begin, range, network->own.first, n_options, &tally);
        qr_cpu_tally_merge(&backend->frames.sum, &tally, n_options);
    }
    return QR_OK;
}

/* Frames are host memory: nothing is ever under way. */
const qr_frame_ops qr_cpu_frame_ops = {.memory = frame_memory,
                                       .allocate_host = frame_allocate_host,
                                       .free_host = frame_free_host,
                                       .make_first = frame_make_first,
                                       .begin = frame_begin,
                                       .update = frame_update,
                                       .finish = frame_finish,
                                       .is_active = frame_is_active,
                                       .pass = frame_pass};
