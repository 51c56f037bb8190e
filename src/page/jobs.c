/* Pages and the server: what is asked, and what becomes of the answers. */
#include "base/timer.h"
#include "page/parts.h"

#include <stdio.h>
#include <string.h>

int64_t qr_pager_agents_of(const qr_pager *pager, int64_t page)
{
    int64_t left = pager->config.n_agents - page * pager->config.page_agents;
    return left < pager->config.page_agents ? left : pager->config.page_agents;
}

int64_t qr_pager_bytes_of(const qr_pager *pager, int64_t page)
{
    return qr_pager_agents_of(pager, page) * pager->config.agent_bytes;
}

static void set_flags(qr_page_entry *entry, unsigned set, unsigned clear)
{
    entry->flags = (uint16_t)((entry->flags & ~clear) | set);
}

/* --- slots --- */

static void forget_slot(qr_pager *pager, int32_t slot)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < pager->n_busy; i++) {
        if (pager->busy_slots[i] != slot) {
            pager->busy_slots[kept++] = pager->busy_slots[i];
        }
    }
    pager->n_busy = kept;
}

void qr_pager_give_slot(qr_pager *pager, int32_t slot)
{
    if (pager->keeps_slot && pager->own_slot == QR_NO_SLOT) {
        pager->own_slot = slot;
    } else {
        qr_queue_return_slot(pager->config.queue, slot);
    }
}

void qr_pager_let_go(qr_pager *pager, int64_t page)
{
    qr_page_entry *entry = &pager->table.entries[page];
    pager->wasted += entry->flags & QR_PAGE_AHEAD ? 1 : 0;
    forget_slot(pager, entry->slot);
    qr_pager_give_slot(pager, entry->slot);
    entry->slot = QR_NO_SLOT;
    set_flags(entry, 0, QR_PAGE_ARRIVED | QR_PAGE_AHEAD | QR_PAGE_TOO_LATE);
}

/* Of the pages that stand in slots the one that was asked for last. */
static int64_t newest_arrived(const qr_pager *pager, int64_t but)
{
    for (int32_t i = pager->n_busy - 1; i >= 0; i--) {
        const qr_page_job *job = &pager->jobs[pager->busy_slots[i]];
        if (!job->asked && job->page != but) {
            return job->page;
        }
    }
    return -1;
}

qr_status qr_pager_take_slot(qr_pager *pager, int64_t page, bool demand, int32_t *slot)
{
    *slot = qr_queue_try_slot(pager->config.queue);
    if (*slot != QR_NO_SLOT || !demand) {
        return QR_OK;
    }
    int64_t other = newest_arrived(pager, page);
    if (other >= 0) {
        qr_pager_let_go(pager, other);
        *slot = qr_queue_try_slot(pager->config.queue);
        return QR_OK;
    }
    if (pager->n_busy > 0 || pager->fills.count + pager->n_to_fill > 0) {
        return QR_OK;
    }
    if (pager->own_slot != QR_NO_SLOT) { /* the caller may hold all others, and wait for this page */
        *slot = pager->own_slot;
        pager->own_slot = QR_NO_SLOT;
        return QR_OK;
    }
    return qr_queue_wait_slot(pager->config.queue, pager->config.timeout_s, slot, NULL);
}

/* --- asking --- */

static qr_status ask(qr_pager *pager, int64_t page, qr_job_kind kind, const int64_t arguments[4], int to, int32_t slot)
{
    qr_job job = {.kind = (uint32_t)kind,
                  .first = page * pager->config.page_agents,
                  .count = qr_pager_agents_of(pager, page),
                  .bytes = kind == QR_JOB_PAGE_SINK ? 0 : qr_pager_bytes_of(pager, page),
                  .slot = slot};
    memcpy(job.arguments, arguments, sizeof job.arguments);
    qr_status status = qr_queue_ask(pager->config.queue, &job, pager->config.timeout_s);
    if (status != QR_OK) {
        return status;
    }
    int from = pager->table.entries[page].tier;
    double now_s = qr_now_s();
    pager->jobs[slot] = (qr_page_job){
        .page = page, .started = now_s, .kind = kind, .asked = true, .from = (uint8_t)from, .to = (uint8_t)to};
    qr_link_start(&pager->links[from][to], now_s);
    forget_slot(pager, slot); /* where it held a page, now it holds another */
    pager->busy_slots[pager->n_busy++] = slot;
    pager->n_asked++;
    pager->table.entries[page].slot = slot;
    return QR_OK;
}

qr_status qr_pager_get(qr_pager *pager, int64_t page, int32_t slot)
{
    qr_page_entry *entry = &pager->table.entries[page];
    const int64_t arguments[4] = {page, entry->tier - QR_MEMORY_NVME, entry->version, 0};
    qr_status status = ask(pager, page, QR_JOB_PAGE_GET, arguments, pager->top, slot);
    if (status == QR_OK) {
        set_flags(entry, QR_PAGE_GETTING, 0);
    }
    return status;
}

