/* What the page store knows of each page. All with the lock. */
#include "base/memory.h"
#include "io/page_store_parts.h"

#include <stdlib.h>
#include <string.h>

qr_page_entry *qr_page_entry_find(qr_page_store *store, int producer, int64_t page)
{
    qr_page_table *table = &store->tables[producer];
    return page >= 0 && (size_t)page < table->n ? &table->entries[page] : NULL;
}

qr_status qr_page_entry_make(qr_page_store *store, int producer, int64_t page)
{
    qr_page_table *table = &store->tables[producer];
    if (page < 0 || page >= QR_MOST_STORED_PAGES) {
        return qr_error(QR_INTERNAL, "page %lld is out of range", (long long)page);
    }
    size_t n = (size_t)page + 1;
    qr_status status = qr_grow((void **)&table->entries, &table->room, n, sizeof(qr_page_entry), "a table of pages");
    if (status == QR_OK && n > table->n) {
        memset(table->entries + table->n, 0, (n - table->n) * sizeof(qr_page_entry));
        table->n = n;
    }
    return status;
}

void qr_extent_release(qr_page_store *store, qr_extent *extent)
{
    if (extent != NULL && --extent->uses == 0) {
        store->tiers[extent->tier].taken[extent->producer]--;
        qr_extents_give(&store->tiers[extent->tier].extents, extent);
        store->freed = true;
        store->frees++;
    }
}

static void count(qr_page_store *store, const qr_extent *extent, int64_t sign)
{
    if (extent != NULL) {
        qr_page_tier_totals *totals = &store->tiers[extent->tier].totals;
        totals->pages += sign;
        totals->stored_bytes += sign * qr_store_blocks((int64_t)extent->stored_bytes) * QR_STORE_BLOCK;
    }
}

void qr_page_entry_set(qr_page_store *store, qr_page_entry *entry, qr_extent *extent)
{
    count(store, entry->now, -1);
    count(store, extent, 1);
    qr_extent_release(store, entry->now);
    entry->now = extent;
    for (qr_page_hold *hold = entry->holds; hold != NULL && extent != NULL; hold = hold->next) {
        if (hold->extent == NULL && hold->version == extent->version) {
            hold->extent = extent;
            extent->uses++;
        }
    }
}

static qr_page_hold **find_hold(qr_page_entry *entry, int64_t version)
{
    qr_page_hold **at = &entry->holds;
    while (*at != NULL && (*at)->version != version) {
        at = &(*at)->next;
    }
    return at;
}

qr_extent *qr_page_entry_version(qr_page_entry *entry, int64_t version)
{
    if (entry->now != NULL && entry->now->version == version) {
        return entry->now;
    }
    qr_page_hold *hold = *find_hold(entry, version);
    return hold == NULL ? NULL : hold->extent;
}

void qr_page_entry_hold(qr_page_store *store, qr_page_entry *entry, int64_t version)
{
    qr_page_hold **at = find_hold(entry, version);
    qr_page_hold *hold = *at;
    if (hold == NULL) {
        hold = store->spare_holds;
        if (hold != NULL) {
            store->spare_holds = hold->next;
        } else {
            hold = malloc(sizeof *hold);
        }
        if (hold == NULL) {
            return; /* the read may find another version, and will say so */
        }
        store->held++;
        *hold = (qr_page_hold){.version = version, .extent = qr_page_entry_version(entry, version)};
        if (hold->extent != NULL) {
            hold->extent->uses++;
        }
        *at = hold;
    }
    hold->count++;
}

void qr_page_entry_let_go(qr_page_store *store, qr_page_entry *entry, int64_t version)
{
    qr_page_hold **at = find_hold(entry, version);
    qr_page_hold *hold = *at;
    if (hold != NULL && --hold->count == 0) {
        *at = hold->next;
        store->held--;
        store->let_go++;
        qr_extent_release(store, hold->extent);
        hold->next = store->spare_holds;
        store->spare_holds = hold;
    }
}

void qr_page_tables_destroy(qr_page_store *store)
{
    for (int i = 0; i < store->n_queues && store->tables != NULL; i++) {
        qr_page_table *table = &store->tables[i];
        for (size_t n = 0; n < table->n; n++) {
            while (table->entries[n].holds != NULL) {
                qr_page_hold *next = table->entries[n].holds->next;
                free(table->entries[n].holds);
                table->entries[n].holds = next;
            }
        }
        free(table->entries);
    }
    while (store->spare_holds != NULL) {
        qr_page_hold *next = store->spare_holds->next;
        free(store->spare_holds);
        store->spare_holds = next;
    }
    free(store->tables);
}
