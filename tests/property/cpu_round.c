/* cpu_round.c -- round_bf16 on every CPU level that runs here, bit by bit against the rule: random
 * f32 bit patterns (all exponents, subnormals, infinities, NaN) and random u. */
#include "codegen/cpu/cpu.h"
#include "codegen/host.h"
#include "tests/property/prop.h"

enum { N = 1 << 15 };

static ValueId bits_input(Prop *p, bool is_unit)
{
    ValueId v = prop_input(p, prop_type(p, DT_F32, 1, (int64_t[]){N}));
    double *at = p->in[p->n_in - 1].at;
    for (int i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)(prop_uniform(p) * 0x1p32);
        float f;
        memcpy(&f, &bits, sizeof f);
        at[i] = is_unit ? (bits >> 8) * 0x1p-24 : (double)f;
    }
    return v;
}

/* The two bf16 numbers around a, and how far a lies from the lower towards the upper one. */
static double rule(double a, double u)
{
    if (!isfinite(a)) return a;
    double near = dtype_round(DT_BF16, a);
    double step = 0x1p-133;
    while (fabs(a) >= 256 * step) step *= 2;
    double low = floor(fabs(a) / step) * step, part = (fabs(a) - low) / step;
    double size = part + floor(65536 * u) / 65536 < 1 ? low : low + step;
    ZM_CHECK(fabs(near) == low || fabs(near) == dtype_round(DT_BF16, low + step));
    return copysign(size > 0x1.fep127 ? (double)INFINITY : size, a);
}

static int check(const char *target, const Prop *p, const double *got)
{
    for (int i = 0; i < N; i++) {
        double a = p->in[0].at[i], u = p->in[1].at[i], want = rule(a, u);
        if (prop_same_bits(got[i], want) && prop_same_bits(bf16_round_by(a, u), want)) continue;
        fprintf(stderr, "%s: %a by %a is %a, want %a\n", target, a, u, got[i], want);
        return 1;
    }
    return 0;
}

static int test_target(const char *name, CodegenTarget *t)
{
    Prop *p = calloc(1, sizeof *p);
    ZM_CHECK(p != NULL);
    prop_open(p, 5, DT_F32);
    t->arena = &p->arena;
    t->diag = &p->diag;
    ValueId a = bits_input(p, false), u = bits_input(p, true);
    ValueId y = build_binary(&p->b, OP_ROUND_BF16, a, u);
    build_return(&p->b, &y, 1, NULL);
    PipelineRun run = {
        .opt = {.ranks = 1, .workspace_bytes = codegen_workspace_bytes, .target = t}};
    ZM_CHECK(pipeline_run(p->m, "fuse,workspace,schedule,memplan", &run) == ZM_OK);
    HostProgram *h = host_program_new(p->m, t);
    ZM_CHECK(h != NULL);
    EvalTensor out[1];
    host_run(h, p->f, p->in, &p->arena, out, false);
    host_program_free(h);
    int bad = check(name, p, out[0].at);
    prop_close(p);
    free(p);
    return bad;
}

int main(void)
{
    static const char *const targets[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
    int bad = 0, n = 0;
    for (int i = 0; i < 3; i++) {
        Arena arena = {0};
        SourceSet sources = {.arena = &arena};
        Diag diag = {.arena = &arena, .sources = &sources};
        CodegenTarget t;
        if (codegen_target_init(&t, &arena, &diag, "cpu", targets[i]) != ZM_OK) return 1;
        if (cpu_target_runs_here(t.cpu)) {
            bad += test_target(targets[i], &t);
            n++;
        } else
            printf("%s: does not run here\n", targets[i]);
        arena_free(&arena);
    }
    printf("%d targets, %d failures\n", n, bad);
    return bad != 0 || n == 0;
}
