/* print.c -- lines, nodes, stores and index arithmetic of printed kernels; entry point of the
 * printer. */
#include "codegen/cuda/print.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- lines ---- */

void print_indent(Printer *p)
{
    for (int i = 0; i < p->depth; i++) str_add(p->out, "    ");
}

static void print_loc(Printer *p, LocId loc)
{
    if (!p->m || !loc_ok(loc)) return;
    SrcPos pos = loc_pos(p->m, loc);
    if (pos.line == 0) return;
    str_addf(p->out, "  %s:%u:%u", p->m->sources->all.at[pos.source].name, pos.line, pos.col);
}

void print_end(Printer *p, const char *what, LocId loc)
{
    if (what) {
        str_addf(p->out, "  // %s", what);
        print_loc(p, loc);
    }
    str_add(p->out, "\n");
}

ZM_PRINTF(2, 3) void print_line(Printer *p, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ZM_CHECK(n >= 0 && (size_t)n < sizeof text);
    print_indent(p);
    str_add(p->out, text);
    str_add(p->out, "\n");
}

void print_open(Printer *p, const char *text)
{
    print_line(p, "%s {", text);
    p->depth++;
}

void print_close(Printer *p)
{
    p->depth--;
    print_line(p, "}");
}

/* ---- what is used ---- */

int64_t loops_extent(const Kernel *k, LoopKind kind)
{
    int64_t n = 1;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (k->loops[d].kind == kind) n *= k->loops[d].extent;
    return n;
}

/* Calls mark[] for the nodes that node i reads. */
void mark_inputs(const Kernel *k, uint32_t i, bool *mark)
{
    const Node *n = &k->nodes[i];
    for (uint32_t a = 0; a < n->n_args; a++) mark[n->arg[a]] = true;
    if (n->kind == KN_LOAD && k->accesses[n->index].dyn >= 0)
        mark[k->accesses[n->index].dyn] = true;
}

void mark_store(const Store *s, bool *mark)
{
    mark[s->node] = true;
    if (s->to.dyn >= 0) mark[s->to.dyn] = true;
}

static void note_loops(Printer *p, const int64_t *stride)
{
    for (uint32_t d = 0; d < p->k->n_loops; d++)
        if (stride[d] != 0) p->used_loops |= 1u << d;
}

static void note_node_loops(Printer *p, const Node *n)
{
    if (n->kind != KN_LOAD && n->kind != KN_INDEX) return;
    const Access *at = &p->k->accesses[n->index];
    note_loops(p, at->stride);
    for (uint32_t g = 0; g < at->n_guards; g++) note_loops(p, at->guards[g].stride);
}

static void find_live(Printer *p)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_stores; i++) {
        mark_store(&k->stores[i], p->is_live);
        note_loops(p, k->stores[i].to.stride);
    }
    if (k->kind == KK_CONTRACT) p->is_live[k->node_a] = p->is_live[k->node_b] = true;
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        if (!p->is_live[i]) continue;
        mark_inputs(k, i, p->is_live);
        note_node_loops(p, &k->nodes[i]);
    }
}

static void find_ready(Printer *p)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        int32_t ready = 0;
        for (uint32_t a = 0; a < n->n_args; a++)
            if (p->ready[n->arg[a]] > ready) ready = p->ready[n->arg[a]];
        int32_t dyn = n->kind == KN_LOAD ? k->accesses[n->index].dyn : -1;
        if (dyn >= 0 && p->ready[dyn] > ready) ready = p->ready[dyn];
        if (n->kind == KN_ACC) ready = 1;
        if (n->kind == KN_REDUCE) {
            ZM_CHECK(n->stage >= ready);
            ready = n->stage + 1;
        }
        p->ready[i] = ready;
    }
}

/* ---- nodes, stores, indices ---- */

static const char *node_name(const Node *n)
{
    switch (n->kind) {
    case KN_OP:
    case KN_REDUCE: return op_info(n->op)->name;
    case KN_CONST: return "const";
    case KN_LOAD: return "load";
    case KN_INDEX: return "index";
    case KN_RANDOM: return "random";
    case KN_ACC: return "acc";
    }
    ZM_UNREACHABLE("node kind");
}

LocId node_loc(const Printer *p, uint32_t i)
{
    LocId loc = p->k->nodes[i].loc;
    return loc_ok(loc) ? loc : p->k->loc;
}

void print_node(Printer *p, uint32_t i)
{
    const Node *n = &p->k->nodes[i];
    if (n->kind == KN_CONST) return; /* printed where it is used */
    print_indent(p);
    str_addf(p->out, "const %s v%u = ", register_type(n->dtype), i);
    print_node_expr(p, i);
    str_add(p->out, ";");
    print_end(p, node_name(n), node_loc(p, i));
}

bool is_constant(const Printer *p, uint32_t i)
{
    return p->k->nodes[i].level == LV_CONST && p->ready[i] == 0;
}

void print_constants(Printer *p)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_live[i] && p->k->nodes[i].kind != KN_REDUCE && is_constant(p, i))
            print_node(p, i);
}

void print_store(Printer *p, const Store *s)
{
    print_indent(p);
    str_addf(p->out, "a%d[", s->to.arg);
    print_offset(p, &s->to);
    DType dt = p->k->args[s->to.arg].dtype;
    bool adds = s->mode == ST_ADD && dt != DT_BF16 && dt != DT_F16;
    str_add(p->out, adds ? "] += " : "] = ");
    print_store_value(p, s);
    str_add(p->out, ";");
    print_end(p, "store", node_loc(p, (uint32_t)s->node));
}

