/* Writing a generation's share. HDF5 makes the file's structures; the pages' bytes go past it to the file, so that
 * nobody waits for HDF5 while the disk works. */
#include "io/generation.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/file.h"
#include "io/generation_index.h"
#include "io/h5.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md */
enum { FILTER_LZ4 = 32004, FILTER_ZSTD = 32015, PATH_BYTES = 64 };

/* The pages of one kind of one part. */
typedef struct column {
    qr_generation_part part;
    qr_page_kind kind;
    size_t first_page; /* in the index */
    int64_t pages, agents_each;
    int64_t written, taken_over;
    hid_t dataset; /* of the written ones; made with the first */
} column;

struct qr_generation_writer {
    char *directory;
    char name[QR_GENERATION_NAME_BYTES];
    bool replica;
    qr_index index;
    bool *present; /* [index.n] */
    column *columns;
    int n_columns;
    qr_store *store;
    hid_t file;
    int64_t stored_bytes, raw_bytes;
    qr_status failure;
    bool named; /* files bear their names, so that removing them is up to us */
    bool sealed;
};

static const char *kind_name(qr_page_kind kind)
{
    return kind == QR_PAGE_VOTES ? "votes" : "state";
}

/* --- HDF5; under its lock --- */

static bool describe_file(hid_t file, const qr_generation_plan *plan)
{
    return qr_h5_set_text(file, "deck", plan->deck) && qr_h5_set_text(file, "version", plan->version) &&
           qr_h5_set_text(file, "compression", qr_codec_name(plan->codec)) &&
           qr_h5_set_int(file, "generation", plan->generation) && qr_h5_set_int(file, "step", plan->step) &&
           qr_h5_set_int(file, "server", plan->server) && qr_h5_set_int(file, "replica", plan->replica) &&
           qr_h5_set_int(file, "state_dim", plan->state_dim);
}

static bool make_group(hid_t file, const qr_generation_part *part)
{
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "part%05d", part->part);
    hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool done =
        group >= 0 && qr_h5_set_int(group, "first_agent", part->first) && qr_h5_set_int(group, "count", part->count);
    if (group >= 0) {
        H5Gclose(group);
    }
    return done;
}

/* Filters are optional, or HDF5 would want their code, which only readers need. */
static bool set_filters(hid_t how, qr_codec codec)
{
    const unsigned block = QR_CODEC_LZ4_BLOCK_BYTES;
    const unsigned level = (unsigned)codec.level;
    bool done = true;
    if (codec.kind == QR_CODEC_LZ4) {
        done = H5Pset_filter(how, FILTER_LZ4, H5Z_FLAG_OPTIONAL, 1, &block) >= 0;
    } else if (codec.kind == QR_CODEC_ZSTD) {
        done = H5Pset_filter(how, FILTER_ZSTD, H5Z_FLAG_OPTIONAL, 1, &level) >= 0;
    }
    return done && H5Pset_fletcher32(how) >= 0;
}

static hid_t stored_type(const column *c)
{
    return c->kind == QR_PAGE_VOTES ? H5T_STD_U8LE : H5T_IEEE_F32LE;
}

/* A dataspace of all agents of the column, which may grow to whole pages: HDF5 wants room for the last chunk. */
static hid_t make_space(const qr_generation_writer *writer, const column *c)
{
    const hsize_t dims[2] = {(hsize_t)c->part.count, (hsize_t)writer->index.state_dim};
    const hsize_t most[2] = {(hsize_t)c->pages * (hsize_t)c->agents_each, dims[1]};
    return H5Screate_simple(c->kind == QR_PAGE_VOTES ? 1 : 2, dims, most);
}

