/* attention_mma.c -- prints attention on tensor cores; the formulas are those of attention.c.
 *
 * A warp owns rows of one side as A fragments; tiles of the other side pass through two stages of
 * shared memory, one of them being filled while the other is read.  Two C fragments side by side
 * are an A fragment, so scores become the left operand of the next product without leaving
 * registers: forward  own q         far k, v     x = q k^T                    out += P v dq own q,
 * dout   far k, v     x = q k^T, y = dout v^T      dq += dS k dk, dv   own k, v      far q, dout  x
 * = k q^T, y = v dout^T      dk += dS q, dv += P dout The backward's parts are blocks of one
 * launch; each result has one owner, which adds in ascending order.  P and dS are rounded to the
 * operands' type, as in "FlashAttention-2", arXiv:2307.08691; exponentials are powers of 2 with the
 * scale folded in.  Tiles that no query of a causal block sees are not visited, and only those that
 * some query does not see are compared. */
#include "codegen/cuda/attention.h"

#include <math.h>
#include <stdio.h>

#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453

typedef struct Flash {
    Attention at;
    FlashPart part;
    FlashTile tile;
    const char *type;     /* of the operands */
    const char *own_warp; /* the warp's first row */
    const Side *own_side, *far_side;
    Matrix own[2], far[2], result[2];
    int n_own, n_results;
    bool is_scaled; /* scores have passed through scale, bias and log2(e) when exponentiated */
} Flash;

/* ---- small pieces ---- */

static int padded(long long d)
{
    return (int)((d + 15) / 16 * 16);
}

static int pitch(const Matrix *m)
{
    return padded(m->columns) + 8;
}

/* Numbers that a lane holds of a product. */
static int n_elements(const Flash *f)
{
    return f->tile.m * f->tile.columns / 2;
}

/* Are rows of that many columns whole, aligned groups of n 16-bit numbers? */
static bool is_grouped(const Flash *f, const AttnOperand *o, long long columns, int n)
{
    bool is_whole = columns % n == 0 && o->base % n == 0 && o->stride[3] == 1 &&
                    f->at.p->k->args[o->arg].align >= 2 * n;
    for (int i = 0; i < 3; i++) is_whole = is_whole && o->stride[i] % n == 0;
    return is_whole;
}

/* 16-byte accesses? */
static bool is_wide(const Flash *f, const AttnOperand *o, long long columns)
{
    return is_grouped(f, o, columns, 8);
}

static void print_unroll(Flash *f, const char *variable, int n)
{
    print_line(f->at.p, "#pragma unroll");
    print_line(f->at.p, "for (int %s = 0; %s < %d; %s++) {", variable, variable, n, variable);
    f->at.p->depth++;
}

/* Element e of a product: fragment (i, j), number c; its query t and key s. */
static void print_pair(Flash *f, const char *e)
{
    int n = f->tile.columns / 8;
    print_line(f->at.p, "const int i = %s / %d, j = %s / 4 %% %d, c = %s %% 4;", e, 4 * n, e, n, e);
}

static void print_places(Flash *f)
{
    const Side *own = f->own_side, *far = f->far_side;
    print_line(f->at.p, "const %s %s = %s + i * 16 + c / 2 * 8 + g, %s = %s + j * 8 + c2 + c %% 2;",
               f->at.p->index_type, own->row, f->own_warp, far->row, far->first);
}

/* ---- tiles ---- */

static void print_copy(Flash *f, const char *to, const Matrix *m, int rows, const char *first)
{
    Str *out = f->at.p->out;
    print_indent(f->at.p);
    str_addf(out, "zm_%s_rows<%d, %lld>(%s, %s", is_wide(f, m->o, m->columns) ? "copy" : "fill",
             rows, m->columns, to, m->name);
    char index[64];
    snprintf(index, sizeof index, "(long long)(%s)", first);
    print_term(&f->at, " + ", index, m->o->stride[2]);
    str_addf(out, ", %lld", (long long)m->o->stride[2]);
    if (!is_wide(f, m->o, m->columns)) str_addf(out, ", %lld", (long long)m->o->stride[3]);
    str_addf(out, ", %lld - (%s));\n", m->side->n, first);
}

