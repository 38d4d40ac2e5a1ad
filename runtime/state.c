/* state.c -- see state.h. */
#include "runtime/state.h"

#include <string.h>

/* "adam.m" of "adam.m.h.0.w" whose variable belongs to "h.0.w"; the whole name when it does not end
 * so. */
static const char *slot_name(Arena *a, const char *name, const char *of)
{
    size_t n = strlen(name), m = strlen(of);
    if (n > m + 1 && name[n - m - 1] == '.' && strcmp(name + n - m, of) == 0)
        return arena_strndup(a, name, n - m - 1);
    return name;
}

static void add(State *s, Arena *a, const char *prefix, const char *path, const ZmpVar *shape,
                const ZmpVar *v, char *at)
{
    StateTensor t = {.name = arena_printf(a, "%s/%s", prefix, path),
                     .path = path,
                     .shape = shape,
                     .kind = v->kind,
                     .dtype = v->dtype,
                     .at = at};
    VEC_PUSH(a, &s->all, t);
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
        add(s, a, prefix, of ? program_str(p, of->name) : name, of ? of : v, v, exec_var(x, v));
        return;
    }
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *param = &p->vars[i];
        if (param->kind != ZMP_PARAM || param->is_bucket || param->in != v->of) continue;
        char *at = exec_var(x, v) + param->in_offset * zmp_dtype_bytes(v->dtype);
        add(s, a, prefix, program_str(p, param->name), param, v, at);
    }
}

void state_list(State *s, Arena *a, const Exec *x)
{
    const Program *p = x->p;
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        const char *name = program_str(p, v->name);
        switch ((enum ZmpVarKind)v->kind) {
        case ZMP_PARAM:
            if (!v->is_bucket) add(s, a, "param", name, v, v, exec_var(x, v));
            break;
        case ZMP_MASTER:
        case ZMP_MOMENT:
            if (!has_views(p, (int32_t)i)) add_companion(s, a, x, v);
            break;
        case ZMP_SCALAR: add(s, a, "scalar", name, v, v, exec_var(x, v)); break;
        case ZMP_GRAD: break;
        }
    }
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
