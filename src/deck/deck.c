#include "deck/deck.h"

#include "base/memory.h"
#include "deck/origins.h"
#include "deck/text.h"
#include "deck/value.h"
#include "deck/yaml_tree.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 160 };

static qr_origin *origin_of(const qr_deck *deck, const qr_key *key)
{
    return &deck->origins->of[key - qr_keys];
}

static const char *show_name(const qr_deck *deck, char *out, size_t size)
{
    return qr_text_escape(deck->name, strlen(deck->name), out, size);
}

static qr_status locate(const qr_deck *deck, qr_status status, int line, int column)
{
    char name[1024];
    return qr_error_context(status, "%s:%d:%d", show_name(deck, name, sizeof name), line, column);
}

static qr_status copy_text(const char *text, size_t n, const char *what, char **out)
{
    void *copy = NULL;
    qr_status status = qr_allocate(n + 1, 1, what, &copy);
    if (status == QR_OK) {
        memcpy(copy, text, n);
        *out = copy;
    }
    return status;
}

/* Every field a key has, so that no caller meets a NULL string. Lists' defaults are empty. */
static qr_status set_defaults(qr_deck *deck)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < qr_n_keys && status == QR_OK; i++) {
        const char *text = qr_keys[i].standard;
        if (text != NULL && !qr_key_is_list(&qr_keys[i])) {
            status = qr_value_parse(&qr_keys[i], text, strlen(text), deck);
            if (status != QR_OK) {
                status = qr_error_context(QR_INTERNAL, "default of %s", qr_keys[i].name);
            }
        }
    }
    return status;
}

/* results/<deck name without folders and .yml>; what a path had better not hold becomes an underscore. */
static qr_status set_directory(qr_deck *deck)
{
    static const char folder[] = "results/";
    const char *slash = strrchr(deck->name, '/');
    const char *base = slash != NULL ? slash + 1 : deck->name;
    size_t n = strlen(base);
    static const char *const endings[] = {".yml", ".yaml"};
    for (size_t i = 0; i < 2; i++) {
        size_t ending = strlen(endings[i]);
        if (n >= ending && strcmp(base + n - ending, endings[i]) == 0) {
            n -= ending;
            break;
        }
    }
    n = n > 200 ? 200 : n;
    if (n == 0 || base[0] == '.') {
        base = "run";
        n = 3;
    }
    char directory[sizeof folder + 200];
    size_t used = (size_t)snprintf(directory, sizeof directory, "%s%.*s", folder, (int)n, base);
    for (size_t i = sizeof folder - 1; i < used; i++) {
        unsigned char c = (unsigned char)directory[i];
        directory[i] = (char)(c <= 0x20 || c >= 0x7F ? '_' : c);
    }
    return copy_text(directory, used, "the results directory", &deck->output.directory);
}

static qr_status create(const char *name, qr_deck **out)
{
    void *memory = NULL;
    qr_status status = qr_allocate(1, sizeof(qr_deck), "the deck", &memory);
    if (status != QR_OK) {
        return status;
    }
    qr_deck *deck = memory;
    status = copy_text(name, strlen(name), "the deck's name", &deck->name);
    if (status == QR_OK) {
        status = qr_allocate(1, sizeof *deck->origins, "the deck", &memory);
    }
    if (status == QR_OK) {
        deck->origins = memory;
        status = qr_allocate(qr_n_keys, sizeof(qr_origin), "the deck", &memory);
    }
    if (status == QR_OK) {
        deck->origins->of = memory;
        status = set_defaults(deck);
    }
    if (status == QR_OK) {
        status = set_directory(deck);
    }
    if (status != QR_OK) {
        qr_deck_destroy(deck);
        return status;
    }
    *out = deck;
    return QR_OK;
}

