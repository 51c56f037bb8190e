/* Bit planes: 64 agents a machine word, for voter (degree a power of two), majority (all neighbours) and
 * Potts (two options) on periodic lattices and rings. The plain form; rows that lie inside whole words go through the
 * wide kernels in simd/. */
#include "backend/cpu/cpu.h"

#include "backend/layout.h"
#include "rules/majority.h"
#include "rules/potts.h"
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
    return qr_layout_has_planes(model, spec, n_planes);
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

/* qr_cpu_word_at for any position: bits outside the view's words, which no agent needs, are 0. */
static uint64_t word_near(const uint64_t *plane, int64_t view, int64_t position)
{
    if (position < 0) {
        return position > -64 ? qr_cpu_load(plane) << -position : 0;
    }
    return position / 64 <= view / 64 ? qr_cpu_word_at(plane, position) : 0;
}

/* The votes of the neighbours at one offset of the 64 agents from view position `position`. */
static uint64_t neighbour_word(const uint64_t *plane, int64_t position, const qr_lattice_offset *offset,
                               const qr_network *network, const borders *at)
{
    const qr_network_spec *spec = &network->spec;
    int64_t view = network->view;
    int64_t width = spec->size[0];
    int64_t area = spec->size[0] * spec->size[1];
    uint64_t x_out = offset->dx < 0 ? at->x_first : offset->dx > 0 ? at->x_last : 0;
    uint64_t y_out = offset->dy < 0 ? at->y_first : offset->dy > 0 ? at->y_last : 0;
    uint64_t word = word_near(plane, view, position + offset->distance);
    if (x_out != 0) {
        word ^= (word ^ word_near(plane, view, position + offset->distance - offset->dx * width)) & x_out;
    }
    if (y_out != 0) {
        uint64_t other = word_near(plane, view, position + offset->distance - offset->dy * area);
        word ^= (word ^ other) & y_out & ~x_out;
        if ((x_out & y_out) != 0) {
            other = word_near(plane, view, position + offset->distance - offset->dx * width - offset->dy * area);
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
    uint64_t choice[QR_RULE_MAX_CHOICE_PLANES] = {0};
    qr_cpu_draw_choice_planes(rule, group, step, choice);
    uint64_t next[QR_CPU_MAX_PLANES];
    uint64_t own[QR_CPU_MAX_PLANES];
    uint64_t neighbour[QR_CPU_MAX_PLANES * QR_CPU_MAX_WORD_DEGREE];
    for (int p = 0; p < backend->n_planes; p++) {
        const uint64_t *plane = backend->planes[backend->current][p];
        uint64_t *near = neighbour + p * backend->n_offsets;
        own[p] = plane[position / 64];
        for (int j = 0; j < backend->n_offsets; j++) {
            near[j] = neighbour_word(plane, position, &backend->offsets[j], network, &at);
        }
        if (model->kind == QR_RULE_VOTER) {
            next[p] = qr_voter_word(near, choice, rule->choice_planes);
        }
    }
    if (model->kind == QR_RULE_MAJORITY && backend->n_planes == 1) {
        next[0] = qr_majority_word(neighbour, (uint32_t)backend->n_offsets, own[0]);
    } else if (model->kind == QR_RULE_MAJORITY) {
        qr_majority_options_word(neighbour, (uint32_t)backend->n_offsets, own, (uint32_t)backend->n_planes,
                                 rule->n_options, next);
    }
    for (int p = 0; p < backend->n_planes; p++) {
        next[p] = own[p] ^ ((own[p] ^ next[p]) & active & ~frozen);
    }
    apply_noise(rule, noisy & active & ~frozen & valid, agent, step, backend->n_planes, next);
    for (int p = 0; p < backend->n_planes; p++) {
        backend->planes[1 - backend->current][p][position / 64] = next[p];
    }
    tally_word(next, backend->n_planes, rule->n_options, valid, agent, tally);
}

/* How far behind and ahead of an agent a neighbour's vote can lie in the view, borders counted. */
static void find_reach(const qr_backend *backend, int64_t *back, int64_t *ahead)
{
    const qr_network_spec *spec = &backend->network->spec;
    int64_t width = spec->dims > 1 ? spec->size[0] : 0;
    int64_t area = spec->dims > 2 ? spec->size[0] * spec->size[1] : 0;
    *back = 0;
    *ahead = 0;
    for (int j = 0; j < backend->n_offsets; j++) {
        const qr_lattice_offset *offset = &backend->offsets[j];
        for (int wraps = 0; wraps < 4; wraps++) {
            int64_t distance = offset->distance - ((wraps & 1) != 0 ? offset->dx * width : 0) -
                               ((wraps & 2) != 0 ? offset->dy * area : 0);
            *back = -distance > *back ? -distance : *back;
            *ahead = distance > *ahead ? distance : *ahead;
        }
    }
}

/* True when rows of the lattice are whole vectors, which have a faster kernel. */
static bool rows_are_vectors(const qr_backend *backend)
{
    const qr_network_spec *spec = &backend->network->spec;
    return spec->dims == 2 && backend->n_planes == 1 && spec->size[0] % (64 * backend->simd->words) == 0;
}

/* Words [*from, *to) of the block that can go through the wide kernel: every word that it may read is there. By rows,
 * that holds for all words, but they must begin where vectors of a row do. */
static void find_wide_words(const qr_backend *backend, qr_cpu_range block, int64_t *from, int64_t *to)
{
    const qr_network *network = backend->network;
    int64_t begin = block.begin / 64;
    int64_t end = block.end / 64;
    *from = *to = begin;
    if (backend->simd == NULL) {
        return;
    }
    int64_t words = backend->simd->words;
    if (rows_are_vectors(backend)) {
        int64_t first = network->own.first / 64;
        begin = (first + begin + words - 1) / words * words - first;
    } else {
        int64_t back = 0;
        int64_t ahead = 0;
        find_reach(backend, &back, &ahead);
        int64_t first = (back - network->before + 63) / 64; /* agents from here on reach back to position 0 at most */
        int64_t last = (network->view - ahead - network->before) / 64;
        begin = first > begin ? first : begin;
        end = last < end ? last : end;
    }
    uint64_t first_group = (uint64_t)network->own.first / 64 + (uint64_t)block.begin / 64;
    uint64_t last_group = (uint64_t)network->own.first / 64 + (uint64_t)block.end / 64;
    if (end - begin >= words && first_group >> 32 == last_group >> 32) {
        *from = begin;
        *to = begin + (end - begin) / words * words;
    }
}

/* Notes the first voter of each option that has some among the words and no leader yet. */
static void note_leaders(const qr_backend *backend, uint64_t *const *next, int64_t from, int64_t to,
                         const int64_t *counts, qr_tally *tally)
{
    const qr_network *network = backend->network;
    for (uint32_t k = 0; k < backend->model->rule.n_options; k++) {
        for (int64_t i = from; i < to && counts[k] > 0 && tally->leader[k] == 0; i++) {
            uint64_t voters = ~(uint64_t)0;
            for (int p = 0; p < backend->n_planes; p++) {
                uint64_t votes = next[p][network->before / 64 + i];
                voters &= (k >> p & 1u) != 0 ? votes : ~votes;
            }
            if (voters != 0) {
                tally->leader[k] = qr_leader_pack(0, network->own.first + 64 * i + __builtin_ctzll(voters));
            }
        }
    }
}

static void update_wide(qr_backend *backend, int64_t from, int64_t to, int64_t step, qr_tally *tally)
{
    const qr_network *network = backend->network;
    qr_plane_task task = {.rule = &backend->model->rule,
                          .voter = backend->model->kind == QR_RULE_VOTER,
                          .dims = network->spec.dims,
                          .size = {network->spec.size[0], network->spec.size[1]},
                          .rows = rows_are_vectors(backend),
                          .n_planes = backend->n_planes,
                          .n_offsets = backend->n_offsets,
                          .offsets = backend->offsets,
                          .frozen = backend->frozen != NULL ? backend->frozen + from : NULL,
                          .first_word = network->before / 64 + from,
                          .first_agent = network->own.first + 64 * from,
                          .n_words = to - from,
                          .step = step};
    for (int p = 0; p < backend->n_planes; p++) {
        task.current[p] = backend->planes[backend->current][p];
        task.next[p] = backend->planes[1 - backend->current][p];
    }
    int64_t counts[QR_SIMD_MAX_OPTIONS];
    backend->simd->planes(&task, counts);
    note_leaders(backend, backend->planes[1 - backend->current], from, to, counts, tally);
    for (uint32_t k = 0; k < backend->model->rule.n_options; k++) {
        tally->votes[k] += counts[k];
    }
}

void qr_cpu_planes_block(qr_backend *backend, qr_cpu_range block, int64_t step, qr_tally *tally)
{
    int64_t from = 0;
    int64_t to = 0;
    find_wide_words(backend, block, &from, &to);
    for (int64_t i = block.begin; i < 64 * from; i += 64) {
        update_word(backend, i, bit_range(0, block.end - i), step, tally);
    }
    if (from < to) {
        update_wide(backend, from, to, step, tally);
    }
    for (int64_t i = 64 * to; i < block.end; i += 64) {
        update_word(backend, i, bit_range(0, block.end - i), step, tally);
    }
}

/* Votes of a word of agents after the turn of those `moving`. */
static uint64_t potts_word(const qr_backend *backend, const uint64_t *neighbour, int64_t agent, int64_t step,
                           int colour, uint64_t own, uint64_t moving)
{
    const qr_rule *rule = &backend->model->rule;
    const uint32_t degree = (uint32_t)backend->n_offsets;
    const uint64_t word = (uint64_t)agent / 64;
    const int32_t n_colours = backend->lattice.n_colours;
    uint64_t planes[2] = {0, 0};
    qr_potts_turn turn;
    qr_potts_begin(rule->metropolis, neighbour, degree, own, moving, &turn);
    for (uint32_t p = 0; p < QR_POTTS_PLANES && turn.open != 0; p++) {
        if (p % 2 == 0) {
            qr_planes(rule->seed, qr_potts_group(n_colours, word), (uint64_t)step, QR_STREAM_PLANE_RULE,
                      (uint32_t)colour * QR_POTTS_TURN_PAIRS + p / 2, planes);
        }
        qr_potts_compare(rule, degree, p, qr_potts_bits(n_colours, word, planes[p % 2]), &turn);
    }
    return qr_potts_end(&turn, own, moving);
}

/* Words of the range one by one. Bits of the last word that are no own agents are votes of others, and stay. */
static void sweep_words(qr_backend *backend, qr_cpu_range block, int64_t step, int colour, qr_tally *tally)
{
    const qr_network *network = backend->network;
    const bool last = colour + 1 == backend->lattice.n_colours;
    uint64_t *plane = backend->planes[0][0];
    for (int64_t i = block.begin; i < block.end; i += 64) {
        int64_t agent = network->own.first + i;
        int64_t position = network->before + i;
        uint64_t valid = bit_range(0, block.end - i);
        uint64_t moving = valid & qr_lattice_colour_word(&backend->lattice, agent, colour);
        uint64_t votes = qr_cpu_load(plane + position / 64);
        if (moving != 0) {
            uint64_t neighbour[QR_CPU_MAX_WORD_DEGREE];
            borders at = find_borders(&network->spec, agent);
            for (int j = 0; j < backend->n_offsets; j++) {
                neighbour[j] = neighbour_word(plane, position, &backend->offsets[j], network, &at);
            }
            votes = potts_word(backend, neighbour, agent, step, colour, votes, moving);
            __atomic_store_n(plane + position / 64, votes, __ATOMIC_RELAXED);
        }
        if (last) {
            tally_word(&votes, 1, 2, valid, agent, tally);
        }
    }
}

/* Words [*from, *to) of the block that can go through the wide kernel. */
static void find_wide_sweep(const qr_backend *backend, qr_cpu_range block, int64_t *from, int64_t *to)
{
    const qr_lattice *lattice = &backend->lattice;
    *from = *to = block.begin / 64;
    if (backend->simd == NULL || lattice->dims != 2 || lattice->moore || lattice->n_colours != 2) {
        return;
    }
    const int64_t piece = 2 * backend->simd->words;
    const int64_t first = backend->network->own.first / 64;
    const int64_t begin = (first + block.begin / 64 + piece - 1) / piece * piece - first;
    const int64_t words = (block.end / 64 - begin) / piece * piece;
    const uint64_t last_group = (uint64_t)(first + block.end / 64) / 2;
    if (lattice->size[0] % (64 * piece) == 0 && words > 0 && (uint64_t)first / 2 >> 32 == last_group >> 32) {
        *from = begin;
        *to = begin + words;
    }
}

static void sweep_wide(qr_backend *backend, int64_t from, int64_t to, int64_t step, int colour, qr_tally *tally)
{
    const qr_network *network = backend->network;
    const qr_sweep_task task = {.rule = &backend->model->rule,
                                .width = network->spec.size[0],
                                .plane = backend->planes[0][0],
                                .first_word = network->before / 64 + from,
                                .first_agent = network->own.first + 64 * from,
                                .n_words = to - from,
                                .step = step,
                                .colour = colour,
                                .counts = colour + 1 == backend->lattice.n_colours};
    const int64_t ones = backend->simd->sweep(&task);
    if (task.counts) {
        const int64_t counts[2] = {64 * task.n_words - ones, ones};
        note_leaders(backend, backend->planes[0], from, to, counts, tally);
        tally->votes[0] += counts[0];
        tally->votes[1] += counts[1];
    }
}

/* In place: nobody who moves sees anybody else who does. */
void qr_cpu_sweep_block(qr_backend *backend, qr_cpu_range block, int64_t step, int colour, qr_tally *tally)
{
    int64_t from = 0;
    int64_t to = 0;
    find_wide_sweep(backend, block, &from, &to);
    sweep_words(backend, (qr_cpu_range){block.begin, 64 * from}, step, colour, tally);
    if (from < to) {
        sweep_wide(backend, from, to, step, colour, tally);
    }
    sweep_words(backend, (qr_cpu_range){64 * to, block.end}, step, colour, tally);
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
