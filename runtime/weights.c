/* weights.c -- see weights.h. */
#include "runtime/weights.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/comm_agree.h"
#include "runtime/convert.h"
#include "runtime/shared_file.h"

enum { CHUNK_ELEMS = 1 << 15, MAX_LISTED = 20 };
#define F16_OVERFLOW 65520.0f /* from here on f32 rounds to f16's infinity */

/* ---- names ---- */

static const char *stripped(const Program *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_weight_rules; i++) {
        const ZmpWeightRule *r = &p->weight_rules[i];
        const char *prefix = program_str(p, r->from);
        if (r->kind == ZMP_STRIP && *prefix && strncmp(name, prefix, strlen(prefix)) == 0)
            return name + strlen(prefix);
    }
    return name;
}

/* The first rule of this kind whose pattern is the name, as given or as stripped. */
static const ZmpWeightRule *rule_for(const Program *p, enum ZmpWeightRuleKind kind,
                                     const char *name, const char *bare)
{
    for (uint32_t i = 0; i < p->n_weight_rules; i++) {
        const ZmpWeightRule *r = &p->weight_rules[i];
        const char *from = program_str(p, r->from);
        if (r->kind != (uint32_t)kind) continue;
        bool is_hit = kind == ZMP_IGNORE ? glob_match(from, name) || glob_match(from, bare)
                                         : strcmp(from, name) == 0 || strcmp(from, bare) == 0;
        if (is_hit) return r;
    }
    return NULL;
}

static bool is_param(const Program *p, const char *path)
{
    const ZmpVar *v = program_var(p, path);
    return v && v->kind == ZMP_PARAM && !v->is_bucket;
}

WeightUse weight_use(const Program *p, const char *published, const char **path)
{
    const char *bare = stripped(p, published);
    *path = NULL;
    if (rule_for(p, ZMP_IGNORE, published, bare)) return WEIGHT_IGNORED;
    const ZmpWeightRule *alias = rule_for(p, ZMP_ALIAS, published, bare);
    const ZmpWeightRule *rename_rule = rule_for(p, ZMP_RENAME, published, bare);
    if (alias)
        *path = program_str(p, alias->to);
    else if (rename_rule)
        *path = program_str(p, rename_rule->to);
    else
        *path = bare;
    if (!is_param(p, *path)) return WEIGHT_UNKNOWN;
    return alias ? WEIGHT_ALIAS : WEIGHT_PARAM;
}

const char *weight_published(const Program *p, const char *path)
{
    for (uint32_t i = 0; i < p->n_weight_rules; i++) {
        const ZmpWeightRule *r = &p->weight_rules[i];
        if (r->kind == ZMP_RENAME && strcmp(program_str(p, r->to), path) == 0)
            return program_str(p, r->from);
    }
    return path;
}

/* ---- matching a file with the program ---- */

typedef struct Match { /* one per parameter */
    const StateTensor *param;
    const SafeTensor *from;
    bool is_alias;
} Match;

typedef struct Report { /* what does not fit, all of it */
    Str missing, unexpected, wrong;
    uint32_t n_missing, n_unexpected, n_wrong;
} Report;

static void report_add(Str *list, uint32_t *n, const char *text)
{
    if (++*n <= MAX_LISTED) str_addf(list, "\n    %s", text);
}

static void report_section(Str *out, const char *what, uint32_t n, const Str *list)
{
    if (!n) return;
    str_addf(out, "\n  %s (%u):%s", what, n, str_c(list));
    if (n > MAX_LISTED) str_addf(out, "\n    and %u more", n - MAX_LISTED);
}

static bool shape_matches(const ZmpVar *v, const SafeTensor *t)
{
    if (v->rank != t->rank) return false;
    for (uint32_t i = 0; i < v->rank; i++)
        if (v->dim[i] != t->dim[i]) return false;
    return true;
}

