/* Generations of a small crowd whose votes and states are known, for tests of checkpoints. From one generation to the
 * next a third of the blocks of 64 agents changes. */
#ifndef TEST_GENERATION_FIXTURE_H
#define TEST_GENERATION_FIXTURE_H

#include "io/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

enum {
    CROWD_BLOCK = 64,
    CROWD_OPTIONS = 5,
    CROWD_SERVERS = 2,
    CROWD_PARTS = 4,
    CROWD_GENERATIONS = 32,
    CROWD_TIERS = 4
};

typedef struct crowd {
    char root[64];
    char directories[CROWD_TIERS][80]; /* root/t0, ... */
    qr_codec codecs[CROWD_TIERS];
    int64_t n_agents, state_dim;
    int64_t page_agents_votes, page_agents_state;
    bool incremental;
    qr_generation_seal seals[CROWD_TIERS][CROWD_GENERATIONS][CROWD_SERVERS][2];
} crowd;

static inline uint8_t crowd_vote(int64_t agent, int64_t generation)
{
    int64_t epoch = generation - (agent / CROWD_BLOCK + generation) % 3;
    epoch = epoch < 1 ? 1 : epoch;
    return (uint8_t)((agent * 7 + agent / 13 + epoch * 3) % CROWD_OPTIONS);
}

static inline float crowd_state(int64_t agent, int64_t component, int64_t generation)
{
    int64_t epoch = generation - (agent / CROWD_BLOCK + generation) % 3;
    epoch = epoch < 1 ? 1 : epoch;
    return (float)(agent % 1000) * 0.5F + (float)component + (float)(epoch * 100);
}

static inline void crowd_start(crowd *c)
{
    memset(c, 0, sizeof *c);
    const char *place = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(c->root, sizeof c->root, "%s/quorate_tiers_XXXXXX", place);
    assert_non_null(mkdtemp(c->root));
    for (int t = 0; t < CROWD_TIERS; t++) {
        snprintf(c->directories[t], sizeof c->directories[t], "%s/t%d", c->root, t);
        assert_int_equal(mkdir(c->directories[t], 0777), 0);
    }
    c->codecs[0] = (qr_codec){QR_CODEC_LZ4, 1};
    c->codecs[1] = (qr_codec){QR_CODEC_ZSTD, 3};
    c->codecs[2] = (qr_codec){QR_CODEC_ZSTD, 9};
    c->codecs[3] = (qr_codec){QR_CODEC_NONE, 0};
    c->n_agents = 5003;
    c->state_dim = 6;
    c->page_agents_votes = 512;
    c->page_agents_state = 128;
    c->incremental = true;
}

static inline void crowd_remove(crowd *c)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", c->root);
    assert_int_equal(system(command), 0);
}

/* Part p of server p / 2; ascending agents. */
static inline qr_generation_part crowd_part(const crowd *c, int part)
{
    int64_t first = c->n_agents * part / CROWD_PARTS;
    return (qr_generation_part){.part = part, .first = first, .count = c->n_agents * (part + 1) / CROWD_PARTS - first};
}

static inline size_t crowd_page_bytes(const crowd *c, qr_page_kind kind)
{
    return kind == QR_PAGE_VOTES ? (size_t)c->page_agents_votes
                                 : (size_t)(c->page_agents_state * c->state_dim) * sizeof(float);
}

/* Agents [first, first + count) as a page holds them. */
static inline void crowd_fill(const crowd *c, qr_page_kind kind, int64_t first, int64_t count, int64_t generation,
                              void *raw)
{
    float *states = raw;
    for (int64_t i = 0; i < count; i++) {
        if (kind == QR_PAGE_VOTES) {
            ((uint8_t *)raw)[i] = crowd_vote(first + i, generation);
            continue;
        }
        for (int64_t d = 0; d < c->state_dim; d++) {
            states[i * c->state_dim + d] = crowd_state(first + i, d, generation);
        }
    }
}

/* True when the raw bytes of a page that was read are what they must be. */
static inline bool crowd_is(const crowd *c, const qr_page_record *record, int64_t generation, const void *raw)
{
    unsigned char *wanted = calloc(1, (size_t)record->raw_bytes);
    assert_non_null(wanted);
    crowd_fill(c, (qr_page_kind)record->kind, record->first, record->count, generation, wanted);
    bool same = memcmp(wanted, raw, (size_t)record->raw_bytes) == 0;
    free(wanted);
    return same;
}

