/* grammar.y -- grammar of .zm files (docs/language.md).  Every action calls one builder of parse.h; what a construct means,
 * and where it may stand, is decided later.  A syntax error ends at the end of its statement. */
%require "3.8"
%define api.pure full
%define api.prefix {zm_}
%define api.value.type union
%define api.location.type {Span}
%define parse.error custom
%define parse.lac full
%locations
%defines
%expect 0
%param {void *scanner}
%parse-param {ParseCx *cx}

%code requires {
#include "frontend/parse.h"
}
%code {
#include <stdio.h>
#include <string.h>

#define YYLLOC_DEFAULT(CUR, RHS, N)                                                                \
    do {                                                                                           \
        (CUR) = (N) ? YYRHSLOC(RHS, 1) : (Span){YYRHSLOC(RHS, 0).end, YYRHSLOC(RHS, 0).end,        \
                                                YYRHSLOC(RHS, 0).line, YYRHSLOC(RHS, 0).col};      \
        if (N) (CUR).end = YYRHSLOC(RHS, N).end;                                                   \
    } while (0)

int zm_lex(ZM_STYPE *value, Span *at, void *scanner);
static void zm_error(const Span *at, void *scanner, ParseCx *cx, const char *what);
}

%token START_FILE START_EXPR
%token NEWLINE "end of line" YYEOF 0 "end of file"
%token <const char *> NAME "name" STRING "string"
%token <int64_t> INT "integer"
%token <double> REAL "number"
%token DIM "'dim'" CONST "'const'" ASSERT "'assert'" BLOCK "'block'" MODEL "'model'" PARAM "'param'" LET "'let'"
%token PRECISION "'precision'" RETURN "'return'" OUTPUT "'output'" LOSS "'loss'" TRUE "'true'" FALSE "'false'"
%token ELLIPSIS "'...'" DOTS "'..'" ARROW "'->'"

%left OR "'or'"
%left AND "'and'"
%precedence NOT "'not'"
%nonassoc '<' LE "'<='" '>' GE "'>='" EQ "'=='" NE "'!='"
%left '+' '-'
%left '*' '/' '@' '%' FLOORDIV "'//'"
%precedence UNARY_MINUS
%right POW "'**'"

%type <AstList *> items item dims consts args arg_list types type_dims dim_list stmts settings values names flags
%type <AstList *> call_args call_list results indices group
%type <Ast *> dim_def const_def arg type type_dim body section stmt setting expr postfix primary call_arg index

%%
input:
    START_FILE items            { cx->result = ast_node(cx, AST_FILE, @$, "", @$, $2); }
  | START_EXPR expr NEWLINE     { cx->result = $2; }
  ;

/* ---- the file ---- */
items:
    %empty                      { $$ = list_new(cx); }
  | items NEWLINE               { $$ = $1; }
  | items item NEWLINE          { $$ = list_join(cx, $1, $2); }
  | items error NEWLINE         { $$ = $1; yyerrok; }
  ;
item:
    DIM dims                    { $$ = $2; }
  | CONST consts                { $$ = $2; }
  | BLOCK NAME '(' args ')' results body
      { $$ = list_add(cx, list_new(cx), ast_kids(cx, AST_BLOCK, @$, $2, @2,
            ast_node(cx, AST_LIST, @4, "", @4, $4), ast_node(cx, AST_LIST, @6, "", @6, $6), $7, 3)); }
  | MODEL NAME '(' args ')' body
      { $$ = list_add(cx, list_new(cx), ast_kids(cx, AST_MODEL, @$, $2, @2,
            ast_node(cx, AST_LIST, @4, "", @4, $4), $6, NULL, 2)); }
  | section                     { $$ = list_add(cx, list_new(cx), $1); }
  | stmt                        { $$ = list_add(cx, list_new(cx), ast_top(cx, $1)); }
  | error body                  { $$ = list_add(cx, list_new(cx), ast_block_lost(cx, $2)); }
  ;
dims:
    dim_def                     { $$ = list_add(cx, list_new(cx), $1); }
  | dims ',' dim_def            { $$ = list_add(cx, $1, $3); }
  ;
dim_def: NAME '=' expr          { $$ = ast_kids(cx, AST_DIM, @$, $1, @1, $3, NULL, NULL, 1); } ;
consts:
    const_def                   { $$ = list_add(cx, list_new(cx), $1); }
  | consts ',' const_def        { $$ = list_add(cx, $1, $3); }
  ;
