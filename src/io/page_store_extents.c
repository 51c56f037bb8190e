/* Which blocks of a page store's file are in use. Free runs stand in bins by their length, and every run knows its
 * neighbours in the file, so that taking and giving take the same short time whatever the size of the file. */
#include "base/memory.h"
#include "io/page_store_parts.h"

#include <stdlib.h>

enum { CHUNK = 256, WORD_BITS = 64 };

typedef struct qr_extent_chunk {
    struct qr_extent_chunk *next;
    qr_extent extents[CHUNK];
} chunk;

qr_status qr_extents_create(qr_extents *extents, int64_t start, int64_t limit, int64_t most_blocks)
{
    *extents = (qr_extents){.start = start, .end = start, .limit = limit, .n_bins = most_blocks + 1};
    size_t n = (size_t)extents->n_bins;
    qr_status status = qr_allocate(n, sizeof(qr_extent *), "a page store", (void **)&extents->bins);
    if (status == QR_OK) {
        status = qr_allocate(n / WORD_BITS + 1, sizeof(uint64_t), "a page store", (void **)&extents->filled);
    }
    return status;
}

void qr_extents_destroy(qr_extents *extents)
{
    while (extents->chunks != NULL) {
        chunk *next = extents->chunks->next;
        free(extents->chunks);
        extents->chunks = next;
    }
    free(extents->bins);
    free(extents->filled);
    *extents = (qr_extents){0};
}

/* --- bins: bin i holds free runs of i + 1 blocks, the last one all that are longer --- */

static size_t bin_of(const qr_extents *extents, int64_t blocks)
{
    return (size_t)((blocks < extents->n_bins ? blocks : extents->n_bins) - 1);
}

static void put_into_bin(qr_extents *extents, qr_extent *run)
{
    size_t bin = bin_of(extents, run->blocks);
    run->previous = NULL;
    run->next = extents->bins[bin];
    if (run->next != NULL) {
        run->next->previous = run;
    }
    extents->bins[bin] = run;
    extents->filled[bin / WORD_BITS] |= UINT64_C(1) << (bin % WORD_BITS);
}

static void take_from_bin(qr_extents *extents, qr_extent *run)
{
    size_t bin = bin_of(extents, run->blocks);
    if (run->previous != NULL) {
        run->previous->next = run->next;
    } else {
        extents->bins[bin] = run->next;
    }
    if (run->next != NULL) {
        run->next->previous = run->previous;
    }
    if (extents->bins[bin] == NULL) {
        extents->filled[bin / WORD_BITS] &= ~(UINT64_C(1) << (bin % WORD_BITS));
    }
}

/* A free run of at least so many blocks; NULL: none. All in the last bin are long enough for any. */
static qr_extent *find_free(const qr_extents *extents, int64_t blocks)
{
    size_t bin = bin_of(extents, blocks);
    size_t words = (size_t)extents->n_bins / WORD_BITS + 1;
    uint64_t mask = UINT64_MAX << (bin % WORD_BITS);
    for (size_t word = bin / WORD_BITS; word < words; word++) {
        uint64_t bits = extents->filled[word] & mask;
        if (bits != 0) {
            return extents->bins[word * WORD_BITS + (size_t)__builtin_ctzll(bits)];
        }
        mask = UINT64_MAX;
    }
    return NULL;
}

/* --- records of runs --- */

static qr_extent *get_record(qr_extents *extents)
{
    if (extents->spare == NULL) {
        chunk *more = calloc(1, sizeof *more);
        if (more == NULL) {
            return NULL;
        }
        more->next = extents->chunks;
        extents->chunks = more;
        for (int i = 0; i < CHUNK; i++) {
            more->extents[i].next = extents->spare;
            extents->spare = &more->extents[i];
        }
    }
    qr_extent *record = extents->spare;
    extents->spare = record->next;
    *record = (qr_extent){0};
    return record;
}

static void put_record(qr_extents *extents, qr_extent *record)
{
    record->next = extents->spare;
    extents->spare = record;
}

/* Takes a run out of the file's list, its blocks to go to a neighbour or to be cut off. */
static void unlink_run(qr_extents *extents, qr_extent *run)
{
    if (run->before != NULL) {
        run->before->after = run->after;
    }
    if (run->after != NULL) {
        run->after->before = run->before;
    } else {
        extents->last = run->before;
    }
    put_record(extents, run);
}

static qr_extent *take_at_end(qr_extents *extents, int64_t blocks)
{
    if (extents->limit > 0 && blocks > extents->limit - extents->end) {
        return NULL;
    }
    qr_extent *run = get_record(extents);
    if (run != NULL) {
        run->first = extents->end;
        run->blocks = blocks;
        run->before = extents->last;
        if (extents->last != NULL) {
            extents->last->after = run;
        }
        extents->last = run;
        extents->end += blocks;
    }
    return run;
}

/* What is too much of a free run stays free; the whole run is taken for want of memory. */
static void split(qr_extents *extents, qr_extent *run, int64_t blocks)
{
    qr_extent *rest = run->blocks > blocks ? get_record(extents) : NULL;
    if (rest == NULL) {
        return;
    }
    rest->first = run->first + blocks;
    rest->blocks = run->blocks - blocks;
    rest->before = run;
    rest->after = run->after;
    if (rest->after != NULL) {
        rest->after->before = rest;
    } else {
        extents->last = rest;
    }
    run->after = rest;
    run->blocks = blocks;
    put_into_bin(extents, rest);
}

qr_extent *qr_extents_take(qr_extents *extents, int64_t blocks, bool grows)
{
    if (blocks < 1 || blocks >= extents->n_bins) {
        return NULL;
    }
    qr_extent *run = find_free(extents, blocks);
    if (run != NULL) {
        take_from_bin(extents, run);
        split(extents, run, blocks);
    } else if (grows) {
        run = take_at_end(extents, blocks);
    }
    if (run != NULL) {
        run->uses = 1;
        extents->used += run->blocks;
    }
    return run;
}

void qr_extents_give(qr_extents *extents, qr_extent *run)
{
    qr_extent *before = run->before;
    qr_extent *after = run->after;
    extents->used -= run->blocks;
    run->uses = 0;
    if (after != NULL && after->uses == 0) {
        take_from_bin(extents, after);
        run->blocks += after->blocks;
        unlink_run(extents, after);
    }
    if (before != NULL && before->uses == 0) {
        take_from_bin(extents, before);
        before->blocks += run->blocks;
        unlink_run(extents, run);
        run = before;
    }
    if (run->after == NULL) {
        extents->end = run->first;
        unlink_run(extents, run);
    } else {
        put_into_bin(extents, run);
    }
}
