/* The manifest: what makes a generation count. It is written last, when every server's share is durable, and says what
 * the shares are, so that a recovery can tell a whole generation from the disks alone.
 *
 * A text file: JSON, then a last line "seal: " and the XXH3-128 of all before it in 32 hexadecimal digits. Servers that
 * share a directory write the same file; those of other nodes each write their own copy. */
#ifndef QR_IO_MANIFEST_H
#define QR_IO_MANIFEST_H

#include "io/generation.h"

enum { QR_MANIFEST_FORMAT = 1, QR_RUN_ID_BYTES = 33 };

typedef struct qr_manifest_share {
    int server;
    int64_t first, count; /* agents */
    qr_generation_seal seal;
} qr_manifest_share;

typedef struct qr_manifest_part {
    int part, server;
    int64_t first, count;
} qr_manifest_part;

typedef struct qr_manifest {
    int64_t generation, step;
    char run_id[QR_RUN_ID_BYTES]; /* of the run that began it all; kept over restarts */
    char *version;                /* of the program; owned, as all pointers here */
    char *deck;                   /* the resolved deck */
    char *precision;              /* "exact" or "fast" */
    char *tier;                   /* "nvme", ... */
    char *codec;
    int64_t n_agents, n_options, state_dim;
    int64_t page_agents_votes, page_agents_state;
    int64_t held, candidate;                                                      /* consensus so far (qr_consensus) */
    int64_t decided, decided_step, decided_option, decided_votes, decided_leader; /* its decision */
    int64_t snapshots;                                                            /* written up to this step */
    double elapsed_s;                                                             /* of all attempts */
    int64_t restarts;
    int n_shares, n_parts;
    qr_manifest_share *shares; /* [n_shares], ascending agents */
    qr_manifest_part *parts;   /* [n_parts] */
} qr_manifest;

/* *text is malloc'd, with its seal. */
qr_status qr_manifest_format(const qr_manifest *manifest, char **text);

/* QR_DATA when the text is damaged, of another format (says which), or does not make sense (shares must cover all
 * agents once). `name` is for messages. *out is destroyed with qr_manifest_destroy. */
qr_status qr_manifest_parse(const char *name, const char *text, size_t n, qr_manifest **out);
void qr_manifest_destroy(qr_manifest *manifest);

/* Puts the text durably under the generation's name. Several servers may do this at once in one directory. server: for
 * the temporary name. */
qr_status qr_manifest_store(const char *directory, int64_t generation, int server, const char *text, size_t n);

qr_status qr_manifest_load(const char *path, qr_manifest **out);

/* Removes it; a missing one is no error. */
qr_status qr_manifest_remove(const char *directory, int64_t generation);

#endif
