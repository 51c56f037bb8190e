/* The input deck: every value a run uses, and who set it.
 *
 * One table of keys (key_table.h) drives parsing, bounds, `quorate keys`, `quorate check` and used.yml. A qr_deck is
 * built from the defaults, then the deck's text, then the --set overrides. Every check that needs only the deck is done
 * here; checks that need a model or a network use qr_deck_complain() to point at the line that is wrong. */
#ifndef QR_DECK_DECK_H
#define QR_DECK_DECK_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { QR_MAX_OPTIONS = 256, QR_MAX_DIMENSIONS = 3 };

/* A longer text is refused as a deck before anything else is looked at. */
enum { QR_DECK_MAX_BYTES = 1 << 20 };

/* The largest denominator of a fraction: agents (up to 10^12) times it stays within 64 bits. */
enum { QR_FRACTION_MAX_DEN = 1000000 };

typedef enum qr_stop { QR_STOP_CONSENSUS, QR_STOP_STEPS } qr_stop;
typedef enum qr_initial { QR_INITIAL_UNIFORM, QR_INITIAL_SHARES, QR_INITIAL_FILE } qr_initial;
typedef enum qr_dynamics { QR_DYNAMICS_HEAT_BATH, QR_DYNAMICS_METROPOLIS } qr_dynamics;
typedef enum qr_network_kind {
    QR_NETWORK_COMPLETE,
    QR_NETWORK_RING,
    QR_NETWORK_LATTICE2D,
    QR_NETWORK_LATTICE3D,
    QR_NETWORK_RANDOM_REGULAR,
    QR_NETWORK_ERDOS_RENYI,
    QR_NETWORK_SMALL_WORLD,
    QR_NETWORK_SCALE_FREE,
    QR_NETWORK_EDGE_LIST
} qr_network_kind;
typedef enum qr_neighbourhood { QR_VON_NEUMANN, QR_MOORE } qr_neighbourhood;
typedef enum qr_backend_choice { QR_BACKEND_AUTO, QR_BACKEND_CPU, QR_BACKEND_CUDA } qr_backend_choice;
typedef enum qr_precision_choice { QR_PRECISION_EXACT, QR_PRECISION_FAST } qr_precision_choice;
typedef enum qr_exchange_choice {
    QR_EXCHANGE_AUTO,
    QR_EXCHANGE_MPI_HOST,
    QR_EXCHANGE_MPI_CUDA,
    QR_EXCHANGE_NCCL
} qr_exchange_choice;

typedef struct qr_list_int {
    int64_t n;
    int64_t values[QR_MAX_OPTIONS];
} qr_list_int;

typedef struct qr_list_real {
    int64_t n;
    double values[QR_MAX_OPTIONS];
} qr_list_real;

/* An exact fraction; written 9/10, 0.9 or 1 in a deck. */
typedef struct qr_fraction {
    int64_t num;
    int64_t den;
} qr_fraction;

/* "500 steps" or "10 min": one of the two is set; both 0 means never. */
typedef struct qr_interval {
    int64_t steps;
    double seconds;
} qr_interval;

typedef enum qr_consistency_choice { QR_CONSISTENT_ONE, QR_CONSISTENT_QUORUM, QR_CONSISTENT_ALL } qr_consistency_choice;

/* Where checkpoints of one tier go. */
typedef struct qr_deck_tier {
    char *directory;   /* "": the tier is not used */
    int64_t capacity;  /* bytes; 0 = auto: all there is */
    int64_t keep;      /* generations; 0 = auto: checkpoint.keep */
    char *compression; /* "lz4-1" */
} qr_deck_tier;

/* Where the states of agents lie that do not fit above, and how long they stay. The tiers gpu and cpu have neither
 * directory nor compression (NULL), and hdd, the last one, has no age. */
typedef struct qr_deck_memory_tier {
    char *directory;   /* "": the tier is not used */
    int64_t capacity;  /* bytes, of a GPU or of a node; 0 = auto */
    char *compression; /* "lz4-1" */
    double age;        /* seconds */
} qr_deck_memory_tier;