static qr_status wait_sink(qr_pager *pager)
{
    for (int32_t i = 0; i < pager->n_busy; i++) {
        const qr_page_job *job = &pager->jobs[pager->busy_slots[i]];
        if (job->asked && job->kind == QR_JOB_PAGE_SINK) {
            return qr_pager_wait_job(pager, pager->busy_slots[i]);
        }
    }
    return QR_OK;
}

/* Pages that are there, and may be there, of each tier. */
static qr_status no_room(const qr_pager *pager, int64_t page)
{
    char tiers[160] = "";
    size_t used = 0;
    for (int tier = QR_MEMORY_NVME; tier < QR_N_MEMORY_TIERS; tier++) {
        if (pager->config.tiers[tier].used && used < sizeof tiers) {
            used += (size_t)snprintf(tiers + used, sizeof tiers - used, "%s%s %lld of %lld", used > 0 ? ", " : "",
                                     qr_memory_tier_name((qr_memory_tier)tier),
                                     (long long)qr_page_tier_count(&pager->table, tier),
                                     (long long)pager->config.tiers[tier].pages);
        }
    }
    return qr_error(QR_RESOURCE,
                    "no memory tier has room for page %lld of the states (%lld bytes); pages there, and most: %s; "
                    "memory.tiers.*.capacity and .directory say where pages may go",
                    (long long)page, (long long)qr_pager_bytes_of(pager, page), used > 0 ? tiers : "there is no disk");
}

qr_status qr_pager_put(qr_pager *pager, int64_t page, int32_t slot)
{
    qr_page_entry *entry = &pager->table.entries[page];
    int tier = qr_policy_room(&pager->table, pager->config.tiers, QR_MEMORY_NVME);
    while (tier < 0 && pager->n_sinks > 0) { /* leaves room where it was when it is done */
        qr_status sunk = wait_sink(pager);
        if (sunk != QR_OK) {
            return sunk;
        }
        tier = qr_policy_room(&pager->table, pager->config.tiers, QR_MEMORY_NVME);
    }
    if (tier < 0) {
        return no_room(pager, page);
    }
    entry->version++;
    const int64_t arguments[4] = {page, tier - QR_MEMORY_NVME, entry->version, qr_pager_agents_of(pager, page)};
    qr_status status = ask(pager, page, QR_JOB_PAGE_PUT, arguments, tier, slot);
    if (status == QR_OK) {
        pager->wasted += entry->flags & QR_PAGE_AHEAD ? 1 : 0;
        set_flags(entry, QR_PAGE_PUTTING, QR_PAGE_AHEAD | QR_PAGE_TOO_LATE);
        qr_page_move(&pager->table, page, tier);
        entry->place = -1;
    }
    return status;
}

qr_status qr_pager_sink(qr_pager *pager, int64_t page, int below, int32_t slot)
{
    qr_page_entry *entry = &pager->table.entries[page];
    const int64_t arguments[4] = {page, entry->tier - QR_MEMORY_NVME, entry->version, below - QR_MEMORY_NVME};
    qr_status status = ask(pager, page, QR_JOB_PAGE_SINK, arguments, below, slot);
    if (status == QR_OK) {
        set_flags(entry, QR_PAGE_SINKING, 0);
        pager->n_sinks++;
        pager->table.promised[below]++;
    }
    return status;
}

qr_status qr_pager_take_over(qr_pager *pager, int64_t page)
{
    qr_page_entry *entry = &pager->table.entries[page];
    qr_job job = {.kind = QR_JOB_PAGE_DROP, .slot = QR_NO_SLOT};
    job.arguments[0] = page;
    job.arguments[1] = entry->tier - QR_MEMORY_NVME;
    job.arguments[2] = entry->version;
    forget_slot(pager, entry->slot);
    entry->slot = QR_NO_SLOT;
    set_flags(entry, QR_PAGE_DIRTY, QR_PAGE_ARRIVED);
    return qr_queue_submit(pager->config.queue, &job, pager->config.timeout_s);
}

/* --- answers --- */

/* to: the tier where the page is now; QR_PAGE_NOWHERE: it could not be moved. */
static void count_move(qr_pager *pager, const qr_page_job *job, int to)
{
    qr_link(*links)[QR_N_MEMORY_TIERS] = pager->links;
    double now_s = qr_now_s();
    int64_t bytes = qr_pager_bytes_of(pager, job->page);
    if (to == job->to) {
        qr_link_end(&links[job->from][to], job->started, now_s, bytes);
    } else if (to >= QR_N_MEMORY_TIERS || to == job->from) {
        qr_link_cancel(&links[job->from][job->to], now_s);
    } else {
        qr_link_divert(&links[job->from][to], &links[job->from][job->to], job->started, now_s, bytes);
    }
}

