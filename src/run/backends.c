#include "backend/backend.h"

#include <string.h>

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
