/* objects.c -- every kernel of a program as object files.
 *
 * Kernels are dealt onto a number of modules that depends on the kernels alone, heaviest first onto
 * the lightest module; threads take whole modules, each with its own LLVM context.  So the files
 * are the same for any number of threads. */
#include <pthread.h>
#include <stdlib.h>

#include "codegen/cpu/cpu.h"

enum { KERNELS_PER_MODULE = 5, MAX_MODULES = 16, MAX_THREADS = 64 };

KernelNeeds cpu_kernel_needs(const CpuTarget *t, const Kernel *k)
{
    switch (k->kind) {
    case KK_NEST:
    case KK_SCATTER: return cpu_nest_needs(t, k);
    case KK_CONTRACT: return cpu_contract_needs(t, k);
    case KK_ATTENTION: return cpu_attention_needs(t, k);
    }
    ZM_UNREACHABLE("kernel kind");
}

Status cpu_emit_kernel(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out)
{
    switch (k->kind) {
    case KK_NEST:
    case KK_SCATTER: return cpu_emit_nest(m, k, name, out);
    case KK_CONTRACT: return cpu_emit_contract(m, k, name, out);
    case KK_ATTENTION: return cpu_emit_attention(m, k, name, out);
    }
    ZM_UNREACHABLE("kernel kind");
}

/* ---- dealing ---- */

/* About how long LLVM works on a kernel, in nodes of a nest. */
static uint32_t compile_weight(const Kernel *k)
{
    switch (k->kind) {
    case KK_NEST:
    case KK_SCATTER: return 20 + k->n_nodes * k->n_stages;
    case KK_CONTRACT: return 150 + 3 * k->n_nodes;
    case KK_ATTENTION: return 300;
    }
    ZM_UNREACHABLE("kernel kind");
}

typedef struct Weighed {
    uint32_t weight, kernel;
} Weighed;

static int heavier_first(const void *x, const void *y)
{
    const Weighed *a = x, *b = y;
    if (a->weight != b->weight) return a->weight < b->weight ? 1 : -1;
    return a->kernel < b->kernel ? -1 : 1;
}

/* module_of[kernel], for n_modules modules */
static void deal_kernels(const CpuObjects *o, uint32_t n_modules, uint32_t *module_of)
{
    Arena scratch = {0};
    Weighed *order = ARENA_ARRAY(&scratch, Weighed, o->n_kernels + 1);
    uint64_t load[MAX_MODULES] = {0};
    for (uint32_t i = 0; i < o->n_kernels; i++)
        order[i] = (Weighed){compile_weight(o->kernels[i]), i};
    qsort(order, o->n_kernels, sizeof *order, heavier_first);
    for (uint32_t i = 0; i < o->n_kernels; i++) {
        uint32_t least = 0;
        for (uint32_t j = 1; j < n_modules; j++)
            if (load[j] < load[least]) least = j;
        load[least] += order[i].weight;
        module_of[order[i].kernel] = least;
    }
    arena_free(&scratch);
}

/* ---- compiling ---- */

typedef struct Work {
    const CpuTarget *target;
    CpuObjects *o;
    const uint32_t *module_of;
    pthread_mutex_t lock;
    uint32_t next;       /* module to take */
    const char *failure; /* heap; first error of any thread */
} Work;

static Status compile_module(Work *w, uint32_t module, Arena *arena, Diag *diag,
                             CpuKernelCode *code)
{
    CpuModule *m = cpu_module_new(arena, w->target, "kernels");
    Status s = ZM_OK;
    for (uint32_t i = 0; i < w->o->n_kernels && s == ZM_OK; i++)
        if (w->module_of[i] == module)
            s = cpu_emit_kernel(m, w->o->kernels[i], w->o->names[i], &code[i]);
    if (s == ZM_OK) s = cpu_module_write(m, diag, w->o->files[module]);
    cpu_module_free(m);
    return s;
}

/* Names in the phase table outlive the module: the caller makes them again from the kernel's name.
 */
static void keep_code(Work *w, uint32_t module, const CpuKernelCode *code)
{
    for (uint32_t i = 0; i < w->o->n_kernels; i++)
        if (w->module_of[i] == module) w->o->code[i] = code[i];
}

static void *compile_some(void *arg)
{
    Work *w = arg;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        uint32_t module = w->failure ? w->o->n_files : w->next++;
        pthread_mutex_unlock(&w->lock);
        if (module >= w->o->n_files) return NULL;
        Arena arena = {0};
        SourceSet sources = {.arena = &arena};
        Diag diag = {.arena = &arena, .sources = &sources};
        CpuKernelCode *code = ARENA_ARRAY(&arena, CpuKernelCode, w->o->n_kernels);
        Status s = compile_module(w, module, &arena, &diag, code);
        pthread_mutex_lock(&w->lock);
        if (s == ZM_OK)
            keep_code(w, module, code);
        else if (!w->failure) {
            Str text = {0};
            str_add(&text, diag.msgs.n ? diag.msgs.at[0].text : "a kernel could not be compiled");
            w->failure = text.at;
        }
        pthread_mutex_unlock(&w->lock);
        arena_free(&arena);
    }
}

static void run_threads(Work *w, uint32_t n_threads)
{
    pthread_t thread[MAX_THREADS];
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads > w->o->n_files) n_threads = w->o->n_files;
    uint32_t started = 0;
    while (started + 1 < n_threads && pthread_create(&thread[started], NULL, compile_some, w) == 0)
        started++;
    compile_some(w);
    for (uint32_t i = 0; i < started; i++) pthread_join(thread[i], NULL);
}

Status cpu_emit_objects(Arena *a, Diag *diag, const CpuTarget *t, CpuObjects *o)
{
    uint32_t n = (o->n_kernels + KERNELS_PER_MODULE - 1) / KERNELS_PER_MODULE;
    o->n_files = n > MAX_MODULES ? MAX_MODULES : n;
    o->files = ARENA_ARRAY(a, const char *, o->n_files + 1);
    for (uint32_t i = 0; i < o->n_files; i++)
        o->files[i] = arena_printf(a, "%s/kernels%u.o", o->dir, i);
    uint32_t *module_of = ARENA_ARRAY(a, uint32_t, o->n_kernels + 1);
    if (o->n_files) deal_kernels(o, o->n_files, module_of);
    Work w = {.target = t, .o = o, .module_of = module_of};
    pthread_mutex_init(&w.lock, NULL);
    cpu_llvm_init();
    run_threads(&w, o->n_threads ? o->n_threads : 1);
    pthread_mutex_destroy(&w.lock);
    for (uint32_t i = 0; i < o->n_kernels; i++)
        for (uint32_t p = 0; p < o->code[i].n_phases; p++)
            o->code[i].fn[p] = arena_printf(a, "%s_%u", o->names[i], p);
    if (!w.failure) return ZM_OK;
    diag_error(diag, (SrcPos){0}, E_CODEGEN, "%s", w.failure);
    free((void *)(uintptr_t)w.failure);
    return ZM_FAIL;
}
