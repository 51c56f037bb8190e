/* State hash: XXH3-128 over fixed blocks of 65,536 agents in global order (votes, then states), then over the block
 * hashes. A block that several parts share is hashed by the part that owns its first agent; the others send their
 * share. */
#include "run/own_blocks.h"
#include "run/paging.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { HASH_BLOCK = QR_HASH_BLOCK, PIECE_BYTES = 1 << 22, TAG_HASH = 13 };

typedef struct hasher {
    qr_simulation *simulation;
    XXH3_state_t *state;
    int64_t piece;  /* agents read, or sent, at a time; the same on all ranks */
    uint8_t *votes; /* [piece] */
    float *states;  /* [piece][state_dim] */
} hasher;

/* Own agents [begin, end) (global ids) as votes (pass 0) or states (pass 1), in pieces: hashed here, or sent to
 * `owner`. */
static qr_status own_share(hasher *h, int pass, int64_t begin, int64_t end, int owner)
{
    qr_simulation *simulation = h->simulation;
    int64_t first = simulation->network->own.first;
    int64_t dim = simulation->model->state_dim;
    qr_status status = QR_OK;
    for (int64_t at = begin; at < end; at += h->piece) { /* also after a failure: the owner waits for every piece */
        int64_t n = qr_min64(h->piece, end - at);
        size_t bytes = pass == 0 ? (size_t)n : (size_t)(n * dim) * sizeof(float);
        void *data = pass == 0 ? (void *)h->votes : (void *)h->states;
        qr_status got = pass == 0 ? simulation->ops->read_votes(simulation->backend, at - first, n, h->votes)
                                  : qr_states_read(simulation, at - first, n, h->states);
        status = status == QR_OK ? got : status;
        if (owner < 0) {
            (void)XXH3_128bits_update(h->state, data, bytes);
        } else {
            MPI_Send(data, (int)bytes, MPI_BYTE, owner, TAG_HASH, simulation->comm->compute);
        }
    }
    return status;
}

/* The rest of a block, agents [begin, end), from the parts that own it, in order. */
static void foreign_share(hasher *h, int pass, int64_t begin, int64_t end)
{
    qr_simulation *simulation = h->simulation;
    int64_t n_agents = simulation->spec.n_agents;
    int64_t dim = simulation->model->state_dim;
    int n_parts = simulation->comm->n_parts;
    while (begin < end) {
        int owner = qr_partition_owner(n_agents, n_parts, begin);
        qr_range range = qr_partition_range(n_agents, n_parts, owner);
        int64_t stop = qr_min64(end, range.first + range.count);
        for (; begin < stop; begin += qr_min64(h->piece, stop - begin)) {
            int64_t n = qr_min64(h->piece, stop - begin);
            size_t bytes = pass == 0 ? (size_t)n : (size_t)(n * dim) * sizeof(float);
            void *data = pass == 0 ? (void *)h->votes : (void *)h->states;
            MPI_Recv(data, (int)bytes, MPI_BYTE, owner, TAG_HASH, simulation->comm->compute, MPI_STATUS_IGNORE);
            (void)XXH3_128bits_update(h->state, data, bytes);
        }
    }
}

/* Digests of the blocks whose first agent is ours, after sending away our share of an earlier part's block. */
static qr_status hash_blocks(hasher *h, XXH128_canonical_t *digests)
{
    qr_simulation *simulation = h->simulation;
    qr_range own = simulation->network->own;
    int64_t end = own.first + own.count;
    int passes = simulation->model->state_dim > 0 ? 2 : 1;
    int64_t first_block = (own.first + HASH_BLOCK - 1) / HASH_BLOCK * HASH_BLOCK;
    qr_status status = QR_OK;
    if (own.first < first_block && own.count > 0) {
        int64_t start = first_block - HASH_BLOCK;
        int owner = qr_partition_owner(simulation->spec.n_agents, simulation->comm->n_parts, start);
        for (int pass = 0; pass < passes; pass++) {
            qr_status sent = own_share(h, pass, own.first, qr_min64(end, first_block), owner);
            status = status == QR_OK ? sent : status;
        }
    }
    int64_t rest = first_block;
    if (simulation->paging.pager != NULL) { /* of these, what begins here and ends elsewhere is the last one, if any */
        rest = end < simulation->spec.n_agents && end > first_block ? end - end % HASH_BLOCK : end;
        qr_status hashed = qr_hash_own_blocks(simulation, first_block, rest, digests);
        status = status == QR_OK ? hashed : status;
    }
    for (int64_t block = rest; block < end; block += HASH_BLOCK) {
        int64_t block_end = qr_min64(block + HASH_BLOCK, simulation->spec.n_agents);
        (void)XXH3_128bits_reset(h->state);
        for (int pass = 0; pass < passes; pass++) {
            qr_status hashed = own_share(h, pass, block, qr_min64(block_end, end), -1);
            status = status == QR_OK ? hashed : status;
            foreign_share(h, pass, qr_min64(block_end, end), block_end);
        }
        XXH128_canonicalFromHash(&digests[(block - first_block) / HASH_BLOCK], XXH3_128bits_digest(h->state));
    }
    return status;
}

