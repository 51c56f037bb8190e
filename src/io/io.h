/* The I/O server: the only part of Quorate that touches result files. It serves the queues of its compute ranks, as the
 * main loop of an I/O rank or as a thread of a compute rank; both run the same loop.
 *
 * Files of a run, in output.directory:
 *   series.h5       /series/{step, tally, winner, leader, decided}; written by server 0
 *   snapshots.h5    /votes (S, N) uint8 and /step (S); with several servers each writes snapshots.part<NNN>.h5 and
 *                   snapshots.h5 is a virtual dataset over them, so that readers see one dataset. After a restart
 *                   from a checkpoint the earlier files stay, new ones are snapshots.a<attempt>.part<NNN>.h5, and
 *                   snapshots.h5 shows them all (io/attempts.h)
 *   snapshots.xdmf  lattices only: opens in ParaView
 *   used.yml, metrics.jsonl, summary.json   sent as text jobs
 * HDF5's own filters alone are used. After every flush the files open in stock h5py, even when the process is killed.
 *
 * Payloads: QR_JOB_SERIES: count rows of qr_series_row followed by n_options uint64 tallies each (row stride =
 * qr_series_row_bytes). QR_JOB_SNAPSHOT: count votes as uint8, of agents first..; arguments[0] = snapshot index from 0.
 * A snapshot is shown when all votes of the server's agents and all earlier snapshots are there.
 * QR_JOB_TEXT: bytes of text; flags: qr_text_mode; name: the file. Longer texts come as a replacement and appendices.
 */
#ifndef QR_IO_IO_H
#define QR_IO_IO_H

#include "base/status.h"
#include "queue/queue.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qr_series_row {
    int64_t step;
    int64_t winner;  /* option with most votes, lowest index on ties */
    int64_t leader;  /* agent id; -1: none */
    int64_t decided; /* 1 when the quorum has held for `hold` steps at this step, else 0 */
} qr_series_row;     /* followed by uint64_t tally[n_options] */

static inline int64_t qr_series_row_bytes(int64_t n_options)
{
    return (int64_t)sizeof(qr_series_row) + n_options * (int64_t)sizeof(uint64_t);
}

typedef enum qr_text_mode { QR_TEXT_APPEND, QR_TEXT_REPLACE } qr_text_mode;

/* Everything the server needs to know about the run; plain values, so it can be built on any rank from the deck. */
typedef struct qr_io_config {
    const char *directory;
    const char *deck_text; /* used.yml's text, stored as attribute */
    const char *title;
    const char *version;
    int64_t n_agents;
    int64_t n_options;
    int server;           /* index of this server over the whole job; 0 writes series.h5 and the texts */
    int n_servers;        /* over the whole job */
    int64_t server_first; /* the agents whose compute ranks this server serves */
    int64_t server_count;
    const int64_t
        *server_starts; /* [n_servers + 1] first agent of each server, then n_agents; NULL when n_servers is 1 */
    bool snapshots;     /* whether snapshots will come */
    int dims;           /* lattice dimensions for the XDMF file: 2 or 3; 0: no lattice */
    int64_t size[3];
    int64_t compression;  /* deflate level 0..9 */
    double flush_every_s; /* rarer when a flush takes more than a tenth of this */
    bool fast;            /* set by the server when QR_JOB_OPEN has flags 1: agents were computed with less precision */
    /* NULL: no checkpoints; no replicas. */
    const struct qr_checkpoint_config *checkpoint;
    const struct qr_replica_transport *transport;
    /* States on disk (io/page_store.h), of the same queues; stays the caller's. NULL: none. */
    struct qr_page_store *pages;
    const char *run_id;        /* of the run, over all attempts; NULL: none */
    int attempt;               /* 0: results begin afresh. Else go on with those that are there (io/attempts.h): */
    int64_t resume_step;       /* lines of metrics up to it stay, */
    int64_t keep_rows_to;      /* rows of the series up to this step, */
    int64_t keep_snapshots_to; /* and snapshots up to this one; what was written beyond is dropped */
    int64_t resume_snapshots;  /* index of the first snapshot that comes */
    int64_t series_every;      /* steps between two rows; 0: not known */
    int64_t snapshot_every;    /* and between two snapshots */
    bool overwrite;            /* replace results of an earlier run */
} qr_io_config;