/* The second tile of a stage. */
static int second_at(const Flash *f)
{
    return f->tile.columns * pitch(&f->far[0]);
}

/* Both tiles of the far side from row `first` on, into a stage. */
static void print_stage(Flash *f, const char *stage, const char *first)
{
    char to[96];
    snprintf(to, sizeof to, "shared + %s * %d", stage, f->tile.stage_elems);
    print_copy(f, to, &f->far[0], f->tile.columns, first);
    snprintf(to, sizeof to, "shared + %s * %d + %d", stage, f->tile.stage_elems,
             f->tile.columns * pitch(&f->far[0]));
    print_copy(f, to, &f->far[1], f->tile.columns, first);
    print_line(f->at.p, "zm_copies_commit();");
}

/* Where own rows lie: over the second stage when they go on to registers. */
static int own_at(const Flash *f, int i)
{
    int at = f->tile.stage_elems * (f->tile.in_registers ? 1 : 2);
    return at + (i ? f->tile.rows * pitch(&f->own[0]) : 0);
}

static void print_own(Flash *f)
{
    Printer *p = f->at.p;
    char to[64];
    for (int i = 0; i < f->n_own; i++) {
        snprintf(to, sizeof to, "shared + %d", own_at(f, i));
        print_copy(f, to, &f->own[i], f->tile.rows, f->own_side->first);
    }
    print_stage(f, "0", "begin");
    print_line(p, "zm_copies_wait<0>();");
    print_line(p, "__syncthreads();");
    for (int i = 0; i < f->n_own; i++) {
        const Matrix *m = &f->own[i];
        print_line(p,
                   "const unsigned int %s_own = tiles + %d + (w * %d + own_row) * %d + own_column;",
                   m->name, 2 * own_at(f, i), 16 * f->tile.m, 2 * pitch(m));
        if (!f->tile.in_registers) continue;
        print_line(p, "unsigned int %s_a[%d][%d][4];", m->name, f->tile.m, padded(m->columns) / 16);
        print_line(p, "zm_fragments(%s_a, %s_own);", m->name, m->name);
    }
}

/* ---- products ---- */

static void print_product(Flash *f, const char *to, int i, const char *what)
{
    char text[200];
    const Matrix *own = &f->own[i], *far = &f->far[i];
    print_line(f->at.p, "float %s[%d][%d][4] = {};", to, f->tile.m, f->tile.columns / 8);
    int n = f->tile.in_registers
                ? snprintf(text, sizeof text, "zm_scores<%s>(%s, %s_a", f->type, to, own->name)
                : snprintf(text, sizeof text, "zm_scores_of_tile<%s, %d>(%s, %s_own", f->type,
                           padded(own->columns) / 16, to, own->name);
    snprintf(text + n, sizeof text - (size_t)n, ", %s_tile + far_row * %d + far_column);",
             far->name, 2 * pitch(far));
    print_noted(&f->at, what, text);
}

static void print_accumulate(Flash *f, const char *acc, const char *weight, const Matrix *far,
                             const char *what)
{
    char text[160];
    snprintf(text, sizeof text, "zm_add_rows<%s>(%s, %s, %s_tile + own_row * %d + own_column);",
             f->type, acc, weight, far->name, 2 * pitch(far));
    print_noted(&f->at, what, text);
}

static void print_accumulator(Flash *f, const char *name, const Matrix *m)
{
    print_line(f->at.p, "float %s[%d][%d][4] = {};", name, f->tile.m, padded(m->columns) / 8);
}

/* ---- scores ---- */

