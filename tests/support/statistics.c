#include "statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

void sample_add(sample_mean *sample, double value)
{
    sample->n++;
    double from = value - sample->mean;
    sample->mean += from / (double)sample->n;
    sample->squares += from * (value - sample->mean);
}

double sample_error(const sample_mean *sample)
{
    return sqrt(sample->squares / (double)(sample->n - 1) / (double)sample->n);
}

void block_add(block_mean *block, double value)
{
    sample_add(&block->open, value);
    if (block->open.n == block->length) {
        sample_add(&block->blocks, block->open.mean);
        block->open = (sample_mean){0};
    }
}

void check_within(double measured, double expected, double standard_error, const char *what, ...)
{
    char name[256];
    va_list arguments;
    va_start(arguments, what);
    (void)vsnprintf(name, sizeof name, what, arguments);
    va_end(arguments);
    double sigmas = (measured - expected) / standard_error;
    print_message("%s: %.6g, expected %.6g, standard error %.2g: %+.1f sigma\n", name, measured, expected,
                  standard_error, sigmas);
    if (!(fabs(measured - expected) <= 4.0 * standard_error)) {
        fail_msg("%s: %.9g is %.1f standard errors from %.9g", name, measured, sigmas, expected);
    }
}

double share_error(double p, int64_t n)
{
    return sqrt(p * (1.0 - p) / (double)n);
}
