#include "deck/yaml_tree.h"

#include "base/memory.h"
#include "deck/deck.h"
#include "deck/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Far above any deck, low enough that the worst text is refused within a fraction of a second. */
enum { MAX_DEPTH = 32, MAX_NODES = 65536, MAX_ENTRIES = 1024, MAX_ANCHORS = 256, MAX_DIRECTIVES = 8 };

typedef struct anchor {
    char *name;
    qr_yaml_node *node;
} anchor;

typedef struct frame {
    qr_yaml_node *node;
    qr_yaml_node *key; /* of a mapping, waiting for its value */
} frame;

typedef struct reader {
    const char *place;
    bool positions;
    yaml_parser_t parser;
    qr_yaml_tree tree;
    size_t n_nodes; /* nodes and merged entries */
    frame stack[MAX_DEPTH];
    size_t depth;
    anchor anchors[MAX_ANCHORS];
    size_t n_anchors;
} reader;

static qr_status locate(const reader *in, qr_status status, int line, int column)
{
    char place[1024];
    (void)qr_text_escape(in->place, strlen(in->place), place, sizeof place);
    if (in->positions) {
        return qr_error_context(status, "%s:%d:%d", place, line, column);
    }
    return qr_error_context(status, "%s", place);
}

static int line_of(yaml_mark_t mark)
{
    return (int)mark.line + 1;
}

static int column_of(yaml_mark_t mark)
{
    return (int)mark.column + 1;
}

/* Line and column of the byte at `offset`. */
static void find_position(const char *text, size_t offset, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            *line += 1;
            *column = 1;
        } else if (((unsigned char)text[i] & 0xC0) != 0x80) {
            *column += 1;
        }
    }
}

/* Refuses what libyaml would report without a place, or would take quadratic time to digest. */
static qr_status check_text(const reader *in, const char *text, size_t n)
{
    qr_status status = QR_OK;
    int directives = 0;
    size_t at = 0;
    while (at < n && status == QR_OK) {
        uint32_t c = 0;
        size_t length = qr_text_decode(text + at, n - at, &c);
        if (length == 0) {
            status = qr_error(QR_USAGE, "the byte 0x%02X is not UTF-8 text", (unsigned char)text[at]);
        } else if (c == 0) {
            status = qr_error(QR_USAGE, "a NUL byte; a deck is text");
        } else if (!qr_text_printable(c) && c != '\n' && c != '\r' && c != '\t') {
            status = qr_error(QR_USAGE, "the control character U+%04X; a deck is printable text", (unsigned)c);
        } else if (c == '%' && (at == 0 || text[at - 1] == '\n' || text[at - 1] == '\r') &&
                   ++directives > MAX_DIRECTIVES) {
            status = qr_error(QR_USAGE, "more than %d %% directives", (int)MAX_DIRECTIVES);
        } else {
            at += length;
        }
    }
    if (status != QR_OK) {
        int line = 0;
        int column = 0;
        find_position(text, at, &line, &column);
        return locate(in, status, line, column);
    }
    return QR_OK;
}

static qr_status report_parser(const reader *in, const char *text, size_t n)
{
    const yaml_parser_t *parser = &in->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return qr_error(QR_RESOURCE, "out of memory while reading %s", in->place);
    }
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
    int line = line_of(parser->problem_mark);
    int column = column_of(parser->problem_mark);
    if (parser->error == YAML_READER_ERROR) {
        find_position(text, parser->problem_offset < n ? parser->problem_offset : n, &line, &column);
    }
    if (parser->context != NULL) {
        return locate(in, qr_error(QR_USAGE, "not YAML: %s %s", parser->context, problem), line, column);
    }
    return locate(in, qr_error(QR_USAGE, "not YAML: %s", problem), line, column);
}

static qr_status count_node(reader *in, int line, int column)
{
    if (++in->n_nodes > MAX_NODES) {
        return locate(in, qr_error(QR_USAGE, "more than %d values; this is no deck", (int)MAX_NODES), line, column);
    }
    return QR_OK;
}