/* if (some pair of the warp's rows and the tile is not seen) */
static void print_when_unseen(Flash *f)
{
    Str *out = f->at.p->out;
    const AttnSpec *s = f->at.s;
    long long shift = f->at.keys.n - f->at.queries.n;
    bool has_edge = f->part != FLASH_DK_DV && f->at.keys.n % f->tile.columns != 0;
    print_indent(f->at.p);
    str_add(out, "if (");
    if (s->is_causal && f->part == FLASH_DK_DV) {
        str_add(out, "t0");
        print_shift(&f->at, shift);
        str_addf(out, " < s_w + %d", 16 * f->tile.m - 1);
    } else if (s->is_causal) {
        str_addf(out, "s0 + %d > t_w", f->tile.columns);
        print_shift(&f->at, shift + 1);
    }
    if (has_edge)
        str_addf(out, "%ss0 + %d > %lld", s->is_causal ? " || " : "", f->tile.columns,
                 f->at.keys.n);
    str_add(out, ") {\n");
    f->at.p->depth++;
}

static void print_score_value(Flash *f)
{
    const AttnSpec *s = f->at.s;
    Str *out = f->at.p->out;
    print_indent(f->at.p);
    str_add(out, "x[i][j][c] = sees ? ");
    if (f->is_scaled) {
        str_add(out, "x[i][j][c] * ");
        print_number(&f->at, s->scale * LOG2_E);
    } else
        str_add(out, "x[i][j][c]");
    if (s->bias.arg >= 0) {
        str_add(out, " + ");
        print_load(&f->at, "bias", &s->bias, "t", "s");
        str_add(out, " * ");
        print_number(&f->at, LOG2_E);
    }
    str_add(out, " : -ZM_INF;");
    print_end(f->at.p, "score", f->at.p->k->loc);
}

/* x: -inf where the query does not see the key; scaled, with bias, where is_scaled. */
static void print_scores(Flash *f)
{
    const AttnSpec *s = f->at.s;
    bool has_mask = s->mask.arg >= 0, reads = has_mask || s->bias.arg >= 0;
    bool is_always = f->is_scaled || has_mask;
    bool has_edge = f->part != FLASH_DK_DV && f->at.keys.n % f->tile.columns != 0;
    if (!is_always && !s->is_causal && !has_edge) return;
    if (!is_always) print_when_unseen(f);
    print_unroll(f, "e", n_elements(f));
    print_pair(f, "e");
    print_places(f);
    print_sees(&f->at, reads, reads || has_edge);
    print_score_value(f);
    print_close(f->at.p);
    if (!is_always) print_close(f->at.p);
}

/* keep: a bit for each element, of which a lane has a multiple or a part of 32. */
static void print_dropout_bits(Flash *f)
{
    int n = n_elements(f), bits = n < 32 ? n : 32;
    if (f->at.s->p <= 0) return;
    print_line(f->at.p, "unsigned int keep[%d] = {};", n / bits);
    print_unroll(f, "n", n / bits);
    print_line(f->at.p, "#pragma unroll 2");
    print_line(f->at.p, "for (int e = 0; e < %d; e++) {", bits);
    f->at.p->depth++;
    char index[32];
    snprintf(index, sizeof index, "(n * %d + e)", bits);
    print_pair(f, n > bits ? index : "e");
    print_places(f);
    print_element(&f->at);
    print_indent(f->at.p);
    str_add(f->at.p->out, "if (");
    print_keeps(&f->at);
    str_add(f->at.p->out, ") keep[n] |= 1u << e;");
    print_end(f->at.p, "dropout", f->at.p->k->loc);
    print_close(f->at.p);
    print_close(f->at.p);
}

/* z = what the dropout multiplies element e by. */
static void print_factor(Flash *f)
{
    if (f->at.s->p <= 0) return;
    print_indent(f->at.p);
    str_add(f->at.p->out, "const float z = keep[e / 32] >> e % 32 & 1 ? ");
    print_number(&f->at, 1 / (1 - f->at.s->p));
    str_add(f->at.p->out, " : 0;\n");
}

/* Of the exponent: scores times this, in powers of 2. */
static void print_scale(Flash *f)
{
    print_number(&f->at, f->is_scaled ? 1 : f->at.s->scale * LOG2_E);
}

/* ---- loop over the far side ---- */

