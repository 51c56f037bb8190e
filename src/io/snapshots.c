#include "io/snapshots.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/attempts.h"
#include "io/file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Agents of a chunk at most; rows of a chunk of steps. */
enum { CHUNK_AGENTS = 1 << 20, STEP_ROWS = 512 };

/* Compressed votes of incomplete snapshots that are kept in memory; above it the oldest one goes to the file early. */
static const size_t most_held = (size_t)64 << 20;

/* A chunk in the making: raw until all its votes are there, packed until it is in the file. */
typedef struct piece {
    unsigned char *raw;
    int64_t filled;
    unsigned char *packed;
    size_t packed_bytes;
    uint32_t skipped_filters;
} piece;

/* A snapshot of which votes are missing, or that has to wait for an earlier one. */
typedef struct pending {
    int64_t index, step;
    int64_t received;
    piece *pieces;
} pending;

struct qr_snapshots {
    char *path;
    qr_store *store;
    hid_t file, votes, step;
    int64_t first, width; /* agents of this file */
    int64_t chunk;
    size_t n_pieces;
    int level;
    pending *waiting; /* by index */
    size_t n_waiting, waiting_capacity;
    size_t held;    /* bytes in the pieces of all that wait */
    int64_t *steps; /* of the complete snapshots, those in earlier files first */
    size_t n_steps, steps_capacity;
    size_t n_earlier;    /* that are in earlier files */
    int64_t first_index; /* of this file's first row */
    bool early;          /* the first that waits is partly in the file: no commit before it is complete */
    bool dirty;
};

/* --- creation --- */

/* Rows of this file. */
static hsize_t own_rows(const qr_snapshots *s)
{
    return (hsize_t)(s->n_steps - s->n_earlier);
}

static qr_status make_datasets(qr_snapshots *s)
{
    qr_h5_column column = {.name = "votes",
                           .stored_type = H5T_STD_U8LE,
                           .columns = (hsize_t)s->width,
                           .chunk_rows = 1,
                           .chunk_columns = (hsize_t)s->chunk,
                           .deflate = (unsigned)s->level};
    s->votes = qr_h5_make_column(s->file, &column);
    column = (qr_h5_column){.name = "step", .stored_type = H5T_STD_I64LE, .chunk_rows = STEP_ROWS};
    s->step = qr_h5_make_column(s->file, &column);
    bool done = s->votes >= 0 && s->step >= 0 &&
                qr_h5_describe(s->votes, "option", "vote of each agent, by snapshot") &&
                qr_h5_describe(s->step, "step", "step at whose end the snapshot was taken") &&
                qr_h5_set_int(s->votes, "first_agent", s->first);
    return done ? QR_OK : qr_h5_error(QR_INTERNAL, s->path, "cannot be made");
}

static void free_pending(pending *p, size_t n_pieces)
{
    for (size_t i = 0; i < n_pieces; i++) {
        free(p->pieces[i].raw);
        free(p->pieces[i].packed);
    }
    free(p->pieces);
}

static void destroy(qr_snapshots *s)
{
    if (s->file >= 0) {
        qr_h5_lock();
        H5Fclose(s->file);
        qr_h5_unlock();
    }
    qr_store_close(s->store);
    for (size_t i = 0; i < s->n_waiting; i++) {
        free_pending(&s->waiting[i], s->n_pieces);
    }
    free(s->waiting);
    free(s->steps);
    free(s->path);
    free(s);
}

static qr_status make_file(qr_snapshots *s, const qr_io_config *config)
{
    qr_status status = qr_h5_create(s->store, s->path, &s->file);
    status = status != QR_OK ? status : make_datasets(s);
    if (status == QR_OK && !qr_describe_run(s->file, config, config->keep_snapshots_to, config->snapshot_every)) {
        status = qr_h5_error(QR_INTERNAL, s->path, "cannot be made");
    }
    return status;
}