/* What a server did, for the end-of-run table and the summary. */
typedef struct qr_io_totals {
    int64_t jobs;
    int64_t bytes_in;      /* payload bytes taken from slots */
    int64_t bytes_written; /* size of the files at the end */
    int64_t snapshots;
    double busy_s;
    double flush_s;
} qr_io_totals;

typedef struct qr_io_server qr_io_server;

/* Makes the directory (and its parents), checks that it can be written and that it holds no other run's results unless
 * overwrite is set; QR_ENVIRONMENT otherwise. Writes no file. Called once for the job, by server 0, before the run. */
qr_status qr_io_check_directory(const char *directory, bool overwrite);

/* What qr_io_check_directory would find, with the nearest parent that is there where the directory would be made: makes
 * and writes nothing. */
qr_status qr_io_probe_directory(const char *directory, bool overwrite);

/* For a run that goes on from a checkpoint: makes the directory, and checks that it can be written and that the series
 * in it, if there is one, is of this run, unless overwrite is set; QR_ENVIRONMENT otherwise. *attempt: the number that
 * this attempt's files get. Called once for the job. */
qr_status qr_io_check_resume(const char *directory, const char *run_id, bool overwrite, int *attempt);

/* False when there is no series.h5. *text: the deck it was written with, malloc'd; NULL when that cannot be read. */
bool qr_io_deck_of_results(const char *directory, char **text);

/* The text of summary.json, malloc'd; NULL when there is none that can be read. */
char *qr_io_summary_of_results(const char *directory);

/* A server for n_queues producers (consumer ends, already created). Opens files when the first QR_JOB_OPEN arrives.
 * With checkpoints its threads start here, and end at the end of qr_io_server_run. */
qr_status qr_io_server_create(const qr_io_config *config, qr_queue *queues, int n_queues, qr_io_server **out);

/* Serves until every producer has sent QR_JOB_FINISH. A failing job is acknowledged with its status; the server goes on
 * serving (and refusing) so that no producer hangs. *keep_going (may be NULL) false makes it return early. Returns the
 * first failure. */
qr_status qr_io_server_run(qr_io_server *server, const volatile bool *keep_going, qr_io_totals *totals);

void qr_io_server_destroy(qr_io_server *server);

/* True after the HDF5 library itself failed while it wrote: its clean-up at exit may then crash, so leave by _exit.
 * Full disks and the like do not count: the library never learns of them. True as well when a thread had to be left
 * behind in a system call that does not return. */
bool qr_io_must_exit_fast(void);

/* Starts and joins the same loop in a thread. */
typedef struct qr_io_thread qr_io_thread;
qr_status qr_io_thread_start(qr_io_server *server, qr_io_thread **out);
qr_status qr_io_thread_join(qr_io_thread *thread, qr_io_totals *totals);

/* Prints what an HDF5 result file, or a results directory, holds, and reads all of it: in a child process, so that a
 * file that breaks the HDF5 library is a message too. QR_USAGE when there is no such file or no results are in the
 * directory, QR_DATA when something is damaged. */
qr_status qr_io_info(const char *path);

/* Reads the votes an HDF5 file holds: /votes of shape (N) or (S, N), of which the last row. *votes [n_agents] is
 * malloc'd; where `votes` is NULL they are checked and not kept. QR_USAGE when shape, type or a vote does not fit,
 * QR_DATA when the file is damaged. */
qr_status qr_io_read_votes(const char *path, int64_t n_agents, int64_t n_options, uint8_t **votes);

/* Reads float32 datasets W1 (H, 2K + D), b1 (H), W2 (D, H), b2 (D), Wv (K, D), bv (K) into out, one after another in
 * this order, row-major. QR_USAGE with the dataset and both shapes when one does not fit. Order of W1's columns: global
 * shares (K), state (D), neighbours' shares (K). */
qr_status qr_io_read_weights(const char *path, int64_t n_options, int64_t state_dim, int64_t hidden, float *out);

#endif
