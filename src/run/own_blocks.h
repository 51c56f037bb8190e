/* Hashes of blocks of agents that all are of this rank, and whose states lie in pages. */
#ifndef QR_RUN_OWN_BLOCKS_H
#define QR_RUN_OWN_BLOCKS_H

#include "run/simulation.h"

#include <xxhash.h>

enum { QR_HASH_BLOCK = 65536 }; /* agents */

/* XXH3-128 of votes, then states, of each block: agents [begin, end) (global ids), of which only the last block may
 * have fewer. Read from end to end, as fast as links and disks allow, and hashed by a thread for each of some blocks
 * meanwhile. */
qr_status qr_hash_own_blocks(qr_simulation *simulation, int64_t begin, int64_t end, XXH128_canonical_t *digests);

#endif
