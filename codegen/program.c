/* program.c -- a planned module as the tables that the runtime reads (ir/base/program.h). */
#include "codegen/program.h"
#include "passes/collective.h"

#include <stdlib.h>
#include <string.h>

/* ---- strings ---- */

uint32_t program_string(Program *p, const char *s)
{
    if (!s || !*s) return 0;
    size_t n = strlen(s) + 1;
    uint64_t key = hash_bytes(s, n, 0);
    uint32_t at = map_get(&p->string_at, key);
    if (at != MAP_NONE && strcmp(p->strings.at + at, s) == 0) return at;
    at = p->strings.n;
    VEC_RESERVE(p->a, &p->strings, p->strings.n + (uint32_t)n);
    memcpy(p->strings.at + at, s, n);
    p->strings.n += (uint32_t)n;
    map_put(&p->string_at, key, at);
    return at;
}

uint32_t program_loc(Program *p, LocId loc)
{
    if (!loc_ok(loc)) return 0;
    SrcPos pos = loc_pos(p->m, loc);
    if (pos.line == 0 || pos.source >= p->m->sources->all.n) return 0;
    char text[512];
    snprintf(text, sizeof text, "%s:%u:%u", p->m->sources->all.at[pos.source].name, pos.line,
             pos.col);
    return program_string(p, text);
}

/* ---- module ---- */

static void copy_dims(int64_t *to, const Type *t)
{
    for (int i = 0; i < t->rank; i++) to[i] = t->dim[i];
}

static void add_vars(Program *p)
{
    const Module *m = p->m;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        ZmpVar z = {.name = program_string(p, v->name), .loc = program_loc(p, v->loc)};
        z.kind = (uint32_t)v->kind;
        z.dtype = (uint32_t)v->type->dtype;
        z.init = (uint32_t)v->init;
        z.rank = (uint32_t)v->type->rank;
        z.has_decay = v->has_decay;
        z.is_bucket = v->is_bucket;
        z.in = (int32_t)v->in.i - 1;
        z.of = (int32_t)v->of.i - 1;
        z.in_offset = v->in_offset;
        copy_dims(z.dim, v->type);
        z.elems = type_elems(v->type);
        z.init_a = v->init_a;
        z.arena_offset = v->place.offset;
        z.buffer = p->var_buffer[i];
        z.is_partial = v->type->partial != 0;
        for (int d = 0; d < v->type->rank; d++) z.is_sharded |= v->type->axis[d] != MESH_NONE;
        int64_t at;
        const Var *own = var_cget(m, var_storage(m, (VarId){i}, &at));
        if (own != v && type_is_placed(own->type)) z.arena_offset = own->place.offset;
        VEC_PUSH(p->a, &p->vars, z);
        if (v->kind == VK_PARAM && !v->is_bucket) p->header.n_params += z.elems;
    }
}

static void add_feeds(Program *p)
{
    const Module *m = p->m;
    for (uint32_t i = 0; i < m->feeds.n; i++) {
        const Feed *f = &m->feeds.at[i];
        ZmpFeed z = {.input = program_string(p, f->input), .kind = (uint32_t)f->kind};
        z.bound = f->bound;
        z.ignore = f->ignore;
        z.has_ignore = f->has_ignore;
        VEC_PUSH(p->a, &p->feeds, z);
    }
    for (uint32_t i = 0; i < m->weight_rules.n; i++) {
        const WeightRule *r = &m->weight_rules.at[i];
        ZmpWeightRule z = {.kind = (uint32_t)r->kind};
        z.from = program_string(p, r->from);
        z.to = program_string(p, r->to);
        VEC_PUSH(p->a, &p->weight_rules, z);
    }
}

