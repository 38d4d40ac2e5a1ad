/* rt_tiny.h -- a training program made by hand, for tests of the runtime without a compiler.
 *
 * Bigram model over bytes: logits = w[token] + b, cross-entropy, sgd with momentum; B = 2, T = 8, A
 * = 2, V = 256. Parameters w [V, V] and b [V] are views of one bucket, the moment and the
 * accumulator belong to the bucket; the published name of w is "transformer.w" (strip), "lm.bias"
 * is b's (rename), "head" an alias of w, "*.mask" ignored. tiny_break selects a fault that a kernel
 * then has.  tiny_low (set before tiny_build) makes w and b 16-bit variables with f32 masters. */
#ifndef RT_TINY_H
#define RT_TINY_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ir/base/arena.h"
#include "ir/base/str.h"
#include "runtime/convert.h"
#include "runtime/program.h"
#include "runtime/zmrt.h"
#include "tests/unit/check.h"

enum { TB = 2, TT = 8, TA = 2, TV = 256, TN = TV * TV + TV, TPAD = TN + 64 };
enum TinyBreak { BREAK_NOTHING, BREAK_READS_DEAD, BREAK_WRITES_OUTSIDE, BREAK_NAN_LOSS };
static enum TinyBreak tiny_break;
static uint32_t tiny_low; /* 0, ZMP_BF16 or ZMP_F16 */
static Arena tiny_arena;  /* blobs, to the end of the test */

/* ---- kernels ---- */

/* tokens, targets, bucket, probs, items; one task a row of B * T */
static void k_forward(char *const *bufs, int64_t row, char *scratch)
{
    (void)scratch;
    const int32_t *tokens = (const void *)bufs[0], *targets = (const void *)bufs[1];
    const float *w = (const void *)bufs[2];
    float *p = (float *)(void *)bufs[3] + row * TV, *items = (void *)bufs[4];
    const float *wr = w + tokens[row] * TV, *b = w + TV * TV;
    double sum = 0;
    for (int v = 0; v < TV; v++) sum += exp((double)(wr[v] + b[v]));
    for (int v = 0; v < TV; v++) p[v] = (float)(exp((double)(wr[v] + b[v])) / sum);
    int32_t t = targets[row];
    items[row] = t < 0 ? 0 : (float)-log((double)p[t]);
    if (tiny_break == BREAK_NAN_LOSS && row == 3) p[5] = NAN;
    if (tiny_break == BREAK_WRITES_OUTSIDE && row == TB * TT - 1) items[TB * TT] = 1;
}

/* tokens, targets, probs, items, accumulator, loss_sum, count; phase 0: a task a row of w */
static void k_backward_w(char *const *bufs, int64_t v, char *scratch)
{
    (void)scratch;
    const int32_t *tokens = (const void *)bufs[0], *targets = (const void *)bufs[1];
    const float *p = (const void *)bufs[2];
    float *g = (float *)(void *)bufs[4] + v * TV;
    for (int row = 0; row < TB * TT; row++) {
        if (tokens[row] != v || targets[row] < 0) continue;
        for (int c = 0; c < TV; c++) g[c] += p[row * TV + c] - (c == targets[row] ? 1.0f : 0.0f);
    }
}

static void k_backward_b(char *const *bufs, int64_t task, char *scratch)
{
    (void)task;
    (void)scratch;
    const int32_t *targets = (const void *)bufs[1];
    const float *p = (const void *)bufs[2], *items = (const void *)bufs[3];
    float *g = (float *)(void *)bufs[4] + TV * TV;
    double *loss_sum = (void *)bufs[5], *count = (void *)bufs[6];
    for (int row = 0; row < TB * TT; row++) {
        if (targets[row] < 0) continue;
        for (int c = 0; c < TV; c++) g[c] += p[row * TV + c] - (c == targets[row] ? 1.0f : 0.0f);
        *loss_sum += (double)items[row];
        *count += 1;
    }
}