/* Numbers for which 0 or -1 means "auto" say so in the key table. Strings are owned by the deck, never NULL. */
typedef struct qr_deck {
    struct {
        char *title;
        int64_t seed;
        int64_t steps;
        double activation;
        int stop;              /* qr_stop */
        double progress_every; /* seconds */
    } run;
    struct {
        int64_t count; /* 0: taken from the network */
        int64_t options;
        int initial; /* qr_initial */
        qr_list_real shares;
        char *file;
    } agents;
    struct {
        char *rule;
        qr_list_real qualities;
        double noise;
        qr_list_int zealots;
        int64_t samples; /* majority: 0 = all neighbours */
        int64_t q;
        double epsilon;
        double temperature;
        int dynamics; /* qr_dynamics */
        int64_t state_dim;
        int64_t hidden;
        double dt;
        char *weights;       /* HDF5 file; "" = seeded */
        double weight_scale; /* seeded matrices: uniform, standard deviation weight_scale / sqrt(fan-in) */
        double state_scale;  /* the initial state is uniform in +-state_scale */
    } model;
    struct {
        int kind; /* qr_network_kind */
        qr_list_int size;
        int neighbours; /* qr_neighbourhood */
        bool periodic;
        int64_t degree;     /* ring, random_regular, small_world: neighbours of each agent */
        double mean_degree; /* erdos_renyi */
        double rewire;      /* small_world */
        int64_t attach;     /* scale_free: edges a new agent brings */
        char *file;         /* edge_list */
        bool directed;      /* edge_list */
        int64_t seed;       /* -1: run.seed */
    } network;
    struct {
        qr_fraction quorum;
        int64_t hold;
    } consensus;
    struct {
        int backend;     /* qr_backend_choice */
        int precision;   /* qr_precision_choice */
        int64_t threads; /* per compute rank; 0 = auto */
        double timeout;  /* seconds */
        bool device_times;
    } compute;
    struct {
        int exchange;           /* qr_exchange_choice */
        int64_t ranks_per_node; /* 0 = auto: the machine's nodes */
    } comm;
    struct {
        int64_t ranks_per_node;
        int64_t slots;     /* per compute rank */
        int64_t slot_size; /* bytes */
        int64_t threads;   /* per I/O rank; 0 = auto */
        double timeout;    /* seconds */
    } io;
    struct {
        int64_t page;     /* bytes */
        double high, low; /* watermarks: shares of a tier's capacity */
        struct {
            bool sequential, correlation;
            int64_t ahead; /* pages; 0 = auto */
        } prefetch;
        struct {
            qr_deck_memory_tier gpu, cpu, nvme, ssd, hdd;
        } tiers;
    } memory;
    struct {
        qr_interval every;
        int64_t keep;
        int64_t replicas;
        int consistency; /* qr_consistency_choice */
        bool required;
        bool incremental;
        int64_t staging; /* bytes per compute rank; 0 = auto */
        struct {
            qr_deck_tier nvme, ssd, hdd;
        } tiers;
    } checkpoint;
    struct {
        char *directory;
        qr_interval series_every;
        qr_interval snapshot_every;
        double flush_every;  /* seconds */
        int64_t compression; /* deflate level of HDF5's own filter, 0 = off */
        bool overwrite;
    } output;

    struct qr_deck_origins *origins; /* who set each key; private to src/deck */
    char *name;                      /* file name as given, for messages */
} qr_deck;

/* Builds a deck from `text` (n bytes; need not be terminated, may hold anything). `name` is what messages call it.
 * overrides: n_overrides strings "key=value". Returns QR_USAGE with "name:line:column: message" (or "--set key: ...")
 * for anything wrong, including unknown keys (with the nearest known key), wrong types, values out of bounds. */
qr_status qr_deck_parse(const char *name, const char *text, size_t n, const char *const *overrides, int n_overrides,
                        qr_deck **out);

void qr_deck_destroy(qr_deck *deck);

/* QR_USAGE with the place where `key` ("agents.count") was set, or "name: key (default)" in front of the message. */
qr_status qr_deck_complain(const qr_deck *deck, const char *key, const char *format, ...) QR_PRINTF(3, 4);

/* True when the deck or an override set the key, be it to its default. */
bool qr_deck_was_set(const qr_deck *deck, const char *key);

/* True when the key has its default value, whoever set it. A dump names every key, so checks for keys that are without
 * effect ask this. */
bool qr_deck_is_default(const qr_deck *deck, const char *key);

/* Compares two decks in all that decides what a run comes to: keys that say where, how fast and how long it runs may
 * differ (the key table marks them). Returns how many differ, -1 for want of memory; *list is a malloc'd text
 * of lines "  key: theirs, not ours", NULL when none does. */
int qr_deck_compare(const qr_deck *ours, const qr_deck *theirs, char **list);

/* Records that a value was worked out from others (agents.count from the network's size), shown as origin "derived". */
void qr_deck_mark_derived(qr_deck *deck, const char *key);

/* The resolved deck as YAML that parses again, each line with unit and origin as a comment. *out is malloc'd. */
qr_status qr_deck_dump(const qr_deck *deck, char **out);

/* Prints every key whose name starts with `prefix` ("" = all): type, unit, default, bounds, doc. Returns how many. */
int qr_deck_print_keys(FILE *out, const char *prefix);

/* Nearest of n names to `word` by edit distance, or NULL when none is close. For "did you mean". */
const char *qr_nearest_name(const char *word, const char *const *names, size_t n);

#endif
