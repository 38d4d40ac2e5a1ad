/* cache.c -- what NVRTC made before; see modules.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/cuda/modules.h"
#include "ir/base/file.h"

#define CACHE_MAGIC 0x31414455434d5aull /* "ZMCUDA1"; changes with what NVRTC is told */

typedef struct CacheHead {
    uint64_t magic, key[2], source_bytes, ptx_bytes, cubin_bytes;
    uint64_t check; /* of what follows: PTX, cubin */
} CacheHead;

CudaCache cuda_cache_open(Arena *a, const Nvrtc *n, const char *arch)
{
    CudaCache c = {.arch = arch, .major = n->major, .minor = n->minor};
    const char *own = getenv("ZMC_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own)
        c.dir = *own ? own : NULL;
    else if (xdg && *xdg)
        c.dir = arena_printf(a, "%s/zmc", xdg);
    else if (home && *home)
        c.dir = arena_printf(a, "%s/.cache/zmc", home);
    return c;
}

static CacheHead head_of(const CudaCache *c, const CudaModule *m)
{
    char text[96];
    int n = snprintf(text, sizeof text, "%s NVRTC %d.%d", c->arch, c->major, c->minor);
    CacheHead h = {.magic = CACHE_MAGIC, .source_bytes = m->source_bytes};
    for (uint64_t i = 0; i < 2; i++)
        h.key[i] = hash_bytes(m->source, m->source_bytes, hash_bytes(text, (size_t)n, i));
    return h;
}

static const char *path_of(const CudaCache *c, Arena *a, const CacheHead *h)
{
    return arena_printf(a, "%s/%016llx%016llx.cuda", c->dir, (unsigned long long)h->key[0],
                        (unsigned long long)h->key[1]);
}

bool cuda_cache_get(const CudaCache *c, Arena *a, CudaModule *m)
{
    if (!c->dir) return false;
    CacheHead want = head_of(c, m), have;
    char *text;
    size_t n;
    if (file_read(a, path_of(c, a, &want), &text, &n) != 0 || n < sizeof have) return false;
    memcpy(&have, text, sizeof have);
    size_t rest = n - sizeof have;
    if (memcmp(&have, &want, offsetof(CacheHead, ptx_bytes)) != 0) return false;
    if (have.ptx_bytes == 0 || have.ptx_bytes > rest || have.cubin_bytes != rest - have.ptx_bytes)
        return false;
    const char *ptx = text + sizeof have;
    if (hash_bytes(ptx, rest, 0) != have.check || ptx[have.ptx_bytes - 1] != '\0') return false;
    m->ptx = ptx;
    m->ptx_bytes = have.ptx_bytes;
    m->cubin = ptx + have.ptx_bytes;
    m->cubin_bytes = have.cubin_bytes;
    return true;
}

static bool make_dirs(const char *dir)
{
    char path[4096];
    size_t n = strlen(dir);
    if (n + 1 > sizeof path) return false;
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        char end = path[i];
        path[i] = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST) return false;
        path[i] = end;
    }
    return true;
}

void cuda_cache_put(const CudaCache *c, const CudaModule *m)
{
    if (!c->dir || !make_dirs(c->dir)) return;
    Arena a = {0};
    CacheHead h = head_of(c, m);
    h.ptx_bytes = m->ptx_bytes;
    h.cubin_bytes = m->cubin_bytes;
    size_t rest = m->ptx_bytes + m->cubin_bytes, n = sizeof h + rest;
    char *text = arena_alloc(&a, n);
    memcpy(text + sizeof h, m->ptx, m->ptx_bytes);
    if (m->cubin_bytes) memcpy(text + sizeof h + m->ptx_bytes, m->cubin, m->cubin_bytes);
    h.check = hash_bytes(text + sizeof h, rest, 0);
    memcpy(text, &h, sizeof h);
    const char *path = path_of(c, &a, &h);
    const char *beside = arena_printf(&a, "%s.%ld", path, (long)getpid());
    if (file_write(beside, text, n) != 0 || rename(beside, path) != 0) unlink(beside);
    arena_free(&a);
}
