/* cuda_compile.h -- for tests: printed CUDA C to a shared library for the CPU, against cuda_shim.h.
 */
#ifndef ZM_TESTS_CUDA_COMPILE_H
#define ZM_TESTS_CUDA_COMPILE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/cuda.h"

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

/* What stands before the kernels. */
static inline void print_shim(Str *out)
{
    str_addf(out, "#include \"%.*scuda_shim.h\"\n", (int)(strrchr(__FILE__, '/') + 1 - __FILE__),
             __FILE__);
    cuda_print_prelude(out);
}

static inline void *find_symbol(void *library, const char *name, void *fn)
{
    void *at = dlsym(library, name);
    if (!at) FAIL("%s: not in the compiled library", name);
    memcpy(fn, &at, sizeof at);
    return at;
}

typedef void (*RunFn)(void **args, int n_blocks, int x, int y, int is_reversed);

/* The shared library, or NULL; keeps the source when it does not compile. */
static inline void *compile(const Str *src)
{
    char dir[] = "/tmp/cuda_nest.XXXXXX", command[512], path[64];
    ZM_CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/k.cc", dir);
    FILE *f = fopen(path, "w");
    ZM_CHECK(f != NULL);
    fputs(str_c(src), f);
    fclose(f);
    const char *cxx = getenv("CXX");
    snprintf(command, sizeof command,
             "%s -std=c++17 -O1 -ffp-contract=off -w -shared -fPIC -o %s/k.so %s",
             cxx ? cxx : "c++", dir, path);
    void *library = NULL;
    if (system(command) != 0)
        FAIL("does not compile: %s", command);
    else {
        snprintf(path, sizeof path, "%s/k.so", dir);
        library = dlopen(path, RTLD_NOW);
        if (!library) FAIL("%s", dlerror());
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    if (library && !getenv("CUDA_NEST_KEEP") && system(command) != 0) FAIL("%s", command);
    return library;
}

#endif
