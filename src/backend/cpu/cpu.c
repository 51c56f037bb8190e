/* The CPU backend: the reference that every other backend equals bit for bit. */
#include "backend/cpu/cpu.h"

#include "base/memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

static int64_t plane_words(int64_t view)
{
    return view / 64 + 2; /* one word more than needed, so that a word may be read across the end */
}

static void cpu_destroy(qr_backend *backend)
{
    if (backend == NULL) {
        return;
    }
    for (int buffer = 0; buffer < 2; buffer++) {
        free(backend->bytes[buffer]);
        for (int p = 0; p < QR_CPU_MAX_PLANES; p++) {
            free(backend->planes[buffer][p]);
        }
    }
    for (int t = 0; backend->scratch != NULL && t < backend->threads; t++) {
        free(backend->scratch[t].gathered);
        free(backend->scratch[t].positions);
        qr_neural_batch_clear(&backend->scratch[t].batch);
    }
    free(backend->scratch);
    free(backend->frozen);
    free(backend->state);
    free(backend->frames.memory);
    free(backend->base);
    free(backend->packed_weights);
    free(backend->movers);
    free(backend);
}

static qr_status allocate_votes(qr_backend *backend)
{
    int64_t view = backend->network->view;
    int buffers = backend->model->sweeps ? 1 : 2;
    qr_status status = QR_OK;
    for (int buffer = 0; buffer < buffers && status == QR_OK; buffer++) {
        if (backend->n_planes == 0) {
            status = qr_allocate((size_t)view + 64, 1, "votes", (void **)&backend->bytes[buffer]);
        }
        for (int p = 0; p < backend->n_planes && status == QR_OK; p++) {
            status =
                qr_allocate((size_t)plane_words(view), sizeof(uint64_t), "votes", (void **)&backend->planes[buffer][p]);
        }
    }
    if (status == QR_OK && backend->model->zealots > 0) {
        status = qr_allocate((size_t)(backend->network->own.count + 63) / 64, sizeof(uint64_t), "zealots",
                             (void **)&backend->frozen);
    }
    return status;
}

static qr_status allocate_scratch(qr_backend *backend)
{
    qr_status status =
        qr_allocate((size_t)backend->threads, sizeof *backend->scratch, "scratch", (void **)&backend->scratch);
    size_t degree = QR_LATTICE_MAX_OFFSETS;
    if (qr_network_is_lattice(backend->network->spec.kind) && (size_t)backend->network->spec.degree > degree) {
        degree = (size_t)backend->network->spec.degree;
    }
    for (int t = 0; t < backend->threads && status == QR_OK; t++) {
        qr_cpu_scratch *scratch = &backend->scratch[t];
        status = qr_allocate(degree, 1, "scratch", (void **)&scratch->gathered);
        if (status == QR_OK) {
            status = qr_allocate(degree, sizeof(int64_t), "scratch", (void **)&scratch->positions);
        }
        if (status == QR_OK && backend->model->state_dim > 0) {
            status = qr_neural_batch_init(&backend->model->neural, backend->simd, &scratch->batch);
        }
    }
    return status;
}

/* Bit p of eight votes. */
static uint64_t gather_bits(const uint8_t *votes, int p)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < 8; i++) {
        bits |= (uint64_t)votes[i] << (8 * i);
    }
    /* The product brings the lowest bit of byte i to bit 56 + i, and no two to the same place. */
    return ((bits >> p & 0x0101010101010101u) * 0x0102040810204080u) >> 56;
}

/* `first` is a multiple of 64. */
static void set_plane_votes(qr_backend *backend, int buffer, int64_t first, int64_t count, const uint8_t *votes)
{
    int64_t position = backend->network->before + first;
    for (int p = 0; p < backend->n_planes; p++) {
        uint64_t *plane = backend->planes[buffer][p] + position / 64;
        int64_t i = 0;
        for (; i + 8 <= count; i += 8) {
            plane[i / 64] |= gather_bits(votes + i, p) << (i % 64);
        }
        for (; i < count; i++) {
            plane[i / 64] |= (uint64_t)(votes[i] >> p & 1u) << (i % 64);
        }
    }
}

