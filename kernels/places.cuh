/* Where the states of the agents lie that a launch works on, for kernels that go through them by number 0, 1, ...: all
 * agents of the part in one piece, or those of some pages, each in a frame. */
#ifndef QR_PLACES_CUH
#define QR_PLACES_CUH

#include "frames.h"

typedef struct qr_whole_part {
} qr_whole_part;

static __host__ __device__ __forceinline__ int64_t qr_count_agents(const qr_part *part, const qr_whole_part *places)
{
    return part->count;
}

static __host__ __device__ __forceinline__ int64_t qr_count_agents(const qr_part *part, const qr_frame_batch *places)
{
    return places->count;
}

/* Own agent number `at` of the launch; as many behind it as are left of a group of 64 are the next of the part. State d
 * of own agent i of those is (*states)[i * state_dim + d]. An agent beyond the part for a number beyond the last. */
static __device__ __forceinline__ int64_t qr_find_agent(const qr_part *part, const qr_whole_part *places, int64_t at,
                                                        float **states)
{
    *states = part->state;
    return at;
}

static __device__ __forceinline__ int64_t qr_find_agent(const qr_part *part, const qr_frame_batch *places, int64_t at,
                                                        float **states)
{
    int64_t within = 0;
    *states = places->frames;
    if (at >= places->count) {
        return part->count;
    }
    const qr_frame_page lies = places->at[qr_divide(at, places->page_agents, &within)];
    *states += ((int64_t)lies.frame - (int64_t)lies.page) * places->page_agents * (int64_t)part->neural.state_dim;
    return (int64_t)lies.page * places->page_agents + within;
}

#endif
