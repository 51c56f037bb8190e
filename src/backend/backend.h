/* What a backend does for one part of the agents: hold votes and states, exchange halos through plain buffers, advance
 * one step (or one colour of a sweep), and count the result in the same pass.
 *
 * A backend sees its own part only; sums over parts are made by whoever drives it (comm, consensus). Every backend
 * gives the same bits as the CPU backend, unless it is_fast. Not thread-safe: one caller. */
#ifndef QR_BACKEND_BACKEND_H
#define QR_BACKEND_BACKEND_H

#include "consensus.h"
#include "model/model.h"
#include "network/network.h"

typedef struct qr_backend qr_backend;

/* Votes of a part, or of all parts after the sum. leader: per option the largest packed (score, lowest agent) among its
 * voters, 0 when it has none; see qr_leader_pack. Entries at n_options and above are 0. */
typedef struct qr_tally {
    int64_t votes[QR_MAX_OPTIONS];
    uint64_t leader[QR_MAX_OPTIONS];
} qr_tally;

enum { QR_JOIN_BYTES = 128, QR_DEVICE_ID_BYTES = 16 };

/* Everything a backend is made from; borrowed for its lifetime. */
typedef struct qr_backend_setup {
    const qr_model *model;
    const qr_network *network;
    const uint8_t *file_votes; /* [own count] first votes where the deck names a file, else NULL; used at creation */
    int threads;
    int place;         /* number of this compute rank among those of its machine: which device it drives */
    int places;        /* how many those are: who shares a device; 0 counts as 1 */
    double timeout_s;  /* longest wait for a device; 0: two minutes */
    bool device_times; /* phases are timed on the device (qr_counters) */
    /* Agents that see no halo vote are updated while that travels if there are at least so many of them; 0: where the
     * backend finds it worth while. */
    int64_t overlap_agents;
    /* States in frames instead of all at once, for agents of which not all fit (page/pager.h): n_frames > 0 frames of
     * page_agents agents each, a multiple of 64. The caller says what lies in which; see qr_frame_ops. */
    int64_t page_agents;
    int64_t n_frames;
    /* Asked now and then during long waits; true: another part failed and will not come, give up. NULL: never. */
    bool (*must_give_up)(void *context);
    void *context;
} qr_backend_setup;

/* What a backend's device did so far, since creation; all 0 where there is none. Phases take the place of those of
 * base/timer.h, as the device sees them. */
typedef struct qr_counters {
    double kernel_s;         /* from the first to the last kernel of each batch or call, gaps between them included */
    double moved_bytes;      /* by the steps taken, at the least: bytes_per_step of each */
    double copy_bytes_per_s; /* bytes read and written by a copy within the device, measured at creation; 0: unknown */
    bool has_phases;         /* the rest is known: device_times was set */
    double halo_s;           /* but what of it was hidden behind updates that went on meanwhile */
    double update_s;         /* with the tally */
    double reduce_s;         /* with the decision; 0 where the last block of the update decides */
} qr_counters;

enum { QR_TIMEOUT_S = 120 };

/* Steps that a backend takes by itself, without its caller between them. */
typedef struct qr_steps {
    int64_t first; /* number of the first step; the votes are those after step first - 1 */
    int64_t count; /* at most so many */
    bool stop_at_decision;
    const qr_consensus *consensus; /* before the first step */
    const int64_t *votes;          /* [n_options] of all agents before the first step */
    int64_t done;                  /* out: steps taken */
    const int64_t *row_votes;      /* out: [done][n_options] votes of all agents after each step */
    const uint64_t
        *row_leaders; /* out: [done] packed leader of the winner; both owned by the backend until its next call */
} qr_steps;

/* Own agents first .. first + count - 1 on their way out: votes as bytes, or states. */
typedef struct qr_piece {
    int64_t first, count;
    void *out; /* [count] uint8_t, or [count][state_dim] float */
    bool states;
} qr_piece;

/* One page in one frame, on its way in or out. */
typedef struct qr_frame_copy {
    int64_t frame;
    int64_t agents; /* how many of the frame's */
    void *host;
} qr_frame_copy;