/* begin and end: the rows of the far side that the block's rows need. */
static void print_range(Flash *f)
{
    Printer *p = f->at.p;
    const char *type = p->index_type;
    long long shift = f->at.keys.n - f->at.queries.n, n = f->far_side->n;
    if (!f->at.s->is_causal) {
        print_line(p, "const %s begin = 0, end = %lld;", type, n);
    } else if (f->part == FLASH_DK_DV) {
        print_indent(p);
        str_addf(p->out, "const %s first = s0", type);
        print_shift(&f->at, -shift);
        str_add(p->out, ";  // the first query that sees key s0\n");
        print_line(p, "const %s begin = first > 0 ? first / %d * %d : 0, end = %lld;", type,
                   f->tile.columns, f->tile.columns, n);
    } else {
        print_indent(p);
        str_addf(p->out, "const %s reach = t0", type);
        print_shift(&f->at, f->tile.rows + shift);
        str_add(p->out, ";  // the block's last query sees s < reach\n");
        print_line(p, "const %s begin = 0, end = reach < %lld ? reach : %lld;", type, n, n);
    }
}

static void print_far_loop(Flash *f)
{
    Printer *p = f->at.p;
    const char *first = f->far_side->first;
    char next[64];
    print_line(p, "for (%s %s = begin, stage = 0; %s < end; %s += %d, stage ^= 1) {", p->index_type,
               first, first, first, f->tile.columns);
    p->depth++;
    print_line(p, "zm_copies_wait<0>();  // for this tile");
    print_line(p, "__syncthreads();");
    snprintf(next, sizeof next, "%s + %d", first, f->tile.columns);
    print_line(p, "if (%s < end) {", next);
    p->depth++;
    print_stage(f, "(stage ^ 1)", next);
    print_close(p);
    print_line(p, "const unsigned int %s_tile = tiles + stage * %d, %s_tile = %s_tile + %d;",
               f->far[0].name, 2 * f->tile.stage_elems, f->far[1].name, f->far[0].name,
               2 * second_at(f));
}

/* A warp all of whose rows see none of the tile waits for the next. */
static void print_skip(Flash *f)
{
    long long shift = f->at.keys.n - f->at.queries.n;
    if (!f->at.s->is_causal) return;
    print_indent(f->at.p);
    if (f->part == FLASH_DK_DV) {
        str_add(f->at.p->out, "if (t0");
        print_shift(&f->at, f->tile.columns - 1 + shift);
        str_add(f->at.p->out, " < s_w) continue;\n");
    } else {
        str_add(f->at.p->out, "if (s0 >= t_w");
        print_shift(&f->at, 16 * f->tile.m + shift);
        str_add(f->at.p->out, ") continue;\n");
    }
}

static void print_loop_end(Flash *f)
{
    print_close(f->at.p);
    print_line(f->at.p, "__syncthreads();  // before the next block's copies");
}

/* The warp's rows of a result, row r scaled by by[r]. */
static void print_rows(Flash *f, const Matrix *m, const char *acc, const char *by)
{
    char text[256], row[64] = "";
    if (m->o->stride[2])
        snprintf(row, sizeof row, " + (long long)%s * %lld", f->own_warp,
                 (long long)m->o->stride[2]);
    snprintf(text, sizeof text, "zm_store_rows<%lld, %s>(%s%s, %lld, %lld, %lld - %s, %s, %s);",
             m->columns, is_grouped(f, m->o, m->columns, 2) ? "true" : "false", m->name, row,
             (long long)m->o->stride[2], (long long)m->o->stride[3], m->side->n, f->own_warp, acc,
             by);
    print_noted(&f->at, "store", text);
}

/* ---- forward ---- */

static void print_row_end(Flash *f)
{
    const AttnSpec *s = f->at.s;
    Printer *p = f->at.p;
    print_line(p, "float inverse[%d];", 2 * f->tile.m);
    print_unroll(f, "r", 2 * f->tile.m);
    print_line(p, "const float total = zm_quad<zm_sum>(sum[r]);");
    print_line(p, "inverse[r] = total == 0 ? 0 : 1 / total;");
    if (s->lse.arg >= 0) {
        char value[96];
        print_line(p, "const %s t = t_w + r * 8 + g;", p->index_type);
        print_line(p, "if (c2 == 0 && t < %lld)", f->at.queries.n);
        p->depth++;
        snprintf(value, sizeof value, "top[r] * %.9gf + logf(total)",
                 f->is_scaled ? LN_2 : s->scale);
        print_result(&f->at, "lse", &s->lse, "t", NULL, value);
        p->depth--;
    }
    print_close(p);
}

