/* snapshots.h5 where the votes lie in several files. */
#include "base/memory.h"
#include "io/attempts.h"
#include "io/file.h"

#include <stdlib.h>

/* rows: those of earlier attempts, which HDF5 wants to be within the extent. */
static hid_t make_virtual(hid_t file, const char *name, hid_t type, hsize_t rows, hsize_t columns, hid_t how)
{
    hsize_t dims[2] = {rows, columns};
    hsize_t most[2] = {H5S_UNLIMITED, columns};
    hid_t space = H5Screate_simple(columns == 0 ? 1 : 2, dims, most);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
    H5Sclose(space);
    return dataset;
}

/* Rows of one file, and where they are shown. rows < 0: all that there are and will be. */
typedef struct mapping {
    const char *file, *source;
    hsize_t columns; /* of the whole; 0: one dimension */
    hsize_t first, count;
    hsize_t source_row, target_row;
    int64_t rows;
} mapping;

static bool map(hid_t how, const mapping *m)
{
    int rank = m->columns == 0 ? 1 : 2;
    bool grows = m->rows < 0;
    hsize_t rows = grows ? 1 : (hsize_t)m->rows;
    hsize_t target[2] = {grows ? 0 : m->target_row + rows, m->columns};
    hsize_t target_most[2] = {H5S_UNLIMITED, m->columns};
    hsize_t source[2] = {grows ? 0 : m->source_row + rows, m->count};
    hsize_t source_most[2] = {H5S_UNLIMITED, m->count};
    hsize_t target_start[2] = {m->target_row, m->first};
    hsize_t source_start[2] = {m->source_row, 0};
    /* A selection is unlimited in its count, in blocks of one row. */
    hsize_t block[2] = {rows, m->count};
    hsize_t n[2] = {grows ? H5S_UNLIMITED : 1, 1};
    hid_t target_space = H5Screate_simple(rank, target, target_most);
    hid_t source_space = H5Screate_simple(rank, source, source_most);
    bool done = H5Sselect_hyperslab(target_space, H5S_SELECT_SET, target_start, block, n, block) >= 0 &&
                H5Sselect_hyperslab(source_space, H5S_SELECT_SET, source_start, block, n, block) >= 0 &&
                H5Pset_virtual(how, target_space, m->file, m->source, source_space) >= 0;
    H5Sclose(source_space);
    H5Sclose(target_space);
    return done;
}

/* Votes, or with columns 0 the steps, of earlier attempts. */
static bool map_earlier(hid_t how, const qr_attempts *earlier, hsize_t columns)
{
    bool done = true;
    for (size_t i = 0; earlier != NULL && i < earlier->n_pieces && done; i++) {
        const qr_attempts_piece *p = &earlier->pieces[i];
        mapping m = {.file = p->name,
                     .source = columns > 0 ? "/votes" : "/step",
                     .columns = columns,
                     .first = columns > 0 ? (hsize_t)p->first : 0,
                     .count = columns > 0 ? (hsize_t)p->count : 1,
                     .source_row = (hsize_t)p->source_row,
                     .target_row = (hsize_t)p->target_row,
                     .rows = p->rows};
        done = (columns == 0 && p->first > 0) || map(how, &m);
    }
    return done;
}

static bool map_own(hid_t how, const qr_io_config *config, hsize_t columns, hsize_t earlier_rows)
{
    char name[QR_PART_NAME_BYTES];
    bool done = true;
    bool steps_done = false;
    for (int server = 0; server < config->n_servers && done; server++) {
        int64_t first = config->server_starts != NULL ? config->server_starts[server] : 0;
        int64_t end = config->server_starts != NULL ? config->server_starts[server + 1] : config->n_agents;
        if (end == first || steps_done) {
            continue;
        }
        qr_part_name(config->attempt, server, name);
        mapping m = {.file = name,
                     .source = columns > 0 ? "/votes" : "/step",
                     .columns = columns,
                     .first = columns > 0 ? (hsize_t)first : 0,
                     .count = columns > 0 ? (hsize_t)(end - first) : 1,
                     .target_row = earlier_rows,
                     .rows = -1};
        done = map(how, &m);
        steps_done = columns == 0;
    }
    return done;
}

static bool make_joined_datasets(hid_t file, const qr_io_config *config, const qr_attempts *earlier)
{
    hsize_t columns = (hsize_t)config->n_agents;
    hsize_t earlier_rows = earlier != NULL ? (hsize_t)earlier->n_steps : 0;
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    /* Shown where a killed run has fewer snapshots in one part than in another. */
    uint8_t missing = UINT8_MAX;
    bool done = H5Pset_fill_value(how, H5T_NATIVE_UINT8, &missing) >= 0 && map_earlier(how, earlier, columns) &&
                map_own(how, config, columns, earlier_rows);
    hid_t votes = done ? make_virtual(file, "votes", H5T_STD_U8LE, earlier_rows, columns, how) : H5I_INVALID_HID;
    H5Pclose(how);
    how = H5Pcreate(H5P_DATASET_CREATE);
    done = done && map_earlier(how, earlier, 0) && map_own(how, config, 0, earlier_rows);
    hid_t step = done ? make_virtual(file, "step", H5T_STD_I64LE, earlier_rows, 0, how) : H5I_INVALID_HID;
    H5Pclose(how);
    return done && votes >= 0 && step >= 0 &&
           qr_h5_describe(votes, "option", "vote of each agent, by snapshot; 255 where a part has no snapshot") &&
           qr_h5_describe(step, "step", "step at whose end the snapshot was taken");
}

qr_status qr_join_parts(const qr_io_config *config, const qr_attempts *earlier)
{
    char *path = NULL;
    qr_store *store = NULL;
    hid_t file = H5I_INVALID_HID;
    if (config->server_starts == NULL && config->n_servers > 1) {
        return qr_error(QR_INTERNAL, "%s: several servers, and it is not known which agents they serve",
                        config->directory);
    }
    qr_status status = qr_path_join(config->directory, QR_SNAPSHOTS_FILE, &path);
    status = status != QR_OK ? status : qr_store_create(config->directory, QR_SNAPSHOTS_FILE, &store);
    qr_h5_lock();
    status = status != QR_OK ? status : qr_h5_create(store, path, &file);
    if (status == QR_OK && (!make_joined_datasets(file, config, earlier) ||
                            !qr_describe_run(file, config, config->keep_snapshots_to, config->snapshot_every))) {
        status = qr_h5_error(QR_INTERNAL, path, "cannot be made");
    }
    if (file >= 0) {
        H5Fclose(file);
    }
    qr_h5_unlock();
    status = status != QR_OK ? status : qr_store_commit(store);
    qr_store_close(store);
    free(path);
    return status;
}
