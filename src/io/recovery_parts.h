/* What looking through generations, telling of them and repairing them share; io/recovery.h is what they are for. */
#ifndef QR_IO_RECOVERY_PARTS_H
#define QR_IO_RECOVERY_PARTS_H

#include "io/recovery.h"

typedef enum qr_copy_state {
    QR_COPY_UNKNOWN, /* not verified yet */
    QR_COPY_MISSING, /* it was here once: other generations' files are */
    QR_COPY_WHOLE,
    QR_COPY_DAMAGED
} qr_copy_state;

/* A server's share of a generation in one directory, or its replica. */
typedef struct qr_copy {
    const qr_found *found;
    const char *directory;
    const qr_manifest_share *share;
    bool replica;
    qr_copy_state state;
    bool marked;          /* as damaged, by a run */
    size_t damaged_pages; /* as far as the index tells which there are */
    char *why;            /* owned; NULL unless damaged */
    int64_t *sources;     /* [n_sources] generations whose files its pages lie in; owned */
    size_t n_sources;
} qr_copy;

/* All copies that should be in the directories of the recovery, in its order. */
qr_status qr_copies_list(const qr_recovery *recovery, qr_copy **out, size_t *n);
void qr_copies_free(qr_copy *copies, size_t n);

/* Reads every page and all else of a copy. Errors only for want of memory. */
qr_status qr_copy_verify(qr_copy *copy);

/* Makes manifests again that are damaged in one directory and whole in another. *n counts. */
qr_status qr_manifests_repair(const qr_recovery *recovery, size_t *n);

/* Makes verified copies again that are damaged or missing, and those whose pages lie in such files. Prints what it
 * makes. Copies without any good source are left. */
qr_status qr_copies_repair(const qr_recovery *recovery, const qr_copy *copies, size_t n, size_t *made);

#endif
