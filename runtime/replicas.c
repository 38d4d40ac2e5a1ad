/* replicas.c -- see replicas.h. */
#include "runtime/replicas.h"

#include <stdio.h>
#include <string.h>

#include "ir/base/vec.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct List {
    Arena *a;
    const Exec *x;
    VEC(Replica) all;
} List;

static void add(List *l, const char *name, const ZmpVar *named, const char *at, int64_t n_bytes)
{
    Replica r = {name, program_str(l->x->p, named->loc), at, (size_t)n_bytes};
    VEC_PUSH(l->a, &l->all, r);
}

/* A bucket of masters or moments: the pieces of the parameters, then what pads it. */
static void add_pieces(List *l, const ZmpVar *v)
{
    const Program *p = l->x->p;
    int64_t each = zmp_dtype_bytes(v->dtype);
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *param = &p->vars[i];
        if (param->kind != ZMP_PARAM || param->is_bucket || param->in != v->of) continue;
        const char *name =
            arena_printf(l->a, "%s of %s", program_str(p, v->name), program_str(p, param->name));
        add(l, name, param, exec_var(l->x, v) + param->in_offset * each, param->elems * each);
    }
}

static void add_var(List *l, const ZmpVar *v)
{
    const Program *p = l->x->p;
    const ZmpVar *own = program_storage(p, v);
    bool is_bucket = v->kind == ZMP_PARAM && v->is_bucket;
    if (own->is_sharded || own->is_partial || v->kind == ZMP_GRAD || is_bucket) return;
    if (v->of >= 0 && p->vars[v->of].is_bucket)
        add_pieces(l, v);
    else
        add(l, program_str(p, v->name), v, exec_var(l->x, v), v->elems * zmp_dtype_bytes(v->dtype));
}

void replicas_open(Replicas *c, Arena *a, const Exec *x)
{
    List l = {.a = a, .x = x};
    for (uint32_t i = 0; i < x->p->n_vars; i++) add_var(&l, &x->p->vars[i]);
    c->at = l.all.at;
    c->n = l.all.n;
    for (uint32_t i = 0; i < c->n; i++) c->n_bytes += (int64_t)c->at[i].n_bytes;
    c->mine = ARENA_ARRAY(a, uint64_t, c->n + 1);
    c->all = ARENA_ARRAY(a, uint64_t, (size_t)c->n * x->p->h->ranks + 1);
}

/* The ranks that differ from rank 0: "rank 1", "ranks 1, 3". */
static void add_ranks(Str *out, const Replicas *c, uint32_t i, int size)
{
    int n = 0;
    for (int r = 1; r < size; r++)
        if (c->all[(size_t)r * c->n + i] != c->all[i]) n++;
    str_add(out, n > 1 ? "ranks " : "rank ");
    const char *between = "";
    for (int r = 1; r < size; r++) {
        if (c->all[(size_t)r * c->n + i] == c->all[i]) continue;
        str_addf(out, "%s%d", between, r);
        between = ", ";
    }
}

static RtStatus fail(const Replicas *c, uint32_t i, int size, int64_t step, RtError *e)
{
    Str ranks = {0};
    add_ranks(&ranks, c, i, size);
    rt_say(e,
           "--check-replicas: after step %lld %s (%s) has other bits on %s than on rank 0, though "
           "every rank computes the same",
           (long long)step, c->at[i].name, c->at[i].loc, str_c(&ranks));
    str_free(&ranks);
    return RT_FAILED;
}

RtStatus replicas_check(const Replicas *c, const Exec *x, int64_t step, RtError *e)
{
    if (!x->comm) return RT_OK;
    int size = comm_size(x->comm);
    for (uint32_t i = 0; i < c->n; i++) {
        exec_fetch(x, c->at[i].at, (int64_t)c->at[i].n_bytes);
        c->mine[i] = XXH3_64bits(c->at[i].at, c->at[i].n_bytes);
        if (x->device) device_forget(x->device, c->at[i].at, c->at[i].n_bytes);
    }
    CommCall call = {.kind = COMM_ALL_GATHER, .dtype = ZMP_I32, .in = c->mine, .out = c->all};
    call.count = 2 * (int64_t)c->n * size;
    call.tensor = "the hashes of --check-replicas";
    RT_TRY(comm_run(x->comm, &call, e));
    for (uint32_t i = 0; i < c->n; i++)
        for (int r = 1; r < size; r++)
            if (c->all[(size_t)r * c->n + i] != c->all[i]) return fail(c, i, size, step, e);
    return RT_OK;
}