/* Makes the dataset that long. */
static qr_status set_rows(qr_snapshots *s, size_t rows)
{
    qr_h5_lock();
    qr_status status = qr_h5_set_rows(s->votes, (hsize_t)s->width, (hsize_t)rows) ? QR_OK : qr_h5_write_error(s->path);
    qr_h5_unlock();
    return status;
}

/* The joining file of a run that goes on. What is missing or damaged is no reason to stop. */
static qr_status join_earlier(qr_snapshots *s, const qr_io_config *config)
{
    qr_attempts earlier;
    qr_status status = qr_attempts_find(config, &earlier);
    if (status != QR_OK) {
        return status;
    }
    if (earlier.n_lost > 0) {
        qr_warning("the snapshots up to step %lld are not all there: %s; the run goes on",
                   (long long)config->resume_step, earlier.lost);
    }
    status = qr_grow((void **)&s->steps, &s->steps_capacity, earlier.n_steps, sizeof(int64_t), "snapshots");
    status = status != QR_OK ? status : qr_join_parts(config, &earlier);
    status = status != QR_OK ? status : qr_directory_sync(config->directory);
    (void)qr_fault("results.joined", config->directory);
    status = status != QR_OK ? status : qr_attempts_remove_stale(config, &earlier);
    if (status == QR_OK && earlier.n_steps > 0) {
        memcpy(s->steps, earlier.steps, earlier.n_steps * sizeof *s->steps);
        s->n_steps = s->n_earlier = earlier.n_steps;
    }
    qr_attempts_clear(&earlier);
    return status;
}

qr_status qr_snapshots_create(const qr_io_config *config, qr_snapshots **out)
{
    char name[QR_PART_NAME_BYTES] = QR_SNAPSHOTS_FILE;
    if (config->n_servers > 1 || config->attempt > 0) {
        qr_part_name(config->attempt, config->server, name);
    }
    if (config->server_count < 1) {
        return qr_error(QR_INTERNAL, "%s: a server without agents cannot store snapshots", config->directory);
    }
    qr_snapshots *s = NULL;
    qr_status status = qr_allocate(1, sizeof *s, "snapshots", (void **)&s);
    if (status != QR_OK) {
        return status;
    }
    s->file = s->votes = s->step = H5I_INVALID_HID;
    s->first = config->server_first;
    s->width = config->server_count;
    s->chunk = s->width < CHUNK_AGENTS ? s->width : CHUNK_AGENTS;
    s->n_pieces = (size_t)((s->width + s->chunk - 1) / s->chunk);
    s->level = (int)config->compression;
    s->first_index = config->resume_snapshots;
    status = qr_path_join(config->directory, name, &s->path);
    status = status != QR_OK ? status : qr_store_create(config->directory, name, &s->store);
    if (status == QR_OK) {
        qr_h5_lock();
        status = make_file(s, config);
        qr_h5_unlock();
    }
    status = status != QR_OK ? status : qr_h5_commit(s->file, s->store, s->path);
    if (status == QR_OK && config->server == 0 && config->attempt > 0) {
        status = join_earlier(s, config);
    } else if (status == QR_OK && config->server == 0 && config->n_servers > 1) {
        status = qr_join_parts(config, NULL);
    }
    if (status != QR_OK) {
        destroy(s);
        return status;
    }
    *out = s;
    return QR_OK;
}

/* --- a chunk --- */

/* What HDF5's own deflate filter would store: a zlib stream, or the votes as they are when that is not shorter. */
static qr_status pack(qr_snapshots *s, piece *p)
{
    size_t raw_bytes = (size_t)s->chunk;
    if (s->level > 0) {
        uLongf bytes = compressBound((uLong)raw_bytes);
        unsigned char *packed = malloc(bytes);
        if (packed == NULL) {
            return qr_error_memory(bytes, "snapshots");
        }
        if (compress2(packed, &bytes, p->raw, (uLong)raw_bytes, s->level) == Z_OK && bytes < raw_bytes) {
            unsigned char *fitting = realloc(packed, bytes);
            p->packed = fitting != NULL ? fitting : packed;
            p->packed_bytes = bytes;
            free(p->raw);
            p->raw = NULL;
            s->held = s->held - raw_bytes + bytes;
            return QR_OK;
        }
        free(packed);
        p->skipped_filters = 1;
    }
    p->packed = p->raw;
    p->packed_bytes = raw_bytes;
    p->raw = NULL;
    return QR_OK;
}

