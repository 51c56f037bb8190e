/* A YAML document as a tree, read with bounded time and memory whatever the text holds.
 *
 * libyaml scans; this part builds the tree, resolves anchors, aliases and merge keys (<<), and refuses what a deck has
 * no use for: several documents, tags, keys that are not plain text, duplicate keys, deep nesting. Aliases share their
 * node instead of copying it, so nested aliases cost nothing. */
#ifndef QR_DECK_YAML_TREE_H
#define QR_DECK_YAML_TREE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum qr_yaml_kind { QR_YAML_SCALAR, QR_YAML_LIST, QR_YAML_MAPPING } qr_yaml_kind;

typedef struct qr_yaml_node qr_yaml_node;

/* One entry of a mapping, or one item of a list (no key). */
typedef struct qr_yaml_entry {
    const qr_yaml_node *key;
    const qr_yaml_node *value;
    bool merged; /* came through a merge key: an own entry of the same name replaces it */
} qr_yaml_entry;

struct qr_yaml_node {
    qr_yaml_kind kind;
    int line;   /* from 1 */
    int column; /* from 1, in characters */
    bool plain; /* a scalar without quotes */
    bool open;  /* its end has not been read yet */
    char *text; /* scalars: terminated, but may hold NUL bytes before text[length] */
    size_t length;
    qr_yaml_entry *entries;
    size_t n_entries;
    size_t entries_capacity;
    struct qr_yaml_node *next; /* of all nodes of the tree, for freeing */
};

typedef struct qr_yaml_tree {
    qr_yaml_node *nodes;
    const qr_yaml_node *root;
} qr_yaml_tree;

/* Reads text (n bytes) into *out. Errors: QR_USAGE "place:line:column: ...". Of an empty text the
 * root is NULL. When `positions` is false (a value from the command line), messages begin with "place: " alone. */
qr_status qr_yaml_read(const char *place, bool positions, const char *text, size_t n, qr_yaml_tree *out);

void qr_yaml_free(qr_yaml_tree *tree);

/* True for a scalar that YAML calls null: nothing, ~ or null, without quotes. */
bool qr_yaml_is_null(const qr_yaml_node *node);

#endif
