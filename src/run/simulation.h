/* What one rank of a run holds; private to src/run. */
#ifndef QR_RUN_SIMULATION_H
#define QR_RUN_SIMULATION_H

#include "backend/backend.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "consensus/consensus.h"
#include "deck/deck.h"
#include "io/checkpoint.h"
#include "io/io.h"
#include "io/manifest.h"
#include "io/page_store.h"
#include "network/network.h"
#include "page/pager.h"
#include "queue/queue.h"
#include "run/run.h"

/* How long a rank that failed waits for the others to hear of it before it ends the job by itself. */
enum { QR_ABORT_AFTER_S = 5 };

/* More than a deck may have, so that the parser can say what is wrong with a large file. */
enum { QR_DECK_READ_BYTES = 16 * QR_DECK_MAX_BYTES };

static inline int64_t qr_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* A compute rank's side of the results: its queue to the I/O server, and rows not handed over yet. */
typedef struct qr_results {
    qr_queue queue;
    bool attached;
    double timeout_s;
    double waited_s; /* for slots */
    int64_t n_options;
    int32_t series_slot; /* QR_NO_SLOT: none open */
    int64_t series_rows; /* in the open slot */
    double series_since; /* when its first row was written */
    int64_t snapshots;
} qr_results;

/* What has to be known of a step to go on from it, agents aside. */
typedef struct qr_cut_facts {
    int64_t step;
    int64_t snapshots;
    double elapsed_s; /* of all attempts */
    qr_consensus consensus;
} qr_cut_facts;

/* Where one tier stands; the same on all compute ranks, but for what has been seen on the board. */
typedef struct qr_tier_state {
    bool used;         /* the deck names it */
    bool given_up;     /* it failed too often */
    int strikes;       /* failures in a row */
    int64_t in_flight; /* generation being written; 0: none */
    bool committing;   /* its manifest has been handed over */
    int64_t tried;     /* newest that was begun */
    int64_t committed; /* newest that counts; 0: none */
    qr_cut_facts in_flight_facts, committed_facts;
    int64_t n_committed, n_failed;
    qr_tier_post seen;  /* own server's line, as last read */
    qr_tier_post whole; /* sums over servers, at the end; of seconds the longest */
    double awake_since; /* the line has not changed for so long, s */
} qr_tier_state;

/* A compute rank's side of checkpoints. */
typedef struct qr_checkpoints {
    bool enabled;
    bool leads;  /* the lowest part of its server: the one who speaks for it */
    int n_leads; /* servers that serve anybody */
    qr_tier_state tiers[QR_N_TIERS];
    int64_t next_generation;
    int64_t restart_step; /* the step this attempt began with; -1: from the start */
    bool wanted;          /* one is due that could not be begun yet */
    bool unprotected;     /* no tier is left; said so */
    char run_id[33];
    int64_t restarts;
    double elapsed_before_s; /* in earlier attempts */
    double due_s;            /* next, for intervals in seconds; part 0 */
    double looked_s;         /* when the board was last read */
    int64_t clearing;        /* generations whose copies this rank's server is making, and tiers on which it removes old
                                ones, as last read */
    int64_t replicas_missing;
    int64_t cuts, late;
    double blocked_s; /* steps waited for all of it; what is left to do after the last one does not count */
    int64_t copied_bytes;
    double blocked_longest_s; /* the same over all ranks, at the end */
    int64_t copied_bytes_whole;
    int64_t replicas_missing_whole;
} qr_checkpoints;

/* What there is on the disk of a memory tier. */
typedef struct qr_paging_disk_room {
    int64_t free_bytes; /* with what page stores take that are nobody's any longer */
    uint64_t device;    /* what tells disks of a machine apart */
    int sharers;        /* compute ranks that share it */
    bool is_limit;      /* it is free bytes, and not the deck's capacity, that sets how many pages go there */
} qr_paging_disk_room;

