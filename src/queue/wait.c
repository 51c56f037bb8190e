#include "queue/wait.h"

#include <sched.h>
#include <time.h>

enum { SPINS = 64, YIELDS = 16, FIRST_SLEEP_US = 50, LONGEST_DOUBLING = 16 };

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

void qr_wait_turn(qr_wait *wait, int32_t longest_us)
{
    int32_t turn = wait->turns;
    if (turn < SPINS + YIELDS + LONGEST_DOUBLING) {
        wait->turns = turn + 1;
    }
    if (turn < SPINS) {
        relax();
        return;
    }
    if (turn < SPINS + YIELDS) {
        sched_yield();
        return;
    }
    int64_t sleep_us = (int64_t)FIRST_SLEEP_US << (turn - SPINS - YIELDS);
    if (sleep_us > longest_us) {
        sleep_us = longest_us;
    }
    struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)(sleep_us * 1000)};
    nanosleep(&pause, NULL);
}
