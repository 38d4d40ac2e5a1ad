/* cuda_every.c -- NVRTC takes every kernel of both models, whatever the precision, AMP mode, dtype
 * of gradients, ranks, ZeRO stage, accumulation, recomputation and dropout.
 *
 *   test_cuda_every        each kernel once: for one of the architectures for which its text is the
 *                          same, which take turns
 *   test_cuda_every all    each kernel for each architecture: many minutes
 *
 * Each form is printed once, several kernels are one source text, all cores compile.  What NVRTC
 * made of a source text before is not made again (codegen/cuda's cache).  Skipped by name where
 * NVRTC is not found. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "codegen/cuda/modules.h"
#include "codegen/program.h"
#include "tests/unit/cuda_model.h"

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

typedef struct ArchCase {
    const char *name;
    bool has_bf16; /* else models in bf16 are refused before code generation */
} ArchCase;

static const ArchCase archs[] = {
    {"sm_75", false}, {"sm_80", true},  {"sm_86", true},  {"sm_89", true},
    {"sm_90", true},  {"sm_100", true}, {"sm_120", true},
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

/* Own widths of GPT-2, so that tiles and vectors are its own; few layers and tokens. */
static const Model every_models[] = {
    {"gpt2", "gpt2.zm", {{"layers", "2"}, {"T", "64"}, {"B", "2"}, {"dropout", "0"}}, false},
    {"gpt2_drop", "gpt2.zm", {{"layers", "2"}, {"T", "64"}, {"B", "2"}, {"dropout", "0.1"}}, false},
    {"mlp", "mlp.zm", {{NULL, NULL}}, false},
};
enum { N_EVERY_MODELS = sizeof every_models / sizeof every_models[0] };

typedef struct How {
    PrecisionKind precision;
    AmpMode amp;
    bool grad_low, is_accumulated, is_recomputed;
    uint32_t ranks;
    int stage;
} How;

/* ---- kernels ---- */

enum { TEXT_BYTES = 40000 }; /* of kernels in a source text */

typedef struct Every { /* of one architecture */
    uint32_t n_kernels;
    Str open;                /* kernels of the text that is being filled */
    VEC(const char *) texts; /* with the prelude */
} Every;

typedef struct All {
    Every of[N_ARCHS];
    bool is_each;     /* a kernel is compiled for each architecture, not for one */
    Map forms, texts; /* hashes of those seen */
    uint32_t turn;
} All;

static Arena keep;

static void close_text(Every *e)
{
    if (!e->open.n) return;
    Str src = {0};
    cuda_print_prelude(&src);
    str_add_n(&src, e->open.at, e->open.n);
    VEC_PUSH(&keep, &e->texts, arena_strndup(&keep, src.at, src.n));
    e->open.n = 0;
    str_free(&src);
}

static bool is_new(Map *seen, uint64_t key)
{
    if (map_get(seen, key) != MAP_NONE) return false;
    map_put(seen, key, 1);
    return true;
}

/* Text in which numbers of 4 digits and more are equal: extents and strides, which decide nothing
 * that NVRTC could refuse; sizes of tiles, blocks and arrays are smaller. */
static uint64_t shape_hash(const Str *text)
{
    uint64_t h = 0;
    for (size_t i = 0; i < text->n;) {
        size_t digits = strspn(str_c(text) + i, "0123456789");
        if (digits < 4) h = hash_bytes(text->at + i, digits ? digits : 1, h);
        i += digits ? digits : 1;
    }
    return h;
}

/* What the text depends on beside the form. */
static uint64_t form_hash(const Kernel *k)
{
    uint64_t h = kernel_hash(k);
    for (uint32_t i = 0; i < k->n_args; i++)
        h = hash_bytes(&k->args[i].align, sizeof k->args[i].align, h);
    return h;
}

static void put_kernel(Every *e, CudaArch arch, const Kernel *k)
{
    char name[32];
    snprintf(name, sizeof name, "zm_kernel_%u", e->n_kernels++);
    cuda_print_kernel(k, arch, name, NULL, &e->open);
    if (e->open.n > TEXT_BYTES) close_text(e);
}

static uint64_t text_hash(const Kernel *k, CudaArch arch)
{
    Str text = {0};
    cuda_print_kernel(k, arch, "zm_kernel", NULL, &text);
    uint64_t h = shape_hash(&text);
    str_free(&text);
    return h;
}

static void add_kernel(All *all, const Kernel *k, bool is_bf16)
{
    uint64_t hash[N_ARCHS];
    const char *why = cuda_refusal(k);
    if (!is_new(&all->forms, form_hash(k))) return;
    if (why) FAIL("%s is not printed: %s", k->label, why);
    if (why) return;
    for (int i = 0; i < N_ARCHS; i++) hash[i] = text_hash(k, cuda_arch(archs[i].name));
    for (int n = 0; n < N_ARCHS; n++) {
        int i = (int)(all->turn + (uint32_t)n) % N_ARCHS;
        uint64_t key = all->is_each ? hash_bytes(&i, sizeof i, hash[i]) : hash[i];
        if ((is_bf16 && !archs[i].has_bf16) || !is_new(&all->texts, key)) continue;
        put_kernel(&all->of[i], cuda_arch(archs[i].name), k);
    }
    all->turn++;
}

static Module *compile_how(Arena *a, Diag *diag, const Model *model, const How *how)
{
    PipelineRun run = {.opt = {.ranks = how->ranks,
                               .bucket_bytes = 64 << 20,
                               .loss_chunk_bytes = 8 << 20,
                               .recompute_steps = how->is_recomputed ? INT32_MAX : 0}};
    Module *m = frontend_of(a, diag, model);
    if (!m) return NULL;
    TrainConfig *t = &m->train;
    t->precision = how->precision;
    t->amp = how->amp;
    t->grad_low = t->comm_low = how->grad_low;
    t->zero = how->stage;
    if (how->is_accumulated) t->accumulate = 2;
    if (how->precision == PREC_FP16) t->scale.is_dynamic = true;
    return pipeline_run(m, pipeline_text("train"), &run) == ZM_OK ? m : NULL;
}

static void add_kernels(All *all, const Model *model, const How *how)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    Module *m = compile_how(&a, &diag, model, how);
    KernelSet set = {0};
    if (!m || kernel_set_build(&a, m, &set) != ZM_OK || set.kernels.n == 0) {
        FAIL("%s: no kernels", model->name);
        diag_print(&diag, stderr);
    }
    for (uint32_t i = 0; i < set.kernels.n; i++)
        add_kernel(all, set.kernels.at[i], how->precision == PREC_BF16);
    arena_free(&a);
}

