/* What frames the updates of a step: counting, the sum over parts, the decision, and votes in and out. */
#include "tally.cuh"
#include "votes.cuh"

enum { THREADS = 256, MOST_BLOCKS = 4096 };

static unsigned blocks_for(int64_t items)
{
    int64_t blocks = (items + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks);
}

static __global__ void count_votes(const __grid_constant__ qr_part part)
{
    __shared__ qr_block_tally tally;
    uint32_t current = part.control->current;
    qr_tally_clear(&tally, part.rule.n_options);
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < part.count; i += (int64_t)gridDim.x * THREADS) {
        qr_tally_vote(&tally, qr_vote_at(&part, current, part.before + i), qr_leader_pack(0, part.first + i));
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < part.rule.n_options; k += blockDim.x) {
        if (tally.votes[k] != 0) {
            atomicAdd(&part.control->part_votes[k], (unsigned long long)tally.votes[k]);
            atomicMax(&part.control->part_leader[k], tally.leader[k]);
        }
    }
}

extern "C" void qr_launch_count(const qr_part *part, cudaStream_t stream)
{
    count_votes<<<blocks_for(part->count), THREADS, 0, stream>>>(*part);
}

static __global__ void hand_in(const __grid_constant__ qr_part part, int64_t *out)
{
    qr_control *control = part.control;
    if (control->stopped) {
        return;
    }
    uint32_t n_options = part.rule.n_options;
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        out[k] = (int64_t)control->part_votes[k];
        out[n_options + k] = (int64_t)control->part_leader[k];
        control->part_votes[k] = 0;
        control->part_leader[k] = 0;
    }
}

extern "C" void qr_launch_hand_in(const qr_part *part, int64_t *out, cudaStream_t stream)
{
    hand_in<<<1, THREADS, 0, stream>>>(*part, out);
}

static __global__ void decide(const __grid_constant__ qr_part part)
{
    __shared__ unsigned long long votes[QR_DEVICE_OPTIONS];
    __shared__ unsigned long long leaders[QR_DEVICE_OPTIONS];
    if (part.control->stopped) {
        return;
    }
    uint32_t n_options = part.rule.n_options;
    for (uint32_t k = threadIdx.x; k < n_options; k += blockDim.x) {
        unsigned long long sum = 0;
        unsigned long long most = 0;
        for (int32_t p = 0; p < part.n_parts; p++) {
            const int64_t *theirs = part.gathered + (int64_t)p * 2 * n_options;
            unsigned long long leader = (unsigned long long)theirs[n_options + k];
            sum += (unsigned long long)theirs[k];
            most = leader > most ? leader : most;
        }
        votes[k] = sum;
        leaders[k] = most;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        qr_decide(&part, votes, leaders);
    }
}

extern "C" void qr_launch_decide(const qr_part *part, cudaStream_t stream)
{
    decide<<<1, THREADS, 0, stream>>>(*part);
}

/* The copy that vote number v of all belongs to. */
static __device__ __forceinline__ const qr_copy *find_copy(const qr_copy *copies, int64_t n_copies, int64_t v)
{
    int64_t low = 0;
    int64_t high = n_copies - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (copies[middle].first <= v) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return &copies[low];
}

static __global__ void copy_votes(const __grid_constant__ qr_part part, int kind, const qr_copy *copies,
                                  int64_t n_copies, int64_t n_votes, uint8_t *message)
{
    if (part.control->stopped) {
        return;
    }
    uint32_t current = part.control->current;
    for (int64_t v = (int64_t)blockIdx.x * THREADS + threadIdx.x; v < n_votes; v += (int64_t)gridDim.x * THREADS) {
        const qr_copy *copy = find_copy(copies, n_copies, v);
        int64_t at = v - copy->first;
        uint32_t vote = kind == QR_COPY_IN ? message[copy->from + at] : qr_vote_at(&part, current, copy->from + at);
        if (kind == QR_COPY_OUT) {
            message[copy->to + at] = (uint8_t)vote;
        } else {
            qr_put_vote(&part, current, copy->to + at, vote);
        }
    }
}

extern "C" void qr_launch_copy(const qr_part *part, qr_copy_kind kind, const qr_copy *copies, int64_t n_copies,
                               int64_t n_votes, uint8_t *message, cudaStream_t stream)
{
    if (n_votes > 0) {
        copy_votes<<<blocks_for(n_votes), THREADS, 0, stream>>>(*part, kind, copies, n_copies, n_votes, message);
    }
}

static __global__ void store_own(const __grid_constant__ qr_part part, int64_t first, int64_t count,
                                 const uint8_t *votes)
{
    uint32_t current = part.control->current;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        qr_put_vote(&part, current, part.before + first + i, votes[i]);
    }
}

extern "C" void qr_launch_store(const qr_part *part, int64_t first, int64_t count, const uint8_t *votes,
                                cudaStream_t stream)
{
    store_own<<<blocks_for(count), THREADS, 0, stream>>>(*part, first, count, votes);
}

static __global__ void load_own(const __grid_constant__ qr_part part, int64_t first, int64_t count, uint8_t *votes)
{
    uint32_t current = part.control->current;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        votes[i] = (uint8_t)qr_vote_at(&part, current, part.before + first + i);
    }
}

extern "C" void qr_launch_load(const qr_part *part, int64_t first, int64_t count, uint8_t *votes, cudaStream_t stream)
{
    load_own<<<blocks_for(count), THREADS, 0, stream>>>(*part, first, count, votes);
}

static __global__ void initial_state(const __grid_constant__ qr_part part, float scale)
{
    int64_t dim = part.neural.state_dim;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < part.count; i += (int64_t)gridDim.x * THREADS) {
        qr_neural_initial(part.rule.seed, scale, (uint32_t)dim, (uint64_t)(part.first + i), part.state + i * dim);
    }
}

extern "C" void qr_launch_initial_state(const qr_part *part, float scale, cudaStream_t stream)
{
    initial_state<<<blocks_for(part->count), THREADS, 0, stream>>>(*part, scale);
}

extern "C" void qr_launch_update(const qr_part *part, int colour, int last_colour, cudaStream_t stream)
{
    switch ((qr_device_form)part->form) {
    case QR_FORM_PLANES:
        if (part->sweeps) {
            qr_launch_planes_sweep(part, colour, last_colour, stream);
        } else {
            qr_launch_planes(part, stream);
        }
        break;
    case QR_FORM_NEURAL: qr_launch_neural(part, stream); break;
    case QR_FORM_PACKED: qr_launch_packed(part, colour, last_colour, stream); break;
    }
}
