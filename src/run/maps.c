/* I/O ranks have nothing to do with CUDA: no library of it is mapped into them, so that no device context and no fork
 * of a driver's thread ever gets between them and the files. */
#include "run/simulation.h"

#include "io/source.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MAPS_BYTES = 1 << 26 };

/* An MPI library with CUDA support brings the driver's libraries into every rank before roles are known; then only what
 * Quorate itself would bring is a fault. */
static bool is_foreign(const char *name)
{
    static const char *const ours[] = {"libquorate_cuda"};
    static const char *const any[] = {"libcuda", "libnccl", "libnvrtc", "libquorate_cuda"};
    bool mpi_brings_some = qr_comm_takes_device_memory();
    const char *const *names = mpi_brings_some ? ours : any;
    size_t n = mpi_brings_some ? sizeof ours / sizeof ours[0] : sizeof any / sizeof any[0];
    for (size_t i = 0; i < n; i++) {
        if (strncmp(name, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

qr_status qr_check_own_maps(const qr_simulation *simulation, const char *when)
{
    char *text = NULL;
    size_t n = 0;
    if (simulation->comm->me.role != QR_ROLE_IO) {
        return QR_OK;
    }
    qr_status status = qr_io_read_text("/proc/self/maps", MAX_MAPS_BYTES, &text, &n);
    if (status != QR_OK) {
        return qr_error_context(QR_ENVIRONMENT, "an I/O rank looks at what is mapped into it");
    }
    char *rest = text;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL && status == QR_OK;
         line = strtok_r(NULL, "\n", &rest)) {
        const char *path = strchr(line, '/'); /* the last of a line's columns, where it has one */
        const char *name = path != NULL ? strrchr(path, '/') + 1 : "";
        if (is_foreign(name)) {
            status = qr_error(QR_ENVIRONMENT,
                              "rank %d is an I/O rank, but %s it has %s mapped, and I/O ranks must be free of CUDA; is "
                              "it in LD_PRELOAD, or linked into a library that is?",
                              simulation->comm->rank, when, path);
        }
    }
    free(text);
    return status;
}
