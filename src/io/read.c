/* HDF5 files that users bring: initial votes, neural weights. */
#include "io/io.h"

#include "base/memory.h"
#include "io/h5.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANK = 32, PIECE = 1 << 18, SHAPE_BYTES = 128 };

typedef struct dataset {
    hid_t id, space;
    int rank;
    hsize_t dims[MOST_RANK];
} dataset;

/* "(3, 4)" */
static void write_shape(int rank, const hsize_t *dims, char out[SHAPE_BYTES])
{
    size_t used = (size_t)snprintf(out, SHAPE_BYTES, "(");
    for (int i = 0; i < rank && used < SHAPE_BYTES - 24; i++) {
        used += (size_t)snprintf(out + used, SHAPE_BYTES - used, "%s%" PRIu64, i == 0 ? "" : ", ", (uint64_t)dims[i]);
    }
    snprintf(out + used, SHAPE_BYTES - used, ")");
}

static void close_dataset(dataset *d)
{
    if (d->space >= 0) {
        H5Sclose(d->space);
    }
    if (d->id >= 0) {
        H5Dclose(d->id);
    }
}

static qr_status open_dataset(hid_t file, const char *path, const char *name, H5T_class_t wanted, dataset *out)
{
    dataset d = {.id = H5I_INVALID_HID, .space = H5I_INVALID_HID};
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) {
        return qr_error(QR_USAGE, "%s: has no dataset /%s", path, name);
    }
    d.id = H5Dopen2(file, name, H5P_DEFAULT);
    if (d.id < 0) {
        return qr_h5_error(QR_DATA, path, "a dataset cannot be opened");
    }
    d.space = H5Dget_space(d.id);
    d.rank = H5Sget_simple_extent_ndims(d.space);
    hid_t type = H5Dget_type(d.id);
    H5T_class_t class = H5Tget_class(type);
    H5Tclose(type);
    qr_status status = QR_OK;
    if (d.rank < 0 || d.rank > MOST_RANK || H5Sget_simple_extent_dims(d.space, d.dims, NULL) < 0) {
        status = qr_error(QR_DATA, "%s: /%s has no shape that can be read", path, name);
    } else if (class != wanted) {
        status = qr_error(QR_USAGE, "%s: /%s does not hold %s", path, name,
                          wanted == H5T_INTEGER ? "integers" : "floating-point numbers");
    }
    if (status != QR_OK) {
        close_dataset(&d);
        return status;
    }
    *out = d;
    return QR_OK;
}

