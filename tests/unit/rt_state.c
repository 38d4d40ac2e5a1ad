/* rt_state.c -- the state over ranks: whatever the number of ranks, the stage and the layout of the
 * buckets, initial values, checkpoints, exported weights and dumped gradients are the same, and
 * each rank has its part of them. */
#include <math.h>
#include <unistd.h>

#include "runtime/checkpoint.h"
#include "runtime/convert.h"
#include "runtime/gradients.h"
#include "runtime/init.h"
#include "runtime/weights.h"
#include "tests/unit/rt_parts.h"

/* Sizes that no number of ranks divides; one smaller than it, one larger than the rest. */
static const Param params[] = {
    {"h.0.w", 2, ZMP_NORMAL, {251, 7}}, {"h.0.b", 1, ZMP_ZEROS, {7, 0}},
    {"h.0.g", 1, ZMP_ONES, {1, 0}},     {"h.1.w", 2, ZMP_UNIFORM, {3, 641}},
    {"wte", 2, ZMP_NORMAL, {1021, 11}}, {"h.1.b", 1, ZMP_CONST, {251, 0}},
};
enum { N_PARAMS = sizeof params / sizeof *params };

static Arena arena;

typedef struct Job { /* what the bodies need */
    const Parts *parts;
    const char *path;
    const char *precision;
} Job;

/* Every number of ranks and stage, with other choices of the layout in turn. */
enum { N_LAYOUTS = 1 + 3 * 4 };
static Layout layout_number(int i, uint32_t low)
{
    Layout l = {.ranks = 1, .low = low};
    if (i > 0) l.ranks = 2 + (i - 1) / 4;
    if (i > 0) l.stage = (i - 1) % 4;
    l.unit = i % 2 ? 3 : 64;
    l.is_reversed = i % 3 == 1;
    l.keeps_last = i % 8 == 4;
    l.has_views = i % 5 == 2;
    return l;
}

static Parts *all_parts(uint32_t low)
{
    Parts *all = ARENA_ARRAY(&arena, Parts, N_LAYOUTS);
    for (int i = 0; i < N_LAYOUTS; i++) {
        Layout l = layout_number(i, low);
        parts_build(&all[i], &l, params, N_PARAMS);
    }
    return all;
}

static void run(const Parts *t, void (*body)(OnRank *, Comm *), Job *job)
{
    OnRank on[RANKS_MAX];
    job->parts = t;
    ranks_run(on, t->layout.ranks, 0, body, job);
    ranks_all(on, t->layout.ranks, RT_OK, NULL);
}

/* ---- who holds what ---- */

static void body_sizes(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    int64_t stored = 0, all = 0;
    for (uint32_t i = 0; i < o.s.all.n; i++) {
        const StateTensor *t = &o.s.all.at[i];
        int64_t each = zmp_dtype_bytes(t->dtype);
        CHECK(t->own_n <= t->n && t->own_first >= t->first &&
              t->own_first + t->own_n <= t->first + t->n);
        CHECK(!t->is_replicated || (t->n == t->shape->elems && t->first == 0));
        CHECK(strcmp(t->path, ZMP_S_STOP) != 0);
        stored += t->own_n * each;
        all += t->shape->elems * each;
    }
    CHECK(all == o.s.most_bytes);
    /* Shares are even, but for a bucket's padding. */
    double even = (double)all / r->size, most = even + 4.0 * 4 * PARTS_BUCKETS * 64 + 64;
    CHECK((double)stored <= most);
    parts_leave(&o);
}

/* ---- initial values ---- */

static void body_init(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    init_state(&o.x, &o.s, 42, true);
    for (uint32_t i = 0; i < o.s.all.n; i++) {
        const StateTensor *t = &o.s.all.at[i];
        if (t->kind == ZMP_SCALAR) continue;
        int64_t n = t->shape->elems;
        float *want = calloc((size_t)n + 1, sizeof *want), have;
        if (t->kind != ZMP_MOMENT)
            init_elements(want, t->path, t->shape->init, t->shape->init_a, 42, 0, n);
        for (int64_t k = t->first; k < t->first + t->n; k++) {
            float rounded;
            char raw[8];
            convert_from_f32(raw, t->dtype, &want[k], 1);
            convert_to_f32(&rounded, raw, t->dtype, 1);
            convert_to_f32(&have, state_at(t, k), t->dtype, 1);
            CHECK(memcmp(&rounded, &have, sizeof have) == 0);
        }
        free(want);
    }
    parts_leave(&o);
}

