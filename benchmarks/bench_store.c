/* States on disk: how long a page takes from the store of an I/O server, beside plain reads of as many bytes from the
 * same directory, each of pages that the system has been asked to forget; and how fast pages are put.
 *
 *     bench_store DIRECTORY [KiB of a page] [pages] [compression] [share of a page that does not shrink, in percent] */
#include "base/timer.h"
#include "io/io.h"
#include "io/page_store.h"
#include "queue/wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOTS = 16, WAIT_S = 60 };

typedef struct bench {
    const char *directory;
    int64_t bytes, pages;
    int64_t solid; /* bytes of a page that do not shrink */
    qr_codec codec;
    void *memory;
    qr_queue server_end, end;
    qr_page_store *store;
    double *times;
} bench;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(bench *b, const char *what, double seconds)
{
    size_t n = (size_t)b->pages;
    qsort(b->times, n, sizeof *b->times, by_size);
    printf("%-28s p50 %8.1f us   p90 %8.1f us   p99 %8.1f us   max %8.1f us   %8.1f MB/s\n", what,
           b->times[n / 2] * 1e6, b->times[n * 9 / 10] * 1e6, b->times[n * 99 / 100] * 1e6, b->times[n - 1] * 1e6,
           (double)(b->pages * b->bytes) / seconds / 1e6);
}

static void fill(const bench *b, int64_t page, unsigned char *out)
{
    uint64_t x = (uint64_t)page * 0x9e3779b97f4a7c15ULL + 1;
    memset(out, 0, (size_t)b->bytes);
    for (int64_t i = 0; i + 8 <= b->solid; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(out + i, &x, sizeof x);
    }
}

/* Asks for pages to be read from the disk again. */
static void forget(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        (void)fsync(file);
        (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        close(file);
    }
}

static void forget_store(const bench *b)
{
    DIR *handle = opendir(b->directory);
    const struct dirent *found = NULL;
    char path[4096];
    while (handle != NULL && (found = readdir(handle)) != NULL) {
        if (strncmp(found->d_name, "pages.", 6) == 0) {
            snprintf(path, sizeof path, "%s/%s", b->directory, found->d_name);
            forget(path);
        }
    }
    if (handle != NULL) {
        closedir(handle);
    }
}

/* An order in which no page follows its neighbour. */
static int64_t scattered(const bench *b, int64_t i)
{
    int64_t stride = 7919 % b->pages == 0 ? 1 : 7919;
    return i * stride % b->pages;
}

static qr_status bench_plain(bench *b)
{
    char path[4096];
    unsigned char *page = aligned_alloc(4096, (size_t)(b->bytes + 4095) / 4096 * 4096);
    snprintf(path, sizeof path, "%s/plain.tmp", b->directory);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (page == NULL || file < 0) {
        free(page);
        return qr_error(QR_ENVIRONMENT, "%s: %s", path, strerror(errno));
    }
    qr_status status = QR_OK;
    double start = qr_now_s();
    for (int64_t i = 0; i < b->pages && status == QR_OK; i++) {
        fill(b, i, page);
        double began = qr_now_s();
        ssize_t n = pwrite(file, page, (size_t)b->bytes, (off_t)(i * b->bytes));
        b->times[i] = qr_now_s() - began;
        status = n == (ssize_t)b->bytes ? QR_OK : qr_error(QR_ENVIRONMENT, "%s: cannot be written", path);
    }
    report(b, "plain write", qr_now_s() - start);
    forget(path);
    start = qr_now_s();
    for (int64_t i = 0; i < b->pages && status == QR_OK; i++) {
        double began = qr_now_s();
        ssize_t n = pread(file, page, (size_t)b->bytes, (off_t)(scattered(b, i) * b->bytes));
        b->times[i] = qr_now_s() - began;
        status = n == (ssize_t)b->bytes ? QR_OK : qr_error(QR_ENVIRONMENT, "%s: cannot be read", path);
    }
    if (status == QR_OK) {
        report(b, "plain read", qr_now_s() - start);
    }
    close(file);
    (void)unlink(path);
    free(page);
    return status;
}

/* Waits as the pager does: without sleeping at first. */
static qr_status await(bench *b, int32_t slot)
{
    qr_status answered = QR_OK;
    int64_t value = 0;
    qr_status status = qr_queue_wait_answer(&b->end, slot, WAIT_S, &answered, &value);
    if (status == QR_OK && answered != QR_OK) {
        status = qr_error(answered, "%s", qr_queue_answer_message(&b->end, slot));
    }
    return status;
}

static qr_status ask(bench *b, uint32_t kind, int32_t slot, int64_t page)
{
    qr_job job = {.kind = kind, .slot = slot, .bytes = b->bytes, .arguments = {page, QR_TIER_NVME, 1, 1}};
    return qr_queue_ask(&b->end, &job, WAIT_S);
}

