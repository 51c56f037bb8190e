/* Replicas, the server's thread: messages come and go. What does not fit in form, place or checksum is refused. */
#include "io/replicas.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

enum { MOST_POLLS = 16, END_TURN_US = 500 };

static const uint64_t magic = 0x324c504552525101ULL;

/* After a server has once failed to answer, this part of the time is enough. */
static const double silent_share = 0.1;

_Static_assert(sizeof(qr_header) % 8 == 0, "no padding at the end of a header");

/* --- messages --- */

void qr_message_free(qr_message *message)
{
    if (message != NULL) {
        free(message->data);
        free(message->done);
        free(message->answered);
        free(message);
    }
}

qr_message *qr_message_new(int server, int n, int64_t bytes)
{
    qr_message *message = NULL;
    if (qr_allocate(1, sizeof *message, "replicas", (void **)&message) != QR_OK) {
        return NULL;
    }
    message->server = server;
    message->n = n;
    message->bytes = bytes;
    if (qr_allocate((size_t)bytes, 1, "replicas", (void **)&message->data) != QR_OK ||
        qr_allocate((size_t)n, sizeof(bool), "replicas", (void **)&message->done) != QR_OK ||
        qr_allocate((size_t)n, sizeof(bool), "replicas", (void **)&message->answered) != QR_OK) {
        qr_message_free(message);
        return NULL;
    }
    return message;
}

void qr_message_append(qr_message **list, qr_message *message)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    message->next = NULL;
    *list = message;
}

void qr_header_seal(qr_header *h)
{
    h->magic = magic;
    h->header_hash = XXH3_64bits(h, offsetof(qr_header, header_hash));
}

qr_header qr_header_of(const qr_message *message)
{
    qr_header h;
    memcpy(&h, message->data, sizeof h);
    return h;
}

/* The qr_header holds together, and the message is as long as it says. */
static bool sound(const qr_message *message)
{
    if (message->bytes < (int64_t)sizeof(qr_header) || message->bytes > QR_REPLICA_MESSAGE_BYTES) {
        return false;
    }
    qr_header h = qr_header_of(message);
    int64_t payload = h.kind == QR_PIECE ? h.bytes : 0;
    return h.magic == magic && h.header_hash == XXH3_64bits(&h, offsetof(qr_header, header_hash)) &&
           (h.kind == QR_PIECE || h.kind == QR_ANSWER) && h.tier >= 0 && h.tier < QR_N_TIERS && h.file >= 0 &&
           h.file < QR_N_FILES && h.generation > 0 && h.offset >= 0 && h.bytes > 0 && h.file_bytes > 0 &&
           h.bytes <= h.file_bytes && h.offset <= h.file_bytes - h.bytes &&
           message->bytes == (int64_t)sizeof(qr_header) + payload && memchr(h.cause, '\0', sizeof h.cause) != NULL;
}

void qr_replicas_answer(qr_checkpoint *checkpoint, int server, const qr_header *piece, qr_status status)
{
    qr_message *message = qr_message_new(server, 1, (int64_t)sizeof(qr_header));
    if (message == NULL) {
        return; /* the sender gives up after a while */
    }
    qr_header h = *piece;
    h.kind = QR_ANSWER;
    h.status = (int32_t)status;
    memset(h.cause, 0, sizeof h.cause);
    if (status != QR_OK) {
        (void)snprintf(h.cause, sizeof h.cause, "%s", qr_error_message());
    }
    qr_header_seal(&h);
    memcpy(message->data, &h, sizeof h);
    qr_message_append(&checkpoint->outbox, message);
}

/* --- targets (lock) --- */

void qr_outgoing_fail(qr_checkpoint *checkpoint, qr_outgoing *out, int only, const char *cause)
{
    for (int i = 0; i < checkpoint->config.replicas; i++) {
        if ((only != -1 && only != i) || out->targets[i] != QR_UNDER_WAY) {
            continue;
        }
        out->targets[i] = QR_MISSING;
        checkpoint->replicas_missing++;
        checkpoint->changed = true;
        if (!checkpoint->silent[i]) {
            qr_warning("checkpoints of I/O server %d cannot be copied to I/O server %d: %s", checkpoint->config.server,
                       checkpoint->replica_servers[i], cause);
        }
        checkpoint->silent[i] = true;
    }
}

