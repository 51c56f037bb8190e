/* Properties of decks: a dump parses to the same values, a value has one meaning in every notation, and no text breaks
 * the parser. Decks are drawn from the key table itself, so new keys are covered as they come. */
#include "deck/deck.h"
#include "deck/key_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 2000, DECK_BYTES = 65536, VALUE_BYTES = 12000, MAX_OVERRIDES = 128 };

static uint64_t random_state = 1;

/* splitmix64. */
static uint64_t next(void)
{
    random_state += 0x9E3779B97F4A7C15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int64_t below(int64_t n)
{
    return (int64_t)(next() % (uint64_t)n);
}

static double unit(void)
{
    return (double)(next() >> 11) * 0x1p-53;
}

/* Whole numbers of every size between the bounds, the bounds themselves included. */
static int64_t draw_whole(int64_t least, int64_t most)
{
    uint64_t span = (uint64_t)most - (uint64_t)least;
    uint64_t value = next() >> below(64);
    switch (below(8)) {
    case 0: return least;
    case 1: return most;
    default: return (int64_t)((uint64_t)least + (span == UINT64_MAX ? value : value % (span + 1)));
    }
}

static double draw_real(const qr_key *key)
{
    switch (below(6)) {
    case 0: return key->high;
    case 1: return key->above_low ? key->high : key->low;
    case 2: {
        double whole = (double)(int64_t)(key->low + unit() * (key->high - key->low));
        return whole > key->low ? whole : key->high;
    }
    default: return key->low + (unit() + 0x1p-53) * (key->high - key->low) * (below(2) ? 1.0 : 1e-6);
    }
}

/* Three notations of one whole number. */
static void write_whole(int64_t value, char *out, size_t size)
{
    char plain[32];
    (void)snprintf(plain, sizeof plain, "%lld", (long long)value);
    size_t n = strlen(plain);
    size_t zeros = 0;
    switch (below(4)) {
    case 0: { /* 1_234 */
        size_t used = 0;
        for (size_t i = 0; i < n && used + 2 < size; i++) {
            out[used++] = plain[i];
            if (i + 1 < n && (n - i - 1) % 3 == 0) {
                out[used++] = '_';
            }
        }
        out[used] = '\0';
        return;
    }
    case 1: /* 12e3 */
        while (zeros + 1 < n && plain[n - 1 - zeros] == '0') {
            zeros++;
        }
        (void)snprintf(out, size, "%.*se%zu", (int)(n - zeros), plain, zeros);
        return;
    case 2: /* 1.234e3 */ (void)snprintf(out, size, "%c.%se+%zu", plain[0], plain + 1, n - 1); return;
    default: (void)snprintf(out, size, "%s", plain); return;
    }
}

static void write_text(bool needed, bool quoted, char *out, size_t size)
{
    static const char *const pieces[] = {"a",
                                         "Z",
                                         " ",
                                         "#",
                                         ":",
                                         "'",
                                         "{",
                                         "[",
                                         "- ",
                                         "&",
                                         "*",
                                         "%",
                                         "\xC3\xBC",
                                         "=",
                                         "\xE2\x82\xAC",
                                         "\xF0\x9F\x90\x9D",
                                         "~",
                                         "null",
                                         "0",
                                         "/",
                                         "?",
                                         "|",
                                         ">",
                                         ","};
    int64_t n = needed ? 1 + below(40) : below(40);
    size_t used = 0;
    used += (size_t)snprintf(out + used, size - used, "%s%s", quoted ? "\"" : "", needed ? "x" : "");
    for (int64_t i = 0; i < n; i++) {
        const char *piece = pieces[below((int64_t)(sizeof pieces / sizeof pieces[0]))];
        used += (size_t)snprintf(out + used, size - used, "%s", piece);
        if (below(20) == 0) {
            used += (size_t)snprintf(out + used, size - used, "%s", quoted ? "\\\"\\\\" : "\"\\");
        }
    }
    (void)snprintf(out + used, size - used, "%s", quoted ? "\"" : "");
}

/* A valid value of a key as a deck (or --set, where texts stand without quotes) has it. */
static void write_value(const qr_key *key, int64_t options, bool in_deck, char *out, size_t size)
{
    static const char *const bools[] = {"true", "false", "yes", "no", "on", "off", "True", "NO"};
    static const char *const times[] = {"ms", "s", "min", "h", "d"};
    static const double seconds[] = {0.001, 1, 60, 3600, 86400};
    char number[64];
    int64_t which = below(5);
    switch (key->type) {
    case QR_KEY_INT:
        write_whole(draw_whole(key->least, key->most), out, size);
        if (key->has_auto && below(3) == 0) {
            (void)snprintf(out, size, "auto");
        }
        break;
    case QR_KEY_REAL: (void)snprintf(out, size, "%.17g", draw_real(key)); break;
    case QR_KEY_BOOL: (void)snprintf(out, size, "%s", bools[below(8)]); break;
    case QR_KEY_CHOICE: (void)snprintf(out, size, "%s", key->choices[below(key->n_choices)]); break;
    case QR_KEY_TEXT: write_text(key->needs_text, in_deck, out, size); break;
    case QR_KEY_SIZE:
        (void)snprintf(out, size, "%lld B", (long long)draw_whole(key->least, key->most));
        if (key->has_auto && below(3) == 0) {
            (void)snprintf(out, size, "auto");
        }
        break;
    case QR_KEY_INTERVAL:
        if (which == 0) {
            (void)snprintf(out, size, "never");
            break;
        }
        if (which <= 2) {
            write_whole(draw_whole(key->least, key->most), number, sizeof number);
            (void)snprintf(out, size, "%s steps", number);
            break;
        }
        /* fall through */
    case QR_KEY_DURATION: {
        double low = key->low + (key->high - key->low) * 1e-9;
        (void)snprintf(out, size, "%.12g %s", (low + unit() * (key->high - low) * 0.999) / seconds[which],
                       times[which]);
        break;
    }
    case QR_KEY_FRACTION: {
        int64_t den = 1 + below(QR_FRACTION_MAX_DEN);
        (void)snprintf(out, size, "%lld/%lld", (long long)(1 + below(den)), (long long)den);
        break;
    }
    case QR_KEY_INTS:
    case QR_KEY_REALS: {
        int64_t n = key->max_items == QR_MAX_OPTIONS ? (below(3) == 0 ? 0 : options) : below(key->max_items + 1);
        size_t used = (size_t)snprintf(out, size, "[");
        for (int64_t i = 0; i < n; i++) {
            if (key->type == QR_KEY_INTS) {
                write_whole(draw_whole(key->least, key->most), number, sizeof number);
            } else {
                (void)snprintf(number, sizeof number, "%.17g", draw_real(key));
            }
            used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", number);
        }
        (void)snprintf(out + used, size - used, "]");
        break;
    }
    case QR_N_KEY_TYPES: fail(); break;
    }
}

typedef struct draft {
    char text[DECK_BYTES];
    char *overrides[MAX_OVERRIDES];
    int n_overrides;
} draft;

/* Draws a deck that passes every check: keys that belong together are drawn together. */
static void draw_deck(draft *out)
{
    char *value = malloc(VALUE_BYTES);
    assert_non_null(value);
    int64_t options = below(4) == 0 ? 2 + below(255) : 2 + below(6);
    int64_t initial = below(3);
    size_t used = 0;
    out->n_overrides = 0;
    used += (size_t)snprintf(out->text, DECK_BYTES, "# drawn\n");
    for (size_t i = 0; i < qr_n_keys; i++) {
        const qr_key *key = &qr_keys[i];
        const char *before = i > 0 ? qr_keys[i - 1].name : "";
        const char *field = key->name;
        int depth = 0;
        for (const char *dot = strchr(field, '.'); dot != NULL; dot = strchr(field, '.')) {
            if (strncmp(key->name, before, (size_t)(dot - key->name) + 1) != 0) {
                used += (size_t)snprintf(out->text + used, DECK_BYTES - used, "%*s%.*s:\n", 2 * depth, "",
                                         (int)(dot - field), field);
            }
            field = dot + 1;
            depth++;
        }
        bool in_deck = below(4) != 0;
        bool forced = true;
        if (strcmp(key->name, "agents.options") == 0) {
            (void)snprintf(value, VALUE_BYTES, "%lld", (long long)options);
        } else if (strcmp(key->name, "agents.initial") == 0) {
            (void)snprintf(value, VALUE_BYTES, "%s", key->choices[initial]);
        } else if (strcmp(key->name, "agents.shares") == 0 && initial == QR_INITIAL_SHARES) {
            size_t at = (size_t)snprintf(value, VALUE_BYTES, "[%lld", (long long)(1 + below(100)));
            for (int64_t k = 1; k < options; k++) {
                at += (size_t)snprintf(value + at, VALUE_BYTES - at, ", %.17g", unit() * (double)below(3));
            }
            (void)snprintf(value + at, VALUE_BYTES - at, "]");
        } else if (strcmp(key->name, "agents.file") == 0 && initial == QR_INITIAL_FILE) {
            write_text(true, in_deck, value, VALUE_BYTES);
        } else if (strcmp(key->name, "agents.shares") == 0 || strcmp(key->name, "agents.file") == 0) {
            continue;
        } else if (strcmp(key->name, "memory.high") == 0 || strcmp(key->name, "memory.low") == 0) {
            /* one below the other, whichever of them is left out */
            (void)snprintf(value, VALUE_BYTES, "%.17g", strcmp(key->name, "memory.low") == 0 ? 0.8 * unit() : 1.0);
        } else {
            forced = false;
            write_value(key, options, in_deck, value, VALUE_BYTES);
        }
        if (in_deck && (forced || below(2) == 0)) {
            used += (size_t)snprintf(out->text + used, DECK_BYTES - used, "%*s%s: %s\n", 2 * depth, "", field, value);
        } else if (forced || below(4) == 0) {
            if (in_deck) {
                continue;
            }
            size_t bytes = strlen(key->name) + strlen(value) + 2;
            out->overrides[out->n_overrides] = malloc(bytes);
            assert_non_null(out->overrides[out->n_overrides]);
            (void)snprintf(out->overrides[out->n_overrides++], bytes, "%s=%s", key->name, value);
        }
    }
    assert_true(used < DECK_BYTES - 1);
    free(value);
}

static void assert_same_lists(const qr_key *key, const void *a, const void *b)
{
    const qr_list_int *ints[2] = {a, b};
    const qr_list_real *reals[2] = {a, b};
    if (key->type == QR_KEY_INTS) {
        assert_int_equal(ints[0]->n, ints[1]->n);
        for (int64_t i = 0; i < ints[0]->n; i++) {
            assert_true(ints[0]->values[i] == ints[1]->values[i]);
        }
    } else {
        assert_int_equal(reals[0]->n, reals[1]->n);
        for (int64_t i = 0; i < reals[0]->n; i++) {
            assert_true(reals[0]->values[i] == reals[1]->values[i]);
        }
    }
}

static void assert_same_values(const qr_deck *a, const qr_deck *b)
{
    for (size_t i = 0; i < qr_n_keys; i++) {
        const qr_key *key = &qr_keys[i];
        const void *x = (const char *)a + key->offset;
        const void *y = (const char *)b + key->offset;
        bool same = true;
        switch (key->type) {
        case QR_KEY_INT:
        case QR_KEY_SIZE: same = *(const int64_t *)x == *(const int64_t *)y; break;
        case QR_KEY_REAL:
        case QR_KEY_DURATION: same = *(const double *)x == *(const double *)y; break;
        case QR_KEY_BOOL: same = *(const bool *)x == *(const bool *)y; break;
        case QR_KEY_CHOICE: same = *(const int *)x == *(const int *)y; break;
        case QR_KEY_TEXT: same = strcmp(*(char *const *)x, *(char *const *)y) == 0; break;
        case QR_KEY_INTERVAL: {
            const qr_interval *v = x;
            const qr_interval *w = y;
            same = v->steps == w->steps && v->seconds == w->seconds;
            break;
        }
        case QR_KEY_FRACTION: {
            const qr_fraction *v = x;
            const qr_fraction *w = y;
            same = v->num == w->num && v->den == w->den;
            break;
        }
        case QR_KEY_INTS:
        case QR_KEY_REALS: assert_same_lists(key, x, y); break;
        case QR_N_KEY_TYPES: same = false; break;
        }
        if (!same) {
            fail_msg("%s differs", key->name);
        }
    }
}

static void test_dump_parses_to_the_same(void **state)
{
    (void)state;
    draft *drawn = malloc(sizeof *drawn);
    assert_non_null(drawn);
    for (int i = 0; i < CASES; i++) {
        draw_deck(drawn);
        qr_deck *deck = NULL;
        const char *const *overrides = (const char *const *)drawn->overrides;
        qr_status status =
            qr_deck_parse("drawn.yml", drawn->text, strlen(drawn->text), overrides, drawn->n_overrides, &deck);
        if (status != QR_OK) {
            fail_msg("case %d: %s\n%s", i, qr_error_message(), drawn->text);
        }
        char *dump = NULL;
        char *again = NULL;
        qr_deck *copy = NULL;
        assert_int_equal(qr_deck_dump(deck, &dump), QR_OK);
        status = qr_deck_parse("dump.yml", dump, strlen(dump), NULL, 0, &copy);
        if (status != QR_OK) {
            fail_msg("case %d: %s\n%s", i, qr_error_message(), dump);
        }
        assert_same_values(deck, copy);
        char *differences = NULL;
        assert_int_equal(qr_deck_compare(deck, copy, &differences), 0);
        assert_null(differences);
        assert_int_equal(qr_deck_dump(copy, &again), QR_OK);
        free(dump);
        free(again);
        qr_deck_destroy(deck);
        qr_deck_destroy(copy);
        for (int k = 0; k < drawn->n_overrides; k++) {
            free(drawn->overrides[k]);
        }
    }
    free(drawn);
}

static void test_whole_numbers_mean_one_thing(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        int64_t value = draw_whole(0, INT64_MAX);
        char number[64];
        char override[96];
        write_whole(value, number, sizeof number);
        (void)snprintf(override, sizeof override, "run.seed=%s", number);
        const char *overrides[] = {override};
        qr_deck *deck = NULL;
        assert_int_equal(qr_deck_parse("x", "run: {}", 7, overrides, 1, &deck), QR_OK);
        assert_true(deck->run.seed == value);
        qr_deck_destroy(deck);
    }
}

