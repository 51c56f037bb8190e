/* A run from deck to results: the engine that ties deck, network, model, backend, communication and I/O together. */
#ifndef QR_RUN_RUN_H
#define QR_RUN_RUN_H

#include "base/status.h"

#include <stdbool.h>

typedef struct qr_run_options {
    const char *deck_path;
    const char *const *overrides; /* "key=value" */
    int n_overrides;
    bool dry_run; /* validate, say what would be needed, stop */
    bool quiet;
    bool values_only;     /* of a check: no word on memory */
    int n_ranks, n_nodes; /* of a check: for which job it plans; 1 at the least, and no fewer ranks than nodes */
    const char *restart; /* NULL: begin afresh; "auto": the newest checkpoint of the deck's tiers, if there is one; else
                            a directory of checkpoints or one manifest */
} qr_run_options;

/* How a run ended, beyond its status. */
typedef struct qr_run_outcome {
    bool speaks;     /* this rank is the one to print the error, so that a job has one message */
    bool must_abort; /* another rank no longer answers: leave by MPI_Abort, an orderly end would wait for it */
    bool resumable;  /* stopped by a signal, and a checkpoint holds all of it: exit code 75 */
    bool exit_fast;  /* a file library is in a state in which its clean-up at exit may crash: leave by _exit */
} qr_run_outcome;

/* Collective over MPI_COMM_WORLD, after MPI_Init_thread. Every rank returns the same status. */
qr_status qr_run_deck(const qr_run_options *options, qr_run_outcome *outcome);

/* Reads and checks a deck with everything that needs no files but the deck, and plans for a job of n_ranks on n_nodes
 * machines such as this one, as its run would: QR_USAGE, QR_ENVIRONMENT or QR_RESOURCE where that could not hold the
 * states of its agents. For `quorate check`. *text is the resolved deck, malloc'd. */
qr_status qr_check_deck(const qr_run_options *options, char **text);

/* QR_ENVIRONMENT when the processor lacks an instruction that the answers depend on. */
qr_status qr_check_processor(void);

#endif
