#include "io/results.h"

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

/* What a run leaves, the parts of the snapshots aside. */
static const char *const result_names[] = {QR_SERIES_FILE, QR_SNAPSHOTS_FILE, QR_XDMF_FILE,
                                           "summary.json", "metrics.jsonl",   "used.yml"};
enum { N_RESULT_NAMES = sizeof result_names / sizeof result_names[0] };

void qr_part_name(int server, char out[QR_PART_NAME_BYTES])
{
    snprintf(out, QR_PART_NAME_BYTES, "snapshots.part%03d.h5", server);
}

/* The number of a part's name; -1 for any other name. */
static int part_number(const char *name)
{
    static const char head[] = "snapshots.part";
    char again[QR_PART_NAME_BYTES];
    if (strncmp(name, head, sizeof head - 1) != 0) {
        return -1;
    }
    long server = strtol(name + sizeof head - 1, NULL, 10);
    if (server < 0 || server > INT_MAX) {
        return -1;
    }
    qr_part_name((int)server, again);
    return strcmp(name, again) == 0 ? (int)server : -1;
}

bool qr_describe_run(hid_t file, const qr_io_config *config)
{
    return qr_h5_set_text(file, "title", config->title != NULL ? config->title : "") &&
           qr_h5_set_text(file, "deck", config->deck_text != NULL ? config->deck_text : "") &&
           qr_h5_set_text(file, "version", config->version != NULL ? config->version : "") &&
           qr_h5_set_text(file, "precision", config->fast ? "fast" : "exact") &&
           qr_h5_set_int(file, "n_agents", config->n_agents) && qr_h5_set_int(file, "n_options", config->n_options);
}

/* A directory that is there: whether a run may write its results into it. */
static qr_status check_directory(const char *directory, bool overwrite)
{
    qr_status status = QR_OK;
    struct stat info;
    if (stat(directory, &info) != 0) {
        return qr_error(QR_ENVIRONMENT, "%s: cannot be used for results: %s", directory, strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        return qr_error(QR_ENVIRONMENT, "%s: cannot be used for results: it is not a directory", directory);
    }
    if (access(directory, W_OK | X_OK) != 0) {
        return qr_error(QR_ENVIRONMENT, "%s: results cannot be written here: %s", directory, strerror(errno));
    }
    DIR *listing = opendir(directory);
    if (listing == NULL) {
        return qr_error(QR_ENVIRONMENT, "%s: cannot be used for results: %s", directory, strerror(errno));
    }
    const struct dirent *entry = NULL;
    while (!overwrite && status == QR_OK && (entry = readdir(listing)) != NULL) {
        bool known = part_number(entry->d_name) >= 0;
        for (size_t i = 0; i < N_RESULT_NAMES && !known; i++) {
            known = strcmp(entry->d_name, result_names[i]) == 0;
        }
        if (known) {
            status = qr_error(QR_ENVIRONMENT,
                              "%s: holds results of an earlier run (%s); choose another output.directory, or replace "
                              "them with output.overwrite: true",
                              directory, entry->d_name);
        }
    }
    closedir(listing);
    return status;
}

static qr_status check_name(const char *directory)
{
    return directory == NULL || directory[0] == '\0' ? qr_error(QR_ENVIRONMENT, "output.directory is empty") : QR_OK;
}

qr_status qr_io_check_directory(const char *directory, bool overwrite)
{
    qr_status status = check_name(directory);
    status = status != QR_OK ? status : qr_directories_make(directory, "results");
    return status != QR_OK ? status : check_directory(directory, overwrite);
}

/* Cuts the last part off a path; "." is what is left of a plain name. */
static void cut_last_part(char *path)
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    if (n == 0) {
        path[n++] = '.';
    }
    path[n] = '\0';
}

/* Whether mkdir -p would get from the nearest parent that is there to the directory, which is not: so lstat said, and
 * of a parent that is no directory it would have said that. */
static qr_status probe_parents(const char *directory)
{
    struct stat info;
    char *path = strdup(directory);
    if (path == NULL) {
        return qr_error_memory(strlen(directory), "a path");
    }
    do {
        cut_last_part(path);
        errno = 0;
    } while (stat(path, &info) != 0 && errno == ENOENT && strcmp(path, ".") != 0);
    bool usable = errno == 0 && access(path, W_OK | X_OK) == 0;
    int error = errno;
    free(path);
    return usable
               ? QR_OK
               : qr_error(QR_ENVIRONMENT, "%s: the results directory cannot be made: %s", directory, strerror(error));
}