/* Votes [first, first + n) of the last row. */
static qr_status read_piece(const dataset *d, const char *path, hsize_t first, hsize_t n, int64_t *out)
{
    hsize_t start[2] = {d->rank == 2 ? d->dims[0] - 1 : first, first};
    hsize_t count[2] = {d->rank == 2 ? 1 : n, n};
    hid_t here = H5Screate_simple(1, &n, NULL);
    bool done = H5Sselect_hyperslab(d->space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dread(d->id, H5T_NATIVE_INT64, here, d->space, H5P_DEFAULT, out) >= 0;
    H5Sclose(here);
    return done ? QR_OK : qr_h5_error(QR_DATA, path, "/votes cannot be read");
}

static qr_status check_votes_shape(const dataset *d, const char *path, int64_t n_agents)
{
    char shape[SHAPE_BYTES];
    write_shape(d->rank, d->dims, shape);
    if (d->rank < 1 || d->rank > 2 || d->dims[d->rank - 1] != (hsize_t)n_agents) {
        return qr_error(QR_USAGE,
                        "%s: /votes has shape %s; with %" PRId64 " agents it must be (%" PRId64
                        ") or (snapshots, %" PRId64 ")",
                        path, shape, n_agents, n_agents, n_agents);
    }
    if (d->rank == 2 && d->dims[0] == 0) {
        return qr_error(QR_USAGE, "%s: /votes holds no snapshot", path);
    }
    return QR_OK;
}

qr_status qr_io_read_votes(const char *path, int64_t n_agents, int64_t n_options, uint8_t **votes)
{
    hid_t file = H5I_INVALID_HID;
    dataset d = {.id = H5I_INVALID_HID, .space = H5I_INVALID_HID};
    uint8_t *read = NULL;
    int64_t *piece = NULL;
    qr_status status = qr_h5_open(path, &file);
    if (status != QR_OK) {
        return status;
    }
    status = open_dataset(file, path, "votes", H5T_INTEGER, &d);
    status = status != QR_OK ? status : check_votes_shape(&d, path, n_agents);
    if (status == QR_OK && votes != NULL) {
        status = qr_allocate((size_t)n_agents, 1, "initial votes", (void **)&read);
    }
    status = status != QR_OK ? status : qr_allocate(PIECE, sizeof *piece, "initial votes", (void **)&piece);
    for (int64_t first = 0; status == QR_OK && first < n_agents; first += PIECE) {
        int64_t n = n_agents - first < PIECE ? n_agents - first : PIECE;
        status = read_piece(&d, path, (hsize_t)first, (hsize_t)n, piece);
        for (int64_t i = 0; status == QR_OK && i < n; i++) {
            if (piece[i] < 0 || piece[i] >= n_options) {
                status = qr_error(QR_USAGE, "%s: agent %" PRId64 " votes %" PRId64 ", but options are 0 to %" PRId64,
                                  path, first + i, piece[i], n_options - 1);
            } else if (read != NULL) {
                read[first + i] = (uint8_t)piece[i];
            }
        }
    }
    free(piece);
    close_dataset(&d);
    H5Fclose(file);
    if (status != QR_OK) {
        free(read);
        return status;
    }
    if (votes != NULL) {
        *votes = read;
    }
    return QR_OK;
}

static qr_status read_weight(hid_t file, const char *path, const char *name, hsize_t rows, hsize_t columns, float *out)
{
    dataset d = {.id = H5I_INVALID_HID, .space = H5I_INVALID_HID};
    hsize_t wanted[2] = {rows, columns};
    int rank = columns == 0 ? 1 : 2;
    qr_status status = open_dataset(file, path, name, H5T_FLOAT, &d);
    if (status != QR_OK) {
        return status;
    }
    if (d.rank != rank || d.dims[0] != rows || (rank == 2 && d.dims[1] != columns)) {
        char there[SHAPE_BYTES];
        char here[SHAPE_BYTES];
        write_shape(d.rank, d.dims, there);
        write_shape(rank, wanted, here);
        status = qr_error(QR_USAGE, "%s: /%s has shape %s; the deck needs %s", path, name, there, here);
    } else if (H5Dread(d.id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0) {
        status = qr_h5_error(QR_DATA, path, "weights cannot be read");
    }
    close_dataset(&d);
    size_t n = (size_t)(rows * (columns == 0 ? 1 : columns));
    for (size_t i = 0; status == QR_OK && i < n; i++) {
        if (!isfinite(out[i])) {
            status = qr_error(QR_USAGE, "%s: /%s holds %s at position %zu", path, name,
                              isnan(out[i]) ? "a NaN" : "an infinity", i);
        }
    }
    return status;
}

qr_status qr_io_read_weights(const char *path, int64_t n_options, int64_t state_dim, int64_t hidden, float *out)
{
    hsize_t k = (hsize_t)n_options;
    hsize_t d = (hsize_t)state_dim;
    hsize_t h = (hsize_t)hidden;
    const struct {
        const char *name;
        hsize_t rows, columns;
    } parts[] = {{"W1", h, 2 * k + d}, {"b1", h, 0}, {"W2", d, h}, {"b2", d, 0}, {"Wv", k, d}, {"bv", k, 0}};
    hid_t file = H5I_INVALID_HID;
    qr_status status = qr_h5_open(path, &file);
    if (status != QR_OK) {
        return status;
    }
    float *at = out;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == QR_OK; i++) {
        status = read_weight(file, path, parts[i].name, parts[i].rows, parts[i].columns, at);
        at += parts[i].rows * (parts[i].columns == 0 ? 1 : parts[i].columns);
    }
    H5Fclose(file);
    return status;
}
