/* ast.h -- syntax tree of a .zm file: uniform nodes, made by the grammar's actions, read by names.c
 * and elab_*.c.
 *
 * Nothing is resolved here: a name is a string, a type is a list of expressions.  Trees are at most
 * AST_MAX_DEPTH deep, so walks may recurse.
 */
#ifndef ZM_FRONTEND_AST_H
#define ZM_FRONTEND_AST_H

#include "ir/base/diag.h"
#include "ir/base/str.h"

typedef enum {
#define AST(ID, NAME, DOC) AST_##ID,
#include "frontend/ast.def"
#undef AST
    N_AST
} AstKind;

typedef enum {
#define OPERATOR(ID, TEXT, CODE) OPR_##ID,
#include "frontend/operators.def"
#undef OPERATOR
    N_OPR
} Operator;

enum { AST_MAX_DEPTH = 200, AST_MAX_SOURCE_BYTES = 1 << 20 };

typedef struct Ast Ast;
struct Ast {
    AstKind kind;
    SrcPos pos;
    const char *text; /* name or string, interned; "" when the kind has none */
    union {
        int64_t i;    /* INT, BOOL */
        double real;  /* REAL */
        Operator opr; /* UNARY, BINARY */
    } as;
    const char *precision; /* of a statement in precision { }: "f32" or "low"; else NULL */
    SrcPos name_pos;       /* of `text` where the node is larger: declarations, calls, instances */
    uint32_t depth;
    uint32_t n;
    Ast **kid;
};

const char *operator_text(Operator opr);

/* One node a line, indented: zmc --emit ast. */
void ast_print(const Ast *ast, Str *out);

/* A file, or one expression (the value of -D).  NULL only when the source is refused as a whole;
 * after syntax errors the tree of what could be read.  Names are interned in `strings`. */
Ast *parse_file(Arena *arena, Interner *strings, Diag *diag, const char *file, const char *text,
                size_t n);
Ast *parse_expression(Arena *arena, Interner *strings, Diag *diag, const char *source,
                      const char *text);

#endif
