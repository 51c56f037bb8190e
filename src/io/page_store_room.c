/* Where a page goes: a place on the tier that was asked for, the next tier below that has room, or a wait until
 * checkpoints let go of what they keep. All with the lock.
 *
 * Where a tier has a capacity, every place is as long as a page can get. So pages never lie between places in a way
 * that leaves no room for one more, and as many fit as the capacity counts, whatever they shrink to and in whichever
 * order they come and go. Other tiers grow; there a place is as long as its page, about. */
#include "base/log.h"
#include "base/timer.h"
#include "io/page_store_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A tier that was full, or could not be written, is left alone for so long. */
static const double refusal_s = 2.0;

/* Of the time after which an operation that hangs is given up: how long a page waits for checkpoints to let go of the
 * next one. More than theirs, so that one that hangs is given up first; less than a producer waits for an answer. */
static const double patience = 1.5;

int qr_store_usable_tier(const qr_page_store *store, int64_t tier)
{
    int t = (int)tier;
    while (t < QR_N_TIERS && (!store->tiers[t].used || store->tiers[t].writers.stuck)) {
        t++;
    }
    return t;
}

/* --- places --- */

/* Places come in some sizes only, so that one that was given up will do for another page: of a page that does not
 * shrink, which takes the most, and of this by so many parts. */
static int64_t round_up(int64_t blocks, int64_t most)
{
    enum { PARTS = 32 };
    int64_t part = most < PARTS ? 1 : most / PARTS;
    int64_t rounded = (blocks + part - 1) / part * part;
    return rounded < most ? rounded : most;
}

static bool grows(const qr_store_tier *tier)
{
    return qr_now_s() >= tier->refuses_until;
}

static qr_extent *take(qr_store_job *job, int64_t blocks)
{
    qr_store_tier *tier = &job->store->tiers[job->tier];
    bool has_share = !tier->same_places || tier->taken[job->producer] < tier->share;
    qr_extent *place = has_share ? qr_extents_take(&tier->extents, blocks, grows(tier)) : NULL;
    if (place != NULL) {
        place->tier = job->tier;
        place->producer = job->producer;
        tier->taken[job->producer]++;
    }
    return place;
}

/* A new place, or, where there is none, that of the page's older version, which nobody else needs. */
bool qr_store_find_place(qr_store_job *job, int64_t blocks)
{
    qr_page_store *store = job->store;
    qr_store_tier *tier = &store->tiers[job->tier];
    blocks = tier->same_places ? tier->most_blocks : round_up(blocks, tier->most_blocks);
    qr_extent *place = take(job, blocks);
    qr_page_entry *entry = qr_page_entry_find(store, job->producer, job->job.arguments[0]);
    if (place == NULL && job->job.kind == QR_JOB_PAGE_PUT && entry->now != NULL && entry->now->tier == job->tier &&
        entry->now->uses == 1) {
        qr_page_entry_set(store, entry, NULL);
        place = take(job, blocks);
    }
    job->place = place;
    return place != NULL;
}

/* From job->tier on. Where places differ, it is packed first, and again when any was given up since. from: the tier
 * that it would have been on. */
static bool find_tier(qr_store_job *job, int from)
{
    qr_page_store *store = job->store;
    for (; job->tier < QR_N_TIERS; job->tier = qr_store_usable_tier(store, job->tier + 1)) {
        const qr_store_tier *tier = &store->tiers[job->tier];
        bool by_size = !tier->same_places && (grows(tier) || job->frees != store->frees + 1);
        if (by_size || (tier->same_places && qr_store_find_place(job, tier->most_blocks))) {
            job->frees = store->frees + 1;
            for (int t = from; t < job->tier; t++) {
                store->tiers[t].totals.spilt += store->tiers[t].used ? 1 : 0;
            }
            qr_store_enter_pool(job, job->tier, true, qr_store_run_write);
            return true;
        }
    }
    return false;
}

/* --- no tier takes it --- */

static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

void qr_store_refuse(qr_store_tier *tier, int error)
{
    tier->error = error;
    tier->refuses_until = qr_now_s() + refusal_s;
    if (!tier->warned) {
        tier->warned = true;
        qr_warning("%s: cannot be written: %s; pages go to the next tier that takes them", tier->file.path,
                   strerror(error));
    }
}

static int first_asked(const qr_store_job *job)
{
    return (int)job->job.arguments[job->job.kind == QR_JOB_PAGE_PUT ? 1 : 3];
}

/* Bytes of the page, whichever job it is. */
static int64_t raw_bytes(const qr_store_job *job)
{
    return job->source != NULL ? (int64_t)job->source->raw_bytes : job->job.bytes;
}

