/* diag.h -- diagnostics: collected, never printed by the library; every one names a place and the
 * facts that disagree.
 *
 *   gpt2.zm:14:20: error[E0203]: matmul inner dimensions differ: 768 and 3072
 *      14 |     let h = x @ w1 + b1
 *         |             ~~^~~~
 *   gpt2.zm:6:5: note: w1 is f32[3072, 768], declared here
 *   help: transpose one operand: transpose(w1)
 *
 * Text: lower case, no full stop, values shown, the user's names and never ids.
 */
#ifndef ZM_BASE_DIAG_H
#define ZM_BASE_DIAG_H

#include <stdio.h>

#include "ir/base/str.h"
#include "ir/base/vec.h"

typedef struct Source {
    const char *name; /* as the user wrote the path */
    const char
        *text; /* NUL-terminated; NULL when only the name is known (parsed from an IR dump) */
    size_t n;
} Source;

/* A place in a source; line 0 = no place.  Lines and columns count from 1, columns in bytes. */
typedef struct SrcPos {
    uint32_t source; /* index into SourceSet */
    uint32_t line, col, len;
} SrcPos;

typedef struct SourceSet {
    Arena *arena;
    VEC(Source) all;
} SourceSet;

uint32_t source_add(SourceSet *s, const char *name, const char *text, size_t n); /* copies both */
uint32_t source_find_or_add(SourceSet *s, const char *name);                     /* name only */

typedef enum {
#define DIAG(ID, CODE, EXPLAIN) ID,
#include "ir/base/diag.def"
#undef DIAG
    N_DIAG
} DiagCode;

typedef enum { SEV_ERROR, SEV_WARNING, SEV_NOTE, SEV_HELP } Severity;

typedef struct DiagMsg {
    Severity severity;
    DiagCode code; /* errors and warnings */
    SrcPos pos;
    const char *text;
} DiagMsg;

enum { DIAG_MAX_ERRORS = 20 };

typedef struct Diag {
    Arena *arena;
    SourceSet *sources;
    VEC(DiagMsg) msgs;
    uint32_t n_errors;
    bool is_muted; /* after DIAG_MAX_ERRORS: notes of dropped errors are dropped too */
} Diag;

/* Each returns ZM_FAIL so that `return diag_error(...)` reads well.  Notes and helps belong to the
 * error before them. */
Status diag_error(Diag *d, SrcPos pos, DiagCode code, const char *fmt, ...) ZM_PRINTF(4, 5);
void diag_warning(Diag *d, SrcPos pos, DiagCode code, const char *fmt, ...) ZM_PRINTF(4, 5);
void diag_note(Diag *d, SrcPos pos, const char *fmt, ...) ZM_PRINTF(3, 4);
void diag_help(Diag *d, const char *fmt, ...) ZM_PRINTF(2, 3);
bool diag_is_full(const Diag *d); /* 20 errors: stop */
void diag_print(const Diag *d, FILE *out);
const char *diag_code_text(DiagCode code);    /* "E0203" */
const char *diag_code_explain(DiagCode code); /* a paragraph for zmc --explain */

#endif
