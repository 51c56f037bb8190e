#include "deck/key_table.h"

#include <stdio.h>
#include <string.h>

static const char *const stops[] = {[QR_STOP_CONSENSUS] = "consensus", [QR_STOP_STEPS] = "steps"};
static const char *const initials[] = {
    [QR_INITIAL_UNIFORM] = "uniform", [QR_INITIAL_SHARES] = "shares", [QR_INITIAL_FILE] = "file"};
static const char *const dynamics[] = {[QR_DYNAMICS_HEAT_BATH] = "heat_bath", [QR_DYNAMICS_METROPOLIS] = "metropolis"};
static const char *const network_kinds[] = {[QR_NETWORK_COMPLETE] = "complete",
                                            [QR_NETWORK_RING] = "ring",
                                            [QR_NETWORK_LATTICE2D] = "lattice2d",
                                            [QR_NETWORK_LATTICE3D] = "lattice3d",
                                            [QR_NETWORK_RANDOM_REGULAR] = "random_regular",
                                            [QR_NETWORK_ERDOS_RENYI] = "erdos_renyi",
                                            [QR_NETWORK_SMALL_WORLD] = "small_world",
                                            [QR_NETWORK_SCALE_FREE] = "scale_free",
                                            [QR_NETWORK_EDGE_LIST] = "edge_list"};
static const char *const neighbourhoods[] = {[QR_VON_NEUMANN] = "von_neumann", [QR_MOORE] = "moore"};
static const char *const backends[] = {
    [QR_BACKEND_AUTO] = "auto", [QR_BACKEND_CPU] = "cpu", [QR_BACKEND_CUDA] = "cuda"};
static const char *const precisions[] = {[QR_PRECISION_EXACT] = "exact", [QR_PRECISION_FAST] = "fast"};
static const char *const exchanges[] = {[QR_EXCHANGE_AUTO] = "auto",
                                        [QR_EXCHANGE_MPI_HOST] = "mpi-host",
                                        [QR_EXCHANGE_MPI_CUDA] = "mpi-cuda",
                                        [QR_EXCHANGE_NCCL] = "nccl"};

static const char *const consistencies[] = {
    [QR_CONSISTENT_ONE] = "one", [QR_CONSISTENT_QUORUM] = "quorum", [QR_CONSISTENT_ALL] = "all"};

#define MILLION  INT64_C(1000000)
#define TRILLION INT64_C(1000000000000)
#define DAY_S    86400.0

/* NOLINTBEGIN(bugprone-macro-parentheses): offsetof takes a member, not an expression */
#define KEY(key_type, section, field)                                                                                  \
    .name = #section "." #field, .type = QR_KEY_##key_type, .offset = offsetof(qr_deck, section.field)
/* NOLINTEND(bugprone-macro-parentheses) */
#define CHOICES(array) .choices = (array), .n_choices = (int)(sizeof(array) / sizeof(array)[0])
#define AUTO(value)    .has_auto = true, .auto_value = (value)
#define CHANGEABLE     .changeable = true

