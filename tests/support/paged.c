#include "paged.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static qr_status start_backend(paged *p)
{
    const qr_backend_ops *cpu = qr_backend_find("cpu");
    int top = p->setup.on_device ? QR_MEMORY_GPU : QR_MEMORY_CPU;
    p->with = (qr_backend_setup){.model = p->c->model,
                                 .network = p->c->network[0],
                                 .threads = p->setup.threads > 0 ? p->setup.threads : 1,
                                 .page_agents = p->setup.page_agents,
                                 .n_frames = p->setup.room[top] > 0 ? p->setup.room[top] : 1};
    qr_status status = cpu->create(&p->with, &p->backend);
    if (status == QR_OK && p->setup.on_device) {
        p->device = late_device_create(p->backend, &p->with, p->setup.seed);
    }
    return status;
}

qr_status paged_open(const crowd *c, const paged_setup *setup, paged *out)
{
    memset(out, 0, sizeof *out);
    paged *p = out;
    p->c = c;
    p->setup = *setup;
    p->agent_bytes = c->model->state_dim * (int64_t)sizeof(float);
    p->n_pages = (c->spec.n_agents + setup->page_agents - 1) / setup->page_agents;
    qr_status status = start_backend(p);
    if (status != QR_OK) {
        return status;
    }
    int64_t disk[PAGE_SERVER_TIERS];
    for (int tier = 0; tier < PAGE_SERVER_TIERS; tier++) {
        disk[tier] = setup->server_room[tier] > 0 ? setup->server_room[tier] : setup->room[QR_MEMORY_NVME + tier];
        p->served = p->served || (disk[tier] > 0 && setup->queue == NULL);
    }
    if (p->served) {
        page_server_start(&p->server, setup->n_slots > 0 ? setup->n_slots : 4, setup->page_agents * p->agent_bytes,
                          p->n_pages, disk, setup->seed);
    }
    p->config = (qr_pager_config){.ops = p->device != NULL ? &late_device_ops : qr_backend_find("cpu"),
                                  .backend = p->device != NULL ? late_device_backend(p->device) : p->backend,
                                  .queue = p->served ? &p->server.producer : setup->queue,
                                  .timeout_s = setup->timeout_s > 0 ? setup->timeout_s : 60,
                                  .n_agents = c->spec.n_agents,
                                  .page_agents = setup->page_agents,
                                  .agent_bytes = p->agent_bytes,
                                  .high = setup->high > 0 ? setup->high : 1,
                                  .low = setup->high > 0 ? setup->low : 1,
                                  .sequential = setup->sequential,
                                  .correlated = setup->correlated,
                                  .ahead = setup->ahead,
                                  .threads = setup->threads,
                                  .plain_lru = setup->plain_lru};
    for (int tier = 0; tier < QR_N_MEMORY_TIERS; tier++) {
        p->config.tiers[tier] = (qr_memory_tier_config){setup->room[tier] > 0, setup->room[tier], setup->age_s};
    }
    return qr_pager_create(&p->config, &p->pager);
}

void paged_close(paged *p)
{
    qr_pager_destroy(p->pager);
    if (p->device != NULL) {
        assert_int_equal(late_device_blocks(p->device), 0);
        late_device_destroy(p->device);
    }
    if (p->backend != NULL) {
        qr_backend_find("cpu")->destroy(p->backend);
    }
    if (p->served) {
        page_server_stop(&p->server);
    }
}

qr_status paged_step(paged *p, int64_t step, const qr_tally *before, qr_tally *out)
{
    const qr_backend_ops *cpu = qr_backend_find("cpu");
    const qr_halo *halo = &p->c->network[0]->halo;
    for (int i = 0; i < halo->n_peers; i++) { /* the only part's own votes */
        void *message = malloc((size_t)cpu->halo_bytes(p->backend, halo->peers[i].send_count) + 8);
        assert_non_null(message);
        assert_int_equal(cpu->halo_pack(p->backend, &halo->peers[i], message), QR_OK);
        assert_int_equal(cpu->halo_place(p->backend, &halo->peers[i], message), QR_OK);
        free(message);
    }
    return qr_pager_step(p->pager, step, before, out);
}

const char *paged_describe(const paged *p)
{
    static char text[512];
    const paged_setup *s = &p->setup;
    (void)snprintf(text, sizeof text,
                   "%lld pages of %lld agents on a %s, room %lld %lld %lld %lld %lld, %d slots, ahead %lld%s%s%s, "
                   "watermarks %g %g, ages %g, seed %llu",
                   (long long)p->n_pages, (long long)s->page_agents, s->on_device ? "device" : "host",
                   (long long)s->room[0], (long long)s->room[1], (long long)s->room[2], (long long)s->room[3],
                   (long long)s->room[4], s->n_slots, (long long)s->ahead, s->sequential ? ", sequential" : "",
                   s->correlated ? ", correlated" : "", s->plain_lru ? ", plain" : "", p->config.high, p->config.low,
                   s->age_s, (unsigned long long)s->seed);
    return text;
}

void paged_equals(paged *p, const char *what)
{
    size_t n = (size_t)p->c->spec.n_agents;
    uint8_t *votes = malloc(2 * n);
    float *states = malloc(2 * n * (size_t)p->agent_bytes);
    assert_non_null(votes);
    assert_non_null(states);
    float *expected = states + n * (size_t)p->c->model->state_dim;
    crowd_votes(p->c, votes + n);
    crowd_state(p->c, expected);
    assert_int_equal(qr_backend_find("cpu")->read_votes(p->backend, 0, p->c->spec.n_agents, votes), QR_OK);
    if (memcmp(votes, votes + n, n) != 0) {
        fail_msg("%s: other votes (%s)", what, paged_describe(p));
    }
    if (qr_pager_read(p->pager, 0, p->c->spec.n_agents, states) != QR_OK) {
        fail_msg("%s: %s (%s)", what, qr_error_message(), paged_describe(p));
    }
    for (size_t i = 0; i < n; i++) {
        size_t dim = (size_t)p->c->model->state_dim;
        if (memcmp(states + i * dim, expected + i * dim, (size_t)p->agent_bytes) != 0) {
            fail_msg("%s: agent %zu of page %zu has another state (%s)", what, i, i / (size_t)p->setup.page_agents,
                     paged_describe(p));
        }
    }
    free(votes);
    free(states);
}
