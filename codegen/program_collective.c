/* program_collective.c -- collectives of a planned module as the table that all ranks start in one
 * order. */
#include "codegen/program.h"
#include "passes/collective.h"

#include <string.h>

int64_t value_rank_stride(const Func *f, ValueId v)
{
    const Value *val = value_cget(f, v);
    if (!op_ok(val->def)) return 0;
    const Op *op = op_cget(f, val->def);
    if (op->code == OP_SHARD) return type_bytes(val->type) + value_rank_stride(f, op->in[0]);
    bool is_view = op->code == OP_RESHAPE || op->code == OP_SLICE || op->code == OP_AFTER;
    return is_view ? value_rank_stride(f, op->in[0]) : 0;
}

static enum ZmpCollectiveKind kind_of(OpCode code)
{
    if (code == OP_ALL_GATHER) return ZMP_ALL_GATHER;
    return code == OP_REDUCE_SCATTER ? ZMP_REDUCE_SCATTER : ZMP_ALL_REDUCE;
}

/* Without a tensor: by the reason that pass zero gives, "scalars", or by the value where the op was
 * written by hand. */
static void name_it(Program *p, const Func *f, const Op *op, ZmpCollective *k)
{
    LocId by = loc_by_pass(p->m, op->loc, "zero");
    const char *tensor = collective_tensor(p->m, op);
    if (!tensor) tensor = loc_ok(by) ? loc_get(p->m, by)->why : value_cget(f, op->out[0])->name;
    if (!tensor) tensor = arena_printf(p->a, "%%%u", op->out[0].i);
    k->tensor = program_string(p, tensor);
    k->what = program_string(p, collective_what(p->m, op));
}

/* The memory of a part must be one range. */
static bool is_whole_rows(const Type *t, Attrs attrs)
{
    int64_t dim = attr_int(attrs, AT_AXIS, 0);
    for (int64_t i = 0; i < dim; i++)
        if (t->dim[i] != 1) return false;
    return true;
}

Status program_collective(Program *p, uint32_t func, OpId id, uint32_t *index)
{
    const Func *f = p->m->funcs.at[func];
    const Op *op = op_cget(f, id);
    const Type *in = value_type(f, op->in[0]), *out = value_type(f, op->out[0]);
    const char *fault = NULL;
    if (!attr_int(op->attrs, AT_ASYNC, 0)) fault = "is not scheduled: run pass schedule first";
    if (op->code != OP_ALL_REDUCE && !is_whole_rows(in, op->attrs))
        fault = "works on rows only: its dimension must be the first one";
    if (fault)
        return diag_error(p->m->diag, loc_pos(p->m, op->loc), E_CODEGEN, "%s %s",
                          op_info(op->code)->name, fault);
    ZmpCollective z = {.kind = kind_of(op->code), .dtype = (uint32_t)in->dtype};
    z.func = (int32_t)func;
    z.count = type_elems(op->code == OP_ALL_GATHER ? out : in);
    z.loc = program_loc(p, op->loc);
    name_it(p, f, op, &z);
    *index = p->collectives.n;
    VEC_PUSH(p->a, &p->collectives, z);
    return ZM_OK;
}

uint64_t program_order_hash(const Program *p)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < p->collectives.n; i++) {
        const ZmpCollective *k = &p->collectives.at[i];
        const char *tensor = p->strings.at + k->tensor;
        const int64_t numbers[] = {k->kind, k->dtype, k->func, k->count};
        hash = hash_bytes(numbers, sizeof numbers, hash);
        hash = hash_bytes(tensor, strlen(tensor), hash);
    }
    return hash;
}