/* clang-format off */
const qr_key qr_keys[] = {
    {KEY(TEXT, run, title), CHANGEABLE, .standard = "", .doc = "What the run is called in plots and tables"},
    {KEY(INT, run, seed), .standard = "1", .least = 0, .most = INT64_MAX, .doc = "Seed of every random number"},
    {KEY(INT, run, steps), CHANGEABLE, .unit = "steps", .standard = "1000", .least = 1, .most = TRILLION,
     .doc = "The run ends after this many steps at the latest"},
    {KEY(REAL, run, activation), .standard = "1", .low = 0, .above_low = true, .high = 1,
     .doc = "Probability that an agent updates in a step"},
    {KEY(CHOICE, run, stop), CHANGEABLE, .standard = "consensus", CHOICES(stops),
     .doc = "Stop at the decision, or go on to the last step"},
    {KEY(DURATION, run, progress_every), CHANGEABLE, .standard = "1 s", .low = 0, .high = DAY_S,
     .doc = "Time between progress lines"},

    {KEY(INT, agents, count), .unit = "agents", .standard = "auto", .least = 1, .most = TRILLION, AUTO(0),
     .doc = "How many agents; auto takes it from the network's size or file"},
    {KEY(INT, agents, options), .standard = "2", .least = 2, .most = QR_MAX_OPTIONS,
     .doc = "How many options the agents vote on"},
    {KEY(CHOICE, agents, initial), .standard = "uniform", CHOICES(initials),
     .doc = "First votes: drawn uniformly, in given shares, or read from a file"},
    {KEY(REALS, agents, shares), .standard = "[]", .low = 0, .high = 1e15, .max_items = QR_MAX_OPTIONS,
     .doc = "Weight of each option among the first votes (initial: shares); need not sum to 1"},
    {KEY(TEXT, agents, file), .standard = "", .doc = "HDF5 file with the first votes (initial: file)"},

    {KEY(TEXT, model, rule), .standard = "voter", .needs_text = true,
     .doc = "How an agent votes; `quorate models` lists the rules"},
    {KEY(REALS, model, qualities), .standard = "[]", .low = 0, .above_low = true, .high = 1e15,
     .max_items = QR_MAX_OPTIONS, .doc = "best_of_n: quality of each option"},
    {KEY(REAL, model, noise), .standard = "0", .low = 0, .high = 1,
     .doc = "Probability that an update adopts a random option instead"},
    {KEY(INTS, model, zealots), .unit = "agents", .standard = "[]", .least = 0, .most = TRILLION,
     .max_items = QR_MAX_OPTIONS, .doc = "For each option, agents that hold it for ever"},
    {KEY(INT, model, samples), .unit = "neighbours", .standard = "0", .least = 0, .most = 1000,
     .doc = "majority: neighbours asked, drawn with repetition; 0 asks all"},
    {KEY(INT, model, q), .unit = "neighbours", .standard = "4", .least = 1, .most = 1000,
     .doc = "q_voter: neighbours that must agree"},
    {KEY(REAL, model, epsilon), .standard = "0", .low = 0, .high = 1,
     .doc = "q_voter: probability to change all the same when they disagree"},
    {KEY(REAL, model, temperature), .standard = "1", .low = 0, .high = 1e9,
     .doc = "potts: temperature in units of J/k_B; neural: of the softmax, 0 = argmax"},
    {KEY(CHOICE, model, dynamics), .standard = "heat_bath", CHOICES(dynamics), .doc = "potts: how a new vote is drawn"},
    {KEY(INT, model, state_dim), .unit = "float32", .standard = "64", .least = 1, .most = 1024,
     .doc = "neural: state of each agent"},
    {KEY(INT, model, hidden), .unit = "units", .standard = "64", .least = 1, .most = 4096,
     .doc = "neural: width of the hidden layer"},
    {KEY(REAL, model, dt), .standard = "0.1", .low = 0, .above_low = true, .high = 100,
     .doc = "neural: time step of the state"},
    {KEY(TEXT, model, weights), .standard = "", .doc = "neural: HDF5 file with the shared weights; empty = seeded"},
    {KEY(REAL, model, weight_scale), .standard = "1", .low = 0, .high = MILLION,
     .doc = "neural: seeded weights have the standard deviation weight_scale / sqrt(fan-in)"},
    {KEY(REAL, model, state_scale), .standard = "1", .low = 0, .high = MILLION,
     .doc = "neural: size of the first states"},

    {KEY(CHOICE, network, kind), .standard = "complete", CHOICES(network_kinds), .doc = "Who sees whom"},
    {KEY(INTS, network, size), .unit = "agents", .standard = "[]", .least = 1, .most = TRILLION,
     .max_items = QR_MAX_DIMENSIONS, .doc = "lattices: extent in x, y and z; ids run along x first"},
    {KEY(CHOICE, network, neighbours), .standard = "von_neumann", CHOICES(neighbourhoods),
     .doc = "lattices: nearest along the axes, or with the diagonals"},
    {KEY(BOOL, network, periodic), .standard = "true",
     .doc = "lattices: the far ends are neighbours; rings must be closed: true"},
    {KEY(INT, network, degree), .unit = "neighbours", .standard = "4", .least = 1, .most = MILLION,
     .doc = "ring, random_regular, small_world: neighbours of each agent"},
    {KEY(REAL, network, mean_degree), .unit = "neighbours", .standard = "8", .low = 0, .high = MILLION,
     .doc = "erdos_renyi: neighbours of an agent on average"},
    {KEY(REAL, network, rewire), .standard = "0.1", .low = 0, .high = 1,
     .doc = "small_world: probability that an edge is rewired"},
    {KEY(INT, network, attach), .unit = "edges", .standard = "4", .least = 1, .most = 10000,
     .doc = "scale_free: edges that each new agent brings"},
    {KEY(TEXT, network, file), .standard = "", .doc = "edge_list: file of pairs of ids, plain or gzip"},
    {KEY(BOOL, network, directed), .standard = "false", .doc = "edge_list: the first id of a pair sees the second only"},
    {KEY(INT, network, seed), .standard = "auto", .least = 0, .most = INT64_MAX, AUTO(-1),
     .doc = "Seed of generated networks, and of the turns of sweeps; auto = run.seed"},

    {KEY(FRACTION, consensus, quorum), .standard = "1", .doc = "Share of all agents that an option needs"},
    {KEY(INT, consensus, hold), .unit = "steps", .standard = "1", .least = 1, .most = TRILLION,
     .doc = "Steps in a row for which the quorum must stand"},

    {KEY(CHOICE, compute, backend), CHANGEABLE, .standard = "auto", CHOICES(backends),
     .doc = "What computes; auto = cuda where every compute rank has a GPU"},
    {KEY(CHOICE, compute, precision), .standard = "exact", CHOICES(precisions),
     .doc = "fast: neural agents on GPUs step by tensor cores, the same but for rounding; no effect elsewhere"},
    {KEY(INT, compute, threads), CHANGEABLE, .unit = "threads", .standard = "auto", .least = 1, .most = 4096, AUTO(0),
     .doc = "Threads of each compute rank; auto = its share of the cores"},
    {KEY(DURATION, compute, timeout), CHANGEABLE, .standard = "120 s", .low = 0.1, .high = DAY_S,
     .doc = "Longest wait for an answer of a GPU"},
    {KEY(BOOL, compute, device_times), CHANGEABLE, .standard = "false",
     .doc = "Time the phases of a step on the GPU too, one step of each batch; costs small crowds some speed"},

    {KEY(CHOICE, comm, exchange), CHANGEABLE, .standard = "auto", CHOICES(exchanges),
     .doc = "How votes travel between ranks; auto = nccl where every rank has a GPU of its own, then mpi-cuda"},
    {KEY(INT, comm, ranks_per_node), CHANGEABLE, .unit = "ranks", .standard = "auto", .least = 1, .most = MILLION, AUTO(0),
     .doc = "auto = the machine's nodes; a number emulates nodes of that many ranks"},

    {KEY(INT, io, ranks_per_node), CHANGEABLE, .unit = "ranks", .standard = "1", .least = 0, .most = 64,
     .doc = "Ranks of each node that do input and output; 0 = a thread of a compute rank does"},
    {KEY(INT, io, slots), CHANGEABLE, .unit = "slots", .standard = "8", .least = 2, .most = 65536,
     .doc = "Payload slots of each compute rank"},
    {KEY(SIZE, io, slot_size), CHANGEABLE, .standard = "1 MiB", .least = 4096, .most = INT64_C(1) << 30,
     .doc = "Size of a payload slot"},
    {KEY(INT, io, threads), CHANGEABLE, .unit = "threads", .standard = "auto", .least = 1, .most = 4096, AUTO(0),
     .doc = "Threads of each I/O rank that compress; auto = its share of the cores"},
    {KEY(DURATION, io, timeout), CHANGEABLE, .standard = "120 s", .low = 0.1, .high = DAY_S,
     .doc = "Longest wait for an answer of an I/O rank"},

    {KEY(SIZE, memory, page), CHANGEABLE, .standard = "1 MiB", .least = 4096, .most = INT64_C(1) << 28,
     .doc = "State and votes are stored and moved in pages of about this size, of 64 agents at the least"},
    {KEY(REAL, memory, high), CHANGEABLE, .standard = "0.95", .low = 0, .above_low = true, .high = 1,
     .doc = "Share of a tier's capacity above which pages sink to the next one"},
    {KEY(REAL, memory, low), CHANGEABLE, .standard = "0.85", .low = 0, .high = 1,
     .doc = "Share down to which they then do, and below which no page sinks for its age"},
    {KEY(BOOL, memory, prefetch.sequential), CHANGEABLE, .standard = "true",
     .doc = "Fetch pages that come next in a sweep before they are asked for"},
    {KEY(BOOL, memory, prefetch.correlation), CHANGEABLE, .standard = "true",
     .doc = "Fetch pages that followed when a page was last asked for; for sparse activation"},
    {KEY(INT, memory, prefetch.ahead), CHANGEABLE, .unit = "pages", .standard = "auto", .least = 1, .most = 4096, AUTO(0),
     .doc = "Most pages on their way before they are asked for; auto = about 64 MiB of them"},
    {KEY(SIZE, memory, tiers.gpu.capacity), CHANGEABLE, .standard = "auto", .least = 4096, .most = INT64_MAX, AUTO(0),
     .doc = "Most that states may take in each compute rank's GPU; auto = what is free, less head-room"},
    {KEY(DURATION, memory, tiers.gpu.age), CHANGEABLE, .standard = "1 s", .low = 0, .high = 365 * DAY_S,
     .doc = "Pages that nobody asked for in so long may sink to the next tier"},
    {KEY(SIZE, memory, tiers.cpu.capacity), CHANGEABLE, .standard = "auto", .least = 4096, .most = INT64_MAX, AUTO(0),
     .doc = "Most that states may take in each node's memory, shared by its compute ranks; auto = what is free, less head-room"},
    {KEY(DURATION, memory, tiers.cpu.age), CHANGEABLE, .standard = "10 s", .low = 0, .high = 365 * DAY_S,
     .doc = "Pages that nobody asked for in so long may sink to the next tier"},
    {KEY(TEXT, memory, tiers.nvme.directory), CHANGEABLE, .standard = "",
     .doc = "First disk tier for states that memory does not hold; {node} in it stands for the node's number"},
    {KEY(SIZE, memory, tiers.nvme.capacity), CHANGEABLE, .standard = "auto", .least = 4096, .most = INT64_MAX, AUTO(0),
     .doc = "Most that states may take there, for each node, shared by its compute ranks; auto = what is free, less head-room"},
    {KEY(TEXT, memory, tiers.nvme.compression), CHANGEABLE, .standard = "lz4-1", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},
    {KEY(DURATION, memory, tiers.nvme.age), CHANGEABLE, .standard = "60 s", .low = 0, .high = 365 * DAY_S,
     .doc = "Pages that nobody asked for in so long may sink to the next tier"},
    {KEY(TEXT, memory, tiers.ssd.directory), CHANGEABLE, .standard = "",
     .doc = "Second disk tier for states that memory does not hold; {node} in it stands for the node's number"},
    {KEY(SIZE, memory, tiers.ssd.capacity), CHANGEABLE, .standard = "auto", .least = 4096, .most = INT64_MAX, AUTO(0),
     .doc = "Most that states may take there, for each node, shared by its compute ranks; auto = what is free, less head-room"},
    {KEY(TEXT, memory, tiers.ssd.compression), CHANGEABLE, .standard = "zstd-3", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},
    {KEY(DURATION, memory, tiers.ssd.age), CHANGEABLE, .standard = "300 s", .low = 0, .high = 365 * DAY_S,
     .doc = "Pages that nobody asked for in so long may sink to the next tier"},
    {KEY(TEXT, memory, tiers.hdd.directory), CHANGEABLE, .standard = "",
     .doc = "Third disk tier for states that memory does not hold; {node} in it stands for the node's number"},
    {KEY(SIZE, memory, tiers.hdd.capacity), CHANGEABLE, .standard = "auto", .least = 4096, .most = INT64_MAX, AUTO(0),
     .doc = "Most that states may take there, for each node, shared by its compute ranks; auto = what is free, less head-room"},
    {KEY(TEXT, memory, tiers.hdd.compression), CHANGEABLE, .standard = "zstd-9", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},

    {KEY(INTERVAL, checkpoint, every), CHANGEABLE, .standard = "never", .most = TRILLION, .high = 365 * DAY_S,
     .doc = "Time between checkpoints"},
    {KEY(INT, checkpoint, keep), CHANGEABLE, .unit = "generations", .standard = "2", .least = 2, .most = 1000,
     .doc = "Newest generations kept on each tier"},
    {KEY(INT, checkpoint, replicas), CHANGEABLE, .unit = "copies", .standard = "0", .least = 0, .most = 15,
     .doc = "Copies of each I/O rank's share on I/O ranks of other nodes"},
    {KEY(CHOICE, checkpoint, consistency), CHANGEABLE, .standard = "one", CHOICES(consistencies),
     .doc = "Copies that must be durable before a checkpoint counts: one, most, or all of them"},
    {KEY(BOOL, checkpoint, required), CHANGEABLE, .standard = "false",
     .doc = "Stop when checkpoints can no longer be written anywhere; otherwise go on unprotected"},
    {KEY(BOOL, checkpoint, incremental), CHANGEABLE, .standard = "true",
     .doc = "Do not write pages again that have not changed since the last checkpoint"},
    {KEY(SIZE, checkpoint, staging), CHANGEABLE, .standard = "auto", .least = 1 << 20, .most = INT64_MAX, AUTO(0),
     .doc = "Memory of each compute rank for pages on their way out; auto = all of them, where a quarter of memory does"},
    {KEY(TEXT, checkpoint, tiers.nvme.directory), CHANGEABLE, .standard = "", .doc = "First tier of checkpoints; {node} in it stands for the node's number"},
    {KEY(SIZE, checkpoint, tiers.nvme.capacity), CHANGEABLE, .standard = "auto", .least = 1 << 20, .most = INT64_MAX, AUTO(0),
     .doc = "Most that checkpoints may take there, for each I/O server; auto = all there is"},
    {KEY(INT, checkpoint, tiers.nvme.keep), CHANGEABLE, .unit = "generations", .standard = "auto", .least = 2, .most = 1000, AUTO(0),
     .doc = "Newest generations kept there; auto = checkpoint.keep"},
    {KEY(TEXT, checkpoint, tiers.nvme.compression), CHANGEABLE, .standard = "lz4-1", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},
    {KEY(TEXT, checkpoint, tiers.ssd.directory), CHANGEABLE, .standard = "", .doc = "Second tier of checkpoints, copied to in the background"},
    {KEY(SIZE, checkpoint, tiers.ssd.capacity), CHANGEABLE, .standard = "auto", .least = 1 << 20, .most = INT64_MAX, AUTO(0),
     .doc = "Most that checkpoints may take there, for each I/O server; auto = all there is"},
    {KEY(INT, checkpoint, tiers.ssd.keep), CHANGEABLE, .unit = "generations", .standard = "auto", .least = 2, .most = 1000, AUTO(0),
     .doc = "Newest generations kept there; auto = checkpoint.keep"},
    {KEY(TEXT, checkpoint, tiers.ssd.compression), CHANGEABLE, .standard = "zstd-3", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},
    {KEY(TEXT, checkpoint, tiers.hdd.directory), CHANGEABLE, .standard = "", .doc = "Third tier of checkpoints, copied to in the background"},
    {KEY(SIZE, checkpoint, tiers.hdd.capacity), CHANGEABLE, .standard = "auto", .least = 1 << 20, .most = INT64_MAX, AUTO(0),
     .doc = "Most that checkpoints may take there, for each I/O server; auto = all there is"},
    {KEY(INT, checkpoint, tiers.hdd.keep), CHANGEABLE, .unit = "generations", .standard = "auto", .least = 2, .most = 1000, AUTO(0),
     .doc = "Newest generations kept there; auto = checkpoint.keep"},
    {KEY(TEXT, checkpoint, tiers.hdd.compression), CHANGEABLE, .standard = "zstd-9", .needs_text = true,
     .doc = "none, lz4-1 .. lz4-12 or zstd-1 .. zstd-22"},

    {KEY(TEXT, output, directory), CHANGEABLE, .needs_text = true, .doc = "Where results go"},
    {KEY(INTERVAL, output, series_every), CHANGEABLE, .standard = "1 steps", .most = TRILLION, .high = 365 * DAY_S,
     .doc = "Time between rows of series.h5"},
    {KEY(INTERVAL, output, snapshot_every), CHANGEABLE, .standard = "never", .most = TRILLION, .high = 365 * DAY_S,
     .doc = "Time between snapshots of all votes"},
    {KEY(DURATION, output, flush_every), CHANGEABLE, .standard = "1 s", .low = 0, .high = DAY_S,
     .doc = "Rows wait in memory no longer than this"},
    {KEY(INT, output, compression), CHANGEABLE, .standard = "1", .least = 0, .most = 9,
     .doc = "Deflate level of result files, 0 = off"},
    {KEY(BOOL, output, overwrite), CHANGEABLE, .standard = "false", .doc = "Replace results that are already in the directory"},
};
/* clang-format on */

