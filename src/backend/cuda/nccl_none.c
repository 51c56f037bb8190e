/* In place of nccl.c where NCCL was not found: no parts are ever joined. */
#include "backend/cuda/cuda.h"

bool qr_nccl_destroy(qr_nccl *nccl)
{
    (void)nccl;
    return true;
}

qr_status qr_nccl_check(qr_backend *backend)
{
    (void)backend;
    return QR_OK;
}

void qr_nccl_pack(qr_backend *backend)
{
    (void)backend;
}

qr_status qr_nccl_halo(qr_backend *backend)
{
    (void)backend;
    return QR_OK;
}

qr_status qr_nccl_gather(qr_backend *backend)
{
    (void)backend;
    return QR_OK;
}
