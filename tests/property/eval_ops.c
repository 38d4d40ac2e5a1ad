/* eval_ops.c -- the interpreter against values computed by hand: one small case of each op that is
 * not a single C expression.  A case is a function @f of textual IR without inputs that returns one
 * tensor, and the numbers that it must give. */
#include <math.h>
#include <string.h>

#include "ir/base/philox.h"
#include "ir/eval/eval.h"

typedef struct Case {
    const char *name, *text;
    int n;
    double want[16];
} Case;

#define X6 "  %x0 = iota {axis = 0} : f32[6]\n  %x = reshape %x0 : f32[2,3]\n" /* 0 1 2 / 3 4 5 */
#define E_ 2.718281828459045

static const Case cases[] = {
    {"const", "%r = const {value = 1.5} : f32[2]\n", 2, {1.5, 1.5}},
    {"const rounds", "%r = const {value = 1.001} : bf16[1]\n", 1, {1.0}},
    {"iota", "%r = iota {axis = 1} : i32[2,3]\n", 6, {0, 1, 2, 0, 1, 2}},
    {"broadcast",
     X6 "  %c = slice %x {sizes = [2, 1], starts = [0, 1]} : f32[2,1]\n  %r = broadcast %c : "
        "f32[2,2,2]\n",
     8,
     {1, 1, 4, 4, 1, 1, 4, 4}},
    {"transpose", X6 "  %r = transpose %x {perm = [1, 0]}\n", 6, {0, 3, 1, 4, 2, 5}},
    {"transpose of rank 3",
     "  %a = iota {axis = 0} : f32[6]\n  %b = reshape %a : f32[1,2,3]\n  %r = transpose %b {perm = "
     "[2, 0, 1]}\n",
     6,
     {0, 3, 1, 4, 2, 5}},
    {"slice", X6 "  %r = slice %x {sizes = [1, 2], starts = [1, 1]}\n", 2, {4, 5}},
    {"pad",
     X6 "  %s = slice %x {sizes = [1, 2], starts = [1, 1]}\n  %r = pad %s {low = [1, 0], high = "
        "[0, 1]}\n",
     6,
     {0, 0, 0, 4, 5, 0}},
    {"concat",
     X6 "  %s = slice %x {sizes = [2, 1], starts = [0, 0]}\n  %r = concat %x, %s {axis = 1}\n",
     8,
     {0, 1, 2, 0, 3, 4, 5, 3}},
    {"pack",
     X6 "  %s = slice %x {sizes = [1, 2], starts = [0, 1]}\n  %r = pack %s, %s {starts = [1, 4]} : "
        "f32[7]\n",
     7,
     {0, 1, 2, 0, 1, 2, 0}},
    {"after",
     X6 "  %c = const {value = 9.0} : f32[2]\n  %r = after %x, %c\n",
     6,
     {0, 1, 2, 3, 4, 5}},
    {"cast truncates", "  %a = const {value = -2.7} : f32[1]\n  %r = cast %a : i32[1]\n", 1, {-2}},
    {"cast to i1", "  %a = const {value = -0.5} : f32[1]\n  %r = cast %a : i1[1]\n", 1, {1}},
    {"cast to bf16 rounds to even",
     "  %a = const {value = 1.01171875} : f32[1]\n  %r = cast %a : bf16[1]\n",
     1,
     {1.015625}},
    {"cast to f16 overflows",
     "  %a = const {value = 65520.0} : f32[1]\n  %r = cast %a : f16[1]\n",
     1,
     {INFINITY}},
    {"round_bf16 down",
     "  %a = const {value = 1.001953125} : f32[1]\n  %b = const {value = 0.74} : f32[1]\n  %r = "
     "round_bf16 %a, "
     "%b\n",
     1,
     {1}},
    {"round_bf16 up",
     "  %a = const {value = 1.001953125} : f32[1]\n  %b = const {value = 0.75} : f32[1]\n  %r = "
     "round_bf16 %a, "
     "%b\n",
     1,
     {1.0078125}},
    {"round_bf16 away from 0",
     "  %a = const {value = -1.001953125} : f32[1]\n  %b = const {value = 0.75} : f32[1]\n  %r = "
     "round_bf16 %a, "
     "%b\n",
     1,
     {-1.0078125}},
    {"round_bf16 of a bf16",
     "  %a = const {value = -1.5} : f32[1]\n  %b = const {value = 0.99} : f32[1]\n  %r = "
     "round_bf16 %a, "
     "%b\n",
     1,
     {-1.5}},
    {"round_bf16 subnormal",
     "  %a = const {value = 1.1479437019748901e-41} : f32[1]\n  %b = const {value = 0.999} : "
     "f32[1]\n  %r = round_bf16 %a, "
     "%b\n",
     1,
     {9.183549615799121e-41}},
    {"round_bf16 overflows",
     "  %a = const {value = 3.4028234663852886e+38} : f32[1]\n  %b = const {value = 0.5} : "
     "f32[1]\n  %r = round_bf16 %a, "
     "%b\n",
     1,
     {INFINITY}},
    {"reduce_sum over rows", X6 "  %r = reduce_sum %x {dims = [0]}\n", 3, {3, 5, 7}},
    {"reduce_sum over all", X6 "  %r = reduce_sum %x {dims = [0, 1]}\n", 1, {15}},
    {"reduce_max", X6 "  %n = neg %x\n  %r = reduce_max %n {dims = [1]}\n", 2, {0, -3}},
    {"softmax",
     "  %a = iota {axis = 0} : f64[2]\n  %r = softmax %a {axis = 0}\n",
     2,
     {1 / (1 + E_), E_ / (1 + E_)}},
    {"softmax on axis 0",
     "  %a = iota {axis = 0} : f64[2,2]\n  %r = softmax %a {axis = 0}\n",
     4,
     {1 / (1 + E_), 1 / (1 + E_), E_ / (1 + E_), E_ / (1 + E_)}},
    {"log_softmax",
     "  %a = const {value = 1000.0} : f64[4]\n  %r = log_softmax %a {axis = 0}\n",
     4,
     {-1.3862943611198906, -1.3862943611198906, -1.3862943611198906, -1.3862943611198906}},
    {"cross_entropy",
     "  %a = const {value = 2.0} : f32[2,4]\n  %t = iota {axis = 0} : i32[2]\n  %r = cross_entropy "
     "%a, %t {ignore = 1}\n",
     2,
     {1.3862943649291992, 0}},
    {"normalize",
     "  %a = iota {axis = 0} : f64[2]\n  %r = normalize %a {eps = 0.75}\n",
     2,
     {-0.5, 0.5}}, /* mean 1/2, var 1/4 */
    {"rms_normalize",
     "  %a = const {value = 3.0} : f64[2]\n  %r = rms_normalize %a {eps = 7.0}\n",
     2,
     {0.75, 0.75}},
    {"rotary",
     "  %a = iota {axis = 1} : f64[1,2,2]\n  %b = cast %a : f64[1,2,2]\n  %r = rotary %b {theta = "
     "10000.0}\n",
     4,
     {0, 0, 0.5403023058681398 - 0.8414709848078965, 0.5403023058681398 + 0.8414709848078965}},
    {"rotary inverse",
     "  %a = iota {axis = 0} : f64[2,2]\n  %b = rotary %a {theta = 10.0}\n  %r = rotary %b {theta "
     "= 10.0, inverse = true}\n",
     4,
     {0, 0, 1, 1}},
    {"matmul",
     X6 "  %t = transpose %x {perm = [1, 0]}\n  %r = matmul %x, %t\n",
     4,
     {5, 14, 14, 50}},
    {"matmul trans_b", X6 "  %r = matmul %x, %x {trans_b = true}\n", 4, {5, 14, 14, 50}},
    {"matmul trans_a",
     X6 "  %r = matmul %x, %x {trans_a = true}\n",
     9,
     {9, 12, 15, 12, 17, 22, 15, 22, 29}},
    {"matmul, matrix on the right",
     "  %a = iota {axis = 0} : f32[2,1,1]\n  %b = const {value = 3.0} : f32[1,2]\n  %r = matmul "
     "%a, %b\n",
     4,
     {0, 0, 3, 3}},
    {"matmul, batched", "  %a = iota {axis = 0} : f32[2,1,1]\n  %r = matmul %a, %a\n", 2, {0, 1}},
    {"embed",
     X6 "  %i = const {value = 1.0} : i32[2]\n  %r = embed %x, %i\n",
     6,
     {3, 4, 5, 3, 4, 5}},
    {"scatter_add",
     X6 "  %i = const {value = 1.0} : i32[2]\n  %r = scatter_add %x, %i, %x\n",
     6,
     {0, 1, 2, 6, 9, 12}},
    {"sdpa, equal scores",
     "  %q = const {value = 0.0} : f64[1,1,2,1]\n  %v = iota {axis = 2} : f64[1,1,2,1]\n"
     "  %r, %l = sdpa %q, %q, %v {scale = 1.0}\n",
     2,
     {0.5, 0.5}},
    {"sdpa causal",
     "  %q = const {value = 0.0} : f64[1,1,2,1]\n  %v = iota {axis = 2} : f64[1,1,2,1]\n"
     "  %r, %l = sdpa %q, %q, %v {scale = 1.0, causal = true}\n",
     2,
     {0, 0.5}},
    {"sdpa lse",
     "  %q = const {value = 1.0} : f64[1,1,2,1]\n  %o, %r = sdpa %q, %q, %q {scale = 3.0, causal = "
     "true}\n",
     2,
     {3, 3.6931471824645996}},
    {"sdpa masked out",
     "  %q = const {value = 0.0} : f64[1,1,2,1]\n  %m = iota {axis = 0} : i32[2,1]\n  %n = cast %m "
     ": i1[2,1]\n"
     "  %v = const {value = 7.0} : f64[1,1,2,1]\n  %r, %l = sdpa %q, %q, %v, %n {scale = 1.0}\n",
     2,
     {0, 7}},
    {"sdpa bias",
     "  %q = const {value = 0.0} : f64[1,1,1,1]\n  %k = const {value = 0.0} : f64[1,1,2,1]\n  %v = "
     "iota {axis = 2} : f64[1,1,2,1]\n"
     "  %b = iota {axis = 0} : f64[2]\n  %r, %l = sdpa %q, %k, %v, %b {scale = 1.0}\n",
     1,
     {E_ / (1 + E_)}},
    /* p = 1/2 each; out = 1/2; dout = 1: delta = 1/2, ds = 1/2 (v - 1/2) = -1/4, 1/4; dv = 1/2 */
    {"sdpa_grad d v",
     "  %q = const {value = 1.0} : f64[1,1,1,1]\n  %k = const {value = 3.0} : f64[1,1,2,1]\n  %v = "
     "iota {axis = 2} : f64[1,1,2,1]\n"
     "  %o, %l = sdpa %q, %k, %v {scale = 2.0}\n  %a, %b, %r = sdpa_grad %q, %k, %v, %o, %l, %q "
     "{scale = 2.0}\n",
     2,
     {0.5, 0.5}},
    {"sdpa_grad d k",
     "  %q = const {value = 1.0} : f64[1,1,1,1]\n  %k = const {value = 3.0} : f64[1,1,2,1]\n  %v = "
     "iota {axis = 2} : f64[1,1,2,1]\n"
     "  %o, %l = sdpa %q, %k, %v {scale = 2.0}\n  %a, %r, %c = sdpa_grad %q, %k, %v, %o, %l, %q "
     "{scale = 2.0}\n",
     2,
     {-0.5, 0.5}},
    {"sdpa_grad_bias",
     "  %q = const {value = 1.0} : f64[1,1,1,1]\n  %k = const {value = 3.0} : f64[1,1,2,1]\n  %v = "
     "iota {axis = 2} : f64[1,1,2,1]\n"
     "  %b = const {value = 0.0} : f64[2]\n  %o, %l = sdpa %q, %k, %v, %b {scale = 2.0}\n"
     "  %r = sdpa_grad_bias %q, %k, %v, %o, %l, %q, %b {scale = 2.0}\n",
     2,
     {-0.25, 0.25}},
    {"all_finite", X6 "  %i = const {value = inf} : f32[2]\n  %r = all_finite %x, %i\n", 1, {0}},
    {"sum_squares", X6 "  %i = const {value = 2.0} : f32[2]\n  %r = sum_squares %x, %i\n", 1, {63}},
    {"fused",
     X6 "  %r = fused %x {kind = \"nest\"} (%a: f32[2,3]) {\n    %b = mul %a, %a\n    %s = "
        "reduce_sum %b {dims = [1]}\n    return %s\n  }\n",
     2,
     {5, 50}},
    {"gelu", "  %a = const {value = 1.0} : f64[1]\n  %r = gelu %a\n", 1, {0.8413447460685429}},
    {"gelu_tanh",
     "  %a = const {value = 1.0} : f64[1]\n  %r = gelu_tanh %a\n",
     1,
     {0.8411919906082768}},
    {"select",
     "  %a = iota {axis = 0} : i32[2]\n  %c = cast %a : i1[2]\n  %r = select %c, %a, %a\n",
     2,
     {0, 1}},
};