/* A rank's states in pages: run/paging.h. I/O ranks know only what they need to serve them. */
typedef struct qr_paging {
    bool wanted;    /* states are paged; the same on all ranks */
    bool on_disk;   /* some of the tiers are disks; the same on all ranks */
    bool on_device; /* computed on a GPU */
    int64_t page_agents, agent_bytes, n_pages;
    qr_memory_tier_config tiers[QR_N_MEMORY_TIERS];
    int64_t ahead;
    qr_page_plan plan;
    int64_t auto_free[QR_N_MEMORY_TIERS]; /* gpu, cpu with capacity auto: bytes free before, for all ranks that share */
    int64_t auto_left[QR_N_MEMORY_TIERS]; /* and left for all else */
    qr_paging_disk_room room[QR_N_TIERS];
    int node;                            /* that {node} in their directories stands for */
    int64_t needed_bytes, there_bytes;   /* states; room for them in all tiers */
    double link_in, link_out, link_both; /* measured between GPU and host, bytes per s; 0: not */
    qr_pager *pager;
    qr_pager_counters whole; /* over all compute ranks, as qr_paging_add_up last found them; of times the longest */
    qr_page_tier_totals disks[QR_N_TIERS];     /* and over all servers; */
    qr_page_tier_totals own_disks[QR_N_TIERS]; /* of the one that this rank speaks for */
    double whole_in, whole_out;                /* measured between GPUs and host, of all compute ranks */
    qr_page_store *store;                      /* of ranks that serve, as is the thread */
    struct qr_page_service *service;
} qr_paging;

/* When part 0 last told how far the run is. */
typedef struct qr_progress {
    double every_s;
    double begun_s;
    double last_s;       /* a line of metrics */
    double logged_s;     /* a line that a person sees, after a step */
    double within_s;     /* the same in the midst of long work, or when that began */
    int64_t within_step; /* and what that is: a step, */
    int within;          /* or what comes before and after them (qr_long_work) */
    int64_t last_step;
    bool terminal;
    size_t width; /* of the longest line so far */
} qr_progress;

typedef struct qr_simulation {
    const qr_run_options *options;
    qr_deck *deck;
    char *used_text; /* the resolved deck, with version */
    qr_comm *comm;
    qr_network_spec spec;
    qr_network_facts facts;
    qr_model *model; /* compute ranks only, from here on */
    qr_network *network;
    const qr_backend_ops *ops;
    bool on_device;           /* what computes is a GPU, or shall be one when there is one */
    char backend_reason[192]; /* why this backend */
    const char *exchange_name;
    bool device_messages; /* halo votes go to MPI in device memory */
    qr_backend *backend;
    qr_halo_exchange *exchange;
    int threads;
    int cores_near_device; /* that this rank was bound to; 0: it was not */
    qr_results results;
    qr_paging paging;
    bool slab_is_ready; /* qr_slab_prepare */
    qr_checkpoints checkpoints;
    bool restarted; /* step, consensus and agents are those of a checkpoint */
    bool
        ended_already; /* and it is that of the run's last step: agents were not read, tally and state hash are known */
    int64_t first_step; /* that of the checkpoint; 0 */
    int attempt;        /* of the results: 0, or io/attempts.h */
    bool replaces_results;
    bool resumable; /* stopped by a signal, with a checkpoint of its last step */
    qr_timers timers;
    qr_progress progress;
    double started_s;
    qr_tally tally;
    qr_consensus consensus;
    int64_t step;    /* last step done */
    int stop_signal; /* 0: none */
    char state_hash[33];
    struct qr_replica_mail *replica_mail; /* I/O ranks */
    qr_replica_transport transport;
    qr_io_server *server; /* I/O ranks, and compute ranks that serve themselves */
    qr_io_thread *server_thread;
    qr_queue *server_queues; /* [n_server_queues] consumer ends */
    int n_server_queues;
    qr_io_totals io_totals;
    bool must_abort;    /* another rank no longer answers: an orderly end would wait for it for ever */
    bool silent;        /* must_abort, and another rank says why */
    MPI_Win window;     /* shared memory of the queues; MPI_WIN_NULL with a thread */
    void *queue_memory; /* the same with a thread */
} qr_simulation;

/* setup.c: deck to backend, collective, all ranks agree after each stage. */
qr_status qr_simulation_check_values(qr_simulation *simulation);   /* local: all that needs no file but the deck */
qr_status qr_simulation_make_used_text(qr_simulation *simulation); /* local: the resolved deck, with what wrote it */
qr_status qr_simulation_read_deck(qr_simulation *simulation);
qr_status qr_simulation_check(qr_simulation *simulation);
qr_status qr_simulation_build(qr_simulation *simulation);
void qr_simulation_clear(qr_simulation *simulation);

