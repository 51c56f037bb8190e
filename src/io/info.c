/* `quorate info`: what result files hold, and whether all of it can be read.
 *
 * A damaged file can end the HDF5 library in ways that no return value shows. So a child process reads, and its end
 * tells. */
#include "io/io.h"

#include "base/memory.h"
#include "io/file.h"
#include "io/h5.h"
#include "io/results.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_OPTIONS = 256, ROWS = 4096, VOTES = 1 << 22, PATIENCE_S = 60 };

/* What is known of a file while it is looked through. */
typedef struct survey {
    const char *path;
    hid_t file;
    int64_t n_agents, n_options;
    char *title, *version;
} survey;

static qr_status damaged(const survey *s, const char *what)
{
    return qr_h5_error(QR_DATA, s->path, what);
}

/* Opens a dataset and checks that every chunk within its extent is there; a missing one would read as zeros. */
static qr_status open_whole(const survey *s, const char *name, int rank, hsize_t dims[2], hid_t *out)
{
    char what[96];
    snprintf(what, sizeof what, "/%s is damaged", name);
    hid_t dataset = H5Dopen2(s->file, name, H5P_DEFAULT);
    if (dataset < 0) {
        return damaged(s, what);
    }
    hid_t space = H5Dget_space(dataset);
    hid_t how = H5Dget_create_plist(dataset);
    hsize_t chunk[2] = {1, 1};
    hsize_t there = 0;
    bool fits = H5Sget_simple_extent_ndims(space) == rank && H5Sget_simple_extent_dims(space, dims, NULL) >= 0;
    if (fits && H5Pget_layout(how) == H5D_CHUNKED) {
        hsize_t wanted = 1;
        fits = H5Pget_chunk(how, rank, chunk) == rank;
        for (int i = 0; i < rank && fits; i++) {
            fits = chunk[i] > 0;
            wanted *= fits ? dims[i] / chunk[i] + (dims[i] % chunk[i] != 0) : 0;
        }
        /* HDF5 1.10 cannot count the chunks of a dataset that never had any, nor with H5S_ALL. */
        fits = fits && (wanted == 0 || (H5Dget_num_chunks(dataset, space, &there) >= 0 && wanted == there));
    } else {
        fits = fits && H5Pget_layout(how) == H5D_VIRTUAL;
    }
    H5Pclose(how);
    H5Sclose(space);
    if (!fits) {
        H5Dclose(dataset);
        return damaged(s, what);
    }
    *out = dataset;
    return QR_OK;
}

