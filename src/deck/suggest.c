/* What an unknown key may have been meant for. */
#include "deck/key_table.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MOST_NAMES = 256 }; /* of keys, and so of what stands below a section */

/* Names below a section: the words that may follow it. */
typedef struct siblings {
    char words[MOST_NAMES][QR_KEY_NAME_BYTES];
    size_t n;
} siblings;

/* Words that people use for some of ours; each counts where the other one is known. */
static const char *const synonyms[][2] = {
    {"ram", "cpu"},
    {"dram", "cpu"},
    {"host", "cpu"},
    {"vram", "gpu"},
    {"hbm", "gpu"},
    {"device", "gpu"},
    {"path", "directory"},
    {"folder", "directory"},
    {"disk", "nvme"},
    {"size", "capacity"},
    {"limit", "capacity"},
    {"codec", "compression"},
    {"compress", "compression"},
    {"scratch", "nvme"},
};

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

static bool copy_name(const char *name, size_t n, char out[QR_KEY_NAME_BYTES])
{
    (void)snprintf(out, QR_KEY_NAME_BYTES, "%.*s", (int)n, name);
    return true;
}

/* Bytes of the longest section that the name begins with; 0: of none. */
static size_t known_section(const char *name)
{
    char section[QR_KEY_NAME_BYTES];
    for (size_t n = strlen(name); n > 0; n--) {
        if (name[n] == '.' && n < sizeof section && copy_name(name, n, section) && qr_key_is_section(section)) {
            return n;
        }
    }
    return 0;
}

/* Of the section in the first n bytes of the name; 0 bytes: the sections themselves. */
static void find_siblings(const char *name, size_t n, siblings *out)
{
    out->n = 0;
    size_t skip = n > 0 ? n + 1 : 0;
    for (size_t i = 0; i < qr_n_keys && out->n < MOST_NAMES; i++) {
        const char *key = qr_keys[i].name;
        if (strncmp(key, name, skip) != 0) {
            continue;
        }
        (void)copy_name(key + skip, strcspn(key + skip, "."), out->words[out->n]);
        if (out->n == 0 || strcmp(out->words[out->n], out->words[out->n - 1]) != 0) {
            out->n++;
        }
    }
}

static const char *find_synonym(const char *word, const siblings *known)
{
    for (size_t i = 0; i < sizeof synonyms / sizeof synonyms[0]; i++) {
        for (size_t k = 0; k < known->n && strcasecmp(word, synonyms[i][0]) == 0; k++) {
            if (strcmp(known->words[k], synonyms[i][1]) == 0) {
                return known->words[k];
            }
        }
    }
    return NULL;
}

/* The only word that this one is the beginning of ("dir"), or that is the beginning of this one. */
static const char *find_longer(const char *word, const siblings *known)
{
    const char *found = NULL;
    size_t n = strlen(word);
    for (size_t k = 0; k < known->n && n > 1; k++) {
        size_t other = strlen(known->words[k]);
        if (strncasecmp(word, known->words[k], n < other ? n : other) == 0 && other > 1) {
            if (found != NULL) {
                return NULL;
            }
            found = known->words[k];
        }
    }
    return found;
}

/* The nearest; NULL where another one is as near. */
static const char *find_near(const char *word, const siblings *known)
{
    const char *names[MOST_NAMES];
    const char *reversed[MOST_NAMES];
    for (size_t k = 0; k < known->n; k++) {
        names[k] = known->words[k];
        reversed[known->n - 1 - k] = known->words[k];
    }
    const char *nearest = qr_nearest_name(word, names, known->n);
    return nearest == qr_nearest_name(word, reversed, known->n) ? nearest : NULL;
}

/* The part of the name behind the section, mended where that makes a key or a section of it. */
static bool suggest_word(const char *name, size_t section, const siblings *known, char out[QR_KEY_NAME_BYTES])
{
    char word[QR_KEY_NAME_BYTES];
    char whole[3 * QR_KEY_NAME_BYTES];
    size_t begin = section > 0 ? section + 1 : 0;
    size_t n = strcspn(name + begin, ".");
    (void)copy_name(name + begin, n, word);
    const char *const found[] = {find_synonym(word, known), find_longer(word, known), find_near(word, known)};
    for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        if (found[i] == NULL) {
            continue;
        }
        (void)snprintf(whole, sizeof whole, "%.*s%s%s", (int)begin, name, found[i], name + begin + n);
        if (strlen(whole) < QR_KEY_NAME_BYTES && (qr_key_find(whole) != NULL || qr_key_is_section(whole))) {
            return copy_name(whole, strlen(whole), out);
        }
    }
    return false;
}

/* Nearest of the keys that begin with `prefix`, compared by all that comes after it. */
static bool suggest_key(const char *prefix, const char *rest, char out[QR_KEY_NAME_BYTES])
{
    size_t skip = strlen(prefix);
    const char *names[MOST_NAMES];
    size_t n = 0;
    for (size_t i = 0; i < qr_n_keys && n < MOST_NAMES; i++) {
        if (strncmp(qr_keys[i].name, prefix, skip) == 0) {
            names[n++] = qr_keys[i].name + skip;
        }
    }
    const char *nearest = qr_nearest_name(rest, names, n);
    if (nearest == NULL) {
        return false;
    }
    (void)snprintf(out, QR_KEY_NAME_BYTES, "%s%s", prefix, nearest);
    return true;
}

/* Sections within sections are much alike (tiers): of them, a key of another one is no help. */
static bool is_nested(const char *name, size_t section)
{
    return memchr(name, '.', section) != NULL;
}

bool qr_key_suggest(const char *name, char out[QR_KEY_NAME_BYTES])
{
    siblings known;
    size_t section = known_section(name);
    find_siblings(name, section, &known);
    if (suggest_word(name, section, &known, out)) {
        return true;
    }
    if (is_nested(name, section)) {
        return false;
    }
    char prefix[QR_KEY_NAME_BYTES] = "";
    (void)copy_name(name, section > 0 ? section + 1 : 0, prefix);
    if (strchr(name, '.') != NULL && suggest_key(prefix, name + strlen(prefix), out)) {
        return true;
    }
    for (size_t i = 0; i < qr_n_keys; i++) {
        if (strcmp(last_part(name), last_part(qr_keys[i].name)) == 0) {
            return copy_name(qr_keys[i].name, strlen(qr_keys[i].name), out);
        }
    }
    return false;
}

bool qr_key_list_section(const char *name, char *out, size_t n)
{
    siblings known;
    size_t section = known_section(name);
    if (!is_nested(name, section)) {
        return false;
    }
    find_siblings(name, section, &known);
    size_t used = (size_t)snprintf(out, n, "%.*s has", (int)section, name);
    for (size_t k = 0; k < known.n && used < n; k++) {
        used += (size_t)snprintf(out + used, n - used, "%s %s",
                                 k == 0            ? ""
                                 : k + 1 < known.n ? ","
                                                   : " and",
                                 known.words[k]);
    }
    return true;
}
