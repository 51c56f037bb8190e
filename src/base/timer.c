#include "base/timer.h"

#include <time.h>

double qr_now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *qr_phase_name(qr_phase phase)
{
    static const char *const names[QR_N_PHASES] = {
#define QR_PHASE(identifier, name) name,
#include "base/phase_list.h"
#undef QR_PHASE
    };
    return names[phase];
}

double qr_timer_lap(qr_timers *timers, qr_phase phase, double since)
{
    double now = qr_now_s();
    timers->seconds[phase] += now - since;
    return now;
}
