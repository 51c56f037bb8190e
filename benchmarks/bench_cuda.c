/* Speed of the CUDA backend: one part, one device, batches of steps without MPI and output around them.
 *
 *   bench_cuda list        every case, and whether it runs by default
 *   bench_cuda [CASE...]   none = the default ones
 *
 * First measures what the device can do at most (cuda/limits.h). Then prints lines of fields separated by tabs:
 *
 *   case  agents  what is measured, with its unit  p50  p99  limit  p50 / limit  what the limit is
 *
 * p99 is the slow end: 99 % of the samples are at least so good. A sample is a call of the backend's run() for a batch
 * of steps, by the host's clock from the call to its return, rows on the host included. Exit code 77: no device. */
#include "consensus/consensus.h"
#include "cuda/limits.h"

#include "base/memory.h"
#include "base/timer.h"
#include "run/backends.h"
#include "run/describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SAMPLES = 4096,
    LEAST_SAMPLES = 5,
    LONGEST_BATCH = 1024, /* what a ring of rows holds */
    DRAWN_DEGREE = 8,
    NEURAL_FMAS = 8832, /* multiply-adds of an agent, D = H = 64, K = 5: H (D + K) + D H + K D */
    NO_DEVICE = 77
};

static const double budget_s = 1.0;      /* of a series of samples */
static const double rate_batch_s = 0.05; /* length of a batch where the rate counts */

typedef struct limits {
    double copy;       /* bytes read plus written a second */
    double fma;        /* multiply-adds a second */
    double tensor;     /* the same of FP16 numbers on tensor cores, summed in float32 */
    double launch;     /* s, an empty kernel until the host knows */
    double launch_p99; /* s */
    double node;       /* s, an empty kernel in a graph */
} limits;

/* A backend with what it stands on, and samples of it. */
typedef struct bench_run {
    const struct bench_case *bench;
    const qr_backend_ops *ops;
    const limits *limit;
    qr_deck *deck;
    qr_network_spec spec;
    qr_network *network;
    qr_model *model;
    qr_backend *backend;
    qr_tally tally;
    qr_consensus consensus;
    int64_t step;
    double seconds[MAX_SAMPLES]; /* of batches, ascending once sampled */
    int n_samples;
} bench_run;

typedef struct bench_case {
    const char *name;
    const char *deck;
    qr_status (*measure)(bench_run *run);
    bool by_default;
    bool drawn_lists; /* every agent sees DRAWN_DEGREE others, drawn by this program in place of the deck's network */
} bench_case;

static qr_status measure_lattice(bench_run *run);
static qr_status measure_latency(bench_run *run);
static qr_status measure_tally(bench_run *run);
static qr_status measure_neural(bench_run *run);
static qr_status measure_busy(bench_run *run);
static qr_status measure_lists(bench_run *run);
static qr_status measure_halo(bench_run *run);

#define LATTICE(x)    "network: {kind: lattice2d, size: [" #x ", " #x "]}\n"
#define RULE(rule, k) "model: {rule: " rule "}\nagents: {options: " #k "}\n"
#define COMPLETE(rule, count)                                                                                          \
    "model: {rule: " rule "}\nagents: {count: " #count ", options: 5}\nnetwork: {kind: complete}\n"
#define REGULAR(count)  "model: {rule: voter}\nagents: {count: " #count "}\nnetwork: {kind: random_regular, degree: 8}\n"
#define ISING(dynamics) RULE("potts, temperature: 1.1346, dynamics: " dynamics, 2)
#define BEST_OF_5       "best_of_n, qualities: [1, 1, 1, 1.1, 1.2]"
#define NEURAL(precision, network)                                                                                     \
    "model: {rule: neural, state_dim: 64, hidden: 64, temperature: 1}\nagents: {options: 5, count: 10000000}\n"        \
    "compute: {precision: " precision "}\nnetwork: {kind: " network "}\n"

