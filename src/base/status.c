#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[QR_MESSAGE_BYTES];

qr_status qr_error(qr_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return status;
}

qr_status qr_error_context(qr_status status, const char *format, ...)
{
    char context[QR_MESSAGE_BYTES];
    char old[QR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(context, sizeof context, format, args);
    va_end(args);
    memcpy(old, message, sizeof old);
    size_t used = (size_t)snprintf(message, sizeof message, "%s: ", context);
    if (used < sizeof message) {
        (void)snprintf(message + used, sizeof message - used, "%s", old);
    }
    return status;
}

qr_status qr_error_memory(size_t bytes, const char *what)
{
    return qr_error(QR_RESOURCE, "out of memory: %zu bytes for %s could not be had", bytes, what);
}

const char *qr_error_message(void)
{
    return message;
}

int qr_status_exit_code(qr_status status)
{
    switch (status) {
    case QR_OK: return 0;
    case QR_USAGE: return 2;
    case QR_ENVIRONMENT:
    case QR_RESOURCE: return 3;
    case QR_TRANSIENT:
    case QR_DATA:
    case QR_DEVICE:
    case QR_INTERNAL: return 4;
    }
    return 4;
}

const char *qr_status_name(qr_status status)
{
    switch (status) {
    case QR_OK: return "ok";
    case QR_USAGE: return "usage";
    case QR_ENVIRONMENT: return "environment";
    case QR_RESOURCE: return "resource";
    case QR_TRANSIENT: return "transient";
    case QR_DATA: return "data";
    case QR_DEVICE: return "device";
    case QR_INTERNAL: return "internal";
    }
    return "unknown";
}
