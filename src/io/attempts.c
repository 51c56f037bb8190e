#include "io/attempts.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One file of snapshots of an earlier attempt. */
typedef struct part {
    char name[QR_PART_NAME_BYTES];
    int attempt;
    bool sound; /* of this run, and readable */
    int64_t first, count;
    int64_t begins_after, every;
    int64_t rows;
    int64_t *steps; /* [rows] */
} part;

typedef struct listing {
    part *parts;
    size_t n, capacity;
} listing;

/* The files of one attempt. */
typedef struct attempt {
    const part *parts;
    size_t n;
    bool whole;   /* its files hold all agents */
    int64_t rows; /* in all of them, up to the step that counts */
    int64_t begins_after;
    bool taken;
} attempt;

static void clear_listing(listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->parts[i].steps);
    }
    free(l->parts);
}

/* --- reading a part --- */

static bool read_extent(hid_t file, const char *name, int rank, hsize_t dims[2])
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    hid_t how = dataset >= 0 ? H5Dget_create_plist(dataset) : H5I_INVALID_HID;
    bool done = space >= 0 && H5Pget_layout(how) == H5D_CHUNKED && H5Sget_simple_extent_ndims(space) == rank &&
                H5Sget_simple_extent_dims(space, dims, NULL) >= 0;
    H5Pclose(how);
    H5Sclose(space);
    H5Dclose(dataset);
    return done;
}

static bool read_steps(hid_t file, part *p)
{
    hid_t dataset = H5Dopen2(file, "step", H5P_DEFAULT);
    hsize_t rows = (hsize_t)p->rows;
    hsize_t start = 0;
    hid_t here = H5Screate_simple(1, &rows, NULL);
    hid_t there = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    bool done =
        there >= 0 && (rows == 0 || (H5Sselect_hyperslab(there, H5S_SELECT_SET, &start, NULL, &rows, NULL) >= 0 &&
                                     H5Dread(dataset, H5T_NATIVE_INT64, here, there, H5P_DEFAULT, p->steps) >= 0));
    H5Sclose(here);
    H5Sclose(there);
    H5Dclose(dataset);
    for (int64_t i = 1; i < p->rows && done; i++) {
        done = p->steps[i] > p->steps[i - 1];
    }
    return done;
}

/* Of another run: *ours is false. */
static qr_status read_open(const qr_io_config *config, const char *path, hid_t file, part *p, bool *ours)
{
    char *run_id = NULL;
    int64_t agents = 0;
    hsize_t votes[2] = {0, 0};
    hsize_t steps[2] = {0, 0};
    *ours = qr_h5_get_text(file, "run_id", &run_id) && strcmp(run_id, config->run_id) == 0;
    free(run_id);
    if (!*ours) {
        return QR_OK;
    }
    bool sound = qr_h5_get_int(file, "n_agents", &agents) && agents == config->n_agents &&
                 qr_h5_get_int(file, "begins_after", &p->begins_after) && qr_h5_get_int(file, "every", &p->every) &&
                 read_extent(file, "votes", 2, votes) && read_extent(file, "step", 1, steps);
    hid_t dataset = sound ? H5Dopen2(file, "votes", H5P_DEFAULT) : H5I_INVALID_HID;
    sound = sound && qr_h5_get_int(dataset, "first_agent", &p->first);
    H5Dclose(dataset);
    if (!sound || p->first < 0 || votes[1] < 1 || votes[1] > (hsize_t)agents) {
        return qr_error(QR_DATA, "%s: is damaged", path);
    }
    p->count = (int64_t)votes[1];
    p->rows = (int64_t)(votes[0] < steps[0] ? votes[0] : steps[0]);
    qr_status status = qr_allocate((size_t)p->rows, sizeof(int64_t), "snapshots", (void **)&p->steps);
    if (status == QR_OK && !read_steps(file, p)) {
        status = qr_error(QR_DATA, "%s: /step is damaged", path);
    }
    return status;
}

