#include "io/manifest.h"

#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { DIGITS = 32, NAME_BYTES = QR_GENERATION_NAME_BYTES + 32 };

static const char seal_word[] = "seal: ";
enum { SEAL_BYTES = sizeof seal_word - 1 + DIGITS + 1 };

/* Nothing sensible is longer. */
static const int64_t most_bytes = INT64_C(1) << 30;

/* --- fields: written and read by the same tables --- */

typedef struct number_field {
    const char *name;
    size_t offset;
    int64_t lowest;
} number_field;

#define FIELD(type, name, lowest)                                                                                      \
    {                                                                                                                  \
#name, offsetof(type, name), lowest                                                                            \
    }

static const number_field manifest_numbers[] = {
    FIELD(qr_manifest, generation, 1),
    FIELD(qr_manifest, step, 0),
    FIELD(qr_manifest, n_agents, 1),
    FIELD(qr_manifest, n_options, 1),
    FIELD(qr_manifest, state_dim, 0),
    FIELD(qr_manifest, page_agents_votes, 1),
    FIELD(qr_manifest, page_agents_state, 0),
    FIELD(qr_manifest, held, INT64_MIN),
    FIELD(qr_manifest, candidate, INT64_MIN),
    FIELD(qr_manifest, decided, INT64_MIN),
    FIELD(qr_manifest, decided_step, INT64_MIN),
    FIELD(qr_manifest, decided_option, INT64_MIN),
    FIELD(qr_manifest, decided_votes, INT64_MIN),
    FIELD(qr_manifest, decided_leader, INT64_MIN),
    FIELD(qr_manifest, snapshots, 0),
    FIELD(qr_manifest, restarts, 0),
};

static const number_field share_numbers[] = {
    FIELD(qr_manifest_share, first, 0),
    FIELD(qr_manifest_share, count, 0),
};

static const number_field seal_numbers[] = {
    FIELD(qr_generation_seal, data_bytes, 0),   FIELD(qr_generation_seal, index_bytes, 0),
    FIELD(qr_generation_seal, pages, 0),        FIELD(qr_generation_seal, written_pages, 0),
    FIELD(qr_generation_seal, stored_bytes, 0), FIELD(qr_generation_seal, raw_bytes, 0),
};

static const number_field part_numbers[] = {
    FIELD(qr_manifest_part, first, 0),
    FIELD(qr_manifest_part, count, 0),
};

static const struct {
    const char *name;
    size_t offset;
} manifest_texts[] = {
    {"version", offsetof(qr_manifest, version)},     {"deck", offsetof(qr_manifest, deck)},
    {"precision", offsetof(qr_manifest, precision)}, {"tier", offsetof(qr_manifest, tier)},
    {"codec", offsetof(qr_manifest, codec)},
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static bool put_numbers(json_t *object, const void *from, const number_field *fields, size_t n)
{
    bool done = true;
    for (size_t i = 0; i < n && done; i++) {
        int64_t value = 0;
        memcpy(&value, (const char *)from + fields[i].offset, sizeof value);
        done = json_object_set_new(object, fields[i].name, json_integer(value)) == 0;
    }
    return done;
}

static bool get_number(const json_t *object, const char *name, int64_t lowest, int64_t *out)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < lowest) {
        return false;
    }
    *out = json_integer_value(value);
    return true;
}

static bool get_numbers(const json_t *object, void *to, const number_field *fields, size_t n)
{
    bool done = true;
    for (size_t i = 0; i < n && done; i++) {
        int64_t value = 0;
        done = get_number(object, fields[i].name, fields[i].lowest, &value);
        memcpy((char *)to + fields[i].offset, &value, sizeof value);
    }
    return done;
}

static bool get_int(const json_t *object, const char *name, int *out)
{
    int64_t value = 0;
    bool done = get_number(object, name, 0, &value) && value <= INT_MAX;
    *out = done ? (int)value : 0;
    return done;
}

/* --- writing --- */

static void print_hash(qr_hash hash, char out[DIGITS + 1])
{
    snprintf(out, DIGITS + 1, "%016" PRIx64 "%016" PRIx64, hash.high, hash.low);
}

static qr_hash hash_of(const char *text, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(text, n);
    return (qr_hash){.low = hash.low64, .high = hash.high64};
}

