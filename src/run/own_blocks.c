#include "run/own_blocks.h"

#include "base/memory.h"
#include "io/pool.h"
#include "run/paging.h"

#include <stdlib.h>
#include <string.h>

/* Memory for what is read at one time, and as much for what is hashed meanwhile: a small share of all; blocks at a
 * time; pieces of a page that are asked for in one go. */
enum { HALVES = 2, LEAST_BYTES = 4 << 20, MOST_BYTES = 160 << 20, SHARE = 32, MOST_LANES = 16, PIECES = 256 };

/* One block, or a part of one, on its way into its hash. */
typedef struct lane {
    XXH3_state_t *hash; /* of the block */
    uint8_t *votes;     /* [QR_HASH_BLOCK] */
    float *states;
    size_t vote_bytes, state_bytes; /* to be hashed now; votes with the first part of a block */
    XXH128_canonical_t *digest;     /* with the last one; NULL: there is more */
    pthread_t thread;
    bool runs;
} lane;

typedef struct reader {
    qr_simulation *simulation;
    int64_t dim, page_agents; /* pieces do not cross pages */
    int64_t part;             /* agents of a block whose states are read at a time */
    int n_lanes;
    lane lanes[HALVES][MOST_LANES]; /* one half is read while the other is hashed */
    XXH3_state_t *hashes[MOST_LANES];
    unsigned char *memory;
    bool pinned;
    qr_piece pieces[PIECES];
    int64_t n_pieces;
} reader;

/* --- reading --- */

static qr_status flush(reader *r)
{
    int64_t n = r->n_pieces;
    r->n_pieces = 0;
    return n > 0 ? qr_states_copy_out(r->simulation, r->pieces, n) : QR_OK;
}

/* Own agents [first, first + count), numbered within the rank. */
static qr_status ask(reader *r, bool states, int64_t first, int64_t count, void *out)
{
    int64_t page = states ? r->page_agents : QR_HASH_BLOCK;
    size_t bytes = states ? (size_t)r->dim * sizeof(float) : 1;
    qr_status status = QR_OK;
    for (int64_t at = 0; at < count && status == QR_OK;) {
        int64_t n = qr_min64(count - at, page - (first + at) % page);
        r->pieces[r->n_pieces++] = (qr_piece){
            .first = first + at, .count = n, .out = (unsigned char *)out + (size_t)at * bytes, .states = states};
        at += n;
        status = r->n_pieces == PIECES ? flush(r) : QR_OK;
    }
    return status;
}

/* Blocks from `block` on, one a lane, and of each the agents from `at` on. */
static qr_status read_half(reader *r, lane *lanes, int64_t block, int64_t end, int64_t at, XXH128_canonical_t *digests)
{
    int64_t own = r->simulation->network->own.first;
    qr_status status = QR_OK;
    for (int i = 0; i < r->n_lanes; i++, block += QR_HASH_BLOCK) {
        lane *to = &lanes[i];
        int64_t agents = block < end ? qr_min64(QR_HASH_BLOCK, end - block) : 0;
        int64_t count = r->dim > 0 ? qr_min64(r->part, agents - at) : 0;
        bool reads = agents > 0 && (at == 0 || count > 0);
        to->vote_bytes = reads && at == 0 ? (size_t)agents : 0;
        to->state_bytes = reads && count > 0 ? (size_t)(count * r->dim) * sizeof(float) : 0;
        to->digest = reads && (r->dim == 0 || at + count == agents) ? &digests[i] : NULL;
        if (status == QR_OK && to->vote_bytes > 0) {
            status = ask(r, false, block - own, agents, to->votes);
        }
        if (status == QR_OK && to->state_bytes > 0) {
            status = ask(r, true, block - own + at, count, to->states);
        }
    }
    return status == QR_OK ? flush(r) : status;
}

/* --- hashing --- */

static void *hash(void *argument)
{
    lane *from = argument;
    if (from->vote_bytes > 0) {
        (void)XXH3_128bits_reset(from->hash);
        (void)XXH3_128bits_update(from->hash, from->votes, from->vote_bytes);
    }
    if (from->state_bytes > 0) {
        (void)XXH3_128bits_update(from->hash, from->states, from->state_bytes);
    }
    if (from->digest != NULL) {
        XXH128_canonicalFromHash(from->digest, XXH3_128bits_digest(from->hash));
    }
    return NULL;
}

static void start(const reader *r, lane *lanes)
{
    for (int i = 0; i < r->n_lanes; i++) {
        lane *one = &lanes[i];
        bool any = one->vote_bytes + one->state_bytes > 0 || one->digest != NULL;
        one->runs = any && qr_thread_start(&one->thread, hash, one) == 0;
        if (any && !one->runs) { /* no thread to be had */
            (void)hash(one);
        }
    }
}