/* choose.c: collective over the compute ranks. The first sets ops, the second joins the parts where it can. */
qr_status qr_choose_backend(qr_simulation *simulation);
/* The same for a dry run or a check: where the deck wants GPUs and none is here, ops are the CPU's, on_device is set.
 */
void qr_foresee_backend(qr_simulation *simulation);
qr_status qr_choose_exchange(qr_simulation *simulation);

/* plan.c: a dry run. Collective over the world. */
qr_status qr_simulation_plan(qr_simulation *simulation);

/* files.c: what comes from files, read by world rank 0 and handed to the parts that need it. Collective over the world.
 */
qr_status qr_simulation_read_edges(qr_simulation *simulation, qr_edge **mine, int64_t *n_mine);
qr_status qr_simulation_read_initial(qr_simulation *simulation, uint8_t **mine);
qr_status qr_simulation_read_weights(qr_simulation *simulation, float **weights);

/* estimate.c: bytes of the node's memory, or of its GPU's, that a compute rank would need, about; prints the plan of a
 * dry run. */
typedef struct qr_memory_need {
    int64_t votes, states, network, buffers; /* states: those that are not elsewhere, where they are paged */
} qr_memory_need;
qr_memory_need qr_estimate_part(const qr_simulation *simulation, const qr_model *model, int part);
qr_memory_need qr_estimate_device(const qr_simulation *simulation, const qr_model *model, int part);
/* A part of the network's halo in it is as long as it can be. */
int64_t qr_estimate_view(const qr_network_spec *spec, int64_t n_own);
int64_t qr_memory_need_bytes(const qr_memory_need *need);
void qr_describe_need(const qr_memory_need *need, char *out, size_t n); /* "votes 2 MiB, states ..." */
void qr_warn_of_gpu_tier(const qr_simulation *simulation); /* that has no effect, as nothing is computed on a GPU */
void qr_warn_of_memory(const qr_simulation *simulation, const qr_model *model);
void qr_print_plan(const qr_simulation *simulation, const qr_model *model);

/* maps.c: QR_ENVIRONMENT on an I/O rank into which a CUDA library is mapped. `when`: for the message. */
qr_status qr_check_own_maps(const qr_simulation *simulation, const char *when);

/* servers.c: queues and I/O servers. Collective over the world. */
qr_status qr_queues_create(qr_simulation *simulation);
qr_status qr_servers_create(qr_simulation *simulation); /* after the queues */
qr_status qr_servers_start_thread(qr_simulation *simulation);
void qr_servers_clear(qr_simulation *simulation);

/* tiers.c: what the deck says of checkpoints. */
bool qr_checkpoints_wanted(const qr_deck *deck);
qr_status qr_tiers_check(const qr_deck *deck);
int64_t qr_page_agents(const qr_simulation *simulation, int64_t bytes_an_agent);
int64_t qr_page_count(const qr_simulation *simulation, int part);
qr_queue_shape qr_shape_of_queue(const qr_simulation *simulation, int part);
/* "{node}" becomes the node's number; malloc'd. */
qr_status qr_expand_node(const char *pattern, int node, char **out);
/* Directory of a tier as the deck has it, malloc'd; *out stays NULL for a tier that is not used. */
qr_status qr_tier_pattern(const qr_deck *deck, int tier, char **out);
/* Directory of a tier on a node, malloc'd; *out stays NULL for a tier that is not used. */
qr_status qr_tier_directory(const qr_deck *deck, int tier, int node, char **out);
/* Threads of a server that compress: its share of the node's cores, or what the deck says. */
int qr_threads_of_server(const qr_simulation *simulation);
/* Filled for a server; the strings are owned by the caller of qr_tiers_clear. */
qr_status qr_tiers_configure(const qr_simulation *simulation, int server, qr_checkpoint_config *out);
void qr_tiers_clear(qr_checkpoint_config *config);

/* checkpoint.c: compute ranks decide on cuts, commits and drains together. Collective over compute, all with the same
 * notes; see io/checkpoint.h for what servers do with it. */
qr_status qr_checkpoints_begin(qr_simulation *simulation);
void qr_checkpoints_note(qr_simulation *simulation, qr_notes *notes); /* local */
qr_status qr_checkpoints_turn(qr_simulation *simulation, const qr_notes *notes, bool cut_is_due);
qr_status qr_checkpoints_finish(qr_simulation *simulation); /* a last cut; waits until nothing is under way */

/* report_checkpoints.c: adds up what all servers did so far. Collective over compute. */
void qr_checkpoints_add_up(qr_simulation *simulation);