/* p = 1, g = 2, m = 0.5, v = 0.25; gscale 0.5, lr 0.1, c1 = c2 = 1; g * gscale = 1 */
#define STATE                                                                                      \
    "  %p = const {value = 1.0} : f64[1]\n  %g = const {value = 2.0} : f64[1]\n  %m = const "      \
    "{value = 0.5} : f64[1]\n"                                                                     \
    "  %v = const {value = 0.25} : f64[1]\n  %s = const {value = 0.5} : f32[]\n  %lr = const "     \
    "{value = 0.125} : f32[]\n"                                                                    \
    "  %c = const {value = 1.0} : f32[]\n  %on = const {value = 1.0} : i1[]\n  %off = const "      \
    "{value = 0.0} : i1[]\n"
#define SHOW3 "  %r = concat %a, %b, %d {axis = 0}\n"
#define SHOW2 "  %r = concat %a, %b {axis = 0}\n"

static const Case updates[] = {
    /* m = 0.5 * 0.5 + 0.5 = 0.75; v = 0.75 * 0.25 + 0.25 = 0.4375; p = 1 - 0.125 * 0.5 - 0.125 *
       0.75 / (sqrt(0.4375) + 0.1) */
    {"adamw",
     STATE "  %a, %b, %d = adam_update %p, %g, %m, %v, %s, %lr, %c, %c, %on {beta1 = 0.5, beta2 = "
           "0.75, decay = 0.5, eps = 0.1, kind = \"adamw\"}\n" SHOW3,
     3,
     {0.9375 - 0.09375 / 0.76143782776614765, 0.75, 0.4375}},
    /* g = 1 + 0.5 = 1.5; m = 1; v = 0.1875 + 0.25 * 2.25 = 0.75 */
    {"adam",
     STATE "  %a, %b, %d = adam_update %p, %g, %m, %v, %s, %lr, %c, %c, %on {beta1 = 0.5, beta2 = "
           "0.75, decay = 0.5, eps = 0.1, kind = \"adam\"}\n" SHOW3,
     3,
     {1 - 0.125 / 0.96602540378443865, 1, 0.75}},
    {"adamw skipped",
     STATE "  %a, %b, %d = adam_update %p, %g, %m, %v, %s, %lr, %c, %c, %off {beta1 = 0.5, beta2 = "
           "0.75, decay = 0.5, eps = 0.1, kind = \"adamw\"}\n" SHOW3,
     3,
     {1, 0.5, 0.25}},
    /* g = 1 + 0.5 = 1.5; m = 0.5 * 0.5 + 1.5 = 1.75; p = 1 - 0.125 * 1.75 */
    {"sgd",
     STATE "  %a, %b = sgd_update %p, %g, %m, %s, %lr, %on {momentum = 0.5, decay = 0.5}\n" SHOW2,
     2,
     {0.78125, 1.75}},
    /* p = 1 - 0.125 * (1.5 + 0.5 * 1.75) */
    {"sgd nesterov",
     STATE "  %a, %b = sgd_update %p, %g, %m, %s, %lr, %on {momentum = 0.5, decay = 0.5, nesterov "
           "= true}\n" SHOW2,
     2,
     {0.703125, 1.75}},
    {"sgd skipped",
     STATE "  %a, %b = sgd_update %p, %g, %m, %s, %lr, %off {momentum = 0.5}\n" SHOW2,
     2,
     {1, 0.5}},
    /* p = 1 - 0.125 * (1 + 0.5) */
    {"descent", STATE "  %r = descent_update %p, %g, %s, %lr, %on {decay = 0.5}\n", 1, {0.8125}},
    {"descent skipped",
     STATE "  %r = descent_update %p, %g, %s, %lr, %off {decay = 0.5}\n",
     1,
     {1}},
    /* sign(0.5 * 0.5 + 0.5) = 1; p = 1 - 0.125 * (1 + 0.5); m = 0.75 * 0.5 + 0.25 */
    {"lion",
     STATE "  %a, %b = lion_update %p, %g, %m, %s, %lr, %on {beta1 = 0.5, beta2 = 0.75, decay = "
           "0.5}\n" SHOW2,
     2,
     {0.8125, 0.625}},
    {"lion skipped",
     STATE "  %a, %b = lion_update %p, %g, %m, %s, %lr, %off {beta1 = 0.5, beta2 = 0.75}\n" SHOW2,
     2,
     {1, 0.5}},
};

