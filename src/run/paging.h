/* States of agents that do not fit where they are computed: what the deck says of it, what will lie where, and the
 * pager (page/pager.h) that sees to it. */
#ifndef QR_RUN_PAGING_H
#define QR_RUN_PAGING_H

#include "run/simulation.h"

/* --- paging.c: whether states are paged --- */

/* What the deck says of memory.tiers, as far as it alone can tell. QR_USAGE points to the key. */
qr_status qr_paging_check(const qr_deck *deck);

/* A tier that is a disk, numbered as in io/checkpoint.h. */
const qr_deck_memory_tier *qr_paging_disk(const qr_deck *deck, int tier);

/* Where one compute rank's states are to go: what has to be known beside the deck. */
typedef struct qr_paging_place {
    int64_t page_agents, agent_bytes;
    int64_t own;                           /* agents of this rank */
    int node;                              /* its number */
    int ranks_here;                        /* compute ranks that share what the deck gives to a node, */
    int ranks_on_machine;                  /* and that share what the machine has */
    bool on_device;                        /* computed on a GPU */
    int64_t device_frames;                 /* pages that fit there beside all else, and the bytes that are free; */
    int64_t device_free;                   /* 0: not known */
    int64_t free_bytes;                    /* of the machine's memory, for states of all its compute ranks */
    qr_paging_disk_room disks[QR_N_TIERS]; /* of the tiers that are used */
} qr_paging_place;

/* Fills in all but the pager. paging->wanted is false where all states fit, or nothing below would take those that do
 * not and the deck names no limit. QR_USAGE when a capacity does not hold a single page, QR_RESOURCE or QR_USAGE when
 * all tiers together are too small: with bytes needed, bytes there, and the keys that help. */
qr_status qr_paging_plan(const qr_deck *deck, const qr_paging_place *place, qr_paging *paging);

/* Bytes of memory, or of a disk, that `auto` gives to states: what is free, less head-room. */
int64_t qr_paging_auto_bytes(int64_t free_bytes);

/* Decides for this rank, whose backend is about to be made: sets frames in *setup. Collective over the compute ranks,
 * of which all page or none. */
qr_status qr_paging_decide(qr_simulation *simulation, qr_backend_setup *setup);

/* The rest of the world learns of it. Collective over the world. */
void qr_paging_share(qr_simulation *simulation);

/* For a dry run, and for a check, whose communication is foreseen: what would lie where, with how many threads. Sets
 * simulation->paging and threads. Of compute ranks, after qr_foresee_backend; local. */
qr_status qr_paging_foresee(qr_simulation *simulation, const qr_model *model);

/* sum_paging.c: counts of all compute ranks and servers, as far as they are. Collective over compute, between two
 * steps.
 */
void qr_paging_add_up(qr_simulation *simulation);

/* leftovers.c: removes page files of an earlier attempt of these results from where it had its tiers, before its deck is
 * replaced. Collective over the world. */
qr_status qr_paging_clear_leftovers(const qr_simulation *simulation);

/* Slots of a queue for pages on their way, beside the others; 0 when no state is to go to disk. */
int64_t qr_paging_slots(const qr_simulation *simulation);

/* Bytes of states that a part keeps in memory of the host. */
int64_t qr_paging_resident_bytes(const qr_paging *paging);

/* --- paging_text.c: the plan in words, a line each, no more than n bytes --- */

/* Whether a deck says anything of where states are to be. */
bool qr_paging_is_told(const qr_deck *deck);

/* Appends to a text in n bytes, as far as it fits. */
void qr_paging_append(char *text, size_t n, const char *format, ...) QR_PRINTF(3, 4);

/* "1.5 GiB". */
const char *qr_bytes_text(double bytes, char out[32]);

void qr_paging_describe(const qr_deck *deck, const qr_paging *paging, int threads, char *out, size_t n);

/* --- states.c: states of own agents, wherever they lie --- */

/* Pager and page store. A restart, or first states, may fill them while no I/O server runs yet: until qr_paging_settle
 * a thread serves them. Collective over the world. */
qr_status qr_paging_begin(qr_simulation *simulation);
void qr_paging_settle(qr_simulation *simulation);
void qr_paging_clear_pager(qr_simulation *simulation); /* before the backend */
void qr_paging_clear_store(qr_simulation *simulation); /* after the server */

qr_status qr_states_make_first(qr_simulation *simulation);
qr_status qr_states_step(qr_simulation *simulation, int64_t step, int colour, const qr_tally *before);
qr_status qr_states_read(const qr_simulation *simulation, int64_t first, int64_t count, float *out);
qr_status qr_states_write(const qr_simulation *simulation, int64_t first, int64_t count, const float *state);
qr_status qr_states_copy_out(qr_simulation *simulation, const qr_piece *pieces, int64_t n);

#endif