/* Why no tier takes it. The first disk that fails stands before those that are full. */
static qr_status say_why(const qr_store_job *job)
{
    const qr_page_store *store = job->store;
    char tiers[QR_STORE_MESSAGE_BYTES] = "";
    size_t used = 0;
    qr_status status = QR_RESOURCE;
    for (int t = first_asked(job); t < QR_N_TIERS; t++) {
        const qr_store_tier *tier = &store->tiers[t];
        bool failed = tier->error != 0 && !grows(tier);
        if (!tier->used || used >= sizeof tiers) {
            continue;
        }
        if (tier->writers.stuck) {
            return qr_store_stuck(&tier->file);
        }
        if (failed && !is_full(tier->error) && status == QR_RESOURCE) {
            used = 0;
            status = QR_DATA;
        }
        if (status == QR_DATA && used > 0) {
            continue; /* the cause is said */
        }
        if (failed) {
            used += (size_t)snprintf(tiers + used, sizeof tiers - used, "%s%s (%s: cannot be written: %s)",
                                     used > 0 ? ", " : "", qr_tier_name(t), tier->file.path, strerror(tier->error));
        } else {
            used += (size_t)snprintf(tiers + used, sizeof tiers - used, "%s%s (%.1f MiB)", used > 0 ? ", " : "",
                                     qr_tier_name(t), (double)tier->extents.end * QR_STORE_BLOCK / (1 << 20));
        }
    }
    return qr_error(status,
                    "no memory tier has room for page %" PRId64 " of queue %d (%" PRId64 " bytes): %s%s; "
                    "memory.tiers.*.capacity and .directory say where pages may go",
                    job->job.arguments[0], job->producer, raw_bytes(job), tiers[0] != '\0' ? tiers : "there is none",
                    job->waits && store->held > 0 ? "; a checkpoint that does not get on keeps what was there" : "");
}

/* It is over, and no thread has it. */
static void end(qr_store_job *job)
{
    qr_page_store *store = job->store;
    const qr_page_entry *entry = qr_page_entry_find(store, job->producer, job->job.arguments[0]);
    qr_status status = say_why(job);
    qr_extent_release(store, job->source);
    job->source = NULL;
    job->waits = false;
    qr_store_finish(job, status, job->job.kind == QR_JOB_PAGE_SINK && entry->now != NULL ? entry->now->tier : 0);
    qr_store_begin(store, job->producer, job->job.arguments[0]);
}

/* --- waiting --- */

/* Whether what checkpoints let go of would help: not where no disk can be written. */
static bool may_wait(const qr_store_job *job)
{
    const qr_page_store *store = job->store;
    bool any = false;
    for (int t = qr_store_usable_tier(store, first_asked(job)); t < QR_N_TIERS;
         t = qr_store_usable_tier(store, t + 1)) {
        any = any || store->tiers[t].error == 0 || is_full(store->tiers[t].error) || grows(&store->tiers[t]);
    }
    return any && job->job.kind == QR_JOB_PAGE_PUT && store->held > 0 && !store->ending;
}

/* Behind all that wait already. */
static void wait_or_end(qr_store_job *job)
{
    qr_page_store *store = job->store;
    if (!may_wait(job)) {
        end(job);
        return;
    }
    qr_store_job **at = &store->waiting;
    while (*at != NULL) {
        at = &(*at)->next_waiting;
    }
    *at = job;
    job->next_waiting = NULL;
    job->waits = true;
}

void qr_store_send(qr_store_job *job)
{
    if (!find_tier(job, first_asked(job))) {
        wait_or_end(job);
    }
}

void qr_store_spill(qr_store_job *job)
{
    qr_page_store *store = job->store;
    if (job->given_up || store->ending) {
        qr_store_leave_pool(job, qr_store_ending(), 0);
        return;
    }
    int from = job->tier;
    qr_store_leave_thread(job);
    job->tier = qr_store_usable_tier(store, from + 1);
    if (!find_tier(job, from)) {
        wait_or_end(job);
    }
}

static void leave_line(qr_store_job *job)
{
    qr_store_job **at = &job->store->waiting;
    while (*at != job) {
        at = &(*at)->next_waiting;
    }
    *at = job->next_waiting;
    job->waits = false;
}

void qr_store_serve_waiting(qr_page_store *store)
{
    while (store->freed && store->waiting != NULL) {
        store->freed = false;
        qr_store_job *job = store->waiting;
        job->tier = qr_store_usable_tier(store, first_asked(job));
        if (find_tier(job, first_asked(job))) {
            leave_line(job);
            store->freed = true; /* there may be room for the next one, too */
        } else if (!may_wait(job)) {
            leave_line(job);
            end(job);
            store->freed = true;
        }
    }
}

void qr_store_watch_waiting(qr_page_store *store)
{
    double limit_s = patience * store->config.timeout_s;
    store->freed = true; /* a file may grow again */
    qr_store_serve_waiting(store);
    for (qr_store_job *job = store->waiting; job != NULL;) {
        qr_store_job *next = job->next_waiting;
        if (job->let_go != store->let_go + 1) {
            job->let_go = store->let_go + 1;
            job->waited = (qr_awake){0};
            qr_queue_extend(&store->queues[job->producer]);
        }
        if (qr_awake_look(&job->waited) >= limit_s) {
            qr_status status = say_why(job);
            leave_line(job);
            qr_store_finish(job, status, 0);
            qr_store_begin(store, job->producer, job->job.arguments[0]);
            next = store->waiting; /* which that may have changed */
        }
        job = next;
    }
}
