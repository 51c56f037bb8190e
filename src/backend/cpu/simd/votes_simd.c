/* First votes, several agents at a time. */
#include "backend/cpu/simd/kernels.h"
#include "backend/cpu/simd/vector.h"

/* Vectors of agents side by side; one alone would wait for its multiplications. */
enum { TOGETHER = 2, AT_ONCE = TOGETHER * QR_LANES };

typedef uint8_t lane_bytes __attribute__((vector_size(QR_LANES)));

static void draw(const qr_philox_keys *keys, uint64_t agent, uint32_t n_options, uint8_t *votes)
{
    const qr_vec none = qr_vec_all(0);
    const qr_vec n = qr_vec_all(n_options);
    qr_philox_vec block[TOGETHER];
    for (int v = 0; v < TOGETHER; v++) {
        qr_vec agents = qr_vec_all(agent + (uint64_t)v * QR_LANES) + qr_vec_lane_numbers();
        block[v] = (qr_philox_vec){{agents, agents >> 32, none, qr_vec_all((uint64_t)QR_STREAM_INITIAL_VOTE << 16)}};
    }
    qr_philox_rounds(keys, TOGETHER, block);
    for (int v = 0; v < TOGETHER; v++) {
        /* qr_bounded64 of both words, for n below 2^32. */
        qr_vec low = qr_vec_mul32(block[v].word[0], n) >> 32;
        qr_vec option = (qr_vec_mul32(block[v].word[1], n) + low) >> 32;
        lane_bytes bytes = __builtin_convertvector(option, lane_bytes);
        memcpy(votes + v * QR_LANES, &bytes, sizeof bytes);
    }
}

void QR_SIMD_NAME(qr_simd_draw_votes)(uint64_t seed, uint64_t first_agent, int64_t n, uint32_t n_options,
                                      uint8_t *votes)
{
    qr_philox_keys keys;
    qr_philox_expand(seed, &keys);
    int64_t i = 0;
    for (; i + AT_ONCE <= n; i += AT_ONCE) {
        draw(&keys, first_agent + (uint64_t)i, n_options, votes + i);
    }
    if (i < n) {
        uint8_t last[AT_ONCE];
        draw(&keys, first_agent + (uint64_t)i, n_options, last);
        memcpy(votes + i, last, (size_t)(n - i));
    }
}
