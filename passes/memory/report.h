/* report.h -- between report.c and report_*.c. */
#ifndef ZM_PASSES_MEMORY_REPORT_H
#define ZM_PASSES_MEMORY_REPORT_H

#include "passes/memory/memory.h"

/* Places of values that share bytes while live. */
typedef struct Buffer {
    const Func *f;           /* NULL: a variable */
    const char *name, *what; /* "last.mul.5260", "mul"; a variable's are the same */
    const char *cat;
    int64_t offset, bytes;
    int32_t from, to; /* op positions within f */
    int32_t base;     /* of f's positions on the common time axis; of a variable: its end */
    LocId loc;
    VarId var; /* f NULL: the variable */
} Buffer;
typedef VEC(Buffer) Buffers;

Buffers plan_buffers(Arena *a, const Module *m);
bool buffer_is_at_peak(const Buffer *b, const PlanReport *r);
double plan_runs(const Module *m, const Func *f); /* of f in one step */
const char *plan_category_name(int i);            /* i of PlanReport.cat */
void plan_add_bytes(Str *out, int64_t bytes);
const char *plan_loc_text(Arena *a, const Module *m, LocId loc); /* "gpt2.zm:9:10", "" */

/* plan_page.html with its style and script (plan_page.cmake); the plan goes where @PLAN@ stands. */
extern const char plan_page[];

/* Bytes of parameters, masters, gradients and two moments on one of so many ranks, by the stage of
 * m's train settings, for each padded parameter (docs/memory.md). */
int64_t precision_closed_form(const Module *m, int64_t ranks);
void precision_print_table(const Module *m, Str *out);
void precision_print_json(const Module *m, Str *out); /* "precision", "amp" and "dtypes" */

PlanComm plan_comm(const Module *m, Arena *a); /* strings are m's */
void comm_print_table(const PlanReport *r, Str *out);
void comm_print_json(const PlanReport *r, Str *out); /* ,"comm":[..],"comm_buckets":[..] */

void recompute_print_table(const PlanReport *r, Str *out);
void recompute_print_json(const PlanReport *r, Str *out);

#endif