static void add_kernels(Program *p, const KernelSet *set, const KernelCode *code)
{
    uint32_t n_fns = 0;
    for (uint32_t i = 0; i < set->kernels.n; i++) {
        ZmpKernel z = {.name = program_string(p, set->kernels.at[i]->label), .first_fn = n_fns};
        if (code) {
            z.n_phases = code[i].n_phases;
            z.flags = code[i].flags;
            z.entry = program_string(p, code[i].entry);
            z.module = code[i].module;
            z.block_x = code[i].block_x;
            z.block_y = code[i].block_y;
            z.grid_x = code[i].grid_x;
            z.shared_bytes = code[i].shared_bytes;
            memcpy(z.n_tasks, code[i].n_tasks, sizeof z.n_tasks);
            memcpy(z.task_cost, code[i].task_cost, sizeof z.task_cost);
            if (code[i].scratch_bytes > (int64_t)p->header.scratch_bytes)
                p->header.scratch_bytes = (uint64_t)code[i].scratch_bytes;
        }
        n_fns += z.n_phases;
        VEC_PUSH(p->a, &p->kernels, z);
    }
}

/* ---- functions ---- */

typedef struct FuncBuild {
    Program *p;
    const Func *f;
    uint32_t index; /* in Module.funcs */
    const KernelSet *set;
    const KernelCode *code;
    FuncBuffers b;
    uint32_t *collective; /* by ValueId.i of an async collective's result */
} FuncBuild;

static ZmpArg *add_arg(FuncBuild *x, int32_t buffer, int64_t at, int64_t bytes, DType dt,
                       uint32_t flags, const char *name)
{
    Program *p = x->p;
    ZM_CHECK(buffer >= 0);
    ZmpArg z = {.buffer = buffer, .flags = flags, .bytes = bytes, .dtype = (uint32_t)dt};
    z.offset = at - p->buffers.at[buffer].arena_offset;
    z.name = program_string(p, name);
    VEC_PUSH(p->a, &p->args, z);
    return &p->args.at[p->args.n - 1];
}

static void add_value_arg(FuncBuild *x, ValueId v, uint32_t flags, const char *name)
{
    const Value *val = value_cget(x->f, v);
    if (!name) name = val->name ? val->name : arena_printf(x->p->a, "%%%u", v.i);
    add_arg(x, x->b.buffer_of[v.i], val->place.offset, val->place.bytes, val->type->dtype, flags,
            name)
        ->rank_stride = value_rank_stride(x->f, v);
}

/* The last argument is what the kernel reads of its value. */
static void cut_arg(const FuncBuild *x, const KernelArg *arg, int64_t first)
{
    ZmpArg *z = &x->p->args.at[x->p->args.n - 1];
    int64_t elem = dtype_bytes(arg->dtype);
    ZM_CHECK((first + arg->elems) * elem <= z->bytes);
    z->offset += first * elem;
    z->bytes = arg->elems * elem;
}

/* The values of a kernel's last argument, which no buffer holds. */
static void add_const_arg(FuncBuild *x, const Kernel *k, const int32_t *values)
{
    Program *p = x->p;
    ZmpArg z = {.buffer = -1, .flags = ZMP_ARG_READ, .dtype = ZMP_I32};
    z.offset = (int64_t)(p->consts.n * sizeof *values);
    z.bytes = (int64_t)(k->n_consts * sizeof *values);
    z.name = program_string(p, "constants");
    for (uint32_t i = 0; i < k->n_consts; i++) VEC_PUSH(p->a, &p->consts, values[i]);
    if (k->n_consts) VEC_PUSH(p->a, &p->args, z);
}

static ZmpCommand *add_command(FuncBuild *x, enum ZmpCommandKind kind, const Op *op,
                               const char *label)
{
    Program *p = x->p;
    ZmpCommand z = {.kind = (uint32_t)kind, .first_arg = p->args.n};
    z.label = program_string(p, label);
    z.loc = program_loc(p, op->loc);
    VEC_PUSH(p->a, &p->commands, z);
    return &p->commands.at[p->commands.n - 1];
}

static void end_command(FuncBuild *x)
{
    ZmpCommand *c = &x->p->commands.at[x->p->commands.n - 1];
    c->n_args = x->p->args.n - c->first_arg;
}

/* The plan lays a result over an operand only where the kernel form allows it, which is decided
 * apart from the plan (passes/memory/alias.c). */
