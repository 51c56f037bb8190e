#include "cases.h"

#include "base/permutation.h"
#include "network/internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int64_t case_pick(uint64_t *state, int64_t low, int64_t high)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return low + (int64_t)(qr_mix64(*state) % (uint64_t)(high - low + 1));
}

static void append(drawn_case *drawn, const char *format, ...) QR_PRINTF(2, 3);

static void append(drawn_case *drawn, const char *format, ...)
{
    size_t used = strlen(drawn->text);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(drawn->text + used, sizeof drawn->text - used, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof drawn->text - used) {
        abort();
    }
}

static double pick_unit(uint64_t *state)
{
    return (double)case_pick(state, 0, 999999) / 1e6;
}

/* Mostly a few; sometimes as many as there can be. */
static int64_t pick_options(uint64_t *state, qr_rule_kind rule)
{
    int64_t kind = case_pick(state, 0, 9);
    if (kind < 4) {
        return 2;
    }
    return case_pick(state, 2, kind < 9 ? 9 : rule == QR_RULE_NEURAL ? 30 : 256);
}

static void draw_network(uint64_t *state, qr_network_kind kind, drawn_case *drawn)
{
    static const char *const neighbours[] = {"von_neumann", "moore"};
    static const char *const truth[] = {"false", "true"};
    int64_t n = case_pick(state, 0, 3) == 0 ? case_pick(state, 4, 70) : case_pick(state, 4, 700);
    int64_t periodic = case_pick(state, 0, 2) > 0 ? 1 : 0;
    int64_t least = periodic + 1;
    append(drawn, "network: {kind: %s", qr_network_kind_name(kind));
    switch (kind) {
    case QR_NETWORK_RING:
        append(drawn, ", degree: %lld", 2 * (long long)case_pick(state, 1, (n - 1) / 2 < 9 ? (n - 1) / 2 : 9));
        break;
    case QR_NETWORK_LATTICE2D: {
        int64_t x = case_pick(state, least, 40);
        int64_t y = case_pick(state, least, 20);
        n = x * y;
        append(drawn, ", size: [%lld, %lld], neighbours: %s, periodic: %s", (long long)x, (long long)y,
               neighbours[case_pick(state, 0, 1)], truth[periodic]);
        break;
    }
    case QR_NETWORK_LATTICE3D: {
        int64_t x = case_pick(state, least, 12);
        int64_t y = case_pick(state, least, 9);
        int64_t z = case_pick(state, least, 7);
        n = x * y * z;
        append(drawn, ", size: [%lld, %lld, %lld], neighbours: %s, periodic: %s", (long long)x, (long long)y,
               (long long)z, neighbours[case_pick(state, 0, 1)], truth[periodic]);
        break;
    }
    case QR_NETWORK_RANDOM_REGULAR: {
        int64_t degree = case_pick(state, 1, n - 1 < 8 ? n - 1 : 8);
        append(drawn, ", degree: %lld",
               (long long)(degree % 2 == 1 && n % 2 == 1 ? degree - 1 + 2 * (degree == 1) : degree));
        break;
    }
    case QR_NETWORK_SMALL_WORLD:
        append(drawn, ", degree: %lld, rewire: %g",
               2 * (long long)case_pick(state, 1, (n - 1) / 2 < 5 ? (n - 1) / 2 : 5), pick_unit(state));
        break;
    case QR_NETWORK_ERDOS_RENYI:
        append(drawn, ", mean_degree: %g", pick_unit(state) * (double)(n - 1 < 9 ? n - 1 : 9));
        break;
    case QR_NETWORK_SCALE_FREE:
        append(drawn, ", attach: %lld", (long long)case_pick(state, 1, n - 1 < 6 ? n - 1 : 6));
        break;
    case QR_NETWORK_EDGE_LIST: {
        int64_t pairs = case_pick(state, 0, 4 * n);
        drawn->arcs = malloc((size_t)(2 * pairs + 1) * sizeof *drawn->arcs);
        if (drawn->arcs == NULL) {
            abort();
        }
        for (int64_t i = 0; i < pairs; i++) {
            qr_edge arc = {case_pick(state, 0, n - 1), case_pick(state, 0, n - 1)};
            drawn->arcs[drawn->n_arcs++] = arc;
            drawn->arcs[drawn->n_arcs++] = (qr_edge){arc.to, arc.from};
        }
        append(drawn, ", file: none.txt");
        break;
    }
    case QR_NETWORK_COMPLETE: n = case_pick(state, 1, 300); break;
    }
    append(drawn, "}\n");
    drawn->n_agents = n;
}

