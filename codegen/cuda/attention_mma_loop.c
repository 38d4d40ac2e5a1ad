/* attention_mma_loop.c -- what the parts of attention on tensor cores share: tiles, products,
 * scores, dropout and the loop over the other side; see attention_mma.c. */
#include "codegen/cuda/attention_mma.h"

#include <stdio.h>

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
int flash_n_elements(const Flash *f)
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
bool flash_is_wide(const Flash *f, const AttnOperand *o, long long columns)
{
    return is_grouped(f, o, columns, 8);
}

void flash_print_unroll(Flash *f, const char *variable, int n)
{
    print_line(f->at.p, "#pragma unroll");
    print_line(f->at.p, "for (int %s = 0; %s < %d; %s++) {", variable, variable, n, variable);
    f->at.p->depth++;
}

/* Element e of a product: fragment (i, j), number c; its query t and key s. */
void flash_print_pair(Flash *f, const char *e)
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
    str_addf(out, "zm_%s_rows<%d, %lld>(%s, %s",
             flash_is_wide(f, m->o, m->columns) ? "copy" : "fill", rows, m->columns, to, m->name);
    char index[64];
    snprintf(index, sizeof index, "(long long)(%s)", first);
    print_term(&f->at, " + ", index, m->o->stride[2]);
    str_addf(out, ", %lld", (long long)m->o->stride[2]);
    if (!flash_is_wide(f, m->o, m->columns)) str_addf(out, ", %lld", (long long)m->o->stride[3]);
    str_addf(out, ", %lld - (%s));\n", m->side->n, first);
}

/* The second tile of a stage. */
int flash_second_at(const Flash *f)
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
int flash_own_at(const Flash *f, int i)
{
    int at = f->tile.stage_elems * (f->tile.in_registers ? 1 : 2);
    return at + (i ? f->tile.rows * pitch(&f->own[0]) : 0);
}

void flash_print_own(Flash *f)
{
    Printer *p = f->at.p;
    char to[64];
    for (int i = 0; i < f->n_own; i++) {
        snprintf(to, sizeof to, "shared + %d", flash_own_at(f, i));
        print_copy(f, to, &f->own[i], f->tile.rows, f->own_side->first);
    }
    print_stage(f, "0", "begin");
    print_line(p, "zm_copies_wait<0>();");
    print_line(p, "__syncthreads();");
    for (int i = 0; i < f->n_own; i++) {
        const Matrix *m = &f->own[i];
        print_line(p,
                   "const unsigned int %s_own = tiles + %d + (w * %d + own_row) * %d + own_column;",
                   m->name, 2 * flash_own_at(f, i), 16 * f->tile.m, 2 * pitch(m));
        if (!f->tile.in_registers) continue;
        print_line(p, "unsigned int %s_a[%d][%d][4];", m->name, f->tile.m, padded(m->columns) / 16);
        print_line(p, "zm_fragments(%s_a, %s_own);", m->name, m->name);
    }
}

/* ---- products ---- */

void flash_print_product(Flash *f, const char *to, int i, const char *what)
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

void flash_print_accumulate(Flash *f, const char *acc, const char *weight, const Matrix *far,
                            const char *what)
{
    char text[160];
    snprintf(text, sizeof text, "zm_add_rows<%s>(%s, %s, %s_tile + own_row * %d + own_column);",
             f->type, acc, weight, far->name, 2 * pitch(far));
    print_noted(&f->at, what, text);
}

void flash_print_accumulator(Flash *f, const char *name, const Matrix *m)
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
void flash_print_scores(Flash *f)
{
    const AttnSpec *s = f->at.s;
    bool has_mask = s->mask.arg >= 0, reads = has_mask || s->bias.arg >= 0;
    bool is_always = f->is_scaled || has_mask;
    bool has_edge = f->part != FLASH_DK_DV && f->at.keys.n % f->tile.columns != 0;
    if (!is_always && !s->is_causal && !has_edge) return;
    if (!is_always) print_when_unseen(f);
    flash_print_unroll(f, "e", flash_n_elements(f));
    flash_print_pair(f, "e");
    print_places(f);
    print_sees(&f->at, reads, reads || has_edge);
    print_score_value(f);
    print_close(f->at.p);
    if (!is_always) print_close(f->at.p);
}

/* keep: a bit for each element, of which a lane has a multiple or a part of 32. */
void flash_print_dropout_bits(Flash *f)
{
    int n = flash_n_elements(f), bits = n < 32 ? n : 32;
    if (f->at.s->p <= 0) return;
    print_line(f->at.p, "unsigned int keep[%d] = {};", n / bits);
    flash_print_unroll(f, "n", n / bits);
    print_line(f->at.p, "#pragma unroll 2");
    print_line(f->at.p, "for (int e = 0; e < %d; e++) {", bits);
    f->at.p->depth++;
    char index[32];
    snprintf(index, sizeof index, "(n * %d + e)", bits);
    flash_print_pair(f, n > bits ? index : "e");
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
void flash_print_factor(Flash *f)
{
    if (f->at.s->p <= 0) return;
    print_indent(f->at.p);
    str_add(f->at.p->out, "const float z = keep[e / 32] >> e % 32 & 1 ? ");
    print_number(&f->at, 1 / (1 - f->at.s->p));
    str_add(f->at.p->out, " : 0;\n");
}

/* Of the exponent: scores times this, in powers of 2. */
void flash_print_scale(Flash *f)
{
    print_number(&f->at, f->is_scaled ? 1 : f->at.s->scale * LOG2_E);
}

/* ---- loop over the far side ---- */

/* begin and end: the rows of the far side that the block's rows need. */
void flash_print_range(Flash *f)
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

void flash_print_far_loop(Flash *f)
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
               2 * flash_second_at(f));
}

/* A warp without rows, or all of whose rows see none of the tile, waits for the next. */
void flash_print_skip(Flash *f)
{
    long long shift = f->at.keys.n - f->at.queries.n;
    Str *out = f->at.p->out;
    bool is_partial = f->own_side->n % f->tile.rows != 0, is_causal = f->at.s->is_causal;
    if (!is_partial && !is_causal) return;
    print_indent(f->at.p);
    str_add(out, "if (");
    if (is_partial)
        str_addf(out, "%s >= %lld%s", f->own_warp, f->own_side->n, is_causal ? " || " : "");
    if (is_causal && f->part == FLASH_DK_DV) {
        str_add(out, "t0");
        print_shift(&f->at, f->tile.columns - 1 + shift);
        str_add(out, " < s_w");
    } else if (is_causal) {
        str_add(out, "s0 >= t_w");
        print_shift(&f->at, 16 * f->tile.m + shift);
    }
    str_add(out, ") continue;\n");
}

void flash_print_loop_end(Flash *f)
{
    print_close(f->at.p);
    print_line(f->at.p, "__syncthreads();  // before the next block's copies");
}

/* The warp's rows of a result, row r scaled by by[r]. */
void flash_print_rows(Flash *f, const Matrix *m, const char *acc, const char *by)
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
