/* What the host side of the CUDA backend and its kernels agree on: the layout of a part in device memory, the control
 * block, and the launchers. Plain C; included by C and by CUDA sources.
 *
 * Votes lie in a view (network/network.h) twice, current and next, in one of two layouts:
 *
 * - packed: 2^packing votes to a byte, vote v of view position p at bits (p mod 2^packing) * (8 >> packing) of byte
 *   p >> packing;
 * - planes: bit p mod 64 of word p / 64 of plane b is bit b of the vote of view position p.
 *
 * `before` is a multiple of 64, so own agents start at a whole word in both. */
#ifndef QR_DEVICE_H
#define QR_DEVICE_H

#include "consensus.h"
#include "lattice.h"
#include "rules/neural.h"
#include "rules/rule.h"

#include <cuda_runtime_api.h>

enum {
    QR_DEVICE_MAX_PLANES = 4,
    QR_DEVICE_OPTIONS = QR_RULE_MAX_OPTIONS,
    QR_DEVICE_GROUP = 64, /* agents that share their bit planes */
    QR_DEVICE_ROWS = 1024 /* steps that the ring of rows holds */
};

/* How a rule is stepped. */
typedef enum qr_device_form { QR_FORM_PACKED, QR_FORM_PLANES, QR_FORM_NEURAL } qr_device_form;

/* Written by kernels, read and written by the host between launches. Everything that changes from step to step. */
typedef struct qr_control {
    int64_t step;              /* last step taken */
    int64_t limit;             /* the last one to take */
    int64_t rows_from;         /* step `rows_from + 1` goes to row 0 */
    uint32_t current;          /* which of the two buffers holds the votes */
    uint32_t stop_at_decision; /* 0 or 1 */
    uint32_t stopped;          /* kernels return at once */
    uint32_t ticket;           /* blocks that are through with this update */
    qr_consensus consensus;
    int64_t votes[QR_DEVICE_OPTIONS]; /* of all agents after `step` */
    /* Of this part after the update in progress; leaders packed (qr_leader_pack). Zero between steps. */
    unsigned long long part_votes[QR_DEVICE_OPTIONS];
    unsigned long long part_leader[QR_DEVICE_OPTIONS];
} qr_control;

/* Everything that stays. Passed to kernels by value; pointers are device addresses. */
typedef struct qr_part {
    qr_rule rule;
    int32_t kind; /* qr_rule_kind */
    int32_t form; /* qr_device_form */
    int32_t sweeps;
    int32_t complete;
    uint32_t packing;
    int32_t n_planes;
    int32_t n_offsets; /* lattices of two and three dimensions, and planes on a ring */
    qr_lattice_offset offset[QR_LATTICE_MAX_OFFSETS];
    const int64_t *distance; /* [n_offsets] the same distances alone */
    qr_lattice lattice;
    int64_t first; /* global id of own agent 0 */
    int64_t count; /* own agents */
    int64_t before;
    int64_t view;
    const int64_t *row; /* lists: [count + 1] */
    const uint32_t *neighbour;
    const uint16_t *colour;                   /* lists that are swept: [count]; NULL: lattice says the colours */
    uint8_t *packed[2];                       /* the same buffer twice for sweeps */
    uint64_t *plane[2][QR_DEVICE_MAX_PLANES]; /* likewise */
    const uint64_t *frozen;                   /* a bit per own agent, or NULL */
    float *state;                             /* [count][state_dim], or NULL */
    qr_neural neural;                         /* weights in device memory */
    const float *packed_weights;              /* in the order the kernel reads them */
    const uint32_t *fast_weights;             /* neural by tensor cores: weights as those read them; NULL: exact */
    float *base;                              /* neural: [hidden], the same for all agents of a step */
    qr_control *control;
    int64_t *row_votes;      /* [QR_DEVICE_ROWS][n_options] */
    uint64_t *row_leaders;   /* [QR_DEVICE_ROWS] */
    const int64_t *gathered; /* [n_parts][2][n_options] votes and packed leaders of all parts, where these are many */
    int32_t n_parts;
    int32_t mirrors; /* 1: own agents fill the halo, n_agents positions from where they stand */
    int32_t decides; /* 1: the last block of an update decides; 0: somebody sums over parts first */
    int32_t spare;   /* multiprocessors for whose room updates of votes launch no blocks: others want it meanwhile, and
                        blocks that find none would start when the rest is done */
} qr_part;

enum { QR_LOOP_OPTIONS = 32, QR_LOOP_BLOCKS = 160, QR_LOOP_TAG_SHIFT = 48 };

/* What the blocks of a launch of many steps tell each other, in device memory; zeroed once. */
typedef struct qr_loop_state {
    /* A block's share of a step in one word: the step's tag in the upper 16 bits, the lowest agent of the block that
     * votes for the option in the 24 below, the votes in the lowest 24. Steps take turns in two sets. */
    unsigned long long words[2][QR_LOOP_OPTIONS][QR_LOOP_BLOCKS];
    int64_t now[QR_DEVICE_OPTIONS]; /* votes of all agents before the next launch */
    uint64_t command;               /* qr_mail.command as block 0 has read it, or that there is none */
    uint32_t arrived;               /* colours of a sweep: the top bit turns over when all blocks are there */
} qr_loop_state;

/* What such a launch and the host tell each other, in host memory. Every word says by itself whether it is new, for an
 * order among them would cost more than all of them. */
