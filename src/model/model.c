#include "model/model.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const qr_rule_info rules[QR_N_RULES] = {
#define QR_RULE(identifier, name, parameters, summary, reference) {name, parameters, summary, reference},
#include "rules/rule_list.h"
#undef QR_RULE
};

const qr_rule_info *qr_rule_info_of(qr_rule_kind kind)
{
    return &rules[kind];
}

void qr_model_print_all(FILE *out)
{
    for (int i = 0; i < QR_N_RULES; i++) {
        (void)fprintf(out, "%s\n  %s\n", rules[i].name, rules[i].summary);
        (void)fprintf(out, "  parameters: %s%s\n", rules[i].parameters[0] != '\0' ? rules[i].parameters : "none",
                      i == QR_RULE_POTTS ? "" : "; run.activation, noise, zealots");
        if (i == QR_RULE_POTTS) {
            (void)fprintf(out, "  networks:   all but complete and directed ones; a step is a sweep over all agents, "
                               "neighbours one after the other\n");
        }
        (void)fprintf(out, "  reference:  %s\n", rules[i].reference);
    }
}

static bool names_parameter(const char *parameters, const char *key)
{
    size_t n = strlen(key);
    for (const char *at = strstr(parameters, key); at != NULL; at = strstr(at + 1, key)) {
        bool begins = at == parameters || at[-1] == ' ';
        bool ends = at[n] == '\0' || at[n] == ' ';
        if (begins && ends) {
            return true;
        }
    }
    return false;
}

/* A parameter of another rule would be without effect: say so instead of ignoring it. */
static qr_status check_foreign_keys(const qr_deck *deck, qr_rule_kind kind)
{
    static const char *const keys[] = {"qualities", "samples", "q",  "epsilon", "temperature",  "dynamics",
                                       "state_dim", "hidden",  "dt", "weights", "weight_scale", "state_scale"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char full[64];
        (void)snprintf(full, sizeof full, "model.%s", keys[i]);
        if (!qr_deck_is_default(deck, full) && !names_parameter(rules[kind].parameters, keys[i])) {
            return qr_deck_complain(deck, full, "the rule %s has no such parameter (it has: %s)", rules[kind].name,
                                    rules[kind].parameters[0] != '\0' ? rules[kind].parameters : "none");
        }
    }
    return QR_OK;
}

static qr_status find_rule(const qr_deck *deck, qr_rule_kind *out)
{
    const char *names[QR_N_RULES];
    for (int i = 0; i < QR_N_RULES; i++) {
        names[i] = rules[i].name;
        if (strcmp(deck->model.rule, rules[i].name) == 0) {
            *out = (qr_rule_kind)i;
            return QR_OK;
        }
    }
    const char *nearest = qr_nearest_name(deck->model.rule, names, QR_N_RULES);
    if (nearest != NULL) {
        return qr_deck_complain(deck, "model.rule", "no rule '%s'; did you mean %s?", deck->model.rule, nearest);
    }
    return qr_deck_complain(deck, "model.rule", "no rule '%s'; `quorate models` lists them", deck->model.rule);
}

static qr_status check_probability(const qr_deck *deck, const char *key, double p)
{
    if (p > 0.0 && qr_threshold32(p) == 0) {
        return qr_deck_complain(deck, key,
                                "%g would count as 0, for probabilities are multiples of 2^-32; the least above 0 is "
                                "%.3g",
                                p, 0x1p-32);
    }
    return QR_OK;
}

static qr_status check_zealots(const qr_deck *deck, int64_t n_agents)
{
    int64_t sum = 0;
    for (int64_t k = 0; k < deck->model.zealots.n; k++) {
        sum += deck->model.zealots.values[k]; /* 256 times 10^12 at most */
    }
    if (sum > n_agents) {
        return qr_deck_complain(deck, "model.zealots", "%lld zealots in all, but there are only %lld agents",
                                (long long)sum, (long long)n_agents);
    }
    return QR_OK;
}

