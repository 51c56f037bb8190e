/* The neural kernels by themselves: the exact one gives the same bits as kernels/rules/neural.h on the host for many
 * sizes, tanh for every float; the fast one nearly the same; and their speed.
 *
 *   nvcc -O3 --fmad=false -arch=sm_90 -Ikernels -Xcompiler=-O2,-mfma,-ffp-contract=off \
 *     benchmarks/cuda/check_neural_kernel.cu kernels/neural*.cu -o /tmp/check_neural
 *   /tmp/check_neural                       checks, then times D = H = 64, K = 5 with 10 M agents, exact and fast,
 *                                         on a complete network and a lattice
 *   /tmp/check_neural quick                 a few of the checks, and all times
 *   /tmp/check_neural time D H K AGENTS     times another size alone */
#include "device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REACH = 3, SEED = 99, STEPS = 20, ROUNDS = 5, STATE_SCALE = 2 };

/* A lattice is of two dimensions and closes; each agent sees four. */
enum { COMPLETE, RING, LATTICE };

typedef struct sizes {
    int state;
    int hidden;
    int n_options;
    int network;
    int64_t n_agents;
    double activation;
    double noise;
    float inverse_temperature;
    int64_t width; /* of a lattice */
} sizes;

static const char *const network_names[] = {"complete", "ring", "lattice"};

static void check(cudaError_t error, int line)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "line %d: %s\n", line, cudaGetErrorString(error));
        exit(1);
    }
}
#define CHECK(call) check(call, __LINE__)

static void *upload(const void *from, size_t bytes)
{
    void *to;
    CHECK(cudaMalloc(&to, bytes));
    CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    return to;
}

static float *random_weights(uint64_t stream, size_t count, float scale)
{
    float *w = (float *)malloc(count * sizeof(float));
    qr_neural_initial(SEED, scale, (uint32_t)count, stream, w);
    return w;
}

static qr_neural make_network(const sizes *s)
{
    qr_neural net = {};
    size_t columns = 2 * (size_t)s->n_options + (size_t)s->state;
    net.state_dim = (uint32_t)s->state;
    net.hidden = (uint32_t)s->hidden;
    net.n_options = (uint32_t)s->n_options;
    net.dt = 0.37f;
    net.inverse_temperature = s->inverse_temperature;
    net.w1 = random_weights((uint64_t)1 << 50, (size_t)s->hidden * columns, 0.3f);
    net.b1 = random_weights((uint64_t)2 << 50, (size_t)s->hidden, 0.3f);
    net.w2 = random_weights((uint64_t)3 << 50, (size_t)s->state * (size_t)s->hidden, 0.3f);
    net.b2 = random_weights((uint64_t)4 << 50, (size_t)s->state, 0.3f);
    net.wv = random_weights((uint64_t)5 << 50, (size_t)s->n_options * (size_t)s->state, 0.5f);
    net.bv = random_weights((uint64_t)6 << 50, (size_t)s->n_options, 0.1f);
    return net;
}

static void free_network(qr_neural *net)
{
    free((void *)net->w1);
    free((void *)net->b1);
    free((void *)net->w2);
    free((void *)net->b2);
    free((void *)net->wv);
    free((void *)net->bv);
}

static uint8_t first_vote(int64_t agent, int n_options)
{
    qr_philox_block block = qr_philox(SEED, (uint32_t)agent, (uint32_t)(agent >> 32), 0, 0);
    return (uint8_t)(block.word[0] % (uint32_t)n_options);
}