static qr_status add_node(reader *in, qr_yaml_kind kind, const yaml_event_t *event, qr_yaml_node **out)
{
    int line = line_of(event->start_mark);
    int column = column_of(event->start_mark);
    qr_status status = count_node(in, line, column);
    if (status != QR_OK) {
        return status;
    }
    void *memory = NULL;
    status = qr_allocate(1, sizeof(qr_yaml_node), "the deck's values", &memory);
    if (status != QR_OK) {
        return status;
    }
    qr_yaml_node *node = memory;
    node->kind = kind;
    node->line = line;
    node->column = column;
    node->next = in->tree.nodes;
    in->tree.nodes = node;
    if (kind == QR_YAML_SCALAR) {
        node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        node->length = event->data.scalar.length;
        status = qr_allocate(node->length + 1, 1, "the deck's text", &memory);
        if (status != QR_OK) {
            return status;
        }
        node->text = memory;
        memcpy(node->text, event->data.scalar.value, node->length);
    }
    *out = node;
    return QR_OK;
}

static bool same_text(const qr_yaml_node *a, const qr_yaml_node *b)
{
    return a->length == b->length && memcmp(a->text, b->text, a->length) == 0;
}

/* Adds an entry; an own key wins over a merged one, the first of several merged ones stands. */
static qr_status add_entry(reader *in, qr_yaml_node *parent, const qr_yaml_node *key, const qr_yaml_node *value,
                           bool merged)
{
    int line = key != NULL ? key->line : value->line;
    int column = key != NULL ? key->column : value->column;
    for (size_t i = 0; key != NULL && i < parent->n_entries; i++) {
        qr_yaml_entry *entry = &parent->entries[i];
        if (!same_text(entry->key, key)) {
            continue;
        }
        if (merged) {
            return QR_OK;
        }
        if (!entry->merged) {
            char shown[QR_SHOWN_BYTES];
            qr_error(QR_USAGE, "%s: given twice (first in line %d)", qr_text_show(key->text, key->length, shown),
                     entry->key->line);
            return locate(in, QR_USAGE, line, column);
        }
        *entry = (qr_yaml_entry){key, value, false};
        return QR_OK;
    }
    if (parent->n_entries == MAX_ENTRIES) {
        qr_error(QR_USAGE, "more than %d entries in one %s", (int)MAX_ENTRIES, key != NULL ? "section" : "list");
        return locate(in, QR_USAGE, line, column);
    }
    void *entries = parent->entries;
    qr_status status =
        qr_grow(&entries, &parent->entries_capacity, parent->n_entries + 1, sizeof(qr_yaml_entry), "the deck's values");
    if (status != QR_OK) {
        return status;
    }
    parent->entries = entries;
    parent->entries[parent->n_entries++] = (qr_yaml_entry){key, value, merged};
    return QR_OK;
}

/* The value of a merge key: a mapping, or a list of mappings (YAML 1.1, https://yaml.org/type/merge.html). */
static qr_status merge(reader *in, qr_yaml_node *parent, const qr_yaml_node *from, bool in_list)
{
    qr_status status = QR_OK;
    if (from->kind == QR_YAML_LIST && !in_list) {
        for (size_t i = 0; i < from->n_entries && status == QR_OK; i++) {
            status = merge(in, parent, from->entries[i].value, true);
        }
        return status;
    }
    if (from->kind != QR_YAML_MAPPING) {
        qr_error(QR_USAGE, "<< merges a section or a list of sections, this is neither");
        return locate(in, QR_USAGE, from->line, from->column);
    }
    for (size_t i = 0; i < from->n_entries && status == QR_OK; i++) {
        status = count_node(in, from->line, from->column);
        if (status == QR_OK) {
            status = add_entry(in, parent, from->entries[i].key, from->entries[i].value, true);
        }
    }
    return status;
}

