/* wide.c -- packs: elements that lie side by side in memory are loaded and stored at once, up to 16
 * bytes a thread.
 *
 *   const zm_vec<zm_bf16, 8> x0 = zm_load<8>(a0 + ...);   loads, and what the pack has once
 *   for (int j = 0; j < 8; j++) { ... }                   each element's own values, unrolled
 *   zm_store(a5 + ..., s0);
 *
 * Whether an access is wide follows from the form and from KernelArg.align alone, so that no kernel
 * tests addresses when it runs.  Rows that begin anywhere (50257 elements of 2 bytes) are ragged:
 * packs follow the memory's boundaries, and the first and the last one of a row may be partial. */
#include "codegen/cuda/print.h"

enum { WIDEST = 8, WIDE_BYTES = 16, RAGGED_MIN = 512 };

int wide_loop(const Kernel *k, CudaShape shape)
{
    bool is_par = shape == CUDA_POINT || shape == CUDA_SPLIT_COLUMN || shape == CUDA_STRIP ||
                  shape == CUDA_SCATTER;
    bool is_narrow = shape == CUDA_THREAD || shape == CUDA_COLUMN || shape == CUDA_TILES ||
                     shape == CUDA_ATTENTION || shape == CUDA_FLASH;
    for (uint32_t d = k->n_loops; d-- > 0 && !is_narrow;)
        if (k->loops[d].kind == (is_par ? LOOP_PAR : LOOP_RED)) return (int)d;
    return -1;
}

/* ---- what differs from element to element ---- */

bool access_moves(const Access *at, int loop, const bool *moves)
{
    if (loop < 0) return false;
    if (at->stride[loop] != 0 || (at->dyn >= 0 && moves[at->dyn])) return true;
    for (uint32_t g = 0; g < at->n_guards; g++)
        if (at->guards[g].stride[loop] != 0) return true;
    return false;
}

static void mark_moves(const Kernel *k, int loop, bool *moves)
{
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        moves[i] = false;
        if (n->kind == KN_REDUCE) continue; /* a row's, or of one row when it is used */
        if (n->kind == KN_LOAD || n->kind == KN_INDEX)
            moves[i] = access_moves(&k->accesses[n->index], loop, moves);
        for (uint32_t a = 0; a < n->n_args; a++) moves[i] |= moves[n->arg[a]];
    }
}

void find_moves(Printer *p)
{
    mark_moves(p->k, p->wide_loop, p->moves);
}

/* ---- which accesses are wide ---- */

typedef struct Pack {
    const Kernel *k;
    int loop, width;
    const bool *moves;
    const Access *ragged; /* rows begin where this access says; NULL: at multiples of the width */
} Pack;

static int64_t modulo(int64_t x, int width)
{
    return x & (width - 1); /* also of negative numbers */
}

/* Side by side along the loop, each in memory of its own. */
static bool is_contiguous(const Pack *x, const Access *at)
{
    if (at->stride[x->loop] != 1 || (at->dyn >= 0 && x->moves[at->dyn])) return false;
    for (uint32_t g = 0; g < at->n_guards; g++)
        if (at->guards[g].stride[x->loop] != 0) return false;
    return true;
}

/* Does every pack begin at a multiple of the width, or, ragged, where the rows' packs do? */
static bool is_in_step(const Pack *x, const Access *at)
{
    const Access zero = {0}, *like = x->ragged ? x->ragged : &zero;
    if (at->dyn >= 0 && modulo(at->dyn_stride, x->width) != 0) return false;
    if (modulo(at->base - like->base, x->width) != 0) return false;
    for (uint32_t d = 0; d < x->k->n_loops; d++)
        if ((int)d != x->loop && modulo(at->stride[d] - like->stride[d], x->width) != 0)
            return false;
    return true;
}

static bool is_wide(const Pack *x, const Access *at)
{
    const KernelArg *a = &x->k->args[at->arg];
    int bytes = x->width * (int)dtype_bytes(a->dtype);
    return bytes <= WIDE_BYTES && a->align >= bytes && is_contiguous(x, at) && is_in_step(x, at);
}