typedef struct Ctx {
    Arena arena;
    SourceSet sources;
    Diag diag;
} Ctx;

static Module *parse(Ctx *cx, const char *text)
{
    memset(cx, 0, sizeof *cx);
    cx->sources.arena = &cx->arena;
    cx->diag = (Diag){.arena = &cx->arena, .sources = &cx->sources};
    Module *m = module_parse(&cx->arena, &cx->sources, &cx->diag, "t.zir", text, strlen(text));
    if (m && module_verify(m, NULL) != ZM_OK) m = NULL;
    if (!m) diag_print(&cx->diag, stderr);
    return m;
}

/* The wanted numbers are written with 16 digits: equal to a few parts in 1e15. */
static bool is_close(double got, double want)
{
    return got == want || fabs(got - want) <= 4e-15 * fabs(want);
}

static bool run_case(Ctx *cx, Module *m, EvalTensor *out)
{
    const Func *f = func_find(m, "f");
    Eval *e = eval_new(&cx->arena, m);
    /* cases in f64 are not disturbed by results that are f32 by their type, as lse */
    const Op *ret = op_cget(f, f->last);
    e->is_unrounded = value_type(f, ret->in[0])->dtype == DT_F64;
    return eval_run(e, f, NULL, &cx->arena, out) == ZM_OK;
}