/* ---- checkpoints ---- */

static const CheckpointInfo saved_info = {
    .step = 7, .samples = 4321, .seed = UINT64_C(0x8000000000000001), .order = ORDER_SEQUENTIAL};

static void body_save(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    parts_fill(&o.s);
    r->status = checkpoint_save(j->path, &o.x, &o.s, &saved_info, &r->error);
    parts_leave(&o);
}

/* What lies between the parameters of a bucket and its end is zero, and stays so. */
static void check_padding(const OnParts *o)
{
    int64_t n_held = 0, n_set = 0;
    for (uint32_t i = 0; i < o->s.all.n; i++)
        n_held += o->s.all.at[i].n * zmp_dtype_bytes(o->s.all.at[i].dtype);
    for (uint32_t i = 0; i < o->s.all.n; i++) {
        const StateTensor *t = &o->s.all.at[i];
        memset(t->at, 0, (size_t)(t->n * zmp_dtype_bytes(t->dtype)));
    }
    for (size_t k = 0; k < o->x.p->h->arena_bytes; k++) n_set += o->x.arena.at[k] != 0;
    CHECK(n_held > 0 && n_set == 0);
}

static void body_resume(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    CheckpointInfo info;
    Str skipped = {0};
    parts_enter(&o, j->parts, c);
    r->status = checkpoint_resume(j->path, &o.s, program_str(o.x.p, o.x.p->h->precision), &info,
                                  &skipped, &r->error);
    if (r->status == RT_OK) {
        CHECK(info.step == 7 && info.samples == 4321 && info.seed == saved_info.seed &&
              info.order == ORDER_SEQUENTIAL && !strcmp(info.precision, j->precision));
        parts_check(&o.s);
        check_padding(&o);
    }
    CHECK(!skipped.n);
    parts_leave(&o);
}

/* Each byte of the state is in one file once. */
static void check_files(const char *dir, const Parts *t)
{
    OnParts o;
    parts_enter(&o, t, NULL); /* sizes only: rank 0's view of one rank */
    int64_t total = 0;
    for (int r = 0; r < t->layout.ranks; r++) {
        SafeFile f;
        RtError e = {0};
        Arena a = {0};
        const char *path = arena_printf(&a, "%s/step-00000007/rank-%d.safetensors", dir, r);
        CHECK(safe_open(&f, &a, path, &e) == RT_OK);
        for (uint32_t i = 0; i < f.all.n; i++) total += (int64_t)f.all.at[i].n_bytes;
        safe_close(&f);
        arena_free(&a);
    }
    CHECK(total == o.s.most_bytes);
    parts_leave(&o);
}

/* Saved by each, resumed by each. */
static void test_all_pairs(const Parts *all, const char *precision)
{
    for (int i = 0; i < N_LAYOUTS; i++) {
        Job job = {.path = "ck", .precision = precision};
        run(&all[i], body_save, &job);
        check_files("ck", &all[i]);
        for (int k = 0; k < N_LAYOUTS; k++) run(&all[k], body_resume, &job);
        CHECK(system("test \"$(ls -A ck)\" = step-00000007 && rm -r ck") == 0);
    }
}

/* Parameters and masters here hold what parts_fill() put into "SOURCE/<path>", in their own dtypes.
 */