/* The dataset gets its name at the end, when it is known whether it is all. */
static bool make_dataset(const qr_generation_writer *writer, column *c)
{
    const hsize_t chunk[2] = {(hsize_t)c->agents_each, (hsize_t)writer->index.state_dim};
    hid_t space = make_space(writer, c);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    if (space >= 0 && how >= 0 && H5Pset_chunk(how, c->kind == QR_PAGE_VOTES ? 1 : 2, chunk) >= 0 &&
        H5Pset_obj_track_times(how, false) >= 0 && H5Pset_fill_time(how, H5D_FILL_TIME_NEVER) >= 0 &&
        set_filters(how, writer->index.codec)) {
        c->dataset = H5Dcreate_anon(writer->file, stored_type(c), space, how, H5P_DEFAULT);
    }
    H5Pclose(how);
    H5Sclose(space);
    return c->dataset >= 0;
}

static bool describe_dataset(hid_t dataset, qr_page_kind kind)
{
    return kind == QR_PAGE_VOTES ? qr_h5_describe(dataset, "option", "vote of each agent")
                                 : qr_h5_describe(dataset, "1", "state of each agent");
}

/* Pages [first, last) of the column, all from one generation, as part of a virtual dataset. An older generation's
 * own dataset is named, which may be virtual again. */
static bool map_run(const qr_generation_writer *writer, const column *c, hid_t how, hid_t space, int64_t first,
                    int64_t last)
{
    char file[QR_GENERATION_NAME_BYTES] = ".";
    char dataset[PATH_BYTES];
    int64_t generation = writer->index.records[c->first_page + (size_t)first].generation;
    bool own = generation == writer->index.generation;
    int64_t start = first * c->agents_each;
    int64_t end = last == c->pages ? c->part.count : last * c->agents_each;
    const hsize_t from[2] = {(hsize_t)start, 0};
    const hsize_t count[2] = {(hsize_t)(end - start), (hsize_t)writer->index.state_dim};
    if (!own) {
        qr_generation_file_name(generation, (int)writer->index.server, writer->replica, "h5", file);
    }
    snprintf(dataset, sizeof dataset, "/part%05d/%s%s", c->part.part, kind_name(c->kind), own ? "_written" : "");
    return H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL) >= 0 &&
           H5Pset_virtual(how, space, file, dataset, space) >= 0;
}

static bool make_virtual(const qr_generation_writer *writer, const column *c, hid_t group)
{
    const qr_page_record *records = writer->index.records + c->first_page;
    hid_t space = make_space(writer, c);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    hid_t dataset = H5I_INVALID_HID;
    bool done = space >= 0 && how >= 0 && H5Pset_obj_track_times(how, false) >= 0;
    for (int64_t first = 0; first < c->pages && done;) {
        int64_t last = first + 1;
        while (last < c->pages && records[last].generation == records[first].generation) {
            last++;
        }
        done = map_run(writer, c, how, space, first, last);
        first = last;
    }
    if (done && H5Sselect_all(space) >= 0) {
        dataset = H5Dcreate2(group, kind_name(c->kind), stored_type(c), space, H5P_DEFAULT, how, H5P_DEFAULT);
    }
    done = dataset >= 0 && describe_dataset(dataset, c->kind);
    H5Dclose(dataset);
    H5Pclose(how);
    H5Sclose(space);
    return done;
}

static bool finish_column(const qr_generation_writer *writer, const column *c)
{
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "part%05d", c->part.part);
    hid_t group = H5Gopen2(writer->file, name, H5P_DEFAULT);
    snprintf(name, sizeof name, "%s%s", kind_name(c->kind), c->taken_over > 0 ? "_written" : "");
    bool done = group >= 0;
    if (done && c->written > 0) {
        done = H5Olink(c->dataset, group, name, H5P_DEFAULT, H5P_DEFAULT) >= 0 &&
               describe_dataset(c->dataset, c->kind) && H5Dclose(c->dataset) >= 0;
    }
    if (done && c->taken_over > 0) {
        done = make_virtual(writer, c, group);
    }
    H5Gclose(group);
    return done;
}

/* --- making a writer --- */

static int compare_parts(const void *a, const void *b)
{
    return ((const qr_generation_part *)a)->part - ((const qr_generation_part *)b)->part;
}