/* count, factor */
static void k_factor(char *const *bufs, int64_t task, char *scratch)
{
    (void)task;
    (void)scratch;
    *(float *)(void *)bufs[1] = (float)(1 / *(double *)(void *)bufs[0]);
}

enum { S_STEP, S_UPDATE, S_LOSS_SUM, S_COUNT, S_LOSS, S_NORM, S_LR, S_SKIPPED, S_SKIPS, N_S };

/* bucket (masters), moment, accumulator, factor, the scalars in the order of S_, 16-bit bucket */
static void k_update(char *const *bufs, int64_t task, char *scratch)
{
    (void)task;
    (void)scratch;
    float *w = (void *)bufs[0], *m = (void *)bufs[1], *g = (void *)bufs[2];
    float f = *(float *)(void *)bufs[3];
    char *const *s = bufs + 4;
    double square = 0;
    bool is_finite = isfinite(f);
    for (int i = 0; i < TN; i++) {
        is_finite = is_finite && isfinite(g[i]);
        square += (double)g[i] * f * g[i] * f;
    }
    for (int i = 0; i < TN && is_finite; i++) {
        m[i] = 0.5f * m[i] + g[i] * f;
        w[i] -= 0.5f * m[i];
    }
    if (tiny_low) convert_from_f32(bufs[4 + N_S], tiny_low, w, TN);
    int32_t *skipped = (void *)s[S_SKIPPED], *skips = (void *)s[S_SKIPS];
    *skipped = !is_finite;
    *skips = is_finite ? 0 : *skips + 1;
    *(int32_t *)(void *)s[S_STEP] += 1;
    *(int32_t *)(void *)s[S_UPDATE] += is_finite;
    *(double *)(void *)s[S_LOSS] = *(double *)(void *)s[S_LOSS_SUM] / *(double *)(void *)s[S_COUNT];
    *(double *)(void *)s[S_NORM] = sqrt(square);
    *(double *)(void *)s[S_LR] = 0.5;
    *(double *)(void *)s[S_LOSS_SUM] = *(double *)(void *)s[S_COUNT] = 0;
}

/* targets, items, eval_loss_sum, eval_count, probs (dead when broken) */
static void k_eval(char *const *bufs, int64_t task, char *scratch)
{
    (void)task;
    (void)scratch;
    const int32_t *targets = (const void *)bufs[0];
    const float *items = (const void *)bufs[1];
    for (int row = 0; row < TB * TT; row++) {
        if (targets[row] < 0) continue;
        *(double *)(void *)bufs[2] += (double)items[row];
        *(double *)(void *)bufs[3] += 1;
    }
    if (tiny_break == BREAK_READS_DEAD)
        *(double *)(void *)bufs[2] += (double)*(float *)(void *)bufs[4];
}

/* tokens [1, T], bucket, logits [1, T, V] */
static void k_generate(char *const *bufs, int64_t t, char *scratch)
{
    (void)scratch;
    const float *w = (const void *)bufs[1];
    int32_t token = ((const int32_t *)(const void *)bufs[0])[t];
    for (int v = 0; v < TV; v++)
        ((float *)(void *)bufs[2])[t * TV + v] = w[token * TV + v] + w[TV * TV + v];
}

static const ZmKernelFn tiny_fns[] = {k_forward, k_backward_w, k_backward_b, k_factor,
                                      k_update,  k_eval,       k_generate};

/* ---- the blob ---- */

typedef struct Tiny {
    ZmpHeader h;
    char strings[8192];
    uint32_t n_strings;
    ZmpVar vars[32];
    ZmpBuffer buffers[64];
    ZmpKernel kernels[8];
    ZmpArg args[96];
    ZmpCommand commands[24];
    ZmpCollective collectives[4];
    ZmpFunc funcs[4];
    ZmpPort ports[16];
    ZmpFeed feeds[2];
    ZmpWeightRule rules[4];
    uint32_t n_vars, n_buffers, n_kernels, n_args, n_commands, n_funcs, n_ports, n_collectives;
    int64_t persistent;
    uint32_t low; /* tiny_low of its kernels */
    ZmrtImage image;
} Tiny;

