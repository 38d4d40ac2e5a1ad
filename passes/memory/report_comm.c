/* report_comm.c -- what one rank sends in a step, from the collectives of the planned functions.
 *
 * Of a tensor of S bytes over n ranks a rank sends S (n-1)/n in a gather or a reduction, and both
 * in an all-reduce (runtime/comm.h).  Where n does not divide a tensor, which is so of the few
 * scalars only, the numbers are those of rank 0.
 */
#include <stdlib.h>
#include <string.h>

#include "passes/collective.h"
#include "passes/memory/report.h"

/* The whole tensor. */
static const Type *comm_type(const Func *f, const Op *op)
{
    return value_type(f, op->code == OP_ALL_GATHER ? op->out[0] : op->in[0]);
}

static int64_t comm_bytes(const Func *f, const Op *op, int64_t ranks)
{
    const Type *t = comm_type(f, op);
    int64_t all = type_elems(t), own = all / ranks + (all % ranks > 0);
    int64_t reduced = op->code == OP_ALL_GATHER ? 0 : all - own;
    int64_t gathered = op->code == OP_REDUCE_SCATTER ? 0 : (ranks - 1) * own;
    return (reduced + gathered) * dtype_bytes(t->dtype);
}

static void add_row(Arena *a, PlanComm *c, const Op *op, const char *what, int64_t runs,
                    int64_t bytes)
{
    const char *name = op_info(op->code)->name, *axis = attr_str(op->attrs, AT_MESH);
    uint32_t i = 0;
    while (i < c->rows.n &&
           (strcmp(c->rows.at[i].op, name) != 0 || strcmp(c->rows.at[i].axis, axis) != 0 ||
            strcmp(c->rows.at[i].what, what) != 0))
        i++;
    if (i == c->rows.n) VEC_PUSH(a, &c->rows, ((CommRow){name, axis, what, 0, 0}));
    c->rows.at[i].count += runs;
    c->rows.at[i].bytes += runs * bytes;
}

static void add_bucket(Arena *a, PlanComm *c, const Func *f, const Op *op, int64_t runs,
                       int64_t bytes)
{
    const char *tensor = collective_bucket_name(f->m, op), *name = tensor ? tensor : "";
    const Type *t = comm_type(f, op);
    uint32_t i = 0;
    while (i < c->buckets.n && strcmp(c->buckets.at[i].name, name) != 0) i++;
    if (i == c->buckets.n)
        VEC_PUSH(
            a, &c->buckets,
            ((CommBucket){.name = name, .var = var_find(f->m, name).i, .elems = type_elems(t)}));
    CommBucket *b = &c->buckets.at[i];
    b->bytes += runs * bytes;
    if (op->code == OP_ALL_GATHER) {
        b->gathers += runs;
        b->gather_bytes = dtype_bytes(t->dtype);
    } else {
        b->reductions += runs;
        b->wire_bytes = dtype_bytes(t->dtype);
    }
}

static int compare_buckets(const void *x, const void *y)
{
    const CommBucket *a = x, *b = y;
    return a->var < b->var ? -1 : a->var > b->var;
}

PlanComm plan_comm(const Module *m, Arena *a)
{
    PlanComm c = {0};
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        int64_t runs = (int64_t)plan_runs(m, f);
        if (runs <= 0) continue;
        FOR_OPS(f, id)
        {
            const Op *op = op_cget(f, id);
            if (!op_is_collective(op->code)) continue;
            MeshAxis axis = mesh_axis_from_name(attr_str(op->attrs, AT_MESH),
                                                strlen(attr_str(op->attrs, AT_MESH)));
            int64_t ranks = m->mesh[axis] ? m->mesh[axis] : 1, bytes = comm_bytes(f, op, ranks);
            add_row(a, &c, op, collective_what(m, op), runs, bytes);
            if (op->code != OP_ALL_REDUCE) add_bucket(a, &c, f, op, runs, bytes);
            c.bytes += runs * bytes;
        }
    }
    if (c.buckets.n) qsort(c.buckets.at, c.buckets.n, sizeof *c.buckets.at, compare_buckets);
    return c;
}

