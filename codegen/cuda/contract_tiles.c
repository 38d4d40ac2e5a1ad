/* contract_tiles.c -- prints contractions whose operands pass through tiles in shared memory: of
 * 16-bit numbers on tensor cores, of f32 by fused multiply-adds.
 *
 * A block computes a tile of outputs.  Tiles of A and B, a step of K deep, pass through a ring in
 * shared memory.  16-bit numbers lie there as in their memory, [m or n][k] or turned, [k][m or n],
 * and ldmatrix gives fragments of both; f32 lies [k][m or n] always.  One loop fills the ring and
 * multiplies: in its turn `t` the tiles of step t + stages - 1 are sent for and those of step t
 * multiplied, so the first turns only fill.
 *
 * An operand comes by one of three ways (Fill), 16 bytes at a time: a chunk.  The results go to
 * shared memory as rows, so that the epilogue reads and writes 4 neighbours a thread, and is
 * printed once.
 *
 * Sums: f32, K in order; of parts of K, in the order of the parts.  Neither depends on the grid. */
#include "codegen/cuda/contract.h"

#include <stdio.h>

enum { WIDE = 4, GROUP = 8 /* tiles of M that share tiles of B in the cache */ };

static const char *type_of(const Printer *p)
{
    return p->index_type;
}

static const char *truth(bool v)
{
    return v ? "true" : "false";
}

/* ---- operands ---- */

static bool is_multiple(const Kernel *k, const Access *at, int unit, int64_t n)
{
    if (at->base % n != 0) return false;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if ((int)d != unit && at->stride[d] % n != 0) return false;
    return true;
}

/* Is what an access with wide neighbours reads or writes at once aligned, whatever the address? */
static bool has_alignment(const Printer *p, const Access *at, int32_t bytes)
{
    return p->k->args[at->arg].align >= bytes;
}

/* Are n neighbours of the loops of a kind, from a multiple of n on, neighbours in memory? */
static bool has_neighbours(const Kernel *k, const Access *at, LoopKind kind, int64_t n)
{
    int d = contract_inner_loop(k, kind);
    return at->dyn < 0 && at->n_guards == 0 && d >= 0 && at->stride[d] == 1 &&
           (k->loops[d].extent % n == 0 || k->loops[d].extent == loops_extent(k, kind));
}

static Fill fill_of(const Printer *p, const Operand *o)
{
    const Kernel *k = p->k;
    const Node *n = &k->nodes[o->side.node];
    LoopKind kind = o->is_turned ? o->side.loops : LOOP_K;
    if (n->kind != KN_LOAD || is_constant(p, (uint32_t)o->side.node)) return FILL_VALUES;
    const Access *at = &k->accesses[n->index];
    if (k->args[at->arg].dtype != n->dtype || !has_neighbours(k, at, kind, o->unit))
        return FILL_VALUES;
    bool is_aligned = is_multiple(k, at, contract_inner_loop(k, kind), o->unit);
    bool is_in_order =
        o->is_turned || n->dtype != DT_F32; /* a chunk of memory is one of the tile */
    return p->arch.sm >= 80 && is_aligned && is_in_order ? FILL_COPY : FILL_CHUNKS;
}

static Operand operand_of(Printer *p, const ContractTile *t, Side side)
{
    Operand o = {.side = side, .outer = (long long)loops_extent(p->k, side.loops)};
    o.span = side.loops == LOOP_M ? t->m : t->n;
    o.unit = 16 / (int32_t)dtype_bytes(p->k->nodes[side.node].dtype);
    contract_want_node(p, side.node);
    o.is_turned = !contract_runs_along_k(p, &side);
    o.rows = o.is_turned ? t->k : o.span;
    o.chunks = (o.is_turned ? o.span : t->k) / o.unit;
    o.begin = side.loops == LOOP_M ? 0 : t->m * t->k * 16 / o.unit;
    o.is_whole_outer = o.outer % o.span == 0;
    o.is_whole_k = loops_extent(p->k, LOOP_K) % t->k == 0;
    o.fill = fill_of(p, &o);
    return o;
}

int32_t contract_chunks_a_thread(const Printer *p, const Operand *o)
{
    return o->rows * o->chunks / p->s.threads_x;
}

/* for (i) { row and chunk of the thread's i-th chunk */
static void open_chunks(Printer *p, const Operand *o)
{
    print_line(p, "#pragma unroll");
    print_line(p, "for (int i = 0; i < %d; i++) {", contract_chunks_a_thread(p, o));
    p->depth++;
    print_line(p, "const int s = i * %d + threadIdx.x, row = s / %d, chunk = s %% %d;",
               p->s.threads_x, o->chunks, o->chunks);
}