static void print_forward(Flash *f)
{
    Printer *p = f->at.p;
    int r = 2 * f->tile.m;
    print_accumulator(f, "acc", &f->result[0]);
    print_line(p, "float top[%d], sum[%d] = {};  // of the rows; of the lane", r, r);
    print_unroll(f, "r", r);
    print_line(p, "top[r] = -ZM_INF;");
    print_close(p);
    print_far_loop(f);
    print_skip(f);
    print_product(f, "x", 0, "q k^T");
    print_scores(f);
    print_dropout_bits(f);
    print_indent(p);
    str_add(p->out, "zm_softmax(x, top, sum, acc, ");
    print_scale(f);
    str_add(p->out, ");");
    print_end(p, "softmax", p->k->loc);
    if (f->at.s->p > 0) {
        print_unroll(f, "e", n_elements(f));
        print_factor(f);
        print_pair(f, "e");
        print_line(p, "x[i][j][c] *= z;");
        print_close(p);
    }
    print_accumulate(f, "acc", "x", &f->far[1], "P v");
    print_loop_end(f);
    print_row_end(f);
    print_rows(f, &f->result[0], "acc", "inverse");
}

/* ---- backward ---- */

/* The tables behind the tiles: deltas and, for dk and dv, bases of the tile's queries. */
static void print_tables(Flash *f)
{
    int n_floats = f->part == FLASH_DQ ? f->tile.rows : 2 * f->tile.columns;
    print_line(f->at.p, "float *const deltas = (float *)(shared + %d);",
               (f->tile.shared_bytes - n_floats * 4) / 2);
    if (f->part == FLASH_DK_DV)
        print_line(f->at.p, "float *const bases = deltas + %d;", f->tile.columns);
}

/* deltas[r] = the sum of dout out of query `first` + r. */
static void print_deltas(Flash *f, const char *tile, int rows)
{
    const AttnOperand *o = &f->at.s->out;
    char text[320];
    long long n = (long long)f->at.s->Dv;
    snprintf(text, sizeof text,
             "zm_deltas<%d, %lld, %s>(deltas, %s, out + (long long)t0 * %lld, %lld, %lld, "
             "%lld - t0);",
             rows, n, is_wide(f, o, n) ? "true" : "false", tile, (long long)o->stride[2],
             (long long)o->stride[2], (long long)o->stride[3], f->at.queries.n);
    print_noted(&f->at, "delta", text);
}

/* to = lse of query t in powers of 2; beyond the last one, what makes probabilities 0. */
static void print_base(Flash *f, const char *to)
{
    Printer *p = f->at.p;
    print_indent(p);
    str_addf(p->out, "const float l = t < %lld ? ", f->at.queries.n);
    print_load(&f->at, "lse", &f->at.s->lse, "t", NULL);
    str_add(p->out, " : ZM_INF;\n");
    print_indent(p);
    str_addf(p->out, "%s = l == -ZM_INF ? 0 : l * ", to); /* nothing seen: x is -inf */
    print_number(&f->at, LOG2_E);
    str_add(p->out, ";\n");
}

/* x = P of the dropout, y = dS; base and delta are those of the query. */
static void print_gradient(Flash *f, const char *base, const char *delta)
{
    Printer *p = f->at.p;
    const char *z = f->at.s->p > 0 ? " * z" : "";
    print_unroll(f, "e", n_elements(f));
    print_pair(f, "e");
    print_factor(f);
    print_indent(p);
    str_add(p->out, "const float prob = zm_exp2(fmaf(x[i][j][c], ");
    print_scale(f);
    str_addf(p->out, ", -%s));\n", base);
    print_indent(p);
    str_addf(p->out, "y[i][j][c] = prob * (y[i][j][c]%s - %s);", z, delta);
    print_end(p, "softmax", p->k->loc);
    if (f->part == FLASH_DK_DV) print_line(p, "x[i][j][c] = prob%s;", z);
    print_close(p);
}

