/* `quorate info`: which of its reports a path calls for. */
#include "io/recovery.h"

#include "base/memory.h"
#include "io/file.h"
#include "io/io.h"
#include "io/page_store.h"
#include "io/results.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where a run without tiers puts its checkpoints, within its results. */
static const char inner[] = "checkpoints";

static qr_status is_directory(const char *path, bool *answer)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return qr_error(QR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
    }
    *answer = S_ISDIR(info.st_mode);
    return QR_OK;
}

static bool has_file(const char *directory, const char *name)
{
    char *path = NULL;
    bool there = qr_path_join(directory, name, &path) == QR_OK && access(path, F_OK) == 0;
    free(path);
    return there;
}

/* The directory itself or the folder in it, whichever holds generations; otherwise *tier is NULL. malloc'd. */
static qr_status find_tier(const char *directory, char **tier)
{
    *tier = NULL;
    if (qr_recovery_looks_like(directory)) {
        *tier = strdup(directory);
        return *tier == NULL ? qr_error_memory(strlen(directory), "a path") : QR_OK;
    }
    qr_status status = qr_path_join(directory, inner, tier);
    if (status == QR_OK && !qr_recovery_looks_like(*tier)) {
        free(*tier);
        *tier = NULL;
    }
    return status;
}

/* Results, checkpoints or both. */
static qr_status survey_directory(const char *directory, bool repair)
{
    char *tier = NULL;
    char message[QR_MESSAGE_BYTES] = "";
    qr_status results = QR_OK;
    qr_status status = find_tier(directory, &tier);
    if (status != QR_OK) {
        return status;
    }
    if (tier == NULL && repair) {
        return qr_error(QR_USAGE, "%s: holds no checkpoints to repair", directory);
    }
    bool has_results = has_file(directory, QR_SERIES_FILE) || has_file(directory, QR_SNAPSHOTS_FILE);
    if (tier == NULL && !has_results && qr_page_stores_report(directory)) {
        return QR_OK;
    }
    if (tier == NULL || (has_results && !repair)) {
        results = qr_io_info(directory);
        snprintf(message, sizeof message, "%s", qr_error_message());
    }
    if (tier != NULL) {
        const char *tiers[] = {tier};
        status = qr_recovery_report(tiers, 1, repair);
    }
    free(tier);
    return results == QR_OK ? status : qr_error(results, "%s", message);
}

static qr_status survey_tiers(const char *const *paths, int n, bool repair)
{
    char **tiers = NULL;
    qr_status status = qr_allocate((size_t)n, sizeof *tiers, "paths", (void **)&tiers);
    for (int i = 0; i < n && status == QR_OK; i++) {
        status = find_tier(paths[i], &tiers[i]);
        if (status == QR_OK && tiers[i] == NULL) {
            /* Nothing in it, yet others may be repaired from here, or into it. */
            tiers[i] = strdup(paths[i]);
            status = tiers[i] == NULL ? qr_error_memory(strlen(paths[i]), "a path") : QR_OK;
        }
    }
    status = status != QR_OK ? status : qr_recovery_report((const char *const *)tiers, n, repair);
    for (int i = 0; tiers != NULL && i < n; i++) {
        free(tiers[i]);
    }
    free(tiers);
    return status;
}

qr_status qr_info_places(const char *const *paths, int n, bool repair)
{
    bool directory = false;
    qr_status status = QR_OK;
    for (int i = 0; i < n && status == QR_OK; i++) {
        status = is_directory(paths[i], &directory);
        if (status == QR_OK && !directory && (n > 1 || repair)) {
            status = qr_error(QR_USAGE, "%s: not a directory; of checkpoints, the directories are wanted", paths[i]);
        }
    }
    if (status != QR_OK) {
        return status;
    }
    if (n > 1) {
        return survey_tiers(paths, n, repair);
    }
    if (!directory && qr_page_store_report(paths[0])) {
        return QR_OK;
    }
    return directory ? survey_directory(paths[0], repair) : qr_io_info(paths[0]);
}