qr_status qr_model_check(const qr_deck *deck, qr_rule_kind *out)
{
    qr_rule_kind kind = QR_RULE_VOTER;
    qr_status status = find_rule(deck, &kind);
    if (status == QR_OK) {
        status = check_foreign_keys(deck, kind);
    }
    if (status == QR_OK) {
        status = check_probability(deck, "run.activation", deck->run.activation);
    }
    if (status == QR_OK) {
        status = check_probability(deck, "model.noise", deck->model.noise);
    }
    if (status == QR_OK) {
        status = check_probability(deck, "model.epsilon", deck->model.epsilon);
    }
    if (status == QR_OK && deck->agents.count > 0) {
        status = check_zealots(deck, deck->agents.count);
    }
    if (status != QR_OK) {
        return status;
    }
    if (kind == QR_RULE_BEST_OF_N && deck->model.qualities.n == 0) {
        return qr_deck_complain(deck, "model.qualities", "best_of_n needs a quality for each of the %lld options",
                                (long long)deck->agents.options);
    }
    if (kind == QR_RULE_POTTS) {
        if (!(deck->model.temperature > 0.0)) {
            return qr_deck_complain(deck, "model.temperature", "potts needs a temperature above 0");
        }
        if (deck->run.activation != 1.0) {
            return qr_deck_complain(deck, "run.activation",
                                    "potts sweeps every agent once a step; activation must be 1");
        }
        if (deck->model.noise != 0.0) {
            return qr_deck_complain(deck, "model.noise", "potts has its own noise, the temperature; noise must be 0");
        }
        for (int64_t k = 0; k < deck->model.zealots.n; k++) {
            if (deck->model.zealots.values[k] != 0) {
                return qr_deck_complain(deck, "model.zealots", "potts has no zealots");
            }
        }
        if (deck->network.kind == QR_NETWORK_COMPLETE) {
            return qr_deck_complain(deck, "network.kind",
                                    "potts moves agents together only where none sees another; on a complete network "
                                    "they would move one by one; use any other kind");
        }
        if (deck->network.kind == QR_NETWORK_EDGE_LIST && deck->network.directed) {
            return qr_deck_complain(deck, "network.directed",
                                    "potts has an energy for each pair of neighbours, so both must see each other; "
                                    "set it to false");
        }
    }
    *out = kind;
    return QR_OK;
}

bool qr_model_sweeps(const qr_deck *deck)
{
    return strcmp(deck->model.rule, rules[QR_RULE_POTTS].name) == 0;
}

int64_t qr_model_weight_count(const qr_deck *deck)
{
    if (strcmp(deck->model.rule, rules[QR_RULE_NEURAL].name) != 0) {
        return 0;
    }
    int64_t d = deck->model.state_dim;
    int64_t h = deck->model.hidden;
    int64_t k = deck->agents.options;
    return h * (2 * k + d) + h + d * h + d + k * d + k;
}

/* Uniform with standard deviation scale / sqrt(columns), so that a unit's input does not grow with its fan-in. */
static void seed_matrix(float *out, int64_t rows, int64_t columns, float scale, qr_draws *draws)
{
    float width = scale * sqrtf(3.0f / (float)columns);
    for (int64_t i = 0; i < rows * columns; i++) {
        if (draws->next == QR_DRAWS_MAX) { /* numbers would come again: go on with those of the next "agent" */
            qr_draws_begin(draws, draws->key, draws->agent + 1, 0, QR_STREAM_WEIGHTS);
        }
        out[i] = width * qr_signed_unit(qr_draws_next32(draws));
    }
}

static qr_status create_neural(const qr_deck *deck, const float *weights, qr_model *model)
{
    int64_t d = deck->model.state_dim;
    int64_t h = deck->model.hidden;
    int64_t k = deck->agents.options;
    int64_t count = qr_model_weight_count(deck);
    qr_status status = qr_allocate((size_t)count, sizeof(float), "neural weights", (void **)&model->weights);
    if (status != QR_OK) {
        return status;
    }
    float *w1 = model->weights;
    float *b1 = w1 + h * (2 * k + d);
    float *w2 = b1 + h;
    float *b2 = w2 + d * h;
    float *wv = b2 + d;
    float *bv = wv + k * d;
    if (weights != NULL) {
        memcpy(model->weights, weights, (size_t)count * sizeof(float));
    } else {
        float scale = (float)deck->model.weight_scale;
        qr_draws draws;
        qr_draws_begin(&draws, model->rule.seed, 0, 0, QR_STREAM_WEIGHTS);
        seed_matrix(w1, h, 2 * k + d, scale, &draws);
        seed_matrix(w2, d, h, scale, &draws);
        seed_matrix(wv, k, d, scale, &draws);
    }
    model->state_dim = d;
    model->state_scale = (float)deck->model.state_scale;
    model->neural =
        (qr_neural){.state_dim = (uint32_t)d,
                    .hidden = (uint32_t)h,
                    .n_options = (uint32_t)k,
                    .dt = (float)deck->model.dt,
                    .inverse_temperature = deck->model.temperature > 0.0 ? 1.0f / (float)deck->model.temperature : 0.0f,
                    .w1 = w1,
                    .b1 = b1,
                    .w2 = w2,
                    .b2 = b2,
                    .wv = wv,
                    .bv = bv};
    return QR_OK;
}

