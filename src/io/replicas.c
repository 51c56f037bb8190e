/* Copies of a share on servers of other nodes: files go there in pieces, each acknowledged when it is on that disk.
 * Here is what a tier's writer thread does for it: it reads pieces of own files, and writes those of others. */
#include "io/replicas.h"

#include "base/fault.h"
#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const char *const suffixes[QR_N_FILES] = {"h5", "index"};

static qr_hash hash_of(const void *bytes, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, n);
    return (qr_hash){.low = hash.low64, .high = hash.high64};
}

/* --- own files, read by the writer's thread --- */

void qr_replicas_begin(qr_cut *cut)
{
    qr_tier *tier = cut->tier;
    size_t n = (size_t)tier->owner->config.replicas;
    qr_outgoing *out = NULL;
    if (n == 0) {
        cut->replicated = true;
        return;
    }
    qr_status status = qr_allocate(1, sizeof *out, "replicas", (void **)&out);
    if (status == QR_OK) {
        out->handle = -1;
        out->generation = cut->generation;
        out->bytes[QR_DATA_FILE] = cut->seal.data_bytes;
        out->bytes[QR_INDEX_FILE] = cut->seal.index_bytes;
        status = qr_allocate(n, sizeof *out->targets, "replicas", (void **)&out->targets);
        status = status != QR_OK ? status : qr_allocate(n, sizeof *out->patience, "replicas", (void **)&out->patience);
    }
    if (status != QR_OK) {
        if (out != NULL) {
            qr_outgoing_free(out);
        }
        tier->owner->replicas_missing += (int64_t)n;
        cut->replicated = true;
        return;
    }
    qr_outgoing **end = &tier->outgoing;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = out;
}

static qr_status read_piece(const qr_tier *tier, qr_outgoing *out, unsigned char *bytes, int64_t n)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_file_name(out->generation, tier->owner->config.server, false, suffixes[out->file], name);
    qr_status status = qr_path_join(tier->directory, name, &path);
    if (status == QR_OK && out->handle < 0) {
        out->handle = open(path, O_RDONLY | O_CLOEXEC);
        status = out->handle < 0 ? qr_file_error(path, "read", errno) : QR_OK;
    }
    int fault = status == QR_OK ? qr_fault("checkpoint.replica_read", tier->directory) : 0;
    status = fault != 0 ? qr_file_error(path, "read", fault) : status;
    for (int64_t got = 0; got < n && status == QR_OK;) {
        ssize_t some = pread(out->handle, bytes + got, (size_t)(n - got), (off_t)(out->offset + got));
        if (some <= 0 && !(some < 0 && errno == EINTR)) {
            status = qr_file_error(path, "read", some < 0 ? errno : EIO);
        }
        got += some > 0 ? some : 0;
    }
    free(path);
    return status;
}

bool qr_replicas_read(qr_tier *tier)
{
    qr_checkpoint *checkpoint = tier->owner;
    qr_outgoing *out = tier->outgoing;
    if (out == NULL || out->dropped || out->file == QR_N_FILES || out->n_pieces >= QR_REPLICA_WINDOW) {
        return false;
    }
    const int64_t most = QR_REPLICA_MESSAGE_BYTES - (int64_t)sizeof(qr_header);
    int64_t left = out->bytes[out->file] - out->offset;
    int64_t n = left < most ? left : most;
    qr_message *piece = qr_message_new(-1, checkpoint->config.replicas, (int64_t)sizeof(qr_header) + n);
    qr_status status = piece == NULL ? QR_RESOURCE : QR_OK;
    out->reading = true;
    qr_tier_leave(tier);
    if (status == QR_OK) {
        status = read_piece(tier, out, piece->data + sizeof(qr_header), n);
    }
    if (status == QR_OK) {
        qr_header h = {.kind = QR_PIECE,
                       .generation = out->generation,
                       .server = checkpoint->config.server,
                       .tier = tier->number,
                       .file = out->file,
                       .file_bytes = out->bytes[out->file],
                       .offset = out->offset,
                       .bytes = n,
                       .hash = hash_of(piece->data + sizeof(qr_header), (size_t)n)};
        qr_header_seal(&h);
        memcpy(piece->data, &h, sizeof h);
    }
    bool last = n == left;
    if (out->handle >= 0 && (last || status != QR_OK)) {
        close(out->handle);
        out->handle = -1;
    }
    qr_tier_return(tier);
    out->reading = false;
    if (status != QR_OK) {
        qr_outgoing_fail(checkpoint, out, -1, qr_error_message());
        out->file = QR_N_FILES;
        qr_message_free(piece);
        return true;
    }
    qr_message_append(&out->pieces, piece);
    out->n_pieces++;
    out->file += last ? 1 : 0;
    out->offset = last ? 0 : out->offset + n;
    return true;
}

/* --- others' files, written by the writer's thread (not the lock) --- */

static qr_status incoming_path(const qr_tier *tier, const qr_incoming *in, bool temporary, char **path)
{
    char name[QR_GENERATION_NAME_BYTES];
    char hidden[QR_GENERATION_NAME_BYTES + 8];
    qr_generation_file_name(in->generation, in->server, true, suffixes[in->file], name);
    (void)snprintf(hidden, sizeof hidden, ".%s.tmp", name);
    return qr_path_join(tier->directory, temporary ? hidden : name, path);
}

