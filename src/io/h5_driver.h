/* The file driver that hands HDF5's reads and writes to a store. */
#ifndef QR_IO_H5_DRIVER_H
#define QR_IO_H5_DRIVER_H

#include "io/store.h"

#include <hdf5.h>

/* File access properties for new files in this store, or, with NULL, for reading any file; negative on failure. */
hid_t qr_h5_access(qr_store *store);

#endif
