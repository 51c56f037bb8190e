#include "io/h5_driver.h"

#include <stdlib.h>
#if H5_VERSION_GE(1, 14, 0)
#include <H5FDdevelop.h>
#endif

/* Addresses the driver can give out: what a signed file offset holds. */
#define MOST_BYTES ((haddr_t)INT64_MAX)

/* Set as driver information of the access properties. */
typedef struct driver_info {
    qr_store *store;
} driver_info;

typedef struct driver_file {
    H5FD_t shared; /* HDF5's own part comes first */
    qr_store *store;
    int owns_store; /* opened by name */
} driver_file;

static qr_store *store_of(const H5FD_t *file)
{
    return ((const driver_file *)(const void *)file)->store;
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t most)
{
    (void)most;
    const driver_info *info = H5Pget_driver_info(access);
    bool creates = (flags & H5F_ACC_CREAT) != 0;
    driver_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        return NULL;
    }
    if (creates && info != NULL && info->store != NULL) {
        file->store = info->store;
    } else if (!creates && (flags & H5F_ACC_RDWR) == 0 && qr_store_open(name, &file->store) == QR_OK) {
        file->owns_store = 1;
        qr_store_set_end(file->store, qr_store_size(file->store));
    } else {
        free(file);
        return NULL;
    }
    return &file->shared;
}

static herr_t driver_close(H5FD_t *shared)
{
    driver_file *file = (driver_file *)(void *)shared;
    if (file->owns_store) {
        qr_store_close(file->store);
    }
    free(file);
    return 0;
}

static int driver_compare(const H5FD_t *a, const H5FD_t *b)
{
    uint64_t device[2];
    uint64_t inode[2];
    qr_store_identity(store_of(a), &device[0], &inode[0]);
    qr_store_identity(store_of(b), &device[1], &inode[1]);
    if (device[0] != device[1]) {
        return device[0] < device[1] ? -1 : 1;
    }
    return inode[0] < inode[1] ? -1 : inode[0] > inode[1];
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    /* No gathering of metadata or small data: the store must see each block by itself. */
    *flags = H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static qr_store_class class_of(H5FD_mem_t type)
{
    switch (type) {
    case H5FD_MEM_SUPER: return QR_STORE_SUPERBLOCK;
    case H5FD_MEM_BTREE: return QR_STORE_INDEX;
    case H5FD_MEM_OHDR: return QR_STORE_HEADER;
    default: return QR_STORE_OTHER;
    }
}

static haddr_t driver_allocate(H5FD_t *file, H5FD_mem_t type, hid_t transfer, hsize_t bytes)
{
    (void)transfer;
    return qr_store_allocate(store_of(file), type == H5FD_MEM_DRAW, class_of(type), bytes);
}

static haddr_t driver_get_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return qr_store_end(store_of(file));
}

static herr_t driver_set_end(H5FD_t *file, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    qr_store_set_end(store_of(file), end);
    return 0;
}

static haddr_t driver_get_size(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return qr_store_size(store_of(file));
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes, void *out)
{
    (void)type;
    (void)transfer;
    /* Addresses in a damaged file may be anything. */
    if (address > MOST_BYTES || bytes > MOST_BYTES - address) {
        return -1;
    }
    return qr_store_read(store_of(file), address, bytes, out) ? 0 : -1;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                           const void *data)
{
    (void)transfer;
    if (type == H5FD_MEM_DRAW) {
        qr_store_write_data(store_of(file), address, bytes, data);
    } else {
        qr_store_write_metadata(store_of(file), class_of(type), address, bytes, data);
    }
    return 0;
}

static const H5FD_class_t driver_class = {
#if H5_VERSION_GE(1, 14, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)640,
#endif
    .name = "quorate",
    .maxaddr = MOST_BYTES,
    .fc_degree = H5F_CLOSE_WEAK, /* as HDF5 opens the parts of a virtual dataset */
    .fapl_size = sizeof(driver_info),
    .open = driver_open,
    .close = driver_close,
    .cmp = driver_compare,
    .query = driver_query,
    .alloc = driver_allocate,
    .get_eoa = driver_get_end,
    .set_eoa = driver_set_end,
    .get_eof = driver_get_size,
    .read = driver_read,
    .write = driver_write,
    .fl_map = H5FD_FLMAP_SINGLE,
};

hid_t qr_h5_access(qr_store *store)
{
    static hid_t driver = H5I_INVALID_HID;
    if (driver < 0) {
        driver = H5FDregister(&driver_class);
    }
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    driver_info info = {.store = store};
    if (driver < 0 || access < 0 || H5Pset_driver(access, driver, &info) < 0 ||
        (store != NULL && H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0)) {
        if (access >= 0) {
            H5Pclose(access);
        }
        return H5I_INVALID_HID;
    }
    return access;
}
