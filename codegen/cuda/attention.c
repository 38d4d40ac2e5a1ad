/* attention.c -- prints attention (AttnSpec), forward and backward.
 *
 * A warp owns a row: a query, or, for dk and dv, a key.  The rows of the other kind pass by 32 at a
 * time, one a lane, through shared memory in squares of 32 columns, so T x S is never stored and
 * any width fits.  A lane accumulates columns lane, lane + 32, ... of the results of its warp's
 * row.
 *
 * Forward: softmax as it goes; a new largest score m' scales what was summed by exp(m - m').
 * Backward, with P = exp(scale q k^T + bias - lse), Z the dropout's factor (0 or 1 / (1 - p)) and
 * delta = rowsum(dout out):
 *   dS = scale P (Z (dout v^T) - delta),  dq = dS k,  dk = dS^T q,  dv = (Z P)^T dout.
 * The first blocks compute dq, the others dk and dv: all sums run in ascending order, whatever the
 * grid.  See "FlashAttention-2", arXiv:2307.08691. */
#include "codegen/cuda/attention.h"

#include <math.h>
#include <stdio.h>

enum { LANES = 32, ROWS = CUDA_ATTENTION_ROWS };

/* ---- products ---- */

/* to[r][lane] = row `row`, column c0 + lane; zeros past the ends. */
static void print_fill(Attention *x, const char *to, const char *row, const Matrix *m, int multiple)
{
    Str *out = x->p->out;
    const char *joint = "";
    print_indent(x->p);
    str_addf(out, "%s[lane] = ", to);
    if (m->side->n % multiple) {
        str_addf(out, "%s < %lld", row, m->side->n);
        joint = " && ";
    }
    if (m->columns % LANES) {
        str_addf(out, "%sc0 + lane < %lld", joint, m->columns);
        joint = " ";
    }
    if (*joint) str_add(out, " ? ");
    print_load(x, m->name, m->o, row, m->o->stride[3] == 1 ? "c0 + lane" : "(c0 + lane)");
    str_add(out, *joint ? " : 0;\n" : ";\n");
}

static void print_fill_tile(Attention *x, const Matrix *m)
{
    print_line(x->p, "for (int r = w; r < %d; r += %d) {", LANES, ROWS);
    x->p->depth++;
    print_line(x->p, "const %s row = %s + r;", x->p->index_type, m->side->first);
    print_fill(x, "tile[r]", "row", m, LANES);
    print_close(x->p);
}

/* to = sum over columns of the warp's row of `mine` times the lane's row of `theirs`. */
static void print_dot(Attention *x, const char *to, const Matrix *mine, const Matrix *theirs,
                      const char *what)
{
    print_line(x->p, "%s %s = 0;", x->real, to);
    print_line(x->p, "for (int c0 = 0; c0 < %lld; c0 += %d) {", mine->columns, LANES);
    x->p->depth++;
    print_line(x->p, "__syncthreads();");
    print_fill(x, "own[w]", mine->side->row, mine, ROWS);
    print_fill_tile(x, theirs);
    print_line(x->p, "__syncthreads();");
    char text[128];
    snprintf(text, sizeof text,
             "for (int c = 0; c < %d; c++) %s = fma%s(own[w][c], tile[lane][c], %s);", LANES, to,
             x->f, to);
    print_noted(x, what, text);
    print_close(x->p);
}

/* acc += sum over the tile's rows of weight * row; weight[w][r] is the warp's weight of row r. */
static void print_add_rows(Attention *x, const char *acc, const char *weight, const Matrix *m,
                           const char *what)
{
    print_line(x->p, "#pragma unroll");
    print_line(x->p, "for (int c0 = 0; c0 < %lld; c0 += %d) {", m->columns, LANES);
    x->p->depth++;
    print_line(x->p, "__syncthreads();");
    print_fill_tile(x, m);
    print_line(x->p, "__syncthreads();");
    char text[160];
    snprintf(text, sizeof text,
             "for (int r = 0; r < %d; r++) %s[c0 / %d] = fma%s(%s[w][r], tile[r][lane], "
             "%s[c0 / %d]);",
             LANES, acc, LANES, x->f, weight, acc, LANES);
    print_noted(x, what, text);
    print_close(x->p);
}

static void print_accumulators(Attention *x, const char *name, const Matrix *m)
{
    print_line(x->p, "%s %s[%lld] = {};", x->real, name, (m->columns + LANES - 1) / LANES);
}