static inline qr_generation_plan crowd_plan(const crowd *c, int tier, int64_t generation, int server, bool replica,
                                            qr_generation_part parts[CROWD_PARTS / CROWD_SERVERS])
{
    for (int i = 0; i < CROWD_PARTS / CROWD_SERVERS; i++) {
        parts[i] = crowd_part(c, server * (CROWD_PARTS / CROWD_SERVERS) + i);
    }
    return (qr_generation_plan){.directory = c->directories[tier],
                                .generation = generation,
                                .step = generation * 50,
                                .server = server,
                                .replica = replica,
                                .codec = c->codecs[tier],
                                .state_dim = c->state_dim,
                                .page_agents_votes = c->page_agents_votes,
                                .page_agents_state = c->page_agents_state,
                                .parts = parts,
                                .n_parts = CROWD_PARTS / CROWD_SERVERS,
                                .deck = "run: {seed: 7}\n",
                                .version = "1.2.3"};
}

static inline qr_status crowd_write_page(const crowd *c, qr_generation_writer *writer, qr_codec codec,
                                         int64_t generation, qr_page_record record, const qr_page_record *old)
{
    size_t page_bytes = crowd_page_bytes(c, (qr_page_kind)record.kind);
    size_t room = qr_codec_bound(codec, page_bytes);
    unsigned char *raw = calloc(1, page_bytes);
    unsigned char *stored = malloc(room);
    size_t stored_bytes = 0;
    assert_true(raw != NULL && stored != NULL);
    crowd_fill(c, (qr_page_kind)record.kind, record.first, record.count, generation, raw);
    XXH128_hash_t hash = XXH3_128bits(raw, (size_t)record.raw_bytes);
    record.raw_hash = (qr_hash){.low = hash.low64, .high = hash.high64};
    qr_status status = QR_OK;
    if (old != NULL && old->raw_hash.low == hash.low64 && old->raw_hash.high == hash.high64) {
        status = qr_generation_take_over(writer, old);
    } else {
        status = qr_codec_pack(codec, raw, page_bytes, stored, room, &stored_bytes);
        record.stored_bytes = stored_bytes;
        record.stored_hash = XXH3_64bits(stored, stored_bytes);
        status = status != QR_OK ? status : qr_generation_write_page(writer, &record, stored);
    }
    free(raw);
    free(stored);
    return status;
}

static inline qr_status crowd_write_pages(const crowd *c, qr_generation_writer *writer, const qr_generation_plan *plan,
                                          const qr_page_record *old)
{
    qr_status status = QR_OK;
    for (int p = 0; p < plan->n_parts; p++) {
        for (int kind = 0; kind < (c->state_dim > 0 ? 2 : 1); kind++) {
            int64_t each = kind == QR_PAGE_VOTES ? c->page_agents_votes : c->page_agents_state;
            size_t bytes = kind == QR_PAGE_VOTES ? 1 : (size_t)c->state_dim * sizeof(float);
            for (int64_t n = 0; n * each < plan->parts[p].count && status == QR_OK; n++) {
                int64_t left = plan->parts[p].count - n * each;
                qr_page_record record = {.part = plan->parts[p].part,
                                         .kind = kind,
                                         .number = n,
                                         .first = plan->parts[p].first + n * each,
                                         .count = left < each ? left : each};
                record.raw_bytes = (uint64_t)record.count * bytes;
                status = crowd_write_page(c, writer, plan->codec, plan->generation, record, old);
                old = old == NULL ? NULL : old + 1;
            }
        }
    }
    return status;
}

/* A share, sealed; with `incremental`, pages unchanged since the generation before are taken over. */
static inline qr_status crowd_try_share(crowd *c, int tier, int64_t generation, int server, bool replica)
{
    qr_generation_part parts[CROWD_PARTS / CROWD_SERVERS];
    qr_generation_plan plan = crowd_plan(c, tier, generation, server, replica, parts);
    qr_generation_writer *writer = NULL;
    qr_generation_reader *before = NULL;
    const qr_page_record *old = NULL;
    size_t n = 0;
    qr_status status = qr_generation_writer_create(&plan, &writer);
    if (status == QR_OK && c->incremental && generation > 1) {
        status = qr_generation_open(plan.directory, generation - 1, server, replica,
                                    &c->seals[tier][generation - 1][server][replica], &before);
        old = status == QR_OK ? qr_generation_pages(before, &n) : NULL;
    }
    status = status != QR_OK ? status : crowd_write_pages(c, writer, &plan, old);
    status = status != QR_OK ? status : qr_generation_seal_files(writer, &c->seals[tier][generation][server][replica]);
    qr_generation_close(before);
    qr_generation_writer_destroy(writer);
    return status;
}

