#include "run/reload.h"

#include "run/paging.h"

#include "base/memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { TAG_PAGE = 31, BATCH_BYTES = 64 << 20, MOST_BATCH = 256, PAUSE_US = 50, READERS_A_CORE = 4 };

/* Before the agents in a message. */
typedef struct page_head {
    int64_t kind;         /* qr_page_kind */
    int64_t first, count; /* agents */
    int64_t sound;        /* 0: could not be read, what follows means nothing */
} page_head;

typedef struct reader {
    qr_simulation *simulation;
    const qr_manifest *manifest;
    qr_share **shares; /* [manifest->n_shares]; those that this rank reads, else NULL */
    int share;         /* being read */
    size_t page;
    int batch; /* pages at once */
    int n_threads;
    void **raw;               /* [batch] */
    qr_page_scratch *scratch; /* [n_threads] */
    qr_status *outcomes;      /* [batch] */
    MPI_Request *requests;    /* messages under way: one for each owner of a page's agents */
    size_t n_requests;
    unsigned char *outgoing; /* heads and agents of all messages, one after another */
    size_t outgoing_used;
    qr_status failure; /* first page that could not be read; its message below */
    char message[QR_MESSAGE_BYTES];
} reader;

typedef struct receiver {
    int64_t votes_left, states_left; /* agents */
    unsigned char *bytes;
    size_t capacity;
    qr_status failure;
    char message[QR_MESSAGE_BYTES];
    bool spoilt; /* a page came that nobody could read */
} receiver;

static size_t page_bytes(const qr_manifest *manifest)
{
    int64_t votes = manifest->page_agents_votes;
    int64_t states = manifest->page_agents_state * manifest->state_dim * (int64_t)sizeof(float);
    return (size_t)(states > votes ? states : votes);
}

/* --- who reads what --- */

/* What a rank can say of a share. Of one that it was kept from opening nobody knows whether it is lost. */
enum { NOT_HERE, READABLE, OUT_OF_REACH };

/* Of the servers that can open a share, a different one for each share where there are enough. readable: [n_shares] by
 * this rank; reader_of: [n_shares] world ranks. */
static qr_status assign_shares(const qr_simulation *simulation, const qr_manifest *manifest,
                               const unsigned char *readable, int *reader_of)
{
    int n = manifest->n_shares;
    int size = simulation->comm->size;
    unsigned char *all = NULL;
    int *load = NULL;
    qr_status status = qr_allocate((size_t)n * (size_t)size, 1, "shares", (void **)&all);
    if (status == QR_OK) {
        status = qr_allocate((size_t)size, sizeof *load, "shares", (void **)&load);
    }
    status = qr_comm_agree(simulation->comm->world, status);
    if (status == QR_OK) {
        MPI_Allgather(readable, n, MPI_UNSIGNED_CHAR, all, n, MPI_UNSIGNED_CHAR, simulation->comm->world);
        for (int s = 0; s < n; s++) {
            int best = -1;
            for (int rank = 0; rank < size; rank++) {
                if (all[(size_t)rank * (size_t)n + (size_t)s] == READABLE && (best < 0 || load[rank] < load[best])) {
                    best = rank;
                }
            }
            reader_of[s] = best;
            if (best >= 0) {
                load[best]++;
            }
        }
    }
    free(all);
    free(load);
    return status;
}

/* A restart ends here: an older generation is not taken because this one cannot be read just now. */
static qr_status cannot_read_now(const reader *r, qr_status status, const char *cause)
{
    return status == QR_OK || status == QR_DATA
               ? QR_OK
               : qr_error(status, "checkpoint %lld is not lost, but cannot be read now: %s",
                          (long long)r->manifest->generation, cause);
}

/* Opens what can be opened here. *obstacle: why a share could not be looked at, QR_OK when none was. */
static void try_shares(reader *r, const qr_recovery *recovery, unsigned char *readable, char *cause,
                       qr_status *obstacle)
{
    for (int s = 0; recovery != NULL && s < r->manifest->n_shares; s++) {
        qr_status status = qr_share_open_as(recovery, r->manifest, r->manifest->shares[s].server, &r->shares[s]);
        readable[s] = status == QR_OK ? READABLE : status == QR_DATA ? NOT_HERE : OUT_OF_REACH;
        *obstacle = readable[s] == OUT_OF_REACH ? status : *obstacle;
        if (readable[s] == OUT_OF_REACH || (readable[s] == NOT_HERE && *obstacle == QR_OK)) {
            (void)snprintf(cause, QR_MESSAGE_BYTES / 2, "%.1000s", qr_error_message());
        }
    }
}

