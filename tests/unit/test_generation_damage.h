/* Damage to the files of generations, and catching what is said about it. */
#ifndef TEST_GENERATION_DAMAGE_H
#define TEST_GENERATION_DAMAGE_H

#include "test_generation_fixture.h"

#include <fcntl.h>

static inline void flip(const crowd *c, int tier, int64_t generation, int server, bool replica, const char *suffix,
                        int64_t byte)
{
    char path[160];
    unsigned char value = 0;
    crowd_path(c, tier, generation, server, replica, suffix, path);
    int file = open(path, O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pread(file, &value, 1, byte), 1);
    value ^= 0x10;
    assert_int_equal(pwrite(file, &value, 1, byte), 1);
    close(file);
}

/* Damages the page, where the copy's index says that it lies. */
static inline void damage_page(const crowd *c, int tier, int64_t generation, int server, bool replica, size_t page)
{
    qr_generation_reader *reader = NULL;
    size_t n = 0;
    assert_int_equal(qr_generation_open(c->directories[tier], generation, server, replica,
                                        &c->seals[tier][generation][server][replica], &reader),
                     QR_OK);
    const qr_page_record *record = &qr_generation_pages(reader, &n)[page];
    assert_true(page < n);
    flip(c, tier, record->generation, server, replica, "h5", (int64_t)(record->address + record->stored_bytes / 2));
    qr_generation_close(reader);
}

static inline void remove_file(const crowd *c, int tier, int64_t generation, int server, bool replica,
                               const char *suffix)
{
    char path[160];
    crowd_path(c, tier, generation, server, replica, suffix, path);
    assert_int_equal(unlink(path), 0);
}

static inline bool exists(const crowd *c, int tier, int64_t generation, int server, bool replica, const char *suffix)
{
    char path[160];
    crowd_path(c, tier, generation, server, replica, suffix, path);
    return access(path, F_OK) == 0;
}

/* Standard error into a file while something runs. */
typedef struct caught {
    char path[96];
    int kept;
} caught;

static inline void catch (const crowd *c, caught *k, int stream)
{
    fflush(NULL);
    snprintf(k->path, sizeof k->path, "%s/caught", c->root);
    k->kept = dup(stream);
    int file = open(k->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(k->kept >= 0 && file >= 0);
    dup2(file, stream);
    close(file);
}

static inline void release(const caught *k, int stream, char *out, size_t bytes)
{
    fflush(NULL);
    dup2(k->kept, stream);
    close(k->kept);
    FILE *file = fopen(k->path, "r");
    assert_non_null(file);
    size_t n = fread(out, 1, bytes - 1, file);
    out[n] = '\0';
    fclose(file);
}

static inline size_t lines(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        n += *text == '\n';
    }
    return n;
}

#endif