static void print_place(Printer *p, const Operand *o, const char *more)
{
    char chunk[32];
    snprintf(chunk, sizeof chunk, "chunk * %d%s", o->unit, more);
    print_line(p, "const %s %s = %s + %s, k = k0 + %s;", type_of(p), o->side.outer, o->side.first,
               o->is_turned ? chunk : "row", o->is_turned ? "row" : chunk);
}

/* How many elements of the chunk there are: `unit` or more when all. */
static void print_count(Printer *p, const Operand *o)
{
    long long depth = (long long)loops_extent(p->k, LOOP_K);
    const char *along = o->is_turned ? o->side.outer : "k",
               *across = o->is_turned ? "k" : o->side.outer;
    long long n_along = o->is_turned ? o->outer : depth, n_across = o->is_turned ? depth : o->outer;
    bool whole_along = o->is_turned ? o->is_whole_outer : o->is_whole_k;
    bool whole_across = o->is_turned ? o->is_whole_k : o->is_whole_outer;
    if (!whole_across) str_addf(p->out, "%s < %lld ? ", across, n_across);
    if (whole_along)
        str_addf(p->out, "%d", o->unit);
    else if (p->s.is_64bit)
        str_addf(p->out, "(int)(%lld - %s < 8 ? %lld - %s : 8)", n_along, along, n_along, along);
    else
        str_addf(p->out, "%lld - %s", n_along, along);
    if (!whole_across) str_add(p->out, " : 0");
}

static void print_pointer(Printer *p, const Access *at)
{
    str_addf(p->out, "a%d + (", at->arg);
    print_offset(p, at);
    str_add(p->out, ")");
}

/* The byte of shared memory where a chunk goes. */
static void print_chunk_place(Printer *p, const ContractTile *t, const Operand *o)
{
    if (o->unit == 4)
        str_addf(p->out, "to + %d + zm_float_at<%d>(row, 4 * chunk)", o->begin, o->span);
    else if (t->kind == CONTRACT_WGMMA && o->is_turned)
        str_addf(p->out, "to + %d + zm_chunk_in_blocks<%d>(row, chunk)", o->begin, t->k);
    else
        str_addf(p->out, "to + %d + zm_chunk<%d>(row, chunk)", o->begin, o->chunks);
}

static void print_chunk(Printer *p, const ContractTile *t, const Operand *o)
{
    const Node *n = &p->k->nodes[o->side.node];
    print_place(p, o, "");
    print_indices(p, o->side.loops, o->side.outer);
    print_indices(p, LOOP_K, "k");
    print_indent(p);
    if (o->fill == FILL_COPY)
        str_addf(p->out, "%s<%s>(", o->unit == 4 ? "zm_copy_floats" : "zm_copy_chunk",
                 truth(has_alignment(p, &p->k->accesses[n->index], 16)));
    else
        str_addf(p->out, "%s[i] = %s(", o->side.tile,
                 o->unit == 4 ? "zm_get_floats" : "zm_get_chunk");
    if (o->fill == FILL_COPY) {
        print_chunk_place(p, t, o);
        str_add(p->out, ", ");
    }
    print_pointer(p, &p->k->accesses[n->index]);
    str_add(p->out, ", ");
    print_count(p, o);
    str_add(p->out, ");");
    print_end(p, "load", node_loc(p, (uint32_t)o->side.node));
}

static void print_values(Printer *p, const Operand *o)
{
    DType dt = p->k->nodes[o->side.node].dtype;
    print_line(p, "unsigned h[4] = {};");
    print_line(p, "#pragma unroll");
    print_line(p, "for (int e = 0; e < %d; e++) {", o->unit);
    p->depth++;
    print_place(p, o, " + e");
    print_line(p, "if (%s >= %lld || k >= %lld) continue;", o->side.outer, o->outer,
               (long long)loops_extent(p->k, LOOP_K));
    print_indices(p, o->side.loops, o->side.outer);
    print_indices(p, LOOP_K, "k");
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_wanted[i]) print_node(p, i);
    print_indent(p);
    if (o->unit == 4)
        str_add(p->out, "h[e] = __float_as_uint(");
    else
        str_addf(p->out, "h[e / 2] |= (unsigned)%s(", dt == DT_BF16 ? "zm_to_bf16" : "zm_to_f16");
    print_use(p, o->side.node);
    str_add(p->out, o->unit == 4 ? ");\n" : ").bits << e % 2 * 16;\n");
    print_close(p);
    print_line(p, "%s[i] = uint4{h[0], h[1], h[2], h[3]};", o->side.tile);
}