qr_status qr_io_probe_directory(const char *directory, bool overwrite)
{
    struct stat info;
    qr_status status = check_name(directory);
    if (status != QR_OK) {
        return status;
    }
    if (lstat(directory, &info) == 0) { /* or a link to nothing, which cannot be made into a directory */
        return check_directory(directory, overwrite);
    }
    return errno == ENOENT
               ? probe_parents(directory)
               : qr_error(QR_ENVIRONMENT, "%s: the results directory cannot be made: %s", directory, strerror(errno));
}

static qr_status remove_file(const char *directory, const char *name)
{
    char *path = NULL;
    qr_status status = qr_path_join(directory, name, &path);
    if (status == QR_OK && unlink(path) != 0 && errno != ENOENT) {
        status = qr_file_error(path, "removed", errno);
    }
    free(path);
    return status;
}

qr_status qr_clear_results(const char *directory, int n_servers)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < N_RESULT_NAMES && status == QR_OK; i++) {
        status = remove_file(directory, result_names[i]);
    }
    DIR *listing = status == QR_OK ? opendir(directory) : NULL;
    if (status == QR_OK && listing == NULL) {
        return qr_file_error(directory, "read", errno);
    }
    const struct dirent *entry = NULL;
    while (status == QR_OK && (entry = readdir(listing)) != NULL) {
        int part = part_number(entry->d_name);
        if (part >= (n_servers > 1 ? n_servers : 0)) {
            status = remove_file(directory, entry->d_name);
        }
    }
    if (listing != NULL) {
        closedir(listing);
    }
    return status;
}

/* --- the joining file --- */

static hid_t make_virtual(hid_t file, const char *name, hid_t type, hsize_t columns, hid_t how)
{
    hsize_t dims[2] = {0, columns};
    hsize_t most[2] = {H5S_UNLIMITED, columns};
    hid_t space = H5Screate_simple(columns == 0 ? 1 : 2, dims, most);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
    H5Sclose(space);
    return dataset;
}

/* All rows of columns [first, first + count) come from `source` in the part's file. */
static bool map_part(hid_t how, const char *file, const char *source, hsize_t columns, hsize_t first, hsize_t count)
{
    int rank = columns == 0 ? 1 : 2;
    hsize_t target[2] = {0, columns};
    hsize_t target_most[2] = {H5S_UNLIMITED, columns};
    hsize_t source_dims[2] = {0, count};
    hsize_t source_most[2] = {H5S_UNLIMITED, count};
    hsize_t start[2] = {0, first};
    hsize_t zero[2] = {0, 0};
    /* A selection is unlimited in its count, in blocks of one row. */
    hsize_t block[2] = {1, count};
    hsize_t n[2] = {H5S_UNLIMITED, 1};
    hid_t target_space = H5Screate_simple(rank, target, target_most);
    hid_t source_space = H5Screate_simple(rank, source_dims, source_most);
    bool done = H5Sselect_hyperslab(target_space, H5S_SELECT_SET, start, block, n, block) >= 0 &&
                H5Sselect_hyperslab(source_space, H5S_SELECT_SET, zero, block, n, block) >= 0 &&
                H5Pset_virtual(how, target_space, file, source, source_space) >= 0;
    H5Sclose(source_space);
    H5Sclose(target_space);
    return done;
}

static bool make_joined_datasets(hid_t file, const qr_io_config *config)
{
    char name[QR_PART_NAME_BYTES];
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    /* Shown where a killed run has fewer snapshots in one part than in another. */
    uint8_t missing = UINT8_MAX;
    bool done = H5Pset_fill_value(how, H5T_NATIVE_UINT8, &missing) >= 0;
    for (int server = 0; server < config->n_servers && done; server++) {
        hsize_t first = (hsize_t)config->server_starts[server];
        hsize_t count = (hsize_t)config->server_starts[server + 1] - first;
        qr_part_name(server, name);
        done = count == 0 || map_part(how, name, "/votes", (hsize_t)config->n_agents, first, count);
    }
    hid_t votes = done ? make_virtual(file, "votes", H5T_STD_U8LE, (hsize_t)config->n_agents, how) : H5I_INVALID_HID;
    H5Pclose(how);
    how = H5Pcreate(H5P_DATASET_CREATE);
    qr_part_name(0, name);
    done = done && map_part(how, name, "/step", 0, 0, 1);
    hid_t step = done ? make_virtual(file, "step", H5T_STD_I64LE, 0, how) : H5I_INVALID_HID;
    H5Pclose(how);
    return done && votes >= 0 && step >= 0 &&
           qr_h5_describe(votes, "option", "vote of each agent, by snapshot; 255 where a part has no snapshot") &&
           qr_h5_describe(step, "step", "step at whose end the snapshot was taken");
}