/* The warp's row of a result, each lane its columns; nothing when no op reads it. */
static void print_row(Attention *x, const Matrix *m, const char *value)
{
    if (m->o->arg < 0) return;
    print_line(x->p, "#pragma unroll");
    print_line(x->p, "for (int i = 0; i < %lld; i++) {", (m->columns + LANES - 1) / LANES);
    x->p->depth++;
    print_line(x->p, "const int d = i * %d + lane;", LANES);
    if (m->columns % LANES) print_line(x->p, "if (d >= %lld) continue;", m->columns);
    print_result(x, m->name, m->o, m->side->row, "d", value);
    print_close(x->p);
}

/* ---- scores ---- */

/* x = the score of (t, s), out of x = q k^T; -inf where it is not seen. */
static void print_score(Attention *x)
{
    const AttnSpec *s = x->s;
    Str *out = x->p->out;
    print_indent(x->p);
    str_add(out, "x = sees ? x * ");
    print_number(x, s->scale);
    if (s->bias.arg >= 0) {
        str_addf(out, " + (%s)", x->real);
        print_load(x, "bias", &s->bias, "t", "s");
    }
    str_add(out, " : ");
    print_number(x, -(double)INFINITY);
    str_add(out, ";");
    print_end(x->p, "score", x->p->k->loc);
}

/* z = what the dropout multiplies the probability of (t, s) by. */
static void print_dropout(Attention *x)
{
    if (x->s->p <= 0) return;
    print_element(x);
    print_indent(x->p);
    str_addf(x->p->out, "const %s z = ", x->real);
    print_keeps(x);
    str_add(x->p->out, " ? ");
    print_number(x, 1 / (1 - x->s->p));
    str_add(x->p->out, " : 0;");
    print_end(x->p, "dropout", x->p->k->loc);
}

static const char *dropped(const Attention *x)
{
    return x->s->p > 0 ? " * z" : "";
}

/* for (first = ...) over tiles of the other side, of which row = first + lane. */
static void print_key_loop(Attention *x)
{
    Str *out = x->p->out;
    const char *type = x->p->index_type;
    if (x->s->is_causal) {
        print_indent(x->p);
        str_addf(out, "const %s reach = t0", type);
        print_shift(x, ROWS + x->keys.n - x->queries.n);
        str_add(out, ";  // the block's last query sees s < reach\n");
        print_line(x->p, "const %s end = reach < %lld ? reach : %lld;", type, x->keys.n, x->keys.n);
    }
    print_indent(x->p);
    str_addf(out, "for (%s s0 = 0; s0 < ", type);
    if (x->s->is_causal)
        str_add(out, "end");
    else
        str_addf(out, "%lld", x->keys.n);
    str_addf(out, "; s0 += %d) {\n", LANES);
    x->p->depth++;
    print_line(x->p, "const %s s = s0 + lane;", type);
}

static void print_query_loop(Attention *x)
{
    const char *type = x->p->index_type;
    if (x->s->is_causal) {
        print_indent(x->p);
        str_addf(x->p->out, "const %s first = s0", type);
        print_shift(x, x->queries.n - x->keys.n);
        str_add(x->p->out, ";  // the first query that sees key s0\n");
    }
    print_line(x->p, "for (%s t0 = %s; t0 < %lld; t0 += %d) {", type,
               x->s->is_causal ? "first > 0 ? first / 32 * 32 : 0" : "0", x->queries.n, LANES);
    x->p->depth++;
    print_line(x->p, "const %s t = t0 + lane;", type);
}

/* ---- forward ---- */

static void print_softmax(Attention *x)
{
    char text[128];
    const char *f = x->f, *real = x->real;
    print_line(x->p, "const %s most = zm_max(top, zm_warp<zm_largest>(x));", real);
    print_line(x->p, "const %s base = most == -ZM_INF ? 0 : most;  // nothing seen so far", real);
    print_line(x->p, "const %s by = exp%s(top - base), e = exp%s(x - base);", real, f, f);
    print_line(x->p, "top = most;");
    print_line(x->p, "sum = sum * by + e;");
    snprintf(text, sizeof text, "weight[w][lane] = e%s;", dropped(x));
    print_noted(x, "softmax", text);
    print_line(x->p, "#pragma unroll");
    print_line(x->p, "for (int i = 0; i < %lld; i++) acc[i] *= by;",
               (long long)(x->s->Dv + LANES - 1) / LANES);
}