static const bench_case cases[] = {
    {"voter-2-32768", RULE("voter", 2) LATTICE(32768), measure_lattice, true, false},
    {"majority-2-32768", RULE("majority", 2) LATTICE(32768), measure_lattice, true, false},
    {"voter-5-32768", RULE("voter", 5) LATTICE(32768), measure_lattice, true, false},
    {"majority-5-32768", RULE("majority", 5) LATTICE(32768), measure_lattice, true, false},
    {"ising-heat-bath-32768", ISING("heat_bath") LATTICE(32768), measure_lattice, true, false},
    {"ising-metropolis-32768", ISING("metropolis") LATTICE(32768), measure_lattice, true, false},
    {"voter-2-65536", RULE("voter", 2) LATTICE(65536), measure_lattice, false, false},
    {"majority-2-65536", RULE("majority", 2) LATTICE(65536), measure_lattice, false, false},
    {"voter-5-65536", RULE("voter", 5) LATTICE(65536), measure_lattice, false, false},
    {"majority-5-65536", RULE("majority", 5) LATTICE(65536), measure_lattice, false, false},
    {"ising-heat-bath-65536", ISING("heat_bath") LATTICE(65536), measure_lattice, false, false},
    {"ising-metropolis-65536", ISING("metropolis") LATTICE(65536), measure_lattice, false, false},
    {"latency-complete-5", COMPLETE("voter", 10000), measure_latency, true, false},
    {"latency-complete-5-noise", COMPLETE("voter, noise: 0.01", 10000), measure_latency, true, false},
    {"latency-lattice-100", RULE("voter", 2) LATTICE(100), measure_latency, true, false},
    {"latency-lattice-128", RULE("voter", 2) LATTICE(128), measure_latency, true, false},
    {"tally-planes-5", RULE("voter", 5) LATTICE(10000), measure_tally, true, false},
    {"tally-packed-5", COMPLETE(BEST_OF_5, 100000000), measure_tally, true, false},
    {"neural-exact", NEURAL("exact", "lattice2d, size: [4000, 2500]"), measure_neural, true, false},
    {"neural-exact-complete", NEURAL("exact", "complete"), measure_neural, true, false},
    {"neural-fast", NEURAL("fast", "lattice2d, size: [4000, 2500]"), measure_neural, true, false},
    {"neural-fast-complete", NEURAL("fast", "complete"), measure_neural, true, false},
    {"busy-voter-2", RULE("voter", 2) LATTICE(10000), measure_busy, true, false},
    {"busy-best-of-5", COMPLETE(BEST_OF_5, 100000000), measure_busy, true, false},
    {"halo-voter-2-8192", RULE("voter", 2) LATTICE(8192), measure_halo, false, false},
    {"halo-voter-2-16384", RULE("voter", 2) LATTICE(16384), measure_halo, false, false},
    {"halo-voter-2-32768", RULE("voter", 2) LATTICE(32768), measure_halo, false, false},
    {"halo-voter-5-16384", RULE("voter", 5) LATTICE(16384), measure_halo, false, false},
    {"halo-best-of-5-4096", RULE(BEST_OF_5, 5) LATTICE(4096), measure_halo, false, false},
    {"halo-best-of-5-10000", RULE(BEST_OF_5, 5) LATTICE(10000), measure_halo, false, false},
    {"regular-4m", REGULAR(4000000), measure_lists, true, false},
    {"lists-4m", REGULAR(4000000), measure_lists, false, true},
    {"lists-100m", REGULAR(100000000), measure_lists, true, true},
    {"regular-20m", REGULAR(20000000), measure_lists, false, false},
    {"regular-100m", REGULAR(100000000), measure_lists, false, false},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Of the samples, which are sorted. */
static double percentile(const bench_run *run, int percent)
{
    int at = (run->n_samples * percent + 99) / 100 - 1;
    return run->seconds[at < 0 ? 0 : at];
}

static void print_line(const bench_run *run, const char *what, double p50, double p99, double limit,
                       const char *limit_is)
{
    printf("%s\t%lld\t%s\t%.4g\t%.4g\t%.4g\t%.3f\t%s\n", run->bench->name, (long long)run->spec.n_agents, what, p50,
           p99, limit, p50 / limit, limit_is);
    (void)fflush(stdout);
}

/* Agents a second, in units of `unit`, from samples of batches of `count` steps. */
static void print_rate(const bench_run *run, int64_t count, const char *what, double unit, double limit,
                       const char *limit_is)
{
    double updates = (double)run->spec.n_agents * (double)count / unit;
    print_line(run, what, updates / percentile(run, 50), updates / percentile(run, 99), limit / unit, limit_is);
}

/* Bytes a step has to move for an agent whatever the layout: its vote read and written. */
static double vote_bytes(const bench_run *run)
{
    int bits = 1;
    while (1 << bits < run->deck->agents.options) {
        bits++;
    }
    return 2.0 * bits / 8.0;
}

/* Steps in one call; the rows become tallies and decisions outside of *spent. */
static qr_status run_batch(bench_run *run, int64_t count, double *spent)
{
    size_t n_options = (size_t)run->deck->agents.options;
    qr_steps steps = {.first = run->step + 1, .count = count, .consensus = &run->consensus, .votes = run->tally.votes};
    double begin = qr_now_s();
    qr_status status = run->ops->run(run->backend, &steps);
    *spent = qr_now_s() - begin;
    if (status == QR_OK && steps.done != count) {
        status = qr_error(QR_INTERNAL, "%lld of %lld steps were taken", (long long)steps.done, (long long)count);
    }
    for (int64_t r = 0; status == QR_OK && r < count; r++) {
        memcpy(run->tally.votes, steps.row_votes + (size_t)r * n_options, n_options * sizeof(int64_t));
        run->tally.leader[qr_tally_winner(&run->tally, run->deck->agents.options)] = steps.row_leaders[r];
        (void)qr_consensus_update(&run->consensus, ++run->step, &run->tally);
    }
    return status;
}

/* Fills run->seconds with batches of `count` steps, after one that does not count (it makes the graph). */
static qr_status sample(bench_run *run, int64_t count)
{
    double spent = 0;
    qr_status status = run_batch(run, count, &spent);
    double since = qr_now_s();
    run->n_samples = 0;
    while (status == QR_OK && run->n_samples < MAX_SAMPLES &&
           (run->n_samples < LEAST_SAMPLES || qr_now_s() - since < budget_s)) {
        status = run_batch(run, count, &run->seconds[run->n_samples++]);
    }
    qsort(run->seconds, (size_t)run->n_samples, sizeof run->seconds[0], compare_doubles);
    return status;
}

/* Samples of batches long enough that starting them counts little. */
static qr_status sample_rate(bench_run *run, int64_t *count)
{
    double spent = 0;
    qr_status status = run_batch(run, 16, &spent);
    if (status == QR_OK) {
        status = run_batch(run, 16, &spent);
    }
    *count = 16;
    while (*count < LONGEST_BATCH && (double)*count * spent / 16 < rate_batch_s) {
        *count *= 2;
    }
    return status == QR_OK ? sample(run, *count) : status;
}

static qr_status measure_lattice(bench_run *run)
{
    int64_t count = 0;
    qr_status status = sample_rate(run, &count);
    if (status == QR_OK) {
        print_rate(run, count, "updates/ns", 1e9, run->limit->copy / vote_bytes(run), "copy of the votes");
    }
    return status;
}

static double leading_share(const bench_run *run)
{
    int64_t winner = qr_tally_winner(&run->tally, run->deck->agents.options);
    return (double)run->tally.votes[winner] / (double)run->spec.n_agents;
}

/* Crowds that agree on the way tally a single option: the share of the leading one says so. */
static qr_status measure_latency(bench_run *run)
{
    const limits *limit = run->limit;
    double start = leading_share(run);
    qr_status status = sample(run, LONGEST_BATCH);
    if (status != QR_OK) {
        return status;
    }
    double p50 = percentile(run, 50) / LONGEST_BATCH * 1e6;
    double p99 = percentile(run, 99) / LONGEST_BATCH * 1e6;
    print_line(run, "us a step, mean of batches of 1024", p50, p99, limit->node * 1e6, "empty node of a graph");
    status = sample(run, 1);
    if (status == QR_OK) {
        print_line(run, "us until the host has seen the decision", percentile(run, 50) * 1e6, percentile(run, 99) * 1e6,
                   limit->launch * 1e6, "launch and wait, empty kernel");
        printf("# %s: share of the leading option %.3f at first, %.3f at last\n", run->bench->name, start,
               leading_share(run));
    }
    return status;
}

static qr_status measure_tally(bench_run *run)
{
    const limits *limit = run->limit;
    qr_tally tally;
    qr_status status = run->ops->count(run->backend, &tally);
    double since = qr_now_s();
    run->n_samples = 0;
    while (status == QR_OK && run->n_samples < MAX_SAMPLES && qr_now_s() - since < budget_s) {
        double begin = qr_now_s();
        status = run->ops->count(run->backend, &tally);
        (void)qr_consensus_update(&run->consensus, run->step, &tally);
        run->seconds[run->n_samples++] = qr_now_s() - begin;
    }
    if (status != QR_OK) {
        return status;
    }
    qsort(run->seconds, (size_t)run->n_samples, sizeof run->seconds[0], compare_doubles);
    double p50 = percentile(run, 50);
    double p99 = percentile(run, 99);
    double read = (double)run->spec.n_agents * vote_bytes(run) / 2 / limit->copy;
    print_line(run, "us for tally and decision on the host", p50 * 1e6, p99 * 1e6, limit->launch * 1e6,
               "launch and wait, empty kernel");
    print_line(run, "us of it beyond launch and wait", (p50 - limit->launch) * 1e6, (p99 - limit->launch) * 1e6,
               read * 1e6, "reading the votes at copy speed");
    return QR_OK;
}

static qr_status measure_neural(bench_run *run)
{
    int64_t count = 0;
    double bytes = 2.0 * sizeof(float) * (double)run->deck->model.state_dim;
    bool fast = run->ops->is_fast(run->backend);
    if (fast != run->model->fast) {
        return qr_error(QR_ENVIRONMENT, "the device does not do what the deck's precision asks for");
    }
    qr_status status = sample_rate(run, &count);
    if (status == QR_OK) {
        print_rate(run, count, "G agent-steps/s", 1e9, (fast ? run->limit->tensor : run->limit->fma) / NEURAL_FMAS,
                   fast ? "FP16 multiply-adds on tensor cores" : "multiply-adds in registers");
        print_rate(run, count, "G agent-steps/s", 1e9, run->limit->copy / bytes, "copy of the states");
    }
    return status;
}

/* How much of the wall clock the device works, from outside: a batch of n steps takes a + b n, of which the host's part
 * is a. b still holds the gaps between the kernels of a graph; an empty kernel's whole node is an upper bound on a gap,
 * so taking one off per kernel gives a lower bound. A profiler (nsys) sees the kernels themselves. */
static qr_status measure_busy(bench_run *run)
{
    enum { SHORT_BATCH = LONGEST_BATCH / 4 };
    qr_status status = sample(run, SHORT_BATCH);
    double short_s = percentile(run, 50);
    if (status == QR_OK) {
        status = sample(run, LONGEST_BATCH);
    }
    if (status != QR_OK) {
        return status;
    }
    double long_s = percentile(run, 50);
    double step_s = (long_s - short_s) / (LONGEST_BATCH - SHORT_BATCH);
    int kernels = run->network->halo.n_peers > 0 ? 2 : 1; /* lattices that close renew their halo first */
    double gaps_s = kernels * run->limit->node;
    print_rate(run, LONGEST_BATCH, "updates/ns", 1e9, run->limit->copy / vote_bytes(run), "copy of the votes");
    print_line(run, "share of a batch in its graphs", step_s * LONGEST_BATCH / long_s,
               step_s * LONGEST_BATCH / percentile(run, 99), 1, "all of the wall clock");
    print_line(run, "share in kernels, at the least", (step_s - gaps_s) * LONGEST_BATCH / long_s,
               (step_s - gaps_s) * LONGEST_BATCH / percentile(run, 99), 1, "all of the wall clock");
    return QR_OK;
}

static qr_status measure_lists(bench_run *run)
{
    int64_t count = 0;
    double bytes = limit_device_gather(run->spec.n_agents, 0);
    double bits = limit_device_gather(run->spec.n_agents, 1);
    qr_status status = bytes > 0 && bits > 0 ? sample_rate(run, &count) : qr_error(QR_DEVICE, "no gather rate");
    if (status == QR_OK) {
        print_rate(run, count, "G updates/s", 1e9, bytes, "plain gather, a byte a vote");
        print_rate(run, count, "G updates/s", 1e9, bits, "plain gather, a bit a vote");
    }
    return status;
}

/* Another backend, of which parts of fewer agents than `overlap_agents` wait for their halo before any update; joined
 * to itself, so that the halo travels by NCCL. */
static qr_status join_again(bench_run *run, int64_t overlap_agents)
{
    unsigned char id[QR_JOIN_BYTES];
    qr_backend_setup setup = {
        .model = run->model, .network = run->network, .threads = 1, .overlap_agents = overlap_agents};
    run->ops->destroy(run->backend);
    run->backend = NULL;
    qr_status status = run->ops->create(&setup, &run->backend);
    if (status == QR_OK) {
        status = run->ops->count(run->backend, &run->tally);
    }
    if (status == QR_OK) {
        status = run->ops->make_join_id(id);
    }
    return status == QR_OK ? run->ops->join(run->backend, 1, 0, id) : status;
}

/* What a halo costs that travels by NCCL, from the device to itself, and tallies with it: without, one after the other,
 * and beside the update of all who do not see it. */
static qr_status measure_halo(bench_run *run)
{
    static const struct {
        const char *what;
        int64_t overlap_agents;
    } ways[] = {{"us a step, the halo before the update", INT64_MAX}, {"us a step, the halo beside the update", 1}};
    int64_t count = 0;
    qr_status status = sample_rate(run, &count);
    double alone = percentile(run, 50) / (double)count * 1e6;
    if (status == QR_OK && run->ops->make_join_id == NULL) {
        return qr_error(QR_ENVIRONMENT, "this build has no NCCL");
    }
    for (int way = 0; way < 2 && status == QR_OK; way++) {
        status = join_again(run, ways[way].overlap_agents);
        if (status == QR_OK) {
            status = sample_rate(run, &count);
        }
        if (status == QR_OK) {
            print_line(run, ways[way].what, percentile(run, 50) / (double)count * 1e6,
                       percentile(run, 99) / (double)count * 1e6, alone, "nothing travels");
        }
    }
    return status;
}

/* Lists of random others in ascending order: to a memory they are like those of a random regular graph, which takes
 * minutes to make where agents are many. */
static qr_status draw_lists(const qr_network_spec *spec, qr_network **out)
{
    int64_t n = spec->n_agents;
    qr_network *network = NULL;
    qr_status status = qr_allocate(1, sizeof *network, "a network", (void **)&network);
    if (status != QR_OK) {
        return status;
    }
    *out = network;
    /* calloc leaves the first touch of the pages to the threads below. */
    network->rows.row = calloc((size_t)n + 1, sizeof(int64_t));
    network->rows.neighbour = calloc((size_t)n * DRAWN_DEGREE, sizeof(uint32_t));
    if (network->rows.row == NULL || network->rows.neighbour == NULL) {
        return qr_error_memory((size_t)n * DRAWN_DEGREE * sizeof(uint32_t), "lists");
    }
    network->spec = *spec;
    network->n_parts = 1;
    network->own.count = n;
    network->view = n;
    network->max_degree = DRAWN_DEGREE;
    network->own_edge_ends = n * DRAWN_DEGREE;
    network->rows.row[n] = n * DRAWN_DEGREE;
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        uint32_t *list = network->rows.neighbour + i * DRAWN_DEGREE;
        network->rows.row[i] = i * DRAWN_DEGREE;
        for (int j = 0; j < DRAWN_DEGREE; j++) {
            uint64_t random = qr_mix64((uint64_t)(i * DRAWN_DEGREE + j)) >> 32;
            uint32_t other = (uint32_t)((random * (uint64_t)n) >> 32);
            int at = j;
            for (; at > 0 && list[at - 1] > other; at--) {
                list[at] = list[at - 1];
            }
            list[at] = other;
        }
    }
    return QR_OK;
}

