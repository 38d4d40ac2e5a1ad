/* watchdog.c -- see watchdog.h. */
#include "runtime/watchdog.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct timespec time_in(double s)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double fraction = s - (double)(time_t)s + 1e-9 * (double)t.tv_nsec;
    t.tv_sec += (time_t)s + (time_t)fraction;
    t.tv_nsec = (long)(1e9 * (fraction - (double)(time_t)fraction));
    return t;
}

static void *watch(void *arg)
{
    Watchdog *w = arg;
    struct timespec end = time_in(w->limit_s);
    int err = 0;
    pthread_mutex_lock(&w->lock);
    while (!w->is_over && err != ETIMEDOUT) err = pthread_cond_timedwait(&w->ended, &w->lock, &end);
    if (!w->is_over) {
        fputs(w->text, stderr);
        _exit(w->exit_code);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void watchdog_start(Watchdog *w, double limit_s, const char *text, int exit_code)
{
    pthread_condattr_t steady;
    *w = (Watchdog){.limit_s = limit_s, .text = text, .exit_code = exit_code};
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ended, &steady);
    pthread_condattr_destroy(&steady);
    w->is_running = pthread_create(&w->thread, NULL, watch, w) == 0;
}

void watchdog_end(Watchdog *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_over = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
    if (w->is_running) pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
}