static bool suits_stores(const Pack *x)
{
    for (uint32_t i = 0; i < x->k->n_stores; i++)
        if (x->k->stores[i].level == LV_ELEM && !is_wide(x, &x->k->stores[i].to)) return false;
    return true;
}

static bool has_elem_stores(const Kernel *k)
{
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (k->stores[i].level == LV_ELEM) return true;
    return false;
}

/* Elements of the largest type that a wide access has: 0 when there is none. */
static int64_t widest_bytes(const Pack *x)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < x->k->n_nodes; i++) {
        const Node *n = &x->k->nodes[i];
        if (n->kind != KN_LOAD || !is_contiguous(x, &x->k->accesses[n->index])) continue;
        const KernelArg *a = &x->k->args[x->k->accesses[n->index].arg];
        bool is_used = is_wide(x, &x->k->accesses[n->index]) || a->align >= WIDE_BYTES;
        if (is_used && dtype_bytes(a->dtype) > most) most = dtype_bytes(a->dtype);
    }
    return most;
}

static bool suits(const Pack *x)
{
    int64_t bytes = widest_bytes(x);
    if (bytes * x->width > WIDE_BYTES || !suits_stores(x)) return false;
    return bytes > 0 || has_elem_stores(x->k);
}

/* Loads, or the stores' accesses, that rows of a ragged sweep may follow: the first contiguous one.
 */
static const Access *ragged_access(const Pack *x)
{
    for (uint32_t i = 0; i < x->k->n_nodes; i++) {
        const Node *n = &x->k->nodes[i];
        if (n->kind != KN_LOAD) continue;
        const Access *at = &x->k->accesses[n->index];
        bool is_row = false;
        for (uint32_t d = 0; d < x->k->n_loops; d++) is_row |= (int)d != x->loop && at->stride[d];
        if (is_row && at->dyn < 0 && is_contiguous(x, at)) return at;
    }
    return NULL;
}

static bool may_be_ragged(const Kernel *k, const CudaSchedule *s, int loop)
{
    if (s->shape != CUDA_BLOCK || s->n_reduced < RAGGED_MIN) return false;
    return k->loops[loop].extent == s->n_reduced;
}

void schedule_width(const Kernel *k, CudaSchedule *s)
{
    Arena scratch = {0};
    Pack x = {.k = k, .loop = wide_loop(k, s->shape)};
    bool *moves = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    s->width = 1;
    mark_moves(k, x.loop, moves);
    x.moves = moves;
    for (x.width = WIDEST; x.loop >= 0 && x.width > 1 && s->width == 1; x.width /= 2) {
        x.ragged = NULL;
        if (k->loops[x.loop].extent % x.width == 0 && suits(&x)) s->width = x.width;
        x.ragged = s->width == 1 && may_be_ragged(k, s, x.loop) ? ragged_access(&x) : NULL;
        if (!x.ragged || !suits(&x) || !is_wide(&x, x.ragged)) continue;
        s->width = x.width;
        s->is_ragged = true;
    }
    bool is_narrow = s->shape == CUDA_WARP && !s->is_ragged; /* short rows: all lanes take part */
    while (is_narrow && s->width > 1 && s->n_reduced / s->width < 32) s->width /= 2;
    arena_free(&scratch);
}

static Pack pack_of(const Printer *p)
{
    Pack x = {.k = p->k, .loop = p->wide_loop, .width = p->s.width, .moves = p->moves};
    if (p->s.is_ragged) x.ragged = ragged_access(&x);
    return x;
}

const Access *ragged_access_of(const Printer *p)
{
    return pack_of(p).ragged;
}

/* Of an element that moves: is it loaded with its pack? */
static bool is_wide_node(const Pack *x, uint32_t node)
{
    const Node *n = &x->k->nodes[node];
    if (n->kind != KN_LOAD || x->loop < 0 || !x->moves[node]) return false;
    const Access *at = &x->k->accesses[n->index];
    if (x->width == 1) return !at->n_guards && (at->dyn < 0 || !x->moves[at->dyn]);
    return is_wide(x, at);
}

