/* frontend_fuzz.c -- bad input never crashes the frontend: every model with any one byte deleted,
 * replaced or doubled, with two statements swapped, random tokens and random bytes.  Deterministic
 * (Philox, fixed key).  A crash is the failure; besides, what compiles must verify, and what does
 * not must say why. */
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "ir/base/philox.h"

typedef struct Tally {
    uint32_t n_runs, n_accepted;
} Tally;

typedef struct Random {
    uint32_t counter;
} Random;

static uint32_t random_below(Random *r, uint32_t n)
{
    return philox(r->counter++, 0, 0, 0, 0x5eed, 7).x[0] % n;
}

/* Small dims, so that a run takes microseconds. */
static const Define small[] = {
    {"layers", "2", false}, {"width", "16", false}, {"heads", "2", false},
    {"vocab", "11", false}, {"ctx", "8", false},    {"T", "4", false},
    {"B", "2", false},      {"in", "5", false},     {"hidden", "7", false},
};

static void compile(Tally *t, const char *text, size_t n, bool with_defines)
{
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Define defines[sizeof small / sizeof *small];
    memcpy(defines, small, sizeof small);
    FrontendOptions opt = {.defines = defines,
                           .n_defines = with_defines ? sizeof small / sizeof *small : 0};
    Module *m = frontend_compile(&arena, &sources, &diag, "fuzz.zm", text, n, &opt);
    t->n_runs++;
    t->n_accepted += m != NULL;
    ZM_CHECK(m ? diag.n_errors == 0 : diag.n_errors > 0);
    if (m) ZM_CHECK(module_verify(m, "frontend") == ZM_OK);
    FILE *sink = fopen("/dev/null", "w"); /* printing walks the places */
    diag_print(&diag, sink);
    fclose(sink);
    arena_free(&arena);
}

static char *model_read(Arena *a, const char *name, size_t *n)
{
    char *text;
    const char *here = __FILE__;
    size_t up = (size_t)(strstr(here, "tests/unit") - here);
    const char *path = arena_printf(a, "%.*smodels/%s", (int)up, here, name);
    ZM_CHECK(file_read(a, path, &text, n) == 0);
    return text;
}

/* A model keeps its defaults except for the dims in `small`: unknown -D are errors, so give only
 * those it has. */
static char *shrink(Arena *a, char *text, size_t *n)
{
    Str s = {0};
    for (const char *p = text; *p;) {
        size_t skip = 0;
        for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
            size_t len = strlen(small[i].name);
            bool is_start = p == text || p[-1] == ' ';
            if (!is_start || strncmp(p, small[i].name, len) != 0 || strncmp(p + len, " = ", 3) != 0)
                continue;
            str_addf(&s, "%s = %s", small[i].name, small[i].value);
            skip = len + 3 + strspn(p + len + 3, "0123456789");
        }
        if (!skip) str_add_n(&s, p, 1);
        p += skip ? skip : 1;
    }
    *n = s.n;
    char *out = arena_strndup(a, str_c(&s), s.n);
    str_free(&s);
    return out;
}

static void mutate_bytes(Tally *t, const char *text, size_t n, Random *r)
{
    char *buf = malloc(n + 2);
    for (size_t i = 0; i < n; i++) { /* delete */
        memcpy(buf, text, i);
        memcpy(buf + i, text + i + 1, n - i - 1);
        compile(t, buf, n - 1, false);
    }
    for (size_t i = 0; i < n; i++) { /* replace by another byte of the file, or any byte */
        memcpy(buf, text, n);
        buf[i] =
            random_below(r, 2) ? text[random_below(r, (uint32_t)n)] : (char)random_below(r, 256);
        compile(t, buf, n, false);
    }
    for (size_t i = 0; i < n; i++) { /* double */
        memcpy(buf, text, i + 1);
        memcpy(buf + i + 1, text + i, n - i);
        compile(t, buf, n + 1, false);
    }
    for (size_t i = 0; i < n; i += 7) compile(t, text, i, false); /* cut off */
    free(buf);
}

/* Removes one run of bytes and puts it elsewhere. */
static void mutate_spans(Tally *t, const char *text, size_t n, Random *r, int rounds)
{
    char *buf = malloc(n);
    for (int k = 0; k < rounds; k++) {
        size_t len = 1 + random_below(r, 60), from = random_below(r, (uint32_t)(n - len));
        size_t to = random_below(r, (uint32_t)(n - len));
        memcpy(buf, text, from);
        memcpy(buf + from, text + from + len, n - from - len);
        memmove(buf + to + len, buf + to, n - len - to);
        memcpy(buf + to, text + from, len);
        compile(t, buf, n, false);
    }
    free(buf);
}

static void random_bytes(Tally *t, Random *r, int rounds)
{
    char buf[512];
    for (int k = 0; k < rounds; k++) {
        size_t n = random_below(r, sizeof buf);
        for (size_t i = 0; i < n; i++) buf[i] = (char)random_below(r, 256);
        compile(t, buf, n, false);
    }
}

static const char *const words[] = {
    "dim ",    "const ", "block ", "model ", "param ", "let ",  "return ", "output ",     "loss ",
    "assert ", "data ",  "train ", "a",      "b.c",    "x",     "f(",      "(",           ")",
    "[",       "]",      "{",      "}",      "\n",     "\n",    "=",       ":",           ",",
    "...",     "..",     "->",     "+",      "-",      "*",     "@",       "**",          "/",
    "<",       "==",     " not ",  " and ",  "1",      "0",     "2.5",     "true",        "\"s\"",
    "split(",  "sum(",   "embed(", "zeros",  "int[",   "drop(", "1e9",     "99999999999",
};

