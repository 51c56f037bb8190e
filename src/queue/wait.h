/* Bounded waiting without a lock: a short spin, then the processor is given away, then short sleeps, as there may be
 * more threads than cores. */
#ifndef QR_QUEUE_WAIT_H
#define QR_QUEUE_WAIT_H

#include "base/timer.h"

#include <stdint.h>

typedef struct qr_wait {
    int32_t turns; /* zero at the start of a wait, and again whenever there was something to do */
} qr_wait;

/* Waits a moment, the longer the more often it was called since `turns` was zero; never more than longest_us. */
void qr_wait_turn(qr_wait *wait, int32_t longest_us);

#endif
