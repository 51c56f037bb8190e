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
static const char *const result_names[] = {QR_SERIES_FILE,  QR_SNAPSHOTS_FILE, QR_XDMF_FILE,
                                           QR_SUMMARY_FILE, QR_METRICS_FILE,   "used.yml"};
enum { N_RESULT_NAMES = sizeof result_names / sizeof result_names[0] };

void qr_part_name(int attempt, int server, char out[QR_PART_NAME_BYTES])
{
    if (attempt == 0) {
        snprintf(out, QR_PART_NAME_BYTES, "snapshots.part%03d.h5", server);
    } else {
        snprintf(out, QR_PART_NAME_BYTES, "snapshots.a%d.part%03d.h5", attempt, server);
    }
}

bool qr_part_parse(const char *name, int *attempt, int *server)
{
    static const char head[] = "snapshots.";
    static const char middle[] = "part";
    const char *at = name + sizeof head - 1;
    char *end = NULL;
    char again[QR_PART_NAME_BYTES];
    long first = 0;
    if (strncmp(name, head, sizeof head - 1) != 0) {
        return false;
    }
    if (*at == 'a') {
        first = strtol(at + 1, &end, 10);
        at = *end == '.' ? end + 1 : end;
    }
    if (strncmp(at, middle, sizeof middle - 1) != 0) {
        return false;
    }
    long second = strtol(at + sizeof middle - 1, NULL, 10);
    if (first < 0 || first > INT_MAX || second < 0 || second > INT_MAX) {
        return false;
    }
    qr_part_name((int)first, (int)second, again);
    *attempt = (int)first;
    *server = (int)second;
    return strcmp(name, again) == 0;
}

bool qr_describe_run(hid_t file, const qr_io_config *config, int64_t begins_after, int64_t every)
{
    return qr_h5_set_text(file, "run_id", config->run_id != NULL ? config->run_id : "") &&
           qr_h5_set_int(file, "attempt", config->attempt) &&
           qr_h5_set_int(file, "begins_after", config->attempt > 0 ? begins_after : -1) &&
           qr_h5_set_int(file, "every", every) &&
           qr_h5_set_text(file, "title", config->title != NULL ? config->title : "") &&
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
        int attempt = 0;
        int server = 0;
        bool known = qr_part_parse(entry->d_name, &attempt, &server);
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
    struct stat info;
    qr_status status = check_name(directory);
    if (status == QR_OK && lstat(directory, &info) != 0) { /* what is there is looked at, a link to nothing too */
        status = qr_directories_make(directory, "results");
    }
    return status != QR_OK ? status : check_directory(directory, overwrite);
}

/* Highest attempt in the names of parts, and 0. */
static qr_status find_highest_attempt(const char *directory, int *out)
{
    DIR *listing = opendir(directory);
    const struct dirent *entry = NULL;
    if (listing == NULL) {
        return qr_file_error(directory, "read", errno);
    }
    *out = 0;
    while ((entry = readdir(listing)) != NULL) {
        int attempt = 0;
        int server = 0;
        if (qr_part_parse(entry->d_name, &attempt, &server) && attempt > *out) {
            *out = attempt;
        }
    }
    closedir(listing);
    return QR_OK;
}

/* A root attribute of series.h5; NULL when there is none, or no file that can be opened. */
static char *read_attribute_of_series(const char *directory, const char *attribute)
{
    char *path = NULL;
    char *text = NULL;
    hid_t file = H5I_INVALID_HID;
    if (qr_path_join(directory, QR_SERIES_FILE, &path) != QR_OK) {
        return NULL;
    }
    qr_h5_lock();
    if (qr_h5_open(path, &file) == QR_OK) {
        (void)qr_h5_get_text(file, attribute, &text);
        H5Fclose(file);
    }
    qr_h5_unlock();
    free(path);
    return text;
}

qr_status qr_io_check_resume(const char *directory, const char *run_id, bool overwrite, int *attempt)
{
    int highest = 0;
    qr_status status = qr_io_check_directory(directory, true);
    status = status != QR_OK ? status : find_highest_attempt(directory, &highest);
    if (status != QR_OK) {
        return status;
    }
    char *theirs = overwrite ? NULL : read_attribute_of_series(directory, "run_id");
    if (theirs != NULL && strcmp(theirs, run_id) != 0) {
        status =
            qr_error(QR_ENVIRONMENT,
                     "%s: holds results of another run than the checkpoint is of; choose another output.directory, "
                     "or replace them with output.overwrite: true",
                     directory);
    }
    free(theirs);
    if (status == QR_OK && highest == INT_MAX) {
        status = qr_error(QR_ENVIRONMENT, "%s: its snapshots bear numbers that leave no room for more", directory);
    }
    *attempt = status == QR_OK ? highest + 1 : 0;
    return status;
}

bool qr_io_deck_of_results(const char *directory, char **text)
{
    char *path = NULL;
    bool there = qr_path_join(directory, QR_SERIES_FILE, &path) == QR_OK && access(path, F_OK) == 0;
    free(path);
    *text = there ? read_attribute_of_series(directory, "deck") : NULL;
    return there;
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

qr_status qr_set_aside(const char *directory, const char *name)
{
    char other[NAME_MAX + 1];
    char *from = NULL;
    char *to = NULL;
    snprintf(other, sizeof other, "%s.damaged", name);
    qr_status status = qr_path_join(directory, name, &from);
    status = status != QR_OK ? status : qr_path_join(directory, other, &to);
    if (status == QR_OK && rename(from, to) != 0 && errno != ENOENT) {
        status = qr_file_error(from, "renamed", errno);
    }
    free(from);
    free(to);
    return status;
}

/* Whether this server stores snapshots in a part of its own. */
static bool has_part(const qr_io_config *config, int server)
{
    return config->snapshots && config->n_servers > 1 && server < config->n_servers && config->server_starts != NULL &&
           config->server_starts[server + 1] > config->server_starts[server];
}

qr_status qr_clear_results(const qr_io_config *config)
{
    const char *directory = config->directory;
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
        int attempt = 0;
        int server = 0;
        bool part = qr_part_parse(entry->d_name, &attempt, &server);
        if (part && (attempt > 0 || !has_part(config, server))) {
            status = remove_file(directory, entry->d_name);
        }
    }
    if (listing != NULL) {
        closedir(listing);
    }
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
