/* scatter.c -- prints scatter kernels: additions to rows of the output that the data names.
 *
 * A block takes 32 columns.  Its threads of equal threadIdx.y own every n-th row of the output:
 * each thread sees every addition and makes those to its own rows, so the order of the additions to
 * one address is the loops' order. */
#include "codegen/cuda/print.h"

/* The output starts as the argument that it may share memory with, or as zeros.  A thread starts
 * the output rows that it adds to: no barrier between the two. */
static void print_scatter_base(Printer *p, const Store *s)
{
    const KernelArg *a = &p->k->args[s->to.arg];
    int64_t n_cols = s->to.dyn_stride;
    ZM_CHECK(n_cols == p->s.n_rows && a->elems % n_cols == 0);
    if (a->alias_in >= 0) {
        print_indent(p);
        str_addf(p->out, "if (a%d != a%d)\n", s->to.arg, a->alias_in);
        p->depth++;
    }
    print_line(p, "for (%s r = threadIdx.y; r < %lld; r += %d)", p->index_type,
               (long long)(a->elems / n_cols), p->s.threads_y);
    Access column = s->to;
    column.dyn = -1;
    p->depth++;
    print_indent(p);
    str_addf(p->out, "a%d[", s->to.arg);
    print_offset(p, &column);
    str_addf(p->out, " + r * %lld] = ", (long long)n_cols);
    if (a->alias_in >= 0) {
        str_addf(p->out, "a%d[", a->alias_in);
        print_offset(p, &column);
        str_addf(p->out, " + r * %lld];\n", (long long)n_cols);
    } else {
        str_addf(p->out, "%s{};\n", memory_type(a->dtype));
    }
    p->depth -= a->alias_in >= 0 ? 2 : 1;
}

/* Each thread sees every addition and makes those to its own rows, in order. */
void print_scatter(Printer *p)
{
    const Kernel *k = p->k;
    const Store *s = &k->stores[0];
    ZM_CHECK(k->n_stores == 1 && s->to.dyn >= 0 && k->n_stages <= 1);
    print_scatter_base(p, s);
    print_sweep_loop(p);
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = i == (uint32_t)s->to.dyn;
    for (uint32_t i = k->n_nodes; i-- > 0;)
        if (p->is_wanted[i]) mark_inputs(k, i, p->is_wanted);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (p->is_wanted[i] && k->nodes[i].level == LV_ELEM) print_node(p, i);
    print_indent(p);
    str_add(p->out, "if ((unsigned int)");
    print_use(p, s->to.dyn);
    str_addf(p->out, " %% %d != threadIdx.y) continue;\n", p->s.threads_y);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (p->is_live[i] && !p->is_wanted[i] && k->nodes[i].level == LV_ELEM) print_node(p, i);
    print_stores(p, LV_ELEM);
    print_close(p);
}