static void check_weights(OnParts *o, const char *source)
{
    for (uint32_t i = 0; i < o->s.all.n; i++) {
        const StateTensor *t = &o->s.all.at[i];
        if (t->kind != ZMP_PARAM && t->kind != ZMP_MASTER) continue;
        const char *name = arena_printf(&o->arena, "%s/%s", source, t->path);
        for (int64_t k = t->first; k < t->first + t->n; k++) {
            char want[8];
            scalar_set(want, t->dtype, (double)parts_value(name, k));
            CHECK(memcmp(want, state_at(t, k), (size_t)zmp_dtype_bytes(t->dtype)) == 0);
        }
    }
}

/* From f32 to 16 bits with masters and back, on other ranks. */
static void body_convert(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    CheckpointInfo info;
    Str skipped = {0};
    parts_enter(&o, j->parts, c);
    r->status = checkpoint_resume(j->path, &o.s, program_str(o.x.p, o.x.p->h->precision), &info,
                                  &skipped, &r->error);
    check_weights(&o, strcmp(j->precision, "fp32") != 0 ? "master" : "param");
    parts_leave(&o);
}

static void test_convert(const Parts *wide, const Parts *low)
{
    Job job = {.path = "ck", .precision = "fp32"};
    run(&wide[N_LAYOUTS - 1], body_save, &job);
    for (int i = 0; i < N_LAYOUTS; i++) run(&low[i], body_convert, &job);
    CHECK(system("rm -r ck") == 0);
    job.precision = "bf16";
    run(&low[4], body_save, &job);
    for (int i = 0; i < N_LAYOUTS; i++) run(&wide[i], body_convert, &job);
    CHECK(system("rm -r ck") == 0);
}

/* ---- weights ---- */

static void body_export(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    parts_fill(&o.s);
    r->status = weights_export(&o.x, &o.s, &o.arena, j->path, &r->error);
    parts_leave(&o);
}

static void body_load(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    const char *source = j->parts->layout.low ? "master" : "param";
    r->status = weights_load(&o.x, &o.s, &o.arena, j->path, &r->error);
    if (r->status == RT_OK) check_weights(&o, source);
    parts_leave(&o);
}

static bool same_files(const char *x, const char *y)
{
    char command[128];
    snprintf(command, sizeof command, "cmp %s %s", x, y);
    return system(command) == 0;
}

/* Exported by each: the same file.  Loaded by each. */
static void test_weights(const Parts *all)
{
    for (int i = 0; i < N_LAYOUTS; i++) {
        Job job = {.path = i ? "other" : "first"};
        run(&all[i], body_export, &job);
        CHECK(!i || same_files("first", "other"));
    }
    for (int i = 0; i < N_LAYOUTS; i++) {
        Job job = {.path = "first"};
        run(&all[i], body_load, &job);
    }
}

/* A file that does not fit: each rank says the same, all of it. */
static void test_misfit(const Parts *t)
{
    static const Param others[] = {{"h.0.w", 2, ZMP_NORMAL, {251, 8}},
                                   {"h.0.b", 1, ZMP_ZEROS, {7, 0}},
                                   {"h.0.x", 1, ZMP_ONES, {1, 0}},
                                   {"wte", 2, ZMP_NORMAL, {1021, 11}}};
    Parts one;
    Layout l = {.ranks = 1, .unit = 64};
    parts_build(&one, &l, others, 4);
    Job job = {.path = "misfit"};
    run(&one, body_export, &job);
    OnRank on[RANKS_MAX];
    job.parts = t;
    ranks_run(on, t->layout.ranks, 0, body_load, &job);
    const char *said = str_c(&on[0].error.text);
    CHECK(strstr(said, "h.0.w: [251, 8] in the file, [251, 7] in the program") &&
          strstr(said, "unexpected in the file (1):\n    h.0.x") &&
          strstr(said, "missing from the file (3):\n    h.0.g [1]") && strncmp(said, "rank", 4));
    ranks_all(on, t->layout.ranks, RT_BAD, "does not fit the model parts; nothing was loaded");
    ranks_run(on, t->layout.ranks, 0, body_load, &(Job){.parts = t, .path = "absent"});
    ranks_all(on, t->layout.ranks, RT_BAD, "cannot read absent");
    parts_free(&one);
}