static void forget_incoming(qr_tier *tier, qr_incoming *in, bool removes)
{
    char *path = NULL;
    for (qr_incoming **at = &tier->incoming; *at != NULL; at = &(*at)->next) {
        if (*at == in) {
            *at = in->next;
            break;
        }
    }
    if (in->handle >= 0) {
        close(in->handle);
    }
    if (removes && incoming_path(tier, in, true, &path) == QR_OK) {
        (void)unlink(path);
    }
    free(path);
    free(in);
}

/* What this server is sending, begun anew with the first piece of a file. */
static qr_status find_incoming(qr_tier *tier, const qr_header *h, qr_incoming **out)
{
    char *path = NULL;
    qr_incoming *in = tier->incoming;
    while (in != NULL && in->server != h->server) {
        in = in->next;
    }
    if (h->offset > 0) {
        if (in == NULL || in->generation != h->generation || in->file != h->file || in->offset != h->offset ||
            in->bytes != h->file_bytes) {
            return qr_error(QR_DATA, "a piece of generation %lld that does not continue what came before",
                            (long long)h->generation);
        }
        *out = in;
        return QR_OK;
    }
    if (in != NULL) {
        forget_incoming(tier, in, true);
    }
    qr_status status = qr_allocate(1, sizeof *in, "replicas", (void **)&in);
    if (status != QR_OK) {
        return status;
    }
    *in = (qr_incoming){.next = tier->incoming,
                        .server = h->server,
                        .generation = h->generation,
                        .file = h->file,
                        .handle = -1,
                        .bytes = h->file_bytes};
    tier->incoming = in;
    status = incoming_path(tier, in, true, &path);
    if (status == QR_OK) {
        in->handle = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        status = in->handle < 0 ? qr_file_error(path, "written", errno) : QR_OK;
    }
    free(path);
    *out = in;
    if (status != QR_OK) {
        forget_incoming(tier, in, false);
    }
    return status;
}

static qr_status name_incoming(qr_tier *tier, qr_incoming *in)
{
    char *temporary = NULL;
    char *path = NULL;
    qr_status status = incoming_path(tier, in, true, &temporary);
    status = status != QR_OK ? status : incoming_path(tier, in, false, &path);
    if (status == QR_OK) {
        int error = qr_fault("checkpoint.replica_name", tier->directory);
        error = error == 0 && fsync(in->handle) != 0 ? errno : error;
        if (error == 0) {
            error = close(in->handle) != 0 ? errno : 0;
            in->handle = -1; /* whatever came of it, the number may be another file's by now */
        }
        error = error == 0 && rename(temporary, path) != 0 ? errno : error;
        status = error != 0 ? qr_file_error(path, "written", error) : qr_directory_sync(tier->directory);
    }
    free(temporary);
    free(path);
    return status;
}

static qr_status write_piece(qr_tier *tier, const qr_header *h, const unsigned char *bytes)
{
    qr_incoming *in = NULL;
    qr_hash hash = hash_of(bytes, (size_t)h->bytes);
    if (hash.low != h->hash.low || hash.high != h->hash.high) {
        return qr_error(QR_DATA, "a piece of generation %lld arrived damaged", (long long)h->generation);
    }
    qr_status status = tier->made ? QR_OK : qr_directories_make(tier->directory, "checkpoint");
    tier->made = tier->made || status == QR_OK;
    status = status != QR_OK ? status : find_incoming(tier, h, &in);
    if (status != QR_OK) {
        return status;
    }
    int error = qr_fault("checkpoint.replica", tier->directory);
    if (error == 0 && !qr_file_write_at(in->handle, bytes, (size_t)h->bytes, (uint64_t)in->offset)) {
        error = errno;
    }
    if (error != 0) {
        status = qr_file_error(tier->directory, "written", error);
    }
    in->offset += h->bytes;
    bool last = in->offset == in->bytes;
    if (status == QR_OK && last) {
        status = name_incoming(tier, in);
    }
    if (status != QR_OK || last) {
        forget_incoming(tier, in, status != QR_OK);
    }
    return status;
}

bool qr_replicas_write(qr_tier *tier)
{
    qr_checkpoint *checkpoint = tier->owner;
    qr_message *piece = tier->arrivals;
    if (piece == NULL) {
        return false;
    }
    tier->arrivals = piece->next;
    tier->n_arrivals--;
    qr_header h = qr_header_of(piece);
    qr_status status = QR_OK;
    if (h.generation < tier->retired_below || h.generation == tier->removed) {
        status = qr_error(QR_DATA, "generation %lld is not wanted any more", (long long)h.generation);
    } else {
        qr_tier_leave(tier);
        status = write_piece(tier, &h, piece->data + sizeof h);
        qr_tier_return(tier);
        tier->post.copied_bytes += status == QR_OK ? h.bytes : 0;
        checkpoint->changed = true;
    }
    qr_replicas_answer(checkpoint, piece->server, &h, status);
    qr_message_free(piece);
    return true;
}

void qr_outgoing_free(qr_outgoing *out)
{
    if (out->handle >= 0) {
        close(out->handle);
    }
    free(out->targets);
    free(out->patience);
    free(out);
}

void qr_replicas_drop(qr_tier *tier, int64_t generation)
{
    tier->removed = generation;
    for (qr_outgoing *out = tier->outgoing; out != NULL; out = out->next) {
        if (out->generation == generation) {
            out->dropped = true;
        }
    }
}

void qr_replicas_forget(qr_tier *tier, int64_t generation)
{
    for (qr_incoming *in = tier->incoming; in != NULL;) {
        qr_incoming *next = in->next;
        if (generation == 0 || in->generation == generation) {
            forget_incoming(tier, in, true);
        }
        in = next;
    }
}
