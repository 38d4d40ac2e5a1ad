/* rt_parts.h -- programs made by hand that hold the same parameters in buckets of any layout, rank
 * count and stage of ZeRO; for tests of the state.  They compute nothing: what a tensor holds is a
 * function of its name and the element. */
#ifndef RT_PARTS_H
#define RT_PARTS_H

#include "ir/base/arena.h"
#include "runtime/state.h"
#include "tests/unit/rt_ranks.h"

enum { PARTS_BUCKETS = 2 };

typedef struct Param {
    const char *name;
    uint32_t rank, init;
    int64_t dim[2];
} Param;

typedef struct Layout { /* what a program differs by */
    int ranks, stage;
    uint32_t low;     /* ZMP_BF16, ZMP_F16: parameters with f32 masters; 0: f32 */
    int64_t unit;     /* a bucket's size is a multiple of ranks * unit */
    bool is_reversed; /* order of the parameters in the buckets */
    bool keeps_last;  /* the last bucket's parameters stay whole on every rank at stage 3 */
    bool has_views;   /* moments have a variable for each parameter */
} Layout;

typedef struct Parts {
    Layout layout;
    Arena arena;
    Str strings;
    ZmpHeader header;
    VEC(ZmpVar) vars;
    VEC(ZmpBuffer) buffers;
    VEC(ZmpArg) args;
    VEC(ZmpCommand) commands;
    ZmpFunc last;
    Program p;
} Parts;

static inline uint32_t parts_str(Parts *t, const char *text)
{
    uint32_t at = (uint32_t)t->strings.n;
    str_add_n(&t->strings, text, strlen(text) + 1);
    return at;
}

static inline int32_t parts_var(Parts *t, const char *name, uint32_t kind, uint32_t dtype,
                                int64_t elems, bool is_sharded, int32_t of)
{
    ZmpVar v = {.name = parts_str(t, name), .kind = kind, .dtype = dtype, .of = of, .in = -1};
    v.elems = v.dim[0] = is_sharded ? elems / t->layout.ranks : elems;
    v.rank = elems > 1;
    v.is_bucket = elems > 1;
    v.is_sharded = is_sharded;
    v.arena_offset = (int64_t)t->header.arena_bytes;
    v.buffer = (int32_t)t->buffers.n;
    ZmpBuffer b = {.name = v.name, .func = -1, .arena_offset = v.arena_offset};
    b.bytes = v.elems * zmp_dtype_bytes(dtype);
    t->header.arena_bytes += (uint64_t)(b.bytes + 63) / 64 * 64;
    VEC_PUSH(&t->arena, &t->buffers, b);
    VEC_PUSH(&t->arena, &t->vars, v);
    return (int32_t)t->vars.n - 1;
}

/* `shape`'s view of variable `in`. */
static inline int32_t parts_view(Parts *t, const char *prefix, const Param *shape, int32_t in,
                                 int64_t offset, int32_t of)
{
    ZmpVar v = t->vars.at[in];
    v.name = parts_str(t, arena_printf(&t->arena, "%s%s", prefix, shape->name));
    v.is_bucket = v.is_sharded = 0;
    v.in = in;
    v.of = of;
    v.in_offset = offset;
    if (!t->vars.at[in].is_sharded) v.arena_offset += offset * zmp_dtype_bytes(v.dtype);
    v.init = shape->init;
    v.init_a = 0.5;
    v.rank = shape->rank;
    memcpy(v.dim, shape->dim, sizeof shape->dim);
    v.elems = shape->dim[0] * (shape->rank == 2 ? shape->dim[1] : 1);
    VEC_PUSH(&t->arena, &t->vars, v);
    return (int32_t)t->vars.n - 1;
}

static inline int64_t parts_elems(const Param *p)
{
    return p->dim[0] * (p->rank == 2 ? p->dim[1] : 1);
}

/* A bucket of params[from ... end) with its masters and moments, and a probe of its gradient. */
static inline void parts_bucket(Parts *t, int k, const Param *params, int from, int end)
{
    const Layout *l = &t->layout;
    int64_t offset[16], at = 0, unit = l->unit * l->ranks;
    for (int i = 0; i < end - from; i++) {
        int pick = l->is_reversed ? end - from - 1 - i : i;
        offset[pick] = at;
        at += parts_elems(&params[from + pick]);
    }
    int64_t size = (at + unit - 1) / unit * unit;
    bool is_kept = l->keeps_last && k == PARTS_BUCKETS - 1;
    char name[64];
#define NAMED(FMT) (snprintf(name, sizeof name, FMT, k), name)
    int32_t bucket = parts_var(t, NAMED("bucket.%d"), ZMP_PARAM, l->low ? l->low : ZMP_F32, size,
                               l->stage == 3 && !is_kept, -1);
    int32_t first = (int32_t)t->vars.n, m;
    for (int i = from; i < end; i++) parts_view(t, "", &params[i], bucket, offset[i - from], -1);
    if (l->low)
        parts_var(t, NAMED("master.bucket.%d"), ZMP_MASTER, ZMP_F32, size, l->stage > 0, bucket);
    m = parts_var(t, NAMED("adam.m.bucket.%d"), ZMP_MOMENT, ZMP_F32, size, l->stage > 0, bucket);
    for (int i = from; i < end && l->has_views; i++)
        parts_view(t, "adam.m.", &params[i], m, offset[i - from], first + i - from);
    parts_var(t, NAMED("adam.v.bucket.%d"), ZMP_MOMENT, ZMP_F32, size, l->stage > 0, bucket);
    int32_t g =
        parts_var(t, NAMED("grad.bucket.%d"), ZMP_GRAD, ZMP_F32, size, l->ranks > 1, bucket);
#undef NAMED
    ZmpArg arg = {.buffer = t->vars.at[g].buffer,
                  .dtype = ZMP_F32,
                  .name = t->vars.at[bucket].name,
                  .bytes = t->buffers.at[t->vars.at[g].buffer].bytes};
    VEC_PUSH(&t->arena, &t->args, arg);
}