typedef struct qr_mail {
    /* To the host: the batch's number in the upper 32 bits, the buffer that holds the votes above the lower 16, and
     * there how many steps were taken. Rows bear the batch's tag (qr_loop_tag) in their upper 16 bits. */
    uint64_t result;
    uint64_t consensus; /* tag, 1 bit whether decided, 7 bits candidate + 1, 40 bits for how many steps it has held */
    uint64_t left;      /* number of the last batch of a launch that takes no more of them */
    uint64_t apart[13];
    /* From the host to a launch that has handed in a batch and waits a little for the next: number of the batch in the
     * upper 32 bits, stop_at_decision above the lower 16, there the number of steps. */
    uint64_t command;
} qr_mail;

/* Many steps in one launch. Passed by value. */
typedef struct qr_loop_task {
    int64_t first; /* number of the first step */
    int64_t count; /* at most so many, at least 1 */
    uint32_t current;
    uint32_t stop_at_decision;
    int64_t quorum; /* votes that an option needs */
    int64_t hold;   /* as in qr_consensus; */
    int64_t held;   /* before the first step */
    int32_t candidate;
    uint32_t decided;
    uint32_t number;  /* of the batch */
    uint32_t wait_ns; /* for another one */
    qr_loop_state *state;
    qr_mail *mail;         /* this and the rows: host memory, written when all steps are taken */
    uint64_t *row_votes;   /* [count][n_options], tagged */
    uint64_t *row_leaders; /* [count], tagged */
} qr_loop_task;

/* Never 0. */
QR_FN uint64_t qr_loop_tag(uint64_t number)
{
    return (number % 65535u + 1u) << QR_LOOP_TAG_SHIFT;
}

/* A stretch of votes copied inside a view, or between a view and a message. Positions in votes; `first` numbers the
 * votes of all copies of a list through. */
typedef struct qr_copy {
    int64_t from;
    int64_t to;
    int64_t count;
    int64_t first;
} qr_copy;

/* Which of the two sides of a copy is a view. A message holds its votes one byte each. */
typedef enum qr_copy_kind { QR_COPY_WITHIN, QR_COPY_OUT, QR_COPY_IN } qr_copy_kind;

#ifdef __cplusplus
extern "C" {
#endif

/* Launchers only enqueue; errors show in cudaGetLastError. All work goes to `stream`. */

/* One step, or one colour of a sweep, of the whole part; counts into control->part_votes and part_leader with the last
 * colour. With part->decides the step is then taken to its end. */
void qr_launch_update(const qr_part *part, int colour, int last_colour, cudaStream_t stream);

/* Many steps of a crowd that fits on the device all at once, without the host and without other launches. For a single
 * part whose halo is its own (part->mirrors) or empty. qr_loop_fits: whether there is such a kernel for this part. */
int qr_loop_fits(const qr_part *part);
cudaError_t qr_launch_loop(const qr_part *part, const qr_loop_task *task, cudaStream_t stream);

/* Counts the current votes. out: [2][n_options] votes and packed leaders, memory of device or host. */
void qr_launch_count(const qr_part *part, int64_t *out, cudaStream_t stream);

/* Sums part->gathered, decides, appends a row, moves on to the next step. */
void qr_launch_decide(const qr_part *part, cudaStream_t stream);

/* part_votes and part_leader to out: [2][n_options]; zeroes them for the next step. Nothing once stopped. */
void qr_launch_hand_in(const qr_part *part, int64_t *out, cudaStream_t stream);

/* Votes of a list of copies, n_votes in all. Nothing once control->stopped. */
void qr_launch_copy(const qr_part *part, qr_copy_kind kind, const qr_copy *copies, int64_t n_copies, int64_t n_votes,
                    uint8_t *message, cudaStream_t stream);

/* Own votes first .. first + count - 1, a byte each, into and out of the current buffer. */
void qr_launch_store(const qr_part *part, int64_t first, int64_t count, const uint8_t *votes, cudaStream_t stream);
void qr_launch_load(const qr_part *part, int64_t first, int64_t count, uint8_t *votes, cudaStream_t stream);

/* First votes of all own agents, every option as likely. */
void qr_launch_initial_votes(const qr_part *part, cudaStream_t stream);

/* Initial states of all own agents, uniform in +-scale. */
void qr_launch_initial_state(const qr_part *part, float scale, cudaStream_t stream);

/* Pieces of qr_launch_update, one per form. */
void qr_launch_packed(const qr_part *part, int colour, int last_colour, cudaStream_t stream);
void qr_launch_planes(const qr_part *part, cudaStream_t stream);
void qr_launch_planes_sweep(const qr_part *part, int colour, int last_colour, cudaStream_t stream);
void qr_launch_neural(const qr_part *part, cudaStream_t stream);

/* The same by tensor cores, in place of qr_launch_neural where part->fast_weights is set. */
void qr_launch_neural_fast(const qr_part *part, cudaStream_t stream);

/* The same by a kernel made for the sizes that matter most. 0, and nothing is done, for others. */
int qr_launch_neural_tile(const qr_part *part, cudaStream_t stream);

/* Words of qr_part.fast_weights for a network; 0 for sizes that tensor cores are not used for on the current device. */
int64_t qr_neural_fast_count(const qr_neural *net);

/* Makes them from the plain weights, both in host memory; first states are within +-state_scale. 0 when states have no
 * bound (dt >= 2) or a weight is not a number or out of range: nothing for tensor cores. */
int qr_neural_fast_pack(const qr_neural *net, float state_scale, uint32_t *out);

/* Floats of qr_part.packed_weights for a network, and that order made from the plain one. */
int64_t qr_neural_packed_count(const qr_neural *net);
void qr_neural_pack(const qr_neural *net, float *packed);

#ifdef __cplusplus
}
#endif

#endif
