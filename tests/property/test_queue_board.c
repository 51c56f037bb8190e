/* The board of a queue, read while it is written; and jobs acknowledged in any order. */
#include "queue/queue.h"
#include "queue/wait.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 2000, READERS = 3, POSTS = 30000, WORDS = QR_BOARD_BYTES / 8, MOST_SLOTS = 9, STEPS = 400 };

static uint64_t state_of_random;

static uint32_t draw(uint32_t n)
{
    state_of_random = state_of_random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(state_of_random >> 33) % n;
}

static void *make(qr_queue *producer, qr_queue *consumer, int32_t n_slots)
{
    qr_queue_shape shape = {.n_slots = n_slots, .slot_bytes = 8, .producer = 3};
    size_t bytes = qr_queue_bytes(&shape);
    void *memory = malloc(bytes);
    assert_int_equal(qr_queue_create(memory, bytes, &shape, consumer), QR_OK);
    assert_int_equal(qr_queue_attach(memory, bytes, producer), QR_OK);
    return memory;
}

/* What is read is what was posted last, then zeros, for all sizes of both. */
static void test_board_holds_the_last_post(void **state)
{
    (void)state;
    qr_queue producer;
    qr_queue consumer;
    unsigned char posted[QR_BOARD_BYTES + 1];
    unsigned char read[QR_BOARD_BYTES + 64];
    unsigned char wanted[sizeof read];
    void *memory = make(&producer, &consumer, 1);
    memset(read, 7, sizeof read);
    assert_false(qr_queue_read_board(&producer, read, sizeof read));
    assert_int_equal(read[0], 7);
    for (int i = 0; i < CASES; i++) {
        size_t n = i % 4 == 0 ? QR_BOARD_BYTES : draw(QR_BOARD_BYTES + 1);
        size_t asked = draw(sizeof read + 1);
        for (size_t k = 0; k < sizeof posted; k++) {
            posted[k] = (unsigned char)(1 + draw(255));
        }
        memset(wanted, 0, sizeof wanted);
        memcpy(wanted, posted, n);
        qr_queue_post(&consumer, posted, n);
        memset(read, 7, sizeof read);
        assert_true(qr_queue_read_board(&producer, read, asked));
        assert_memory_equal(read, wanted, asked);
        for (size_t k = asked; k < sizeof read; k++) {
            assert_int_equal(read[k], 7);
        }
    }
    free(memory);
}

/* --- readers beside a writer --- */

typedef struct watch {
    qr_queue queue;
    atomic_bool *over;
    int64_t seen, torn, backwards;
} watch;

static uint64_t word_of(uint64_t post, uint64_t i)
{
    return i == 0 ? post : (post * 0x9e3779b97f4a7c15ULL) ^ (i * 0xc2b2ae3d27d4eb4fULL);
}

static void *read_on(void *argument)
{
    watch *w = argument;
    uint64_t last = 0;
    for (bool once_more = true; once_more;) {
        uint64_t words[WORDS];
        once_more = !atomic_load(w->over);
        if (!qr_queue_read_board(&w->queue, words, sizeof words)) {
            continue;
        }
        for (uint64_t i = 0; i < WORDS; i++) {
            w->torn += words[i] != word_of(words[0], i);
        }
        w->backwards += words[0] < last;
        last = words[0];
        w->seen++;
    }
    w->backwards += last != POSTS; /* the last one is seen once the writer is done */
    return NULL;
}

static void test_board_is_whole_under_readers(void **state)
{
    (void)state;
    qr_queue producer;
    qr_queue consumer;
    atomic_bool over;
    watch watches[READERS];
    pthread_t threads[READERS];
    void *memory = make(&producer, &consumer, 1);
    atomic_init(&over, false);
    for (int i = 0; i < READERS; i++) {
        watches[i] = (watch){.queue = producer, .over = &over};
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &watches[i]), 0);
    }
    for (uint64_t post = 1; post <= POSTS; post++) {
        uint64_t words[WORDS];
        for (uint64_t i = 0; i < WORDS; i++) {
            words[i] = word_of(post, i);
        }
        qr_queue_post(&consumer, words, sizeof words);
    }
    atomic_store(&over, true);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(watches[i].seen > 0);
        assert_int_equal(watches[i].torn, 0);
        assert_int_equal(watches[i].backwards, 0);
    }
    free(memory);
}

/* --- acknowledgements in any order --- */

/* A slot is the producer's again when its job, and no other, is acknowledged. */
static void test_any_order(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        qr_queue producer;
        qr_queue consumer;
        qr_job held[MOST_SLOTS];
        bool busy[MOST_SLOTS] = {false};
        int n_held = 0;
        int n_busy = 0;
        int32_t n_slots = 1 + (int32_t)draw(MOST_SLOTS);
        void *memory = make(&producer, &consumer, n_slots);
        for (int step = 0; step < STEPS / 8; step++) {
            qr_job job = {.kind = QR_JOB_TEXT};
            if (draw(2) == 0) {
                int32_t slot = qr_queue_try_slot(&producer);
                assert_int_equal(slot == QR_NO_SLOT, n_busy == n_slots);
                if (slot == QR_NO_SLOT) {
                    continue;
                }
                assert_false(busy[slot]);
                busy[slot] = true;
                n_busy++;
                job.slot = slot;
                assert_int_equal(qr_queue_submit(&producer, &job, 1), QR_OK);
                assert_true(qr_queue_next(&consumer, &held[n_held]));
                assert_int_equal(held[n_held++].slot, slot);
            } else if (n_held > 0) {
                int k = (int)draw((uint32_t)n_held);
                qr_queue_acknowledge(&consumer, &held[k], QR_OK, NULL);
                busy[held[k].slot] = false;
                n_busy--;
                held[k] = held[--n_held];
                assert_int_equal(qr_queue_collect(&producer), QR_OK);
            }
        }
        while (n_held > 0) {
            qr_queue_acknowledge(&consumer, &held[--n_held], QR_OK, NULL);
        }
        assert_int_equal(qr_queue_drain(&producer, 1), QR_OK);
        for (int32_t slot = 0; slot < n_slots; slot++) {
            assert_true(qr_queue_try_slot(&producer) != QR_NO_SLOT);
        }
        assert_int_equal(qr_queue_try_slot(&producer), QR_NO_SLOT);
        free(memory);
    }
}

int main(void)
{
    state_of_random = 20;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_board_holds_the_last_post),
        cmocka_unit_test(test_board_is_whole_under_readers),
        cmocka_unit_test(test_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