static bool check_case(const Case *k)
{
    Ctx cx;
    Str text = {0};
    str_addf(&text, "func @f() {\n%s  return %%r\n}\n", k->text);
    Module *m = parse(&cx, text.at);
    EvalTensor out = {0};
    bool is_ok = m && run_case(&cx, m, &out) && type_elems(out.type) == k->n;
    for (int i = 0; is_ok && i < k->n; i++)
        if (!is_close(out.at[i], k->want[i])) {
            fprintf(stderr, "%s[%d]: %.17g, not %.17g\n", k->name, i, out.at[i], k->want[i]);
            is_ok = false;
        }
    if (!is_ok) fprintf(stderr, "FAIL %s\n", k->name);
    str_free(&text);
    arena_free(&cx.arena);
    return is_ok;
}

static void test_vars(void)
{
    Ctx cx;
    Module *m = parse(
        &cx,
        "var @b : f32[8] {bucket = true, init = zeros}\n"
        "var @w : f32[2] {in = @b, offset = 2, init = ones}\nvar @n : i32[] {init = const(5.0)}\n"
        "func @f(%x: f32[2]) {\n  %w = read @w\n  %y = add %w, %x\n  write @w, %y\n  %b = read "
        "@b\n  return %b, %y\n}\n");
    ZM_CHECK(m != NULL);
    Eval *e = eval_new(&cx.arena, m);
    double x[] = {10, 20};
    EvalTensor in = {value_type(func_find(m, "f"), func_find(m, "f")->params.at[0]), x}, out[2];
    for (int run = 1; run <= 2; run++) {
        ZM_CHECK(eval_run(e, func_find(m, "f"), &in, &cx.arena, out) == ZM_OK);
        ZM_CHECK(out[0].at[1] == 0 && out[0].at[2] == 1 + 10 * run && out[0].at[3] == 1 + 20 * run);
    }
    ZM_CHECK(*eval_var(e, var_find(m, "n")) == 5);
    Eval *other = eval_new(&cx.arena, m);
    eval_copy_vars(other, e);
    ZM_CHECK(eval_var(other, var_find(m, "w"))[1] == 41);
    arena_free(&cx.arena);
}