void print_stores(Printer *p, Level level)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++)
        if (p->k->stores[i].level == level) print_store(p, &p->k->stores[i]);
}

/* const int i<d> = ...: the indices of the loops of a kind out of their flat number. */
void print_indices(Printer *p, LoopKind kind, const char *flat)
{
    int64_t inner = 1, outer = loops_extent(p->k, kind);
    for (uint32_t d = p->k->n_loops; d-- > 0;) {
        const Loop *loop = &p->k->loops[d];
        if (loop->kind != kind) continue;
        bool is_pack = p->is_pack && (int)d == p->wide_loop;
        if (p->used_loops >> d & 1) {
            print_indent(p);
            str_addf(p->out, "const %s %c%u = %s", p->index_type, is_pack ? 'p' : 'i', d, flat);
            if (inner > 1) str_addf(p->out, " / %lld", (long long)inner);
            if (inner * loop->extent < outer) str_addf(p->out, " %% %lld", (long long)loop->extent);
            str_add(p->out, ";\n");
        }
        inner *= loop->extent;
    }
}

/* ---- the kernel ---- */

const char *cuda_refusal(const Kernel *k)
{
    bool is_wide =
        k->kind == KK_ATTENTION && (k->attn.D > CUDA_MAX_HEAD || k->attn.Dv > CUDA_MAX_HEAD);
    return is_wide ? "attention heads wider than 512 are not printed" : NULL;
}

/* Counters of blocks that are done: one for each sum that blocks share. */
static int64_t counters_of(const CudaSchedule *s)
{
    int64_t per_block = s->shape == CUDA_SPLIT_ROW ? 1 : CUDA_SPLIT_COLUMNS;
    return (s->n_rows + per_block - 1) / per_block;
}

static bool is_aliased(const Kernel *k, uint32_t arg)
{
    if (k->args[arg].is_out) return k->args[arg].alias_in >= 0;
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].is_out && k->args[i].alias_in == (int32_t)arg) return true;
    return false;
}

static void print_head(Printer *p, const char *name)
{
    static const char *const shape[] = {[CUDA_POINT] = "one thread each",
                                        [CUDA_THREAD] = "one thread each",
                                        [CUDA_WARP] = "one warp each",
                                        [CUDA_BLOCK] = "one block each",
                                        [CUDA_COLUMN] = "32 side by side in a block",
                                        [CUDA_STRIP] = "a thread side by side",
                                        [CUDA_SPLIT_COLUMN] = "128 side by side in some blocks",
                                        [CUDA_SPLIT_ROW] = "some blocks each",
                                        [CUDA_SCATTER] = "a warp side by side",
                                        [CUDA_TILES] = "a tile of them a block",
                                        [CUDA_ATTENTION] = "one warp each",
                                        [CUDA_FLASH] = "16 or 32 a warp"};
    const CudaSchedule *s = &p->s;
    str_addf(p->out, "// %s", p->k->label ? p->k->label : "kernel");
    print_loc(p, p->k->loc);
    str_addf(p->out, "\n// %lld rows, %s; %lld elements a row; %lld blocks of (%d, %d) threads\n",
             (long long)s->n_rows, shape[s->shape], (long long)s->n_reduced, (long long)s->n_blocks,
             s->threads_x, s->threads_y);
    if (s->n_splits > 1)
        str_addf(p->out, "static __device__ unsigned int %s_done[%lld];  // blocks that are done\n",
                 name, (long long)counters_of(s));
    str_addf(p->out, "extern \"C\" __global__ void __launch_bounds__(%d",
             s->threads_x * s->threads_y);
    if (s->n_resident > 0) str_addf(p->out, ", %d", s->n_resident);
    str_addf(p->out, ") %s(", name);
    for (uint32_t i = 0; i < p->k->n_args; i++) {
        const KernelArg *a = &p->k->args[i];
        str_addf(p->out, "%s%s%s *%sa%u", i ? ", " : "", a->is_out ? "" : "const ",
                 memory_type(a->dtype), is_aliased(p->k, i) ? "" : "__restrict__ ", i);
    }
    if (p->s.workspace_bytes > 0) str_add(p->out, ", float *__restrict__ workspace");
    str_add(p->out, ")\n{\n");
}

void cuda_print_kernel(const Kernel *k, CudaArch arch, const char *name, const Module *m, Str *out)
{
    ZM_CHECK(cuda_refusal(k) == NULL);
    Arena scratch = {0};
    Printer p = {.k = k, .m = m, .arch = arch, .s = cuda_schedule(k, arch), .out = out};
    p.index_type = p.s.is_64bit ? "long long" : "int";
    p.is_live = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.is_wanted = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.ready = ARENA_ARRAY(&scratch, int32_t, k->n_nodes + 1);
    p.moves = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.is_held = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.held_from = ARENA_ARRAY(&scratch, int32_t, k->n_nodes + 1);
    for (uint32_t i = 0; i < k->n_nodes; i++) p.held_from[i] = -1;
    p.name = name;
    p.wide_loop = wide_loop(k, p.s.shape);
    find_live(&p);
    find_ready(&p);
    find_moves(&p);
    if (k->kind == KK_NEST) find_held(&p);
    if (p.s.width > 1) p.used_loops |= 1u << p.wide_loop;
    print_head(&p, name);
    p.depth = 1;
    if (p.s.shape == CUDA_FLASH)
        print_flash(&p);
    else if (k->kind == KK_ATTENTION)
        print_attention(&p);
    else if (k->kind == KK_CONTRACT)
        print_contract(&p);
    else
        print_nest(&p);
    str_add(out, "}\n\n");
    arena_free(&scratch);
}