static bool is_wide_load(const Printer *p, uint32_t node)
{
    Pack x = pack_of(p);
    return is_wide_node(&x, node);
}

/* ---- what stays on the chip ---- */

/* want[] = the element nodes of one sweep, whatever is live. */
static void want_of_sweep(const Kernel *k, int32_t stage, bool *want)
{
    bool is_last = stage + 1 == (int32_t)k->n_stages;
    for (uint32_t i = 0; i < k->n_nodes; i++) want[i] = false;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_REDUCE && k->nodes[i].stage == stage)
            want[k->nodes[i].arg[0]] = true;
    for (uint32_t i = 0; is_last && i < k->n_stores; i++)
        if (k->stores[i].level == LV_ELEM) mark_store(&k->stores[i], want);
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        if (!want[i]) continue;
        if (k->nodes[i].level == LV_ELEM && k->nodes[i].kind != KN_REDUCE)
            mark_inputs(k, i, want);
        else
            want[i] = false;
    }
}

/* held[] = wide loads that several sweeps want. */
static void mark_held(const Pack *x, bool *held)
{
    const Kernel *k = x->k;
    Arena scratch = {0};
    bool *want = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    int32_t *n_sweeps = ARENA_ARRAY(&scratch, int32_t, k->n_nodes + 1);
    for (int32_t stage = 0; stage < (int32_t)k->n_stages; stage++) {
        want_of_sweep(k, stage, want);
        for (uint32_t i = 0; i < k->n_nodes; i++) {
            if (!want[i] || !is_wide_node(x, i)) continue;
            const Access *at = &k->accesses[k->nodes[i].index];
            bool is_of_row = at->dyn < 0 || k->nodes[at->dyn].level != LV_ELEM;
            if (!at->n_guards && is_of_row && n_sweeps[i]++ > 0) held[i] = true;
        }
    }
    arena_free(&scratch);
}

void find_held(Printer *p)
{
    Pack x = pack_of(p);
    if (p->s.n_packs > 0 || p->s.shared_bytes > 0) mark_held(&x, p->is_held);
}

int64_t held_packs(const CudaSchedule *s)
{
    int64_t reach = s->n_reduced + (s->is_ragged ? s->width - 1 : 0);
    return (reach + s->width - 1) / s->width;
}

/* Shared memory of one held load: whole words of 16 bytes. */
static int64_t held_bytes_of(const Kernel *k, const CudaSchedule *s, uint32_t node)
{
    DType dt = k->args[k->accesses[k->nodes[node].index].arg].dtype;
    return (held_packs(s) * s->width * (int64_t)dtype_bytes(dt) + 15) / 16 * 16;
}

int64_t held_bytes(const Kernel *k, const CudaSchedule *s)
{
    Arena scratch = {0};
    Pack x = {.k = k, .loop = wide_loop(k, s->shape), .width = s->width};
    bool *moves = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    bool *held = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    int64_t n = 0;
    mark_moves(k, x.loop, moves);
    x.moves = moves;
    if (s->is_ragged) x.ragged = ragged_access(&x);
    mark_held(&x, held);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (held[i]) n += held_bytes_of(k, s, i);
    arena_free(&scratch);
    return n;
}

static void print_vec(Printer *p, int32_t arg)
{
    str_addf(p->out, "zm_vec<%s, %d> ", memory_type(p->k->args[arg].dtype), p->s.width);
}

static void print_wide_load(Printer *p, const Access *at)
{
    str_addf(p->out, p->s.is_ragged ? "zm_load_part<%d>(a%d + " : "zm_load<%d>(a%d + ", p->s.width,
             at->arg);
    print_offset(p, at);
    if (p->s.is_ragged) str_addf(p->out, ", p%d, %lld", p->wide_loop, (long long)p->s.n_reduced);
    str_add(p->out, ")");
}