const_def: NAME '=' expr        { $$ = ast_kids(cx, AST_CONST, @$, $1, @1, $3, NULL, NULL, 1); } ;

args:
    %empty                      { $$ = list_new(cx); }
  | arg_list                    { $$ = $1; }
  | arg_list ','                { $$ = $1; }
  ;
arg_list:
    arg                         { $$ = list_add(cx, list_new(cx), $1); }
  | arg_list ',' arg            { $$ = list_add(cx, $1, $3); }
  ;
arg:
    NAME                        { $$ = ast_kids(cx, AST_ARG, @$, $1, @1, NULL, NULL, NULL, 2); }
  | NAME ':' type               { $$ = ast_kids(cx, AST_ARG, @$, $1, @1, $3, NULL, NULL, 2); }
  | NAME '=' expr               { $$ = ast_kids(cx, AST_ARG, @$, $1, @1, NULL, $3, NULL, 2); }
  ;
results:
    %empty                      { $$ = list_new(cx); }
  | ARROW types                 { $$ = $2; }
  ;
types:
    type                        { $$ = list_add(cx, list_new(cx), $1); }
  | types ',' type              { $$ = list_add(cx, $1, $3); }
  ;
type:
    '[' type_dims ']'           { $$ = ast_node(cx, AST_TYPE, @$, "float", @1, $2); }
  | NAME '[' type_dims ']'      { $$ = ast_node(cx, AST_TYPE, @$, $1, @1, $3); }
  ;
type_dims:
    %empty                      { $$ = list_new(cx); }
  | dim_list                    { $$ = $1; }
  | dim_list ','                { $$ = $1; }
  ;
dim_list:
    type_dim                    { $$ = list_add(cx, list_new(cx), $1); }
  | dim_list ',' type_dim       { $$ = list_add(cx, $1, $3); }
  ;
type_dim:
    expr                        { $$ = $1; }
  | ELLIPSIS                    { $$ = ast_leaf(cx, AST_ELLIPSIS, @$, ""); }
  ;

/* ---- sections ---- */
section: NAME '{' settings '}'  { $$ = ast_node(cx, AST_SECTION, @$, $1, @1, $3); }
  | NAME '{' settings setting '}' { $$ = ast_node(cx, AST_SECTION, @$, $1, @1, list_add(cx, $3, $4)); }
  | NAME '{' settings error '}' { $$ = ast_node(cx, AST_SECTION, @$, $1, @1, $3); yyerrok; }
  ;
settings:
    %empty                      { $$ = list_new(cx); }
  | settings NEWLINE            { $$ = $1; }
  | settings setting NEWLINE    { $$ = list_add(cx, $1, $2); }
  | settings error NEWLINE      { $$ = $1; yyerrok; }
  ;
setting:
    NAME                        { $$ = ast_setting(cx, @$, $1, @1, list_new(cx), NULL); }
  | NAME values                 { $$ = ast_setting(cx, @$, $1, @1, $2, NULL); }
  | NAME values '=' expr        { $$ = ast_setting(cx, @$, $1, @1, $2, $4); }
  ;
values:
    expr                        { $$ = list_add(cx, list_new(cx), $1); }
  | values ',' expr             { $$ = list_add(cx, $1, $3); }
  ;

/* ---- bodies and statements ---- */
body:
    '{' stmts '}'               { $$ = ast_node(cx, AST_BODY, @$, "", @$, $2); }
  | '{' stmts stmt '}'          { $$ = ast_node(cx, AST_BODY, @$, "", @$, list_add(cx, $2, $3)); }
  | '{' stmts group '}'         { $$ = ast_node(cx, AST_BODY, @$, "", @$, list_join(cx, $2, $3)); }
  | '{' stmts error '}'         { $$ = ast_node(cx, AST_BODY, @$, "", @$, $2); yyerrok; }
  ;
stmts:
    %empty                      { $$ = list_new(cx); }
  | stmts NEWLINE               { $$ = $1; }
  | stmts stmt NEWLINE          { $$ = list_add(cx, $1, $2); }
  | stmts group NEWLINE         { $$ = list_join(cx, $1, $2); }
  | stmts error NEWLINE         { $$ = $1; yyerrok; }
  ;
