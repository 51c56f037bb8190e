/* Decks and keys as text for people: the resolved deck, and the table of keys. */
#include "deck/deck.h"

#include "base/memory.h"
#include "deck/origins.h"
#include "deck/text.h"
#include "deck/value.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { COMMENT_COLUMN = 40 };

typedef struct text_buffer {
    char *text;
    size_t used;
    size_t capacity;
} text_buffer;

static qr_status add(text_buffer *out, const char *format, ...) QR_PRINTF(2, 3);

static qr_status add(text_buffer *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        return qr_error(QR_INTERNAL, "a line of the deck could not be formatted");
    }
    void *text = out->text;
    qr_status status = qr_grow(&text, &out->capacity, out->used + (size_t)n + 1, 1, "the resolved deck");
    if (status != QR_OK) {
        return status;
    }
    out->text = text;
    va_start(args, format);
    (void)vsnprintf(out->text + out->used, (size_t)n + 1, format, args);
    va_end(args);
    out->used += (size_t)n;
    return QR_OK;
}

static void describe_origin(const qr_deck *deck, const qr_key *key, char *out, size_t size)
{
    const qr_origin *origin = &deck->origins->of[key - qr_keys];
    char name[512];
    if (origin->derived) {
        (void)snprintf(out, size, "derived");
    } else if (origin->kind == QR_ORIGIN_DEFAULT) {
        (void)snprintf(out, size, "default");
    } else if (origin->kind == QR_ORIGIN_OVERRIDE) {
        (void)snprintf(out, size, "--set");
    } else {
        (void)snprintf(out, size, "%s:%d", qr_text_escape(deck->name, strlen(deck->name), name, sizeof name),
                       origin->line);
    }
}

/* The line of a key, below its sections; depth: how many those are. */
static qr_status add_key(text_buffer *out, const qr_deck *deck, const qr_key *key, int depth, char *value)
{
    char origin[640];
    describe_origin(deck, key, origin, sizeof origin);
    (void)qr_value_format(key, deck, value, QR_VALUE_BYTES);
    const char *field = strrchr(key->name, '.') + 1;
    int indent = 2 * depth;
    int width = COMMENT_COLUMN - (int)strlen(field) - indent - 2;
    return add(out, "%*s%s: %-*s  # %s%s%s\n", indent, "", field, width > 0 ? width : 0, value,
               key->unit != NULL ? key->unit : "", key->unit != NULL ? "; " : "", origin);
}

/* Opens the sections of a key that are not those of the key before it, which may be NULL. *depth: how many it has. */
static qr_status add_sections(text_buffer *out, const char *name, const char *before, int *depth)
{
    qr_status status = QR_OK;
    bool same = before != NULL;
    int level = 0;
    const char *start = name;
    for (const char *dot = strchr(name, '.'); dot != NULL && status == QR_OK; dot = strchr(start, '.')) {
        same = same && strncmp(name, before, (size_t)(dot - name) + 1) == 0;
        if (!same) {
            status = add(out, "%s%*s%.*s:\n", level == 0 && before != NULL ? "\n" : "", 2 * level, "",
                         (int)(dot - start), start);
        }
        start = dot + 1;
        level++;
    }
    *depth = level;
    return status;
}

qr_status qr_deck_dump(const qr_deck *deck, char **out)
{
    text_buffer buffer = {NULL, 0, 0};
    void *value = NULL;
    qr_status status = qr_allocate(QR_VALUE_BYTES, 1, "a deck value", &value);
    for (size_t i = 0; i < qr_n_keys && status == QR_OK; i++) {
        int depth = 0;
        status = add_sections(&buffer, qr_keys[i].name, i > 0 ? qr_keys[i - 1].name : NULL, &depth);
        if (status == QR_OK) {
            status = add_key(&buffer, deck, &qr_keys[i], depth, value);
        }
    }
    free(value);
    if (status != QR_OK) {
        free(buffer.text);
        return status;
    }
    *out = buffer.text;
    return QR_OK;
}

int qr_deck_compare(const qr_deck *ours, const qr_deck *theirs, char **list)
{
    text_buffer buffer = {NULL, 0, 0};
    void *values = NULL;
    int differ = 0;
    *list = NULL;
    if (qr_allocate(2, QR_VALUE_BYTES, "deck values", &values) != QR_OK) {
        return -1;
    }
    char *our_value = values;
    char *their_value = our_value + QR_VALUE_BYTES;
    for (size_t i = 0; i < qr_n_keys; i++) {
        (void)qr_value_format(&qr_keys[i], ours, our_value, QR_VALUE_BYTES);
        (void)qr_value_format(&qr_keys[i], theirs, their_value, QR_VALUE_BYTES);
        if (!qr_keys[i].changeable && strcmp(our_value, their_value) != 0) {
            differ++;
            (void)add(&buffer, "%s  %s: %s, not %s", differ > 1 ? "\n" : "", qr_keys[i].name, their_value, our_value);
        }
    }
    free(values);
    *list = buffer.text;
    return differ;
}

int qr_deck_print_keys(FILE *out, const char *prefix)
{
    int count = 0;
    for (size_t i = 0; i < qr_n_keys; i++) {
        const qr_key *key = &qr_keys[i];
        if (strncmp(key->name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        char bounds[512];
        qr_value_describe_bounds(key, bounds, sizeof bounds);
        const char *standard = key->standard == NULL      ? "results/<deck>"
                               : key->standard[0] == '\0' ? "\"\""
                                                          : key->standard;
        const char *automatic = !key->has_auto ? "" : bounds[0] != '\0' ? "auto, " : "auto";
        bool more = key->has_auto || bounds[0] != '\0';
        (void)fprintf(out, "%-33s  %-21s  default %-*s%s%s%s\n", key->name, qr_key_type_name(key->type), more ? 14 : 0,
                      standard, more ? "  " : "", automatic, bounds);
        (void)fprintf(out, "%-33s  %s\n", "", key->doc);
        count++;
    }
    return count;
}
