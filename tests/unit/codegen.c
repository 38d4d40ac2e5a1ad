/* codegen.c -- from a planned model to an executable: the same bytes for any number of threads, a
 * program whose tables agree with the plan, and clear errors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/cpu/cpu.h"
#include "codegen/link.h"
#include "codegen/program.h"
#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "passes/pass.h"

static const char model[] = "dim n = 37, m = 5, B = 3\n"
                            "block linear(x: [..., n], m) -> [..., m] {\n"
                            "  param weight: [n, m] = uniform(0.1)\n"
                            "  param bias: [m] = zeros, no_decay\n"
                            "  return x @ weight + bias\n"
                            "}\n"
                            "model small(x: [B, n], y: int[B]) {\n"
                            "  let h = gelu_tanh(fc1: linear(x, n))\n"
                            "  output logits = fc2: linear(normalize(h), m)\n"
                            "  loss cross_entropy(logits, y)\n"
                            "}\n"
                            "data { tensors(x, y) }\n"
                            "train { optimizer adamw(lr = 1e-3)\n clip 1.0 }\n";

typedef struct Fixture {
    Arena a;
    SourceSet sources;
    Diag diag;
    Module *m;
    CodegenTarget t;
} Fixture;

#define CHECK(COND)                                                                                \
    do {                                                                                           \
        if (!(COND)) {                                                                             \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #COND);                                      \
            n_bad++;                                                                               \
        }                                                                                          \
    } while (0)
static int n_bad;

static void open_fixture(Fixture *x, int64_t accumulate)
{
    *x = (Fixture){0};
    x->sources.arena = x->diag.arena = &x->a;
    x->diag.sources = &x->sources;
    x->m =
        frontend_compile(&x->a, &x->sources, &x->diag, "small.zm", model, sizeof model - 1, NULL);
    bool ok = x->m && codegen_target_init(&x->t, &x->a, &x->diag, NULL, "x86-64-v2") == ZM_OK;
    PipelineRun run = {.opt = {.ranks = 1, .bucket_bytes = 1 << 20, .target = &x->t}};
    run.opt.workspace_bytes = codegen_workspace_bytes;
    if (ok) x->m->train.accumulate = accumulate;
    if (ok && pipeline_run(x->m, pipeline_text("train"), &run) == ZM_OK) return;
    diag_print(&x->diag, stdout);
    exit(1);
}

/* Forgets diagnostics after telling whether one of them has code and text. */
static bool took_error(Fixture *x, DiagCode code, const char *text)
{
    bool found = false;
    for (uint32_t i = 0; i < x->diag.msgs.n; i++)
        found |= x->diag.msgs.at[i].code == code && strstr(x->diag.msgs.at[i].text, text);
    if (!found) diag_print(&x->diag, stdout);
    x->diag.msgs.n = x->diag.n_errors = 0;
    return found;
}

/* ---- objects ---- */

static void test_threads(void)
{
    Fixture x;
    open_fixture(&x, 1);
    const char *dir[2];
    const char *const *objects[2];
    uint32_t n[2];
    for (int i = 0; i < 2; i++) {
        CodegenOptions opt = {.n_threads = i ? 3 : 1};
        Program p;
        CHECK(link_dir_new(&x.a, &x.diag, &dir[i]) == ZM_OK);
        CHECK(codegen_objects(&x.a, x.m, &x.t, &opt, dir[i], &p, &objects[i], &n[i]) == ZM_OK);
    }
    CHECK(n[0] == n[1] && n[0] > 2);
    for (uint32_t i = 0; i < n[0]; i++) {
        char *text[2] = {NULL, NULL};
        size_t bytes[2] = {0, 0};
        for (int j = 0; j < 2; j++) CHECK(file_read(&x.a, objects[j][i], &text[j], &bytes[j]) == 0);
        CHECK(bytes[0] == bytes[1] && memcmp(text[0], text[1], bytes[0]) == 0);
    }
    for (int i = 0; i < 2; i++) link_dir_remove(dir[i]);
    CHECK(access(dir[0], F_OK) != 0);
    arena_free(&x.a);
}

