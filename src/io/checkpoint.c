#include "io/checkpoint_parts.h"

#include "base/memory.h"
#include "base/timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(qr_checkpoint_post) <= QR_BOARD_BYTES, "the board holds a post");

/* How often the board is renewed while something is at work. A writer that has been in one system call for this long
 * when it is asked for something new is taken to be stuck. */
static const double renew_s = 0.04;
static const double stuck_s = 5.0;

const char *qr_tier_name(int tier)
{
    static const char *const names[QR_N_TIERS] = {"nvme", "ssd", "hdd"};
    return tier >= 0 && tier < QR_N_TIERS ? names[tier] : "?";
}

bool qr_checkpoint_takes(const qr_job *job)
{
    return job->kind >= QR_JOB_CUT_BEGIN && job->kind <= QR_JOB_CUT_DRAIN;
}

/* --- cuts (lock) --- */

qr_cut *qr_cut_find(const qr_tier *tier, int64_t generation)
{
    qr_cut *cut = tier->cut;
    return cut != NULL && cut->generation == generation && !cut->given_up ? cut : NULL;
}

void qr_tier_say(qr_tier *tier, int64_t generation, qr_cut_state state, qr_status status)
{
    qr_tier_post *post = &tier->post;
    post->generation = generation;
    post->state = (int32_t)state;
    post->status = (int32_t)status;
    post->message[0] = '\0';
    if (state == QR_CUT_FAILED) {
        (void)snprintf(post->message, sizeof post->message, "%s", qr_error_message());
    }
    if (state == QR_CUT_WRITING || state == QR_CUT_NONE || state == QR_CUT_FAILED) {
        memset(&post->seal, 0, sizeof post->seal);
    }
    if (state != QR_CUT_WRITING) {
        post->pages_left = 0;
    }
    tier->owner->changed = true;
}

void qr_slot_done(qr_checkpoint *checkpoint, int producer, const qr_job *job)
{
    if (producer >= 0 && job->slot != QR_NO_SLOT) {
        checkpoint->completed[checkpoint->n_completed++] = (qr_done_job){.producer = producer, .job = *job};
    }
}

static void drop_pages(qr_page_list *list)
{
    for (qr_page *page = qr_page_pop(list); page != NULL; page = qr_page_pop(list)) {
        qr_slot_done(page->cut->tier->owner, page->producer, &page->job);
        qr_page_release(page);
    }
}

void qr_cut_give_up(qr_cut *cut)
{
    if (cut->given_up) {
        return;
    }
    qr_tier *tier = cut->tier;
    cut->given_up = true;
    if (cut->sealed) {
        qr_replicas_drop(tier, cut->generation);
    }
    drop_pages(&cut->waiting);
    drop_pages(&cut->stored);
    drop_pages(&cut->packed);
    if (tier->cut == cut) {
        tier->cut = NULL;
    }
    pthread_cond_signal(&tier->work);
}

void qr_cut_fail(qr_cut *cut, qr_status status)
{
    if (cut->given_up) {
        return;
    }
    if (cut->tier->cut == cut) {
        qr_tier_say(cut->tier, cut->generation, QR_CUT_FAILED, status);
    }
    qr_cut_give_up(cut);
}

static void free_cut(qr_cut *cut)
{
    while (cut->spare != NULL) {
        qr_packed *next = cut->spare->next;
        free(cut->spare);
        cut->spare = next;
    }
    qr_earlier_release(cut->earlier);
    free(cut->parts);
    free(cut->begun);
    free(cut->manifest);
    free(cut);
}

void qr_cut_forget(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    for (qr_cut **at = &tier->cuts; *at != NULL; at = &(*at)->next) {
        if (*at == cut) {
            *at = cut->next;
            break;
        }
    }
    if (tier->cut == cut) {
        tier->cut = NULL;
    }
    if (cut->source != NULL) {
        cut->source->readers--;
    }
    free_cut(cut);
}