void qr_deck_destroy(qr_deck *deck)
{
    if (deck == NULL) {
        return;
    }
    for (size_t i = 0; i < qr_n_keys; i++) {
        if (qr_keys[i].type == QR_KEY_TEXT) {
            free(*(char **)(void *)((char *)deck + qr_keys[i].offset));
        }
        if (deck->origins != NULL && deck->origins->of != NULL) {
            free(deck->origins->of[i].override);
        }
    }
    if (deck->origins != NULL) {
        free(deck->origins->of);
    }
    free(deck->origins);
    free(deck->name);
    free(deck);
}

static qr_status unknown_key(const char *path, bool section)
{
    char nearest[QR_KEY_NAME_BYTES];
    char known[256];
    const char *what = section ? "section" : "key";
    if (qr_key_suggest(path, nearest)) {
        return qr_error(QR_USAGE, "unknown %s; did you mean %s?", what, nearest);
    }
    if (qr_key_list_section(path, known, sizeof known)) {
        return qr_error(QR_USAGE, "unknown %s; %s", what, known);
    }
    return qr_error(QR_USAGE, "unknown %s; `quorate keys` lists them", what);
}

/* "a whole number", "an interval". */
static const char *expected(const qr_key *key, char out[48])
{
    const char *type = qr_key_type_name(key->type);
    (void)snprintf(out, 48, "%s %s", strchr("aeiou", type[0]) != NULL ? "an" : "a", type);
    return out;
}

static qr_status wrong_kind(const qr_key *key, const qr_yaml_node *node)
{
    static const char *const found[] = {
        [QR_YAML_SCALAR] = "a single value", [QR_YAML_LIST] = "a list", [QR_YAML_MAPPING] = "a section"};
    char type[48];
    return qr_error(QR_USAGE, "expected %s, found %s", expected(key, type), found[node->kind]);
}

static qr_status no_value(const qr_key *key)
{
    char type[48];
    return qr_error(QR_USAGE, "has no value; expected %s", expected(key, type));
}

/* Sets a key from a node; the message of an error begins with the item's number where there is one. *at is where the
 * trouble is. */
static qr_status set_value(qr_deck *deck, const qr_key *key, const qr_yaml_node *node, const qr_yaml_node **at)
{
    *at = node;
    if (qr_yaml_is_null(node)) {
        return no_value(key);
    }
    if (!qr_key_is_list(key)) {
        return node->kind == QR_YAML_SCALAR ? qr_value_parse(key, node->text, node->length, deck)
                                            : wrong_kind(key, node);
    }
    if (node->kind != QR_YAML_LIST) {
        return wrong_kind(key, node);
    }
    qr_value_clear_list(key, deck);
    for (size_t i = 0; i < node->n_entries; i++) {
        const qr_yaml_node *item = node->entries[i].value;
        *at = item;
        qr_status status = item->kind == QR_YAML_SCALAR
                               ? qr_value_parse(key, item->text, item->length, deck)
                               : qr_error(QR_USAGE, "expected a single value, found a list or a section");
        if (status != QR_OK) {
            return qr_error_context(status, "item %zu", i + 1);
        }
    }
    return QR_OK;
}

/* A key given with dots, as sections within sections: "run: {seed: ...}" for "run.seed". */
static void show_nested(const char *name, char *out, size_t size)
{
    size_t used = 0;
    size_t depth = 0;
    const char *start = name;
    for (const char *dot = strchr(start, '.'); dot != NULL && used < size; dot = strchr(start, '.')) {
        used += (size_t)snprintf(out + used, size - used, "%.*s: {", (int)(dot - start), start);
        start = dot + 1;
        depth++;
    }
    used += used < size ? (size_t)snprintf(out + used, size - used, "%s: ...", start) : 0;
    for (; depth > 0 && used + 1 < size; depth--) {
        out[used++] = '}';
        out[used] = '\0';
    }
}

