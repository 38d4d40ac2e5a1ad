/* watchdog.h -- a limit for a call that cannot be given one, such as the start of MPI: when it has
 * not returned in time, the process says why and ends. */
#ifndef ZM_RUNTIME_WATCHDOG_H
#define ZM_RUNTIME_WATCHDOG_H

#include <pthread.h>
#include <stdbool.h>

typedef struct Watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool is_running, is_over;
    double limit_s;
    const char *text;
    int exit_code;
} Watchdog;

/* After limit_s seconds: text goes to stderr, and the process ends with exit_code.  Without a
 * thread to be had there is no limit. */
void watchdog_start(Watchdog *w, double limit_s, const char *text, int exit_code);
void watchdog_end(Watchdog *w);

#endif
