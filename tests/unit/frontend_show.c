/* frontend_show.c -- frontend_show [--ast] [-D name=value]... FILE.zm: what the frontend makes of a
 * file: the IR (or the syntax tree) on stdout, diagnostics on stderr.  Exits with 1 after errors.
 * Without a file: compiles a model of its own. */
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"

static const char self_test[] = "dim B = 2\n"
                                "model tiny(x: [B, 3], y: [B, 3]) {\n"
                                "  param w: [3, 3] = normal(1)\n"
                                "  output z = tanh(x @ w)\n"
                                "  loss mse(z, y)\n"
                                "}\n";

typedef struct Args {
    bool wants_ast;
    const char *file;
    Define defines[32];
    FrontendOptions opt;
} Args;

static void args_read(Args *a, int argc, char **argv)
{
    a->opt.defines = a->defines;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ast") == 0)
            a->wants_ast = true;
        else if (strcmp(argv[i], "-D") == 0 && i + 1 < argc && a->opt.n_defines < 32) {
            char *eq = strchr(argv[++i], '=');
            if (eq) *eq = '\0';
            a->defines[a->opt.n_defines++] = (Define){argv[i], eq ? eq + 1 : "", false};
        } else
            a->file = argv[i];
    }
}

static Status show(Args *a, Arena *arena, SourceSet *sources, Diag *diag, const char *text,
                   size_t n, Str *out)
{
    const char *name =
        a->file ? strrchr(a->file, '/') ? strrchr(a->file, '/') + 1 : a->file : "self.zm";
    if (a->wants_ast) return frontend_print_ast(arena, sources, diag, name, text, n, out);
    Module *m = frontend_compile(arena, sources, diag, name, text, n, &a->opt);
    if (!m) return ZM_FAIL;
    ZM_CHECK(module_verify(m, "frontend") == ZM_OK);
    module_print(m, out);
    return ZM_OK;
}

int main(int argc, char **argv)
{
    Args args = {0};
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Str out = {0};
    char *text = (char *)self_test;
    size_t n = strlen(self_test);
    args_read(&args, argc, argv);
    if (args.file && file_read(&arena, args.file, &text, &n) != 0) {
        fprintf(stderr, "cannot read %s\n", args.file);
        return 1;
    }
    Status st = show(&args, &arena, &sources, &diag, text, n, &out);
    fputs(str_c(&out), stdout);
    diag_print(&diag, stderr);
    str_free(&out);
    arena_free(&arena);
    return st == ZM_OK ? 0 : 1;
}