static inline uint32_t tiny_str(Tiny *t, const char *s)
{
    uint32_t at = t->n_strings, n = (uint32_t)strlen(s) + 1;
    CHECK(at + n <= sizeof t->strings);
    memcpy(t->strings + at, s, n);
    t->n_strings += n;
    return at;
}

static inline int32_t tiny_buffer(Tiny *t, const char *name, int func, int64_t offset,
                                  int64_t bytes, int from, int to)
{
    t->buffers[t->n_buffers] = (ZmpBuffer){.name = tiny_str(t, name),
                                           .cat = tiny_str(t, func < 0 ? "params" : "activations"),
                                           .loc = tiny_str(t, "tiny.zm:5:1"),
                                           .func = func,
                                           .arena_offset = offset,
                                           .bytes = bytes,
                                           .live_from = from,
                                           .live_to = to};
    int64_t end = (offset + bytes + 63) / 64 * 64;
    if (end > (int64_t)t->h.arena_bytes) t->h.arena_bytes = (uint64_t)end;
    return (int32_t)t->n_buffers++;
}

/* A variable with storage of its own. */
static inline int32_t tiny_var(Tiny *t, const char *name, uint32_t kind, uint32_t dtype,
                               int64_t elems, int32_t of)
{
    int64_t bytes = elems * zmp_dtype_bytes(dtype);
    ZmpVar *v = &t->vars[t->n_vars];
    *v = (ZmpVar){.name = tiny_str(t, name),
                  .loc = tiny_str(t, "tiny.zm:3:3"),
                  .kind = kind,
                  .dtype = dtype,
                  .rank = elems > 1,
                  .is_bucket = elems > 1,
                  .in = -1,
                  .of = of,
                  .dim = {elems},
                  .elems = elems,
                  .arena_offset = t->persistent};
    v->buffer = tiny_buffer(t, name, -1, t->persistent, bytes, 0, 0);
    t->persistent += (bytes + 63) / 64 * 64;
    return (int32_t)t->n_vars++;
}

static inline int32_t tiny_view(Tiny *t, const char *name, int32_t in, int64_t offset,
                                uint32_t rank, uint32_t init)
{
    ZmpVar *v = &t->vars[t->n_vars++];
    *v = t->vars[in];
    v->name = tiny_str(t, name);
    v->rank = rank;
    v->is_bucket = 0;
    v->in = in;
    v->in_offset = offset;
    v->init = init;
    v->init_a = 0.02;
    v->dim[0] = TV;
    v->dim[1] = rank == 2 ? TV : 0;
    v->elems = rank == 2 ? TV * TV : TV;
    v->arena_offset += zmp_dtype_bytes(v->dtype) * offset;
    return (int32_t)(v - t->vars);
}

static inline void tiny_kernel(Tiny *t, const char *name, uint32_t first_fn, int64_t tasks0,
                               int64_t tasks1)
{
    t->kernels[t->n_kernels++] = (ZmpKernel){.name = tiny_str(t, name),
                                             .n_phases = tasks1 ? 2 : 1,
                                             .first_fn = first_fn,
                                             .n_tasks = {tasks0, tasks1},
                                             .task_cost = {20000, 20000}};
}

static inline void tiny_arg(Tiny *t, int32_t buffer, uint32_t flags, uint32_t dtype)
{
    t->args[t->n_args++] = (ZmpArg){.buffer = buffer,
                                    .flags = flags,
                                    .bytes = t->buffers[buffer].bytes,
                                    .dtype = dtype,
                                    .name = t->buffers[buffer].name};
}

/* text: "k0 r3i r4i w5f": kernel 0, then flags, buffer, dtype (i i32, f f32, d f64, h tiny_low) of
 * each argument; z zero, p probe */
