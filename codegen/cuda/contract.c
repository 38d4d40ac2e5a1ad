/* contract.c -- prints contractions: acc[batch, m, n] = sum over k of A * B, then the epilogue.
 *
 * A block computes a tile of 64 x 64 outputs with 256 threads, 4 x 4 each.  Tiles of A and B, 16
 * deep, pass through shared memory; the prologue is computed where they are filled, zeros stand
 * past the ends.  Sums run over k in order, by fused multiply-add.  Plain loads and no tensor
 * cores: this is the variant that runs everywhere. */
#include "codegen/cuda/contract.h"

enum { DEPTH = 16, PER_THREAD = 4 }; /* CUDA_TILE outputs = 16 threads x PER_THREAD */

/* is_wanted[] = nodes that `roots` (in is_wanted already) need, without those printed before the
 * loops. */
static void close_wanted(Printer *p)
{
    for (uint32_t i = p->k->n_nodes; i-- > 0;) {
        if (!p->is_wanted[i]) continue;
        if (is_constant(p, i))
            p->is_wanted[i] = false;
        else
            mark_inputs(p->k, i, p->is_wanted);
    }
}

static void clear_wanted(Printer *p)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) p->is_wanted[i] = false;
}

void contract_want_node(Printer *p, int32_t node)
{
    clear_wanted(p);
    p->is_wanted[node] = true;
    close_wanted(p);
}

void contract_want_stores(Printer *p)
{
    clear_wanted(p);
    for (uint32_t i = 0; i < p->k->n_stores; i++) mark_store(&p->k->stores[i], p->is_wanted);
    close_wanted(p);
}

int contract_inner_loop(const Kernel *k, LoopKind kind)
{
    for (int d = (int)k->n_loops - 1; d >= 0; d--)
        if (k->loops[d].kind == kind) return d;
    return -1;
}

static int64_t inner_stride(const Kernel *k, const Access *at, LoopKind kind)
{
    int d = contract_inner_loop(k, kind);
    return d < 0 ? 0 : at->stride[d];
}

bool contract_runs_along_k(const Printer *p, const Side *s)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!p->is_wanted[i] || p->k->nodes[i].kind != KN_LOAD) continue;
        const Access *at = &p->k->accesses[p->k->nodes[i].index];
        return inner_stride(p->k, at, LOOP_K) == 1 || inner_stride(p->k, at, s->loops) != 1;
    }
    return true;
}

static void print_fill(Printer *p, const Side *s)
{
    const char *type = p->index_type;
    long long outer = (long long)loops_extent(p->k, s->loops),
              depth = (long long)loops_extent(p->k, LOOP_K);
    contract_want_node(p, s->node);
    bool along_k = contract_runs_along_k(p, s);
    print_line(p, "for (int s = threadIdx.x; s < %d; s += %d) {", CUDA_TILE * DEPTH,
               p->s.threads_x);
    p->depth++;
    print_line(p, "const int x = s %s %d, kk = s %s %d;", along_k ? "/" : "%",
               along_k ? DEPTH : CUDA_TILE, along_k ? "%" : "/", along_k ? DEPTH : CUDA_TILE);
    print_line(p, "const %s %s = %s + x, k = k0 + kk;", type, s->outer, s->first);
    print_line(p, "%s v = 0;", p->sum_type);
    print_line(p, "if (%s < %lld && k < %lld) {", s->outer, outer, depth);
    p->depth++;
    print_indices(p, s->loops, s->outer);
    print_indices(p, LOOP_K, "k");
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_wanted[i]) print_node(p, i);
    print_indent(p);
    str_add(p->out, "v = ");
    print_use(p, s->node);
    str_add(p->out, ";\n");
    print_close(p);
    print_line(p, "%s[kk][x] = v;", s->tile);
    print_close(p);
}