/* Puts a complete node, or one that is just beginning, where it belongs. */
static qr_status place_node(reader *in, qr_yaml_node *node, int line, int column)
{
    if (in->depth == 0) {
        in->tree.root = node;
        return QR_OK;
    }
    frame *top = &in->stack[in->depth - 1];
    if (top->node->kind == QR_YAML_LIST) {
        return add_entry(in, top->node, NULL, node, false);
    }
    if (top->key == NULL) {
        if (node->kind != QR_YAML_SCALAR) {
            return locate(in, qr_error(QR_USAGE, "a key must be a word, not a list or a section"), line, column);
        }
        top->key = node;
        return QR_OK;
    }
    qr_yaml_node *key = top->key;
    top->key = NULL;
    if (key->plain && strcmp(key->text, "<<") == 0) {
        if (node->open) {
            /* A mapping written in place is merged when it is complete. */
            top->key = key;
            return QR_OK;
        }
        return merge(in, top->node, node, false);
    }
    return add_entry(in, top->node, key, node, false);
}

static qr_status set_anchor(reader *in, const yaml_char_t *name, qr_yaml_node *node)
{
    if (name == NULL) {
        return QR_OK;
    }
    for (size_t i = 0; i < in->n_anchors; i++) {
        if (strcmp(in->anchors[i].name, (const char *)name) == 0) {
            in->anchors[i].node = node;
            return QR_OK;
        }
    }
    if (in->n_anchors == MAX_ANCHORS) {
        return locate(in, qr_error(QR_USAGE, "more than %d anchors", (int)MAX_ANCHORS), node->line, node->column);
    }
    size_t bytes = strlen((const char *)name) + 1;
    void *copy = NULL;
    qr_status status = qr_allocate(bytes, 1, "an anchor's name", &copy);
    if (status != QR_OK) {
        return status;
    }
    memcpy(copy, name, bytes);
    in->anchors[in->n_anchors++] = (anchor){copy, node};
    return QR_OK;
}

static qr_status take_alias(reader *in, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    int line = line_of(event->start_mark);
    int column = column_of(event->start_mark);
    char shown[QR_SHOWN_BYTES];
    (void)qr_text_show(name, strlen(name), shown);
    for (size_t i = 0; i < in->n_anchors; i++) {
        if (strcmp(in->anchors[i].name, name) != 0) {
            continue;
        }
        if (in->anchors[i].node->open) {
            qr_error(QR_USAGE, "the alias *%s stands inside what it names", shown);
            return locate(in, QR_USAGE, line, column);
        }
        qr_status status = count_node(in, line, column);
        return status != QR_OK ? status : place_node(in, in->anchors[i].node, line, column);
    }
    return locate(in, qr_error(QR_USAGE, "the alias *%s has no anchor &%s before it", shown, shown), line, column);
}

static qr_status refuse_tag(const reader *in, const yaml_char_t *tag, const yaml_event_t *event)
{
    if (tag == NULL) {
        return QR_OK;
    }
    char shown[QR_SHOWN_BYTES];
    (void)qr_text_show((const char *)tag, strlen((const char *)tag), shown);
    qr_error(QR_USAGE, "the tag %s: decks have no tags, each key knows its type", shown);
    return locate(in, QR_USAGE, line_of(event->start_mark), column_of(event->start_mark));
}

static qr_status begin_collection(reader *in, qr_yaml_kind kind, const yaml_event_t *event, const yaml_char_t *tag,
                                  const yaml_char_t *name)
{
    int line = line_of(event->start_mark);
    int column = column_of(event->start_mark);
    qr_yaml_node *node = NULL;
    qr_status status = refuse_tag(in, tag, event);
    if (status == QR_OK && in->depth == MAX_DEPTH) {
        status = locate(in, qr_error(QR_USAGE, "nested more than %d deep", (int)MAX_DEPTH), line, column);
    }
    if (status == QR_OK) {
        status = add_node(in, kind, event, &node);
    }
    if (status == QR_OK) {
        status = set_anchor(in, name, node);
    }
    if (status == QR_OK) {
        node->open = true;
        status = place_node(in, node, line, column);
    }
    if (status == QR_OK) {
        in->stack[in->depth++] = (frame){node, NULL};
    }
    return status;
}

