/* Jobs that are asked: slots stay the producer's, outcomes go to who asked. */
#include "queue/queue.h"
#include "queue/wait.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROUNDS = 20000, SLOTS = 4, PATIENCE_S = 100 };

static const qr_queue_shape shape = {.n_slots = SLOTS, .slot_bytes = 256, .producer = 3};

static void *make_queue(qr_queue *producer, qr_queue *consumer)
{
    size_t bytes = qr_queue_bytes(&shape);
    void *memory = malloc(bytes);
    assert_non_null(memory);
    assert_int_equal(qr_queue_create(memory, bytes, &shape, producer), QR_OK);
    assert_int_equal(qr_queue_attach(memory, bytes, consumer), QR_OK);
    return memory;
}

static int32_t ask(qr_queue *queue, int64_t first)
{
    int32_t slot = qr_queue_try_slot(queue);
    assert_true(slot >= 0);
    qr_job job = {.kind = QR_JOB_PAGE_GET, .slot = slot, .bytes = 10, .first = first};
    assert_int_equal(qr_queue_ask(queue, &job, 1), QR_OK);
    return slot;
}

/* Answers in another order than asked; each slot learns its own, and stays taken until it is given back. */
static void test_answers_go_to_their_slots(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    qr_job jobs[SLOTS];
    int32_t slots[SLOTS];
    qr_status status = QR_INTERNAL;
    int64_t value = -1;
    for (int i = 0; i < SLOTS; i++) {
        slots[i] = ask(&queue, i);
        assert_true(qr_queue_next(&server, &jobs[i]));
        assert_int_equal(jobs[i].slot, slots[i]);
        assert_false(qr_queue_answered(&queue, slots[i], &status, &value));
    }
    for (int i = SLOTS - 1; i >= 0; i--) {
        qr_queue_answer(&server, &jobs[i],
                        i == 1   ? QR_DATA
                        : i == 2 ? QR_RESOURCE
                                 : QR_OK,
                        100 + i, i == 1 ? "the page is wet" : "all is full");
        assert_true(qr_queue_answered(&queue, slots[i], &status, &value));
    }
    for (int i = 0; i < SLOTS; i++) {
        assert_true(qr_queue_answered(&queue, slots[i], &status, &value));
        assert_int_equal(status, i == 1 ? QR_DATA : i == 2 ? QR_RESOURCE : QR_OK);
        assert_int_equal(value, 100 + i);
        assert_string_equal(qr_queue_answer_message(&queue, slots[i]), i == 1   ? "the page is wet"
                                                                       : i == 2 ? "all is full"
                                                                                : "");
    }
    /* No failure of the queue, and no free slot. */
    assert_int_equal(qr_queue_collect(&queue), QR_OK);
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    qr_queue_return_slot(&queue, slots[2]);
    assert_false(qr_queue_answered(&queue, slots[2], &status, &value));
    assert_string_equal(qr_queue_answer_message(&queue, slots[2]), "");
    assert_int_equal(qr_queue_try_slot(&queue), slots[2]);
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    free(memory);
}

/* A slot that is being worked on is not given back, nor asked with twice; once answered it may serve again. */
static void test_slot_in_use(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    qr_job taken;
    qr_status status = QR_OK;
    int64_t value = 0;
    int32_t slot = ask(&queue, 0);
    qr_queue_return_slot(&queue, slot);
    for (int i = 1; i < SLOTS; i++) {
        assert_int_not_equal(qr_queue_try_slot(&queue), slot);
    }
    assert_int_equal(qr_queue_try_slot(&queue), QR_NO_SLOT);
    qr_job again = {.kind = QR_JOB_PAGE_PUT, .slot = slot, .bytes = 10};
    assert_int_equal(qr_queue_ask(&queue, &again, 1), QR_INTERNAL);
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_answer(&server, &taken, QR_DATA, 1, "no");
    assert_int_equal(qr_queue_wait_answer(&queue, slot, 1, &status, &value), QR_OK);
    assert_int_equal(status, QR_DATA);

    assert_int_equal(qr_queue_ask(&queue, &again, 1), QR_OK);
    assert_false(qr_queue_answered(&queue, slot, &status, &value));
    assert_string_equal(qr_queue_answer_message(&queue, slot), "");
    assert_true(qr_queue_next(&server, &taken));
    assert_int_equal(taken.kind, QR_JOB_PAGE_PUT);
    qr_queue_answer(&server, &taken, QR_OK, 2, NULL);
    assert_int_equal(qr_queue_wait_answer(&queue, slot, 1, &status, &value), QR_OK);
    assert_int_equal(status, QR_OK);
    assert_int_equal(value, 2);

    /* What was got may go on by a job that gives the slot away. */
    qr_job given = {.kind = QR_JOB_CUT_PAGE, .slot = slot, .bytes = 10};
    assert_int_equal(qr_queue_submit(&queue, &given, 1), QR_OK);
    assert_false(qr_queue_answered(&queue, slot, &status, &value));
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_acknowledge(&server, &taken, QR_OK, NULL);
    assert_int_equal(qr_queue_try_slot(&queue), slot);
    free(memory);
}

static void test_what_cannot_be_asked(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    qr_status status = QR_OK;
    int64_t value = 0;
    qr_job taken;
    int32_t slot = qr_queue_try_slot(&queue);
    qr_job bad[] = {
        {.slot = QR_NO_SLOT}, {.slot = SLOTS}, {.slot = slot, .bytes = 1 << 20}, {.slot = slot, .bytes = -1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qr_queue_ask(&queue, &bad[i], 1), QR_INTERNAL);
        assert_false(qr_queue_next(&server, &taken));
    }
    assert_int_equal(qr_queue_wait_answer(&queue, slot, 1, &status, &value), QR_INTERNAL);
    assert_int_equal(qr_queue_wait_answer(&queue, -1, 1, &status, &value), QR_INTERNAL);
    assert_false(qr_queue_answered(&queue, SLOTS, &status, &value));
    assert_int_equal(qr_queue_drain(&queue, 1), QR_OK);
    free(memory);
}