static qr_status read_part(const qr_io_config *config, part *p, bool *ours)
{
    char *path = NULL;
    hid_t file = H5I_INVALID_HID;
    *ours = true; /* as its name says */
    qr_status status = qr_path_join(config->directory, p->name, &path);
    qr_h5_lock();
    status = status != QR_OK ? status : qr_h5_open(path, &file);
    status = status != QR_OK ? status : read_open(config, path, file, p, ours);
    if (file >= 0) {
        H5Fclose(file);
    }
    qr_h5_unlock();
    p->sound = status == QR_OK;
    free(path);
    return status;
}

static void note_lost(qr_attempts *earlier, const char *why)
{
    if (earlier->n_lost++ == 0) {
        snprintf(earlier->lost, sizeof earlier->lost, "%s", why);
    }
}

static int by_attempt_and_agents(const void *left, const void *right)
{
    const part *a = left;
    const part *b = right;
    if (a->attempt != b->attempt) {
        return a->attempt < b->attempt ? -1 : 1;
    }
    return a->first < b->first ? -1 : a->first > b->first;
}

static qr_status list_parts(const qr_io_config *config, listing *out)
{
    DIR *directory = opendir(config->directory);
    const struct dirent *entry = NULL;
    qr_status status = QR_OK;
    if (directory == NULL) {
        return qr_file_error(config->directory, "read", errno);
    }
    while (status == QR_OK && (entry = readdir(directory)) != NULL) {
        part p = {.first = 0};
        int server = 0;
        bool ours = false;
        if (!qr_part_parse(entry->d_name, &p.attempt, &server) || p.attempt >= config->attempt) {
            continue;
        }
        qr_part_name(p.attempt, server, p.name);
        status = qr_grow((void **)&out->parts, &out->capacity, out->n + 1, sizeof p, "snapshots");
        if (status == QR_OK) {
            (void)read_part(config, &p, &ours);
            if (ours) {
                out->parts[out->n++] = p;
            } else {
                free(p.steps);
            }
        }
    }
    closedir(directory);
    if (status == QR_OK && out->n > 1) {
        qsort(out->parts, out->n, sizeof *out->parts, by_attempt_and_agents);
    }
    return status;
}

/* --- a single server's file --- */

/* A second name, which replaces what bore it; where files cannot have two, it loses the first one. */
static qr_status add_name(const char *directory, const char *from, const char *to)
{
    char hidden[QR_PART_NAME_BYTES + 8];
    char *source = NULL;
    char *target = NULL;
    char *temporary = NULL;
    struct stat a;
    struct stat b;
    snprintf(hidden, sizeof hidden, ".%s.tmp", to);
    qr_status status = qr_path_join(directory, from, &source);
    status = status != QR_OK ? status : qr_path_join(directory, to, &target);
    status = status != QR_OK ? status : qr_path_join(directory, hidden, &temporary);
    if (status == QR_OK && !(stat(source, &a) == 0 && stat(target, &b) == 0 && a.st_ino == b.st_ino)) {
        (void)unlink(temporary);
        const char *named = link(source, temporary) == 0 ? temporary : source;
        if (rename(named, target) != 0) {
            status = qr_file_error(target, "made", errno);
        }
    }
    status = status != QR_OK ? status : qr_directory_sync(directory);
    free(source);
    free(target);
    free(temporary);
    return status;
}

/* Whether snapshots.h5 is there, of this run, and holds votes itself; and of which attempt it is. *damaged: it is there
 * and cannot be opened. */
