/* Wall-clock time and the phases of a run. */
#ifndef QR_BASE_TIMER_H
#define QR_BASE_TIMER_H

/* Seconds on a clock that only moves forward. */
double qr_now_s(void);

typedef enum qr_phase {
#define QR_PHASE(identifier, name) QR_PHASE_##identifier,
#include "base/phase_list.h"
#undef QR_PHASE
    QR_N_PHASES
} qr_phase;

const char *qr_phase_name(qr_phase phase);

/* Seconds spent in each phase; whatever runs adds to it. */
typedef struct qr_timers {
    double seconds[QR_N_PHASES];
} qr_timers;

/* Adds the time since `since` to the phase and returns now, so that phases follow one another without gaps. */
double qr_timer_lap(qr_timers *timers, qr_phase phase, double since);

#endif
