/* A tier's file of pages: made, locked, read, written, and removed by whoever finds it abandoned. */
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/page_store_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

enum { NAME_BYTES = 256, WORD_BYTES = 128, MOST_TRIES = 5, DAY_S = 24 * 60 * 60 };

/* The first line of every file. */
static const char title[] = "quorate page store 1\n";

/* --- whose a file is --- */

/* As in the file's head. */
typedef struct owner {
    char run_id[WORD_BYTES], host[WORD_BYTES], boot[WORD_BYTES];
    int server, attempt;
    long pid;
    unsigned long long started; /* clock ticks since the boot, as /proc has it; 0: not known */
} owner;

/* First word of a small file; "" when it cannot be read. */
static void read_word(const char *path, char word[WORD_BYTES])
{
    word[0] = '\0';
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    ssize_t n = read(file, word, WORD_BYTES - 1);
    close(file);
    word[n > 0 ? n : 0] = '\0';
    word[strcspn(word, " \t\n")] = '\0';
}

/* Field 22 of /proc/PID/stat (proc(5)): behind the name, which may hold anything but ends with the last ')'. */
static unsigned long long start_of(long pid)
{
    char path[64];
    char text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) {
        close(file);
    }
    text[n > 0 ? n : 0] = '\0';
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static void describe_self(const qr_page_store_config *config, owner *self)
{
    *self = (owner){.server = config->server, .attempt = config->attempt, .pid = (long)getpid()};
    snprintf(self->run_id, sizeof self->run_id, "%s", config->run_id != NULL ? config->run_id : "");
    read_word("/proc/sys/kernel/hostname", self->host);
    read_word("/proc/sys/kernel/random/boot_id", self->boot);
    self->started = start_of(self->pid);
}