qr_cut *qr_cut_new(qr_tier *tier, int64_t generation)
{
    qr_cut *cut = NULL;
    size_t n = (size_t)tier->owner->n_queues;
    if (qr_allocate(1, sizeof *cut, "a checkpoint", (void **)&cut) != QR_OK) {
        return NULL;
    }
    cut->tier = tier;
    cut->generation = generation;
    if (qr_allocate(n, sizeof(bool), "a checkpoint", (void **)&cut->begun) != QR_OK ||
        qr_allocate(n, sizeof(qr_generation_part), "a checkpoint", (void **)&cut->parts) != QR_OK) {
        free_cut(cut);
        return NULL;
    }
    qr_cut **end = &tier->cuts;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = cut;
    return cut;
}

/* --- jobs (server's thread, lock) --- */

static qr_status does_not_answer(const qr_tier *tier)
{
    return qr_error(QR_TRANSIENT, "%s: does not answer: a write or sync has taken %.3g s so far", tier->directory,
                    tier->act.seconds);
}

static bool stuck(const qr_tier *tier)
{
    double limit_s = tier->owner->config.timeout_s < stuck_s ? tier->owner->config.timeout_s : stuck_s;
    limit_s = tier->retiring ? tier->owner->config.timeout_s : limit_s; /* many removals count as one act */
    return tier->busy && tier->act.seconds >= limit_s;
}

/* True while the files of a generation that was abandoned are being removed. */
static bool is_leaving(const qr_tier *tier, int64_t generation)
{
    for (const qr_cut *cut = tier->cuts; cut != NULL; cut = cut->next) {
        if (cut->removes && cut->generation == generation) {
            return true;
        }
    }
    return false;
}

/* A cut or drain that nothing of is there yet; NULL when it cannot begin, which the board then says, or is not news. */
static qr_cut *begin_new(qr_tier *tier, int64_t generation)
{
    if (generation <= tier->newest) {
        return NULL;
    }
    tier->newest = generation;
    if (tier->cut != NULL) {
        qr_cut_give_up(tier->cut);
    }
    if (stuck(tier)) {
        qr_tier_say(tier, generation, QR_CUT_FAILED, does_not_answer(tier));
        return NULL;
    }
    qr_cut *cut = qr_cut_new(tier, generation);
    if (cut == NULL) {
        qr_tier_say(tier, generation, QR_CUT_FAILED, QR_RESOURCE);
        return NULL;
    }
    tier->cut = cut;
    cut->began = qr_now_s();
    qr_tier_say(tier, generation, QR_CUT_WRITING, QR_OK);
    return cut;
}

/* What the pages are compared with. Settled when all producers have begun: the one that abandons generations did so
 * before it began, while another one's begin may have come before both. */
static void choose_earlier(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    if (!tier->owner->config.incremental || tier->earlier == NULL || is_leaving(tier, tier->earlier->generation)) {
        return;
    }
    const qr_kept *kept = qr_kept_find(tier, tier->earlier->generation);
    if (kept != NULL && kept->everywhere) {
        cut->earlier = tier->earlier;
        cut->earlier->uses++;
    }
}

static void take_begin(qr_checkpoint *checkpoint, qr_tier *tier, int producer, const qr_job *job)
{
    const qr_checkpoint_config *config = &checkpoint->config;
    qr_cut *cut = qr_cut_find(tier, job->arguments[0]);
    if (cut == NULL) {
        cut = begin_new(tier, job->arguments[0]);
    }
    if (cut == NULL) {
        return;
    }
    int64_t pages = job->count < 0 ? -1
                                   : qr_pages_of(config, QR_PAGE_VOTES, job->count) +
                                         qr_pages_of(config, QR_PAGE_STATE, job->count);
    if (cut->from != NULL || cut->begun[producer] || job->first < 0 || pages != job->arguments[2]) {
        qr_cut_fail(cut, qr_error(QR_INTERNAL, "generation %lld: rank %d begins with %lld pages of %lld agents",
                                  (long long)cut->generation, job->flags, (long long)job->arguments[2],
                                  (long long)job->count));
        return;
    }
    cut->step = job->step;
    cut->begun[producer] = true;
    cut->parts[producer] = (qr_generation_part){.part = job->flags, .first = job->first, .count = job->count};
    cut->expected += pages;
    tier->post.pages_left = cut->expected;
    cut->n_begun++;
    cut->progress++;
    if (cut->n_begun == checkpoint->n_queues) {
        cut->n_parts = cut->n_begun;
        choose_earlier(cut);
        qr_pages_dispatch(cut);
        pthread_cond_signal(&tier->work);
    }
}