/* Takes a mapping whose keys stand below `prefix` ("" or "run."). The table's sections bound the recursion. */
static qr_status take_mapping(qr_deck *deck, const char *prefix, const qr_yaml_node *mapping)
{
    qr_status status = QR_OK;
    for (size_t i = 0; i < mapping->n_entries && status == QR_OK; i++) {
        const qr_yaml_node *name = mapping->entries[i].key;
        const qr_yaml_node *value = mapping->entries[i].value;
        char shown[QR_SHOWN_BYTES];
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s%s", prefix, qr_text_show(name->text, name->length, shown));
        const qr_key *key = qr_key_find(path);
        const char *dot = strchr(shown, '.');
        if (key != NULL && dot != NULL) {
            /* Taken as it stands, a key could be given twice without anybody noticing. */
            char nested[2 * PATH_BYTES];
            show_nested(shown, nested, sizeof nested);
            qr_error(QR_USAGE, "%s: in a deck this is `%s`", path, nested);
            return locate(deck, QR_USAGE, name->line, name->column);
        }
        if (key != NULL) {
            const qr_yaml_node *at = value;
            status = set_value(deck, key, value, &at);
            if (status != QR_OK) {
                return locate(deck, qr_error_context(status, "%s", path), at->line, at->column);
            }
            qr_origin *origin = origin_of(deck, key);
            origin->kind = QR_ORIGIN_DECK;
            origin->line = value->line;
            origin->column = value->column;
        } else if (!qr_key_is_section(path)) {
            status = unknown_key(path, prefix[0] == '\0');
            return locate(deck, qr_error_context(status, "%s", path), name->line, name->column);
        } else if (value->kind == QR_YAML_MAPPING) {
            char below[PATH_BYTES + 1];
            (void)snprintf(below, sizeof below, "%s.", path);
            status = take_mapping(deck, below, value);
        } else if (!qr_yaml_is_null(value)) {
            qr_error(QR_USAGE, "%s: a section holds keys, this is %s", path,
                     value->kind == QR_YAML_LIST ? "a list" : "a single value");
            return locate(deck, QR_USAGE, value->line, value->column);
        }
    }
    return status;
}

static qr_status take_text(qr_deck *deck, const char *text, size_t n)
{
    qr_yaml_tree tree = {NULL, NULL};
    qr_status status = qr_yaml_read(deck->name, true, text, n, &tree);
    if (status != QR_OK) {
        return status;
    }
    if (tree.root == NULL || qr_yaml_is_null(tree.root)) {
        status = locate(deck, qr_error(QR_USAGE, "the deck is empty"), 1, 1);
    } else if (tree.root->kind != QR_YAML_MAPPING) {
        qr_error(QR_USAGE, "a deck is made of sections such as agents: and network:, this is %s",
                 tree.root->kind == QR_YAML_LIST ? "a list" : "a single value");
        status = locate(deck, QR_USAGE, tree.root->line, tree.root->column);
    } else {
        status = take_mapping(deck, "", tree.root);
    }
    qr_yaml_free(&tree);
    return status;
}

/* Lists are YAML ("[1, 2]"); everything else is taken as it stands, so that no shell quoting is needed twice. */
static qr_status take_override_value(qr_deck *deck, const qr_key *key, const char *text)
{
    if (!qr_key_is_list(key)) {
        return qr_value_parse(key, text, strlen(text), deck);
    }
    qr_yaml_tree tree = {NULL, NULL};
    qr_status status = qr_yaml_read("as a list", false, text, strlen(text), &tree);
    if (status != QR_OK) {
        return status;
    }
    const qr_yaml_node *at = NULL;
    status = tree.root == NULL ? no_value(key) : set_value(deck, key, tree.root, &at);
    qr_yaml_free(&tree);
    return status;
}