void contract_fetch(Printer *p, const ContractTile *t, const Operand *o)
{
    contract_want_node(p, o->side.node);
    open_chunks(p, o);
    if (o->fill == FILL_VALUES)
        print_values(p, o);
    else
        print_chunk(p, t, o);
    print_close(p);
}

void contract_put(Printer *p, const ContractTile *t, const Operand *o)
{
    open_chunks(p, o);
    print_indent(p);
    if (o->unit == 4 && !o->is_turned)
        str_addf(p->out, "zm_put_turned<%d>(to + %d, row, chunk", o->span, o->begin);
    else {
        str_add(p->out, "zm_put_chunk(");
        print_chunk_place(p, t, o);
    }
    str_addf(p->out, ", %s[i]);\n", o->side.tile);
    print_close(p);
}

/* ---- the loop over K ---- */

int32_t contract_stage_bytes(const ContractTile *t)
{
    return (t->m + t->n) * t->k * (t->kind == CONTRACT_FLOATS ? 4 : 2);
}

static void print_multiply(Printer *p, const ContractTile *t, const Operand *a, const Operand *b)
{
    int wm = t->m / t->warps_m, wn = t->n / t->warps_n;
    print_open(p, "if (t >= 0)");
    print_line(p, "const unsigned from = (unsigned)t %% %d * %d;", t->stages,
               contract_stage_bytes(t));
    if (t->kind == CONTRACT_FLOATS)
        print_line(p, "zm_multiply_floats<%d, %d, %d>(acc, from, from + %d);", t->m, t->n, t->k,
                   b->begin);
    else
        print_line(p, "zm_multiply<%s, %d, %d, %d, %s, %d, %s, %d>(acc, from, from + %d, wm, wn);",
                   memory_type(p->k->nodes[a->side.node].dtype), wm / 16, wn / 8, t->k,
                   truth(a->is_turned), a->chunks, truth(b->is_turned), b->chunks, b->begin);
    print_close(p);
}

static void print_steps(Printer *p, const ContractTile *t, const Operand *a, const Operand *b)
{
    bool has_copies = a->fill == FILL_COPY || b->fill == FILL_COPY;
    const Operand *both[] = {a, b};
    for (int i = 0; i < 2; i++)
        if (both[i]->fill != FILL_COPY)
            print_line(p, "uint4 %s[%d];", both[i]->side.tile,
                       contract_chunks_a_thread(p, both[i]));
    print_line(p, "#pragma unroll 1");
    print_line(p, "for (int t = %d; t < steps; t++) {", 1 - t->stages);
    p->depth++;
    if (has_copies) print_line(p, "if (t >= 0) zm_copies_wait<%d>();", t->stages - 2);
    print_line(p, "__syncthreads();");
    print_line(p, "const int next = t + %d;", t->stages - 1);
    print_line(p, "const %s k0 = %s(%snext) * %d;", type_of(p), p->s.is_64bit ? "(long long)" : "",
               t->parts > 1 ? "first + " : "", t->k);
    print_line(p, "const unsigned to = (unsigned)next %% %d * %d;", t->stages,
               contract_stage_bytes(t));
    print_open(p, "if (next < steps)");
    for (int i = 0; i < 2; i++) contract_fetch(p, t, both[i]);
    print_close(p);
    if (has_copies) print_line(p, "zm_copies_commit();");
    print_multiply(p, t, a, b);
    if (a->fill != FILL_COPY || b->fill != FILL_COPY) {
        print_open(p, "if (next < steps)");
        for (int i = 0; i < 2; i++)
            if (both[i]->fill != FILL_COPY) contract_put(p, t, both[i]);
        print_close(p);
    }
    print_close(p);
}

static void print_parts(Printer *p, const ContractTile *t)
{
    int per_thread = t->m * t->n / p->s.threads_x / 4;
    print_line(p, "float4 *part = (float4 *)workspace + (long long)tile * %lld;",
               (long long)t->parts * per_thread * p->s.threads_x);
    print_line(p, "zm_leave_part(acc, part + work %% %lld * %d);", (long long)t->parts,
               per_thread * p->s.threads_x);
    print_line(p, "if (!zm_is_last_part(&count[tile], %lldu)) continue;", (long long)t->parts);
    print_line(p, "zm_add_parts(acc, part, %lld);", (long long)t->parts);
}

/* ---- epilogue ---- */

static bool is_wide_type(DType dt)
{
    return dt == DT_F32 || dt == DT_BF16 || dt == DT_F16;
}

