/* kernel_set.c -- the kernels of a module: each form once. */
#include "codegen/program.h"

#include <string.h>

ValueId op_workspace(const Func *f, const Op *op)
{
    if (op->n_in == 0) return (ValueId){0};
    ValueId last = op->in[op->n_in - 1];
    OpId def = value_cget(f, last)->def;
    return op_ok(def) && op_cget(f, def)->code == OP_WORKSPACE ? last : (ValueId){0};
}

static uint64_t use_key(uint32_t func, OpId op)
{
    return (uint64_t)func << 32 | op.i;
}

const KernelUse *kernel_set_use(const KernelSet *s, uint32_t func, OpId op)
{
    uint32_t i = map_get(&s->use_of, use_key(func, op));
    return i == MAP_NONE ? NULL : &s->uses.at[i];
}

/* Index of a form equal to k; MAP_NONE when it is new.  by_hash holds the first kernel of a hash.
 */
static uint32_t find_equal(const KernelSet *s, const Map *by_hash, uint64_t hash, const Kernel *k)
{
    uint32_t first = map_get(by_hash, hash);
    if (first == MAP_NONE) return MAP_NONE;
    for (uint32_t i = first; i < s->kernels.n; i++)
        if (kernel_equal(s->kernels.at[i], k)) return i;
    return MAP_NONE;
}

static Status no_form(const Module *m, const Func *f, OpId op)
{
    if (m->diag->n_errors) return ZM_FAIL; /* kernel_build said why */
    return diag_error(m->diag, loc_pos(m, op_cget(f, op)->loc), E_CODEGEN,
                      "the kernel of this operation cannot be built");
}

static KernelUse use_of_kernel(Arena *a, const Kernel *k, uint32_t index, const int64_t *first)
{
    int32_t *consts = ARENA_ARRAY(a, int32_t, k->n_consts);
    if (k->n_consts) memcpy(consts, k->consts, k->n_consts * sizeof *consts);
    return (KernelUse){.kernel = index,
                       .label = arena_strdup(a, k->label ? k->label : ""),
                       .flops = k->flops,
                       .bytes = k->bytes,
                       .consts = consts,
                       .first = first};
}

/* ---- alignment ---- */

/* What divides each address of a value, on every rank: the arena begins at a multiple of ZMP_ALIGN.
 */
static int32_t value_align(const Func *f, ValueId v, int64_t first)
{
    const Place *p = &value_cget(f, v)->place;
    int64_t behind = first * dtype_bytes(value_cget(f, v)->type->dtype);
    int64_t all = (p->offset + behind) | value_rank_stride(f, v) | ZMP_ALIGN;
    return p->bytes ? (int32_t)(all & -all) : 0;
}

/* Lowers the alignments that kernel k counts on to those of one more use. */
static void meet_alignments(Kernel *k, const Func *f, OpId id, const int64_t *first, bool is_first)
{
    const Op *op = op_cget(f, id);
    uint32_t n_in = op->n_in - (value_ok(op_workspace(f, op)) ? 1 : 0);
    for (uint32_t i = 0; i < n_in + op->n_out && i < k->n_args; i++) {
        int32_t align = value_align(f, i < n_in ? op->in[i] : op->out[i - n_in], first[i]);
        if (is_first || align < k->args[i].align) k->args[i].align = align;
    }
}

Status kernel_set_build(Arena *a, const Module *m, KernelSet *out)
{
    *out = (KernelSet){.use_of = {.arena = a}};
    Map by_hash = {.arena = a};
    VEC(Kernel *) own = {0}; /* = out->kernels */
    Arena scratch = {0};
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        FOR_OPS(f, op)
        {
            if (op_cget(f, op)->code != OP_FUSED) continue;
            arena_free(&scratch); /* most forms are seen again: only new ones are kept */
            Kernel *k = kernel_build(&scratch, f, op);
            if (!k) return no_form(m, f, op);
            int64_t *first = ARENA_ARRAY(a, int64_t, k->n_args + 1);
            kernel_trim(k, first);
            uint64_t hash = kernel_hash(k);
            uint32_t at = find_equal(out, &by_hash, hash, k);
            KernelUse use = use_of_kernel(a, k, at, first);
            if (at == MAP_NONE) {
                use.kernel = out->kernels.n;
                if (map_get(&by_hash, hash) == MAP_NONE) map_put(&by_hash, hash, use.kernel);
                VEC_PUSH(a, &own, kernel_build(a, f, op));
                kernel_trim(own.at[use.kernel], first);
                VEC_PUSH(a, &out->kernels, own.at[use.kernel]);
            }
            meet_alignments(own.at[use.kernel], f, op, first, at == MAP_NONE);
            map_put(&out->use_of, use_key(i, op), out->uses.n);
            VEC_PUSH(a, &out->uses, use);
        }
    }
    arena_free(&scratch);
    return ZM_OK;
}
