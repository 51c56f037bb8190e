/* Whether states are paged, and what will lie where. */
#include "run/paging.h"

#include <stdlib.h>
#include <string.h>

static const qr_deck_memory_tier *disk_of(const qr_deck *deck, int tier)
{
    switch (tier) {
    case QR_TIER_NVME: return &deck->memory.tiers.nvme;
    case QR_TIER_SSD: return &deck->memory.tiers.ssd;
    default: return &deck->memory.tiers.hdd;
    }
}

/* --- what the deck says --- */

/* The path without what has no effect in it: doubled slashes, and folders named ".". In place. */
static void simplify(char *path)
{
    char *to = path[0] == '/' ? path + 1 : path;
    const char *from = to;
    while (*from != '\0') {
        size_t n = strcspn(from, "/");
        if (n > 0 && !(n == 1 && from[0] == '.')) {
            memmove(to, from, n);
            to += n;
            *to++ = '/';
        }
        from += n + (from[n] == '/' ? 1 : 0);
    }
    *(to > path + 1 ? to - 1 : to) = '\0';
}

static qr_status is_same_path(const char *a, const char *b, bool *same)
{
    char *copies[2] = {strdup(a), strdup(b)};
    qr_status status = copies[0] != NULL && copies[1] != NULL ? QR_OK : qr_error_memory(strlen(a) + strlen(b), "paths");
    if (status == QR_OK) {
        simplify(copies[0]);
        simplify(copies[1]);
        *same = strcmp(copies[0], copies[1]) == 0;
    }
    free(copies[0]);
    free(copies[1]);
    return status;
}

/* Of the directory of a tier of memory: not that of another one above it, nor of checkpoints. */
static qr_status check_directory(const qr_deck *deck, int t, const char *key)
{
    const char *directory = disk_of(deck, t)->directory;
    bool same = false;
    for (int other = 0; other < t; other++) {
        const char *taken = disk_of(deck, other)->directory;
        qr_status status = taken[0] != '\0' ? is_same_path(directory, taken, &same) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        if (same) {
            return qr_deck_complain(deck, key, "the same directory as memory.tiers.%s; each tier needs its own",
                                    qr_tier_name(other));
        }
    }
    for (int other = 0; other < QR_N_TIERS; other++) {
        char *taken = NULL;
        qr_status status = qr_tier_pattern(deck, other, &taken);
        if (status == QR_OK && taken != NULL) {
            status = is_same_path(directory, taken, &same);
        }
        free(taken);
        if (status != QR_OK) {
            return status;
        }
        if (same) {
            return qr_deck_complain(deck, key,
                                    "the directory of checkpoints (tier %s); states on their way need one of their own",
                                    qr_tier_name(other));
        }
    }
    return QR_OK;
}

qr_status qr_paging_check(const qr_deck *deck)
{
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_codec codec;
        char key[64];
        if (qr_codec_parse(disk_of(deck, t)->compression, &codec) != QR_OK) {
            char message[QR_MESSAGE_BYTES];
            (void)snprintf(message, sizeof message, "%s", qr_error_message());
            (void)snprintf(key, sizeof key, "memory.tiers.%s.compression", qr_tier_name(t));
            return qr_deck_complain(deck, key, "%s", message);
        }
        (void)snprintf(key, sizeof key, "memory.tiers.%s.directory", qr_tier_name(t));
        qr_status status = disk_of(deck, t)->directory[0] != '\0' ? check_directory(deck, t, key) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        (void)snprintf(key, sizeof key, "memory.tiers.%s.capacity", qr_tier_name(t));
        if (disk_of(deck, t)->directory[0] == '\0' && disk_of(deck, t)->capacity > 0) {
            return qr_deck_complain(deck, key, "without effect unless memory.tiers.%s.directory is given",
                                    qr_tier_name(t));
        }
    }
    return QR_OK;
}
