/* Ranks that wait for something other than MPI hear of a rank that failed, and notes are shared within a time. By
 * itself this is a job of one rank; tests/mpi/test_alarm.sh starts it as several. */
#include "base/timer.h"
#include "comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const double patience_s = 60.0;

static qr_comm *comm;

static bool is_last(void)
{
    return comm->me.part == comm->n_parts - 1;
}

/* As a backend does in a long wait. False when nothing was heard for long. */
static bool wait_for_alarm(void)
{
    for (double since = qr_now_s(); qr_now_s() - since < patience_s;) {
        if (qr_comm_hears_alarm(comm)) {
            return true;
        }
    }
    return false;
}

static void notes_are_summed(void **state)
{
    (void)state;
    qr_notes notes = {.stop_signal = 1, .batch = comm->me.part == 0 ? 17 : 0};
    assert_true(qr_comm_share_notes(comm, &notes, -1.0));
    assert_int_equal(notes.stop_signal, comm->n_parts);
    assert_int_equal(notes.batch, 17);
    assert_int_equal(notes.failed, 0);
    assert_false(qr_comm_hears_alarm(comm));
    MPI_Barrier(MPI_COMM_WORLD); /* nobody rings in the next test while another still looks in this one */
}

static void everybody_else_hears_who_rings(void **state)
{
    (void)state;
    if (is_last()) {
        qr_comm_ring(comm);
    } else {
        assert_true(wait_for_alarm());
    }
    qr_notes notes = {.failed = is_last() ? 1 : 0};
    assert_true(qr_comm_share_notes(comm, &notes, is_last() ? patience_s : -1.0));
    assert_int_equal(notes.failed, 1);
    assert_int_equal(qr_comm_hears_alarm(comm), comm->n_parts > 1 && !is_last());
}

static void who_waits_in_vain_comes_back(void **state)
{
    (void)state;
    if (comm->n_parts == 1) {
        skip();
    }
    qr_notes notes = {.failed = 1};
    bool met = true;
    if (is_last()) {
        double since = qr_now_s();
        met = qr_comm_share_notes(comm, &notes, 0.5);
        assert_false(met);
        assert_true(qr_now_s() - since >= 0.5);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (is_last()) {
        return; /* its share is under way and stays so: the others complete it */
    }
    assert_true(qr_comm_share_notes(comm, &notes, -1.0));
    assert_int_equal(notes.failed, comm->n_parts);
}

int main(void)
{
    int provided = MPI_THREAD_SINGLE;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (qr_comm_create(0, 0, &comm) != QR_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(notes_are_summed),
                                       cmocka_unit_test(everybody_else_hears_who_rings),
                                       cmocka_unit_test(who_waits_in_vain_comes_back)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    qr_comm_destroy(comm);
    MPI_Finalize();
    return failed;
}
