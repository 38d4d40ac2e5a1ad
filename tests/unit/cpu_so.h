/* cpu_so.h -- for tests of the CPU back end: a module as loaded machine code. */
#ifndef ZM_TESTS_CPU_SO_H
#define ZM_TESTS_CPU_SO_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/cpu/cpu.h"

typedef struct CpuSo {
    char dir[64];
    void *handle;
} CpuSo;

static inline void so_die(Diag *diag, const char *what)
{
    diag_print(diag, stderr);
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Writes m as an object, links it with cc -shared and loads it. */
static inline CpuSo so_load(CpuModule *m, Diag *diag)
{
    CpuSo so = {.dir = "/tmp/zmc-test-XXXXXX"};
    if (!mkdtemp(so.dir)) so_die(diag, "mkdtemp failed");
    char obj[96], lib[96], cmd[320];
    snprintf(obj, sizeof obj, "%s/a.o", so.dir);
    snprintf(lib, sizeof lib, "%s/a.so", so.dir);
    if (cpu_module_write(m, diag, obj) != ZM_OK) so_die(diag, "no object file");
    snprintf(cmd, sizeof cmd, "cc -shared -o %s %s -lm", lib, obj);
    if (system(cmd) != 0) so_die(diag, "cc -shared failed");
    so.handle = dlopen(lib, RTLD_NOW);
    if (!so.handle) so_die(diag, dlerror());
    return so;
}

static inline ZmKernelFn so_fn(const CpuSo *so, const char *name)
{
    void *at = dlsym(so->handle, name);
    if (!at) fprintf(stderr, "no symbol %s\n", name), exit(1);
    ZmKernelFn fn;
    memcpy(&fn, &at, sizeof fn);
    return fn;
}

static inline void so_free(CpuSo *so)
{
    char path[96];
    if (so->handle) dlclose(so->handle);
    snprintf(path, sizeof path, "%s/a.o", so->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/a.so", so->dir);
    unlink(path);
    rmdir(so->dir);
}

#endif