static bool read_block(hid_t dataset, hid_t type, int rank, const hsize_t start[2], const hsize_t count[2], void *out)
{
    hid_t there = H5Dget_space(dataset);
    hid_t here = H5Screate_simple(rank, count, NULL);
    /* Not for ever, should the file lead the library in circles. */
    alarm(PATIENCE_S);
    bool done = H5Sselect_hyperslab(there, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Dread(dataset, type, here, there, H5P_DEFAULT, out) >= 0;
    alarm(0);
    H5Sclose(here);
    H5Sclose(there);
    return done;
}

/* Where the quorum was first seen to hold. */
typedef struct decision {
    bool any;
    int64_t step, winner;
    uint64_t votes;
} decision;

typedef struct series_block {
    int64_t step[ROWS], winner[ROWS], leader[ROWS];
    uint8_t decided[ROWS];
    uint64_t tally[ROWS][MOST_OPTIONS];
} series_block;

enum { STEP, WINNER, LEADER, DECIDED, TALLY, N_COLUMNS };
static const char *const column_names[N_COLUMNS] = {"series/step", "series/winner", "series/leader", "series/decided",
                                                    "series/tally"};

static bool read_rows(const hid_t columns[N_COLUMNS], hsize_t first, hsize_t n, hsize_t n_options, series_block *b)
{
    const hsize_t start[2] = {first, 0};
    const hsize_t count[2] = {n, n_options};
    return read_block(columns[STEP], H5T_NATIVE_INT64, 1, start, count, b->step) &&
           read_block(columns[WINNER], H5T_NATIVE_INT64, 1, start, count, b->winner) &&
           read_block(columns[LEADER], H5T_NATIVE_INT64, 1, start, count, b->leader) &&
           read_block(columns[DECIDED], H5T_NATIVE_UINT8, 1, start, count, b->decided) &&
           read_block(columns[TALLY], H5T_NATIVE_UINT64, 2, start, count, b->tally);
}

/* The rows must make sense: votes add up to the agents, steps ascend. */
static qr_status check_rows(const survey *s, const series_block *b, hsize_t first, hsize_t n, int64_t *last_step,
                            decision *decided)
{
    const uint64_t *tally = &b->tally[0][0];
    for (hsize_t i = 0; i < n; i++, tally += s->n_options) {
        uint64_t sum = 0;
        for (int64_t k = 0; k < s->n_options; k++) {
            sum += tally[k];
        }
        bool sound = sum == (uint64_t)s->n_agents && b->winner[i] >= 0 && b->winner[i] < s->n_options &&
                     b->decided[i] <= 1 && (first + i == 0 || b->step[i] > *last_step);
        if (!sound) {
            return qr_error(QR_DATA, "%s: row %" PRIu64 " of the series is damaged", s->path, (uint64_t)(first + i));
        }
        *last_step = b->step[i];
        if (b->decided[i] == 1 && !decided->any) {
            *decided =
                (decision){.any = true, .step = b->step[i], .winner = b->winner[i], .votes = tally[b->winner[i]]};
        }
    }
    return QR_OK;
}

static void print_series(const survey *s, FILE *out, hsize_t rows, int64_t first, int64_t last, const decision *decided)
{
    if (rows == 0) {
        fprintf(out, "  series     no steps yet\n");
    } else {
        fprintf(out, "  series     %" PRIu64 " steps, %" PRId64 " to %" PRId64 "\n", (uint64_t)rows, first, last);
    }
    if (decided->any) {
        fprintf(out, "  decision   option %" PRId64 ", %" PRIu64 " of %" PRId64 " agents (%.1f %%), step %" PRId64 "\n",
                decided->winner, decided->votes, s->n_agents, 100.0 * (double)decided->votes / (double)s->n_agents,
                decided->step);
    } else {
        fprintf(out, "  decision   none\n");
    }
}

static qr_status survey_series(const survey *s, FILE *out)
{
    hid_t columns[N_COLUMNS] = {H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID};
    hsize_t dims[N_COLUMNS][2] = {{0}};
    series_block *block = NULL;
    decision decided = {0};
    int64_t first_step = 0;
    int64_t last_step = 0;
    qr_status status = qr_allocate(1, sizeof *block, "the series", (void **)&block);
    for (int i = 0; i < N_COLUMNS && status == QR_OK; i++) {
        status = open_whole(s, column_names[i], i == TALLY ? 2 : 1, dims[i], &columns[i]);
    }
    hsize_t rows = dims[STEP][0];
    for (int i = 0; i < N_COLUMNS && status == QR_OK; i++) {
        if (dims[i][0] != rows || (i == TALLY && dims[i][1] != (hsize_t)s->n_options)) {
            status = qr_error(QR_DATA, "%s: /%s has another length than the rest", s->path, column_names[i]);
        }
    }
    for (hsize_t first = 0; status == QR_OK && first < rows; first += ROWS) {
        hsize_t n = rows - first < ROWS ? rows - first : ROWS;
        status =
            read_rows(columns, first, n, (hsize_t)s->n_options, block) ? QR_OK : damaged(s, "the series is damaged");
        status = status != QR_OK ? status : check_rows(s, block, first, n, &last_step, &decided);
        first_step = first == 0 ? block->step[0] : first_step;
    }
    for (int i = 0; i < N_COLUMNS; i++) {
        if (columns[i] >= 0) {
            H5Dclose(columns[i]);
        }
    }
    free(block);
    if (status == QR_OK) {
        print_series(s, out, rows, first_step, last_step, &decided);
    }
    return status;
}

/* Every vote of one snapshot must be an option. */
static qr_status check_snapshot(const survey *s, hid_t votes, hsize_t row, hsize_t width, uint8_t *buffer)
{
    for (hsize_t first = 0; first < width; first += VOTES) {
        const hsize_t start[2] = {row, first};
        const hsize_t count[2] = {1, width - first < VOTES ? width - first : VOTES};
        if (!read_block(votes, H5T_NATIVE_UINT8, 2, start, count, buffer)) {
            return damaged(s, "/votes is damaged");
        }
        for (hsize_t i = 0; i < count[1]; i++) {
            if (buffer[i] >= s->n_options) {
                return qr_error(QR_DATA, "%s: snapshot %" PRIu64 " holds a vote for option %d", s->path, (uint64_t)row,
                                buffer[i]);
            }
        }
    }
    return QR_OK;
}

/* Rows of /votes in a part; 0 when it cannot be read, which reading through the joining file then shows. */
static hsize_t part_rows(const survey *s, const char *name)
{
    const char *slash = strrchr(s->path, '/');
    size_t head = slash == NULL ? 0 : (size_t)(slash - s->path) + 1;
    size_t bytes = head + strlen(name) + 1;
    char *path = malloc(bytes);
    hid_t file = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 0};
    if (path == NULL) {
        return 0;
    }
    snprintf(path, bytes, "%.*s%s", (int)head, s->path, name);
    if (qr_h5_open(path, &file) == QR_OK) {
        hid_t votes = H5Dopen2(file, "votes", H5P_DEFAULT);
        hid_t space = votes >= 0 ? H5Dget_space(votes) : H5I_INVALID_HID;
        if (space < 0 || H5Sget_simple_extent_ndims(space) != 2 || H5Sget_simple_extent_dims(space, dims, NULL) < 0) {
            dims[0] = 0;
        }
        H5Sclose(space);
        H5Dclose(votes);
        H5Fclose(file);
    }
    free(path);
    return dims[0];
}

