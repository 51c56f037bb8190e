/* A page of states that its store cannot read any more, out of a checkpoint that holds the very same. */
#include "io/checkpoint_parts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

/* Reads the page of this number and hash from a kept generation. */
static bool read_from(const qr_tier *tier, const qr_kept *kept, int64_t page, const uint64_t hash[2], void *raw,
                      int64_t bytes)
{
    qr_generation_reader *reader = NULL;
    qr_page_scratch scratch = {NULL, 0};
    size_t n = 0;
    bool found = false;
    if (qr_generation_open(tier->directory, kept->generation, tier->owner->config.server, false, &kept->seal,
                           &reader) != QR_OK) {
        return false;
    }
    const qr_page_record *records = qr_generation_pages(reader, &n);
    for (size_t i = 0; i < n && !found; i++) {
        const qr_page_record *record = &records[i];
        found = record->kind == QR_PAGE_STATE && record->number == page && record->raw_bytes == (uint64_t)bytes &&
                record->raw_hash.low == hash[0] && record->raw_hash.high == hash[1] &&
                qr_generation_read_page(reader, i, &scratch, raw) == QR_OK;
    }
    free(scratch.bytes);
    qr_generation_close(reader);
    return found;
}

void qr_checkpoint_keep(qr_checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    checkpoint->kept_by_rescue = true;
    pthread_mutex_unlock(&checkpoint->lock);
}

bool qr_checkpoint_rescue(void *context, int64_t page, const uint64_t hash[2], void *raw, int64_t bytes)
{
    qr_checkpoint *checkpoint = context;
    bool found = false;
    for (int t = 0; t < QR_N_TIERS && !found; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        pthread_mutex_lock(&checkpoint->lock);
        qr_kept *kept = tier->directory != NULL ? tier->kept : NULL; /* the newest */
        if (kept != NULL) {
            kept->readers++;
        }
        pthread_mutex_unlock(&checkpoint->lock);
        if (kept == NULL) {
            continue;
        }
        found = read_from(tier, kept, page, hash, raw, bytes);
        if (found) {
            qr_warning("page %" PRId64 " of the states cannot be read; it is taken from checkpoint %" PRId64
                       " on tier %s, which holds the same",
                       page, kept->generation, qr_tier_name(t));
        }
        pthread_mutex_lock(&checkpoint->lock);
        kept->readers--;
        pthread_cond_signal(&tier->work);
        pthread_mutex_unlock(&checkpoint->lock);
    }
    return found;
}