/* A part with all agents, on the device. Votes a byte each, with a ring's halo. */
static qr_part make_part(const sizes *s, const qr_neural *net, int fast)
{
    qr_part part = {};
    qr_control *control = (qr_control *)calloc(1, sizeof *control);
    size_t state_bytes = (size_t)s->n_agents * (size_t)s->state * sizeof(float);
    part.rule.seed = SEED;
    part.rule.n_agents = s->n_agents;
    part.rule.n_options = (uint32_t)s->n_options;
    part.rule.activation = qr_threshold32(s->activation);
    part.rule.noise = qr_threshold32(s->noise);
    part.form = QR_FORM_NEURAL;
    part.complete = s->network == COMPLETE;
    part.decides = 1;
    part.n_parts = 1;
    part.count = s->n_agents;
    part.before = (s->width / QR_DEVICE_GROUP + 1) * QR_DEVICE_GROUP;
    part.view = part.before + part.count + part.before;
    part.lattice.dims = s->network;
    part.lattice.reach = REACH;
    if (s->network == LATTICE) {
        const int64_t distance[] = {-s->width, -1, 1, s->width};
        part.lattice.periodic = 1;
        part.lattice.size[0] = s->width;
        part.lattice.size[1] = s->n_agents / s->width;
        part.lattice.n_agents = s->n_agents;
        part.n_offsets = 4;
        for (int j = 0; j < part.n_offsets; j++) {
            part.offset[j].distance = distance[j];
        }
        part.distance = (const int64_t *)upload(distance, sizeof distance);
        part.packing = s->n_options <= 16 ? 1 : 0;
    }
    part.neural = *net;
    uint8_t *votes = (uint8_t *)malloc((size_t)part.view + QR_DEVICE_GROUP);
    for (int64_t v = 0; v < part.view; v++) {
        votes[v] = first_vote((v - part.before + s->n_agents) % s->n_agents, s->n_options);
    }
    for (int64_t i = 0; i < part.count; i++) {
        control->votes[votes[part.before + i]]++;
    }
    for (int64_t v = 0; part.packing == 1 && v < part.view; v += 2) {
        votes[v / 2] = (uint8_t)(votes[v] | votes[v + 1] << 4);
    }
    control->limit = INT64_MAX;
    control->consensus.n_agents = s->n_agents;
    control->consensus.quorum_num = 1;
    control->consensus.quorum_den = 1;
    control->consensus.hold = INT64_MAX;
    part.packed[0] = (uint8_t *)upload(votes, (size_t)part.view + QR_DEVICE_GROUP);
    part.packed[1] = (uint8_t *)upload(votes, (size_t)part.view + QR_DEVICE_GROUP);
    part.control = (qr_control *)upload(control, sizeof *control);
    float *packed = (float *)malloc((size_t)qr_neural_packed_count(net) * sizeof(float));
    qr_neural_pack(net, packed);
    part.packed_weights = (const float *)upload(packed, (size_t)qr_neural_packed_count(net) * sizeof(float));
    CHECK(cudaMalloc((void **)&part.row_votes, (size_t)QR_DEVICE_ROWS * (size_t)s->n_options * sizeof(int64_t)));
    CHECK(cudaMalloc((void **)&part.row_leaders, QR_DEVICE_ROWS * sizeof(uint64_t)));
    CHECK(cudaMalloc((void **)&part.state, state_bytes));
    CHECK(cudaMemset(part.state, 0, state_bytes));
    if (fast && qr_neural_fast_count(net) > 0) {
        size_t bytes = (size_t)qr_neural_fast_count(net) * sizeof(uint32_t);
        uint32_t *words = (uint32_t *)malloc(bytes);
        if (qr_neural_fast_pack(net, STATE_SCALE, words)) {
            part.fast_weights = (const uint32_t *)upload(words, bytes);
        }
        free(words);
    }
    free(packed);
    free(votes);
    free(control);
    return part;
}

static void free_part(qr_part *part)
{
    CHECK(cudaFree(part->packed[0]));
    CHECK(cudaFree(part->packed[1]));
    CHECK(cudaFree(part->control));
    CHECK(cudaFree((void *)part->packed_weights));
    CHECK(cudaFree((void *)part->fast_weights));
    CHECK(cudaFree((void *)part->distance));
    CHECK(cudaFree(part->row_votes));
    CHECK(cudaFree(part->row_leaders));
    CHECK(cudaFree(part->state));
}

/* One agent's step on the host. Returns its vote. */
static uint32_t advance(const sizes *s, const qr_part *part, const qr_neural *net, const int64_t *votes,
                        const float *base, int64_t agent, float *x, uint32_t *score)
{
    float shares[QR_RULE_MAX_OPTIONS];
    float z[QR_RULE_MAX_OPTIONS];
    float hidden[QR_NEURAL_MAX_HIDDEN];
    uint32_t own = first_vote(agent, s->n_options);
    const uint64_t group = (uint64_t)agent / 64;
    const uint32_t bit = (uint32_t)(agent % 64);
    *score = 0;
    if (!(qr_plane_coins(SEED, group, 1, QR_STREAM_PLANE_ACTIVATION, part->rule.activation) >> bit & 1u)) {
        return own;
    }
    for (int k = 0; k < s->n_options; k++) {
        int64_t count = votes[k] - ((uint32_t)k == own ? 1 : 0);
        if (s->network == LATTICE) {
            const int64_t x = agent % s->width;
            const int64_t near[] = {agent - s->width, agent + s->width, agent + (x == 0 ? s->width : 0) - 1,
                                    agent + 1 - (x + 1 == s->width ? s->width : 0)};
            count = 0;
            for (int j = 0; j < 4; j++) {
                count += first_vote((near[j] + s->n_agents) % s->n_agents, s->n_options) == k;
            }
        } else if (s->network == RING) {
            count = 0;
            for (int64_t j = agent - REACH; j <= agent + REACH; j++) {
                count += j != agent && first_vote((j + s->n_agents) % s->n_agents, s->n_options) == k;
            }
        }
        shares[k] = (float)count / (float)(s->network == LATTICE ? 4
                                           : s->network == RING  ? 2 * REACH
                                                                 : s->n_agents - 1);
    }
    qr_neural_advance(net, base, shares, x, hidden, z);
    if (qr_plane_coins(SEED, group, 1, QR_STREAM_PLANE_NOISE, part->rule.noise) >> bit & 1u) {
        return qr_noise_option(&part->rule, agent, 1);
    }
    qr_draws draws;
    qr_draws_begin(&draws, SEED, (uint64_t)agent, 1, QR_STREAM_RULE);
    return qr_neural_vote(net, z, &draws, score);
}

