#include "base/fault.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_FAULTS = 16, POINT_BYTES = 64, PATH_BYTES = 128, PAUSE_MS = 5, SLOW_MS = 100 };
enum { KILL = -1, HANG = -2, SLOW = -3 };

typedef struct fault {
    char point[POINT_BYTES];
    char part[PATH_BYTES];
    int what; /* errno, or one of the above */
    long at;
    bool onwards;
    long passed;
} fault;

static const struct {
    const char *name;
    int what;
} kinds[] = {{"ENOSPC", ENOSPC}, {"EFBIG", EFBIG}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
             {"EACCES", EACCES}, {"EIO", EIO},     {"ENOENT", ENOENT}, {"EMFILE", EMFILE},
             {"kill", KILL},     {"hang", HANG},   {"slow", SLOW}};

atomic_int qr_fault_state;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fault faults[MOST_FAULTS];
static int n_faults;
static atomic_long generation; /* of the list: threads that hang wait for another one */

static bool copy_text(char *out, size_t room, const char *text, size_t n)
{
    if (n >= room) {
        return false;
    }
    memcpy(out, text, n);
    out[n] = '\0';
    return true;
}

static bool find_kind(const char *name, size_t n, int *what)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strlen(kinds[i].name) == n && memcmp(kinds[i].name, name, n) == 0) {
            *what = kinds[i].what;
            return true;
        }
    }
    return false;
}

/* POINT[=PART]:WHAT[@N[+]] */
static bool parse_one(const char *text, size_t n, fault *out)
{
    char copy[POINT_BYTES + PATH_BYTES + 32];
    if (!copy_text(copy, sizeof copy, text, n)) {
        return false;
    }
    char *what = strrchr(copy, ':');
    if (what == NULL) {
        return false;
    }
    *what++ = '\0';
    char *part = strchr(copy, '=');
    if (part != NULL) {
        *part++ = '\0';
    }
    char *number = strchr(what, '@');
    *out = (fault){.at = 1};
    if (number != NULL) {
        *number++ = '\0';
        char *end = NULL;
        out->at = strtol(number, &end, 10);
        out->onwards = *end == '+';
        if (end == number || out->at < 1 || end[out->onwards ? 1 : 0] != '\0') {
            return false;
        }
    }
    return copy[0] != '\0' && copy_text(out->point, sizeof out->point, copy, strlen(copy)) &&
           copy_text(out->part, sizeof out->part, part == NULL ? "" : part, part == NULL ? 0 : strlen(part)) &&
           find_kind(what, strlen(what), &out->what);
}

/* With the lock. */
static qr_status set(const char *list)
{
    int n = 0;
    qr_status status = QR_OK;
    const char *at = list == NULL ? "" : list;
    while (*at != '\0' && status == QR_OK) {
        size_t length = strcspn(at, ",");
        if (n == MOST_FAULTS || !parse_one(at, length, &faults[n])) {
            status = qr_error(QR_USAGE, "QUORATE_FAULT: cannot make sense of '%.*s'", (int)length, at);
            break;
        }
        n++;
        at += length + (at[length] == ',' ? 1 : 0);
    }
    n_faults = status == QR_OK ? n : 0;
    atomic_fetch_add(&generation, 1);
    atomic_store(&qr_fault_state, n_faults > 0 ? 2 : 1);
    return status;
}

qr_status qr_fault_set(const char *list)
{
    pthread_mutex_lock(&lock);
    qr_status status = set(list);
    pthread_mutex_unlock(&lock);
    return status;
}

static void pause_ms(long ms)
{
    const struct timespec pause = {.tv_nsec = ms * 1000000L};
    nanosleep(&pause, NULL);
}

/* With the lock: counts the passing; 0 when nothing is due. */
static int due(const char *point, const char *path)
{
    int what = 0;
    for (int i = 0; i < n_faults; i++) {
        fault *f = &faults[i];
        if (strcmp(f->point, point) != 0 || (f->part[0] != '\0' && (path == NULL || strstr(path, f->part) == NULL))) {
            continue;
        }
        f->passed++;
        if (what == 0 && (f->passed == f->at || (f->onwards && f->passed > f->at))) {
            what = f->what;
        }
    }
    return what;
}

int qr_fault_strike(const char *point, const char *path)
{
    pthread_mutex_lock(&lock);
    if (atomic_load(&qr_fault_state) == 0 && set(getenv("QUORATE_FAULT")) != QR_OK) {
        qr_warning("%s", qr_error_message());
    }
    int what = due(point, path);
    long turn = atomic_load(&generation);
    pthread_mutex_unlock(&lock);
    switch (what) {
    case KILL: raise(SIGKILL); return 0;
    case HANG:
        while (atomic_load(&generation) == turn) {
            pause_ms(PAUSE_MS);
        }
        return 0;
    case SLOW: pause_ms(SLOW_MS); return 0;
    default: return what;
    }
}
