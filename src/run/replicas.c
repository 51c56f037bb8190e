/* How I/O ranks hand each other copies of their shares: messages over a communicator of their own, never waited for. */
#include "run/replicas.h"

#include "base/memory.h"

#include <stdlib.h>

enum { TAG_REPLICA = 41 };

/* A message under way. */
typedef struct letter {
    MPI_Request request;
    bool *done;
} letter;

struct qr_replica_mail {
    MPI_Comm group;      /* rank there = place of the server among I/O ranks */
    int *rank_of_server; /* -1: a thread of a compute rank, which cannot be reached */
    int *server_of_rank;
    letter *letters;
    size_t n_letters, capacity;
};

static void collect(qr_replica_mail *mail)
{
    size_t kept = 0;
    for (size_t i = 0; i < mail->n_letters; i++) {
        int out = 0;
        MPI_Test(&mail->letters[i].request, &out, MPI_STATUS_IGNORE);
        if (out != 0) {
            *mail->letters[i].done = true;
        } else {
            mail->letters[kept++] = mail->letters[i];
        }
    }
    mail->n_letters = kept;
}

static qr_status send_letter(void *context, int server, const void *data, int64_t bytes, bool *done)
{
    qr_replica_mail *mail = context;
    if (mail->rank_of_server[server] < 0) {
        return qr_error(QR_INTERNAL, "I/O server %d cannot be sent to", server);
    }
    collect(mail);
    qr_status status =
        qr_grow((void **)&mail->letters, &mail->capacity, mail->n_letters + 1, sizeof(letter), "replicas");
    if (status != QR_OK) {
        return status;
    }
    *done = false;
    letter *next = &mail->letters[mail->n_letters++];
    next->done = done;
    MPI_Isend(data, (int)bytes, MPI_BYTE, mail->rank_of_server[server], TAG_REPLICA, mail->group, &next->request);
    return QR_OK;
}

static qr_status poll_letters(void *context, int *server, void **data, int64_t *bytes)
{
    qr_replica_mail *mail = context;
    int here = 0;
    int n = 0;
    MPI_Status envelope;
    *bytes = 0;
    collect(mail);
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_REPLICA, mail->group, &here, &envelope);
    if (here == 0) {
        return QR_OK;
    }
    MPI_Get_count(&envelope, MPI_BYTE, &n);
    void *memory = malloc(n > 0 ? (size_t)n : 1);
    if (memory == NULL) { /* it stays where it is, and is looked for again */
        return qr_error_memory((size_t)n, "a replica");
    }
    MPI_Recv(memory, n, MPI_BYTE, envelope.MPI_SOURCE, TAG_REPLICA, mail->group, MPI_STATUS_IGNORE);
    *server = mail->server_of_rank[envelope.MPI_SOURCE];
    *data = memory;
    *bytes = n;
    return QR_OK;
}

qr_status qr_replica_mail_create(const qr_comm *comm, qr_replica_mail **out, qr_replica_transport *transport)
{
    qr_replica_mail *mail = NULL;
    bool is_io = comm->me.role == QR_ROLE_IO;
    qr_status status = QR_OK;
    if (is_io) {
        status = qr_allocate(1, sizeof *mail, "replicas", (void **)&mail);
        if (status == QR_OK) {
            mail->group = MPI_COMM_NULL;
            status = qr_allocate((size_t)comm->n_servers, sizeof(int), "replicas", (void **)&mail->rank_of_server);
        }
        if (status == QR_OK) {
            status = qr_allocate((size_t)comm->size, sizeof(int), "replicas", (void **)&mail->server_of_rank);
        }
    }
    status = qr_comm_agree(comm->world, status);
    MPI_Comm group = MPI_COMM_NULL;
    if (status == QR_OK) {
        MPI_Comm_split(comm->world, is_io ? 0 : MPI_UNDEFINED, comm->me.server, &group);
    }
    if (status != QR_OK || !is_io) {
        qr_replica_mail_destroy(mail);
        return status;
    }
    mail->group = group;
    for (int server = 0; server < comm->n_servers; server++) {
        mail->rank_of_server[server] = -1;
    }
    int place = 0;
    for (int server = 0; server < comm->n_servers; server++) {
        for (int rank = 0; rank < comm->size; rank++) {
            if (comm->all[rank].role == QR_ROLE_IO && comm->all[rank].server == server) {
                mail->rank_of_server[server] = place;
                mail->server_of_rank[place++] = server;
            }
        }
    }
    *transport = (qr_replica_transport){.context = mail, .send = send_letter, .poll = poll_letters};
    *out = mail;
    return QR_OK;
}

void qr_replica_mail_destroy(qr_replica_mail *mail)
{
    if (mail == NULL) {
        return;
    }
    for (size_t i = 0; i < mail->n_letters; i++) { /* nobody takes them any more */
        MPI_Cancel(&mail->letters[i].request);
        MPI_Request_free(&mail->letters[i].request);
    }
    if (mail->group != MPI_COMM_NULL) {
        MPI_Comm_free(&mail->group);
    }
    free(mail->rank_of_server);
    free(mail->server_of_rank);
    free(mail->letters);
    free(mail);
}
