#include "io/store.h"

#include "base/memory.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, WRITEBACK_BYTES = 8 << 20 };

/* A piece of metadata. Those that stand in the file keep their place in the list, without their bytes. */
typedef struct block {
    uint64_t address;
    uint64_t bytes;
    unsigned char *data; /* NULL: the file holds it */
    qr_store_class kind;
    bool committed; /* the file holds this block or an older state of it */
} block;

struct qr_store {
    char *path;      /* final name, for messages too */
    char *temporary; /* NULL after the first commit */
    int file;
    uint64_t end;
    uint64_t header_at, header_left; /* the page that object headers are put into */
    block *blocks;                   /* by address, without overlap */
    size_t n_blocks, capacity;
    const void *expected; /* data whose write is only noted */
    size_t expected_bytes;
    uint64_t expected_at;
    bool expected_came;
    uint64_t pushed; /* data up to here are on their way to the device */
    qr_status failure;
    char message[QR_MESSAGE_BYTES];
};

static qr_status keep_failure(qr_store *store, qr_status status)
{
    if (store->failure == QR_OK) {
        store->failure = status;
        snprintf(store->message, sizeof store->message, "%s", qr_error_message());
    }
    return status;
}

qr_status qr_store_check(const qr_store *store)
{
    return store->failure == QR_OK ? QR_OK : qr_error(store->failure, "%s", store->message);
}

qr_status qr_store_create(const char *directory, const char *name, qr_store **out)
{
    qr_store *store = NULL;
    char hidden[NAME_MAX + 1];
    if (snprintf(hidden, sizeof hidden, ".%s.tmp", name) >= (int)sizeof hidden) {
        return qr_error(QR_INTERNAL, "%s: too long a file name", name);
    }
    qr_status status = qr_allocate(1, sizeof *store, "a result file", (void **)&store);
    if (status != QR_OK) {
        return status;
    }
    store->file = -1;
    status = qr_path_join(directory, name, &store->path);
    if (status == QR_OK) {
        status = qr_path_join(directory, hidden, &store->temporary);
    }
    if (status == QR_OK) {
        store->file = open(store->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (store->file < 0) {
            status = qr_file_error(store->path, "made", errno);
        }
    }
    if (status != QR_OK) {
        qr_store_close(store);
        return status;
    }
    *out = store;
    return QR_OK;
}

qr_status qr_store_open(const char *path, qr_store **out)
{
    qr_store *store = NULL;
    qr_status status = qr_allocate(1, sizeof *store, "a result file", (void **)&store);
    if (status != QR_OK) {
        return status;
    }
    store->file = -1;
    int64_t bytes = 0;
    store->path = strdup(path);
    status = store->path == NULL ? qr_error_memory(strlen(path), "a path") : qr_file_open(path, &store->file, &bytes);
    if (status != QR_OK) {
        qr_store_close(store);
        return status;
    }
    *out = store;
    return QR_OK;
}

void qr_store_close(qr_store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->file >= 0) {
        close(store->file);
        if (store->temporary != NULL) {
            (void)unlink(store->temporary);
        }
    }
    for (size_t i = 0; i < store->n_blocks; i++) {
        free(store->blocks[i].data);
    }
    free(store->blocks);
    free(store->path);
    free(store->temporary);
    free(store);
}

/* --- space --- */

static uint64_t round_up(uint64_t value)
{
    return (value + PAGE - 1) / PAGE * PAGE;
}

uint64_t qr_store_allocate(qr_store *store, bool data, qr_store_class kind, uint64_t bytes)
{
    bool pooled = !data && kind == QR_STORE_HEADER && bytes <= PAGE / 2;
    if (pooled) {
        if (bytes > store->header_left) {
            store->header_at = round_up(store->end);
            store->header_left = PAGE;
            store->end = store->header_at + PAGE;
        }
        uint64_t address = store->header_at;
        /* 8: what the format aligns messages to, so that an extent lies in one word. */
        uint64_t taken = (bytes + 7) / 8 * 8;
        store->header_at += taken;
        store->header_left -= taken < store->header_left ? taken : store->header_left;
        return address;
    }
    uint64_t address = (store->end + 7) / 8 * 8;
    bool crosses = address / PAGE != (address + bytes - 1) / PAGE;
    if (bytes > 0 && crosses && (!data || bytes >= PAGE)) {
        address = round_up(address);
    }
    store->end = address + bytes;
    return address;
}

uint64_t qr_store_end(const qr_store *store)
{
    return store->end;
}

void qr_store_set_end(qr_store *store, uint64_t end)
{
    store->end = end;
}

uint64_t qr_store_size(const qr_store *store)
{
    struct stat info;
    return fstat(store->file, &info) == 0 ? (uint64_t)info.st_size : 0;
}

void qr_store_identity(const qr_store *store, uint64_t *device, uint64_t *inode)
{
    struct stat info = {0};
    (void)fstat(store->file, &info);
    *device = (uint64_t)info.st_dev;
    *inode = (uint64_t)info.st_ino;
}

/* --- reading and writing --- */

