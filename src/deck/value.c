#include "deck/value.h"

#include "base/memory.h"
#include "deck/number.h"
#include "deck/text.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_TEXT = 4096 };

/* A number's text, cut into the number itself and what stands behind it ("MiB"). */
typedef struct quantity {
    qr_decimal number;
    const char *text;
    size_t n;
    const char *unit;
    size_t unit_n;
    char shown[QR_SHOWN_BYTES]; /* the whole, for messages */
} quantity;

typedef struct unit {
    const char *name;
    int64_t times;
    int64_t per; /* value = number * times / per */
} unit;

static const unit sizes[] = {{"B", 1, 1},
                             {"KiB", INT64_C(1) << 10, 1},
                             {"MiB", INT64_C(1) << 20, 1},
                             {"GiB", INT64_C(1) << 30, 1},
                             {"TiB", INT64_C(1) << 40, 1}};
static const unit times[] = {{"ms", 1, 1000}, {"s", 1, 1}, {"min", 60, 1}, {"h", 3600, 1}, {"d", 86400, 1}};

static void *field_of(const qr_key *key, qr_deck *deck)
{
    return (char *)deck + key->offset;
}

static const void *const_field_of(const qr_key *key, const qr_deck *deck)
{
    return (const char *)deck + key->offset;
}

static bool is_word(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(text, word, n) == 0;
}

static void trim(const char **text, size_t *n)
{
    while (*n > 0 && isspace((unsigned char)(*text)[0])) {
        (*text)++;
        (*n)--;
    }
    while (*n > 0 && isspace((unsigned char)(*text)[*n - 1])) {
        (*n)--;
    }
}

static bool split(const char *text, size_t n, quantity *out)
{
    trim(&text, &n);
    (void)qr_text_show(text, n, out->shown);
    out->text = text;
    out->n = qr_decimal_scan(text, n, &out->number);
    out->unit = text + out->n;
    out->unit_n = n - out->n;
    trim(&out->unit, &out->unit_n);
    return out->n > 0;
}

static const unit *find_unit(const quantity *q, const unit *units, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_word(q->unit, q->unit_n, units[i].name)) {
            return &units[i];
        }
    }
    return NULL;
}

static const char *blank_unit(const qr_key *key, char out[32])
{
    (void)snprintf(out, 32, "%s%s", key->unit != NULL ? " " : "", key->unit != NULL ? key->unit : "");
    return out;
}

static void format_size(int64_t bytes, char *out, size_t size)
{
    size_t i = sizeof sizes / sizeof sizes[0] - 1;
    while (i > 0 && (bytes < sizes[i].times || bytes % sizes[i].times != 0)) {
        i--;
    }
    (void)snprintf(out, size, "%lld %s", (long long)(bytes / sizes[i].times), sizes[i].name);
}

/* The shortest text that reads back as the same double. */
static void format_real(double value, char *out, size_t size)
{
    if (fabs(value) < 1e15 && value == floor(value)) {
        (void)snprintf(out, size, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value) {
            return;
        }
    }
}

static void format_bound(const qr_key *key, bool upper, char *out, size_t size)
{
    char unit_text[32];
    char number[64];
    switch (key->type) {
    case QR_KEY_SIZE: format_size(upper ? key->most : key->least, out, size); return;
    case QR_KEY_DURATION:
        format_real(upper ? key->high : key->low, number, sizeof number);
        (void)snprintf(out, size, "%s s", number);
        return;
    case QR_KEY_REAL:
    case QR_KEY_REALS:
        format_real(upper ? key->high : key->low, number, sizeof number);
        (void)snprintf(out, size, "%s%s", number, blank_unit(key, unit_text));
        return;
    default:
        (void)snprintf(out, size, "%lld%s", (long long)(upper ? key->most : key->least), blank_unit(key, unit_text));
        return;
    }
}

static qr_status out_of_bounds(const qr_key *key, const quantity *q, bool above)
{
    char bound[96];
    format_bound(key, above, bound, sizeof bound);
    if (above) {
        return qr_error(QR_USAGE, "%s is above the maximum %s", q->shown, bound);
    }
    if (key->above_low) {
        return qr_error(QR_USAGE, "%s must be above %s", q->shown, bound);
    }
    return qr_error(QR_USAGE, "%s is below the minimum %s", q->shown, bound);
}

