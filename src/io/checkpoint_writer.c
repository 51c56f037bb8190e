/* A tier's writer thread: all that may have to wait for the tier's disk. */
#include "io/checkpoint_parts.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/manifest.h"
#include "io/page_store.h"

#include <stdlib.h>
#include <string.h>

/* What a generation takes beside its pages: HDF5's structures, and for each page its record and its chunk's entry. */
enum { FILE_BYTES = 1 << 18, ENTRY_BYTES = 256 };

void qr_tier_leave(qr_tier *tier)
{
    tier->busy = true;
    tier->acts++;
    pthread_mutex_unlock(&tier->owner->lock);
}

void qr_tier_return(qr_tier *tier)
{
    pthread_mutex_lock(&tier->owner->lock);
    tier->busy = false;
}

static qr_status fault_at(const char *point, const char *directory)
{
    int error = qr_fault(point, directory);
    return error == 0 ? QR_OK : qr_file_error(directory, "written", error);
}

/* --- the beginning of a generation (not the lock) --- */

static int64_t worst_case(const qr_cut *cut, const qr_generation_part *parts, int n)
{
    const qr_tier *tier = cut->tier;
    const qr_checkpoint_config *config = &tier->owner->config;
    int64_t bytes = FILE_BYTES + (int64_t)strlen(config->deck_text) + cut->expected * ENTRY_BYTES;
    for (int kind = QR_PAGE_VOTES; kind <= QR_PAGE_STATE; kind++) {
        if (tier->page_bytes[kind] > 0) {
            int64_t page = (int64_t)qr_codec_bound(tier->codec, tier->page_bytes[kind]);
            for (int i = 0; i < n; i++) {
                bytes += page * qr_pages_of(config, kind, parts[i].count);
            }
        }
    }
    return bytes;
}

static qr_status make_room(qr_tier *tier, int64_t needed)
{
    int64_t used = 0;
    int64_t retired = 0;
    int64_t pinned[QR_N_TIERS + 1];
    size_t n_pinned = 0;
    if (tier->capacity == 0) {
        return QR_OK;
    }
    qr_status status = qr_tier_used(tier->directory, &used);
    if (status == QR_OK && used > tier->capacity - needed) {
        pthread_mutex_lock(&tier->owner->lock);
        n_pinned = qr_kept_pinned(tier, pinned, QR_N_TIERS + 1);
        pthread_mutex_unlock(&tier->owner->lock);
        status = qr_tier_retire(tier->directory, tier->keep, pinned, n_pinned, &retired, NULL);
        status = status != QR_OK ? status : qr_tier_used(tier->directory, &used);
    }
    if (status == QR_OK && used > tier->capacity - needed) {
        status =
            qr_error(QR_RESOURCE,
                     "%s: full: %.1f MiB are used and a generation may take %.1f MiB, but the tier's capacity is "
                     "%.1f MiB",
                     tier->directory, (double)used / 0x1p20, (double)needed / 0x1p20, (double)tier->capacity / 0x1p20);
    }
    return status;
}

static qr_status open_generation(qr_cut *cut, const qr_generation_part *parts, int n, qr_generation_writer **writer)
{
    qr_tier *tier = cut->tier;
    const qr_checkpoint_config *config = &tier->owner->config;
    qr_status status = tier->made ? QR_OK : qr_directories_make(tier->directory, "checkpoint");
    tier->made = tier->made || status == QR_OK;
    status = status != QR_OK ? status : fault_at("checkpoint.begin", tier->directory);
    status = status != QR_OK ? status : make_room(tier, worst_case(cut, parts, n));
    if (status == QR_OK) {
        status = qr_earlier_check(cut->earlier, tier->directory, config->server);
    }
    if (status != QR_OK) {
        return status;
    }
    qr_generation_plan plan = {.directory = tier->directory,
                               .generation = cut->generation,
                               .step = cut->step,
                               .server = config->server,
                               .codec = tier->codec,
                               .state_dim = config->state_dim,
                               .page_agents_votes = config->page_agents_votes,
                               .page_agents_state = config->page_agents_state,
                               .parts = parts,
                               .n_parts = n,
                               .deck = config->deck_text,
                               .version = config->version};
    return qr_generation_writer_create(&plan, writer);
}

