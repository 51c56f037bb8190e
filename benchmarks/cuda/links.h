/* What the link between host and device can do at most, by plain copies of pinned memory: the limits beside which
 * bench_paging sets its figures. Below 0 after saying on stderr what failed. */
#ifndef QR_BENCHMARKS_CUDA_LINKS_H
#define QR_BENCHMARKS_CUDA_LINKS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes a second of copies of 64 MiB, median of several series: into the device, out of it, or both at once together.
 */
double limit_link(bool in, bool out);

/* Seconds of one copy of so many bytes until the host knows that it is done, median; *p99 too. */
double limit_link_page(size_t bytes, bool in, double *p99);

/* Seconds in which managed memory of so many bytes is read and written once by a kernel, after `away` of them have been
 * sent to the host, both counted: the same traffic as a sweep that brings `away` bytes in and others out. */
double limit_link_managed(size_t bytes, size_t away);

#ifdef __cplusplus
}
#endif

#endif
