/* zm-run.c -- runs one function of textual IR on tensors from a file, by the reference interpreter
 * or by a back end.  Exit status: 0 done, 1 bad use, bad IR or bad data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ir/base/file.h"
#include "tools/option.h"
#include "tools/zm-run/backend.h"

static const char usage[] =
    "usage: zm-run FILE.zir [options]\n"
    "  --function NAME       function to run (default: the only one)\n"
    "  --inputs FILE         safetensors: inputs by parameter name, variables by name or @name\n"
    "  --outputs FILE        safetensors: results by name, then every variable\n"
    "  --backend NAME        interp: the f64 reference interpreter, each result rounded to its\n"
    "                        dtype (default); or machine code, after the passes that it needs: "
    "cpu,\n"
    "                        cuda (the first GPU, through NVRTC), cuda:sm_NN (code for this\n"
    "                        architecture)\n"
    "  --cpu NAME            what the machine code may use (default native)\n"
    "  --seed N              draws of variables that are not in the file (default 0)\n"
    "  --times N             run N times, variables persist (default 1)\n"
    "  --ranks N             for how many ranks the file is (default: what its mesh says).  All "
    "run\n"
    "                        here, in step.  The files hold the tensors of all ranks: of a "
    "sharded\n"
    "                        one (inputs: the batch) each rank has its part, in rank order; a\n"
    "                        partial sum is given to rank 0, the others have 0, and is summed at "
    "the\n"
    "                        end; of a replicated one rank 0's is written.  Element 3 of rng, the\n"
    "                        first sample's number, is that of rank 0; rank r counts on from "
    "there\n";

typedef struct Options {
    const char *file, *function, *inputs, *outputs, *backend, *cpu, *seed, *times, *ranks;
} Options;

static bool read_options(Options *o, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **value;
    } known[] = {{"--function", &o->function}, {"--inputs", &o->inputs}, {"--outputs", &o->outputs},
                 {"--backend", &o->backend},   {"--cpu", &o->cpu},       {"--seed", &o->seed},
                 {"--times", &o->times},       {"--ranks", &o->ranks}};
    enum { N_KNOWN = sizeof known / sizeof *known };
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], **value = arg[0] == '-' ? NULL : &o->file;
        if (value) *value = arg;
        for (size_t k = 0; !value && k < N_KNOWN; k++)
            if (option_value(known[k].name, argc, argv, &i, known[k].value)) value = known[k].value;
        if (value && *value) continue;
        fprintf(stderr, "zm-run: %s '%s'\n%s", value ? "no value for" : "unknown option", arg,
                usage);
        return false;
    }
    if (!o->file) fputs(usage, stderr);
    return o->file != NULL;
}

static Status fail_usage(Diag *d, const char *what, const char *value)
{
    return diag_error(d, (SrcPos){0}, E_USAGE, "%s '%s'", what, value);
}

static Status read_count(Diag *d, const char *option, const char *text, uint64_t least,
                         uint64_t *out)
{
    char *end;
    *out = least;
    if (!text) return ZM_OK;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end && !errno && *out >= least) return ZM_OK;
    return diag_error(d, (SrcPos){0}, E_USAGE, "%s takes a whole number from %llu, not '%s'",
                      option, (unsigned long long)least, text);
}

static Status read_module(Arena *a, SourceSet *sources, Diag *d, const char *file, Module **m)
{
    char *text;
    size_t n;
    int err = file_read(a, file, &text, &n);
    if (err) return diag_error(d, (SrcPos){0}, E_FILE, "cannot read '%s': %s", file, strerror(err));
    *m = module_parse(a, sources, d, file, text, n);
    return *m ? module_verify(*m, NULL) : ZM_FAIL;
}

static Status pick_function(const Module *m, const char *name, const Func **f)
{
    if (!name && m->funcs.n == 1) {
        *f = m->funcs.at[0];
        return ZM_OK;
    }
    if (!name)
        return diag_error(m->diag, (SrcPos){0}, E_USAGE,
                          "the file has %u functions: name one with --function", m->funcs.n);
    *f = func_find(m, *name == '@' ? name + 1 : name);
    return *f ? ZM_OK : fail_usage(m->diag, "there is no function", name);
}

/* Interpreter (backend NULL) or machine code, on all ranks. */
static Status run_ranks(RunTensors *t, Backend *backend, uint64_t times, uint32_t ranks)
{
    Arena *a = t->e->arena;
    uint32_t n_out = eval_n_results(t->f);
    Eval **e = ARENA_ARRAY(a, Eval *, ranks);
    EvalTensor *in = ARENA_ARRAY(a, EvalTensor, ranks * t->f->params.n);
    EvalTensor *out = ARENA_ARRAY(a, EvalTensor, ranks * n_out);
    for (uint32_t r = 0; r < ranks; r++) e[r] = eval_new(a, t->e->m);
    eval_cut_vars(t->e, e, ranks);
    eval_cut_inputs(t->f, t->in, ranks, a, in);
    if (backend) ZM_TRY(backend_run(backend, e, t->f, in, a, times, out));
    for (uint64_t i = 0; !backend && i < times; i++)
        ZM_TRY(eval_run_ranks(e, ranks, t->f, in, a, out));
    eval_join_vars(t->e, e, ranks);
    eval_join_results(t->f, out, ranks, a, t->out);
    return ZM_OK;
}

