/* The board: a sequence lock, whose readers give up rather than wait. */
#include "queue/layout.h"

#include <string.h>

enum { BOARD_WORDS = QR_BOARD_BYTES / sizeof(uint64_t) };

void qr_queue_post(qr_queue *queue, const void *data, size_t bytes)
{
    struct qr_queue_memory *memory = queue->memory;
    uint64_t words[BOARD_WORDS] = {0};
    memcpy(words, data, bytes < QR_BOARD_BYTES ? bytes : QR_BOARD_BYTES);
    uint64_t turn = atomic_load_explicit(&memory->board_turn, memory_order_relaxed);
    atomic_store_explicit(&memory->board_turn, turn + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < BOARD_WORDS; i++) {
        atomic_store_explicit(&memory->board[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&memory->board_turn, turn + 2, memory_order_release);
}

bool qr_queue_read_board(const qr_queue *queue, void *out, size_t bytes)
{
    const struct qr_queue_memory *memory = queue->memory;
    uint64_t words[BOARD_WORDS];
    uint64_t before = atomic_load_explicit(&memory->board_turn, memory_order_acquire);
    if (before == 0 || before % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < BOARD_WORDS; i++) {
        words[i] = atomic_load_explicit(&memory->board[i], memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&memory->board_turn, memory_order_relaxed) != before) {
        return false;
    }
    memset(out, 0, bytes);
    memcpy(out, words, bytes < QR_BOARD_BYTES ? bytes : QR_BOARD_BYTES);
    return true;
}
