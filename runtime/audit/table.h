/* table.h -- what was seen, by line of the model. */
#ifndef ZM_AUDIT_TABLE_H
#define ZM_AUDIT_TABLE_H

#include "runtime/audit/body.h"

typedef enum { PHASE_FORWARD, PHASE_BACKWARD, PHASE_UPDATE, N_PHASE } AuditPhase;

/* All ops of a line, phase and dtype. */
typedef struct AuditRow {
    SrcPos pos;
    AuditPhase phase;
    DType dtype;
    int64_t n_elems, n_under, n_nonfinite;
    double error;      /* largest |machine - exact| / |exact| of an op's result, as 2-norms */
    const char *worst; /* the op that has it */
    double largest;    /* absolute machine value */
} AuditRow;

typedef struct AuditTable {
    Arena *a;
    const Module *m;
    VEC(AuditRow) rows;
} AuditTable;

void table_add(AuditTable *t, const BodyResult *r);
void table_print(const AuditTable *t, Arena *scratch, Str *out);

#endif
