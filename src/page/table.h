/* The page table: where each page is, and in which order a tier would give its pages away. Pure; no page is moved here.
 *
 * Of each tier, pages stand in two lists. `due` holds those that the sweep under way will yet ask for, in the order in
 * which it will; `done` all others, by when they were last asked for. What has to leave a tier is the oldest that is
 * done, and only when there is none the one that is due last. Over sweeps in alternating direction that keeps what is
 * asked for first in the next one; where only some pages are asked for, it is least recently used. */
#ifndef QR_PAGE_TABLE_H
#define QR_PAGE_TABLE_H

#include "page/pager.h"

enum { QR_PAGE_NOWHERE = QR_N_MEMORY_TIERS }; /* tier of a page that holds nothing yet */

enum {
    QR_PAGE_DIRTY = 1,      /* differs from what the server was last given */
    QR_PAGE_PINNED = 2,     /* must stay where it is */
    QR_PAGE_GETTING = 4,    /* the server is reading it into `slot` */
    QR_PAGE_ARRIVED = 8,    /* it stands in `slot`, and is with the server too */
    QR_PAGE_PUTTING = 16,   /* the server is taking it from `slot`, where it stands until then */
    QR_PAGE_SINKING = 32,   /* the server is moving it a tier down */
    QR_PAGE_DUE = 64,       /* the sweep under way will ask for it */
    QR_PAGE_AHEAD = 128,    /* fetched before it was asked for, which is yet to come */
    QR_PAGE_TOO_LATE = 256, /* of those: had to be waited for */
    QR_PAGE_MISSED = 512    /* asked for, and on its way only since then */
};
enum { QR_PAGE_IN_FLIGHT = QR_PAGE_GETTING | QR_PAGE_PUTTING | QR_PAGE_SINKING };

typedef struct qr_page_entry {
    int64_t place;    /* frame, or berth of the memory beside them */
    int64_t version;  /* of what the server was last given */
    int64_t accesses; /* how often it was asked for */
    double last_s;    /* when it was, last */
    int64_t older, newer;
    int32_t slot; /* QR_NO_SLOT: none */
    uint16_t flags;
    uint8_t tier;
} qr_page_entry;

/* -1: none. */
typedef struct qr_page_list {
    int64_t oldest, newest, count;
} qr_page_list;

typedef struct qr_page_table {
    int64_t n_pages;
    qr_page_entry *entries;
    qr_page_list done[QR_N_MEMORY_TIERS];
    qr_page_list due[QR_N_MEMORY_TIERS];
    int64_t promised[QR_N_MEMORY_TIERS]; /* room kept for pages that sink into a tier */
} qr_page_table;

qr_status qr_page_table_create(int64_t n_pages, qr_page_table *out);
void qr_page_table_clear(qr_page_table *table);

/* Pages in a tier, those on their way to it included. */
int64_t qr_page_tier_count(const qr_page_table *table, int tier);

/* Puts a page into a tier (QR_PAGE_NOWHERE: none), as its newest. */
void qr_page_move(qr_page_table *table, int64_t page, int tier);

/* Marks it due, after all that are due in its tier already. */
void qr_page_set_due(qr_page_table *table, int64_t page);

/* It was asked for: no longer due, and the newest of its tier. */
void qr_page_touch(qr_page_table *table, int64_t page, double now_s);

/* The page that would leave a tier; -1 when there is none. Neither pinned pages nor such as the server is at work on.
 * due_too: rather one that is yet to be asked for than none. */
int64_t qr_page_victim(const qr_page_table *table, int tier, bool due_too);

#endif