static qr_status take_override(qr_deck *deck, const char *text)
{
    char path[PATH_BYTES];
    char shown[QR_SHOWN_BYTES];
    const char *equals = strchr(text, '=');
    qr_status status = QR_OK;
    size_t n = equals != NULL ? (size_t)(equals - text) : 0;
    if (equals == NULL || n == 0) {
        status = qr_error(QR_USAGE, "expected key=value, such as run.seed=7");
    } else {
        (void)qr_text_show(text, n, shown);
        (void)snprintf(path, sizeof path, "%s", shown);
        const qr_key *key = qr_key_find(path);
        if (key == NULL && qr_key_is_section(path)) {
            status = qr_error(QR_USAGE, "%s is a section; set one of its keys", path);
        } else if (key == NULL) {
            status = unknown_key(path, false);
        } else {
            status = take_override_value(deck, key, equals + 1);
        }
        if (status == QR_OK) {
            qr_origin *origin = origin_of(deck, key);
            char *copy = NULL;
            status = copy_text(text, strlen(text), "an override", &copy);
            if (status == QR_OK) {
                free(origin->override);
                origin->override = copy;
                origin->kind = QR_ORIGIN_OVERRIDE;
                return QR_OK;
            }
        }
    }
    return qr_error_context(status, "--set %s", qr_text_show(text, strlen(text), shown));
}

qr_status qr_deck_parse(const char *name, const char *text, size_t n, const char *const *overrides, int n_overrides,
                        qr_deck **out)
{
    qr_deck *deck = NULL;
    qr_status status = create(name, &deck);
    if (status != QR_OK) {
        return status;
    }
    status = take_text(deck, text, n);
    for (int i = 0; i < n_overrides && status == QR_OK; i++) {
        status = take_override(deck, overrides[i]);
    }
    if (status == QR_OK) {
        status = qr_deck_check(deck);
    }
    if (status != QR_OK) {
        qr_deck_destroy(deck);
        return status;
    }
    *out = deck;
    return QR_OK;
}

qr_status qr_origin_locate(const qr_deck *deck, const qr_key *key, qr_status status)
{
    const qr_origin *origin = origin_of(deck, key);
    char shown[QR_SHOWN_BYTES];
    char name[1024];
    if (origin->kind == QR_ORIGIN_OVERRIDE && !origin->derived) {
        return qr_error_context(status, "--set %s", qr_text_show(origin->override, strlen(origin->override), shown));
    }
    if (origin->kind == QR_ORIGIN_DECK && !origin->derived) {
        return locate(deck, qr_error_context(status, "%s", key->name), origin->line, origin->column);
    }
    status = qr_error_context(status, "%s (%s)", key->name, origin->derived ? "derived" : "default");
    return qr_error_context(status, "%s", show_name(deck, name, sizeof name));
}

qr_status qr_deck_complain(const qr_deck *deck, const char *key, const char *format, ...)
{
    char message[QR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    const qr_key *found = qr_key_find(key);
    if (found == NULL) {
        return qr_error(QR_INTERNAL, "%s: %s (no such key)", key, message);
    }
    return qr_origin_locate(deck, found, qr_error(QR_USAGE, "%s", message));
}

bool qr_deck_was_set(const qr_deck *deck, const char *key)
{
    const qr_key *found = qr_key_find(key);
    return found != NULL && origin_of(deck, found)->kind != QR_ORIGIN_DEFAULT;
}

bool qr_deck_is_default(const qr_deck *deck, const char *key)
{
    const qr_key *found = qr_key_find(key);
    qr_deck *untouched = NULL;
    if (found == NULL || create(deck->name, &untouched) != QR_OK) {
        return false;
    }
    char value[QR_VALUE_BYTES];
    char standard[QR_VALUE_BYTES];
    (void)qr_value_format(found, deck, value, sizeof value);
    (void)qr_value_format(found, untouched, standard, sizeof standard);
    qr_deck_destroy(untouched);
    return strcmp(value, standard) == 0;
}

void qr_deck_mark_derived(qr_deck *deck, const char *key)
{
    const qr_key *found = qr_key_find(key);
    if (found != NULL) {
        origin_of(deck, found)->derived = true;
    }
}
