/* Speed of the CPU backend on one core: one part, one thread, no MPI and no output around it.
 *
 *   bench_cpu [--width v3|v4] [--repeats N] [NAME...]      names as printed; none = all
 *
 * Prints a line per measurement: name, agents, updates per second (median of the repeats), spread (max - min over
 * median), the limit in the same unit and what it is, separated by tabs. */
#include "limits.h"

#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_REPEATS = 99, COPY_BYTES = 1 << 28 };

typedef struct bench_case {
    const char *name;
    const char *deck;
    double philox_calls; /* per group of 64 agents and step: the arithmetic limit of voters */
} bench_case;

#define NEURAL(extra)                                                                                                  \
    "model: {rule: neural, state_dim: 64, hidden: 64, temperature: 1}\nagents: {" extra "options: 5}\n"

static const bench_case cases[] = {
    {"voter-1024", "model: {rule: voter}\nnetwork: {kind: lattice2d, size: [1024, 1024]}", 1},
    {"voter-4096", "model: {rule: voter}\nnetwork: {kind: lattice2d, size: [4096, 4096]}", 1},
    {"voter-10000", "model: {rule: voter}\nnetwork: {kind: lattice2d, size: [10000, 10000]}", 1},
    {"voter-moore-4096", "model: {rule: voter}\nnetwork: {kind: lattice2d, size: [4096, 4096], neighbours: moore}", 2},
    {"voter-5-options-4096",
     "model: {rule: voter}\nagents: {options: 5}\nnetwork: {kind: lattice2d, size: [4096, 4096]}", 1},
    {"voter-noise-4096", "model: {rule: voter, noise: 0.001}\nnetwork: {kind: lattice2d, size: [4096, 4096]}", 0},
    {"voter-moore-1024", "model: {rule: voter}\nnetwork: {kind: lattice2d, size: [1024, 1024], neighbours: moore}", 2},
    {"majority-moore-1024",
     "model: {rule: majority}\nnetwork: {kind: lattice2d, size: [1024, 1024], neighbours: moore}", 0},
    {"majority-1024", "model: {rule: majority}\nnetwork: {kind: lattice2d, size: [1024, 1024]}", 0},
    {"majority-4096", "model: {rule: majority}\nnetwork: {kind: lattice2d, size: [4096, 4096]}", 0},
    {"majority-10000", "model: {rule: majority}\nnetwork: {kind: lattice2d, size: [10000, 10000]}", 0},
    {"majority-moore-4096",
     "model: {rule: majority}\nnetwork: {kind: lattice2d, size: [4096, 4096], neighbours: moore}", 0},
    {"neural-lattice", NEURAL("") "network: {kind: lattice2d, size: [512, 512]}", 0},
    {"neural-complete", NEURAL("count: 262144, ") "network: {kind: complete}", 0},
    {"potts-ising-1024", "model: {rule: potts, temperature: 1.13}\nnetwork: {kind: lattice2d, size: [1024, 1024]}", 0},
    {"majority-3-options-1024",
     "model: {rule: majority}\nagents: {options: 3}\nnetwork: {kind: lattice2d, size: [1024, 1024]}", 0},
    {"best-of-n-1024",
     "model: {rule: best_of_n, qualities: [1, 1.1, 1.2]}\nagents: {options: 3}\nnetwork: {kind: lattice2d, size: "
     "[1024, "
     "1024]}",
     0},
    {"voter-regular-1m", "model: {rule: voter}\nagents: {count: 1000000}\nnetwork: {kind: random_regular, degree: 6}",
     0},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Time on the processor, so that what else the machine does counts less. */
static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Median of n values, which are sorted on the way. */
static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return n % 2 != 0 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

typedef struct machine_limits {
    double copy;   /* bytes moved (read plus written) a second, memory */
    double fma;    /* multiply-adds a second */
    double philox; /* agents a second that get two bit planes */
} machine_limits;

static machine_limits measure_limits(bool v4)
{
    machine_limits limits = {0};
    char *from = malloc(COPY_BYTES);
    char *to = malloc(COPY_BYTES);
    if (from == NULL || to == NULL) {
        free(from);
        free(to);
        return limits;
    }
    memset(from, 1, COPY_BYTES);
    memset(to, 2, COPY_BYTES);
    double copy[7];
    double fma[7];
    double philox[7];
    float sink = 0;
    uint64_t bits = 0;
    for (int i = 0; i < 7; i++) {
        double begin = now_s();
        memcpy(to, from, COPY_BYTES);
        copy[i] = 2.0 * COPY_BYTES / (now_s() - begin);
        from[i] = to[COPY_BYTES - 1];
        begin = now_s();
        int64_t n = v4 ? limit_fma_v4(10000000, &sink) : limit_fma_v3(10000000, &sink);
        fma[i] = (double)n / (now_s() - begin);
        begin = now_s();
        n = v4 ? limit_philox_v4((uint64_t)n, 5000000, &bits) : limit_philox_v3((uint64_t)n, 5000000, &bits);
        philox[i] = (double)n / (now_s() - begin);
    }
    limits = (machine_limits){median(copy, 7), median(fma, 7), median(philox, 7)};
    (void)fprintf(stderr, "check %g %d\n", (double)sink, (int)(bits & 1u));
    free(from);
    free(to);
    return limits;
}

static void halo_to_oneself(qr_backend *backend, const qr_network *network, void *message)
{
    for (int i = 0; i < network->halo.n_peers; i++) {
        const qr_halo_peer *peer = &network->halo.peers[i];
        (void)qr_backend_ops_cpu.halo_pack(backend, peer, message);
        (void)qr_backend_ops_cpu.halo_place(backend, peer, message);
    }
}

/* Agents a second at which the machine's own limit would be reached, and which limit that is. */
static double limit_of(const bench_case *bench, const qr_backend *backend, const qr_network *network,
                       const machine_limits *limits, const char **what)
{
    const qr_model *model = backend->model;
    double n = (double)network->own.count;
    double memory = limits->copy * n / qr_backend_ops_cpu.bytes_per_step(backend);
    if (model->kind == QR_RULE_NEURAL) {
        const qr_neural *net = &model->neural;
        double columns = (double)net->state_dim + net->n_options;
        double multiply_adds =
            net->hidden * columns + (double)net->state_dim * net->hidden + (double)net->n_options * net->state_dim;
        double arithmetic = limits->fma / multiply_adds;
        *what = arithmetic < memory ? "multiply-adds of the products" : "memory copy";
        return arithmetic < memory ? arithmetic : memory;
    }
    double philox = bench->philox_calls > 0 ? limits->philox / bench->philox_calls : memory;
    *what = philox < memory ? "Philox" : "memory copy";
    return philox < memory ? philox : memory;
}

/* A backend with what it stands on. */
typedef struct bench_run {
    qr_deck *deck;
    qr_model *model;
    qr_network *network;
    qr_network_spec spec;
    qr_backend *backend;
    void *message; /* room for one halo */
    qr_tally tally;
    int64_t step;
} bench_run;

static void finish(bench_run *run)
{
    free(run->message);
    qr_backend_ops_cpu.destroy(run->backend);
    qr_model_destroy(run->model);
    qr_network_destroy(run->network);
    qr_deck_destroy(run->deck);
}

static qr_status prepare_backend(const qr_simd *simd, bench_run *run)
{
    qr_network *network = run->network;
    qr_backend_setup setup = {.model = run->model, .network = network, .threads = 1};
    qr_status status = qr_backend_ops_cpu.create(&setup, &run->backend);
    if (status != QR_OK) {
        return status;
    }
    if (run->model->kind != QR_RULE_NEURAL) {
        run->backend->simd = simd; /* packed weights fit the width they were made for only */
    }
    int64_t longest = 1;
    for (int i = 0; i < network->halo.n_peers; i++) {
        int64_t n = network->halo.peers[i].send_count + network->halo.peers[i].recv_count;
        longest = n > longest ? n : longest;
    }
    run->message = calloc(1, (size_t)qr_backend_ops_cpu.halo_bytes(run->backend, longest) + 64);
    if (run->message == NULL) {
        return qr_error_memory((size_t)longest, "halo");
    }
    return qr_backend_ops_cpu.count(run->backend, &run->tally);
}

/* `run` is to be given to finish() whatever is returned. */
static qr_status prepare(const bench_case *bench, const qr_simd *simd, bench_run *run)
{
    memset(run, 0, sizeof *run);
    qr_status status = qr_deck_parse(bench->name, bench->deck, strlen(bench->deck), NULL, 0, &run->deck);
    if (status == QR_OK) {
        status = qr_network_spec_from_deck(run->deck, &run->spec);
    }
    if (status == QR_OK) {
        status = qr_network_build(&run->spec, 1, 0, NULL, &run->network);
    }
    if (status != QR_OK) {
        return status;
    }
    qr_network_spec spec = run->spec;
    qr_model_network seen = {.n_agents = spec.n_agents, .max_degree = run->network->max_degree};
    if (qr_network_is_lattice(spec.kind)) {
        seen.uniform_degree = spec.dims == 1 ? spec.degree : qr_lattice_degree(&spec);
        seen.max_degree = seen.uniform_degree;
    }
    status = qr_model_create(run->deck, &seen, NULL, &run->model);
    return status == QR_OK ? prepare_backend(simd, run) : status;
}

/* Steps until `seconds` have passed (0: no limit) or `most` steps are done. Returns how many. */
static int64_t advance(bench_run *run, double seconds, int64_t most, double *spent)
{
    int colours = run->model->sweeps ? qr_lattice_colours(&run->spec) : 1;
    double begin = now_s();
    int64_t done = 0;
    while (done < most && (seconds <= 0 || now_s() - begin < seconds)) {
        for (int colour = 0; colour < colours; colour++) {
            qr_tally before = run->tally;
            halo_to_oneself(run->backend, run->network, run->message);
            (void)qr_backend_ops_cpu.update(run->backend, run->step, colour, &before, &run->tally);
        }
        run->step++;
        done++;
    }
    *spent = now_s() - begin;
    return done;
}

static qr_status run_case(const bench_case *bench, const qr_simd *simd, int repeats, const machine_limits *limits)
{
    bench_run run;
    qr_status status = prepare(bench, simd, &run);
    if (status == QR_OK) {
        double rates[MAX_REPEATS];
        double spent = 0;
        int64_t steps = advance(&run, 0.25, INT64_MAX, &spent);
        for (int i = 0; i < repeats; i++) {
            rates[i] = (double)run.spec.n_agents * (double)advance(&run, 0, steps, &spent) / spent;
        }
        const char *what = "";
        double limit = limit_of(bench, run.backend, run.network, limits, &what);
        double rate = median(rates, repeats);
        printf("%s\t%lld\t%.4g\t%.3f\t%.4g\t%s\n", bench->name, (long long)run.spec.n_agents, rate,
               (rates[repeats - 1] - rates[0]) / rate, limit, what);
        (void)fflush(stdout);
    }
    finish(&run);
    return status;
}

static bool wanted(const char *name, char **names, int n)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return n == 0;
}