/* Two options: how likely agents of this many neighbours are to vote with the fewer of these. */
static void set_against(int64_t degree, float beta, qr_rule *rule)
{
    for (int64_t m = 0; m < QR_RULE_MAX_MINORITIES && 2 * m < degree; m++) {
        double weight = (double)qr_expf(-(float)(degree - 2 * m) * beta);
        double p = rule->metropolis != 0 ? weight : weight / (1.0 + weight);
        uint64_t threshold = qr_threshold32(p);
        rule->against[m] = threshold >> 32 != 0 ? UINT32_MAX : (uint32_t)threshold;
    }
}

/* Weights from our own expf, so that the table is the same on every machine. */
static qr_status create_boltzmann(const qr_deck *deck, int64_t max_degree, qr_model *model)
{
    qr_status status =
        qr_allocate((size_t)max_degree + 1, sizeof(uint64_t), "Boltzmann weights", (void **)&model->boltzmann);
    if (status != QR_OK) {
        return status;
    }
    float beta = 1.0f / (float)deck->model.temperature;
    for (int64_t j = 0; j <= max_degree; j++) {
        float exponent = j == 0 ? 0.0f : -(float)j * beta; /* 0 times an infinite beta would be no number */
        model->boltzmann[j] = (uint64_t)(qr_expf(exponent) * 0x1p40f);
    }
    model->rule.boltzmann = model->boltzmann;
    model->rule.boltzmann_last = max_degree;
    if (model->rule.n_options == 2) {
        set_against(max_degree, beta, &model->rule);
    }
    return QR_OK;
}

static void set_rule(const qr_deck *deck, const qr_model_network *network, qr_model *model)
{
    qr_rule *rule = &model->rule;
    rule->seed = (uint64_t)deck->run.seed;
    rule->n_agents = network->n_agents;
    rule->n_options = (uint32_t)deck->agents.options;
    rule->activation = qr_threshold32(deck->run.activation);
    rule->noise = qr_threshold32(deck->model.noise);
    rule->samples = (uint32_t)deck->model.samples;
    rule->q = (uint32_t)deck->model.q;
    rule->epsilon = qr_threshold32(deck->model.epsilon);
    rule->metropolis = deck->model.dynamics == QR_DYNAMICS_METROPOLIS ? 1u : 0u;
    int64_t degree = network->uniform_degree;
    if (model->kind == QR_RULE_VOTER && degree > 1 && degree <= 1 << QR_RULE_MAX_CHOICE_PLANES &&
        (degree & (degree - 1)) == 0) {
        while ((int64_t)1 << rule->choice_planes < degree) {
            rule->choice_planes++;
        }
    }
    double best = 0.0;
    for (int64_t k = 0; k < deck->model.qualities.n; k++) {
        best = fmax(best, deck->model.qualities.values[k]);
    }
    for (int64_t k = 0; k < deck->model.qualities.n; k++) {
        double scaled = deck->model.qualities.values[k] / best * (double)QR_QUALITY_ONE;
        rule->quality[k] = scaled < 1.0 ? 1u : (uint32_t)(scaled + 0.5);
    }
}

/* Zealots take the first places of the permutation, option by option; shares fill the rest exactly, what rounding
 * leaves going to the options with the largest remainders (lowest first). */
