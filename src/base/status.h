/* Error status: what every fallible function returns, and the message that goes with it.
 *
 * The function that detects an error calls qr_error() once; callers may add context with qr_error_context() and pass
 * the status on. Outputs are set only on success. Only main() turns a status into an exit code. The message is kept per
 * thread. */
#ifndef QR_BASE_STATUS_H
#define QR_BASE_STATUS_H

#include <stddef.h>

/* Grouped by what is lost, and so by what the answer is. */
typedef enum qr_status {
    QR_OK = 0,
    QR_USAGE,       /* the user asked for something impossible; nothing was started or written        exit 2 */
    QR_ENVIRONMENT, /* the machine lacks something: a directory, a rank, an instruction set           exit 3 */
    QR_RESOURCE,    /* not enough memory or space                                                     exit 3 */
    QR_TRANSIENT,   /* may work when tried again                                                      exit 4 */
    QR_DATA,        /* data could not be read, written or trusted                                     exit 4 */
    QR_DEVICE,      /* an accelerator failed                                                          exit 4 */
    QR_INTERNAL     /* a broken promise inside the program: please report                             exit 4 */
} qr_status;

enum { QR_MESSAGE_BYTES = 2048 };

#if defined(__GNUC__)
#define QR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define QR_PRINTF(fmt, args)
#endif

/* Sets this thread's message and returns `status`, so that `return qr_error(QR_DATA, "...")` reads well. */
qr_status qr_error(qr_status status, const char *format, ...) QR_PRINTF(2, 3);

/* Puts "context: " before this thread's message and returns `status` unchanged. */
qr_status qr_error_context(qr_status status, const char *format, ...) QR_PRINTF(2, 3);

/* QR_RESOURCE with the number of bytes asked for and for what. */
qr_status qr_error_memory(size_t bytes, const char *what);

/* This thread's message; "" when there is none. Valid until the next qr_error on this thread. */
const char *qr_error_message(void);

/* Process exit code of a status: 0, 2, 3 or 4. */
int qr_status_exit_code(qr_status status);

/* "usage", "environment", ... */
const char *qr_status_name(qr_status status);

#endif
