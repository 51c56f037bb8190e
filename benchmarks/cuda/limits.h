/* What a device can do at most: the limits beside which bench_cuda sets its figures. Each is a small kernel of its own,
 * timed by events on a stream of its own (launches and waits by the host's clock). They give the median of several
 * repeats, or a number below 0 after saying on stderr what failed. */
#ifndef QR_BENCHMARKS_CUDA_LIMITS_H
#define QR_BENCHMARKS_CUDA_LIMITS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes read plus written a second: the faster of a 16-byte copy kernel and cudaMemcpyAsync, 2 GiB to 2 GiB. */
double limit_device_copy(void);

/* Fused float32 multiply-adds a second on registers alone. */
double limit_device_fma(void);

/* Multiply-adds a second of FP16 numbers summed in float32, on tensor cores by the instructions of one warp
 * (mma.sync), on registers alone. */
double limit_device_tensor(void);

/* Agents a second of a kernel that does nothing else: each reads one entry, picked at random, of its row of 8 uint32,
 * and the vote it points to, and writes it in order. packed: 8 votes a byte, else a byte each. */
double limit_device_gather(int64_t n_agents, int packed);

/* Seconds from the launch of an empty kernel until the host knows that it ended; *p99 too. */
double limit_device_launch(double *p99);

/* Seconds that an empty kernel takes as one of many nodes of a graph, each after the one before. */
double limit_device_node(void);

#ifdef __cplusplus
}
#endif

#endif
