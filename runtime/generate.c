/* generate.c -- --generate: text from function @generate, one token at a time.
 *
 * The window holds the last T tokens at most; positions behind them are zero, which a causal model
 * does not see.  The next token is drawn among the 40 likeliest at temperature 0.8, by Philox keyed
 * with the seed and the token's number. */
#include "runtime/ranks.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/base/philox.h"
#include "runtime/convert.h"
#include "runtime/output.h"
#include "runtime/signals.h"

enum { TOP_K = 40, STREAM = 0x67656e65, MAX_BYTE_VOCABULARY = 256 };
static const double temperature = 0.8;

typedef struct Generator {
    const ZmpPort *tokens, *logits;
    int64_t T, V;
    int32_t *text; /* prompt and what was generated */
    int64_t n, cap;
    float *row; /* logits of one position */
} Generator;

static RtStatus find_ports(const Run *r, Generator *g, RtError *e)
{
    const Program *p = &r->p;
    if (!p->generate)
        return RT_FAIL(e, RT_BAD,
                       "--generate: this model was compiled without a function that generates (it "
                       "needs an output named logits over its tokens)");
    g->logits = program_out(p, p->generate, "logits");
    for (uint32_t i = 0; i < p->n_feeds && !g->tokens; i++)
        if (p->feeds[i].kind == ZMP_TOKENS)
            g->tokens = program_in(p, p->generate, program_str(p, p->feeds[i].input));
    if (!g->tokens || g->tokens->dtype != ZMP_I32)
        return RT_FAIL(e, RT_BAD,
                       "--generate continues text: it needs a model with data { causal(tokens, "
                       "targets) }, and this one has other data");
    if (!g->logits || g->logits->rank < 2)
        return RT_FAIL(e, RT_BAD,
                       "--generate: this model has no output named logits to draw tokens from");
    g->T = port_elems(g->tokens);
    g->V = g->logits->dim[g->logits->rank - 1];
    if (port_elems(g->logits) != g->T * g->V)
        return RT_FAIL(e, RT_BAD, "--generate: the model's logits are not one row for each token");
    return RT_OK;
}

/* ---- the prompt ---- */

static RtStatus add_token(Generator *g, int64_t v, RtError *e)
{
    if (v < 0 || v >= g->V)
        return RT_FAIL(e, RT_BAD, "--prompt: token %lld is out of range, the vocabulary has %lld",
                       (long long)v, (long long)g->V);
    g->text[g->n++] = (int32_t)v;
    return RT_OK;
}

static RtStatus prompt_bytes(Generator *g, const char *prompt, RtError *e)
{
    for (const unsigned char *c = (const unsigned char *)prompt; *c; c++)
        RT_TRY(add_token(g, *c, e));
    return g->n ? RT_OK : add_token(g, g->V > '\n' ? '\n' : 0, e);
}

static RtStatus prompt_numbers(Generator *g, const char *prompt, RtError *e)
{
    for (const char *at = prompt; *at;) {
        char *end;
        long long v = strtoll(at, &end, 10);
        if (end == at)
            return RT_FAIL(e, RT_BAD,
                           "--prompt: with a vocabulary of %lld the prompt is numbers of tokens "
                           "(\"15496 995\"), not \"%s\"",
                           (long long)g->V, prompt);
        RT_TRY(add_token(g, v, e));
        at = end + strspn(end, " ,\t\n");
    }
    if (g->n) return RT_OK;
    return RT_FAIL(
        e, RT_BAD,
        "--generate: with a vocabulary of %lld give --prompt, the numbers of the first tokens",
        (long long)g->V);
}

static RtStatus generator_open(const Run *r, Generator *g, RtError *e)
{
    *g = (Generator){0};
    RT_TRY(find_ports(r, g, e));
    const char *prompt = r->o.prompt ? r->o.prompt : "";
    g->cap = (int64_t)strlen(prompt) + r->o.generate + 1;
    g->text = calloc((size_t)g->cap, sizeof *g->text);
    g->row = calloc((size_t)g->V, sizeof *g->row);
    if (!g->text || !g->row)
        return RT_FAIL(e, RT_FAILED, "cannot get memory for %lld tokens", (long long)g->cap);
    return g->V <= MAX_BYTE_VOCABULARY ? prompt_bytes(g, prompt, e) : prompt_numbers(g, prompt, e);
}

