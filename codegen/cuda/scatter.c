/* scatter.c -- prints scatter kernels: additions to rows of the output that the data names (the
 * gradient of an embedding).
 *
 * A block owns every n-th row of the output.  It goes through the additions in chunks: lists those
 * to its rows, in order; sorts the list by row, keeping that order; then each warp takes a row and
 * a range of columns and makes its additions one after another, in registers.  So an index is read
 * once by each block, an element once, and the order of the additions to one address is the loops'
 * order, whatever the grid. */
#include "codegen/cuda/print.h"

static int64_t table_rows(const Printer *p)
{
    const Store *s = &p->k->stores[0];
    const KernelArg *a = &p->k->args[s->to.arg];
    ZM_CHECK(s->to.dyn_stride == p->s.n_rows && a->elems % p->s.n_rows == 0);
    return a->elems / p->s.n_rows;
}

/* Bytes that a pack of the given argument may count on. */
static bool is_base_wide(const Printer *p, const Store *s)
{
    const KernelArg *a = &p->k->args[s->to.arg];
    int32_t bytes = p->s.width * (int32_t)dtype_bytes(a->dtype);
    return a->alias_in < 0 || p->k->args[a->alias_in].align >= bytes;
}

/* The block's rows start as the argument that the output may share memory with, or as zeros. */
static void print_scatter_base(Printer *p, const Store *s)
{
    const KernelArg *a = &p->k->args[s->to.arg];
    const char *wide = p->s.is_64bit ? "(long long)" : "";
    int width = is_base_wide(p, s) ? p->s.width : 1;
    long long n_columns = (long long)p->s.n_rows;
    ZM_CHECK(s->to.base == 0);
    if (a->alias_in >= 0) {
        print_line(p, "if (a%d != a%d)", s->to.arg, a->alias_in);
        p->depth++;
    }
    print_line(p, "for (%s r = bucket; r < %lld; r += %lld)", p->index_type,
               (long long)table_rows(p), (long long)p->s.n_buckets);
    p->depth++;
    print_line(p, "for (%s c = thread * %d; c < %lld; c += %d)", p->index_type, width, n_columns,
               p->s.threads_x * width);
    p->depth++;
    if (a->alias_in >= 0)
        print_line(p, "zm_store(a%d + %sr * %lld + c, zm_load<%d>(a%d + %sr * %lld + c));",
                   s->to.arg, wide, n_columns, width, a->alias_in, wide, n_columns);
    else
        print_line(p, "zm_store(a%d + %sr * %lld + c, zm_vec<%s, %d>{});", s->to.arg, wide,
                   n_columns, memory_type(a->dtype), width);
    p->depth -= a->alias_in >= 0 ? 3 : 2;
}

/* The row that addition e goes to. */
static void print_target(Printer *p, const Store *s)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = i == (uint32_t)s->to.dyn;
    for (uint32_t i = k->n_nodes; i-- > 0;)
        if (p->is_wanted[i]) mark_inputs(k, i, p->is_wanted);
    print_line(p, "#pragma unroll");
    print_open(p, "for (int j = 0; j < 8; j++)");
    print_line(p, "const %s e = first + thread * 8 + j;", p->index_type);
    print_line(p, "target[j] = -1;");
    print_line(p, "if (e >= %lld) continue;", (long long)p->s.n_reduced);
    print_indices(p, LOOP_RED, "e");
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (p->is_wanted[i] && !is_constant(p, i)) print_node(p, i);
    print_indent(p);
    str_add(p->out, "if ((unsigned int)");
    print_use(p, s->to.dyn);
    str_addf(p->out, " %% %lld == bucket) target[j] = ", (long long)p->s.n_buckets);
    print_use(p, s->to.dyn);
    str_add(p->out, ";\n");
    print_close(p);
}

/* sum.at[j] += v5, rounded as memory is. */
static void print_addition(Printer *p, const Store *s)
{
    DType dt = p->k->args[s->to.arg].dtype;
    bool is_16bit = dt == DT_BF16 || dt == DT_F16;
    const char *j = p->s.width > 1 ? "j" : "0";
    print_indent(p);
    if (is_16bit)
        str_addf(p->out, "sum.at[%s] = %s(zm_to_float(sum.at[%s]) + ", j,
                 dt == DT_BF16 ? "zm_to_bf16" : "zm_to_f16", j);
    else
        str_addf(p->out, "sum.at[%s] += ", j);
    print_use(p, s->node);
    str_add(p->out, is_16bit ? ");" : ";");
    print_end(p, "scatter_add", node_loc(p, (uint32_t)s->node));
}

/* All additions of the list from i to end, which are to one row. */
static void print_additions(Printer *p, const Store *s)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = i == (uint32_t)s->node;
    for (uint32_t i = k->n_nodes; i-- > 0;)
        if (p->is_wanted[i]) mark_inputs(k, i, p->is_wanted);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (is_constant(p, i)) p->is_wanted[i] = false;
    print_line(p, "#pragma unroll 4");
    print_open(p, "for (int q = i; q < end; q++)");
    print_line(p, "const %s e = first + sorted.at[q];", p->index_type);
    print_indices(p, LOOP_RED, "e");
    p->print_last = print_addition;
    print_pack(p, 0, true);
    print_close(p);
}

static void print_sums(Printer *p, const Store *s)
{
    const CudaSchedule *c = &p->s;
    int64_t step = (int64_t)32 * c->width, n_ranges = (c->n_rows + step - 1) / step;
    const char *wide = c->is_64bit ? "(long long)" : "";
    print_line(p, "for (int unit = thread / 32; unit < n * %lld; unit += %d) {",
               (long long)n_ranges, c->threads_x / 32);
    p->depth++;
    print_line(p, "const int i = unit %% n, r = sorted.row[i];");
    print_line(p, "const %s column = unit / n * %lld + thread %% 32 * %d;", p->index_type,
               (long long)step, c->width);
    print_line(p, "if ((i > 0 && sorted.row[i - 1] == r) || column >= %lld) continue;",
               (long long)c->n_rows);
    print_line(p, "const int end = zm_list_end(sorted, n, i);");
    p->is_pack = c->width > 1;
    print_indices(p, LOOP_PAR, "column");
    p->is_pack = false;
    const char *type = memory_type(p->k->args[s->to.arg].dtype);
    print_line(p, "%s *const to = a%d + %sr * %lld + column;", type, s->to.arg, wide,
               (long long)c->n_rows);
    print_line(p, "zm_vec<%s, %d> sum = zm_load<%d>(to);", type, c->width, c->width);
    print_additions(p, s);
    print_line(p, "zm_store(to, sum);");
    print_close(p);
}

void print_scatter(Printer *p)
{
    const Store *s = &p->k->stores[0];
    ZM_CHECK(p->k->n_stores == 1 && s->to.dyn >= 0 && p->k->n_stages <= 1);
    print_line(p, "__shared__ zm_list found, sorted;");
    print_line(p, "const int thread = threadIdx.x;");
    print_line(p, "for (int bucket = blockIdx.x; bucket < %lld; bucket += gridDim.x) {",
               (long long)p->s.n_buckets);
    p->depth++;
    print_scatter_base(p, s);
    print_line(p, "for (%s first = 0; first < %lld; first += %d) {", p->index_type,
               (long long)p->s.n_reduced, CUDA_SCATTER_CHUNK);
    p->depth++;
    print_line(p, "int target[8];");
    print_target(p, s);
    print_line(p, "const int n = zm_list_fill(found, target, thread);");
    print_line(p, "zm_list_sort(sorted, found, n, thread);");
    print_sums(p, s);
    print_close(p);
    print_close(p);
}