static qr_status parse_whole(const qr_key *key, const quantity *q, int64_t times_unit, int64_t *out)
{
    int64_t value = 0;
    qr_whole whole = qr_decimal_whole(&q->number, times_unit, &value);
    if (whole == QR_WHOLE_FRACTIONAL) {
        return qr_error(QR_USAGE, "%s is not a whole number%s", q->shown,
                        key->type == QR_KEY_SIZE       ? " of bytes"
                        : key->type == QR_KEY_INTERVAL ? " of steps"
                                                       : "");
    }
    if (whole == QR_WHOLE_TOO_LARGE) {
        return out_of_bounds(key, q, !q->number.negative);
    }
    if (value < key->least || value > key->most) {
        return out_of_bounds(key, q, value > key->most);
    }
    *out = value;
    return QR_OK;
}

static qr_status parse_int(const qr_key *key, const char *text, size_t n, int64_t *out)
{
    quantity q;
    if (!split(text, n, &q) || q.unit_n > 0) {
        if (key->has_auto && strcmp(q.shown, "auto") == 0) {
            *out = key->auto_value;
            return QR_OK;
        }
        return qr_error(QR_USAGE, "'%s' is not a whole number%s", q.shown, key->has_auto ? " or auto" : "");
    }
    return parse_whole(key, &q, 1, out);
}

static qr_status parse_real(const qr_key *key, const char *text, size_t n, double *out)
{
    quantity q;
    if (!split(text, n, &q) || q.unit_n > 0) {
        return qr_error(QR_USAGE, "'%s' is not a number", q.shown);
    }
    double value = 0.0;
    if (!qr_decimal_real(q.text, q.n, &value)) {
        return out_of_bounds(key, &q, !q.number.negative);
    }
    if (value < key->low || value > key->high || (key->above_low && value == key->low)) {
        return out_of_bounds(key, &q, value > key->high);
    }
    *out = value;
    return QR_OK;
}

/* "3 GB" is not known to be 3 GiB, nor to be 3 000 000 000 bytes: both are written so. */
static qr_status unknown_size(const quantity *q)
{
    static const char *const all = "sizes are in B, KiB, MiB, GiB or TiB";
    static const char letters[] = "kmgt";
    int64_t decimal = 1;
    int64_t bytes = 0;
    if (q->unit_n == 0) {
        return qr_error(QR_USAGE, "'%s' needs a unit: B, KiB, MiB, GiB or TiB", q->shown);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const char *name = sizes[i].name;
        if (q->unit_n == strlen(name) && strncasecmp(q->unit, name, q->unit_n) == 0) {
            return qr_error(QR_USAGE, "'%s': did you mean %.*s %s? %s", q->shown, (int)q->n, q->text, name, all);
        }
        decimal *= i > 0 ? 1000 : 1;
        bool letter = i > 0 && tolower((unsigned char)q->unit[0]) == letters[i - 1];
        bool is_unit = q->unit_n == 1 || (q->unit_n == 2 && tolower((unsigned char)q->unit[1]) == 'b');
        if (letter && is_unit && qr_decimal_whole(&q->number, decimal, &bytes) == QR_WHOLE) {
            return qr_error(QR_USAGE, "'%s' may be %.*s %s, or %lld B; write the one that is meant: %s", q->shown,
                            (int)q->n, q->text, name, (long long)bytes, all);
        }
    }
    return qr_error(QR_USAGE, "'%s' has no unit that is known: %s", q->shown, all);
}

static qr_status parse_size(const qr_key *key, const char *text, size_t n, int64_t *out)
{
    quantity q;
    if (!split(text, n, &q)) {
        if (key->has_auto && strcmp(q.shown, "auto") == 0) {
            *out = key->auto_value;
            return QR_OK;
        }
        return qr_error(QR_USAGE, "'%s' is not a size such as 1 MiB%s", q.shown, key->has_auto ? " or auto" : "");
    }
    const unit *found = find_unit(&q, sizes, sizeof sizes / sizeof sizes[0]);
    if (found == NULL) {
        return unknown_size(&q);
    }
    return parse_whole(key, &q, found->times, out);
}

/* Seconds from a quantity with a unit of time. */
static qr_status parse_seconds(const qr_key *key, const quantity *q, const unit *found, double *out)
{
    double value = 0.0;
    if (!qr_decimal_real(q->text, q->n, &value)) {
        return out_of_bounds(key, q, !q->number.negative);
    }
    value = value * (double)found->times / (double)found->per;
    if (value < key->low || value > key->high) {
        return out_of_bounds(key, q, value > key->high);
    }
    *out = value;
    return QR_OK;
}