static void draw_agents(uint64_t *state, int64_t options, drawn_case *drawn)
{
    append(drawn, "agents: {options: %lld, count: %lld", (long long)options, (long long)drawn->n_agents);
    if (case_pick(state, 0, 2) == 0) {
        append(drawn, ", initial: shares, shares: [1");
        for (int64_t k = 1; k < options; k++) {
            append(drawn, ", %g", case_pick(state, 0, 3) == 0 ? 0.0 : pick_unit(state));
        }
        append(drawn, "]");
    }
    append(drawn, "}\n");
}

static void draw_rule(uint64_t *state, qr_rule_kind rule, drawn_case *drawn, int64_t options)
{
    append(drawn, "model: {rule: %s", qr_rule_info_of(rule)->name);
    switch (rule) {
    case QR_RULE_MAJORITY:
        append(drawn, ", samples: %lld", (long long)(case_pick(state, 0, 1) == 0 ? 0 : case_pick(state, 1, 9)));
        break;
    case QR_RULE_Q_VOTER:
        append(drawn, ", q: %lld, epsilon: %g", (long long)case_pick(state, 1, 5),
               case_pick(state, 0, 1) == 0 ? 0.0 : pick_unit(state));
        break;
    case QR_RULE_POTTS:
        append(drawn, ", temperature: %g, dynamics: %s}\n", 0.05 + 2.0 * pick_unit(state),
               case_pick(state, 0, 1) == 0 ? "heat_bath" : "metropolis");
        return;
    case QR_RULE_BEST_OF_N:
        append(drawn, ", qualities: [1");
        for (int64_t k = 1; k < options; k++) {
            append(drawn, ", %g", 0.001 + 2.0 * pick_unit(state));
        }
        append(drawn, "]");
        break;
    case QR_RULE_NEURAL:
        append(drawn, ", state_dim: %lld, hidden: %lld, dt: %g, temperature: %g, weight_scale: 2",
               (long long)case_pick(state, 1, 20), (long long)case_pick(state, 1, 40), 0.05 + pick_unit(state),
               case_pick(state, 0, 1) == 0 ? 0.0 : 0.01 + pick_unit(state));
        break;
    case QR_RULE_VOTER:
    case QR_N_RULES: break;
    }
    if (case_pick(state, 0, 1) == 0) {
        append(drawn, ", noise: %g", case_pick(state, 0, 7) == 0 ? 1.0 : pick_unit(state) / 4);
    }
    if (case_pick(state, 0, 1) == 0) {
        int64_t left = drawn->n_agents;
        append(drawn, ", zealots: [");
        for (int64_t k = 0; k < options; k++) {
            int64_t here = case_pick(state, 0, left < 9 ? left : 9);
            left -= here;
            append(drawn, "%s%lld", k > 0 ? ", " : "", (long long)here);
        }
        append(drawn, "]");
    }
    append(drawn, "}\n");
}

void case_draw(uint64_t *state, qr_rule_kind rule, qr_network_kind kind, drawn_case *out)
{
    static const qr_network_kind coloured[] = {QR_NETWORK_RING, QR_NETWORK_LATTICE2D, QR_NETWORK_LATTICE3D};
    if (rule == QR_RULE_POTTS && kind == QR_NETWORK_COMPLETE) {
        kind = coloured[case_pick(state, 0, 2)];
    }
    memset(out, 0, sizeof *out);
    int64_t options = pick_options(state, rule);
    double activation = rule == QR_RULE_POTTS || case_pick(state, 0, 1) == 0 ? 1.0 : 0.001 + 0.99 * pick_unit(state);
    append(out, "run: {seed: %lld, activation: %g}\noutput: {directory: none}\n",
           (long long)case_pick(state, 0, INT64_MAX - 1), activation);
    draw_network(state, kind, out);
    draw_agents(state, options, out);
    draw_rule(state, rule, out, options);
}

void case_clear(drawn_case *drawn)
{
    free(drawn->arcs);
    drawn->arcs = NULL;
}