static void print_by(Flash *f, const char *name, double v)
{
    print_indent(f->at.p);
    str_addf(f->at.p->out, "const float %s[%d] = {", name, 2 * f->tile.m);
    for (int r = 0; r < 2 * f->tile.m; r++) {
        if (r) str_add(f->at.p->out, ", ");
        print_number(&f->at, v);
    }
    str_add(f->at.p->out, "};\n");
}

static void print_dq(Flash *f)
{
    Printer *p = f->at.p;
    char tile[64];
    snprintf(tile, sizeof tile, "shared + %d", own_at(f, 1));
    print_deltas(f, tile, f->tile.rows);
    print_line(p, "__syncthreads();");
    print_line(p, "float base[%d], delta[%d];", 2 * f->tile.m, 2 * f->tile.m);
    print_unroll(f, "r", 2 * f->tile.m);
    print_line(p, "const %s t = t_w + r * 8 + g;", p->index_type);
    print_line(p, "delta[r] = deltas[w * %d + r * 8 + g];", 16 * f->tile.m);
    print_base(f, "base[r]");
    print_close(p);
    print_accumulator(f, "acc", &f->result[0]);
    print_far_loop(f);
    print_skip(f);
    print_product(f, "x", 0, "q k^T");
    print_scores(f);
    print_product(f, "y", 1, "dout v^T");
    print_dropout_bits(f);
    print_gradient(f, "base[i * 2 + c / 2]", "delta[i * 2 + c / 2]");
    print_accumulate(f, "acc", "y", &f->far[0], "dS k");
    print_loop_end(f);
    print_by(f, "by", f->at.s->scale);
    print_rows(f, &f->result[0], "acc", "by");
}

static void print_dk_dv(Flash *f)
{
    Printer *p = f->at.p;
    print_accumulator(f, "acc_k", &f->result[0]);
    print_accumulator(f, "acc_v", &f->result[1]);
    print_far_loop(f);
    char tile[64];
    snprintf(tile, sizeof tile, "shared + stage * %d + %d", f->tile.stage_elems, second_at(f));
    print_deltas(f, tile, f->tile.columns);
    print_line(p, "if (threadIdx.x < %d) {", f->tile.columns);
    p->depth++;
    print_line(p, "const %s t = t0 + (int)threadIdx.x;", p->index_type);
    print_base(f, "bases[threadIdx.x]");
    print_close(p);
    print_line(p, "__syncthreads();");
    print_skip(f);
    print_product(f, "x", 0, "q k^T");
    print_scores(f);
    print_product(f, "y", 1, "dout v^T");
    print_dropout_bits(f);
    print_gradient(f, "bases[j * 8 + c2 + c % 2]", "deltas[j * 8 + c2 + c % 2]");
    print_accumulate(f, "acc_v", "x", &f->far[1], "P^T dout");
    print_accumulate(f, "acc_k", "y", &f->far[0], "dS^T q");
    print_loop_end(f);
    print_by(f, "by", f->at.s->scale);
    print_by(f, "by_one", 1);
    print_rows(f, &f->result[0], "acc_k", "by");
    print_rows(f, &f->result[1], "acc_v", "by_one");
}

/* ---- the kernel ---- */

static long long blocks_of(const Flash *f)
{
    return (f->own_side->n + f->tile.rows - 1) / f->tile.rows;
}

static Flash flash_of(Printer *p, FlashPart part)
{
    const AttnSpec *s = &p->k->attn;
    Flash f = {.at = attention_of(p), .part = part, .tile = flash_tile(s, part)};
    f.type = memory_type(s->q.dtype);
    f.is_scaled = s->bias.arg >= 0 || s->scale <= 0;
    f.at.owns_keys = part == FLASH_DK_DV;
    f.own_warp = f.at.owns_keys ? "s_w" : "t_w";
    f.n_own = part == FLASH_FORWARD ? 1 : 2;
    return f;
}