/* Opens what can be opened here, keeps what this rank shall read. *lost: a share nobody has; the message says which. */
static qr_status open_shares(reader *r, const qr_recovery *recovery, bool *lost)
{
    const qr_manifest *manifest = r->manifest;
    MPI_Comm world = r->simulation->comm->world;
    int n = manifest->n_shares;
    unsigned char *readable = NULL;
    int *reader_of = NULL;
    char cause[QR_MESSAGE_BYTES / 2] = "no I/O server sees its files";
    qr_status obstacle = QR_OK;
    *lost = false;
    qr_status status = qr_allocate((size_t)n, 1, "shares", (void **)&readable);
    if (status == QR_OK) {
        status = qr_allocate((size_t)n, sizeof *reader_of, "shares", (void **)&reader_of);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)n, sizeof(qr_share *), "shares", (void **)&r->shares);
    }
    status = qr_comm_agree(world, status);
    if (status != QR_OK) {
        goto cleanup;
    }
    try_shares(r, recovery, readable, cause, &obstacle);
    status = assign_shares(r->simulation, manifest, readable, reader_of);
    int missed = -1;           /* a share that nobody can read */
    bool out_of_reach = false; /* such a share, and this rank could not even look */
    for (int s = 0; status == QR_OK && s < n; s++) {
        missed = reader_of[s] < 0 ? s : missed;
        out_of_reach = out_of_reach || (reader_of[s] < 0 && readable[s] == OUT_OF_REACH);
        if (reader_of[s] != r->simulation->comm->rank) {
            qr_share_close(r->shares[s]);
            r->shares[s] = NULL;
        }
    }
    *lost = missed >= 0;
    if (status == QR_OK) {
        status = qr_comm_agree(world, out_of_reach ? cannot_read_now(r, obstacle, cause) : QR_OK);
    }
    if (status == QR_OK && *lost) {
        (void)qr_comm_agree(world, recovery == NULL ? QR_OK
                                                    : qr_error(QR_DATA, "the share of I/O server %d is lost: %s",
                                                               manifest->shares[missed].server, cause));
    }
cleanup:
    free(readable);
    free(reader_of);
    return status;
}

/* --- reading and sending --- */

static qr_status prepare_reader(reader *r)
{
    size_t bytes = page_bytes(r->manifest);
    int64_t fitting = (int64_t)(BATCH_BYTES / bytes);
    r->n_threads = READERS_A_CORE * omp_get_num_procs(); /* some wait for the disk while others unpack */
    r->batch = (int)(fitting < r->n_threads ? r->n_threads : fitting > MOST_BATCH ? MOST_BATCH : fitting);
    qr_status status = qr_allocate((size_t)r->batch, sizeof *r->raw, "pages", (void **)&r->raw);
    if (status == QR_OK) {
        status = qr_allocate((size_t)r->batch, sizeof *r->outcomes, "pages", (void **)&r->outcomes);
    }
    if (status == QR_OK) {
        status = qr_allocate((size_t)r->n_threads, sizeof *r->scratch, "pages", (void **)&r->scratch);
    }
    for (int i = 0; i < r->batch && status == QR_OK; i++) {
        status = qr_allocate(bytes, 1, "pages", &r->raw[i]);
    }
    return status;
}

static void note(qr_status status, qr_status *first, char *message)
{
    if (status != QR_OK && *first == QR_OK) {
        *first = status;
        (void)snprintf(message, QR_MESSAGE_BYTES, "%s", qr_error_message());
    }
}

static bool messages_are_out(reader *r)
{
    int all = 1;
    for (size_t i = 0; i < r->n_requests && all != 0; i++) {
        MPI_Test(&r->requests[i], &all, MPI_STATUS_IGNORE);
    }
    if (all != 0) {
        r->n_requests = 0;
        r->outgoing_used = 0;
    }
    return all != 0;
}