static void set_start(const qr_deck *deck, const qr_model_network *network, qr_model *model)
{
    int64_t n_options = deck->agents.options;
    model->initial = (qr_initial)deck->agents.initial;
    model->places = qr_permutation_make((uint64_t)network->n_agents, model->rule.seed);
    for (int64_t k = 0; k < n_options; k++) {
        model->zealots += k < deck->model.zealots.n ? deck->model.zealots.values[k] : 0;
        model->zealot_end[k] = model->zealots;
    }
    if (model->initial != QR_INITIAL_SHARES) {
        return;
    }
    int64_t rest = network->n_agents - model->zealots;
    double sum = 0.0;
    for (int64_t k = 0; k < n_options; k++) {
        sum += deck->agents.shares.values[k];
    }
    double remainder[QR_MAX_OPTIONS];
    int64_t count[QR_MAX_OPTIONS];
    int64_t given = 0;
    for (int64_t k = 0; k < n_options; k++) {
        double exact = deck->agents.shares.values[k] / sum * (double)rest;
        count[k] = (int64_t)floor(exact);
        remainder[k] = exact - floor(exact);
        given += count[k];
    }
    for (; given < rest; given++) {
        int64_t largest = 0;
        for (int64_t k = 1; k < n_options; k++) {
            largest = remainder[k] > remainder[largest] ? k : largest;
        }
        count[largest]++;
        remainder[largest] = -1.0;
    }
    int64_t end = model->zealots;
    for (int64_t k = 0; k < n_options; k++) {
        end += count[k];
        model->share_end[k] = end;
    }
}

qr_status qr_model_create(const qr_deck *deck, const qr_model_network *network, const float *weights, qr_model **out)
{
    qr_model *model = NULL;
    qr_status status = qr_allocate(1, sizeof *model, "the model", (void **)&model);
    if (status != QR_OK) {
        return status;
    }
    status = qr_model_check(deck, &model->kind);
    if (status == QR_OK) {
        status = check_zealots(deck, network->n_agents); /* of an edge list, which no deck could know */
    }
    if (status != QR_OK) {
        goto fail;
    }
    model->fast = deck->compute.precision == QR_PRECISION_FAST;
    set_rule(deck, network, model);
    set_start(deck, network, model);
    if (model->kind == QR_RULE_NEURAL) {
        status = create_neural(deck, weights, model);
    } else if (model->kind == QR_RULE_POTTS) {
        model->sweeps = true;
        status = create_boltzmann(deck, network->max_degree, model);
    }
    if (status != QR_OK) {
        goto fail;
    }
    *out = model;
    return QR_OK;
fail:
    qr_model_destroy(model);
    return status;
}

void qr_model_destroy(qr_model *model)
{
    if (model != NULL) {
        free(model->weights);
        free(model->boltzmann);
        free(model);
    }
}

/* How many of the first ends are not above the place: without a branch, as places are random. */
static uint8_t option_at(const qr_model *model, const int64_t *end, int64_t place)
{
    unsigned option = 0;
    for (uint32_t k = 0; k + 1 < model->rule.n_options; k++) {
        option += place >= end[k] ? 1u : 0u;
    }
    return (uint8_t)option;
}

void qr_model_initial_votes(const qr_model *model, int64_t first, int64_t count, const uint8_t *file_votes,
                            uint8_t *votes, uint64_t *frozen)
{
    if (frozen != NULL) {
        memset(frozen, 0, (size_t)((count + 63) / 64) * sizeof *frozen);
    }
    bool needs_place = model->zealots > 0 || model->initial == QR_INITIAL_SHARES;
    uint64_t places[64];
    for (int64_t i = 0; i < count; i++) {
        int64_t agent = first + i;
        if (needs_place && i % 64 == 0) {
            qr_permutation_apply_row(&model->places, (uint64_t)agent, count - i < 64 ? count - i : 64, places);
        }
        int64_t place = needs_place ? (int64_t)places[i % 64] : INT64_MAX;
        if (place < model->zealots) {
            votes[i] = option_at(model, model->zealot_end, place);
            if (frozen != NULL) {
                frozen[i / 64] |= (uint64_t)1 << (i % 64);
            }
        } else if (model->initial == QR_INITIAL_SHARES) {
            votes[i] = option_at(model, model->share_end, place);
        } else if (model->initial == QR_INITIAL_FILE && file_votes != NULL) {
            votes[i] = file_votes[i];
        } else {
            votes[i] = (uint8_t)qr_initial_option(&model->rule, (uint64_t)agent);
        }
    }
}

void qr_model_initial_state(const qr_model *model, int64_t agent, float *x)
{
    qr_neural_initial(model->rule.seed, model->state_scale, (uint32_t)model->state_dim, (uint64_t)agent, x);
}