static void check_shared_memory(const FuncBuild *x, const Kernel *k, const Op *op, uint32_t n_in)
{
    for (uint32_t r = 0; r < op->n_out; r++)
        for (uint32_t i = 0; i < n_in; i++) {
            const Place *out = &value_cget(x->f, op->out[r])->place,
                        *in = &value_cget(x->f, op->in[i])->place;
            if (out->offset < in->offset + in->bytes && in->offset < out->offset + out->bytes)
                ZM_CHECK(kernel_may_share(k, n_in + r, i));
        }
}

static Status add_kernel(FuncBuild *x, OpId id, const Op *op)
{
    const KernelUse *use = kernel_set_use(x->set, x->index, id);
    ZM_CHECK(use != NULL);
    ZmpCommand *c = add_command(x, ZMP_KERNEL, op, use->label);
    c->kernel = use->kernel;
    c->flops = use->flops;
    c->bytes = use->bytes;
    ValueId workspace = op_workspace(x->f, op);
    uint32_t n_in = op->n_in - (value_ok(workspace) ? 1 : 0);
    const Kernel *k = x->set->kernels.at[use->kernel];
    check_shared_memory(x, k, op, n_in);
    for (uint32_t i = 0; i < n_in; i++) {
        add_value_arg(x, op->in[i], ZMP_ARG_READ, NULL);
        cut_arg(x, &k->args[i], use->first[i]);
    }
    for (uint32_t i = 0; i < op->n_out; i++) add_value_arg(x, op->out[i], ZMP_ARG_WRITE, NULL);
    add_const_arg(x, k, use->consts);
    int64_t needs = x->code ? x->code[use->kernel].workspace_bytes : 0;
    if (needs > 0 && (!value_ok(workspace) || value_cget(x->f, workspace)->place.bytes < needs))
        return diag_error(x->p->m->diag, loc_pos(x->p->m, op->loc), E_CODEGEN,
                          "the plan has no workspace of %lld bytes for kernel %s: run pass "
                          "workspace before memplan, for the same target",
                          (long long)needs, use->label);
    if (value_ok(workspace)) add_value_arg(x, workspace, ZMP_ARG_WRITE, "workspace");
    end_command(x);
    return ZM_OK;
}

/* A variable's new value that was not made in its place. */
static void add_write(FuncBuild *x, const Op *op)
{
    VarId id = var_find(x->p->m, attr_str(op->attrs, AT_VAR));
    const Var *v = var_cget(x->p->m, id);
    if (value_cget(x->f, op->in[0])->place.offset == v->place.offset) return;
    add_command(x, ZMP_COPY, op, "write")->bytes = 2 * (double)v->place.bytes;
    add_arg(x, x->p->var_buffer[id.i], v->place.offset, v->place.bytes, v->type->dtype,
            ZMP_ARG_WRITE, v->name);
    add_value_arg(x, op->in[0], ZMP_ARG_READ, NULL);
    end_command(x);
}

/* What a pack still has to do at run time, in elements: zero a gap (operand none) or copy an
 * operand that was not made in place. */
typedef struct PackPiece {
    int64_t from, to;
    ValueId operand;
} PackPiece;

typedef struct PackStart {
    int64_t at;
    ValueId operand;
} PackStart;

static int lower_start(const void *x, const void *y)
{
    const PackStart *a = x, *b = y;
    return a->at < b->at ? -1 : a->at > b->at;
}

static uint32_t pack_pieces(Arena *a, const Func *f, const Op *op, PackPiece **pieces)
{
    const Value *whole = value_cget(f, op->out[0]);
    const Attr *starts = attrs_find(op->attrs, AT_STARTS);
    int64_t elem = dtype_bytes(whole->type->dtype), covered = 0;
    PackStart *order = ARENA_ARRAY(a, PackStart, op->n_in + 1);
    for (uint32_t i = 0; i < op->n_in; i++)
        order[i] = (PackStart){starts->as.list.at[i], op->in[i]};
    qsort(order, op->n_in, sizeof *order, lower_start);
    *pieces = ARENA_ARRAY(a, PackPiece, 2 * op->n_in + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < op->n_in; i++) {
        const Value *v = value_cget(f, order[i].operand);
        int64_t at = order[i].at, end = at + type_elems(v->type);
        if (at > covered) (*pieces)[n++] = (PackPiece){.from = covered, .to = at};
        if (v->place.offset != whole->place.offset + at * elem)
            (*pieces)[n++] = (PackPiece){at, end, order[i].operand};
        covered = end;
    }
    int64_t elems = type_elems(whole->type);
    if (elems > covered) (*pieces)[n++] = (PackPiece){.from = covered, .to = elems};
    return n;
}

