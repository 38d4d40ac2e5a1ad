/* tensors.c -- see tensors.h. */
#include "tools/zm-run/tensors.h"

#include <string.h>

#include "runtime/exec.h"
#include "runtime/init.h"
#include "runtime/safetensors.h"

_Static_assert((int)DT_I1 == ZMP_I1 && (int)DT_F64 == ZMP_F64, "one numbering of dtypes");

/* ---- variables without a file ---- */

void tensors_init_vars(Eval *e, uint64_t seed)
{
    Arena scratch = {0};
    for (uint32_t i = 1; i < e->m->vars.n; i++) {
        const Var *v = &e->m->vars.at[i];
        if (v->init != INIT_NORMAL && v->init != INIT_UNIFORM) continue;
        int64_t n = eval_var_elems(e, (VarId){i});
        float *draws = ARENA_ARRAY(&scratch, float, n);
        init_elements(draws, v->name, (uint32_t)v->init, v->init_a, seed, 0, n);
        double *at = eval_var(e, (VarId){i});
        for (int64_t k = 0; k < n; k++) at[k] = dtype_round(v->type->dtype, draws[k]);
    }
    for (uint32_t i = 1; i < e->m->vars.n; i++) {
        const Var *v = &e->m->vars.at[i];
        if (v->kind != VK_MASTER || !var_ok(v->of)) continue;
        memcpy(eval_var(e, (VarId){i}), eval_var(e, v->of),
               (size_t)eval_var_elems(e, (VarId){i}) * sizeof(double));
    }
    arena_free(&scratch);
}

/* ---- reading ---- */

static Status file_error(const RunTensors *t, const char *path, const char *fmt, const char *name,
                         const char *more)
{
    const char *text = arena_printf(t->e->arena, fmt, name, more);
    return diag_error(t->e->m->diag, (SrcPos){0}, E_FILE, "%s: %s", path, text);
}

static bool has_shape(const SafeTensor *s, const Type *t)
{
    bool is_same = (int)s->rank == t->rank;
    for (int i = 0; is_same && i < t->rank; i++) is_same = s->dim[i] == t->dim[i];
    return is_same;
}

static double element_of(const SafeTensor *s, int64_t i)
{
    if (safe_is_integer(s->dtype)) return (double)safe_integer(s, i);
    uint32_t dtype = safe_zmp_dtype(s->dtype);
    return scalar_get((const char *)s->at + i * safe_dtype_bytes(s->dtype), dtype);
}

static const Type *whole_type(const RunTensors *t, const Type *part)
{
    Type *whole = ARENA_NEW(t->e->arena, Type);
    *whole = type_whole(t->e->m, part);
    return whole;
}

/* Any number of the file becomes the variable's or parameter's dtype. */
static Status copy_tensor(const RunTensors *t, const char *path, const SafeTensor *s,
                          const Type *type, double *to)
{
    if (!has_shape(s, type) || s->dtype == SAFE_OTHER) {
        Str have = {0};
        for (uint32_t i = 0; i < s->rank; i++)
            str_addf(&have, "%s%lld", i ? "," : "", (long long)s->dim[i]);
        const char *text = arena_printf(t->e->arena, "%s[%s], not %s", s->dtype_text, str_c(&have),
                                        type_text(t->e->arena, type));
        str_free(&have);
        return file_error(t, path, "tensor '%s' is %s", s->name, text);
    }
    for (int64_t i = 0; i < s->elems; i++) to[i] = dtype_round(type->dtype, element_of(s, i));
    return ZM_OK;
}

static ValueId find_param(const Func *f, const char *name)
{
    for (uint32_t i = 0; i < f->params.n; i++) {
        const char *have = value_cget(f, f->params.at[i])->name;
        if (have && strcmp(have, name) == 0) return f->params.at[i];
    }
    return (ValueId){0};
}

static Status read_tensor(RunTensors *t, const char *path, const SafeTensor *s, bool is_view_turn)
{
    ValueId param = find_param(t->f, s->name);
    if (value_ok(param)) {
        EvalTensor *in = &t->in[value_cget(t->f, param)->index];
        if (is_view_turn || in->at) return ZM_OK;
        *in = eval_tensor(t->e->arena, whole_type(t, value_type(t->f, param)));
        return copy_tensor(t, path, s, in->type, in->at);
    }
    VarId v = var_find(t->e->m, *s->name == '@' ? s->name + 1 : s->name);
    if (!var_ok(v)) {
        if (is_view_turn) return ZM_OK;
        return file_error(t, path, "tensor '%s' is neither an input of @%s nor a variable", s->name,
                          t->f->name);
    }
    const Var *var = var_cget(t->e->m, v);
    if (var_ok(var->in) != is_view_turn) return ZM_OK;
    return copy_tensor(t, path, s, whole_type(t, var->type), eval_var(t->e, v));
}

