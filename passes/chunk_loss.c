/* chunk_loss.c -- vocabulary projection and cross entropy in chunks of rows, so that the logits
 * never exist whole.
 *
 *   x [.., C] @ w -> logits [.., V] -> cross_entropy -> items          (forward)
 *   cross_entropy_grad(logits, targets, d items) -> d logits -> d x = d logits @ w', d w = x' d
 * logits   (backward)
 *
 * (with 16 bits, a cast of the logits to f32 and one of d logits back stand between) becomes, for
 * each chunk of rows: its logits, items, d logits and d x, and d w summed over the
 * chunks in order.  Forward and backward of a chunk stand together, so one chunk's logits are live
 * at a time and nothing is computed twice; the price is that w and d w are read once a chunk.
 * Possible because the cotangent of an item does not depend on the items (a mean). Without a
 * gradient (@eval) the same with the forward part alone.
 *
 * Applies where the whole logits are larger than `loss_chunk_bytes`, nothing else uses them, and
 * the function writes no variable (it stands before pass accumulate). Source: row-chunked fused
 * linear cross entropy, Hsu et al., Liger Kernel, arXiv:2410.10989.
 */
#include "passes/pass.h"

#include <string.h>

/* A chunk is a copy of the ops: the number of chunks, and with it the time to compile, is bounded
 * whatever the batch. */
enum { MAX_READERS = 8, ROW_MULTIPLE = 16, MAX_CHUNKS = 64 };

/* A product that reads d logits. */
typedef struct Reader {
    OpId op;
    uint32_t side;  /* which operand d logits is */
    bool sums_rows; /* d w: contracts over the rows */
} Reader;

typedef struct Site {
    PassCtx *cx;
    Func *f;
    Uses uses;
    OpId project, items, grad; /* matmul, cross_entropy, cross_entropy_grad (none: forward only) */
    OpId widen, narrow;        /* casts of logits and d logits; none: of one dtype */
    ValueId x, w, targets;
    int64_t rows, classes;
    Reader reader[MAX_READERS];
    uint32_t n_readers;
} Site;

/* ---- finding ---- */

static uint32_t n_users(const Site *s, ValueId v)
{
    return s->uses.start[v.i + 1] - s->uses.start[v.i];
}

static OpId user(const Site *s, ValueId v, uint32_t i)
{
    return s->uses.user[s->uses.start[v.i] + i];
}

/* A product of d logits (v: itself, or flattened to [rows, V]) with a matrix, along V or along the
 * rows. */
static bool add_reader(Site *s, OpId id, ValueId v)
{
    const Op *op = op_cget(s->f, id);
    if (op->code != OP_MATMUL || s->n_readers == MAX_READERS || op->in[0].i == op->in[1].i)
        return false;
    bool trans_a = attr_int(op->attrs, AT_TRANS_A, 0) != 0,
         trans_b = attr_int(op->attrs, AT_TRANS_B, 0) != 0;
    uint32_t side = op->in[1].i == v.i;
    bool is_flat = value_type(s->f, v)->rank == 2,
         other_is_matrix = value_type(s->f, op->in[1 - side])->rank == 2;
    if (!other_is_matrix) return false;
    bool sums_rows = trans_a && !trans_b && is_flat;
    bool along_classes = side == 0 && !trans_a;
    if (!sums_rows && !along_classes) return false;
    s->reader[s->n_readers++] = (Reader){id, side, sums_rows};
    return true;
}

static bool find_readers(Site *s)
{
    ValueId d = op_cget(s->f, s->grad)->out[0];
    if (n_users(s, d) == 1 && op_cget(s->f, user(s, d, 0))->code == OP_CAST) {
        s->narrow = user(s, d, 0);
        d = op_cget(s->f, s->narrow)->out[0];
    }
    for (uint32_t i = 0; i < n_users(s, d); i++) {
        OpId id = user(s, d, i);
        const Op *op = op_cget(s->f, id);
        if (op->code != OP_RESHAPE) {
            if (!add_reader(s, id, d)) return false;
            continue;
        }
        const Type *flat = value_type(s->f, op->out[0]);
        if (flat->rank != 2 || flat->dim[0] != s->rows) return false;
        for (uint32_t j = 0; j < n_users(s, op->out[0]); j++)
            if (!add_reader(s, user(s, op->out[0], j), op->out[0])) return false;
    }
    return true;
}

