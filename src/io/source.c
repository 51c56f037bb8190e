#include "io/source.h"

#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct qr_io_source {
    int file;
    char *path;
};

qr_status qr_io_source_open(const char *path, qr_io_source **out)
{
    qr_io_source *source = NULL;
    qr_status status = qr_allocate(1, sizeof *source, "a file", (void **)&source);
    if (status != QR_OK) {
        return status;
    }
    source->file = -1;
    source->path = strdup(path);
    int64_t bytes = 0;
    status = source->path == NULL ? qr_error_memory(strlen(path), "a path") : qr_file_open(path, &source->file, &bytes);
    if (status != QR_OK) {
        qr_io_source_close(source);
        return status;
    }
    *out = source;
    return QR_OK;
}

qr_status qr_io_source_read(void *context, void *buffer, size_t n, size_t *got)
{
    qr_io_source *source = context;
    size_t done = 0;
    while (done < n) {
        ssize_t taken = read(source->file, (char *)buffer + done, n - done);
        if (taken < 0 && errno == EINTR) {
            continue;
        }
        if (taken < 0) {
            return qr_error(QR_DATA, "%s: cannot be read: %s", source->path, strerror(errno));
        }
        if (taken == 0) {
            break;
        }
        done += (size_t)taken;
    }
    *got = done;
    return QR_OK;
}

void qr_io_source_close(qr_io_source *source)
{
    if (source != NULL) {
        if (source->file >= 0) {
            close(source->file);
        }
        free(source->path);
        free(source);
    }
}

static qr_status too_large(const char *path, size_t max_bytes)
{
    return qr_error(QR_USAGE, "%s: has more than %zu bytes, which is the limit for such a file", path, max_bytes);
}

qr_status qr_io_read_text(const char *path, size_t max_bytes, char **text, size_t *n)
{
    qr_io_source *source = NULL;
    qr_status status = qr_io_source_open(path, &source);
    char *buffer = NULL;
    size_t capacity = 0;
    size_t used = 0;
    size_t got = 1;
    /* The size is not asked for: files of /proc have none, and others may grow meanwhile. */
    while (status == QR_OK && got > 0) {
        status = qr_grow((void **)&buffer, &capacity, used + 4096, 1, "a text file");
        if (status == QR_OK) {
            status = qr_io_source_read(source, buffer + used, capacity - used - 1, &got);
        }
        used += status == QR_OK ? got : 0;
        if (status == QR_OK && used > max_bytes) {
            status = too_large(path, max_bytes);
        }
    }
    qr_io_source_close(source);
    if (status != QR_OK) {
        free(buffer);
        return status;
    }
    buffer[used] = '\0';
    *text = buffer;
    *n = used;
    return QR_OK;
}