static inline void tiny_command(Tiny *t, const char *text, const char *loc)
{
    ZmpCommand *c = &t->commands[t->n_commands++];
    *c = (ZmpCommand){.first_arg = t->n_args, .loc = tiny_str(t, loc), .flops = 1e6, .bytes = 1e5};
    c->kind = *text == 'k' ? ZMP_KERNEL : *text == 'z' ? ZMP_ZERO : ZMP_PROBE;
    if (*text == 'k') c->kernel = (uint32_t)(text[1] - '0');
    c->label = *text == 'k' ? t->kernels[c->kernel].name : tiny_str(t, "other");
    for (const char *at = strchr(text, ' '); at; at = strchr(at, ' ')) {
        char mode = at[1], *end;
        int32_t buffer = (int32_t)strtol(at + 2, &end, 10);
        uint32_t flags = mode == 'r'   ? ZMP_ARG_READ
                         : mode == 'w' ? ZMP_ARG_WRITE
                                       : ZMP_ARG_READ | ZMP_ARG_WRITE;
        tiny_arg(t, buffer, flags,
                 *end == 'i'   ? ZMP_I32
                 : *end == 'd' ? ZMP_F64
                 : *end == 'h' ? tiny_low
                               : ZMP_F32);
        at = end;
    }
    c->n_args = t->n_args - c->first_arg;
}

static inline void tiny_port(Tiny *t, const char *name, int32_t buffer, uint32_t dtype, int64_t b,
                             int64_t n, int64_t v)
{
    t->ports[t->n_ports++] = (ZmpPort){.name = tiny_str(t, name),
                                       .dtype = dtype,
                                       .rank = v ? 3 : 2,
                                       .buffer = buffer,
                                       .dim = {b, n, v}};
}

static inline void tiny_func(Tiny *t, const char *name, uint32_t first_command, uint32_t first_in,
                             uint32_t n_in, uint32_t n_out)
{
    t->funcs[t->n_funcs++] = (ZmpFunc){.name = tiny_str(t, name),
                                       .first_command = first_command,
                                       .n_commands = t->n_commands - first_command,
                                       .first_in = first_in,
                                       .n_in = n_in,
                                       .first_out = first_in + n_in,
                                       .n_out = n_out,
                                       .peak_live = 1000};
}

/* Inputs, probs and items of a function, at the same offsets in each; returns the first buffer of
 * tokens, targets, probs, items. */
static inline int32_t tiny_activations(Tiny *t, int func, int n_commands)
{
    int64_t at = t->persistent, ints = 4 * TB * TT, probs = 4 * TB * TT * TV;
    int32_t first = tiny_buffer(t, "tokens", func, at, ints, -1, n_commands);
    tiny_buffer(t, "targets", func, at + ints, ints, -1, n_commands);
    tiny_buffer(t, "probs", func, at + 2 * ints, probs, 0, func == 2 ? 0 : 1);
    tiny_buffer(t, "items", func, at + 2 * ints + probs, ints, 0, 1);
    tiny_port(t, "tokens", first, ZMP_I32, TB, TT, 0);
    tiny_port(t, "targets", first + 1, ZMP_I32, TB, TT, 0);
    return first;
}

