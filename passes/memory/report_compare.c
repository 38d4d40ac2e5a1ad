/* report_compare.c -- `zmc plan A --vs B`: what changes from one plan to another.
 *
 * Buffers of the two plans are the same where function, category, what makes them and line are.
 * Lines are matched by the longest common subsequence of the two models' texts, so that a line
 * which moved is the same line; without texts (a .zir holds none) by number.  A bucket counts as
 * the parameters in it, and a moment or master of a bucket as theirs.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/memory/report_compare.h"

/* ---- lines ---- */

typedef struct Text {
    const char **line; /* [0..n) */
    size_t *len;
    uint32_t n;
} Text;

static Text split_lines(Arena *a, const char *text)
{
    Text t = {0};
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') t.n++;
    t.line = ARENA_ARRAY(a, const char *, (size_t)t.n + 1);
    t.len = ARENA_ARRAY(a, size_t, (size_t)t.n + 1);
    uint32_t i = 0;
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        t.line[i] = p;
        t.len[i++] = strcspn(p, "\n");
    }
    return t;
}

static bool is_same_line(const Text *a, uint32_t i, const Text *b, uint32_t k)
{
    return a->len[i] == b->len[k] && memcmp(a->line[i], b->line[k], a->len[i]) == 0;
}

/* Lines between the common head and tail, by dynamic programming.  O(na * nb) bits of time and
 * words of memory: models have hundreds of lines; beyond MAX_CELLS they stay unmatched. */
enum { MAX_CELLS = 1 << 24 };

static void match_middle(Arena *arena, const Text *a, const Text *b, uint32_t head, uint32_t na,
                         uint32_t nb, LineMap *out)
{
    size_t wide = (size_t)nb + 1;
    if ((size_t)na * nb > MAX_CELLS) return;
    uint32_t *common = ARENA_ARRAY(arena, uint32_t, (na + 1) * wide);
    for (uint32_t i = na; i-- > 0;)
        for (uint32_t k = nb; k-- > 0;) {
            uint32_t down = common[(i + 1) * wide + k], right = common[i * wide + k + 1];
            common[i * wide + k] = is_same_line(a, head + i, b, head + k)
                                       ? common[(i + 1) * wide + k + 1] + 1
                                   : down > right ? down
                                                  : right;
        }
    for (uint32_t i = 0, k = 0; i < na && k < nb;) {
        if (is_same_line(a, head + i, b, head + k)) {
            out->to[head + k + 1] = head + i + 1;
            i++;
            k++;
        } else if (common[(i + 1) * wide + k] >= common[i * wide + k + 1])
            i++;
        else
            k++;
    }
}

/* As many lines that changed in B as in A, between the same two lines: the same lines, edited. */
static void match_edited(uint32_t n_a, LineMap *out)
{
    for (uint32_t from = 1, end; from <= out->n; from = end + 1) {
        for (end = from; end <= out->n && !out->to[end];) end++;
        uint32_t before = out->to[from - 1], next = end <= out->n ? out->to[end] : n_a + 1;
        if (next - before - 1 != end - from) continue;
        for (uint32_t k = from; k < end; k++) out->to[k] = before + 1 + k - from;
    }
}

/* From B's lines to A's. */
static LineMap match_lines(Arena *arena, const char *text_a, const char *text_b)
{
    Text a = split_lines(arena, text_a), b = split_lines(arena, text_b);
    LineMap out = {ARENA_ARRAY(arena, uint32_t, (size_t)b.n + 1), b.n};
    uint32_t least = a.n < b.n ? a.n : b.n, head = 0, tail = 0;
    while (head < least && is_same_line(&a, head, &b, head)) head++;
    while (tail < least - head && is_same_line(&a, a.n - 1 - tail, &b, b.n - 1 - tail)) tail++;
    for (uint32_t i = 0; i < head; i++) out.to[i + 1] = i + 1;
    for (uint32_t i = 0; i < tail; i++) out.to[b.n - i] = a.n - i;
    match_middle(arena, &a, &b, head, a.n - head - tail, b.n - head - tail, &out);
    match_edited(a.n, &out);
    return out;
}

