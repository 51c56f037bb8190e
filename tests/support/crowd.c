#include "crowd.h"

#include "base/memory.h"
#include "io/io.h"
#include "network_parts.h"
#include "run/describe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

void crowd_free(crowd *c)
{
    if (c == NULL) {
        return;
    }
    for (int i = 0; i < c->n_messages; i++) {
        free(c->messages[i].bytes);
    }
    free(c->messages);
    for (int p = 0; p < c->n_parts; p++) {
        if (c->backend[p] != NULL) {
            c->ops->destroy(c->backend[p]);
        }
        qr_network_destroy(c->network[p]);
    }
    qr_model_destroy(c->model);
    qr_deck_destroy(c->deck);
    free(c);
}

static qr_status build_networks(crowd *c, const crowd_setup *setup)
{
    qr_status status = qr_network_spec_from_deck(c->deck, &c->spec);
    if (status != QR_OK) {
        return status;
    }
    bool listed = c->spec.kind == QR_NETWORK_EDGE_LIST;
    if (listed) {
        c->spec.n_agents = setup->n_agents;
    }
    c->deck->agents.count = c->spec.n_agents;
    if (parts_build(&c->spec, c->n_parts, listed ? setup->arcs : NULL, setup->n_arcs, c->network) != 0) {
        return qr_error(QR_INTERNAL, "the network could not be built");
    }
    if (qr_model_sweeps(c->deck) && parts_colour(c->n_parts, QR_MAX_COLOURS, c->network) != 0) {
        return qr_error(QR_INTERNAL, "the network could not be coloured");
    }
    return QR_OK;
}

static qr_status create_model(crowd *c)
{
    int64_t max_degree = 0;
    for (int p = 0; p < c->n_parts; p++) {
        max_degree = c->network[p]->max_degree > max_degree ? c->network[p]->max_degree : max_degree;
    }
    qr_model_network seen = qr_describe_network(&c->spec, max_degree);
    float *weights = NULL;
    qr_status status = QR_OK;
    if (qr_model_weight_count(c->deck) > 0 && c->deck->model.weights[0] != '\0') {
        status = qr_allocate((size_t)qr_model_weight_count(c->deck), sizeof(float), "weights", (void **)&weights);
        if (status == QR_OK) {
            status = qr_io_read_weights(c->deck->model.weights, c->deck->agents.options, c->deck->model.state_dim,
                                        c->deck->model.hidden, weights);
        }
    }
    if (status == QR_OK) {
        status = qr_model_create(c->deck, &seen, weights, &c->model);
    }
    free(weights);
    return status;
}

static qr_status create_backends(crowd *c, const crowd_setup *setup)
{
    int threads = setup->threads;
    c->ops = setup->ops != NULL ? setup->ops : qr_backend_find("cpu");
    if (c->ops == NULL) {
        return qr_error(QR_INTERNAL, "no cpu backend");
    }
    for (int p = 0; p < c->n_parts; p++) {
        qr_backend_setup with = {.model = c->model,
                                 .network = c->network[p],
                                 .threads = threads > 0 ? threads : 1,
                                 .device_times = setup->device_times,
                                 .overlap_agents = setup->overlap_agents};
        qr_status status = c->ops->create(&with, &c->backend[p]);
        if (status != QR_OK) {
            return status;
        }
    }
    return QR_OK;
}

/* One message for each pair of parts, with room for the word that bits are copied by. */
static qr_status create_messages(crowd *c)
{
    int n = 0;
    for (int p = 0; p < c->n_parts; p++) {
        n += c->network[p]->halo.n_peers;
    }
    qr_status status = qr_allocate((size_t)n, sizeof *c->messages, "messages", (void **)&c->messages);
    for (int p = 0; p < c->n_parts && status == QR_OK; p++) {
        for (int i = 0; i < c->network[p]->halo.n_peers && status == QR_OK; i++) {
            const qr_halo_peer *sender = &c->network[p]->halo.peers[i];
            const qr_halo_peer *receiver = parts_peer(c->network[sender->peer], p);
            if ((receiver == NULL ? 0 : receiver->recv_count) != sender->send_count) {
                return qr_error(QR_INTERNAL, "parts %d and %d disagree on their halo", p, sender->peer);
            }
            if (receiver == NULL) {
                continue;
            }
            crowd_message *message = &c->messages[c->n_messages++];
            *message = (crowd_message){.from = p, .sender = sender, .to = sender->peer, .receiver = receiver};
            size_t bytes = (size_t)c->ops->halo_bytes(c->backend[p], sender->send_count);
            status = qr_allocate(bytes + 8, 1, "message", &message->bytes);
        }
    }
    return status;
}

static void must(qr_status status)
{
    if (status != QR_OK) {
        (void)fprintf(stderr, "crowd: %s\n", qr_error_message());
        abort();
    }
}

/* What an all-reduce makes of the parts' tallies. */
static void add_tally(qr_tally *sum, const qr_tally *part)
{
    for (int k = 0; k < QR_MAX_OPTIONS; k++) {
        sum->votes[k] += part->votes[k];
        sum->leader[k] = part->leader[k] > sum->leader[k] ? part->leader[k] : sum->leader[k];
    }
}

static void count_start(crowd *c)
{
    memset(&c->tally, 0, sizeof c->tally);
    for (int p = 0; p < c->n_parts; p++) {
        qr_tally part;
        must(c->ops->count(c->backend[p], &part));
        add_tally(&c->tally, &part);
    }
    c->consensus = qr_consensus_begin(c->spec.n_agents, c->deck->agents.options, c->deck->consensus.quorum,
                                      c->deck->consensus.hold);
    (void)qr_consensus_update(&c->consensus, 0, &c->tally);
}