static void take_drain(qr_checkpoint *checkpoint, qr_tier *tier, const qr_job *job)
{
    int64_t generation = job->arguments[0];
    int64_t from = job->arguments[2];
    qr_cut *cut = begin_new(tier, generation);
    if (cut == NULL) {
        return;
    }
    qr_tier *source = from >= 0 && from < QR_N_TIERS && from != tier->number ? &checkpoint->tiers[from] : NULL;
    qr_kept *kept = source != NULL && source->directory != NULL ? qr_kept_find(source, generation) : NULL;
    if (kept == NULL) {
        qr_cut_fail(cut, qr_error(QR_DATA, "generation %lld cannot be copied to %s: it is not on %s",
                                  (long long)generation, qr_tier_name(tier->number), qr_tier_name((int)from)));
        return;
    }
    if (tier->pool == NULL) {
        int threads = checkpoint->config.threads;
        size_t bytes = tier->page_bytes[0] > tier->page_bytes[1] ? tier->page_bytes[0] : tier->page_bytes[1];
        qr_status status = tier->benches != NULL ? QR_OK : qr_benches_create(threads, bytes, &tier->benches);
        status = status != QR_OK ? status : qr_pool_create(threads, QR_DRAIN_NICE, &tier->pool);
        if (status != QR_OK) {
            qr_cut_fail(cut, status);
            return;
        }
    }
    size_t n = (size_t)kept->n_parts;
    free(cut->parts);
    cut->parts = NULL;
    qr_status status = qr_allocate(n, sizeof(qr_generation_part), "a checkpoint", (void **)&cut->parts);
    if (status != QR_OK) {
        qr_cut_fail(cut, status);
        return;
    }
    memcpy(cut->parts, kept->parts, n * sizeof(qr_generation_part));
    cut->n_parts = kept->n_parts;
    cut->step = kept->step;
    cut->from = source;
    cut->source = kept;
    kept->readers++;
    cut->expected = kept->seal.pages;
    cut->flushed = true; /* with the commit of the source */
    choose_earlier(cut);
    tier->post.pages_left = cut->expected;
    pthread_cond_signal(&tier->work);
}

static void take_commit(qr_checkpoint *checkpoint, qr_tier *tier, int producer, const qr_job *job)
{
    int64_t generation = job->arguments[0];
    qr_cut *cut = qr_cut_find(tier, generation);
    if (cut == NULL || tier->post.state != QR_CUT_READY || cut->commit) {
        if (cut != NULL && !cut->commit) {
            qr_cut_fail(cut, qr_error(QR_INTERNAL, "generation %lld is to be committed on %s before it is ready",
                                      (long long)generation, qr_tier_name(tier->number)));
        }
        return;
    }
    size_t bytes = (size_t)job->bytes;
    qr_status status = qr_grow((void **)&cut->manifest, &cut->manifest_room, cut->manifest_bytes + bytes + 1, 1,
                               "the manifest of a checkpoint");
    if (status != QR_OK) {
        qr_cut_fail(cut, status);
        return;
    }
    if (bytes > 0) {
        memcpy(cut->manifest + cut->manifest_bytes, qr_queue_slot(&checkpoint->queues[producer], job->slot), bytes);
    }
    cut->manifest_bytes += bytes;
    cut->progress++;
    if (job->flags == 1) {
        cut->commit = true;
        pthread_cond_signal(&tier->work);
    }
}

static void take_abandon(qr_tier *tier, int64_t generation)
{
    qr_cut *cut = qr_cut_find(tier, generation);
    bool was_stuck = stuck(tier);
    tier->newest = generation > tier->newest ? generation : tier->newest;
    if (cut != NULL) {
        qr_cut_give_up(cut);
    } else {
        for (cut = tier->cuts; cut != NULL && cut->generation != generation;) {
            cut = cut->next;
        }
    }
    if (cut == NULL) {
        cut = qr_cut_new(tier, generation);
    }
    if (tier->newest > generation) {
        /* A newer one has begun already: the tier's line speaks of that. */
    } else if (cut == NULL || was_stuck) {
        qr_tier_say(tier, generation, QR_CUT_FAILED, was_stuck ? does_not_answer(tier) : QR_RESOURCE);
    } else if (tier->post.generation == generation) {
        qr_tier_say(tier, generation, QR_CUT_NONE, QR_OK);
    }
    if (cut != NULL) {
        cut->given_up = true;
        cut->removes = true;
        pthread_cond_signal(&tier->work);
    }
}