static inline void crowd_share(crowd *c, int tier, int64_t generation, int server, bool replica)
{
    if (crowd_try_share(c, tier, generation, server, replica) != QR_OK) {
        fail_msg("%s", qr_error_message());
    }
}

/* The manifest of a generation whose shares are sealed; the caller's arrays stay with it. */
static inline qr_manifest crowd_manifest(const crowd *c, int tier, int64_t generation,
                                         qr_manifest_share shares[CROWD_SERVERS], qr_manifest_part parts[CROWD_PARTS])
{
    static char texts[][32] = {"1.2.3", "run: {seed: 7}\n# caf\xc3\xa9\n", "exact"};
    static char tiers[CROWD_TIERS][8] = {"nvme", "ssd", "hdd", "other"};
    static char codec[CROWD_TIERS][QR_CODEC_NAME_BYTES];
    snprintf(codec[tier], sizeof codec[tier], "%s", qr_codec_name(c->codecs[tier]));
    for (int p = 0; p < CROWD_PARTS; p++) {
        qr_generation_part part = crowd_part(c, p);
        parts[p] = (qr_manifest_part){
            .part = p, .server = p / (CROWD_PARTS / CROWD_SERVERS), .first = part.first, .count = part.count};
    }
    for (int s = 0; s < CROWD_SERVERS; s++) {
        const qr_manifest_part *own = &parts[(size_t)s * (CROWD_PARTS / CROWD_SERVERS)];
        shares[s] = (qr_manifest_share){.server = s, .first = own->first, .seal = c->seals[tier][generation][s][0]};
        for (int p = 0; p < CROWD_PARTS / CROWD_SERVERS; p++) {
            shares[s].count += own[p].count;
        }
    }
    return (qr_manifest){.generation = generation,
                         .step = generation * 50,
                         .run_id = "0123456789abcdef0123456789abcdef",
                         .version = texts[0],
                         .deck = texts[1],
                         .precision = texts[2],
                         .tier = tiers[tier],
                         .codec = codec[tier],
                         .n_agents = c->n_agents,
                         .n_options = CROWD_OPTIONS,
                         .state_dim = c->state_dim,
                         .page_agents_votes = c->page_agents_votes,
                         .page_agents_state = c->page_agents_state,
                         .candidate = -1,
                         .decided_leader = -1,
                         .elapsed_s = 1.0 / 3.0 + (double)generation,
                         .restarts = 2,
                         .n_shares = CROWD_SERVERS,
                         .n_parts = CROWD_PARTS,
                         .shares = shares,
                         .parts = parts};
}

static inline void crowd_commit(const crowd *c, int tier, int64_t generation)
{
    qr_manifest_share shares[CROWD_SERVERS];
    qr_manifest_part parts[CROWD_PARTS];
    qr_manifest manifest = crowd_manifest(c, tier, generation, shares, parts);
    char *text = NULL;
    assert_int_equal(qr_manifest_format(&manifest, &text), QR_OK);
    assert_int_equal(qr_manifest_store(c->directories[tier], generation, 0, text, strlen(text)), QR_OK);
    free(text);
}

/* All shares, with or without replicas, and the manifest. */
static inline void crowd_write(crowd *c, int tier, int64_t generation, bool replicas)
{
    for (int s = 0; s < CROWD_SERVERS; s++) {
        crowd_share(c, tier, generation, s, false);
        if (replicas) {
            crowd_share(c, tier, generation, s, true);
        }
    }
    crowd_commit(c, tier, generation);
}

static inline void crowd_path(const crowd *c, int tier, int64_t generation, int server, bool replica,
                              const char *suffix, char out[160])
{
    char name[QR_GENERATION_NAME_BYTES];
    if (server < 0) {
        qr_generation_manifest_name(generation, name);
    } else {
        qr_generation_file_name(generation, server, replica, suffix, name);
    }
    snprintf(out, 160, "%s/%s", c->directories[tier], name);
}

#endif