/* States in frames. Pages number the own agents through: page p holds agents p * page_agents .. of the part, the last
 * one fewer. A backend made with frames takes steps by these calls alone (neither update nor run), and read_state,
 * write_state and pieces of states are not for it.
 *
 * All but the waits and finish only enqueue, and take many pages at once, as a page by itself is too little work for a
 * device. What is asked for a frame is carried out in the order in which it was asked for: a fill after the eviction
 * before it, an update after the fill. Between frames there is no order, but that updates come one after another. Host
 * memory of copies must stay as it is until they are done; memory from allocate_host, or of register_memory, is copied
 * without a detour. */
typedef struct qr_frame_ops {
    /* How many frames of setup->page_agents fit beside everything else that this job needs: before create. *bytes: of
     * free memory. QR_RESOURCE when not even one fits. */
    qr_status (*room)(const qr_backend_setup *setup, int64_t *n_frames, int64_t *bytes);

    /* Memory of a frame, for a backend whose frames are host memory: then fill and evict are never called, and an
     * update is over when it returns. NULL: frames lie on a device. */
    float *(*memory)(qr_backend *backend, int64_t frame);

    /* Pinned where that makes copies faster. QR_RESOURCE. */
    qr_status (*allocate_host)(qr_backend *backend, size_t bytes, void **out);
    void (*free_host)(qr_backend *backend, void *memory);

    /* First states of a page's agents, made where they lie. */
    qr_status (*make_first)(qr_backend *backend, int64_t page, int64_t frame);

    /* A step: begin, then every page once in any order, then finish, which waits, makes the new votes current and sets
     * *out to the part's tally. `before`: as in update. */
    qr_status (*begin)(qr_backend *backend, int64_t step, const qr_tally *before);
    qr_status (*update)(qr_backend *backend, const int64_t *pages, const int64_t *frames, int64_t n);
    qr_status (*finish)(qr_backend *backend, qr_tally *out);

    /* Whether any agent of the page moves in this step; several threads may ask at once. If none does, `pass` takes the
     * place of update: votes stay, no state is looked at. */
    bool (*is_active)(const qr_backend *backend, int64_t step, int64_t page);
    qr_status (*pass)(qr_backend *backend, const int64_t *pages, int64_t n);

    /* Copies between frames and host memory, each direction on a stream of its own, beside updates of other frames.
     * *ticket numbers the calls of a direction, ascending from 1. */
    qr_status (*fill)(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket);
    qr_status (*evict)(qr_backend *backend, const qr_frame_copy *copies, int64_t n, int64_t *ticket);

    /* Highest ticket of a direction that is done, never waits; and waiting for one, with the bounds of update. */
    int64_t (*filled)(qr_backend *backend);
    int64_t (*evicted)(qr_backend *backend);
    qr_status (*wait_filled)(qr_backend *backend, int64_t ticket);
    qr_status (*wait_evicted)(qr_backend *backend, int64_t ticket);

    /* Bytes per second of pinned copies in, out, and of both at once together, measured now; 0 where no memory is left
     * to do that with. NULL: there are no copies. */
    qr_status (*measure_links)(qr_backend *backend, double *in, double *out, double *both);
} qr_frame_ops;

