/* What the two sides of replicas share: the writer's thread of a tier (replicas.c) and the server's
 * (replica_messages.c).
 */
#ifndef QR_IO_REPLICAS_H
#define QR_IO_REPLICAS_H

#include "io/checkpoint_parts.h"

/* Bytes of a piece, its qr_header included; pieces of a tier under way; pieces of others that wait for a tier's disk.
 */
enum { QR_REPLICA_MESSAGE_BYTES = 4 << 20, QR_REPLICA_WINDOW = 4, QR_CAUSE_BYTES = 160 };
enum { QR_PIECE = 1, QR_ANSWER = 2 };
enum { QR_DATA_FILE, QR_INDEX_FILE, QR_N_FILES };

typedef struct qr_header {
    uint64_t magic;
    int64_t generation;
    int32_t kind;
    int32_t server; /* whose share it is */
    int32_t tier;
    int32_t file;
    int64_t file_bytes;
    int64_t offset;
    int64_t bytes;              /* of the piece */
    qr_hash hash;               /* XXH3-128 of the piece */
    int32_t status;             /* qr_status of an answer */
    int32_t nothing;            /* so that there is no padding */
    char cause[QR_CAUSE_BYTES]; /* of an answer that is not QR_OK */
    uint64_t header_hash;       /* XXH3-64 of all before it */
} qr_header;

struct qr_message {
    struct qr_message *next;
    int server; /* it goes to, or comes from; -1: all replicas */
    int64_t bytes;
    unsigned char *data;
    bool sent;
    int n;          /* replicas */
    bool *done;     /* [n]: the transport needs the memory no more */
    bool *answered; /* [n] */
};

typedef enum qr_target_state { QR_UNDER_WAY, QR_THERE, QR_MISSING } qr_target_state;

struct qr_outgoing {
    struct qr_outgoing *next;
    int64_t generation;
    int64_t bytes[QR_N_FILES];
    int file; /* QR_N_FILES: all read */
    int64_t offset;
    int handle; /* of the file that is read; -1: not open. Writer's thread only. */
    bool dropped, reading;
    qr_message *pieces; /* oldest first */
    int n_pieces;
    qr_target_state *targets; /* [replicas] */
    qr_awake *patience;       /* [replicas]: since the last answer */
};

struct qr_incoming {
    struct qr_incoming *next;
    int server;
    int64_t generation;
    int file, handle;
    int64_t offset, bytes;
};

qr_message *qr_message_new(int server, int n, int64_t bytes);
void qr_message_free(qr_message *message);
void qr_message_append(qr_message **list, qr_message *message);
qr_header qr_header_of(const qr_message *message);
void qr_header_seal(qr_header *h);

/* (lock) To be sent to the server that sent the piece; with this thread's message unless QR_OK. */
void qr_replicas_answer(qr_checkpoint *checkpoint, int server, const qr_header *piece, qr_status status);

/* (lock) This target, or all (-1) that are still under way, will have no copy; warned of once. */
void qr_outgoing_fail(qr_checkpoint *checkpoint, qr_outgoing *out, int only, const char *cause);
void qr_outgoing_free(qr_outgoing *out);

#endif