static qr_status answered(qr_pager *pager, int32_t slot, qr_status status, int64_t value)
{
    qr_page_job *job = &pager->jobs[slot];
    qr_page_entry *entry = &pager->table.entries[job->page];
    int tier = (int)value + QR_MEMORY_NVME;
    bool placed = status == QR_OK && tier >= QR_MEMORY_NVME && tier < QR_N_MEMORY_TIERS;
    job->asked = false;
    pager->n_asked--;
    if (job->kind == QR_JOB_PAGE_SINK) {
        pager->n_sinks--;
        pager->table.promised[job->to]--;
    }
    count_move(pager, job, !placed ? QR_PAGE_NOWHERE : job->kind == QR_JOB_PAGE_GET ? pager->top : tier);
    set_flags(entry, 0, QR_PAGE_IN_FLIGHT);
    /* A sink is a favour: whatever keeps it from being done, the page is where it was. */
    bool stays = status != QR_OK && status != QR_INTERNAL && job->kind == QR_JOB_PAGE_SINK;
    if (status != QR_OK && !stays) {
        status = qr_error(status, "%s", qr_queue_answer_message(pager->config.queue, slot));
        status = qr_error_context(status, "page %lld of the states", (long long)job->page);
    } else if (job->kind == QR_JOB_PAGE_GET) {
        set_flags(entry, QR_PAGE_ARRIVED, 0);
        return QR_OK;
    } else if (stays) {
        pager->stuck[job->from] = true;
        status = QR_OK;
    } else if (!placed) {
        status = qr_error(QR_INTERNAL, "the I/O server put page %lld into tier %lld", (long long)job->page,
                          (long long)value);
    } else {
        set_flags(entry, 0, QR_PAGE_DIRTY);
        if (tier != entry->tier) { /* it sank, or the server found the tier full */
            qr_page_move(&pager->table, job->page, tier);
        }
    }
    forget_slot(pager, slot);
    qr_pager_give_slot(pager, slot);
    entry->slot = QR_NO_SLOT;
    return status;
}

qr_status qr_pager_poll_jobs(qr_pager *pager)
{
    qr_status status = QR_OK;
    for (int32_t i = 0; i < pager->n_busy && pager->n_asked > 0 && status == QR_OK;) {
        int32_t slot = pager->busy_slots[i];
        qr_status said = QR_OK;
        int64_t value = 0;
        if (pager->jobs[slot].asked && qr_queue_answered(pager->config.queue, slot, &said, &value)) {
            status = answered(pager, slot, said, value);
        }
        i += i < pager->n_busy && pager->busy_slots[i] == slot ? 1 : 0; /* else another has moved up */
    }
    return status;
}

qr_status qr_pager_wait_job(qr_pager *pager, int32_t slot)
{
    qr_status said = QR_OK;
    int64_t value = 0;
    qr_status status = qr_queue_wait_answer(pager->config.queue, slot, pager->config.timeout_s, &said, &value);
    if (status != QR_OK) {
        return qr_error_context(status, "page %lld of the states", (long long)pager->jobs[slot].page);
    }
    return answered(pager, slot, said, value);
}

/* --- sinking --- */

qr_status qr_pager_sink_some(qr_pager *pager, double now_s)
{
    const qr_memory_tier_config *tiers = pager->config.tiers;
    for (int tier = QR_MEMORY_NVME; tier < QR_MEMORY_HDD; tier++) {
        int below = tiers[tier].used ? qr_policy_room(&pager->table, tiers, tier + 1) : -1;
        if (below < 0 || pager->stuck[tier] || !pager->pressed[tier]) {
            continue;
        }
        int64_t surplus = qr_policy_surplus(qr_page_tier_count(&pager->table, tier), tiers[tier].pages,
                                            pager->config.high, pager->config.low, &pager->sinking[tier]);
        int64_t page = surplus > 0 ? qr_page_victim(&pager->table, tier, false)
                                   : qr_policy_aged(&pager->table, tier, &tiers[tier], pager->config.low,
                                                    pager->swept_s[1], now_s);
        int32_t slot = QR_NO_SLOT;
        bool idle = pager->n_sinks == 0 && pager->n_busy <= pager->config.queue->n_slots / 2;
        if (page >= 0 && idle) { /* one at a time, and not in the way of pages that somebody waits for */
            qr_status status = qr_pager_take_slot(pager, page, false, &slot);
            if (status != QR_OK || slot == QR_NO_SLOT) {
                return status;
            }
            status = qr_pager_sink(pager, page, below, slot);
            if (status != QR_OK) {
                return status;
            }
        }
    }
    return QR_OK;
}
