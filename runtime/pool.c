/* pool.c -- see pool.h.
 *
 * A phase is published by storing its task count into `remaining`; whoever lowers a positive count
 * by one owns one task. Owning a task keeps the phase alive (pool_run waits for it), so the other
 * fields may be read only after that: a thread that comes late finds either nothing or a task of
 * the current phase, never a mixture of two. Which task it is, the threads' ranges say: each thread
 * walks up its own run of tasks, then takes from the ends of the others'. Idle threads spin for
 * some microseconds, then sleep; a phase wakes them only when they sleep. */
#include "runtime/pool.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHEAP_COST =
        40000, /* a phase below this costs less than handing it to other threads (about 10 us) */
    GRAIN_COST = 10000, /* taking tasks below this one by one costs more than running them */
    SPIN_TURNS = 4000,  /* about 20-100 us, by the CPU's pause */
    LINE_BYTES = 64,
    MAX_TASKS = INT32_MAX /* of a phase that is shared */
};

typedef struct Worker {
    struct Pool *pool;
    pthread_t thread;
    char *scratch;
    _Alignas(LINE_BYTES) _Atomic uint64_t range; /* tasks not yet taken: from low, to high word */
} Worker;

struct Pool {
    _Alignas(LINE_BYTES) _Atomic int64_t remaining; /* tasks not yet taken */
    _Alignas(LINE_BYTES) _Atomic int64_t n_done;    /* tasks finished */
    _Atomic int64_t grain;                          /* tasks taken at a time */
    /* The phase. */
    _Alignas(LINE_BYTES) ZmKernelFn fn;
    char *const *bufs;
    PoolJobFn job_fn;
    const void *job;
    int64_t n_tasks;
    /* Sleeping. */
    _Alignas(LINE_BYTES) pthread_mutex_t lock;
    pthread_cond_t work, done;
    _Atomic int n_sleeping;
    _Atomic bool is_waiting; /* pool_run sleeps on `done` */
    _Atomic bool is_ending;
    int n_threads, n_started, spin_turns;
    Worker *worker; /* [0]: the calling thread */
    char *scratch_all;
    cpu_set_t caller_cpus; /* of the calling thread, before it was pinned */
    bool is_pinned;
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void tasks_done(Pool *p, int64_t n, int64_t n_tasks)
{
    if (atomic_fetch_add(&p->n_done, n) + n != n_tasks || !atomic_load(&p->is_waiting)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

/* Takes a task of w's range, from the front or from the end; false: it is empty. */
static bool range_take(Worker *w, bool is_own, int64_t *task)
{
    uint64_t range = atomic_load(&w->range);
    for (;;) {
        uint64_t lo = range & UINT32_MAX, hi = range >> 32;
        if (lo >= hi) return false;
        uint64_t left = is_own ? hi << 32 | (lo + 1) : (hi - 1) << 32 | lo;
        *task = (int64_t)(is_own ? lo : hi - 1);
        if (atomic_compare_exchange_weak(&w->range, &range, left)) return true;
    }
}

/* One of the tasks that thread `me` owns: as many are left in the ranges as threads own. */
static int64_t task_take(Pool *p, int me)
{
    int64_t task = 0;
    for (int i = me; !range_take(&p->worker[i], i == me, &task);) i = (i + 1) % p->n_threads;
    return task;
}

/* Runs tasks until none is left to own.  A grain that is out of date costs balance only: how many
 * are owned is what the exchange says. */
static void tasks_run(Pool *p, int me)
{
    char *scratch = p->worker[me].scratch;
    int64_t left = atomic_load(&p->remaining);
    while (left > 0) {
        int64_t grain = atomic_load_explicit(&p->grain, memory_order_relaxed);
        int64_t n = grain < left ? grain : left;
        if (!atomic_compare_exchange_weak(&p->remaining, &left, left - n)) continue;
        int64_t n_tasks = p->n_tasks; /* once these are done the phase may change */
        for (int64_t i = 0; i < n; i++) {
            int64_t task = task_take(p, me);
            if (p->fn)
                p->fn(p->bufs, task, scratch);
            else
                p->job_fn(p->job, task);
        }
        tasks_done(p, n, n_tasks);
        left = atomic_load(&p->remaining);
    }
}

static void worker_sleep(Pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_sleeping, 1);
    while (atomic_load(&p->remaining) <= 0 && !atomic_load(&p->is_ending))
        pthread_cond_wait(&p->work, &p->lock);
    atomic_fetch_sub(&p->n_sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    Worker *w = arg;
    Pool *p = w->pool;
    while (!atomic_load(&p->is_ending)) {
        int turns = 0;
        while (atomic_load(&p->remaining) <= 0 && turns < p->spin_turns &&
               !atomic_load(&p->is_ending)) {
            cpu_relax();
            turns++;
        }
        if (atomic_load(&p->remaining) <= 0) worker_sleep(p);
        tasks_run(p, (int)(w - p->worker));
    }
    return NULL;
}

static void wait_for_others(Pool *p)
{
    int64_t n = p->n_tasks;
    for (int turns = 0; turns < p->spin_turns; turns++) {
        if (atomic_load(&p->n_done) == n) return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_waiting, true);
    while (atomic_load(&p->n_done) != n) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->is_waiting, false);
    pthread_mutex_unlock(&p->lock);
}

/* Small tasks are taken several at a time, but each thread still gets at least four helpings. */
static int64_t grain_of(const Pool *p, int64_t cost)
{
    int64_t grain = cost > 0 ? GRAIN_COST / cost : 1, most = p->n_tasks / (4 * p->n_threads);
    if (grain > most) grain = most;
    return grain > 1 ? grain : 1;
}

static void phase_run(Pool *p, int64_t cost)
{
    atomic_store_explicit(&p->grain, grain_of(p, cost), memory_order_relaxed);
    atomic_store(&p->n_done, 0);
    for (int i = 0; i < p->n_threads; i++) {
        uint64_t lo = (uint64_t)(p->n_tasks * i / p->n_threads);
        uint64_t hi = (uint64_t)(p->n_tasks * (i + 1) / p->n_threads);
        atomic_store(&p->worker[i].range, hi << 32 | lo);
    }
    atomic_store(&p->remaining, p->n_tasks);
    if (atomic_load(&p->n_sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    tasks_run(p, 0);
    wait_for_others(p);
}

void pool_run(Pool *p, ZmKernelFn fn, char *const *bufs, int64_t n_tasks, int64_t cost)
{
    bool is_cheap = cost <= 0
                        ? n_tasks <= 1
                        : n_tasks < CHEAP_COST && cost < CHEAP_COST && n_tasks * cost < CHEAP_COST;
    if (p->n_threads == 1 || n_tasks <= 1 || n_tasks > MAX_TASKS || is_cheap) {
        for (int64_t task = 0; task < n_tasks; task++) fn(bufs, task, p->worker[0].scratch);
        return;
    }
    p->fn = fn;
    p->bufs = bufs;
    p->n_tasks = n_tasks;
    phase_run(p, cost);
}

void pool_run_job(Pool *p, PoolJobFn fn, const void *job, int64_t n_tasks)
{
    if (p->n_threads == 1 || n_tasks <= 1 || n_tasks > MAX_TASKS) {
        for (int64_t task = 0; task < n_tasks; task++) fn(job, task);
        return;
    }
    p->fn = NULL;
    p->job_fn = fn;
    p->job = job;
    p->n_tasks = n_tasks;
    phase_run(p, 0);
}

/* ---- start and end ---- */

static int cpus_in_mask(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int cpus_of_quota(const char *text)
{
    long long quota, period;
    if (sscanf(text, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0)
        return INT_MAX;
    long long n = (quota + period - 1) / period;
    return n < INT_MAX ? (int)n : INT_MAX;
}

int cpus_available(void)
{
    char text[64] = "";
    FILE *in = fopen("/sys/fs/cgroup/cpu.max", "re"); /* as a container sees its own limit */
    if (in) {
        if (!fgets(text, sizeof text, in)) text[0] = '\0';
        fclose(in);
    }
    int mask = cpus_in_mask(), quota = cpus_of_quota(text);
    return quota < mask ? quota : mask;
}

/* Thread i on the i-th CPU that this process may use, when it uses all of them.  Fewer are left to
 * the scheduler: those of several processes would be pinned to the same CPUs. */
static void pin_threads(Pool *p)
{
    cpu_set_t all;
    if (p->n_threads < 2 || sched_getaffinity(0, sizeof all, &all) != 0 ||
        p->n_threads != CPU_COUNT(&all))
        return;
    p->caller_cpus = all;
    p->is_pinned = true;
    int cpu = 0;
    for (int i = 0; i < p->n_threads; i++, cpu++) {
        while (!CPU_ISSET(cpu, &all)) cpu++;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_t t = i == 0 ? pthread_self() : p->worker[i].thread;
        pthread_setaffinity_np(t, sizeof one, &one); /* a refusal costs speed only */
    }
}

static RtStatus start_workers(Pool *p, RtError *e)
{
    for (int i = 1; i < p->n_threads; i++) {
        int err = pthread_create(&p->worker[i].thread, NULL, worker_main, &p->worker[i]);
        if (err)
            return RT_FAIL(e, RT_FAILED,
                           "cannot start thread %d of %d: %s; run with fewer --threads", i + 1,
                           p->n_threads, strerror(err));
        p->n_started++;
    }
    return RT_OK;
}

RtStatus pool_new(Pool **out, int n_threads, size_t scratch_bytes, RtError *e)
{
    *out = NULL;
    size_t each = (scratch_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES + LINE_BYTES;
    size_t pool_bytes = (sizeof(Pool) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    Pool *p = aligned_alloc(LINE_BYTES, pool_bytes);
    Worker *worker = aligned_alloc(LINE_BYTES, sizeof *worker * (size_t)n_threads);
    char *scratch = aligned_alloc(LINE_BYTES, each * (size_t)n_threads);
    if (!p || !worker || !scratch) {
        free(p);
        free(worker);
        free(scratch);
        return RT_FAIL(
            e, RT_FAILED,
            "cannot get %.1f MiB of scratch memory for %d threads; run with fewer --threads",
            (double)each * n_threads / (1 << 20), n_threads);
    }
    memset(p, 0, sizeof *p);
    memset(worker, 0, sizeof *worker * (size_t)n_threads);
    p->n_threads = n_threads;
    /* Spinning threads that outnumber the CPUs would keep the one that works from running. */
    p->spin_turns = n_threads <= cpus_available() ? SPIN_TURNS : 1;
    p->worker = worker;
    p->scratch_all = scratch;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 0; i < n_threads; i++)
        worker[i] = (Worker){.pool = p, .scratch = scratch + each * (size_t)i};
    RtStatus s = start_workers(p, e);
    if (s != RT_OK) {
        pool_free(p);
        return s;
    }
    pin_threads(p);
    *out = p;
    return RT_OK;
}

void pool_free(Pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_ending, true);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->worker[i].thread, NULL);
    if (p->is_pinned)
        pthread_setaffinity_np(pthread_self(), sizeof p->caller_cpus, &p->caller_cpus);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    free(p->worker);
    free(p->scratch_all);
    free(p);
}

int pool_n_threads(const Pool *p)
{
    return p->n_threads;
}