int main(int argc, char **argv)
{
    const qr_simd *simd = qr_simd_best();
    int repeats = 7;
    int first = 1;
    while (first + 1 < argc && strncmp(argv[first], "--", 2) == 0) {
        if (strcmp(argv[first], "--width") == 0) {
            simd = qr_simd_find(argv[first + 1]);
        } else if (strcmp(argv[first], "--repeats") == 0) {
            repeats = (int)strtol(argv[first + 1], NULL, 10);
        }
        first += 2;
    }
    if (simd == NULL || repeats < 1 || repeats > MAX_REPEATS) {
        (void)fprintf(stderr, "bench_cpu: --width must be one this processor has, --repeats 1 to %d\n", MAX_REPEATS);
        return 2;
    }
    machine_limits limits = measure_limits(strcmp(simd->name, "v4") == 0);
    printf(
        "# width %s; memory copy %.1f GB/s (read + written); %.1f G multiply-adds/s; Philox planes for %.1f G agents/s "
        "a pair\n",
        simd->name, limits.copy * 1e-9, limits.fma * 1e-9, limits.philox * 1e-9);
    for (int i = 0; i < N_CASES; i++) {
        if (wanted(cases[i].name, argv + first, argc - first) && run_case(&cases[i], simd, repeats, &limits) != QR_OK) {
            (void)fprintf(stderr, "bench_cpu: %s: %s\n", cases[i].name, qr_error_message());
            return 1;
        }
    }
    return 0;
}