static int count_targets(const qr_checkpoint *checkpoint, const qr_outgoing *out, qr_target_state state)
{
    int n = 0;
    for (int i = 0; i < checkpoint->config.replicas; i++) {
        n += out->targets[i] == state ? 1 : 0;
    }
    return n;
}

/* What the copies made so far mean for the generation. */
static void tell_copies(qr_tier *tier, const qr_outgoing *out, bool all_told)
{
    int copies = 1 + count_targets(tier->owner, out, QR_THERE);
    qr_kept *kept = qr_kept_find(tier, out->generation);
    if (tier->cut != NULL && tier->cut->generation == out->generation) {
        tier->cut->copies = copies;
        tier->cut->replicated = all_told;
    }
    if (kept != NULL) {
        kept->everywhere = copies == 1 + tier->owner->config.replicas;
    }
}

static bool all_done(const qr_message *message)
{
    for (int i = 0; i < message->n; i++) {
        if (!message->done[i]) {
            return false;
        }
    }
    return true;
}

/* Not needed any more, but perhaps still the transport's. */
static void release(qr_checkpoint *checkpoint, qr_message *message)
{
    if (!message->sent || all_done(message)) {
        qr_message_free(message);
    } else {
        message->next = checkpoint->limbo;
        checkpoint->limbo = message;
    }
}

static bool clear_limbo(qr_checkpoint *checkpoint)
{
    for (qr_message **at = &checkpoint->limbo; *at != NULL;) {
        qr_message *message = *at;
        if (all_done(message)) {
            *at = message->next;
            qr_message_free(message);
        } else {
            at = &message->next;
        }
    }
    return checkpoint->limbo == NULL;
}

/* Pieces that every target has, or will not get. */
static bool drop_answered(qr_checkpoint *checkpoint, qr_outgoing *out)
{
    bool any = false;
    while (out->pieces != NULL && out->pieces->sent) {
        qr_message *piece = out->pieces;
        for (int i = 0; i < piece->n; i++) {
            if (!piece->answered[i] && out->targets[i] == QR_UNDER_WAY) {
                return any;
            }
        }
        out->pieces = piece->next;
        out->n_pieces--;
        release(checkpoint, piece);
        any = true;
    }
    return any;
}

static void end_outgoing(qr_tier *tier, qr_outgoing *out)
{
    qr_checkpoint *checkpoint = tier->owner;
    for (qr_outgoing **at = &tier->outgoing; *at != NULL; at = &(*at)->next) {
        if (*at == out) {
            *at = out->next;
            break;
        }
    }
    while (out->pieces != NULL) {
        qr_message *piece = out->pieces;
        out->pieces = piece->next;
        release(checkpoint, piece);
    }
    qr_outgoing_free(out);
}

/* How long each target has owed an answer. */
static void watch_targets(qr_checkpoint *checkpoint, qr_outgoing *out)
{
    for (int i = 0; i < checkpoint->config.replicas; i++) {
        bool owes = false;
        for (const qr_message *piece = out->pieces; piece != NULL && !owes; piece = piece->next) {
            owes = piece->sent && !piece->answered[i];
        }
        if (out->targets[i] != QR_UNDER_WAY || !owes) {
            out->patience[i] = (qr_awake){0};
            continue;
        }
        double limit_s = checkpoint->config.timeout_s * (checkpoint->silent[i] ? silent_share : 1.0);
        if (qr_awake_look(&out->patience[i]) >= limit_s) {
            qr_outgoing_fail(checkpoint, out, i, "it does not answer");
        }
    }
}

/* --- what comes (lock) --- */

/* True when the message was kept. */
static bool take_piece(qr_checkpoint *checkpoint, qr_message *message, const qr_header *h)
{
    qr_tier *tier = &checkpoint->tiers[h->tier];
    if (h->server != message->server || tier->directory == NULL) {
        qr_replicas_answer(checkpoint, message->server, h,
                           qr_error(QR_USAGE, "tier %s is not used there", qr_tier_name(h->tier)));
        return false;
    }
    if (tier->n_arrivals >= QR_REPLICA_WINDOW * checkpoint->config.n_servers) {
        qr_replicas_answer(checkpoint, message->server, h,
                           qr_error(QR_RESOURCE, "too much is waiting for its %s", qr_tier_name(h->tier)));
        return false;
    }
    qr_message_append(&tier->arrivals, message);
    tier->n_arrivals++;
    pthread_cond_signal(&tier->work);
    return true;
}