static qr_status parse_duration(const qr_key *key, const char *text, size_t n, double *out)
{
    quantity q;
    if (!split(text, n, &q)) {
        return qr_error(QR_USAGE, "'%s' is not a time such as 10 min", q.shown);
    }
    const unit *found = find_unit(&q, times, sizeof times / sizeof times[0]);
    if (found == NULL) {
        return qr_error(QR_USAGE, "'%s' needs a unit: ms, s, min, h or d", q.shown);
    }
    return parse_seconds(key, &q, found, out);
}

static qr_status parse_interval(const qr_key *key, const char *text, size_t n, qr_interval *out)
{
    quantity q;
    qr_interval value = {0, 0.0};
    if (!split(text, n, &q)) {
        if (strcmp(q.shown, "never") == 0) {
            *out = value;
            return QR_OK;
        }
        return qr_error(QR_USAGE, "'%s' is not an interval such as 500 steps, 10 min or never", q.shown);
    }
    qr_status status = QR_OK;
    const unit *found = find_unit(&q, times, sizeof times / sizeof times[0]);
    if (found != NULL) {
        qr_key bounds = *key;
        bounds.type = QR_KEY_DURATION;
        status = parse_seconds(&bounds, &q, found, &value.seconds);
    } else if (is_word(q.unit, q.unit_n, "steps") || is_word(q.unit, q.unit_n, "step")) {
        qr_key bounds = *key;
        bounds.unit = "steps";
        status = parse_whole(&bounds, &q, 1, &value.steps);
    } else {
        return qr_error(QR_USAGE, "'%s' needs a unit: steps, or a time: ms, s, min, h or d", q.shown);
    }
    if (status == QR_OK) {
        *out = value;
    }
    return status;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* "9/10": two whole numbers. */
static bool read_ratio(const quantity *over, qr_fraction *out)
{
    quantity under;
    return split(over->unit + 1, over->unit_n - 1, &under) && under.unit_n == 0 &&
           qr_decimal_whole(&over->number, 1, &out->num) == QR_WHOLE &&
           qr_decimal_whole(&under.number, 1, &out->den) == QR_WHOLE && out->den > 0;
}

static qr_status parse_fraction(const char *text, size_t n, qr_fraction *out)
{
    quantity q;
    qr_fraction value = {0, 1};
    qr_whole whole = QR_WHOLE;
    bool known = split(text, n, &q);
    if (known && q.unit_n > 0) {
        known = q.unit[0] == '/' && read_ratio(&q, &value);
    } else if (known) {
        whole = qr_decimal_whole(&q.number, value.den, &value.num);
        while (whole == QR_WHOLE_FRACTIONAL && value.den < INT64_C(1000000000000000000)) {
            value.den *= 10;
            whole = qr_decimal_whole(&q.number, value.den, &value.num);
        }
    }
    if (!known) {
        return qr_error(QR_USAGE, "'%s' is not a fraction such as 9/10, 0.9 or 1", q.shown);
    }
    if (whole == QR_WHOLE_TOO_LARGE || (whole == QR_WHOLE && (value.num <= 0 || value.num > value.den))) {
        return qr_error(QR_USAGE, "%s must be above 0 and at most 1", q.shown);
    }
    if (whole == QR_WHOLE) {
        int64_t divisor = common_divisor(value.num, value.den);
        value.num /= divisor;
        value.den /= divisor;
    }
    if (whole != QR_WHOLE || value.den > QR_FRACTION_MAX_DEN) {
        return qr_error(QR_USAGE, "%s needs a denominator above %d", q.shown, (int)QR_FRACTION_MAX_DEN);
    }
    *out = value;
    return QR_OK;
}

static qr_status parse_bool(const char *text, size_t n, bool *out)
{
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    quantity q;
    (void)split(text, n, &q);
    char word[QR_SHOWN_BYTES];
    for (size_t i = 0; i < sizeof word; i++) {
        word[i] = (char)tolower((unsigned char)q.shown[i]);
        if (q.shown[i] == '\0') {
            break;
        }
    }
    for (int value = 0; value < 2; value++) {
        for (int i = 0; i < 3; i++) {
            if (strcmp(word, words[value][i]) == 0) {
                *out = value == 1;
                return QR_OK;
            }
        }
    }
    return qr_error(QR_USAGE, "'%s' is neither true nor false", q.shown);
}

static void list_choices(const qr_key *key, const char *separator, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < key->n_choices && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? separator : "", key->choices[i]);
    }
}