static void generator_close(Generator *g)
{
    free(g->text);
    free(g->row);
}

RtStatus generate_check(const Run *r, RtError *e)
{
    Generator g;
    RtStatus s = generator_open(r, &g, e);
    generator_close(&g);
    return s;
}

/* ---- drawing ---- */

/* The top k of the row, best first, the lower index first among equals.  Returns how many. */
static int top_tokens(const float *row, int64_t n, int32_t best[TOP_K])
{
    int k = 0;
    for (int64_t v = 0; v < n; v++) {
        if (k == TOP_K && row[v] <= row[best[k - 1]]) continue;
        int at = k < TOP_K ? k++ : k - 1;
        for (; at > 0 && row[best[at - 1]] < row[v]; at--) best[at] = best[at - 1];
        best[at] = (int32_t)v;
    }
    return k;
}

static int32_t draw(const float *row, int64_t n, uint64_t seed, int64_t number)
{
    int32_t best[TOP_K] = {0};
    double weight[TOP_K], sum = 0;
    int k = top_tokens(row, n, best);
    for (int i = 0; i < k; i++) sum += weight[i] = exp((row[best[i]] - row[best[0]]) / temperature);
    Philox x = philox((uint32_t)number, (uint32_t)((uint64_t)number >> 32), STREAM, 0,
                      (uint32_t)seed, (uint32_t)(seed >> 32));
    double u = (x.x[0] + 0.5) * 0x1p-32 * sum;
    for (int i = 0; i < k; i++) {
        u -= weight[i];
        if (u < 0) return best[i];
    }
    return best[k > 0 ? k - 1 : 0]; /* the sum's rounding */
}

static RtStatus next_token(Run *r, Generator *g, RtError *e)
{
    int64_t n = g->n < g->T ? g->n : g->T;
    char *in = exec_port(&r->x, g->tokens);
    memset(in, 0, (size_t)g->T * sizeof *g->text);
    memcpy(in, g->text + (g->n - n), (size_t)n * sizeof *g->text);
    fill_rng(&r->x, r->p.generate, r->seed, r->step, g->n);
    RT_TRY(exec_run(&r->x, r->p.generate, e));
    const char *row =
        exec_port(&r->x, g->logits) + (n - 1) * g->V * zmp_dtype_bytes(g->logits->dtype);
    exec_fetch(&r->x, row, g->V * zmp_dtype_bytes(g->logits->dtype));
    convert_to_f32(g->row, row, g->logits->dtype, (size_t)g->V);
    for (int64_t v = 0; v < g->V; v++)
        if (!isfinite(g->row[v]))
            return RT_FAIL(e, RT_FAILED,
                           "--generate: logit %lld is %g; run with --check-numerics to see where "
                           "it comes from",
                           (long long)v, (double)g->row[v]);
    g->text[g->n] = draw(g->row, g->V, r->seed, g->n);
    g->n++;
    return RT_OK;
}

static RtStatus show(const Run *r, const Generator *g, int64_t from, RtError *e)
{
    if (r->rank > 0) return RT_OK; /* all ranks draw the same */
    for (int64_t i = from; i < g->n; i++) {
        if (g->V <= MAX_BYTE_VOCABULARY)
            putchar(g->text[i]);
        else
            printf("%s%d", i ? " " : "", g->text[i]);
    }
    return fflush(stdout) == 0 ? RT_OK : output_failed("stdout", errno, e);
}

static RtStatus generate_all(Run *r, Generator *g, RtError *e)
{
    if (r->o.prompt) RT_TRY(show(r, g, 0, e));
    for (int64_t i = 0; i < r->o.generate; i++) {
        int64_t signal;
        RT_TRY(ranks_max(r, signal_pending(), &signal, "a signal", e));
        if (signal) break;
        RT_TRY(next_token(r, g, e));
        RT_TRY(show(r, g, g->n - 1, e));
    }
    if (r->rank > 0) return RT_OK;
    putchar('\n');
    return fflush(stdout) == 0 ? RT_OK : output_failed("stdout", errno, e);
}

RtStatus run_generate(Run *r, RtError *e)
{
    Generator g;
    RtStatus s = generator_open(r, &g, e);
    if (s == RT_OK) s = generate_all(r, &g, e);
    generator_close(&g);
    return s;
}
