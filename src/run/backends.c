/* Which backend computes: the CPU's, which is always there, or one in a shared library beside the executable. */
#include "run/backends.h"

#include "backend/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

const qr_backend_ops *qr_backend_find(const char *name)
{
    static const qr_backend_ops *const all[] = {
#define QR_BACKEND(name) &qr_backend_ops_##name,
#include "backend/backend_list.h"
#undef QR_BACKEND
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}

/* The folder of the executable, without the last slash. */
static bool own_folder(char *out, size_t n)
{
    ssize_t length = readlink("/proc/self/exe", out, n - 1);
    if (length <= 0 || (size_t)length >= n - 1) {
        return false;
    }
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

/* Opened once; it stays open, for its code may run until the process ends. NULL where there is none, with *why set. */
static void *open_library(char *why, size_t n)
{
    static const char *const places[] = {"%s/libquorate_cuda.so", "%s/../lib/quorate/libquorate_cuda.so",
                                         "%s/../libquorate_cuda.so"}; /* beside it, installed, for tests */
    static void *library;
    char folder[PATH_BYTES];
    char path[PATH_BYTES + 64];
    if (library != NULL) {
        return library;
    }
    (void)snprintf(why, n, "this build has no CUDA module");
    if (!own_folder(folder, sizeof folder)) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0] && library == NULL; i++) {
        (void)snprintf(path, sizeof path, places[i], folder);
        if (access(path, R_OK) == 0) {
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (library == NULL) {
                (void)snprintf(why, n, "its module cannot be loaded: %s", dlerror());
            }
        }
    }
    return library;
}

const qr_backend_ops *qr_backend_load_cuda(char *why, size_t n)
{
    void *library = open_library(why, n);
    if (library == NULL) {
        return NULL;
    }
    qr_module_opener opener = NULL;
    void *symbol = dlsym(library, "qr_module_open");
    memcpy(&opener, &symbol, sizeof opener);
    const qr_module *module = opener != NULL ? opener() : NULL;
    if (module == NULL || module->version != QR_MODULE_VERSION || module->bytes != sizeof(qr_backend_ops)) {
        (void)snprintf(why, n, "its module belongs to another build");
        return NULL;
    }
    const char *reason = "";
    if (!module->is_usable(&reason)) {
        (void)snprintf(why, n, "%s", reason);
        return NULL;
    }
    return module->ops;
}
