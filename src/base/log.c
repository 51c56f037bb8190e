#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static bool result_wanted = true;
static bool info_wanted = true;

void qr_log_configure(bool prints_info, bool quiet)
{
    result_wanted = prints_info;
    info_wanted = prints_info && !quiet;
}

bool qr_log_prints_info(void)
{
    return info_wanted;
}

static void print_line(FILE *out, const char *prefix, const char *format, va_list args)
{
    char line[QR_MESSAGE_BYTES + 64];
    (void)vsnprintf(line, sizeof line, format, args);
    (void)fprintf(out, "%s%s\n", prefix, line);
    (void)fflush(out);
}

void qr_result(const char *format, ...)
{
    if (!result_wanted) {
        return;
    }
    va_list args;
    va_start(args, format);
    print_line(stdout, "", format, args);
    va_end(args);
}

void qr_info(const char *format, ...)
{
    if (!info_wanted) {
        return;
    }
    va_list args;
    va_start(args, format);
    print_line(stdout, "", format, args);
    va_end(args);
}

void qr_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(stderr, "quorate: warning: ", format, args);
    va_end(args);
}

void qr_failure(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(stderr, "quorate: error: ", format, args);
    va_end(args);
}