/* (lock) */
static void begin(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    qr_generation_part *parts = NULL;
    qr_generation_writer *writer = NULL;
    qr_generation_reader *reader = NULL;
    const qr_page_record *pages = NULL;
    size_t n_pages = 0;
    int n = 0;
    double start = qr_now_s();
    qr_generation_seal seal = cut->source != NULL ? cut->source->seal : (qr_generation_seal){0};
    qr_tier_leave(tier);
    qr_status status = qr_parts_sort(cut->parts, cut->n_parts, &parts, &n);
    if (status == QR_OK && cut->from != NULL) {
        status = qr_generation_open(cut->from->directory, cut->generation, tier->owner->config.server, false, &seal,
                                    &reader);
        if (status == QR_OK) {
            pages = qr_generation_pages(reader, &n_pages);
            if (n_pages != (size_t)cut->expected) {
                status = qr_error(QR_DATA, "%s: generation %lld holds %zu pages, not %lld", cut->from->directory,
                                  (long long)cut->generation, n_pages, (long long)cut->expected);
            }
        }
    }
    status = status != QR_OK ? status : open_generation(cut, parts, n, &writer);
    free(parts);
    qr_tier_return(tier);
    tier->post.write_s += qr_now_s() - start;
    cut->writer = writer;
    cut->reader = reader;
    cut->source_pages = pages;
    cut->progress++;
    if (status != QR_OK) {
        if (cut->earlier != NULL && cut->earlier == tier->earlier && status == QR_DATA) {
            qr_earlier_release(tier->earlier); /* something is not as it was: write everything next time */
            tier->earlier = NULL;
        }
        qr_cut_fail(cut, status);
    }
}

/* --- pages and the seal (lock) --- */

static void write_page(qr_cut *cut, qr_page *page)
{
    qr_tier *tier = cut->tier;
    double start = qr_now_s();
    qr_tier_leave(tier);
    qr_status status = page->taken_over ? QR_OK : fault_at("checkpoint.write", tier->directory);
    if (status == QR_OK) {
        status = page->taken_over ? qr_generation_take_over(cut->writer, &page->record)
                                  : qr_generation_write_page(cut->writer, &page->record, page->packed->bytes);
    }
    qr_tier_return(tier);
    tier->post.write_s += qr_now_s() - start;
    cut->taken_over += page->taken_over ? 1 : 0;
    cut->done++;
    cut->progress++;
    qr_page_release(page);
    if (tier->owner->config.pages != NULL) {
        qr_page_store_gets_on(tier->owner->config.pages);
    }
    if (status != QR_OK) {
        qr_cut_fail(cut, status);
        return;
    }
    if (tier->cut == cut) {
        tier->post.pages_left = cut->expected - cut->done;
    }
    qr_pages_dispatch(cut);
}

static void seal(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    qr_tier_post *post = &tier->post;
    qr_generation_seal made = {0};
    double start = qr_now_s();
    qr_tier_leave(tier);
    qr_status status = qr_generation_seal_files(cut->writer, &made);
    status = status != QR_OK ? status : fault_at("checkpoint.sealed", tier->directory);
    qr_tier_return(tier);
    double now = qr_now_s();
    post->write_s += now - start;
    cut->progress++;
    if (status != QR_OK) {
        qr_cut_fail(cut, status);
        return;
    }
    cut->sealed = true;
    cut->seal = made;
    cut->copies = 1;
    post->wall_s += now - cut->began;
    post->raw_bytes += made.raw_bytes;
    post->stored_bytes += made.stored_bytes;
    post->pages_taken_over += cut->taken_over;
    if (!cut->given_up) {
        qr_replicas_begin(cut);
    }
}

/* --- commit and retirement (lock) --- */

static void commit(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    double start = qr_now_s();
    qr_tier_leave(tier);
    qr_status status = fault_at("checkpoint.manifest", tier->directory);
    if (status == QR_OK) {
        status = qr_manifest_store(tier->directory, cut->generation, tier->owner->config.server, cut->manifest,
                                   cut->manifest_bytes);
    }
    (void)qr_fault("checkpoint.committed", tier->directory);
    qr_tier_return(tier);
    tier->post.write_s += qr_now_s() - start;
    if (status == QR_OK && !cut->given_up) {
        status = qr_kept_add(tier, cut);
    }
    if (status != QR_OK) {
        qr_cut_fail(cut, status);
    }
    if (!cut->given_up) {
        qr_earlier_load(tier);
    }
    if (cut->given_up) {
        return;
    }
    qr_tier_say(tier, cut->generation, QR_CUT_COMMITTED, QR_OK);
    tier->post.seal = cut->seal;
    tier->retire_due = true;
    /* Nothing is left to do but to clear up. */
    cut->given_up = true;
    tier->cut = NULL;
}

