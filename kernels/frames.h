/* Launchers for neural agents whose states lie in frames, a page of agents each, instead of in qr_part.state
 * (backend/backend.h says what pages and frames are). Votes, neighbours and random draws go by the numbers of the
 * part's agents, as ever. */
#ifndef QR_FRAMES_H
#define QR_FRAMES_H

#include "device.h"

enum { QR_FRAME_BATCH = 128 }; /* pages of a launch; with the part they fit what a kernel takes by value */

typedef struct qr_frame_page {
    uint32_t page;
    uint32_t frame;
} qr_frame_page;

/* Pages and the frames they lie in. Passed by value. The part's last page, which may be short, comes last. */
typedef struct qr_frame_batch {
    float *frames;       /* device: [][page_agents][state_dim] */
    int64_t page_agents; /* a multiple of QR_DEVICE_GROUP */
    int64_t count;       /* agents in all pages */
    int32_t n;
    qr_frame_page at[QR_FRAME_BATCH];
} qr_frame_batch;

#ifdef __cplusplus
extern "C" {
#endif

/* All enqueue only. What the pages of a step vote for adds up in control->part_votes and part_leader. */

/* The control block from host memory that the device can read: a copy over the link would wait for others. */
void qr_launch_begin_step(const qr_part *part, const qr_control *from, cudaStream_t stream);

/* One step of these pages; where part->fast_weights is set, by tensor cores. */
void qr_launch_frames(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream);
void qr_launch_frames_fast(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream);
int qr_launch_frames_tile(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream); /* 0: other sizes */

/* The votes of these pages stay what they are. Frames are of no account. */
void qr_launch_pass(const qr_part *part, const qr_frame_batch *batch, cudaStream_t stream);

/* The part's tally to out ([2][n_options] votes and packed leaders, memory of device or host); the new votes are
 * current. */
void qr_launch_end_step(const qr_part *part, int64_t *out, cudaStream_t stream);

/* First states of these pages, uniform in +-scale. */
void qr_launch_first_states(const qr_part *part, const qr_frame_batch *batch, float scale, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