static Status check_inputs(const RunTensors *t)
{
    Status all = ZM_OK;
    for (uint32_t i = 0; i < t->f->params.n; i++) {
        const Value *p = value_cget(t->f, t->f->params.at[i]);
        if (t->in[i].at) continue;
        all = diag_error(t->e->m->diag, (SrcPos){0}, E_FILE,
                         p->name ? "input '%s' of @%s, %s, is missing: give it in --inputs"
                                 : "input %s of @%s, %s, has no name to be given by",
                         p->name ? p->name : arena_printf(t->e->arena, "%u", i), t->f->name,
                         type_text(t->e->arena, whole_type(t, p->type)));
    }
    return all;
}

/* Buckets first, then the views in them, so that a view's own tensor wins. */
static Status read_all(RunTensors *t, const char *path, const SafeFile *file)
{
    Status all = ZM_OK;
    for (int turn = 0; turn < 2; turn++)
        for (uint32_t i = 0; i < file->all.n; i++)
            if (read_tensor(t, path, &file->all.at[i], turn == 1) != ZM_OK) all = ZM_FAIL;
    return all;
}

Status tensors_read(RunTensors *t, const char *path)
{
    if (!path) return check_inputs(t);
    SafeFile file = {0};
    RtError err = {0};
    Status all = ZM_OK;
    if (safe_open(&file, t->e->arena, path, &err) != RT_OK) {
        all = diag_error(t->e->m->diag, (SrcPos){0}, E_FILE, "%s", str_c(&err.text));
    } else {
        Status read = read_all(t, path, &file);
        all = check_inputs(t) == ZM_OK ? read : ZM_FAIL;
        safe_close(&file);
    }
    str_free(&err.text);
    return all;
}

/* ---- writing ---- */

typedef struct Listed {
    VEC(SafeEntry) entries;
    VEC(const double *) data;
} Listed;

static bool is_listed(const Listed *l, const char *name)
{
    for (uint32_t i = 0; i < l->entries.n; i++)
        if (strcmp(l->entries.at[i].name, name) == 0) return true;
    return false;
}

static void list_tensor(Listed *l, Arena *a, const char *name, const Type *t, const double *at)
{
    SafeEntry entry = {.name = name, .dtype = (uint32_t)t->dtype, .rank = (uint32_t)t->rank};
    memcpy(entry.dim, t->dim, (size_t)t->rank * sizeof t->dim[0]);
    VEC_PUSH(a, &l->entries, entry);
    VEC_PUSH(a, &l->data, at);
}

static Listed list_all(const RunTensors *t)
{
    Arena *a = t->e->arena;
    Listed l = {0};
    for (uint32_t i = 0; i < eval_n_results(t->f); i++)
        list_tensor(&l, a, eval_result_name(a, t->f, i), t->out[i].type, t->out[i].at);
    for (uint32_t i = 1; i < t->e->m->vars.n; i++) {
        const Var *v = &t->e->m->vars.at[i];
        const char *name = is_listed(&l, v->name) ? arena_printf(a, "@%s", v->name) : v->name;
        list_tensor(&l, a, name, whole_type(t, v->type), eval_var(t->e, (VarId){i}));
    }
    return l;
}

static RtStatus put_tensor(SafeWriter *w, Arena *a, const SafeEntry *entry, const double *data,
                           RtError *err)
{
    int64_t bytes = dtype_bytes((DType)entry->dtype), n = entry->n_bytes / bytes;
    char *raw = arena_alloc(a, (size_t)entry->n_bytes + 1);
    for (int64_t i = 0; i < n; i++) scalar_set(raw + i * bytes, entry->dtype, data[i]);
    return safe_put(w, entry->offset, raw, (size_t)entry->n_bytes, err);
}

static RtStatus write_all(Listed *l, Arena *a, const char *path, RtError *err)
{
    SafeWriter w;
    RT_TRY(safe_create(&w, a, path, l->entries.at, l->entries.n, NULL, err));
    RtStatus s = RT_OK;
    for (uint32_t i = 0; s == RT_OK && i < l->entries.n; i++)
        s = put_tensor(&w, a, &l->entries.at[i], l->data.at[i], err);
    if (s == RT_OK) return safe_finish(&w, err);
    safe_abandon(&w);
    return s;
}

Status tensors_write(const RunTensors *t, const char *path)
{
    RtError err = {0};
    Listed l = list_all(t);
    Status st = ZM_OK;
    if (write_all(&l, t->e->arena, path, &err) != RT_OK)
        st = diag_error(t->e->m->diag, (SrcPos){0}, E_FILE, "%s", str_c(&err.text));
    str_free(&err.text);
    return st;
}
