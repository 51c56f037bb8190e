/* Bit planes: 64 agents a machine word, for voter (degree a power of two) and majority (two options, all neighbours) on
 * periodic lattices and rings. The plain form; rows that lie inside whole words go through the wide kernels in simd/.
 */
#include "backend/cpu/cpu.h"

#include "rules/majority.h"
#include "rules/voter.h"

#include <string.h>

/* Which agents of a word stand at a border, where a neighbour's distance is another one. */
typedef struct borders {
    uint64_t x_first;
    uint64_t x_last;
    uint64_t y_first; /* three dimensions only */
    uint64_t y_last;
} borders;

bool qr_cpu_uses_planes(const qr_model *model, const qr_network_spec *spec, int *n_planes)
{
    if (!qr_network_is_lattice(spec->kind) || !spec->periodic) {
        return false;
    }
    int64_t degree = spec->dims == 1 ? spec->degree : qr_lattice_degree(spec);
    for (int d = 0; d < spec->dims; d++) {
        if (spec->size[d] < 3) {
            return false;
        }
    }
    if (degree > QR_CPU_MAX_WORD_DEGREE || (spec->dims == 1 && spec->n_agents <= degree)) {
        return false;
    }
    int planes = 1;
    while (1u << planes < model->rule.n_options) {
        planes++;
    }
    *n_planes = planes;
    if (model->kind == QR_RULE_VOTER) {
        return model->rule.choice_planes > 0 && planes <= QR_CPU_MAX_PLANES;
    }
    return model->kind == QR_RULE_MAJORITY && model->rule.samples == 0 && model->rule.n_options == 2;
}

/* Bits [from, to) of a word. */
static uint64_t bit_range(int64_t from, int64_t to)
{
    uint64_t high = to >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << to) - 1;
    return high & ~(((uint64_t)1 << from) - 1);
}

static borders find_borders(const qr_network_spec *spec, int64_t agent)
{
    borders at = {0, 0, 0, 0};
    if (spec->dims == 1) {
        return at;
    }
    int64_t width = spec->size[0];
    int64_t x = agent % width;
    int64_t y = agent / width % spec->size[1];
    for (int64_t bit = 0; bit < 64;) {
        int64_t row_end = bit + width - x; /* first bit of the next row */
        if (x == 0) {
            at.x_first |= (uint64_t)1 << bit;
        }
        if (row_end <= 64) {
            at.x_last |= (uint64_t)1 << (row_end - 1);
        }
        if (spec->dims == 3 && y == 0) {
            at.y_first |= bit_range(bit, row_end);
        }
        if (spec->dims == 3 && y == spec->size[1] - 1) {
            at.y_last |= bit_range(bit, row_end);
        }
        bit = row_end;
        x = 0;
        y = y + 1 == spec->size[1] ? 0 : y + 1;
    }
    return at;
}

/* The votes of the neighbours at one offset of the 64 agents from view position `position`. */
static uint64_t neighbour_word(const uint64_t *plane, int64_t position, const qr_cpu_offset *offset,
                               const qr_network_spec *spec, const borders *at)
{
    int64_t width = spec->size[0];
    int64_t area = spec->size[0] * spec->size[1];
    uint64_t x_out = offset->dx < 0 ? at->x_first : offset->dx > 0 ? at->x_last : 0;
    uint64_t y_out = offset->dy < 0 ? at->y_first : offset->dy > 0 ? at->y_last : 0;
    uint64_t word = qr_cpu_word_at(plane, position + offset->distance);
    if (x_out != 0) {
        word ^= (word ^ qr_cpu_word_at(plane, position + offset->distance - offset->dx * width)) & x_out;
    }
    if (y_out != 0) {
        uint64_t other = qr_cpu_word_at(plane, position + offset->distance - offset->dy * area);
        word ^= (word ^ other) & y_out & ~x_out;
        if ((x_out & y_out) != 0) {
            other = qr_cpu_word_at(plane, position + offset->distance - offset->dx * width - offset->dy * area);
            word ^= (word ^ other) & y_out & x_out;
        }
    }
    return word;
}

