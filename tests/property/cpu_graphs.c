/* cpu_graphs.c -- random graphs of primitive ops through the CPU back end, against the interpreter
 * (graph_programs.h); with tasks in ascending and in descending order. */
#include "codegen/cpu/cpu.h"
#include "codegen/host.h"
#include "tests/property/graph_programs.h"

static void *load(const Module *m, const CodegenTarget *t)
{
    return host_program_new(m, t);
}

static void set_var(void *h, VarId v, const double *at)
{
    host_set_var(h, v, at);
}

static void get_var(void *h, VarId v, double *at)
{
    host_get_var(h, v, at);
}

static bool run(void *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out, int order)
{
    host_run(h, f, in, a, out, order == 1);
    return true;
}

static void unload(void *h)
{
    host_program_free(h);
}

int main(int argc, char **argv)
{
    static const GraphBackend back = {load, set_var, get_var, run, unload, NULL, NULL};
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    return check_programs(&back, from, argc > 2 ? strtoull(argv[2], NULL, 10) : 3);
}
