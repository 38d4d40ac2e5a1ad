/* online.c -- the largest element of a row and the sum of exponentials below it in one sweep, for
 * rows that no memory of the chip holds (softmax and cross-entropy over a large vocabulary).
 *
 * The form has two sweeps: M = max X; then sums of exp(X - M), and of X - M where a condition holds
 * (the target's logit).  Here each thread keeps the largest X so far and its sum relative to that,
 * and rescales both when the block has found M.  Of the conditional sums it keeps sum X and how
 * often the condition held: the same number for the one target. */
#include "codegen/cuda/print.h"

static bool is_op(const Kernel *k, int32_t node, OpCode op)
{
    return k->nodes[node].kind == KN_OP && k->nodes[node].op == op;
}

/* X - M: the element less the row's largest. */
static bool is_below_largest(const Printer *p, int32_t node, uint32_t largest)
{
    const Node *n = &p->k->nodes[node];
    return is_op(p->k, node, OP_SUB) && n->arg[0] == p->k->nodes[largest].arg[0] &&
           n->arg[1] == (int32_t)largest;
}

static bool is_exp_sum(const Printer *p, uint32_t sum, uint32_t largest)
{
    int32_t e = p->k->nodes[sum].arg[0];
    return is_op(p->k, e, OP_EXP) && is_below_largest(p, p->k->nodes[e].arg[0], largest);
}

/* sum of (condition ? X - M : 0), the condition known before M. */
static bool is_picked_sum(const Printer *p, uint32_t sum, uint32_t largest)
{
    int32_t s = p->k->nodes[sum].arg[0];
    if (!is_op(p->k, s, OP_SELECT)) return false;
    const int32_t *a = p->k->nodes[s].arg;
    const Node *zero = &p->k->nodes[a[2]];
    return is_below_largest(p, a[1], largest) && zero->kind == KN_CONST && zero->imm == 0 &&
           p->ready[a[0]] == 0;
}

static bool suits_float(const Node *n)
{
    return n->dtype == DT_F32 || n->dtype == DT_F64;
}

/* The one live reduction of sweep 0, when it is a maximum; -1. */
static int32_t sole_largest(const Printer *p)
{
    int32_t found = -1;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 0)) continue;
        if (found >= 0 || p->k->nodes[i].op != OP_REDUCE_MAX || !suits_float(&p->k->nodes[i]))
            return -1;
        found = (int32_t)i;
    }
    return found;
}

static bool has_element_stores(const Kernel *k)
{
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (k->stores[i].level == LV_ELEM) return true;
    return false;
}

bool is_online(const Printer *p)
{
    const Kernel *k = p->k;
    int32_t largest = sole_largest(p), n_exp = 0;
    bool is_held = p->s.n_packs > 0 || p->s.shared_bytes > 0;
    if (p->s.shape != CUDA_BLOCK || is_held || largest < 0) return false;
    if (k->n_stages < 2 || (k->n_stages == 2 && has_element_stores(k))) return false;
    if (k->nodes[k->nodes[largest].arg[0]].level != LV_ELEM) return false;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 1)) continue;
        const Node *n = &k->nodes[i];
        bool is_exp = is_exp_sum(p, i, (uint32_t)largest);
        if (n->op != OP_REDUCE_SUM || n->dtype != k->nodes[largest].dtype) return false;
        if (!is_exp && !is_picked_sum(p, i, (uint32_t)largest)) return false;
        n_exp += is_exp;
    }
    return n_exp == 1;
}

/* ---- the sweep ---- */

static int32_t condition_of(const Printer *p, uint32_t picked)
{
    return p->k->nodes[p->k->nodes[picked].arg[0]].arg[0];
}

static const char *type_of(const Printer *p)
{
    return register_type(p->k->nodes[sole_largest(p)].dtype);
}

