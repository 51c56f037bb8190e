/* Who set each key of a deck. */
#ifndef QR_DECK_ORIGINS_H
#define QR_DECK_ORIGINS_H

#include "deck/key_table.h"

typedef enum qr_origin_kind { QR_ORIGIN_DEFAULT, QR_ORIGIN_DECK, QR_ORIGIN_OVERRIDE } qr_origin_kind;

typedef struct qr_origin {
    qr_origin_kind kind;
    bool derived; /* the value that stands there now was worked out from others */
    int line;     /* of the value in the deck */
    int column;
    char *override; /* "key=value" as given, owned */
} qr_origin;

struct qr_deck_origins {
    qr_origin *of; /* [qr_n_keys] */
};

/* Puts the place of a value in front of this thread's message. */
qr_status qr_origin_locate(const qr_deck *deck, const qr_key *key, qr_status status);

/* Every check of one key against another. */
qr_status qr_deck_check(const qr_deck *deck);

#endif