/* Noisy agents, one by one: their random option comes from their own draws. */
static void apply_noise(const qr_rule *rule, uint64_t noisy, int64_t agent, int64_t step, int n_planes, uint64_t *next)
{
    for (; noisy != 0; noisy &= noisy - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(noisy);
        uint64_t option = qr_noise_option(rule, agent + (int64_t)bit, step);
        for (int p = 0; p < n_planes; p++) {
            next[p] = (next[p] & ~((uint64_t)1 << bit)) | (option >> p & 1u) << bit;
        }
    }
}

/* Counts the agents of `valid` by option and notes the first of each as leader while there is none. */
static void tally_word(const uint64_t *word, int n_planes, uint32_t n_options, uint64_t valid, int64_t agent,
                       qr_tally *tally)
{
    for (uint32_t k = 0; k < n_options; k++) {
        uint64_t voters = valid;
        for (int p = 0; p < n_planes; p++) {
            voters &= (k >> p & 1u) != 0 ? word[p] : ~word[p];
        }
        tally->votes[k] += __builtin_popcountll(voters);
        if (voters != 0 && tally->leader[k] == 0) {
            tally->leader[k] = qr_leader_pack(0, agent + __builtin_ctzll(voters));
        }
    }
}

static void update_word(qr_backend *backend, int64_t index, uint64_t valid, int64_t step, qr_tally *tally)
{
    const qr_model *model = backend->model;
    const qr_rule *rule = &model->rule;
    const qr_network *network = backend->network;
    int64_t agent = network->own.first + index;
    int64_t position = network->before + index;
    uint64_t group = (uint64_t)agent / 64;
    borders at = find_borders(&network->spec, agent);
    uint64_t active = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_ACTIVATION, rule->activation);
    uint64_t noisy = qr_plane_coins(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_NOISE, rule->noise);
    uint64_t frozen = backend->frozen != NULL ? backend->frozen[index / 64] : 0;
    uint64_t choice[8] = {0};
    if (model->kind == QR_RULE_VOTER) {
        for (uint32_t pair = 0; 2 * pair < rule->choice_planes; pair++) {
            qr_planes(rule->seed, group, (uint64_t)step, QR_STREAM_PLANE_RULE, pair, choice + 2 * (size_t)pair);
        }
    }
    uint64_t next[QR_CPU_MAX_PLANES];
    for (int p = 0; p < backend->n_planes; p++) {
        const uint64_t *plane = backend->planes[backend->current][p];
        uint64_t own = plane[position / 64];
        uint64_t neighbour[QR_CPU_MAX_WORD_DEGREE];
        for (int j = 0; j < backend->n_offsets; j++) {
            neighbour[j] = neighbour_word(plane, position, &backend->offsets[j], &network->spec, &at);
        }
        uint64_t candidate = model->kind == QR_RULE_VOTER
                                 ? qr_voter_word(neighbour, choice, rule->choice_planes)
                                 : qr_majority_word(neighbour, (uint32_t)backend->n_offsets, own);
        next[p] = own ^ ((own ^ candidate) & active & ~frozen);
    }
    apply_noise(rule, noisy & active & ~frozen & valid, agent, step, backend->n_planes, next);
    for (int p = 0; p < backend->n_planes; p++) {
        backend->planes[1 - backend->current][p][position / 64] = next[p];
    }
    tally_word(next, backend->n_planes, rule->n_options, valid, agent, tally);
}

void qr_cpu_planes_block(qr_backend *backend, qr_cpu_range block, int64_t step, qr_tally *tally)
{
    for (int64_t i = block.begin; i < block.end; i += 64) {
        update_word(backend, i, bit_range(0, block.end - i), step, tally);
    }
}

void qr_cpu_planes_count(const qr_backend *backend, qr_cpu_range block, qr_tally *tally)
{
    const qr_network *network = backend->network;
    for (int64_t i = block.begin; i < block.end; i += 64) {
        uint64_t word[QR_CPU_MAX_PLANES];
        for (int p = 0; p < backend->n_planes; p++) {
            word[p] = backend->planes[backend->current][p][(network->before + i) / 64];
        }
        tally_word(word, backend->n_planes, backend->model->rule.n_options, bit_range(0, block.end - i),
                   network->own.first + i, tally);
    }
}