static qr_status end_collection(reader *in)
{
    qr_yaml_node *node = in->stack[--in->depth].node;
    node->open = false;
    if (in->depth > 0) {
        frame *top = &in->stack[in->depth - 1];
        if (top->node->kind == QR_YAML_MAPPING && top->key != NULL) {
            top->key = NULL;
            return merge(in, top->node, node, false);
        }
    }
    return QR_OK;
}

static qr_status take_scalar(reader *in, const yaml_event_t *event)
{
    /* "!" alone, the non-specific tag, arrives as a tag as well and is refused with the others. */
    qr_status status = refuse_tag(in, event->data.scalar.tag, event);
    qr_yaml_node *node = NULL;
    if (status == QR_OK) {
        status = add_node(in, QR_YAML_SCALAR, event, &node);
    }
    if (status == QR_OK) {
        status = set_anchor(in, event->data.scalar.anchor, node);
    }
    return status != QR_OK ? status : place_node(in, node, node->line, node->column);
}

static qr_status take_event(reader *in, const yaml_event_t *event, int *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) {
            qr_error(QR_USAGE, "a second document begins here; a deck is a single one");
            return locate(in, QR_USAGE, line_of(event->start_mark), column_of(event->start_mark));
        }
        return QR_OK;
    case YAML_ALIAS_EVENT: return take_alias(in, event);
    case YAML_SCALAR_EVENT: return take_scalar(in, event);
    case YAML_SEQUENCE_START_EVENT:
        return begin_collection(in, QR_YAML_LIST, event, event->data.sequence_start.tag,
                                event->data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
        return begin_collection(in, QR_YAML_MAPPING, event, event->data.mapping_start.tag,
                                event->data.mapping_start.anchor);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: return end_collection(in);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT: return QR_OK;
    }
    return QR_OK;
}

static qr_status read_events(reader *in, const char *text, size_t n)
{
    qr_status status = QR_OK;
    int documents = 0;
    bool more = true;
    while (more && status == QR_OK) {
        yaml_event_t event;
        if (yaml_parser_parse(&in->parser, &event) == 0) {
            return report_parser(in, text, n);
        }
        more = event.type != YAML_STREAM_END_EVENT;
        status = take_event(in, &event, &documents);
        yaml_event_delete(&event);
    }
    return status;
}

qr_status qr_yaml_read(const char *place, bool positions, const char *text, size_t n, qr_yaml_tree *out)
{
    static const char mark[] = "\xEF\xBB\xBF";
    if (n >= 3 && memcmp(text, mark, 3) == 0) {
        text += 3;
        n -= 3;
    }
    void *memory = NULL;
    qr_status status = qr_allocate(1, sizeof(reader), "reading a deck", &memory);
    if (status != QR_OK) {
        return status;
    }
    reader *in = memory;
    in->place = place;
    in->positions = positions;
    if (n > QR_DECK_MAX_BYTES) {
        qr_error(QR_USAGE, "%zu bytes; a deck has at most %d", n, (int)QR_DECK_MAX_BYTES);
        status = locate(in, QR_USAGE, 1, 1);
    } else {
        status = check_text(in, text, n);
    }
    if (status == QR_OK && yaml_parser_initialize(&in->parser) == 0) {
        status = qr_error_memory(sizeof in->parser, "the YAML parser");
    } else if (status == QR_OK) {
        yaml_parser_set_encoding(&in->parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&in->parser, (const unsigned char *)text, n);
        status = read_events(in, text, n);
        yaml_parser_delete(&in->parser);
    }
    for (size_t i = 0; i < in->n_anchors; i++) {
        free(in->anchors[i].name);
    }
    if (status == QR_OK) {
        *out = in->tree;
    } else {
        qr_yaml_free(&in->tree);
    }
    free(in);
    return status;
}

void qr_yaml_free(qr_yaml_tree *tree)
{
    qr_yaml_node *node = tree->nodes;
    while (node != NULL) {
        qr_yaml_node *next = node->next;
        free(node->text);
        free(node->entries);
        free(node);
        node = next;
    }
    *tree = (qr_yaml_tree){NULL, NULL};
}

bool qr_yaml_is_null(const qr_yaml_node *node)
{
    return node->kind == QR_YAML_SCALAR && node->plain &&
           (node->length == 0 || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}
