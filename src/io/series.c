#include "io/series.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/results.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows gathered before HDF5 is called; rows of a chunk; bytes of a chunk of tallies. */
enum { GATHERED = 1024, CHUNK_ROWS = 4096, TALLY_CHUNK_BYTES = 1 << 19 };

struct qr_series {
    char *path;
    qr_store *store;
    hid_t file;
    hid_t step, tally, winner, leader, decided;
    hsize_t n_options;
    int64_t rows; /* handed to HDF5 */
    int64_t gathered;
    bool dirty; /* rows wait for a commit */
    int64_t *steps, *winners, *leaders;
    uint64_t *tallies;
    uint8_t *decisions;
};

static qr_status make_datasets(qr_series *series)
{
    hid_t group = H5Gcreate2(series->file, "series", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t tally_rows = TALLY_CHUNK_BYTES / (series->n_options * sizeof(uint64_t));
    tally_rows = tally_rows > CHUNK_ROWS ? CHUNK_ROWS : tally_rows;
    /* No filter: the last chunk is written again and again, see io/store.h. */
    qr_h5_column column = {.stored_type = H5T_STD_I64LE, .chunk_rows = CHUNK_ROWS};
    column.name = "step";
    series->step = qr_h5_make_column(group, &column);
    column.name = "winner";
    series->winner = qr_h5_make_column(group, &column);
    column.name = "leader";
    series->leader = qr_h5_make_column(group, &column);
    column.name = "decided";
    column.stored_type = H5T_STD_U8LE;
    series->decided = qr_h5_make_column(group, &column);
    column = (qr_h5_column){.name = "tally",
                            .stored_type = H5T_STD_U64LE,
                            .columns = series->n_options,
                            .chunk_rows = tally_rows,
                            .chunk_columns = series->n_options};
    series->tally = qr_h5_make_column(group, &column);
    bool done =
        series->step >= 0 && series->winner >= 0 && series->leader >= 0 && series->decided >= 0 && series->tally >= 0;
    done = done && qr_h5_describe(series->step, "step", "step at whose end the votes were counted") &&
           qr_h5_describe(series->tally, "agents", "votes for each option") &&
           qr_h5_describe(series->winner, "option", "option with most votes, the lowest index on ties") &&
           qr_h5_describe(series->leader, "agent", "agent with the highest score; -1: none") &&
           qr_h5_describe(series->decided, "1", "1 from the step on at which the quorum has held, else 0");
    H5Gclose(group);
    return done ? QR_OK : qr_h5_error(QR_INTERNAL, series->path, "cannot be made");
}

static qr_status make_buffers(qr_series *series)
{
    const char *what = "the series";
    qr_status status = qr_allocate(GATHERED, sizeof(int64_t), what, (void **)&series->steps);
    status = status != QR_OK ? status : qr_allocate(GATHERED, sizeof(int64_t), what, (void **)&series->winners);
    status = status != QR_OK ? status : qr_allocate(GATHERED, sizeof(int64_t), what, (void **)&series->leaders);
    status = status != QR_OK ? status : qr_allocate(GATHERED, 1, what, (void **)&series->decisions);
    return status != QR_OK
               ? status
               : qr_allocate(GATHERED * (size_t)series->n_options, sizeof(uint64_t), what, (void **)&series->tallies);
}

static void destroy(qr_series *series)
{
    if (series->file >= 0) {
        qr_h5_lock();
        H5Fclose(series->file);
        qr_h5_unlock();
    }
    qr_store_close(series->store);
    free(series->steps);
    free(series->winners);
    free(series->leaders);
    free(series->tallies);
    free(series->decisions);
    free(series->path);
    free(series);
}

static qr_status make_file(qr_series *series, const qr_io_config *config)
{
    qr_status status = qr_h5_create(series->store, series->path, &series->file);
    status = status != QR_OK ? status : make_datasets(series);
    if (status == QR_OK && !qr_describe_run(series->file, config, config->keep_rows_to, config->series_every)) {
        status = qr_h5_error(QR_INTERNAL, series->path, "cannot be made");
    }
    return status;
}

/* Hands the gathered rows to HDF5. */
static qr_status pass_on(qr_series *series)
{
    hsize_t n = (hsize_t)series->gathered;
    hsize_t first = (hsize_t)series->rows;
    if (n == 0) {
        return QR_OK;
    }
    qr_h5_lock();
    bool done = qr_h5_append(series->step, H5T_NATIVE_INT64, 0, first, n, series->steps) &&
                qr_h5_append(series->winner, H5T_NATIVE_INT64, 0, first, n, series->winners) &&
                qr_h5_append(series->leader, H5T_NATIVE_INT64, 0, first, n, series->leaders) &&
                qr_h5_append(series->decided, H5T_NATIVE_UINT8, 0, first, n, series->decisions) &&
                qr_h5_append(series->tally, H5T_NATIVE_UINT64, series->n_options, first, n, series->tallies);
    qr_status status = done ? QR_OK : qr_h5_write_error(series->path);
    qr_h5_unlock();
    if (status != QR_OK) {
        return status;
    }
    series->rows += series->gathered;
    series->gathered = 0;
    series->dirty = true;
    return qr_store_check(series->store);
}

/* --- rows of earlier attempts --- */

typedef struct earlier_rows {
    hid_t file;
    hid_t step, winner, leader, decided, tally;
    hsize_t rows; /* that all of them have */
} earlier_rows;

static hid_t open_column(earlier_rows *e, const char *name, hsize_t columns)
{
    hid_t dataset = H5Dopen2(e->file, name, H5P_DEFAULT);
    hid_t space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    hsize_t dims[2] = {0, columns};
    bool fits = space >= 0 && H5Sget_simple_extent_ndims(space) == (columns == 0 ? 1 : 2) &&
                H5Sget_simple_extent_dims(space, dims, NULL) >= 0 && dims[1] == columns;
    H5Sclose(space);
    if (!fits) {
        H5Dclose(dataset);
        return H5I_INVALID_HID;
    }
    e->rows = dims[0] < e->rows ? dims[0] : e->rows;
    return dataset;
}

static bool open_columns(earlier_rows *e, hsize_t n_options)
{
    e->rows = HSIZE_UNDEF;
    e->step = open_column(e, "series/step", 0);
    e->winner = open_column(e, "series/winner", 0);
    e->leader = open_column(e, "series/leader", 0);
    e->decided = open_column(e, "series/decided", 0);
    e->tally = open_column(e, "series/tally", n_options);
    return e->step >= 0 && e->winner >= 0 && e->leader >= 0 && e->decided >= 0 && e->tally >= 0;
}

static bool read_column(hid_t dataset, hid_t type, hsize_t columns, hsize_t first, hsize_t n, void *out)
{
    hsize_t start[2] = {first, 0};
    hsize_t count[2] = {n, columns};
    hid_t there = H5Dget_space(dataset);
    hid_t here = H5Screate_simple(columns == 0 ? 1 : 2, count, NULL);
    bool done = H5Sselect_hyperslab(there, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dread(dataset, type, here, there, H5P_DEFAULT, out) >= 0;
    H5Sclose(here);
    H5Sclose(there);
    return done;
}

static bool row_is_sound(const qr_series *series, const qr_io_config *config, int64_t i, int64_t last_step)
{
    uint64_t votes = 0;
    for (hsize_t k = 0; k < series->n_options; k++) {
        votes += series->tallies[(hsize_t)i * series->n_options + k];
    }
    return votes == (uint64_t)config->n_agents && series->steps[i] > last_step;
}

/* Fills the buffers with the next rows; *ended after the last one that stays. False: damaged; what is sound before that
 * is taken. */
static bool gather_earlier(qr_series *series, const earlier_rows *e, const qr_io_config *config, hsize_t at,
                           int64_t *last_step, bool *ended)
{
    hsize_t n = e->rows - at < GATHERED ? e->rows - at : GATHERED;
    qr_h5_lock();
    bool sound = read_column(e->step, H5T_NATIVE_INT64, 0, at, n, series->steps) &&
                 read_column(e->winner, H5T_NATIVE_INT64, 0, at, n, series->winners) &&
                 read_column(e->leader, H5T_NATIVE_INT64, 0, at, n, series->leaders) &&
                 read_column(e->decided, H5T_NATIVE_UINT8, 0, at, n, series->decisions) &&
                 read_column(e->tally, H5T_NATIVE_UINT64, series->n_options, at, n, series->tallies);
    qr_h5_unlock();
    int64_t i = 0;
    while (sound && i < (int64_t)n && series->steps[i] <= config->keep_rows_to) {
        sound = row_is_sound(series, config, i, *last_step);
        if (sound) {
            *last_step = series->steps[i++];
        }
    }
    series->gathered = i;
    *ended = i < (int64_t)n;
    return sound;
}

/* Why not all rows that were written up to the checkpoint are there: NULL when they are. */
static const char *find_gap(const earlier_rows *e, const qr_io_config *config, int64_t last_step)
{
    int64_t every = 0;
    int64_t began = -1;
    qr_h5_lock();
    bool known = qr_h5_get_int(e->file, "every", &every) && qr_h5_get_int(e->file, "begins_after", &began);
    qr_h5_unlock();
    if (!known || every < 1) {
        return NULL;
    }
    int64_t wanted = config->keep_rows_to - config->keep_rows_to % every;
    return wanted > began && wanted > last_step ? "its last rows are missing" : NULL;
}

/* Copies what stays. *why: what is missing of it, NULL for nothing; *damaged: the old file is to be set aside. */
static qr_status copy_rows(qr_series *series, earlier_rows *e, const qr_io_config *config, const char **why,
                           bool *damaged)
{
    int64_t last_step = -1;
    qr_status status = QR_OK;
    qr_h5_lock();
    bool sound = open_columns(e, series->n_options);
    qr_h5_unlock();
    bool ended = !sound;
    for (hsize_t at = 0; at < e->rows && sound && !ended && status == QR_OK; at += GATHERED) {
        sound = gather_earlier(series, e, config, at, &last_step, &ended);
        status = pass_on(series);
    }
    *damaged = !sound;
    *why = !sound ? "it is damaged" : find_gap(e, config, last_step);
    return status;
}

static void close_rows(earlier_rows *e)
{
    const hid_t datasets[] = {e->step, e->winner, e->leader, e->decided, e->tally};
    qr_h5_lock();
    for (size_t i = 0; i < sizeof datasets / sizeof datasets[0]; i++) {
        if (datasets[i] >= 0) {
            H5Dclose(datasets[i]);
        }
    }
    if (e->file >= 0) {
        H5Fclose(e->file);
    }
    qr_h5_unlock();
}

static bool is_of_this_run(hid_t file, const qr_io_config *config)
{
    char *run_id = NULL;
    bool same = qr_h5_get_text(file, "run_id", &run_id) && strcmp(run_id, config->run_id) == 0;
    free(run_id);
    return same;
}

/* What is missing or damaged is no reason to stop: the run goes on, and says so. */
static qr_status take_earlier_rows(qr_series *series, const qr_io_config *config)
{
    const char *why = NULL;
    bool damaged = false;
    earlier_rows e = {.file = H5I_INVALID_HID,
                      .step = H5I_INVALID_HID,
                      .winner = H5I_INVALID_HID,
                      .leader = H5I_INVALID_HID,
                      .decided = H5I_INVALID_HID,
                      .tally = H5I_INVALID_HID};
    bool there = access(series->path, F_OK) == 0;
    qr_status status = QR_OK;
    qr_h5_lock();
    bool opened = there && qr_h5_open(series->path, &e.file) == QR_OK;
    bool ours = opened && is_of_this_run(e.file, config);
    qr_h5_unlock();
    if (ours) {
        status = copy_rows(series, &e, config, &why, &damaged);
    } else {
        damaged = there && !opened;
        why = !there ? "it is missing" : !opened ? "it is damaged" : "it was of another run";
    }
    close_rows(&e);
    if (why != NULL && status == QR_OK) {
        qr_warning("%s: the rows up to step %lld are not all there, as %s; the run goes on", series->path,
                   (long long)config->resume_step, why);
    }
    return status == QR_OK && damaged ? qr_set_aside(config->directory, QR_SERIES_FILE) : status;
}

qr_status qr_series_create(const qr_io_config *config, qr_series **out)
{
    qr_series *series = NULL;
    qr_status status = qr_allocate(1, sizeof *series, "the series", (void **)&series);
    if (status != QR_OK) {
        return status;
    }
    series->file = series->step = series->tally = series->winner = series->leader = series->decided = H5I_INVALID_HID;
    series->n_options = (hsize_t)config->n_options;
    status = make_buffers(series);
    status = status != QR_OK ? status : qr_path_join(config->directory, QR_SERIES_FILE, &series->path);
    status = status != QR_OK ? status : qr_store_create(config->directory, QR_SERIES_FILE, &series->store);
    if (status == QR_OK) {
        qr_h5_lock();
        status = make_file(series, config);
        qr_h5_unlock();
    }
    if (status == QR_OK && config->attempt > 0) {
        status = take_earlier_rows(series, config);
        (void)qr_fault("results.series", config->directory);
    }
    status = status != QR_OK ? status : qr_h5_commit(series->file, series->store, series->path);
    if (status != QR_OK) {
        destroy(series);
        return status;
    }
    *out = series;
    return QR_OK;
}

qr_status qr_series_append(qr_series *series, const qr_job *job, const void *payload)
{
    int64_t stride = qr_series_row_bytes((int64_t)series->n_options);
    if (job->count < 0 || job->count > job->bytes / stride) {
        return qr_error(QR_INTERNAL, "%s: %lld rows do not fit into %lld bytes", series->path, (long long)job->count,
                        (long long)job->bytes);
    }
    const unsigned char *at = payload;
    for (int64_t i = 0; i < job->count; i++, at += stride) {
        qr_series_row row;
        memcpy(&row, at, sizeof row);
        int64_t k = series->gathered;
        series->steps[k] = row.step;
        series->winners[k] = row.winner;
        series->leaders[k] = row.leader;
        series->decisions[k] = row.decided != 0;
        memcpy(series->tallies + (hsize_t)k * series->n_options, at + sizeof row,
               (size_t)series->n_options * sizeof(uint64_t));
        series->gathered++;
        if (series->gathered == GATHERED) {
            qr_status status = pass_on(series);
            if (status != QR_OK) {
                return status;
            }
        }
    }
    return QR_OK;
}

qr_status qr_series_flush(qr_series *series)
{
    qr_status status = pass_on(series);
    if (status == QR_OK && series->dirty) {
        status = qr_h5_commit(series->file, series->store, series->path);
        series->dirty = status != QR_OK;
    }
    return status;
}

qr_status qr_series_close(qr_series *series, int64_t *bytes)
{
    if (series == NULL) {
        return QR_OK;
    }
    qr_status status = pass_on(series);
    qr_h5_lock();
    if (H5Fclose(series->file) < 0 && status == QR_OK) {
        status = qr_h5_write_error(series->path);
    }
    series->file = H5I_INVALID_HID;
    qr_h5_unlock();
    status = status != QR_OK ? status : qr_store_commit(series->store);
    if (bytes != NULL) {
        *bytes = (int64_t)qr_store_size(series->store);
    }
    destroy(series);
    return status;
}