static bool is_wide_load(const Printer *p, uint32_t node, int width)
{
    const Node *n = &p->k->nodes[node];
    if (n->kind != KN_LOAD || width == 1) return false;
    const Access *at = &p->k->accesses[n->index];
    DType dt = p->k->args[at->arg].dtype;
    return is_wide_type(dt) && dt == n->dtype && has_neighbours(p->k, at, LOOP_N, width);
}

static bool is_wide_store(const Printer *p, const Store *s, int width)
{
    DType dt = p->k->args[s->to.arg].dtype;
    return width > 1 && s->mode == ST_SET && is_wide_type(dt) && p->k->nodes[s->node].dtype == dt &&
           has_neighbours(p->k, &s->to, LOOP_N, width);
}

static void print_wide_call(Printer *p, const char *verb, const Access *at, int width)
{
    int32_t bytes = width * (int32_t)dtype_bytes(p->k->args[at->arg].dtype);
    bool is_aligned = has_alignment(p, at, bytes) &&
                      is_multiple(p->k, at, contract_inner_loop(p->k, LOOP_N), width);
    str_addf(p->out, "zm_%s4<%s>(", verb, truth(is_aligned));
}

static void print_wide_loads(Printer *p, int width)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!p->is_wanted[i] || !is_wide_load(p, i, width)) continue;
        print_line(p, "float w%u[%d];", i, width);
        print_indent(p);
        print_wide_call(p, "get", &p->k->accesses[p->k->nodes[i].index], width);
        str_addf(p->out, "w%u, ", i);
        print_pointer(p, &p->k->accesses[p->k->nodes[i].index]);
        str_add(p->out, ");");
        print_end(p, "load", node_loc(p, i));
    }
}

static void print_elements(Printer *p, int width)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!p->is_wanted[i]) continue;
        if (k->nodes[i].kind == KN_ACC)
            print_line(p, width > 1 ? "const float v%u = sum[e];" : "const float v%u = *sum;", i);
        else if (is_wide_load(p, i, width))
            print_line(p, "const float v%u = w%u[e];", i, i);
        else
            print_node(p, i);
    }
    for (uint32_t i = 0; i < k->n_stores; i++) {
        if (!is_wide_store(p, &k->stores[i], width)) {
            print_store(p, &k->stores[i]);
            continue;
        }
        print_indent(p);
        str_addf(p->out, "r%u[e] = ", i);
        print_use(p, k->stores[i].node);
        str_add(p->out, ";\n");
    }
}

static void print_wide_stores(Printer *p, int width)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++) {
        const Store *s = &p->k->stores[i];
        if (!is_wide_store(p, s, width)) continue;
        print_indent(p);
        print_wide_call(p, "put", &s->to, width);
        print_pointer(p, &s->to);
        str_addf(p->out, ", r%u);", i);
        print_end(p, "store", node_loc(p, (uint32_t)s->node));
    }
}

static void print_wide(Printer *p, int width)
{
    int inner = contract_inner_loop(p->k, LOOP_N);
    bool is_used = inner >= 0 && (p->used_loops >> inner & 1);
    print_wide_loads(p, width);
    for (uint32_t i = 0; i < p->k->n_stores; i++)
        if (is_wide_store(p, &p->k->stores[i], width)) print_line(p, "float r%u[%d];", i, width);
    if (is_used) print_line(p, "const %s first_n = i%d;", type_of(p), inner);
    print_line(p, "#pragma unroll");
    print_line(p, "for (int e = 0; e < %d; e++) {", width);
    p->depth++;
    if (is_used) print_line(p, "const %s i%d = first_n + e;", type_of(p), inner);
    print_elements(p, width);
    print_close(p);
    print_wide_stores(p, width);
}

