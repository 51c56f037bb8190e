/* What a restart finds on the disks: the newest whole copies, whatever became of the others. */
#include "test_generation_damage.h"

#include "io/recovery.h"

#include <pthread.h>
#include <sys/resource.h>

static qr_recovery *scan(const crowd *c, int n_tiers)
{
    const char *directories[CROWD_TIERS];
    qr_recovery *recovery = NULL;
    for (int t = 0; t < n_tiers; t++) {
        directories[t] = c->directories[t];
    }
    assert_int_equal(qr_recovery_scan(directories, n_tiers, &recovery), QR_OK);
    return recovery;
}

/* Reads all of a generation, as a restart does. Wrong pages fail the test; QR_OK: every page is there. */
static qr_status read_all(const crowd *c, const qr_recovery *recovery, int64_t generation)
{
    qr_status status = QR_OK;
    qr_page_scratch scratch = {0};
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    for (int s = 0; s < CROWD_SERVERS && status == QR_OK; s++) {
        qr_share *share = NULL;
        size_t n = 0;
        status = qr_share_open(recovery, generation, s, &share);
        const qr_page_record *pages = status == QR_OK ? qr_share_pages(share, &n) : NULL;
        for (size_t i = 0; i < n && status == QR_OK; i++) {
            status = qr_share_read_page(share, i, &scratch, raw);
            assert_true(status != QR_OK || crowd_is(c, &pages[i], generation, raw));
        }
        qr_share_close(share);
    }
    free(scratch.bytes);
    free(raw);
    assert_true(status == QR_OK || status == QR_DATA);
    return status;
}

