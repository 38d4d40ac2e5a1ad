/* attention.c -- prints attention: one warp per row, online softmax, nothing of size T x S.
 *
 * Forward: a row is a query.  Its scores come one key after another; the running maximum m, sum l
 * and output o are rescaled when m grows (Milakov and Gimelshein, arXiv:1805.02867).  Backward:
 * probabilities are computed again from lse.  Rows [0, B H T) are queries and give d q; rows [B H
 * T, B H T + B H S) are keys and give d k and d v.  Every sum has one order, there are no atomics.
 * Lanes split the D or Dv elements of a row.  No shared memory and no tensor cores: this is the
 * variant that runs everywhere. */
#include "codegen/cuda/print.h"

enum { LANES = 32 };

/* ---- text of addresses and values ---- */

typedef struct Attn {
    Printer *p;
    const AttnSpec *s;
    const char *type; /* of the arithmetic: float, or double for f64 */
} Attn;

/* Ends a line with what it computes and the .zm line. */
static void end_line(Attn *x, const char *what)
{
    str_add(x->p->out, ";");
    print_end(x->p, what, x->p->k->loc);
}

static int64_t per_lane(int64_t width)
{
    return (width + LANES - 1) / LANES;
}

/* Element number of [b, h, row, column] of an operand. */
static void print_element(Attn *x, const AttnOperand *o, const char *row, const char *column)
{
    const char *name[] = {"b", "h", row, column};
    str_addf(x->p->out, "a%d[%lld", o->arg, (long long)o->base);
    for (int i = 0; i < 4; i++)
        if (o->stride[i]) str_addf(x->p->out, " + %lldLL * %s", (long long)o->stride[i], name[i]);
    str_add(x->p->out, "]");
}

static void print_load(Attn *x, const AttnOperand *o, const char *row, const char *column)
{
    bool is_half = o->dtype == DT_BF16 || o->dtype == DT_F16;
    str_add(x->p->out, is_half ? "zm_to_float(" : o->dtype == DT_F64 ? "" : "(");
    print_element(x, o, row, column);
    str_add(x->p->out, o->dtype == DT_F64 ? "" : ")");
}

static void print_store(Attn *x, const AttnOperand *o, const char *row, const char *column,
                        const char *value)
{
    print_indent(x->p);
    print_element(x, o, row, column);
    const char *to = o->dtype == DT_BF16 ? "zm_to_bf16" : o->dtype == DT_F16 ? "zm_to_f16" : "";
    str_addf(x->p->out, " = %s((%s)(%s))", to, register_type(o->dtype), value);
    end_line(x, "store");
}

/* for (int i = 0, d = lane; i < n; i++, d += 32) if (d < width) { : this lane's elements of a row
 */
static void open_lanes(Attn *x, int64_t width)
{
    print_line(x->p, "for (int i = 0, d = lane; d < %lld; i++, d += %d) {", (long long)width,
               LANES);
    x->p->depth++;
}

/* type name[n]: this lane's part of a row of an operand, or zeros (o NULL). */
static void print_row(Attn *x, const char *name, const AttnOperand *o, const char *row,
                      int64_t width)
{
    print_line(x->p, "%s %s[%lld] = {0};", x->type, name, (long long)per_lane(width));
    if (!o) return;
    open_lanes(x, width);
    print_indent(x->p);
    str_addf(x->p->out, "%s[i] = ", name);
    print_load(x, o, row, "d");
    str_add(x->p->out, ";\n");
    print_close(x->p);
}

/* const type name = the sum over d of reg[i] * operand[row, d]. */
static void print_dot(Attn *x, const char *name, const char *reg, const AttnOperand *o,
                      const char *row, int64_t width, const char *what)
{
    print_line(x->p, "%s %s = 0;", x->type, name);
    open_lanes(x, width);
    print_indent(x->p);
    str_addf(x->p->out, "%s += %s[i] * ", name, reg);
    print_load(x, o, row, "d");
    end_line(x, what);
    print_close(x->p);
    print_line(x->p, "%s = zm_warp<zm_sum>(%s);", name, name);
}

/* to[i] += factor * operand[row, d] */
static void print_add_row(Attn *x, const char *to, const char *factor, const AttnOperand *o,
                          const char *row, int64_t width, const char *what)
{
    open_lanes(x, width);
    print_indent(x->p);
    str_addf(x->p->out, "%s[i] += %s * ", to, factor);
    print_load(x, o, row, "d");
    end_line(x, what);
    print_close(x->p);
}

static void print_store_row(Attn *x, const AttnOperand *o, const char *row, int64_t width,
                            const char *value)
{
    open_lanes(x, width);
    print_store(x, o, row, "d", value);
    print_close(x->p);
}

/* ---- one pair of a query t and a key s ---- */

