/* decode_memory.c -- loads, stores, atomics, cp.async, ldmatrix, fences. */
#include "tests/gpusim/decode.h"
#include "tests/gpusim/atomic.h"

#include <stdlib.h>
#include <string.h>

static Space take_space(Parts *p)
{
    static const struct {
        const char *name;
        Space space;
    } spaces[] = {{"global", SPACE_GLOBAL}, {"const", SPACE_GLOBAL},       {"shared", SPACE_SHARED},
                  {"local", SPACE_LOCAL},   {"shared::cta", SPACE_SHARED}, {"param", SPACE_PARAM}};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (parts_take(p, spaces[i].name)) return spaces[i].space;
    return SPACE_GENERIC;
}

static int take_vector(Parts *p)
{
    return parts_take(p, "v8") ? 8 : parts_take(p, "v4") ? 4 : parts_take(p, "v2") ? 2 : 1;
}

/* .param of a call is a local variable of the expanded call. */
static void fix_space(Decoder *d, Insn *in, const PtxOperand *address)
{
    if (in->space != SPACE_PARAM) return;
    if (!address->symbol) decode_fail(d, "a parameter is named, not pointed to");
    if (address->symbol->space == SPACE_LOCAL)
        in->space = SPACE_LOCAL;
    else
        in->fn = exec_load_param;
}

static void decode_access(Decoder *d, Parts *p, bool is_load)
{
    Insn draft = {.fn = is_load ? exec_load : exec_store};
    draft.space = (uint8_t)take_space(p);
    int n = take_vector(p);
    draft.bytes = type_size(d, parts_last(p));
    draft.is_signed = parts_last(p)[0] == 's';
    if (p->n != 2) decode_fail(d, "the simulator does not know '%s'", p->at[1]);
    const PtxOperand *address = operand(d, is_load ? 1 : 0);
    set_address(d, &draft, address);
    fix_space(d, &draft, address);
    draft.reg_bytes = draft.bytes < 2 ? 2 : draft.bytes;
    set_vector(d, &draft, operand(d, is_load ? 0 : 1), is_load);
    if (draft.n_vec != n || draft.bytes > draft.reg_bytes)
        decode_fail(d, "the registers do not fit the type");
    Insn *in = emit(d, draft.fn);
    in->space = draft.space;
    in->bytes = draft.bytes;
    in->is_signed = draft.is_signed;
    in->reg_bytes = draft.reg_bytes;
    in->address_bytes = draft.address_bytes;
    in->a = draft.a;
    in->imm = draft.imm;
    in->n_vec = draft.n_vec;
    memcpy(in->vec, draft.vec, sizeof in->vec);
}

static void decode_atomic(Decoder *d, Parts *p, bool has_result)
{
    static const char *const names[N_ATOMIC] = {"add", "min", "max", "inc",  "dec",
                                                "and", "or",  "xor", "exch", "cas"};
    Insn draft = {.space = (uint8_t)take_space(p)};
    (void)parts_take(p, "noftz");
    (void)parts_take(p, "cta");
    if (p->n != 3) decode_fail(d, "the simulator does not know this atomic");
    int op = 0;
    while (op < N_ATOMIC && strcmp(names[op], p->at[1]) != 0) op++;
    if (op == N_ATOMIC) decode_fail(d, "the simulator does not know '%s'", p->at[1]);
    AtomicType type;
    if (!atomic_type(p->at[2], &type)) decode_fail(d, "no atomic on '%s'", p->at[2]);
    draft.bytes = atomic_bytes(type);
    uint32_t first = has_result ? 1 : 0;
    set_address(d, &draft, operand(d, first));
    uint32_t b = source(d, operand(d, first + 1), draft.bytes);
    uint32_t c = op == ATOMIC_CAS ? source(d, operand(d, first + 2), draft.bytes) : b;
    uint32_t to = has_result ? target_slot(d, operand(d, 0), draft.bytes) : new_slot(d, 8);
    Insn *in = emit(d, exec_atomic);
    in->space = draft.space;
    in->bytes = draft.bytes;
    in->a = draft.a;
    in->imm = draft.imm;
    in->address_bytes = draft.address_bytes;
    in->variant = (uint8_t)op;
    in->n_vec = (uint8_t)type;
    in->b = b;
    in->c = c;
    in->d = to;
}