static inline void tiny_functions(Tiny *t, int32_t bucket, int32_t low, int32_t moment,
                                  int32_t grad, int32_t scalars, int32_t eval_sum)
{
    char text[256];
    for (int func = 0; func < 3; func++) { /* micro, last, eval */
        uint32_t first_command = t->n_commands, first_in = t->n_ports;
        int32_t a = tiny_activations(t, func, func == 1 ? 6 : 2);
        snprintf(text, sizeof text, "k0 r%di r%di r%df w%df w%df", a, a + 1, bucket, a + 2, a + 3);
        tiny_command(t, text, "tiny.zm:8:3");
        if (func == 2)
            snprintf(text, sizeof text, "k4 r%di r%df u%dd u%dd r%df", a + 1, a + 3, eval_sum,
                     eval_sum + 1, a + 2);
        else
            snprintf(text, sizeof text, "k1 r%di r%di r%df r%df u%df u%dd u%dd", a, a + 1, a + 2,
                     a + 3, grad, scalars + S_LOSS_SUM, scalars + S_COUNT);
        tiny_command(t, text, "tiny.zm:9:3");
        if (func == 1) {
            int32_t factor = tiny_buffer(t, "factor", 1, t->persistent + 64 * 1024, 4, 2, 4);
            snprintf(text, sizeof text, "k2 r%dd w%df", scalars + S_COUNT, factor);
            tiny_command(t, text, "tiny.zm:10:3");
            snprintf(text, sizeof text, "p r%df r%df", grad, factor);
            tiny_command(t, text, "tiny.zm:10:3");
            t->args[t->n_args - 2].name = t->buffers[low < 0 ? bucket : low].name;
            int n =
                snprintf(text, sizeof text, "k3 u%df u%df u%df r%df", bucket, moment, grad, factor);
            for (int i = 0; i < N_S; i++)
                n += snprintf(text + n, sizeof text - (size_t)n, " u%d%c", scalars + i,
                              i == S_STEP || i == S_UPDATE || i == S_SKIPPED || i == S_SKIPS ? 'i'
                                                                                             : 'd');
            if (low >= 0) snprintf(text + n, sizeof text - (size_t)n, " w%d%c", low, 'h');
            tiny_command(t, text, "tiny.zm:11:3");
            snprintf(text, sizeof text, "z w%df", grad);
            tiny_command(t, text, "tiny.zm:11:3");
        }
        tiny_func(t,
                  func == 0   ? "micro"
                  : func == 1 ? "last"
                              : "eval",
                  first_command, first_in, 2, 0);
    }
    uint32_t first_command = t->n_commands, first_in = t->n_ports;
    int32_t tokens = tiny_buffer(t, "tokens", 3, t->persistent, 4 * TT, -1, 0);
    int32_t logits = tiny_buffer(t, "logits", 3, t->persistent + 64, 4 * TT * TV, 0, 1);
    tiny_port(t, "tokens", tokens, ZMP_I32, 1, TT, 0);
    tiny_port(t, "logits", logits, ZMP_F32, 1, TT, TV);
    snprintf(text, sizeof text, "k5 r%di r%df w%df", tokens, bucket, logits);
    tiny_command(t, text, "tiny.zm:8:3");
    tiny_func(t, "generate", first_command, first_in, 1, 1);
}

static inline ZmpRange tiny_table(Str *out, const void *at, size_t each, size_t n)
{
    while (out->n % 8) str_add_n(out, "", 1);
    ZmpRange r = {out->n, n};
    str_add_n(out, at, each * n);
    return r;
}

static inline void tiny_pack(Tiny *t)
{
    Str out = {0};
    str_add_n(&out, (const char *)&t->h, sizeof t->h);
    ZmpHeader h = t->h;
    h.strings = tiny_table(&out, t->strings, 1, t->n_strings);
    h.vars = tiny_table(&out, t->vars, sizeof *t->vars, t->n_vars);
    h.buffers = tiny_table(&out, t->buffers, sizeof *t->buffers, t->n_buffers);
    h.kernels = tiny_table(&out, t->kernels, sizeof *t->kernels, t->n_kernels);
    h.args = tiny_table(&out, t->args, sizeof *t->args, t->n_args);
    h.commands = tiny_table(&out, t->commands, sizeof *t->commands, t->n_commands);
    h.funcs = tiny_table(&out, t->funcs, sizeof *t->funcs, t->n_funcs);
    h.ports = tiny_table(&out, t->ports, sizeof *t->ports, t->n_ports);
    h.feeds = tiny_table(&out, t->feeds, sizeof *t->feeds, 2);
    h.weight_rules = tiny_table(&out, t->rules, sizeof *t->rules, 4);
    h.collectives = tiny_table(&out, t->collectives, sizeof *t->collectives, t->n_collectives);
    memcpy(out.at, &h, sizeof h);
    t->image = (ZmrtImage){.program = arena_strndup(&tiny_arena, out.at, out.n),
                           .program_bytes = out.n,
                           .kernel_fns = tiny_fns};
    str_free(&out);
}