group: PRECISION NAME body      { $$ = list_precision(cx, $2, @2, $3); } ;
stmt:
    ASSERT expr                 { $$ = ast_kids(cx, AST_ASSERT, @$, "", @1, $2, NULL, NULL, 1); }
  | PARAM NAME ':' type '=' expr flags { $$ = ast_param(cx, @$, $2, @2, $4, $6, $7); }
  | LET names '=' expr          { $$ = ast_let(cx, @$, $2, $4); }
  | RETURN values               { $$ = ast_node(cx, AST_RETURN, @$, "", @1, $2); }
  | OUTPUT NAME '=' expr        { $$ = ast_kids(cx, AST_OUTPUT, @$, $2, @2, $4, NULL, NULL, 1); }
  | LOSS expr                   { $$ = ast_kids(cx, AST_LOSS, @$, "", @1, $2, NULL, NULL, 1); }
  ;
names:
    NAME                        { $$ = list_add(cx, list_new(cx), ast_leaf(cx, AST_NAME, @1, $1)); }
  | names ',' NAME              { $$ = list_add(cx, $1, ast_leaf(cx, AST_NAME, @3, $3)); }
  ;
flags:
    %empty                      { $$ = list_new(cx); }
  | flags ',' NAME              { $$ = list_add(cx, $1, ast_param_flag(cx, @3, $3, @3, NULL)); }
  | flags NAME STRING           { $$ = list_add(cx, $1, ast_param_flag(cx, @3, $2, @2, $3)); }
  ;

/* ---- expressions ---- */
expr:
    postfix                     { $$ = $1; }
  | expr OR expr                { $$ = ast_binary(cx, @$, OPR_OR, $1, $3); }
  | expr AND expr               { $$ = ast_binary(cx, @$, OPR_AND, $1, $3); }
  | NOT expr                    { $$ = ast_unary(cx, @$, OPR_NOT, $2); }
  | expr '<' expr               { $$ = ast_binary(cx, @$, OPR_LT, $1, $3); }
  | expr LE expr                { $$ = ast_binary(cx, @$, OPR_LE, $1, $3); }
  | expr '>' expr               { $$ = ast_binary(cx, @$, OPR_GT, $1, $3); }
  | expr GE expr                { $$ = ast_binary(cx, @$, OPR_GE, $1, $3); }
  | expr EQ expr                { $$ = ast_binary(cx, @$, OPR_EQ, $1, $3); }
  | expr NE expr                { $$ = ast_binary(cx, @$, OPR_NE, $1, $3); }
  | expr '+' expr               { $$ = ast_binary(cx, @$, OPR_ADD, $1, $3); }
  | expr '-' expr               { $$ = ast_binary(cx, @$, OPR_SUB, $1, $3); }
  | expr '*' expr               { $$ = ast_binary(cx, @$, OPR_MUL, $1, $3); }
  | expr '/' expr               { $$ = ast_binary(cx, @$, OPR_DIV, $1, $3); }
  | expr '@' expr               { $$ = ast_binary(cx, @$, OPR_MATMUL, $1, $3); }
  | expr '%' expr               { $$ = ast_binary(cx, @$, OPR_MOD, $1, $3); }
  | expr FLOORDIV expr          { $$ = ast_binary(cx, @$, OPR_FLOORDIV, $1, $3); }
  | expr POW expr               { $$ = ast_binary(cx, @$, OPR_POW, $1, $3); }
  | '-' expr %prec UNARY_MINUS  { $$ = ast_unary(cx, @$, OPR_NEG, $2); }
  ;
postfix:
    primary                     { $$ = $1; }
  | postfix '[' indices ']'     { $$ = ast_index(cx, @$, $1, $3); }
  | postfix ':' NAME '(' call_args ')' { $$ = ast_instance(cx, @$, $1, $3, @3, $5); }
  ;
primary:
    NAME                        { $$ = ast_leaf(cx, AST_NAME, @$, $1); }
  | INT                         { $$ = ast_int(cx, AST_INT, @$, $1); }
  | REAL                        { $$ = ast_real(cx, @$, $1); }
  | STRING                      { $$ = ast_leaf(cx, AST_STRING, @$, $1); }
  | TRUE                        { $$ = ast_int(cx, AST_BOOL, @$, 1); }
  | FALSE                       { $$ = ast_int(cx, AST_BOOL, @$, 0); }
  | NAME '(' call_args ')'      { $$ = ast_node(cx, AST_CALL, @$, $1, @1, $3); }
  | '(' call_args ')'           { $$ = ast_tuple(cx, @$, $2); }
  | '[' type_dims ']'           { $$ = ast_node(cx, AST_TUPLE, @$, "", @$, $2); }
  ;