static void take_answer(qr_checkpoint *checkpoint, int server, const qr_header *h)
{
    qr_tier *tier = &checkpoint->tiers[h->tier];
    qr_outgoing *out = tier->outgoing;
    int target = 0;
    while (target < checkpoint->config.replicas && checkpoint->replica_servers[target] != server) {
        target++;
    }
    if (target == checkpoint->config.replicas || h->server != checkpoint->config.server || out == NULL ||
        out->generation != h->generation || out->targets[target] != QR_UNDER_WAY) {
        return; /* stale */
    }
    for (qr_message *piece = out->pieces; piece != NULL; piece = piece->next) {
        qr_header sent = qr_header_of(piece);
        if (!piece->sent || sent.file != h->file || sent.offset != h->offset) {
            continue;
        }
        if (h->status != QR_OK) {
            qr_outgoing_fail(checkpoint, out, target, h->cause);
            return;
        }
        piece->answered[target] = true;
        out->patience[target] = (qr_awake){0};
        checkpoint->silent[target] = false;
        tier->post.copied_bytes += h->bytes;
        checkpoint->changed = true;
        if (h->file == QR_INDEX_FILE && h->offset + h->bytes == h->file_bytes) {
            out->targets[target] = QR_THERE;
            tell_copies(tier, out, false);
        }
        return;
    }
}

static void take_message(qr_checkpoint *checkpoint, int server, void *data, int64_t bytes)
{
    qr_message *message = qr_message_new(server, 0, 0);
    if (message == NULL) {
        free(data);
        return;
    }
    free(message->data);
    message->data = data;
    message->bytes = bytes;
    bool kept = false;
    if (server >= 0 && server < checkpoint->config.n_servers && server != checkpoint->config.server && sound(message)) {
        qr_header h = qr_header_of(message);
        if (h.kind == QR_PIECE) {
            kept = take_piece(checkpoint, message, &h);
        } else {
            take_answer(checkpoint, server, &h);
        }
    }
    if (!kept) {
        qr_message_free(message);
    }
}

static bool receive(qr_checkpoint *checkpoint)
{
    bool any = false;
    for (int i = 0; i < MOST_POLLS; i++) {
        int server = -1;
        void *data = NULL;
        int64_t bytes = 0;
        if (checkpoint->transport.poll(checkpoint->transport.context, &server, &data, &bytes) != QR_OK || bytes == 0) {
            break;
        }
        pthread_mutex_lock(&checkpoint->lock);
        take_message(checkpoint, server, data, bytes);
        pthread_mutex_unlock(&checkpoint->lock);
        any = true;
    }
    return any;
}

/* --- what goes: messages are freed by this thread alone, so that the lock is not needed while they are sent --- */

static bool send_answers(qr_checkpoint *checkpoint)
{
    pthread_mutex_lock(&checkpoint->lock);
    qr_message *list = checkpoint->outbox;
    checkpoint->outbox = NULL;
    pthread_mutex_unlock(&checkpoint->lock);
    bool any = list != NULL;
    while (list != NULL) {
        qr_message *message = list;
        list = message->next;
        message->sent = checkpoint->transport.send(checkpoint->transport.context, message->server, message->data,
                                                   message->bytes, &message->done[0]) == QR_OK;
        release(checkpoint, message);
    }
    return any;
}

/* The next piece to be sent; NULL: none. */
static qr_message *next_piece(qr_checkpoint *checkpoint, const qr_tier *tier, int *targets)
{
    pthread_mutex_lock(&checkpoint->lock);
    qr_outgoing *out = tier->outgoing;
    qr_message *piece = out != NULL ? out->pieces : NULL;
    while (piece != NULL && piece->sent) {
        piece = piece->next;
    }
    if (piece != NULL) {
        piece->sent = true;
        for (int i = 0; i < checkpoint->config.replicas; i++) {
            targets[i] = (int)out->targets[i];
        }
    }
    pthread_mutex_unlock(&checkpoint->lock);
    return piece;
}

