#include "run/simulation.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t received;

static void note_signal(int number)
{
    received = number;
}

/* Batch systems warn with SIGUSR1 or SIGTERM before the time limit; a person at a terminal sends SIGINT. */
void qr_signals_install(void)
{
    static const int numbers[] = {SIGUSR1, SIGTERM, SIGINT};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART;
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
}

int qr_signals_received(void)
{
    return (int)received;
}