static qr_status parse_choice(const qr_key *key, const char *text, size_t n, int *out)
{
    quantity q;
    (void)split(text, n, &q);
    for (int i = 0; i < key->n_choices; i++) {
        if (strcmp(q.shown, key->choices[i]) == 0) {
            *out = i;
            return QR_OK;
        }
    }
    char all[512];
    list_choices(key, ", ", all, sizeof all);
    const char *nearest = qr_nearest_name(q.shown, key->choices, (size_t)key->n_choices);
    if (nearest != NULL) {
        return qr_error(QR_USAGE, "'%s' is not one of %s; did you mean %s?", q.shown, all, nearest);
    }
    return qr_error(QR_USAGE, "'%s' is not one of %s", q.shown, all);
}

static qr_status parse_text(const qr_key *key, const char *text, size_t n, char **out)
{
    if (n == 0 && key->needs_text) {
        return qr_error(QR_USAGE, "must not be empty");
    }
    if (n > MAX_TEXT) {
        return qr_error(QR_USAGE, "a text of %zu bytes; at most %d are taken", n, (int)MAX_TEXT);
    }
    size_t bad = qr_text_check(text, n);
    if (bad < n) {
        char shown[QR_SHOWN_BYTES];
        return qr_error(QR_USAGE, "'%s' holds the byte 0x%02X, a control character or not UTF-8",
                        qr_text_show(text, n, shown), (unsigned char)text[bad]);
    }
    void *copy = NULL;
    qr_status status = qr_allocate(n + 1, 1, key->name, &copy);
    if (status != QR_OK) {
        return status;
    }
    memcpy(copy, text, n);
    free(*out);
    *out = copy;
    return QR_OK;
}

static qr_status full_list(const qr_key *key, int64_t n)
{
    if (n < key->max_items) {
        return QR_OK;
    }
    return qr_error(QR_USAGE, "more than %lld items", (long long)key->max_items);
}

qr_status qr_value_parse(const qr_key *key, const char *text, size_t n, qr_deck *deck)
{
    void *field = field_of(key, deck);
    switch (key->type) {
    case QR_KEY_INT: return parse_int(key, text, n, field);
    case QR_KEY_REAL: return parse_real(key, text, n, field);
    case QR_KEY_BOOL: return parse_bool(text, n, field);
    case QR_KEY_CHOICE: return parse_choice(key, text, n, field);
    case QR_KEY_TEXT: return parse_text(key, text, n, field);
    case QR_KEY_SIZE: return parse_size(key, text, n, field);
    case QR_KEY_DURATION: return parse_duration(key, text, n, field);
    case QR_KEY_INTERVAL: return parse_interval(key, text, n, field);
    case QR_KEY_FRACTION: return parse_fraction(text, n, field);
    case QR_KEY_INTS: {
        qr_list_int *list = field;
        qr_status status = full_list(key, list->n);
        status = status != QR_OK ? status : parse_int(key, text, n, &list->values[list->n]);
        list->n += status == QR_OK ? 1 : 0;
        return status;
    }
    case QR_KEY_REALS: {
        qr_list_real *list = field;
        qr_status status = full_list(key, list->n);
        status = status != QR_OK ? status : parse_real(key, text, n, &list->values[list->n]);
        list->n += status == QR_OK ? 1 : 0;
        return status;
    }
    case QR_N_KEY_TYPES: break;
    }
    return qr_error(QR_INTERNAL, "%s: a key without a type", key->name);
}

bool qr_key_is_list(const qr_key *key)
{
    return key->type == QR_KEY_INTS || key->type == QR_KEY_REALS;
}

void qr_value_clear_list(const qr_key *key, qr_deck *deck)
{
    if (key->type == QR_KEY_INTS) {
        ((qr_list_int *)field_of(key, deck))->n = 0;
    } else if (key->type == QR_KEY_REALS) {
        ((qr_list_real *)field_of(key, deck))->n = 0;
    }
}

/* snprintf at out + used that keeps counting when the room is used up. */
static size_t append(char *out, size_t size, size_t used, const char *text)
{
    int more = snprintf(used < size ? out + used : NULL, used < size ? size - used : 0, "%s", text);
    return used + (size_t)more;
}