static void print_row_end(Attention *x, const Matrix *out)
{
    const AttnOperand *lse = &x->s->lse;
    char text[64];
    print_line(x->p, "const %s total = zm_warp<zm_sum>(sum);", x->real);
    print_line(x->p, "const %s inverse = total == 0 ? 0 : 1 / total;", x->real);
    print_line(x->p, "if (t >= %lld) continue;", x->queries.n);
    print_row(x, out, "acc[i] * inverse");
    if (lse->arg < 0) return;
    snprintf(text, sizeof text, "top + log%s(total)", x->f);
    print_line(x->p, "if (lane == 0)");
    x->p->depth++;
    print_result(x, "lse", lse, "t", NULL, text);
    x->p->depth--;
}

static void print_forward(Attention *x)
{
    const AttnSpec *s = x->s;
    Matrix q = {"q", &s->q, &x->queries, s->D}, k = {"k", &s->k, &x->keys, s->D},
           v = {"v", &s->v, &x->keys, s->Dv}, out = {"out", &s->out, &x->queries, s->Dv};
    print_accumulators(x, "acc", &out);
    print_indent(x->p);
    str_addf(x->p->out, "%s top = -ZM_INF, sum = 0;  // of the row; of the lane\n", x->real);
    print_key_loop(x);
    print_dot(x, "x", &q, &k, "q k^T");
    print_sees(x, true, true);
    print_score(x);
    print_dropout(x);
    print_softmax(x);
    print_add_rows(x, "acc", "weight", &v, "P v");
    print_close(x->p);
    print_row_end(x, &out);
}

/* ---- backward ---- */

/* prob and gradient of the score of (t, s), out of x = q k^T and y = dout v^T. */
static void print_gradient(Attention *x)
{
    print_sees(x, true, true);
    print_score(x);
    print_dropout(x);
    print_line(x->p, "const %s prob = exp%s(x - base);", x->real, x->f);
    print_indent(x->p);
    str_addf(x->p->out, "slope[w][lane] = prob * (y%s - delta) * ", dropped(x));
    print_number(x, x->s->scale);
    str_add(x->p->out, ";");
    print_end(x->p, "softmax", x->p->k->loc);
}

/* lse of query t as prob's base: a row that sees nothing has -inf, and probabilities 0. */
static void print_base(Attention *x)
{
    print_indent(x->p);
    str_addf(x->p->out, "const %s l = t < %lld ? ", x->real, x->queries.n);
    print_load(x, "lse", &x->s->lse, "t", NULL);
    str_addf(x->p->out, " : 0, base = l == -ZM_INF ? 0 : l;\n");
}

/* name += the lane's part of dout out of query `row`. */
static void print_delta_sum(Attention *x, const char *name, const char *row)
{
    print_line(x->p, "%s %s = 0;", x->real, name);
    print_line(x->p, "for (int d = lane; %s < %lld && d < %lld; d += %d)", row, x->queries.n,
               (long long)x->s->Dv, LANES);
    x->p->depth++;
    print_indent(x->p);
    str_addf(x->p->out, "%s = fma%s(", name, x->f);
    print_load(x, "dout", &x->s->dout, row, "d");
    str_add(x->p->out, ", ");
    print_load(x, "out", &x->s->out, row, "d");
    str_addf(x->p->out, ", %s);", name);
    print_end(x->p, "delta", x->p->k->loc);
    x->p->depth--;
}

static void print_dq(Attention *x)
{
    const AttnSpec *s = x->s;
    Matrix q = {"q", &s->q, &x->queries, s->D}, k = {"k", &s->k, &x->keys, s->D},
           v = {"v", &s->v, &x->keys, s->Dv}, dout = {"dout", &s->dout, &x->queries, s->Dv},
           dq = {"dq", &s->dq, &x->queries, s->D};
    print_base(x);
    print_delta_sum(x, "part", "t");
    print_line(x->p, "const %s delta = zm_warp<zm_sum>(part);", x->real);
    print_accumulators(x, "acc", &dq);
    print_key_loop(x);
    print_dot(x, "y", &dout, &v, "dout v^T");
    print_dot(x, "x", &q, &k, "q k^T");
    print_gradient(x);
    print_add_rows(x, "acc", "slope", &k, "dS k");
    print_close(x->p);
    print_line(x->p, "if (t >= %lld) continue;", x->queries.n);
    print_row(x, &dq, "acc[i]");
}

