/* The copies that should be there, and whether they are whole. */
#include "io/recovery_parts.h"

#include "base/memory.h"
#include "io/file.h"
#include "io/generation_index.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_file(const char *directory, int64_t generation, int server, bool replica, const char *suffix)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_file_name(generation, server, replica, suffix, name);
    bool there = qr_path_join(directory, name, &path) == QR_OK && access(path, F_OK) == 0;
    free(path);
    return there;
}

static bool is_there(const char *directory, int64_t generation, int server, bool replica)
{
    return has_file(directory, generation, server, replica, "h5") ||
           has_file(directory, generation, server, replica, "index");
}

/* Servers of other nodes keep their shares elsewhere. One that is not here is missed if other generations tell that
 * the server writes here. */
static bool is_missed(const qr_recovery *recovery, const qr_found *found, int server)
{
    for (size_t i = 0; i < recovery->n; i++) {
        if (recovery->found[i].directory == found->directory && &recovery->found[i] != found &&
            is_there(recovery->directories[found->directory], recovery->found[i].manifest->generation, server, false)) {
            return true;
        }
    }
    return false;
}

qr_status qr_copies_list(const qr_recovery *recovery, qr_copy **out, size_t *n)
{
    qr_copy *copies = NULL;
    size_t capacity = 0;
    size_t used = 0;
    for (size_t i = 0; i < recovery->n; i++) {
        const qr_found *found = &recovery->found[i];
        const char *directory = recovery->directories[found->directory];
        for (int k = 0; k < 2 * found->manifest->n_shares; k++) {
            const qr_manifest_share *share = &found->manifest->shares[k / 2];
            bool replica = k % 2 == 1;
            bool there = is_there(directory, found->manifest->generation, share->server, replica);
            if (!there && (replica || !is_missed(recovery, found, share->server))) {
                continue;
            }
            qr_status status = qr_grow((void **)&copies, &capacity, used + 1, sizeof *copies, "copies");
            if (status != QR_OK) {
                qr_copies_free(copies, used);
                return status;
            }
            copies[used++] = (qr_copy){.found = found,
                                       .directory = directory,
                                       .share = share,
                                       .replica = replica,
                                       .state = there ? QR_COPY_UNKNOWN : QR_COPY_MISSING};
        }
    }
    *out = copies;
    *n = used;
    return QR_OK;
}

void qr_copies_free(qr_copy *copies, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(copies[i].why);
        free(copies[i].sources);
    }
    free(copies);
}

/* The first cause is kept. */
static void note(qr_copy *copy, qr_status *status)
{
    if (*status == QR_DATA) {
        copy->state = QR_COPY_DAMAGED;
        copy->why = copy->why == NULL ? strdup(qr_error_message()) : copy->why;
        *status = QR_OK;
    }
}

static qr_status add_source(qr_copy *copy, size_t *capacity, int64_t generation)
{
    for (size_t i = copy->n_sources; i > 0; i--) {
        if (copy->sources[i - 1] == generation) {
            return QR_OK;
        }
    }
    qr_status status = qr_grow((void **)&copy->sources, capacity, copy->n_sources + 1, sizeof(int64_t), "copies");
    if (status == QR_OK) {
        copy->sources[copy->n_sources++] = generation;
    }
    return status;
}

static qr_status verify_pages(qr_copy *copy, const qr_generation_reader *reader)
{
    qr_page_scratch scratch = {0};
    void *raw = NULL;
    size_t room = 0;
    size_t capacity = 0;
    size_t n = 0;
    const qr_page_record *pages = qr_generation_pages(reader, &n);
    qr_status status = QR_OK;
    for (size_t i = 0; i < n && status == QR_OK; i++) {
        if (pages[i].raw_bytes > room) {
            free(raw);
            raw = NULL;
            room = (size_t)pages[i].raw_bytes;
            status = qr_allocate(room, 1, "a page", &raw);
        }
        status = status != QR_OK ? status : add_source(copy, &capacity, pages[i].generation);
        status = status != QR_OK ? status : qr_generation_read_page(reader, i, &scratch, raw);
        copy->damaged_pages += status == QR_DATA;
        note(copy, &status);
    }
    free(scratch.bytes);
    free(raw);
    return status;
}

qr_status qr_copy_verify(qr_copy *copy)
{
    qr_generation_reader *reader = NULL;
    int64_t generation = copy->found->manifest->generation;
    int server = copy->share->server;
    copy->marked = qr_generation_is_marked(copy->directory, generation, server, copy->replica);
    if (copy->state == QR_COPY_MISSING) {
        return QR_OK;
    }
    copy->state = QR_COPY_WHOLE;
    qr_status status =
        qr_generation_open(copy->directory, generation, server, copy->replica, &copy->share->seal, &reader);
    if (status != QR_OK) {
        note(copy, &status);
        return status;
    }
    status = verify_pages(copy, reader);
    status = status != QR_OK ? status : qr_generation_check_metadata(reader);
    note(copy, &status);
    qr_generation_close(reader);
    return status;
}
