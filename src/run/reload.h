/* Agents from a checkpoint: servers read pages, compute ranks take what is theirs, whatever ranks wrote them. */
#ifndef QR_RUN_RELOAD_H
#define QR_RUN_RELOAD_H

#include "io/recovery.h"
#include "run/simulation.h"

/* Sets votes and states of all agents from the generation. recovery: what this rank's server sees; NULL on others.
 * *done false: some of it cannot be read anywhere, agents are undefined, and the message (on all ranks) says what.
 * Other failures are returned, also to look whether it can be read (too many open files). Collective over the world. */
qr_status qr_reload(qr_simulation *simulation, const qr_recovery *recovery, const qr_manifest *manifest, bool *done);

#endif
