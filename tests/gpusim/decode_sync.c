/* decode_sync.c -- what lanes or warps do together: barriers, shuffles, votes, match, redux, mma.
 */
#include "tests/gpusim/decode.h"

#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/atomic.h"
#include "tests/gpusim/lanes.h"

static Insn *emit_sync(Decoder *d, ExecFn fn, uint32_t members)
{
    Insn *in = emit(d, fn);
    in->kind = INSN_SYNC;
    in->members = members;
    return in;
}

/* bar.sync id{, n}; bar.red.OP d, id{, n}, p; bar.arrive id, n */
static void decode_barrier(Decoder *d, Parts *p)
{
    (void)parts_take(p, "cta");
    if (parts_take(p, "warp")) {
        emit_sync(d, exec_warp_barrier, source(d, operand(d, 0), 4));
        return;
    }
    bool is_red = parts_take(p, "red");
    BarKind kind = parts_has(p, "arrive") ? BAR_ARRIVE
                   : !is_red              ? BAR_SYNC
                   : parts_has(p, "popc") ? BAR_POPC
                   : parts_has(p, "and")  ? BAR_AND
                                          : BAR_OR;
    uint32_t n = is_red ? 1 : 0, none = UINT32_MAX, predicate = none, to = none;
    uint32_t last = d->now->n_ops - 1;
    uint32_t id = source(d, operand(d, n), 4), count = none;
    if (is_red) {
        predicate = source(d, operand(d, last), 0);
        to = target_slot(d, operand(d, 0), kind == BAR_POPC ? 4 : 0);
        last--;
    }
    if (last > n) count = source(d, operand(d, n + 1), 4);
    Insn *in = emit(d, NULL);
    in->kind = INSN_BAR;
    in->variant = (uint8_t)kind;
    in->a = id;
    in->b = count;
    in->c = predicate;
    in->d = to;
}

/* shfl.sync.MODE.b32 d|p, a, b, c, mask */
static void decode_shfl(Decoder *d, Parts *p)
{
    static const char *const modes[] = {"up", "down", "bfly", "idx"};
    int mode = 0;
    while (mode < 4 && !parts_has(p, modes[mode])) mode++;
    if (mode == 4 || !parts_take(p, "sync")) decode_fail(d, "the simulator knows shfl.sync");
    const PtxOperand *o = operand(d, 0);
    uint32_t to = target_slot(d, o, 4);
    uint32_t p_to = o->kind == OPD_PAIR && o->reg_b >= 0 ? d->frame->slots[o->reg_b] : UINT32_MAX;
    uint32_t a = source(d, operand(d, 1), 4), b = source(d, operand(d, 2), 4),
             c = source(d, operand(d, 3), 4), members = source(d, operand(d, 4), 4);
    Insn *in = emit_sync(d, exec_shfl, members);
    in->variant = (uint8_t)mode;
    in->d = to;
    in->d2 = p_to;
    in->a = a;
    in->b = b;
    in->c = c;
}

static void decode_vote(Decoder *d, Parts *p)
{
    static const char *const modes[] = {"all", "any", "uni", "ballot"};
    int mode = 0;
    while (mode < 4 && !parts_has(p, modes[mode])) mode++;
    if (mode == 4 || !parts_take(p, "sync")) decode_fail(d, "the simulator knows vote.sync");
    uint32_t to = target_slot(d, operand(d, 0), mode == VOTE_BALLOT ? 4 : 0);
    uint32_t a = source(d, operand(d, 1), 0), members = source(d, operand(d, 2), 4);
    bool is_not = operand(d, 1)->is_not;
    Insn *in = emit_sync(d, exec_vote, members);
    in->variant = (uint8_t)mode;
    in->d = to;
    in->a = a;
    in->is_signed = is_not;
}

static void decode_match(Decoder *d, Parts *p)
{
    bool is_all = parts_has(p, "all");
    uint8_t bytes = type_size(d, parts_last(p));
    const PtxOperand *o = operand(d, 0);
    uint32_t to = target_slot(d, o, 4);
    uint32_t p_to = o->kind == OPD_PAIR && o->reg_b >= 0 ? d->frame->slots[o->reg_b] : UINT32_MAX;
    uint32_t a = source(d, operand(d, 1), bytes), members = source(d, operand(d, 2), 4);
    Insn *in = emit_sync(d, exec_match, members);
    in->variant = is_all;
    in->bytes = bytes;
    in->d = to;
    in->d2 = p_to;
    in->a = a;
}

static void decode_redux(Decoder *d, Parts *p)
{
    static const struct {
        const char *name;
        AtomicOp op;
    } ops[] = {{"add", ATOMIC_ADD}, {"min", ATOMIC_MIN}, {"max", ATOMIC_MAX},
               {"and", ATOMIC_AND}, {"or", ATOMIC_OR},   {"xor", ATOMIC_XOR}};
    size_t i = 0;
    while (i < 6 && !parts_has(p, ops[i].name)) i++;
    if (i == 6) decode_fail(d, "the simulator does not know this reduction");
    uint32_t to = target_slot(d, operand(d, 0), 4);
    uint32_t a = source(d, operand(d, 1), 4), members = source(d, operand(d, 2), 4);
    bool is_signed = parts_last(p)[0] == 's';
    Insn *in = emit_sync(d, exec_redux, members);
    in->variant = (uint8_t)ops[i].op;
    in->is_signed = is_signed;
    in->d = to;
    in->a = a;
}

