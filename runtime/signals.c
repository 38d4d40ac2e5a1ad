/* signals.c -- see signals.h.  The mutable globals of the runtime: a handler has no other way to
 * say anything. */
#include "runtime/signals.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t pending, n_received;

static void on_stop(int signal_number)
{
    if (!pending) pending = signal_number;
    if (++n_received < 3) return;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void signals_install(void)
{
    pending = 0;
    n_received = 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_stop;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

void signals_restore(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

int signal_pending(void)
{
    return pending;
}