static Status check_ranks(const Module *m, const char *text, uint64_t *ranks)
{
    uint64_t have = (uint64_t)module_ranks(m);
    ZM_TRY(read_count(m->diag, "--ranks", text, 1, ranks));
    if (text && *ranks != have)
        return diag_error(m->diag, (SrcPos){0}, E_USAGE,
                          "the file is for %llu rank%s, not %llu: leave --ranks out",
                          (unsigned long long)have, have == 1 ? "" : "s",
                          (unsigned long long)*ranks);
    *ranks = have;
    return ZM_OK;
}

static Status run_module(const Options *o, Arena *a, Module *m, Backend *backend)
{
    RunTensors t = {0};
    uint64_t seed, times, ranks;
    ZM_TRY(check_ranks(m, o->ranks, &ranks));
    ZM_TRY(read_count(m->diag, "--seed", o->seed, 0, &seed));
    ZM_TRY(read_count(m->diag, "--times", o->times, 1, &times));
    ZM_TRY(pick_function(m, o->function, &t.f));
    t.e = eval_new_whole(a, m);
    t.in = ARENA_ARRAY(a, EvalTensor, t.f->params.n);
    t.out = ARENA_ARRAY(a, EvalTensor, eval_n_results(t.f));
    tensors_init_vars(t.e, seed);
    ZM_TRY(tensors_read(&t, o->inputs));
    ZM_TRY(run_ranks(&t, backend, times, (uint32_t)ranks));
    return o->outputs ? tensors_write(&t, o->outputs) : ZM_OK;
}

static Status run(const Options *o, Arena *a, SourceSet *sources, Diag *d)
{
    Module *m = NULL;
    Backend *backend = NULL;
    const char *name = o->backend ? o->backend : "interp";
    bool is_interp = strcmp(name, "interp") == 0;
    if (!is_interp && strcmp(name, "cpu") != 0 && strcmp(name, "cuda") != 0 &&
        strncmp(name, "cuda:", 5) != 0)
        return fail_usage(d, "the back ends are interp, cpu, cuda and cuda:sm_NN, not", name);
    ZM_TRY(read_module(a, sources, d, o->file, &m));
    if (!is_interp && !(backend = backend_new(a, m, name, o->cpu))) return ZM_FAIL;
    Status st = run_module(o, a, m, backend);
    backend_free(backend);
    return st;
}

int main(int argc, char **argv)
{
    Options o = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) return fputs(usage, stdout) < 0;
    if (!read_options(&o, argc, argv)) return 1;
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Status st = run(&o, &arena, &sources, &diag);
    diag_print(&diag, stderr);
    arena_free(&arena);
    return st == ZM_OK ? 0 : 1;
}
