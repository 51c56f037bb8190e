/* What a directory that is to be made, or is there, has room for. Makes and writes nothing. */
#ifndef QR_IO_ROOM_H
#define QR_IO_ROOM_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qr_io_room {
    int64_t free_bytes; /* of the file system, for users without privileges; quotas are not seen */
    uint64_t device;    /* what tells file systems of a machine apart */
    bool is_shared;     /* a network's file system: other machines see the same free bytes */
} qr_io_room;

/* Of the directory, or where it is missing of the nearest parent that is there. `what` names it in messages ("memory
 * tier's"). QR_ENVIRONMENT when it could neither be used nor made. */
qr_status qr_io_probe_room(const char *directory, const char *what, qr_io_room *out);

#endif