/* ---- what is asked for ---- */

static void add_placements(All *all, const Model *model, How how)
{
    static const struct {
        uint32_t ranks;
        int stage;
    } placements[] = {{1, 0}, {2, 0}, {2, 1}, {2, 2}, {2, 3}};
    for (size_t i = 0; i < sizeof placements / sizeof *placements; i++)
        for (int bits = 0; bits < 3; bits++) {
            how.ranks = placements[i].ranks;
            how.stage = placements[i].stage;
            how.is_accumulated = bits > 0;
            how.is_recomputed = bits > 1;
            add_kernels(all, model, &how);
        }
}

static void add_model(All *all, const Model *model)
{
    static const PrecisionKind low[] = {PREC_FP16, PREC_BF16};
    add_placements(all, model, (How){.precision = PREC_FP32});
    for (int p = 0; p < 2; p++)
        for (int bits = 0; bits < 4; bits++)
            add_placements(all, model,
                           (How){.precision = low[p],
                                 .amp = bits & 1 ? AMP_AUTOCAST : AMP_MASTER,
                                 .grad_low = bits & 2});
}

/* ---- compiling ---- */

typedef struct Task {
    const char *text;
    const ArchCase *arch;
    Str failure;
    bool is_cached;
} Task;

typedef struct Work {
    const Nvrtc *nvrtc;
    VEC(Task) tasks;
    atomic_uint next;
} Work;