/* Stores a finished chunk of the snapshot that becomes the next row, and frees it. */
static qr_status store_piece(qr_snapshots *s, piece *p, size_t i)
{
    hsize_t offset[2] = {own_rows(s), (hsize_t)i * (hsize_t)s->chunk};
    qr_h5_lock();
    bool done = H5Dwrite_chunk(s->votes, H5P_DEFAULT, p->skipped_filters, offset, p->packed_bytes, p->packed) >= 0;
    qr_status status = done ? QR_OK : qr_h5_write_error(s->path);
    qr_h5_unlock();
    if (status != QR_OK) {
        return status;
    }
    s->held -= p->packed_bytes;
    free(p->packed);
    p->packed = NULL;
    return qr_store_check(s->store);
}

static qr_status store_finished_pieces(qr_snapshots *s, pending *p)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < s->n_pieces && status == QR_OK; i++) {
        if (p->pieces[i].packed != NULL) {
            status = store_piece(s, &p->pieces[i], i);
        }
    }
    return status;
}

/* Puts votes of agents [first, first + count) of this file into their chunks. */
static qr_status fill(qr_snapshots *s, pending *p, int64_t first, int64_t count, const unsigned char *votes)
{
    while (count > 0) {
        size_t i = (size_t)(first / s->chunk);
        int64_t start = (int64_t)i * s->chunk;
        int64_t wanted = s->width - start < s->chunk ? s->width - start : s->chunk;
        int64_t n = start + wanted - first < count ? start + wanted - first : count;
        piece *target = &p->pieces[i];
        if (target->filled + n > wanted) {
            return qr_error(QR_INTERNAL, "%s: votes of snapshot %lld came twice", s->path, (long long)p->index);
        }
        if (target->raw == NULL) {
            qr_status status = qr_allocate((size_t)s->chunk, 1, "snapshots", (void **)&target->raw);
            if (status != QR_OK) {
                return status;
            }
            s->held += (size_t)s->chunk;
        }
        memcpy(target->raw + (first - start), votes, (size_t)n);
        target->filled += n;
        qr_status status = target->filled == wanted ? pack(s, target) : QR_OK;
        if (status != QR_OK) {
            return status;
        }
        first += n;
        votes += n;
        count -= n;
    }
    return QR_OK;
}

/* --- rows --- */

/* The snapshot of this index, in its place among those that wait; NULL with *status set. */
static pending *find_pending(qr_snapshots *s, const qr_job *job, qr_status *status)
{
    int64_t index = job->arguments[0];
    size_t i = 0;
    while (i < s->n_waiting && s->waiting[i].index < index) {
        i++;
    }
    if (i == s->n_waiting || s->waiting[i].index != index) {
        pending added = {.index = index, .step = job->step};
        *status = qr_grow((void **)&s->waiting, &s->waiting_capacity, s->n_waiting + 1, sizeof(pending), "snapshots");
        *status =
            *status != QR_OK ? *status : qr_allocate(s->n_pieces, sizeof(piece), "snapshots", (void **)&added.pieces);
        if (*status != QR_OK) {
            return NULL;
        }
        memmove(s->waiting + i + 1, s->waiting + i, (s->n_waiting - i) * sizeof(pending));
        s->waiting[i] = added;
        s->n_waiting++;
    }
    if (s->waiting[i].step != job->step) {
        *status = qr_error(QR_INTERNAL, "%s: snapshot %lld is of step %lld and of step %lld", s->path, (long long)index,
                           (long long)s->waiting[i].step, (long long)job->step);
        return NULL;
    }
    return &s->waiting[i];
}

static bool is_next_row(const qr_snapshots *s, const pending *p)
{
    return p->index == s->first_index + (int64_t)own_rows(s);
}

