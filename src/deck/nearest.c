#include "deck/deck.h"

#include <string.h>

enum { LONGEST = 48 };

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Optimal string alignment (Damerau 1964 with adjacent swaps, no substring edited twice), upper case as lower case. */
static int distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int rows[3][LONGEST + 1];
    int *before = rows[0];
    int *last = rows[1];
    int *row = rows[2];
    for (size_t j = 0; j <= n_b; j++) {
        last[j] = (int)j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        row[0] = (int)i;
        for (size_t j = 1; j <= n_b; j++) {
            int change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
            row[j] = least(least(last[j] + 1, row[j - 1] + 1), last[j - 1] + change);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
                row[j] = least(row[j], before[j - 2] + 1);
            }
        }
        int *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[n_b];
}

const char *qr_nearest_name(const char *word, const char *const *names, size_t n)
{
    size_t length = strlen(word);
    if (length == 0 || length > LONGEST) {
        return NULL;
    }
    int best = LONGEST + 1;
    const char *nearest = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(names[i]);
        if (other > LONGEST) {
            continue;
        }
        /* A third of the letters may be wrong; beyond that a suggestion misleads more than it helps. */
        int allowed = (int)(length > other ? length : other) / 3;
        int d = distance(word, length, names[i], other);
        if (d < best && d <= (allowed > 0 ? allowed : 1) && d < (int)other) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