/* f16 cannot hold it: one rank finds it, all refuse. */
static void body_export_large(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    *(float *)(void *)state_at(state_find(&o.s, "param/wte"), 5000) = 1e6f;
    r->status = weights_export(&o.x, &o.s, &o.arena, j->path, &r->error);
    parts_leave(&o);
}

static void test_range(const Parts *one, const Parts *f16)
{
    Job job = {.path = "large"};
    run(one, body_export_large, &job);
    OnRank on[RANKS_MAX];
    job.parts = f16;
    ranks_run(on, f16->layout.ranks, 0, body_load, &job);
    ranks_all(on, f16->layout.ranks, RT_BAD, "element 5000 of the file's wte is 1e+06");
}

/* ---- gradients ---- */

/* The gradient of element k of a bucket's parameter, wherever the bucket has it. */
static void fill_gradients(const OnParts *o)
{
    const Program *p = o->x.p;
    exec_set_scalar(&o->x, ZMP_S_SCALE, 0.25);
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        if (v->kind != ZMP_PARAM || v->is_bucket) continue;
        char name[64];
        snprintf(name, sizeof name, "grad.%s", program_str(p, p->vars[v->in].name));
        const ZmpVar *g = program_var(p, name);
        int64_t part = g->is_sharded ? exec_rank(&o->x) * g->elems : 0, at;
        int64_t n = elems_common(part, g->elems, v->in_offset, v->elems, &at);
        for (; n > 0; n--, at++) {
            float value = 4 * parts_value(program_str(p, v->name), at - v->in_offset);
            memcpy(exec_var(&o->x, g) + 4 * (at - part), &value, sizeof value);
        }
    }
}

static void body_gradients(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    fill_gradients(&o);
    GradDump g = {0};
    r->status = grad_dump_open(&g, &o.arena, &o.x, j->path, &r->error);
    exec_observe(&o.x, grad_dump_observer(&g));
    if (r->status == RT_OK) r->status = exec_run(&o.x, o.x.p->last, &r->error);
    if (r->status == RT_OK) r->status = grad_dump_close(&g, &r->error);
    parts_leave(&o);
}

static void test_gradients(const Parts *all)
{
    for (int i = 0; i < N_LAYOUTS; i++) {
        Job job = {.path = i ? "grads" : "grads-1"};
        run(&all[i], body_gradients, &job);
        CHECK(!i || same_files("grads-1", "grads"));
    }
    SafeFile f;
    RtError e = {0};
    CHECK(safe_open(&f, &arena, "grads-1", &e) == RT_OK && f.all.n == N_PARAMS);
    for (int i = 0; i < N_PARAMS; i++) {
        const SafeTensor *t = safe_find(&f, params[i].name);
        for (int64_t k = 0; k < t->elems; k++)
            CHECK(((const float *)(const void *)t->at)[k] == parts_value(params[i].name, k));
    }
    safe_close(&f);
}

static char dir[] = "/tmp/zmrt-state-XXXXXX";

int main(void)
{
    CHECK(mkdtemp(dir) && chdir(dir) == 0);
    Parts *wide = all_parts(0), *low = all_parts(ZMP_BF16), *f16 = all_parts(ZMP_F16);
    Job job = {0};
    for (int i = 0; i < N_LAYOUTS; i++) {
        run(&wide[i], body_sizes, &job);
        run(&low[i], body_sizes, &job);
        run(&wide[i], body_init, &job);
        run(&low[i], body_init, &job);
    }
    test_all_pairs(wide, "fp32");
    test_all_pairs(low, "bf16");
    test_convert(wide, low);
    test_weights(wide);
    test_weights(low);
    test_misfit(&wide[N_LAYOUTS - 1]);
    test_range(&wide[0], &f16[N_LAYOUTS - 1]);
    test_gradients(wide);
    for (int i = 0; i < N_LAYOUTS; i++) {
        parts_free(&wide[i]);
        parts_free(&low[i]);
        parts_free(&f16[i]);
    }
    arena_free(&arena);
    CHECK(chdir("/") == 0);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) != 0;
}
