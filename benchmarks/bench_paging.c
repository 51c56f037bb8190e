/* Paging on one GPU: neural agents whose states do not fit into the frames there, swept by the pager as a run has it,
 * or (cases plain-) by the frame operations of the CUDA backend alone, batch behind batch in an order that is known.
 *
 *   bench_paging list                                     every case
 *   bench_paging [--frames GiB] [--page MiB] [CASE...]    none = all
 *
 * Lines of fields separated by tabs, as bench_cuda prints them:
 *
 *   case  agents  what is measured, with its unit  p50  p99  limit  p50 / limit  what the limit is
 *
 * p99 is the slow end. Limits are plain copies of pinned memory, measured in the same run (cuda/links.h). Exit code 77:
 * no device. */
#include "cuda/links.h"

#include "base/memory.h"
#include "base/timer.h"
#include "consensus/consensus.h"
#include "page/pager.h"
#include "run/backends.h"
#include "run/describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STATE_DIM = 64,
    MOST_BATCH = 64,
    BATCHES_APART = 4,
    STEPS = 7,
    TRIPS = 2000,
    WARM_UP = 2,
    FEW_FRAMES = 8,
    NO_DEVICE = 77
};

static const int64_t batch_bytes = (int64_t)16 << 20; /* pages copied and updated together */
static const double mib = 1048576.0;

typedef struct options {
    double frames_gib;
    double page_mib;
} options;

typedef struct bench_case {
    const char *name;
    int hidden;
    double factor; /* states over frames; 0: one page more than there are frames, which are few */
    bool pager;
    bool managed;   /* beside managed memory */
    bool plain_lru; /* up in all steps: whatever is wanted next has just been thrown out */
} bench_case;