/* Room for one more slot that is to be acknowledged, so that doing so never fails. */
static bool reserve(qr_checkpoint *checkpoint)
{
    size_t needed = (size_t)checkpoint->slots_held + 1;
    return qr_grow((void **)&checkpoint->completed, &checkpoint->completed_room, needed, sizeof(qr_done_job),
                   "slots") == QR_OK &&
           qr_grow((void **)&checkpoint->acknowledging, &checkpoint->acknowledging_room, needed, sizeof(qr_done_job),
                   "slots") == QR_OK;
}

void qr_checkpoint_take(qr_checkpoint *checkpoint, int producer, const qr_job *job)
{
    bool known = job->arguments[1] >= 0 && job->arguments[1] < QR_N_TIERS;
    pthread_mutex_lock(&checkpoint->lock);
    qr_tier *tier = known ? &checkpoint->tiers[job->arguments[1]] : NULL;
    if (job->slot != QR_NO_SLOT && !reserve(checkpoint)) {
        qr_cut *cut = known ? qr_cut_find(tier, job->arguments[0]) : NULL;
        if (cut != NULL) {
            qr_cut_fail(cut, QR_RESOURCE);
        }
        qr_queue_acknowledge(&checkpoint->queues[producer], job, QR_OK, NULL);
        pthread_mutex_unlock(&checkpoint->lock);
        return;
    }
    checkpoint->slots_held += job->slot != QR_NO_SLOT ? 1 : 0;
    if (known && tier->directory == NULL) {
        qr_status status = qr_error(QR_USAGE, "tier %s has no directory", qr_tier_name(tier->number));
        qr_tier_say(tier, job->arguments[0], QR_CUT_FAILED, status);
    } else if (known) {
        switch (job->kind) {
        case QR_JOB_CUT_BEGIN: take_begin(checkpoint, tier, producer, job); break;
        case QR_JOB_CUT_COMMIT: take_commit(checkpoint, tier, producer, job); break;
        case QR_JOB_CUT_ABANDON: take_abandon(tier, job->arguments[0]); break;
        case QR_JOB_CUT_DRAIN: take_drain(checkpoint, tier, job); break;
        default: break;
        }
    }
    if (job->kind == QR_JOB_CUT_PAGE) {
        qr_page_take(checkpoint, producer, job);
    } else if (job->slot != QR_NO_SLOT) {
        qr_slot_done(checkpoint, producer, job);
    }
    pthread_mutex_unlock(&checkpoint->lock);
}

/* --- turns (server's thread) --- */

static bool acknowledge(qr_checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    qr_done_job *done = checkpoint->completed;
    size_t n = checkpoint->n_completed;
    size_t room = checkpoint->completed_room;
    if (n > 0) {
        checkpoint->completed = checkpoint->acknowledging;
        checkpoint->completed_room = checkpoint->acknowledging_room;
        checkpoint->acknowledging = done;
        checkpoint->acknowledging_room = room;
        checkpoint->n_completed = 0;
        checkpoint->slots_held -= (int64_t)n;
    }
    pthread_mutex_unlock(&checkpoint->lock);
    for (size_t i = 0; i < n; i++) {
        qr_queue_acknowledge(&checkpoint->queues[done[i].producer], &done[i].job, QR_OK, NULL);
    }
    return n > 0;
}

/* (lock) Watches how long the writer has been in a call, and how long a cut has stood still. */
static void watch(qr_tier *tier)
{
    const qr_checkpoint_config *config = &tier->owner->config;
    qr_cut *cut = tier->cut;
    if (tier->busy && tier->acts == tier->looked) {
        (void)qr_awake_look(&tier->act);
    } else {
        tier->act = (qr_awake){0};
        (void)qr_awake_look(&tier->act);
        tier->looked = tier->acts;
    }
    if (cut == NULL) {
        return;
    }
    if (tier->busy && tier->act.seconds >= config->timeout_s) {
        qr_cut_fail(cut, does_not_answer(tier));
        return;
    }
    /* Pages of a drain may hang in the source, others in the page store. */
    if (cut->progress != cut->progress_seen || cut->in_pool == 0) {
        cut->progress_seen = cut->progress;
        cut->still = (qr_awake){0};
    }
    if (qr_awake_look(&cut->still) >= config->timeout_s) {
        qr_cut_fail(cut, qr_error(QR_TRANSIENT, "%s: does not answer: reading has taken %.3g s so far",
                                  cut->from != NULL ? cut->from->directory : "the disks of memory.tiers",
                                  cut->still.seconds));
    }
}