/* Text, so that a person who finds the file can tell what it is (head -c 400). */
static void format_head(const owner *self, int tier, char block[QR_STORE_BLOCK])
{
    uint64_t nonce[2] = {0};
    if (getrandom(nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce) {
        nonce[0] = (uint64_t)(qr_now_s() * 1e9);
    }
    memset(block, 0, QR_STORE_BLOCK);
    int n = snprintf(block, QR_STORE_BLOCK,
                     "%srun %s\nserver %d\nattempt %d\nhost %s\nboot %s\npid %ld\nstarted %llu\ntier %s\nnonce "
                     "%016" PRIx64 "%016" PRIx64 "\n",
                     title, self->run_id, self->server, self->attempt, self->host, self->boot, self->pid, self->started,
                     qr_tier_name(tier), nonce[0], nonce[1]);
    snprintf(block + n, QR_STORE_BLOCK - (size_t)n, "check %016" PRIx64 "\n", XXH3_64bits(block, (size_t)n));
}

/* The line "key word" of a head, which begins with a newline; false when there is none. */
static bool find_word(const char *head, const char *key, char word[WORD_BYTES])
{
    char start[32];
    snprintf(start, sizeof start, "\n%s ", key);
    const char *at = strstr(head, start);
    size_t n = at == NULL ? 0 : strcspn(at + strlen(start), "\n");
    if (at == NULL || n >= WORD_BYTES) {
        return false;
    }
    memcpy(word, at + strlen(start), n);
    word[n] = '\0';
    return true;
}

static bool find_number(const char *head, const char *key, unsigned long long *number)
{
    char word[WORD_BYTES];
    char *end = word;
    if (!find_word(head, key, word)) {
        return false;
    }
    *number = strtoull(word, &end, 10);
    return end != word && *end == '\0';
}

/* False for a file that is none of ours, or whose head is damaged. */
static bool parse_head(char block[QR_STORE_BLOCK], owner *found)
{
    unsigned long long attempt = 0;
    unsigned long long pid = 0;
    block[QR_STORE_BLOCK - 1] = '\0';
    const char *check = strstr(block, "\ncheck ");
    if (strncmp(block, title, sizeof title - 1) != 0 || check == NULL) {
        return false;
    }
    check++;
    if (strtoull(check + strlen("check "), NULL, 16) != XXH3_64bits(block, (size_t)(check - block))) {
        return false;
    }
    bool whole = find_word(block, "run", found->run_id) && find_word(block, "host", found->host) &&
                 find_word(block, "boot", found->boot) && find_number(block, "attempt", &attempt) &&
                 find_number(block, "pid", &pid) && find_number(block, "started", &found->started);
    found->attempt = (int)attempt;
    found->pid = (long)pid;
    return whole;
}

static bool process_is_gone(const owner *found)
{
    if (kill((pid_t)found->pid, 0) != 0) {
        return errno == ESRCH;
    }
    unsigned long long started = start_of(found->pid);
    return found->started != 0 && started != 0 && started != found->started; /* another one got its number */
}

/* The lock of a living process is held, and goes with it. Where directories are shared between machines it may be that
 * only locks of the own machine are seen: then what another one left goes when it is an earlier attempt of this run, or
 * when nobody wrote to it for a day. */
static bool is_abandoned(int file, int lock, const owner *self, const owner *found, const struct stat *info)
{
    bool locked = flock(file, lock | LOCK_NB) == 0;
    if (!locked && (errno == EWOULDBLOCK || errno == EINTR)) {
        return false;
    }
    if (strcmp(found->boot, self->boot) == 0 && self->boot[0] != '\0') {
        return locked || process_is_gone(found);
    }
    if (strcmp(found->host, self->host) == 0) {
        return locked; /* started anew since */
    }
    bool earlier = strcmp(found->run_id, self->run_id) == 0 && found->attempt < self->attempt;
    return locked && (earlier || time(NULL) - info->st_mtime > DAY_S);
}

/* One that was killed before it had written what it is. */
static bool is_empty_and_old(const struct stat *info)
{
    enum { MINUTE_S = 60 };
    return info->st_size < QR_STORE_BLOCK && time(NULL) - info->st_mtime > MINUTE_S;
}

static bool looks_like_store(const char *name)
{
    size_t n = strlen(name);
    return n > 10 && strncmp(name, "pages.", 6) == 0 && strcmp(name + n - 4, ".qps") == 0;
}

/* Bytes that the file takes on its disk if it is nobody's any longer, and it is then removed; 0 otherwise. Many may
 * look at once, so that those who merely look share the lock. */
static int64_t visit_store(const char *directory, const char *name, const owner *self, bool remove)
{
    char block[QR_STORE_BLOCK];
    char *path = NULL;
    owner found = {0};
    struct stat info;
    int64_t bytes = 0;
    if (qr_path_join(directory, name, &path) != QR_OK) {
        return 0;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode)) {
        bool whole = pread(file, block, sizeof block, 0) == (ssize_t)sizeof block;
        bool known = whole && parse_head(block, &found);
        if (known ? is_abandoned(file, remove ? LOCK_EX : LOCK_SH, self, &found, &info) : is_empty_and_old(&info)) {
            bytes = (int64_t)info.st_blocks * 512; /* stat(2): of this size everywhere */
            if (remove) {
                (void)unlink(path);
            }
        } else if (whole && !known && remove) {
            qr_warning("%s: has the name of a page store, but is none or is damaged; it is left alone", path);
        }
    }
    if (file >= 0) {
        close(file);
    }
    free(path);
    return bytes;
}

static int64_t visit_stores(const char *directory, const owner *self, bool remove)
{
    DIR *handle = opendir(directory);
    const struct dirent *found = NULL;
    int64_t bytes = 0;
    while (handle != NULL && (found = readdir(handle)) != NULL) {
        if (looks_like_store(found->d_name)) {
            bytes += visit_store(directory, found->d_name, self, remove);
        }
    }
    if (handle != NULL) {
        closedir(handle);
    }
    return bytes;
}