static void initial_votes(const qr_backend *backend, int64_t first, int64_t count, const uint8_t *file_votes,
                          uint8_t *votes, uint64_t *frozen)
{
    const qr_model *model = backend->model;
    int64_t agent = backend->network->own.first + first;
    if (backend->simd != NULL && model->initial == QR_INITIAL_UNIFORM && model->zealots == 0) {
        backend->simd->draw_votes(model->rule.seed, (uint64_t)agent, count, model->rule.n_options, votes);
    } else {
        qr_model_initial_votes(model, agent, count, file_votes, votes, frozen);
    }
}

static void set_initial(qr_backend *backend, const uint8_t *file_votes)
{
    const qr_network *network = backend->network;
    int64_t count = network->own.count;
    int64_t dim = backend->model->state_dim;
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t begin = 0; begin < count; begin += QR_CPU_BLOCK) {
        int64_t n = count - begin < QR_CPU_BLOCK ? count - begin : QR_CPU_BLOCK;
        uint8_t votes[QR_CPU_BLOCK];
        uint64_t *frozen = backend->frozen != NULL ? backend->frozen + begin / 64 : NULL;
        initial_votes(backend, begin, n, file_votes != NULL ? file_votes + begin : NULL, votes, frozen);
        if (backend->n_planes > 0) {
            set_plane_votes(backend, 0, begin, n, votes);
        } else {
            memcpy(backend->bytes[0] + network->before + begin, votes, (size_t)n);
        }
        for (int64_t i = begin; backend->state != NULL && i < begin + n; i++) {
            qr_model_initial_state(backend->model, network->own.first + i, backend->state + i * dim);
        }
    }
}

static qr_status prepare_sweeps(qr_backend *backend)
{
    const qr_network *network = backend->network;
    backend->n_colours = qr_network_colours(network);
    if (backend->n_colours == 0) {
        return qr_error(QR_INTERNAL, "a sweep over a network without colours");
    }
    if (network->colour == NULL) {
        return QR_OK;
    }
    qr_status status = qr_allocate((size_t)backend->n_colours, sizeof(int64_t), "colours", (void **)&backend->movers);
    for (int64_t i = 0; status == QR_OK && i < network->own.count; i++) {
        backend->movers[network->colour[i]]++;
    }
    return status;
}

static qr_status cpu_create(const qr_backend_setup *setup, qr_backend **out)
{
    qr_backend *backend = NULL;
    qr_status status = qr_allocate(1, sizeof *backend, "the backend", (void **)&backend);
    if (status != QR_OK) {
        return status;
    }
    backend->model = setup->model;
    backend->network = setup->network;
    backend->threads = setup->threads > 0 ? setup->threads : 1;
    backend->simd = qr_simd_best();
    if (!qr_cpu_uses_planes(setup->model, &setup->network->spec, &backend->n_planes)) {
        backend->n_planes = 0;
    }
    backend->n_offsets = qr_lattice_offsets(&setup->network->spec, backend->offsets);
    backend->lattice = qr_lattice_of(&setup->network->spec);
    if (setup->model->sweeps) {
        status = prepare_sweeps(backend);
    }
    if (status == QR_OK) {
        status = allocate_votes(backend);
    }
    if (status == QR_OK) {
        status = allocate_scratch(backend);
    }
    if (status == QR_OK && setup->model->state_dim > 0) {
        status = setup->n_frames > 0
                     ? qr_cpu_frames_create(setup, backend)
                     : qr_allocate((size_t)setup->network->own.count, (size_t)setup->model->state_dim * sizeof(float),
                                   "agent states", (void **)&backend->state);
        if (status == QR_OK) {
            status = qr_cpu_neural_prepare(backend);
        }
    }
    if (status != QR_OK) {
        cpu_destroy(backend);
        return status;
    }
    set_initial(backend, setup->file_votes);
    const char *precision = setup->model->fast ? ", precision exact: the CPU has no other" : "";
    if (backend->n_planes > 0) {
        (void)snprintf(backend->description, sizeof backend->description, "%d bit plane%s, 64 agents a word%s",
                       backend->n_planes, backend->n_planes == 1 ? "" : "s", precision);
    } else {
        (void)snprintf(backend->description, sizeof backend->description, "one byte a vote%s%s",
                       setup->model->state_dim > 0 ? ", float32 states" : "", precision);
    }
    *out = backend;
    return QR_OK;
}

