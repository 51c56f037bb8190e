#include "io/file.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel takes at most 2 GiB at once. */
static const size_t most_at_once = (size_t)1 << 30;

qr_status qr_path_join(const char *directory, const char *name, char **out)
{
    size_t bytes = strlen(directory) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path == NULL) {
        (void)qr_error_memory(bytes, "a path");
        return QR_RESOURCE;
    }
    snprintf(path, bytes, "%s/%s", directory, name);
    *out = path;
    return QR_OK;
}

qr_status qr_file_error(const char *path, const char *action, int error)
{
    qr_status status = QR_DATA;
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE: status = QR_RESOURCE; break;
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG: status = QR_ENVIRONMENT; break;
    default: break;
    }
    return qr_error(status, "%s: cannot be %s: %s", path, action, strerror(error));
}

bool qr_file_write(int file, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(file, at, bytes < most_at_once ? bytes : most_at_once);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return false;
        }
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

bool qr_file_write_at(int file, const void *data, size_t bytes, uint64_t offset)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = pwrite(file, at, bytes < most_at_once ? bytes : most_at_once, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return false;
        }
        at += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

qr_status qr_file_read_at(int file, const char *path, void *out, size_t bytes, uint64_t offset)
{
    char *at = out;
    while (bytes > 0) {
        ssize_t n = pread(file, at, bytes < most_at_once ? bytes : most_at_once, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return qr_error(QR_DATA, "%s: cannot be read: %s", path, strerror(errno));
        }
        if (n == 0) {
            return qr_error(QR_DATA, "%s: the file is cut short", path);
        }
        at += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return QR_OK;
}

qr_status qr_directories_make(const char *directory, const char *what)
{
    char *path = strdup(directory);
    if (path == NULL) {
        return qr_error_memory(strlen(directory), "a path");
    }
    qr_status status = QR_OK;
    for (char *at = path + 1; status == QR_OK; at++) {
        char kept = *at;
        if (kept != '/' && kept != '\0') {
            continue;
        }
        *at = '\0';
        if (mkdir(path, 0777) != 0 && (errno != EEXIST || kept == '\0')) {
            int error = errno; /* on a read-only file system any, for a directory that is there */
            struct stat info;
            if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
                status = qr_error(QR_ENVIRONMENT, "%s: the %s directory cannot be made: %s", path, what,
                                  error == EEXIST ? "it is not a directory" : strerror(error));
            }
        }
        if (kept == '\0') {
            break;
        }
        *at = kept;
    }
    free(path);
    return status;
}

qr_status qr_directory_sync(const char *directory)
{
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) {
        return qr_file_error(directory, "opened", errno);
    }
    qr_status status = QR_OK;
    if (fsync(file) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS) {
        status = qr_file_error(directory, "written", errno);
    }
    close(file);
    return status;
}

qr_status qr_file_replace(const char *directory, const char *name, const char *text, size_t bytes, bool durable)
{
    char hidden[NAME_MAX + 1];
    char *path = NULL;
    char *temporary = NULL;
    int file = -1;
    if (snprintf(hidden, sizeof hidden, ".%s.tmp", name) >= (int)sizeof hidden) {
        return qr_error(QR_INTERNAL, "%s: too long a file name", name);
    }
    qr_status status = qr_path_join(directory, name, &path);
    if (status == QR_OK) {
        status = qr_path_join(directory, hidden, &temporary);
    }
    if (status != QR_OK) {
        goto cleanup;
    }
    file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0 || !qr_file_write(file, text, bytes) || (durable && fsync(file) != 0)) {
        status = qr_file_error(path, "written", errno);
        goto cleanup;
    }
    /* Some file systems report a full disk only here. */
    int closed = close(file);
    file = -1;
    if (closed != 0 || rename(temporary, path) != 0) {
        status = qr_file_error(path, "written", errno);
        goto cleanup;
    }
    free(temporary);
    temporary = NULL;
cleanup:
    if (file >= 0) {
        close(file);
    }
    if (temporary != NULL) {
        (void)unlink(temporary);
    }
    free(temporary);
    free(path);
    return status;
}

qr_status qr_file_open(const char *path, int *file, int64_t *bytes)
{
    /* Not to hang on a pipe without a writer; what is no regular file is refused below. */
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (opened < 0) {
        bool full = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        return qr_error(full ? QR_RESOURCE : QR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
    }
    if (fstat(opened, &info) != 0 || !S_ISREG(info.st_mode)) {
        const char *cause = S_ISDIR(info.st_mode) ? "it is a directory" : "it is not a regular file";
        close(opened);
        return qr_error(QR_USAGE, "%s: cannot be read: %s", path, cause);
    }
    *file = opened;
    *bytes = (int64_t)info.st_size;
    return QR_OK;
}