static inline void tiny_build(Tiny *t)
{
    *t = (Tiny){.low = tiny_low};
    tiny_str(t, "");
    int32_t bucket = tiny_var(t, "bucket.0", ZMP_PARAM, tiny_low ? tiny_low : ZMP_F32, TPAD, -1);
    int32_t w = tiny_view(t, "w", bucket, 0, 2, ZMP_NORMAL);
    int32_t b = tiny_view(t, "b", bucket, TV * TV, 1, ZMP_ZEROS);
    int32_t masters = bucket;
    if (tiny_low) {
        masters = tiny_var(t, "master.bucket.0", ZMP_MASTER, ZMP_F32, TPAD, bucket);
        t->vars[tiny_view(t, "master.w", masters, 0, 2, ZMP_NORMAL)].of = w;
        t->vars[tiny_view(t, "master.b", masters, TV * TV, 1, ZMP_ZEROS)].of = b;
    }
    int32_t moment = tiny_var(t, "sgd.m.bucket.0", ZMP_MOMENT, ZMP_F32, TPAD, bucket);
    int32_t grad = tiny_var(t, "grad.bucket.0", ZMP_GRAD, ZMP_F32, TPAD, bucket);
    static const char *const names[N_S] = {ZMP_S_STEP,  ZMP_S_UPDATE,  ZMP_S_LOSS_SUM,
                                           ZMP_S_COUNT, ZMP_S_LOSS,    ZMP_S_GRAD_NORM,
                                           ZMP_S_LR,    ZMP_S_SKIPPED, ZMP_S_SKIPS};
    int32_t scalars = t->vars[grad].buffer + 1;
    for (int i = 0; i < N_S; i++) {
        bool is_int = i == S_STEP || i == S_UPDATE || i == S_SKIPPED || i == S_SKIPS;
        tiny_var(t, names[i], ZMP_SCALAR, is_int ? ZMP_I32 : ZMP_F64, 1, -1);
    }
    int32_t eval_sum = t->vars[tiny_var(t, ZMP_S_EVAL_SUM, ZMP_SCALAR, ZMP_F64, 1, -1)].buffer;
    tiny_var(t, ZMP_S_EVAL_COUNT, ZMP_SCALAR, ZMP_F64, 1, -1);
    tiny_kernel(t, "forward", 0, TB * TT, 0);
    tiny_kernel(t, "backward", 1, TV, 1);
    tiny_kernel(t, "factor", 3, 1, 0);
    tiny_kernel(t, "update", 4, 1, 0);
    tiny_kernel(t, "eval", 5, 1, 0);
    tiny_kernel(t, "generate", 6, TT, 0);
    tiny_functions(t, t->vars[masters].buffer, tiny_low ? t->vars[bucket].buffer : -1,
                   t->vars[moment].buffer, t->vars[grad].buffer, scalars, eval_sum);
    t->feeds[0] = (ZmpFeed){.input = tiny_str(t, "tokens"), .kind = ZMP_TOKENS, .bound = TV};
    t->feeds[1] = (ZmpFeed){.input = tiny_str(t, "targets"),
                            .kind = ZMP_TARGETS,
                            .bound = TV,
                            .ignore = -100,
                            .has_ignore = 1};
    t->rules[0] = (ZmpWeightRule){ZMP_STRIP, tiny_str(t, "transformer."), 0, 0};
    t->rules[1] = (ZmpWeightRule){ZMP_IGNORE, tiny_str(t, "*.mask"), 0, 0};
    t->rules[2] = (ZmpWeightRule){ZMP_ALIAS, tiny_str(t, "head"), tiny_str(t, "w"), 0};
    t->rules[3] = (ZmpWeightRule){ZMP_RENAME, tiny_str(t, "lm.bias"), tiny_str(t, "b"), 0};
    uint64_t arena = t->h.arena_bytes;
    t->h = (ZmpHeader){.magic = ZMP_MAGIC,
                       .version = ZMP_VERSION,
                       .ranks = 1,
                       .accumulate = TA,
                       .hash = 7,
                       .arena_bytes = arena,
                       .persistent_bytes = (uint64_t)t->persistent,
                       .scratch_bytes = 256,
                       .batch = TB,
                       .items = TB * TT,
                       .n_params = TN,
                       .model = tiny_str(t, "tiny"),
                       .target = tiny_str(t, "cpu"),
                       .cpu = tiny_str(t, "x86-64"),
                       .precision = tiny_str(t, tiny_low == ZMP_BF16  ? "bf16"
                                                : tiny_low == ZMP_F16 ? "fp16"
                                                                      : "fp32"),
                       .source = tiny_str(t, "tiny.zm"),
                       .command_line = tiny_str(t, "zmc tiny.zm -o tiny"),
                       .cpu_features = tiny_str(t, "sse2"),
                       .plan_text = tiny_str(t, "the plan of tiny")};
    tiny_pack(t);
}

