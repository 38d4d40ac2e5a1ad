/* parse.h -- the parser's parts: parse.c (module, variables, locations) and parse_func.c. */
#ifndef ZM_IR_PARSE_H
#define ZM_IR_PARSE_H

#include "ir/parse_lex.h"

/* Tensors above these sizes are refused, so that later arithmetic on sizes cannot overflow. */
#define PARSE_MAX_INT (INT64_C(1) << 40)
#define PARSE_MAX_ELEMS (INT64_C(1) << 48)

/* A location number that is resolved when the table at the file's end was read. */
typedef struct LocFix {
    Func *f; /* NULL: variable `var` */
    OpId op;
    VarId var;
    uint32_t number;
    SrcPos pos;
} LocFix;

/* A variable that another one names in `in` or `of`. */
typedef struct VarFix {
    VarId var;
    const char *name;
    bool is_of;
    SrcPos pos;
} VarFix;

typedef struct Parser {
    Lexer lex;
    Token tok;
    uint32_t prev_line; /* of the last token consumed */
    bool prev_opens;    /* it was '{' */
    Module *m;
    Diag *diag;
    Map locs; /* number -> index into m->locs */
    VEC(LocFix) loc_fixes;
    VEC(VarFix) var_fixes;
    LocId placeholder; /* of ops whose location comes from the table */
} Parser;

void parse_next(Parser *p);
/* After an error: skips the rest of the line, and the block that the line opens. */
void parse_recover(Parser *p);
Status parse_unexpected(Parser *p, const char *wanted);

bool parse_at(const Parser *p, char punct);
bool parse_at_word(const Parser *p, const char *word);
bool parse_accept(Parser *p, char punct);
Status parse_expect(Parser *p, char punct);
Status parse_word(Parser *p, const char *what, const char **out); /* a WORD */
Status parse_name(Parser *p, const char *what, const char **out); /* a WORD or STR */
Status parse_str(Parser *p, const char *what, const char **out);
Status parse_int(Parser *p, int64_t *out);
Status parse_float(Parser *p, double *out);
Status parse_bool(Parser *p, bool *out);
Status parse_choice(Parser *p, const char *const *words, const char *what, int *out);
Status parse_int_list(Parser *p, const int64_t **at, uint32_t *n); /* "[1, 2]", in the module */
Status parse_type(Parser *p, const Type **out);
Status parse_place(Parser *p, Place *out); /* leaves *out as it is when there is none */
bool parse_type_is_huge(const Type *t);

/* "{key = value, ...}": calls field for each key, at the first token of the value. */
typedef Status (*FieldFn)(Parser *p, void *arg, const Token *key);
Status parse_fields(Parser *p, FieldFn field, void *arg);

Status parse_func(Parser *p); /* at the token after "func" */

#endif
