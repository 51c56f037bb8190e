/* Copies of shares on other servers: what a lost node, a lost message or a dead server leaves. */
#include "test_checkpoint_fixture.h"

static void lose_node(site *s, int server)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s/node%d", s->root, server);
    assert_int_equal(system(command), 0);
}

static site *create(int n_servers, int replicas, qr_consistency consistency)
{
    site *s = site_create(n_servers);
    for (int i = 0; i < n_servers; i++) {
        s->servers[i].config.replicas = replicas;
        s->servers[i].config.consistency = consistency;
    }
    return s;
}

static int64_t missing(site *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_servers; i++) {
        n += site_board(s, i).replicas_missing;
    }
    return n;
}

/* Each node in turn is lost, with its disks: the others have all that is needed, also of pages taken over. */
static void test_lost_node(void **state)
{
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        site *s = create(2, 1, QR_CONSISTENCY_ALL);
        site_start(s);
        for (int64_t generation = 1; generation <= 5; generation++) {
            site_cut(s, generation, QR_TIER_NVME);
            assert_int_equal(s->post.seal.written_pages, generation == 1 ? s->post.seal.pages : 2);
            s->version[0][0][QR_PAGE_STATE][generation]++;
            s->version[0][1][QR_PAGE_VOTES][0]++;
            s->version[1][0][QR_PAGE_STATE][9]++;
            s->version[1][1][QR_PAGE_STATE][generation]++;
        }
        site_drain(s, 5, QR_TIER_NVME, QR_TIER_HDD);
        assert_int_equal(missing(s), 0);
        site_stop(s, 0);
        site_stop(s, 1);
        lose_node(s, lost);
        site_verify_tier(s, QR_TIER_NVME, 5);
        site_verify_tier(s, QR_TIER_HDD, 5);
        assert_false(site_has(s, 1 - lost, QR_TIER_NVME, 3, ".manifest"));
        assert_false(site_has(s, 1 - lost, QR_TIER_NVME, 3, lost == 0 ? ".s000.replica.index" : ".s001.replica.index"));
        assert_true(site_has(s, 1 - lost, QR_TIER_NVME, 1, lost == 0 ? ".s000.replica.h5" : ".s001.replica.h5"));
        site_remove(s);
    }
}

/* Several pieces of 4 MiB: a page alone is larger. */
static void test_large_files(void **state)
{
    (void)state;
    enum { AGENTS = 3 << 20 };
    site *s = create(2, 1, QR_CONSISTENCY_ALL);
    s->n_queues = 1;
    qr_queue_shape shape = {.n_slots = 2, .slot_bytes = AGENTS};
    for (int i = 0; i < 2; i++) {
        s->servers[i].config.state_dim = 0;
        s->servers[i].config.page_agents_votes = AGENTS;
        s->servers[i].config.tiers[QR_TIER_NVME].codec = (qr_codec){QR_CODEC_NONE, 0};
    }
    site_start_shaped(s, &shape);
    for (int i = 0; i < 2; i++) {
        site_job(s, i, 0,
                 (qr_job){.kind = QR_JOB_CUT_BEGIN,
                          .count = 7 * AGENTS,
                          .first = (int64_t)i * 7 * AGENTS,
                          .flags = i,
                          .arguments = {1, QR_TIER_NVME, 7}});
        for (int64_t p = 0; p < 7; p++) {
            qr_job job = {.kind = QR_JOB_CUT_PAGE,
                          .count = AGENTS,
                          .bytes = AGENTS,
                          .first = ((int64_t)i * 7 + p) * AGENTS,
                          .arguments = {1, QR_TIER_NVME, p}};
            assert_int_equal(qr_queue_wait_slot(&s->servers[i].ends[0], SITE_WAIT_S, &job.slot, NULL), QR_OK);
            memset(qr_queue_slot(&s->servers[i].ends[0], job.slot), (int)p + i, AGENTS);
            assert_int_equal(qr_queue_submit(&s->servers[i].ends[0], &job, SITE_WAIT_S), QR_OK);
        }
    }
    site_expect(s, QR_TIER_NVME, 1, QR_CUT_NONE, QR_CUT_READY);
    for (int i = 0; i < 2; i++) {
        char command[400];
        const char *other = s->servers[1 - i].directories[QR_TIER_NVME];
        const char *own = s->servers[i].directories[QR_TIER_NVME];
        snprintf(command, sizeof command, "cd %s && for f in *.s%03d.h5 *.s%03d.index; do", own, i, i);
        snprintf(command + strlen(command), sizeof command - strlen(command),
                 " cmp $f %s/${f%%.*}.replica.${f##*.} || exit 1; done", other);
        assert_int_equal(system(command), 0);
    }
    site_remove(s);
}