static int64_t cpu_bytes_estimate(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view)
{
    int n_planes = 0;
    int64_t buffers = model->sweeps ? 1 : 2;
    int64_t votes = qr_cpu_uses_planes(model, spec, &n_planes) ? n_planes * plane_words(view) * 8 : view + 64;
    int64_t frozen = model->zealots > 0 ? n_own / 8 : 0;
    return buffers * votes + frozen + n_own * model->state_dim * (int64_t)sizeof(float);
}

static int64_t cpu_halo_bytes(const qr_backend *backend, int64_t n_votes)
{
    return backend->n_planes == 0 ? n_votes : (n_votes + 63) / 64 * 8 * backend->n_planes;
}

/* Copies n bits; `from` and `to` count bits from the start of their arrays. Reads may touch one word beyond the last.
 */
static void copy_bits(uint64_t *to, int64_t to_bit, const uint64_t *from, int64_t from_bit, int64_t n)
{
    while (n > 0) {
        unsigned at = (unsigned)(to_bit & 63);
        int64_t room = 64 - (int64_t)at;
        int64_t now = n < room ? n : room;
        unsigned shift = (unsigned)(from_bit & 63);
        uint64_t bits = from[from_bit >> 6] >> shift;
        if ((int64_t)shift + now > 64) {
            bits |= from[(from_bit >> 6) + 1] << (64 - shift);
        }
        uint64_t mask = (now == 64 ? ~(uint64_t)0 : ((uint64_t)1 << now) - 1) << at;
        to[to_bit >> 6] = (to[to_bit >> 6] & ~mask) | (bits << at & mask);
        to_bit += now;
        from_bit += now;
        n -= now;
    }
}

static qr_status cpu_halo_pack(qr_backend *backend, const qr_halo_peer *peer, void *message)
{
    int64_t before = backend->network->before;
    int64_t sent = 0;
    int64_t words = (peer->send_count + 63) / 64;
    for (int64_t r = 0; r < peer->n_send; r++) {
        const qr_run *run = &peer->send[r];
        if (backend->n_planes == 0) {
            memcpy((uint8_t *)message + sent, backend->bytes[backend->current] + before + run->start,
                   (size_t)run->count);
        }
        for (int p = 0; p < backend->n_planes; p++) {
            copy_bits((uint64_t *)message + p * words, sent, backend->planes[backend->current][p], before + run->start,
                      run->count);
        }
        sent += run->count;
    }
    return QR_OK;
}

static qr_status cpu_halo_place(qr_backend *backend, const qr_halo_peer *peer, const void *message)
{
    int64_t words = (peer->recv_count + 63) / 64;
    for (int64_t r = 0; r < peer->n_place; r++) {
        const qr_place *place = &peer->place[r];
        if (backend->n_planes == 0) {
            memcpy(backend->bytes[backend->current] + place->to, (const uint8_t *)message + place->from,
                   (size_t)place->count);
        }
        for (int p = 0; p < backend->n_planes; p++) {
            copy_bits(backend->planes[backend->current][p], place->to, (const uint64_t *)message + p * words,
                      place->from, place->count);
        }
    }
    return QR_OK;
}