/* `continue`s where t does not see s; else declares score. */
static void print_score(Attn *x, const char *reg, const AttnOperand *other, const char *row)
{
    const AttnSpec *s = x->s;
    Printer *p = x->p;
    if (s->mask.arg >= 0) {
        print_indent(p);
        str_add(p->out, "if (!");
        print_element(x, &s->mask, "t", "s");
        str_add(p->out, ") continue;\n");
    }
    if (s->bias.arg >= 0) { /* before the product: NVRTC 13.0 crashes on a load behind it */
        print_indent(p);
        str_addf(p->out, "const %s bias = ", x->type);
        print_load(x, &s->bias, "t", "s");
        str_add(p->out, ";\n");
    }
    print_dot(x, "score", reg, other, row, s->D, "q k^T");
    print_indent(p);
    str_add(p->out, "score = score * ");
    print_const(p->out, s->q.dtype == DT_F64 ? DT_F64 : DT_F32, s->scale);
    str_add(p->out, s->bias.arg >= 0 ? " + bias" : "");
    end_line(x, "score");
    print_line(p, "if (score == -ZM_INF) continue;");
}

/* const type keep = the factor of dropout for (t, s). */
static void print_keep(Attn *x)
{
    const AttnSpec *s = x->s;
    int key = s->key.arg, stream = s->stream.arg;
    long long k = (long long)s->key.base, w = (long long)s->stream.base;
    if (s->p <= 0) {
        print_line(x->p, "const %s keep = 1;", x->type);
        return;
    }
    print_line(x->p, "const unsigned int e = (unsigned int)((h * %lldLL + t) * %lldLL + s);",
               (long long)s->T, (long long)s->S);
    print_line(x->p,
               "const float u = zm_random(a%d[%lld], a%d[%lld], a%d[%lld], a%d[%lld] + (int)b, e,",
               key, k, key, k + 1, key, k + 2, key, k + 3);
    print_line(x->p, "                          (unsigned int)a%d[%lld], (unsigned int)a%d[%lld]);",
               stream, w, stream, w + 1);
    print_indent(x->p);
    str_addf(x->p->out, "const %s keep = u >= ", x->type);
    print_const(x->p->out, DT_F32, s->p);
    str_add(x->p->out, " ? (");
    str_add(x->p->out, x->type);
    str_add(x->p->out, ")");
    print_const(x->p->out, s->q.dtype == DT_F64 ? DT_F64 : DT_F32, 1 / (1 - s->p));
    str_add(x->p->out, " : 0");
    end_line(x, "dropout");
}

static const char *exp_name(const Attn *x)
{
    return x->s->q.dtype == DT_F64 ? "exp" : "expf";
}

/* ---- the kernel ---- */

/* b, h and t or s out of `row`, which counts [B, H, extent]. */
static void print_place(Attn *x, const char *row, const char *name, int64_t extent)
{
    print_line(x->p, "const int %s = (int)(%s %% %lld);", name, row, (long long)extent);
    print_line(x->p, "const long long h = %s / %lld %% %lld, b = %s / %lld;", row,
               (long long)extent, (long long)x->s->H, row, (long long)(extent * x->s->H));
}

static void print_last_key(Attn *x)
{
    const AttnSpec *s = x->s;
    if (s->is_causal)
        print_line(x->p, "const int n_keys = t + 1 + %lld < %lld ? t + 1 + %lld : %lld;",
                   (long long)(s->S - s->T), (long long)s->S, (long long)(s->S - s->T),
                   (long long)s->S);
    else
        print_line(x->p, "const int n_keys = %lld;", (long long)s->S);
}

static void print_forward(Attn *x)
{
    const AttnSpec *s = x->s;
    Printer *p = x->p;
    const char *e = exp_name(x);
    print_place(x, "row", "t", s->T);
    print_row(x, "q", &s->q, "t", s->D);
    print_row(x, "o", NULL, "t", s->Dv);
    print_line(p, "%s m = -ZM_INF, l = 0;", x->type);
    print_last_key(x);
    print_open(p, "for (int s = 0; s < n_keys; s++)");
    print_score(x, "q", &s->k, "s");
    print_line(p, "const %s up = zm_max(m, score), old = %s(m - up), prob = %s(score - up);",
               x->type, e, e);
    print_keep(x);
    print_line(p, "l = l * old + prob;");
    print_line(p, "m = up;");
    print_line(p, "const %s weight = prob * keep;", x->type);
    open_lanes(x, s->Dv);
    print_line(p, "o[i] *= old;");
    print_close(p);
    print_add_row(x, "o", "weight", &s->v, "s", s->Dv, "P v");
    print_close(p);
    print_line(p, "const %s by = l == 0 ? 0 : 1 / l;", x->type);
    print_store_row(x, &s->out, "t", s->Dv, "o[i] * by");
    if (s->lse.arg < 0) return;
    print_open(p, "if (lane == 0)");
    print_store(x, &s->lse, "t", "0", s->q.dtype == DT_F64 ? "m + log(l)" : "m + logf(l)");
    print_close(p);
}

