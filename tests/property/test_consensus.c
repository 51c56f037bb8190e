/* Decisions on random series of tallies against a plain reading of the definition. */
#include "cases.h"
#include "consensus/consensus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 2000, STEPS = 40 };

typedef struct history {
    int64_t n_agents;
    int n_options;
    qr_tally tally[STEPS];
} history;

/* Random votes that favour option 0 or 1 for stretches, so that quorums come and go. */
static void draw_history(uint64_t *random, history *h)
{
    memset(h, 0, sizeof *h);
    bool huge = case_pick(random, 0, 3) == 0;
    h->n_agents = case_pick(random, 1, huge ? INT64_C(1000000000000) : 30);
    h->n_options = (int)case_pick(random, 2, 5);
    int favourite = 0;
    for (int s = 0; s < STEPS; s++) {
        favourite = case_pick(random, 0, 4) == 0 ? (int)case_pick(random, 0, h->n_options - 1) : favourite;
        int64_t left = h->n_agents;
        for (int k = 0; k < h->n_options; k++) {
            int64_t here = k + 1 < h->n_options ? case_pick(random, 0, left) / (k == favourite ? 1 : 4) : left;
            h->tally[s].votes[k] = here;
            h->tally[s].leader[k] =
                here > 0 ? qr_leader_pack((uint32_t)case_pick(random, 0, 9), case_pick(random, 0, h->n_agents - 1)) : 0;
            left -= here;
        }
    }
}

static int winner_of(const history *h, int step)
{
    for (int k = 0;; k++) {
        bool largest = true;
        for (int j = 0; j < h->n_options; j++) {
            largest = largest && h->tally[step].votes[k] >= h->tally[step].votes[j];
        }
        if (largest) {
            return k;
        }
    }
}

static bool has_quorum(const history *h, int step, qr_fraction quorum)
{
    __extension__ typedef __int128 wide;
    return (wide)h->tally[step].votes[winner_of(h, step)] * quorum.den >= (wide)h->n_agents * quorum.num;
}

static void decisions_follow_the_definition(void **state)
{
    (void)state;
    uint64_t random = 9;
    int decided = 0;
    static history h;
    for (int number = 0; number < CASES; number++) {
        draw_history(&random, &h);
        /* Denominators of the number of agents are met exactly now and then. */
        qr_fraction quorum = {0, number % 2 == 0 ? h.n_agents : case_pick(&random, 1, 1000000)};
        quorum.num = case_pick(&random, quorum.den / 3, quorum.den);
        int64_t hold = case_pick(&random, 1, 4);
        qr_consensus c = qr_consensus_begin(h.n_agents, h.n_options, quorum, hold);
        int expected = -1; /* the first step that ends `hold` steps with a quorum for one option */
        for (int step = 0; step < STEPS; step++) {
            int winner = winner_of(&h, step);
            bool held = step + 1 >= hold;
            for (int back = 0; held && back < hold; back++) {
                held = has_quorum(&h, step - back, quorum) && winner_of(&h, step - back) == winner;
            }
            expected = expected < 0 && held ? step : expected;
            assert_int_equal(qr_consensus_update(&c, step, &h.tally[step]), winner);
            assert_int_equal(c.decision.decided, expected >= 0);
            if (expected >= 0) {
                int option = winner_of(&h, expected);
                assert_int_equal(c.decision.step, expected);
                assert_int_equal(c.decision.option, option);
                assert_int_equal(c.decision.votes, h.tally[expected].votes[option]);
                assert_int_equal(c.decision.leader, qr_leader_agent(h.tally[expected].leader[option]));
            }
        }
        decided += expected >= 0 ? 1 : 0;
    }
    assert_in_range(decided, CASES / 10, CASES * 9 / 10); /* both outcomes are tried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decisions_follow_the_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
