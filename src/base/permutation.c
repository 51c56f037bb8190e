#include "base/permutation.h"

enum { ROUNDS = 6, TOGETHER = 64 };

uint64_t qr_mix64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

qr_permutation qr_permutation_make(uint64_t n, uint64_t key)
{
    qr_permutation permutation = {.n = n, .key = qr_mix64(key + 0x9e3779b97f4a7c15u), .half_bits = 1};
    while (permutation.half_bits < 31 && (uint64_t)1 << (2 * permutation.half_bits) < n) {
        permutation.half_bits++;
    }
    return permutation;
}

static uint64_t round_value(const qr_permutation *permutation, uint64_t half, unsigned round)
{
    return qr_mix64(half ^ (permutation->key + round * 0x9e3779b97f4a7c15u)) >> (64 - permutation->half_bits);
}

uint64_t qr_permutation_apply(const qr_permutation *permutation, uint64_t i)
{
    uint64_t mask = ((uint64_t)1 << permutation->half_bits) - 1;
    do {
        uint64_t left = i >> permutation->half_bits;
        uint64_t right = i & mask;
        for (unsigned round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ round_value(permutation, right, round);
            left = right;
            right = next;
        }
        i = left << permutation->half_bits | right;
    } while (i >= permutation->n);
    return i;
}

/* One walk's step for each of n numbers. */
static void step_together(const qr_permutation *permutation, int n, uint64_t *numbers)
{
    uint64_t left[TOGETHER];
    uint64_t right[TOGETHER];
    uint64_t mask = ((uint64_t)1 << permutation->half_bits) - 1;
    for (int i = 0; i < n; i++) {
        left[i] = numbers[i] >> permutation->half_bits;
        right[i] = numbers[i] & mask;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++) {
            uint64_t next = left[i] ^ round_value(permutation, right[i], round);
            left[i] = right[i];
            right[i] = next;
        }
    }
    for (int i = 0; i < n; i++) {
        numbers[i] = left[i] << permutation->half_bits | right[i];
    }
}

void qr_permutation_apply_row(const qr_permutation *permutation, uint64_t first, int64_t count, uint64_t *images)
{
    for (int64_t begin = 0; begin < count; begin += TOGETHER) {
        uint64_t numbers[TOGETHER];
        int64_t whose[TOGETHER];
        int n = count - begin < TOGETHER ? (int)(count - begin) : TOGETHER;
        for (int i = 0; i < n; i++) {
            whose[i] = begin + i;
            numbers[i] = first + (uint64_t)(begin + i);
        }
        while (n > 0) {
            step_together(permutation, n, numbers);
            int walking = 0;
            for (int i = 0; i < n; i++) { /* without a branch, which nobody could foresee */
                images[whose[i]] = numbers[i];
                whose[walking] = whose[i];
                numbers[walking] = numbers[i];
                walking += numbers[i] >= permutation->n ? 1 : 0;
            }
            n = walking;
        }
    }
}

uint64_t qr_permutation_invert(const qr_permutation *permutation, uint64_t i)
{
    uint64_t mask = ((uint64_t)1 << permutation->half_bits) - 1;
    do {
        uint64_t left = i >> permutation->half_bits;
        uint64_t right = i & mask;
        for (unsigned round = ROUNDS; round-- > 0;) {
            uint64_t previous = right ^ round_value(permutation, left, round);
            right = left;
            left = previous;
        }
        i = left << permutation->half_bits | right;
    } while (i >= permutation->n);
    return i;
}