/* All slots at work. */
static qr_status put_all(bench *b)
{
    int32_t slots[SLOTS];
    double began[SLOTS];
    qr_status status = QR_OK;
    for (int i = 0; i < SLOTS; i++) {
        slots[i] = qr_queue_try_slot(&b->end);
    }
    double start = qr_now_s();
    for (int64_t i = 0; i < b->pages + SLOTS && status == QR_OK; i++) {
        int64_t s = i % SLOTS;
        if (i >= SLOTS && i - SLOTS < b->pages) {
            status = await(b, slots[s]);
            b->times[i - SLOTS] = qr_now_s() - began[s];
        }
        if (i < b->pages && status == QR_OK) {
            fill(b, i, qr_queue_slot(&b->end, slots[s]));
            began[s] = qr_now_s();
            status = ask(b, QR_JOB_PAGE_PUT, slots[s], i);
        }
    }
    if (status == QR_OK) {
        report(b, "put, 16 at a time", qr_now_s() - start);
    }
    for (int i = 0; i < SLOTS; i++) {
        qr_queue_return_slot(&b->end, slots[i]);
    }
    return status;
}

/* One after another. */
static qr_status get_all(bench *b, const char *what)
{
    qr_status status = QR_OK;
    int32_t slot = qr_queue_try_slot(&b->end);
    double start = qr_now_s();
    for (int64_t i = 0; i < b->pages && status == QR_OK; i++) {
        double began = qr_now_s();
        status = ask(b, QR_JOB_PAGE_GET, slot, scattered(b, i));
        status = status != QR_OK ? status : await(b, slot);
        b->times[i] = qr_now_s() - began;
    }
    if (status == QR_OK) {
        report(b, what, qr_now_s() - start);
    }
    qr_queue_return_slot(&b->end, slot);
    return status;
}

static qr_status bench_store(bench *b)
{
    qr_page_tier_totals totals[QR_N_TIERS];
    qr_status status = put_all(b);
    forget_store(b);
    status = status != QR_OK ? status : get_all(b, "get");
    status = status != QR_OK ? status : get_all(b, "get again");
    qr_page_store_totals(b->store, totals);
    const qr_page_tier_totals *t = &totals[QR_TIER_NVME];
    if (status == QR_OK) {
        printf("thread time a page: pack %.1f us, write %.1f us, read %.1f us, unpack %.1f us; ratio %.2f\n",
               t->pack_s / (double)t->put * 1e6, t->write_s / (double)t->put * 1e6, t->read_s / (double)t->got * 1e6,
               t->unpack_s / (double)t->got * 1e6, (double)t->raw_in / (double)t->stored_in);
    }
    return status;
}

static qr_status run(bench *b)
{
    qr_queue_shape shape = {.n_slots = SLOTS, .slot_bytes = b->bytes};
    qr_page_store_config config = {.run_id = "bench", .threads = 4, .most_raw = b->bytes, .timeout_s = WAIT_S};
    qr_io_config io = {.directory = b->directory, .n_agents = 1, .n_options = 2, .n_servers = 1, .flush_every_s = 9};
    qr_io_server *server = NULL;
    qr_io_thread *thread = NULL;
    config.tiers[QR_TIER_NVME] = (qr_page_tier_config){.directory = b->directory, .codec = b->codec};
    b->memory = malloc(qr_queue_bytes(&shape));
    b->times = calloc((size_t)b->pages, sizeof *b->times);
    if (b->memory == NULL || b->times == NULL) {
        return qr_error(QR_RESOURCE, "no memory");
    }
    qr_status status = qr_queue_create(b->memory, qr_queue_bytes(&shape), &shape, &b->server_end);
    status = status != QR_OK ? status : qr_queue_attach(b->memory, qr_queue_bytes(&shape), &b->end);
    status = status != QR_OK ? status : qr_page_store_create(&config, &b->server_end, 1, &b->store);
    io.pages = b->store;
    status = status != QR_OK ? status : bench_plain(b);
    status = status != QR_OK ? status : qr_io_server_create(&io, &b->server_end, 1, &server);
    status = status != QR_OK ? status : qr_io_thread_start(server, &thread);
    if (status == QR_OK) {
        status = bench_store(b);
        qr_job finish = {.kind = QR_JOB_FINISH, .slot = QR_NO_SLOT};
        if (qr_queue_submit(&b->end, &finish, WAIT_S) == QR_OK) {
            (void)qr_io_thread_join(thread, NULL);
        }
    }
    qr_io_server_destroy(server);
    qr_page_store_destroy(b->store, WAIT_S);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_store DIRECTORY [KiB of a page] [pages] [compression] [percent that does not "
                        "shrink]\n");
        return 2;
    }
    bench b = {.directory = argv[1],
               .bytes = (argc > 2 ? strtoll(argv[2], NULL, 10) : 256) * 1024,
               .pages = argc > 3 ? strtoll(argv[3], NULL, 10) : 2000};
    qr_status status = qr_codec_parse(argc > 4 ? argv[4] : "lz4-1", &b.codec);
    b.solid = b.bytes * (argc > 5 ? strtoll(argv[5], NULL, 10) : 80) / 100;
    if (b.bytes < 1 || b.pages < 1) {
        status = qr_error(QR_USAGE, "pages of 1 KiB or more, and one or more of them");
    }
    status = status != QR_OK ? status : run(&b);
    free(b.memory);
    free(b.times);
    if (status != QR_OK) {
        fprintf(stderr, "bench_store: %s\n", qr_error_message());
    }
    return qr_status_exit_code(status);
}