static const bench_case cases[] = {
    {"link-1.5", 64, 1.5, true, true, false},
    {"link-3", 64, 3, true, false, false},
    {"compute-1.5", 1024, 1.5, true, false, false},
    {"lru-1.5", 64, 1.5, true, false, true},
    {"resident", 64, 1, true, false, false},
    {"trips", 64, 0, true, false, false},
    {"plain-link-1.5", 64, 1.5, false, false, false},
    {"plain-link-3", 64, 3, false, false, false},
    {"plain-compute-1.5", 1024, 1.5, false, false, false},
    {"plain-lru-1.5", 64, 1.5, false, false, true},
    {"plain-resident", 64, 1, false, false, false},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

typedef struct limits {
    double in, out, both;
} limits;

/* A backend with what it stands on, and where its pages are. */
typedef struct bench_run {
    const bench_case *bench;
    const qr_backend_ops *ops;
    const limits *limit;
    qr_deck *deck;
    qr_network_spec spec;
    qr_network *network;
    qr_model *model;
    qr_backend *backend;
    qr_tally tally;
    int64_t step;
    int64_t page_agents;
    int64_t page_bytes;
    int64_t n_pages;
    int64_t n_frames;
    int64_t n_batch;     /* pages of a batch */
    int64_t n_slots;     /* pages of host memory */
    void *memory;        /* pinned: [n_slots] */
    int64_t *frame_of;   /* [n_pages] -1: in a slot */
    int64_t *slot_of;    /* [n_pages] */
    int64_t *evicted;    /* [n_pages] ticket */
    int64_t *free_slots; /* a ring of n_slots; */
    int64_t *filled;     /* when each of those was emptied: ticket */
    int64_t first_free, n_free;
    int64_t moved;   /* pages, both ways */
    qr_pager *pager; /* in place of all that from `memory` on */
} bench_run;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

static double percentile(double *samples, int n, int percent)
{
    int at = (n * percent + 99) / 100 - 1;
    qsort(samples, (size_t)n, sizeof samples[0], compare_doubles);
    return samples[at < 0 ? 0 : at];
}

static void print_line(const bench_run *run, const char *what, double p50, double p99, double limit,
                       const char *limit_is)
{
    printf("%s\t%lld\t%s\t%.4g\t%.4g\t%.4g\t%.3f\t%s\n", run->bench->name, (long long)run->spec.n_agents, what, p50,
           p99, limit, p50 / limit, limit_is);
    (void)fflush(stdout);
}

static int64_t agents_of(const bench_run *run, int64_t page)
{
    int64_t left = run->spec.n_agents - page * run->page_agents;
    return left < run->page_agents ? left : run->page_agents;
}

static qr_frame_copy copy_of(const bench_run *run, int64_t page, int64_t frame, int64_t slot)
{
    return (qr_frame_copy){
        .frame = frame, .agents = agents_of(run, page), .host = (unsigned char *)run->memory + slot * run->page_bytes};
}

/* A slot that no copy uses any more. */
static qr_status take_slot(bench_run *run, int64_t *slot)
{
    const int64_t at = run->first_free;
    if (run->n_free == 0) {
        return qr_error(QR_INTERNAL, "no slot is left");
    }
    run->first_free = (at + 1) % run->n_slots;
    run->n_free--;
    *slot = run->free_slots[at];
    return run->filled[at] > 0 ? run->ops->frames->wait_filled(run->backend, run->filled[at]) : QR_OK;
}

static void return_slot(bench_run *run, int64_t slot, int64_t ticket)
{
    const int64_t at = (run->first_free + run->n_free++) % run->n_slots;
    run->free_slots[at] = slot;
    run->filled[at] = ticket;
}

/* Pages `out` make way for pages `in`, one for one. */
static qr_status swap(bench_run *run, const int64_t *out, const int64_t *in, int64_t n)
{
    const qr_frame_ops *frames = run->ops->frames;
    qr_frame_copy out_copies[MOST_BATCH];
    qr_frame_copy in_copies[MOST_BATCH];
    int64_t ticket = 0;
    qr_status status = QR_OK;
    for (int64_t i = 0; i < n && status == QR_OK; i++) {
        int64_t slot = 0;
        status = take_slot(run, &slot);
        out_copies[i] = copy_of(run, out[i], run->frame_of[out[i]], slot);
        in_copies[i] = copy_of(run, in[i], run->frame_of[out[i]], run->slot_of[in[i]]);
        run->slot_of[out[i]] = slot;
        if (status == QR_OK) {
            status = frames->wait_evicted(run->backend, run->evicted[in[i]]); /* long ago, in the sweep before */
        }
    }
    if (status == QR_OK) {
        status = frames->evict(run->backend, out_copies, n, &ticket);
    }
    for (int64_t i = 0; i < n; i++) {
        run->evicted[out[i]] = ticket;
    }
    if (status == QR_OK) {
        status = frames->fill(run->backend, in_copies, n, &ticket);
    }
    for (int64_t i = 0; i < n; i++) {
        return_slot(run, run->slot_of[in[i]], ticket);
        run->frame_of[in[i]] = run->frame_of[out[i]];
        run->frame_of[out[i]] = -1;
    }
    run->moved += 2 * n;
    return status;
}

/* All pages once, up in odd steps and down in even ones, so that those which were last are first. A page makes way for
 * the one that comes as many pages later as there are frames. */
static qr_status sweep(bench_run *run)
{
    const qr_frame_ops *ops = run->ops->frames;
    const int64_t step = ++run->step;
    const qr_tally tally = run->tally;
    const bool up = run->bench->plain_lru || step % 2 == 1;
    qr_status status = ops->begin(run->backend, step, &tally);
    for (int64_t at = 0; at < run->n_pages && status == QR_OK;) {
        int64_t pages[MOST_BATCH] = {0};
        int64_t out[MOST_BATCH] = {0};
        int64_t frames[MOST_BATCH];
        int64_t n = run->n_pages - at < run->n_batch ? run->n_pages - at : run->n_batch;
        n = at < run->n_frames && run->n_frames - at < n ? run->n_frames - at : n; /* all of them there, or none */
        for (int64_t i = 0; i < n; i++) {
            const int64_t place = at + i;
            const int64_t before = (place - run->n_frames + run->n_pages) % run->n_pages;
            pages[i] = up ? place : run->n_pages - 1 - place;
            out[i] = up ? before : run->n_pages - 1 - before;
        }
        if (run->frame_of[pages[0]] < 0) {
            status = swap(run, out, pages, n);
        }
        for (int64_t i = 0; i < n; i++) {
            frames[i] = run->frame_of[pages[i]];
        }
        if (status == QR_OK) {
            status = ops->update(run->backend, pages, frames, n);
        }
        at += n;
    }
    return status == QR_OK ? ops->finish(run->backend, &run->tally) : status;
}

/* First states: pages beyond the frames go to their slots at once. The first sweep goes up, so it is the first pages
 * that stay. */
static qr_status place_pages(bench_run *run)
{
    const qr_frame_ops *frames = run->ops->frames;
    qr_status status = frames->allocate_host(run->backend, (size_t)(run->n_slots * run->page_bytes), &run->memory);
    int64_t ticket = 0;
    for (int64_t slot = 0; slot < run->n_slots; slot++) {
        return_slot(run, slot, 0);
    }
    for (int64_t page = run->n_pages - 1; page >= 0 && status == QR_OK; page--) {
        const int64_t frame = page % run->n_frames;
        status = frames->make_first(run->backend, page, frame);
        run->frame_of[page] = frame;
        if (status == QR_OK && page >= run->n_frames) {
            int64_t slot = 0;
            status = take_slot(run, &slot);
            const qr_frame_copy copy = copy_of(run, page, frame, slot);
            if (status == QR_OK) {
                status = frames->evict(run->backend, &copy, 1, &ticket);
            }
            run->slot_of[page] = slot;
            run->evicted[page] = ticket;
            run->frame_of[page] = -1;
        }
    }
    return status == QR_OK ? frames->wait_evicted(run->backend, ticket) : status;
}

static qr_status make_tables(bench_run *run)
{
    const size_t n_pages = (size_t)run->n_pages;
    const size_t n_slots = (size_t)run->n_slots;
    qr_status status = qr_allocate(n_pages, 8, "pages", (void **)&run->frame_of);
    if (status == QR_OK) {
        status = qr_allocate(n_pages, 8, "pages", (void **)&run->slot_of);
    }
    if (status == QR_OK) {
        status = qr_allocate(n_pages, 8, "pages", (void **)&run->evicted);
    }
    if (status == QR_OK) {
        status = qr_allocate(n_slots, 8, "slots", (void **)&run->free_slots);
    }
    return status == QR_OK ? qr_allocate(n_slots, 8, "slots", (void **)&run->filled) : status;
}

/* As a run chooses it. */
static int64_t most_ahead(const bench_run *run)
{
    const int64_t pages = 4 * batch_bytes / run->page_bytes;
    return pages < 2 ? 2 : pages > MOST_BATCH ? MOST_BATCH : pages;
}

static qr_status make_pager(bench_run *run)
{
    const bool alone = run->bench->factor == 0;
    qr_pager_config config = {.ops = run->ops,
                              .backend = run->backend,
                              .timeout_s = QR_TIMEOUT_S,
                              .n_agents = run->spec.n_agents,
                              .page_agents = run->page_agents,
                              .agent_bytes = STATE_DIM * (int64_t)sizeof(float),
                              .high = 0.95,
                              .low = 0.9,
                              .sequential = !alone,
                              .ahead = alone ? 0 : most_ahead(run),
                              .plain_lru = run->bench->plain_lru};
    config.tiers[QR_MEMORY_GPU] = (qr_memory_tier_config){.used = true, .pages = run->n_frames, .age_s = 1};
    config.tiers[QR_MEMORY_CPU] = (qr_memory_tier_config){.used = true, .pages = run->n_pages};
    qr_status status = qr_pager_create(&config, &run->pager);
    return status == QR_OK ? qr_pager_make_first(run->pager) : status;
}

static int64_t pages_of(const options *wanted, double gib)
{
    return (int64_t)(gib * 1024.0 / wanted->page_mib);
}

/* `run` is to be given to finish() whatever is returned. */
static qr_status prepare(bench_run *run, const options *wanted)
{
    char deck[512];
    const double agent_bytes = STATE_DIM * sizeof(float);
    run->page_agents = (int64_t)(wanted->page_mib * mib / agent_bytes) / QR_AGENTS_PER_WORD * QR_AGENTS_PER_WORD;
    run->page_bytes = run->page_agents * STATE_DIM * (int64_t)sizeof(float);
    run->n_frames = run->bench->factor > 0 ? pages_of(wanted, wanted->frames_gib) : FEW_FRAMES;
    run->n_pages = run->bench->factor > 0 ? pages_of(wanted, wanted->frames_gib * run->bench->factor) : FEW_FRAMES + 1;
    run->n_batch = batch_bytes / run->page_bytes;
    run->n_batch = run->n_batch < 1 ? 1 : run->n_batch > MOST_BATCH ? MOST_BATCH : run->n_batch;
    run->n_slots = run->n_pages - run->n_frames + (BATCHES_APART + 1) * run->n_batch;
    if (run->page_agents < 1 || (run->bench->factor > 0 && run->n_frames < BATCHES_APART * run->n_batch)) {
        return qr_error(QR_USAGE, "pages of %lld agents and %lld frames: there must be more of both",
                        (long long)run->page_agents, (long long)run->n_frames);
    }
    (void)snprintf(deck, sizeof deck,
                   "agents: {count: %lld, options: 5}\nnetwork: {kind: complete}\n"
                   "model: {rule: neural, state_dim: %d, hidden: %d, temperature: 1}\n",
                   (long long)run->n_pages * run->page_agents, STATE_DIM, run->bench->hidden);
    qr_status status = qr_deck_parse(run->bench->name, deck, strlen(deck), NULL, 0, &run->deck);
    if (status == QR_OK) {
        status = qr_network_spec_from_deck(run->deck, &run->spec);
    }
    if (status == QR_OK) {
        run->deck->agents.count = run->spec.n_agents;
        status = qr_network_build(&run->spec, 1, 0, NULL, &run->network);
    }
    if (status == QR_OK) {
        qr_model_network seen = qr_describe_network(&run->spec, run->network->max_degree);
        status = qr_model_create(run->deck, &seen, NULL, &run->model);
    }
    if (status == QR_OK) {
        qr_backend_setup setup = {.model = run->model,
                                  .network = run->network,
                                  .threads = 1,
                                  .page_agents = run->page_agents,
                                  .n_frames = run->n_frames};
        status = run->ops->create(&setup, &run->backend);
    }
    if (status == QR_OK) {
        status = run->ops->count(run->backend, &run->tally);
    }
    if (status == QR_OK && run->bench->pager) {
        return make_pager(run);
    }
    if (status == QR_OK) {
        status = make_tables(run);
    }
    return status == QR_OK ? place_pages(run) : status;
}

static void finish(bench_run *run)
{
    qr_pager_destroy(run->pager);
    if (run->backend != NULL) {
        if (run->memory != NULL) {
            run->ops->frames->free_host(run->backend, run->memory);
        }
        run->ops->destroy(run->backend);
    }
    free(run->frame_of);
    free(run->slot_of);
    free(run->evicted);
    free(run->free_slots);
    free(run->filled);
    qr_model_destroy(run->model);
    qr_network_destroy(run->network);
    qr_deck_destroy(run->deck);
}

static qr_status take_step(bench_run *run)
{
    const qr_tally before = run->tally;
    if (run->pager == NULL) {
        return sweep(run);
    }
    qr_pager_counters counters;
    qr_status status = qr_pager_step(run->pager, ++run->step, &before, &run->tally);
    qr_pager_counters_read(run->pager, &counters);
    run->moved =
        counters.links[QR_MEMORY_GPU][QR_MEMORY_CPU].pages + counters.links[QR_MEMORY_CPU][QR_MEMORY_GPU].pages;
    return status;
}

static qr_status measure_sweeps(bench_run *run)
{
    double seconds[STEPS];
    double busy[STEPS];
    qr_counters before;
    qr_counters after;
    const int64_t beyond = run->n_pages - run->n_frames;
    qr_status status = QR_OK;
    for (int i = 0; i < WARM_UP && status == QR_OK; i++) {
        status = take_step(run);
    }
    const int64_t moved = run->moved;
    for (int i = 0; i < STEPS && status == QR_OK; i++) {
        run->ops->counters(run->backend, &before);
        const double since = qr_now_s();
        status = take_step(run);
        seconds[i] = qr_now_s() - since;
        run->ops->counters(run->backend, &after);
        busy[i] = (after.kernel_s - before.kernel_s) / seconds[i];
    }
    if (status != QR_OK) {
        return status;
    }
    const double gib = mib * 1024;
    const double least = 2.0 * (double)(beyond * run->page_bytes);
    const double bytes = (double)(run->moved - moved) / STEPS * (double)run->page_bytes;
    const double p50 = percentile(seconds, STEPS, 50);
    const double p99 = percentile(seconds, STEPS, 99);
    print_line(run, "s a step", p50, p99, beyond > 0 ? least / run->limit->both : p50,
               "two-way copies of what must move");
    if (beyond > 0) {
        print_line(run, "GB/s over the link, both ways", bytes / p50 * 1e-9, bytes / p99 * 1e-9,
                   run->limit->both * 1e-9, "pinned copies of 64 MiB both ways");
        print_line(run, "GiB moved a step", bytes / gib, bytes / gib, least / gib,
                   "pages beyond the frames, in and out");
    }
    const double share = percentile(busy, STEPS, 50); /* sorts them */
    print_line(run, "kernel time over wall", share, busy[0], 1, "all of the wall clock");
    return QR_OK;
}

/* One page more than there are frames: whichever is wanted, another one leaves for it. With policy and page table,
 * until the host knows that both are where they belong. */
static qr_status measure_pager_trips(bench_run *run)
{
    static double samples[TRIPS];
    double out_p99 = 0;
    double in_p99 = 0;
    char limit_is[96];
    qr_status status = take_step(run);
    for (int i = 0; i < TRIPS && status == QR_OK; i++) {
        const double since = qr_now_s();
        status = qr_pager_fetch(run->pager, i % run->n_pages);
        samples[i] = qr_now_s() - since;
    }
    if (status != QR_OK) {
        return status;
    }
    const double out = limit_link_page((size_t)run->page_bytes, false, &out_p99);
    const double in = limit_link_page((size_t)run->page_bytes, true, &in_p99);
    (void)snprintf(limit_is, sizeof limit_is, "a plain copy each way and waits (p99 %.1f)", (out_p99 + in_p99) * 1e6);
    print_line(run, "us for one page out and another in, by the pager", percentile(samples, TRIPS, 50) * 1e6,
               percentile(samples, TRIPS, 99) * 1e6, (out + in) * 1e6, limit_is);
    return QR_OK;
}

/* One page, by itself, until the host knows that it is there. */
static qr_status measure_trips(bench_run *run)
{
    static double out_s[TRIPS];
    static double in_s[TRIPS];
    const qr_frame_ops *frames = run->ops->frames;
    qr_status status = QR_OK;
    int64_t slot = 0;
    int64_t ticket = 0;
    status = take_slot(run, &slot);
    const qr_frame_copy copy = copy_of(run, 0, run->frame_of[0] >= 0 ? run->frame_of[0] : 0, slot);
    for (int i = 0; i < TRIPS && status == QR_OK; i++) {
        const double since = qr_now_s();
        status = frames->evict(run->backend, &copy, 1, &ticket);
        if (status == QR_OK) {
            status = frames->wait_evicted(run->backend, ticket);
        }
        const double between = qr_now_s();
        out_s[i] = between - since;
        if (status == QR_OK) {
            status = frames->fill(run->backend, &copy, 1, &ticket);
        }
        if (status == QR_OK) {
            status = frames->wait_filled(run->backend, ticket);
        }
        in_s[i] = qr_now_s() - between;
    }
    if (status != QR_OK) {
        return status;
    }
    for (int way = 0; way < 2; way++) {
        double p99 = 0;
        const double p50 = limit_link_page((size_t)run->page_bytes, way == 1, &p99);
        char what[96];
        char limit_is[96];
        double *samples = way == 1 ? in_s : out_s;
        (void)snprintf(what, sizeof what, "us for one page %s, by itself", way == 1 ? "in" : "out");
        (void)snprintf(limit_is, sizeof limit_is, "one plain copy and wait (p99 %.1f)", p99 * 1e6);
        print_line(run, what, percentile(samples, TRIPS, 50) * 1e6, percentile(samples, TRIPS, 99) * 1e6, p50 * 1e6,
                   limit_is);
    }
    return QR_OK;
}

/* The same traffic by the driver's paging, under a kernel that does nothing else with the states. */
static qr_status measure_managed(bench_run *run)
{
    const size_t bytes = (size_t)(run->n_pages * run->page_bytes);
    const size_t away = (size_t)((run->n_pages - run->n_frames) * run->page_bytes);
    const double seconds = limit_link_managed(bytes, away);
    if (seconds <= 0) {
        return qr_error(QR_DEVICE, "managed memory could not be measured");
    }
    print_line(run, "s a sweep of managed memory", seconds, seconds, 2.0 * (double)away / run->limit->both,
               "two-way copies of what must move");
    return QR_OK;
}

static qr_status run_case(const bench_case *bench, const qr_backend_ops *ops, const limits *limit,
                          const options *wanted)
{
    static bench_run run;
    run = (bench_run){.bench = bench, .ops = ops, .limit = limit};
    const double begin = qr_now_s();
    qr_status status = prepare(&run, wanted);
    if (status == QR_OK) {
        printf("# %s: %lld pages of %lld agents, %.3g MiB each, %lld frames, %lld pages a batch; ready after %.1f s\n",
               bench->name, (long long)run.n_pages, (long long)run.page_agents, (double)run.page_bytes / mib,
               (long long)run.n_frames, (long long)run.n_batch, qr_now_s() - begin);
        status = bench->factor > 0 ? measure_sweeps(&run) : measure_pager_trips(&run);
    }
    if (status == QR_OK && !bench->pager) {
        status = measure_trips(&run);
    }
    if (status == QR_OK && bench->managed) {
        status = measure_managed(&run);
    }
    if (status != QR_OK) {
        (void)fprintf(stderr, "bench_paging: %s: %s\n", bench->name, qr_error_message());
    }
    finish(&run);
    return status;
}

static bool is_wanted(const bench_case *bench, char **names, int n)
{
    bool wanted = n == 0;
    for (int i = 0; i < n; i++) {
        wanted = wanted || strcmp(names[i], bench->name) == 0;
    }
    return wanted;
}

static int list_cases(void)
{
    for (int i = 0; i < N_CASES; i++) {
        printf("%-18sstates of %.3g times the frames, %d hidden units\n", cases[i].name, cases[i].factor,
               cases[i].hidden);
    }
    return 0;
}

int main(int argc, char **argv)
{
    options wanted = {.frames_gib = 8, .page_mib = 1};
    int at = 1;
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        return list_cases();
    }
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        double number = strtod(argv[at + 1], NULL);
        if (!(number > 0) || (strcmp(argv[at], "--frames") != 0 && strcmp(argv[at], "--page") != 0)) {
            (void)fprintf(stderr, "bench_paging: %s %s is none of --frames GiB, --page MiB\n", argv[at], argv[at + 1]);
            return 2;
        }
        *(strcmp(argv[at], "--page") == 0 ? &wanted.page_mib : &wanted.frames_gib) = number;
    }
    char why[512] = "";
    const qr_backend_ops *ops = qr_backend_load_cuda(why, sizeof why);
    if (ops == NULL) {
        (void)fprintf(stderr, "bench_paging: there is no CUDA device to measure: %s\n", why);
        return NO_DEVICE;
    }
    const limits limit = {limit_link(true, false), limit_link(false, true), limit_link(true, true)};
    if (limit.in <= 0 || limit.out <= 0 || limit.both <= 0) {
        return 3;
    }
    printf("# limits: pinned copies of 64 MiB: in %.1f GB/s, out %.1f GB/s, both at once %.1f GB/s\n", limit.in * 1e-9,
           limit.out * 1e-9, limit.both * 1e-9);
    printf("# case\tagents\twhat\tp50\tp99\tlimit\tp50/limit\tlimit is\n");
    int failures = 0;
    for (int i = 0; i < N_CASES; i++) {
        if (is_wanted(&cases[i], argv + at, argc - at) && run_case(&cases[i], ops, &limit, &wanted) != QR_OK) {
            failures++;
        }
    }
    return failures > 0 ? 3 : 0;
}
