/* What was committed before: generations that drains may read, and the pages that a new one need not write again. */
#include "io/checkpoint_parts.h"

#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int by_agents(const void *a, const void *b)
{
    const qr_generation_part *left = a;
    const qr_generation_part *right = b;
    if (left->first != right->first) {
        return left->first < right->first ? -1 : 1;
    }
    return left->part < right->part ? -1 : left->part > right->part;
}

qr_status qr_parts_sort(const qr_generation_part *parts, int n, qr_generation_part **out, int *n_out)
{
    qr_generation_part *sorted = NULL;
    qr_status status = qr_allocate((size_t)n, sizeof *sorted, "a checkpoint", (void **)&sorted);
    if (status != QR_OK) {
        return status;
    }
    *n_out = 0;
    for (int i = 0; i < n; i++) {
        if (parts[i].count > 0) {
            sorted[(*n_out)++] = parts[i];
        }
    }
    qsort(sorted, (size_t)*n_out, sizeof *sorted, by_agents);
    *out = sorted;
    return QR_OK;
}

/* --- generations committed in this run (lock) --- */

qr_kept *qr_kept_find(const qr_tier *tier, int64_t generation)
{
    qr_kept *kept = tier->kept;
    while (kept != NULL && kept->generation != generation) {
        kept = kept->next;
    }
    return kept;
}

static qr_status note_written(qr_tier *tier, int64_t generation, int64_t bytes)
{
    qr_status status = qr_grow((void **)&tier->written, &tier->written_room, tier->n_written + 1, sizeof *tier->written,
                               "a checkpoint");
    if (status == QR_OK) {
        tier->written[tier->n_written][0] = generation;
        tier->written[tier->n_written][1] = bytes;
        tier->n_written++;
    }
    return status;
}

qr_status qr_kept_add(qr_tier *tier, const qr_cut *cut)
{
    qr_kept *kept = NULL;
    qr_status status = qr_allocate(1, sizeof *kept, "a checkpoint", (void **)&kept);
    if (status != QR_OK) {
        return status;
    }
    status = qr_parts_sort(cut->parts, cut->n_parts, &kept->parts, &kept->n_parts);
    status = status != QR_OK ? status : note_written(tier, cut->generation, cut->seal.stored_bytes);
    if (status != QR_OK) {
        free(kept->parts);
        free(kept);
        return status;
    }
    kept->generation = cut->generation;
    kept->step = cut->step;
    kept->seal = cut->seal;
    kept->everywhere = cut->copies == 1 + tier->owner->config.replicas;
    kept->next = tier->kept;
    tier->kept = kept;
    return QR_OK;
}

static void drop(qr_kept **at)
{
    qr_kept *kept = *at;
    *at = kept->next;
    free(kept->parts);
    free(kept);
}

void qr_kept_drop(qr_tier *tier, int64_t generation)
{
    for (qr_kept **at = &tier->kept; *at != NULL;) {
        if ((*at)->generation == generation && (*at)->readers == 0) {
            drop(at);
        } else {
            at = &(*at)->next;
        }
    }
}

void qr_kept_drop_below(qr_tier *tier, int64_t generation)
{
    for (qr_kept **at = &tier->kept; *at != NULL;) {
        if ((*at)->generation < generation && (*at)->readers == 0) {
            drop(at);
        } else {
            at = &(*at)->next;
        }
    }
}

void qr_kept_clear(qr_tier *tier)
{
    while (tier->kept != NULL) {
        drop(&tier->kept);
    }
}

size_t qr_kept_pinned(const qr_tier *tier, int64_t *out, size_t room)
{
    size_t n = 0;
    for (const qr_kept *kept = tier->kept; kept != NULL && n < room; kept = kept->next) {
        if (kept->readers > 0) {
            out[n++] = kept->generation;
        }
    }
    return n;
}

/* --- pages of the newest of them --- */

void qr_earlier_release(qr_earlier *earlier)
{
    if (earlier == NULL || --earlier->uses > 0) {
        return;
    }
    free(earlier->records);
    free(earlier->sources);
    free(earlier->spent);
    free(earlier);
}

static size_t source_of(const qr_earlier *earlier, int64_t generation)
{
    size_t i = 0;
    while (i < earlier->n_sources && earlier->sources[i] != generation) {
        i++;
    }
    return i;
}

static qr_status read_records(const char *directory, int server, int64_t generation, const qr_generation_seal *seal,
                              qr_earlier *earlier)
{
    qr_generation_reader *reader = NULL;
    size_t n = 0;
    qr_status status = qr_generation_open(directory, generation, server, false, seal, &reader);
    if (status != QR_OK) {
        return status;
    }
    const qr_page_record *records = qr_generation_pages(reader, &n);
    status = qr_allocate(n, sizeof *records, "a checkpoint", (void **)&earlier->records);
    if (status == QR_OK && n > 0) {
        memcpy(earlier->records, records, n * sizeof *records);
        earlier->n = n;
    }
    qr_generation_close(reader);
    return status;
}

