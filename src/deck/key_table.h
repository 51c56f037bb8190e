/* The one table of deck keys. Parsing, bounds, defaults, `quorate keys` and the dump all read it; a key is added by a
 * field in qr_deck and a line here. */
#ifndef QR_DECK_KEY_TABLE_H
#define QR_DECK_KEY_TABLE_H

#include "deck/deck.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Enough for every key of the table with its section. */
enum { QR_KEY_NAME_BYTES = 64 };

typedef enum qr_key_type {
    QR_KEY_INT,      /* int64_t */
    QR_KEY_REAL,     /* double */
    QR_KEY_BOOL,     /* bool */
    QR_KEY_CHOICE,   /* int: index into choices */
    QR_KEY_TEXT,     /* char * */
    QR_KEY_SIZE,     /* int64_t, bytes */
    QR_KEY_DURATION, /* double, seconds */
    QR_KEY_INTERVAL, /* qr_interval */
    QR_KEY_FRACTION, /* qr_fraction */
    QR_KEY_INTS,     /* qr_list_int */
    QR_KEY_REALS,    /* qr_list_real */
    QR_N_KEY_TYPES
} qr_key_type;

typedef struct qr_key {
    const char *name; /* "agents.count" */
    size_t offset;    /* of the field in qr_deck */
    const char *unit;
    const char *standard; /* the default, as it would be written in a deck; NULL: worked out from the deck's name */
    const char *doc;
    int64_t least; /* integers, sizes and items of integer lists */
    int64_t most;
    double low; /* reals, durations and items of real lists */
    double high;
    int64_t auto_value;         /* outside least .. most */
    int64_t max_items;          /* lists */
    const char *const *choices; /* n_choices names, in the order of the enumeration */
    int n_choices;
    qr_key_type type;
    bool above_low;  /* low itself is not allowed */
    bool has_auto;   /* the word auto is allowed and stands for auto_value */
    bool needs_text; /* "" is not allowed */
    bool changeable; /* a restart may change it: it says where, how fast or how long a run runs, not what it comes to */
} qr_key;

/* All keys, section by section in the order of a dump. */
extern const qr_key qr_keys[];
extern const size_t qr_n_keys;

/* The key with this full name, or NULL. */
const qr_key *qr_key_find(const char *name);

/* True when `name` is a section: some key starts with "name.". */
bool qr_key_is_section(const char *name);

/* suggest.c: what an unknown key or section may have been meant for; false when nothing is near. */
bool qr_key_suggest(const char *name, char out[QR_KEY_NAME_BYTES]);

/* "memory.tiers has gpu, cpu, nvme, ssd and hdd", in n bytes, for an unknown key within a section of a section; false
 * for others, of which there may be many. */
bool qr_key_list_section(const char *name, char *out, size_t n);

/* "whole number", "duration", ... */
const char *qr_key_type_name(qr_key_type type);

#endif