bool qr_page_store_report(const char *path)
{
    char block[QR_STORE_BLOCK];
    qr_page_store_config nobody = {.run_id = "-"};
    owner self;
    owner found = {0};
    char tier[WORD_BYTES] = "?";
    struct stat info;
    const char *slash = strrchr(path, '/');
    int file = looks_like_store(slash != NULL ? slash + 1 : path)
                   ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
                   : -1;
    bool there = file >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode);
    if (there) {
        bool whole = pread(file, block, sizeof block, 0) == (ssize_t)sizeof block && parse_head(block, &found);
        describe_self(&nobody, &self);
        bool stale = whole ? is_abandoned(file, LOCK_SH, &self, &found, &info) : is_empty_and_old(&info);
        printf("%s\n  page file: states of a run in more memory than there is, of use to that very run alone\n", path);
        if (whole && find_word(block, "tier", tier)) {
            printf("  tier       %s\n  written by process %ld on %s\n", tier, found.pid, found.host);
        }
        printf("  on disk    %.1f MiB\n  state      %s\n", (double)info.st_blocks * 512 / (1 << 20),
               stale   ? "stale: its run is gone; the next run that uses the directory removes it, and so may you"
               : whole ? "in use by its run, as far as can be told from here"
                       : "damaged, or just being made");
    }
    if (file >= 0) {
        close(file);
    }
    return there;
}

bool qr_page_stores_report(const char *directory)
{
    DIR *handle = opendir(directory);
    const struct dirent *found = NULL;
    bool any = false;
    while (handle != NULL && (found = readdir(handle)) != NULL) {
        char *path = NULL;
        any = (qr_path_join(directory, found->d_name, &path) == QR_OK && qr_page_store_report(path)) || any;
        free(path);
    }
    if (handle != NULL) {
        closedir(handle);
    }
    return any;
}

static int64_t visit_abandoned(const char *directory, bool remove)
{
    qr_page_store_config nobody = {.run_id = "-"};
    owner self;
    describe_self(&nobody, &self);
    return visit_stores(directory, &self, remove);
}

int64_t qr_page_store_abandoned_bytes(const char *directory)
{
    return visit_abandoned(directory, false);
}

int64_t qr_page_store_clean(const char *directory)
{
    return visit_abandoned(directory, true);
}

/* --- making --- */

/* Made and locked; another server that looks for abandoned files may have removed it in between: then again. */
static qr_status make_locked(const char *path, int *descriptor)
{
    for (int i = 0; i < MOST_TRIES; i++) {
        struct stat here;
        struct stat named;
        int error = qr_fault("pages.create", path);
        int file = error != 0 ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        error = error != 0 ? error : errno;
        if (file < 0) {
            return error == EEXIST
                       ? qr_error(QR_ENVIRONMENT, "%s: is in use by another process, or cannot be told to be abandoned",
                                  path)
                       : qr_error(error == ENOSPC || error == EDQUOT ? QR_RESOURCE : QR_ENVIRONMENT,
                                  "%s: cannot be made: %s", path, strerror(error));
        }
        bool locked = flock(file, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
        if (locked && fstat(file, &here) == 0 && stat(path, &named) == 0 && here.st_ino == named.st_ino) {
            *descriptor = file;
            return QR_OK;
        }
        close(file);
    }
    return qr_error(QR_ENVIRONMENT, "%s: cannot be made: it is removed again each time", path);
}

qr_status qr_page_file_create(const qr_page_store_config *config, int tier, qr_page_file *file)
{
    char name[NAME_BYTES];
    char block[QR_STORE_BLOCK];
    owner self;
    const char *directory = config->tiers[tier].directory;
    file->descriptor = -1;
    describe_self(config, &self);
    if (self.run_id[0] == '\0' || strpbrk(self.run_id, "/ \n") != NULL) {
        return qr_error(QR_INTERNAL, "a page store needs the run's id");
    }
    snprintf(name, sizeof name, "pages.%s.s%03d.a%d.%s.qps", self.run_id, self.server, self.attempt,
             qr_tier_name(tier));
    qr_status status = qr_directories_make(directory, "memory tier's");
    if (status == QR_OK) {
        (void)visit_stores(directory, &self, true);
        status = qr_path_join(directory, name, &file->path);
    }
    status = status != QR_OK ? status : make_locked(file->path, &file->descriptor);
    if (status != QR_OK) {
        free(file->path); /* not ours to remove */
        file->path = NULL;
        return status;
    }
    format_head(&self, tier, block);
    /* Pages are asked for before they are needed: what the system would read on its own is another page, in the way of
     * the next. A disk that turns is asked less often. */
    if (tier != QR_TIER_HDD) {
        (void)posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_RANDOM);
    }
    XXH128_hash_t identity = XXH3_128bits(block, sizeof block);
    file->identity[0] = identity.low64;
    file->identity[1] = identity.high64;
    if (!qr_file_write_at(file->descriptor, block, sizeof block, 0)) {
        status = qr_error(errno == ENOSPC || errno == EDQUOT ? QR_RESOURCE : QR_ENVIRONMENT,
                          "%s: cannot be written: %s", file->path, strerror(errno));
        qr_page_file_destroy(file);
    }
    return status;
}