static qr_status lay_out(qr_generation_writer *writer, const qr_generation_plan *plan)
{
    qr_generation_part *parts = NULL;
    int kinds = plan->state_dim > 0 ? 2 : 1;
    qr_index *index = &writer->index;
    if (qr_index_page_bytes(index, QR_PAGE_VOTES) == 0 ||
        (kinds == 2 && qr_index_page_bytes(index, QR_PAGE_STATE) == 0) || plan->generation < 1 || plan->n_parts < 0) {
        return qr_error(QR_INTERNAL, "a generation with pages of no size was asked for");
    }
    size_t n_parts = (size_t)plan->n_parts;
    qr_status status = qr_allocate(n_parts, sizeof *parts, "parts", (void **)&parts);
    status = status != QR_OK ? status : qr_allocate(n_parts * 2, sizeof(column), "pages", (void **)&writer->columns);
    if (status != QR_OK) {
        free(parts);
        return status;
    }
    memcpy(parts, plan->parts, n_parts * sizeof *parts);
    qsort(parts, n_parts, sizeof *parts, compare_parts);
    for (size_t i = 0; i < n_parts; i++) {
        for (int kind = 0; kind < kinds; kind++) {
            int64_t each = kind == QR_PAGE_VOTES ? plan->page_agents_votes : plan->page_agents_state;
            int64_t pages = parts[i].count / each + (parts[i].count % each != 0);
            writer->columns[writer->n_columns++] = (column){.part = parts[i],
                                                            .kind = (qr_page_kind)kind,
                                                            .first_page = index->n,
                                                            .pages = pages,
                                                            .agents_each = each,
                                                            .dataset = H5I_INVALID_HID};
            index->n += (size_t)pages;
        }
    }
    free(parts);
    status = qr_allocate(index->n, sizeof *index->records, "an index of pages", (void **)&index->records);
    return status != QR_OK ? status : qr_allocate(index->n, sizeof(bool), "pages", (void **)&writer->present);
}

static qr_status create_file(qr_generation_writer *writer, const qr_generation_plan *plan)
{
    qr_status status = qr_store_create(plan->directory, writer->name, &writer->store);
    if (status != QR_OK) {
        return status;
    }
    qr_h5_lock();
    status = qr_h5_create(writer->store, writer->name, &writer->file);
    if (status == QR_OK && !describe_file(writer->file, plan)) {
        status = qr_h5_write_error(writer->name);
    }
    for (int i = 0; i < plan->n_parts && status == QR_OK; i++) {
        status = make_group(writer->file, &plan->parts[i]) ? QR_OK : qr_h5_write_error(writer->name);
    }
    qr_h5_unlock();
    return status;
}

qr_status qr_generation_writer_create(const qr_generation_plan *plan, qr_generation_writer **out)
{
    qr_generation_writer *writer = NULL;
    qr_status status = qr_allocate(1, sizeof *writer, "a checkpoint", (void **)&writer);
    if (status != QR_OK) {
        return status;
    }
    writer->file = H5I_INVALID_HID;
    writer->replica = plan->replica;
    writer->index = (qr_index){.generation = plan->generation,
                               .step = plan->step,
                               .server = plan->server,
                               .codec = plan->codec,
                               .state_dim = plan->state_dim,
                               .page_agents_votes = plan->page_agents_votes,
                               .page_agents_state = plan->page_agents_state};
    qr_generation_file_name(plan->generation, plan->server, plan->replica, "h5", writer->name);
    writer->directory = strdup(plan->directory);
    status = writer->directory == NULL ? qr_error_memory(strlen(plan->directory), "a path") : lay_out(writer, plan);
    status = status != QR_OK ? status : create_file(writer, plan);
    if (status != QR_OK) {
        qr_generation_writer_destroy(writer);
        return status;
    }
    *out = writer;
    return QR_OK;
}

/* --- pages --- */