static void random_words(Tally *t, Random *r, int rounds)
{
    for (int k = 0; k < rounds; k++) {
        Str s = {0};
        uint32_t n = random_below(r, 120);
        if (random_below(r, 2))
            str_add(&s, "dim B = 2\nmodel m(x: [B, 3], y: int[B]) {\n let a = ");
        for (uint32_t i = 0; i < n; i++)
            str_add(&s, words[random_below(r, sizeof words / sizeof *words)]);
        compile(t, str_c(&s), s.n, false);
        str_free(&s);
    }
}

/* ---- inputs that would take memory, stack or time without the limits of frontend/elab.h ---- */

static void repeat(Str *s, const char *text, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) str_add(s, text);
}

static void hostile_expressions(Tally *t)
{
    static const char *const texts[] = {"(",  "-",    "[",     "1 + ",  "a[",
                                        "f(", "not ", "x: f(", "2 ** ", "n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Str s = {0};
        str_add(&s, "dim a = ");
        repeat(&s, texts[i], 20000);
        str_add(&s, "1\n");
        compile(t, str_c(&s), s.n, false);
        str_free(&s);
    }
}

/* Blocks that each call the one before `each` times: each^30 calls if nothing stopped it. */
static void hostile_blocks(Tally *t, const char *call, const char *innermost)
{
    Str s = {0};
    str_addf(&s, "dim B = 2\nblock f0(x: [..., n]) -> [..., n] {\n return %s\n}\n", innermost);
    for (uint32_t i = 1; i < 30; i++) {
        str_addf(&s, "block f%u(x: [..., n]) -> [..., n] {\n return ", i);
        for (const char *p = call; *p; p++) {
            if (*p == '#')
                str_addf(&s, "%u", i - 1);
            else
                str_add_n(&s, p, 1);
        }
        str_add(&s, "\n}\n");
    }
    str_add(&s, "model m(x: [B, 3]) {\n loss q: f29(x)\n}\n");
    uint32_t n_accepted = t->n_accepted;
    compile(t, str_c(&s), s.n, false);
    ZM_CHECK(t->n_accepted == n_accepted); /* too large, and said so */
    str_free(&s);
}

static void hostile_sizes(Tally *t)
{
    static const char *const bodies[] = {
        "loss split(x, 1000000000)[0]",
        "loss split(x, 3, 0)[0]",
        "loss broadcast(x, [1000000000, 1000000000, 2, 3])",
        "loss full([2000000000, 1, 1], 1) @ full([1, 2000000000], 1)",
        "loss x * full([65536, 65536, 65536, 2, 3], 1)",
        "param w: [9223372036854775807, 9223372036854775807] = zeros\n loss x",
        "loss h[100000]: f(g[100000]: f(x))",
        "loss reshape(x, [..., 9223372036854775807, 9223372036854775807])",
        "loss x ** 9223372036854775807",
        "loss x * 9223372036854775807 ** 2",
        "loss x[9223372036854775807..]",
        "loss sum(x, -9223372036854775807)",
        "loss embed(full([2, 3], 1), arange(2147483647))",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        Str s = {0};
        str_addf(&s,
                 "dim B = 2\nblock f(x: [..., n]) -> [..., n] {\n return x + 1\n}\nmodel m(x: [B, "
                 "3]) {\n %s\n}\n",
                 bodies[i]);
        compile(t, str_c(&s), s.n, false);
        str_free(&s);
    }
}

/* Values of -D are parsed and evaluated like the file. */
static void hostile_defines(Tally *t, Random *r, int rounds)
{
    static const char text[] =
        "dim B = 2, n = 3\nconst c = 1\nmodel m(x: [B, n]) {\n loss x * c\n}\n";
    static const char *const names[] = {
        "B", "n", "c", "train.optimizer", "train.optimizer.betas", "train.clip", "x", ""};
    for (int k = 0; k < rounds; k++) {
        Arena arena = {0};
        SourceSet sources = {.arena = &arena};
        Diag diag = {.arena = &arena, .sources = &sources};
        Str value = {0};
        uint32_t n = random_below(r, 6);
        for (uint32_t i = 0; i < n; i++)
            str_add(&value, words[random_below(r, sizeof words / sizeof *words)]);
        Define d = {names[random_below(r, sizeof names / sizeof *names)], str_c(&value), false};
        FrontendOptions opt = {.defines = &d, .n_defines = 1};
        Module *m = frontend_compile(&arena, &sources, &diag, "fuzz.zm", text, strlen(text), &opt);
        ZM_CHECK(m ? diag.n_errors == 0 : diag.n_errors > 0);
        t->n_runs++;
        t->n_accepted += m != NULL;
        str_free(&value);
        arena_free(&arena);
    }
}

int main(void)
{
    static const char *const models[] = {"mlp.zm", "gpt2.zm"};
    Arena arena = {0};
    Tally t = {0};
    Random r = {0};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        size_t n;
        char *text = model_read(&arena, models[i], &n);
        text = shrink(&arena, text, &n);
        uint32_t accepted = t.n_accepted;
        compile(&t, text, n, false);
        ZM_CHECK(t.n_accepted == accepted + 1); /* the model itself is fine */
        mutate_bytes(&t, text, n, &r);
        mutate_spans(&t, text, n, &r, 500);
    }
    random_bytes(&t, &r, 500);
    random_words(&t, &r, 2000);
    hostile_expressions(&t);
    hostile_blocks(&t, "a[1000]: f#(x)", "x + 1");
    hostile_blocks(&t, "a: f#(b: f#(x))", "x");
    hostile_blocks(&t, "f#(f#(f#(x)))", "x");
    hostile_sizes(&t);
    hostile_defines(&t, &r, 1000);
    compile(&t, "", 0, true);
    printf("%u files, %u of them accepted\n", t.n_runs, t.n_accepted);
    arena_free(&arena);
    return 0;
}