/* ---- text ---- */

static void print_rows(const PlanComm *c, Str *out)
{
    str_add(out, "  collective      axis    what           count         bytes sent\n");
    for (uint32_t i = 0; i < c->rows.n; i++) {
        const CommRow *r = &c->rows.at[i];
        str_addf(out, "  %-14s  %-6s  %-8s  %10lld  %15lld B  ", r->op, r->axis, r->what,
                 (long long)r->count, (long long)r->bytes);
        plan_add_bytes(out, r->bytes);
        str_add(out, "\n");
    }
    str_addf(out, "  %-14s  %-6s  %-8s  %10s  %15lld B  ", "together", "", "", "",
             (long long)c->bytes);
    plan_add_bytes(out, c->bytes);
    str_add(out, "\n");
}

static bool is_same_traffic(const CommBucket *x, const CommBucket *y)
{
    return x->elems == y->elems && x->gathers == y->gathers && x->reductions == y->reductions &&
           x->bytes == y->bytes;
}

static bool is_printed(const PlanComm *c, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (is_same_traffic(&c->buckets.at[k], &c->buckets.at[i])) return true;
    return false;
}

/* Equal buckets, those of layers, have one line. */
static void print_buckets(const PlanComm *c, Str *out)
{
    str_add(out, "  buckets                          elements      gathers  reductions  bytes sent "
                 "for each\n");
    for (uint32_t i = 0; i < c->buckets.n; i++) {
        const CommBucket *b = &c->buckets.at[i];
        uint32_t more = 0;
        if (is_printed(c, i)) continue;
        for (uint32_t k = i + 1; k < c->buckets.n; k++)
            more += is_same_traffic(b, &c->buckets.at[k]);
        Str name = {0};
        str_add(&name, *b->name ? b->name : "?");
        if (more) str_addf(&name, " and %u more", more);
        str_addf(out, "  %-26s  %13lld  %5lld x %d B  %5lld x %d B  %15lld B\n", str_c(&name),
                 (long long)b->elems, (long long)b->gathers, (int)b->gather_bytes,
                 (long long)b->reductions, (int)b->wire_bytes, (long long)b->bytes);
        str_free(&name);
    }
}

void comm_print_table(const PlanReport *r, Str *out)
{
    if (r->ranks == 1) return;
    str_addf(out, "communication: what each of %lld ranks sends in a step:\n", (long long)r->ranks);
    print_rows(&r->comm, out);
    print_buckets(&r->comm, out);
}

void comm_print_json(const PlanReport *r, Str *out)
{
    const PlanComm *c = &r->comm;
    str_add(out, ",\"comm\":[");
    for (uint32_t i = 0; i < c->rows.n; i++) {
        const CommRow *x = &c->rows.at[i];
        str_addf(out,
                 "%s\n{\"op\":\"%s\",\"axis\":\"%s\",\"what\":\"%s\",\"count\":%lld,"
                 "\"bytes\":%lld}",
                 i ? "," : "", x->op, x->axis, x->what, (long long)x->count, (long long)x->bytes);
    }
    str_add(out, "],\"comm_buckets\":[");
    for (uint32_t i = 0; i < c->buckets.n; i++) {
        const CommBucket *b = &c->buckets.at[i];
        str_add(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        str_add_json(out, b->name);
        str_addf(out,
                 ",\"elems\":%lld,\"gathers\":%lld,\"gather_bytes\":%d,\"reductions\":%lld,"
                 "\"wire_bytes\":%d,\"bytes\":%lld}",
                 (long long)b->elems, (long long)b->gathers, (int)b->gather_bytes,
                 (long long)b->reductions, (int)b->wire_bytes, (long long)b->bytes);
    }
    str_add(out, "]");
}