/* One step from random states on both sides. Returns how many things differ; for the fast kernel, whether more than one
 * vote in a hundred does, or the tally is not that of the votes. */
static int64_t compare(const sizes *s, int fast)
{
    qr_neural net = make_network(s);
    qr_part part = make_part(s, &net, fast);
    size_t n_state = (size_t)s->n_agents * (size_t)s->state;
    float *start = (float *)malloc(n_state * sizeof(float));
    float *end = (float *)malloc(n_state * sizeof(float));
    uint8_t *votes = (uint8_t *)malloc((size_t)part.view);
    qr_control before;
    qr_control after;
    int64_t tally[QR_RULE_MAX_OPTIONS] = {0};
    uint64_t leader[QR_RULE_MAX_OPTIONS] = {0};
    float global[QR_RULE_MAX_OPTIONS];
    float base[QR_NEURAL_MAX_HIDDEN];
    uint64_t row_leader;
    int64_t wrong = 0;
    int64_t other_votes = 0;
    double furthest = 0.0;
    if (fast && part.fast_weights == 0) {
        free(start);
        free(end);
        free(votes);
        free_part(&part);
        free_network(&net);
        return 0;
    }
    for (int64_t i = 0; i < s->n_agents; i++) {
        qr_neural_initial(SEED, STATE_SCALE, net.state_dim, (uint64_t)i, start + i * s->state);
    }
    CHECK(cudaMemcpy(part.state, start, n_state * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(&before, part.control, sizeof before, cudaMemcpyDeviceToHost));
    qr_launch_neural(&part, 0);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(end, part.state, n_state * sizeof(float), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(votes, part.packed[1], (size_t)part.view, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&after, part.control, sizeof after, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&row_leader, part.row_leaders, sizeof row_leader, cudaMemcpyDeviceToHost));
    for (int k = 0; k < s->n_options; k++) {
        global[k] = (float)before.votes[k] / (float)s->n_agents;
    }
    qr_neural_global(&net, global, base);
    int best = 0;
    for (int64_t i = 0; i < s->n_agents; i++) {
        uint32_t score;
        uint32_t vote = advance(s, &part, &net, before.votes, base, i, start + i * s->state, &score);
        uint64_t packed = qr_leader_pack(score, i);
        if (fast) {
            other_votes += qr_packed_vote(votes, part.packing, part.before + i) != vote;
            for (int64_t d = i * s->state; d < (i + 1) * s->state; d++) {
                furthest = fmax(furthest, fabs((double)start[d] - (double)end[d]));
            }
            tally[qr_packed_vote(votes, part.packing, part.before + i)]++;
            continue;
        }
        wrong += qr_packed_vote(votes, part.packing, part.before + i) != vote;
        wrong += memcmp(start + i * s->state, end + i * s->state, (size_t)s->state * sizeof(float)) != 0;
        tally[vote]++;
        leader[vote] = packed > leader[vote] ? packed : leader[vote];
    }
    for (int k = 0; k < s->n_options; k++) {
        wrong += after.votes[k] != tally[k];
        best = tally[k] > tally[best] ? k : best;
    }
    wrong += (!fast && row_leader != leader[best]) || after.step != 1;
    if (fast) {
        wrong += other_votes > s->n_agents / 100 || !(furthest < 0.05);
        printf("fast: states up to %.2e apart, %lld other votes; ", furthest, (long long)other_votes);
    }
    printf("D %4d  H %4d  K %3d  %-8s %6lld agents: %lld differ\n", s->state, s->hidden, s->n_options,
           network_names[s->network], (long long)s->n_agents, (long long)wrong);
    free(start);
    free(end);
    free(votes);
    free_part(&part);
    free_network(&net);
    return wrong;
}

static __global__ void tanh_of(uint32_t first, float *out)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = qr_tanhf(qr_float_from_bits(first + i));
}