/* `run` is to be given to finish() whatever is returned. */
static qr_status prepare(bench_run *run)
{
    const bench_case *bench = run->bench;
    qr_status status = qr_deck_parse(bench->name, bench->deck, strlen(bench->deck), NULL, 0, &run->deck);
    if (status == QR_OK) {
        status = qr_network_spec_from_deck(run->deck, &run->spec);
    }
    if (status == QR_OK) {
        run->deck->agents.count = run->spec.n_agents;
        status = bench->drawn_lists ? draw_lists(&run->spec, &run->network)
                                    : qr_network_build(&run->spec, 1, 0, NULL, &run->network);
    }
    if (status == QR_OK) {
        qr_model_network seen = qr_describe_network(&run->spec, run->network->max_degree);
        status = qr_model_create(run->deck, &seen, NULL, &run->model);
    }
    if (status == QR_OK) {
        qr_backend_setup setup = {.model = run->model, .network = run->network, .threads = 1};
        status = run->ops->create(&setup, &run->backend);
    }
    if (status == QR_OK) {
        status = run->ops->count(run->backend, &run->tally);
    }
    if (status == QR_OK) {
        run->consensus = qr_consensus_begin(run->spec.n_agents, run->deck->agents.options, run->deck->consensus.quorum,
                                            run->deck->consensus.hold);
        (void)qr_consensus_update(&run->consensus, 0, &run->tally);
    }
    return status;
}

