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
#include "codegen/cuda/attention_mma.h"

#include <stdio.h>

/* ---- forward ---- */

static void print_row_end(Flash *f)
{
    const AttnSpec *s = f->at.s;
    Printer *p = f->at.p;
    print_line(p, "float inverse[%d];", 2 * f->tile.m);
    flash_print_unroll(f, "r", 2 * f->tile.m);
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
    flash_print_accumulator(f, "acc", &f->result[0]);
    print_line(p, "float top[%d], sum[%d] = {};  // of the rows; of the lane", r, r);
    flash_print_unroll(f, "r", r);
    print_line(p, "top[r] = -ZM_INF;");
    print_close(p);
    flash_print_far_loop(f);
    flash_print_skip(f);
    flash_print_product(f, "x", 0, "q k^T");
    flash_print_scores(f);
    flash_print_dropout_bits(f);
    print_indent(p);
    str_add(p->out, "zm_softmax(x, top, sum, acc, ");
    flash_print_scale(f);
    str_add(p->out, ");");
    print_end(p, "softmax", p->k->loc);
    if (f->at.s->p > 0) {
        flash_print_unroll(f, "e", flash_n_elements(f));
        flash_print_factor(f);
        flash_print_pair(f, "e");
        print_line(p, "x[i][j][c] *= z;");
        print_close(p);
    }
    flash_print_accumulate(f, "acc", "x", &f->far[1], "P v");
    flash_print_loop_end(f);
    print_row_end(f);
    flash_print_rows(f, &f->result[0], "acc", "inverse");
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

/* out_part = the thread's part of the rows of out from `first` on, for the deltas of a tile. */
static void print_take(Flash *f, int rows, const char *first)
{
    const AttnOperand *o = &f->at.s->out;
    long long n = (long long)f->at.s->Dv, stride = (long long)o->stride[2];
    if (!flash_is_wide(f, o, n)) return;
    print_line(f->at.p,
               "zm_take_rows<%d, %lld>(out_part, out + (long long)(%s) * %lld, %lld, %lld - (%s));",
               rows, n, first, stride, stride, f->at.queries.n, first);
}

static void print_part_of_out(Flash *f, int rows)
{
    long long n = (long long)f->at.s->Dv;
    if (flash_is_wide(f, &f->at.s->out, n))
        print_line(f->at.p, "uint4 out_part[zm_share<%d, %lld>::PART];", rows, n);
}

/* deltas[r] = the sum of dout out of query t0 + r. */
static void print_deltas(Flash *f, const char *tile, int rows)
{
    const AttnOperand *o = &f->at.s->out;
    char text[320];
    long long n = (long long)f->at.s->Dv, stride = (long long)o->stride[2];
    if (flash_is_wide(f, o, n))
        snprintf(text, sizeof text, "zm_deltas<%d, %lld>(deltas, %s, out_part);", rows, n, tile);
    else
        snprintf(text, sizeof text,
                 "zm_deltas_of_elements<%d, %lld>(deltas, %s, out + (long long)t0 * %lld, %lld, "
                 "%lld, %lld - t0);",
                 rows, n, tile, stride, stride, (long long)o->stride[3], f->at.queries.n);
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
    flash_print_unroll(f, "e", flash_n_elements(f));
    flash_print_pair(f, "e");
    flash_print_factor(f);
    print_indent(p);
    str_add(p->out, "const float prob = zm_exp2(fmaf(x[i][j][c], ");
    flash_print_scale(f);
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
    snprintf(tile, sizeof tile, "shared + %d", flash_own_at(f, 1));
    print_part_of_out(f, f->tile.rows);
    print_take(f, f->tile.rows, "t0");
    print_deltas(f, tile, f->tile.rows);
    print_line(p, "__syncthreads();");
    print_line(p, "float base[%d], delta[%d];", 2 * f->tile.m, 2 * f->tile.m);
    flash_print_unroll(f, "r", 2 * f->tile.m);
    print_line(p, "const %s t = t_w + r * 8 + g;", p->index_type);
    print_line(p, "delta[r] = deltas[w * %d + r * 8 + g];", 16 * f->tile.m);
    print_base(f, "base[r]");
    print_close(p);
    flash_print_accumulator(f, "acc", &f->result[0]);
    flash_print_far_loop(f);
    flash_print_skip(f);
    flash_print_product(f, "x", 0, "q k^T");
    flash_print_scores(f);
    flash_print_product(f, "y", 1, "dout v^T");
    flash_print_dropout_bits(f);
    print_gradient(f, "base[i * 2 + c / 2]", "delta[i * 2 + c / 2]");
    flash_print_accumulate(f, "acc", "y", &f->far[0], "dS k");
    flash_print_loop_end(f);
    print_by(f, "by", f->at.s->scale);
    flash_print_rows(f, &f->result[0], "acc", "by");
}

/* What the deltas and bases of the tile at `first` need is read a tile ahead. */
static void print_ahead(Flash *f, const char *first)
{
    print_take(f, f->tile.columns, first);
    print_line(f->at.p, "{");
    f->at.p->depth++;
    print_line(f->at.p, "const %s t = %s + (int)threadIdx.x %% %d;", f->at.p->index_type, first,
               f->tile.columns);
    print_base(f, "tile_base");
    print_close(f->at.p);
}

static void print_dk_dv(Flash *f)
{
    Printer *p = f->at.p;
    flash_print_accumulator(f, "acc_k", &f->result[0]);
    flash_print_accumulator(f, "acc_v", &f->result[1]);
    print_line(p, "float tile_base;  // of this tile's queries, as out_part");
    print_part_of_out(f, f->tile.columns);
    print_ahead(f, "begin");
    flash_print_far_loop(f);
    char tile[64], next[32];
    snprintf(tile, sizeof tile, "shared + stage * %d + %d", f->tile.stage_elems,
             flash_second_at(f));
    print_deltas(f, tile, f->tile.columns);
    print_line(p, "if (threadIdx.x < %d) bases[threadIdx.x] = tile_base;", f->tile.columns);
    snprintf(next, sizeof next, "t0 + %d", f->tile.columns);
    print_ahead(f, next);
    print_line(p, "__syncthreads();");
    flash_print_skip(f);
    flash_print_product(f, "x", 0, "q k^T");
    flash_print_scores(f);
    flash_print_product(f, "y", 1, "dout v^T");
    flash_print_dropout_bits(f);
    print_gradient(f, "bases[j * 8 + c2 + c % 2]", "deltas[j * 8 + c2 + c % 2]");
    flash_print_accumulate(f, "acc_v", "x", &f->far[1], "P^T dout");
    flash_print_accumulate(f, "acc_k", "y", &f->far[0], "dS^T q");
    flash_print_loop_end(f);
    print_by(f, "by", f->at.s->scale);
    print_by(f, "by_one", 1);
    flash_print_rows(f, &f->result[0], "acc_k", "by");
    flash_print_rows(f, &f->result[1], "acc_v", "by_one");
}

/* ---- the kernel ---- */

static long long blocks_of(const Flash *f)
{
    return (f->own_side->n + f->tile.rows - 1) / f->tile.rows;
}

static Flash flash_of(Printer *p, FlashPart part)
{
    const AttnSpec *s = &p->k->attn;
    Flash f = {.at = attention_of(p), .part = part, .tile = flash_tile(s, p->arch, part)};
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
    flash_print_range(f);
    flash_print_own(f);
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
