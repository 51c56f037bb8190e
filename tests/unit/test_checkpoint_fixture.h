/* Servers that carry out checkpoints, each in a thread, and a test that plays their compute ranks: it sends pages,
 * watches the boards and decides. */
#ifndef TEST_CHECKPOINT_FIXTURE_H
#define TEST_CHECKPOINT_FIXTURE_H

#include "base/fault.h"
#include "base/timer.h"
#include "io/checkpoint.h"
#include "io/io.h"
#include "io/pool.h"
#include "io/recovery.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SITE_SERVERS = 3,
    SITE_QUEUES = 2,
    SITE_AGENTS = 1003, /* of each queue */
    SITE_DIM = 4,
    SITE_VOTES = 256, /* agents of a page */
    SITE_STATE = 16,
    SITE_KINDS = 2,
    SITE_PAGES = 64, /* of a queue and kind, at most */
    SITE_GENERATIONS = 40,
    SITE_ANSWER = 300, /* bytes: longer letters are pieces of files */
    SITE_WAIT_S = 60
};

struct site;

/* Messages between servers, in memory; what is sent is done when it has been received. */
typedef struct site_letter {
    struct site_letter *next;
    int from, to;
    void *data;
    int64_t bytes;
    bool *done;
} site_letter;

typedef struct site_wire {
    struct site *site;
    int me;
} site_wire;

typedef struct site_server {
    char results[128];
    char directories[QR_N_TIERS][128];
    void *memory[SITE_QUEUES];
    qr_queue server_ends[SITE_QUEUES];
    qr_queue ends[SITE_QUEUES];
    qr_io_config io;
    qr_checkpoint_config config;
    int replica_servers[SITE_SERVERS];
    qr_replica_transport transport;
    site_wire wire;
    qr_io_server *server;
    qr_io_thread *thread;
} site_server;

typedef struct site {
    char root[64];
    int n_servers, n_queues;
    int n_slots;
    site_server servers[SITE_SERVERS];
    /* What each page holds, now and in each generation: a version. */
    int version[SITE_SERVERS][SITE_QUEUES][SITE_KINDS][SITE_PAGES];
    int versions[SITE_GENERATIONS][SITE_SERVERS][SITE_QUEUES][SITE_KINDS][SITE_PAGES];
    pthread_mutex_t lock;
    site_letter *letters;
    bool deaf[SITE_SERVERS]; /* gets no letters; what is sent to it is done at once */
    int spoil;               /* the nth piece from now on arrives damaged; 0: none */
    qr_tier_post post;       /* the last one that a wait saw */
} site;

/* --- content --- */

static inline int64_t site_pages(int kind)
{
    int64_t each = kind == QR_PAGE_VOTES ? SITE_VOTES : SITE_STATE;
    return (SITE_AGENTS + each - 1) / each;
}

static inline qr_page_record site_record(const site *s, int server, int queue, int kind, int64_t number)
{
    int64_t each = kind == QR_PAGE_VOTES ? SITE_VOTES : SITE_STATE;
    int64_t part = (int64_t)server * s->n_queues + queue;
    int64_t left = SITE_AGENTS - number * each;
    int64_t count = left < each ? left : each;
    return (qr_page_record){.part = (int32_t)part,
                            .kind = kind,
                            .number = number,
                            .first = part * SITE_AGENTS + number * each,
                            .count = count,
                            .raw_bytes = (uint64_t)(kind == QR_PAGE_VOTES ? count : count * SITE_DIM * 4)};
}

static inline void site_fill(const qr_page_record *record, int version, unsigned char *out)
{
    for (uint64_t i = 0; i < record->raw_bytes; i++) {
        uint64_t at = (uint64_t)record->first * 31 + i;
        out[i] = (unsigned char)((at * at / 64 + (uint64_t)version * 17) % (record->kind == QR_PAGE_VOTES ? 3 : 251));
    }
}

/* --- the wire --- */

