/* split.c -- prints reductions that several blocks share: of long columns (a bias's gradient, d
 * weight of a layer norm) and of a few long rows (sums of whole buckets).
 *
 * A unit is one part of the RED loops of one row, or of 128 columns: a block's work.  It leaves its
 * partial results in the workspace; the block that finishes last takes all parts in their order, so
 * neither the grid nor the order of the blocks changes the result. */
#include "codegen/cuda/print.h"

#include <stdio.h>

static int64_t n_units(const Printer *p)
{
    int64_t n_groups = p->s.n_rows;
    if (p->s.shape == CUDA_SPLIT_COLUMN)
        n_groups = (p->s.n_rows + CUDA_SPLIT_COLUMNS - 1) / CUDA_SPLIT_COLUMNS;
    return n_groups * p->s.n_splits;
}

/* Floats of the workspace that a reduction's parts take. */
static int64_t floats_of(const Node *n, int64_t n_parts)
{
    return n->dtype == DT_F64 ? 2 * n_parts : n_parts;
}

static int64_t parts_of(CudaShape shape, int64_t units)
{
    return (shape == CUDA_SPLIT_COLUMN ? units * CUDA_SPLIT_COLUMNS : units) + 1; /* and a pad */
}

int64_t split_workspace(const Kernel *k, const CudaSchedule *s, int64_t units)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_REDUCE)
            n += floats_of(&k->nodes[i], (parts_of(s->shape, units) | 1) + 1);
    return n * (int64_t)sizeof(float);
}

/* float *const parts5 = (float *)(workspace + 1024); of every reduction. */
static void print_parts(Printer *p)
{
    int64_t at = 0;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        const Node *n = &p->k->nodes[i];
        if (n->kind != KN_REDUCE) continue;
        const char *type = register_type(accumulator_type(n));
        if (p->is_live[i])
            print_line(p, "%s *const parts%u = (%s *)(workspace + %lld);", type, i, type,
                       (long long)at);
        at += floats_of(n, (parts_of(p->s.shape, n_units(p)) | 1) + 1);
    }
}

static void print_unit_loop(Printer *p)
{
    const char *wide = p->s.is_64bit ? "(long long)" : "";
    print_parts(p);
    print_line(p, "for (%s unit = blockIdx.x; unit < %lld; unit += %sgridDim.x) {", p->index_type,
               (long long)n_units(p), wide);
    p->depth++;
}

/* The unit's part of the RED loops. */
static void print_part_loop(Printer *p, const char *thread, int64_t team)
{
    int64_t n = p->s.n_reduced, length = p->s.rows_per_part;
    const char *wide = p->s.is_64bit ? "(long long)" : "";
    char start[96], end[128];
    snprintf(start, sizeof start, "%spart * %lld + %s", wide, (long long)length, thread);
    if (length * p->s.n_splits == n)
        snprintf(end, sizeof end, "%s(part + 1) * %lld", wide, (long long)length);
    else
        snprintf(end, sizeof end, "zm_min<%s>(%s(part + 1) * %lld, %lld)", p->index_type, wide,
                 (long long)length, (long long)n);
    print_range_loop(p, start, end, team);
}

/* ---- columns ---- */

static int n_sums(const Printer *p)
{
    int n = 0;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) n += is_reduced_at(p, i, 0);
    return n;
}

static void print_columns_last(Printer *p)
{
    const Kernel *k = p->k;
    int32_t n_splits = (int32_t)p->s.n_splits;
    print_line(p, "if (zm_is_last(&%s_done[group], %d)) {", p->name, n_splits);
    p->depth++;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (is_reduced_at(p, i, 0))
            print_reduced(p, i, "zm_columns_last<%s>(parts%u + group * %lld, %d, thread)",
                          combine_name(&k->nodes[i]), i, (long long)n_splits * CUDA_SPLIT_COLUMNS,
                          n_splits);
    print_line(p, "const %s row = group * %d + thread;", p->index_type, CUDA_SPLIT_COLUMNS);
    print_line(p, "if (thread < %d && row < %lld) {", CUDA_SPLIT_COLUMNS, (long long)p->s.n_rows);
    p->depth++;
    print_indices(p, LOOP_PAR, "row");
    print_row_nodes(p, 0);
    print_row_nodes(p, 1);
    print_row_stores(p);
    print_close(p);
    print_close(p);
}