/* Puts the record into the index; NULL when it does not belong there. */
static column *place(qr_generation_writer *writer, const qr_page_record *record, qr_page_record **placed)
{
    int low = 0;
    int high = writer->n_columns;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const column *c = &writer->columns[middle];
        bool before = c->part.part != record->part ? c->part.part < record->part : (int32_t)c->kind < record->kind;
        low = before ? middle + 1 : low;
        high = before ? high : middle;
    }
    column *c = low < writer->n_columns ? &writer->columns[low] : NULL;
    if (c == NULL || c->part.part != record->part || (int32_t)c->kind != record->kind || record->number < 0 ||
        record->number >= c->pages || writer->present[c->first_page + (size_t)record->number]) {
        return NULL;
    }
    int64_t left = c->part.count - record->number * c->agents_each;
    int64_t count = left < c->agents_each ? left : c->agents_each;
    uint64_t page_bytes = qr_index_page_bytes(&writer->index, record->kind);
    if (record->first != c->part.first + record->number * c->agents_each || record->count != count ||
        record->raw_bytes != page_bytes / (uint64_t)c->agents_each * (uint64_t)count || record->stored_bytes == 0 ||
        record->stored_bytes > qr_codec_bound(writer->index.codec, page_bytes)) {
        return NULL;
    }
    *placed = &writer->index.records[c->first_page + (size_t)record->number];
    return c;
}

static qr_status misplaced(qr_generation_writer *writer, const qr_page_record *record)
{
    writer->failure = QR_INTERNAL;
    return qr_error(QR_INTERNAL, "%s: page %" PRId64 " of part %d does not fit, or came twice", writer->name,
                    record->number, (int)record->part);
}

static void add(qr_generation_writer *writer, const column *c, const qr_page_record *record)
{
    writer->present[c->first_page + (size_t)record->number] = true;
    writer->raw_bytes += (int64_t)record->raw_bytes;
}

qr_status qr_generation_write_page(qr_generation_writer *writer, const qr_page_record *record, const void *stored)
{
    qr_page_record *placed = NULL;
    if (writer->failure != QR_OK) {
        return qr_error(writer->failure, "%s: writing it failed before", writer->name);
    }
    column *c = place(writer, record, &placed);
    if (c == NULL) {
        return misplaced(writer, record);
    }
    const hsize_t at[2] = {(hsize_t)(record->number * c->agents_each), 0};
    qr_store_expect(writer->store, stored, record->stored_bytes);
    qr_h5_lock();
    bool done = (c->dataset >= 0 || make_dataset(writer, c)) &&
                H5Dwrite_chunk(c->dataset, H5P_DEFAULT, 0, at, record->stored_bytes, stored) >= 0;
    qr_status status = done ? QR_OK : qr_h5_write_error(writer->name);
    qr_h5_unlock();
    *placed = *record;
    placed->generation = writer->index.generation;
    status = status != QR_OK ? status : qr_store_write_expected(writer->store, &placed->address);
    writer->failure = status;
    if (status == QR_OK) {
        add(writer, c, record);
        c->written++;
        writer->stored_bytes += (int64_t)record->stored_bytes;
    }
    return status;
}

qr_status qr_generation_take_over(qr_generation_writer *writer, const qr_page_record *record)
{
    qr_page_record *placed = NULL;
    if (writer->failure != QR_OK) {
        return qr_error(writer->failure, "%s: writing it failed before", writer->name);
    }
    column *c = place(writer, record, &placed);
    if (c == NULL || record->generation < 1 || record->generation >= writer->index.generation) {
        return misplaced(writer, record);
    }
    *placed = *record;
    add(writer, c, record);
    c->taken_over++;
    return QR_OK;
}

/* --- sealing --- */

/* Closes the HDF5 file; its bytes are then with the store. */
static qr_status close_file(qr_generation_writer *writer)
{
    bool done = true;
    qr_h5_lock();
    for (int i = 0; i < writer->n_columns && done; i++) {
        done = writer->columns[i].pages == 0 || finish_column(writer, &writer->columns[i]);
    }
    done = done && H5Fflush(writer->file, H5F_SCOPE_GLOBAL) >= 0;
    qr_status status = done ? QR_OK : qr_h5_write_error(writer->name);
    if (H5Fclose(writer->file) < 0 && status == QR_OK) {
        status = qr_h5_write_error(writer->name);
    }
    writer->file = H5I_INVALID_HID;
    qr_h5_unlock();
    return status;
}