static void join(const reader *r, lane *lanes)
{
    for (int i = 0; i < r->n_lanes; i++) {
        if (lanes[i].runs) {
            (void)pthread_join(lanes[i].thread, NULL);
            lanes[i].runs = false;
        }
    }
}

static qr_status hash_all(reader *r, int64_t begin, int64_t end, XXH128_canonical_t *digests)
{
    qr_status status = QR_OK;
    int64_t stride = (int64_t)r->n_lanes * QR_HASH_BLOCK;
    int half = 0;
    for (int64_t block = begin; block < end && status == QR_OK; block += stride) {
        XXH128_canonical_t *here = digests + (block - begin) / QR_HASH_BLOCK;
        for (int64_t at = 0; at < QR_HASH_BLOCK && status == QR_OK; at += r->part, half = 1 - half) {
            status = read_half(r, r->lanes[half], block, end, at, here);
            join(r, r->lanes[1 - half]);
            if (status == QR_OK) {
                start(r, r->lanes[half]);
            }
            int64_t done = block - begin + (at + r->part) * r->n_lanes;
            qr_progress_within(r->simulation, QR_LONG_HASH, qr_min64(done, end - begin), end - begin);
        }
    }
    join(r, r->lanes[1 - half]);
    return status;
}

/* --- memory --- */

static const qr_frame_ops *pinning(const qr_simulation *simulation)
{
    return simulation->paging.on_device ? simulation->ops->frames : NULL;
}

/* As many blocks at a time as there are threads, blocks, and room; where that is not enough for one, a part of it. */
static qr_status prepare(reader *r, int64_t n_blocks)
{
    const qr_simulation *simulation = r->simulation;
    const qr_frame_ops *frames = pinning(simulation);
    int64_t agent_bytes = r->dim * (int64_t)sizeof(float);
    int64_t block_bytes = QR_HASH_BLOCK * (1 + agent_bytes);
    int64_t room = qr_min64(n_blocks * block_bytes / SHARE, MOST_BYTES);
    room = room > LEAST_BYTES ? room : LEAST_BYTES;
    int64_t lanes = qr_min64(qr_min64(simulation->threads, MOST_LANES), qr_min64(n_blocks, room / block_bytes));
    r->n_lanes = lanes > 1 ? (int)lanes : 1;
    r->part = QR_HASH_BLOCK;
    while (r->n_lanes * (QR_HASH_BLOCK + r->part * agent_bytes) > room && r->part > 1) {
        r->part /= 2;
    }
    size_t state_bytes = ((size_t)(r->part * agent_bytes) + 63) / 64 * 64;
    size_t lane_bytes = QR_HASH_BLOCK + state_bytes;
    size_t bytes = (size_t)r->n_lanes * HALVES * lane_bytes;
    qr_status status = QR_RESOURCE;
    if (frames != NULL) {
        status = frames->allocate_host(simulation->backend, bytes, (void **)&r->memory);
        r->pinned = status == QR_OK;
    }
    if (!r->pinned) {
        status = qr_allocate(bytes, 1, "agents to hash", (void **)&r->memory);
    }
    for (int i = 0; i < r->n_lanes && status == QR_OK; i++) {
        r->hashes[i] = XXH3_createState();
        status = r->hashes[i] != NULL ? QR_OK : qr_error_memory(1, "the state hash");
        for (int half = 0; half < HALVES; half++) {
            unsigned char *at = r->memory + (size_t)(half * r->n_lanes + i) * lane_bytes;
            r->lanes[half][i] =
                (lane){.hash = r->hashes[i], .votes = at, .states = (float *)(void *)(at + QR_HASH_BLOCK)};
        }
    }
    return status;
}

static void clear(reader *r)
{
    if (r->pinned) {
        pinning(r->simulation)->free_host(r->simulation->backend, r->memory);
    } else {
        free(r->memory);
    }
    for (int i = 0; i < MOST_LANES; i++) {
        (void)XXH3_freeState(r->hashes[i]);
    }
    free(r);
}

qr_status qr_hash_own_blocks(qr_simulation *simulation, int64_t begin, int64_t end, XXH128_canonical_t *digests)
{
    reader *r = NULL;
    if (begin >= end) {
        return QR_OK;
    }
    qr_status status = qr_allocate(1, sizeof *r, "the state hash", (void **)&r);
    if (status != QR_OK) {
        return status;
    }
    r->simulation = simulation;
    r->dim = simulation->model->state_dim;
    r->page_agents = simulation->paging.page_agents;
    status = prepare(r, (end - begin + QR_HASH_BLOCK - 1) / QR_HASH_BLOCK);
    status = status == QR_OK ? hash_all(r, begin, end, digests) : status;
    clear(r);
    return status;
}
