/* The way from one I/O rank to another for copies of checkpoints, as io/checkpoint.h asks for it. */
#ifndef QR_RUN_REPLICAS_H
#define QR_RUN_REPLICAS_H

#include "comm/comm.h"
#include "io/checkpoint.h"

typedef struct qr_replica_mail qr_replica_mail;

/* Collective over the world. On I/O ranks *transport is filled and *out is set; others keep what they have. */
qr_status qr_replica_mail_create(const qr_comm *comm, qr_replica_mail **out, qr_replica_transport *transport);

/* What has not been taken by its receiver is given up. NULL is allowed. Collective over the I/O ranks. */
void qr_replica_mail_destroy(qr_replica_mail *mail);

#endif