static int64_t blocks_of(qr_range own)
{
    int64_t first = (own.first + HASH_BLOCK - 1) / HASH_BLOCK;
    int64_t last = (own.first + own.count + HASH_BLOCK - 1) / HASH_BLOCK;
    return own.count > 0 ? last - first : 0;
}

static qr_status gather_digests(qr_simulation *simulation, const XXH128_canonical_t *mine, char *text)
{
    qr_comm *comm = simulation->comm;
    int64_t n_agents = simulation->spec.n_agents;
    int *counts = NULL;
    int *starts = NULL;
    XXH128_canonical_t *all = NULL;
    int64_t total = (n_agents + HASH_BLOCK - 1) / HASH_BLOCK;
    qr_status status = qr_allocate((size_t)comm->n_parts, sizeof(int), "block counts", (void **)&counts);
    if (status == QR_OK) {
        status = qr_allocate((size_t)comm->n_parts, sizeof(int), "block starts", (void **)&starts);
    }
    if (status == QR_OK && comm->me.part == 0) {
        status = qr_allocate((size_t)total, sizeof *all, "block hashes", (void **)&all);
    }
    status = qr_comm_agree(comm->compute, status);
    if (status == QR_OK) {
        int at = 0;
        for (int p = 0; p < comm->n_parts; p++) {
            counts[p] = (int)(blocks_of(qr_partition_range(n_agents, comm->n_parts, p)) * (int64_t)sizeof *all);
            starts[p] = at;
            at += counts[p];
        }
        MPI_Gatherv(mine, counts[comm->me.part], MPI_BYTE, all, counts, starts, MPI_BYTE, 0, comm->compute);
        if (comm->me.part == 0) {
            XXH128_canonical_t whole;
            XXH128_canonicalFromHash(&whole, XXH3_128bits(all, (size_t)total * sizeof *all));
            for (size_t i = 0; i < sizeof whole.digest; i++) {
                (void)snprintf(text + 2 * i, 3, "%02x", whole.digest[i]);
            }
        }
    }
    free(counts);
    free(starts);
    free(all);
    return status;
}

qr_status qr_state_hash(qr_simulation *simulation, char *text)
{
    hasher h = {.simulation = simulation, .state = XXH3_createState()};
    XXH128_canonical_t *digests = NULL;
    size_t dim = (size_t)(simulation->model->state_dim > 0 ? simulation->model->state_dim : 1);
    h.piece = qr_min64(HASH_BLOCK, PIECE_BYTES / (int64_t)(dim * sizeof(float)));
    qr_status status = h.state != NULL ? QR_OK : qr_error_memory(1, "the state hash");
    if (status == QR_OK) {
        status = qr_allocate((size_t)h.piece, 1, "votes to hash", (void **)&h.votes);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)h.piece, dim * sizeof(float), "states to hash", (void **)&h.states);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)blocks_of(simulation->network->own), sizeof *digests, "block hashes",
                             (void **)&digests);
    }
    status = qr_comm_agree(simulation->comm->compute, status);
    if (status == QR_OK) {
        qr_progress_within(simulation, QR_LONG_HASH, 0, simulation->network->own.count);
        status = qr_comm_agree(simulation->comm->compute, hash_blocks(&h, digests));
    }
    if (status == QR_OK) {
        status = gather_digests(simulation, digests, text);
    }
    (void)XXH3_freeState(h.state);
    free(h.votes);
    free(h.states);
    free(digests);
    return status;
}
