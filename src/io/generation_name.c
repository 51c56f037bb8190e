/* Names of a generation's files, and what can be done by name alone. */
#include "io/file.h"
#include "io/generation.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void qr_generation_file_name(int64_t generation, int server, bool replica, const char *suffix,
                             char out[QR_GENERATION_NAME_BYTES])
{
    snprintf(out, QR_GENERATION_NAME_BYTES, "generation-%08" PRId64 ".s%03d%s.%s", generation, server,
             replica ? ".replica" : "", suffix);
}

void qr_generation_manifest_name(int64_t generation, char out[QR_GENERATION_NAME_BYTES])
{
    snprintf(out, QR_GENERATION_NAME_BYTES, "generation-%08" PRId64 ".manifest", generation);
}

/* --- reading names --- */

static bool skip(const char **at, const char *word)
{
    size_t n = strlen(word);
    bool there = strncmp(*at, word, n) == 0;
    *at += there ? n : 0;
    return there;
}

/* Digits only. Whether there are as many as we would write, comparing with the name we would give tells. */
static bool skip_number(const char **at, int64_t most, int64_t *out)
{
    int64_t value = 0;
    const char *start = *at;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        int digit = **at - '0';
        if (value > (most - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return *at != start;
}

static bool ends_in_temporary(const char *name, size_t *body)
{
    static const char ending[] = ".tmp";
    size_t n = strlen(name);
    *body = n - (sizeof ending - 1);
    return name[0] == '.' && n > sizeof ending && strcmp(name + *body, ending) == 0;
}

/* A name without the dot and the ending of a temporary one. *server -1: a manifest, whose temporary names carry the
 * server that writes. */
static bool parse_plain(const char *name, bool temporary, int64_t *generation, int *server, bool *replica,
                        qr_generation_file_kind *kind)
{
    static const char *const suffixes[] = {
        [QR_FILE_DATA] = "h5", [QR_FILE_INDEX] = "index", [QR_FILE_BAD_MARK] = "h5.bad"};
    static const qr_generation_file_kind shares[] = {QR_FILE_DATA, QR_FILE_INDEX, QR_FILE_BAD_MARK};
    char made[QR_GENERATION_NAME_BYTES];
    int64_t number = 0;
    const char *at = name;
    if (!skip(&at, "generation-") || !skip_number(&at, INT64_MAX, generation)) {
        return false;
    }
    *server = -1;
    *replica = false;
    qr_generation_manifest_name(*generation, made);
    size_t n = strlen(made);
    if (strncmp(name, made, n) == 0) {
        *kind = QR_FILE_MANIFEST;
        return name[n] == '\0' || (temporary && name[n] == '.');
    }
    if (!skip(&at, ".s") || !skip_number(&at, INT_MAX, &number)) {
        return false;
    }
    *server = (int)number;
    *replica = skip(&at, ".replica");
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        qr_generation_file_name(*generation, *server, *replica, suffixes[shares[i]], made);
        if (strcmp(name, made) == 0) {
            *kind = shares[i];
            return true;
        }
    }
    return false;
}

bool qr_generation_parse_name(const char *name, int64_t *generation, int *server, bool *replica,
                              qr_generation_file_kind *kind)
{
    char plain[NAME_MAX + 1];
    size_t body = 0;
    if (!ends_in_temporary(name, &body)) {
        return parse_plain(name, false, generation, server, replica, kind);
    }
    if (body - 1 >= sizeof plain) {
        return false;
    }
    memcpy(plain, name + 1, body - 1);
    plain[body - 1] = '\0';
    bool ours = parse_plain(plain, true, generation, server, replica, kind);
    *kind = QR_FILE_TEMPORARY;
    return ours;
}

/* --- by name --- */

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

qr_status qr_generation_remove(const char *directory, int64_t generation, int server, bool replica)
{
    /* The data first: they take the space. */
    static const char *const suffixes[] = {"h5", "index", "h5.bad"};
    qr_status first = QR_OK;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char name[QR_GENERATION_NAME_BYTES];
        qr_generation_file_name(generation, server, replica, suffixes[i], name);
        qr_status status = remove_file(directory, name);
        first = first == QR_OK ? status : first;
    }
    return first;
}

qr_status qr_generation_mark_bad(const char *directory, int64_t generation, int server, bool replica, const char *why)
{
    char name[QR_GENERATION_NAME_BYTES];
    char line[QR_MESSAGE_BYTES + 1];
    qr_generation_file_name(generation, server, replica, "h5.bad", name);
    int n = snprintf(line, sizeof line, "%s\n", why);
    return qr_file_replace(directory, name, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1, false);
}

qr_status qr_generation_unmark(const char *directory, int64_t generation, int server, bool replica)
{
    char name[QR_GENERATION_NAME_BYTES];
    qr_generation_file_name(generation, server, replica, "h5.bad", name);
    return remove_file(directory, name);
}

bool qr_generation_is_marked(const char *directory, int64_t generation, int server, bool replica)
{
    char name[QR_GENERATION_NAME_BYTES];
    char *path = NULL;
    qr_generation_file_name(generation, server, replica, "h5.bad", name);
    bool marked = qr_path_join(directory, name, &path) == QR_OK && access(path, F_OK) == 0;
    free(path);
    return marked;
}
