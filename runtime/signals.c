/* signals.c -- see signals.h.  The mutable globals of the runtime: a handler has no other way to
 * say anything. */
#include "runtime/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t pending, n_received;

static void on_stop(int signal_number)
{
    bool is_interrupt = signal_number == SIGINT || signal_number == SIGUSR1;
    bool is_passed_on = signal_number == SIGUSR1 || signal_number == SIGUSR2;
    if (!pending) pending = is_interrupt ? SIGINT : SIGTERM;
    if (is_passed_on || ++n_received < 3) return; /* a launcher is told again and again */
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* A page of a mapped file is gone: it was cut while the run reads it, or its disk failed. */
static void on_bus_error(int signal_number)
{
    static const char text[] =
        "error: a file that the run reads (data, weights or a checkpoint) became shorter or "
        "unreadable while it was in use; restore it and resume\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
    _exit(2);
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
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    signal(SIGBUS, on_bus_error);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

void signals_restore(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

int signal_pending(void)
{
    return pending;
}
