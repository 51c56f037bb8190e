#include "base/memory.h"
#include "io/file.h"
#include "io/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file that is appended to. */
typedef struct appended {
    char name[sizeof((qr_job *)0)->name];
    int file;
    bool dirty;
} appended;

struct qr_texts {
    char *directory;
    appended *files;
    size_t n_files, capacity;
    int64_t bytes;
};

qr_status qr_texts_create(const char *directory, qr_texts **out)
{
    qr_texts *texts = NULL;
    qr_status status = qr_allocate(1, sizeof *texts, "text files", (void **)&texts);
    if (status != QR_OK) {
        return status;
    }
    texts->directory = strdup(directory);
    if (texts->directory == NULL) {
        free(texts);
        return qr_error_memory(strlen(directory), "a path");
    }
    *out = texts;
    return QR_OK;
}

static void drop(qr_texts *texts, size_t i)
{
    close(texts->files[i].file);
    texts->files[i] = texts->files[--texts->n_files];
}

void qr_texts_destroy(qr_texts *texts)
{
    if (texts != NULL) {
        while (texts->n_files > 0) {
            drop(texts, texts->n_files - 1);
        }
        free(texts->files);
        free(texts->directory);
        free(texts);
    }
}

static qr_status failed(const qr_texts *texts, const char *name)
{
    int error = errno;
    char *path = NULL;
    qr_status status = qr_path_join(texts->directory, name, &path);
    if (status == QR_OK) {
        status = qr_file_error(path, "written", error);
        free(path);
    }
    return status;
}

/* The open file of this name; it starts empty or not as it is found. */
static qr_status find(qr_texts *texts, const char *name, appended **out)
{
    for (size_t i = 0; i < texts->n_files; i++) {
        if (strcmp(texts->files[i].name, name) == 0) {
            *out = &texts->files[i];
            return QR_OK;
        }
    }
    char *path = NULL;
    qr_status status =
        qr_grow((void **)&texts->files, &texts->capacity, texts->n_files + 1, sizeof(appended), "text files");
    status = status != QR_OK ? status : qr_path_join(texts->directory, name, &path);
    if (status != QR_OK) {
        return status;
    }
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    status = file < 0 ? qr_file_error(path, "written", errno) : QR_OK;
    free(path);
    if (status != QR_OK) {
        return status;
    }
    appended *added = &texts->files[texts->n_files++];
    memset(added, 0, sizeof *added);
    memcpy(added->name, name, strlen(name)); /* shorter than a descriptor's name, see good_name */
    added->file = file;
    *out = added;
    return QR_OK;
}

/* The step that a line begins with; -1 for any other beginning. */
static int64_t step_of_line(const char *line, size_t bytes)
{
    static const char head[] = "{\"step\":";
    char number[24] = "";
    if (bytes < sizeof head || strncmp(line, head, sizeof head - 1) != 0) {
        return -1;
    }
    size_t n = bytes - (sizeof head - 1) < sizeof number - 1 ? bytes - (sizeof head - 1) : sizeof number - 1;
    memcpy(number, line + sizeof head - 1, n);
    char *end = NULL;
    long long step = strtoll(number, &end, 10);
    return end != number ? (int64_t)step : -1;
}

/* Moves the lines that stay to the front; their bytes. A line that a kill cut off is dropped. */
static size_t keep_lines(char *text, size_t bytes, int64_t step)
{
    size_t kept = 0;
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        if (end == NULL) {
            break;
        }
        size_t n = (size_t)(end - (text + at)) + 1;
        int64_t found = step_of_line(text + at, n);
        if (found >= 0 && found <= step) {
            memmove(text + kept, text + at, n);
            kept += n;
        }
        at += n;
    }
    return kept;
}

qr_status qr_texts_keep(qr_texts *texts, const char *name, int64_t step)
{
    char *path = NULL;
    char *text = NULL;
    int file = -1;
    int64_t bytes = 0;
    qr_status status = qr_path_join(texts->directory, name, &path);
    if (status != QR_OK || access(path, F_OK) != 0) {
        free(path);
        return status;
    }
    status = qr_file_open(path, &file, &bytes);
    status = status != QR_OK ? status : qr_allocate((size_t)bytes, 1, "text files", (void **)&text);
    status = status != QR_OK ? status : qr_file_read_at(file, path, text, (size_t)bytes, 0);
    if (status == QR_OK) {
        status = qr_file_replace(texts->directory, name, text, keep_lines(text, (size_t)bytes, step), true);
    }
    if (file >= 0) {
        close(file);
    }
    free(text);
    free(path);
    return status;
}

static bool good_name(const qr_job *job)
{
    return memchr(job->name, '\0', sizeof job->name) != NULL && job->name[0] != '\0' && job->name[0] != '.' &&
           strchr(job->name, '/') == NULL;
}

qr_status qr_texts_write(qr_texts *texts, const qr_job *job, const void *payload)
{
    if (!good_name(job) || (job->flags != QR_TEXT_APPEND && job->flags != QR_TEXT_REPLACE)) {
        return qr_error(QR_INTERNAL, "%s: a text job with a bad name or mode", texts->directory);
    }
    qr_status status = QR_OK;
    if (job->flags == QR_TEXT_REPLACE) {
        for (size_t i = texts->n_files; i-- > 0;) {
            if (strcmp(texts->files[i].name, job->name) == 0) {
                drop(texts, i);
            }
        }
        status = qr_file_replace(texts->directory, job->name, payload, (size_t)job->bytes, true);
    } else {
        appended *target = NULL;
        status = find(texts, job->name, &target);
        if (status == QR_OK && !qr_file_write(target->file, payload, (size_t)job->bytes)) {
            status = failed(texts, job->name);
        }
        if (status == QR_OK) {
            target->dirty = true;
        }
    }
    texts->bytes += status == QR_OK ? job->bytes : 0;
    return status;
}

qr_status qr_texts_flush(qr_texts *texts)
{
    for (size_t i = 0; i < texts->n_files; i++) {
        if (texts->files[i].dirty && fsync(texts->files[i].file) != 0) {
            return failed(texts, texts->files[i].name);
        }
        texts->files[i].dirty = false;
    }
    return QR_OK;
}

int64_t qr_texts_bytes(const qr_texts *texts)
{
    return texts->bytes;
}

char *qr_io_summary_of_results(const char *directory)
{
    enum { MOST_BYTES = 16 << 20 };
    char *path = NULL;
    char *text = NULL;
    int file = -1;
    int64_t bytes = 0;
    qr_status status = qr_path_join(directory, QR_SUMMARY_FILE, &path);
    status = status != QR_OK ? status : qr_file_open(path, &file, &bytes);
    if (status == QR_OK && bytes <= MOST_BYTES) {
        text = calloc(1, (size_t)bytes + 1);
    }
    if (text != NULL && qr_file_read_at(file, path, text, (size_t)bytes, 0) != QR_OK) {
        free(text);
        text = NULL;
    }
    if (status == QR_OK) {
        close(file);
    }
    free(path);
    return text;
}