static void match_tensor(const Program *p, Arena *a, const SafeTensor *t, Match *all, uint32_t n,
                         Report *r)
{
    const char *path;
    WeightUse use = weight_use(p, t->name, &path);
    if (use == WEIGHT_IGNORED) return;
    if (use == WEIGHT_UNKNOWN) {
        report_add(&r->unexpected, &r->n_unexpected, t->name);
        return;
    }
    Match *m = NULL;
    for (uint32_t i = 0; i < n && !m; i++)
        if (strcmp(all[i].param->path, path) == 0) m = &all[i];
    if (!m || (use == WEIGHT_ALIAS && m->from))
        return; /* an alias is read only where the name itself is absent */
    if (m->from && !m->is_alias) {
        report_add(&r->unexpected, &r->n_unexpected,
                   arena_printf(a, "%s: parameter %s is given by %s already", t->name, path,
                                m->from->name));
        return;
    }
    m->from = t;
    m->is_alias = use == WEIGHT_ALIAS;
}

static void check_match(Arena *a, const Match *m, Report *r)
{
    const ZmpVar *v = m->param->shape;
    const char *want = shape_text(a, v->rank, v->dim);
    if (!m->from) {
        report_add(&r->missing, &r->n_missing, arena_printf(a, "%s %s", m->param->path, want));
        return;
    }
    if (!safe_is_float(m->from->dtype))
        report_add(&r->wrong, &r->n_wrong,
                   arena_printf(a, "%s: dtype %s in the file, F32, F16, BF16 or F64 wanted",
                                m->from->name, m->from->dtype_text));
    else if (!shape_matches(v, m->from))
        report_add(&r->wrong, &r->n_wrong,
                   arena_printf(a, "%s: %s in the file, %s in the program", m->from->name,
                                shape_text(a, m->from->rank, m->from->dim), want));
}

static RtStatus report_refuse(Report *r, const char *path, const char *model, RtError *e)
{
    if (r->n_missing + r->n_unexpected + r->n_wrong == 0) return RT_OK;
    Str text = {0};
    report_section(&text, "missing from the file", r->n_missing, &r->missing);
    report_section(&text, "unexpected in the file", r->n_unexpected, &r->unexpected);
    report_section(&text, "of another shape or dtype", r->n_wrong, &r->wrong);
    RtStatus s = RT_FAIL(e, RT_BAD,
                         "%s does not fit the model %s; nothing was loaded%s\n  the model's "
                         "`weights` section can strip, "
                         "ignore, alias and rename published names",
                         path, model, str_c(&text));
    str_free(&text);
    return s;
}

/* ---- load ---- */

/* A number that f16 rounds to infinity would make every later one NaN. */
static RtStatus check_range(const Match *m, const float *at, int64_t first, int64_t n, RtError *e)
{
    if (m->param->dtype != ZMP_F16) return RT_OK;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(at[i]) && fabsf(at[i]) >= F16_OVERFLOW)
            return RT_FAIL(e, RT_BAD,
                           "%s is f16 in this program, whose largest number is 65504: element %lld "
                           "of the file's %s is %g\n  compile with --precision bf16, or keep it in "
                           "f32 with --precision-of",
                           m->param->path, (long long)(first + i), m->from->name, (double)at[i]);
    return RT_OK;
}

/* What this rank holds of the parameter or its master. */
static RtStatus load_into(const StateTensor *t, const Match *m, RtError *e)
{
    size_t each = (size_t)safe_dtype_bytes(m->from->dtype), done = 0, forgotten = 0;
    uint32_t dtype = safe_zmp_dtype(m->from->dtype);
    const unsigned char *from = m->from->at + (size_t)t->first * each;
    float buf[CHUNK_ELEMS];
    for (int64_t at = 0; at < t->n; at += CHUNK_ELEMS) {
        int64_t n = t->n - at < CHUNK_ELEMS ? t->n - at : CHUNK_ELEMS;
        convert_to_f32(buf, from + done, dtype, (size_t)n);
        if (t == m->param) RT_TRY(check_range(m, buf, t->first + at, n, e));
        convert_from_f32(state_at(t, t->first + at), t->dtype, buf, (size_t)n);
        done += (size_t)n * each;
        if (done - forgotten < PAGES_CHUNK_BYTES) continue;
        pages_forget(from + forgotten, done - forgotten);
        forgotten = done;
    }
    pages_forget(from + forgotten, done - forgotten);
    return RT_OK;
}