typedef struct qr_backend_ops {
    const char *name;

    /* Allocates, sets the initial votes and states. QR_RESOURCE names bytes. */
    qr_status (*create)(const qr_backend_setup *setup, qr_backend **out);
    void (*destroy)(qr_backend *backend);

    /* Bytes create() would allocate for the votes, zealots and states of a part of n_own agents with this view length;
     * threads' working memory and packed weights come on top. */
    int64_t (*bytes_estimate)(const qr_model *model, const qr_network_spec *spec, int64_t n_own, int64_t view);

    /* Halo messages: bytes for n votes in transit, packing the send runs of a peer, placing what came. */
    int64_t (*halo_bytes)(const qr_backend *backend, int64_t n_votes);
    qr_status (*halo_pack)(qr_backend *backend, const qr_halo_peer *peer, void *message);
    qr_status (*halo_place)(qr_backend *backend, const qr_halo_peer *peer, const void *message);

    /* Buffers for the messages to and from a peer, halo_bytes() each, that the two above are fastest with: memory of
     * the host, or of the device where on_device; owned by the backend. NULL: any memory will do. */
    qr_status (*halo_buffers)(qr_backend *backend, const qr_halo_peer *peer, bool on_device, void **send,
                              void **receive);

    /* Counts the current votes. */
    qr_status (*count)(qr_backend *backend, qr_tally *out);

    /* Starts the next update with the agents that see no halo vote, and returns at once; `before` as in update, for the
     * same step. To be called once all halo votes of the part are packed, and before any is placed; but for halo_place,
     * the next call is that update. May do nothing. NULL: nothing can be done while halo votes travel. Not for sweeping
     * models. */
    qr_status (*begin_update)(qr_backend *backend, int64_t step, const qr_tally *before);

    /* One step (sweeping models: one colour of it) from the current votes, whose halo is up to date, and `before`, the
     * tally of all agents before the step. Sets *out to this part's tally after the update; sweeping models set it with
     * the last colour only. Afterwards the new votes are current. */
    qr_status (*update)(qr_backend *backend, int64_t step, int colour, const qr_tally *before, qr_tally *out);

    /* Joins the parts of a job, so that votes and tallies travel without the caller: part 0 makes an id, everybody
     * passes it in. NULL where the backend cannot. join is collective over the parts, who must all drive a device of
     * their own. */
    qr_status (*make_join_id)(void *id); /* [QR_JOIN_BYTES] */
    qr_status (*join)(qr_backend *backend, int n_parts, int part, const void *id);

    /* What tells one device from another, for the check above. out: [QR_DEVICE_ID_BYTES]. */
    void (*device_id)(const qr_backend *backend, void *out);

    /* PCI address ("0000:1b:00.0") of the device that a rank of this place drives; n: bytes of out, 16 at least. NULL:
     * backends without devices. Before create. */
    qr_status (*device_address)(int place, char *out, size_t n);

    /* Takes steps->count steps, or fewer where a decision ends the run: halo, update, tally, sum over all parts and
     * decision in one go. NULL where the backend cannot; `runs_alone` then says whether it can for this job (NULL:
     * never). Collective over the parts, who must all ask for the same. */
    qr_status (*run)(qr_backend *backend, qr_steps *steps);

    /* True when run() serves this job: a single part, or parts that were joined. */
    bool (*runs_alone)(const qr_backend *backend);

    /* Own votes / states first .. first + count - 1 (0-based in the part). */
    qr_status (*read_votes)(qr_backend *backend, int64_t first, int64_t count, uint8_t *out);
    qr_status (*read_state)(qr_backend *backend, int64_t first, int64_t count, float *out);

    /* The same for many pieces at once, as fast as memory and link allow: a checkpoint stops the steps for so long. */
    qr_status (*copy_out)(qr_backend *backend, const qr_piece *pieces, int64_t n);

    /* Sets own votes / states, as a restart does: all of them before the next step, in pieces in any order. Votes begin
     * at a multiple of QR_AGENTS_PER_WORD and, unless they reach the part's end, are a multiple of it. */
    qr_status (*write_votes)(qr_backend *backend, int64_t first, int64_t count, const uint8_t *votes);
    qr_status (*write_state)(qr_backend *backend, int64_t first, int64_t count, const float *state);

    /* Tells of memory that read_votes and read_state will often be given, so that it can be made fit for fast copies;
     * until destroy. No error where that cannot be done: copies are slower. NULL: of no use. */
    void (*register_memory)(qr_backend *backend, void *memory, size_t bytes);

    /* Bytes of memory moved by one step at the least, for the share of the bandwidth in the end table. */
    double (*bytes_per_step)(const qr_backend *backend);

    /* True when states and votes differ from the CPU backend's by rounding: the deck allowed it (model->fast), and this
     * backend makes use of it. NULL: never. */
    bool (*is_fast)(const qr_backend *backend);

    /* NULL: nothing to tell. */
    void (*counters)(const qr_backend *backend, qr_counters *out);

    /* A few words on how votes are stored and stepped, for the start-up line. */
    const char *(*describe)(const qr_backend *backend);

    /* States in frames; NULL: all states or none. */
    const qr_frame_ops *frames;
} qr_backend_ops;

/* The backend of that name ("cpu"), or NULL. */
const qr_backend_ops *qr_backend_find(const char *name);

#define QR_BACKEND(name) extern const qr_backend_ops qr_backend_ops_##name;
#include "backend/backend_list.h"
#undef QR_BACKEND

#endif
