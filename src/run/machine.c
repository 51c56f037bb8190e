#include "run/simulation.h"

#include "io/source.h"

#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SYSTEM_TEXT = 1 << 16 };

int qr_machine_cores(void)
{
    int cores = 1;
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0) {
        return cores;
    }
    if (hwloc_topology_load(topology) == 0) {
        hwloc_bitmap_t bound = hwloc_bitmap_alloc();
        if (bound != NULL && hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_PROCESS) == 0) {
            cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, bound, HWLOC_OBJ_CORE);
        } else {
            cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
        }
        hwloc_bitmap_free(bound);
    }
    hwloc_topology_destroy(topology);
    return cores > 0 ? cores : 1;
}

/* The cores of the smallest part of the machine that the device hangs on; NULL where that is not known. */
static hwloc_const_bitmap_t find_near(hwloc_topology_t topology, const char *address)
{
    hwloc_obj_t device = hwloc_get_pcidev_by_busidstring(topology, address);
    hwloc_obj_t around = device != NULL ? hwloc_get_non_io_ancestor_obj(topology, device) : NULL;
    return around != NULL ? around->cpuset : NULL;
}

int qr_machine_bind_near(const char *address)
{
    int cores = 0;
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0) {
        return 0;
    }
    (void)hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    if (bound != NULL && hwloc_topology_load(topology) == 0 &&
        hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_PROCESS) == 0) {
        hwloc_const_bitmap_t all = hwloc_topology_get_allowed_cpuset(topology);
        hwloc_const_bitmap_t near = find_near(topology, address);
        bool is_free = hwloc_bitmap_isincluded(all, bound);
        bool helps = near != NULL && !hwloc_bitmap_iszero(near) && !hwloc_bitmap_isincluded(all, near);
        if (is_free && helps && hwloc_set_cpubind(topology, near, HWLOC_CPUBIND_PROCESS) == 0) {
            cores = hwloc_get_nbobjs_inside_cpuset_by_type(topology, near, HWLOC_OBJ_CORE);
        }
    }
    hwloc_bitmap_free(bound);
    hwloc_topology_destroy(topology);
    return cores > 0 ? cores : 0;
}

int64_t qr_machine_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (int64_t)pages * page_bytes : 0;
}

/* The number after `name` at the beginning of a line, or alone in the file where that is ""; -1: none. */
static int64_t read_number(const char *path, const char *name)
{
    char *text = NULL;
    size_t n = 0;
    long long value = -1;
    if (qr_io_read_text(path, MAX_SYSTEM_TEXT, &text, &n) != QR_OK) {
        return -1;
    }
    const char *at = text;
    size_t skip = strlen(name);
    while (at != NULL && strncmp(at, name, skip) != 0) {
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    if (at != NULL) {
        char *end = NULL;
        value = strtoll(at + skip, &end, 10);
        value = end == at + skip || value < 0 ? -1 : value; /* "max" */
    }
    free(text);
    return value;
}

/* What a control group leaves, of version 2 or 1; memory that merely caches files can be had back. -1: no limit. */
static int64_t group_leaves(void)
{
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    static const char *const used[][2] = {{"/sys/fs/cgroup/memory.stat", "anon "},
                                          {"/sys/fs/cgroup/memory/memory.stat", "total_rss "}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        int64_t limit = read_number(limits[i], "");
        int64_t taken = limit >= 0 ? read_number(used[i][0], used[i][1]) : -1;
        if (limit >= 0) {
            return taken > 0 && taken < limit ? limit - taken : limit;
        }
    }
    return -1;
}

int64_t qr_machine_free_memory(void)
{
    int64_t kib = read_number("/proc/meminfo", "MemAvailable:");
    int64_t have = kib >= 0 ? kib * 1024 : qr_machine_memory();
    int64_t left = group_leaves();
    return left >= 0 && left < have ? left : have;
}

qr_status qr_check_processor(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") ||
        !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt")) {
        return qr_error(QR_ENVIRONMENT,
                        "this processor has no fused multiply-add (FMA and AVX2 instructions), for which Quorate is "
                        "built; it runs on x86-64 processors of 2013 and later");
    }
#endif
    return QR_OK;
}
