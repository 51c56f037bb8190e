/* Bulk moves between ranks when memory runs out: whatever allocation fails on one rank, all ranks come back with the
 * same status, and outputs stay as they were. By itself this is a job of one rank; tests/mpi/test_transfer.sh starts
 * it as several. */
#include "base/memory.h"
#include "comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_S = 60, MOST_ALLOCATIONS = 1000, EDGES = 5 };

/* These take the place of base/memory.c: the allocation number `failing` of the rank that has it gets none. */
static int allocations;
static int failing = -1;

static bool fails_now(void)
{
    return allocations++ == failing;
}

qr_status qr_allocate(size_t count, size_t size, const char *what, void **out)
{
    if (fails_now()) {
        return qr_error_memory(count * size, what);
    }
    *out = calloc(count + 1, size + 1);
    return *out != NULL ? QR_OK : qr_error_memory(count * size, what);
}

qr_status qr_grow(void **array, size_t *capacity, size_t needed, size_t size, const char *what)
{
    if (fails_now()) {
        return qr_error_memory(needed * size, what);
    }
    if (needed > *capacity) {
        void *grown = realloc(*array, needed * size);
        if (grown == NULL) {
            return qr_error_memory(needed * size, what);
        }
        *array = grown;
        *capacity = needed;
    }
    return QR_OK;
}

static qr_comm *comm;

/* Allocation number k of the last rank fails. */
static void arm(int k)
{
    allocations = 0;
    failing = comm->rank == comm->size - 1 ? k : -1;
}

/* Whether allocation number k came to pass on the last rank; known to all. */
static bool disarm(int k)
{
    int reached = failing == k && allocations > k ? 1 : 0;
    failing = -1;
    MPI_Allreduce(MPI_IN_PLACE, &reached, 1, MPI_INT, MPI_MAX, comm->world);
    return reached != 0;
}

static void edges_arrive_or_all_ranks_fail(void **state)
{
    (void)state;
    qr_edge_exchange exchange = qr_comm_edge_exchange(comm);
    int n_parts = comm->n_parts;
    int me = comm->me.part;
    qr_edge *send = calloc((size_t)n_parts * EDGES, sizeof *send);
    int64_t *counts = calloc((size_t)n_parts, sizeof *counts);
    assert_non_null(send);
    assert_non_null(counts);
    for (int p = 0; p < n_parts; p++) {
        counts[p] = EDGES;
        for (int i = 0; i < EDGES; i++) {
            send[p * EDGES + i] = (qr_edge){.from = me, .to = 100 * p + i};
        }
    }
    int k = 0;
    for (bool done = false; !done; k++) {
        assert_in_range(k, 0, MOST_ALLOCATIONS);
        qr_edge *received = send;
        int64_t n = -7;
        arm(k);
        qr_status status = exchange.exchange(exchange.context, send, counts, &received, &n);
        done = !disarm(k);
        if (!done) {
            assert_int_equal(status, QR_RESOURCE);
            assert_ptr_equal(received, send);
            assert_true(n == -7);
            continue;
        }
        assert_int_equal(status, QR_OK);
        assert_true(n == (int64_t)n_parts * EDGES);
        for (int p = 0; p < n_parts; p++) {
            for (int i = 0; i < EDGES; i++) {
                assert_true(received[p * EDGES + i].from == p && received[p * EDGES + i].to == 100 * me + i);
            }
        }
        free(received);
    }
    assert_true(k > 2); /* some did fail */
    free(send);
    free(counts);
}

static void shares_arrive_or_all_ranks_fail(void **state)
{
    (void)state;
    int n_parts = comm->n_parts;
    int me = comm->me.part;
    int32_t *items = calloc((size_t)n_parts * (size_t)(n_parts + 1), sizeof *items);
    int64_t *counts = calloc((size_t)n_parts, sizeof *counts);
    assert_non_null(items);
    assert_non_null(counts);
    int64_t total = 0;
    for (int p = 0; comm->rank == 0 && p < n_parts; p++) { /* part p gets p + 1 times its number */
        counts[p] = p + 1;
        for (int i = 0; i <= p; i++) {
            items[total++] = p;
        }
    }
    int k = 0;
    for (bool done = false; !done; k++) {
        assert_in_range(k, 0, MOST_ALLOCATIONS);
        void *mine = items;
        int64_t n = -7;
        arm(k);
        qr_status status = qr_comm_scatter(comm, items, counts, sizeof *items, &mine, &n);
        done = !disarm(k);
        if (!done) {
            assert_int_equal(status, QR_RESOURCE);
            assert_ptr_equal(mine, items);
            assert_true(n == -7);
            continue;
        }
        assert_int_equal(status, QR_OK);
        assert_true(n == me + 1);
        for (int i = 0; i <= me; i++) {
            assert_int_equal(((const int32_t *)mine)[i], me);
        }
        free(mine);
    }
    assert_true(k > 2);
    free(items);
    free(counts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(edges_arrive_or_all_ranks_fail),
                                       cmocka_unit_test(shares_arrive_or_all_ranks_fail)};
    int provided = 0;
    (void)alarm(PATIENCE_S); /* a rank that waits for another one for ever */
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
        qr_comm_create(0, 0, &comm) != QR_OK) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed != 0) {
        MPI_Abort(MPI_COMM_WORLD, failed);
    }
    qr_comm_destroy(comm);
    MPI_Finalize();
    return 0;
}
