/* state.c -- see state.h. */
#include "runtime/state.h"

#include <string.h>

#include "runtime/comm_agree.h"

/* "adam.m" of "adam.m.h.0.w" whose variable belongs to "h.0.w"; the whole name when it does not end
 * so. */
static const char *slot_name(Arena *a, const char *name, const char *of)
{
    size_t n = strlen(name), m = strlen(of);
    if (n > m + 1 && name[n - m - 1] == '.' && strcmp(name + n - m, of) == 0)
        return arena_strndup(a, name, n - m - 1);
    return name;
}

int64_t elems_common(int64_t first, int64_t n, int64_t other, int64_t m, int64_t *from)
{
    int64_t end = first + n < other + m ? first + n : other + m;
    *from = first > other ? first : other;
    return end > *from ? end - *from : 0;
}

char *state_at(const StateTensor *t, int64_t element)
{
    return t->at + (element - t->first) * zmp_dtype_bytes(t->dtype);
}

static size_t held_bytes(const StateTensor *t)
{
    return (size_t)(t->n * zmp_dtype_bytes(t->dtype));
}

RtStatus state_fetch(const State *s, const StateTensor *t, RtError *e)
{
    if (!s->device) return RT_OK;
    device_fetch(s->device, t->at, held_bytes(t));
    return device_wait(s->device, e);
}

RtStatus state_put(const State *s, const StateTensor *t, RtError *e)
{
    if (!s->device) return RT_OK;
    device_put(s->device, t->at, held_bytes(t));
    state_forget(s, t);
    return device_wait(s->device, e);
}

void state_forget(const State *s, const StateTensor *t)
{
    if (s->device && t->kind != ZMP_SCALAR) device_forget(s->device, t->at, held_bytes(t));
}

/* The variable that holds v's elements, and where they start in all of it. */
static const ZmpVar *storage_of(const Program *p, const ZmpVar *v, int64_t *offset)
{
    *offset = v->in >= 0 ? v->in_offset : 0;
    return v->in >= 0 ? &p->vars[v->in] : v;
}

/* The tensor `prefix/path`, of shape->elems elements that start at `offset` of `storage`. */
static void add(State *s, Arena *a, const Exec *x, const char *prefix, const char *path,
                const ZmpVar *shape, const ZmpVar *storage, int64_t offset)
{
    StateTensor t = {.name = arena_printf(a, "%s/%s", prefix, path),
                     .path = path,
                     .shape = shape,
                     .kind = storage->kind,
                     .dtype = storage->dtype,
                     .is_replicated = !storage->is_sharded,
                     .n = shape->elems};
    int64_t each = zmp_dtype_bytes(t.dtype), at = offset;
    if (storage->is_sharded) {
        int64_t part = exec_rank(x) * storage->elems;
        t.n = elems_common(offset, shape->elems, part, storage->elems, &at);
        t.first = t.n ? at - offset : 0;
        at = t.n ? at - part : 0;
    }
    t.at = exec_var(x, storage) + at * each;
    t.own_first = t.first;
    t.own_n = t.n;
    s->most_bytes += shape->elems * each;
    VEC_PUSH(a, &s->all, t);
}

static void add_var(State *s, Arena *a, const Exec *x, const char *prefix, const ZmpVar *shape,
                    const ZmpVar *v)
{
    int64_t offset;
    const ZmpVar *storage = storage_of(x->p, v, &offset);
    add(s, a, x, prefix, program_str(x->p, shape->name), shape, storage, offset);
}

static bool has_views(const Program *p, int32_t var)
{
    for (uint32_t i = 0; i < p->n_vars; i++)
        if (p->vars[i].in == var && p->vars[i].of >= 0) return true;
    return false;
}

/* A moment or master: of one parameter, or of a bucket of them, whose views then give the pieces.
 */
static void add_companion(State *s, Arena *a, const Exec *x, const ZmpVar *v)
{
    const Program *p = x->p;
    const char *name = program_str(p, v->name);
    const ZmpVar *of = v->of >= 0 ? &p->vars[v->of] : NULL;
    const char *prefix = "master";
    if (v->kind == ZMP_MOMENT)
        prefix = of ? arena_printf(a, "moment/%s", slot_name(a, name, program_str(p, of->name)))
                    : "moment";
    if (!of || !of->is_bucket) {
        add_var(s, a, x, prefix, of ? of : v, v);
        return;
    }
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *param = &p->vars[i];
        if (param->kind != ZMP_PARAM || param->is_bucket || param->in != v->of) continue;
        add(s, a, x, prefix, program_str(p, param->name), param, v, param->in_offset);
    }
}

/* How many of t's elements, which start at byte `at` of what is cut, begin before byte `cut`. */
static int64_t elems_before(const StateTensor *t, int64_t at, int64_t cut)
{
    int64_t each = zmp_dtype_bytes(t->dtype), n = (cut - at + each - 1) / each;
    return cut <= at ? 0 : n < t->n ? n : t->n;
}

/* Who writes what of the tensors that every rank holds. */
static void cut_replicated(State *s, int rank, int ranks)
{
    int64_t total = 0, at = 0, first;
    for (uint32_t i = 0; i < s->all.n; i++)
        if (s->all.at[i].is_replicated)
            total += s->all.at[i].n * zmp_dtype_bytes(s->all.at[i].dtype);
    int64_t end = comm_shard(total, rank, ranks, &first) + first;
    for (uint32_t i = 0; i < s->all.n; i++) {
        StateTensor *t = &s->all.at[i];
        if (!t->is_replicated) continue;
        t->own_first = elems_before(t, at, first);
        t->own_n = elems_before(t, at, end) - t->own_first;
        at += t->n * zmp_dtype_bytes(t->dtype);
    }
}

static bool is_of_process(const char *name)
{
    return strcmp(name, ZMP_S_STOP) == 0 || strcmp(name, ZMP_S_STOPS) == 0;
}

void state_list(State *s, Arena *a, const Exec *x)
{
    const Program *p = x->p;
    s->comm = x->comm;
    s->device = x->device;
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        switch ((enum ZmpVarKind)v->kind) {
        case ZMP_PARAM:
            if (!v->is_bucket) add_var(s, a, x, "param", v, v);
            break;
        case ZMP_MASTER:
        case ZMP_MOMENT:
            if (!has_views(p, (int32_t)i)) add_companion(s, a, x, v);
            break;
        case ZMP_SCALAR:
            if (!is_of_process(program_str(p, v->name))) add_var(s, a, x, "scalar", v, v);
            break;
        case ZMP_GRAD: break;
        }
    }
    cut_replicated(s, exec_rank(x), comm_size_or_1(s->comm));
}

const StateTensor *state_find(const State *s, const char *name)
{
    for (uint32_t i = 0; i < s->all.n; i++)
        if (strcmp(s->all.at[i].name, name) == 0) return &s->all.at[i];
    return NULL;
}

const char *shape_text(Arena *a, uint32_t rank, const int64_t *dim)
{
    char *text = arena_strdup(a, "[");
    for (uint32_t i = 0; i < rank; i++)
        text = arena_printf(a, "%s%s%lld", text, i ? ", " : "", (long long)dim[i]);
    return arena_printf(a, "%s]", text);
}