/* The model's own text; NULL when only its name is known. */
static const char *source_text(const Module *m, const char *name)
{
    for (uint32_t i = 0; i < m->sources->all.n; i++)
        if (strcmp(m->sources->all.at[i].name, name) == 0) return m->sources->all.at[i].text;
    return NULL;
}

/* The source that the first place of m is in. */
static const char *source_name(const Module *m)
{
    for (uint32_t i = 1; i < m->vars.n; i++) {
        SrcPos p = loc_ok(m->vars.at[i].loc) ? loc_pos(m, m->vars.at[i].loc) : (SrcPos){0};
        if (p.line) return m->sources->all.at[p.source].name;
    }
    return "";
}

/* ---- groups ---- */

static uint64_t group_hash(const Group *g)
{
    uint64_t h = hash_bytes(g->func, strlen(g->func) + 1, 1);
    h = hash_bytes(g->cat, strlen(g->cat) + 1, h);
    h = hash_bytes(g->what, strlen(g->what) + 1, h);
    return hash_bytes(g->line, sizeof g->line, h);
}

static bool is_same_group(const Group *x, const Group *y)
{
    return memcmp(x->line, y->line, sizeof x->line) == 0 && strcmp(x->func, y->func) == 0 &&
           strcmp(x->cat, y->cat) == 0 && strcmp(x->what, y->what) == 0;
}

static void rehash(PlanCompare *c, uint32_t n_slots)
{
    c->slot = ARENA_ARRAY(c->arena, uint32_t, n_slots);
    c->n_slots = n_slots;
    for (uint32_t i = 0; i < c->groups.n; i++) {
        uint64_t h = group_hash(&c->groups.at[i]);
        while (c->slot[h % n_slots]) h++;
        c->slot[h % n_slots] = i + 1;
    }
}

static Group *find_group(PlanCompare *c, const Group *key)
{
    if (2 * (c->groups.n + 1) > c->n_slots) rehash(c, c->n_slots ? 2 * c->n_slots : 1024);
    uint64_t h = group_hash(key);
    for (; c->slot[h % c->n_slots]; h++) {
        Group *g = &c->groups.at[c->slot[h % c->n_slots] - 1];
        if (is_same_group(g, key)) return g;
    }
    VEC_PUSH(c->arena, &c->groups, *key);
    c->slot[h % c->n_slots] = c->groups.n;
    return &c->groups.at[c->groups.n - 1];
}

/* Line of loc as both plans number it. */
static void set_lines(const PlanCompare *c, int side, LocId loc, Group *g)
{
    SrcPos p = loc_ok(loc) ? loc_pos(c->side[side].m, loc) : (SrcPos){0};
    if (!p.line || strcmp(c->side[side].m->sources->all.at[p.source].name, c->source[side]) != 0)
        return;
    g->line[side] = p.line;
    if (!c->map.to)
        g->line[!side] = p.line;
    else if (side == B)
        g->line[A] = p.line <= c->map.n ? c->map.to[p.line] : 0;
    else
        for (uint32_t k = 1; k <= c->map.n && !g->line[B]; k++)
            if (c->map.to[k] == p.line) g->line[B] = k;
}

static void add_bytes(PlanCompare *c, int side, const Buffer *b, const char *what, LocId loc,
                      int64_t bytes)
{
    Group key = {.func = b->f ? b->f->name : "", .cat = b->cat, .what = what};
    set_lines(c, side, loc, &key);
    Group *g = find_group(c, &key);
    g->n[side]++;
    g->bytes[side] += bytes;
    if (!b->f || buffer_is_at_peak(b, c->side[side].r)) g->at_peak[side] += bytes;
}