/* random: in range, changed by each part of the key, row b of a batch = the same sample alone. */
static void test_random(void)
{
    Ctx cx;
    Module *m =
        parse(&cx, "func @two(%k: i32[4]) {\n  %r = random %k {batch = 2, stream = \"a\"} : "
                   "f32[2,300]\n  return %r\n}\n"
                   "func @one(%k: i32[4]) {\n  %r = random %k {batch = 1, stream = \"a\"} : "
                   "f32[1,300]\n  return %r\n}\n"
                   "func @drop(%k: i32[4]) {\n  %x = const {value = 3.0} : f32[2,300]\n"
                   "  %r = drop %x, %k {batch = 2, p = 0.25, stream = \"a\"}\n  return %r\n}\n");
    ZM_CHECK(m != NULL);
    Eval *e = eval_new(&cx.arena, m);
    const Func *two = func_find(m, "two");
    double key[] = {1, 2, 3, 4};
    EvalTensor in = {value_type(two, two->params.at[0]), key}, base, other, dropped;
    ZM_CHECK(eval_run(e, two, &in, &cx.arena, &base) == ZM_OK);
    ZM_CHECK(eval_run(e, func_find(m, "drop"), &in, &cx.arena, &dropped) == ZM_OK);
    double sum = 0;
    for (int i = 0; i < 600; i++) {
        ZM_CHECK(base.at[i] >= 0 && base.at[i] < 1);
        ZM_CHECK(dropped.at[i] == (base.at[i] >= 0.25 ? 4 : 0));
        sum += base.at[i];
    }
    ZM_CHECK(fabs(sum / 600 - 0.5) < 5 * 0.2887 / sqrt(600)); /* five standard errors */
    for (int k = 0; k < 4; k++) {
        key[k]++;
        ZM_CHECK(eval_run(e, two, &in, &cx.arena, &other) == ZM_OK);
        ZM_CHECK(other.at[0] != base.at[0] && other.at[301] != base.at[301]);
        key[k]--;
    }
    key[3]++;
    ZM_CHECK(eval_run(e, func_find(m, "one"), &in, &cx.arena, &other) == ZM_OK);
    ZM_CHECK(memcmp(other.at, base.at + 300, 300 * sizeof(double)) == 0);
    arena_free(&cx.arena);
}

