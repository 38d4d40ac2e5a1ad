/* cuda_contract.c -- contractions for each kind of chip, as NVRTC compiles them, on the simulator:
 * shapes that fit no tile, operands that lie either way or between, prologues, epilogues, parts of
 * K. */
#include "codegen/cuda/contract.h"
#include "tests/unit/cuda_sim.h"

#include "tests/unit/kernel_ref.h"

typedef struct Shape {
    const char *name;
    int64_t batch, m, n, k;
    bool a_turned, b_turned; /* k is the outer dimension in memory */
    int64_t a_more, b_more;  /* elements between rows */
    bool a_shared;           /* all batches read one A */
    int64_t row_more;        /* elements between rows of the result */
} Shape;

static const Shape shapes[] = {
    {"one", 1, 1, 1, 1, false, false, 0, 0, false, 0},
    {"dot", 1, 1, 1, 129, false, false, 0, 0, false, 0},
    {"row", 1, 1, 65, 17, false, true, 0, 0, false, 0},
    {"column", 1, 65, 1, 17, true, false, 0, 0, false, 0},
    {"odd", 1, 17, 3, 65, false, false, 0, 0, false, 0},
    {"odd_turned_a", 1, 65, 17, 33, true, false, 0, 0, false, 0},
    {"odd_turned_b", 1, 33, 129, 19, false, true, 0, 0, false, 0},
    {"odd_turned", 1, 129, 67, 35, true, true, 0, 0, false, 0},
    {"whole", 1, 128, 128, 96, false, true, 0, 0, false, 0},
    {"whole_turned", 1, 64, 64, 64, true, true, 0, 0, false, 0},
    {"edges", 1, 136, 72, 40, false, false, 0, 0, false, 0},
    {"edges_turned", 1, 72, 136, 40, true, true, 0, 0, false, 0},
    {"pitch", 1, 40, 48, 24, false, true, 3, 5, false, 7},
    {"pitch_even", 1, 40, 48, 24, true, false, 2, 6, false, 4},
    {"batches", 3, 20, 24, 40, false, true, 0, 0, false, 0},
    {"batches_odd", 5, 7, 9, 11, false, false, 0, 0, true, 0},
    {"parts", 1, 65, 40, 1100, true, true, 0, 0, false, 0},
    {"parts_odd", 2, 9, 30, 901, false, false, 0, 0, false, 0},
};
/* Enough blocks for a chip that the largest tiles are chosen: 128 x 64, 64 x 128, 128 x 128. */
static const Shape large[] = {
    {"tall", 1, 1030, 520, 9, true, false, 0, 0, false, 0},
    {"flat", 1, 1, 9000, 41, false, true, 0, 0, false, 0},
    {"both", 1, 1490, 1430, 9, true, true, 2, 0, false, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void drop_stride(int64_t *stride, uint32_t d)
{
    memmove(stride + d, stride + d + 1, (KERNEL_MAX_LOOPS - 1 - d) * sizeof *stride);
    stride[KERNEL_MAX_LOOPS - 1] = 0;
}

/* The form has no loops of extent 1. */
static Kernel *without_units(Kernel *k)
{
    for (uint32_t d = k->n_loops; d-- > 0;) {
        if (k->loops[d].extent > 1) continue;
        memmove(k->loops + d, k->loops + d + 1, (KERNEL_MAX_LOOPS - 1 - d) * sizeof(Loop));
        k->n_loops--;
        for (uint32_t i = 0; i < k->n_accesses; i++) drop_stride(k->accesses[i].stride, d);
        for (uint32_t i = 0; i < k->n_stores; i++) drop_stride(k->stores[i].to.stride, d);
        for (uint32_t i = 0; i < k->n_nodes; i++) {
            uint32_t mask = k->nodes[i].loop_mask, low = (1u << d) - 1;
            k->nodes[i].loop_mask = (mask & low) | (mask >> 1 & ~low);
            if (k->nodes[i].loop_mask == 0 && k->nodes[i].kind != KN_ACC)
                k->nodes[i].level = LV_CONST;
        }
    }
    return k;
}

/* An operand [batch, outer, k] or [batch, k, outer] with a pitch; returns its node. */
static int operand(Kernel *k, DType dt, LoopKind kind, const Shape *s)
{
    bool is_a = kind == LOOP_M, turned = is_a ? s->a_turned : s->b_turned;
    int64_t outer = is_a ? s->m : s->n, more = is_a ? s->a_more : s->b_more;
    int64_t rows = turned ? s->k : outer, pitch = (turned ? outer : s->k) + more;
    bool is_shared = is_a && s->a_shared;
    int arg = ref_in(k, dt, (is_shared ? 1 : s->batch) * rows * pitch);
    int64_t batch = is_shared ? 0 : rows * pitch, along = turned ? 1 : pitch,
            deep = turned ? pitch : 1;
    return ref_load(k, arg, 0, STRIDES(batch, is_a ? along : 0, is_a ? 0 : along, deep));
}

static Kernel *start(Arena *a, const char *label, const Shape *s)
{
    Kernel *k = ref_kernel(a, KK_CONTRACT, label, 1);
    ref_loop(k, LOOP_BATCH, s->batch);
    ref_loop(k, LOOP_M, s->m);
    ref_loop(k, LOOP_N, s->n);
    ref_loop(k, LOOP_K, s->k);
    return k;
}

static Kernel *make_product(Arena *a, const Shape *s, DType dt, DType out_dt)
{
    Kernel *k = start(a, "matmul", s);
    int64_t pitch = s->n + s->row_more, elems = s->batch * s->m * pitch;
    k->node_a = operand(k, dt, LOOP_M, s);
    k->node_b = operand(k, dt, LOOP_N, s);
    int acc = ref_acc(k, dt == DT_F64 ? DT_F64 : DT_F32);
    int out = ref_out(k, out_dt, elems, -1);
    ref_store(k, out_dt == k->nodes[acc].dtype ? acc : ref_cast(k, out_dt, acc), out, 0,
              STRIDES(s->m * pitch, pitch, 1, 0));
    return k;
}

/* Bias, activation, residual in place; the value before the activation is stored as well, and the
 * result once more transposed. */
static Kernel *make_epilogue(Arena *a, const Shape *s, DType dt)
{
    Kernel *k = start(a, "matmul+add+tanh+add", s);
    int64_t elems = s->batch * s->m * s->n;
    k->node_a = operand(k, dt, LOOP_M, s);
    k->node_b = operand(k, dt, LOOP_N, s);
    int bias = ref_in(k, dt, s->n), residual = ref_in(k, dt, elems);
    int before = ref_out(k, dt, elems, -1), out = ref_out(k, dt, elems, residual),
        turned = ref_out(k, DT_F32, elems, -1);
    int64_t dense[] = {s->m * s->n, s->n, 1, 0};
    int b = ref_cast(k, DT_F32, ref_load(k, bias, 0, STRIDES(0, 0, 1, 0)));
    int sum = ref_bin(k, OP_ADD, ref_acc(k, DT_F32), b);
    int r = ref_cast(k, DT_F32, ref_load(k, residual, 0, dense));
    int v = ref_bin(k, OP_ADD, ref_un(k, OP_TANH, sum), r);
    ref_store(k, ref_cast(k, dt, sum), before, 0, dense);
    ref_store(k, ref_cast(k, dt, v), out, 0, dense);
    ref_store(k, v, turned, 0, STRIDES(s->m * s->n, 1, s->m, 0));
    return k;
}

/* A is computed while its tile is filled: x * scale[k] + shift[m]; B a cast of f32. */
static Kernel *make_prologue(Arena *a, const Shape *s, DType dt)
{
    Kernel *k = start(a, "mul+add+matmul", s);
    int x = operand(k, DT_F32, LOOP_M, s);
    int scale = ref_in(k, DT_F32, s->k), shift = ref_in(k, DT_F32, s->m);
    int y = ref_bin(k, OP_MUL, x, ref_load(k, scale, 0, STRIDES(0, 0, 0, 1)));
    k->node_a = ref_cast(k, dt, ref_bin(k, OP_ADD, y, ref_load(k, shift, 0, STRIDES(0, 1, 0, 0))));
    k->node_b = ref_cast(k, dt, operand(k, DT_F32, LOOP_N, s));
    int out = ref_out(k, DT_F32, s->batch * s->m * s->n, -1);
    ref_store(k, ref_acc(k, DT_F32), out, 0, STRIDES(s->m * s->n, s->n, 1, 0));
    return k;
}

/* Loops that no stride joins: M = 3 x 24, N = 5 x 8, K = 2 x 16, the result in another order. */
static Kernel *make_split_loops(Arena *a, DType dt, int64_t inner_m, int64_t inner_n,
                                int64_t inner_k)
{
    enum { M = 3, N = 5, K = 2 };
    Kernel *k = ref_kernel(a, KK_CONTRACT, "matmul", 1);
    ref_loop(k, LOOP_M, M);
    ref_loop(k, LOOP_M, inner_m);
    ref_loop(k, LOOP_N, N);
    ref_loop(k, LOOP_N, inner_n);
    ref_loop(k, LOOP_K, K);
    ref_loop(k, LOOP_K, inner_k);
    int64_t row = inner_k + 8;
    int x = ref_in(k, dt, K * M * inner_m * row), y = ref_in(k, dt, N * K * inner_k * inner_n);
    int out = ref_out(k, dt, N * M * inner_m * inner_n, -1);
    k->node_a = ref_load(k, x, 0, STRIDES(inner_m * row, row, 0, 0, M * inner_m * row, 1));
    k->node_b =
        ref_load(k, y, 0, STRIDES(0, 0, K * inner_k * inner_n, 1, inner_k * inner_n, inner_n));
    ref_store(k, ref_cast(k, dt, ref_acc(k, DT_F32)), out, 0,
              STRIDES(inner_m * inner_n, inner_n, M * inner_m * inner_n, 1, 0, 0));
    return k;
}

/* A is a padded row: zeros before and behind; B the same for all n: a sum. */
static Kernel *make_guarded(Arena *a, DType dt)
{
    enum { M = 21, N = 12, K = 40, LOW = 3, HIGH = 37 };
    static const Guard inside[] = {{.stride = {0, 0, 1}, .lo = LOW, .hi = HIGH}};
    Kernel *k = ref_kernel(a, KK_CONTRACT, "pad+matmul", 1);
    ref_loop(k, LOOP_M, M);
    ref_loop(k, LOOP_N, N);
    ref_loop(k, LOOP_K, K);
    int x = ref_in(k, dt, M * (HIGH - LOW)), y = ref_in(k, dt, K);
    int out = ref_out(k, DT_F32, M * N, -1);
    k->node_a = ref_load_guarded(k, x, -LOW, STRIDES(HIGH - LOW, 0, 1), inside, 1);
    k->node_b = ref_load(k, y, 0, STRIDES(0, 0, 1));
    ref_store(k, ref_acc(k, DT_F32), out, 0, STRIDES(N, 1, 0));
    return k;
}

/* out += A B, in an f32 accumulator in place */
static Kernel *make_accumulate(Arena *a, const Shape *s, DType dt)
{
    Kernel *k = start(a, "matmul+add", s);
    int64_t dense[] = {s->m * s->n, s->n, 1, 0};
    k->node_a = operand(k, dt, LOOP_M, s);
    k->node_b = operand(k, dt, LOOP_N, s);
    int sum = ref_in(k, DT_F32, s->batch * s->m * s->n);
    int out = ref_out(k, DT_F32, s->batch * s->m * s->n, sum);
    ref_store(k, ref_bin(k, OP_ADD, ref_load(k, sum, 0, dense), ref_acc(k, DT_F32)), out, 0, dense);
    return k;
}

enum { MAX_CASES = 8 * N_SHAPES };

static int add(SimCase *c, int n, Sim *s, const char *what, const char *name, Kernel *k)
{
    ZM_CHECK(n < MAX_CASES);
    /* As the plan gives them to most arguments; others begin anywhere. */
    for (uint32_t i = 0; i < k->n_args; i++) k->args[i].align = n % 2 ? 16 : 0;
    const char *type = dtype_name(k->nodes[k->node_a].dtype);
    c[n] = (SimCase){.name = arena_printf(&s->arena, "%s_%s_%s", what, type, name),
                     .k = without_units(k)};
    return n + 1;
}

static void check_type(Sim *s, const char *arch, DType dt)
{
    static SimCase c[MAX_CASES];
    int n = 0;
    Arena *a = &s->arena;
    for (int i = 0; i < N_SHAPES; i++) {
        const Shape *h = &shapes[i];
        n = add(c, n, s, "product", h->name, make_product(a, h, dt, i % 2 ? DT_F32 : dt));
        if (dt == DT_F64) continue;
        if (i % 3 == 0) n = add(c, n, s, "epilogue", h->name, make_epilogue(a, h, dt));
        if (i % 3 == 1) n = add(c, n, s, "prologue", h->name, make_prologue(a, h, dt));
        if (i % 3 == 2) n = add(c, n, s, "accumulate", h->name, make_accumulate(a, h, dt));
    }
    if (dt != DT_F64) {
        n = add(c, n, s, "loops", "eights", make_split_loops(a, dt, 24, 8, 16));
        n = add(c, n, s, "loops", "odd", make_split_loops(a, dt, 7, 6, 5));
        n = add(c, n, s, "guarded", "", make_guarded(a, dt));
    }
    sim_check(s, arch, c, n);
}

static void check_large(Sim *s, DType dt)
{
    static const int tile[][2] = {{128, 64}, {64, 128}, {128, 128}};
    SimCase c[3];
    for (int i = 0; i < 3; i++) {
        Kernel *k = make_product(&s->arena, &large[i], dt, dt);
        add(c, i, s, "large", large[i].name, k);
        ContractTile t = contract_tile(k, cuda_arch("sm_86"));
        if (t.m != tile[i][0] || t.n != tile[i][1])
            FAIL("%s: tile %d x %d, want %d x %d", c[i].name, t.m, t.n, tile[i][0], tile[i][1]);
    }
    sim_check(s, "compute_86", c, 3);
}

/* Enough blocks that sm_90a takes wgmma, which has one shape of tile: batches and both kinds of
 * edges, each operand either way, few and many steps, parts of K. */
static const Shape for_wgmma[] = {
    {"turned", 1, 1490, 1430, 9, true, true, 2, 0, false, 0},
    {"edges", 140, 67, 72, 137, false, false, 7, 0, false, 0},
    {"turned_a", 140, 72, 65, 136, true, false, 0, 8, false, 0},
    {"turned_b", 140, 66, 80, 72, false, true, 0, 0, true, 0},
    {"parts", 34, 100, 112, 780, true, true, 0, 0, false, 0},
};

static void check_wgmma(Sim *s)
{
    enum { N_WGMMA = sizeof for_wgmma / sizeof for_wgmma[0] };
    static SimCase c[2 * N_WGMMA];
    int n = 0;
    for (int i = 0; i < N_WGMMA; i++) {
        DType dt = i % 2 ? DT_F16 : DT_BF16;
        const Shape *h = &for_wgmma[i];
        Kernel *k = i == 1   ? make_epilogue(&s->arena, h, dt)
                    : i == 3 ? make_prologue(&s->arena, h, dt)
                    : i == 4 ? make_accumulate(&s->arena, h, dt)
                             : make_product(&s->arena, h, dt, dt);
        n = add(c, n, s, "wgmma", h->name, k);
        ContractTile t = contract_tile(k, cuda_arch("sm_90a"));
        if (t.kind != CONTRACT_WGMMA || (t.parts > 1) != (i == 4))
            FAIL("%s: tiles of %d x %d, kind %d, %lld parts", c[n - 1].name, t.m, t.n, t.kind,
                 (long long)t.parts);
        if (contract_tile(k, cuda_arch("sm_90")).kind != CONTRACT_MMA)
            FAIL("%s: sm_90 has no wgmma", c[n - 1].name);
    }
    sim_check(s, "compute_90a", c, n);
}

int main(void)
{
    Sim s;
    if (!sim_open(&s, "cuda_contract")) return 77;
    check_type(&s, "compute_80", DT_BF16);
    check_large(&s, DT_BF16);
    check_large(&s, DT_F32);
    check_wgmma(&s);
    check_type(&s, "compute_80", DT_F16);
    check_type(&s, "compute_75", DT_F16);
    check_type(&s, "compute_75", DT_BF16);
    check_type(&s, "compute_80", DT_F32);
    check_type(&s, "compute_75", DT_F32);
    check_type(&s, "compute_80", DT_F64);
    return sim_close(&s);
}
