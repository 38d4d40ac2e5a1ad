/* eval_collective.c -- collectives over ranks that run in step (eval_run_ranks).  A sum over ranks
 * is taken in rank order, each addition rounded to f32 (f64 in f64, integers exactly), and once to
 * the element type at the end: what runs of many ranks do too (runtime/comm.h). */
#include <string.h>

#include "ir/eval/eval_rules.h"

bool eval_is_collective(OpCode code)
{
    return code == OP_ALL_GATHER || code == OP_REDUCE_SCATTER || code == OP_ALL_REDUCE ||
           code == OP_SHARD;
}

/* On one rank alone. */
Status eval_collective(const EvalCall *c)
{
    return eval_fail(
        c, "works over the ranks of axis '%s': the function has to run on all of them (--ranks)",
        attr_str(c->op->attrs, AT_MESH));
}

double eval_add_ranks(DType dt, double sum, double term)
{
    sum += term;
    return dtype_class(dt) == DTC_FLOAT && dt != DT_F64 ? dtype_round(DT_F32, sum) : sum;
}

/* Element i of the operands, summed over ranks. */
static double sum_over_ranks(const EvalCall *call, uint32_t ranks, int64_t i)
{
    DType dt = call[0].out[0].type->dtype;
    bool is_exact = call[0].e->is_unrounded && dtype_class(dt) == DTC_FLOAT;
    double sum = call[0].in[0].at[i];
    for (uint32_t r = 1; r < ranks; r++) {
        double term = call[r].in[0].at[i];
        sum = is_exact ? sum + term : eval_add_ranks(dt, sum, term);
    }
    return is_exact ? sum : dtype_round(dt, sum);
}

/* How a dimension of the whole is cut: each of `outer` blocks has `part` elements of each rank in
 * turn. */
typedef struct Cut {
    int64_t outer, part;
} Cut;

static Cut cut_of(const Type *part, int64_t axis)
{
    Cut c = {1, 1};
    for (int i = 0; i < part->rank; i++) *(i < axis ? &c.outer : &c.part) *= part->dim[i];
    return c;
}

static void gather(const EvalCall *call, uint32_t ranks, int64_t axis)
{
    Cut c = cut_of(call[0].in[0].type, axis);
    for (uint32_t to = 0; to < ranks; to++)
        for (int64_t o = 0; o < c.outer; o++)
            for (uint32_t r = 0; r < ranks; r++)
                memcpy(call[to].out[0].at + (o * ranks + r) * c.part, call[r].in[0].at + o * c.part,
                       (size_t)c.part * sizeof(double));
}

/* Each rank's part of its own operand, or of the sum. */
static void scatter(const EvalCall *call, uint32_t ranks, int64_t axis, bool sums)
{
    Cut c = cut_of(call[0].out[0].type, axis);
    for (uint32_t r = 0; r < ranks; r++)
        for (int64_t o = 0; o < c.outer; o++)
            for (int64_t i = 0; i < c.part; i++) {
                int64_t whole = (o * ranks + r) * c.part + i;
                call[r].out[0].at[o * c.part + i] =
                    sums ? sum_over_ranks(call, ranks, whole) : call[r].in[0].at[whole];
            }
}

Status eval_over_ranks(const EvalCall *call, uint32_t ranks)
{
    const Op *o = call->op;
    const Module *m = call->e->m;
    const char *mesh = attr_str(o->attrs, AT_MESH);
    int64_t axis = attr_int(o->attrs, AT_AXIS, 0);
    if (strcmp(mesh, mesh_axis_name(MESH_DATA)) != 0 || m->mesh[MESH_DATA] != ranks)
        return eval_fail(call, "works over %lld ranks of axis '%s', this run has %u of axis 'data'",
                         (long long)m->mesh[mesh_axis_from_name(mesh, strlen(mesh))], mesh, ranks);
    switch ((int)o->code) {
    case OP_ALL_GATHER: gather(call, ranks, axis); return ZM_OK;
    case OP_REDUCE_SCATTER: scatter(call, ranks, axis, true); return ZM_OK;
    case OP_SHARD: scatter(call, ranks, axis, false); return ZM_OK;
    default:
        for (uint32_t r = 0; r < ranks; r++)
            for (int64_t i = 0; i < type_elems(call[r].out[0].type); i++)
                call[r].out[0].at[i] = sum_over_ranks(call, ranks, i);
        return ZM_OK;
    }
}
