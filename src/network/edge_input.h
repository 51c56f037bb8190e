/* Bytes of an edge source, unpacked where they are gzip (RFC 1952, several members allowed), in bounded memory. */
#ifndef QR_NETWORK_EDGE_INPUT_H
#define QR_NETWORK_EDGE_INPUT_H

#include "network/edge_file.h"

typedef struct qr_edge_input qr_edge_input;

qr_status qr_edge_input_open(const qr_edge_source *source, qr_edge_input **out);

/* The next stretch of plain bytes, valid until the next call; *n = 0 at the end. QR_DATA for a broken gzip. */
qr_status qr_edge_input_next(qr_edge_input *input, const unsigned char **data, size_t *n);

void qr_edge_input_close(qr_edge_input *input);

#endif
