/* system.c -- the one state of the driver in a process, its lock, its configuration. */
#include "tests/gpusim/stream.h"

#include <stdlib.h>
#include <time.h>

static System the_system; /* a driver is one a process, as libcuda is */
static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local Device *current;

System *system_lock(void)
{
    pthread_mutex_lock(&the_lock);
    the_system.n_calls++;
    return &the_system;
}

void system_nap(void)
{
    struct timespec nap = {0, 50000};
    pthread_mutex_unlock(&the_lock);
    nanosleep(&nap, NULL);
    pthread_mutex_lock(&the_lock);
}

CUresult system_unlock(CUresult rc)
{
    CUresult sticky = the_system.sticky;
    pthread_mutex_unlock(&the_lock);
    return rc == CUDA_SUCCESS ? sticky : rc;
}

Device *system_current(void)
{
    return current;
}

void system_set_current(Device *d)
{
    current = d;
}