static bool holds_votes(const qr_io_config *config, int *attempt_number, bool *damaged)
{
    char *path = NULL;
    hid_t file = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 0};
    char *run_id = NULL;
    int64_t number = 0;
    bool answer = qr_path_join(config->directory, QR_SNAPSHOTS_FILE, &path) == QR_OK && access(path, F_OK) == 0;
    qr_h5_lock();
    *damaged = answer && qr_h5_open(path, &file) != QR_OK;
    answer = answer && !*damaged && qr_h5_get_text(file, "run_id", &run_id) && strcmp(run_id, config->run_id) == 0 &&
             qr_h5_get_int(file, "attempt", &number) && number >= 0 && number < config->attempt &&
             read_extent(file, "votes", 2, dims);
    if (file >= 0) {
        H5Fclose(file);
    }
    qr_h5_unlock();
    free(run_id);
    free(path);
    *attempt_number = (int)number;
    return answer;
}

/* --- what stays --- */

static int64_t rows_up_to(const part *p, int64_t step)
{
    int64_t n = 0;
    while (n < p->rows && p->steps[n] <= step) {
        n++;
    }
    bool due = n == 0 || p->every < 1 || p->steps[n - 1] % p->every == 0 || p->steps[n - 1] == step;
    return due ? n : n - 1;
}

static attempt gather(const qr_io_config *config, const listing *l, size_t at)
{
    attempt a = {.parts = &l->parts[at], .whole = true, .rows = INT64_MAX};
    int64_t next = 0;
    for (size_t i = at; i < l->n && l->parts[i].attempt == a.parts->attempt; i++, a.n++) {
        const part *p = &l->parts[i];
        a.whole = a.whole && p->sound && p->first == next;
        next = p->first + p->count;
        int64_t rows = rows_up_to(p, config->keep_snapshots_to);
        a.rows = rows < a.rows ? rows : a.rows;
    }
    a.whole = a.whole && next == config->n_agents;
    a.begins_after = a.parts->begins_after;
    return a;
}

/* Rows of this attempt that are not taken yet. */
static qr_status take(qr_attempts *earlier, attempt *a)
{
    const int64_t *steps = a->parts->steps;
    int64_t skipped = 0;
    while (skipped < a->rows && earlier->n_steps > 0 && steps[skipped] <= earlier->steps[earlier->n_steps - 1]) {
        skipped++;
    }
    int64_t rows = a->rows - skipped;
    qr_status status = qr_grow((void **)&earlier->steps, &earlier->steps_capacity, earlier->n_steps + (size_t)rows,
                               sizeof(int64_t), "snapshots");
    for (size_t i = 0; i < a->n && status == QR_OK; i++) {
        status = qr_grow((void **)&earlier->pieces, &earlier->pieces_capacity, earlier->n_pieces + 1,
                         sizeof *earlier->pieces, "snapshots");
        if (status == QR_OK) {
            qr_attempts_piece *piece = &earlier->pieces[earlier->n_pieces++];
            *piece = (qr_attempts_piece){.first = a->parts[i].first,
                                         .count = a->parts[i].count,
                                         .source_row = skipped,
                                         .target_row = (int64_t)earlier->n_steps,
                                         .rows = rows};
            memcpy(piece->name, a->parts[i].name, sizeof piece->name);
        }
    }
    if (status == QR_OK && rows > 0) {
        memcpy(earlier->steps + earlier->n_steps, steps + skipped, (size_t)rows * sizeof *steps);
        earlier->n_steps += (size_t)rows;
    }
    return status;
}

/* The next attempt to take rows from: of those that begin within what is there already the one that leads farthest,
 * otherwise the one that begins first. All attempts took the same steps, so it does not matter whose rows are shown. */
static attempt *choose(attempt *attempts, size_t n, int64_t reached)
{
    attempt *best = NULL;
    for (size_t i = 0; i < n; i++) {
        attempt *a = &attempts[i];
        int64_t last = a->whole && a->rows > 0 ? a->parts->steps[a->rows - 1] : -1;
        if (a->taken || last <= reached) {
            continue;
        }
        int64_t best_last = best != NULL ? best->parts->steps[best->rows - 1] : -1;
        bool joins = a->begins_after <= reached;
        bool best_joins = best != NULL && best->begins_after <= reached;
        bool better = best == NULL || (joins && !best_joins) || (joins && best_joins && last > best_last) ||
                      (!joins && !best_joins && a->begins_after < best->begins_after);
        best = better ? a : best;
    }
    return best;
}