static void print_results(Printer *p, const ContractTile *t)
{
    const Kernel *k = p->k;
    long long n_m = (long long)loops_extent(k, LOOP_M), n_n = (long long)loops_extent(k, LOOP_N);
    int inner = contract_inner_loop(k, LOOP_N);
    int width = inner >= 0 && k->loops[inner].extent % WIDE == 0 ? WIDE : 1, across = t->n / width;
    contract_want_stores(p);
    print_line(p, "__syncthreads();");
    if (t->kind == CONTRACT_FLOATS)
        print_line(p, "zm_spread_floats<%d, %d>(acc, (float *)zm_shared);", t->m, t->n);
    else
        print_line(p, "zm_spread<%d>(acc, (float *)zm_shared, wm, wn);", t->n);
    print_line(p, "__syncthreads();");
    print_line(p, "#pragma unroll 1");
    print_line(p, "for (int s = threadIdx.x; s < %d; s += %d) {", t->m * across, p->s.threads_x);
    p->depth++;
    print_line(p, "const int row = s / %d, column = s %% %d * %d;", across, across, width);
    print_line(p, "const %s m = m0 + row, n = n0 + column;", type_of(p));
    if (n_m % t->m != 0) print_line(p, "if (m >= %lld) continue;", n_m);
    if (n_n % t->n != 0) print_line(p, "if (n >= %lld) continue;", n_n);
    print_line(p, "const float *sum = (const float *)zm_shared + zm_result_at<%d>(row, column);",
               t->n);
    print_indices(p, LOOP_M, "m");
    print_indices(p, LOOP_N, "n");
    if (width > 1)
        print_wide(p, width);
    else
        print_elements(p, width);
    print_close(p);
}

/* ---- the kernel ---- */

/* Blocks that run at the same time share tiles of A and B: 8 tiles of M, then the next of N. */
static void print_tile(Printer *p, const ContractTile *t)
{
    const char *type = type_of(p);
    long long n_m = (long long)t->n_m, n_n = (long long)t->n_n;
    print_line(p, "const %s tile = work / %lld;", type, (long long)t->parts);
    if (t->n_batches > 1) print_line(p, "const %s batch = tile / %lld;", type, n_m * n_n);
    print_line(p, "const %s group = tile %% %lld / %lld * %d, in_group = tile %% %lld %% %lld;",
               type, n_m * n_n, GROUP * n_n, GROUP, n_m * n_n, GROUP * n_n);
    if (n_m % GROUP == 0 || n_m < GROUP)
        print_line(p, "const int size = %lld;", n_m < GROUP ? n_m : GROUP);
    else
        print_line(p, "const int size = %lld - group < %d ? %lld - group : %d;", n_m, GROUP, n_m,
                   GROUP);
    print_line(p, "const %s m0 = (group + in_group %% size) * %d, n0 = in_group / size * %d;", type,
               t->m, t->n);
    print_indices(p, LOOP_BATCH, "batch");
    if (t->parts == 1) {
        print_line(p, "const int steps = %lld;", (long long)t->n_steps);
        return;
    }
    print_line(p, "const int first = work %% %lld * %lld;", (long long)t->parts,
               (long long)t->steps);
    print_line(p, "const int steps = %lld - first < %lld ? %lld - first : %lld;",
               (long long)t->n_steps, (long long)t->steps, (long long)t->n_steps,
               (long long)t->steps);
}

void print_contract_tiles(Printer *p)
{
    const Kernel *k = p->k;
    ContractTile t = contract_tile(k, p->arch);
    int wm = t.m / t.warps_m, wn = t.n / t.warps_n;
    Operand a = operand_of(p, &t, (Side){"chunk_a", "m", "m0", LOOP_M, k->node_a});
    Operand b = operand_of(p, &t, (Side){"chunk_b", "n", "n0", LOOP_N, k->node_b});
    long long tiles = (long long)(t.n_batches * t.n_m * t.n_n);
    static const char *const ways[] = {
        [FILL_COPY] = "copied", [FILL_CHUNKS] = "through registers", [FILL_VALUES] = "computed"};
    p->sum_type = "float";
    print_line(p, "// %d x %d, %d deep, %d stages; %s%s%s", t.m, t.n, t.k, t.stages, ways[a.fill],
               a.fill == b.fill ? "" : " and ", a.fill == b.fill ? "" : ways[b.fill]);
    if (t.parts > 1) print_line(p, "static __device__ unsigned count[%lld];", tiles);
    if (t.kind != CONTRACT_FLOATS)
        print_line(p,
                   "const int warp = threadIdx.x / 32, wm = warp / %d * %d, wn = warp %% %d * %d;",
                   t.warps_n, wm, t.warps_n, wn);
    print_constants(p);
    print_line(p, "for (%s work = blockIdx.x; work < %lld; work += gridDim.x) {", type_of(p),
               tiles * (long long)t.parts);
    p->depth++;
    print_tile(p, &t);
    bool is_mma = t.kind != CONTRACT_FLOATS;
    print_line(p, "float acc[%d][%d][4] = {};", is_mma ? wm / 16 : 8, is_mma ? wn / 8 : 2);
    if (t.kind == CONTRACT_WGMMA)
        print_steps_wgmma(p, &t, &a, &b);
    else
        print_steps(p, &t, &a, &b);
    if (t.parts > 1) print_parts(p, &t);
    print_results(p, &t);
    print_close(p);
}