/* Bytes of a good deck changed, dropped, doubled: it parses, or is refused with the place in one line. */
static void test_damaged_decks_are_refused_with_a_place(void **state)
{
    (void)state;
    draft *drawn = malloc(sizeof *drawn);
    char *text = malloc(2 * DECK_BYTES);
    assert_non_null(drawn);
    assert_non_null(text);
    int refused = 0;
    for (int i = 0; i < CASES; i++) {
        draw_deck(drawn);
        for (int k = 0; k < drawn->n_overrides; k++) {
            free(drawn->overrides[k]);
        }
        size_t n = strlen(drawn->text);
        memcpy(text, drawn->text, n);
        for (int64_t times = 1 + below(4); times > 0; times--) {
            size_t at = (size_t)below((int64_t)n);
            size_t length = (size_t)below(20) < n - at ? (size_t)below(20) : 0;
            length = length < n - at ? length : 0;
            switch (below(4)) {
            case 0: text[at] = (char)below(256); break;
            case 1: text[at] = "{}[]:,-&*!|>'\"%@`#?\n \t"[below(22)]; break;
            case 2:
                memmove(text + at, text + at + length, n - at - length);
                n -= length;
                break;
            default:
                memmove(text + at + length, text + at, n - at);
                n += length;
                break;
            }
        }
        qr_deck *deck = NULL;
        qr_status status = qr_deck_parse("damaged.yml", text, n, NULL, 0, &deck);
        if (status == QR_OK) {
            qr_deck_destroy(deck);
            continue;
        }
        refused++;
        int line = 0;
        int column = 0;
        assert_int_equal(status, QR_USAGE);
        assert_null(deck);
        assert_null(strchr(qr_error_message(), '\n'));
        bool placed = sscanf(qr_error_message(), "damaged.yml:%d:%d: ", &line, &column) == 2 && line > 0 && column > 0;
        if (!placed && strncmp(qr_error_message(), "damaged.yml: ", 13) != 0) {
            fail_msg("%s", qr_error_message());
        }
    }
    assert_true(refused > CASES / 4);
    free(text);
    free(drawn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dump_parses_to_the_same),
        cmocka_unit_test(test_whole_numbers_mean_one_thing),
        cmocka_unit_test(test_damaged_decks_are_refused_with_a_place),
    };
    return cmocka_run_group_tests_name("deck properties", tests, NULL, NULL);
}
