/* The CPU backend's own state and the pieces it is made of; private to this folder.
 *
 * Votes are stored as bytes (any rule, any network) or, where a rule has a word form and the network is a periodic
 * lattice or a ring, as bit planes: 64 agents to a machine word, one plane per bit of the option number. */
#ifndef QR_BACKEND_CPU_CPU_H
#define QR_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/neural_kernel.h"
#include "backend/cpu/simd/simd.h"

enum {
    QR_CPU_MAX_PLANES = QR_SIMD_MAX_PLANES, /* up to 16 options as bit planes */
    QR_CPU_BLOCK = 4096,                    /* agents a thread handles at a time; whole words */
    QR_CPU_PLANES_BLOCK = 1 << 16,          /* the same on bit planes */
    QR_CPU_FEW_MOVERS = 2048,               /* agents of a colour that are not worth a second thread */
    QR_CPU_MAX_WORD_DEGREE = QR_SIMD_MAX_DEGREE
};

/* One thread's working memory. */
typedef struct qr_cpu_scratch {
    uint8_t *gathered;  /* [degree] neighbours' votes */
    int64_t *positions; /* [degree] their view positions */
    qr_neural_batch batch;
} qr_cpu_scratch;

/* States in frames, and the step that is under way on them: frames.c. */
typedef struct qr_cpu_frames {
    int64_t count;       /* 0: none */
    int64_t page_agents; /* of each */
    float *memory;       /* [count][page_agents][state_dim] */
    int64_t step;
    qr_tally before, sum;
} qr_cpu_frames;

struct qr_backend {
    const qr_model *model;
    const qr_network *network;
    int threads;
    const qr_simd *simd;                    /* NULL: plain forms only */
    int n_planes;                           /* 0: bytes */
    uint8_t *bytes[2];                      /* [view], current and next */
    uint64_t *planes[2][QR_CPU_MAX_PLANES]; /* [view / 64 + 2] words, bit i of the view at word i / 64 */
    int current;
    uint64_t *frozen; /* zealots, a bit per own agent; NULL when there are none */
    float *state;     /* [own][state_dim]; NULL when agents are their vote, or in frames */
    qr_cpu_frames frames;
    float *base;          /* neural: [hidden], qr_neural_global */
    void *packed_weights; /* neural: weights in the order the kernel reads them */
    int n_offsets;        /* 0: no lattice, or too many neighbours for this table */
    qr_lattice_offset offsets[QR_LATTICE_MAX_OFFSETS];
    qr_lattice lattice;      /* of bit planes that are swept by colours */
    int n_colours;           /* of a sweep */
    int64_t *movers;         /* [n_colours] own agents of each, on networks of lists; else NULL */
    qr_cpu_scratch *scratch; /* [threads] */
    char description[128];
};

/* One thread's range of own agents, [begin, end), begin a multiple of 64. */
typedef struct qr_cpu_range {
    int64_t begin;
    int64_t end;
} qr_cpu_range;

/* True when this model on this network is stepped on bit planes; *n_planes how many. */
bool qr_cpu_uses_planes(const qr_model *model, const qr_network_spec *spec, int *n_planes);

/* Each advances one block and adds its result to the thread's tally. `before` is the tally of all agents before the
 * step. */
void qr_cpu_bytes_block(qr_backend *backend, qr_cpu_range block, int64_t step, int colour, const qr_tally *before,
                        qr_cpu_scratch *scratch, qr_tally *tally);
void qr_cpu_planes_block(qr_backend *backend, qr_cpu_range block, int64_t step, qr_tally *tally);
void qr_cpu_sweep_block(qr_backend *backend, qr_cpu_range block, int64_t step, int colour, qr_tally *tally);
/* states: those of the block's agents, [end - begin][state_dim]. */
void qr_cpu_neural_block(qr_backend *backend, qr_cpu_range block, float *states, int64_t step, const qr_tally *before,
                         qr_cpu_scratch *scratch, qr_tally *tally);

/* Adds one tally to another. */
void qr_cpu_tally_merge(qr_tally *into, const qr_tally *from, uint32_t n_options);

/* States in frames: memory for them, and the calls. */
qr_status qr_cpu_frames_create(const qr_backend_setup *setup, qr_backend *backend);
extern const qr_frame_ops qr_cpu_frame_ops;

/* Counts votes already there. */
void qr_cpu_bytes_count(const qr_backend *backend, qr_cpu_range block, qr_tally *tally);
void qr_cpu_planes_count(const qr_backend *backend, qr_cpu_range block, qr_tally *tally);

/* Adds a tally of options counted in a block whose votes stand in `votes` [end - begin]. */
void qr_cpu_tally_bytes(const uint8_t *votes, qr_cpu_range block, int64_t first_agent, uint32_t n_options,
                        qr_tally *tally);

/* Sets up base, packed weights: neural models only. */
qr_status qr_cpu_neural_prepare(qr_backend *backend);
void qr_cpu_neural_before_step(qr_backend *backend, const qr_tally *before);

/* What own agent `index` sees; lattice neighbours are collected in scratch. interior: as qr_cpu_interior_run says, or
 * false where that is not known. */
void qr_cpu_view(const qr_backend *backend, const uint8_t *votes, int64_t index, const int64_t *tally, bool interior,
                 qr_cpu_scratch *scratch, qr_view *out);

/* How many agents from own agent `index` on (at most `most`) stand in a row and have all neighbours at the plain
 * offsets. */
int64_t qr_cpu_interior_run(const qr_backend *backend, int64_t index, int64_t most);

/* The planes that choose the neighbours of a group of 64 agents; none where the rule has no use for them. */
static inline void qr_cpu_draw_choice_planes(const qr_rule *rule, uint64_t group, int64_t step, uint64_t *choice)
{
    for (uint32_t pair = 0; 2 * pair < rule->choice_planes; pair++) {
        qr_planes(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_RULE, pair, choice + 2 * (size_t)pair);
    }
}

/* A word of votes. In sweeps another thread may be writing it: bits of agents in their turn, whom nobody looks at. */
static inline uint64_t qr_cpu_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* Bits `position` .. `position` + 63 of a plane. */
static inline uint64_t qr_cpu_word_at(const uint64_t *plane, int64_t position)
{
    const uint64_t *word = plane + (position >> 6);
    unsigned shift = (unsigned)(position & 63);
    return shift == 0 ? qr_cpu_load(word) : qr_cpu_load(word) >> shift | qr_cpu_load(word + 1) << (64 - shift);
}

#endif
