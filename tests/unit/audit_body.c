/* audit_body.c -- body_run: every op once, against what the kernel wrote, also through a view of
 * it; inside the kernel the exact result rounded. */
#include "runtime/audit/body.h"

#include <math.h>
#include <string.h>

static const char text[] = "module \"m\" {batch = 2, items = 2}\n"
                           "func @f(%x: f16[2,3]) {\n"
                           "  %y = mul %x, %x : f16[2,3]\n"
                           "  %z = add %y, %x : f16[2,3]\n"
                           "  %t = transpose %z {perm = [1, 0]} : f16[3,2]\n"
                           "  %s = reduce_sum %z {dims = [1]} : f16[2]\n"
                           "  return %t, %s\n"
                           "}\n";

enum { MAX_SEEN = 8 };

typedef struct Seen {
    uint32_t n, stop_after;
    OpCode op[MAX_SEEN];
    double machine[MAX_SEEN][6], exact[MAX_SEEN][6];
    int64_t n_elems[MAX_SEEN];
} Seen;

static bool see(void *self, const BodyResult *r)
{
    Seen *s = self;
    ZM_CHECK(s->n < MAX_SEEN);
    s->op[s->n] = r->op->code;
    s->n_elems[s->n] = type_elems(r->type);
    memcpy(s->machine[s->n], r->machine, (size_t)type_elems(r->type) * sizeof(double));
    memcpy(s->exact[s->n], r->exact, (size_t)type_elems(r->type) * sizeof(double));
    return ++s->n != s->stop_after;
}

typedef struct Bench {
    Arena a;
    SourceSet sources;
    Diag diag;
    Module *m;
    Eval eval;
    const Func *f;
    double x[6];
} Bench;

static void bench_open(Bench *b)
{
    *b = (Bench){.x = {1, 2, 3, 4, 5, 0.1005859375}};
    b->sources.arena = &b->a;
    b->diag = (Diag){.arena = &b->a, .sources = &b->sources};
    b->m = module_parse(&b->a, &b->sources, &b->diag, "f.zir", text, strlen(text));
    ZM_CHECK(b->m != NULL);
    b->eval = (Eval){.m = b->m, .arena = &b->a};
    b->f = func_find(b->m, "f");
}

static Seen run(Bench *b, const EvalTensor *out, uint32_t stop_after)
{
    Seen s = {.stop_after = stop_after};
    EvalTensor in = {value_type(b->f, b->f->params.at[0]), b->x};
    BodyVisitor visitor = {&s, see};
    ZM_CHECK(body_run(&b->eval, b->f, &in, out, &visitor) == ZM_OK);
    return s;
}

/* Inside: each op in order, exact in doubles, the machine's number rounded to f16. */
static void test_inside(Bench *b)
{
    Seen s = run(b, NULL, 0);
    ZM_CHECK(s.n == 3 && s.op[0] == OP_MUL && s.op[1] == OP_ADD && s.op[2] == OP_REDUCE_SUM);
    double y = b->x[5] * b->x[5];
    ZM_CHECK(s.exact[0][5] == y && s.machine[0][5] == dtype_round(DT_F16, y) &&
             s.machine[0][5] != y);
    ZM_CHECK(s.exact[1][5] == s.machine[0][5] + b->x[5]); /* from the rounded product */
    ZM_CHECK(run(b, NULL, 2).n == 2);
}

/* What the kernel wrote stands for the machine: t for z, in t's order, and s for itself. */
static void test_written(Bench *b)
{
    double t[6] = {2, 20, 6, 30, 12, 99}, sum[2] = {20, -1};
    const Op *ret = op_cget(b->f, b->f->last);
    EvalTensor out[2] = {{value_type(b->f, ret->in[0]), t}, {value_type(b->f, ret->in[1]), sum}};
    Seen s = run(b, out, 0);
    ZM_CHECK(s.n == 3 && s.op[0] == OP_MUL && s.op[1] == OP_ADD && s.op[2] == OP_REDUCE_SUM);
    ZM_CHECK(s.n_elems[1] == 6 && memcmp(s.machine[1], t, sizeof t) == 0);
    for (int i = 0; i < 5; i++) ZM_CHECK(s.exact[1][i] == t[i]);
    ZM_CHECK(fabs(s.exact[1][5] - 0.1106) < 1e-3); /* 99 is the machine's error, of `add` */
    ZM_CHECK(s.exact[2][0] == 20 && s.machine[2][1] == -1);
}

int main(void)
{
    Bench b;
    bench_open(&b);
    test_inside(&b);
    test_written(&b);
    arena_free(&b.a);
    return 0;
}
