/* States of agents that do not fit where they are computed: what the deck says of it, what will lie where, and the
 * pager (page/pager.h) that sees to it. */
#ifndef QR_RUN_PAGING_H
#define QR_RUN_PAGING_H

#include "run/simulation.h"

/* What the deck says of memory.tiers, as far as it alone can tell. QR_USAGE points to the key. */
qr_status qr_paging_check(const qr_deck *deck);

#endif
