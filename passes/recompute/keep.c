/* keep.c -- which values of the forward are kept for the backward.
 *
 * A graph of ops and values: an edge leads from each operand to its op, and from the op to each
 * result, where it costs the bytes of keeping that.  Ops that may not run again hang on the source,
 * values that the backward uses on the sink: the smallest cut is the smallest set of values from
 * which the backward's needs can be computed (as in the min-cut partitioning of PyTorch's
 * AOTAutograd; here with a price list of what may run again).
 */
#include "passes/recompute/min_cut.h"
#include "passes/recompute/recompute.h"

#include <stdlib.h>

enum {
    FLOPS_PER_BYTE = 8, /* of a machine in balance: 200 GF/s beside 25 GB/s; only orders steps */
    SMALL = 16          /* a sum of at most 1/16 of its operand's bytes is always kept */
};

typedef struct Step {
    double price; /* operations per byte of result; 0: the cheap ops of a layer */
    uint32_t at;  /* layer or position */
} Step;
typedef VEC(Step) Steps;

static int64_t results_bytes(const Forward *w, const Op *o)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < o->n_out; i++) n += type_bytes(value_type(w->f, o->out[i]));
    return n;
}

static int64_t operands_bytes(const Forward *w, const Op *o)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < o->n_in; i++) n += type_bytes(value_type(w->f, o->in[i]));
    return n;
}

static bool is_heavy(OpCode code)
{
    CostKind kind = op_info(code)->cost_kind;
    return kind == COST_CONTRACT || kind == COST_ATTENTION || kind == COST_REDUCE;
}

/* Effects, and statistics, which cost much to compute and little to keep. */
static bool is_never_again(const Forward *w, const Op *o)
{
    if (!(op_info(o->code)->traits & TR_PURE)) return true;
    return op_info(o->code)->cost_kind == COST_REDUCE &&
           results_bytes(w, o) * SMALL <= operands_bytes(w, o);
}

static double price_of(const Forward *w, uint32_t p)
{
    const Op *o = op_cget(w->f, w->op_at[p]);
    double flops = op_flops(w->f, w->op_at[p]), out = (double)results_bytes(w, o);
    double moved = FLOPS_PER_BYTE * ((double)operands_bytes(w, o) + out);
    return (flops > moved ? flops : moved) / out;
}

static int compare_steps(const void *x, const void *y)
{
    const Step *a = x, *b = y;
    if (a->price != b->price) return a->price < b->price ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static Steps all_steps(const Forward *w)
{
    Steps s = {0};
    for (uint32_t i = 1; i <= w->n_layers; i++) VEC_PUSH(w->a, &s, ((Step){0, i}));
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(w->f, w->op_at[p]);
        if (!w->layer[p] || !is_heavy(o->code) || is_never_again(w, o)) continue;
        VEC_PUSH(w->a, &s, ((Step){price_of(w, p), p}));
    }
    if (s.n) qsort(s.at, s.n, sizeof *s.at, compare_steps);
    return s;
}

uint32_t forward_count_steps(const Forward *w)
{
    return all_steps(w).n;
}

/* A result is used in a later layer, or after the last. */
static bool leaves_layer(const Forward *w, uint32_t p)
{
    const Op *o = op_cget(w->f, w->op_at[p]);
    bool leaves = false;
    for (uint32_t i = 0; i < o->n_out; i++)
        leaves |= w->last_use[o->out[i].i] >= w->begin[w->layer[p] + 1];
    return leaves;
}

/* By position before the turn: may the op run again?  Views may anywhere: they are index maps. */
static bool *may_run_again(const Forward *w, uint32_t steps)
{
    bool *is_open = ARENA_ARRAY(w->a, bool, w->n_layers + 1);
    bool *again = ARENA_ARRAY(w->a, bool, w->turn);
    Steps s = all_steps(w);
    for (uint32_t i = 0; i < s.n && i < steps; i++) {
        if (s.at[i].price == 0)
            is_open[s.at[i].at] = true;
        else
            again[s.at[i].at] = true;
    }
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(w->f, w->op_at[p]);
        again[p] |= w->layer[p] && is_open[w->layer[p]] && !is_heavy(o->code);
        again[p] &= !is_never_again(w, o) && !leaves_layer(w, p);
        again[p] |= (op_info(o->code)->traits & TR_VIEW) != 0;
    }
    return again;
}

/* Nodes: source, sink, values by their numbers, ops by their positions. */
enum { SOURCE, SINK, FIRST_VALUE };

static void add_op(const Forward *w, MinCut *c, uint32_t p, bool may_again)
{
    const Op *o = op_cget(w->f, w->op_at[p]);
    uint32_t op = FIRST_VALUE + w->f->values.n + p;
    for (uint32_t i = 0; i < o->n_out; i++) {
        ValueId v = o->out[i];
        if (!forward_has(w, v)) continue;
        min_cut_edge(c, op, FIRST_VALUE + v.i, type_bytes(value_type(w->f, v)));
        if (w->is_needed[v.i]) min_cut_edge(c, FIRST_VALUE + v.i, SINK, CUT_NEVER);
    }
    if (!may_again) min_cut_edge(c, SOURCE, op, CUT_NEVER);
    for (uint32_t i = 0; may_again && i < o->n_in; i++)
        if (forward_has(w, o->in[i])) min_cut_edge(c, FIRST_VALUE + o->in[i].i, op, CUT_NEVER);
}

void forward_keep(const Forward *w, uint32_t steps, bool *is_kept)
{
    uint32_t n_values = w->f->values.n, n = FIRST_VALUE + n_values + w->turn;
    MinCut *c = min_cut_new(w->a, n);
    const bool *again = may_run_again(w, steps);
    for (uint32_t p = 0; p < w->turn; p++) add_op(w, c, p, again[p]);
    bool *is_sink_side = ARENA_ARRAY(w->a, bool, n);
    ZM_CHECK(min_cut_run(c, SOURCE, SINK, is_sink_side) < CUT_NEVER);
    for (uint32_t v = 1; v < n_values; v++) {
        if (!forward_has(w, (ValueId){v})) continue;
        uint32_t op = FIRST_VALUE + n_values + w->pos[value_cget(w->f, (ValueId){v})->def.i];
        is_kept[v] = is_sink_side[FIRST_VALUE + v] && !is_sink_side[op];
    }
}
