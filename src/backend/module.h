/* The border between the executable and a backend in a shared library: one exported function, qr_module_open. The
 * library takes base, model and network from the executable. */
#ifndef QR_BACKEND_MODULE_H
#define QR_BACKEND_MODULE_H

#include "backend/backend.h"

enum { QR_MODULE_VERSION = 2 };

typedef struct qr_module {
    int version;  /* QR_MODULE_VERSION of the build */
    size_t bytes; /* sizeof(qr_backend_ops): both sides must agree */
    const qr_backend_ops *ops;
    bool (*is_usable)(const char **why); /* false sets *why: no driver, no device */
} qr_module;

typedef const qr_module *(*qr_module_opener)(void);

#endif
