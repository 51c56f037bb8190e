/* A device without a device: frames that nobody sees, copies and updates that are carried out later, in an order drawn
 * anew each time among those that qr_frame_ops allows. Behind it stands the CPU backend. Host memory that a copy will
 * write to holds NaN until then, so that whoever reads too early is found out. */
#ifndef TEST_SUPPORT_LATE_DEVICE_H
#define TEST_SUPPORT_LATE_DEVICE_H

#include "backend/backend.h"

typedef struct late_device late_device;

/* inner: a CPU backend with frames; borrowed. */
late_device *late_device_create(qr_backend *inner, const qr_backend_setup *setup, uint64_t seed);
void late_device_destroy(late_device *device);

/* What a pager is given. */
qr_backend *late_device_backend(late_device *device);
extern const qr_backend_ops late_device_ops;

/* From now on copies fail, as they do when a device is lost. */
void late_device_break(late_device *device);

/* Single copies carried out; memory blocks lent and not given back. */
int64_t late_device_copies(const late_device *device, bool in);
int late_device_blocks(const late_device *device);

#endif
