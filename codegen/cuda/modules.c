/* modules.c -- see modules.h. */
#include "codegen/cuda/modules.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_MODULES = 8,        /* texts: enough for many cores, few enough that the prelude is cheap */
    KERNELS_PER_MODULE = 4, /* at least, on average */
    MAX_THREADS = 64
};

const char *cuda_kernel_name(Arena *a, uint32_t kernel)
{
    return arena_printf(a, "zm_kernel_%u", kernel);
}

/* ---- source texts ---- */

static SrcPos pos_of(const Module *m, const Kernel *k)
{
    return loc_ok(k->loc) ? loc_pos(m, k->loc) : (SrcPos){0};
}

static Status print_all(Arena *a, Diag *diag, const CudaModules *c, Str *text)
{
    for (uint32_t i = 0; i < c->n_kernels; i++) {
        const Kernel *k = c->kernels[i];
        const char *why = cuda_refusal(k);
        if (why)
            return diag_error(diag, pos_of(c->m, k), E_CODEGEN, "%s: %s on cuda", k->label, why);
        cuda_print_kernel(k, cuda_arch(c->arch), cuda_kernel_name(a, i), c->m, &text[i]);
    }
    return ZM_OK;
}

static uint32_t count_lines(const char *at, size_t n)
{
    uint32_t lines = 0;
    for (size_t i = 0; i < n; i++) lines += at[i] == '\n';
    return lines;
}

/* The kernels [first, first + n) behind the prelude. */
static void fill_module(Arena *a, CudaModule *m, uint32_t index, const Str *text)
{
    Str out = {0};
    uint32_t *line_of = ARENA_ARRAY(a, uint32_t, m->n + 1), line;
    cuda_print_prelude(&out);
    line = 1 + count_lines(out.at, out.n);
    for (uint32_t i = 0; i < m->n; i++) {
        const Str *t = &text[m->first + i];
        line_of[i] = line;
        line += count_lines(t->at, t->n);
        str_add_n(&out, t->at, t->n);
    }
    m->name = arena_printf(a, "kernels_%u.cu", index);
    m->source = arena_strndup(a, out.at, out.n);
    m->source_bytes = out.n;
    m->line_of = line_of;
    str_free(&out);
}

/* Of NVRTC's time, in bytes of the text of a nest: tiles in registers, whose loops are unrolled,
 * take twice as long as their text says (measured on the kernels of GPT-2). */
static size_t cost_of(const Kernel *k, const Str *text)
{
    return k->kind == KK_CONTRACT || k->kind == KK_ATTENTION ? 2 * text->n : text->n;
}

/* Consecutive kernels into texts that take about equal time. */
static void divide(Arena *a, CudaModules *c, const Str *text)
{
    uint32_t n = (c->n_kernels + KERNELS_PER_MODULE - 1) / KERNELS_PER_MODULE;
    n = n < 1 ? 1 : n > MAX_MODULES ? MAX_MODULES : n;
    size_t total = 0, done = 0;
    for (uint32_t i = 0; i < c->n_kernels; i++) total += cost_of(c->kernels[i], &text[i]);
    c->at = ARENA_ARRAY(a, CudaModule, n);
    uint32_t next = 0;
    for (uint32_t i = 0; i < n && next < c->n_kernels; i++) {
        CudaModule *m = &c->at[c->n];
        m->first = next;
        while (next < c->n_kernels && (m->n == 0 || done < total * (i + 1) / n)) {
            done += cost_of(c->kernels[next], &text[next]);
            next++;
            m->n++;
        }
        fill_module(a, m, c->n++, text);
    }
}

/* ---- compiling ---- */

typedef struct Job { /* of one text; a thread's own */
    Arena arena;
    SourceSet sources;
    Diag diag;
    bool is_done, is_cached;
    Str log;
} Job;

typedef struct Work {
    const Nvrtc *nvrtc;
    CudaCache cache;
    CudaModules *c;
    Job *job;
    atomic_uint next;
} Work;

static const char *keep(Arena *a, const Str *s, size_t n)
{
    char *out = arena_alloc(a, n ? n : 1);
    if (n) memcpy(out, str_c(s), n);
    return out;
}

static void compile_one(Work *w, CudaModule *m, Job *j)
{
    j->is_done = j->is_cached = cuda_cache_get(&w->cache, &j->arena, m);
    if (j->is_cached) return;
    Str ptx = {0}, cubin = {0};
    if (nvrtc_compile(w->nvrtc, &j->diag, m->source, m->name, w->c->arch, &ptx, &cubin, &j->log) ==
        ZM_OK) {
        m->ptx_bytes = ptx.n + 1; /* with the NUL of str_c */
        m->ptx = keep(&j->arena, &ptx, m->ptx_bytes);
        m->cubin_bytes = cubin.n;
        m->cubin = keep(&j->arena, &cubin, cubin.n);
        j->is_done = true;
        cuda_cache_put(&w->cache, m);
    }
    str_free(&ptx);
    str_free(&cubin);
}