static qr_status hash_metadata(qr_generation_writer *writer)
{
    int file = -1;
    char *path = NULL;
    qr_status status = qr_path_join(writer->directory, writer->name, &path);
    status = status != QR_OK ? status : qr_file_open(path, &file, &writer->index.data_bytes);
    if (status == QR_OK) {
        status =
            qr_index_metadata_hash(&writer->index, path, file, writer->index.data_bytes, &writer->index.metadata_hash);
        close(file);
    }
    free(path);
    return status;
}

static qr_status write_index(qr_generation_writer *writer, int64_t *bytes)
{
    char name[QR_GENERATION_NAME_BYTES];
    unsigned char *text = NULL;
    size_t n = 0;
    qr_generation_file_name(writer->index.generation, (int)writer->index.server, writer->replica, "index", name);
    qr_status status = qr_index_format(&writer->index, &text, &n);
    status = status != QR_OK ? status : qr_file_replace(writer->directory, name, (const char *)text, n, true);
    *bytes = (int64_t)n;
    free(text);
    return status;
}

static qr_status fault_at(const qr_generation_writer *writer, const char *point)
{
    int error = qr_fault(point, writer->directory);
    return error == 0 ? QR_OK : qr_file_error(writer->directory, "written", error);
}

/* Data first, then the index: an index speaks of data that last. */
static qr_status make_durable(qr_generation_writer *writer, qr_generation_seal *seal)
{
    qr_status status = fault_at(writer, "checkpoint.fsync");
    status = status != QR_OK ? status : qr_store_sync(writer->store);
    status = status != QR_OK ? status : fault_at(writer, "checkpoint.fsynced");
    status = status != QR_OK ? status : fault_at(writer, "checkpoint.rename");
    status = status != QR_OK ? status : qr_store_publish(writer->store);
    writer->named = status == QR_OK;
    status = status != QR_OK ? status : fault_at(writer, "checkpoint.renamed");
    status = status != QR_OK ? status : hash_metadata(writer);
    status = status != QR_OK ? status : qr_index_content_hash(&writer->index, &seal->content_hash);
    status = status != QR_OK ? status : fault_at(writer, "checkpoint.index");
    status = status != QR_OK ? status : write_index(writer, &seal->index_bytes);
    status = status != QR_OK ? status : fault_at(writer, "checkpoint.directory");
    return status != QR_OK ? status : qr_directory_sync(writer->directory);
}

qr_status qr_generation_seal_files(qr_generation_writer *writer, qr_generation_seal *out)
{
    qr_generation_seal seal = {
        .pages = (int64_t)writer->index.n, .stored_bytes = writer->stored_bytes, .raw_bytes = writer->raw_bytes};
    for (size_t i = 0; i < writer->index.n; i++) {
        if (!writer->present[i]) {
            return qr_error(QR_INTERNAL, "%s: page %zu was never written", writer->name, i);
        }
    }
    if (writer->failure != QR_OK || writer->file < 0) {
        return qr_error(writer->failure != QR_OK ? writer->failure : QR_INTERNAL, "%s: cannot be sealed", writer->name);
    }
    for (int i = 0; i < writer->n_columns; i++) {
        seal.written_pages += writer->columns[i].written;
    }
    qr_status status = close_file(writer);
    status = status != QR_OK ? status : make_durable(writer, &seal);
    writer->sealed = status == QR_OK;
    if (status == QR_OK) {
        seal.data_bytes = writer->index.data_bytes;
        *out = seal;
    }
    return status;
}

void qr_generation_writer_destroy(qr_generation_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->file >= 0) {
        qr_h5_lock();
        H5Fclose(writer->file);
        qr_h5_unlock();
    }
    qr_store_close(writer->store);
    if (writer->named && !writer->sealed) {
        /* The caller knows of a failure already, whose message stays. */
        (void)qr_generation_remove(writer->directory, writer->index.generation, (int)writer->index.server,
                                   writer->replica);
    }
    qr_index_clear(&writer->index);
    free(writer->present);
    free(writer->columns);
    free(writer->directory);
    free(writer);
}