void qr_page_file_destroy(qr_page_file *file)
{
    if (file->path != NULL) {
        (void)unlink(file->path);
    }
    if (file->descriptor >= 0) {
        close(file->descriptor);
    }
    free(file->path);
    *file = (qr_page_file){.descriptor = -1};
}

/* --- reading and writing --- */

static bool may_pass(int error)
{
    return error == EIO || error == EAGAIN || error == EINTR || error == EBUSY || error == ETIMEDOUT;
}

/* Ever longer: 1, 8, 64 ms. False when it was tried often enough. */
static bool try_again(int *failures, int64_t *retries)
{
    enum { MOST_FAILURES = 3 };
    if (*failures == MOST_FAILURES) {
        return false;
    }
    const struct timespec pause = {.tv_nsec = 1000000L << (3 * *failures)};
    nanosleep(&pause, NULL);
    ++*failures;
    ++*retries;
    return true;
}

int qr_page_file_write(const qr_page_file *file, const void *data, int64_t blocks, int64_t first_block,
                       int64_t *retries)
{
    const unsigned char *at = data;
    off_t offset = (off_t)first_block * QR_STORE_BLOCK;
    size_t left = (size_t)blocks * QR_STORE_BLOCK;
    int failures = 0;
    while (left > 0) {
        int error = qr_fault("pages.write", file->path);
        ssize_t n = error != 0 ? -1 : pwrite(file->descriptor, at, left, offset);
        error = n >= 0 || error != 0 ? error : errno;
        if (n <= 0) {
            error = n == 0 ? EIO : error;
            if (!may_pass(error) || !try_again(&failures, retries)) {
                return error;
            }
            continue;
        }
        at += n;
        offset += n;
        left -= (size_t)n;
    }
    return 0;
}

int qr_page_file_read(const qr_page_file *file, void *data, int64_t blocks, int64_t first_block, bool *short_read,
                      int64_t *retries)
{
    size_t bytes = (size_t)blocks * QR_STORE_BLOCK;
    size_t done = 0;
    int failures = 0;
    *short_read = false;
    while (done < bytes) {
        int error = qr_fault("pages.read", file->path);
        size_t ask = qr_fault("pages.short", file->path) != 0 ? (bytes - done) / 2 : bytes - done;
        ssize_t n = error != 0 ? -1
                               : pread(file->descriptor, (unsigned char *)data + done, ask,
                                       (off_t)first_block * QR_STORE_BLOCK + (off_t)done);
        error = n >= 0 || error != 0 ? error : errno;
        *short_read = n == 0;
        if (n <= 0) {
            error = n == 0 ? EIO : error;
            if (!may_pass(error) || !try_again(&failures, retries)) {
                return error;
            }
            continue;
        }
        done += (size_t)n;
        *retries += done < bytes ? 1 : 0;
    }
    if (qr_fault("pages.flip", file->path) != 0) {
        ((unsigned char *)data)[bytes / 3] ^= 4;
    }
    return 0;
}