static void print_multiply(Printer *p)
{
    const char *fma = p->k->nodes[p->k->node_a].dtype == DT_F64 ? "fma" : "fmaf";
    print_line(p, "__syncthreads();");
    print_line(p, "for (int kk = 0; kk < %d; kk++)", DEPTH);
    p->depth++;
    print_line(p, "for (int x = 0; x < %d; x++)", PER_THREAD);
    p->depth++;
    print_line(p, "for (int y = 0; y < %d; y++)", PER_THREAD);
    p->depth++;
    print_line(p, "acc[x][y] = %s(tile_a[kk][tm + x], tile_b[kk][tn + y], acc[x][y]);", fma);
    p->depth -= 3;
    print_line(p, "__syncthreads();");
}

static void print_epilogue(Printer *p)
{
    const Kernel *k = p->k;
    contract_want_stores(p);
    print_line(p, "#pragma unroll");
    print_line(p, "for (int s = 0; s < %d; s++) {", PER_THREAD * PER_THREAD);
    p->depth++;
    print_line(p, "const %s m = m0 + tm + s / %d, n = n0 + tn + s %% %d;", p->index_type,
               PER_THREAD, PER_THREAD);
    print_line(p, "if (m >= %lld || n >= %lld) continue;", (long long)loops_extent(k, LOOP_M),
               (long long)loops_extent(k, LOOP_N));
    print_indices(p, LOOP_M, "m");
    print_indices(p, LOOP_N, "n");
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!p->is_wanted[i]) continue;
        if (k->nodes[i].kind == KN_ACC)
            print_line(p, "const %s v%u = acc[s / %d][s %% %d];", p->sum_type, i, PER_THREAD,
                       PER_THREAD);
        else
            print_node(p, i);
    }
    print_stores(p, LV_CONST);
    print_stores(p, LV_ROW);
    print_stores(p, LV_ELEM);
    print_close(p);
}

static long long tiles_of(const Kernel *k, LoopKind kind)
{
    return (long long)(loops_extent(k, kind) + CUDA_TILE - 1) / CUDA_TILE;
}

void print_contract(Printer *p)
{
    if (contract_tile(p->k, p->arch).kind != CONTRACT_PLAIN) {
        print_contract_tiles(p);
        return;
    }
    const Kernel *k = p->k;
    const char *type = p->index_type;
    long long n_m = tiles_of(k, LOOP_M), n_n = tiles_of(k, LOOP_N);
    const Side a = {"tile_a", "m", "m0", LOOP_M, k->node_a},
               b = {"tile_b", "n", "n0", LOOP_N, k->node_b};
    p->sum_type = k->nodes[k->node_a].dtype == DT_F64 ? "double" : "float";
    print_line(p, "__shared__ %s tile_a[%d][%d], tile_b[%d][%d];  // padded: fills do not collide",
               p->sum_type, DEPTH, CUDA_TILE + 1, DEPTH, CUDA_TILE + 1);
    print_line(p, "const int tm = threadIdx.x / 16 * %d, tn = threadIdx.x %% 16 * %d;", PER_THREAD,
               PER_THREAD);
    print_constants(p);
    print_line(p, "for (%s tile = blockIdx.x; tile < %lld; tile += gridDim.x) {", type,
               n_m * n_n * (long long)loops_extent(k, LOOP_BATCH));
    p->depth++;
    print_line(p, "const %s m0 = tile / %lld %% %lld * %d, n0 = tile %% %lld * %d;", type, n_n, n_m,
               CUDA_TILE, n_n, CUDA_TILE);
    if (loops_extent(k, LOOP_BATCH) > 1)
        print_line(p, "const %s batch = tile / %lld;", type, n_n * n_m);
    print_indices(p, LOOP_BATCH, "batch");
    print_line(p, "%s acc[%d][%d] = {};", p->sum_type, PER_THREAD, PER_THREAD);
    print_line(p, "for (%s k0 = 0; k0 < %lld; k0 += %d) {", type,
               (long long)loops_extent(k, LOOP_K), DEPTH);
    p->depth++;
    print_fill(p, &a);
    print_fill(p, &b);
    print_multiply(p);
    print_close(p);
    print_epilogue(p);
    print_close(p);
}
