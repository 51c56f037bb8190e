#include "page/table.h"

#include "base/memory.h"

#include <stdlib.h>

static const char *const tier_names[QR_N_MEMORY_TIERS] = {"gpu", "cpu", "nvme", "ssd", "hdd"};

const char *qr_memory_tier_name(qr_memory_tier tier)
{
    return (int)tier >= 0 && tier < QR_N_MEMORY_TIERS ? tier_names[tier] : "nowhere";
}

qr_status qr_page_table_create(int64_t n_pages, qr_page_table *out)
{
    qr_status status = qr_allocate((size_t)n_pages, sizeof *out->entries, "the page table", (void **)&out->entries);
    if (status != QR_OK) {
        return status;
    }
    out->n_pages = n_pages;
    for (int64_t page = 0; page < n_pages; page++) {
        out->entries[page] =
            (qr_page_entry){.place = -1, .older = -1, .newer = -1, .slot = QR_NO_SLOT, .tier = QR_PAGE_NOWHERE};
    }
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        out->done[tier] = out->due[tier] = (qr_page_list){-1, -1, 0};
    }
    return QR_OK;
}

void qr_page_table_clear(qr_page_table *table)
{
    free(table->entries);
    table->entries = NULL;
}

int64_t qr_page_tier_count(const qr_page_table *table, int tier)
{
    return table->done[tier].count + table->due[tier].count;
}

static qr_page_list *list_of(qr_page_table *table, const qr_page_entry *entry)
{
    return entry->flags & QR_PAGE_DUE ? &table->due[entry->tier] : &table->done[entry->tier];
}

static void take_out(qr_page_table *table, int64_t page)
{
    qr_page_entry *entry = &table->entries[page];
    if (entry->tier == QR_PAGE_NOWHERE) {
        return;
    }
    qr_page_list *list = list_of(table, entry);
    if (entry->older >= 0) {
        table->entries[entry->older].newer = entry->newer;
    } else {
        list->oldest = entry->newer;
    }
    if (entry->newer >= 0) {
        table->entries[entry->newer].older = entry->older;
    } else {
        list->newest = entry->older;
    }
    entry->older = entry->newer = -1;
    list->count--;
}

static void put_in(qr_page_table *table, int64_t page)
{
    qr_page_entry *entry = &table->entries[page];
    if (entry->tier == QR_PAGE_NOWHERE) {
        return;
    }
    qr_page_list *list = list_of(table, entry);
    entry->older = list->newest;
    entry->newer = -1;
    if (list->newest >= 0) {
        table->entries[list->newest].newer = page;
    } else {
        list->oldest = page;
    }
    list->newest = page;
    list->count++;
}

void qr_page_move(qr_page_table *table, int64_t page, int tier)
{
    take_out(table, page);
    table->entries[page].tier = (uint8_t)tier;
    put_in(table, page);
}

void qr_page_set_due(qr_page_table *table, int64_t page)
{
    take_out(table, page);
    table->entries[page].flags |= QR_PAGE_DUE;
    put_in(table, page);
}

void qr_page_touch(qr_page_table *table, int64_t page, double now_s)
{
    qr_page_entry *entry = &table->entries[page];
    take_out(table, page);
    entry->flags = (uint16_t)(entry->flags & ~(unsigned)QR_PAGE_DUE);
    entry->last_s = now_s;
    entry->accesses++;
    put_in(table, page);
}

int64_t qr_page_victim(const qr_page_table *table, int tier, bool due_too)
{
    const unsigned stays = QR_PAGE_PINNED | QR_PAGE_IN_FLIGHT | QR_PAGE_ARRIVED;
    for (int64_t page = table->done[tier].oldest; page >= 0; page = table->entries[page].newer) {
        if ((table->entries[page].flags & stays) == 0) {
            return page;
        }
    }
    for (int64_t page = table->due[tier].newest; due_too && page >= 0; page = table->entries[page].older) {
        if ((table->entries[page].flags & stays) == 0) {
            return page;
        }
    }
    return -1;
}
