/* Winner, quorum, hold, leader. */
#include "consensus/consensus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static qr_tally tally_of(int64_t a, int64_t b, int64_t c)
{
    qr_tally tally;
    memset(&tally, 0, sizeof tally);
    tally.votes[0] = a;
    tally.votes[1] = b;
    tally.votes[2] = c;
    for (int k = 0; k < 3; k++) {
        tally.leader[k] = tally.votes[k] > 0 ? qr_leader_pack(0, 10 * (k + 1)) : 0;
    }
    return tally;
}

static void lowest_option_wins_a_tie(void **state)
{
    (void)state;
    static const struct {
        int64_t votes[3];
        int64_t winner;
    } cases[] = {{{1, 1, 1}, 0}, {{0, 2, 2}, 1}, {{2, 1, 2}, 0}, {{1, 2, 3}, 2}, {{0, 0, 1}, 2}, {{0, 0, 0}, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qr_tally tally = tally_of(cases[i].votes[0], cases[i].votes[1], cases[i].votes[2]);
        assert_int_equal(qr_tally_winner(&tally, 3), cases[i].winner);
    }
    qr_tally tally = tally_of(1, 2, 9);
    assert_int_equal(qr_tally_winner(&tally, 2), 1); /* options beyond n_options do not count */
}

static void quorum_is_exact(void **state)
{
    (void)state;
    const qr_fraction tenths9 = {9, 10};
    assert_true(qr_quorum_reached(9, 10, tenths9));
    assert_false(qr_quorum_reached(8, 10, tenths9));
    assert_true(qr_quorum_reached(10, 11, tenths9));
    assert_false(qr_quorum_reached(9, 11, tenths9));
    assert_true(qr_quorum_reached(2, 3, (qr_fraction){2, 3}));
    assert_true(qr_quorum_reached(5, 5, (qr_fraction){1, 1}));
    assert_false(qr_quorum_reached(4, 5, (qr_fraction){1, 1}));
    assert_true(qr_quorum_reached(0, 5, (qr_fraction){0, 1}));
    /* One vote apart where a double would see no difference. */
    const int64_t agents = INT64_C(3000000000000000001);
    assert_true(qr_quorum_reached(INT64_C(1000000000000000001), agents, (qr_fraction){1, 3}));
    assert_false(qr_quorum_reached(INT64_C(1000000000000000000), agents, (qr_fraction){1, 3}));
    /* Products beyond 64 bits. */
    assert_true(qr_quorum_reached(INT64_MAX, INT64_MAX, (qr_fraction){INT64_MAX, INT64_MAX}));
    assert_false(qr_quorum_reached(INT64_MAX - 1, INT64_MAX, (qr_fraction){INT64_MAX, INT64_MAX}));
    assert_true(qr_quorum_reached(INT64_C(999999000000), INT64_C(1000000000000), (qr_fraction){999999, 1000000}));
    assert_false(qr_quorum_reached(INT64_C(999998999999), INT64_C(1000000000000), (qr_fraction){999999, 1000000}));
}

static void decision_waits_for_hold(void **state)
{
    (void)state;
    qr_consensus c = qr_consensus_begin(10, 3, (qr_fraction){6, 10}, 3);
    qr_tally yes = tally_of(3, 7, 0);
    qr_tally no = tally_of(5, 5, 0);
    assert_int_equal(qr_consensus_update(&c, 0, &yes), 1);
    (void)qr_consensus_update(&c, 1, &yes);
    assert_false(c.decision.decided);
    assert_int_equal(qr_consensus_update(&c, 2, &no), 0); /* the count begins again */
    assert_int_equal(c.held, 0);
    (void)qr_consensus_update(&c, 3, &yes);
    (void)qr_consensus_update(&c, 4, &yes);
    assert_false(c.decision.decided);
    assert_int_equal(c.decision.option, -1);
    assert_int_equal(c.decision.leader, -1);
    assert_int_equal(c.decision.step, -1);
    (void)qr_consensus_update(&c, 5, &yes);
    assert_true(c.decision.decided);
    assert_int_equal(c.decision.step, 5);
    assert_int_equal(c.decision.option, 1);
    assert_int_equal(c.decision.votes, 7);
    assert_int_equal(c.decision.leader, 20);
}

static void another_candidate_starts_over(void **state)
{
    (void)state;
    qr_consensus c = qr_consensus_begin(10, 3, (qr_fraction){1, 2}, 2);
    qr_tally first = tally_of(6, 4, 0);
    qr_tally second = tally_of(4, 6, 0);
    for (int64_t step = 0; step < 8; step++) {
        (void)qr_consensus_update(&c, step, step % 2 == 0 ? &first : &second);
        assert_int_equal(c.held, 1);
        assert_int_equal(c.candidate, step % 2);
    }
    assert_false(c.decision.decided);
    (void)qr_consensus_update(&c, 8, &first);
    (void)qr_consensus_update(&c, 9, &first);
    assert_true(c.decision.decided);
    assert_int_equal(c.decision.step, 9);
    assert_int_equal(c.decision.option, 0);
}

static void decision_may_come_at_the_start_and_stays(void **state)
{
    (void)state;
    qr_consensus c = qr_consensus_begin(10, 3, (qr_fraction){1, 1}, 1);
    qr_tally all = tally_of(0, 0, 10);
    qr_tally others = tally_of(10, 0, 0);
    (void)qr_consensus_update(&c, 0, &all);
    assert_true(c.decision.decided);
    for (int64_t step = 1; step < 4; step++) {
        (void)qr_consensus_update(&c, step, &others);
        assert_int_equal(c.decision.option, 2);
        assert_int_equal(c.decision.step, 0);
        assert_int_equal(c.decision.votes, 10);
        assert_int_equal(c.decision.leader, 30);
    }
}

static void leader_is_the_surest_then_the_lowest(void **state)
{
    (void)state;
    assert_int_equal(qr_leader_agent(0), -1);
    const int64_t last = (INT64_C(1) << QR_LEADER_AGENT_BITS) - 2;
    const int64_t agents[] = {0, 1, 12345, INT64_C(999999999999), last};
    for (int i = 0; i < 5; i++) {
        for (uint32_t score = 0; score < 1u << 24; score += 0x3fffff) {
            assert_int_equal(qr_leader_agent(qr_leader_pack(score, agents[i])), agents[i]);
            assert_true(qr_leader_pack(score, agents[i]) > 0);
        }
    }
    assert_true(qr_leader_pack(0, 3) > qr_leader_pack(0, 4));
    assert_true(qr_leader_pack(1, last) > qr_leader_pack(0, 0));
    assert_true(qr_leader_pack(0xffffff, 7) > qr_leader_pack(0xfffffe, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lowest_option_wins_a_tie),
                                       cmocka_unit_test(quorum_is_exact),
                                       cmocka_unit_test(decision_waits_for_hold),
                                       cmocka_unit_test(another_candidate_starts_over),
                                       cmocka_unit_test(decision_may_come_at_the_start_and_stays),
                                       cmocka_unit_test(leader_is_the_surest_then_the_lowest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