void print_held_in_shared(Printer *p)
{
    int64_t at = 0;
    for (uint32_t i = 0; p->s.shared_bytes > 0 && i < p->k->n_nodes; i++) {
        if (!p->is_held[i]) continue;
        const char *type = memory_type(p->k->args[p->k->accesses[p->k->nodes[i].index].arg].dtype);
        print_line(p, "zm_vec<%s, %d> *const h%u = (zm_vec<%s, %d> *)(zm_shared + %lld);", type,
                   p->s.width, i, type, p->s.width, (long long)at / 16);
        at += held_bytes_of(p->k, &p->s, i);
    }
}

void print_held(Printer *p, int32_t stage)
{
    const Kernel *k = p->k;
    bool any = false;
    if (p->s.n_packs == 0) return;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!p->is_wanted[i] || !p->is_held[i] || p->held_from[i] >= 0) continue;
        p->held_from[i] = stage;
        print_indent(p);
        print_vec(p, k->accesses[k->nodes[i].index].arg);
        str_addf(p->out, "x%u[%d];", i, p->s.n_packs);
        print_end(p, "load", node_loc(p, i));
        any = true;
    }
    if (!any) return;
    print_sweep_loop(p);
    p->is_pack = p->s.width > 1;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!p->is_held[i] || p->held_from[i] != stage) continue;
        print_indent(p);
        str_addf(p->out, "x%u[q] = ", i);
        print_wide_load(p, &k->accesses[k->nodes[i].index]);
        str_add(p->out, ";\n");
    }
    p->is_pack = false;
    print_close(p);
}

/* ---- a pack ---- */

/* const zm_vec<...> x5 = ...; */
static void print_pack_load(Printer *p, uint32_t i)
{
    const Access *at = &p->k->accesses[p->k->nodes[i].index];
    bool is_kept = p->is_held[i] && p->held_from[i] >= 0; /* in shared memory */
    print_indent(p);
    str_add(p->out, "const ");
    print_vec(p, at->arg);
    str_addf(p->out, "x%u = ", i);
    if (is_kept) {
        str_addf(p->out, "h%u[q];\n", i);
        return;
    }
    bool is_guarded = print_guards(p, at);
    print_wide_load(p, at);
    if (is_guarded) {
        str_add(p->out, " : ");
        print_vec(p, at->arg);
        str_add(p->out, "{}");
    }
    str_add(p->out, ";");
    print_end(p, "load", node_loc(p, i));
    if (p->is_held[i]) print_line(p, "h%u[q] = x%u;", i, i);
}

/* Before the loop over elements: loads, and what all elements have in common. */
static void print_pack_head(Printer *p, int32_t stage)
{
    p->is_pack = p->s.width > 1;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!p->is_wanted[i]) continue;
        if (!p->moves[i] && p->s.width > 1) print_node(p, i);
        bool is_here = is_wide_load(p, i) && !(p->is_held[i] && p->s.n_packs > 0);
        if (!is_here || (p->s.width == 1 && !p->is_held[i])) continue;
        print_pack_load(p, i);
        if (p->is_held[i] && p->held_from[i] < 0) p->held_from[i] = stage;
    }
    p->is_pack = false;
}

static void print_element_of_pack(Printer *p, uint32_t i)
{
    const Node *n = &p->k->nodes[i];
    DType dt = p->k->args[p->k->accesses[n->index].arg].dtype;
    bool is_16bit = dt == DT_BF16 || dt == DT_F16;
    print_line(p, "const %s v%u = %sx%u%s.at[%s]%s;", register_type(n->dtype), i,
               is_16bit ? "zm_to_float(" : "", i, p->is_held[i] && p->s.n_packs > 0 ? "[q]" : "",
               p->s.width > 1 ? "j" : "0", is_16bit ? ")" : "");
}

static void print_pack_nodes(Printer *p)
{
    bool is_single = p->s.width == 1;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!p->is_wanted[i]) continue;
        if (is_single ? p->is_held[i] : is_wide_load(p, i))
            print_element_of_pack(p, i);
        else if (is_single || p->moves[i])
            print_node(p, i);
    }
}

