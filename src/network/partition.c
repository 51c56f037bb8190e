#include "network/partition.h"

static int64_t words_of(int64_t n_agents)
{
    return n_agents / QR_AGENTS_PER_WORD + (n_agents % QR_AGENTS_PER_WORD != 0);
}

qr_range qr_partition_range(int64_t n_agents, int n_parts, int part)
{
    const int64_t words = words_of(n_agents);
    const int64_t share = words / n_parts;
    const int64_t longer = words % n_parts; /* the first parts have one word more */
    const int64_t first_word = part * share + (part < longer ? part : longer);
    const int64_t n_words = share + (part < longer);

    /* The last word may be partly filled, and parts behind it are empty. */
    int64_t first = first_word * QR_AGENTS_PER_WORD;
    int64_t end = (first_word + n_words) * QR_AGENTS_PER_WORD;
    first = first < n_agents ? first : n_agents;
    end = end < n_agents ? end : n_agents;
    return (qr_range){.first = first, .count = end - first};
}

int qr_partition_owner(int64_t n_agents, int n_parts, int64_t agent)
{
    const int64_t words = words_of(n_agents);
    const int64_t share = words / n_parts;
    const int64_t longer = words % n_parts;
    const int64_t word = agent / QR_AGENTS_PER_WORD;
    if (word < longer * (share + 1)) {
        return (int)(word / (share + 1));
    }
    return (int)(longer + (word - longer * (share + 1)) / share);
}
