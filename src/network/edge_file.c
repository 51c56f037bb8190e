#include "network/edge_file.h"

#include "base/memory.h"
#include "network/edge_input.h"
#include "network/edge_table.h"

#include <stdio.h>

enum { TOKEN_BYTES = 24, TOKEN_TEXT = 4 * TOKEN_BYTES + 4 };

typedef enum parse_state {
    STATE_BLANK,  /* before an id, or at the end of a line */
    STATE_NUMBER, /* inside an id */
    STATE_BAD,    /* inside something that is no id: collected for the message */
    STATE_REST,   /* in a comment, or in further columns */
    STATE_RETURN  /* after a carriage return, which only a line feed may follow */
} parse_state;

typedef struct parser {
    const char *name;
    qr_edge_builder *builder;
    parse_state state;
    int64_t line;       /* from 1 */
    int64_t offset;     /* of the byte at hand */
    int64_t line_start; /* offset of the line's first byte */
    int64_t ids[2];
    int n_ids;
    uint64_t value;
    bool too_large;
    int64_t token_start; /* offset */
    int token_length;
    char token[TOKEN_BYTES];
} parser;

static qr_status complain(const parser *p, int64_t offset, const char *what)
{
    const int64_t column = offset - p->line_start + 1;
    return qr_error(QR_USAGE, "%s:%lld:%lld: %s", p->name, (long long)p->line, (long long)column, what);
}

/* The token as printable text. */
static void describe_token(const parser *p, char text[TOKEN_TEXT])
{
    const int kept = p->token_length < TOKEN_BYTES ? p->token_length : TOKEN_BYTES;
    int at = 0;
    for (int i = 0; i < kept; i++) {
        const unsigned char c = (unsigned char)p->token[i];
        if (c >= 0x20 && c < 0x7f) {
            text[at++] = (char)c;
        } else {
            at += snprintf(text + at, 5, "\\x%02x", c);
        }
    }
    snprintf(text + at, 4, "%s", p->token_length > TOKEN_BYTES ? "..." : "");
}

static qr_status complain_token(const parser *p)
{
    char text[TOKEN_TEXT];
    char message[TOKEN_TEXT + 64];
    describe_token(p, text);
    if (p->state == STATE_NUMBER) {
        snprintf(message, sizeof message, "id %s is larger than 9223372036854775807", text);
    } else if (p->token_length > 1 && p->token[0] == '-' && p->token[1] >= '0' && p->token[1] <= '9') {
        snprintf(message, sizeof message, "an id must not be negative, found '%s'", text);
    } else {
        snprintf(message, sizeof message, "expected an id (a whole number), found '%s'", text);
    }
    return complain(p, p->token_start, message);
}

static bool ends_token(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void keep_in_token(parser *p, unsigned char c)
{
    if (p->token_length < TOKEN_BYTES) {
        p->token[p->token_length] = (char)c;
    }
    p->token_length += p->token_length <= TOKEN_BYTES;
}

static void add_digit(parser *p, unsigned char c)
{
    const unsigned digit = (unsigned)(c - '0');
    p->too_large = p->too_large || p->value > ((uint64_t)INT64_MAX - digit) / 10;
    p->value = p->too_large ? 0 : p->value * 10 + digit;
    keep_in_token(p, c);
}

static void begin_token(parser *p, unsigned char c)
{
    p->token_start = p->offset;
    p->token_length = 0;
    p->value = 0;
    p->too_large = false;
    if (c >= '0' && c <= '9') {
        p->state = STATE_NUMBER;
        add_digit(p, c);
    } else {
        p->state = STATE_BAD;
        keep_in_token(p, c);
    }
}

static qr_status end_token(parser *p)
{
    if (p->state == STATE_BAD || p->too_large) {
        return complain_token(p);
    }
    p->ids[p->n_ids++] = (int64_t)p->value;
    p->state = STATE_BLANK;
    return QR_OK;
}

static qr_status end_line(parser *p)
{
    qr_status status = QR_OK;
    if (p->n_ids == 1) {
        return complain(p, p->offset - (p->state == STATE_RETURN), "expected two ids on a line, found one");
    }
    if (p->n_ids == 2) {
        status = qr_edge_builder_add(p->builder, p->ids[0], p->ids[1]);
    }
    p->n_ids = 0;
    p->line++;
    p->line_start = p->offset + 1;
    p->state = STATE_BLANK;
    return status;
}

/* One byte outside of a token. */
static qr_status take_separator(parser *p, unsigned char c)
{
    if (p->state == STATE_RETURN && c != '\n') {
        return complain(p, p->offset - 1, "a carriage return inside a line");
    }
    if (c == '\n') {
        return end_line(p);
    }
    if (c == '\r') {
        p->state = STATE_RETURN;
    } else if (p->state == STATE_BLANK && c != ' ' && c != '\t') {
        if (p->n_ids == 2 || (p->n_ids == 0 && (c == '#' || c == '%'))) {
            p->state = STATE_REST;
        } else {
            begin_token(p, c);
        }
    }
    return QR_OK;
}

static qr_status take_byte(parser *p, unsigned char c)
{
    if (c == '\0') {
        return complain(p, p->offset, "a NUL byte: this is not a text file");
    }
    if (p->state == STATE_NUMBER || p->state == STATE_BAD) {
        if (p->state == STATE_NUMBER && c >= '0' && c <= '9') {
            add_digit(p, c);
            return QR_OK;
        }
        if (!ends_token(c)) {
            p->state = STATE_BAD;
            keep_in_token(p, c);
            return p->token_length > TOKEN_BYTES ? complain_token(p) : QR_OK;
        }
        qr_status status = end_token(p);
        if (status != QR_OK) {
            return status;
        }
    }
    return take_separator(p, c);
}

/* The last line may lack its end. */
static qr_status take_end(parser *p)
{
    if (p->state == STATE_NUMBER || p->state == STATE_BAD) {
        qr_status status = end_token(p);
        if (status != QR_OK) {
            return status;
        }
    }
    return end_line(p);
}

static qr_status parse_all(parser *p, qr_edge_input *input)
{
    for (;;) {
        const unsigned char *data;
        size_t n;
        qr_status status = qr_edge_input_next(input, &data, &n);
        if (status != QR_OK) {
            return status;
        }
        if (n == 0) {
            return take_end(p);
        }
        for (size_t i = 0; i < n; i++, p->offset++) {
            status = take_byte(p, data[i]);
            if (status != QR_OK) {
                return status;
            }
        }
    }
}

qr_status qr_edge_table_read(const qr_edge_source *source, bool directed, qr_edge_table *out)
{
    qr_edge_builder builder = {0};
    qr_edge_input *input = NULL;
    qr_status status = qr_edge_input_open(source, &input);
    if (status != QR_OK) {
        return status;
    }
    parser p = {.name = source->name, .builder = &builder, .line = 1};
    status = parse_all(&p, input);
    if (status == QR_OK && builder.n_edges == 0) {
        status = qr_error(QR_USAGE, "%s: no edges: %s", source->name,
                          p.offset == 0 ? "the file is empty" : "the file holds only comments and blank lines");
    }
    if (status == QR_OK) {
        status = qr_edge_builder_finish(&builder, directed, out);
    }
    qr_edge_input_close(input);
    qr_edge_builder_clear(&builder);
    return status;
}
