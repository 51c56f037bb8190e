#include "io/checkpoint_parts.h"
void qr_replicas_begin(qr_cut *cut)
{
    cut->replicated = true;
}
bool qr_replicas_turn(qr_checkpoint *checkpoint)
{
    (void)checkpoint;
    return false;
}
bool qr_replicas_read(qr_tier *tier)
{
    (void)tier;
    return false;
}
bool qr_replicas_write(qr_tier *tier)
{
    (void)tier;
    return false;
}
void qr_replicas_drop(qr_tier *tier, int64_t generation)
{
    (void)tier;
    (void)generation;
}
bool qr_replicas_end(qr_checkpoint *checkpoint, double *left_s)
{
    (void)checkpoint;
    (void)left_s;
    return true;
}
int64_t qr_replicas_in_flight(const qr_checkpoint *checkpoint)
{
    (void)checkpoint;
    return 0;
}