/* Does `to` depend on `from`? */
static bool depends_on(const Site *s, ValueId to, ValueId from)
{
    bool *is_after = ARENA_ARRAY(s->cx->scratch, bool, s->f->values.n);
    is_after[from.i] = true;
    FOR_OPS(s->f, id)
    {
        const Op *op = op_cget(s->f, id);
        bool touches = false;
        for (uint32_t i = 0; i < op->n_in; i++) touches |= is_after[op->in[i].i];
        for (uint32_t i = 0; touches && i < op->n_out; i++) is_after[op->out[i].i] = true;
    }
    return is_after[to.i];
}

static bool find_site(Site *s, OpId items)
{
    const Op *ce = op_cget(s->f, items);
    ValueId logits = ce->in[0];
    s->items = items;
    s->targets = ce->in[1];
    s->project = value_cget(s->f, logits)->def;
    if (op_ok(s->project) && op_cget(s->f, s->project)->code == OP_CAST) {
        s->widen = s->project;
        ValueId product = op_cget(s->f, s->widen)->in[0];
        s->project = value_cget(s->f, product)->def;
        if (n_users(s, product) != 1) return false;
    }
    if (!op_ok(s->project) || op_cget(s->f, s->project)->code != OP_MATMUL) return false;
    const Op *mm = op_cget(s->f, s->project);
    s->x = mm->in[0];
    s->w = mm->in[1];
    if (attr_int(mm->attrs, AT_TRANS_A, 0) || value_type(s->f, s->w)->rank != 2) return false;
    const Type *t = value_type(s->f, logits);
    s->classes = t->dim[t->rank - 1];
    s->rows = type_elems(t) / s->classes;
    for (uint32_t i = 0; i < n_users(s, logits); i++) {
        OpId id = user(s, logits, i);
        if (id.i == items.i) continue;
        const Op *op = op_cget(s->f, id);
        if (op->code != OP_CROSS_ENTROPY_GRAD || op_ok(s->grad) || op->in[1].i != s->targets.i ||
            op->in[0].i != logits.i)
            return false;
        s->grad = id;
    }
    if (!op_ok(s->grad)) return true;
    return find_readers(s) && !depends_on(s, op_cget(s->f, s->grad)->in[2], ce->out[0]);
}

/* ---- rewriting ---- */

typedef struct Chunker {
    Site *s;
    Builder b;
    int64_t lo, n; /* rows of this chunk */
} Chunker;

/* v's rows [lo, lo + n): [rows, width] for width > 0, else [rows]. */
static ValueId rows_of(Chunker *c, ValueId v, int64_t width)
{
    int64_t all[] = {c->s->rows, width}, start[] = {c->lo, 0}, size[] = {c->n, width};
    return build_slice(&c->b, build_reshape(&c->b, v, width ? 2 : 1, all), start, size);
}

/* Behind reshapes, whose ops may stand after the chunks. */
static ValueId last_dim_rows(Chunker *c, ValueId v)
{
    const Type *t = value_type(c->s->f, v);
    for (OpId def = value_cget(c->s->f, v)->def;
         op_ok(def) && op_cget(c->s->f, def)->code == OP_RESHAPE; def = value_cget(c->s->f, v)->def)
        v = op_cget(c->s->f, def)->in[0];
    return rows_of(c, v, t->dim[t->rank - 1]);
}