/* states.c: slots are touched before anybody waits for the system to find their memory, and the backend told of them;
 * once, while none is in use. */
void qr_slab_prepare(qr_simulation *simulation);

/* cut.c: copies this rank's pages out; local. */
qr_status qr_cut(qr_simulation *simulation, int64_t generation, int tier);

/* restart.c: finds the newest generation that can be read and takes agents, step and decision from it. Collective over
 * the world, after the build. Where --restart auto finds nothing, the run begins afresh. */
qr_status qr_simulation_restart(qr_simulation *simulation);
/* ended.c: whether the checkpoint is that of a run's last step, and its results say what it came to; of states that
 * would have to be paged. Collective over the world. */
bool qr_ended_already(qr_simulation *simulation, const qr_manifest *manifest);
void qr_ended_report(const qr_simulation *simulation);
/* A run that begins afresh finds no checkpoints of another one, or removes them where the deck says so. */
qr_status qr_simulation_check_tiers(qr_simulation *simulation);
/* Removes what killed attempts left half-done in the tiers' directories. Collective over the world, before the first
 * cut.
 */
qr_status qr_simulation_clean_tiers(qr_simulation *simulation);
/* The results directory: made, and free for this run's results or holding those that it goes on with. Collective over
 * the world. */
qr_status qr_simulation_check_directory(qr_simulation *simulation);

/* results.c: a compute rank hands over output. */
const char *qr_results_precision(const qr_simulation *simulation); /* "exact" or "fast": what was computed with */
qr_status qr_results_open(qr_simulation *simulation);
qr_status qr_results_series(qr_simulation *simulation, int64_t winner);
qr_status qr_results_submit_rows(qr_simulation *simulation); /* rows that have not been handed over yet */
qr_status qr_results_snapshot(qr_simulation *simulation);
qr_status qr_results_text(qr_simulation *simulation, const char *name, qr_text_mode mode, const char *text);
qr_status qr_results_poll(qr_simulation *simulation);
qr_status qr_results_finish(qr_simulation *simulation);

/* engine.c: the step loop of the compute ranks. Collective over compute. */
qr_status qr_engine_run(qr_simulation *simulation);

/* state_hash.c: collective over compute; text: 33 bytes, set on part 0. */
qr_status qr_state_hash(qr_simulation *simulation, char *text);

/* report.c */
void qr_progress_begin(qr_simulation *simulation);
bool qr_progress_is_due(const qr_progress *progress); /* by part 0's clock */
/* A line of progress and one of metrics. Part 0, after what all ranks did has been added up. */
qr_status qr_progress_show(qr_simulation *simulation, bool last);
/* A line of progress, if one is due, in the midst of what takes long: this rank has done so much of all that it has to
 * do. Other ranks than part 0 say nothing. */
typedef enum qr_long_work { QR_LONG_STEP, QR_LONG_FIRST_STATES, QR_LONG_RELOAD, QR_LONG_HASH } qr_long_work;
void qr_progress_within(qr_simulation *simulation, qr_long_work work, int64_t done, int64_t all);
/* Removes the line that is written over and over. */
void qr_progress_end(qr_simulation *simulation);
void qr_report_start(const qr_simulation *simulation);
qr_status qr_report_summary(qr_simulation *simulation);
void qr_report_end(qr_simulation *simulation); /* collective over the world */

/* signals.c: 0, or the number of the signal that asked this process to stop. */
void qr_signals_install(void);
int qr_signals_received(void);

/* place.c: local. Compute ranks that share this rank's machine, and its number among them (NULL: not asked for). */
int qr_ranks_of_machine(const qr_comm *comm, int *place);
/* Threads of this compute rank: the deck's, or its share of the cores. */
int qr_threads_of_rank(const qr_simulation *simulation);

/* machine.c: cores this process may use; bytes of memory of the machine. */
int qr_machine_cores(void);
/* Keeps this process on the cores nearest to a PCI device ("0000:1b:00.0"), unless somebody has bound it to some
 * already. Returns how many they are; 0 when everything stays as it was: no such device, or all cores are as near. */
int qr_machine_bind_near(const char *address);
int64_t qr_machine_memory(void);
/* Of it, what can be had without harm to anybody: neither more than the system says, nor than this process' control
 * group allows. 0: not known. */
int64_t qr_machine_free_memory(void);

#endif