static void add_pack(FuncBuild *x, const Op *op)
{
    const Value *whole = value_cget(x->f, op->out[0]);
    DType dt = whole->type->dtype;
    PackPiece *pieces;
    uint32_t n = pack_pieces(x->p->a, x->f, op, &pieces);
    for (uint32_t i = 0; i < n; i++) {
        int64_t from = pieces[i].from * dtype_bytes(dt), to = pieces[i].to * dtype_bytes(dt);
        bool is_copy = value_ok(pieces[i].operand);
        add_command(x, is_copy ? ZMP_COPY : ZMP_ZERO, op, "pack")->bytes =
            (double)(to - from) * (is_copy ? 2 : 1);
        add_arg(x, x->b.buffer_of[op->out[0].i], whole->place.offset + from, to - from, dt,
                ZMP_ARG_WRITE, "pack");
        if (is_copy) add_value_arg(x, pieces[i].operand, ZMP_ARG_READ, NULL);
        end_command(x);
    }
}

/* Entry i of a comma-separated list; NULL behind its end. */
static const char *list_entry(Arena *a, const char *list, uint32_t i)
{
    if (!list) return NULL;
    for (; i > 0; i--) {
        list = strchr(list, ',');
        if (!list) return NULL;
        list++;
    }
    return arena_strndup(a, list, strcspn(list, ","));
}

static void add_probe(FuncBuild *x, const Op *op)
{
    const char *names = attr_str(op->attrs, AT_NAMES);
    add_command(x, ZMP_PROBE, op, "probe");
    for (uint32_t i = 0; i < op->n_in; i++)
        add_value_arg(x, op->in[i], ZMP_ARG_READ, list_entry(x->p->a, names, i));
    end_command(x);
}

/* The result belongs to the collective from start to wait, as the operand does. */
static Status add_collective(FuncBuild *x, OpId id, const Op *op)
{
    Program *p = x->p;
    uint32_t index;
    ZM_TRY(program_collective(p, x->index, id, &index));
    x->collective[op->out[0].i] = index;
    const ZmpCollective *k = &p->collectives.at[index];
    const char *label =
        arena_printf(p->a, "%s of %s", op_info(op->code)->name, p->strings.at + k->tensor);
    double whole = (double)(k->count * dtype_bytes((DType)k->dtype)), n = p->header.ranks;
    ZmpCommand *c = add_command(x, ZMP_START, op, label);
    c->kernel = index;
    c->bytes = whole * (n - 1) / n * (k->kind == ZMP_ALL_REDUCE ? 2 : 1);
    add_value_arg(x, op->out[0], ZMP_ARG_WRITE, NULL);
    add_value_arg(x, op->in[0], ZMP_ARG_READ, NULL);
    end_command(x);
    return ZM_OK;
}

static void add_wait(FuncBuild *x, const Op *op)
{
    Program *p = x->p;
    uint32_t index = x->collective[op->in[0].i];
    const ZmpCollective *k = &p->collectives.at[index];
    const Op *start = op_cget(x->f, value_cget(x->f, op->in[0])->def);
    const char *label =
        arena_printf(p->a, "wait: %s of %s", op_info(start->code)->name, p->strings.at + k->tensor);
    add_command(x, ZMP_WAIT, op, label)->kernel = index;
    add_value_arg(x, op->in[0], ZMP_ARG_WRITE, NULL);
    add_value_arg(x, op->in[1], ZMP_ARG_READ, NULL);
    end_command(x);
}