static json_t *share_object(const qr_manifest_share *share)
{
    char digits[DIGITS + 1];
    json_t *object = json_object();
    print_hash(share->seal.content_hash, digits);
    bool done = json_object_set_new(object, "server", json_integer(share->server)) == 0 &&
                put_numbers(object, share, share_numbers, LENGTH(share_numbers)) &&
                put_numbers(object, &share->seal, seal_numbers, LENGTH(seal_numbers)) &&
                json_object_set_new(object, "content_hash", json_string(digits)) == 0;
    if (!done) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *part_object(const qr_manifest_part *part)
{
    json_t *object = json_object();
    bool done = json_object_set_new(object, "part", json_integer(part->part)) == 0 &&
                json_object_set_new(object, "server", json_integer(part->server)) == 0 &&
                put_numbers(object, part, part_numbers, LENGTH(part_numbers));
    if (!done) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *manifest_object(const qr_manifest *manifest)
{
    json_t *object = json_object();
    json_t *shares = json_array();
    json_t *parts = json_array();
    bool done = json_object_set_new(object, "format", json_integer(QR_MANIFEST_FORMAT)) == 0 &&
                put_numbers(object, manifest, manifest_numbers, LENGTH(manifest_numbers)) &&
                json_object_set_new(object, "elapsed_s", json_real(manifest->elapsed_s)) == 0 &&
                json_object_set_new(object, "run_id", json_string(manifest->run_id)) == 0;
    for (size_t i = 0; i < LENGTH(manifest_texts) && done; i++) {
        char *text = NULL;
        memcpy(&text, (const char *)manifest + manifest_texts[i].offset, sizeof text);
        done = json_object_set_new(object, manifest_texts[i].name, json_string(text)) == 0;
    }
    for (int i = 0; i < manifest->n_shares && done; i++) {
        done = json_array_append_new(shares, share_object(&manifest->shares[i])) == 0;
    }
    for (int i = 0; i < manifest->n_parts && done; i++) {
        done = json_array_append_new(parts, part_object(&manifest->parts[i])) == 0;
    }
    done = done && json_object_set(object, "shares", shares) == 0 && json_object_set(object, "parts", parts) == 0;
    json_decref(shares);
    json_decref(parts);
    if (!done) {
        json_decref(object);
        return NULL;
    }
    return object;
}

qr_status qr_manifest_format(const qr_manifest *manifest, char **text)
{
    char digits[DIGITS + 1];
    json_t *object = manifest_object(manifest);
    char *body = object == NULL ? NULL : json_dumps(object, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(object);
    if (body == NULL) {
        return qr_error(QR_INTERNAL, "a manifest could not be made: no memory, or a text that is not UTF-8");
    }
    size_t n = strlen(body);
    char *made = malloc(n + 1 + SEAL_BYTES + 1);
    if (made == NULL) {
        free(body);
        return qr_error_memory(n, "a manifest");
    }
    memcpy(made, body, n + 1);
    made[n++] = '\n';
    print_hash(hash_of(made, n), digits);
    snprintf(made + n, SEAL_BYTES + 1, "%s%s\n", seal_word, digits);
    free(body);
    *text = made;
    return QR_OK;
}

/* --- reading --- */

static bool parse_hash(const char *digits, qr_hash *out)
{
    uint64_t halves[2] = {0, 0};
    for (int i = 0; i < DIGITS; i++) {
        static const char known[] = "0123456789abcdef";
        const char *at = digits[i] == '\0' ? NULL : strchr(known, digits[i]);
        if (at == NULL) {
            return false;
        }
        halves[i / 16] = halves[i / 16] << 4 | (uint64_t)(at - known);
    }
    *out = (qr_hash){.low = halves[1], .high = halves[0]};
    return true;
}

/* Bytes before the seal; 0 when the seal is not right. */
static size_t sealed_bytes(const char *text, size_t n)
{
    size_t word = sizeof seal_word - 1;
    qr_hash kept;
    if (n <= SEAL_BYTES || text[n - 1] != '\n' || text[n - SEAL_BYTES - 1] != '\n' ||
        memcmp(text + n - SEAL_BYTES, seal_word, word) != 0 || !parse_hash(text + n - SEAL_BYTES + word, &kept)) {
        return 0;
    }
    qr_hash found = hash_of(text, n - SEAL_BYTES);
    return kept.low == found.low && kept.high == found.high ? n - SEAL_BYTES : 0;
}

static bool get_share(const json_t *object, qr_manifest_share *share)
{
    const json_t *digits = json_object_get(object, "content_hash");
    return get_int(object, "server", &share->server) &&
           get_numbers(object, share, share_numbers, LENGTH(share_numbers)) &&
           get_numbers(object, &share->seal, seal_numbers, LENGTH(seal_numbers)) &&
           json_string_length(digits) == DIGITS && parse_hash(json_string_value(digits), &share->seal.content_hash);
}

static bool get_part(const json_t *object, qr_manifest_part *part)
{
    return get_int(object, "part", &part->part) && get_int(object, "server", &part->server) &&
           get_numbers(object, part, part_numbers, LENGTH(part_numbers));
}

static const qr_manifest_share *share_of(const qr_manifest *manifest, int server)
{
    for (int i = 0; i < manifest->n_shares; i++) {
        if (manifest->shares[i].server == server) {
            return &manifest->shares[i];
        }
    }
    return NULL;
}

/* Shares and parts, each in order, cover all agents once; a part lies in its server's share. */
static bool covers_all(const qr_manifest *manifest)
{
    int64_t next = 0;
    for (int i = 0; i < manifest->n_shares; i++) {
        const qr_manifest_share *share = &manifest->shares[i];
        if (share->first != next || share->count > manifest->n_agents - next ||
            share_of(manifest, share->server) != share) {
            return false;
        }
        next += share->count;
    }
    if (next != manifest->n_agents) {
        return false;
    }
    next = 0;
    const qr_manifest_share *share = NULL;
    for (int i = 0; i < manifest->n_parts; i++) {
        const qr_manifest_part *part = &manifest->parts[i];
        share = share != NULL && share->server == part->server ? share : share_of(manifest, part->server);
        if (share == NULL || part->first != next || part->count > manifest->n_agents - next ||
            (i > 0 && part->part <= manifest->parts[i - 1].part) || part->first < share->first ||
            part->first + part->count > share->first + share->count) {
            return false;
        }
        next += part->count;
    }
    return next == manifest->n_agents;
}

static qr_status get_lists(const json_t *object, qr_manifest *manifest, bool *sound)
{
    const json_t *shares = json_object_get(object, "shares");
    const json_t *parts = json_object_get(object, "parts");
    size_t n_shares = json_array_size(shares);
    size_t n_parts = json_array_size(parts);
    *sound = n_shares <= INT_MAX && n_parts <= INT_MAX;
    if (!*sound) {
        return QR_OK;
    }
    qr_status status = qr_allocate(n_shares, sizeof *manifest->shares, "a manifest", (void **)&manifest->shares);
    status = status != QR_OK ? status
                             : qr_allocate(n_parts, sizeof *manifest->parts, "a manifest", (void **)&manifest->parts);
    if (status != QR_OK) {
        return status;
    }
    manifest->n_shares = (int)n_shares;
    manifest->n_parts = (int)n_parts;
    for (size_t i = 0; i < n_shares && *sound; i++) {
        *sound = get_share(json_array_get(shares, i), &manifest->shares[i]);
    }
    for (size_t i = 0; i < n_parts && *sound; i++) {
        *sound = get_part(json_array_get(parts, i), &manifest->parts[i]);
    }
    *sound = *sound && covers_all(manifest);
    return QR_OK;
}

static qr_status get_texts(const json_t *object, qr_manifest *manifest, bool *sound)
{
    const json_t *elapsed = json_object_get(object, "elapsed_s");
    const json_t *run_id = json_object_get(object, "run_id");
    *sound = json_is_number(elapsed) && isfinite(json_number_value(elapsed)) && json_is_string(run_id) &&
             json_string_length(run_id) < sizeof manifest->run_id;
    if (*sound) {
        manifest->elapsed_s = json_number_value(elapsed);
        snprintf(manifest->run_id, sizeof manifest->run_id, "%s", json_string_value(run_id));
    }
    for (size_t i = 0; i < LENGTH(manifest_texts) && *sound; i++) {
        const char *text = json_string_value(json_object_get(object, manifest_texts[i].name));
        char *copy = text == NULL ? NULL : strdup(text);
        if (text != NULL && copy == NULL) {
            return qr_error_memory(strlen(text), "a manifest");
        }
        *sound = text != NULL;
        memcpy((char *)manifest + manifest_texts[i].offset, &copy, sizeof copy);
    }
    return QR_OK;
}

static qr_status get_manifest(const char *name, const json_t *object, qr_manifest *manifest)
{
    bool sound = false;
    int64_t format = 0;
    qr_codec codec;
    if (!get_number(object, "format", 0, &format)) {
        return qr_error(QR_DATA, "%s: does not say which format it has", name);
    }
    if (format != QR_MANIFEST_FORMAT) {
        return qr_error(QR_DATA,
                        "%s: has format %" PRId64 ", but this version of the program reads format %d; restart with the "
                        "version that wrote it",
                        name, format, QR_MANIFEST_FORMAT);
    }
    qr_status status = get_texts(object, manifest, &sound);
    if (status == QR_OK && sound) {
        sound = get_numbers(object, manifest, manifest_numbers, LENGTH(manifest_numbers)) &&
                qr_codec_parse(manifest->codec, &codec) == QR_OK;
    }
    if (status == QR_OK && sound) {
        status = get_lists(object, manifest, &sound);
    }
    if (status == QR_OK && !sound) {
        status = qr_error(QR_DATA, "%s: what it says does not make sense", name);
    }
    return status;
}

qr_status qr_manifest_parse(const char *name, const char *text, size_t n, qr_manifest **out)
{
    qr_manifest *manifest = NULL;
    size_t body = sealed_bytes(text, n);
    if (body == 0) {
        return qr_error(QR_DATA, "%s: damaged: its seal is wrong or missing", name);
    }
    json_t *object = json_loadb(text, body, JSON_REJECT_DUPLICATES, NULL);
    if (object == NULL) {
        return qr_error(QR_DATA, "%s: damaged: not JSON", name);
    }
    qr_status status = qr_allocate(1, sizeof *manifest, "a manifest", (void **)&manifest);
    status = status != QR_OK ? status : get_manifest(name, object, manifest);
    json_decref(object);
    if (status != QR_OK) {
        qr_manifest_destroy(manifest);
        return status;
    }
    *out = manifest;
    return QR_OK;
}

void qr_manifest_destroy(qr_manifest *manifest)
{
    if (manifest == NULL) {
        return;
    }
    free(manifest->version);
    free(manifest->deck);
    free(manifest->precision);
    free(manifest->tier);
    free(manifest->codec);
    free(manifest->shares);
    free(manifest->parts);
    free(manifest);
}

/* --- files --- */

qr_status qr_manifest_store(const char *directory, int64_t generation, int server, const char *text, size_t n)
{
    char name[QR_GENERATION_NAME_BYTES];
    char hidden[NAME_BYTES];
    char *path = NULL;
    char *temporary = NULL;
    int file = -1;
    qr_generation_manifest_name(generation, name);
    snprintf(hidden, sizeof hidden, ".%s.s%03d.tmp", name, server);
    qr_status status = qr_path_join(directory, name, &path);
    status = status != QR_OK ? status : qr_path_join(directory, hidden, &temporary);
    if (status != QR_OK) {
        goto cleanup;
    }
    file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0 || !qr_file_write(file, text, n) || fsync(file) != 0) {
        status = qr_file_error(path, "written", errno);
        goto cleanup;
    }
    int closed = close(file);
    file = -1;
    if (closed != 0 || rename(temporary, path) != 0) {
        status = qr_file_error(path, "written", errno);
        goto cleanup;
    }
    status = qr_directory_sync(directory);
cleanup:
    if (file >= 0) {
        close(file);
    }
    if (status != QR_OK && temporary != NULL) {
        (void)unlink(temporary);
    }
    free(temporary);
    free(path);
    return status;
}

/* In a tier's directory the name says which generation it must be. */
static qr_status check_name(const char *path, const qr_manifest *manifest)
{
    const char *slash = strrchr(path, '/');
    int64_t generation = 0;
    int server = 0;
    bool replica = false;
    qr_generation_file_kind kind = QR_FILE_TEMPORARY;
    if (qr_generation_parse_name(slash == NULL ? path : slash + 1, &generation, &server, &replica, &kind) &&
        kind == QR_FILE_MANIFEST && generation != manifest->generation) {
        return qr_error(QR_DATA, "%s: belongs to generation %" PRId64, path, manifest->generation);
    }
    return QR_OK;
}

qr_status qr_manifest_load(const char *path, qr_manifest **out)
{
    int file = -1;
    int64_t bytes = 0;
    char *text = NULL;
    qr_manifest *manifest = NULL;
    qr_status status = qr_file_open(path, &file, &bytes);
    if (status != QR_OK) {
        return status;
    }
    if (bytes > most_bytes) {
        status = qr_error(QR_DATA, "%s: too long for a manifest", path);
    }
    status = status != QR_OK ? status : qr_allocate((size_t)bytes, 1, "a manifest", (void **)&text);
    status = status != QR_OK ? status : qr_file_read_at(file, path, text, (size_t)bytes, 0);
    status = status != QR_OK ? status : qr_manifest_parse(path, text, (size_t)bytes, &manifest);
    status = status != QR_OK ? status : check_name(path, manifest);
    close(file);
    free(text);
    if (status != QR_OK) {
        qr_manifest_destroy(manifest);
        return status;
    }
    *out = manifest;
    return QR_OK;
}

qr_status qr_manifest_remove(const char *directory, int64_t generation)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_manifest_name(generation, name);
    qr_status status = qr_path_join(directory, name, &path);
    if (status == QR_OK && unlink(path) != 0) {
        status = errno == ENOENT ? QR_OK : qr_file_error(path, "removed", errno);
        free(path);
        return status;
    }
    /* Before any of its shares goes, or a crash could bring back a manifest of what is no more. */
    status = status != QR_OK ? status : qr_directory_sync(directory);
    free(path);
    return status;
}