/* The files that the pages lie in, and how many of each one's bytes are still in use. live: grown along. */
static qr_status find_sources(qr_earlier *earlier, int64_t **live)
{
    size_t room = 0;
    size_t live_room = 0;
    for (size_t i = 0; i < earlier->n; i++) {
        const qr_page_record *record = &earlier->records[i];
        size_t source = source_of(earlier, record->generation);
        if (source == earlier->n_sources) {
            qr_status status = qr_grow((void **)&earlier->sources, &room, source + 1, sizeof(int64_t), "a checkpoint");
            if (status == QR_OK) {
                status = qr_grow((void **)live, &live_room, source + 1, sizeof(int64_t), "a checkpoint");
            }
            if (status != QR_OK) {
                return status;
            }
            earlier->sources[source] = record->generation;
            (*live)[source] = 0;
            earlier->n_sources++;
        }
        (*live)[source] += (int64_t)record->stored_bytes;
    }
    return qr_allocate(earlier->n_sources, sizeof(bool), "a checkpoint", (void **)&earlier->spent);
}

/* (lock) What is known of a file's first contents goes when no page lies in it any more. */
static void judge_sources(qr_tier *tier, qr_earlier *earlier, const int64_t *live)
{
    size_t left = 0;
    for (size_t i = 0; i < earlier->n_sources; i++) {
        earlier->spent[i] = true;
    }
    for (size_t i = 0; i < tier->n_written; i++) {
        size_t source = source_of(earlier, tier->written[i][0]);
        if (source < earlier->n_sources) {
            earlier->spent[source] = live[source] < tier->written[i][1] - live[source];
            memmove(tier->written[left++], tier->written[i], sizeof tier->written[i]);
        }
    }
    tier->n_written = left;
}

void qr_earlier_load(qr_tier *tier)
{
    const qr_checkpoint_config *config = &tier->owner->config;
    qr_earlier *next = NULL;
    int64_t *live = NULL;
    qr_earlier_release(tier->earlier);
    tier->earlier = NULL;
    if (!config->incremental || tier->kept == NULL) {
        return;
    }
    int64_t generation = tier->kept->generation;
    qr_generation_seal seal = tier->kept->seal;
    qr_tier_leave(tier);
    qr_status status = qr_allocate(1, sizeof *next, "a checkpoint", (void **)&next);
    if (status == QR_OK) {
        next->uses = 1;
        next->generation = generation;
        status = read_records(tier->directory, config->server, generation, &seal, next);
    }
    status = status != QR_OK ? status : find_sources(next, &live);
    qr_tier_return(tier);
    if (status == QR_OK) {
        judge_sources(tier, next, live);
        tier->earlier = next;
    } else {
        qr_earlier_release(next); /* the next generation will be written in full */
    }
    free(live);
}

static int compare_pages(const void *a, const void *b)
{
    const qr_page_record *left = a;
    const qr_page_record *right = b;
    if (left->part != right->part) {
        return left->part < right->part ? -1 : 1;
    }
    if (left->kind != right->kind) {
        return left->kind < right->kind ? -1 : 1;
    }
    return left->number < right->number ? -1 : left->number > right->number;
}

const qr_page_record *qr_earlier_find(const qr_earlier *earlier, const qr_page_record *record)
{
    if (earlier == NULL || earlier->n == 0) {
        return NULL;
    }
    const qr_page_record *found = bsearch(record, earlier->records, earlier->n, sizeof *record, compare_pages);
    if (found == NULL || found->first != record->first || found->count != record->count ||
        found->raw_bytes != record->raw_bytes || found->raw_hash.low != record->raw_hash.low ||
        found->raw_hash.high != record->raw_hash.high || earlier->spent[source_of(earlier, found->generation)]) {
        return NULL;
    }
    return found;
}

qr_status qr_earlier_check(const qr_earlier *earlier, const char *directory, int server)
{
    for (size_t i = 0; earlier != NULL && i < earlier->n_sources; i++) {
        char name[QR_GENERATION_NAME_BYTES];
        char *path = NULL;
        qr_generation_file_name(earlier->sources[i], server, false, "h5", name);
        qr_status status = qr_path_join(directory, name, &path);
        if (status == QR_OK && access(path, R_OK) != 0) {
            status = qr_error(QR_DATA, "%s: cannot be read: %s; later generations refer to it", path, strerror(errno));
        }
        free(path);
        if (status != QR_OK) {
            return status;
        }
    }
    return QR_OK;
}