static bool is_in_place(const Func *f, const Op *op)
{
    const Place *in = &value_cget(f, op->in[0])->place, *out = &value_cget(f, op->out[0])->place;
    return out->offset >= in->offset && out->offset + out->bytes <= in->offset + in->bytes;
}

static Status add_op(FuncBuild *x, OpId id)
{
    const Op *op = op_cget(x->f, id);
    if (op->code == OP_FUSED) return add_kernel(x, id, op);
    if (op->code == OP_WRITE)
        add_write(x, op);
    else if (op->code == OP_PACK)
        add_pack(x, op);
    else if (op->code == OP_PROBE)
        add_probe(x, op);
    else if (op_is_collective(op->code))
        return add_collective(x, id, op);
    else if (op->code == OP_WAIT)
        add_wait(x, op);
    else if (op->code == OP_RESHAPE || op->code == OP_SLICE || op->code == OP_AFTER ||
             op->code == OP_SHARD) {
        if (!is_in_place(x->f, op))
            return diag_error(x->p->m->diag, loc_pos(x->p->m, op->loc), E_CODEGEN,
                              "%s outside a kernel is not a view of its operand's bytes",
                              op_info(op->code)->name);
    } else if (op->code != OP_READ && op->code != OP_WORKSPACE && op->code != OP_RETURN)
        return diag_error(x->p->m->diag, loc_pos(x->p->m, op->loc), E_CODEGEN,
                          "%s is not part of a kernel: run pass fuse first",
                          op_info(op->code)->name);
    return ZM_OK;
}

/* Commands that an op becomes. */
static uint32_t count_commands(const Program *p, const Func *f, const Op *op)
{
    if (op->code == OP_FUSED || op->code == OP_PROBE || op->code == OP_WAIT ||
        op_is_collective(op->code))
        return 1;
    if (op->code == OP_WRITE) {
        const Var *v = var_cget(p->m, var_find(p->m, attr_str(op->attrs, AT_VAR)));
        return value_cget(f, op->in[0])->place.offset != v->place.offset;
    }
    PackPiece *pieces;
    return op->code == OP_PACK ? pack_pieces(p->a, f, op, &pieces) : 0;
}

static void add_port(FuncBuild *x, ValueId v, const char *name)
{
    const Value *val = value_cget(x->f, v);
    Program *p = x->p;
    ZmpPort z = {.name = program_string(p, name), .dtype = (uint32_t)val->type->dtype};
    z.rank = (uint32_t)val->type->rank;
    z.buffer = x->b.buffer_of[v.i];
    ZM_CHECK(z.buffer >= 0);
    z.offset = val->place.offset - p->buffers.at[z.buffer].arena_offset;
    copy_dims(z.dim, val->type);
    VEC_PUSH(p->a, &p->ports, z);
}

static void add_ports(FuncBuild *x, ZmpFunc *z)
{
    Program *p = x->p;
    z->first_in = p->ports.n;
    for (uint32_t i = 0; i < x->f->params.n; i++)
        add_port(x, x->f->params.at[i], value_cget(x->f, x->f->params.at[i])->name);
    z->n_in = p->ports.n - z->first_in;
    z->first_out = p->ports.n;
    const Op *ret = op_cget(x->f, x->f->last);
    const char *names = attr_str(ret->attrs, AT_NAMES);
    for (uint32_t i = 0; i < ret->n_in; i++) add_port(x, ret->in[i], list_entry(p->a, names, i));
    z->n_out = p->ports.n - z->first_out;
}

static Status add_func(FuncBuild *x)
{
    Program *p = x->p;
    uint32_t n_ops = func_n_ops(x->f), pos = 0;
    uint32_t *command_at = ARENA_ARRAY(p->a, uint32_t, n_ops + 1);
    FOR_OPS(x->f, op)
    {
        command_at[pos + 1] = command_at[pos] + count_commands(p, x->f, op_cget(x->f, op));
        pos++;
    }
    x->b = program_buffers(p, x->index, command_at, n_ops);
    x->collective = ARENA_ARRAY(p->a, uint32_t, x->f->values.n);
    ZmpFunc z = {.name = program_string(p, x->f->name), .first_command = p->commands.n};
    FOR_OPS(x->f, op) ZM_TRY(add_op(x, op));
    z.n_commands = p->commands.n - z.first_command;
    ZM_CHECK(z.n_commands == command_at[n_ops]);
    z.peak_live = (int64_t)p->header.persistent_bytes + x->b.peak_live;
    add_ports(x, &z);
    VEC_PUSH(p->a, &p->funcs, z);
    return ZM_OK;
}