/* Known answers of the authors' Random123 distribution (kat_vectors, philox 4x32 10). */
static void test_philox(void)
{
    Philox zero = philox(0, 0, 0, 0, 0, 0);
    Philox ones = philox(~0u, ~0u, ~0u, ~0u, ~0u, ~0u);
    const uint32_t want0[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t want1[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    ZM_CHECK(memcmp(zero.x, want0, sizeof want0) == 0);
    ZM_CHECK(memcmp(ones.x, want1, sizeof want1) == 0);
}

static void test_out_of_range(void)
{
    Ctx cx;
    Module *m = parse(&cx, "func @f(%i: i32[1]) {\n  %x = const {value = 1.0} : f32[2,3]\n  %r = "
                           "embed %x, %i\n  return %r\n}\n");
    ZM_CHECK(m != NULL);
    double index = 2;
    EvalTensor in = {value_type(func_find(m, "f"), func_find(m, "f")->params.at[0]), &index}, out;
    ZM_CHECK(eval_run(eval_new(&cx.arena, m), func_find(m, "f"), &in, &cx.arena, &out) == ZM_FAIL);
    ZM_CHECK(cx.diag.n_errors == 1 &&
             strstr(cx.diag.msgs.at[0].text, "index 2 is outside of the table's 2 rows"));
    arena_free(&cx.arena);
}

static void test_unrounded(void)
{
    Ctx cx;
    Module *m = parse(&cx, "func @f(%x: f32[1]) {\n  %y = exp %x\n  return %y\n}\n");
    double x = 0.1;
    EvalTensor in = {value_type(func_find(m, "f"), func_find(m, "f")->params.at[0]), &x}, out;
    Eval *e = eval_new(&cx.arena, m);
    ZM_CHECK(eval_run(e, func_find(m, "f"), &in, &cx.arena, &out) == ZM_OK &&
             *out.at == (float)exp(0.1));
    e->is_unrounded = true;
    ZM_CHECK(eval_run(e, func_find(m, "f"), &in, &cx.arena, &out) == ZM_OK && *out.at == exp(0.1));
    arena_free(&cx.arena);
}

int main(void)
{
    int n_failed = 0, n = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++, n++)
        n_failed += !check_case(&cases[i]);
    for (size_t i = 0; i < sizeof updates / sizeof *updates; i++, n++)
        n_failed += !check_case(&updates[i]);
    test_vars();
    test_random();
    test_philox();
    test_out_of_range();
    test_unrounded();
    printf("%d cases, %d failed\n", n, n_failed);
    return n_failed != 0;
}