/* The first block that ends behind address. */
static size_t find_block(const qr_store *store, uint64_t address)
{
    size_t low = 0;
    size_t high = store->n_blocks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (store->blocks[middle].address + store->blocks[middle].bytes <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool read_file(const qr_store *store, uint64_t address, size_t bytes, void *out)
{
    char *at = out;
    while (bytes > 0) {
        ssize_t n = pread(store->file, at, bytes, (off_t)address);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            memset(at, 0, bytes);
            return true;
        }
        at += n;
        bytes -= (size_t)n;
        address += (uint64_t)n;
    }
    return true;
}

/* Copies the part of `from` that lies in [address, address + bytes) to out. */
static void overlay(const block *from, uint64_t address, uint64_t bytes, unsigned char *out)
{
    uint64_t low = from->address > address ? from->address : address;
    uint64_t from_end = from->address + from->bytes;
    uint64_t high = from_end < address + bytes ? from_end : address + bytes;
    if (low < high) {
        memcpy(out + (low - address), from->data + (low - from->address), (size_t)(high - low));
    }
}

bool qr_store_read(qr_store *store, uint64_t address, size_t bytes, void *out)
{
    if (!read_file(store, address, bytes, out)) {
        return false;
    }
    for (size_t i = find_block(store, address); i < store->n_blocks; i++) {
        if (store->blocks[i].address >= address + bytes) {
            break;
        }
        if (store->blocks[i].data != NULL) {
            overlay(&store->blocks[i], address, bytes, out);
        }
    }
    return true;
}

void qr_store_write_data(qr_store *store, uint64_t address, size_t bytes, const void *data)
{
    if (store->expected != NULL && data == store->expected && bytes == store->expected_bytes) {
        store->expected_at = address;
        store->expected_came = true;
        return;
    }
    if (store->failure == QR_OK && !qr_file_write_at(store->file, data, bytes, address)) {
        keep_failure(store, qr_file_error(store->path, "written", errno));
    }
}

void qr_store_expect(qr_store *store, const void *data, size_t bytes)
{
    store->expected = data;
    store->expected_bytes = bytes;
    store->expected_came = false;
}

/* So that the device is at work long before the commit waits for it. Only a hint: failures show at the commit. */
static void push(qr_store *store, uint64_t end)
{
    if (end > store->pushed + WRITEBACK_BYTES) {
        (void)sync_file_range(store->file, (off_t)store->pushed, (off_t)(end - store->pushed), SYNC_FILE_RANGE_WRITE);
        store->pushed = end;
    }
}

qr_status qr_store_write_expected(qr_store *store, uint64_t *address)
{
    const void *data = store->expected;
    size_t bytes = store->expected_bytes;
    store->expected = NULL;
    if (store->failure == QR_OK && !store->expected_came) {
        return keep_failure(store, qr_error(QR_INTERNAL, "%s: data were not written in one piece", store->path));
    }
    qr_store_write_data(store, store->expected_at, bytes, data);
    push(store, store->expected_at + bytes);
    *address = store->expected_at;
    return qr_store_check(store);
}

/* Makes one block of blocks[first..last) and [address, address + bytes), with the bytes they have now. */
static bool merge(qr_store *store, size_t first, size_t last, uint64_t address, size_t bytes)
{
    uint64_t low = address;
    uint64_t high = address + bytes;
    bool committed = false;
    for (size_t i = first; i < last; i++) {
        const block *old = &store->blocks[i];
        low = old->address < low ? old->address : low;
        high = old->address + old->bytes > high ? old->address + old->bytes : high;
        committed = committed || old->committed;
    }
    block whole = {.address = low, .bytes = high - low, .committed = committed};
    whole.data = malloc((size_t)whole.bytes + 1);
    if (whole.data == NULL) {
        keep_failure(store, qr_error_memory((size_t)whole.bytes, "a result file"));
        return false;
    }
    if (!qr_store_read(store, low, (size_t)whole.bytes, whole.data)) {
        free(whole.data);
        keep_failure(store, qr_file_error(store->path, "read", errno));
        return false;
    }
    if (last == first) {
        qr_status status =
            qr_grow((void **)&store->blocks, &store->capacity, store->n_blocks + 1, sizeof(block), "a result file");
        if (status != QR_OK) {
            free(whole.data);
            keep_failure(store, status);
            return false;
        }
        last = first + 1;
        memmove(store->blocks + last, store->blocks + first, (store->n_blocks - first) * sizeof(block));
        store->n_blocks++;
    } else {
        for (size_t i = first; i < last; i++) {
            free(store->blocks[i].data);
        }
        memmove(store->blocks + first + 1, store->blocks + last, (store->n_blocks - last) * sizeof(block));
        store->n_blocks -= last - first - 1;
    }
    store->blocks[first] = whole;
    return true;
}

void qr_store_write_metadata(qr_store *store, qr_store_class kind, uint64_t address, size_t bytes, const void *data)
{
    if (bytes == 0) {
        return;
    }
    size_t first = find_block(store, address);
    size_t last = first;
    while (last < store->n_blocks && store->blocks[last].address < address + bytes) {
        last++;
    }
    bool same = last == first + 1 && store->blocks[first].address == address && store->blocks[first].bytes == bytes;
    if ((!same || store->blocks[first].data == NULL) && !merge(store, first, last, address, bytes)) {
        return;
    }
    block *target = &store->blocks[first];
    target->kind = kind;
    memcpy(target->data + (address - target->address), data, bytes);
}

/* --- commit --- */

/* Level of a node of a chunk index; -1 for anything else. */
static int index_level(const block *b)
{
    bool node = b->kind == QR_STORE_INDEX && b->bytes >= 8 && memcmp(b->data, "TREE", 4) == 0 && b->data[4] == 1;
    return node ? b->data[5] : -1;
}

static bool write_block(qr_store *store, const block *b)
{
    return qr_file_write_at(store->file, b->data, (size_t)b->bytes, b->address);
}

/* *replaces: whether blocks that the file holds are to be replaced, too. */
static bool write_new_blocks(qr_store *store, bool *replaces)
{
    for (size_t i = 0; i < store->n_blocks; i++) {
        const block *b = &store->blocks[i];
        *replaces = *replaces || (b->data != NULL && b->committed);
        if (b->data != NULL && !b->committed && !write_block(store, b)) {
            return false;
        }
    }
    return true;
}

static bool write_superblock(qr_store *store)
{
    for (size_t i = 0; i < store->n_blocks; i++) {
        const block *b = &store->blocks[i];
        if (b->data != NULL && b->committed && b->kind == QR_STORE_SUPERBLOCK && !write_block(store, b)) {
            return false;
        }
    }
    return true;
}

static bool write_indexes(qr_store *store)
{
    int highest = -1;
    for (size_t i = 0; i < store->n_blocks; i++) {
        const block *b = &store->blocks[i];
        if (b->data != NULL && b->committed && index_level(b) > highest) {
            highest = index_level(b);
        }
    }
    for (int level = highest; level >= 0; level--) {
        for (size_t i = 0; i < store->n_blocks; i++) {
            const block *b = &store->blocks[i];
            if (b->data != NULL && b->committed && index_level(b) == level && !write_block(store, b)) {
                return false;
            }
        }
    }
    return true;
}

static bool is_rest(const block *b)
{
    return b->data != NULL && b->committed && b->kind != QR_STORE_SUPERBLOCK && index_level(b) < 0;
}

/* One write for each page that holds changed blocks, from the first changed byte to the last. */
static bool write_rest(qr_store *store)
{
    unsigned char page[PAGE];
    for (size_t i = 0; i < store->n_blocks; i++) {
        if (!is_rest(&store->blocks[i])) {
            continue;
        }
        uint64_t block_end = store->blocks[i].address + store->blocks[i].bytes;
        for (uint64_t start = store->blocks[i].address / PAGE * PAGE; start < block_end; start += PAGE) {
            uint64_t low = start > store->blocks[i].address ? start : store->blocks[i].address;
            uint64_t high = low;
            if (!read_file(store, start, PAGE, page)) {
                return false;
            }
            for (size_t k = i; k < store->n_blocks && store->blocks[k].address < start + PAGE; k++) {
                const block *b = &store->blocks[k];
                if (is_rest(b)) {
                    overlay(b, start, PAGE, page);
                    high = b->address + b->bytes < start + PAGE ? b->address + b->bytes : start + PAGE;
                }
            }
            if (!qr_file_write_at(store->file, page + (low - start), (size_t)(high - low), low)) {
                return false;
            }
        }
    }
    return true;
}

static void forget_data(qr_store *store)
{
    for (size_t i = 0; i < store->n_blocks; i++) {
        free(store->blocks[i].data);
        store->blocks[i].data = NULL;
        store->blocks[i].committed = true;
    }
}

qr_status qr_store_publish(qr_store *store)
{
    if (store->failure != QR_OK || store->temporary == NULL) {
        return qr_store_check(store);
    }
    if (rename(store->temporary, store->path) != 0) {
        return keep_failure(store, qr_file_error(store->path, "made", errno));
    }
    free(store->temporary);
    store->temporary = NULL;
    return QR_OK;
}

qr_status qr_store_sync(qr_store *store)
{
    if (store->failure != QR_OK) {
        return qr_store_check(store);
    }
    bool replaces = false;
    uint64_t size = qr_store_size(store);
    bool done = write_new_blocks(store, &replaces) &&
                (size >= store->end || ftruncate(store->file, (off_t)store->end) == 0) && fdatasync(store->file) == 0;
    if (done && replaces) {
        done = write_superblock(store) && write_indexes(store) && write_rest(store) &&
               (qr_store_size(store) <= store->end || ftruncate(store->file, (off_t)store->end) == 0) &&
               fdatasync(store->file) == 0;
    }
    if (!done) {
        return keep_failure(store, qr_file_error(store->path, "written", errno));
    }
    forget_data(store);
    return QR_OK;
}

qr_status qr_store_commit(qr_store *store)
{
    qr_status status = qr_store_sync(store);
    return status != QR_OK ? status : qr_store_publish(store);
}