static bool send_pieces(qr_checkpoint *checkpoint, qr_tier *tier)
{
    bool any = false;
    for (qr_message *piece = next_piece(checkpoint, tier, checkpoint->targets); piece != NULL;
         piece = next_piece(checkpoint, tier, checkpoint->targets)) {
        any = true;
        for (int i = 0; i < piece->n; i++) {
            bool wanted = checkpoint->targets[i] == QR_UNDER_WAY;
            qr_status status = QR_OK;
            if (wanted) {
                status = checkpoint->transport.send(checkpoint->transport.context, checkpoint->replica_servers[i],
                                                    piece->data, piece->bytes, &piece->done[i]);
            }
            if (!wanted || status != QR_OK) {
                piece->done[i] = true;
                piece->answered[i] = true;
            }
            if (status != QR_OK) {
                pthread_mutex_lock(&checkpoint->lock);
                qr_outgoing_fail(checkpoint, tier->outgoing, i, qr_error_message());
                pthread_mutex_unlock(&checkpoint->lock);
            }
        }
    }
    return any;
}

/* (lock) */
static bool advance(qr_tier *tier)
{
    qr_checkpoint *checkpoint = tier->owner;
    qr_outgoing *out = tier->outgoing;
    if (out == NULL) {
        return false;
    }
    watch_targets(checkpoint, out);
    bool any = drop_answered(checkpoint, out);
    bool over = out->dropped || count_targets(checkpoint, out, QR_UNDER_WAY) == 0;
    if (over && !out->reading) {
        if (!out->dropped) {
            tell_copies(tier, out, true);
        }
        end_outgoing(tier, out);
        any = true;
    }
    if (any) {
        pthread_cond_signal(&tier->work); /* there is room for another piece */
    }
    return any;
}

bool qr_replicas_turn(qr_checkpoint *checkpoint)
{
    if (!checkpoint->has_transport) {
        return false;
    }
    bool any = receive(checkpoint);
    any = send_answers(checkpoint) || any;
    for (int t = 0; t < QR_N_TIERS; t++) {
        any = send_pieces(checkpoint, &checkpoint->tiers[t]) || any;
    }
    pthread_mutex_lock(&checkpoint->lock);
    for (int t = 0; t < QR_N_TIERS; t++) {
        any = advance(&checkpoint->tiers[t]) || any;
    }
    (void)clear_limbo(checkpoint);
    pthread_mutex_unlock(&checkpoint->lock);
    return any;
}

int64_t qr_replicas_in_flight(const qr_checkpoint *checkpoint)
{
    int64_t n = 0;
    for (int t = 0; t < QR_N_TIERS; t++) {
        const qr_tier *tier = &checkpoint->tiers[t];
        for (const qr_outgoing *out = tier->outgoing; out != NULL; out = out->next) {
            n += out->dropped ? 0 : 1;
        }
    }
    return n;
}

bool qr_replicas_end(qr_checkpoint *checkpoint, double *left_s)
{
    const struct timespec pause = {.tv_nsec = END_TURN_US * 1000L};
    qr_awake waited = {0};
    if (!checkpoint->has_transport) {
        return true;
    }
    (void)send_answers(checkpoint);
    for (int t = 0; t < QR_N_TIERS; t++) {
        qr_tier *tier = &checkpoint->tiers[t];
        while (tier->outgoing != NULL) {
            end_outgoing(tier, tier->outgoing);
        }
        while (tier->arrivals != NULL) {
            qr_message *next = tier->arrivals->next;
            qr_message_free(tier->arrivals);
            tier->arrivals = next;
        }
        qr_replicas_forget(tier, 0);
    }
    while (!clear_limbo(checkpoint) && qr_awake_look(&waited) < *left_s) {
        int server = -1;
        void *data = NULL;
        int64_t bytes = 0;
        if (checkpoint->transport.poll(checkpoint->transport.context, &server, &data, &bytes) == QR_OK && bytes > 0) {
            free(data);
        }
        nanosleep(&pause, NULL);
    }
    *left_s -= waited.seconds;
    return checkpoint->limbo == NULL;
}