/* ---- program ---- */

static void check_func(const Program *p, uint32_t index)
{
    const ZmpFunc *f = &p->funcs.at[index];
    for (uint32_t i = f->first_command; i < f->first_command + f->n_commands; i++) {
        const ZmpCommand *c = &p->commands.at[i];
        int32_t pos = (int32_t)(i - f->first_command);
        for (uint32_t j = c->first_arg; j < c->first_arg + c->n_args; j++) {
            const ZmpArg *a = &p->args.at[j];
            if (a->buffer < 0) continue; /* constants */
            const ZmpBuffer *b = &p->buffers.at[a->buffer];
            CHECK(a->offset >= 0 && a->bytes > 0 && a->offset + a->bytes <= b->bytes);
            CHECK(b->func < 0 || (uint32_t)b->func == index);
            CHECK(b->func < 0 || (b->live_from <= pos && pos <= b->live_to));
        }
    }
    CHECK(f->n_commands > 0 && f->peak_live <= (int64_t)p->header.arena_bytes);
}

/* Buffers of one function that share bytes are not live together. */
static void check_buffers(const Program *p)
{
    for (uint32_t i = 0; i < p->buffers.n; i++)
        for (uint32_t j = 0; j < i; j++) {
            const ZmpBuffer *a = &p->buffers.at[i], *b = &p->buffers.at[j];
            if (a->func != b->func && a->func >= 0 && b->func >= 0) continue;
            bool meet = a->arena_offset < b->arena_offset + b->bytes &&
                        b->arena_offset < a->arena_offset + a->bytes;
            if (!meet) continue;
            CHECK(a->func >= 0 && b->func >= 0);
            CHECK(a->live_to < b->live_from || b->live_to < a->live_from);
        }
}

static void test_program(int64_t accumulate)
{
    Fixture x;
    open_fixture(&x, accumulate);
    KernelSet set;
    Program p;
    ProgramInfo info = {.target = "cpu", .cpu = "x86-64-v2"};
    CHECK(kernel_set_build(&x.a, x.m, &set) == ZM_OK);
    CHECK(set.kernels.n < set.uses.n); /* @eval runs kernels of @last */
    CHECK(program_build(&x.a, x.m, &set, NULL, &info, &p) == ZM_OK);
    CHECK(p.funcs.n == x.m->funcs.n && p.header.accumulate == (uint32_t)accumulate);
    CHECK(p.header.n_params == 37 * 37 + 37 + 37 * 5 + 5);
    for (uint32_t i = 0; i < p.funcs.n; i++) check_func(&p, i);
    check_buffers(&p);
    size_t bytes, again;
    const char *blob = program_blob(&p, &bytes);
    CHECK(memcmp(blob, program_blob(&p, &again), bytes) == 0 && bytes == again);
    const ZmpHeader *h = (const ZmpHeader *)(const void *)blob;
    CHECK(h->magic == ZMP_MAGIC && h->commands.n == p.commands.n && h->commands.offset % 8 == 0);
    Str text = {0};
    program_print(&p, &text);
    CHECK(strstr(str_c(&text), "function last") && strstr(str_c(&text), "cat=params"));
    str_free(&text);
    arena_free(&x.a);
}

/* ---- link ---- */

static const char *runtime_lib(Arena *a)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return NULL;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    return arena_printf(a, "%s/libzmrt.a", self);
}