/* Declares prob and ds, d loss / d (q k) of the pair; dp is dout[t] v[s], delta is dout[t] out[t].
 */
static void print_pair_gradient(Attn *x, const char *lse)
{
    Printer *p = x->p;
    print_line(p, "const %s prob = %s(score - %s);", x->type, exp_name(x), lse);
    print_keep(x);
    print_indent(p);
    str_add(p->out, "const ");
    str_addf(p->out, "%s ds = prob * (keep * dp - delta) * ", x->type);
    print_const(p->out, x->s->q.dtype == DT_F64 ? DT_F64 : DT_F32, x->s->scale);
    end_line(x, "dS");
}

static void print_lse(Attn *x)
{
    print_indent(x->p);
    str_addf(x->p->out, "const %s lse = ", x->type);
    print_load(x, &x->s->lse, "t", "0");
    str_add(x->p->out, ";\n");
}

static void print_backward_query(Attn *x)
{
    const AttnSpec *s = x->s;
    Printer *p = x->p;
    print_place(x, "row", "t", s->T);
    print_row(x, "q", &s->q, "t", s->D);
    print_row(x, "g", &s->dout, "t", s->Dv);
    print_row(x, "dq", NULL, "t", s->D);
    print_dot(x, "delta", "g", &s->out, "t", s->Dv, "delta");
    print_lse(x);
    print_last_key(x);
    print_open(p, "for (int s = 0; s < n_keys; s++)");
    print_score(x, "q", &s->k, "s");
    print_dot(x, "dp", "g", &s->v, "s", s->Dv, "dout v^T");
    print_pair_gradient(x, "lse");
    print_add_row(x, "dq", "ds", &s->k, "s", s->D, "dS k");
    print_close(p);
    print_store_row(x, &s->dq, "t", s->D, "dq[i]");
}

static void print_backward_key(Attn *x)
{
    const AttnSpec *s = x->s;
    Printer *p = x->p;
    print_line(p, "const long long key = row - %lldLL;", (long long)(s->B * s->H * s->T));
    print_place(x, "key", "s", s->S);
    print_row(x, "k", &s->k, "s", s->D);
    print_row(x, "v", &s->v, "s", s->Dv);
    print_row(x, "dk", NULL, "s", s->D);
    print_row(x, "dv", NULL, "s", s->Dv);
    print_line(p, "for (int t = 0; t < %lld; t++) {", (long long)s->T);
    p->depth++;
    if (s->is_causal) print_line(p, "if (s > t + %lld) continue;", (long long)(s->S - s->T));
    print_score(x, "k", &s->q, "t");
    print_dot(x, "dp", "v", &s->dout, "t", s->Dv, "dout v^T");
    print_row(x, "g", &s->dout, "t", s->Dv);
    print_dot(x, "delta", "g", &s->out, "t", s->Dv, "delta");
    print_lse(x);
    print_pair_gradient(x, "lse");
    print_line(p, "const %s weight = prob * keep;", x->type);
    print_add_row(x, "dk", "ds", &s->q, "t", s->D, "dS^T q");
    print_add_row(x, "dv", "weight", &s->dout, "t", s->Dv, "P^T dout");
    print_close(p);
    print_store_row(x, &s->dk, "s", s->D, "dk[i]");
    print_store_row(x, &s->dv, "s", s->Dv, "dv[i]");
}

int64_t attention_rows(const AttnSpec *s)
{
    return s->B * s->H * (s->is_backward ? s->T + s->S : s->T);
}

void print_attention(Printer *p)
{
    const AttnSpec *s = &p->k->attn;
    Attn x = {p, s, s->q.dtype == DT_F64 ? "double" : "float"};
    print_line(p, "const int lane = threadIdx.x %% %d;", LANES);
    print_line(p,
               "for (long long row = blockIdx.x * %lldLL + threadIdx.x / %d; row < %lldLL; row += "
               "gridDim.x * %lldLL) {",
               (long long)p->s.rows_per_block, LANES, (long long)p->s.n_rows,
               (long long)p->s.rows_per_block);
    p->depth++;
    if (s->is_backward) {
        print_line(p, "if (row < %lldLL) {", (long long)(s->B * s->H * s->T));
        p->depth++;
        print_backward_query(&x);
        p->depth--;
        print_open(p, "} else");
        print_backward_key(&x);
        print_close(p);
    } else {
        print_forward(&x);
    }
    print_close(p);
}