/* Sides and matrices point into f. */
static void bind(Flash *f)
{
    const AttnSpec *s = f->at.s;
    const Side *t = &f->at.queries, *keys = &f->at.keys;
    Matrix q = {"q", &s->q, t, s->D}, k = {"k", &s->k, keys, s->D}, v = {"v", &s->v, keys, s->Dv},
           dout = {"dout", &s->dout, t, s->Dv};
    bool owns_keys = f->at.owns_keys;
    f->own_side = owns_keys ? keys : t;
    f->far_side = owns_keys ? t : keys;
    f->own[0] = owns_keys ? k : q;
    f->own[1] = owns_keys ? v : dout;
    f->far[0] = owns_keys ? q : k;
    f->far[1] = owns_keys ? dout : v;
    f->result[0] = f->part == FLASH_FORWARD ? (Matrix){"out", &s->out, t, s->Dv}
                   : owns_keys              ? (Matrix){"dk", &s->dk, keys, s->D}
                                            : (Matrix){"dq", &s->dq, t, s->D};
    f->result[1] = (Matrix){"dv", &s->dv, keys, s->Dv};
}

/* Blocks of a head follow each other, those with most tiles first. */
static void print_part(Flash *f, const char *block)
{
    Printer *p = f->at.p;
    const char *type = p->index_type, *first;
    bind(f);
    long long n = blocks_of(f);
    first = f->own_side->first;
    if (f->at.s->B * f->at.s->H > 1) print_line(p, "const %s head = %s / %lld;", type, block, n);
    if (f->at.s->is_causal && f->part != FLASH_DK_DV)
        print_line(p, "const %s %s = (%lld - %s %% %lld) * %d;", type, first, n - 1, block, n,
                   f->tile.rows);
    else
        print_line(p, "const %s %s = %s %% %lld * %d;", type, first, block, n, f->tile.rows);
    print_line(p, "const %s %s = %s + w * %d;", type, f->own_warp, first, 16 * f->tile.m);
    print_operands(&f->at);
    if (f->part != FLASH_FORWARD) print_tables(f);
    print_range(f);
    print_own(f);
    if (f->part == FLASH_FORWARD)
        print_forward(f);
    else if (f->part == FLASH_DQ)
        print_dq(f);
    else
        print_dk_dv(f);
}

static void print_lane(Flash *f)
{
    Printer *p = f->at.p;
    print_line(p, "%s *const shared = (%s *)zm_shared;", f->type, f->type);
    print_line(p, "const int w = threadIdx.x / 32, lane = threadIdx.x %% 32;");
    print_line(p,
               "const int g = lane / 4, c2 = lane %% 4 * 2;  // its row and columns of fragments");
    print_line(p, "const int own_row = lane %% 16, own_column = lane / 16 * 16;");
    print_line(p,
               "const int far_row = lane %% 8 + lane / 16 * 8, far_column = lane / 8 %% 2 * 16;");
    print_line(p,
               "const unsigned int tiles = zm_shared_at(shared);  // columns and tiles in bytes");
    print_words(&f->at);
}

void print_flash(Printer *p)
{
    const AttnSpec *s = &p->k->attn;
    Flash first = flash_of(p, s->is_backward ? FLASH_DQ : FLASH_FORWARD);
    Flash second = flash_of(p, FLASH_DK_DV);
    bind(&first);
    bind(&second);
    long long heads = (long long)(s->B * s->H), n_first = heads * blocks_of(&first),
              n = n_first + (s->is_backward ? heads * blocks_of(&second) : 0);
    print_lane(&first);
    print_line(p, "for (%s block = blockIdx.x; block < %lld; block += gridDim.x) {", p->index_type,
               n);
    p->depth++;
    if (s->is_backward) {
        print_line(p, "if (block < %lld) {  // dq: a block owns queries", n_first);
        p->depth++;
        print_part(&first, "block");
        p->depth--;
        print_line(p, "} else {  // dk and dv: a block owns keys");
        p->depth++;
        char number[48];
        snprintf(number, sizeof number, "(block - %lld)", n_first);
        print_part(&second, number);
        print_close(p);
    } else
        print_part(&first, "block");
    print_close(p);
}