static void print_packed_stores(Printer *p, bool is_whole)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++) {
        const Store *s = &p->k->stores[i];
        if (s->level != LV_ELEM) continue;
        print_indent(p);
        if (is_whole) {
            str_addf(p->out, p->s.is_ragged ? "zm_store_part(a%d + " : "zm_store(a%d + ",
                     s->to.arg);
            print_offset(p, &s->to);
            str_addf(p->out, ", s%u", i);
            if (p->s.is_ragged)
                str_addf(p->out, ", p%d, %lld", p->wide_loop, (long long)p->s.n_reduced);
            str_add(p->out, ");\n");
        } else {
            str_addf(p->out, "s%u.at[j] = ", i);
            print_store_value(p, s);
            str_add(p->out, ";");
            print_end(p, "store", node_loc(p, (uint32_t)s->node));
        }
    }
}

/* Does an element's value, or an access of its own, need its index? */
static bool needs_index(const Printer *p)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        const Node *n = &p->k->nodes[i];
        if (!p->is_wanted[i] || !p->moves[i] || is_wide_load(p, i)) continue;
        if (n->kind == KN_LOAD || n->kind == KN_INDEX) return true;
    }
    return p->s.is_ragged;
}

/* Elements outside of a ragged row: computed from zeros and left out of sums, unless they would
 * read memory. */
static void print_ragged_test(Printer *p)
{
    long long n = (long long)p->s.n_reduced;
    p->is_masked = true;
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_wanted[i] && p->moves[i] && p->k->nodes[i].kind == KN_LOAD)
            p->is_masked &= is_wide_load(p, i);
    if (p->is_masked)
        print_line(p, "const bool is_inside = i%d >= 0 && i%d < %lld;", p->wide_loop, p->wide_loop,
                   n);
    else
        print_line(p, "if (i%d < 0 || i%d >= %lld) continue;", p->wide_loop, p->wide_loop, n);
}

static void print_pack_loop(Printer *p)
{
    print_line(p, "#pragma unroll");
    print_line(p, "for (int j = 0; j < %d; j++) {", p->s.width);
    p->depth++;
    if (needs_index(p))
        print_line(p, "const %s i%d = p%d + j;", p->index_type, p->wide_loop, p->wide_loop);
    if (p->s.is_ragged) print_ragged_test(p);
}

static void print_single(Printer *p, int32_t stage, bool has_stores)
{
    bool is_guarded = false;
    print_pack_head(p, stage);
    print_pack_nodes(p);
    if (p->print_last) {
        p->print_last(p, &p->k->stores[0]);
        return;
    }
    print_reduce_steps(p, stage);
    for (uint32_t i = 0; has_stores && i < p->k->n_stores; i++)
        is_guarded |= p->s.shape == CUDA_COLUMN && p->k->stores[i].level == LV_ELEM;
    if (is_guarded) print_open(p, "if (is_mine)");
    if (has_stores) print_stores(p, LV_ELEM);
    if (is_guarded) print_close(p);
}

void print_pack(Printer *p, int32_t stage, bool has_stores)
{
    bool is_stored = has_stores && !p->print_last;
    if (p->s.width == 1) {
        print_single(p, stage, has_stores);
        return;
    }
    print_pack_head(p, stage);
    for (uint32_t i = 0; is_stored && i < p->k->n_stores; i++) {
        if (p->k->stores[i].level != LV_ELEM) continue;
        print_indent(p);
        print_vec(p, p->k->stores[i].to.arg);
        str_addf(p->out, "s%u;\n", i);
    }
    print_pack_loop(p);
    print_pack_nodes(p);
    if (p->print_last)
        p->print_last(p, &p->k->stores[0]);
    else
        print_reduce_steps(p, stage);
    if (is_stored) print_packed_stores(p, false);
    print_close(p);
    p->is_pack = true;
    if (is_stored) print_packed_stores(p, true);
    p->is_pack = false;
}