/* ---- running ---- */

static char tiny_dir[] = "/tmp/zmrt-test-XXXXXX";

static inline void tiny_remove_dir(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", tiny_dir);
    if (system(command) != 0) fprintf(stderr, "could not remove %s\n", tiny_dir);
}

/* A directory for the test's files, the working directory from now on. */
static inline void tiny_enter_dir(void)
{
    CHECK(mkdtemp(tiny_dir) != NULL);
    CHECK(chdir(tiny_dir) == 0);
}

static inline char *tiny_read(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    CHECK(in != NULL);
    char *text = calloc(1, 1 << 22);
    size_t got = fread(text, 1, (1 << 22) - 1, in);
    fclose(in);
    if (n) *n = got;
    return text;
}

static inline void tiny_write(const char *path, const void *at, size_t n)
{
    FILE *out = fopen(path, "wb");
    CHECK(out && fwrite(at, 1, n, out) == n && fclose(out) == 0);
}

static inline bool tiny_same(const char *x, const char *y)
{
    size_t n, m;
    char *a = tiny_read(x, &n), *b = tiny_read(y, &m);
    bool is_same = n == m && memcmp(a, b, n) == 0;
    free(a);
    free(b);
    return is_same;
}

static inline bool tiny_has(const char *path, const char *text)
{
    char *all = tiny_read(path, NULL);
    bool has = strstr(all, text) != NULL;
    if (!has) fprintf(stderr, "%s lacks \"%s\":\n%s\n", path, text, all);
    free(all);
    return has;
}

/* Starts zmrt_main(line) in a child, stdout and stderr in files `out` and `err`; prepare (or NULL)
 * runs there first. */
static inline pid_t tiny_start(const Tiny *t, void (*prepare)(void), const char *line)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    tiny_low = t->low;
    CHECK(freopen("out", "wb", stdout) && freopen("err", "wb", stderr));
    static char text[4200];
    snprintf(text, sizeof text, "tiny %s", line);
    char *argv[64];
    int argc = 0;
    for (char *at = strtok(text, " "); at; at = strtok(NULL, " ")) argv[argc++] = at;
    if (prepare) prepare();
    exit(zmrt_main(argc, argv, &t->image));
}

static inline int tiny_wait(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline int tiny_run(const Tiny *t, const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    return tiny_wait(tiny_start(t, NULL, line));
}

/* Bytes that a bigram model can learn. */
static inline void tiny_text(const char *path, size_t n)
{
    static const char words[] = "the quick brown fox jumps over the lazy dog and ";
    FILE *out = fopen(path, "wb");
    CHECK(out != NULL);
    for (size_t i = 0; i < n; i++) fputc(words[(i * 7 / 5) % (sizeof words - 1)], out);
    CHECK(fclose(out) == 0);
}

#endif