/* One value per chunk, put together along the rows: a flat pack, in the shape of `like`. */
static ValueId join(Chunker *c, const ValueId *part, uint32_t n_parts, ValueId like)
{
    const Type *t = value_type(c->s->f, like);
    int64_t *start = ARENA_ARRAY(c->s->cx->scratch, int64_t, n_parts);
    int64_t total = 0;
    for (uint32_t k = 0; k < n_parts; k++) {
        start[k] = total;
        total += type_elems(value_type(c->s->f, part[k]));
    }
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, start, n_parts);
    attr_add_list(&l, AT_SHAPE, &total, 1);
    return build_reshape(&c->b, build1(&c->b, OP_PACK, part, n_parts, &l), t->rank, t->dim);
}

static AttrList same_attrs(const Op *op)
{
    AttrList l = {.n = op->attrs.n};
    if (l.n) memcpy(l.at, op->attrs.at, l.n * sizeof *l.at);
    return l;
}

static ValueId rebuild(Chunker *c, OpId like, const ValueId *in, uint32_t n_in)
{
    Op op = *op_cget(c->s->f, like);
    AttrList l = same_attrs(&op);
    LocId home = c->b.loc;
    c->b.loc = pass_loc(c->s->cx, op.loc, "chunk of rows");
    ValueId v = build1(&c->b, op.code, in, n_in, &l);
    c->b.loc = home;
    return v;
}

/* The chunk's part of a cast; x when there is none. */
static ValueId cast_chunk(Chunker *c, OpId cast, ValueId x)
{
    return op_ok(cast) ? rebuild(c, cast, &x, 1) : x;
}

/* The chunk's part of a product that reads d logits; d w is added to `sum`, what the chunks before
 * it gave. */
static ValueId read_chunk(Chunker *c, const Reader *r, ValueId d_logits, ValueId sum)
{
    ValueId other = op_cget(c->s->f, r->op)->in[1 - r->side];
    ValueId in[2];
    in[r->side] = d_logits;
    in[1 - r->side] = r->sums_rows ? last_dim_rows(c, other) : other;
    ValueId v = rebuild(c, r->op, in, 2);
    return value_ok(sum) ? build_binary(&c->b, OP_ADD, sum, v) : v;
}

static void replace_readers(Chunker *c, uint32_t n_chunks, ValueId (*part)[MAX_READERS])
{
    ValueId *one = ARENA_ARRAY(c->s->cx->scratch, ValueId, n_chunks);
    for (uint32_t i = 0; i < c->s->n_readers; i++) {
        const Reader *r = &c->s->reader[i];
        ValueId old = op_cget(c->s->f, r->op)->out[0];
        for (uint32_t k = 0; k < n_chunks; k++) one[k] = part[k][i];
        ValueId whole = r->sums_rows ? one[n_chunks - 1] : join(c, one, n_chunks, old);
        func_replace_uses(c->s->f, old, whole);
    }
}

/* The shape of a product over V for one chunk is [n, ...]: the op is built again, so only its
 * result's type differs. */
static void rewrite(Site *s, int64_t rows_per)
{
    uint32_t n_chunks = (uint32_t)((s->rows + rows_per - 1) / rows_per);
    Chunker c = {.s = s};
    c.b = (Builder){.f = s->f, .before = op_ok(s->grad) ? s->grad : s->items};
    c.b.loc = pass_loc(s->cx, op_cget(s->f, s->items)->loc, "chunk of rows");
    ValueId *items = ARENA_ARRAY(s->cx->scratch, ValueId, n_chunks);
    ValueId(*part)[MAX_READERS] = arena_alloc_array(s->cx->scratch, n_chunks, sizeof *part);
    for (uint32_t k = 0; k < n_chunks; k++) {
        c.lo = k * rows_per;
        c.n = c.lo + rows_per < s->rows ? rows_per : s->rows - c.lo;
        ValueId project[] = {last_dim_rows(&c, s->x), s->w};
        ValueId logits = cast_chunk(&c, s->widen, rebuild(&c, s->project, project, 2));
        ValueId ce[] = {logits, rows_of(&c, s->targets, 0)};
        items[k] = rebuild(&c, s->items, ce, 2);
        if (!op_ok(s->grad)) continue;
        ValueId grad[] = {logits, ce[1], rows_of(&c, op_cget(s->f, s->grad)->in[2], 0)};
        ValueId d_logits = cast_chunk(&c, s->narrow, rebuild(&c, s->grad, grad, 3));
        for (uint32_t i = 0; i < s->n_readers; i++) {
            const Reader *r = &s->reader[i];
            part[k][i] =
                read_chunk(&c, r, d_logits, k && r->sums_rows ? part[k - 1][i] : (ValueId){0});
        }
    }
    ValueId old = op_cget(s->f, s->items)->out[0];
    func_replace_uses(s->f, old, join(&c, items, n_chunks, old));
    replace_readers(&c, n_chunks, part);
}