/* Sends the agents of a page to those who own them. A page that cannot be sent for want of memory is a failure of the
 * whole: its receivers would wait for ever, so that all memory is there before the first page is read. */
static void send_page(reader *r, const qr_page_record *record, const void *raw, bool sound)
{
    const qr_comm *comm = r->simulation->comm;
    size_t an_agent = record->kind == QR_PAGE_VOTES ? 1 : (size_t)r->manifest->state_dim * sizeof(float);
    int64_t at = record->first;
    int64_t end = record->first + record->count;
    while (at < end) {
        int part = qr_partition_owner(r->manifest->n_agents, comm->n_parts, at);
        qr_range range = qr_partition_range(r->manifest->n_agents, comm->n_parts, part);
        int64_t n = qr_min64(end, range.first + range.count) - at;
        page_head head = {.kind = record->kind, .first = at, .count = n, .sound = sound ? 1 : 0};
        size_t bytes = (size_t)n * an_agent;
        unsigned char *message = r->outgoing + r->outgoing_used;
        memcpy(message, &head, sizeof head);
        memcpy(message + sizeof head, (const unsigned char *)raw + (size_t)(at - record->first) * an_agent, bytes);
        r->outgoing_used += sizeof head + bytes;
        MPI_Isend(message, (int)(sizeof head + bytes), MPI_BYTE, comm->world_of_part[part], TAG_PAGE, comm->world,
                  &r->requests[r->n_requests++]);
        at += n;
    }
}

/* Room for all messages of a batch: a page has one more than there are borders between parts in it, and a batch runs
 * over the agents twice at most, for votes and for states. */
static qr_status make_messages(reader *r)
{
    size_t n = (size_t)r->batch + 2 * (size_t)r->simulation->comm->n_parts;
    qr_status status = qr_allocate(n, sizeof(MPI_Request), "messages", (void **)&r->requests);
    if (status == QR_OK) {
        status = qr_allocate((size_t)r->batch * page_bytes(r->manifest) + n * sizeof(page_head), 1, "messages",
                             (void **)&r->outgoing);
    }
    return status;
}

/* Reads the next pages of this rank's shares, by all threads, and sends them off. False when there is none left. */
static bool read_batch(reader *r)
{
    size_t n_pages = 0;
    const qr_page_record *records = NULL;
    for (; r->share < r->manifest->n_shares; r->share++, r->page = 0) {
        qr_share *share = r->shares[r->share];
        records = share != NULL ? qr_share_pages(share, &n_pages) : NULL;
        if (share != NULL && r->page < n_pages) {
            break;
        }
    }
    if (r->share >= r->manifest->n_shares) {
        return false;
    }
    size_t left = n_pages - r->page;
    int n = left < (size_t)r->batch ? (int)left : r->batch;
    qr_share *share = r->shares[r->share];
    size_t first = r->page;
    size_t next = first + (size_t)n;
    size_t after = n_pages - next < (size_t)r->batch ? n_pages - next : (size_t)r->batch;
    if (first == 0) {
        qr_share_expect(share, 0, next);
    }
    qr_share_expect(share, next, after); /* the disk goes on while pages are unpacked and sent */
#pragma omp parallel for schedule(dynamic) num_threads(r->n_threads)
    for (int i = 0; i < n; i++) {
        r->outcomes[i] = qr_share_read_page(share, first + (size_t)i, &r->scratch[omp_get_thread_num()], r->raw[i]);
        if (r->outcomes[i] != QR_OK) {
#pragma omp critical(qr_reload_failure)
            note(r->outcomes[i], &r->failure, r->message);
        }
    }
    for (int i = 0; i < n; i++) {
        send_page(r, &records[first + (size_t)i], r->raw[i], r->outcomes[i] == QR_OK);
    }
    r->page += (size_t)n;
    return true;
}

static void clear_reader(reader *r)
{
    for (int s = 0; r->shares != NULL && s < r->manifest->n_shares; s++) {
        qr_share_close(r->shares[s]);
    }
    for (int i = 0; r->raw != NULL && i < r->batch; i++) {
        free(r->raw[i]);
    }
    for (int i = 0; r->scratch != NULL && i < r->n_threads; i++) {
        free(r->scratch[i].bytes);
    }
    free(r->shares);
    free(r->raw);
    free(r->scratch);
    free(r->outcomes);
    free(r->requests);
    free(r->outgoing);
}

