/* ir_text.c -- textual IR: print(parse(print(parse(text)))) = print(parse(text)), what the verifier
 * refuses, and that damaged text is refused with errors and nothing worse. */
#include <stdlib.h>
#include <string.h>

#include "ir/ir.h"

static const char *const sample =
    "module \"gpt2\" {batch = 4, items = 32, arena_bytes = 4096, facts = [has_loss, fused]}\n"
    "train {optimizer = adamw, lr = 0.0006, nesterov = true, schedule = cosine, accumulate = 2} at "
    "\"g.zm\":9:1+5\n"
    "feed \"tokens\" {kind = tokens, bound = 50257}\n"
    "feed \"targets\" {kind = targets, bound = 50257, ignore = -100}\n"
    "weights strip \"transformer.\"\n"
    "weights alias \"lm_head.weight\" = \"wte.weight\"\n"
    "var @h.0.w : f32[2,3] {kind = param, init = normal(0.02), decay = true, in = @bucket.0, "
    "offset = 64}"
    " @arena+256 bytes=24 live=-1..7 cat=params !0\n"
    "var @bucket.0 : f32[128] {kind = param, init = zeros, bucket = true} !0\n"
    "var @\"odd name\\u0001\" : f64[] {kind = moment, init = const(-inf), of = @h.0.w} !7\n"
    "func @last(%tokens: i32[4,8] @arena+0 bytes=128 live=-1..2 cat=inputs, %0: f32[2,3]) {\n"
    "  %w = read @h.0.w : f32[2,3] !7 // a comment\n"
    "  %\"w w\" = add %w, %0 : f32[2,3]\n"
    "  %1 = const {value = nan} : bf16[2]\n"
    "  %2 = reduce_sum %w {dims = [0]}\n"
    "  %a, %3 = fused %w, %0 {kind = \"nest\"} (%0: f32[2,3], %x: f32[2,3]) {\n"
    "    %y = mul %0, %x : f32[2,3] !0\n"
    "    %1 = neg %y\n"
    "    return %y, %1\n"
    "  } : f32[2,3] @arena+512 bytes=24 live=3..4 cat=\"odd cat\", f32[2,3] !0\n"
    "  write @h.0.w, %a\n"
    "  return %a, %2 {names = \"loss,count\"} !8\n"
    "}\n"
    "!7 = \"g.zm\":1:2+3\n"
    "!0 = !7 autodiff \"gradient of \\\"matmul\\\"\"\n"
    "!8 = !0 fuse \"x\"\n";

typedef struct Ctx {
    Arena arena;
    SourceSet sources;
    Diag diag;
} Ctx;

static Module *parse(Ctx *cx, const char *text, size_t n)
{
    memset(cx, 0, sizeof *cx);
    cx->sources.arena = &cx->arena;
    cx->diag = (Diag){.arena = &cx->arena, .sources = &cx->sources};
    return module_parse(&cx->arena, &cx->sources, &cx->diag, "t.zir", text, n);
}

/* The text of text's module; NULL when refused. */
static char *reprint(const char *text, uint64_t *hash)
{
    Ctx cx;
    Str s = {0};
    Module *m = parse(&cx, text, strlen(text));
    if (m && module_verify(m, NULL) == ZM_OK) {
        module_print(m, &s);
        *hash = module_hash(m);
    } else {
        diag_print(&cx.diag, stderr);
    }
    arena_free(&cx.arena);
    return s.at;
}

static void test_roundtrip(void)
{
    uint64_t h1, h2;
    char *once = reprint(sample, &h1);
    ZM_CHECK(once != NULL);
    char *twice = reprint(once, &h2);
    ZM_CHECK(twice != NULL && strcmp(once, twice) == 0 && h1 == h2);
    free(once);
    free(twice);
}

/* Every error of text, as diag_print writes it. */
static bool refuses(const char *text, const char *why)
{
    Ctx cx;
    Module *m = parse(&cx, text, strlen(text));
    if (m) module_verify(m, NULL);
    bool is_found = false;
    for (uint32_t i = 0; i < cx.diag.msgs.n; i++)
        if (strstr(cx.diag.msgs.at[i].text, why)) is_found = true;
    if (!is_found) {
        fprintf(stderr, "no error '%s' for:\n%s\n", why, text);
        diag_print(&cx.diag, stderr);
    }
    arena_free(&cx.arena);
    return is_found;
}