/* Floats whose tanh has other bits on the device; not-a-number equals itself. */
static int64_t compare_tanh(void)
{
    const uint32_t at_once = 1u << 24;
    float *device;
    float *out = (float *)malloc(at_once * sizeof(float));
    int64_t wrong = 0;
    CHECK(cudaMalloc((void **)&device, at_once * sizeof(float)));
    for (uint32_t part = 0; part < 256; part++) {
        tanh_of<<<at_once / 256, 256>>>(part * at_once, device);
        CHECK(cudaMemcpy(out, device, at_once * sizeof(float), cudaMemcpyDeviceToHost));
        for (uint32_t i = 0; i < at_once; i++) {
            float here = qr_tanhf(qr_float_from_bits(part * at_once + i));
            wrong += qr_float_bits(out[i]) != qr_float_bits(here) && !(out[i] != out[i] && here != here);
        }
    }
    CHECK(cudaFree(device));
    free(out);
    printf("tanh: %lld of 2^32 differ\n", (long long)wrong);
    return wrong;
}

static void time_steps(const sizes *s, int fast)
{
    qr_neural net = make_network(s);
    qr_part part = make_part(s, &net, fast);
    double fmas = (double)s->hidden * (s->state + s->n_options) + (double)s->state * (s->hidden + s->n_options);
    cudaEvent_t begin;
    cudaEvent_t end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    for (int round = 0; round < ROUNDS; round++) {
        float ms;
        CHECK(cudaEventRecord(begin));
        for (int step = 0; step < STEPS; step++) {
            qr_launch_neural(&part, 0);
        }
        CHECK(cudaEventRecord(end));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&ms, begin, end));
        double rate = (double)s->n_agents * STEPS / (ms * 1e-3);
        printf("%s, %s, D %d  H %d  K %d, %lld agents: %.3f G agent-steps/s, %.2f TFMA/s, %.0f GB/s of states\n",
               part.fast_weights != 0 ? "fast" : "exact", network_names[s->network], s->state, s->hidden, s->n_options,
               (long long)s->n_agents, rate * 1e-9, rate * fmas * 1e-12, rate * s->state * 8e-9);
    }
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    free_part(&part);
    free_network(&net);
}

int main(int argc, char **argv)
{
    static const sizes cases[] = {
        {64, 64, 5, 0, 20001, 1, 0, 1.5f},
        {64, 64, 5, 1, 20001, 0.7, 0.1, 1.5f},
        {64, 64, 5, LATTICE, 20000, 0.7, 0.1, 1.5f, 100},
        {64, 64, 9, LATTICE, 4000, 1, 0, 1.5f, 20},
        {64, 64, 2, 1, 5000, 1, 0, 0},
        {64, 64, 64, 1, 3000, 1, 0.1, 1.5f},
        {64, 64, 256, 0, 3000, 1, 0, 1.5f},
        {1, 1, 4, 1, 1000, 1, 0, 1},
        {20, 37, 3, 1, 3000, 0.9, 0.1, 2},
        {5, 200, 9, 0, 3000, 1, 0, 2},
        {128, 128, 5, 1, 3000, 1, 0, 2},
        {130, 131, 5, 1, 3000, 1, 0.1, 2},
        {256, 256, 5, 1, 1000, 1, 0, 2},
        {500, 1000, 7, 0, 300, 1, 0, 1},
        {1000, 1111, 256, 1, 130, 0.9, 0.1, 0.3},
        {1024, 4096, 256, 1, 70, 1, 0, 0.3},
    };
    sizes timed = {64, 64, 5, 0, 10000000, 1, 0, 1.5f};
    int64_t wrong = 0;
    if (argc == 6) {
        timed.state = (int)strtol(argv[2], NULL, 10);
        timed.hidden = (int)strtol(argv[3], NULL, 10);
        timed.n_options = (int)strtol(argv[4], NULL, 10);
        timed.n_agents = strtoll(argv[5], NULL, 10);
    } else {
        const bool quick = argc == 2;
        const size_t n_cases = quick ? 4 : sizeof cases / sizeof cases[0];
        for (size_t c = 0; c < n_cases; c++) {
            wrong += compare(&cases[c], 0);
            wrong += compare(&cases[c], 1);
        }
        wrong += quick ? 0 : compare_tanh();
    }
    time_steps(&timed, 0);
    time_steps(&timed, 1);
    timed.network = LATTICE;
    timed.width = 4000;
    timed.n_agents = timed.n_agents / timed.width * timed.width;
    time_steps(&timed, 0);
    time_steps(&timed, 1);
    return wrong != 0;
}