static void finish(bench_run *run)
{
    if (run->backend != NULL) {
        run->ops->destroy(run->backend);
    }
    qr_model_destroy(run->model);
    qr_network_destroy(run->network);
    qr_deck_destroy(run->deck);
}

static qr_status run_case(const bench_case *bench, const qr_backend_ops *ops, const limits *limit)
{
    static bench_run run;
    run = (bench_run){.bench = bench, .ops = ops, .limit = limit};
    double begin = qr_now_s();
    qr_status status = prepare(&run);
    if (status == QR_OK) {
        printf("# %s: %s; ready after %.1f s\n", bench->name, ops->describe(run.backend), qr_now_s() - begin);
        status = bench->measure(&run);
    }
    if (status != QR_OK) {
        (void)fprintf(stderr, "bench_cuda: %s: %s\n", bench->name, qr_error_message());
    }
    finish(&run);
    return status;
}

static bool measure_limits(limits *out)
{
    *out = (limits){.copy = limit_device_copy(),
                    .fma = limit_device_fma(),
                    .tensor = limit_device_tensor(),
                    .node = limit_device_node()};
    out->launch = limit_device_launch(&out->launch_p99);
    if (out->copy <= 0 || out->fma <= 0 || out->tensor <= 0 || out->node <= 0 || out->launch <= 0) {
        return false;
    }
    printf(
        "# limits: copy %.0f GB/s (read + written); %.2f T multiply-adds/s, %.0f T of FP16 on tensor cores; launch and "
        "wait %.2f us (p99 %.2f); node of a graph %.2f us\n",
        out->copy * 1e-9, out->fma * 1e-12, out->tensor * 1e-12, out->launch * 1e6, out->launch_p99 * 1e6,
        out->node * 1e6);
    printf("# case\tagents\twhat\tp50\tp99\tlimit\tp50/limit\tlimit is\n");
    return true;
}

