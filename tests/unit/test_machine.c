/* Where ranks compute, on a machine that hwloc reads from a file: two packages with two and three cores, a GPU on each,
 * and one on the machine as a whole. */
#include "run/simulation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SETS(cores, node)                                                                                              \
    "cpuset=\"" cores "\" complete_cpuset=\"" cores "\" nodeset=\"" node "\" complete_nodeset=\"" node "\""
#define CORE(number, cores, node)                                                                                      \
    "<object type=\"Core\" os_index=\"" number "\" gp_index=\"1" number                                                \
    "\" " SETS(cores, node) ">"                                                                                        \
                            "<object type=\"PU\" os_index=\"" number "\" gp_index=\"2" number                          \
                            "\" " SETS(cores, node) "/></object>"
#define NODE(number, cores, node)                                                                                      \
    "<object type=\"NUMANode\" os_index=\"" number "\" gp_index=\"3" number                                            \
    "\" " SETS(cores, node) " local_memory=\"1073741824\"><page_type size=\"4096\" count=\"262144\"/></object>"
#define PACKAGE(number, cores, node)                                                                                   \
    "<object type=\"Package\" os_index=\"" number "\" gp_index=\"4" number                                             \
    "\" " SETS(cores, node) ">" NODE(number, cores, node)
#define GPU(number, bus)                                                                                               \
    "<object type=\"Bridge\" gp_index=\"5" number "\" bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[" bus "-" bus \
    "]\"><object type=\"PCIDev\" gp_index=\"6" number "\" pci_busid=\"0000:" bus ":00.0\""                             \
    " pci_type=\"0302 [10de:2330] [10de:16c1] a1\" pci_link_speed=\"0.0\"/></object>"

static const char machine[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">"
    "<object type=\"Machine\" os_index=\"0\" gp_index=\"1\" allowed_cpuset=\"0x1f\" allowed_nodeset=\"0x3\" " SETS(
        "0x1f", "0x3") ">" PACKAGE("0", "0x3", "0x1") CORE("0", "0x1", "0x1") CORE("1", "0x2", "0x1")
        GPU("0", "1b") "</object>" PACKAGE("1", "0x1c", "0x2") CORE("2", "0x4", "0x2") CORE("3", "0x8", "0x2")
            CORE("4", "0x10", "0x2") GPU("1", "cd") "</object>" GPU("2", "e0") "</object></topology>\n";

static void a_rank_goes_next_to_its_device(void **state)
{
    (void)state;
    assert_int_equal(qr_machine_cores(), 5);
    assert_int_equal(qr_machine_bind_near("0000:1b:00.0"), 2);
    assert_int_equal(qr_machine_bind_near("0000:CD:00.0"), 3); /* as CUDA writes it */
}

static void a_rank_stays_where_no_core_is_nearer(void **state)
{
    (void)state;
    assert_int_equal(qr_machine_bind_near("0000:e0:00.0"), 0);
    assert_int_equal(qr_machine_bind_near("0000:77:00.0"), 0);
    assert_int_equal(qr_machine_bind_near("nonsense"), 0);
}

int main(void)
{
    char path[] = "/tmp/qr-machine-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || write(file, machine, sizeof machine - 1) != (ssize_t)sizeof machine - 1 || close(file) != 0) {
        return 1;
    }
    (void)setenv("HWLOC_XMLFILE", path, 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_rank_goes_next_to_its_device),
                                       cmocka_unit_test(a_rank_stays_where_no_core_is_nearer)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