Status program_build(Arena *a, const Module *m, const KernelSet *set, const KernelCode *code,
                     const ProgramInfo *info, Program *out)
{
    *out = (Program){.a = a, .m = m, .string_at = {.arena = a}};
    VEC_PUSH(a, &out->strings, '\0');
    ZmpHeader *h = &out->header;
    h->magic = ZMP_MAGIC;
    h->version = ZMP_VERSION;
    h->corrupt_rate = m->corruption.rate;
    h->corrupt_span = m->corruption.span;
    const LossScale *scale = &m->train.scale;
    if (scale->is_dynamic && scale->rule == SCALE_DEEPSPEED) h->loss_scale_min = scale->min;
    h->corrupt_mask = m->corruption.mask;
    h->corrupt_eos = m->corruption.eos;
    h->corrupt_start = m->corruption.start;
    h->ranks = m->mesh[MESH_DATA] > 1 ? (uint32_t)m->mesh[MESH_DATA] : 1;
    h->zero_stage = (uint32_t)m->train.zero;
    h->accumulate = m->train.accumulate > 1 ? (uint32_t)m->train.accumulate : 1;
    h->arena_bytes = (uint64_t)m->arena_bytes;
    h->batch = m->batch;
    h->items = m->items;
    h->model = program_string(out, m->name);
    h->target = program_string(out, info->target);
    h->cpu = program_string(out, info->cpu);
    h->cpu_features = program_string(out, info->cpu_features);
    h->precision = program_string(out, info->precision);
    h->source = program_string(out, info->source);
    h->command_line = program_string(out, info->command_line);
    h->plan_text = program_string(out, info->plan_text);
    Str ir = {0};
    module_print(m, &ir);
    h->ir = program_string(out, str_c(&ir));
    str_free(&ir);
    program_var_buffers(out);
    add_vars(out);
    add_feeds(out);
    add_kernels(out, set, code);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        FuncBuild x = {.p = out, .f = m->funcs.at[i], .index = i, .set = set, .code = code};
        ZM_TRY(add_func(&x));
    }
    h->order_hash = program_order_hash(out);
    return ZM_OK;
}

/* ---- blob ---- */

typedef struct Section {
    ZmpRange *range;
    const void *at;
    uint64_t n;
    size_t entry_bytes;
} Section;

const char *program_blob(Program *p, size_t *n_bytes)
{
    ZmpHeader *h = &p->header;
#define SECTION(NAME) {&h->NAME, p->NAME.at, p->NAME.n, sizeof *p->NAME.at}
    const Section all[] = {
        SECTION(strings), SECTION(vars),         SECTION(buffers), SECTION(kernels),
        SECTION(args),    SECTION(commands),     SECTION(funcs),   SECTION(ports),
        SECTION(feeds),   SECTION(weight_rules), SECTION(consts),  SECTION(collectives),
        SECTION(modules),
    };
#undef SECTION
    size_t n_sections = sizeof all / sizeof *all, end = sizeof *h;
    for (size_t i = 0; i < n_sections; i++) {
        end = (end + 7) / 8 * 8;
        *all[i].range = (ZmpRange){end, all[i].n};
        end += all[i].n * all[i].entry_bytes;
    }
    char *blob = arena_alloc(p->a, end);
    for (size_t i = 0; i < n_sections; i++)
        if (all[i].n) memcpy(blob + all[i].range->offset, all[i].at, all[i].n * all[i].entry_bytes);
    h->hash = 0;
    h->hash = hash_bytes(blob + sizeof *h, end - sizeof *h, h->arena_bytes);
    memcpy(blob, h, sizeof *h);
    *n_bytes = end;
    return blob;
}