/* Bytes that `part`, a variable in bucket `own`, takes of a rank's part of the bucket.  Ranks hold
 * different elements of it; an average rank holds the same share of all, rounded such that shares
 * of all elements add up to the part. */
static int64_t share_bytes(const PlanCompare *c, int side, const Var *own, const Var *part)
{
    if (!type_is_sharded(own->type)) return part->place.bytes;
    int64_t ranks = c->side[side].r->ranks, end = part->in_offset + type_elems(part->type);
    return (end / ranks - part->in_offset / ranks) * dtype_bytes(own->type->dtype);
}

/* The bytes of v; of a bucket, those of each variable in it: what is left, padding, stays its own.
 */
static void add_variable(PlanCompare *c, int side, const Buffer *b)
{
    const Module *m = c->side[side].m;
    const Var *own = var_cget(m, b->var);
    int64_t rest = b->bytes;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *part = &m->vars.at[i];
        if (part->in.i != b->var.i) continue;
        int64_t bytes = share_bytes(c, side, own, part);
        add_bytes(c, side, b, part->name, part->loc, bytes);
        rest -= bytes;
    }
    if (rest > 0) add_bytes(c, side, b, b->what, b->loc, rest);
}

static void add_plan(PlanCompare *c, int side)
{
    c->all[side] = plan_buffers(c->arena, c->side[side].m);
    for (uint32_t i = 0; i < c->all[side].n; i++) {
        const Buffer *b = &c->all[side].at[i];
        if (b->f)
            add_bytes(c, side, b, b->what, b->loc, b->bytes);
        else
            add_variable(c, side, b);
    }
}

/* ---- what differs ---- */

static bool is_equal(const Group *g)
{
    return g->n[A] == g->n[B] && g->bytes[A] == g->bytes[B] && g->at_peak[A] == g->at_peak[B];
}

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

static int compare_places(const Group *x, const Group *y)
{
    for (int side = 0; side < N_PLANS; side++)
        if (x->line[side] != y->line[side]) return x->line[side] < y->line[side] ? -1 : 1;
    return 0;
}

static int compare_peaks(const void *x, const void *y)
{
    const Group *g = x, *h = y;
    int64_t a = magnitude(g->at_peak[B] - g->at_peak[A]),
            b = magnitude(h->at_peak[B] - h->at_peak[A]);
    return a != b ? (a > b ? -1 : 1) : compare_places(g, h);
}

static int compare_groups(const void *x, const void *y)
{
    const Group *g = x, *h = y;
    int64_t a = magnitude(g->bytes[B] - g->bytes[A]), b = magnitude(h->bytes[B] - h->bytes[A]);
    if (a != b) return a > b ? -1 : 1;
    if (compare_places(g, h) != 0) return compare_places(g, h);
    if (strcmp(g->func, h->func) != 0) return strcmp(g->func, h->func);
    return strcmp(g->what, h->what) != 0 ? strcmp(g->what, h->what) : strcmp(g->cat, h->cat);
}

static int compare_lines(const void *x, const void *y)
{
    return compare_places(x, y);
}

/* Sums of the groups at each line, where those at the peak differ; then only the groups that
 * differ. */
static void find_differences(PlanCompare *c)
{
    Groups *g = &c->groups, *l = &c->lines;
    uint32_t n = 0;
    if (!g->n) return;
    qsort(g->at, g->n, sizeof *g->at, compare_lines);
    for (uint32_t i = 0; i < g->n; i++) {
        if (!l->n || compare_places(&l->at[l->n - 1], &g->at[i]) != 0)
            VEC_PUSH(c->arena, l, ((Group){.line = {g->at[i].line[A], g->at[i].line[B]}}));
        for (int side = 0; side < N_PLANS; side++)
            l->at[l->n - 1].at_peak[side] += g->at[i].at_peak[side];
        if (!is_equal(&g->at[i])) g->at[n++] = g->at[i];
    }
    g->n = n;
    if (n) qsort(g->at, n, sizeof *g->at, compare_groups);
    for (uint32_t i = n = 0; i < l->n; i++)
        if (l->at[i].at_peak[A] != l->at[i].at_peak[B]) l->at[n++] = l->at[i];
    l->n = n;
    if (n) qsort(l->at, n, sizeof *l->at, compare_peaks);
}