static int copies_wanted(const qr_checkpoint_config *config)
{
    switch (config->consistency) {
    case QR_CONSISTENCY_QUORUM: return (1 + config->replicas) / 2 + 1;
    case QR_CONSISTENCY_ALL: return 1 + config->replicas;
    default: return 1;
    }
}

/* (lock) A cut that is sealed, whose results are durable, and of which there are copies enough. */
static void make_ready(qr_tier *tier)
{
    qr_cut *cut = tier->cut;
    if (cut == NULL || !cut->sealed || !cut->flushed || tier->post.state != QR_CUT_WRITING) {
        return;
    }
    int wanted = copies_wanted(&tier->owner->config);
    if (cut->copies >= wanted) {
        cut->ready = true;
        qr_tier_say(tier, cut->generation, QR_CUT_READY, QR_OK);
        tier->post.seal = cut->seal;
    } else if (cut->replicated) {
        qr_cut_fail(cut, qr_error(QR_TRANSIENT, "generation %lld on %s: %d of %d copies could be made, %d are needed",
                                  (long long)cut->generation, qr_tier_name(tier->number), cut->copies,
                                  1 + tier->owner->config.replicas, wanted));
    }
}

/* (lock) */
static bool at_work(const qr_checkpoint *checkpoint)
{
    bool any = checkpoint->slots_held > 0 || qr_replicas_in_flight(checkpoint) > 0;
    for (int t = 0; t < QR_N_TIERS; t++) {
        any = any || checkpoint->tiers[t].cut != NULL;
    }
    return any;
}

static bool post(qr_checkpoint *checkpoint)
{
    qr_checkpoint_post next;
    memset(&next, 0, sizeof next);
    pthread_mutex_lock(&checkpoint->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        watch(&checkpoint->tiers[t]);
        make_ready(&checkpoint->tiers[t]);
        next.tiers[t] = checkpoint->tiers[t].post;
        next.retirements += checkpoint->tiers[t].retire_due || checkpoint->tiers[t].retiring ? 1 : 0;
    }
    next.pages_in_flight = checkpoint->slots_held;
    next.replicas_missing = checkpoint->replicas_missing;
    next.replicas_in_flight = qr_replicas_in_flight(checkpoint);
    bool changed = checkpoint->changed;
    bool due = at_work(checkpoint) && qr_now_s() - checkpoint->posted_at >= renew_s;
    checkpoint->changed = false;
    pthread_mutex_unlock(&checkpoint->lock);
    if (!changed && !due && checkpoint->posted_at != 0.0) {
        return false;
    }
    checkpoint->posted = next;
    checkpoint->posted_at = qr_now_s();
    for (int i = 0; i < checkpoint->n_queues; i++) {
        qr_queue_post(&checkpoint->queues[i], &next, sizeof next);
    }
    return changed;
}

bool qr_checkpoint_turn(qr_checkpoint *checkpoint)
{
    bool any = acknowledge(checkpoint);
    any = qr_replicas_turn(checkpoint) || any;
    return post(checkpoint) || any;
}

bool qr_checkpoint_wants_flush(qr_checkpoint *checkpoint)
{
    bool wants = false;
    pthread_mutex_lock(&checkpoint->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        const qr_cut *cut = checkpoint->tiers[t].cut;
        wants = wants ||
                (cut != NULL && !cut->flushed && cut->n_begun == checkpoint->n_queues && cut->arrived == cut->expected);
    }
    pthread_mutex_unlock(&checkpoint->lock);
    return wants;
}

void qr_checkpoint_flushed(qr_checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_cut *cut = checkpoint->tiers[t].cut;
        if (cut != NULL && cut->n_begun == checkpoint->n_queues && cut->arrived == cut->expected) {
            cut->flushed = true;
        }
    }
    pthread_mutex_unlock(&checkpoint->lock);
}