/* ---- order ---- */

/* Moves ops so that every operand is defined before its users, keeping the order otherwise: an op
 * whose operand comes later goes behind that operand. */
static void sort_ops(PassCtx *cx, Func *f)
{
    bool *is_defined = ARENA_ARRAY(cx->scratch, bool, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) is_defined[f->params.at[i].i] = true;
    VEC(OpId) waiting = {0};
    FOR_OPS(f, id)
    {
        VEC_PUSH(cx->scratch, &waiting, id);
        for (bool moved = true; moved;) { /* place all that can be, oldest first */
            moved = false;
            uint32_t kept = 0;
            for (uint32_t i = 0; i < waiting.n; i++) {
                const Op *op = op_cget(f, waiting.at[i]);
                bool is_ready = true;
                for (uint32_t j = 0; j < op->n_in; j++) is_ready &= is_defined[op->in[j].i];
                if (!is_ready) {
                    waiting.at[kept++] = waiting.at[i];
                    continue;
                }
                op_move_before(f, waiting.at[i], next_id);
                for (uint32_t j = 0; j < op->n_out; j++) is_defined[op->out[j].i] = true;
                moved = true;
            }
            waiting.n = kept;
        }
    }
    ZM_CHECK(waiting.n == 0);
}

/* sort_ops would move a write past readings of its variable. */
static bool has_writes(const Func *f)
{
    FOR_OPS(f, id)
    if (op_cget(f, id)->code == OP_WRITE) return true;
    return false;
}

static bool chunk_function(PassCtx *cx, Func *f)
{
    if (has_writes(f)) return false;
    FOR_OPS(f, id)
    {
        if (op_cget(f, id)->code != OP_CROSS_ENTROPY) continue;
        Site s = {.cx = cx, .f = f, .uses = func_uses(cx->scratch, f)};
        if (!find_site(&s, id)) continue;
        DType stored = value_type(f, op_cget(f, s.project)->out[0])->dtype;
        int64_t row_bytes = s.classes * dtype_bytes(stored);
        int64_t n_chunks =
            (s.rows * row_bytes + cx->opt->loss_chunk_bytes - 1) / cx->opt->loss_chunk_bytes;
        if (n_chunks > MAX_CHUNKS) n_chunks = MAX_CHUNKS;
        int64_t rows_per = (s.rows + n_chunks - 1) / n_chunks;
        rows_per = (rows_per + ROW_MULTIPLE - 1) / ROW_MULTIPLE * ROW_MULTIPLE;
        if (rows_per >= s.rows) continue;
        rewrite(&s, rows_per);
        sort_ops(cx, f);
        cx->n_rewrites++;
        return true; /* one loss a function */
    }
    return false;
}

Status pass_chunk_loss(PassCtx *cx, bool *changed)
{
    if (cx->opt->loss_chunk_bytes <= 0) return ZM_OK;
    for (uint32_t i = 0; i < cx->m->funcs.n; i++)
        *changed |= chunk_function(cx, cx->m->funcs.at[i]);
    return ZM_OK;
}
