/* What keys demand of each other. What a network or a rule needs is checked where those are made. */
#include "deck/origins.h"

static qr_status check_length(const qr_deck *deck, const char *key, int64_t n)
{
    if (n == deck->agents.options) {
        return QR_OK;
    }
    return qr_deck_complain(deck, key, "%lld values for %lld options (agents.options); one for each is needed",
                            (long long)n, (long long)deck->agents.options);
}

static qr_status check_start(const qr_deck *deck)
{
    const qr_list_real *shares = &deck->agents.shares;
    if (deck->agents.initial == QR_INITIAL_SHARES) {
        if (shares->n == 0) {
            return qr_deck_complain(deck, "agents.initial", "shares need agents.shares, one for each option");
        }
        qr_status status = check_length(deck, "agents.shares", shares->n);
        if (status != QR_OK) {
            return status;
        }
        double sum = 0.0;
        for (int64_t k = 0; k < shares->n; k++) {
            sum += shares->values[k];
        }
        if (!(sum > 0.0)) {
            return qr_deck_complain(deck, "agents.shares", "the shares sum to 0");
        }
    } else if (shares->n > 0) {
        return qr_deck_complain(deck, "agents.shares", "without effect unless agents.initial is shares");
    }
    if (deck->agents.initial == QR_INITIAL_FILE && deck->agents.file[0] == '\0') {
        return qr_deck_complain(deck, "agents.initial", "a file needs agents.file, its name");
    }
    if (deck->agents.initial != QR_INITIAL_FILE && deck->agents.file[0] != '\0') {
        return qr_deck_complain(deck, "agents.file", "without effect unless agents.initial is file");
    }
    return QR_OK;
}

qr_status qr_deck_check(const qr_deck *deck)
{
    qr_status status = check_start(deck);
    if (status == QR_OK && deck->model.qualities.n > 0) {
        status = check_length(deck, "model.qualities", deck->model.qualities.n);
    }
    if (status == QR_OK && deck->model.zealots.n > 0) {
        status = check_length(deck, "model.zealots", deck->model.zealots.n);
    }
    if (status == QR_OK && deck->memory.low >= deck->memory.high) {
        const char *key = qr_deck_was_set(deck, "memory.low") ? "memory.low" : "memory.high";
        status = qr_deck_complain(deck, key, "memory.low (%g) must be below memory.high (%g)", deck->memory.low,
                                  deck->memory.high);
    }
    return status;
}