static int list_cases(void)
{
    for (int i = 0; i < N_CASES; i++) {
        printf("%-26s%s\n", cases[i].name, cases[i].by_default ? "by default" : "");
    }
    return 0;
}

static bool is_wanted(const bench_case *bench, char **names, int n)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], bench->name) == 0) {
            return true;
        }
    }
    return n == 0 && bench->by_default;
}

static bool all_known(char **names, int n)
{
    for (int i = 0; i < n; i++) {
        bool known = false;
        for (int c = 0; c < N_CASES; c++) {
            known = known || strcmp(names[i], cases[c].name) == 0;
        }
        if (!known) {
            (void)fprintf(stderr, "bench_cuda: there is no case %s; see bench_cuda list\n", names[i]);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        return list_cases();
    }
    if (!all_known(argv + 1, argc - 1)) {
        return 2;
    }
    char why[512] = "";
    const qr_backend_ops *ops = qr_backend_load_cuda(why, sizeof why);
    if (ops == NULL) {
        (void)fprintf(stderr, "bench_cuda: there is no CUDA device to measure: %s\n", why);
        return NO_DEVICE;
    }
    limits limit;
    if (!measure_limits(&limit)) {
        return 3;
    }
    int failures = 0;
    for (int i = 0; i < N_CASES; i++) {
        if (is_wanted(&cases[i], argv + 1, argc - 1) && run_case(&cases[i], ops, &limit) != QR_OK) {
            failures++;
        }
    }
    return failures > 0 ? 3 : 0;
}
