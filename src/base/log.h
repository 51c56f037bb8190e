/* Messages to people. Information goes to standard output, warnings and errors to standard error, each line whole. */
#ifndef QR_BASE_LOG_H
#define QR_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>

/* Decides who speaks: on a job, one rank prints information; every rank may warn. `quiet` drops information. */
void qr_log_configure(bool prints_info, bool quiet);

/* True when qr_info would print. */
bool qr_log_prints_info(void);

void qr_result(const char *format, ...) QR_PRINTF(1, 2);  /* stdout, also when quiet: what the run is for */
void qr_info(const char *format, ...) QR_PRINTF(1, 2);    /* stdout, newline added */
void qr_warning(const char *format, ...) QR_PRINTF(1, 2); /* "quorate: warning: ..." on stderr */
void qr_failure(const char *format, ...) QR_PRINTF(1, 2); /* "quorate: error: ..." on stderr */

#endif