static void add_total(PlanCompare *c, const char *name, bool is_bytes, int64_t a, int64_t b)
{
    VEC_PUSH(c->arena, &c->totals, ((Total){name, is_bytes, {a, b}}));
    c->is_equal &= a == b;
}

static void add_totals(PlanCompare *c)
{
    const PlanReport *a = c->side[A].r, *b = c->side[B].r;
    add_total(c, "ranks", false, a->ranks, b->ranks);
    add_total(c, "zero", false, c->side[A].m->train.zero, c->side[B].m->train.zero);
    add_total(c, "parameters", false, a->params, b->params);
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        add_total(c, a->cat[i].name, true, a->cat[i].bytes, b->cat[i].bytes);
    add_total(c, "padding", true, a->padding, b->padding);
    add_total(c, "peak_live", true, a->peak_live, b->peak_live);
    add_total(c, "arena", true, a->arena, b->arena);
    add_total(c, "lower_bound", true, a->lower_bound, b->lower_bound);
    add_total(c, "states", true, a->states, b->states);
    add_total(c, "closed_form", true, a->closed_form, b->closed_form);
    add_total(c, "comm_bytes", true, a->comm.bytes, b->comm.bytes);
    c->is_equal &= a->flops == b->flops && !c->groups.n && !c->lines.n && !c->comm.n;
}

/* ---- communication ---- */

static bool is_same_kind(const CommRow *x, const CommRow *y)
{
    return strcmp(x->op, y->op) == 0 && strcmp(x->axis, y->axis) == 0 &&
           strcmp(x->what, y->what) == 0;
}

static void add_comm(PlanCompare *c, int side)
{
    const PlanComm *comm = &c->side[side].r->comm;
    for (uint32_t i = 0; i < comm->rows.n; i++) {
        const CommRow *row = &comm->rows.at[i];
        uint32_t k = 0;
        while (k < c->comm.n && !is_same_kind(&c->comm.at[k].row[A], row)) k++;
        if (k == c->comm.n) {
            CommRow none = {row->op, row->axis, row->what, 0, 0};
            VEC_PUSH(c->arena, &c->comm, ((CommPair){{none, none}}));
        }
        c->comm.at[k].row[side] = *row;
    }
}

static void find_comm(PlanCompare *c)
{
    uint32_t n = 0;
    for (int side = 0; side < N_PLANS; side++) add_comm(c, side);
    for (uint32_t i = 0; i < c->comm.n; i++) {
        const CommRow *row = c->comm.at[i].row;
        if (row[A].count != row[B].count || row[A].bytes != row[B].bytes)
            c->comm.at[n++] = c->comm.at[i];
    }
    c->comm.n = n;
}

static uint32_t count_moved(const PlanCompare *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; c->is_equal && i < c->all[A].n && i < c->all[B].n; i++)
        n += c->all[A].at[i].offset != c->all[B].at[i].offset;
    return n;
}

PlanCompare *plan_compare(Arena *arena, PlanSide a, PlanSide b)
{
    PlanCompare *c = ARENA_NEW(arena, PlanCompare);
    *c = (PlanCompare){.arena = arena, .side = {a, b}, .is_equal = true};
    for (int side = 0; side < N_PLANS; side++) c->source[side] = source_name(c->side[side].m);
    const char *text_a = source_text(a.m, c->source[A]), *text_b = source_text(b.m, c->source[B]);
    if (text_a && text_b) c->map = match_lines(arena, text_a, text_b);
    for (int side = 0; side < N_PLANS; side++) add_plan(c, side);
    find_differences(c);
    find_comm(c);
    add_totals(c);
    c->n_moved = count_moved(c);
    return c;
}
