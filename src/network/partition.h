/* Who owns which agents: contiguous blocks, cut at multiples of 64 so that no machine word of votes is shared. */
#ifndef QR_NETWORK_PARTITION_H
#define QR_NETWORK_PARTITION_H

#include <stdint.h>

enum { QR_AGENTS_PER_WORD = 64 };

typedef struct qr_range {
    int64_t first;
    int64_t count; /* 0 for a rank without agents */
} qr_range;

/* Agents of part `part` of `n_parts` (both as int64_t counts; part < n_parts). Sizes differ by at most one word. */
qr_range qr_partition_range(int64_t n_agents, int n_parts, int part);

/* The part that owns `agent`. */
int qr_partition_owner(int64_t n_agents, int n_parts, int64_t agent);

#endif
