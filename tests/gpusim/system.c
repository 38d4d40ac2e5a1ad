/* system.c -- the one state of the driver in a process, its lock, its configuration. */
#include "tests/gpusim/stream.h"

#include <stdlib.h>

static System the_system; /* a driver is one a process, as libcuda is */
static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local Device *current;

System *system_lock(void)
{
    pthread_mutex_lock(&the_lock);
    return &the_system;
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
