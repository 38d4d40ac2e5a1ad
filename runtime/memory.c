/* memory.c -- see memory.h. */
#include "runtime/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define HUGE_BYTES ((size_t)2 << 20)

static RtStatus no_memory(size_t n_bytes, const char *what, int err, RtError *e)
{
    return RT_FAIL(e, RT_FAILED,
                   "cannot get %.1f MiB of memory for %s: %s; compile with a smaller batch, "
                   "or free memory on this machine",
                   (double)n_bytes / (1 << 20), what, strerror(err));
}

/* Pages of huge-page size where the kernel grants them: reserve more, then map exactly n_bytes at
 * an aligned place. */
static char *map_aligned(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t need = (n_bytes + page - 1) / page * page;
    char *all = mmap(NULL, need + HUGE_BYTES, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return NULL;
    char *at = (char *)(((uintptr_t)all + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    void *got =
        mmap(at, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int err = errno;
    if (at > all) munmap(all, (size_t)(at - all));
    if (at + need < all + need + HUGE_BYTES) munmap(at + need, (size_t)(all + HUGE_BYTES - at));
    errno = err;
    return got == MAP_FAILED ? NULL : at;
}

/* A number of bytes that follows `key` in a file of /proc or /sys; UINT64_MAX when there is none.
 */
static uint64_t number_after(const char *path, const char *key)
{
    char line[256];
    uint64_t found = UINT64_MAX;
    FILE *in = fopen(path, "re");
    if (!in) return found;
    while (found == UINT64_MAX && fgets(line, sizeof line, in)) {
        unsigned long long n;
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &n) == 1)
            found = n;
    }
    fclose(in);
    return found;
}

/* What this process may still get: beyond it the kernel would kill, without a word. */
static uint64_t available_bytes(void)
{
    uint64_t free_kib = number_after("/proc/meminfo", "MemAvailable:");
    uint64_t swap_kib = number_after("/proc/meminfo", "SwapFree:");
    uint64_t bytes = free_kib == UINT64_MAX
                         ? UINT64_MAX
                         : 1024 * (free_kib + (swap_kib == UINT64_MAX ? 0 : swap_kib));
    uint64_t group = number_after("/sys/fs/cgroup/memory.max", "");
    return group < bytes ? group : bytes;
}

/* For kernels before 5.14, which cannot populate a mapping that is there. */
static void touch_pages(char *at, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < n_bytes; i += page) ((volatile char *)at)[i] = 0;
}

RtStatus memory_map(Memory *m, size_t n_bytes, const char *what, RtError *e)
{
    *m = (Memory){.n_bytes = n_bytes};
    if (n_bytes == 0) return RT_OK;
    uint64_t available = available_bytes();
    if (n_bytes > available)
        return RT_FAIL(e, RT_FAILED,
                       "%s takes %.1f MiB of memory, %.1f MiB are available; compile with a "
                       "smaller batch, or free memory on this machine",
                       what, (double)n_bytes / (1 << 20), (double)available / (1 << 20));
    m->at = map_aligned(n_bytes);
    if (!m->at) return no_memory(n_bytes, what, errno, e);
    madvise(m->at, n_bytes, MADV_HUGEPAGE); /* a hint: a refusal costs speed only */
    if (madvise(m->at, n_bytes, MADV_POPULATE_WRITE) == 0) return RT_OK;
    if (errno == ENOMEM) {
        memory_unmap(m);
        return no_memory(n_bytes, what, ENOMEM, e);
    }
    touch_pages(m->at, n_bytes);
    return RT_OK;
}

RtStatus memory_reserve(Memory *m, size_t n_bytes, const char *what, RtError *e)
{
    *m = (Memory){.n_bytes = n_bytes};
    if (n_bytes == 0) return RT_OK;
    void *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return no_memory(n_bytes, what, errno, e);
    m->at = at;
    return RT_OK;
}

void memory_unmap(Memory *m)
{
    if (m->at) munmap(m->at, m->n_bytes);
    *m = (Memory){0};
}