static RtStatus load_tensor(const State *s, Arena *a, const Match *m, RtError *e)
{
    const StateTensor *master = state_find(s, arena_printf(a, "master/%s", m->param->path));
    RT_TRY(load_into(m->param, m, e));
    RT_TRY(state_put(s, m->param, e));
    if (!master) return RT_OK;
    RT_TRY(load_into(master, m, e));
    return state_put(s, master, e);
}

static RtStatus match_all(const Exec *x, const State *s, Arena *a, const SafeFile *f, Match *all,
                          uint32_t *n, RtError *e)
{
    for (uint32_t i = 0; i < s->all.n; i++)
        if (s->all.at[i].kind == ZMP_PARAM) all[(*n)++] = (Match){.param = &s->all.at[i]};
    Report r = {0};
    for (uint32_t i = 0; i < f->all.n; i++) match_tensor(x->p, a, &f->all.at[i], all, *n, &r);
    for (uint32_t i = 0; i < *n; i++) check_match(a, &all[i], &r);
    RtStatus status = report_refuse(&r, f->path, program_str(x->p, x->p->h->model), e);
    str_free(&r.missing);
    str_free(&r.unexpected);
    str_free(&r.wrong);
    return status;
}

RtStatus weights_load(const Exec *x, const State *s, Arena *a, const char *path, RtError *e)
{
    static const char what[] = "the weights of --load";
    SafeFile f = {0};
    Match *all = ARENA_ARRAY(a, Match, s->all.n + 1);
    uint32_t n = 0;
    RtStatus status = safe_open(&f, a, path, e);
    if (status == RT_OK) status = match_all(x, s, a, &f, all, &n, e);
    status = comm_agree(s->comm, status, what, 0, e);
    if (status == RT_OK) {
        for (uint32_t i = 0; i < n && status == RT_OK; i++)
            if (all[i].from) /* always: what is missing was refused */
                status = load_tensor(s, a, &all[i], e);
        status = comm_agree(s->comm, status, what, s->most_bytes, e);
    }
    safe_close(&f);
    return status;
}

/* ---- export ---- */

/* This rank's elements, from the master copy where there is one; always f32. */
static RtStatus export_tensor(const State *s, Arena *a, SafeWriter *w, const SafeEntry *entry,
                              const StateTensor *param, RtError *e)
{
    const StateTensor *master = state_find(s, arena_printf(a, "master/%s", param->path));
    const StateTensor *from = master ? master : param;
    RT_TRY(state_fetch(s, from, e));
    float buf[CHUNK_ELEMS];
    int64_t each = (int64_t)sizeof *buf, end = from->own_first + from->own_n, n;
    for (int64_t at = from->own_first; at < end; at += n) {
        bool is_whole = from->dtype == ZMP_F32;
        n = is_whole || end - at < CHUNK_ELEMS ? end - at : CHUNK_ELEMS;
        if (!is_whole) convert_to_f32(buf, state_at(from, at), from->dtype, (size_t)n);
        RT_TRY(safe_put(w, entry->offset + at * each, is_whole ? state_at(from, at) : (char *)buf,
                        (size_t)(n * each), e));
    }
    state_forget(s, from);
    return RT_OK;
}

RtStatus weights_export(const Exec *x, const State *s, Arena *a, const char *path, RtError *e)
{
    SafeEntry *entries = ARENA_ARRAY(a, SafeEntry, s->all.n + 1);
    const StateTensor **params = ARENA_ARRAY(a, const StateTensor *, s->all.n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        if (t->kind != ZMP_PARAM) continue;
        entries[n] =
            (SafeEntry){weight_published(x->p, t->path), ZMP_F32, t->shape->rank, {0}, 0, 0};
        memcpy(entries[n].dim, t->shape->dim, sizeof entries[n].dim);
        params[n++] = t;
    }
    SharedFile f;
    RT_TRY(shared_create(&f, s->comm, a, path, "the weights of --export", entries, n,
                         "{\"format\":\"pt\"}", e));
    RtStatus status = RT_OK;
    for (uint32_t i = 0; i < n && status == RT_OK; i++)
        status = export_tensor(s, a, &f.writer, &entries[i], params[i], e);
    return shared_finish(&f, status, e);
}