static void test_executable(void)
{
    Fixture x;
    open_fixture(&x, 1);
    const char *dir;
    CodegenStats stats;
    CHECK(link_dir_new(&x.a, &x.diag, &dir) == ZM_OK);
    const char *out = arena_printf(&x.a, "%s/small", dir);
    CodegenOptions opt = {.runtime_lib = runtime_lib(&x.a), .n_threads = 2};
    CHECK(codegen_executable(x.m, &x.t, &opt, out, &stats) == ZM_OK);
    CHECK(access(out, X_OK) == 0 && stats.n_kernels > 0 && stats.n_distinct <= stats.n_kernels);
    CHECK(system(arena_printf(&x.a, "%s --info > %s/info 2>&1", out, dir)) == 0);

    opt.runtime_lib = "/nowhere/libzmrt.a";
    CHECK(codegen_executable(x.m, &x.t, &opt, out, &stats) == ZM_FAIL);
    CHECK(took_error(&x, E_FILE, "/nowhere/libzmrt.a"));
    opt.runtime_lib = runtime_lib(&x.a);
    const char *bad = arena_printf(&x.a, "%s/missing/small", dir);
    CHECK(codegen_executable(x.m, &x.t, &opt, bad, &stats) == ZM_FAIL);
    CHECK(took_error(&x, E_FILE, "missing/small"));

    char *path = arena_strdup(&x.a, getenv("PATH"));
    setenv("PATH", "/nowhere", 1);
    const char *other = arena_printf(&x.a, "%s/other", dir);
    CHECK(codegen_executable(x.m, &x.t, &opt, other, &stats) == ZM_FAIL);
    CHECK(took_error(&x, E_CODEGEN, "install a C compiler"));
    setenv("PATH", path, 1);
    CHECK(access(other, F_OK) != 0);

    const char *empty = arena_printf(&x.a, "%s/empty.a", dir);
    CHECK(file_write(empty, "!<arch>\n", 8) == 0);
    opt.runtime_lib = empty;
    CHECK(codegen_executable(x.m, &x.t, &opt, other, &stats) == ZM_FAIL);
    CHECK(took_error(&x, E_CODEGEN, "cc could not link"));
    CHECK(access(other, F_OK) != 0);
    link_dir_remove(dir); /* only what is named above was left behind */
    CHECK(access(dir, F_OK) != 0);
    arena_free(&x.a);
}

static void test_target(void)
{
    Fixture x;
    open_fixture(&x, 1);
    CodegenTarget t;
    CHECK(codegen_target_init(&t, &x.a, &x.diag, "cpu", "z80") == ZM_FAIL);
    CHECK(took_error(&x, E_CODEGEN, "--cpu z80"));
    CHECK(codegen_target_init(&t, &x.a, &x.diag, "tpu", NULL) == ZM_FAIL);
    CHECK(took_error(&x, E_USAGE, "--target tpu"));
    CHECK(codegen_target_init(&t, &x.a, &x.diag, "cuda:90", NULL) == ZM_FAIL);
    CHECK(took_error(&x, E_USAGE, "sm_90"));
    CHECK(codegen_target_init(&t, &x.a, &x.diag, "cuda:sm_80", NULL) == ZM_OK);
    CHECK(t.is_cuda && strcmp(t.arch, "sm_80") == 0);
    CHECK(codegen_target_init(&t, &x.a, &x.diag, NULL, "znver4") == ZM_OK);
    CHECK(t.cpu->has_avx512bf16 && strstr(t.cpu->needs, "avx512bf16"));
    arena_free(&x.a);
}

/* A plan without workspaces is refused where a kernel wants one. */
static void test_workspace(void)
{
    Fixture x;
    open_fixture(&x, 1);
    KernelSet set;
    Program p;
    ProgramInfo info = {.target = "cpu"};
    CHECK(kernel_set_build(&x.a, x.m, &set) == ZM_OK);
    KernelCode *code = ARENA_ARRAY(&x.a, KernelCode, set.kernels.n);
    for (uint32_t i = 0; i < set.kernels.n; i++) code[i].workspace_bytes = 1 << 30;
    CHECK(program_build(&x.a, x.m, &set, code, &info, &p) == ZM_FAIL);
    CHECK(took_error(&x, E_CODEGEN, "run pass workspace"));
    arena_free(&x.a);
}

int main(void)
{
    test_threads();
    test_program(1);
    test_program(3);
    test_executable();
    test_target();
    test_workspace();
    printf("%d failures\n", n_bad);
    return n_bad > 0;
}
