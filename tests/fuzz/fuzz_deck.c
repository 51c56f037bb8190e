/* Any bytes as a deck, or as a deck and overrides: parse, dump, parse the dump, and find the same dump again.
 *
 * A NUL byte cuts the input: before it the deck, after it "--set" texts, each up to the next NUL byte. */
#include "deck/deck.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_OVERRIDES = 8 };

static void demand(int truth, const char *what, const char *text)
{
    if (!truth) {
        (void)fprintf(stderr, "%s: %s\n%s\n", what, qr_error_message(), text);
        abort();
    }
}

/* The dump without its comments, which tell where each value came from. */
static void drop_comments(char *dump)
{
    char *out = dump;
    for (char *line = dump; *line != '\0';) {
        char *end = strchr(line, '\n');
        char *next = end != NULL ? end + 1 : line + strlen(line);
        char *comment = NULL;
        for (char *at = line; at + 3 < next; at++) {
            comment = memcmp(at, "  # ", 4) == 0 ? at : comment;
        }
        size_t n = (size_t)((comment != NULL ? comment : next) - line);
        memmove(out, line, n);
        out += n;
        line = next;
    }
    *out = '\0';
}

static void check_dump(const qr_deck *deck)
{
    char *dump = NULL;
    char *again = NULL;
    qr_deck *copy = NULL;
    demand(qr_deck_dump(deck, &dump) == QR_OK, "no dump", "");
    demand(qr_deck_parse("dump", dump, strlen(dump), NULL, 0, &copy) == QR_OK, "the dump does not parse", dump);
    demand(qr_deck_dump(copy, &again) == QR_OK, "no second dump", dump);
    drop_comments(dump);
    drop_comments(again);
    demand(strcmp(dump, again) == 0, "the dump means something else", dump);
    free(dump);
    free(again);
    qr_deck_destroy(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    const char *overrides[MAX_OVERRIDES];
    int n_overrides = 0;
    size_t n = strlen(text);
    for (size_t at = n + 1; at < size && n_overrides < MAX_OVERRIDES; at += strlen(text + at) + 1) {
        overrides[n_overrides++] = text + at;
    }
    qr_deck *deck = NULL;
    qr_status status = qr_deck_parse("fuzz.yml", text, n, overrides, n_overrides, &deck);
    if (status == QR_OK) {
        check_dump(deck);
        qr_deck_destroy(deck);
    } else {
        demand(status == QR_USAGE, "not the user's fault", text);
        demand(strchr(qr_error_message(), '\n') == NULL, "more than one line", text);
    }
    /* The whole input, NUL bytes included, must be refused or taken without harm as well. */
    deck = NULL;
    if (size != n && qr_deck_parse("fuzz.yml", text, size, NULL, 0, &deck) == QR_OK) {
        demand(0, "a deck with a NUL byte was taken", text);
    }
    free(text);
    return 0;
}