static void compile_task(const Nvrtc *nvrtc, Task *t)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CudaModule m = {.source = t->text, .source_bytes = strlen(t->text)};
    CudaCache cache = cuda_cache_open(&a, nvrtc, t->arch->name);
    Str ptx = {0}, cubin = {0}, log = {0};
    t->is_cached = cuda_cache_get(&cache, &a, &m);
    if (t->is_cached) {
    } else if (nvrtc_compile(nvrtc, &diag, t->text, "every.cu", t->arch->name, &ptx, &cubin,
                             &log) != ZM_OK ||
               log.n > 0) {
        str_addf(&t->failure, "%s: NVRTC: %s\n%s", t->arch->name, str_c(&log), t->text);
    } else {
        m.ptx = str_c(&ptx);
        m.ptx_bytes = ptx.n + 1;
        m.cubin = cubin.at;
        m.cubin_bytes = cubin.n;
        cuda_cache_put(&cache, &m);
    }
    str_free(&ptx);
    str_free(&cubin);
    str_free(&log);
    arena_free(&a);
}

static void *compile_some(void *work)
{
    Work *w = work;
    for (uint32_t i; (i = atomic_fetch_add(&w->next, 1)) < w->tasks.n;)
        compile_task(w->nvrtc, &w->tasks.at[i]);
    return NULL;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void compile_all(const Nvrtc *nvrtc, const All *all)
{
    enum { MAX_THREADS = 16 };
    Work w = {.nvrtc = nvrtc};
    uint32_t n_cached = 0;
    for (int e = 0; e < N_ARCHS; e++) {
        printf("%s: %u kernels, %u texts\n", archs[e].name, all->of[e].n_kernels,
               all->of[e].texts.n);
        for (uint32_t i = 0; i < all->of[e].texts.n; i++)
            VEC_PUSH(&keep, &w.tasks, ((Task){.text = all->of[e].texts.at[i], .arch = &archs[e]}));
    }
    pthread_t thread[MAX_THREADS];
    long n = sysconf(_SC_NPROCESSORS_ONLN), started = 0;
    while (started < n && started < MAX_THREADS &&
           pthread_create(&thread[started], NULL, compile_some, &w) == 0)
        started++;
    compile_some(&w);
    for (long i = 0; i < started; i++) pthread_join(thread[i], NULL);
    for (uint32_t i = 0; i < w.tasks.n; i++) {
        if (w.tasks.at[i].failure.n) FAIL("%s", str_c(&w.tasks.at[i].failure));
        n_cached += w.tasks.at[i].is_cached;
        str_free(&w.tasks.at[i].failure);
    }
    printf("%u texts, %u of them compiled before\n", w.tasks.n, n_cached);
}

int main(int argc, char **argv)
{
    static All all;
    Nvrtc nvrtc = {0};
    Str why = {0};
    all.is_each = argc > 1 && strcmp(argv[1], "all") == 0;
    if (!nvrtc_find(&keep, &nvrtc, &why)) {
        printf("SKIP cuda_every: NVRTC not found (%s)\n", str_c(&why));
        return EXIT_SKIP;
    }
    double start = now_s();
    all.forms.arena = all.texts.arena = &keep;
    for (int i = 0; i < N_EVERY_MODELS; i++) add_model(&all, &every_models[i]);
    for (int e = 0; e < N_ARCHS; e++) {
        close_text(&all.of[e]);
        str_free(&all.of[e].open);
    }
    printf("%.1f s to print\n", now_s() - start);
    compile_all(&nvrtc, &all);
    printf("%.1f s in all\n%s: %d failures\n", now_s() - start, n_failures ? "FAIL" : "PASS",
           n_failures);
    arena_free(&keep);
    return n_failures ? 1 : 0;
}
