/* pool.h -- persistent threads that share the independent tasks of one phase of one kernel.
 *
 * Each thread starts on its own run of consecutive tasks, in ascending order, and then helps the
 * others: any thread may run any task, and a result must not depend on which.  pool_run is called
 * from one thread, which works too; it returns when all tasks are done. */
#ifndef ZM_RUNTIME_POOL_H
#define ZM_RUNTIME_POOL_H

#include "ir/base/program.h"
#include "runtime/error.h"

typedef struct Pool Pool;

/* n_threads >= 1, this one included; scratch_bytes per thread, 64-byte aligned. */
RtStatus pool_new(Pool **out, int n_threads, size_t scratch_bytes, RtError *e);
void pool_free(Pool *pool);
int pool_n_threads(const Pool *pool);
int cpus_available(
    void); /* in this process's affinity mask, and within its control group's quota */
/* CPUs that a cpu.max file allows ("150000 100000": 2); INT_MAX where it sets no limit. */
int cpus_of_quota(const char *text);

/* cost: about flops + bytes of one task; a phase that is cheap as a whole runs on this thread
 * alone. */
void pool_run(Pool *pool, ZmKernelFn fn, char *const *bufs, int64_t n_tasks, int64_t cost);

/* Any other function over tasks; `job` is handed through. */
typedef void (*PoolJobFn)(const void *job, int64_t task);
void pool_run_job(Pool *pool, PoolJobFn fn, const void *job, int64_t n_tasks);

#endif