static void *compile_some(void *work)
{
    Work *w = work;
    for (uint32_t i; (i = atomic_fetch_add(&w->next, 1)) < w->c->n;) {
        Job *j = &w->job[i];
        j->sources.arena = &j->arena;
        j->diag = (Diag){.arena = &j->arena, .sources = &j->sources};
        compile_one(w, &w->c->at[i], j);
    }
    return NULL;
}

static void run_threads(Work *w, uint32_t n_threads)
{
    pthread_t thread[MAX_THREADS];
    uint32_t started = 0;
    if (n_threads > w->c->n) n_threads = w->c->n;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    while (started + 1 < n_threads && pthread_create(&thread[started], NULL, compile_some, w) == 0)
        started++;
    compile_some(w);
    for (uint32_t i = 0; i < started; i++) pthread_join(thread[i], NULL);
}

/* ---- refusals ---- */

int64_t cuda_kernel_blamed(const CudaModule *m, const char *log)
{
    const char *at = strstr(log, "): error"), *name = strstr(log, "zm_kernel_");
    while (at && at > log && at[-1] >= '0' && at[-1] <= '9') at--;
    if (at && at > log && at[-1] == '(') {
        long line = strtol(at, NULL, 10);
        for (uint32_t i = m->n; i-- > 0;)
            if (line >= (long)m->line_of[i]) return m->first + i;
    }
    int64_t k = name ? strtol(name + strlen("zm_kernel_"), NULL, 10) : -1;
    return k >= m->first && k < m->first + m->n ? k : -1;
}

static Status refused(const Work *w, Diag *diag, uint32_t i)
{
    const CudaModules *c = w->c;
    const Job *j = &w->job[i];
    int64_t k = cuda_kernel_blamed(&c->at[i], str_c(&j->log));
    if (k < 0)
        diag_error(diag, (SrcPos){0}, E_CODEGEN, "%s", j->diag.msgs.at[0].text);
    else
        diag_error(diag, pos_of(c->m, c->kernels[k]), E_CODEGEN,
                   "NVRTC %d.%d refuses kernel %s (zm_kernel_%lld) for %s", w->nvrtc->major,
                   w->nvrtc->minor, c->kernels[k]->label, (long long)k, c->arch);
    if (j->log.n) diag_note(diag, (SrcPos){0}, "NVRTC says: %s", str_c(&j->log));
    diag_help(diag, k < 0 ? "NVRTC 13 compiles for sm_75 and later, 12 also for sm_70; see "
                            "--target cuda:sm_NN"
                          : "--emit kernels prints the kernel's CUDA C");
    return ZM_FAIL;
}

static Status collect(Arena *a, Diag *diag, Work *w)
{
    CudaModules *c = w->c;
    for (uint32_t i = 0; i < c->n; i++)
        if (!w->job[i].is_done) return refused(w, diag, i);
    for (uint32_t i = 0; i < c->n; i++) {
        CudaModule *m = &c->at[i];
        m->ptx = memcpy(arena_alloc(a, m->ptx_bytes), m->ptx, m->ptx_bytes);
        m->cubin = memcpy(arena_alloc(a, m->cubin_bytes + 1), m->cubin, m->cubin_bytes);
        c->n_cached += w->job[i].is_cached;
    }
    return ZM_OK;
}

static Status compile_texts(Arena *a, Diag *diag, CudaModules *c)
{
    Nvrtc nvrtc;
    Str why = {0};
    if (!nvrtc_find(a, &nvrtc, &why)) {
        diag_error(diag, (SrcPos){0}, E_CODEGEN,
                   "--target cuda compiles its kernels with NVRTC, which is missing: %s",
                   str_c(&why));
        str_free(&why);
        return ZM_FAIL;
    }
    ZM_TRY(nvrtc_check_arch(&nvrtc, diag, c->arch));
    Work w = {.nvrtc = &nvrtc, .cache = cuda_cache_open(a, &nvrtc, c->arch), .c = c};
    w.job = ARENA_ARRAY(a, Job, c->n + 1);
    run_threads(&w, c->n_threads);
    Status s = collect(a, diag, &w);
    for (uint32_t i = 0; i < c->n; i++) {
        str_free(&w.job[i].log);
        arena_free(&w.job[i].arena);
    }
    return s;
}

Status cuda_compile_modules(Arena *a, Diag *diag, CudaModules *c)
{
    Str *text = ARENA_ARRAY(a, Str, c->n_kernels + 1);
    Status s = print_all(a, diag, c, text);
    if (s == ZM_OK) divide(a, c, text);
    for (uint32_t i = 0; i < c->n_kernels; i++) str_free(&text[i]);
    return s == ZM_OK ? compile_texts(a, diag, c) : s;
}