/* deltas[r] of the 32 queries of a tile. */
static void print_deltas(Attention *x)
{
    print_line(x->p, "for (int r = w; r < %d; r += %d) {", LANES, ROWS);
    x->p->depth++;
    print_line(x->p, "const %s row = t0 + r;", x->p->index_type);
    print_delta_sum(x, "part", "row");
    print_line(x->p, "part = zm_warp<zm_sum>(part);");
    print_line(x->p, "if (lane == 0) deltas[r] = part;");
    print_close(x->p);
}

static void print_dk_dv(Attention *x)
{
    const AttnSpec *s = x->s;
    Matrix q = {"q", &s->q, &x->queries, s->D}, k = {"k", &s->k, &x->keys, s->D},
           v = {"v", &s->v, &x->keys, s->Dv}, dout = {"dout", &s->dout, &x->queries, s->Dv},
           dk = {"dk", &s->dk, &x->keys, s->D}, dv = {"dv", &s->dv, &x->keys, s->Dv};
    char text[64];
    print_accumulators(x, "acc_k", &dk);
    print_accumulators(x, "acc_v", &dv);
    print_query_loop(x);
    print_deltas(x);
    print_dot(x, "y", &v, &dout, "dout v^T");
    print_dot(x, "x", &k, &q, "q k^T");
    print_base(x);
    print_line(x->p, "const %s delta = deltas[lane];", x->real);
    print_gradient(x);
    snprintf(text, sizeof text, "weight[w][lane] = prob%s;", dropped(x));
    print_line(x->p, "%s", text);
    print_add_rows(x, "acc_k", "slope", &q, "dS^T q");
    print_add_rows(x, "acc_v", "weight", &dout, "P^T dout");
    print_close(x->p);
    print_line(x->p, "if (s >= %lld) continue;", x->keys.n);
    print_row(x, &dk, "acc_k[i]");
    print_row(x, &dv, "acc_v[i]");
}

/* ---- the kernel ---- */

static long long blocks_of(const Side *side)
{
    return (side->n + ROWS - 1) / ROWS;
}

/* head, and the warp's row, out of the block's number among those of a side. */
static void print_place_of_block(Attention *x, const Side *side, const char *block)
{
    const char *type = x->p->index_type;
    long long n = blocks_of(side);
    if (x->s->B * x->s->H > 1) print_line(x->p, "const %s head = %s / %lld;", type, block, n);
    print_line(x->p, "const %s %s = %s %% %lld * %d, %s = %s + w;", type, side->first, block, n,
               ROWS, side->row, side->first);
    print_operands(x);
}

static void print_shared(Attention *x)
{
    const char *real = x->real;
    print_line(x->p, "// Rows are padded by one: lanes that walk a column do not collide.");
    print_line(x->p, "__shared__ %s own[%d][%d], tile[%d][%d], weight[%d][%d];", real, ROWS,
               LANES + 1, LANES, LANES + 1, ROWS, LANES + 1);
    if (x->s->is_backward)
        print_line(x->p, "__shared__ %s slope[%d][%d], deltas[%d];", real, ROWS, LANES + 1, LANES);
    print_line(x->p, "const int w = threadIdx.x / %d, lane = threadIdx.x %% %d;", LANES, LANES);
    print_words(x);
}

void print_attention(Printer *p)
{
    const AttnSpec *s = &p->k->attn;
    Attention x = attention_of(p);
    long long heads = (long long)(s->B * s->H), n_q = heads * blocks_of(&x.queries),
              n = n_q + (s->is_backward ? heads * blocks_of(&x.keys) : 0);
    print_shared(&x);
    print_line(p, "for (%s block = blockIdx.x; block < %lld; block += gridDim.x) {", p->index_type,
               n);
    p->depth++;
    if (s->is_backward) {
        print_line(p, "if (block < %lld) {  // dq: a warp owns a query", n_q);
        p->depth++;
        print_place_of_block(&x, &x.queries, "block");
        print_dq(&x);
        p->depth--;
        print_line(p, "} else {  // dk and dv: a warp owns a key");
        p->depth++;
        x.owns_keys = true;
        char number[48];
        snprintf(number, sizeof number, "(block - %lld)", n_q);
        print_place_of_block(&x, &x.keys, number);
        print_dk_dv(&x);
        print_close(p);
    } else {
        print_place_of_block(&x, &x.queries, "block");
        print_forward(&x);
    }
    print_close(p);
}