/* A server that never answers: with `one` it is counted, with `all` the generation fails; the run goes on. */
static void test_dead_target(void **state)
{
    (void)state;
    for (int c = QR_CONSISTENCY_ONE; c <= QR_CONSISTENCY_ALL; c++) {
        site *s = create(2, 1, (qr_consistency)c);
        for (int i = 0; i < 2; i++) {
            s->servers[i].config.timeout_s = 0.5;
        }
        s->deaf[1] = true;
        site_start(s);
        site_begin(s, 1, QR_TIER_NVME);
        site_send_pages(s, 1, QR_TIER_NVME);
        qr_cut_state wanted = c == QR_CONSISTENCY_ONE ? QR_CUT_READY : QR_CUT_FAILED;
        assert_int_equal(site_wait(s, 0, QR_TIER_NVME, 1, QR_CUT_NONE), wanted);
        if (c == QR_CONSISTENCY_ONE) {
            assert_int_equal(site_wait(s, 1, QR_TIER_NVME, 1, QR_CUT_NONE), QR_CUT_READY);
            site_commit(s, 1, QR_TIER_NVME);
            qr_awake waited = {0};
            while (site_board(s, 0).replicas_missing != 1 || site_board(s, 0).replicas_in_flight != 0) {
                assert_true(qr_awake_look(&waited) < SITE_WAIT_S);
            }
            /* What is not everywhere is not built upon. */
            site_cut(s, 2, QR_TIER_NVME);
            assert_int_equal(site_board(s, 0).tiers[QR_TIER_NVME].seal.written_pages, s->post.seal.pages);
        } else {
            assert_non_null(strstr(s->post.message, "1 of 2 copies could be made, 2 are needed"));
            assert_true(missing(s) >= 1);
            site_abandon(s, 1, QR_TIER_NVME);
        }
        site_remove(s);
    }
}

/* Two of three copies are enough. */
static void test_quorum(void **state)
{
    (void)state;
    site *s = create(3, 2, QR_CONSISTENCY_QUORUM);
    for (int i = 0; i < 3; i++) {
        s->servers[i].config.timeout_s = 2;
    }
    s->deaf[2] = true;
    site_start(s);
    site_begin(s, 1, QR_TIER_NVME);
    site_send_pages(s, 1, QR_TIER_NVME);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(site_wait(s, i, QR_TIER_NVME, 1, QR_CUT_NONE), QR_CUT_READY);
    }
    /* The third server hears no answers, so that it has but its own copy. */
    assert_int_equal(site_wait(s, 2, QR_TIER_NVME, 1, QR_CUT_NONE), QR_CUT_FAILED);
    site_remove(s);
}

/* Damaged, foreign and stale messages change nothing on disk. */
static void test_bad_messages(void **state)
{
    (void)state;
    for (int nth = 1; nth <= 4; nth++) {
        site *s = create(2, 1, QR_CONSISTENCY_ONE);
        for (int i = 0; i < 2; i++) {
            s->servers[i].config.timeout_s = 1;
        }
        s->spoil = nth;
        site_start(s);
        site_begin(s, 1, QR_TIER_NVME);
        site_send_pages(s, 1, QR_TIER_NVME);
        site_expect(s, QR_TIER_NVME, 1, QR_CUT_NONE, QR_CUT_READY);
        site_commit(s, 1, QR_TIER_NVME);
        qr_awake waited = {0};
        while (missing(s) == 0) {
            assert_true(qr_awake_look(&waited) < SITE_WAIT_S);
        }
        site_cut(s, 2, QR_TIER_NVME);
        site_stop(s, 0);
        site_stop(s, 1);
        site_verify_tier(s, QR_TIER_NVME, 2);
        site_remove(s);
    }
}

static void test_random_messages(void **state)
{
    (void)state;
    site *s = create(2, 1, QR_CONSISTENCY_ALL);
    site_start(s);
    uint64_t random = 7;
    site_wire forged = {.site = s, .me = 1};
    bool done[200];
    for (int i = 0; i < 200; i++) {
        unsigned char bytes[400];
        for (size_t b = 0; b < sizeof bytes; b++) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            bytes[b] = (unsigned char)(random >> 56);
        }
        forged.me = i % 3 == 2 ? 77 : i % 3;
        assert_int_equal(site_send(&forged, 0, bytes, 1 + (int64_t)(random >> 33) % 400, &done[i]), QR_OK);
    }
    site_cut(s, 1, QR_TIER_NVME);
    site_cut(s, 2, QR_TIER_NVME);
    site_stop(s, 0);
    site_stop(s, 1);
    lose_node(s, 1);
    site_verify_tier(s, QR_TIER_NVME, 2);
    site_remove(s);
}

/* The other server cannot write. */
static void test_target_with_a_full_disk(void **state)
{
    (void)state;
    static const char *const faults[] = {"checkpoint.replica=node1:ENOSPC", "checkpoint.replica_name=node1:EIO"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        site *s = create(2, 1, QR_CONSISTENCY_ALL);
        assert_int_equal(qr_fault_set(faults[i]), QR_OK);
        site_start(s);
        site_begin(s, 1, QR_TIER_NVME);
        site_send_pages(s, 1, QR_TIER_NVME);
        assert_int_equal(site_wait(s, 0, QR_TIER_NVME, 1, QR_CUT_NONE), QR_CUT_FAILED);
        site_abandon(s, 1, QR_TIER_NVME);
        site_cut(s, 2, QR_TIER_NVME);
        site_stop(s, 0);
        site_stop(s, 1);
        assert_int_equal(site_count(s, 1, QR_TIER_NVME), 5);
        lose_node(s, 0);
        site_verify_tier(s, QR_TIER_NVME, 2);
        assert_int_equal(qr_fault_set(NULL), QR_OK);
        site_remove(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_node),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_dead_target),
        cmocka_unit_test(test_quorum),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_random_messages),
        cmocka_unit_test(test_target_with_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