static void test_finds_generations(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    crowd_write(&c, 1, 1, false);
    crowd_write(&c, 0, 2, false);
    crowd_share(&c, 0, 3, 0, false); /* never committed */
    qr_recovery *recovery = scan(&c, 2);
    assert_int_equal(recovery->n, 3);
    assert_int_equal(recovery->found[0].manifest->generation, 2);
    assert_int_equal(recovery->found[0].directory, 0);
    assert_int_equal(recovery->found[1].directory, 0);
    assert_int_equal(recovery->found[2].directory, 1);
    assert_int_equal(recovery->highest, 3);
    assert_int_equal(read_all(&c, recovery, 2), QR_OK);
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    assert_int_equal(read_all(&c, recovery, 3), QR_DATA);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

/* Both copies damaged, in different pages: each page is still there. Each bad copy is named and marked once. */
static void test_copies_stand_in(void **state)
{
    (void)state;
    crowd c;
    caught k;
    char said[8000];
    crowd_start(&c);
    c.incremental = false;
    crowd_write(&c, 0, 1, true);
    crowd_write(&c, 1, 1, false);
    damage_page(&c, 0, 1, 0, false, 0);
    damage_page(&c, 0, 1, 0, false, 5);
    damage_page(&c, 0, 1, 0, true, 1);
    damage_page(&c, 0, 1, 1, false, 3);
    qr_recovery *recovery = scan(&c, 1);
    catch (&c, &k, STDERR_FILENO);
    qr_status status = read_all(&c, recovery, 1);
    release(&k, STDERR_FILENO, said, sizeof said);
    assert_int_equal(status, QR_OK);
    assert_int_equal(lines(said), 3);
    assert_non_null(strstr(said, "generation-00000001.s000.h5: page 0 of part 0's votes"));
    assert_true(qr_generation_is_marked(c.directories[0], 1, 0, false));
    assert_true(qr_generation_is_marked(c.directories[0], 1, 0, true));
    assert_true(qr_generation_is_marked(c.directories[0], 1, 1, false));
    assert_false(qr_generation_is_marked(c.directories[0], 1, 1, true));
    qr_recovery_destroy(recovery);
    /* The same page in both: the other tier has it. Without that tier it is lost, and that is said. */
    damage_page(&c, 0, 1, 0, true, 5);
    recovery = scan(&c, 2);
    recovery->quiet = true;
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    qr_recovery_destroy(recovery);
    recovery = scan(&c, 1);
    recovery->quiet = true;
    assert_int_equal(read_all(&c, recovery, 1), QR_DATA);
    assert_non_null(strstr(qr_error_message(), "share of server 0: no copy of a page is whole"));
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

/* A mark sends readers to another copy first. */
static void test_marked_copies_come_last(void **state)
{
    (void)state;
    crowd c;
    caught k;
    char said[8000];
    crowd_start(&c);
    crowd_write(&c, 0, 1, true);
    for (int s = 0; s < CROWD_SERVERS; s++) {
        damage_page(&c, 0, 1, s, false, 2);
        assert_int_equal(qr_generation_mark_bad(c.directories[0], 1, s, false, "known"), QR_OK);
    }
    qr_recovery *recovery = scan(&c, 1);
    catch (&c, &k, STDERR_FILENO);
    qr_status status = read_all(&c, recovery, 1);
    release(&k, STDERR_FILENO, said, sizeof said);
    assert_int_equal(status, QR_OK);
    assert_string_equal(said, "");
    qr_recovery_destroy(recovery);
    /* Marked, but the only one: it is read all the same. */
    for (int s = 0; s < CROWD_SERVERS; s++) {
        remove_file(&c, 0, 1, s, true, "index");
        damage_page(&c, 0, 1, s, false, 2); /* flipped back */
    }
    recovery = scan(&c, 1);
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

static void test_missing_files(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"h5", "index"};
    for (int i = 0; i < 4; i++) {
        crowd c;
        crowd_start(&c);
        crowd_write(&c, 0, 1, i >= 2);
        crowd_write(&c, 0, 2, i >= 2);
        remove_file(&c, 0, i == 3 ? 1 : 2, 1, false, suffixes[i % 2]);
        qr_recovery *recovery = scan(&c, 1);
        recovery->quiet = true;
        assert_int_equal(read_all(&c, recovery, i == 3 ? 1 : 2), i >= 2 ? QR_OK : QR_DATA);
        assert_int_equal(read_all(&c, recovery, i == 3 ? 2 : 1), QR_OK);
        qr_recovery_destroy(recovery);
        crowd_remove(&c);
    }
    /* An older data file that newer pages lie in. */
    crowd c;
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    crowd_write(&c, 0, 2, false);
    remove_file(&c, 0, 1, 0, false, "h5");
    qr_recovery *recovery = scan(&c, 1);
    recovery->quiet = true;
    assert_int_equal(read_all(&c, recovery, 2), QR_DATA);
    assert_non_null(strstr(qr_error_message(), "generation-00000001.s000.h5"));
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

static void swap(const crowd *c, int server, const char *suffix)
{
    char first[160];
    char second[160];
    char between[170];
    crowd_path(c, 0, 1, server, false, suffix, first);
    crowd_path(c, 0, 2, server, false, suffix, second);
    snprintf(between, sizeof between, "%s.x", first);
    assert_int_equal(rename(first, between), 0);
    assert_int_equal(rename(second, first), 0);
    assert_int_equal(rename(between, second), 0);
}

/* Files of two generations, or servers, exchanged: refused, or shown to be right. */
static void test_swapped_files(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"h5", "index", ""};
    for (int i = 0; i < 3; i++) {
        crowd c;
        crowd_start(&c);
        c.incremental = false;
        crowd_write(&c, 0, 1, false);
        crowd_write(&c, 0, 2, false);
        swap(&c, i == 2 ? -1 : 0, suffixes[i]);
        qr_recovery *recovery = scan(&c, 1);
        recovery->quiet = true;
        assert_int_equal(recovery->n, i == 2 ? 0 : 2);
        assert_int_equal(recovery->n_damaged, i == 2 ? 2 : 0);
        assert_int_equal(read_all(&c, recovery, 1), QR_DATA);
        assert_int_equal(read_all(&c, recovery, 2), QR_DATA);
        qr_recovery_destroy(recovery);
        crowd_remove(&c);
    }
}

/* Replaces the generation's manifest by one with this text in place of another, sealed anew. */
static void rewrite_manifest(const crowd *c, int64_t generation, const char *from, const char *to)
{
    char path[160];
    char text[20000];
    char changed[20100];
    crowd_path(c, 0, generation, -1, false, "", path);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    strstr(text, "seal: ")[0] = '\0';
    char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    XXH128_hash_t hash = XXH3_128bits(changed, strlen(changed));
    size_t end = strlen(changed);
    snprintf(changed + end, sizeof changed - end, "seal: %016llx%016llx\n", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    assert_int_equal(qr_manifest_store(c->directories[0], generation, 0, changed, strlen(changed)), QR_OK);
}

static void test_manifests(void **state)
{
    (void)state;
    static const char *const wrong[][3] = {
        {"\"format\": 1", "\"format\": 2", "has format 2, but this version of the program reads format 1"},
        {"\"format\"", "\"form\"", "does not say which format"},
        {"\"n_agents\": 5003", "\"n_agents\": 5004", "does not make sense"},
        {"\"n_agents\": 5003", "\"n_agents\": -1", "does not make sense"},
        {"\"n_agents\": 5003", "\"n_agents\": 9999999999999999999", "not JSON"},
        {"\"server\": 1", "\"server\": 0", "does not make sense"},
        {"\"part\": 1", "\"part\": 0", "does not make sense"},
        {"\"codec\": \"lz4-1\"", "\"codec\": \"lz5-1\"", "does not make sense"},
        {"\"deck\"", "\"dec\"", "does not make sense"},
        {"\"content_hash\": \"", "\"content_hash\": \"X", "does not make sense"},
        {"{", "[", "not JSON"},
    };
    crowd c;
    crowd_start(&c);
    c.incremental = false;
    crowd_write(&c, 0, 3, false);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        crowd_commit(&c, 0, 3);
        rewrite_manifest(&c, 3, wrong[i][0], wrong[i][1]);
        qr_recovery *recovery = scan(&c, 1);
        assert_int_equal(recovery->n, 0);
        assert_int_equal(recovery->n_damaged, 1);
        assert_int_equal(recovery->highest, 3);
        if (strstr(recovery->damaged_message, wrong[i][2]) == NULL) {
            fail_msg("message: %s", recovery->damaged_message);
        }
        qr_recovery_destroy(recovery);
    }
    /* All that was put in comes out. */
    qr_manifest_share shares[CROWD_SERVERS];
    qr_manifest_part parts[CROWD_PARTS];
    qr_manifest put = crowd_manifest(&c, 0, 3, shares, parts);
    qr_manifest *got = NULL;
    char path[160];
    crowd_commit(&c, 0, 3);
    crowd_path(&c, 0, 3, -1, false, "", path);
    assert_int_equal(qr_manifest_load(path, &got), QR_OK);
    for (int i = 0; i < CROWD_SERVERS; i++) {
        assert_true(got->shares[i].server == shares[i].server && got->shares[i].first == shares[i].first &&
                    got->shares[i].count == shares[i].count);
        assert_memory_equal(&got->shares[i].seal, &shares[i].seal, sizeof shares[i].seal);
    }
    for (int i = 0; i < CROWD_PARTS; i++) {
        assert_memory_equal(&got->parts[i], &parts[i], sizeof parts[i]);
    }
    assert_string_equal(got->deck, put.deck);
    assert_string_equal(got->version, put.version);
    assert_string_equal(got->precision, put.precision);
    assert_string_equal(got->tier, put.tier);
    assert_string_equal(got->codec, put.codec);
    assert_string_equal(got->run_id, put.run_id);
    assert_true(got->step == put.step && got->elapsed_s == put.elapsed_s && got->restarts == put.restarts &&
                got->candidate == put.candidate && got->decided_leader == put.decided_leader &&
                got->n_shares == put.n_shares && got->n_parts == put.n_parts && got->snapshots == put.snapshots);
    qr_manifest_destroy(got);
    crowd_remove(&c);
}

/* Directories that are missing, no directories, or another run's. */
static void test_foreign_directories(void **state)
{
    (void)state;
    crowd c;
    qr_recovery *recovery = NULL;
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    char file[160];
    crowd_path(&c, 0, 1, 0, false, "h5", file);
    const char *directories[] = {"/nowhere/at/all", file, c.directories[0], c.directories[1]};
    assert_int_equal(qr_recovery_scan(directories, 4, &recovery), QR_OK);
    assert_int_equal(recovery->n, 1);
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    qr_recovery_destroy(recovery);
    /* Another run's generation of that number, in a faster tier: the shares are its own. */
    crowd other = c;
    memcpy(other.directories[0], c.directories[1], sizeof c.directories[0]);
    other.incremental = false;
    crowd_write(&other, 0, 1, false);
    rewrite_manifest(&other, 1, "\"run_id\": \"0", "\"run_id\": \"f");
    for (int s = 0; s < CROWD_SERVERS; s++) {
        damage_page(&other, 0, 1, s, false, 0);
    }
    const char *both[] = {other.directories[0], c.directories[0]};
    assert_int_equal(qr_recovery_scan(both, 2, &recovery), QR_OK);
    recovery->quiet = true;
    assert_int_equal(recovery->n, 2);
    assert_int_equal(read_all(&c, recovery, 1), QR_DATA);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

/* How many shares can be read in full as the manifest has them. */
static int shares_as(const crowd *c, const qr_recovery *recovery, const qr_manifest *manifest)
{
    int whole = 0;
    qr_page_scratch scratch = {0};
    unsigned char *raw = malloc(crowd_page_bytes(c, QR_PAGE_VOTES) + crowd_page_bytes(c, QR_PAGE_STATE));
    for (int s = 0; s < CROWD_SERVERS; s++) {
        qr_share *share = NULL;
        size_t n = 0;
        qr_status status = qr_share_open_as(recovery, manifest, s, &share);
        const qr_page_record *pages = status == QR_OK ? qr_share_pages(share, &n) : NULL;
        for (size_t i = 0; i < n && status == QR_OK; i++) {
            status = qr_share_read_page(share, i, &scratch, raw);
            assert_true(status != QR_OK || crowd_is(c, &pages[i], manifest->generation, raw));
        }
        assert_true(status == QR_OK || status == QR_DATA);
        whole += status == QR_OK ? 1 : 0;
        qr_share_close(share);
    }
    free(scratch.bytes);
    free(raw);
    return whole;
}

/* The manifest that all ranks agreed on is of another run than what this server's faster tier, or its only one, holds
 * under that number: shares are the agreed run's, or none. */
static void test_shares_of_the_agreed_manifest(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    c.incremental = false;
    crowd_write(&c, 0, 1, false);
    rewrite_manifest(&c, 1, "\"run_id\": \"0", "\"run_id\": \"f");
    crowd_write(&c, 1, 1, false);
    qr_recovery *both = scan(&c, 2);
    both->quiet = true;
    assert_int_equal(both->n, 2);
    const qr_manifest *foreign = both->found[0].manifest;
    const qr_manifest *agreed = both->found[1].manifest;
    assert_string_not_equal(foreign->run_id, agreed->run_id);
    for (int s = 0; s < CROWD_SERVERS; s++) {
        damage_page(&c, 0, 1, s, false, 0);
    }
    assert_int_equal(shares_as(&c, both, agreed), CROWD_SERVERS);
    assert_int_equal(shares_as(&c, both, foreign), 0);
    for (int s = 0; s < CROWD_SERVERS; s++) {
        damage_page(&c, 0, 1, s, false, 0); /* flipped back */
    }
    qr_recovery *alone = scan(&c, 1);
    alone->quiet = true;
    assert_int_equal(read_all(&c, alone, 1), QR_OK);
    assert_int_equal(shares_as(&c, alone, agreed), 0);
    qr_recovery_destroy(alone);
    qr_recovery_destroy(both);
    crowd_remove(&c);
}

/* Too many open files are neither damage nor a loss: the copy is not marked, and good once there are fewer. */
static void test_too_many_open_files(void **state)
{
    (void)state;
    crowd c;
    struct rlimit before;
    qr_share *share = NULL;
    qr_recovery *nothing = NULL;
    crowd_start(&c);
    crowd_write(&c, 0, 1, false);
    crowd_write(&c, 0, 2, false);
    qr_recovery *recovery = scan(&c, 1);
    const char *directory = c.directories[0];
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(STDERR_FILENO);
    close(next);
    for (int more = 0; more < 3; more++) { /* the index is closed again; two data files stay open */
        struct rlimit few = {.rlim_cur = (rlim_t)(next + more), .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        qr_status status = qr_share_open(recovery, 2, 0, &share);
        qr_status scanned = more == 0 ? qr_recovery_scan(&directory, 1, &nothing) : QR_RESOURCE;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(status, more < 2 ? QR_RESOURCE : QR_OK);
        assert_int_equal(scanned, QR_RESOURCE);
    }
    qr_share_close(share);
    assert_false(qr_generation_is_marked(directory, 2, 0, false) || qr_generation_is_marked(directory, 1, 0, false));
    assert_int_equal(read_all(&c, recovery, 2), QR_OK);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

/* Files of the same names with other contents, in a faster tier without a manifest: not taken for copies. */
static void test_strangers_of_the_same_name(void **state)
{
    (void)state;
    crowd c;
    crowd_start(&c);
    crowd_write(&c, 1, 1, false);
    crowd other = c;
    other.state_dim--;
    for (int s = 0; s < CROWD_SERVERS; s++) {
        crowd_share(&other, 0, 1, s, false);
    }
    qr_recovery *recovery = scan(&c, 2);
    recovery->quiet = true;
    assert_int_equal(recovery->n, 1);
    assert_int_equal(read_all(&c, recovery, 1), QR_OK);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

typedef struct reading {
    qr_share *share;
    const crowd *c;
    bool done;
} reading;

static void *read_share(void *context)
{
    reading *r = context;
    qr_page_scratch scratch = {0};
    size_t n = 0;
    unsigned char *raw = malloc(crowd_page_bytes(r->c, QR_PAGE_VOTES) + crowd_page_bytes(r->c, QR_PAGE_STATE));
    const qr_page_record *pages = qr_share_pages(r->share, &n);
    r->done = raw != NULL;
    for (size_t i = 0; i < n && r->done; i++) {
        r->done = qr_share_read_page(r->share, i, &scratch, raw) == QR_OK && crowd_is(r->c, &pages[i], 1, raw);
    }
    free(scratch.bytes);
    free(raw);
    return NULL;
}

static void test_threads_read(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    crowd c;
    caught k;
    char said[8000];
    crowd_start(&c);
    crowd_write(&c, 0, 1, true);
    crowd_write(&c, 1, 1, false);
    damage_page(&c, 0, 1, 0, false, 0);
    damage_page(&c, 0, 1, 0, true, 1);
    qr_recovery *recovery = scan(&c, 2);
    catch (&c, &k, STDERR_FILENO);
    qr_share *share = NULL;
    assert_int_equal(qr_share_open(recovery, 1, 0, &share), QR_OK);
    pthread_t threads[THREADS];
    reading readings[THREADS];
    for (int i = 0; i < THREADS; i++) {
        readings[i] = (reading){.share = share, .c = &c};
        assert_int_equal(pthread_create(&threads[i], NULL, read_share, &readings[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    qr_share_close(share);
    release(&k, STDERR_FILENO, said, sizeof said);
    for (int i = 0; i < THREADS; i++) {
        assert_true(readings[i].done);
    }
    assert_int_equal(lines(said), 2);
    qr_recovery_destroy(recovery);
    crowd_remove(&c);
}

/* What a killed writer left goes; what newer manifests need stays, without manifest and index of its own. */
static void test_clean(void **state)
{
    (void)state;
    crowd c;
    char path[160];
    crowd_start(&c);
    c.page_agents_state = CROWD_BLOCK;
    for (int64_t generation = 1; generation <= 4; generation++) {
        crowd_write(&c, 0, generation, true);
    }
    assert_int_equal(qr_manifest_remove(c.directories[0], 1), QR_OK);
    assert_int_equal(qr_manifest_remove(c.directories[0], 2), QR_OK);
    crowd_share(&c, 0, 5, 0, false);
    snprintf(path, sizeof path, "%s/.generation-00000006.s001.h5.tmp", c.directories[0]);
    fclose(fopen(path, "w"));
    snprintf(path, sizeof path, "%s/.generation-00000006.manifest.s001.tmp", c.directories[0]);
    fclose(fopen(path, "w"));
    snprintf(path, sizeof path, "%s/.mine.tmp", c.directories[0]);
    fclose(fopen(path, "w"));
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "ls -A %s | grep -c '^.generation'", c.directories[0]);
    FILE *listing = popen(path, "r");
    int hidden = -1;
    assert_int_equal(fscanf(listing, "%d", &hidden), 1);
    pclose(listing);
    assert_int_equal(hidden, 0);
    assert_false(exists(&c, 0, 5, 0, false, "h5") || exists(&c, 0, 5, 0, false, "index"));
    assert_false(exists(&c, 0, 1, 0, false, "index") || exists(&c, 0, 2, 0, true, "index"));
    qr_recovery *recovery = scan(&c, 1);
    assert_int_equal(recovery->n, 2);
    assert_int_equal(recovery->highest, 4);
    assert_int_equal(read_all(&c, recovery, 4), QR_OK);
    assert_int_equal(read_all(&c, recovery, 3), QR_OK);
    qr_recovery_destroy(recovery);
    /* A third of the blocks changes each time, so generation 4's pages lie in 2, 3 and 4, those of 3 also in 1. */
    assert_int_equal(qr_manifest_remove(c.directories[0], 3), QR_OK);
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    recovery = scan(&c, 1);
    assert_int_equal(read_all(&c, recovery, 4), QR_OK);
    qr_recovery_destroy(recovery);
    /* An index that cannot be read: nobody knows what it needs, so all stays. */
    flip(&c, 0, 4, 0, false, "index", 100);
    bool there[2] = {exists(&c, 0, 2, 0, false, "h5"), exists(&c, 0, 3, 0, false, "h5")};
    assert_true(there[0] && there[1]);
    crowd_share(&c, 0, 1, 0, false);
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    assert_true(exists(&c, 0, 2, 0, false, "h5") && exists(&c, 0, 1, 0, false, "h5"));
    /* A damaged manifest keeps its shares: other tiers may have a whole one. */
    flip(&c, 0, 4, -1, false, "", 30);
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    assert_true(exists(&c, 0, 4, 1, false, "h5") && exists(&c, 0, 4, 1, false, "index"));
    /* Without any manifest all goes. */
    assert_int_equal(qr_manifest_remove(c.directories[0], 4), QR_OK);
    assert_int_equal(qr_recovery_clean(c.directories[0]), QR_OK);
    assert_false(qr_recovery_looks_like(c.directories[0]));
    crowd_remove(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_generations),
        cmocka_unit_test(test_copies_stand_in),
        cmocka_unit_test(test_marked_copies_come_last),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_swapped_files),
        cmocka_unit_test(test_manifests),
        cmocka_unit_test(test_foreign_directories),
        cmocka_unit_test(test_shares_of_the_agreed_manifest),
        cmocka_unit_test(test_too_many_open_files),
        cmocka_unit_test(test_strangers_of_the_same_name),
        cmocka_unit_test(test_threads_read),
        cmocka_unit_test(test_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