static inline void parts_build(Parts *t, const Layout *l, const Param *params, int n)
{
    *t = (Parts){.layout = *l};
    parts_str(t, "");
    int half = n / 2;
    parts_bucket(t, 0, params, 0, half);
    parts_bucket(t, 1, params, half, n);
    parts_var(t, ZMP_S_STEP, ZMP_SCALAR, ZMP_I32, 1, false, -1);
    parts_var(t, ZMP_S_LOSS, ZMP_SCALAR, ZMP_F64, 1, false, -1);
    parts_var(t, ZMP_S_STOP, ZMP_SCALAR, ZMP_F64, 1, false, -1);
    int32_t factor = parts_var(t, ZMP_S_SCALE, ZMP_SCALAR, ZMP_F32, 1, false, -1);
    ZmpArg arg = {.buffer = t->vars.at[factor].buffer, .dtype = ZMP_F32, .bytes = 4};
    VEC_PUSH(&t->arena, &t->args, arg);
    ZmpCommand probe = {.kind = ZMP_PROBE, .n_args = t->args.n};
    VEC_PUSH(&t->arena, &t->commands, probe);
    t->last = (ZmpFunc){.n_commands = 1};
    t->header.magic = ZMP_MAGIC;
    t->header.version = ZMP_VERSION;
    t->header.ranks = (uint32_t)l->ranks;
    t->header.accumulate = 1;
    t->header.batch = t->header.items = 1;
    t->header.model = parts_str(t, "parts");
    t->header.precision = parts_str(t, l->low == ZMP_BF16  ? "bf16"
                                       : l->low == ZMP_F16 ? "fp16"
                                                           : "fp32");
    t->p = (Program){.h = &t->header,
                     .strings = str_c(&t->strings),
                     .vars = t->vars.at,
                     .buffers = t->buffers.at,
                     .args = t->args.at,
                     .commands = t->commands.at,
                     .funcs = &t->last,
                     .last = &t->last,
                     .n_vars = t->vars.n,
                     .n_buffers = t->buffers.n,
                     .n_args = t->args.n,
                     .n_commands = t->commands.n,
                     .n_funcs = 1};
}

static inline void parts_free(Parts *t)
{
    arena_free(&t->arena);
    str_free(&t->strings);
    *t = (Parts){0};
}

/* ---- what tensors hold ---- */

/* Finite numbers that differ, so that conversions are exact to compare. */
static inline float parts_value(const char *tensor, int64_t element)
{
    uint64_t x = hash_bytes(tensor, strlen(tensor), 1) + (uint64_t)element * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
    return (float)(int32_t)(x >> 32) / 0x1p24f;
}

/* One element in the tensor's dtype. */
static inline void parts_element(char *to, const StateTensor *t, int64_t element)
{
    if (t->kind == ZMP_SCALAR)
        scalar_set(to, t->dtype, (double)(int32_t)(parts_value(t->name, element) * 100));
    else
        scalar_set(to, t->dtype, (double)parts_value(t->name, element));
}

static inline void parts_fill(const State *s)
{
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        for (int64_t k = t->first; k < t->first + t->n; k++) parts_element(state_at(t, k), t, k);
    }
}

/* Everything that this rank holds is what parts_fill would have put there. */
static inline void parts_check(const State *s)
{
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        size_t each = (size_t)zmp_dtype_bytes(t->dtype);
        for (int64_t k = t->first; k < t->first + t->n; k++) {
            char want[8];
            parts_element(want, t, k);
            if (memcmp(want, state_at(t, k), each) != 0) {
                fprintf(stderr, "%s[%lld] of rank %d differs\n", t->name, (long long)k,
                        comm_rank_or_0(s->comm));
                CHECK(!"as it was");
            }
        }
    }
}

/* A rank's executor and state over the program; open until parts_leave. */
typedef struct OnParts {
    Pool *pool;
    Exec x;
    State s;
    Arena arena;
} OnParts;

static inline void parts_enter(OnParts *o, const Parts *t, Comm *c)
{
    RtError e = {0};
    *o = (OnParts){0};
    CHECK(pool_new(&o->pool, 1, 0, &e) == RT_OK);
    CHECK(exec_open_rank(&o->x, &t->p, o->pool, 0, c, &e) == RT_OK);
    state_list(&o->s, &o->arena, &o->x);
}

static inline void parts_leave(OnParts *o)
{
    exec_close(&o->x);
    pool_free(o->pool);
    arena_free(&o->arena);
}

#endif