void qr_cpu_tally_merge(qr_tally *into, const qr_tally *from, uint32_t n_options)
{
    for (uint32_t k = 0; k < n_options; k++) {
        into->votes[k] += from->votes[k];
        into->leader[k] = from->leader[k] > into->leader[k] ? from->leader[k] : into->leader[k];
    }
}

/* What is done to every block. */
typedef struct pass {
    bool update; /* else count only */
    int64_t step;
    int colour;
    const qr_tally *before;
} pass;

static void do_block(qr_backend *backend, const pass *task, qr_cpu_range block, qr_cpu_scratch *scratch,
                     qr_tally *tally)
{
    if (!task->update && backend->n_planes > 0) {
        qr_cpu_planes_count(backend, block, tally);
    } else if (!task->update) {
        qr_cpu_bytes_count(backend, block, tally);
    } else if (backend->n_planes > 0 && backend->model->sweeps) {
        qr_cpu_sweep_block(backend, block, task->step, task->colour, tally);
    } else if (backend->n_planes > 0) {
        qr_cpu_planes_block(backend, block, task->step, tally);
    } else if (backend->state != NULL) {
        qr_cpu_neural_block(backend, block, backend->state + block.begin * backend->model->state_dim, task->step,
                            task->before, scratch, tally);
    } else {
        qr_cpu_bytes_block(backend, block, task->step, task->colour, task->before, scratch, tally);
    }
}

/* Agents to a block. Bit planes take a block a thread: small lattices are stepped in microseconds, of which the start
 * of a block is a good part. */
static int64_t block_length(const qr_backend *backend)
{
    if (backend->n_planes == 0) {
        return QR_CPU_BLOCK;
    }
    int64_t each = backend->network->own.count / backend->threads + 1;
    return (each + QR_CPU_PLANES_BLOCK - 1) / QR_CPU_PLANES_BLOCK * QR_CPU_PLANES_BLOCK;
}

/* One thread where that is all it takes: the last colours of a network with hubs are a few agents each, and threads
 * that meet after every colour cost more than those. */
static int threads_for(const qr_backend *backend, const pass *task)
{
    bool few = task->update && backend->movers != NULL && backend->movers[task->colour] < QR_CPU_FEW_MOVERS &&
               backend->network->own.count < (int64_t)64 * QR_CPU_FEW_MOVERS;
    return few ? 1 : backend->threads;
}

/* Every block of own agents, spread over the threads in contiguous ranges. */
static void for_all_blocks(qr_backend *backend, const pass *task, qr_tally *out)
{
    int64_t count = backend->network->own.count;
    int64_t length = block_length(backend);
    memset(out, 0, sizeof *out);
    if (threads_for(backend, task) == 1) { /* spares the start of a parallel region */
        for (int64_t begin = 0; begin < count; begin += length) {
            qr_cpu_range block = {begin, begin + length < count ? begin + length : count};
            do_block(backend, task, block, &backend->scratch[0], out);
        }
        return;
    }
#pragma omp parallel num_threads(backend->threads)
    {
        qr_tally mine;
        memset(&mine, 0, sizeof mine);
        qr_cpu_scratch *scratch = &backend->scratch[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < count; begin += length) {
            qr_cpu_range block = {begin, begin + length < count ? begin + length : count};
            do_block(backend, task, block, scratch, &mine);
        }
#pragma omp critical
        qr_cpu_tally_merge(out, &mine, backend->model->rule.n_options);
    }
}

static qr_status cpu_count(qr_backend *backend, qr_tally *out)
{
    const pass task = {.update = false};
    for_all_blocks(backend, &task, out);
    return QR_OK;
}

static qr_status cpu_update(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out)
{
    if (backend->state != NULL) {
        qr_cpu_neural_before_step(backend, before);
    }
    const pass task = {.update = true, .step = step, .colour = colour, .before = before};
    for_all_blocks(backend, &task, out);
    if (!backend->model->sweeps) {
        backend->current = 1 - backend->current;
    }
    return QR_OK;
}

