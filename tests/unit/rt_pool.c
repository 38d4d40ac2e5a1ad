/* rt_pool.c -- every task of every phase runs exactly once, for any number of threads, busy or
 * asleep. */
#include <limits.h>
#include <stdatomic.h>

#include "runtime/pool.h"
#include "tests/unit/rt_tiny.h"

enum { MAX_TASKS = 3000 };
static _Atomic int counts[MAX_TASKS];

static void count_task(char *const *bufs, int64_t task, char *scratch)
{
    CHECK((uintptr_t)scratch % 64 == 0);
    memset(scratch, 1, 1000); /* its own: ASan and TSan would tell */
    CHECK(bufs == (char *const *)(void *)counts);
    counts[task]++;
}

static void count_job(const void *job, int64_t task)
{
    CHECK(job == counts);
    counts[task]++;
}

static void check_counts(int64_t n)
{
    for (int64_t i = 0; i < n; i++) CHECK(atomic_exchange(&counts[i], 0) == 1);
    for (int64_t i = n; i < MAX_TASKS; i++) CHECK(counts[i] == 0);
}

static void test_threads(int n_threads)
{
    Pool *pool;
    RtError e = {0};
    CHECK(pool_new(&pool, n_threads, 1000, &e) == RT_OK);
    CHECK(pool_n_threads(pool) == n_threads);
    static const int64_t sizes[] = {0, 1, 2, 3, 64, 1000, MAX_TASKS};
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            pool_run(pool, count_task, (char *const *)(void *)counts, sizes[i], 1000000);
            check_counts(sizes[i]);
            pool_run_job(pool, count_job, counts, sizes[i]);
            check_counts(sizes[i]);
            pool_run(pool, count_task, (char *const *)(void *)counts, sizes[i],
                     1); /* cheap: this thread */
            check_counts(sizes[i]);
            if (round % 10 == 9) usleep(1000); /* the others fall asleep */
        }
    pool_free(pool);
}

/* Task 0 ends after all others: they must not wait for the thread in whose run they are. */
static void wait_for_others(const void *job, int64_t task)
{
    CHECK(job == counts);
    if (task > 0) {
        counts[1]++;
        return;
    }
    for (int turns = 0; counts[1] < 63; turns++) {
        CHECK(turns < 100000);
        usleep(100);
    }
}

static void test_help(int n_threads)
{
    Pool *pool;
    RtError e = {0};
    CHECK(pool_new(&pool, n_threads, 1000, &e) == RT_OK);
    pool_run_job(pool, wait_for_others, counts, 64);
    CHECK(atomic_exchange(&counts[1], 0) == 63);
    pool_free(pool);
}

static void test_quota(void)
{
    CHECK(cpus_of_quota("150000 100000\n") == 2 && cpus_of_quota("100000 100000\n") == 1);
    CHECK(cpus_of_quota("50000 100000\n") == 1 && cpus_of_quota("800000 100000\n") == 8);
    CHECK(cpus_of_quota("max 100000\n") == INT_MAX && cpus_of_quota("") == INT_MAX);
    CHECK(cpus_of_quota("0 0") == INT_MAX && cpus_of_quota("-1 100000") == INT_MAX);
}

int main(void)
{
    test_quota();
    int cpus = cpus_available();
    static const int threads[] = {1, 2, 3, 8};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) test_threads(threads[i]);
    test_help(2);
    test_help(8);
    CHECK(cpus_available() == cpus); /* the caller is not left pinned */
    return 0;
}