/* --- receiving --- */

static qr_status prepare_receiver(const qr_simulation *simulation, const qr_manifest *manifest, receiver *v)
{
    if (simulation->comm->me.role != QR_ROLE_COMPUTE) {
        return QR_OK;
    }
    v->votes_left = simulation->network->own.count;
    v->states_left = manifest->state_dim > 0 ? v->votes_left : 0;
    v->capacity = sizeof(page_head) + page_bytes(manifest);
    return qr_allocate(v->capacity, 1, "pages", (void **)&v->bytes);
}

static qr_status store(const qr_simulation *simulation, const page_head *head, const void *agents)
{
    int64_t at = head->first - simulation->network->own.first;
    return head->kind == QR_PAGE_VOTES ? simulation->ops->write_votes(simulation->backend, at, head->count, agents)
                                       : qr_states_write(simulation, at, head->count, agents);
}

/* Takes a message that has come; false when there is none. */
static bool receive(const qr_simulation *simulation, receiver *v)
{
    int here = 0;
    MPI_Status envelope;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_PAGE, simulation->comm->world, &here, &envelope);
    if (here == 0) {
        return false;
    }
    page_head head;
    MPI_Recv(v->bytes, (int)v->capacity, MPI_BYTE, envelope.MPI_SOURCE, TAG_PAGE, simulation->comm->world,
             MPI_STATUS_IGNORE);
    memcpy(&head, v->bytes, sizeof head);
    if (head.kind == QR_PAGE_VOTES) {
        v->votes_left -= head.count;
    } else {
        v->states_left -= head.count;
    }
    v->spoilt = v->spoilt || head.sound == 0;
    if (v->failure == QR_OK && !v->spoilt) {
        note(store(simulation, &head, v->bytes + sizeof head), &v->failure, v->message);
    }
    return true;
}

static void exchange(qr_simulation *simulation, reader *r, receiver *v)
{
    int64_t all = v->votes_left + v->states_left;
    const struct timespec pause = {.tv_nsec = PAUSE_US * 1000L};
    bool reading = true;
    for (;;) {
        bool busy = false;
        if (messages_are_out(r) && reading) {
            reading = read_batch(r);
            busy = reading;
        }
        while (v->votes_left + v->states_left > 0 && receive(simulation, v)) {
            busy = true;
            qr_progress_within(simulation, QR_LONG_RELOAD, all - v->votes_left - v->states_left, all);
        }
        if (!reading && r->n_requests == 0 && v->votes_left + v->states_left <= 0) {
            return;
        }
        if (!busy) {
            (void)nanosleep(&pause, NULL);
        }
    }
}

/* Shares are open side by side, and each in as many files as its pages lie in: as many as the system lets us have. */
static void allow_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

qr_status qr_reload(qr_simulation *simulation, const qr_recovery *recovery, const qr_manifest *manifest, bool *done)
{
    reader r;
    receiver v;
    bool lost = false;
    memset(&r, 0, sizeof r);
    memset(&v, 0, sizeof v);
    r.simulation = simulation;
    r.manifest = manifest;
    *done = false;
    allow_files();
    qr_status status = open_shares(&r, recovery, &lost);
    if (status == QR_OK && !lost) {
        if (recovery != NULL) {
            status = prepare_reader(&r);
            status = status == QR_OK ? make_messages(&r) : status;
        }
        status = status == QR_OK ? prepare_receiver(simulation, manifest, &v) : status;
        status = qr_comm_agree(simulation->comm->world, status);
        if (status == QR_OK) {
            exchange(simulation, &r, &v);
            if (v.failure != QR_OK) {
                (void)qr_error(v.failure, "%s", v.message);
            }
            status = qr_comm_agree(simulation->comm->world, v.failure);
        }
        if (status == QR_OK) {
            status = qr_comm_agree(simulation->comm->world, cannot_read_now(&r, r.failure, r.message));
        }
        if (status == QR_OK) {
            if (r.failure != QR_OK) {
                (void)qr_error(r.failure, "%s", r.message);
            }
            *done = qr_comm_agree(simulation->comm->world, r.failure) == QR_OK;
        }
    }
    clear_reader(&r);
    free(v.bytes);
    return status;
}