call_args:
    %empty                      { $$ = list_new(cx); }
  | call_list                   { $$ = $1; }
  | call_list ','               { $$ = $1; }
  ;
call_list:
    call_arg                    { $$ = list_add(cx, list_new(cx), $1); }
  | call_list ',' call_arg      { $$ = list_add(cx, $1, $3); }
  ;
call_arg:
    expr                        { $$ = $1; }
  | NAME '=' expr               { $$ = ast_kids(cx, AST_NAMED, @$, $1, @1, $3, NULL, NULL, 1); }
  ;
indices:
    index                       { $$ = list_add(cx, list_new(cx), $1); }
  | indices ',' index           { $$ = list_add(cx, $1, $3); }
  ;
index:
    expr                        { $$ = $1; }
  | ELLIPSIS                    { $$ = ast_leaf(cx, AST_ELLIPSIS, @$, ""); }
  | DOTS                        { $$ = ast_kids(cx, AST_RANGE, @$, "", @$, NULL, NULL, NULL, 2); }
  | expr DOTS                   { $$ = ast_kids(cx, AST_RANGE, @$, "", @$, $1, NULL, NULL, 2); }
  | DOTS expr                   { $$ = ast_kids(cx, AST_RANGE, @$, "", @$, NULL, $2, NULL, 2); }
  | expr DOTS expr              { $$ = ast_kids(cx, AST_RANGE, @$, "", @$, $1, $3, NULL, 2); }
  ;
%%

/* In a body, where a statement begins; `let` and `dim` both: between the items of a file. */
static bool expects_statement(const yypcontext_t *px)
{
    yysymbol_kind_t all[YYNTOKENS];
    bool has_let = false, has_dim = false;
    int n = yypcontext_expected_tokens(px, all, YYNTOKENS);
    for (int i = 0; i < n; i++) {
        has_let |= all[i] == YYSYMBOL_LET;
        has_dim |= all[i] == YYSYMBOL_DIM;
    }
    return has_let && !has_dim;
}

/* Where a newline could stand, what begins a statement was meant to begin one. */
static bool lacks_newline(const yypcontext_t *px, yysymbol_kind_t got)
{
    yysymbol_kind_t all[YYNTOKENS];
    int n = yypcontext_expected_tokens(px, all, YYNTOKENS);
    if (got != YYSYMBOL_NAME && got != YYSYMBOL_LET && got != YYSYMBOL_PARAM && got != YYSYMBOL_LOSS &&
        got != YYSYMBOL_OUTPUT && got != YYSYMBOL_RETURN && got != YYSYMBOL_PRECISION)
        return false;
    for (int i = 0; i < n; i++)
        if (all[i] == YYSYMBOL_NEWLINE) return true;
    return false;
}

static void help_with_syntax(ParseCx *cx, const yypcontext_t *px, yysymbol_kind_t got)
{
    if (got == YYSYMBOL_NAME && expects_statement(px))
        diag_help(cx->diag, "a statement begins with let, param, assert, output, loss or return, or is "
                            "precision f32 { ... }: let NAME = ...");
    else if (lacks_newline(px, got))
        diag_help(cx->diag, "a newline ends a statement: begin the next one on a line of its own");
}

/* "unexpected X" and, when few tokens would do, "expected A, B or C". */
static int yyreport_syntax_error(const yypcontext_t *px, void *scanner, ParseCx *cx)
{
    enum { MAX_EXPECTED = 5 };
    yysymbol_kind_t expected[MAX_EXPECTED + 1];
    char text[400] = "";
    size_t used = 0;
    int n = yypcontext_expected_tokens(px, expected, MAX_EXPECTED);
    for (int i = 0; i < n && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s",
                                 i == 0 ? ": expected " : i + 1 < n ? ", " : " or ", yysymbol_name(expected[i]));
    yysymbol_kind_t got = yypcontext_token(px);
    (void)scanner;
    cx->is_recovering = true;
    parse_error(cx, *yypcontext_location(px), E_SYNTAX, "unexpected %s%s",
                got == YYSYMBOL_YYEMPTY ? "input" : yysymbol_name(got), text);
    help_with_syntax(cx, px, got);
    return 0;
}

/* Only "memory exhausted": the parser's stack is at its limit. */
static void zm_error(const Span *at, void *scanner, ParseCx *cx, const char *what)
{
    (void)scanner;
    (void)what;
    parse_error(cx, *at, E_TOO_DEEP, "nested too deeply to parse");
}