/* Up to which row one mapping of a joined dataset shows snapshots, or would if only its own rows counted. `there`: rows
 * of its part. */
static hsize_t reach(hid_t how, size_t i, hsize_t there, hsize_t rows)
{
    hsize_t to[2] = {0, 0};
    hsize_t from[2] = {0, 0};
    hsize_t stride[2];
    hsize_t count[2] = {0, 0};
    hsize_t block[2] = {0, 0};
    hid_t target = H5Pget_virtual_vspace(how, i);
    hid_t source = H5Pget_virtual_srcspace(how, i);
    bool known = H5Sget_regular_hyperslab(source, from, stride, count, block) >= 0 &&
                 H5Sget_regular_hyperslab(target, to, stride, count, block) >= 0;
    H5Sclose(source);
    H5Sclose(target);
    if (!known) {
        return 0;
    }
    hsize_t shown = there > from[0] ? there - from[0] : 0;
    bool all = count[0] != H5S_UNLIMITED && shown >= count[0] * block[0]; /* of an earlier attempt's rows */
    return all ? rows : to[0] + shown;
}

/* Snapshots that every part has; a killed run may have more in one part than in another. */
static hsize_t common_rows(const survey *s, hid_t votes, hsize_t rows)
{
    hid_t how = H5Dget_create_plist(votes);
    size_t n = 0;
    if (H5Pget_layout(how) == H5D_VIRTUAL && H5Pget_virtual_count(how, &n) >= 0) {
        for (size_t i = 0; i < n; i++) {
            char name[256] = "";
            hsize_t there = H5Pget_virtual_filename(how, i, name, sizeof name) > 0 ? part_rows(s, name) : 0;
            hsize_t reached = reach(how, i, there, rows);
            rows = reached < rows ? reached : rows;
        }
    }
    H5Pclose(how);
    return rows;
}

