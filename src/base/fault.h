/* Faults on request, for tests of what happens when a disk is full, a sync fails or hangs, a process dies half-way.
 *
 * The environment variable QUORATE_FAULT holds a list, separated by commas, of
 *
 *     POINT[=PART]:WHAT[@N[+]]
 *
 * At the Nth time (1 when left out) that the program passes POINT, with N+ from then on each time, WHAT happens: the
 * name of a system error (ENOSPC, EFBIG, EDQUOT, EROFS, EACCES, EIO, ENOENT, EMFILE) makes the step fail with it;
 * `kill` ends the process with SIGKILL; `hang` does not return, as a system call on a dead disk; `slow` takes a tenth
 * of a second. With =PART only passings with PART in the path that is worked on count.
 *
 *     QUORATE_FAULT=checkpoint.write:ENOSPC@3,checkpoint.fsync=scratch/ssd:hang
 *
 * Points of checkpoints, in the order in which a server passes them, `checkpoint.` before each: `begin` before anything
 * of a generation is made; `write` before each page; `fsync` before the data's fsync and `fsynced` after it; `rename`
 * before the data get their name and `renamed` after that; `index` before the index is written; `directory` before the
 * fsync of the directory; `sealed` when data and index are durable; `manifest` before the manifest is stored and
 * `committed` after it; `retire` before the manifest of an old generation is removed; `retire_data` before its files
 * are; `replica_read` before each piece of a share is read that goes to another server, `replica` before it is written
 * there, `replica_name` before its file gets its name; `read` before each page that is read back to be copied to a
 * slower tier; `open` before the files of a share are opened to be read.
 *
 * Points of results, when a run that was restarted takes over those of earlier attempts:
 *
 *     results.part               before earlier snapshots are looked through; results.joined: when the new joining
 *                                file stands, before what is no longer used is removed
 *     results.series             before the new series takes the old one's place; results.metrics: after that
 *
 * Points of states on disk, of each tier's file: `pages.create` before it is made, `pages.write` and `pages.read` before
 * each part of a page is written or read; at `pages.short` any error makes a read end half-way, at
 * `pages.flip` it flips a bit of what was read.
 *
 * Points of GPUs, passed before every batch of steps, or every step where votes travel through the host; any error
 * does:
 *
 *     cuda.kernel                a kernel ends with an illegal instruction: the device answers errors from then on
 *     cuda.stall                 a kernel runs for longer than compute.timeout
 *     nccl.link                  NCCL says that a link to another rank failed
 *
 * Some ranks alone fail where only they have the variable:
 * mpirun -n 2 quorate run DECK : -n 1 env QUORATE_FAULT=cuda.kernel:EIO@5 quorate run DECK
 *
 * Unset, a point costs one read of a variable. */
#ifndef QR_BASE_FAULT_H
#define QR_BASE_FAULT_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>

/* For qr_fault alone: 0 the environment has yet to be read, 1 no faults, 2 faults. */
extern atomic_int qr_fault_state;

int qr_fault_strike(const char *point, const char *path);

/* To be asked where POINT is: 0, or the errno that the step shall fail with. path may be NULL. */
static inline int qr_fault(const char *point, const char *path)
{
    return atomic_load_explicit(&qr_fault_state, memory_order_relaxed) == 1 ? 0 : qr_fault_strike(point, path);
}

/* Replaces what the environment asks for (NULL: no faults) and lets go of threads that hang; counts begin anew.
 * QR_USAGE for a list that does not read well. For tests. */
qr_status qr_fault_set(const char *list);

#endif
