/* What the executable finds in the module. */
#include "backend/module.h"

#include "backend/cuda/cuda.h"

extern const qr_backend_ops qr_backend_ops_cuda;

/* Sets *why where there is nothing to compute on. */
static bool is_usable(const char **why)
{
    int n = 0;
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
        *why = "there is no NVIDIA driver";
        return false;
    }
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) {
        *why = cudaGetErrorString(error);
        return false;
    }
    if (n == 0) {
        *why = "no CUDA device";
        return false;
    }
    return true;
}

__attribute__((visibility("default"))) const qr_module *qr_module_open(void);

const qr_module *qr_module_open(void)
{
    static const qr_module module = {.version = QR_MODULE_VERSION,
                                     .bytes = sizeof(qr_backend_ops),
                                     .ops = &qr_backend_ops_cuda,
                                     .is_usable = is_usable};
    return &module;
}
