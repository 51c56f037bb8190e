#include "network/edge_input.h"

#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

enum { RAW_BYTES = 1 << 16, PLAIN_BYTES = 1 << 18, GZIP_WINDOW = 15 + 16 };

struct qr_edge_input {
    const qr_edge_source *source;
    bool packed;
    bool inside_member; /* a gzip member has begun and not ended */
    bool at_end;        /* the source has no more bytes */
    size_t n_raw;       /* bytes in raw that a plain source has not handed out yet */
    z_stream stream;
    unsigned char raw[RAW_BYTES];
    unsigned char plain[PLAIN_BYTES];
};

/* Appends to raw from `filled` on. */
static qr_status read_raw(qr_edge_input *input, size_t filled, size_t *got)
{
    *got = 0;
    if (input->at_end) {
        return QR_OK;
    }
    qr_status status = input->source->read(input->source->context, input->raw + filled, RAW_BYTES - filled, got);
    if (status == QR_OK && *got > RAW_BYTES - filled) {
        return qr_error(QR_INTERNAL, "%s: the reader delivered more bytes than asked for", input->source->name);
    }
    input->at_end = status == QR_OK && *got == 0;
    return status;
}

qr_status qr_edge_input_open(const qr_edge_source *source, qr_edge_input **out)
{
    void *memory;
    qr_status status = qr_allocate(1, sizeof(qr_edge_input), "edge reader", &memory);
    if (status != QR_OK) {
        return status;
    }
    qr_edge_input *input = memory;
    input->source = source;
    while (input->n_raw < 2 && !input->at_end && status == QR_OK) {
        size_t got;
        status = read_raw(input, input->n_raw, &got);
        input->n_raw += status == QR_OK ? got : 0;
    }
    if (status == QR_OK && input->n_raw >= 2 && input->raw[0] == 0x1f && input->raw[1] == 0x8b) {
        const int code = inflateInit2(&input->stream, GZIP_WINDOW);
        if (code != Z_OK) {
            status = qr_error(code == Z_MEM_ERROR ? QR_RESOURCE : QR_INTERNAL, "%s: zlib could not be started (%d)",
                              source->name, code);
        } else {
            input->packed = true;
            input->inside_member = true;
            input->stream.next_in = input->raw;
            input->stream.avail_in = (uInt)input->n_raw;
        }
    }
    if (status != QR_OK) {
        free(input);
        return status;
    }
    *out = input;
    return QR_OK;
}

static qr_status next_plain(qr_edge_input *input, const unsigned char **data, size_t *n)
{
    qr_status status = QR_OK;
    size_t got = input->n_raw;
    input->n_raw = 0;
    if (got == 0) {
        status = read_raw(input, 0, &got);
    }
    if (status == QR_OK) {
        *data = input->raw;
        *n = got;
    }
    return status;
}

/* After a member: another one, zero padding (as tapes have), or the end. */
static void begin_member(qr_edge_input *input)
{
    z_stream *stream = &input->stream;
    while (stream->avail_in > 0 && *stream->next_in == 0) {
        stream->next_in++;
        stream->avail_in--;
    }
    if (stream->avail_in > 0) {
        inflateReset(stream);
        input->inside_member = true;
    }
}

static qr_status next_packed(qr_edge_input *input, const unsigned char **data, size_t *n)
{
    z_stream *stream = &input->stream;
    stream->next_out = input->plain;
    stream->avail_out = PLAIN_BYTES;
    while (stream->avail_out == PLAIN_BYTES) {
        if (stream->avail_in == 0) {
            size_t got;
            qr_status status = read_raw(input, 0, &got);
            if (status != QR_OK) {
                return status;
            }
            if (got == 0 && input->inside_member) {
                return qr_error(QR_DATA, "%s: the gzip data end too early: the file is cut off", input->source->name);
            }
            if (got == 0) {
                break;
            }
            stream->next_in = input->raw;
            stream->avail_in = (uInt)got;
        }
        if (!input->inside_member) {
            begin_member(input);
            continue;
        }
        const int code = inflate(stream, Z_NO_FLUSH);
        if (code == Z_STREAM_END) {
            input->inside_member = false;
        } else if (code == Z_MEM_ERROR) {
            return qr_error(QR_RESOURCE, "%s: out of memory for unpacking gzip data", input->source->name);
        } else if (code != Z_OK && code != Z_BUF_ERROR) {
            return qr_error(QR_DATA, "%s: broken gzip data: %s", input->source->name,
                            stream->msg != NULL ? stream->msg : zError(code));
        }
    }
    *data = input->plain;
    *n = PLAIN_BYTES - stream->avail_out;
    return QR_OK;
}

qr_status qr_edge_input_next(qr_edge_input *input, const unsigned char **data, size_t *n)
{
    return input->packed ? next_packed(input, data, n) : next_plain(input, data, n);
}

void qr_edge_input_close(qr_edge_input *input)
{
    if (input != NULL && input->packed) {
        inflateEnd(&input->stream);
    }
    free(input);
}