static void test_waiting_is_bounded(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    qr_status status = QR_OK;
    int64_t value = 0;
    int32_t slot = ask(&queue, 0);
    assert_int_equal(qr_queue_wait_answer(&queue, slot, 0.05, &status, &value), QR_ENVIRONMENT);
    assert_non_null(strstr(qr_error_message(), "gave no answer"));
    free(memory);
}

/* A job that was given away and fails is still the queue's failure; those that are asked for beside it are not. */
static void test_failures_beside_each_other(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    qr_job taken;
    qr_status status = QR_OK;
    int64_t value = 0;
    int32_t slot = ask(&queue, 0);
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_answer(&server, &taken, QR_DATA, 0, "a page");
    qr_job text = {.kind = QR_JOB_TEXT, .slot = QR_NO_SLOT};
    assert_int_equal(qr_queue_submit(&queue, &text, 1), QR_OK);
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_acknowledge(&server, &taken, QR_RESOURCE, "a text");
    assert_int_equal(qr_queue_wait_answer(&queue, slot, 1, &status, &value), QR_OK);
    assert_int_equal(status, QR_DATA);
    assert_string_equal(qr_queue_answer_message(&queue, slot), "a page");
    assert_int_equal(qr_queue_collect(&queue), QR_RESOURCE);
    assert_string_equal(qr_error_message(), "a text");
    free(memory);
}

/* Far longer than its room. */
static void test_long_message_is_cut(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    char text[QR_MESSAGE_BYTES];
    qr_job taken;
    qr_status status = QR_OK;
    int64_t value = 0;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    int32_t other = ask(&queue, 0);
    int32_t slot = ask(&queue, 1);
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_answer(&server, &taken, QR_DATA, 0, text);
    assert_true(qr_queue_next(&server, &taken));
    qr_queue_answer(&server, &taken, QR_DATA, 0, "short");
    assert_true(qr_queue_answered(&queue, slot, &status, &value));
    assert_string_equal(qr_queue_answer_message(&queue, slot), "short");
    assert_true(qr_queue_answered(&queue, other, &status, &value));
    assert_true(strlen(qr_queue_answer_message(&queue, other)) > 400);
    assert_null(strchr(qr_queue_answer_message(&queue, other), 's'));
    free(memory);
}

/* --- two threads --- */

/* Answers with what was asked, in pairs the later one first; fills the slot. */
static void *serve(void *argument)
{
    qr_queue *queue = argument;
    qr_wait wait = {0};
    qr_job held[2];
    int n = 0;
    double start = qr_now_s();
    for (int64_t done = 0; done < ROUNDS && qr_now_s() - start < PATIENCE_S;) {
        qr_queue_beat(queue);
        if (qr_queue_next(queue, &held[n])) {
            n++;
            wait.turns = 0;
        } else {
            qr_wait_turn(&wait, 50);
        }
        if (n == 2 || (n > 0 && wait.turns > 0)) {
            while (n > 0) {
                const qr_job *job = &held[--n];
                memset(qr_queue_slot(queue, job->slot), (int)(job->first % 251), (size_t)job->bytes);
                qr_queue_answer(queue, job, job->first % 7 == 0 ? QR_DATA : QR_OK, job->first * 3, "seven");
                done++;
            }
        }
    }
    return NULL;
}

static int64_t check(qr_queue *queue, int32_t slot, int64_t first)
{
    qr_status status = QR_OK;
    int64_t value = 0;
    if (qr_queue_wait_answer(queue, slot, PATIENCE_S, &status, &value) != QR_OK) {
        return 1000000;
    }
    const unsigned char *page = qr_queue_slot(queue, slot);
    int64_t faults = value != first * 3;
    faults += status != (first % 7 == 0 ? QR_DATA : QR_OK);
    faults += strcmp(qr_queue_answer_message(queue, slot), first % 7 == 0 ? "seven" : "") != 0;
    faults += page[0] != first % 251 || page[first % 256] != first % 251;
    return faults;
}

static void test_two_threads(void **state)
{
    (void)state;
    qr_queue queue;
    qr_queue server;
    void *memory = make_queue(&queue, &server);
    pthread_t thread;
    int32_t slots[SLOTS];
    int64_t faults = 0;
    assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
    for (int64_t n = 0; n < ROUNDS + SLOTS && faults < 1000; n++) {
        int64_t i = n % SLOTS;
        if (n >= SLOTS) {
            faults += check(&queue, slots[i], n - SLOTS);
            qr_queue_return_slot(&queue, slots[i]);
        }
        if (n < ROUNDS) {
            slots[i] = qr_queue_try_slot(&queue);
            qr_job job = {.kind = QR_JOB_PAGE_GET, .slot = slots[i], .bytes = 256, .first = n};
            faults += qr_queue_ask(&queue, &job, PATIENCE_S) != QR_OK;
        }
    }
    assert_int_equal(faults, 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(qr_queue_collect(&queue), QR_OK);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_go_to_their_slots),
        cmocka_unit_test(test_slot_in_use),
        cmocka_unit_test(test_what_cannot_be_asked),
        cmocka_unit_test(test_waiting_is_bounded),
        cmocka_unit_test(test_failures_beside_each_other),
        cmocka_unit_test(test_long_message_is_cut),
        cmocka_unit_test(test_two_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