enum { N_KEYS = sizeof qr_keys / sizeof qr_keys[0] };
const size_t qr_n_keys = N_KEYS;

const qr_key *qr_key_find(const char *name)
{
    for (size_t i = 0; i < qr_n_keys; i++) {
        if (strcmp(qr_keys[i].name, name) == 0) {
            return &qr_keys[i];
        }
    }
    return NULL;
}

bool qr_key_is_section(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < qr_n_keys; i++) {
        if (strncmp(qr_keys[i].name, name, n) == 0 && qr_keys[i].name[n] == '.') {
            return true;
        }
    }
    return false;
}

const char *qr_key_type_name(qr_key_type type)
{
    static const char *const names[QR_N_KEY_TYPES] = {[QR_KEY_INT] = "whole number",
                                                      [QR_KEY_REAL] = "number",
                                                      [QR_KEY_BOOL] = "switch",
                                                      [QR_KEY_CHOICE] = "word",
                                                      [QR_KEY_TEXT] = "text",
                                                      [QR_KEY_SIZE] = "size",
                                                      [QR_KEY_DURATION] = "time",
                                                      [QR_KEY_INTERVAL] = "interval",
                                                      [QR_KEY_FRACTION] = "fraction",
                                                      [QR_KEY_INTS] = "list of whole numbers",
                                                      [QR_KEY_REALS] = "list of numbers"};
    return names[type];
}
