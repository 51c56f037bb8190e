/* What frames the steps of agents whose states lie in pages: begin and end without copies over the link, pages whose
 * agents all stay what they are, first states. */
#include "neural_tally.cuh"
#include "places.cuh"

enum { THREADS = 256, MOST_BLOCKS = 4096 };

static unsigned blocks_for(int64_t items)
{
    int64_t blocks = (items + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks);
}

static __global__ void begin_step(const __grid_constant__ qr_part part, const qr_control *from)
{
    const uint64_t *words = (const uint64_t *)from;
    uint64_t *to = (uint64_t *)part.control;
    static_assert(sizeof(qr_control) % sizeof(uint64_t) == 0, "whole words");
    for (uint32_t i = threadIdx.x; i < sizeof(qr_control) / sizeof(uint64_t); i += THREADS) {
        to[i] = words[i];
    }
}

extern "C" void qr_launch_begin_step(const qr_part *part, const qr_control *from, cudaStream_t stream)
{
    begin_step<<<1, THREADS, 0, stream>>>(*part, from);
}

static __global__ void end_step(const __grid_constant__ qr_part part, int64_t *out)
{
    qr_control *control = part.control;
    const uint32_t n_options = part.rule.n_options;
    for (uint32_t k = threadIdx.x; k < n_options; k += THREADS) {
        out[k] = (int64_t)control->part_votes[k];
        out[n_options + k] = (int64_t)control->part_leader[k];
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
    if (threadIdx.x == 0) {
        control->step++;
        control->current ^= 1u;
    }
}

extern "C" void qr_launch_end_step(const qr_part *part, int64_t *out, cudaStream_t stream)
{
    end_step<<<1, THREADS, 0, stream>>>(*part, out);
}

/* A warp takes 32 agents at a time; pages begin at whole words of votes. */
static __global__ void __launch_bounds__(THREADS)
    pass_pages(const __grid_constant__ qr_part part, const __grid_constant__ qr_frame_batch batch)
{
    __shared__ qr_block_tally tally;
    const uint32_t current = part.control->current;
    const uint32_t per_word = 4u << part.packing;
    const uint32_t lane = threadIdx.x % 32u;
    const int64_t end = (batch.count + 31) / 32 * 32;
    qr_tally_clear(&tally, part.rule.n_options);
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < end; i += (int64_t)gridDim.x * THREADS) {
        float *states = NULL;
        const int64_t first = qr_find_agent(&part, &batch, i - lane, &states);
        const int64_t position = part.before + first + lane;
        const bool mine = i < batch.count;
        const uint32_t vote = mine ? qr_packed_vote(part.packed[current], part.packing, position) : 0;
        if (mine && lane % per_word == 0) {
            const int64_t word = position / per_word;
            ((uint32_t *)part.packed[current ^ 1u])[word] = ((const uint32_t *)part.packed[current])[word];
        }
        qr_tally_scores(&tally, vote, 0, part.first + first, mine);
    }
    qr_tally_finish(&part, &tally);
}

extern "C" void qr_launch_pass(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream)
{
    pass_pages<<<blocks_for(batch->count), THREADS, 0, stream>>>(*part, *batch);
}

/* A thread draws what one block of random numbers gives: qr_neural_initial, cut at every fourth number. */
static __global__ void first_states(const __grid_constant__ qr_part part, const __grid_constant__ qr_frame_batch batch,
                                    float scale)
{
    const int64_t dim = part.neural.state_dim;
    const int64_t blocks = (dim + 3) / 4;
    const int64_t end = batch.count * blocks;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < end; i += (int64_t)gridDim.x * THREADS) {
        int64_t block = 0;
        float *states = NULL;
        const int64_t agent = qr_find_agent(&part, &batch, qr_divide(i, blocks, &block), &states);
        qr_draws draws;
        qr_draws_begin(&draws, part.rule.seed, (uint64_t)(part.first + agent), 0, QR_STREAM_INITIAL_STATE);
        draws.next = 4u * (uint32_t)block;
        for (int64_t d = 4 * block; d < dim && d < 4 * block + 4; d++) {
            states[agent * dim + d] = scale * qr_signed_unit(qr_draws_next32(&draws));
        }
    }
}

extern "C" void qr_launch_first_states(const qr_part *part, const qr_frame_batch *batch, float scale,
                                       cudaStream_t stream)
{
    const int64_t items = batch->count * ((part->neural.state_dim + 3) / 4);
    first_states<<<blocks_for(items), THREADS, 0, stream>>>(*part, *batch, scale);
}