/* Files of whole attempts that no row is taken from, and of attempts that ended before all files had rows. */
static qr_status note_rest(const qr_io_config *config, qr_attempts *earlier, const attempt *a)
{
    bool empty = true;
    for (size_t i = 0; i < a->n; i++) {
        empty = empty && a->parts[i].sound && rows_up_to(&a->parts[i], config->keep_snapshots_to) == 0;
    }
    if (!a->whole && !empty) {
        char why[QR_MESSAGE_BYTES];
        snprintf(why, sizeof why, "%s/%s and its like are damaged or incomplete", config->directory, a->parts->name);
        note_lost(earlier, why);
        return QR_OK;
    }
    qr_status status = QR_OK;
    for (size_t i = 0; i < a->n && status == QR_OK; i++) {
        status = qr_grow((void **)&earlier->stale, &earlier->stale_capacity, earlier->n_stale + 1,
                         sizeof *earlier->stale, "snapshots");
        if (status == QR_OK) {
            memcpy(earlier->stale[earlier->n_stale++], a->parts[i].name, QR_PART_NAME_BYTES);
        }
    }
    return status;
}

static qr_status choose_rows(const qr_io_config *config, const listing *l, qr_attempts *earlier)
{
    attempt *attempts = NULL;
    size_t n = 0;
    qr_status status = qr_allocate(l->n, sizeof *attempts, "snapshots", (void **)&attempts);
    for (size_t at = 0; at < l->n && status == QR_OK; at += attempts[n - 1].n) {
        attempts[n++] = gather(config, l, at);
    }
    attempt *next = NULL;
    while (status == QR_OK &&
           (next = choose(attempts, n, earlier->n_steps > 0 ? earlier->steps[earlier->n_steps - 1] : -1)) != NULL) {
        next->taken = true;
        status = take(earlier, next);
    }
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        status = attempts[i].taken ? QR_OK : note_rest(config, earlier, &attempts[i]);
    }
    free(attempts);
    return status;
}

qr_status qr_attempts_find(const qr_io_config *config, qr_attempts *out)
{
    listing l = {.n = 0};
    int number = 0;
    bool damaged = false;
    qr_status status = QR_OK;
    *out = (qr_attempts){.n_pieces = 0};
    if (holds_votes(config, &number, &damaged)) {
        char name[QR_PART_NAME_BYTES];
        qr_part_name(number, 0, name);
        status = add_name(config->directory, QR_SNAPSHOTS_FILE, name);
    } else if (damaged) {
        note_lost(out, qr_error_message());
        status = qr_set_aside(config->directory, QR_SNAPSHOTS_FILE);
    }
    (void)qr_fault("results.part", config->directory);
    status = status != QR_OK ? status : list_parts(config, &l);
    status = status != QR_OK ? status : choose_rows(config, &l, out);
    if (status == QR_OK && out->n_steps == 0 && out->n_lost == 0 && config->resume_snapshots > 1) {
        char why[QR_MESSAGE_BYTES];
        snprintf(why, sizeof why, "%s: holds none of them", config->directory);
        note_lost(out, why);
    }
    clear_listing(&l);
    if (status != QR_OK) {
        qr_attempts_clear(out);
    }
    return status;
}

void qr_attempts_clear(qr_attempts *earlier)
{
    free(earlier->pieces);
    free(earlier->steps);
    free(earlier->stale);
    *earlier = (qr_attempts){.n_pieces = 0};
}

qr_status qr_attempts_remove_stale(const qr_io_config *config, const qr_attempts *earlier)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < earlier->n_stale && status == QR_OK; i++) {
        char *path = NULL;
        status = qr_path_join(config->directory, earlier->stale[i], &path);
        if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
            status = qr_file_error(path, "removed", errno);
        }
        free(path);
    }
    return status;
}
