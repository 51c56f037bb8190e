#include "network/internal.h"

enum { RADIX = 256, SMALL = 32 };

/* Digits of the key (from, to): to_bytes low ones from `to`, the others from `from`. */
typedef struct layout {
    int to_bytes;
    int bytes;
} layout;

static int bytes_of(int64_t value)
{
    int n = 0;
    for (; value > 0; value >>= 8) {
        n++;
    }
    return n;
}

static inline int digit_of(const qr_edge *edge, const layout *key, int level)
{
    if (level >= key->to_bytes) {
        return (int)((edge->from >> (8 * (level - key->to_bytes))) & 0xff);
    }
    return (int)((edge->to >> (8 * level)) & 0xff);
}

static void insertion_sort(qr_edge *edges, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        const qr_edge edge = edges[i];
        int64_t j = i;
        for (;
             j > 0 && (edges[j - 1].from > edge.from || (edges[j - 1].from == edge.from && edges[j - 1].to > edge.to));
             j--) {
            edges[j] = edges[j - 1];
        }
        edges[j] = edge;
    }
}

/* Depth of the recursion: at most the 16 bytes of a key. */
static void flag_sort(qr_edge *edges, int64_t n, const layout *key, int level)
{
    if (n <= SMALL) {
        insertion_sort(edges, n);
        return;
    }
    int64_t next[RADIX] = {0};
    int64_t end[RADIX];
    for (int64_t i = 0; i < n; i++) {
        next[digit_of(&edges[i], key, level)]++;
    }
    int64_t sum = 0;
    for (int d = 0; d < RADIX; d++) {
        const int64_t count = next[d];
        next[d] = sum;
        sum += count;
        end[d] = sum;
    }
    for (int d = 0; d < RADIX; d++) {
        while (next[d] < end[d]) {
            qr_edge edge = edges[next[d]];
            int home = digit_of(&edge, key, level);
            while (home != d) {
                const qr_edge displaced = edges[next[home]];
                edges[next[home]++] = edge;
                edge = displaced;
                home = digit_of(&edge, key, level);
            }
            edges[next[d]++] = edge;
        }
    }
    if (level == 0) {
        return;
    }
    int64_t start = 0;
    for (int d = 0; d < RADIX; d++) {
        if (end[d] - start > 1) {
            flag_sort(edges + start, end[d] - start, key, level - 1);
        }
        start = end[d];
    }
}

void qr_edges_sort(qr_edge *edges, int64_t n)
{
    int64_t max_from = 0;
    int64_t max_to = 0;
    bool sorted = true;
    for (int64_t i = 0; i < n; i++) {
        max_from = edges[i].from > max_from ? edges[i].from : max_from;
        max_to = edges[i].to > max_to ? edges[i].to : max_to;
        sorted = sorted && (i == 0 || edges[i - 1].from < edges[i].from ||
                            (edges[i - 1].from == edges[i].from && edges[i - 1].to <= edges[i].to));
    }
    if (sorted) {
        return;
    }
    const layout key = {.to_bytes = bytes_of(max_to), .bytes = bytes_of(max_to) + bytes_of(max_from)};
    flag_sort(edges, n, &key, key.bytes - 1);
}
