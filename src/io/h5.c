#include "io/h5.h"

#include "io/h5_driver.h"
#include "io/io.h"
#include "io/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library has an error stack for each thread. */
static void silence(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void qr_h5_lock(void)
{
    (void)pthread_mutex_lock(&lock);
    silence();
}

void qr_h5_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* Walked from the innermost call outwards; the first entry is the cause. */
static herr_t keep_cause(unsigned n, const H5E_error2_t *entry, void *context)
{
    if (n == 0 && entry->desc != NULL) {
        snprintf(context, QR_MESSAGE_BYTES / 4, "%s", entry->desc);
    }
    return 0;
}

const char *qr_h5_cause(void)
{
    static _Thread_local char cause[QR_MESSAGE_BYTES / 4];
    cause[0] = '\0';
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_cause, cause);
    return cause;
}

qr_status qr_h5_error(qr_status status, const char *path, const char *what)
{
    const char *cause = qr_h5_cause();
    return qr_error(status, "%s: %s%s%s", path, what, cause[0] == '\0' ? "" : ": ", cause);
}

static atomic_bool broken;

bool qr_io_must_exit_fast(void)
{
    return atomic_load(&broken) || qr_threads_left_behind();
}

qr_status qr_h5_write_error(const char *path)
{
    atomic_store(&broken, true);
    return qr_h5_error(QR_DATA, path, "cannot be written");
}

qr_status qr_h5_create(qr_store *store, const char *path, hid_t *file)
{
    silence();
    hid_t access = qr_h5_access(store);
    hid_t made = access < 0 ? H5I_INVALID_HID : H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (access >= 0) {
        H5Pclose(access);
    }
    if (made < 0) {
        return qr_h5_error(QR_INTERNAL, path, "cannot be made");
    }
    *file = made;
    return QR_OK;
}

qr_status qr_h5_open(const char *path, hid_t *file)
{
    silence();
    /* The system's causes (missing, a directory, no right) are better told by the system than by HDF5. */
    qr_store *store = NULL;
    qr_status status = qr_store_open(path, &store);
    if (status != QR_OK) {
        return status;
    }
    uint64_t size = qr_store_size(store);
    qr_store_close(store);
    if (size == 0) {
        return qr_error(QR_DATA, "%s: the file is empty", path);
    }
    hid_t access = qr_h5_access(NULL);
    hid_t opened = access < 0 ? H5I_INVALID_HID : H5Fopen(path, H5F_ACC_RDONLY, access);
    if (access >= 0) {
        H5Pclose(access);
    }
    if (opened < 0) {
        return qr_h5_error(QR_DATA, path, "not an HDF5 file, or a damaged one");
    }
    *file = opened;
    return QR_OK;
}

qr_status qr_h5_commit(hid_t file, qr_store *store, const char *path)
{
    qr_h5_lock();
    qr_status status = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? qr_h5_write_error(path) : QR_OK;
    qr_h5_unlock();
    return status != QR_OK ? status : qr_store_commit(store);
}

bool qr_h5_set_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    hid_t space = H5Screate(H5S_SCALAR);
    bool done = H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    done = done && attribute >= 0 && H5Awrite(attribute, type, &text) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return done;
}

bool qr_h5_set_int(hid_t object, const char *name, int64_t value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool done = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    return done;
}

bool qr_h5_get_text(hid_t object, const char *name, char **text)
{
    if (H5Aexists(object, name) <= 0) {
        return false;
    }
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t stored = H5Aget_type(attribute);
    hid_t space = H5Aget_space(attribute);
    hid_t type = H5Tcopy(H5T_C_S1);
    char *read = NULL;
    bool done = H5Tis_variable_str(stored) > 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5Tget_cset(stored)) >= 0 &&
                H5Aread(attribute, type, &read) >= 0;
    if (done) {
        *text = strdup(read == NULL ? "" : read);
        done = *text != NULL;
        H5free_memory(read);
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Tclose(stored);
    H5Aclose(attribute);
    return done;
}

bool qr_h5_get_int(hid_t object, const char *name, int64_t *value)
{
    if (H5Aexists(object, name) <= 0) {
        return false;
    }
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute);
    int64_t read = 0;
    bool done = H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_INT64, &read) >= 0;
    if (done) {
        *value = read;
    }
    H5Sclose(space);
    H5Aclose(attribute);
    return done;
}

bool qr_h5_describe(hid_t dataset, const char *unit, const char *meaning)
{
    return qr_h5_set_text(dataset, "unit", unit) && qr_h5_set_text(dataset, "meaning", meaning);
}

hid_t qr_h5_make_column(hid_t group, const qr_h5_column *column)
{
    int rank = column->columns == 0 ? 1 : 2;
    hsize_t dims[2] = {0, column->columns};
    hsize_t most[2] = {H5S_UNLIMITED, column->columns};
    hsize_t chunk[2] = {column->chunk_rows, column->chunk_columns};
    hid_t space = H5Screate_simple(rank, dims, most);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    hid_t dataset = H5I_INVALID_HID;
    /* Times would change object headers at each write. */
    if (H5Pset_chunk(how, rank, chunk) >= 0 && H5Pset_obj_track_times(how, false) >= 0 &&
        (column->deflate == 0 || H5Pset_deflate(how, column->deflate) >= 0)) {
        dataset = H5Dcreate2(group, column->name, column->stored_type, space, H5P_DEFAULT, how, H5P_DEFAULT);
    }
    H5Pclose(how);
    H5Sclose(space);
    return dataset;
}

bool qr_h5_set_rows(hid_t dataset, hsize_t columns, hsize_t rows)
{
    hsize_t dims[2] = {rows, columns};
    return H5Dset_extent(dataset, dims) >= 0;
}

bool qr_h5_append(hid_t dataset, hid_t type, hsize_t columns, hsize_t first, hsize_t rows, const void *data)
{
    int rank = columns == 0 ? 1 : 2;
    hsize_t start[2] = {first, 0};
    hsize_t count[2] = {rows, columns};
    if (!qr_h5_set_rows(dataset, columns, first + rows)) {
        return false;
    }
    hid_t there = H5Dget_space(dataset);
    hid_t here = H5Screate_simple(rank, count, NULL);
    bool done = H5Sselect_hyperslab(there, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dwrite(dataset, type, here, there, H5P_DEFAULT, data) >= 0;
    H5Sclose(here);
    H5Sclose(there);
    return done;
}
