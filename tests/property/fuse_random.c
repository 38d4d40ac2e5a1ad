/* fuse_random.c -- fusion of random graphs of primitive ops over odd shapes: see fuse_check.h. */
#include <stdlib.h>

#include "tests/property/fuse_graphs.h"

enum { N_GRAPHS = 400 };

static bool check_graph(uint64_t seed, FuseStats *stats)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    check_seed = seed * 1000003;
    source_add(&sources, "random.zm", "x", 1);
    Module *m = module_new(&a, &sources, &diag);
    make_vars(m, DT_F32);
    make_graph(m, "f", (GraphKind){DT_F32, false});
    Str text = {0};
    module_print(m, &text);
    bool ok = check_fusion(&a, m, stats);
    diag_print(&diag, stdout);
    if (!ok) {
        printf("seed %llu:\n%s", (unsigned long long)seed, str_c(&text));
        str_free(&text);
        module_print(m, &text);
        printf("fused:\n%s", str_c(&text));
    }
    str_free(&text);
    arena_free(&a);
    return ok;
}

/* More operands than a kernel takes. */
static bool check_wide(FuseStats *stats)
{
    enum { N_WIDE = 300 };
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    source_add(&sources, "wide.zm", "x", 1);
    Module *m = module_new(&a, &sources, &diag);
    Builder b = {.f = func_new(m, "f"), .loc = loc_source(m, (SrcPos){.line = 1, .col = 1})};
    int64_t dim[] = {2, 1};
    ValueId part[N_WIDE];
    for (int i = 0; i < N_WIDE; i++)
        part[i] = func_param(b.f, arena_printf(&a, "p%d", i), type_get(m, DT_F32, 2, dim));
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 1);
    ValueId out = build_unary(&b, OP_EXP, build1(&b, OP_CONCAT, part, N_WIDE, &l));
    build_return(&b, &out, 1, NULL);
    bool ok = check_fusion(&a, m, stats);
    diag_print(&diag, stdout);
    arena_free(&a);
    return ok;
}

int main(int argc, char **argv)
{
    FuseStats stats = {0};
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : N_GRAPHS;
    if (!check_wide(&stats)) return 1;
    for (uint64_t seed = from; seed < from + n; seed++)
        if (!check_graph(seed, &stats)) return 1;
    printf("%u functions, %u kernels, %u outputs in place\n", stats.n_funcs, stats.n_kernels,
           stats.n_shared);
    return stats.n_kernels >= n ? 0 : 1;
}
