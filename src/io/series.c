#include "io/series.h"

#include "base/memory.h"
#include "io/file.h"
#include "io/results.h"

#include <stdlib.h>
#include <string.h>

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
    if (status == QR_OK && !qr_describe_run(series->file, config)) {
        status = qr_h5_error(QR_INTERNAL, series->path, "cannot be made");
    }
    return status;
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
    status = status != QR_OK ? status : qr_h5_commit(series->file, series->store, series->path);
    if (status != QR_OK) {
        destroy(series);
        return status;
    }
    *out = series;
    return QR_OK;
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
