/* compile.c -- `zmc MODEL.zm -o OUT`: an executable, or one of the forms on the way to it (--emit).
 */
#include <string.h>
#include <time.h>

#include "codegen/codegen.h"
#include "passes/memory/memory.h"
#include "tools/zmc/zmc.h"

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool emits(const Session *s, const char *what)
{
    return s->opt.emit && strcmp(s->opt.emit, what) == 0;
}

static int emit_text(Session *s, Status made, Str *text)
{
    bool is_ok = made == ZM_OK && session_write_text(s, text) == ZM_OK;
    str_free(text);
    return is_ok ? EXIT_DONE : EXIT_BAD_INPUT;
}

static int emit_kernels(Session *s, const Module *m, const CodegenTarget *t)
{
    Str text = {0};
    uint32_t n_missing = 0;
    Status made = codegen_print_kernels(m, t, &text, &n_missing);
    if (n_missing)
        diag_warning(&s->diag, (SrcPos){0}, E_CODEGEN,
                     "%u kernels are of a kind that target %s does not print yet", n_missing,
                     s->opt.target);
    return emit_text(s, made, &text);
}

static const char *plan_text(Session *s, const Module *m, PlanReport *r)
{
    Arena scratch = {0};
    Str text = {0};
    *r = session_plan_report(s, m);
    plan_print_table(m, r, &scratch, &text);
    const char *kept = arena_strdup(&s->arena, str_c(&text));
    str_free(&text);
    arena_free(&scratch);
    return kept;
}

/* "124,439,808" */
static const char *grouped(Arena *a, int64_t v)
{
    const char *digits = arena_printf(a, "%lld", (long long)v);
    Str out = {0};
    size_t n = strlen(digits);
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) str_add(&out, ",");
        str_add_n(&out, digits + i, 1);
    }
    const char *kept = arena_strdup(a, str_c(&out));
    str_free(&out);
    return kept;
}

/* gpt2: 124,439,808 parameters, 3,100 ops -> 310 kernels (61 distinct), arena 2012.3 MiB = params
 * 474.7 + ..., 2.1 s -> OUT; an arena below 1 MiB in KiB; of many ranks "2 ranks, zero 3, each:
 * arena ..." */
static void print_summary(Session *s, const Module *m, const PlanReport *r, const CodegenStats *st,
                          double seconds)
{
    bool is_small = r->arena < 1 << 20;
    double unit = is_small ? 0x1p10 : 0x1p20;
    fprintf(stderr, "%s: %s parameters, %s ops -> %u kernels (%u distinct), ", m->name,
            grouped(&s->arena, r->params), grouped(&s->arena, st->n_ops), st->n_kernels,
            st->n_distinct);
    if (r->ranks > 1)
        fprintf(stderr, "%lld ranks, zero %lld, each: ", (long long)r->ranks,
                (long long)m->train.zero);
    fprintf(stderr, "arena %.1f %s =", (double)r->arena / unit, is_small ? "KiB" : "MiB");
    const char *plus = "";
    for (int i = 0; i < PLAN_N_CATEGORIES; i++) {
        if (!r->cat[i].bytes) continue;
        fprintf(stderr, "%s %s %.1f", plus, r->cat[i].name, (double)r->cat[i].bytes / unit);
        plus = " +";
    }
    fprintf(stderr, ", compiled in %.2f s -> %s\n", seconds, s->opt.out);
}

static int emit_executable(Session *s, const Module *m, const CodegenTarget *t, double start)
{
    PlanReport r;
    CodegenStats st = {0};
    CodegenOptions co = {.runtime_lib = arena_printf(&s->arena, "%s/libzmrt.a", s->self_dir),
                         .mpi_shim = arena_printf(&s->arena, "%s/libzmc_mpi.so", s->self_dir),
                         .source = s->opt.input,
                         .command_line = s->opt.command_line,
                         .precision = precision_name(m->train.precision),
                         .timing = s->opt.timing};
    co.plan_text = plan_text(s, m, &r);
    if (codegen_executable(m, t, &co, s->opt.out, &st) != ZM_OK) return EXIT_BAD_INPUT;
    session_print_messages(s); /* warnings; the last line says what was made */
    print_summary(s, m, &r, &st, now_s() - start);
    return EXIT_DONE;
}

static int emit_ast(Session *s)
{
    char *text;
    size_t n;
    Str out = {0};
    if (session_read_input(s, &text, &n) != ZM_OK) return EXIT_BAD_INPUT;
    return emit_text(
        s, frontend_print_ast(&s->arena, &s->sources, &s->diag, s->opt.input, text, n, &out), &out);
}

static int missing_out(Session *s)
{
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "no output file");
    diag_help(&s->diag, "add -o OUT");
    return EXIT_BAD_INPUT;
}

/* Who asks for the IR of the passes and for nothing else gets nothing else. */
static bool only_shows_passes(const Options *o)
{
    return !o->emit && !o->out && (o->print_ir_after || o->dump_dir);
}

int command_compile(Session *s)
{
    double start = now_s();
    bool is_exe = !s->opt.emit || emits(s, "exe");
    bool is_shown = only_shows_passes(&s->opt);
    if (is_exe && !s->opt.out && !is_shown) return missing_out(s);
    if (emits(s, "ast")) return emit_ast(s);
    CodegenTarget t;
    if (codegen_target_init(&t, &s->arena, &s->diag, s->opt.target, s->opt.cpu) != ZM_OK)
        return EXIT_BAD_INPUT;
    Module *m = session_compile(s, &t);
    if (!m) return session_exit_code(s);
    if (is_shown) return EXIT_DONE;
    Str text = {0};
    if (emits(s, "ir")) {
        module_print(m, &text);
        return emit_text(s, ZM_OK, &text);
    }
    if (emits(s, "kernels")) return emit_kernels(s, m, &t);
    if (emits(s, "program")) return emit_text(s, codegen_print_program(m, &t, &text), &text);
    return emit_executable(s, m, &t, start);
}