static inline qr_status site_send(void *context, int to, const void *data, int64_t bytes, bool *done)
{
    const site_wire *wire = context;
    site *s = wire->site;
    site_letter *letter = calloc(1, sizeof *letter);
    assert_non_null(letter);
    *letter = (site_letter){.from = wire->me, .to = to, .bytes = bytes, .done = done, .data = malloc((size_t)bytes)};
    assert_non_null(letter->data);
    memcpy(letter->data, data, (size_t)bytes);
    pthread_mutex_lock(&s->lock);
    if (bytes > SITE_ANSWER && s->spoil > 0 && --s->spoil == 0) {
        ((unsigned char *)letter->data)[bytes / 2] ^= 4;
    }
    site_letter **end = &s->letters;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    if (s->deaf[to]) {
        *done = true;
        free(letter->data);
        free(letter);
    } else {
        *end = letter;
    }
    pthread_mutex_unlock(&s->lock);
    return QR_OK;
}

/* A sender learns of the end of its sends when it polls, as with MPI: here only its own thread writes to *done. */
static inline qr_status site_poll(void *context, int *from, void **data, int64_t *bytes)
{
    const site_wire *wire = context;
    site *s = wire->site;
    *bytes = 0;
    pthread_mutex_lock(&s->lock);
    for (site_letter **at = &s->letters; *at != NULL;) {
        site_letter *letter = *at;
        if (letter->from == wire->me && letter->data == NULL) {
            *letter->done = true;
            *at = letter->next;
            free(letter);
        } else {
            at = &letter->next;
        }
    }
    for (site_letter *letter = s->letters; letter != NULL; letter = letter->next) {
        if (letter->to == wire->me && letter->data != NULL) {
            *from = letter->from;
            *data = letter->data;
            *bytes = letter->bytes;
            letter->data = NULL;
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return QR_OK;
}

/* --- servers --- */

/* On the heap, so that servers that a failed test leaves behind do not write over another test's. */
static inline site *site_create(int n_servers)
{
    site *s = calloc(1, sizeof *s);
    assert_non_null(s);
    const char *place = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(s->root, sizeof s->root, "%s/quorate_cut_XXXXXX", place);
    assert_non_null(mkdtemp(s->root));
    pthread_mutex_init(&s->lock, NULL);
    s->n_servers = n_servers;
    s->n_queues = SITE_QUEUES;
    s->n_slots = 8;
    for (int i = 0; i < n_servers; i++) {
        site_server *server = &s->servers[i];
        qr_checkpoint_config *config = &server->config;
        snprintf(server->results, sizeof server->results, "%s/results%d", s->root, i);
        assert_int_equal(mkdir(server->results, 0777), 0);
        *config = (qr_checkpoint_config){.enabled = true,
                                         .server = i,
                                         .n_servers = n_servers,
                                         .state_dim = SITE_DIM,
                                         .n_options = 3,
                                         .page_agents_votes = SITE_VOTES,
                                         .page_agents_state = SITE_STATE,
                                         .incremental = true,
                                         .threads = 2,
                                         .deck_text = "run: {seed: 7}\n",
                                         .version = "1.2.3",
                                         .timeout_s = 20};
        static const qr_codec codecs[QR_N_TIERS] = {{QR_CODEC_LZ4, 1}, {QR_CODEC_ZSTD, 3}, {QR_CODEC_ZSTD, 9}};
        for (int t = 0; t < QR_N_TIERS; t++) {
            snprintf(server->directories[t], sizeof server->directories[t], "%s/node%d/%s", s->root, i,
                     qr_tier_name(t));
            config->tiers[t] = (qr_tier_config){.directory = server->directories[t], .keep = 2, .codec = codecs[t]};
        }
        server->wire = (site_wire){.site = s, .me = i};
        server->transport = (qr_replica_transport){.context = &server->wire, .send = site_send, .poll = site_poll};
        int n = 0;
        for (int k = 1; k < n_servers; k++) {
            server->replica_servers[n++] = (i + k) % n_servers;
        }
        config->replica_servers = server->replica_servers;
        server->io = (qr_io_config){.directory = server->results,
                                    .n_agents = (int64_t)n_servers * SITE_QUEUES * SITE_AGENTS,
                                    .n_options = 3,
                                    .server = i,
                                    .n_servers = n_servers,
                                    .flush_every_s = 1000};
    }
    return s;
}

static inline void site_start_shaped(site *s, const qr_queue_shape *shape)
{
    for (int i = 0; i < s->n_servers; i++) {
        site_server *server = &s->servers[i];
        for (int q = 0; q < s->n_queues; q++) {
            size_t bytes = qr_queue_bytes(shape);
            server->memory[q] = malloc(bytes);
            assert_int_equal(qr_queue_create(server->memory[q], bytes, shape, &server->server_ends[q]), QR_OK);
            assert_int_equal(qr_queue_attach(server->memory[q], bytes, &server->ends[q]), QR_OK);
        }
        server->io.checkpoint = &server->config;
        server->io.transport = server->config.replicas > 0 ? &server->transport : NULL;
        assert_int_equal(qr_io_server_create(&server->io, server->server_ends, s->n_queues, &server->server), QR_OK);
        assert_int_equal(qr_io_thread_start(server->server, &server->thread), QR_OK);
    }
}

static inline void site_start(site *s)
{
    qr_queue_shape shape = {.n_slots = s->n_slots, .slot_bytes = SITE_STATE * SITE_DIM * 4};
    site_start_shaped(s, &shape);
}

static inline void site_job(site *s, int server, int queue, qr_job job)
{
    job.slot = QR_NO_SLOT;
    assert_int_equal(qr_queue_submit(&s->servers[server].ends[queue], &job, SITE_WAIT_S), QR_OK);
}

/* Ends one server, as after a run. */
static inline void site_stop(site *s, int i)
{
    site_server *server = &s->servers[i];
    for (int q = 0; q < s->n_queues; q++) {
        site_job(s, i, q, (qr_job){.kind = QR_JOB_FINISH});
    }
    assert_int_equal(qr_io_thread_join(server->thread, NULL), QR_OK);
    qr_io_server_destroy(server->server);
    for (int q = 0; q < s->n_queues; q++) {
        free(server->memory[q]);
    }
    server->server = NULL;
}

static inline void site_remove(site *s)
{
    char command[256];
    for (int i = 0; i < s->n_servers; i++) {
        if (s->servers[i].server != NULL) {
            site_stop(s, i);
        }
    }
    while (s->letters != NULL) {
        site_letter *next = s->letters->next;
        free(s->letters->data);
        free(s->letters);
        s->letters = next;
    }
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", s->root, s->root);
    assert_int_equal(system(command), 0);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* --- what compute ranks do --- */

static inline void site_begin(site *s, int64_t generation, int tier)
{
    memcpy(s->versions[generation], s->version, sizeof s->version);
    for (int i = 0; i < s->n_servers; i++) {
        for (int q = 0; q < s->n_queues; q++) {
            int64_t part = (int64_t)i * s->n_queues + q;
            site_job(s, i, q,
                     (qr_job){.kind = QR_JOB_CUT_BEGIN,
                              .step = 100 * generation,
                              .first = part * SITE_AGENTS,
                              .count = SITE_AGENTS,
                              .flags = (int32_t)part,
                              .arguments = {generation, tier, site_pages(QR_PAGE_VOTES) + site_pages(QR_PAGE_STATE)}});
        }
    }
}

/* Sends a page; false when no slot became free in time. */
static inline bool site_page(site *s, int64_t generation, int tier, int server, int queue, int kind, int64_t number,
                             double wait_s)
{
    qr_queue *end = &s->servers[server].ends[queue];
    qr_page_record record = site_record(s, server, queue, kind, number);
    qr_job job = {.kind = QR_JOB_CUT_PAGE,
                  .first = record.first,
                  .count = record.count,
                  .bytes = (int64_t)record.raw_bytes,
                  .slot = QR_NO_SLOT,
                  .flags = kind,
                  .arguments = {generation, tier, number}};
    qr_awake waited = {0};
    while ((job.slot = qr_queue_try_slot(end)) == QR_NO_SLOT && qr_awake_look(&waited) < wait_s) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    if (job.slot == QR_NO_SLOT) {
        return false;
    }
    site_fill(&record, s->version[server][queue][kind][number], qr_queue_slot(end, job.slot));
    assert_int_equal(qr_queue_submit(end, &job, SITE_WAIT_S), QR_OK);
    return true;
}

static inline void site_send_pages(site *s, int64_t generation, int tier)
{
    for (int kind = 0; kind < SITE_KINDS; kind++) {
        for (int64_t n = 0; n < site_pages(kind); n++) {
            for (int i = 0; i < s->n_servers; i++) {
                for (int q = 0; q < s->n_queues; q++) {
                    assert_true(site_page(s, generation, tier, i, q, kind, n, SITE_WAIT_S));
                }
            }
        }
    }
}

static inline qr_checkpoint_post site_board(site *s, int server)
{
    qr_checkpoint_post post;
    qr_awake waited = {0};
    while (!qr_queue_read_board(&s->servers[server].ends[0], &post, sizeof post)) {
        assert_true(qr_awake_look(&waited) < SITE_WAIT_S);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return post;
}

/* Waits until the server's line is of this generation and its state is none of WRITING and `passing`. */
static inline qr_cut_state site_wait(site *s, int server, int tier, int64_t generation, qr_cut_state passing)
{
    qr_awake waited = {0};
    for (;;) {
        s->post = site_board(s, server).tiers[tier];
        qr_cut_state state = (qr_cut_state)s->post.state;
        if (s->post.generation == generation && state != QR_CUT_WRITING && state != passing) {
            return state;
        }
        if (qr_awake_look(&waited) >= SITE_WAIT_S) {
            print_message("tier %d stays with generation %d in state %d: %s\n", tier, (int)s->post.generation,
                          (int)state, s->post.message);
            return QR_CUT_WRITING;
        }
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

static inline void site_expect(site *s, int tier, int64_t generation, qr_cut_state passing, qr_cut_state wanted)
{
    for (int i = 0; i < s->n_servers; i++) {
        qr_cut_state state = site_wait(s, i, tier, generation, passing);
        if (state != wanted) {
            print_message("server %d, tier %d: %s\n", i, tier, s->post.message);
        }
        assert_int_equal(state, wanted);
    }
}

static inline char *site_manifest(site *s, int64_t generation, int tier)
{
    qr_manifest_share shares[SITE_SERVERS];
    qr_manifest_part parts[SITE_SERVERS * SITE_QUEUES];
    char *text = NULL;
    qr_manifest manifest = {.generation = generation,
                            .step = 100 * generation,
                            .run_id = "0123456789abcdef0123456789abcdef",
                            .version = "1.2.3",
                            .deck = "run: {seed: 7}\n",
                            .precision = "exact",
                            .tier = (char *)(uintptr_t)qr_tier_name(tier),
                            .codec = "lz4-1",
                            .n_agents = (int64_t)s->n_servers * s->n_queues * SITE_AGENTS,
                            .n_options = 3,
                            .state_dim = SITE_DIM,
                            .page_agents_votes = SITE_VOTES,
                            .page_agents_state = SITE_STATE,
                            .n_shares = s->n_servers,
                            .n_parts = s->n_servers * s->n_queues,
                            .shares = shares,
                            .parts = parts};
    for (int i = 0; i < s->n_servers; i++) {
        shares[i] = (qr_manifest_share){.server = i,
                                        .first = (int64_t)i * s->n_queues * SITE_AGENTS,
                                        .count = (int64_t)s->n_queues * SITE_AGENTS,
                                        .seal = site_board(s, i).tiers[tier].seal};
        for (int q = 0; q < s->n_queues; q++) {
            int part = i * s->n_queues + q;
            parts[part] = (qr_manifest_part){
                .part = part, .server = i, .first = (int64_t)part * SITE_AGENTS, .count = SITE_AGENTS};
        }
    }
    qr_status status = qr_manifest_format(&manifest, &text);
    if (status != QR_OK) {
        print_message("%s\n", qr_error_message());
    }
    assert_int_equal(status, QR_OK);
    return text;
}

/* The manifest's text, in pieces of a slot. */
static inline void site_send_manifest(site *s, int64_t generation, int tier)
{
    char *text = site_manifest(s, generation, tier);
    for (int i = 0; i < s->n_servers; i++) {
        qr_queue *end = &s->servers[i].ends[0];
        size_t left = strlen(text);
        const char *at = text;
        while (left > 0) {
            size_t n = left < (size_t)end->slot_bytes / 8 ? left : (size_t)end->slot_bytes / 8;
            qr_job job = {
                .kind = QR_JOB_CUT_COMMIT, .bytes = (int64_t)n, .flags = n == left, .arguments = {generation, tier}};
            assert_int_equal(qr_queue_wait_slot(end, SITE_WAIT_S, &job.slot, NULL), QR_OK);
            memcpy(qr_queue_slot(end, job.slot), at, n);
            assert_int_equal(qr_queue_submit(end, &job, SITE_WAIT_S), QR_OK);
            at += n;
            left -= n;
        }
    }
    free(text);
}

static inline void site_commit(site *s, int64_t generation, int tier)
{
    site_send_manifest(s, generation, tier);
    site_expect(s, tier, generation, QR_CUT_READY, QR_CUT_COMMITTED);
}

static inline void site_cut(site *s, int64_t generation, int tier)
{
    site_begin(s, generation, tier);
    site_send_pages(s, generation, tier);
    site_expect(s, tier, generation, QR_CUT_NONE, QR_CUT_READY);
    site_commit(s, generation, tier);
}

static inline void site_all(site *s, qr_job job)
{
    for (int i = 0; i < s->n_servers; i++) {
        site_job(s, i, 0, job);
    }
}

static inline void site_abandon(site *s, int64_t generation, int tier)
{
    site_all(s, (qr_job){.kind = QR_JOB_CUT_ABANDON, .arguments = {generation, tier}});
}

static inline void site_start_drain(site *s, int64_t generation, int from, int to)
{
    site_all(s, (qr_job){.kind = QR_JOB_CUT_DRAIN, .arguments = {generation, to, from}});
}

static inline void site_drain(site *s, int64_t generation, int from, int to)
{
    site_start_drain(s, generation, from, to);
    site_expect(s, to, generation, QR_CUT_NONE, QR_CUT_READY);
    site_commit(s, generation, to);
}

/* --- what the disks hold --- */

/* Every page of every share of the newest generation in these directories, which shall be this one. */
static inline void site_verify(site *s, const char *const *directories, int n, int64_t generation)
{
    qr_recovery *recovery = NULL;
    qr_page_scratch scratch = {0};
    unsigned char raw[SITE_STATE * SITE_DIM * 4];
    unsigned char wanted[sizeof raw];
    assert_int_equal(qr_recovery_scan(directories, n, &recovery), QR_OK);
    assert_true(recovery->n > 0);
    assert_int_equal(recovery->found[0].manifest->generation, generation);
    assert_int_equal(recovery->found[0].manifest->n_shares, s->n_servers);
    for (int i = 0; i < s->n_servers; i++) {
        qr_share *share = NULL;
        size_t n_pages = 0;
        qr_status status = qr_share_open(recovery, generation, i, &share);
        if (status != QR_OK) {
            print_message("%s\n", qr_error_message());
        }
        assert_int_equal(status, QR_OK);
        const qr_page_record *pages = qr_share_pages(share, &n_pages);
        assert_int_equal(n_pages, (size_t)s->n_queues * (size_t)(site_pages(0) + site_pages(1)));
        for (size_t p = 0; p < n_pages; p++) {
            int queue = pages[p].part - i * s->n_queues;
            assert_int_equal(qr_share_read_page(share, p, &scratch, raw), QR_OK);
            site_fill(&pages[p], s->versions[generation][i][queue][pages[p].kind][pages[p].number], wanted);
            assert_memory_equal(raw, wanted, (size_t)pages[p].raw_bytes);
        }
        qr_share_close(share);
    }
    free(scratch.bytes);
    qr_recovery_destroy(recovery);
}

static inline void site_verify_tier(site *s, int tier, int64_t generation)
{
    const char *directories[SITE_SERVERS];
    for (int i = 0; i < s->n_servers; i++) {
        directories[i] = s->servers[i].directories[tier];
    }
    site_verify(s, directories, s->n_servers, generation);
}

static inline bool site_has(const site *s, int server, int tier, int64_t generation, const char *ending)
{
    char path[256];
    snprintf(path, sizeof path, "%s/generation-%08d%s", s->servers[server].directories[tier], (int)generation, ending);
    return access(path, F_OK) == 0;
}

/* Files in a tier's directory. */
static inline int site_count(const site *s, int server, int tier)
{
    DIR *handle = opendir(s->servers[server].directories[tier]);
    int n = 0;
    for (const struct dirent *e = NULL; handle != NULL && (e = readdir(handle)) != NULL;) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    if (handle != NULL) {
        closedir(handle);
    }
    return n;
}

/* Waits until what `holds` says of the site does. */
static inline void site_until(site *s, bool (*holds)(site *s))
{
    qr_awake waited = {0};
    while (!holds(s)) {
        assert_true(qr_awake_look(&waited) < SITE_WAIT_S);
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}

#endif
