/* ast.c -- names of syntax nodes, and their text. */
#include "frontend/ast.h"

static const char *const kind_names[] = {
#define AST(ID, NAME, DOC) NAME,
#include "frontend/ast.def"
#undef AST
};
_Static_assert(sizeof kind_names / sizeof *kind_names == N_AST, "one name per kind");

static const char *const operator_texts[] = {
#define OPERATOR(ID, TEXT, CODE) TEXT,
#include "frontend/operators.def"
#undef OPERATOR
};
_Static_assert(sizeof operator_texts / sizeof *operator_texts == N_OPR, "one text per operator");

const char *operator_text(Operator opr)
{
    return operator_texts[opr];
}

static void print_payload(const Ast *ast, Str *out)
{
    if (ast->kind == AST_INT)
        str_addf(out, " %lld", (long long)ast->as.i);
    else if (ast->kind == AST_BOOL)
        str_add(out, ast->as.i ? " true" : " false");
    else if (ast->kind == AST_UNARY || ast->kind == AST_BINARY)
        str_addf(out, " %s", operator_texts[ast->as.opr]);
    else if (ast->kind == AST_REAL) {
        str_add(out, " ");
        str_add_f64(out, ast->as.real);
    } else if (ast->kind == AST_STRING || ast->kind == AST_AT) {
        str_add(out, " ");
        str_add_json(out, ast->text);
    } else if (*ast->text)
        str_addf(out, " %s", ast->text);
}

static void print_node(const Ast *ast, uint32_t indent, Str *out)
{
    for (uint32_t i = 0; i < indent; i++) str_add(out, "  ");
    if (!ast) {
        str_add(out, "-\n");
        return;
    }
    str_add(out, kind_names[ast->kind]);
    print_payload(ast, out);
    if (ast->precision) str_addf(out, " precision %s", ast->precision);
    str_addf(out, " @%u:%u\n", ast->pos.line, ast->pos.col);
    for (uint32_t i = 0; i < ast->n; i++) print_node(ast->kid[i], indent + 1, out);
}

void ast_print(const Ast *ast, Str *out)
{
    print_node(ast, 0, out);
}
