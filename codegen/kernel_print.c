/* kernel_print.c -- a kernel form as readable loops.
 *
 *   kernel nest sub+exp+div                                  gpt2.zm:12:3
 *     args a0 f32[1024] -> a1 f32[1024]                      -> : results
 *     par i0 4, red i1 256
 *     sweep 0
 *       %0 = load a0[256*i0 + i1]
 *       %1 = reduce_max %0
 */
#include <string.h>

#include "codegen/kernel.h"

static const char *const kind_names[] = {"nest", "scatter", "contract", "attention"};
static const char *const loop_names[] = {"par", "red", "batch", "m", "n", "k"};

/* base + sum of stride * index; "0" when empty. */
static void print_affine(Str *out, int64_t base, const int64_t *stride, uint32_t n)
{
    bool is_first = true;
    for (uint32_t l = 0; l < n; l++) {
        if (!stride[l]) continue;
        if (!is_first) str_add(out, " + ");
        if (stride[l] != 1) str_addf(out, "%lld*", (long long)stride[l]);
        str_addf(out, "i%u", l);
        is_first = false;
    }
    if (is_first)
        str_addf(out, "%lld", (long long)base);
    else if (base)
        str_addf(out, " %c %lld", base < 0 ? '-' : '+', (long long)(base < 0 ? -base : base));
}

static void print_access(Str *out, const Access *x, uint32_t n_loops)
{
    str_addf(out, "a%d[", x->arg);
    if (x->dyn >= 0) str_addf(out, "%lld*%%%d + ", (long long)x->dyn_stride, x->dyn);
    print_affine(out, x->base, x->stride, n_loops);
    str_add(out, "]");
    for (uint32_t g = 0; g < x->n_guards; g++) {
        str_addf(out, "%s %lld <= ", g ? "," : " if", (long long)x->guards[g].lo);
        print_affine(out, x->guards[g].base, x->guards[g].stride, n_loops);
        str_addf(out, " < %lld", (long long)x->guards[g].hi);
    }
}

static void print_node_value(const Kernel *k, Str *out, const Node *n)
{
    switch (n->kind) {
    case KN_CONST: str_add_f64(out, n->imm); return;
    case KN_ACC: str_add(out, "acc"); return;
    case KN_LOAD:
        str_add(out, "load ");
        print_access(out, &k->accesses[n->index], k->n_loops);
        return;
    case KN_INDEX:
        str_add(out, "index ");
        print_affine(out, k->accesses[n->index].base, k->accesses[n->index].stride, k->n_loops);
        return;
    case KN_OP:
    case KN_REDUCE:
    case KN_RANDOM: break;
    }
    str_add(out, op_info(n->op)->name);
    for (uint32_t i = 0; i < n->n_args; i++) str_addf(out, "%s%%%d", i ? ", " : " ", n->arg[i]);
}

static void print_node(const Kernel *k, Str *out, uint32_t i)
{
    static const char *const levels[] = {"", " row", " elem"};
    const Node *n = &k->nodes[i];
    str_addf(out, "    %%%u = ", i);
    print_node_value(k, out, n);
    str_addf(out, " : %s%s\n", dtype_name(n->dtype), levels[n->level]);
}

static void print_store(const Kernel *k, Str *out, const Store *s)
{
    str_add(out, "    store ");
    print_access(out, &s->to, k->n_loops);
    str_addf(out, " %s %%%d%s\n", s->mode == ST_ADD ? "+=" : "=", s->node,
             s->level == LV_ELEM ? "" : " : row");
}

static void print_args(const Kernel *k, Str *out)
{
    bool was_out = false;
    str_add(out, "  args");
    for (uint32_t i = 0; i < k->n_args; i++) {
        const KernelArg *x = &k->args[i];
        if (x->is_out && !was_out) str_add(out, " ->");
        was_out = x->is_out;
        bool is_const = k->n_consts && i == k->n_args - 1;
        str_addf(out, "%s a%u %s[%lld]", is_const ? "  constants" : "", i, dtype_name(x->dtype),
                 (long long)x->elems);
        if (x->alias_in >= 0) str_addf(out, " (may be a%d)", x->alias_in);
    }
    str_add(out, "\n");
}

static void print_loops(const Kernel *k, Str *out)
{
    str_add(out, "  loops");
    for (uint32_t l = 0; l < k->n_loops; l++)
        str_addf(out, "%s %s i%u %lld", l ? "," : "", loop_names[k->loops[l].kind], l,
                 (long long)k->loops[l].extent);
    str_add(out, k->n_loops ? "\n" : " none\n");
}

static void print_sweeps(const Kernel *k, Str *out)
{
    for (int32_t s = 0; s <= (int32_t)k->n_stages; s++) {
        bool is_after = s == (int32_t)k->n_stages; /* rows' values from the last sweep's sums */
        bool is_titled = k->n_stages == 1 && s == 0;
        for (uint32_t i = 0; i < k->n_nodes; i++) {
            if (k->nodes[i].stage != s) continue;
            if (!is_titled) str_addf(out, is_after ? "  after\n" : "  sweep %d\n", s);
            is_titled = true;
            print_node(k, out, i);
        }
    }
    for (uint32_t i = 0; i < k->n_stores; i++) print_store(k, out, &k->stores[i]);
}

static void print_contract(const Kernel *k, Str *out)
{
    for (uint32_t i = 0; i < k->n_nodes; i++) print_node(k, out, i);
    str_addf(out, "    acc = sum over k of %%%d * %%%d\n", k->node_a, k->node_b);
    for (uint32_t i = 0; i < k->n_stores; i++) print_store(k, out, &k->stores[i]);
}

static void print_operand(Str *out, const char *name, const AttnOperand *x)
{
    if (x->arg < 0) return;
    str_addf(out, "    %s = a%d[%lld; %lld %lld %lld %lld] : %s\n", name, x->arg,
             (long long)x->base, (long long)x->stride[0], (long long)x->stride[1],
             (long long)x->stride[2], (long long)x->stride[3], dtype_name(x->dtype));
}

static void print_attention(const Kernel *k, Str *out)
{
    const AttnSpec *s = &k->attn;
    str_addf(out, "  %s%s B %lld H %lld T %lld S %lld D %lld Dv %lld scale ",
             s->is_backward ? "backward" : "forward", s->is_causal ? " causal" : "",
             (long long)s->B, (long long)s->H, (long long)s->T, (long long)s->S, (long long)s->D,
             (long long)s->Dv);
    str_add_f64(out, s->scale);
    if (s->p > 0) {
        str_add(out, " p ");
        str_add_f64(out, s->p);
    }
    str_add(out, "\n");
#define PRINT(NAME) print_operand(out, #NAME, &s->NAME);
    ATTN_OPERANDS(PRINT)
#undef PRINT
}

void kernel_print(const Kernel *k, Str *out)
{
    str_addf(out, "kernel %s %s\n", kind_names[k->kind], k->label ? k->label : "");
    print_args(k, out);
    if (k->kind == KK_ATTENTION) {
        print_attention(k, out);
        return;
    }
    print_loops(k, out);
    if (k->kind == KK_CONTRACT)
        print_contract(k, out);
    else
        print_sweeps(k, out);
}
