/* cuda_graphs.c -- random graphs of primitive ops through the CUDA back end on the simulator.
 *
 *   programs  in f64 and in 16 bits against the interpreter (graph_programs.h), run twice with
 * other orders of blocks and warps kernels   that fusion makes of them, in f32, bf16 and f16, each
 * within derived bounds and with another grid (cuda_sim.h)
 *
 * The simulator must report nothing.  Skipped by name where NVRTC is not found. */
#include "tests/property/gpu_test.h"
#include "tests/property/graph_programs.h"
#include "codegen/program.h"
#include "tests/unit/cuda_sim_attention.h"

static GpuTest gpu;

static void *load(const Module *m, const CodegenTarget *t)
{
    return gpu_program_new(m, t);
}

static void set_var(void *h, VarId v, const double *at)
{
    gpu_set_var(h, v, at);
}

static void get_var(void *h, VarId v, double *at)
{
    gpu_get_var(h, v, at);
}

static bool run(void *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out, int order)
{
    unsigned long before = gpu_test_reports(&gpu);
    (void)order; /* the simulator draws another one each time */
    return gpu_run(h, f, in, a, out) == ZM_OK && gpu_test_reports(&gpu) == before;
}

static void unload(void *h)
{
    gpu_program_free(h);
}

/* ---- kernels alone, within derived bounds ---- */

static void lower(Module *m, CodegenTarget *t)
{
    PipelineRun run = {.check_changed = true};
    run.opt = (PassOptions){.ranks = 1, .workspace_bytes = codegen_workspace_bytes, .target = t};
    ZM_CHECK(pipeline_run(m, "fuse,workspace,schedule,memplan", &run) == ZM_OK);
}

/* As fill() of fuse_check.h: integers in range of any table, reals in the domain of log and sqrt.
 */
static double fill_alone(const Kernel *k, uint32_t arg, int64_t elem, uint64_t *random)
{
    (void)elem;
    if (dtype_class(k->args[arg].dtype) != DTC_FLOAT) return test_random(random) % 2;
    return 0.5 + test_random(random) * 0x1p-31;
}

static void check_alone(Sim *s, uint64_t seed, DType dt, const char *arch)
{
    enum { N_FUNCS = 40 };
    Arena *a = &s->arena;
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    KernelSet set;
    CodegenTarget t = gpu_test_target(a, &diag, arch);
    check_seed = seed * 7368787;
    source_add(&sources, "random.zm", "x", 1);
    Module *m = module_new(a, &sources, &diag);
    make_vars(m, dt);
    for (uint32_t i = 0; i < N_FUNCS; i++)
        make_graph(m, arena_printf(a, "f%u", i), (GraphKind){dt, true});
    lower(m, &t);
    ZM_CHECK(kernel_set_build(a, m, &set) == ZM_OK);
    SimCase *cases = ARENA_ARRAY(a, SimCase, set.kernels.n);
    for (uint32_t i = 0; i < set.kernels.n; i++) {
        const char *name =
            arena_printf(a, "%s_%u_%llu", dtype_name(dt), i, (unsigned long long)seed);
        cases[i] = (SimCase){.name = name, .k = set.kernels.at[i], .fill = fill_alone};
    }
    sim_check(s, arch, cases, (int)set.kernels.n);
}

int main(int argc, char **argv)
{
    static const GraphBackend back = {load, set_var, get_var, run, unload, "cuda", "compute_80"};
    Sim s;
    if (!sim_open(&s, "cuda_graphs") || !gpu_test_open(&gpu, "cuda_graphs")) return GPU_EXIT_SKIP;
    s.check_attention = sim_check_attention;
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (uint64_t seed = from; seed < from + n; seed++) {
        check_alone(&s, seed, DT_F32, "compute_80");
        check_alone(&s, seed, DT_BF16, "compute_80");
        check_alone(&s, seed, DT_F16, "compute_75");
    }
    int bad = check_programs(&back, from, n);
    return sim_close(&s) | bad;
}