/* First and last of the first n steps. */
static qr_status print_snapshots(const survey *s, FILE *out, hid_t step, hsize_t n, hsize_t more, hsize_t width)
{
    int64_t ends[2] = {0, 0};
    for (int i = 0; i < 2 && n > 0; i++) {
        const hsize_t start[2] = {i == 0 ? 0 : n - 1, 0};
        const hsize_t count[2] = {1, 0};
        if (!read_block(step, H5T_NATIVE_INT64, 1, start, count, &ends[i])) {
            return damaged(s, "/step is damaged");
        }
    }
    if (n == 0) {
        fprintf(out, "  snapshots  none yet\n");
    } else {
        fprintf(out, "  snapshots  %" PRIu64 " of %" PRIu64 " agents, steps %" PRId64 " to %" PRId64 "\n", (uint64_t)n,
                (uint64_t)width, ends[0], ends[1]);
    }
    if (more > 0) {
        fprintf(out, "  incomplete %" PRIu64 " last snapshots, as the run was killed\n", (uint64_t)more);
    }
    return QR_OK;
}

static qr_status survey_snapshots(const survey *s, FILE *out)
{
    hid_t votes = H5I_INVALID_HID;
    hid_t step = H5I_INVALID_HID;
    hsize_t dims[2] = {0};
    hsize_t step_dims[2] = {0};
    hsize_t rows = 0;
    uint8_t *buffer = NULL;
    qr_status status = qr_allocate(VOTES, 1, "votes", (void **)&buffer);
    status = status != QR_OK ? status : open_whole(s, "votes", 2, dims, &votes);
    status = status != QR_OK ? status : open_whole(s, "step", 1, step_dims, &step);
    if (status == QR_OK) {
        rows = common_rows(s, votes, dims[0]);
        if (dims[1] == 0 || dims[1] > (hsize_t)s->n_agents || step_dims[0] < rows) {
            status = qr_error(QR_DATA, "%s: /votes and /step do not fit together", s->path);
        }
    }
    for (hsize_t row = 0; status == QR_OK && row < rows; row++) {
        status = check_snapshot(s, votes, row, dims[1], buffer);
    }
    status = status != QR_OK ? status : print_snapshots(s, out, step, rows, dims[0] - rows, dims[1]);
    if (votes >= 0) {
        H5Dclose(votes);
    }
    if (step >= 0) {
        H5Dclose(step);
    }
    free(buffer);
    return status;
}

static qr_status survey_open(survey *s, FILE *out)
{
    bool known = H5Lexists(s->file, "series", H5P_DEFAULT) > 0 || H5Lexists(s->file, "votes", H5P_DEFAULT) > 0;
    if (!known) {
        return qr_error(QR_DATA, "%s: an HDF5 file, but neither a series nor snapshots", s->path);
    }
    if (!qr_h5_get_text(s->file, "title", &s->title) || !qr_h5_get_text(s->file, "version", &s->version) ||
        !qr_h5_get_int(s->file, "n_agents", &s->n_agents) || !qr_h5_get_int(s->file, "n_options", &s->n_options)) {
        return qr_error(QR_DATA, "%s: lacks the attributes of a result file", s->path);
    }
    if (s->n_agents < 1 || s->n_options < 1 || s->n_options > MOST_OPTIONS) {
        return qr_error(QR_DATA, "%s: its attributes are damaged", s->path);
    }
    fprintf(out, "  title      %s\n  version    %s\n  agents     %" PRId64 "\n  options    %" PRId64 "\n", s->title,
            s->version, s->n_agents, s->n_options);
    return H5Lexists(s->file, "series", H5P_DEFAULT) > 0 ? survey_series(s, out) : survey_snapshots(s, out);
}

