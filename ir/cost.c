/* cost.c -- arithmetic per op, from the COST column of ops.def (ir.h). */
#include "ir/ir.h"

/* Multiply-adds of scores and of the weighted sum: B H T S (D + E), halved by a causal mask. */
static double attention_madds(const Func *f, const Op *op)
{
    const Type *q = value_type(f, op->in[0]), *v = value_type(f, op->in[2]);
    double scores = (double)q->dim[0] * (double)q->dim[1] * (double)q->dim[2] * (double)v->dim[2];
    double madds = scores * (double)(q->dim[3] + v->dim[3]);
    return attr_int(op->attrs, AT_CAUSAL, 0) ? madds / 2 : madds;
}

static double contract_madds(const Func *f, const Op *op)
{
    const Type *a = value_type(f, op->in[0]);
    bool trans_a = attr_int(op->attrs, AT_TRANS_A, 0) != 0;
    int64_t k = a->dim[a->rank - (trans_a ? 2 : 1)];
    return (double)type_elems(value_type(f, op->out[0])) * (double)k;
}

double op_flops(const Func *f, OpId id)
{
    const Op *op = op_cget(f, id);
    const OpInfo *info = op_info(op->code);
    switch (info->cost_kind) {
    case COST_NONE: return 0;
    case COST_POINTWISE: return info->cost_flops * (double)type_elems(value_type(f, op->out[0]));
    case COST_REDUCE: {
        double elems = 0;
        for (uint32_t i = 0; i < op->n_in; i++)
            elems += (double)type_elems(value_type(f, op->in[i]));
        return info->cost_flops * elems;
    }
    case COST_CONTRACT: return info->cost_flops * contract_madds(f, op);
    case COST_ATTENTION: return info->cost_flops / 2.0 * attention_madds(f, op);
    }
    ZM_UNREACHABLE("cost kind");
}