qr_status crowd_open(const crowd_setup *setup, crowd **out)
{
    crowd *c = NULL;
    qr_status status = qr_allocate(1, sizeof *c, "a crowd", (void **)&c);
    if (status != QR_OK) {
        return status;
    }
    c->n_parts = setup->parts > 0 ? setup->parts : 1;
    status = qr_deck_parse("test", setup->deck_text, strlen(setup->deck_text), setup->overrides, setup->n_overrides,
                           &c->deck);
    if (status == QR_OK) {
        qr_rule_kind rule = QR_RULE_VOTER;
        status = qr_model_check(c->deck, &rule);
    }
    if (status == QR_OK) {
        status = build_networks(c, setup);
    }
    if (status == QR_OK) {
        status = create_model(c);
    }
    if (status == QR_OK) {
        status = create_backends(c, setup);
    }
    if (status == QR_OK) {
        status = create_messages(c);
    }
    if (status != QR_OK) {
        crowd_free(c);
        return status;
    }
    count_start(c);
    *out = c;
    return QR_OK;
}

crowd *crowd_make(const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_true(length >= 0 && (size_t)length < sizeof text);
    crowd_setup setup = {.deck_text = text};
    crowd *c = NULL;
    if (crowd_open(&setup, &c) != QR_OK) {
        fail_msg("%s\n%s", text, qr_error_message());
    }
    return c;
}

/* Every vote of the halo is another one than it should be, and than it was before this step at random. */
static void place_wrong_votes(crowd *c)
{
    for (int i = 0; i < c->n_messages; i++) {
        const crowd_message *message = &c->messages[i];
        uint8_t *wrong = NULL;
        size_t n = (size_t)message->sender->send_count;
        must(qr_allocate(n + 8, 1, "message", (void **)&wrong));
        for (size_t v = 0; v < n; v++) {
            wrong[v] = (uint8_t)((((const uint8_t *)message->bytes)[v] + 1u) % c->model->rule.n_options);
        }
        must(c->ops->halo_place(c->backend[message->to], message->receiver, wrong));
        free(wrong);
    }
}

/* Wrong votes are placed a second time so that those who look at a halo too early have time to do it. */
static void begin_updates(crowd *c, const qr_tally *before)
{
    place_wrong_votes(c);
    for (int p = 0; p < c->n_parts; p++) {
        must(c->ops->begin_update(c->backend[p], c->step, before));
    }
    place_wrong_votes(c);
}

static void exchange_halos(crowd *c, const qr_tally *before)
{
    for (int i = 0; i < c->n_messages; i++) {
        const crowd_message *message = &c->messages[i];
        must(c->ops->halo_pack(c->backend[message->from], message->sender, message->bytes));
    }
    if (c->begins && !c->model->sweeps && c->ops->begin_update != NULL) {
        begin_updates(c, before);
    }
    for (int i = 0; i < c->n_messages; i++) {
        const crowd_message *message = &c->messages[i];
        must(c->ops->halo_place(c->backend[message->to], message->receiver, message->bytes));
    }
}

void crowd_step(crowd *c, int64_t n)
{
    int n_colours = c->model->sweeps ? qr_network_colours(c->network[0]) : 1;
    for (int64_t i = 0; i < n; i++) {
        qr_tally before = c->tally;
        c->step++;
        for (int colour = 0; colour < n_colours; colour++) {
            exchange_halos(c, &before);
            memset(&c->tally, 0, sizeof c->tally);
            for (int p = 0; p < c->n_parts; p++) {
                qr_tally part;
                must(c->ops->update(c->backend[p], c->step, colour, &before, &part));
                add_tally(&c->tally, &part);
            }
        }
        (void)qr_consensus_update(&c->consensus, c->step, &c->tally);
    }
}

bool crowd_run(crowd *c, int64_t max_steps)
{
    for (int64_t i = 0; i < max_steps && !c->consensus.decision.decided; i++) {
        crowd_step(c, 1);
    }
    return c->consensus.decision.decided;
}

void crowd_votes(const crowd *c, uint8_t *votes)
{
    for (int p = 0; p < c->n_parts; p++) {
        qr_range own = c->network[p]->own;
        must(c->ops->read_votes(c->backend[p], 0, own.count, votes + own.first));
    }
}

void crowd_state(const crowd *c, float *state)
{
    for (int p = 0; p < c->n_parts; p++) {
        qr_range own = c->network[p]->own;
        must(c->ops->read_state(c->backend[p], 0, own.count, state + own.first * c->model->state_dim));
    }
}

uint64_t crowd_hash(const crowd *c)
{
    size_t n = (size_t)c->spec.n_agents;
    size_t dim = (size_t)c->model->state_dim;
    void *bytes = NULL;
    must(qr_allocate(n, 1 + dim * sizeof(float), "what to hash", &bytes));
    float *state = bytes;
    uint8_t *votes = (uint8_t *)bytes + n * dim * sizeof(float);
    crowd_state(c, state);
    crowd_votes(c, votes);
    uint64_t hash = XXH3_64bits(bytes, n * (1 + dim * sizeof(float)));
    free(bytes);
    return hash;
}

void crowd_zealots(const crowd *c, uint64_t *frozen)
{
    void *votes = NULL;
    must(qr_allocate((size_t)c->spec.n_agents, 1, "votes", &votes));
    qr_model_initial_votes(c->model, 0, c->spec.n_agents, NULL, votes, frozen);
    free(votes);
}

double crowd_share(const crowd *c, int64_t option)
{
    return (double)c->tally.votes[option] / (double)c->spec.n_agents;
}