qr_status qr_join_parts(const qr_io_config *config)
{
    char *path = NULL;
    qr_store *store = NULL;
    hid_t file = H5I_INVALID_HID;
    if (config->server_starts == NULL) {
        return qr_error(QR_INTERNAL, "%s: several servers, and it is not known which agents they serve",
                        config->directory);
    }
    qr_status status = qr_path_join(config->directory, QR_SNAPSHOTS_FILE, &path);
    status = status != QR_OK ? status : qr_store_create(config->directory, QR_SNAPSHOTS_FILE, &store);
    qr_h5_lock();
    status = status != QR_OK ? status : qr_h5_create(store, path, &file);
    if (status == QR_OK && (!make_joined_datasets(file, config) || !qr_describe_run(file, config))) {
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

/* --- XDMF --- */

static void put_head(FILE *out)
{
    fputs("<?xml version=\"1.0\"?>\n<Xdmf Version=\"3.0\">\n<Domain>\n"
          "<Grid Name=\"snapshots\" GridType=\"Collection\" CollectionType=\"Temporal\">\n",
          out);
}

/* One snapshot: votes on the lattice's sites, z slowest, which is the order of the agents. */
static void put_snapshot(FILE *out, const qr_io_config *config, int64_t step, int64_t row, int64_t n)
{
    bool solid = config->dims == 3;
    char dims[96];
    if (solid) {
        snprintf(dims, sizeof dims, "%lld %lld %lld", (long long)config->size[2], (long long)config->size[1],
                 (long long)config->size[0]);
    } else {
        snprintf(dims, sizeof dims, "%lld %lld", (long long)config->size[1], (long long)config->size[0]);
    }
    const char *zeros = solid ? "0 0 0" : "0 0";
    const char *ones = solid ? "1 1 1" : "1 1";
    fprintf(out, "<Grid Name=\"step %lld\" GridType=\"Uniform\">\n<Time Value=\"%lld\"/>\n", (long long)step,
            (long long)step);
    fprintf(out, "<Topology TopologyType=\"%s\" Dimensions=\"%s\"/>\n", solid ? "3DCoRectMesh" : "2DCoRectMesh", dims);
    fprintf(out, "<Geometry GeometryType=\"%s\">\n", solid ? "ORIGIN_DXDYDZ" : "ORIGIN_DXDY");
    fprintf(out, "<DataItem Dimensions=\"%d\" NumberType=\"Float\" Format=\"XML\">%s</DataItem>\n", config->dims,
            zeros);
    fprintf(out, "<DataItem Dimensions=\"%d\" NumberType=\"Float\" Format=\"XML\">%s</DataItem>\n</Geometry>\n",
            config->dims, ones);
    fprintf(out,
            "<Attribute Name=\"vote\" AttributeType=\"Scalar\" Center=\"Node\">\n"
            "<DataItem ItemType=\"HyperSlab\" Dimensions=\"%s\">\n"
            "<DataItem Dimensions=\"3 2\" Format=\"XML\">%lld 0 1 1 1 %lld</DataItem>\n",
            dims, (long long)row, (long long)config->n_agents);
    fprintf(out,
            "<DataItem Dimensions=\"%lld %lld\" NumberType=\"UChar\" Precision=\"1\" Format=\"HDF\">" QR_SNAPSHOTS_FILE
            ":/votes</DataItem>\n</DataItem>\n</Attribute>\n</Grid>\n",
            (long long)n, (long long)config->n_agents);
}

qr_status qr_write_xdmf(const qr_io_config *config, const int64_t *steps, int64_t n, bool durable)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return qr_error_memory(0, QR_XDMF_FILE);
    }
    put_head(out);
    for (int64_t i = 0; i < n; i++) {
        put_snapshot(out, config, steps[i], i, n);
    }
    fputs("</Grid>\n</Domain>\n</Xdmf>\n", out);
    qr_status status = fclose(out) != 0 ? qr_error_memory(bytes, QR_XDMF_FILE) : QR_OK;
    status = status != QR_OK ? status : qr_file_replace(config->directory, QR_XDMF_FILE, text, bytes, durable);
    free(text);
    return status;
}