/* mma.sync.aligned.m16n8kK.row.col.f32.T.T.f32 {d}, {a}, {b}, {c} */
static void decode_mma(Decoder *d, Parts *p)
{
    static const struct {
        const char *shape, *type;
        uint8_t k, n_a, n_b, type_id;
    } forms[] = {{"m16n8k16", "bf16", 16, 4, 2, NUM_BF16}, {"m16n8k16", "f16", 16, 4, 2, NUM_F16},
                 {"m16n8k8", "bf16", 8, 2, 1, NUM_BF16},   {"m16n8k8", "f16", 8, 2, 1, NUM_F16},
                 {"m16n8k8", "tf32", 8, 4, 2, NUM_TF32},   {"m16n8k4", "tf32", 4, 2, 1, NUM_TF32}};
    size_t i = 0, n = sizeof forms / sizeof forms[0];
    bool is_known = p->n == 9 && parts_has(p, "row") && parts_has(p, "col") &&
                    strcmp(p->at[5], "f32") == 0 && strcmp(p->at[8], "f32") == 0 &&
                    strcmp(p->at[6], p->at[7]) == 0;
    while (is_known && i < n &&
           (strcmp(forms[i].shape, p->at[2]) != 0 || strcmp(forms[i].type, p->at[6]) != 0))
        i++;
    if (!is_known || i == n) decode_fail(d, "the simulator does not know this form of mma");
    Insn draft = {.bytes = 4};
    set_vector(d, &draft, operand(d, 0), true);
    set_vector(d, &draft, operand(d, 1), false);
    set_vector(d, &draft, operand(d, 2), false);
    set_vector(d, &draft, operand(d, 3), false);
    if (draft.n_vec != 8 + forms[i].n_a + forms[i].n_b)
        decode_fail(d, "the number of registers does not fit the shape");
    uint32_t all = constant_slot(d, UINT32_MAX, 4);
    Insn *in = emit_sync(d, exec_mma, all);
    in->variant = forms[i].type_id;
    in->bytes = forms[i].k;
    in->n_vec = draft.n_vec;
    memcpy(in->vec, draft.vec, sizeof in->vec);
}

/* wgmma.mma_async.sync.aligned.m64nNk16.f32.T.T {d}, a, b, p, 1, 1, a is turned, b is turned */
static void decode_products(Decoder *d, Parts *p)
{
    const char *shape = p->n == 7 ? p->at[3] : "";
    int n = strncmp(shape, "m64n", 4) == 0 ? atoi(shape + 4) : 0;
    bool is_bf16 = p->n == 7 && strcmp(p->at[5], "bf16") == 0;
    bool is_known = n >= 8 && n <= 256 && n % 8 == 0 && strstr(shape, "k16") &&
                    strcmp(p->at[4], "f32") == 0 && strcmp(p->at[5], p->at[6]) == 0 &&
                    (is_bf16 || strcmp(p->at[5], "f16") == 0);
    const PtxOperand *sums = operand(d, 0);
    if (!is_known || sums->kind != OPD_VECTOR || (int)sums->n != n / 2 || operand(d, 4)->imm != 1 ||
        operand(d, 5)->imm != 1)
        decode_fail(d, "the simulator does not know this form of wgmma");
    uint32_t *wide = ARENA_ARRAY(d->a, uint32_t, sums->n);
    for (uint32_t i = 0; i < sums->n; i++)
        wide[i] = target_slot(d, &d->frame->f->operands.at[sums->first + i], 4);
    uint32_t a = source(d, operand(d, 1), 8), b = source(d, operand(d, 2), 8),
             adds = source(d, operand(d, 3), 0), all = constant_slot(d, UINT32_MAX, 4);
    bool a_turned = operand(d, 6)->imm != 0, b_turned = operand(d, 7)->imm != 0;
    Insn *in = emit_sync(d, exec_wgmma, all);
    in->variant = is_bf16 ? NUM_BF16 : NUM_F16;
    in->wide = wide;
    in->target = n;
    in->a = a;
    in->b = b;
    in->c = adds;
    in->is_signed = a_turned;
    in->is_not = b_turned;
}

static void decode_wgmma(Decoder *d, Parts *p)
{
    if (parts_has(p, "mma_async")) {
        decode_products(d, p);
        return;
    }
    bool is_wait = parts_has(p, "wait_group");
    int64_t kept = is_wait ? (int64_t)operand(d, 0)->imm : 0;
    ExecFn fn = is_wait                        ? exec_wgmma_wait
                : parts_has(p, "commit_group") ? exec_wgmma_commit
                : parts_has(p, "fence")        ? exec_wgmma_fence
                                               : NULL;
    if (!fn) decode_fail(d, "the simulator does not know this form of wgmma");
    Insn *in = emit_sync(d, fn, constant_slot(d, UINT32_MAX, 4));
    in->imm = kept;
}

bool decode_sync(Decoder *d, Parts *p)
{
    const char *base = p->at[0];
    if (strcmp(base, "bar") == 0 || strcmp(base, "barrier") == 0)
        decode_barrier(d, p);
    else if (strcmp(base, "shfl") == 0)
        decode_shfl(d, p);
    else if (strcmp(base, "vote") == 0)
        decode_vote(d, p);
    else if (strcmp(base, "match") == 0)
        decode_match(d, p);
    else if (strcmp(base, "redux") == 0)
        decode_redux(d, p);
    else if (strcmp(base, "mma") == 0)
        decode_mma(d, p);
    else if (strcmp(base, "wgmma") == 0)
        decode_wgmma(d, p);
    else if (strcmp(base, "activemask") == 0) {
        uint32_t to = target_slot(d, operand(d, 0), 4);
        emit(d, exec_activemask)->d = to;
    } else
        return false;
    return true;
}