/* cp.async.{ca,cg}.shared.global [to], [from], n{, n_read}; commit_group; wait_group n; wait_all */
static void decode_cp(Decoder *d, Parts *p)
{
    if (!parts_take(p, "async")) decode_fail(d, "the simulator does not know this copy");
    if (parts_take(p, "commit_group")) {
        emit(d, exec_cp_commit);
    } else if (parts_take(p, "wait_group") || parts_has(p, "wait_all")) {
        uint64_t keep = has_operand(d, 0) ? operand(d, 0)->imm : 0;
        Insn *in = emit(d, exec_cp_wait);
        in->is_signed = parts_has(p, "wait_all"); /* what was not committed, too */
        in->imm = (int64_t)keep;
    } else {
        Insn to = {0}, from = {0};
        set_address(d, &to, operand(d, 0));
        set_address(d, &from, operand(d, 1));
        uint64_t n = operand(d, 2)->imm;
        if (n != 4 && n != 8 && n != 16) decode_fail(d, "it copies 4, 8 or 16 bytes");
        uint32_t n_read = has_operand(d, 3) ? source(d, operand(d, 3), 4) : constant_slot(d, n, 4);
        Insn *in = emit(d, exec_cp_async);
        in->bytes = (uint8_t)n;
        in->a = to.a;
        in->imm = to.imm;
        in->address_bytes = to.address_bytes;
        in->space = SPACE_SHARED;
        in->b = from.a;
        in->target = (int32_t)from.imm;
        in->reg_bytes = from.address_bytes;
        in->c = n_read;
    }
}

static void decode_ldmatrix(Decoder *d, Parts *p)
{
    bool is_transposed = parts_take(p, "trans");
    if (!parts_has(p, "m8n8") || strcmp(parts_last(p), "b16") != 0)
        decode_fail(d, "the simulator knows .m8n8 of .b16");
    Insn draft = {.bytes = 4};
    set_address(d, &draft, operand(d, 1));
    set_vector(d, &draft, operand(d, 0), true);
    Insn *in = emit(d, exec_ldmatrix);
    in->kind = INSN_SYNC;
    in->space = SPACE_SHARED;
    in->bytes = 16; /* a row */
    in->is_signed = is_transposed;
    in->a = draft.a;
    in->imm = draft.imm;
    in->address_bytes = draft.address_bytes;
    in->n_vec = draft.n_vec;
    memcpy(in->vec, draft.vec, sizeof in->vec);
    uint32_t all = constant_slot(d, UINT32_MAX, 4);
    d->code->insns.at[d->code->insns.n - 1].members = all;
}

static bool has_gpu_scope(const Decoder *d)
{
    return strstr(d->now->op, ".gpu") || strstr(d->now->op, ".sys") || strstr(d->now->op, ".gl");
}

bool decode_memory(Decoder *d, Parts *p)
{
    const char *base = p->at[0];
    if (strcmp(base, "ld") == 0 || strcmp(base, "ldu") == 0)
        decode_access(d, p, true);
    else if (strcmp(base, "st") == 0)
        decode_access(d, p, false);
    else if (strcmp(base, "atom") == 0 || strcmp(base, "red") == 0)
        decode_atomic(d, p, base[0] == 'a');
    else if (strcmp(base, "cp") == 0)
        decode_cp(d, p);
    else if (strcmp(base, "ldmatrix") == 0)
        decode_ldmatrix(d, p);
    else if (strcmp(base, "fence") == 0 && parts_has(p, "proxy"))
        emit(d, exec_proxy_fence);
    else if (strcmp(base, "membar") == 0 || strcmp(base, "fence") == 0)
        emit(d, has_gpu_scope(d) ? exec_fence : exec_nothing);
    else if (strcmp(base, "nanosleep") == 0 || strcmp(base, "prefetch") == 0 ||
             strcmp(base, "prefetchu") == 0)
        emit(d, exec_nothing);
    else
        return false;
    return true;
}