static void find_wanted_online(Printer *p)
{
    const Kernel *k = p->k;
    uint32_t largest = (uint32_t)sole_largest(p);
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = false;
    p->is_wanted[k->nodes[largest].arg[0]] = true;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (is_reduced_at(p, i, 1) && is_picked_sum(p, i, largest))
            p->is_wanted[condition_of(p, i)] = true;
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        if (!p->is_wanted[i]) continue;
        bool is_element = k->nodes[i].level == LV_ELEM && k->nodes[i].kind != KN_REDUCE;
        if (is_element)
            mark_inputs(k, i, p->is_wanted);
        else
            p->is_wanted[i] = false;
    }
}

/* An element's part: y[j] = X; picked sums at once. */
static void print_online_element(Printer *p, const Store *unused)
{
    (void)unused;
    uint32_t largest = (uint32_t)sole_largest(p);
    int32_t x = p->k->nodes[largest].arg[0];
    print_indent(p);
    str_addf(p->out,
             p->is_masked ? "if (is_inside) y[%s] = " : "y[%s] = ", p->s.width > 1 ? "j" : "0");
    print_use(p, x);
    str_add(p->out, ";\n");
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 1) || !is_picked_sum(p, i, largest)) continue;
        print_indent(p);
        str_add(p->out, p->is_masked ? "if (is_inside && " : "if (");
        print_use(p, condition_of(p, i));
        str_addf(p->out, ") r%u += y[%s], n%u += 1;", i, p->s.width > 1 ? "j" : "0", i);
        print_end(p, "reduce_sum", node_loc(p, i));
    }
}

static void print_online_sweep(Printer *p, uint32_t largest, uint32_t sum)
{
    find_wanted_online(p);
    print_reduce_starts(p, 0);
    print_reduce_starts(p, 1);
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (is_reduced_at(p, i, 1) && i != sum) print_line(p, "%s n%u = 0;", type_of(p), i);
    print_sweep_loop(p);
    print_line(p, "%s y[%d];", type_of(p), p->s.width);
    if (p->s.is_ragged) print_line(p, "for (int j = 0; j < %d; j++) y[j] = -ZM_INF;", p->s.width);
    p->print_last = print_online_element;
    print_pack(p, 0, false);
    p->print_last = NULL;
    print_indent(p);
    str_addf(p->out, "zm_exp_sum(r%u, r%u, y);", largest, sum);
    print_end(p, "reduce_max, exp, reduce_sum", node_loc(p, sum));
    print_close(p);
}

static uint32_t exp_sum_of(const Printer *p, uint32_t largest)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (is_reduced_at(p, i, 1) && is_exp_sum(p, i, largest)) return i;
    ZM_UNREACHABLE("is_online() found it");
}

/* Counts of the picked sums over the block, into n5. */
static void print_counts(Printer *p, uint32_t sum, const char *fmt)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (is_reduced_at(p, i, 1) && i != sum) print_line(p, fmt, i, i, i);
}

void print_online(Printer *p)
{
    uint32_t largest = (uint32_t)sole_largest(p), sum = exp_sum_of(p, largest);
    print_online_sweep(p, largest, sum);
    print_block_combined(p, 0);
    print_row_nodes(p, 1);
    print_line(p, "r%u = zm_rescaled(r%u, r%u, v%u);", sum, sum, largest, largest);
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 1)) continue;
        print_line(p, "__shared__ %s part%u[%d];", type_of(p), i, p->s.threads_x / 32);
        print_line(p, "zm_block_put<zm_sum>(part%u, r%u);", i, i);
        if (i == sum) continue;
        print_line(p, "__shared__ %s counts%u[%d];", type_of(p), i, p->s.threads_x / 32);
        print_line(p, "zm_block_put<zm_sum>(counts%u, n%u);", i, i);
    }
    print_line(p, "__syncthreads();");
    print_counts(p, sum, "n%u = zm_block_get<zm_sum>(counts%u);  // of v%u");
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, 1)) continue;
        if (i == sum)
            print_reduced(p, i, "zm_block_get<zm_sum>(part%u)", i);
        else
            print_reduced(p, i, "zm_below(zm_block_get<zm_sum>(part%u), n%u, v%u)", i, i, largest);
    }
}