static void retire(qr_tier *tier)
{
    int64_t pinned[QR_N_TIERS + 1];
    int64_t retired = 0;
    int64_t below = tier->retired_below;
    size_t n_pinned = qr_kept_pinned(tier, pinned, QR_N_TIERS + 1);
    tier->retire_due = false;
    tier->retiring = true;
    qr_tier_leave(tier);
    qr_status status = qr_tier_retire(tier->directory, tier->keep, pinned, n_pinned, &retired, &below);
    if (status != QR_OK) {
        qr_warning("old checkpoints cannot be removed: %s", qr_error_message());
    }
    qr_tier_return(tier);
    tier->retiring = false;
    tier->post.retired += retired;
    tier->owner->changed = true;
    tier->retired_below = below > tier->retired_below ? below : tier->retired_below;
    qr_kept_drop_below(tier, below);
}

/* (lock) One that was given up, or committed, and that no thread of a pool works on any more. */
static bool clear_up(qr_tier *tier)
{
    qr_cut *cut = tier->cuts;
    while (cut != NULL && !(cut->given_up && cut->in_pool == 0)) {
        cut = cut->next;
    }
    if (cut == NULL) {
        return false;
    }
    bool removes = cut->removes;
    qr_status status = QR_OK;
    if (removes) {
        qr_replicas_drop(tier, cut->generation);
    }
    qr_generation_writer *writer = cut->writer;
    qr_generation_reader *reader = cut->reader;
    cut->writer = NULL;
    cut->reader = NULL;
    qr_tier_leave(tier);
    qr_generation_writer_destroy(writer);
    qr_generation_close(reader);
    if (cut->sealed && !cut->ready) {
        /* Nobody was told of it, so that no manifest speaks of it. */
        (void)qr_generation_remove(tier->directory, cut->generation, tier->owner->config.server, false);
    }
    if (removes) {
        qr_replicas_forget(tier, cut->generation);
        status = qr_tier_remove(tier->directory, cut->generation, tier->owner->config.server);
        if (status != QR_OK) {
            qr_warning("an unfinished checkpoint cannot be removed: %s", qr_error_message());
        }
    }
    qr_tier_return(tier);
    if (removes && qr_kept_find(tier, cut->generation) != NULL) {
        qr_kept_drop(tier, cut->generation);
        qr_earlier_load(tier);
    }
    if (cut->removes == removes) {
        qr_cut_forget(cut);
    }
    return true;
}

static bool advance(qr_cut *cut)
{
    if (cut->n_parts == 0) {
        return false; /* not all producers have begun */
    }
    if (cut->writer == NULL) {
        begin(cut);
        return true;
    }
    qr_page *page = qr_page_pop(&cut->packed);
    if (page != NULL) {
        write_page(cut, page);
        return true;
    }
    if (cut->from != NULL && qr_pages_feed(cut)) {
        return true;
    }
    if (cut->done == cut->expected && !cut->sealed) {
        seal(cut);
        return true;
    }
    if (cut->commit) {
        commit(cut);
        return true;
    }
    return false;
}

static bool act(qr_tier *tier)
{
    if (qr_replicas_write(tier) || clear_up(tier) || (tier->cut != NULL && advance(tier->cut)) ||
        qr_replicas_read(tier)) {
        return true;
    }
    if (tier->retire_due) {
        retire(tier);
        return true;
    }
    return false;
}

void *qr_tier_write(void *argument)
{
    qr_tier *tier = argument;
    qr_checkpoint *checkpoint = tier->owner;
    qr_status status = qr_directories_make(tier->directory, "checkpoint"); /* if not, the first cut says why */
    pthread_mutex_lock(&checkpoint->lock);
    tier->made = status == QR_OK;
    tier->busy = false;
    for (;;) {
        while (act(tier)) {
        }
        if (checkpoint->ending && tier->cuts == NULL) {
            break;
        }
        pthread_cond_wait(&tier->work, &checkpoint->lock);
    }
    pthread_mutex_unlock(&checkpoint->lock);
    atomic_store(&tier->ended, true);
    return NULL;
}
