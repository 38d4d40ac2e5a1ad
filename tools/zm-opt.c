/* zm-opt.c -- reads textual IR, runs passes on it, prints it.  Verifies before the first pass and
 * after every one.  Exit status: 0 done, 1 bad use, bad IR or a pass that failed. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ir/base/file.h"
#include "passes/pass.h"
#include "tools/option.h"
#include "tools/zm-opt/ops_md.h"
#include "tools/zm-opt/passes_md.h"

static const char usage[] =
    "usage: zm-opt FILE.zir|- [options]\n"
    "  --passes=a,b{key=value},c   passes to run, in this order\n"
    "  --pipeline=NAME             passes of a pipeline (passes/pipelines.def)\n"
    "  --print-ir-after=PASS|all   IR after each run of the pass, on stderr\n"
    "  --dump-dir=DIR              IR after every pass in DIR/NN-pass.zir\n"
    "  --verify-each               accepted: passes are always verified here\n"
    "  --timing                    seconds, ops and rewrites of each pass, on stderr\n"
    "  --rules, --stats            how often each rewrite rule fired, on stderr\n"
    "  --load=FILE.so              a pass from elsewhere: its symbol `const PassInfo zm_pass`\n"
    "  -o FILE                     the resulting IR (default: standard output)\n"
    "  --print-ops-md              the op reference, docs/ops.md, from ir/ops.def\n"
    "  --print-passes-md           the pass reference, docs/passes.md, from passes/*.def\n";

enum { MAX_PLUGINS = 16 };

typedef struct Options {
    const char *file, *passes, *pipeline, *out;
    bool print_ops_md, print_passes_md;
    PipelineRun run;
    const char *load[MAX_PLUGINS + 1];
    PassInfo plugin[MAX_PLUGINS];
    uint32_t n_load;
} Options;

static bool read_flag(Options *o, const char *arg)
{
    const struct {
        const char *name;
        bool *flag;
    } known[] = {{"--verify-each", &o->run.check_changed},
                 {"--rules", &o->run.rule_stats},
                 {"--stats", &o->run.rule_stats},
                 {"--timing", &o->run.timing},
                 {"--print-passes-md", &o->print_passes_md},
                 {"--print-ops-md", &o->print_ops_md}};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (strcmp(arg, known[k].name) == 0) return *known[k].flag = true;
    return false;
}

/* The option with a value at argv[*i]; *i moves over the value. */
static bool read_setting(Options *o, int argc, char **argv, int *i)
{
    const struct {
        const char *name;
        const char **value;
    } known[] = {{"--passes", &o->passes},
                 {"--pipeline", &o->pipeline},
                 {"--print-ir-after", &o->run.print_after},
                 {"--dump-dir", &o->run.dump_dir},
                 {"--load", &o->load[o->n_load]},
                 {"-o", &o->out}};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        if (!option_value(known[k].name, argc, argv, i, known[k].value)) continue;
        o->n_load += known[k].value == &o->load[o->n_load];
        return *known[k].value != NULL;
    }
    return false;
}

static bool refuse(const char *what, const char *arg)
{
    fprintf(stderr, "zm-opt: %s '%s'\n%s", what, arg, usage);
    return false;
}

static bool read_options(Options *o, int argc, char **argv)
{
    *o = (Options){.run = {.print_to = stderr, .check_changed = true, .opt = {.ranks = 1}}};
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        bool is_option = arg[0] == '-' && arg[1];
        if (is_option && !read_flag(o, arg) && !read_setting(o, argc, argv, &i))
            return refuse("unknown option, or one without its value:", arg);
        if (!is_option && o->file) return refuse("a second file", arg);
        if (!is_option) o->file = arg;
        if (o->n_load > MAX_PLUGINS) return refuse("too many plugins, from", arg);
    }
    bool is_ok = o->file || o->print_ops_md || o->print_passes_md;
    if (!is_ok) fputs(usage, stderr);
    return is_ok;
}

static int read_text(Arena *a, const char *file, char **text, size_t *n)
{
    if (strcmp(file, "-") != 0) return file_read(a, file, text, n);
    Str s = {0};
    char buf[4096];
    size_t got;
    while ((got = fread(buf, 1, sizeof buf, stdin)) > 0) str_add_n(&s, buf, got);
    *text = arena_strndup(a, str_c(&s), s.n);
    *n = s.n;
    str_free(&s);
    return ferror(stdin) ? EIO : 0;
}

static int write_text(const char *path, const Str *s)
{
    if (path) return file_write(path, str_c(s), s->n);
    bool is_ok = fwrite(str_c(s), 1, s->n, stdout) == s->n && fflush(stdout) == 0;
    return is_ok ? 0 : errno;
}

/* The passes of --load.  The libraries stay loaded: their code runs until the end. */
static Status load_plugins(Options *o, Diag *diag)
{
    for (uint32_t i = 0; i < o->n_load; i++) {
        void *lib = dlopen(o->load[i], RTLD_NOW | RTLD_LOCAL);
        const PassInfo *pass = lib ? dlsym(lib, "zm_pass") : NULL;
        if (!pass)
            return diag_error(diag, (SrcPos){0}, E_FILE, "cannot load a pass: %s", dlerror());
        o->plugin[i] = *pass;
    }
    o->run.extra = o->plugin;
    o->run.n_extra = o->n_load;
    return ZM_OK;
}

static Status run_passes(Options *o, Module *m)
{
    ZM_TRY(load_plugins(o, m->diag));
    const char *passes = o->passes;
    ZM_TRY(module_verify(m, NULL));
    if (o->pipeline && !(passes = pipeline_text(o->pipeline)))
        return diag_error(m->diag, (SrcPos){0}, E_USAGE, "there is no pipeline '%s'", o->pipeline);
    return passes ? pipeline_run(m, passes, &o->run) : ZM_OK;
}

/* The resulting text, or ZM_FAIL after a diagnostic. */
static Status optimize(Options *o, Arena *a, SourceSet *sources, Diag *diag, Str *out)
{
    char *text;
    size_t n;
    int err = read_text(a, o->file, &text, &n);
    if (err)
        return diag_error(diag, (SrcPos){0}, E_FILE, "cannot read '%s': %s", o->file,
                          strerror(err));
    Module *m = module_parse(a, sources, diag, o->file, text, n);
    if (!m) return ZM_FAIL;
    ZM_TRY(run_passes(o, m));
    module_print(m, out);
    return ZM_OK;
}

int main(int argc, char **argv)
{
    Options o;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout) < 0;
    if (!read_options(&o, argc, argv)) return 1;
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Str out = {0};
    Status st = ZM_OK;
    if (o.print_ops_md)
        ops_md_print(&out);
    else if (o.print_passes_md)
        passes_md_print(&out);
    else
        st = optimize(&o, &arena, &sources, &diag, &out);
    int err = st == ZM_OK ? write_text(o.out, &out) : 0;
    if (err)
        diag_error(&diag, (SrcPos){0}, E_FILE, "cannot write '%s': %s",
                   o.out ? o.out : "standard output", strerror(err));
    diag_print(&diag, stderr);
    str_free(&out);
    bool is_ok = diag.n_errors == 0;
    arena_free(&arena);
    return is_ok ? 0 : 1;
}