static qr_status cpu_read_votes(qr_backend *backend, int64_t first, int64_t count, uint8_t *out)
{
    int64_t position = backend->network->before + first;
    if (backend->n_planes == 0) {
        memcpy(out, backend->bytes[backend->current] + position, (size_t)count);
        return QR_OK;
    }
    memset(out, 0, (size_t)count);
    for (int p = 0; p < backend->n_planes; p++) {
        const uint64_t *plane = backend->planes[backend->current][p];
        for (int64_t i = 0; i < count; i++) {
            out[i] = (uint8_t)(out[i] | (plane[(position + i) / 64] >> ((position + i) % 64) & 1u) << p);
        }
    }
    return QR_OK;
}

static qr_status cpu_read_state(qr_backend *backend, int64_t first, int64_t count, float *out)
{
    size_t dim = (size_t)backend->model->state_dim;
    if (dim > 0) {
        memcpy(out, backend->state + (size_t)first * dim, (size_t)count * dim * sizeof(float));
    }
    return QR_OK;
}

static qr_status cpu_copy_out(qr_backend *backend, const qr_piece *pieces, int64_t n)
{
#pragma omp parallel for schedule(dynamic) num_threads(backend->threads)
    for (int64_t i = 0; i < n; i++) {
        const qr_piece *piece = &pieces[i];
        if (piece->states) {
            (void)cpu_read_state(backend, piece->first, piece->count, piece->out);
        } else {
            (void)cpu_read_votes(backend, piece->first, piece->count, piece->out);
        }
    }
    return QR_OK;
}

static qr_status cpu_write_votes(qr_backend *backend, int64_t first, int64_t count, const uint8_t *votes)
{
    if (backend->n_planes == 0) {
        memcpy(backend->bytes[backend->current] + backend->network->before + first, votes, (size_t)count);
        return QR_OK;
    }
    int64_t position = backend->network->before + first;
    for (int p = 0; p < backend->n_planes; p++) {
        memset(backend->planes[backend->current][p] + position / 64, 0, (size_t)((count + 63) / 64) * sizeof(uint64_t));
    }
    set_plane_votes(backend, backend->current, first, count, votes);
    return QR_OK;
}

static qr_status cpu_write_state(qr_backend *backend, int64_t first, int64_t count, const float *state)
{
    size_t dim = (size_t)backend->model->state_dim;
    if (dim > 0) {
        memcpy(backend->state + (size_t)first * dim, state, (size_t)count * dim * sizeof(float));
    }
    return QR_OK;
}

static double cpu_bytes_per_step(const qr_backend *backend)
{
    double own = (double)backend->network->own.count;
    double votes = backend->n_planes > 0 ? 2.0 * backend->n_planes / 8.0 : 2.0;
    double edges = (double)backend->network->own_edge_ends * (backend->network->rows.row != NULL ? 5.0 : 0.0);
    return own * (votes + 8.0 * (double)backend->model->state_dim) + edges;
}

static const char *cpu_describe(const qr_backend *backend)
{
    return backend->description;
}

const qr_backend_ops qr_backend_ops_cpu = {.name = "cpu",
                                           .create = cpu_create,
                                           .destroy = cpu_destroy,
                                           .bytes_estimate = cpu_bytes_estimate,
                                           .halo_bytes = cpu_halo_bytes,
                                           .halo_pack = cpu_halo_pack,
                                           .halo_place = cpu_halo_place,
                                           .count = cpu_count,
                                           .update = cpu_update,
                                           .read_votes = cpu_read_votes,
                                           .read_state = cpu_read_state,
                                           .copy_out = cpu_copy_out,
                                           .write_votes = cpu_write_votes,
                                           .write_state = cpu_write_state,
                                           .bytes_per_step = cpu_bytes_per_step,
                                           .describe = cpu_describe,
                                           .frames = &qr_cpu_frame_ops};