static size_t format_text(const char *text, char *out, size_t size)
{
    size_t used = append(out, size, 0, "\"");
    for (size_t i = 0; text[i] != '\0'; i++) {
        const char piece[3] = {text[i] == '"' || text[i] == '\\' ? '\\' : text[i],
                               text[i] == '"' || text[i] == '\\' ? text[i] : '\0', '\0'};
        used = append(out, size, used, piece);
    }
    return append(out, size, used, "\"");
}

static size_t format_list(const qr_key *key, const void *field, char *out, size_t size)
{
    const qr_list_int *ints = field;
    const qr_list_real *reals = field;
    int64_t n = key->type == QR_KEY_INTS ? ints->n : reals->n;
    size_t used = append(out, size, 0, "[");
    for (int64_t i = 0; i < n; i++) {
        char item[64];
        if (key->type == QR_KEY_INTS) {
            (void)snprintf(item, sizeof item, "%lld", (long long)ints->values[i]);
        } else {
            format_real(reals->values[i], item, sizeof item);
        }
        used = append(out, size, used, i > 0 ? ", " : "");
        used = append(out, size, used, item);
    }
    return append(out, size, used, "]");
}

size_t qr_value_format(const qr_key *key, const qr_deck *deck, char *out, size_t size)
{
    const void *field = const_field_of(key, deck);
    char text[64] = "";
    char number[48];
    switch (key->type) {
    case QR_KEY_INT: {
        int64_t value = *(const int64_t *)field;
        if (key->has_auto && value == key->auto_value) {
            return append(out, size, 0, "auto");
        }
        (void)snprintf(text, sizeof text, "%lld", (long long)value);
        break;
    }
    case QR_KEY_REAL: format_real(*(const double *)field, text, sizeof text); break;
    case QR_KEY_BOOL: return append(out, size, 0, *(const bool *)field ? "true" : "false");
    case QR_KEY_CHOICE: return append(out, size, 0, key->choices[*(const int *)field]);
    case QR_KEY_TEXT: return format_text(*(char *const *)field, out, size);
    case QR_KEY_SIZE:
        if (key->has_auto && *(const int64_t *)field == key->auto_value) {
            return append(out, size, 0, "auto");
        }
        format_size(*(const int64_t *)field, text, sizeof text);
        break;
    case QR_KEY_DURATION:
        format_real(*(const double *)field, number, sizeof number);
        (void)snprintf(text, sizeof text, "%s s", number);
        break;
    case QR_KEY_INTERVAL: {
        const qr_interval *interval = field;
        format_real(interval->seconds, number, sizeof number);
        if (interval->steps > 0) {
            (void)snprintf(text, sizeof text, "%lld steps", (long long)interval->steps);
        } else if (interval->seconds > 0.0) {
            (void)snprintf(text, sizeof text, "%s s", number);
        } else {
            return append(out, size, 0, "never");
        }
        break;
    }
    case QR_KEY_FRACTION: {
        const qr_fraction *fraction = field;
        int used = snprintf(text, sizeof text, "%lld", (long long)fraction->num);
        if (fraction->den != 1) {
            (void)snprintf(text + used, sizeof text - (size_t)used, "/%lld", (long long)fraction->den);
        }
        break;
    }
    case QR_KEY_INTS:
    case QR_KEY_REALS: return format_list(key, field, out, size);
    case QR_N_KEY_TYPES: break;
    }
    return append(out, size, 0, text);
}

void qr_value_describe_bounds(const qr_key *key, char *out, size_t size)
{
    char lower[96];
    char upper[96];
    out[0] = '\0';
    if (key->type == QR_KEY_CHOICE) {
        list_choices(key, " | ", out, size);
    } else if (key->type == QR_KEY_FRACTION) {
        (void)snprintf(out, size, "above 0, at most 1");
    } else if (key->type == QR_KEY_INTERVAL) {
        (void)snprintf(out, size, "N steps | a time | never");
    } else if (key->type == QR_KEY_BOOL) {
        (void)snprintf(out, size, "true | false");
    } else if (key->type != QR_KEY_TEXT) {
        format_bound(key, false, lower, sizeof lower);
        format_bound(key, true, upper, sizeof upper);
        size_t cut = key->unit != NULL ? strlen(lower) - strlen(key->unit) - 1 : strlen(lower);
        (void)snprintf(out, size, "%s%.*s%s%s", key->above_low ? "above " : "", (int)cut, lower,
                       key->above_low ? ", at most " : " .. ", upper);
    }
}
