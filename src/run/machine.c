#include "run/simulation.h"

#include <hwloc.h>
#include <unistd.h>

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

int64_t qr_machine_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (int64_t)pages * page_bytes : 0;
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