/* Votes first, the step last: both extents are committed together. */
static qr_status add_row(qr_snapshots *s, pending *p)
{
    qr_status status = qr_grow((void **)&s->steps, &s->steps_capacity, s->n_steps + 1, sizeof(int64_t), "snapshots");
    if (status == QR_OK && !s->early) {
        status = set_rows(s, own_rows(s) + 1);
    }
    status = status != QR_OK ? status : store_finished_pieces(s, p);
    if (status == QR_OK) {
        qr_h5_lock();
        bool done = qr_h5_append(s->step, H5T_NATIVE_INT64, 0, own_rows(s), 1, &p->step);
        status = done ? QR_OK : qr_h5_write_error(s->path);
        qr_h5_unlock();
    }
    if (status == QR_OK) {
        s->steps[s->n_steps++] = p->step;
        s->early = false;
        s->dirty = true;
        free_pending(p, s->n_pieces);
        memmove(s->waiting, s->waiting + 1, (s->n_waiting - 1) * sizeof(pending));
        s->n_waiting--;
    }
    return status;
}

/* The extent must cover a chunk before HDF5 takes it, and a commit would show that extent: so what is complete is
 * committed first, and nothing until the row is. */
static qr_status begin_early(qr_snapshots *s)
{
    qr_status status = qr_snapshots_flush(s);
    status = status != QR_OK ? status : set_rows(s, own_rows(s) + 1);
    s->early = status == QR_OK;
    return status;
}

qr_status qr_snapshots_add(qr_snapshots *s, const qr_job *job, const void *payload)
{
    bool fits = job->first >= s->first && job->count >= 0 && job->count <= job->bytes &&
                job->count <= s->width - (job->first - s->first);
    if (!fits || job->arguments[0] < s->first_index + (int64_t)own_rows(s)) {
        return qr_error(QR_INTERNAL, "%s: votes of agents %lld + %lld of snapshot %lld do not belong here", s->path,
                        (long long)job->first, (long long)job->count, (long long)job->arguments[0]);
    }
    qr_status status = QR_OK;
    pending *target = find_pending(s, job, &status);
    if (target == NULL) {
        return status;
    }
    status = fill(s, target, job->first - s->first, job->count, payload);
    if (status != QR_OK) {
        return status;
    }
    target->received += job->count;
    while (status == QR_OK && s->n_waiting > 0 && is_next_row(s, &s->waiting[0]) &&
           s->waiting[0].received == s->width) {
        status = add_row(s, &s->waiting[0]);
    }
    if (status == QR_OK && s->n_waiting > 0 && is_next_row(s, &s->waiting[0])) {
        if (s->held > most_held && !s->early) {
            status = begin_early(s);
        }
        if (s->early && status == QR_OK) {
            status = store_finished_pieces(s, &s->waiting[0]);
        }
    }
    return status;
}

qr_status qr_snapshots_flush(qr_snapshots *s)
{
    if (!s->dirty || s->early) {
        return qr_store_check(s->store);
    }
    qr_status status = qr_h5_commit(s->file, s->store, s->path);
    s->dirty = status != QR_OK;
    return status;
}

int64_t qr_snapshots_steps(const qr_snapshots *s, const int64_t **steps)
{
    *steps = s->steps;
    return (int64_t)s->n_steps;
}

qr_status qr_snapshots_close(qr_snapshots *s, int64_t *bytes)
{
    if (s == NULL) {
        return QR_OK;
    }
    qr_status status = qr_store_check(s->store);
    if (s->early) {
        qr_status shortened = set_rows(s, own_rows(s));
        status = status != QR_OK ? status : shortened;
    }
    qr_h5_lock();
    if (H5Fclose(s->file) < 0 && status == QR_OK) {
        status = qr_h5_write_error(s->path);
    }
    s->file = H5I_INVALID_HID;
    qr_h5_unlock();
    status = status != QR_OK ? status : qr_store_commit(s->store);
    if (bytes != NULL) {
        *bytes = (int64_t)qr_store_size(s->store);
    }
    destroy(s);
    return status;
}
