#include "io/source.h"

#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct qr_io_source {
    int file;
    char path[1]; /* as long as it takes */
};

qr_status qr_io_source_open(const char *path, qr_io_source **out)
{
    qr_io_source *source = NULL;
    int64_t bytes = 0;
    qr_status status = qr_allocate(1, sizeof *source + strlen(path), "an input file", (void **)&source);
    if (status != QR_OK) {
        return status;
    }
    memcpy(source->path, path, strlen(path) + 1);
    status = qr_file_open(path, &source->file, &bytes);
    if (status != QR_OK) {
        free(source);
        return status;
    }
    *out = source;
    return QR_OK;
}

qr_status qr_io_source_read(void *source, void *buffer, size_t n, size_t *got)
{
    const qr_io_source *from = source;
    for (;;) {
        ssize_t read_now = read(from->file, buffer, n);
        if (read_now >= 0) {
            *got = (size_t)read_now;
            return QR_OK;
        }
        if (errno != EINTR) {
            return qr_file_error(from->path, "read", errno);
        }
    }
}

void qr_io_source_close(qr_io_source *source)
{
    if (source != NULL) {
        (void)close(source->file);
        free(source);
    }
}

qr_status qr_io_read_text(const char *path, size_t max_bytes, char **text, size_t *n)
{
    qr_io_source *source = NULL;
    char *buffer = NULL;
    size_t capacity = 0;
    size_t used = 0;
    size_t got = 1;
    qr_status status = qr_io_source_open(path, &source);
    while (status == QR_OK && got > 0) {
        status = qr_grow((void **)&buffer, &capacity, used + 4096, 1, path);
        if (status == QR_OK) {
            status = qr_io_source_read(source, buffer + used, capacity - used - 1, &got);
        }
        used += status == QR_OK ? got : 0;
        if (status == QR_OK && used > max_bytes) {
            status = qr_error(QR_USAGE, "%s: larger than %zu MiB", path, max_bytes >> 20);
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