static void print_split_columns(Printer *p)
{
    const CudaSchedule *s = &p->s;
    print_line(p, "const int thread = threadIdx.y * %d + threadIdx.x;", s->threads_x);
    print_unit_loop(p);
    print_line(p, "const int group = unit / %lld, part = unit %% %lld;", (long long)s->n_splits,
               (long long)s->n_splits);
    print_reduce_starts(p, 0);
    print_line(p, "const %s first = group * %d + threadIdx.x * %d;", p->index_type,
               CUDA_SPLIT_COLUMNS, s->width);
    print_line(p, "if (first < %lld) {", (long long)s->n_rows);
    p->depth++;
    p->is_pack = s->width > 1;
    print_indices(p, LOOP_PAR, "first");
    p->is_pack = false;
    if (find_wanted(p, 0)) {
        print_line(p, "#pragma unroll %d", n_sums(p) > 1 ? 2 : 4); /* its sums take registers */
        print_part_loop(p, "threadIdx.y", s->threads_y);
        print_pack(p, 0, false);
        print_close(p);
    }
    print_close(p);
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 0)) continue;
        const char *type = register_type(accumulator_type(&p->k->nodes[i]));
        print_line(p, "const %s t%u = zm_columns<%s, %d>(r%u, thread);", type, i,
                   combine_name(&p->k->nodes[i]), s->threads_y, i);
        print_line(p, "if (thread < %d) parts%u[unit * %d + thread] = t%u;", CUDA_SPLIT_COLUMNS, i,
                   CUDA_SPLIT_COLUMNS, i);
    }
    print_columns_last(p);
    print_close(p);
}

/* ---- rows ---- */

static void print_put(Printer *p, uint32_t i)
{
    print_line(p, "zm_block_put<%s>(shared%u, r%u);", combine_name(&p->k->nodes[i]), i, i);
}

/* r5 = all parts of this row that the thread takes. */
static void print_gathered(Printer *p, uint32_t i)
{
    const Node *n = &p->k->nodes[i];
    long long n_splits = (long long)p->s.n_splits;
    print_indent(p);
    str_addf(p->out, "r%u = ", i);
    print_const(p->out, accumulator_type(n), reduce_identity(n));
    str_add(p->out, ";\n");
    print_line(p, "for (int q = threadIdx.x; q < %lld; q += %d)", n_splits, p->s.threads_x);
    p->depth++;
    print_line(p, "r%u = %s::of(r%u, zm_fresh(&parts%u[row * %lld + q]));", i, combine_name(n), i,
               i, n_splits);
    p->depth--;
}

static void print_rows_last(Printer *p)
{
    const Kernel *k = p->k;
    print_line(p, "if (zm_is_last(&%s_done[row], %lld)) {", p->name, (long long)p->s.n_splits);
    p->depth++;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 0)) continue;
        print_gathered(p, i);
        print_put(p, i);
    }
    print_line(p, "__syncthreads();");
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (is_reduced_at(p, i, 0))
            print_reduced(p, i, "zm_block_get<%s>(shared%u)", combine_name(&k->nodes[i]), i);
    print_row_nodes(p, 1);
    print_row_stores(p);
    print_line(p, "__syncthreads();");
    print_close(p);
}

static void print_split_rows(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const Kernel *k = p->k;
    char thread[48];
    print_unit_loop(p);
    print_line(p, "const int row = unit / %lld, part = unit %% %lld;", (long long)s->n_splits,
               (long long)s->n_splits);
    print_indices(p, LOOP_PAR, "row");
    print_row_nodes(p, 0);
    print_reduce_starts(p, 0);
    snprintf(thread, sizeof thread, s->width > 1 ? "threadIdx.x * %d" : "threadIdx.x", s->width);
    if (find_wanted(p, 0)) {
        print_line(p, "#pragma unroll 4");
        print_part_loop(p, thread, (int64_t)s->threads_x * s->width);
        print_pack(p, 0, false);
        print_close(p);
    }
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 0)) continue;
        print_line(p, "__shared__ %s shared%u[%d];", register_type(accumulator_type(&k->nodes[i])),
                   i, s->threads_x / 32);
        print_put(p, i);
    }
    print_line(p, "__syncthreads();");
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 0)) continue;
        print_line(p, "const %s t%u = zm_block_get<%s>(shared%u);",
                   register_type(accumulator_type(&k->nodes[i])), i, combine_name(&k->nodes[i]), i);
        print_line(p, "if (threadIdx.x == 0) parts%u[unit] = t%u;", i, i);
    }
    print_rows_last(p);
    print_close(p);
}

void print_split(Printer *p)
{
    if (p->s.shape == CUDA_SPLIT_COLUMN)
        print_split_columns(p);
    else
        print_split_rows(p);
}