static void test_refused(void)
{
    static const char *const cases[][2] = {
        {"func @f(%x: f32[2]) {\n  %y = neg %z\n  return\n}\n",
         "value %z is not defined before this"},
        {"func @f(%x: f32[2]) {\n  %x = neg %x\n  return\n}\n", "value %x is defined twice"},
        {"func @f(%x: f32[2]) {\n  %y = neg %x : f32[3]\n  return\n}\n",
         "neg gives f32[2], the text says f32[3]"},
        {"func @f(%x: f32[2]) {\n  %y = fuse %x\n  return\n}\n", "there is no op 'fuse'"},
        {"func @f(%x: f32[2]) {\n  %y = neg %x {axis = 1}\n  return\n}\n",
         "neg has no attribute 'axis'"},
        {"func @f(%x: f32[2]) {\n  %y = neg %x !4\n  return\n}\n", "location !4 is not defined"},
        {"func @f(%x: f32[2]) {\n  %y = neg %x\n}\n", "the last op must be return"},
        {"func @f(%x: f32[2]) {\n  return\n  %y = neg %x\n  return\n}\n",
         "return is not the last op"},
        {"func @f() {\n  return\n}\nfunc @f() {\n  return\n}\n", "function @f is defined twice"},
        {"func @f() {\n  return\n", "expected '}', not the end of the file"},
        {"func @f(%x: f32[0]) {\n  return\n}\n", "dimension 0 is 0"},
        {"func @f(%x: f32[1000000,1000000,1000000]) {\n  return\n}\n", "more than 2^48 elements"},
        {"func @f(%x: f32[2]) {\n  %y = fused %x {kind = \"nest\"} (%a: f32[2]) {\n    %d = "
         "softmax %a {axis = 0}\n    return %d\n  }\n  return\n}\n",
         "the body of a fused op may not hold softmax"},
        {"func @f(%x: f32[2]) {\n  %y = fused %x {kind = \"nest\"} (%a: f32[3]) {\n    return %a\n "
         " }\n  return\n}\n",
         "parameter 0 of the body is f32[3], the operand f32[2]"},
        {"func @f() {\n  %a = read @w\n  return %a\n}\n", "variable @w is not defined"},
        {"var @w : f32[2]\nvar @w : f32[2]\n", "variable @w is defined twice"},
        {"var @w : f32[2] {in = @b, offset = 7}\nvar @b : f32[8] {bucket = true}\n",
         "ends outside of @b"},
        {"var @w : f32[2] {in = @b}\nvar @v : f32[2] {in = @b, offset = 1}\nvar @b : f32[8] "
         "{bucket = true}\n",
         "share elements of @b"},
        {"var @w : f32[2] {in = @w}\n", "lies inside of itself"},
        {"var @w : f32[2]\nfunc @f(%x: f32[2]) {\n  %r = read @w\n  write @w, %x\n  return %r\n}\n",
         "from before a write to @w's bytes"},
        {"var @w : f32[2]\nfunc @f(%x: f32[2]) {\n  %r = read @w\n  %s = reshape %r : f32[1,2]\n  "
         "write @w, %x\n  return %s\n}\n",
         "from before a write to @w's bytes"},
        {"var @b : f32[8] {bucket = true}\nvar @w : f32[2] {in = @b}\nfunc @f(%x: f32[8]) {\n  %r "
         "= read @w\n  write @b, %x\n  return %r\n}\n",
         "from before a write to @b's bytes"},
        {"\x01", "this character means nothing here"},
        {"func @f(%x: f32[2]) {\n  %y = neg %x {value = \"a\n  return\n}\n",
         "has no end on its line"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ZM_CHECK(refuses(cases[i][0], cases[i][1]));
}

/* One mistake is one message. */
static void test_no_cascade(void)
{
    const char *text =
        "func @f(%x: f32[2]) {\n  %a = nege %x\n  %b = neg %a\n  %c = add %b, %x\n  return %c\n}\n";
    Ctx cx;
    ZM_CHECK(parse(&cx, text, strlen(text)) == NULL && cx.diag.n_errors == 1);
    arena_free(&cx.arena);
}

static void test_write_of_disjoint_view(void)
{
    uint64_t h;
    char *s = reprint(
        "var @b : f32[8] {bucket = true}\nvar @w : f32[2] {in = @b}\nvar @v : f32[2] {in = @b, "
        "offset = 2}\n"
        "func @f(%x: f32[2]) {\n  %r = read @w\n  write @v, %x\n  write @w, %r\n  return\n}\n",
        &h);
    ZM_CHECK(s != NULL);
    free(s);
}

/* Each single byte deleted or replaced: parsing and verifying end, with a module or with errors. */
static void test_damage(void)
{
    size_t n = strlen(sample);
    char *text = malloc(n + 1);
    uint32_t seed = 1;
    for (size_t i = 0; i < n; i++)
        for (int replace = 0; replace < 3; replace++) {
            memcpy(text, sample, n + 1);
            seed = seed * 1664525u + 1013904223u;
            if (replace == 0)
                memmove(text + i, text + i + 1, n - i);
            else
                text[i] =
                    (char)(replace == 1 ? seed >> 24 : (uint32_t)"{}()[]%@!:\"9,"[seed >> 24 & 7]);
            Ctx cx;
            Module *m = parse(&cx, text, replace == 0 ? n - 1 : n);
            ZM_CHECK(m || cx.diag.n_errors > 0);
            if (m) module_verify(m, NULL);
            arena_free(&cx.arena);
        }
    free(text);
}

static void test_random_bytes(void)
{
    char text[400];
    uint32_t seed = 7;
    for (int run = 0; run < 300; run++) {
        for (size_t i = 0; i < sizeof text; i++) {
            seed = seed * 1664525u + 1013904223u;
            text[i] = (char)(seed >> 24);
        }
        Ctx cx;
        ZM_CHECK(parse(&cx, text, sizeof text) == NULL);
        ZM_CHECK(cx.diag.msgs.n <= 3 * DIAG_MAX_ERRORS);
        arena_free(&cx.arena);
    }
}

int main(void)
{
    test_roundtrip();
    test_refused();
    test_no_cascade();
    test_write_of_disjoint_view();
    test_damage();
    test_random_bytes();
    printf("textual IR: ok\n");
    return 0;
}