static qr_status survey_file(const char *path, FILE *out)
{
    survey s = {.path = path, .file = H5I_INVALID_HID};
    alarm(PATIENCE_S);
    qr_status status = qr_h5_open(path, &s.file);
    if (status != QR_OK) {
        return status;
    }
    fprintf(out, "%s\n", path);
    status = survey_open(&s, out);
    alarm(PATIENCE_S);
    H5Fclose(s.file);
    alarm(0);
    free(s.title);
    free(s.version);
    if (status == QR_OK) {
        fprintf(out, "  state      all of it can be read\n");
    }
    return status;
}

/* --- files and directories --- */

static qr_status survey_directory(const char *directory, FILE *out)
{
    static const char *const names[] = {QR_SERIES_FILE, QR_SNAPSHOTS_FILE};
    qr_status first = QR_OK;
    char message[QR_MESSAGE_BYTES] = "";
    int found = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = NULL;
        qr_status status = qr_path_join(directory, names[i], &path);
        if (status != QR_OK) {
            return status;
        }
        if (access(path, F_OK) == 0) {
            found++;
            status = survey_file(path, out);
        }
        if (status != QR_OK && first == QR_OK) {
            first = status;
            snprintf(message, sizeof message, "%s", qr_error_message());
        }
        free(path);
    }
    if (found == 0) {
        return qr_error(QR_USAGE, "%s: holds no results (neither %s nor %s), no checkpoints and no page files",
                        directory, names[0], names[1]);
    }
    return first == QR_OK ? QR_OK : qr_error(first, "%s", message);
}

/* What the child leaves beside its report. */
typedef struct outcome {
    bool reached_end;
    qr_status status;
    char message[QR_MESSAGE_BYTES];
} outcome;

static void survey_in_child(const char *path, bool is_directory, int pipe_end, outcome *left)
{
    signal(SIGALRM, SIG_DFL);
    FILE *out = fdopen(pipe_end, "w");
    if (out == NULL) {
        _exit(1);
    }
    left->status = is_directory ? survey_directory(path, out) : survey_file(path, out);
    snprintf(left->message, sizeof left->message, "%s", qr_error_message());
    fflush(out);
    left->reached_end = true;
    _exit(0);
}

/* Copies the child's report to standard output until the child closes it. */
static void pass_report(int pipe_end)
{
    char buffer[4096];
    ssize_t n = 0;
    while ((n = read(pipe_end, buffer, sizeof buffer)) != 0) {
        if (n > 0) {
            (void)fwrite(buffer, 1, (size_t)n, stdout);
        } else if (errno != EINTR) {
            break;
        }
    }
    fflush(stdout);
}

static qr_status judge(const char *path, const outcome *left, int ended)
{
    if (WIFSIGNALED(ended) && WTERMSIG(ended) == SIGALRM) {
        return qr_error(QR_DATA, "%s: damaged: reading came to no end", path);
    }
    if (!left->reached_end) {
        return qr_error(QR_DATA, "%s: damaged: the HDF5 library broke down over it", path);
    }
    return left->status == QR_OK ? QR_OK : qr_error(left->status, "%s", left->message);
}

qr_status qr_io_info(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return qr_error(QR_USAGE, "%s: cannot be read: %s", path, strerror(errno));
    }
    int ends[2];
    outcome *left = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (left == MAP_FAILED) {
        return qr_error_memory(sizeof *left, "reading a file");
    }
    if (pipe(ends) != 0) {
        munmap(left, sizeof *left);
        return qr_error(QR_RESOURCE, "%s: cannot be read: %s", path, strerror(errno));
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        survey_in_child(path, S_ISDIR(info.st_mode), ends[1], left);
    }
    close(ends[1]);
    qr_status status = QR_OK;
    if (child < 0) {
        status = qr_error(QR_RESOURCE, "%s: cannot be read: %s", path, strerror(errno));
    } else {
        int ended = 0;
        pass_report(ends[0]);
        while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
        }
        status = judge(path, left, ended);
    }
    close(ends[0]);
    munmap(left, sizeof *left);
    return status;
}
